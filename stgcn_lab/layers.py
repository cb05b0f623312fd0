"""Layers: graph convolutions in space, convolutions in time, and the block that stacks them.

Every tensor is ``(batch, time, node, feature)``. A graph layer mixes nodes and features, a temporal layer
time and features, and neither owns a weight whose size depends on the number of nodes (the one exception
says so: :class:`AdaptiveAdjacency`). The graph comes in as an operator, an (N, N) tensor passed to
``forward``, so that a trained layer can be moved to another region.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import whole_number

MANY_NODES = 2000  # from here on the library's gradient of a convolution's weights is slower than ours

Operators = Tensor | Sequence[Tensor] | Mapping[Any, Tensor]


def propagate(operator: Tensor, x: Tensor) -> Tensor:
    """Let an operator act on the nodes of a field.

    ``y[..., i, c] = Σ_j A[i, j] x[..., j, c]``

    Args:
        operator: (N, N), dense or sparse CSR.
        x: (..., N, C).

    Returns:
        (..., N, C).

    Raises:
        TypeError, ValueError: if the operator is no square matrix, or has another number of nodes or another
            precision than x.
    """
    if not torch.is_tensor(operator):
        raise TypeError(f"operator: expected a torch tensor (node, node), found {type(operator).__name__}")
    if not torch.is_tensor(x):
        raise TypeError(f"x: expected a torch tensor (..., node, feature), found {type(x).__name__}")
    if operator.ndim != 2 or operator.shape[0] != operator.shape[1]:
        raise ValueError(f"operator: expected a square matrix (node, node), found shape {tuple(operator.shape)}")
    if x.ndim < 2 or x.shape[-2] != operator.shape[0]:
        raise ValueError(
            f"x: expected (..., node, feature) with {operator.shape[0]} nodes as in the operator, "
            f"found shape {tuple(x.shape)}"
        )
    _check_dtype(operator, "operator", x.dtype)
    # One matrix product for all batches and times: fold them into the columns.
    columns = x.movedim(-2, 0)  # (N, ..., C)
    flat = columns.reshape(x.shape[-2], -1)  # (N, ... x C)
    product = _SparseProduct.apply(operator, flat) if operator.layout == torch.sparse_csr else operator @ flat
    return product.view(columns.shape).movedim(0, -2)  # (..., N, C)


class _SparseProduct(torch.autograd.Function):
    """Sparse operator times dense matrix, for a constant operator.

    The gradient is Aᵀ times the incoming one. The transpose is made once and kept with the operator, where
    PyTorch's own backward pass would make it again at every step. Under autocast the product keeps the
    precision of the operator: on the CPU PyTorch has no sparse product in 16 bits.
    """

    @staticmethod
    def forward(ctx: Any, operator: Tensor, dense: Tensor) -> Tensor:
        ctx.operator, ctx.dtype = operator, dense.dtype
        with torch.autocast(dense.device.type, enabled=False):
            return operator @ dense.to(operator.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        operator = ctx.operator
        version = operator.values()._version  # rises when somebody changes the values in place
        if getattr(operator, "transposed", (None, None))[0] != version:
            operator.transposed = (version, operator.to_sparse_coo().t().to_sparse_csr())
        with torch.autocast(grad.device.type, enabled=False):
            return None, (operator.transposed[1] @ grad.contiguous()).to(ctx.dtype)


def _check_dtype(tensor: Tensor, name: str, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype and not torch.is_autocast_enabled(tensor.device.type):  # autocast converts by itself
        raise TypeError(f"{name}: expected {dtype}, found {tensor.dtype}; convert it with .to({dtype})")


def _check_features(x: Tensor, features: int, layer: str, series: bool = False, weight: Tensor | None = None) -> None:
    if not torch.is_tensor(x):
        raise TypeError(f"x: expected a torch tensor, found {type(x).__name__}")
    right_axes = x.ndim == 4 if series else x.ndim >= 2
    if not right_axes or x.shape[-1] != features:
        axes = "(batch, time, node, feature)" if series else "(..., node, feature)"
        raise ValueError(f"x: {layer} expects {axes} with {features} features, found shape {tuple(x.shape)}")
    if weight is not None:
        _check_dtype(x, "x", weight.dtype)


def _check_sizes(**sizes: int) -> tuple[int, ...]:
    return tuple(whole_number(size, name) for name, size in sizes.items())


# ---------------------------------------------------------------------------- space


class GraphConv(nn.Module):
    """Graph convolution of first order.

    ``Z = A X W + b``, the equation of the article without its activation. With A from
    :func:`stgcn_lab.graphs.gcn_operator` it is the GCN layer.

    Args:
        in_features, out_features: C and C'.

    Shapes:
        x (..., N, C), operator (N, N) -> (..., N, C').

    Raises:
        ValueError: for another number of features or nodes than expected.

    Source: Kipf & Welling (2017), equation 2.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        in_features, out_features = _check_sizes(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, operator: Tensor) -> Tensor:
        _check_features(x, self.in_features, "GraphConv", weight=self.weight)
        # (A X) W = A (X W): send the narrower of the two through the graph.
        if self.out_features <= self.in_features:
            return propagate(operator, x @ self.weight) + self.bias
        return propagate(operator, x) @ self.weight + self.bias


class ChebConv(nn.Module):
    """Graph convolution with a Chebyshev filter, which reaches K - 1 steps along the edges.

    ``Z = Σ_{k=0}^{K-1} T_k(L̃) X W_k + b`` with ``T_0 = 1, T_1 = L̃, T_k = 2 L̃ T_{k-1} - T_{k-2}``.

    Args:
        in_features, out_features: C and C'.
        K: number of polynomial terms.

    Shapes:
        x (..., N, C), laplacian (N, N) from :func:`stgcn_lab.graphs.scaled_laplacian` -> (..., N, C').

    Raises:
        ValueError: for another number of features or nodes than expected.

    Source: Defferrard et al. (2016), section 2.1.
    """

    def __init__(self, in_features: int, out_features: int, K: int) -> None:
        super().__init__()
        in_features, out_features, K = _check_sizes(in_features=in_features, out_features=out_features, K=K)
        self.in_features, self.out_features, self.K = in_features, out_features, K
        self.weight = nn.Parameter(torch.empty(K, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, laplacian: Tensor) -> Tensor:
        _check_features(x, self.in_features, "ChebConv", weight=self.weight)
        before, now = None, x  # T_{k-1} X and T_k X
        z = now @ self.weight[0]
        for weight in self.weight[1:]:
            step = propagate(laplacian, now)
            before, now = now, step if before is None else 2 * step - before
            z = z + now @ weight
        return z + self.bias


class DirectionalGraphConv(nn.Module):
    """Graph convolution with its own weights for each compass sector and for the station itself.

    ``Z = X W_self + Σ_s A_s X W_s + b``. Where :class:`GraphConv` only sees the mean of the neighbours, this
    layer can tell upstream from downstream.

    Args:
        in_features, out_features: C and C'.
        sectors: number S of sectors.

    Shapes:
        x (..., N, C), operators S times (N, N) from :func:`stgcn_lab.graphs.directional_operators`
        -> (..., N, C').

    Raises:
        ValueError: for another number of features, nodes or operators than expected.

    Source: the partition strategy of Yan et al. (2018), equation 10, with compass sectors as subsets.
    """

    def __init__(self, in_features: int, out_features: int, sectors: int = 4) -> None:
        super().__init__()
        in_features, out_features, sectors = _check_sizes(
            in_features=in_features, out_features=out_features, sectors=sectors
        )
        self.in_features, self.out_features, self.sectors = in_features, out_features, sectors
        self.weight = nn.Parameter(torch.empty(1 + sectors, in_features, out_features))  # 0: the station itself
        self.bias = nn.Parameter(torch.empty(out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, operators: Operators) -> Tensor:
        _check_features(x, self.in_features, "DirectionalGraphConv", weight=self.weight)
        if operators is None or len(operators) != self.sectors:
            found = "none" if operators is None else len(operators)
            raise ValueError(
                f"operators: expected {self.sectors} matrices (node, node), one for each sector, found {found}"
            )
        z = x @ self.weight[0] + self.bias
        for operator, weight in zip(operators, self.weight[1:], strict=True):
            if self.out_features <= self.in_features:
                z = z + propagate(operator, x @ weight)
            else:
                z = z + propagate(operator, x) @ weight
        return z


class AdaptiveAdjacency(nn.Module):
    """A graph operator that is learned with the rest of the network, for one fixed set of nodes.

    ``A = softmax(relu(E_1 E_2ᵀ))`` over each row, so that it averages; E_1 and E_2 (N, dim) are learned.

    Args:
        num_nodes: N. Unlike every other layer this one belongs to one set of stations.
        dim: length of a node's embedding.

    Shapes:
        () -> (N, N), to be passed on as an operator.

    Source: Wu et al. (2019), Graph WaveNet, equation 5.
    """

    def __init__(self, num_nodes: int, dim: int) -> None:
        super().__init__()
        num_nodes, dim = _check_sizes(num_nodes=num_nodes, dim=dim)
        self.source = nn.Parameter(torch.empty(num_nodes, dim))
        self.target = nn.Parameter(torch.empty(num_nodes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.source)
        nn.init.normal_(self.target)

    def forward(self) -> Tensor:
        return torch.softmax(F.relu(self.target @ self.source.T), dim=1)


# ---------------------------------------------------------------------------- time


class TemporalConv(nn.Module):
    """Convolution along time at every station alike, by default causal and gated.

    ``P, Q = X * K`` and ``Y = (P + X) ⊙ sigmoid(Q)``: the gated linear unit with its residual. X is cut or
    padded with zero channels, or mapped linearly where it has more channels than the output. With
    ``gated=False`` it is the plain convolution ``Y = X * K + b`` and no activation.

    Args:
        in_channels, out_channels: C and C'.
        kernel_size: k, the number of time steps that one output sees.
        gated: use the gate.
        causal: with padding, output t sees inputs t-k+1 ... t; otherwise t-(k-1)//2 ... t+k//2, which looks
            into the future and has no place in a forecast.
        pad: fill with zeros so that the output has as many steps as the input. Without padding only the
            T - k + 1 outputs remain whose whole kernel lies inside; output t then ends at input t + k - 1,
            and ``causal`` changes nothing.

    Shapes:
        x (B, T, N, C) -> (B, T, N, C'), or (B, T - k + 1, N, C') without padding.

    Raises:
        ValueError: for another number of features, or fewer time steps than the kernel without padding.

    Source: Yu et al. (2018), section 3.3 and the authors' residual inside the gate; Dauphin et al. (2017).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        gated: bool = True,
        causal: bool = True,
        pad: bool = True,
    ) -> None:
        super().__init__()
        in_channels, out_channels, kernel_size = _check_sizes(
            in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size
        )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.gated, self.causal, self.pad = gated, causal, pad
        self.conv = nn.Conv2d(in_channels, 2 * out_channels if gated else out_channels, (kernel_size, 1))
        shrinks = gated and in_channels > out_channels
        self.shrink = nn.Linear(in_channels, out_channels, bias=False) if shrinks else None

    def forward(self, x: Tensor) -> Tensor:
        _check_features(x, self.in_channels, "TemporalConv", series=True, weight=self.conv.weight)
        k = self.kernel_size
        if self.pad:
            before = k - 1 if self.causal else (k - 1) // 2
            x = F.pad(x, (0, 0, 0, 0, before, k - 1 - before))  # zeros before and after, along time
        if x.shape[1] < k:
            raise ValueError(f"x: expected at least {k} time steps for a kernel of {k}, found {x.shape[1]}")
        y = _ConvInTime.apply(*_autocast(x.contiguous(), self._kernel(), self.conv.bias))  # (B, T', N, C' or 2 C')
        return _GatedUnit.apply(y) if self.gated else y

    def _kernel(self) -> Tensor:
        """The weights, with the residual as part of the tap at the output's own time step: P * K + X = P * (K + 1)."""
        if not self.gated:
            return self.conv.weight
        k, out = self.kernel_size, self.out_channels
        own = k - 1 if self.causal or not self.pad else (k - 1) // 2
        weight = self.conv.weight  # (2 C', C, k, 1)
        residual = weight.new_ones(self.in_channels).diag() if self.shrink is None else self.shrink.weight
        return weight + F.pad(residual[:, :, None, None], (0, 0, own, k - 1 - own, 0, 0, 0, 2 * out - len(residual)))


def _autocast(*tensors: Any) -> tuple[Tensor, ...]:
    """In the precision that autocast asks for; our own backward passes want everything in one."""
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


def _first_order_only() -> None:
    if torch.is_grad_enabled():  # in a backward pass: with create_graph=True alone
        raise NotImplementedError(
            "TemporalConv: expected first derivatives, found create_graph=True; none of second order"
        )


class _ConvInTime(torch.autograd.Function):
    """``Y[b, t, n] = Σ_k X[b, t + k, n] W_k + bias``, :func:`torch.nn.functional.conv2d` with a kernel (k, 1).

    As (B, C, T, N) the memory of (B, T, N, C) is in channels-last order: nothing is copied. With many nodes the
    library's gradient of the weights collapses; there it is a matrix product for each tap,
    ``dW_k = Σ_b dY[b]ᵀ X[b, k : k + T']``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        _first_order_only()
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        by_taps = x.shape[2] >= MANY_NODES and x.shape[3] >= 16 and x.dtype != torch.bfloat16
        dx, dw, db = torch.ops.aten.convolution_backward(
            *(grad.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), weight, weight.shape[:1]),
            *((1, 1), (0, 0), (1, 1), False, (0, 0), 1),  # stride, padding, dilation, transposed, ..., groups
            (ctx.needs_input_grad[0], not by_taps, not by_taps),
        )
        if by_taps:
            flat = grad.flatten(1, 2).mT  # (B, C', T' x N)
            taps = (x[:, tap : tap + grad.shape[1]].flatten(1, 2) for tap in range(weight.shape[2]))
            dw, db = torch.stack([(flat @ tap).sum(0) for tap in taps], dim=-1).unsqueeze(-1), grad.sum((0, 1, 2))
        return None if dx is None else dx.permute(0, 2, 3, 1), dw, db


class _GatedUnit(torch.autograd.Function):
    """``P, Q -> P ⊙ sigmoid(Q)`` of (..., 2 C'), as :func:`torch.nn.functional.glu`, which is its tested reference.

    With G the gate, Y the output and dY its gradient, ``dP = dY ⊙ G`` and ``dQ = Y ⊙ (dY - dP)``: both come from Y and
    G, so P and Q need not be kept.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        out = F.glu(y, dim=-1)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(out, torch.sigmoid(y[..., out.shape[-1] :]))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        _first_order_only()
        out, gate = ctx.saved_tensors
        both = grad.new_empty((*grad.shape[:-1], 2 * grad.shape[-1]))
        p, q = both.chunk(2, dim=-1)
        torch.mul(grad, gate, out=p)
        torch.sub(grad, p, out=q)
        q *= out
        return both


# ---------------------------------------------------------------------------- space and time


SPATIAL = ("gcn", "cheb", "directional", "none")


class STConvBlock(nn.Module):
    """Temporal, spatial, temporal: the sandwich that STGCN stacks.

    ``X -> gated temporal convolution -> squeeze -> relu(graph convolution + residual) -> gated temporal
    convolution -> layer norm -> dropout``. The squeeze, a linear map to fewer channels, keeps the graph product
    cheap. The norm runs over the channels of each station and time step, so that the block is tied to no graph
    and to no length.

    Args:
        in_channels: C.
        channels: widths after the first temporal, the spatial and the second temporal convolution.
        kernel_size: k of both temporal convolutions.
        spatial: ``"gcn"``, ``"cheb"``, ``"directional"``, or ``"none"`` for the ablation without a graph,
            a linear map at each station.
        order: polynomial terms for ``"cheb"`` (3 if not given), sectors for ``"directional"`` (4 if not given).
        dropout: share of values dropped in training.
        norm: use the layer norm. It steadies deep stacks, but takes away how large an anomaly is.

    Shapes:
        x (B, T, N, C), operator as the spatial layer takes it -> (B, T - 2 (k - 1), N, channels[2]).

    Raises:
        ValueError: for unknown ``spatial``, shapes that do not fit, or too few time steps.

    Source: Yu et al. (2018), equation 8; the norm per channel replaces their norm per node and channel.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (64, 16, 64),
        kernel_size: int = 3,
        spatial: str = "gcn",
        order: int | None = None,
        dropout: float = 0.0,
        norm: bool = True,
    ) -> None:
        super().__init__()
        wide, narrow, out = _three_widths(channels)
        self.before = TemporalConv(in_channels, wide, kernel_size, pad=False)
        self.squeeze = nn.Linear(wide, narrow)
        self.space = _spatial_layer(spatial, narrow, order)
        self.after = TemporalConv(narrow, out, kernel_size, pad=False)
        self.norm = nn.LayerNorm(out) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, operator: Operators | None = None) -> Tensor:
        x = self.squeeze(self.before(x))  # (B, T - (k - 1), N, narrow)
        z = self.space(x) if isinstance(self.space, nn.Linear) else self.space(x, operator)
        x = self.after(F.relu(z + x))  # (B, T - 2 (k - 1), N, out)
        return self.dropout(self.norm(x))


def _three_widths(channels: Sequence[int]) -> tuple[int, int, int]:
    if not isinstance(channels, (tuple, list)) or len(channels) != 3:
        raise ValueError(f"channels: expected three widths (temporal, spatial, temporal), found {channels!r}")
    wide, narrow, out = (whole_number(width, "channels") for width in channels)
    return wide, narrow, out


def _spatial_layer(spatial: str, channels: int, order: int | None) -> nn.Module:
    if order is not None:
        whole_number(order, "order")
    if spatial == "gcn":
        return GraphConv(channels, channels)
    if spatial == "cheb":
        return ChebConv(channels, channels, 3 if order is None else order)
    if spatial == "directional":
        return DirectionalGraphConv(channels, channels, 4 if order is None else order)
    if spatial == "none":
        return nn.Linear(channels, channels)
    raise ValueError(f"spatial: expected one of {', '.join(SPATIAL)}, found {spatial!r}")
