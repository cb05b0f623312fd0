"""Execute the notebooks as a reader does who has only the installed package, and try their exercises.

    python tools/run_notebooks.py --python .venv-wheel/bin/python [NOTEBOOK ...]

A wheel is built from the tree and installed into the other environment. Copies of the notebooks run there, in a
folder outside the repository, and what they print is compared with what they store (nbval). Two things are added to
each copy, and print nothing:

- a first cell that hides the libraries of every extra that the notebook's setup cell would not install;
- before each solution a cell that runs the exercise's check on the reader's empty answer: the check must fail, and
  for want of an answer, not of a name that only the solution defines.

With --needs, what the other environment must contain is printed, one requirement a line.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import nbformat
from repository import EXTRAS, notebooks

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "stgcn_lab", "benchmarks")

# The libraries of each extra by the names under which they are imported.
MODULES = {
    "applications": ("windpowerlib", "xclim"),
    "explain": ("captum",),
    "grib": ("cfgrib", "eccodes"),
    "scale": ("dask", "lightning_fabric", "onnx", "onnxruntime", "onnxscript", "zarr"),
}
# What they bring with them, although another extra names it.
BRINGS = {"applications": ("dask",)}

HIDE = """\
import sys
for _name in {names!r}:
    assert _name not in sys.modules
    sys.modules[_name] = None  # to import it raises ModuleNotFoundError
del _name
"""

# In a copy of the kernel's names; what is random goes on afterwards as if nothing had been tried.
TRY = """\
def _try_without_an_answer():
    import contextlib, io, random, sys
    import numpy, torch
    names, said = dict(globals()), io.StringIO()
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            exec({check!r}, names)
    except NameError as why:
        return "{what}: the check fails for a name that the answer need not define: " + str(why)
    except Exception:
        return None
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
    return "{what}: the check passes without an answer"

assert not (_found := _try_without_an_answer()), _found
del _try_without_an_answer, _found
"""


def needs(root: Path = ROOT) -> list[str]:
    """Requirements of the environment: those of the package and its extras, of a kernel, and of the comparison."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    runs = ("ipykernel", "ipywidgets", "nbval", "pytest>", "setuptools")
    tools = [line for name in ("book", "test") for line in extras[name] if line.startswith(runs)]
    return [*project["dependencies"], *(line for name in MODULES for line in extras[name]), *tools]


def chapters(root: Path = ROOT) -> list[Path]:
    """Every notebook but the graded assignments, whose tests come with the grader."""
    return [path for path in notebooks(root) if root / "teaching" / "assignments" not in path.parents]


def build_wheel(folder: Path, root: Path = ROOT) -> Path:
    """The package as a wheel, built from a copy of its sources: nothing of an earlier build can slip in."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(root / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True, cwd=folder)
    shutil.rmtree(source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def exercise_number(cells: list[Any], index: int) -> str:
    """The exercise that a cell belongs to, by the nearest heading above it."""
    for cell in reversed(cells[:index]):
        heading = re.search(r"^### (Exercise \d+)", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            return heading.group(1)
    return "an exercise"


def prepared(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """A notebook with the cells that hide the other extras and try the exercises without an answer."""
    mine = EXTRAS.get(name, "").split(",")
    brought = [module for extra in mine for module in BRINGS.get(extra, ())]
    others = [module for extra, modules in MODULES.items() if extra not in mine for module in modules]
    hidden = [module for module in others if module not in brought]
    cells = [nbformat.v4.new_code_cell(HIDE.format(names=hidden).rstrip())]
    for index, cell in enumerate(notebook.cells):
        check = notebook.cells[index + 1] if "solution" in tags(cell) and index + 1 < len(notebook.cells) else None
        if check is not None and "check" in tags(check):
            source = TRY.format(check=check.source, what=exercise_number(notebook.cells, index))
            cells.append(nbformat.v4.new_code_cell(source.rstrip()))
        cells.append(cell)
    notebook.cells = cells
    return notebook


def run(python: Path, paths: list[Path], root: Path = ROOT) -> int:
    """Build, install, copy, execute and compare. Returns the exit status of pytest."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}
    with tempfile.TemporaryDirectory(prefix="stgcn-lab-") as name:
        folder = Path(name).resolve()
        wheel = build_wheel(folder, root)
        install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--force-reinstall", wheel]
        subprocess.run(install, check=True, cwd=folder, env=environment)
        where = "import stgcn_lab; print(stgcn_lab.__file__)"
        asked = subprocess.run([python, "-c", where], check=True, cwd=folder, env=environment, stdout=subprocess.PIPE)
        package = Path(asked.stdout.decode().strip())
        if "site-packages" not in package.parts:
            raise RuntimeError(f"expected the installed wheel, found {package}")
        for path in paths:
            relative = path.resolve().relative_to(root)
            copy = folder / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            notebook = prepared(nbformat.read(path, as_version=4), relative.as_posix())
            nbformat.write(notebook, copy)
        command = [python, "-m", "pytest", "-c", root / "pyproject.toml", "--rootdir", folder, "-p", "no:cacheprovider"]
        command += ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "300"]
        command += ["--nbval-kernel-startup-timeout", "120"]
        command += [path.resolve().relative_to(root) for path in paths]
        return subprocess.run(command, check=False, cwd=folder, env=environment).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all but the assignments")
    parser.add_argument("--python", type=Path, help="python of the environment to run them in")
    parser.add_argument("--needs", action="store_true", help="print what that environment must contain")
    arguments = parser.parse_args()
    if arguments.needs:
        print("\n".join(needs()))
        return 0
    if arguments.python is None or shutil.which(arguments.python) is None:
        parser.error(f"--python: expected the python of another environment, found {arguments.python}")
    for path in arguments.notebooks:
        if not path.is_file() or path.suffix != ".ipynb" or ROOT not in path.resolve().parents:
            parser.error(f"NOTEBOOK: expected a notebook below {ROOT}, found {path}")
    try:
        # not resolved: the python of an environment is a link to the one that made it
        return run(arguments.python.absolute(), arguments.notebooks or chapters())
    except subprocess.CalledProcessError as error:
        print(f"error: this failed, and says why above: {shlex.join(map(str, error.cmd))}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
