"""A record larger than memory, a store behind http, two processes, a run that is killed: what it costs and keeps.

    python benchmarks/scale.py

Four parts, each in processes of its own. `virtual`: a hundred gigabytes that are computed when they are read, passed
through once in full, then as shuffled training windows for a stated share. `http`: hourly fields in a zarr store with
the layout of the public ERA5 archives, made here, served on this machine, read lazily, trained on in memory and
streamed. `processes`: the same training in one process and in two. `killed`: a streamed training killed in the middle
of an epoch (SIGKILL), resumed, and compared with one that ran through. Writes scale.json beside this file; `--only
PART` repeats one part and leaves the others as stored. Seconds are those of the machine as it was, other work included.
"""

import argparse
import functools
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import dask.array as da
import numpy as np
import pandas as pd
import torch
import xarray as xr

from stgcn_lab import datasets, graphs, models, streaming, training, windows

RESULTS = Path(__file__).with_suffix(".json")
torch.set_num_threads(1)


def peak_mb():
    """Megabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


class Clock:
    def __init__(self):
        self.began, self.cpu = time.perf_counter(), time.process_time()

    def read(self):
        return {"seconds": time.perf_counter() - self.began, "cpu_seconds": time.process_time() - self.cpu}


# ---------------------------------------------------------------------------- a hundred gigabytes

# 86 years of hours at as many cells as Europe has on a grid of a quarter degree: 100 GB as float32.
HOURS, CELLS, CHUNK = 753_000, 33_200, 72
MEMORY_MB, LIMIT_MB = 800, 2000
HISTORY, HORIZON, BATCH = 12, 1, 32
WINDOW_SECONDS = 40


def virtual_record(count):
    """One variable (time, station) of waves that travel; ``count`` is told the bytes of each chunk made."""

    def chunk(block_info=None):
        first, last = block_info[None]["array-location"][0]
        count(4 * (last - first) * CELLS)
        hours = np.arange(first, last)
        wave = np.sin(2 * np.pi * hours / 24).astype(np.float32)
        return np.add.outer(wave, np.linspace(-1, 1, CELLS, dtype=np.float32))

    lengths = (CHUNK,) * (HOURS // CHUNK) + ((HOURS % CHUNK,) if HOURS % CHUNK else ())
    values = da.map_blocks(chunk, chunks=(lengths, CELLS), dtype=np.float32, meta=np.empty((0, 0), np.float32))
    times = pd.date_range("1940-01-01", periods=HOURS, freq="h")
    return xr.Dataset({"value": (("time", "station"), values)}, {"time": times, "station": np.arange(CELLS)})


def virtual():
    made, peaks, before = 0, {}, peak_mb()
    lock = threading.Lock()

    def count(size):
        nonlocal made
        with lock:
            made += size
        share = made / ds.nbytes
        for mark in (0.01, 0.1, 0.5):
            if share >= mark:
                peaks.setdefault(mark, peak_mb())

    ds = virtual_record(count)
    options = {"memory_mb": MEMORY_MB}
    stream = streaming.StreamedWindows(ds, "value", "value", HISTORY, HORIZON, **options)
    clock = Clock()
    number = len(stream)  # asks where targets are missing, so everything is read once
    full = clock.read()
    full |= {"gigabytes": made / 1e9, "mb_per_s": made / 1e6 / full["seconds"], "peak_mb": peak_mb(), "windows": number}
    full["peak_mb_at"] = [[share, value] for share, value in peaks.items()] + [[1.0, peak_mb()]]

    made, seen = 0, 0
    clock = Clock()
    for batch in stream.batches(BATCH, torch.Generator().manual_seed(0)):
        seen += len(batch.x)
        if clock.read()["seconds"] > WINDOW_SECONDS:
            break
    shuffled = clock.read()
    window_mb = CELLS * (HISTORY + HORIZON) * 4 / 1e6
    shuffled |= {
        "windows": seen,
        "share": seen / number,
        "windows_per_s": seen / shuffled["seconds"],
        "handed_out_mb_per_s": seen * window_mb / shuffled["seconds"],
        "read_gigabytes": made / 1e9,
        "peak_mb": peak_mb(),
    }
    return {
        "gigabytes": ds["value"].nbytes / 1e9,
        "steps": HOURS,
        "stations": CELLS,
        "chunk_steps": CHUNK,
        "history": HISTORY,
        "horizon": HORIZON,
        "batch_size": BATCH,
        "memory_mb": MEMORY_MB,
        "limit_mb": LIMIT_MB,
        "import_mb": before,
        "full": full,
        "shuffled": shuffled,
    }


# ---------------------------------------------------------------------------- a store behind http

DAYS, VALIDATION_DAYS = 30, 8
EUROPE = (27.5, 72.5, -15, 60)  # 589 cells of 2.5 degrees, as in load_reanalysis
EPOCHS = 3
SMALL_MB = 3.5  # eight stretches of two days at 589 cells
FAR = 0.03  # seconds that a request takes over a real network, about


def write_store(path):
    """Waves that travel eastwards over a globe of 2.5 degrees with the day, and noise; a chunk an hour."""
    rng = np.random.default_rng(0)
    lat, lon = np.arange(90, -90.1, -2.5), np.arange(0, 360, 2.5)
    hours = np.arange(24 * (DAYS + VALIDATION_DAYS))[:, None, None]
    north, east = lat[:, None], np.deg2rad(lon)
    warm = 288 - 0.4 * np.abs(north) + 6 * np.sin(2 * np.pi * hours / 24 + east)
    weather = sum(4 * np.sin(k * east - 2 * np.pi * hours / period + north / 20) for k, period in ((5, 61), (8, 97)))
    noise = rng.normal(size=(hours.size, lat.size, lon.size))
    fields = {"2m_temperature": (warm + weather + noise, "K"), "10m_u_component_of_wind": (weather + noise, "m s**-1")}
    dims = ("time", "latitude", "longitude")
    ds = xr.Dataset(
        {name: (dims, values.astype(np.float32), {"units": units}) for name, (values, units) in fields.items()},
        {"time": pd.date_range("2019-01-01", periods=hours.size, freq="h"), "latitude": lat, "longitude": lon},
    )
    ds.to_zarr(path, zarr_format=2, consolidated=True, encoding={name: {"chunks": (1, 73, 144)} for name in fields})
    return ds.nbytes / 1e6


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder, after a delay; each request leaves a line in a file."""

    protocol_version = "HTTP/1.1"
    delay, log = 0.0, None

    def do_GET(self):
        time.sleep(self.delay)
        with open(self.log, "a") as file:
            file.write(self.path + "\n")
        super().do_GET()

    def log_message(self, *_):
        pass


