"""Forecasters against independent recomputation, planted weather, and everything that could leak from the future."""

import functools
import pickle
import random
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from stgcn_lab import forecasting
from stgcn_lab.baselines import GNAR, climatology, fit_gnar, fit_var, persistence
from stgcn_lab.forecasting import Forecaster, fit_forecaster, running_correction, running_spread
from stgcn_lab.graphs import directional_operators, gcn_operator, grid_graph, knn_graph, scaled_laplacian
from stgcn_lab.models import STGCN, LinearSkip
from stgcn_lab.training import History, gaussian_crps, masked_mse
from stgcn_lab.verification import interval_miss_rate
from stgcn_lab.windows import split_by_time

NaN = np.nan
RING = grid_graph([50.0], np.arange(0, 360, 60), neighbours=4)  # six stations round a circle of latitude
SMALL = {"channels": (4, 4, 4), "members": 2, "epochs": 2, "learning_rate": 1e-2, "horizon": 3}
SPATIAL = ["none", "gcn", "cheb", "directional", "adaptive"]


@pytest.fixture(autouse=True)
def _no_warnings():
    """Missing values are ordinary: they must not fill the reader's page with warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # what another test left, collected here
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)  # torch_geometric's own
        yield


def as_series(values, start="2000-01-01") -> xr.DataArray:
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
        attrs={"units": "degC"},
        name="temperature",
    )


@functools.cache
def weather(steps=400, stations=6, seed=0) -> xr.DataArray:
    """A season, stations of different size, and anomalies that move east by a station a day. Not to be changed."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(stations)]
    for _ in range(steps - 1):
        x.append(0.5 * np.roll(x[-1], 1) + 0.3 * x[-1] + 0.6 * rng.standard_normal(stations))
    season = 8 * np.cos(2 * np.pi * np.arange(steps)[:, None] / 365.2425) + np.arange(stations)
    return as_series(10 + season + np.array(x) * (1 + np.arange(stations)))


TRAIN, VALIDATION = weather()[:250], weather()[250:320]


def fitted(train=TRAIN, validation=None, graph=RING, **options) -> Forecaster:
    return fit_forecaster(train, validation, graph, **{**SMALL, **options})


@functools.cache
def usual() -> Forecaster:
    return fitted(validation=VALIDATION)


@pytest.fixture
def untrained(monkeypatch):
    """fit_forecaster as it is before the first step of training; what was passed on to fit is kept."""
    calls = []

    def no_fit(model, train, validation, **options):
        calls.append((model, train, validation, options))
        model.eval()
        return History()

    monkeypatch.setattr(forecasting, "fit", no_fit)
    return calls


def with_gaps(series, share=0.1, seed=0) -> xr.DataArray:
    hidden = np.random.default_rng(seed).random(series.shape) < share
    return series.copy(data=np.where(hidden, NaN, series.values))


def rmse(forecast, observed) -> float:
    return float(np.sqrt(((forecast - observed) ** 2).mean()))


def identical(a: Forecaster, b: Forecaster, series=None) -> bool:
    series = weather() if series is None else series
    return all(a.distribution(series, lead).identical(b.distribution(series, lead)) for lead in (1, 3))


# ---------------------------------------------------------------------------- the start: the linear forecast


@pytest.mark.parametrize("ridge", [0, 0.03])
@pytest.mark.parametrize("lags", [1, 2, 3])
def test_training_starts_at_the_vector_autoregression(untrained, lags, ridge):
    """At every lead time, under its valid time, in physical units; and as sure as the scale of the station."""
    series = weather()
    model = fitted(lags=lags, ridge=ridge, horizon=4, history=4)
    season = climatology(TRAIN, series.time, 1)
    scale = (TRAIN - season[:250]).std("time")
    linear = fit_var((TRAIN - season[:250]) / scale, lags, ridge)
    for lead in (1, 2, 3, 4):
        said = model.distribution(series, lead)
        expected = season + scale * linear.forecast((series - season) / scale, lead)
        first = 4 + lead - 1
        np.testing.assert_allclose(said["mean"][first:], expected[first:], rtol=1e-5, atol=1e-4)
        assert said["mean"][:first].isnull().all() and said["mean"][first:].notnull().all()
        np.testing.assert_allclose(said["spread"][first:], np.broadcast_to(scale, (400 - first, 6)), rtol=1e-5)


def test_the_linear_part_by_hand():
    """Two stations, two lags: one step is the fit, two steps feed the first back."""
    anomaly = as_series(np.random.default_rng(1).standard_normal((60, 2)))
    linear = fit_var(anomaly, 2, 0.1)
    (a, b), c = linear.coefficients, linear.intercept
    weights, offset = forecasting._linear_maps(linear, 2, 3)
    assert weights.shape == (3, 2, 2, 2) and offset.shape == (3, 2) and weights.dtype == torch.float32
    first = [a, b]
    second = [a @ a + b, a @ b]
    third = [a @ second[0] + b @ a, a @ second[1] + b @ b]
    np.testing.assert_allclose(weights, [first, second, third], atol=1e-6)
    np.testing.assert_allclose(offset, [c, c + a @ c, c + a @ (c + a @ c) + b @ c], atol=1e-6)


def test_without_lags_training_starts_at_the_season(untrained):
    said = fitted(lags=0).distribution(weather(), 2)
    np.testing.assert_allclose(said["mean"][4:], climatology(TRAIN, weather().time[4:], 1), rtol=1e-12)


def test_the_linear_part_is_left_alone_and_the_network_is_not():
    trained = usual().members
    season = climatology(TRAIN, TRAIN.time, 1)
    linear = fit_var((TRAIN - season) / (TRAIN - season).std("time"), 3, 0.03)
    expected = forecasting._linear_maps(linear, 6, 3)
    for member in trained:
        assert torch.equal(member.coefficients, expected[0]) and torch.equal(member.intercept, expected[1])
        assert member.network.out.weight.abs().max() > 0
    assert not any("coefficients" in name or "intercept" in name for name, _ in trained[0].named_parameters())


# ---------------------------------------------------------------------------- what a forecaster says


