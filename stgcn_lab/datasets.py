"""Real weather (and a real power system) as xarray, the check of a reader's own series, grids as nodes and back.

Every embedded file is listed in `data/registry.json` with its source, licence and SHA-256; `data/README.md` of the
repository says how each was made. Values are float64, missing values NaN, units follow the CF conventions. Only
`load_era5_uk` downloads: a file with a known SHA-256, once. `open_era5` reads a store of the reader's choice, lazily.
"""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from ._checks import whole_number

DATA_DIR = Path(__file__).parent / "data"
REGIONS = ("europe", "east_asia", "north_america")
KNOT = 1852 / 3600  # m s-1: one nautical mile (1852 m) in one hour, by definition

# The one file that is fetched, not embedded: from the data that xarray's tutorial uses.
ERA5_UK = "era5-2mt-2019-03-uk.grib"
ERA5_UK_SHA256 = "e5e82609f0e28e84822852e15d20c88dbb4b142a30264a7e6f87b9b5c7501df9"
ERA5_UK_URL = f"https://github.com/pydata/xarray-data/raw/master/{ERA5_UK}"

# Units that a quantity may be given in, by its CF standard name; other quantities may have any units.
UNITS = {
    "air_temperature": ("degC", "degree_Celsius", "degrees_Celsius", "celsius", "Celsius", "K", "kelvin", "degF"),
    "wind_speed": ("m s-1", "m/s", "m s**-1", "km h-1", "km/h", "knot", "knots", "kn", "kt"),
    "lwe_thickness_of_precipitation_amount": ("mm", "cm", "m"),
}

# What the public archives of ERA5 call a variable, and what this package does.
ERA5_NAMES = {
    "2m_temperature": "air_temperature",
    "2m_dewpoint_temperature": "dew_point_temperature",
    "10m_u_component_of_wind": "eastward_wind",
    "10m_v_component_of_wind": "northward_wind",
    "mean_sea_level_pressure": "air_pressure_at_mean_sea_level",
    "total_precipitation": "precip",
}

Field = TypeVar("Field", xr.DataArray, xr.Dataset)


@functools.cache
def registry() -> dict[str, dict[str, Any]]:
    """Source, version, reference, licence, period, rebuild script and files of each embedded data set.

    Returns:
        {data set: {"title", "package", ..., "files": {file name: {"sha256", "bytes"}}}}.
    """
    entries: dict[str, dict[str, Any]] = json.loads((DATA_DIR / "registry.json").read_text(encoding="utf-8"))
    return entries


@functools.cache
def embedded(name: str) -> Path:
    """Path of an embedded file, after its SHA-256 has been checked (once per process).

    Args:
        name: file name relative to the package's data folder, such as "irish_wind.nc".
    Returns:
        The path of the file.
    Raises:
        ValueError: no such name in the registry, or the file is damaged.
        FileNotFoundError: the file is in the registry but not in the package.
    """
    files = {file: facts for entry in registry().values() for file, facts in entry["files"].items()}
    if name not in files:
        raise ValueError(f"name: no embedded file {name!r}; expected one of {sorted(files)}")
    path = DATA_DIR / name
    if not path.is_file():
        raise FileNotFoundError(f"embedded file {name} is missing from {DATA_DIR}; please reinstall stgcn-lab")
    content = path.read_bytes()
    found, expected = hashlib.sha256(content).hexdigest(), files[name]["sha256"]
    if found != expected:
        raise ValueError(
            f"embedded file {name} is damaged: found SHA-256 {found} ({len(content)} bytes), expected {expected} "
            f"({files[name]['bytes']} bytes); please reinstall stgcn-lab"
        )
    return path


def _load(name: str) -> xr.Dataset:
    """One embedded NetCDF file, unpacked, in memory, with the file closed again."""
    with xr.open_dataset(embedded(name), engine="netcdf4") as opened:
        # Without the packing instructions: they would silently round what a reader derives and saves.
        dataset = opened.load().drop_encoding()
    if "station" in dataset.dims:  # stored station by station
        dataset = dataset.transpose("time", "station")
    names = {key: values.astype(str) for key, values in dataset.coords.items() if values.dtype.kind == "O"}
    return dataset.assign_coords(names)


