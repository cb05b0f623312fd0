"""One spatio-temporal block in three libraries: this package's plain PyTorch, PyTorch Geometric and DGL.

    make frameworks          (in an environment with DGL: python benchmarks/frameworks.py [--tiny])

Writes frameworks.json beside this file: the versions, how far the three are apart with the same weights, what common
mistakes do, and what a training step costs. All differences are the largest ones, as a share of the largest number.
Times are the processor's on one thread: medians over rounds in which the forms take turns, after two calls that do
not count. Without DGL it says so and exits with status 75; --tiny is for trying it out and writes nothing.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, MessagePassing
from torch_geometric.utils import spmm

from stgcn_lab import graphs
from stgcn_lab.layers import GraphConv, STConvBlock, TemporalConv

RESULTS = Path(__file__).with_suffix(".json")
SHAPE: dict[str, Any] = {"in_channels": 2, "channels": (16, 16, 16), "kernel_size": 3}
BATCH, TIMES, NEIGHBOURS, SIZES = 8, 9, 8, (12, 100, 1000, 3000)
MISSING = 75  # the status of a benchmark that lacks what it needs

# ---------------------------------------------------------------------------- the block, three times
# Plain PyTorch is stgcn_lab.layers.STConvBlock. Neither library has a layer for time in its core: the convolutions in
# time, the squeeze and the norm are PyTorch in all three.


class PyGBlock(nn.Module):
    """The block with PyTorch Geometric: a list of edges, and a layer that normalises."""

    def __init__(self, in_channels, channels, kernel_size, **settings):
        super().__init__()
        wide, narrow, out = channels
        self.before = TemporalConv(in_channels, wide, kernel_size, pad=False)
        self.squeeze = nn.Linear(wide, narrow)
        self.space = GCNConv(narrow, narrow, **settings)
        self.after = TemporalConv(narrow, out, kernel_size, pad=False)
        self.norm = nn.LayerNorm(out)

    def forward(self, x, edge_index, edge_weight=None):
        x = self.squeeze(self.before(x))  # (batch, time, node, feature)
        z = self.space(x, edge_index, edge_weight)  # nodes: the axis before the last
        return self.norm(self.after(F.relu(z + x)))


class DGLBlock(nn.Module):
    """The block with DGL: a graph object, nodes first, weights normalised beforehand."""

    def __init__(self, in_channels, channels, kernel_size):
        from dgl.nn import GraphConv

        super().__init__()
        wide, narrow, out = channels
        self.before = TemporalConv(in_channels, wide, kernel_size, pad=False)
        self.squeeze = nn.Linear(wide, narrow)
        self.space = GraphConv(narrow, narrow, norm="none")
        self.after = TemporalConv(narrow, out, kernel_size, pad=False)
        self.norm = nn.LayerNorm(out)

    def forward(self, x, graph, edge_weight):
        x = self.squeeze(self.before(x))  # (batch, time, node, feature)
        nodes_first = x.movedim(2, 0)  # (node, batch, time, feature)
        z = self.space(graph, nodes_first, edge_weight=edge_weight)
        return self.norm(self.after(F.relu(z.movedim(0, 2) + x)))


def operator(graph: Data, dtype: torch.dtype = torch.float32) -> Tensor:
    """The dense operator of :func:`stgcn_lab.graphs.gcn_operator`, in any precision."""
    a = graphs.adjacency(graph).toarray() + np.eye(graph.num_nodes)
    root = a.sum(axis=1) ** -0.5
    return torch.from_numpy(root[:, None] * a * root).to(dtype)


def for_pyg(graph: Data, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """What PyTorch Geometric takes: the edges as they are."""
    return graph.edge_index, graph.edge_weight.to(dtype)


def for_dgl(graph: Data, dtype: torch.dtype = torch.float32) -> tuple[Any, Tensor]:
    """What DGL takes: a graph with self-loops, and each edge's number in the operator."""
    import dgl

    matrix = operator(graph, dtype)
    target, source = matrix.nonzero().T  # row i listens, column j speaks
    return dgl.graph((source, target), num_nodes=graph.num_nodes), matrix[target, source]


# ---------------------------------------------------------------------------- messages by hand


class PyGMessages(MessagePassing):
    """Send along each edge its weight times the source, and add up at the target, with PyTorch Geometric."""

    def __init__(self):
        super().__init__(aggr="add")

    def forward(self, x, edge_index, edge_weight):
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)

    def message(self, x_j, edge_weight):
        return edge_weight.view(-1, 1) * x_j


