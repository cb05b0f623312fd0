"""Each layer against its formula written as loops, against PyTorch Geometric, and held to what it promises:
equivariance, causality, independence of the batch, gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric import nn as pyg

from stgcn_lab import layers
from stgcn_lab.graphs import directional_operators, gcn_operator, grid_graph, knn_graph, scaled_laplacian, to_operator
from stgcn_lab.layers import (
    AdaptiveAdjacency,
    ChebConv,
    DirectionalGraphConv,
    GraphConv,
    STConvBlock,
    TemporalConv,
    propagate,
)

small = st.integers(1, 4)


def random_operator(nodes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(nodes, nodes, generator=generator) * (torch.rand(nodes, nodes, generator=generator) < 0.5)


def sparse_copy(operator: torch.Tensor) -> torch.Tensor:
    return operator.to_sparse_csr()


def randomise(module: nn.Module) -> nn.Module:
    """Random values in every parameter, the biases too: a term that is zero cannot be tested."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def lambda_max(graph) -> float:
    a = np.zeros((graph.num_nodes, graph.num_nodes))
    a[graph.edge_index[1], graph.edge_index[0]] = graph.edge_weight
    root = np.where(a.sum(1) > 0, a.sum(1), 1.0) ** -0.5
    return float(np.linalg.eigvalsh(np.eye(len(a)) - root[:, None] * a * root).max())


# The spatial layers of one width, each with the operators that it takes on a given graph.
SPATIAL = {
    "gcn": (lambda c, d: GraphConv(c, d), gcn_operator),
    "cheb": (lambda c, d: ChebConv(c, d, 3), scaled_laplacian),
    "directional": (lambda c, d: DirectionalGraphConv(c, d, 4), directional_operators),
}
each_spatial = pytest.mark.parametrize(("make", "operators_of"), SPATIAL.values(), ids=SPATIAL)


# ---------------------------------------------------------------------------- propagate


def test_propagate_is_a_sum_over_sources():
    operator, x = random_operator(4), torch.randn(2, 3, 4, 5)
    expected = torch.zeros_like(x)
    for i in range(4):
        for j in range(4):
            expected[:, :, i] += operator[i, j] * x[:, :, j]
    torch.testing.assert_close(propagate(operator, x), expected)


@given(batch=small, time=small, nodes=st.integers(1, 6), features=small, sparse=st.booleans())
def test_propagate_equals_einsum_for_all_shapes(batch, time, nodes, features, sparse):
    operator = random_operator(nodes)
    given_operator = sparse_copy(operator) if sparse else operator
    for shape in [(nodes, features), (time, nodes, features), (batch, time, nodes, features)]:
        x = torch.randn(shape)
        y = propagate(given_operator, x)
        assert y.shape == x.shape
        torch.testing.assert_close(y, torch.einsum("ij,...jc->...ic", operator, x))


def test_a_message_travels_from_column_to_row():
    operator = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 0]])  # A[1, 0]: from 0 to 1
    for form in (operator, sparse_copy(operator)):
        assert propagate(form, torch.tensor([[7.0], [8], [9]])).tolist() == [[0.0], [7.0], [0.0]]


def test_propagate_sparse_equals_dense_in_values_and_gradients(directed):
    dense, thin = gcn_operator(directed, sparse=False), gcn_operator(directed, sparse=True)
    x = torch.randn(2, 3, 7, 4, requires_grad=True)
    weight = torch.randn(2, 3, 7, 4)
    results = []
    for operator in (dense, thin):
        y = propagate(operator, x)
        (gradient,) = torch.autograd.grad((y * weight).sum(), x)
        results.append((y, gradient))
    torch.testing.assert_close(*[y for y, _ in results])
    torch.testing.assert_close(*[gradient for _, gradient in results])
    torch.testing.assert_close(results[1][1], torch.einsum("ij,btic->btjc", dense, weight))  # Aᵀ, not A


def test_transposes_of_two_sparse_operators_are_kept_apart():
    first, second = random_operator(5, 1), random_operator(5, 2)
    thin = [sparse_copy(first), sparse_copy(second)]
    x = torch.randn(5, 2, requires_grad=True)
    for _ in range(2):  # the second time round the transposes come from the cache
        for operator, form in zip((first, second), thin, strict=True):
            (gradient,) = torch.autograd.grad(propagate(form, x).sum(), x)
            torch.testing.assert_close(gradient, operator.T @ torch.ones(5, 2))


def test_two_sparse_operators_in_one_backward_pass():
    first, second = random_operator(5, 1), random_operator(5, 2)
    x = torch.randn(5, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(propagate(sparse_copy(second), propagate(sparse_copy(first), x)).sum(), x)
    torch.testing.assert_close(gradient, first.T @ (second.T @ torch.ones(5, 2)))


def test_transpose_follows_a_sparse_operator_changed_in_place():
    operator = sparse_copy(random_operator(5))
    x = torch.randn(5, 2, requires_grad=True)
    propagate(operator, x).sum().backward()
    operator.values().mul_(3.0)
    (gradient,) = torch.autograd.grad(propagate(operator, x).sum(), x)
    torch.testing.assert_close(gradient, operator.to_dense().T @ torch.ones(5, 2))


@pytest.mark.parametrize("sparse", [False, True])
def test_propagate_gradcheck(sparse):
    operator = random_operator(4).double()
    operator = sparse_copy(operator) if sparse else operator
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: propagate(operator, x), x)


