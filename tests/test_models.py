"""The networks: recomputed by their formulas, moved between graphs, and put to planted problems."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GCNConv

from stgcn_lab.graphs import (
    directional_operators,
    gcn_operator,
    grid_graph,
    hetero_graph,
    hetero_operators,
    knn_graph,
    radius_graph,
    scaled_laplacian,
)
from stgcn_lab.layers import TemporalConv
from stgcn_lab.models import (
    STGCN,
    ArticleSTGCN,
    AttentionImputer,
    FusionSTGCN,
    LinearSkip,
    MeshStep,
    RecurrentImputer,
    Rollout,
    STGCNClassifier,
    STGCNImputer,
    _known_softmax,
    _spaced,
    mesh_edges,
    rollout,
)
from stgcn_lab.training import evaluate, fit, predict
from stgcn_lab.windows import Sources, SourceWindows, WindowDataset


def randomise(module: nn.Module) -> nn.Module:
    """Random biases too: a bias left out must show."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.3)
    return module.eval()


# ---------------------------------------------------------------------------- the article's network


@pytest.fixture
def article():
    torch.manual_seed(0)
    return randomise(ArticleSTGCN(num_nodes=12, num_features=2, num_timesteps=5, num_classes=3))


def dense_article(model: ArticleSTGCN, x: torch.Tensor, operator: torch.Tensor) -> torch.Tensor:
    """(N, T, F) -> (N, C), one time step and one station after the other."""
    nodes, steps, _ = x.shape
    hidden = torch.zeros(nodes, steps, 128)
    for t in range(steps):
        h = F.relu(operator @ x[:, t] @ model.gcn1.weight + model.gcn1.bias)
        hidden[:, t] = F.relu(operator @ h @ model.gcn2.weight + model.gcn2.bias)
    out = torch.zeros(nodes, model.fc.out_features)
    for n in range(nodes):
        h = hidden[n].T[None]  # (1, 128, T)
        for layer in (model.tcn1, model.tcn2):
            h = F.relu(F.conv1d(h, layer.conv.weight[..., 0], layer.conv.bias, padding=1))
        out[n] = model.fc(h.mean(dim=2))[0]
    return out


def test_article_shapes(article, graph):
    assert article(torch.randn(12, 5, 2), graph.edge_index).shape == (12, 3)
    assert article(torch.randn(4, 12, 5, 2), graph.edge_index, graph.edge_weight).shape == (4, 12, 3)


@pytest.mark.parametrize("weighted", [True, False])
def test_article_equals_its_dense_recomputation(article, graph, weighted):
    if not weighted:
        graph.edge_weight = None
    x = torch.randn(12, 5, 2)
    expected = dense_article(article, x, gcn_operator(graph))
    torch.testing.assert_close(article(x, graph.edge_index, graph.edge_weight), expected, atol=1e-5, rtol=1e-4)


def test_article_graph_part_equals_pyg_at_each_time_step(article, graph):
    """PyG's node axis is -2. Fed (N, T, F) it would mix time steps by the graph of the stations."""
    theirs = GCNConv(2, 64)
    with torch.no_grad():
        theirs.lin.weight.copy_(article.gcn1.weight.T)
        theirs.bias.copy_(article.gcn1.bias)
    x = torch.randn(12, 5, 2)
    ours = article.gcn1(x.transpose(0, 1), gcn_operator(graph))  # (T, N, 64)
    for t in range(5):
        expected = theirs(x[:, t], graph.edge_index, graph.edge_weight)
        torch.testing.assert_close(ours[t], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [12, 20])
def test_article_is_right_where_its_listing_is_silently_wrong(graph, steps):
    """With T >= N nothing would crash if time and station were mixed up: only the numbers tell."""
    model = randomise(ArticleSTGCN(12, 2, steps, 3))
    x = torch.randn(12, steps, 2)
    expected = dense_article(model, x, gcn_operator(graph))
    torch.testing.assert_close(model(x, graph.edge_index, graph.edge_weight), expected, atol=1e-5, rtol=1e-4)


