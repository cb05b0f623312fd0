"""The simple methods: by hand, on planted truths, held to a published benchmark, and searched for leaks."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import Data

from stgcn_lab.baselines import (
    GNAR,
    VAR,
    climatology,
    eof_kmeans,
    event_rate,
    fit_ar,
    fit_damped_persistence,
    fit_gnar,
    fit_kriging,
    fit_logistic,
    fit_trees,
    fit_var,
    persistence,
)
from stgcn_lab.datasets import drop_leap_days, load_irish_wind
from stgcn_lab.graphs import directional_operators, grid_graph, knn_graph
from stgcn_lab.simulate import mean_pattern_regimes, travelling_regimes


def as_series(values, start="2000-01-01", freq="D") -> xr.DataArray:
    values = np.asarray(values)
    values = values[:, None] if values.ndim == 1 else values
    stations = values.shape[1]
    return xr.DataArray(
        values,
        dims=("time", "station"),
        coords={
            "time": pd.date_range(start, periods=len(values), freq=freq),
            "station": [f"S{i}" for i in range(stations)],
            "lat": ("station", 50.0 + np.arange(stations)),
            "lon": ("station", -8.0 + np.arange(stations)),
        },
        attrs={"units": "m s-1"},
        name="wind",
    )


@pytest.fixture(autouse=True)
def _no_warnings():
    """Missing values are ordinary: they must not fill the reader's page with warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", ResourceWarning)  # what another test left, collected here
        yield


# ---------------------------------------------------------------------------- climatology


def daily(years=4, start="2001-01-01", seed=0, stations=2) -> xr.DataArray:
    steps = len(pd.date_range(start, periods=years, freq="YS")) * 365 + sum(
        y % 4 == 0 for y in range(int(start[:4]), int(start[:4]) + years)
    )
    return as_series(np.random.default_rng(seed).standard_normal((steps, stations)), start)


def test_calendar_mean_by_hand():
    train, test = daily(), daily(2, "2005-01-01", 1)
    found = climatology(train, test.time)
    for t in (0, 40, 59, 364, 365, 700):
        when = pd.Timestamp(test.time.values[t])
        same_day = [i for i, d in enumerate(train.indexes["time"]) if (d.month, d.day) == (when.month, when.day)]
        assert len(same_day) == 4
        np.testing.assert_allclose(found[t], train.values[same_day].mean(0), rtol=1e-12)
    assert found.dims == ("time", "station") and found.attrs == train.attrs and found.name == "wind"
    assert (found.time == test.time).all() and (found.lat == train.lat).all()


def test_calendar_mean_of_months():
    train, test = as_series(np.arange(36.0), "1990-01-01", "MS"), as_series(np.zeros(12), "1995-01-01", "MS")
    np.testing.assert_allclose(climatology(train, test.time)[:, 0], np.arange(12) + 12)


def test_calendar_mean_of_months_stamped_at_their_end():
    """28 and 29 February stamp the same month."""
    train = as_series(np.random.default_rng(0).standard_normal(48), "2000-01-31", "ME")
    february = (train.time.dt.month == 2).values
    found = climatology(train, train.time)[february, 0]
    np.testing.assert_allclose(found, train.values[february].mean())


def test_leap_day_takes_28_february_only_where_it_has_none_of_its_own():
    leap_test = daily(1, "2004-01-01")
    at = (leap_test.time.dt.month == 2) & (leap_test.time.dt.day == 29)
    without = daily(3, "2001-01-01")
    found = climatology(without, leap_test.time)
    np.testing.assert_allclose(found[at.values], found[np.roll(at.values, -1)])  # 28 February
    train = daily(4, "2001-01-01")
    own = train.sel(time="2004-02-29").values.squeeze()
    np.testing.assert_allclose(climatology(train, leap_test.time)[at.values].squeeze(), own)


def test_leap_day_of_a_station_that_missed_all_of_them():
    """Where a station has 28 Februaries and no 29th, the rule holds for that station too."""
    train = daily(4, "2001-01-01")
    train.loc["2004-02-29", "S1"] = np.nan
    found = climatology(train, train.time)
    assert found.sel(time="2004-02-29", station="S0") == train.sel(time="2004-02-29", station="S0")
    assert found.sel(time="2004-02-29", station="S1") == found.sel(time="2004-02-28", station="S1")


def test_calendar_mean_passes_over_missing_values():
    train = daily(4)
    train[0, 0] = np.nan  # one first of January of four
    train.loc[train.time.dt.dayofyear == 2, "S1"] = np.nan  # every second of January
    found = climatology(train, train.time)
    firsts = train.sel(time=(train.time.dt.dayofyear == 1), station="S0").values[1:]
    assert float(found[0, 0]) == pytest.approx(firsts.mean())
    assert np.isnan(found[1, 1]) and np.isfinite(found[1, 0])


def test_calendar_mean_of_a_day_never_seen_is_missing():
    found = climatology(as_series(np.ones(31)), daily(1, "2001-01-01").time)
    assert found[:31].notnull().all() and found[31:].isnull().all()


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("harmonics", [0, 1, 3])
def test_harmonics_recover_a_planted_season(harmonics, missing):
    train = daily(6, "1995-01-01")
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 4, 2))

    def season(times):
        years = (times.values - np.datetime64("1970-01-01")) / np.timedelta64(1, "D") / 365.2425
        angle = 2 * np.pi * years[:, None, None] * np.arange(harmonics + 1)[:, None]
        return (a[: harmonics + 1] * np.cos(angle) + b[: harmonics + 1] * np.sin(angle)).sum(1)

    values = season(train.time)
    values[rng.random(values.shape) < missing] = np.nan
    later = daily(2, "2010-01-01").time
    found = climatology(train.copy(data=values), later, harmonics)
    np.testing.assert_allclose(found, season(later), atol=1e-8)
    assert found.attrs == train.attrs


def test_more_harmonics_than_needed_do_no_harm():
    train = daily(4)
    constant = climatology(train.copy(data=np.full(train.shape, 7.5)), train.time, 4)
    np.testing.assert_allclose(constant, 7.5, atol=1e-8)


def test_harmonics_of_a_station_that_never_reports_are_missing():
    train = daily()
    train[:, 1] = np.nan
    found = climatology(train, train.time, 2)
    assert found[:, 0].notnull().all() and found[:, 1].isnull().all()


def test_climatology_learns_from_the_training_part_alone():
    whole = daily(6)
    train, test = whole.sel(time=slice("2001", "2004")), whole.sel(time=slice("2005", "2006"))
    for harmonics in (None, 2):
        before = climatology(train, test.time, harmonics)
        test[:] = 1e6
        xr.testing.assert_identical(climatology(train, test.time, harmonics), before)


def test_climatology_does_not_change_its_input():
    train = daily()
    copy = train.copy(deep=True)
    climatology(train, train.time)
    climatology(train, train.time, 2)
    xr.testing.assert_identical(train, copy)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s: climatology(s.values, s.time), TypeError, ["train", "DataArray", "ndarray"]),
        (lambda s: climatology(s.to_dataset(), s.time), TypeError, ["train", "DataArray", "Dataset"]),
        (lambda s: climatology(s.transpose(), s.time), ValueError, ["train", "(time, station)", "'station', 'time'"]),
        (lambda s: climatology(s[::-1], s.time), ValueError, ["train", "rising order"]),
        (lambda s: climatology(s[:, :0], s.time), ValueError, ["train", "at least one station"]),
        (lambda s: climatology(s, s.time.values), TypeError, ["times", "time coordinate", "ndarray"]),
        (lambda s: climatology(s, s), TypeError, ["times", "time coordinate", "station"]),
        (lambda s: climatology(s, xr.DataArray([1, 2], dims="time")), TypeError, ["times", "datetime64", "int64"]),
        (lambda s: climatology(s.assign_coords(time=range(s.time.size)), s.time), TypeError, ["train", "int64"]),
        (lambda s: climatology(s.astype(str), s.time), TypeError, ["train", "numbers"]),
        (lambda s: climatology(s, s.time, -1), ValueError, ["harmonics", "at least 0", "-1"]),
        (lambda s: climatology(s, s.time, 1.5), ValueError, ["harmonics", "whole number", "1.5"]),
        (lambda s: climatology(s, s.time, True), ValueError, ["harmonics", "True"]),
        (lambda s: climatology(s[:4], s.time, 2), ValueError, ["train", "at least 5", "4", "S0"]),
    ],
)
def test_climatology_refuses_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call(daily())
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- persistence


@pytest.mark.parametrize("lead", [1, 2, 5])
def test_persistence_stands_under_its_valid_time(lead):
    series = as_series(np.random.default_rng(0).standard_normal((20, 3)))
    forecast = persistence(series, lead)
    assert forecast.dims == series.dims and (forecast.time == series.time).all() and forecast.attrs == series.attrs
    assert forecast[:lead].isnull().all()
    for t in range(lead, 20):
        np.testing.assert_array_equal(forecast[t], series[t - lead])
    error = forecast - series  # one subtraction compares forecast and observation
    assert error.shape == series.shape


def test_persistence_longer_than_the_series_is_missing():
    assert persistence(as_series(np.ones(5)), 9).isnull().all()


@pytest.mark.parametrize("lead", [0, -1, 1.5, True, "1"])
def test_persistence_refuses_a_bad_lead(lead):
    with pytest.raises(ValueError, match="lead.*at least 1.*" + str(lead)):
        persistence(as_series(np.ones(5)), lead)


def test_persistence_refuses_another_kind_of_series():
    with pytest.raises(TypeError, match="series.*DataArray.*ndarray"):
        persistence(np.ones((5, 2)))
    with pytest.raises(ValueError, match="series.*time.*station"):
        persistence(as_series(np.ones((5, 2))).transpose())


# ---------------------------------------------------------------------------- vector autoregression


INTERCEPT = np.array([1.0, -2.0, 0.5])
LAGS = np.array([[[0.5, 0.2, 0], [0, 0.3, 0], [0.1, 0, 0.4]], [[0, 0, 0.2], [-0.3, 0.1, 0], [0, 0.1, 0]]])


def planted_var(steps=300, noise=0.0, seed=0) -> xr.DataArray:
    """x(t) = c + Phi_1 x(t-1) + Phi_2 x(t-2) + noise, from a random start so that every direction is excited."""
    rng = np.random.default_rng(seed)
    x = [5 * rng.standard_normal(3), 5 * rng.standard_normal(3)]
    for _ in range(steps - 2):
        x.append(INTERCEPT + LAGS[0] @ x[-1] + LAGS[1] @ x[-2] + noise * rng.standard_normal(3))
    return as_series(np.array(x))


def test_fit_var_recovers_planted_coefficients_exactly_without_noise():
    model = fit_var(planted_var(25), 2)
    np.testing.assert_allclose(model.intercept, INTERCEPT, atol=1e-5)
    np.testing.assert_allclose(model.coefficients, LAGS, atol=1e-5)