def load_irish_wind() -> xr.Dataset:
    """Daily mean wind at 12 Irish stations, 1961-1978.

    The file holds knots in steps of 0.01; the loader multiplies by 1852/3600. All days are there, with the four
    29ths of February; the published benchmark leaves those out: see `drop_leap_days`.

    Returns:
        Dataset with wind_speed (time 6574, station 12) in m s-1; coords time, station (code), name, lat, lon.
    Source:
        Haslett & Raftery (1989), doi:10.2307/2347679.
    """
    dataset = _load("irish_wind.nc")
    attrs = dataset["wind_speed"].attrs | {"units": "m s-1"}
    dataset["wind_speed"] = (dataset["wind_speed"] * KNOT).assign_attrs(attrs)
    return dataset


def load_reanalysis(region: str) -> xr.Dataset:
    """Monthly mean air temperature near the surface on a 2.5 degree grid, 1948-01 to 2026-02.

    Args:
        region: "europe" (27.5-72.5 N, 15 W-60 E), "east_asia" (10-55 N, 80-155 E) or
            "north_america" (20-65 N, 130-55 W).
    Returns:
        Dataset with air_temperature (time 938, lat 19, lon 31) in degC; time is the first of the month,
        lat and lon ascend.
    Raises:
        ValueError: unknown region.
    Source:
        NCEP/NCAR Reanalysis 1; Kalnay et al. (1996).
    """
    if region not in REGIONS:
        raise ValueError(f"region: found {region!r}, expected one of {list(REGIONS)}")
    return _load(f"reanalysis_{region}.nc")


def load_winter_height() -> xr.Dataset:
    """Winter mean height of the 500 hPa surface over the North Atlantic and Europe, 1948-2012, 2.5 degree grid.

    A winter is called by the year of its January: time is 1 January, and 1948 is the mean of December 1947 to
    February 1948. The first winter lacks its December, before the reanalysis begins. The row at 90 N is one place
    49 times over: leave it out before `grid_to_nodes`.

    Returns:
        Dataset with geopotential_height (time 65, lat 29, lon 49) in m; lat and lon ascend, 20-90 N, 80 W-40 E.
    Source:
        NCEP/NCAR Reanalysis 1; Kalnay et al. (1996).
    """
    return _load("winter_height.nc")


def load_colorado() -> xr.Dataset:
    """Monthly temperature and precipitation at 376 stations in and around Colorado, 1895-1997.

    About six tenths of the values are missing (NaN); 0 degC and 0 mm are measurements.

    Returns:
        Dataset with tmin, tmax (degC) and precip (mm, monthly total), each (time 1236, station 376); time is the
        first of the month; coords time, station (identifier), name, lat, lon, elevation (m).
    Source:
        US co-operative observer network; Johns, Nychka, Kittel & Daly (2003).
    """
    return _load("colorado.nc")


def load_electricity_demand() -> xr.Dataset:
    """Half-hourly electricity demand of Victoria and the temperature in Melbourne, 2014.

    The clock is Australian Eastern Standard Time (UTC+10) all year: summer time does not shift it.

    Returns:
        Dataset with demand (GW), temperature (degC) and workday (1 or 0, units "1"), each (time 17520).
    Source:
        AEMO and Bureau of Meteorology; Hyndman & Athanasopoulos (2018), table elecdemand.
    """
    return _load("electricity_demand.nc")


