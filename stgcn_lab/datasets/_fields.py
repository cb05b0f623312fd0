"""NetCDF, zarr and GRIB as variables over time and station."""

import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.io
import xarray as xr

from ._names import Log, Stop, counted, is_role, our_name, plain_name, shown
from ._tables import pivoted
from ._times import in_ns, parse_times

MOST_SPLIT, MOST_BYTES = 40, 4 * 2**30
Variables = Mapping[Hashable, xr.Variable]


def open_fields(path: Path, engine: str, log: Log) -> xr.Dataset:
    """A NetCDF or zarr file, decoded as far as its times can be."""
    how: dict[str, Any] = {"engine": engine, "decode_timedelta": False, "decode_coords": "all", "chunks": None}
    if engine == "zarr":
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise ImportError('open_stations: expected zarr, found none; pip install "stgcn-lab[scale]"') from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.is_file() and _head(path) in (b"CDF\x01", b"CDF\x02"):
                scipy.io.netcdf_file(path, mmap=True).close()  # fails where netCDF4 reads zeros behind the end
            try:
                opened = xr.open_dataset(path, **how)
            except (ValueError, OverflowError):  # times in a unit that xarray does not know, or far away
                opened = xr.open_dataset(path, decode_times=False, **how)
            with opened:
                if opened.nbytes > MOST_BYTES:
                    raise log.stop(
                        f"{path.name} holds {opened.nbytes / 2**30:.1f} GiB",
                        "cut out a region, a period or a variable first",
                    )
                return opened.load().drop_encoding()
    except Stop:
        raise
    except Exception as error:  # what damaged bytes lead to in three libraries has no common kind
        raise log.stop(
            f"{path.name} is a damaged or cut off {'zarr store' if engine == 'zarr' else 'NetCDF file'} ({error})",
            "get it anew",
        ) from error


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(4)


def from_fields(datasets: Sequence[xr.Dataset], log: Log) -> xr.Dataset:
    """Variables over (time, station) from the datasets of a file: one, or the hypercubes of GRIB."""
    if len(datasets) > 1 and (wanted := log.said["variable"]):
        datasets = [part for part in datasets if any(wanted in (n, our_name(n)) for n in part.data_vars)] or datasets
    parts = [_nodes(dataset, log) for dataset in datasets]
    whole = parts[0]
    for part in parts[1:]:
        alike = part.sizes["station"] == whole.sizes["station"] and all(
            np.array_equal(part[axis], whole[axis]) for axis in ("lat", "lon")
        )
        if not alike:
            log.warning(f"{shown(part.data_vars)} is on another grid", "it was left out; name it with variable=NAME")
            continue
        part = part.rename({name: f"{name}_{part.attrs['level']}" for name in part.data_vars if name in whole})
        whole = xr.merge([whole, part], join="outer", compat="override", combine_attrs="override")
    return whole


def _coordinate(variables: Variables, role: str, log: Log) -> Hashable | None:
    """The name of the variable that is the time, the latitude or the longitude; None if there is none."""
    if said := log.said["columns"].get(role):
        if said not in variables:
            raise log.stop(f"columns: there is no variable {said!r}", f"there are {shown(variables)}")
        return said
    standard = {"time": "time", "lat": "latitude", "lon": "longitude"}[role]

    def worth(name: Hashable) -> int:
        variable = variables[name]
        if re.search("bounds|bnds", str(name)) or (variable.dtype.kind in "OSU") > (role == "time"):
            return 0
        dated = variable.dtype.kind == "M" or " since " in str(variable.attrs.get("units"))
        dated |= variable.dtype.kind == "O" and variable.size > 0 and hasattr(variable.values.flat[0], "calendar")
        if role == "time" and dated:
            return 4 + 2 * (variable.dims == (name,)) + (variable.attrs.get("standard_name") == standard)
        if variable.attrs.get("standard_name") == standard:
            return 3
        return 2 * is_role(name, role) if role != "time" else int(is_role(name, role))

    best = max(variables, key=worth, default=None)
    return best if best is not None and worth(best) else None