def test_fit_var_recovers_planted_coefficients_from_noisy_weather():
    model = fit_var(planted_var(20000, noise=1.0), 2)
    np.testing.assert_allclose(model.coefficients, LAGS, atol=0.03)
    np.testing.assert_allclose(model.intercept, INTERCEPT, atol=0.1)


def test_fit_var_passes_over_steps_with_missing_values():
    series = planted_var(20000, noise=1.0)
    series = series.where(np.random.default_rng(1).random(series.shape) > 0.05)
    model = fit_var(series, 2)
    np.testing.assert_allclose(model.coefficients, LAGS, atol=0.04)


@pytest.mark.parametrize("lead", [1, 2, 3, 7])
def test_var_forecast_equals_iterating_by_hand(lead):
    series = planted_var(60, noise=1.0)
    model = fit_var(series, 2)
    forecast = model.forecast(series, lead)
    assert forecast.dims == series.dims and (forecast.time == series.time).all()
    assert forecast[: 2 + lead - 1].isnull().all() and forecast[2 + lead - 1 :].notnull().all()
    x = series.values
    for origin in range(1, 60 - lead):
        before, now = x[origin - 1], x[origin]
        for _ in range(lead):
            before, now = now, model.intercept + model.coefficients[0] @ now + model.coefficients[1] @ before
        np.testing.assert_allclose(forecast.values[origin + lead], now, rtol=1e-10, atol=1e-12)


METHODS = {  # each fitted to a series and a lead: a function from a series to its forecast
    "persistence": lambda s, lead: lambda x: persistence(x, lead),
    "damped": lambda s, lead: lambda x: fit_damped_persistence(s).forecast(x, lead),
    "ar": lambda s, lead: lambda x: fit_ar(s, 2).forecast(x, lead),
    "var": lambda s, lead: lambda x: fit_var(s, 2).forecast(x, lead),
    "ridge": lambda s, lead: lambda x: fit_var(s, 2, 0.1).forecast(x, lead),
    "gnar": lambda s, lead: lambda x: fit_gnar(s, line(s), 2).on(line(s), s.station.values).forecast(x, lead),
    "kriging": lambda s, lead: lambda x: fit_kriging(s, 2).forecast(x, lead),
    "trees": lambda s, lead: fitted_trees(s, 2, lead, rounds=5),
    "pooled trees": lambda s, lead: fitted_trees(s, 2, lead, rounds=5, pooled=True),
}


def line(series, k=1) -> Data:
    return knn_graph(series.lat.values, series.lon.values, k)


def fitted_trees(series, order, lead, **options):
    model = fit_trees(series, line(series), order, lead, **options)
    return lambda x: model.forecast(x, lead)


@pytest.mark.parametrize("lead", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_no_forecast_sees_later_than_its_origin(method, lead):
    """Changing the values after t changes no forecast that is valid at t + lead or before."""
    series = planted_var(80, noise=1.0)
    forecast = METHODS[method](series, lead)
    before, t = forecast(series), 50
    assert before.dims == series.dims and before[t:].notnull().all() and (before.time == series.time).all()
    changed = series.copy(deep=True)
    changed[t + 1 :] += 100
    after = forecast(changed)
    np.testing.assert_array_equal(before[: t + lead + 1], after[: t + lead + 1])
    assert (before[t + lead + 1] != after[t + lead + 1]).any()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_series_and_shares_the_form(method):
    """Units and places stay, the forecast of a lead beyond the series is missing, other stations are refused."""
    series = planted_var(80, noise=1.0)
    copy = series.copy(deep=True)
    forecast = METHODS[method](series, 2)
    found = forecast(series)
    xr.testing.assert_identical(series, copy)
    assert found.attrs == series.attrs and found.name == series.name and (found.lat == series.lat).all()
    assert forecast(series[:2]).isnull().all()
    xr.testing.assert_identical(forecast(series), found)
    if method != "persistence":
        with pytest.raises(ValueError, match="series.*3 stations of the fit"):
            forecast(series[:, [2, 1, 0]])
    with pytest.raises(TypeError, match="series.*DataArray"):
        forecast(series.values)
    with pytest.raises(ValueError, match="series.*infinite"):
        forecast(series.where(series < 0, np.inf))


def test_var_forecast_that_needs_a_missing_value_is_missing():
    series = planted_var(30, noise=1.0)
    model = fit_var(series, 2)
    series[10, 1] = np.nan
    missing = model.forecast(series).isnull().all("station").values
    assert np.flatnonzero(missing).tolist() == [0, 1, 11, 12]


@pytest.mark.parametrize("lead", [5, 6, 20])
def test_var_forecast_with_a_lead_beyond_the_series_is_missing(lead):
    model = fit_var(planted_var(60, noise=1.0), 1)
    forecast = model.forecast(planted_var(5, noise=1.0), lead)
    assert forecast.shape == (5, 3) and forecast.isnull().all()


def test_var_forecast_keeps_the_series_it_was_given():
    series = planted_var(30)
    copy = series.copy(deep=True)
    fit_var(series, 2).forecast(series, 2)
    xr.testing.assert_identical(series, copy)


def test_var_does_not_take_stations_in_another_order():
    """The coefficients belong to stations; swapped columns would be a silent fault."""
    series = planted_var(60, noise=1.0)
    model = fit_var(series, 1)
    with pytest.raises(ValueError, match="series.*station"):
        model.forecast(series[:, [2, 1, 0]])


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s: fit_var(s.values, 1), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: fit_var(s.transpose(), 1), ValueError, ["series", "(time, station)"]),
        (lambda s: fit_var(s, 0), ValueError, ["order", "at least 1", "0"]),
        (lambda s: fit_var(s, 1.0), ValueError, ["order", "whole number", "1.0"]),
        (lambda s: fit_var(s[:5], 2), ValueError, ["series", "at least 7", "order 2", "3 stations", "3"]),
        (lambda s: fit_var(s[:2], 3), ValueError, ["series", "at least 10", "found 0"]),
        (lambda s: fit_var(s * np.nan, 1), ValueError, ["series", "at least 4", "found 0"]),
        (lambda s: fit_var(s, 1).forecast(s.values), TypeError, ["series", "DataArray"]),
        (lambda s: fit_var(s, 1).forecast(s[:, :2]), ValueError, ["series", "3 stations", "2"]),
        (lambda s: fit_var(s, 1).forecast(s, 0), ValueError, ["lead", "at least 1", "0"]),
        (lambda s: fit_var(s, 1).spread(0), ValueError, ["lead", "at least 1", "0"]),
        (lambda s: VAR(np.arange(3), INTERCEPT, LAGS).spread(), ValueError, ["residual_covariance", "None"]),
        (lambda s: fit_var(s, 1, -0.1), ValueError, ["ridge", "at least 0", "-0.1"]),
        (lambda s: fit_var(s, 1, np.inf), ValueError, ["ridge", "at least 0", "inf"]),
        (lambda s: fit_var(s, 1, True), ValueError, ["ridge", "at least 0", "True"]),
        (lambda s: fit_var(s, 1, "0"), ValueError, ["ridge", "at least 0", "'0'"]),
        (lambda s: fit_var(s[:3], 2, 0.1), ValueError, ["series", "at least 2", "order 2", "found 1"]),
        (lambda s: fit_ar(s.values, 1), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: fit_ar(s[:, :0], 1), ValueError, ["series", "at least one station"]),
        (lambda s: fit_ar(s, 0), ValueError, ["order", "at least 1", "0"]),
        (lambda s: fit_ar(s[:2], 3), ValueError, ["series", "at least 4", "order 3", "'S0'", "found 0"]),
        (lambda s: fit_ar(s.where(s.lat != 51), 1), ValueError, ["series", "at least 2", "'S1'", "found 0"]),
        (lambda s: fit_kriging(s.values, 1), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: fit_kriging(s, 1.5), ValueError, ["order", "whole number", "1.5"]),
        (lambda s: fit_kriging(s[:2], 3), ValueError, ["series", "2 steps after", "found none"]),
        (lambda s: fit_kriging(s.where(s.lat != 51), 1), ValueError, ["series", "'S1'", "found none"]),
        (lambda s: fit_kriging(s.where(s.lat != 51, 7), 1), ValueError, ["inverted", "constant"]),
        (lambda s: fit_kriging(s.isel(station=[0, 1, 0]), 1), ValueError, ["inverted", "repeated"]),
        (lambda s: fit_kriging(s[:6], 3), ValueError, ["inverted", "6 steps", "order 3"]),
        (lambda s: fit_damped_persistence(s.values), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: fit_damped_persistence(s.where(s.lat != 51)), ValueError, ["series", "every station", "'S1'"]),
        (lambda s: fit_damped_persistence(s).forecast(s, 0), ValueError, ["lead", "at least 1", "0"]),
        (lambda s: fit_damped_persistence(s).forecast(s, 40), ValueError, ["lead", "fewer", "40"]),
        (lambda s: fit_damped_persistence(s).spread(1.0), ValueError, ["lead", "whole number", "1.0"]),
        (lambda s: fit_trees(s.values, line(s)), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: fit_trees(s, s.values), TypeError, ["graph", "Data", "ndarray"]),
        (lambda s: fit_trees(s, line(s[:, :2])), ValueError, ["graph", "3 nodes", "found 2"]),
        (lambda s: fit_trees(s, line(s), 0), ValueError, ["order", "at least 1", "0"]),
        (lambda s: fit_trees(s, line(s), lead=0), ValueError, ["lead", "at least 1", "0"]),
        (lambda s: fit_trees(s, line(s), lead=[]), ValueError, ["lead", "at least one", "none"]),
        (lambda s: fit_trees(s, line(s), lead=[1, 2.0]), ValueError, ["lead", "whole number", "2.0"]),
        (lambda s: fit_trees(s, line(s), rounds=0), ValueError, ["rounds", "at least 1", "0"]),
        (lambda s: fit_trees(s, line(s), leaves=1), ValueError, ["leaves", "at least 2", "1"]),
        (lambda s: fit_trees(s, line(s), seed=-1), ValueError, ["seed", "at least 0", "-1"]),
        (lambda s: fit_trees(s.where(s.lat != 51), line(s), rounds=1), ValueError, ["series", "'S1'", "found 0"]),
        (lambda s: fit_trees(s, line(s), lead=38, rounds=1), ValueError, ["series", "lead 38", "found 0"]),
        (lambda s: fit_trees(s.drop_vars("lat"), line(s), pooled=True), ValueError, ["series", "lat and lon"]),
        (lambda s: fit_trees(s.assign_coords(time=range(40)), line(s)), TypeError, ["series", "datetime64", "int64"]),
        (lambda s: fitted_trees(s, 1, 2, rounds=1)(s.assign_coords(time=range(40))), TypeError, ["datetime64"]),
        (lambda s: fit_trees(s, line(s), 1, [2, 4], rounds=1).forecast(s), ValueError, ["lead", "[2, 4]", "found 1"]),
    ],
)
def test_var_refuses_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call(planted_var(40, noise=1.0))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_residual_covariance_by_hand():
    series = planted_var(60, noise=1.0)
    model = fit_var(series, 2)
    error = (series - model.forecast(series))[2:].values
    np.testing.assert_allclose(model.residual_covariance, error.T @ error / (58 - 7), rtol=1e-10)
    saturated = fit_var(series[:9], 2)  # as many steps as coefficients: nothing left to judge by
    assert np.isnan(saturated.spread()).all()


