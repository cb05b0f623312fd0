"""The reader's own file as a series of stations: what is in it, what was repaired, and what is wrong.

Three steps, each of which adds to one list of findings: the content of the file, not its name, says how to read it
(`_content`); a table or a NetCDF, zarr or GRIB file becomes variables over time and station (`_from_table`,
`_from_fields`); units, fill values, places and times are put in order (`_finished`).
"""

import bz2
import gzip
import lzma
import os
import re
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ._fields import from_fields, open_fields
from ._grib import read_grib
from ._names import (
    FILLS,
    QUANTITIES,
    ROLES,
    Inspection,
    Log,
    Stop,
    counted,
    known_unit,
    our_name,
    plain_name,
    shown,
)
from ._tables import from_table, read_cells, read_degrees, read_numbers, roles_of
from ._times import regular_axis, stamp, step_name, time_zone
from .series import check_series

# How files of each kind begin, and which of them are of no use here.
MAGIC: dict[str, tuple[bytes, ...]] = {
    "NetCDF": (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05"),
    "GRIB": (b"GRIB",),
    "zip": (b"PK\x03\x04",),
    "gzip": (b"\x1f\x8b",),
    "bzip2": (b"BZh",),
    "xz": (b"\xfd7zXZ\x00",),
    "a workbook of Excel": (b"\xd0\xcf\x11\xe0",),
    "a PDF document": (b"%PDF",),
    "a picture": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8"),
    "an archive": (b"Rar!", b"7z\xbc\xaf"),
}
REFUSED = {
    "a workbook of Excel": "save the sheet as CSV",
    "a PDF document": "ask its source for CSV or NetCDF",
    "a picture": "numbers are needed, as CSV or NetCDF",
    "an archive": "unpack it and name the file inside",
}
PACKED: dict[str, Any] = {"zip": None, "gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
SUFFIXES = {
    "table": (".csv", ".tsv", ".txt", ".dat"),
    "NetCDF": (".nc", ".nc4", ".cdf", ".h5", ".hdf5"),
    "GRIB": (".grib", ".grb", ".grib1", ".grib2", ".grb2"),
    "packed file": (".gz", ".zip", ".bz2", ".xz"),
}


def open_stations(
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    units: str | Mapping[str, str] | None = None,
    timezone: str | None = None,
    stations: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """The reader's own file as a series of stations, in the units of this package.

    Read are CF NetCDF (stations, grids, ragged arrays), zarr, GRIB, and tables as text, long (a line for each station
    and time) or wide (a column for each station), also compressed. The content decides, not the name of the file.
    Names of columns are guessed, usual fill values become NaN, times are sorted and steps that are missing inserted.
    What was repaired is said in one UserWarning; `inspect_stations` gives the same and more as a list.

    Args:
        path: the file, or the folder of a zarr store.
        variable: keep this one, by its name in the file or ours. A wide table holds one variable: its name.
        units: {variable: units}, which overrule the file's; or the units of its only variable, or of all variables of
            which it names none.
        timezone: of clock times that carry none, such as "Europe/Dublin"; None is UTC. Hours that the change to winter
            time makes ambiguous are left out. Daily and monthly values keep their dates.
        stations: a table with the columns station, lat, lon, and optionally elevation and name, where the file has
            no places; matched by the station's id or name.
        columns: what is called how where guessing fails: {"time": "Datum", "station": "Ort"}; also "lat", "lon",
            "elevation", "name", "variable" and "value" (a table with a line for each value), and "time_format", such
            as "%d/%m/%Y".
    Returns:
        Dataset with dims (time, station) that passes `check_series`; coords station, lat, lon, elevation and name where
        known; times regular and in UTC, places of a grid as by `grid_to_nodes`.
    Raises:
        FileNotFoundError: nothing at ``path``.
        ImportError: a library for this kind of file is missing.
        TypeError: an argument is of the wrong type.
        ValueError: the file cannot be used; the message lists all that is wrong, with advice.
    """
    inspection = inspect_stations(
        path, variable=variable, units=units, timezone=timezone, stations=stations, columns=columns
    )
    if inspection.series is None:
        errors = inspection.errors
        raise errors[0].kind(f"{os.fspath(path)}: " + "\n".join(str(error)[len("error: ") :] for error in errors))
    doubts = [str(finding)[len("warning: ") :] for finding in inspection.findings if finding.level == "warning"]
    if doubts:
        warnings.warn(f"{os.fspath(path)}: " + "\n".join(doubts), UserWarning, stacklevel=2)
    return inspection.series


def inspect_stations(
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    units: str | Mapping[str, str] | None = None,
    timezone: str | None = None,
    stations: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Inspection:
    """What is in a file of weather at stations, what was repaired or assumed, and what is wrong with it.

    Args:
        path, variable, units, timezone, stations, columns: as for `open_stations`.
    Returns:
        The series, None if there is an error, and the findings. A bad file or option is a finding, not an exception.
    Raises:
        TypeError: an argument is of the wrong type.
    """
    text, place, texts = (str, type(None)), (str, os.PathLike), (Mapping, type(None))
    for name, value, kinds in (
        ("path", path, place),
        ("variable", variable, text),
        ("units", units, (str, *texts)),
        ("timezone", timezone, text),
        ("stations", stations, (*place, type(None))),
        ("columns", columns, texts),
    ):
        inside = [*value.keys(), *value.values()] if isinstance(value, Mapping) else []
        if not isinstance(value, kinds) or not all(isinstance(item, str) for item in inside):
            expected = " or ".join("{text: text}" if kind is Mapping else kind.__name__ for kind in kinds)
            raise TypeError(f"{name}: found {value!r}, expected {expected}".replace("NoneType", "None"))
    log = Log(variable=variable, units=units or {}, timezone=timezone, stations=stations, columns=dict(columns or {}))
    series = None
    try:
        if unknown := set(log.said["columns"]) - set(ROLES) - {"time_format"}:
            raise log.stop(
                f"columns: nothing is called {sorted(unknown)[0]!r} here", f"expected {', '.join(ROLES)}, time_format"
            )
        if timezone is not None:
            time_zone(timezone, log)
        with tempfile.TemporaryDirectory(prefix="stgcn-lab-") as scratch:
            found = _content(Path(path), Path(scratch), log)
            raw = from_table(found, log) if isinstance(found, pd.DataFrame) else from_fields(found, log)
            series = _finished(raw, log)
    except Stop:
        pass
    except ImportError as error:
        log.add("error", str(error), kind=ImportError)
    failed = any(finding.level == "error" for finding in log.found)
    order = {"error": 0, "warning": 1, "note": 2}
    return Inspection(None if failed else series, tuple(sorted(log.found, key=lambda finding: order[finding.level])))


# --- what kind of file it is ----------------------------------------------------------------------------------


def _content(path: Path, scratch: Path, log: Log) -> pd.DataFrame | list[xr.Dataset]:
    """The cells of a table, or the datasets of any other kind of file, by the first bytes of its content."""
    if "://" in str(path) or re.match(r"https?:/", str(path)):
        raise log.stop(f"{path} is an address, not a file", "download it first, with datasets.fetch, or see open_era5")
    try:
        if path.is_dir():
            if any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata")):
                return [open_fields(path, "zarr", log)]
            raise log.stop(f"{path} is a folder", "name one file in it; a zarr store has zarr.json or .zgroup inside")
        if not path.is_file():
            raise log.stop(f"there is no file at {path}", "look at the spelling and the folder", FileNotFoundError)
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise log.stop(f"{path} cannot be read: {error.strerror or error}", "look at its permissions") from error
    if not head:
        raise log.stop(f"{path.name} is empty (0 bytes)", "perhaps it was not downloaded or saved: get it anew")
    kind = next((kind for kind, starts in MAGIC.items() if head.startswith(starts)), None)
    if kind is None and b"GRIB" in head[:64] and b"\x00" in head:  # behind a heading of the weather services
        kind = "GRIB"
    if kind in REFUSED:
        raise log.stop(f"{path.name} is {kind}", REFUSED[kind])
    if kind is None and b"\x00" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise log.stop(f"{path.name} is neither a table nor NetCDF, GRIB or zarr", "is it the file that was meant?")
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise log.stop(f"{path.name} is a web page or XML", "open it: perhaps it is an error message of a server")
    if start.startswith((b"{", b"[{")):
        raise log.stop(f"{path.name} is JSON", "save the data as CSV")
    if kind is not None and kind in PACKED:
        return _content(_unpacked(path, kind, scratch, log), scratch / "inside", log)
    kind, suffix = kind or "table", path.suffix.lower()
    if suffix not in SUFFIXES[kind] and any(suffix in others for others in SUFFIXES.values()):
        log.warning(f"{path.name} is named {suffix} but is a {kind}", "it was read as what it is")
    if kind == "NetCDF":
        return [open_fields(path, "netcdf4", log)]
    if kind == "table":
        return read_cells(path, log)
    try:
        return read_grib(path)
    except ValueError as error:
        raise log.stop(str(error).removeprefix("path: ")) from error


def _unpacked(path: Path, kind: str, scratch: Path, log: Log) -> Path:
    """The one file inside a compressed one, written into the scratch folder under its own name."""
    scratch.mkdir(exist_ok=True)
    target = scratch / (path.stem if path.suffix.lower() in SUFFIXES["packed file"] else path.name)
    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
                if "[Content_Types].xml" in names:
                    raise log.stop(f"{path.name} is a workbook of Excel", "save the sheet as CSV")
                if len(names) != 1:
                    raise log.stop(f"{path.name} holds {len(names)} files: {shown(names)}", "unpack it and name one")
                target = scratch / Path(names[0]).name
                target.write_bytes(archive.read(names[0]))
        else:
            with PACKED[kind](path, "rb") as file:
                target.write_bytes(file.read())
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError) as error:
        reason = f"{path.name} is compressed but cannot be unpacked ({error})"
        raise log.stop(reason, "perhaps it is cut off or needs a password: get it anew") from error
    log.note(f"{target.name} was read from inside {path.name}")
    return target


# --- putting in order -----------------------------------------------------------------------------------------


def _finished(raw: xr.Dataset, log: Log) -> xr.Dataset:
    """A series in our units, regular in time, with a place for each station."""
    raw = _chosen(raw, log)
    log.alone = len(raw.data_vars) == 1
    for name in raw.data_vars:
        raw[name] = _measured(raw[name].transpose("time", "station"), str(name), log)
    if not isinstance(log.said["units"], str) and (unknown := set(log.said["units"]) - log.used):
        log.error(f"units: there is no variable {min(unknown)!r}", f"there are {shown(raw.data_vars)}")
    there = {name: ~np.isnan(raw[name].values) for name in raw.data_vars}
    if empty := [name for name in there if not there[name].any()]:
        if len(empty) == len(there):
            raise log.stop(f"all values of {shown(empty)} are missing", "is it the file that was meant?")
        log.warning(f"variables without any value were left out: {shown(empty)}")
        raw = raw.drop_vars(empty)
    silent = ~np.any([some.any(axis=0) for some in there.values()], axis=0)
    if silent.any():
        found = counted(silent.sum(), "station without any value was", "stations without any value were")
        log.warning(f"{found} left out: {shown(raw['station'].values[silent])}")
        raw = raw.isel(station=np.flatnonzero(~silent))
    raw = _regular(_located(raw, log), log)
    if raw.sizes["station"] < 2:
        log.error("there is one station only", "put several stations into one file: a graph needs them")
    for axis, standard in (("lat", "latitude"), ("lon", "longitude")):
        degrees = {"units": "degrees_north" if axis == "lat" else "degrees_east", "standard_name": standard}
        raw[axis] = ("station", raw[axis].values, degrees)
    if "elevation" in raw.coords:
        raw["elevation"] = ("station", raw["elevation"].values, {"units": "m", "standard_name": "surface_altitude"})
    raw["time"].attrs = {"standard_name": "time"}
    kept = ("title", "source", "institution", "references", "license", "history")
    raw.attrs = {"Conventions": "CF-1.8", "featureType": "timeSeries"} | {
        key: raw.attrs[key] for key in kept if isinstance(raw.attrs.get(key), str)
    }
    if any(finding.level == "error" for finding in log.found):
        raise Stop
    try:
        series = check_series(raw)
    except (TypeError, ValueError) as error:
        raise log.stop(str(error).removeprefix("series: ")) from error
    for name, array in series.data_vars.items():
        log.note(
            f"{name} in {array.attrs['units']}: {float(array.min()):.4g} to {float(array.max()):.4g}, "
            f"mean {float(array.mean()):.4g}, {float(array.isnull().mean()):.1%} missing"
        )
    return series


def _chosen(raw: xr.Dataset, log: Log) -> xr.Dataset:
    """The variables asked for, under our names where no two would share one."""
    ours = {name: our_name(name) or str(name) for name in raw.data_vars}
    ours = {name: new if list(ours.values()).count(new) == 1 else str(name) for name, new in ours.items()}
    renamed = {name: new for name, new in ours.items() if name != new}
    wanted = log.said["variable"]
    if wanted is not None:
        fits = [name for name, new in ours.items() if wanted in (name, new)]
        if not fits:
            raise log.stop(
                f"variable: there is no {wanted!r}", f"the file has {', '.join(map(str, raw.data_vars))[:300]}"
            )
        raw, renamed = raw[fits], {name: new for name, new in renamed.items() if name in fits and name != wanted}
    if renamed:
        log.note("renamed: " + ", ".join(f"{old} to {new}" for old, new in renamed.items()))
    for name in raw.data_vars:
        raw[name].attrs["name in the file"] = str(name)
    return raw.rename_vars(renamed)


def _measured(array: xr.DataArray, name: str, log: Log) -> xr.DataArray:
    """One variable in float64 and our units, NaN for fill values and for what no weather is."""
    values = array.values.astype(np.float64)
    kept = ("units", "long_name", "standard_name", "cell_methods", "comment")
    attrs = {key: array.attrs[key] for key in kept if array.attrs.get(key, "unknown") != "unknown"}
    if quantity := our_name(name):
        attrs.setdefault("standard_name", QUANTITIES[quantity][0])
    alike = [facts for facts in QUANTITIES.values() if facts[0] == attrs.get("standard_name")]
    _, expected, low, high = alike[0] if alike else ("", None, -np.inf, np.inf)

    def where(at: np.ndarray) -> str:
        i, j = np.argwhere(at)[0]
        return f"{values[i, j]:g} at station {array['station'].values[j]}, {stamp(array['time'].values[i])}"

    if (endless := np.isinf(values)).any():
        log.error(
            f"{name}: {counted(endless.sum(), 'value is', 'values are')} infinite, the first is {where(endless)}",
            "write them as missing",
        )
        values[endless] = np.nan
    values[_fills(values, name, log)] = np.nan
    unit = _units_of(attrs.get("units"), name, array.attrs["name in the file"], log)
    if unit is None or np.isnan(values).all():
        return array.copy(data=values).assign_attrs(attrs)
    ours, factor, summand = known_unit(unit) or (unit.replace("**", ""), 1.0, 0.0)
    rain = expected == "mm" or "precip" in str(attrs.get("standard_name"))
    difference = ours == "degC" and summand < -200 and np.nanmedian(values) < 150  # of temperatures: an anomaly
    if difference or (ours == "mm" and not rain):
        ours, factor, summand = "K" if difference else unit, 1.0, 0.0
    if expected and ours not in (expected, "K"):
        log.error(f"{name}: its units are {unit!r}", f"say the right ones with units={{'{name}': '{expected}'}}")
    elif (factor, summand) != (1.0, 0.0):
        log.note(f"{name}: converted from {unit} to {ours}")
        values = values * factor + summand if summand else values * factor
    elif known_unit(unit) is None:
        log.note(f"{name}: the units {unit!r} are not known here and were kept")
    if ours == "degC":
        middle = np.array([np.median(column[~np.isnan(column)]) for column in values.T if not np.isnan(column).all()])
        if (np.abs(middle - np.median(middle)) > 150).any():
            found = f"{middle.min():.0f} at one station and {middle.max():.0f} at another"
            log.error(f"{name}: units are mixed, usual values are {found}", "is one in kelvin? bring all to one unit")
    wrong = (values < low) | (values > high)
    if wrong.any():
        found = counted(wrong.sum(), "value is", "values are")
        what = f"{name}: {found} outside {low:g} to {high:g} {ours}, the first is {where(wrong)}"
        if wrong.sum() > 3 + 0.01 * np.isfinite(values).sum():
            log.error(what, f"are its units not {unit!r}? say them with units={{'{name}': ...}}")
        else:
            log.warning(what, "read as missing")
            values[wrong] = np.nan
    return array.copy(data=values).assign_attrs(attrs | {"units": ours})


def _fills(values: np.ndarray, name: str, log: Log) -> np.ndarray:
    """Where values are such as -999 and lie further away from all others than these do from each other.

    A number that is there often is compared with the middle 99 % of the others: one wild value then hides it no more.
    """
    low, high = (np.nanmin(values), np.nanmax(values)) if not np.isnan(values).all() else (0.0, 0.0)
    marks = np.abs(values) > 9e35
    for fill in FILLS[(low - 1 <= FILLS) & (high + 1 >= FILLS)]:
        marks |= np.abs(values - fill) <= 1e-6 * abs(fill)
    rest = values[~marks & ~np.isnan(values)]
    if rest.size:
        for kind in np.unique(values[marks]):
            same = values == kind
            often = same.sum() > max(10, (rest / kind > 0.5).sum())  # weather so extreme is no two times the same
            low, high = np.quantile(rest, [0.005, 0.995]) if often else (rest.min(), rest.max())
            if 2 * low - high <= kind <= 2 * high - low:
                marks[same] = False
    elif low != high:
        marks[:] = False
    if marks.any():
        kinds = ", ".join(f"{kind:g}" for kind in np.unique(values[marks])[:4])
        log.warning(f"{name}: {counted(marks.sum(), 'value is', 'values are')} {kinds}", "read as missing")
    return marks


def _units_of(found: object, name: str, original: str, log: Log) -> str | None:
    """The units that the caller says, or else the file."""
    said = log.said["units"]
    if isinstance(said, str):  # overrules what the file says of its only variable, else fills in
        found = said if log.alone or not found else found
    else:
        log.used |= {name, original}
        found = said.get(name) or said.get(original) or found
    if isinstance(found, str) and found.strip():
        return found.strip()
    usual = QUANTITIES[known][1] if (known := our_name(name)) else "m s-1"
    log.error(
        f"{name}: the file names no units",
        f"say them with units={{'{name}': '{usual}'}} or what they are, or keep another with variable=NAME",
    )
    return None


def _located(raw: xr.Dataset, log: Log) -> xr.Dataset:
    """Each station once, with latitude and longitude, by the table of stations where there is one."""
    raw = raw.assign_coords(station=[str(station).strip() for station in raw["station"].values])
    names = raw["station"].values
    if (twice := raw.indexes["station"].duplicated()).any():
        raise log.stop(
            f"{counted(twice.sum(), 'station is', 'stations are')} there more than once: {shown(names[twice])}",
            "name each differently",
        )
    if log.said["stations"] is not None:
        raw = _looked_up(raw, Path(log.said["stations"]), log)
    if "lat" not in raw.coords or "lon" not in raw.coords:
        raise log.stop(
            f"there are no places: no latitude and longitude for the stations {shown(names)}",
            "add them as lat and lon, or give stations=FILE, a table with the columns station, lat and lon",
        )
    lat, lon = (raw[axis].values.astype(np.float64) for axis in ("lat", "lon"))
    if (nowhere := ~np.isfinite(lat + lon)).any():
        found = counted(nowhere.sum(), "station has", "stations have")
        raise log.stop(f"{found} no latitude or longitude: {shown(names[nowhere])}", "add them")
    for axis, degrees, low, high in (("latitude", lat, -90, 90), ("longitude", lon, -180, 360)):
        if (wrong := (degrees < low) | (degrees > high)).any():
            log.error(
                f"{axis} {degrees[wrong][0]:g} of station {names[wrong][0]} is outside {low} to {high} degrees",
                "correct it, or swap latitude and longitude if they are in the other's place",
            )
    west, east = np.mod(lon + 180, 360) - 180, np.mod(lon, 360)
    turned = east if np.ptp(east) < np.ptp(west) else west  # no seam within the region: Greenwich, the date line
    if (lon > 180).any() or np.ptp(turned) < np.ptp(lon):
        if not np.allclose(turned, lon):
            log.note(f"longitudes are counted from {turned.min():g} to {turned.max():g} degrees")
        lon = turned
    same = pd.DataFrame({"lat": lat.round(5), "lon": lon.round(5)}).duplicated(keep=False).to_numpy()
    if same.any():
        log.warning(
            f"{same.sum()} stations share their place with another: {shown(names[same])}", "merge them if they are one"
        )
    if "grid" not in raw.attrs and ((lat == 0) & (lon == 0)).any():
        log.warning("a station lies at 0 N 0 E, in the sea off Ghana", "is its place missing?")
    return raw.assign_coords(lat=("station", lat), lon=("station", lon))


def _looked_up(raw: xr.Dataset, path: Path, log: Log) -> xr.Dataset:
    """Places of the stations from a table of them, found by id or by name."""
    with tempfile.TemporaryDirectory(prefix="stgcn-lab-") as scratch:
        table = _content(path, Path(scratch), log)
    if not isinstance(table, pd.DataFrame):
        raise log.stop(f"stations: {path.name} is no table", "write CSV with the columns station, lat and lon")
    taken = roles_of(table, Log(columns={}))
    if not {"station", "lat", "lon"} <= set(taken):
        raise log.stop(f"stations: {path.name} has the columns {shown(table.columns)}", "it needs station, lat and lon")
    places = list(zip(table[taken["lat"]], table[taken["lon"]], strict=True))
    rows: dict[str, dict[Any, int]] = {}  # of each id and name, a line for each place
    for role in ("name", "station"):  # an id beats a name
        found: dict[str, dict[Any, int]] = {}
        for row, cell in enumerate(table[taken[role]] if role in taken else ()):
            for key in (plain_name(cell).lstrip("0"), cell.strip()):
                found.setdefault(key, {})[places[row]] = row
        rows |= found
    names = raw["station"].values
    fits = [rows.get(name) or rows.get(plain_name(name).lstrip("0")) or {} for name in names]
    at = np.array([min(fit.values(), default=-1) for fit in fits])
    if (several := np.array([len(fit) > 1 for fit in fits])).any():
        raise log.stop(f"stations: {path.name} has several places for {shown(names[several])}", "keep one, or use ids")
    if (at < 0).any():
        raise log.stop(
            f"stations: {path.name} lacks {(at < 0).sum()} of the stations: {shown(names[at < 0])}", "add them to it"
        )
    table = table.iloc[at]
    coords = {axis: read_degrees(table[taken[axis]], axis, log) for axis in ("lat", "lon")}
    if "elevation" in taken:
        coords["elevation"] = read_numbers(table[taken["elevation"]], "elevation", log)[0]
    if "name" in taken:
        coords["name"] = table[taken["name"]].to_numpy(str)
    return raw.assign_coords({name: ("station", values) for name, values in coords.items()})


def _regular(raw: xr.Dataset, log: Log) -> xr.Dataset:
    """Times sorted, each once, and all steps there."""
    raw = raw.isel(time=np.flatnonzero(raw["time"].notnull()))
    times = raw.indexes["time"]
    if not times.is_monotonic_increasing:
        log.warning("times are not in order", "they were sorted")
        raw = raw.sortby("time")
        times = raw.indexes["time"]
    if (again := times.duplicated()).any():
        raw = _merged(raw, again, log)
        times = raw.indexes["time"]
    if len(times) < 3:
        raise log.stop(
            f"the file has {counted(len(times), 'time step', 'time steps')} only",
            "three are needed at least, and hundreds for a forecast",
        )
    axis = regular_axis(times)
    if axis is None:
        steps = pd.Series(np.diff(times)).value_counts().index[:3]
        raise log.stop(
            f"times have no regular step: {shown(map(step_name, steps.total_seconds()))} are between them",
            "average to hours, days or months first, for instance with resample of pandas",
        )
    own, full, label, moved = axis
    if moved and ("month" in label or "year" in label):
        log.note("months are called by the first of the month")
    elif moved:
        log.warning(f"times are not quite regular ({label})", f"they were moved, to {stamp(own[0])} and so on")
    raw = raw.assign_coords(time=own)
    if lacking := len(full) - len(own):
        gap = int(np.argmax(np.diff(own)))
        longest = f"the longest gap is from {stamp(own[gap])} to {stamp(own[gap + 1])}"
        what = f"{lacking} of {len(full)} steps ({label}) {'are' if lacking > 1 else 'is'} missing, {longest}"
        if len(full) > 3 * len(own):
            raise log.stop(
                what, "correct mistyped years, leave out the times before or after the gap, or average to longer steps"
            )
        log.warning(what, "they were inserted as missing values")
        raw = raw.reindex(time=full)
    log.note(f"{raw.sizes['station']} stations, {len(full)} steps ({label}) from {stamp(full[0])} to {stamp(full[-1])}")
    return raw


def _merged(raw: xr.Dataset, again: np.ndarray, log: Log) -> xr.Dataset:
    """Each time once: rows that repeat a time may fill its gaps, but not say something else."""
    times = raw.indexes["time"]
    kept = raw.isel(time=np.flatnonzero(~again))
    for row in np.flatnonzero(again):
        at = kept.indexes["time"].get_loc(times[row])
        for name in raw.data_vars:
            first, more = kept[name].values[at], raw[name].values[row]
            if ((first != more) & ~np.isnan(first) & ~np.isnan(more)).any():
                raise log.stop(
                    f"{name}: {stamp(times[row])} is there more than once with different values", "keep one of them"
                )
            kept[name].values[at] = np.where(np.isnan(first), more, first)
    log.warning(
        f"{counted(again.sum(), 'time is', 'times are')} there more than once, the first is {stamp(times[again][0])}",
        "they were merged",
    )
    return kept
