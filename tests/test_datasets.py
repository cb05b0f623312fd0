"""Embedded data: what is in the files, the traps of their sources, damage, grids as nodes, the check of a series."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stgcn_lab import datasets

ROOT = Path(__file__).parent.parent
DATA = Path(datasets.__file__).parents[1] / "data"
LOADERS = {
    "irish_wind": datasets.load_irish_wind,
    "europe": lambda: datasets.load_reanalysis("europe"),
    "east_asia": lambda: datasets.load_reanalysis("east_asia"),
    "north_america": lambda: datasets.load_reanalysis("north_america"),
    "winter_height": datasets.load_winter_height,
    "colorado": datasets.load_colorado,
    "electricity_demand": datasets.load_electricity_demand,
    "pacific": datasets.load_pacific,
}
STATION_SERIES = ("irish_wind", "colorado")


@pytest.fixture(scope="module")
def loaded():
    return {name: load() for name, load in LOADERS.items()}


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The package's data folder, copied to where a test may damage it, with nothing remembered as checked."""
    folder = tmp_path / "data"
    shutil.copytree(DATA, folder)
    monkeypatch.setattr(datasets.bundled, "DATA_DIR", folder)
    datasets.registry.cache_clear()
    datasets.embedded.cache_clear()
    yield folder
    datasets.registry.cache_clear()
    datasets.embedded.cache_clear()


# --- the registry and the files -------------------------------------------------------------------------------


def test_every_file_is_registered_and_every_digest_is_right():
    registered = {name: facts for entry in datasets.registry().values() for name, facts in entry["files"].items()}
    on_disk = {path.relative_to(DATA).as_posix() for path in DATA.rglob("*") if path.is_file()} - {"registry.json"}
    assert on_disk == set(registered)
    for name, facts in registered.items():
        content = (DATA / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == facts["sha256"], name
        assert len(content) == facts["bytes"], name


def test_all_embedded_data_stay_under_six_megabytes():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 6_000_000


def test_registry_says_where_each_file_is_from():
    wanted = {"title", "package", "version", "member", "original_source", "references", "license", "period", "rebuild"}
    for key, entry in datasets.registry().items():
        assert wanted | {"files"} == set(entry), key
        assert all(isinstance(entry[field], str) and entry[field].strip() for field in wanted), key
        assert (ROOT / entry["rebuild"]).is_file(), key


def test_data_readme_names_every_script_package_and_version():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for entry in datasets.registry().values():
        assert Path(entry["rebuild"]).name in text
        assert f"`{entry['package'].split(' ')[0]}` {entry['version']}" in text


# --- what every loader promises -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sizes", "units", "first", "last"),
    [
        ("irish_wind", {"time": 6574, "station": 12}, {"wind_speed": "m s-1"}, "1961-01-01", "1978-12-31"),
        ("europe", {"time": 938, "lat": 19, "lon": 31}, {"air_temperature": "degC"}, "1948-01-01", "2026-02-01"),
        ("east_asia", {"time": 938, "lat": 19, "lon": 31}, {"air_temperature": "degC"}, "1948-01-01", "2026-02-01"),
        ("north_america", {"time": 938, "lat": 19, "lon": 31}, {"air_temperature": "degC"}, "1948-01-01", "2026-02-01"),
        (
            "winter_height",
            {"time": 65, "lat": 29, "lon": 49},
            {"geopotential_height": "m"},
            "1948-01-01",
            "2012-01-01",
        ),
        (
            "colorado",
            {"time": 1236, "station": 376},
            {"tmin": "degC", "tmax": "degC", "precip": "mm"},
            "1895-01-01",
            "1997-12-01",
        ),
        (
            "electricity_demand",
            {"time": 17520},
            {"demand": "GW", "temperature": "degC", "workday": "1"},
            "2014-01-01T00:00",
            "2014-12-31T23:30",
        ),
        ("pacific", {"time": 938}, {"sst_nino12": "degC", "air_nino34": "degC"}, "1948-01-01", "2026-02-01"),
    ],
)
def test_shape_units_and_period(loaded, name, sizes, units, first, last):
    dataset = loaded[name]
    assert dict(dataset.sizes) == sizes
    assert {key: variable.attrs["units"] for key, variable in dataset.data_vars.items()} == units
    assert all(variable.dims == tuple(sizes) for variable in dataset.data_vars.values())
    assert all(variable.attrs["long_name"] for variable in dataset.data_vars.values())
    assert dataset.indexes["time"][0] == pd.Timestamp(first)
    assert dataset.indexes["time"][-1] == pd.Timestamp(last)
    for attribute in ("title", "source", "references", "license"):
        assert dataset.attrs[attribute].strip()


@pytest.mark.parametrize("name", LOADERS)
def test_loaded_data_are_float64_in_memory_without_packing(loaded, name):
    for key, variable in loaded[name].data_vars.items():
        assert isinstance(variable.variable._data, np.ndarray)
        assert variable.dtype == (np.int8 if key == "workday" else np.float64)
        assert not {"scale_factor", "add_offset"} & (set(variable.encoding) | set(variable.attrs))


@pytest.mark.parametrize("name", [name for name in LOADERS if name not in ("electricity_demand", "pacific")])
def test_coordinates_say_degrees(loaded, name):
    assert loaded[name]["lat"].attrs["units"] == "degrees_north"
    assert loaded[name]["lon"].attrs["units"] == "degrees_east"


@pytest.mark.parametrize("name", STATION_SERIES)
def test_station_series_pass_the_check(loaded, name):
    assert datasets.check_series(loaded[name]).identical(loaded[name])


@pytest.mark.parametrize("name", LOADERS)
def test_times_have_no_gap(loaded, name):
    times = loaded[name].indexes["time"]
    step = {"irish_wind": "D", "electricity_demand": "30min", "winter_height": "YS"}.get(name, "MS")
    assert times.equals(pd.date_range(times[0], times[-1], freq=step).as_unit(times.unit))


def test_loaders_return_fresh_data():
    first = datasets.load_irish_wind()
    first["wind_speed"][:] = -1.0
    assert float(datasets.load_irish_wind()["wind_speed"].min()) == 0.0


def test_loaded_data_survive_saving(tmp_path):
    wind = datasets.load_irish_wind()
    wind.to_netcdf(tmp_path / "wind.nc")
    with xr.open_dataset(tmp_path / "wind.nc") as saved:
        np.testing.assert_array_equal(saved["wind_speed"].values, wind["wind_speed"].values)


def test_import_needs_neither_cartopy_nor_torch():
    code = "import sys, stgcn_lab.datasets; print(sorted({'cartopy', 'torch', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Irish wind -----------------------------------------------------------------------------------------------

# Known places, from maps: (latitude, longitude).
IRISH_PLACES = {
    "VAL": (51.94, -10.24), "BEL": (54.23, -10.01), "CLA": (53.71, -8.99), "SHA": (52.69, -8.92),
    "RPT": (51.79, -8.24), "BIR": (53.09, -7.89), "MUL": (53.54, -7.36), "MAL": (55.37, -7.34),
    "KIL": (52.67, -7.27), "CLO": (54.18, -7.23), "DUB": (53.43, -6.24), "ROS": (52.25, -6.33),
}  # fmt: skip
# Mean wind in m/s as published with the data, made without our conversion from knots.
IRISH_MEANS = {
    "VAL": 5.48, "BEL": 6.75, "CLA": 4.32, "SHA": 5.38, "RPT": 6.36, "BIR": 3.65, "MUL": 4.38, "MAL": 8.03,
    "KIL": 3.25, "CLO": 4.48, "DUB": 5.05, "ROS": 6.00,
}  # fmt: skip


