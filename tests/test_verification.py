"""Scores by hand, against the library `scores` and against their definitions; intervals against what they promise."""

import ast
import json
import operator
import re
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scores
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from scipy.stats import norm
from scores.categorical import ThresholdEventOperator
from scores.stats.statistical_tests import diebold_mariano

from stgcn_lab import verification
from stgcn_lab.baselines import climatology, persistence
from stgcn_lab.datasets import grid_to_nodes, load_irish_wind, load_reanalysis
from stgcn_lab.verification import (
    acc,
    area_weights,
    bias,
    block_bootstrap,
    brier,
    compare,
    contingency,
    crps_ensemble,
    crps_gaussian,
    economic_value,
    entry,
    interval_miss_rate,
    leaderboard,
    mae,
    mape,
    mean_score,
    pinball,
    rank_histogram,
    reliability,
    rmse,
    roc,
    skill_score,
)

BOTH = ("time", "station")
NaN = np.nan


@pytest.fixture(autouse=True)
def _no_warnings():
    """Missing values are ordinary: they must not fill the reader's page with warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # what another test left, collected here
        warnings.filterwarnings("ignore", "numba is not available")  # says scores, which would be faster with it
        yield


def field(values, start="2000-01-01", freq="D", units="K") -> xr.DataArray:
    values = np.asarray(values)
    return xr.DataArray(
        values,
        dims=BOTH,
        coords={
            "time": pd.date_range(start, periods=len(values), freq=freq),
            "station": [f"S{i}" for i in range(values.shape[1])],
            "lat": ("station", 50.0 + np.arange(values.shape[1])),
            "lon": ("station", -8.0 + np.arange(values.shape[1])),
        },
        attrs={"units": units},
        name="temperature",
    )


OBSERVED = field([[1.0, 10.0], [2.0, 20.0], [3.0, NaN], [4.0, 40.0]])
FORECAST = field([[2.0, 10.0], [2.0, 23.0], [0.0, 99.0], [NaN, 36.0]])
# errors: S0 1, 0, -3, none; S1 0, 3, none, -4


def sample(steps=300, stations=4, missing=0.1, seed=0) -> tuple[xr.DataArray, xr.DataArray]:
    """A forecast and what was observed, some of both missing."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((steps, stations)) * 3
    forecast = 0.7 * truth + rng.standard_normal((steps, stations))
    truth[rng.random(truth.shape) < missing] = NaN
    forecast[rng.random(truth.shape) < missing] = NaN
    return field(forecast), field(truth)


def members_of(arrays) -> xr.DataArray:
    return xr.concat(arrays, dim="member")


# ---------------------------------------------------------------------------- forecasts of a number


def test_errors_by_hand():
    np.testing.assert_allclose(rmse(FORECAST, OBSERVED), [np.sqrt(10 / 3), np.sqrt(25 / 3)])
    np.testing.assert_allclose(mae(FORECAST, OBSERVED), [4 / 3, 7 / 3])
    np.testing.assert_allclose(bias(FORECAST, OBSERVED), [-2 / 3, -1 / 3])
    assert rmse(FORECAST, OBSERVED, dim=BOTH).item() == pytest.approx(np.sqrt(35 / 6))
    np.testing.assert_allclose(mae(FORECAST, OBSERVED, dim="station"), [0.5, 1.5, 3.0, 4.0])
    np.testing.assert_allclose(rmse(FORECAST, OBSERVED, dim=()), [[1, 0], [0, 3], [3, NaN], [NaN, 4]])


def test_errors_with_weights_by_hand():
    weights = [3.0, 1.0]
    assert rmse(FORECAST, OBSERVED, BOTH, weights).item() == pytest.approx(np.sqrt((3 * 10 + 25) / (3 * 3 + 3)))
    np.testing.assert_allclose(bias(FORECAST, OBSERVED, "station", weights), [0.75, 0.75, -3.0, -4.0])
    labelled = xr.DataArray(weights, dims="station", coords={"station": OBSERVED.station})
    xr.testing.assert_identical(mae(FORECAST, OBSERVED, BOTH, labelled), mae(FORECAST, OBSERVED, BOTH, weights))


@pytest.mark.parametrize("dim", ["time", "station", BOTH])
def test_errors_are_those_of_scores(dim):
    forecast, observed = sample()
    for ours, theirs in (
        (rmse, scores.continuous.rmse),
        (mae, scores.continuous.mae),
        (bias, scores.continuous.mean_error),
    ):
        np.testing.assert_allclose(ours(forecast, observed, dim), theirs(forecast, observed, reduce_dims=dim))


def test_percentage_error_by_hand():
    found = mape(FORECAST, OBSERVED)
    np.testing.assert_allclose(found, [100 * (1 + 0 + 1) / 3, 100 * (0 + 3 / 20 + 4 / 40) / 3])
    assert found.units == "%"
    xr.testing.assert_allclose(mape(-FORECAST, -OBSERVED), found)
    xr.testing.assert_allclose(mape(3 * FORECAST, 3 * OBSERVED), found)
    assert mape(FORECAST, OBSERVED, BOTH, [0, 1]).item() == pytest.approx(100 * (3 / 20 + 4 / 40) / 3)
    assert np.isnan(mape(FORECAST, OBSERVED, ())[3, 0])
    with pytest.raises(ValueError, match="observed: expected no zero, which has no percentage, found 1"):
        mape(FORECAST, OBSERVED.where(OBSERVED != 3, 0))
    mape(FORECAST, OBSERVED.where(OBSERVED != 4, 0))  # nothing was forecast there


def test_scores_say_what_they_are_and_where():
    found = rmse(FORECAST, OBSERVED)
    assert found.name == "rmse" and found.attrs == {"long_name": "root mean square error", "units": "K"}
    xr.testing.assert_equal(found.lat, OBSERVED.lat)
    assert "units" not in mae(FORECAST, OBSERVED.drop_attrs()).attrs


def test_mean_score_is_the_mean_of_the_stations_scores():
    forecast, observed = sample()
    assert mean_score(forecast, observed) == pytest.approx(rmse(forecast, observed).mean().item(), rel=1e-12)
    assert mean_score(forecast, observed, "mae") == pytest.approx(mae(forecast, observed).mean().item(), rel=1e-12)
    assert mean_score(forecast, observed) < rmse(forecast, observed, BOTH).item()  # the root of the mean is above
    weights = [1.0, 2.0, 0.0, 5.0]
    expected = np.average(rmse(forecast, observed), weights=weights)
    assert mean_score(forecast, observed, weights=weights) == pytest.approx(expected, rel=1e-12)


def test_a_station_without_pairs_is_left_out():
    forecast = FORECAST.copy()
    forecast[:, 0] = NaN
    assert np.isnan(rmse(forecast, OBSERVED)[0])
    assert mean_score(forecast, OBSERVED) == pytest.approx(np.sqrt(25 / 3))
    assert compare(forecast, FORECAST, OBSERVED, block_length=1).value == 0


def test_published_score_of_persistence():
    """The benchmark of Irish wind: mean over stations of each station's error, 0.5578 and 0.4389."""
    wind = load_irish_wind().wind_speed
    wind = wind.sel(station=wind.station != "ROS")
    wind = np.sqrt(wind.sel(time=~((wind["time.month"] == 2) & (wind["time.day"] == 29))))
    train = wind.sel(time=slice("1961", "1970"))
    everyone = train.mean("station").expand_dims(station=["all"], axis=1)
    trend = climatology(everyone, wind.time).isel(station=0, drop=True)
    rest = wind - trend
    test = (rest - rest.sel(time=train.time).mean("time")).sel(time=slice("1971", "1978"))
    forecast = persistence(test)
    forecast[:3] = NaN
    assert mean_score(forecast, test) == pytest.approx(0.5578, abs=6e-5)
    assert mean_score(forecast, test, "mae") == pytest.approx(0.4389, abs=6e-5)


