"""NCEP/NCAR and GHCN-Daily: files in the layout of NOAA's servers, served on this machine, well and badly."""

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from faults import RESET, TRUNCATED, WRONG, Answer, FaultyServer, nobody, slow, status
from hypothesis import given
from hypothesis import strategies as st

from stgcn_lab import datasets

LAT, LON = np.arange(90, -91, -2.5), np.arange(0, 360, 2.5)
MONTHLY = "/Monthlies/surface/air.mon.mean.nc"
FAULTS = [TRUNCATED, RESET, status(429), status(429, retry_after=0), status(500), status(503), slow(3.0)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STGCN_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def haste(fault):
    """Patience of milliseconds; a time-out that a busy machine does not run into by itself."""
    return {"backoff": 0.001, "timeout": 0.3 if fault.wait else 20.0}


def kept(cache):
    """Names of all files in the cache, whole or half."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


# --- the NCEP/NCAR reanalysis ---------------------------------------------------------------------------------


def stored(times, name="air", units="degC", values=None, seed=0):
    """A field as NOAA's Physical Sciences Laboratory stores it: north to south, from Greenwich, hours since 1800."""
    if values is None:
        values = np.random.default_rng(seed).normal(10, 9, (len(times), LAT.size, LON.size))
    hours = (pd.DatetimeIndex(times) - pd.Timestamp("1800-01-01")) / pd.Timedelta("1h")
    attrs = {
        "long_name": "Monthly mean air temperature",
        "units": units,
        "missing_value": np.float32(-9.96921e36),
        "var_desc": "Air temperature",
        "level_desc": "Surface",
        "statistic": "Mean",
    }
    return xr.Dataset(
        {name: (("time", "lat", "lon"), np.asarray(values, np.float32), attrs)},
        {
            "lat": ("lat", LAT.astype(np.float32), {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("lon", LON.astype(np.float32), {"units": "degrees_east", "standard_name": "longitude"}),
            "time": ("time", np.asarray(hours), {"units": "hours since 1800-01-01 00:00:0.0", "delta_t": "0000-01-00"}),
        },
        {"Conventions": "COARDS", "title": "Monthly NCEP/DOE Reanalysis", "platform": "Model"},
    )


def as_file(raw, tmp_path, layout="NETCDF4_CLASSIC", encoding=None):
    path = tmp_path / "made.nc"
    raw.to_netcdf(path, format=layout, engine="netcdf4", unlimited_dims=["time"], encoding=encoding)
    return path.read_bytes()


@pytest.fixture(scope="module")
def months():
    return stored(pd.date_range("1948-01-01", periods=12, freq="MS"))


@pytest.fixture(scope="module")
def monthly(months, tmp_path_factory):
    return as_file(months, tmp_path_factory.mktemp("ncep"))


@pytest.fixture
def server(monthly):
    with FaultyServer({MONTHLY: monthly}) as running:
        yield running


def cut(raw, name, south, north, west, east):
    """The cells of a box by another way than the package's: move the globe, then select."""
    moved = raw.assign_coords(lon=(raw["lon"] - west) % 360 + west).sortby(["lat", "lon"])
    return moved[name].sel(lat=slice(south, north), lon=slice(west, east))


@pytest.mark.parametrize("region", datasets.REGIONS)
def test_ncep_is_the_embedded_reanalysis_where_both_are(tmp_path, region):
    embedded = datasets.load_reanalysis(region).isel(time=slice(0, 14))
    globe = stored(embedded["time"].values, seed=1)
    places = {"lat": embedded["lat"].values, "lon": embedded["lon"].values % 360}
    globe["air"].loc[places] = embedded["air_temperature"].transpose("time", "lat", "lon").values.astype(np.float32)
    box = (embedded["lat"].min(), embedded["lat"].max(), embedded["lon"].min(), embedded["lon"].max())
    with FaultyServer({MONTHLY: as_file(globe, tmp_path)}) as server:
        found = datasets.open_ncep(region=box, url=server.url())
        again = datasets.open_ncep("air_temperature", box, ("1948-03", "1949-01"), url=server.url())
        assert server.count() == 1, "the second call reads the cache"
    xr.testing.assert_allclose(found, embedded, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found["lat"], embedded["lat"])
    np.testing.assert_array_equal(found["lon"], embedded["lon"])
    xr.testing.assert_identical(again, found.isel(time=slice(2, 13)))
    assert found["air_temperature"].attrs["units"] == "degC" and found["air_temperature"].dtype == np.float64
    datasets.check_series(datasets.grid_to_nodes(found)["air_temperature"])


@pytest.mark.parametrize(
    "region",
    [
        (50, 60, 5, 20),
        (50, 60, -10, 5),  # across Greenwich, where the file begins
        (-10, 10, 170, 200),  # across the date line
        (48.9, 60.1, -11, 2.4),  # borders between cells
        (-90, 90, -180, 180),
        (50, 50, -2.5, -2.5),  # one cell
        None,
    ],
)
@pytest.mark.parametrize("subset", [False, True])
def test_ncep_regions(server, cutting, months, region, subset):
    url = (cutting if subset else server).url()
    found = datasets.open_ncep(region=region, url=url, subset=subset)["air_temperature"]
    expected = cut(months, "air", *(region or (-90, 90, -180, 179)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["lat"], expected["lat"])
    np.testing.assert_array_equal(found["lon"], expected["lon"])
    assert (np.diff(found["lat"]) > 0).all() and (np.diff(found["lon"]) > 0).all()
    assert found["time"].values[[0, -1]].astype("datetime64[D]").astype(str).tolist() == ["1948-01-01", "1948-12-01"]


@pytest.mark.parametrize("layout", ["NETCDF3_CLASSIC", "NETCDF4_CLASSIC"])
def test_ncep_days_come_as_a_file_a_year_packed_and_in_kelvin(tmp_path, layout):
    packed = {"air": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 512.81, "_FillValue": None}}
    contents, whole = {}, []
    for year in (1979, 1980, 1981):
        raw = stored(pd.date_range(f"{year}-01-01", f"{year}-12-31")[:40], units="degK", seed=year)
        raw["air"] = (raw["air"] + 270).assign_attrs(raw["air"].attrs | {"missing_value": np.int16(32766)})
        contents[f"/Dailies/surface/air.sig995.{year}.nc"] = as_file(raw, tmp_path, layout, packed)
        whole.append(raw)
    with FaultyServer(contents) as server:
        found = datasets.open_ncep("air_temperature", (35, 45, -110, -100), ("1979-01-20", "1980"), frequency="daily",
                                   url=server.url())  # fmt: skip
        assert sorted(request.path for request in server.requests) == sorted(contents)[:2]
        again = datasets.open_ncep("air_temperature", None, slice("1980", "1980"), frequency="daily", url=server.url())
        assert server.count() == 2 and again.sizes == {"time": 40, "lat": 73, "lon": 144}
    expected = cut(xr.concat(whole[:2], "time"), "air", 35, 45, -110, -100)[19:] - 273.15
    np.testing.assert_allclose(found["air_temperature"], expected, rtol=0, atol=0.0051)
    assert str(found["time"].values[0])[:10] == "1979-01-20" and found.sizes["time"] == 61
    assert found["air_temperature"].attrs["units"] == "degC"


@pytest.mark.parametrize(
    ("variable", "file", "units", "factor", "ours"),
    [
        ("air_pressure_at_mean_sea_level", "slp", "millibars", 1, "hPa"),
        ("air_pressure_at_mean_sea_level", "slp", "Pascals", 0.01, "hPa"),
        ("eastward_wind", "uwnd", "m/s", 1, "m s-1"),
        ("northward_wind", "vwnd", "m/s", 1, "m s-1"),
        ("relative_humidity", "rhum", "%", 1, "%"),
    ],
)
def test_ncep_variables_have_our_names_and_units(tmp_path, variable, file, units, factor, ours):
    raw = stored(["1999-01-01", "1999-02-01"], file, units)
    with FaultyServer({f"/Monthlies/surface/{file}.mon.mean.nc": as_file(raw, tmp_path)}) as server:
        found = datasets.open_ncep(variable, (0, 10, 0, 10), url=server.url() + "/")
    assert list(found.data_vars) == [variable] and found[variable].attrs["units"] == ours
    np.testing.assert_allclose(found[variable], factor * cut(raw, file, 0, 10, 0, 10), rtol=1e-6)


def test_ncep_missing_values_are_nan(tmp_path):
    raw = stored(["1999-01-01", "1999-02-01"])
    raw["air"][0, 3, 4] = raw["air"].attrs["missing_value"]
    with FaultyServer({MONTHLY: as_file(raw, tmp_path)}) as server:
        found = datasets.open_ncep(url=server.url())["air_temperature"]
    assert found.isnull().sum() == 1 and np.isnan(found.sel(time="1999-01-01", lat=82.5, lon=10))


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_ncep_is_asked_for_again(server, cache, fault):
    server.script(MONTHLY, fault, fault)
    found = datasets.open_ncep(region=(50, 60, 0, 10), url=server.url(), **haste(fault))
    assert server.count() >= 3 and found.sizes == {"time": 12, "lat": 5, "lon": 5}
    assert kept(cache) == ["air.mon.mean.nc"]
    server.stop()  # no network
    xr.testing.assert_identical(datasets.open_ncep(region=(50, 60, 0, 10), url=server.url()), found)


@pytest.mark.parametrize(
    ("fault", "kind", "asked"),
    [(status(404), FileNotFoundError, 1), (status(403), PermissionError, 1)]
    + [(f, ConnectionError, 2) for f in FAULTS],
    ids=repr,
)
def test_ncep_that_does_not_come_leaves_nothing(server, cache, fault, kind, asked):
    server.always(MONTHLY, fault)
    with pytest.raises(kind, match=re.escape(server.url(MONTHLY))):
        datasets.open_ncep(url=server.url(), retries=1, **haste(fault))
    assert server.count() == asked and kept(cache) == []


def test_ncep_without_network_says_so(cache):
    with pytest.raises(ConnectionError, match="Is there a network"):
        datasets.open_ncep(url=nobody(), retries=1, backoff=0)
    assert kept(cache) == []


@pytest.mark.parametrize(
    "fault",
    [
        WRONG,
        Answer(body=b""),
        Answer(sent=0.9, length=False),  # broken off, and nobody said how long it would be
        Answer(sent=0.3, length=False),
        Answer(body=b"CDF\x01" + bytes(60)),
    ],
    ids=["sign-in page", "empty", "nine tenths", "three tenths", "zeros"],
)
def test_ncep_wrong_content_is_refused_and_not_kept(server, cache, fault):
    server.script(MONTHLY, fault)
    with pytest.raises(ValueError, match="expected the NetCDF file of that name.*removed from the cache"):
        datasets.open_ncep(url=server.url())
    assert kept(cache) == []
    assert datasets.open_ncep(url=server.url()).sizes["time"] == 12
    assert server.count() == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.rename(air="slp"), "expected the variable 'air' over time, lat and lon, found.*slp"),
        (lambda raw: raw.isel(lat=0, drop=True), "over time, lat and lon"),
        (lambda raw: raw.assign(air=raw["air"].assign_attrs(units="degF")), "expected units among.*found 'degF'"),
        (lambda raw: raw.assign_coords(time=raw["time"] + 24), "expected the first of each month"),
        (lambda raw: raw.assign_coords(time=raw["time"].drop_attrs()), "expected at least one date"),
        (lambda raw: raw.isel(time=slice(0, 0)), "expected at least one date"),
        (lambda raw: raw.drop_vars("time"), "expected at least one date"),
        (lambda raw: raw.drop_vars(["lat", "lon"]), "expected coordinates, found none for .'lat', 'lon'"),
    ],
)
def test_ncep_file_of_something_else_is_refused_and_not_kept(months, tmp_path, cache, change, message):
    with (
        FaultyServer({MONTHLY: as_file(change(months.isel(time=slice(0, 2))), tmp_path)}) as server,
        pytest.raises(ValueError, match=message),
    ):
        datasets.open_ncep(url=server.url())
    assert kept(cache) == []