def load_pacific() -> xr.Dataset:
    """Monthly temperature of the tropical Pacific in two series, the sea's off Peru and the air's on the equator.

    Each series is NaN where it has no value: the sea's covers 1950-2010, the air's 1948-01 to 2026-02. A month's mean
    is known only when the month is over: see :func:`stgcn_lab.windows.known_at`.

    Returns:
        Dataset with sst_nino12 (sea surface, 0-10 S, 90-80 W) and air_nino34 (near the surface, 5 S-5 N, 170-120 W),
        each (time 938) in degC; time is the first of the month.
    Source:
        NOAA Climate Prediction Center, ERSST.v3b; Smith et al. (2008), doi:10.1175/2007JCLI2100.1. NCEP/NCAR
        Reanalysis 1; Kalnay et al. (1996).
    """
    return _load("pacific.nc")


def load_era5_uk(path: str | os.PathLike[str] | None = None) -> xr.Dataset:
    """Hourly temperature 2 m above the ground over Great Britain and Ireland, March 2019, on a 0.25 degree grid.

    The file (2.5 MB) is not part of the package. Without ``path`` it is looked for in the folder that the environment
    variable STGCN_LAB_DATA names, then in the user's cache, and if it is in neither it is downloaded once into the
    cache, for which pooch is needed: ``pip install "stgcn-lab[era5]"``. Its SHA-256 is checked wherever it is from.

    Args:
        path: the file "era5-2mt-2019-03-uk.grib", where the reader already has it.
    Returns:
        Dataset with air_temperature (time 744, lat 33, lon 49) in degC, 50-58 N, 10 W-2 E; time is UTC, lat and lon
        ascend.
    Raises:
        ImportError: the file is neither given nor in STGCN_LAB_DATA, and pooch is missing.
        FileNotFoundError: no file at ``path``, or STGCN_LAB_DATA names no folder.
        ValueError: the file is another one, or damaged.
        ConnectionError: the file could not be downloaded.
    Source:
        ERA5, Copernicus Climate Change Service; Hersbach et al. (2020), doi:10.1002/qj.3803.
    """
    content = _era5_content() if path is None else _checked_era5(Path(path), "path")
    kelvin = _decode_era5(content)[:, ::-1]  # stored from north to south
    coords = {
        "time": ("time", pd.date_range("2019-03-01", periods=744, freq="h").to_numpy(), {"standard_name": "time"}),
        "lat": ("lat", np.linspace(50, 58, 33), {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", np.linspace(-10, 2, 49), {"units": "degrees_east", "standard_name": "longitude"}),
    }
    attrs = {"units": "degC", "long_name": "air temperature at 2 m", "standard_name": "air_temperature"}
    return xr.Dataset(
        {"air_temperature": (("time", "lat", "lon"), kelvin - 273.15, attrs)},
        coords,
        {
            "Conventions": "CF-1.8",
            "title": "ERA5 hourly temperature at 2 m over Great Britain and Ireland, March 2019",
            "source": "ERA5 reanalysis, ECMWF; Copernicus Climate Change Service",
            "references": "Hersbach, H. et al. (2020). The ERA5 global reanalysis. Quarterly Journal of the Royal "
            "Meteorological Society 146, 1999-2049. doi:10.1002/qj.3803",
            "license": "Contains modified Copernicus Climate Change Service information 2019",
        },
    )


def _decode_era5(content: bytes) -> np.ndarray:
    """Kelvin (time, lat from north to south, lon) from the 744 GRIB messages of the file.

    Not with ecCodes: its libraries bring a PROJ of their own, and a process that has loaded them and then cartopy
    crashes. The checksum vouches for the layout, which is the same in all messages: edition 1, regular grid, row by
    row, no gaps, 16-bit whole numbers X that stand for ``R + 2^E X``.
    """
    messages = np.frombuffer(content, np.uint8).reshape(744, -1)

    def whole(first: int, last: int) -> np.ndarray:
        return messages[:, first:last].astype(np.int64) @ 256 ** np.arange(last - first - 1, -1, -1)

    # Negative numbers are a sign bit and a magnitude; R is in IBM's format, 24 bits and a power of 16.
    scale, packed = whole(96, 98), whole(98, 102)
    exponent = np.where(scale >> 15, -(scale & 0x7FFF), scale)
    reference = np.where(packed >> 31, -1, 1) * (packed & 0xFFFFFF) / 2**24 * 16.0 ** ((packed >> 24 & 0x7F) - 64)
    values = messages[:, 103 : 103 + 2 * 33 * 49].copy().view(">u2").astype(np.float64)
    return (reference[:, None] + values * 2.0 ** exponent[:, None]).reshape(744, 33, 49)


def _era5_content() -> bytes:
    """The reader's own copy, the one in the cache, or a fresh download."""
    named = os.environ.get("STGCN_LAB_DATA")
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"STGCN_LAB_DATA: expected a folder, found none at {folder}")
        if (folder / ERA5_UK).exists():
            return _checked_era5(folder / ERA5_UK, "STGCN_LAB_DATA")
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            'load_era5_uk: expected pooch for the download, found none; pip install "stgcn-lab[era5]", or download '
            f"{ERA5_UK_URL} yourself and give path=..."
        ) from error
    cache = pooch.os_cache("stgcn-lab")
    try:
        # pooch writes beside the file, checks, then renames: what is in the cache is whole.
        return Path(pooch.retrieve(ERA5_UK_URL, f"sha256:{ERA5_UK_SHA256}", ERA5_UK, cache)).read_bytes()
    except (OSError, ValueError) as error:  # no network, a full disk; ValueError: what came has another checksum
        raise ConnectionError(
            f"load_era5_uk: could not download {ERA5_UK_URL} into {cache}: {error}. Without a network, download the "
            "file elsewhere and give path=..., or set STGCN_LAB_DATA to the folder that holds it"
        ) from error