SQUARE_ROOT = np.array([[1.0, 0, 0], [0.6, 0.8, 0], [-0.5, 0.2, 0.6]])  # of the covariance of the noise


def correlated_var(steps, seed=0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    noise, x = rng.standard_normal((steps, 3)) @ SQUARE_ROOT.T, np.zeros((steps, 3))
    for t in range(2, steps):
        x[t] = INTERCEPT + LAGS[0] @ x[t - 1] + LAGS[1] @ x[t - 2] + noise[t]
    return as_series(x[-(steps - 50) :])


@pytest.mark.parametrize("lead", [1, 2, 5, 12])
def test_spread_of_a_known_model_equals_monte_carlo(lead):
    series = correlated_var(60000)
    model = VAR(series.station.values, INTERCEPT, LAGS, SQUARE_ROOT @ SQUARE_ROOT.T)
    error = model.forecast(series, lead) - series
    assert model.spread(lead).dims == ("station",)
    np.testing.assert_allclose(model.spread(lead), error.std("time"), rtol=0.02)
    np.testing.assert_allclose(error.mean("time"), 0, atol=0.05)


@pytest.mark.parametrize("fit", [lambda s: fit_var(s, 2), lambda s: fit_kriging(s, 2), fit_damped_persistence])
@pytest.mark.parametrize("lead", [1, 4])
def test_spread_of_a_fitted_model_holds_on_other_weather(fit, lead):
    model, later = fit(correlated_var(8000)), correlated_var(8000, seed=1)
    error = model.forecast(later, lead) - later
    np.testing.assert_allclose(model.spread(lead), error.std("time"), rtol=0.05)
    outside = (np.abs(error) > 1.96 * model.spread(lead))[20:].mean()
    assert float(outside) == pytest.approx(0.05, abs=0.01)


# ---------------------------------------------------------------------------- autoregression of each station alone


def planted_ar(steps, seed=0) -> xr.DataArray:
    """Three stations that do not listen to each other, but to the same noise in part."""
    rng = np.random.default_rng(seed)
    phi, x = np.array([[0.5, 0.9, -0.3], [0.2, -0.4, 0.0]]), np.zeros((steps, 3))
    noise = rng.standard_normal((steps, 3)) @ SQUARE_ROOT.T
    for t in range(2, steps):
        x[t] = INTERCEPT + phi[0] * x[t - 1] + phi[1] * x[t - 2] + noise[t]
    return as_series(x)


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_fit_ar_recovers_planted_coefficients(missing):
    series = planted_ar(20000)
    model = fit_ar(series.where(np.random.default_rng(1).random(series.shape) >= missing), 2)
    expected = [np.diag([0.5, 0.9, -0.3]), np.diag([0.2, -0.4, 0.0])]
    np.testing.assert_allclose(model.coefficients, expected, atol=0.03)
    np.testing.assert_allclose(model.intercept, INTERCEPT, atol=0.1)
    np.testing.assert_allclose(model.residual_covariance, SQUARE_ROOT @ SQUARE_ROOT.T, atol=0.05)


def test_fit_ar_is_fit_var_of_each_station():
    series = correlated_var(300)
    whole = fit_ar(series, 3)
    for lead in (1, 4):
        alone = [fit_var(series[:, [i]], 3) for i in range(3)]
        for i, model in enumerate(alone):
            np.testing.assert_allclose(whole.forecast(series, lead)[:, i], model.forecast(series[:, [i]], lead)[:, 0])
            np.testing.assert_allclose(whole.spread(lead)[i], model.spread(lead)[0])


def test_a_station_alone_does_not_miss_its_neighbours():
    """0 * NaN is NaN, but a weight of zero needs no value."""
    series = planted_ar(60)
    model = fit_ar(series, 2)
    before = model.forecast(series, 2)
    series[30, 1] = np.nan
    after = model.forecast(series, 2)
    np.testing.assert_array_equal(before[:, [0, 2]], after[:, [0, 2]])
    assert np.flatnonzero(np.isnan(after[:, 1])).tolist() == [0, 1, 2, 32, 33]


def test_stations_that_never_report_together_have_their_own_spread():
    series = planted_ar(400)
    series[:200, 0] = np.nan
    series[200:, 1] = np.nan
    model = fit_ar(series, 1)
    assert model.residual_covariance[0, 1] == 0 and np.isfinite(model.spread(3)).all()


# ---------------------------------------------------------------------------- a penalty on the coefficients


def test_ridge_by_hand():
    """The penalised fit is the plain fit with extra rows, p sqrt(penalty) on each standardised predictor of lag p."""
    series, penalty, rows = correlated_var(200) * [1.0, 10.0, 0.1], 0.3, 148
    model = fit_var(series, 2, penalty)
    x = series.values
    z = np.concatenate([x[1:-1], x[:-2]], axis=1)
    mean, scale = z.mean(0), z.std(0)
    design = np.concatenate([(z - mean) / scale, np.sqrt(penalty * rows) * np.diag([1, 1, 1, 2, 2, 2])])
    target = np.concatenate([x[2:] - x[2:].mean(0), np.zeros((6, 3))])
    b = np.linalg.lstsq(design, target, rcond=None)[0] / scale[:, None]
    np.testing.assert_allclose(model.coefficients, [b[:3].T, b[3:].T], rtol=1e-8)
    np.testing.assert_allclose(model.intercept, x[2:].mean(0) - mean @ b, rtol=1e-8)


def test_ridge_between_least_squares_and_the_mean():
    series = correlated_var(300)
    plain, tiny, huge = (fit_var(series, 2, ridge) for ridge in (0, 1e-9, 1e9))
    np.testing.assert_allclose(tiny.coefficients, plain.coefficients, atol=1e-6)
    np.testing.assert_allclose(tiny.residual_covariance, plain.residual_covariance, rtol=1e-6)
    np.testing.assert_allclose(huge.coefficients, 0, atol=1e-6)
    np.testing.assert_allclose(huge.intercept, series[2:].mean("time"), rtol=1e-6)


def test_ridge_needs_fewer_steps_than_coefficients():
    rng = np.random.default_rng(0)
    series = as_series(rng.standard_normal((30, 40)))
    series[:, 3] = 5.0  # constant
    model = fit_var(series, 1, 0.5)
    assert model.forecast(series)[1:].notnull().all() and np.isfinite(model.spread()).all()


# ---------------------------------------------------------------------------- kriging


def covariance_by_hand(x, lag) -> np.ndarray:
    found = np.zeros((x.shape[1], x.shape[1]))
    anomaly = x - x.mean(0)
    for t in range(lag, len(x)):
        found += np.outer(anomaly[t], anomaly[t - lag])
    return found / len(x)


def test_kriging_solves_the_yule_walker_equations():
    series, order = correlated_var(400), 3
    model = fit_kriging(series, order)
    c = {lag: covariance_by_hand(series.values, lag) for lag in range(order + 1)}
    c |= {-lag: c[lag].T for lag in range(1, order + 1)}
    phi = [np.eye(3), *model.coefficients]
    for p in range(1, order + 1):
        np.testing.assert_allclose(sum(phi[q] @ c[p - q] for q in range(1, order + 1)), c[p], rtol=1e-8, atol=1e-10)
    variance = c[0] - sum(phi[p] @ c[p].T for p in range(1, order + 1))
    np.testing.assert_allclose(model.residual_covariance, variance, rtol=1e-8, atol=1e-10)
    at_the_mean = series.copy(data=np.tile(series.values.mean(0), (350, 1)))
    np.testing.assert_allclose(model.forecast(at_the_mean)[order:], at_the_mean[order:], rtol=1e-10)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_kriging_recovers_planted_coefficients(missing):
    series = correlated_var(40000)
    series = series.where(np.random.default_rng(1).random(series.shape) >= missing)
    model = fit_kriging(series, 2)
    np.testing.assert_allclose(model.coefficients, LAGS, atol=0.04)
    np.testing.assert_allclose(model.intercept, INTERCEPT, atol=0.1)
    np.testing.assert_allclose(model.residual_covariance, SQUARE_ROOT @ SQUARE_ROOT.T, atol=0.05)


# ---------------------------------------------------------------------------- damped persistence


@pytest.mark.parametrize("lead", [1, 3])
def test_damped_persistence_by_hand(lead):
    series = correlated_var(120)
    model, x = fit_damped_persistence(series), series.values
    found = model.forecast(series, lead)
    assert found[:lead].isnull().all()
    for i in range(3):
        anomaly = x[:, i] - x[:, i].mean()
        r = sum(anomaly[t] * anomaly[t - lead] for t in range(lead, len(x))) / (anomaly**2).sum()
        np.testing.assert_allclose(found[lead:, i], x[:, i].mean() + r * anomaly[:-lead])
        assert float(model.spread(lead)[i]) == pytest.approx(x[:, i].std() * np.sqrt(1 - r**2))
    missing = series.where(np.random.default_rng(0).random(series.shape) > 0.1)
    np.testing.assert_array_equal(np.isnan(model.forecast(missing, lead))[lead:], np.isnan(missing)[:-lead])


def test_damped_persistence_passes_over_missing_values_and_constants():
    series = planted_ar(30000)
    gappy = series.where(np.random.default_rng(1).random(series.shape) > 0.3)
    gappy[:, 2] = 0.1  # constant, with a mean that rounds
    whole, model = fit_damped_persistence(series), fit_damped_persistence(gappy)
    np.testing.assert_allclose(model.spread(2)[:2], whole.spread(2)[:2], rtol=0.02)
    np.testing.assert_allclose(model.forecast(gappy)[1:, 2], 0.1)
    assert float(model.spread()[2]) == pytest.approx(0, abs=1e-12)


def test_damped_persistence_does_not_follow_the_training_part_when_it_is_changed():
    series = planted_ar(60)
    model = fit_damped_persistence(series)
    before = model.spread().copy()
    series[:] = 0
    xr.testing.assert_identical(model.spread(), before)


# ---------------------------------------------------------------------------- trees


def echo(steps=3000, seed=0) -> xr.DataArray:
    """Station 1 repeats yesterday's square of station 0, which no linear method sees; 2 is apart."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((steps, 3))
    x[1:, 1] = x[:-1, 0] ** 2 - 1 + 0.3 * x[1:, 1]
    return as_series(x)


def directed(series, *edges) -> Data:
    graph = line(series)
    graph.edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    graph.edge_weight = torch.ones(len(edges))
    return graph


def rmse(model, series, lead=1) -> np.ndarray:
    return np.sqrt(((model.forecast(series, lead) - series) ** 2).mean("time")).values


@pytest.mark.parametrize("pooled", [False, True])
def test_trees_see_what_no_linear_method_sees(pooled):
    train, test = echo(), echo(1000, seed=1)
    trees = fit_trees(train, directed(train, (0, 1)), 2, pooled=pooled, rounds=100)
    spread = test.std("time").values  # the error of climatology
    assert rmse(trees, test)[1] < 0.5 * spread[1]
    assert rmse(fit_var(train, 2), test)[1] > 0.95 * spread[1]
    assert (rmse(trees, test)[[0, 2]] > 0.95 * spread[[0, 2]]).all()  # nothing to be seen there


def test_trees_look_at_the_sources_of_their_edges_and_nowhere_else():
    train, test = echo(), echo(1000, seed=1)
    assert rmse(fit_trees(train, directed(train, (1, 0)), 2, rounds=50), test)[1] > 0.95 * test[:, 1].std()
    alone = fit_trees(train, directed(train), 2, rounds=20)
    changed = test.copy(deep=True)
    changed[:, 0] = 0
    np.testing.assert_array_equal(alone.forecast(changed)[:, 1:], alone.forecast(test)[:, 1:])


@pytest.mark.parametrize("pooled", [False, True])
def test_each_lead_has_its_own_trees(pooled):
    train, test = echo(), echo(1000, seed=1)
    graph = directed(train, (0, 1))
    both = fit_trees(train, graph, 2, [1, 2], pooled=pooled, rounds=30)
    for lead in (1, 2):
        found = both.forecast(test, lead)
        one = fit_trees(train, graph, 2, lead, pooled=pooled, rounds=30)
        xr.testing.assert_identical(found, one.forecast(test, lead))
        assert found[: lead + 1].isnull().all() and found[lead + 1 :].notnull().all()
    assert rmse(both, test, 2)[1] > 0.95 * test[:, 1].std()  # an echo of one day is gone after two


def test_trees_are_drawn_by_their_seed():
    train = echo(500)
    first, again, other = (fit_trees(train, line(train), 2, rounds=20, seed=seed).forecast(train) for seed in (3, 3, 4))
    xr.testing.assert_identical(first, again)
    assert (first != other)[2:].any()


@pytest.mark.parametrize("pooled", [False, True])
def test_trees_do_without_what_is_missing(pooled):
    """Also without a station that went silent, as long as anything was observed."""
    rng = np.random.default_rng(2)
    train, test = echo(), echo(1000, seed=1)
    train, test = (s.where(rng.random(s.shape) > 0.1) for s in (train, test))
    test[500:503] = np.nan
    model = fit_trees(train, directed(train, (0, 1), (2, 1)), 2, pooled=pooled, rounds=50)
    found = model.forecast(test)
    assert found[502:504].isnull().all() and found[2:501, 1].notnull().mean() > 0.99
    assert rmse(model, test)[1] < 0.7 * test[:, 1].std()


def test_trees_know_the_season_and_the_time_of_day():
    hours = as_series(np.zeros((24 * 60, 2)), freq="h")
    noise = np.random.default_rng(0).standard_normal(hours.shape)
    day = hours.copy(data=3 * np.cos(2 * np.pi * hours.time.dt.hour.values / 24)[:, None] + noise)
    model = fit_trees(day[: 24 * 40], directed(day), 1, 12, rounds=60)
    assert (rmse(model, day[24 * 40 :], 12) < 1.2).all() and (day.std("time") > 2).all()
    year = daily(6, "1995-01-01")
    year = year + 3 * np.cos(2 * np.pi * year.time.dt.dayofyear / 365)
    model = fit_trees(year.sel(time=slice("1995", "1999")), directed(year), 1, 40, rounds=60)
    assert (rmse(model, year.sel(time="2000"), 40) < 1.2).all()


# ---------------------------------------------------------------------------- a published benchmark
#
# Irish wind one day ahead, after Gneiting, Genton & Guttorp (2007) as published with the R package mcgf:
# 11 stations without Rosslare, 29 February left out, square root of the wind in m/s, trained on 1961-1970,
# tested on 1971-1978 without the first three days; the score is the mean over the stations of each one's
# root mean square error, and of its mean absolute error.


@pytest.fixture(scope="module")
def root_wind() -> xr.DataArray:
    wind = drop_leap_days(load_irish_wind()["wind_speed"])
    wind = wind.sel(station=wind.station != "ROS")
    root = np.sqrt(wind)
    assert root.sel(time=slice("1961", "1970")).shape == (3650, 11)
    assert root.sel(time=slice("1971", "1978")).shape == (2920, 11)
    return root


def published_season(root: xr.DataArray) -> xr.DataArray:
    """The calendar-day mean over the training years and all stations, and each station's mean on top."""
    train = root.sel(time=slice("1961", "1970"))
    regional = train.mean("station").expand_dims(station=["all"], axis=1)
    day = climatology(regional, root.time).squeeze("station", drop=True)
    return day + (train - day).mean("time")


def harmonic_season(root: xr.DataArray) -> xr.DataArray:
    """Each station's own season: a mean and one annual harmonic."""
    return climatology(root.sel(time=slice("1961", "1970")), root.time, harmonics=1)


def scores(forecast: xr.DataArray, observed: xr.DataArray) -> tuple[float, float]:
    error = (forecast - observed).sel(time=slice("1971", "1978"))[3:]
    assert error.shape == (2917, 11) and error.notnull().all()
    return float(np.sqrt((error**2).mean("time")).mean()), float(np.abs(error).mean("time").mean())


def calm(series):
    """Climatology: no anomaly is ever forecast."""
    return xr.zeros_like(series)


@pytest.mark.parametrize(
    ("season", "fit", "rmse", "mae"),
    [
        (published_season, lambda train: calm, 0.5878, 0.4733),
        (published_season, lambda train: persistence, 0.5578, 0.4389),
        (published_season, lambda train: fit_ar(train, 3).forecast, 0.4908, 0.3907),
        (published_season, lambda train: fit_var(train, 1).forecast, 0.4814, 0.3803),
        (published_season, lambda train: fit_var(train, 2).forecast, 0.4790, 0.3783),
        (published_season, lambda train: fit_var(train, 3).forecast, 0.4779, 0.3776),
        (harmonic_season, lambda train: fit_var(train, 1).forecast, 0.4631, 0.3658),
        (harmonic_season, lambda train: fit_var(train, 2).forecast, 0.4611, 0.3644),
        (harmonic_season, lambda train: fit_var(train, 3).forecast, 0.4598, 0.3635),
    ],
)
def test_irish_wind_benchmark(root_wind, season, fit, rmse, mae):
    anomaly = (root_wind - season(root_wind)).transpose("time", "station")
    forecast = fit(anomaly.sel(time=slice("1961", "1970")))(anomaly)
    assert scores(forecast, anomaly) == pytest.approx((rmse, mae), abs=5e-4)


def test_irish_wind_published_kriging_to_six_digits(root_wind):
    """Covariances of three lags, divided by all days: the published model, its intervals and its stations."""
    anomaly = (root_wind - published_season(root_wind)).transpose("time", "station")
    model = fit_kriging(anomaly.sel(time=slice("1961", "1970")), 3)
    forecast = model.forecast(anomaly)
    assert scores(forecast, anomaly) == pytest.approx((0.4778542, 0.3776108), abs=5e-7)
    error = (forecast - anomaly).sel(time=slice("1971", "1978"))[3:]
    outside = float((np.abs(error) > 1.959964 * model.spread()).mean())
    assert outside == pytest.approx(0.0696, abs=5e-4)
    stations = dict(
        zip(
            ["VAL", "BEL", "CLA", "SHA", "RPT", "BIR", "MUL", "MAL", "KIL", "CLO", "DUB"],
            [0.515, 0.510, 0.501, 0.473, 0.482, 0.480, 0.433, 0.497, 0.433, 0.484, 0.448],
            strict=True,
        )
    )
    rmse = np.sqrt((error**2).mean("time"))
    for station, published in stations.items():
        assert float(rmse.sel(station=station)) == pytest.approx(published, abs=1e-3)


def test_irish_wind_with_rosslare_as_a_twelfth_input():
    wind = drop_leap_days(load_irish_wind()["wind_speed"])
    anomaly = np.sqrt(wind) - harmonic_season(np.sqrt(wind))
    forecast = fit_var(anomaly.sel(time=slice("1961", "1970")), 3).forecast(anomaly)
    eleven = wind.station[wind.station != "ROS"]
    found = scores(forecast.sel(station=eleven), anomaly.sel(station=eleven))
    assert found == pytest.approx((0.4585, 0.3626), abs=5e-4)


def test_irish_wind_trees_see_more_than_a_station_alone_and_less_than_var(root_wind):
    """In the years of choice, 1969-70: daily wind is close to linear."""
    train_years, choice = slice("1961", "1968"), slice("1969", "1970")
    train = root_wind.sel(time=train_years)
    anomaly = root_wind.sel(time=slice("1961", "1970"))
    anomaly = anomaly - climatology(train, anomaly.time, harmonics=1)
    train = anomaly.sel(time=train_years)
    trees = fit_trees(train, line(anomaly, 10), pooled=True)
    rmse = [
        float(np.sqrt(((model.forecast(anomaly) - anomaly).sel(time=choice) ** 2).mean("time")).mean())
        for model in (fit_var(train, 3), trees, fit_ar(train, 3))
    ]
    assert rmse[0] + 0.003 < rmse[1] < rmse[2] - 0.001


def test_whole_numbers_may_be_numpy_integers():
    series, two = daily(), np.int64(2)
    xr.testing.assert_identical(climatology(series, series.time, two), climatology(series, series.time, 2))
    xr.testing.assert_identical(persistence(series, two), persistence(series, 2))
    xr.testing.assert_identical(fit_var(series, two).forecast(series, two), fit_var(series, 2).forecast(series, 2))


@pytest.mark.parametrize("harmonics", [None, 2])
def test_climatology_of_no_time_is_empty(harmonics):
    assert climatology(daily(), daily().time[:0], harmonics).shape == (0, daily().sizes["station"])


# ---------------------------------------------------------------------------- the probability of an event


def angles(series) -> np.ndarray:
    days = (series.time.values - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    return 2 * np.pi * days[:, None] / 365.2425


def seasonal_events(steps=7000, rates=(-3.0, -1.0, -4.0), amplitude=1.5, seed=0) -> tuple[xr.DataArray, np.ndarray]:
    """Events that are most frequent in the middle of January, and their probability (time, station)."""
    rng = np.random.default_rng(seed)
    empty = as_series(np.zeros((steps, len(rates))), "1990-01-01")
    p = expit(np.array(rates) + amplitude * np.cos(angles(empty) - 0.25))
    return empty.copy(data=(rng.random(p.shape) < p).astype(float)), p


def test_the_plain_rate_is_the_share_of_events():
    event, _ = seasonal_events(400)
    event[:100, 1] = np.nan
    later = as_series(np.zeros((5, 3)), "2010-01-01")
    rate = event_rate(event, later.time, 0)
    np.testing.assert_allclose(rate, np.tile(event.mean("time"), (5, 1)), rtol=1e-12)
    assert rate.dims == ("time", "station") and rate.attrs["units"] == "1"
    assert rate.lat.equals(event.lat) and rate.time.equals(later.time)


def test_the_seasonal_rate_recovers_a_planted_season():
    event, p = seasonal_events()
    later, truth = seasonal_events(365, seed=1)
    assert np.abs(event_rate(event, event.time) - p).max() < 0.04
    np.testing.assert_allclose(event_rate(event, later.time), expit(np.log(truth / (1 - truth))), atol=0.04)
    # The rate of each station is kept, whatever the common season.
    np.testing.assert_allclose(event_rate(event, event.time).mean("time"), event.mean("time"), rtol=1e-8)


@pytest.mark.parametrize("harmonics", [1, 2])
def test_the_seasonal_rate_is_the_regression_on_stations_and_harmonics(harmonics):
    event, _ = seasonal_events(3000)
    event = event.where(np.random.default_rng(2).random(event.shape) > 0.2)
    there = event.notnull().values
    wave = angles(event) * np.arange(1, harmonics + 1)
    design = np.concatenate([np.cos(wave), np.sin(wave)], axis=1)[np.nonzero(there)[0]]
    design = np.concatenate([design, np.eye(3)[np.nonzero(there)[1]]], axis=1)
    model = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10, max_iter=2000).fit(design, event.values[there])
    found = event_rate(event, event.time, harmonics).values[there]
    # The weak pull on the season is worth 0.1 in some hundreds of events.
    np.testing.assert_allclose(found, model.predict_proba(design)[:, 1], rtol=3e-3)


def test_stations_without_event_without_its_absence_and_without_reports():
    event, _ = seasonal_events(800, rates=(-2.0, -2.0, -2.0, -2.0))
    event[:, 0], event[:, 1], event[:, 2] = 0, 1, np.nan
    rate = event_rate(event, event.time)
    assert (rate[:, 0] == 0).all() and (rate[:, 1] == 1).all() and rate[:, 2].isnull().all()
    np.testing.assert_array_equal(rate[:, 3], event_rate(event[:, 3:], event.time)[:, 0])
    assert event_rate(event[:, :3], event.time).isel(station=0).equals(rate[:, 0])


@pytest.mark.parametrize("harmonics", [1, 2, 4])
def test_a_season_with_sharp_edges_is_fitted_all_the_same(harmonics):
    """Frost: certain in winter, never in summer."""
    empty = as_series(np.zeros((3650, 3)))
    event = empty.copy(data=(np.cos(angles(empty)) > np.array([0.3, 0.9, -0.9])).astype(float))
    rate, plain = (event_rate(event, event.time, number) for number in (harmonics, 0))
    np.testing.assert_allclose(rate.mean("time"), event.mean("time"), rtol=1e-6)
    assert ((rate - event) ** 2).mean() < 0.1 * ((plain - event) ** 2).mean()


@pytest.mark.parametrize("events", [1, 2])
@pytest.mark.parametrize("harmonics", [1, 3])
def test_the_rate_of_a_few_events_stays_finite(events, harmonics):
    """A wave that peaks on the only days with an event could grow without bound."""
    event = as_series(np.zeros((730, 2)))
    event[200 : 200 + events, 0] = 1
    rate = event_rate(event, event.time, harmonics)
    assert ((rate[:, 0] > 0) & (rate[:, 0] < 1)).all()
    assert int(np.argmax(rate.values[:, 0])) % 365 in range(190, 215)
    assert float(rate[:, 0].mean()) == pytest.approx(events / 730, rel=1e-6)


def seasonal_rate_by_scipy(event, harmonics) -> np.ndarray:
    wave = angles(event) * np.arange(1, harmonics + 1)
    shape, stations = np.concatenate([np.cos(wave), np.sin(wave)], axis=1), event.shape[1]

    def cost(x):
        z = x[:stations] + (shape @ x[stations:])[:, None]
        error = expit(z) - event.values
        value = (np.logaddexp(0, z) - event.values * z).sum() + 0.05 * (x[stations:] ** 2).sum()
        return value, np.r_[error.sum(axis=0), shape.T @ error.sum(axis=1) + 0.1 * x[stations:]]

    start = np.r_[logit(event.values.mean(axis=0)), np.zeros(2 * harmonics)]
    found = minimize(cost, start, jac=True, method="BFGS", options={"maxiter": 3000, "gtol": 1e-8}).x
    return expit(found[:stations] + (shape @ found[stations:])[:, None])


@pytest.mark.parametrize(("first", "events", "days"), [(0, 10, 180), (0, 20, 300), (250, 10, 500)])
@pytest.mark.parametrize("harmonics", [2, 3])
def test_the_rate_of_part_of_a_year_is_the_optimum(first, events, days, harmonics):
    """Where waves and stations are nearly alike, a whole step of Newton's goes too far."""
    event = as_series((np.arange(days) - first < events) & (np.arange(days) >= first), "2001-01-01").astype(float)
    rate = event_rate(event, event.time, harmonics)
    np.testing.assert_allclose(rate, seasonal_rate_by_scipy(event, harmonics), atol=1e-4)


@pytest.mark.parametrize("seed", [97, 430, 515, 637, 1676, *range(20)])
def test_the_rate_of_any_season_is_the_optimum(seed):
    rng = np.random.default_rng(seed)
    days, harmonics, stations = int(rng.integers(60, 1200)), int(rng.integers(1, 4)), int(rng.integers(1, 3))
    mean, amplitude, phase = rng.choice([-5, -3, -1, 0]), rng.choice([1, 2, 3, 5, 8]), rng.uniform(0, 6)
    z = mean + amplitude * np.cos(2 * np.pi * np.arange(days) / 365.25 - phase)
    event = (rng.random((stations, days)) < expit(z + rng.normal(size=stations)[:, None])).T
    event = as_series(event[:, event.any(axis=0) & ~event.all(axis=0)].astype(float), "2001-01-01")
    if event.size:
        rate = event_rate(event, event.time, harmonics)
        np.testing.assert_allclose(rate, seasonal_rate_by_scipy(event, harmonics), atol=1e-4)


def test_events_may_be_true_and_false():
    event, _ = seasonal_events(500)
    wind = planted_var(500)
    assert event_rate(event > 0, event.time).equals(event_rate(event, event.time))
    event = event.assign_coords(time=wind.time)
    assert fit_logistic(wind, event > 0).probability(wind).equals(fit_logistic(wind, event).probability(wind))


@pytest.mark.parametrize("kind", ["chunks", "short"])
def test_numbers_of_events_may_be_of_any_kind(kind):
    wind, event, _ = planted_logistic(500)
    usual = event_rate(event, wind.time), fit_logistic(wind, event).probability(wind)
    if kind == "chunks":
        pytest.importorskip("dask")
        wind, event = wind.chunk({"time": 70}), event.chunk({"time": 90})
    else:
        wind, event = wind.astype(np.float32), event.astype(np.int8)
    np.testing.assert_allclose(event_rate(event, wind.time), usual[0], atol=1e-5)
    np.testing.assert_allclose(fit_logistic(wind, event).probability(wind), usual[1], atol=1e-5)


def planted_logistic(steps=8000, lead=1, seed=0) -> tuple[xr.DataArray, xr.DataArray, np.ndarray]:
    """Wind without memory; an event follows strong wind at the neighbour in the west ``lead`` days ago, in winter."""
    rng = np.random.default_rng(seed)
    wind = as_series(5 + 2 * rng.standard_normal((steps, 3)), "1980-01-01")
    past = np.concatenate([np.full((lead, 3), 5.0), wind.values[:-lead]])
    p = expit(-2 + 0.6 * (np.roll(past, 1, axis=1) - 5) + np.cos(angles(wind)))
    return wind, wind.copy(data=(rng.random(p.shape) < p).astype(float)), p


@pytest.mark.parametrize("lead", [1, 3])
def test_fit_logistic_recovers_a_planted_law(lead):
    wind, event, p = planted_logistic(lead=lead)
    model = fit_logistic(wind, event, lags=2, ridge=0.0, lead=lead)
    expected = np.zeros((2, 3, 3))
    expected[0] = 0.6 * np.roll(np.eye(3), 1, axis=0)  # station i listens to i - 1
    np.testing.assert_allclose(model.coefficients, expected, atol=0.08)
    np.testing.assert_allclose(model.season, np.array([-2.0, 1.0, 0.0])[:, None] * np.ones(3), atol=0.15)
    said = model.probability(wind)
    assert np.abs(said.values - p)[lead + 1 :].mean() < 0.02
    assert said[: lead + 1].isnull().all() and said[lead + 1 :].notnull().all()
    assert said.attrs == {"units": "1", "long_name": "probability"} and model.lead == lead
    calm = model.probability(wind[:, :].copy(data=np.full(wind.shape, 5.0)))
    assert calm[(wind.time.dt.month == 1)].mean() > 2 * calm[(wind.time.dt.month == 7)].mean()


@pytest.mark.parametrize("harmonics", [0, 2])
def test_fit_logistic_is_the_regression_of_scikit_learn(harmonics):
    """Its penalty is one number; predictors that are stretched feel less of it, the season next to none."""
    wind, event, _ = planted_logistic(1500)
    ridge, lags = 0.01, 2
    model = fit_logistic(wind, event, lags, ridge, harmonics)
    z = ((wind - wind.mean("time")) / wind.std("time")).values
    wave = angles(wind) * np.arange(1, harmonics + 1)
    columns = [z[1:-1], z[:-2] / 2, 1e3 * np.cos(wave[2:]), 1e3 * np.sin(wave[2:])]  # lag 2: four times the penalty
    design = np.concatenate(columns, axis=1)
    for i in range(3):
        other = LogisticRegression(C=1 / (2 * ridge * len(design)), tol=1e-9, solver="newton-cg", max_iter=500)
        other.fit(design, event.values[2:, i])
        found = model.probability(wind).values[2:, i]
        np.testing.assert_allclose(found, other.predict_proba(design)[:, 1], rtol=1e-3)


def test_the_penalty_draws_fit_logistic_towards_the_seasonal_rate():
    wind, event, _ = planted_logistic(1500)
    sizes = [np.abs(fit_logistic(wind, event, ridge=ridge).coefficients).sum() for ridge in (0.0, 0.01, 1.0, 1e6)]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] and sizes[3] < 1e-4
    rate = fit_logistic(wind, event, ridge=1e6, harmonics=0).probability(wind)[10]
    np.testing.assert_allclose(rate, event[3:].mean("time"), rtol=1e-4)


