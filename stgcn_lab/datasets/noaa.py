"""Two archives of NOAA: the NCEP/NCAR reanalysis, a grid, and GHCN-Daily, what stations measured.

Files are fetched once and kept (see :func:`~stgcn_lab.datasets.fetch`). What does not hold what it should is taken out
of the cache again, so that the next try asks for it anew.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .archives import _between, _cells
from .download import _name_of, cache_dir, fetch

NCEP_URL = "https://downloads.psl.noaa.gov/Datasets/ncep.reanalysis"
NCEP_SUBSETS = "https://psl.noaa.gov/thredds/ncss/grid/Datasets/ncep.reanalysis"
GHCN_URL = "https://www.ncei.noaa.gov/pub/data/ghcn/daily"

# What this package calls a variable: (file of all months, file of the days of a year, name in both). All lie near the
# ground: at sigma 0.995, a pressure of 99.5 % of that at the model's surface, or reduced to sea level.
NCEP_NAMES = {
    "air_temperature": ("air.mon.mean.nc", "air.sig995.{year}.nc", "air"),
    "air_pressure_at_mean_sea_level": ("slp.mon.mean.nc", "slp.{year}.nc", "slp"),
    "eastward_wind": ("uwnd.mon.mean.nc", "uwnd.sig995.{year}.nc", "uwnd"),
    "northward_wind": ("vwnd.mon.mean.nc", "vwnd.sig995.{year}.nc", "vwnd"),
    "relative_humidity": ("rhum.mon.mean.nc", "rhum.sig995.{year}.nc", "rhum"),
}

# Units as the files have them: (ours, factor, offset).
_NCEP_UNITS = {
    "degK": ("degC", 1.0, -273.15),
    "K": ("degC", 1.0, -273.15),
    "degC": ("degC", 1.0, 0.0),
    "Pascals": ("hPa", 0.01, 0.0),
    "Pa": ("hPa", 0.01, 0.0),
    "millibars": ("hPa", 1.0, 0.0),
    "m/s": ("m s-1", 1.0, 0.0),
    "%": ("%", 1.0, 0.0),
}

# Element of GHCN-Daily: (name in this package, units, units of a stored whole number, attributes).
GHCN_NAMES: dict[str, tuple[str, str, float, dict[str, str]]] = {
    "TMAX": ("tmax", "degC", 0.1, {"standard_name": "air_temperature", "cell_methods": "time: maximum"}),
    "TMIN": ("tmin", "degC", 0.1, {"standard_name": "air_temperature", "cell_methods": "time: minimum"}),
    "TAVG": ("tavg", "degC", 0.1, {"standard_name": "air_temperature", "cell_methods": "time: mean"}),
    "PRCP": ("precip", "mm", 0.1, {"standard_name": "lwe_thickness_of_precipitation_amount"}),
    "SNOW": ("snowfall", "mm", 1.0, {"standard_name": "thickness_of_snowfall_amount"}),
    "SNWD": ("snow_depth", "mm", 1.0, {"standard_name": "surface_snow_thickness"}),
    "AWND": ("wind_speed", "m s-1", 0.1, {"standard_name": "wind_speed", "cell_methods": "time: mean"}),
}


def open_ncep(
    variable: str = "air_temperature",
    region: tuple[float, float, float, float] | None = None,
    time: tuple[Any, Any] | slice | None = None,
    *,
    frequency: str = "monthly",
    url: str | None = None,
    subset: bool = False,
    **options: Any,
) -> xr.Dataset:
    """A field of the NCEP/NCAR Reanalysis 1 near the ground, 1948 to early 2026, on its grid of 2.5 degrees.

    Monthly means are one file for all years and the whole globe; daily means are a file a year. They are fetched once
    and cut here. With ``subset`` the server cuts, and only the region and period travel. That is the subset service of
    THREDDS, which answers with a file that can be checked and kept. Its other service, OPeNDAP, is not used: netCDF's
    client for it takes an answer that broke off for a whole one.

    Args:
        variable: one of `NCEP_NAMES`.
        region: (south, north, west, east) in degrees, borders included; west below east, so a region across Greenwich
            has a negative west, and one across the date line an east above 180. None is the globe from 180 W.
        time: (first, last) or a slice of dates such as ("1961", "1990-06"), both included; None is all, which daily
            means do not allow.
        frequency: "monthly", stamped on the first of the month, or "daily", means of the four analyses of a day (UTC).
        url: the folder above Monthlies and Dailies, on a mirror; None is NOAA's own server.
        subset: let the server cut.
        options: folder, max_age, retries, backoff, timeout and progress of `fetch`.
    Returns:
        Dataset in memory with the variable (time, lat, lon) in degC, hPa, m s-1 or %, float64; lat and lon ascend.
    Raises:
        FileNotFoundError: the server has no such file, such as that of a coming year.
        ConnectionError: the server cannot be reached, or went on answering badly.
        ValueError: an argument is wrong, or what came is not the file that it should be.
    Source:
        Kalnay et al. (1996), https://psl.noaa.gov/data/gridded/data.ncep.reanalysis.html
    """
    if not isinstance(variable, str) or variable not in NCEP_NAMES:
        raise ValueError(f"variable: expected one of {sorted(NCEP_NAMES)}, found {variable!r}")
    if frequency not in ("monthly", "daily"):
        raise ValueError(f"frequency: expected 'monthly' or 'daily', found {frequency!r}")
    _cells(np.arange(90, -91, -2.5), np.arange(0, 360, 2.5), region)  # a wrong region before anything is fetched
    months, days, name = NCEP_NAMES[variable]
    period = _period(time)
    if frequency == "monthly":
        files: dict[str, int | None] = {f"Monthlies/surface/{months}": None}
    elif time is None:
        raise ValueError("time: expected (first, last) for daily means, which are a file a year, found None")
    else:
        files = {f"Dailies/surface/{days.format(year=year)}": year for year in period.year.unique()}
    base = (url or (NCEP_SUBSETS if subset else NCEP_URL)).rstrip("/")
    parts = [
        _read_ncep(f"{base}/{file}", name, year, region, period if subset else None, options)
        for file, year in files.items()
    ]
    whole = _between(xr.concat(parts, "time", combine_attrs="override") if len(parts) > 1 else parts[0], time)
    units, factor, offset = _NCEP_UNITS[whole[name].attrs["units"]]
    attrs = {
        "units": units,
        "long_name": str(whole[name].attrs.get("long_name", variable.replace("_", " "))),
        "standard_name": variable,
        "cell_methods": "time: mean",
    }
    coords = {
        "time": ("time", whole["time"].values.astype("datetime64[ns]"), {"standard_name": "time"}),
        "lat": ("lat", whole["lat"].values, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", whole["lon"].values, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    values = whole[name].transpose("time", "lat", "lon").values.astype(np.float64) * factor + offset
    return xr.Dataset(
        {variable: (("time", "lat", "lon"), values, attrs)},
        coords,
        {
            "Conventions": "CF-1.8",
            "title": f"NCEP/NCAR Reanalysis 1, {frequency} means",
            "source": f"{base}, NOAA Physical Sciences Laboratory, Boulder, Colorado, USA",
            "references": "Kalnay, E. et al. (1996). The NCEP/NCAR 40-year reanalysis project. Bulletin of the "
            "American Meteorological Society 77, 437-471. doi:10.1175/1520-0477(1996)077<0437:TNYRP>2.0.CO;2",
            "license": "Public domain (U.S. Government, NOAA); cite the reference",
        },
    )


def _period(time: Any) -> pd.DatetimeIndex:
    """The days of a period, of those that the archive may have."""
    days = pd.date_range("1948-01-01", f"{pd.Timestamp.now().year}-12-31")
    return pd.DatetimeIndex(_between(xr.Dataset(coords={"time": days}), time).indexes["time"])


def _read_ncep(
    address: str,
    name: str,
    year: int | None,
    region: Any,
    period: pd.DatetimeIndex | None,
    options: dict[str, Any],
) -> xr.Dataset:
    """The region of one file, from the cache or fetched; with a period, of a file that the server has cut."""
    place, params = _name_of(address, options.get("folder")), dict[str, Any]()
    if period is not None:
        of_it = period if year is None else period[period.year == year]
        south, north, west, east = (-90.0, 90.0, -180.0, 177.5) if region is None else map(float, region)
        params = {
            "var": name,
            # half a cell more, as nothing says on which side of its border the server sees a cell
            "south": max(-90.0, south - 1.25),
            "north": min(90.0, north + 1.25),
            "west": max(-180.0, west - 1.25),
            "east": min(360.0, east + 1.25, west + 357.5),
            "horizStride": 1,
            "time_start": f"{of_it[0]:%Y-%m-%dT00:00:00Z}",
            "time_end": f"{of_it[-1]:%Y-%m-%dT23:00:00Z}",
            "accept": "netcdf4",
        }
        box = f"{south:g}_{north:g}_{west:g}_{east:g}_{of_it[0]:%Y%m%d}_{of_it[-1]:%Y%m%d}"
        place = place.removesuffix(".nc") + f"_{box}.nc"
    path = fetch(address, place, params=params or None, **options)
    try:
        with xr.open_dataset(path, engine="netcdf4") as opened:
            _check_ncep(opened, name, year)
            return _region(opened, name, region).load()
    except (OSError, ValueError, RuntimeError) as error:
        raise _discarded(path, address, "the NetCDF file of that name", error) from error


def _check_ncep(opened: xr.Dataset, name: str, year: int | None) -> None:
    """ValueError if a file is not what NOAA has under that name."""
    if name not in opened.data_vars or set(opened[name].dims) != {"time", "lat", "lon"}:
        found = {key: value.dims for key, value in opened.data_vars.items()}
        raise ValueError(f"expected the variable {name!r} over time, lat and lon, found {found}")
    if opened[name].attrs.get("units") not in _NCEP_UNITS:
        raise ValueError(f"expected units among {sorted(_NCEP_UNITS)}, found {opened[name].attrs.get('units')!r}")
    if missing := {"lat", "lon"} - set(opened.indexes):
        raise ValueError(f"expected coordinates, found none for {sorted(missing)}")
    times = opened.indexes.get("time")
    if not isinstance(times, pd.DatetimeIndex) or not times.size:
        raise ValueError("expected at least one date")
    if year is None and (times.day != 1).any():
        raise ValueError(f"expected the first of each month, found {times[times.day != 1][0]}")
    if year is not None and (times.year != year).any():
        raise ValueError(f"expected days of {year} alone, found {times[0]} to {times[-1]}")


def _region(opened: xr.Dataset, name: str, region: Any) -> xr.Dataset:
    """The variable in a region, lat and lon ascending."""
    rows, columns, lon = _cells(opened["lat"].values, opened["lon"].values, region)
    cut = opened[[name]].isel(lat=slice(rows.min(), rows.max() + 1))
    gap = np.flatnonzero(np.diff(columns) != 1)  # the region crosses the border of the file
    pieces = [cut.isel(lon=slice(piece[0], piece[-1] + 1)) for piece in np.split(columns, gap + 1)]
    joined = xr.concat(pieces, "lon", combine_attrs="override", data_vars="minimal") if len(pieces) > 1 else pieces[0]
    return joined.assign_coords(lat=joined["lat"].astype(np.float64), lon=lon).sortby("lat")


def ghcn_stations(
    region: tuple[float, float, float, float] | None = None,
    *,
    variables: str | Sequence[str] = ("TMAX",),
    first: int | None = None,
    last: int | None = None,
    url: str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Stations of GHCN-Daily in a region that measured some quantities over some years.

    Args:
        region: (south, north, west, east) in degrees as in `open_ncep`; None is the globe.
        variables: elements, some of `GHCN_NAMES`: a station is listed if it has every one of them.
        first: year by which each element had begun; None is any.
        last: year in which each element was still measured; None is any. Years between may be missing.
        url: the folder of ghcnd-stations.txt, on a mirror; None is NOAA's own server.
        options: folder, max_age, retries, backoff, timeout and progress of `fetch`.
    Returns:
        DataFrame with a row for each station: id, lat, lon (degrees, -180 to 180), elevation (m), name, first and last
        (the years in which all the elements were measured), in the order of the list.
    Raises:
        FileNotFoundError, ConnectionError: as of `fetch`.
        ValueError: an argument is wrong, what came is not the list, or no station is like that.
    Source:
        Menne et al. (2012), doi:10.1175/JTECH-D-11-00103.1; readme.txt beside the files.
    """
    elements = _elements(variables)
    for argument, value in (("first", first), ("last", last)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer))):
            raise ValueError(f"{argument}: expected a year such as 1961 or None, found {value!r}")
    base = (url or GHCN_URL).rstrip("/")
    table = _ghcn_table(base, options)
    rows_in, columns_in, _ = _cells(table["lat"].to_numpy(), table["lon"].to_numpy(), region)
    table = table.iloc[np.intersect1d(rows_in, columns_in)]
    rows, path = _ghcn_lines(base, "ghcnd-inventory.txt", 45, options)
    if not np.isin(rows[:, [36, 37, 38, 39, 41, 42, 43, 44]], np.arange(ord("0"), ord("9") + 1)).all():
        broken = ValueError("a line without years in columns 37 to 45")
        raise _discarded(path, f"{base}/ghcnd-inventory.txt", "GHCN-Daily's inventory", broken)
    # Of some 700,000 lines only those of the elements are made text.
    named = np.ascontiguousarray(rows[:, 31:35]).view("S4")[:, 0]
    rows = rows[np.isin(named, [element.encode() for element in elements])]
    inventory = pd.DataFrame(
        {
            "id": _text(rows, 1, 11),
            "element": _text(rows, 32, 35),
            "first": _text(rows, 37, 40).astype(int),
            "last": _text(rows, 42, 45).astype(int),
        }
    )
    found = inventory.groupby("id").agg(count=("element", "nunique"), first=("first", "max"), last=("last", "min"))
    found = found[(found["count"] == len(elements)) & (found["first"] <= found["last"])]
    if first is not None:
        found = found[found["first"] <= first]
    if last is not None:
        found = found[found["last"] >= last]
    table = table.join(found[["first", "last"]], on="id", how="inner")
    if table.empty:
        raise ValueError(
            f"region: no station of GHCN-Daily in {region!r} has {', '.join(elements)} from {first} to {last}; ask for "
            "fewer elements, fewer years or a larger region"
        )
    return table.reset_index(drop=True)


