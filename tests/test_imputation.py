"""impute: every method on every kind of gap, what it promises, and what the networks learn."""

import numpy as np
import pytest
import xarray as xr

from stgcn_lab import datasets, imputation, simulate
from stgcn_lab.graphs import knn_graph
from stgcn_lab.imputation import METHODS, NETWORKS, impute
from tests.test_interpolation import field

SURE = [method for method in METHODS if method not in ("linear", "idw")]
QUICK = {"window": 16, "masks": 2, "steps": 3}


def quick(method: str) -> dict[str, object]:
    if method in NETWORKS:
        return QUICK
    return {"rounds": 2, "restarts": 1} if method == "joint" else {}


def graph_of(series: xr.DataArray, k: int = 3):
    return knn_graph(series.lat.values, series.lon.values, k=min(k, series.sizes["station"] - 1) or 1)


def bits(values: np.ndarray) -> np.ndarray:
    return values.view(f"u{values.dtype.itemsize}")


# ---------------------------------------------------------------------------- what every method promises


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_gap_is_left_and_what_was_observed_is_untouched(method, dtype):
    series = simulate.withhold(field(steps=120, nodes=8), 0.4, "blocks", (2, 10), seed=0).astype(dtype)
    series[3, 3] = -0.0
    filled = impute(series, graph_of(series), method, **quick(method))
    there = series.notnull().values
    assert np.isfinite(filled.values).all()
    assert filled.dtype == series.dtype and filled.attrs == series.attrs and filled.name == series.name
    assert np.array_equal(bits(filled.values)[there], bits(series.values)[there])
    assert ("spread" in filled.coords) == (method in SURE)
    if method in SURE:
        spread = filled.spread.values
        assert (spread[there] == 0).all() and (spread[~there] > 0).all() and np.isfinite(spread).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_awkward_gaps(method):
    """A station never observed, a time without any value, gaps at both ends, and one longer than a window."""
    series = field(steps=90, nodes=7)
    series[:, 0] = np.nan
    series[40] = np.nan
    series[:12, 1] = np.nan
    series[-12:, 2] = np.nan
    series[20:70, 3] = np.nan
    series[1:, 4] = np.nan  # a single value
    filled = impute(series, graph_of(series), method, **quick(method))
    assert np.isfinite(filled.values).all()
    assert np.abs(filled.values).max() < 100  # degC: nothing has run away