@pytest.mark.parametrize("lead", [1, 3])
@pytest.mark.parametrize("spatial", SPATIAL)
def test_distribution_equals_window_by_window(spatial, lead):
    series = with_gaps(weather()[200:260])
    model = fitted(spatial=spatial, epochs=1)
    said = model.distribution(series, lead)
    season = climatology(TRAIN, series.time, 1).values
    scale = (TRAIN - climatology(TRAIN, TRAIN.time, 1)).std("time").values
    make = {"gcn": gcn_operator, "cheb": scaled_laplacian, "directional": directional_operators}.get(spatial)
    operator = None if make is None else make(RING)
    x = torch.tensor(np.nan_to_num((series.values - season) / scale), dtype=torch.float32)[None, :, :, None]
    for valid in range(len(series)):
        made = valid - lead  # the last step that the forecast may see
        if made < 2:
            assert said["mean"][valid].isnull().all() and said["spread"][valid].isnull().all()
            continue
        with torch.no_grad():
            out = [m.eval()(x[:, made - 2 : made + 1], operator)[0, lead - 1].double().numpy() for m in model.members]
        means = [season[valid] + scale * y[:, 0] for y in out]
        np.testing.assert_allclose(said["members"][:, valid], means, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(said["mean"][valid], np.mean(means, axis=0), rtol=1e-4, atol=1e-4)
        variances = [(scale * np.exp(y[:, 1])) ** 2 for y in out]
        mixture = np.mean(variances, axis=0) + np.mean([(m - np.mean(means, axis=0)) ** 2 for m in means], axis=0)
        np.testing.assert_allclose(said["spread"][valid], np.sqrt(mixture), rtol=1e-4)
    assert model.forecast(series, lead).name == series.name
    np.testing.assert_array_equal(model.forecast(series, lead), said["mean"])


def test_the_mixture_has_the_variance_of_its_draws():
    """Members that disagree: the spread of the ensemble is that of draws from all of them."""
    model, rng = fitted(epochs=1, members=3), np.random.default_rng(0)
    for shift, member in zip((-1.0, 0.0, 2.5), model.members, strict=True):
        member.network.out.bias.data[:] = torch.tensor([shift, 0.3 * shift]).repeat(3)
    said = model.distribution(weather()[:4])
    scale = model._scale.values
    spreads = [
        scale * torch.exp(_last(member, model, weather()[:3])[0, :, 1]).numpy().astype(float)
        for member in model.members
    ]
    draws = [rng.normal(m, s, (40_000, 6)) for m, s in zip(said["members"].values[:, 3], spreads, strict=True)]
    draws = np.concatenate(draws)
    np.testing.assert_allclose(said["mean"][3], draws.mean(axis=0), atol=0.05 * scale.max())
    np.testing.assert_allclose(said["spread"][3], draws.std(axis=0), rtol=0.02)


def _last(member, model, series):
    x = (series - climatology(TRAIN, series.time, 1)) / model._scale
    with torch.no_grad():
        return member(torch.tensor(x.values, dtype=torch.float32)[None, :, :, None], model._operator)[0]


@pytest.mark.parametrize("lead", [1, 2, 3])
def test_a_forecast_keeps_the_form_of_the_series(lead):
    series = weather()
    before = series.copy(deep=True)
    said = usual().distribution(series, lead)
    for name in ("mean", "spread"):
        assert said[name].dims == ("time", "station") and said[name].dtype == np.float64
        xr.testing.assert_equal(said[name].time, series.time)
        assert said[name].attrs == series.attrs and {"lat", "lon", "station"} <= set(said[name].coords)
    assert said["members"].dims == ("member", "time", "station") and said["members"].shape[0] == 2
    assert (said["spread"][2 + lead :] > 0).all()
    xr.testing.assert_identical(series, before)


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_a_series_of_other_numbers(kind):
    series = weather().astype(kind)
    said = usual().forecast(series)
    np.testing.assert_allclose(said, usual().forecast(series.astype(float)), rtol=1e-5, atol=1e-4)


def test_a_long_series_is_cut_into_pieces_without_a_trace():
    series = weather(1300)
    whole = usual().forecast(series, 2)
    for first in (0, 505, 1010):
        part = usual().forecast(series[first : first + 290], 2)
        np.testing.assert_allclose(whole[first + 4 : first + 290], part[4:], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6])
def test_a_series_too_short_to_forecast_gives_nothing(steps):
    found = usual().forecast(weather()[:steps], 3)
    assert found.shape == (steps, 6) and found.notnull().all("station").values.tolist() == [
        t >= 5 for t in range(steps)
    ]


def test_valid_times_are_those_of_a_chain_of_echoes():
    """Station i says today what station i - 1 said yesterday: h steps ahead all but h stations are known."""
    rng = np.random.default_rng(0)
    new = rng.standard_normal(604)
    series = as_series(np.stack([new[4 - i : 604 - i] for i in range(5)], axis=1))
    model = fit_forecaster(series[:400], spatial="none", harmonics=0, ridge=0, **SMALL)
    for lead in (1, 2, 3):
        found, test = model.forecast(series, lead)[400:], series[400:]
        assert rmse(found[:, lead:], test[:, lead:]) < 0.2
        assert rmse(found[:, :lead], test[:, :lead]) > 0.9  # new every day
        for shift in (-1, 1):
            assert rmse(found.shift(time=shift)[:, lead:], test[:, lead:]) > 1.2
        expected = persistence(series, lead)[400:]
        np.testing.assert_allclose(found[:, lead:], expected.values[:, :-lead], atol=0.8)


# ---------------------------------------------------------------------------- leaks

futures = pytest.mark.parametrize("lead", [1, 3])


def all_that_is_said(series, lead) -> dict[str, np.ndarray]:
    said = usual().distribution(series, lead)
    corrected = running_correction(said["mean"], series, lead, memory=20)
    spread = running_spread(corrected, said["spread"], series, lead, memory=20)
    found = {"members": said["members"].values.swapaxes(0, 1), "corrected": corrected.values, "widened": spread.values}
    return found | {name: said[name].values for name in ("mean", "spread")}


@futures
@given(t=st.integers(10, 60), how=st.sampled_from(["shifted", "warmer", "missing", "repeated"]))
def test_what_comes_later_changes_no_forecast_made_before(lead, t, how):
    """Made from data up to t: everything valid up to t + lead. What is valid a step later must change."""
    series = weather()[300:380]
    changed = series.copy(deep=True)
    later = {
        "shifted": np.roll(series, -1, axis=0),
        "warmer": series + 9,
        "missing": NaN * series,
        "repeated": series[t],
    }
    changed[t + 1 :] = np.broadcast_to(later[how], series.shape)[t + 1 :]
    before, after = all_that_is_said(series, lead), all_that_is_said(changed, lead)
    for name in before:
        np.testing.assert_array_equal(before[name][: t + lead + 1], after[name][: t + lead + 1], err_msg=name)
        assert not np.array_equal(before[name][t + lead + 1], after[name][t + lead + 1]), name


@futures
def test_a_series_that_ends_today_gives_the_same_forecasts(lead):
    series = weather()[300:380]
    whole, part = all_that_is_said(series, lead), all_that_is_said(series[:50], lead)
    for name in whole:
        np.testing.assert_allclose(whole[name][:50], part[name], rtol=1e-6, err_msg=name)


@futures
def test_the_real_tomorrow(lead):
    """Days that have not come yet stand at the end of the series as rows of NaN, and get a forecast."""
    series = weather()[300:380]
    extended = series[:50].reindex(time=series.time[: 50 + lead])
    assert extended[50:].isnull().all()
    now, in_hindsight = all_that_is_said(extended, lead), all_that_is_said(series, lead)
    for name in now:
        assert np.isfinite(now[name][50:]).all()
        np.testing.assert_allclose(now[name], in_hindsight[name][: 50 + lead], rtol=1e-6, err_msg=name)


def test_season_scale_and_linear_part_see_the_training_part_alone():
    odd = with_gaps(VALIDATION * 7 + 90, 0.3)
    first, second, third = fitted(validation=VALIDATION), fitted(validation=odd), fitted()
    season = climatology(TRAIN, TRAIN.time, 1)
    for model in (first, second, third):
        np.testing.assert_allclose(model._scale, (TRAIN - season).std("time"), rtol=1e-12)
        xr.testing.assert_identical(climatology(model._train, weather().time, 1), climatology(TRAIN, weather().time, 1))
        for member, reference in zip(model.members, first.members, strict=True):
            assert torch.equal(member.coefficients, reference.coefficients)
            assert torch.equal(member.intercept, reference.intercept)
        # The steps of training are the same too; the validation part chooses among them and no more.
        assert [h.train_loss for h in model.histories] == [h.train_loss for h in first.histories]
    assert first.histories[0].validation_loss != second.histories[0].validation_loss
    assert third.histories[0].validation_loss == []


def test_the_forecast_of_a_new_series_learns_nothing_from_it():
    model = usual()
    weights = [value.clone() for member in model.members for value in member.state_dict().values()]
    before = model.forecast(weather()).copy(deep=True)
    model.distribution(weather() * 5 - 70, 2)
    assert all(map(torch.equal, weights, [v for member in model.members for v in member.state_dict().values()]))
    xr.testing.assert_identical(model.forecast(weather()), before)


def test_parts_and_their_windows_share_no_time(untrained):
    parts = split_by_time(weather(), ("2000-01-01", "2000-08-31"), ("2000-09-01", "2000-10-31"), ("2000-11-01", None))
    times = [set(part.time.values) for part in parts]
    assert times[0].isdisjoint(times[1]) and (times[0] | times[1]).isdisjoint(times[2])
    fitted(parts.train, parts.validation)
    for _, train, validation, _ in untrained:
        for windows, own in ((train, times[0]), (validation, times[1])):
            all_times = np.array(sorted(own))
            seen = all_times[windows.starts.numpy()[:, None] + np.arange(windows.history + windows.horizon)]
            np.testing.assert_array_equal(seen[:, windows.history :], windows.times)
            assert set(seen.ravel()) <= own


