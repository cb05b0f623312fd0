"""Weather services: answers in their documented form, over loopback; what may go wrong; a key that is never shown."""

import json
import logging
import os
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from faults import OK, RESET, TRUNCATED, WRONG, Answer, FaultyServer, Request, nobody, slow, status

from stgcn_lab import datasets
from stgcn_lab.datasets import services

FAST = {"backoff": 0.0, "timeout": 2.0}
LAT, LON = [51.93, 53.42, 55.37], [-10.25, -6.25, -7.33]
NOON = pd.Timestamp("2026-01-10T12:00")
UNITS = {"temperature_2m": "°C", "wind_speed_10m": "m/s", "precipitation": "mm", "pressure_msl": "hPa"}


def place(number: int = 0, hours: int = 72, step: str = "hourly", **changes) -> dict:
    """One place as Open-Meteo answers: the writer of the service, field by field."""
    times = pd.date_range("2026-01-09", periods=hours, freq="h")
    answer = {
        "latitude": 52.0 + number,
        "longitude": -8.0,
        "generationtime_ms": 0.05,
        "utc_offset_seconds": 0,
        "timezone": "GMT",
        "timezone_abbreviation": "GMT",
        "elevation": 10.0 + number,
    }
    if number:
        answer["location_id"] = number
    answer["hourly_units"] = {"time": "unixtime", **UNITS}
    answer["hourly"] = {
        "time": [int(t.timestamp()) for t in times],
        "temperature_2m": [round(5 + number + 0.1 * k, 1) for k in range(hours)],
        "wind_speed_10m": [round(6 + number + 0.01 * k, 2) for k in range(hours)],
        "precipitation": [0.5 if k % 24 == 0 else 0.0 for k in range(hours)],
        "pressure_msl": [1000.0 + number] * hours,
    }
    return answer | changes


def of_request(request: Request) -> object:
    """What the service would answer: one object for one place, a list for several, only what was asked for."""
    count = len(request.query["latitude"][0].split(","))
    names = request.query["hourly"][0].split(",")
    places = [place(k) for k in range(count)]
    for one in places:
        for block in ("hourly", "hourly_units"):
            one[block] = {key: value for key, value in one[block].items() if key in ("time", *names)}
    return places[0] if count == 1 else places


@pytest.fixture
def server():
    with FaultyServer({"/v1/forecast": of_request, "/v1/archive": of_request}) as running:
        yield running


def ask(server, lat=LAT, lon=LON, variables=("air_temperature", "wind_speed"), **options):
    return datasets.open_meteo(lat, lon, variables, url=server.url("/v1/forecast"), **(FAST | options))


# --- Open-Meteo: what is asked, what is made of the answer --------------------------------------------------------


def test_one_request_for_all_places_in_the_documented_form(server):
    found = ask(server, station=["VAL", "DUB", "MAL"], past_days=1, forecast_days=2)
    assert server.count() == 1
    query = {key: values[0] for key, values in server.requests[0].query.items()}
    assert query == {
        "latitude": "51.93000,53.42000,55.37000",
        "longitude": "-10.25000,-6.25000,-7.33000",
        "hourly": "temperature_2m,wind_speed_10m",
        "past_days": "1",
        "forecast_days": "2",
        "wind_speed_unit": "ms",
        "timeformat": "unixtime",
        "timezone": "GMT",
    }
    datasets.check_series(found)
    assert found["wind_speed"].dims == ("time", "station") and found.sizes == {"time": 72, "station": 3}
    assert list(found.station.values) == ["VAL", "DUB", "MAL"]
    assert found["time"].values[0] == np.datetime64("2026-01-09T00:00")
    assert {name: found[name].attrs["units"] for name in found} == {"air_temperature": "degC", "wind_speed": "m s-1"}
    assert found["wind_speed"].values[1].tolist() == [6.01, 7.01, 8.01]
    np.testing.assert_array_equal(found["lat"], LAT)
    np.testing.assert_array_equal(found["grid_lat"], [52, 53, 54])
    np.testing.assert_array_equal(found["elevation"], [10, 11, 12])
    assert "Open-Meteo" in found.attrs["source"] and "CC BY 4.0" in found.attrs["license"]
    asked = pd.Timestamp(found.attrs["retrieved"])
    assert abs(asked - pd.Timestamp.now(tz="UTC")) < pd.Timedelta(minutes=1)


def test_one_place_is_an_object_and_numbers_will_do(server):
    found = ask(server, 51.93, -10.25, "wind_speed")
    assert found.sizes == {"time": 72, "station": 1} and list(found.data_vars) == ["wind_speed"]
    assert found["station"].values.tolist() == [0]
    assert "," not in server.requests[0].query["latitude"][0]


def test_coordinates_of_a_series_bring_their_names(server):
    wind = datasets.load_irish_wind()
    found = ask(server, wind.lat, wind.lon)
    assert found.station.values.tolist() == wind.station.values.tolist()


