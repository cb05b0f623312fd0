"""What a reader sees who opens the files as they are, on Binder, on Colab or where the repository is shown."""

from __future__ import annotations

import re

import book_files as book
import pytest
from test_notebooks import RAW

TEACHING = book.ROOT / "teaching"
SHOWN = [*book.PROJECT_PAGES, *(path for kind in ("*.md", "*.ipynb") for path in sorted(TEACHING.rglob(kind)))]
ELSEWHERE = re.compile(r"^(?:https?:|#|mailto:)")


@pytest.mark.parametrize("path", SHOWN, ids=book.label)
def test_what_is_opened_as_it_is_has_no_raw_directives(path):
    for text in book.prose(path):
        outside_code = re.sub(r"^(`{3,}|~{3,})\n?.*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
        for what, pattern in RAW.items():
            found = re.search(pattern, re.sub(r"(?<!\})`[^`\n]+`", "", outside_code), re.MULTILINE)
            assert not found, f"{what}: {found and found.group(0)!r}"


@pytest.mark.parametrize("path", [*SHOWN, *book.NOTEBOOKS], ids=book.label)
def test_links_of_what_is_opened_as_it_is_lead_to_files(path):
    links = [link.target for link in book.links(path) if not ELSEWHERE.match(link.target)]
    missing = [target for target in links if not (path.parent / target.partition("#")[0]).exists()]
    assert not missing


def test_the_launched_cells_are_those_of_the_page():
    """A cell that is left out of the page has no place in a notebook, but for the setup cell."""
    for path in book.NOTEBOOKS:
        removed = [cell for cell in book.read(path).cells if "remove-cell" in book.tags(cell)]
        assert all("setup" in book.tags(cell) for cell in removed), path.name
