"""Every page as a reader gets it: what it loads, what it weighs, how it fits a phone and what dark mode does to it."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest
from conftest import book_pages, scroll_through
from test_accessibility import open_folds, wear

MOST = 1_500_000  # bytes of a page with all that it loads, as served without compression
NOT_COUNTED = re.compile(r"\.(?:onnx|wasm)$|/ort\.[\w.]+$")  # the model of the live page and what runs it
KINDS = {"html": "pages", "js": "scripts", "css": "styles", "woff": "fonts", "woff2": "fonts"}
CHAPTER = "foundations/02-graph-convolution.html"


def kind(url: str) -> str:
    return KINDS.get(urlsplit(url).path.rsplit(".", 1)[-1], "pictures")


@pytest.fixture(scope="module")
def weights():
    """Filled by the test of each page; printed as a table at the end (pytest -s shows it)."""
    rows: dict[str, dict[str, int]] = {}
    yield rows
    columns = ["pages", "scripts", "styles", "fonts", "pictures"]
    print("\n" + f"{'kB':45}" + "".join(f"{name:>10}" for name in [*columns, "all"]))
    for path, row in sorted(rows.items(), key=lambda item: -sum(item[1].values())):
        counts = [row.get(name, 0) for name in columns]
        print(f"{path:45}" + "".join(f"{count / 1000:10.0f}" for count in [*counts, sum(counts)]))


def test_page_is_light_quiet_and_fits_a_phone(open_page, path, weights):
    """One visit, on a phone: nothing from elsewhere, nothing missing, no error, light, and no wider than the screen."""
    visit = open_page(path, width=390, height=844, touch=True)
    page = visit.page
    scroll_through(page)
    assert not visit.outside
    assert not visit.missing
    assert not visit.errors

    row: dict[str, int] = {}
    for url, size in visit.loaded.items():
        if not NOT_COUNTED.search(urlsplit(url).path):
            row[kind(url)] = row.get(kind(url), 0) + size
    weights[path] = row
    assert row["pages"] and row["styles"], "nothing was weighed"
    assert sum(row.values()) < MOST, f"{sum(row.values()) / 1e6:.2f} MB: {row}"

    assert page.locator(".katex-error").count() == 0
    assert page.locator(".math:not(:has(.katex))").count() == 0, "a formula is still bare TeX"
    open_folds(page)
    wide = page.evaluate(
        """() => {
            const sticksOut = [...document.querySelectorAll("article *")].filter(one => {
                const box = one.getBoundingClientRect();
                if (box.width === 0 || box.right <= innerWidth + 1) return false;
                // what scrolls inside itself, or is hidden on purpose, does not widen the page
                for (let outer = one.parentElement; outer; outer = outer.parentElement)
                    if (getComputedStyle(outer).overflowX !== "visible") return false;
                return true;
            });
            return {page: document.documentElement.scrollWidth, screen: innerWidth,
                    out: sticksOut.slice(0, 3).map(one => one.outerHTML.slice(0, 150))};
        }"""
    )
    assert wide["page"] <= wide["screen"] == 390, wide
    assert not wide["out"], wide
    # code is not squeezed by what stands beside it: nearly the whole screen is its column
    narrow = page.evaluate(
        """() => [...document.querySelectorAll("article .cell_input pre")]
            .filter(one => one.clientWidth && one.clientWidth < 300).length"""
    )
    assert narrow == 0, "code squeezed on a phone"


def test_pictures_leave_no_grey_plates_and_keep_their_place(open_page):
    """In dark mode a figure lies on a light card of its own; its place is kept before it comes."""
    pages = [path for path in book_pages() if re.search(r"/\d\d-", path)]
    assert pages
    for path in pages[::6]:
        page = open_page(path, theme="dark").page
        pictures = page.evaluate(
            """() => [...document.querySelectorAll("article .cell_output img")].map(one => {
                const style = getComputedStyle(one);
                const plate = getComputedStyle(one.closest(".output, figure") ?? one.parentElement).backgroundColor;
                const size = [one.getAttribute("width"), one.getAttribute("height")];
                return [style.backgroundColor, style.filter, plate, ...size];
            })"""
        )
        assert pictures, path
        for background, changed, plate, width, height in pictures:
            assert min(map(int, re.findall(r"\d+", background)[:3])) > 240, (path, background)
            assert changed == "none"
            assert plate == "rgba(0, 0, 0, 0)", (path, plate)
            assert int(width) > 100 and int(height) > 100


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" as the guidelines of the W3C define it."""
    levels = [int(level) / 255 for level in re.findall(r"\d+", colour)[:3]]
    red, green, blue = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("path", ["foundations/01-weather-on-a-graph.html", "leaderboard.html", "status.html"])