def test_article_batch_of_one_equals_the_single_sample(article, graph):
    x = torch.randn(3, 12, 5, 2)
    together = article(x, graph.edge_index)
    for b in range(3):
        torch.testing.assert_close(article(x[b], graph.edge_index), together[b], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(article(x[b : b + 1], graph.edge_index)[0], together[b], atol=1e-6, rtol=1e-5)


def test_article_follows_a_permutation_of_the_stations(article, places):
    lat, lon = places
    order = np.random.default_rng(3).permutation(12)
    a, b = knn_graph(lat, lon, 3), knn_graph(lat[order], lon[order], 3)
    x = torch.randn(12, 5, 2)
    y = article(x, a.edge_index, a.edge_weight)
    torch.testing.assert_close(article(x[order], b.edge_index, b.edge_weight), y[order], atol=1e-5, rtol=1e-4)


def test_article_pools_over_time_and_not_over_stations(article):
    """Without edges a station's classes depend on that station alone, and on all of its time steps."""
    none = torch.zeros(2, 0, dtype=torch.long)
    x = torch.randn(12, 5, 2)
    y = article(x, none)
    for t in range(5):
        changed = x.clone()
        changed[7, t] += 5
        rows = (article(changed, none) - y).abs().amax(1) > 1e-5
        assert rows.nonzero().tolist() == [[7]]


def test_article_uses_edge_weights_and_direction(article, directed):
    model = randomise(ArticleSTGCN(7, 2, 5, 3))
    x = torch.randn(7, 5, 2)
    y = model(x, directed.edge_index, directed.edge_weight)
    assert not torch.allclose(y, model(x, directed.edge_index), atol=1e-3)
    assert not torch.allclose(y, model(x, directed.edge_index.flip(0), directed.edge_weight), atol=1e-3)
    x[5] += 10  # node 5 sends to 4, 4 to 3: two layers reach 3, and never 0 or 6
    rows = (model(x, directed.edge_index, directed.edge_weight) - y).abs().amax(1) > 1e-5
    assert rows.nonzero().flatten().tolist() == [3, 4, 5]


def test_article_notices_a_changed_graph(article, graph):
    """The operator is kept between calls; a stale one would be a silent fault."""
    x, index, weight = torch.randn(12, 5, 2), graph.edge_index.clone(), graph.edge_weight.clone()

    def fresh(weight):
        graph.edge_index, graph.edge_weight = index, weight
        return dense_article(article, x, gcn_operator(graph))

    def check(weight):
        torch.testing.assert_close(article(x, index, weight), fresh(weight), atol=1e-5, rtol=1e-4)

    check(weight)
    check(None)
    check(weight)
    weight *= torch.rand_like(weight)  # in place: the same tensor, other values
    check(weight)
    index[:] = index[:, torch.randperm(index.shape[1])]
    check(weight)
    index, weight = index[:, ::2], weight[::2]  # fewer edges
    check(weight)


def test_article_does_not_work_out_the_operator_twice(article, graph, monkeypatch):
    calls = []
    monkeypatch.setattr("stgcn_lab.models.gcn_operator", lambda g: calls.append(1) or gcn_operator(g))
    for _ in range(3):
        article(torch.randn(12, 5, 2), graph.edge_index, graph.edge_weight)
    assert len(calls) == 1


def test_article_gradient_reaches_every_parameter(graph):
    model = ArticleSTGCN(12, 2, 5, 3)
    F.cross_entropy(model(torch.randn(12, 5, 2), graph.edge_index), torch.randint(3, (12,))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_article_in_double_precision(article, graph):
    x = torch.randn(12, 5, 2)
    expected = article(x, graph.edge_index)
    torch.testing.assert_close(article.double()(x.double(), graph.edge_index).float(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("x", "index", "weight", "parts"),
    [
        (torch.zeros(12, 5), [[0], [1]], None, ["x", "(N, T, F)", "(12, 5, 2)", "(12, 5)"]),
        (torch.zeros(5, 12, 2), [[0], [1]], None, ["x", "(12, 5, 2)", "(5, 12, 2)"]),
        (torch.zeros(1, 1, 12, 5, 2), [[0], [1]], None, ["x", "(1, 1, 12, 5, 2)"]),
        (np.zeros((12, 5, 2)), [[0], [1]], None, ["x", "tensor", "ndarray"]),
        (torch.zeros(12, 5, 2), [[0], [12]], None, ["edge_index", "0 to 11", "12"]),
        (torch.zeros(12, 5, 2), [[-1], [1]], None, ["edge_index", "-1"]),
        (torch.zeros(12, 5, 2), [0, 1, 2], None, ["edge_index", "(2, edges)", "(3,)"]),
        (torch.zeros(12, 5, 2), [[0], [1]], [1.0, 2.0], ["edge_weight", "1 edges", "(2,)"]),
    ],
)
def test_article_refuses_what_does_not_fit(article, x, index, weight, parts):
    weight = None if weight is None else torch.tensor(weight)
    with pytest.raises((TypeError, ValueError)) as error:
        article(x, torch.tensor(index), weight)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_article_refuses_an_edge_index_that_is_no_tensor(article, graph):
    for _ in range(2):  # before and after an operator is kept
        with pytest.raises((TypeError, ValueError), match="edge_index"):
            article(torch.zeros(12, 5, 2), graph.edge_index.tolist())
        article(torch.zeros(12, 5, 2), graph.edge_index)


# ---------------------------------------------------------------------------- STGCN

KINDS = {
    "gcn": (3, gcn_operator),
    "cheb": (2, scaled_laplacian),
    "directional": (4, directional_operators),
    "none": (3, lambda graph, sparse=None: None),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def small_stgcn(kind="gcn", in_features=2, out_features=1, history=10, horizon=3, **options) -> STGCN:
    order, _ = KINDS[kind]
    options = {"channels": (8, 4, 7), "kernel_size": 3, "blocks": 2} | options
    return randomise(STGCN(in_features, out_features, history, horizon, spatial=kind, order=order, **options))


@each_kind
@pytest.mark.parametrize("out_features", [1, 3])
def test_stgcn_shapes(graph, kind, out_features):
    model, operator = small_stgcn(kind, out_features=out_features), KINDS[kind][1](graph)
    assert model(torch.randn(4, 10, 12, 2), operator).shape == (4, 3, 12, out_features)
    assert model.forecast_series(torch.randn(4, 25, 12, 2), operator).shape == (4, 16, 3, 12, out_features)


@each_kind
def test_forecast_series_equals_window_by_window(graph, kind):
    model, operator = small_stgcn(kind), KINDS[kind][1](graph)
    x = torch.randn(2, 17, 12, 2)
    whole = model.forecast_series(x, operator)
    assert whole.shape[1] == 17 - 10 + 1
    for s in range(whole.shape[1]):
        torch.testing.assert_close(whole[:, s], model(x[:, s : s + 10], operator), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("history", "blocks", "kernel"), [(9, 2, 3), (12, 2, 3), (5, 2, 2), (3, 1, 2), (2, 2, 1)])
def test_forecast_series_with_any_history(graph, history, blocks, kernel):
    model = small_stgcn(history=history, blocks=blocks, kernel_size=kernel)
    x, operator = torch.randn(1, history + 4, 12, 2), gcn_operator(graph)
    expected = torch.stack([model(x[:, s : s + history], operator) for s in range(5)], dim=1)
    torch.testing.assert_close(model.forecast_series(x, operator), expected, atol=1e-6, rtol=1e-5)


def test_a_forecast_sees_its_whole_history_and_nothing_else(graph):
    model, operator = small_stgcn(), gcn_operator(graph)
    x = torch.randn(1, 20, 12, 2)
    y = model.forecast_series(x, operator)
    for t in range(20):
        changed = x.clone()
        changed[:, t] += 3
        seen = (model.forecast_series(changed, operator) - y).abs().amax((0, 2, 3, 4)) > 1e-7
        expected = [s for s in range(11) if s <= t <= s + 9]  # forecast s is made from steps s ... s + 9
        assert seen.nonzero().flatten().tolist() == expected


@each_kind
def test_stgcn_follows_a_permutation_of_the_stations(places, kind):
    lat, lon = places
    order = np.random.default_rng(3).permutation(12)
    model, x = small_stgcn(kind), torch.randn(2, 10, 12, 2)
    y = model(x, KINDS[kind][1](knn_graph(lat, lon, 3)))
    permuted = model(x[:, :, order], KINDS[kind][1](knn_graph(lat[order], lon[order], 3)))
    torch.testing.assert_close(permuted, y[:, :, order], atol=1e-5, rtol=1e-4)


@each_kind
def test_stgcn_moves_to_another_region(graph, kind):
    model = small_stgcn(kind)
    other = grid_graph(np.arange(4), np.arange(5))
    assert model(torch.randn(1, 10, 12, 2), KINDS[kind][1](graph)).shape[2] == 12
    assert model(torch.randn(1, 10, 20, 2), KINDS[kind][1](other)).shape[2] == 20
    assert all(12 not in parameter.shape for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["gcn", "cheb", "directional"])
def test_stgcn_gives_the_same_for_sparse_and_dense_operators(graph, kind):
    model, make = small_stgcn(kind), KINDS[kind][1]
    results = []
    for sparse in (True, False):
        model.zero_grad()
        torch.manual_seed(1)
        y = model(torch.randn(2, 10, 12, 2), make(graph, sparse=sparse))
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.parameters())])
    for thin, dense in zip(*results, strict=True):
        torch.testing.assert_close(thin, dense, atol=1e-4, rtol=1e-3)


def test_stgcn_samples_are_independent(graph):
    model, operator, x = small_stgcn().train(), gcn_operator(graph), torch.randn(3, 10, 12, 2)
    y = model(x, operator)
    torch.testing.assert_close(model(x[1:2], operator), y[1:2], atol=1e-5, rtol=1e-5)


def test_horizon_comes_first_then_features(graph):
    """Output h, feature f is row h x F_out + f of the last layer; h means h + 1 steps ahead."""
    model = small_stgcn(out_features=2, horizon=3)
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.bias.copy_(torch.arange(6.0))
    y = model(torch.randn(1, 10, 12, 2), gcn_operator(graph))
    assert y.shape == (1, 3, 12, 2)
    for h in range(3):
        for f in range(2):
            assert (y[0, h, :, f] == 2 * h + f).all()


def test_stgcn_drops_values_in_training_only(graph):
    model, operator, x = small_stgcn(dropout=0.5), gcn_operator(graph), torch.randn(1, 10, 12, 2)
    assert torch.equal(model(x, operator), model(x, operator))
    model.train()
    assert not torch.allclose(model(x, operator), model(x, operator))


@each_kind
def test_stgcn_gradient_reaches_every_parameter(graph, kind):
    model = small_stgcn(kind)
    model(torch.randn(2, 10, 12, 2), KINDS[kind][1](graph)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_stgcn_reads_the_graph(graph):
    model, x = small_stgcn(), torch.randn(1, 10, 12, 2)
    empty = radius_graph(graph.pos[:, 1], graph.pos[:, 0], 1e-3)
    assert not torch.allclose(model(x, gcn_operator(graph)), model(x, gcn_operator(empty)), atol=1e-3)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda x, a: STGCN(2, 1, history=8, horizon=1), ["history", "at least 9", "8"]),
        (lambda x, a: STGCN(2, 1, history=0, horizon=1), ["history", "at least 1", "0"]),
        (lambda x, a: STGCN(2, 1, history=12, horizon=0), ["horizon", "0"]),
        (lambda x, a: STGCN(0, 1, history=12, horizon=1), ["in_features", "0"]),
        (lambda x, a: STGCN(1, 1.5, history=12, horizon=1), ["out_features", "1.5"]),
        (lambda x, a: STGCN(1, 1, history=12, horizon=1, blocks=0), ["blocks", "0"]),
        (lambda x, a: STGCN(1, 1, history=12, horizon=1, kernel_size=-3), ["kernel_size", "-3"]),
        (lambda x, a: STGCN(1, 1, history=12, horizon=1, spatial="gat"), ["spatial", "gcn", "gat"]),
        (lambda x, a: STGCN(1, 1, history=12, horizon=1, channels=(8, 8)), ["channels", "three", "(8, 8)"]),
        (lambda x, a: STGCN(1, 1, history=12, horizon=1, channels=()), ["channels", "three", "()"]),
        (lambda x, a: STGCN(1, 1, history=12, horizon=1, channels=64), ["channels", "three", "64"]),
        (lambda x, a: small_stgcn()(x[:, :9], a), ["x", "10 time steps", "(2, 9, 12, 2)"]),
        (lambda x, a: small_stgcn()(torch.cat([x, x], 1), a), ["x", "10 time steps", "forecast_series"]),
        (lambda x, a: small_stgcn().forecast_series(x[:, :9], a), ["x", "at least 10", "(2, 9, 12, 2)"]),
        (lambda x, a: small_stgcn()(x[..., :1], a), ["x", "2 features", "(2, 10, 12, 1)"]),
        (lambda x, a: small_stgcn()(x[0], a), ["x", "(batch, time, node, feature)", "(10, 12, 2)"]),
        (lambda x, a: small_stgcn()(x, torch.eye(5)), ["x", "5 nodes"]),
        (lambda x, a: small_stgcn()(x), ["operator", "NoneType"]),
        (lambda x, a: small_stgcn()(x.numpy(), a), ["x", "tensor", "ndarray"]),
    ],
)
def test_stgcn_refuses_what_does_not_fit(graph, call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call(torch.randn(2, 10, 12, 2), gcn_operator(graph))
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- STGCN with a learned graph, or no norm


def adaptive_stgcn(nodes=12, **options) -> STGCN:
    options = {"history": 5, "horizon": 3, "channels": (8, 4, 7), "kernel_size": 2, "blocks": 2} | options
    return randomise(STGCN(2, 1, spatial="adaptive", num_nodes=nodes, **options))


@pytest.mark.parametrize("nodes", [1, 5, 12])
def test_a_learned_graph_is_an_average_that_all_blocks_share(nodes):
    """The same network given that average as an operator says the same."""
    model, x = adaptive_stgcn(nodes), torch.randn(4, 9, nodes, 2)
    assert model(x[:, :5]).shape == (4, 3, nodes, 1)
    operator = torch.softmax(F.relu(model.adjacency.target @ model.adjacency.source.T), dim=1)
    torch.testing.assert_close(operator.sum(dim=1), torch.ones(nodes))
    given = STGCN(2, 1, 5, 3, channels=(8, 4, 7), kernel_size=2, blocks=2, spatial="gcn")
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("adjacency")}
    given.load_state_dict(weights)
    torch.testing.assert_close(model.forecast_series(x), given.forecast_series(x, operator), atol=1e-6, rtol=1e-5)
    assert torch.equal(model(x[:, :5], torch.zeros(3, 3)), model(x[:, :5]))  # it takes no operator


def test_a_gradient_reaches_the_learned_graph():
    model = adaptive_stgcn()
    model(torch.randn(4, 5, 12, 2)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert {name for name, _ in model.named_parameters()} >= {"adjacency.source", "adjacency.target"}


def test_a_learned_graph_finds_the_station_that_matters():
    """Each station follows the one in the west; nobody tells the network.

    Not every station finds it: the relu lets no gradient through where source and target begin opposed.
    """
    windows, errors = carried_windows(400, 1)[0], {}
    for spatial in ("adaptive", "none"):
        torch.manual_seed(0)
        model = STGCN(
            1, 1, 1, 1, (8, 8, 8), 1, kernel_size=1, spatial=spatial, num_nodes=8 if spatial == "adaptive" else None
        )
        fit(model, windows, None, epochs=15, learning_rate=3e-2, progress=False)
        errors[spatial] = evaluate(model, windows)
        if spatial == "adaptive":
            share, heard = model.adjacency().detach()[1:].max(dim=1)
    assert errors["adaptive"] < 0.7 < 0.9 < errors["none"]
    found = share > 0.5
    assert found.sum() >= 3 and (heard == torch.arange(7))[found].all()


@each_kind
def test_stgcn_without_norm(graph, kind):
    model, operator = small_stgcn(kind, norm=False), KINDS[kind][1](graph)
    assert not any("norm" in name for name in model.state_dict())
    assert any("norm" in name for name in small_stgcn(kind).state_dict())
    x = torch.randn(2, 12, 12, 2)
    y = model.forecast_series(x, operator)
    assert y.shape == (2, 3, 3, 12, 1)
    torch.testing.assert_close(y[:, 1], model(x[:, 1:11], operator), atol=1e-6, rtol=1e-5)
    model(x[:, :10], operator).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda x: STGCN(2, 1, 5, 3, kernel_size=2, spatial="adaptive"), ["num_nodes", "number of stations", "None"]),
        (lambda x: STGCN(2, 1, 5, 3, kernel_size=2, num_nodes=12), ["num_nodes", "None otherwise", "12", "gcn"]),
        (lambda x: STGCN(2, 1, 5, 3, kernel_size=2, spatial="none", num_nodes=12), ["num_nodes", "12", "none"]),
        (lambda x: adaptive_stgcn(0), ["num_nodes", "at least 1", "0"]),
        (lambda x: adaptive_stgcn(2.5), ["num_nodes", "2.5"]),
        (lambda x: adaptive_stgcn(True), ["num_nodes", "True"]),
        (lambda x: adaptive_stgcn("12"), ["num_nodes", "12"]),
        (lambda x: adaptive_stgcn(5)(x), ["x", "5 nodes", "12"]),
        (lambda x: adaptive_stgcn()(x[..., :1]), ["x", "2 features"]),
        (lambda x: adaptive_stgcn()(x[:, :4]), ["x", "5 time steps"]),
    ],
)
def test_a_learned_graph_refuses_what_does_not_fit(call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call(torch.randn(2, 5, 12, 2))
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- the linear skip


def linear_skip(lags=3, horizon=2, nodes=4, out_features=2, in_features=1, **options) -> LinearSkip:
    options = {"channels": (5, 4, 6), "blocks": 1, "kernel_size": 2, "spatial": "none"} | options
    network = randomise(STGCN(in_features, out_features, 4, horizon, **options))
    return LinearSkip(network, torch.randn(horizon, lags, nodes, nodes), torch.randn(horizon, nodes)).eval()


@pytest.mark.parametrize("lags", [1, 3, 4])
def test_linear_skip_forecasts_a_stretch_as_window_by_window(lags):
    model = linear_skip(lags=lags)
    torch.nn.init.normal_(model.network.out.weight)
    x, operator = torch.randn(2, model.history + 6, 4, 1), torch.eye(4)
    expected = torch.stack([model(x[:, s : s + model.history], operator) for s in range(7)], dim=1)
    torch.testing.assert_close(model.forecast_series(x, operator), expected, atol=1e-5, rtol=1e-5)


def linear_by_loops(model: LinearSkip, x: torch.Tensor) -> torch.Tensor:
    """(history, N, F) -> (horizon, N); lag p reaches p steps back from the newest one."""
    horizon, lags, nodes, _ = model.coefficients.shape
    y = torch.zeros(horizon, nodes)
    for h in range(horizon):
        for i in range(nodes):
            y[h, i] = model.intercept[h, i]
            for p in range(lags):
                for j in range(nodes):
                    y[h, i] += model.coefficients[h, p, i, j] * x[len(x) - 1 - p, j, 0]
    return y


@pytest.mark.parametrize(("lags", "in_features"), [(1, 1), (3, 1), (4, 1), (2, 3)])
def test_linear_skip_begins_as_exactly_the_linear_forecast(lags, in_features):
    model, x = linear_skip(lags, in_features=in_features), torch.randn(3, 4, 4, in_features)
    y = model(x)
    assert y.shape == (3, 2, 4, 2)
    for b in range(3):
        torch.testing.assert_close(y[b, ..., 0], linear_by_loops(model, x[b]), atol=1e-5, rtol=1e-5)
    assert (y[..., 1] == 0).all()  # the linear forecast is added to the first feature alone


@pytest.mark.parametrize("out_features", [1, 2])
def test_linear_skip_is_the_sum_of_its_parts(out_features):
    model, x = linear_skip(out_features=out_features), torch.randn(3, 4, 4, 1)
    nn.init.normal_(model.network.out.weight)
    nn.init.normal_(model.network.out.bias)
    y, said = model(x), model.network(x)
    linear = torch.stack([linear_by_loops(model, x[b]) for b in range(3)])
    torch.testing.assert_close(y[..., 0], said[..., 0] + linear, atol=1e-5, rtol=1e-5)
    assert torch.equal(y[..., 1:], said[..., 1:])


def test_linear_skip_hands_the_operator_on(graph):
    model, x = linear_skip(nodes=12, spatial="gcn"), torch.randn(2, 4, 12, 1)
    nn.init.normal_(model.network.out.weight)
    for operator in (gcn_operator(graph), torch.eye(12)):
        difference = model(x, operator) - model.network(x, operator)
        torch.testing.assert_close(difference[..., 0], torch.stack([linear_by_loops(model, one) for one in x]))
    with pytest.raises(TypeError, match="operator"):
        model(x)


def test_training_leaves_the_linear_skip_alone_and_moves_every_weight_of_the_network():
    model, x = linear_skip(), torch.randn(16, 4, 4, 1)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert {"coefficients", "intercept"} <= before.keys()  # they are saved with the weights
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"network"}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    for _ in range(3):  # the first step moves the last layer, the others what lies before it
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name in ("coefficients", "intercept")), name


