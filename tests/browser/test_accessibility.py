"""axe-core finds nothing on any page of the book: light and dark, on a screen and on a phone, with all folds open."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, TimeoutError

# What the project cannot mend, with the reason: {rule: reason}
EXCEPTIONS: dict[str, str] = {}

RUN = """async ([options, without]) => {
    const found = await axe.run({include: [["html"]], exclude: without}, {resultTypes: ["violations"], ...options});
    return found.violations.map(rule => ({
        id: rule.id, impact: rule.impact,
        nodes: rule.nodes.map(node => node.target.join(" ") + "\\n      " + node.html.slice(0, 160) + "\\n      "
                                      + [...node.any, ...node.all, ...node.none].map(check => check.message)[0]),
    }));
}"""
# A formula's inside is KaTeX's own: MathML for screen readers, and letters hidden from them in the colour of the text.
WITHOUT = [[".katex"]]
# What depends on the width or the theme; the other rules have judged every page before, and three pages again there
ON_A_PHONE = ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size"]
# axe-core looks at each element, and a chapter has ten thousand: nine in ten are letters of formulas in the line, and
# words of code in a colour that it has judged before. They become plain text.
THIN = """() => {
    document.querySelectorAll("span.math > .katex").forEach(formula => formula.replaceChildren("x"));
    const seen = {};
    for (const token of document.querySelectorAll("pre span")) {
        const kind = token.className + " in " + (token.closest(".cell_input, .cell_output")?.className ?? "");
        seen[kind] = (seen[kind] ?? 0) + 1;
        if (token.childElementCount === 0 && seen[kind] > 2) token.replaceWith(token.textContent);
    }
}"""


@pytest.fixture(scope="session")
def axe(node_modules: Path) -> str:
    return (node_modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page, axe: str, **options: Any) -> list[str]:
    """What axe-core has to complain of, one text for each rule."""
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(axe)
    found = page.evaluate(RUN, [options, WITHOUT])
    return [
        f"{rule['id']} ({rule['impact']}), {len(rule['nodes'])} times:\n    " + "\n    ".join(rule["nodes"][:5])
        for rule in found
        if rule["id"] not in EXCEPTIONS
    ]


def wear(page: Page, theme: str) -> None:
    """Change the theme of an open page, as its button does."""
    page.evaluate("theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme)


def open_folds(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")


def prepare(page: Page) -> None:
    open_folds(page)
    page.evaluate(THIN)


# The theme's own look at what must scroll; on the live page it comes late, when the network has been loaded.
LOOKED = """() => [...document.querySelectorAll("pre, .pst-scrollable-table-container")].every(
    box => box.scrollWidth <= box.clientWidth || box.tabIndex === 0 || !box.checkVisibility())"""


def narrow(page: Page) -> None:
    """Change to the width of a phone; the theme waits a little before it looks what must scroll now."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(600)
    with contextlib.suppress(TimeoutError):  # what it never looks at is for axe to find
        page.wait_for_function(LOOKED, timeout=5000)


def told(path: str, found: dict[str, list[str]]) -> str:
    return "\n".join(f"{path}, {where}: {text}" for where, texts in found.items() for text in texts)


def test_axe_finds_nothing(open_page, axe, path):
    """In the light on a wide screen; then in the dark on a phone, where a finger must hit what it aims at."""
    page = open_page(path).page
    prepare(page)
    found = {"light, 1280 px": violations(page, axe)}
    wear(page, "dark")
    narrow(page)
    found["dark, 390 px"] = violations(page, axe, runOnly=ON_A_PHONE)
    assert not any(found.values()), told(path, found)


@pytest.mark.parametrize("path", ["index.html", "foundations/02-graph-convolution.html", "leaderboard.html"])
def test_axe_finds_nothing_in_the_other_pairs(open_page, axe, path):
    """What the test of every page leaves out, on a page of each sort: dark and wide, light and narrow."""
    page = open_page(path, theme="dark").page
    prepare(page)
    found = {"dark, 1280 px": violations(page, axe)}
    wear(page, "light")
    narrow(page)
    found["light, 390 px"] = violations(page, axe, rules={"target-size": {"enabled": True}})
    assert not any(found.values()), told(path, found)


def test_axe_sees_a_defect(open_page, axe):
    """The test would notice: a picture without words, grey on white, and a button without a name."""
    page = open_page("index.html").page
    page.evaluate(
        """() => document.querySelector("article").insertAdjacentHTML("beforeend",
            '<img src="_static/logo.svg"><p style="color: #bbb; background: #fff">pale</p><button></button>')"""
    )
    rules = "\n".join(violations(page, axe))
    assert all(rule in rules for rule in ("image-alt", "color-contrast", "button-name"))


def test_exceptions_have_reasons():
    assert len(EXCEPTIONS) <= 3
    assert all(len(reason) > 20 for reason in EXCEPTIONS.values())