def test_the_windows_hold_the_anomalies_of_the_training_part(untrained):
    train = with_gaps(TRAIN)
    fitted(train, VALIDATION)
    season = climatology(train, weather().time, 1)
    scale = (train - season).std("time")
    for part, windows in ((train, untrained[0][1]), (VALIDATION, untrained[0][2])):
        expected = ((part - season) / scale).values
        batch = windows.batch(range(len(windows)))
        for number, start in enumerate(windows.starts.tolist()):
            for values, mask, rows in ((batch.x, batch.x_mask, slice(0, 3)), (batch.y, batch.y_mask, slice(3, 6))):
                row = expected[start : start + 6][rows]
                np.testing.assert_array_equal(mask[number, ..., 0], np.isfinite(row))
                np.testing.assert_allclose(values[number, ..., 0], np.nan_to_num(row), rtol=1e-4, atol=1e-5)


def test_a_training_part_that_is_changed_later_changes_nothing():
    train = TRAIN.copy(deep=True)
    model = fitted(train, epochs=1)
    before = model.distribution(weather())
    train[:] = 0
    train["station"] = list("abcdef")
    xr.testing.assert_identical(model.distribution(weather()), before)


def test_fitting_leaves_its_arguments_alone():
    train, validation = TRAIN.copy(deep=True), VALIDATION.copy(deep=True)
    edges = RING.edge_index.clone()
    fitted(train, validation, epochs=1)
    xr.testing.assert_identical(train, TRAIN)
    xr.testing.assert_identical(validation, VALIDATION)
    assert torch.equal(edges, RING.edge_index)


# ---------------------------------------------------------------------------- missing values


def test_a_missing_value_counts_as_usual_for_the_season():
    series = with_gaps(weather()[300:380], 0.2)
    series[40:46] = NaN
    filled = series.fillna(climatology(TRAIN, series.time, 1))
    for lead in (1, 3):
        xr.testing.assert_identical(usual().distribution(series, lead), usual().distribution(filled, lead))
    assert usual().forecast(series)[3:].notnull().all()


def test_training_takes_missing_values():
    """In inputs, in targets, whole days, and a station that begins late."""
    train = with_gaps(TRAIN, 0.02)
    train[100:110] = NaN
    train[:60, 2] = NaN
    model = fitted(train, with_gaps(VALIDATION, 0.2))
    said = model.distribution(weather(), 2)
    assert np.isfinite(said["mean"][4:]).all() and np.isfinite(said["spread"][4:]).all()
    test = weather()[320:]
    assert rmse(model.forecast(test), test) < rmse(climatology(TRAIN, test.time, 1), test)


def test_a_gap_in_time_is_no_neighbourhood(untrained):
    """Summers alone: no window reaches from one to the next."""
    train = xr.concat([TRAIN[:100], TRAIN[150:]], "time")
    fitted(train)
    windows = untrained[0][1]
    steps = np.diff(windows.times, axis=1)
    assert (steps == np.timedelta64(1, "D")).all()
    assert len(windows) == 2 * (100 - 6 + 1)


# ---------------------------------------------------------------------------- seeds and members


def test_the_same_seed_gives_the_same_forecast_bit_for_bit():
    torch.manual_seed(5)
    first = fitted(validation=VALIDATION, seed=3)
    torch.manual_seed(6)
    assert identical(first, fitted(validation=VALIDATION, seed=3))
    other = fitted(validation=VALIDATION, seed=5)
    assert not np.array_equal(first.forecast(weather())[5:], other.forecast(weather())[5:])


def test_members_count_on_from_the_seed_and_differ():
    model, single = fitted(seed=3, members=3), fitted(seed=4, members=1)
    said = model.distribution(weather())["members"]
    np.testing.assert_array_equal(said[1], single.distribution(weather())["members"][0])
    assert not np.array_equal(said[0][5:], said[1][5:]) and not np.array_equal(said[1][5:], said[2][5:])
    assert len(model.members) == len(model.histories) == 3 and not any(m.training for m in model.members)
    assert not torch.equal(model.members[0].network.collect.conv.weight, model.members[1].network.collect.conv.weight)


def test_a_single_member_has_its_own_spread():
    model = fitted(members=1)
    said = model.distribution(weather())
    log_spread = _last(model.members[0], model, weather()[:3])[0, :, 1].double().numpy()
    np.testing.assert_allclose(said["spread"][3], model._scale * np.exp(log_spread), rtol=1e-4)
    np.testing.assert_array_equal(said["mean"], said["members"][0])


def test_fit_and_forecast_leave_the_callers_random_numbers_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    fitted(epochs=1, spatial="adaptive").distribution(weather())
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_a_forecaster_can_be_kept():
    assert identical(usual(), pickle.loads(pickle.dumps(usual())))


def test_without_validation_training_runs_to_its_end():
    free, judged = fitted(epochs=4, patience=1), fitted(validation=VALIDATION, epochs=4, patience=1)
    for history in free.histories:
        assert len(history.train_loss) == 4 and history.best_epoch == 3 and not history.stopped_early
    for history in judged.histories:
        assert 1 <= len(history.validation_loss) <= 4
        assert history.best_epoch == int(np.argmin(history.validation_loss))


def test_settings_reach_network_and_training(untrained):
    options = {"channels": (5, 3, 6), "blocks": 2, "kernel_size": 3, "history": 9, "dropout": 0.25, "horizon": 2}
    training = {"epochs": 7, "batch_size": 11, "learning_rate": 0.3, "weight_decay": 0.2, "patience": 4}
    model = fitted(validation=VALIDATION, seed=8, **options, **training)
    network = model.members[0].network
    assert (network.history, network.horizon, len(network.blocks)) == (9, 2, 2) and model.horizon == 2
    assert network.blocks[0].dropout.p == 0.25 and network.blocks[0].before.kernel_size == 3
    assert network.out.in_features == 6 and isinstance(network.blocks[0].norm, torch.nn.Identity)
    for number, (_, train, validation, passed) in enumerate(untrained):
        assert passed["seed"] == 8 + number and passed["progress"] is False
        assert {name: passed[name] for name in training} == training
        assert (train.history, train.horizon, validation.history, validation.horizon) == (9, 2, 9, 2)


# ---------------------------------------------------------------------------- graphs and stations


@pytest.mark.parametrize("spatial", SPATIAL)
def test_each_kind_of_graph(untrained, spatial):
    fitted(spatial=spatial, graph=None if spatial in ("none", "adaptive") else RING)
    model, *_, options = untrained[0]
    expected = {"gcn": gcn_operator, "cheb": scaled_laplacian, "directional": directional_operators}
    if spatial in expected:
        found = options["operator"]
        pairs = (
            [(found, expected[spatial](RING))]
            if torch.is_tensor(found)
            else zip(found, expected[spatial](RING), strict=True)
        )
        assert all(torch.equal(a.to_dense(), b.to_dense()) for a, b in pairs)
    else:
        assert options["operator"] is None
    assert (model.network.adjacency is not None) == (spatial == "adaptive")


@pytest.mark.parametrize(("spatial", "moved"), [("none", [2]), ("gcn", [1, 2, 3]), ("adaptive", list(range(6)))])
def test_neighbours_are_heard_through_the_graph_alone(spatial, moved):
    """Without the linear skip, which hears everybody."""
    model = fitted(spatial=spatial, lags=0, epochs=1)
    series = weather()[300:310]
    changed = series.copy(deep=True)
    changed[5, 2] += 20
    found = (model.forecast(changed)[6] != model.forecast(series)[6]).values
    assert np.flatnonzero(found).tolist() == moved


