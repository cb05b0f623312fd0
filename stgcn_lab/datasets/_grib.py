"""GRIB, the format of the weather services, read by cfgrib in a process of its own.

ecCodes, on which cfgrib stands, and cartopy bring system libraries that crash when both are in one process. So this
file is run as a script: it writes what a GRIB file holds as NetCDF, and the caller reads that. No index files are left
beside the reader's file.
"""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xarray as xr

EXTRA, BAD = 3, 4  # exit codes of the script: cfgrib is missing or broken, the file is


def read_grib(path: str | os.PathLike[str]) -> list[xr.Dataset]:
    """All fields of a GRIB file, as one Dataset for each grid and set of times and levels that it holds.

    Time is when a value is valid: the time of an analysis, or the start of a forecast and its lead time. Where several
    forecasts are valid at one time, the shortest lead time is kept.

    Args:
        path: file in GRIB 1 or 2; its name does not matter.
    Returns:
        Datasets in memory, in float64, with names, units and grids as cfgrib has them ("t2m" in K); dims time, then
        latitude and longitude as stored (both 1-D, or 2-D over y and x, or over the points, "values", of a reduced
        grid); a level or an ensemble's number is a dim too where there are several.
    Raises:
        ImportError: cfgrib or ecCodes is missing, which the extra "grib" brings.
        FileNotFoundError: no file at ``path``.
        ValueError: no GRIB file, or a damaged one.
    Source:
        https://github.com/ecmwf/cfgrib; its issue 402 is on longitudes that are not in the order of the values, which
        is put right here.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"path: expected a GRIB file, found none at {source}")
    for needed in ("cfgrib", "eccodes"):
        if find_spec(needed) is None:
            raise ImportError(f'read_grib: expected {needed}, found none; pip install "stgcn-lab[grib]"', name=needed)
    with tempfile.TemporaryDirectory(prefix="stgcn-lab-") as folder:
        target = Path(folder) / "fields.nc"
        # -P: modules beside this file must not hide others of the same name
        command = [sys.executable, "-P", __file__, str(source.absolute()), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        if done.returncode == EXTRA:
            raise ImportError(f'read_grib: cfgrib does not work here: {reason}; pip install "stgcn-lab[grib]"')
        if done.returncode:
            raise ValueError(
                f"path: expected a whole GRIB file, found one that cannot be read at {source}: {reason}; get it anew"
            )
        cubes = []
        for group in done.stdout.split():
            with xr.open_dataset(target, engine="netcdf4", group=group) as opened:
                cubes.append(opened.load().drop_encoding())
        return cubes


def _eastward(cube: xr.Dataset) -> xr.Dataset:
    """Longitudes in the order of the values: where a grid crosses Greenwich or the date line, cfgrib sorts them."""
    for variable in cube.data_vars.values():
        first, last, backwards = (
            variable.attrs.get(f"GRIB_{key}", np.nan)
            for key in ("longitudeOfFirstGridPointInDegrees", "longitudeOfLastGridPointInDegrees", "iScansNegatively")
        )
        if "longitude" not in cube.dims or not np.isfinite([first, last, backwards]).all():
            continue
        if (last < first) != bool(backwards):
            last += -360 if backwards else 360
        true = np.linspace(first, last, cube.sizes["longitude"]) - (360 if max(first, last) > 360 else 0)
        apart = np.mod(cube["longitude"].values - true + 180, 360) - 180
        if np.abs(apart).max() > 1e-3:
            attrs = cube["longitude"].attrs
            return cube.assign_coords(longitude=("longitude", true.round(6), attrs))
    return cube


def _flat(cube: xr.Dataset) -> xr.Dataset:
    """One axis of time in the place of start and lead time, and plain attributes."""
    cube = cube.drop_vars([name for name in ("number",) if name in cube.coords and name not in cube.dims])
    steps = [name for name in ("time", "step") if name in cube.dims]
    if not steps:
        cube, steps = cube.expand_dims("time"), ["time"]
        cube["valid_time"] = cube["valid_time"].broadcast_like(cube["time"])
    if len(steps) == 2:
        cube = cube.stack(both=("time", "step"), create_index=False)
        lead = cube["step"].values
    else:
        cube, lead = cube.rename({steps[0]: "both"}), np.zeros(cube.sizes[steps[0]])
    valid = cube["valid_time"].values
    cube = cube.isel(both=np.lexsort((lead, valid))).drop_vars({"time", "step", "both"} & set(cube.variables))
    if len(steps) == 2:  # not every start has every lead time: the rest of the box is empty
        cube = cube.dropna("both", how="all")
    cube = cube.isel(both=np.unique(cube["valid_time"].values, return_index=True)[1])
    cube = cube.rename(both="time", valid_time="time").set_xindex("time").transpose("time", ...)
    for variable in cube.variables.values():
        kept = ("units", "long_name", "standard_name", "positive")
        variable.attrs = {key: variable.attrs[key] for key in kept if variable.attrs.get(key, "unknown") != "unknown"}
        variable.encoding = {}
    return cube


def _convert(source: str, target: str) -> None:
    """Write each hypercube of a GRIB file as a group of a NetCDF file and print the groups' names."""
    try:
        import cfgrib
    except Exception as error:  # cfgrib raises RuntimeError where ecCodes finds no library
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)
        sys.exit(EXTRA)
    try:
        how = {"indexpath": "", "errors": "raise", "values_dtype": np.dtype(np.float64)}
        cubes = cfgrib.open_datasets(source, backend_kwargs=how)
        for number, cube in enumerate(cubes):
            _flat(_eastward(cube)).to_netcdf(
                target, mode="a" if number else "w", group=f"cube{number}", engine="netcdf4"
            )
            print(f"cube{number}")
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)
        sys.exit(BAD)


if __name__ == "__main__":
    _convert(*sys.argv[1:])