def _nodes(dataset: xr.Dataset, log: Log) -> xr.Dataset:
    """One dataset with the dims time and station, whatever its own are called."""
    variables = dataset.variables
    if not dataset.data_vars:
        raise log.stop("the file holds no variables", "data inside NetCDF groups are not looked for: copy one out")
    time, lat, lon = (_coordinate(variables, role, log) for role in ("time", "lat", "lon"))
    if time is None:
        raise log.stop(
            f"there is no coordinate of times among {shown(variables)}",
            "name it with columns={'time': ...}, and give it CF units such as 'days since 1970-01-01'",
        )
    stamps = _datetimes(variables[time], str(time), log)
    if lat is None or lon is None:
        if log.said["stations"] is None:
            raise log.stop(
                f"there are no places: no latitude and longitude among {shown(variables)}",
                "add lat and lon for each station, or give stations=FILE, a table with the columns station, lat, lon",
            )
        space = tuple({d: 0 for v in dataset.data_vars.values() for d in v.dims if d not in stamps.dims})
        if len(space) != 1:
            raise log.stop(f"expected one dimension of stations beside time, found {shown(space)}", "add lat and lon")
        places: dict[str, Any] = {}
    else:
        space, places = _places(variables[lat], variables[lon], stamps.dims, log)
        for axis, name in (("lat", lat), ("lon", lon)):
            units = plain_name(variables[name].attrs.get("units", ""))
            if units.startswith("rad"):
                places[axis] = ("station", np.degrees(places[axis][1]))
            elif units in ("degreeswest", "degreewest", "degreessouth", "degreesouth"):
                places[axis] = ("station", -places[axis][1])
    places = _named(variables, space, [time, lat, lon], log) | places
    if stamps.ndim == 2 or any(key in v.attrs for v in variables.values() for key in RAGGED):
        return _ragged(dataset, stamps, space, places, log)
    data = {
        name: (("time", "station"), values, attrs) for name, values, attrs in _split(dataset, stamps.dims, space, log)
    }
    single = [v for n, v in variables.items() if v.size == 1 and n not in (time, lat, lon) and v.dtype.kind in "fi"]
    level = f"{float(single[0].values):g}" if single else "more"  # tells cubes of a GRIB file apart
    raw = xr.Dataset(data, {"time": np.atleast_1d(stamps.values), **places}, dataset.attrs | {"level": level})
    return _ordered(raw, log) if len(space) == 2 else raw


