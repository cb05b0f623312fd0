"""Networks: the article's classifier, STGCN and a mesh step for forecasts, ST-GCN for classes, one that brings several
sources together, three that fill gaps.

All take ``(batch, time, node, feature)`` and a graph operator, except :class:`ArticleSTGCN`, which keeps
the article's order of axes at its door.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from ._checks import whole_number
from .graphs import adjacency, bearing, gcn_operator, great_circle_distance
from .layers import (
    AdaptiveAdjacency,
    ChebConv,
    DirectionalGraphConv,
    GraphConv,
    Operators,
    STConvBlock,
    TemporalConv,
    _check_features,
    _check_sizes,
    _SparseProduct,
    _spatial_layer,
    _three_widths,
    propagate,
)


class ArticleSTGCN(nn.Module):
    """The network of the article: two graph convolutions, two temporal ones, pooling over time, a class.

    The article's listing does not run; this is the smallest network that does what its text says. Each
    station gets its own class scores.

    Args:
        num_nodes: N.
        num_features: F.
        num_timesteps: T.
        num_classes: C.

    Shapes:
        x (N, T, F), edge_index (2, edges), edge_weight (edges,) or None -> (N, C);
        x (B, N, T, F) -> (B, N, C). The scores are logits: softmax turns them into probabilities.

    Raises:
        TypeError, ValueError: if x has other numbers of nodes, time steps or features than announced, or
            edge_index names a node that is not there.

    Source: sections 3 and 4 of the article; the layers of Kipf & Welling (2017).
    """

    def __init__(self, num_nodes: int, num_features: int, num_timesteps: int, num_classes: int) -> None:
        super().__init__()
        num_nodes, num_features, num_timesteps, num_classes = _check_sizes(
            num_nodes=num_nodes, num_features=num_features, num_timesteps=num_timesteps, num_classes=num_classes
        )
        self.sample_shape = (num_nodes, num_timesteps, num_features)
        self.gcn1 = GraphConv(num_features, 64)
        self.gcn2 = GraphConv(64, 128)
        # Symmetric padding: a finished stretch of weather is classified, there is no future to leak.
        self.tcn1 = TemporalConv(128, 256, kernel_size=3, gated=False, causal=False)
        self.tcn2 = TemporalConv(256, 256, kernel_size=3, gated=False, causal=False)
        self.fc = nn.Linear(256, num_classes)
        self._operator: tuple[Tensor, Tensor | None, Tensor] | None = None

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        if not torch.is_tensor(x):
            raise TypeError(f"x: expected a torch tensor, found {type(x).__name__}")
        if x.ndim not in (3, 4) or tuple(x.shape[-3:]) != self.sample_shape:
            raise ValueError(
                "x: expected (N, T, F) or (B, N, T, F) with (N, T, F) = "
                f"{self.sample_shape}, found shape {tuple(x.shape)}"
            )
        single = x.ndim == 3
        x = x.unsqueeze(0) if single else x
        operator = self._cached_operator(edge_index, edge_weight).to(x)
        x = x.transpose(1, 2)  # (B, T, N, F): from here on the layout of all other models
        x = F.relu(self.gcn1(x, operator))  # (B, T, N, 64)
        x = F.relu(self.gcn2(x, operator))  # (B, T, N, 128)
        x = F.relu(self.tcn1(x))  # (B, T, N, 256)
        x = F.relu(self.tcn2(x))  # (B, T, N, 256)
        x = self.fc(x.mean(dim=1))  # pooled over time alone: (B, N, 256) -> (B, N, C)
        return x.squeeze(0) if single else x

    def __getstate__(self) -> dict[str, Any]:
        """Without the cached operator: PyTorch cannot copy a sparse one, and it is made again when needed."""
        return self.__dict__ | {"_operator": None}

    def _cached_operator(self, edge_index: Tensor, edge_weight: Tensor | None) -> Tensor:
        """The normalised adjacency, worked out again only when the graph changes."""
        if self._operator is not None:
            index, weight, operator = self._operator
            if _same(index, edge_index) and _same(weight, edge_weight):
                return operator
        graph = Data(edge_index=edge_index, edge_weight=edge_weight, num_nodes=self.sample_shape[0])
        operator = gcn_operator(graph)
        self._operator = (edge_index.clone(), None if edge_weight is None else edge_weight.clone(), operator)
        return operator


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return torch.is_tensor(b) and a.device == b.device and torch.equal(a, b)


class STGCN(nn.Module):
    """Spatio-temporal graph convolutional network for forecasts.

    Blocks of temporal, spatial and temporal convolution, each shortening time by 2 (k - 1); then one
    temporal convolution over what is left and a linear map to all lead times at once.

    Args:
        in_features: F.
        out_features: F_out.
        history: number of past steps that one forecast sees.
        horizon: number of future steps that it predicts.
        channels: widths of each block, see :class:`stgcn_lab.layers.STConvBlock`.
        blocks: number of blocks.
        kernel_size: k of the temporal convolutions.
        spatial: ``"gcn"``, ``"cheb"``, ``"directional"`` or ``"none"``; or ``"adaptive"``, which learns its graph and
            takes no operator.
        order: polynomial terms for ``"cheb"`` (3 if not given), sectors for ``"directional"`` (4 if not given).
        dropout: share of values dropped in training.
        norm: use the layer norm of the blocks.
        num_nodes: N, for ``"adaptive"`` alone: a learned graph belongs to one set of stations.

    Shapes:
        x (B, history, N, F), operator as the spatial layer takes it -> (B, horizon, N, F_out).

    Raises:
        ValueError: if ``history`` is not longer than blocks x 2 (k - 1), or shapes do not fit.

    Source: Yu et al. (2018). One norm per channel instead of one per node and channel, so that the
    weights do not depend on the number of nodes.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        history: int,
        horizon: int,
        channels: Sequence[int] = (64, 16, 64),
        blocks: int = 2,
        kernel_size: int = 3,
        spatial: str = "gcn",
        order: int | None = None,
        dropout: float = 0.0,
        norm: bool = True,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__()
        in_features, out_features, history, horizon = _check_sizes(
            in_features=in_features, out_features=out_features, history=history, horizon=horizon
        )
        blocks, kernel_size = _check_sizes(blocks=blocks, kernel_size=kernel_size)
        channels = _three_widths(channels)
        left = history - blocks * 2 * (kernel_size - 1)
        if left < 1:
            raise ValueError(
                f"history: expected at least {history - left + 1} steps for {blocks} blocks with kernels of "
                f"{kernel_size}, found {history}; give more history, fewer blocks or a shorter kernel"
            )
        adaptive = spatial == "adaptive"
        if adaptive != (num_nodes is not None):
            raise ValueError(
                f"num_nodes: expected the number of stations with spatial='adaptive' and None otherwise, "
                f"found {num_nodes!r} with {spatial!r}"
            )
        if num_nodes is not None:
            num_nodes = whole_number(num_nodes, "num_nodes")
        self.adjacency = AdaptiveAdjacency(num_nodes, dim=min(num_nodes, 8)) if num_nodes is not None else None
        self.in_features, self.out_features = in_features, out_features
        self.history, self.horizon = history, horizon
        widths = [in_features] + [channels[-1]] * blocks
        self.blocks = nn.ModuleList(
            STConvBlock(width, channels, kernel_size, "gcn" if adaptive else spatial, order, dropout, norm)
            for width in widths[:-1]
        )
        self.collect = TemporalConv(channels[-1], channels[-1], left, pad=False)
        self.out = nn.Linear(channels[-1], horizon * out_features)

    def forward(self, x: Tensor, operator: Operators | None = None) -> Tensor:
        _check_features(x, self.in_features, "STGCN", series=True)
        if x.shape[1] != self.history:
            raise ValueError(
                f"x: expected (batch, time, node, feature) with {self.history} time steps, found shape "
                f"{tuple(x.shape)}; forecast_series takes longer stretches"
            )
        return self.forecast_series(x, operator).squeeze(1)

    def forecast_series(self, x: Tensor, operator: Operators | None = None) -> Tensor:
        """Every forecast that a stretch of weather allows, in one pass.

        The network is convolutional in time, so neighbouring windows share nearly all of their inner work.
        Forecast s is the one that :meth:`forward` makes from steps s ... s + history - 1.

        Args:
            x: (B, T, N, F) with T >= history.
            operator: as in :meth:`forward`.

        Returns:
            (B, T - history + 1, horizon, N, F_out).

        Raises:
            ValueError: if the stretch is shorter than ``history``.
        """
        _check_features(x, self.in_features, "STGCN", series=True)
        if x.shape[1] < self.history:
            raise ValueError(
                f"x: expected (batch, time, node, feature) with at least {self.history} time steps, "
                f"found shape {tuple(x.shape)}"
            )
        if self.adjacency is not None:
            operator = self.adjacency()
        for block in self.blocks:
            x = block(x, operator)
        x = self.out(self.collect(x))  # (B, S, N, horizon x F_out) with S = T - history + 1
        x = x.unflatten(-1, (self.horizon, self.out_features))  # (B, S, N, horizon, F_out)
        return x.transpose(2, 3)


