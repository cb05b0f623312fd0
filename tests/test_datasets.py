"""Embedded data: what is in the files, the traps of their sources, damage, grids as nodes, the check of a series."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

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
    with xr.open_dataset(tmp_path / "wind.nc", engine="netcdf4") as saved:
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
    "missing time": (small_series(time=np.array([DAYS[0], DAYS[1], np.datetime64("NaT", "ns")])), "missing time stamp"),
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