@pytest.mark.parametrize(
    ("operator", "x", "error", "parts"),
    [
        ("A", torch.zeros(3, 1), TypeError, ["operator", "tensor", "str"]),
        (None, torch.zeros(3, 1), TypeError, ["operator", "NoneType"]),
        (torch.zeros(3, 4), torch.zeros(3, 1), ValueError, ["operator", "square", "(3, 4)"]),
        (torch.zeros(2, 3, 3), torch.zeros(3, 1), ValueError, ["operator", "square", "(2, 3, 3)"]),
        (torch.eye(3), torch.zeros(4, 1), ValueError, ["x", "3 nodes", "(4, 1)"]),
        (torch.eye(3), torch.zeros(3), ValueError, ["x", "(3,)"]),
        (torch.eye(3), [1.0, 2.0, 3.0], TypeError, ["x", "list"]),
    ],
)
def test_propagate_refuses_what_does_not_fit(operator, x, error, parts):
    with pytest.raises(error) as raised:
        propagate(operator, x)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- graph convolution


@pytest.mark.parametrize(("features", "out"), [(2, 5), (5, 2), (3, 3)])
def test_graph_conv_equals_the_dense_formula(graph, features, out):
    layer, a = randomise(GraphConv(features, out)), gcn_operator(graph)
    x = torch.randn(2, 3, graph.num_nodes, features)
    expected = torch.zeros(2, 3, graph.num_nodes, out)
    for b, t in np.ndindex(2, 3):
        expected[b, t] = a @ x[b, t] @ layer.weight + layer.bias
    torch.testing.assert_close(layer(x, a), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("features", "out"), [(2, 5), (5, 2)])
@pytest.mark.parametrize("weighted", [True, False])
def test_graph_conv_equals_pyg(graph, directed, features, out, weighted):
    """With edge weights, directed edges and an isolated node."""
    for g in (graph, directed):
        if not weighted:
            g.edge_weight = torch.ones_like(g.edge_weight)
        layer, theirs = randomise(GraphConv(features, out)), pyg.GCNConv(features, out)
        with torch.no_grad():
            theirs.lin.weight.copy_(layer.weight.T)
            theirs.bias.copy_(layer.bias)
        x = torch.randn(2, 3, g.num_nodes, features)
        expected = theirs(x, g.edge_index, g.edge_weight)
        torch.testing.assert_close(layer(x, gcn_operator(g)), expected, atol=1e-5, rtol=1e-5)


def test_edge_weights_are_not_dropped(graph):
    layer, x = GraphConv(2, 2), torch.randn(graph.num_nodes, 2)
    before = layer(x, gcn_operator(graph))
    graph.edge_weight = graph.edge_weight.flip(0)
    assert not torch.allclose(layer(x, gcn_operator(graph)), before, atol=1e-3)


# ---------------------------------------------------------------------------- Chebyshev


