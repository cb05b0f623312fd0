"""Made-up weather and made-up gaps: what is planted is there, and only that."""

import numpy as np
import pytest
import xarray as xr

from stgcn_lab.baselines import fit_var
from stgcn_lab.datasets import check_series
from stgcn_lab.simulate import (
    CENTRE,
    DEGREES,
    DRIFT,
    OWN_MEMORY,
    SIDE,
    advected_field,
    delayed_influence,
    mean_pattern_regimes,
    phase_randomised,
    travelling_regimes,
    withhold,
)

REGIMES = [travelling_regimes, mean_pattern_regimes]


def lengths(truth: xr.DataArray) -> np.ndarray:
    """How long each spell of one regime lasts."""
    starts = np.flatnonzero(np.diff(truth.values, prepend=-1))
    return np.diff(starts, append=truth.size)


def by_regime(series: xr.DataArray, truth: xr.DataArray) -> np.ndarray:
    """(regime, station): the mean field of each regime."""
    return np.array([series.values[truth.values == k].mean(0) for k in np.unique(truth)])


# ---------------------------------------------------------------------------- both kinds of regimes


@pytest.mark.parametrize("make", REGIMES)
@pytest.mark.parametrize(("nodes", "steps", "regimes"), [(30, 500, 4), (1, 2, 1), (5, 101, 7), (40, 60, 2)])
def test_shapes_names_and_coordinates(make, nodes, steps, regimes):
    series, truth = make(nodes, steps, regimes, seed=3)
    assert dict(series.sizes) == {"time": steps, "station": nodes}
    assert check_series(series).identical(series)
    assert truth.dims == ("time",) and truth.dtype.kind == "i" and (truth.time == series.time).all()
    assert truth.min() >= 0 and truth.max() < regimes
    assert (np.abs(series.lat - CENTRE[0]) <= SIDE / 2 * DEGREES).all()
    assert (np.abs(series.lon - CENTRE[1]) <= SIDE / 2 * DEGREES).all()


@pytest.mark.parametrize("make", REGIMES)
def test_stations_are_standardised(make):
    series, _ = make(20, 400, seed=1)
    np.testing.assert_allclose(series.mean("time"), 0, atol=1e-12)
    np.testing.assert_allclose(series.std("time"), 1, rtol=1e-12)
    assert series.attrs["units"] == "1"


@pytest.mark.parametrize("make", REGIMES)
@pytest.mark.parametrize("duration", [(25, 60), (3, 3), (1, 2)])
def test_a_regime_lasts_as_long_as_said_and_another_follows(make, duration):
    _, truth = make(3, 3000, 4, seed=0, duration=duration)
    spells = lengths(truth)
    assert spells[:-1].min() == duration[0] and spells[:-1].max() == duration[1]  # both limits are met
    assert spells[-1] <= duration[1]  # the end of the series cuts it off
    assert set(truth.values) == {0, 1, 2, 3}


