"""Regimes: the recursions against all paths, least squares, planted truths, null cases, and bad input."""

import itertools
import random
import re
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import Data

from stgcn_lab.baselines import eof_kmeans
from stgcn_lab.graphs import grid_graph, knn_graph
from stgcn_lab.regimes import (
    SEEN_BEFORE,
    GatedExpert,
    _columns,
    _Experts,
    _Law,
    _log_normal,
    _maximise,
    _refill,
    _towards_pool,
    choose_num_regimes,
    complete_regimes,
    discover_regimes,
    forward_backward,
)
from stgcn_lab.simulate import mean_pattern_regimes, phase_randomised, travelling_regimes, withhold


def neighbours(series: xr.DataArray) -> Data:
    return knn_graph(series.lat.values, series.lon.values, k=8)


def quick(series, graph=None, num_regimes=3, **options):
    """A fit with few starts and without the check by halves."""
    graph = neighbours(series) if graph is None else graph
    return discover_regimes(series, graph, num_regimes, **{"restarts": 2, "check": False} | options)


def ari(truth, labels) -> float:
    return float(adjusted_rand_score(truth.values, labels.values))


@pytest.fixture(scope="module")
def planted():
    """Three travelling regimes at 40 stations: 1000 steps to fit, 500 that follow, and the graph."""
    series, truth = travelling_regimes(40, 1500, 3, seed=22)
    first, second = slice(1000), slice(1000, None)
    return series[first], truth[first], series[second], truth[second], neighbours(series)


@pytest.fixture(scope="module")
def found(planted):
    """The fit that most tests look at, checked on halves."""
    return discover_regimes(planted[0], planted[4], 3, restarts=2)


@pytest.fixture(scope="module")
def winds():
    """Four winds at 100 stations, planted and found: two unseen seeds and two sets of directions."""
    cases = []
    for seed, direction in ((31, 0.0), (32, 30.0)):
        series, truth = travelling_regimes(100, 2000, 4, seed=seed, direction=direction)
        cases.append((series, truth, direction, quick(series, num_regimes=4)))
    return cases


@pytest.fixture(scope="module")
def gated(planted):
    return quick(planted[0], planted[4], expert="gated")


# ---------------------------------------------------------------------------- forward and backward


def all_paths(g, b, transition, breaks):
    """The same as forward_backward, one chain, by adding up every path that the regimes can take."""
    steps, regimes = g.shape
    paths = np.array(list(itertools.product(range(regimes), repeat=steps)))
    score = np.zeros((len(paths), steps))
    for t in range(steps):
        now, before = paths[:, t], paths[:, t - 1]
        if breaks[t]:
            score[:, t] = b[t, now] - np.log(regimes)
        else:
            score[:, t] = np.log(transition[before, now]) + np.where(now == before, g[t, now], b[t, now])
    weight = np.exp(score.sum(axis=1) - logsumexp(score.sum(axis=1)))
    probability, goes, count = np.zeros((steps, regimes)), np.zeros((steps, regimes)), np.zeros((regimes, regimes))
    # The steps after t are still free: every path up to t comes regimes^(steps - 1 - t) times.
    reached = [logsumexp(score[:, : t + 1].sum(axis=1)) - (steps - 1 - t) * np.log(regimes) for t in range(steps)]
    for t, k in itertools.product(range(steps), range(regimes)):
        probability[t, k] = weight[paths[:, t] == k].sum()
        for j in range(regimes if not breaks[t] else 0):
            both = weight[(paths[:, t] == k) & (paths[:, t - 1] == j)].sum()
            count[j, k] += both
            if j == k:
                goes[t, k] = both
    return probability, goes, count, np.diff(reached, prepend=0)


def chains(rng, regimes, size=1.0, steps=6, number=1):
    """Random log densities (R, T, K) twice, and transitions (R, K, K)."""
    g, b = -size * rng.exponential(size=(2, number, steps, regimes))
    return g, b, rng.dirichlet(np.ones(regimes), (number, regimes))


def breaks_at(steps, *where):
    breaks = np.zeros(steps, dtype=bool)
    breaks[[0, *where]] = True
    return breaks


@pytest.mark.parametrize("where", [(), (3,), (1, 5)])
@pytest.mark.parametrize("regimes", [1, 2, 3])
def test_forward_backward_is_the_sum_over_all_paths(rng, regimes, where):
    for _ in range(3):
        g, b, a = chains(rng, regimes, size=4.0)
        result = forward_backward(g, b, a, breaks_at(6, *where))
        inside = np.setdiff1d(np.arange(6), [0, *where])
        expected = all_paths(g[0], b[0], a[0], breaks_at(6, *where))
        for ours, theirs in zip((result[0], result[2], result[3]), (expected[0], *expected[2:]), strict=True):
            np.testing.assert_allclose(ours[0], theirs, atol=1e-10)
        np.testing.assert_allclose(result[1][0][inside], expected[1][inside], atol=1e-10)


@pytest.mark.parametrize("size", [1e3, 1e5])
@pytest.mark.parametrize("regimes", [1, 2, 3])
def test_densities_that_are_worlds_apart_are_still_summed_rightly(rng, regimes, size):
    # A jump that no expert foresaw is thousands of nats less likely than a fresh draw.
    for _ in range(10):
        g, b, a = chains(rng, regimes, size)
        probability, _, count, density = forward_backward(g, b, a, breaks_at(6))
        expected = all_paths(g[0], b[0], a[0], breaks_at(6))
        np.testing.assert_allclose(density[0].sum(), expected[3].sum(), rtol=1e-9)
        np.testing.assert_allclose(probability[0], expected[0], atol=1e-6)
        np.testing.assert_allclose(count[0], expected[2], atol=1e-6)


def test_a_shift_of_all_densities_shifts_the_answer_alone(rng):
    g, b, a = chains(rng, 3, steps=200)
    near, far = (forward_backward(g - shift, b - shift, a, breaks_at(200, 90)) for shift in (0.0, 1e5))
    for one, two in zip(near[:3], far[:3], strict=True):
        np.testing.assert_allclose(two, one, atol=1e-8)
    np.testing.assert_allclose(far[3] + 1e5, near[3], atol=1e-8)


