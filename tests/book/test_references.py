"""Everything that a page points to is there: files, headings, equations, works."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import book_files as book
import pytest
import yaml

PAGES = [*book.NOTEBOOKS, *book.MARKDOWN]
each_page = pytest.mark.parametrize("path", [*PAGES, *book.PROJECT_PAGES], ids=book.label)


def toc_files() -> list[str]:
    toc = yaml.safe_load((book.BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def test_table_of_contents_and_pages_agree():
    pages = {path.relative_to(book.BOOK).with_suffix("").as_posix() for path in PAGES}
    listed = toc_files()
    assert len(set(listed)) == len(listed)
    assert set(listed) == pages


@each_page
def test_relative_links_lead_somewhere(path: Path):
    for link in book.links(path):
        if re.match(r"[a-z]+:", link.target):
            assert link.target.startswith(("https://", "mailto:")), link.target
            continue
        file, _, anchor = link.target.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.is_file(), f"{link.target}: no such file"
        if anchor:
            assert target.suffix in (".md", ".ipynb"), f"{link.target}: an anchor in no page"
            assert anchor in book.anchors(target), f"{link.target}: no such heading"


def test_equation_numbers_are_unique_and_carry_their_chapter():
    numbers = Counter(tag for path in PAGES for tag in book.equation_tags(path))
    assert not [number for number, count in numbers.items() if count > 1]
    for path in book.NOTEBOOKS:
        chapter = str(int(path.name.split("-")[0]))
        for number in book.equation_tags(path):
            assert re.fullmatch(rf"{chapter}\.\d+", number), f"{number} in chapter {chapter}"


def test_equation_references_have_an_equation():
    numbers = {tag for path in PAGES for tag in book.equation_tags(path)}
    missing = {(book.label(path), n) for path in PAGES for n in book.equation_references(path) - numbers}
    assert not missing


@each_page
def test_cited_works_are_in_the_bibliography(path: Path):
    known = set().union(*book.bibliography().values())
    cited = {book.work_of(link.target) for link in book.links(path)} - {None}
    assert not cited - known, "add to book/references.bib"


def test_bibliography_has_each_work_once():
    works = Counter(work for found in book.bibliography().values() for work in found)
    assert works
    assert not [work for work, count in works.items() if count > 1]