@pytest.mark.parametrize("harmonics", [1, 2, 3])
@pytest.mark.parametrize("events", [1, 2, 3])
def test_a_few_events_make_no_certain_season(events, harmonics):
    rng = np.random.default_rng(0)
    wind, event = as_series(rng.normal(size=730)), as_series(np.zeros(730))
    event[rng.choice(np.arange(10, 730), events, replace=False)] = 1
    assert fit_logistic(wind, event, ridge=1.0, harmonics=harmonics).probability(wind).max() < 0.2


def test_a_season_that_tells_all_events_keeps_its_coefficients_finite():
    wind = as_series(np.random.default_rng(0).normal(size=730))
    winter = wind.copy(data=(wind.time.dt.dayofyear < 20).values[:, None].astype(float))
    assert np.abs(fit_logistic(wind, winter, ridge=1.0).season).max() < 100


@pytest.mark.parametrize("lead", [1, 2])
def test_fit_logistic_knows_nothing_of_the_days_to_come(lead):
    wind, event, _ = planted_logistic(400)
    model = fit_logistic(wind, event, lead=lead)
    changed = wind.copy(deep=True)
    changed[200:] = 99.0
    before, after = model.probability(wind), model.probability(changed)
    np.testing.assert_array_equal(before[: 200 + lead], after[: 200 + lead])
    assert (before[200 + lead] != after[200 + lead]).all()
    assert model.probability(wind[:200]).equals(before[:200])
    assert model.probability(wind[:2]).isnull().all()


