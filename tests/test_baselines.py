"""The simple methods: by hand, on planted truths, held to a published benchmark, and searched for leaks."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import adjusted_rand_score

from stgcn_lab.baselines import climatology, eof_kmeans, fit_var, persistence
from stgcn_lab.datasets import load_irish_wind
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


@pytest.mark.parametrize("lead", [1, 3])
@pytest.mark.parametrize("method", ["var", "persistence"])
def test_no_forecast_sees_later_than_its_origin(method, lead):
    """Changing the values after t changes no forecast that is valid at t + lead or before."""
    series = planted_var(60, noise=1.0)
    model = fit_var(series, 2)
    forecast = (lambda s: model.forecast(s, lead)) if method == "var" else (lambda s: persistence(s, lead))
    before, t = forecast(series), 30
    changed = series.copy(deep=True)
    changed[t + 1 :] += 100
    after = forecast(changed)
    np.testing.assert_array_equal(before[: t + lead + 1], after[: t + lead + 1])
    assert (before[t + lead + 1] != after[t + lead + 1]).any()


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
    ],
)
def test_var_refuses_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call(planted_var(40, noise=1.0))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- a published benchmark
#
# Irish wind one day ahead, after Gneiting, Genton & Guttorp (2007) as published with the R package mcgf:
# 11 stations without Rosslare, 29 February left out, square root of the wind in m/s, trained on 1961-1970,
# tested on 1971-1978 without the first three days; the score is the mean over the stations of each one's
# root mean square error, and of its mean absolute error.


@pytest.fixture(scope="module")
def root_wind() -> xr.DataArray:
    wind = load_irish_wind()["wind_speed"]
    wind = wind.sel(station=wind.station != "ROS")
    wind = wind.sel(time=~((wind.time.dt.month == 2) & (wind.time.dt.day == 29)))
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


@pytest.mark.parametrize(
    ("season", "model", "rmse", "mae"),
    [
        (published_season, "climatology", 0.5878, 0.4733),
        (published_season, "persistence", 0.5578, 0.4389),
        (published_season, 1, 0.4814, 0.3803),
        (published_season, 2, 0.4790, 0.3783),
        (published_season, 3, 0.4779, 0.3776),
        (harmonic_season, 1, 0.4631, 0.3658),
        (harmonic_season, 2, 0.4611, 0.3644),
        (harmonic_season, 3, 0.4598, 0.3635),
    ],
)
def test_irish_wind_benchmark(root_wind, season, model, rmse, mae):
    anomaly = (root_wind - season(root_wind)).transpose("time", "station")
    if model == "climatology":
        forecast = xr.zeros_like(anomaly)
    elif model == "persistence":
        forecast = persistence(anomaly)
    else:
        forecast = fit_var(anomaly.sel(time=slice("1961", "1970")), model).forecast(anomaly)
    found = scores(forecast, anomaly)
    assert found[0] == pytest.approx(rmse, abs=5e-4)
    assert found[1] == pytest.approx(mae, abs=5e-4)


def test_whole_numbers_may_be_numpy_integers():
    series, two = daily(), np.int64(2)
    xr.testing.assert_identical(climatology(series, series.time, two), climatology(series, series.time, 2))
    xr.testing.assert_identical(persistence(series, two), persistence(series, 2))
    xr.testing.assert_identical(fit_var(series, two).forecast(series, two), fit_var(series, 2).forecast(series, 2))


@pytest.mark.parametrize("harmonics", [None, 2])
def test_climatology_of_no_time_is_empty(harmonics):
    assert climatology(daily(), daily().time[:0], harmonics).shape == (0, daily().sizes["station"])


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
