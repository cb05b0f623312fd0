"""From a series to what a network is trained on: splits in time, standardising, windows with masks.

The order matters. Split first, fit the scaler on the training part alone, cut windows last: then no window
straddles two parts and nothing of the later years reaches the training.
"""

import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ._checks import whole_number

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
            if not bool(variable.notnull().any()):
                raise ValueError(f"train: expected at least one value, found {name!r} all missing")
        dims = "time" if self.per_station else None
        train = train.astype(np.float64, copy=False)  # sums of thousands of float32 values lose digits
        self.mean = train.mean(dims, keep_attrs=True)
        std = train.std(dims, keep_attrs=True)
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
    """

    x: Tensor
    y: Tensor
    x_mask: Tensor
    y_mask: Tensor


class WindowDataset:
    """All windows of a series: ``history`` steps to look back on, ``horizon`` steps to predict.

    Inputs and targets are kept as one array each, and windows are cut from them when they are asked for. A window
    never reaches over a gap in the time axis (a missing month, the summer between two winters), and one whose
    targets are all missing is left out.

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

    ``dataset[i]`` is one window as :class:`Batch` without the batch axis, made of views; ``dataset.batch(indices)``
    gathers several.
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
        self._x, self._x_mask = _as_tensor(ds, self.inputs, "inputs")
        self._y, self._y_mask = _as_tensor(ds, self.targets, "targets")
        times = ds.time.values
        length = history + horizon
        if len(times) < length:
            raise ValueError(
                f"ds: expected at least {length} time steps (history {history} + horizon {horizon}), found {len(times)}"
            )
        # Months differ in length, so a step may be up to half as long again as the usual one.
        steps = np.diff(times).astype("timedelta64[s]").astype(float)
        breaks = np.concatenate([[0], np.cumsum(steps > 1.5 * np.median(steps))])
        starts = np.arange(len(times) - length + 1)
        whole = breaks[starts] == breaks[starts + length - 1]
        seen = np.concatenate([[0], np.cumsum(self._y_mask.flatten(1).any(dim=1).numpy())])
        wanted = seen[starts + length] > seen[starts + history]
        self.starts = torch.from_numpy(starts[whole & wanted])
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
        return Batch(self._x[start:now], self._y[now:end], self._x_mask[start:now], self._y_mask[now:end])

    def batch(self, indices: Tensor | Sequence[int]) -> Batch:
        """Gather the windows of the given numbers, each tensor with the batch as its first axis."""
        start = self.starts[torch.as_tensor(indices)][:, None]
        past = start + torch.arange(self.history)
        future = start + self.history + torch.arange(self.horizon)
        return Batch(self._x[past], self._y[future], self._x_mask[past], self._y_mask[future])

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """All windows once, in batches: shuffled by the generator, or in order of time without one."""
        batch_size = whole_number(batch_size, "batch_size")
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for indices in order.split(batch_size):
            yield self.batch(indices)


def _names(variables: str | Sequence[str], argument: str) -> list[str]:
    if not isinstance(variables, (str, list, tuple)) or not variables:
        raise ValueError(f"{argument}: expected the name of at least one variable, found {variables!r}")
    return [variables] if isinstance(variables, str) else list(variables)


def _as_tensor(ds: xr.Dataset, names: list[str], argument: str) -> tuple[Tensor, Tensor]:
    """Variables as one (time, station, feature) float32 tensor and its mask, True where observed."""
    for name in names:
        if name not in ds.data_vars:
            raise ValueError(f"{argument}: expected one of {sorted(map(str, ds.data_vars))}, found {name!r}")
        if set(ds[name].dims) != {"time", "station"}:
            raise ValueError(f"{argument}: expected {name!r} with dims (time, station), found {ds[name].dims}")
        if not np.issubdtype(ds[name].dtype, np.number) and ds[name].dtype != bool:
            raise ValueError(f"{argument}: expected numbers in {name!r}, found {ds[name].dtype}")
        if ds[name].sizes["station"] == 0:
            raise ValueError(f"{argument}: expected at least one station in {name!r}, found none")
    values = np.stack([ds[name].transpose("time", "station").values for name in names], axis=-1)
    tensor = torch.from_numpy(values.astype(np.float32))
    mask = tensor.isfinite()
    return tensor.where(mask, torch.zeros(())), mask
