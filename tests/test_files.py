"""The reader's own file: all forms that are read give the same series, and all that is wrong is said."""

import gzip
import io
import os
import subprocess
import sys
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stgcn_lab import datasets
from stgcn_lab.datasets._grib import read_grib

DATA = Path(datasets.__file__).parents[1] / "data"
SHARED = Path(os.environ.get("STGCN_LAB_DATA", Path(__file__).parents[2] / "shared" / "data"))
PLACES = {"A1": (51.94, -10.24, 9.0, "Valentia"), "B2": (53.31, -6.25, 68.0, "Dublin"), "C3": (54.5, -9.5, 5.0, "Mayo")}
DEGREES = {axis: np.array([place[i] for place in PLACES.values()]) for i, axis in enumerate(("lat", "lon"))}


def wind(times, seed=0):
    """A series of wind at the three places, in steps of 0.1 m/s."""
    values = np.random.default_rng(seed).integers(0, 200, (len(times), 3)) / 10
    coords = {"time": times, "station": list(PLACES)} | {axis: ("station", d) for axis, d in DEGREES.items()}
    coords |= {
        "elevation": ("station", [p[2] for p in PLACES.values()]),
        "name": ("station", [p[3] for p in PLACES.values()]),
    }
    return xr.Dataset({"wind_speed": (("time", "station"), values, {"units": "m s-1"})}, coords)


DAYS = wind(pd.date_range("2020-01-01", periods=40))
HOURS = wind(pd.date_range("2020-10-24", "2020-10-26", freq="h"))


def lines(series, head, row, time=str):
    """A long table: its header, and a line for each time and station."""
    rows = [
        row.format(t=time(stamp), s=station, lat=PLACES[station][0], lon=PLACES[station][1], v=value)
        for stamp, values in zip(series.indexes["time"], series["wind_speed"].values, strict=True)
        for station, value in zip(PLACES, values, strict=True)
    ]
    return "\n".join([head, *rows]) + "\n"


