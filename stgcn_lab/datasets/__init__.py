"""Weather as xarray: what comes with the package, public archives, and the reader's own series.

    series      what a series of stations is, its check, grids as nodes and back
    bundled     the real data that come with the package, and the stored results of the benchmarks
    download    files from the web that are whole or not there
    archives    ERA5, as one file and as a zarr store
    files       the reader's own file: stations from NetCDF, zarr, GRIB or a table
    noaa        the NCEP/NCAR reanalysis, and the stations of GHCN-Daily
    services    Open-Meteo and OpenWeatherMap: the last days and the next

Everything public is had from here, such as ``datasets.load_irish_wind``.
"""

from ._names import Finding, Inspection
from .archives import ERA5_ARCHIVE, ERA5_NAMES, ERA5_UK, load_era5_uk, open_era5
from .bundled import (
    KNOT,
    REGIONS,
    benchmark_program,
    coastlines_dir,
    embedded,
    load_benchmark,
    load_colorado,
    load_electricity_demand,
    load_irish_wind,
    load_pacific,
    load_reanalysis,
    load_winter_height,
    registry,
)
from .download import cache_dir, fetch, get_json
from .files import inspect_stations, open_stations
from .noaa import GHCN_NAMES, NCEP_NAMES, ghcn_stations, load_ghcn, open_ncep
from .series import UNITS, Field, check_series, drop_leap_days, grid_to_nodes, nodes_to_grid
from .services import (
    OPEN_METEO,
    OPEN_WEATHER_MAP_KEY,
    SERVICE_VARIABLES,
    daily_mean,
    open_meteo,
    open_meteo_archive,
    open_meteo_replay,
    open_weather_map,
    read_open_meteo,
)

__all__ = [
    "ERA5_ARCHIVE",
    "ERA5_NAMES",
    "ERA5_UK",
    "GHCN_NAMES",
    "KNOT",
    "NCEP_NAMES",
    "OPEN_METEO",
    "OPEN_WEATHER_MAP_KEY",
    "REGIONS",
    "SERVICE_VARIABLES",
    "UNITS",
    "Field",
    "Finding",
    "Inspection",
    "benchmark_program",
    "cache_dir",
    "check_series",
    "coastlines_dir",
    "daily_mean",
    "drop_leap_days",
    "embedded",
    "fetch",
    "get_json",
    "ghcn_stations",
    "grid_to_nodes",
    "inspect_stations",
    "load_benchmark",
    "load_colorado",
    "load_electricity_demand",
    "load_era5_uk",
    "load_ghcn",
    "load_irish_wind",
    "load_pacific",
    "load_reanalysis",
    "load_winter_height",
    "nodes_to_grid",
    "open_era5",
    "open_meteo",
    "open_meteo_archive",
    "open_meteo_replay",
    "open_ncep",
    "open_stations",
    "open_weather_map",
    "read_open_meteo",
    "registry",
]
