"""The page of symbols against the code and the notebooks: no name, equation or link may point to nothing."""

import ast
import importlib
import inspect
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from stgcn_lab.graphs import knn_graph

BOOK = Path(__file__).resolve().parents[2] / "book"
COLUMNS = ["Symbol", "Meaning", "Code", "Shape", "Equation", "Chapter"]
TAG = re.compile(r"\((\d+\.\d+)\)")
LINK = re.compile(r"\[(\d+)\]\(([^)]+)\)")
CODE = re.compile(r"`([^`]+)`")
NAME = re.compile(r"(?P<path>[A-Za-z_][\w.]*)(\((?P<argument>\w+)\))?")


def table() -> list[dict[str, str]]:
    """The rows of the one table of notation.md."""
    lines = (BOOK / "notation.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == COLUMNS
    assert set("".join(rows[1])) <= set("-: ")
    assert all(len(row) == len(COLUMNS) for row in rows[2:])
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[2:]]


ROWS = table()
IDS = [f"{number}-{row['Symbol']}" for number, row in enumerate(ROWS, start=1)]


def notebooks() -> list[Path]:
    return [path for path in sorted(BOOK.rglob("*.ipynb")) if "_build" not in path.parts]


@cache
def cells(path: Path, kind: str) -> tuple[str, ...]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return tuple("".join(cell["source"]) for cell in found if cell["cell_type"] == kind)


@cache
def names_in_code(path: Path) -> frozenset[str]:
    """Every variable, function, argument and attribute that the notebook's own code names."""
    names = set()
    for node in ast.walk(ast.parse("\n".join(cells(path, "code")))):
        for field in ("id", "name", "arg", "attr"):
            if isinstance(getattr(node, field, None), str):
                names.add(getattr(node, field))
    return frozenset(names)


def tags_in(path: Path) -> list[str]:
    return re.findall(r"\\tag\{(\d+\.\d+)\}", "\n".join(cells(path, "markdown")))


def chapters(row: dict[str, str]) -> list[tuple[str, Path]]:
    return [(number, (BOOK / target).resolve()) for number, target in LINK.findall(row["Chapter"])]


def resolve(path: str) -> object:
    """A dotted name: from the package, numpy, torch, or an attribute of a built graph or of an instance."""
    first, *rest = path.split(".")
    if first == "graph":
        found: object = knn_graph(np.array([52.0, 53.0, 54.0]), np.array([-8.0, -7.0, -9.0]), k=1)
    elif first in ("np", "torch"):
        found = {"np": np, "torch": torch}[first]
    else:
        found = importlib.import_module(f"stgcn_lab.{first}")
    for part in rest:
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        assert inspect.isclass(found), f"{path}: {part} does not exist"
        # only an instance has it: a field of a dataclass, or set in one of the methods
        is_set = re.search(rf"self\.{part}\b[^=\n]*=[^=]", inspect.getsource(found))
        assert part in inspect.get_annotations(found) or is_set, f"{path}: {part} is never set"
        found = None
    return found


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_code_names_exist(row):
    names = CODE.findall(row["Code"])
    assert names, "every symbol has a name in the code"
    for name in names:
        parts = NAME.fullmatch(name)
        assert parts, f"cannot read {name!r}"
        if "." not in parts["path"]:
            assert parts["argument"] is None
            assert any(parts["path"] in names_in_code(path) for _, path in chapters(row)), (
                f"{name} is not in the code of {row['Chapter']}"
            )
            continue
        found = resolve(parts["path"])
        if parts["argument"] is not None:
            assert parts["argument"] in inspect.signature(found).parameters, f"{name}: no such argument"


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_rows_are_complete_and_links_resolve(row):
    assert all(row[column] for column in COLUMNS)
    assert row["Symbol"].count("$") >= 2
    found = chapters(row)
    assert found, "every symbol belongs to a chapter"
    for number, path in found:
        assert path.is_file(), f"chapter {number}: {path.name} does not exist"
        assert path.name.startswith(f"{int(number):02d}-")


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_equations_named_exist_in_their_chapter(row):
    tags = TAG.findall(row["Equation"])
    assert tags, "every symbol has an equation"
    known = {tag for path in notebooks() for tag in tags_in(path)}
    assert set(tags) <= known, f"no notebook has {sorted(set(tags) - known)}"
    assert {tag.split(".")[0] for tag in tags} & {number for number, _ in chapters(row)}


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_tags_of_a_notebook_are_listed_once_and_belong_to_it(path):
    tags = tags_in(path)
    listed = {tag for row in ROWS for tag in TAG.findall(row["Equation"])}
    assert set(tags) <= listed, f"notation.md does not list {sorted(set(tags) - listed)}"
    assert len(tags) == len(set(tags)), "one tag, one equation"
    linked = {number for row in ROWS for number, chapter in chapters(row) if chapter == path.resolve()}
    assert {tag.split(".")[0] for tag in tags} <= linked


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_equations_referred_to_exist(path):
    text = "\n".join(cells(path, "markdown"))
    known = {tag for other in notebooks() for tag in tags_in(other)}
    named = set(re.findall(r"[Ee]quations? \((\d+\.\d+)\)", text))
    assert named <= known, f"{path.name} refers to {sorted(named - known)}"


def test_no_symbol_twice_in_one_chapter():
    pairs = [(row["Symbol"], number) for row in ROWS for number, _ in chapters(row)]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_links_to_the_glossary_find_their_word(path):
    headings = re.findall(r"^#{1,3} (.+)$", (BOOK / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    wanted = set(re.findall(r"glossary\.md#([\w-]+)", "\n".join(cells(path, "markdown"))))
    assert wanted <= slugs, f"the glossary has no {sorted(wanted - slugs)}"


def test_glossary_words_are_unique_and_explained():
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^### (.+)\n((?:[^#\n].*\n?)+)", text, re.MULTILINE)
    words = [word for word, _ in entries]
    assert len(words) == text.count("\n### "), "a word without an explanation"
    assert len(words) == len({word.lower() for word in words})
    assert len(words) >= 35
    assert all(6 <= len(meaning.split()) <= 60 for _, meaning in entries)
