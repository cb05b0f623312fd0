"""Graphs of weather stations: distances, graph builders and graph operators.

A graph is a :class:`torch_geometric.data.Data` with

* ``edge_index`` (2, edges): row 0 the source j, row 1 the target i, sorted by target, then source;
* ``edge_weight`` (edges,) float32 and ``edge_distance`` (edges,) float32 in km;
* ``pos`` (nodes, 2) float32: longitude and latitude in degrees;
* ``num_nodes``: always set, because isolated stations appear in no edge.

In matrix form ``A[i, j]`` is the weight with which station j influences station i, so that a graph
operator acts on a field ``x`` (nodes, features) as ``A @ x``.

Where nodes are of several kinds (stations, grid cells, an ocean), the graph is a
:class:`torch_geometric.data.HeteroData`, and the matrix of a relation is (targets, sources).
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import eigsh
from scipy.spatial import Delaunay, QhullError, cKDTree
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from ._checks import whole_number

EARTH_RADIUS_KM = 6371.0088  # mean radius of the WGS 84 ellipsoid (IUGG)
SPARSE_ABOVE = 300  # nodes; below it a dense product is as fast and easier to read
WEIGHTS = ("gaussian", "inverse", "binary")

Array = NDArray[np.float64]


# ---------------------------------------------------------------------------- distances


def great_circle_distance(lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike) -> Array:
    """Great-circle distance between points on the Earth.

    The haversine formula, accurate also for points close together:
    ``d = 2 R arcsin sqrt(sin²(Δφ/2) + cos φ1 cos φ2 sin²(Δλ/2))`` with R = 6371.0088 km.

    Args:
        lat1, lon1, lat2, lon2: degrees north and east; any shapes that broadcast together.

    Returns:
        Distance in km, of the broadcast shape.

    Raises:
        ValueError: for latitudes outside -90..90, longitudes outside -180..360, values not finite, or shapes
            that do not broadcast.

    Source: Sinnott (1984), Virtues of the haversine.
    """
    phi1, lam1, phi2, lam2 = _two_points(lat1, lon1, lat2, lon2)
    h = np.sin((phi2 - phi1) / 2) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin((lam2 - lam1) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0)))


def bearing(lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike) -> Array:
    """Compass bearing at which point 2 is seen from point 1.

    ``θ = atan2(sin Δλ cos φ2, cos φ1 sin φ2 - sin φ1 cos φ2 cos Δλ)``, the initial course of the great circle.

    Args:
        lat1, lon1, lat2, lon2: degrees north and east; any shapes that broadcast together.

    Returns:
        Degrees clockwise from north, 0 <= θ < 360, of the broadcast shape.

    Raises:
        ValueError: for impossible coordinates, as in :func:`great_circle_distance`.
    """
    phi1, lam1, phi2, lam2 = _two_points(lat1, lon1, lat2, lon2)
    east = np.sin(lam2 - lam1) * np.cos(phi2)
    north = np.cos(phi1) * np.sin(phi2) - np.sin(phi1) * np.cos(phi2) * np.cos(lam2 - lam1)
    return np.degrees(np.arctan2(east, north)) % 360.0


def _two_points(lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike) -> tuple[Array, ...]:
    """Checked coordinates in radians, of shapes that broadcast together."""
    radians = (*_radians(lat1, lon1, "lat1", "lon1"), *_radians(lat2, lon2, "lat2", "lon2"))
    shapes = [array.shape for array in radians]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ValueError(
            f"lat1, lon1, lat2, lon2: expected shapes that broadcast together, found {', '.join(map(str, shapes))}"
        ) from error
    return radians


def _radians(lat: ArrayLike, lon: ArrayLike, lat_name: str, lon_name: str) -> tuple[Array, Array]:
    degrees = []
    for values, name, low, high in ((lat, lat_name, -90, 90), (lon, lon_name, -180, 360)):
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected numbers in degrees, found {values!r}") from error
        bad = ~((array >= low) & (array <= high))
        if bad.any():
            raise ValueError(f"{name}: expected degrees from {low} to {high}, found {array[bad].flat[0]}")
        degrees.append(np.radians(array))
    return degrees[0], degrees[1]


def _stations(lat: ArrayLike, lon: ArrayLike) -> tuple[Array, Array]:
    """Checked 1-D station coordinates in degrees, the same number of each, at least one."""
    _radians(lat, lon, "lat", "lon")
    lat_array, lon_array = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    if lat_array.ndim != 1 or lat_array.shape != lon_array.shape:
        raise ValueError(
            "lat, lon: expected two 1-D arrays with one value for each station, "
            f"found shapes {lat_array.shape} and {lon_array.shape}"
        )
    if lat_array.size == 0:
        raise ValueError("lat, lon: expected at least one station, found none")
    return lat_array, lon_array


def _unit_vectors(lat: Array, lon: Array) -> Array:
    """Points on the unit sphere; the nearest in straight line are the nearest on the sphere too."""
    phi, lam = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


# ---------------------------------------------------------------------------- builders


def _build(
    lat: Array,
    lon: Array,
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    weight: str = "gaussian",
    length_scale: float | None = None,
    edge_weight: Array | None = None,
) -> Data:
    """A graph from edges j -> i, each edge once, ordered by target, then source.

    The weights are ``edge_weight`` if given, otherwise those of the kernel ``weight``.
    """
    order = np.lexsort((source, target))
    source, target = source[order], target[order]
    distance = great_circle_distance(lat[source], lon[source], lat[target], lon[target])
    edge_weight = _weight(distance, weight, length_scale) if edge_weight is None else edge_weight[order]
    return Data(
        edge_index=torch.from_numpy(np.stack([source, target]).astype(np.int64)),
        edge_weight=torch.from_numpy(edge_weight.astype(np.float32)),
        edge_distance=torch.from_numpy(distance.astype(np.float32)),
        pos=torch.from_numpy(np.stack([lon, lat], axis=1).astype(np.float32)),
        num_nodes=len(lat),
    )


def _weight(distance: Array, weight: Any, length_scale: float | None) -> Array:
    if not isinstance(weight, str) or weight not in WEIGHTS:
        raise ValueError(f"weight: expected one of {', '.join(WEIGHTS)}, found {weight!r}")
    if length_scale is not None:
        length_scale = _positive(length_scale, "length_scale", "a distance above 0 km")
    if weight == "binary":
        return np.ones_like(distance)
    if weight == "inverse":
        return 1.0 / np.maximum(distance, 1.0)  # two instruments at one place must not weigh infinitely
    if length_scale is None:
        length_scale = max(float(distance.mean()), 1.0) if distance.size else 1.0
    return np.exp(-0.5 * (distance / length_scale) ** 2)


def _both_ways(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Source and target of every edge, from pairs (edges, 2), each pair once in either direction."""
    pairs = pairs.reshape(-1, 2)
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _positive(value: Any, name: str, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value > 0:
        raise ValueError(f"{name}: expected {what}, found {value!r}")
    return float(value)


def knn_graph(
    lat: ArrayLike,
    lon: ArrayLike,
    k: int = 8,
    weight: str = "gaussian",
    length_scale: float | None = None,
    symmetric: bool = True,
) -> Data:
    """Connect each station with its k nearest ones.

    Weights: ``gaussian`` exp(-d² / 2 l²), ``inverse`` 1/d (d at least 1 km) or ``binary`` 1.

    Args:
        lat, lon: (stations,) degrees north and east.
        k: neighbours of each station, capped at the number of other stations.
        weight: ``"gaussian"``, ``"inverse"`` or ``"binary"``.
        length_scale: l of the Gaussian in km; by default the mean length of the edges.
        symmetric: keep an edge in both directions if either station chose the other. With False each
            station receives exactly k edges, and the graph is directed.

    Returns:
        The graph. One station gives a graph without edges.

    Raises:
        ValueError: for impossible coordinates, no stations, or k below 1.

    Source: the Gaussian kernel on a threshold graph of Shuman et al. (2013).
    """
    lat, lon = _stations(lat, lon)
    k = min(whole_number(k, "k"), len(lat) - 1)
    if k == 0:
        return _build(lat, lon, np.empty(0, np.int64), np.empty(0, np.int64), weight, length_scale)
    points = _unit_vectors(lat, lon)
    # The station itself is among its k + 1 nearest unless k + 1 others share its place: drop it by
    # index, and where it is not there drop the farthest.
    nearest = cKDTree(points).query(points, k=k + 1)[1]
    own = nearest == np.arange(len(lat))[:, None]
    own[~own.any(axis=1), -1] = True
    source = nearest[~own]
    target = np.repeat(np.arange(len(lat)), k)
    if symmetric:
        source, target = _both_ways(np.stack([source, target], axis=1))
    return _build(lat, lon, source, target, weight, length_scale)


def radius_graph(
    lat: ArrayLike,
    lon: ArrayLike,
    radius_km: float,
    weight: str = "gaussian",
    length_scale: float | None = None,
) -> Data:
    """Connect all stations that are at most ``radius_km`` apart.

    Args:
        lat, lon: (stations,) degrees north and east.
        radius_km: greatest length of an edge in km.
        weight, length_scale: as in :func:`knn_graph`.

    Returns:
        An undirected graph (each edge in both directions); a lonely station stays without edges.

    Raises:
        ValueError: for impossible coordinates, no stations, or a radius that is not above 0.
    """
    lat, lon = _stations(lat, lon)
    radius_km = _positive(radius_km, "radius_km", "a distance above 0 km")
    # The chord is a little generous, for the sake of rounding; the great circle decides.
    chord = 2 * np.sin(min(radius_km / EARTH_RADIUS_KM, np.pi) / 2) * (1 + 1e-6) + 1e-9
    pairs = cKDTree(_unit_vectors(lat, lon)).query_pairs(chord, output_type="ndarray").astype(np.int64)
    source, target = _at_most(radius_km, lat, lon, *_both_ways(pairs))
    return _build(lat, lon, source, target, weight, length_scale)


def _at_most(
    km: float, lat: Array, lon: Array, source: NDArray[np.int64], target: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Only the edges that are no longer than km."""
    short = great_circle_distance(lat[source], lon[source], lat[target], lon[target]) <= km
    return source[short], target[short]


def delaunay_graph(
    lat: ArrayLike,
    lon: ArrayLike,
    weight: str = "gaussian",
    length_scale: float | None = None,
    max_km: float | None = None,
) -> Data:
    """Connect stations that share a side of the Delaunay triangulation, without a parameter to choose.

    The stations are first projected around their centre (azimuthal equidistant), so this is for a
    region, not for the globe.

    Args:
        lat, lon: (stations,) degrees north and east.
        weight, length_scale: as in :func:`knn_graph`.
        max_km: drop longer sides; the outer hull often has some.

    Returns:
        An undirected graph.

    Raises:
        ValueError: for impossible coordinates, no stations, or stations on one line.
    """
    lat, lon = _stations(lat, lon)
    # Instruments at one place are one corner of the triangulation and share its edges.
    places, place = np.unique(np.stack([lat, lon], axis=1), axis=0, return_inverse=True)
    corners = _delaunay_edges(places[:, 0], places[:, 1])
    together = sp.csr_matrix((np.ones(len(lat)), (np.arange(len(lat)), place.ravel())))
    joined = sp.csr_matrix(together @ (corners + sp.identity(len(places))) @ together.T)
    joined.setdiag(0)
    joined.eliminate_zeros()
    source, target = (nodes.astype(np.int64) for nodes in joined.nonzero())
    if max_km is not None:
        source, target = _at_most(_positive(max_km, "max_km", "a distance above 0 km"), lat, lon, source, target)
    return _build(lat, lon, source, target, weight, length_scale)


def _delaunay_edges(lat: Array, lon: Array) -> sp.csr_matrix:
    """Which of these different places share a side of a triangle, as a symmetric 0-1 matrix."""
    if len(lat) < 3:
        return sp.csr_matrix(np.ones((len(lat), len(lat))) - np.identity(len(lat)))
    centre = _unit_vectors(lat, lon).mean(axis=0)
    lon0 = np.degrees(np.arctan2(centre[1], centre[0]))
    lat0 = np.degrees(np.arctan2(centre[2], np.hypot(centre[0], centre[1])))
    distance = great_circle_distance(lat0, lon0, lat, lon)
    theta = np.radians(bearing(lat0, lon0, lat, lon))
    plane = distance[:, None] * np.stack([np.sin(theta), np.cos(theta)], axis=1)
    try:
        triangles = Delaunay(plane).simplices
    except QhullError as error:
        raise ValueError(
            "lat, lon: expected stations that span an area, found all of them (nearly) on one line; "
            "use knn_graph instead"
        ) from error
    source, target = _both_ways(triangles[:, [0, 1, 1, 2, 2, 0]].astype(np.int64))
    return sp.csr_matrix((np.ones(source.size), (source, target)), shape=(len(lat), len(lat)))


def grid_graph(
    lat: ArrayLike,
    lon: ArrayLike,
    neighbours: int = 8,
    weight: str = "gaussian",
    length_scale: float | None = None,
) -> Data:
    """Connect each cell of a latitude-longitude grid with the cells around it.

    Nodes are ordered as in ``datasets.grid_to_nodes``: latitude by latitude, longitude fastest. A grid
    that goes round the globe is closed in longitude.

    Args:
        lat: (latitudes,) and
        lon: (longitudes,) the axes of the grid in degrees.
        neighbours: 4 (sides) or 8 (sides and corners).
        weight, length_scale: as in :func:`knn_graph`.

    Returns:
        An undirected graph of latitudes x longitudes nodes.

    Raises:
        ValueError: for impossible coordinates, unsorted axes, or neighbours other than 4 or 8.
    """
    for axis, name in ((lat, "lat"), (lon, "lon")):
        try:
            values = np.asarray(axis, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected the grid's axis, numbers in degrees, found {axis!r}") from error
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"{name}: expected the grid's axis, a 1-D array, found shape {values.shape}")
        steps = np.diff(values)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise ValueError(f"{name}: expected an axis that only rises or only falls, found {values}")
    if not isinstance(neighbours, (int, np.integer)) or neighbours not in (4, 8):
        raise ValueError(f"neighbours: expected 4 or 8, found {neighbours!r}")
    grid_lat, grid_lon = np.meshgrid(np.asarray(lat, float), np.asarray(lon, float), indexing="ij")
    rows, columns = grid_lat.shape
    spacing = np.diff(np.asarray(lon, float))
    closed = columns > 2 and np.isclose(np.abs(spacing).mean() * columns, 360.0)
    pairs = []
    for down, right in [(0, 1), (1, 0), (1, 1), (1, -1)][: neighbours // 2]:
        row, column = np.mgrid[0:rows, 0:columns]
        row2, column2 = row + down, column + right
        if closed:
            column2 = column2 % columns
        inside = (row2 < rows) & (column2 >= 0) & (column2 < columns)
        pairs.append(np.stack([(row * columns + column)[inside], (row2 * columns + column2)[inside]], axis=1))
    source, target = _both_ways(np.concatenate(pairs))
    flat_lat, flat_lon = _stations(grid_lat.ravel(), grid_lon.ravel())
    return _build(flat_lat, flat_lon, source, target, weight, length_scale)


def correlation_graph(series: xr.DataArray, k: int) -> Data:
    """Connect each station with the k whose series go most closely with its own.

    The weight is Pearson's correlation over the times that both stations report, 0 where it is
    negative. Remove the season first, otherwise it makes all stations alike, and pass the training
    years alone: a graph is fitted to data like any other part of a model.

    Args:
        series: (time, station) with coordinates ``lat`` and ``lon``; NaN is missing.
        k: neighbours of each station, capped at the number of other stations.

    Returns:
        An undirected graph. A station that is constant or never reports stays without edges.

    Raises:
        TypeError, ValueError: for anything but a (time, station) series with coordinates.
    """
    if not isinstance(series, xr.DataArray):
        raise TypeError(f"series: expected an xarray DataArray (time, station), found {type(series).__name__}")
    if set(series.dims) != {"time", "station"} or not {"lat", "lon"} <= set(series.coords):
        raise ValueError(
            "series: expected dims (time, station) with coordinates lat and lon, "
            f"found dims {series.dims} and coordinates {sorted(map(str, series.coords))}"
        )
    if series.dtype.kind not in "fiub":
        raise TypeError(f"series: expected numbers, found dtype {series.dtype}")
    lat, lon = _stations(series["lat"].values, series["lon"].values)
    k = min(whole_number(k, "k"), len(lat) - 1)
    r = _correlation(series.transpose("time", "station").values.astype(np.float64))
    np.fill_diagonal(r, -np.inf)
    source = np.argsort(-r, axis=1, kind="stable")[:, :k].ravel()
    target = np.repeat(np.arange(len(lat)), k)
    chosen = r[target, source] > 0
    source, target = _both_ways(np.stack([source, target], axis=1)[chosen])
    return _build(lat, lon, source, target, edge_weight=r[target, source])


def _correlation(values: Array) -> Array:
    """Pairwise correlation of the columns over the times both are there; 0 where it is undefined."""
    there = np.isfinite(values)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, values, 0.0).sum(axis=0) / count
    filled = np.where(there, values - mean, 0.0)
    spread = np.sqrt((filled**2).sum(axis=0) / count)
    moves = spread > 1e-9 * np.maximum(np.abs(mean), 1e-30)  # a constant series is rounding noise, not signal
    filled = np.where(moves, filled / np.where(moves, spread, 1.0), 0.0)
    n = there.T.astype(float) @ there
    s = filled.T @ there  # sum of i over the times shared with j
    ss = (filled**2).T @ there
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = filled.T @ filled / n - (s / n) * (s / n).T
        variance = ss / n - (s / n) ** 2
        r = covariance / np.sqrt(variance * variance.T)
    return np.where(np.isfinite(r) & (variance > 1e-12) & (variance.T > 1e-12), r, 0.0)


def hetero_graph(
    places: Mapping[str, tuple[ArrayLike, ArrayLike] | None], k: int = 4, length_scale: float | None = None
) -> HeteroData:
    """Nodes of several kinds: inside a kind each node hears its neighbours, and one kind hears all the others.

    The relations are ``(kind, "near", kind)``, :func:`knn_graph` inside every kind that has places, and
    ``(kind, "to", target)``, from the k nearest nodes of each other kind to every node of the target. Weights are
    Gaussian in the distance, as there.

    Args:
        places: {kind: (lat, lon)}, each (nodes,) in degrees, or None for a kind of one node without a place, such
            as an ocean, which every node of the target hears with weight 1. The first kind is the target.
        k: neighbours of each node, capped at the number of nodes there are.
        length_scale: of the Gaussian in km; by default the mean length of the edges, relation by relation.

    Returns:
        The graph, with ``num_nodes`` and, where there are places, ``pos`` for each kind, and ``edge_index``,
        ``edge_weight`` and ``edge_distance`` (km, NaN without a place) for each relation, ordered by target, then
        source.

    Raises:
        TypeError, ValueError: for no kinds, a target without places, a kind without a name, impossible coordinates,
            or k below 1.
    """
    if not isinstance(places, Mapping) or not places:
        raise TypeError(f"places: expected a dict such as {{'station': (lat, lon), 'ocean': None}}, found {places!r}")
    k = whole_number(k, "k")
    graph, where = HeteroData(), {}
    for kind, place in places.items():
        if not isinstance(kind, str) or not kind:
            raise TypeError(f"places: expected the name of each kind, found {kind!r}")
        if place is None:
            graph[kind].num_nodes = 1
            continue
        if not isinstance(place, (tuple, list)) or len(place) != 2:
            raise TypeError(f"places[{kind!r}]: expected (lat, lon) or None, found {type(place).__name__}")
        try:
            where[kind] = lat, lon = _stations(*place)
        except ValueError as error:
            raise ValueError(f"places[{kind!r}]: {error}") from error
        near = knn_graph(lat, lon, k, length_scale=length_scale)
        graph[kind].num_nodes, graph[kind].pos = near.num_nodes, near.pos
        _relate(graph, (kind, "near", kind), near.edge_index, near.edge_weight, near.edge_distance)
    target = next(iter(places))
    if target not in where:
        raise ValueError(f"places: expected (lat, lon) for the first kind, the target {target!r}, found None")
    lat, lon = where[target]
    for kind in places:
        if kind == target:
            continue
        if kind in where:
            source, row, distance, weight = _nearest(*where[kind], lat, lon, k, length_scale)
        else:
            source, row = np.zeros(len(lat), np.int64), np.arange(len(lat))
            distance, weight = np.full(len(lat), np.nan), np.ones(len(lat))
        index = torch.from_numpy(np.stack([source, row]).astype(np.int64))
        edges = (torch.from_numpy(values.astype(np.float32)) for values in (weight, distance))
        _relate(graph, (kind, "to", target), index, *edges)
    return graph


def _nearest(
    lat: Array, lon: Array, to_lat: Array, to_lon: Array, k: int, length_scale: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
    """Source, target, distance and weight of the edges from the k nearest places to each of others."""
    k = min(k, len(lat))
    nearest = cKDTree(_unit_vectors(lat, lon)).query(_unit_vectors(to_lat, to_lon), k=np.arange(1, k + 1))[1]
    source, target = np.sort(nearest, axis=1).ravel().astype(np.int64), np.repeat(np.arange(len(to_lat)), k)
    distance = great_circle_distance(lat[source], lon[source], to_lat[target], to_lon[target])
    return source, target, distance, _weight(distance, "gaussian", length_scale)


def _relate(graph: HeteroData, relation: tuple[str, str, str], index: Tensor, weight: Tensor, distance: Tensor) -> None:
    graph[relation].edge_index, graph[relation].edge_weight = index, weight
    graph[relation].edge_distance = distance


# ---------------------------------------------------------------------------- operators


def adjacency(graph: Data) -> sp.csr_matrix:
    """The matrix A of a graph, ``A[i, j]`` the weight from j to i, as a SciPy sparse matrix.

    Args:
        graph: with ``edge_index``, ``num_nodes`` and, unless all weights are 1, ``edge_weight``.

    Returns:
        (nodes, nodes) float64. Edges that appear twice are added up.

    Raises:
        TypeError, ValueError: for a graph without nodes, with edges to nodes that are not there, or
            with weights that are negative or not finite.
    """
    if not isinstance(graph, Data):
        raise TypeError(f"graph: expected torch_geometric.data.Data, found {type(graph).__name__}")
    index = graph.edge_index
    whole = torch.is_tensor(index) and not index.dtype.is_floating_point and index.dtype != torch.bool
    if not whole or index.ndim != 2 or index.shape[0] != 2:
        found = f"{tuple(index.shape)} of {index.dtype}" if torch.is_tensor(index) else type(index).__name__
        raise ValueError(f"graph: expected edge_index, whole numbers of shape (2, edges), found {found}")
    if not {"num_nodes", "pos", "x"} & set(graph.keys()):
        # The highest number in edge_index is no count: a lonely last station appears in no edge.
        raise ValueError("graph: expected num_nodes to be set, found none; give Data(..., num_nodes=N)")
    nodes = graph.num_nodes
    if not nodes:
        raise ValueError("graph: expected num_nodes of at least 1, found 0")
    source, target = graph.edge_index.cpu().numpy()
    if source.size and (min(source.min(), target.min()) < 0 or max(source.max(), target.max()) >= nodes):
        raise ValueError(
            f"graph: expected node numbers from 0 to {nodes - 1} in edge_index, "
            f"found {graph.edge_index.min().item()} to {graph.edge_index.max().item()}"
        )
    weight = graph.get("edge_weight")
    if weight is not None and not torch.is_tensor(weight):
        raise TypeError(f"graph: expected edge_weight to be a torch tensor (edges,), found {type(weight).__name__}")
    values = np.ones(source.size) if weight is None else weight.detach().cpu().numpy().astype(np.float64)
    if values.shape != source.shape:
        raise ValueError(f"graph: expected one edge_weight for each of {source.size} edges, found {values.shape}")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("graph: expected edge weights that are finite and not negative")
    return sp.csr_matrix((values, (target, source)), shape=(nodes, nodes))


def to_operator(matrix: sp.spmatrix, sparse: bool | None = None) -> Tensor:
    """A matrix as the float32 tensor that layers take: dense, or sparse (CSR) above 300 nodes.

    Args:
        matrix: (nodes, nodes).
        sparse: force one of the two forms.

    Returns:
        (nodes, nodes) float32 tensor.
    """
    matrix = sp.csr_matrix(matrix)
    if not (matrix.shape[0] > SPARSE_ABOVE if sparse is None else sparse):
        return torch.from_numpy(matrix.toarray().astype(np.float32))
    matrix.sort_indices()
    parts = (matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data.astype(np.float32))
    # cloned: an empty array comes from NumPy without strides, which PyTorch 2.6 does not take for contiguous
    rows, columns, values = (torch.from_numpy(part).clone(memory_format=torch.contiguous_format) for part in parts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(rows, columns, values, size=matrix.shape, check_invariants=True)


def _normalised(a: sp.csr_matrix) -> sp.csr_matrix:
    """D^-1/2 A D^-1/2 with D the row sums; rows without edges stay zero."""
    degree = np.asarray(a.sum(axis=1)).ravel()
    root = np.zeros_like(degree)
    root[degree > 0] = degree[degree > 0] ** -0.5
    return sp.csr_matrix(sp.diags(root) @ a @ sp.diags(root))


def gcn_operator(graph: Data, sparse: bool | None = None) -> Tensor:
    """The operator of the graph convolution: the normalised adjacency with self-loops.

    ``D̃^-1/2 Ã D̃^-1/2`` with ``Ã = A + I`` and ``D̃_ii = Σ_j Ã_ij``. All eigenvalues of an undirected graph
    lie in (-1, 1], and an isolated station keeps its own value. The operator does not average: a constant
    field stays constant only where all stations have the same degree.

    Args:
        graph: nodes N; edges may be directed (j -> i counts in row i).
        sparse: None chooses dense up to 300 nodes and CSR above.

    Returns:
        (N, N) float32.

    Raises:
        TypeError, ValueError: for a malformed graph, see :func:`adjacency`.

    Source: Kipf & Welling (2017), equation 2.
    """
    a = adjacency(graph)
    return to_operator(_normalised(sp.csr_matrix(a + sp.identity(a.shape[0]))), sparse)


def scaled_laplacian(graph: Data, lambda_max: float | None = None, sparse: bool | None = None) -> Tensor:
    """The normalised Laplacian, shifted and scaled so that its eigenvalues lie in [-1, 1].

    ``L̃ = 2 L / λ_max - I`` with ``L = I - D^-1/2 A D^-1/2``, the argument that Chebyshev polynomials need.

    Args:
        graph: undirected, N nodes. A directed one is accepted only with ``lambda_max`` given.
        lambda_max: largest eigenvalue of L; computed if not given (2 is an upper bound, rarely the value).
        sparse: None chooses dense up to 300 nodes and CSR above.

    Returns:
        (N, N) float32.

    Raises:
        TypeError, ValueError: for a malformed graph, a directed one without ``lambda_max``, or a
            ``lambda_max`` that is not above 0.

    Source: Defferrard et al. (2016), section 2.1; Hammond et al. (2011).
    """
    a = adjacency(graph)
    identity = sp.identity(a.shape[0], format="csr")
    laplacian = sp.csr_matrix(identity - _normalised(a))
    if lambda_max is None:
        if abs(a - a.T).max() > 1e-6 * max(a.max(), 1e-30):
            raise ValueError(
                "graph: expected an undirected graph (every edge in both directions with one weight), found a "
                "directed one, whose Laplacian has no real spectrum; build it symmetric or give lambda_max"
            )
        lambda_max = _largest_eigenvalue(laplacian)
    lambda_max = _positive(lambda_max, "lambda_max", "a number above 0")
    return to_operator(laplacian * (2.0 / lambda_max) - identity, sparse)


def _largest_eigenvalue(symmetric: sp.csr_matrix) -> float:
    if symmetric.shape[0] <= SPARSE_ABOVE:
        return float(np.linalg.eigvalsh(symmetric.toarray())[-1])
    start = np.random.default_rng(0).standard_normal(symmetric.shape[0])  # ARPACK's own start is random
    return float(eigsh(symmetric, k=1, which="LA", v0=start, return_eigenvectors=False)[0])


def directional_operators(graph: Data, sectors: int = 4, sparse: bool | None = None) -> tuple[Tensor, ...]:
    """One averaging operator for each compass sector, so that a layer can tell where a neighbour lies.

    The neighbours j of station i are sorted by the bearing at which j is seen from i. Sector 0 is centred
    on north and the others follow clockwise: with 4 sectors north, east, south, west. In each sector the
    weights of a row are divided by their sum, so that each operator averages; a station without a
    neighbour in a sector has a row of zeros there.

    Args:
        graph: N nodes, ``pos`` = (lon, lat) in degrees.
        sectors: number S of compass sectors.
        sparse: None chooses dense up to 300 nodes and CSR above.

    Returns:
        S tensors (N, N) float32.

    Raises:
        TypeError, ValueError: for a malformed graph, missing ``pos`` or sectors below 1.

    Source: the partition of neighbours in Yan et al. (2018), by compass bearing instead of body parts.
    """
    sectors = whole_number(sectors, "sectors")
    a = adjacency(graph).tocoo()
    if not torch.is_tensor(graph.pos) or tuple(graph.pos.shape) != (graph.num_nodes, 2):
        found = tuple(graph.pos.shape) if torch.is_tensor(graph.pos) else type(graph.pos).__name__
        raise ValueError(f"graph: expected pos of shape ({graph.num_nodes}, 2) = (lon, lat), a tensor, found {found}")
    lon, lat = graph.pos.detach().cpu().numpy().astype(np.float64).T
    _radians(lat, lon, "graph: pos (latitude)", "graph: pos (longitude)")
    theta = bearing(lat[a.row], lon[a.row], lat[a.col], lon[a.col])
    sector = np.floor(theta / (360 / sectors) + 0.5).astype(int) % sectors
    operators = []
    for s in range(sectors):
        part = sp.csr_matrix((a.data * (sector == s), (a.row, a.col)), shape=a.shape)
        part.eliminate_zeros()
        operators.append(to_operator(_averaging(part), sparse))
    return tuple(operators)


def hetero_operators(graph: HeteroData, sparse: bool | None = None) -> dict[tuple[str, str, str], Tensor]:
    """One averaging operator for each relation of a graph with several kinds of nodes.

    ``O_ij = A_ij / Σ_j A_ij``, A_ij the weight with which node j of the source influences node i of the target; a node
    that hears nobody has a row of zeros.

    Args:
        graph: as :func:`hetero_graph` makes it; ``edge_weight`` may be missing where all weights are 1.
        sparse: None chooses dense up to 300 targets and CSR above.

    Returns:
        {(source, relation, target): (N_target, N_source) float32}.

    Raises:
        TypeError, ValueError: for anything but a HeteroData with edges, kinds without ``num_nodes``, edges to nodes
            that are not there, or weights that are negative or not finite.
    """
    if not isinstance(graph, HeteroData):
        raise TypeError(f"graph: expected torch_geometric.data.HeteroData, found {type(graph).__name__}")
    if not graph.edge_types:
        raise ValueError("graph: expected at least one relation with edges, found none")
    operators = {}
    for relation in graph.edge_types:
        source, _, target = relation
        shape = graph[target].num_nodes, graph[source].num_nodes
        if not all(shape):
            raise ValueError(f"graph: expected num_nodes of at least 1 for {source!r} and {target!r}, found {shape}")
        edges = graph[relation]
        index = edges.get("edge_index")
        if not torch.is_tensor(index) or index.dtype != torch.int64 or index.ndim != 2 or index.shape[0] != 2:
            found = f"{tuple(index.shape)} of {index.dtype}" if torch.is_tensor(index) else type(index).__name__
            raise ValueError(f"graph: expected edge_index of {relation}, torch.int64 (2, edges), found {found}")
        index = index.cpu().numpy()
        weight = edges.edge_weight.cpu().numpy() if "edge_weight" in edges else np.ones(index.shape[1])
        if weight.shape != index.shape[1:]:
            raise ValueError(
                f"graph: expected an edge_weight for each of {index.shape[1]} edges of {relation}, found {weight.shape}"
            )
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise ValueError(f"graph: expected edge weights that are finite and not negative in {relation}")
        if index.size and (index.min() < 0 or (index.max(axis=1) >= shape[::-1]).any()):
            raise ValueError(f"graph: expected nodes below {shape[::-1]} in edge_index of {relation}, found more")
        a = sp.csr_matrix((weight.astype(np.float64), (index[1], index[0])), shape=shape)
        operators[relation] = to_operator(_averaging(a), sparse)
    return operators


def _averaging(a: sp.csr_matrix) -> sp.csr_matrix:
    """Each row divided by its sum; rows without edges stay zero."""
    total = np.asarray(a.sum(axis=1)).ravel()
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sp.csr_matrix(sp.diags(inverse) @ a)
