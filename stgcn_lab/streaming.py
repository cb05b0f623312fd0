"""Windows from a record larger than memory: read in stretches, shuffled in a pool, forgotten again.

A record of a hundred gigabytes cannot be loaded, and reading one window here and one there would fetch a whole chunk
of the store for each. So stretches of consecutive steps are read, in random order; a few of them make a pool, in
which all windows are shuffled; while a network trains on one pool, a thread reads the next.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ._checks import number, whole_number
from .windows import Batch, Standardizer, _check_time, _check_variables, _names, _steps, _stretches, _whole_windows

POOL = 8  # stretches that are shuffled together, where the caller leaves it to us
HELD, READ = (
    2 * (4 + 1),
    16,
)  # bytes of a value: in two pools, with masks; while read, as float64, and once more in dask

Spans = list[tuple[int, int]]  # ranges of the steps at which windows begin, ends excluded
Pool = tuple[Tensor, Tensor, Tensor]  # values and mask (steps, N, variables), and where in them windows begin


class StreamedWindows:
    """All windows of a record that need not fit into memory; to be trained on like a ``WindowDataset``.

    The windows are the same as there: none reaches over a gap in the time axis, and one whose targets are all missing
    is left out. In order of time the batches are equal to the bit. Shuffled, each window comes once an epoch, from
    stretches in random order, and neighbours within the pool of about eight stretches are mixed; that is less random
    than a shuffle of the whole record, and does not matter where a pool holds many stretches or each holds little of
    a season. A record that fits into one pool is kept: the batches are then the very same as a ``WindowDataset``'s.

    Args:
        ds: Dataset with dims (time, station), lazy (dask) or not.
        inputs, targets: names of the variables to look at and to predict.
        history, horizon: past and future steps in a window.
        memory_mb: megabytes (10^6 bytes) that pools and reading may take together, beside the batch handed out; a
            chunk of the store, once for each thread of dask, comes on top of it.
        block: windows that begin in one stretch; what reaches over its end is read twice, so many times a window's
            length is best, and a multiple of the store's chunks. None takes the longest with a pool of eight.
        standardizer: fitted on the same variables; each stretch is standardised as it is read.

    Attributes:
        starts: (windows,) index of each window's first step.
        times: (windows, horizon) the times that each window predicts.

    ``starts``, ``times`` and ``len()`` need to know where targets are missing: asked for before the first epoch, they
    read the record once.

    Raises:
        TypeError, ValueError: as for ``WindowDataset``; a standardizer of other variables or stations; a memory too
            small for one stretch or one chunk.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        inputs: str | Sequence[str],
        targets: str | Sequence[str],
        history: int,
        horizon: int,
        *,
        memory_mb: float = 256,
        block: int | None = None,
        standardizer: Standardizer | None = None,
    ) -> None:
        if not isinstance(ds, xr.Dataset):
            raise TypeError(f"ds: expected an xarray Dataset, found {type(ds).__name__}")
        _check_time(ds, "ds")
        self.history, self.horizon = whole_number(history, "history"), whole_number(horizon, "horizon")
        self.inputs, self.targets = _names(inputs, "inputs"), _names(targets, "targets")
        _check_variables(ds, self.inputs, "inputs")
        _check_variables(ds, self.targets, "targets")
        if standardizer is not None:
            if not isinstance(standardizer, Standardizer):
                raise TypeError(f"standardizer: expected a Standardizer, found {type(standardizer).__name__}")
            mean, std = standardizer._fitted_to(ds)
        self._ds = ds
        self._variables = list(dict.fromkeys(self.inputs + self.targets))
        # As arrays: a thread will use them, and xarray's options are the whole process's.
        self._scale = [] if standardizer is None else [(mean[v].values, std[v].values) for v in self._variables]
        self._columns = [[self._variables.index(name) for name in names] for names in (self.inputs, self.targets)]
        self._length = self.history + self.horizon
        self._whole = _whole_windows(ds.time.values, self.history, self.horizon)
        if not self._whole.any():
            raise ValueError(f"ds: no window of {self._length} steps without a gap in time; give shorter windows")
        self._block, self._stretches = self._sizes(number(memory_mb, "memory_mb", 0, open_end=True), block)
        self._seen = np.full(ds.sizes["time"], -1, np.int8)  # 1 or 0: whether a target was observed; -1: not yet read
        self._kept: Pool | None = None

    def _sizes(self, memory_mb: float, block: int | None) -> tuple[int, int]:
        """Windows that begin in a stretch, and stretches in a pool."""
        lazy = [self._ds[name] for name in self._variables if self._ds[name].chunks]
        chunks = [int(np.prod([max(c) for c in v.chunks or ()])) * v.dtype.itemsize / 1e6 for v in lazy]
        if max(chunks, default=0) > memory_mb:
            raise ValueError(
                f"memory_mb: expected at least {max(chunks):.3g} for the largest chunk of the record, which is read "
                f"whole, found {memory_mb:g}"
            )
        values = self._ds.sizes["station"] * len(self._variables)
        steps = memory_mb * 1e6 / values  # bytes for each value of a step
        if block is None:
            block = max(int(steps / (HELD * POOL + READ)) - self._length + 1, self._length)
            chunk = max(lazy[0].chunksizes["time"]) if lazy else 1
            block -= block % chunk if block > chunk else 0
        block = min(whole_number(block, "block"), len(self._whole))
        stretch = block + self._length - 1
        stretches = int((steps / stretch - READ) / HELD)
        if stretches < 1:
            raise ValueError(
                f"memory_mb: expected at least {(HELD + READ) * stretch * values / 1e6:.3g} for a stretch of {stretch} "
                f"steps of {values} values, found {memory_mb:g}"
            )
        return block, stretches

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def starts(self) -> Tensor:
        possible = (0, len(self._whole))
        if (self._any(self._seen < 0, *possible) & self._whole).any():
            for _ in self._pools(None):
                pass
        starts = torch.from_numpy(np.flatnonzero(self._whole & self._any(self._seen > 0, *possible)))
        if len(starts) == 0:
            raise ValueError(_NONE)
        return starts

    @property
    def times(self) -> np.ndarray:
        return self._ds.time.values[self.starts.numpy()[:, None] + self.history + np.arange(self.horizon)]

    def batches(self, batch_size: int, generator: torch.Generator | None = None, stretch: int = 1) -> Iterator[Batch]:
        """All windows once, in batches, as ``WindowDataset.batches``; stretches lie within a pool."""
        batch_size, stretch = whole_number(batch_size, "batch_size"), whole_number(stretch, "stretch")
        if stretch > 1:
            yield from self._in_stretches(batch_size, generator, stretch)
            return
        rest: list[Batch] = []  # windows of the pool before, too few for a batch
        found = False
        for values, mask, starts in self._pools(generator):
            if generator is not None:
                starts = starts[torch.randperm(len(starts), generator=generator)]
            found |= len(starts) > 0
            missing = batch_size - sum(len(batch.x) for batch in rest)
            for indices in (starts[:missing], *starts[missing:].split(batch_size)):
                rest.append(self._gather(values, mask, indices))
                if sum(len(batch.x) for batch in rest) == batch_size:
                    yield _joined(rest)
                    rest = []
        if rest := [batch for batch in rest if len(batch.x)]:
            yield _joined(rest)
        if not found:
            raise ValueError(_NONE)

    def _in_stretches(self, batch_size: int, generator: torch.Generator | None, stretch: int) -> Iterator[Batch]:
        found = False
        for values, mask, starts in self._pools(generator):
            count = len(values) - self._length + 1  # those that reach over the end of a stretch read are no windows
            for rows, counted in _stretches(starts, count, stretch, batch_size, generator):
                found = True
                batch = self._gather(values, mask, rows)
                yield batch._replace(y_mask=batch.y_mask & counted[:, :, None, None, None])
        if not found:
            raise ValueError(_NONE)

    def _gather(self, values: Tensor, mask: Tensor, starts: Tensor) -> Batch:
        every = list(range(len(self._variables)))
        past, future = _steps(starts, self.history, self.horizon)

        def cut(tensor: Tensor, steps: Tensor, columns: list[int]) -> Tensor:
            found = tensor.index_select(0, steps.flatten()).unflatten(0, steps.shape)  # faster than tensor[steps]
            return found if columns == every else found[..., columns]

        x, y = self._columns
        return Batch(cut(values, past, x), cut(values, future, y), cut(mask, past, x), cut(mask, future, y))

    def _plan(self, generator: torch.Generator | None) -> list[Spans]:
        """What is read into each pool; drawn from the generator only where there is more than one pool."""
        count = len(self._whole)
        if generator is None or count <= self._block * self._stretches:
            first = range(0, count, self._block * self._stretches)
            plan = [[(start, min(start + self._block * self._stretches, count))] for start in first]
            return [spans for spans in plan if self._whole[slice(*spans[0])].any()]
        spans = [(start, min(start + self._block, count)) for start in range(0, count, self._block)]
        spans = [span for span in spans if self._whole[slice(*span)].any()]
        order = torch.randperm(len(spans), generator=generator)
        return [[spans[i] for i in part.tolist()] for part in order.split(self._stretches)]

    def _pools(self, generator: torch.Generator | None) -> Iterator[Pool]:
        """One pool after the other; the next is read by a thread meanwhile, into the memory of the one before."""
        if self._kept is not None:
            yield self._kept
            return
        plan = self._plan(generator)
        steps = max(sum(last - first + self._length - 1 for first, last in spans) for spans in plan)
        shape = (steps, self._ds.sizes["station"], len(self._variables))
        buffers = [(np.empty(shape, np.float32), np.empty(shape, bool)) for _ in plan[:2]]
        if len(self._whole) <= self._block * self._stretches:
            self._kept = self._read(plan[0], *buffers[0])
            yield self._kept
            return
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
            coming = thread.submit(self._read, plan[0], *buffers[0])
            for turn, spans in enumerate(plan[1:], start=1):
                ready = coming.result()
                coming = thread.submit(self._read, spans, *buffers[turn % 2])
                yield ready
            yield coming.result()

    def _read(self, spans: Spans, values: np.ndarray, mask: np.ndarray) -> Pool:
        """Fill a pool, a stretch at a time."""
        begin, starts = 0, []
        for first, last in spans:
            end = last + self._length - 1
            cuts = [*range(first, last, self._block), end]  # at the borders of chunks, if a stretch has whole ones
            for step, stop in pairwise(cuts):
                # all variables at once: they may come from the same chunks
                part = self._ds[self._variables].isel(time=slice(step, stop)).compute()
                here = slice(begin + step - first, begin + stop - first)
                for column, name in enumerate(self._variables):
                    array = part[name].transpose("time", "station").values
                    if self._scale:
                        mean, std = self._scale[column]
                        array = (array - mean) / std
                    values[here, :, column] = array
                np.isfinite(values[here], out=mask[here])
                values[here][~mask[here]] = 0
                self._seen[step:stop] = mask[here][..., self._columns[1]].any((1, 2))
            wanted = self._whole[first:last] & self._any(self._seen > 0, first, last)
            starts.append(begin + np.flatnonzero(wanted))
            begin += end - first
        return (
            torch.from_numpy(values[:begin]),
            torch.from_numpy(mask[:begin]),
            torch.from_numpy(np.concatenate(starts)),
        )

    def _any(self, steps: np.ndarray, first: int, last: int) -> np.ndarray:
        """For the windows that begin in a range: whether something holds at any of the steps to predict."""
        count = np.concatenate([[0], np.cumsum(steps[first : last + self._length - 1])])
        starts = np.arange(last - first)
        return count[starts + self._length] > count[starts + self.history]


_NONE = "ds: no window without a gap in time and with an observed target; give a longer or fuller series"


def _joined(batches: list[Batch]) -> Batch:
    return batches[0] if len(batches) == 1 else Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
