"""Season, interpolation in time, inverse distance, kriging, EOFs: against formulas written out, and planted truth."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stgcn_lab import interpolation as ip
from stgcn_lab import simulate


def field(steps: int = 400, nodes: int = 15, seed: int = 0, length: float = 300.0, memory: float = 0.6) -> xr.DataArray:
    """A Gaussian field with a season, a climate that depends on the place, and correlations that are known."""
    rng = np.random.default_rng(seed)
    lat, lon = rng.uniform(38, 42, nodes), rng.uniform(-108, -103, nodes)
    height = rng.uniform(1000, 3000, nodes)
    distance = ip.great_circle_distance(lat[:, None], lon[:, None], lat, lon)
    covariance = 0.95 * np.exp(-distance / length)
    np.fill_diagonal(covariance, 1.0)
    root = np.linalg.cholesky(covariance)
    z = np.zeros((steps, nodes))
    for t in range(steps):
        fresh = root @ rng.standard_normal(nodes)
        z[t] = fresh if t == 0 else memory * z[t - 1] + np.sqrt(1 - memory**2) * fresh
    times = pd.date_range("1961-01-01", periods=steps, freq="MS")
    season = 10 * np.cos(2 * np.pi * (times.day_of_year.values - 200) / 365.25)
    climate = 20 - 0.006 * (height - 1000)
    return xr.DataArray(
        climate + season[:, None] + 2 * z,
        dims=("time", "station"),
        coords={
            "time": times,
            "station": [f"S{i}" for i in range(nodes)],
            "lat": ("station", lat, {"units": "degrees_north"}),
            "lon": ("station", lon, {"units": "degrees_east"}),
            "elevation": ("station", height, {"units": "m"}),
        },
        attrs={"units": "degC"},
        name="temperature",
    )


def rmse(estimate: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((estimate - truth) ** 2)))


# ---------------------------------------------------------------------------- preparation


def test_anomalies_put_together_again_are_the_series():
    series = simulate.withhold(field(), 0.4, seed=1)
    found = ip.anomalies(series)
    assert np.isfinite(found.season).all() and (found.scale > 0).all()
    back = found.season + found.scale * found.z
    assert np.array_equal(np.isnan(back), series.isnull().values)
    assert np.nanmax(np.abs(back - series.values)) < 1e-9


def test_the_season_is_found_at_stations_with_many_few_and_no_values():
    truth = field(nodes=40)
    series = truth.copy()
    series[:, 0] = np.nan
    series[15:, 1] = np.nan
    season = ip.anomalies(series).season
    level = truth.values.mean(axis=0)
    assert abs(season[:, 5].mean() - level[5]) < 0.3
    # 15 months of one station's weather would say more than 0.5 wrong; its neighbours in those months help
    assert abs(season[:, 1].mean() - level[1]) < 0.8
    # a lapse rate of 6 K/km over 2 km of height: a mean over all stations would be off by up to 6 K
    assert abs(season[:, 0].mean() - level[0]) < 1.5


def test_a_short_record_is_compared_with_its_neighbours_in_its_own_months():
    truth = field(steps=480, nodes=30, memory=0.95)
    alone, found = [], []
    for i in (3, 7, 12):
        series = truth.copy()
        series[24:, i] = np.nan  # two years of a memory of years: their mean is not that of forty
        alone.append(float(truth[:24, i].mean() - truth[:, i].mean()))
        found.append(float(ip.anomalies(series).season[:, i].mean() - truth[:, i].mean()))
    assert np.abs(found).max() < 0.5 * np.abs(alone).max()


def test_the_spread_of_the_season_is_honest_about_places_never_observed():
    errors = []
    for seed in range(6):
        truth = field(steps=240, nodes=40, seed=seed)
        series = simulate.withhold(truth, 0.2, "stations", seed=seed)
        found = ip.anomalies(series)
        silent = series.isnull().all("time").values
        off = (found.season - truth.values).mean(axis=0)[silent]
        errors.append(off / found.season_spread[silent])
        assert found.season_spread[silent].min() > found.season_spread[~silent].max()
    assert 0.5 < np.sqrt(np.mean(np.concatenate(errors) ** 2)) < 1.5


def test_one_station_cannot_tell_how_climates_differ():
    series = field(nodes=6)
    series[:, 1:] = np.nan
    found = ip.anomalies(series)
    assert (found.season_spread[1:] > 0.5 * np.nanstd(series.values)).all()


def test_a_record_of_less_than_two_years_has_a_mean_and_no_season():
    found = ip.anomalies(field(steps=18))
    assert np.allclose(found.season, found.season[0])


def test_a_constant_station_and_a_single_value_do_no_harm():
    series = field(steps=60, nodes=5)
    series[:, 0] = 3.0
    series[1:, 1] = np.nan
    found = ip.anomalies(series)
    assert np.isfinite(found.season).all() and np.isfinite(found.scale).all()


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_few_stations(nodes):
    series = simulate.withhold(field(nodes=nodes), 0.3, seed=0)
    found = ip.anomalies(series)
    estimate, spread = ip.krige_in_space(found)
    assert np.isfinite(estimate).all() and np.isfinite(spread).all()
    if nodes == 1:
        assert (estimate == 0).all() and np.allclose(spread, 1, atol=1e-5)


def test_bad_series_get_a_clear_error():
    series = field(steps=30, nodes=4)
    with pytest.raises(ValueError, match="at least one observed value"):
        ip.anomalies(series.where(False))
    with pytest.raises(ValueError, match="no lat"):
        ip.anomalies(series.drop_vars("lat"))
    with pytest.raises(ValueError, match="infinite"):
        ip.anomalies(series.where(series > series.min(), np.inf))
    with pytest.raises(ValueError, match="elevation"):
        ip.anomalies(series.assign_coords(elevation=("station", [1.0, np.nan, 2.0, 3.0])))
    with pytest.raises(ValueError, match="dims"):
        ip.anomalies(series.T)
    with pytest.raises(ValueError, match="rising order"):
        ip.anomalies(series[::-1])
    with pytest.raises(TypeError, match="DataArray"):
        ip.anomalies(series.to_dataset())
    with pytest.raises(ValueError, match="at least one station"):
        ip.anomalies(series[:, :0])
    with pytest.raises(TypeError, match="dates"):
        ip.anomalies(series.assign_coords(time=np.arange(30)))


# ---------------------------------------------------------------------------- in time


def test_linear_in_time_follows_the_clock_not_the_rows():
    times = pd.to_datetime(["2001-01-01", "2001-01-02", "2001-01-05", "2001-01-06"])
    series = xr.DataArray([[0.0], [np.nan], [4.0], [np.nan]], dims=("time", "station"), coords={"time": times})
    assert ip.linear_in_time(series)[:, 0].tolist() == [0.0, 1.0, 4.0, 4.0]


def test_linear_in_time_gives_a_silent_station_the_mean_of_the_others():
    series = field(steps=24, nodes=4)
    series[:, 2] = np.nan
    filled = ip.linear_in_time(series)
    assert np.allclose(filled[:, 2], series.values[:, [0, 1, 3]].mean(axis=1))


def test_memory_of_a_process_that_is_known():
    rng = np.random.default_rng(0)
    z = np.zeros((4000, 5))
    for t in range(1, 4000):
        z[t] = 0.8 * z[t - 1] + 0.6 * rng.standard_normal(5)
    noisy = np.sqrt(0.7) * z + np.sqrt(0.3) * rng.standard_normal(z.shape)  # 0.7 exp(-τ / 4.48)
    noisy[rng.random(z.shape) < 0.5] = np.nan
    share, scale = ip.memory(noisy, np.arange(4000.0))
    assert abs(share - 0.7) < 0.06
    assert abs(scale - 1 / np.log(1 / 0.8)) < 0.7


def test_kriging_in_time_is_the_conditional_mean():
    rng = np.random.default_rng(1)
    z = rng.standard_normal((9, 1))
    z[[2, 3, 7], 0] = np.nan
    steps = np.arange(9.0)
    share, scale = ip.memory(z, steps)
    known, gaps = [0, 1, 4, 5, 6, 8], [2, 3, 7]
    rho = share * np.exp(-np.abs(steps[:, None] - steps) / scale)
    np.fill_diagonal(rho, 1.0)
    weights = np.linalg.solve(rho[np.ix_(known, known)], rho[np.ix_(known, gaps)])
    estimate, spread = ip.krige_in_time(z, steps)
    assert np.allclose(estimate[gaps, 0], z[known, 0] @ weights)
    deviation = np.sqrt(np.nanmean(z**2))
    assert np.allclose(spread[gaps, 0], deviation * np.sqrt(1 - (weights * rho[np.ix_(known, gaps)]).sum(axis=0)))
    assert (estimate[known] == 0).all() and (spread[known] == 0).all()


def test_kriging_in_time_returns_to_the_season_far_from_all_values():
    z = np.random.default_rng(2).standard_normal((3000, 1))
    z = np.convolve(z[:, 0], np.exp(-np.arange(20) / 4), "same")[:, None]
    z /= z.std()
    z[1000:2000] = np.nan
    estimate, spread = ip.krige_in_time(z, np.arange(3000.0))
    assert abs(estimate[1500, 0]) < 1e-3 and spread[1500, 0] > 0.95
    assert spread[1000, 0] < 0.8 * spread[1500, 0]


# ---------------------------------------------------------------------------- in space


def test_inverse_distance_by_hand():
    series = simulate.withhold(field(steps=50, nodes=6), 0.5, seed=3)
    found = ip.anomalies(series)
    estimate = ip.inverse_distance(found, power=2.0)
    for t, i in [(0, 0), (7, 3), (31, 5)]:
        others = [j for j in range(6) if j != i and np.isfinite(found.z[t, j])]
        weight = found.distance[i, others] ** -2.0
        expected = weight @ found.z[t, others] / weight.sum() if others else 0.0
        assert np.isclose(estimate[t, i], expected)


def test_space_correlation_finds_what_was_planted():
    found = ip.anomalies(simulate.withhold(field(steps=1000, nodes=40), 0.3, seed=0))
    rho = ip.space_correlation(found)
    distance = np.array([50.0, 150.0, 400.0])
    assert np.abs(rho(distance, np.zeros(3)) - 0.95 * np.exp(-distance / 300)).max() < 0.08


def test_kriging_leaves_out_the_value_that_it_estimates():
    series = simulate.withhold(field(steps=40, nodes=8), 0.3, seed=4)
    found = ip.anomalies(series)
    rho = ip.space_correlation(found)
    estimate, spread = ip.krige_in_space(found, rho.matrix(found))
    among = rho.matrix(found) + 1e-6 * np.eye(8)
    for t, i in [(0, 0), (5, 2), (11, 7), (39, 4)]:
        others = [j for j in range(8) if j != i and np.isfinite(found.z[t, j])]
        if not others:
            continue
        weights = np.linalg.solve(among[np.ix_(others, others)], among[others, i])
        assert np.isclose(estimate[t, i], weights @ found.z[t, others], atol=1e-6)
        known = 1e-6 if np.isfinite(found.z[t, i]) else 0.0
        assert np.isclose(spread[t, i] ** 2, 1 + known - weights @ among[others, i], atol=1e-5)


def test_where_nobody_reports_kriging_says_the_season():
    series = field(steps=30, nodes=5)
    series[10] = np.nan
    estimate, spread = ip.krige_in_space(ip.anomalies(series))
    assert (estimate[10] == 0).all() and np.allclose(spread[10], 1, atol=1e-5)


def test_learned_covariances_of_a_field_without_gaps_are_the_sample_s():
    found = ip.anomalies(field(steps=200, nodes=6))
    sample = found.z.T @ found.z / 200
    assert np.allclose(ip.learn_covariance(found, weight=0.0, rounds=1), sample)
    first = ip.space_correlation(found).matrix(found)
    assert np.allclose(ip.learn_covariance(found, weight=100.0, rounds=1), (100 * first + 200 * sample) / 300)


def test_learned_covariances_see_what_no_distance_tells():
    """Two stations far apart that share a valley wind; gaps do not make the variances shrink."""
    truth = field(steps=1500, nodes=10)
    rng = np.random.default_rng(5)
    valley = 3 * rng.standard_normal(1500)
    truth[:, 0] = truth[:, 0] + valley
    truth[:, 1] = truth[:, 1] + valley
    series = simulate.withhold(truth, 0.3, seed=0)
    found = ip.anomalies(series)
    covariance = ip.learn_covariance(found)
    assert np.abs(np.diag(covariance) - 1).max() < 0.15
    gaps = series.isnull().values
    gaps[:, 2:] = False

    def error(estimate: np.ndarray) -> float:
        return rmse((found.season + found.scale * estimate)[gaps], truth.values[gaps])

    assert error(ip.krige_in_space(found, covariance)[0]) < 0.9 * error(ip.krige_in_space(found)[0])


@pytest.mark.parametrize("pattern", ["random", "blocks"])
def test_kriging_is_best_and_its_spread_honest_where_its_model_holds(pattern):
    truth = field(steps=400, nodes=25)
    series = simulate.withhold(truth, 0.4, pattern, (3, 18), seed=0)
    gaps = series.isnull().values
    found = ip.anomalies(series)

    def error(z: np.ndarray) -> np.ndarray:
        return ((found.season + found.scale * z) - truth.values)[gaps]

    estimate, spread = ip.krige_in_space(found)
    by_kriging = np.sqrt(np.mean(error(estimate) ** 2))
    assert by_kriging < 0.97 * np.sqrt(np.mean(error(ip.inverse_distance(found)) ** 2))
    assert by_kriging < 0.8 * np.sqrt(np.mean(error(np.zeros_like(found.z)) ** 2))
    assert 0.9 < np.sqrt(np.mean((error(estimate) / (found.scale * spread)[gaps]) ** 2)) < 1.15
    both, share, left = ip.krige_in_space_and_time(found)
    assert np.sqrt(np.mean(error(both) ** 2)) < 0.99 * by_kriging
    assert 0.9 < np.sqrt(np.mean((error(both) / (found.scale * share)[gaps]) ** 2)) < 1.15
    assert (both[~gaps] == 0).all() and np.array_equal(np.isnan(left), gaps)


def test_kriging_in_time_of_what_is_left_knows_a_station_that_is_always_off():
    truth = field(steps=240, nodes=20, memory=0.0)
    drift = 4 * np.sin(np.arange(240) / 20)  # a slow error of one thermometer
    truth[:, 0] = truth[:, 0] + drift
    series = truth.copy()
    series[100:112, 0] = np.nan
    found = ip.anomalies(series)
    in_space = found.season + found.scale * ip.krige_in_space(found)[0]
    in_both = found.season + found.scale * ip.krige_in_space_and_time(found)[0]
    gap = (slice(100, 112), 0)
    assert rmse(in_both[gap], truth.values[gap]) < 0.9 * rmse(in_space[gap], truth.values[gap])


# ---------------------------------------------------------------------------- EOFs


def test_eofs_recover_a_field_of_two_patterns():
    rng = np.random.default_rng(0)
    series = field(steps=300, nodes=12)
    z = rng.standard_normal((300, 2)) @ rng.standard_normal((2, 12)) + 0.01 * rng.standard_normal((300, 12))
    gappy = np.where(rng.random(z.shape) < 0.3, np.nan, z)
    found = ip.anomalies(series)
    found = ip.Anomalies(gappy, *(getattr(found, name) for name in list(ip.Anomalies.__annotations__)[1:]))
    filled, error, modes = ip.eof_filling(found)
    gaps = np.isnan(gappy)
    assert 2 <= modes <= 6
    assert np.array_equal(filled[~gaps], gappy[~gaps])
    assert rmse(filled[gaps], z[gaps]) < 0.1 * z.std()
    assert 0.3 < error / rmse(filled[gaps], z[gaps]) < 3


def test_eofs_of_noise_stay_at_the_season():
    found = ip.anomalies(field(steps=200, nodes=10))
    noise = np.random.default_rng(0).standard_normal((200, 10))
    noise[::3, 2] = np.nan
    found = ip.Anomalies(noise, *(getattr(found, name) for name in list(ip.Anomalies.__annotations__)[1:]))
    filled, error, modes = ip.eof_filling(found)
    assert modes == 0 and (filled[::3, 2] == 0).all() and 0.8 < error < 1.2


# ---------------------------------------------------------------------------- odd input


def daily(steps: int = 1100, nodes: int = 8, seed: int = 0) -> xr.DataArray:
    series = field(steps, nodes, seed)
    old, times = series.time.dt.dayofyear, pd.date_range("2001-01-01", periods=steps)
    series = series - 10 * np.cos(2 * np.pi * (old - 200) / 365.25)
    series = (
        series.assign_coords(time=times) + 10 * np.cos(2 * np.pi * (times.day_of_year.values - 200) / 365.25)[:, None]
    )
    return series.transpose("time", "station")


@pytest.mark.parametrize("days", [5, 20, 60])
def test_a_few_days_at_one_station_do_not_tell_a_year_to_it_or_to_others(days):
    truth = daily()
    series = truth.copy()
    series[:, 0] = np.nan
    series[:300, 1] = np.nan
    series[300 + days :, 1] = np.nan
    season = ip.anomalies(series).season
    assert np.abs(season - truth.values)[:, :2].max() < 15  # five standard deviations and the difference of climates
    assert np.ptp(season[:, 1]) < 30


@pytest.mark.parametrize("months", [[1], [1, 7], [11, 12, 1, 2]])
def test_a_part_of_the_year_does_not_tell_all_harmonics(months):
    truth = field(steps=600, nodes=8)
    truth = truth[truth.time.dt.month.isin(months)]
    series = simulate.withhold(truth, 0.3, seed=0)
    series[:, 0] = np.nan
    found = ip.anomalies(series)
    assert np.abs(found.season - truth.values)[:, 0].max() < 25  # January and July alone: a mean
    assert np.isfinite(found.season_spread).all() and found.season_spread.max() < 5
    most = ip.anomalies(series, harmonics=50)
    assert np.isfinite(most.season_spread).all() and np.abs(most.season - truth.values).max() < 30


def test_correlations_round_the_globe_are_correlations():
    lon = np.linspace(-180, 180, 60, endpoint=False)
    place = np.zeros((60, 2))
    distance = ip.great_circle_distance(0, lon[:, None], 0, lon)
    found = ip.Anomalies(*[np.zeros((1, 60))] * 2, *[np.ones(60)] * 2, place, distance, np.zeros(1))
    matrix = ip.SpaceCorrelation(0.98, 17000.0, 1.5, np.inf).matrix(found)
    assert np.linalg.eigvalsh(matrix)[0] > 0.01 and np.allclose(np.diag(matrix), 1)
    regional = ip.SpaceCorrelation(0.98, 17000.0, 1.0, np.inf)
    expected = regional(distance, 0 * distance)
    np.fill_diagonal(expected, 1.0)
    assert np.array_equal(regional.matrix(found), expected)


def test_bad_places_times_and_sizes_get_a_clear_error():
    series = field(steps=30, nodes=4)
    with pytest.raises(ValueError, match="coordinate lat, found dims \\(\\)"):
        ip.anomalies(series.assign_coords(lat=40.0))
    with pytest.raises(ValueError, match="coordinate elevation, found dims \\(\\)"):
        ip.anomalies(series.drop_vars("elevation").assign_coords(elevation=1000.0))
    with pytest.raises(ValueError, match="coordinate lon, found .*<U1"):
        ip.anomalies(series.assign_coords(lon=("station", list("abcd"))))
    with pytest.raises(ValueError, match="^lat: expected degrees .* found nan"):
        ip.anomalies(series.assign_coords(lat=("station", [40.0, np.nan, 41.0, 42.0])))
    with pytest.raises(TypeError, match="times as datetime64"):
        ip.linear_in_time(series.assign_coords(time=np.arange(30)))
    with pytest.raises(ValueError, match="at most 1e\\+100"):
        ip.anomalies(1e200 * series)
    with pytest.raises(ValueError, match="power"):
        ip.inverse_distance(ip.anomalies(series), 400.0)
