"""What this package means by a series of stations, its check, and grids as nodes and back.

A series has dims (time, station), coords lat and lon in degrees over station, and CF units on every variable.
"""

from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

# Units that a quantity may be given in, by its CF standard name; other quantities may have any units.
UNITS = {
    "air_temperature": ("degC", "degree_Celsius", "degrees_Celsius", "celsius", "Celsius", "K", "kelvin", "degF"),
    "wind_speed": ("m s-1", "m/s", "m s**-1", "km h-1", "km/h", "knot", "knots", "kn", "kt"),
    "lwe_thickness_of_precipitation_amount": ("mm", "cm", "m"),
}

Field = TypeVar("Field", xr.DataArray, xr.Dataset)


def drop_leap_days(field: Field) -> Field:
    """Leave out every 29 February, so that each year has 365 days.

    Args:
        field: a DataArray or Dataset with a datetime coordinate time.
    Returns:
        The same without those days.
    """
    return field.sel(time=~((field["time"].dt.month == 2) & (field["time"].dt.day == 29)))


def _as_dataset(field: Field, argument: str) -> xr.Dataset:
    if isinstance(field, xr.Dataset):
        return field
    if isinstance(field, xr.DataArray):
        return field.to_dataset(name="__field__")
    raise TypeError(f"{argument}: found {type(field).__name__}, expected an xarray DataArray or Dataset")


def _like(dataset: xr.Dataset, field: Field) -> Field:
    return dataset if isinstance(field, xr.Dataset) else dataset["__field__"].rename(field.name)


def grid_to_nodes(field: Field) -> Field:
    """Turn each cell of a latitude-longitude grid into a node.

    Cell (i, j) of a grid with n_lon columns becomes node i * n_lon + j (latitude by latitude).

    Args:
        field: DataArray or Dataset with dims lat and lon, and any others such as time; missing values stay.
    Returns:
        The same with dim station in place of lat and lon (last), coords station (node number), lat, lon.
    Raises:
        TypeError: not xarray.
        ValueError: lat or lon is missing, or is no 1-D coordinate of different values; a variable has one of the
            two only.
    """
    dataset = _as_dataset(field, "field")
    for axis in ("lat", "lon"):
        if axis not in dataset.dims or axis not in dataset.indexes:
            raise ValueError(f"field: found dims {tuple(dataset.dims)}, expected lat and lon, each with a coordinate")
        if not dataset.indexes[axis].is_unique:
            raise ValueError(f"field: found repeated values in the coordinate {axis}, expected different ones")
    if "station" in dataset.variables or "station" in dataset.dims:
        raise ValueError("field: found a dim or variable 'station', expected a grid without stations")
    lat, lon = dataset["lat"].variable, dataset["lon"].variable
    variables: dict[Any, xr.Variable] = {}
    for key, variable in dataset.drop_vars(["lat", "lon"]).variables.items():
        both = {"lat", "lon"} & set(variable.dims)
        if len(both) == 1:
            raise ValueError(f"field: variable {key!r} has dims {variable.dims}, expected lat and lon, or neither")
        variables[key] = variable.stack(station=("lat", "lon")) if both else variable
    coords = {
        "station": xr.Variable("station", np.arange(lat.size * lon.size), {"long_name": "node number"}),
        "lat": xr.Variable("station", np.repeat(lat.values, lon.size), lat.attrs),
        "lon": xr.Variable("station", np.tile(lon.values, lat.size), lon.attrs),
    } | {key: value for key, value in variables.items() if key in dataset.coords}
    data = {key: value for key, value in variables.items() if key not in dataset.coords}
    return _like(xr.Dataset(data, coords, dataset.attrs), field)


def nodes_to_grid(field: Field) -> Field:
    """Turn the nodes made by `grid_to_nodes` back into a grid: its exact inverse.

    Args:
        field: DataArray or Dataset with dim station and coords lat, lon that cover a whole grid, latitude by
            latitude.
    Returns:
        The same with dims lat, lon (last) in place of station.
    Raises:
        TypeError: not xarray.
        ValueError: lat or lon is missing, or the stations are not a whole grid in that order.
    """
    dataset = _as_dataset(field, "field")
    for axis in ("lat", "lon"):
        if axis not in dataset.coords or dataset[axis].dims != ("station",):
            raise ValueError(f"field: found coords {sorted(map(str, dataset.coords))}, expected {axis} over station")
    lat, lon = (pd.unique(dataset[axis].values) for axis in ("lat", "lon"))
    whole = dataset.sizes["station"] == lat.size * lon.size
    if not whole or not (
        np.array_equal(dataset["lat"].values, np.repeat(lat, lon.size))
        and np.array_equal(dataset["lon"].values, np.tile(lon, lat.size))
    ):
        raise ValueError(
            f"field: found {dataset.sizes['station']} stations at {lat.size} latitudes and {lon.size} longitudes, "
            f"expected all {lat.size * lon.size} cells of that grid, latitude by latitude"
        )
    sizes = {"lat": lat.size, "lon": lon.size}
    rest = dataset.drop_vars([key for key in ("station", "lat", "lon") if key in dataset.variables])
    variables = {
        key: variable.unstack(station=sizes) if "station" in variable.dims else variable
        for key, variable in rest.variables.items()
    }
    coords = {
        "lat": xr.Variable("lat", lat, dataset["lat"].attrs),
        "lon": xr.Variable("lon", lon, dataset["lon"].attrs),
    } | {key: value for key, value in variables.items() if key in dataset.coords}
    data = {key: value for key, value in variables.items() if key not in dataset.coords}
    return _like(xr.Dataset(data, coords, dataset.attrs), field)