def test_a_copy_of_a_linear_skip_is_the_same():
    model, x = linear_skip(), torch.randn(2, 4, 4, 1)
    nn.init.normal_(model.network.out.weight)
    fresh = linear_skip()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x)) and torch.equal(copy.deepcopy(model)(x), model(x))


def zeros(*shapes) -> list[torch.Tensor]:
    return [torch.zeros(shape) for shape in shapes]


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda n, x: LinearSkip(n, *zeros((2, 3, 4), (2, 4))), ["(horizon, lags, N, N)", "(2, 3, 4)"]),
        (lambda n, x: LinearSkip(n, *zeros((2, 3, 4, 5), (2, 4))), ["(horizon, lags, N, N)", "(2, 3, 4, 5)"]),
        (lambda n, x: LinearSkip(n, *zeros((2, 0, 4, 4), (2, 4))), ["(horizon, lags, N, N)", "(2, 0, 4, 4)"]),
        (lambda n, x: LinearSkip(n, *zeros((2, 3, 4, 4), (2, 5))), ["intercept", "(horizon, N)", "(2, 5)"]),
        (lambda n, x: LinearSkip(n, *zeros((2, 3, 4, 4), (4,))), ["intercept", "(4,)"]),
        (lambda n, x: LinearSkip(n, *zeros((1, 3, 4, 4), (1, 4))), ["coefficients", "2 lead times", "1"]),
        (lambda n, x: LinearSkip(n, *zeros((3, 3, 4, 4), (3, 4))), ["coefficients", "2 lead times", "3"]),
        (lambda n, x: linear_skip()(x[:, :, :3]), ["x", "4 nodes", "(2, 4, 3, 1)"]),
        (lambda n, x: linear_skip()(x[:, :2]), ["x", "3 time steps", "(2, 2, 4, 1)"]),
        (lambda n, x: linear_skip()(x[:, :3]), ["x", "4 time steps", "(2, 3, 4, 1)"]),
        (lambda n, x: linear_skip()(x[0]), ["x", "(batch, time, node, feature)", "(4, 4, 1)"]),
        (lambda n, x: linear_skip()(torch.cat([x, x], -1)), ["x", "1 features", "(2, 4, 4, 2)"]),
        (lambda n, x: linear_skip()(x.numpy()), ["x", "tensor", "ndarray"]),
    ],
)
def test_linear_skip_refuses_what_does_not_fit(call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call(linear_skip().network, torch.randn(2, 4, 4, 1))
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- classifier


def small_classifier(level="graph", **options) -> STGCNClassifier:
    return randomise(STGCNClassifier(2, 3, level, **({"channels": (8, 6), "kernel_size": 3} | options)))


@pytest.mark.parametrize(("level", "shape"), [("graph", (4, 3)), ("node", (4, 12, 3))])
def test_classifier_shapes(graph, level, shape):
    operators = directional_operators(graph)
    for steps in (1, 2, 9):
        assert small_classifier(level)(torch.randn(4, steps, 12, 2), operators).shape == shape


def test_node_classes_follow_a_permutation_and_graph_classes_ignore_it(places):
    lat, lon = places
    order = np.random.default_rng(3).permutation(12)
    before, after = (directional_operators(knn_graph(lat[o], lon[o], 3)) for o in (np.arange(12), order))
    x = torch.randn(2, 7, 12, 2)
    nodes, whole = small_classifier("node"), small_classifier("graph")
    y = nodes(x, before)
    torch.testing.assert_close(nodes(x[:, :, order], after), y[:, order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole(x[:, :, order], after), whole(x, before), atol=1e-5, rtol=1e-4)


def test_classifier_of_graph_is_the_mean_of_nodes(graph):
    """The last map is linear, so the mean over the stations may be taken before or after it."""
    whole, nodes = small_classifier("graph"), small_classifier("node")
    nodes.load_state_dict(whole.state_dict())
    x, operators = torch.randn(2, 7, 12, 2), directional_operators(graph)
    torch.testing.assert_close(nodes(x, operators).mean(1), whole(x, operators), atol=1e-6, rtol=1e-5)


def test_classifier_samples_are_independent(graph):
    model, x, operators = small_classifier().train(), torch.randn(3, 7, 12, 2), directional_operators(graph)
    torch.testing.assert_close(model(x[1:2], operators), model(x, operators)[1:2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("level", ["graph", "node"])
def test_classifier_gradient_reaches_every_parameter(graph, level):
    model = small_classifier(level)
    model(torch.randn(2, 7, 12, 2), directional_operators(graph)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda x, a: STGCNClassifier(2, 3, level="edge"), ["level", "graph", "node", "edge"]),
        (lambda x, a: STGCNClassifier(2, 3, kernel_size=4), ["kernel_size", "odd", "4"]),
        (lambda x, a: STGCNClassifier(2, 3, channels=()), ["channels", "at least one"]),
        (lambda x, a: STGCNClassifier(2, 0), ["num_classes", "0"]),
        (lambda x, a: STGCNClassifier(2, 3, sectors=0), ["sectors", "0"]),
        (lambda x, a: small_classifier()(x[..., :1], a), ["x", "2 features", "(2, 7, 12, 1)"]),
        (lambda x, a: small_classifier()(x[0], a), ["x", "(batch, time, node, feature)", "(7, 12, 2)"]),
        (lambda x, a: small_classifier()(x, a[:3]), ["operators", "4 matrices", "3"]),
        (lambda x, a: small_classifier()(x, None), ["operators", "4 matrices", "none"]),
        (lambda x, a: small_classifier()(x[None], a), ["x", "(batch, time, node, feature)", "(1, 2, 7, 12, 2)"]),
    ],
)
def test_classifier_refuses_what_does_not_fit(graph, call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call(torch.randn(2, 7, 12, 2), directional_operators(graph))
    assert all(part in str(error.value) for part in parts), str(error.value)


# --------------------------------------------------------- direction of travel: a problem with a known answer


RING = grid_graph([50.0], np.arange(0, 360, 30), neighbours=4)  # 12 stations round a circle of latitude


def travelling_waves(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Waves (B, T, N, 1) that move east (class 0), each followed by its mirror image that moves west (class 1)."""
    rng = np.random.default_rng(seed)
    t, station = np.arange(8)[None, :, None], np.arange(12)[None, None, :]
    phase, speed = rng.uniform(0, 2 * np.pi, (samples, 1, 1)), rng.uniform(0.4, 0.8, (samples, 1, 1))
    wave = np.sin(2 * np.pi * station * rng.integers(1, 3, (samples, 1, 1)) / 12 - speed * t + phase)
    east = wave + 0.3 * rng.standard_normal(wave.shape)
    x = np.stack([east, east[:, :, ::-1]], axis=1).reshape(2 * samples, 8, 12, 1)
    return torch.tensor(x.copy(), dtype=torch.float32), torch.tensor([0, 1]).repeat(samples)


def accuracy_after_training(sectors: int, steps: int = 80) -> float:
    torch.manual_seed(0)
    model = STGCNClassifier(1, 2, channels=(8, 8), kernel_size=3, sectors=sectors)
    operators = directional_operators(RING, sectors)
    x, y = travelling_waves(64, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x, operators), y).backward()
        optimizer.step()
    x, y = travelling_waves(100, seed=2)
    with torch.no_grad():
        return (model.eval()(x, operators).argmax(1) == y).float().mean().item()


def test_compass_sectors_tell_eastward_from_westward_waves():
    assert accuracy_after_training(sectors=4) >= 0.95


def test_isotropic_neighbours_cannot_tell_eastward_from_westward_waves():
    """A wave and its mirror image have the same neighbours' means, so one of each pair must be wrong."""
    model, x = STGCNClassifier(1, 2, channels=(8, 8), kernel_size=3, sectors=1), travelling_waves(20, 0)[0]
    logits = model(x, directional_operators(RING, 1))
    torch.testing.assert_close(logits[::2], logits[1::2], atol=1e-5, rtol=1e-5)
    assert 0.4 <= accuracy_after_training(sectors=1) <= 0.6


def test_sizes_may_be_numpy_integers_and_channels_a_list(graph):
    one, steps = np.int64(1), np.int64(9)
    x, a = torch.randn(2, 9, 12, 1), gcn_operator(graph)
    model = STGCN(one, one, steps, np.int32(3), channels=[8, 4, 8], blocks=one, kernel_size=np.int64(2))
    assert model(x, a).shape == (2, 3, 12, 1)
    article = ArticleSTGCN(np.int64(12), one, steps, np.int64(3))
    assert article(x.transpose(1, 2), graph.edge_index).shape == (2, 12, 3)
    classifier = STGCNClassifier(one, np.int64(3), channels=[8], kernel_size=np.int64(3))
    assert classifier(x, directional_operators(graph)).shape == (2, 3)


def test_default_orders_fit_the_default_operators(graph):
    x = torch.randn(2, 9, 12, 1)
    assert STGCN(1, 1, 9, 2, spatial="directional")(x, directional_operators(graph)).shape == (2, 2, 12, 1)
    assert STGCN(1, 1, 9, 2, spatial="cheb").blocks[0].space.K == 3


@each_kind
def test_a_history_of_exactly_the_blocks_and_one_sample(graph, kind):
    """Nothing is left to collect but one step, and there is one forecast in the series."""
    model, operator = small_stgcn(kind, history=9).eval(), KINDS[kind][1](graph)
    x = torch.randn(1, 9, 12, 2)
    assert torch.equal(model.forecast_series(x, operator)[:, 0], model(x, operator))


def test_article_can_be_copied_with_its_sparse_operator():
    graph = grid_graph(np.arange(18.0), np.arange(18.0))
    model = ArticleSTGCN(324, 1, 3, 2).eval()
    x = torch.randn(324, 3, 1)
    expected = model(x, graph.edge_index)
    assert model._operator[2].layout == torch.sparse_csr
    assert torch.equal(copy.deepcopy(model)(x, graph.edge_index), expected)


def test_article_refuses_weights_that_are_no_tensor(graph):
    model = ArticleSTGCN(12, 1, 3, 2)
    model(torch.zeros(12, 3, 1), graph.edge_index, graph.edge_weight)
    with pytest.raises(TypeError, match="edge_weight.*ndarray"):
        model(torch.zeros(12, 3, 1), graph.edge_index, graph.edge_weight.numpy())


# ---------------------------------------------------------------------------- the mesh step


@pytest.fixture
def step():
    return randomise(MeshStep(2, history=3, channels=8, rounds=2))


@pytest.fixture
def weather():
    return torch.randn(4, 3, 12, 2)


def by_loops(model: MeshStep, x: torch.Tensor, edges) -> torch.Tensor:
    """(history, N, F) -> (N, F_out), one node and one edge after the other."""

    def mlp(part, *inputs):
        p, q = (part.inner.weight @ torch.cat(inputs) + part.inner.bias).chunk(2)
        return part.out.weight @ (p * torch.sigmoid(q)) + part.out.bias

    index, features = edges
    h = [mlp(model.encode_node, x[:, i].flatten()) for i in range(x.shape[1])]
    e = [mlp(model.encode_edge, row) for row in features]
    for message, update in zip(model.message, model.update, strict=True):
        e = [e[k] + mlp(message, e[k], h[j], h[i]) for k, (j, i) in enumerate(index.T)]
        after = []
        for i in range(len(h)):
            heard = [e[k] for k in range(len(e)) if index[1, k] == i]
            mean = torch.stack(heard).mean(0) if heard else torch.zeros_like(h[i])
            after.append(h[i] + mlp(update, h[i], mean))
        h = after
    return x[-1, :, : model.out_features] + torch.stack([mlp(model.decode, row) for row in h])


@pytest.mark.parametrize("outputs", [None, 1])
def test_mesh_step_equals_its_recomputation_edge_by_edge(graph, weather, outputs):
    model = randomise(MeshStep(2, outputs, history=3, channels=8, rounds=2))
    edges = mesh_edges(graph)
    y = model(weather, edges)
    assert y.shape == (4, 1, 12, outputs or 2)
    for b in range(4):
        expected = by_loops(model, weather[b], edges)
        torch.testing.assert_close(y[b, 0], expected, atol=1e-5, rtol=1e-4)


def test_mesh_edges_say_where_the_source_lies():
    # node 1 lies one degree east of node 0, node 2 one degree north
    graph = radius_graph([0.0, 0.0, 1.0], [10.0, 11.0, 10.0], radius_km=112)
    index, features = mesh_edges(graph, length_scale=100)
    where = {(int(j), int(i)): row for (j, i), row in zip(index.T, features, strict=True)}
    degree = 111.195 / 100
    assert set(where) == {(0, 1), (1, 0), (0, 2), (2, 0)}
    for pair, expected in {(1, 0): (1, 1, 0), (0, 1): (1, -1, 0), (2, 0): (1, 0, 1), (0, 2): (1, 0, -1)}.items():
        np.testing.assert_allclose(where[pair], degree * np.array(expected), atol=1e-4)
    assert mesh_edges(graph)[1][:, 0].mean() == pytest.approx(1, abs=1e-6)  # in mean lengths
    assert set(map(tuple, index.T.tolist())) == set(map(tuple, graph.edge_index.T.tolist()))


def test_mesh_step_follows_a_permutation_of_the_stations(step, weather, places):
    lat, lon = places
    order = np.random.default_rng(3).permutation(12)
    a, b = mesh_edges(knn_graph(lat, lon, 3)), mesh_edges(knn_graph(lat[order], lon[order], 3))
    torch.testing.assert_close(step(weather[:, :, order], b), step(weather, a)[:, :, order], atol=1e-5, rtol=1e-4)


def test_mesh_step_does_not_know_where_on_the_map_it_is(step, weather, places):
    """Moved along the equator the same constellation of stations gives the same forecast: weights survive."""
    lat, lon = places
    edges = [mesh_edges(knn_graph(lat - 53.5, lon + shift, 3), length_scale=90.0) for shift in (0, 100)]
    torch.testing.assert_close(step(weather, edges[0]), step(weather, edges[1]), atol=1e-4, rtol=1e-4)


def test_mesh_step_tells_east_from_west(step):
    """The same distances, mirrored: a layer that only sees distances would not notice."""
    lat, lon = [0.0, 0.0, 0.0], np.array([0.0, 1.0, 2.0])
    x = torch.randn(1, 3, 3, 2)
    there = step(x, mesh_edges(radius_graph(lat, lon, 120)))
    mirrored = step(x, mesh_edges(radius_graph(lat, -lon, 120)))
    assert (there - mirrored).abs().max() > 1e-3


def test_without_messages_neighbours_have_no_influence(step, graph, weather):
    edges = mesh_edges(graph)
    assert graph.edge_index.shape[1] > 0
    changed = weather.clone()
    changed[:, :, 5] += 3
    moved = (step(changed, edges) - step(weather, edges)).abs().amax((0, 1, 3)) > 1e-5
    assert moved.sum() > 1  # messages arrive
    for part in step.message:
        nn.init.zeros_(part.out.weight)
        nn.init.zeros_(part.out.bias)
    moved = (step(changed, edges) - step(weather, edges)).abs().amax((0, 1, 3)) > 1e-5
    assert moved.nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_each_round_reaches_one_edge_further(rounds):
    model = randomise(MeshStep(1, rounds=rounds, channels=8)).double()  # three edges far the news is faint
    index, features = mesh_edges(radius_graph(np.zeros(8), np.arange(8.0), 112))  # a line
    x = torch.randn(1, 1, 8, 1).double()
    changed = x.clone()
    changed[:, :, 0] += 3
    edges = (index, features.double())
    moved = (model(changed, edges) - model(x, edges)).abs().flatten() > 1e-12
    assert moved.nonzero().flatten().tolist() == list(range(rounds + 1))


def test_messages_run_from_source_to_target(directed):
    model = randomise(MeshStep(1, rounds=1, channels=8))
    edges, x = mesh_edges(directed), torch.randn(1, 1, 7, 1)
    changed = x.clone()
    changed[:, :, 5] += 3  # node 5 sends to node 4 alone
    moved = (model(changed, edges) - model(x, edges)).abs().flatten() > 1e-6
    assert moved.nonzero().flatten().tolist() == [4, 5]


def test_isolated_nodes_and_a_graph_without_edges_are_served(step, directed, graph):
    x = torch.randn(2, 3, 7, 2)
    y = step(x, mesh_edges(directed))  # node 6 is isolated
    assert y.isfinite().all()
    torch.testing.assert_close(y[0, 0, 6], by_loops(step, x[0], mesh_edges(directed))[6], atol=1e-5, rtol=1e-4)
    graph.edge_index, graph.edge_weight = graph.edge_index[:, :0], graph.edge_weight[:0]
    edges = mesh_edges(graph)
    assert edges[0].shape == (2, 0) and edges[1].shape == (0, 3)
    assert step(torch.randn(2, 3, 12, 2), edges).isfinite().all()


def test_more_edges_are_no_louder(step):
    """The mean over the neighbours, not the sum: the same news told twice is the same news."""
    x = torch.randn(1, 3, 3, 2)
    x[:, :, 2] = x[:, :, 1]
    index, features = torch.tensor([[1, 2], [0, 0]]), torch.tensor([[1.0, 1, 0], [1, 1, 0]])
    once, twice = step(x, (index[:, :1], features[:1])), step(x, (index, features))
    torch.testing.assert_close(once[:, :, 0], twice[:, :, 0], atol=1e-5, rtol=1e-4)


def test_every_weight_of_the_mesh_step_learns_and_none_counts_nodes(step, graph, weather):
    step(weather, mesh_edges(graph)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in step.parameters())
    elsewhere = mesh_edges(knn_graph(*np.random.default_rng(0).uniform(0, 9, (2, 40)), 4))
    assert step(torch.randn(1, 3, 40, 2), elsewhere).shape == (1, 1, 40, 2)


def test_samples_of_a_batch_do_not_mix(step, graph, weather):
    edges = mesh_edges(graph)
    together = step(weather, edges)
    for b in range(4):
        torch.testing.assert_close(step(weather[b : b + 1], edges)[0], together[b], atol=1e-6, rtol=1e-5)


def test_mesh_step_says_when_it_has_nothing_to_add(step, graph, weather):
    """What is decoded is an increment: without it the step is persistence."""
    nn.init.zeros_(step.decode.out.weight)
    nn.init.zeros_(step.decode.out.bias)
    assert torch.equal(step(weather, mesh_edges(graph)), weather[:, -1:])


def test_mesh_step_is_trained_and_kept_like_any_model(step, graph, weather):
    twin = copy.deepcopy(step)
    assert torch.equal(twin(weather, mesh_edges(graph)), step(weather, mesh_edges(graph)))
    fresh = MeshStep(2, history=3, channels=8, rounds=2)
    fresh.load_state_dict(step.state_dict())
    assert torch.equal(fresh(weather, mesh_edges(graph)), step(weather, mesh_edges(graph)))


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s, x, e: s(x.numpy(), e), TypeError, ["x", "torch tensor", "ndarray"]),
        (lambda s, x, e: s(x[0], e), ValueError, ["x", "(batch, time, node, feature)", "(3, 12, 2)"]),
        (lambda s, x, e: s(x[..., :1], e), ValueError, ["x", "2 features", "(4, 3, 12, 1)"]),
        (lambda s, x, e: s(x[:, :2], e), ValueError, ["x", "3 time steps", "(4, 2, 12, 2)"]),
        (lambda s, x, e: s(x.double(), e), TypeError, ["x", "torch.float32", "torch.float64"]),
        (lambda s, x, e: s(x), TypeError, ["edges", "mesh_edges", "NoneType"]),
        (lambda s, x, e: s(x, e[1]), TypeError, ["edges", "mesh_edges", "Tensor"]),
        (lambda s, x, e: s(x, (e[0], e[1][:, :2])), ValueError, ["edges", "(edges, 3)"]),
        (lambda s, x, e: s(x, (e[0].float(), e[1])), ValueError, ["edges", "torch.float32"]),
        (lambda s, x, e: s(x[:, :, :6], e), ValueError, ["edges", "0 to 5", "11"]),
        (lambda s, x, e: MeshStep(1, 2), ValueError, ["out_features", "at most the 1", "2"]),
        (lambda s, x, e: MeshStep(0), ValueError, ["in_features", "0"]),
        (lambda s, x, e: MeshStep(1, rounds=0), ValueError, ["rounds", "0"]),
        (lambda s, x, e: MeshStep(1, history=1.5), ValueError, ["history", "1.5"]),
        (lambda s, x, e: MeshStep(1, channels=True), ValueError, ["channels", "True"]),
        (lambda s, x, e: mesh_edges(e), TypeError, ["graph", "Data", "tuple"]),
        (lambda s, x, e: mesh_edges(knn_graph([0, 1], [0, 1], 1), 0), ValueError, ["length_scale", "0"]),
        (lambda s, x, e: mesh_edges(knn_graph([0, 1], [0, 1], 1), np.inf), ValueError, ["length_scale", "inf"]),
        (lambda s, x, e: rollout(s, x, 0, e), ValueError, ["steps", "at least 1", "0"]),
        (lambda s, x, e: Rollout(s, 0), ValueError, ["horizon", "0"]),
        (lambda s, x, e: Rollout(print, 3), TypeError, ["step", "torch.nn.Module"]),
        (lambda s, x, e: rollout(MeshStep(2, 1, history=3), x, 2, e), ValueError, ["step", "(4, 1, 12, 2)", "12, 1)"]),
        (lambda s, x, e: rollout(lambda x, o: x, x, 2, e), ValueError, ["step", "(4, 3, 12, 2)", "(4, 1, 12, 2)"]),
    ],
)
def test_mesh_step_and_rollout_refuse_what_does_not_fit(step, weather, graph, call, error, parts):
    with pytest.raises(error) as raised:
        call(step, weather, mesh_edges(graph))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_mesh_edges_need_the_places(graph):
    graph.pos = graph.pos[:5]
    with pytest.raises(ValueError, match=r"pos of shape \(12, 2\).*\(5, 2\)"):
        mesh_edges(graph)


# ---------------------------------------------------------------------------- rolling forward


def test_rollout_is_the_step_called_again_and_again(step, graph, weather):
    edges = mesh_edges(graph)
    rolled = rollout(step, weather, 4, edges)
    assert rolled.shape == (4, 4, 12, 2)
    past = [weather[:, t] for t in range(3)]
    for h in range(4):
        past.append(step(torch.stack(past[-3:], dim=1), edges)[:, 0])
        assert torch.equal(rolled[:, h], past[-1])
    assert torch.equal(Rollout(step, 4)(weather, edges), rolled)


def test_rollout_takes_any_one_step_model(graph, weather):
    """STGCN with a horizon of one, and a matrix."""
    model = randomise(STGCN(2, 2, history=3, horizon=1, channels=(8, 4, 8), blocks=1, kernel_size=2))
    operator = gcn_operator(graph)
    rolled = rollout(model, weather, 3, operator)
    again = model(torch.cat([weather[:, 2:], rolled[:, :2]], dim=1), operator)
    assert torch.equal(rolled[:, 2:], again)
    powers = rollout(lambda x, a: a @ x[:, -1:], weather, 3, operator)
    torch.testing.assert_close(powers[:, 2], torch.linalg.matrix_power(operator, 3) @ weather[:, -1])


def test_rollout_forgets_what_is_older_than_the_history(step, graph, weather):
    """The forecast for step h does not depend on later ones, and a longer roll begins as a shorter one."""
    edges = mesh_edges(graph)
    assert torch.equal(rollout(step, weather, 5, edges)[:, :2], rollout(step, weather, 2, edges))
    first = rollout(step, weather, 3, edges)
    onwards = rollout(step, first, 2, edges)  # three forecasts are all the history that there is
    assert torch.equal(rollout(step, weather, 5, edges)[:, 3:], onwards)


def test_gradients_flow_through_all_rolled_steps(step, graph, weather):
    edges = mesh_edges(graph)
    for part in (step, Rollout(step, 4)):
        x = weather.clone().requires_grad_()
        step.zero_grad()
        part(x, edges)[:, -1].sum().backward()
        assert all(p.grad.abs().max() > 0 for p in step.parameters())
        assert x.grad.abs().max() > 0
    one, last = [torch.autograd.grad(rollout(step, weather, h, edges)[:, -1].sum(), step.parameters()) for h in (1, 4)]
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(one, last, strict=True))