def test_a_knot_is_a_nautical_mile_an_hour():
    assert datasets.KNOT == 1852 / 3600


def test_wind_is_knots_in_hundredths_times_that_factor(loaded):
    wind = loaded["irish_wind"]["wind_speed"]
    knots = wind.values / (1852 / 3600)
    np.testing.assert_allclose(knots, np.round(knots, 2), atol=1e-9)
    # First line of the published table: 1 January 1961 at Roche's Point and Valentia.
    np.testing.assert_allclose(wind.sel(station=["RPT", "VAL"])[0], [15.04 * 1852 / 3600, 14.96 * 1852 / 3600])


def test_wind_means_agree_with_the_published_ones(loaded):
    means = loaded["irish_wind"]["wind_speed"].mean("time")
    for station, published in IRISH_MEANS.items():
        assert abs(float(means.sel(station=station)) - published) < 0.06, station


def test_irish_stations_stand_where_they_should(loaded):
    wind = loaded["irish_wind"]
    assert set(wind["station"].values) == set(IRISH_PLACES)
    for station, (lat, lon) in IRISH_PLACES.items():
        place = wind.sel(station=station)
        assert abs(float(place["lat"]) - lat) < 0.04, station
        assert abs(float(place["lon"]) - lon) < 0.04, station
    assert ((wind["lat"] > 51.3) & (wind["lat"] < 55.5) & (wind["lon"] > -10.7) & (wind["lon"] < -5.4)).all()
    assert list(wind["lon"].sel(station=["VAL", "SHA", "BIR", "DUB"]).argsort()) == [0, 1, 2, 3]  # west to east
    assert str(wind["name"].sel(station="ROS").item()) == "Rosslare"


def test_coast_is_windier_than_inland_and_winter_than_summer(loaded):
    wind = loaded["irish_wind"]["wind_speed"]
    means = wind.mean("time")
    for coast in ("MAL", "BEL"):
        for inland in ("BIR", "MUL", "CLA", "KIL"):
            assert means.sel(station=coast) > 1.4 * means.sel(station=inland)
    months = wind.groupby("time.month").mean("time")
    assert (months.sel(month=1) > months.sel(month=7)).all()


def test_wind_has_no_gap_and_keeps_its_calms(loaded):
    wind = loaded["irish_wind"]["wind_speed"]
    assert not wind.isnull().any()
    assert int((wind == 0).sum()) == 16


def test_leap_days_are_in_the_file_and_can_be_dropped(loaded):
    wind = loaded["irish_wind"]
    leap = wind["time"].dt.strftime("%m-%d") == "02-29"
    assert list(wind["time"].dt.year.values[leap]) == [1964, 1968, 1972, 1976]
    short = datasets.drop_leap_days(wind)
    assert set(np.unique(short["time"].dt.year, return_counts=True)[1]) == {365}
    assert datasets.drop_leap_days(wind["wind_speed"]).identical(short["wind_speed"])
    assert wind.sizes["time"] - short.sizes["time"] == 4


def test_wind_reproduces_the_simple_lines_of_the_published_benchmark(loaded):
    """Climatology .5878 and persistence .5578: root mean square error of the square root of wind, 1971-1978."""
    wind = np.sqrt(datasets.drop_leap_days(loaded["irish_wind"]["wind_speed"].drop_sel(station="ROS")))
    train, test = (wind.sel(time=slice(*years)).values for years in (("1961", "1970"), ("1971", "1978")))
    assert (len(train), len(test)) == (3650, 2920)
    season = train.reshape(-1, 365, 11).mean((0, 2))[:, None]
    level = (train - np.tile(season, (10, 1))).mean(0)
    anomaly = test - np.tile(season, (8, 1)) - level
    climatology = np.sqrt((anomaly[3:] ** 2).mean(0)).mean()
    persistence = np.sqrt((np.diff(anomaly, axis=0)[2:] ** 2).mean(0)).mean()
    assert abs(climatology - 0.5878) < 1e-4
    assert abs(persistence - 0.5578) < 1e-4


# --- reanalysis -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "box"),
    [("europe", (27.5, 72.5, -15, 60)), ("east_asia", (10, 55, 80, 155)), ("north_america", (20, 65, -130, -55))],
)
def test_regions_are_boxes_of_one_shape(loaded, region, box):
    south, north, west, east = box
    np.testing.assert_array_equal(loaded[region]["lat"], np.linspace(south, north, 19))
    np.testing.assert_array_equal(loaded[region]["lon"], np.linspace(west, east, 31))
    assert loaded[region].attrs["region"] == region


@pytest.mark.parametrize("region", datasets.REGIONS)
def test_region_looks_like_the_northern_hemisphere(loaded, region):
    air = loaded[region]["air_temperature"]
    assert not air.isnull().any()
    assert -60 < float(air.min()) < float(air.max()) < 45
    months = air.groupby("time.month").mean("time")
    warming = months.sel(month=7) - months.sel(month=1)
    assert float((warming > 0).mean()) > 0.97 and float(warming.mean()) > 15  # the tropics have little season
    by_latitude = air.mean(("time", "lon"))
    assert float(by_latitude[0]) > 20 and float(by_latitude[-1]) < 2


@pytest.mark.parametrize(
    ("region", "lat", "lon", "january", "july"),
    [  # Near Moscow, near Winnipeg, near Beijing: January and July as climate tables have them, within 6 degrees.
        ("europe", 55, 37.5, -8, 19),
        ("north_america", 50, -97.5, -17, 20),
        ("east_asia", 40, 117.5, -6, 25),
    ],
)
def test_known_climates_are_where_they_should_be(loaded, region, lat, lon, january, july):
    place = loaded[region]["air_temperature"].sel(lat=lat, lon=lon).groupby("time.month").mean()
    assert abs(float(place.sel(month=1)) - january) < 6
    assert abs(float(place.sel(month=7)) - july) < 6


def test_the_high_ground_of_tibet_is_cold_and_the_gulf_stream_warms_norway(loaded):
    asia = loaded["east_asia"]["air_temperature"].mean("time")
    assert float(asia.sel(lat=35, lon=87.5)) < float(asia.sel(lat=35, lon=117.5)) - 10
    europe = loaded["europe"]["air_temperature"].groupby("time.month").mean("time").sel(month=1)
    assert float(europe.sel(lat=65, lon=0)) > float(europe.sel(lat=65, lon=50)) + 10


def test_unknown_region_lists_the_valid_names():
    with pytest.raises(ValueError, match="region: found 'africa'.*europe.*east_asia.*north_america"):
        datasets.load_reanalysis("africa")


# --- winter height --------------------------------------------------------------------------------------------


def test_winter_height_is_on_the_whole_grid(loaded):
    height = loaded["winter_height"]["geopotential_height"]
    np.testing.assert_array_equal(height["lat"], np.linspace(20, 90, 29))
    np.testing.assert_array_equal(height["lon"], np.linspace(-80, 40, 49))
    assert not height.isnull().any()
    np.testing.assert_allclose(height / 0.05, np.round(height / 0.05), atol=1e-6)
    assert (height.sel(lat=90) == height.sel(lat=90, lon=0)).all()  # the pole is one place
    # The south-west corner in the first winter is 5850.35010579 m in the source.
    assert abs(float(height[0, 0, 0]) - 5850.35010579) < 0.025