def load_ghcn(
    stations: pd.DataFrame | str | Sequence[str],
    variables: str | Sequence[str] = ("TMAX", "TMIN", "PRCP"),
    time: tuple[Any, Any] | slice | None = None,
    *,
    url: str | None = None,
    **options: Any,
) -> xr.Dataset:
    """Daily measurements at stations of GHCN-Daily, a file for each station.

    A value that failed one of NOAA's quality checks (any quality flag) is NaN, as is a missing one. A trace of rain is
    0 mm, as NOAA stores it. A day is the station's own, and its hour of observation may have moved over the years.

    Args:
        stations: what `ghcn_stations` returns, or identifiers such as "USW00023062".
        variables: elements, some of `GHCN_NAMES`.
        time: (first, last) or a slice of dates such as ("1961", "1990-06"), both included; None is all.
        url: the folder of ghcnd-stations.txt and all/, on a mirror; None is NOAA's own server.
        options: folder, max_age, retries, backoff, timeout and progress of `fetch`.
    Returns:
        Dataset with tmax, tmin (degC), precip (mm) or what else was asked for, each (time, station), from the first to
        the last day that has a value; coords time, station (identifier), lat, lon, elevation (m), name.
    Raises:
        FileNotFoundError, ConnectionError: as of `fetch`.
        TypeError, ValueError: an argument is wrong, what came is no such file, or no station has a value.
    Source:
        Menne et al. (2012), doi:10.1175/JTECH-D-11-00103.1; readme.txt beside the files.
    """
    elements = _elements(variables)
    base = (url or GHCN_URL).rstrip("/")
    table = _chosen(stations, base, options)
    columns: dict[str, dict[str, pd.Series]] = {element: {} for element in elements}
    for station in table["id"]:
        for element, values in _read_station(station, elements, base, options).items():
            columns[element][station] = _part(values, time)
    frames = {
        element: pd.DataFrame(series, columns=table["id"]).dropna(how="all") for element, series in columns.items()
    }
    days = pd.DatetimeIndex(sorted(set().union(*(frame.index for frame in frames.values()))))
    if days.empty:
        raise ValueError(f"stations: expected values of {', '.join(elements)} in {time!r}, found none at any station")
    days = pd.date_range(days[0], days[-1])
    data = {}
    for element, frame in frames.items():
        name, units, _, attrs = GHCN_NAMES[element]
        values = frame.reindex(days).to_numpy(np.float64)
        data[name] = (("time", "station"), values, {"units": units, "long_name": f"daily {element}", **attrs})
    coords = {
        "time": ("time", days.to_numpy().astype("datetime64[ns]"), {"standard_name": "time"}),
        "station": ("station", table["id"].to_numpy(str), {"long_name": "station identifier"}),
        "name": ("station", table["name"].to_numpy(str), {"long_name": "station name"}),
        "lat": ("station", table["lat"].to_numpy(float), {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("station", table["lon"].to_numpy(float), {"units": "degrees_east", "standard_name": "longitude"}),
        "elevation": (
            "station",
            table["elevation"].to_numpy(float),
            {"units": "m", "standard_name": "surface_altitude"},
        ),
    }
    return xr.Dataset(
        data,
        coords,
        {
            "Conventions": "CF-1.8",
            "featureType": "timeSeries",
            "title": "GHCN-Daily, measurements that passed the quality checks",
            "source": f"{base}, NOAA National Centers for Environmental Information",
            "references": "Menne, M. J., Durre, I., Vose, R. S., Gleason, B. E. and Houston, T. G. (2012). An overview "
            "of the Global Historical Climatology Network-Daily database. Journal of Atmospheric and Oceanic "
            "Technology 29, 897-910. doi:10.1175/JTECH-D-11-00103.1",
            "license": "Free for research and teaching; measurements from outside the USA came under WMO resolution "
            "40, which lets their country restrict commercial use",
        },
    )


def _elements(variables: Any) -> list[str]:
    elements = [variables] if isinstance(variables, str) else list(variables) if isinstance(variables, Sequence) else []
    if not elements or len(set(elements)) < len(elements) or not set(elements) <= set(GHCN_NAMES):
        raise ValueError(f"variables: expected some of {sorted(GHCN_NAMES)}, each once, found {variables!r}")
    return elements


def _chosen(stations: Any, base: str, options: dict[str, Any]) -> pd.DataFrame:
    """The rows of the stations that are asked for, in that order."""
    if isinstance(stations, pd.DataFrame):
        if not {"id", "lat", "lon", "elevation", "name"} <= set(stations.columns):
            raise ValueError(f"stations: expected a table as of ghcn_stations, found columns {list(stations.columns)}")
        table = stations
    else:
        ids = [stations] if isinstance(stations, str) else stations
        if not isinstance(ids, (Sequence, np.ndarray)) or not all(isinstance(station, str) for station in ids):
            raise TypeError(f"stations: expected a table as of ghcn_stations or identifiers, found {stations!r}")
        everywhere = _ghcn_table(base, options).set_index("id", drop=False)
        if unknown := [station for station in ids if station not in everywhere.index]:
            raise ValueError(
                "stations: expected identifiers of GHCN-Daily such as 'USW00023062', "
                f"found {unknown[0]!r}, which is not in ghcnd-stations.txt"
            )
        table = everywhere.loc[list(ids)]
    if table.empty or table["id"].duplicated().any():
        raise ValueError(f"stations: expected at least one station, each once, found {table['id'].tolist()!r}")
    return table


def _ghcn_table(base: str, options: dict[str, Any]) -> pd.DataFrame:
    """All stations: id, lat, lon, elevation, name."""
    rows, path = _ghcn_lines(base, "ghcnd-stations.txt", 85, options)
    try:
        table = pd.DataFrame(
            {
                "id": _text(rows, 1, 11),
                "lat": _text(rows, 13, 20).astype(float),
                "lon": _text(rows, 22, 30).astype(float),
                "elevation": _text(rows, 32, 37).astype(float),
                "name": _text(rows, 42, 71),
            }
        )
    except ValueError as error:
        raise _discarded(path, f"{base}/ghcnd-stations.txt", "GHCN-Daily's list of stations", error) from error
    return table.assign(elevation=table["elevation"].where(table["elevation"] > -999))


def _read_station(station: str, elements: list[str], base: str, options: dict[str, Any]) -> dict[str, pd.Series]:
    """The daily values of one station, each element as a series over its days, NaN where missing or flagged."""
    rows, path = _ghcn_lines(base, f"all/{station}.dly", 269, options)
    try:
        if (_text(rows, 1, 11) != station).any():
            raise ValueError(f"expected the station {station} in every line")
        months = np.char.add(np.char.add(_text(rows, 12, 15), "-"), _text(rows, 16, 17)).astype("datetime64[M]")
        days = months.astype("datetime64[D]")[:, None] + np.arange(31)
        inside = days.astype("datetime64[M]") == months[:, None]  # a month has as many days as it has
        cells = rows[:, 21:].reshape(-1, 31, 8)  # five characters of the value, then the flags M, Q and S
        stored = np.ascontiguousarray(cells[:, :, :5]).view("S5")[:, :, 0].astype(np.int64)
        found = {}
        for element in elements:
            of_it = _text(rows, 18, 21) == element
            good = (stored != -9999) & (cells[:, :, 6] == ord(" "))
            values = np.where(good, stored * GHCN_NAMES[element][2], np.nan)[of_it][inside[of_it]]
            found[element] = pd.Series(values, pd.DatetimeIndex(days[of_it][inside[of_it]])).sort_index()
            if not found[element].index.is_unique:
                raise ValueError(f"expected each month of {element} once")
    except ValueError as error:
        raise _discarded(path, f"{base}/all/{station}.dly", "a file of GHCN-Daily", error) from error
    return found


def _part(values: pd.Series, time: Any) -> pd.Series:
    if time is None:
        return values
    try:
        first, last, step = (time.start, time.stop, time.step) if isinstance(time, slice) else (*time, None)
        if step is not None:
            raise ValueError("days between are not left out here")
        return values.loc[first:last]
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"time: expected (first, last) such as ('1961', '1990-06'), found {time!r}") from error


def _ghcn_lines(base: str, file: str, width: int, options: dict[str, Any]) -> tuple[np.ndarray, Path]:
    """A file of fixed columns as characters (line, column), short lines filled with blanks; and where it lies."""
    address = f"{base}/{file}"
    path = fetch(address, **options)
    content = path.read_bytes()
    lines = content.splitlines()
    if not content.endswith(b"\n") or not lines or not all(lines):
        broken = ValueError("it is empty, has an empty line or does not end with a whole one")
        raise _discarded(path, address, "a text file of GHCN-Daily", broken)
    return np.array([line.ljust(width) for line in lines], f"S{width}").view(np.uint8).reshape(len(lines), width), path


def _text(rows: np.ndarray, first: int, last: int) -> np.ndarray:
    """Columns ``first`` to ``last``, counted from 1 as the readme does, without the blanks around."""
    cut = np.ascontiguousarray(rows[:, first - 1 : last]).view(f"S{last - first + 1}")[:, 0]
    return np.char.strip(np.char.decode(cut, "utf-8", "replace"))


def _discarded(path: Path, address: str, expected: str, error: Exception) -> ValueError:
    """The error for a file that is not what it should be, after it has been taken out of the cache.

    In a folder of the reader it may be another file of that name, and stays.
    """
    with path.open("rb") as file:
        begin = file.read(40)
    if path.is_relative_to(cache_dir()):
        path.unlink(missing_ok=True)
        done = "it was removed from the cache"
    else:
        done = f"it lies at {path}: if it is not yours, delete it"
    return ValueError(
        f"{address}: expected {expected}, found something that begins with {begin!r} ({error}); {done}; "
        "try again, and if it stays so, look at the address in a browser (a network that wants a sign-in?)"
    )
