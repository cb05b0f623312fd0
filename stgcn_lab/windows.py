"""From a series to what a network is trained on: splits in time, standardising, windows with masks.

The order matters. Split first, fit the scaler on the training part alone, cut windows last: then no window
straddles two parts and nothing of the later years reaches the training. Where sources with steps of their own meet,
a value counts from when it was known, not from its time stamp.
"""

import datetime
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from ._checks import number, whole_number

Series = TypeVar("Series", xr.DataArray, xr.Dataset)
Date = str | datetime.datetime | np.datetime64  # a pandas Timestamp is a datetime
Period = slice | Sequence[Date | None] | None


class Splits(NamedTuple):
    """Parts of a series that follow each other in time; ``validation`` or ``test`` may be None."""

    train: xr.Dataset | xr.DataArray
    validation: xr.Dataset | xr.DataArray | None
    test: xr.Dataset | xr.DataArray | None


def split_by_time(
    ds: xr.Dataset | xr.DataArray, train: Period, validation: Period = None, test: Period = None
) -> Splits:
    """Cut a series into periods that follow each other: first train, then validation, then test.

    Neighbouring days resemble each other, so a random split would let a model look up its answers next door.

    Args:
        ds: with a sorted ``time`` axis.
        train, validation, test: ``(first, last)`` or a slice of dates such as ``("1961", "1968")``, both ends
            included; text, datetimes or ``None`` for an open end. ``validation`` and ``test`` may be left out.

    Returns:
        The parts, as ``Splits(train, validation, test)``.

    Raises:
        TypeError: if ``ds`` is not xarray.
        ValueError: for unsorted or repeated times, an empty period, or periods that overlap or are out of order.
    """
    _check_time(ds, "ds")
    parts: dict[str, xr.Dataset | xr.DataArray | None] = {}
    latest, latest_name = None, ""
    for name, period in (("train", train), ("validation", validation), ("test", test)):
        if period is None and name != "train":
            parts[name] = None
            continue
        if not isinstance(period, slice):
            if not isinstance(period, Sequence) or isinstance(period, str) or len(period) != 2:
                raise ValueError(f"{name}: expected (first, last) such as ('1961', '1968'), found {period!r}")
            period = slice(*period)
        if not all(end is None or isinstance(end, Date) for end in (period.start, period.stop)):
            raise ValueError(f"{name}: expected dates as text such as ('1961', '1968'), found {period}")
        try:
            part = ds.sel(time=period)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{name}: expected dates such as ('1961', '1968-12-31'), found {period}") from error
        if part.sizes["time"] == 0:
            raise ValueError(
                f"{name}: no time of the series lies in {period.start} to {period.stop}; "
                f"it covers {_day(ds.time[0])} to {_day(ds.time[-1])}"
            )
        if latest is not None and part.time[0] <= latest:
            raise ValueError(
                f"{name}: expected a period after {latest_name}, which ends {_day(latest)}, "
                f"found one that begins {_day(part.time[0])}"
            )
        latest, latest_name = part.time[-1], name
        parts[name] = part
    return Splits(**parts)  # type: ignore[arg-type]


def _day(time: xr.DataArray) -> str:
    return str(time.values)[:10]


def _check_time(ds: xr.Dataset | xr.DataArray, name: str) -> None:
    if not isinstance(ds, (xr.Dataset, xr.DataArray)):
        raise TypeError(f"{name}: expected an xarray Dataset or DataArray, found {type(ds).__name__}")
    if "time" not in ds.dims or "time" not in ds.coords:
        raise ValueError(f"{name}: expected a dimension 'time' with a coordinate, found dims {tuple(ds.dims)}")
    times = ds.indexes["time"]
    if len(times) == 0:
        raise ValueError(f"{name}: expected at least one time step, found none")
    if not (times.is_monotonic_increasing and times.is_unique):
        raise ValueError(f"{name}: expected times in rising order, each once; use .sortby('time') and drop repeats")