@pytest.mark.parametrize("make", REGIMES)
def test_the_seed_decides_everything(make):
    one, again, other = (make(10, 200, seed=seed) for seed in (5, 5, 6))
    assert one[0].identical(again[0]) and one[1].identical(again[1])
    assert not np.array_equal(one[0].lat, other[0].lat)
    assert not np.array_equal(one[1], other[1])
    assert np.abs(np.corrcoef(one[0].values.ravel(), other[0].values.ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("make", REGIMES)
def test_one_regime_never_ends(make):
    series, truth = make(10, 300, num_regimes=1)
    assert (truth == 0).all() and np.isfinite(series).all()


@pytest.mark.parametrize("make", REGIMES)
def test_without_signal_there_is_noise_with_memory_and_neighbourhood(make):
    series, truth = make(60, 4000, seed=2, signal=0.0)
    x = series.values
    assert np.mean(x[1:] * x[:-1]) == pytest.approx(0.7, abs=0.03)
    xy = np.stack([series.lon, series.lat], axis=1) / DEGREES
    distance = np.sqrt(((xy[:, None] - xy) ** 2).sum(-1))
    np.testing.assert_allclose(np.corrcoef(x.T), np.exp(-(distance**2) / (2 * 0.3**2)), atol=0.2)
    assert np.sqrt((by_regime(series, truth) ** 2).mean()) < 0.15


@pytest.mark.parametrize("make", REGIMES)
@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"num_nodes": 0}, ValueError, ["num_nodes", "at least 1", "0"]),
        ({"num_steps": 1}, ValueError, ["num_steps", "at least 2", "1"]),
        ({"num_regimes": 0}, ValueError, ["num_regimes", "at least 1", "0"]),
        ({"num_nodes": 2.0}, ValueError, ["num_nodes", "whole number", "2.0"]),
        ({"seed": -1}, ValueError, ["seed", "at least 0", "-1"]),
        ({"signal": -0.5}, ValueError, ["signal", "at least 0", "-0.5"]),
        ({"signal": np.nan}, ValueError, ["signal", "nan"]),
        ({"duration": (60, 25)}, ValueError, ["duration", "(60, 25)"]),
        ({"duration": 25}, ValueError, ["duration", "(shortest, longest)", "25"]),
        ({"duration": (0, 25)}, ValueError, ["duration", "at least 1", "0"]),
    ],
)
def test_bad_sizes_are_refused(make, options, error, parts):
    with pytest.raises(error) as raised:
        make(**({"num_nodes": 4, "num_steps": 50} | options))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- what each kind plants


def heading(series: xr.DataArray, rows: np.ndarray) -> float:
    """Degrees, counted from east, where the field goes after the times `rows`.

    A field that moves from i to j agrees better at j a step later with i now than the other way round. The sum of
    the directions of all near pairs, each with that difference, points down the wind.
    """
    xy = np.stack([series.lon, series.lat], axis=1)
    step = xy[None] - xy[:, None]  # (i, j): from i to j
    near = (step**2).sum(-1) < (0.5 * DEGREES) ** 2
    later = series.values[rows].T @ series.values[rows + 1] / rows.size
    towards = ((later - later.T) * near)[..., None] * step
    east, north = towards.sum((0, 1))
    return np.rad2deg(np.arctan2(north, east))


@pytest.mark.parametrize("direction", [0.0, 30.0])
def test_waves_of_each_regime_travel_where_it_says(direction):
    series, truth = travelling_regimes(100, 4000, 4, seed=0, direction=direction)
    inside = np.flatnonzero(truth.values[1:] == truth.values[:-1])
    for regime in range(4):
        found = heading(series, inside[truth.values[inside] == regime])
        expected = direction + 90 * regime
        assert abs((found - expected + 180) % 360 - 180) < 15, (regime, found)


def test_in_the_east_regime_the_eastern_neighbour_follows():
    series, _ = travelling_regimes(100, 2000, 1, seed=1)
    middle = np.abs(series.lat - CENTRE[0]).values.argsort()[:12]
    middle = middle[series.lon.values[middle].argsort()]  # a line of stations from west to east
    west, east = series.values[:, middle[:-1]], series.values[:, middle[1:]]
    follows, leads = np.mean(west[:-1] * east[1:], axis=0), np.mean(east[:-1] * west[1:], axis=0)
    assert follows.mean() > leads.mean() + 0.05


def test_travelling_regimes_look_alike_in_a_snapshot():
    """Every regime has the mean zero, and opposite ones the same correlations at the same time."""
    series, truth = travelling_regimes(60, 8000, 4, seed=0)
    assert np.sqrt((by_regime(series, truth) ** 2).mean()) < 0.15
    moments = [np.corrcoef(series.values[truth.values == k].T) for k in range(4)]
    apart = {(a, b): np.abs(moments[a] - moments[b]).mean() for a, b in [(0, 2), (1, 3), (0, 1), (2, 3)]}
    assert max(apart[0, 2], apart[1, 3]) < 0.5 * min(apart[0, 1], apart[2, 3])