class LinearSkip(nn.Module):
    """A linear forecast from all stations, and a network that learns what it leaves over.

    ``ŷ[h, i] = b[h, i] + Σ_p Σ_j W[h, p, i, j] x[t - p, j] + network(x)[h, i]``, p = 0 ... lags - 1. One day ahead
    weather is close to linear: the skip, fitted by least squares and then left alone, holds that part, and the
    network, whose last layer starts at zero, begins as exactly that forecast.

    Args:
        network: its last linear layer, ``out``, is set to zero.
        coefficients: (horizon, lags, N, N) W.
        intercept: (horizon, N) b.

    Shapes:
        x (B, history, N, F), of which the first feature is forecast -> as the network's output
        (B, horizon, N, F_out), the linear forecast added to its first feature.

    Raises:
        ValueError: if the coefficients do not fit together or to x.
    """

    network: STGCN
    coefficients: Tensor
    intercept: Tensor

    def __init__(self, network: STGCN, coefficients: Tensor, intercept: Tensor) -> None:
        super().__init__()
        shape = tuple(coefficients.shape)
        if len(shape) != 4 or shape[1] == 0 or shape[2] != shape[3] or tuple(intercept.shape) != (shape[0], shape[2]):
            raise ValueError(
                "coefficients, intercept: expected (horizon, lags, N, N) and (horizon, N), "
                f"found {shape} and {tuple(intercept.shape)}"
            )
        if shape[0] != network.horizon:
            raise ValueError(
                f"coefficients: expected the {network.horizon} lead times of the network, found {shape[0]}"
            )
        self.network = network
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("intercept", intercept)
        nn.init.zeros_(network.out.weight)
        nn.init.zeros_(network.out.bias)

    @property
    def history(self) -> int:
        """Number of past steps that one forecast sees."""
        return self.network.history

    def forward(self, x: Tensor, operator: Operators | None = None) -> Tensor:
        self._check(x)
        past = x[:, -self.coefficients.shape[1] :, :, 0].flip(1)  # (B, lags, N), the latest step first
        linear = self.intercept + torch.einsum("hpij,bpj->bhi", self.coefficients, past)  # (B, horizon, N)
        y = self.network(x, operator)  # (B, horizon, N, F_out)
        return torch.cat([y[..., :1] + linear.unsqueeze(-1), y[..., 1:]], dim=-1)

    def forecast_series(self, x: Tensor, operator: Operators | None = None) -> Tensor:
        """Every forecast that a stretch of weather allows, in one pass; see :meth:`STGCN.forecast_series`."""
        self._check(x[:, : self.history])
        lags = self.coefficients.shape[1]
        y = self.network.forecast_series(x, operator)
        past = x[:, self.history - lags :, :, 0].unfold(1, lags, 1).flip(-1)  # (B, S, N, lags), the latest step first
        linear = self.intercept + torch.einsum("hpij,bsjp->bshi", self.coefficients, past)  # (B, S, horizon, N)
        return torch.cat([y[..., :1] + linear.unsqueeze(-1), y[..., 1:]], dim=-1)

    def _check(self, x: Tensor) -> None:
        lags, nodes = self.coefficients.shape[1:3]
        _check_features(x, self.network.in_features, "LinearSkip", series=True)
        if x.shape[1] < lags or x.shape[2] != nodes:
            raise ValueError(
                f"x: expected (batch, time, node, feature) with {lags} time steps or more and {nodes} nodes, "
                f"found shape {tuple(x.shape)}"
            )