def _checked_era5(path: Path, argument: str) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: expected the file {ERA5_UK}, found none at {path}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != ERA5_UK_SHA256:
        raise ValueError(
            f"{argument}: expected {ERA5_UK} with SHA-256 {ERA5_UK_SHA256}, found {found} ({len(content)} bytes) "
            f"at {path}; it is another file or was not downloaded whole: delete it and get it from {ERA5_UK_URL}"
        )
    return content


def open_era5(
    store: str | os.PathLike[str],
    variables: str | Sequence[str],
    region: tuple[float, float, float, float] | None = None,
    time: tuple[Any, Any] | slice | None = None,
    *,
    chunk: int = 24,
    storage_options: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Variables of ERA5 from a zarr store in the layout of the public archives, read when they are computed.

    Such a store has the dims time, latitude and longitude (0 to 360 degrees), a chunk for each hour of the whole globe,
    and consolidated metadata, so that opening takes a handful of requests however large it is. What is computed later
    reads the hours that it needs, ``chunk`` at a time, and keeps of each the region alone.

    Args:
        store: folder, or URL that fsspec understands, such as "https://host/path/era5.zarr".
        variables: names in the store. Those in `ERA5_NAMES`, such as "2m_temperature", are given the names of this
            package; the others keep theirs.
        region: (south, north, west, east) in degrees, borders included; west below east, so a region across Greenwich
            has a negative west, and one across the date line an east above 180. None is the globe from 180 W.
        time: (first, last) or a slice of dates such as ("2019-03-01", "2019-03-07"), both included; None is all.
        chunk: time steps that are read together, as one task of dask.
        storage_options: passed on to fsspec, such as {"token": "anon"} for gs://, which needs gcsfs.
    Returns:
        Lazy Dataset with dims (time, lat, lon), lat and lon ascending; values as stored (float32), but kelvin as degC
        and metres of precipitation as mm.
    Raises:
        ImportError: zarr or dask is missing, which the extra "scale" brings.
        FileNotFoundError: no zarr store at ``store``.
        ConnectionError: the URL cannot be read.
        TypeError, ValueError: ``store`` is no zarr store of that layout, or has no such variable, cell or time.
    Source:
        ERA5, Copernicus Climate Change Service; Hersbach et al. (2020), doi:10.1002/qj.3803.
    """
    names = [variables] if isinstance(variables, str) else list(variables) if isinstance(variables, Sequence) else []
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"variables: found {variables!r}, expected the name of at least one variable, each once")
    chunk = whole_number(chunk, "chunk")
    opened = _opened(store, storage_options)
    if unknown := [name for name in names if name not in opened.data_vars]:
        raise ValueError(f"variables: found {unknown[0]!r}, expected some of {sorted(map(str, opened.data_vars))}")
    opened = opened[names]
    for name, variable in opened.data_vars.items():
        if set(variable.dims) != {"time", "latitude", "longitude"}:
            raise ValueError(
                f"variables: found dims {variable.dims} of {name!r}, expected time, latitude and longitude, no levels"
            )
        if not isinstance(variable.attrs.get("units"), str):
            raise ValueError(f"variables: found no units of {name!r} in the store, expected them in its attributes")
    rows, columns, lon = _cells(opened["latitude"].values, opened["longitude"].values, region)
    opened = _between(opened, time).isel(latitude=rows, longitude=columns)
    # Chunks only now: a task reads its hours and keeps the cells that were asked for, in one step.
    opened = opened.chunk(time=chunk, latitude=-1, longitude=-1).transpose("time", "latitude", "longitude")
    found = opened.rename(latitude="lat", longitude="lon").reset_coords(drop=True)
    coords = {
        "time": found["time"].variable,
        "lat": ("lat", found["lat"].values.astype(np.float64), {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    data = {ERA5_NAMES.get(str(name), str(name)): _in_our_units(v, str(name)) for name, v in found.data_vars.items()}
    return xr.Dataset({name: value.variable for name, value in data.items()}, coords, opened.attrs).drop_encoding()


def _opened(store: Any, storage_options: dict[str, Any] | None) -> xr.Dataset:
    """The store, with nothing read but its coordinates."""
    if not isinstance(store, (str, os.PathLike)):
        raise TypeError(f"store: found {type(store).__name__}, expected a path or a URL")
    store = os.fspath(store)
    remote = "://" in store
    try:
        import dask  # noqa: F401
        import zarr  # noqa: F401

        if remote:
            import aiohttp  # noqa: F401
            import fsspec  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'open_era5: expected {error.name}, found none; pip install "stgcn-lab[scale]"', name=error.name
        ) from error
    options = {"storage_options": storage_options} if storage_options else {}
    try:
        # cache=False: what has been computed is not kept behind the caller's back
        opened = xr.open_dataset(store, engine="zarr", chunks=None, cache=False, **options)  # type: ignore[arg-type]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"store: expected a zarr store, found none at {store}") from error
    except ValueError as error:  # an unknown kind of URL, damaged metadata
        raise ValueError(f"store: expected a zarr store, found none that can be read at {store}: {error}") from error
    except OSError as error:  # aiohttp's failed connections among them
        raise ConnectionError(f"store: could not read {store}: {error}") from error
    for axis in ("time", "latitude", "longitude"):
        if axis not in opened.indexes:
            raise ValueError(
                f"store: found dims {tuple(opened.dims)}, expected time, latitude and longitude, each with a coordinate"
            )
    return opened


def _cells(lat: np.ndarray, lon: np.ndarray, region: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows from south to north and columns from west to east that lie in a region, and the longitudes as it has them.

    Longitudes are counted eastwards from the western border, so it does not matter where the store begins.
    """
    try:
        south, north, west, east = (-90, 90, -180, 180) if region is None else map(float, region)
    except (TypeError, ValueError) as error:
        raise ValueError(f"region: found {region!r}, expected (south, north, west, east) in degrees") from error
    if not (-90 <= south <= north <= 90 and -180 <= west <= east <= 360 and east - west <= 360):
        raise ValueError(
            f"region: found {region!r}, expected (south, north, west, east) with -90 <= south <= north <= 90 and "
            "-180 <= west <= east <= 360; across Greenwich west is negative, across the date line east is above 180"
        )
    tiny = 1e-6  # a cell on the border belongs to the region, whatever its last digit
    rows = np.argsort(lat, kind="stable")
    rows = rows[(lat[rows] >= south - tiny) & (lat[rows] <= north + tiny)]
    eastward = np.mod(lon.astype(np.float64) - west + tiny, 360) - tiny
    columns = np.argsort(eastward, kind="stable")
    columns = columns[eastward[columns] <= east - west + tiny]
    if not rows.size or not columns.size:
        raise ValueError(
            f"region: no cell of the store lies in {region!r}; its latitudes are {lat.min():g} to {lat.max():g}, "
            f"its longitudes {lon.min():g} to {lon.max():g}"
        )
    return rows, columns, np.round(west + eastward[columns], 5)


def _between(opened: xr.Dataset, time: Any) -> xr.Dataset:
    """The steps of a period, both ends included."""
    times = opened.indexes["time"]
    if not (times.is_monotonic_increasing and times.is_unique):
        raise ValueError("store: expected times in ascending order, each once")
    if time is None:
        return opened
    try:
        first, last, step = (time.start, time.stop, time.step) if isinstance(time, slice) else (*time, None)
        if step is not None:
            raise ValueError("steps between are not left out here")
        part = opened.sel(time=slice(first, last))
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"time: found {time!r}, expected (first, last) such as ('2019-03-01', '2019-03')") from error
    if part.sizes["time"] == 0:
        raise ValueError(f"time: found no step in {time!r}; the store covers {times[0]} to {times[-1]}")
    return part