def test_winter_height_falls_towards_the_pole_with_a_trough_over_canada(loaded):
    mean = loaded["winter_height"]["geopotential_height"].mean("time")
    assert 5800 < float(mean.sel(lat=20).mean()) < 5900 and 5000 < float(mean.sel(lat=90).mean()) < 5150
    assert (mean.sel(lat=slice(25, 60)).diff("lat") < 0).all()
    assert float(mean.sel(lat=60, lon=-70)) < float(mean.sel(lat=60, lon=0)) - 100


def test_winter_is_called_by_its_january(loaded):
    """European winters are warm under a high 500 hPa surface; stamped a year off, the two agree far less."""
    air = loaded["europe"]["air_temperature"].resample(time="QS-DEC").mean()
    air = air[(air["time"].dt.month == 12).values]  # December to February, under the year of the December
    air = air.assign_coords(time=air["time"].dt.year.values + 1)
    height = loaded["winter_height"]["geopotential_height"]
    agreement = {}
    for shift in (-1, 0, 1):
        moved = height.assign_coords(time=height["time"].dt.year.values + shift)
        both = xr.align(air, moved)
        box = [part.sel(lat=slice(40, 65), lon=slice(-10, 40)) for part in both]
        agreement[shift] = float(xr.corr(*box, "time").mean())
    assert agreement[0] > 0.35 and max(agreement[-1], agreement[1]) < 0.2


def test_winter_height_knows_the_north_atlantic_oscillation(loaded):
    """Its two most negative winters of these years are 1963 and 2010; 1989 and 1995 are strongly positive."""
    height = loaded["winter_height"]["geopotential_height"]
    seesaw = height.sel(lat=65, lon=-20) - height.sel(lat=37.5, lon=-20)  # Iceland over the Azores: negative phase
    years = seesaw["time"].dt.year.values[np.argsort(seesaw.values)]
    assert set(years[-2:]) == {1963, 2010} and {1989, 1995} <= set(years[:5])


def test_winter_height_without_the_pole_is_a_series_and_returns(loaded):
    grid = loaded["winter_height"].sel(lat=slice(None, 87.5))
    nodes = datasets.grid_to_nodes(grid)
    assert dict(nodes.sizes) == {"time": 65, "station": 28 * 49}
    assert datasets.check_series(nodes).identical(nodes)
    assert datasets.nodes_to_grid(nodes).identical(grid)


# --- Colorado -------------------------------------------------------------------------------------------------


def test_colorado_precipitation_is_in_millimetres(loaded):
    colorado = loaded["colorado"]
    rain = colorado["precip"].groupby("time.month").mean("time").sum("month")
    names = colorado["name"].values
    assert abs(float(rain[names == "DENVER STAPL"][0]) - 400) < 20
    np.testing.assert_allclose(rain[names == "GRAND JUNCTI"], 225, atol=15)
    assert 300 < float(rain.median()) < 600


def test_colorado_gaps_are_nan_and_zeros_are_data(loaded):
    colorado = loaded["colorado"]
    for variable in colorado.data_vars.values():
        assert 0.58 < float(variable.isnull().mean()) < 0.62
        assert int((variable == 0).sum()) > 100
        assert bool(variable.notnull().any("time").all())  # every station measured something
    assert float(colorado["tmin"].min()) > -40 and float(colorado["tmax"].max()) < 45
    assert 0 == float(colorado["precip"].min()) < float(colorado["precip"].max()) < 600


def test_colorado_stations_stand_where_they_should(loaded):
    colorado = loaded["colorado"]
    assert colorado["elevation"].attrs["units"] == "m"
    assert ((colorado["lat"] > 36.5) & (colorado["lat"] < 41.5)).all()
    assert ((colorado["lon"] > -109.5) & (colorado["lon"] < -101)).all()
    places = {"DENVER STAPL": (39.77, -104.87, 1611), "LEADVILLE": (39.25, -106.3, 3100), "LAMAR": (38.1, -102.6, 1100)}
    for name, (lat, lon, height) in places.items():
        station = colorado.isel(station=list(colorado["name"].values).index(name))
        assert abs(float(station["lat"]) - lat) < 0.1 and abs(float(station["lon"]) - lon) < 0.1, name
        assert abs(float(station["elevation"]) - height) < 60, name
    assert colorado.indexes["station"].is_unique


def test_colorado_is_colder_higher_up_and_never_colder_by_day(loaded):
    colorado = loaded["colorado"]
    assert not bool((colorado["tmin"] > colorado["tmax"]).any())
    july = colorado["tmax"].groupby("time.month").mean("time").sel(month=7)
    july = july.dropna("station")  # 17 stations, of a few dozen months each, have no temperature of a July
    assert july.sizes["station"] == 376 - 17
    lapse = np.polyfit(july["elevation"].values, july.values, 1)[0] * 1000
    assert -10 < lapse < -5  # degC per km


# --- electricity demand ---------------------------------------------------------------------------------------


def test_demand_begins_on_new_years_day_and_keeps_victorias_holidays(loaded):
    demand = loaded["electricity_demand"]
    np.testing.assert_allclose(demand["demand"][:2], [3.91465, 3.67255], atol=1e-5)
    work = demand["workday"].to_series().resample("D")
    assert (work.min() == work.max()).all()  # a whole day is a working day or is not
    days = work.max()
    holidays = days[(days == 0) & (days.index.day_of_week < 5)].index.strftime("%m-%d")
    # New Year, Australia Day, Labour Day, Easter, Anzac Day, Queen's Birthday, Melbourne Cup, Christmas.
    assert list(holidays) == ["01-01", "01-27", "03-10", "04-18", "04-21", "04-25", "06-09", "11-04", "12-25", "12-26"]
    assert not days[days.index.day_of_week >= 5].any()


def test_demand_answers_to_heat_and_to_work(loaded):
    demand = loaded["electricity_demand"]
    assert 2.5 < float(demand["demand"].min()) < float(demand["demand"].max()) < 10
    assert 0 < float(demand["temperature"].min()) < float(demand["temperature"].max()) < 45
    peak = demand["demand"].idxmax().values
    assert float(demand["temperature"].sel(time=peak)) > 35
    means = demand["demand"].groupby(demand["workday"]).mean()
    assert means.sel(workday=1) > 1.1 * means.sel(workday=0)


def working_day_profile(demand, days):
    """Mean demand of the working days from first to last of `days`, by half hour (48,)."""
    part = demand.sel(time=slice(*days))
    return np.nanmean(part["demand"].where(part["workday"] == 1).values.reshape(-1, 48), axis=0)


def half_rise(profile):
    """Hour at which demand is half way up from the night's lowest value to that of 09:00."""
    lowest = int(np.argmin(profile[:14]))
    return np.interp((profile[lowest] + profile[18]) / 2, profile[lowest:14], np.arange(lowest, 14) / 2)


