"""The files around the package agree with each other, and with what the README promises."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What conda calls otherwise: there the plain name is a build for graphics cards.
CONDA_NAMES = {"pytorch-cpu": "torch"}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def requirement(line: str) -> tuple[str, str]:
    """('torch-geometric', '>=2.6') of 'torch_geometric>=2.6'."""
    name, specifier = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*([^;#]*).*", line).groups()
    return CONDA_NAMES.get(name, name).lower().replace("_", "-"), specifier.strip()


def tracked_files() -> list[Path]:
    """The files of the project: what git would commit, or every file where there is no git checkout."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        built = {
            ".venv",
            ".venv-dgl",
            ".venv-wheel",
            ".venv-versions",
            "node_modules",
            ".git",
            ".hypothesis",
            "_build",
            "build",
            "dist",
            "__pycache__",
        }
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
        names = [str(p) for p in found if not any(part in built or part.endswith("_cache") for part in p.parts)]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


# ---- the environment ----


def test_environment_for_binder_is_in_step_with_the_package():
    listed = yaml.safe_load(text("environment.yml"))["dependencies"]
    conda = [entry for entry in listed if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    python = next(entry for entry in conda if entry.startswith("python="))
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert python.removeprefix("python=").strip("=") == lowest
    other = [line for line in conda if not re.match(r"(python|pip)\b(?!-|_)", line)]
    packages = [line for line in pip if not line.startswith("-")]
    runs_notebooks = ("ipykernel", "ipywidgets")
    extra = [line for line in PROJECT["optional-dependencies"]["book"] if line.startswith(runs_notebooks)]
    assert len(extra) == len(runs_notebooks)
    extras = PROJECT["optional-dependencies"]
    needed = [line for name in ("applications", "explain", "grib", "scale") for line in extras[name]]
    wanted = [*PROJECT["dependencies"], *needed, *extra]
    assert sorted(map(requirement, other + packages)) == sorted(map(requirement, wanted))
    assert "-e ." in pip


def test_lock_is_complete_hashed_and_without_addresses():
    lock = text("requirements.lock")
    assert not re.search(r"https?://|file://|--(?:extra-)?index-url|--find-links", lock)
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock.strip())
    names = {re.match(r"[A-Za-z0-9_.-]+", entry).group(0).lower().replace("_", "-") for entry in entries}
    for entry in entries:
        assert re.match(r"[A-Za-z0-9_.-]+==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]
    assert not {name for name in names if re.match(r"(torch$|triton|nvidia-|cuda-)", name)}
    extras = PROJECT["optional-dependencies"]
    set_up = ("applications", "book", "explain", "grib", "scale", "test")
    wanted = [*PROJECT["dependencies"], *(line for name in set_up for line in extras[name])]
    assert {requirement(line)[0] for line in wanted} - names == {"torch"}


def test_constraints_pin_torch():
    assert re.search(r"^torch==\d+\.\d+\.\d+$", text("constraints.txt"), re.MULTILINE)


# ---- names, versions, licences ----


def test_version_is_one():
    citation = yaml.safe_load(text("CITATION.cff"))
    newest = re.search(r"^## (\d+\.\d+\.\d+)\b", text("CHANGELOG.md"), re.MULTILINE).group(1)
    assert citation["version"] == PROJECT["version"] == newest
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] and citation["title"] and citation["message"]


def test_the_versions_of_python_that_are_tested_are_those_that_are_promised():
    promised = [line.rpartition(":: ")[2] for line in PROJECT["classifiers"] if "Python :: 3" in line]
    tested = re.search(r"^PYTHONS = \((.*)\)$", text("tools/versions.py"), re.MULTILINE).group(1)
    assert re.findall(r'"([\d.]+)"', tested) == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


def test_licence_names_both_terms():
    licence = text("LICENSE")
    assert "MIT License" in licence
    assert "CC BY 4.0" in licence
    assert PROJECT["license"] == "MIT"


# ---- the two commands ----


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", text("Makefile"), re.MULTILINE))


def test_help_lists_every_target():
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make ([\w-]+)", shown, re.MULTILINE)) == make_targets()
    named = {"book", "test", "notebooks", "serve", "bench", "bench-forecast", "clean", "lint", "lock", "help"}
    assert named <= make_targets()


PAGES = ["README.md", "CONTRIBUTING.md", "book/index.md", "book/status.md", "book/leaderboard.md"]


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_pages_exist(page):
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text(page), re.MULTILINE))
    assert named
    assert named <= make_targets()


