"""The command line: what it writes, what it says about files that it cannot use, and that nothing is half written."""

import gzip
import io
import os
import platform
import resource
import shlex
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stgcn_lab import __version__, cli, datasets, report, training, workflows

PLACES = {"A": (53.0, -7.0, 50), "B": (52.2, -8.1, 20), "C": (54.1, -6.4, 80), "D": (53.4, -9.0, 10)}


def values(steps=200, stations=4, seed=0) -> np.ndarray:
    """Anomalies that last and are shared, on top of a season, in degrees."""
    rng = np.random.default_rng(seed)
    z = np.zeros((steps, stations))
    for t in range(1, steps):
        z[t] = 0.75 * z[t - 1] + rng.normal(0, 1.2) + rng.normal(0, 0.8, stations)
    season = -6 * np.cos(2 * np.pi * (np.arange(steps) - 20) / 365.25)
    return np.round(10 + season[:, None] + z, 1)


def table(steps=200, **changes) -> pd.DataFrame:
    """A long table of four stations."""
    days = pd.date_range("2019-01-01", periods=steps).strftime("%Y-%m-%d")
    columns = []
    for (name, (lat, lon, elevation)), column in zip(PLACES.items(), values(steps).T, strict=True):
        place = {"station": name, "lat": lat, "lon": lon, "elevation": elevation}
        columns.append(pd.DataFrame({**place, "date": days, "temperature [degC]": column}))
    return pd.concat(columns, ignore_index=True).assign(**changes)


def long_csv(path: Path, frame: pd.DataFrame | None = None, **options) -> Path:
    (table() if frame is None else frame).to_csv(path, index=False, **options)
    return path


@pytest.fixture(autouse=True)
def begun(monkeypatch) -> list[str]:
    """What a command has begun with; the process of the tests keeps its allocator as it is."""
    begun: list[str] = []
    monkeypatch.setattr(training, "reuse_memory", lambda: begun.append("memory"))
    return begun


