"""Weather services: the last days and the next at any places, as a series of stations.

Open-Meteo needs no key. OpenWeatherMap needs one, which is read from the environment and shown nowhere. What both
call recent weather is not what a station has measured: it is their model, held close to measurements.
"""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .._checks import whole_number
from .bundled import KNOT, embedded
from .download import _hidden, get_json
from .series import Field, check_series

OPEN_METEO = "https://api.open-meteo.com/v1/forecast"
OPEN_METEO_ARCHIVE = "https://archive-api.open-meteo.com/v1/archive"
OPEN_WEATHER_MAP = "https://api.openweathermap.org/data/2.5"
OPEN_WEATHER_MAP_KEY = "OPENWEATHERMAP_API_KEY"
FREQUENCIES = ("hourly", "daily")
_AT_ONCE = 100  # places in one request: the service takes 1000, but not every proxy takes so long an address


class _Name(NamedTuple):
    """How Open-Meteo calls a variable, and what it is here."""

    hourly: str
    daily: str
    units: str
    standard_name: str
    long_name: str
    summed: bool = False


_NAMES = {
    "air_temperature": _Name("temperature_2m", "temperature_2m_mean", "degC", "air_temperature", "temperature at 2 m"),
    "dew_point_temperature": _Name(
        "dew_point_2m", "dew_point_2m_mean", "degC", "dew_point_temperature", "dew point at 2 m"
    ),
    "relative_humidity": _Name(
        "relative_humidity_2m", "relative_humidity_2m_mean", "%", "relative_humidity", "relative humidity at 2 m"
    ),
    "wind_speed": _Name("wind_speed_10m", "wind_speed_10m_mean", "m s-1", "wind_speed", "wind speed at 10 m"),
    "precip": _Name(
        "precipitation",
        "precipitation_sum",
        "mm",
        "lwe_thickness_of_precipitation_amount",
        "precipitation of the preceding step",
        summed=True,
    ),
    "air_pressure_at_mean_sea_level": _Name(
        "pressure_msl",
        "pressure_msl_mean",
        "hPa",
        "air_pressure_at_mean_sea_level",
        "air pressure at mean sea level",
    ),
}
SERVICE_VARIABLES = tuple(_NAMES)

# (units here, factor, offset) of the units that Open-Meteo may answer in.
_UNITS = {
    "°C": ("degC", 1.0, 0.0),
    "°F": ("degC", 5 / 9, -160 / 9),
    "m/s": ("m s-1", 1.0, 0.0),
    "km/h": ("m s-1", 1 / 3.6, 0.0),
    "mp/h": ("m s-1", 0.44704, 0.0),
    "kn": ("m s-1", KNOT, 0.0),
    "mm": ("mm", 1.0, 0.0),
    "inch": ("mm", 25.4, 0.0),
    "hPa": ("hPa", 1.0, 0.0),
    "%": ("%", 1.0, 0.0),
}


def open_meteo(
    lat: Any,
    lon: Any,
    variables: str | Sequence[str] = ("air_temperature", "wind_speed", "precip"),
    *,
    station: Any = None,
    frequency: str = "hourly",
    past_days: int = 7,
    forecast_days: int = 2,
    url: str = OPEN_METEO,
    **options: Any,
) -> xr.Dataset:
    """The last days and the forecast for the next at any places, from Open-Meteo; no key is needed.

    One request serves up to a hundred places; more are asked for in several. The service counts a call for each
    place, several where it is more than two weeks or ten variables, and allows 10,000 a day to those who do not earn
    money with it.

    Args:
        lat, lon: (station,) degrees, or one number each; coordinates of another series keep its stations' names.
        variables: of `SERVICE_VARIABLES`.
        station: (station,) what to call the places; None numbers them where lat does not name them.
        frequency: "hourly", or "daily" for means (of precipitation: totals) of days in UTC.
        past_days: days before today, at most 92.
        forecast_days: days from today on, at most 16; the first of them is today.
        url: address of the service, for a paid plan or a server of one's own.
        options: retries, backoff, timeout, see :func:`stgcn_lab.datasets.get_json`.

    Returns:
        Dataset (time, station) in UTC; coords lat, lon (as asked for), grid_lat, grid_lon (the model's cell that
        answers), elevation (m) where the service gives it, and forecast (time): True for what had not yet happened,
        or not yet ended, when it was asked. Missing values are NaN. attrs say source, licence and when it was asked.

    Raises:
        TypeError, ValueError: places, names or days that cannot be, or a request that the service refuses.
        PermissionError, FileNotFoundError, ConnectionError: the service or the network, see `get_json`.

    Source:
        https://open-meteo.com/en/docs; data under CC BY 4.0.
    """
    past = _days(past_days, "past_days", 92)
    coming = _days(forecast_days, "forecast_days", 16)
    if past + coming == 0:
        raise ValueError("past_days, forecast_days: expected at least one day in all, found none")
    wanted = {"past_days": past, "forecast_days": coming}
    return _ask_open_meteo(lat, lon, variables, station, frequency, url, wanted, options)


