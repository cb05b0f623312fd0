"""Probabilities of events: against scipy, planted distortions and planted laws, and everything that could leak."""

import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from stgcn_lab import forecasting
from stgcn_lab.baselines import event_rate, fit_logistic
from stgcn_lab.events import (
    Calibration,
    EventForecaster,
    exceedance_probability,
    fit_calibration,
    fit_event_network,
)
from stgcn_lab.graphs import grid_graph
from stgcn_lab.training import History, event_loss
from stgcn_lab.verification import brier, reliability

NaN = np.nan
RING = grid_graph([50.0], np.arange(0, 360, 60), neighbours=4)  # six stations round a circle of latitude
SMALL = {"channels": (4, 4, 4), "members": 2, "epochs": 2, "learning_rate": 1e-2}


@pytest.fixture(autouse=True)
def _no_warnings():
    """Missing values are ordinary: they must not fill the reader's page with warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # what another test left, collected here
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)  # torch_geometric's own
        yield


def as_series(values, start="2000-01-01", units="m s-1") -> xr.DataArray:
    values = np.asarray(values)
    stations = values.shape[1]
    return xr.DataArray(
        values,
        dims=("time", "station"),
        coords={
            "time": pd.date_range(start, periods=len(values), freq="D"),
            "station": [f"S{i}" for i in range(stations)],
            "lat": ("station", np.full(stations, 50.0)),
            "lon": ("station", 60.0 * np.arange(stations)),
        },
        attrs={"units": units, "standard_name": "wind_speed"},
        name="wind",
    )


def draw(shape, seed=0, **options) -> xr.DataArray:
    return as_series(np.random.default_rng(seed).standard_normal(shape), **options)


def over_stations(series, values, units="m s-1") -> xr.DataArray:
    return xr.DataArray(values, dims="station", coords={"station": series.station}, attrs={"units": units})


# ---------------------------------------------------------------------------- from a forecast of values


def test_exceedance_is_the_tail_of_the_normal_law():
    mean, spread = draw((50, 3)), np.exp(draw((50, 3), 1))
    threshold = over_stations(mean, [0.5, 1.0, 9.0])
    said = exceedance_probability(mean, spread, threshold)
    np.testing.assert_allclose(said, norm.sf(threshold.values, mean.values, spread.values), rtol=1e-12)
    assert said.attrs == {"units": "1", "long_name": "probability"} and said.name == "probability"
    assert said.time.equals(mean.time) and said.lat.equals(mean.lat)


def test_the_share_of_draws_above_the_threshold():
    rng = np.random.default_rng(0)
    mean, spread = as_series([[10.0, 12.0]]), as_series([[2.0, 4.0]])
    drawn = mean.values + spread.values * rng.standard_normal((100_000, 2))
    said = exceedance_probability(mean, spread, 13.0)
    np.testing.assert_allclose(said[0], (drawn > 13).mean(axis=0), atol=0.005)


def test_forms_of_spread_and_threshold():
    mean, sigma = draw((20, 3)), over_stations(draw((1, 3)), [1.0, 2.0, 3.0])
    wide = sigma.expand_dims(time=mean.time)
    for threshold in (2, 2.0, np.float32(2), over_stations(mean, [2.0] * 3), xr.full_like(mean, 2.0), xr.DataArray(2)):
        for spread in (sigma, wide):
            said = exceedance_probability(mean, spread, threshold)
            np.testing.assert_array_equal(said, norm.sf(2, mean.values, wide.values))


def test_no_forecast_no_probability():
    mean = draw((20, 3))
    spread = xr.ones_like(mean)
    mean[3, 1], spread[5, 2] = NaN, NaN
    said = exceedance_probability(mean, spread, over_stations(mean, [0.0, 0.0, 0.0]))
    assert np.argwhere(said.isnull().values).tolist() == [[3, 1], [5, 2]]
    assert exceedance_probability(mean, spread, over_stations(mean, [NaN, 0.0, 0.0]))[:, 0].isnull().all()


# ---------------------------------------------------------------------------- calibration


def forecasts(steps=6000, seed=0) -> tuple[xr.DataArray, xr.DataArray]:
    """Probabilities of a rare event that are right, and the event."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-3, 1.5, (steps, 4)))
    return as_series(p, units="1"), as_series((rng.random(p.shape) < p).astype(float), units="1")