def test_a_missing_value_counts_as_the_mean_and_a_missing_event_as_nothing():
    wind, event, _ = planted_logistic(600)
    gaps = wind.where(np.random.default_rng(3).random(wind.shape) > 0.1)
    model = fit_logistic(gaps, event)
    filled = gaps.fillna(gaps.mean("time"))
    np.testing.assert_allclose(model.probability(gaps), model.probability(filled), rtol=1e-12)
    assert model.probability(gaps)[3:].notnull().all()
    unknown = event.copy(deep=True)
    unknown[300:, 0] = np.nan
    cut = fit_logistic(wind, unknown, ridge=0.01).season[:, 1:]
    np.testing.assert_array_equal(cut, fit_logistic(wind, event, ridge=0.01).season[:, 1:])
    silent = wind.where(wind.lat != 51)
    assert np.abs(fit_logistic(silent, event).coefficients[:, :, 1]).max() < 1e-12
    assert fit_logistic(wind.where(wind.lat != 51, 7), event).probability(wind)[3:].notnull().all()


def test_fit_logistic_leaves_its_arguments_alone():
    wind, event, _ = planted_logistic(300)
    copies = wind.copy(deep=True), event.copy(deep=True)
    fit_logistic(wind, event).probability(wind)
    event_rate(event, wind.time)
    assert wind.identical(copies[0]) and event.identical(copies[1])


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda w, e: event_rate(e.values, w.time), TypeError, ["train_event", "DataArray", "ndarray"]),
        (lambda w, e: event_rate(e + 1, w.time), ValueError, ["train_event", "0 or 1", "from 1 to 2"]),
        (lambda w, e: event_rate(e.T, w.time), ValueError, ["train_event", "(time, station)"]),
        (lambda w, e: event_rate(e[:, :0], w.time), ValueError, ["train_event", "at least one station"]),
        (lambda w, e: event_rate(e, w), TypeError, ["times", "('time', 'station')"]),
        (lambda w, e: event_rate(e, w.time.values), TypeError, ["times", "ndarray"]),
        (lambda w, e: event_rate(e, w.time, -1), ValueError, ["harmonics", "at least 0", "-1"]),
        (lambda w, e: event_rate(e.assign_coords(time=range(300)), w.time), TypeError, ["train_event", "datetime64"]),
        (lambda w, e: fit_logistic(w.values, e), TypeError, ["train", "DataArray", "ndarray"]),
        (lambda w, e: fit_logistic(w, e.values), TypeError, ["train_event", "DataArray", "ndarray"]),
        (lambda w, e: fit_logistic(w, 0.5 * e), ValueError, ["train_event", "0 or 1", "from 0 to 0.5"]),
        (lambda w, e: fit_logistic(w, e[1:]), ValueError, ["train_event", "times of train"]),
        (lambda w, e: fit_logistic(w, e[:, ::-1]), ValueError, ["train_event", "stations of train", "S2"]),
        (lambda w, e: fit_logistic(w, e * 0), ValueError, ["train_event", "every station", "0 events", "'S0'"]),
        (lambda w, e: fit_logistic(w, e.where(e.lat != 51)), ValueError, ["train_event", "0 times at 'S1'"]),
        (lambda w, e: fit_logistic(w, e.where(e.lat != 52, 1)), ValueError, ["train_event", "297 events", "'S2'"]),
        (lambda w, e: fit_logistic(w, e, lags=0), ValueError, ["lags", "at least 1", "0"]),
        (lambda w, e: fit_logistic(w, e, lead=0), ValueError, ["lead", "at least 1", "0"]),
        (lambda w, e: fit_logistic(w, e, ridge=-1), ValueError, ["ridge", "at least 0", "-1"]),
        (lambda w, e: fit_logistic(w, e, harmonics=0.5), ValueError, ["harmonics", "0.5"]),
        (lambda w, e: fit_logistic(w, e, lead=300), ValueError, ["train_event", "0 times"]),
        (lambda w, e: fit_logistic(w[:40], e[:40], ridge=0, lags=9), ValueError, ["ridge", "finite", "S"]),
        (lambda w, e: fit_logistic(w.assign_coords(time=range(300)), e), TypeError, ["train", "datetime64"]),
        (lambda w, e: fit_logistic(w, e).probability(w.values), TypeError, ["series", "DataArray"]),
        (lambda w, e: fit_logistic(w, e).probability(w[:, :2]), ValueError, ["series", "3 stations"]),
        (lambda w, e: fit_logistic(w, e).probability(w.assign_coords(time=range(300))), TypeError, ["datetime64"]),
    ],
)
def test_event_baselines_refuse_what_does_not_fit(call, error, parts):
    wind, event, _ = planted_logistic(300)
    with pytest.raises(error) as raised:
        call(wind, event)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_irish_gales_follow_the_season_and_the_wind_of_the_day_before():
    """On years that no fit has seen: logistic regression, the season, the plain rate, in this order."""
    wind = drop_leap_days(load_irish_wind()["wind_speed"]).sel(time=slice("1961", "1970"))
    train, later = slice("1961", "1966"), slice("1967", "1970")
    event = (wind > wind.sel(time=train).quantile(0.95, "time")).astype(float)
    plain, season = (event_rate(event.sel(time=train), wind.time, harmonics) for harmonics in (0, 1))
    regression = fit_logistic(np.sqrt(wind).sel(time=train), event.sel(time=train)).probability(np.sqrt(wind))
    brier = [float(((p - event) ** 2).sel(time=later).mean()) for p in (regression, season, plain)]
    assert brier[0] < 0.95 * brier[1] < brier[1] < brier[2]