@pytest.mark.parametrize(
    ("summer_time", "standard_time"),
    [
        (("2014-03-17", "2014-04-04"), ("2014-04-07", "2014-04-17")),
        (("2014-10-06", "2014-10-24"), ("2014-09-15", "2014-10-03")),
    ],
)
def test_demand_clock_is_standard_time(loaded, summer_time, standard_time):
    """By this clock people get up an hour earlier in summer time; heaters on fixed timers start at 23:00 always."""
    demand = loaded["electricity_demand"]
    summer, standard = (working_day_profile(demand, days) for days in (summer_time, standard_time))
    assert 0.75 < half_rise(standard) - half_rise(summer) < 1.25
    for profile in (summer, standard):
        assert np.argmax(np.diff(profile)[40:]) + 41 == 46  # the evening's largest step up is that into 23:00


def test_coldest_half_hour_of_january_is_before_sunrise_in_standard_time(loaded):
    """Melbourne's sun rises near 05:10 standard time (06:10 summer time) in January."""
    january = loaded["electricity_demand"]["temperature"].sel(time="2014-01").values.reshape(31, 48).mean(0)
    assert 4.0 <= np.argmin(january) / 2 <= 5.5


# --- coastlines -----------------------------------------------------------------------------------------------


def test_coastlines_are_in_cartopys_layout():
    folder = datasets.coastlines_dir() / "shapefiles" / "natural_earth" / "physical"
    for scale in ("110m", "50m"):
        for layer in ("coastline", "land"):
            for ending in ("shp", "shx", "dbf", "prj", "cpg"):
                assert (folder / f"ne_{scale}_{layer}.{ending}").is_file()


def test_cartopy_finds_the_coastlines_without_a_network(monkeypatch):
    cartopy = pytest.importorskip("cartopy")
    from cartopy.io import Downloader
    from cartopy.io.shapereader import Reader, natural_earth

    def refuse(*args, **kwargs):
        raise AssertionError("cartopy wanted to download")

    monkeypatch.setattr(Downloader, "acquire_resource", refuse)
    monkeypatch.setitem(cartopy.config, "pre_existing_data_dir", str(datasets.coastlines_dir()))
    for scale, fewest in (("110m", 100), ("50m", 1000)):
        lines = list(Reader(natural_earth(scale, "physical", "coastline")).geometries())
        assert len(lines) > fewest
    lands = list(Reader(natural_earth("50m", "physical", "land")).geometries())
    from shapely.geometry import Point

    assert any(land.contains(Point(-7.89, 53.09)) for land in lands)  # Birr is on land
    assert not any(land.contains(Point(-5.0, 53.5)) for land in lands)  # the Irish Sea is not


# --- ERA5 over the United Kingdom, the file that is fetched ---------------------------------------------------


@pytest.fixture(scope="module")
def era5_file():
    """A copy of the file, from STGCN_LAB_DATA or from shared/data beside the clone."""
    folders = [os.environ.get("STGCN_LAB_DATA"), ROOT.parent / "shared" / "data"]
    found = [Path(folder) / datasets.ERA5_UK for folder in folders if folder]
    found = [file for file in found if file.is_file()]
    if not found:
        pytest.skip(f"{datasets.ERA5_UK} is not here; set STGCN_LAB_DATA to a folder that holds it")
    return found[0]


@pytest.fixture
def no_copy(monkeypatch, tmp_path):
    """A reader without the file: no STGCN_LAB_DATA, an empty cache, and a network that nobody may use."""
    pooch = pytest.importorskip("pooch")
    cache = tmp_path / "cache"
    monkeypatch.delenv("STGCN_LAB_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: cache)
    monkeypatch.setattr(datasets.archives, "ERA5_UK_URL", "http://127.0.0.1:9/nobody-listens-here")
    return cache


@pytest.fixture
def server(monkeypatch, no_copy):
    """A server on this machine that answers with what the test puts into it."""
    answer = {"status": 200, "content": b"", "length": None, "asked": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer["asked"] += 1
            self.send_response(answer["status"])
            self.send_header("Content-Length", str(answer["length"] or len(answer["content"])))
            self.end_headers()
            self.wfile.write(answer["content"])

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(datasets.archives, "ERA5_UK_URL", f"http://127.0.0.1:{http.server_port}/{datasets.ERA5_UK}")
        yield answer
        http.shutdown()
        thread.join()


def test_era5_is_what_it_should_be(era5_file):
    era5 = datasets.load_era5_uk(era5_file)
    air = era5["air_temperature"]
    assert air.dims == ("time", "lat", "lon") and air.shape == (744, 33, 49) and air.dtype == np.float64
    assert era5["lat"].values.tolist() == np.arange(50, 58.1, 0.25).tolist()
    assert era5["lon"].values.tolist() == np.arange(-10, 2.1, 0.25).tolist()
    assert era5["time"].values[0] == np.datetime64("2019-03-01T00") and set(np.diff(era5["time"])) == {
        np.timedelta64(1, "h")
    }
    assert bool(air.notnull().all()) and -10 < float(air.min()) < 0 and 15 < float(air.max()) < 20
    assert "Contains modified Copernicus Climate Change Service information 2019" in era5.attrs["license"]
    nodes = datasets.check_series(datasets.grid_to_nodes(era5))
    assert dict(nodes.sizes) == {"time": 744, "station": 1617}
    assert datasets.nodes_to_grid(nodes).identical(era5)


def test_era5_lies_the_right_way_up(era5_file):
    """The south is milder than the north, the sea keeps its temperature, and over land the afternoon is warmest."""
    air = datasets.load_era5_uk(era5_file)["air_temperature"]
    assert float(air.sel(lat=slice(50, 51)).mean()) > float(air.sel(lat=slice(57, 58)).mean()) + 1
    land, sea = air.sel(lat=52.5, lon=-1.5), air.sel(lat=50.0, lon=-9.0)
    day = land.groupby("time.hour").mean()
    assert day.values.argmax() in (13, 14, 15) and day.values.argmin() in (4, 5, 6, 7)
    assert float(sea.std()) < 0.5 * float(land.std())


def test_era5_is_decoded_as_by_eccodes(era5_file):
    """Digest of the float32 values in kelvin, north to south, that cfgrib 0.9.15 with ecCodes 2.50 gave."""
    kelvin = datasets.archives._decode_era5(era5_file.read_bytes()).astype("<f4")
    assert (kelvin[0, 0, 0], kelvin[371, 16, 24], kelvin[743, 32, 48]) == tuple(
        np.float32([282.4248, 282.7378, 281.45483])
    )
    digest = "96abea797db80899120259c64a98f4e7b4604e541b2137cfdccaf7f71c84eacf"
    assert hashlib.sha256(np.ascontiguousarray(kelvin).tobytes()).hexdigest() == digest


def test_era5_leaves_nothing_beside_the_file(era5_file, tmp_path):
    shutil.copyfile(era5_file, tmp_path / datasets.ERA5_UK)
    datasets.load_era5_uk(tmp_path / datasets.ERA5_UK)
    assert [file.name for file in tmp_path.iterdir()] == [datasets.ERA5_UK]


def test_era5_is_taken_from_the_folder_of_the_reader(era5_file, no_copy, monkeypatch):
    monkeypatch.setenv("STGCN_LAB_DATA", str(era5_file.parent))
    assert datasets.load_era5_uk().identical(datasets.load_era5_uk(era5_file))
    assert not no_copy.exists()


def test_era5_is_downloaded_once(era5_file, server, no_copy, monkeypatch, tmp_path):
    server["content"] = era5_file.read_bytes()
    monkeypatch.setenv("STGCN_LAB_DATA", str(tmp_path))  # a folder without it: then the cache
    first = datasets.load_era5_uk()
    assert [file.name for file in no_copy.iterdir()] == [datasets.ERA5_UK]
    assert datasets.load_era5_uk().identical(first) and server["asked"] == 1
    (no_copy / datasets.ERA5_UK).write_bytes(b"damaged")  # the cache heals itself
    assert datasets.load_era5_uk().identical(first) and server["asked"] == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"content": b"GRIB but not this one"},
        {"content": b"GRIB", "length": 2_499_840},  # the line breaks in the middle
        {"content": b"nothing here", "status": 404},
    ],
    ids=["another file", "broken off", "not found"],
)
def test_era5_download_that_fails_says_what_to_do_and_leaves_nothing(server, no_copy, answer):
    server.update(answer)
    with pytest.raises(ConnectionError, match=r"could not download http://127.*give path=.*STGCN_LAB_DATA"):
        datasets.load_era5_uk()
    assert server["asked"] == 1 and list(no_copy.iterdir()) == []


