"""What a forecast costs: time and memory of networks, operators, precisions and smaller forms, beside their accuracy.

    python benchmarks/efficiency.py [--only PART ...] [--busy] [--tiny]

Writes efficiency.json beside this file after every part, so that single parts can be measured again. All times are
medians over rounds in which the forms to be compared take turns, after two calls that do not count, on one thread
unless a part says otherwise. Let nothing else run meanwhile; where that can't be had, --busy measures the processor's
time in place of the clock's, which is the same for one thread alone (part "threads" then means nothing). Trained
networks are kept under _build/efficiency and used again with the same settings (`make clean` forgets them); --tiny is
for trying the script out and writes elsewhere.

Accuracy is that of the benchmark irish_wind.py, protocol (b): fitted to 1961-1970, one day ahead, root mean square
error over 1971-1978. The share of each teacher was chosen on 1969-1970 (part "choice", kept unless asked for). The test
years were scored once for each form, but for the students: a first run had trained them for 15 epochs, which the choice
years show to be too few for the student alone; that would have flattered the teachers.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch_geometric.data import Data

from stgcn_lab import baselines, datasets, deploy, forecasting, graphs, layers, models, training, verification, windows

RESULTS = Path(__file__).with_suffix(".json")
CACHE = Path(__file__).parents[1] / "_build" / "efficiency"
SEEDS, THREADS, NEIGHBOURS = range(5), 1, 4
SHARES = {"five large": 0.5, "VAR(3) + five": 1.0}  # of each teacher: the better one of "choice"
TRAIN, CHOICE_TRAIN, CHOICE = slice("1961", "1970"), slice("1961", "1968"), slice("1969", "1970")
TEST = slice("1971-01-04", "1978")  # as in irish_wind.py

# The network of Yu et al. (2018) on a middling region, for all that is measured on random weather.
YU: dict[str, Any] = {"history": 12, "horizon": 3, "channels": (64, 16, 64), "blocks": 2, "kernel_size": 3}
REGION, BATCH = 228, 32
LARGE: dict[str, Any] = {"channels": (32, 32, 32), "dropout": 0.3}
SMALL: dict[str, Any] = {"channels": (8, 8, 8), "dropout": 0.1}
SHAPE: dict[str, Any] = {"history": 9, "horizon": 1, "blocks": 2, "kernel_size": 3, "spatial": "directional"}
FIT: dict[str, Any] = {"epochs": 30, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 1e-2, "progress": False}

Form = Callable[[], Any]


# ---------------------------------------------------------------------------- measuring


def race(forms: dict[str, Form], seconds: float = 2.0, least: int = 7) -> dict[str, dict[str, float]]:
    """Milliseconds of each form: median and quartiles over rounds in which every form has its turn.

    Taking turns spreads what the machine does besides over all forms alike. A turn of a quick form is many calls.
    """
    clock = time.process_time if BUSY else time.perf_counter
    calls = {}
    for name, form in forms.items():
        form()
        form()
        began = time.perf_counter()
        form()
        calls[name] = max(1, round(2e-3 / max(time.perf_counter() - began, 1e-7)))
    taken: dict[str, list[float]] = {name: [] for name in forms}
    began = time.perf_counter()
    while len(next(iter(taken.values()))) < least or time.perf_counter() - began < seconds * len(forms):
        for name, form in forms.items():
            start = clock()
            for _ in range(calls[name]):
                form()
            taken[name].append((clock() - start) / calls[name] * 1e3)
    return {name: summary(times) for name, times in taken.items()}


def summary(times: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(times, n=4)
    return {"ms": digits(middle), "low": digits(low), "high": digits(high), "rounds": len(times)}


def digits(value: float, count: int = 4) -> float:
    """So many significant digits: no more were measured."""
    return float(f"{value:.{count}g}")


def scattered(nodes: int) -> Data:
    """A region of stations thrown at random, each linked to its nearest ones."""
    rng = np.random.default_rng(nodes)
    return graphs.knn_graph(rng.uniform(40, 60, nodes), rng.uniform(-10, 30, nodes), k=8)


def region(nodes: int, sparse: bool | None = None) -> Tensor:
    """Operator of such a region."""
    return graphs.gcn_operator(scattered(nodes), sparse)


def yu_network(features: int = 1, **other: Any) -> models.STGCN:
    torch.manual_seed(0)
    return models.STGCN(features, 1, **{**YU, **other})


def weather(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def one_step(network: nn.Module, x: Tensor, operator: Any, autocast: bool = False) -> Form:
    """A step of training: forward, backward, Adam."""
    optimizer = torch.optim.AdamW(network.parameters())
    with torch.no_grad():
        y = torch.zeros_like(network(x, operator))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            said = network(x, operator)
        (said.float() - y).square().mean().backward()
        optimizer.step()

    return step


def said_by(network: nn.Module, x: Tensor, operator: Any, autocast: bool = False) -> Form:
    network.eval()

    def forecast() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return network(x, operator)

    return forecast


# ---------------------------------------------------------------------------- the machine


def machine() -> dict[str, Any]:
    """What was measured on, without its name."""
    info = Path("/proc/cpuinfo")
    lines = (line.partition(":") for line in (info.read_text() if info.exists() else "").splitlines())
    said = {key.strip(): value.strip() for key, _, value in lines}
    units = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_vnni", "avx_vnni"} & set(
        said.get("flags", "").split()
    )
    return {
        "processor": said.get("model name", "unknown"),
        "architecture": platform.machine(),
        "units": sorted(units),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": version_of("onnxruntime"),
        "MALLOC_MMAP_MAX_": os.environ.get("MALLOC_MMAP_MAX_", "unset"),
        "load": digits(os.getloadavg()[0], 2),
    }


def version_of(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def roof_forms() -> tuple[dict[str, Form], dict[str, float]]:
    """What shows the limits of the machine, and the million operations, or megabytes, of one call of each."""
    size = 1024 if TINY else 2048
    a, b = weather(size, size), weather(size, size)
    source, target = torch.ones(2**25), torch.empty(2**25)  # 128 MiB each: larger than any cache
    image = weather(8, 256, 32, 32).to(memory_format=torch.channels_last)
    kernel = weather(256, 256, 3, 3).to(memory_format=torch.channels_last)
    forms = {
        "product": lambda: a @ b,
        "convolution": partial(nn.functional.conv2d, image, kernel),
        "bfloat16": partial(torch.matmul, a.bfloat16(), b.bfloat16()),
        "copy": lambda: target.copy_(source),
    }
    product, convolution = 2 * size**3 / 1e6, 2 * 256 * 9 * 8 * 256 * 30 * 30 / 1e6
    return forms, dict(zip(forms, (product, convolution, product, 2 * source.nbytes / 1e6), strict=True))


def roof(times: dict[str, dict[str, float]] | None = None) -> dict[str, Any]:
    """The two limits of the machine: operations in a large product or convolution, bytes moved in a large copy.

    ``times`` are those of :func:`roof_forms`, where they were measured in turns with something else.
    """
    forms, amounts = roof_forms()
    times = race(forms) if times is None else times
    speeds = {name: digits(amounts[name] / times[name]["ms"]) for name in forms}
    by = {name: speeds[name] for name in ("product", "convolution")}
    return {
        "float32 GFLOP/s": max(by.values()),  # by different libraries: the better one is what the machine can do
        "float32 by": by,
        "bfloat16 GFLOP/s": speeds["bfloat16"],
        "copy GB/s": speeds["copy"],
    }


# ---------------------------------------------------------------------------- where the time goes


def named_layers(network: models.STGCN) -> dict[str, nn.Module]:
    """The layers of a network under names for readers."""
    named = {}
    for b, block in enumerate(network.blocks, start=1):
        named |= {
            f"block {b}: time, first": block.before,
            f"block {b}: squeeze": block.squeeze,
            f"block {b}: graph": block.space,
            f"block {b}: time, second": block.after,
            f"block {b}: norm": block.norm,
        }
    return named | {"collect": network.collect, "out": network.out}


def profile_step() -> dict[str, Any]:
    """Milliseconds of a training step by layer, forward and backward, and by operation."""
    found = {}
    for name, nodes, batch in (("228 stations", REGION, 2 if TINY else BATCH), ("11 stations", 11, 64)):
        network, operator, x = yu_network(), region(nodes), weather(batch, 12, nodes, 1)
        step = one_step(network, x, operator)
        whole = race({"step": step})["step"]
        steps = 5
        handles = [handle for part in named_layers(network).items() for handle in name_in_profile(*part)]
        step()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(steps):
                step()
        for handle in handles:
            handle.remove()
        rows = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)
        rows = [row for row in rows if not row.key.startswith("layer ")]
        operations = {row.key: digits(row.self_cpu_time_total / 1e3 / steps) for row in rows[:10]}
        found[name] = {
            "batch": batch,
            "parameters": sum(weights.numel() for weights in network.parameters()),
            "step": whole,
            "profiled ms": digits(sum(row.self_cpu_time_total for row in rows) / 1e3 / steps),
            "layers": by_layer(seen.events(), steps),
            "operations": operations,
        }
    return found


def name_in_profile(name: str, layer: nn.Module) -> list[Any]:
    """Let the profiler know when the forward pass is inside a layer."""
    open_ranges: list[Any] = []

    def enter(*_: Any) -> None:
        open_ranges.append(record_function(f"layer {name}"))
        open_ranges[-1].__enter__()

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    return [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]


def by_layer(events: Any, steps: int) -> dict[str, dict[str, float]]:
    """Forward and backward milliseconds of each layer; an operation and its gradient carry the same number."""
    of_number: dict[int, str] = {}
    forward: dict[str, float] = {}
    backward: dict[str, float] = {}
    other = 0.0
    for event in events:
        if event.name.startswith("layer "):
            forward[event.name[6:]] = forward.get(event.name[6:], 0.0) + event.cpu_time_total
            for inner in inside(event):
                of_number[inner.sequence_nr] = event.name[6:]
    for event in events:
        if event.name.startswith("autograd::engine::evaluate_function"):
            layer = of_number.get(event.sequence_nr)
            if layer is None:
                other += event.cpu_time_total
            else:
                backward[layer] = backward.get(layer, 0.0) + event.cpu_time_total
    milli = {
        name: {"forward": digits(t / 1e3 / steps), "backward": digits(backward.get(name, 0.0) / 1e3 / steps)}
        for name, t in forward.items()
    }
    adam = sum(event.cpu_time_total for event in events if event.name.startswith("Optimizer.step"))
    return milli | {
        "Adam": {"forward": 0.0, "backward": digits(adam / 1e3 / steps)},
        "between layers": {"forward": 0.0, "backward": digits(other / 1e3 / steps)},
    }


def inside(event: Any) -> Iterator[Any]:
    for child in event.cpu_children:
        if child.sequence_nr >= 0:
            yield child
        yield from inside(child)


def layer_roof() -> list[dict[str, Any]]:
    """Single layers without gradients: what they compute, what they must at least move, and how long they take."""
    batch, steps = (2, 12) if TINY else (BATCH, 12)
    cells = batch * steps * REGION
    dense, sparse = region(REGION, sparse=False), region(REGION, sparse=True)
    edges = int(sparse.values().numel())
    torch.manual_seed(0)
    wide, narrow = weather(batch, steps, REGION, 64), weather(batch, steps, REGION, 16)
    first = weather(batch, steps, REGION, 1)
    out = batch * (steps - 2) * REGION  # cells that an unpadded kernel of 3 leaves
    space, norm, squeeze = layers.GraphConv(16, 16), nn.LayerNorm(64), nn.Linear(64, 16)
    gated = {c: layers.TemporalConv(c, 64, 3, pad=False) for c in (1, 16, 64)}
    # name: form, additions and multiplications, numbers read and written at least
    forms: dict[str, tuple[Form, float, float]] = {
        f"time, {c} to 64 channels": (
            partial(gated[c], {1: first, 16: narrow, 64: wide}[c]),
            2 * 3 * c * 128 * out,
            cells * c + 3 * c * 128 + out * 64,
        )
        for c in (1, 16, 64)
    }
    forms["squeeze, 64 to 16"] = (partial(squeeze, wide), 2 * 64 * 16 * cells, cells * 80 + 64 * 16)
    mixing = 2 * 16 * 16 * cells
    forms["graph, dense"] = (
        partial(space, narrow, dense),
        mixing + 2 * REGION * 16 * cells,
        cells * 32 + REGION**2,
    )
    forms["graph, sparse"] = (
        partial(space, narrow, sparse),
        mixing + 2 * edges * 16 * batch * steps,
        cells * 32 + 2 * edges,
    )
    forms["norm"] = (partial(norm, wide), 8 * 64 * cells, cells * 128)
    large = 1024 if TINY else 2048
    a = weather(large, large)
    forms["a large product"] = (lambda: a @ a, 2 * large**3, 3 * large**2)
    with torch.inference_mode():
        times = race({name: form for name, (form, _, _) in forms.items()}, seconds=0.5)
    return [
        {
            "layer": name,
            "GFLOP": digits(flops / 1e9),
            "MB": digits(4 * numbers / 1e6),
            "intensity": digits(flops / (4 * numbers)),
            "ms": times[name]["ms"],
            "GFLOP/s": digits(flops / 1e6 / times[name]["ms"]),
        }
        for name, (_, flops, numbers) in forms.items()
    ]


# ---------------------------------------------------------------------------- the operator, stretches, compiling


def edge_list_product(source: Tensor, target: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """The operator as a list of edges: fetch, weigh, add up."""
    return torch.zeros_like(x).index_add_(0, target, weight[:, None] * x[source])


def operator_forms() -> list[dict[str, Any]]:
    """One graph product, forward, on (N, 12 x 16) numbers: dense, CSR and edge list."""
    rows = []
    for nodes in (64, 256) if TINY else (16, 32, 64, 128, 256, 512, 1024, 2048, 4096):
        dense, sparse = region(nodes, sparse=False), region(nodes, sparse=True)
        target, source = dense.nonzero(as_tuple=True)
        weight = dense[target, source]
        x = weather(nodes, 12 * 16)
        forms = {
            "dense": partial(torch.matmul, dense, x),
            "CSR": partial(torch.matmul, sparse, x),
            "edge list": partial(edge_list_product, source, target, weight, x),
        }
        with torch.inference_mode():
            said = [form() for form in forms.values()]
            assert all(torch.allclose(said[0], other, atol=1e-4) for other in said[1:])
            times = race(forms, seconds=0.4)
        index = sparse.crow_indices().nbytes + sparse.col_indices().nbytes
        memory = {
            "dense": dense.nbytes,
            "CSR": index + sparse.values().nbytes,
            "edge list": source.nbytes + target.nbytes + weight.nbytes + 2 * len(source) * x.shape[1] * 4,
        }
        for form in forms:
            row = {"nodes": nodes, "edges": len(source), "form": form, **times[form], "kB": digits(memory[form] / 1e3)}
            rows.append(row)
    return rows


def stretches() -> list[dict[str, Any]]:
    """S forecasts by windows and by one stretch, for inference: milliseconds a forecast."""
    network, operator = yu_network().eval(), region(REGION)
    rows = []
    for count in (1, 4) if TINY else (1, 2, 4, 8, 16, 32):
        record = weather(12 + count - 1, REGION, 1)
        cut = record.unfold(0, 12, 1).movedim(-1, 1)  # (S, 12, N, 1)

        def by_windows(cut: Tensor = cut) -> Tensor:
            return network(cut, operator)

        def by_stretch(record: Tensor = record) -> Tensor:
            return network.forecast_series(record[None], operator)[0]

        with torch.inference_mode():
            assert torch.allclose(by_windows(), by_stretch(), atol=1e-5)
            times = race({"windows": by_windows, "stretch": by_stretch}, seconds=0.7)
        rows.append({"forecasts": count, **{name: digits(t["ms"] / count) for name, t in times.items()}})
    return rows


def compiled() -> dict[str, Any]:
    """torch.compile against the plain network: how long the first call takes, how much the others gain."""
    names = filter(None, (os.environ.get("CXX"), "g++", "clang++", "cl"))
    if not any(shutil.which(name) for name in names):
        return {"torch.compile": {"skipped": "no C++ compiler was found, and on a CPU it needs one"}}
    irish, today = irish_network(LARGE).eval(), weather(1, 9, 11, 1)
    yu, many, operator = yu_network(), weather(2 if TINY else BATCH, 12, REGION, 1), region(REGION, sparse=False)
    tasks = {
        "one forecast, 11 stations": lambda change: said_by(change(irish), today, compass_operators()),
        "training step, 228 stations": lambda change: one_step(change(yu), many, operator),
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # what an earlier run compiled does not count
        for name, task in tasks.items():
            plain = task(lambda network: network)
            began = time.perf_counter()
            try:
                quick = task(torch.compile)
                quick()
            except Exception as error:  # whatever the compiler says of this machine
                found[name] = {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
                continue
            first = time.perf_counter() - began
            found[name] = {"first call s": digits(first, 2), **race({"plain": plain, "compiled": quick})}
    return found


def precision() -> dict[str, Any]:
    """float32 and bf16 autocast on random weather: milliseconds, and how far the output moves."""
    found = {}
    for nodes, batch in ((REGION, 1), (REGION, 2 if TINY else BATCH), (1325, 1 if TINY else 8)):
        network, operator, x = yu_network(), region(nodes), weather(batch, 12, nodes, 1)
        forms = {"float32": said_by(network, x, operator), "bfloat16": said_by(network, x, operator, True)}
        full, half = (form() for form in forms.values())
        error = (half - full).abs().mean() / full.abs().mean()
        steps = {"float32": one_step(yu_network(), x, operator), "bfloat16": one_step(yu_network(), x, operator, True)}
        found[f"{nodes} stations, batch {batch}"] = {
            "forecast": race(forms, seconds=1),
            "step": race(steps, seconds=1),
            "change of the output": digits(float(error), 2),
        }
    return found


def runtime() -> dict[str, Any]:
    """A network of 228 stations in PyTorch, in ONNX Runtime, and there in eight bits."""
    network, operator = yu_network().eval(), region(REGION)
    record = xr.DataArray(
        weather(400, REGION).numpy(),
        dims=("time", "station"),
        coords={"time": np.datetime64("2000-01-01") + np.arange(400).astype("timedelta64[D]")},
    )
    sample = windows.WindowDataset(record.to_dataset(name="x"), "x", "x", YU["history"], YU["horizon"])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        exact, short = Path(folder) / "exact.onnx", Path(folder) / "int8.onnx"
        deploy.to_onnx(network, sample.batch([0]).x, operator, exact)
        deploy.quantise(exact, sample, short, batches=4)
        files = {"ONNX": deploy.load_onnx(exact), "int8": deploy.load_onnx(short)}
        for batch in (1, 2 if TINY else BATCH):
            x = sample.batch(range(batch)).x
            forms = {"PyTorch": said_by(network, x, operator)} | {name: partial(f, x) for name, f in files.items()}
            right = forms["PyTorch"]()
            off = {name: float((f(x) - right).abs().mean() / right.abs().mean()) for name, f in files.items()}
            found[f"batch {batch}"] = {**race(forms, seconds=1), "change of the output": digits(off["int8"], 2)}
    return found


def threads() -> dict[str, Any]:
    """One thread and all cores, for a small and a large network."""
    found: dict[str, Any] = {}
    small, large = (
        said_by(irish_network(LARGE), weather(1, 9, 11, 1), compass_operators()),
        said_by(yu_network(), weather(2 if TINY else 8, 12, 1325, 1), region(1325)),
    )
    for count in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(count)
        found[str(count)] = race({"one forecast, 11 stations": small, "8 forecasts, 1325 stations": large})
    torch.set_num_threads(THREADS)
    return found


def allocator() -> dict[str, Any]:
    """A training step at 1325 stations in a fresh process, with and without MALLOC_MMAP_MAX_=0."""
    found = {}
    for name, value in (("default", None), ("MALLOC_MMAP_MAX_=0", "0")):
        environment = {key: v for key, v in os.environ.items() if not key.startswith("MALLOC_")}
        if value is not None:
            environment["MALLOC_MMAP_MAX_"] = value
        found[name] = child("step", environment)
    return found


def child(what: str, environment: dict[str, str] | None = None) -> Any:
    """The last line that a fresh process of this file prints, and how long all of it took."""
    command = [sys.executable, __file__, "--child", what, *["--tiny"] * TINY, *["--busy"] * BUSY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child_step() -> dict[str, float]:
    network, operator, x = yu_network(), region(1325), weather(1 if TINY else 8, 12, 1325, 1)
    return race({"step": one_step(network, x, operator)}, seconds=4)["step"]


# ---------------------------------------------------------------------------- accuracy


@cache
def root_of_wind() -> xr.DataArray:
    """(time, station) sqrt of m/s at the eleven stations of the benchmark, without leap days."""
    return np.sqrt(datasets.drop_leap_days(datasets.load_irish_wind()["wind_speed"]).drop_sel(station="ROS"))


def stations() -> Any:
    wind = root_of_wind()
    return graphs.knn_graph(wind["lat"].values, wind["lon"].values, k=NEIGHBOURS)


@cache
def compass_operators() -> tuple[Tensor, ...]:
    return graphs.directional_operators(stations())


def irish_network(settings: dict[str, Any], seed: int = 0) -> models.STGCN:
    torch.manual_seed(seed)
    return models.STGCN(1, 1, norm=False, **{**SHAPE, **settings})


class Exam:
    """Season and scale from training years; windows to train on; a score on the years of the exam."""

    def __init__(self, train: slice, exam: slice) -> None:
        wind = root_of_wind()
        self.years = train
        known = wind.sel(time=train)
        self.season = baselines.climatology(known, wind["time"], 1)
        self.scale = (known - self.season).std("time")
        self.z = (wind - self.season) / self.scale
        self.truth = wind.sel(time=exam)
        self.train = windows.WindowDataset(
            self.z.sel(time=train).reset_coords(drop=True).to_dataset(name="x"), "x", "x", SHAPE["history"], 1
        )
        history = SHAPE["history"]
        cut = torch.from_numpy(self.z.values.astype(np.float32))[:-1].unfold(0, history, 1).movedim(-1, 1)
        first = int(np.flatnonzero(wind["time"] == self.truth["time"][0])[0]) - history
        self.x = cut[first : first + self.truth.sizes["time"], ..., None].contiguous()  # (days, history, N, 1)

    def forecast(self, said: Tensor | np.ndarray) -> xr.DataArray:
        """Standardised forecasts (days, N) as sqrt(m/s)."""
        forecast = self.truth.copy(data=np.asarray(said)) * self.scale + self.season.sel(time=self.truth["time"])
        return forecast.transpose("time", "station")

    def score(self, said: Tensor | np.ndarray) -> float:
        """RMSE of standardised forecasts (days, N), mean over stations, in sqrt(m/s)."""
        return verification.mean_score(self.forecast(said), self.truth)

    def windiest(self, said: Tensor | np.ndarray) -> float:
        """The same over the hundredth of the days on which the wind of all stations together was strongest."""
        together = self.truth.mean("station").values
        days = np.flatnonzero(together >= np.quantile(together, 0.99))
        return verification.mean_score(self.forecast(said).isel(time=days), self.truth.isel(time=days))


@torch.inference_mode()
def all_days(network: Callable[..., Any], x: Tensor, *operators: Any) -> Tensor:
    """(days, N), in batches."""
    return torch.cat([torch.as_tensor(network(part, *operators))[:, 0, :, 0] for part in x.split(512)])


class Ensemble(nn.Module):
    """The mean of several networks."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor, operator: Any = None) -> Tensor:
        return torch.stack([member(x, operator) for member in self.members]).mean(0)