def carried_windows(steps: int, horizon: int):
    """A field on a line of stations that moves east by one station a step, with a new value in the west."""
    rng = np.random.default_rng(0)
    new = rng.standard_normal(steps + 8)
    values = np.stack([new[8 - i : 8 - i + steps] for i in range(8)], axis=1)
    times = np.arange(np.datetime64("2000-01-01"), np.datetime64("2000-01-01") + steps)
    ds = xr.Dataset({"v": (("time", "station"), values)}, coords={"time": times, "station": list("abcdefgh")})
    return WindowDataset(ds, "v", "v", 1, horizon), mesh_edges(radius_graph(np.zeros(8), np.arange(8.0), 112))


def test_training_through_the_rollout_trains_the_step():
    """On a field that moves by a station a step, three steps ahead are known for all but three stations."""
    torch.manual_seed(1)
    windows, edges = carried_windows(300, 3)
    step = MeshStep(1, channels=8, rounds=1)
    model = Rollout(step, 3)
    before = evaluate(model, windows, operator=edges)
    fit(model, windows, windows, operator=edges, epochs=40, patience=40, learning_rate=1e-2, progress=False)
    after = evaluate(model, windows, operator=edges)
    unknowable = (1 + 2 + 3) / (3 * 8)  # new values of variance one that come in from the west
    assert before > 1 and after < unknowable + 0.15, (before, after)
    one, _ = carried_windows(300, 1)
    assert evaluate(step, one, operator=edges) < 1 / 8 + 0.1  # the step that was wrapped has learned it
    assert predict(model, windows, operator=edges).shape == (len(windows), 3, 8, 1)


