"""Regions in space: stations that vary together, or that share the way the weather moves past them.

A graph autoencoder turns each station's series into an embedding z of a few numbers, and a linear decoder turns z
into the coefficients b from which the series is reconstructed; deep embedded clustering then draws the regions in the
space of b, where distances are differences between the series.

The reconstruction is linear in what the decoder says, ``x̂_i(t) = b_i · f_i(t)``, with regressors f that are either
a few signals of the whole field or the past around the station. Its squared error over a block of time is then
a quadratic form in b, of two moments that are computed once: a step of the training costs the same for a hundred
time steps and for a hundred thousand.
"""

import heapq
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering, ward_tree
from torch import Tensor, nn
from torch_geometric.data import Data

from . import graphs, layers
from ._checks import whole_number
from .baselines import _check_series, _station_coords
from .layers import propagate

Array = NDArray[np.float64]
VIEWS = ("signals", "motion")
BLOCKS = 8  # pieces of the record; half of them are encoded, the other half reconstructed
SPLITS = 20  # ways to halve them
RIDGE = 1e-2  # of a regressor's variance
LEARNING_RATE = 1e-3
NEIGHBOURS = 4.0  # β, how loud the neighbours are in the target
DEC_WEIGHT = 0.1  # of the clustering in the joint loss
REFRESH = 10  # steps between two targets


# ---------------------------------------------------------------------------- deep embedded clustering


def soft_assignment(z: Tensor, centres: Tensor) -> Tensor:
    """How much each point belongs to each cluster, by a Student t kernel with one degree of freedom.

    ``q_ik = (1 + |z_i - μ_k|²)^-1 / Σ_l (1 + |z_i - μ_l|²)^-1``

    Args:
        z: (N, d) points.
        centres: (K, d).

    Returns:
        (N, K), each row sums to 1.

    Raises:
        ValueError: for points and centres of different dimensions.

    Source: Xie, Girshick & Farhadi (2016), equation 1.
    """
    if z.ndim != 2 or centres.ndim != 2 or z.shape[1] != centres.shape[1]:
        raise ValueError(
            f"z, centres: expected (points, d) and (clusters, d), found {tuple(z.shape)} and {tuple(centres.shape)}"
        )
    kernel = 1 / (1 + ((z[:, None] - centres) ** 2).sum(-1))
    return kernel / kernel.sum(1, keepdim=True)


def target_distribution(q: Tensor, heard: Tensor | None = None, neighbours: float = NEIGHBOURS) -> Tensor:
    """The sharpened assignment that deep embedded clustering pulls towards.

    ``p_ik = (q_ik² / f_k) / Σ_l (q_il² / f_l)`` with ``f_k = Σ_i q_ik``, so that large clusters do not take over.
    With ``heard`` h each numerator is multiplied by ``exp(β h_ik)``: a station leans towards the region of
    its neighbours (the mean-field form of a Potts model).

    Args:
        q: (N, K) soft assignment.
        heard: (N, K) mean assignment of each station's neighbours.
        neighbours: β, how loud they are.

    Returns:
        (N, K), each row sums to 1.

    Source: Xie, Girshick & Farhadi (2016), equation 3.
    """
    weight = q**2 / q.sum(0)
    if heard is not None:
        weight = weight * torch.exp(neighbours * heard)
    return weight / weight.sum(1, keepdim=True)


# ---------------------------------------------------------------------------- the autoencoder


class RegionAutoencoder(nn.Module):
    """Encoder over the graph, decoder for each station; it starts as the identity.

    ``z = Σ_k T_k(L̃) c W_k + GraphConv(tanh(GraphConv(c)))`` and ``b = z V``. c are the coefficients of a station
    as estimated from some blocks of the record, b what the graph makes of them, to be used in the other blocks.

    Args:
        features: D, number of regressors, and length of z and of b.
        hidden: width of the nonlinear branch.
        hops: how far along the edges the linear branch reaches.

    Shapes:
        c (..., N, D), laplacian and operator (N, N) -> z (..., N, D), b (..., N, D).
    """

    def __init__(self, features: int, hidden: int = 16, hops: int = 2) -> None:
        super().__init__()
        self.linear = layers.ChebConv(features, features, hops + 1)
        self.inner = layers.GraphConv(features, hidden)
        self.outer = layers.GraphConv(hidden, features)
        self.decoder = nn.Linear(features, features)
        with torch.no_grad():
            for weight in (self.linear.weight, self.outer.weight, self.decoder.bias):
                weight.zero_()
            self.linear.weight[0] = torch.eye(features)
            self.decoder.weight.copy_(torch.eye(features))

    def forward(self, c: Tensor, laplacian: Tensor, operator: Tensor) -> tuple[Tensor, Tensor]:
        z = self.linear(c, laplacian) + self.outer(torch.tanh(self.inner(c, operator)), operator)
        return z, self.decoder(z)