@pytest.mark.parametrize("method", METHODS)
def test_one_station(method):
    series = field(steps=60, nodes=1)
    series[10:20] = np.nan
    graph = knn_graph([40.0], [-105.0], k=1)
    filled = impute(series, graph, method, **quick(method))
    assert np.isfinite(filled.values).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_series_without_gaps_comes_back_as_it_is(method):
    series = field(steps=60, nodes=5)
    filled = impute(series, graph_of(series), method, **quick(method))
    assert np.array_equal(filled.values, series.values)
    if method in SURE:
        assert (filled.spread.values == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_filling_and_leaves_the_input_alone(method):
    series = simulate.withhold(field(steps=60, nodes=6), 0.3, seed=0)
    before = series.copy(deep=True)
    first, second = (impute(series, graph_of(series), method, seed=3, **quick(method)) for _ in range(2))
    assert np.array_equal(first.values, second.values)
    assert series.identical(before)


@pytest.mark.parametrize("method", METHODS)
def test_a_break_of_the_time_axis(method):
    series = field(steps=300, nodes=6)
    series = series[series.time.dt.month.isin([11, 12, 1, 2])]
    series = simulate.withhold(series, 0.3, seed=0)
    filled = impute(series, graph_of(series), method, **quick(method))
    assert np.isfinite(filled.values).all()


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize("method", METHODS)
def test_nothing_observed_and_no_station_are_errors(method):
    series = field(steps=30, nodes=4)
    with pytest.raises(ValueError, match="at least one observed value"):
        impute(series.where(False), graph_of(series), method)
    with pytest.raises(ValueError, match="at least one station"):
        impute(series[:, :0], graph_of(series), method)


@pytest.mark.parametrize("method", [*NETWORKS, "joint"])
def test_a_graph_of_other_stations_is_an_error(method):
    series = field(steps=30, nodes=4)
    with pytest.raises(ValueError, match="graph: expected the 4 stations"):
        impute(series, None, method)
    with pytest.raises(ValueError, match="graph: expected the 4 stations .* found 5 nodes"):
        impute(series, graph_of(field(nodes=5)), method)


def test_errors_say_what_to_do():
    series = field(steps=30, nodes=4)
    with pytest.raises(ValueError, match="method: expected one of linear, climatology"):
        impute(series, None, "magic")
    with pytest.raises(TypeError, match="'linear' does not know"):
        impute(series, None, "linear", power=2)
    with pytest.raises(TypeError, match="DataArray"):
        impute(series.values, None, "linear")
    with pytest.raises(ValueError, match="infinite"):
        impute(series.where(series < series.max(), np.inf), None, "linear")
    with pytest.raises(ValueError, match="power"):
        impute(series, None, "idw", power=-1)
    with pytest.raises(ValueError, match="window"):
        impute(series, graph_of(series), "stgcn", window=1)
    with pytest.raises(ValueError, match="seed"):
        impute(series, None, "linear", seed=-1)


# ---------------------------------------------------------------------------- what methods know


def score(filled: xr.DataArray, truth: xr.DataArray, series: xr.DataArray) -> float:
    gaps = series.isnull().values
    return float(np.sqrt(np.mean((filled.values - truth.values)[gaps] ** 2)))


def test_neighbours_help_where_weather_is_shared():
    truth = field(steps=300, nodes=20)
    series = simulate.withhold(truth, 0.3, "blocks", (3, 12), seed=0)
    error = {
        method: score(impute(series, None, method), truth, series)
        for method in ("linear", "climatology", "idw", "kriging", "eof")
    }
    assert error["kriging"] < error["idw"] < error["climatology"] < error["linear"]
    assert error["eof"] < error["climatology"]
    assert score(impute(series, None, "kriging", memory=True), truth, series) < error["kriging"]


def test_spreads_are_the_errors_that_are_made():
    truth = field(steps=300, nodes=20)
    series = simulate.withhold(truth, 0.3, "blocks", (3, 12), seed=0)
    gaps = series.isnull().values
    for method in ("climatology", "kriging", "eof"):
        filled = impute(series, None, method)
        ratio = (filled.values - truth.values)[gaps] / filled.spread.values[gaps]
        assert 0.8 < np.sqrt(np.mean(ratio**2)) < 1.25, method


def travelling(steps: int = 700, nodes: int = 16, seed: int = 0) -> xr.DataArray:
    """Weather that arrives: a front passes the stations from west to east, so neighbours tell it a step before."""
    rng = np.random.default_rng(seed)
    base = field(steps=steps, nodes=nodes, seed=seed).sortby("lon")
    order = np.argsort(base.lon.values)
    source = np.convolve(rng.standard_normal(steps + nodes + 3), [1, 1, 1], "valid") / np.sqrt(3)
    z = np.stack([source[nodes - k : nodes - k + steps] for k in range(nodes)], axis=1)
    values = np.empty_like(z)
    values[:, order] = z
    return base.copy(data=10 + 2 * values + 0.3 * rng.standard_normal(z.shape))


@pytest.mark.parametrize("method", NETWORKS)
def test_networks_learn_that_weather_travels(method):
    truth = travelling()
    series = simulate.withhold(truth, 0.2, "blocks", (5, 15), seed=0)
    graph = graph_of(series)
    first = score(impute(series, None, "kriging", memory=True), truth, series)
    # The neighbours in space lie up to two steps away in time; attention weighs them one by one and learns slower.
    options, least = ({"reach": 2}, 0.93) if method == "attention" else ({}, 0.85)
    filled = impute(series, graph, method, seed=0, steps=150, window=24, **options)
    assert score(filled, truth, series) < least * first


def test_a_network_without_training_is_its_first_guess():
    series = simulate.withhold(field(steps=80, nodes=6), 0.3, seed=0)
    guess = impute(series, None, "kriging", memory=True)
    filled = impute(series, graph_of(series), "stgcn", steps=1, learning_rate=1e-12, window=16)
    assert np.allclose(filled.values, guess.values, atol=1e-4)
    assert np.allclose(filled.spread.values, guess.spread.values, rtol=1e-3, atol=1e-4)


def test_what_is_hidden_in_training_looks_like_the_gaps_and_is_never_all():
    rng = np.random.default_rng(0)
    known = np.ones((300, 10), dtype=bool)
    known[100:160, 2] = False
    known[:, 7] = False
    lengths = []
    for _ in range(50):
        hidden = imputation._hide_like_gaps(known, rng)
        assert not (hidden & ~known).any() and (known & ~hidden).any()
        for column in hidden.T:
            lengths += [len(run) for run in "".join("x" if h else " " for h in column).split()]
    assert {60, 300} <= set(lengths)  # a stretch as long as the one gap, and a whole station


# ---------------------------------------------------------------------------- the whole Colorado record


def test_the_whole_colorado_record_is_filled():
    """376 stations, 103 years, three of five values never measured."""
    series = datasets.load_colorado().tmax
    assert series.isnull().mean() > 0.6
    there = series.notnull().values
    for method in ("linear", "climatology", "kriging"):
        filled = impute(series, None, method)
        assert np.isfinite(filled.values).all()
        assert np.array_equal(filled.values[there], series.values[there])