class Standardizer:
    """Bring every station to mean 0 and standard deviation 1: ``z = (x - mean) / std``.

    Missing values are passed over, and stay missing. A constant series is only centred.

    Args:
        per_station: a mean and a deviation for each station; False takes one pair for all of them, which a
            model needs that is to be moved to stations it has never seen.

    Attributes:
        mean, std: fitted values, with the units of the series; None before :meth:`fit`.
    """

    def __init__(self, per_station: bool = True) -> None:
        self.per_station = per_station
        self.mean: xr.Dataset | xr.DataArray | None = None
        self.std: xr.Dataset | xr.DataArray | None = None

    def fit(self, train: xr.Dataset | xr.DataArray) -> "Standardizer":
        """Learn mean and deviation from the training part, and from it alone.

        Args:
            train: (time, ...) series.

        Returns:
            The standardizer itself.

        Raises:
            TypeError, ValueError: if ``train`` is no series with a time axis, or has no value at all.
        """
        _check_time(train, "train")
        values = train if isinstance(train, xr.Dataset) else train.to_dataset(name="values")
        for name, variable in values.data_vars.items():
            if variable.dtype.kind not in "fiub":
                raise TypeError(f"train: expected numbers, found dtype {variable.dtype} in {name!r}")
        dims = "time" if self.per_station else None
        train = train.astype(np.float64, copy=False)  # sums of thousands of float32 values lose digits
        observed = values.notnull().any()
        mean, std = train.mean(dims, keep_attrs=True), train.std(dims, keep_attrs=True)
        if any(variable.chunks for variable in values.data_vars.values()):
            import dask

            # a lazy record is read once, for all three, a chunk at a time
            observed, mean, std = dask.compute(observed, mean, std)
        for name, found in observed.data_vars.items():
            if not bool(found):
                raise ValueError(f"train: expected at least one value, found {name!r} all missing")
        self.mean = mean
        self.std = std.where((std > 1e-9 * np.abs(self.mean)) | std.isnull(), 1.0)  # constant: only centred
        return self

    def transform(self, series: Series) -> Series:
        """Standardise a series with the fitted mean and deviation; its units become ``"1"``.

        Raises:
            TypeError, ValueError: before :meth:`fit`, or for other variables or stations than fitted.
        """
        mean, std = self._fitted_to(series)
        with xr.set_options(keep_attrs=True, arithmetic_join="exact"):
            return _with_units((series - mean) / std, lambda variable: "1")

    def inverse_transform(self, series: Series) -> Series:
        """Bring a standardised series back to the units it was fitted in; errors as in :meth:`transform`."""
        mean, std = self._fitted_to(series)
        with xr.set_options(keep_attrs=True, arithmetic_join="exact"):
            return _with_units(series * std + mean, lambda variable: variable.attrs.get("units", "1"), mean)

    def _fitted_to(self, series: Any) -> tuple[Any, Any]:
        """Mean and deviation, if they belong to this series: xarray would drop in silence what does not match."""
        if self.mean is None or self.std is None:
            raise ValueError("Standardizer: call fit(train) before transform or inverse_transform")
        if type(series) is not type(self.mean):
            raise TypeError(f"series: expected an xarray {type(self.mean).__name__}, found {type(series).__name__}")
        if isinstance(series, xr.Dataset) and set(series.data_vars) != set(self.mean.data_vars):
            raise ValueError(
                f"series: expected the variables of the fit, {sorted(map(str, self.mean.data_vars))}, "
                f"found {sorted(map(str, series.data_vars))}"
            )
        for dim, fitted in self.mean.indexes.items():
            if dim not in series.indexes or not series.indexes[dim].equals(fitted):
                found = list(series.indexes[dim]) if dim in series.indexes else "none"
                raise ValueError(f"series: expected each {dim} of the fit in its order, {list(fitted)}, found {found}")
        return self.mean, self.std


def _with_units(series: Series, units: Callable[[xr.DataArray], str], source: Any = None) -> Series:
    """The series with the units that are read off ``source``, variable by variable."""
    source = series if source is None else source
    if isinstance(series, xr.DataArray):
        return series.assign_attrs(units=units(source))
    return series.assign({name: v.assign_attrs(units=units(source[name])) for name, v in series.data_vars.items()})


