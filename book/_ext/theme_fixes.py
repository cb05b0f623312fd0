"""Lighter and more accessible pages than the theme makes: what can only be mended once they are written.

A page loads what it uses and no more: KaTeX in place of MathJax (which takes four times the bytes); an icon font cut
down to the icons that occur, in place of a script with all of them (1.5 MB); style sheets without the rules that no
page needs; the search index on the search page alone; pictures with a palette. And what axe-core finds wrong in the
HTML of the theme and of the extensions is put right.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fontTools import subset
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

logger = getLogger(__name__)

UNUSED_FILES = ("mathjax", "sphinx-design", "design-tabs")  # what extensions add to every page
ICON_FONT = "_static/vendor/fontawesome/webfonts/fa-solid-900"
STYLE_SHEETS = "_static/styles/*-theme.css", "_static/mystnb.*.css"
# Words in these scripts may be classes that they set
SCRIPTS = (
    "_static/scripts/bootstrap.js",
    "_static/scripts/*-theme.js",
    "_static/*.js",
    "katex/typeset.js",
    "_live/*.*js",
)
# A palette is tried as it comes, and then improved in so many rounds: the mean error, of 256 levels, and the share of
# pixels off by 16 levels or more, up to which it is taken
TRIES = ((0, 0.75, 0.003), (2, 2.0, 0.01))


# -- what a page loads -----------------------------------------------------------------------------------------------


def load_less(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Keep scripts and style sheets that no page needs out of the head; give KaTeX to pages with formulas."""

    if app.builder.name != "html":  # the PDF has its own way
        return

    def unused(file: Any) -> bool:
        name = str(getattr(file, "filename", file) or "")
        return any(word in name for word in UNUSED_FILES) or "window.MathJax" in file.attributes.get("body", "")

    for kind in ("script_files", "css_files"):
        context[kind][:] = [file for file in context[kind] if not unused(file)]  # the list that is added to below
    if re.search(r'class="(amsmath )?math\b', context.get("body") or ""):
        app.add_css_file("../katex/katex.css")
        for script in ("katex.min.js", "typeset.js"):
            app.add_js_file(f"../katex/{script}", loading_method="defer")
    app.add_js_file("../keyboard.js", loading_method="defer")


# -- style sheets ----------------------------------------------------------------------------------------------------


_STRING = r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\''
TOKENS = re.compile(rf"{_STRING}|url\((?:{_STRING}|[^)]*)\)|[{{}};]")


def blocks(css: str) -> Iterable[tuple[str, str]]:
    """Prelude and body of each rule of a style sheet or of a body; an @import or @charset has the body ""."""
    at, depth, start, opened = 0, 0, 0, 0
    for match in TOKENS.finditer(css):
        at = match.end()
        if match[0] == "{":
            depth, opened = depth + 1, at if depth == 0 else opened
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                yield css[start : opened - 1].strip(), css[opened : at - 1]
                start = at
        elif match[0] == ";" and depth == 0:
            yield css[start:at].strip(), ""
            start = at


def selectors(prelude: str) -> list[str]:
    """The parts of a selector between its outer commas."""
    parts, depth = [""], 0
    for char in prelude:
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def without_unused(css: str, words: set[str]) -> str:
    """A style sheet without the rules whose classes or identifiers occur nowhere.

    Args:
        css: the style sheet.
        words: all classes, identifiers and words of scripts that occur in the book.
    """
    kept = []
    for prelude, body in blocks(re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)):
        if prelude.startswith(("@media", "@supports", "@layer", "@container")):
            inner = without_unused(body, words)
            if inner:
                kept.append(f"{prelude}{{{inner}}}")
        elif prelude.startswith("@"):
            kept.append(f"{prelude}{{{body}}}" if body else prelude)
        else:
            used = []
            for selector in selectors(prelude):
                # what stands in brackets excludes or offers a choice: it decides nothing here
                plain = re.sub(r"\[[^\]]*\]|\([^()]*(?:\([^()]*\)[^()]*)*\)", "", selector)
                names = re.findall(r"[.#](-?[A-Za-z_](?:[\w-]|\\.)*)", plain)
                if all(name.replace("\\", "") in words for name in names):
                    used.append(selector)
            if used:
                kept.append(f"{','.join(used)}{{{body}}}")
    return "".join(kept)