def test_mean_patterns_differ_and_are_as_strong_as_said():
    series, truth = mean_pattern_regimes(60, 4000, 4, seed=0, signal=2.0)
    means = by_regime(series, truth)
    assert np.sqrt((means**2).mean()) > 0.7
    assert np.corrcoef(means)[np.triu_indices(4, 1)].max() < 0.5
    # Twice the standard deviation of the noise is four fifths of the variance. Standardising takes out the mean of
    # the patterns, which with few of them is a good part: count it with many.
    series, truth = mean_pattern_regimes(60, 8000, 30, seed=0, signal=2.0)
    assert np.var(by_regime(series, truth)[truth.values]) == pytest.approx(0.8, abs=0.04)


# ---------------------------------------------------------------------------- surrogates


@pytest.mark.parametrize("steps", [400, 401])
def test_surrogate_keeps_spectra_cross_spectra_and_mean(steps):
    series = travelling_regimes(8, steps, seed=1)[0] * 3 + 5
    surrogate = phase_randomised(series, seed=4)
    assert surrogate.attrs == series.attrs and surrogate.coords.identical(series.coords)
    spectra = []
    for field in (series, surrogate):
        transform = np.fft.rfft(field.values, axis=0)
        spectra.append(transform[:, :, None] * transform[:, None].conj())
    np.testing.assert_allclose(spectra[1], spectra[0], rtol=1e-9, atol=1e-9 * np.abs(spectra[0]).max())
    np.testing.assert_allclose(surrogate.mean("time"), series.mean("time"), rtol=1e-12)
    assert abs(np.corrcoef(surrogate.values.ravel(), series.values.ravel())[0, 1]) < 0.5


def test_surrogate_keeps_lagged_correlations_round_the_circle():
    series = travelling_regimes(6, 300, seed=2)[0]
    surrogate = phase_randomised(series)
    for lag in (0, 1, 7):
        lagged = [np.roll(x.values, -lag, axis=0).T @ x.values / 300 for x in (series, surrogate)]
        np.testing.assert_allclose(lagged[1], lagged[0], atol=1e-10)


def test_surrogates_of_other_seeds_differ():
    series = mean_pattern_regimes(5, 200)[0]
    one, again, other = (phase_randomised(series, seed) for seed in (0, 0, 1))
    assert one.identical(again)
    assert abs(np.corrcoef(one.values.ravel(), other.values.ravel())[0, 1]) < 0.5


def test_surrogate_has_no_regimes_left():
    """The mean field of what were regimes is next to nothing when the phases are shuffled."""
    series, truth = mean_pattern_regimes(30, 4000, seed=0, signal=2.0)
    kept, left = (np.sqrt((by_regime(x, truth) ** 2).mean()) for x in (series, phase_randomised(series)))
    assert left < 0.35 * kept


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s: phase_randomised(s.values), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: phase_randomised(s.transpose()), ValueError, ["series", "(time, station)"]),
        (lambda s: phase_randomised(s[:0]), ValueError, ["series", "empty"]),
        (lambda s: phase_randomised(s.where(s < 1)), ValueError, ["series", "missing"]),
        (lambda s: phase_randomised(s / 0), ValueError, ["series", "missing"]),
    ],
)
def test_phase_randomised_refuses_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call(travelling_regimes(4, 50, 2)[0])
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- gaps

PATTERNS = ["random", "blocks", "stations"]


def gappy(steps: int = 300, nodes: int = 10, share: float = 0.3, dtype: type = float) -> xr.DataArray:
    """A series with gaps of its own; the last station never reports."""
    series, _ = mean_pattern_regimes(nodes, steps, seed=1)
    holes = np.random.default_rng(2).random(series.shape) < share
    holes[:, -1] = nodes > 1
    return series.where(~holes).astype(dtype)


def taken(series: xr.DataArray, *arguments, **options) -> np.ndarray:
    """(time, station) True where a value was there and is no longer."""
    return (withhold(series, *arguments, **options).isnull() & series.notnull()).values


def runs(column: np.ndarray) -> np.ndarray:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(column.astype(int), prepend=0, append=0))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_left_is_the_series_and_its_own_gaps_stay(pattern, share, dtype):
    series = gappy(dtype=dtype)
    before = series.copy(deep=True)
    result = withhold(series, share, pattern)
    assert series.identical(before)  # nobody else's array was touched
    assert result.dtype == dtype and result.attrs == series.attrs and result.name == series.name
    assert result.coords.identical(series.coords) and result.dims == series.dims
    shown = result.notnull().values
    assert np.array_equal(result.values[shown], series.values[shown])  # the same bits
    assert result.isnull().values[series.isnull().values].all()
    assert shown.any()


