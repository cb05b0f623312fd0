"""Streamed windows are the windows of a WindowDataset, from a record that is never in memory as a whole."""

import json
import subprocess
import sys
import threading

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stgcn_lab import models, streaming, training
from stgcn_lab.streaming import StreamedWindows
from stgcn_lab.windows import Batch, Standardizer, WindowDataset, split_by_time


def record(steps: int = 300, stations: int = 4, chunk: int | None = 24, gaps: bool = True) -> xr.Dataset:
    """Hourly; three values in ten missing, all stations silent for 40 hours, and ten hours that are not on the axis."""
    rng = np.random.default_rng(steps)
    rain = rng.gamma(2.0, size=(steps, stations)).astype(np.float32)
    wind = np.sin(np.arange(steps) / 12)[:, None] + 0.1 * rng.normal(size=(steps, stations))
    times = np.arange(steps)
    if gaps:
        wind[rng.uniform(size=wind.shape) < 0.3] = np.nan
        wind[100:140] = np.nan
        times = times + 10 * (times >= 201)
    ds = xr.Dataset(
        {"wind": (("time", "station"), wind, {"units": "m s-1"}), "rain": (("station", "time"), rain.T)},
        {"time": pd.Timestamp("2000-01-01") + pd.to_timedelta(times, "h"), "station": list("abcdefgh"[:stations])},
    )
    return ds if chunk is None else ds.chunk(time=chunk)


def megabytes(ds: xr.Dataset, stretch: int, stretches: int = 1, variables: int = 1) -> float:
    """Memory that holds so many stretches of so many steps."""
    values = stretch * ds.sizes["station"] * variables
    return 1.0001 * (streaming.HELD * stretches + streaming.READ) * values / 1e6


