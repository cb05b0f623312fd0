"""ERA5: the file that is fetched, and a store in the layout of the public archive over a web that has its bad days."""

import errno
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import dask
import dask.array as da
import numcodecs
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from faults import RESET, TRUNCATED, WRONG, Answer, FaultyServer, nobody, slow, stalled, status

from stgcn_lab import datasets
from stgcn_lab.datasets import _grib, archives, download

ROOT = Path(__file__).parent.parent


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited between attempts; nobody waits in truth."""
    seconds: list[float] = []
    monkeypatch.setattr(download.time, "sleep", seconds.append)
    return seconds


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


@pytest.fixture(scope="module")
def fields(era5_file, tmp_path_factory):
    """What the GRIB reader makes of the file, and the folder it lay in alone: read once, as that takes seconds."""
    copy = tmp_path_factory.mktemp("alone") / datasets.ERA5_UK
    shutil.copyfile(era5_file, copy)
    return _grib.read_grib(copy), copy.parent


@pytest.fixture
def decoded(fields, monkeypatch):
    """The GRIB reader without the seconds; it is given no other file."""

    def read(path):
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == archives.ERA5_UK_SHA256
        return fields[0]

    monkeypatch.setattr(archives, "read_grib", read)


@pytest.fixture
def era5(era5_file, decoded):
    return datasets.load_era5_uk(era5_file)


@pytest.fixture
def no_copy(monkeypatch, tmp_path, waits):
    """A reader without the file: no STGCN_LAB_DATA, an empty cache, and a network that nobody may use."""
    cache = tmp_path / "cache"
    monkeypatch.delenv("STGCN_LAB_DATA", raising=False)
    monkeypatch.setenv("STGCN_LAB_CACHE", str(cache))
    monkeypatch.setattr(archives, "ERA5_UK_URL", nobody() + "/nobody-listens-here")
    return cache


@pytest.fixture
def server(monkeypatch, no_copy):
    """A server on this machine that answers with what the test puts into it."""
    with FaultyServer() as http:
        monkeypatch.setattr(archives, "ERA5_UK_URL", http.url(f"/{datasets.ERA5_UK}"))
        yield http


def test_era5_is_what_it_should_be(era5):
    air = era5["air_temperature"]
    assert air.dims == ("time", "lat", "lon") and air.shape == (744, 33, 49) and air.dtype == np.float64
    assert era5["lat"].values.tolist() == np.arange(50, 58.1, 0.25).tolist()
    assert era5["lon"].values.tolist() == np.arange(-10, 2.1, 0.25).tolist()
    assert era5["time"].values[0] == np.datetime64("2019-03-01T00")
    assert (np.diff(era5["time"]) == np.timedelta64(1, "h")).all()
    assert bool(air.notnull().all()) and -10 < float(air.min()) < 0 and 15 < float(air.max()) < 20
    assert "Contains modified Copernicus Climate Change Service information 2019" in era5.attrs["license"]
    nodes = datasets.check_series(datasets.grid_to_nodes(era5))
    assert dict(nodes.sizes) == {"time": 744, "station": 1617}
    assert datasets.nodes_to_grid(nodes).identical(era5)


def test_era5_lies_the_right_way_up(era5):
    """The south is milder than the north, the sea keeps its temperature, and over land the afternoon is warmest."""
    air = era5["air_temperature"]
    assert float(air.sel(lat=slice(50, 51)).mean()) > float(air.sel(lat=slice(57, 58)).mean()) + 1
    land, sea = air.sel(lat=52.5, lon=-1.5), air.sel(lat=50.0, lon=-9.0)
    day = land.groupby("time.hour").mean()
    assert day.values.argmax() in (13, 14, 15) and day.values.argmin() in (4, 5, 6, 7)
    assert float(sea.std()) < 0.5 * float(land.std())


def test_era5_is_decoded_as_by_eccodes(era5):
    """Digest of the float32 values in kelvin, north to south, that cfgrib 0.9.15 with ecCodes 2.50 gave."""
    kelvin = (era5["air_temperature"].values[:, ::-1] + 273.15).astype("<f4")
    assert (kelvin[0, 0, 0], kelvin[371, 16, 24], kelvin[743, 32, 48]) == tuple(
        np.float32([282.4248, 282.7378, 281.45483])
    )
    digest = "96abea797db80899120259c64a98f4e7b4604e541b2137cfdccaf7f71c84eacf"
    assert hashlib.sha256(np.ascontiguousarray(kelvin).tobytes()).hexdigest() == digest


def test_era5_leaves_nothing_beside_the_file(fields):
    assert [file.name for file in fields[1].iterdir()] == [datasets.ERA5_UK]


def test_era5_is_taken_from_the_folder_of_the_reader(era5_file, era5, no_copy, monkeypatch):
    monkeypatch.setenv("STGCN_LAB_DATA", str(era5_file.parent))
    assert datasets.load_era5_uk().identical(era5)
    assert not no_copy.exists()


def test_era5_is_downloaded_once(era5_file, decoded, server, no_copy, monkeypatch, tmp_path):
    server.contents[f"/{datasets.ERA5_UK}"] = era5_file.read_bytes()
    monkeypatch.setenv("STGCN_LAB_DATA", str(tmp_path))  # a folder without it: then the cache
    first = datasets.load_era5_uk()
    assert [file.name for file in no_copy.iterdir()] == [datasets.ERA5_UK]
    assert datasets.load_era5_uk().identical(first) and server.count() == 1
    (no_copy / datasets.ERA5_UK).write_bytes(b"damaged")  # the cache heals itself
    assert datasets.load_era5_uk().identical(first) and server.count() == 2


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        (Answer(body=b"GRIB but not this one"), 1),
        (Answer(body=b"GRIB, broken off in the middle", sent=0.5), 5),
        (status(404), 1),
        (status(429, retry_after=1), 5),
        (status(503), 5),
        (RESET, 5),
    ],
    ids=["another file", "broken off", "not found", "busy", "down", "reset"],
)
def test_era5_download_that_fails_says_what_to_do_and_leaves_nothing(server, no_copy, answer, asked):
    server.always("*", answer)
    with pytest.raises(ConnectionError, match=r"could not download http://127.*give path=.*STGCN_LAB_DATA"):
        datasets.load_era5_uk()
    assert server.count() == asked and list(no_copy.iterdir()) == []


def test_era5_download_survives_a_bad_day(era5_file, era5, server, no_copy):
    server.contents[f"/{datasets.ERA5_UK}"] = era5_file.read_bytes()
    server.script("*", TRUNCATED, status(429, retry_after=3), RESET, status(500))
    assert datasets.load_era5_uk().identical(era5) and server.count() == 5


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
    with pytest.raises(ValueError, match=rf"^{how}: expected era5.*{archives.ERA5_UK_SHA256}, found \w+ \(15 bytes\)"):
        datasets.load_era5_uk(file if how == "path" else None)
    assert file.read_bytes() == b"GRIB, cut short"  # the reader's own file is left alone


def test_era5_that_is_not_there(no_copy, monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^path: expected the file era5.*found none at .*nowhere\.grib"):
        datasets.load_era5_uk(tmp_path / "nowhere.grib")
    monkeypatch.setenv("STGCN_LAB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="^STGCN_LAB_DATA: expected a folder, found none"):
        datasets.load_era5_uk()


@pytest.mark.parametrize("missing", ["cfgrib", "eccodes"])
def test_era5_names_the_extra_that_reads_it(era5_file, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'{missing}.*pip install "stgcn-lab\[grib\]"'):
        datasets.load_era5_uk(str(era5_file))


def test_era5_and_the_maps_can_be_had_in_one_process(era5_file):
    """The libraries of GRIB and of the maps crash together: nothing of the former may be loaded."""
    code = (
        "import sys; from stgcn_lab import datasets; from cartopy import crs; datasets.load_era5_uk(sys.argv[1]);"
        "print({'eccodes', 'cfgrib'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(era5_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_era5_address_is_that_of_xarrays_tutorial():
    from xarray import tutorial

    assert f"{tutorial.base_url}/raw/{tutorial.version}/{datasets.ERA5_UK}" == archives.ERA5_UK_URL


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
    """The same over http on this machine: (URL, list of the requests)."""
    with FaultyServer(folder=archive[1]) as server:
        yield server.url("/era5.zarr"), server.requests


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
    assert not any("2m_temperature" in one.path or "wind" in one.path for one in asked), (
        "only the coordinates were read"
    )
    assert 0 < len(asked) < 15
    assert isinstance(nodes["air_temperature"].data, da.Array)
    assert nodes["air_temperature"].chunksizes == {"time": (6,) * 16, "station": (5 * 7,)}
    asked.clear()
    found = part.compute()
    read = sorted(int(one.path.split("/")[-1].split(".")[0]) for one in asked)
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


def test_era5_store_that_is_none(archive, served, tmp_path, waits):
    url, _ = served
    for store, kind, part in [
        (tmp_path / "nowhere.zarr", FileNotFoundError, "expected a zarr store, found none at"),
        (tmp_path, FileNotFoundError, "found none at"),
        (url + "x", FileNotFoundError, "found none at"),
        ("nowhere://era5.zarr", ValueError, "nowhere"),
        (nobody() + "/era5.zarr", ConnectionError, "could not read"),
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


@pytest.mark.parametrize("missing", ["zarr", "dask", "fsspec"])
def test_era5_store_names_the_extra_that_reads_it(served, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    store = "memory://era5.zarr" if missing == "fsspec" else served[0]
    with pytest.raises(ImportError, match=rf'{missing}.*pip install "stgcn-lab\[scale\]"'):
        datasets.open_era5(store, "2m_temperature")


def test_era5_store_of_any_kind_that_fsspec_knows(archive):
    written = archive[0][["2m_temperature"]].isel(time=slice(0, 2))
    written.to_zarr("memory://small.zarr", zarr_format=2)
    # in newer versions "memory" is zarr's own word, too, and takes no options
    own = hasattr(pytest.importorskip("zarr.storage"), "ManagedMemoryStore")
    options = None if own else {"use_listings_cache": False}
    found = datasets.open_era5("memory://small.zarr", "2m_temperature", storage_options=options)
    assert found.sizes["time"] == 2


# --- the same over a web that has its bad days ----------------------------------------------------------------

QUICK = {"backoff": 0.001}
WEST = ("2m_temperature", (50, 60, -10, 5))
# The chunk of hour 3 in the two formats, and the file with the consolidated metadata.
FORMATS = {
    "zarr 2": ("/v2.zarr", "2m_temperature/3.0.0", ".zmetadata"),
    "zarr 3": ("/v3.zarr", "2m_temperature/c/3/0/0", "zarr.json"),
}


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """As the public archive: an axis of time that is far longer than the record, and no chunk where nothing is.

    (values of the record, folder with v2.zarr, compressed by blosc as there, and v3.zarr, compressed by zstd)
    """
    rng = np.random.default_rng(1)
    lat, lon = np.arange(90, -90.1, -5, np.float32), np.arange(0, 360, 5, np.float32)
    times = pd.date_range("2019-02-28", periods=96, freq="h")
    air = np.full((96, lat.size, lon.size), np.nan, np.float32)
    air[24:72] = rng.normal(280, 10, (48, lat.size, lon.size)).round(1)
    attrs = {"valid_time_start": "2019-03-01", "valid_time_stop": "2019-03-01", "valid_time_stop_era5t": "2019-03-02"}
    fields = {"2m_temperature": (("time", "latitude", "longitude"), air, {"units": "K"})}
    written = xr.Dataset(fields, {"time": times, "latitude": lat, "longitude": lon}, attrs)
    folder = tmp_path_factory.mktemp("public")
    clock = {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian", "dtype": "int64"}
    layout = {"chunks": (1, lat.size, lon.size), "_FillValue": np.nan}
    blosc = {"compressors": [numcodecs.Blosc("lz4", 5)]}
    encoding = {"2m_temperature": layout | blosc, "time": clock | blosc, "latitude": blosc, "longitude": blosc}
    whole = {"safe_chunks": False, "consolidated": True, "write_empty_chunks": False}
    written.to_zarr(folder / "v2.zarr", zarr_format=2, encoding=encoding, **whole)
    with pytest.warns(Warning, match="[Cc]onsolidated metadata"):
        written.to_zarr(folder / "v3.zarr", zarr_format=3, encoding={"2m_temperature": layout, "time": clock}, **whole)
    return written, folder


@pytest.fixture(params=FORMATS)
def store(public, request):
    """(server, URL of the store, path of one of its chunks, path of its metadata, what is right)."""
    name, chunk, metadata = FORMATS[request.param]
    right = datasets.open_era5(str(public[1]) + name, *WEST).compute()
    # The chunks are numbered from the beginning of the axis, a day before the record.
    chunk = chunk.replace("3", "27", 1)
    with FaultyServer(folder=public[1]) as server:
        yield server, server.url(name), f"{name}/{chunk}", f"{name}/{metadata}", right


def chunks(folder):
    return sorted(file.name for file in folder.rglob("*") if "2m_temperature" in str(file) and file.is_file())


def test_public_layout_is_what_the_fixture_writes(public):
    """The formats, the compressors, the missing chunks: else the tests below would test something else."""
    import json

    two = json.loads((public[1] / "v2.zarr" / ".zmetadata").read_text())["metadata"]["2m_temperature/.zarray"]
    assert two["zarr_format"] == 2 and two["compressor"]["id"] == "blosc" and two["chunks"] == [1, 37, 72]
    three = json.loads((public[1] / "v3.zarr" / "zarr.json").read_text())
    assert three["zarr_format"] == 3 and "2m_temperature" in three["consolidated_metadata"]["metadata"]
    for name in ("v2.zarr", "v3.zarr"):
        assert len([file for file in (public[1] / name / "2m_temperature").rglob("*0") if file.is_file()]) == 48


def test_public_archive_has_an_address_on_the_web(public, monkeypatch):
    """gs:// is read over https, without an account and without the packages of the cloud."""
    from stgcn_lab.datasets import _remote

    asked = []
    with FaultyServer(folder=public[1]) as server:

        def ask(url, *args, **options):
            asked.append(url)
            return download.ask(
                url.replace("https://storage.googleapis.com/some-bucket/ar", server.url()), *args, **options
            )

        monkeypatch.setattr(_remote, "ask", ask)
        field = datasets.open_era5("gs://some-bucket/ar/v2.zarr", *WEST).compute()
    xr.testing.assert_identical(field, datasets.open_era5(public[1] / "v2.zarr", *WEST).compute())
    assert all(url.startswith("https://storage.googleapis.com/some-bucket/ar/v2.zarr/") for url in asked)
    assert datasets.ERA5_ARCHIVE.startswith("gs://gcp-public-data-arco-era5/ar/")


