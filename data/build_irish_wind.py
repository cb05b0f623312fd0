"""Rebuild irish_wind.nc from wind.rda of the Debian package r-cran-gstat."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import rdata
import xarray as xr
from _common import LATITUDE, LONGITUDE, fetch_debian, main, provenance, take_member, write_netcdf

ENTRY = {
    "title": "Irish daily mean wind speed at 12 synoptic stations, 1961-1978",
    "package": "r-cran-gstat (Debian)",
    "version": "2.1-0-1",
    "member": "gstat/data/wind.rda",
    "original_source": "Irish Meteorological Service, by way of StatLib (wind.data)",
    "references": "Haslett, J. and Raftery, A. E. (1989). Space-time modelling with long-memory dependence: "
    "assessing Ireland's wind power resource. Applied Statistics 38, 1-50. doi:10.2307/2347679",
    "license": "StatLib: permission granted for unlimited distribution",
    "period": "1961-01-01 to 1978-12-31, daily",
    "rebuild": "data/build_irish_wind.py",
}


def degrees(text: str) -> float:
    """Decimal degrees of a text such as 52d16'56.791"N; south and west are negative."""
    match = re.fullmatch(r"(\d+)d(\d+)'(?:([\d.]+)\")?([NSEW])", text)
    if match is None:
        raise ValueError(f"not a coordinate: {text!r}")
    value = int(match[1]) + int(match[2]) / 60 + float(match[3] or 0) / 3600
    return round(-value if match[4] in "SW" else value, 5)


def build(source: Path, folder: Path, built: Path) -> list[str]:
    tables = rdata.read_rda(take_member(source, ENTRY["member"], folder))
    wind, places = tables["wind"], tables["wind.loc"].astype({"Code": str}).set_index("Code")
    dates = pd.to_datetime(
        {"year": 1900 + wind["year"].astype(int), "month": wind["month"].astype(int), "day": wind["day"].astype(int)}
    )
    stations = [column for column in wind.columns if column not in ("year", "month", "day")]
    places = places.loc[stations]
    # The package misspells Rosslare.
    names = [str(name).replace("Roslare", "Rosslare") for name in places["Station"]]
    dataset = xr.Dataset(
        {
            "wind_speed": (
                ("time", "station"),
                wind[stations].to_numpy(dtype=float),
                {
                    "units": "knot",
                    "long_name": "daily mean wind speed",
                    "standard_name": "wind_speed",
                    "cell_methods": "time: mean",
                },
            )
        },
        coords={
            "time": ("time", dates.to_numpy().astype("datetime64[ns]"), {"standard_name": "time"}),
            "station": ("station", np.array(stations), {"long_name": "station code"}),
            "name": ("station", np.array(names), {"long_name": "station name"}),
            "lat": (
                "station",
                [degrees(str(text)) for text in places["Latitude"]],
                LATITUDE,
            ),
            "lon": (
                "station",
                [degrees(str(text)) for text in places["Longitude"]],
                LONGITUDE,
            ),
        },
        attrs={
            "Conventions": "CF-1.8",
            "featureType": "timeSeries",
            "title": ENTRY["title"],
            **provenance(ENTRY, member=True),
        },
    )
    write_netcdf(dataset, built / "irish_wind.nc", {"wind_speed": ("int16", 0.01)})
    return ["irish_wind.nc"]


def run(arguments: list[str] | None = None) -> int:
    return main(
        "irish_wind", ENTRY, lambda folder: fetch_debian("r-cran-gstat", ENTRY["version"], folder), build, arguments
    )


if __name__ == "__main__":
    sys.exit(run())