class Batch(NamedTuple):
    """Windows for one training step.

    x (B, history, N, F), y (B, horizon, N, F_out), and their masks of the same shapes, True where a value was
    observed. Where the mask is False the tensors hold 0, which means nothing: look at the mask.

    As stretches of S windows: x (B, history + S - 1, N, F) and y (B, S, horizon, N, F_out), what follows each window
    of the stretch. Windows that do not count, such as those over a gap in time, have a y_mask that is False throughout.
    """

    x: Tensor
    y: Tensor
    x_mask: Tensor
    y_mask: Tensor


class WindowDataset:
    """All windows of a series: ``history`` steps to look back on, ``horizon`` steps to predict.

    Windows are cut from the record when they are asked for. Variables of float32 are not copied: do not change them
    afterwards. A window never reaches over a gap in the time axis (a missing month, the summer between two winters),
    and one whose targets are all missing is left out.

    Args:
        ds: Dataset with dims (time, station), standardised.
        inputs, targets: names of the variables to look at and to predict.
        history: past steps in a window.
        horizon: future steps in a window.

    Attributes:
        starts: (windows,) index of each window's first step.
        times: (windows, horizon) the times that each window predicts.

    Raises:
        TypeError, ValueError: for unknown variables, other dims, unsorted times, or a series too short for a
            single window.

    ``dataset[i]`` is one window as :class:`Batch` without the batch axis, a view of the record where that holds a
    single variable and no gap; ``dataset.batch(indices)`` gathers several.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        inputs: str | Sequence[str],
        targets: str | Sequence[str],
        history: int,
        horizon: int,
    ) -> None:
        if not isinstance(ds, xr.Dataset):
            raise TypeError(f"ds: expected an xarray Dataset, found {type(ds).__name__}")
        _check_time(ds, "ds")
        history, horizon = whole_number(history, "history"), whole_number(horizon, "horizon")
        self.history, self.horizon = history, horizon
        self.inputs, self.targets = _names(inputs, "inputs"), _names(targets, "targets")
        _check_variables(ds, self.inputs, "inputs")
        _check_variables(ds, self.targets, "targets")
        # With NaN where nothing was observed: the masks are made with the windows.
        self._record = {
            name: _float32(ds[name].transpose("time", "station").values) for name in {*self.inputs, *self.targets}
        }
        times = ds.time.values
        length = history + horizon
        self._whole = _whole_windows(times, history, horizon)
        starts = np.arange(len(self._whole))
        observed = sum(np.isfinite(self._record[name].numpy()).any(axis=1) for name in self.targets)
        seen = np.concatenate([[0], np.cumsum(observed > 0)])
        wanted = seen[starts + length] > seen[starts + history]
        self.starts = torch.from_numpy(starts[self._whole & wanted])
        if len(self.starts) == 0:
            raise ValueError(
                f"ds: no window of {length} steps without a gap in time and with an observed target; "
                "give a longer or fuller series, or shorter windows"
            )
        self.times = times[self.starts.numpy()[:, None] + history + np.arange(horizon)]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Batch:
        start = int(self.starts[index])
        now, end = start + self.history, start + self.history + self.horizon
        x, y = self._cut(self.inputs, slice(start, now)), self._cut(self.targets, slice(now, end))
        return Batch(x[0], y[0], x[1], y[1])

    def batch(self, indices: Tensor | Sequence[int]) -> Batch:
        """Gather the windows of the given numbers, each tensor with the batch as its first axis."""
        return self._gather(self.starts[torch.as_tensor(indices)])

    def batches(self, batch_size: int, generator: torch.Generator | None = None, stretch: int = 1) -> Iterator[Batch]:
        """All windows once, in batches: shuffled by the generator, or in order of time without one.

        Args:
            batch_size: windows in a batch.
            generator: of the random order.
            stretch: S. Above 1 the batches hold ``batch_size // S`` stretches of S windows that follow each other, at
                least one, see :class:`Batch`. The generator draws their order, and where the first one begins.
        """
        batch_size, stretch = whole_number(batch_size, "batch_size"), whole_number(stretch, "stretch")
        if stretch == 1:
            order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
            for indices in order.split(batch_size):
                yield self.batch(indices)
            return
        for rows, counted in _stretches(self.starts, len(self._whole), stretch, batch_size, generator):
            batch = self._gather(rows)
            yield batch._replace(y_mask=batch.y_mask & counted[:, :, None, None, None])

    def _gather(self, starts: Tensor) -> Batch:
        past, future = _steps(starts, self.history, self.horizon)
        x, y = self._cut(self.inputs, past), self._cut(self.targets, future)
        return Batch(x[0], y[0], x[1], y[1])

    def _cut(self, names: list[str], steps: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Values of the variables at some steps, 0 where missing, and their mask."""
        if isinstance(steps, slice):
            parts = [self._record[name][steps] for name in names]
        else:  # faster than record[steps]
            parts = [self._record[name].index_select(0, steps.flatten()).unflatten(0, steps.shape) for name in names]
        values = parts[0].unsqueeze(-1) if len(parts) == 1 else torch.stack(parts, dim=-1)
        mask = values.isfinite()
        return values if mask.all() else values.where(mask, torch.zeros(())), mask


