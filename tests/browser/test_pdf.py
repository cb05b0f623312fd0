"""The book on paper, read from the file that the browser wrote.

BOOK_PDF names the PDF of the whole book (`make pdf` does); without it a part of the book is printed and read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
import zlib
from collections import Counter
from dataclasses import dataclass

import pytest
from conftest import HTML, ROOT

sys.path.insert(0, str(ROOT / "tools"))
import pdf as tool  # noqa: E402

PART = ["index.html", "foundations/02-graph-convolution.html", "glossary.html", "cite.html"]


@dataclass
class Book:
    data: bytes
    parts: dict[int, bytes]
    order: list[int]  # the objects of the pages, in order
    pages: list[tuple[str, str]]  # title and file of what is printed


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> Book:
    from bs4 import BeautifulSoup

    whole = os.environ.get("BOOK_PDF")
    path = (ROOT / whole).resolve() if whole else tmp_path_factory.mktemp("pdf") / "part.pdf"
    if not whole:
        # its own process: two Playwrights cannot live in one
        command = [sys.executable, ROOT / "tools" / "pdf.py", "--html", HTML, "--out", path, "--only", *PART]
        subprocess.run(command, check=True, timeout=300)
    data = path.read_bytes()
    parts = tool.objects(data)
    numbers = tool.page_numbers(parts)
    soup = BeautifulSoup((HTML / "index.html").read_text(encoding="utf-8"), "html.parser")
    listed = [one for _, pages in tool.contents(soup) for one in pages if whole or one[1] in PART]
    return Book(data, parts, sorted(numbers, key=numbers.__getitem__), listed)


def stream(body: bytes) -> bytes:
    raw = body[body.index(b"stream") + 6 :].removeprefix(b"\r").removeprefix(b"\n")
    return zlib.decompressobj().decompress(raw) if b"/FlateDecode" in body[: body.index(b"stream")] else raw


def referred(book: Book, body: bytes, name: bytes) -> list[int]:
    found = re.search(rb"/%s\s*(\[[^\]]*\]|\d+ 0 R)" % name, body)
    return [int(number) for number in re.findall(rb"(\d+) 0 R", found[1])] if found else []


def letters(book: Book, font: int, known: dict[int, dict[int, str]]) -> dict[int, str]:
    """What each glyph of a font stands for, by the font's own table."""
    if font not in known:
        table = known[font] = {}
        for number in referred(book, book.parts[font], b"ToUnicode"):
            text = stream(book.parts[number]).decode("latin-1")
            for block in re.findall(r"beginbfchar(.*?)endbfchar", text, re.DOTALL):
                for glyph, said in re.findall(r"<(\w+)>\s*<(\w+)>", block):
                    table[int(glyph, 16)] = bytes.fromhex(said).decode("utf-16-be", "replace")
            for block in re.findall(r"beginbfrange(.*?)endbfrange", text, re.DOTALL):
                for first, last, said in re.findall(r"<(\w+)>\s*<(\w+)>\s*<(\w+)>", block):
                    for i in range(int(last, 16) - int(first, 16) + 1):
                        table[int(first, 16) + i] = chr(int(said, 16) + i)
    return known[font]


def text_of(book: Book, page: int, known: dict[int, dict[int, str]]) -> str:
    """The letters of a page in the order in which they are drawn, without spaces."""
    body = book.parts[page]
    fonts = {name.decode(): int(number) for name, number in re.findall(rb"/(F\d+)\s+(\d+) 0 R", body)}
    table: dict[int, str] = {}
    found = []
    for number in referred(book, body, b"Contents"):
        for font, glyphs in re.findall(
            r"/(F\d+) [\d.]+ Tf|<([0-9A-F]+)>", stream(book.parts[number]).decode("latin-1")
        ):
            if font:
                table = letters(book, fonts[font], known)
            else:
                found += [table.get(int(glyphs[i : i + 4], 16), "") for i in range(0, len(glyphs), 4)]
    # two letters may be one glyph, such as fi
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", "".join(found)))


@pytest.fixture(scope="module")
def texts(paper) -> list[str]:
    known: dict[int, dict[int, str]] = {}
    return [text_of(paper, page, known) for page in paper.order]


def titles(paper: Book) -> list[str]:
    """The entries of the outline."""
    found = []
    for body in paper.parts.values():
        if b"/Parent" in body and (match := re.search(rb"/Title\s*(\((?:[^()\\]|\\.)*\)|<[0-9A-Fa-f]*>)", body)):
            raw = match[1]
            if raw[:1] == b"<":
                data = bytes.fromhex(raw[1:-1].decode())
            else:
                data = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), raw[1:-1])
                data = re.sub(rb"\\(.)", rb"\1", data)
            found.append(data[2:].decode("utf-16-be") if data[:2] == b"\xfe\xff" else data.decode("latin-1"))
    return found


def built(paper: Book) -> dict[str, str]:
    return {page: (HTML / page).read_text(encoding="utf-8") for _, page in paper.pages}


def heading(html: str) -> str:
    from bs4 import BeautifulSoup

    found = BeautifulSoup(html, "html.parser").select_one("article h1")
    for link in found.select("a.headerlink"):
        link.decompose()
    return " ".join(found.get_text().split())