class STGCNClassifier(nn.Module):
    """ST-GCN for classes: of a whole stretch of regional weather, or of each station.

    Units of directional graph convolution and temporal convolution with residuals, then the mean over time
    (and, for a class of the whole graph, over the nodes) and a linear map.

    Args:
        in_features: F.
        num_classes: C.
        level: ``"graph"`` for one class a sample, ``"node"`` for one at each station.
        channels: width of each unit.
        kernel_size: k of the temporal convolutions, odd.
        sectors: number of compass sectors.
        dropout: share of values dropped in training.

    Shapes:
        x (B, T, N, F), operators from :func:`stgcn_lab.graphs.directional_operators`
        -> logits (B, C) or (B, N, C).

    Raises:
        ValueError: for an unknown level, an even kernel, or shapes that do not fit.

    Source: Yan et al. (2018). Their learned weight for each edge is left out: it would tie the network to
    one graph.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        level: str = "graph",
        channels: Sequence[int] = (32, 64),
        kernel_size: int = 9,
        sectors: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        in_features, num_classes, kernel_size = _check_sizes(
            in_features=in_features, num_classes=num_classes, kernel_size=kernel_size
        )
        if level not in ("graph", "node"):
            raise ValueError(f"level: expected 'graph' or 'node', found {level!r}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, so that it has a middle, found {kernel_size}")
        if not isinstance(channels, (tuple, list)) or not channels:
            raise ValueError(f"channels: expected the width of at least one unit, such as (32, 64), found {channels!r}")
        channels = [whole_number(width, "channels") for width in channels]
        self.in_features, self.level = in_features, level
        widths = [in_features, *channels]
        self.units = nn.ModuleList(
            _ClassifierUnit(width_in, width, kernel_size, sectors, dropout)
            for width_in, width in zip(widths[:-1], widths[1:], strict=True)
        )
        self.out = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor, operators: Operators) -> Tensor:
        _check_features(x, self.in_features, "STGCNClassifier", series=True)
        for unit in self.units:
            x = unit(x, operators)  # (B, T, N, C')
        x = x.mean(dim=1) if self.level == "node" else x.mean(dim=(1, 2))  # (B, N, C') or (B, C')
        return self.out(x)


class _ClassifierUnit(nn.Module):
    """relu(norm(temporal(relu(norm(spatial(x))))) + residual), time length kept."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int, sectors: int, dropout: float) -> None:
        super().__init__()
        self.space = DirectionalGraphConv(in_channels, channels, sectors)
        # A finished stretch is classified: the kernel may look both ways.
        self.time = TemporalConv(channels, channels, kernel_size, gated=False, causal=False)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.residual = nn.Identity() if in_channels == channels else nn.Linear(in_channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, operators: Operators) -> Tensor:
        y = F.relu(self.norm1(self.space(x, operators)))
        y = self.dropout(self.norm2(self.time(y)))
        return F.relu(y + self.residual(x))


# ---------------------------------------------------------------------------- the mesh step


def mesh_edges(graph: Data, length_scale: float | None = None) -> tuple[Tensor, Tensor]:
    """The edges of a graph and where each leads, as :class:`MeshStep` takes them.

    For the edge from j to i, ``(d, d sin β, d cos β) / length_scale``: distance of j from i, and how far east
    and north of i it lies, β being the bearing at which j is seen. Edge weights play no part.

    Args:
        graph: N nodes, ``pos`` = (lon, lat) in degrees.
        length_scale: km; the mean length of the edges if not given. A step that is to be moved to another graph
            needs the same one there.

    Returns:
        edge_index (2, edges), row 0 the source j and row 1 the target i; edge_features (edges, 3) float32.

    Raises:
        TypeError, ValueError: for a malformed graph, missing ``pos`` or a length that is not above 0.
    """
    matrix = adjacency(graph).tocoo()
    if not torch.is_tensor(graph.pos) or tuple(graph.pos.shape) != (graph.num_nodes, 2):
        found = tuple(graph.pos.shape) if torch.is_tensor(graph.pos) else type(graph.pos).__name__
        raise ValueError(f"graph: expected pos of shape ({graph.num_nodes}, 2) = (lon, lat), a tensor, found {found}")
    lon, lat = graph.pos.detach().cpu().numpy().astype(np.float64).T
    i, j = matrix.row, matrix.col
    distance = great_circle_distance(lat[i], lon[i], lat[j], lon[j])
    if length_scale is None:
        length_scale = float(distance.mean()) if distance.any() else 1.0
    if isinstance(length_scale, bool) or not isinstance(length_scale, (int, float)) or not 0 < length_scale < np.inf:
        raise ValueError(f"length_scale: expected km above 0, found {length_scale!r}")
    theta = np.radians(bearing(lat[i], lon[i], lat[j], lon[j]))
    features = np.stack([distance, distance * np.sin(theta), distance * np.cos(theta)], axis=1) / length_scale
    return torch.from_numpy(np.stack([j, i]).astype(np.int64)), torch.from_numpy(features.astype(np.float32))