def test_part_of_the_axis_that_holds_values(store):
    _, url, _, _, right = store
    final, all_of_it = datasets.open_era5(url, *WEST), datasets.open_era5(url, *WEST, preliminary=True)
    for field, last in [(final, "2019-03-01T23"), (all_of_it, "2019-03-02T23")]:
        assert field["time"].values[[0, -1]].astype("M8[h]").astype(str).tolist() == ["2019-03-01T00", last]
    assert bool(all_of_it["air_temperature"].notnull().all())
    xr.testing.assert_identical(all_of_it.isel(time=slice(0, 24)).compute(), right)
    with pytest.raises(
        ValueError, match="covers 2019-03-01 00:00:00 to 2019-03-01 23:00:00, and with preliminary=True to"
    ):
        datasets.open_era5(url, *WEST, ("2019-03-02", "2019-03-02"))
    assert datasets.open_era5(url, *WEST, ("2019-03-02", None), preliminary=True).sizes["time"] == 24


PASSING = {
    "truncated": TRUNCATED,
    "truncated, of unknown length": Answer(sent=0.5, length=False),
    "reset": RESET,
    "reset in the middle": Answer(sent=0.7, reset=True),
    "too slow": slow(2),
    "stalls": stalled(2),
    "429": status(429, retry_after=0),
    "500": status(500),
    "503": status(503),
    "another page": WRONG,
    "nothing": Answer(body=b""),
    "other bytes": Answer(body=bytes(range(256)) * 9),
}