@pytest.mark.parametrize("spatial", SPATIAL)
def test_one_station(spatial):
    alone = Data(
        edge_index=torch.zeros(2, 0, dtype=torch.long),
        edge_weight=torch.zeros(0),
        pos=torch.tensor([[0.0, 50.0]]),
        num_nodes=1,
    )
    series = weather()[:, :1]
    model = fitted(series[:250], series[250:320], alone, spatial=spatial)
    assert np.isfinite(model.forecast(series, 2)[4:]).all()


def test_stations_need_no_names_nor_places():
    bare = weather().drop_vars(["station", "lat", "lon"])
    found = fitted(bare[:250], bare[250:320]).forecast(bare)
    np.testing.assert_array_equal(found, usual().forecast(weather()))
    crowded = weather().assign_coords(x=("station", np.arange(6.0)), member=("time", np.arange(400)))
    with pytest.raises(ValueError):  # the name of a dimension of the result
        usual().distribution(crowded)
    crowded = crowded.drop_vars("member")
    np.testing.assert_array_equal(fitted(crowded[:250], crowded[250:320]).forecast(crowded), found)


def change(series, **changes) -> xr.DataArray:
    """The series with the values of some stations replaced."""
    series = series.copy(deep=True)
    for station, value in changes.items():
        series.loc[{"station": station}] = value
    return series


THREE = knn_graph([50.0, 51, 52], [0.0, 1, 2], 1)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: fitted(TRAIN.values), TypeError, ["train", "DataArray", "ndarray"]),
        (lambda: fitted(TRAIN.to_dataset()), TypeError, ["train", "DataArray", "Dataset"]),
        (lambda: fitted(TRAIN.T), ValueError, ["train", "(time, station)"]),
        (lambda: fitted(TRAIN[::-1]), ValueError, ["train", "rising order"]),
        (lambda: fitted(TRAIN[:, :0]), ValueError, ["train", "at least one station"]),
        (lambda: fitted(TRAIN[:0]), ValueError, ["train", "at least one time step"]),
        (lambda: fitted(TRAIN.astype(str)), TypeError, ["train", "numbers"]),
        (lambda: fitted(change(TRAIN, S1=np.inf)), ValueError, ["train", "finite"]),
        (lambda: fitted(TRAIN.assign_coords(time=np.arange(250))), TypeError, ["train", "dates"]),
        (lambda: fitted(change(TRAIN, S1=NaN)), ValueError, ["train", "every station", "['S1']"]),
        (lambda: fitted(change(TRAIN, S1=5.3, S4=0)), ValueError, ["train", "constant", "['S1', 'S4']"]),
        (lambda: fitted(TRAIN * NaN), ValueError, ["train", "every station", "S0", "S5"]),
        (lambda: fitted(TRAIN[:5]), ValueError, ["at least 6 time steps", "5"]),
        (lambda: fitted(validation=VALIDATION.values), TypeError, ["validation", "DataArray", "ndarray"]),
        (lambda: fitted(validation=VALIDATION[:, ::-1]), ValueError, ["validation", "stations of train", "S5"]),
        (lambda: fitted(validation=VALIDATION[:, :3]), ValueError, ["validation", "stations of train"]),
        (lambda: fitted(validation=weather()[249:320]), ValueError, ["validation", "not in train"]),
        (lambda: fitted(validation=VALIDATION.assign_coords(time=np.arange(70))), TypeError, ["validation", "dates"]),
        (lambda: fitted(validation=VALIDATION[:5]), ValueError, ["at least 6 time steps", "5"]),
        (lambda: fitted(validation=VALIDATION * NaN), ValueError, ["observed target"]),
        (lambda: fitted(graph=None), TypeError, ["graph", "directional", "knn_graph", "NoneType"]),
        (lambda: fitted(graph=gcn_operator(RING)), TypeError, ["graph", "Tensor"]),
        (lambda: fitted(graph=None, spatial="gcn"), TypeError, ["graph", "gcn", "NoneType"]),
        (lambda: fitted(graph=THREE), ValueError, ["graph", "6 nodes", "3"]),
        (lambda: fitted(graph=None, spatial="gat"), ValueError, ["spatial", "directional", "adaptive", "'gat'"]),
        (lambda: fitted(spatial=None), ValueError, ["spatial", "None"]),
        (lambda: fitted(history=2), ValueError, ["history", "at least the 3 lags", "2"]),
        (lambda: fitted(history=2, lags=1), ValueError, ["history", "at least 3", "2"]),
        (lambda: fitted(history=0), ValueError, ["history", "at least 1", "0"]),
        (lambda: fitted(horizon=0), ValueError, ["horizon", "at least 1", "0"]),
        (lambda: fitted(horizon=True), ValueError, ["horizon", "True"]),
        (lambda: fitted(lags=-1), ValueError, ["lags", "at least 0", "-1"]),
        (lambda: fitted(lags=1.5), ValueError, ["lags", "1.5"]),
        (lambda: fitted(members=0), ValueError, ["members", "at least 1", "0"]),
        (lambda: fitted(seed=-1), ValueError, ["seed", "-1"]),
        (lambda: fitted(ridge=-0.1), ValueError, ["ridge", "-0.1"]),
        (lambda: fitted(harmonics=-1), ValueError, ["harmonics", "-1"]),
        (lambda: fitted(dropout=1.5), ValueError, ["dropout", "1.5"]),
        (lambda: fitted(channels=(4, 4)), ValueError, ["channels", "three", "(4, 4)"]),
        (lambda: fitted(epochs=0), ValueError, ["epochs", "at least 1", "0"]),
        (lambda: fitted(learning_rate=0), ValueError, ["learning_rate", "above 0"]),
        (lambda: usual().forecast(weather(), 4), ValueError, ["lead", "horizon of the fit, 3", "4"]),
        (lambda: usual().forecast(weather(), 0), ValueError, ["lead", "at least 1", "0"]),
        (lambda: usual().forecast(weather(), 1.0), ValueError, ["lead", "1.0"]),
        (lambda: usual().forecast(weather(), True), ValueError, ["lead", "True"]),
        (lambda: usual().forecast(weather()[:, ::-1]), ValueError, ["series", "6 stations", "order", "S5"]),
        (lambda: usual().forecast(weather()[:, :5]), ValueError, ["series", "6 stations"]),
        (lambda: usual().forecast(weather()[:, :0]), ValueError, ["series", "at least one station"]),
        (lambda: usual().forecast(weather().values), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda: usual().forecast(change(weather(), S0=np.inf)), ValueError, ["series", "finite"]),
        (lambda: usual().distribution(weather(), 4), ValueError, ["lead", "horizon"]),
        (lambda: usual().distribution(weather().T), ValueError, ["series", "(time, station)"]),
    ],
)
def test_forecasters_refuse_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call()
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_whole_numbers_may_be_numpys():
    model = fitted(horizon=np.int64(3), history=np.int32(3), lags=np.int64(2), members=np.int64(1), seed=np.int64(0))
    assert model.forecast(weather(), np.int64(2)).notnull().any()


# ---------------------------------------------------------------------------- the loss


def test_squared_error_trains_the_mean_and_crps_the_spread():
    prediction, target = torch.randn(3, 2, 4, 2, requires_grad=True), torch.randn(3, 2, 4, 1)
    mask = torch.rand(3, 2, 4, 1) > 0.3
    loss = forecasting._mean_and_spread(prediction, target, mask)
    found = torch.autograd.grad(loss, prediction)[0]
    squared = masked_mse(prediction[..., :1], target, mask)
    crps = gaussian_crps(prediction, target, mask)
    torch.testing.assert_close(loss, squared + crps)
    torch.testing.assert_close(found[..., 0], torch.autograd.grad(squared, prediction)[0][..., 0])
    torch.testing.assert_close(found[..., 1], torch.autograd.grad(crps, prediction)[0][..., 1])


# ---------------------------------------------------------------------------- planted weather


