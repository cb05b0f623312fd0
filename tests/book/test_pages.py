"""The built pages ask nobody: what a page loads lies beside it. Runs at the end of "make book"."""

from __future__ import annotations

import os
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = (ROOT / os.environ.get("BOOK_HTML", "_build/html")).resolve()
if not (HTML / "index.html").exists():
    pytest.skip("the book is not built (make book)", allow_module_level=True)

LOADS = {
    "script": ["src"],
    "link": ["href"],
    "img": ["src", "srcset"],
    "iframe": ["src"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "object": ["data"],
    "embed": ["src"],
    "form": ["action"],
    "use": ["href", "xlink:href"],
    "image": ["href", "xlink:href"],
}
ALL_PAGES = sorted(page for page in HTML.rglob("*.html") if "_static" not in page.relative_to(HTML).parts)
each_page = pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.relative_to(HTML).as_posix())


class Page(HTMLParser):
    """What a page loads, where its links lead, its identifiers and its images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loads += [values[name] for name in LOADS.get(tag, []) if values.get(name)]
        self.loads += re.findall(r"url\(['\"]?([^'\")]+)", values.get("style") or "")
        self.classes |= set((values.get("class") or "").split())
        if values.get("id"):
            self.ids.add(values["id"])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "img":
            self.images.append(values)


@cache
def read(page: Path) -> Page:
    return Page(page.read_text(encoding="utf-8"))


def local_file(base: Path, url: str) -> Path:
    return (base.parent / unquote(urlsplit(url).path)).resolve() if urlsplit(url).path else base


def is_elsewhere(url: str) -> bool:
    return bool(urlsplit(url).scheme or urlsplit(url).netloc) and not url.startswith("data:")


@each_page
def test_page_loads_only_what_lies_beside_it(page):
    found = read(page)
    assert not [url for url in found.loads if is_elsewhere(url)]
    missing = [u for u in found.loads if not u.startswith("data:") and not local_file(page, u).exists()]
    assert not missing
    # Thebe would fetch its code from another host: our extension keeps it out of the pages altogether
    assert "thebe" not in page.read_text(encoding="utf-8").lower()


@each_page
def test_links_inside_the_book_lead_somewhere(page):
    for url in read(page).links:
        if is_elsewhere(url) or url in ("#", ""):
            continue
        target = local_file(page, url)
        if target.is_dir():
            target = target / "index.html"
        assert target.exists(), url
        fragment = unquote(urlsplit(url).fragment)
        if fragment and target.suffix == ".html":
            assert fragment in read(target).ids, url


@each_page
def test_images_have_alternative_text(page):
    for image in read(page).images:
        assert (image.get("alt") or "").strip(), image.get("src")


def test_style_sheets_load_only_what_lies_beside_them():
    sheets = sorted(HTML.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(encoding="utf-8"), flags=re.DOTALL)
        urls = re.findall(r"url\(\s*['\"]?([^'\")]+)", text) + re.findall(r"@import\s+['\"]([^'\"]+)", text)
        for url in urls:
            assert not is_elsewhere(url), f"{sheet.name}: {url}"
            if not url.startswith(("data:", "#")):
                assert local_file(sheet, url).exists(), f"{sheet.name}: {url}"


def test_mathematics_travels_with_the_book():
    """And every command that it uses is one of KaTeX's: an unknown one would stand on the page in red."""
    katex = (HTML / "katex" / "katex.min.js").read_text(encoding="utf-8")
    assert len(katex) > 200_000
    assert len(list((HTML / "katex" / "fonts").glob("*.woff2"))) >= 20
    with_equations = 0
    for page in ALL_PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r'<(?:div|span) class="(?:amsmath )?math\b[^>]*>(.*?)</(?:div|span)>', text, re.DOTALL)
        if blocks:
            with_equations += 1
            assert "katex/katex.min.js" in text, page.name
            assert "katex/typeset.js" in text, page.name
        assert "mathjax/" not in text, page.name
        for block in blocks:
            unknown = [name for name in re.findall(r"\\[A-Za-z]+", block) if f'"\\{name}"' not in katex]
            assert not unknown, f"{page.name}: {unknown}"
            if r"\tag{" in block:
                assert r"\begin{split}" not in block, "TeX allows no tag inside split"
    assert with_equations


def test_stderr_of_notebooks_is_not_shown():
    assert not [page.name for page in ALL_PAGES if {"stderr", "traceback"} & read(page).classes]