def test_it_has_the_pages_of_a_book(paper):
    assert len(paper.order) > (400 if "BOOK_PDF" in os.environ else 30)
    assert 1e5 < len(paper.data) < 40e6


def test_title_author_and_language_are_said(paper):
    assert b"/Title (Weather on graphs)" in paper.data
    author = ("\ufeff" + tool.citation()["authors"]).encode("utf-16-be").hex().upper().encode()
    assert b"/Author <" + author + b">" in paper.data
    assert re.search(rb"/Lang\s*\(en\)", paper.data)
    assert b"/Marked true" in paper.data, "not tagged"


def test_every_chapter_is_in_the_outline_by_its_title(paper):
    outline = {re.sub(r"\s+", " ", title).strip() for title in titles(paper)}
    wanted = {heading(html) for html in built(paper).values()}
    assert wanted <= outline, wanted - outline


def test_every_chapter_begins_on_a_page_of_its_own_and_the_contents_say_which(paper, texts):
    places = tool.destinations(paper.data)
    starts = [places[tool.key(page)] for _, page in paper.pages]
    assert starts == sorted(set(starts))
    listed = "".join(texts[1 : starts[0] - 1])
    for (title, page), start in zip(paper.pages, starts, strict=True):
        words = "About this book" if page == "index.html" else title
        assert re.sub(r"\s", "", words) + str(start) in listed, title
        assert re.sub(r"\s", "", title) in texts[start - 1], title


def test_text_can_be_read_and_pages_are_numbered(paper, texts):
    # the number stands in the margin, drawn before or after the text
    assert not [i for i, text in enumerate(texts[1:], start=2) if str(i) not in text[:80] + text[-80:]]
    html = built(paper)["foundations/02-graph-convolution.html"]
    sentence = re.sub(r"\s", "", "Suppose that the anemometer at Claremorris, in the west, had frozen that morning.")
    assert sentence in re.sub(r"\s", "", html)
    assert sentence in "".join(texts)


def test_pages_are_not_blank(paper, texts):
    """A page with hardly anything on it is the end of something; two in a row are a fault."""
    pictures = [b"/XObject" in paper.parts[page] for page in paper.order]
    empty = [len(text) < 40 and not picture for text, picture in zip(texts, pictures, strict=True)]
    assert not any(one and two for one, two in zip(empty, empty[1:], strict=False))
    assert sum(empty) <= len(empty) // 50


def test_solutions_are_shown(paper, texts):
    text = "".join(texts)
    count = sum(html.count("# Solution (open to compare with yours)") for html in built(paper).values())
    assert count
    assert text.count("#Solution(opentocomparewithyours)") == count


def test_every_picture_is_there(paper):
    wanted = Counter(
        source for html in built(paper).values() for source in re.findall(r'<img[^>]* src="[^"]*_images/([^"]+)"', html)
    )
    drawn = [body for body in paper.parts.values() if re.search(rb"/Subtype\s*/Image", body[:400])]
    opaque = [body for body in drawn if b"/DeviceGray" not in body[:400] or b"/SMask" in body[:400]]
    assert len(wanted) > 0
    assert len(opaque) >= len(wanted) * 0.95


def test_links_stay_inside_or_lead_to_the_web(paper):
    addresses = re.findall(rb"/URI\s*\(((?:[^()\\]|\\.)*)\)", paper.data)
    assert addresses
    assert not [one for one in addresses if not one.startswith((b"https://", b"mailto:"))]
    places = tool.destinations(paper.data)
    inside = {name.decode() for name in re.findall(rb"/Dest\s*/([^\s/\[\]<>()]+)", paper.data)}
    assert not {name for name in inside if re.sub(r"#(\w\w)", lambda m: chr(int(m[1], 16)), name) not in places}


def test_fonts_travel_with_the_file(paper):
    fonts = [body for body in paper.parts.values() if re.search(rb"/Type\s*/Font\b", body)]
    assert fonts
    for body in fonts:
        if b"/Type0" in body or b"/Type3" in body:  # leads to another font; draws its letters itself
            continue
        (described,) = referred(paper, body, b"FontDescriptor")
        assert b"/FontFile" in paper.parts[described]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--html", "nowhere"], {}, "expected the built book, found no nowhere"),
        (["--only", "none.html"], {}, "--only: expected files of the book, found none.html"),
        ([], {"CHROMIUM": "/no/such/browser"}, "expected a Chromium, found CHROMIUM=/no/such/browser"),
    ],
)
def test_what_is_missing_is_said_in_a_line(tmp_path, arguments, environment, message):
    out = tmp_path / "book.pdf"
    arguments = arguments if "--html" in arguments else ["--html", str(HTML), *arguments]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "pdf.py"), "--out", str(out), *arguments],
        env=os.environ | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not out.exists() and not list(tmp_path.iterdir())


def test_the_parts_of_a_link_are_told_apart():
    pages = {"a/x.html", "b.html"}
    assert tool.internal("../b.html#here", "a/x.html", pages) == "#b--here"
    assert tool.internal("#top", "a/x.html", pages) == "#a-x--top"
    assert tool.internal("x.html", "a/x.html", pages) == "#a-x"
    assert tool.internal("../_sources/x.ipynb", "a/x.html", pages) is None
    assert tool.internal("https://example.org/b.html", "a/x.html", pages) == "https://example.org/b.html"
