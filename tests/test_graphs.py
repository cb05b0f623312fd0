"""Distances against known values and an independent formula, builders against brute force, operators against
their formulas written as loops and against PyTorch Geometric."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import get_laplacian, to_dense_adj

from stgcn_lab import graphs
from stgcn_lab.graphs import (
    EARTH_RADIUS_KM,
    adjacency,
    bearing,
    correlation_graph,
    delaunay_graph,
    directional_operators,
    gcn_operator,
    great_circle_distance,
    grid_graph,
    hetero_graph,
    hetero_operators,
    knn_graph,
    radius_graph,
    scaled_laplacian,
    to_operator,
)

HALF_ROUND = np.pi * EARTH_RADIUS_KM  # pole to pole
latitude = st.floats(-90, 90)
longitude = st.floats(-180, 180)


def edges(graph: Data) -> set[tuple[int, int]]:
    """(source, target) pairs."""
    return set(map(tuple, graph.edge_index.T.tolist()))


def pairs_within(lat, lon, radius):
    d = great_circle_distance(lat[:, None], lon[:, None], lat, lon)
    return {(j, i) for i in range(len(lat)) for j in range(len(lat)) if i != j and d[i, j] <= radius}


def scattered(seed: int, nodes: int):
    rng = np.random.default_rng(seed)
    return rng.uniform(48, 56, nodes), rng.uniform(-10, 4, nodes)


def assert_well_formed(graph: Data, nodes: int, symmetric: bool = True) -> None:
    assert graph.num_nodes == nodes
    assert graph.edge_index.dtype == torch.int64 and tuple(graph.pos.shape) == (nodes, 2)
    source, target = graph.edge_index.numpy()
    assert graph.edge_weight.shape == graph.edge_distance.shape == source.shape
    assert graph.edge_weight.dtype == graph.edge_distance.dtype == graph.pos.dtype == torch.float32
    assert (source != target).all(), "self-loop"
    assert len(edges(graph)) == source.size, "an edge twice"
    order = np.lexsort((source, target))
    assert (order == np.arange(source.size)).all(), "edges are not ordered by target, then source"
    lon, lat = graph.pos.numpy().astype(float).T
    again = great_circle_distance(lat[source], lon[source], lat[target], lon[target])
    np.testing.assert_allclose(graph.edge_distance, again, rtol=1e-4, atol=2e-3)  # pos is float32
    if symmetric:
        a = adjacency(graph).toarray()
        np.testing.assert_array_equal(a > 0, a.T > 0)
        np.testing.assert_allclose(a, a.T, rtol=1e-6)


BUILDERS = {
    "knn": lambda lat, lon: knn_graph(lat, lon, k=3),
    "radius": lambda lat, lon: radius_graph(lat, lon, 300),
    "delaunay": lambda lat, lon: delaunay_graph(lat, lon),
}
each_builder = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


# ---------------------------------------------------------------------------- distances


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        ((53.35, -6.26), (53.27, -9.05), 185.5),  # Dublin - Galway
        ((51.5074, -0.1278), (48.8566, 2.3522), 343.6),  # London - Paris
        ((40.7128, -74.0060), (51.5074, -0.1278), 5570.2),  # New York - London
        ((0, 0), (0, 1), HALF_ROUND / 180),  # one degree along the equator
        ((60, 0), (60, 180), HALF_ROUND / 3),  # over the pole, not along the parallel
        ((0, 0), (0, 180), HALF_ROUND),  # antipodes
        ((37.3, 12.7), (-37.3, -167.3), HALF_ROUND),
        ((90, 0), (-90, 77), HALF_ROUND),  # pole to pole, whatever the longitude
        ((90, 0), (90, 123), 0.0),  # one place, two names
        ((0, 179.9), (0, -179.9), HALF_ROUND / 180 * 0.2),  # over the date line
        ((53, -8), (53, 352), 0.0),  # the two ways to write a longitude
        ((53, -180), (53, 180), 0.0),
    ],
)
def test_known_distances(a, b, km):
    assert great_circle_distance(*a, *b) == pytest.approx(km, abs=0.1 if km > 0 else 1e-6, rel=1e-9)
    assert great_circle_distance(*b, *a) == pytest.approx(great_circle_distance(*a, *b), rel=1e-12)


def test_distance_of_neighbours_in_one_garden():
    """One metre: the law of cosines would return noise here, the haversine does not."""
    metre = 180 / (HALF_ROUND * 1000)
    assert great_circle_distance(53, -8, 53 + metre, -8) == pytest.approx(1e-3, rel=1e-6)


@given(latitude, longitude, latitude, longitude)
def test_distance_equals_the_vincenty_formula_on_unit_vectors(lat1, lon1, lat2, lon2):
    a, b = (
        np.array([np.cos(p) * np.cos(q), np.cos(p) * np.sin(q), np.sin(p)])
        for p, q in np.radians([[lat1, lon1], [lat2, lon2]])
    )
    expected = EARTH_RADIUS_KM * np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)
    assert great_circle_distance(lat1, lon1, lat2, lon2) == pytest.approx(expected, abs=2e-3)
    assert great_circle_distance(lat1, lon1 % 360, lat2, lon2 % 360) == pytest.approx(expected, abs=2e-3)


def test_distance_broadcasts():
    lat, lon = np.array([50.0, 51, 52]), np.array([0.0, 1, 2])
    matrix = great_circle_distance(lat[:, None], lon[:, None], lat, lon)
    assert matrix.shape == (3, 3)
    assert matrix[0, 2] == great_circle_distance(50, 0, 52, 2)
    np.testing.assert_allclose(matrix, matrix.T)


@pytest.mark.parametrize(
    ("to", "expected"), [((51, 0), 0), ((50, 1), 89.617), ((49, 0), 180), ((50, -1), 270.383), ((90, 55), 0)]
)
def test_bearing(to, expected):
    found = bearing(50, 0, *to)
    assert 0 <= found < 360
    assert found == pytest.approx(expected, abs=1e-3)


def test_bearing_over_the_date_line():
    assert bearing(0, 179.9, 0, -179.9) == pytest.approx(90)
    assert bearing(0, -179.9, 0, 179.9) == pytest.approx(270)
    assert bearing(0, 359.9, 0, 0.1) == pytest.approx(90)


@pytest.mark.parametrize("function", [great_circle_distance, bearing])
@pytest.mark.parametrize(
    ("position", "value", "parts"),
    [
        (0, 90.5, ["lat1", "-90", "90", "90.5"]),
        (1, 361, ["lon1", "-180", "360", "361"]),
        (2, -91, ["lat2", "-91"]),
        (3, -181, ["lon2", "-181"]),
        (0, float("nan"), ["lat1", "nan"]),
        (3, float("inf"), ["lon2", "inf"]),
        (2, "north", ["lat2", "north"]),
    ],
)
def test_impossible_coordinates(function, position, value, parts):
    arguments = [0.0, 0.0, 0.0, 0.0]
    arguments[position] = value
    with pytest.raises(ValueError) as error:
        function(*arguments)
    assert all(part in str(error.value) for part in parts)


# ---------------------------------------------------------------------------- builders


@each_builder
@given(seed=st.integers(0, 10**6), nodes=st.integers(3, 25))
def test_builders_are_well_formed(build, seed, nodes):
    assert_well_formed(build(*scattered(seed, nodes)), nodes)


@each_builder
@given(seed=st.integers(0, 10**6), nodes=st.integers(4, 20))
def test_builders_do_not_depend_on_the_order_of_the_stations(build, seed, nodes):
    lat, lon = scattered(seed, nodes)
    order = np.random.default_rng(seed).permutation(nodes)
    a, b = adjacency(build(lat, lon)).toarray(), adjacency(build(lat[order], lon[order])).toarray()
    np.testing.assert_allclose(a[np.ix_(order, order)], b, rtol=1e-5)


@each_builder
def test_longitudes_from_0_to_360_or_from_minus_180(build):
    lat, lon = scattered(1, 15)
    assert edges(build(lat, lon)) == edges(build(lat, lon % 360))


@each_builder
def test_stations_on_both_sides_of_the_date_line(build):
    """Shifted by 180 degrees the same stations have the same neighbours."""
    lat, lon = scattered(2, 15)
    shifted = (lon + 3 + 180 + 180) % 360 - 180  # 0 degrees becomes the date line, stations on both sides
    assert shifted.min() < -170 and shifted.max() > 170
    assert edges(build(lat, shifted)) == edges(build(lat, lon))


@each_builder
@pytest.mark.parametrize(
    ("lat", "lon", "parts"),
    [
        ([], [], ["lat, lon", "at least one station", "none"]),
        ([50, np.nan], [0, 1], ["lat", "nan"]),
        ([50, 51], [0, np.inf], ["lon", "inf"]),
        ([50, 95], [0, 1], ["lat", "95"]),
        ([50, 51], [0, 1, 2], ["(2,)", "(3,)", "1-D"]),
        ([[50, 51]], [[0, 1]], ["(1, 2)", "1-D"]),
        (50, 0, ["()", "1-D"]),
        (["a", "b"], [0, 1], ["lat", "numbers"]),
        (None, [0, 1], ["lat"]),
    ],
)
def test_builders_refuse_bad_stations(build, lat, lon, parts):
    with pytest.raises(ValueError) as error:
        build(lat, lon)
    assert all(part in str(error.value) for part in parts), str(error.value)


@each_builder
def test_one_station(build):
    graph = build([53.0], [-8.0])
    assert_well_formed(graph, 1)
    assert edges(graph) == set()
    assert gcn_operator(graph).tolist() == [[1.0]]


@each_builder
def test_two_stations(build):
    graph = build([53.0, 54.0], [-8.0, -7.0])
    assert_well_formed(graph, 2)
    assert edges(graph) == {(0, 1), (1, 0)}


@pytest.mark.parametrize("build", [BUILDERS["knn"], BUILDERS["radius"]])
@pytest.mark.parametrize("weight", ["gaussian", "inverse"])
def test_stations_at_one_place(build, weight):
    """Two instruments on one mast, and five: no self-loop, no infinite weight, no lost station."""
    lat, lon = np.array([53.0] * 5 + [54, 55]), np.array([-8.0] * 5 + [-7, -6])
    graph = knn_graph(lat, lon, 3, weight) if build is BUILDERS["knn"] else radius_graph(lat, lon, 200, weight)
    assert_well_formed(graph, 7)
    assert torch.isfinite(graph.edge_weight).all() and (graph.edge_weight <= 1).all()
    assert set(graph.edge_index[1].tolist()) == set(range(7))


def test_delaunay_keeps_a_station_that_shares_its_place_with_another():
    graph = delaunay_graph([50, 51, 52, 50, 51], [0, 1, 0, 0, 3])  # 0 and 3 are one place
    assert_well_formed(graph, 5)
    assert set(graph.edge_index[1].tolist()) == set(range(5)), "the second instrument at a place has no edge"


@given(seed=st.integers(0, 10**6), nodes=st.integers(2, 15), k=st.integers(1, 20))
def test_knn_takes_the_nearest(seed, nodes, k):
    lat, lon = scattered(seed, nodes)
    d = great_circle_distance(lat[:, None], lon[:, None], lat, lon)
    np.fill_diagonal(d, np.inf)
    capped = min(k, nodes - 1)
    expected = {(int(j), i) for i in range(nodes) for j in np.argsort(d[i])[:capped]}
    graph = knn_graph(lat, lon, k, symmetric=False)
    assert edges(graph) == expected
    assert np.bincount(graph.edge_index[1], minlength=nodes).tolist() == [capped] * nodes
    assert edges(knn_graph(lat, lon, k)) == expected | {(i, j) for j, i in expected}


def test_knn_neighbours_over_the_pole():
    """On a plain map of degrees the station across the pole is the farthest; on the Earth it is the nearest."""
    graph = knn_graph([89, 89, 80], [0, 180, 0], k=1, symmetric=False)
    assert edges(graph) == {(1, 0), (0, 1), (0, 2)}


@given(seed=st.integers(0, 10**6), nodes=st.integers(2, 20), radius=st.floats(1, 1500))
def test_radius_is_exact(seed, nodes, radius):
    lat, lon = scattered(seed, nodes)
    assert edges(radius_graph(lat, lon, radius)) == pairs_within(lat, lon, radius)


@given(lat=latitude, lon=longitude, scale=st.floats(1e-4, 10), seed=st.integers(0, 10**6))
def test_radius_includes_its_boundary(lat, lon, scale, seed):
    """At most radius_km apart: a radius read off the distance of two stations connects them."""
    other = np.array([lat, lon]) + scale * np.random.default_rng(seed).standard_normal(2)
    lats = np.array([lat, np.clip(other[0], -90, 90)])
    lons = np.array([lon, np.clip(other[1], -180, 180)])
    distance = float(great_circle_distance(lats[0], lons[0], lats[1], lons[1]))
    if distance > 0:
        assert edges(radius_graph(lats, lons, distance)) == {(0, 1), (1, 0)}
        assert edges(radius_graph(lats, lons, distance * (1 - 1e-6))) == set()


def test_radius_leaves_a_lonely_station_in_the_graph():
    graph = radius_graph([50, 50.5, 60], [0, 0, 0], 100)
    assert_well_formed(graph, 3)
    assert edges(graph) == {(0, 1), (1, 0)}


def test_radius_larger_than_the_earth_connects_all():
    lat, lon = np.array([90.0, -90, 0, 0]), np.array([0.0, 0, 0, 180])
    assert len(edges(radius_graph(lat, lon, 1e9))) == 4 * 3


def test_delaunay_of_a_square_with_a_centre():
    graph = delaunay_graph([0, 0, 1, 1, 0.5], [0, 1, 1, 0, 0.5])
    sides = {(0, 1), (1, 2), (2, 3), (0, 3)} | {(i, 4) for i in range(4)}
    assert edges(graph) == sides | {(j, i) for i, j in sides}


def test_delaunay_of_a_hexagon_with_a_centre():
    angle = np.radians(np.arange(0, 360, 60))
    lat, lon = np.append(np.sin(angle), 0), np.append(np.cos(angle), 0)  # degrees around (0, 0)
    sides = {tuple(sorted((i, (i + 1) % 6))) for i in range(6)} | {(i, 6) for i in range(6)}
    assert edges(delaunay_graph(lat, lon)) == sides | {(j, i) for i, j in sides}


def test_delaunay_drops_long_sides():
    lat, lon = scattered(0, 15)
    whole, short = delaunay_graph(lat, lon), delaunay_graph(lat, lon, max_km=250)
    assert edges(short) == set(map(tuple, whole.edge_index.T[whole.edge_distance <= 250].tolist()))
    assert 0 < len(edges(short)) < len(edges(whole))


@pytest.mark.parametrize("stations", [1, 2, 3])
def test_delaunay_drops_long_sides_of_few_stations(stations):
    lat, lon = [50, 60, 55][:stations], [0, 0, 8][:stations]
    assert edges(delaunay_graph(lat, lon, max_km=10)) == set()


@pytest.mark.parametrize("line", [(np.linspace(50, 55, 6), np.full(6, -8.0)), (np.zeros(6), np.linspace(0, 9, 6))])
def test_delaunay_refuses_a_line(line):
    with pytest.raises(ValueError, match="one line"):
        delaunay_graph(*line)


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize(("rows", "columns"), [(4, 5), (1, 6), (6, 1), (2, 2)])
def test_grid_neighbours(neighbours, rows, columns):
    lat, lon = 40 + 2.5 * np.arange(rows), 10 + 2.5 * np.arange(columns)
    graph = grid_graph(lat, lon, neighbours)
    assert_well_formed(graph, rows * columns)
    expected = set()
    for r, c in np.ndindex(rows, columns):
        for dr, dc in [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)][:neighbours]:
            if 0 <= r + dr < rows and 0 <= c + dc < columns:
                expected.add((r * columns + c, (r + dr) * columns + c + dc))
    assert edges(graph) == expected


def test_grid_nodes_lie_latitude_by_latitude_longitude_fastest():
    graph = grid_graph([40, 50], [0, 10, 20])
    assert graph.pos.tolist() == [[0, 40], [10, 40], [20, 40], [0, 50], [10, 50], [20, 50]]


def test_grid_with_falling_latitudes_has_the_same_neighbours():
    up, down = grid_graph([40, 50, 60], [0, 10]), grid_graph([60, 50, 40], [0, 10])
    assert edges(up) == edges(down)
    assert down.pos[0].tolist() == [0, 60]


@pytest.mark.parametrize("lon", [np.arange(0, 360, 30), np.arange(-180, 180, 30), np.arange(180, -180, -30)])
@pytest.mark.parametrize(("neighbours", "inner"), [(4, 4), (8, 8)])
def test_grid_round_the_globe_is_closed_in_longitude(lon, neighbours, inner):
    graph = grid_graph([-20, 0, 20], lon, neighbours)
    assert_well_formed(graph, 36)
    degree = np.bincount(graph.edge_index[1], minlength=36).reshape(3, 12)
    assert (degree[1] == inner).all(), "a cell at the seam lacks a neighbour"
    assert (12, 23) in edges(graph) and (23, 12) in edges(graph)
    assert graph.edge_distance.max() < 5000, "an edge goes the long way round"


def test_regional_grid_is_not_closed():
    assert (0, 10) not in edges(grid_graph([0, 20], np.arange(0, 330, 30)))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (([1, 3, 2], [0, 1]), ["lat", "only rises or only falls"]),
        (([1, 2], [0, 0]), ["lon", "only rises or only falls"]),
        (([[1, 2]], [0, 1]), ["lat", "1-D", "(1, 2)"]),
        (([1, 2], []), ["lon", "(0,)"]),
        (([1, 2], [0, 1], 6), ["neighbours", "4 or 8", "6"]),
        (([1, 2], [0, 1], 8.0), ["neighbours", "8.0"]),
        (([1, 100], [0, 1]), ["lat", "100"]),
        (([1, np.nan], [0, 1]), ["lat"]),
        ((["a", "b"], [0, 1]), ["lat", "number"]),
    ],
)
def test_grid_refuses_bad_axes(arguments, parts):
    with pytest.raises(ValueError) as error:
        grid_graph(*arguments)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_weights_follow_their_formulas():
    lat, lon = scattered(3, 10)
    d = knn_graph(lat, lon, 3).edge_distance.double()
    weight = {w: knn_graph(lat, lon, 3, w).edge_weight.double() for w in graphs.WEIGHTS}
    torch.testing.assert_close(weight["gaussian"], torch.exp(-(d**2) / (2 * d.mean() ** 2)), rtol=1e-5, atol=0)
    torch.testing.assert_close(weight["inverse"], 1 / d, rtol=1e-5, atol=0)
    assert (weight["binary"] == 1).all()
    scaled = knn_graph(lat, lon, 3, length_scale=100.0).edge_weight.double()
    torch.testing.assert_close(scaled, torch.exp(-(d**2) / 20000), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda lat, lon: knn_graph(lat, lon, k=0), ["k", "at least 1", "0"]),
        (lambda lat, lon: knn_graph(lat, lon, k=-3), ["k", "-3"]),
        (lambda lat, lon: knn_graph(lat, lon, k=2.5), ["k", "whole number", "2.5"]),
        (lambda lat, lon: knn_graph(lat, lon, k=True), ["k", "True"]),
        (lambda lat, lon: knn_graph(lat, lon, k="3"), ["k", "'3'"]),
        (lambda lat, lon: knn_graph(lat, lon, weight="cubic"), ["weight", "gaussian", "cubic"]),
        (lambda lat, lon: knn_graph(lat, lon, weight=None), ["weight", "gaussian", "None"]),
        (lambda lat, lon: knn_graph(lat, lon, weight=np.ones(50)), ["weight", "gaussian", "array"]),
        (lambda lat, lon: knn_graph(lat, lon, length_scale=0), ["length_scale", "above 0", "0"]),
        (lambda lat, lon: knn_graph(lat, lon, length_scale=float("nan")), ["length_scale", "nan"]),
        (lambda lat, lon: knn_graph(lat, lon, length_scale="far"), ["length_scale", "far"]),
        (lambda lat, lon: radius_graph(lat, lon, 0), ["radius_km", "above 0", "0"]),
        (lambda lat, lon: radius_graph(lat, lon, -1.0), ["radius_km", "-1"]),
        (lambda lat, lon: radius_graph(lat, lon, float("nan")), ["radius_km", "nan"]),
        (lambda lat, lon: radius_graph(lat, lon, "far"), ["radius_km", "far"]),
        (lambda lat, lon: delaunay_graph(lat, lon, max_km=-1), ["max_km", "-1"]),
        (lambda lat, lon: delaunay_graph(lat, lon, weight="cubic"), ["weight", "cubic"]),
    ],
)
def test_builders_refuse_bad_settings(places, call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call(*places)
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- correlation graph


def correlated(values: np.ndarray) -> xr.DataArray:
    stations = values.shape[1]
    return xr.DataArray(
        values,
        dims=("time", "station"),
        coords={"lat": ("station", 50.0 + np.arange(stations)), "lon": ("station", np.zeros(stations))},
    )


def planted(rng, steps=400):
    """Stations 0 and 1 go together, 2 and 3 go together, 4 goes against 0."""
    a, b, noise = rng.standard_normal(steps), rng.standard_normal(steps), 0.3 * rng.standard_normal((steps, 5))
    return np.stack([a, a, b, b, -a], axis=1) + noise + [5, -3, 100, 0, 2]


def test_correlation_graph_finds_the_planted_pairs(rng):
    values = planted(rng)
    graph = correlation_graph(correlated(values), k=1)
    assert_well_formed(graph, 5)
    assert edges(graph) >= {(0, 1), (1, 0), (2, 3), (3, 2)}
    expected = np.corrcoef(values.T)
    source, target = graph.edge_index
    np.testing.assert_allclose(graph.edge_weight, expected[target, source], rtol=1e-5)


def test_correlation_graph_never_connects_what_goes_against_each_other(rng):
    graph = correlation_graph(correlated(planted(rng)), k=4)
    assert not edges(graph) & {(0, 4), (4, 0), (1, 4), (4, 1)}
    assert (graph.edge_weight > 0).all()


def test_correlation_graph_passes_over_missing_values(rng):
    values = planted(rng)
    values[rng.random(values.shape) < 0.3] = np.nan
    graph = correlation_graph(correlated(values), k=1)
    for (j, i), weight in zip(graph.edge_index.T.tolist(), graph.edge_weight.tolist(), strict=True):
        both = np.isfinite(values[:, i]) & np.isfinite(values[:, j])
        assert weight == pytest.approx(np.corrcoef(values[both, i], values[both, j])[0, 1], abs=1e-6)
    assert edges(graph) >= {(0, 1), (1, 0), (2, 3), (3, 2)}


@pytest.mark.parametrize("constant", [np.nan, 0.0, 0.1, -273.15])
def test_correlation_graph_isolates_a_station_without_signal(rng, constant):
    values = planted(rng)
    values[:, 1] = constant
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = correlation_graph(correlated(values), k=4)
    assert_well_formed(graph, 5)
    assert 1 not in graph.edge_index.unique()


def test_correlation_graph_of_stations_that_never_report_together(rng):
    values = planted(rng)[:, :2]
    values[::2, 0] = values[1::2, 1] = np.nan
    assert edges(correlation_graph(correlated(values), k=1)) == set()


def test_correlation_graph_is_free_of_offset_and_scale(rng):
    values = planted(rng)
    a = adjacency(correlation_graph(correlated(values), 2)).toarray()
    b = adjacency(correlation_graph(correlated(1e5 + 1e-2 * values), 2)).toarray()
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_correlation_graph_does_not_depend_on_the_order_of_axes_or_stations(rng):
    series = correlated(planted(rng))
    a = adjacency(correlation_graph(series, 2)).toarray()
    np.testing.assert_allclose(adjacency(correlation_graph(series.transpose(), 2)).toarray(), a)
    order = [3, 0, 4, 2, 1]
    b = adjacency(correlation_graph(series.isel(station=order), 2)).toarray()
    np.testing.assert_allclose(a[np.ix_(order, order)], b, rtol=1e-6)


def test_correlation_graph_caps_k_and_takes_one_station(rng):
    assert correlation_graph(correlated(planted(rng)), 99).num_nodes == 5
    one = correlation_graph(correlated(planted(rng)[:, :1]), 3)
    assert one.num_nodes == 1 and edges(one) == set()


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        (lambda s: s.values, TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: s.drop_vars("lat"), ValueError, ["series", "lat"]),
        (lambda s: s.rename(station="node"), ValueError, ["series", "station", "node"]),
        (lambda s: s.isel(time=0), ValueError, ["series", "time"]),
        (lambda s: s.assign_coords(lat=s.lat + 50), ValueError, ["lat", "100"]),
        (lambda s: s.copy(data=np.full(s.shape, "calm")), (TypeError, ValueError), ["series"]),
    ],
)
def test_correlation_graph_refuses_other_things(rng, change, error, parts):
    with pytest.raises(error) as raised:
        correlation_graph(change(correlated(planted(rng))), 2)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- operators


def loop_adjacency(graph: Data) -> np.ndarray:
    a = np.zeros((graph.num_nodes, graph.num_nodes))
    for (j, i), w in zip(graph.edge_index.T.tolist(), graph.edge_weight.tolist(), strict=True):
        a[i, j] += w
    return a


def loop_gcn(graph: Data) -> np.ndarray:
    a = loop_adjacency(graph)
    n = len(a)
    for i in range(n):
        a[i, i] += 1.0
    degree = [sum(a[i, j] for j in range(n)) for i in range(n)]
    return np.array([[a[i, j] / np.sqrt(degree[i] * degree[j]) for j in range(n)] for i in range(n)])


def dense(operator: torch.Tensor) -> np.ndarray:
    return (operator.to_dense() if operator.layout != torch.strided else operator).numpy()


def test_adjacency_reads_row_target_column_source(directed):
    a = adjacency(directed).toarray()
    assert a[1, 0] == 0.5 and a[0, 1] == 0  # edge 0 -> 1 lets node 0 influence node 1
    np.testing.assert_allclose(a, loop_adjacency(directed))
    assert a.shape == (7, 7) and a[6].sum() == a[:, 6].sum() == 0


def test_adjacency_without_weights_is_binary_and_adds_up_repeated_edges():
    graph = Data(edge_index=torch.tensor([[0, 0, 1], [1, 1, 0]]), num_nodes=3)
    assert adjacency(graph).toarray().tolist() == [[0, 1, 0], [2, 0, 0], [0, 0, 0]]


def test_gcn_operator_equals_the_formula(graph, directed):
    for g in (graph, directed):
        np.testing.assert_allclose(gcn_operator(g), loop_gcn(g), atol=1e-6)


def test_gcn_operator_equals_gcn_norm_of_pyg(graph, directed):
    """Also for a directed graph with weights and an isolated node."""
    for g in (graph, directed):
        index, weight = gcn_norm(g.edge_index, g.edge_weight, g.num_nodes)
        expected = to_dense_adj(index, edge_attr=weight, max_num_nodes=g.num_nodes)[0].T  # PyG writes [source, target]
        torch.testing.assert_close(gcn_operator(g), expected, atol=1e-5, rtol=0)


def test_gcn_operator_leaves_an_isolated_station_alone(directed):
    row = gcn_operator(directed)[6]
    assert row.tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_gcn_operator_spectrum(graph):
    eigenvalues = np.linalg.eigvalsh(gcn_operator(graph).double())
    assert eigenvalues.min() > -1 and eigenvalues.max() == pytest.approx(1.0, abs=1e-6)


def test_scaled_laplacian_equals_the_formula(graph):
    a = loop_adjacency(graph)
    degree = a.sum(1)
    n = len(a)
    laplacian = np.array([[(i == j) - a[i, j] / np.sqrt(degree[i] * degree[j]) for j in range(n)] for i in range(n)])
    largest = np.linalg.eigvals(laplacian).real.max()
    np.testing.assert_allclose(scaled_laplacian(graph), 2 / largest * laplacian - np.eye(n), atol=1e-5)
    np.testing.assert_allclose(scaled_laplacian(graph, lambda_max=2.0), laplacian - np.eye(n), atol=1e-6)


def test_scaled_laplacian_equals_get_laplacian_of_pyg(graph):
    """With an isolated node too: it has no degree to divide by."""
    graph = Data(edge_index=graph.edge_index, edge_weight=graph.edge_weight, num_nodes=graph.num_nodes + 1)
    index, weight = get_laplacian(graph.edge_index, graph.edge_weight, "sym", num_nodes=graph.num_nodes)
    expected = to_dense_adj(index, edge_attr=weight, max_num_nodes=graph.num_nodes)[0]
    found = scaled_laplacian(graph, lambda_max=2.0) + torch.eye(graph.num_nodes)  # L = L~ + I for lambda_max 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@given(seed=st.integers(0, 10**6), nodes=st.integers(2, 20))
def test_scaled_laplacian_fills_minus_one_to_one(seed, nodes):
    """Computed, lambda_max puts the largest eigenvalue at exactly 1; 2 would leave the interval half empty."""
    graph = knn_graph(*scattered(seed, nodes), k=3)
    eigenvalues = np.linalg.eigvalsh(scaled_laplacian(graph).double())
    assert eigenvalues.min() == pytest.approx(-1, abs=1e-5) and eigenvalues.max() == pytest.approx(1, abs=1e-5)


def test_lambda_max_is_computed_and_not_assumed_to_be_2(graph):
    assert not np.allclose(scaled_laplacian(graph), scaled_laplacian(graph, lambda_max=2.0), atol=0.05)


def test_scaled_laplacian_of_a_large_graph_uses_the_true_largest_eigenvalue():
    graph = knn_graph(*scattered(0, 350), k=4)
    large = scaled_laplacian(graph)
    assert large.layout == torch.sparse_csr
    eigenvalues = np.linalg.eigvalsh(dense(large).astype(float))
    assert eigenvalues.min() >= -1 - 1e-5 and eigenvalues.max() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(dense(large), dense(scaled_laplacian(graph)))  # the same again


def test_scaled_laplacian_of_a_directed_graph_needs_lambda_max(directed):
    with pytest.raises(ValueError) as error:
        scaled_laplacian(directed)
    assert all(part in str(error.value) for part in ["graph", "undirected", "directed", "lambda_max"])
    assert scaled_laplacian(directed, lambda_max=2.0).shape == (7, 7)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "two"])
def test_scaled_laplacian_refuses_a_bad_lambda_max(graph, value):
    with pytest.raises((TypeError, ValueError), match="lambda_max.*above 0.*" + str(value)):
        scaled_laplacian(graph, lambda_max=value)


@pytest.mark.parametrize("make", [gcn_operator, scaled_laplacian, directional_operators])
def test_sparse_operators_equal_dense_ones(graph, make):
    thin, full = make(graph, sparse=True), make(graph, sparse=False)
    for s, d in zip(*([o] if torch.is_tensor(o) else o for o in (thin, full)), strict=True):
        assert s.layout == torch.sparse_csr and d.layout == torch.strided
        assert s.dtype == d.dtype == torch.float32
        np.testing.assert_array_equal(dense(s), d)


def test_operators_turn_sparse_above_300_nodes():
    small, large = (radius_graph(*scattered(0, n), 60) for n in (300, 301))
    assert gcn_operator(small).layout == torch.strided and gcn_operator(large).layout == torch.sparse_csr
    assert to_operator(adjacency(small), sparse=True).layout == torch.sparse_csr


@pytest.mark.parametrize("make", [gcn_operator, scaled_laplacian, directional_operators])
def test_operators_follow_a_permutation_of_the_stations(places, make):
    lat, lon = places
    order = np.random.default_rng(5).permutation(len(lat))
    a, b = make(knn_graph(lat, lon, 3)), make(knn_graph(lat[order], lon[order], 3))
    for left, right in zip(*([o] if torch.is_tensor(o) else o for o in (a, b)), strict=True):
        np.testing.assert_allclose(left.numpy()[np.ix_(order, order)], right, atol=1e-5)


@pytest.mark.parametrize("make", [adjacency, gcn_operator, scaled_laplacian, directional_operators])
@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        ("graph", ["graph", "Data", "str"]),
        (Data(num_nodes=3), ["graph", "edge_index", "None"]),
        (Data(edge_index=torch.zeros(3, 2, dtype=torch.long), num_nodes=3), ["edge_index", "(2, edges)", "(3, 2)"]),
        (Data(edge_index=torch.tensor([[0], [3]]), num_nodes=3), ["edge_index", "0 to 2", "3"]),
        (Data(edge_index=torch.tensor([[-1], [1]]), num_nodes=3), ["edge_index", "0 to 2", "-1"]),
        (Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=0), ["num_nodes", "at least 1"]),
        (Data(edge_index=torch.tensor([[0], [1]]), edge_weight=torch.ones(2), num_nodes=3), ["edge_weight", "(2,)"]),
        (Data(edge_index=torch.tensor([[0], [1]]), edge_weight=-torch.ones(1), num_nodes=3), ["weights", "negative"]),
        (Data(edge_index=torch.tensor([[0], [1]]), edge_weight=torch.tensor([np.nan]), num_nodes=3), ["finite"]),
        (Data(edge_index=[[0], [1]], num_nodes=3), ["edge_index", "list"]),
        (Data(edge_index=torch.tensor([[0.5], [1.0]]), num_nodes=3), ["edge_index", "float"]),
    ],
)
def test_operators_refuse_malformed_graphs(make, bad, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        make(bad)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_node_count_is_never_read_off_the_edges():
    """Without num_nodes an isolated last station would vanish: that must not happen in silence."""
    graph = Data(edge_index=torch.tensor([[0, 1], [1, 0]]))
    with pytest.raises(ValueError, match="num_nodes"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adjacency(graph)


# ---------------------------------------------------------------------------- directional operators


@pytest.fixture
def compass() -> Data:
    """Station 0 in the middle; 1 north, 2 east, 3 south, 4 west of it."""
    return radius_graph([50, 51, 50, 49, 50], [0, 0, 1, 0, -1], 120, weight="binary")


def test_sectors_go_clockwise_from_north(compass):
    operators = directional_operators(compass, sectors=4)
    for sector, neighbour in enumerate([1, 2, 3, 4]):
        assert operators[sector][0].tolist() == [float(j == neighbour) for j in range(5)]
        back = operators[(sector + 2) % 4]  # what lies north of me sees me in its south
        assert back[neighbour, 0] == 1


def test_eight_sectors(compass):
    operators = directional_operators(compass, sectors=8)
    for sector in range(8):
        expected = [0.0] * 5
        if sector % 2 == 0:
            expected[1 + sector // 2] = 1.0
        assert operators[sector][0].tolist() == expected


def test_a_neighbour_just_west_of_north_is_in_the_north():
    graph = knn_graph([50, 51], [0, -0.1], 1)
    assert directional_operators(graph, 4)[0][0, 1] == 1


@given(seed=st.integers(0, 10**6), nodes=st.integers(2, 15), sectors=st.integers(1, 9))
def test_directional_operators_partition_the_neighbours_and_average(seed, nodes, sectors):
    graph = knn_graph(*scattered(seed, nodes), k=4)
    operators = np.stack([o.numpy() for o in directional_operators(graph, sectors)])
    support = (operators > 0).sum(axis=0)
    np.testing.assert_array_equal(support, adjacency(graph).toarray() > 0)  # each neighbour in exactly one sector
    rows = operators.sum(axis=2)
    assert (np.isclose(rows, 1, atol=1e-6) | (rows == 0)).all()
    np.testing.assert_array_equal(rows > 0.5, (operators > 0).any(axis=2))


def test_directional_operators_equal_the_loop_formula(graph, directed):
    for g in (graph, directed):
        a = adjacency(g).toarray()
        lon, lat = g.pos.numpy().astype(float).T
        n, sectors = len(a), 4
        expected = np.zeros((sectors, n, n))
        for i in range(n):
            for j in np.flatnonzero(a[i]):
                theta = float(bearing(lat[i], lon[i], lat[j], lon[j]))
                s = 0 if theta >= 315 or theta < 45 else 1 if theta < 135 else 2 if theta < 225 else 3
                expected[s, i, j] = a[i, j]
            for s in range(sectors):
                if expected[s, i].sum() > 0:
                    expected[s, i] /= expected[s, i].sum()
        np.testing.assert_allclose(np.stack(directional_operators(g, sectors)), expected, atol=1e-6)


def test_one_sector_is_the_mean_of_all_neighbours(graph):
    a = adjacency(graph).toarray()
    np.testing.assert_allclose(directional_operators(graph, 1)[0], a / a.sum(1, keepdims=True), atol=1e-6)


def test_a_constant_field_stays_constant_under_averaging_but_not_under_gcn(graph):
    """The mean of equal values is that value; the symmetric normalisation does not take a mean."""
    ones = torch.ones(graph.num_nodes, 1)
    torch.testing.assert_close(directional_operators(graph, 1)[0] @ ones, ones)
    assert (gcn_operator(graph) @ ones - 1).abs().max() > 0.05
    ring = grid_graph([0], np.arange(0, 360, 30), 4)  # here all stations have one degree
    torch.testing.assert_close(gcn_operator(ring) @ torch.ones(12, 1), torch.ones(12, 1))


@pytest.mark.parametrize("sectors", [0, -1, 2.5, True, "four"])
def test_directional_operators_refuse_bad_sectors(graph, sectors):
    with pytest.raises(ValueError, match="sectors.*at least 1.*" + str(sectors)):
        directional_operators(graph, sectors)


@pytest.mark.parametrize("pos", [None, torch.zeros(12, 3), torch.zeros(5, 2)])
def test_directional_operators_need_positions(graph, pos):
    graph.pos = pos
    with pytest.raises(ValueError, match="graph: expected pos of shape"):
        directional_operators(graph)


def test_directional_operators_name_the_graph_when_positions_are_impossible(graph):
    graph.pos[3, 1] = float("nan")
    with pytest.raises(ValueError, match="pos"):
        directional_operators(graph)


@pytest.mark.parametrize("function", [great_circle_distance, bearing])
def test_points_of_shapes_that_do_not_fit(function):
    with pytest.raises(ValueError) as error:
        function([50, 51], [0, 1], [52, 53, 54], [2, 3, 4])
    assert all(part in str(error.value) for part in ("lat1, lon1, lat2, lon2", "(2,)", "(3,)"))


@pytest.mark.parametrize("kind", [list, np.float32, torch.tensor, lambda a: xr.DataArray(a, dims="station")])
def test_coordinates_of_any_kind(places, kind):
    lat, lon = (kind(axis) for axis in places)
    graph = knn_graph(lat, lon, k=np.int64(3))
    assert torch.equal(graph.edge_index, knn_graph(*places, k=3).edge_index)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"edge_weight": [1.0, 1.0]}, ["edge_weight", "tensor", "list"]),
        ({"edge_index": torch.tensor([[True, False], [False, True]])}, ["edge_index", "whole numbers", "bool"]),
        ({"pos": np.zeros((2, 2))}, ["pos", "tensor", "ndarray"]),
    ],
)
def test_operators_refuse_other_kinds_of_array(change, parts):
    index = torch.tensor([[0, 1], [1, 0]])
    graph = Data(**({"edge_index": index, "pos": torch.zeros(2, 2), "num_nodes": 2} | change))
    with pytest.raises((TypeError, ValueError)) as error:
        directional_operators(graph)
    assert all(part in str(error.value) for part in ["graph", *parts]), str(error.value)


# ---------------------------------------------------------------------------- several kinds of nodes


@pytest.fixture
def kinds() -> dict:
    return {"station": scattered(0, 12), "grid": scattered(1, 20), "ocean": None}


def test_hetero_graph_has_its_relations_and_nodes(kinds):
    graph = hetero_graph(kinds, k=3)
    near = {("station", "near", "station"), ("grid", "near", "grid")}
    assert set(graph.edge_types) == near | {("grid", "to", "station"), ("ocean", "to", "station")}
    assert [graph[kind].num_nodes for kind in kinds] == [12, 20, 1]
    assert "pos" not in graph["ocean"]
    for kind in ("station", "grid"):
        lat, lon = kinds[kind]
        np.testing.assert_allclose(graph[kind].pos, np.stack([lon, lat], axis=1), rtol=1e-6)
        alone = knn_graph(lat, lon, k=3)
        for part in ("edge_index", "edge_weight", "edge_distance"):
            assert torch.equal(graph[kind, "near", kind][part], alone[part])
    graph.validate()


def test_hetero_graph_takes_the_nearest_of_another_kind(kinds):
    graph = hetero_graph(kinds, k=3)
    edge = graph["grid", "to", "station"]
    (lat, lon), (grid_lat, grid_lon) = kinds["station"], kinds["grid"]
    d = great_circle_distance(lat[:, None], lon[:, None], grid_lat, grid_lon)  # (station, grid)
    expected = {(j, i) for i in range(12) for j in np.argsort(d[i])[:3]}
    assert edges(edge) == expected and edge.edge_index.shape[1] == 36
    source, target = edge.edge_index.numpy()
    assert (np.lexsort((source, target)) == np.arange(36)).all()
    np.testing.assert_allclose(edge.edge_distance, d[target, source], rtol=1e-5)
    scale = d[target, source].mean()
    np.testing.assert_allclose(edge.edge_weight, np.exp(-0.5 * (d[target, source] / scale) ** 2), rtol=1e-5)
    ocean = graph["ocean", "to", "station"]
    assert edges(ocean) == {(0, i) for i in range(12)}
    assert (ocean.edge_weight == 1).all() and ocean.edge_distance.isnan().all()


def test_hetero_graph_caps_k_and_takes_a_length_scale(kinds):
    graph = hetero_graph({"station": kinds["station"], "grid": scattered(2, 2)}, k=5, length_scale=80.0)
    edge = graph["grid", "to", "station"]
    assert edge.edge_index.shape[1] == 24
    for relation in graph.edge_types:
        part = graph[relation]
        expected = np.exp(-0.5 * (part.edge_distance.numpy().astype(float) / 80) ** 2)
        np.testing.assert_allclose(part.edge_weight, expected, rtol=1e-4, atol=1e-12)
    alone = hetero_graph({"station": ([50.0], [4.0]), "ocean": None})
    assert alone["station", "near", "station"].edge_index.shape == (2, 0)


@pytest.mark.parametrize("sparse", [False, True])
def test_hetero_operators_are_the_dense_formula(kinds, sparse):
    graph = hetero_graph(kinds, k=3)
    operators = hetero_operators(graph, sparse=sparse)
    assert set(operators) == set(graph.edge_types)
    for relation, operator in operators.items():
        part = graph[relation]
        a = np.zeros((graph[relation[2]].num_nodes, graph[relation[0]].num_nodes))
        for (j, i), weight in zip(part.edge_index.T.tolist(), part.edge_weight.tolist(), strict=True):
            a[i, j] = weight
        assert operator.dtype == torch.float32 and (operator.layout == torch.sparse_csr) == sparse
        dense = operator.to_dense() if sparse else operator
        np.testing.assert_allclose(dense, a / a.sum(axis=1, keepdims=True), atol=1e-6)


def test_hetero_operators_of_other_graphs():
    """Without weights all count alike; a node that hears nobody has a row of zeros; many targets are sparse."""
    graph = HeteroData()
    graph["a"].num_nodes, graph["b"].num_nodes = 3, 2
    graph["b", "to", "a"].edge_index = torch.tensor([[0, 1, 1], [0, 0, 2]])
    (operator,) = hetero_operators(graph).values()
    assert operator.tolist() == [[0.5, 0.5], [0, 0], [0, 1]]
    graph["a"].num_nodes = 301
    (operator,) = hetero_operators(graph).values()
    assert operator.layout == torch.sparse_csr and tuple(operator.shape) == (301, 2)


@pytest.mark.parametrize(
    ("places", "k", "error", "parts"),
    [
        (None, 4, TypeError, ["places", "dict", "None"]),
        ({}, 4, TypeError, ["places", "dict"]),
        ({"ocean": None}, 4, ValueError, ["places", "target 'ocean'"]),
        ({"ocean": None, "station": ([50.0], [4.0])}, 4, ValueError, ["places", "target 'ocean'"]),
        ({"station": ([50.0], [4.0]), 3: None}, 4, TypeError, ["places", "name", "3"]),
        ({"station": [50.0]}, 4, TypeError, ["places['station']", "(lat, lon)", "list"]),
        ({"station": ([], [])}, 4, ValueError, ["places['station']", "at least one station"]),
        ({"station": ([50.0], [4.0]), "grid": ([95.0], [4.0])}, 4, ValueError, ["places['grid']", "95"]),
        ({"station": ([50.0, 51], [4.0])}, 4, ValueError, ["places['station']", "(2,)", "(1,)"]),
        ({"station": ([50.0], [4.0])}, 0, ValueError, ["k", "at least 1", "0"]),
    ],
)
def test_hetero_graph_refuses_what_it_cannot_use(places, k, error, parts):
    with pytest.raises(error) as raised:
        hetero_graph(places, k)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def _changed(graph: HeteroData, **attributes) -> HeteroData:
    for name, value in attributes.items():
        graph["grid", "to", "station"][name] = value
    return graph


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda g: Data(num_nodes=2), ["graph", "HeteroData", "Data"]),
        (lambda g: HeteroData(), ["graph", "at least one relation"]),
        (lambda g: g["ocean"].__setitem__("num_nodes", 0) or g, ["graph", "num_nodes", "'ocean'", "0"]),
        (lambda g: g["ocean", "to", "station"].edge_index.fill_(40) is None or g, ["graph", "edge_index", "ocean"]),
        (lambda g: g["grid", "to", "station"].edge_weight.fill_(-1) is None or g, ["graph", "not negative", "grid"]),
        (lambda g: _changed(g, edge_weight=torch.ones(3)), ["graph", "edge_weight", "48 edges", "(3,)"]),
        (lambda g: _changed(g, edge_index=torch.zeros(2, 12)), ["graph", "edge_index", "grid", "float32"]),
        (lambda g: _changed(g, edge_index=None), ["graph", "edge_index", "grid", "NoneType"]),
    ],
)
def test_hetero_operators_refuse_what_they_cannot_use(kinds, change, parts):
    with pytest.raises((TypeError, ValueError)) as raised:
        hetero_operators(change(hetero_graph(kinds)))
    assert all(part in str(raised.value) for part in parts), str(raised.value)