def gates(steps: int, seed: int) -> xr.DataArray:
    """Weather made by the product of a station's two neighbours yesterday, and noise of 0.4."""
    rng = np.random.default_rng(seed)
    x = np.zeros((steps, 6))
    for t in range(1, steps):
        x[t] = np.tanh(1.8 * np.roll(x[t - 1], 1) * np.roll(x[t - 1], -1)) + 0.4 * rng.standard_normal(6)
    return as_series(x)


def compared(series, cut: int, **options) -> tuple[float, float, xr.Dataset]:
    """Errors of the forecaster and of the linear forecast alone, in the part after the cut."""
    train, test = series[:cut], series[cut:]
    model = fit_forecaster(train, None, RING, **{"channels": (8, 8, 8), "members": 1, "dropout": 0, **options})
    season = climatology(train, series.time, 1)
    linear = season + fit_var(train - season[:cut], 3, 0.03).forecast(series - season)
    said = model.distribution(series).isel(time=slice(cut, None))
    return rmse(said["mean"], test), rmse(linear[cut:], test), said


def test_the_network_finds_what_no_linear_forecast_finds():
    """The best forecast errs by 0.4; and the network knows by how much it errs."""
    series = gates(1600, 0)
    network, linear, said = compared(series, 1000, learning_rate=1e-2, epochs=10)
    assert network < 0.85 * linear and network < 0.47
    assert 0.03 < float(interval_miss_rate(said["mean"], said["spread"], series[1000:]).mean()) < 0.08
    assert float(said["spread"].mean()) == pytest.approx(network, rel=0.12)


def test_the_network_does_linear_weather_no_harm():
    series = weather(1400)
    network, linear, _ = compared(series, 800, dropout=0.3, epochs=6)
    assert 0.97 * linear < network < 1.02 * linear


# ---------------------------------------------------------------------------- the running correction


def correction_by_hand(forecast, observed, lead, memory) -> np.ndarray:
    """One station after the other, and for each forecast only what had happened when it was made."""
    corrected = np.full(forecast.shape, NaN)
    for i in range(forecast.shape[1]):
        for t in range(len(forecast)):
            c = 0.0
            for s in range(t - lead + 1):
                error = forecast[s, i] - observed[s, i]
                if not np.isnan(error):
                    c = (1 - 1 / memory) * c + error / memory
            corrected[t, i] = forecast[t, i] - c
    return corrected


def widening_by_hand(mean, spread, observed, lead, memory) -> np.ndarray:
    widened = np.full(mean.shape, NaN)
    for i in range(mean.shape[1]):
        for t in range(len(mean)):
            v = 1.0
            for s in range(t - lead + 1):
                z2 = ((observed[s, i] - mean[s, i]) / spread[s, i]) ** 2
                if not np.isnan(z2):
                    v = (1 - 1 / memory) * v + z2 / memory
            widened[t, i] = spread[t, i] * np.sqrt(v)
    return widened


def three_series(steps, seed, missing=0.0):
    rng = np.random.default_rng(seed)
    mean, observed = rng.standard_normal((2, steps, 2))
    spread = rng.uniform(0.5, 2, (steps, 2))
    return [with_gaps(as_series(values), missing, seed + k) for k, values in enumerate((mean, spread, observed))]


@given(
    steps=st.integers(1, 25),
    lead=st.integers(1, 6),
    memory=st.floats(1, 500) | st.integers(1, 500),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_running_corrections_equal_a_loop(steps, lead, memory, missing, seed):
    mean, spread, observed = three_series(steps, seed, missing)
    found = running_correction(mean, observed, lead, memory)
    np.testing.assert_allclose(found, correction_by_hand(mean.values, observed.values, lead, memory), atol=1e-12)
    widened = running_spread(mean, spread, observed, lead, memory)
    expected = widening_by_hand(mean.values, spread.values, observed.values, lead, memory)
    np.testing.assert_allclose(widened, expected, atol=1e-12)


@pytest.mark.parametrize("lead", [1, 3])
def test_a_constant_bias_is_taken_off(lead):
    rng = np.random.default_rng(0)
    observed = as_series(rng.standard_normal((1000, 3)))
    bias = np.array([2.0, -1.0, 0.0])
    forecast = observed + rng.standard_normal((1000, 3)) + bias
    found = running_correction(forecast, observed, lead, memory=90)
    np.testing.assert_allclose((forecast - observed)[500:].mean("time"), bias, atol=0.2)
    np.testing.assert_allclose((found - observed)[500:].mean("time"), 0, atol=0.1)
    exact = running_correction(observed + bias, observed, lead, memory=90)
    known = np.maximum(np.arange(1000) - lead + 1, 0)[:, None]  # errors known when the forecast is made
    np.testing.assert_allclose((exact - observed).values, bias * (1 - 1 / 90) ** known, atol=1e-12)


@pytest.mark.parametrize("lead", [1, 3])
def test_with_a_memory_of_one_the_last_known_error_is_taken_off(lead):
    mean, spread, observed = three_series(30, 0)
    error = mean - observed
    found = running_correction(mean, observed, lead, memory=1)
    np.testing.assert_allclose(found, mean - error.shift(time=lead).fillna(0), atol=1e-12)
    widened = running_spread(mean, spread, observed, lead, memory=1)
    np.testing.assert_allclose(widened, spread * abs(error / spread).shift(time=lead).fillna(1), atol=1e-12)


def test_an_endless_memory_corrects_nothing():
    mean, spread, observed = three_series(30, 0)
    np.testing.assert_array_equal(running_correction(mean, observed, memory=np.inf), mean)
    np.testing.assert_array_equal(running_spread(mean, spread, observed, memory=np.inf), spread)


def test_what_is_missing_changes_nothing():
    """A day without an observation, or without a forecast, is as if it had not been."""
    mean, spread, observed = three_series(30, 0)
    short = running_correction(mean.drop_isel(time=12), observed.drop_isel(time=12))
    short_spread = running_spread(mean.drop_isel(time=12), spread.drop_isel(time=12), observed.drop_isel(time=12))
    for hide_observed in (True, False):
        gappy = [mean.copy(deep=True), spread.copy(deep=True), observed.copy(deep=True)]
        gappy[2 if hide_observed else 0][12] = NaN
        found = running_correction(gappy[0], gappy[2])
        np.testing.assert_allclose(found.drop_isel(time=12), short, atol=1e-12)
        widened = running_spread(*gappy)
        np.testing.assert_allclose(widened.drop_isel(time=12), short_spread, atol=1e-12)
        assert found[12].isnull().all() == (not hide_observed) and widened[12].notnull().all()


def test_corrections_begin_uncorrected_and_treat_stations_apart():
    mean, spread, observed = three_series(30, 0)
    for lead in (1, 3, 40):
        xr.testing.assert_equal(running_correction(mean, observed, lead)[:lead], mean[:lead])
        xr.testing.assert_equal(running_spread(mean, spread, observed, lead)[:lead], spread[:lead])
    changed = observed.copy(deep=True)
    changed[:, 0] += 5
    np.testing.assert_array_equal(running_correction(mean, changed)[:, 1], running_correction(mean, observed)[:, 1])
    assert (running_correction(mean, changed)[1:, 0] != running_correction(mean, observed)[1:, 0]).all()


@pytest.mark.parametrize("lead", [1, 3])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_spread_that_is_wrong_by_a_factor_is_put_right(lead, factor):
    """Twice too narrow, a 95 % interval leaves out 33 %; afterwards 5 %, though the weather's own spread varies."""
    rng = np.random.default_rng(1)
    true = as_series(rng.uniform(0.5, 2, (3000, 4)))
    mean = as_series(rng.standard_normal((3000, 4)))
    observed = mean + true * rng.standard_normal((3000, 4))
    late = slice(1500, None)

    def missed(spread) -> float:
        return float(interval_miss_rate(mean[late], spread[late], observed[late]).mean())

    found = running_spread(mean, factor * true, observed, lead, memory=365)
    assert missed(factor * true) > 0.3 or missed(factor * true) < 0.001
    assert missed(found) == pytest.approx(0.05, abs=0.01)
    assert float((found / true)[late].mean()) == pytest.approx(1, abs=0.03)


def test_corrections_keep_the_form_and_their_input():
    series = three_series(20, 0)
    before = [part.copy(deep=True) for part in series]
    mean, spread, observed = series
    for found in (running_correction(mean, observed), running_spread(mean, spread, observed)):
        assert found.dims == mean.dims and found.attrs == mean.attrs and found.name == mean.name
        assert set(found.coords) == set(mean.coords)
    for part, original in zip(series, before, strict=True):
        xr.testing.assert_identical(part, original)


def test_a_correction_helps_any_forecast():
    """A climate that has warmed since the training years: the VAR carries their mean along, the correction drops it."""
    series = weather(900, seed=4)
    series = series + xr.where(series.time > series.time[500], 6, 0)
    train = series[:400]
    season = climatology(train, series.time, 1)
    forecast = season + fit_var(train - season[:400], 3).forecast(series - season)
    assert rmse(running_correction(forecast, series, memory=60)[600:], series[600:]) < rmse(
        forecast[600:], series[600:]
    )


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda m, s, o: running_correction(m.values, o), TypeError, ["forecast", "DataArray", "ndarray"]),
        (lambda m, s, o: running_correction(m, o.values), TypeError, ["observed", "DataArray", "ndarray"]),
        (lambda m, s, o: running_correction(m.T, o), ValueError, ["forecast", "(time, station)"]),
        (lambda m, s, o: running_correction(m, o.T), ValueError, ["observed", "(time, station)"]),
        (lambda m, s, o: running_correction(m, o[1:]), ValueError, ["observed", "time values"]),
        (lambda m, s, o: running_correction(m[1:], o[:-1]), ValueError, ["observed", "time values"]),
        (lambda m, s, o: running_correction(m, o[:, ::-1]), ValueError, ["observed", "station values"]),
        (lambda m, s, o: running_correction(m[:, :0], o[:, :0]), ValueError, ["forecast", "at least one station"]),
        (lambda m, s, o: running_correction(m / 0, o), ValueError, ["forecast", "infinite"]),
        (lambda m, s, o: running_correction(m, o, 0), ValueError, ["lead", "at least 1", "0"]),
        (lambda m, s, o: running_correction(m, o, 1.5), ValueError, ["lead", "1.5"]),
        (lambda m, s, o: running_correction(m, o, memory=0.5), ValueError, ["memory", "at least 1", "0.5"]),
        (lambda m, s, o: running_correction(m, o, memory=-90), ValueError, ["memory", "-90"]),
        (lambda m, s, o: running_correction(m, o, memory=NaN), ValueError, ["memory", "nan"]),
        (lambda m, s, o: running_correction(m, o, memory="90"), ValueError, ["memory", "'90'"]),
        (lambda m, s, o: running_correction(m, o, memory=True), ValueError, ["memory", "True"]),
        (lambda m, s, o: running_spread(m, 1.0, o), TypeError, ["spread", "DataArray", "float"]),
        (lambda m, s, o: running_spread(m, s.values, o), TypeError, ["spread", "DataArray", "ndarray"]),
        (lambda m, s, o: running_spread(m, s.mean("time"), o), ValueError, ["spread", "time"]),
        (lambda m, s, o: running_spread(m, s.T, o), ValueError, ["spread", "(time, station)"]),
        (lambda m, s, o: running_spread(m, s[:, ::-1], o), ValueError, ["spread", "station values"]),
        (lambda m, s, o: running_spread(m, s * 0, o), ValueError, ["spread", "above 0", "0"]),
        (lambda m, s, o: running_spread(m, -s, o), ValueError, ["spread", "above 0", "-"]),
        (lambda m, s, o: running_spread(m, s, o[1:]), ValueError, ["observed", "time values"]),
        (lambda m, s, o: running_spread(m, s, o, lead=0), ValueError, ["lead", "at least 1"]),
        (lambda m, s, o: running_spread(m, s, o, memory=0), ValueError, ["memory", "at least 1"]),
    ],
)
def test_corrections_refuse_what_does_not_fit(call, error, parts):
    with np.errstate(all="ignore"), pytest.raises(error) as raised:
        call(*three_series(20, 0))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_members_are_the_networks_of_the_package():
    """What is in a forecaster can be looked at, taken out and trained further."""
    for member in usual().members:
        assert isinstance(member, LinearSkip) and isinstance(member.network, STGCN)
        assert all(parameter.requires_grad for parameter in member.parameters())