def test_ncep_file_of_another_year_is_refused(tmp_path, cache):
    content = as_file(stored(pd.date_range("1980-12-30", periods=3), units="degK"), tmp_path)
    with (
        FaultyServer({"/Dailies/surface/air.sig995.1980.nc": content}) as server,
        pytest.raises(ValueError, match="expected days of 1980 alone, found 1980-12-30.* to 1981-01-01"),
    ):
        datasets.open_ncep(time=("1980", "1980"), frequency="daily", url=server.url())
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variable": "air"}, "variable: expected one of.*'air_temperature'.*found 'air'"),
        ({"variable": None}, "variable: expected"),
        ({"frequency": "hourly"}, "frequency: expected 'monthly' or 'daily', found 'hourly'"),
        ({"region": (60, 50, 0, 10)}, "region: found"),
        ({"region": (50, 60, 350, 10)}, "region: found"),
        ({"region": "europe"}, "region: found 'europe'"),
        ({"region": (51, 52, 0, 10)}, "no cell"),
        ({"frequency": "daily"}, "time: expected .first, last.*found None"),
        ({"time": "1980"}, "time: found '1980', expected"),
        ({"frequency": "daily", "time": ("1981", "1980")}, "time: found no step"),
        ({"time": ("1940", "1947")}, "time: found no step.*1948-01-01"),
        ({"time": ("spring", "1950")}, "time: found"),
        ({"time": slice("1948", "1949", 2)}, "time: found"),
        ({"retries": -1}, "retries: expected"),
    ],
)
def test_ncep_wrong_arguments_ask_for_nothing(server, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.open_ncep(**options, url=server.url())
    assert server.count() == 0


def test_ncep_unknown_options(server):
    with pytest.raises(TypeError, match="patience"):
        datasets.open_ncep(url=server.url(), patience=3)


def test_ncep_times_that_are_not_there(server):
    with pytest.raises(ValueError, match="time: found no step in .*1948-12-01"):
        datasets.open_ncep(time=("1950", "1951"), url=server.url())


# The same from THREDDS' subset service, which answers with a file of the part that was asked for.


def subsets(raw, tmp_path):
    """A function that cuts a dataset as the service does: cells within the borders, counted from the west."""

    def answer(request):
        asked = {key: values[0] for key, values in request.query.items()}
        assert set(asked) == {
            "var",
            "south",
            "north",
            "west",
            "east",
            "horizStride",
            "time_start",
            "time_end",
            "accept",
        }
        south, north, west, east = (float(asked[side]) for side in ("south", "north", "west", "east"))
        moved = raw.assign_coords(lon=(raw["lon"] - west) % 360 + west).sortby("lon")
        hours = [(pd.Timestamp(asked[end]).tz_localize(None) - pd.Timestamp("1800")) / pd.Timedelta("1h")
                 for end in ("time_start", "time_end")]  # fmt: skip
        return as_file(moved.sel(lat=slice(north, south), lon=slice(west, east), time=slice(*hours)), tmp_path)

    return answer


@pytest.fixture
def cutting(months, tmp_path):
    with FaultyServer({MONTHLY: subsets(months, tmp_path)}) as running:
        yield running


def test_ncep_subset_is_cut_by_the_server_and_kept(cutting, server, months, cache):
    options = {"region": (50, 60, -10, 20), "time": ("1948-03-15", "1948-08"), "url": cutting.url(), "subset": True}
    found = datasets.open_ncep(**options)
    assert {key: value[0] for key, value in cutting.requests[0].query.items()} == {
        "var": "air",
        "south": "48.75",
        "north": "61.25",
        "west": "-11.25",
        "east": "21.25",
        "horizStride": "1",
        "time_start": "1948-03-15T00:00:00Z",
        "time_end": "1948-08-31T23:00:00Z",
        "accept": "netcdf4",
    }
    assert found.sizes == {"time": 5, "lat": 5, "lon": 13}
    xr.testing.assert_identical(datasets.open_ncep(**options), found)
    assert cutting.count() == 1
    whole = datasets.open_ncep(**options | {"url": server.url(), "subset": False})
    xr.testing.assert_identical(found.drop_attrs(), whole.drop_attrs())
    datasets.open_ncep(**options | {"time": ("1948-03-15", "1948-09")})
    datasets.open_ncep(**options | {"region": (50, 60, -10, 22.5)})
    assert cutting.count() == 3, "another part is another file"


def test_ncep_subset_of_days_is_a_request_a_year(tmp_path):
    years = {year: stored(pd.date_range(f"{year}-01-01", f"{year}-12-31")[-40:], units="degK") for year in (1979, 1980)}
    with FaultyServer(
        {f"/Dailies/surface/air.sig995.{year}.nc": subsets(raw, tmp_path) for year, raw in years.items()}
    ) as server:
        options = {"region": (0, 10, 170, 190), "time": ("1979-12-30", "1980-12-02"), "frequency": "daily"}
        found = datasets.open_ncep(**options, url=server.url(), subset=True)
        ends = [(request.query["time_start"][0][:10], request.query["time_end"][0][:10]) for request in server.requests]
    assert ends == [("1979-12-30", "1979-12-31"), ("1980-01-01", "1980-12-02")]
    assert str(found["time"].values[0])[:10] == "1979-12-30" and str(found["time"].values[-1])[:10] == "1980-12-02"


@pytest.mark.parametrize("fault", [*FAULTS, Answer(sent=0.6, reset=True)], ids=repr)
def test_ncep_subset_is_asked_for_again(cutting, cache, fault):
    cutting.script(MONTHLY, fault, fault)
    found = datasets.open_ncep(region=(50, 60, 5, 20), url=cutting.url(), subset=True, **haste(fault))
    assert cutting.count() >= 3 and len(kept(cache)) == 1
    cutting.stop()
    again = datasets.open_ncep(region=(50, 60, 5, 20), url=cutting.url(), subset=True)
    xr.testing.assert_identical(again, found)


def test_ncep_subset_that_broke_off_is_refused(cutting, cache):
    cutting.script(MONTHLY, Answer(sent=0.7, length=False), status(400, "Variable not found"))
    with pytest.raises(ValueError, match="expected the NetCDF file.*removed from the cache"):
        datasets.open_ncep(region=(50, 60, 5, 20), url=cutting.url(), subset=True)
    with pytest.raises(ValueError, match="answered 400 Bad Request: Variable not found"):
        datasets.open_ncep(region=(50, 60, 5, 20), url=cutting.url(), subset=True)
    assert kept(cache) == []


# --- GHCN-Daily -----------------------------------------------------------------------------------------------

# Lines as NOAA publishes them.
STATIONS = """\
ACW00011604  17.1167  -61.7833   10.1    ST JOHNS COOLIDGE FLD
ASN00001011 -16.0497  124.9500 -999.9    PANTA DOWNS
AE000041196  25.3330   55.5170   34.0    SHARJAH INTER. AIRP            GSN     41196
USW00023062  39.7633 -104.8694 1611.2 CO DENVER-STAPLETON
USW00094846  41.9603  -87.9317  204.8 IL CHICAGO OHARE INTL AP                  72530
"""
INVENTORY = """\
ACW00011604  17.1167  -61.7833 TMAX 1949 1949
ACW00011604  17.1167  -61.7833 TMIN 1949 1949
ACW00011604  17.1167  -61.7833 PRCP 1949 1949
ASN00001011 -16.0497  124.9500 PRCP 1966 1969
USW00023062  39.7633 -104.8694 TMAX 1948 2005
USW00023062  39.7633 -104.8694 TMIN 1950 2003
USW00023062  39.7633 -104.8694 WT01 1948 2005
USW00094846  41.9603  -87.9317 TMAX 1958 2026
USW00094846  41.9603  -87.9317 PRCP 1958 2026
"""
JANUARY_1949 = (
    "ACW00011604194901TMAX  289  X  289  X  283  X  283  X  289  X  289  X  278  X  267  X  272  X  278  X  267  X"
    "  278  X  267  X  267  X  278  X  267  X  267  X  272  X  272  X  272  X  278  X  272  X  267  X  267  X  267  X"
    "  278  X  272  X  272  X  272  X  272  X  272  X\n"
)
LIST = "/ghcnd-stations.txt"


def line(station, month, element, days):
    """A month in GHCN-Daily's fixed columns, from {day: (whole number, flags M, Q and S)}."""
    cells = (f"{days[day][0]:5d}{days[day][1]}" if day in days else "-9999   " for day in range(1, 32))
    return f"{station}{month.replace('-', '')}{element}{''.join(cells)}\n"


@pytest.fixture
def ghcn():
    contents = {LIST: STATIONS, "/ghcnd-inventory.txt": INVENTORY, "/all/ACW00011604.dly": JANUARY_1949}
    with FaultyServer(contents) as running:
        yield running


def test_ghcn_line_as_noaa_publishes_it(ghcn):
    found = datasets.load_ghcn(["ACW00011604"], "TMAX", url=ghcn.url())
    assert found["tmax"].shape == (31, 1) and found["tmax"].attrs["units"] == "degC"
    assert str(found["time"].values[0])[:10] == "1949-01-01"
    np.testing.assert_allclose(found["tmax"][:8, 0], [28.9, 28.9, 28.3, 28.3, 28.9, 28.9, 27.8, 26.7], atol=1e-12)
    place = found.isel(station=0)
    assert (place["lat"], place["lon"], place["elevation"]) == (17.1167, -61.7833, 10.1)
    assert (place["station"], place["name"]) == ("ACW00011604", "ST JOHNS COOLIDGE FLD")
    datasets.check_series(found)


def test_ghcn_flags_gaps_traces_and_the_ends_of_months(ghcn):
    """February of a leap year, a gap of a month, a flag of each kind; another element between."""
    ghcn.contents["/all/USW00023062.dly"] = "".join(
        [
            line(
                "USW00023062", "1952-02", "TMAX", {1: (-156, "  X"), 2: (200, " IX"), 3: (0, "L 0"), 29: (100, "   ")}
            ),
            line("USW00023062", "1952-02", "WT01", {2: (1, "  X")}),
            line("USW00023062", "1952-02", "PRCP", {1: (0, "T 0"), 2: (254, "  0"), 3: (9, " D0"), 4: (0, "P 6")}),
            line("USW00023062", "1952-04", "TMAX", {30: (211, "  X"), 31: (999, "  X")}),
        ]
    )
    ghcn.contents["/all/USW00094846.dly"] = line("USW00094846", "1952-03", "PRCP", {5: (12, "  0")})
    found = datasets.load_ghcn(["USW00094846", "USW00023062"], ("PRCP", "TMAX"), url=ghcn.url())
    assert list(found.data_vars) == ["precip", "tmax"] and found["precip"].attrs["units"] == "mm"
    assert found["station"].values.tolist() == ["USW00094846", "USW00023062"]
    assert found.sizes["time"] == 90 and str(found["time"].values[-1])[:10] == "1952-04-30"
    denver = found.sel(station="USW00023062")
    known = denver["tmax"].dropna("time")
    assert known["time"].dt.strftime("%m-%d").values.tolist() == ["02-01", "02-03", "02-29", "04-30"]
    np.testing.assert_allclose(known, [-15.6, 0, 10, 21.1])
    np.testing.assert_allclose(denver["precip"].dropna("time"), [0, 25.4, 0])
    assert found["tmax"].sel(station="USW00094846").isnull().all()
    part = datasets.load_ghcn(["USW00023062"], "TMAX", ("1952-02-02", "1952-02"), url=ghcn.url())
    np.testing.assert_array_equal(part["tmax"][[0, -1], 0], [0, 10])  # the 2nd is flagged, so it begins on the 3rd
    assert part.sizes["time"] == 27


@given(
    st.dictionaries(
        st.tuples(
            st.sampled_from(["TMAX", "TMIN", "PRCP", "SNOW"]),
            st.dates(pd.Timestamp("1890-01-01").date(), pd.Timestamp("1894-12-31").date()),
        ),  # fmt: skip
        st.tuples(st.integers(-999, 99999), st.sampled_from(" BDHKLOPTW"), st.sampled_from("     DGIKLMNORSTWXZ")),
        min_size=1,
        max_size=40,
    )
)
def test_ghcn_any_values_come_back(tmp_path_factory, measured):
    rows: dict = {}
    for (element, day), (value, m, q) in measured.items():
        rows.setdefault((f"{day:%Y-%m}", element), {})[day.day] = (value, f"{m}{q}0")
    good = {key: value for key, (value, _, q) in measured.items() if q == " "}
    content = "".join(line("USW00023062", month, element, days) for (month, element), days in rows.items())
    folder = tmp_path_factory.mktemp("ghcn")
    (folder / "ghcnd-stations.txt").write_text(STATIONS)
    (folder / "USW00023062.dly").write_text(content)
    load = {"variables": ("TMAX", "TMIN", "PRCP", "SNOW"), "url": nobody(), "folder": folder, "retries": 0}
    if not good:
        with pytest.raises(ValueError, match="^stations: expected values of TMAX.*found none"):
            datasets.load_ghcn("USW00023062", **load)
        return
    found = datasets.load_ghcn("USW00023062", **load)
    names = {"TMAX": ("tmax", 0.1), "TMIN": ("tmin", 0.1), "PRCP": ("precip", 0.1), "SNOW": ("snowfall", 1)}
    for (element, day), value in good.items():
        name, factor = names[element]
        assert abs(found[name].sel(time=str(day)).item() - factor * value) < 1e-9
    assert sum(int(variable.notnull().sum()) for variable in found.data_vars.values()) == len(good)
    assert str(min(day for _, day in good)) == str(found["time"].values[0])[:10]


def test_ghcn_stations_are_chosen(ghcn):
    table = datasets.ghcn_stations(url=ghcn.url())
    assert table["id"].tolist() == ["ACW00011604", "USW00023062", "USW00094846"]
    assert table.columns.tolist() == ["id", "lat", "lon", "elevation", "name", "first", "last"]
    both = datasets.ghcn_stations((35, 45, -110, -80), variables=("TMAX", "TMIN"), url=ghcn.url())
    assert both.iloc[0].to_dict() == {
        "id": "USW00023062",
        "lat": 39.7633,
        "lon": -104.8694,
        "elevation": 1611.2,
        "name": "DENVER-STAPLETON",
        "first": 1950,  # when the later of both elements began
        "last": 2003,
    }
    rain = datasets.ghcn_stations(variables="PRCP", url=ghcn.url())
    assert rain["id"].tolist() == ["ACW00011604", "ASN00001011", "USW00094846"] and np.isnan(rain["elevation"][1])
    assert datasets.ghcn_stations((35, 45, 200, 300), first=1950, url=ghcn.url())["id"].tolist() == ["USW00023062"]
    assert datasets.ghcn_stations(last=2020, url=ghcn.url())["id"].tolist() == ["USW00094846"]
    assert ghcn.count() == 2, "the list and the inventory, once"


def test_ghcn_table_of_stations_is_loaded_without_the_list(ghcn):
    table = datasets.ghcn_stations((10, 20, -70, -60), url=ghcn.url())
    ghcn.forget()
    found = datasets.load_ghcn(table, "TMAX", url=ghcn.url())
    assert [request.path for request in ghcn.requests] == ["/all/ACW00011604.dly"]
    assert found["tmax"].notnull().all()


def test_files_of_another_server_are_other_files(ghcn, server, tmp_path):
    datasets.load_ghcn("ACW00011604", "TMAX", url=ghcn.url())
    with FaultyServer({LIST: STATIONS, "/all/ACW00011604.dly": JANUARY_1949.replace("289", "300")}) as mirror:
        found = datasets.load_ghcn("ACW00011604", "TMAX", url=mirror.url())
        assert float(found["tmax"].max()) == 30
        own = {"url": mirror.url(), "folder": tmp_path / "own"}
        datasets.load_ghcn("ACW00011604", "TMAX", **own)
        mirror.stop()
        xr.testing.assert_identical(datasets.load_ghcn("ACW00011604", "TMAX", **own), found)
    assert kept(tmp_path / "own") == ["ACW00011604.dly", "ghcnd-stations.txt"]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_ghcn_is_asked_for_again_and_then_kept(ghcn, cache, fault):
    ghcn.script("*", fault, fault)
    found = datasets.load_ghcn(["ACW00011604"], "TMAX", url=ghcn.url(), **haste(fault))
    assert found["tmax"].notnull().all() and kept(cache) == ["ACW00011604.dly", "ghcnd-stations.txt"]
    assert ghcn.count() >= 4
    ghcn.stop()  # no network
    xr.testing.assert_identical(datasets.load_ghcn(["ACW00011604"], "TMAX", url=ghcn.url()), found)


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_ghcn_that_does_not_come_leaves_what_had_come(ghcn, cache, fault):
    ghcn.always("/all/ACW00011604.dly", fault)
    with pytest.raises(ConnectionError, match="ACW00011604.dly"):
        datasets.load_ghcn(["ACW00011604"], url=ghcn.url(), retries=1, **haste(fault))
    assert kept(cache) == ["ghcnd-stations.txt"]


def test_ghcn_station_without_a_file(ghcn):
    with pytest.raises(FileNotFoundError, match=r"USW00023062.dly.*404"):
        datasets.load_ghcn(["USW00023062"], url=ghcn.url())


def test_ghcn_without_network_says_so():
    with pytest.raises(ConnectionError, match="Is there a network"):
        datasets.ghcn_stations(url=nobody(), retries=0)


def test_ghcn_files_can_be_asked_for_anew(ghcn):
    datasets.load_ghcn(["ACW00011604"], "TMAX", url=ghcn.url())
    later = line("ACW00011604", "1949-02", "TMAX", {1: (250, "  X")})
    ghcn.contents["/all/ACW00011604.dly"] = JANUARY_1949 + later
    assert datasets.load_ghcn(["ACW00011604"], "TMAX", url=ghcn.url(), max_age=3600).sizes["time"] == 31
    assert datasets.load_ghcn(["ACW00011604"], "TMAX", url=ghcn.url(), max_age=0).sizes["time"] == 32
    ghcn.stop()
    with pytest.warns(UserWarning, match="hours ago is used"):
        assert datasets.load_ghcn(["ACW00011604"], "TMAX", url=ghcn.url(), max_age=0, retries=0).sizes["time"] == 32


@pytest.mark.parametrize(
    "content",
    [
        WRONG.body,
        b"",
        JANUARY_1949[:150].encode(),  # cut in the middle of a line
        JANUARY_1949.encode() + b"\n",
        JANUARY_1949.replace("ACW00011604", "ACW00011647").encode(),  # the file of another station
        (JANUARY_1949 * 2).encode(),
        JANUARY_1949.replace("  289", " 2 89", 1).encode(),
        JANUARY_1949.replace("194901", "194913").encode(),
        bytes(range(256)) * 3 + b"\n",
    ],
    ids=["sign-in page", "empty", "cut", "empty line", "other station", "twice", "no number", "month 13", "bytes"],
)
def test_ghcn_wrong_content_is_refused_and_not_kept(ghcn, cache, content):
    ghcn.script("/all/ACW00011604.dly", Answer(body=content))
    with pytest.raises(ValueError, match="ACW00011604.dly: expected .* GHCN-Daily.*removed from the cache"):
        datasets.load_ghcn(["ACW00011604"], "TMAX", url=ghcn.url())
    assert kept(cache) == ["ghcnd-stations.txt"]
    assert datasets.load_ghcn(["ACW00011604"], "TMAX", url=ghcn.url()).sizes["time"] == 31


def test_file_of_the_reader_is_not_deleted(ghcn, tmp_path):
    """NOAA gives several files the same name: what lies in a folder of the reader may be one of them."""
    mine = tmp_path / "mine" / "air.mon.mean.nc"
    mine.parent.mkdir()
    mine.write_bytes(b"temperature at 17 levels")
    with pytest.raises(ValueError, match=r"air\.mon\.mean\.nc.*it lies at .*if it is not yours, delete it"):
        datasets.open_ncep(folder=mine.parent, url=ghcn.url())
    assert mine.read_bytes() == b"temperature at 17 levels"


@pytest.mark.parametrize("path", [LIST, "/ghcnd-inventory.txt"])
@pytest.mark.parametrize("content", [WRONG.body + b"\n", STATIONS.encode()[:60], JANUARY_1949.encode(), b"\n\n"])
def test_ghcn_wrong_lists_are_refused_and_not_kept(ghcn, cache, path, content):
    ghcn.script(path, Answer(body=content))
    with pytest.raises(ValueError, match=f"{path[1:]}: expected .*GHCN-Daily.*removed from the cache"):
        datasets.ghcn_stations(url=ghcn.url())
    assert path[1:] not in kept(cache)
    assert len(datasets.ghcn_stations(url=ghcn.url())) == 3


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"stations": ["NOWHERE"]}, ValueError, "found 'NOWHERE', which is not in ghcnd-stations.txt"),
        ({"stations": []}, ValueError, "stations: expected at least one station"),
        ({"stations": ["ACW00011604"] * 2}, ValueError, "each once"),
        ({"stations": [3]}, TypeError, "stations: expected a table as of ghcn_stations or identifiers"),
        ({"stations": None}, TypeError, "stations: expected a table"),
        ({"stations": pd.DataFrame({"id": ["X"]})}, ValueError, "stations: expected a table.*columns .'id'"),
        ({"variables": "temperature"}, ValueError, "variables: expected some of.*'TMAX'.*found 'temperature'"),
        ({"variables": ()}, ValueError, "variables: expected"),
        ({"variables": ("TMAX", "TMAX")}, ValueError, "each once"),
        ({"variables": None}, ValueError, "variables: expected"),
        ({"variables": "PRCP"}, ValueError, "stations: expected values of PRCP"),
        ({"time": "1949"}, ValueError, "time: expected .first, last"),
        ({"time": ("spring", "summer")}, ValueError, "time: expected .first, last"),
        ({"time": ("1950", "1951")}, ValueError, "stations: expected values of TMAX.*1950"),
        ({"time": slice("1949", "1950", 7)}, ValueError, "time: expected"),
        ({"patience": 3}, TypeError, "patience"),
    ],
)
def test_ghcn_wrong_arguments(ghcn, options, kind, message):
    with pytest.raises(kind, match=message):
        datasets.load_ghcn(**{"stations": ["ACW00011604"], "variables": "TMAX"} | options, url=ghcn.url())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": (60, 50, 0, 10)}, "region: found"),
        ({"region": (-60, -50, 0, 10)}, "region: no"),
        ({"region": (10, 20, 0, 10)}, "region: no"),
        ({"variables": ("TMAX", "SNOW")}, "region: no station of GHCN-Daily in None has TMAX, SNOW"),
        ({"variables": "temperature"}, "variables: expected some of"),
        ({"first": "1950"}, "first: expected a year"),
        ({"last": 1950.5}, "last: expected a year"),
        ({"first": 1800}, "region: no station"),
    ],
)
def test_ghcn_stations_wrong_arguments(ghcn, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.ghcn_stations(**options, url=ghcn.url())


def test_addresses_are_those_of_noaa(monkeypatch):
    """As PSL's and NCEI's own pages name them."""
    asked = []

    def refuse(url, *arguments, **options):
        asked.append(url)
        raise ConnectionError("not in a test")

    monkeypatch.setattr(datasets.noaa, "fetch", refuse)
    for call in (
        lambda: datasets.open_ncep(),
        lambda: datasets.open_ncep(subset=True),
        lambda: datasets.open_ncep("eastward_wind", time=("1999", "1999"), frequency="daily"),
        lambda: datasets.load_ghcn(["ACW00011604"]),
    ):
        with pytest.raises(ConnectionError):
            call()
    assert asked == [
        "https://downloads.psl.noaa.gov/Datasets/ncep.reanalysis/Monthlies/surface/air.mon.mean.nc",
        "https://psl.noaa.gov/thredds/ncss/grid/Datasets/ncep.reanalysis/Monthlies/surface/air.mon.mean.nc",
        "https://downloads.psl.noaa.gov/Datasets/ncep.reanalysis/Dailies/surface/uwnd.sig995.1999.nc",
        "https://www.ncei.noaa.gov/pub/data/ghcn/daily/ghcnd-stations.txt",
    ]