@pytest.mark.parametrize("share", [0.001, 0.1, 0.37, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("pattern", ["random", "blocks"])
def test_the_count_is_exact(pattern, share):
    series = gappy()
    assert taken(series, share, pattern).sum() == round(share * int(series.notnull().sum()))


@pytest.mark.parametrize("pattern", ["random", "blocks"])
@pytest.mark.parametrize("observed", [1, 2, 5])
def test_of_few_values_one_is_left(pattern, observed):
    series = gappy(40)
    few = series.where(np.cumsum(series.notnull().values).reshape(series.shape) <= observed)
    assert int(few.notnull().sum()) == observed
    assert int(withhold(few, 0.99, pattern).notnull().sum()) == 1
    assert taken(few, 1e-9, pattern).sum() == 0  # less than half a value


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_share_of_nothing_takes_nothing(pattern):
    series = gappy()
    assert withhold(series, 0, pattern).identical(series)


@pytest.mark.parametrize(
    ("share", "stations"), [(1e-6, 1), (0.1, 1), (0.3, 3), (0.5, 4), (0.6, 5), (0.9, 8), (0.95, 8), (0.999, 8)]
)
def test_whole_stations_as_near_to_the_share_as_they_get(share, stations):
    """Nine stations report: one at least is withheld and one at least is kept."""
    series = gappy()
    result = withhold(series, share, "stations")
    before, after = (int(s.notnull().any("time").sum()) for s in (series, result))
    assert (before, before - after) == (9, stations)
    kept = result.notnull().any("time").values
    assert result[:, kept].identical(series[:, kept])  # a station stays whole


def test_of_two_stations_that_report_one_is_withheld():
    for share in (0.01, 0.5, 0.99):
        result = withhold(gappy(nodes=3), share, "stations")
        assert int(result.notnull().any("time").sum()) == 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_seed_decides_what_is_withheld(pattern):
    series = gappy()
    one, again, other = (withhold(series, 0.5, pattern, seed=seed) for seed in (3, 3, 4))
    assert one.identical(again) and not one.identical(other)
    assert withhold(series, 0.5, pattern, seed=np.int64(3)).identical(one)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_larger_share_takes_all_that_a_smaller_one_does(pattern):
    series = gappy()
    masks = [taken(series, share, pattern, seed=5) for share in (0.1, 0.35, 0.5, 0.9)]
    for smaller, larger in zip(masks[:-1], masks[1:], strict=True):
        assert (larger | ~smaller).all() and larger.sum() > smaller.sum()


def test_random_values_know_nothing_of_each_other():
    mask = taken(gappy(2000, 12, share=0.0), 0.3)[:, :-1]
    np.testing.assert_allclose(mask.mean(axis=0), 0.3, atol=0.04)
    assert np.mean(mask[1:] & mask[:-1]) == pytest.approx(0.09, abs=0.01)
    assert np.mean(mask[:, 1:] & mask[:, :-1]) == pytest.approx(0.09, abs=0.01)


@pytest.mark.parametrize("length", [(5, 9), [3, 3], (1, 2)])
def test_blocks_are_runs_of_the_lengths_asked_for(length):
    series = gappy(4000, 30, share=0.0)
    mask = taken(series, 0.01, "blocks", length=length, seed=1)
    inside = np.concatenate([runs(column) for column in mask.T if not (column[0] or column[-1])])
    # Some touch and are one run together, and the last one is cut.
    alone = np.isin(inside, range(length[0], length[1] + 1)).mean()
    assert alone > 0.9
    counts = np.bincount(inside)[length[0] : length[1] + 1]
    assert counts.min() > 0.6 * counts.max()  # each length alike


def test_blocks_come_at_all_times_and_stations_alike():
    """The first and the last value too: there are records with a gap at their ends."""
    series = gappy(40, 6, share=0.0)
    often = np.mean([taken(series, 0.3, "blocks", length=(5, 15), seed=seed) for seed in range(400)], axis=0)[:, :-1]
    np.testing.assert_allclose(often.mean(axis=0), 0.3, atol=0.04)
    np.testing.assert_allclose(often.mean(axis=1), 0.3, atol=0.05)


def test_a_block_may_be_longer_than_the_record():
    series = gappy(20, 5, share=0.0)
    mask = taken(series, 0.5, "blocks", length=(100, 200))
    assert mask.sum() == 40 and (mask.all(axis=0) | ~mask.any(axis=0)).sum() >= 1


def test_one_station_loses_values_and_whole_numbers_become_real_ones():
    series = gappy(100, 1, share=0.0)
    for pattern in ("random", "blocks"):
        whole = (series * 10).round().astype(int)
        result = withhold(whole, 0.4, pattern)
        assert int(result.isnull().sum()) == 40 and result.dtype.kind == "f"
        np.testing.assert_array_equal(result.values[result.notnull().values], whole.values[result.notnull().values])


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s: withhold(s.values, 0.1), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: withhold(s.to_dataset(name="x"), 0.1), TypeError, ["series", "Dataset"]),
        (lambda s: withhold(s.transpose(), 0.1), ValueError, ["series", "(time, station)", "station"]),
        (lambda s: withhold(s[0], 0.1), ValueError, ["series", "(time, station)"]),
        (lambda s: withhold(s[:0], 0.1), ValueError, ["series", "empty"]),
        (lambda s: withhold(s[:, :0], 0.1), ValueError, ["series", "empty"]),
        (lambda s: withhold(s * np.nan, 0.1), ValueError, ["series", "observed value", "none"]),
        (lambda s: withhold(s * np.nan, 0), ValueError, ["series", "observed value", "none"]),
        (lambda s: withhold(s > 0, 0.1), TypeError, ["series", "numbers", "bool"]),
        (lambda s: withhold(s.astype(str), 0.1), TypeError, ["series", "numbers", "<U"]),
        (lambda s: withhold(s, -0.1), ValueError, ["share", "at least 0", "-0.1"]),
        (lambda s: withhold(s, 1), ValueError, ["share", "below 1", "1"]),
        (lambda s: withhold(s, 10), ValueError, ["share", "below 1", "10"]),
        (lambda s: withhold(s, np.nan), ValueError, ["share", "nan"]),
        (lambda s: withhold(s, "0.1"), ValueError, ["share", "'0.1'"]),
        (lambda s: withhold(s, True), ValueError, ["share", "True"]),
        (lambda s: withhold(s, 0.1, "holes"), ValueError, ["pattern", "'blocks'", "'holes'"]),
        (lambda s: withhold(s, 0.1, None), ValueError, ["pattern", "None"]),
        (lambda s: withhold(s, 0.1, "blocks", 7), ValueError, ["length", "(shortest, longest)", "7"]),
        (lambda s: withhold(s, 0.1, "blocks", (1, 2, 3)), ValueError, ["length", "(1, 2, 3)"]),
        (lambda s: withhold(s, 0.1, "blocks", (9, 3)), ValueError, ["length", "(9, 3)"]),
        (lambda s: withhold(s, 0.1, "blocks", (0, 3)), ValueError, ["length", "at least 1", "0"]),
        (lambda s: withhold(s, 0.1, "blocks", (1.5, 3)), ValueError, ["length", "1.5"]),
        (lambda s: withhold(s, 0.1, seed=-1), ValueError, ["seed", "-1"]),
        (lambda s: withhold(s, 0.1, seed=None), ValueError, ["seed", "None"]),
        (lambda s: withhold(s[:, :1], 0.5, "stations"), ValueError, ["two stations", "found 1 of 1"]),
        (lambda s: withhold(s[:, 8:], 0.5, "stations"), ValueError, ["two stations", "found 1 of 2"]),
    ],
)
def test_withhold_refuses_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call(gappy(60))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- advection


