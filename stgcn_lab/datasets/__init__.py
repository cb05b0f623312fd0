"""Weather as xarray: what comes with the package, public archives, and the reader's own series.

    series      what a series of stations is, its check, grids as nodes and back
    bundled     the real data that come with the package
    archives    ERA5, as one file and as a zarr store

Everything public is had from here, such as ``datasets.load_irish_wind``.
"""

from .archives import ERA5_NAMES, ERA5_UK, load_era5_uk, open_era5
from .bundled import (
    KNOT,
    REGIONS,
    coastlines_dir,
    embedded,
    load_colorado,
    load_electricity_demand,
    load_irish_wind,
    load_pacific,
    load_reanalysis,
    load_winter_height,
    registry,
)
from .series import UNITS, Field, check_series, drop_leap_days, grid_to_nodes, nodes_to_grid

__all__ = [
    "ERA5_NAMES",
    "ERA5_UK",
    "KNOT",
    "REGIONS",
    "UNITS",
    "Field",
    "check_series",
    "coastlines_dir",
    "drop_leap_days",
    "embedded",
    "grid_to_nodes",
    "load_colorado",
    "load_electricity_demand",
    "load_era5_uk",
    "load_irish_wind",
    "load_pacific",
    "load_reanalysis",
    "load_winter_height",
    "nodes_to_grid",
    "open_era5",
    "registry",
]