@pytest.mark.parametrize("fault", PASSING)
def test_damaged_chunk_is_asked_for_again_or_named_and_never_kept(store, tmp_path, fault):
    server, url, chunk, _, right = store
    patience = {"retries": 3, "timeout": 0.3} if fault in ("too slow", "stalls") else {"retries": 1}
    field = datasets.open_era5(url, *WEST, cache=tmp_path, **QUICK, **patience)
    server.always(chunk, PASSING[fault])
    tries = 1 + patience["retries"]
    with pytest.raises(ConnectionError, match=f"tried {tries} times") as error:
        field.compute()
    assert server.url(chunk) in str(error.value) and server.count(chunk) == tries
    server.always(chunk, None)
    server.script(chunk, PASSING[fault])
    xr.testing.assert_identical(field.compute(), right)
    assert server.count(chunk) == tries + 2


@pytest.mark.parametrize("fault", ["truncated, of unknown length", "503", "another page", "other bytes"])
def test_metadata_that_arrive_damaged_are_asked_for_again(store, tmp_path, fault):
    server, url, _, metadata, right = store
    options = {"retries": 1, "backoff": 0.001}
    server.always(metadata, PASSING[fault])
    with pytest.raises(ConnectionError, match=r"^store: could not read http.*tried 2 times") as error:
        datasets.open_era5(url, *WEST, cache=tmp_path, **options)
    assert server.url(metadata) in str(error.value)
    assert not any(tmp_path.rglob("*json")) and not any(tmp_path.rglob(".zmetadata"))
    server.always(metadata, None)
    server.script(metadata, PASSING[fault])
    xr.testing.assert_identical(datasets.open_era5(url, *WEST, cache=tmp_path, **options).compute(), right)


