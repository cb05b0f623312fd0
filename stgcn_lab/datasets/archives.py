"""Public archives of past weather: ERA5 as one file and as a zarr store of any size."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .._checks import number, whole_number
from ._grib import read_grib
from .download import _shown, cache_dir, fetch

# The one file that is fetched, not embedded: from the data that xarray's tutorial uses.
ERA5_UK = "era5-2mt-2019-03-uk.grib"
ERA5_UK_SHA256 = "e5e82609f0e28e84822852e15d20c88dbb4b142a30264a7e6f87b9b5c7501df9"
ERA5_UK_URL = f"https://github.com/pydata/xarray-data/raw/master/{ERA5_UK}"

# The public copy of all of ERA5 that is kept up to date, hourly from 1940 at 0.25 degrees: anyone may read it. The name
# ends in "v3" because it is the third edition; its format is zarr 2. See https://github.com/google-research/arco-era5
ERA5_ARCHIVE = "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3"

# What the public archives of ERA5 call a variable, and what this package does.
ERA5_NAMES = {
    "2m_temperature": "air_temperature",
    "2m_dewpoint_temperature": "dew_point_temperature",
    "10m_u_component_of_wind": "eastward_wind",
    "10m_v_component_of_wind": "northward_wind",
    "mean_sea_level_pressure": "air_pressure_at_mean_sea_level",
    "total_precipitation": "precip",
}


def load_era5_uk(path: str | os.PathLike[str] | None = None) -> xr.Dataset:
    """Hourly temperature 2 m above the ground over Great Britain and Ireland, March 2019, on a 0.25 degree grid.

    The file (2.5 MB) is not part of the package. Without ``path`` it is looked for in the folder that the environment
    variable STGCN_LAB_DATA names, then in the cache (`cache_dir`), and if it is in neither it is downloaded once into
    the cache by `fetch`. Its SHA-256 is checked wherever it is from. It is in GRIB, for which cfgrib is needed:
    ``pip install "stgcn-lab[grib]"``.

    Args:
        path: the file "era5-2mt-2019-03-uk.grib", where the reader already has it.
    Returns:
        Dataset with air_temperature (time 744, lat 33, lon 49) in degC, 50-58 N, 10 W-2 E; time is UTC, lat and lon
        ascend.
    Raises:
        ImportError: cfgrib is missing, which the extra "grib" brings.
        FileNotFoundError: no file at ``path``, or STGCN_LAB_DATA names no folder.
        ValueError: the file is another one, or damaged.
        ConnectionError: the file could not be downloaded.
    Source:
        ERA5, Copernicus Climate Change Service; Hersbach et al. (2020), doi:10.1002/qj.3803.
    """
    [field] = read_grib(_era5_file() if path is None else _checked_era5(Path(path), "path"))
    field = field.sortby("latitude")  # stored from north to south
    coords = {
        "time": ("time", field["time"].values, {"standard_name": "time"}),
        "lat": ("lat", field["latitude"].values, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", field["longitude"].values, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    attrs = {"units": "degC", "long_name": "air temperature at 2 m", "standard_name": "air_temperature"}
    return xr.Dataset(
        {"air_temperature": (("time", "lat", "lon"), field["t2m"].values - 273.15, attrs)},
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


def _era5_file() -> Path:
    """The reader's own copy, the one in the cache, or a fresh download."""
    named = os.environ.get("STGCN_LAB_DATA")
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"STGCN_LAB_DATA: expected a folder, found none at {folder}")
        if (folder / ERA5_UK).exists():
            return _checked_era5(folder / ERA5_UK, "STGCN_LAB_DATA")
    try:
        return fetch(ERA5_UK_URL, ERA5_UK, sha256=ERA5_UK_SHA256)
    except (OSError, ValueError) as error:  # no network, a full disk; ValueError: what came has another checksum
        raise ConnectionError(
            f"load_era5_uk: could not download {ERA5_UK_URL}: {error} Without a network, download the file elsewhere "
            "and give path=..., or set STGCN_LAB_DATA to the folder that holds it"
        ) from error