def test_a_plain_hidden_markov_model_is_the_case_of_equal_densities(rng):
    _, b, a = chains(rng, 3, steps=40)
    probability, _, count, density = forward_backward(b, b, a, breaks_at(40))
    # Rabiner's recursions, scaled at each step.
    alpha, beta, scale = np.empty((40, 3)), np.ones((40, 3)), np.empty(40)
    for t in range(40):
        alpha[t] = (alpha[t - 1] @ a[0] if t else np.full(3, 1 / 3)) * np.exp(b[0, t])
        scale[t] = alpha[t].sum()
        alpha[t] /= scale[t]
    pairs = np.zeros((3, 3))
    for t in range(38, -1, -1):
        arrive = np.exp(b[0, t + 1]) * beta[t + 1] / scale[t + 1]
        pairs += alpha[t][:, None] * a[0] * arrive
        beta[t] = a[0] @ arrive
    np.testing.assert_allclose(probability[0], alpha * beta, atol=1e-10)
    np.testing.assert_allclose(density[0], np.log(scale), atol=1e-10)
    np.testing.assert_allclose(count[0], pairs, atol=1e-8)


def test_chains_side_by_side_are_chains_one_by_one(rng):
    g, b, a = chains(rng, 3, steps=30, number=4)
    together = forward_backward(g, b, a, breaks_at(30, 11))
    for r in range(4):
        alone = forward_backward(g[[r]], b[[r]], a[[r]], breaks_at(30, 11))
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_allclose(all_[r], one[0], atol=1e-12)


def test_every_step_is_accounted_for(rng):
    g, b, a = chains(rng, 3, size=5.0, steps=50)
    probability, goes, count, _ = forward_backward(g, b, a, breaks_at(50, 20))
    np.testing.assert_allclose(probability.sum(axis=-1), 1)
    assert (goes <= probability + 1e-9).all()
    inside = [t for t in range(50) if t not in (0, 20)]
    assert count.sum() == pytest.approx(48)  # each regime goes on, or another begins
    np.testing.assert_allclose(goes[0, inside].sum(axis=0), np.diag(count[0]))


def step_by_step(g, b, transition, breaks):
    """The same as forward_backward, without stretches of time: one step after the other."""
    restarts, steps, regimes = g.shape
    same = np.eye(regimes, dtype=bool)
    with np.errstate(divide="ignore"):
        move = np.where(same, g[:, :, None], b[:, :, None]) + np.log(transition)[:, None]
    move[:, breaks] = b[:, breaks, None] - np.log(regimes)
    alpha, beta = np.empty(g.shape), np.zeros(g.shape)
    alpha[:, 0] = b[:, 0] - np.log(regimes)
    for t in range(1, steps):
        alpha[:, t] = np.logaddexp.reduce(alpha[:, t - 1, :, None] + move[:, t], axis=1)
    for t in range(steps - 1, 0, -1):
        beta[:, t - 1] = np.logaddexp.reduce(move[:, t] + beta[:, t, None], axis=2)
    reached = np.logaddexp.reduce(alpha, axis=2)
    moved = np.exp(alpha[:, :-1, :, None] + move[:, 1:] + beta[:, 1:, None] - reached[:, -1, None, None, None])
    moved[:, breaks[1:]] = 0
    goes = np.concatenate([np.zeros((restarts, 1, regimes)), np.einsum("rtkk->rtk", moved)], axis=1)
    probability = np.exp(alpha + beta - reached[:, -1, None, None])
    return probability, goes, moved.sum(axis=1), np.diff(reached, axis=1, prepend=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 16, 17, 150])