def test_chunk_that_the_store_does_not_have_is_missing_values(store, tmp_path):
    server, url, chunk, _, right = store
    server.always(chunk, status(404))
    field = datasets.open_era5(url, *WEST, cache=tmp_path)
    assert field["air_temperature"].isnull().any(("lat", "lon")).values.tolist() == [hour == 3 for hour in range(24)]
    server.forget()
    field.compute()
    assert server.count() == 0, "that it is missing is known by now"


def test_what_may_not_be_read(store):
    server, url, chunk, metadata, _ = store
    field = datasets.open_era5(url, *WEST)
    server.always(chunk, status(403, "not for you"))
    with pytest.raises(PermissionError, match="403 Forbidden: not for you"):
        field.compute()
    server.always(metadata, status(403))
    with pytest.raises(PermissionError, match="^store: .*403"):
        datasets.open_era5(url, *WEST)


def test_server_says_when_the_next_chunk_may_be_asked_for(store, waits):
    server, url, chunk, _, right = store
    field = datasets.open_era5(url, *WEST)
    server.script(chunk, status(429, retry_after=11), status(429, retry_after=12))
    xr.testing.assert_identical(field.compute(), right)
    assert [wait for wait in waits if wait > 5] == [11, 12]  # the rest waits for tests that are over