def written(folder, name, content, encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


ROW = "{t},{s},{lat},{lon},{v}"
LONG = ("time,station,lat,lon,wind_speed [m s-1]", ROW)


def same(found, expected, exact=True):
    """Values, times and places of two series of wind."""
    assert found.indexes["time"].equals(expected.indexes["time"].astype(found.indexes["time"].dtype))
    np.testing.assert_array_equal(found["station"], expected["station"])
    for name in ("lat", "lon"):
        np.testing.assert_array_equal(found[name], expected[name])
    if exact:
        np.testing.assert_array_equal(found["wind_speed"], expected["wind_speed"])
    else:
        np.testing.assert_allclose(found["wind_speed"], expected["wind_speed"], atol=1e-9)
    assert found["wind_speed"].attrs["units"] == "m s-1"
    assert datasets.check_series(found).equals(found)


def quiet(path, **options):
    """Open a file that needs no repair."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return datasets.open_stations(path, **options)


def told(path, level, **options):
    """What is said about a file at one level, as one text."""
    return "\n".join(map(str, (f for f in datasets.inspect_stations(path, **options).findings if f.level == level)))


# --- real data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["irish_wind", "colorado"])
def test_embedded_stations(name):
    expected = getattr(datasets, f"load_{name}")()
    found = quiet(DATA / f"{name}.nc")
    assert list(found.data_vars) == list(expected.data_vars)
    for variable in expected.data_vars:
        np.testing.assert_array_equal(found[variable], expected[variable])
        assert found[variable].attrs["units"] == expected[variable].attrs["units"]
    for coordinate in ("time", "station", "lat", "lon", "name"):
        np.testing.assert_array_equal(found[coordinate], expected[coordinate])


@pytest.mark.parametrize("region", datasets.REGIONS)
def test_embedded_grids(region):
    expected = datasets.grid_to_nodes(datasets.load_reanalysis(region))
    found = quiet(DATA / f"reanalysis_{region}.nc")
    np.testing.assert_array_equal(found["air_temperature"], expected["air_temperature"])
    np.testing.assert_array_equal(found["lat"], expected["lat"])
    assert found["lon"].min() >= -180 and found["lon"].max() <= 180
    assert datasets.nodes_to_grid(found).sizes["lon"] == 31


def test_embedded_grid_with_a_pole():
    grid = datasets.load_winter_height()
    with pytest.warns(UserWarning, match="48 cells lie where another one does"):
        found = datasets.open_stations(DATA / "winter_height.nc")
    assert found.sizes == {"time": 65, "station": 28 * 49 + 1}
    np.testing.assert_array_equal(found["geopotential_height"].values[:, -1], grid["geopotential_height"][:, -1, 0])


@pytest.mark.parametrize("name", ["electricity_demand", "pacific"])
def test_embedded_series_without_places(name):
    with pytest.raises(ValueError, match="there are no places.*stations=FILE"):
        datasets.open_stations(DATA / f"{name}.nc")


@pytest.mark.skipif(not (SHARED / datasets.ERA5_UK).is_file(), reason="needs the real ERA5 file")
def test_real_era5_grib():
    before = sorted(os.listdir(SHARED))
    found = quiet(SHARED / datasets.ERA5_UK)
    assert sorted(os.listdir(SHARED)) == before  # no index file
    assert found.sizes == {"time": 744, "station": 33 * 49}
    assert found["air_temperature"].attrs["units"] == "degC"
    assert float(found["air_temperature"].mean()) == pytest.approx(7.624, abs=1e-3)
    assert (found["lat"][0], found["lon"][0]) == (50, -10)


# --- the same series in many forms ----------------------------------------------------------------------------


def test_round_trips_have_identical_values(tmp_path):
    colorado = datasets.load_colorado()[["tmax", "precip"]].isel(station=slice(0, 40), time=slice(600, 700))
    colorado = colorado.sel(station=(colorado["tmax"].notnull().any("time") | colorado["precip"].notnull().any("time")))
    frame = colorado.reset_coords().to_dataframe().reset_index()
    frame = frame.rename(columns={"tmax": "tmax (degC)", "precip": "precip (mm)"})
    frame.to_csv(tmp_path / "long.csv", index=False)
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "mixed.csv.gz", index=False)
    wide = colorado["tmax"].to_pandas()
    wide.to_csv(tmp_path / "tmax.csv")
    frame[["station", "lat", "lon", "elevation", "name"]].drop_duplicates().to_csv(tmp_path / "places.csv", index=False)
    colorado.to_netcdf(tmp_path / "c.nc")
    colorado.to_netcdf(tmp_path / "c3.nc", format="NETCDF3_CLASSIC")
    expected = quiet(tmp_path / "c.nc")
    for found in (quiet(tmp_path / "long.csv"), quiet(tmp_path / "c3.nc")):
        xr.testing.assert_equal(found, expected)
    with pytest.warns(UserWarning, match="not in order"):
        found = datasets.open_stations(tmp_path / "mixed.csv.gz")
    xr.testing.assert_equal(found.sel(station=expected["station"]), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a station may have rain and no temperature
        found = datasets.open_stations(
            tmp_path / "tmax.csv", units="degC", variable="tmax", stations=tmp_path / "places.csv"
        )
    xr.testing.assert_equal(found, expected[["tmax"]].sel(station=found["station"]))
    expected.to_netcdf(tmp_path / "again.nc")
    xr.testing.assert_identical(quiet(tmp_path / "again.nc").drop_attrs(), expected.drop_attrs())


def test_zarr_store(tmp_path):
    pytest.importorskip("zarr")
    for version in (2, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on names as text
            DAYS.to_zarr(tmp_path / f"{version}.zarr", zarr_format=version)
        same(quiet(tmp_path / f"{version}.zarr"), DAYS)
    for piece in (tmp_path / "3.zarr" / "wind_speed" / "c").rglob("0"):
        if piece.is_file():
            piece.write_bytes(b"broken")
    assert "damaged" in told(tmp_path / "3.zarr", "error")
    (tmp_path / "folder").mkdir()
    assert "is a folder" in told(tmp_path / "folder", "error")


DAILY = {
    "plain": (*LONG, lambda t: f"{t:%Y-%m-%d}", {}),
    "Europe": ("Datum;Ort;Breite;Länge;Wind (m/s)", "{t};{s};{lat};{lon};{v}", lambda t: f"{t:%d.%m.%Y}", {}),
    "America": ("Date|Site ID|Latitude|Longitude|WSPD (mps)", "{t}|{s}|{lat}|{lon}|{v}", lambda t: f"{t:%m/%d/%Y}", {}),
    "short years": (*LONG, lambda t: f"{t:%d/%m/%y}", {}),
    "names of months": (*LONG, lambda t: f"{t:%d-%b-%Y}", {}),
    "slashes": (*LONG, lambda t: f"{t:%Y/%m/%d}", {}),
    "digits": (*LONG, lambda t: f"{t:%Y%m%d}", {}),
    "epoch": (*LONG, lambda t: str(int(t.timestamp())), {}),
    "milliseconds": (*LONG, lambda t: str(int(t.timestamp() * 1000)), {}),
    "Chinese": ("日期,站号,纬度,经度,风速 (m/s)", ROW, lambda t: f"{t:%Y年%m月%d日}", {}),
    "midnight in Dublin": (*LONG, lambda t: str(t.tz_localize("Europe/Dublin")), {}),
    "blanks": ("time station lat lon wind", "{t}   {s} {lat} {lon}  {v}", lambda t: f"{t:%Y-%m-%d}", {"units": "m/s"}),
    "three columns": ("year,month,day,id,lat,lon,ff", ROW, lambda t: f"{t:%Y,%m,%d}", {"units": "m/s"}),
    "day of the year": ("YEAR,DOY,id,lat,lon,ff", ROW, lambda t: f"{t:%Y,%j}", {"units": {"ff": "m/s"}}),
    "unit behind": ("time,station,lat,lon,wind", "{t},{s},{lat},{lon},{v} m/s", lambda t: f"{t:%Y-%m-%d}", {}),
    "unit in the name": ("time,station,lat,lon,wind_ms-1", ROW, lambda t: f"{t:%Y-%m-%d}", {}),
    "column of units": ("time,station,lat,lon,wind,unit", "{t},{s},{lat},{lon},{v},m/s", lambda t: f"{t:%Y-%m-%d}", {}),
    "line a value": (
        "date,station,lat,lon,variable,value,unit", "{t},{s},{lat},{lon},wind,{v},m/s", lambda t: f"{t:%Y-%m-%d}", {},
    ),
    "remarks": ("# from A\n# of B\n\n" + LONG[0], LONG[1], lambda t: f"{t:%Y-%m-%d}", {}),
    "header in a remark": ("# from A\n#" + LONG[0], LONG[1], lambda t: f"{t:%Y-%m-%d}", {}),
    "numbered": ("," + LONG[0], "7," + LONG[1], lambda t: f"{t:%Y-%m-%d}", {}),
    "quality": (LONG[0] + ",QN_3,note", LONG[1] + ",10,fine", lambda t: f"{t:%Y-%m-%d}", {}),
    "said": (
        "a,b,c,d,e", ROW, lambda t: f"{t:%Y-%m-%d}",
        {"columns": {"time": "a", "station": "b", "lat": "c", "lon": "d"}, "units": {"e": "m/s"}, "variable": "e"},
    ),
    "said form": (*LONG, lambda t: f"{t:%d of %m in %Y}", {"columns": {"time_format": "%d of %m in %Y"}}),
}  # fmt: skip


@pytest.mark.parametrize("form", DAILY)
def test_long_tables(tmp_path, form):
    head, row, time, options = DAILY[form]
    found = quiet(written(tmp_path, "table.csv", lines(DAYS, head, row, time)), **options)
    same(found.rename(e="wind_speed") if form == "said" else found, DAYS)


HOURLY = {
    "UTC": (*LONG, lambda t: f"{t:%Y-%m-%dT%H:%MZ}", {}),
    "offset": (*LONG, lambda t: f"{t.tz_localize('UTC').tz_convert('Europe/Berlin'):%Y-%m-%d %H:%M%z}", {}),
    "no zone": (*LONG, lambda t: f"{t:%d.%m.%Y %H:%M}", {}),
    "half days": (*LONG, lambda t: f"{t:%m/%d/%Y %I:%M %p}", {}),
    "two columns": ("Date,Time,id,lat,lon,Wind (m/s)", ROW, lambda t: f"{t:%Y-%m-%d,%H:%M}", {}),
    "hours": ("Date,Hour,id,lat,lon,Wind (m/s)", ROW, lambda t: f"{t:%Y%m%d,%H}", {}),
    "HHMM": ("date,time,id,lat,lon,Wind (m/s)", ROW, lambda t: f"{t:%Y-%m-%d,%H%M}", {}),
    "digits": ("MESS_DATUM;id;lat;lon;FF (m/s)", "{t};{s};{lat};{lon};{v}", lambda t: f"{t:%Y%m%d%H}", {}),
    "zone in the name": ("time (UTC),station,lat,lon,wind (m/s)", ROW, str, {}),
    "zone said": (*LONG, lambda t: str(t + pd.Timedelta("9h")), {"timezone": "Asia/Tokyo"}),
    "hour 24": (*LONG, lambda t: f"{t - pd.Timedelta('1h'):%Y-%m-%d} {(t - pd.Timedelta('1h')).hour + 1:02}:00", {}),
}


@pytest.mark.parametrize("form", HOURLY)
def test_hourly_tables(tmp_path, form):
    head, row, time, options = HOURLY[form]
    path = written(tmp_path, "table.csv", lines(HOURS, head, row, time))
    same(quiet(path, **options), HOURS)
    said = "times carry no time zone and were read as UTC" in told(path, "note", **options)
    assert said == (form not in ("UTC", "offset", "zone in the name", "zone said"))


def test_change_of_summer_time_leaves_out_what_is_ambiguous(tmp_path):
    path = written(
        tmp_path,
        "t.csv",
        lines(HOURS, *LONG, lambda t: f"{t.tz_localize('UTC').tz_convert('Europe/Berlin'):%Y-%m-%d %H:%M}"),
    )
    with pytest.warns(
        UserWarning, match="1 clock time ambiguous or not there at the change of summer time in Europe/Berlin"
    ):
        found = datasets.open_stations(path, timezone="Europe/Berlin")
    lost = found["wind_speed"].isnull().all("station")
    assert list(found["time"].values[lost]) == list(pd.to_datetime(["2020-10-25 00:00", "2020-10-25 01:00"]))
    np.testing.assert_array_equal(found["wind_speed"].values[~lost], HOURS["wind_speed"].values[~lost])


def test_dates_with_the_day_or_the_month_first(tmp_path):
    monthly = wind(pd.date_range("2000-01-01", periods=24, freq="MS"))
    same(quiet(written(tmp_path, "m.csv", lines(monthly, *LONG, lambda t: f"{t:%d/%m/%Y}"))), monthly)
    same(quiet(written(tmp_path, "m.csv", lines(monthly, *LONG, lambda t: f"{t:%m/%d/%Y}"))), monthly)
    few = DAYS.isel(time=slice(12))
    path = written(tmp_path, "few.csv", lines(few, *LONG, lambda t: f"{t:%m/%d/%Y}"))
    assert "may have the day or the month first" in told(path, "warning") + told(path, "note")
    same(quiet(path, columns={"time_format": "%m/%d/%Y"}), few)
    both = lines(DAYS, *LONG, lambda t: f"{t:%d/%m/%Y}") + "01/31/2021,A1,51.94,-10.24,1\n"
    assert "day first in some lines" in told(written(tmp_path, "both.csv", both), "error")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_wide_table_from_a_spreadsheet(tmp_path, encoding):
    head = "Datum;" + ";".join(f"{place[3]} (km/h)" for place in PLACES.values())
    rows = [
        f"{t:%d.%m.%Y};" + ";".join(str(value).replace(".", ",") for value in values)
        for t, values in zip(DAYS.indexes["time"], DAYS["wind_speed"].values, strict=True)
    ]
    path = written(tmp_path, "wind.csv", "\r\n".join([head, *rows, ";;;", "", ""]), encoding)
    table = "Stationsname,geoBreite,geoLänge,Höhe\n" + "".join(
        f"{p[3]},{p[0]},{p[1]},{p[2]}\n" for p in PLACES.values()
    )
    found = quiet(path, stations=written(tmp_path, "places.csv", table))
    assert list(found["station"].values) == ["Valentia", "Dublin", "Mayo"]
    np.testing.assert_allclose(found["wind_speed"], DAYS["wind_speed"] / 3.6)
    np.testing.assert_array_equal(found["elevation"], [9, 68, 5])
    assert "there are no places" in told(path, "error")


def test_a_wide_table_with_its_places_on_top(tmp_path):
    rows = [",A1,B2,C3", "latitude,51.94,53.31,54.5", "longitude,-10.24,-6.25,-9.5", "units,m/s,m/s,m/s", "name,V,D,M"]
    rows += [
        f"{t:%Y-%m-%d}," + ",".join(map(str, v))
        for t, v in zip(DAYS.indexes["time"], DAYS["wind_speed"].values, strict=True)
    ]
    path = written(tmp_path, "table.csv", "\n".join(rows) + "\n")
    same(quiet(path, variable="wind_speed"), DAYS)
    assert list(quiet(path)["name"].values) == ["V", "D", "M"]
    mixed = "\n".join(rows).replace("units,m/s,m/s", "units,m/s,kn")
    assert "units are mixed" in told(written(tmp_path, "mixed.csv", mixed), "error")


def test_stations_are_found_by_number_and_by_name(tmp_path):
    long = (
        lines(DAYS, "time,station,wind (m/s)", "{t},{s},{v}")
        .replace("A1", "00501")
        .replace("B2", "502")
        .replace("C3", "Mayo Sky")
    )
    table = "id,name,lat,lon\n501,a,51.94,-10.24\n0502,b,53.31,-6.25\nC3,mayo sky,54.5,-9.5\n9,unused,0,0\n"
    path, places = written(tmp_path, "t.csv", long), written(tmp_path, "p.csv", table)
    np.testing.assert_array_equal(quiet(path, stations=places)["lat"], DEGREES["lat"])
    fewer = written(tmp_path, "q.csv", "id,lat,lon\n501,51,-10\n")
    assert "lacks 2 of the stations: 502, Mayo Sky" in told(path, "error", stations=fewer)
    assert "it needs station, lat and lon" in told(path, "error", stations=written(tmp_path, "r.csv", "a,b\n1,2\n"))
    assert "no file" in told(path, "error", stations=tmp_path / "none.csv")


def test_degrees_and_minutes(tmp_path):
    table = "date,station,lat,lon,temp [C]\n" + "".join(
        f"2020-01-0{d},{s},\"{lat}\",\"{lon}\",1.{d}\n" for d in (1, 2, 3)
        for s, lat, lon in (("a", "51°30'N", "10°15'W"), ("b", "52 00 36 S", "6.5E"))
    )  # fmt: skip
    found = quiet(written(tmp_path, "t.csv", table))
    np.testing.assert_allclose(found["lat"], [51.5, -52.01])
    np.testing.assert_allclose(found["lon"], [-10.25, 6.5])


def test_cells_that_are_no_numbers(tmp_path):
    cells = ["", "NA", "-", "n/a", "NaN", "#N/A", "///", "*"]
    rows = [
        f"2020-01-{d + 1:02},{s},{50 + k},{k},{cell},{d}.5" for d, cell in enumerate(cells) for k, s in enumerate("ab")
    ]
    path = written(tmp_path, "t.csv", "\n".join(["date,station,lat,lon,temp (C),rain (in)", *rows]))
    assert np.isnan(datasets.inspect_stations(path, variable="precip").series["precip"]).sum() == 0
    assert "variables without any value were left out: air_temperature" in told(path, "warning")
    rain = Path(path).read_text().replace(",0.5", ",T").replace(",1.5", ",−1.5").replace(",2.5", ',"2,5"')
    found = datasets.inspect_stations(written(tmp_path, "r.csv", rain), variable="rain")
    assert "('T') was read as 0, 2 times" in str(found)
    np.testing.assert_allclose(found.series["rain"][[0, 2], 0], [0, 63.5])
    assert np.isnan(found.series["rain"][1]).all()  # negative rain
    words = Path(path).read_text().replace(",3.5", ",much")
    assert "2 cells are no numbers: 'much' (line 8), 'much' (line 9)" in told(
        written(tmp_path, "w.csv", words), "error"
    )


@pytest.mark.parametrize(
    ("unit", "factor", "summand"),
    [("kn", 1852 / 3600, 0), ("km/h", 1 / 3.6, 0), ("mph", 0.44704, 0), ("m s**-1", 1, 0), ("0.1 m/s", 0.1, 0)],
)
def test_units_of_wind(tmp_path, unit, factor, summand):
    path = written(tmp_path, "t.csv", lines(DAYS, f"time,station,lat,lon,wind ({unit})", LONG[1]))
    np.testing.assert_allclose(quiet(path)["wind_speed"], DAYS["wind_speed"] * factor, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "unit", "value", "expected", "ours"),
    [
        ("temp", "°F", 50, 10, "degC"), ("temp", "K", 283.15, 10, "degC"), ("temp", "℃", 10, 10, "degC"),
        ("temp", "tenths of C", 100, 10, "degC"), ("rain", "in", 1, 25.4, "mm"), ("tp", "m", 0.01, 10, "mm"),
        ("rain", "kg m-2", 10, 10, "mm"), ("slp", "Pa", 101300, 1013, "hPa"), ("snow", "cm", 30, 30, "cm"),
        ("z", "m**2 s**-2", 5e4, 5e4, "m2 s-2"), ("anomaly", "K", 1.5, 1.5, "K"), ("rh", "%", 80, 80, "%"),
    ],
)  # fmt: skip
def test_units(tmp_path, name, unit, value, expected, ours):
    series = DAYS.assign(wind_speed=DAYS["wind_speed"] * 0 + value)
    path = written(tmp_path, "t.csv", lines(series, f"time,station,lat,lon,{name} ({unit})", LONG[1]))
    [found] = quiet(path).data_vars.values()
    np.testing.assert_allclose(found, expected)
    assert found.attrs["units"] == ours


def test_units_are_asked_for_and_checked(tmp_path):
    path = written(tmp_path, "t.csv", lines(DAYS, "time,station,lat,lon,wind", LONG[1]))
    assert "names no units; say them with units={'wind_speed': 'm s-1'}" in told(path, "error")
    np.testing.assert_allclose(quiet(path, units={"wind": "kn"})["wind_speed"], DAYS["wind_speed"] * datasets.KNOT)
    assert "there is no variable 'rain'" in told(path, "error", units={"rain": "mm", "wind": "kn"})
    assert "its units are 'degC'" in told(path, "error", units="degC")
    warm = DAYS.assign(wind_speed=DAYS["wind_speed"] + 60)
    path = written(tmp_path, "t.csv", lines(warm, "time,station,lat,lon,temp (C)", LONG[1]))
    assert "are its units not 'C'?" in told(path, "error")
    both = lines(DAYS, "time,station,lat,lon,wind,temp (C)", LONG[1] + ",7")
    found = quiet(written(tmp_path, "b.csv", both), units="kn")  # fills in what the file does not say
    assert found["wind_speed"].attrs["units"] == "m s-1" and float(found["air_temperature"].max()) == 7
    assert quiet(path, units="F")["air_temperature"].max() < 30


@pytest.mark.parametrize("fill", [-9999, -999.9, -99, 999.9, 99999, 1e20])
def test_fill_values_become_missing(tmp_path, fill):
    series = DAYS.copy(deep=True)
    series["wind_speed"][3:6, 1] = fill
    for path in (written(tmp_path, "t.csv", lines(series, *LONG)), tmp_path / "t.nc"):
        if path.suffix == ".nc":
            series.astype("float32").to_netcdf(path, encoding={"wind_speed": {"_FillValue": None}})
        with pytest.warns(UserWarning, match=f"3 values are {fill:g}; read as missing".replace("+", r"\+")):
            found = datasets.open_stations(path)
        assert np.flatnonzero(found["wind_speed"].isnull().values.ravel()).tolist() == [10, 13, 16]


@pytest.mark.parametrize(("fill", "wild"), [(-999, 1941.0), (999, 1941.0), (-99, -500.0), (9999, -600.0)])
def test_one_wild_value_does_not_hide_the_fill_value(tmp_path, fill, wild):
    series = wind(pd.date_range("2020-01-01", periods=400))
    series["wind_speed"][5:35, 1] = fill
    series["wind_speed"][50, 2] = wild
    with pytest.warns(UserWarning) as record:
        found = datasets.open_stations(written(tmp_path, "t.csv", lines(series, *LONG)))
    said = str(record[0].message)
    assert f"30 values are {fill}; read as missing" in said
    assert f"1 value is outside 0 to 130 m s-1, the first is {wild:g} at station C3" in said
    assert int(found["wind_speed"].isnull().sum()) == 31


def test_heavy_rain_of_99_9_is_no_fill_value(tmp_path):
    series = wind(pd.date_range("2020-01-01", periods=4000))
    series["wind_speed"][:] = np.random.default_rng(0).gamma(0.3, 30, (4000, 3)).round(1)  # often zero, at times 200
    series["wind_speed"][[100, 900, 1700], 1] = 99.9
    path = written(tmp_path, "t.csv", lines(series, "time,station,lat,lon,rain (mm)", LONG[1]))
    assert not quiet(path)["precip"].isnull().any()


def test_pressure_near_999_is_no_fill_value(tmp_path):
    series = DAYS.assign(wind_speed=DAYS["wind_speed"].round() + 990)
    path = written(tmp_path, "t.csv", lines(series, "time,station,lat,lon,slp (hPa)", LONG[1]))
    assert (series["wind_speed"] == 999).any()
    assert not quiet(path)["air_pressure_at_mean_sea_level"].isnull().any()


# --- time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["10min", "h", "6h", "D", "5D", "7D", "MS", "QS", "YS"])
def test_missing_steps_are_inserted(tmp_path, step):
    series = wind(pd.date_range("2001-01-01", periods=30, freq=step))
    path = tmp_path / "t.nc"
    series.isel(time=[*range(10), *range(13, 30)]).to_netcdf(path)
    with pytest.warns(UserWarning, match="3 of 30 steps .* are missing, the longest gap"):
        found = datasets.open_stations(path)
    same(found, series.where(~series["time"].isin(series["time"][10:13])))


@pytest.mark.parametrize("step", ["ME", "month"])
def test_months_are_called_by_their_first_day(tmp_path, step):
    months = pd.date_range("2001-01-01", periods=30, freq="MS")
    middle = months + (months + pd.offsets.MonthBegin(1) - months) / 2
    series = wind(middle if step == "month" else pd.date_range("2001-01-31", periods=30, freq="ME"))
    series.to_netcdf(tmp_path / "t.nc")
    found = quiet(tmp_path / "t.nc")
    same(found, series.assign_coords(time=months))
    assert "first of the month" in told(tmp_path / "t.nc", "note")


def test_clocks_that_are_late_are_put_right(tmp_path):
    late = HOURS.assign_coords(time=HOURS.indexes["time"] + pd.to_timedelta(np.arange(49) % 3, unit="min"))
    late.to_netcdf(tmp_path / "t.nc")
    with pytest.warns(UserWarning, match="not quite regular"):
        same(datasets.open_stations(tmp_path / "t.nc"), HOURS)


def test_times_that_are_unsorted_or_there_twice(tmp_path):
    text = lines(DAYS, *LONG)
    head, *rows = text.splitlines()
    path = written(tmp_path, "t.csv", "\n".join([head, *rows[::-1], rows[4], rows[5]]) + "\n")
    with pytest.warns(UserWarning, match="(?s)not in order within a station.*2 lines repeat another"):
        same(datasets.open_stations(path).sel(station=list(PLACES)), DAYS)
    turned = xr.concat([DAYS.isel(time=slice(20, None)), DAYS.isel(time=slice(25))], "time")
    turned.to_netcdf(tmp_path / "t.nc")
    with pytest.warns(UserWarning, match="(?s)not in order.*5 times are there more than once.*merged"):
        same(datasets.open_stations(tmp_path / "t.nc"), DAYS)
    turned["wind_speed"][-1, 0] += 1
    turned.to_netcdf(tmp_path / "u.nc")
    assert "2020-01-25 is there more than once with different values" in told(tmp_path / "u.nc", "error")


def test_calendars_and_units_of_time(tmp_path):
    months = wind(pd.date_range("1990-01-01", periods=30, freq="MS"))
    raw = months.assign_coords(time=("time", np.arange(30.0) + 0.5, {"units": "months since 1990-01-01"}))
    raw.to_netcdf(tmp_path / "m.nc")
    same(quiet(tmp_path / "m.nc"), months)
    text = months.assign_coords(time=[f"{t:%Y-%m-%d}" for t in months.indexes["time"]])
    text.to_netcdf(tmp_path / "s.nc")
    same(quiet(tmp_path / "s.nc"), months)
    days = wind(pd.date_range("2020-02-20", periods=20))
    days.isel(time=days["time"] != np.datetime64("2020-02-29")).convert_calendar("noleap").to_netcdf(tmp_path / "n.nc")
    with pytest.warns(UserWarning, match="(?s)calendar noleap.*1 of 20 steps"):
        found = datasets.open_stations(tmp_path / "n.nc")
    same(found, days.where(days["time"] != np.datetime64("2020-02-29")))
    bad = months.assign_coords(time=("time", np.arange(30.0), {"units": "furlongs"}))
    bad.to_netcdf(tmp_path / "b.nc")
    assert "holds no times" in told(tmp_path / "b.nc", "error")


# --- NetCDF ---------------------------------------------------------------------------------------------------


def test_netcdf_with_other_names_levels_and_packing(tmp_path):
    other = DAYS.rename(time="valid_time", station="site", lat="latitude", lon="longitude", wind_speed="ws")
    other = other.drop_vars(["site", "name", "elevation"]).expand_dims(lev=[10.0], axis=1)
    other = other.assign(
        stationname=("site", list(PLACES)), grid=((), 7), bounds_time=("valid_time", other.valid_time.values)
    )
    other.to_netcdf(tmp_path / "o.nc", encoding={"ws": {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -32768}})
    same(quiet(tmp_path / "o.nc"), DAYS, exact=False)
    two = xr.concat([DAYS["wind_speed"], DAYS["wind_speed"] + 1], xr.Variable("level", [10, 100])).to_dataset()
    two.to_netcdf(tmp_path / "l.nc")
    found = quiet(tmp_path / "l.nc")
    assert list(found.data_vars) == ["wind_speed_10", "wind_speed_100"]
    np.testing.assert_array_equal(found["wind_speed_100"], DAYS["wind_speed"] + 1)
    assert list(quiet(tmp_path / "l.nc", variable="wind_speed_10").data_vars) == ["wind_speed_10"]
    xr.concat([DAYS["wind_speed"]] * 50, "member").to_dataset().to_netcdf(tmp_path / "e.nc")
    assert "has the dimensions member" in told(tmp_path / "e.nc", "error")


def test_grids_of_all_kinds(tmp_path):
    values = np.random.default_rng(0).normal(10, 1, (5, 3, 8))
    times = pd.date_range("2020-01-01", periods=5)
    attrs = {"units": "degC", "standard_name": "air_temperature"}
    globe = xr.Dataset(
        {"ta": (("time", "y", "x"), values, attrs)},
        {"time": times, "latitude": ("y", [90.0, 45, 0]), "longitude": ("x", np.arange(0.0, 360, 45))},
    )
    globe.to_netcdf(tmp_path / "g.nc")
    with pytest.warns(UserWarning, match="7 cells lie where another one does"):
        found = datasets.open_stations(tmp_path / "g.nc")
    assert found.sizes["station"] == 17 and float(found["lat"][0]) == 0 and float(found["lat"][-1]) == 90
    np.testing.assert_array_equal(found["air_temperature"].sel(station=found["lat"] == 45), values[:, 1])
    ireland = globe.isel(x=[0, 7], y=[1, 2])
    ireland.to_netcdf(tmp_path / "i.nc")
    assert sorted(set(quiet(tmp_path / "i.nc")["lon"].values)) == [-45, 0]
    pacific = globe.isel(x=[3, 4, 5], y=[1, 2])
    pacific.to_netcdf(tmp_path / "p.nc")
    assert sorted(set(quiet(tmp_path / "p.nc")["lon"].values)) == [135, 180, 225]
    lon, lat = np.meshgrid(np.arange(8.0), [50.0, 51, 52])
    curved = xr.Dataset(
        {"ta": (("t", "y", "x"), values, attrs)}, {"t": times, "lat": (("y", "x"), lat), "lon": (("y", "x"), lon)}
    )
    curved.to_netcdf(tmp_path / "c.nc")
    found = quiet(tmp_path / "c.nc")
    np.testing.assert_array_equal(found["air_temperature"], values.reshape(5, 24))
    assert "a curved grid" in told(tmp_path / "c.nc", "note")
    curved.isel(x=0, y=0).to_netcdf(tmp_path / "one.nc")
    assert "one station only" in told(tmp_path / "one.nc", "error")
    moving = curved.assign_coords(lat=(("t", "y", "x"), lat + np.arange(5.0)[:, None, None]))
    moving.to_netcdf(tmp_path / "ship.nc")
    assert "change with time" in told(tmp_path / "ship.nc", "error")
    lines_of_one_table = DAYS.reset_coords().to_dataframe().reset_index().to_xarray().drop_vars("name")
    lines_of_one_table.to_netcdf(tmp_path / "ship.nc")
    assert "change with time" in told(tmp_path / "ship.nc", "error")


@pytest.mark.parametrize("form", ["contiguous", "indexed", "incomplete"])
def test_cf_ragged_arrays(tmp_path, form):
    """The three ways in which CF's discrete sampling geometries hold stations that have their own times."""
    gone = np.zeros((40, 3), bool)
    gone[5:8, 0] = gone[30:33, 2] = True
    expected = DAYS.where(xr.DataArray(~gone, dims=("time", "station")))
    station, time = np.nonzero(~gone.T)
    days = np.arange(40.0)
    fixed = {
        "station_name": ("station", list(PLACES), {"cf_role": "timeseries_id"}),
        "lat": ("station", DEGREES["lat"], {"standard_name": "latitude"}),
        "lon": ("station", DEGREES["lon"], {"standard_name": "longitude"}),
    }
    unit = {"units": "days since 2020-01-01", "standard_name": "time"}
    wind_attrs = {"units": "m s-1", "coordinates": "time lat lon"}
    values = DAYS["wind_speed"].values
    if form == "incomplete":
        box, when = np.full((3, 40), np.nan), np.full((3, 40), np.nan)
        for s in range(3):
            there = time[station == s]
            box[s, : len(there)], when[s, : len(there)] = values[there, s], days[there]
        found = xr.Dataset(
            fixed | {"wind_speed": (("station", "obs"), box, wind_attrs), "time": (("station", "obs"), when, unit)}
        )
    else:
        obs = {"wind_speed": ("obs", values[time, station], wind_attrs), "time": ("obs", days[time], unit)}
        if form == "contiguous":
            obs["row_size"] = ("station", np.bincount(station), {"sample_dimension": "obs"})
        else:
            obs["station_index"] = ("obs", station, {"instance_dimension": "station"})
        found = xr.Dataset(fixed | obs)
    found.attrs = {"featureType": "timeSeries", "Conventions": "CF-1.8"}
    found.to_netcdf(tmp_path / "r.nc")
    same(quiet(tmp_path / "r.nc"), expected)


# --- GRIB -----------------------------------------------------------------------------------------------------

WRITER = """
import sys
import eccodes
import numpy as np

rng = np.random.default_rng(0)
with open(sys.argv[1], "wb") as file:
    def write(name, day, hour, mean, step=None, level=None, scale=1):
        message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
        keys = dict(shortName=name, Ni=3, Nj=2,
                    latitudeOfFirstGridPointInDegrees=53.0, latitudeOfLastGridPointInDegrees=52.0,
                    longitudeOfFirstGridPointInDegrees=359.0, longitudeOfLastGridPointInDegrees=1.0,
                    iDirectionIncrementInDegrees=1.0, jDirectionIncrementInDegrees=1.0,
                    dataDate=20190300 + day, dataTime=100 * hour, bitsPerValue=24)
        if level:
            keys |= dict(typeOfLevel="isobaricInhPa", level=level)
        if step is not None:
            keys |= dict(stepRange=step)
        for key, value in keys.items():
            eccodes.codes_set(message, key, value)
        eccodes.codes_set_values(message, mean + scale * np.arange(6.0))
        eccodes.codes_write(message, file)
    for day in (1, 2):
        for hour in (0, 12):
            write("2t", day, hour, 280 + day)
            write("t", day, hour, 250, level=500)
            write("t", day, hour, 270, level=850)
        for hour in (6, 18):  # amounts of forecasts; the second start repeats a time of the first
            for step in (6, 12, 18):
                write("tp", day, hour, step / 1000, step=f"0-{step}", scale=1e-3)
"""


@pytest.fixture(scope="module")
def grib(tmp_path_factory):
    if find_spec("cfgrib") is None:  # not importorskip: ecCodes and cartopy in one process crash
        pytest.skip("cfgrib is not here")
    path = tmp_path_factory.mktemp("grib") / "weather service.grib"
    subprocess.run([sys.executable, "-c", WRITER, str(path)], check=True)
    return path


def test_grib_with_several_variables_levels_and_lead_times(grib):
    found = datasets.inspect_stations(grib).series
    assert os.listdir(grib.parent) == [grib.name]  # no index file
    assert set(found.data_vars) == {"air_temperature", "t_500", "t_850", "precip"}
    # from 1 W to 1 E, stored from north to south: the values must not be turned at Greenwich
    np.testing.assert_array_equal(found["lat"], [52, 52, 52, 53, 53, 53])
    np.testing.assert_array_equal(found["lon"], [-1, 0, 1, -1, 0, 1])
    at_noon = found.sel(time="2019-03-02 12:00")
    np.testing.assert_allclose(at_noon["air_temperature"], 282 - 273.15 + np.array([3, 4, 5, 0, 1, 2]), atol=1e-4)
    np.testing.assert_allclose(at_noon["t_850"], 270 - 273.15 + np.array([3, 4, 5, 0, 1, 2]), atol=1e-4)
    # at 0 UTC 18 hours after the start at 6, and 6 hours after that at 18: the shorter lead time counts
    np.testing.assert_allclose(found["precip"].sel(time="2019-03-02 00:00")[3], 6, atol=1e-3)
    np.testing.assert_allclose(found["precip"].sel(time="2019-03-03 12:00")[3], 18, atol=1e-3)
    assert list(datasets.inspect_stations(grib, variable="tp").series.data_vars) == ["tp"]


def test_grib_that_cannot_be_read(grib, tmp_path, monkeypatch):
    content = grib.read_bytes()
    cut = written(tmp_path, "cut.grib", content[:-50])
    assert "expected a whole GRIB file, found one that cannot be read" in told(cut, "error")
    assert os.listdir(tmp_path) == ["cut.grib"]
    with pytest.raises(FileNotFoundError, match="found none at"):
        read_grib(tmp_path / "none.grib")
    with pytest.raises(ValueError, match="found one that cannot be read"):
        read_grib(written(tmp_path, "text.grib", "GRIB? no"))
    same_content = written(tmp_path, "misnamed.csv", content)
    assert "is named .csv but is a GRIB" in told(same_content, "warning")
    monkeypatch.setitem(sys.modules, "cfgrib", None)
    with pytest.raises(ImportError, match=r'pip install "stgcn-lab\[grib\]"'):
        datasets.open_stations(grib)
    assert r"stgcn-lab[grib]" in told(grib, "error")


# --- what is wrong --------------------------------------------------------------------------------------------

GOOD = lines(DAYS, *LONG)


def zipped(**files):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def rows_of(count):
    head, *rest = GOOD.splitlines()
    return "\n".join([head, *rest[:count]]) + "\n"


MIXED = "2020-01-01,a,1,2,3{}\n2020-01-02,a,1,2,3{}\n"
BROKEN = {
    "not a file": ("x.csv", None, "there is no file at"),
    "empty": ("x.csv", "", "is empty"),
    "blank lines": ("x.csv", "\n\n \n", "blank lines only"),
    "header only": ("x.csv", GOOD.splitlines()[0] + "\n", "no lines below it"),
    "no header": ("x.csv", GOOD.split("\n", 1)[1], "should name the columns"),
    "wrong suffix, a picture": ("x.csv", b"\x89PNG\r\n\x1a\n" + bytes(100), "is a picture"),
    "wrong suffix, a workbook": ("x.csv", zipped(**{"[Content_Types].xml": "", "xl/a.xml": ""}), "workbook of Excel"),
    "wrong suffix, text": ("x.nc", "Dear reader,\nthis is a letter.\n", "is no table"),
    "web page": ("x.csv", "<!DOCTYPE html><title>404</title>", "web page"),
    "JSON": ("x.csv", '{"error": true}', "is JSON"),
    "bytes": ("x.bin", bytes(range(256)) * 9, "neither a table nor"),
    "no time": ("x.csv", GOOD.replace("time,", "label,").replace("2020-01-", "w"), "no column of times"),
    "times are words": ("x.csv", GOOD.replace("2020-01-02", "soon"), "no time that can be read: 'soon"),
    "no coordinates": ("x.csv", "time,id,wind (m/s)\n2020-01-01,a,1\n2020-01-01,b,2\n", "no latitude and longitude"),
    "no stations": ("x.csv", "time,wind (m/s)\n2020-01-01,1\n2020-01-02,2\n", "there are no places"),
    "strings in numbers": ("x.csv", GOOD.replace("\n", "calm\n").replace("]calm", "]", 1), "are no numbers: "),
    "duplicate stations": ("x.csv", GOOD.replace("B2,53.31,-6.25", "A1,51.94,-10.24"), "several values at one time"),
    "station at two places": ("x.csv", GOOD.replace("B2,", "A1,"), "has several lat"),
    "latitude 123": ("x.csv", GOOD.replace("51.94", "123"), "latitude 123 of station A1 is outside -90 to 90"),
    "latitude a word": ("x.csv", GOOD.replace("51.94", "north"), "lat: 1 cell is no number: 'north' (line 2)"),
    "no latitude": ("x.csv", GOOD.replace("51.94", ""), "1 station has no latitude or longitude: A1"),
    "mixed units": ("x.csv", "t,id,lat,lon,wind,unit\n" + MIXED.format(",kn", ",m/s"), "units are mixed"),
    "mixed units behind": ("x.csv", "t,id,lat,lon,wind\n" + MIXED.format(" kn", " m/s"), "units are mixed, found"),
    "all values missing": ("x.csv", LONG[0] + "\n2020-01-01,a,1,2,NA\n2020-01-02,a,1,2,NA\n", "all values of"),
    "one station": ("x.csv", LONG[0] + "".join(f"\n2020-01-0{d},a,1,2,{d}" for d in (1, 2, 3)), "one station only"),
    "two time steps": ("x.csv", rows_of(6), "has 2 time steps only"),
    "huge gaps": ("x.csv", GOOD + "2031-01-01,A1,51.94,-10.24,3\n", "steps (day) are missing, the longest gap"),
    "no regular step": ("x.csv", GOOD.replace("2020-01-07 00:00:00", "2020-01-07 09:17:23"), "no regular step"),
    "infinite values": ("x.csv", GOOD + "2020-02-10,A1,51.94,-10.24,inf\n", "1 value is infinite"),
    "too many cells": ("x.csv", GOOD.replace("A1,", "A1,x,", 1), "more cells than the header has names (5)"),
    "cut off": ("x.csv", GOOD[:-13], "ends within line 121"),
    "cut off gzip": ("x.csv.gz", gzip.compress(GOOD.encode())[:200], "cannot be unpacked"),
    "zip of two": ("x.zip", zipped(a=GOOD, b=GOOD), "holds 2 files: a, b"),
    "times side by side": ("x.csv", "id,2020-01-01,2020-01-02,2020-01-03\na,4,5,6\n", "below each other"),
    "same names": ("x.csv", "time,A,A\nlat,1,2\nlon,3,4\n2020-01-01,1,2\n", "column has the name of another: A"),
    "an address": ("https://example.org/x.csv", None, "is an address"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_is_said(tmp_path, kind):
    name, content, expected = BROKEN[kind]
    path = name if "://" in name else tmp_path / name
    if content is not None:
        written(tmp_path, name, content)
    inspection = datasets.inspect_stations(path)
    assert inspection.series is None
    assert expected in "\n".join(map(str, inspection.errors))
    assert all(finding.level == "error" for finding in inspection.findings[: len(inspection.errors)])
    with pytest.raises(FileNotFoundError if kind == "not a file" else ValueError) as error:
        datasets.open_stations(path)
    assert expected in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ([] if content is None else [name])


KELVIN = (("time", "station"), np.zeros((40, 3)) + [280, 7, 8], {"units": "degC"})
BROKEN_NC = {
    "no time": (lambda d: d.isel(time=0, drop=True), "no coordinate of times"),
    "no coordinates": (lambda d: d.drop_vars(["lat", "lon"]), "no latitude and longitude"),
    "strings": (lambda d: d.assign(wind_speed=d["wind_speed"].astype(str)), "no variable is over both time and place"),
    "duplicate stations": (lambda d: d.assign_coords(station=["a", "b", "a"]), "station is there more than once: a"),
    "latitude 123": (lambda d: d.assign_coords(lat=d["lat"] + 70), "latitude 121.94 of station A1"),
    "latitude missing": (
        lambda d: d.assign_coords(lat=d["lat"].where(d["lat"] > 52)),
        "has no latitude or longitude: A1",
    ),
    "kelvin here, Celsius there": (lambda d: d.drop_vars("wind_speed").assign(ta=KELVIN), "units are mixed"),
    "all missing": (lambda d: d.where(False), "all values of wind_speed are missing"),
    "one station": (lambda d: d.isel(station=[0]), "one station only"),
    "two time steps": (lambda d: d.isel(time=[0, 1]), "2 time steps only"),
    "infinite values": (lambda d: d.where(d > 0.3, np.inf), "values are infinite, the first is inf at station"),
    "no units": (lambda d: d.assign(wind_speed=d["wind_speed"].drop_attrs()), "names no units"),
    "no variables": (lambda d: d.drop_vars("wind_speed"), "holds no variables"),
}


@pytest.mark.parametrize("kind", BROKEN_NC)
def test_what_is_wrong_with_netcdf_is_said(tmp_path, kind):
    change, expected = BROKEN_NC[kind]
    change(DAYS.drop_vars(["name", "elevation"])).to_netcdf(tmp_path / "x.nc")
    assert expected in told(tmp_path / "x.nc", "error")


def test_all_errors_are_said_at_once(tmp_path):
    text = GOOD.replace("51.94", "123").replace("[m s-1]", "").replace(LONG[0].split(",")[3], "lon", 1)
    with pytest.raises(ValueError, match="(?s)names no units.*latitude 123"):
        datasets.open_stations(written(tmp_path, "x.csv", text))


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_netcdf(tmp_path, form, share):
    DAYS.to_netcdf(tmp_path / "x.nc", format=form)
    content = (tmp_path / "x.nc").read_bytes()
    path = written(tmp_path, "cut.nc", content[: int(share * len(content))])
    assert datasets.inspect_stations(path).series is None
    assert "cut off" in told(path, "error")


REPAIRED = {
    "wrong suffix": ("x.nc", GOOD.encode(), "is named .nc but is a table"),
    "not UTF-8": ("x.csv", GOOD.replace("A1", "Málaga").encode("latin-1"), "not in UTF-8 (line 2)"),
    "Excel's days": ("x.csv", lines(DAYS, *LONG, lambda t: str(43831 + t.day_of_year - 1)).encode(), "1899-12-30"),
    "same place": ("x.csv", GOOD.replace("C3,54.5,-9.5", "C3,53.31,-6.25").encode(), "2 stations share their place"),
    "nowhere": ("x.csv", GOOD.replace("C3,54.5,-9.5", "C3,0,0").encode(), "0 N 0 E"),
    "empty station": ("x.csv", (GOOD + "2020-01-01,D4,50,0,\n").encode(), "any value was left out: D4"),
    "impossible": ("x.csv", (GOOD + "2020-02-10,A1,51.94,-10.24,-3\n").encode(), "outside 0 to 130 m s-1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REPAIRED)
def test_what_was_repaired_is_said_once(tmp_path, kind):
    name, content, expected = REPAIRED[kind]
    path = written(tmp_path, name, content)
    with pytest.warns(UserWarning) as caught:
        series = datasets.open_stations(path)
    assert len(caught) == 1 and expected in str(caught[0].message)
    datasets.check_series(series)
    assert caught[0].filename == __file__


def test_packed_files(tmp_path):
    same(quiet(written(tmp_path, "x.zip", zipped(**{"inside.csv": GOOD, "__MACOSX/x": "junk"}))), DAYS)
    DAYS.to_netcdf(tmp_path / "x.nc")
    same(quiet(written(tmp_path, "y.nc.gz", gzip.compress((tmp_path / "x.nc").read_bytes()))), DAYS)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_file_that_may_not_be_read(tmp_path):
    path = written(tmp_path, "x.csv", GOOD)
    path.chmod(0)
    assert "cannot be read" in told(path, "error")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"variable": "rain"}, "variable: there is no 'rain'"),
        ({"timezone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'"),
        ({"columns": {"time": "when"}}, "there is no column 'when'"),
        ({"columns": {"colour": "x"}}, "nothing is called 'colour' here"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, expected):
    assert expected in told(written(tmp_path, "x.csv", GOOD), "error", **options)


@pytest.mark.parametrize(
    "options",
    [{"variable": 3}, {"units": ["kn"]}, {"units": {"wind": 1}}, {"timezone": 1}, {"stations": 1}, {"columns": "time"}],
)
def test_options_of_the_wrong_type(tmp_path, options):
    with pytest.raises(TypeError, match=f"^{next(iter(options))}: found "):
        datasets.inspect_stations(tmp_path / "x.csv", **options)
    with pytest.raises(TypeError, match="^path: found"):
        datasets.open_stations(3)


@settings(max_examples=60)
@given(st.data())
def test_no_damage_leads_to_another_exception(tmp_path, data):
    """Bytes cut, doubled or changed anywhere: findings, never an exception, and a series only if it is sound."""
    good = data.draw(
        st.sampled_from([GOOD, lines(HOURS, *HOURLY["two columns"][:3]), lines(DAYS, *DAILY["Europe"][:3])])
    )
    content = bytearray(rows_of(30).encode() if good is GOOD else good[:1500].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        stop = data.draw(st.integers(start, min(len(content), start + 60)))
        content[start:stop] = data.draw(
            st.one_of(st.binary(max_size=8), st.text('0123456789.,;-:"\n TZ/e', max_size=8).map(str.encode))
        )
        content = content or bytearray(b"x")
    inspection = datasets.inspect_stations(written(tmp_path, "x.csv", bytes(content)))
    assert (inspection.series is None) == bool(inspection.errors)
    if inspection.series is not None:
        datasets.check_series(inspection.series)


# --- what would be read wrongly without a word ----------------------------------------------------------------


def rain(cells, sign):
    """A long table of rain in mm, with these cells at two stations."""
    rows = [
        sign.join([f"2020-01-{d + 1:02}", station, "50", str(k), cell])
        for d, cell in enumerate(cells)
        for k, station in enumerate("ab")
    ]
    return "\n".join([sign.join(["date", "station", "lat", "lon", "rain (mm)"]), *rows]) + "\n"


@pytest.mark.parametrize(
    ("cells", "sign", "expected"),
    [
        (['"1,234.5"', '"998.5"', "2"], ",", [1234.5, 998.5, 2]),
        (['"1,002"', "998", "3"], ",", [1002, 998, 3]),
        (['"1,234,567"', '"1,002"', "4.5"], ",", None),
        (['"1,234"', '"12,5"', "2"], ",", [1.234, 12.5, 2]),
        (['"0,234"', '"1,234"', "2"], ",", [0.234, 1.234, 2]),
        (["1,234", "10,554", "2,001"], ";", [1.234, 10.554, 2.001]),
        (["1.234,5", "998,5", "2"], ";", [1234.5, 998.5, 2]),
        (["1\u202f234.5", "1\u00a0000", "2"], ";", [1234.5, 1000, 2]),
        (['"1,234"', '"1,002"', '"2,001"'], ",", "may be before decimals or between thousands: '1,234'"),
        (["1.002", "998", "3"], ";", "the point may be before decimals or between thousands"),
        (["1.002", "998.1", "3"], ";", [1.002, 998.1, 3]),
    ],
)
def test_decimals_and_thousands_are_told_apart_or_asked_about(tmp_path, cells, sign, expected):
    path = written(tmp_path, "t.csv", rain(cells, sign))
    if isinstance(expected, str):
        assert expected in told(path, "error")
    elif expected is None:
        assert "outside 0 to 15000 mm" in told(path, "warning")  # 1234567 mm of rain, but no error of reading
    else:
        np.testing.assert_allclose(quiet(path)["precip"][:, 0], expected)


def test_degrees_west_and_south_by_the_name_of_the_column(tmp_path):
    text = lines(DAYS, "time,station,lat (deg S),lon [°W],wind_speed [m s-1]", ROW)
    path = written(tmp_path, "t.csv", text.replace(",-", ","))
    found = quiet(path)
    np.testing.assert_array_equal(found["lat"], -DEGREES["lat"])
    np.testing.assert_array_equal(found["lon"], DEGREES["lon"])
    assert "degrees west or south, and some are negative" in told(written(tmp_path, "n.csv", text), "error")


@pytest.mark.parametrize(("units", "factor"), [("radians", np.pi / 180), ("degrees_west", -1)])
def test_degrees_by_the_units_of_netcdf(tmp_path, units, factor):
    mine = {"lat": ("degrees_north", 1), "lon": (units, factor)} | ({"lat": (units, factor)} if factor > 0 else {})
    axes = {axis: ("station", DEGREES[axis] * times, {"units": unit}) for axis, (unit, times) in mine.items()}
    DAYS.assign_coords(axes).to_netcdf(tmp_path / "t.nc")
    found = quiet(tmp_path / "t.nc")
    for axis, degrees in DEGREES.items():
        np.testing.assert_allclose(found[axis], degrees)


def test_units_in_the_line_below_the_header(tmp_path):
    text = lines(DAYS, "time,station,lat,lon,wind\n-,,deg,deg,[kn]", ROW)
    path = written(tmp_path, "t.csv", text)
    np.testing.assert_allclose(quiet(path)["wind_speed"], DAYS["wind_speed"] * 1852 / 3600)
    assert "line 2 of t.csv was read as the units" in told(path, "note")


def test_a_station_with_two_places_in_the_table_of_stations(tmp_path):
    path = written(tmp_path, "t.csv", lines(DAYS, "time,station,wind (m/s)", "{t},{s},{v}"))
    table = "id,name,lat,lon\nA1,x,51.94,-10.24\nB2,x,53.31,-6.25\nC3,y,54.5,-9.5\n"
    np.testing.assert_array_equal(quiet(path, stations=written(tmp_path, "p.csv", table))["lat"], DEGREES["lat"])
    twice = written(tmp_path, "q.csv", table + "A1,x,40,0\n")
    assert "q.csv has several places for A1" in told(path, "error", stations=twice)
    byname = written(tmp_path, "n.csv", Path(path).read_text().replace("A1", "x").replace("C3", "y"))
    assert "several places for x" in told(byname, "error", stations=written(tmp_path, "p.csv", table))


@pytest.mark.parametrize("name", ["time (CET)", "local time", "Datum (MEZ)", "obs_time_local", "time [UTC+1]"])
def test_times_that_are_not_in_utc_by_their_name(tmp_path, name):
    head = LONG[0].replace("time", name, 1)
    options = {} if name.startswith(("time", "Datum")) else {"columns": {"time": name}}
    path = written(tmp_path, "t.csv", lines(HOURS, head, ROW))
    assert f"the times of {name!r} are not in UTC by that name" in told(path, "error", **options)
    assert quiet(path, timezone="Etc/GMT-1", **options).indexes["time"][0] == HOURS.indexes["time"][0] - pd.Timedelta(
        "1h"
    )
    days = written(tmp_path, "d.csv", lines(DAYS, head, ROW))
    same(quiet(days, **options), DAYS)


def test_an_hour_that_is_missing_in_spring_is_told(tmp_path):
    hours = wind(pd.date_range("2020-03-27", "2020-03-31", freq="h"))
    local = lambda t: f"{t.tz_localize('UTC').tz_convert('Europe/Dublin'):%Y-%m-%d %H:%M}"  # noqa: E731
    path = written(tmp_path, "t.csv", lines(hours, *LONG, local))
    assert "2020-03-29 01:00:00 is missing, as where clocks are put forward" in told(path, "warning")
    same(quiet(path, timezone="Europe/Dublin"), hours)