def distorted(probability, intercept, slope) -> xr.DataArray:
    """What must be said so that ``intercept + slope logit`` is meant."""
    return probability.copy(data=expit((logit(probability.values) - intercept) / slope))


@pytest.mark.parametrize(("intercept", "slope"), [(0.0, 1.0), (-np.log(20), 1.0), (-1.0, 0.6), (0.5, 1.8)])
def test_platt_takes_back_a_planted_distortion(intercept, slope):
    """The second is what a weight of 20 on the event does."""
    probability, event = forecasts()
    said = distorted(probability, intercept, slope)
    fitted = fit_calibration(said, event)
    np.testing.assert_allclose(fitted.values, [intercept, slope], atol=0.12)
    later, later_event = forecasts(seed=1)
    meant = fitted.apply(distorted(later, intercept, slope))
    assert np.abs(meant - later).max() < 0.05
    assert fitted.method == "platt" and isinstance(fitted, Calibration)
    if slope != 1 or intercept:
        before, after = (float(brier(p, later_event).mean()) for p in (distorted(later, intercept, slope), meant))
        assert after < before


def test_platt_is_the_logistic_regression_on_the_logit():
    probability, event = forecasts(2000)
    said = distorted(probability, -1.0, 0.6)
    x, y = logit(said.values).ravel()[:, None], event.values.ravel()
    model = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(x, y)
    fitted = fit_calibration(said, event)
    # Targets a little inside 0 and 1 hardly count with some hundreds of events.
    np.testing.assert_allclose(fitted.values, [model.intercept_[0], model.coef_[0, 0]], atol=0.02)


def test_platt_is_the_optimum_whatever_was_said():
    for seed in range(80):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 60))
        kinds = [rng.random(n), rng.integers(0, 2, n), 10 ** rng.uniform(-9, 0, n), expit(rng.normal(-4, 4, n))]
        said = kinds[seed % 4]
        happened = (said > np.median(said)) if seed % 3 == 0 else rng.random(n) < 0.3
        yes, no = happened.sum(), (~happened).sum()
        if not (yes and no):
            continue
        found = fit_calibration(as_series(said[:, None].astype(float)), as_series(happened[:, None])).values
        x, target = logit(np.clip(said, 1e-6, 1 - 1e-6)), np.where(happened, (yes + 1) / (yes + 2), 1 / (no + 2))

        def cost(b, x=x, target=target):
            z = b[0] + b[1] * x
            return (np.logaddexp(0, z) - target * z).sum()

        best = min(minimize(cost, start, method="BFGS").fun for start in ([0, 0], [0, 1], found))
        assert cost(found) < best + 1e-6, seed


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_fault_of_the_year_before_is_mended(method):
    """Said twice too often; calibrated, the frequency is what is said, in every bin with enough forecasts."""
    probability, event = forecasts(8000)
    said = distorted(probability, -np.log(10), 1.0)
    later, later_event = forecasts(8000, seed=1)
    meant = fit_calibration(said, event, method).apply(distorted(later, -np.log(10), 1.0))
    table = reliability(meant, later_event, [0, 0.02, 0.05, 0.1, 0.2, 0.4, 1])
    sampling = np.sqrt(table["frequency"] * (1 - table["frequency"]) / table["count"])
    assert (abs(table["frequency"] - table["probability"]) < 4 * sampling + 0.005).all()
    before = reliability(distorted(later, -np.log(10), 1.0), later_event, [0, 0.02, 0.05, 0.1, 0.2, 0.4, 1])
    assert (before["probability"] - before["frequency"]).max() > 0.2