@pytest.mark.parametrize("K", range(1, 6))
def test_cheb_conv_equals_the_dense_polynomial(graph, K):
    """T_k(L) by its eigenvalues, cos(k arccos λ): no recursion to repeat the same mistake in."""
    layer, laplacian = randomise(ChebConv(3, 2, K)), scaled_laplacian(graph)
    values, vectors = torch.linalg.eigh(laplacian.double())
    x = torch.randn(2, graph.num_nodes, 3)
    expected = layer.bias.double()
    for k in range(K):
        t_k = vectors @ torch.diag(torch.cos(k * torch.arccos(values.clamp(-1, 1)))) @ vectors.T
        expected = expected + t_k @ x.double() @ layer.weight[k].double()
    torch.testing.assert_close(layer(x, laplacian), expected.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("K", range(1, 6))
def test_cheb_conv_equals_pyg(graph, K):
    layer, theirs = randomise(ChebConv(3, 2, K)), pyg.ChebConv(3, 2, K)
    with torch.no_grad():
        for k in range(K):
            theirs.lins[k].weight.copy_(layer.weight[k].T)
        theirs.bias.copy_(layer.bias)
    x = torch.randn(graph.num_nodes, 3)
    expected = theirs(x, graph.edge_index, graph.edge_weight, lambda_max=torch.tensor(lambda_max(graph)))
    torch.testing.assert_close(layer(x, scaled_laplacian(graph)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("K", range(1, 5))
def test_cheb_conv_reaches_k_minus_1_steps(K):
    """On a chain of stations an impulse spreads exactly K - 1 edges, no farther."""
    chain = grid_graph([50], np.arange(11), 4)
    layer, x = randomise(ChebConv(1, 1, K)), torch.zeros(11, 1)
    x[5] = 1.0
    with torch.no_grad():
        reached = ((layer(x, scaled_laplacian(chain)) - layer.bias).abs() > 1e-7).squeeze().nonzero().squeeze(1)
    assert reached.tolist() == list(range(5 - (K - 1), 5 + K))


# ---------------------------------------------------------------------------- direction


@pytest.mark.parametrize(("features", "out"), [(2, 5), (5, 2)])
@pytest.mark.parametrize("sectors", [1, 4, 8])
def test_directional_conv_equals_the_loop_formula(graph, features, out, sectors):
    layer, operators = randomise(DirectionalGraphConv(features, out, sectors)), directional_operators(graph, sectors)
    x = torch.randn(graph.num_nodes, features)
    expected = torch.zeros(graph.num_nodes, out)
    for i in range(graph.num_nodes):
        expected[i] = x[i] @ layer.weight[0] + layer.bias
        for s in range(sectors):
            for j in range(graph.num_nodes):
                expected[i] += operators[s][i, j] * (x[j] @ layer.weight[1 + s])
    torch.testing.assert_close(layer(x, operators), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(x, torch.stack(operators)), expected, atol=1e-5, rtol=1e-5)


def test_with_the_weight_of_one_sector_the_message_is_that_neighbours_value():
    grid = grid_graph(50 + np.arange(3), np.arange(3), 4, weight="binary")  # the middle cell is node 4
    operators, x = directional_operators(grid, 4), torch.arange(9.0)[:, None]
    layer = DirectionalGraphConv(1, 1, 4)
    for sector, neighbour in enumerate([7, 5, 1, 3]):  # north, east, south, west of node 4
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[1 + sector] = 1.0
            assert layer(x, operators)[4].item() == neighbour


@pytest.mark.parametrize("kind", ["gcn", "cheb", "directional"])
def test_only_the_directional_layer_tells_east_from_west(kind):
    """A warm station to the east or to the west: mirrored weather, seen from the station between."""
    line = grid_graph([0], np.arange(-2, 3), 4)
    make, operators_of = SPATIAL[kind]
    layer, operators = randomise(make(1, 4)), operators_of(line)
    warm_east = torch.tensor([0.0, 0, 0, 1, 0])[:, None]
    with torch.no_grad():
        difference = (layer(warm_east, operators) - layer(warm_east.flip(0), operators))[2].abs().max()
    assert difference > 1e-2 if kind == "directional" else difference < 1e-6


# ---------------------------------------------------------------------------- all spatial layers


@each_spatial
@given(batch=small, time=small, nodes=st.integers(2, 8), features=small, out=small)
def test_spatial_shapes(make, operators_of, batch, time, nodes, features, out):
    rng = np.random.default_rng(nodes)
    graph = knn_graph(rng.uniform(50, 55, nodes), rng.uniform(-10, -5, nodes), 2)
    layer, operators = make(features, out), operators_of(graph)
    assert layer(torch.randn(nodes, features), operators).shape == (nodes, out)
    assert layer(torch.randn(batch, time, nodes, features), operators).shape == (batch, time, nodes, out)


@each_spatial
def test_spatial_layers_follow_a_permutation_of_the_stations(places, make, operators_of):
    lat, lon = places
    order = np.random.default_rng(1).permutation(12)
    layer, x = randomise(make(3, 4)), torch.randn(2, 5, 12, 3)
    y = layer(x, operators_of(knn_graph(lat, lon, 3)))
    permuted = layer(x[:, :, order], operators_of(knn_graph(lat[order], lon[order], 3)))
    torch.testing.assert_close(permuted, y[:, :, order], atol=1e-5, rtol=1e-5)


@each_spatial
def test_spatial_layers_give_the_same_for_sparse_and_dense_operators(graph, make, operators_of):
    layer = randomise(make(3, 4))
    results = []
    for sparse in (False, True):
        x = torch.linspace(-1, 1, 2 * 12 * 3).view(2, 12, 3).requires_grad_()
        y = layer(x, operators_of(graph, sparse=sparse))
        results.append([y, *torch.autograd.grad(y.sin().sum(), [x, *layer.parameters()])])
    for dense, thin in zip(*results, strict=True):
        torch.testing.assert_close(dense, thin, atol=1e-5, rtol=1e-5)


@each_spatial
def test_spatial_layers_treat_samples_and_times_apart(graph, make, operators_of):
    layer, operators, x = randomise(make(3, 4)), operators_of(graph), torch.randn(3, 5, 12, 3)
    y = layer(x, operators)
    torch.testing.assert_close(layer(x[1, 2], operators), y[1, 2], atol=1e-6, rtol=1e-5)
    x[1, 2] = 100.0
    changed = (layer(x, operators) != y).flatten(2).any(2)
    assert changed.nonzero().tolist() == [[1, 2]]


@each_spatial
def test_spatial_layers_move_to_another_region(graph, make, operators_of):
    """The weights know nothing of the number of nodes."""
    layer = make(3, 4)
    layer(torch.randn(12, 3), operators_of(graph))
    other = grid_graph(np.arange(5), np.arange(4))
    assert layer(torch.randn(20, 3), operators_of(other)).shape == (20, 4)
    assert all(12 not in p.shape for p in layer.parameters())


@each_spatial
def test_an_isolated_station_hears_nobody(directed, make, operators_of):
    operators = scaled_laplacian(directed, 2.0) if operators_of is scaled_laplacian else operators_of(directed)
    layer, x = randomise(make(3, 4)), torch.randn(7, 3)
    y = layer(x, operators)
    assert torch.isfinite(y).all()
    x[:6] += 10
    torch.testing.assert_close(layer(x, operators)[6], y[6])


@each_spatial
@pytest.mark.parametrize("sparse", [False, True])
def test_spatial_gradcheck(graph, make, operators_of, sparse):
    layer = randomise(make(2, 2)).double()
    made = operators_of(graph, sparse=sparse)
    operators = made.double() if torch.is_tensor(made) else tuple(o.double() for o in made)
    x = torch.randn(2, 12, 2, dtype=torch.float64, requires_grad=True)
    inputs = (x, *layer.parameters())
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, operators))

    assert torch.autograd.gradcheck(run, inputs)


@each_spatial
def test_a_gradient_reaches_every_spatial_parameter(graph, make, operators_of):
    layer = make(3, 4)
    layer(torch.randn(2, 12, 3), operators_of(graph)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and (parameter.grad.abs() > 0).all(), name


@each_spatial
@pytest.mark.parametrize(
    ("x", "error", "parts"),
    [
        (torch.zeros(12, 5), ValueError, ["x", "3 features", "(12, 5)"]),
        (torch.zeros(11, 3), ValueError, ["x", "12 nodes", "(11, 3)"]),
        (torch.zeros(3), ValueError, ["x", "3 features", "(3,)"]),
        (np.zeros((12, 3)), TypeError, ["x", "tensor", "ndarray"]),
    ],
)
def test_spatial_layers_refuse_bad_input(graph, make, operators_of, x, error, parts):
    with pytest.raises(error) as raised:
        make(3, 4)(x, operators_of(graph))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


@pytest.mark.parametrize("operators", [None, (), (torch.eye(12),) * 3, torch.eye(12)])
def test_directional_conv_counts_its_operators(operators):
    with pytest.raises(ValueError, match="operators: expected 4"):
        DirectionalGraphConv(3, 4, 4)(torch.zeros(12, 3), operators)


@pytest.mark.parametrize("layer", [GraphConv(1, 1), ChebConv(1, 1, 2)])
def test_a_missing_operator_is_named(layer):
    with pytest.raises(TypeError, match="operator: expected a torch tensor.*NoneType"):
        layer(torch.zeros(3, 1), None)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "3", None])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("in_features", lambda n: GraphConv(n, 1)),
        ("out_features", lambda n: GraphConv(1, n)),
        ("K", lambda n: ChebConv(1, 1, n)),
        ("sectors", lambda n: DirectionalGraphConv(1, 1, n)),
        ("num_nodes", lambda n: AdaptiveAdjacency(n, 2)),
        ("dim", lambda n: AdaptiveAdjacency(2, n)),
        ("in_channels", lambda n: TemporalConv(n, 1, 1)),
        ("out_channels", lambda n: TemporalConv(1, n, 1)),
        ("kernel_size", lambda n: TemporalConv(1, 1, n)),
    ],
)
def test_layers_refuse_bad_sizes(name, make, size):
    with pytest.raises(ValueError) as error:
        make(size)
    message = str(error.value)
    assert message.startswith(f"{name}:") and "at least 1" in message and repr(size) in message