def dgl_messages(x, graph, edge_weight):
    """The same with DGL: nodes come first."""
    import dgl.function as fn

    with graph.local_scope():  # forget what is stored on nodes and edges below
        graph.ndata["x"] = x
        graph.edata["w"] = edge_weight
        graph.update_all(fn.u_mul_e("x", "w", "m"), fn.sum("m", "h"))
        return graph.ndata["h"]


# ---------------------------------------------------------------------------- the same numbers?


def weights_for_pyg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's weights under PyTorch Geometric's name, (C', C) in place of (C, C'). DGL's are named as ours."""
    state = dict(state)
    return {"space.lin.weight": state.pop("space.weight").T} | state


def blocks(graph: Data, libraries: list[str], dtype: torch.dtype = torch.float32) -> dict[str, tuple[nn.Module, tuple]]:
    """For each library the block and its graph, all with the weights of the first, the package's own."""
    torch.manual_seed(0)
    plain = STConvBlock(**SHAPE).to(dtype)
    nn.init.normal_(plain.space.bias)  # zero at the start: it would hide a bias in the wrong place
    made: dict[str, tuple[nn.Module, tuple]] = {"plain": (plain, (operator(graph, dtype),))}
    if "PyG" in libraries:
        made["PyG"] = PyGBlock(**SHAPE).to(dtype), for_pyg(graph, dtype)
        made["PyG"][0].load_state_dict(weights_for_pyg(plain.state_dict()))
    if "DGL" in libraries:
        made["DGL"] = DGLBlock(**SHAPE).to(dtype), for_dgl(graph, dtype)
        made["DGL"][0].load_state_dict(plain.state_dict())
    return made