def _in_our_units(variable: xr.DataArray, name: str) -> xr.DataArray:
    units = variable.attrs["units"]
    attrs = variable.attrs | {"units": units.replace("**", "")}
    if units == "K":
        return (variable - 273.15).assign_attrs(attrs | {"units": "degC"})
    if units == "m" and name == "total_precipitation":
        return (variable * 1000).assign_attrs(attrs | {"units": "mm"})
    return variable.assign_attrs(attrs)


def coastlines_dir() -> Path:
    """Folder with Natural Earth coastlines (110m and 50m) for cartopy's "pre_existing_data_dir".

    Returns:
        The folder that holds shapefiles/natural_earth/physical/, after every file has been checked.
    Raises:
        ValueError, FileNotFoundError: a file is damaged or missing.
    """
    for name in registry()["coastlines"]["files"]:
        embedded(name)
    return DATA_DIR


def drop_leap_days(field: Field) -> Field:
    """Leave out every 29 February, so that each year has 365 days.

    Args:
        field: a DataArray or Dataset with a datetime coordinate time.
    Returns:
        The same without those days.
    """
    return field.sel(time=~((field["time"].dt.month == 2) & (field["time"].dt.day == 29)))


def _as_dataset(field: Field, argument: str) -> xr.Dataset:
    if isinstance(field, xr.Dataset):
        return field
    if isinstance(field, xr.DataArray):
        return field.to_dataset(name="__field__")
    raise TypeError(f"{argument}: found {type(field).__name__}, expected an xarray DataArray or Dataset")