class MeshStep(nn.Module):
    """One time step of a learned weather model: encode, pass messages along the edges, decode the increment.

    ``h_i = enc(x_i), e_ij = enc(edge)``, then in each round, j running over the neighbours of i,
    ``e_ij += f(e_ij, h_j, h_i)``, ``h_i += g(h_i, mean_j e_ij)``, and at the end
    ``x_i(t + 1) = x_i(t) + dec(h_i)``. Every map is two linear layers with a gate between them,
    ``W (P ⊙ sigmoid(Q)) + b``. None of them depends on the number of nodes.

    Args:
        in_features: F.
        out_features: F_out; these are the first of the F features. All of them if not given.
        history: number of past steps that one step sees.
        channels: width of the hidden features of nodes and edges.
        rounds: how often messages are passed, and so how many edges far a node sees.

    Shapes:
        x (B, history, N, F), edges from :func:`mesh_edges` -> (B, 1, N, F_out).

    Raises:
        TypeError, ValueError: for shapes that do not fit, or edges of another kind.

    Source: Keisler (2022); Lam et al. (2023), GraphCast, without the second, coarser mesh, without their
        norms and with a mean in the place of the sum over the neighbours, so that a graph with more edges
        is no louder. The gate is that of :class:`stgcn_lab.layers.TemporalConv`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int | None = None,
        history: int = 1,
        channels: int = 16,
        rounds: int = 2,
    ) -> None:
        super().__init__()
        out_features = in_features if out_features is None else out_features
        in_features, out_features, history, channels, rounds = _check_sizes(
            in_features=in_features, out_features=out_features, history=history, channels=channels, rounds=rounds
        )
        if out_features > in_features:
            raise ValueError(f"out_features: expected at most the {in_features} in_features, found {out_features}")
        self.in_features, self.out_features, self.history = in_features, out_features, history
        self.encode_node = _GatedMLP(history * in_features, channels, channels)
        self.encode_edge = _GatedMLP(3, channels, channels)
        self.message = nn.ModuleList(_GatedMLP(3 * channels, channels, channels) for _ in range(rounds))
        self.update = nn.ModuleList(_GatedMLP(2 * channels, channels, channels) for _ in range(rounds))
        self.decode = _GatedMLP(channels, channels, out_features)

    def forward(self, x: Tensor, edges: Operators | None = None) -> Tensor:
        _check_features(x, self.in_features, "MeshStep", series=True, weight=self.decode.out.weight)
        if x.shape[1] != self.history:
            raise ValueError(
                f"x: expected (batch, time, node, feature) with {self.history} time steps, found shape {tuple(x.shape)}"
            )
        (source, target), features = _check_edges(edges, x.shape[2])
        # The nodes come first: to fetch the features of an edge's source is then to copy a row.
        h = self.encode_node(x.permute(2, 0, 1, 3).flatten(2))  # (N, B, channels)
        e = self.encode_edge(features).unsqueeze(1).expand(-1, x.shape[0], -1)  # (edges, B, channels)
        degree = torch.bincount(target, minlength=len(h)).clamp(min=1)[:, None, None]
        for message, update in zip(self.message, self.update, strict=True):
            e = e + message(torch.cat([e, h[source], h[target]], dim=-1))
            heard = torch.zeros_like(h).index_add(0, target, e) / degree
            h = h + update(torch.cat([h, heard], dim=-1))
        increment = self.decode(h).transpose(0, 1).unsqueeze(1)  # (B, 1, N, F_out)
        return x[:, -1:, :, : self.out_features] + increment


class _GatedMLP(nn.Module):
    """``W (P ⊙ sigmoid(Q)) + b`` with P and Q linear in the input."""

    def __init__(self, in_features: int, hidden: int, out_features: int) -> None:
        super().__init__()
        self.inner = nn.Linear(in_features, 2 * hidden)
        self.out = nn.Linear(hidden, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.glu(self.inner(x)))


def _check_edges(edges: Operators | None, nodes: int, width: int = 3) -> tuple[Tensor, Tensor]:
    if not isinstance(edges, (tuple, list)) or len(edges) != 2 or not all(torch.is_tensor(part) for part in edges):
        raise TypeError(
            f"edges: expected (edge_index, edge_features) as mesh_edges(graph) makes them, found {type(edges).__name__}"
        )
    index, features = edges
    if index.dtype != torch.long or index.ndim != 2 or index.shape[0] != 2 or features.shape != (index.shape[1], width):
        raise ValueError(
            f"edges: expected edge_index (2, edges) torch.int64 and edge_features (edges, {width}), "
            f"found {tuple(index.shape)} {index.dtype} and {tuple(features.shape)}"
        )
    if index.numel() and (index.min() < 0 or index.max() >= nodes):
        raise ValueError(f"edges: expected nodes from 0 to {nodes - 1} as in x, found {index.min()} to {index.max()}")
    return index, features


def rollout(step: nn.Module, x: Tensor, steps: int, operator: Operators | None = None) -> Tensor:
    """Repeat a one-step model: each forecast becomes the newest part of the past.

    ``x(t + h) = step(x(t + h - history), ..., x(t + h - 1))``, for any model that forecasts one step of all the
    features that it sees. Gradients flow back through all steps.

    Args:
        step: called as ``step(x, operator)`` -> (B, 1, N, F).
        x: (B, history, N, F), the past.
        steps: how many steps to go.
        operator: the graph, passed on to the step.

    Returns:
        (B, steps, N, F).

    Raises:
        ValueError: if the step returns another shape, or steps is below 1.
    """
    forecasts = []
    for _ in range(whole_number(steps, "steps")):
        y = step(x, operator)
        if y.shape != x[:, -1:].shape:
            raise ValueError(
                f"step: expected a model that turns {tuple(x.shape)} into one step of all features, "
                f"{tuple(x[:, -1:].shape)}, found {tuple(y.shape)}"
            )
        forecasts.append(y)
        x = torch.cat([x[:, 1:], y], dim=1)
    return torch.cat(forecasts, dim=1)


class Rollout(nn.Module):
    """A one-step model as one that forecasts ``horizon`` steps, see :func:`rollout`.

    It can be trained like any other model, through all of its steps; the step that was wrapped is trained with it.

    Args:
        step: the one-step model.
        horizon: how many steps to go.

    Shapes:
        x (B, history, N, F), operator as the step takes it -> (B, horizon, N, F).
    """

    def __init__(self, step: nn.Module, horizon: int) -> None:
        super().__init__()
        if not isinstance(step, nn.Module):
            raise TypeError(f"step: expected a torch.nn.Module, found {type(step).__name__}")
        self.step, self.horizon = step, whole_number(horizon, "horizon")

    def forward(self, x: Tensor, operator: Operators | None = None) -> Tensor:
        return rollout(self.step, x, self.horizon, operator)


# ---------------------------------------------------------------------------- several sources

Relation = tuple[str, str, str]


class FusionSTGCN(nn.Module):
    """Several sources, each with its own nodes, features, history and gaps, for one forecast at the nodes of one kind.

    Every kind has an encoder of its own, a gated convolution over its whole history that sees values and masks and
    gives each node a state h. In each round the nodes hear the mean of their neighbours along every relation r,
    taken over those that have data,

    ``h_i <- h_i + relu(W h_i + b + Σ_r W_r m_ri)``, ``m_ri = Σ_j O_r[i, j] k_j h_j / Σ_j O_r[i, j] k_j``,

    with k_j = 1 if node j has data in its history, or has heard of some in an earlier round, and 0 otherwise: a
    neighbour without data changes nothing. At the end a linear map gives all lead times at the target. It starts at
    zero: before training the forecast of standardised anomalies is the climate. No weight depends on a number of
    nodes.

    Args:
        in_features: {kind: F}.
        out_features: F_out.
        history: {kind: steps}.
        horizon: number of steps to predict.
        channels: width of the states.
        rounds: how often messages are passed.
        target: the kind of node to predict at.
        relations: (source, relation, target) to pass messages along, keys of the operators; none for a network of
            the target alone.
        context: {kind: number} of the last features that say what a node is, such as its elevation, and are no data.
        dropout: share of the states' values dropped before the last map in training.

    Shapes:
        x {kind: (B, history, N, F)} with NaN where nothing was observed, operators {relation: (N_target, N_source)}
        from :func:`stgcn_lab.graphs.hetero_operators` -> (B, horizon, N of the target, F_out). Kinds and relations
        that the network does not know may be there and are left alone.

    Raises:
        TypeError, ValueError: for unknown kinds, a kind whose messages cannot reach the target in so many rounds, or
            shapes that do not fit.

    Source: the relations of Schlichtkrull et al. (2018), doi:10.1007/978-3-319-93417-4_38, with masked means.
    """

    def __init__(
        self,
        in_features: Mapping[str, int],
        out_features: int,
        history: Mapping[str, int],
        horizon: int,
        channels: int = 16,
        rounds: int = 1,
        target: str = "station",
        relations: Sequence[Relation] = (),
        context: Mapping[str, int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for setting, name in ((in_features, "in_features"), (history, "history"), (context or {}, "context")):
            if not isinstance(setting, Mapping):
                raise TypeError(f"{name}: expected a dict, one number for each kind, found {setting!r}")
        self.kinds = list(in_features)
        out_features, horizon = _check_sizes(out_features=out_features, horizon=horizon)
        channels, rounds = _check_sizes(channels=channels, rounds=rounds)
        if target not in self.kinds:
            raise ValueError(f"target: expected one of the kinds {self.kinds}, found {target!r}")
        if not set(self.kinds) <= set(history):
            raise ValueError(f"history: expected the kinds {self.kinds}, found {list(history)}")
        self.in_features = {kind: whole_number(in_features[kind], f"in_features[{kind!r}]") for kind in self.kinds}
        self.history = {kind: whole_number(history[kind], f"history[{kind!r}]") for kind in self.kinds}
        self.data = dict(self.in_features)  # how many features are data
        for kind in self.kinds:
            self.data[kind] -= whole_number((context or {}).get(kind, 0), f"context[{kind!r}]", least=0)
            if self.data[kind] < 1:
                raise ValueError(f"context: expected fewer than the {self.in_features[kind]} features of {kind!r}")
        self.target, self.horizon, self.out_features = target, horizon, out_features
        self.encode = nn.ModuleList(
            TemporalConv(2 * self.in_features[kind], channels, self.history[kind], pad=False) for kind in self.kinds
        )
        plan = _plan(relations, self.kinds, target, rounds)
        self.rounds = nn.ModuleList(_FusionRound(used, channels) for used in plan)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(channels, horizon * out_features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Mapping[str, Tensor], operators: Operators | None = None) -> Tensor:
        states, known = self._encoded(x)
        for step in self.rounds:
            states, known = step(states, known, operators)
        y = self.out(self.dropout(states[self.target]))  # (B, N, horizon x F_out)
        return y.unflatten(-1, (self.horizon, self.out_features)).transpose(1, 2)

    def _encoded(self, x: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """States (B, N, channels) of each kind, and whether a node has data (B, N, 1), 1 or 0."""
        if not isinstance(x, Mapping) or not set(self.kinds) <= set(x):
            found = list(x) if isinstance(x, Mapping) else type(x).__name__
            raise TypeError(f"x: expected a dict of tensors of the kinds {self.kinds}, found {found}")
        states, known = {}, {}
        for kind, encode in zip(self.kinds, self.encode, strict=True):
            values = x[kind]
            _check_features(values, self.in_features[kind], f"FusionSTGCN, x[{kind!r}],", series=True)
            if values.shape[1] != self.history[kind]:
                raise ValueError(
                    f"x: expected {self.history[kind]} time steps of {kind!r}, found shape {tuple(values.shape)}"
                )
            seen = values.isfinite()
            both = torch.cat([values.where(seen, torch.zeros_like(values)), seen.to(values.dtype)], dim=-1)
            states[kind] = encode(both).squeeze(1)
            data = seen[..., : self.data[kind]].any(dim=3).any(dim=1)
            known[kind] = data.to(states[kind].dtype).unsqueeze(-1)
        return states, known


class _FusionRound(nn.Module):
    """All nodes that hear something along these relations hear it at once."""

    def __init__(self, relations: Sequence[Relation], channels: int) -> None:
        super().__init__()
        self.relations = list(relations)
        self.hearers = sorted({target for _, _, target in relations})
        self.own = nn.ModuleList(nn.Linear(channels, channels) for _ in self.hearers)
        self.hear = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in relations)

    def forward(
        self, states: dict[str, Tensor], known: dict[str, Tensor], operators: Operators | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        told = {kind: own(states[kind]) for kind, own in zip(self.hearers, self.own, strict=True)}
        informed = dict(known)
        for relation, hear in zip(self.relations, self.hear, strict=True):
            source, _, target = relation
            mean, share = _mean_of_known(_operator_of(operators, relation, states), states[source], known[source])
            told[target] = told[target] + hear(mean)
            informed[target] = torch.maximum(informed[target], (share > 0).to(known[target].dtype))
        return states | {kind: states[kind] + F.relu(told[kind]) for kind in self.hearers}, informed


def _plan(relations: Sequence[Relation], kinds: list[str], target: str, rounds: int) -> list[list[Relation]]:
    """Which relations each round needs: those whose messages still reach the target in the rounds that are left."""
    relations = [tuple(relation) for relation in relations]  # type: ignore[misc]
    for relation in relations:
        if len(relation) != 3 or relation[0] not in kinds or relation[2] not in kinds:
            raise ValueError(f"relations: expected (source, relation, target) with the kinds {kinds}, found {relation}")
    if len(set(relations)) != len(relations):
        raise ValueError(f"relations: expected each once, found {relations}")
    wanted, plan = {target}, []
    for _ in range(rounds):
        used = [relation for relation in relations if relation[2] in wanted]
        plan.append(used)
        wanted = wanted | {source for source, _, _ in used}
    if set(kinds) != wanted:
        lost = [kind for kind in kinds if kind not in wanted]
        raise ValueError(
            f"relations: expected a way from each kind to {target!r} within {rounds} rounds, found none for {lost}"
        )
    return plan[::-1]


def _operator_of(operators: Any, relation: Relation, states: Mapping[str, Tensor]) -> Tensor:
    if not isinstance(operators, Mapping) or relation not in operators:
        found = list(operators) if isinstance(operators, Mapping) else type(operators).__name__
        raise TypeError(f"operators: expected a dict with {relation}, as hetero_operators makes it, found {found}")
    operator, shape = operators[relation], (states[relation[2]].shape[1], states[relation[0]].shape[1])
    if tuple(operator.shape) != shape:
        raise ValueError(
            f"operators: expected {shape} = (N_target, N_source) for {relation}, found {tuple(operator.shape)}"
        )
    return operator


def _mean_of_known(operator: Tensor, h: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (B, N_target, C) of the neighbours that have data, 0 where none has, and their share of the weights."""
    told = torch.cat([h * known, known], dim=-1)
    columns = told.transpose(0, 1).flatten(1)  # (N_source, B (C + 1)): one product for all
    sparse = operator.layout == torch.sparse_csr
    product = _SparseProduct.apply(operator, columns) if sparse else operator @ columns
    total, share = product.unflatten(1, (len(h), -1)).transpose(0, 1).split([h.shape[-1], 1], dim=-1)
    return total / torch.where(share > 0, share, torch.ones_like(share)), share