# ---------------------------------------------------------------------------- EOFs and k-means


@pytest.mark.parametrize("seed", range(3))
def test_eof_kmeans_finds_planted_patterns(seed):
    series, truth = mean_pattern_regimes(40, 1500, 4, seed, signal=2.0)
    found = eof_kmeans(series, modes=6, clusters=4, seed=seed)
    assert found.dims == ("time",) and found.dtype.kind == "i" and (found.time == series.time).all()
    assert adjusted_rand_score(truth, found) > 0.95


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("modes", "window"), [(10, 1), (20, 8)])
def test_eof_kmeans_does_not_see_which_way_waves_travel(seed, modes, window):
    series, truth = travelling_regimes(100, 4000, 4, seed)
    assert adjusted_rand_score(truth, eof_kmeans(series, modes, 4, window, seed)) < 0.05


def two_states(values) -> xr.DataArray:
    """Two stations that see-saw between two patterns, with a little noise."""
    noise = 0.01 * np.random.default_rng(0).standard_normal((len(values), 2))
    return as_series(np.outer(values, [1.0, -2.0]) + noise)


def test_clusters_are_numbered_by_how_often_they_occur():
    high = np.array([0, 0, 0, 1, 1, 0, 0, 1, 0, 0])
    for seed in range(4):
        np.testing.assert_array_equal(eof_kmeans(two_states(high), 1, 2, seed=seed), high)
    np.testing.assert_array_equal(eof_kmeans(two_states(1 - high), 2, 2), high)


@pytest.mark.parametrize(
    ("window", "starts"),
    [  # the window that each of six times takes, by its first step
        (1, [0, 1, 2, 3, 4, 5]),
        (2, [0, 0, 1, 2, 3, 4]),
        (3, [0, 0, 1, 2, 3, 3]),  # t - 1 to t + 1
        (4, [0, 0, 0, 1, 2, 2]),  # t - 2 to t + 1
    ],
)
def test_a_window_is_centred_and_edges_take_the_nearest(window, starts):
    found = eof_kmeans(as_series(np.arange(6.0) ** 2), 1, 7 - window, window)
    # Every window is its own cluster, so that equal labels are equal windows.
    np.testing.assert_array_equal(found.values[:, None] == found.values, np.equal.outer(starts, starts))


def test_eof_kmeans_with_all_modes_is_kmeans_of_the_values():
    from sklearn.cluster import KMeans

    series = as_series(np.random.default_rng(1).standard_normal((200, 3)) + np.repeat([0, 5], 100)[:, None])
    plain = KMeans(2, n_init=20, random_state=0).fit_predict(series.values)
    assert adjusted_rand_score(plain, eof_kmeans(series, 3, 2)) == 1


def test_weights_say_how_much_a_station_counts():
    first, second = np.tile([0, 0, 1], 20), np.repeat([0, 0, 1], 20)
    series = as_series(np.stack([first, 1.2 * second], axis=1) + 0.01 * np.random.default_rng(0).random((60, 2)))
    np.testing.assert_array_equal(eof_kmeans(series, 1, 2), second)
    np.testing.assert_array_equal(eof_kmeans(series, 1, 2, weights=[1, 0.1]), first)
    np.testing.assert_array_equal(eof_kmeans(series, 1, 2, weights=xr.DataArray([1, 0.0], dims="station")), first)
    np.testing.assert_array_equal(eof_kmeans(series, 1, 2, weights=[3, 3]), second)