def test_theme_changes_paper_and_ink(open_page, path):
    page = open_page(path).page
    for theme, paper_is_light in (("light", True), ("dark", False)):
        wear(page, theme)
        paper, ink = page.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
                      getComputedStyle(document.querySelector("article p")).color]"""
        )
        assert (luminance(paper) > 0.5) == paper_is_light
        lighter, darker = sorted((luminance(paper), luminance(ink)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 7


def test_icons_show(open_page):
    """The icon font holds every icon that the page shows, though it was cut down."""
    page = open_page(CHAPTER).page
    icons = page.evaluate(
        """() => [...document.querySelectorAll("[class*='fa-']")].filter(one => one.offsetParent).map(one => {
            const style = getComputedStyle(one, "::before");
            return [one.className, style.fontFamily, style.content.replaceAll('"', ""), one.offsetWidth];
        })"""
    )
    assert len(icons) >= 4
    assert all("Font Awesome" in family and width > 5 for _, family, _, width in icons), icons
    drawn = page.evaluate(
        """codes => {
            const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
            const draw = code => {
                pen.clearRect(0, 0, 300, 150);
                pen.font = "900 40px 'Font Awesome 6 Free'";
                pen.fillText(code, 40, 80);
                return pen.getImageData(0, 0, 300, 150).data.join();
            };
            const unknown = draw("\\uf8ff");
            return codes.map(code => draw(code) !== unknown);
        }""",
        [code for _, _, code, _ in icons],
    )
    assert all(drawn), icons


def test_theme_button_works_and_is_remembered(open_page):
    page = open_page(CHAPTER, theme="light").page
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    button = page.locator(".theme-switch-button:visible").first
    seen = set()
    for _ in range(3):
        button.click()
        seen.add(page.evaluate(theme))
    assert seen == {"light", "dark"}


def test_search_finds_a_chapter(open_page):
    visit = open_page("search.html?q=adjacency")
    visit.page.locator("#search-results li a").first.wait_for(timeout=15_000)
    assert not visit.errors
    assert visit.page.locator("#search-results li a").count() > 2


@pytest.mark.parametrize("javascript", [True, False])
def test_chapter_reads_with_and_without_scripts(open_page, javascript):
    page = open_page(CHAPTER, javascript=javascript).page
    assert page.locator("article h1").is_visible()
    assert page.locator("article img").first.is_visible()
    assert page.locator("article div.math").first.is_visible()


def test_keyboard_reaches_what_scrolls_and_the_skip_link_comes_first(open_page):
    page = open_page(CHAPTER, width=390, height=844).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Skip to main content"
    page.evaluate("document.querySelector('details').open = true")
    page.wait_for_timeout(500)  # the theme waits a little before it looks again
    unreached = page.evaluate(
        """() => [...document.querySelectorAll("article pre, article div.math, .pst-scrollable-table-container")]
            .filter(one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth && one.tabIndex < 0).length"""
    )
    assert unreached == 0
    reached = page.evaluate("""document.querySelectorAll("article [tabindex='0']").length""")
    assert reached > 3


def test_page_does_not_jump_while_it_loads(open_page):
    """Cumulative layout shift of a chapter, as browsers measure it: "good" is below 0.1."""
    page = open_page(CHAPTER).page
    shift = page.evaluate(
        """async () => {
            let sum = 0;
            new PerformanceObserver(list => list.getEntries().forEach(entry => {
                if (!entry.hadRecentInput) sum += entry.value;
            })).observe({type: "layout-shift", buffered: true});
            await new Promise(done => setTimeout(done, 300));
            return sum;
        }"""
    )
    assert shift < 0.1, shift


def test_every_address_of_the_book_was_opened(site):
    """The tests above run on all pages that the table of contents leads to."""
    index = (site.root / "index.html").read_text(encoding="utf-8")
    linked = {unquote(urlsplit(link).path) for link in re.findall(r'href="([^":#]+\.html)[^"]*"', index)}
    assert linked and linked <= set(book_pages())