def _stretches(
    starts: Tensor, count: int, stretch: int, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Group windows into stretches of S that begin one step after the other, so that each window counts once.

    A network that is convolutional in time makes the S forecasts of a stretch in one pass.

    Args:
        starts: (windows,) first steps of the windows, sorted.
        count: number of steps, from 0, at which a window could begin.
        stretch: S; all of them where there are fewer.
        batch_size: windows in a batch.
        generator: draws where the first stretch begins, and the order. Without one they follow each other from 0.

    Yields:
        (B, S) the first steps of the windows of B stretches, and (B, S) which of these windows count: others are no
        windows, or count in another stretch.
    """
    stretch = min(stretch, count)
    phase = 0 if generator is None else int(torch.randint(stretch, (), generator=generator))
    own = torch.arange(-phase, count, stretch)[:, None] + torch.arange(stretch)
    first = own[:, :1].clamp(0, count - stretch)  # the first and the last one are moved into the record ...
    steps = first + torch.arange(stretch)
    wanted = torch.zeros(count, dtype=torch.bool)
    wanted[starts] = True
    counted = wanted[steps] & (steps >= own[:, :1]) & (steps <= own[:, -1:])  # ... but count what is theirs
    steps, counted = steps[counted.any(dim=1)], counted[counted.any(dim=1)]
    order = torch.arange(len(steps)) if generator is None else torch.randperm(len(steps), generator=generator)
    for rows in order.split(max(1, batch_size // stretch)):
        yield steps[rows], counted[rows]


def _steps(starts: Tensor, history: int, horizon: int) -> tuple[Tensor, Tensor]:
    """Which steps are seen and which are predicted: of windows that begin at (B,), (B, history) and (B, horizon); of
    stretches of windows that begin at (B, S), (B, history + S - 1) and (B, S, horizon)."""
    first, windows = (starts, 1) if starts.ndim == 1 else (starts[:, 0], starts.shape[1])
    return first[:, None] + torch.arange(history + windows - 1), starts[..., None] + history + torch.arange(horizon)


def _float32(values: np.ndarray) -> Tensor:
    """As a tensor, which is no copy of an array of float32."""
    with warnings.catch_warnings():
        # PyTorch warns of arrays that can't be written to, such as a file that is only read.
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(values.astype(np.float32, copy=False))


def _names(variables: str | Sequence[str], argument: str) -> list[str]:
    if not isinstance(variables, (str, list, tuple)) or not variables:
        raise ValueError(f"{argument}: expected the name of at least one variable, found {variables!r}")
    return [variables] if isinstance(variables, str) else list(variables)


def _whole_windows(times: np.ndarray, history: int, horizon: int) -> np.ndarray:
    """For each step that a window could begin at: whether the window would reach over no gap in the time axis."""
    length = history + horizon
    if len(times) < length:
        raise ValueError(
            f"ds: expected at least {length} time steps (history {history} + horizon {horizon}), found {len(times)}"
        )
    # Months differ in length, so a step may be up to half as long again as the usual one.
    steps = np.diff(times).astype("timedelta64[s]").astype(float)
    breaks = np.concatenate([[0], np.cumsum(steps > 1.5 * np.median(steps))])
    return breaks[: len(times) - length + 1] == breaks[length - 1 :]


def _check_variables(ds: xr.Dataset, names: list[str], argument: str) -> None:
    for name in names:
        if name not in ds.data_vars:
            raise ValueError(f"{argument}: expected one of {sorted(map(str, ds.data_vars))}, found {name!r}")
        if set(ds[name].dims) != {"time", "station"}:
            raise ValueError(f"{argument}: expected {name!r} with dims (time, station), found {ds[name].dims}")
        if not np.issubdtype(ds[name].dtype, np.number) and ds[name].dtype != bool:
            raise ValueError(f"{argument}: expected numbers in {name!r}, found {ds[name].dtype}")
        if ds[name].sizes["station"] == 0:
            raise ValueError(f"{argument}: expected at least one station in {name!r}, found none")


def _as_tensor(ds: xr.Dataset, names: list[str], argument: str) -> tuple[Tensor, Tensor]:
    """Variables as one (time, station, feature) float32 tensor and its mask, True where observed."""
    _check_variables(ds, names, argument)
    values = np.stack([ds[name].transpose("time", "station").values for name in names], axis=-1)
    tensor = torch.from_numpy(values.astype(np.float32))
    mask = tensor.isfinite()
    return tensor.where(mask, torch.zeros(())), mask


# ---------------------------------------------------------------------------- several sources


def known_at(
    series: xr.DataArray, times: Any, delay: float = 0.0, period: str | pd.DateOffset | None = None
) -> xr.DataArray:
    """The latest value of a slower series that was known at each time, and how old it was.

    A value stamped ``t`` stands for the time from ``t`` to ``t + period`` and is known ``delay`` days after its end:
    the mean of January, stamped 1 January, on 1 February at the earliest. Missing values are passed over, so an older
    value stands in for them, however old: look at ``age``.

    Args:
        series: (time, ...) with stamps at the beginning of what a value stands for.
        times: dates at which the series is asked, in any order.
        delay: days between the end of a period and the day on which its value can be had.
        period: what a value stands for, as pandas writes it (``"MS"`` a month, ``"D"`` a day, ``"3MS"``). By default
            the shortest step of the series: whole months where all stamps are the first of a month. Give it where
            stamps lie farther apart than the periods, as for a winter stamped 1 January (``"2MS"``).

    Returns:
        (time, ...) on ``times``, NaN where nothing was known yet, with the coordinate ``age`` of the same dims: days
        since the end of the period that the value stands for.

    Raises:
        TypeError, ValueError: for no series, unsorted times, dates that are none, a negative delay, or a period that
            is unknown, does not begin at the stamps, or cannot be told from a single step.
    """
    if not isinstance(series, xr.DataArray):
        raise TypeError(f"series: expected an xarray DataArray, found {type(series).__name__}")
    stamps = _dates(series, "series")
    if series.dtype.kind not in "fiub":
        raise TypeError(f"series: expected numbers, found dtype {series.dtype}")
    series = series.transpose("time", ...)
    delay = number(delay, "delay", least=0)
    given = np.asarray(times)
    if given.ndim > 1 or (given.size and given.dtype.kind in "biuf"):  # a number would pass for nanoseconds
        raise TypeError(f"times: expected dates along one axis, found {given.dtype} of shape {given.shape}")
    try:
        asked = pd.DatetimeIndex(np.atleast_1d(np.asarray(times, dtype="datetime64[ns]")))
    except (TypeError, ValueError) as error:
        raise TypeError(f"times: expected dates, found {times!r}") from error
    if asked.hasnans:
        raise ValueError("times: expected dates, found NaT among them")
    ends = stamps + _period(stamps, period, "series")
    at = np.searchsorted(ends + pd.Timedelta(days=delay), asked, side="right") - 1  # the latest step that is out, or -1
    values = series.values.astype(np.float64)
    number_of = np.arange(len(stamps)).reshape(-1, *[1] * (values.ndim - 1))
    observed = np.maximum.accumulate(np.where(np.isfinite(values), number_of, -1))  # the latest one with a value
    step = np.where(at.reshape(-1, *number_of.shape[1:]) < 0, -1, observed[at])  # (times, ...)
    days = (asked.values.reshape(-1, *number_of.shape[1:]) - ends.values[step]) / np.timedelta64(1, "D")
    known = np.where(step < 0, np.nan, np.take_along_axis(values, step.clip(0), axis=0))
    coords = {name: coord for name, coord in series.coords.items() if "time" not in coord.dims}
    age = (series.dims, np.where(step < 0, np.nan, days), {"long_name": "days since the end of the period"})
    return xr.DataArray(known, {**coords, "time": asked, "age": age}, series.dims, series.name, series.attrs)


def _dates(ds: xr.Dataset | xr.DataArray, name: str) -> pd.DatetimeIndex:
    _check_time(ds, name)
    times = ds.indexes["time"]
    if not isinstance(times, pd.DatetimeIndex):
        raise TypeError(f"{name}: expected dates on the axis 'time', found {type(times).__name__} of {times.dtype}")
    return times.as_unit("ns")


def _period(stamps: pd.DatetimeIndex, period: Any, name: str) -> pd.DateOffset:
    """What one value stands for; by default the shortest step, in months where every stamp is the first of one."""
    if period is not None:
        try:
            offset = pd.tseries.frequencies.to_offset(period)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected a period such as 'MS' or 'D', found {period!r}") from error
        if offset is None or offset.n < 1:
            raise ValueError(f"{name}: expected a period such as 'MS' or 'D', found {period!r}")
        if not isinstance(offset, pd.offsets.Tick) and not all(map(offset.is_on_offset, stamps)):
            # pandas would end it at the next border: a month from the 1st on the 31st, a day before it is over
            raise ValueError(
                f"{name}: expected a period that begins at every stamp, such as 'MS' at the first of a month or '7D' "
                f"at any day, found {period!r} and a stamp {stamps[0]}"
            )
        return offset
    if len(stamps) < 2:
        raise ValueError(f"{name}: expected two time steps or more, or the period that a value stands for")
    months = np.diff(stamps.year * 12 + stamps.month)
    if months.min() > 0 and (stamps == stamps.normalize()).all() and (stamps.day == 1).all():
        return pd.DateOffset(months=int(months.min()))
    return pd.tseries.frequencies.to_offset(pd.Timedelta(np.diff(stamps.values).min()))


def _lattice(stamps: pd.DatetimeIndex, name: str, until: Any = None) -> tuple[pd.DatetimeIndex, np.ndarray, Any]:
    """The axis without its gaps, up to ``until`` at least; where each stamp stands on it; and its step."""
    step = _period(stamps, None, name)
    steps = np.diff(stamps.values)
    if steps.sum() / steps.min() > 100 * len(stamps):  # with a lattice that fine, most of it would be gaps
        raise ValueError(f"{name}: expected a regular time axis, found steps from {steps.min()} to {steps.max()}")
    lattice = pd.date_range(stamps[0], max(stamps[-1], stamps[-1] if until is None else until), freq=step)
    rows = lattice.get_indexer(stamps)
    if (rows < 0).any():
        raise ValueError(
            f"{name}: expected a regular time axis from {stamps[0]} on, found {stamps[rows < 0][0]} between its steps"
        )
    return lattice, rows, step


class Sources(dict[str, Tensor]):
    """Tensors of several sources, {kind: (B, history, N, F)}: they move to a device together, ``x.to(device)``, and a
    slice ``x[2:5]`` is those windows of all."""

    def to(self, device: torch.device | str) -> "Sources":
        return Sources({kind: tensor.to(device) for kind, tensor in self.items()})

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return Sources({kind: tensor[key] for kind, tensor in self.items()})
        return super().__getitem__(key)


class SourceBatch(NamedTuple):
    """Like :class:`Batch`, with a tensor for each source: x and x_mask {kind: (B, history, N, F)}.

    Where x_mask is False x holds NaN, because a model gets x alone and must tell a gap from a zero; y holds 0 there.
    """

    x: Sources
    y: Tensor
    x_mask: Sources
    y_mask: Tensor


class SourceWindows:
    """Windows of several sources, each with its own nodes, features, history and time step.

    A window predicts ``horizon`` steps of the first source, the target. Of every source it sees the last ``history``
    steps that were known when the prediction was issued: those whose period, and the delay after it, were over. A
    step that a source lacks, in a gap, before its first or after its last, is there with a mask that says False.

    Args:
        sources: {kind: Dataset}, standardised, with dims (time, station), or (time,) for a source of one node. Stamps
            stand at the beginning of what a value stands for; steps are regular (or whole months), with gaps or not.
            The first is the target.
        inputs: {kind: names of the variables to look at}. One without time, such as the elevation, or one without
            station, such as the time of the year, is repeated along the axis that it lacks: it is context, no data.
        targets: names of the variables of the first source to predict.
        history: {kind: steps}, or one number for all.
        horizon: steps of the target to predict.
        delays: {kind: days} from the end of a step until its value can be had; 0 where not given.
        periods: {kind: period} where values stand for less time than from one step to the next, see :func:`known_at`.
        estimate: False for forecasts, issued when their first step begins. True for estimates, issued when their
            last step is over: they see all sources at the time of the target, so a target among the inputs would
            give the answer away. Let the inputs be a variable without what is to be estimated.

    Attributes:
        issued: (windows,) when each prediction is made.
        times: (windows, horizon) the times that it predicts.
        seen: {kind: (windows, history)} the steps that it sees, NaT where the source has none.
        features: {kind: names of the inputs, data first, context last}.
        context: {kind: number of inputs that are context}.

    A window whose targets are all missing, or that sees no data at all, is left out.

    Raises:
        TypeError, ValueError: for unknown variables or kinds, other dims, irregular times, settings out of range, or
            no window at all.
    """

    def __init__(
        self,
        sources: Mapping[str, xr.Dataset],
        inputs: Mapping[str, str | Sequence[str]],
        targets: str | Sequence[str],
        history: int | Mapping[str, int],
        horizon: int,
        *,
        delays: Mapping[str, float] | None = None,
        periods: Mapping[str, str] | None = None,
        estimate: bool = False,
    ) -> None:
        if not isinstance(sources, Mapping) or isinstance(sources, xr.Dataset) or not sources:
            raise TypeError(f"sources: expected a dict of Datasets, found {type(sources).__name__}")
        for kind, ds in sources.items():
            if not isinstance(ds, xr.Dataset):
                raise TypeError(f"sources[{kind!r}]: expected an xarray Dataset, found {type(ds).__name__}")
        kinds = list(sources)
        inputs = _per_kind(inputs, kinds, "inputs", whole=True)
        steps = _per_kind(
            history if isinstance(history, Mapping) else dict.fromkeys(kinds, history), kinds, "history", True
        )
        self.history = {kind: whole_number(steps[kind], f"history[{kind!r}]") for kind in kinds}
        self.horizon = whole_number(horizon, "horizon")
        delays, periods = _per_kind(delays or {}, kinds, "delays"), _per_kind(periods or {}, kinds, "periods")
        self.target, self.targets = kinds[0], _names(targets, "targets")

        stamps = {kind: _dates(ds, f"sources[{kind!r}]") for kind, ds in sources.items()}
        name = f"sources[{self.target!r}]"
        lattice, rows, step = _lattice(stamps[self.target], name)
        ends = lattice + _period(stamps[self.target], periods.get(self.target, step), name)
        y, y_mask = _as_tensor(_spread(sources[self.target], self.targets), self.targets, "targets")
        self._y, self._y_mask = _placed(y, rows, len(lattice), 0), _placed(y_mask, rows, len(lattice), False)
        starts = np.arange(len(lattice) - self.horizon + 1)
        future = starts[:, None] + np.arange(self.horizon)
        issued = ends[future[:, -1]] if estimate else lattice[starts]
        wanted = self._y_mask.flatten(1).any(dim=1).numpy()[future].any(axis=1)

        self._x, self.seen, self.features, self.context = {}, {}, {}, {}
        past, informed = {}, np.zeros(len(starts), bool)
        for kind, ds in sources.items():
            names = _names(inputs[kind], f"inputs[{kind!r}]")
            context = [variable for variable in names if variable in ds.data_vars and _is_context(ds, variable)]
            self.features[kind] = [variable for variable in names if variable not in context] + context
            self.context[kind] = len(context)
            x, x_mask = _as_tensor(_spread(ds, names), self.features[kind], f"inputs[{kind!r}]")
            name = f"sources[{kind!r}]"
            lattice_k, rows, step = _lattice(stamps[kind], name, issued[-1] if len(issued) else None)
            delay = pd.Timedelta(days=number(delays.get(kind, 0.0), f"delays[{kind!r}]", least=0))
            ends = lattice_k + _period(stamps[kind], periods.get(kind, step), name) + delay
            latest = np.searchsorted(ends, issued, side="right") - 1
            index = latest[:, None] + np.arange(1 - self.history[kind], 1)
            index[index < 0] = len(lattice_k)  # one row more, always empty
            self._x[kind] = _placed(x.where(x_mask, torch.nan), rows, len(lattice_k) + 1, torch.nan)
            data = self._x[kind][..., : len(names) - len(context)].isfinite()
            informed |= data.flatten(1).any(dim=1).numpy()[index].any(axis=1)
            past[kind] = index
            self.seen[kind] = np.append(lattice_k.values, np.array("NaT", lattice_k.values.dtype))[index]

        keep = wanted & informed
        if not keep.any():
            raise ValueError(
                f"sources: no window of {self.horizon} steps with an observed target and any data known before it"
            )
        self._past = {kind: torch.from_numpy(index[keep]) for kind, index in past.items()}
        self._future = torch.from_numpy(future[keep])
        self.seen = {kind: seen[keep] for kind, seen in self.seen.items()}
        self.issued, self.times = issued.values[keep], lattice.values[future[keep]]

    def __len__(self) -> int:
        return len(self._future)

    def batch(self, indices: Tensor | Sequence[int]) -> SourceBatch:
        """Gather the windows of the given numbers, each tensor with the batch as its first axis."""
        indices = torch.as_tensor(indices)
        x = Sources({kind: self._x[kind][past[indices]] for kind, past in self._past.items()})
        x_mask = Sources({kind: values.isfinite() for kind, values in x.items()})
        future = self._future[indices]
        return SourceBatch(x, self._y[future], x_mask, self._y_mask[future])

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[SourceBatch]:
        """All windows once, in batches: shuffled by the generator, or in order of time without one."""
        batch_size = whole_number(batch_size, "batch_size")
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for indices in order.split(batch_size):
            yield self.batch(indices)


def _per_kind(setting: Any, kinds: list[str], name: str, whole: bool = False) -> dict[str, Any]:
    if not isinstance(setting, Mapping) or not set(setting) <= set(kinds) or (whole and set(setting) != set(kinds)):
        found = sorted(map(str, setting)) if isinstance(setting, Mapping) else type(setting).__name__
        raise ValueError(f"{name}: expected a dict with the kinds {kinds}, found {found}")
    return dict(setting)


def _is_context(ds: xr.Dataset, name: str) -> bool:
    """Whether a variable is repeated: along time, or at all of several stations."""
    return "time" not in ds[name].dims or ("station" in ds.dims and "station" not in ds[name].dims)


def _spread(ds: xr.Dataset, names: list[str]) -> xr.Dataset:
    """The variables with both axes, repeated along the one that they lack; a source without stations has one."""
    full = {"time": ds.sizes["time"], "station": ds.sizes.get("station", 1)}
    spread = {}
    for name in names:
        if name in ds.data_vars and set(ds[name].dims) <= set(full):
            lacking = {dim: size for dim, size in full.items() if dim not in ds[name].dims}
            spread[name] = ds[name].variable.set_dims({**lacking, **ds[name].sizes}).transpose("time", "station")
    return xr.Dataset(spread | {str(name): ds[name].variable for name in ds.data_vars if name not in spread})


def _placed(values: Tensor, rows: np.ndarray, steps: int, empty: float) -> Tensor:
    """(steps, ...) with the values in their rows and ``empty`` elsewhere."""
    placed = values.new_full((steps, *values.shape[1:]), empty)
    placed[torch.from_numpy(rows)] = values
    return placed
