"""How fast training is: beside a textbook version of the same network, beside the machine's limits, and as data grow.

    python benchmarks/speed.py [--only PART ...] [--tiny]

Writes speed.json beside this file after every part, so that single parts can be measured again. Times are medians of
rounds in which the forms to be compared take turns in one process, on two threads; let nothing else run meanwhile.
Every process keeps freed memory (`training.reuse_memory`) but the one that is there to show what it costs not to.
Other libraries are timed where they are installed, and a CUDA device where there is one; neither is needed. --tiny is
for trying the script out and writes elsewhere.

The textbook version is what the documentation of PyTorch and PyTorch Geometric leads to: `Conv2d` over (batch,
channel, node, time), `GCNConv` over the edges, one window after the other. It has the weights of the package's
network, and before anything is timed its outputs and gradients are compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import efficiency
import numpy as np
import pandas as pd
import torch
import xarray as xr
from efficiency import FIT, LARGE, YU, digits, irish_network, race, region, scattered, version_of, weather, yu_network
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GCNConv

from stgcn_lab import baselines, graphs, models, streaming, training, windows

RESULTS = Path(__file__).with_suffix(".json")
THREADS = 2
SIZES = ((228, 32, 7), (1325, 32, 5), (10242, 8, 3))  # nodes, windows in a batch, rounds at least
STRETCHES = (8, 32)
TINY = False

Graph = tuple[Tensor, Tensor]  # edge_index (2, edges), edge_weight (edges,)


# ---------------------------------------------------------------------------- the textbook version


class TextbookGate(nn.Module):
    """The gated convolution along time of Yu et al. (2018), with its residual; (B, C, N, T) as `Conv2d` wants it."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.more = out_channels - in_channels
        self.conv = nn.Conv2d(in_channels, 2 * out_channels, (1, kernel_size))
        self.shrink = nn.Conv2d(in_channels, out_channels, 1, bias=False) if self.more < 0 else None

    def forward(self, x: Tensor) -> Tensor:
        p, q = self.conv(x).chunk(2, dim=1)
        x = x[..., -p.shape[-1] :]
        same = F.pad(x, (0, 0, 0, 0, 0, self.more)) if self.shrink is None else self.shrink(x)
        return (p + same) * torch.sigmoid(q)


class TextbookBlock(nn.Module):
    def __init__(self, in_channels: int, channels: tuple[int, int, int], kernel_size: int) -> None:
        super().__init__()
        wide, narrow, out = channels
        self.before = TextbookGate(in_channels, wide, kernel_size)
        self.squeeze = nn.Linear(wide, narrow)
        self.space = GCNConv(narrow, narrow, normalize=False)  # the weights come normalised
        self.after = TextbookGate(narrow, out, kernel_size)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        x = self.squeeze(self.before(x).permute(0, 3, 2, 1))  # (B, T, N, narrow)
        x = F.relu(self.space(x, *graph) + x)
        x = self.after(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)
        return self.norm(x).permute(0, 3, 2, 1)


class Textbook(nn.Module):
    """The same function as a `models.STGCN` with the graph operator of GCN, from which it takes sizes and weights."""

    def __init__(self, network: models.STGCN) -> None:
        super().__init__()
        kernel, wide = network.blocks[0].before.kernel_size, network.collect.in_channels
        channels = (network.blocks[0].before.out_channels, network.blocks[0].squeeze.out_features, wide)
        widths = [network.in_features] + [wide] * (len(network.blocks) - 1)
        self.blocks = nn.ModuleList(TextbookBlock(width, channels, kernel) for width in widths)
        self.collect = TextbookGate(wide, wide, network.collect.kernel_size)
        self.out = nn.Linear(wide, network.horizon)
        self.to(network.out.weight.dtype)
        with torch.no_grad():
            for name, ours, theirs in self.same_weights(network):
                ours.copy_(as_in(name, ours, theirs))

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        x = x.permute(0, 3, 2, 1)  # (B, F, N, T)
        for block in self.blocks:
            x = block(x, graph)
        return self.out(self.collect(x)[..., 0].permute(0, 2, 1)).permute(0, 2, 1)[..., None]

    def same_weights(self, network: models.STGCN) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
        """Each weight and the one of the network that it stands for."""
        theirs = dict(network.named_parameters())
        for name, ours in self.named_parameters():
            yield name, ours, theirs[name.replace("lin.weight", "weight")]