def words_of(pages: Iterable[str], scripts: Iterable[str]) -> set[str]:
    """The classes and identifiers of pages, and every word of scripts."""
    found = {"show", "active", "collapsed", "collapsing", "fade"}
    for page in pages:
        for value in re.findall(r'\s(?:class|id)="([^"]*)"', page):
            found.update(value.split())
    for script in scripts:
        found.update(re.findall(r"[A-Za-z][\w-]*", script))
    return found


def cut_style_sheets(out: Path, words: set[str]) -> set[int]:
    """Write the theme's style sheets anew without unused rules; the code points of the icons that they show."""
    shown: set[int] = set()
    for path in (path for pattern in STYLE_SHEETS for path in out.glob(pattern)):
        css = without_unused(path.read_text(encoding="utf-8"), words)
        # of the icon fonts only the solid one is used, as cut_icons leaves it
        css = re.sub(r"@font-face\{[^}]*fa-(?:brands|regular|v4)[^}]*\}", "", css)
        css = re.sub(
            r"src:url\([^)]*fa-solid-900\.woff2\)[^;}]*",
            'src:url(../vendor/fontawesome/webfonts/fa-solid-900.woff) format("woff")',
            css,
        )
        shown |= {ord(char) for char in re.findall("[\ue000-\uf8ff]", css)}
        shown |= {int(code, 16) for code in re.findall(r"\\([0-9a-f]{2,4})\b", css)}
        path.write_text(re.sub(r"/\*#.*?\*/", "", css), encoding="utf-8")
    return shown


def cut_icons(out: Path, shown: set[int]) -> None:
    """Make the icon font with the icons that the style sheets show, and drop the files with all of them."""
    options = subset.Options(flavor="woff", layout_features=[], notdef_outline=True)
    font = subset.load_font(str(out / f"{ICON_FONT}.ttf"), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=sorted(shown))
    cutter.subset(font)
    subset.save_font(font, str(out / f"{ICON_FONT}.woff"), options)
    for path in (out / ICON_FONT).parent.glob("fa-*"):
        if path.suffix != ".woff":
            path.unlink()
    for path in (out / "_static" / "scripts").glob("fontawesome.js*"):
        path.unlink()


# -- pictures --------------------------------------------------------------------------------------------------------


def smaller(path: Path) -> bytes:
    """A picture with a palette of 256 colours, or packed again as it is where the palette would be seen."""
    data = path.read_bytes()
    with Image.open(path) as opened:
        flat = opened.convert("RGBA")
        if opened.mode == "P" or flat.getchannel("A").getextrema() != (255, 255):
            return data
    picture = flat.convert("RGB")
    exact = np.asarray(picture, np.int16)
    best: Image.Image = picture
    for rounds, mean_error, off in TRIES:
        palette = picture.quantize(256, Image.Quantize.MEDIANCUT, rounds, dither=Image.Dither.NONE)
        difference = np.abs(exact - np.asarray(palette.convert("RGB"), np.int16)).max(axis=2)
        if difference.mean() <= mean_error and (difference >= 16).mean() <= off:
            best = palette
            break
    packed = io.BytesIO()
    best.save(packed, format="PNG", optimize=True)
    return min(data, packed.getvalue(), key=len)


def shrink_pictures(out: Path, kept: Path) -> tuple[int, int]:
    """Bytes of all pictures before and after; what was made once is kept for the next build."""
    kept.mkdir(parents=True, exist_ok=True)
    before = after = 0
    for path in sorted((out / "_images").glob("*.png")):
        data = path.read_bytes()
        made = kept / f"{hashlib.sha256(data).hexdigest()}.png"
        if not made.exists():
            made.write_bytes(smaller(path))
        path.write_bytes(made.read_bytes())
        before, after = before + len(data), after + path.stat().st_size
    return before, after


