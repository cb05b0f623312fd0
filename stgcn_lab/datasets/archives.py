"""Public archives of past weather: ERA5 as one file and as a zarr store of any size."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .._checks import whole_number

# The one file that is fetched, not embedded: from the data that xarray's tutorial uses.
ERA5_UK = "era5-2mt-2019-03-uk.grib"
ERA5_UK_SHA256 = "e5e82609f0e28e84822852e15d20c88dbb4b142a30264a7e6f87b9b5c7501df9"
ERA5_UK_URL = f"https://github.com/pydata/xarray-data/raw/master/{ERA5_UK}"

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
