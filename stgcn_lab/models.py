"""Networks: the article's classifier made to run, STGCN for forecasts, ST-GCN for classes.

All take ``(batch, time, node, feature)`` and a graph operator, except :class:`ArticleSTGCN`, which keeps
the article's order of axes at its door.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from ._checks import whole_number
from .graphs import gcn_operator
from .layers import (
    DirectionalGraphConv,
    GraphConv,
    Operators,
    STConvBlock,
    TemporalConv,
    _check_features,
    _check_sizes,
    _three_widths,
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
        spatial: ``"gcn"``, ``"cheb"``, ``"directional"`` or ``"none"``.
        order: polynomial terms for ``"cheb"`` (3 if not given), sectors for ``"directional"`` (4 if not given).
        dropout: share of values dropped in training.

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
        self.in_features, self.out_features = in_features, out_features
        self.history, self.horizon = history, horizon
        widths = [in_features] + [channels[-1]] * blocks
        self.blocks = nn.ModuleList(
            STConvBlock(width, channels, kernel_size, spatial, order, dropout) for width in widths[:-1]
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
        for block in self.blocks:
            x = block(x, operator)
        x = self.out(self.collect(x))  # (B, S, N, horizon x F_out) with S = T - history + 1
        x = x.unflatten(-1, (self.horizon, self.out_features))  # (B, S, N, horizon, F_out)
        return x.transpose(2, 3)


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