def _like(dataset: xr.Dataset, field: Field) -> Field:
    return dataset if isinstance(field, xr.Dataset) else dataset["__field__"].rename(field.name)


def grid_to_nodes(field: Field) -> Field:
    """Turn each cell of a latitude-longitude grid into a node.

    Cell (i, j) of a grid with n_lon columns becomes node i * n_lon + j (latitude by latitude).

    Args:
        field: DataArray or Dataset with dims lat and lon, and any others such as time; missing values stay.
    Returns:
        The same with dim station in place of lat and lon (last), coords station (node number), lat, lon.
    Raises:
        TypeError: not xarray.
        ValueError: lat or lon is missing, or is no 1-D coordinate of different values; a variable has one of the
            two only.
    """
    dataset = _as_dataset(field, "field")
    for axis in ("lat", "lon"):
        if axis not in dataset.dims or axis not in dataset.indexes:
            raise ValueError(f"field: found dims {tuple(dataset.dims)}, expected lat and lon, each with a coordinate")
        if not dataset.indexes[axis].is_unique:
            raise ValueError(f"field: found repeated values in the coordinate {axis}, expected different ones")
    if "station" in dataset.variables or "station" in dataset.dims:
        raise ValueError("field: found a dim or variable 'station', expected a grid without stations")
    lat, lon = dataset["lat"].variable, dataset["lon"].variable
    variables: dict[Any, xr.Variable] = {}
    for key, variable in dataset.drop_vars(["lat", "lon"]).variables.items():
        both = {"lat", "lon"} & set(variable.dims)
        if len(both) == 1:
            raise ValueError(f"field: variable {key!r} has dims {variable.dims}, expected lat and lon, or neither")
        variables[key] = variable.stack(station=("lat", "lon")) if both else variable
    coords = {
        "station": xr.Variable("station", np.arange(lat.size * lon.size), {"long_name": "node number"}),
        "lat": xr.Variable("station", np.repeat(lat.values, lon.size), lat.attrs),
        "lon": xr.Variable("station", np.tile(lon.values, lat.size), lon.attrs),
    } | {key: value for key, value in variables.items() if key in dataset.coords}
    data = {key: value for key, value in variables.items() if key not in dataset.coords}
    return _like(xr.Dataset(data, coords, dataset.attrs), field)