# ---------------------------------------------------------------------------- networks that fill gaps


IMPUTERS = {
    "stgcn": (lambda **options: STGCNImputer(7, channels=8, blocks=3, **options), gcn_operator),
    "stgcn, directional": (lambda: STGCNImputer(7, channels=8, blocks=2, spatial="directional"), directional_operators),
    "stgcn, no graph": (lambda: STGCNImputer(7, channels=8, blocks=2, spatial="none"), lambda graph: None),
    "attention": (lambda: AttentionImputer(7, 3, channels=8, heads=2, reach=1), mesh_edges),
    "attention at one time": (lambda: AttentionImputer(7, channels=8, heads=4, reach=0), mesh_edges),
    "grin": (lambda: RecurrentImputer(7, hidden=6), gcn_operator),
    "grin, directional": (lambda: RecurrentImputer(7, hidden=6, spatial="directional"), directional_operators),
}
each_imputer = pytest.mark.parametrize("kind", IMPUTERS)


def imputer(kind: str) -> nn.Module:
    """With a last layer that says something: as made, all of them say zero."""
    torch.manual_seed(0)
    model = randomise(IMPUTERS[kind][0]())
    nn.init.normal_(model.out.out.weight, std=0.3)
    return model


def cells(nodes=12, steps=9, batch=3, share=0.5, seed=0) -> torch.Tensor:
    """What the harness gives: value, shown, first guess, its spread, residual, season."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn((batch, steps, nodes, 7), generator=rng)
    shown = torch.rand((batch, steps, nodes), generator=rng) < share
    x[..., 1] = shown.float()
    x[..., [0, 4]] *= shown[..., None]
    return x


def moved(model, x, changed, operator) -> torch.Tensor:
    """(B, T, N), where the answer differs."""
    return (model(changed, operator) - model(x, operator)).abs().amax(-1) > 1e-5


@each_imputer
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_imputers_take_any_length_and_begin_as_the_first_guess(graph, kind, steps):
    operator, x = IMPUTERS[kind][1](graph), cells(steps=steps)
    fresh = IMPUTERS[kind][0]()
    assert torch.equal(fresh(x, operator), torch.zeros(3, steps, 12, 2))
    y = imputer(kind)(x, operator)
    assert y.shape == (3, steps, 12, 2) and y.abs().min() > 0


@each_imputer
def test_imputers_follow_a_permutation_of_the_stations(places, kind):
    lat, lon = places
    order = np.random.default_rng(3).permutation(12)
    a, b = (IMPUTERS[kind][1](knn_graph(lat[o], lon[o], 3)) for o in (np.arange(12), order))
    model, x = imputer(kind), cells()
    torch.testing.assert_close(model(x[:, :, order], b), model(x, a)[:, :, order], atol=1e-5, rtol=1e-4)


@each_imputer
def test_imputers_move_to_another_region_and_samples_do_not_mix(kind):
    operator = IMPUTERS[kind][1](knn_graph(*np.random.default_rng(0).uniform(0, 9, (2, 40)), 4))
    model, x = imputer(kind), cells(nodes=40)
    together = model(x, operator)
    assert together.shape == (3, 9, 40, 2)
    for b in range(3):
        torch.testing.assert_close(model(x[b : b + 1], operator)[0], together[b], atol=1e-5, rtol=1e-4)


@each_imputer
def test_every_weight_of_an_imputer_learns_whatever_is_known(graph, kind):
    operator = IMPUTERS[kind][1](graph)
    for share in (0.5, 0.0, 1.0):
        model = imputer(kind)
        y = model(cells(share=share), operator)
        assert y.isfinite().all()
        y.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in gradients)
        if share == 0.5:
            assert len(gradients) == len(list(model.parameters()))
            assert all(g.abs().max() > 0 for g in gradients)


@each_imputer
def test_imputers_look_at_neighbours_and_both_ways_in_time(graph, kind):
    model, operator, x = imputer(kind), IMPUTERS[kind][1](graph), cells(share=1.0)
    changed = x.clone()
    changed[:, 4, 5, [0, 2, 4]] += 3
    where = moved(model, x, changed, operator).any(0)  # (T, N)
    assert where[3, 5] and where[5, 5]
    neighbours = graph.edge_index[1, graph.edge_index[0] == 5]
    assert where[4, neighbours].all() == (kind != "stgcn, no graph")


@each_imputer
def test_imputers_serve_a_graph_without_edges_and_a_single_station(kind):
    graph = knn_graph([0.0, 0.0], [0.0, 9.0], 1)
    graph.edge_index, graph.edge_weight = graph.edge_index[:, :0], graph.edge_weight[:0]
    assert imputer(kind)(cells(nodes=2), IMPUTERS[kind][1](graph)).isfinite().all()
    graph.num_nodes, graph.pos = 1, graph.pos[:1]
    assert imputer(kind)(cells(nodes=1), IMPUTERS[kind][1](graph)).isfinite().all()


@each_imputer
def test_imputers_learn_that_a_station_stays_off_its_neighbours(graph, kind):
    """Each station is off by a number of its own that lasts; in a gap it can be had from before and after alone."""
    torch.manual_seed(1)
    rng = torch.Generator().manual_seed(0)
    operator, model = IMPUTERS[kind][1](graph), IMPUTERS[kind][0]()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    def sample():
        off = torch.randn((16, 1, 12), generator=rng).expand(-1, 12, -1)
        shown = torch.ones(16, 12, 12, dtype=torch.bool)
        shown[:, 4:8] = torch.rand((16, 1, 12), generator=rng) < 0.5
        x = torch.zeros(16, 12, 12, 7)
        x[..., 1] = shown.float()
        x[..., 0] = x[..., 2] = x[..., 4] = off * shown  # the first guess is 0
        return x, off, ~shown

    for _ in range(100):
        x, off, hidden = sample()
        optimizer.zero_grad()
        (model(x, operator)[..., 0] - off)[hidden].square().mean().backward()
        optimizer.step()
    x, off, hidden = sample()
    assert (model(x, operator)[..., 0] - off)[hidden].square().mean() < 0.3 * off[hidden].square().mean()


def step_by_step(model: RecurrentImputer, x: torch.Tensor, operator) -> torch.Tensor:
    """The recurrent imputer as its docstring says it: one direction, one step and one map after the other."""
    both = []
    for direction, run in zip(model.directions, (x, x.flip(1)), strict=True):

        def spread(part, y, direction=direction):
            space = direction.space[part]
            return y + (space(y) if isinstance(space, nn.Linear) else space(y, operator))

        h, seen = torch.zeros(*x.shape[::2], direction.predict.in_features, dtype=x.dtype), []
        for now in run.unbind(1):
            known, residual = now[..., 1:2] > 0.5, now[..., 4:5]
            r = torch.where(known, residual, direction.predict(h))
            heard = torch.tanh(spread(0, direction.ask(torch.cat([r, now, h], dim=-1))))
            seen.append(torch.cat([h, heard], dim=-1))
            r = torch.where(known, residual, direction.improve(seen[-1]))
            gates = torch.sigmoid(spread(1, direction.take(torch.cat([r, now, h], dim=-1))))
            reset, keep = gates.chunk(2, dim=-1)
            new = torch.tanh(spread(2, direction.candidate(torch.cat([r, now, reset * h], dim=-1))))
            h = keep * h + (1 - keep) * new
        both.append(torch.stack(seen, dim=1))
    return model.out(torch.cat([both[0], both[1].flip(1), x], dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("spatial", "order", "operator_of"),
    [
        ("gcn", None, gcn_operator),
        ("gcn", None, lambda graph: gcn_operator(graph, sparse=True)),
        ("cheb", 1, scaled_laplacian),
        ("cheb", 2, scaled_laplacian),
        ("cheb", 4, scaled_laplacian),
        ("directional", 4, directional_operators),
        ("none", None, lambda graph: None),
    ],
)
def test_the_recurrent_imputer_side_by_side_equals_it_step_by_step(graph, spatial, order, operator_of, dtype):
    torch.manual_seed(0)
    model = RecurrentImputer(7, hidden=5, spatial=spatial, order=order).to(dtype)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    operator = operator_of(graph)
    if operator is not None:
        operator = operator.to(dtype) if torch.is_tensor(operator) else [a.to(dtype) for a in operator]
    found = []
    for way in (model, lambda *given: step_by_step(model, *given)):
        x = cells().to(dtype).requires_grad_()
        y = way(x, operator)
        (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)).mean().backward()
        found.append([y.detach(), x.grad, *(weight.grad for weight in model.parameters())])
        model.zero_grad()
    tolerance = 2e-6 if dtype == torch.float32 else 1e-13
    for side_by_side, expected in zip(*found, strict=True):
        torch.testing.assert_close(side_by_side, expected, rtol=tolerance, atol=tolerance)


def test_the_recurrent_imputer_refuses_an_operator_that_does_not_fit(graph):
    x, operators = cells(), directional_operators(graph)
    with pytest.raises(ValueError, match="operators: expected 4 matrices .* found 3"):
        RecurrentImputer(7, 6, spatial="directional")(x, operators[:3])
    with pytest.raises(ValueError, match="12 nodes as in the operator"):
        RecurrentImputer(7, 6)(cells(nodes=9), gcn_operator(graph))
    with pytest.raises(TypeError, match="operator: expected a torch tensor"):
        RecurrentImputer(7, 6)(x, None)


def test_the_recurrent_imputer_under_autocast(graph):
    model, operator = imputer("grin"), gcn_operator(graph)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(cells(), operator)
    torch.testing.assert_close(y.float(), model(cells(), operator), rtol=0.05, atol=0.05)
    y.float().square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize(("blocks", "kernel"), [(1, 3), (2, 3), (3, 3), (2, 5)])
def test_each_block_of_the_stgcn_imputer_reaches_twice_as_far(blocks, kernel):
    model = randomise(STGCNImputer(7, 8, blocks, kernel, spatial="none")).double()
    nn.init.normal_(model.out.out.weight)
    x = torch.randn(1, 41, 1, 7).double()
    changed = x.clone()
    changed[:, 20] += 3
    where = ((model(changed) - model(x)).abs().amax((0, 2, 3)) > 1e-12).nonzero().flatten()
    reach = (kernel - 1) // 2 * (2**blocks - 1)
    assert (int(where.min()), int(where.max())) == (20 - reach, 20 + reach)


@pytest.mark.parametrize("spacing", [1, 2, 3, 8])
@pytest.mark.parametrize("steps", [1, 7, 16])
def test_spaced_convolution_equals_pytorchs_dilation(spacing, steps):
    layer, x = TemporalConv(3, 3, 3, gated=False, causal=False), torch.randn(2, steps, 4, 3)
    expected = F.conv2d(
        x.permute(0, 3, 1, 2), layer.conv.weight, layer.conv.bias, padding=(spacing, 0), dilation=(spacing, 1)
    ).permute(0, 2, 3, 1)
    torch.testing.assert_close(_spaced(layer, x, spacing), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["attention", "attention at one time"])
def test_attention_gives_no_weight_to_what_is_not_known(graph, kind):
    """Whatever stands in a cell that is not known, no other cell hears of it."""
    model, edges, x = imputer(kind), mesh_edges(graph), cells()
    x[:, 4, 5, 1] = 0.0
    changed = x.clone()
    changed[:, 4, 5, [0, 2, 3, 4, 5, 6]] = 1e6
    assert torch.equal(moved(model, x, changed, edges).any(0).nonzero(), torch.tensor([[4, 5]]))
    x[..., 1] = changed[..., 1] = 0.0  # nothing is known at all
    assert torch.equal(moved(model, x, changed, edges).any(0).nonzero(), torch.tensor([[4, 5]]))


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_attention_reaches_so_many_steps_in_space_and_all_steps_in_time(directed, reach):
    model = randomise(AttentionImputer(7, channels=8, heads=2, reach=reach))
    nn.init.normal_(model.out.out.weight)
    x = cells(nodes=7, share=1.0)
    changed = x.clone()
    changed[:, 4, 5, [0, 2, 4]] += 3  # node 5 sends to node 4 alone
    for part in (model.offer[1],):
        nn.init.zeros_(part.weight)  # in time nobody offers anything
        nn.init.zeros_(part.bias)
    where = moved(model, x, changed, mesh_edges(directed)).any(0)
    assert where.nonzero().tolist() == sorted([[4, 5]] + [[4 + lag, 4] for lag in range(-reach, reach + 1)])
    nn.init.normal_(model.offer[1].weight)
    assert moved(model, x, changed, mesh_edges(directed)).any(0)[:, [4, 5]].all()


def test_attention_weights_are_those_of_the_equation():
    scores = torch.randn(2, 5, 3) * 50
    known = torch.rand(2, 5, 3) < 0.5
    known[0, :, 0] = False
    weights = _known_softmax(scores, known, dim=1)
    e = torch.exp(scores.double()) * known
    torch.testing.assert_close(weights.double(), e / (1 + e.sum(1, keepdim=True)), atol=1e-6, rtol=1e-5)
    assert (weights[~known] == 0).all() and (weights[0, :, 0] == 0).all()


def attention_by_loops(model: AttentionImputer, x: np.ndarray, edges) -> np.ndarray:
    """(T, N, F) -> (T, N, 2), one cell, one neighbour and one head after the other, in NumPy."""
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    (steps, nodes, _), c = x.shape, model.ask[0].out_features
    d = c // model.heads

    def mlp(name, *inputs):
        p, q = np.split(w[f"{name}.inner.weight"] @ np.concatenate(inputs) + w[f"{name}.inner.bias"], 2)
        return w[f"{name}.out.weight"] @ (p / (1 + np.exp(-q))) + w[f"{name}.out.bias"]

    def answer(part, h, i, offers):
        """offers: pairs of the hidden features of a known cell and the bias of its scores."""
        ask = w[f"ask.{part}.weight"] @ h[i] + w[f"ask.{part}.bias"]
        top, bottom = np.zeros(c), np.ones(c)
        for other, bias in offers:
            key, value = np.split(w[f"offer.{part}.weight"] @ other + w[f"offer.{part}.bias"], 2)
            for k in range(model.heads):
                at = slice(k * d, (k + 1) * d)
                weight = np.exp(ask[at] @ key[at] / d**0.5 + bias[k])
                top[at] += weight * value[at]
                bottom[at] += weight
        return top / bottom

    index, features = (part.numpy() for part in edges)
    known = x[..., 1] > 0.5
    h = np.array([[mlp("encode", x[t, i]) for i in range(nodes)] for t in range(steps)])
    after = h.copy()
    for t, i in np.ndindex(steps, nodes):
        near = [s for s in range(t - model.reach, t + model.reach + 1) if 0 <= s < steps]
        offers = [
            (h[s, j], mlp("where", features[k], [s - t]))
            for k, j in enumerate(index[0]) if index[1, k] == i for s in near if known[s, j]
        ]  # fmt: skip
        after[t, i] += mlp("update", h[t, i], answer(0, h, (t, i), offers))
    y = np.zeros((steps, nodes, 2))
    for t, i in np.ndindex(steps, nodes):
        lags = [(s, s - t) for s in range(steps) if known[s, i]]
        offers = [(after[s, i], mlp("when", [g / 10, np.sign(g), np.log1p(abs(g))])) for s, g in lags]
        y[t, i] = mlp("out", after[t, i], answer(1, after, (t, i), offers), x[t, i])
    return y


@pytest.mark.parametrize("reach", [0, 1])
def test_attention_imputer_equals_its_recomputation_cell_by_cell(directed, reach):
    model = randomise(AttentionImputer(7, channels=8, heads=2, reach=reach))
    nn.init.normal_(model.out.out.weight)
    x, edges = cells(nodes=7, steps=5, batch=1), mesh_edges(directed)
    expected = attention_by_loops(model, x[0].double().numpy(), edges)
    np.testing.assert_allclose(model(x, edges)[0].detach().numpy(), expected, atol=1e-4, rtol=1e-3)


def grin_by_numpy(part: nn.Module, x: np.ndarray, a: np.ndarray) -> np.ndarray:
    """One direction over (T, N, F) -> (T, N, 2 hidden)."""
    w = {name: p.detach().double().numpy() for name, p in part.named_parameters()}

    def linear(name, y):
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def spread(k, y):
        return y + a @ y @ w[f"space.{k}.weight"] + w[f"space.{k}.bias"]

    def sigmoid(y):
        return 1 / (1 + np.exp(-y))

    hidden = part.predict.in_features
    h, seen = np.zeros((x.shape[1], hidden)), []
    for now in x:
        known, residual = now[:, 1:2] == 1, now[:, 4:5]
        r = np.where(known, residual, linear("predict", h))
        heard = np.tanh(spread(0, linear("ask", np.hstack([r, now, h]))))
        seen.append(np.hstack([h, heard]))
        r = np.where(known, residual, linear("improve", seen[-1]))
        gates = sigmoid(spread(1, linear("take", np.hstack([r, now, h]))))
        reset, keep = gates[:, :hidden], gates[:, hidden:]
        new = np.tanh(spread(2, linear("candidate", np.hstack([r, now, reset * h]))))
        h = keep * h + (1 - keep) * new
    return np.array(seen)


def test_grin_equals_its_recomputation_in_numpy(graph):
    model, x, a = imputer("grin"), cells(batch=1), gcn_operator(graph)
    y, dense = x[0].double().numpy(), a.double().numpy()
    both = [grin_by_numpy(model.directions[0], y, dense), grin_by_numpy(model.directions[1], y[::-1], dense)[::-1]]
    remembered = model._remember(x.permute(1, 2, 0, 3), a)[:, :, 0].detach().numpy()
    np.testing.assert_allclose(remembered, np.concatenate(both, axis=-1), atol=1e-5)
    expected = model.out(torch.from_numpy(np.concatenate([*both, y], axis=-1)).float())
    torch.testing.assert_close(model(x, a)[0], expected, atol=1e-5, rtol=1e-4)


def test_grin_predicts_a_step_before_it_sees_it(graph):
    """The memory that a step starts from knows nothing of the step itself, only the neighbours' answer does."""
    model, operator, x = imputer("grin"), gcn_operator(graph), cells(share=1.0)
    changed = x.clone()
    changed[:, 4, 5, [0, 2, 4]] += 3
    before, after = (model._remember(given.permute(1, 2, 0, 3), operator) for given in (x, changed))  # (T, N, B, 24)
    memory = (after - before)[..., :6].abs().amax((1, 2, 3)) > 1e-6
    assert memory.tolist() == [False] * 5 + [True] * 4


