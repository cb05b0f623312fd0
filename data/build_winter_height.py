"""Rebuild winter_height.nc from the source distribution of the PyPI package eofs."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from _common import LATITUDE, LONGITUDE, fetch_pypi, main, provenance, take_member, write_netcdf

FIRST, LAST = 1948, 2012  # a winter is called by the year of its January

ENTRY = {
    "title": "NCEP/NCAR Reanalysis 1, winter mean 500 hPa geopotential height, North Atlantic and Europe",
    "package": "eofs (PyPI, source distribution)",
    "version": "2.0.0",
    "member": "lib/eofs/examples/example_data/hgt_djf.nc",
    "original_source": "NCEP/NCAR Reanalysis 1, NOAA Physical Sciences Laboratory, daily height of 500 hPa",
    "references": "Kalnay, E. et al. (1996). The NCEP/NCAR 40-year reanalysis project. Bulletin of the American "
    "Meteorological Society 77, 437-471. doi:10.1175/1520-0477(1996)077<0437:TNYRP>2.0.CO;2",
    "license": "Public domain (U.S. Government, NOAA); cite the reference",
    "period": "winters 1947/48 (without December) to 2011/12, December to February, stamped on 1 January",
    "rebuild": "data/build_winter_height.py",
}


def check_winters(height: xr.DataArray, bounds: np.ndarray) -> None:
    """Daily heights are whole metres: a mean times its number of days is whole, and shows which days are in it."""
    years = np.arange(FIRST, LAST + 1)
    begin, end = (
        np.array([f"{year}-{month}" for year in years + shift], "M8[D]") for shift, month in ((-1, 12), (0, "03"))
    )
    if not np.array_equal(bounds.astype("M8[D]"), np.stack([begin, end], axis=1)):
        raise ValueError(f"time bounds: expected December to February of the winters to {FIRST}..{LAST}")
    days = (end - begin).astype(int)
    days[0] -= 31  # the reanalysis begins on 1 January 1948
    totals = height.to_numpy() * days[:, None, None]
    if np.abs(totals - totals.round()).max() > 0.05:
        raise ValueError("height: expected means of whole metres over January and February 1948, then 90 or 91 days")


def build(source: Path, folder: Path, built: Path) -> list[str]:
    path = take_member(source, ENTRY["member"], folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xr.SerializationWarning)  # the reference date is written 1-1-1: the year is 1
        with xr.open_dataset(path, engine="netcdf4") as opened:
            height = opened["z"].squeeze("pressure").load()
            bounds = opened["bounds_time"].to_numpy()
    if height.shape != (LAST - FIRST + 1, 29, 49) or bool(height.isnull().any()):
        raise ValueError(f"height: expected 65 winters of 29 x 49 points without gaps, found {height.shape}")
    check_winters(height, bounds)
    dataset = xr.Dataset(
        {
            "geopotential_height": (
                ("time", "lat", "lon"),
                height.to_numpy(),
                {
                    "units": "m",
                    "long_name": "winter mean geopotential height at 500 hPa",
                    "standard_name": "geopotential_height",
                    "cell_methods": "time: mean",
                },
            )
        },
        coords={
            "time": (
                "time",
                pd.to_datetime([f"{year}-01-01" for year in range(FIRST, LAST + 1)]).to_numpy(),
                {"standard_name": "time", "long_name": "1 January of the winter, whose December is the year before"},
            ),
            "lat": ("lat", height["latitude"].to_numpy().astype(np.float64), LATITUDE),
            "lon": ("lon", height["longitude"].to_numpy().astype(np.float64), LONGITUDE),
        },
        attrs={"Conventions": "CF-1.8", "title": ENTRY["title"], **provenance(ENTRY)},
    )
    # 32 bits, because 0.05 m steps to 6 km do not fit into 16; compressed, the two empty bytes cost nothing.
    write_netcdf(dataset, built / "winter_height.nc", {"geopotential_height": ("int32", 0.05)})
    return ["winter_height.nc"]


def run(arguments: list[str] | None = None) -> int:
    return main(
        "winter_height",
        ENTRY,
        lambda folder: fetch_pypi("eofs", ENTRY["version"], folder, sdist=True),
        build,
        arguments,
    )


if __name__ == "__main__":
    sys.exit(run())