# ---------------------------------------------------------------------------- networks that fill gaps

# What a cell (station, step) tells the networks below: the features that they look at by number.
SHOWN, RESIDUAL = 1, 4


class STGCNImputer(nn.Module):
    """Fill gaps with convolutions in time and on the graph, looking both ways in time.

    Blocks of a gated convolution in time and ``h + relu(graph convolution of h)``. The kernel of block b skips
    2^b - 1 steps between those that it reads, so that few blocks reach far: to both sides of a long gap. What
    comes out is a correction of a first guess, zero before training.

    Args:
        in_features: F features of a cell, as :mod:`stgcn_lab.imputation` makes them.
        channels: width of the hidden features.
        blocks: number of blocks; they reach (k - 1) / 2 (2^blocks - 1) steps to each side.
        kernel_size: k of the temporal convolutions, odd.
        spatial: ``"gcn"``, ``"cheb"``, ``"directional"`` or ``"none"``.
        order: polynomial terms for ``"cheb"`` (3 if not given), sectors for ``"directional"`` (4 if not given).

    Shapes:
        x (B, T, N, F) of any length T, operator as the spatial layer takes it -> (B, T, N, 2): what to add to the
        first guess and to the logarithm of its spread.

    Raises:
        ValueError: for unknown ``spatial``, an even kernel, or shapes that do not fit.

    Source: the blocks of Yu et al. (2018), with the spaced kernels of Wu et al. (2019), Graph WaveNet.
    """

    def __init__(
        self,
        in_features: int,
        channels: int = 16,
        blocks: int = 4,
        kernel_size: int = 3,
        spatial: str = "gcn",
        order: int | None = None,
    ) -> None:
        super().__init__()
        in_features, channels, blocks, kernel_size = _check_sizes(
            in_features=in_features, channels=channels, blocks=blocks, kernel_size=kernel_size
        )
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, so that it has a middle, found {kernel_size}")
        self.in_features = in_features
        self.encode = _GatedMLP(in_features, channels, channels)
        self.time = nn.ModuleList(TemporalConv(channels, channels, kernel_size, causal=False) for _ in range(blocks))
        self.space = nn.ModuleList(_spatial_layer(spatial, channels, order) for _ in range(blocks))
        self.out = _correction(channels + in_features, channels)

    def forward(self, x: Tensor, operator: Operators | None = None) -> Tensor:
        _check_features(x, self.in_features, "STGCNImputer", series=True, weight=self.out.out.weight)
        h = self.encode(x)  # (B, T, N, channels)
        for b, (time, space) in enumerate(zip(self.time, self.space, strict=True)):
            h = _spaced(time, h, 2**b)
            h = h + F.relu(space(h) if isinstance(space, nn.Linear) else space(h, operator))
        return self.out(torch.cat([h, x], dim=-1))