# ---------------------------------------------------------------------------- averaging


def test_adaptive_adjacency_equals_its_formula_and_averages():
    layer = AdaptiveAdjacency(6, 3)
    operator = layer()
    expected = torch.zeros(6, 6)
    for i in range(6):
        scores = torch.stack([(layer.target[i] @ layer.source[j]).clamp(min=0) for j in range(6)])
        expected[i] = scores.exp() / scores.exp().sum()
    torch.testing.assert_close(operator, expected)
    constant = torch.full((2, 6, 1), 3.7)
    torch.testing.assert_close(propagate(operator, constant), constant)


def test_adaptive_adjacency_learns_through_the_layer_it_is_passed_to():
    adaptive, layer = AdaptiveAdjacency(6, 3), GraphConv(2, 2)
    layer(torch.randn(4, 6, 2), adaptive()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adaptive.parameters())


def test_averaging_operators_preserve_a_constant_and_gcn_does_not(graph):
    ones = torch.ones(12, 1)
    for operator in directional_operators(graph, 4):
        has_neighbours = operator.sum(1) > 0
        torch.testing.assert_close(propagate(operator, ones)[has_neighbours], ones[has_neighbours])
    assert (propagate(gcn_operator(graph), ones) - 1).abs().max() > 0.05
    # Normalised by the columns instead, a constant would not survive either:
    a = directional_operators(graph, 1)[0]
    assert (propagate(a.T.contiguous(), ones) - 1).abs().max() > 0.05