def _check_variable(label: str, variable: xr.DataArray, units: str | None) -> None:
    """Dims, kind of number, no infinities, and units of one variable of a series."""
    if set(variable.dims) != {"time", "station"}:
        raise ValueError(f"{label}: found dims {variable.dims}, expected ('time', 'station')")
    if 0 in variable.shape:
        raise ValueError(f"{label}: found {dict(variable.sizes)}, expected at least one time and one station")
    if variable.dtype.kind not in "fiub":
        raise TypeError(f"{label}: found dtype {variable.dtype}, expected numbers")
    if np.isinf(variable.values).any():
        raise ValueError(f"{label}: found infinite values, expected finite ones and NaN where missing")
    found = variable.attrs.get("units")
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"{label}: found units {found!r}, expected CF units in attrs['units'], such as 'm s-1'")
    expected = (units,) if units is not None else UNITS.get(variable.attrs.get("standard_name", ""), (found,))
    if found not in expected:
        raise ValueError(f"{label}: found units {found!r}, expected {' or '.join(map(repr, expected))}")
    if found in UNITS["air_temperature"][:5] and variable.min() > 150:  # no weather is that hot; 150 K is too cold
        raise ValueError(f"{label}: found no value below 150 in {found}, expected degrees Celsius (is it kelvin?)")


def check_series(series: Field, name: str = "series", units: str | None = None) -> Field:
    """Check a station series and put it in the order (time, station).

    Args:
        series: DataArray, or Dataset of variables, with dims time and station, a time coordinate, coords lat and
            lon in degrees over station, and attrs["units"] on every variable; missing values are NaN.
        name: how error messages call the series.
        units: the units every variable must have; None accepts any that fit its standard_name.
    Returns:
        The series, dims in the order (time, station).
    Raises:
        TypeError: not xarray, or not numbers.
        ValueError: dims, an empty axis, infinite values, units, times that are missing, unsorted or repeated,
            repeated stations, or impossible coordinates.
    """
    if not isinstance(series, (xr.DataArray, xr.Dataset)):
        raise TypeError(f"{name}: found {type(series).__name__}, expected an xarray DataArray or Dataset")
    if isinstance(series, xr.DataArray):
        variables = {name: series}
    else:
        variables = {f"{name}[{key!r}]": variable for key, variable in series.data_vars.items()}
    if not variables:
        raise ValueError(f"{name}: found a Dataset without data variables, expected at least one")
    for label, variable in variables.items():
        _check_variable(label, variable, units)

    if "time" not in series.indexes:
        raise ValueError(f"{name}: found no coordinate 'time', expected one time stamp per step")
    times = series.indexes["time"]
    if pd.api.types.is_string_dtype(times):
        raise TypeError(
            f"{name}: found times as text such as {times[0]!r}, expected dates; convert with pd.to_datetime"
        )
    if times.hasnans:
        raise ValueError(f"{name}: found a missing time stamp, expected one per step")
    if not times.is_monotonic_increasing:
        at = next(i for i in range(1, len(times)) if times[i] < times[i - 1])
        raise ValueError(f"{name}: found time {times[at]} after {times[at - 1]}, expected times in ascending order")
    for axis in ("time", "station"):
        if axis in series.indexes and not series.indexes[axis].is_unique:
            twice = series.indexes[axis][series.indexes[axis].duplicated()][0]
            raise ValueError(f"{name}: found {axis} {twice} more than once, expected each {axis} once")

    for axis, low, high in (("lat", -90, 90), ("lon", -180, 360)):
        if axis not in series.coords or series[axis].dims != ("station",):
            raise ValueError(f"{name}: found no coordinate {axis!r} over station, expected degrees for each station")
        degrees = series[axis]
        if not str(degrees.attrs.get("units", "degrees")).startswith("degree"):
            raise ValueError(f"{name}: found {axis} in {degrees.attrs['units']!r}, expected degrees")
        if degrees.dtype.kind not in "fiu":
            raise TypeError(f"{name}: found {axis} of dtype {degrees.dtype}, expected degrees as numbers")
        wrong = ~((degrees.values >= low) & (degrees.values <= high))  # NaN is wrong too
        if wrong.any():
            raise ValueError(f"{name}: found {axis} {degrees.values[wrong][0]}, expected {low} to {high} degrees")
    return series.transpose("time", "station")