def test_anomaly_correlation_is_the_formula():
    forecast, observed = sample(missing=0)
    usual = field(np.random.default_rng(5).standard_normal(forecast.shape))
    f, o = (forecast - usual).values, (observed - usual).values
    expected = [np.corrcoef(f[:, i], o[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(acc(forecast, observed, usual), expected)
    weights = np.array([1.0, 2.0, 3.0, 0.5])
    w = weights / weights.sum()
    for t in (0, 17):
        a, b = f[t] - w @ f[t], o[t] - w @ o[t]
        by_hand = (w @ (a * b)) / np.sqrt((w @ a**2) * (w @ b**2))
        assert acc(forecast, observed, usual, "station", weights)[t].item() == pytest.approx(by_hand)


def test_anomaly_correlation_is_that_of_scores_and_passes_over_nan():
    forecast, observed = sample()
    usual = field(np.full(forecast.shape, 2.0))
    theirs = scores.continuous.correlation.pearsonr(forecast - usual, observed - usual, reduce_dims="time")
    np.testing.assert_allclose(acc(forecast, observed, usual), theirs)
    assert np.isnan(acc(usual, observed, usual)).all()  # the climatology never leaves itself
    np.testing.assert_allclose(acc(observed, observed, usual), 1)


def test_skill_by_hand():
    assert skill_score(0.4, 0.5) == pytest.approx(0.2)
    assert skill_score(0.75, 0.5, perfect=1.0) == pytest.approx(0.5)
    np.testing.assert_allclose(skill_score([1.0, 3.0, 1.0], [2.0, 2.0, 0.0]), [0.5, -0.5, NaN])
    found = skill_score(rmse(FORECAST, OBSERVED), rmse(OBSERVED + 2, OBSERVED))
    np.testing.assert_allclose(found, 1 - rmse(FORECAST, OBSERVED) / 2)
    assert found.attrs["units"] == "1" and list(found.station.values) == ["S0", "S1"]
    np.testing.assert_allclose(skill_score(rmse(FORECAST, OBSERVED), 2.0), found)
    assert np.isnan(skill_score(rmse(FORECAST, OBSERVED), 0.0)).all()


# ---------------------------------------------------------------------------- forecasts with their uncertainty


def test_crps_of_a_gaussian_by_hand():
    """At the mean it is (√2 - 1)/√π of the spread, for both distances of one spread 0.602441."""
    mean, spread = field([[0.0, 1.0]]), field([[1.0, 2.0]])
    found = crps_gaussian(mean, spread, field([[0.0, 3.0]]))
    np.testing.assert_allclose(found, [(np.sqrt(2) - 1) / np.sqrt(np.pi), 2 * 0.6024414], rtol=1e-6)
    assert found.attrs["units"] == "K"


@given(st.floats(-5, 5), st.floats(0.05, 4), st.floats(-6, 6))
def test_crps_of_a_gaussian_is_the_integral(mean, spread, observed):
    # The integrand jumps at the observation: one rule for each side.
    below = np.linspace(min(mean - 9 * spread, observed), observed, 20001)
    above = np.linspace(observed, max(mean + 9 * spread, observed), 20001)
    expected = trapezoid(norm.cdf(below, mean, spread) ** 2, below)
    expected += trapezoid(norm.sf(above, mean, spread) ** 2, above)
    found = crps_gaussian(field([[mean]]), field([[spread]]), field([[observed]])).item()
    assert found == pytest.approx(expected, abs=2e-5)


def test_crps_of_a_gaussian_is_that_of_scores():
    rng = np.random.default_rng(0)
    mean, spread = field(rng.standard_normal((6, 3))), field(rng.uniform(0.3, 2, (6, 3)))
    observed = field(rng.standard_normal((6, 3)))
    thresholds = np.linspace(-12, 12, 4001)
    cdf = xr.DataArray(
        norm.cdf(thresholds, mean.values[..., None], spread.values[..., None]),
        dims=(*BOTH, "x"),
        coords={"time": mean.time, "station": mean.station, "x": thresholds},
    )
    theirs = scores.probability.crps_cdf(cdf, observed, threshold_dim="x", preserve_dims="station").total
    np.testing.assert_allclose(crps_gaussian(mean, spread, observed), theirs, atol=1e-4)
    # Equally likely members, at the quantiles of the distribution, are nearly the distribution.
    quantiles = norm.ppf((np.arange(2000) + 0.5) / 2000)
    members = members_of([mean + spread * q for q in quantiles])
    np.testing.assert_allclose(crps_gaussian(mean, spread, observed), crps_ensemble(members, observed), atol=1e-3)


def test_crps_of_a_sure_forecast_is_its_absolute_error():
    forecast, observed = sample()
    sure = crps_gaussian(forecast, forecast * 0 + 1e-9, observed)
    np.testing.assert_allclose(sure, mae(forecast, observed), atol=1e-8)
    same = members_of([forecast, forecast])
    np.testing.assert_allclose(crps_ensemble(same, observed), mae(forecast, observed))


def test_crps_is_smallest_for_the_right_spread():
    rng = np.random.default_rng(0)
    observed, mean = field(rng.standard_normal((4000, 2))), field(np.zeros((4000, 2)))
    found = [crps_gaussian(mean, mean + s, observed, BOTH).item() for s in (0.6, 0.8, 1.0, 1.25, 1.6)]
    assert np.argmin(found) == 2
    assert found[2] == pytest.approx(1 / np.sqrt(np.pi), abs=0.01)  # what it is on average


def test_crps_of_an_ensemble_by_hand_and_against_scores():
    members = members_of([field([[0.0, 1.0]]), field([[2.0, 1.0]]), field([[4.0, 7.0]])])
    observed = field([[1.0, 1.0]])
    # mean |x - o| = 5/3 and 2; Σ |x_i - x_j| over ordered pairs 16 and 24
    np.testing.assert_allclose(crps_ensemble(members, observed), [5 / 3 - 16 / 18, 2 - 24 / 18])
    np.testing.assert_allclose(crps_ensemble(members, observed, fair=True), [5 / 3 - 16 / 12, 2 - 24 / 12], atol=1e-12)
    forecast, observed = sample(missing=0)
    members = members_of([forecast + e for e in (-1.0, 0.2, 0.7, 3.0)])
    theirs = scores.probability.crps_for_ensemble(members, observed, "member", reduce_dims=BOTH)
    assert crps_ensemble(members, observed, dim=BOTH).item() == pytest.approx(theirs.item())


def test_incomplete_ensembles_are_left_out():
    forecast, observed = sample(missing=0)
    members = members_of([forecast - 1, forecast + 1, forecast + 2])
    members[1, :100] = NaN
    observed[100:150, 0] = NaN
    np.testing.assert_allclose(crps_ensemble(members, observed), crps_ensemble(members[:, 100:], observed[100:]))
    xr.testing.assert_allclose(rank_histogram(members, observed), rank_histogram(members[:, 100:], observed[100:]))
    assert crps_ensemble(members, observed, dim=()).isnull().sum() == 400 + 50


def quantiles_of(arrays, levels) -> xr.DataArray:
    return members_of(arrays).rename(member="quantile").assign_coords(quantile=levels)


def test_pinball_by_hand_and_against_scores():
    observed = field([[1.0, 10.0], [2.0, NaN], [6.0, 20.0]])
    quantiles = quantiles_of([observed.fillna(0) - 1, observed.fillna(0) + 2], [0.1, 0.9])
    found = pinball(quantiles, observed)
    assert found.dims == ("quantile", "station") and found.units == "K"
    np.testing.assert_allclose(found, [[0.1, 0.1], [0.2, 0.2]])
    quantiles[1, 0, 0] = NaN  # a pair that not all quantiles have is left out of all
    quantiles[0, 0, 0] = 90
    np.testing.assert_allclose(pinball(quantiles, observed, BOTH), [0.1, 0.2])
    forecast, observed = sample()
    for level in (0.2, 0.5):
        found = pinball(quantiles_of([forecast], [level]), observed)[0]
        theirs = scores.continuous.quantile_score(forecast, observed, level, reduce_dims=["time"])
        np.testing.assert_allclose(found, theirs)
    np.testing.assert_allclose(found, mae(forecast, observed) / 2)
    weighted = pinball(quantiles_of([forecast], [0.5]), observed, BOTH, [0, 0, 1, 0]).item()
    assert weighted == pytest.approx(found[2].item())


def test_pinball_of_many_quantiles_is_half_the_crps():
    rng = np.random.default_rng(0)
    observed = field(rng.standard_normal((200, 2)))
    levels = (np.arange(200) + 0.5) / 200
    quantiles = quantiles_of([observed * 0 + norm.ppf(tau, 0.3, 1.5) for tau in levels], levels)
    crps = crps_gaussian(observed * 0 + 0.3, observed * 0 + 1.5, observed)
    np.testing.assert_allclose(2 * pinball(quantiles, observed).mean("quantile"), crps, rtol=0.01)


def test_wrong_quantiles_are_refused():
    with pytest.raises(TypeError, match="quantiles: expected an xarray DataArray"):
        pinball([RIGHT], RIGHT)
    with pytest.raises(ValueError, match=r"quantiles: expected dims \(quantile, time, station\)"):
        pinball(RIGHT, RIGHT)
    for levels in ([10.0, 90.0], [0.0, 0.5], ["low", "high"]):
        with pytest.raises(ValueError, match="quantiles: expected probabilities between 0 and 1"):
            pinball(quantiles_of([RIGHT, RIGHT], levels), RIGHT)
    with pytest.raises(ValueError, match="quantiles: expected probabilities between 0 and 1"):
        pinball(quantiles_of([RIGHT, RIGHT], [0.1, 0.9]).drop_vars("quantile"), RIGHT)
    with pytest.raises(ValueError, match="expected the times of observed"):
        pinball(quantiles_of([RIGHT, RIGHT], [0.1, 0.9])[:, 1:], RIGHT)


def test_miss_rate_by_hand():
    mean, spread = field(np.zeros((5, 1))), field(np.full((5, 1), 2.0))
    observed = field([[0.0], [3.9], [-3.95], [NaN], [-3.0]])
    assert interval_miss_rate(mean, spread, observed).item() == 0.25  # the interval ends at 1.96 spreads: 3.92
    assert interval_miss_rate(mean, spread, observed, level=0.5).item() == 0.75
    assert np.isnan(interval_miss_rate(mean, spread, observed, dim=())[3])


@given(st.floats(0.05, 0.99), st.integers(0, 99))
def test_miss_rate_of_the_right_spread(level, seed):
    rng = np.random.default_rng(seed)
    mean, spread = field(rng.normal(10, 5, (2000, 2))), field(rng.uniform(0.5, 3, (2000, 2)))
    observed = mean + spread * rng.standard_normal((2000, 2))
    found = interval_miss_rate(mean, spread, observed, level, BOTH).item()
    assert abs(found - (1 - level)) < 4.5 * np.sqrt(level * (1 - level) / 4000)


def test_rank_histogram_by_hand():
    members = members_of([field([[2.0], [2.0], [5.0], [1.0]]), field([[4.0], [4.0], [3.0], [1.0]])])
    observed = field([[1.0], [3.0], [9.0], [1.0]])  # below, between, above, and equal to both
    np.testing.assert_allclose(rank_histogram(members, observed), np.array([4, 4, 4]) / 12)
    np.testing.assert_allclose(rank_histogram(members[:, :3], observed[:3]), [1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(rank_histogram(members[:, :1], observed[:1]), [1, 0, 0])


def test_rank_histogram_is_that_of_scores_and_tells_a_narrow_ensemble():
    rng = np.random.default_rng(0)
    observed = field(rng.standard_normal((1000, 3)))
    members = members_of([field(rng.standard_normal((1000, 3))) for _ in range(4)])
    found = rank_histogram(members, observed)
    theirs = scores.probability.rank_histogram(members, observed, "member")
    np.testing.assert_allclose(found, theirs)
    np.testing.assert_allclose(found, 0.2, atol=0.04)
    narrow = rank_histogram(members * 0.3, observed)
    assert narrow[[0, -1]].min() > 0.3 > 0.2 > narrow[1:-1].max()


# ---------------------------------------------------------------------------- forecasts of an event


def test_brier_by_hand_and_against_scores():
    probability, event = field([[0.5, 1.0], [0.2, 0.3]]), field([[1, 1], [0, 0]])
    np.testing.assert_allclose(brier(probability, event), [(0.25 + 0.04) / 2, 0.045])
    happened = event.astype(bool)
    xr.testing.assert_identical(brier(probability, happened), brier(probability, event))
    missing = event.where([[True, True], [False, True]])
    np.testing.assert_allclose(brier(probability, missing), [0.25, 0.045])
    theirs = scores.probability.brier_score(probability, event)
    assert brier(probability, event, BOTH).item() == pytest.approx(theirs.item())


def test_reliability_by_hand():
    probability = field([[0.0, 0.1], [0.25, 0.5], [0.6, 1.0], [0.9, NaN]])
    event = field([[0, 1], [0, 0], [1, 1], [1, 1]])
    table = reliability(probability, event, bins=4)
    np.testing.assert_array_equal(table["count"], [2, 1, 2, 2])
    np.testing.assert_allclose(table.probability, [0.05, 0.25, 0.55, 0.95])
    np.testing.assert_allclose(table.frequency, [0.5, 0, 0.5, 1])
    np.testing.assert_allclose(table.upper[:-1], table.lower[1:])
    uneven = reliability(probability, event, bins=[0, 0.05, 0.07, 1])
    np.testing.assert_array_equal(uneven["count"], [1, 0, 6])
    assert np.isnan(uneven.frequency[1]) and np.isnan(uneven.probability[1])


@given(st.integers(2, 12), st.integers(0, 99))
def test_brier_score_is_reliability_less_resolution_plus_uncertainty(levels, seed):
    """Murphy's decomposition, exact where a bin holds forecasts of one value."""
    rng = np.random.default_rng(seed)
    probability = (rng.integers(levels, size=(60, 3)) + 0.5) / levels
    event = (rng.random((60, 3)) < probability**2).astype(float)
    table = reliability(field(probability), field(event), bins=levels)
    share, usual = table["count"] / 180, event.mean()
    wrong = (share * (table.probability - table.frequency) ** 2).sum()
    resolved = (share * (table.frequency - usual) ** 2).sum()
    expected = wrong - resolved + usual * (1 - usual)
    assert brier(field(probability), field(event), BOTH).item() == pytest.approx(expected.item())


def test_contingency_by_hand():
    forecast = field(np.array([[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]]).T)
    event = field(np.array([[1, 1, 1, 0, 1, 1, 0, 0, 0, NaN]]).T)
    found = contingency(forecast, event).isel(station=0)
    counts = [int(found[name]) for name in ("hits", "misses", "false_alarms", "correct_negatives")]
    assert counts == [3, 2, 1, 3]
    assert found.probability_of_detection.item() == pytest.approx(3 / 5)
    assert found.false_alarm_ratio.item() == pytest.approx(1 / 4)
    assert found.false_alarm_rate.item() == pytest.approx(1 / 4)
    assert found.critical_success_index.item() == pytest.approx(3 / 6)
    assert found.frequency_bias.item() == pytest.approx(4 / 5)
    chance = 5 * 4 / 9
    assert found.equitable_threat_score.item() == pytest.approx((3 - chance) / (6 - chance))
    assert found.peirce_skill_score.item() == pytest.approx(3 / 5 - 1 / 4)


def test_contingency_of_a_probability_leaves_out_what_is_missing():
    probability, event = field([[0.3, 0.2], [NaN, 0.9], [0.1, 0.31]]), field([[1, 1], [1, 0], [0, NaN]])
    found = contingency(probability, event, BOTH, threshold=0.3)
    xr.testing.assert_identical(found, contingency(field([[1, 0], [NaN, 1], [0, 1]]), event, BOTH))
    assert [int(found[name]) for name in ("hits", "misses", "false_alarms", "correct_negatives")] == [1, 1, 1, 1]
    assert contingency(probability >= 0.3, event, BOTH).misses == 2


def test_contingency_is_that_of_scores():
    forecast, observed = sample(missing=0)
    found = contingency(forecast > 1, observed > 1, BOTH)
    warm = ThresholdEventOperator(default_event_threshold=1, default_op_fn=operator.gt)
    theirs = warm.make_contingency_manager(forecast, observed).transform(reduce_dims="all")
    for name in ("probability_of_detection", "false_alarm_ratio", "critical_success_index", "frequency_bias"):
        assert found[name].item() == pytest.approx(getattr(theirs, name)().item())


def test_contingency_without_an_event_has_no_number():
    never = field(np.zeros((4, 1)))
    found = contingency(field(np.array([[1], [0], [0], [0]])), never)
    assert np.isnan(found.probability_of_detection) and np.isnan(found.frequency_bias)
    assert found.false_alarm_ratio.item() == 1
    assert np.isnan(contingency(never, never).false_alarm_ratio)


def gales(steps=400, stations=3, seed=0, missing=0.1) -> tuple[xr.DataArray, xr.DataArray]:
    """Probabilities of a rare event, right but for the hundredths that they are given in, with gaps on both sides."""
    state = ar1(steps, stations, 0.7, seed)
    probability = np.round(norm.cdf(state - 1.5), 2)
    rng = np.random.default_rng(seed + 1)
    event = (rng.standard_normal(state.shape) < state - 1.5).astype(float)
    probability[rng.random(state.shape) < missing], event[rng.random(state.shape) < missing] = NaN, NaN
    return field(probability, units="1"), field(event, units="1")


def drawn(score, *series, names, **options):
    """Intervals of scores, each series drawn as it is and scored from the start."""

    def of_labelled(*arrays):
        found = score(*(field(x) for x in arrays))
        return np.concatenate([np.atleast_1d(found[name]) for name in names])

    return block_bootstrap(of_labelled, *(x.values for x in series), **options)


OPTIONS = {"block_length": 9, "resamples": 40, "level": 0.8, "seed": 3}


def test_reliability_has_the_intervals_of_the_bootstrap():
    probability, event = gales()
    edges = [0, 0.1, 0.3, 0.901, 0.905, 1]
    found = reliability(probability, event, edges, **OPTIONS)
    plain = reliability(probability, event, edges)
    xr.testing.assert_identical(found.drop_vars(["low", "high"]), plain)
    value, low, high = drawn(lambda p, e: reliability(p, e, edges), probability, event, names=["frequency"], **OPTIONS)
    for name, expected in (("frequency", value), ("low", low), ("high", high)):
        np.testing.assert_allclose(found[name], expected, err_msg=name)
    assert found["count"][3] == 0 and np.isnan(found.low[3])
    assert (found.low < found.frequency)[:3].all() and (found.frequency < found.high)[:3].all()
    # the blocks are those of compare if none are asked for; what lies before the first pair is no part of the sample
    event[:50] = NaN
    default = reliability(probability, event, edges, resamples=40)
    xr.testing.assert_identical(
        default, reliability(probability[50:], event[50:], edges, resamples=40, block_length=8, level=0.95, seed=0)
    )


def test_roc_by_hand():
    probability = field([[0.9, 0.8], [0.6, 0.6], [0.2, NaN], [0.1, 0.3]])
    event = field([[1, 1], [0, 1], [0, 1], [1, NaN]])
    table = roc(probability, event, [0.2, 0.6, 0.85])
    np.testing.assert_array_equal(table.threshold, [0, 0.2, 0.6, 0.85, np.inf])
    np.testing.assert_allclose(table.probability_of_detection, [1, 3 / 4, 3 / 4, 1 / 4, 0])
    np.testing.assert_allclose(table.false_alarm_rate, [1, 1, 1 / 2, 0, 0])
    assert table.area.item() == pytest.approx(3 / 4 * 1 / 2 + 1 / 2 * 1 / 2)
    # of 4 x 2 pairs of an event and another time 5 are in order, and in one the two are alike
    assert roc(probability, event).area.item() == pytest.approx(5.5 / 8)
    assert roc(probability, event, 0.0).area.item() == 0.5
    assert set(table) == {"probability_of_detection", "false_alarm_rate", "area"}
    assert table.area.attrs == {"long_name": "area", "units": "1"}


@pytest.mark.parametrize(("steps", "rounded"), [(30, False), (400, False), (400, True), (4000, False)])
def test_roc_is_that_of_scores(steps, rounded):
    probability, event = gales(steps)
    if not rounded:
        rng = np.random.default_rng(0)
        probability = (probability + rng.uniform(-0.005, 0.005, probability.shape)).clip(0, 1)
    thresholds = [0.0, 0.01, 0.05, 0.3, 0.31, 1.0]
    found = roc(probability, event, thresholds)
    theirs = scores.plotdata.roc(probability, event.where(probability.notnull()), thresholds)
    np.testing.assert_allclose(found.threshold, theirs.threshold)
    np.testing.assert_allclose(found.probability_of_detection, theirs.POD)
    np.testing.assert_allclose(found.false_alarm_rate, theirs.POFD)
    assert found.area.item() == pytest.approx(theirs.AUC.item())
    # without thresholds the area is that of all of them; with some thousand events to a ten-thousandth
    there = (probability + event).notnull().values
    p, e = probability.values[there], event.values[there] == 1
    order = np.mean(np.sign(p[e][:, None] - p[~e]) / 2 + 0.5)
    assert roc(probability, event).area.item() == pytest.approx(order, abs=1e-12 if e.sum() <= 200 else 1e-4)


def test_roc_has_the_interval_of_the_bootstrap():
    probability, event = gales()
    thresholds = np.linspace(0, 1, 11)
    found = roc(probability, event, thresholds, **OPTIONS)
    expected = drawn(lambda p, e: roc(p, e, thresholds), probability, event, names=["area"], **OPTIONS)
    np.testing.assert_allclose([found[n].item() for n in ("area", "area_low", "area_high")], np.ravel(expected))
    curve = ["probability_of_detection", "false_alarm_rate", "area"]
    xr.testing.assert_allclose(found[curve], roc(probability, event, thresholds))
    assert found.area_low < found.area < found.area_high
    assert "area_low" in roc(probability, event, resamples=1)


def expense(ratio, threshold, probability, event) -> float:
    """What a user of the forecast pays, in losses, one day after the other."""
    paid = 0.0
    for p, e in zip(probability.values.ravel(), event.values.ravel(), strict=True):
        if not np.isnan(p + e):
            paid += ratio if p >= threshold else e
    return paid


def test_economic_value_is_that_of_the_accounts():
    probability, event = gales()
    event = event.where(probability.notnull())
    rival = (0.5 * probability + 0.02).where(probability.notnull())
    ratios, thresholds = [0.02, 0.1, 0.4, 0.8], [0.05, 0.1, 0.2, 0.0]
    found = {
        "plain": economic_value(probability, event, ratios),
        "others": economic_value(probability, event, ratios, thresholds=thresholds),
        "rival": economic_value(probability, event, ratios, rival, thresholds),
    }
    for k, ratio in enumerate(ratios):
        number = event.notnull().sum().item()
        climate = min(ratio * number, event.sum().item())
        perfect = ratio * event.sum().item()
        act = {"plain": ratio, "others": thresholds[k], "rival": thresholds[k]}
        for name, threshold in act.items():
            before = expense(ratio, threshold, rival, event) if name == "rival" else climate
            mine = expense(ratio, threshold, probability, event)
            assert found[name][k].item() == pytest.approx((before - mine) / (before - perfect)), (name, ratio)
    assert found["plain"].dims == ("ratio",) and list(found["plain"].ratio) == ratios
    assert set(found["plain"].coords) == {"ratio"}
    one = economic_value(probability, event, 0.1, thresholds=0.3)
    assert one.item() == economic_value(probability, event, [0.1, 0.2], thresholds=[0.3, 0.9])[0].item()


def test_economic_value_of_those_who_know_all_or_nothing():
    probability, event = gales(missing=0)
    ratios = np.linspace(0.01, 0.99, 33)
    usual = event.mean().item()
    np.testing.assert_allclose(economic_value(event, event, ratios), 1)
    np.testing.assert_allclose(economic_value(0 * event + usual, event, ratios), 0, atol=1e-12)
    np.testing.assert_allclose(economic_value(probability, event, ratios, probability), 0, atol=1e-12)
    np.testing.assert_allclose(economic_value(probability, event, ratios, 0 * event + usual),
                               economic_value(probability, event, ratios), atol=1e-12)  # fmt: skip
    # nothing can be better than perfect: there is no number
    assert economic_value(probability, event, ratios, event).isnull().all()
    assert (economic_value(probability, event, ratios) < 1).all()
    # the pairs are those that the reference has too
    holes = probability.where(np.arange(400)[:, None] % 3 > 0)
    expected = economic_value(holes, event, ratios)
    np.testing.assert_allclose(economic_value(probability, event, ratios, 0 * holes + 1e-6),
                               economic_value(holes, event, ratios, 0 * holes + 1e-6))  # fmt: skip
    assert np.abs(expected - economic_value(probability, event, ratios)).max() > 0.01


@pytest.mark.skipif(not hasattr(scores.plotdata, "relative_economic_value"), reason="scores has it since 2.6")
def test_economic_value_is_that_of_scores():
    probability, event = gales()
    ratios = [0.05, 0.1, 0.25, 0.6, 0.9]
    theirs = scores.plotdata.relative_economic_value(
        probability, event, cost_loss_ratios=ratios, probability_thresholds=ratios, generate_equilibrium_point_rev=True
    )
    np.testing.assert_allclose(economic_value(probability, event, ratios), theirs.equilibrium_point)


def test_economic_value_has_the_intervals_of_the_bootstrap():
    probability, event = gales()
    ratios = [0.3, 0.05, 0.6]
    for others in ([], [probability**2]):
        found = economic_value(probability, event, ratios, *others, **OPTIONS)

        def value(p, e, *q):
            return {"value": economic_value(p, e, [0.3, 0.05, 0.6], *q)}

        expected = drawn(value, probability, event, *others, names=["value"], **OPTIONS)
        for part, numbers in zip((found, found.low, found.high), expected, strict=True):
            np.testing.assert_allclose(part, numbers)
        np.testing.assert_allclose(found, economic_value(probability, event, ratios, *others))


@pytest.mark.parametrize("kind", ["bool", "int8", "chunks"])
@pytest.mark.parametrize("score", [roc, reliability, lambda p, e: economic_value(p, e, [0.1, 0.4]).to_dataset()])
def test_curves_take_events_of_any_kind(score, kind):
    probability, event = gales(missing=0)
    if kind == "chunks":
        pytest.importorskip("dask")
    same = event.chunk({"time": 90}) if kind == "chunks" else event.astype(kind)
    xr.testing.assert_allclose(score(probability, same), score(probability, event))


def test_curves_refuse_what_has_no_events():
    ones, zeros = field(np.ones((6, 2))), field(np.zeros((6, 2)))
    for score in (roc, lambda p, e: economic_value(p, e, 0.1)):
        with pytest.raises(ValueError, match="event: expected some 1 and some 0, found 12 and 0"):
            score(ones, ones)
        with pytest.raises(ValueError, match="event: expected some 1 and some 0, found 0 and 11"):
            score(ones, zeros.where(np.arange(12).reshape(6, 2) > 0))
    # an event that nobody had a forecast for is none
    event = zeros.copy()
    event[2, 1] = 1
    roc(ones, event)
    with pytest.raises(ValueError, match="event: expected some 1 and some 0, found 0 and 11"):
        roc(ones.where(event == 0), event)
    with pytest.raises(ValueError, match="event: expected some 1 and some 0, found 0 and 11"):
        economic_value(ones, event, 0.1, ones.where(event == 0))


def test_curves_refuse_wrong_arguments():
    probability, event = gales()
    for ratios in ([0.0, 0.5], [0.5, 1.0], [], [NaN], [[0.1, 0.2]], 10):
        with pytest.raises(ValueError, match="ratios: expected numbers between 0 and 1"):
            economic_value(probability, event, ratios)
    for thresholds in ([0.1], [0.1, 0.2, 0.3], [0.1, 1.1], [0.1, NaN], -0.1):
        with pytest.raises(ValueError, match="thresholds: expected one probability, or one for each ratio"):
            economic_value(probability, event, [0.1, 0.2], thresholds=thresholds)
    for thresholds in ([0.5, 0.1], [0.1, 0.1], [0.1, 1.5], [NaN], [[0.1, 0.2]], -1):
        with pytest.raises(ValueError, match="thresholds: expected rising probabilities"):
            roc(probability, event, thresholds)
    with pytest.raises(ValueError, match="reference: expected from 0 to 1, found"):
        economic_value(probability, event, 0.1, probability * 20)
    with pytest.raises(ValueError, match="reference: expected the times of event"):
        economic_value(probability, event, 0.1, probability[1:])
    for score in (roc, reliability, lambda p, e, **o: economic_value(p, e, 0.1, **o)):
        for option, wrong in (("resamples", -1), ("resamples", 2.5), ("block_length", 300), ("level", 95)):
            with pytest.raises(ValueError, match=option):
                score(probability, event, **({"resamples": 5} | {option: wrong}))


# ---------------------------------------------------------------------------- means over an area


def globe(step_lat=2.5, step_lon=5.0) -> xr.Dataset:
    return xr.Dataset(coords={"lat": np.arange(-90, 90.1, step_lat), "lon": np.arange(0, 360, step_lon)})


def test_area_weights_of_the_globe_by_hand():
    found = area_weights(globe(45, 90))
    # zones end at 22.5 and 67.5 degrees; a polar cap has 1 - sin 67.5° of a hemisphere
    heights = np.array([1 - np.sin(np.pi * 3 / 8), np.sin(np.pi * 3 / 8) - np.sin(np.pi / 8), 2 * np.sin(np.pi / 8)])
    np.testing.assert_allclose(found.isel(lon=0), heights[[0, 1, 2, 1, 0]] / 2 / 4)
    assert found.dims == ("lat", "lon") and found.sum().item() == pytest.approx(1)


def test_area_weights_of_a_crop_are_those_of_the_globe():
    """The cells at the edge of a region do not reach to the pole."""
    whole = area_weights(globe())
    inside = {"lat": slice(35, 60), "lon": slice(20, 100)}
    crop = area_weights(globe().sel(inside))
    expected = whole.sel(inside)
    xr.testing.assert_allclose(crop, expected / expected.sum())
    south_first = area_weights(globe().sel(inside).isel(lat=slice(None, None, -1)))
    xr.testing.assert_allclose(south_first.sortby("lat"), crop)


@given(st.floats(-80, 60), st.integers(1, 20), st.floats(0.1, 1.0))
def test_area_weights_are_the_areas(first, rows, step):
    lat = first + step * np.arange(rows)
    found = area_weights(xr.Dataset(coords={"lat": lat, "lon": [350.0, 355.0, 0.0]}))
    edges = np.sin(np.deg2rad(first + step * (np.arange(rows + 1) - 0.5)))
    np.testing.assert_allclose(found[:, 1], np.diff(edges) / (edges[-1] - edges[0]) / 3, rtol=1e-5)


def test_area_weights_of_nodes_are_those_of_the_grid():
    field_ = load_reanalysis("europe").air_temperature
    grid, nodes = area_weights(field_), area_weights(grid_to_nodes(field_))
    assert nodes.dims == ("station",)
    np.testing.assert_allclose(nodes, grid.values.ravel(), rtol=1e-12)
    some = grid_to_nodes(field_).isel(station=slice(3, None, 7))  # the sea left out, say
    np.testing.assert_allclose(area_weights(some), nodes[3::7] / nodes[3::7].sum(), rtol=1e-12)
    mean = rmse(grid_to_nodes(field_)[:5] + 1, grid_to_nodes(field_)[:5], BOTH, nodes)
    assert mean.item() == pytest.approx(1)


def test_area_weights_in_single_precision_and_across_the_meridian():
    lat = np.arange(49, 61.1, 0.25, dtype=np.float32)
    lon = np.array([-0.2, -0.1, 0, 0.1, 0.2], dtype=np.float32)
    found = area_weights(xr.Dataset(coords={"lat": lat, "lon": lon}))
    expected = area_weights(xr.Dataset(coords={"lat": lat.astype(float), "lon": [1.0, 2.0, 3.0, 4.0, 5.0]}))
    np.testing.assert_allclose(found, expected.values, rtol=1e-6)
    nearly = {"lat": ("station", [50.0, 50.0]), "lon": ("station", [0.0, -1e-17])}  # 360 degrees east, modulo 360
    np.testing.assert_allclose(area_weights(xr.Dataset(coords=nearly)), 0.5)
    date_line = area_weights(xr.Dataset(coords={"lat": [50.0, 51.0], "lon": [179.3, 180.0, -179.3]}))
    np.testing.assert_allclose(date_line.sum("lat"), 1 / 3)


def test_area_weights_refuses_what_is_no_grid():
    with pytest.raises(TypeError, match="grid"):
        area_weights(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="lat and lon"):
        area_weights(xr.Dataset(coords={"lat": [1.0, 2.0]}))
    with pytest.raises(ValueError, match="latitudes at equal steps"):
        area_weights(xr.Dataset(coords={"lat": [1.0, 2.0, 3.5], "lon": [0.0, 1.0]}))
    with pytest.raises(ValueError, match="longitudes at equal steps"):
        area_weights(load_irish_wind())
    with pytest.raises(ValueError, match="-90 to 90"):
        area_weights(xr.Dataset(coords={"lat": [90.0, 91.0], "lon": [0.0, 1.0]}))
    with pytest.raises(ValueError, match="finite"):
        area_weights(xr.Dataset(coords={"lat": [90.0, NaN], "lon": [0.0, 1.0]}))


# ---------------------------------------------------------------------------- intervals


def ar1(steps, stations=1, memory=0.6, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.empty((steps, stations))
    x[0] = rng.standard_normal(stations) / np.sqrt(1 - memory**2)
    for t in range(1, steps):
        x[t] = memory * x[t - 1] + rng.standard_normal(stations)
    return x


def test_bootstrap_of_means_is_the_bootstrap():
    """The fast way draws the same series as the slow one, whole blocks or not."""
    forecast, observed = sample(101, 3)
    squares = ((forecast - observed) ** 2).values

    def slow(drawn):
        return np.sqrt(np.nanmean(drawn, axis=0)).mean()

    def fast(means):
        return np.sqrt(means).mean(axis=1)

    for block in (1, 7, 50):
        options = {"block_length": block, "resamples": 200, "seed": 3}
        one = block_bootstrap(slow, squares, **options)
        np.testing.assert_allclose(block_bootstrap(fast, squares, of_means=True, **options), one, rtol=1e-12)
        assert one.low < one.value < one.high
        assert one.value == pytest.approx(mean_score(forecast, observed))


def test_bootstrap_draws_whole_blocks_of_all_arrays_alike():
    seen = []
    time = np.arange(20)
    labelled = xr.DataArray(time * 10, dims="time", coords={"time": time})
    block_bootstrap(lambda a, b: seen.append((a, b)) or a.mean(), time, labelled, block_length=6, resamples=50)
    drawn = np.array([a for a, _ in seen[1:]])
    assert all((b == 10 * a).all() for a, b in seen)
    assert drawn.shape == (50, 20)
    steps = np.diff(drawn, axis=1) % 20
    assert (steps[:, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 18]] == 1).all()
    assert (steps[:, [5, 11, 17]] != 1).any()
    assert set(np.unique(drawn)) == set(range(20))


def test_bootstrap_repeats_itself():
    x = ar1(200)
    options = {"block_length": 10, "of_means": True}
    one = block_bootstrap(lambda m: m[:, 0], x, **options)
    assert one == block_bootstrap(lambda m: m[:, 0], x, **options)
    assert one != block_bootstrap(lambda m: m[:, 0], x, seed=1, **options)
    wider = block_bootstrap(lambda m: m[:, 0], x, level=0.99, **options)
    assert wider.low < one.low < one.high < wider.high


def test_interval_of_a_mean_covers_it_as_often_as_it_says():
    """AR(1) noise of mean zero: blocks know that its days are not independent, single days do not."""
    covered = {1: 0, 15: 0}
    for seed in range(200):
        x = ar1(600, seed=seed)
        for block in covered:
            found = block_bootstrap(lambda m: m[:, 0], x, block_length=block, resamples=300, of_means=True)
            covered[block] += found.low <= 0 <= found.high
    # 95 % is promised; single days promise as much and keep 67 % (a memory of 0.6 doubles the error of the mean)
    assert 0.88 <= covered[15] / 200 <= 0.985
    assert covered[1] / 200 < 0.8


def test_bootstrap_is_as_wide_as_that_of_scores():
    x = xr.DataArray(ar1(400)[:, 0], dims="time")
    ours = block_bootstrap(lambda m: m, x, block_length=12, resamples=2000, of_means=True)
    np.random.seed(0)  # noqa: NPY002 the library draws from the global generator
    theirs = scores.processing.block_bootstrap(x, blocks={"time": 12}, n_iteration=2000).mean("time")
    low, high = np.quantile(theirs, [0.025, 0.975])
    assert ours.high - ours.low == pytest.approx(high - low, rel=0.1)


def test_bootstrap_of_an_array_is_that_of_its_numbers():
    x = ar1(60, 3)
    options = {"block_length": 6, "resamples": 50}
    for of_means, statistic in ((True, lambda m: m**2), (False, lambda a: a.mean(axis=0) ** 2)):
        found = block_bootstrap(statistic, x, of_means=of_means, **options)
        each = [block_bootstrap(lambda m: m**2, x[:, k], of_means=True, **options) for k in range(3)]
        np.testing.assert_allclose(np.transpose(found), each)
        assert all(type(number) is float for number in each[0])
    table = block_bootstrap(lambda m: m[:, :, None] * [1.0, NaN], x, of_means=True, **options)
    assert table.value.shape == (3, 2)
    assert np.isnan(np.stack(table)[..., 1]).all() and np.isfinite(np.stack(table)[..., 0]).all()
    # a draw without a number is passed over, in its own place only; no interval where there is no value
    rare = np.zeros((60, 2))
    rare[[4, 5], 1] = 1
    found = block_bootstrap(lambda a: np.where(a.sum(axis=0) > 0, a.mean(axis=0), NaN), rare, **options)
    assert np.isnan(found.low[0]) and 0 < found.low[1] <= found.value[1] <= found.high[1]
    late = block_bootstrap(lambda a: np.array([1.0, a[0, 0] if a[0, 0] != x[0, 0] else NaN]), x, **options)
    assert np.isnan([late.value[1], late.low[1], late.high[1]]).all() and late.low[0] == 1


def examples(function) -> list[str]:
    """The indented code after each "Example ... ::" of a docstring."""
    text = textwrap.dedent(function.__doc__.split("\n", 1)[1])
    found = re.findall(r"^Example[^:]*::\n\n((?:    .*(?:\n|$)|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(code) for code in found]


def run(code, names):
    """What the last line of the code is, be it given a name or not."""
    *body, last = ast.parse(code).body
    exec(compile(ast.Module(body, []), "example", "exec"), names)
    return eval(compile(ast.Expression(last.value), "example", "eval"), names)


def test_examples_of_intervals():
    probability, event = gales(2000)
    forecast, observed = sample(missing=0)
    names = vars(verification) | {"np": np, "forecast": forecast, "observed": observed}
    names |= {"probability": probability, "event": event, "reference": probability * 0 + event.mean()}
    error, rates, skill = examples(block_bootstrap)
    assert run(error, names).value == pytest.approx(mean_score(forecast, observed))
    found = run(rates, names)
    keys = ["probability_of_detection", "false_alarm_ratio", "critical_success_index"]
    scores_of = contingency(probability, event, BOTH, threshold=0.3)[keys]
    np.testing.assert_allclose(found.value, scores_of.to_array())
    assert (found.low < found.value).all() and (found.value < found.high).all()
    expected = 1 - brier(probability, event).mean() / brier(names["reference"], event).mean()
    assert run(skill, names).value == pytest.approx(expected.item())
    (loss,) = examples(pinball)
    mine, other = (quantiles_of([forecast + k, forecast + k + 1], [0.2, 0.7]) for k in (0, 0.1))
    found = run(loss, names | {"mine": mine, "other": other})
    expected = pinball(mine, observed, BOTH).mean() - pinball(other, observed, BOTH).mean()
    assert found.value == pytest.approx(expected.item())


def test_bootstrap_refuses():
    x = np.zeros((10, 2))
    with pytest.raises(ValueError, match="block_length: expected at most half of the 10 times, found 6"):
        block_bootstrap(np.mean, x, block_length=6)
    for wrong in (0, 2.5, True):
        with pytest.raises(ValueError, match="block_length"):
            block_bootstrap(np.mean, x, block_length=wrong)
    with pytest.raises(ValueError, match="same number of times"):
        block_bootstrap(np.mean, x, x[1:], block_length=2)
    with pytest.raises(ValueError, match="arrays: expected at least one"):
        block_bootstrap(np.mean, block_length=2)
    for wrong in (lambda a: a.mean(), lambda a: a.mean(axis=0)):
        with pytest.raises(ValueError, match=r"statistic: expected \(resample,\) or"):
            block_bootstrap(wrong, x, block_length=2, of_means=True)
    with pytest.raises(ValueError, match="found NaN"):
        block_bootstrap(lambda a: a * NaN, x, block_length=2, of_means=True)
    with pytest.raises(ValueError, match="found NaN"):
        block_bootstrap(lambda a: NaN, x, block_length=2)
    with pytest.raises(ValueError, match="level"):
        block_bootstrap(np.mean, x, block_length=2, level=95)
    with pytest.raises(ValueError, match="resamples"):
        block_bootstrap(np.mean, x, block_length=2, resamples=0)


# ---------------------------------------------------------------------------- is it better?


def rivals(seed, better=0.0, steps=400, stations=3) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Two forecasts with errors of their own and in common, those of the second larger by a factor 1 + better."""
    common, a, b, truth = (ar1(steps, stations, 0.4, 4 * seed + k) for k in range(4))
    observed = field(truth)
    return observed + common + a, observed + (common + b) * (1 + better), observed


def test_difference_is_that_of_the_scores():
    a, b, observed = rivals(0)
    for score in ("rmse", "mae", "mse"):
        found = compare(a, b, observed, score)
        assert found.value == pytest.approx(mean_score(a, observed, score) - mean_score(b, observed, score))
        turned = compare(b, a, observed, score)
        np.testing.assert_allclose(turned, [-found.value, -found.high, -found.low], rtol=1e-9)
    weights = [0.0, 1.0, 3.0]
    found = compare(a, b, observed, weights=weights)
    assert found.value == pytest.approx(
        mean_score(a, observed, weights=weights) - mean_score(b, observed, weights=weights)
    )


def test_a_forecast_is_as_good_as_itself():
    a, _, observed = rivals(0)
    assert compare(a, a.copy(), observed) == (0, 0, 0)


def test_equal_forecasts_are_rarely_told_apart_and_a_better_one_is():
    found = [compare(*rivals(seed), resamples=300) for seed in range(100)]
    assert sum(not one.low <= 0 <= one.high for one in found) <= 11  # five are expected
    for seed in range(10):
        assert compare(*rivals(seed, better=0.2)).high < 0


def test_pairing_sees_what_two_intervals_do_not():
    """What makes a day hard for both is most of the error, and none of the difference."""
    truth, noise = field(np.zeros((400, 2))), ar1(400, 2)
    a, b = truth + noise, truth + 1.02 * noise
    apart = [
        block_bootstrap(
            lambda m: np.sqrt(m).mean(axis=1), ((f - truth) ** 2).values, block_length=8, of_means=True
        )
        for f in (a, b)
    ]  # fmt: skip
    assert apart[0].high > apart[1].low
    assert compare(a, b, truth).high < 0


def test_interval_is_like_that_of_diebold_and_mariano():
    a, b, observed = rivals(1, better=0.1, steps=800, stations=1)
    found = compare(a, b, observed, "mse", resamples=4000)
    losses = ((a - observed) ** 2 - (b - observed) ** 2).assign_coords(h=("station", [1]))
    theirs = diebold_mariano(losses.T, "station", "h")
    assert found.value == pytest.approx(theirs["mean"].item())
    width = (theirs.ci_upper - theirs.ci_lower).item()
    assert found.high - found.low == pytest.approx(width, rel=0.2)


def test_only_common_pairs_are_compared():
    a, b, observed = rivals(2)
    a[:50] = NaN  # the first forecasts need a past
    b[70:90, 1] = NaN
    observed[200:230, 2] = NaN
    b_there, a_there = b.where(a.notnull()), a.where(b.notnull())
    found = compare(a, b, observed)
    assert found.value == pytest.approx(mean_score(a_there, observed) - mean_score(b_there, observed))
    # Days before the first pair and after the last are no part of the sample.
    cut = slice(50, None)
    assert compare(a[cut], b[cut], observed[cut]) == found
    with pytest.raises(ValueError, match="forecast_a, forecast_b, observed: expected at least one pair"):
        compare(a.where(b["time.month"] == 1), b.where(b["time.month"] == 7), observed)


def test_crps_is_compared():
    mean, _, observed = rivals(0)
    right, narrow = mean * 0 + rmse(mean, observed, BOTH), mean * 0 + 0.3
    found = compare((mean, right), (mean, narrow), observed, "crps")
    expected = crps_gaussian(mean, right, observed).mean() - crps_gaussian(mean, narrow, observed).mean()
    assert found.value == pytest.approx(expected.item())
    assert found.high < 0
    assert mean_score((mean, right), observed, "crps") == pytest.approx(
        crps_gaussian(mean, right, observed).mean().item()
    )
    with pytest.raises(TypeError, match=r"forecast_a: expected \(mean, spread\)"):
        compare(mean, (mean, right), observed, "crps")
    with pytest.raises(ValueError, match=r"forecast_b\[1\]: expected standard deviations above 0"):
        compare((mean, right), (mean, 0 * mean), observed, "crps")


def test_brier_scores_and_percentages_are_compared():
    probability, event = gales(2000)
    usual = probability * 0 + event.mean()
    found = compare(probability, usual, event, "brier")
    there = probability.notnull()
    expected = brier(probability, event).mean() - brier(usual, event.where(there)).mean()
    assert found.value == pytest.approx(expected.item()) and found.high < 0
    whole = event.fillna(0)
    assert compare(probability, usual, whole > 0, "brier") == compare(probability, usual, whole, "brier")
    assert mean_score(probability, event, "brier") == pytest.approx(brier(probability, event).mean().item())
    for wrong, name in (((probability * 2, usual), "forecast_a"), ((usual, probability - 0.5), "forecast_b")):
        with pytest.raises(ValueError, match=f"{name}: expected from 0 to 1"):
            compare(*wrong, event, "brier")
    with pytest.raises(ValueError, match="observed: expected 0 or 1"):
        mean_score(probability, event / 2, "brier")
    a, b, observed = rivals(0, better=0.3)
    a, b, observed = a + 20, b + 20, observed + 20
    found = compare(a, b, observed, "mape")
    assert found.value == pytest.approx((mape(a, observed).mean() - mape(b, observed).mean()).item())
    with pytest.raises(ValueError, match="observed: expected no zero"):
        compare(a, b, observed * 0, "mape")


@pytest.mark.parametrize(
    ("freq", "steps", "lead", "expected"),
    [("D", 2920, 1, 15), ("D", 2920, 30, 30), ("h", 300, 1, 24), ("MS", 480, 1, 8), ("D", 9, 1, 1), ("D", 3, 1, 1)],
)
def test_default_block(freq, steps, lead, expected):
    time = pd.date_range("2000", periods=steps, freq=freq).values
    assert verification._default_block(time, lead) == expected
    assert verification._default_block(np.arange(1000)) == 10


# ---------------------------------------------------------------------------- what is refused

PAIRED = {
    "rmse": lambda f, o: rmse(f, o),
    "mae": lambda f, o: mae(f, o),
    "bias": lambda f, o: bias(f, o),
    "acc": lambda f, o: acc(f, o, o),
    "mean_score": lambda f, o: mean_score(f, o),
    "compare": lambda f, o: compare(f, f, o),
    "crps_gaussian": lambda f, o: crps_gaussian(f, f, o),
    "interval_miss_rate": lambda f, o: interval_miss_rate(f, f, o),
    "brier": lambda f, o: brier(f, o),
    "mape": lambda f, o: mape(f, o),
    "roc": lambda f, o: roc(f, MIXED),
    "economic_value": lambda f, o: economic_value(f, MIXED, 0.1),
    "value over a reference": lambda f, o: economic_value(MIXED, MIXED, 0.1, f),
    "reliability": lambda f, o: reliability(f, o),
    "contingency": lambda f, o: contingency(f, o),
    "entry": lambda f, o: entry("d", "m", f, o, lead=1, units="K", seconds=0, kind="simple"),
    "reference": lambda f, o: entry("d", "m", o, o, f, lead=1, units="K", seconds=0, kind="simple"),
}
RIGHT, MIXED = field(np.ones((6, 2))), field(np.arange(12).reshape(6, 2) % 2)
WRONG = {
    "no xarray": (RIGHT.values, TypeError, "expected an xarray DataArray"),
    "dims turned": (RIGHT.T, ValueError, r"expected dims \(time, station\)"),
    "text": (RIGHT.astype(str), TypeError, "expected numbers"),
    "no station": (RIGHT[:, :0], ValueError, "at least one time and one station"),
    "fewer times": (RIGHT[1:], ValueError, "expected the times of"),
    "other times": (
        RIGHT.assign_coords(time=RIGHT.time + np.timedelta64(1, "D")),
        ValueError,
        "expected the times of .*found 6 .*others",
    ),
    "other stations": (RIGHT.assign_coords(station=["S1", "S0"]), ValueError, "expected the stations of"),
    "fewer stations": (RIGHT[:, :1], ValueError, "expected the stations of .*found 1"),
    "infinite": (RIGHT / 0, ValueError, "found 12 infinite"),
    "nothing": (RIGHT * NaN, ValueError, "at least one pair without NaN"),
}


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("case", WRONG)
def test_wrong_forecasts_are_refused(name, case):
    PAIRED[name](RIGHT, RIGHT)
    wrong, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        PAIRED[name](wrong, RIGHT)


def test_observed_is_checked_too():
    with pytest.raises(TypeError, match="observed"):
        rmse(RIGHT, RIGHT.values)
    with pytest.raises(ValueError, match="observed: expected times that increase"):
        rmse(RIGHT[::-1], RIGHT[::-1])
    with pytest.raises(TypeError, match="event: expected an xarray"):
        brier(RIGHT, [0, 1])
    with pytest.raises(ValueError, match="climatology: expected the times of observed"):
        acc(RIGHT, RIGHT, RIGHT[1:])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="dim: expected"):
        rmse(RIGHT, RIGHT, "lat")
    with pytest.raises(ValueError, match="dim: expected"):
        rmse(RIGHT, RIGHT, None)
    with pytest.raises(ValueError, match="one pair has no correlation"):
        acc(RIGHT, RIGHT, RIGHT, ())
    with pytest.raises(ValueError, match="mean over stations"):
        rmse(RIGHT, RIGHT, weights=[1, 1])
    for weights in ([1.0], [1.0, -1.0], [1.0, NaN], [0.0, 0.0]):
        with pytest.raises(ValueError, match="weights"):
            rmse(RIGHT, RIGHT, BOTH, weights)
    other = xr.DataArray([1.0, 2.0], dims="station", coords={"station": ["S1", "S0"]})
    with pytest.raises(ValueError, match="weights: expected the stations"):
        rmse(RIGHT, RIGHT, BOTH, other)
    with pytest.raises(ValueError, match="score: expected one of"):
        compare(RIGHT, RIGHT, RIGHT, "r2")
    with pytest.raises(ValueError, match="score: expected one of"):
        mean_score(RIGHT, RIGHT, "r2")
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match="level"):
            interval_miss_rate(RIGHT, RIGHT, RIGHT, level)


@pytest.mark.parametrize("score", [crps_gaussian, interval_miss_rate])
def test_a_spread_that_is_none_is_refused(score):
    spread = RIGHT.copy()
    spread[2, 1] = 0
    with pytest.raises(ValueError, match="spread: expected standard deviations above 0, found 1"):
        score(RIGHT, spread, RIGHT)
    score(RIGHT, spread.where(spread > 0), RIGHT)  # missing is something else


def test_wrong_probabilities_and_events_are_refused():
    for score in (brier, reliability):
        with pytest.raises(ValueError, match="probability: expected from 0 to 1"):
            score(RIGHT * 1.5, RIGHT)
        with pytest.raises(ValueError, match="event: expected 0 or 1"):
            score(RIGHT, RIGHT / 2)
    with pytest.raises(ValueError, match="forecast_event: expected 0 or 1"):
        contingency(RIGHT / 2, RIGHT)
    for bins in (0, 2.5, [0, 0.5], [0, 0.6, 0.5, 1], [0, NaN, 1], [[0, 1]]):
        with pytest.raises(ValueError, match="bins"):
            reliability(RIGHT, RIGHT, bins)
    of_stations = xr.DataArray([0.1, 0.9], {"station": ["S1", "S0"]})
    for threshold in (NaN, np.inf, True, "0.3", np.full(2, 0.3), of_stations):
        with pytest.raises(ValueError, match="threshold: expected a number"):
            contingency(RIGHT, RIGHT, threshold=threshold)


@pytest.mark.parametrize("score", [crps_ensemble, rank_histogram])
def test_wrong_ensembles_are_refused(score):
    with pytest.raises(TypeError, match="members"):
        score([RIGHT], RIGHT)
    with pytest.raises(ValueError, match=r"members: expected dims \(member, time, station\)"):
        score(RIGHT, RIGHT)
    with pytest.raises(ValueError, match="at least one member"):
        score(members_of([RIGHT])[:0], RIGHT)
    with pytest.raises(ValueError, match="members.*expected the times of observed"):
        score(members_of([RIGHT, RIGHT])[:, 1:], RIGHT)
    with pytest.raises(ValueError, match="at least one pair"):
        score(members_of([RIGHT, RIGHT * NaN]), RIGHT)


def test_fair_score_needs_two_members():
    with pytest.raises(ValueError, match="at least two"):
        crps_ensemble(members_of([RIGHT]), RIGHT, fair=True)


# ---------------------------------------------------------------------------- the leaderboard

ENTRY = {"lead": 1, "units": "K", "seconds": 1.5, "kind": "network"}


def test_entry_of_several_seeds_by_its_parts():
    a, b, observed = rivals(0, better=0.1)
    rng = np.random.default_rng(1)
    runs = [a + field(0.5 * rng.standard_normal(a.shape)) for _ in range(3)]
    runs[0][:3], runs[1][5, 1], b[:4] = NaN, NaN, NaN
    line = entry("weather", "mine", runs, observed, b, parameters=np.int64(7), **ENTRY)
    there = sum(runs).notnull()
    each = [mean_score(run.where(there), observed) for run in runs]
    np.testing.assert_allclose(line["seeds"], each, rtol=1e-4)
    assert line["score"] == pytest.approx(np.mean(each), rel=1e-4)
    assert line["spread"] == pytest.approx(np.std(each, ddof=1), rel=1e-4)
    ensemble = sum(runs) / 3
    assert line["ensemble"] == pytest.approx(mean_score(ensemble, observed), rel=1e-4)
    assert line["ensemble"] < line["score"]
    both = there & b.notnull()
    reference = mean_score(b.where(both), observed)
    expected = np.mean([mean_score(run.where(both), observed) for run in runs]) - reference
    assert line["difference"]["value"] == pytest.approx(expected, rel=1e-3)
    found = line["ensemble_difference"]
    np.testing.assert_allclose([found[k] for k in ("value", "low", "high")], compare(ensemble, b, observed), rtol=1e-4)
    assert line["difference"]["low"] < line["difference"]["value"] < line["difference"]["high"]
    assert (line["dataset"], line["model"], line["kind"], line["units"]) == ("weather", "mine", "network", "K")
    assert (line["lead"], line["seconds"], line["parameters"]) == (1, 1.5, 7)


def test_entry_of_one_forecast():
    a, b, observed = rivals(0)
    line = entry("weather", "one", a, observed, b, **ENTRY)
    assert line["seeds"] == [line["score"]] and line["spread"] == 0 and line["parameters"] is None
    assert line["ensemble"] is None and line["ensemble_difference"] is None
    np.testing.assert_allclose(list(line["difference"].values()), compare(a, b, observed), rtol=1e-4)
    assert line == entry("weather", "one", [a], observed, b, **ENTRY)
    assert entry("weather", "one", a, observed, **ENTRY)["difference"] is None


def test_entry_goes_through_json_with_five_digits():
    a, b, observed = rivals(0)
    line = entry("weather", "mine", [a, a + 0.1], observed, b, parameters=3, **ENTRY)
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    assert set(line) == {*verification._ENTRY, "measure"}
    for number in (line["score"], line["ensemble"], *line["seeds"], *line["difference"].values()):
        assert number == float(f"{number:.4e}")


def test_entry_of_an_event():
    probability, event = gales(1000)
    usual = 0 * probability + event.mean()
    runs = [probability, 0.8 * probability]
    line = entry("gales", "mine", runs, event > 0, usual, score="brier", **(ENTRY | {"units": "1"}))
    np.testing.assert_allclose(line["seeds"], [mean_score(run, event > 0, "brier") for run in runs], rtol=1e-4)
    assert line["measure"] == "brier" and line["units"] == "1"
    assert line["ensemble"] == pytest.approx(mean_score(0.9 * probability, event > 0, "brier"), rel=1e-4)
    expected = compare(0.9 * probability, usual, event > 0, "brier")
    np.testing.assert_allclose(list(line["ensemble_difference"].values()), expected, rtol=1e-4)
    each = [compare(run, usual, event > 0, "brier").value for run in runs]
    assert line["difference"]["value"] == pytest.approx(np.mean(each), rel=1e-4)
    assert entry("weather", "mine", RIGHT, RIGHT, **ENTRY)["measure"] == "rmse"
    with pytest.raises(ValueError, match=r"forecasts\[1\]: expected from 0 to 1"):
        entry("gales", "mine", [probability, 2 * probability + 0.1], event, score="brier", **ENTRY)


def test_entry_takes_the_block_it_is_given():
    a, b, observed = rivals(0)
    line = entry("weather", "mine", a, observed, b, block_length=40, **ENTRY)
    expected = compare(a, b, observed, block_length=40)
    assert line["difference"]["low"] == pytest.approx(expected.low, rel=1e-4)
    # A forecast of 30 days ahead has errors that go on for 30 days.
    ahead = entry("weather", "mine", a, observed, b, **(ENTRY | {"lead": 30}))
    assert ahead["difference"]["low"] == pytest.approx(compare(a, b, observed, block_length=30).low, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": ""}, "dataset: expected a name"),
        ({"model": None}, "model: expected a name"),
        ({"units": 3}, "units: expected a name"),
        ({"kind": "deep"}, "kind: expected one of"),
        ({"lead": 0}, "lead: expected a whole number"),
        ({"score": "crps"}, "score: expected one of rmse, mse, mae, mape, brier, found 'crps'"),
        ({"score": "brier", "observed": RIGHT / 2}, "observed: expected 0 or 1"),
        ({"score": "mape", "observed": MIXED}, "observed: expected no zero"),
        ({"seconds": -1}, "seconds: expected a number"),
        ({"seconds": NaN}, "seconds: expected a number"),
        ({"seconds": "3"}, "seconds: expected a number"),
        ({"parameters": 2.5}, "parameters: expected a whole number"),
        ({"forecasts": []}, "forecasts: expected at least one"),
        ({"forecasts": [RIGHT, RIGHT[1:]]}, r"forecasts\[1\]: expected the times of observed"),
        ({"reference": RIGHT * NaN}, "at least one pair"),
    ],
)
def test_entry_refuses(change, message):
    arguments = {"dataset": "d", "model": "m", "forecasts": RIGHT, "observed": RIGHT} | ENTRY | change
    with pytest.raises(ValueError, match=message):
        entry(**arguments)


def lines() -> list[dict]:
    a, b, observed = rivals(0, better=0.1)
    return [
        entry("weather", "second", b, observed, **ENTRY),
        entry("weather", "first", [a, a + 0.01], observed, b, parameters=5, **ENTRY),
        entry("weather", "far", a, observed, b, **(ENTRY | {"lead": 2})),
        entry("air", "first", a, observed, **(ENTRY | {"units": "ppm"})),
    ]


def test_leaderboard_is_in_order():
    table = leaderboard(lines())
    assert table[["dataset", "lead", "model"]].values.tolist() == [
        ["air", 1, "first"],
        ["weather", 1, "first"],
        ["weather", 1, "second"],
        ["weather", 2, "far"],
    ]
    first, item = table.iloc[1], lines()[1]
    assert first["runs"] == 2 and first["score"] == item["score"] and first["parameters"] == 5
    assert first["low"] == item["difference"]["low"]
    assert first["ensemble_high"] == item["ensemble_difference"]["high"]
    second = table.iloc[2]
    assert np.isnan(second["difference"]) and np.isnan(second["ensemble_low"]) and pd.isna(second["parameters"])
    assert len(leaderboard(lines(), "weather")) == 3
    assert leaderboard([]).empty
    assert set(table["measure"]) == {"rmse"}
    # entries of before there were other measures
    old = [{key: value for key, value in line.items() if key != "measure"} for line in lines()]
    pd.testing.assert_frame_equal(leaderboard(old), table)
    # far away in time, another measure is another table
    assert len(leaderboard([*lines(), lines()[0] | {"measure": "mae", "lead": 9}])) == 5


def test_leaderboard_refuses():
    with pytest.raises(ValueError, match="dataset: expected one of"):
        leaderboard(lines(), "sea")
    with pytest.raises(TypeError, match=r"entries\[0\]"):
        leaderboard(["first"])
    with pytest.raises(ValueError, match=r"entries\[1\].*'score'"):
        leaderboard([lines()[0], {k: v for k, v in lines()[0].items() if k != "score"}])
    with pytest.raises(ValueError, match="one measure for each data set"):
        leaderboard([*lines(), lines()[0] | {"model": "other", "measure": "mae"}])
    with pytest.raises(ValueError, match=r"entries\[0\]\['measure'\]: expected one of rmse, .*found 'r2'"):
        leaderboard([lines()[0] | {"measure": "r2"}])
    with pytest.raises(ValueError, match="one unit"):
        leaderboard([*lines(), lines()[0] | {"model": "other", "units": "m"}])
    with pytest.raises(ValueError, match="once"):
        leaderboard([*lines(), lines()[0]])


def test_verification_stands_on_the_first_floor():
    """It judges what the other modules make, so it must not need them."""
    tree = ast.parse(Path(verification.__file__).read_text(encoding="utf-8"))
    own = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    assert own == {"_checks"}