def nodes_to_grid(field: Field) -> Field:
    """Turn the nodes made by `grid_to_nodes` back into a grid: its exact inverse.

    Args:
        field: DataArray or Dataset with dim station and coords lat, lon that cover a whole grid, latitude by
            latitude.
    Returns:
        The same with dims lat, lon (last) in place of station.
    Raises:
        TypeError: not xarray.
        ValueError: lat or lon is missing, or the stations are not a whole grid in that order.
    """
    dataset = _as_dataset(field, "field")
    for axis in ("lat", "lon"):
        if axis not in dataset.coords or dataset[axis].dims != ("station",):
            raise ValueError(f"field: found coords {sorted(map(str, dataset.coords))}, expected {axis} over station")
    lat, lon = (pd.unique(dataset[axis].values) for axis in ("lat", "lon"))
    whole = dataset.sizes["station"] == lat.size * lon.size
    if not whole or not (
        np.array_equal(dataset["lat"].values, np.repeat(lat, lon.size))
        and np.array_equal(dataset["lon"].values, np.tile(lon, lat.size))
    ):
        raise ValueError(
            f"field: found {dataset.sizes['station']} stations at {lat.size} latitudes and {lon.size} longitudes, "
            f"expected all {lat.size * lon.size} cells of that grid, latitude by latitude"
        )
    sizes = {"lat": lat.size, "lon": lon.size}
    rest = dataset.drop_vars([key for key in ("station", "lat", "lon") if key in dataset.variables])
    variables = {
        key: variable.unstack(station=sizes) if "station" in variable.dims else variable
        for key, variable in rest.variables.items()
    }
    coords = {
        "lat": xr.Variable("lat", lat, dataset["lat"].attrs),
        "lon": xr.Variable("lon", lon, dataset["lon"].attrs),
    } | {key: value for key, value in variables.items() if key in dataset.coords}
    data = {key: value for key, value in variables.items() if key not in dataset.coords}
    return _like(xr.Dataset(data, coords, dataset.attrs), field)