def test_more_places_than_a_request_holds_are_asked_for_in_several(server):
    lat, lon = np.linspace(50, 55, 250), np.linspace(-10, -5, 250)
    found = ask(server, lat, lon, "wind_speed")
    assert [len(request.query["latitude"][0].split(",")) for request in server.requests] == [100, 100, 50]
    assert found.sizes == {"time": 72, "station": 250}
    np.testing.assert_array_equal(found["lat"], lat)
    np.testing.assert_array_equal(found["station"], np.arange(250))
    assert found["grid_lat"].values[100] == 52  # the first place of the second request
    assert found["forecast"].dims == ("time",)


def test_past_and_forecast_are_told_apart():
    stored = [place(0), place(1)]
    found = datasets.read_open_meteo(stored, retrieved=NOON)
    assert found["forecast"].dtype == bool
    assert not found["forecast"].sel(time=NOON) and found["forecast"].sel(time=NOON + pd.Timedelta(hours=1))
    assert int(found["forecast"].sum()) == 72 - 37
    with_zone = datasets.read_open_meteo(stored, retrieved="2026-01-10T13:00+01:00")
    xr.testing.assert_identical(found, with_zone)
    assert found.attrs["retrieved"] == "2026-01-10T12:00:00Z"


def test_missing_values_are_nan():
    answer = place()
    answer["hourly"]["wind_speed_10m"][3:5] = [None, None]
    found = datasets.read_open_meteo(answer, retrieved=NOON)
    assert np.flatnonzero(found["wind_speed"].isnull()).tolist() == [3, 4]
    assert not found["air_temperature"].isnull().any()


def test_units_are_read_from_the_answer_and_not_believed():
    answer = place()
    metric = datasets.read_open_meteo(answer, retrieved=NOON)
    other = json.loads(json.dumps(answer))
    other["hourly_units"] |= {"wind_speed_10m": "km/h", "temperature_2m": "°F", "precipitation": "inch"}
    for key, change in (
        ("wind_speed_10m", lambda v: v * 3.6),
        ("temperature_2m", lambda v: v * 1.8 + 32),
        ("precipitation", lambda v: v / 25.4),
    ):
        other["hourly"][key] = [change(value) for value in other["hourly"][key]]
    xr.testing.assert_allclose(datasets.read_open_meteo(other, retrieved=NOON), metric)
    other["hourly_units"]["wind_speed_10m"] = "furlong"
    with pytest.raises(ValueError, match="wind_speed_10m in units of m s-1, found 'furlong'"):
        datasets.read_open_meteo(other)


def test_times_as_text_at_another_clock_mean_the_same():
    seconds = place()
    text = json.loads(json.dumps(seconds))
    text["hourly_units"]["time"], text["utc_offset_seconds"] = "iso8601", 3600
    local = pd.to_datetime(seconds["hourly"]["time"], unit="s") + pd.Timedelta(hours=1)
    text["hourly"]["time"] = [f"{t:%Y-%m-%dT%H:%M}" for t in local]
    one, two = (datasets.read_open_meteo(answer, retrieved=NOON) for answer in (seconds, text))
    xr.testing.assert_identical(one, two)


def test_daily_values_have_names_of_their_own_and_end_when_the_day_ends():
    days = ["2026-01-09", "2026-01-10", "2026-01-11"]
    answer = place()
    del answer["hourly"], answer["hourly_units"]
    answer["daily_units"] = {"time": "iso8601", "wind_speed_10m_mean": "m/s", "precipitation_sum": "mm"}
    answer["daily"] = {"time": days, "wind_speed_10m_mean": [5, 6.5, None], "precipitation_sum": [0.0, 3.2, 1.0]}
    found = datasets.read_open_meteo(answer, retrieved=NOON)
    assert found["forecast"].values.tolist() == [False, True, True]
    assert found["wind_speed"].attrs["cell_methods"].startswith("time: mean")
    assert found["precip"].attrs["cell_methods"].startswith("time: sum")
    np.testing.assert_array_equal(found["wind_speed"].values[:, 0], [5, 6.5, np.nan])
    answer["utc_offset_seconds"] = 3600
    with pytest.raises(ValueError, match="days in UTC"):
        datasets.read_open_meteo(answer)


def test_daily_frequency_asks_for_daily_means(server):
    server.contents["/v1/forecast"] = place() | {
        "daily_units": {"time": "unixtime", "wind_speed_10m_mean": "m/s"},
        "daily": {"time": [1767916800], "wind_speed_10m_mean": [7.0]},
    }
    del server.contents["/v1/forecast"]["hourly"]
    found = ask(server, 52, -8, "wind_speed", frequency="daily", past_days=92)
    assert server.requests[0].query["daily"] == ["wind_speed_10m_mean"]
    assert "hourly" not in server.requests[0].query
    assert found["wind_speed"].values.tolist() == [[7.0]]