@pytest.fixture
def good(tmp_path) -> Path:
    return long_csv(tmp_path / "good.csv")


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(capsys, *argv: str) -> str:
    """Run what must be refused; what it says."""
    assert cli.main(list(argv)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip() and "Traceback" not in said.err and "fault of the program" not in said.err
    return said.err


def test_without_out_the_results_get_a_folder_named_after_the_file(good, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["forecast", str(good), "--lead", "1", "--no-network", "--quiet"]) == 0
    assert {"report.html", "forecast.nc"} <= set(contents(tmp_path / "good-forecast"))
    assert "good-forecast" in refused(capsys, "forecast", str(good), "--no-network")


# ---------------------------------------------------------------------------- broken files


def not_a_file(folder):
    return folder / "nothing.csv"


def a_folder(folder):
    (folder / "folder.csv").mkdir()
    return folder / "folder.csv"


def empty(folder):
    (folder / "empty.csv").write_bytes(b"")
    return folder / "empty.csv"


def a_picture(folder):
    (folder / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    return folder / "picture.csv"


def no_time(folder):
    return long_csv(folder / "no-time.csv", table().drop(columns="date"))


def no_coordinates(folder):
    return long_csv(folder / "no-coordinates.csv", table().drop(columns=["lat", "lon"]))


def strings_in_numbers(folder):
    frame = table().astype({"temperature [degC]": str})
    frame.loc[::3, "temperature [degC]"] = "rather warm"
    return long_csv(folder / "strings.csv", frame)


def different_duplicates(folder):
    frame = table()
    return long_csv(folder / "duplicates.csv", pd.concat([frame, frame.assign(**{"temperature [degC]": 3.0})]))


def latitude_123(folder):
    return long_csv(folder / "latitude.csv", table().replace({"lat": {53.0: 123.0}}))


def mixed_units(folder):
    frame = table().rename(columns={"temperature [degC]": "value"})
    return long_csv(folder / "units.csv", frame.assign(units=np.where(frame["station"] == "A", "degF", "degC")))


def all_missing(folder):
    return long_csv(folder / "missing.csv", table(**{"temperature [degC]": np.nan}))


def one_station(folder):
    return long_csv(folder / "one.csv", table().query("station == 'A'"))


def two_steps(folder):
    return long_csv(folder / "two.csv", table(2))


def huge_gaps(folder):
    frame = table(1200)
    years = pd.to_datetime(frame["date"])
    return long_csv(folder / "gaps.csv", frame[(years < "2019-02-15") | (years > "2022-02-15")])


def infinite_values(folder):
    frame = table()
    frame.loc[7, "temperature [degC]"] = np.inf
    return long_csv(folder / "infinite.csv", frame)


def zipped_twice(folder):
    long_csv(folder / "a.csv")
    with zipfile.ZipFile(folder / "two.zip", "w") as packed:
        packed.write(folder / "a.csv", "a.csv")
        packed.write(folder / "a.csv", "b.csv")
    return folder / "two.zip"


def truncated_zip(folder):
    with zipfile.ZipFile(folder / "whole.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(long_csv(folder / "a.csv"), "a.csv")
    (folder / "half.zip").write_bytes((folder / "whole.zip").read_bytes()[:2000])
    return folder / "half.zip"


def truncated_gzip(folder):
    (folder / "half.csv.gz").write_bytes(gzip.compress(long_csv(folder / "a.csv").read_bytes())[:1500])
    return folder / "half.csv.gz"


def truncated_netcdf(folder):
    whole = datasets.embedded("irish_wind.nc").read_bytes()
    (folder / "half.nc").write_bytes(whole[: len(whole) // 2])
    return folder / "half.nc"


def truncated_grib(folder):
    (folder / "half.grib").write_bytes(b"GRIB\x00\x10\x00\x01" + b"\x00" * 50)
    return folder / "half.grib"


def netcdf_without_time(folder):
    xr.Dataset({"t": (("lat", "lon"), np.ones((3, 4)))}, {"lat": [1.0, 2, 3], "lon": [1.0, 2, 3, 4]}).to_netcdf(
        folder / "map.nc"
    )
    return folder / "map.nc"


def a_workbook(folder):
    (folder / "book.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600)
    return folder / "book.xls"


BROKEN = {
    not_a_file: "no file",
    a_folder: "folder",
    empty: "empty",
    a_picture: "picture",
    no_time: "time",
    no_coordinates: "lat",
    strings_in_numbers: "rather warm",
    different_duplicates: "value",
    latitude_123: "123",
    mixed_units: "unit",
    all_missing: "",
    one_station: "station",
    two_steps: "step",
    huge_gaps: "",
    infinite_values: "inf",
    zipped_twice: "file",
    truncated_zip: "",
    truncated_gzip: "",
    truncated_netcdf: "",
    truncated_grib: "",
    netcdf_without_time: "time",
    a_workbook: "CSV",
}


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_broken_files_are_refused_with_a_reason_and_nothing_is_written(make, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    file = str(make(tmp_path / "in"))
    before = contents(tmp_path)
    said = refused(capsys, "check", file)
    assert BROKEN[make].lower() in said.lower()
    job = ("regimes", "forecast", "impute")[list(BROKEN).index(make) % 3]
    assert Path(file).name in refused(capsys, job, file, "--out", str(tmp_path / "out"), "--quiet")
    assert contents(tmp_path) == before and not (tmp_path / "out").exists()


def unsorted(folder):
    return long_csv(folder / "unsorted.csv", table().sample(frac=1, random_state=0))


def same_duplicates(folder):
    return long_csv(folder / "twice.csv", pd.concat([table(), table().head(30)]))


def wrong_suffix(folder):
    return long_csv(folder / "really-a-table.nc")


def not_utf8(folder):
    path = folder / "latin.csv"
    path.write_bytes(table().replace({"station": {"A": "Malmö"}}).to_csv(index=False).encode("latin-1"))
    return path


def zipped(folder):
    with zipfile.ZipFile(folder / "one.zip", "w") as packed:
        packed.write(long_csv(folder / "a.csv"), "a.csv")
    return folder / "one.zip"


def gappy(folder):
    frame = table()
    return long_csv(folder / "gappy.csv", frame[np.random.default_rng(0).random(len(frame)) > 0.1])


def fill_values(folder):
    frame = table()
    frame.loc[frame.sample(30, random_state=0).index, "temperature [degC]"] = -9999
    return long_csv(folder / "fill.csv", frame)


REPAIRED = [unsorted, same_duplicates, wrong_suffix, not_utf8, zipped, gappy, fill_values]


@pytest.mark.parametrize("make", REPAIRED, ids=lambda make: make.__name__)
def test_what_can_be_repaired_is_repaired_and_said(make, tmp_path, capsys):
    file = str(make(tmp_path))
    assert cli.main(["check", file]) == 0
    said = capsys.readouterr()
    assert said.err == "" and f"stgcn-lab forecast {file} --out results" in said.out
    assert ("look:" in said.out) == (make not in (zipped, gappy))


# ---------------------------------------------------------------------------- what a run leaves


def test_a_forecast_from_a_messy_table(tmp_path, capsys):
    file = str(unsorted(tmp_path))
    out = tmp_path / "deep" / "er" / "out"
    assert cli.main(["forecast", file, "--out", str(out), "--no-network", "--lead", "2"]) == 0
    said = capsys.readouterr()
    assert str(out / "report.html") in said.out and "The forecast for 20 July 2019" in said.out
    assert "the forecast" in said.err  # the bar
    assert {p.name for p in out.iterdir()} <= set(report.FILES)
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]  # no folder of work is left
    page = (out / "report.html").read_text()
    assert "Repaired, or worth a look" in page and "in order" in page and "unsorted.csv" in page
    forecast = pd.read_csv(out / "forecast.csv", parse_dates=["time"])
    assert list(forecast["lead"]) == [1] * 4 + [2] * 4 and set(forecast["station"]) == set(PLACES)
    assert (forecast["lower"] < forecast["forecast"]).all() and (forecast["forecast"] < forecast["upper"]).all()
    with xr.open_dataset(out / "forecast.nc", engine="netcdf4") as stored:
        assert stored["forecast"].attrs["units"] == "degC"
        np.testing.assert_allclose(stored["forecast"].values.ravel(), forecast["forecast"], rtol=1e-4)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.fixture
def quick(monkeypatch):
    """Commands without the work: what is tested is what stands around it."""
    monkeypatch.setattr(workflows, "forecast", lambda series, lead=1, **options: ("result", lead, options))
    monkeypatch.setattr(report, "summary", lambda result: "done")
    monkeypatch.setattr(
        report, "render", lambda result, **options: {"report.html": b"page", "forecast.csv": b"x" * 200_000}
    )


def test_results_are_replaced_only_if_asked_for_and_nothing_else_ever(quick, good, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["forecast", str(good), "--out", str(out), "--quiet"]
    out.mkdir()
    assert cli.main(argv) == 0 and (out / "report.html").read_bytes() == b"page"  # an empty folder will do
    (out / "report.html").write_bytes(b"old")
    assert "--force" in refused(capsys, *argv)
    assert (out / "report.html").read_bytes() == b"old"
    assert cli.main([*argv, "--force"]) == 0
    assert (out / "report.html").read_bytes() == b"page"
    (out / "thesis.txt").write_bytes(b"years of work")
    assert "thesis.txt" in refused(capsys, *argv, "--force")
    assert (out / "thesis.txt").read_bytes() == b"years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.csv", "out"]


def test_the_folder_of_results_must_be_one_of_its_own(quick, good, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "own" in refused(capsys, "forecast", str(good), "--out", ".", "--force")
    assert "file" in refused(capsys, "forecast", str(good), "--out", str(good), "--force")
    before = contents(tmp_path)
    assert "written" in refused(capsys, "forecast", str(good), "--out", str(good / "in a file"))
    assert contents(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which even root cannot write")
def test_a_folder_that_cannot_be_written_is_told_before_the_work(good, capsys, monkeypatch):
    monkeypatch.setattr(workflows, "forecast", lambda *a, **k: pytest.fail("worked for nothing"))
    assert "/proc" in refused(capsys, "forecast", str(good), "--out", "/proc/results")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not stop root")
def test_a_read_only_folder_is_refused(good, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(capsys, "forecast", str(good), "--out", str(tmp_path / "locked" / "out"))
    assert not list((tmp_path / "locked").iterdir())


@pytest.mark.parametrize("before", [None, "empty", "earlier"])
def test_a_full_disk_leaves_everything_as_it_was(quick, good, tmp_path, capsys, before):
    out = tmp_path / "new" / "out" if before is None else tmp_path / "out"
    if before:
        out.mkdir()
    if before == "earlier":
        (out / "report.html").write_bytes(b"old")
    there = sorted(tmp_path.rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes in a file, then an error as of a full disk
    try:
        status = cli.main(["forecast", str(good), "--out", str(out), "--force", "--quiet"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    said = capsys.readouterr().err
    assert status == 2 and "nothing was left behind" in said and "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == there
    assert before != "earlier" or (out / "report.html").read_bytes() == b"old"


def test_a_failing_last_step_brings_the_earlier_result_back(quick, good, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_bytes(b"old")
    rename = os.rename

    def fails_once(source, target):
        if Path(source).name == "new":
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_once)
    assert "Input/output" in refused(capsys, "forecast", str(good), "--out", str(out), "--force", "--quiet")
    assert contents(tmp_path) == {"good.csv": good.read_bytes(), "out/report.html": b"old"}


def test_an_interruption_ends_with_130_and_leaves_nothing(quick, good, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "render", interrupted)
    assert cli.main(["forecast", str(good), "--out", str(tmp_path / "out"), "--quiet"]) == 130
    assert "interrupted" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_fault_of_the_program_is_told_from_one_of_the_file(quick, good, tmp_path, capsys, monkeypatch):
    def faulty(*args, **options):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(report, "render", faulty)
    assert cli.main(["forecast", str(good), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "fault of the program" in said and "broadcast" in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("taker", "status"), [("full", 2), ("gone", 0), ("closed", 0)])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_output_that_nobody_takes(good, capsys, monkeypatch, taker, status):
    """A full disk, "| head", ">&-": told at once, so that the end of the process has nothing left to fail with."""
    if taker == "closed":
        out = None
    elif taker == "full":
        out = open("/dev/full", "w")  # noqa: SIM115
    else:
        read, write = os.pipe()
        os.close(read)
        out = open(write, "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["check", str(good)]) == status
    if out is not None:
        out.close()
    said = capsys.readouterr().err
    assert "Traceback" not in said and ("could not be written: No space left" in said) == (taker == "full")


def test_no_bar_is_drawn_where_there_is_no_error_stream(good, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(workflows, "impute", lambda series, **options: seen.update(options))
    monkeypatch.setattr(report, "write", lambda *a, **k: None)
    monkeypatch.setattr(report, "summary", lambda result: "done")
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["impute", str(good), "--out", str(tmp_path / "out")]) == 0
    assert seen["progress"] is False


def test_a_terminal_that_knows_few_signs(good, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(cli, "_what_next", lambda series, file: ["−5 °C"])
    assert cli.main(["check", str(good)]) == 0
    out.seek(0)
    assert "?5 ?C" in out.read()


def test_paths_as_given_and_ready_to_be_pasted(quick, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my files").mkdir()
    long_csv(Path("my files/a $b.csv"), table(**{"a b [degC]": 1.5}))
    assert cli.main(["check", "my files/a $b.csv"]) == 0
    said = capsys.readouterr().out
    [line] = [line for line in said.splitlines() if "stgcn-lab forecast" in line]
    argv = shlex.split(line.partition("stgcn-lab ")[2])
    assert argv == ["forecast", "my files/a $b.csv", "--variable", "air_temperature", "--out", "results"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == "results/report.html\n  done\n"
    assert "out: results holds 2 files" in refused(capsys, *argv)


# ---------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "more",
    [
        ["--lead", "0"], ["--lead", "two"], ["--lead", "90"], ["--seed", "-1"], ["--steps", "hour"], ["--what"],
        ["--variable", "rain"], ["--timezone", "Mars/Base"], ["--columns", "time"], ["--columns", "when=date"],
        ["--units", "parsec"], ["--stations", "nowhere.csv"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(more, good, tmp_path, capsys):
    refused(capsys, "forecast", str(good), "--out", str(tmp_path / "out"), "--quiet", *more)
    assert not (tmp_path / "out").exists()


def test_too_many_regimes_are_refused(good, tmp_path, capsys):
    assert "regimes" in refused(capsys, "regimes", str(good), "--k", "11", "--out", str(tmp_path / "out"), "--quiet")
    assert "12" in refused(capsys, "regimes", str(good), "--k", "60", "--out", str(tmp_path / "out"), "--quiet")


def test_without_a_command_or_a_file_the_usage_is_shown(capsys):
    assert "usage" in refused(capsys)
    assert "FILE" in refused(capsys, "forecast")
    assert cli.main(["--version"]) == 0 and __version__ in capsys.readouterr().out
    assert cli.main(["forecast", "--help"]) == 0 and "--lead" in capsys.readouterr().out


def test_options_of_the_reader_reach_it(tmp_path, capsys):
    frame = table().rename(columns={"date": "Tag", "station": "Ort", "temperature [degC]": "Wert"})
    file = long_csv(tmp_path / "foreign.csv", frame.drop(columns=["lat", "lon", "elevation"]))
    places = pd.DataFrame(
        [(name, *place) for name, place in PLACES.items()], columns=["station", "lat", "lon", "elevation"]
    )
    places.to_csv(tmp_path / "places.csv", index=False)
    argv = ["--columns", "time=Tag", "--columns", "station=Ort", "--columns", "value=Wert", "--units", "degF"]
    assert cli.main(["check", str(file), "--stations", str(tmp_path / "places.csv"), *argv]) == 0
    said = capsys.readouterr().out
    assert "degF to degC" in said and "4 stations" in said


# ---------------------------------------------------------------------------- embedded data


@pytest.mark.parametrize("name", ["electricity_demand.nc", "pacific.nc"])
def test_embedded_series_without_places_are_refused_with_help(name, tmp_path, capsys):
    file = str(datasets.embedded(name))
    for argv in (["check", file], ["forecast", file, "--out", str(tmp_path / "out")]):
        said = refused(capsys, *argv)
        assert "latitude" in said and "--stations FILE" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["irish_wind.nc", "colorado.nc", "winter_height.nc", *(f"reanalysis_{r}.nc" for r in datasets.REGIONS)]
)
def test_embedded_series_pass_the_check(name, capsys):
    file = str(datasets.embedded(name))
    assert cli.main(["check", file]) == 0
    assert f"stgcn-lab forecast {file}" in capsys.readouterr().out


def test_a_file_of_several_variables_asks_for_one(tmp_path, capsys):
    said = refused(capsys, "impute", str(datasets.embedded("colorado.nc")), "--out", str(tmp_path / "out"), "--quiet")
    assert all(name in said for name in ("--variable", "tmin", "tmax", "precip"))


# ---------------------------------------------------------------------------- as a process


def test_the_installed_command_runs(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "stgcn_lab.cli", "check", str(tmp_path / "none.csv")], capture_output=True, text=True
    )
    assert run.returncode == 2 and "no file" in run.stderr and "Traceback" not in run.stderr


def test_the_help_loads_no_library():
    code = "import sys\nfrom stgcn_lab import cli\nassert cli.main(sys.argv[1:]) == 0\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, "forecast", "--help"], capture_output=True, text=True, check=True)
    shown, loaded = run.stdout.rstrip("\n").rsplit("\n", 1)
    assert "--lead" in shown and "stgcn_lab.cli" in loaded.split()
    assert not {"torch", "xarray", "numpy"} & set(loaded.split())


@pytest.mark.parametrize("job", ["regimes", "forecast", "impute"])
def test_a_job_sets_the_allocator_before_the_work_and_a_check_never(good, tmp_path, monkeypatch, begun, job):
    assert cli.main(["check", str(good)]) == 0 and begun == []
    monkeypatch.setattr(workflows, job, lambda series, **options: begun.append("work"))
    monkeypatch.setattr(report, "write", lambda *a, **k: None)
    assert cli.main([job, str(good), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert begun == ["memory", "work"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_the_memory_of_a_job_as_a_process_is_reused(good, tmp_path):
    code = (
        "import resource, sys, torch\n"
        "from stgcn_lab import cli, report, workflows\n"
        "def work(series, **options):\n"
        "    for count in range(25):\n"
        "        if count == 20:  # room has been made\n"
        "            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "        tensors = [torch.ones(1 << 23) for _ in range(2)]\n"
        "        del tensors\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
        "workflows.impute, report.write = work, lambda *args, **options: None\n"
        "assert cli.main(sys.argv[1:]) == 0\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    argv = [sys.executable, "-c", code, "impute", str(good), "--out", str(tmp_path / "out"), "--quiet"]
    run = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    pages = 5 * 2 * 2**25 / resource.getpagesize()
    assert int(run.stdout) < pages / 10  # all of them if the tensors were mapped anew
