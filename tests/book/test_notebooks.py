"""Every notebook keeps the promises of the book: executed, within its cost, readable, complete."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import book_files as book
import pytest

MAX_SECONDS, MAX_MB = 90, 1500
MAX_CELL_LINES, MAX_LINE_LENGTH = 25, 88
MIN_ALT = 30
MIN_WORDS_A_CODE_LINE = 8
HIDING = {"hide-cell", "hide-input", "hide-output", "remove-cell"}
KNOWN_TAGS = {*HIDING, "setup", "exercise", "solution", "check", "nbval-ignore-output"}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|Users|work|mnt|var|opt|content)/[\w.-]+|[A-Z]:\\+Users")

each_notebook = pytest.mark.parametrize("path", book.NOTEBOOKS, ids=book.label)


def solutions(path: Path):
    return [cell for cell in book.code_cells(path) if "solution" in book.tags(cell)]


def test_the_book_has_notebooks():
    assert book.NOTEBOOKS, "no notebook under book/: every other test of this file would pass on nothing"


@each_notebook
def test_executed_in_order_without_error(path):
    cells = book.code_cells(path)
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "run: make notebooks NB=" + book.label(path)
    errors = [out.evalue for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert not errors


@each_notebook
def test_stored_outputs_have_no_warning_and_no_path_of_a_machine(path):
    for cell in book.code_cells(path):
        for output in cell.outputs:
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            if output.get("name") == "stderr":
                assert not re.search(r"warning|error|traceback", text, re.IGNORECASE), text
            assert not MACHINE_PATH.search(text), text
        assert not MACHINE_PATH.search(cell.source), cell.source


@each_notebook
def test_metadata_is_normalised(path):
    notebook = book.read(path)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert dict(notebook.metadata.language_info) == {"name": "python"}
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]
    identifiers = [cell.id for cell in notebook.cells]
    assert len(set(identifiers)) == len(identifiers)


@each_notebook
def test_header_box(path):
    first = book.read(path).cells[0]
    assert first.cell_type == "markdown"
    title, *rest = [line for line in first.source.splitlines() if line.strip()]
    assert re.match(r"# \S", title)
    assert rest, "the header box is missing"
    assert all(line.startswith(">") for line in rest), "the box is one blockquote, alone below the title"
    box = "\n".join(rest)
    outcomes = re.search(r"^> \*\*You will be able to\*\*((?:\n>.*)*?)\n> \*\*You need\*\* \S", box, re.MULTILINE)
    assert outcomes, "the box says what you will be able to do, then what you need"
    assert len(re.findall(r"^> [-*] \S", outcomes.group(1), re.MULTILINE)) >= 2
    assert len(book.runner.COST.findall(box)) == 1


@each_notebook
def test_cost_is_measured_published_and_within_limits(path):
    entry = book.measurements().get(book.label(path))
    assert entry, "not measured; run: make notebooks NB=" + book.label(path)
    assert entry["sha256"] == book.runner.code_hash(book.read(path)), "the code changed after the measurement"
    header = book.read(path).cells[0].source
    assert header == book.runner.with_cost(header, entry), "the Cost line is not what was measured"
    assert entry["seconds"] <= MAX_SECONDS
    assert entry["peak_mb"] <= MAX_MB


@each_notebook
def test_code_cells_are_short_plain_python(path):
    for cell in book.code_cells(path):
        lines = cell.source.splitlines()
        assert 0 < len(lines) <= MAX_CELL_LINES, f"{len(lines)} lines: {lines[:1]}"
        assert max(map(len, lines)) <= MAX_LINE_LENGTH, max(lines, key=len)
        ast.parse(cell.source)  # no magics: the code is that of a script, too
        assert not cell.source.rstrip().endswith(";"), "strict comparison of outputs fails on a trailing ;"


@each_notebook
def test_more_prose_than_code(path):
    words = sum(len(text.split()) for text in book.prose(path))
    shown = [c for c in book.code_cells(path) if not book.tags(c) & {"setup", "exercise", "solution", "check"}]
    lines = sum(1 for cell in shown for line in cell.source.splitlines() if line.strip())
    assert words / lines >= MIN_WORDS_A_CODE_LINE


@each_notebook
def test_figures_can_be_read_without_eyes(path):
    cells = book.code_cells(path)
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        pictures = [out for out in cell.outputs if "image/png" in out.get("data", {})]
        if not pictures:
            continue
        assert len(pictures) == 1, "one figure a cell"
        layout = cell.metadata.get("mystnb", {})
        assert len(layout.get("image", {}).get("alt", "").strip()) >= MIN_ALT, cell.source
        assert layout.get("figure", {}).get("caption", "").strip(), cell.source
        assert re.fullmatch(r"fig-[a-z0-9-]+", layout["figure"].get("name", "")), cell.source
        summary = book.printed(cell) + (book.printed(following) if following else "")
        assert re.search(r"\d", summary), f"no numbers printed beside {layout['figure']['name']}"


def test_figure_names_are_unique_in_the_book():
    names = Counter(
        cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for path in book.NOTEBOOKS
        for cell in book.code_cells(path)
        if book.has_image(cell)
    )
    assert not [name for name, count in names.items() if count > 1]


RAW = {
    "a directive": r"^\s*(?:>\s*)?(?:`{3,}|~{3,}|:{3,})\s*\{",
    "a colon fence": r"^\s*:::",
    "a role": r"\{[a-zA-Z][\w:+-]*\}`",
    "a target": r"^\([\w-]+\)=\s*$",
    "a labelled equation": r"\$\$\s*\([\w:.-]+\)",
    "an attribute block": r"^\{[#.][\w-]+[^}]*\}\s*$",
}


@each_notebook
def test_prose_reads_well_in_any_notebook_viewer(path):
    for text in book.prose(path):
        for what, pattern in RAW.items():
            found = re.search(pattern, text, re.MULTILINE)
            assert not found, f"{what}, which only the built book understands: {found and found.group(0)!r}"


@each_notebook
def test_sections(path):
    headings = [line for text in book.prose(path) for line in re.findall(r"^## (.+?)\s*$", text, re.MULTILINE)]
    closing = ["What can go wrong", "Summary", "Exercises", "References"]
    assert [heading for heading in headings if heading in closing] == closing
    assert headings[-1] == "References"


FIRST_LINES = {
    "exercise": r"# Exercise {number}: your answer \(replace the dots, then run the check below\)",
    "solution": r"# Solution \(open to compare with yours\)",
    "check": r"# Check \(run it after your answer\)",
}


@each_notebook
def test_each_exercise_has_a_stub_a_hidden_solution_and_a_check(path):
    number, expected = 0, []
    for cell in book.read(path).cells:
        kinds = sorted(book.tags(cell) & set(FIRST_LINES))
        if cell.cell_type == "markdown":
            for heading in re.findall(r"^#{1,3} .+$", cell.source, re.MULTILINE):
                assert not expected, f"exercise {number} lacks its {expected}"
                exercise = re.match(r"### Exercise (\d+): \S", heading)
                if exercise:
                    number += 1
                    assert int(exercise.group(1)) == number
                    expected = list(FIRST_LINES)
        elif kinds:
            assert expected and kinds == [expected.pop(0)], f"exercise {number}: {kinds} is out of place"
            assert re.match(FIRST_LINES[kinds[0]].format(number=number) + "\n", cell.source), cell.source[:80]
            if kinds != ["exercise"]:
                assert "hide-cell" in book.tags(cell)
                assert cell.metadata.get("jupyter", {}).get("source_hidden") is True
                assert cell.metadata.get("cellView") == "form"
        else:
            assert not expected, f"exercise {number}: a cell between its {expected} and what comes before"
    assert not expected, f"exercise {number} lacks its {expected}"
    assert 3 <= number <= 6


def assigned(cell) -> set[str]:
    """What a cell defines at its top level."""
    found = set()
    for statement in ast.parse(cell.source).body:
        if isinstance(statement, ast.FunctionDef):
            found.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            found |= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return found


@each_notebook
def test_stubs_ask_for_what_the_checks_need(path):
    """That a stub fails its check, and a solution passes it, is shown where the notebooks run (make test)."""
    cells = [cell for cell in book.code_cells(path) if book.tags(cell) & {"exercise", "check"}]
    for stub, check in zip(cells[::2], cells[1::2], strict=True):
        used = {node.id for node in ast.walk(ast.parse(check.source)) if isinstance(node, ast.Name)}
        asked = assigned(stub)
        assert asked, stub.source
        assert asked <= used, f"not used by the check: {sorted(asked - used)}"
        assert book.has_assert(check.source), check.source
        for statement in ast.parse(stub.source).body:  # nothing but dots: no part of the answer
            value = statement.body[-1].value if isinstance(statement, ast.FunctionDef) else statement.value
            assert isinstance(value, ast.Constant) and value.value is ..., ast.unparse(statement)


@each_notebook
def test_what_is_not_compared_is_asserted(path):
    cells = book.code_cells(path)
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        assert book.tags(cell) <= KNOWN_TAGS, f"unknown or forbidden tag: {book.tags(cell) - KNOWN_TAGS}"
        assert "NBVAL" not in cell.source, "the rule of comparison stands in the tags, not in a comment"
        if "nbval-ignore-output" in book.tags(cell):  # of a solution its check asserts what it is
            told = following.source if "solution" in book.tags(cell) else cell.source
            assert book.has_assert(told), cell.source