def _checked_era5(path: Path, argument: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: expected the file {ERA5_UK}, found none at {path}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != ERA5_UK_SHA256:
        raise ValueError(
            f"{argument}: expected {ERA5_UK} with SHA-256 {ERA5_UK_SHA256}, found {found} ({len(content)} bytes) "
            f"at {path}; it is another file or was not downloaded whole: delete it and get it from {ERA5_UK_URL}"
        )
    return path


def open_era5(
    store: str | os.PathLike[str],
    variables: str | Sequence[str],
    region: tuple[float, float, float, float] | None = None,
    time: tuple[Any, Any] | slice | None = None,
    *,
    chunk: int = 24,
    preliminary: bool = False,
    cache: bool | str | os.PathLike[str] = False,
    retries: int = 4,
    backoff: float = 0.5,
    timeout: float = 30.0,
    storage_options: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Variables of ERA5 from a zarr store in the layout of the public archives, read when they are computed.

    Such a store has the dims time, latitude and longitude (0 to 360 degrees), a chunk for each hour of the whole globe,
    and consolidated metadata, so that opening takes a handful of requests however large it is. What is computed later
    reads the hours that it needs, ``chunk`` at a time, and keeps of each the region alone.

    `ERA5_ARCHIVE` is the address of a store of all of ERA5. An hour of the globe is about 2 MB there: a day of one
    variable is 55 MB to read, and a month 1.7 GB, however small the region. Its axis of time reaches from 1900 to 2050,
    and names in its attributes the part that holds values; the rest is left out here.

    Over the web, what fails is asked for again as by `fetch`, a chunk too that arrives damaged. An hour that the store
    does not have is missing values, by the rules of zarr: the server answers 404, and nothing else can be told from it.

    Args:
        store: folder, or address that begins with https://, http:// or gs:// (read without an account), or another
            that fsspec understands.
        variables: names in the store. Those in `ERA5_NAMES`, such as "2m_temperature", are given the names of this
            package; the others keep theirs.
        region: (south, north, west, east) in degrees, borders included; west below east, so a region across Greenwich
            has a negative west, and one across the date line an east above 180. None is the globe from 180 W.
        time: (first, last) or a slice of dates such as ("2019-03-01", "2019-03-07"), both included; None is all.
        chunk: time steps that are read together, as one task of dask.
        preliminary: also the last months, which the archive has but may still revise ("ERA5T").
        cache: keep what is read over the web, in the folder given or, if True, in "zarr" in `cache_dir`. The second
            time nothing is asked for, and no network is needed. The copy does not follow the archive: to see what was
            added or revised there, delete it.
        retries, backoff, timeout: how often to ask again, and how long to wait; see `fetch`.
        storage_options: with these, fsspec reads the store and is passed them, for an archive that wants an account;
            it needs its own packages (gcsfs, s3fs, aiohttp), keeps nothing and does not ask again.
    Returns:
        Lazy Dataset with dims (time, lat, lon), lat and lon ascending; values as stored (float32), but kelvin as degC
        and metres of precipitation as mm.
    Raises:
        ImportError: zarr or dask is missing, which the extra "scale" brings.
        FileNotFoundError: no zarr store at ``store``.
        PermissionError: the server does not give it.
        ConnectionError: the URL cannot be read, when opening or when computing; the message names the chunk.
        TypeError, ValueError: ``store`` is no zarr store of that layout, or has no such variable, cell or time.
    Source:
        ERA5, Copernicus Climate Change Service; Hersbach et al. (2020), doi:10.1002/qj.3803.
    """
    names = [variables] if isinstance(variables, str) else list(variables) if isinstance(variables, Sequence) else []
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"variables: found {variables!r}, expected the name of at least one variable, each once")
    chunk = whole_number(chunk, "chunk")
    reading = (
        whole_number(retries, "retries", 0),
        number(backoff, "backoff", 0.0),
        number(timeout, "timeout", 0.0, True),
    )
    opened = _valid(_opened(store, storage_options, cache, reading), preliminary)
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


def _opened(store: Any, storage_options: dict[str, Any] | None, cache: Any, reading: tuple) -> xr.Dataset:
    """The store, with nothing read but its coordinates."""
    if not isinstance(store, (str, os.PathLike)):
        raise TypeError(f"store: found {type(store).__name__}, expected a path or a URL")
    if not isinstance(cache, (bool, str, os.PathLike)):
        raise TypeError(f"cache: found {type(cache).__name__}, expected True, False or a folder")
    store = os.fspath(store)
    shown = _shown(store)
    scheme = store.partition("://")[0].lower() if "://" in store else ""
    own = scheme in ("http", "https", "gs") and not storage_options
    if cache and not own:
        raise ValueError(f"cache: expected a store that is read over http, https or gs, found {shown}")
    try:
        import dask  # noqa: F401
        import zarr  # noqa: F401

        if scheme and not own:
            import fsspec  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'open_era5: expected {error.name}, found none; pip install "stgcn-lab[scale]"', name=error.name
        ) from error
    source: Any = store
    if own:
        from ._remote import RemoteStore

        folder = cache_dir() / "zarr" if cache is True else Path(cache).expanduser() if cache else None
        # Google's storage gives what is public to anyone who asks over https.
        address = f"https://storage.googleapis.com/{store[5:]}" if scheme == "gs" else store
        source = RemoteStore(address, folder, *reading)
    options = {"storage_options": storage_options} if storage_options else {}
    try:
        # cache=False: what has been computed is not kept behind the caller's back
        opened = xr.open_dataset(source, engine="zarr", chunks=None, cache=False, **options)  # type: ignore[arg-type]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"store: expected a zarr store, found none at {shown}") from error
    except PermissionError as error:
        raise PermissionError(f"store: {error}") from error
    except ValueError as error:  # an unknown kind of URL, damaged metadata
        over_the_web = "; over the web it must have consolidated metadata" if own else ""
        raise ValueError(
            f"store: expected a zarr store, found none that can be read at {shown}: {error}{over_the_web}"
        ) from error
    except OSError as error:
        raise ConnectionError(f"store: could not read {shown}: {error}") from error
    for axis in ("time", "latitude", "longitude"):
        if axis not in opened.indexes:
            raise ValueError(
                f"store: found dims {tuple(opened.dims)}, expected time, latitude and longitude, each with a coordinate"
            )
    return opened


def _valid(opened: xr.Dataset, preliminary: bool) -> xr.Dataset:
    """The steps that hold values, where the store says which: its axis of time may reach far beyond them."""
    first, final = opened.attrs.get("valid_time_start"), opened.attrs.get("valid_time_stop")
    last = opened.attrs.get("valid_time_stop_era5t", final) if preliminary else final
    if not opened.indexes["time"].is_monotonic_increasing:
        return opened  # which `_between` refuses
    return opened.sel(time=slice(first, last))


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
        later = opened.attrs.get("valid_time_stop_era5t")
        hint = f", and with preliminary=True to {later}" if later else ""
        raise ValueError(f"time: found no step in {time!r}; the store covers {times[0]} to {times[-1]}{hint}")
    return part


def _in_our_units(variable: xr.DataArray, name: str) -> xr.DataArray:
    units = variable.attrs["units"]
    attrs = variable.attrs | {"units": units.replace("**", "")}
    if units == "K":
        return (variable - 273.15).assign_attrs(attrs | {"units": "degC"})
    if units == "m" and name == "total_precipitation":
        return (variable * 1000).assign_attrs(attrs | {"units": "mm"})
    return variable.assign_attrs(attrs)