def test_eof_kmeans_repeats_and_does_not_touch_the_series():
    series = travelling_regimes(20, 200, 2)[0]
    copy = series.copy(deep=True)
    xr.testing.assert_identical(eof_kmeans(series, 3, 3, 4), eof_kmeans(series, 3, 3, np.int64(4)))
    xr.testing.assert_identical(series, copy)
    assert set(eof_kmeans(series, 3, 1).values) == {0}
    assert len(set(eof_kmeans(series[:5], 2, 5).values)) == 5  # as many clusters as times


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s: eof_kmeans(s.values, 2, 2), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: eof_kmeans(s.transpose(), 2, 2), ValueError, ["series", "(time, station)"]),
        (lambda s: eof_kmeans(s.where(s > 0), 2, 2), ValueError, ["series", "missing"]),
        (lambda s: eof_kmeans(s * 0 + 7.1, 2, 2), ValueError, ["series", "constant"]),
        (lambda s: eof_kmeans(s, 1, 1, 40), ValueError, ["window", "fewer than the 40", "40"]),
        (lambda s: eof_kmeans(s, 6, 2), ValueError, ["modes", "at most 5", "6"]),
        (lambda s: eof_kmeans(s[:4], 4, 2), ValueError, ["modes", "at most 3", "4"]),
        (lambda s: eof_kmeans(s, 2, 2, weights=[1, 0, 0, 0, 0]), ValueError, ["modes", "at most 1", "2"]),
        (lambda s: eof_kmeans(s, 0, 2), ValueError, ["modes", "at least 1", "0"]),
        (lambda s: eof_kmeans(s, 2, 2.0), ValueError, ["clusters", "whole number", "2.0"]),
        (lambda s: eof_kmeans(s, 2, 41), ValueError, ["clusters", "40", "41"]),
        (lambda s: eof_kmeans(s, 2, 39, 3), ValueError, ["clusters", "38", "39"]),
        (lambda s: eof_kmeans(s, 2, 2, 41), ValueError, ["window", "fewer than the 40", "41"]),
        (lambda s: eof_kmeans(s, 2, 2, seed=-1), ValueError, ["seed", "at least 0", "-1"]),
        (lambda s: eof_kmeans(s, 2, 2, weights=[1, 2]), ValueError, ["weights", "5 stations", "[1. 2.]"]),
        (lambda s: eof_kmeans(s, 2, 2, weights=[1, 1, 1, 1, -1]), ValueError, ["weights", "at least 0", "-1."]),
    ],
)
def test_eof_kmeans_refuses_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call(as_series(np.random.default_rng(0).standard_normal((40, 5))))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- weights that belong to no station

PLANTED = GNAR(
    own=np.array([0.3, 0.1]),
    neighbours=np.array([[0.1, -0.1, 0.05, 0.35], [0.0, 0.05, -0.05, 0.1]]),
    residual_variance=1.0,
)
SCATTERED = np.random.default_rng(3).uniform([45.0, 0.0], [60.0, 20.0], (14, 2))  # latitude and longitude


def at_places(values, lat, lon) -> xr.DataArray:
    return as_series(values).assign_coords(lat=("station", np.asarray(lat)), lon=("station", np.asarray(lon)))


def scattered(count=14, k=4, first=0) -> Data:
    return knn_graph(*SCATTERED[first : first + count].T, k)


def stations_of(graph) -> list[str]:
    return [f"S{i}" for i in range(graph.num_nodes)]


def planted_gnar(graph, steps=400, noise=1.0, seed=0, model=PLANTED) -> xr.DataArray:
    """Weather made by the formula itself, the operators taken from the layers' side of the package."""
    rng = np.random.default_rng(seed)
    sectors = directional_operators(graph, model.neighbours.shape[1], sparse=False)
    x = [*rng.standard_normal((len(model.own), graph.num_nodes))]
    for _ in range(steps - len(x)):
        new = noise * rng.standard_normal(graph.num_nodes)
        for p, (a, b) in enumerate(zip(model.own, model.neighbours, strict=True), start=1):
            new = new + a * x[-p] + sum(w * o.double().numpy() @ x[-p] for w, o in zip(b, sectors, strict=True))
        x.append(new)
    return at_places(x, *graph.pos.double().numpy().T[::-1])


def same_weights(a: GNAR, b: GNAR, **tolerance) -> None:
    np.testing.assert_allclose(a.own, b.own, **tolerance)
    np.testing.assert_allclose(a.neighbours, b.neighbours, **tolerance)


def test_fit_gnar_recovers_planted_weights_exactly_without_noise():
    graph = scattered()
    found = fit_gnar(planted_gnar(graph, 20, noise=0.0), graph, 2)
    same_weights(found, PLANTED, atol=1e-6)
    assert found.residual_variance < 1e-12


def test_fit_gnar_recovers_planted_weights_from_noisy_weather():
    graph = scattered()
    found = fit_gnar(planted_gnar(graph, 3000), graph, 2)
    same_weights(found, PLANTED, atol=0.03)
    assert found.residual_variance == pytest.approx(1, abs=0.02)


def test_fit_gnar_by_hand():
    """One row for each time and station, one column for each weight, all loops written out; one sector."""
    graph = scattered(5, 2)
    series = planted_gnar(graph, 12)
    weights = np.zeros((5, 5))
    for j, i, w in zip(*graph.edge_index.tolist(), graph.edge_weight.tolist(), strict=True):
        weights[i, j] = w
    weights /= weights.sum(axis=1, keepdims=True)
    rows, targets = [], []
    for t in range(2, 12):
        for i in range(5):
            rows.append([f for p in (1, 2) for f in (series.values[t - p, i], weights[i] @ series.values[t - p])])
            targets.append(series.values[t, i])
    b, squares, *_ = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)
    found = fit_gnar(series, graph, 2, sectors=1)
    np.testing.assert_allclose(np.column_stack([found.own, found.neighbours]).ravel(), b, atol=1e-6)
    assert found.residual_variance == pytest.approx(float(squares[0]) / (50 - 4), rel=1e-5)


@pytest.mark.parametrize("sectors", [1, 3, 4])
def test_the_same_weights_on_another_graph_are_the_formula(sectors):
    """Another number of stations; neighbours sorted by the bearing at which they are seen, all by hand."""
    rng = np.random.default_rng(sectors)
    model = GNAR(rng.normal(size=3), rng.normal(size=(3, sectors)), 0.25)
    graph = scattered(9, 3, first=5)
    lon, lat = np.radians(graph.pos.double().numpy()).T
    parts = np.zeros((sectors, 9, 9))
    for j, i, w in zip(*graph.edge_index.tolist(), graph.edge_weight.tolist(), strict=True):
        east = np.sin(lon[j] - lon[i]) * np.cos(lat[j])
        north = np.cos(lat[i]) * np.sin(lat[j]) - np.sin(lat[i]) * np.cos(lat[j]) * np.cos(lon[j] - lon[i])
        turn = np.arctan2(east, north) / (2 * np.pi) * sectors
        parts[int(np.floor(turn + 0.5)) % sectors, i, j] = w
    total = parts.sum(axis=2, keepdims=True)
    parts = np.divide(parts, total, out=np.zeros_like(parts), where=total > 0)
    found = model.on(graph, stations_of(graph))
    expected = [a * np.eye(9) + np.tensordot(b, parts, 1) for a, b in zip(model.own, model.neighbours, strict=True)]
    np.testing.assert_allclose(found.coefficients, expected, atol=1e-6)
    np.testing.assert_array_equal(found.intercept, 0)
    np.testing.assert_array_equal(found.residual_covariance, 0.25 * np.eye(9))
    assert found.stations.tolist() == stations_of(graph)
    series = planted_gnar(graph, 30)
    np.testing.assert_allclose(
        found.forecast(series)[10], sum(phi @ series.values[9 - p] for p, phi in enumerate(expected)), atol=1e-5
    )
    np.testing.assert_allclose(found.spread(), 0.5)


def test_weights_learned_here_forecast_there_as_well_as_weights_learned_there():
    here, there = scattered(), knn_graph(*(SCATTERED[:11] * [-1.2, 0.8] + [10, 100]).T, 4)
    model = fit_gnar(planted_gnar(here, 1000), here, 2)
    abroad = planted_gnar(there, 1000, seed=1)
    local = fit_gnar(abroad, there, 2)
    moved, own = (m.on(there, abroad.station.values).forecast(abroad) - abroad for m in (model, local))
    assert float((moved**2).mean()) == pytest.approx(float((own**2).mean()), rel=0.01)
    assert float((moved**2).mean()) == pytest.approx(1, rel=0.05)
    assert float((abroad**2).mean()) > 1.15


def test_weights_do_not_depend_on_the_order_of_the_stations():
    graph, order = scattered(), np.random.default_rng(0).permutation(14)
    series = planted_gnar(graph, 200)
    shuffled = knn_graph(*SCATTERED[order].T, 4)
    same_weights(fit_gnar(series[:, order], shuffled, 2), fit_gnar(series, graph, 2), atol=1e-6)


def test_gnar_passes_over_missing_values():
    """The mean of the neighbours that report; a row is left out for its own gaps and where nobody reports."""
    graph = grid_graph([50.0], np.arange(4.0), neighbours=4)  # a line from west to east
    series = planted_gnar(graph, 40, model=GNAR(PLANTED.own[:1], PLANTED.neighbours[:1], 1.0))
    gappy = series.where(np.random.default_rng(0).random(series.shape) > 0.15)
    x, rows, targets = gappy.values, [], []
    for t in range(1, 40):
        for i in range(4):
            east = x[t - 1, i + 1] if i < 3 else 0.0  # at the end of the line there is nobody
            west = x[t - 1, i - 1] if i > 0 else 0.0
            if np.isfinite([x[t, i], x[t - 1, i], east, west]).all():
                rows.append([x[t - 1, i], east, west])
                targets.append(x[t, i])
    b = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    found = fit_gnar(gappy, graph, 1)
    np.testing.assert_allclose([found.own[0], *found.neighbours[0]], [b[0], 0, b[1], 0, b[2]], atol=1e-6)


