"""Every picture has a text in its place that says what is to be seen."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from book_files import BOOK, MARKDOWN, NOTEBOOKS, code_cells, has_image, label, prose
from markdown_it import MarkdownIt

SHORTEST, LONGEST = 40, 500  # characters: one sentence that says something, and what one still listens to
# A screen reader has said "image" already
IDLE = re.compile(
    r"^(?:(?:a|an|the|this)\s+)?(?:image|figure|picture|photo|graphic|screenshot|visuali[sz]ation|illustration)\b"
    r"(?:\s+(?:of|showing|that shows|shows|with|above|below)\b|\s*[:.]|$)|^(?:shows|showing|see)\b",
    re.IGNORECASE,
)
FILE = re.compile(r"\b[\w-]+\.(?:png|svg|jpe?g|gif|webp)\b", re.IGNORECASE)
WORD = re.compile(r"[a-z]+")


def complaints(alt: str, caption: str = "") -> list[str]:
    """What is wrong with the text of a picture."""
    found = []
    if not SHORTEST <= len(alt) <= LONGEST:
        found.append(f"expected {SHORTEST} to {LONGEST} characters, found {len(alt)}")
    if IDLE.match(alt):
        found.append("begins by saying that it is a picture: say at once what is to be seen")
    if FILE.search(alt):
        found.append("names a file")
    if alt != alt.strip() or not alt.endswith((".", "!", "?")):
        found.append("is no sentence: expected a full stop at its end")
    own, given = set(WORD.findall(alt.lower())), set(WORD.findall(caption.lower()))
    if own and len(own - given) < 5:
        found.append("says hardly more than the caption")
    return found


def figures(path):
    """Number of the cell, alternative text and caption of each figure of a notebook."""
    for number, cell in enumerate(code_cells(path)):
        image = cell.metadata.get("mystnb", {})
        if has_image(cell) or "image" in image:
            alt = image.get("image", {}).get("alt", "")
            yield number, alt, image.get("figure", {}).get("caption", "")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=label)
def test_figures_of_a_chapter(path):
    found = list(figures(path))
    assert found
    wrong = [f"code cell {n}: {what}: {alt[:70]!r}" for n, alt, cap in found for what in complaints(alt, cap)]
    assert not wrong, "\n".join(wrong)


def test_no_two_figures_say_the_same():
    said = Counter(alt for path in NOTEBOOKS for _, alt, _ in figures(path))
    assert len(said) > 100
    assert said.most_common(1)[0][1] == 1, said.most_common(1)


@pytest.mark.parametrize("path", [*NOTEBOOKS, *MARKDOWN], ids=label)
def test_pictures_in_the_text(path):
    parser = MarkdownIt("commonmark")
    for text in prose(path):
        for token in parser.parse(text):
            for child in token.children or []:
                if child.type == "image":
                    assert not complaints(child.content), (child.content, complaints(child.content))
        for block in re.findall(r"^:{3,}\{(?:figure|image)\}.*?^:{3,}", text, re.DOTALL | re.MULTILINE):
            alt = re.search(r"^:alt:\s*(.+)$", block, re.MULTILINE)
            assert alt and not complaints(alt[1]), block
        for tag in re.findall(r"<img\b[^>]*>|<svg\b[^>]*>", text):
            assert re.search(r'\b(?:alt|aria-label|aria-labelledby|aria-hidden)="[^"]+"', tag), tag


def test_the_front_page_has_a_picture():
    """So the test above has something to look at."""
    assert re.search(r"!\[[^\]]{40,}\]\(|:alt: .{40,}", (BOOK / "index.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "alt, caption, word",
    [
        ("Wind at noon.", "", "characters"),
        ("A figure showing the wind of twelve stations on a map of Ireland at noon.", "", "picture"),
        ("Image of twelve stations on a map of Ireland, dark where the wind is strong.", "", "picture"),
        ("wind_map.png: twelve stations of Ireland, dark where the wind is strong.", "", "file"),
        ("The windiest day at Valentia in ten years, the day before and after.",
         "The windiest day at Valentia in ten years, the day before, the day after.", "caption"),
        ("Twelve stations on a map of Ireland; two are dark", "", "sentence"),
    ],
)  # fmt: skip
def test_idle_words_are_seen(alt, caption, word):
    assert any(word in complaint for complaint in complaints(alt, caption))


def test_a_good_text_passes():
    good = "Map of Ireland with twelve stations. The wind is strongest in the north-west and weakest around Dublin."
    assert not complaints(good, "The wind of one day")
