"""The slides and pages for teachers: everything on a slide fits, can be read without eyes, and asks nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

TEACH = Path(__file__).resolve().parents[2] / "_build" / "teach"
DECKS = sorted((TEACH / "slides").glob("*.html"))

OVERFLOW = """() => Reveal.getSlides().flatMap((slide, i) => {
    Reveal.slide(i);
    const frame = document.querySelector('.slides').getBoundingClientRect();
    const shown = [...slide.querySelectorAll('h1, h2, li, p, img, pre, .katex-html')];
    const boxes = shown.filter(element => !element.closest('aside')).map(element => element.getBoundingClientRect());
    const low = Math.max(...boxes.map(box => box.bottom)), right = Math.max(...boxes.map(box => box.right));
    const cut = [...slide.querySelectorAll('pre')].some(pre => pre.scrollWidth > pre.clientWidth + 1);
    const over = low > frame.bottom + 1 || right > frame.right + 1 || cut;
    return over ? [`${i}: ${slide.querySelector('h1, h2').textContent}`] : [];
})"""


def test_there_is_a_deck_for_each_chapter():
    chapters = {path.stem for path in (TEACH.parents[1] / "book").glob("*/[0-9][0-9]-*.ipynb")}
    assert {path.stem for path in DECKS} == chapters, "run `make teach`"


@pytest.fixture
def teaching_page(browser) -> Iterator:
    """Opens a page from disk, as a teacher would; a request to anywhere else fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 700}, reduced_motion="reduce")
    outside: list[str] = []
    context.route(lambda url: not url.startswith(("file:", "data:")), lambda route: outside.append(route.request.url))
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def visit(path: Path):
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        page.evaluate("document.fonts.ready")
        return page

    yield visit
    context.close()
    assert not outside and not errors


@pytest.mark.parametrize("deck", DECKS, ids=lambda path: path.stem)
def test_every_slide_fits_and_is_accessible(teaching_page, node_modules, deck):
    page = teaching_page(deck)
    assert page.evaluate(OVERFLOW) == []
    page.add_script_tag(path=node_modules / "axe-core" / "axe.min.js")
    page.evaluate("Reveal.slide(1)")
    found = page.evaluate("async () => (await axe.run()).violations.map(v => [v.impact, v.id, v.nodes[0].html])")
    assert not [one for one in found if one[0] in ("serious", "critical")]


@pytest.mark.parametrize("name", ["index.html", "guide.html", "quiz.html"])
def test_pages_for_teachers_are_accessible(teaching_page, node_modules, name):
    page = teaching_page(TEACH / name)
    page.add_script_tag(path=node_modules / "axe-core" / "axe.min.js")
    found = page.evaluate("async () => (await axe.run()).violations.map(v => [v.impact, v.id, v.nodes[0].html])")
    assert not [one for one in found if one[0] in ("serious", "critical")]