def test_server_that_is_busy_with_all_of_it(store):
    """Every request fails once, and many are under way at the same time."""
    server, url, _, _, right = store
    field = datasets.open_era5(url, *WEST, chunk=6, retries=24, **QUICK)
    server.script("*", *[status(503) if hour % 2 else RESET for hour in range(24)])
    xr.testing.assert_identical(field.compute(), right)
    assert server.count() > 48


@pytest.mark.parametrize("name", ["v2.zarr", "v3.zarr"])
def test_opening_takes_a_handful_of_requests(public, name):
    with FaultyServer(folder=public[1]) as server:
        field = datasets.open_era5(server.url(f"/{name}"), *WEST)
        assert server.count() < 10
        server.forget()
        field.isel(time=slice(0, 5)).compute(scheduler="synchronous")
        assert server.count() == 24, "a task reads its hours; each is asked for once"


def test_many_chunks_are_waited_for_at_once(public, monkeypatch):
    from stgcn_lab.datasets import _remote

    under_way, most = [], []

    def ask(*args, **options):
        under_way.append(1)
        most.append(len(under_way))
        try:
            return download.ask(*args, **options)
        finally:
            under_way.pop()

    monkeypatch.setattr(_remote, "ask", ask)
    with FaultyServer(folder=public[1]) as server:
        field = datasets.open_era5(server.url("/v2.zarr"), *WEST)
        server.always("*", slow(0.1))
        field.compute()
    assert 4 < max(most) <= _remote.AT_ONCE