def variance(forecast: xr.DataArray, series: xr.DataArray) -> float:
    return float(((forecast - series) ** 2).mean())


@pytest.mark.parametrize("turn", [0.0, 15.0])
def test_advected_field_has_names_and_the_seed_decides(turn):
    series, truth = advected_field(12, 60, seed=2, turn=turn)
    assert dict(series.sizes) == {"time": 60, "station": 12} and check_series(series).identical(series)
    assert truth.wind.dims == ("time",) and (truth.wind.time == series.time).all()
    again, other = advected_field(12, 60, seed=2, turn=turn), advected_field(12, 60, seed=3, turn=turn)
    assert again[0].identical(series) and again[1].wind.identical(truth.wind)
    assert not np.array_equal(other[0].lat, series.lat) and not np.array_equal(other[0], series)


def test_steady_wind_stays_and_a_turning_one_takes_all_directions():
    _, steady = advected_field(5, 500, direction=40.0)
    assert (steady.wind == 40).all() and list(steady.carry) == [40.0]
    _, turning = advected_field(5, 4000, seed=1, turn=12.0, direction=5.0)
    wind = turning.wind.values
    assert wind[0] == 5 and set(wind % 10) == {5.0} and len(np.unique(wind)) == 36
    change = (np.diff(wind) + 180) % 360 - 180
    assert change.std() == pytest.approx(np.sqrt(12**2 + 10**2 / 6), rel=0.05)  # what rounding adds