def _correction(in_features: int, hidden: int) -> "_GatedMLP":
    """The last layer of a network that corrects: before training it says zero."""
    out = _GatedMLP(in_features, hidden, 2)
    nn.init.zeros_(out.out.weight)
    nn.init.zeros_(out.out.bias)
    return out


def _spaced(time: nn.Module, x: Tensor, spacing: int) -> Tensor:
    """The convolution with ``spacing`` steps from one tap to the next: on each of the interleaved series by itself."""
    batch, steps = x.shape[:2]
    x = F.pad(x, (0, 0, 0, 0, 0, -steps % spacing))  # zeros up to a multiple, as the convolution pads anyway
    apart = x.unflatten(1, (-1, spacing)).transpose(1, 2).flatten(0, 1)  # (B spacing, T / spacing, N, C)
    together = time(apart).unflatten(0, (batch, spacing)).transpose(1, 2).flatten(1, 2)
    return together[:, :steps]


class AttentionImputer(nn.Module):
    """Fill gaps by weighing what is known: first at the neighbours, then at the station itself, before and after.

    A cell's answer is ``Σ_j a_j v_j`` over the known cells j that it looks at, with
    ``a_j = exp(s_j) / (1 + Σ_j exp(s_j))``: the scores s_j come from the hidden features of both cells and from
    where and when j lies, a cell that is not known has weight 0, and the 1 is the right to trust nobody. In space
    the neighbours at most ``reach`` steps away are asked; in time all steps at the same station. The second round sees
    what the first one said wherever the station was known, and so how the station differs from its neighbours. What
    comes out is a correction of a first guess, zero before training.

    Args:
        in_features: F features of a cell, as :mod:`stgcn_lab.imputation` makes them; the second one is 1 where the
            cell is known and 0 where it is not.
        edge_features: number of features of an edge; :func:`mesh_edges` gives 3.
        channels: width of the hidden features, a multiple of the heads.
        heads: number of answers that are asked for side by side.
        reach: how many steps before and after are looked at in space.

    Shapes:
        x (B, T, N, F) of any length T, edges from :func:`mesh_edges`, or with other features
        -> (B, T, N, 2): what to add to the first guess and to the logarithm of its spread.

    Raises:
        TypeError, ValueError: for channels that the heads do not divide, shapes that do not fit, or edges of another
            kind.

    Source: Vaswani et al. (2017); Veličković et al. (2018) for attention along the edges of a graph.
    """

    def __init__(
        self, in_features: int, edge_features: int = 3, channels: int = 16, heads: int = 4, reach: int = 1
    ) -> None:
        super().__init__()
        in_features, edge_features = _check_sizes(in_features=in_features, edge_features=edge_features)
        channels, heads = _check_sizes(channels=channels, heads=heads)
        if in_features <= SHOWN:
            raise ValueError(
                f"in_features: expected at least 2, the second one telling what is known, found {in_features}"
            )
        if channels % heads:
            raise ValueError(f"channels: expected a multiple of the {heads} heads, found {channels}")
        self.in_features, self.edge_features, self.heads = in_features, edge_features, heads
        self.reach = whole_number(reach, "reach", least=0)
        self.encode = _GatedMLP(in_features, channels, channels)
        self.ask = nn.ModuleList(nn.Linear(channels, channels) for _ in range(2))  # in space, in time
        self.offer = nn.ModuleList(nn.Linear(channels, 2 * channels) for _ in range(2))
        self.where, self.when = _GatedMLP(edge_features + 1, channels, heads), _GatedMLP(3, channels, heads)
        self.update = _GatedMLP(2 * channels, channels, channels)
        self.out = _correction(2 * channels + in_features, channels)

    def forward(self, x: Tensor, edges: Operators | None = None) -> Tensor:
        _check_features(x, self.in_features, "AttentionImputer", series=True, weight=self.out.out.weight)
        (source, target), features = _check_edges(edges, x.shape[2], self.edge_features)
        x = x.permute(2, 0, 1, 3)  # (N, B, T, F): to fetch a neighbour is then to copy a row
        known = x[..., SHOWN] > 0.5
        h = self.encode(x)
        h = h + self.update(torch.cat([h, self._in_space(h, known, source, target, features)], dim=-1))
        y = self.out(torch.cat([h, self._in_time(h, known), x], dim=-1))
        return y.permute(1, 2, 0, 3)

    def _questions(self, h: Tensor, part: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, B, T, heads, channels / heads)."""
        query = self.ask[part](h).unflatten(-1, (self.heads, -1))
        key, value = self.offer[part](h).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return query / query.shape[-1] ** 0.5, key, value

    def _in_space(self, h: Tensor, known: Tensor, source: Tensor, target: Tensor, features: Tensor) -> Tensor:
        query, key, value = self._questions(h, 0)
        neighbour, edge = _neighbour_table(source, target, len(h))  # (N, K), the number of an edge or -1
        there = edge >= 0
        features = F.pad(features, (0, 0, 0, 1))[edge]  # (N, K, edge_features); -1 fetches the row of zeros
        scores, offers, mask = [], [], []
        for lag in range(-self.reach, self.reach + 1):
            key_j, value_j = _shift(key, lag)[neighbour], _shift(value, lag)[neighbour]  # (N, K, B, T, heads, c)
            bias = self.where(F.pad(features, (0, 1), value=float(lag)))[:, :, None, None]  # (N, K, 1, 1, heads)
            scores.append((query[:, None] * key_j).sum(-1) + bias)
            offers.append(value_j)
            mask.append(_shift(known, lag)[neighbour] & there[:, :, None, None])
        weights = _known_softmax(torch.cat(scores, 1), torch.cat(mask, 1)[..., None], dim=1)
        return (weights.unsqueeze(-1) * torch.cat(offers, 1)).sum(1).flatten(-2)

    def _in_time(self, h: Tensor, known: Tensor) -> Tensor:
        query, key, value = (part.transpose(2, 3) for part in self._questions(h, 1))  # (N, B, heads, T, c)
        t = torch.arange(h.shape[2], device=h.device)
        lag = (t - t[:, None]).to(h.dtype)  # (T, T'): positive after
        # The logarithm tells a week from a month, the sign before from after.
        bias = self.when(torch.stack([lag / 10, lag.sign(), lag.abs().log1p()], dim=-1)).permute(2, 0, 1)
        scores = query @ key.transpose(-1, -2) + bias  # (N, B, heads, T, T')
        weights = _known_softmax(scores, known[:, :, None, None, :], dim=-1)
        return (weights @ value).transpose(2, 3).flatten(-2)


def _known_softmax(scores: Tensor, known: Tensor, dim: int) -> Tensor:
    """``exp(s) / (1 + Σ exp(s))`` over the known, 0 elsewhere; 0 everywhere if nothing is known."""
    scores = scores.masked_fill(~known, -torch.inf)
    highest = scores.detach().amax(dim, keepdim=True).clamp(min=0)  # so that no exponential is too large
    weights = torch.exp(scores - highest)
    return weights / (weights.sum(dim, keepdim=True) + torch.exp(-highest))


def _shift(x: Tensor, lag: int) -> Tensor:
    """x(t + lag) at t, zeros beyond the ends; x (N, B, T, ...)."""
    t = torch.arange(lag, lag + x.shape[2], device=x.device)
    inside = (t >= 0) & (t < x.shape[2])
    return x[:, :, t.clamp(0, x.shape[2] - 1)] * inside.view(-1, *[1] * (x.ndim - 3)).to(x.dtype) if lag else x


def _neighbour_table(source: Tensor, target: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """The neighbours of each node side by side (N, K), and the edges they come by; K is the largest number, edge -1
    says that there is no further one."""
    order = torch.argsort(target, stable=True)
    degree = torch.bincount(target, minlength=nodes)
    first = torch.cumsum(degree, 0) - degree
    place = torch.arange(len(order), device=order.device) - first[target[order]]
    edge = order.new_full((nodes, max(1, int(degree.max()))), -1)
    edge[target[order], place] = order
    return F.pad(source, (0, 1))[edge], edge


class RecurrentImputer(nn.Module):
    """Fill gaps with a memory that runs through the record, once forwards and once backwards.

    At each step and station the memory h predicts how far the first guess is off, ``r = W h``; what is known takes
    the place of the prediction; the neighbours' r, known or predicted, and their memories improve it, a graph
    convolution; and with the improved r the memory moves on, a gated recurrent unit whose maps are graph
    convolutions. The two directions meet in a small network. What comes out is a correction of a first guess, zero
    before training.

    Args:
        in_features: F features of a cell, as :mod:`stgcn_lab.imputation` makes them; the second one is 1 where the
            cell is known, and the fifth one is how far the first guess would be off there.
        hidden: width of the memory.
        spatial: ``"gcn"``, ``"cheb"``, ``"directional"`` or ``"none"``.
        order: polynomial terms for ``"cheb"`` (3 if not given), sectors for ``"directional"`` (4 if not given).

    Shapes:
        x (B, T, N, F) of any length T, operator as the spatial layer takes it -> (B, T, N, 2): what to add to the
        first guess and to the logarithm of its spread.

    Raises:
        ValueError: for unknown ``spatial``, too few features, or shapes that do not fit.

    Source: Cini, Marisca & Alippi (2022), GRIN. Here it corrects a first guess, and one linear map comes before each
        graph convolution.
    """

    def __init__(self, in_features: int, hidden: int = 16, spatial: str = "gcn", order: int | None = None) -> None:
        super().__init__()
        in_features, hidden = _check_sizes(in_features=in_features, hidden=hidden)
        if in_features <= RESIDUAL:
            raise ValueError(
                f"in_features: expected at least 5, the fifth one telling how far the guess is off, found {in_features}"
            )
        self.in_features = in_features
        self.directions = nn.ModuleList(_Recurrence(in_features, hidden, spatial, order) for _ in range(2))
        self.out = _correction(4 * hidden + in_features, 2 * hidden)

    def forward(self, x: Tensor, operator: Operators | None = None) -> Tensor:
        _check_features(x, self.in_features, "RecurrentImputer", series=True, weight=self.out.out.weight)
        x = x.permute(1, 2, 0, 3)  # (T, N, B, F)
        return self.out(torch.cat([self._remember(x, operator), x], dim=-1)).permute(2, 0, 1, 3)

    def _remember(self, x: Tensor, operator: Operators | None) -> Tensor:
        """(T, N, B, F) -> (T, N, B, 4 hidden): memory and neighbours' answer forwards, then backwards.

        The directions run side by side, as columns of one matrix whose weights are block diagonal. All maps are linear
        before they meet a tanh or a sigmoid, so what they say of x is had for all steps before the loop.
        """
        steps, nodes, batch, features = x.shape
        directions: list[Any] = list(self.directions)
        space, hidden = directions[0].space[0], directions[0].predict.in_features
        if not isinstance(space, nn.Linear):
            space(x[0].transpose(0, 1).new_zeros(nodes, hidden), operator)  # says what is wrong with an operator

        def hops(y: Tensor) -> list[Tensor]:
            return [hop.view(y.shape) for hop in _hops(space, operator, y.reshape(nodes, -1))]

        def add(u: Tensor, parts: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
            for part, weight in zip(parts, weights, strict=True):
                u = torch.addmm(u, part, weight)
            return u

        apart = torch.stack([direction.folded() for direction in directions], dim=1).unflatten(-1, (4, 1, hidden))
        eye = torch.eye(2, dtype=apart.dtype, device=x.device)[:, None, None, :, None]
        # (hop, direction, input, map, direction, hidden), zero from one direction to the other
        of_r, of_x, of_h = (w.flatten(3).flatten(1, 2) for w in (apart * eye).split([1, features + 1, hidden], dim=2))
        width = 2 * hidden  # columns of a map: ask, reset, keep and candidate
        of_r_ask, of_r_take, of_r_new = (w.unbind() for w in of_r.split([width, 2 * width, width], dim=-1))
        of_h_take, of_h_new = (w.unbind() for w in of_h.split([3 * width, width], dim=-1))
        predict = torch.block_diag(*(d.predict.weight.T for d in directions))
        improve = torch.block_diag(*(d.improve.weight.T[:hidden] for d in directions))
        improve_heard = torch.block_diag(*(d.improve.weight.T[hidden:] for d in directions))
        guess = torch.cat([predict, improve], dim=1)
        guess_bias = torch.cat([d.predict.bias for d in directions] + [d.improve.bias for d in directions])

        both = F.pad(x, (0, 1), value=1.0)  # the 1 takes the biases
        both = torch.cat([both, both.flip(0)], dim=-1).transpose(0, 1)  # (N, T, B, 2 (F + 1))
        said = (torch.cat(hops(both), dim=-1).transpose(0, 1) @ of_x.flatten(0, 1)).flatten(1, 2)  # (T, N B, 4 width)
        cells = torch.stack([x, x.flip(0)], dim=-1).flatten(1, 2)  # (T, N B, F, 2)
        known, residual = cells[:, :, SHOWN] > 0.5, cells[:, :, RESIDUAL]

        h = x.new_zeros(nodes * batch, width)
        memory, answer = [], []
        for said_now, know, off in zip(said, known, residual, strict=True):
            said_take, said_new = said_now.split([3 * width, width], dim=-1)
            memory.append(h)
            predicted, improved = torch.addmm(guess_bias, h, guess).chunk(2, dim=-1)
            ask, take = add(said_take, hops(h), of_h_take).split([width, 2 * width], dim=-1)
            answer.append(torch.tanh(add(ask, hops(torch.where(know, off, predicted)), of_r_ask)))
            r = hops(torch.where(know, off, torch.addmm(improved, answer[-1], improve_heard)))
            reset, keep = torch.sigmoid(add(take, r, of_r_take)).chunk(2, dim=-1)
            new = torch.tanh(add(add(said_new, r, of_r_new), hops(reset * h), of_h_new))
            h = new + keep * (h - new)
        seen = torch.stack([torch.stack(memory), torch.stack(answer)], dim=-2)  # (T, N B, 2, width)
        one, other = seen.chunk(2, dim=-1)
        return torch.cat([one, other.flip(0)], dim=-2).view(steps, nodes, batch, 4 * hidden)


class _Recurrence(nn.Module):
    """The weights of one direction: predict, take in what is known, ask the neighbours, remember.

    With y = (r, x, h) mapped linearly by ask, take and candidate, what goes on is ``y + graph convolution of y``.
    """

    def __init__(self, in_features: int, hidden: int, spatial: str, order: int | None) -> None:
        super().__init__()
        self.predict, self.improve = nn.Linear(hidden, 1), nn.Linear(2 * hidden, 1)
        self.ask = nn.Linear(in_features + 1 + hidden, hidden)
        self.take = nn.Linear(in_features + 1 + hidden, 2 * hidden)
        self.candidate = nn.Linear(in_features + 1 + hidden, hidden)
        self.space = nn.ModuleList(_spatial_layer(spatial, width, order) for width in (hidden, 2 * hidden, hidden))

    def folded(self) -> Tensor:
        """(hops, 1 + F + 1 + hidden, 4 hidden): each map and its graph convolution, for r, x, 1 and h in the rows."""
        spaces: list[Any] = list(self.space)
        hidden, maps = self.predict.in_features, []
        for linear, space in zip((self.ask, self.take, self.candidate), spaces, strict=True):
            rows = torch.cat([linear.weight.T[:-hidden], linear.bias[None], linear.weight.T[-hidden:]])
            bias = F.pad(space.bias[None, None], (0, 0, len(rows) - hidden - 1, hidden))
            here, *there = (rows @ _hop_weights(space)).split(1)
            maps.append(torch.cat([here + bias, *there]))
        return torch.cat(maps, dim=-1)


def _hops(space: nn.Module, operator: Any, y: Tensor) -> list[Tensor]:
    """What the weights of a spatial layer are multiplied with: y (N, M), then y sent through the graph."""
    if isinstance(space, nn.Linear):
        return [y]
    if not isinstance(space, ChebConv):
        return [y, *(propagate(a, y) for a in ([operator] if isinstance(space, GraphConv) else operator))]
    hops = [y]
    for k in range(1, space.K):
        step = propagate(operator, hops[-1])
        hops.append(step if k == 1 else 2 * step - hops[-2])
    return hops


def _hop_weights(space: Any) -> Tensor:
    """(hops, C, C): what ``y + graph convolution of y`` multiplies :func:`_hops` with."""
    own = torch.eye(len(space.bias), dtype=space.bias.dtype, device=space.bias.device)
    if isinstance(space, nn.Linear):
        return (own + space.weight.T)[None]
    if isinstance(space, GraphConv):
        return torch.stack([own, space.weight])
    return torch.cat([own + space.weight[:1], space.weight[1:]])