def test_era5_without_network_says_what_to_do(no_copy):
    with pytest.raises(ConnectionError, match=r"could not download.*give path=.*or set STGCN_LAB_DATA"):
        datasets.load_era5_uk()
    assert list(no_copy.iterdir()) == []


@pytest.mark.parametrize("how", ["path", "STGCN_LAB_DATA"])
def test_era5_of_another_content_is_refused(no_copy, how, monkeypatch, tmp_path):
    file = tmp_path / datasets.ERA5_UK
    file.write_bytes(b"GRIB, cut short")
    if how == "STGCN_LAB_DATA":
        monkeypatch.setenv("STGCN_LAB_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=rf"^{how}: expected era5.*{datasets.archives.ERA5_UK_SHA256}, found \w+ \(15 bytes\)"):
        datasets.load_era5_uk(file if how == "path" else None)
    assert file.read_bytes() == b"GRIB, cut short"  # the reader's own file is left alone


def test_era5_that_is_not_there(no_copy, monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^path: expected the file era5.*found none at .*nowhere\.grib"):
        datasets.load_era5_uk(tmp_path / "nowhere.grib")
    monkeypatch.setenv("STGCN_LAB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="^STGCN_LAB_DATA: expected a folder, found none"):
        datasets.load_era5_uk()


def test_era5_without_pooch_names_the_extra(no_copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)  # import now raises ImportError
    with pytest.raises(ImportError, match=r"load_era5_uk: expected pooch.*stgcn-lab\[era5\].*path="):
        datasets.load_era5_uk()


def test_era5_from_a_file_needs_no_other_package(era5_file, monkeypatch):
    for package in ("pooch", "cfgrib", "eccodes"):
        monkeypatch.setitem(sys.modules, package, None)
    assert datasets.load_era5_uk(str(era5_file))["air_temperature"].size == 744 * 33 * 49


def test_era5_address_is_that_of_xarrays_tutorial():
    from xarray import tutorial

    assert f"{tutorial.base_url}/raw/{tutorial.version}/{datasets.ERA5_UK}" == datasets.archives.ERA5_UK_URL


# --- the Pacific ----------------------------------------------------------------------------------------------


def test_pacific_series_have_values_in_their_own_years_alone(loaded):
    sea, air = loaded["pacific"]["sst_nino12"], loaded["pacific"]["air_nino34"]
    years = sea["time"].dt.year
    np.testing.assert_array_equal(sea.notnull(), (years >= 1950) & (years <= 2010))
    assert bool(air.notnull().all())
    assert (DATA / "pacific.nc").stat().st_size < 20_000


def test_pacific_months_are_in_their_columns(loaded):
    """The table has a row for each year: read the other way, the cold tongue of August would lie elsewhere."""
    sea = loaded["pacific"]["sst_nino12"]
    assert sea.sel(time="1950-01-01").item() == 23.11 and sea.sel(time="1950-12-01").item() == 21.80
    assert sea.sel(time="2010-12-01").item() == 22.07
    season = sea.groupby("time.month").mean()
    assert season.idxmax().item() == 3 and season.idxmin().item() in (8, 9)
    assert 20 < season.min().item() < 21 and 26 < season.max().item() < 27


def test_pacific_knows_the_great_el_ninos(loaded):
    anomaly = loaded["pacific"].groupby("time.month") - loaded["pacific"].groupby("time.month").mean()
    winters = anomaly.sel(time=anomaly["time"].dt.month == 12)
    sea = winters["sst_nino12"].dropna("time")
    assert set(sea.sortby(sea)["time"].dt.year.values[-2:]) == {1982, 1997}
    assert winters["air_nino34"].sel(time=["1982-12-01", "1997-12-01"]).min() > 1.5
    assert winters["air_nino34"].sel(time=["1973-12-01", "1988-12-01", "1999-12-01"]).max() < -0.8
    together = xr.corr(anomaly["sst_nino12"], anomaly["air_nino34"]).item()
    assert 0.6 < together < 0.75, "two places, one ocean"


# --- damage ---------------------------------------------------------------------------------------------------


def test_undamaged_copy_loads(copied, loaded):
    assert datasets.load_irish_wind().identical(loaded["irish_wind"])
    assert datasets.embedded("irish_wind.nc") == copied / "irish_wind.nc"


def test_truncated_file_gives_a_clear_error(copied):
    path = copied / "irish_wind.nc"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"irish_wind\.nc is damaged: found SHA-256 \w{64} \(1000 bytes\).*reinstall"):
        datasets.load_irish_wind()


def test_one_wrong_bit_gives_a_clear_error(copied):
    path = copied / "reanalysis_europe.nc"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    expected = json.loads((DATA / "registry.json").read_text())["reanalysis"]["files"]["reanalysis_europe.nc"]["sha256"]
    with pytest.raises(ValueError, match=f"reanalysis_europe.nc is damaged.*expected {expected}"):
        datasets.load_reanalysis("europe")
    datasets.load_reanalysis("east_asia")  # the others are not harmed


def test_wrong_digest_in_the_registry_gives_a_clear_error(copied):
    text = (copied / "registry.json").read_text(encoding="utf-8")
    digest = json.loads(text)["colorado"]["files"]["colorado.nc"]["sha256"]
    (copied / "registry.json").write_text(text.replace(digest, "0" * 64), encoding="utf-8")
    with pytest.raises(ValueError, match=f"colorado.nc is damaged: found SHA-256 {digest}"):
        datasets.load_colorado()


def test_missing_file_gives_a_clear_error(copied):
    (copied / "electricity_demand.nc").unlink()
    with pytest.raises(FileNotFoundError, match=r"electricity_demand\.nc is missing.*reinstall"):
        datasets.load_electricity_demand()


def test_damaged_coastline_gives_a_clear_error(copied):
    next(copied.rglob("ne_50m_land.shp")).write_bytes(b"")
    with pytest.raises(ValueError, match=r"ne_50m_land\.shp is damaged"):
        datasets.coastlines_dir()


def test_unknown_embedded_name_lists_what_there_is():
    with pytest.raises(ValueError, match="no embedded file 'rain.nc'.*irish_wind.nc"):
        datasets.embedded("rain.nc")


def test_digest_is_checked_once_per_process(copied, monkeypatch):
    datasets.load_irish_wind()
    monkeypatch.setattr(datasets.bundled.hashlib, "sha256", lambda content: pytest.fail("checked twice"))
    datasets.load_irish_wind()


# --- grids as nodes and back ----------------------------------------------------------------------------------


@st.composite
def grids(draw):
    """A Dataset on a small grid: two fields with gaps, one without time, a mask, a series without a place."""
    times, lats, lons = (draw(st.integers(1, 4)) for _ in range(3))
    sign = draw(st.sampled_from([1, -1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(size=(2, times, lats, lons))
    values[rng.random(values.shape) < 0.2] = np.nan
    return xr.Dataset(
        {
            "air": (("time", "lat", "lon"), values[0], {"units": "degC"}),
            "rain": (("time", "lat", "lon"), values[1].astype(np.float32), {"units": "mm"}),
            "height": (("lat", "lon"), rng.integers(0, 9, (lats, lons)), {"units": "m"}),
            "index": ("time", rng.normal(size=times), {"units": "1"}),
        },
        coords={
            "time": ("time", pd.date_range("2000-01-01", periods=times).to_numpy(), {"axis": "T"}),
            "lat": ("lat", sign * (10.0 + 2.5 * np.arange(lats)), {"units": "degrees_north"}),
            "lon": ("lon", (-20 + 2.5 * np.arange(lons)).astype(np.float32), {"units": "degrees_east"}),
            "land": (("lat", "lon"), rng.random((lats, lons)) < 0.5, {"long_name": "land"}),
            "season": ("time", rng.integers(1, 5, times)),
        },
        attrs={"title": "a grid"},
    )


@settings(max_examples=60, deadline=None)
@given(grids())
def test_grid_to_nodes_and_back_is_exact(grid):
    nodes = datasets.grid_to_nodes(grid)
    assert nodes["air"].dims == ("time", "station") and nodes["height"].dims == ("station",)
    assert nodes["land"].dims == ("station",) and "land" in nodes.coords
    assert datasets.nodes_to_grid(nodes).identical(grid)
    for name in ("air", "height"):
        assert datasets.nodes_to_grid(datasets.grid_to_nodes(grid[name])).identical(grid[name])
    columns = grid.sizes["lon"]
    for i, lat in enumerate(grid["lat"].values):
        for j, lon in enumerate(grid["lon"].values):
            node = nodes["air"].sel(station=i * columns + j)
            assert (node["lat"], node["lon"]) == (lat, lon)
            np.testing.assert_array_equal(node.values, grid["air"].values[:, i, j])


@pytest.mark.parametrize("region", datasets.REGIONS)
def test_reanalysis_as_nodes_is_a_series_and_returns(loaded, region):
    nodes = datasets.grid_to_nodes(loaded[region])
    assert dict(nodes.sizes) == {"time": 938, "station": 589}
    assert datasets.check_series(nodes).identical(nodes)
    assert datasets.nodes_to_grid(nodes).identical(loaded[region])


def test_grid_axes_in_another_order_give_the_same_nodes(loaded):
    air = loaded["europe"]["air_temperature"][:3]
    assert datasets.grid_to_nodes(air.transpose("lon", "lat", "time")).identical(datasets.grid_to_nodes(air))


def test_results_for_nodes_return_to_the_grid(loaded):
    """A new variable computed for nodes, such as a label of each, can be laid out as a map."""
    nodes = datasets.grid_to_nodes(loaded["europe"]["air_temperature"])
    grid = datasets.nodes_to_grid(nodes.mean("time"))
    assert grid.dims == ("lat", "lon")
    np.testing.assert_allclose(grid, loaded["europe"]["air_temperature"].mean("time"))


def test_grid_to_nodes_refuses_what_is_no_grid(loaded):
    air = loaded["europe"]["air_temperature"][:2]
    with pytest.raises(TypeError, match="field: found ndarray"):
        datasets.grid_to_nodes(air.values)
    with pytest.raises(ValueError, match="expected lat and lon"):
        datasets.grid_to_nodes(air.rename(lat="latitude"))
    with pytest.raises(ValueError, match="expected lat and lon, each with a coordinate"):
        datasets.grid_to_nodes(air.drop_vars("lat"))
    with pytest.raises(ValueError, match="repeated values in the coordinate lon"):
        datasets.grid_to_nodes(air.assign_coords(lon=np.zeros(31)))
    with pytest.raises(ValueError, match="variable 'weight' has dims .*'lat'"):
        datasets.grid_to_nodes(air.to_dataset().assign(weight=("lat", np.ones(19))))
    with pytest.raises(ValueError, match="'station'"):
        datasets.grid_to_nodes(air.assign_coords(station=3))


def test_nodes_to_grid_refuses_what_is_no_whole_grid(loaded):
    nodes = datasets.grid_to_nodes(loaded["europe"]["air_temperature"][:2])
    with pytest.raises(TypeError, match="field: found ndarray"):
        datasets.nodes_to_grid(nodes.values)
    with pytest.raises(ValueError, match="found 588 stations at 19 latitudes and 31 longitudes, expected all 589"):
        datasets.nodes_to_grid(nodes[:, 1:])
    with pytest.raises(ValueError, match="latitude by latitude"):
        datasets.nodes_to_grid(nodes[:, np.random.default_rng(0).permutation(589)])
    with pytest.raises(ValueError, match="expected lat over station"):
        datasets.nodes_to_grid(nodes.drop_vars("lat"))
    with pytest.raises(ValueError, match="whole|expected all"):
        datasets.nodes_to_grid(loaded["irish_wind"])


# --- the check of a series ------------------------------------------------------------------------------------


def small_series(**changes):
    """Three days at two stations, with one gap; `changes` replace coordinates."""
    coords = {
        "time": pd.date_range("2020-01-01", periods=3).to_numpy(),
        "station": ["A", "B"],
        "lat": ("station", [53.0, 54.0], {"units": "degrees_north"}),
        "lon": ("station", [-8.0, 352.5], {"units": "degrees_east"}),
    } | changes
    coords = {key: value for key, value in coords.items() if value is not None}
    values = [[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]]
    return xr.DataArray(values, coords, ("time", "station"), "wind", {"units": "m s-1", "standard_name": "wind_speed"})


def test_check_series_returns_a_good_series():
    series = small_series()
    assert datasets.check_series(series).identical(series)
    assert datasets.check_series(series.to_dataset()).identical(series.to_dataset())
    assert datasets.check_series(series.isel(station=[0])).sizes["station"] == 1  # one station is allowed
    assert datasets.check_series(series.isel(time=[0])).sizes["time"] == 1
    assert datasets.check_series(series.T).identical(series)  # the order of the dims is put right
    assert datasets.check_series(series, units="m s-1").identical(series)
    counted = small_series(time=np.arange(3))  # numbered steps, as in simulated series
    assert datasets.check_series(counted).identical(counted)


DAYS = pd.date_range("2020-01-01", periods=3).to_numpy()
BAD_SERIES = {
    "unsorted": (small_series(time=DAYS[[0, 2, 1]]), "found time 2020-01-02.* after 2020-01-03"),
    "repeated time": (small_series(time=DAYS[[0, 1, 1]]), "found time 2020-01-02.* more than once"),
    "missing time": (small_series(time=np.array([DAYS[0], DAYS[1], np.datetime64("NaT")])), "missing time stamp"),
    "no times": (small_series(time=None), "no coordinate 'time'"),
    "repeated station": (small_series(station=["A", "A"]), "found station A more than once"),
    "impossible lat": (small_series(lat=("station", [53.0, 123.0])), "found lat 123.0, expected -90 to 90"),
    "impossible lon": (small_series(lon=("station", [-181.0, 0.0])), "found lon -181.0, expected -180 to 360"),
    "missing lat": (small_series(lat=("station", [53.0, np.nan])), "found lat nan"),
    "no lat": (small_series(lat=None), "no coordinate 'lat'"),
    "lat over time": (small_series(lat=("time", [1.0, 2.0, 3.0])), "no coordinate 'lat' over station"),
    "lat in metres": (small_series(lat=("station", [53.0, 54.0], {"units": "m"})), "found lat in 'm'"),
    "no units": (small_series().drop_attrs(), "found units None"),
    "empty units": (small_series().assign_attrs(units=" "), "found units ' '"),
    "wrong units": (small_series().assign_attrs(units="degC"), "found units 'degC', expected 'm s-1'"),
    "kelvin as Celsius": (
        (small_series() + 280).assign_attrs(units="degC", standard_name="air_temperature"),
        "no value below 150 in degC.*kelvin",
    ),
    "no station": (small_series().isel(station=[]), "at least one time and one station"),
    "no time step": (small_series().isel(time=[]), "at least one time and one station"),
    "a grid": (datasets.load_reanalysis("europe")["air_temperature"][:2], r"expected \('time', 'station'\)"),
    "infinite": (small_series() / xr.zeros_like(small_series()).assign_attrs(units="m s-1"), "infinite values"),
    "empty dataset": (xr.Dataset(), "without data variables"),
}


@pytest.mark.parametrize("case", BAD_SERIES)
def test_check_series_names_what_is_wrong(case):
    series, message = BAD_SERIES[case]
    with pytest.raises(ValueError, match=f"^wind.*{message}"):
        datasets.check_series(series, name="wind")


def test_check_series_names_the_variable_of_a_dataset():
    series = small_series().to_dataset().assign(gust=small_series().drop_attrs())
    with pytest.raises(ValueError, match=r"^data\['gust'\]: found units None"):
        datasets.check_series(series, name="data")


def test_check_series_wants_the_units_asked_for():
    with pytest.raises(ValueError, match="found units 'm s-1', expected 'knot'"):
        datasets.check_series(small_series(), units="knot")


@pytest.mark.parametrize(
    ("series", "found"),
    [
        (np.zeros((3, 2)), "ndarray"),
        (None, "NoneType"),
        (small_series().to_series(), "Series"),
        (small_series().astype(str), "dtype <U"),
        (small_series(lat=("station", ["53", "54"])), "lat of dtype <U"),
    ],
)
def test_check_series_wants_xarray_of_numbers(series, found):
    with pytest.raises(TypeError, match=f"^series: found {found}"):
        datasets.check_series(series)


def test_check_series_refuses_times_as_text():
    series = datasets.load_irish_wind().wind_speed.isel(time=slice(3))
    with pytest.raises(TypeError, match="series: found times as text such as '1961-01-01.*to_datetime"):
        datasets.check_series(series.assign_coords(time=series.time.values.astype(str)))


# --- a store in the layout of the public archives of ERA5 -----------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Four days of the globe as the public archives keep it: (dataset as written, folder that holds era5.zarr)."""
    rng = np.random.default_rng(0)
    lat, lon = np.arange(90, -90.1, -2.5), np.arange(0, 360, 2.5)
    times = pd.date_range("2019-03-01", periods=96, freq="h")
    shape = (96, lat.size, lon.size)
    units = {
        "2m_temperature": ("K", 270.0, 20.0),
        "10m_u_component_of_wind": ("m s**-1", 0.0, 5.0),
        "10m_v_component_of_wind": ("m s**-1", 0.0, 5.0),
        "total_precipitation": ("m", 0.0, 1e-3),
    }
    fields = {
        name: (("time", "latitude", "longitude"), rng.normal(mean, spread, shape).astype(np.float32), {"units": unit})
        for name, (unit, mean, spread) in units.items()
    }
    written = xr.Dataset(fields, {"time": times, "latitude": lat, "longitude": lon})
    written["temperature"] = written["2m_temperature"].expand_dims(level=[850]).isel(time=slice(0, 96, 1))
    written["soil_type"] = written["2m_temperature"].isel(time=0, drop=True)
    written["unknown_units"] = written["2m_temperature"].drop_attrs()
    folder = tmp_path_factory.mktemp("archive")
    hourly = {name: {"chunks": (1, lat.size, lon.size)} for name in (*units, "unknown_units")}
    written.to_zarr(folder / "era5.zarr", zarr_format=2, consolidated=True, encoding=hourly)
    return written, folder


@pytest.fixture(scope="module")
def served(archive):
    """The same over http on this machine: (URL, list of the paths that were asked for)."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=archive[1]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/era5.zarr", asked
    server.shutdown()
    server.server_close()


def cut(written, name, south, north, west, east):
    """The cells of a box by another way than the package's: move the globe, then select."""
    moved = written[name].assign_coords(longitude=(written["longitude"] - west) % 360 + west).sortby("longitude")
    return moved.sortby("latitude").sel(latitude=slice(south, north), longitude=slice(west, east))


@pytest.mark.parametrize(
    "region",
    [
        (50, 60, 5, 20),
        (50, 60, -10, 5),  # across Greenwich
        (-10, 10, 170, 200),  # across the date line
        (48.9, 60.1, -11, 2.4),  # borders between cells
        (-90, 90, -180, 180),  # 180 degrees is there twice, and taken once
        (-90, -90, 0, 360),
        (50, 50, -2.5, -2.5),  # one cell
        None,
    ],
)
def test_era5_store_is_what_was_written(archive, region):
    written, folder = archive
    variables = ["2m_temperature", "10m_u_component_of_wind", "total_precipitation"]
    field = datasets.open_era5(folder / "era5.zarr", variables, region, ("2019-03-02", "2019-03-03"))
    south, north, west, east = region or (-90, 90, -180, 180)
    assert dict(field.dtypes) == dict.fromkeys(["air_temperature", "eastward_wind", "precip"], np.float32)
    for old, new, factor, offset, units in [
        ("2m_temperature", "air_temperature", 1, -273.15, "degC"),
        ("10m_u_component_of_wind", "eastward_wind", 1, 0, "m s-1"),
        ("total_precipitation", "precip", 1000, 0, "mm"),
    ]:
        expected = cut(written, old, south, north, west, east).sel(time=slice("2019-03-02", "2019-03-03"))
        assert field[new].dims == ("time", "lat", "lon")
        assert field[new].attrs["units"] == units
        np.testing.assert_array_equal(field["lon"], expected["longitude"])
        np.testing.assert_array_equal(field["lat"], expected["latitude"])
        np.testing.assert_array_equal(field["time"], expected["time"])
        np.testing.assert_allclose(field[new].values, expected.values * np.float64(factor) + offset, rtol=0, atol=2e-5)
    assert (np.diff(field["lat"]) > 0).all() and (np.diff(field["lon"]) > 0).all()
    assert field["lat"].attrs["units"] == "degrees_north" and field["lon"].attrs["units"] == "degrees_east"


@pytest.mark.parametrize("order", [("time", "longitude", "latitude"), ("longitude", "latitude", "time")])
def test_era5_store_may_have_its_axes_in_another_order(archive, tmp_path, order):
    written = archive[0][["2m_temperature"]].isel(time=slice(0, 5)).transpose(*order).sortby("latitude")
    moved = written.assign_coords(longitude=(written["longitude"] + 180) % 360 - 180).sortby("longitude")
    moved.to_zarr(tmp_path / "other.zarr", zarr_format=2)
    found = datasets.open_era5(tmp_path / "other.zarr", "2m_temperature", (50, 60, -10, 5))
    expected = datasets.open_era5(archive[1] / "era5.zarr", "2m_temperature", (50, 60, -10, 5))
    xr.testing.assert_equal(found, expected.isel(time=slice(0, 5)))


def test_era5_store_over_http_is_read_when_it_is_computed(archive, served):
    url, asked = served
    asked.clear()
    field = datasets.open_era5(url, ["2m_temperature", "10m_v_component_of_wind"], (50, 60, -10, 5), chunk=6)
    nodes = datasets.grid_to_nodes(field)
    part = (nodes["air_temperature"] * 2).isel(time=slice(30, 41))
    assert not any("2m_temperature" in path or "wind" in path for path in asked), "only the coordinates were read"
    assert 0 < len(asked) < 15
    assert isinstance(nodes["air_temperature"].data, da.Array)
    assert nodes["air_temperature"].chunksizes == {"time": (6,) * 16, "station": (5 * 7,)}
    asked.clear()
    found = part.compute()
    read = sorted(int(path.split("/")[-1].split(".")[0]) for path in asked)
    assert read == list(range(30, 42)), "the tasks of 6 hours that were asked for, each once, of this variable alone"
    local = datasets.grid_to_nodes(datasets.open_era5(archive[1] / "era5.zarr", "2m_temperature", (50, 60, -10, 5)))
    xr.testing.assert_equal(found, 2 * local["air_temperature"].isel(time=slice(30, 41)))
    asked.clear()
    part.compute()
    assert len(asked) == 12, "nothing is kept that nobody asked to keep"


def test_era5_store_becomes_a_series_of_stations(archive):
    field = datasets.open_era5(str(archive[1] / "era5.zarr"), "2m_temperature", (50, 60, -10, 5), ("2019-03-01", None))
    series = datasets.check_series(datasets.grid_to_nodes(field)["air_temperature"])
    assert series.shape == (96, 35)
    assert float(series.mean()) < 100, "degrees Celsius"
    back = datasets.nodes_to_grid(datasets.grid_to_nodes(field))
    xr.testing.assert_equal(back, field)


def test_era5_store_without_a_chunk_has_missing_values(archive, tmp_path):
    shutil.copytree(archive[1] / "era5.zarr", tmp_path / "era5.zarr")
    next((tmp_path / "era5.zarr" / "2m_temperature").glob("3.*")).unlink()
    field = datasets.open_era5(tmp_path / "era5.zarr", "2m_temperature", (50, 60, -10, 5))["air_temperature"]
    assert field.isnull().any(("lat", "lon")).values.tolist() == [step == 3 for step in range(96)]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"variables": "2m_temprature"}, ["variables", "2m_temprature", "'2m_temperature'"]),
        ({"variables": "air_temperature"}, ["variables", "air_temperature", "'2m_temperature'"]),
        ({"variables": []}, ["variables", "at least one"]),
        ({"variables": ["2m_temperature"] * 2}, ["variables", "each once"]),
        ({"variables": [3]}, ["variables", "3"]),
        ({"variables": None}, ["variables", "None"]),
        ({"variables": "temperature"}, ["variables", "level", "no levels"]),
        ({"variables": "soil_type"}, ["variables", "soil_type", "time"]),
        ({"variables": "unknown_units"}, ["variables", "units", "unknown_units"]),
        ({"region": (60, 50, -10, 5)}, ["region", "60", "south, north, west, east"]),
        ({"region": (50, 60, 350, 5)}, ["region", "350", "west is negative"]),
        ({"region": (50, 100, 0, 5)}, ["region", "100"]),
        ({"region": (50, 60, -190, 5)}, ["region", "-190"]),
        ({"region": (50, 60, -180, 360)}, ["region", "360"]),
        ({"region": (50, 60)}, ["region", "(50, 60)", "south, north, west, east"]),
        ({"region": "europe"}, ["region", "europe", "south, north, west, east"]),
        ({"region": (float("nan"), 60, 0, 5)}, ["region", "nan"]),
        ({"region": (51, 52, 0, 5)}, ["region", "no cell", "(51, 52, 0, 5)", "-90 to 90", "0 to 357.5"]),
        ({"time": ("2018", "2018")}, ["time", "2018", "2019-03-01", "2019-03-04"]),
        ({"time": ("2019-03-03", "2019-03-01")}, ["time", "no step"]),
        ({"time": "2019-03"}, ["time", "2019-03", "(first, last)"]),
        ({"time": slice("2019-03-01", "2019-03-03", 2)}, ["time", "2)", "(first, last)"]),
        ({"time": ("2019", "2019", "2019")}, ["time", "(first, last)"]),
        ({"time": ("spring", "summer")}, ["time", "spring", "(first, last)"]),
        ({"chunk": 0}, ["chunk", "at least 1"]),
        ({"chunk": 1.5}, ["chunk", "1.5"]),
    ],
)
def test_era5_store_errors_say_what_is_there(archive, options, parts):
    arguments = {"variables": "2m_temperature", "region": (50, 60, -10, 5), "time": None} | options
    with pytest.raises(ValueError) as error:
        datasets.open_era5(archive[1] / "era5.zarr", **arguments)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_era5_store_that_is_none(archive, served, tmp_path):
    url, _ = served
    for store, kind, part in [
        (tmp_path / "nowhere.zarr", FileNotFoundError, "expected a zarr store, found none at"),
        (tmp_path, FileNotFoundError, "found none at"),
        (url + "x", FileNotFoundError, "found none at"),
        ("nowhere://era5.zarr", ValueError, "nowhere"),
        ("http://127.0.0.1:9/era5.zarr", ConnectionError, "could not read"),
        (archive[0], TypeError, "found Dataset, expected a path or a URL"),
        (3, TypeError, "found int"),
    ]:
        with pytest.raises(kind, match="store: ") as error:
            datasets.open_era5(store, "2m_temperature")
        assert part in str(error.value)


@pytest.mark.parametrize("change", [lambda ds: ds.rename(latitude="y"), lambda ds: ds.drop_vars("time")])
def test_era5_store_of_another_layout(archive, tmp_path, change):
    change(archive[0][["2m_temperature"]].isel(time=slice(0, 2))).to_zarr(tmp_path / "other.zarr", zarr_format=2)
    with pytest.raises(ValueError, match=r"store: .*expected time, latitude and longitude"):
        datasets.open_era5(tmp_path / "other.zarr", "2m_temperature")


def test_era5_store_with_times_in_disorder(archive, tmp_path):
    archive[0][["2m_temperature"]].isel(time=[0, 2, 1]).to_zarr(tmp_path / "other.zarr", zarr_format=2)
    with pytest.raises(ValueError, match="store: expected times in ascending order"):
        datasets.open_era5(tmp_path / "other.zarr", "2m_temperature")


@pytest.mark.parametrize("missing", ["zarr", "dask", "aiohttp"])
def test_era5_store_names_the_extra_that_reads_it(served, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'{missing}.*pip install "stgcn-lab\[scale\]"'):
        datasets.open_era5(served[0], "2m_temperature")