@each_imputer
@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        (lambda x: x.numpy(), TypeError, ["x", "torch tensor", "ndarray"]),
        (lambda x: x[0], ValueError, ["x", "(batch, time, node, feature)", "(9, 12, 7)"]),
        (lambda x: x[..., :5], ValueError, ["x", "7 features", "(3, 9, 12, 5)"]),
        (lambda x: x.double(), TypeError, ["x", "torch.float32", "torch.float64"]),
    ],
)
def test_imputers_refuse_what_does_not_fit(graph, kind, change, error, parts):
    with pytest.raises(error) as raised:
        IMPUTERS[kind][0]()(change(cells()), IMPUTERS[kind][1](graph))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda g, x: STGCNImputer(7)(x[:, :, :6], gcn_operator(g)), ValueError, ["x", "12 nodes", "6"]),
        (lambda g, x: STGCNImputer(7)(x), TypeError, ["operator", "NoneType"]),
        (lambda g, x: AttentionImputer(7)(x), TypeError, ["edges", "mesh_edges", "NoneType"]),
        (lambda g, x: AttentionImputer(7)(x[:, :, :6], mesh_edges(g)), ValueError, ["edges", "0 to 5", "11"]),
        (lambda g, x: AttentionImputer(7, 5)(x, mesh_edges(g)), ValueError, ["edges", "(edges, 5)", ", 3)"]),
        (lambda g, x: RecurrentImputer(7)(x[:, :, :6], gcn_operator(g)), ValueError, ["x", "12 nodes", "6"]),
        (lambda g, x: STGCNImputer(0), ValueError, ["in_features", "0"]),
        (lambda g, x: STGCNImputer(7, kernel_size=4), ValueError, ["kernel_size", "odd", "4"]),
        (lambda g, x: STGCNImputer(7, blocks=0), ValueError, ["blocks", "0"]),
        (lambda g, x: STGCNImputer(7, spatial="mean"), ValueError, ["spatial", "gcn", "mean"]),
        (lambda g, x: AttentionImputer(1), ValueError, ["in_features", "at least 2", "1"]),
        (lambda g, x: AttentionImputer(7, channels=9, heads=2), ValueError, ["channels", "multiple of the 2", "9"]),
        (lambda g, x: AttentionImputer(7, reach=-1), ValueError, ["reach", "-1"]),
        (lambda g, x: RecurrentImputer(4), ValueError, ["in_features", "at least 5", "4"]),
        (lambda g, x: RecurrentImputer(7, hidden=2.5), ValueError, ["hidden", "2.5"]),
        (lambda g, x: RecurrentImputer(7, spatial="mean"), ValueError, ["spatial", "gcn", "mean"]),
    ],
)
def test_imputers_refuse_settings_and_graphs_that_do_not_fit(graph, call, error, parts):
    with pytest.raises(error) as raised:
        call(graph, cells())
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- several sources