# ---------------------------------------------------------------------------- other stations, other regions

SHARED = ["none", "gcn", "cheb", "directional"]


def ring(stations: int) -> Data:
    return grid_graph([50.0], np.arange(stations) * 360 / stations, neighbours=4)


def at_ring(series: xr.DataArray) -> xr.DataArray:
    """The series with its stations where the nodes of a ring are."""
    return series.assign_coords(lon=("station", np.arange(series.sizes["station"]) * 360 / series.sizes["station"]))


@functools.cache
def abroad() -> xr.DataArray:
    """Nine stations elsewhere, with another season and scale. Not to be changed."""
    return at_ring(3 * weather(400, 9, seed=5) - 20)


@functools.cache
def shared(spatial="directional") -> Forecaster:
    return fitted(validation=VALIDATION, spatial=spatial, shared=True)


def network_weights(model: Forecaster) -> list[torch.Tensor]:
    return [value for member in model.members for value in member.network.state_dict().values()]


def everything(model: Forecaster) -> list[torch.Tensor]:
    return [value.clone() for member in model.members for value in member.state_dict().values()]


def standardised(series, train, harmonics=1) -> xr.DataArray:
    scale = (train - climatology(train, train.time, harmonics)).std("time")
    return (series - climatology(train, series.time, harmonics)) / scale


@pytest.mark.parametrize("lags", [1, 3])
def test_shared_training_starts_at_the_network_autoregression(untrained, lags):
    series = weather()
    model = fitted(lags=lags, horizon=4, history=4, shared=True)
    z = standardised(series, TRAIN)
    gnar = fit_gnar(z[:250], RING, lags)  # without a penalty
    np.testing.assert_allclose(model.linear.own, gnar.own, rtol=1e-10)
    np.testing.assert_allclose(model.linear.neighbours, gnar.neighbours, rtol=1e-10)
    for lead in (1, 2, 4):
        linear = gnar.on(RING, series.station.values).forecast(z, lead)
        expected = climatology(TRAIN, series.time, 1) + linear * model._scale
        said = model.distribution(series, lead)
        np.testing.assert_allclose(said["mean"][4 + lead :], expected[4 + lead :], rtol=1e-5, atol=1e-4)


def test_the_penalty_reaches_the_shared_linear_part(untrained):
    model, z = fitted(shared=True, ridge=0.5), standardised(TRAIN, TRAIN)
    np.testing.assert_allclose(model.linear.own, fit_gnar(z, RING, 3, ridge=0.5).own)
    assert fitted().linear is None and fitted(shared=True, lags=0).linear is None


