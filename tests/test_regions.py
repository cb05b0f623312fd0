"""Regions: the formulas against loops, planted regions found, and what the answer must obey."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import Data

from stgcn_lab.graphs import adjacency, gcn_operator, grid_graph, knn_graph, scaled_laplacian
from stgcn_lab.regions import (
    RegionAutoencoder,
    discover_regions,
    drift,
    excess_correlation,
    soft_assignment,
    target_distribution,
    ward_regions,
)
from stgcn_lab.simulate import planted_regions


@pytest.fixture(scope="module")
def easy():
    series, truth = planted_regions(60, 600, 3, seed=1, signal=1.0)
    return series, truth, knn_graph(series.lat, series.lon, k=6)


def two_islands(nodes: int = 20) -> tuple[xr.DataArray, Data]:
    """Stations on two islands far apart, with edges on each but none between them."""
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(0, 2, nodes), rng.uniform(0, 2, nodes) + np.where(np.arange(nodes) % 2, 40.0, 0.0)
    time = np.arange("2000-01-01", "2000-07-01", dtype="datetime64[D]")
    values = rng.standard_normal((time.size, nodes))
    return xr.DataArray(values, dims=("time", "station"), coords={"time": time}), knn_graph(lat, lon, k=3)


# ---------------------------------------------------------------------------- deep embedded clustering


def test_soft_assignment_is_the_formula():
    z, centres = torch.randn(7, 3), torch.randn(4, 3)
    kernel = np.array([[1 / (1 + float(((a - b) ** 2).sum())) for b in centres] for a in z])
    expected = kernel / kernel.sum(1, keepdims=True)
    np.testing.assert_allclose(soft_assignment(z, centres).numpy(), expected, rtol=1e-5)


def test_target_is_the_formula():
    q = soft_assignment(torch.randn(9, 2), torch.randn(3, 2)).double()
    f = q.sum(0)
    expected = torch.zeros_like(q)
    for i in range(9):
        for k in range(3):
            expected[i, k] = (q[i, k] ** 2 / f[k]) / sum(q[i, m] ** 2 / f[m] for m in range(3))
    torch.testing.assert_close(target_distribution(q), expected)


def test_target_leans_towards_the_neighbours():
    q = torch.tensor([[0.55, 0.45], [0.45, 0.55]])
    assert target_distribution(q)[0].argmax() == 0
    heard = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert target_distribution(q, heard)[0].argmax() == 1
    # Neighbours that are undecided change nothing.
    torch.testing.assert_close(target_distribution(q, torch.full((2, 2), 0.5)), target_distribution(q))


def test_soft_assignment_refuses_other_dimensions():
    with pytest.raises(ValueError, match="z, centres"):
        soft_assignment(torch.zeros(3, 2), torch.zeros(3, 4))


def test_autoencoder_starts_as_the_identity_and_learns_from_the_graph(graph):
    net = RegionAutoencoder(5)
    c, operators = torch.randn(12, 5), (scaled_laplacian(graph), gcn_operator(graph))
    for out in net(c, *operators):
        torch.testing.assert_close(out, c)
    net(c, *operators)[1].square().sum().backward()
    assert net.linear.weight.grad[1].abs().max() > 0  # what comes from the neighbours
    assert net.outer.weight.grad.abs().max() > 0


# ---------------------------------------------------------------------------- what is encoded


def test_excess_correlation_takes_out_what_distance_explains():
    # One isotropic field: no pair is more alike than its distance explains, but for chance.
    series, _ = planted_regions(80, 4000, 2, seed=0, signal=0.0)
    graph = knn_graph(series.lat, series.lon)
    excess = excess_correlation(series, graph)
    r = np.corrcoef(series.values.T)
    off = ~np.eye(80, dtype=bool)
    assert r[off].std() > 0.15
    assert excess[off].std() < 0.08
    np.testing.assert_allclose(excess, excess.T, atol=1e-12)
    assert (np.diag(excess) == 0).all()


def test_excess_correlation_is_positive_within_planted_regions(easy):
    series, truth, graph = easy
    excess = excess_correlation(series, graph)
    same = truth.values[:, None] == truth.values
    off = ~np.eye(60, dtype=bool)
    assert excess[same & off].mean() > 0.05 > -0.05 > excess[~same].mean()


@pytest.mark.parametrize(("towards", "axis", "sign"), [(0, 0, 1), (90, 1, 1), (180, 0, -1), (270, 1, -1)])
def test_drift_points_where_the_waves_go(towards, axis, sign):
    lat, lon = np.arange(0.0, 8), np.arange(0.0, 8)
    graph = grid_graph(lat, lon)
    x, y = graph.pos.numpy().astype(float).T
    rng, t, values = np.random.default_rng(0), np.arange(800)[:, None], 0.0
    along = x * np.cos(np.deg2rad(towards)) + y * np.sin(np.deg2rad(towards))
    for _ in range(30):  # every wave travels half a degree in a step
        wave_number, phase = rng.uniform(0.2, 0.8), rng.uniform(0, 2 * np.pi)
        across = rng.uniform(-0.5, 0.5) * (-x * np.sin(np.deg2rad(towards)) + y * np.cos(np.deg2rad(towards)))
        values = values + np.cos(wave_number * (along - 0.5 * t) + across + phase)
    time = np.datetime64("2000-01-01") + np.arange(800) * np.timedelta64(6, "h")
    u = drift(xr.DataArray(values, dims=("time", "station"), coords={"time": time}), graph)
    assert u.sizes == {"station": 64, "lag": 1, "direction": 2}
    inner = (x > 0) & (x < 7) & (y > 0) & (y < 7)
    flow = u.values[inner, 0]
    assert np.median(flow[:, axis]) * sign == pytest.approx(55.6, rel=0.25)  # half a degree in km
    assert abs(np.median(flow[:, 1 - axis])) < 10


# ---------------------------------------------------------------------------- Ward on the graph


def test_ward_regions_agrees_with_scikit_learn(easy):
    series, _, graph = easy
    features = series.values.T
    a = adjacency(graph)
    for k in (1, 2, 5, 60):
        expected = AgglomerativeClustering(k, connectivity=a).fit_predict(features)
        assert adjusted_rand_score(ward_regions(features, graph, k), expected) == 1


def test_ward_regions_never_joins_separate_pieces():
    series, graph = two_islands()
    for k in (2, 3, 20):
        labels = ward_regions(series.values.T, graph, k)
        assert len(np.unique(labels)) == k
        assert not set(labels[::2]) & set(labels[1::2])
    with pytest.raises(ValueError, match="num_regions"):
        ward_regions(series.values.T, graph, 1)
    with pytest.raises(ValueError, match="features"):
        ward_regions(series.values, graph, 2)


# ---------------------------------------------------------------------------- regions


def test_finds_planted_signals(easy):
    series, truth, graph = easy
    for contiguous in (False, True):
        labels = discover_regions(series, graph, 3, contiguous=contiguous)
        assert adjusted_rand_score(truth, labels) > 0.9


@pytest.mark.parametrize("seed", [20, 21, 22])
def test_finds_planted_motion_where_clusters_of_signals_cannot(seed):
    series, truth = planted_regions(150, 1000, 4, seed=seed, signal=2.0, kind="motion")
    graph = knn_graph(series.lat, series.lon)
    found = adjusted_rand_score(truth, discover_regions(series, graph, 4, view="motion"))
    blind = adjusted_rand_score(truth, ward_regions(series.values.T, graph, 4))
    assert found > 0.6
    assert found > blind + 0.15


def test_labels_come_with_the_stations_from_west_to_east(easy):
    series, _, graph = easy
    labels, embedding = discover_regions(series, graph, 3, return_embedding=True)
    assert labels.dims == ("station",) and labels.dtype.kind == "i"
    assert embedding.dims == ("station", "feature") and embedding.sizes["station"] == 60
    xr.testing.assert_identical(labels.station, series.station)
    assert set(labels.values) == {0, 1, 2}
    centre = [float(series.lon[labels.values == k].mean()) for k in range(3)]
    assert centre == sorted(centre)


def test_same_seed_same_regions_and_the_global_generator_is_left_alone(easy):
    series, _, graph = easy
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = discover_regions(series, graph, 4, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(9)
    xr.testing.assert_identical(first, discover_regions(series, graph, 4, seed=3))


def test_units_do_not_matter(easy):
    series, _, graph = easy
    np.testing.assert_array_equal(discover_regions(series, graph, 3), discover_regions(20 + 5 * series, graph, 3))


@pytest.mark.parametrize("view", ["signals", "motion"])
@pytest.mark.parametrize("k", [2, 6])
def test_contiguous_regions_are_connected_and_none_is_empty(view, k):
    series, _ = planted_regions(50, 200, 3, seed=4, signal=0.2)
    graph = knn_graph(series.lat, series.lon, k=4)
    labels = discover_regions(series, graph, k, contiguous=True, view=view).values
    assert len(np.unique(labels)) == k
    a = adjacency(graph)
    for region in range(k):
        members = np.flatnonzero(labels == region)
        assert connected_components(a[members][:, members], directed=False)[0] == 1


@pytest.mark.parametrize("k", [2, 9, 30])
def test_every_region_has_stations_even_in_noise(k):
    series, _ = planted_regions(30, 100, 2, seed=0, signal=0.0)
    labels = discover_regions(series, knn_graph(series.lat, series.lon, k=4), k)
    assert len(np.unique(labels)) == k


def test_separate_pieces_and_lonely_stations():
    series, graph = two_islands()
    labels = discover_regions(series, graph, 2, contiguous=True).values
    assert len(set(labels[::2])) == len(set(labels[1::2])) == 1
    edgeless = Data(edge_index=torch.empty(2, 0, dtype=torch.long), pos=graph.pos, num_nodes=20)
    for view in ("signals", "motion"):
        assert len(np.unique(discover_regions(series, edgeless, 3, view=view))) == 3
    with pytest.raises(ValueError, match="20 separate pieces"):
        discover_regions(series, edgeless, 3, contiguous=True)


def test_without_training_the_embedding_is_the_moments(easy):
    series, truth, graph = easy
    labels, embedding = discover_regions(series, graph, 3, epochs=0, return_embedding=True)
    excess = excess_correlation(series, graph)
    leading = excess @ np.linalg.eigh(excess)[1][:, -6:]

    def between(points):
        return ((points[:, None] - points) ** 2).sum(-1).ravel()

    # Up to the shifts between the blocks, the mean of which the embedding takes: distances agree.
    assert np.corrcoef(between(embedding.values), between(leading))[0, 1] > 0.98
    assert adjusted_rand_score(truth, labels) > 0.85


def test_the_encoder_can_be_kept_from_the_graph():
    series, _ = planted_regions(40, 300, 3, seed=2)
    graph = knn_graph(series.lat, series.lon, k=4)
    alone, mixed = (
        discover_regions(series, graph, 3, spatial=s, neighbours=0.0, return_embedding=True)[1].values
        for s in (False, True)
    )
    assert not np.allclose(alone, mixed)


# ---------------------------------------------------------------------------- bad input


def test_bad_arguments_are_named(easy):
    series, _, graph = easy
    for k in (1, 0, 61, 2.0, True):
        with pytest.raises(ValueError, match="num_regions"):
            discover_regions(series, graph, k)
    with pytest.raises(ValueError, match="view.*'signal'"):
        discover_regions(series, graph, 3, view="signal")
    with pytest.raises(ValueError, match="seed"):
        discover_regions(series, graph, 3, seed=-1)
    with pytest.raises(ValueError, match="epochs"):
        discover_regions(series, graph, 3, epochs=-1)
    with pytest.raises(ValueError, match="neighbours"):
        discover_regions(series, graph, 3, neighbours=-1.0)
    with pytest.raises(ValueError, match="lags"):
        drift(series, graph, lags=0)


def test_bad_series_are_refused(easy):
    series, _, graph = easy
    gap = series.copy()
    gap[3, 7] = np.nan
    with pytest.raises(ValueError, match="missing values.*S007"):
        discover_regions(gap, graph, 3)
    constant = series.copy()
    constant[:, 5] = 12.3
    with pytest.raises(ValueError, match="S005.*constant"):
        discover_regions(constant, graph, 3)
    with pytest.raises(ValueError, match="rising order"):
        discover_regions(series.isel(time=slice(None, None, -1)), graph, 3)
    with pytest.raises(ValueError, match="at least 64 time steps, found 30"):
        discover_regions(series.isel(time=slice(30)), graph, 3)
    with pytest.raises(TypeError, match="DataArray"):
        discover_regions(series.values, graph, 3)
    with pytest.raises(ValueError, match="dims"):
        discover_regions(series.T, graph, 3)


def test_bad_graphs_are_refused(easy, graph):
    series, _, good = easy
    with pytest.raises(ValueError, match="60 nodes.*found 12"):
        discover_regions(series, graph, 3)
    with pytest.raises(TypeError, match="graph"):
        discover_regions(series, adjacency(good), 3)
    with pytest.raises(ValueError, match="pos"):
        discover_regions(series, Data(edge_index=good.edge_index, num_nodes=60), 3)
    series, islands = two_islands()
    with pytest.raises(ValueError, match="num_regions"):
        ward_regions(series.values.T, islands, 1)


# ---------------------------------------------------------------------------- the planted truth


@pytest.mark.parametrize("kind", ["signals", "motion"])
def test_planted_regions_are_reproducible_and_standardised(kind):
    series, truth = planted_regions(50, 300, 4, seed=2, kind=kind)
    again, truth_again = planted_regions(50, 300, 4, seed=2, kind=kind)
    xr.testing.assert_identical(series, again)
    xr.testing.assert_identical(truth, truth_again)
    assert not series.equals(planted_regions(50, 300, 4, seed=3, kind=kind)[0])
    assert series.dims == ("time", "station") and truth.dims == ("station",)
    np.testing.assert_allclose(series.mean("time"), 0, atol=1e-9)
    np.testing.assert_allclose(series.std("time"), 1)
    assert np.bincount(truth).min() >= 50 // 12


def test_planted_signals_are_shared_within_regions():
    series, truth = planted_regions(60, 2000, 3, seed=0, signal=3.0)
    r = np.corrcoef(series.values.T)
    same = truth.values[:, None] == truth.values
    assert r[same].min() > 0.7
    assert np.abs(r[~same]).max() < 0.35


def test_planted_motion_differs_in_direction_only():
    series, truth = planted_regions(200, 4000, 2, seed=5, signal=5.0, kind="motion")
    u = drift(series, knn_graph(series.lat, series.lon)).sel(direction="east")[:, 0].groupby(truth).median()
    assert u[0] > 5 > -5 > u[1]  # region 0 goes east, region 1 west
    # Memory is the same in both: stations differ more than regions do, and in the mean over fields the regions do not.
    differences, spread = [], []
    for seed in range(8):
        series, truth = planted_regions(100, 1000, 2, seed=seed, signal=5.0, kind="motion")
        memory = (series.values[1:] * series.values[:-1]).mean(0)
        differences.append(memory[truth.values == 0].mean() - memory[truth.values == 1].mean())
        spread.append(memory.std())
    assert abs(np.mean(differences)) < 0.3 * np.mean(spread)


def test_planted_regions_with_as_many_regions_as_stations_and_bad_arguments():
    assert np.unique(planted_regions(12, 20, 12, seed=0)[1]).size == 12
    with pytest.raises(ValueError, match="at most 12"):
        planted_regions(12, 20, 13)
    with pytest.raises(ValueError, match="kind"):
        planted_regions(12, 20, 2, kind="waves")
    with pytest.raises(ValueError, match="signal"):
        planted_regions(12, 20, 2, signal=-1)