FEATURES, STEPS = {"station": 3, "grid": 1, "ocean": 2}, {"station": 4, "grid": 2, "ocean": 6}


def some_places(stations=7, cells=9, seed=0) -> dict:
    rng = np.random.default_rng(seed)

    def scattered(nodes):
        return rng.uniform(48, 56, nodes), rng.uniform(-10, 4, nodes)

    return {"station": scattered(stations), "grid": scattered(cells), "ocean": None}


def some_x(stations=7, cells=9, batch=2, gaps=0.3, seed=0) -> Sources:
    """Station features 0 and 1 are data, 2 is context, always there."""
    generator = torch.Generator().manual_seed(seed)
    x = {}
    for kind, nodes in (("station", stations), ("grid", cells), ("ocean", 1)):
        values = torch.randn(batch, STEPS[kind], nodes, FEATURES[kind], generator=generator)
        values[torch.rand(values.shape, generator=generator) < gaps] = torch.nan
        x[kind] = values
    x["station"][..., 2] = x["station"][:, :1, :, 2].nan_to_num()
    return Sources(x)


def fusion(relations=None, kinds=FEATURES, rounds=2, **options) -> FusionSTGCN:
    torch.manual_seed(0)
    if relations is None:
        relations = list(hetero_operators(hetero_graph(some_places())))
    features = {kind: FEATURES[kind] for kind in kinds}
    context = {"station": 1} if "station" in kinds else None
    options = {"channels": 5, "relations": relations, "context": context} | options
    model = randomise(FusionSTGCN(features, 2, STEPS, 3, rounds=rounds, **options))
    nn.init.normal_(model.out.weight)
    return model


def fusion_by_loops(model: FusionSTGCN, x: dict, operators: dict) -> np.ndarray:
    """One window: {kind: (H, N, F)} -> (horizon, N, F_out), node by node and neighbour by neighbour."""
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    h, known = {}, {}
    for k, kind in enumerate(model.kinds):
        values = x[kind].double().numpy()
        seen = np.isfinite(values)
        both = np.concatenate([np.where(seen, values, 0), seen], axis=-1)  # (H, N, 2 F)
        conv, bias = w[f"encode.{k}.conv.weight"][..., 0], w[f"encode.{k}.conv.bias"]
        h[kind], known[kind] = [], []
        for n in range(values.shape[1]):
            p, q = np.split(np.einsum("cfh,hf->c", conv, both[:, n]) + bias, 2)
            last = both[-1, n]
            shrink = f"encode.{k}.shrink.weight"
            p = p + (w[shrink] @ last if shrink in w else np.pad(last, (0, len(p) - len(last))))
            h[kind].append(p / (1 + np.exp(-q)))
            known[kind].append(bool(seen[:, n, : FEATURES[kind] - (kind == "station")].any()))
    for r, step in enumerate(model.rounds):
        new, informed = {kind: list(nodes) for kind, nodes in h.items()}, {kind: list(k) for kind, k in known.items()}
        for t, target in enumerate(step.hearers):
            for i in range(len(h[target])):
                told = w[f"rounds.{r}.own.{t}.weight"] @ h[target][i] + w[f"rounds.{r}.own.{t}.bias"]
                for e, (source, _, to) in enumerate(step.relations):
                    if to != target:
                        continue
                    operator = operators[step.relations[e]].numpy()
                    heard = [j for j in range(len(h[source])) if known[source][j] and operator[i, j] > 0]
                    if heard:
                        mean = sum(operator[i, j] * h[source][j] for j in heard) / sum(operator[i, j] for j in heard)
                        told = told + w[f"rounds.{r}.hear.{e}.weight"] @ mean
                        informed[target][i] = True
                new[target][i] = h[target][i] + np.maximum(told, 0)
        h, known = new, informed
    y = np.array(h["station"]) @ w["out.weight"].T + w["out.bias"]
    return y.reshape(len(y), 3, 2).transpose(1, 0, 2)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_fusion_equals_its_recomputation_node_by_node(rounds, sparse):
    graph, x = hetero_graph(some_places(), k=3), some_x(gaps=0.8)
    x["station"][:, :, 2, :2] = torch.nan
    x["grid"][:, :, :4] = torch.nan
    model = fusion(rounds=rounds)
    y = model(x, hetero_operators(graph, sparse=sparse))
    assert y.shape == (2, 3, 7, 2)
    for b in range(2):
        expected = fusion_by_loops(model, {kind: values[b] for kind, values in x.items()}, hetero_operators(graph))
        np.testing.assert_allclose(y[b].detach().numpy(), expected, atol=1e-4, rtol=1e-4)


def test_fusion_forecasts_the_climate_before_training():
    model = FusionSTGCN(FEATURES, 1, STEPS, 2, relations=list(hetero_operators(hetero_graph(some_places()))))
    y = model(some_x(), hetero_operators(hetero_graph(some_places())))
    assert y.shape == (2, 2, 7, 1) and (y == 0).all()