class Remembered:
    """A teacher that answers each window of the training once, however often it is asked."""

    def __init__(self, teacher: nn.Module, train: windows.WindowDataset) -> None:
        with torch.inference_mode():
            batches = ((batch.x, teacher(batch.x, compass_operators())) for batch in train.batches(512))
            self.said = {x.numpy().tobytes(): y for xs, ys in batches for x, y in zip(xs, ys, strict=True)}

    def __call__(self, x: Tensor, operator: Any = None) -> Tensor:
        return torch.stack([self.said[window.numpy().tobytes()] for window in x])


def trained(exam: Exam, settings: dict[str, Any], seed: int, years: slice, **teaching: Any) -> models.STGCN:
    """A network trained on the windows of the exam, alone or by a teacher; kept for the next run."""
    network = irish_network(settings, seed)
    teacher = teaching.pop("teacher", None)
    options = {**FIT, **teaching} | ({"epochs": 1} if TINY else {})
    note = json.dumps([settings, SHAPE, seed, str(years), options, state_of(teacher)])
    path = CACHE / f"{hashlib.sha256(note.encode()).hexdigest()[:24]}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    operator = compass_operators()
    if teacher is None:
        training.fit(network, exam.train, None, operator=operator, seed=seed, **options)
    else:
        teacher = Remembered(teacher, exam.train)
        deploy.distil(network, teacher, exam.train, None, operator=operator, seed=seed, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return network.eval()


def state_of(teacher: nn.Module | None) -> str:
    if teacher is None:
        return ""
    weights = torch.cat([weight.detach().flatten() for weight in teacher.parameters()])
    return hashlib.sha256(weights.numpy().tobytes()).hexdigest()


def choose() -> list[dict[str, Any]]:
    """How the teacher's share was chosen: fitted to 1961-1968, scored on 1969-1970."""
    exam, operator = Exam(CHOICE_TRAIN, CHOICE), compass_operators()
    seeds = (10,) if TINY else (10, 11)

    def score(network: nn.Module) -> float:
        return digits(exam.score(all_days(network, exam.x, operator)))

    var = baselines.fit_var(exam.z.sel(time=CHOICE_TRAIN), 3).forecast(exam.z).sel(time=CHOICE)
    teachers = {
        "five large": Ensemble([trained(exam, LARGE, seed, CHOICE_TRAIN) for seed in SEEDS]).eval(),
        "VAR(3) + five": Ensemble(trained_on_top(exam, len(SEEDS))).eval(),
    }
    rows = [{"what": "VAR(3)", "scores": [digits(exam.score(var.values))]}]
    rows += [{"what": f"teacher, {name}", "scores": [score(teacher)]} for name, teacher in teachers.items()]
    students = [trained(exam, SMALL, seed, CHOICE_TRAIN) for seed in seeds]
    rows.append({"what": "student alone", "scores": [score(student) for student in students]})
    for name, teacher in teachers.items():
        for share in (0.5, 1.0):
            teaching = {"teacher": teacher, "share": share}
            taught = [trained(exam, SMALL, seed, CHOICE_TRAIN, **teaching) for seed in seeds]
            rows.append({"what": f"student of {name}", "share": share, "scores": [score(t) for t in taught]})
            print("choice", rows[-1], flush=True)
    return rows


# ---------------------------------------------------------------------------- the table


def table() -> list[dict[str, Any]]:
    """Every form of the forecast: error over the test years, milliseconds a forecast, kilobytes."""
    exam, operator, seeds = Exam(TRAIN, TEST), compass_operators(), list(SEEDS)[: 2 if TINY else None]
    wind = root_of_wind()
    large = [trained(exam, LARGE, seed, TRAIN) for seed in seeds]
    small = [trained(exam, SMALL, seed, TRAIN) for seed in seeds]
    skipping = trained_on_top(exam, len(seeds))
    teachers = {"five large": Ensemble(large).eval(), "VAR(3) + five": Ensemble(skipping).eval()}
    networks: dict[str, list[nn.Module]] = {
        "large": large,
        "five large": [teachers["five large"]],
        "small": small,
        "VAR(3) + network": skipping,
        "VAR(3) + five": [teachers["VAR(3) + five"]],
    }
    for name, teacher in teachers.items():
        networks[f"small, taught by {name}"] = [
            trained(exam, SMALL, seed, TRAIN, teacher=teacher, share=SHARES[name]) for seed in seeds
        ]
    rows = simple_rows(exam, wind)
    with tempfile.TemporaryDirectory() as folder:
        for name, members in networks.items():
            for form in forms_of(name):
                rows.append(row_of(name, form, members, exam, operator, Path(folder)))
                print(f"{name:30s} {form:10s} {statistics.mean(rows[-1]['scores']):.4f}", flush=True)
        times = race({f"{row['model']}, {row['form']}": row.pop("run") for row in rows}, seconds=0.3)
    said = {row["model"]: row.pop("said") for row in rows if row["form"] in ("NumPy", "PyTorch")}
    for row in rows:
        row |= times[f"{row['model']}, {row['form']}"]
        if row["model"].startswith("small, taught") and row["form"] == "PyTorch":
            pairs = {"small": (said[row["model"]], said["small"]), "VAR(3)": (said[row["model"]], said["VAR(3)"] * 5)}
            row["against"] = {
                rival: [rounded(verification.compare(a, b, exam.truth)) for a, b in zip(*pair, strict=False)]
                for rival, pair in pairs.items()
            }
        row.pop("said", None)
    return rows


def rounded(interval: Any) -> list[float]:
    """Difference of the scores of two forecasts of the same days, and its interval: 95 %, blocks of days redrawn."""
    return [round(float(value), 5) for value in interval]


def forms_of(name: str) -> tuple[str, ...]:
    """What is measured of a network: a network with the layers of another takes the same time."""
    if name in ("large", "small, taught by VAR(3) + five"):
        return "PyTorch", "bfloat16", "ONNX", "int8"
    return ("PyTorch",) if name.startswith("small") else ("PyTorch", "ONNX")


def trained_on_top(exam: Exam, members: int) -> list[nn.Module]:
    """Networks of chapter 9 on top of a VAR(3), each saying its mean alone."""

    class Mean(nn.Module):
        def __init__(self, member: nn.Module) -> None:
            super().__init__()
            self.member = member

        def forward(self, x: Tensor, operator: Any = None) -> Tensor:
            return self.member(x[:, -3:], operator)[..., :1]  # three days are all that it looks at

    path = kept(f"on top of VAR {exam.years.stop} {members}.pt")
    if not path.exists():
        options = {"members": members, "epochs": 1 if TINY else 10}
        fitted = forecasting.fit_forecaster(root_of_wind().sel(time=exam.years), None, stations(), **options)
        torch.save(list(fitted.members), path)
    return [Mean(member).eval() for member in torch.load(path, weights_only=False)]


def simple_rows(exam: Exam, wind: xr.DataArray) -> list[dict[str, Any]]:
    """The season alone, as three numbers a station, and the vector autoregression, as one matrix in NumPy."""
    nodes = wind.sizes["station"]
    day = np.array([1.0, 0.5, 0.5])
    season = np.ones((nodes, 3))
    var = baselines.fit_var(exam.z.sel(time=TRAIN), 3)
    matrix = np.ascontiguousarray(np.concatenate(list(var.coefficients), axis=1))  # (N, 3 N), the latest day first
    offset = var.intercept
    today = exam.x[:1].numpy().astype(float)

    def linear(x: np.ndarray) -> np.ndarray:
        return x[:, :-4:-1, :, 0].reshape(len(x), -1) @ matrix.T + offset

    np.save(kept("var.npy"), np.concatenate([matrix, offset[:, None]], axis=1))
    zero = np.zeros((len(exam.x), nodes))
    rows = [
        ("climatology", zero, lambda: season @ day, 3 * nodes),
        ("VAR(3)", linear(exam.x.numpy().astype(float)), lambda: linear(today), matrix.size + nodes),
    ]
    return [
        {
            "model": model,
            "form": "NumPy",
            "scores": [digits(exam.score(said), 5)],
            "windiest": [digits(exam.windiest(said), 5)],
            "parameters": count,
            "kB": 8 * count / 1e3,
            "run": run,
            "said": [exam.forecast(said)],
        }
        for model, said, run, count in rows
    ]


def row_of(name: str, form: str, members: list[nn.Module], exam: Exam, operator: Any, folder: Path) -> dict[str, Any]:
    """One line of the table: the scores of all seeds, and the first network to be timed."""
    today = exam.x[:1].contiguous()
    scores, windiest, runs, kept_said, size = [], [], [], [], 0.0
    for seed, network in enumerate(members):
        count = sum(weights.numel() for weights in (*network.parameters(), *network.buffers()))
        if form in ("ONNX", "int8"):
            path = kept(f"{state_of(network)[:16]}-{hashlib.sha256(EXPORTER.encode()).hexdigest()[:8]}.onnx")
            if not path.exists():
                deploy.to_onnx(network, today, operator, path)
            if form == "int8":
                path, exact = folder / f"{name} {seed} int8.onnx", path
                deploy.quantise(exact, exam.train, path)
            said_by_file = deploy.load_onnx(path)
            size = path.stat().st_size / 1e3
            said = all_days(said_by_file, exam.x)
            runs.append(partial(said_by_file, today))
            if seed == 0 and form == "ONNX":
                shutil.copy(path, kept(f"{name}.onnx"))
        else:
            half = form == "bfloat16"
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                said = all_days(network, exam.x, operator).float()
            runs.append(said_by(network, today, operator, half))
            size = 4 * count / 1e3
        kept_said.append(exam.forecast(said))
        scores.append(digits(exam.score(said), 5))
        windiest.append(digits(exam.windiest(said), 5))
    return {
        "model": name,
        "form": form,
        "scores": scores,
        "windiest": windiest,
        "parameters": count,
        "kB": digits(size),
        "run": runs[0],
        "said": kept_said,
    }


EXPORTER = inspect.getsource(deploy)


def kept(name: str) -> Path:
    path = CACHE / name.replace(" ", "_").replace(",", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# ---------------------------------------------------------------------------- a fresh process

START = {
    "NumPy, VAR(3)": """
import numpy as np
matrix = np.load({var!r})
np.concatenate([np.ones(33), [1]]) @ matrix.T
""",
    "ONNX Runtime, network": """
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({onnx!r}, providers=["CPUExecutionProvider"])
session.run(None, {{session.get_inputs()[0].name: np.ones((1, 9, 11, 1), np.float32)}})
""",
    "PyTorch, network": """
import torch
torch.set_num_threads(1)
from stgcn_lab.models import STGCN
network = STGCN(1, 1, 9, 1, (32, 32, 32), 2, 3, "directional", norm=False).eval()
network.load_state_dict(torch.load({weights!r}, weights_only=True))
with torch.inference_mode():
    network(torch.ones(1, 9, 11, 1), tuple(torch.eye(11) for _ in range(4)))
""",
}
# Not ru_maxrss: on Linux a process inherits that from the one that started it.
PEAK = """
import re, resource, sys
from pathlib import Path
status = Path("/proc/self/status")
if status.exists():
    print(int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1.024e-3)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))
"""


def start() -> dict[str, Any]:
    """Seconds and memory of a process that starts, makes one forecast and ends; after `table` has left its files."""
    torch.save(irish_network(LARGE).state_dict(), kept("start.pt"))
    files = {"var": kept("var.npy"), "onnx": kept("large.onnx"), "weights": kept("start.pt")}
    found = {}
    for name, code in START.items():
        code = code.format(**{key: str(path) for key, path in files.items()}) + PEAK
        seconds = []
        for _ in range(4):
            began = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            seconds.append(time.perf_counter() - began)
        # the first start reads the programs from the disk, and is left out
        found[name] = {"seconds": digits(statistics.median(seconds[1:]), 3), "MB": digits(float(done.stdout), 3)}
    return found


# ---------------------------------------------------------------------------- all of it

PARTS: dict[str, Callable[[], Any]] = {
    "machine": machine,
    "roof": roof,
    "profile": profile_step,
    "layers": layer_roof,
    "operators": operator_forms,
    "stretches": stretches,
    "precision": precision,
    "runtime": runtime,
    "threads": threads,
    "allocator": allocator,
    "compiled": compiled,
    "choice": choose,
    "table": table,
    "start": start,
}
CHILDREN: dict[str, Callable[[], Any]] = {"step": child_step}
TINY = BUSY = False


def main() -> None:
    global TINY, BUSY
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure these parts alone")
    parser.add_argument("--busy", action="store_true", help="measure processor time, on a machine that is not quiet")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the script out")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    options = parser.parse_args()
    TINY, BUSY = options.tiny, options.busy
    if "MALLOC_MMAP_MAX_" not in os.environ and not options.child:  # as make does; the allocator reads it at the start
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"MALLOC_MMAP_MAX_": "0"})
    torch.set_num_threads(THREADS)
    if options.child:
        print(json.dumps(CHILDREN[options.child]()))
        return
    path = CACHE / "tiny.json" if TINY else RESULTS
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not options.only:  # everything anew, but the choice, which is no measurement of time
        results = {"choice": results["choice"]} if "choice" in results else {}
    for name in options.only or [part for part in PARTS if part not in results]:
        began = time.perf_counter()
        results[name] = PARTS[name]()
        results.setdefault("clock", {})[name] = "processor" if BUSY else "wall"
        results.setdefault("seconds", {})[name] = digits(time.perf_counter() - began, 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(path)
        print(f"{name}: {results['seconds'][name]} s", flush=True)


if __name__ == "__main__":
    main()
