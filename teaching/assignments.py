"""Build the graded assignments from their master notebooks, and mark what students hand in. All of it offline.

    python teaching/assignments.py build [NAME ...]           # into _build/teach/assignments/NAME/
    python teaching/assignments.py grade NAME NOTEBOOK ...     # a table of points; --csv FILE for a class
    python teaching/assignments.py list

A master, ``teaching/assignments/NAME.ipynb``, holds text, solutions, open and hidden tests in the format of Otter
Assign. From it come ``student/NAME.ipynb`` (hand this out), ``autograder/NAME.zip`` (the tests, for this program,
for ``otter run`` or for Gradescope) and ``solution/NAME.ipynb`` (executed; keep it). What doesn't earn its solution
full marks is not written. NAME may be a number, "3", or the beginning of a name.

To mark a notebook is to run a stranger's code with your rights: do it in an account or a container that has nothing
to lose.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import io
import logging
import os
import re
import sys
import tempfile
import warnings
import zipfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
MASTERS = ROOT / "teaching" / "assignments"
BUILT = ROOT / "_build" / "teach" / "assignments"
SECONDS = 600  # for one notebook; a master takes less than a tenth of it
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can hold: two builds shall be equal

GRADER = """\
# The grader. It reads the open tests from this very file, so keep the file's name.
try:
    import otter
except ImportError:
    raise ImportError("The grader is missing: pip install otter-grader") from None
grader = otter.Notebook("{file}")"""


# An endless loop ends with its kernel (Windows has no alarm). The tests lie in the folder that the kernel began in:
# who changes the folder is taken back after each cell, or would lose all points.
FIRST = """\
import os, signal
if hasattr(signal, "alarm"):
    signal.alarm({seconds})
get_ipython().events.register("post_run_cell", lambda result, home=os.getcwd(), go=os.chdir: go(home))"""


class AssignmentError(Exception):
    """What a teacher can mend; printed without a traceback."""


@dataclass(frozen=True)
class Question:
    """One question of an assignment: its name, its points, and whether a person marks it."""

    name: str
    points: float
    by_hand: bool


@dataclass(frozen=True)
class Result:
    """What one question of one notebook earned; messages of the tests that failed."""

    question: Question
    points: float | None  # None: to be marked by hand
    messages: tuple[str, ...] = ()


def masters() -> list[Path]:
    """All master notebooks, by number."""
    return sorted(MASTERS.glob("[0-9][0-9]-*.ipynb"))


def master(name: str) -> Path:
    """The master of this name, number or beginning of a name.

    Raises:
        AssignmentError: if none or several fit.
    """
    wanted = f"{int(name):02d}-" if name.isdecimal() else Path(name).stem
    found = [path for path in masters() if path.stem.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(path.stem for path in masters())
        raise AssignmentError(f"NAME: expected one of {known} (or its number), found {name!r}")
    return found[0]


def questions(path: Path) -> list[Question]:
    """The questions of a master notebook in their order."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "raw" and cell.source.startswith("# BEGIN QUESTION"):
            config = yaml.safe_load(cell.source)
            found.append(Question(config["name"], config["points"], bool(config.get("manual"))))
    return found