def test_isotonic_is_that_of_scikit_learn_and_never_falls():
    probability, event = forecasts(500)
    said = probability.round(2)  # many ties
    fitted = fit_calibration(said, event, "isotonic")
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(said.values.ravel(), event.values.ravel())
    grid = as_series(np.linspace(0, 1, 501)[:, None])
    np.testing.assert_allclose(fitted.apply(grid)[:, 0], model.predict(grid.values[:, 0]), atol=1e-12)
    assert (np.diff(fitted.apply(grid).values[:, 0]) >= 0).all()
    # Of all rising steps it is the one with the smallest Brier score on the pairs it has seen.
    platt = fit_calibration(said, event)
    scores = [float(brier(p, event).mean()) for p in (fitted.apply(said), platt.apply(said), said)]
    assert scores[0] <= scores[1] and scores[0] <= scores[2]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_what_is_missing_stays_missing_and_teaches_nothing(method):
    probability, event = forecasts(300)
    fitted = fit_calibration(probability[:200], event[:200], method)
    gaps = probability.copy(deep=True), event.copy(deep=True)
    gaps[0][200:250], gaps[1][250:] = NaN, NaN
    again = fit_calibration(*gaps, method)
    np.testing.assert_array_equal(again.values, fitted.values)
    assert (fitted.apply(gaps[0]).isnull() == gaps[0].isnull()).all()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_calibration_serves_members_and_keeps_the_form(method):
    probability, event = forecasts(300)
    fitted = fit_calibration(probability, event, method)
    members = xr.concat([probability, probability**2], "member")
    said = fitted.apply(members)
    assert said.dims == members.dims and said.attrs == members.attrs and said.coords.equals(members.coords)
    assert said[0].equals(fitted.apply(probability)) and said.name == members.name
    assert pickle.loads(pickle.dumps(fitted)).apply(probability).equals(fitted.apply(probability))


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_extreme_and_constant_probabilities(method):
    """A network may say 0 and 1 outright, a plain rate nothing but one number."""
    probability, event = forecasts(300)
    sure = probability.where(probability > 0.02, 0.0).where(probability < 0.5, 1.0)
    said = fit_calibration(sure, event, method).apply(sure)
    assert ((said >= 0) & (said <= 1)).all()
    assert (fit_calibration(probability, event, method).apply(sure).notnull()).all()
    constant = xr.full_like(probability, 0.5)
    said = fit_calibration(constant, event, method).apply(constant)
    np.testing.assert_allclose(said, float(event.mean()), rtol=0.02)


def test_platt_stays_finite_where_the_forecast_is_never_wrong():
    _, event = forecasts(300)
    said = 0.1 + 0.8 * event
    meant = fit_calibration(said, event).apply(said)
    assert np.isfinite(meant).all() and meant.where(event == 1).min() > 0.95 and meant.where(event == 0).max() < 0.01


# ---------------------------------------------------------------------------- the network


def angle(series) -> np.ndarray:
    return 2 * np.pi * ((series.time - series.time[0]) / np.timedelta64(1, "D")).values[:, None] / 365.2425


