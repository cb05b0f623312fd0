"""Made-up weather: what is planted is there, and only that."""

import numpy as np
import pytest
import xarray as xr

from stgcn_lab.datasets import check_series
from stgcn_lab.simulate import CENTRE, DEGREES, SIDE, mean_pattern_regimes, phase_randomised, travelling_regimes

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
