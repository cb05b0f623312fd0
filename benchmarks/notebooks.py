"""Execute notebooks, store their outputs, and measure what each costs a reader.

    python benchmarks/notebooks.py [--changed] [NOTEBOOK ...]

Without a path every notebook of the book runs. Each gets a fresh kernel in its own folder and two threads.
The outputs, the Cost line of the header box and benchmarks/notebooks.json are rewritten; a notebook that
fails leaves all three as they were. With --changed, a notebook is skipped when neither its code nor the
package has changed since its last run on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "notebooks.json"
SEEN = ROOT / "_build" / "notebooks-seen.json"  # what ran on this machine; never committed

THREADS = 2
ENVIRONMENT = {
    **{f"{library}_NUM_THREADS": str(THREADS) for library in ("OMP", "MKL", "OPENBLAS")},
    # as the Makefile sets them, and why
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "MALLOC_TOP_PAD_": "67108864",
}
SECONDS_PER_CELL = 600

COST = re.compile(r"^> \*\*Cost\*\* measured at the last execution: \d+ s, \d+ MB", re.MULTILINE)
PROGRESS = re.compile(r"\d+%\|.*(\n|$)")  # a tqdm bar: its time and speed differ in every run


def all_notebooks() -> list[Path]:
    """Every notebook of the book, in the order of the paths."""
    hidden = {"_build", ".ipynb_checkpoints"}
    return [path for path in sorted((ROOT / "book").rglob("*.ipynb")) if not hidden & set(path.parts)]


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of the code cells: what the measurement belongs to. Prose may change without a new run.

    The setup cell does not count: it names the repository and the version, and does nothing where the package is.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code = [cell.source for cell in cells if "setup" not in cell.metadata.get("tags", [])]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def package_hash() -> str:
    """SHA-256 of the package's code and embedded data, and of the locked environment."""
    package = [path for path in sorted((ROOT / "stgcn_lab").rglob("*")) if path.is_file()]
    files = [path for path in package if "__pycache__" not in path.parts]
    digest = hashlib.sha256()
    for path in [*files, ROOT / "constraints.txt", ROOT / "requirements.lock"]:
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def cost_figures(entry: dict[str, Any]) -> str:
    """The rounded figures of the Cost line: whole seconds, memory in tens of MB, both rounded up."""
    seconds = max(1, -int(-entry["seconds"] // 1))
    return f"{seconds} s, {-int(-entry['peak_mb'] // 10) * 10} MB"


def with_cost(source: str, entry: dict[str, Any]) -> str:
    """The header box with the measured figures in its Cost line."""
    return COST.sub(f"> **Cost** measured at the last execution: {cost_figures(entry)}", source)


def kernel_peak_mb(client: NotebookClient) -> float:
    """Peak resident memory of the running kernel in MB (10^6 bytes)."""
    status = Path(f"/proc/{client.km.provisioner.pid}/status")
    if status.exists():
        kibibytes = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if kibibytes:
            return int(kibibytes.group(1)) * 1024 / 1e6
    # Elsewhere the kernel is asked itself; macOS answers in bytes, others in KiB.
    probe = nbformat.v4.new_code_cell("import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
    client.execute_cell(probe, len(client.nb.cells) - 1, store_history=False)
    return int(probe.outputs[0].text) * (1 if sys.platform == "darwin" else 1024) / 1e6


def run(path: Path) -> tuple[nbformat.NotebookNode, float, float]:
    """Execute one notebook in a fresh kernel. Returns it with its outputs, seconds and peak memory in MB."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SECONDS_PER_CELL,
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.reset_execution_trackers()
    with client.setup_kernel():
        start = time.perf_counter()
        count = 0
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                if not cell.source.strip():
                    raise ValueError(f"cell {index} is an empty code cell; remove it")
                count += 1
                client.execute_cell(cell, index, execution_count=count)
        seconds = time.perf_counter() - start
        peak_mb = kernel_peak_mb(client)
    return notebook, seconds, peak_mb


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Keep in the file only what belongs to the book: nothing of this machine or of this run."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                output.text = PROGRESS.sub("", output.text.rpartition("\r")[2])
        cell.outputs = [out for out in cell.outputs if out.output_type != "stream" or out.text.strip()]


def write_atomically(path: Path, text: str) -> None:
    """Write next to the file and rename, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file does not exist yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON with sorted keys, so that a diff shows only what changed."""
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def agrees(old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    """Whether a new measurement of the same code only repeats the old one (10 %, or 2 s and 30 MB)."""
    if old is None or old["sha256"] != new["sha256"]:
        return False
    close_in_time = abs(new["seconds"] - old["seconds"]) <= max(2.0, 0.1 * old["seconds"])
    close_in_memory = abs(new["peak_mb"] - old["peak_mb"]) <= max(30.0, 0.1 * old["peak_mb"])
    return close_in_time and close_in_memory


def execute(path: Path) -> dict[str, Any]:
    """Run one notebook, store it and its measurement; returns the entry that now stands in the table."""
    name = path.relative_to(ROOT).as_posix()
    notebook, seconds, peak_mb = run(path)
    entry = {
        "seconds": round(seconds, 1),
        "peak_mb": round(peak_mb),
        "sha256": code_hash(notebook),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cores": os.cpu_count(),
            "threads": THREADS,
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "torch": version("torch").partition("+")[0],
        },
    }
    results = read_json(RESULTS)
    if agrees(results.get(name), entry):
        entry = results[name]  # nothing new was learnt: no needless change in the files
    normalise(notebook)
    header = notebook.cells[0]
    if not COST.search(header.source):
        print("  its first cell has no Cost line to fill in (see CONTRIBUTING.md)")
    header.source = with_cost(header.source, entry)
    text = nbformat.writes(notebook)
    write_atomically(path, text if text.endswith("\n") else text + "\n")
    results = {key: value for key, value in results.items() if (ROOT / key).exists()}
    write_json(RESULTS, {**results, name: entry})
    return entry


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook of the book")
    parser.add_argument("--changed", action="store_true", help="skip what has not changed since its last run")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)

    paths = [path.resolve() for path in arguments.notebooks] or all_notebooks()
    failed = []
    for number, path in enumerate(paths, start=1):
        if not path.is_file() or ROOT / "book" not in path.parents:
            print(f"{path}: not a notebook of the book (a file under book/)", file=sys.stderr)
            failed.append(path.name)
            continue
        name = path.relative_to(ROOT).as_posix()
        print(f"[{number}/{len(paths)}] {name}", flush=True)
        fingerprint = code_hash(nbformat.read(path, as_version=4)) + package_hash()
        if arguments.changed and read_json(SEEN).get(name) == fingerprint and name in read_json(RESULTS):
            print("  unchanged since its last run here")
            continue
        start = time.perf_counter()
        try:
            entry = execute(path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError, ValueError) as error:
            print(f"  FAILED, the stored notebook is untouched:\n{error}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        write_json(SEEN, {**read_json(SEEN), name: fingerprint})
        took = time.perf_counter() - start
        print(f"  {cost_figures(entry)} (this run {took:.0f} s, start of the kernel included)", flush=True)
    if not paths:
        print("No notebooks yet under book/.")
    if failed:
        print(f"{len(failed)} of {len(paths)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