@pytest.mark.parametrize("direction", [0.0, 90.0, 215.0])
def test_the_field_goes_where_the_wind_goes(direction):
    series, truth = advected_field(80, 2000, seed=0, direction=direction)
    found = heading(series, np.arange(1999))
    assert abs((found - direction + 180) % 360 - 180) < 12, found
    # each station listens to a point that lies upstream, where there are stations
    xy = np.stack([series.lon - CENTRE[1], series.lat - CENTRE[0]], axis=1) / DEGREES
    (carry,) = truth.carry.values()
    np.testing.assert_allclose(carry.sum(axis=1), 0.95, rtol=1e-12)
    inside = (np.abs(xy) < 0.5).all(axis=1)
    shift = (carry / 0.95 @ xy - xy)[inside].mean(axis=0)
    upstream = -DRIFT * np.array([np.cos(np.deg2rad(direction)), np.sin(np.deg2rad(direction))])
    np.testing.assert_allclose(shift, upstream, atol=0.06)


@pytest.mark.parametrize("turn", [0.0, 20.0])
def test_best_forecast_is_the_product_of_the_steps_and_leaves_the_announced_error(turn):
    series, truth = advected_field(20, 3000, seed=4, turn=turn)
    wind, x = truth.wind.values, series.values
    for lead in (1, 3, 8):
        best, spread = truth.forecast(series, lead), truth.spread(series, lead)
        assert best[:lead].isnull().all() and best[lead:].notnull().all()
        for t in (lead, 100, 2999):  # a matrix product, one time at a time
            expected = x[t - lead]
            covariance = np.zeros((20, 20))
            for s in range(t - lead, t):
                carry = truth.carry[wind[s]]
                expected = carry @ expected
                covariance = carry @ covariance @ carry.T + truth.innovation
            np.testing.assert_allclose(best[t], expected, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(spread[t], np.sqrt(np.diag(covariance)), rtol=1e-10)
        assert variance(best, series) == pytest.approx(float((spread**2).mean()), rel=0.04)
        # the errors have nothing left in them that the start of the forecast could tell
        error = (best - series).values[lead:]
        assert np.abs(np.corrcoef(error.T, x[:-lead].T)[:20, 20:]).mean() < 0.05


def test_innovations_are_new_and_have_their_covariance():
    series, truth = advected_field(15, 6000, seed=0, turn=10.0)
    error = (series - truth.forecast(series)).values[1:]
    np.testing.assert_allclose(error.T @ error / len(error), truth.innovation, atol=0.006)
    assert np.abs(np.corrcoef(error[1:].T, error[:-1].T)[:15, 15:]).max() < 0.06


def test_nobody_beats_the_best_forecast_and_a_linear_model_only_nears_it_in_steady_wind():
    excess = {}
    for turn in (0.0, 12.0):
        series, truth = advected_field(25, 4000, seed=1, turn=turn)
        test = series[2000:]
        best = variance(truth.forecast(test), test)
        linear = variance(fit_var(series[:2000], 1).forecast(test), test)
        persisted = variance(test.shift(time=1), test)
        assert best < linear < persisted
        excess[turn] = linear / best - 1
    assert excess[0.0] < 0.04 and excess[12.0] > 0.15


def test_frozen_wind_needs_no_future_and_pays_for_it():
    series, truth = advected_field(20, 2000, seed=0, turn=15.0)
    assert truth.forecast(series, 1, frozen=True).identical(truth.forecast(series, 1))
    assert variance(truth.forecast(series, 6), series) < 0.97 * variance(truth.forecast(series, 6, True), series)
    other = truth.wind.copy()
    other[1000:] = (other[1000:] + 90) % 360  # another future of the wind
    changed = type(truth)(other, truth.carry, truth.innovation, truth.stations)
    a, b = (o.forecast(series, 6, frozen=True) for o in (truth, changed))
    xr.testing.assert_allclose(a[:1006], b[:1006], rtol=1e-12)
    assert np.abs(a - b)[1006:].max() > 0.1


def test_best_forecast_of_a_stretch_is_a_stretch_of_the_best_forecast():
    series, truth = advected_field(8, 100, seed=5, turn=30.0)
    whole, part = truth.forecast(series, 2), truth.forecast(series[40:60], 2)
    xr.testing.assert_allclose(part[2:], whole[42:60], rtol=1e-12)
    xr.testing.assert_allclose(truth.spread(series[40:60], 2)[2:], truth.spread(series, 2)[42:60], rtol=1e-12)
    assert truth.forecast(series[:2], 5).isnull().all()  # longer than the stretch


def test_a_single_station_is_an_autoregression():
    series, truth = advected_field(1, 3000, memory=0.8, turn=40.0)
    np.testing.assert_allclose(truth.forecast(series, 2)[2:], 0.64 * series[:-2], rtol=1e-12)
    assert series.var() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s, o: advected_field(0), ValueError, ["num_nodes", "at least 1", "0"]),
        (lambda s, o: advected_field(4, 1), ValueError, ["num_steps", "at least 2", "1"]),
        (lambda s, o: advected_field(4, 9, seed=-1), ValueError, ["seed", "-1"]),
        (lambda s, o: advected_field(4, 9, turn=-1.0), ValueError, ["turn", "-1.0"]),
        (lambda s, o: advected_field(4, 9, turn=np.nan), ValueError, ["turn", "nan"]),
        (lambda s, o: advected_field(4, 9, memory=1.0), ValueError, ["memory", "1.0"]),
        (lambda s, o: advected_field(4, 9, direction=np.inf), ValueError, ["direction", "inf"]),
        (lambda s, o: o.forecast(s.values), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s, o: o.forecast(s.transpose()), ValueError, ["series", "(time, station)"]),
        (lambda s, o: o.forecast(s, 0), ValueError, ["lead", "at least 1", "0"]),
        (lambda s, o: o.spread(s, 1.5), ValueError, ["lead", "1.5"]),
        (lambda s, o: o.forecast(s[:, ::-1]), ValueError, ["series", "4 stations", "S003"]),
        (lambda s, o: o.forecast(s[:0]), ValueError, ["series", "times"]),
        (lambda s, o: o.forecast(s[::2]), ValueError, ["series", "one after the other"]),
        (lambda s, o: o.spread(s.assign_coords(time=s.time.values + np.timedelta64(1, "h"))), ValueError, ["times"]),
    ],
)
def test_advection_refuses_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call(*advected_field(4, 30))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- delayed influence