def test_one_sector_takes_the_mean_of_those_that_report():
    """Station 1 stands between 0 and 2 and follows their mean, or the one that reports; those are only noise."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3))
    x[rng.random(200) < 0.4, 0] = np.nan
    for t in range(1, 200):
        x[t, 1] = 0.7 * np.nanmean(x[t - 1, [0, 2]])
    graph = Data(
        edge_index=torch.tensor([[0, 2], [1, 1]]), pos=torch.tensor([[0.0, 50], [1, 50], [2, 50]]), num_nodes=3
    )
    series = at_places(x, [50.0] * 3, [0.0, 1, 2])
    found = fit_gnar(series, graph, 1, sectors=1)
    assert found.neighbours[0, 0] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("missing", [0.02, 0.1])
def test_fit_gnar_recovers_planted_weights_from_weather_with_gaps(missing):
    graph = scattered()
    series = planted_gnar(graph, 3000)
    gappy = series.where(np.random.default_rng(1).random(series.shape) > missing)
    same_weights(fit_gnar(gappy, graph, 2), PLANTED, atol=0.05)


def test_penalty_and_prior_by_hand():
    """More rows of the regression: p √(λ n) times the root mean square of each column, drawn to the prior."""
    graph, penalty = scattered(6, 2), 0.3
    series = planted_gnar(graph, 25) * 3
    prior = GNAR(np.array([0.5, -0.2]), np.array([[0.4], [0.1]]), 1.0)
    operator = directional_operators(graph, 1, sparse=False)[0].double().numpy()
    fields = [series.values, series.values @ operator.T]
    z = np.stack([f[2 - p : 25 - p].ravel() for p in (1, 2) for f in fields], axis=1)
    y = series.values[2:].ravel()
    for towards, given in ((np.array([0.5, 0.4, -0.2, 0.1]), prior), (np.zeros(4), None)):
        root = np.sqrt(penalty * len(y)) * np.array([1, 1, 2, 2]) * np.sqrt((z**2).mean(axis=0))
        b = np.linalg.lstsq(np.concatenate([z, np.diag(root)]), np.concatenate([y, root * towards]), rcond=None)[0]
        found = fit_gnar(series, graph, 2, 1, penalty, given)
        np.testing.assert_allclose(np.column_stack([found.own, found.neighbours]).ravel(), b, rtol=1e-5)
        gram = z.T @ z
        effective = np.trace(np.linalg.solve(gram + np.diag(root**2), gram))
        expected = ((y - z @ b) ** 2).sum() / (len(y) - effective)
        assert found.residual_variance == pytest.approx(expected, rel=1e-6) and 1 < effective < 4


def test_the_penalty_leads_from_the_plain_fit_to_the_prior():
    graph = scattered()
    series = planted_gnar(graph, 100)
    prior = GNAR(np.array([0.9, 0.0]), np.full((2, 4), 0.2), 1.0)
    plain, ignored = fit_gnar(series, graph, 2), fit_gnar(series, graph, 2, prior=prior)
    same_weights(plain, ignored, rtol=0)
    distance = [
        np.abs(fit_gnar(series, graph, 2, ridge=ridge, prior=prior).neighbours - prior.neighbours).sum()
        for ridge in (0, 0.01, 0.1, 1, 10)
    ]
    assert (np.diff(distance) < 0).all()
    same_weights(fit_gnar(series, graph, 2, ridge=1e9, prior=prior), prior, atol=1e-6)
    same_weights(fit_gnar(series, graph, 2, ridge=1e9), GNAR(np.zeros(2), np.zeros((2, 4)), 1.0), atol=1e-6)
    assert prior.own.tolist() == [0.9, 0.0]


def test_a_few_values_and_a_good_prior_beat_either_alone():
    """Four steps of 14 stations are too few for ten weights, and the weights of another climate are off."""
    graph = scattered()
    prior = GNAR(PLANTED.own * 0.7, PLANTED.neighbours + 0.15, 1.0)
    errors = []
    for seed in range(20):
        series = planted_gnar(graph, 6, seed=seed)
        fits = (fit_gnar(series, graph, 2), fit_gnar(series, graph, 2, ridge=0.3, prior=prior), prior)
        errors.append([np.square(m.neighbours - PLANTED.neighbours).sum() for m in fits])
    alone, drawn, unmoved = np.mean(errors, axis=0)
    assert drawn < 0.6 * alone and drawn < 0.8 * unmoved


def test_a_sector_without_neighbours_keeps_the_weight_of_the_prior():
    graph = grid_graph([50.0], np.arange(5.0), neighbours=4)  # nobody in the north and the south
    series = planted_gnar(graph, 50)
    plain = fit_gnar(series, graph, 2)
    drawn = fit_gnar(series, graph, 2, ridge=0.1, prior=PLANTED)
    np.testing.assert_allclose(plain.neighbours[:, [0, 2]], 0, atol=1e-12)
    np.testing.assert_allclose(drawn.neighbours[:, [0, 2]], PLANTED.neighbours[:, [0, 2]], atol=1e-12)
    assert plain.residual_variance > 0


def test_gnar_of_one_station_is_its_autoregression():
    alone = Data(edge_index=torch.zeros(2, 0, dtype=torch.long), pos=torch.tensor([[-8.0, 50.0]]), num_nodes=1)
    series = planted_ar(300)[:, :1]
    series = series - series.mean()
    found = fit_gnar(series, alone, 2)
    z = np.stack([series.values[1:-1, 0], series.values[:-2, 0]], axis=1)
    np.testing.assert_allclose(found.own, np.linalg.lstsq(z, series.values[2:, 0], rcond=None)[0], rtol=1e-6)
    np.testing.assert_array_equal(found.neighbours, np.zeros((2, 4)))
    assert found.on(alone, ["S0"]).forecast(series)[2:].notnull().all()


def test_more_lags_than_a_short_series_can_tell_need_a_penalty():
    graph = scattered()
    short = planted_gnar(graph, 6)
    with pytest.raises(ValueError, match="series.*at least 25 values.*order 5.*found 14"):
        fit_gnar(short, graph, 5)
    found = fit_gnar(short, graph, 5, ridge=0.1)
    assert np.isfinite(found.own).all() and found.residual_variance > 0
    assert np.isfinite(found.on(graph, short.station.values).spread(3)).all()


def test_gnar_keeps_what_it_is_given():
    graph = scattered()
    series = planted_gnar(graph, 60)
    before, edges = series.copy(deep=True), graph.edge_index.clone()
    fit_gnar(series, graph, 2, prior=PLANTED, ridge=1).on(graph, series.station.values).forecast(series)
    xr.testing.assert_identical(series, before)
    assert torch.equal(graph.edge_index, edges)


def test_a_model_of_one_step_and_more_is_that_of_the_var():
    """Leads feed back through the network as in any vector autoregression."""
    graph = scattered()
    model = PLANTED.on(graph, stations_of(graph))
    series = planted_gnar(graph, 4000)
    for lead in (1, 3):
        error = (model.forecast(series, lead) - series)[10:]
        np.testing.assert_allclose(error.std("time"), model.spread(lead), rtol=0.06)


def test_irish_wind_at_a_station_that_the_weights_have_not_seen(root_wind):
    """In the years of choice: ten other stations tell more of its wind than its own eight years tell alone."""
    train_years, choice = slice("1961", "1968"), slice("1969", "1970")
    wind = root_wind.sel(time=slice("1961", "1970"))
    anomaly = (wind - climatology(wind.sel(time=train_years), wind.time, harmonics=1)).transpose("time", "station")
    anomaly = anomaly / anomaly.sel(time=train_years).std("time")
    train, labels = anomaly.sel(time=train_years), anomaly.station.values
    graph = line(anomaly, 5)
    alone = fit_ar(train, 3).forecast(anomaly)
    seen = fit_gnar(train, graph, 3).on(graph, labels).forecast(anomaly)
    unseen = seen.copy(deep=True)
    for label in labels:
        others = train.sel(station=labels != label)
        model = fit_gnar(others, line(others, 5), 3).on(graph, labels)
        unseen.loc[{"station": label}] = model.forecast(anomaly).sel(station=label)
    rmse = [float(np.sqrt(((f - anomaly).sel(time=choice) ** 2).mean("time")).mean()) for f in (alone, seen, unseen)]
    assert rmse == pytest.approx([0.8727, 0.8634, 0.8633], abs=5e-4)


def elsewhere(series) -> xr.DataArray:
    return series.assign_coords(lat=series.lat + 1)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s, g: fit_gnar(s.values, g, 1), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s, g: fit_gnar(s.T, g, 1), ValueError, ["series", "(time, station)"]),
        (lambda s, g: fit_gnar(s[:, :0], g, 1), ValueError, ["series", "at least one station"]),
        (lambda s, g: fit_gnar(s / 0, g, 1), ValueError, ["series", "infinite"]),
        (lambda s, g: fit_gnar(s, s.values, 1), TypeError, ["graph", "Data", "ndarray"]),
        (lambda s, g: fit_gnar(s, None, 1), TypeError, ["graph", "Data", "NoneType"]),
        (lambda s, g: fit_gnar(s[:, :4], g, 1), ValueError, ["graph", "4 nodes", "found 6"]),
        (lambda s, g: fit_gnar(s[:, ::-1], g, 1), ValueError, ["graph", "order", "node 0", "S5"]),
        (lambda s, g: fit_gnar(elsewhere(s), g, 1), ValueError, ["graph", "where the stations are", "S0"]),
        (
            lambda s, g: fit_gnar(s, Data(edge_index=g.edge_index, num_nodes=6), 1),
            ValueError,
            ["graph", "pos", "(6, 2)"],
        ),
        (lambda s, g: fit_gnar(s, g, 0), ValueError, ["order", "at least 1", "0"]),
        (lambda s, g: fit_gnar(s, g, 1.0), ValueError, ["order", "whole number", "1.0"]),
        (lambda s, g: fit_gnar(s, g, 1, 0), ValueError, ["sectors", "at least 1", "0"]),
        (lambda s, g: fit_gnar(s, g, 1, True), ValueError, ["sectors", "whole number", "True"]),
        (lambda s, g: fit_gnar(s, g, 1, 4, -0.1), ValueError, ["ridge", "at least 0", "-0.1"]),
        (lambda s, g: fit_gnar(s, g, 1, 4, np.nan), ValueError, ["ridge", "at least 0", "nan"]),
        (lambda s, g: fit_gnar(s, g, 2, prior=0.0), TypeError, ["prior", "GNAR", "float"]),
        (lambda s, g: fit_gnar(s, g, 2, prior=fit_var(s, 2)), TypeError, ["prior", "GNAR", "VAR"]),
        (lambda s, g: fit_gnar(s, g, 1, prior=PLANTED), ValueError, ["prior", "1 lags", "2 and 4"]),
        (lambda s, g: fit_gnar(s, g, 2, 8, prior=PLANTED), ValueError, ["prior", "8 sectors", "2 and 4"]),
        (lambda s, g: fit_gnar(s * np.nan, g, 1), ValueError, ["series", "at least 5", "found 0"]),
        (lambda s, g: fit_gnar(s[:2], g, 3, ridge=1), ValueError, ["series", "at least 1", "order 3", "found 0"]),
        (lambda s, g: PLANTED.on(None, s.station), TypeError, ["graph", "Data", "NoneType"]),
        (lambda s, g: PLANTED.on(g, s.station[:5]), ValueError, ["stations", "6 labels", "(5,)"]),
        (lambda s, g: PLANTED.on(g, "S0"), ValueError, ["stations", "6 labels", "()"]),
        (lambda s, g: PLANTED.on(g, s.station).forecast(s[:, :5]), ValueError, ["series", "6 stations"]),
    ],
)
def test_gnar_refuses_what_does_not_fit(call, error, parts):
    graph = scattered(6, 2)
    series = planted_gnar(graph, 40)
    with np.errstate(all="ignore"), pytest.raises(error) as raised:
        call(series, graph)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_gnar_needs_no_names_nor_places_of_stations():
    graph = scattered()
    series = planted_gnar(graph, 100)
    bare = series.drop_vars(["station", "lat", "lon"])
    model = fit_gnar(bare, graph, 2)
    same_weights(model, fit_gnar(series, graph, 2), rtol=0)
    assert model.on(graph, np.arange(14)).forecast(bare).notnull().any()
    same_weights(fit_gnar(series.astype(np.float32), graph, np.int64(2)), model, atol=1e-5)