def test_the_archive_is_asked_with_dates(server):
    options = {"url": server.url("/v1/archive"), "frequency": "hourly"} | FAST
    found = datasets.open_meteo_archive(LAT, LON, "2026-01-09", pd.Timestamp("2026-01-11"), "wind_speed", **options)
    query = server.requests[0].query
    assert (query["start_date"], query["end_date"]) == (["2026-01-09"], ["2026-01-11"])
    assert "past_days" not in query and "forecast_days" not in query
    assert not found["forecast"].any()
    with pytest.raises(ValueError, match="end: expected a day not before start"):
        datasets.open_meteo_archive(LAT, LON, "2026-01-09", "2025-01-11", **options)
    for wrong in ("yesterday-ish", None, "NaT"):
        with pytest.raises(ValueError, match="start: expected a day"):
            datasets.open_meteo_archive(LAT, LON, wrong, "2026-01-11", **options)


def test_it_can_be_saved_and_read_again(server, tmp_path):
    found = ask(server, station=["VAL", "DUB", "MAL"])
    found.to_netcdf(tmp_path / "live.nc")
    with xr.open_dataset(tmp_path / "live.nc", engine="netcdf4") as again:
        xr.testing.assert_allclose(again.load(), found)


def test_the_caller_keeps_what_was_passed(server):
    lat, variables = np.array(LAT), ["wind_speed"]
    ask(server, lat, LON, variables)
    np.testing.assert_array_equal(lat, LAT)
    assert variables == ["wind_speed"]
    stored = [place(0), place(1)]
    before = json.dumps(stored)
    datasets.read_open_meteo(stored)
    assert json.dumps(stored) == before


# --- Open-Meteo: what goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lat": []}, ValueError, "lat: expected one number for each place and at least one"),
        ({"lat": [51, 52]}, ValueError, "lon: expected as many places as lat, 2, found 3"),
        ({"lat": [51, 52, 123]}, ValueError, "lat: expected -90 to 90 degrees, found 123"),
        ({"lon": [1, 2, 350]}, ValueError, "lon: expected -180 to 180 degrees, found 350"),
        ({"lat": [51, np.nan, 52]}, ValueError, "lat: .* found nan"),
        ({"lon": [1, np.inf, 52]}, ValueError, "lon: .* found inf"),
        ({"lat": ["north", 1, 2]}, TypeError, "lat: expected degrees as numbers"),
        ({"lat": [[51, 52, 53]]}, ValueError, "lat: expected one number for each place"),
        ({"lat": None}, ValueError, "lat: .* found nan"),
        ({"station": ["A", "B"]}, ValueError, "station: expected one name for each of 3 places"),
        ({"station": ["A", "B", "A"]}, ValueError, "station: expected each name once, found 'A'"),
        ({"variables": ["wind"]}, ValueError, "variables: expected some of air_temperature, .* found .'wind'"),
        ({"variables": []}, ValueError, "variables: expected some of"),
        ({"variables": ["precip", "precip"]}, ValueError, "variables: .* each once"),
        ({"frequency": "weekly"}, ValueError, "frequency: expected hourly or daily"),
        ({"past_days": 93}, ValueError, "past_days: expected at most 92"),
        ({"past_days": -1}, ValueError, "past_days: expected a whole number"),
        ({"past_days": 1.5}, ValueError, "past_days: expected a whole number"),
        ({"forecast_days": 17}, ValueError, "forecast_days: expected at most 16"),
        ({"past_days": 0, "forecast_days": 0}, ValueError, "at least one day"),
    ],
)
def test_what_cannot_be_asked_is_not_asked(server, change, error, message):
    with pytest.raises(error, match=message):
        ask(server, **change)
    assert server.count() == 0


def test_the_services_own_words_in_an_error(server):
    reason = "Latitude must be in range of -90 to 90°. Given: 300.0."
    server.always("/v1/forecast", status(400, {"error": True, "reason": reason}))
    with pytest.raises(ValueError, match="Latitude must be in range"):
        ask(server)
    assert server.count() == 1  # asking again would not help
    server.always("/v1/forecast", Answer(200, {"error": True, "reason": "No data"}))
    with pytest.raises(ValueError, match="Open-Meteo refuses the request: No data"):
        ask(server)
    with pytest.raises(ValueError, match="gives no reason"):
        datasets.read_open_meteo({"error": True})
    with pytest.raises(ValueError, match="one of the places"):
        datasets.read_open_meteo([place(), {"error": True, "reason": "one of the places"}])


LIMIT = {"error": True, "reason": "Minutely API request limit exceeded. Please try again in one minute."}


@pytest.mark.parametrize(
    "fault", [status(429, LIMIT), TRUNCATED, WRONG, RESET, status(503), status(502, b"bad gateway")]
)
def test_a_passing_fault_is_survived(server, fault):
    server.script("/v1/forecast", fault, fault)
    found = ask(server)
    assert server.count() == 3 and found.sizes["station"] == 3


