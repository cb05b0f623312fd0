"""The whole book in one PDF: the built pages put one behind the other, printed by a headless Chromium.

    python tools/pdf.py [--html _build/html] [--out _build/weather-on-graphs.pdf]

The pages come from `make book`, in the order of their table of contents. What a page hides until it is clicked, the
solutions above all, is open; the checks of exercises, of no use on paper, are left out. Links from page to page become
links inside the file. The browser prints twice: first to learn on which page each chapter starts, then with these
numbers in the table of contents.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OLDEST = 131  # the first Chromium that prints page numbers from a style sheet
TITLE = "Weather on graphs"
PRINTED = "print.html"  # the address of the whole book while it is printed; no file has this name
LONG_OUTPUT = 45  # lines; a longer one may be divided between pages
# Each piece of coloured code is an entry in the file's structure: keywords, strings and comments are enough.
PLAIN = re.compile(r'<span class="(?:-Color|bp|gp|kc|m[bfhio]|n|n[a-z]|nbp|o|ow|p|pre|s[aei]|vm|w)">([^<]*)</span>')
NO_PAPER = "script, style, noscript, a.headerlink, button, .copybtn, .toggle-hidden, nav, iframe, canvas, form"


class Refused(Exception):
    """What is missing, in a sentence for the reader."""


# -- one document from many pages -------------------------------------------------------------------------------------


def key(page: str) -> str:
    """What the identifiers of a page begin with: those of two pages may be the same."""
    return re.sub(r"[^a-z0-9]+", "-", page.removesuffix(".html").lower())


def contents(soup: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    """The parts of the book, each with its pages (title, file), from the sidebar of the first page."""
    parts: list[tuple[str, list[tuple[str, str]]]] = [("", [(TITLE, "index.html")])]
    for node in soup.select("nav.bd-links p.caption, nav.bd-links a.reference.internal"):
        if node.name == "p":
            parts.append((node.get_text(strip=True), []))
        elif node["href"] != "#":
            parts[-1][1].append((" ".join(node.get_text().split()), node["href"]))
    return parts


def internal(address: str, page: str, pages: set[str]) -> str | None:
    """The address inside the file of what a link on a page leads to; None where that is not in the book."""
    split = urlsplit(address)
    if split.scheme or split.netloc:
        return address
    folder = PurePosixPath(page).parent
    target = os.path.normpath(folder / unquote(split.path)) if split.path else page
    if target not in pages:
        return None
    return f"#{key(target)}--{unquote(split.fragment)}" if split.fragment else f"#{key(target)}"


def article(soup: Any, page: str, pages: set[str]) -> Any:
    """What a page has to say, ready for paper."""
    found = soup.select_one("article.bd-article")
    if found is None:
        raise Refused(f"{page}: expected a page of the book, found no article in it: run `make book`")
    for node in found.select(NO_PAPER):
        node.decompose()
    # a check is for those who run the notebook; on paper nothing can be checked
    for node in found.select("div.cell.tag_check"):
        node.decompose()
    for node in found.find_all(id=True):
        node["id"] = f"{key(page)}--{node['id']}"
    for node in found.find_all("a"):
        address = internal(node.get("href", ""), page, pages)
        if address is None:
            node.unwrap()  # a file that is only on the site
        else:
            node["href"] = address
    folder = PurePosixPath(page).parent
    for node in found.find_all("img"):
        if not urlsplit(node["src"]).scheme:
            node["src"] = quote(os.path.normpath(folder / unquote(node["src"])))
        node.attrs.pop("loading", None)
    # what is folded: its label, then all of it
    for node in found.find_all("details"):
        summary = node.find("summary")
        words = " ".join(summary.get_text(" ").split()) if summary else ""
        words = re.sub(r"^.*\bHide\b", "", words).strip().capitalize()
        if summary:
            summary.name, summary["class"] = "p", "solution-label"
            summary.string = words
        node.name = "div"
        node.attrs.pop("open", None)
    for node in found.select(".cell_output .highlight"):
        if node.get_text().count("\n") > LONG_OUTPUT:
            node["class"] = [*node.get("class", []), "long"]
    found["id"] = key(page)
    return found


def running_head(page: str, title: str) -> str:
    words = title.replace("\\", "").replace('"', "'")
    return (
        f"#{key(page)} {{ page: {key(page)}; }}\n"
        f'@page {key(page)} {{ @top-right {{ content: "{words}"; font: 8.5pt sans-serif; color: #555; }} }}\n'
    )


def book(html: Path, only: list[str] | None = None) -> tuple[str, list[tuple[str, str]]]:
    """The whole book, or some of its files, as one page of HTML; and its pages (title, file)."""
    from bs4 import BeautifulSoup

    first = html / "index.html"
    if not first.is_file():
        raise Refused(f"expected the built book, found no {first}: run `make book`")
    soup = BeautifulSoup(first.read_text(encoding="utf-8"), "html.parser")
    parts = contents(soup)
    if only:
        unknown = set(only) - {page for _, pages in parts for _, page in pages}
        if unknown:
            raise Refused(f"--only: expected files of the book, found {', '.join(sorted(unknown))}")
        parts = [(part, [one for one in pages if one[1] in only]) for part, pages in parts]
        parts = [(part, pages) for part, pages in parts if pages]
    listed = [one for _, pages in parts for one in pages]
    names = {page for _, page in listed}
    sheets = [str(node) for node in soup.head.select("link[rel=stylesheet]")]
    front, rest, heads = soup.select_one("article.bd-article img"), [], []
    picture = f'<img src="{front["src"]}" alt="{front["alt"]}">' if front else ""
    for title, page in listed:
        one = BeautifulSoup(PLAIN.sub(r"\1", (html / page).read_text(encoding="utf-8")), "html.parser")
        rest.append(str(article(one, page, names)))
        heads.append(running_head(page, title))
    lines = []
    for part, pages in parts:
        lines += [f'<p class="part">{part}</p>'] if part else []
        for title, page in pages:
            words = "About this book" if page == "index.html" else title
            lines.append(
                f'<a href="#{key(page)}"><span>{words}</span><span class="leader"></span>'
                f'<span class="at" data-page="{key(page)}"></span></a>'
            )
    style = (Path(__file__).parent / "pdf.css").read_text(encoding="utf-8")
    about = citation()
    cover = (
        f'<section class="cover"><h1>{TITLE}</h1><p class="subtitle">{about["subtitle"]}</p>{picture}'
        f"<p>{about['authors']}</p><p>Version {about['version']}</p>"
        "<p>Text: CC BY 4.0. Code: MIT licence.</p></section>"
    )
    if not (html / "katex" / "typeset.js").is_file():
        raise Refused(f"expected what typesets formulas, found no {html / 'katex'}: run `make book`")
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>{TITLE}</title>{''.join(sheets)}<style>{style}{''.join(heads)}</style>"
        f'<link rel="stylesheet" href="katex/katex.css"></head><body>{cover}'
        f'<section class="contents"><p class="title">Contents</p>{"".join(lines)}</section><main>{"".join(rest)}</main>'
        f'<script src="katex/katex.min.js"></script><script>{SPEAK}</script><script src="katex/typeset.js"></script>'
        "</body></html>",
        listed,
    )


def citation() -> dict[str, str]:
    """Subtitle, authors and version, from CITATION.cff."""
    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    names = [a.get("name") or f"{a['given-names']} {a['family-names']}" for a in cited["authors"]]
    subtitle = cited["title"].partition(":")[2].strip()
    return {
        "subtitle": subtitle[:1].upper() + subtitle[1:],
        "authors": ", ".join(names),
        "version": str(cited["version"]),
    }


# -- the file that the browser wrote ----------------------------------------------------------------------------------


def objects(pdf: bytes) -> dict[int, bytes]:
    """The objects of a PDF as Chromium writes it, by number; a stream stays behind its dictionary."""
    return {int(m[1]): m[2] for m in re.finditer(rb"(?:^|\n)(\d+) 0 obj\s*(.*?)\s*endobj", pdf, re.DOTALL)}


def page_numbers(parts: dict[int, bytes]) -> dict[int, int]:
    """The number of each page by the number of its object, in the order of the tree of pages."""
    root = next(n for n, body in parts.items() if re.search(rb"/Type\s*/Pages\b", body) and b"/Parent" not in body)
    order: list[int] = []

    def walk(number: int) -> None:
        kids = re.search(rb"/Kids\s*\[(.*?)\]", parts[number], re.DOTALL)
        if kids is None:
            order.append(number)
            return
        for kid in re.findall(rb"(\d+) 0 R", kids[1]):
            walk(int(kid))

    walk(root)
    return {number: i for i, number in enumerate(order, start=1)}


def destinations(pdf: bytes) -> dict[str, int]:
    """The page on which each named place of the file is."""
    parts = objects(pdf)
    numbers = page_numbers(parts)
    found = {}
    for body in parts.values():
        if b"stream" in body[:2000]:
            continue
        for name, page in re.findall(rb"/(?!Dest\b)([^\s/\[\]<>()]+)\s*\[\s*(\d+) 0 R\s*/XYZ", body):
            plain = re.sub(rb"#([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), name)
            found[plain.decode("utf-8")] = numbers[int(page)]
    return found


def with_author(pdf: bytes, author: str) -> bytes:
    """The same file with the author in its description: Chromium writes only the title."""
    trailer = pdf[pdf.rindex(b"trailer") :]
    info, root, size = (re.search(rb"/%s\s+(\d+)" % k, trailer)[1] for k in (b"Info", b"Root", b"Size"))  # type: ignore[index]
    last = re.search(rb"startxref\s+(\d+)", trailer)[1]  # type: ignore[index]
    old = objects(pdf)[int(info)]
    # UTF-16 as PDF wants it, so that no letter needs an escape
    words = ("\ufeff" + author).encode("utf-16-be").hex().upper().encode()
    new = re.sub(rb"/Creator\s*\((?:[^()\\]|\\.|\([^()]*\))*\)\s*", b"", old)
    new = new.rstrip()[:-2] + b"\n/Author <" + words + b">\n>>"
    at = len(pdf) + 1
    update = b"\n%s 0 obj\n%s\nendobj\n" % (info, new)
    table = b"xref\n%s 1\n%010d 00000 n \n" % (info, at)
    end = b"trailer\n<</Size %s\n/Root %s 0 R\n/Info %s 0 R\n/Prev %s>>\nstartxref\n%d\n%%%%EOF\n"
    return pdf + update + table + end % (size, root, info, last, len(pdf) + len(update))


# -- printing ---------------------------------------------------------------------------------------------------------

# A formula is one picture that is read out as its TeX, not glyph by glyph: the file is a third smaller, too.
SPEAK = """
const render = katex.render;
katex.render = (tex, element, options) => {
  render(tex, element, {...options, output: "html"});
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", tex);
};
"""

# What is wider than the column becomes smaller: equations, and tables whose names cannot be broken.
FIT = """() => {
  const small = [];
  for (const box of document.querySelectorAll("div.math, div.amsmath")) {
    const room = box.clientWidth, all = box.scrollWidth, formula = box.querySelector(".katex");
    if (!formula || all <= room + 1) continue;
    formula.style.fontSize = parseFloat(getComputedStyle(formula).fontSize) * .97 * room / all + "px";
    small.push(all / room);
  }
  for (const table of document.querySelectorAll("article table")) {
    const room = table.parentElement.clientWidth || 657;
    for (let i = 0; i < 6 && table.scrollWidth > room + 1; i++)
      table.style.fontSize = parseFloat(getComputedStyle(table).fontSize) * .93 + "px";
    if (table.scrollWidth > room + 1) small.push(table.scrollWidth / room);
  }
  return small;
}"""


def find_chromium() -> str:
    named = os.environ.get("CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        looked = f"CHROMIUM={named}" if named else f"none of {', '.join(BROWSERS)} on the PATH"
        raise Refused(
            f"expected a Chromium, found {looked}: `apt-get install chromium`, or set CHROMIUM=/path/to/browser"
        )
    return found


def print_book(html: Path, only: list[str] | None = None) -> bytes:
    """The PDF of a built book, or of some of its files."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise Refused('expected Playwright, found none: `make pdf` installs it (extra "browser")') from error
    chromium = find_chromium()
    whole, listed = book(html, only)
    base = html.resolve().as_uri() + "/"
    with sync_playwright() as playwright:
        # its own sandbox needs rights that root, a container or a runner often has not; the pages are ours
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--allow-file-access-from-files"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        try:
            if int(browser.version.split(".")[0]) < OLDEST:
                raise Refused(f"expected Chromium {OLDEST} or newer, which numbers pages, found {browser.version}")
            page = browser.new_page(viewport={"width": 794, "height": 1123})
            page.set_default_timeout(300_000)
            page.emulate_media(media="print", color_scheme="light")
            # nothing but the built pages is read
            page.route(re.compile(r"^https?:"), lambda route: route.abort())
            page.route(base + PRINTED, lambda route: route.fulfill(body=whole, content_type="text/html; charset=utf-8"))
            page.goto(base + PRINTED)
            page.evaluate("document.fonts.ready.then(() => null)")
            broken = page.evaluate("() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
            wrong = page.evaluate(
                "() => [...document.querySelectorAll('.katex-error')].map(e => e.title || e.innerText)"
            )
            if broken or wrong:
                raise Refused(f"expected every picture and formula, found broken ones: {[*broken, *wrong][:5]}")
            page.evaluate(FIT)
            paper: dict[str, Any] = {"prefer_css_page_size": True, "print_background": True}
            places = destinations(page.pdf(**paper))
            missing = [title for title, name in listed if key(name) not in places]
            if missing:
                raise Refused(f"expected every chapter in the PDF, found none for {missing}")
            page.evaluate(
                "places => document.querySelectorAll('.at').forEach(e => e.textContent = places[e.dataset.page])",
                {key(name): places[key(name)] for _, name in listed},
            )
            made = page.pdf(**paper, tagged=True, outline=True)
            if destinations(made) != places:
                raise Refused("expected the page numbers to stay where they were, found that the contents moved them")
        finally:
            browser.close()
    return with_author(made, citation()["authors"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="folder of the built book")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "weather-on-graphs.pdf", help="the file to write")
    parser.add_argument("--only", nargs="+", metavar="FILE", help="some files alone, as foundations/04-full-model.html")
    given = parser.parse_args()
    try:
        made = print_book(given.html, given.only)
    except Refused as error:
        print(f"pdf: {error}", file=sys.stderr)
        return 1
    part = given.out.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(made)
    part.replace(given.out)
    pages = len(page_numbers(objects(made)))
    print(f"The book on paper: {given.out} ({pages} pages, {len(made) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