def build(path: Path, out: Path = BUILT, check: bool = True) -> Path:
    """Student version, autograder and solution of one master, written whole or not at all.

    Args:
        path: the master notebook.
        out: folder of all assignments; the result is ``out/NAME``.
        check: also mark the solution, which must earn all points, and store its outputs. Takes seconds.

    Returns:
        The folder that was written.

    Raises:
        AssignmentError: if Otter can't read the master, or its solution fails its own tests.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as scratch:
        raw, new = Path(scratch, "raw"), Path(scratch, path.stem)
        _assign(path, raw)
        for folder in ("student", "autograder", "solution"):
            (new / folder).mkdir(parents=True)
        archive = new / "autograder" / f"{path.stem}.zip"
        _settle_zip(next((raw / "autograder").glob("*.zip")), archive)
        solution = _with_setup(raw / "autograder" / path.name)
        if check:
            marked, executed = _mark(solution, archive, path)
            lost = [result for result in marked if result.points not in (None, result.question.points)]
            if lost:
                raise AssignmentError(f"{path.name}: its own solution loses points\n{table(marked, messages=True)}")
            solution = _without_grading(executed, solution)
        nbformat.write(_with_setup(raw / "student" / path.name), new / "student" / path.name)
        nbformat.write(solution, new / "solution" / path.name)
        _put(new, out / path.stem, Path(scratch))
    return out / path.stem


def _put(new: Path, target: Path, aside: Path) -> None:
    """Move a folder to its place and what was there aside; again where another build was faster."""
    for attempt in range(5):
        try:
            if target.exists():
                target.rename(aside / f"old-{attempt}")
            new.rename(target)
            return
        except OSError:
            if attempt == 4:
                raise


def grade(name: str, notebook: Path, out: Path = BUILT) -> list[Result]:
    """Mark one notebook with the autograder of the assignment ``name``, building it first if it is not there.

    Raises:
        AssignmentError: for a file that is no notebook or belongs to another assignment, or that can't be run.
    """
    path = master(name)
    archive = out / path.stem / "autograder" / f"{path.stem}.zip"
    if not archive.exists() or archive.stat().st_mtime < path.stat().st_mtime:
        build(path, out)
    try:
        given = nbformat.read(notebook, as_version=4)
        mark = given.metadata.get("otter")
    except Exception as error:  # nbformat lets through whatever odd JSON makes it stumble over
        raise AssignmentError(f"{notebook}: expected a Jupyter notebook (.ipynb), found: {error}") from None
    belongs = mark.get("assignment_name") if isinstance(mark, dict) else None
    if belongs != path.stem:
        raise AssignmentError(
            f"{notebook}: expected a notebook of {path.stem}, found one of {belongs or 'no assignment'}"
        )
    return _mark(given, archive, path)[0]


def table(results: list[Result], messages: bool = False) -> str:
    """The points as text, one line a question; with the messages of failed tests if asked for."""
    lines = []
    for result in results:
        got = "by hand" if result.points is None else f"{result.points:7.4g}"
        lines.append(f"{result.question.name:6s} {got:>7s} of {result.question.points:g}")
        if messages:
            lines += [f"         {line}" for message in result.messages for line in message.splitlines()]
    got, most = total(results)
    left = sum(r.question.points for r in results if r.points is None)
    lines.append(f"{'total':6s} {got:7.4g} of {most:g}" + (f", and up to {left:g} by hand" if left else ""))
    return "\n".join(lines)


def total(results: list[Result]) -> tuple[float, float]:
    """Points earned by tests, and points that tests can give."""
    tested = [r for r in results if r.points is not None]
    return sum(r.points or 0 for r in tested), sum(r.question.points for r in tested)


def _otter(name: str) -> Any:
    """The function ``main`` of one of Otter's parts."""
    try:
        return importlib.import_module(f"otter.{name}").main
    except ImportError as error:
        raise AssignmentError(
            f"Otter is missing ({error}): `make teach` installs it, and so does pip install '.[teach]'"
        ) from error


def _assign(path: Path, target: Path) -> None:
    """Otter Assign, without its own run of the tests: ours also catches a kernel that dies."""
    assign = _otter("assign")
    with _quiet() as said:
        try:
            assign(str(path), str(target), no_pdfs=True, no_run_tests=True)
        except Exception as error:
            raise AssignmentError(f"{path}: otter assign failed: {error}\n{said.getvalue()}".rstrip()) from error


def _settle_zip(made: Path, target: Path) -> None:
    """The same archive with entries sorted and without the time of its making."""
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(source.namelist()):
            archive.writestr(zipfile.ZipInfo(name, LONG_AGO), source.read(name), zipfile.ZIP_DEFLATED)


def _with_setup(path: Path) -> nbformat.NotebookNode:
    """A notebook of Otter's with the title and the setup first, and ids that don't change from build to build."""
    notebook = nbformat.read(path, as_version=4)
    start, rest = notebook.cells[0], notebook.cells[1:]
    if "otter.Notebook(" not in start.source:
        raise AssignmentError(f"{path.name}: expected Otter's own cell at the beginning, found {start.source[:60]!r}")
    start.source = GRADER.format(file=path.name)
    start.metadata = nbformat.from_dict({"tags": ["setup"]})
    setup = [cell for cell in rest if "setup" in cell.metadata.get("tags", [])]
    title, *rest = [cell for cell in rest if cell not in setup]
    notebook.cells = [title, *setup, start, *rest]
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = f"{digest}-{seen[digest]}"
    return notebook


@contextmanager
def _quiet() -> Any:
    """Keep Otter's messages to ourselves; what it said is in the StringIO."""
    said, level = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.WARNING)
    folder, errors = Path.cwd(), os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # the kernel writes to the file itself, not to sys.stderr
        os.dup2(nowhere.fileno(), 2)
    try:
        with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        os.dup2(errors, 2)
        os.close(errors)
        logging.disable(level)
        os.chdir(folder)