def test_an_error_in_the_middle_of_the_stream_is_no_answer(server):
    # the service has then sent its status already, and writes the error behind half of the values
    text = json.dumps(place())[:900] + "Unexpected error while streaming data: readFailed"
    server.script("/v1/forecast", Answer(200, text))
    assert ask(server).sizes["station"] == 3 and server.count() == 2


@pytest.mark.parametrize("fault", [status(429, LIMIT), TRUNCATED, WRONG, RESET, status(500)])
def test_a_lasting_fault_is_told(server, fault):
    server.always("/v1/forecast", fault)
    with pytest.raises(ConnectionError, match="tried 3 times") as caught:
        ask(server, retries=2)
    assert server.count() == 3
    if fault.status == 429:
        assert "Minutely API request limit exceeded" in str(caught.value)


def test_a_slow_answer_is_given_up(server):
    server.always("/v1/forecast", slow(0.5))
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match=r"no answer within 0\.05 s"):
        ask(server, timeout=0.05, retries=1)
    assert time.perf_counter() - start < 0.5


def test_no_network():
    with pytest.raises(ConnectionError, match="Is there a network"):
        datasets.open_meteo(52, -8, url=nobody() + "/v1/forecast", retries=1, backoff=0.0)


def test_a_fault_of_the_second_request_loses_nothing(server):
    server.script("/v1/forecast", OK, status(503), OK)
    assert ask(server, np.linspace(50, 55, 150), np.full(150, -8.0)).sizes["station"] == 150
    assert server.count() == 3


def broken(**changes) -> dict:
    answer = place()
    for path, value in changes.items():
        block, _, key = path.partition("__")
        if not key:
            answer[block] = value
        elif value is KeyError:
            del answer[block][key]
        else:
            answer[block][key] = value
    return answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "one object or a list"),
        (None, "one object or a list"),
        ("fine", "one object or a list"),
        ([1, 2, 3], "one object or a list"),
        ({}, "a number as latitude, found None"),
        (broken(latitude="north"), "a number as latitude, found 'north'"),
        ({"latitude": 1.0, "longitude": 2.0}, "hourly or daily values, found only latitude, longitude"),
        (broken(hourly=[]), "hourly values with times"),
        (broken(hourly_units=None), "hourly values with times"),
        (broken(hourly__time=KeyError), "hourly values with times"),
        (broken(hourly__time=[]), "times in ascending order"),
        (broken(hourly__time=[3600] * 72), "times in ascending order, each once"),
        (broken(hourly__time=[None] * 72), "times in ascending order"),
        (broken(hourly__time=["noon"] * 72), "expected times, found"),
        (broken(hourly__wind_speed_10m=[1.0] * 71), "a list of 72 values of wind_speed_10m"),
        (broken(hourly__wind_speed_10m=["5"] * 72), "a number as wind_speed_10m, found '5'"),
        (broken(hourly__wind_speed_10m=[True] * 72), "a number as wind_speed_10m, found True"),
        (broken(hourly_units__wind_speed_10m=KeyError), "wind_speed_10m in units of m s-1, found None"),
        (broken(hourly={"time": [0], "rain": [0.0]}), "expected one of air_temperature"),
        ([place(), place(1, hours=48)], "the times and variables of the first place everywhere, not in place 1"),
        (broken(elevation="high"), "a number as elevation"),
        (broken(utc_offset_seconds="one"), "a number as utc_offset_seconds"),
    ],
)
def test_an_answer_of_another_form_is_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        datasets.read_open_meteo(answer)


def test_an_answer_must_fit_the_question(server):
    with pytest.raises(ValueError, match="one object for each of 3 places, found 1"):
        datasets.read_open_meteo(place(), LAT, LON)
    with pytest.raises(ValueError, match="expected both or none"):
        datasets.read_open_meteo(place(), 52)
    for wrong in ("soon", "NaT"):
        with pytest.raises(ValueError, match="retrieved: expected a time"):
            datasets.read_open_meteo(place(), retrieved=wrong)
    server.contents["/v1/forecast"] = broken(hourly__wind_speed_10m=KeyError)
    with pytest.raises(ValueError, match="found no wind_speed"):
        ask(server, 52, -8)


def test_midnight_between_two_requests_is_noticed(server):
    answers = iter([[place(k) for k in range(100)], [place(k, hours=48) for k in range(50)]])
    server.contents["/v1/forecast"] = lambda request: next(answers)
    with pytest.raises(ValueError, match="the day changed meanwhile"):
        ask(server, np.linspace(50, 55, 150), np.full(150, -8.0))


# --- the replay ---------------------------------------------------------------------------------------------------