def test_fusion_weights_belong_to_no_number_of_nodes():
    """The same weights at other stations on another grid, each forecast the one that loops give."""
    model, places = fusion(), some_places(4, 15, seed=5)
    x, operators = some_x(4, 15, batch=1, seed=5), hetero_operators(hetero_graph(places))
    y = model(x, operators)
    assert y.shape == (1, 3, 4, 2)
    expected = fusion_by_loops(model, {kind: values[0] for kind, values in x.items()}, operators)
    np.testing.assert_allclose(y[0].detach().numpy(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["station", "grid"])
def test_fusion_does_not_mind_the_order_of_nodes(kind):
    model, places, x = fusion(), some_places(), some_x()
    y = model(x, hetero_operators(hetero_graph(places)))
    order = torch.randperm(x[kind].shape[2])
    lat, lon = places[kind]
    places[kind] = lat[order], lon[order]
    x[kind] = x[kind][:, :, order]
    expected = y[:, :, order] if kind == "station" else y
    torch.testing.assert_close(model(x, hetero_operators(hetero_graph(places))), expected, atol=1e-5, rtol=1e-4)


def test_a_neighbour_without_data_changes_nothing():
    """It might as well not be in the graph: neither its weight nor its elevation is heard."""
    model, graph, x = fusion(rounds=1), hetero_graph(some_places()), some_x(gaps=0)
    operators = hetero_operators(graph)
    x["grid"][:, :, 3] = torch.nan
    x["station"][:, :, 5, :2] = torch.nan
    y = model(x, operators)
    assert y.isfinite().all()
    silent = {("grid", "to", "station"): 3, ("station", "near", "station"): 5}
    for relation, node in silent.items():
        keep = graph[relation].edge_index[0] != node
        assert not keep.all()
        for part in ("edge_index", "edge_weight", "edge_distance"):
            graph[relation][part] = graph[relation][part][..., keep]
    torch.testing.assert_close(model(x, hetero_operators(graph)), y, atol=1e-5, rtol=1e-4)
    other = Sources({kind: values.clone() for kind, values in x.items()})
    other["station"][:, :, 5, 2] += 10
    changed = (model(other, operators) - y).abs().amax(dim=(0, 1, 3)) > 1e-6
    assert changed.tolist() == [False] * 5 + [True, False]


def test_a_source_without_data_is_a_source_taken_away():
    model, operators, x = fusion(rounds=1), hetero_operators(hetero_graph(some_places())), some_x()
    x["ocean"][:] = torch.nan
    without = fusion(rounds=1, kinds=["station", "grid"], relations=[r for r in operators if r[0] != "ocean"])
    theirs = {
        name: weight for name, weight in model.state_dict().items() if not name.startswith(("encode.2", "rounds"))
    }
    without.load_state_dict(theirs, strict=False)
    used = model.rounds[0].relations
    kept = [e for e, relation in enumerate(used) if relation[0] != "ocean"]
    without.rounds[0].own.load_state_dict(model.rounds[0].own.state_dict())
    for hear, e in zip(without.rounds[0].hear, kept, strict=True):
        hear.load_state_dict(model.rounds[0].hear[e].state_dict())
    torch.testing.assert_close(without(x, operators), model(x, operators), atol=1e-6, rtol=1e-5)


def test_fusion_hears_what_the_neighbours_have_heard():
    """A station without data, beside one that has heard from the grid, learns of it in the second round."""
    relations = [("grid", "to", "station"), ("station", "near", "station")]
    operators = {relations[0]: torch.tensor([[1.0], [0.0]]), relations[1]: torch.tensor([[0.0, 1], [1, 0]])}
    x = some_x(2, 1, gaps=0)
    x["station"][..., :2] = torch.nan
    for rounds, reached in ((1, [True, False]), (2, [True, True])):
        model = fusion(relations, ["station", "grid"], rounds)
        for step in model.rounds:  # so that no relu hides it
            for layer in step.own:
                nn.init.constant_(layer.bias, 10.0)
        changed = Sources({kind: values + (kind == "grid") for kind, values in x.items()})
        difference = (model(changed, operators) - model(x, operators)).abs().amax(dim=(0, 1, 3)) > 1e-6
        assert difference.tolist() == reached


def test_fusion_without_a_graph_is_a_network_of_each_station():
    model, x = fusion((), ["station"]), some_x()
    y = model(x)
    x["station"][:, :, 3] = 9.0
    assert ((model(x) - y).abs().amax(dim=(0, 1, 3)) > 0).tolist() == [False] * 3 + [True] + [False] * 3


def test_every_weight_of_the_fusion_is_used():
    """Messages that could no longer reach the target have no weights: processes that train together count on it."""
    model, operators = fusion(rounds=3), hetero_operators(hetero_graph(some_places()), sparse=True)
    model(some_x(), operators).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert [len(step.relations) for step in model.rounds] == [4, 4, 3], "grid to grid is of no use in the last round"


def test_fusion_gradients_through_sparse_operators_are_the_dense_ones():
    grads = []
    for sparse in (False, True):
        model = fusion(rounds=3)
        model(some_x(), hetero_operators(hetero_graph(some_places()), sparse=sparse)).square().sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    for dense, sparse in zip(*grads, strict=True):
        torch.testing.assert_close(dense, sparse, atol=1e-4, rtol=1e-3)


def planted(days=400, seed=0) -> dict[str, xr.Dataset]:
    """Daily stations that follow tomorrow what the cell above says today and what the ocean said last month."""
    rng = np.random.default_rng(seed)
    time, months = (pd.date_range("2001-01-01", periods=n, freq=freq) for n, freq in ((days, "D"), (days // 30, "MS")))
    cells, ocean = rng.standard_normal((days, 4)), rng.standard_normal(len(months))
    month = time.year * 12 + time.month - (2001 * 12 + 1)
    last = np.where(month > 0, ocean[np.clip(month - 1, 0, len(ocean) - 1)], 0.0)
    stations = 0.7 * np.roll(cells, 1, axis=0).repeat(2, axis=1) + 0.7 * last[:, None]
    stations += 0.2 * rng.standard_normal(stations.shape)
    stations[rng.random(stations.shape) < 0.2] = np.nan
    cells[rng.random(cells.shape) < 0.1] = np.nan
    lat, lon = np.array([50.0, 52, 54, 56]), np.zeros(4)
    return {
        "station": xr.Dataset(
            {"t": (("time", "station"), stations)},
            {"time": time, "lat": ("station", lat.repeat(2)), "lon": ("station", np.tile([-0.1, 0.1], 4))},
        ),
        "grid": xr.Dataset(
            {"t": (("time", "station"), cells)}, {"time": time, "lat": ("station", lat), "lon": ("station", lon)}
        ),
        "ocean": xr.Dataset({"t": ("time", ocean)}, {"time": months}),
    }


def test_training_fuses_sources_of_different_steps_and_does_without_the_graph_worse(tmp_path):
    sources = planted()
    history = {"station": 2, "grid": 1, "ocean": 1}
    inputs = dict.fromkeys(sources, "t")
    cut = {"train": slice(None, "2001-10"), "test": slice("2001-11", None)}
    windows = {
        part: SourceWindows(sources | {"station": sources["station"].sel(time=time)}, inputs, "t", history, 1)
        for part, time in cut.items()
    }
    places = {kind: (sources[kind]["lat"].values, sources[kind]["lon"].values) for kind in ("station", "grid")}
    operators = hetero_operators(hetero_graph(places | {"ocean": None}, k=1))
    losses = {}
    for kinds in (["station", "grid", "ocean"], ["station", "grid"], ["station"]):
        torch.manual_seed(0)
        relations = [relation for relation in operators if relation[0] in kinds]
        model = FusionSTGCN(dict.fromkeys(kinds, 1), 1, history, 1, channels=8, relations=relations)
        options = {"operator": operators, "progress": False, "learning_rate": 0.05, "epochs": 6}
        checkpoint = tmp_path / f"{len(kinds)}.pt"
        fit(model, windows["train"], None, checkpoint=checkpoint, **options)
        losses[len(kinds)] = evaluate(model, windows["test"], operator=operators)
        y = predict(model, windows["test"], operator=operators)
        assert y.shape == (len(windows["test"]), 1, 8, 1) and y.isfinite().all()
    assert losses[3] < 0.2 and losses[3] < 0.6 * losses[2] and losses[2] < 0.9 * losses[1], losses


def test_a_fabric_trains_the_fusion_as_it_is_trained_without():
    """It takes inputs apart and puts them together again: what is missing must stay missing."""
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    sources = planted(60)
    windows = SourceWindows(sources, dict.fromkeys(sources, "t"), "t", 1, 1)
    places = {kind: (sources[kind]["lat"].values, sources[kind]["lon"].values) for kind in ("station", "grid")}
    operators, losses = hetero_operators(hetero_graph(places | {"ocean": None})), []
    for options in ({}, {"fabric": fabric}):
        torch.manual_seed(0)
        model = FusionSTGCN(dict.fromkeys(sources, 1), 1, dict.fromkeys(sources, 1), 1, relations=list(operators))
        history = fit(model, windows, windows, operator=operators, epochs=2, progress=False, **options)
        losses.append((history.train_loss, history.validation_loss))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: FusionSTGCN(3, 1, STEPS, 1), TypeError, ["in_features", "dict", "3"]),
        (lambda: FusionSTGCN(FEATURES, 1, 4, 1), TypeError, ["history", "dict", "4"]),
        (lambda: FusionSTGCN({"station": 0}, 1, STEPS, 1), ValueError, ["in_features['station']", "0"]),
        (lambda: FusionSTGCN({"station": 1}, 1, {"grid": 2}, 1), ValueError, ["history", "station", "grid"]),
        (lambda: FusionSTGCN({"station": 1}, 0, STEPS, 1), ValueError, ["out_features", "0"]),
        (lambda: FusionSTGCN({"station": 1}, 1, STEPS, 1, rounds=0), ValueError, ["rounds", "0"]),
        (lambda: FusionSTGCN({"grid": 1}, 1, STEPS, 1), ValueError, ["target", "grid", "'station'"]),
        (
            lambda: FusionSTGCN({"station": 1}, 1, STEPS, 1, context={"station": 1}),
            ValueError,
            ["context", "1 features"],
        ),
        (lambda: FusionSTGCN(FEATURES, 1, STEPS, 1), ValueError, ["relations", "within 1 rounds", "grid", "ocean"]),
        (lambda: fusion([("grid", "to", "sky")]), ValueError, ["relations", "sky"]),
        (lambda: fusion([("grid", "station")]), ValueError, ["relations", "(source, relation, target)"]),
        (lambda: fusion([("station", "near", "station")] * 2, ["station"]), ValueError, ["relations", "once"]),
        (lambda: fusion((), ["station"])(some_x()["station"]), TypeError, ["x", "dict", "Tensor"]),
        (lambda: fusion((), ["station"])({"grid": some_x()["grid"]}), TypeError, ["x", "station", "grid"]),
        (
            lambda: fusion((), ["station"])({"station": torch.zeros(2, 4, 7, 2)}),
            ValueError,
            ["x['station']", "3 features"],
        ),
        (lambda: fusion((), ["station"])({"station": torch.zeros(2, 5, 7, 3)}), ValueError, ["x", "4 time steps", "5"]),
        (lambda: fusion()(some_x()), TypeError, ["operators", "dict", "NoneType"]),
        (lambda: fusion()(some_x(), {}), TypeError, ["operators", "('station', 'near', 'station')"]),
        (
            lambda: fusion()(some_x(6), hetero_operators(hetero_graph(some_places()))),
            ValueError,
            ["operators", "(6, 6)", "(7, 7)"],
        ),
    ],
)
def test_fusion_refuses_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call()
    assert all(part in str(raised.value) for part in parts), str(raised.value)