# ---------------------------------------------------------------------------- time


def gradients(form, *tensors) -> list[torch.Tensor]:
    """Value, and gradient of a weighted sum of it with respect to each tensor."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = form(*inputs)
    weighting = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).view(value.shape)
    return [value, *torch.autograd.grad((value * weighting).sum(), inputs)]


def close(found, expected, tolerance: float) -> None:
    for mine, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14), (torch.bfloat16, 2e-2)]
)
def test_gated_unit_equals_glu(dtype, tolerance):
    y = (2 * torch.randn(3, 5, 7, 8)).to(dtype)
    close(gradients(layers._GatedUnit.apply, y), gradients(torch.nn.functional.glu, y), tolerance)


@pytest.mark.parametrize("nodes", [7, layers.MANY_NODES])  # the library's gradient of the weights, and ours
@pytest.mark.parametrize(("batch", "features", "kernel"), [(1, 16, 3), (3, 17, 2), (2, 1, 4)])
def test_convolution_in_time_equals_conv2d(nodes, batch, features, kernel):
    x, weight, bias = torch.randn(batch, 6, nodes, features), torch.randn(5, features, kernel, 1), torch.randn(5)

    def plain(x, weight, bias):
        return torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)

    close(gradients(layers._ConvInTime.apply, x, weight, bias), gradients(plain, x, weight, bias), 2e-5)


def as_published(layer: TemporalConv, x: torch.Tensor) -> torch.Tensor:
    """The gated convolution as its equation reads, one operation after the other."""
    k = layer.kernel_size
    before = (k - 1 if layer.causal else (k - 1) // 2) if layer.pad else 0
    padded = torch.nn.functional.pad(x, (0, 0, 0, 0, before, k - 1 - before)) if layer.pad else x
    p, q = layer.conv(padded.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).chunk(2, dim=-1)
    own = x if layer.pad else x[:, k - 1 :]
    if layer.shrink is not None:
        return (p + layer.shrink(own)) * torch.sigmoid(q)
    return (p + torch.nn.functional.pad(own, (0, layer.out_channels - layer.in_channels))) * torch.sigmoid(q)


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("features", "out"), [(1, 4), (4, 4), (5, 3)])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_fast_gated_convolution_equals_the_published_form(features, out, kernel, causal, pad):
    layer = randomise(TemporalConv(features, out, kernel, causal=causal, pad=pad))
    x = torch.randn(2, 6, 5, features, requires_grad=True)
    wanted = [x, *layer.parameters()]
    fast, plain = layer(x), as_published(layer, x)
    close(
        [fast, *torch.autograd.grad(fast.sin().sum(), wanted)],
        [plain, *torch.autograd.grad(plain.sin().sum(), wanted)],
        1e-5,
    )


def test_gated_convolution_under_autocast():
    """In 16 bits value and gradients are those of 32 but for rounding; gradients have the precision of the weights."""
    layer = randomise(TemporalConv(16, 8, 3, pad=False))
    for nodes in (6, layers.MANY_NODES):
        x = torch.randn(1, 5, nodes, 16, requires_grad=True)
        wanted = [x, *layer.parameters()]
        full = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(x)
        assert half.dtype == torch.bfloat16
        grads = [torch.autograd.grad(y.float().square().mean(), wanted) for y in (half, full)]
        assert all(grad.dtype == torch.float32 for grad in grads[0])
        close([half.float(), *grads[0]], [full, *grads[1]], 3e-2)


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong():
    x = torch.randn(1, 5, 4, 2, requires_grad=True)
    with pytest.raises(NotImplementedError, match="first derivatives"):
        torch.autograd.grad(TemporalConv(2, 3, 2)(x).sum(), x, create_graph=True)


def by_hand(layer: TemporalConv, x: torch.Tensor) -> torch.Tensor:
    """Loops over output steps and kernel taps; zeros outside the series."""
    batch, steps, nodes, _ = x.shape
    k, out = layer.kernel_size, layer.out_channels
    if not layer.pad:
        first, count = k - 1, steps - k + 1  # the last input of output 0, number of outputs
        own = k - 1
    elif layer.causal:
        first, count, own = 0, steps, 0
    else:
        first, count, own = k // 2, steps, 0
    weight, bias = layer.conv.weight[..., 0], layer.conv.bias  # (channels, C, k)
    y = torch.zeros(batch, count, nodes, out)
    for t in range(count):
        total = bias.expand(batch, nodes, -1)
        for tap in range(k):
            step = t + first - (k - 1) + tap
            if 0 <= step < steps:
                total = total + x[:, step] @ weight[:, :, tap].T
        if layer.gated:
            p, q = total[..., :out], total[..., out:]
            skip = x[:, t + own]
            if layer.in_channels > out:
                skip = skip @ layer.shrink.weight.T
            else:
                skip = torch.cat([skip, torch.zeros(batch, nodes, out - layer.in_channels)], dim=-1)
            total = (p + skip) * torch.sigmoid(q)
        y[:, t] = total
    return y


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize(("features", "out"), [(2, 4), (3, 3), (5, 2)])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_temporal_conv_equals_the_loops(gated, causal, pad, features, out, kernel):
    layer = randomise(TemporalConv(features, out, kernel, gated, causal, pad))
    x = torch.randn(2, 6, 3, features)
    torch.testing.assert_close(layer(x), by_hand(layer, x), atol=1e-5, rtol=1e-5)


def test_ungated_temporal_conv_equals_conv1d():
    layer, x = randomise(TemporalConv(3, 4, 3, gated=False, pad=False)), torch.randn(2, 8, 5, 3)
    y = layer(x)
    for node in range(5):
        series = x[:, :, node].transpose(1, 2)  # (B, C, T)
        expected = nn.functional.conv1d(series, layer.conv.weight[..., 0], layer.conv.bias)
        torch.testing.assert_close(y[:, :, node].transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


def test_the_gate_lets_negative_values_through():
    """(P + X) sigmoid(Q) of the paper, not relu(P sigmoid(Q) + X): the residual is inside the gate, no relu."""
    layer = TemporalConv(1, 1, 1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.bias.copy_(torch.tensor([-3.0, -1.0]))  # P, Q
    x = torch.full((1, 1, 1, 1), 0.5)
    expected = (-3.0 + 0.5) / (1 + np.e)
    assert layer(x).item() == pytest.approx(expected, abs=1e-6)
    assert expected < 0


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_causal_conv_does_not_see_the_future(gated, kernel):
    layer, x = randomise(TemporalConv(2, 3, kernel, gated)), torch.randn(2, 9, 4, 2)
    y = layer(x)
    for t in range(8):
        future = x.clone()
        future[:, t + 1 :] += 10 * torch.randn_like(future[:, t + 1 :])
        assert torch.equal(layer(future)[:, : t + 1], y[:, : t + 1])
        assert not torch.allclose(layer(future)[:, t + 1], y[:, t + 1])


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_symmetric_conv_sees_exactly_half_a_kernel_ahead(kernel):
    """The leak is real: this layer has no place in a forecast."""
    layer, x = randomise(TemporalConv(2, 3, kernel, causal=False)), torch.randn(1, 11, 2, 2)
    y = layer(x)
    x[:, 6] += 10
    changed = (layer(x) != y).any(3).any(2)[0].nonzero().squeeze(1)
    assert changed.tolist() == list(range(6 - kernel // 2, 6 + (kernel - 1) // 2 + 1))


@pytest.mark.parametrize("causal", [True, False])
def test_without_padding_time_shrinks_and_causal_changes_nothing(causal):
    torch.manual_seed(1)
    layer, x = TemporalConv(2, 3, 4, causal=causal, pad=False), torch.randn(2, 9, 5, 2)
    y = layer(x)
    assert y.shape == (2, 6, 5, 3)
    torch.manual_seed(1)
    padded = TemporalConv(2, 3, 4, causal=True)
    torch.testing.assert_close(padded(x)[:, 3:], y)
    x[:, -1] += 10
    assert (layer(x)[:, :-1] == y[:, :-1]).all()


def test_temporal_conv_treats_stations_and_samples_apart():
    layer, x = randomise(TemporalConv(2, 3, 3)), torch.randn(3, 6, 5, 2)
    y = layer(x)
    x[1, :, 2] += 10
    changed = (layer(x) - y).abs().amax((1, 3)) > 1e-3
    assert changed.nonzero().tolist() == [[1, 2]]
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(layer(x[:, :, order]), layer(x)[:, :, order])


@given(batch=small, time=st.integers(1, 7), nodes=small, features=small, out=small, kernel=small, pad=st.booleans())
def test_temporal_shapes(batch, time, nodes, features, out, kernel, pad):
    layer, x = TemporalConv(features, out, kernel, pad=pad), torch.randn(batch, time, nodes, features)
    steps = time if pad else time - kernel + 1
    if steps >= 1:
        assert layer(x).shape == (batch, steps, nodes, out)
    else:
        with pytest.raises(ValueError, match=f"x: expected at least {kernel} time steps.*found {time}"):
            layer(x)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize(("features", "out"), [(1, 2), (2, 1)])
def test_temporal_gradcheck(gated, features, out):
    layer = randomise(TemporalConv(features, out, 2, gated)).double()
    x = torch.randn(2, 3, 2, features, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


@pytest.mark.parametrize(("features", "out"), [(2, 4), (4, 2)])
def test_a_gradient_reaches_every_temporal_parameter(features, out):
    layer = TemporalConv(features, out, 3)
    layer(torch.randn(2, 6, 3, features)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and (parameter.grad.abs() > 0).all(), name


@pytest.mark.parametrize(
    ("x", "error", "parts"),
    [
        (torch.zeros(6, 5, 2), ValueError, ["x", "(batch, time, node, feature)", "(6, 5, 2)"]),
        (torch.zeros(1, 6, 5, 3), ValueError, ["x", "2 features", "(1, 6, 5, 3)"]),
        (torch.zeros(1, 1, 6, 5, 2), ValueError, ["x", "(batch, time, node, feature)", "(1, 1, 6, 5, 2)"]),
        ("x", TypeError, ["x", "tensor", "str"]),
    ],
)
def test_temporal_conv_refuses_bad_input(x, error, parts):
    with pytest.raises(error) as raised:
        TemporalConv(2, 3, 3)(x)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- the block


def block_operator(graph, spatial):
    return {"gcn": gcn_operator, "cheb": scaled_laplacian, "directional": directional_operators}.get(
        spatial, lambda graph: None
    )(graph)


each_kind = pytest.mark.parametrize(("spatial", "order"), [("gcn", 3), ("cheb", 2), ("directional", 4), ("none", 3)])


@each_kind
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_block_shortens_time_by_two_kernels(graph, spatial, order, kernel):
    block = STConvBlock(2, (6, 3, 5), kernel, spatial, order)
    y = block(torch.randn(2, 9, 12, 2), block_operator(graph, spatial))
    assert y.shape == (2, 9 - 2 * (kernel - 1), 12, 5)


@each_kind
def test_block_is_its_layers_one_after_the_other(graph, spatial, order):
    block, x = randomise(STConvBlock(2, (6, 3, 5), 3, spatial, order)), torch.randn(2, 9, 12, 2)
    operator = block_operator(graph, spatial)
    h = block.before(x) @ block.squeeze.weight.T + block.squeeze.bias
    z = h @ block.space.weight.T + block.space.bias if spatial == "none" else block.space(h, operator)
    h = block.after((z + h).clamp(min=0))
    mean, variance = h.mean(-1, keepdim=True), h.var(-1, keepdim=True, unbiased=False)
    expected = (h - mean) / (variance + 1e-5).sqrt() * block.norm.weight + block.norm.bias
    torch.testing.assert_close(block(x, operator), expected, atol=1e-4, rtol=1e-4)


@each_kind
def test_block_without_norm_leaves_the_norm_out_and_nothing_else(graph, spatial, order):
    with_norm = randomise(STConvBlock(2, (6, 3, 5), 3, spatial, order))
    without = STConvBlock(2, (6, 3, 5), 3, spatial, order, norm=False).eval()
    rest = {name: value for name, value in with_norm.state_dict().items() if not name.startswith("norm")}
    assert without.state_dict().keys() == rest.keys()
    without.load_state_dict(rest)
    x, operator = torch.randn(2, 9, 12, 2), block_operator(graph, spatial)
    y = without(x, operator)
    torch.testing.assert_close(with_norm.norm(y), with_norm(x, operator), atol=1e-6, rtol=1e-5)


def test_the_norm_takes_away_how_large_an_anomaly_is():
    """The spread over the channels is 1 whatever comes in; without the norm a storm is louder than a breeze."""
    x, sizes = torch.randn(1, 5, 12, 2), {}
    for norm in (True, False):
        block = STConvBlock(2, (6, 3, 50), 2, "none", norm=norm).eval()
        sizes[norm] = [block(scale * x).std(dim=-1, unbiased=False).mean().item() for scale in (1, 100)]
    assert sizes[True] == pytest.approx([1, 1], abs=0.02)
    assert sizes[False][1] > 10 * sizes[False][0]


def test_a_block_without_norm_drops_values_in_training_only(graph):
    block, x, a = STConvBlock(2, (6, 3, 50), 2, dropout=0.5, norm=False), torch.randn(2, 6, 12, 2), gcn_operator(graph)
    assert (block.train()(x, a) == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(block.eval()(x, a), block(x, a))


@each_kind
def test_block_follows_a_permutation_and_moves_to_another_region(places, spatial, order):
    lat, lon = places
    shuffled = np.random.default_rng(1).permutation(12)
    block, x = randomise(STConvBlock(2, (6, 3, 5), 2, spatial, order)), torch.randn(2, 5, 12, 2)
    y = block(x, block_operator(knn_graph(lat, lon, 3), spatial))
    permuted = block(x[:, :, shuffled], block_operator(knn_graph(lat[shuffled], lon[shuffled], 3), spatial))
    torch.testing.assert_close(permuted, y[:, :, shuffled], atol=1e-4, rtol=1e-4)
    other = block_operator(grid_graph(np.arange(4), np.arange(5)), spatial)
    assert block(torch.randn(1, 5, 20, 2), other).shape == (1, 3, 20, 5)


@each_kind
def test_block_treats_samples_apart(graph, spatial, order):
    """No normalisation over the batch, the nodes or time."""
    block, x, operator = STConvBlock(2, (6, 3, 5), 2, spatial, order), torch.randn(3, 6, 12, 2), None
    operator = block_operator(graph, spatial)
    y = block(x, operator)
    torch.testing.assert_close(block(x[1:2], operator), y[1:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(block(x[:, 2:5], operator), y[:, 2:3], atol=1e-5, rtol=1e-5)


def test_block_without_a_graph_keeps_stations_apart():
    block, x = STConvBlock(2, (6, 3, 5), 2, "none"), torch.randn(1, 5, 4, 2)
    y = block(x)
    x[:, :, 1] += 10
    changed = (block(x) - y).abs().amax((0, 1, 3)) > 1e-5
    assert changed.tolist() == [False, True, False, False]


@each_kind
def test_a_gradient_reaches_every_parameter_of_the_block(graph, spatial, order):
    block = STConvBlock(2, (6, 3, 5), 2, spatial, order)
    y = block(torch.randn(2, 6, 12, 2), block_operator(graph, spatial))
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_block_drops_values_in_training_only(graph):
    block, x, a = STConvBlock(2, (6, 3, 50), 2, dropout=0.5), torch.randn(2, 6, 12, 2), gcn_operator(graph)
    share = (block.train()(x, a) == 0).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.05)
    assert (block.eval()(x, a) != 0).all() and torch.equal(block(x, a), block(x, a))


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda x, a: STConvBlock(2, spatial="gat"), ["spatial", "gcn", "gat"]),
        (lambda x, a: STConvBlock(2, channels=(8, 8)), ["channels", "three", "(8, 8)"]),
        (lambda x, a: STConvBlock(2, channels=8), ["channels", "three", "8"]),
        (lambda x, a: STConvBlock(2, channels=(8, 0, 8)), ["channels", "at least 1", "0"]),
        (lambda x, a: STConvBlock(2, spatial="cheb", order=0), ["order", "at least 1", "0"]),
        (lambda x, a: STConvBlock(2, dropout=1.5), ["dropout", "1.5"]),
        (lambda x, a: STConvBlock(2, kernel_size=4)(x, a), ["x", "at least 4", "time steps"]),
        (lambda x, a: STConvBlock(3)(x, a), ["x", "3 features", "(2, 5, 12, 2)"]),
        (lambda x, a: STConvBlock(2)(x, torch.eye(5)), ["x", "5 nodes"]),
        (lambda x, a: STConvBlock(2)(x), ["operator", "tensor", "NoneType"]),
        (lambda x, a: STConvBlock(2, spatial="directional", order=4)(x, a), ["operators", "4 matrices"]),
    ],
)
def test_block_refuses_what_does_not_fit(graph, call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call(torch.zeros(2, 5, 12, 2), gcn_operator(graph))
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_sparse_operators_pass_through_the_block(graph):
    block, x = STConvBlock(2, (6, 3, 5), 2), torch.randn(2, 6, 12, 2)
    thin = to_operator(gcn_operator(graph).numpy(), sparse=True)
    torch.testing.assert_close(block(x, thin), block(x, gcn_operator(graph)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [lambda n: GraphConv(n, n), lambda n: ChebConv(n, n, n), lambda n: TemporalConv(n, n, n)]
)
def test_sizes_may_be_numpy_integers(make, graph):
    layer = make(np.int64(3))
    x = torch.randn(2, 5, 12, 3)
    y = layer(x) if isinstance(layer, TemporalConv) else layer(x, gcn_operator(graph))
    assert y.shape == (2, 5, 12, 3)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda x, a: GraphConv(2, 3)(x.double(), a), ["x", "float32", "found torch.float64"]),
        (lambda x, a: ChebConv(2, 3, 2)(x.int(), a), ["x", "float32", "found torch.int32"]),
        (lambda x, a: DirectionalGraphConv(2, 3, 1)(x.double(), [a]), ["x", "float32", "found torch.float64"]),
        (lambda x, a: TemporalConv(2, 3, 2)(x.double()), ["x", "float32", "found torch.float64"]),
        (lambda x, a: GraphConv(2, 3)(x, a.double()), ["operator", "float32", "found torch.float64"]),
        (lambda x, a: GraphConv(2, 3).double()(x.double(), a), ["operator", "float64", "found torch.float32"]),
        (lambda x, a: propagate(a.to_sparse_csr(), x.double()), ["operator", "float64", "found torch.float32"]),
    ],
)
def test_numbers_of_another_precision_are_named(graph, call, parts):
    with pytest.raises(TypeError) as error:
        call(torch.randn(2, 5, 12, 2), gcn_operator(graph))
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize("sparse", [False, True])
def test_layers_work_under_autocast(graph, sparse):
    torch.manual_seed(0)
    block, a = STConvBlock(2, (8, 4, 8)), gcn_operator(graph, sparse=sparse)
    x = torch.randn(1, 5, 12, 2)
    expected = block(x, a)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = block(x, a)
        y.float().square().sum().backward()
    torch.testing.assert_close(y.float(), expected, atol=0.1, rtol=0)
    assert all(
        p.grad.isfinite().all() and p.grad.abs().sum() > 0 for n, p in block.named_parameters() if "bias" not in n
    )


def test_block_takes_what_directional_operators_gives_by_default(graph):
    block = STConvBlock(2, [8, 4, 8], spatial="directional")
    assert block(torch.randn(2, 5, 12, 2), directional_operators(graph)).shape == (2, 1, 12, 8)