def open_meteo_archive(
    lat: Any,
    lon: Any,
    start: Any,
    end: Any,
    variables: str | Sequence[str] = ("air_temperature", "wind_speed", "precip"),
    *,
    station: Any = None,
    frequency: str = "daily",
    url: str = OPEN_METEO_ARCHIVE,
    **options: Any,
) -> xr.Dataset:
    """Past weather at any places since 1940, from Open-Meteo's archive of reanalyses.

    Long enough to fit a model to. By default the service takes the best reanalysis of each year, so that a step in
    the series may be a change of data and not of weather.

    Args:
        lat, lon, variables, station, frequency, url, options: as in :func:`open_meteo`.
        start, end: first and last day, such as "2015-01-01"; the archive ends two to five days ago.

    Returns, Raises:
        As :func:`open_meteo`.

    Source:
        https://open-meteo.com/en/docs/historical-weather-api; data under CC BY 4.0.
    """
    first, last = _day(start, "start"), _day(end, "end")
    if last < first:
        raise ValueError(f"end: expected a day not before start, {first}, found {last}")
    wanted = {"start_date": first, "end_date": last}
    return _ask_open_meteo(lat, lon, variables, station, frequency, url, wanted, options)


def read_open_meteo(
    answer: Any,
    lat: Any = None,
    lon: Any = None,
    *,
    station: Any = None,
    retrieved: Any = None,
) -> xr.Dataset:
    """An answer of Open-Meteo, parsed JSON, as a series: what :func:`open_meteo` does with what it is sent.

    Args:
        answer: the object of one place, or the list of several; hourly or daily values, times as text or as seconds.
        lat, lon: (station,) the places that were asked for; None takes the cells that the answer names.
        station: (station,) what to call the places.
        retrieved: when it was answered (UTC), which tells past from forecast; None is now.

    Returns:
        As :func:`open_meteo`.

    Raises:
        TypeError, ValueError: the answer is an error, or is not of the documented form.
    """
    places = answer if isinstance(answer, list) else [answer]
    if not places or not all(isinstance(place, Mapping) for place in places):
        raise ValueError(f"answer: expected one object or a list of them, found {_shortened(answer)}")
    for place in places:
        _refuse_error(place)
    grid = np.array([[_number(place.get(axis), axis) for axis in ("latitude", "longitude")] for place in places]).T
    if (lat is None) != (lon is None):
        raise ValueError("lat, lon: expected both or none")
    where = _places(grid[0], grid[1], station) if lat is None else _places(lat, lon, station)
    if len(where.lat) != len(places):
        raise ValueError(f"answer: expected one object for each of {len(where.lat)} places, found {len(places)}")

    frequency = next((key for key in FREQUENCIES if key in places[0]), None)
    if frequency is None:
        raise ValueError(f"answer: expected hourly or daily values, found only {', '.join(map(str, places[0]))}")
    blocks = [_block(place, frequency) for place in places]
    times = blocks[0][0]
    for k, (other, values) in enumerate(blocks):
        if not other.equals(times) or set(values) != set(blocks[0][1]):
            raise ValueError(
                f"answer: expected the times and variables of the first place everywhere, not in place {k}"
            )
    order = [name for name in _NAMES if name in blocks[0][1]]
    if not order:
        raise ValueError(f"answer: expected one of {', '.join(_NAMES)} among its {frequency} values, found none")
    data = {name: np.stack([values[name] for _, values in blocks], axis=1) for name in order}
    now = _instant(retrieved)
    ends = times + pd.Timedelta(days=1) if frequency == "daily" else times
    dataset = _series(where, times, data, ends > now, now, frequency)
    dataset = dataset.assign_coords(
        grid_lat=("station", grid[0], {"units": "degrees_north", "long_name": "latitude of the model's cell"}),
        grid_lon=("station", grid[1], {"units": "degrees_east", "long_name": "longitude of the model's cell"}),
    )
    if all("elevation" in place for place in places):
        height = [_number(place["elevation"], "elevation") for place in places]
        dataset = dataset.assign_coords(elevation=("station", height, {"units": "m", "standard_name": "altitude"}))
    return dataset.assign_attrs(
        source="Open-Meteo, https://open-meteo.com: weather models of national services, not measurements of a station",
        license="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    )


def open_meteo_replay() -> xr.Dataset:
    """A stored answer in the form of Open-Meteo, for where there is no network: Ireland in the autumn of 1978.

    The values are daily means that twelve stations measured, not those of any model, and the days to be forecast are
    missing, as they were then. The file is marked as a replay, and so are the attrs: attrs["replay"] says what it is.

    Returns:
        Dataset as of :func:`open_meteo` with ``frequency="daily"``: wind_speed (time, station), and attrs["replay"].

    Raises:
        ValueError, FileNotFoundError: the embedded file is damaged or missing.

    Source:
        Irish Meteorological Service; Haslett & Raftery (1989), doi:10.2307/2347679.
    """
    stored = json.loads(embedded("open_meteo_replay.json").read_text(encoding="utf-8"))
    if stored["replay"] is not True:
        raise ValueError("open_meteo_replay.json: expected a file marked as a replay")
    dataset = read_open_meteo(stored["answer"], station=stored["station"], retrieved=stored["retrieved"])
    named = dataset.assign_coords(name=("station", np.array(stored["name"], dtype=str)))
    return named.drop_vars(["grid_lat", "grid_lon"]).assign_attrs(
        replay=stored["note"], source=stored["source"], license=stored["license"]
    )


def open_weather_map(
    lat: Any, lon: Any, *, station: Any = None, url: str = OPEN_WEATHER_MAP, **options: Any
) -> xr.Dataset:
    """The weather now and the forecast of five days in steps of three hours, from OpenWeatherMap.

    The key stands in the environment variable OPENWEATHERMAP_API_KEY and nowhere else: it is no argument, and it is
    in no output, error, log or attribute. Each place takes two requests; the free plan allows 60 a minute.

    Args:
        lat, lon, station: as in :func:`open_meteo`.
        url: address of the service, up to and without "/weather".
        options: retries, backoff, timeout, see :func:`stgcn_lab.datasets.get_json`.

    Returns:
        Dataset (time, station) with air_temperature (degC), relative_humidity (%), air_pressure_at_mean_sea_level
        (hPa), wind_speed (m s-1) and precip (mm in the three hours before; NaN now). The first time is now, the latest
        of the times for which the places have current weather (coord current, over station); coord forecast is False
        there.

    Raises:
        TypeError, ValueError: places that cannot be, or an answer that is not of the documented form.
        PermissionError: no key in the environment, or one that the service does not accept.
        FileNotFoundError, ConnectionError: the service or the network, see `get_json`.

    Source:
        https://openweathermap.org/current, https://openweathermap.org/forecast5.
    """
    where = _places(lat, lon, station)
    key = os.environ.get(OPEN_WEATHER_MAP_KEY, "").strip()
    if not key:
        raise PermissionError(
            f"OpenWeatherMap: expected a key in the environment variable {OPEN_WEATHER_MAP_KEY}, found none; get one "
            "at https://openweathermap.org/appid, and keep it out of notebooks and files under version control"
        )
    now: list[Mapping[str, Any]] = []
    coming: list[Mapping[str, Any]] = []
    for south_north, west_east in zip(where.lat, where.lon, strict=True):
        asked = {"lat": f"{south_north:.5f}", "lon": f"{west_east:.5f}", "units": "metric", "appid": key}
        for kind, answers in (("weather", now), ("forecast", coming)):
            answer = get_json(f"{url}/{kind}", asked, secret=key, **options)
            answers.append(_checked_weather(_without(answer, key)))
    return _weather_series(where, now, coming, url)


def daily_mean(series: Field, least: int | None = None) -> Field:
    """Means of whole days in UTC, and totals of amounts such as precipitation, from a series of shorter steps.

    A day counts where enough of its values are there. An amount belongs to the step before its time stamp, so that
    what fell before midnight counts for the day that then ends.

    Args:
        series: DataArray or Dataset (time, station), several steps a day; amounts have the standard_name of
            precipitation.
        least: how many values a day must have; None is all of them, 24 for hourly steps.

    Returns:
        The same for days, time being their beginning; from the first to the last day with a value, days without one
        in between being NaN. A coordinate forecast (time) is True for days of which any value was a forecast.

    Raises:
        TypeError, ValueError: for another kind of series, steps of half a day or longer, a ``least`` out of range, or
            not a single whole day.
    """
    series = check_series(series)
    times = series.indexes["time"]
    if not isinstance(times, pd.DatetimeIndex) or len(times) < 2:
        raise ValueError(f"series: expected at least two times, as dates, found {len(times)}")
    step = pd.Series(times).diff().median()  # one odd step, such as that to the next whole hour, does not count
    steps = round(pd.Timedelta(days=1) / step)
    if steps < 3:
        raise ValueError(f"series: expected several steps a day, found steps of {step}")
    least = steps if least is None else whole_number(least, "least")
    if least > steps:
        raise ValueError(f"least: expected at most the {steps} steps of a day, found {least}")

    def is_amount(variable: xr.DataArray) -> bool:
        return variable.attrs.get("standard_name") == _NAMES["precip"].standard_name

    def by_day(variable: xr.DataArray) -> xr.DataArray:
        summed = is_amount(variable)
        frame = pd.DataFrame(variable.values, times - (step if summed else pd.Timedelta(0)))
        days = frame.resample("1D")
        value = (days.sum() if summed else days.mean()).where(days.count() >= least)
        return xr.DataArray(value, {"time": value.index}, ("time", "station"), variable.name, variable.attrs)

    dataset = series if isinstance(series, xr.Dataset) else series.to_dataset(name="__field__")
    means = {name: by_day(variable) for name, variable in dataset.data_vars.items()}
    merged = xr.Dataset(means)  # a day that one variable has and another lacks is NaN in that other
    there = merged.notnull().any("station").to_array().any("variable").values
    if not there.any():
        raise ValueError(
            f"series: expected at least one day with {least} values, found none in {times[0]} to {times[-1]}"
        )
    first, last = there.argmax(), len(there) - there[::-1].argmax()
    merged = merged.isel(time=slice(first, last))
    kept = {key: value for key, value in dataset.coords.items() if "time" not in value.dims}
    merged = merged.assign_coords(kept).assign_attrs(dataset.attrs)
    if "forecast" in dataset.coords:
        shift = step if any(map(is_amount, dataset.data_vars.values())) else pd.Timedelta(0)
        ahead = pd.Series(np.tile(dataset["forecast"].values, 2), (times - shift).append(times)).resample("1D").max()
        ahead = ahead.reindex(merged.indexes["time"], fill_value=False)
        merged = merged.assign_coords(forecast=("time", ahead.to_numpy(dtype=bool), dataset["forecast"].attrs))
    merged["time"].attrs.update(dataset["time"].attrs)
    return merged if isinstance(series, xr.Dataset) else merged["__field__"].rename(series.name)


# --- what both services share -----------------------------------------------------------------------------------


class _Places(NamedTuple):
    """Places that have been checked."""

    lat: np.ndarray
    lon: np.ndarray
    station: np.ndarray


def _places(lat: Any, lon: Any, station: Any) -> _Places:
    if station is None and isinstance(lat, xr.DataArray) and "station" in lat.coords:
        station = lat["station"].values
    axes = []
    for name, values, limit in (("lat", lat, 90), ("lon", lon, 180)):
        try:
            degrees = np.atleast_1d(np.asarray(values, dtype=float))
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: expected degrees as numbers, found {_shortened(values)}") from error
        if degrees.ndim != 1 or not degrees.size:
            raise ValueError(
                f"{name}: expected one number for each place and at least one place, found {degrees.shape}"
            )
        wrong = ~(np.abs(degrees) <= limit)  # NaN is wrong too
        if wrong.any():
            raise ValueError(f"{name}: expected -{limit} to {limit} degrees, found {degrees[wrong][0]:g}")
        axes.append(degrees)
    if len(axes[0]) != len(axes[1]):
        raise ValueError(f"lon: expected as many places as lat, {len(axes[0])}, found {len(axes[1])}")
    names = np.arange(len(axes[0])) if station is None else np.atleast_1d(np.asarray(station))
    if names.shape != axes[0].shape:
        raise ValueError(f"station: expected one name for each of {len(axes[0])} places, found {names.shape}")
    if not pd.Index(names).is_unique:
        twice = pd.Index(names)[pd.Index(names).duplicated()][0]
        raise ValueError(f"station: expected each name once, found {twice!r} more than once")
    return _Places(axes[0], axes[1], names)


def _series(
    where: _Places,
    times: pd.DatetimeIndex,
    data: Mapping[str, np.ndarray],
    ahead: np.ndarray,
    now: pd.Timestamp,
    frequency: str,
) -> xr.Dataset:
    """Values (time, station) under our names, with the coordinates and attributes that every series here has."""
    variables = {}
    for name, values in data.items():
        meaning = _NAMES[name]
        attrs = {"units": meaning.units, "long_name": meaning.long_name, "standard_name": meaning.standard_name}
        if frequency == "daily":
            attrs |= {"cell_methods": f"time: {'sum' if meaning.summed else 'mean'} (interval: 1 hour)"}
            attrs["long_name"] = f"daily {'total' if meaning.summed else 'mean'}: {meaning.long_name}"
        elif meaning.summed:
            attrs |= {"cell_methods": "time: sum"}
        variables[name] = (("time", "station"), values, attrs)
    coords = {
        "time": ("time", times, {"standard_name": "time", "long_name": "time (UTC)"}),
        "station": ("station", where.station),
        "lat": ("station", where.lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("station", where.lon, {"units": "degrees_east", "standard_name": "longitude"}),
        "forecast": ("time", np.asarray(ahead, dtype=bool), {"long_name": "not yet over when it was retrieved"}),
    }
    return xr.Dataset(variables, coords, {"Conventions": "CF-1.8", "retrieved": f"{now:%Y-%m-%dT%H:%M:%SZ}"})


def _days(value: Any, name: str, most: int) -> int:
    days = whole_number(value, name, least=0)
    if days > most:
        raise ValueError(f"{name}: expected at most {most}, found {days}")
    return days


def _day(value: Any, name: str) -> str:
    try:
        day = pd.Timestamp(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected a day such as '2015-01-01', found {value!r}") from error
    if day is pd.NaT:
        raise ValueError(f"{name}: expected a day such as '2015-01-01', found {value!r}")
    return f"{day:%Y-%m-%d}"


def _instant(value: Any) -> pd.Timestamp:
    """A moment in UTC, without saying so, as xarray wants it."""
    try:
        moment = pd.Timestamp(datetime.now(UTC) if value is None else value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"retrieved: expected a time such as '2026-01-31T06:00Z', found {value!r}") from error
    if moment is pd.NaT:
        raise ValueError("retrieved: expected a time, found none")
    return moment.tz_convert(None) if moment.tzinfo else moment


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"answer: expected a number as {name}, found {_shortened(value)}")
    return float(value)


def _numbers(values: Any, count: int, name: str) -> np.ndarray:
    """(count,) float64 of a JSON list in which null is a missing value."""
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"answer: expected a list of {count} values of {name}, found {_shortened(values)}")
    return np.array([np.nan if value is None else _number(value, name) for value in values])


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- Open-Meteo -------------------------------------------------------------------------------------------------


def _ask_open_meteo(
    lat: Any,
    lon: Any,
    variables: str | Sequence[str],
    station: Any,
    frequency: str,
    url: str,
    wanted: Mapping[str, Any],
    options: Mapping[str, Any],
) -> xr.Dataset:
    """Ask for the places, as many at a time as one request may hold, and put the answers together."""
    where = _places(lat, lon, station)
    names = [variables] if isinstance(variables, str) else list(variables)
    unknown = [name for name in names if name not in _NAMES]
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(f"variables: expected some of {', '.join(_NAMES)}, each once, found {names}")
    if frequency not in FREQUENCIES:
        raise ValueError(f"frequency: expected hourly or daily, found {frequency!r}")
    fixed = {frequency: ",".join(getattr(_NAMES[name], frequency) for name in names), **wanted}
    fixed |= {"wind_speed_unit": "ms", "timeformat": "unixtime", "timezone": "GMT"}
    parts, now = [], _instant(None)
    for first in range(0, len(where.lat), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        here = {
            "latitude": ",".join(f"{degrees:.5f}" for degrees in where.lat[part]),
            "longitude": ",".join(f"{degrees:.5f}" for degrees in where.lon[part]),
        }
        answer = get_json(url, here | fixed, **options)
        part_of = read_open_meteo(
            answer, where.lat[part], where.lon[part], station=where.station[part], retrieved=now.isoformat()
        )
        missing = set(names) - set(part_of.data_vars)
        if missing:
            raise ValueError(f"answer: expected {', '.join(names)}, found no {', '.join(sorted(missing))}")
        parts.append(part_of)
    if any(not other.indexes["time"].equals(parts[0].indexes["time"]) for other in parts):
        raise ValueError(
            "answer: expected the same times for all places, but the day changed meanwhile; please ask again"
        )
    joined = parts[0] if len(parts) == 1 else xr.concat(parts, "station", coords="minimal", join="exact")
    return joined[names].assign_attrs(parts[0].attrs)


def _refuse_error(answer: Any) -> None:
    """An error in the form that Open-Meteo documents: {"error": true, "reason": "..."}."""
    if isinstance(answer, Mapping) and answer.get("error"):
        raise ValueError(f"Open-Meteo refuses the request: {answer.get('reason', 'it gives no reason')}")


def _block(place: Mapping[str, Any], frequency: str) -> tuple[pd.DatetimeIndex, dict[str, np.ndarray]]:
    """Times in UTC, and the values of each variable that has a name here, of one place."""
    block, units = place.get(frequency), place.get(f"{frequency}_units")
    if not isinstance(block, Mapping) or not isinstance(units, Mapping) or not isinstance(block.get("time"), list):
        raise ValueError(f"answer: expected {frequency} values with times, and their units, found {_shortened(block)}")
    stamps = block["time"]
    offset = pd.Timedelta(seconds=_number(place.get("utc_offset_seconds", 0), "utc_offset_seconds"))
    if frequency == "daily" and offset:
        raise ValueError(f"answer: expected days in UTC (timezone=GMT), found days {offset} from it")
    try:
        if units.get("time") == "unixtime":
            times = pd.DatetimeIndex(pd.to_datetime(stamps, unit="s"))
        else:
            times = pd.DatetimeIndex(pd.to_datetime(stamps, format="ISO8601")) - offset
    except (TypeError, ValueError) as error:
        raise ValueError(f"answer: expected times, found {_shortened(stamps)}") from error
    if not len(times) or times.hasnans or not (times.is_monotonic_increasing and times.is_unique):
        raise ValueError(f"answer: expected times in ascending order, each once, found {_shortened(stamps)}")
    values = {}
    for name, meaning in _NAMES.items():
        key = getattr(meaning, frequency)
        if key in block:
            found = units.get(key)
            ours, factor, shift = _UNITS.get(str(found), ("", 1.0, 0.0))
            if ours != meaning.units:
                raise ValueError(f"answer: expected {key} in units of {meaning.units}, found {found!r}")
            values[name] = _numbers(block[key], len(times), key) * factor + shift
    return times.as_unit("ns"), values


# --- OpenWeatherMap ---------------------------------------------------------------------------------------------


def _without(answer: Any, key: str) -> Any:
    """The answer with the key taken out of every text, for a service may repeat what it was sent."""
    if isinstance(answer, Mapping):
        return {_hidden(name, key): _without(value, key) for name, value in answer.items()}
    if isinstance(answer, list):
        return [_without(value, key) for value in answer]
    return _hidden(answer, key) if isinstance(answer, str) else answer


def _checked_weather(answer: Any) -> Mapping[str, Any]:
    """The answer, or the error that it holds: {"cod": 401, "message": "..."}, where cod may be text."""
    if not isinstance(answer, Mapping):
        raise ValueError(f"answer: expected an object of OpenWeatherMap, found {_shortened(answer)}")
    code = str(answer.get("cod", ""))
    if code != "200":
        kinds = {"401": PermissionError, "403": PermissionError, "404": FileNotFoundError, "429": ConnectionError}
        message = f"OpenWeatherMap answers {code or 'without a code'}: {answer.get('message', 'no message')}"
        raise kinds.get(code, ValueError)(message)
    return answer


def _weather_series(
    where: _Places, now: Sequence[Mapping[str, Any]], coming: Sequence[Mapping[str, Any]], url: str
) -> xr.Dataset:
    """Current weather of all places as the first time, and their forecasts after it."""
    lists: list[list[Any]] = [answer.get("list", []) for answer in coming]
    if not all(isinstance(steps, list) and steps for steps in lists):
        raise ValueError("answer: expected a list of forecasts for each place, found none")
    stamps = [[_of(step, "dt") for step in steps] for steps in lists]
    if any(other != stamps[0] for other in stamps) or np.isnan(stamps).any():
        raise ValueError("answer: expected forecasts for the same times at all places; please ask again")
    current = np.array([_of(answer, "dt") for answer in now])
    if np.isnan(current).any():
        raise ValueError("answer: expected the time of the current weather (dt), found none")
    first = current.max()
    after = [k for k, stamp in enumerate(stamps[0]) if stamp > first]
    times = pd.DatetimeIndex(pd.to_datetime([first, *(stamps[0][k] for k in after)], unit="s")).as_unit("ns")
    if not (times.is_monotonic_increasing and times.is_unique):
        raise ValueError("answer: expected forecasts in ascending order, each once")
    rows = [[_measured(answer, False) for answer in now]]
    rows += [[_measured(steps[k], True) for steps in lists] for k in after]
    values = np.array(rows)  # (time, station, variable)
    data = {name: values[:, :, k] for k, name in enumerate(_MEASURED)}
    dataset = _series(where, times, data, np.arange(len(times)) > 0, _instant(None), "hourly")
    dataset["precip"].attrs["long_name"] = "precipitation of the preceding three hours"
    stamped = pd.DatetimeIndex(pd.to_datetime(current, unit="s")).as_unit("ns")
    return dataset.assign_coords(
        current=("station", stamped, {"long_name": "time of the current weather (UTC)"})
    ).assign_attrs(
        source=f"OpenWeatherMap, {url}: a model held close to measurements, not measurements of a station",
        license="that of your plan at OpenWeather, https://openweathermap.org; name OpenWeather as the source",
    )


_MEASURED = ("air_temperature", "relative_humidity", "air_pressure_at_mean_sea_level", "wind_speed", "precip")


def _measured(step: Any, forecast: bool) -> tuple[float, ...]:
    pressure = _of(step, "main", "sea_level")
    fell = np.nan
    if forecast:  # the service leaves rain and snow away where none falls
        fell = sum(_of(step, kind, "3h") if kind in step else 0.0 for kind in ("rain", "snow"))
    return (
        _of(step, "main", "temp"),
        _of(step, "main", "humidity"),
        _of(step, "main", "pressure") if np.isnan(pressure) else pressure,
        _of(step, "wind", "speed"),
        fell,
    )


def _of(value: Any, *path: str) -> float:
    """The number at the end of a path of keys; NaN where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return np.nan if value is None else _number(value, ".".join(path))