KINDS = {"linear": lambda x: x, "magnitude": lambda x: np.abs(x) - np.sqrt(2 / np.pi)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("nodes", "sources", "longest"), [(12, 2, 4), (5, 4, 1), (3, 0, 2), (1, 0, 3)])
def test_influence_is_planted_as_said(kind, nodes, sources, longest):
    series, truth = delayed_influence(nodes, 50, seed=2, sources=sources, longest=longest, strength=0.4, kind=kind)
    assert dict(series.sizes) == {"time": 50, "station": nodes} and check_series(series).identical(series)
    assert truth["weight"].dims == truth["delay"].dims == ("target", "source")
    for name in ("target", "source"):
        np.testing.assert_array_equal(truth[name], series["station"])
    weight, delay, own = truth["weight"].values, truth["delay"].values, np.eye(nodes, dtype=bool)
    assert (weight[own] == OWN_MEMORY).all() and (delay[own] == 1).all()
    edge = (weight != 0) & ~own
    assert (edge.sum(1) == sources).all() and ((delay > 0) == (edge | own)).all()
    if sources:
        assert delay[edge].min() >= 1 and delay[edge].max() <= longest
        np.testing.assert_allclose(abs(weight[edge]).reshape(nodes, -1).sum(1), 0.4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_planted_influence_leaves_over_is_noise(kind):
    series, truth = delayed_influence(8, 5000, seed=1, kind=kind, strength=0.6)
    x, weight, delay = series.values, truth["weight"].values, truth["delay"].values
    others = weight * ~np.eye(8, dtype=bool)
    error = x - OWN_MEMORY * np.roll(x, 1, axis=0)
    for d in range(1, 5):
        error -= KINDS[kind](np.roll(x, d, axis=0)) @ (others * (delay == d)).T
    error = error[4:]
    np.testing.assert_allclose(error.var(axis=0), 1, atol=0.08)
    past = np.concatenate([x[4 - d : -d] for d in range(1, 5)], axis=1)
    assert np.abs(np.corrcoef(error.T, past.T)[:8, 8:]).max() < 0.06
    # neighbours' innovations are correlated, which is no influence
    lon, lat = series.lon.values / DEGREES, series.lat.values / DEGREES
    square = (lon[:, None] - lon) ** 2 + (lat[:, None] - lat) ** 2
    np.testing.assert_allclose(np.corrcoef(error.T), np.exp(-square / 0.18), atol=0.06)


def test_a_linear_model_finds_the_linear_influence_and_hardly_the_other():
    series, truth = delayed_influence(8, 6000, seed=0, longest=3)
    planted = np.stack([truth["weight"].values * (truth["delay"].values == d) for d in (1, 2, 3)])
    np.testing.assert_allclose(fit_var(series, 3).coefficients, planted, atol=0.08)
    series, truth = delayed_influence(8, 6000, seed=0, longest=3, kind="magnitude")
    other = fit_var(series, 3).coefficients[planted * ~np.eye(8, dtype=bool) != 0]  # the edges, which are the same
    assert np.abs(other).mean() < 0.06 < 0.25 == np.abs(truth["weight"].values[0, 7])


def test_influence_repeats_with_its_seed_and_stays_bounded():
    first, again, other = (delayed_influence(seed=seed, num_steps=30)[0] for seed in (4, 4, 5))
    assert first.identical(again) and not np.allclose(first, other)
    series, _ = delayed_influence(6, 20_000, sources=1, strength=0.69, kind="magnitude")
    assert np.abs(series).max() < 12 and series.std() < 2


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"num_nodes": 0}, ["num_nodes", "at least 1", "0"]),
        ({"num_steps": 1}, ["num_steps", "at least 2", "1"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"sources": 12}, ["sources", "fewer than the 12 stations", "12"]),
        ({"sources": -1}, ["sources", "at least 0", "-1"]),
        ({"num_nodes": 1}, ["sources", "fewer than the 1", "2"]),
        ({"longest": 0}, ["longest", "at least 1", "0"]),
        ({"strength": 0.7}, ["strength", "below 0.7", "0.7"]),
        ({"strength": -0.1}, ["strength", "-0.1"]),
        ({"strength": np.nan}, ["strength", "nan"]),
        ({"kind": "causal"}, ["kind", "'linear' or 'magnitude'", "'causal'"]),
    ],
)
def test_influence_refuses_what_does_not_fit(options, parts):
    with pytest.raises(ValueError) as raised:
        delayed_influence(**options)
    assert all(part in str(raised.value) for part in parts), str(raised.value)