def test_the_replay_is_the_end_of_the_record_and_says_what_it_is():
    replay = datasets.open_meteo_replay()
    datasets.check_series(replay)
    assert "replay of 30 December 1978" in replay.attrs["replay"]
    assert "Open-Meteo, https" not in replay.attrs["source"]  # no service ever sent it
    wind = datasets.load_irish_wind()
    past = replay["wind_speed"].sel(time=~replay["forecast"])
    assert past.sizes == {"time": 92, "station": 12} and not past.isnull().any()
    record = wind["wind_speed"].sel(time=past["time"])
    np.testing.assert_allclose(past.values, record.values, atol=0.00501)
    assert replay["time"].values[-1] == wind["time"].values[-1]
    assert replay["wind_speed"].sel(time=replay["forecast"]).isnull().all()
    for name in ("station", "name", "lat", "lon"):
        np.testing.assert_array_equal(replay[name], wind[name])


def test_the_stored_file_is_small_and_marked():
    path = datasets.embedded("open_meteo_replay.json")
    assert path.stat().st_size < 60_000
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["replay"] is True
    assert [answer.get("location_id", 0) for answer in stored["answer"]] == list(range(12))


def test_the_replay_is_rebuilt_to_the_byte():
    script = Path(__file__).parent.parent / "data" / "build_replay.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "open_meteo_replay.json: same bytes" in done.stdout


# --- daily means --------------------------------------------------------------------------------------------------


def hourly(start: str = "2026-01-01T00:00", hours: int = 72, stations: int = 2) -> xr.Dataset:
    times = pd.date_range(start, periods=hours, freq="h")
    values = np.arange(hours)[:, None] + 100.0 * np.arange(stations)
    rain = {"units": "mm", "standard_name": "lwe_thickness_of_precipitation_amount"}
    return xr.Dataset(
        {
            "wind_speed": (("time", "station"), values, {"units": "m s-1"}),
            "precip": (("time", "station"), np.ones_like(values), rain),
        },
        {
            "time": times,
            "station": np.arange(stations),
            "lat": ("station", np.linspace(50, 55, stations)),
            "lon": ("station", np.linspace(-10, -5, stations)),
            "forecast": ("time", times > pd.Timestamp(start) + pd.Timedelta(hours=40)),
        },
        {"source": "here"},
    )


def test_daily_means_are_those_of_whole_days():
    series = hourly()
    days = datasets.daily_mean(series)
    datasets.check_series(days)
    np.testing.assert_array_equal(days["wind_speed"].values[:, 0], [11.5, 35.5, 59.5])
    np.testing.assert_array_equal(days["time"], pd.date_range("2026-01-01", periods=3))
    assert days["forecast"].values.tolist() == [False, True, True]
    assert days.attrs == {"source": "here"} and days["wind_speed"].attrs == series["wind_speed"].attrs
    np.testing.assert_array_equal(days["lat"], series["lat"])


def test_an_amount_belongs_to_the_hour_before_its_stamp():
    days = datasets.daily_mean(hourly())
    # the hour that ends at the first midnight belongs to the day before, and the last day lacks its last hour
    np.testing.assert_array_equal(days["precip"].values[:, 0], [24, 24, np.nan])
    later = datasets.daily_mean(hourly(start="2026-01-01T01:00"))
    np.testing.assert_array_equal(later["precip"].values[:, 0], [24, 24, 24])
    assert later["wind_speed"].isnull().values[:, 0].tolist() == [True, False, False]


def test_day_whose_last_rain_is_a_forecast_is_one():
    """At half past eleven the rain up to midnight is still to fall, and counts for the day that ends then."""
    series = hourly().assign_coords(forecast=("time", np.arange(72) >= 24))
    days = datasets.daily_mean(series)
    assert days["forecast"].values.tolist() == [True, True, True]
    assert datasets.daily_mean(series["wind_speed"])["forecast"].values.tolist() == [False, True, True]


def test_days_with_gaps_count_if_enough_is_there():
    series = hourly()["wind_speed"].copy()
    series[30, 0] = np.nan
    series[50:60, 1] = np.nan
    strict = datasets.daily_mean(series)
    assert isinstance(strict, xr.DataArray) and strict.name == "wind_speed"
    np.testing.assert_array_equal(strict.isnull().values, [[False, False], [True, False], [False, True]])
    mild = datasets.daily_mean(series, least=20)
    np.testing.assert_array_equal(mild.isnull().values, [[False, False], [False, False], [False, True]])
    assert mild.values[1, 0] == pytest.approx(np.delete(np.arange(24, 48), 6).mean())


def test_half_days_at_both_ends_fall_away_and_one_in_the_middle_stays_missing():
    series = hourly(start="2026-01-01T06:00", hours=24 * 5)["wind_speed"].copy()
    series[50, :] = np.nan
    days = datasets.daily_mean(series)
    assert [str(day)[:10] for day in days["time"].values] == [f"2026-01-0{k}" for k in (2, 3, 4, 5)]
    assert days.isnull().values[:, 0].tolist() == [False, True, False, False]