def equal(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def everything(windows, batch_size: int = 1000, seed: int | None = None) -> Batch:
    order = None if seed is None else generator(seed)
    return Batch(*(torch.cat(parts) for parts in zip(*windows.batches(batch_size, order), strict=True)))


# ---------------------------------------------------------------------------- stretches


def test_stretches_of_a_record_in_one_pool_are_those_of_a_dataset():
    ds = record(220)
    expected = WindowDataset(ds, "wind", "wind", history=7, horizon=3)
    windows = StreamedWindows(ds, "wind", "wind", 7, 3)
    for seed in (None, 0):
        orders = [None if seed is None else generator(seed) for _ in range(2)]
        found, wanted = list(windows.batches(32, orders[0], 8)), list(expected.batches(32, orders[1], 8))
        assert len(found) == len(wanted) > 2 and all(equal(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("stretch", [2, 8, 40])
def test_stretches_from_many_pools_hold_every_window_once(stretch, seed):
    ds = record(300)
    expected = WindowDataset(ds, "wind", "wind", history=7, horizon=3)
    windows = StreamedWindows(ds, "wind", "wind", 7, 3, memory_mb=megabytes(ds, 30, 2), block=21)
    seen = set()
    for batch in windows.batches(64, None if seed is None else generator(seed), stretch):
        for b, s in batch.y_mask.flatten(2).any(dim=2).nonzero():
            parts = batch.x[b, s : s + 7], batch.y[b, s], batch.x_mask[b, s : s + 7], batch.y_mask[b, s]
            key = tuple(part.numpy().tobytes() for part in parts)
            assert key not in seen
            seen.add(key)
    assert seen == {tuple(part.numpy().tobytes() for part in window) for window in expected}


# ---------------------------------------------------------------------------- the same windows


@pytest.mark.parametrize("chunk", [24, 7, None])
@pytest.mark.parametrize("block", [3, 10, 31])  # shorter than a window, as long, longer
@pytest.mark.parametrize(
    ("inputs", "targets", "variables"), [("wind", "wind", 1), (["rain", "wind"], "wind", 2), ("rain", ["wind"], 2)]
)
def test_in_order_of_time_all_is_equal_to_the_bit(chunk, block, inputs, targets, variables):
    ds = record(220, chunk=chunk)
    expected = WindowDataset(ds, inputs, targets, history=7, horizon=3)
    memory = megabytes(ds, block + 9, 2, variables)
    windows = StreamedWindows(ds, inputs, targets, 7, 3, memory_mb=memory, block=block)
    assert len(windows._plan(None)) > 3, "more than one pool, or nothing is tested"
    found, wanted = list(windows.batches(32)), list(expected.batches(32))
    assert len(found) == len(wanted)
    assert all(equal(*pair) for pair in zip(found, wanted, strict=True))
    assert len(windows) == len(expected)
    assert torch.equal(windows.starts, expected.starts)
    assert np.array_equal(windows.times, expected.times)


@pytest.mark.parametrize("block", [2, 10, 31])
def test_shuffled_each_window_comes_once(block):
    ds = record(220)
    expected = WindowDataset(ds, ["wind", "rain"], "wind", 7, 3)
    windows = StreamedWindows(ds, ["wind", "rain"], "wind", 7, 3, memory_mb=megabytes(ds, block + 9, 3, 2), block=block)
    assert len(windows._plan(generator())) > 2
    batches = list(windows.batches(32, generator()))
    assert [len(batch.x) for batch in batches[:-1]] == [32] * (len(expected) // 32), "pools do not cut batches short"
    found = Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    ordered = everything(expected)

    def rows(batch):  # every window as one row of bytes
        return sorted(b"".join(t[i].numpy().tobytes() for t in batch) for i in range(len(batch.x)))

    assert rows(found) == rows(ordered)
    assert not torch.equal(found.x, ordered.x)
    again = everything(windows, 32, seed=0)
    assert equal(found, again), "the generator alone decides the order"
    assert not torch.equal(found.x, everything(windows, 32, seed=1).x)


def test_stretches_come_in_random_order_and_are_mixed_within_a_pool():
    steps = 4000
    values = np.arange(steps, dtype=np.float32)[:, None]
    ds = xr.Dataset(
        {"step": (("time", "station"), values)},
        {"time": pd.date_range("2000", periods=steps, freq="h"), "station": ["a"]},
    ).chunk(time=50)
    windows = StreamedWindows(ds, "step", "step", 4, 1, memory_mb=megabytes(ds, 54, 8), block=50)
    starts = everything(windows, 32, seed=0).x[:, 0, 0, 0].numpy()
    pool = starts[: 8 * 50]
    assert len(set(pool // 50)) == 8, "a pool of eight stretches"
    assert pool.max() - pool.min() > steps / 2, "from all over the record"
    assert abs(np.corrcoef(pool[:-1], pool[1:])[0, 1]) < 0.2, "mixed: one window says nothing of the next"


def test_a_record_that_fits_is_read_once_and_shuffled_as_a_window_dataset_is():
    ds = record()
    reads = counted(ds)
    windows = StreamedWindows(reads.ds, "wind", "wind", 7, 3)
    expected = WindowDataset(ds, "wind", "wind", 7, 3)
    ours, theirs = generator(3), generator(3)
    for _ in range(3):
        assert equal(*(everything_of(w.batches(32, g)) for w, g in ((windows, ours), (expected, theirs))))
    assert torch.equal(ours.get_state(), theirs.get_state())
    assert reads.count == 13, "300 steps in chunks of 24, each of them once"


def everything_of(batches) -> Batch:
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


class counted:
    """The wind of a record as a lazy array that counts the chunks that are computed."""

    def __init__(self, ds: xr.Dataset) -> None:
        self.count, self._lock = 0, threading.Lock()

        def seen(block: np.ndarray) -> np.ndarray:
            with self._lock:
                self.count += 1
            return block

        wind = ds["wind"].copy(data=ds["wind"].data.map_blocks(seen, dtype=float, meta=np.empty((0, 0))))
        self.ds = wind.to_dataset(name="wind")


def test_what_is_read():
    ds = record(480, gaps=False)
    reads = counted(ds)
    memory = megabytes(ds, 33, 2)
    windows = StreamedWindows(reads.ds, "wind", "wind", 7, 3, memory_mb=memory, block=24)
    assert reads.count == 0, "nothing before it is asked for"
    first = next(windows.batches(4, generator()))
    assert len(first.x) == 4
    assert reads.count <= 2 * 4, "two pools of two stretches, each of which ends in the next chunk"
    reads.count = 0
    for _ in windows.batches(32, generator()):
        pass
    assert reads.count == 2 * 20 - 1, "each chunk, and the one into which its last windows reach"
    reads.count = 0
    assert len(windows) == 480 - 9
    assert reads.count == 0, "an epoch has shown where targets are missing"


def test_an_iterator_left_early_leaves_no_thread():
    ds = record(480)
    for _ in StreamedWindows(ds, "wind", "wind", 7, 3, memory_mb=megabytes(ds, 33, 1), block=24).batches(4):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_an_error_while_reading_ahead_arrives():
    ds = record(480)

    def broken(block: np.ndarray) -> np.ndarray:
        raise OSError("the disk is gone")

    wind = ds["wind"].copy(data=ds["wind"].data.map_blocks(broken, dtype=float, meta=np.empty((0, 0))))
    windows = StreamedWindows(wind.to_dataset(name="wind"), "wind", "wind", 7, 3, memory_mb=megabytes(ds, 33), block=24)
    with pytest.raises(OSError, match="the disk is gone"):
        next(windows.batches(4))


@settings(max_examples=15)
@given(
    steps=st.integers(20, 120), block=st.integers(1, 40), stretches=st.integers(1, 4), history=st.integers(1, 8),
    horizon=st.integers(1, 4), chunk=st.integers(1, 50), batch_size=st.integers(1, 40),
)  # fmt: skip
def test_any_sizes_give_the_same_windows(steps, block, stretches, history, horizon, chunk, batch_size):
    ds = record(steps, 2, chunk, gaps=False)
    ds["wind"] = ds["wind"].where(np.random.default_rng(0).uniform(size=ds["wind"].shape) < 0.3)
    expected = WindowDataset(ds, "wind", "wind", history, horizon)
    memory = max(megabytes(ds, block + history + horizon - 1, stretches), 1e-6 * chunk * 2 * 8)
    windows = StreamedWindows(ds, "wind", "wind", history, horizon, memory_mb=memory, block=block)
    assert equal(everything(windows, batch_size), everything(expected, batch_size))
    shuffled = everything(windows, batch_size, seed=0)
    assert len(shuffled.x) == len(expected)
    assert torch.allclose(shuffled.x.double().sum(), everything(expected).x.double().sum())


# ---------------------------------------------------------------------------- standardising


@pytest.mark.parametrize("per_station", [True, False])
@pytest.mark.parametrize("chunk", [24, None])
def test_standardised_as_it_is_read(per_station, chunk):
    ds = record(chunk=chunk)
    standardizer = Standardizer(per_station).fit(ds.isel(time=slice(0, 200)))
    expected = WindowDataset(standardizer.transform(ds), ["rain", "wind"], "wind", 7, 3)
    options = {"memory_mb": megabytes(ds, 33, 2, 2), "block": 24}
    for windows in (
        StreamedWindows(ds, ["rain", "wind"], "wind", 7, 3, standardizer=standardizer, **options),
        StreamedWindows(standardizer.transform(ds), ["rain", "wind"], "wind", 7, 3, **options),
    ):
        assert equal(everything(windows), everything(expected))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # dask divides by the number of values, none
@pytest.mark.parametrize("per_station", [True, False])
def test_a_standardizer_learns_from_a_lazy_record_in_one_pass(per_station):
    ds = record()[["wind"]]
    reads = counted(ds)
    lazy = Standardizer(per_station).fit(reads.ds)
    assert reads.count == 13, "each chunk once, for mean, deviation and the check that there are values"
    eager = Standardizer(per_station).fit(ds.load())
    for name in ("mean", "std"):
        found = getattr(lazy, name)
        assert found.chunks == {} and isinstance(found["wind"].data, (np.ndarray, np.floating))
        xr.testing.assert_allclose(found, getattr(eager, name), rtol=1e-12)
        assert found["wind"].attrs == getattr(eager, name)["wind"].attrs
    assert lazy.transform(reads.ds).chunks, "a lazy record stays lazy"
    array = Standardizer(per_station).fit(reads.ds["wind"])
    xr.testing.assert_equal(array.mean, lazy.mean["wind"].rename("wind"))
    both, differently = record(), record().assign(rain=record(chunk=50)["rain"])
    xr.testing.assert_allclose(*(Standardizer(per_station).fit(ds).mean for ds in (both, differently)))
    with pytest.raises(ValueError, match="'wind' all missing"):
        Standardizer(per_station).fit(reads.ds.where(False))


# ---------------------------------------------------------------------------- training


def losses(train, validation, **options) -> training.History:
    torch.manual_seed(0)
    network = models.STGCN(1, 1, history=8, horizon=1, channels=(8, 4, 8), blocks=1)
    return training.fit(network, train, validation, operator=torch.eye(4), epochs=4, progress=False, **options)


def test_training_on_streamed_windows():
    ds = record(1200)
    parts = split_by_time(ds, ("2000-01-01", "2000-01-31"), ("2000-02-01", "2000-02-28"))
    standardizer = Standardizer().fit(parts.train[["wind"]])
    plain = [WindowDataset(standardizer.transform(part[["wind"]]), "wind", "wind", 8, 1) for part in parts[:2]]

    def streamed(**options):
        return [
            StreamedWindows(part[["wind"]], "wind", "wind", 8, 1, standardizer=standardizer, **options)
            for part in parts[:2]
        ]

    expected = losses(*plain)
    kept = losses(*streamed())
    assert kept.train_loss == expected.train_loss, "the record fits: the same windows in the same order, to the bit"
    assert kept.validation_loss == expected.validation_loss
    # In a pool of a ninth of the record the order is another one, so the losses are near, not equal.
    small = losses(*streamed(memory_mb=megabytes(ds, 31, 3), block=24))
    assert small.train_loss != expected.train_loss
    np.testing.assert_allclose(small.validation_loss[-1], expected.validation_loss[-1], rtol=0.05)


def test_training_on_streamed_windows_goes_on_where_it_was_stopped(tmp_path):
    ds = record(900)[["wind"]]

    def windows():
        return StreamedWindows(ds, "wind", "wind", 8, 1, memory_mb=megabytes(ds, 31, 3), block=24)

    whole = losses(windows(), None)

    class Stopped(Exception):
        pass

    class Until:
        """Windows that fail in the third epoch, after a few batches."""

        def __init__(self) -> None:
            self.windows, self.epochs = windows(), 0

        def batches(self, batch_size, generator=None):
            self.epochs += 1
            for number, batch in enumerate(self.windows.batches(batch_size, generator)):
                if self.epochs == 3 and number == 4:
                    raise Stopped
                yield batch

    path = tmp_path / "run.pt"
    with pytest.raises(Stopped):
        losses(Until(), None, checkpoint=path)
    resumed = losses(windows(), None, checkpoint=path, resume=True)
    assert resumed.train_loss == whole.train_loss


# ---------------------------------------------------------------------------- memory

HUNDRED_GIGABYTES = """
import json, resource, sys
import dask.array as da, numpy as np, pandas as pd, torch, xarray as xr
from stgcn_lab.streaming import StreamedWindows

torch.set_num_threads(1)
steps, stations = 2_500_000, 10_000

def chunk(block_info=None):
    (first, last), (left, right) = block_info[None]["array-location"]
    return np.arange(first, last, dtype=np.float32)[:, None] + np.zeros(right - left, np.float32)

values = da.map_blocks(chunk, chunks=((250,) * (steps // 250), stations), dtype=np.float32, meta=np.empty((0, 0), "f4"))
times = pd.date_range("1750-01-01", periods=steps, freq="h", unit="s")
ds = xr.Dataset({"value": (("time", "station"), values)}, {"time": times, "station": np.arange(stations)})
windows = StreamedWindows(ds, "value", "value", 6, 1, memory_mb=200, block=250)
count, firsts = 0, []
for batch in windows.batches(8, torch.Generator().manual_seed(0)):
    assert torch.equal(batch.x[:, 0, 0] + 6, batch.y[:, 0, 0])
    count += len(batch.x)
    firsts.append(float(batch.x[0, 0, 0, 0]))
    if count >= 2_500:
        break
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
span = max(firsts) - min(firsts)
print(json.dumps({"gigabytes": ds["value"].nbytes / 1e9, "windows": count, "peak": peak, "span": span}))
"""


def test_a_hundred_gigabytes_stream_through_two():
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", HUNDRED_GIGABYTES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["gigabytes"] >= 100
    assert found["windows"] >= 2500, "more than one pool of six stretches of 250 has passed"
    assert found["span"] > 1_000_000, "from all over it"
    assert found["peak"] < 2000, "megabytes at most, Python and PyTorch included"


def test_memory_is_what_was_allowed():
    """The pools are the two arrays that count; what they take is what the sizes promise."""
    ds = record(4000, gaps=False)
    for memory in (0.05, 0.2, 0.5):
        windows = StreamedWindows(ds, "wind", "wind", 6, 2, memory_mb=memory)
        steps = windows._stretches * (windows._block + 7)
        held = steps * 4 * streaming.HELD + (windows._block + 7) * 4 * streaming.READ
        assert 0.5 * memory < held / 1e6 <= memory
        assert windows._stretches >= 1 and windows._block >= 8


def test_a_stretch_is_a_multiple_of_the_chunks():
    ds = record(4000, gaps=False)
    for memory in (0.05, 0.2):
        windows = StreamedWindows(ds, "wind", "wind", 6, 2, memory_mb=memory)
        assert windows._block % 24 == 0 or windows._block < 24


# ---------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("change", "options", "error", "parts"),
    [
        (lambda ds: ds["wind"], {}, TypeError, ["ds", "Dataset", "DataArray"]),
        (lambda ds: ds.rename(time="day"), {}, ValueError, ["ds", "'time'"]),
        (lambda ds: ds.isel(time=slice(None, None, -1)), {}, ValueError, ["ds", "rising order"]),
        (lambda ds: ds.isel(time=slice(0, 0)), {}, ValueError, ["ds", "at least one time"]),
        (lambda ds: ds.isel(time=slice(0, 9)), {}, ValueError, ["ds", "at least 10 time steps", "found 9"]),
        (lambda ds: ds.isel(station=slice(0, 0)), {}, ValueError, ["inputs", "at least one station"]),
        (lambda ds: ds.rename(station="place"), {}, ValueError, ["inputs", "(time, station)", "place"]),
        (lambda ds: ds.isel(time=[*range(5), *range(50, 55), *range(100, 105)]), {}, ValueError, ["ds", "gap"]),
        (lambda ds: ds, {"inputs": "snow"}, ValueError, ["inputs", "snow", "rain"]),
        (lambda ds: ds, {"targets": []}, ValueError, ["targets", "at least one"]),
        (lambda ds: ds, {"history": 0}, ValueError, ["history", "at least 1"]),
        (lambda ds: ds, {"horizon": 1.5}, ValueError, ["horizon", "1.5"]),
        (lambda ds: ds, {"block": 0}, ValueError, ["block", "at least 1"]),
        (lambda ds: ds, {"memory_mb": 0}, ValueError, ["memory_mb", "above 0"]),
        (lambda ds: ds, {"memory_mb": "much"}, ValueError, ["memory_mb", "much"]),
        (lambda ds: ds, {"memory_mb": 1e-3}, ValueError, ["memory_mb", "at least 0.00198", "stretch of 19", "0.001"]),
        (lambda ds: ds, {"block": 200, "memory_mb": 0.01}, ValueError, ["memory_mb", "stretch of 209 steps"]),
        (lambda ds: ds.chunk(time=300), {"memory_mb": 5e-3}, ValueError, ["memory_mb", "0.0096", "chunk", "0.005"]),
        (lambda ds: ds, {"standardizer": 3.0}, TypeError, ["standardizer", "Standardizer", "float"]),
        (lambda ds: ds, {"standardizer": Standardizer()}, ValueError, ["call fit"]),
        (lambda ds: ds, {"standardizer": Standardizer().fit(record()[["rain"]])}, ValueError, ["variables of the fit"]),
        (lambda ds: ds, {"standardizer": Standardizer().fit(record(stations=3))}, ValueError, ["station of the fit"]),
    ],
)  # fmt: skip
def test_errors_are_clear(change, options, error, parts):
    arguments = {"inputs": "wind", "targets": "wind", "history": 7, "horizon": 3} | options
    with pytest.raises(error) as raised:
        StreamedWindows(change(record()), **arguments)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


@pytest.mark.parametrize("memory_mb", [256, 0.01])
def test_a_record_without_a_single_target_is_an_error_when_it_is_read(memory_mb):
    ds = record().assign(wind=record()["wind"].where(False))
    windows = StreamedWindows(ds, "rain", "wind", 7, 3, memory_mb=memory_mb)
    with pytest.raises(ValueError, match="observed target"):
        list(windows.batches(8))
    with pytest.raises(ValueError, match="observed target"):
        len(windows)


@pytest.mark.parametrize("batch_size", [0, 2.5, True])
def test_batch_size_is_a_whole_number(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        next(StreamedWindows(record(), "wind", "wind", 7, 3).batches(batch_size))


def test_numbers_of_any_kind_become_float32():
    steps = 60
    numbers = {
        "bytes": np.arange(steps, dtype=">f4"),  # as old NetCDF files hold them
        "whole": np.arange(steps, dtype=np.int16),
        "flags": np.arange(steps) % 2 == 0,
        "double": np.where(np.arange(steps) % 7 == 0, np.inf, np.arange(steps) / 3),
    }
    ds = xr.Dataset(
        {name: (("time", "station"), values[:, None]) for name, values in numbers.items()},
        {"time": pd.date_range("2000", periods=steps, freq="h"), "station": ["a"]},
    )
    for given_ds in (ds, ds.chunk(time=9)):
        windows = StreamedWindows(given_ds, list(numbers), "whole", 4, 2, memory_mb=megabytes(ds, 10, 1, 4), block=5)
        assert equal(everything(windows), everything(WindowDataset(ds, list(numbers), "whole", 4, 2)))


def test_a_lazy_record_is_not_loaded_by_looking_at_it():
    ds = record(chunk=24)
    StreamedWindows(ds, "wind", "wind", 7, 3)
    assert isinstance(ds["wind"].data, da.Array)