def test_program_ends_though_a_server_does_not_answer(public):
    code = (
        "import sys, threading; from stgcn_lab import datasets\n"
        "field = datasets.open_era5(sys.argv[1], '2m_temperature')\n"
        "threading.Thread(target=field.compute, daemon=True).start()\n"
        "sys.stdin.readline()"
    )
    with FaultyServer(folder=public[1]) as server:
        server.always("/v2.zarr/2m_temperature/30.0.0", slow(60))
        command = [sys.executable, "-c", code, server.url("/v2.zarr")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        while server.count("/v2.zarr/2m_temperature/30.0.0") == 0 and process.poll() is None:
            download.time.sleep(0.01)
        process.communicate("\n", timeout=20)


# --- and kept -------------------------------------------------------------------------------------------------


def test_second_run_asks_for_nothing_and_needs_no_network(store, tmp_path):
    server, url, _, _, right = store
    xr.testing.assert_identical(datasets.open_era5(url, *WEST, cache=tmp_path).compute(), right)
    server.forget()
    xr.testing.assert_identical(datasets.open_era5(url, *WEST, cache=str(tmp_path)).compute(), right)
    assert server.count() == 0
    server.stop()
    xr.testing.assert_identical(datasets.open_era5(url, *WEST, cache=tmp_path).compute(), right)
    with pytest.raises(ConnectionError, match="tried once"):
        datasets.open_era5(url, *WEST, cache=tmp_path, preliminary=True, retries=0).compute()


def test_what_is_kept_is_kept_chunk_by_chunk(store, tmp_path, monkeypatch):
    server, url, _, _, right = store
    monkeypatch.setenv("STGCN_LAB_CACHE", str(tmp_path))
    datasets.open_era5(url, *WEST, ("2019-03-01T00", "2019-03-01T11"), cache=True, chunk=6).compute()
    server.forget()
    field = datasets.open_era5(url, *WEST, ("2019-03-01T06", "2019-03-01T17"), cache=True, chunk=6).compute()
    xr.testing.assert_identical(field, right.isel(time=slice(6, 18)))
    assert server.count() == 6 and (tmp_path / "zarr").is_dir()


def test_stores_do_not_meet_in_the_cache(public, tmp_path):
    with FaultyServer(folder=public[1]) as server:
        two = datasets.open_era5(server.url("/v2.zarr"), *WEST, cache=tmp_path).compute()
        three = datasets.open_era5(server.url("/v3.zarr"), *WEST, cache=tmp_path).compute()
    xr.testing.assert_equal(two, three)
    with FaultyServer(folder=public[1]) as other:
        datasets.open_era5(other.url("/v2.zarr"), *WEST, cache=tmp_path).compute()
        assert other.count() > 24, "another server, another store"


def test_damaged_copy_of_a_chunk_is_fetched_anew(store, tmp_path):
    server, url, chunk, metadata, right = store
    datasets.open_era5(url, *WEST, cache=tmp_path).compute()
    copies = [file for file in tmp_path.rglob("*") if file.is_file() and str(file).endswith((chunk, metadata))]
    assert len(copies) == 2
    for file in copies:
        file.write_bytes(file.read_bytes()[:-7])
    server.forget()
    xr.testing.assert_identical(datasets.open_era5(url, *WEST, cache=tmp_path).compute(), right)
    assert server.count() == 2


def test_store_that_was_not_there_yet_is_found_later(store, tmp_path):
    server, url, _, _, right = store
    server.always("*", status(404))
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="store: expected a zarr store, found none at http"):
            datasets.open_era5(url, *WEST, cache=tmp_path)
    assert not any(file.is_file() for file in tmp_path.rglob("*"))
    server.always("*", None)
    xr.testing.assert_identical(datasets.open_era5(url, *WEST, cache=tmp_path).compute(), right)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_full_disk_while_a_chunk_is_kept(store, tmp_path, monkeypatch, number):
    server, url, chunk, _, right = store
    field = datasets.open_era5(url, *WEST, cache=tmp_path)
    names, replace = [], os.replace

    def full(part, target):
        if str(target).endswith(chunk.split("/", 2)[2]):
            names.append(part)
            raise OSError(number, os.strerror(number))
        return replace(part, target)

    monkeypatch.setattr(download.os, "replace", full)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        field.compute()
    assert error.value.errno == number and server.count(chunk) == 1
    assert len(names) == 1 and not names[0].exists()
    monkeypatch.undo()
    xr.testing.assert_identical(field.compute(), right)


def test_several_readers_share_one_cache(store, tmp_path):
    server, url, _, _, right = store
    server.always("*", stalled(0.005))
    found = []

    def read():
        found.append(datasets.open_era5(url, *WEST, cache=tmp_path, chunk=6).compute())

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and all(field.identical(right) for field in found)
    assert not any("part" in name for name in chunks(tmp_path))


def test_lazy_field_can_be_sent_to_another_process(public, tmp_path):
    right = datasets.open_era5(public[1] / "v2.zarr", *WEST).compute()
    with FaultyServer(folder=public[1]) as server:
        field = datasets.open_era5(server.url("/v2.zarr"), *WEST, cache=tmp_path, chunk=12)
        xr.testing.assert_identical(pickle.loads(pickle.dumps(field)).compute(), right)
        with dask.config.set(scheduler="processes", num_workers=1):
            xr.testing.assert_identical(field.isel(time=slice(0, 3)).compute(), right.isel(time=slice(0, 3)))


