"""What book/_ext/theme_fixes.py does to style sheets, pictures and pages; the browser's tests see the rest."""

from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest
from book_files import BOOK, ROOT
from fontTools.ttLib import TTFont
from PIL import Image

sys.path.insert(0, str(BOOK / "_ext"))
import theme_fixes as fixes

CSS = """@charset "utf-8";/* a { comment } */
a,.used:hover>p,.unused a{color:red}
.unused{background:url("data:image/svg+xml,%3csvg d='M0 0h1}' transform='rotate(45)'/%3e")}
.used{background:url("data:image/svg+xml,%3csvg d='M0 0h1}' transform='rotate(45)'/%3e");content:"}"}
@media (max-width:5px){.unused{top:0}#there{top:1px}}
@media print{.unused{top:0}}
.used:not(.unused){top:2px}
@keyframes turn{from{top:0}to{top:1px}}
"""


def test_unused_rules_go_and_the_others_stay():
    css = fixes.without_unused(CSS, {"used", "there"})
    assert '@charset "utf-8";' in css
    assert "a,.used:hover>p{color:red}" in css
    assert ".used{background:url(" in css and 'content:"}"}' in css
    assert "@media (max-width:5px){#there{top:1px}}" in css
    assert "@media print" not in css
    assert ".used:not(.unused){top:2px}" in css, "a class that is excluded decides nothing"
    assert "@keyframes turn{from{top:0}to{top:1px}}" in css
    assert ".unused{" not in css and ".unused a" not in css
    assert fixes.without_unused(css, {"used", "there"}) == css, "cutting twice changes nothing"


def test_words_come_from_pages_and_scripts():
    words = fixes.words_of(['<p class="one two" id="three">four</p>'], ['x.classList.add("five-six")'])
    assert {"one", "two", "three", "five-six"} <= words
    assert "four" not in words


def noisy(colours: int) -> Image.Image:
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (colours, 3), dtype=np.uint8)
    return Image.fromarray(palette[rng.integers(0, colours, (120, 160))])


@pytest.mark.parametrize("colours, exact", [(40, True), (60_000, True)])
def test_pictures_change_nothing_that_is_seen(tmp_path, colours, exact):
    """Few colours fit a palette without loss; where a palette would be seen, the picture is only packed again."""
    path = tmp_path / "picture.png"
    noisy(colours).convert("RGBA").save(path)
    data = fixes.smaller(path)
    assert len(data) <= path.stat().st_size
    assert (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) == np.asarray(noisy(colours))).all() == exact


def test_a_smooth_picture_gets_a_palette(tmp_path):
    path = tmp_path / "picture.png"
    x, y = np.meshgrid(np.linspace(0, 1, 300), np.linspace(0, 1, 200))
    smooth = np.stack([255 * x, 200 * y, 120 + 60 * x * y], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(path)
    small = Image.open(io.BytesIO(fixes.smaller(path)))
    off = np.abs(np.asarray(small.convert("RGB"), int) - smooth)
    assert off.mean() < 5
    assert small.mode in ("P", "RGB")


def test_transparent_pictures_are_left_alone(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGBA", (20, 20), (255, 0, 0, 100)).save(path)
    assert fixes.smaller(path) == path.read_bytes()


def test_pictures_are_made_once(tmp_path):
    (tmp_path / "_images").mkdir()
    path = tmp_path / "_images" / "picture.png"
    noisy(40).save(path, compress_level=0)
    source = path.read_bytes()
    before, after = fixes.shrink_pictures(tmp_path, tmp_path / "kept")
    assert after < before == len(source)
    kept = next((tmp_path / "kept").iterdir())
    kept.write_bytes(b"made before")
    path.write_bytes(source)
    fixes.shrink_pictures(tmp_path, tmp_path / "kept")
    assert path.read_bytes() == b"made before"


PAGE = """<script src="../_static/searchtools.js"></script>
<script src="../searchindex.js?v=1"></script>
<div id="pst-primary-sidebar" class="bd-sidebar"></div>
<button class="btn search-button-field x" aria-label="Search"><i class="fa-solid fa-x"></i>Search</button>
<summary aria-label="Toggle hidden content"><p>Show solution</p></summary>
<table><tr><th class="head"><p></p></th><th>a</th></tr></table>
<pre><span class="n">a</span> <span class="o">=</span><span class="w"> </span><span class="mi">1</span></pre>
<p><span class="n">kept</span></p>
<img alt="words" src="picture.png"/>
"""


def test_page_is_mended(tmp_path):
    noisy(4).save(tmp_path / "picture.png")
    text = fixes.mend(PAGE, tmp_path / "chapter.html")
    assert "searchtools" not in text and "searchindex" not in text
    assert "searchindex" in fixes.mend(PAGE, tmp_path / "search.html")
    assert 'role="complementary" aria-label="Book"' in text
    assert 'aria-label="Search"' not in text and "Toggle hidden content" not in text
    assert '<i aria-hidden="true" class="fa-solid fa-x">' in text
    assert '<td class="head"></td><th>a</th>' in text
    assert '<pre>a <span class="o">=</span> <span class="mi">1</span></pre>' in text
    assert '<p><span class="n">kept</span></p>' in text
    assert '<img width="160" height="120" decoding="async" alt="words" src="picture.png"/>' in text
    assert fixes.mend(text, tmp_path / "chapter.html") == text, "mending twice changes nothing"


def test_the_icon_font_is_cut_to_what_is_shown(tmp_path):
    import pydata_sphinx_theme

    fonts = tmp_path / "_static" / "vendor" / "fontawesome" / "webfonts"
    fonts.mkdir(parents=True)
    theme = fixes.Path(pydata_sphinx_theme.__file__).parent
    source = next(theme.rglob("fa-solid-900.ttf"))
    (fonts / "fa-solid-900.ttf").write_bytes(source.read_bytes())
    fixes.cut_icons(tmp_path, {0xF0C9, 0xF019})
    assert [path.name for path in fonts.iterdir()] == ["fa-solid-900.woff"]
    assert (fonts / "fa-solid-900.woff").stat().st_size < 5000
    assert set(TTFont(fonts / "fa-solid-900.woff").getBestCmap()) == {0xF0C9, 0xF019}


def test_katex_is_complete():
    """Every font that its style sheet names lies beside it, and nothing else is asked for."""
    folder = ROOT / "book" / "_extra" / "katex"
    named = set(re.findall(r"url\(([^)]+)\)", (folder / "katex.css").read_text(encoding="utf-8")))
    assert len(named) >= 20
    assert named == {path.relative_to(folder).as_posix() for path in (folder / "fonts").iterdir()}
    assert (folder / "LICENSE").is_file()