def with_size(tag: re.Match[str], page: Path) -> str:
    """An <img> with the width and height of its file, so that the text does not move when it comes."""
    source = re.search(r'src="([^"]+\.png)"', tag[0])
    if not source or " width=" in tag[0] or " height=" in tag[0] or "style=" in tag[0]:
        return tag[0]
    path = page.parent / source[1]
    if not path.is_file():
        return tag[0]
    with Image.open(path) as picture:
        width, height = picture.size
    return tag[0].replace("<img", f'<img width="{width}" height="{height}" decoding="async"', 1)


# -- the HTML of a page ----------------------------------------------------------------------------------------------

# What a reader's eye gets from the text, a screen reader must get too: a name differs from no text that is shown.
MENDS = [
    # the names of buttons that say something themselves
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (r'(<summary) aria-label="Toggle hidden content"', r"\1"),
    # icons say nothing
    (r'<(i|span) class="((?:theme-switch )?fa[srb]? |(?:theme-switch )?fa-)', r'<\1 aria-hidden="true" class="\2'),
    # the logo, the search field and the contents are a landmark
    (r'(<div id="pst-primary-sidebar") class', r'\1 role="complementary" aria-label="Book" class'),
    # sphinxcontrib-bibtex: a list whose children are no items, and a role that is no longer one
    (r'<div role="list" class="citation-list">', r'<div class="citation-list">'),
    (r' role="doc-biblioentry"', ""),
    # the theme's scripts of Font Awesome; a style sheet with the same icons is there already
    (r'\s*<!-- So that users can add custom icons -->\s*<script[^>]*fontawesome\.js[^>]*></script>', ""),
]  # fmt: skip
SEARCH_SCRIPTS = r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>'
# Names, punctuation and blanks have the colour of the text: half of the HTML of a chapter would be their <span>
PLAIN_TOKENS = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')
CODE = re.compile(r"<pre>.*?</pre>", re.DOTALL)
EMPTY_HEAD = re.compile(r"<th\b([^>]*)>(?:\s|</?p>)*</th>")


def mend(text: str, page: Path) -> str:
    """The HTML of one page, mended."""
    for pattern, replacement in MENDS:
        text = re.sub(pattern, replacement, text)
    if page.name != "search.html":
        text = re.sub(SEARCH_SCRIPTS, "", text)
    text = CODE.sub(lambda code: PLAIN_TOKENS.sub(r"\1", code[0]), text)
    text = EMPTY_HEAD.sub(r"<td\1></td>", text)
    return re.sub(r"<img\b[^>]*>", partial(with_size, page=page), text)


def finish(app: Sphinx, error: Exception | None) -> None:
    """Mend all that was written."""
    if error or app.builder.name != "html":
        return
    out = Path(app.outdir)
    before, after = shrink_pictures(out, Path(app.doctreedir) / "pictures")
    pages = {path: path.read_text(encoding="utf-8") for path in out.rglob("*.html") if "_static" not in path.parts}
    for path, text in pages.items():
        mended = mend(text, path)
        if mended != text:
            path.write_text(mended, encoding="utf-8")
    scripts = [path.read_text(encoding="utf-8") for pattern in SCRIPTS for path in out.glob(pattern)]
    cut_icons(out, cut_style_sheets(out, words_of(pages.values(), scripts)))
    for unused in ("_static/sphinx-design.min.css", "_static/design-tabs.js"):
        (out / unused).unlink(missing_ok=True)
    for folder in ("_sphinx_design_static",):
        shutil.rmtree(out / folder, ignore_errors=True)
    logger.info("pictures: %.1f MB, were %.1f MB", after / 1e6, before / 1e6)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", load_less, priority=900)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