def test_missing_rows_are_missing_hours():
    series = hourly()["wind_speed"]
    kept = series.isel(time=[k for k in range(72) if k != 30])
    assert datasets.daily_mean(kept).isnull().values[:, 0].tolist() == [False, True, False]


def test_steps_of_three_hours_make_days_of_eight():
    series = hourly()["wind_speed"].isel(time=slice(0, None, 3))
    np.testing.assert_array_equal(datasets.daily_mean(series).values[:, 0], [10.5, 34.5, 58.5])


@pytest.mark.parametrize(
    ("series", "least", "error", "message"),
    [
        (hourly(hours=20), None, ValueError, "at least one day with 24 values, found none"),
        (hourly().isel(time=[0]), None, ValueError, "at least two times"),
        (hourly(), 25, ValueError, "least: expected at most the 24 steps"),
        (hourly(), 0, ValueError, "least: expected a whole number"),
        (hourly().isel(time=slice(0, None, 12)), None, ValueError, "several steps a day, found steps of"),
        (hourly().isel(time=slice(None, None, -1)), None, ValueError, "ascending order"),
        (hourly()["wind_speed"].values, None, TypeError, "expected an xarray"),
        (hourly() * np.nan, None, ValueError, "at least one day with 24 values"),
        (hourly().isel(station=slice(0, 0)), None, ValueError, "at least one time and one station"),
    ],
)
def test_what_has_no_daily_mean(series, least, error, message):
    with pytest.raises(error, match=message):
        datasets.daily_mean(series, least)


