"""The networks: recomputed by their formulas, moved between graphs, and put to planted problems."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GCNConv

from stgcn_lab.graphs import directional_operators, gcn_operator, grid_graph, knn_graph, radius_graph, scaled_laplacian
from stgcn_lab.models import STGCN, ArticleSTGCN, STGCNClassifier


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
