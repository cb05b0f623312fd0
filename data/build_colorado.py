"""Rebuild colorado.nc from COmonthlyMet.rda of the Debian package r-cran-fields."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import rdata
import xarray as xr
from _common import LATITUDE, LONGITUDE, fetch_debian, main, provenance, take_member, write_netcdf

ENTRY = {
    "title": "Colorado and its borders: monthly temperature and precipitation at 376 stations, 1895-1997",
    "package": "r-cran-fields (Debian)",
    "version": "14.1-1",
    "member": "fields/data/COmonthlyMet.rda",
    "original_source": "US co-operative observer network and mountain stations, compiled at NCAR",
    "references": "Johns, C. J., Nychka, D., Kittel, T. G. F. and Daly, C. (2003). Infilling sparse records of "
    "spatial fields. Journal of the American Statistical Association 98, 796-806",
    "license": "Public domain (U.S. public record)",
    "period": "1895-01 to 1997-12, monthly, stamped on the first of the month",
    "rebuild": "data/build_colorado.py",
}


def build(source: Path, folder: Path, built: Path) -> list[str]:
    tables = rdata.read_rda(take_member(source, ENTRY["member"], folder))
    years = np.asarray(tables["CO.years"])
    times = pd.date_range(f"{years[0]}-01-01", f"{years[-1]}-12-01", freq="MS").to_numpy().astype("datetime64[ns]")

    def series(key: str, factor: float = 1.0) -> np.ndarray:
        """(year, month, station) of the package as (time, station)."""
        values = np.asarray(tables[key], dtype=float)
        return values.reshape(len(times), values.shape[-1]) * factor

    place = tables["CO.loc"]
    dataset = xr.Dataset(
        {
            "tmin": (
                ("time", "station"),
                series("CO.tmin"),
                {
                    "units": "degC",
                    "long_name": "monthly mean of daily minimum temperature",
                    "standard_name": "air_temperature",
                    "cell_methods": "time: minimum within days time: mean over days",
                },
            ),
            "tmax": (
                ("time", "station"),
                series("CO.tmax"),
                {
                    "units": "degC",
                    "long_name": "monthly mean of daily maximum temperature",
                    "standard_name": "air_temperature",
                    "cell_methods": "time: maximum within days time: mean over days",
                },
            ),
            # The package's manual says millimetres; its numbers are centimetres (Denver's year would have 40 mm).
            "precip": (
                ("time", "station"),
                series("CO.ppt", factor=10.0),
                {
                    "units": "mm",
                    "long_name": "monthly total precipitation",
                    "standard_name": "lwe_thickness_of_precipitation_amount",
                    "cell_methods": "time: sum",
                },
            ),
        },
        coords={
            "time": ("time", times, {"standard_name": "time"}),
            "station": ("station", np.asarray(tables["CO.id"]).astype(str), {"long_name": "station identifier"}),
            "name": (
                "station",
                np.char.strip(np.asarray(tables["CO.names"]).astype(str)),
                {"long_name": "station name, cut to 12 characters in the source"},
            ),
            "lat": (
                "station",
                place["lat"].to_numpy(dtype=float),
                LATITUDE,
            ),
            "lon": (
                "station",
                place["lon"].to_numpy(dtype=float),
                LONGITUDE,
            ),
            "elevation": (
                "station",
                np.asarray(tables["CO.elev"], dtype=float),
                {"units": "m", "standard_name": "surface_altitude", "long_name": "elevation"},
            ),
        },
        attrs={
            "Conventions": "CF-1.8",
            "featureType": "timeSeries",
            "title": ENTRY["title"],
            **provenance(ENTRY, member=True),
        },
    )
    steps = {"tmin": ("int16", 0.1), "tmax": ("int16", 0.1), "precip": ("int16", 1.0)}
    write_netcdf(dataset, built / "colorado.nc", steps)
    return ["colorado.nc"]


def run(arguments: list[str] | None = None) -> int:
    return main(
        "colorado", ENTRY, lambda folder: fetch_debian("r-cran-fields", ENTRY["version"], folder), build, arguments
    )


if __name__ == "__main__":
    sys.exit(run())
