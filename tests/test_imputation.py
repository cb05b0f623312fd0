"""impute: every method on every kind of gap, what it promises, and what the networks learn."""

import numpy as np
import pytest
import torch
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
    graph = graph_of(series)
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


def test_a_graph_of_the_same_stations_in_another_order_is_an_error():
    series = field(steps=60, nodes=6)
    turned = graph_of(series.isel(station=[1, 0, 2, 3, 4, 5]))
    with pytest.raises(ValueError, match="in their order, found node 0"):
        impute(series, turned, "stgcn", **QUICK)


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


def test_eofs_know_when_nobody_tells_them_anything():
    truth = field(steps=300, nodes=10)
    series = simulate.withhold(truth, 0.2, seed=0)
    series[::5] = np.nan
    ratio = (impute(series, None, "eof") - truth) / impute(series, None, "eof").spread
    for rows in (slice(None, None, 5), slice(1, None, 5)):
        z = ratio[rows].values[series[rows].isnull().values]
        assert 0.8 < np.sqrt(np.mean(z**2)) < 1.25


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


# ---------------------------------------------------------------------------- odd input

LOCAL = ("linear", "climatology", "idw", "kriging")  # no chance in them


def odd(name: str) -> xr.DataArray:
    series = simulate.withhold(field(steps=60, nodes=5), 0.3, seed=0)
    values = series.values
    if name == "one value":
        return series.where(series == series[10].max())
    if name == "one value a station":
        return series.where(np.arange(60)[:, None] == 10 + np.arange(5)).fillna(series.where(False))
    if name == "two steps":
        return series[:2]
    if name == "one spot":
        return series.assign_coords(lat=0 * series.lat + 40, lon=0 * series.lon, elevation=0 * series.elevation)
    if name == "date line":
        return series.assign_coords(lon=("station", [179.0, -179.5, 178.0, -178.0, 180.0]))
    if name == "yearly":
        return series.assign_coords(time=np.arange("1900", "1960", dtype="datetime64[Y]").astype("datetime64[ns]"))
    if name == "hourly":
        return series.assign_coords(time=np.datetime64("2000-01-01", "ns") + np.arange(60) * np.timedelta64(1, "h"))
    scaled = {"huge": values * 1e20, "tiny": values * 1e-30, "constant": values * 0 + 0.1, "half": values}
    return series.copy(data=scaled[name]).astype("float16" if name == "half" else "float64")


@pytest.mark.parametrize("method", ["linear", "climatology", "idw", "kriging", "eof", "stgcn"])
@pytest.mark.parametrize(
    "name",
    ["one value", "one value a station", "two steps", "one spot", "date line"]
    + ["yearly", "hourly", "huge", "tiny", "constant", "half"],
)
def test_odd_series_are_filled_with_values_of_their_own_size(name, method):
    series = odd(name)
    filled = impute(series, graph_of(series), method, **quick(method))
    gaps = series.isnull().values
    assert np.isfinite(filled.values).all() and filled.dtype == series.dtype
    assert np.array_equal(filled.values[~gaps], series.values[~gaps])
    assert np.abs(filled.values).max() <= 2 * np.nanmax(np.abs(series.values))
    if method in SURE:
        assert np.isfinite(filled.spread.values).all() and np.array_equal(filled.spread.values > 0, gaps)


def test_whole_numbers_are_no_longer_than_they_were():
    series = field(steps=30, nodes=3).astype("int64") + 2**60 + 1  # more digits than a float64 has
    assert np.array_equal(impute(series, None, "linear").values, series.values)


@pytest.mark.parametrize("method", LOCAL)
def test_the_order_of_the_stations_does_not_matter(method):
    series = simulate.withhold(field(steps=100, nodes=9), 0.3, "blocks", (3, 9), seed=0)
    series[:, 3] = np.nan
    order = np.random.default_rng(0).permutation(9)
    straight, turned = impute(series, None, method)[:, order], impute(series[:, order], None, method)
    assert np.allclose(straight.values, turned.values, atol=1e-5)
    if method in SURE:
        assert np.allclose(straight.spread.values, turned.spread.values, atol=1e-5)


@pytest.mark.parametrize("method", [*NETWORKS, "eof", "joint"])
def test_the_global_random_numbers_are_neither_used_nor_touched(method):
    series = simulate.withhold(field(steps=60, nodes=5), 0.3, seed=0)
    found = []
    for start in (0, 1):
        torch.manual_seed(start)
        np.random.seed(start)  # noqa: NPY002  it is the old generator that must be left alone
        before = torch.get_rng_state(), np.random.get_state()[1:3]  # noqa: NPY002
        found.append(impute(series, graph_of(series), method, **quick(method)).values)
        after = torch.get_rng_state(), np.random.get_state()[1:3]  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        assert np.array_equal(before[1][0], after[1][0]) and before[1][1] == after[1][1]
    assert np.array_equal(*found)


def test_options_of_another_method_are_named_before_any_work():
    series = field(steps=30, nodes=4)
    graph = graph_of(series)
    with pytest.raises(TypeError, match="'idw' does not know memory, knows power"):
        impute(series, None, "idw", memory=True)
    with pytest.raises(TypeError, match="'attention' does not know spatial, .*reach"):
        impute(series, graph, "attention", spatial="gcn")
    with pytest.raises(TypeError, match="'stgcn' does not know given, in_features, .*channels"):
        impute(series, graph, "stgcn", in_features=3, given=1)
    with pytest.raises(TypeError, match="'joint' does not know window, .*duration"):
        impute(series, graph, "joint", window=3)
    with pytest.raises(ValueError, match="harmonics"):
        impute(series, None, "linear", harmonics=-1)
    with pytest.raises(ValueError, match="graph: .* found ndarray"):
        impute(series, np.zeros((4, 4)), "stgcn")


def test_a_directional_network_may_have_any_number_of_sectors():
    series = simulate.withhold(field(steps=40, nodes=5), 0.3, seed=0)
    filled = impute(series, graph_of(series), "stgcn", spatial="directional", order=6, **QUICK)
    assert np.isfinite(filled.values).all()