def serve(folder, log, delay):
    Handler.log, Handler.delay = log, float(delay)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    print(server.server_port, flush=True)
    server.serve_forever()


class Served:
    """The store, served by a process of its own; ``requests()`` counts since it was last asked."""

    def __init__(self, folder, delay=0.0):
        self.log = Path(folder) / f"requests-{delay}"
        self.log.touch()
        arguments = [sys.executable, __file__, "--serve", folder, str(self.log), str(delay)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/era5.zarr"
        self.counted = 0

    def requests(self):
        lines = len(self.log.read_text().splitlines())
        self.counted, new = lines, lines - self.counted
        return new

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class Watched:
    """Windows that note, epoch by epoch, the seconds spent waiting for them and the requests that they made."""

    def __init__(self, inner, requests):
        self.inner, self.requests = inner, requests
        self.waited, self.asked = [], []

    def batches(self, batch_size, generator=None):
        self.requests()
        waited, iterator = 0.0, self.inner.batches(batch_size, generator)
        while True:
            began = time.perf_counter()
            batch = next(iterator, None)
            waited += time.perf_counter() - began
            if batch is None:
                break
            yield batch
        self.waited.append(waited)
        self.asked.append(self.requests())


def parts_of(store):
    """Training and validation part, lazy, as (time, station), and what standardises them."""
    field = datasets.open_era5(store, "2m_temperature", EUROPE)
    nodes = datasets.grid_to_nodes(field)
    end = 24 * DAYS
    return nodes.isel(time=slice(0, end)), nodes.isel(time=slice(end, None)), field


def trained(train, validation, field, epochs=EPOCHS, **options):
    graph = graphs.grid_graph(field["lat"].values, field["lon"].values)
    torch.manual_seed(0)
    network = models.STGCN(1, 1, HISTORY, HORIZON, channels=(8, 4, 8), blocks=1)
    operator = graphs.gcn_operator(graph)
    history = training.fit(
        network, train, validation, operator=operator, epochs=epochs, patience=epochs, progress=False, **options
    )
    return history, network


def http():
    with tempfile.TemporaryDirectory() as folder:
        megabytes = write_store(Path(folder) / "era5.zarr")
        with Served(folder) as near:
            clock = Clock()
            field = datasets.open_era5(near.url, "2m_temperature", EUROPE)
            opened = clock.read()["seconds"]
            found = {"megabytes": megabytes, "hours": field.sizes["time"], "cells": 73 * 144}
            found |= {"region_cells": field.sizes["lat"] * field.sizes["lon"], "memory_mb": SMALL_MB}
            found["open"] = {"seconds": opened, "requests": near.requests()}
            field["air_temperature"].isel(time=slice(0, 1)).compute()  # what is imported and connected only once
            near.requests()
            clock = Clock()
            field["air_temperature"].isel(time=slice(240, 264)).compute()
            found["first_read"] = {"hours": 24, "seconds": clock.read()["seconds"], "requests": near.requests()}

            train, validation, _ = parts_of(near.url)
            near.requests()
            clock = Clock()
            standardizer = windows.Standardizer().fit(train)
            found["standardizer"] = {"seconds": clock.read()["seconds"], "requests": near.requests()}
            clock = Clock()
            loaded = [standardizer.transform(part.load()) for part in (train.copy(), validation.copy())]
            found["load"] = {"seconds": clock.read()["seconds"], "requests": near.requests()}

            def run(one, two, served):
                one, two = Watched(one, served.requests), Watched(two, served.requests)
                history, _ = trained(one, two, field)
                row = {"train_loss": history.train_loss, "validation_loss": history.validation_loss}
                row |= {"epoch_seconds": history.seconds / EPOCHS, "waited_seconds": one.waited, "requests": one.asked}
                return row

            def streamed(part, memory):
                options = {"memory_mb": memory, "standardizer": standardizer}
                return streaming.StreamedWindows(part, *variable, HISTORY, HORIZON, **options)

            variable = ("air_temperature", "air_temperature")
            plain = [windows.WindowDataset(part, *variable, HISTORY, HORIZON) for part in loaded]
            rows = {"in memory": run(*plain, near)}
            train, validation, _ = parts_of(near.url)
            rows["streamed, kept"] = run(streamed(train, 256), streamed(validation, 256), near)
            rows["streamed"] = run(streamed(train, SMALL_MB), streamed(validation, SMALL_MB), near)
        with Served(folder, FAR) as far:
            train, validation, _ = parts_of(far.url)
            row = run(streamed(train, SMALL_MB), streamed(validation, SMALL_MB), far)
            rows[f"streamed, {1000 * FAR:.0f} ms a request"] = row
        found["training"] = rows
    found["kept_is_equal"] = all(
        rows["in memory"][key] == rows["streamed, kept"][key] for key in ("train_loss", "validation_loss")
    )
    return found


# ---------------------------------------------------------------------------- one process and two

PROCESS_EPOCHS, REPEATS = 5, 3
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def work(kind, result, *more):
    """What a started process does: train on the reanalysis of Europe, or on the store with a checkpoint."""
    if kind == "reanalysis":
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator="cpu", devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        fabric.launch()
        air = datasets.load_reanalysis("europe")
        parts = windows.split_by_time(datasets.grid_to_nodes(air), ("1948", "1985"), ("1986", "1995"))
        train, validation = parts.train, parts.validation
        month = train.groupby("time.month")
        season, spread = month.mean(), month.std()
        anomalies = [
            ((part.groupby("time.month") - season).groupby("time.month") / spread).drop_vars("month")
            for part in (train, validation)
        ]
        variable = ("air_temperature", "air_temperature")
        one, two = (windows.WindowDataset(part, *variable, HISTORY, HORIZON) for part in anomalies)
        runs = [trained(one, two, air, PROCESS_EPOCHS, fabric=fabric) for _ in range(REPEATS)]
        history, network = min(runs, key=lambda run: run[0].seconds)  # the one that other work disturbed least
        if not fabric.is_global_zero:
            return
    else:
        store, checkpoint = more
        train, validation, field = parts_of(store)
        standardizer = windows.Standardizer().fit(train)
        one, two = (
            streaming.StreamedWindows(
                part, *["air_temperature"] * 2, HISTORY, HORIZON, memory_mb=SMALL_MB, standardizer=standardizer
            )
            for part in (train, validation)
        )
        history, network = trained(one, two, field, PROCESS_EPOCHS, checkpoint=checkpoint, resume=True)
    weights = {key: value.tolist() for key, value in network.state_dict().items()}
    row = {"train_loss": history.train_loss, "validation_loss": history.validation_loss, "seconds": history.seconds}
    Path(result).write_text(json.dumps(row | {"weights": weights}))


def furthest(one, two):
    """The largest relative difference of two runs' losses."""
    pairs = [(one[key], two[key]) for key in ("train_loss", "validation_loss")]
    return max(float(np.max(np.abs(np.array(b) / np.array(a) - 1))) for a, b in pairs)


def processes():
    with tempfile.TemporaryDirectory() as folder:
        rows = {}
        for name, start in (("one", []), ("two", TORCHRUN)):
            result = f"{folder}/{name}.json"
            subprocess.run([sys.executable, *start, __file__, "--work", "reanalysis", result], check=True)
            rows[name] = json.loads(Path(result).read_text())
            del rows[name]["weights"]
    return rows | {
        "epochs": PROCESS_EPOCHS,
        "stations": 589,
        "largest_relative_difference": furthest(rows["one"], rows["two"]),
        "speedup": rows["one"]["seconds"] / rows["two"]["seconds"],
    }


# ---------------------------------------------------------------------------- killed and resumed


def killed():
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "era5.zarr")

        def command(name):
            files = [f"{folder}/{name}.json", f"{folder}/era5.zarr", f"{folder}/{name}.pt"]
            return [sys.executable, __file__, "--work", "store", *files]

        subprocess.run(command("whole"), check=True)
        whole = json.loads(Path(f"{folder}/whole.json").read_text())
        checkpoint = Path(f"{folder}/broken.pt")
        process = subprocess.Popen(command("broken"))
        done = 0
        while done < 2:  # the checkpoint is replaced at once, so it can be read at any time
            time.sleep(0.05)
            if checkpoint.exists():
                done = len(torch.load(checkpoint, weights_only=True)["history"]["train_loss"])
        time.sleep(0.5 * whole["seconds"] / PROCESS_EPOCHS)  # about the middle of the next epoch
        process.send_signal(signal.SIGKILL)
        status = process.wait()
        kept = len(torch.load(checkpoint, weights_only=True)["history"]["train_loss"])
        subprocess.run(command("broken"), check=True)
        resumed = json.loads(Path(f"{folder}/broken.json").read_text())
    weights = whole.pop("weights") == resumed.pop("weights")
    losses = all(whole[key] == resumed[key] for key in ("train_loss", "validation_loss"))
    return {
        "epochs": PROCESS_EPOCHS,
        "exit_status": status,
        "epochs_kept": kept,
        "whole": whole,
        "resumed": resumed,
        "losses_equal": losses,
        "weights_equal": weights,
        "largest_relative_difference": furthest(whole, resumed),
    }


# ---------------------------------------------------------------------------- all of it

PARTS = {"virtual": virtual, "http": http, "processes": processes, "killed": killed}


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="repeat this part alone")
    for hidden in ("--part", "--serve", "--work"):
        parser.add_argument(hidden, nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
    elif given.work:
        work(*given.work)
    elif given.part:
        name, result = given.part
        Path(result).write_text(json.dumps(rounded(PARTS[name]())))
    else:
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if given.only else {}
        results["machine"] = {
            "cores": os.cpu_count(),
            "threads": 1,
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        for name in [given.only] if given.only else PARTS:
            began = time.perf_counter()
            with tempfile.NamedTemporaryFile("r") as file:  # a process of its own: its peak of memory is its alone
                subprocess.run([sys.executable, __file__, "--part", name, file.name], check=True)
                results[name] = json.loads(Path(file.name).read_text())
            print(f"{name}: {time.perf_counter() - began:.0f} s")
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