@pytest.mark.parametrize("spatial", SHARED)
def test_the_same_weights_at_another_number_of_stations(spatial):
    """Transfer: nine stations instead of six, every weight of the networks the same to the bit."""
    there = ring(9)
    moved = shared(spatial).move(abroad()[:250], there)
    assert all(map(torch.equal, network_weights(shared(spatial)), network_weights(moved)))
    assert moved.stations.tolist() == abroad().station.values.tolist() and moved.members[0].coefficients.shape[-1] == 9
    make = {"gcn": gcn_operator, "cheb": scaled_laplacian, "directional": directional_operators}.get(spatial)
    for lead in (1, 3):
        said = moved.distribution(abroad(), lead)
        assert said["mean"].shape == (400, 9)
        assert np.isfinite(said["mean"][2 + lead :]).all() and (said["spread"][2 + lead :] > 0).all()
        # By hand: season and scale of the new stations, the shared linear forecast on their graph, and the network.
        z = standardised(abroad(), abroad()[:250])
        linear = shared(spatial).linear.on(there, abroad().station.values).forecast(z, lead)
        x = torch.tensor(z.values, dtype=torch.float32)[None, :, :, None]
        with torch.no_grad():
            network = np.mean(
                [
                    m.network.eval()(x[:, 300:303], None if make is None else make(there))[0, lead - 1, :, 0].numpy()
                    for m in shared(spatial).members
                ],
                axis=0,
            )
        valid = 302 + lead
        season = climatology(abroad()[:250], abroad().time[[valid]], 1)[0]
        expected = (linear[valid] + network) * moved._scale + season
        np.testing.assert_allclose(said["mean"][valid], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("spatial", SHARED)
def test_moved_to_its_own_stations_a_forecaster_says_the_same(spatial):
    assert identical(shared(spatial), shared(spatial).move(TRAIN, RING))


def test_moved_there_and_back_a_forecaster_says_the_same():
    there = shared().move(abroad()[:250], ring(9))
    assert identical(shared(), there.move(TRAIN, RING))
    assert identical(there, pickle.loads(pickle.dumps(there)), abroad())


@pytest.mark.parametrize("spatial", SHARED)
def test_stations_in_another_order_get_their_own_forecasts(spatial):
    """Node-permutation equivariance, of linear part, network and season together; on an irregular graph."""
    rng = np.random.default_rng(2)
    lat, lon, order = rng.uniform(45, 60, 9), rng.uniform(0, 20, 9), rng.permutation(9)
    series = abroad().assign_coords(lat=("station", lat), lon=("station", lon))
    first = shared(spatial).move(series[:250], knn_graph(lat, lon, 3))
    second = shared(spatial).move(series[:250, order], knn_graph(lat[order], lon[order], 3))
    for lead in (1, 3):
        expected = first.distribution(series, lead).isel(station=order)
        found = second.distribution(series[:, order], lead)
        for name in ("mean", "spread", "members"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)


def test_each_station_is_forecast_from_its_place_in_the_graph_and_nothing_else():
    """Two rings that do not touch forecast as each of them alone."""
    both = Data(
        edge_index=torch.cat([RING.edge_index, RING.edge_index + 6], dim=1),
        edge_weight=RING.edge_weight.repeat(2),
        pos=RING.pos.repeat(2, 1),
        num_nodes=12,
    )
    values = np.concatenate([weather(seed=1), weather(seed=2)], axis=1)
    twelve = as_series(values).assign_coords(lon=("station", np.tile(60.0 * np.arange(6), 2)))
    said = shared().move(twelve[:250], both).forecast(twelve, 2)
    for part, seed in ((slice(0, 6), 1), (slice(6, 12), 2)):
        alone = shared().move(weather(seed=seed)[:250], RING).forecast(weather(seed=seed), 2)
        np.testing.assert_allclose(said[:, part], alone, rtol=1e-4, atol=1e-4)


def test_a_move_learns_season_and_scale_and_nothing_else():
    """In other units there the forecast is in those; and a record that is changed later changes nothing."""
    record = abroad()[:250]
    kelvin = shared().move(5 * record + 273, ring(9)).forecast(5 * abroad() + 273, 2)
    np.testing.assert_allclose(kelvin, 5 * shared().move(record, ring(9)).forecast(abroad(), 2) + 273, rtol=1e-4)
    changed = record.copy(deep=True)
    moved = shared().move(changed, ring(9))
    before = moved.forecast(abroad())
    changed[:] = 0
    xr.testing.assert_identical(moved.forecast(abroad()), before)


def test_a_moved_forecaster_shares_nothing_with_the_original():
    before = everything(shared())
    moved = shared().move(abroad()[:250], ring(9))
    with torch.no_grad():
        for member in moved.members:
            for value in member.state_dict().values():
                value.add_(1)
    assert all(map(torch.equal, before, everything(shared())))
    assert moved.histories == shared().histories and moved.horizon == 3


def test_a_single_year_there_and_one_station_and_gaps():
    alone = Data(edge_index=torch.zeros(2, 0, dtype=torch.long), pos=torch.tensor([[0.0, 50.0]]), num_nodes=1)
    series = abroad()[:, :1]
    for record in (series[:60], with_gaps(series[:250], 0.3)):
        moved = shared().move(record, alone)
        assert np.isfinite(moved.forecast(with_gaps(series, 0.2), 2)[4:]).all()
    here = fitted(series[:250], series[250:320], alone, shared=True)
    assert np.isfinite(here.move(TRAIN, RING).forecast(weather())[3:]).all()


def test_what_the_network_found_it_finds_elsewhere():
    """Weather that no linear forecast foretells: trained on a ring of six, applied to a ring of ten, as good there."""
    here = gates(1600, 0)
    options = {"channels": (8, 8, 8), "members": 1, "dropout": 0, "learning_rate": 1e-2, "epochs": 10}
    model = fit_forecaster(here[:1000], None, RING, shared=True, **options)
    rng = np.random.default_rng(1)
    x = np.zeros((1600, 10))
    for t in range(1, 1600):
        x[t] = np.tanh(1.8 * np.roll(x[t - 1], 1) * np.roll(x[t - 1], -1)) + 0.4 * rng.standard_normal(10)
    there = at_ring(as_series(4 * x + 7))
    moved = model.move(there[:1000], ring(10))
    found = rmse(moved.forecast(there)[1000:], there[1000:])
    z = standardised(there, there[:1000])
    linear = model.linear.on(ring(10), there.station.values).forecast(z) * moved._scale
    linear = rmse((linear + climatology(there[:1000], there.time, 1))[1000:], there[1000:])
    assert found < 0.85 * linear and found < 4 * 0.47
    assert rmse(model.forecast(here)[1000:], here[1000:]) == pytest.approx(found / 4, rel=0.05)


# ---------------------------------------------------------------------------- training on

TUNING = {"epochs": 2, "learning_rate": 5e-3}


def test_finetuning_leaves_the_original_alone_and_repeats_for_a_seed():
    before, said = everything(shared()), shared().distribution(weather(), 2)
    state = torch.get_rng_state()
    first = shared().finetune(TRAIN, VALIDATION, ridge=0.1, seed=4, **TUNING)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    assert identical(first, shared().finetune(TRAIN, VALIDATION, ridge=0.1, seed=4, **TUNING))
    assert not identical(first, shared().finetune(TRAIN, VALIDATION, ridge=0.1, seed=5, **TUNING))
    assert all(map(torch.equal, before, everything(shared())))
    xr.testing.assert_identical(shared().distribution(weather(), 2), said)
    assert not np.allclose(first.forecast(weather(), 2)[5:], said["mean"][5:], atol=1e-3)


def test_finetuning_goes_on_from_the_weights_that_are_there():
    """The smallest of steps ends next to where it began; and season, scale and stations stay."""
    tuned = shared().finetune(TRAIN[:60], epochs=1, learning_rate=1e-9)
    np.testing.assert_allclose(tuned.forecast(weather()), shared().forecast(weather()), atol=1e-4)
    assert tuned.linear is shared().linear and len(tuned.histories) == 2
    assert tuned.histories != shared().histories and len(tuned.histories[0].train_loss) == 1
    tuned = shared().finetune(3 * TRAIN[:60], **TUNING)
    xr.testing.assert_identical(tuned._scale, shared()._scale)
    xr.testing.assert_identical(tuned._train, shared()._train)
    assert tuned.stations.tolist() == shared().stations.tolist()


def test_finetuning_sees_the_anomalies_from_the_season_of_the_move(untrained):
    moved = fitted(shared=True).move(abroad()[:250], ring(9))
    moved.finetune(abroad()[250:300], abroad()[300:340])
    model, train, validation, options = untrained[-1]
    z = standardised(abroad(), abroad()[:250])
    for windows, part in ((train, z[250:300]), (validation, z[300:340])):
        np.testing.assert_allclose(windows._record["x"], part, rtol=1e-4, atol=1e-5)
    assert len(untrained) == 4 and model.coefficients.shape[-1] == 9 and options["seed"] == 1
    assert all(map(torch.equal, options["operator"], directional_operators(ring(9))))


def test_finetuning_settings_reach_the_training(untrained):
    training = {"epochs": 7, "batch_size": 11, "learning_rate": 0.3, "weight_decay": 0.2, "patience": 4}
    fitted(shared=True).finetune(TRAIN, VALIDATION, seed=8, progress=False, **training)
    for number, (_, _, _, passed) in enumerate(untrained[2:]):
        assert {name: passed[name] for name in training} == training and passed["seed"] == 8 + number


@pytest.mark.parametrize("ridge", [None, 0, 0.2, 1e9])
def test_finetuning_of_the_linear_part(untrained, ridge):
    moved = fitted(shared=True).move(abroad()[:250], ring(9))
    few = abroad()[250:290]
    tuned = moved.finetune(few, ridge=ridge)
    z = standardised(few, abroad()[:250])
    expected = moved.linear if ridge is None else fit_gnar(z, ring(9), 3, 4, ridge, moved.linear)
    np.testing.assert_allclose(tuned.linear.own, expected.own)
    maps = forecasting._linear_maps(expected.on(ring(9), moved.stations), 9, 3)
    for member in tuned.members:
        torch.testing.assert_close(member.coefficients, maps[0])
    assert all(map(torch.equal, network_weights(tuned), network_weights(moved)))
    distance = float(np.abs(tuned.linear.own - moved.linear.own).max())
    assert (distance < 1e-6) == (ridge in (None, 1e9))


def test_a_few_steps_of_another_weather_help():
    """Anomalies run west there and not east: what was learned here misleads, and fine-tuning puts it right."""
    west = at_ring(weather(700, 9, seed=6)[:, ::-1].assign_coords(station=weather(700, 9, seed=6).station))
    moved = shared().move(west[:400], ring(9))
    tuned = moved.finetune(west[300:400], ridge=0.01, epochs=4, learning_rate=5e-3)
    again = tuned.finetune(west[300:400], epochs=2, learning_rate=1e-3)
    test = west[400:]
    before, after = rmse(moved.forecast(west)[400:], test), rmse(tuned.forecast(west)[400:], test)
    usual = rmse(climatology(west[:400], test.time, 1), test)
    assert after < 0.92 * before and after < 0.9 * usual
    assert rmse(again.forecast(west)[400:], test) < 0.95 * before


@pytest.mark.parametrize("spatial", ["adaptive", "directional"])
def test_finetuning_needs_no_shared_weights(spatial):
    model = fitted(spatial=spatial)
    tuned = model.finetune(weather()[250:320], **TUNING)
    assert not np.allclose(tuned.forecast(weather())[5:], model.forecast(weather())[5:])
    assert torch.equal(tuned.members[0].coefficients, model.members[0].coefficients) and tuned.linear is None


def test_finetuning_takes_missing_values_and_keeps_its_arguments():
    train, validation = with_gaps(TRAIN, 0.2), with_gaps(VALIDATION, 0.2)
    before = train.copy(deep=True), validation.copy(deep=True)
    tuned = shared().finetune(train, validation, ridge=0.1, **TUNING)
    assert np.isfinite(tuned.forecast(weather())[3:]).all()
    xr.testing.assert_identical(train, before[0])
    xr.testing.assert_identical(validation, before[1])


def without_pos() -> Data:
    return Data(edge_index=RING.edge_index, edge_weight=RING.edge_weight, num_nodes=6)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: fitted(shared=True, spatial="adaptive"), ValueError, ["spatial", "shared", "adaptive"]),
        (lambda: fitted(shared=1), TypeError, ["shared", "True or False", "1"]),
        (lambda: fitted(shared=True, graph=None), TypeError, ["graph", "NoneType"]),
        (lambda: fitted(shared=True, graph=None, spatial="none"), TypeError, ["graph", "NoneType"]),
        (lambda: fitted(shared=True, graph=THREE), ValueError, ["graph", "6 nodes", "3"]),
        (lambda: fitted(shared=True, graph=without_pos(), spatial="gcn"), ValueError, ["graph", "pos"]),
        (lambda: fitted(TRAIN[:, ::-1], shared=True), ValueError, ["graph", "order", "S5"]),
        (lambda: fitted(TRAIN[:, ::-1], shared=True, lags=0), ValueError, ["graph", "order", "S5"]),
        (lambda: fitted(shared=True, ridge=-1), ValueError, ["ridge", "-1"]),
        (lambda: usual().move(TRAIN, RING), ValueError, ["move", "shared=True", "6 stations"]),
        (lambda: shared().move(TRAIN.values, RING), TypeError, ["train", "DataArray", "ndarray"]),
        (lambda: shared().move(TRAIN.T, RING), ValueError, ["train", "(time, station)"]),
        (lambda: shared().move(TRAIN[:, :0], RING), ValueError, ["train", "at least one station"]),
        (lambda: shared().move(TRAIN, None), TypeError, ["graph", "NoneType"]),
        (lambda: shared("none").move(TRAIN, None), TypeError, ["graph", "NoneType"]),
        (lambda: shared().move(TRAIN, ring(9)), ValueError, ["graph", "6 nodes", "9"]),
        (lambda: shared("none").move(TRAIN, ring(9)), ValueError, ["graph", "6 nodes", "9"]),
        (lambda: shared().move(TRAIN, without_pos()), ValueError, ["graph", "pos"]),
        (lambda: shared().move(TRAIN[:, ::-1], RING), ValueError, ["graph", "order", "S5"]),
        (lambda: shared().move(change(TRAIN, S1=5.3), RING), ValueError, ["train", "constant", "S1"]),
        (lambda: shared().move(TRAIN.assign_coords(time=np.arange(250)), RING), TypeError, ["train", "dates"]),
        (lambda: shared().move(abroad()[:250], ring(9)).forecast(weather()), ValueError, ["series", "9 stations"]),
        (lambda: shared().finetune(TRAIN.values), TypeError, ["train", "DataArray", "ndarray"]),
        (lambda: shared().finetune(TRAIN[:, ::-1]), ValueError, ["train", "the forecaster", "S5"]),
        (lambda: shared().finetune(abroad()), ValueError, ["train", "the forecaster", "6 stations"]),
        (lambda: shared().finetune(TRAIN[:5]), ValueError, ["at least 6 time steps", "5"]),
        (lambda: shared().finetune(TRAIN.assign_coords(time=np.arange(250))), TypeError, ["train", "dates"]),
        (lambda: shared().finetune(TRAIN, TRAIN), ValueError, ["validation", "not in train"]),
        (lambda: shared().finetune(TRAIN, VALIDATION[:, :3]), ValueError, ["validation", "stations of train"]),
        (lambda: shared().finetune(TRAIN, ridge=-1), ValueError, ["ridge", "at least 0", "-1"]),
        (lambda: shared().finetune(TRAIN, ridge=True), ValueError, ["ridge", "True"]),
        (lambda: usual().finetune(TRAIN, ridge=0.1), ValueError, ["ridge", "shared=True", "0.1"]),
        (lambda: shared().finetune(TRAIN, epochs=0), ValueError, ["epochs", "at least 1", "0"]),
        (lambda: shared().finetune(TRAIN, learning_rate=0), ValueError, ["learning_rate", "above 0"]),
        (lambda: shared().finetune(TRAIN, seed=-1), ValueError, ["seed", "-1"]),
        (lambda: shared().finetune(TRAIN * NaN), ValueError, ["observed target"]),
    ],
)
def test_moves_and_finetuning_refuse_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call()
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_a_shared_linear_part_is_a_gnar():
    assert isinstance(shared().linear, GNAR) and usual().linear is None
