"""How the tests of this folder read the book: its notebooks, Markdown, links and references."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors.index import slugify
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pybtex.database import parse_file

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"

_spec = importlib.util.spec_from_file_location("notebooks", ROOT / "benchmarks" / "notebooks.py")
assert _spec and _spec.loader
runner = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runner)

NOTEBOOKS: list[Path] = runner.all_notebooks()
MARKDOWN = sorted(p for p in BOOK.rglob("*.md") if not {"_build", "_extra"} & set(p.parts))
PROJECT_PAGES = [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md") if p.exists()]

_parser = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin)


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def tags(cell: nbformat.NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> list[str]:
    """The Markdown of a page: one text for each Markdown cell, or the whole file."""
    if path.suffix == ".ipynb":
        return [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    return [path.read_text(encoding="utf-8")]


def _tokens(text: str) -> list[Any]:
    found = []
    for token in _parser.parse(text):
        found.append(token)
        found.extend(token.children or [])
    return found


@dataclass(frozen=True)
class Link:
    target: str
    text: str


def links(path: Path) -> list[Link]:
    """Every Markdown link and image of a page; code and mathematics are no links."""
    found = []
    for text in prose(path):
        tokens = _tokens(text)
        for i, token in enumerate(tokens):
            if token.type == "link_open":
                words = next((t.content for t in tokens[i + 1 :] if t.type in ("text", "code_inline")), "")
                found.append(Link(unquote(str(token.attrs["href"])), words))
            elif token.type == "image":
                found.append(Link(unquote(str(token.attrs["src"])), token.content))
    return found


def anchors(path: Path) -> set[str]:
    """What a link into this page may name: the slugs of its headings, its labels, its glossary terms."""
    found: set[str] = set()
    for text in prose(path):
        tokens = _parser.parse(text)
        for opening, inline in zip(tokens, tokens[1:], strict=False):
            if opening.type == "heading_open":
                title = "".join(t.content for t in inline.children or [] if t.type in ("text", "code_inline"))
                slug, number = slugify(title), 1
                while slug in found:  # a repeated heading gets -1, -2, ...
                    slug, number = f"{slugify(title)}-{number}", number + 1
                found.add(slug)
        found |= set(re.findall(r"^\(([\w-]+)\)=\s*$", text, re.MULTILINE))
    return found


def equation_tags(path: Path) -> list[str]:
    return [tag for text in prose(path) for tag in re.findall(r"\\tag\{([^}]*)\}", text)]


def equation_references(path: Path) -> set[str]:
    """The numbers n.m in "equation (n.m)", "equations (n.m) and (n.m)": in the prose, and in notebooks in the code."""
    texts = prose(path)
    if path.suffix == ".ipynb":
        texts += [cell.source for cell in code_cells(path)]
    found: set[str] = set()
    for text in texts:
        for several in re.findall(r"equations?[\s~#]+((?:\(\d+\.\d+\)(?:[\s,~#–-]|and|or|to)*)+)", text, re.IGNORECASE):
            found |= set(re.findall(r"\((\d+\.\d+)\)", several))
    return found


def work_of(url: str) -> str | None:
    """The DOI or arXiv number that a link leads to, in lower case; None for any other link."""
    doi = re.match(r"https?://(?:dx\.)?doi\.org/(10\.\S+)", url)
    if doi:
        return unquote(doi.group(1)).lower()
    arxiv = re.match(r"https?://arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})", url)
    return f"arxiv:{arxiv.group(1)}" if arxiv else None


def bibliography() -> dict[str, set[str]]:
    """For each entry of references.bib the works (DOI, arXiv number) that it stands for."""
    works: dict[str, set[str]] = {}
    for key, entry in parse_file(BOOK / "references.bib").entries.items():
        found = {work_of(entry.fields.get("url", ""))}
        if "doi" in entry.fields:
            found.add(entry.fields["doi"].lower())
        if "eprint" in entry.fields:
            found.add(f"arxiv:{entry.fields['eprint']}")
        works[key] = {work for work in found if work}
    return works


def has_assert(source: str) -> bool:
    """Whether the code asserts something: an assert statement, or a call of an assert_... function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.startswith("assert_"):
                return True
    return False


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(out.text for out in cell.get("outputs", []) if out.output_type == "stream" and out.name == "stdout")


def has_image(cell: nbformat.NotebookNode) -> bool:
    return any("image/png" in out.get("data", {}) for out in cell.get("outputs", []))


def measurements() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "notebooks.json").read_text(encoding="utf-8"))