def test_a_benchmark_without_its_data_is_skipped_and_any_other_failure_is_not(tmp_path):
    forecasts = re.search(r"^FORECASTS +:= (.+)$", text("Makefile"), re.MULTILINE).group(1).split()
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in forecasts)
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt", "requirements.lock", ".venv/bin/python", ".venv/.ready"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venv/bin/python").unlink()
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / "benchmarks").mkdir()

    def bench(*status: int) -> tuple[bool, set[str]]:
        for name, code in zip(forecasts, status, strict=True):
            (tmp_path / "benchmarks" / f"{name}.py").write_text(f"raise SystemExit({code})")
        done = subprocess.run(["make", "-s", "-k", "bench-forecast"], cwd=tmp_path, capture_output=True, check=False)
        stamps = {path.name.removeprefix(".bench-") for path in tmp_path.glob("_build/.bench-*")}
        shutil.rmtree(tmp_path / "_build", ignore_errors=True)
        return done.returncode == 0, stamps

    first, second, *others = forecasts
    well = [0] * len(others)
    assert bench(0, 0, *well) == (True, {first, second, *others})
    assert bench(0, 75, *well) == (True, {first, *others})
    assert bench(0, 1, *well) == (False, {first, *others})


def test_without_npms_registry_one_error_says_what_is_missing(tmp_path):
    names = ("pyproject.toml", "constraints.txt", "requirements.lock", ".venv/.ready")
    for name in ("Makefile", "package.json", "package-lock.json"):
        shutil.copy(ROOT / name, tmp_path)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    npm = tmp_path / ".venv" / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho 'npm error code E1\nnpm error request to https://x.org/y failed: no' >&2; exit 1\n")
    npm.chmod(0o755)
    done = subprocess.run(["make", "node_modules/.ready"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and not (tmp_path / "node_modules" / ".ready").exists()
    first, *rest = done.stderr.splitlines()
    assert first.startswith("npm could not install what package.json names")
    assert "request to https://x.org/y failed: no (all of it: _build/npm.log)" in first and len(rest) == 1
    package = json.loads(text("package.json"))
    assert all(name in first for name in (*package["dependencies"], *package["devDependencies"]))


def test_the_benchmark_that_needs_a_download_says_why_it_is_skipped(tmp_path):
    path, stored = ROOT / "benchmarks" / "uk_temperature.py", ROOT / "benchmarks" / "uk_temperature.json"
    before = stored.read_bytes() if stored.exists() else None
    nowhere = os.environ | {"STGCN_LAB_DATA": str(tmp_path / "nowhere")}
    done = subprocess.run([sys.executable, path], env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert re.match(r"skipped, .*STGCN_LAB_DATA: expected a folder, found none", done.stdout)
    assert before == (stored.read_bytes() if stored.exists() else None)


def test_checks_of_a_fresh_clone_are_the_commands_of_the_readme():
    script = [line for line in text(".ci/run").splitlines() if line.startswith("make")]
    assert script == ["make test", "make book", "make accessibility", "make frameworks"]
    assert {"make test", "make book"} <= set(re.findall(r"^(make \w+)", text("README.md"), re.MULTILINE))


# ---- what the files must not contain ----


def test_no_file_names_a_place_on_somebodys_machine():
    # put together here, so that this file does not contain what it looks for
    places = [f"/{place}/" for place in ("home", "root", "work", "tmp", "Users")]
    path = re.compile(rf"(?<![\w.~$}}/-])(?:{'|'.join(places)})[A-Za-z0-9_]")
    vendored = ROOT / "book" / "_extra"
    found = []
    for file in tracked_files():
        if vendored in file.parents or file.suffix in {".nc", ".png", ".woff", ".shp", ".dbf", ".shx"}:
            continue
        content = file.read_text(encoding="utf-8", errors="ignore")
        # stored images are no text
        content = re.sub(r'"image/png": "[^"]*"', "", content)
        found += [f"{file.relative_to(ROOT)}: {match.group(0)}" for match in path.finditer(content)]
    assert not found


# ---- the house ----


def test_a_module_imports_only_from_the_floors_below_it():
    drawn = re.findall(r"^    (\d)  (.+)$", text("stgcn_lab/__init__.py"), re.MULTILINE)
    floor = {name.strip(): int(number) for number, names in drawn for name in names.split(",")}
    found = [path for path in (ROOT / "stgcn_lab").iterdir() if not path.name.startswith("_")]
    assert set(floor) == {path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").is_file()}
    for name in floor:
        path = ROOT / "stgcn_lab" / name
        for file in path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            level = 2 if path.is_dir() else 1  # dots that lead to the package's own folder
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level == level:
                    used = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                    above = [other for other in used if floor.get(other, -1) >= floor[name]]
                    assert not above, f"{file.name} (floor {floor[name]}) imports {above}"