def as_in(name: str, ours: Tensor, theirs: Tensor) -> Tensor:
    """A weight of the package, or its gradient, in the textbook's shape: (k, 1) is (1, k), and GCNConv's is turned."""
    return theirs.T if name.endswith("lin.weight") else theirs.reshape(ours.shape)


def as_edges(operator: Tensor) -> Graph:
    """An operator (N, N) as PyTorch Geometric takes it: an edge leads from the column to the row."""
    sparse = operator.to_sparse_coo().coalesce()
    return sparse.indices().flip(0), sparse.values()


def largest_differences(network: models.STGCN, textbook: Textbook, x: Tensor, operator: Tensor) -> dict[str, float]:
    """Outputs apart at most; gradients by the norm of the difference against their own; stretches against windows."""
    outputs = []
    for form, graph in ((network, operator), (textbook, as_edges(operator))):
        form.zero_grad()
        outputs.append(form(x, graph))
        outputs[-1].square().mean().backward()
    pairs = [(ours.grad, as_in(name, ours, theirs.grad)) for name, ours, theirs in textbook.same_weights(network)]
    off = torch.cat([(ours - theirs).flatten() for ours, theirs in pairs]).norm()
    whole = torch.cat([theirs.flatten() for _, theirs in pairs]).norm()
    with torch.no_grad():
        record = weather(1, x.shape[1] + 3, *x.shape[2:]).to(x)
        cut = record[0].unfold(0, x.shape[1], 1).movedim(-1, 1)
        apart = (network.forecast_series(record, operator)[0] - network(cut, operator)).abs().max()
    return {
        "output": digits(float((outputs[0] - outputs[1]).detach().abs().max()), 2),
        "gradient": digits(float(off / whole), 2),
        "stretch": digits(float(apart), 2),
    }


# ---------------------------------------------------------------------------- what a step must at least do


class Work(NamedTuple):
    """Of a layer: operations (an addition and a multiplication are two) and numbers that pass through memory."""

    flops: float
    backward_flops: float
    numbers: float
    backward_numbers: float


def work_of(network: models.STGCN, batch: int, steps: int, nodes: int, edges: int) -> dict[str, Work]:
    """The least work of each layer in a training step on x (batch, steps, nodes, F), for an operator of ``edges``
    numbers that are not zero.

    FLOPs are those of matrix products and convolutions: forward once, backward once for the gradient of the input
    (which the first layer need not have) and once for that of the weights. Memory: a layer reads its input and its
    weights and writes its output; backward it reads its input, its weights and the gradient of its output, and writes
    the gradients of its input and of its weights. Gate, residual, bias and relu are thought to happen on the way, and
    nothing to be kept between: no real layer does quite that, so the share of this limit that can be had is below 1.
    """
    found: dict[str, Work] = {}

    def layer(name: str, flops: float, inputs: float, weights: float, outputs: float, first: bool = False) -> None:
        back = inputs + 2 * weights + outputs + (0 if first else inputs)
        found[name] = Work(flops, flops if first else 2 * flops, inputs + weights + outputs, back)

    def in_time(name: str, conv: Any, steps: int, first: bool = False) -> int:
        left = steps - conv.kernel_size + 1
        weights = conv.kernel_size * conv.in_channels * 2 * conv.out_channels
        cells = batch * nodes
        inputs, outputs = cells * steps * conv.in_channels, cells * left * conv.out_channels
        layer(name, 2 * cells * left * weights, inputs, weights, outputs, first)
        return left

    for b, block in enumerate(network.blocks, start=1):
        steps = in_time(f"block {b}: time, first", block.before, steps, first=b == 1)
        cells, wide, narrow = batch * steps * nodes, block.squeeze.in_features, block.squeeze.out_features
        layer(f"block {b}: squeeze", 2 * cells * wide * narrow, cells * wide, wide * narrow, cells * narrow)
        mixing, product = 2 * cells * narrow**2, 2 * batch * steps * edges * narrow
        moved, graph = 2 * cells * narrow, narrow**2 + 2 * edges  # a number and its column for each edge
        found[f"block {b}: graph"] = Work(mixing + product, 2 * mixing + product, moved + graph, 1.5 * moved + graph)
        steps = in_time(f"block {b}: time, second", block.after, steps)
        if isinstance(block.norm, nn.LayerNorm):
            cells = batch * steps * nodes * block.after.out_channels
            found[f"block {b}: norm"] = Work(0, 0, 2 * cells, 3 * cells)
    steps = in_time("collect", network.collect, steps)
    cells, wide, out = batch * steps * nodes, network.out.in_features, network.out.out_features
    layer("out", 2 * cells * wide * out, cells * wide, wide * out, cells * out)
    return found