def test_the_series_stays_as_it_was():
    series = hourly()
    before = series.copy(deep=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        datasets.daily_mean(series)
    xr.testing.assert_identical(series, before)


# --- OpenWeatherMap -----------------------------------------------------------------------------------------------

KEY = "0123456789abcdef/+=0123456789ABC"  # the signs are such as an address has to write otherwise


def weather(dt: int = 1768046392, **changes) -> dict:
    """Current weather, field by field as documented (units=metric)."""
    answer = {
        "coord": {"lon": -10.25, "lat": 51.93},
        "weather": [{"id": 500, "main": "Rain", "description": "light rain", "icon": "10d"}],
        "base": "stations",
        "main": {
            "temp": 8.48,
            "feels_like": 6.1,
            "temp_min": 8.1,
            "temp_max": 9.0,
            "pressure": 1005,
            "humidity": 84,
            "sea_level": 1006,
            "grnd_level": 1001,
        },
        "visibility": 10000,
        "wind": {"speed": 9.26, "deg": 240, "gust": 14.9},
        "rain": {"1h": 0.8},
        "clouds": {"all": 100},
        "dt": dt,
        "sys": {"type": 2, "id": 1, "country": "IE", "sunrise": 1768035000, "sunset": 1768063000},
        "timezone": 0,
        "id": 2961423,
        "name": "Valentia",
        "cod": 200,
    }
    return answer | changes


def step(dt: int, **changes) -> dict:
    one = {
        "dt": dt,
        "main": {"temp": 7.5, "pressure": 1004, "sea_level": 1004, "grnd_level": 1000, "humidity": 80, "temp_kf": 0.3},
        "weather": [{"id": 804, "main": "Clouds", "description": "overcast clouds", "icon": "04d"}],
        "clouds": {"all": 100},
        "wind": {"speed": 10.5, "deg": 250, "gust": 16.0},
        "visibility": 10000,
        "pop": 0.3,
        "sys": {"pod": "d"},
        "dt_txt": "2026-01-10 12:00:00",
    }
    return one | changes


def coming(*steps) -> dict:
    steps = steps or [step(1768046400 + 10800 * k) for k in range(40)]
    return {"cod": "200", "message": 0, "cnt": len(steps), "list": list(steps), "city": {"id": 1, "name": "Valentia"}}


@pytest.fixture
def owm(monkeypatch):
    monkeypatch.setenv(datasets.OPEN_WEATHER_MAP_KEY, KEY)
    with FaultyServer({"/data/2.5/weather": weather(), "/data/2.5/forecast": coming()}) as running:
        yield running


def look(owm, lat=LAT, lon=LON, **options):
    return datasets.open_weather_map(lat, lon, url=owm.url("/data/2.5"), **(FAST | options))


def test_weather_now_and_forecast_become_one_series(owm):
    found = look(owm, station=["VAL", "DUB", "MAL"])
    datasets.check_series(found)
    assert owm.count("/data/2.5/weather") == owm.count("/data/2.5/forecast") == 3
    query = {name: values[0] for name, values in owm.requests[0].query.items()}
    assert query == {"lat": "51.93000", "lon": "-10.25000", "units": "metric", "appid": KEY}
    assert found.sizes == {"time": 41, "station": 3}
    assert found["forecast"].values.tolist() == [False] + [True] * 40
    assert found["time"].values[0] == np.datetime64("2026-01-10T11:59:52")
    assert found["time"].values[1] == np.datetime64("2026-01-10T12:00")
    now, later = found.isel(time=0, station=0), found.isel(time=1, station=0)
    assert [float(now[name]) for name in ("air_temperature", "wind_speed", "relative_humidity")] == [8.48, 9.26, 84]
    assert float(now["air_pressure_at_mean_sea_level"]) == 1006
    assert [float(later[name]) for name in ("air_temperature", "wind_speed")] == [7.5, 10.5]
    assert {name: found[name].attrs["units"] for name in found} == {
        "air_temperature": "degC",
        "relative_humidity": "%",
        "air_pressure_at_mean_sea_level": "hPa",
        "wind_speed": "m s-1",
        "precip": "mm",
    }
    assert "OpenWeather" in found.attrs["source"] and found["current"].dims == ("station",)


def test_no_rain_is_zero_and_no_number_is_missing(owm):
    first = 1768046400
    owm.contents["/data/2.5/forecast"] = coming(
        step(first),
        step(first + 10800, rain={"3h": 0.4}, snow={"3h": 0.2}),
        step(first + 21600, rain={"3h": None}),
        step(first + 32400, wind={}, main={"temp": 3.0, "pressure": 990}),
    )
    found = look(owm, 52, -8).isel(station=0)
    np.testing.assert_allclose(found["precip"], [np.nan, 0, 0.6, np.nan, 0])
    assert np.isnan(found["wind_speed"].values[-1]) and np.isnan(found["relative_humidity"].values[-1])
    assert found["air_pressure_at_mean_sea_level"].values[-1] == 990


def test_forecasts_for_what_is_over_by_now_are_left_out(owm):
    owm.contents["/data/2.5/weather"] = weather(dt=1768046400 + 100)
    found = look(owm, 52, -8)
    assert found.sizes["time"] == 40 and found["time"].values[1] == np.datetime64("2026-01-10T15:00")


def test_places_whose_weather_is_of_different_minutes(owm):
    minutes = iter([1768046300, 1768046350, 1768046000])
    owm.contents["/data/2.5/weather"] = lambda request: weather(dt=next(minutes))
    found = look(owm)
    assert found["time"].values[0] == np.datetime64("2026-01-10T11:59:10")
    assert str(found["current"].values[2])[:19] == "2026-01-10T11:53:20"


@pytest.mark.parametrize(
    ("path", "content", "error", "message"),
    [
        ("weather", {"cod": "404", "message": "city not found"}, FileNotFoundError, "404: city not found"),
        ("weather", {"cod": 401, "message": "Invalid API key."}, PermissionError, "401: Invalid API key"),
        ("forecast", {"cod": 429, "message": "blocked"}, ConnectionError, "429: blocked"),
        ("weather", {"cod": "400", "message": "wrong latitude"}, ValueError, "400: wrong latitude"),
        ("weather", {"message": "?"}, ValueError, "without a code"),
        ("weather", [1], ValueError, "an object of OpenWeatherMap, found .1."),
        ("weather", weather(dt=None), ValueError, "the time of the current weather"),
        ("weather", weather(dt="noon"), ValueError, "a number as dt, found 'noon'"),
        ("weather", weather(main={"temp": "warm"}), ValueError, "a number as main.temp, found 'warm'"),
        ("forecast", coming() | {"list": []}, ValueError, "a list of forecasts for each place"),
        ("forecast", coming() | {"list": None}, ValueError, "a list of forecasts for each place"),
        ("forecast", coming(step(1768057200), step(1768046400)), ValueError, "ascending order"),
        ("forecast", coming("rain"), ValueError, "forecasts for the same times"),
    ],
)
def test_errors_of_the_service_in_an_answer(owm, path, content, error, message):
    owm.contents[f"/data/2.5/{path}"] = content
    with pytest.raises(error, match=message):
        look(owm, 52, -8)


def test_places_that_were_given_other_times(owm):
    answers = iter([coming(step(1768046400)), coming(step(1768057200))])
    owm.contents["/data/2.5/forecast"] = lambda request: next(answers)
    with pytest.raises(ValueError, match="the same times at all places; please ask again"):
        look(owm, [52, 53], [-8, -8])


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_without_a_key_nothing_is_asked(owm, monkeypatch, value):
    monkeypatch.delenv(datasets.OPEN_WEATHER_MAP_KEY)
    if value is not None:
        monkeypatch.setenv(datasets.OPEN_WEATHER_MAP_KEY, value)
    with pytest.raises(PermissionError, match="environment variable OPENWEATHERMAP_API_KEY, found none"):
        look(owm)
    assert owm.count() == 0


def test_bad_places_are_not_asked_for(owm):
    for lat, lon in (([], []), ([91], [0]), ([np.nan], [0])):
        with pytest.raises(ValueError, match="lat: expected"):
            look(owm, lat, lon)
    assert owm.count() == 0


def test_passing_faults_are_survived(owm):
    owm.script("/data/2.5/weather", status(429, {"cod": 429, "message": "blocked"}, retry_after=0), TRUNCATED)
    owm.script("/data/2.5/forecast", status(500), RESET, WRONG)
    assert look(owm, 52, -8).sizes["time"] == 41


# --- the key is nowhere -------------------------------------------------------------------------------------------

FORMS = (KEY, "0123456789abcdef%2F%2B%3D0123456789ABC", "0123456789abcdef")  # whole, as in an address, a part of it
ECHO = f"Invalid API key {KEY}. Please see https://openweathermap.org/faq#error401 for more info."


def everything_shown(error: BaseException) -> str:
    """All that Python can be made to print of an error: with causes, contexts, notes and arguments."""
    shown, seen, left = "", set(), [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        shown += "".join(traceback.format_exception(one)) + repr(one) + str(one) + repr(one.args)
        left += [one.__cause__, one.__context__, *(arg for arg in one.args if isinstance(arg, BaseException))]
    return shown


@pytest.mark.parametrize(
    "fault",
    [
        status(401, {"cod": 401, "message": ECHO}),
        status(403, {"cod": 403, "message": ECHO}),
        status(404, {"cod": "404", "message": ECHO}),
        status(400, {"cod": "400", "message": ECHO}),
        status(429, {"cod": 429, "message": ECHO}),
        status(500, ECHO),
        Answer(200, {"cod": 401, "message": ECHO}),
        Answer(200, {"cod": 200, "dt": ECHO}),
        Answer(200, {"cod": 200, "dt": 0, "main": {"temp": [KEY] * 20}}),
        Answer(200, [ECHO] * 20),
        Answer(200, ECHO),
        Answer(302, b"", {"Location": f"http://127.0.0.1:1/?appid={KEY}"}),
        TRUNCATED,
        RESET,
        slow(0.3),
    ],
    ids=lambda fault: f"{fault.status}-{type(fault.body).__name__}",
)
def test_the_key_is_in_no_error_log_warning_or_output(owm, fault, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG)
    owm.always("*", fault)
    with pytest.raises((OSError, ValueError)) as caught:
        look(owm, 52, -8, retries=1, timeout=0.1)
    assert owm.requests[0].query["appid"] == [KEY]  # it was sent, and rightly so
    shown = everything_shown(caught.value) + caplog.text + "".join(map(repr, caplog.records))
    shown += "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in recwarn)
    for form in FORMS:
        assert form not in shown


def test_the_key_is_in_no_error_where_nobody_answers(owm, caplog):
    caplog.set_level(logging.DEBUG)
    owm.stop()
    with pytest.raises(ConnectionError) as caught:
        look(owm, 52, -8, retries=1)
    assert not any(form in everything_shown(caught.value) + caplog.text for form in FORMS)


def test_the_key_is_not_in_what_is_returned(owm, caplog, capfd, tmp_path):
    caplog.set_level(logging.DEBUG)
    owm.contents["/data/2.5/weather"] = weather(name=KEY)
    found = look(owm, station=["VAL", "DUB", "MAL"])
    found.to_netcdf(tmp_path / "weather.nc")
    stored = (tmp_path / "weather.nc").read_bytes()
    shown = repr(found) + found._repr_html_() + repr(found.attrs) + json.dumps(found.to_dict(), default=str)
    shown += caplog.text + "".join(capfd.readouterr())
    assert not any(form in shown or form.encode() in stored for form in FORMS)
    assert "/data/2.5/weather" in caplog.text  # there was a log to be in


def test_a_wrong_key_is_named_as_such_by_an_own_process():
    """What a reader sees on the screen, in a notebook or a terminal: the traceback, with all logs switched on."""
    with FaultyServer() as running:
        running.always("*", status(401, {"cod": 401, "message": ECHO}))
        code = (
            "import logging; logging.basicConfig(level=logging.DEBUG)\n"
            "from stgcn_lab import datasets\n"
            f"datasets.open_weather_map(52, -8, url={running.url('/data/2.5')!r}, backoff=0.0)\n"
        )
        environment = os.environ | {datasets.OPEN_WEATHER_MAP_KEY: KEY}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1 and "PermissionError" in done.stderr and "Invalid API key ***" in done.stderr
    assert not any(form in done.stderr + done.stdout for form in FORMS)


def test_every_variable_has_two_names_and_known_units():
    assert set(datasets.SERVICE_VARIABLES) == set(services._NAMES)
    assert {name.units for name in services._NAMES.values()} <= {ours for ours, _, _ in services._UNITS.values()}
    for attribute in ("hourly", "daily"):
        names = [getattr(name, attribute) for name in services._NAMES.values()]
        assert len(set(names)) == len(names)