def answers(block: nn.Module, graph: tuple, x: Tensor, weigh: Tensor) -> dict[str, Tensor]:
    """The output, and the gradient of its weighted sum by the input and by every weight."""
    x = x.clone().requires_grad_()
    y = block(x, *graph)
    block.zero_grad()
    (y * weigh).sum().backward()
    found = {"output": y.detach(), "x": x.grad}
    for name, weight in block.named_parameters():
        assert weight.grad is not None, name
        ours = name == "space.lin.weight"
        found["space.weight" if ours else name] = weight.grad.T if ours else weight.grad
    return found


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest number of the second."""
    return float(((one - other).abs().max() / other.abs().max()).detach())


def differences(graph: Data, libraries: list[str], dtype: torch.dtype) -> dict[str, dict[str, float]]:
    """How far the output and the gradients of each library are from those of the package."""
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, TIMES, graph.num_nodes, SHAPE["in_channels"])
    x = torch.randn(shape, generator=generator, dtype=dtype)
    weigh = torch.randn((BATCH, TIMES - 4, graph.num_nodes, 16), generator=generator, dtype=dtype)
    found = {name: answers(*block, x, weigh) for name, block in blocks(graph, libraries, dtype).items()}
    plain = found.pop("plain")
    return {
        name: {
            "output": apart(theirs["output"], plain["output"]),
            "gradient": max(apart(theirs[part], plain[part]) for part in plain if part != "output"),
        }
        for name, theirs in found.items()
    }


def region(nodes: int, symmetric: bool = True, k: int = 3) -> Data:
    """Stations thrown at random, each linked to its nearest ones."""
    rng = np.random.default_rng(nodes)
    return graphs.knn_graph(rng.uniform(40, 60, nodes), rng.uniform(-10, 30, nodes), k=k, symmetric=symmetric)


def cases() -> dict[str, Data]:
    """Three graphs that tell mistakes apart: with symmetric weights, with directed edges, with a lonely station."""
    lonely = region(24)
    lonely.num_nodes += 1
    return {"undirected": region(24), "directed": region(24, symmetric=False), "lonely station": lonely}


# ---------------------------------------------------------------------------- what goes wrong


def pitfalls() -> dict[str, float | str]:
    """What DGL's layer makes of common mistakes, beside the right answer; an error as the head of its message."""
    import dgl
    from dgl.nn import EdgeWeightNorm
    from dgl.nn import GraphConv as DGLConv

    def layer(norm: str) -> nn.Module:
        torch.manual_seed(0)  # the same weights in every layer
        return DGLConv(4, 4, norm=norm)

    def error_of(attempt: Callable[[], Tensor]) -> str:
        try:
            attempt()
        except dgl.DGLError as error:
            return f"{type(error).__name__}: {str(error).partition('.')[0]}"
        return "no error"

    def by_its_own_norm(graph: Data) -> float:
        looped = dgl.add_self_loop(dgl.graph(tuple(graph.edge_index), num_nodes=N))
        weight = EdgeWeightNorm("both")(looped, torch.cat([graph.edge_weight, torch.ones(N)]))
        right, weights = for_dgl(graph)
        return apart(layer("none")(looped, x, edge_weight=weight), layer("none")(right, x, edge_weight=weights))

    directed, N = cases()["directed"], 24
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(N, 5, 4, generator=generator)  # (node, time, feature)
    square = torch.randn(N, N, 4, generator=generator)  # as many steps as nodes
    graph, weight = for_dgl(directed)
    bare = dgl.graph(tuple(directed.edge_index), num_nodes=N)
    looped, raw = dgl.add_self_loop(bare), torch.cat([directed.edge_weight, torch.ones(N)])
    back, stored = dgl.graph(graph.edges()[::-1], num_nodes=N), dgl.graph(graph.edges(), num_nodes=N)
    stored.edata["weight"] = weight
    lonely, looped_once = dgl.graph(([0, 1], [1, 0]), num_nodes=3), dgl.graph(([0, 0], [0, 1]))
    with torch.no_grad():
        right = layer("none")(graph, x, edge_weight=weight)
        right_square = layer("none")(graph, square, edge_weight=weight)
        swapped = layer("none")(graph, square.movedim(1, 0), edge_weight=weight).movedim(0, 1)
        return {
            "EdgeWeightNorm, undirected": by_its_own_norm(cases()["undirected"]),
            "EdgeWeightNorm, directed": by_its_own_norm(directed),
            "edges reversed": apart(layer("none")(back, x, edge_weight=weight), right),
            "normalised twice": apart(layer("both")(graph, x, edge_weight=weight), right),
            "raw weights": apart(layer("both")(looped, x, edge_weight=raw), right),
            "weights only stored": apart(layer("none")(stored, x), right),
            "no self-loops": apart(layer("both")(bare, x, edge_weight=directed.edge_weight), right),
            "other axis, 24 steps": apart(swapped, right_square),
            "other axis, 5 steps": error_of(lambda: layer("none")(graph, x.movedim(1, 0), edge_weight=weight)),
            "lonely station": error_of(lambda: layer("both")(lonely, x[:3])),
            "self-loops after adding one to one": str(dgl.add_self_loop(looped_once).in_degrees(0)),
        }


# ---------------------------------------------------------------------------- what it costs


def training_step(module: nn.Module, *inputs: Any) -> Callable[[], None]:
    """Forward and backward: what is repeated in training."""

    def step() -> None:
        module.zero_grad(set_to_none=True)
        module(*inputs).square().mean().backward()

    return step


class SparseGCN(nn.Module):
    """GCNConv by PyTorch Geometric's sparse product, which takes a matrix: batch and time become columns."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv = GCNConv(features, features, normalize=False)

    def forward(self, x: Tensor, matrix: Tensor, _: None = None) -> Tensor:
        columns = self.conv.lin(x).movedim(-2, 0)
        heard = spmm(matrix, columns.flatten(1)).view(columns.shape)
        return heard.movedim(0, -2) + self.conv.bias


class NodesFirst(nn.Module):
    """DGL's layer for fields with the nodes on the axis before the last."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, graph: Any, edge_weight: Tensor) -> Tensor:
        return self.layer(graph, x.movedim(2, 0), edge_weight=edge_weight).movedim(0, 2)