@pytest.mark.parametrize("regimes", [1, 2, 4])
def test_stretches_of_time_side_by_side_are_one_step_after_the_other(rng, regimes, steps):
    g, b, a = chains(rng, regimes, size=8.0, steps=steps, number=3)
    if regimes > 2:
        a[0, 0, 1] = 0  # a move that can't be
    g, b = (x + 1e4 * np.sin(np.arange(steps))[:, None] for x in (g, b))
    breaks = breaks_at(steps, *{steps // 2, steps - 1})
    fast, plain = (f(g, b, a, breaks) for f in (forward_backward, step_by_step))
    for ours, theirs in zip(fast, plain, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-8)


# ---------------------------------------------------------------------------- least squares


@pytest.mark.parametrize("generalised", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_expert_is_least_squares(rng, weighted, generalised):
    steps, modes, inputs = 400, 3, 4
    x = rng.standard_normal((steps, modes, inputs)) + rng.standard_normal((modes, inputs))
    noise = rng.standard_normal((steps, modes)) @ rng.standard_normal((modes, modes))
    z = x @ rng.standard_normal(inputs) + rng.standard_normal(modes) + noise
    goes = rng.uniform(0.1, 1, (steps, 1)) if weighted else np.ones((steps, 1))
    covariance = np.cov(rng.standard_normal((modes, 20))) if generalised else np.eye(modes)
    one = np.ones((1, 1))
    before = _Experts(np.zeros((1, inputs)), np.zeros((1, modes)), covariance[None], np.zeros((1, modes)), None, one)
    fit = _maximise(_columns(z, x), goes, goes, one, before if generalised else None, "full")

    # The same as one long regression: common weights, a constant for each mode, rows made white and weighted.
    design = np.concatenate([x, np.broadcast_to(np.eye(modes), (steps, modes, modes))], axis=2)
    white = np.linalg.inv(np.linalg.cholesky(covariance))
    root = np.sqrt(goes)
    rows = np.einsum("nm,tmp->tnp", white, design) * root[..., None]
    target = z @ white.T * root
    solution = np.linalg.lstsq(rows.reshape(-1, inputs + modes), target.ravel(), rcond=None)[0]
    np.testing.assert_allclose(fit.weights[0], solution[:inputs], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fit.constant[0], solution[inputs:], rtol=1e-4, atol=1e-4)
    rest = z - design @ solution
    np.testing.assert_allclose(fit.mean[0], np.average(z, axis=0, weights=goes[:, 0]), atol=1e-6)
    # Drawn a little towards round, which keeps the total variance.
    assert np.trace(fit.error[0]) == pytest.approx(np.trace((goes * rest).T @ rest / goes.sum()), rel=1e-5)
    np.testing.assert_allclose(fit.forecast_errors(z, x)[0], rest, atol=1e-3)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("inputs", [0, 4])
def test_white_rows_give_what_the_full_second_moments_give(rng, inputs, first):
    steps, modes, regimes = 300, 5, 3
    z = rng.standard_normal((steps, modes)) + 1
    x = rng.standard_normal((steps, modes, inputs)) + 0.5 * z[:, :, None]
    probability = rng.dirichlet(np.full(regimes, 0.05), steps)  # many below the least share that counts
    goes = probability * rng.random((steps, 1))
    transition = np.full((regimes, regimes), 1 / regimes)
    start = None if first else _maximise(_columns(z, x), goes, goes, transition, None, "full")
    fit = _maximise(_columns(z, x), probability, goes, transition, start, "full")
    every = np.concatenate([x, z[:, :, None]], axis=2).reshape(steps, -1)
    error = np.empty((regimes, modes, modes))
    for k in range(regimes):
        share = np.where(goes[:, k] > 1e-4, goes[:, k], 0) / (goes[:, k].sum() + 1e-9)
        centre = share @ every
        second = (every.T * share) @ every - np.outer(centre, centre)
        second, centre = second.reshape(modes, inputs + 1, modes, inputs + 1), centre.reshape(modes, -1)
        xx, xz, zz = second[:, :-1, :, :-1], second[:, :-1, :, -1], second[:, -1, :, -1]
        precision = np.eye(modes) * modes / np.trace(zz) if first else np.linalg.inv(start.error[k])
        normal = np.einsum("mn,mpnq->pq", precision, xx) + 1e-6 * np.eye(inputs)
        weights = np.linalg.solve(normal, np.einsum("mn,mpn->p", precision, xz))
        explained = np.einsum("mpn,p->mn", xz, weights)
        error[k] = zz - explained - explained.T + np.einsum("p,mpnq,q->mn", weights, xx, weights)
        np.testing.assert_allclose(fit.weights[k], weights, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(fit.constant[k], centre[:, -1] - centre[:, :-1] @ weights, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(fit.error, _towards_pool(error, goes.sum(axis=0), "full"), rtol=1e-9, atol=1e-11)


def test_log_densities_are_those_of_the_normal_distribution(rng):
    root = rng.standard_normal((4, 4))
    covariance, deviation = root @ root.T + np.eye(4), rng.standard_normal((50, 4))
    np.testing.assert_allclose(
        _log_normal(deviation, covariance), multivariate_normal(np.zeros(4), covariance).logpdf(deviation), rtol=1e-12
    )


# ---------------------------------------------------------------------------- planted regimes


def test_finds_regimes_that_only_motion_tells_apart(winds):
    for series, truth, _, result in winds:
        assert ari(truth, result.labels) > 0.96
        assert ari(truth, eof_kmeans(series, 10, 4)) < 0.1


def test_weights_say_where_the_weather_comes_from(winds):
    for _, truth, direction, result in winds:
        assert result.weights.dims == ("regime", "lag", "source")
        assert list(result.weights.source.values) == ["self", "0°", "90°", "180°", "270°"]
        assert list(result.weights.lag.values) == [1, 2]
        total = result.weights.sum("lag").sel(source=["0°", "90°", "180°", "270°"]).values
        compass = np.array([1j, 1, -1j, -1])  # north, east, south, west as complex numbers, the real axis east
        for k in range(4):
            planted_as = np.bincount(truth.values[result.labels.values == k]).argmax()
            towards = np.exp(1j * np.deg2rad(direction + 90 * planted_as))
            upstream = total[k] @ compass
            assert abs(np.angle(-upstream / towards, deg=True)) < 20
            if direction == 0:  # the wind blows straight out of one sector
                assert compass[total[k].argmax()] == pytest.approx(-towards)


@pytest.mark.parametrize("options", [{}, {"history": 0}])
@pytest.mark.parametrize("seed", [32, 33])
def test_finds_mean_patterns(seed, options):
    series, truth = mean_pattern_regimes(40, 1000, 3, seed=seed)
    assert ari(truth, quick(series, **options).labels) > 0.96


def test_finds_short_spells_of_clear_patterns():
    # Monthly regimes last for a few steps. With patterns as clear as this k-means makes no mistake.
    series, truth = mean_pattern_regimes(30, 1200, 3, seed=1, signal=4.0, duration=(3, 3))
    result = quick(series, history=0, duration=3)
    assert ari(truth, result.labels) > 0.95
    np.testing.assert_allclose(result.mean_duration, 3, rtol=0.1)


def test_regimes_of_a_continuation_that_was_never_fitted(planted, found):
    later, truth = planted[2:4]
    probability = found.predict(later)
    assert probability.dims == ("time", "regime") and (probability.time == later.time).all()
    assert ari(truth, probability.argmax("regime")) > 0.9


def test_predict_repeats_the_fit_on_its_own_series(planted, found, gated):
    for result in (found, gated):
        np.testing.assert_allclose(result.predict(planted[0]), result.probabilities, atol=1e-9)
        density = result.log_density(planted[0])
        assert density.dims == ("time",) and (density.time == planted[0].time).all()
        assert float(density.mean()) == pytest.approx(result.log_likelihood)


def test_predict_needs_the_same_stations(planted, found):
    series = planted[0]
    for other in (series[:, ::-1], series[:, :20], series.assign_coords(station=np.arange(40))):
        with pytest.raises(ValueError, match=r"^series: .*stations"):
            found.predict(other)
        with pytest.raises(ValueError, match=r"^series: .*stations"):
            found.log_density(other)
    with pytest.raises(ValueError, match=r"^series: .*missing"):
        found.predict(series.where(series < 2))
    with pytest.raises(TypeError, match=r"^series"):
        found.predict(series.values)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_predict_takes_a_stretch_as_short_as_one_step(planted, found, gated, steps):
    for result in (found, gated):
        probability = result.predict(planted[0][:steps])
        np.testing.assert_allclose(probability.sum("regime"), 1)


# ---------------------------------------------------------------------------- are there any?


def test_planted_regimes_are_supported(planted, found):
    assert found.supported and found.verdict.startswith("Supported")
    assert found.stability > 0.9
    assert list(found.held_out.num_regimes.values) == [1, 2, 3]
    assert found.held_out.values[0] == 0 and (np.diff(found.held_out) > 0.2).all()


def test_one_regime_too_many_is_not_supported(planted):
    result = discover_regimes(planted[0], planted[4], 4, restarts=2)
    assert not result.supported and result.verdict.startswith("Not supported")
    assert list(result.held_out.num_regimes.values) == [1, 3, 4]


@pytest.mark.parametrize("seed", [21, 22])
@pytest.mark.parametrize("kind", ["phase-randomised", "one regime"])
def test_no_regimes_are_seen_where_there_are_none(kind, seed):
    if kind == "one regime":
        series, _ = travelling_regimes(30, 800, 1, seed=seed)
    else:
        series = phase_randomised(travelling_regimes(30, 800, 3, seed=seed)[0], seed=seed)
    result = discover_regimes(series, neighbours(series), 3, restarts=2)
    assert not result.supported and result.verdict.startswith("Not supported")


def test_the_planted_number_is_chosen(planted):
    gain = choose_num_regimes(planted[0], planted[4], (4, 2, 3), restarts=2)
    assert gain.dims == ("num_regimes",) and list(gain.num_regimes.values) == [1, 2, 3, 4]
    assert gain.values[0] == 0
    assert int(gain.num_regimes[gain.values.argmax()]) == 3


def test_without_a_number_it_is_chosen():
    series, truth = travelling_regimes(40, 1500, 2, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = quick(series, num_regimes=None)
    assert result.transition_matrix.shape == (2, 2)
    assert ari(truth, result.labels) > 0.9


def test_one_regime_lasts_for_ever(planted):
    series = planted[0]
    result = quick(series, planted[4], 1, check=True)
    assert (result.labels == 0).all() and (result.probabilities == 1).all()
    assert result.transition_matrix.values == 1 and np.isinf(result.mean_duration.values)
    np.testing.assert_allclose(result.composites[0], series.mean("time"), atol=1e-12)
    assert "One regime" in result.verdict


def test_what_was_not_checked_is_not_supported(planted):
    series, graph = planted[0], planted[4]
    result = quick(series, graph, 1 + 1)
    assert not result.supported and "Not checked" in result.verdict and np.isnan(result.held_out).all()
    short = discover_regimes(series[:70], graph, 3, restarts=1)
    assert not short.supported and "too short" in short.verdict and np.isnan(short.held_out).all()


# ---------------------------------------------------------------------------- what comes back


def test_every_time_has_a_regime_and_all_adds_up(planted, found):
    series, truth = planted[:2]
    assert found.labels.dims == ("time",) and found.labels.dtype.kind == "i"
    assert (found.labels.time == series.time).all()
    assert dict(found.probabilities.sizes) == {"time": 1000, "regime": 3}
    np.testing.assert_allclose(found.probabilities.sum("regime"), 1)
    assert (found.probabilities >= 0).all()
    np.testing.assert_array_equal(found.labels, found.probabilities.argmax("regime"))
    np.testing.assert_allclose(found.transition_matrix.sum("next"), 1)
    np.testing.assert_allclose(found.mean_duration, 1 / (1 - np.diag(found.transition_matrix)))
    assert found.mean_duration.attrs["units"] == "steps"
    share = found.probabilities.sum("time").values
    assert (np.diff(share) <= 1).all()  # the commonest comes first
    assert ari(truth, found.labels) > 0.96


def test_composites_are_weighted_means_in_the_units_of_the_series(planted):
    wind = (12 + 5 * planted[0]).assign_attrs(units="m s-1", long_name="wind")
    result = quick(wind, planted[4])
    composites = result.composites
    assert composites.dims == ("regime", "station") and composites.attrs == wind.attrs
    for name in ("station", "lat", "lon"):
        xr.testing.assert_identical(composites[name].drop_vars("units", errors="ignore"), wind[name])
    for k in range(3):
        expected = np.average(wind, axis=0, weights=result.probabilities[:, k])
        np.testing.assert_allclose(composites[k], expected, rtol=1e-9)


@pytest.mark.parametrize("history", [0, 1, 4])
@pytest.mark.parametrize("stretch", [1200, 12])
def test_transitions_are_those_that_can_be_counted(history, stretch):
    # The patterns are clear beyond doubt, so the expected transitions are the counted ones, a little of each to start
    # with. Between stretches there is a gap, over which no transition is seen.
    series, truth = mean_pattern_regimes(30, 1200, 3, seed=1, signal=4.0, duration=(10, 20))
    steps = np.arange(1200)
    series["time"] = pd.Timestamp("2000-01-01") + pd.to_timedelta((steps + steps // stretch * 50) * 6, unit="h")
    result = quick(series, history=history, duration=10)
    assert ari(truth, result.labels) > 0.97
    labels, inside = result.labels.values, steps[1:] % stretch != 0
    count = np.full((3, 3), SEEN_BEFORE)
    np.add.at(count, (labels[:-1][inside], labels[1:][inside]), 1)
    np.testing.assert_allclose(result.transition_matrix, count / count.sum(1, keepdims=True), atol=2e-3)


def test_same_seed_same_regimes_and_the_callers_dice_are_left_alone(planted):
    series, graph = planted[0][:400], planted[4]
    before = series.copy(deep=True)
    # NumPy's and Python's old global dice, which other people's code still throws.
    torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    one = quick(series, graph, seed=3, expert="gated")
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    torch.manual_seed(6), np.random.seed(6)  # noqa: NPY002
    two = quick(series, graph, seed=3, expert="gated")
    for name in ("labels", "probabilities", "transition_matrix", "composites", "weights"):
        xr.testing.assert_identical(getattr(one, name), getattr(two, name))
    assert one.log_likelihood == two.log_likelihood
    xr.testing.assert_identical(series, before)


@pytest.mark.parametrize("factor", [1e3, 1e-5])
def test_units_do_not_matter(planted, found, factor):
    series, graph = planted[0], planted[4]
    scaled = quick((series * factor).assign_attrs(units="K"), graph)
    np.testing.assert_array_equal(scaled.labels, found.labels)
    np.testing.assert_allclose(scaled.composites, factor * found.composites, atol=0.01 * factor)
    np.testing.assert_allclose(scaled.weights, found.weights, atol=0.01)
    assert scaled.composites.attrs["units"] == "K"


def test_the_order_of_the_stations_does_not_matter(planted, found, rng):
    series, graph = planted[0], planted[4]
    order = rng.permutation(40)
    place = torch.from_numpy(np.argsort(order))  # where each station has gone
    shuffled = Data(
        edge_index=place[graph.edge_index], edge_weight=graph.edge_weight, pos=graph.pos[order], num_nodes=40
    )
    result = quick(series[:, order], shuffled)
    np.testing.assert_array_equal(result.labels, found.labels)
    np.testing.assert_allclose(result.composites, found.composites[:, order], atol=1e-4)
    np.testing.assert_allclose(result.weights, found.weights, atol=1e-3)


def test_weights_of_stations_count_and_their_size_does_not(planted, found, rng):
    series, graph = planted[0][:400], planted[4]
    plain, sevens = (quick(series, graph, weights=w) for w in (None, np.full(40, 7.0)))
    np.testing.assert_array_equal(plain.labels, sevens.labels)
    # A weight of w is a station multiplied by its root, seen through operators that know of it.
    edgeless = Data(edge_index=torch.empty(2, 0, dtype=torch.long), pos=graph.pos, num_nodes=40)
    w = rng.uniform(0.2, 2, 40)
    weighted, multiplied = quick(series, edgeless, weights=w), quick(series * np.sqrt(w), edgeless)
    np.testing.assert_allclose(weighted.probabilities, multiplied.probabilities, atol=1e-6)
    assert not np.allclose(weighted.probabilities, quick(series, edgeless).probabilities, atol=1e-3)


def test_a_gap_in_time_cuts_the_past(planted, found):
    series = planted[0][:300]
    parts = series[:140], series[140:]
    later = parts[1].assign_coords(time=parts[1].time + np.timedelta64(270, "D"))
    with_gap = xr.concat([parts[0], later], "time")
    density = np.concatenate([found.log_density(part) for part in parts])
    probability = np.concatenate([found.predict(part) for part in parts])
    np.testing.assert_allclose(found.log_density(with_gap), density, atol=1e-8)
    np.testing.assert_allclose(found.predict(with_gap), probability, atol=1e-8)
    assert abs(found.log_density(series)[140] - density[140]) > 0.1  # without the gap the past is of use


# ---------------------------------------------------------------------------- experts, graphs, options


def test_gated_experts_fit_at_least_as_well(planted, found, gated):
    assert gated.log_likelihood > found.log_likelihood
    assert ari(planted[1], gated.labels) > 0.96


def test_an_untrained_gated_expert_adds_nothing():
    expert, x = GatedExpert(history=3, sectors=2), torch.randn(1, 10, 5, 1)
    operators = [torch.rand(5, 5) for _ in range(2)]
    assert torch.equal(expert(x, operators), torch.zeros(1, 10, 5))
    torch.nn.init.normal_(expert.out.weight)
    first = expert(x, operators)
    assert first.shape == (1, 10, 5) and (first[:, :3] == 0).all() and (first[:, 3:] != 0).any()
    # Nothing of the step itself or of later ones is seen, and nothing before the history.
    changed = x.clone()
    changed[:, 6] += 1
    differs = (expert(changed, operators) != first).any(dim=2)[0]
    assert differs.nonzero()[:, 0].tolist() == [7, 8, 9]


@pytest.mark.parametrize("expert", ["linear", "gated"])
def test_more_than_300_stations_use_sparse_operators(expert):
    series, truth = travelling_regimes(320, 200, 2, seed=3)
    result = quick(series, num_regimes=2, restarts=1, expert=expert)
    assert result.composites.shape == (2, 320)
    assert ari(truth, result.labels) > 0.9


def test_a_grid_is_a_graph_too():
    lat, lon = np.arange(-4.5, 5, 1.5), np.arange(-144.5, -135, 1.5)
    graph = grid_graph(lat, lon)
    x, y = (graph.pos.numpy().T.astype(float) - [[-140], [0]]) / 5
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(12) % 2, 50)
    along = np.where(truth[:, None] == 0, x, -x)
    waves = sum(np.cos(k * along - w * np.arange(600)[:, None]) for k, w in ((2, 0.4), (3, 0.55), (4, 0.65)))
    values = waves + rng.standard_normal(waves.shape)
    time = pd.date_range("2000-01-01", periods=600, freq="6h")
    series = xr.DataArray(values, dims=("time", "station"), coords={"time": time})
    result = quick(series, graph, 2, modes=8, weights=np.cos(np.deg2rad(graph.pos[:, 1].numpy())))
    assert adjusted_rand_score(truth, result.labels) > 0.9


def test_stations_without_neighbours_forecast_themselves(planted):
    series, truth, _, _, graph = planted
    edgeless = Data(edge_index=torch.empty(2, 0, dtype=torch.long), pos=graph.pos, num_nodes=40)
    result = quick(series[:300], edgeless)
    assert (result.weights[..., 1:] == 0).all() and (result.weights[..., 0] != 0).all()
    # Two pieces without an edge between them.
    west = graph.pos[:, 0] < graph.pos[:, 0].median()
    kept = west[graph.edge_index[0]] == west[graph.edge_index[1]]
    pieces = Data(
        edge_index=graph.edge_index[:, kept], edge_weight=graph.edge_weight[kept], pos=graph.pos, num_nodes=40
    )
    assert ari(truth, quick(series, pieces).labels) > 0.9


def test_one_station_is_enough(planted):
    lonely = Data(edge_index=torch.empty(2, 0, dtype=torch.long), pos=torch.zeros(1, 2), num_nodes=1)
    result = quick(planted[0][:300, :1], lonely, 2)
    assert result.composites.shape == (2, 1) and np.isfinite(result.log_likelihood)


def test_a_station_that_never_changes_does_no_harm(planted):
    series, truth, _, _, graph = planted
    stuck = series.copy()
    stuck[:, 7] = 3.0
    result = quick(stuck, graph)
    assert ari(truth, result.labels) > 0.96
    np.testing.assert_allclose(result.composites[:, 7], 3.0)


def test_modes_above_the_rank_are_those_of_the_rank(planted):
    series, graph = planted[0][:400], planted[4]
    many, rank = quick(series, graph, 2, modes=500), quick(series, graph, 2, modes=40)
    xr.testing.assert_identical(many.probabilities, rank.probabilities)
    assert many.log_likelihood != quick(series, graph, 2, modes=5).log_likelihood


@pytest.mark.parametrize("covariance", ["shared", "spherical"])
def test_simpler_covariances_find_them_too(planted, covariance):
    assert ari(planted[1], quick(planted[0], planted[4], covariance=covariance).labels) > 0.96


def test_numbers_of_numpy_and_other_types_of_series_are_fine(planted):
    series, graph = planted[0][:300], planted[4]
    usual = quick(series, graph, 2)
    same = quick(series, graph, np.int64(2), duration=np.int64(30), history=np.int32(2), seed=np.int64(0))
    xr.testing.assert_identical(usual.labels, same.labels)
    hundreds = (100 * series).round()
    numbered = hundreds.assign_coords(time=np.arange(300))
    expected = quick(hundreds, graph, 2).labels.values
    for other in (hundreds.astype(np.int64), hundreds.astype(np.float32), numbered, hundreds.drop_vars("station")):
        np.testing.assert_array_equal(quick(other, graph, 2).labels, expected)


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "name"),
    [
        *(({"num_regimes": k}, "num_regimes") for k in (0, -1, 2.5, True, "3", 6)),
        *(({"seed": k}, "seed") for k in (-1, 1.5, None)),
        *(({"num_regimes": None, "seed": k}, "seed") for k in (-1, 1.5, None)),
        *(({"restarts": k}, "restarts") for k in (0, 1.5)),
        *(({"history": k}, "history") for k in (-1, 1.5, True, 100, 5000)),
        ({"history": 0, "expert": "gated"}, "history"),
        ({"expert": "cubic"}, "expert"),
        ({"covariance": "diagonal"}, "covariance"),
        *(({"sectors": k}, "sectors") for k in (0, 2.0)),
        *(({"modes": k}, "modes") for k in (0, 2.0, True)),
        *(({"duration": k}, "duration") for k in (1, 0, -3, np.nan, np.inf, "30", True, None)),
        *(({"weights": w}, "weights") for w in (1.0, np.ones(3), np.zeros(40), -np.ones(40), np.full(40, np.nan))),
        *(({"weights": w}, "weights") for w in (["heavy"] * 40, np.full(40, np.inf), np.ones((40, 1)))),
    ],
    ids=lambda value: re.sub(r"\s+", " ", str(value))[:40],
)
def test_bad_options_are_named(planted, options, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError), match=rf"^{name}: "):
            quick(planted[0][:100], planted[4], **{"num_regimes": 2} | options)


def test_bad_candidates_are_named(planted):
    series, graph = planted[0], planted[4]
    for candidates in ((), (0,), (2.5,), (True,), 3, "ab", (26,)):
        with pytest.raises((ValueError, TypeError), match="^candidates: "):
            choose_num_regimes(series, graph, candidates, restarts=1)
    for bad, name in (({"seed": -1}, "seed"), ({"restarts": 0}, "restarts"), ({"history": -1}, "history")):
        with pytest.raises(ValueError, match=f"^{name}: "):
            choose_num_regimes(series, graph, (1, 2), **bad)


def test_bad_series_are_refused(planted):
    series, graph = planted[0][:100], planted[4]
    holes, infinite = series.copy(), series.copy()
    holes[3, 7], infinite[3, 7] = np.nan, np.inf
    for bad in (
        holes,
        infinite,
        xr.full_like(series, 3.3),
        xr.full_like(series, 0.0),
        series[::-1],
        xr.concat([series, series[-1:]], "time"),
        series.T,
        series.rename(station="node"),
        series[:, 0],
        series.drop_vars("time"),
        series[:, :0],
        series[:0],
    ):
        with pytest.raises(ValueError, match="^series: "):
            quick(bad, graph, 2)
        with pytest.raises(ValueError, match="^series: "):
            choose_num_regimes(bad, graph, (1, 2), restarts=1)
    for bad in (series.values, series.to_dataset(name="x"), series.astype(str), None):
        with pytest.raises((TypeError, ValueError), match="^series: "):
            quick(bad, graph, 2)


def test_a_calendar_without_leap_days_works_or_is_refused_by_name(planted):
    series, graph = planted[0][:100], planted[4]
    time = xr.date_range("2000-01-01", periods=100, freq="6h", calendar="noleap", use_cftime=True)
    try:
        result = quick(series.assign_coords(time=time), graph, 2)
    except (TypeError, ValueError) as error:
        assert str(error).startswith("series: ")
    else:
        np.testing.assert_array_equal(result.labels, quick(series, graph, 2).labels)


def test_a_half_that_is_constant_supports_nothing(planted):
    # A station network that was switched on in the middle of the record: one half has nothing to fit.
    series = planted[0][:200].copy()
    series[:100] = 0.0
    try:
        result = quick(series, planted[4], 2, check=True)
    except ValueError as error:
        assert str(error).startswith("series: ")
    else:
        assert not result.supported


def test_stretches_too_short_for_any_past(planted):
    # Winters of six steps and experts that want six steps before: there is nothing to learn the motion from.
    series, steps = planted[0][:300], np.arange(300)
    winters = series.assign_coords(
        time=pd.Timestamp("2000-01-01") + pd.to_timedelta((steps + steps // 6 * 50) * 6, unit="h")
    )
    with pytest.raises(ValueError, match="^history: "):
        quick(winters, planted[4], 2, history=6)
    assert quick(winters, planted[4], 2, history=2).labels.size == 300


def test_bad_graphs_are_refused(planted, graph):
    series, good = planted[0][:100], planted[4]
    for bad in (
        graph,
        None,
        np.eye(40),
        Data(edge_index=good.edge_index, num_nodes=40),
        Data(pos=good.pos, num_nodes=40),
    ):
        with pytest.raises((TypeError, ValueError), match="^graph: "):
            discover_regimes(series, bad, 2)


def test_memory_grows_with_stations_times_steps():
    def peak(num_nodes, num_steps):
        series, _ = travelling_regimes(num_nodes, num_steps, 3, seed=1)
        graph = neighbours(series)
        tracemalloc.start()
        discover_regimes(series, graph, 3, modes=10, restarts=1, check=False)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    base = peak(50, 1000)
    assert peak(50, 2000) < 2.3 * base  # twice the steps, about twice the memory
    assert peak(100, 1000) < 2.3 * base  # and never more than that for twice the stations


# ---------------------------------------------------------------------------- filling and finding in turn


def fill(series, graph, num_regimes=3, **options):
    return complete_regimes(series, graph, num_regimes, **{"restarts": 2, "rounds": 3} | options)


@pytest.fixture(scope="module")
def gappy(planted):
    """Half of the planted series withheld in blocks: the truth, the series with gaps, what was made of it."""
    gaps = withhold(planted[0], 0.5, "blocks", length=(10, 40), seed=3)
    return planted[0], gaps, *fill(gaps, planted[4], rounds=8)


@pytest.mark.parametrize("history", [0, 1, 2, 3])
def test_a_filling_is_the_minimum_of_its_quadratic(rng, history):
    steps, stations, regimes = 9, 3, 2
    known = rng.random((steps, stations)) < 0.4
    known[4], known[6] = True, False
    x = np.where(known, rng.standard_normal(known.shape), np.nan)
    lags = 0.4 * rng.standard_normal((regimes, history, stations, stations))
    maps = np.concatenate([np.broadcast_to(np.eye(stations), (regimes, 1, stations, stations)), -lags], axis=1)
    root = rng.standard_normal((2, regimes, stations, stations))
    precision, fresh = root @ root.swapaxes(-1, -2) + 0.1 * np.eye(stations)
    law = _Law(maps, *rng.standard_normal((1, regimes, stations)), precision, *rng.standard_normal((1, 2, 3)), fresh)
    gamma, goes = rng.dirichlet(np.ones(regimes), steps), rng.random((steps, regimes))
    goes[:history] = goes[5 : 5 + history] = 0  # after a break there is no past
    goes *= gamma
    fillings, spread = _refill(x, known, law, goes, gamma - goes, 400, rng)
    # The same as one large system of normal equations.
    quadratic, right = np.zeros((27, 27)), np.zeros(27)
    for t, k in itertools.product(range(steps), range(regimes)):
        terms = [(gamma[t, k] - goes[t, k], law.fresh[k], law.mean[k], [np.eye(3)])]
        if goes[t, k]:
            terms.append((goes[t, k], law.precision[k], law.constant[k], law.steps[k]))
        for weight, inverse, target, matrices in terms:
            design = np.zeros((3, steps, 3))
            for h, matrix in enumerate(matrices):
                design[:, t - h] = matrix
            design = design.reshape(3, 27)
            quadratic += weight * design.T @ inverse @ design
            right += weight * design.T @ inverse @ target
    free, values = ~known.ravel(), np.where(known, x, 0).ravel()
    covariance = np.linalg.inv(quadratic[np.ix_(free, free)])
    best = covariance @ (right[free] - quadratic[free] @ values)
    np.testing.assert_allclose(fillings[0].ravel()[free], best, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(spread.ravel()[free], np.sqrt(np.diag(covariance)), rtol=0.1)
    np.testing.assert_array_equal(fillings[:, known], np.broadcast_to(x[known], (801, known.sum())))
    np.testing.assert_allclose(fillings[1:].mean(axis=0), fillings[0], atol=1e-10)  # pairs lie opposite each other
    drawn = np.cov(fillings[1:].reshape(800, -1)[:, free].T)
    size = np.sqrt(np.diag(covariance))
    assert np.abs((drawn - covariance) / np.outer(size, size)).max() < 0.3


def test_a_filling_prepared_in_stretches_is_the_same(rng, monkeypatch):
    steps, stations = 23, 4
    known = rng.random((steps, stations)) < 0.5
    known[:3], known[10] = False, True
    x = np.where(known, rng.standard_normal(known.shape), np.nan)
    lags = 0.3 * rng.standard_normal((2, 2, stations, stations))
    maps = np.concatenate([np.broadcast_to(np.eye(stations), (2, 1, stations, stations)), -lags], axis=1)
    precision = np.stack([np.eye(stations), 2 * np.eye(stations)])
    law = _Law(maps, *rng.standard_normal((1, 2, stations)), precision, np.zeros((2, stations)), precision)
    gamma = rng.dirichlet(np.ones(2), steps)
    goes = gamma * (np.arange(steps) >= 2)[:, None]
    once = _refill(x, known, law, goes, gamma - goes, 3, np.random.default_rng(0))
    for at_once in (1, 2 * stations**2, 7 * stations**2):
        monkeypatch.setattr("stgcn_lab.regimes.BLOCKS_AT_ONCE", at_once)
        again = _refill(x, known, law, goes, gamma - goes, 3, np.random.default_rng(0))
        for one, two in zip(once, again, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)


def test_a_filling_without_a_minimum_is_an_error(rng):
    law = _Law(np.eye(2)[None, None], np.zeros((1, 2)), -np.eye(2)[None], np.zeros((1, 2)), -np.eye(2)[None])
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        _refill(np.zeros((3, 2)), np.zeros((3, 2), bool), law, np.zeros((3, 1)), np.ones((3, 1)), 1, rng)


def test_joint_filling_beats_interpolation_and_finds_the_regimes(planted, gappy):
    series, gaps, filled, found = gappy
    withheld = gaps.isnull().values
    linear = gaps.interpolate_na("time").ffill("time").bfill("time")

    def error(filling):
        return float(np.sqrt(((filling - series).values[withheld] ** 2).mean()))

    assert error(filled) < 0.7 * float(series.std())
    assert error(filled) < 0.7 * error(linear)
    assert ari(planted[1], found.labels) > 0.8
    assert ari(planted[1], found.labels) > ari(planted[1], quick(linear, planted[4]).labels) + 0.2
    inside = np.abs((filled - series).values[withheld]) < 1.645 * filled.spread.values[withheld]
    assert 0.8 < inside.mean() < 0.97
    assert float(filled.spread.max()) < 3  # the standard deviation of the series is 1


def test_observed_values_stay_bit_for_bit(gappy, planted):
    _, gaps, filled, found = gappy
    observed = gaps.notnull().values
    np.testing.assert_array_equal(filled.values[observed], gaps.values[observed])
    assert filled.notnull().all() and filled.dims == gaps.dims and filled.attrs == gaps.attrs
    assert (filled.spread.values[observed] == 0).all() and (filled.spread.values[~observed] > 0).all()
    single = gaps[:300].astype(np.float32)
    filled, _ = fill(single, planted[4], 2, rounds=1)
    assert filled.dtype == np.float32
    observed = single.notnull().values
    np.testing.assert_array_equal(filled.values[observed], single.values[observed])


def test_regimes_of_a_filled_series_are_complete(gappy):
    _, gaps, filled, found = gappy
    np.testing.assert_allclose(found.probabilities.sum("regime"), 1)
    assert (np.diff(np.bincount(found.labels, minlength=3)) <= 0).all()  # the commonest first
    np.testing.assert_allclose(found.transition_matrix.sum("next"), 1)
    assert ari(found.labels, found.predict(filled).argmax("regime")) > 0.8
    assert not found.supported and "Not checked" in found.verdict and np.isfinite(found.log_likelihood)


def test_without_gaps_the_regimes_are_those_that_are_discovered(planted, found):
    filled, same = fill(planted[0], planted[4])
    xr.testing.assert_identical(filled.drop_vars("spread"), planted[0])
    assert (filled.spread == 0).all()
    np.testing.assert_array_equal(same.labels, found.labels)


@pytest.mark.parametrize("num_regimes", [1, 2])
def test_gaps_of_all_kinds_are_filled(planted, num_regimes):
    series = withhold(planted[0][:240], 0.2, seed=1).copy()
    time = series.time.values.copy()
    time[120:] += np.timedelta64(90, "D")  # a break of the time axis
    series = series.assign_coords(time=time)
    series[:, 5] = np.nan  # never observed
    series[8:, 6] = np.nan  # hardly ever observed
    series[:50, 7] = series[-50:, 8] = np.nan  # at the start, at the end
    series[100:110] = series[119:121] = series[0] = np.nan  # nothing observed at all
    filled, found = fill(series, planted[4], num_regimes)
    assert np.isfinite(filled).all() and np.isfinite(filled.spread).all()
    assert (filled.spread.values[series.isnull().values] > 0).all()
    np.testing.assert_array_equal(filled.values[series.notnull().values], series.values[series.notnull().values])
    assert np.abs(filled).max() < 6 and found.composites.notnull().all()
    assert np.corrcoef(filled[:, 5], planted[0][:240, 5])[0, 1] > 0.5  # neighbours tell of it
    assert float(filled.spread[100:110].mean()) > float(filled.spread[20:90].values[series[20:90].isnull()].mean())
    assert found.predict(filled).shape == (240, num_regimes)


def test_whole_stations_are_filled_from_their_neighbours(planted):
    series = withhold(planted[0], 0.3, "stations", seed=1)
    filled, found = fill(series, planted[4])
    gone = series.isnull().values
    assert float(np.sqrt(((filled - planted[0]).values[gone] ** 2).mean())) < 0.8
    assert ari(planted[1], found.labels) > 0.9


def test_one_station_is_filled_in_time(planted):
    wave = xr.zeros_like(planted[0][:400, :1]) + np.sin(np.arange(400) / 5)[:, None]
    filled, _ = fill(withhold(wave, 0.3, seed=0), knn_graph(wave.lat.values, wave.lon.values, k=1), 1)
    assert float(np.abs(filled - wave).max()) < 0.5


def test_a_filling_has_the_units_of_the_series_and_is_repeatable(planted):
    gaps = withhold(planted[0][:300], 0.4, seed=2)
    before = torch.get_rng_state()
    filled, found = fill(gaps, planted[4], 2)
    again, _ = fill(gaps, planted[4], 2)
    assert torch.equal(torch.get_rng_state(), before)
    xr.testing.assert_identical(filled, again)
    scaled, same = fill(10 * gaps + 300, planted[4], 2)
    np.testing.assert_allclose(scaled, 10 * filled + 300, atol=1e-3)
    np.testing.assert_allclose(scaled.spread, 10 * filled.spread, atol=1e-3)
    np.testing.assert_array_equal(same.labels, found.labels)


def test_settings_of_the_experts_are_passed_on(planted):
    gaps = withhold(planted[0][:300], 0.2, seed=2)
    weights = np.linspace(1, 2, 40)
    for options in ({"history": 0}, {"covariance": "spherical"}, {"modes": 5, "sectors": 1}, {"weights": weights}):
        filled, found = fill(gaps, planted[4], 2, **options)
        assert np.isfinite(filled).all() and found.weights.sizes["lag"] == options.get("history", 2)


def test_bad_input_of_a_completion_is_named(planted):
    series, graph = withhold(planted[0][:100], 0.2), planted[4]
    for bad in (
        xr.full_like(series, np.nan),
        xr.full_like(series, 3.3).where(series.notnull()),
        series.where(series < 9, np.inf),
        series[:, :0],
        series.T,
    ):
        with pytest.raises(ValueError, match="^series: "):
            fill(bad, graph, 2)
    with pytest.raises(TypeError, match="^series: "):
        fill(series.values, graph, 2)
    bad_options = [({name: 0}, name) for name in ("num_regimes", "rounds", "pairs", "restarts")]
    for options, name in [
        *bad_options,
        ({"seed": -1}, "seed"),
        ({"expert": "gated"}, "expert"),
        ({"modes": 0}, "modes"),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: "):
            fill(series, graph, **{"num_regimes": 2} | options)
    with pytest.raises(TypeError, match="unknown"):
        fill(series, graph, 2, check=True)
    with pytest.raises(ValueError, match="^graph: "):
        fill(series, knn_graph(series.lat.values[:9], series.lon.values[:9], k=3), 2)


def test_threads_of_blas_are_as_before_afterwards():
    """The search keeps to one thread; whoever calls it keeps theirs."""
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads():
        return {one["filepath"]: one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    series, _ = travelling_regimes(num_nodes=16, num_steps=300, num_regimes=2, seed=0)
    graph = knn_graph(series.lat.values, series.lon.values, k=4)
    with threadpool_limits(2, "blas"):
        before = threads()
        choose_num_regimes(series, graph, (1, 2), restarts=1, history=1)
        assert threads() == before