def _places(
    lat: xr.Variable, lon: xr.Variable, time: tuple[Any, ...], log: Log
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The dims of space, and the degrees of each place: of stations, of a grid, of a curved grid, or of one place."""
    axes = []
    for axis in (lat, lon):
        if len(time) == 1 and time[0] in axis.dims:  # some models write their grid anew with every step
            if np.nanmax(np.ptp(axis.values, axis=axis.dims.index(time[0])), initial=0) > 0.02:
                raise log.stop("latitude and longitude change with time", "ships and balloons are no stations")
            axis = axis.isel({time[0]: 0})
        axes.append(axis)
    lat, lon = axes
    if set(lat.dims) == set(lon.dims):
        if lat.ndim > 1:
            log.note(f"a curved grid: each of its {lat.size} cells became a station")
        lon = lon.transpose(*lat.dims)
        return lat.dims, {"lat": ("station", lat.values.ravel()), "lon": ("station", lon.values.ravel())}
    if lat.ndim > 1 or lon.ndim > 1 or set(lat.dims) & set(lon.dims):
        raise log.stop(f"latitude is over {lat.dims} and longitude over {lon.dims}", "give stations or a grid")
    log.note(f"a grid of {lat.size} by {lon.size}: each cell became a station")
    degrees = np.repeat(lat.values.ravel(), lon.size), np.tile(lon.values.ravel(), lat.size)
    return lat.dims + lon.dims, {"lat": ("station", degrees[0]), "lon": ("station", degrees[1])}


def _ordered(raw: xr.Dataset, log: Log) -> xr.Dataset:
    """The cells of a grid as `grid_to_nodes` has them, without those that are one place: at a pole, at 0 and 360 E."""
    raw = raw.isel(station=np.lexsort((raw["lon"].values, raw["lat"].values)))
    lat, lon = raw["lat"].values.astype(np.float64), raw["lon"].values.astype(np.float64)
    east = np.where(np.abs(lat) > 90 - 1e-6, 0, np.mod(np.round(lon, 5), 360))
    again = pd.DataFrame({"lat": lat, "east": east}).duplicated().to_numpy()
    if again.any():
        log.warning(
            f"{counted(again.sum(), 'cell lies', 'cells lie')} where another one does, at a pole or all around",
            "they were left out",
        )
        raw = raw.isel(station=np.flatnonzero(~again))
    return raw.assign_coords(station=np.arange(raw.sizes["station"])).assign_attrs(grid="yes")


def _named(variables: Variables, space: tuple[Any, ...], others: Sequence[Any], log: Log) -> dict[str, Any]:
    """Ids, names and heights of the stations."""
    over = {name: v for name, v in variables.items() if v.dims == space and len(space) == 1 and name not in others}
    texts = {name: v for name, v in over.items() if v.dtype.kind in "OSU"}
    said = [name for name in [log.said["columns"].get("station")] if name in over]
    ids = said + [name for name, v in over.items() if v.attrs.get("cf_role") == "timeseries_id"]
    ids += (
        [name for name in over if name == space[0]] + [name for name in over if is_role(name, "station")] + list(texts)
    )

    def text(name: Hashable) -> np.ndarray:
        return np.array([v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in over[name].values])

    found: dict[str, Any] = {"station": text(ids[0])} if ids else {}
    for name, variable in over.items():
        if name in texts and name not in ids[:1] and "name" in str(name).lower():
            found["name"] = ("station", text(name))
        elif variable.dtype.kind in "fi" and (
            is_role(name, "elevation")
            or variable.attrs.get("standard_name") in ("surface_altitude", "altitude", "height")
        ):
            found["elevation"] = ("station", variable.values.astype(np.float64))
    return found


def _split(
    dataset: xr.Dataset, time: tuple[Any, ...], space: tuple[Any, ...], log: Log
) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Names, values (time, station) and attributes of all that is over time and place; levels become variables."""
    found, skipped = [], []
    for name, array in dataset.data_vars.items():
        if not {*time, *space} <= set(array.dims) or array.dtype.kind not in "fiub":
            skipped.append(name)
            continue
        free = [d for d in array.dims if d not in time + space]
        box = array.variable.transpose(*free, *time, *space).values
        box = box.reshape(
            [array.sizes[d] for d in free] + [int(np.prod(box.shape[len(free) : len(free) + len(time)])), -1]
        )
        many = [d for d in free if array.sizes[d] > 1]
        count = int(np.prod([array.sizes[d] for d in many]))
        if count > MOST_SPLIT:
            raise log.stop(
                f"{name} has the dimensions {shown(many)} beside time and place", "cut out one level or member"
            )
        if many:
            log.note(f"{name} was split along {shown(many)} into {count} variables")
        for index in np.ndindex(*box.shape[: len(free)]):
            at = {d: i for d, i in zip(free, index, strict=True) if d in many}
            level = [
                f"{dataset[d].values[i]:g}" if d in dataset and dataset[d].dtype.kind in "fiu" else str(i)
                for d, i in at.items()
            ]
            found.append(("_".join([str(name), *level]), box[index], array.attrs))
    if not found:
        raise log.stop(f"no variable is over both time and place: {shown(skipped)}", "is it the file that was meant?")
    return found


def _datetimes(variable: xr.Variable, name: str, log: Log) -> xr.Variable:
    """Times as datetime64 of the usual calendar, NaT where there is none."""
    units, values = str(variable.attrs.get("units", "")), variable.values
    flat = pd.Series(values.ravel())
    months = re.fullmatch(r"(month|year)s? since (.+?)(?: UTC| Z)?", units.strip())
    if variable.dtype.kind == "M":
        return variable
    if variable.dtype.kind == "O" and len(flat) and hasattr(flat[0], "calendar"):
        times = pd.to_datetime(flat.map(lambda time: time.isoformat()), format="ISO8601", errors="coerce")
        log.warning(f"times are of the calendar {flat[0].calendar}", "they were put into the usual one")
    elif variable.dtype.kind in "fiu" and months:
        start, per = pd.Timestamp(months[2]).tz_localize(None), 12 if months[1] == "year" else 1
        times = pd.Series([start + pd.DateOffset(months=int(value * per // 1)) for value in flat])
        log.note(f"times in {units!r} were counted in months of the calendar")
    elif variable.dtype.kind in "OSU":
        text = flat.map(lambda cell: cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell))
        times, _ = parse_times(text, log)
    else:
        times = pd.Series(dtype="datetime64[ns]")
    if times.isna().all():
        raise log.stop(f"{name} holds no times (units {units!r})", "give it CF units such as 'days since 1970-01-01'")
    return xr.Variable(variable.dims, in_ns(times).to_numpy().reshape(values.shape), variable.attrs)


RAGGED = ("instance_dimension", "sample_dimension")


def _ragged(
    dataset: xr.Dataset, stamps: xr.Variable, space: tuple[Any, ...], places: dict[str, Any], log: Log
) -> xr.Dataset:
    """Stations that each have their own times: CF's ragged arrays and incomplete multidimensional ones."""
    variables = dataset.variables
    index = next((name for name, v in variables.items() if RAGGED[0] in v.attrs), None)
    count = next((name for name, v in variables.items() if RAGGED[1] in v.attrs), None)
    rows = np.arange(variables[next(name for name, v in variables.items() if v.dims == space)].size)
    if stamps.ndim == 2:
        shape = (*space, *(d for d in stamps.dims if d not in space))
        codes = np.repeat(rows, stamps.size // rows.size)
    else:
        shape = stamps.dims
        codes = (
            variables[index].values.astype(int)
            if index is not None
            else np.repeat(rows, variables[count].values.astype(int))
        )
    times = pd.Series(stamps.transpose(*shape).values.ravel())
    lines = times.index.to_series()
    parts = {
        str(name): (lines, array.variable.transpose(*shape).values.ravel().astype(np.float64), None)
        for name, array in dataset.data_vars.items()
        if set(array.dims) == set(shape) and array.dtype.kind in "fiu" and name != index
    }
    if not parts:
        raise log.stop("there are no variables beside times and places", "is it the file that was meant?")
    raw = pivoted(times, codes, places.pop("station", rows), parts, log)
    for name in raw.data_vars:
        raw[name].attrs = dataset[name].attrs
    return raw.assign_coords(places).assign_attrs(dataset.attrs)