@functools.cache
def weather(steps=500, seed=0) -> tuple[xr.DataArray, xr.DataArray]:
    """Anomalies that move east by a station a day, more events in winter. Not to be changed."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(6)]
    for _ in range(steps - 1):
        x.append(0.7 * np.roll(x[-1], 1) + 0.7 * rng.standard_normal(6))
    series = as_series(np.array(x))
    series = series + 2 * np.cos(angle(series)) + np.arange(6)
    return series.assign_attrs(units="m s-1"), (series > np.arange(6) + 2.5).astype(float)


SERIES, EVENT = weather()
TRAIN, VALIDATION = slice(0, 350), slice(350, 430)


def fitted(series=SERIES, event=EVENT, graph=RING, validate=False, **options) -> EventForecaster:
    judge = (series[VALIDATION], event[VALIDATION]) if validate else (None, None)
    return fit_event_network(series[TRAIN], event[TRAIN], *judge, graph, **{**SMALL, **options})


@functools.cache
def usual(lead=1) -> EventForecaster:
    return fitted(lead=lead)


@pytest.fixture
def untrained(monkeypatch):
    """fit_event_network as it is before the first step of training; what was passed on to fit is kept."""
    calls = []

    def no_fit(model, train, validation, **options):
        calls.append((model, train, validation, options))
        model.eval()
        return History()

    monkeypatch.setattr(forecasting, "fit", no_fit)
    return calls


@pytest.mark.parametrize("lead", [1, 3])
@pytest.mark.parametrize("lags", [1, 3])
def test_training_starts_at_the_logistic_regression(untrained, lags, lead):
    model = fitted(lags=lags, lead=lead)
    expected = fit_logistic(SERIES[TRAIN], EVENT[TRAIN], lags, lead=lead).probability(SERIES)
    said, first = model.each(SERIES), 3 + lags - 1 + lead - 1
    assert said.dims == ("member", "time", "station") and said.sizes["member"] == 2
    for member in said:
        np.testing.assert_allclose(member[first:], expected[first:], rtol=1e-4, atol=1e-6)
    assert said[:, :first].isnull().all() and said[:, first:].notnull().all()
    assert model.logistic.lead == lead and said.attrs == {"units": "1", "long_name": "probability"}


@pytest.mark.parametrize("lead", [1, 2])
def test_the_windows_hold_logits_anomalies_and_events(untrained, lead):
    model = fitted(lead=lead, lags=2, validate=True)
    _, train, judge, _ = untrained[0]
    logits = logit(fit_logistic(SERIES[TRAIN], EVENT[TRAIN], 2, lead=lead).probability(SERIES[TRAIN]).values)
    assert len(train) == 350 - 1 - 3 - (lead - 1) and len(untrained) == 2
    number = 40
    made = number + 1 + 2  # the last row of the window, one row being without its second lag
    window = train[number]
    np.testing.assert_allclose(window.x[-1, :, 0], logits[made + lead] - model.logistic.season[0], atol=1e-4)
    np.testing.assert_array_equal(window.y[0, :, 0], EVENT[TRAIN].values[made + lead])
    assert abs(float(window.x[..., 1].mean())) < 2 and window.y_mask.all()
    anomalies = train.batch(range(len(train))).x[:, -1, :, 1]
    assert anomalies.mean().abs() < 0.05 and anomalies.std() == pytest.approx(1, abs=0.05)
    inside = set(train.times.ravel().tolist()), set(judge.times.ravel().tolist())
    assert not inside[0] & inside[1]
    assert model.probability(SERIES).sizes == SERIES.sizes


def test_the_ensemble_says_the_mean_of_its_members():
    model = usual()
    each = model.each(SERIES)
    np.testing.assert_allclose(model.probability(SERIES), each.mean("member", skipna=False), rtol=1e-12)
    assert float(abs(each[0] - each[1]).max()) > 1e-4
    assert ((each > 0) & (each < 1))[:, 5:].all()
    said = model.probability(SERIES)
    assert said.dims == ("time", "station") and said.coords.equals(SERIES.coords) and said.name == "probability"
    assert said.attrs == {"units": "1", "long_name": "probability"}


@pytest.mark.parametrize("lead", [1, 2])
@pytest.mark.parametrize("t", [20, 400, 499])
def test_what_comes_later_changes_no_probability_given_before(lead, t):
    model = usual(lead)
    changed = SERIES.copy(deep=True)
    changed[t:] = 50.0 + np.arange(6)
    before, after = model.each(SERIES), model.each(changed)
    assert before[:, : t + lead].equals(after[:, : t + lead])
    if t + lead < 500:
        assert (before[:, t + lead] != after[:, t + lead]).all()
    # A stretch of another length is multiplied in other pieces, so the last digit may differ.
    np.testing.assert_allclose(model.each(SERIES[: t + 1]), before[:, : t + 1], rtol=1e-5)


@pytest.mark.parametrize(("lead", "history", "lags"), [(1, 5, 2), (5, 3, 1)])
def test_other_windows_know_nothing_of_what_comes_later_and_start_anywhere(lead, history, lags):
    model = fitted(lead=lead, history=history, lags=lags, epochs=1)
    blank, said = history + lags + lead - 2, model.probability(SERIES)
    assert said[:blank].isnull().all() and said[blank:].notnull().all()
    changed = SERIES.copy(deep=True)
    changed[300:] = 50.0 + np.arange(6)
    assert np.argwhere((model.probability(changed) != said)[blank:].any("station").values)[0] == 300 + lead - blank
    np.testing.assert_allclose(model.probability(SERIES[200:])[blank:], said[200 + blank :], rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 6])
def test_a_series_too_short_to_forecast_gives_nothing(steps):
    said = usual().probability(SERIES[:steps])
    assert said.sizes["time"] == steps and said[:5].isnull().all() and said[5:].notnull().all()


def test_later_years_do_not_reach_the_fit():
    other_series, other_event = SERIES.copy(deep=True), EVENT.copy(deep=True)
    other_series[350:], other_event[350:] = 3.0, 1.0
    assert fitted(other_series, other_event).each(SERIES).equals(usual().each(SERIES))


def test_fitting_leaves_its_arguments_and_the_callers_random_numbers_alone():
    series, event = SERIES.copy(deep=True), EVENT.copy(deep=True)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model = fitted(series, event)
    said = model.probability(series)
    assert torch.equal(torch.get_rng_state(), state)
    assert series.identical(SERIES) and event.identical(EVENT)
    series[:], event[:] = 0.0, 0.0
    assert model.probability(SERIES).equals(said)
    assert pickle.loads(pickle.dumps(model)).probability(SERIES).equals(said)


def test_members_count_on_from_the_seed():
    a, b = fitted(members=2, seed=4), fitted(members=1, seed=5)
    assert a.each(SERIES)[1].equals(b.each(SERIES)[0])
    assert a.each(SERIES).equals(fitted(members=2, seed=4).each(SERIES))


def test_a_missing_value_counts_as_usual_for_the_season_and_a_missing_event_as_nothing():
    rng = np.random.default_rng(1)
    series, event = SERIES.where(rng.random(SERIES.shape) > 0.1), EVENT.where(rng.random(EVENT.shape) > 0.1)
    said = fitted(series, event).probability(series)
    assert said[5:].notnull().all() and said[:5].isnull().all()
    assert ((said[430:] - EVENT[430:]) ** 2).mean() < ((event_rate(event[TRAIN], said.time) - EVENT) ** 2)[430:].mean()


def test_events_may_be_true_and_false():
    assert fitted(event=EVENT > 0, lead=2).each(SERIES).equals(usual(2).each(SERIES))


@pytest.mark.parametrize("spatial", ["none", "gcn", "cheb", "directional", "adaptive"])
def test_each_kind_of_graph(spatial):
    graph = None if spatial in ("none", "adaptive") else RING
    assert fitted(graph=graph, spatial=spatial, members=1).probability(SERIES)[5:].notnull().all()


def test_settings_reach_loss_and_training(untrained):
    fitted(event_weight=7.0, focusing=2.0, batch_size=17, patience=3, weight_decay=0.5, validate=True)
    model, _, judge, options = untrained[0]
    logits, y, seen = torch.randn(9, 1), torch.ones(9, 1), torch.ones(9, 1, dtype=torch.bool)
    assert options["loss"](logits, y, seen) == event_loss(7.0, 2.0)(logits, y, seen)
    assert {"batch_size": 17, "patience": 3, "weight_decay": 0.5, "epochs": 2}.items() <= options.items()
    assert judge is not None and model.network.in_features == 2 and model.network.out_features == 1


def test_validation_decides_the_epoch():
    model = fitted(validate=True, epochs=6, patience=2)
    for history in model.histories:
        assert history.best_epoch == int(np.argmin(history.validation_loss))


def test_a_weight_makes_more_warnings_and_platt_takes_them_back():
    plain, heavy = fitted(epochs=8), fitted(epochs=8, event_weight=20.0)
    said = {name: model.probability(SERIES) for name, model in (("plain", plain), ("heavy", heavy))}
    later = slice(430, None)
    assert float(said["heavy"].mean()) > 2 * float(said["plain"].mean())
    calibration = fit_calibration(said["heavy"][VALIDATION], EVENT[VALIDATION])
    scores = [float(brier(p[later], EVENT[later]).mean()) for p in (said["heavy"], calibration.apply(said["heavy"]))]
    assert scores[1] < 0.9 * scores[0]


def gates(steps: int, seed: int) -> tuple[xr.DataArray, xr.DataArray]:
    """An event where yesterday and the day before differed in sign: each of them alone tells nothing."""
    rng = np.random.default_rng(seed)
    series = as_series(rng.standard_normal((steps, 6)))
    product = np.concatenate([np.zeros((2, 6)), series.values[1:-1] * series.values[:-2]])
    return series, series.copy(data=(rng.random(product.shape) < np.where(product < -0.3, 0.6, 0.02)).astype(float))


def test_the_network_finds_what_no_logistic_regression_finds():
    series, event = gates(1300, 1)
    part = slice(0, 1000)
    options = {"channels": (16, 16, 16), "members": 1, "epochs": 15, "learning_rate": 1e-2, "dropout": 0.0}
    model = fit_event_network(series[part], event[part], None, None, None, spatial="none", **options)
    rate = event_rate(event[part], series.time, 0)
    scores = [
        float(brier(p[1000:], event[1000:]).mean())
        for p in (model.probability(series), model.logistic.probability(series), rate)
    ]
    assert scores[0] < 0.8 * scores[2] and scores[1] > 0.97 * scores[2]


# ---------------------------------------------------------------------------- what does not fit


P, E = forecasts(60)
MEAN = draw((20, 3))
ONE = xr.ones_like(MEAN)
NUMBERS = SERIES.assign_coords(time=np.arange(500))


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: exceedance_probability(MEAN.values, ONE, 1), TypeError, ["mean", "DataArray", "ndarray"]),
        (lambda: exceedance_probability(MEAN.T, ONE, 1), ValueError, ["mean", "(time, station)"]),
        (lambda: exceedance_probability(MEAN, 1.0, 1), TypeError, ["spread", "DataArray", "float"]),
        (lambda: exceedance_probability(MEAN, 0 * ONE, 1), ValueError, ["spread", "above 0"]),
        (lambda: exceedance_probability(MEAN, ONE[1:], 1), ValueError, ["spread", "time values"]),
        (lambda: exceedance_probability(MEAN, ONE[:, ::-1], 1), ValueError, ["spread", "station values"]),
        (lambda: exceedance_probability(MEAN, ONE.T, 1), ValueError, ["spread", "('station', 'time')"]),
        (
            lambda: exceedance_probability(MEAN, ONE.assign_attrs(units="knots"), 1),
            ValueError,
            ["spread", "units of the mean", "m s-1", "knots"],
        ),
        (lambda: exceedance_probability(MEAN, ONE, [1, 2, 3]), TypeError, ["threshold", "list"]),
        (lambda: exceedance_probability(MEAN, ONE, "1"), TypeError, ["threshold", "str"]),
        (lambda: exceedance_probability(MEAN, ONE, True), TypeError, ["threshold", "bool"]),
        (lambda: exceedance_probability(MEAN, ONE, np.inf), ValueError, ["threshold", "finite"]),
        (lambda: exceedance_probability(MEAN, ONE, MEAN[0, :2]), ValueError, ["threshold", "station values"]),
        (
            lambda: exceedance_probability(MEAN, ONE, over_stations(MEAN, [1, 1, 1], "knots")),
            ValueError,
            ["threshold", "m s-1", "knots"],
        ),
        (lambda: fit_calibration(P, E, "beta"), ValueError, ["method", "platt", "isotonic", "beta"]),
        (lambda: fit_calibration(P.values, E), TypeError, ["probability", "DataArray"]),
        (lambda: fit_calibration(P, E.values), TypeError, ["event", "DataArray"]),
        (lambda: fit_calibration(2 * P / P.max(), E), ValueError, ["probability", "from 0 to 1", "2"]),
        (lambda: fit_calibration(P, E + 1), ValueError, ["event", "0 or 1"]),
        (lambda: fit_calibration(P, E[1:]), ValueError, ["probability", "time"]),
        (lambda: fit_calibration(P, 0 * E), ValueError, ["event", "some that took place", "found 0 and 240"]),
        (lambda: fit_calibration(P, 0 * E + 1), ValueError, ["event", "found 240 and 0"]),
        (lambda: fit_calibration(P * NaN, E), ValueError, ["probability"]),
        (lambda: fit_calibration(P, E).apply(P.values), TypeError, ["probability", "DataArray", "ndarray"]),
        (lambda: fit_calibration(P, E).apply(P - 1), ValueError, ["probability", "from 0 to 1"]),
        (lambda: fitted(SERIES.values), TypeError, ["train", "DataArray", "ndarray"]),
        (lambda: fitted(SERIES[:, :0], EVENT[:, :0]), ValueError, ["train", "at least one station"]),
        (lambda: fitted(SERIES * NaN), ValueError, ["train", "every station"]),
        (lambda: fitted(event=EVENT.values), TypeError, ["train_event", "DataArray"]),
        (lambda: fitted(event=2 * EVENT), ValueError, ["train_event", "0 or 1"]),
        (lambda: fitted(event=0 * EVENT), ValueError, ["train_event", "every station", "0 events"]),
        (lambda: fitted(event=EVENT[:, ::-1]), ValueError, ["train_event", "stations of train"]),
        (lambda: fitted(event=EVENT[1:]), ValueError, ["train_event", "times of train"]),
        (lambda: fitted(graph=None), TypeError, ["graph", "directional", "NoneType"]),
        (lambda: fitted(spatial="gat"), ValueError, ["spatial", "gat"]),
        (lambda: fitted(graph=grid_graph([50.0], [0, 1, 2], neighbours=4)), ValueError, ["graph", "6 nodes", "3"]),
        (lambda: fitted(lead=0), ValueError, ["lead", "at least 1", "0"]),
        (lambda: fitted(history=0), ValueError, ["history", "at least 1", "0"]),
        (lambda: fitted(lags=0), ValueError, ["lags", "at least 1", "0"]),
        (lambda: fitted(members=0), ValueError, ["members", "at least 1", "0"]),
        (lambda: fitted(event_weight=0), ValueError, ["event_weight", "0"]),
        (lambda: fitted(focusing=-1), ValueError, ["focusing", "-1"]),
        (lambda: fitted(ridge=-1), ValueError, ["ridge", "-1"]),
        (
            lambda: fit_event_network(SERIES[TRAIN], EVENT[TRAIN], SERIES[VALIDATION], None, RING, **SMALL),
            ValueError,
            ["validation_event", "None"],
        ),
        (
            lambda: fit_event_network(SERIES[TRAIN], EVENT[TRAIN], None, EVENT[VALIDATION], RING, **SMALL),
            ValueError,
            ["validation: expected", "None"],
        ),
        (
            lambda: fit_event_network(SERIES[TRAIN], EVENT[TRAIN], SERIES[TRAIN], EVENT[TRAIN], RING, **SMALL),
            ValueError,
            ["validation", "not in train"],
        ),
        (
            lambda: fit_event_network(SERIES[TRAIN], EVENT[TRAIN], SERIES[400:], EVENT[401:], RING, **SMALL),
            ValueError,
            ["validation_event", "times of validation"],
        ),
        (lambda: usual().probability(SERIES.values), TypeError, ["series", "DataArray"]),
        (lambda: usual().probability(NUMBERS), TypeError, ["series: expected times as datetime64"]),
        (
            lambda: fitted(harmonics=0, members=1, epochs=1).probability(NUMBERS),
            TypeError,
            ["series: expected times as datetime64"],
        ),
        (lambda: usual().probability(SERIES[:, :5]), ValueError, ["series", "6 stations"]),
    ],
)
def test_events_refuse_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call()
    assert all(part in str(raised.value) for part in parts), str(raised.value)