def limits(work: dict[str, Work], gflops: float, gbytes: float, size: int = 4) -> dict[str, float]:
    """Milliseconds that the work takes at least at a machine's peak (GFLOP/s) and bandwidth (GB/s), for numbers of so
    many bytes: each pass of each layer at the limit that binds it, and, more simply, all FLOPs or all bytes."""
    passes = [pair for w in work.values() for pair in ((w.flops, w.numbers), (w.backward_flops, w.backward_numbers))]
    times = [(flops / gflops / 1e6, size * numbers / gbytes / 1e6) for flops, numbers in passes]
    return {
        "GFLOP": sum(flops for flops, _ in passes) / 1e9,
        "GB": size * sum(numbers for _, numbers in passes) / 1e9,
        "roof ms": sum(max(pair) for pair in times),
        "simple roof ms": max(map(sum, zip(*times, strict=True))),
    }


def layers_of(work: dict[str, Work], gflops: float, gbytes: float) -> list[dict[str, Any]]:
    """The roof of each layer, and which of the two limits binds it for most of that time."""
    rows = []
    for name, w in work.items():
        found = limits({name: w}, gflops, gbytes)
        by_flops = found["GFLOP"] / gflops >= found["GB"] / gbytes
        numbers = {key: digits(found[key]) for key in ("GFLOP", "GB", "roof ms")}
        intensity = digits(found["GFLOP"] / found["GB"])
        rows.append({"layer": name, **numbers, "intensity": intensity, "bound": "FLOPs" if by_flops else "bandwidth"})
    return rows


# ---------------------------------------------------------------------------- steps of training


def training_step(
    forecast: Callable[..., Tensor], weights: Any, x: Tensor, graph: Any, half: bool = False
) -> Callable[[], Any]:
    """Forward, backward, Adam, on whatever device x is; over when the device is done."""
    device = x.device
    optimizer = torch.optim.AdamW(weights, capturable=device.type == "cuda")
    with torch.no_grad():
        y = torch.zeros_like(forecast(x, graph))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            said = forecast(x, graph)
        (said.float() - y).square().mean().backward()
        optimizer.step()

    return step