def forms(nodes: int, part: str) -> dict[str, Callable[[], None]]:
    """The ways to compute one training step of the block, or of its graph convolution alone."""
    from dgl.nn import GraphConv as DGLConv

    graph = region(nodes, k=min(NEIGHBOURS, nodes - 1))
    dense, csr = (graphs.gcn_operator(graph, sparse=sparse) for sparse in (False, True))
    torch.manual_seed(0)
    narrow = SHAPE["channels"][1]
    if part == "block":
        x = torch.randn(BATCH, TIMES, nodes, SHAPE["in_channels"])
        plain, dgls = STConvBlock(**SHAPE), DGLBlock(**SHAPE)
        pyg, cached, product = PyGBlock(**SHAPE), PyGBlock(**SHAPE, cached=True), PyGBlock(**SHAPE)
        product.space = SparseGCN(narrow)
    else:
        x = torch.randn(BATCH, TIMES - 2, nodes, narrow)
        plain, dgls = GraphConv(narrow, narrow), NodesFirst(DGLConv(narrow, narrow, norm="none"))
        pyg, cached, product = GCNConv(narrow, narrow), GCNConv(narrow, narrow, cached=True), SparseGCN(narrow)
    x.requires_grad_()
    return {
        "plain, dense": training_step(plain, x, dense),
        "plain, CSR": training_step(plain, x, csr),
        "PyG": training_step(pyg, x, *for_pyg(graph)),
        "PyG, cached": training_step(cached, x, *for_pyg(graph)),
        "PyG, CSR": training_step(product, x, csr),
        "DGL": training_step(dgls, x, *for_dgl(graph)),
    }


def race(steps: dict[str, Callable[[], None]], seconds: float, least: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each step: median and quartiles over rounds in which every one has its turn."""
    calls = {}
    for name, step in steps.items():
        step()
        step()
        began = time.perf_counter()
        step()
        calls[name] = max(1, round(2e-3 / (time.perf_counter() - began)))  # the clock is too coarse for one quick call
    taken: dict[str, list[float]] = {name: [] for name in steps}
    began = time.perf_counter()
    while len(taken[name]) < least or time.perf_counter() - began < seconds:
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(calls[name]):
                step()
            taken[name].append((time.process_time() - start) / calls[name] * 1e3)
    return {name: summary(times) for name, times in taken.items()}


def summary(times: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(times, n=4)
    return {"ms": digits(middle), "low": digits(low), "high": digits(high), "rounds": len(times)}


def digits(value: float, count: int = 3) -> float:
    return float(f"{value:.{count}g}")


# ---------------------------------------------------------------------------- the whole


def code_hash() -> str:
    """SHA-256 of what is compared here: the results belong to this code."""
    compared = {"PyGBlock", "DGLBlock", "operator", "for_pyg", "for_dgl", "PyGMessages", "dgl_messages", "pitfalls"}
    source = Path(__file__).read_text(encoding="utf-8")
    parts = [node for node in ast.parse(source).body if getattr(node, "name", "") in compared]
    assert len(parts) == len(compared)
    return hashlib.sha256("\n".join(ast.get_source_segment(source, part) or "" for part in parts).encode()).hexdigest()


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return digits(value, 2) if isinstance(value, float) else value


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="few stations and rounds, to try it out; writes nothing")
    tiny = parser.parse_args().tiny
    try:
        dgl = importlib.import_module("dgl")
    except (ImportError, OSError) as error:  # OSError: a build for another PyTorch lacks its compiled parts
        print(f"skipped, DGL cannot be imported here ({error}). `make frameworks` sets up an environment with it.")
        return MISSING
    torch.set_num_threads(1)
    libraries = ["PyG", "DGL"]
    precisions = {"float32": torch.float32, "float64": torch.float64}
    settings = {"batch": BATCH, "times": TIMES, "neighbours": NEIGHBOURS, "seconds": 0.2 if tiny else 2, **SHAPE}
    results = {
        "code": code_hash(),
        "versions": {name: version(name).partition("+")[0] for name in ("torch", "torch_geometric", "numpy")}
        | {"dgl": dgl.__version__, "python": platform.python_version()},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "threads": 1,
            "MALLOC_MMAP_MAX_": os.environ.get("MALLOC_MMAP_MAX_", "unset"),
        },
        "differences": {
            kind: {name: rounded(differences(graph, libraries, dtype)) for name, dtype in precisions.items()}
            for kind, graph in cases().items()
        },
        "pitfalls": rounded(pitfalls()),
        "settings": settings,
    }
    for part in ("layer", "block"):
        results[part] = {}
        for nodes in SIZES[:2] if tiny else SIZES:
            results[part][str(nodes)] = race(forms(nodes, part), settings["seconds"], 3 if tiny else 7)
            print(part, nodes, {name: row["ms"] for name, row in results[part][str(nodes)].items()}, flush=True)
    if tiny:
        print(json.dumps({name: results[name] for name in ("versions", "differences", "pitfalls")}, indent=1))
        return 0
    unfinished = RESULTS.with_suffix(".part")
    unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
