"""Test the package with several versions of Python, and with the newest and the lowest dependencies.

    python tools/versions.py [--python 3.12 ...] [--resolution newest lowest] [--all] [--keep]

For each Python that is found, and each resolution, an environment is made below .venv-versions/ (uv resolves, pip
installs), the tests run in it, and it is removed again: each takes 2 to 7 GB. "newest" is what a reader gets today, but
for PyTorch, which constraints.txt holds; "lowest" is the lowest version that pyproject.toml allows of everything it
names, as far as it is published as a wheel for that Python. Without --all the tests are those of QUICK: every layer,
network, loss and loader, but no long training. A Python that is not there is named and left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run_notebooks import build_wheel

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv-versions"
PYTHONS = ("3.11", "3.12", "3.13")
RESOLUTIONS = ("newest", "lowest")
EXTRAS = ("applications", "explain", "grib", "scale")
TOOLS = ("hypothesis", "nbformat", "pytest", "pyyaml")
QUICK = ("baselines", "classes", "datasets", "deploy", "devices", "explain", "graphs", "indices", "layers", "training")
QUICK += ("verification", "windows")
# pandas 2 reads some numbers of a table one unit in the last place (4e-15) off; a test there wants them to the bit
NOT_LOWEST = ("files",)
# they read the book, or need what builds it
NOT_OF_THE_PACKAGE = ("project", "runners", "frameworks")
NEEDED_BY_CUDA = ("nvidia", "triton", "cuda")


def python_named(version: str) -> str | None:
    """A Python of this version: this one, one on the path, pyenv's or uv's; None where there is none."""
    found = [sys.executable] if sys.version.startswith(f"{version}.") else []
    found += [name for name in (shutil.which(f"python{version}"),) if name]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
    if shutil.which("uv"):
        find = ["uv", "python", "find", "--no-project", version]
        found += subprocess.run(find, capture_output=True, text=True, check=False).stdout.splitlines()[:1]
    for command in found:  # one may be a shim that only says where the others are
        says = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
        if says.returncode == 0 and says.stdout.startswith(f"Python {version}."):
            return command
    return None


def resolved(version: str, resolution: str) -> list[str]:
    """Every package with its version, one requirement a line."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--no-annotate"]
    command += ["--only-binary=:all:", f"--python-version={version}", *(f"--extra={extra}" for extra in EXTRAS)]
    command += ["--resolution=lowest-direct"] if resolution == "lowest" else ["--constraints=constraints.txt"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if "==" in line]


def made(version: str, resolution: str, python: str, torch_index: str | None) -> Path:
    """A new environment with these versions. Returns its python."""
    folder = PLACE / f"{version}-{resolution}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    lines = resolved(version, resolution)
    (torch,) = [line for line in lines if line.startswith("torch==")]
    others = [line for line in lines if line != torch and not line.startswith(NEEDED_BY_CUDA)]
    listed = folder / "versions.txt"
    listed.write_text("\n".join(others) + "\n", encoding="utf-8")
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # torch with what its build needs; then the others exactly; then what runs the tests, changing none of them
    subprocess.run([*pip, *(["--index-url", torch_index] if torch_index else []), torch], check=True)
    subprocess.run([*pip, "--no-deps", "--requirement", listed], check=True)
    subprocess.run([*pip, "--constraint", listed, *TOOLS], check=True)
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([*pip, "--no-deps", "--no-index", build_wheel(Path(name))], check=True)
    return folder / "bin" / "python"


def tested(python: Path, everything: bool, resolution: str) -> bool:
    """Whether the tests of the package pass there."""
    names = [path.stem.removeprefix("test_") for path in sorted((ROOT / "tests").glob("test_*.py"))]
    chosen = [name for name in names if name not in NOT_OF_THE_PACKAGE] if everything else list(QUICK)
    chosen = [name for name in chosen if resolution != "lowest" or name not in NOT_LOWEST]
    files = [ROOT / "tests" / f"test_{name}.py" for name in chosen]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="versions such as 3.12")
    parser.add_argument("--resolution", nargs="+", choices=RESOLUTIONS, default=RESOLUTIONS)
    parser.add_argument("--torch-index", default=os.environ.get("TORCH_INDEX") or None, help="index of PyTorch builds")
    parser.add_argument("--all", action="store_true", help="every test of the package, not only the quick ones")
    parser.add_argument("--keep", action="store_true", help="leave the environments for a closer look")
    arguments = parser.parse_args()
    if not shutil.which("uv"):
        print("uv is needed, to find the lowest versions: https://docs.astral.sh/uv/", file=sys.stderr)
        return 1
    said, failed, ran = [], 0, 0
    for version in arguments.python:
        python = python_named(version)
        if python is None:
            said.append(f"Python {version}: not found here, not tested")
            continue
        for resolution in arguments.resolution:
            name, start = f"Python {version}, {resolution} dependencies", time.perf_counter()
            print(f"== {name}", flush=True)
            try:
                well = tested(made(version, resolution, python, arguments.torch_index), arguments.all, resolution)
                outcome = "passed" if well else "FAILED"
            except subprocess.CalledProcessError as error:
                well, outcome = False, f"FAILED, no environment: {error.stderr or error}"
            ran, failed = ran + 1, failed + (not well)
            said.append(f"{name}: {outcome} ({time.perf_counter() - start:.0f} s)")
            if not arguments.keep:
                shutil.rmtree(PLACE / f"{version}-{resolution}", ignore_errors=True)
    print("\n".join(said))
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
