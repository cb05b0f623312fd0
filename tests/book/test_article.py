"""The article, answered: every sentence has an entry, and every place that an entry names exists.

STGCN_LAB_ARTICLE names a file with the article; with it the entries are compared with its very sentences.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import book_files as book
import pytest

sys.path.insert(0, str(book.BOOK / "_ext"))
import article as page  # noqa: E402

CONTENT = page.read_article(book.BOOK / "article.yml")
ENTRIES: list[dict[str, Any]] = CONTENT["entries"]
IDS = [entry["id"] for entry in ENTRIES]
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=IDS)


def units(text: str) -> list[tuple[str, str]]:
    """Section and words of each unit: a title, sentence, list item or formula; of the listing each block of lines."""
    found: list[tuple[str, str]] = []
    section, block = "0", None
    for line in text.splitlines():
        if block is not None:
            if line.strip() and not line.startswith("```"):
                block.append(line)
                continue
            if block:
                found.append((section, "\n".join(block)))
            block = None if line.startswith("```") else []
        elif line.startswith("```"):
            block = []
        elif line.startswith("# "):
            found.append((section, line[2:]))
        elif number := re.match(r"#+ (\d+(?:\.\d+)?)", line):
            section = number[1]
        elif line.startswith("$$"):
            found.append((section, line))
        else:
            found += [(section, part) for part in re.split(r"(?<=。)", line) if part.strip()]
    return found


def digest(words: str) -> str:
    return hashlib.sha256(" ".join(words.split()).encode()).hexdigest()[:12]


@cache
def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_units_are_sentences_formulas_and_blocks_of_code():
    text = (
        "# 题\n\n你好。再见。\n1. 一:二。\n\n## 1. 甲\n$$x$$\n\n"
        "```python\na = 1\nb = 2\n\nc = 3\n```\n### 1.1 乙\n完:\n"
    )
    assert units(text) == [
        ("0", "题"), ("0", "你好。"), ("0", "再见。"), ("0", "1. 一:二。"),
        ("1", "$$x$$"), ("1", "a = 1\nb = 2"), ("1", "c = 3"), ("1.1", "完:"),
    ]  # fmt: skip


def test_entries_are_complete_and_in_order():
    expected = [f"{section}-{i}" for section, count in CONTENT["units"].items() for i in range(1, count + 1)]
    assert expected == IDS
    assert list(CONTENT["titles"]) == list(CONTENT["units"])
    assert sum(CONTENT["units"].values()) == 70


def test_digests_are_digests_and_unique():
    digests = Counter(entry["digest"] for entry in ENTRIES)
    assert all(re.fullmatch("[0-9a-f]{12}", one) for one in digests)
    assert not [one for one, count in digests.items() if count > 1]


@pytest.mark.skipif("STGCN_LAB_ARTICLE" not in os.environ, reason="STGCN_LAB_ARTICLE does not name the article")
def test_entries_are_those_of_the_article():
    found = units(Path(os.environ["STGCN_LAB_ARTICLE"]).read_text(encoding="utf-8"))
    counts = Counter(section for section, _ in found)
    assert dict(counts) == CONTENT["units"]
    assert [(page.section_of(entry), entry["digest"]) for entry in ENTRIES] == [(s, digest(t)) for s, t in found]


@each_entry
def test_an_entry_speaks_english_of_its_own(entry):
    for key in ("says", "answer"):
        words = entry[key].strip()
        assert words[-1] in ".?!" and len(words) > 10
        assert not re.search("[\u4e00-\u9fff]", words), "the article's own words"


@each_entry
def test_sections_exist(entry):
    for target in entry.get("sections", []):
        file, _, anchor = target.partition("#")
        path = book.BOOK / file
        assert path.is_file(), target
        assert not anchor or anchor in book.anchors(path), target


@each_entry
def test_functions_exist(entry):
    for name in entry.get("functions", []):
        module, _, function = name.partition(".")
        assert hasattr(importlib.import_module(f"stgcn_lab.{module}"), function), name


@each_entry
def test_tests_exist(entry):
    for name in entry.get("tests", []):
        file, _, function = name.partition("::")
        path = book.ROOT / file
        assert path.is_file(), name
        assert (path in book.NOTEBOOKS) if path.suffix == ".ipynb" else (function in functions_of(path)), name


@each_entry
def test_a_claim_has_its_evidence(entry):
    """Who judges a claim says where it was judged."""
    if entry["status"] != "no claim":
        assert entry.get("sections"), "a verdict without a section"
    if entry["status"] in ("half true", "not borne out", "wrong"):
        assert entry.get("tests"), "a verdict against the article without a test"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"status": "maybe"}, "0-1: status: expected one of"), ({"verdict": "true"}, "0-1: expected .*found")],
)
def test_a_wrong_entry_is_named(tmp_path, change, message):
    import yaml

    path = tmp_path / "article.yml"
    path.write_text(yaml.safe_dump({"entries": [ENTRIES[0] | change]}), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        page.read_article(path)
