"""The data that come with the package, the check that they are whole, and the stored results of the benchmarks.

Every file is listed in `data/registry.json` with its source, licence and SHA-256; `data/README.md` of the repository
says how each was made. Values are float64, missing values NaN, units follow the CF conventions.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import xarray as xr

DATA_DIR = Path(__file__).parent.parent / "data"
CLONE = Path(__file__).resolve().parents[2]  # the repository, where this file lies in one
REGIONS = ("europe", "east_asia", "north_america")
KNOT = 1852 / 3600  # m s-1: one nautical mile (1852 m) in one hour, by definition


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


def _benchmark(name: str, suffix: str) -> str:
    """Text of benchmarks/NAME.SUFFIX: from the copy in an installed package, otherwise from the repository."""
    folder = DATA_DIR / "benchmarks"
    if not folder.is_dir():
        folder = CLONE / "benchmarks"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"benchmark {name!r}: found neither {DATA_DIR / 'benchmarks'} nor {folder}; please reinstall stgcn-lab"
        )
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob(f"*{suffix}")}
    if not isinstance(name, str) or name not in found:
        raise ValueError(f"name: no stored benchmark {name!r}; expected one of {sorted(found)}")
    return found[name].read_text(encoding="utf-8")


def load_benchmark(name: str) -> dict[str, Any]:
    """Stored results of a benchmark of the book: what took longer to compute than a chapter may.

    In a clone of the repository they are read from benchmarks/NAME.json, elsewhere from the copy in the package.

    Args:
        name: the benchmark's name, such as "regimes"; an entry of the leaderboard is "entries/NAME".
    Returns:
        The content of the JSON file. Its keys are those that benchmarks/NAME.py wrote.
    Raises:
        ValueError: no benchmark of this name has stored results, or the file is damaged.
        FileNotFoundError: the package came without its benchmarks.
    """
    try:
        results: dict[str, Any] = json.loads(_benchmark(name, ".json"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"benchmark {name!r}: its stored results are damaged ({error}); please reinstall") from None
    return results


def benchmark_program(name: str) -> str:
    """The program that wrote `load_benchmark(name)`, as text: to be read in a chapter, not to be run.

    Args:
        name: the benchmark's name, such as "frameworks".
    Returns:
        The source of benchmarks/NAME.py.
    Raises:
        ValueError: no benchmark of this name.
        FileNotFoundError: the package came without its benchmarks.
    """
    return _benchmark(name, ".py")