def _mark(notebook: nbformat.NotebookNode, archive: Path, path: Path) -> tuple[list[Result], nbformat.NotebookNode]:
    """Run a notebook with the grader in a fresh kernel and a folder of its own: results, executed notebook."""
    run = _otter("run")
    given = nbformat.from_dict(notebook)
    given.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    given.cells = [nbformat.v4.new_code_cell(FIRST.format(seconds=SECONDS)), *given.cells]
    with tempfile.TemporaryDirectory() as scratch, _quiet() as said:
        copy = Path(scratch, path.name)
        nbformat.write(given, copy)
        try:
            graded = run(str(copy), autograder=str(archive), output_dir=scratch, no_logo=True)
        except Exception as error:
            raise AssignmentError(
                f"the notebook could not be marked: {type(error).__name__}: {error}. It may have run longer than "
                f"{SECONDS} s, used too much memory, or ended its own kernel.\n{said.getvalue()}".rstrip()
            ) from error
    results = []
    for question in questions(path):
        if question.by_hand:
            results.append(Result(question, None))
            continue
        found = graded.results.get(question.name)
        if found is None:  # the notebook stopped before the grader could write
            results.append(Result(question, 0.0, ("not run: the notebook did not come to its end",)))
            continue
        failed = [case for case in found.test_case_results if not case.passed]
        messages = tuple(_message(case) for case in failed)
        results.append(Result(question, round(float(found.score), 6), messages))
    return results, graded.notebook


def _message(case: Any) -> str:
    """The last line of a failed test's message, where the reason stands."""
    lines = [line for line in (case.message or "").splitlines() if line.strip()]
    kind = "hidden" if case.test_case.hidden else "open"
    worth = f"{case.test_case.points:g} point" + ("" if case.test_case.points == 1 else "s")
    reason = lines[-1].strip() if lines else "failed"
    if "NoneType' object is not callable" in reason:  # Otter gives None for a name that isn't there
        reason = "a function that the question asks for is missing: was it renamed or deleted?"
    return f"{kind} test, {worth}: {reason}"


def _without_grading(executed: nbformat.NotebookNode, plain: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The plain notebook with the outputs of its executed copy, which the grader has put cells of its own into."""
    outputs = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    for cell in plain.cells:
        if cell.cell_type == "code" and cell.id in outputs:
            for output in outputs[cell.id].outputs:
                if output.output_type == "error":
                    said = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
                    raise AssignmentError(f"the solution raises an error in\n{cell.source}\n{said}")
                if "otter.check" not in output.get("text", ""):  # its log
                    cell.outputs.append(output)
    return plain


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="student version, autograder and solution")
    make.add_argument("name", nargs="*", help="which assignments; all if none is named")
    mark = commands.add_parser("grade", help="mark notebooks that were handed in")
    mark.add_argument("name", help="which assignment")
    mark.add_argument("notebook", nargs="+", type=Path)
    mark.add_argument("--csv", type=Path, help="also write the points of all notebooks to this file")
    commands.add_parser("list", help="assignments, questions, points")
    return parser.parse_args(given)


def _write_csv(target: Path, rows: dict[Path, list[Result]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [result.question.name for result in next(iter(rows.values()))]
    writer.writerow(["notebook", *names, "total"])
    for notebook, results in rows.items():
        points = ["" if r.points is None else f"{r.points:g}" for r in results]
        writer.writerow([str(notebook), *points, f"{total(results)[0]:g}"])
    scratch = target.with_name(f".{target.name}.new")
    scratch.write_text(text.getvalue(), encoding="utf-8")
    scratch.replace(target)


def main(given: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, or 1 where something could not be done."""
    options = _arguments(given)
    try:
        if options.command == "list":
            for path in masters():
                asked = questions(path)
                by_hand = sum(q.points for q in asked if q.by_hand)
                print(f"{path.stem:32s} {len(asked)} questions, {sum(q.points for q in asked):g} points,", end=" ")
                print(f"{by_hand:g} of them by hand")
        elif options.command == "build":
            for path in [master(name) for name in options.name] or masters():
                print(build(path).relative_to(ROOT), flush=True)
        else:
            return _grade_all(options)
    except (AssignmentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _grade_all(options: argparse.Namespace) -> int:
    rows, bad = {}, 0
    master(options.name)  # an unknown name is said once, not once a notebook
    if options.csv and (options.csv.is_dir() or not options.csv.parent.is_dir()):  # not after an hour of marking
        raise AssignmentError(f"--csv: expected a file in a folder that is there, found {options.csv}")
    for notebook in options.notebook:
        try:
            rows[notebook] = grade(options.name, notebook)
            print(f"{notebook}\n{table(rows[notebook], messages=True)}\n", flush=True)
        except AssignmentError as error:
            bad += 1
            print(f"error: {error}\n", file=sys.stderr)
    if options.csv and rows:
        _write_csv(options.csv, rows)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