def _check_variable(label: str, variable: xr.DataArray, units: str | None) -> None:
    """Dims, kind of number, no infinities, and units of one variable of a series."""
    if set(variable.dims) != {"time", "station"}:
        raise ValueError(f"{label}: found dims {variable.dims}, expected ('time', 'station')")
    if 0 in variable.shape:
        raise ValueError(f"{label}: found {dict(variable.sizes)}, expected at least one time and one station")
    if variable.dtype.kind not in "fiub":
        raise TypeError(f"{label}: found dtype {variable.dtype}, expected numbers")
    if np.isinf(variable.values).any():
        raise ValueError(f"{label}: found infinite values, expected finite ones and NaN where missing")
    found = variable.attrs.get("units")
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"{label}: found units {found!r}, expected CF units in attrs['units'], such as 'm s-1'")
    expected = (units,) if units is not None else UNITS.get(variable.attrs.get("standard_name", ""), (found,))
    if found not in expected:
        raise ValueError(f"{label}: found units {found!r}, expected {' or '.join(map(repr, expected))}")
    if found in UNITS["air_temperature"][:5] and variable.min() > 150:  # no weather is that hot; 150 K is too cold
        raise ValueError(f"{label}: found no value below 150 in {found}, expected degrees Celsius (is it kelvin?)")


def check_series(series: Field, name: str = "series", units: str | None = None) -> Field:
    """Check a station series and put it in the order (time, station).

    Args:
        series: DataArray, or Dataset of variables, with dims time and station, a time coordinate, coords lat and
            lon in degrees over station, and attrs["units"] on every variable; missing values are NaN.
        name: how error messages call the series.
        units: the units every variable must have; None accepts any that fit its standard_name.
    Returns:
        The series, dims in the order (time, station).
    Raises:
        TypeError: not xarray, or not numbers.
        ValueError: dims, an empty axis, infinite values, units, times that are missing, unsorted or repeated,
            repeated stations, or impossible coordinates.
    """
    if not isinstance(series, (xr.DataArray, xr.Dataset)):
        raise TypeError(f"{name}: found {type(series).__name__}, expected an xarray DataArray or Dataset")
    if isinstance(series, xr.DataArray):
        variables = {name: series}
    else:
        variables = {f"{name}[{key!r}]": variable for key, variable in series.data_vars.items()}
    if not variables:
        raise ValueError(f"{name}: found a Dataset without data variables, expected at least one")
    for label, variable in variables.items():
        _check_variable(label, variable, units)

    if "time" not in series.indexes:
        raise ValueError(f"{name}: found no coordinate 'time', expected one time stamp per step")
    times = series.indexes["time"]
    if pd.api.types.is_string_dtype(times):
        raise TypeError(
            f"{name}: found times as text such as {times[0]!r}, expected dates; convert with pd.to_datetime"
        )
    if times.hasnans:
        raise ValueError(f"{name}: found a missing time stamp, expected one per step")
    if not times.is_monotonic_increasing:
        at = next(i for i in range(1, len(times)) if times[i] < times[i - 1])
        raise ValueError(f"{name}: found time {times[at]} after {times[at - 1]}, expected times in ascending order")
    for axis in ("time", "station"):
        if axis in series.indexes and not series.indexes[axis].is_unique:
            twice = series.indexes[axis][series.indexes[axis].duplicated()][0]
            raise ValueError(f"{name}: found {axis} {twice} more than once, expected each {axis} once")

    for axis, low, high in (("lat", -90, 90), ("lon", -180, 360)):
        if axis not in series.coords or series[axis].dims != ("station",):
            raise ValueError(f"{name}: found no coordinate {axis!r} over station, expected degrees for each station")
        degrees = series[axis]
        if not str(degrees.attrs.get("units", "degrees")).startswith("degree"):
            raise ValueError(f"{name}: found {axis} in {degrees.attrs['units']!r}, expected degrees")
        if degrees.dtype.kind not in "fiu":
            raise TypeError(f"{name}: found {axis} of dtype {degrees.dtype}, expected degrees as numbers")
        wrong = ~((degrees.values >= low) & (degrees.values <= high))  # NaN is wrong too
        if wrong.any():
            raise ValueError(f"{name}: found {axis} {degrees.values[wrong][0]}, expected {low} to {high} degrees")
    return series.transpose("time", "station")