# --- other layouts, other arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_store_with_many_chunks_in_one_object(public, tmp_path, kept):
    """Shards, of which single chunks are read by their place in the file; to be kept they are read whole."""
    written = public[0].isel(time=slice(24, 72))
    layout = {"2m_temperature": {"chunks": (1, 37, 72), "shards": (24, 37, 72)}}
    with pytest.warns(Warning, match="[Cc]onsolidated metadata"):
        written.to_zarr(tmp_path / "s.zarr", zarr_format=3, encoding=layout, consolidated=True)
    right = datasets.open_era5(tmp_path / "s.zarr", *WEST).compute()
    with FaultyServer(folder=tmp_path) as server:
        field = datasets.open_era5(
            server.url("/s.zarr"), *WEST, chunk=6, cache=tmp_path / "c" if kept else False, **QUICK
        )
        server.forget()
        server.script("/s.zarr/2m_temperature/c/0/0/0", TRUNCATED, status(503))
        xr.testing.assert_identical(field.isel(time=slice(0, 3)).compute(), right.isel(time=slice(0, 3)))
        parts = [one.headers.get("range", "") for one in server.requests]
        assert all(parts) != kept and (server.count() == 3 if kept else server.count() > 3)
        if kept:
            server.stop()
            xr.testing.assert_identical(field.compute(), right)


def test_chunks_without_a_compressor(public, tmp_path):
    written = public[0].isel(time=slice(24, 48))
    written.to_zarr(tmp_path / "p.zarr", zarr_format=2, encoding={"2m_temperature": {"compressors": None}})
    with FaultyServer(folder=tmp_path) as server:
        field = datasets.open_era5(server.url("/p.zarr"), *WEST, **QUICK)
        server.script("*", TRUNCATED, TRUNCATED)
        xr.testing.assert_identical(field.compute(), datasets.open_era5(tmp_path / "p.zarr", *WEST).compute())


@pytest.mark.parametrize("version", [2, 3])
def test_page_in_the_place_of_a_chunk_without_a_compressor_is_not_kept(public, tmp_path, version):
    written = public[0].isel(time=slice(24, 48))
    layout = {"2m_temperature": {"compressors": None}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # version 3 has no consolidated metadata yet
        written.to_zarr(tmp_path / "p.zarr", zarr_format=version, encoding=layout, consolidated=True)
    chunk = {2: "/p.zarr/2m_temperature/0.0.0", 3: "/p.zarr/2m_temperature/c/0/0/0"}[version]
    with FaultyServer(folder=tmp_path) as server:
        field = datasets.open_era5(server.url("/p.zarr"), *WEST, **QUICK | {"cache": tmp_path / "kept", "retries": 0})
        server.script(chunk, WRONG)
        with pytest.raises(ConnectionError, match=r"expected a chunk of \d+ bytes"):
            field.compute()
        xr.testing.assert_identical(field.compute(), datasets.open_era5(tmp_path / "p.zarr", *WEST).compute())


def test_address_cannot_lead_out_of_the_cache(public, tmp_path):
    with FaultyServer(folder=public[1]) as server:
        address = server.url("/a/../../../../v2.zarr").replace("://", "://me:word@")
        datasets.open_era5(address, *WEST, cache=tmp_path / "kept" / "here").compute()
    kept = [file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.parts[:2] for file in kept} == {("kept", "here")} and "word" not in str(kept)


def test_store_without_consolidated_metadata_cannot_be_read_over_the_web(public, tmp_path):
    public[0].to_zarr(tmp_path / "n.zarr", zarr_format=2, consolidated=False)
    refused = pytest.raises(ValueError, match="store: expected a zarr store.*must have consolidated metadata")
    with FaultyServer(folder=tmp_path) as server, pytest.warns(RuntimeWarning, match="consolidated"), refused:
        datasets.open_era5(server.url("/n.zarr"), *WEST)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"cache": 3}, TypeError, "cache: found int"),
        ({"cache": True}, ValueError, "cache: .*over http"),
        ({"retries": -1}, ValueError, "retries"),
        ({"backoff": "1"}, ValueError, "backoff"),
        ({"timeout": 0}, ValueError, "timeout"),
    ],
)
def test_arguments_of_reading_are_checked(public, options, kind, words):
    with pytest.raises(kind, match=words):
        datasets.open_era5(public[1] / "v2.zarr", *WEST, **options)