class _Halves:
    """Moments of the record, to be encoded from one half of its blocks and reconstructed in the other half.

    The units (whitening, centre and spread) are those of the whole record.
    """

    def __init__(self, gram: Array, cross: Array, graph: Data, seed: int, spatial: bool) -> None:
        value, vector = np.linalg.eigh(gram.sum(0).mean(0))
        white = (vector / np.sqrt(np.maximum(value, 1e-9))) @ vector.T  # regressors of unit variance, uncorrelated
        gram, cross = white.T @ gram @ white, cross @ white
        if spatial:
            self.laplacian, self.operator = graphs.scaled_laplacian(graph), graphs.gcn_operator(graph)
        else:
            nodes = sp.identity(cross.shape[1], format="csr")
            self.laplacian, self.operator = graphs.to_operator(0 * nodes), graphs.to_operator(nodes)
        whole = self._coefficients(gram, cross)
        self.centre, self.spread = whole.mean(0), max(float(whole.std()), 1e-9)
        self.whole = self._tensor((whole - self.centre) / self.spread)
        rng = np.random.default_rng(seed)
        self.splits = []
        for _ in range(SPLITS):
            order = rng.permutation(BLOCKS)
            seen, hidden = order[: BLOCKS // 2], order[BLOCKS // 2 :]
            c = (self._coefficients(gram[seen], cross[seen]) - self.centre) / self.spread
            g, p = gram[hidden].sum(0), cross[hidden].sum(0)
            # The error in units of the spread, around the mean coefficients.
            p = (p - (g @ self.centre)) / self.spread
            self.splits.append((self._tensor(c), 2 * self._tensor(g), 2 * self._tensor(p)))

    @staticmethod
    def _coefficients(gram: Array, cross: Array) -> Array:
        """(N, D) least squares over the blocks."""
        share = BLOCKS / len(gram)
        ridge = RIDGE * np.eye(gram.shape[-1])
        return np.linalg.solve(share * gram.sum(0) + ridge, share * cross.sum(0)[..., None])[..., 0]

    @staticmethod
    def _tensor(values: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    def loss(self, net: RegionAutoencoder, step: int) -> Tensor:
        """Mean over the stations of bᵀ G b - 2 b · p: the squared error but for what no b can change."""
        c, gram, cross = self.splits[step % len(self.splits)]
        b = net(c, self.laplacian, self.operator)[1]
        return (torch.einsum("nd,nde,ne->n", b, gram, b) - 2 * (b * cross).sum(-1)).mean()

    def embed(self, net: RegionAutoencoder) -> Tensor:
        """(N, D) from the whole record: what the decoder says, so that distances are differences in the series."""
        return net(self.whole, self.laplacian, self.operator)[1]


# ---------------------------------------------------------------------------- what is encoded


def excess_correlation(series: xr.DataArray, graph: Data) -> Array:
    """How much more two stations vary together than stations so far apart usually do.

    ``E_ij = r_ij - ρ(d_ij)``, with r the correlation, ρ its mean over all pairs at about the distance d. Near
    stations are alike everywhere; a region shows where they are more alike than their distance explains.

    Args:
        series: (time, station) without missing values, no station constant.
        graph: with ``pos`` = (lon, lat) of the same stations.

    Returns:
        (N, N), symmetric, zero on the diagonal.

    Raises:
        TypeError, ValueError: as in :func:`discover_regions`.
    """
    z = _standardised(series, graph)
    return _excess(z, _distances(graph))


def _excess(z: Array, distance: Array) -> Array:
    r = z.T @ z / len(z)
    i, j = np.triu_indices(len(r), 1)
    order = np.argsort(distance[i, j], kind="stable")
    d, pairs = distance[i, j][order], r[i, j][order]
    bins = np.array_split(np.arange(len(pairs)), int(np.clip(len(pairs) // 30, 1, 30)))  # as many pairs in each
    usual = np.interp(distance, [d[b].mean() for b in bins], [pairs[b].mean() for b in bins])
    excess = r - usual
    np.fill_diagonal(excess, 0)
    return excess


def drift(series: xr.DataArray, graph: Data, lags: int = 1) -> xr.DataArray:
    """Which way, and how much, the field is carried past each station.

    Least squares at each station on the past of itself, of its neighbours' mean and of the local gradient,
    ``x_i(t) = Σ_τ a_τ x_i(t - τ) + m_τ x̄_i(t - τ) - u_τ · ∇x_i(t - τ) + e``. Where patterns come from the west,
    the value to come is the one in the west: u points east.

    Args:
        series: (time, station) without missing values, no station constant; standardised inside.
        graph: with ``pos`` = (lon, lat) of the same stations.
        lags: number of past steps.

    Returns:
        (station, lag, direction) u in km, to the east and to the north, for values in standard deviations: the
        displacement in a step where a pattern only moves, less where it also fades or is covered by noise.

    Raises:
        TypeError, ValueError: as in :func:`discover_regions`, or lags below 1.
    """
    z = _standardised(series, graph)
    lags = whole_number(lags, "lags")
    gram, cross, scale = _motion_moments(z, graph, lags)
    u = -np.linalg.solve(gram.sum(0) + RIDGE * np.eye(2 * lags), cross.sum(0)[..., None])[..., 0] / scale
    coords = _station_coords(series)
    return xr.DataArray(
        u.reshape(len(u), 2, lags).transpose(0, 2, 1),
        dims=("station", "lag", "direction"),
        coords={**coords, "lag": np.arange(1, lags + 1), "direction": ["east", "north"]},
        attrs={"units": "km", "long_name": "drift in a time step"},
        name="drift",
    )


def _signal_moments(z: Array, graph: Data, num_features: int) -> tuple[Array, Array]:
    """Regressors: the leading patterns of the excess correlation; moments (block, N, D, D) and (block, N, D).

    The patterns are those of the whole record: the half to be reconstructed has a say in what is encoded, and as the
    excess of the whole is about the mean of those of its halves, what one half has above it the other has below. The
    halves are not wholly independent, and the error of the reconstruction is no measure of what was learned.
    """
    distance = _distances(graph)
    patterns = np.linalg.eigh(_excess(z, distance))[1][:, -num_features:]
    patterns *= np.sign(patterns.sum(0)) + (patterns.sum(0) == 0)  # the sign of an eigenvector is arbitrary
    cross = np.stack([_excess(block, distance) @ patterns for block in np.array_split(z, BLOCKS)]) / BLOCKS
    gram = np.broadcast_to(np.eye(num_features) / BLOCKS, (*cross.shape, num_features))
    return gram, cross


def _motion_moments(z: Array, graph: Data, lags: int) -> tuple[Array, Array, Array]:
    """Regressors: local gradients of the past, with the past itself and its local mean taken out of them."""
    east, north, mean = _local_operators(graph)
    sources = np.stack([z @ east.T, z @ north.T, z, z @ mean.T])  # (4, T, N)
    scale = np.maximum(sources.std(1).mean(1), 1e-9)
    sources /= scale[:, None, None]
    steps, cut = len(z) - lags, 2 * lags
    grams, crosses = [], []
    for block in np.array_split(np.arange(lags, len(z)), BLOCKS):
        f = np.stack([source[block - lag].T for source in sources for lag in range(1, lags + 1)], 1)  # (N, D, time)
        gram, cross = f @ f.transpose(0, 2, 1) / steps, (f @ z[block].T[..., None])[..., 0] / steps
        # Frisch, Waugh and Lovell: what is left of the gradients when the other regressors are accounted for.
        out = np.linalg.solve(gram[:, cut:, cut:] + 1e-3 / BLOCKS * np.eye(2 * lags), gram[:, cut:, :cut])
        grams.append(gram[:, :cut, :cut] - gram[:, :cut, cut:] @ out)
        crosses.append(cross[:, :cut] - (out.transpose(0, 2, 1) @ cross[:, cut:, None])[..., 0])
    return np.stack(grams), np.stack(crosses), np.repeat(scale[:2], lags)


def _local_operators(graph: Data) -> tuple[Array, Array, Array]:
    """Gradient to the east and to the north (per km, by a plane through the neighbours) and mean, each (N, N)."""
    a = graphs.adjacency(graph)
    lon, lat = graph.pos.numpy().astype(float).T
    n = len(lon)
    east, north = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        row = a[[i]]
        j = row.indices[row.indices != i]
        if not len(j):
            continue  # a lonely station has no gradient
        way = np.radians(graphs.bearing(lat[i], lon[i], lat[j], lon[j]))
        offset = graphs.great_circle_distance(lat[i], lon[i], lat[j], lon[j]) * np.stack([np.sin(way), np.cos(way)])
        weighted = offset * row.data[row.indices != i]
        normal = weighted @ offset.T
        normal += 0.05 * (np.trace(normal) + 1e-9) * np.eye(2)  # neighbours on one line see only one direction
        slope = np.linalg.solve(normal, weighted)
        for operator, values in ((east, slope[0]), (north, slope[1])):
            operator[i, j] = values
            operator[i, i] = -values.sum()
    mean = a.toarray() + np.eye(n)
    return east, north, mean / mean.sum(1, keepdims=True)


def _distances(graph: Data) -> Array:
    lon, lat = graph.pos.numpy().astype(float).T
    return graphs.great_circle_distance(lat[:, None], lon[:, None], lat, lon)


def _standardised(series: xr.DataArray, graph: Data) -> Array:
    """(T, N) standardised values, all arguments checked."""
    _check_series(series, "series")
    z = series.values.astype(np.float64)
    if not np.isfinite(z).all():
        station = series["station"].values[(~np.isfinite(z)).any(0).argmax()]
        raise ValueError(f"series: found missing values, first at station {station!r}; fill them or leave it out")
    std = z.std(0)
    constant = std <= 1e-9 * np.maximum(np.abs(z).max(0), 1e-300)
    if constant.any():
        raise ValueError(f"series: found station {series['station'].values[constant.argmax()]!r} constant in time")
    if len(z) < 8 * BLOCKS:
        raise ValueError(f"series: expected at least {8 * BLOCKS} time steps, found {len(z)}")
    graphs.adjacency(graph)  # its errors are clear
    if graph.num_nodes != z.shape[1]:
        raise ValueError(f"graph: expected {z.shape[1]} nodes, one for each station, found {graph.num_nodes}")
    if not torch.is_tensor(graph.get("pos")) or graph.pos.shape != (graph.num_nodes, 2):
        raise ValueError("graph: expected pos (node, 2) = (lon, lat), as the builders in graphs set it")
    return (z - z.mean(0)) / std


# ---------------------------------------------------------------------------- regions


def discover_regions(
    series: xr.DataArray,
    graph: Data,
    num_regions: int,
    seed: int = 0,
    *,
    contiguous: bool = False,
    view: str = "signals",
    lags: int = 2,
    epochs: int = 60,
    neighbours: float = NEIGHBOURS,
    spatial: bool = True,
    return_embedding: bool = False,
) -> Any:
    """Divide the stations into regions.

    1. Moments of the series: with ``view="signals"`` the excess correlation (:func:`excess_correlation`) in its
       2 K leading patterns, with ``view="motion"`` the local drift (:func:`drift`).
    2. A graph autoencoder is trained to reconstruct one half of the record from the other half.
    3. Ward's clustering along the edges of the graph draws first regions in the embedding.
    4. Deep embedded clustering moves embedding and centres so that the regions become clearer, the
       reconstruction still counting; its target listens to a station's neighbours.

    What is clustered, and returned as the embedding, is b, the embedding z after the linear decoder.

    With ``view="signals"`` the leading patterns come from the whole record, about whose excess its two halves lie with
    opposite signs: the halves of step 2 are not wholly independent. Judge the regions by something that was not used
    here (a planted truth, as the benchmark does, or other years), not by the loss.

    Args:
        series: (time, station), without season and trend, no missing value, no constant station.
        graph: of the same stations, with ``pos``.
        num_regions: K, 2 to N.
        seed: of weights and of the halves.
        contiguous: each region is one connected piece of the graph.
        view: ``"signals"``: stations that vary together; ``"motion"``: stations past which the weather moves the
            same way (rows are taken as steps of one length).
        lags: past steps that ``"motion"`` looks at.
        epochs: steps of the training before the clustering, and again during it; 0 leaves the moments as they
            are: no network.
        neighbours: β, how loud a station's neighbours are in the target; 0 does not listen to them.
        spatial: let the encoder mix stations along the graph; False is the ablation, each station by itself.
        return_embedding: return the embedding too.

    Returns:
        (station,) number of the region, counted from west to east; with ``return_embedding`` also (station,
        feature) embedding, as the decoder says it.

    Raises:
        TypeError, ValueError: for another kind of series, unsorted times, missing values, a constant station, a
            graph with another number of nodes or without ``pos``, num_regions below 2 or above N, an unknown
            view, or a graph of more separate pieces than num_regions with ``contiguous``.

    Source: Xie, Girshick & Farhadi (2016), doi:10.48550/arXiv.1511.06335, for the clustering.
    """
    z = _standardised(series, graph)
    num_regions = whole_number(num_regions, "num_regions", least=2)
    seed, epochs, lags = whole_number(seed, "seed", 0), whole_number(epochs, "epochs", 0), whole_number(lags, "lags")
    if not np.isfinite(neighbours) or neighbours < 0:
        raise ValueError(f"neighbours: expected a number of at least 0, found {neighbours!r}")
    if num_regions > z.shape[1]:
        raise ValueError(f"num_regions: expected at most {z.shape[1]}, the number of stations, found {num_regions}")
    if view not in VIEWS:
        raise ValueError(f"view: expected one of {', '.join(VIEWS)}, found {view!r}")
    pieces, _ = connected_components(_symmetric(graph), directed=False)
    if contiguous and pieces > num_regions:
        raise ValueError(
            f"num_regions: expected at least {pieces}, as the graph falls into {pieces} separate pieces and "
            f"contiguous regions cannot join them, found {num_regions}"
        )
    if view == "signals":
        gram, cross = _signal_moments(z, graph, min(2 * num_regions, z.shape[1]))
    else:
        gram, cross, _ = _motion_moments(z, graph, lags)
    labels, embedding = _embed_and_cluster(
        _Halves(gram, cross, graph, seed, spatial), graph, num_regions, seed, contiguous, epochs, float(neighbours)
    )
    lon = graph.pos[:, 0].numpy().astype(float)
    lon = (lon - lon[0] + 180) % 360  # no jump at the date line within a region of the Earth
    west_to_east = np.argsort([lon[labels == k].mean() if (labels == k).any() else np.inf for k in range(num_regions)])
    labels = np.argsort(west_to_east)[labels]
    coords = _station_coords(series)
    regions = xr.DataArray(labels, dims="station", coords=coords, name="region", attrs={"long_name": "region"})
    if not return_embedding:
        return regions
    return regions, xr.DataArray(embedding, dims=("station", "feature"), coords=coords, name="embedding")


def ward_regions(features: Array, graph: Data, num_regions: int) -> NDArray[np.int64]:
    """Ward's clustering along the edges of a graph: each region is one connected piece.

    Of all pairs of regions that share an edge, join the two whose union raises the sum of squared distances to
    the regions' means least; stop at K regions.

    Args:
        features: (N, D).
        graph: N nodes in at most num_regions separate pieces.
        num_regions: K.

    Returns:
        (N,) region of each node.

    Raises:
        ValueError: if the features are not (N, D), or the graph has more pieces than num_regions.

    Source: Ward (1963), doi:10.1080/01621459.1963.10500845, with the connectivity constraint of scikit-learn.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) != graph.num_nodes:
        raise ValueError(f"features: expected ({graph.num_nodes}, D), found shape {features.shape}")
    edges = _symmetric(graph)
    pieces, piece = connected_components(edges, directed=False)
    if not pieces <= num_regions <= len(features):
        raise ValueError(
            f"num_regions: expected {pieces} (pieces of the graph) to {len(features)}, found {num_regions}"
        )
    # One tree for each piece; then the regions that hold the dearest join are parted first.
    open_regions: list[tuple[float, int, int]] = []  # -cost of the last join, piece, node of its tree
    trees = {}
    for c in range(pieces):
        members = np.flatnonzero(piece == c)
        if len(members) == 1:
            trees[c] = (members, np.empty((0, 2), int), np.empty(0))
        else:
            joins, _, _, _, cost = ward_tree(
                features[members], connectivity=edges[members][:, members], return_distance=True
            )
            trees[c] = (members, joins, cost)
        heapq.heappush(open_regions, _open(trees[c], c, 2 * len(members) - 2))
    while len(open_regions) < num_regions:
        _, c, top = heapq.heappop(open_regions)
        for child in trees[c][1][top - len(trees[c][0])]:
            heapq.heappush(open_regions, _open(trees[c], c, int(child)))
    labels = np.empty(len(features), np.int64)
    for k, (_, c, top) in enumerate(sorted(open_regions, key=lambda region: region[1:])):
        members, joins, _ = trees[c]
        stack = [top]
        while stack:
            node = stack.pop()
            if node < len(members):
                labels[members[node]] = k
            else:
                stack.extend(joins[node - len(members)].tolist())
    return labels


def _open(tree: tuple[NDArray[np.int64], NDArray[np.int64], Array], piece: int, node: int) -> tuple[float, int, int]:
    members, _, cost = tree
    return (0.0 if node < len(members) else -float(cost[node - len(members)]), piece, node)


def _symmetric(graph: Data) -> sp.csr_matrix:
    a = graphs.adjacency(graph)
    a = sp.csr_matrix(a.maximum(a.T))
    a.setdiag(0)
    a.eliminate_zeros()
    return a


def _first_regions(features: Array, graph: Data, num_regions: int, pieces: int) -> NDArray[np.int64]:
    if pieces <= num_regions:
        return ward_regions(features, graph, num_regions)
    return AgglomerativeClustering(num_regions).fit_predict(features).astype(np.int64)  # the graph cannot help


def _embed_and_cluster(
    model: _Halves,
    graph: Data,
    num_regions: int,
    seed: int,
    contiguous: bool,
    epochs: int,
    neighbours: float,
) -> tuple[NDArray[np.int64], Array]:
    pieces = connected_components(_symmetric(graph), directed=False)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RegionAutoencoder(model.whole.shape[1])
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    for step in range(epochs):
        optimizer.zero_grad()
        model.loss(net, step).backward()
        optimizer.step()
    b = model.embed(net).detach()
    labels = _first_regions(b.numpy(), graph, num_regions, pieces)
    hard = torch.nn.functional.one_hot(torch.from_numpy(labels), num_regions).float()
    centres = nn.Parameter(hard.T @ b / hard.sum(0)[:, None])
    scale = float(((b - centres.detach()[labels]) ** 2).sum(1).mean().sqrt().clamp(min=1e-6))  # within a region
    mean = graphs.to_operator(_neighbour_mean(graph))
    q = soft_assignment(b / scale, centres.detach() / scale)
    target = target_distribution(q, propagate(mean, hard), neighbours)
    optimizer = torch.optim.Adam([*net.parameters(), centres], lr=LEARNING_RATE)
    for step in range(epochs):
        q = soft_assignment(model.embed(net) / scale, centres / scale)
        if step % REFRESH == 0:
            target = target_distribution(q.detach(), propagate(mean, target), neighbours)
        optimizer.zero_grad()
        divergence = (target * (target.clamp(min=1e-9) / q).log()).sum(1).mean()
        (model.loss(net, step) + DEC_WEIGHT * divergence).backward()
        optimizer.step()
    b = model.embed(net).detach()
    if contiguous:
        return ward_regions(b.numpy(), graph, num_regions), b.numpy()
    q = soft_assignment(b / scale, centres.detach() / scale)
    for _ in range(REFRESH):
        target = target_distribution(q, propagate(mean, target), neighbours)
    drawn = target.argmax(1).numpy()
    # The target can starve a region; then the first regions, all of which have stations, are the answer.
    return (drawn if len(np.unique(drawn)) == num_regions else labels), b.numpy()


def _neighbour_mean(graph: Data) -> sp.csr_matrix:
    links = (_symmetric(graph) > 0).astype(float)
    return sp.csr_matrix(sp.diags(1 / np.maximum(np.asarray(links.sum(1)).ravel(), 1)) @ links)