def stretched(batch: int, stretch: int) -> tuple[int, int]:
    """Stretches in a step, and windows in it: as `training.fit` counts them."""
    count = max(1, batch // stretch)
    return count, count * stretch


def forecast_of(network: models.STGCN, stretch: int) -> Callable[..., Tensor]:
    return network if stretch == 1 else network.forecast_series


def name_of(stretch: int) -> str:
    return "windows" if stretch == 1 else f"stretch of {stretch}"


def against_roof(row: dict[str, Any], work: dict[str, Work], gflops: float, gbytes: float, size: int) -> dict[str, Any]:
    found = limits(work, gflops, gbytes, size)
    shares = {"share": found["roof ms"] / row["ms"], "simple share": found["simple roof ms"] / row["ms"]}
    return row | {key: digits(value) for key, value in (found | shares).items()}


# ---------------------------------------------------------------------------- parts


def machine(_: dict[str, Any]) -> dict[str, Any]:
    """What was measured on, without its name, and its two limits."""
    found = efficiency.machine()
    for key in ("onnxruntime", "MALLOC_MMAP_MAX_"):
        del found[key]
    found |= {"threads": torch.get_num_threads(), "torch_geometric": version_of("torch_geometric")}
    return found | {"reuse_memory": REUSED} | efficiency.roof()


def compared(results: dict[str, Any]) -> dict[str, Any]:
    """A training step in eight forms at three sizes, and the machine's limits in the same rounds."""
    peaks, sizes = results["machine"], []
    network = yu_network()
    for nodes, batch, rounds in ((20, 4, 3), (30, 4, 3), (40, 2, 3)) if TINY else SIZES:
        network, operator = yu_network(), region(nodes)
        textbook, graph = Textbook(network), as_edges(operator)
        x, edges = weather(batch, YU["history"], nodes, 1), len(graph[1])
        difference = largest_differences(network, textbook, x, operator)
        assert max(difference.values()) <= 1e-5, f"not the same network: {difference}"
        forms, counts, work = {}, {}, {}
        for half in (False, True):
            key = ("textbook", 1, half)
            forms[key] = training_step(textbook, textbook.parameters(), x, graph, half)
            for stretch in (1, *STRETCHES):
                count, windows_in = stretched(batch, stretch)
                record = weather(count, YU["history"] + stretch - 1, nodes, 1)
                key = (name_of(stretch), stretch, half)
                forms[key] = training_step(forecast_of(network, stretch), network.parameters(), record, operator, half)
                counts[stretch] = windows_in
                work[stretch] = work_of(network, count, record.shape[1], nodes, edges)
        # The machine's limits take their turns too: it is not always equally fast.
        limits_of_machine = efficiency.roof_forms()[0]
        times = race(forms | limits_of_machine, seconds=0.1 if TINY else 1.0, least=rounds)
        limit = efficiency.roof({name: times.pop(name) for name in limits_of_machine})
        base = counts[1] / times["textbook", 1, False]["ms"]
        rows = []
        for (form, stretch, half), taken in times.items():
            gflops = limit["bfloat16 GFLOP/s" if half else "float32 GFLOP/s"]
            row = {"form": form, "precision": "bfloat16" if half else "float32", "stretch": stretch}
            row |= {"windows": counts[stretch], **taken}
            row["windows/s"] = digits(1e3 * counts[stretch] / taken["ms"])
            row["ratio"] = digits(counts[stretch] / taken["ms"] / base)
            rows.append(against_roof(row, work[stretch], gflops, limit["copy GB/s"], 2 if half else 4))
            shown = f"{rows[-1]['windows/s']:9.1f} windows/s {row['ratio']:6.2f} x {rows[-1]['share']:6.1%} of the roof"
            print(f"{nodes:6d} {form:14s} {row['precision']:9s} {taken['ms']:9.1f} ms {shown}", flush=True)
        sizes.append({"nodes": nodes, "batch": batch, "edges": edges, **limit, "difference": difference, "rows": rows})
    first = sizes[0]
    work = work_of(network, first["batch"], YU["history"], first["nodes"], first["edges"])
    return {
        "history": YU["history"],
        "horizon": YU["horizon"],
        "channels": YU["channels"],
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "sizes": sizes,
        "layers": layers_of(work, peaks["float32 GFLOP/s"], peaks["copy GB/s"]),
        "peers": peers(first["nodes"], first["batch"]),
    }


class TwoSTConv(nn.Module):
    """Two blocks of PyTorch Geometric Temporal, whose mathematics differ a little, and a linear map."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        from torch_geometric_temporal.nn.attention.stgcn import STConv

        self.blocks = nn.ModuleList(STConv(nodes, width, 64, 64, YU["kernel_size"], K=2) for width in (1, 64))
        self.out = nn.Linear(64 * (YU["history"] - 8), YU["horizon"])

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        for block in self.blocks:
            x = block(x, *graph)
        return self.out(x.transpose(1, 2).flatten(2)).transpose(1, 2)[..., None]


class WaveNet(nn.Module):
    """The model of torch-spatiotemporal that is nearest to this one: Graph WaveNet."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        from tsl.nn.models import GraphWaveNetModel

        self.inner = GraphWaveNetModel(input_size=1, output_size=1, horizon=YU["horizon"], n_nodes=nodes)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return self.inner(x, *graph)


def peers(nodes: int, batch: int) -> dict[str, Any]:
    """Networks of other libraries, where those are installed, beside the textbook version in turns."""
    found: dict[str, Any] = {}
    operator, x = region(nodes), weather(batch, YU["history"], nodes, 1)
    graph = as_edges(operator)
    for name, kind in (("torch_geometric_temporal", TwoSTConv), ("tsl", WaveNet)):
        if importlib.util.find_spec(name) is None:
            found[name] = {"skipped": "not installed"}
            continue
        try:
            peer, textbook = kind(nodes), Textbook(yu_network())
            forms = {
                form: training_step(network, network.parameters(), x, graph)
                for form, network in (("textbook", textbook), ("peer", peer))
            }
            times = race(forms, seconds=1, least=3)
        except Exception as error:  # whatever another version of it says
            found[name] = {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
            continue
        row = {"what": kind.__doc__, "nodes": nodes, "batch": batch, **times["peer"]}
        row["windows/s"] = digits(1e3 * batch / row["ms"])
        found[name] = row | {"ratio": digits(times["textbook"]["ms"] / row["ms"])}
    return found


def learning(_: dict[str, Any]) -> dict[str, Any]:
    """Whether stretches and bf16 learn as well: Irish wind, fitted to 1961-1968, judged on 1969-1970 after the last
    epoch, so that nothing is chosen on the years of judgement."""
    from lightning_fabric import Fabric

    exam = efficiency.Exam(efficiency.CHOICE_TRAIN, efficiency.CHOICE)
    history = efficiency.SHAPE["history"]
    z = exam.z.sel(time=efficiency.CHOICE).reset_coords(drop=True)
    judged = windows.WindowDataset(z.to_dataset(name="x"), "x", "x", history, 1)
    options = FIT | {"epochs": 1 if TINY else FIT["epochs"]}
    options["patience"] = options["epochs"]
    forms = [(name_of(stretch), stretch, False) for stretch in (1, *STRETCHES)] + [(name_of(8), 8, True)]
    runs: dict[Any, list[training.History]] = {form: [] for form in forms}
    for seed in range(2 if TINY else 5):
        for form in forms:
            _, stretch, half = form
            fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed") if half else None
            if fabric:
                fabric.launch()
            network, graph = irish_network(LARGE, seed), efficiency.compass_operators()
            more = {"stretch": stretch, "seed": seed, "fabric": fabric}
            runs[form].append(training.fit(network, exam.train, judged, operator=graph, **more, **options))
    rows = []
    for (form, stretch, half), found in runs.items():
        scores = [run.validation_loss[-1] for run in found]
        curves = {
            "train": np.mean([run.train_loss for run in found], axis=0),
            "validation": np.mean([run.validation_loss for run in found], axis=0),
        }
        rows.append(
            {
                "form": form,
                "precision": "bfloat16" if half else "float32",
                "stretch": stretch,
                "scores": [digits(score, 5) for score in scores],
                "mean": digits(float(np.mean(scores)), 5),
                "spread": digits(float(np.std(scores, ddof=1)), 3),
                "seconds": digits(float(np.median([run.seconds for run in found])), 3),
                **{name: [digits(float(value), 5) for value in curve] for name, curve in curves.items()},
            }
        )
        print(f"{form:14s} {rows[-1]['precision']} {rows[-1]['mean']:.4f} +- {rows[-1]['spread']:.4f}", flush=True)
    return {
        "train": "1961-1968",
        "validation": "1969-1970",
        "windows": len(exam.train),
        "epochs": options["epochs"],
        "batch_size": options["batch_size"],
        "rows": rows,
        "baselines": simple_scores(exam.z, judged.times[:, 0]),
    }


def simple_scores(z: xr.DataArray, times: np.ndarray) -> dict[str, float]:
    """Mean squared errors of standardised anomalies at the targets of the windows."""
    var = baselines.fit_var(z.sel(time=efficiency.CHOICE_TRAIN), 3).forecast(z)
    said = {"climatology": xr.zeros_like(z), "persistence": z.shift(time=1), "VAR(3)": var}
    return {name: digits(float(((one - z) ** 2).sel(time=times).mean()), 5) for name, one in said.items()}


def growth(_: dict[str, Any]) -> dict[str, Any]:
    """How the time of a step grows with the nodes and with the history; slopes of straight lines through logarithms.

    For a forecast, time grows faster than history because the work does: of H steps a first convolution with kernel k
    leaves H - k + 1, so that a short history is cut down by more of itself, and the last convolution spans all that is
    left. So it is also held against the work; and the network for classes, which keeps all steps, against history.
    """
    forms, work = {}, {}
    sizes = (50, 100, 200) if TINY else (1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
    for nodes in sizes:
        network, operator = yu_network(), region(nodes, sparse=True)
        x = weather(1, YU["history"], nodes, 1)
        forms[nodes] = training_step(network, network.parameters(), x, operator)
        work[nodes] = work_of(network, 1, YU["history"], nodes, operator.values().numel())
    by_nodes = growth_rows("nodes", forms, work)

    forms, work = {}, {}
    nodes, batch = (50, 2) if TINY else (2000, 4)
    operator = region(nodes, sparse=True)
    for history in (6, 12, 24, 48, 96):
        network = yu_network(history=history, blocks=1)  # two blocks with kernels of 3 need nine steps
        x = weather(batch, history, nodes, 1)
        forms[history] = training_step(network, network.parameters(), x, operator)
        work[history] = work_of(network, batch, history, nodes, operator.values().numel())
    by_history = growth_rows("history", forms, work)
    flops, taken = ([row[key] for row in by_history] for key in ("GFLOP", "ms"))

    steps = {}
    compass = graphs.directional_operators(scattered(nodes), 4, sparse=True)
    for history in (6, 12, 24, 48, 96):
        torch.manual_seed(0)
        classifier = models.STGCNClassifier(1, 4, kernel_size=3)
        x = weather(batch, history, nodes, 1)
        steps[history] = training_step(classifier, classifier.parameters(), x, compass)
    kept = growth_rows("history", steps)
    return {
        "nodes": {
            "history": YU["history"],
            "batch": 1,
            "slope": slope(sizes, [row["ms"] for row in by_nodes]),
            "rows": by_nodes,
        },
        "history": {
            "nodes": nodes,
            "batch": batch,
            "blocks": 1,
            "slope": slope([row["history"] for row in by_history], taken),
            "slope of FLOPs": slope([row["history"] for row in by_history], flops),
            "slope against FLOPs": slope(flops, taken),
            "rows": by_history,
        },
        "classes": {
            "nodes": nodes,
            "batch": batch,
            "slope": slope([row["history"] for row in kept], [row["ms"] for row in kept]),
            "rows": kept,
        },
    }


def growth_rows(
    what: str, forms: dict[int, Any], work: dict[int, dict[str, Work]] | None = None
) -> list[dict[str, Any]]:
    times = race(forms, seconds=0.1 if TINY else 0.5, least=5)
    found = []
    for size, taken in times.items():
        found.append({what: size, **taken})
        if work:
            found[-1]["GFLOP"] = digits(limits(work[size], 1, 1)["GFLOP"])
        print(f"{what} {size:7d} {taken['ms']:9.1f} ms", flush=True)
    return found


def slope(x: Any, y: Any) -> float:
    """Of the straight line through the logarithms: 1 where y is in proportion to x."""
    return digits(float(np.polyfit(np.log(x), np.log(y), 1)[0]))


# ---------------------------------------------------------------------------- memory and data, in fresh processes


def peak_mb() -> float:
    """Megabytes that this process has held at most. Not ru_maxrss: Linux lets a process inherit its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1.024e-3
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def child(*what: str) -> Any:
    """What a fresh process of this file prints last."""
    command = [sys.executable, __file__, *["--tiny"] * TINY, "--child", *what]
    done = subprocess.run(command, env=without_malloc(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def without_malloc() -> dict[str, str]:
    """The environment without settings of the allocator, which would stand in the way of `reuse_memory`."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}


def memory(_: dict[str, Any]) -> dict[str, Any]:
    """Training at a hundred thousand nodes, in a process with `reuse_memory` and in one without."""
    rows = [{"allocator": allocator, **child("memory", allocator)} for allocator in ("reuse_memory", "default")]
    return {"nodes": 1000 if TINY else 100_000, "history": YU["history"], "batch": 1, "rows": rows}


def child_memory(allocator: str) -> dict[str, Any]:
    imports, nodes = peak_mb(), 1000 if TINY else 100_000
    network, x, operator = yu_network(), weather(1, YU["history"], nodes, 1), region(nodes, sparse=True)
    step, taken = training_step(network, network.parameters(), x, operator), []
    for _ in range(4):
        began = time.perf_counter()
        step()
        taken.append(1e3 * (time.perf_counter() - began))
    peak = peak_mb()
    return {
        "imports MB": digits(imports),
        "peak MB": digits(peak),
        "above imports MB": digits(peak - imports),
        "ms": digits(float(np.median(taken[1:]))),
    }


YEARS, STATIONS, VARIABLES, HOURS = 40, 1000, 5, 8766  # of the record that is meant; hours in a year


def data(_: dict[str, Any]) -> dict[str, Any]:
    """A record of hours, read lazily from a store; and what a batch costs beside the step that it is for."""
    years, stations = (0.05, 20) if TINY else (2, STATIONS)
    hours, chunk = int(years * HOURS), 72
    with tempfile.TemporaryDirectory() as folder:
        rng = da.random.default_rng(0)
        fields = {
            f"v{i}": (("time", "station"), rng.random((hours, stations), np.float32, chunks=(chunk, stations)))
            for i in range(VARIABLES)
        }
        time_axis = pd.date_range("2000", periods=hours, freq="h")
        record = xr.Dataset(fields, {"time": time_axis, "station": np.arange(stations)})
        record.to_zarr(folder, zarr_format=2)
        stream = child("stream", folder)
    size = 4 * VARIABLES * stations * hours / 1e9
    stream = {
        "stations": stations,
        "variables": VARIABLES,
        "hours": hours,
        "years": years,
        "share": digits(years / YEARS, 2),
        "full GB": digits(size * YEARS / years, 3),
        "stored GB": digits(size, 3),
        "chunk_hours": chunk,
        **stream,
    }
    return {"stream": stream, "batching": [batching(nodes) for nodes in ((20, 30) if TINY else (228, 1325))]}


def child_stream(folder: str) -> dict[str, Any]:
    imports, memory_mb, batch, history = peak_mb(), 192, 32, 24
    names = [f"v{i}" for i in range(VARIABLES)]
    ds = xr.open_zarr(folder)
    rows = []
    for stretch in (1, STRETCHES[0]):
        stream = streaming.StreamedWindows(ds, names, names[0], history, 1, memory_mb=memory_mb)
        began, size = time.perf_counter(), 0
        for x, y, *_ in stream.batches(batch, torch.Generator().manual_seed(0), stretch=stretch):
            size += x.nbytes + y.nbytes
        seconds, count = time.perf_counter() - began, len(stream)
        rows.append(
            {
                "stretch": stretch,
                "batch": batch,
                "windows": count,
                "seconds": digits(seconds),
                "windows/s": digits(count / seconds),
                "GB/s": digits(size / 1e9 / seconds),
            }
        )
    peak = digits(peak_mb())
    sizes = {"history": history, "horizon": 1, "memory_mb": memory_mb}
    return {**sizes, "imports MB": digits(imports), "peak MB": peak, "rows": rows}


def batching(nodes: int) -> dict[str, Any]:
    """Milliseconds to gather 32 windows from a record in memory, shuffled, beside those of a training step on them."""
    batch, stretch, steps = (4, 2, 60) if TINY else (32, STRETCHES[0], 1000)
    values = weather(steps, nodes).numpy()
    ds = xr.Dataset({"v": (("time", "station"), values)}, {"time": pd.date_range("2000", periods=steps, freq="h")})
    record = windows.WindowDataset(ds, "v", "v", YU["history"], YU["horizon"])
    network, operator, shuffle = yu_network(), region(nodes), torch.Generator().manual_seed(0)
    x = weather(batch, YU["history"], nodes, 1)
    long = weather(batch // stretch, YU["history"] + stretch - 1, nodes, 1)
    batches = -(-len(record) // batch)

    def all_batches(stretch: int) -> Callable[[], Any]:
        return lambda: [None for _ in record.batches(batch, shuffle, stretch=stretch)]

    times = race(
        {
            "step": training_step(network, network.parameters(), x, operator),
            "stretch step": training_step(network.forecast_series, network.parameters(), long, operator),
            "batch": all_batches(1),
            "stretch batch": all_batches(stretch),
        },
        seconds=0.1 if TINY else 1.0,
        least=5,
    )
    ms = {name: taken["ms"] / (batches if "batch" in name else 1) for name, taken in times.items()}
    loader = torch.utils.data.DataLoader(record, batch, shuffle=True, num_workers=2, persistent_workers=True)
    list(loader)  # starts the workers
    began = time.perf_counter()
    list(loader)
    with_workers = 1e3 * (time.perf_counter() - began) / batches
    return {
        "nodes": nodes,
        "batch": batch,
        "step ms": digits(ms["step"]),
        "batch ms": digits(ms["batch"]),
        "share": digits(ms["batch"] / ms["step"], 3),
        "stretch step ms": digits(ms["stretch step"]),
        "stretch batch ms": digits(ms["stretch batch"]),
        "stretch share": digits(ms["stretch batch"] / ms["stretch step"], 3),
        "DataLoader ms": digits(with_workers),
    }


# ---------------------------------------------------------------------------- another device


def device(_: dict[str, Any]) -> dict[str, Any]:
    """The same steps on a CUDA device, where there is one."""
    if not torch.cuda.is_available():
        return {"skipped": "no CUDA device"}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    sizes = [(nodes, batch) for nodes, batch, _ in (((20, 4, 3),) if TINY else SIZES)]
    return on_device(torch.device("cuda"), sizes)


def on_device(place: torch.device, sizes: Any, seconds: float = 1.0) -> dict[str, Any]:
    """Steps by windows and by stretches, launched one operation at a time and, with CUDA, as one graph."""
    cuda = place.type == "cuda"
    plain = "TF32" if cuda else "float32"
    found: dict[str, Any] = {
        "name": torch.cuda.get_device_name(place) if cuda else place.type,
        "torch": torch.__version__,
    }
    found |= device_peaks(place, plain, seconds)
    found["sizes"] = []
    for nodes, batch in sizes:
        operator, rows = region(nodes), []
        edges = len(as_edges(operator)[1])
        operator = operator.to(place)
        for precision in (plain, "bfloat16"):
            for stretch in (1, *STRETCHES):
                network = yu_network().to(place)
                count, windows_in = stretched(batch, stretch)
                x = weather(count, YU["history"] + stretch - 1, nodes, 1).to(place)
                half = precision == "bfloat16"
                step = training_step(forecast_of(network, stretch), network.parameters(), x, operator, half)
                work = work_of(network, count, x.shape[1], nodes, edges)
                for run in ("plain", "graph") if cuda else ("plain",):
                    row = {"form": name_of(stretch), "precision": precision, "run": run, "windows": windows_in}
                    try:
                        form = waited(captured(step) if run == "graph" else step, place)
                        taken = race({run: form}, seconds, least=5)[run]
                    except RuntimeError as error:  # what cannot be captured, or does not fit
                        rows.append(row | {"skipped": str(error).splitlines()[0][:120]})
                        continue
                    row |= taken | {"windows/s": digits(1e3 * windows_in / taken["ms"])}
                    gflops, gbytes = found[f"{precision} GFLOP/s"], found["copy GB/s"]
                    row = against_roof(row, work, gflops, gbytes, 2 if half else 4)
                    row["least GB/s"] = digits(1e3 * row["GB"] / row["ms"])
                    rows.append(row | {"bandwidth share": digits(row["least GB/s"] / gbytes)})
                    print(f"{place} {nodes} {row['form']} {precision} {run} {row['ms']} ms", flush=True)
        found["sizes"].append({"nodes": nodes, "batch": batch, "rows": rows})
    return found


def device_peaks(place: torch.device, plain: str, seconds: float) -> dict[str, float]:
    size, count = (8192, 2**28) if place.type == "cuda" else (256, 2**20)
    a, source = torch.ones(size, size, device=place), torch.ones(count, device=place)
    target, half = torch.empty_like(source), a.bfloat16()
    forms = {plain: lambda: a @ a, "bfloat16": lambda: half @ half, "copy": lambda: target.copy_(source)}
    times = race({name: waited(form, place) for name, form in forms.items()}, seconds)
    return {
        f"{plain} GFLOP/s": digits(2 * size**3 / 1e6 / times[plain]["ms"]),
        "bfloat16 GFLOP/s": digits(2 * size**3 / 1e6 / times["bfloat16"]["ms"]),
        "copy GB/s": digits(2 * source.nbytes / 1e6 / times["copy"]["ms"]),
    }


def waited(form: Callable[[], Any], place: torch.device) -> Callable[[], Any]:
    """A device works on after a call returns: wait for it."""
    if place.type != "cuda":
        return form

    def call() -> None:
        form()
        torch.cuda.synchronize(place)

    return call


def captured(step: Callable[[], Any]) -> Callable[[], Any]:
    """A training step as a CUDA graph, which is launched at once."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


# ---------------------------------------------------------------------------- all of it

PARTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "machine": machine,
    "training": compared,
    "learning": learning,
    "growth": growth,
    "memory": memory,
    "data": data,
    "device": device,
}
CHILDREN: dict[str, Callable[[str], Any]] = {"memory": child_memory, "stream": child_stream}
REUSED = False


def measure(names: list[str], path: Path) -> None:
    """Measure parts and keep the others as they are stored; the machine's limits are needed by most."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in [*["machine"] * ("machine" not in {*results, *names}), *names]:
        began = time.perf_counter()
        results[name] = PARTS[name](results)
        results.setdefault("seconds", {})[name] = digits(time.perf_counter() - began, 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(path)
        print(f"{name}: {results['seconds'][name]} s", flush=True)


def main() -> None:
    global TINY, REUSED
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure these parts alone")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the script out")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    TINY = efficiency.TINY = options.tiny
    if without_malloc() != dict(os.environ):  # the allocator has read them: begin anew
        os.execve(sys.executable, [sys.executable, *sys.argv], without_malloc())
    if options.child != ["memory", "default"]:
        REUSED = training.reuse_memory()
    torch.set_num_threads(1 if TINY else THREADS)
    if options.child:
        what, argument = options.child
        print(json.dumps(CHILDREN[what](argument)))
        return
    measure(options.only, efficiency.CACHE.parent / "speed" / "tiny.json" if TINY else RESULTS)


if __name__ == "__main__":
    main()
