"""Colours that colour-blind eyes tell apart: in the package, in the chapters' figures, on the live page.

Colour blindness is simulated after Machado, Oliveira and Fernandes (2009), doi.org/10.1109/TVCG.2009.113, at full
severity; how far apart two colours then look is the distance in CIELAB of 1976.
"""

from __future__ import annotations

import ast
import re
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from book_files import BOOK, NOTEBOOKS, ROOT, code_cells, label
from matplotlib.colors import to_rgb

from stgcn_lab import plots

EYES = {
    "full colour": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Two colours of one figure: a difference of 2.3 is just seen where both lie side by side, and lines are thin and apart
APART = 10
# Maps that are words of the language as well count only where a colour map is asked for
WORDS = {"autumn", "binary", "bone", "cool", "copper", "flag", "gray", "grey", "hot", "jet", "ocean", "pink", "prism"}
WORDS |= {"rainbow", "spring", "summer", "terrain", "winter"}
# Maps with bands that are none, with no order of lightness, or with a red and a green end
FORBIDDEN = (
    "jet", "rainbow", "gist_rainbow", "hsv", "nipy_spectral", "gist_ncar", "prism", "flag", "Spectral",
    "RdYlGn", "brg", "Set1", "Set2", "Set3", "tab10", "tab20", "Paired", "Accent", "Pastel1", "turbo",
)  # fmt: skip
IN_ORDER = ("viridis", "cividis", "Blues", "Greys", "magma", "inferno", "plasma")  # lightness says which is more
WITH_A_MIDDLE = ("RdBu", "PuOr", "BrBG", "coolwarm", "vlag")
SOURCES = sorted((ROOT / "stgcn_lab").rglob("*.py")) + sorted((BOOK / "_live").glob("*.*js"))
PLACES = [*NOTEBOOKS, *SOURCES]
COLOUR = re.compile(r"""["'](#[0-9a-fA-F]{6})["']""")


def linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(colour: str | tuple[float, float, float], eyes: str) -> np.ndarray:
    """CIELAB (white of daylight, D65) of a colour as these eyes see it."""
    seen = np.clip(np.asarray(EYES[eyes]) @ linear(np.array(to_rgb(colour))), 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in to_xyz @ seen / [0.95047, 1.0, 1.08883])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str) -> tuple[float, str]:
    """How far apart two colours look to the eyes that tell them apart worst, and which eyes these are."""
    return min((float(np.linalg.norm(lab(one, eyes) - lab(other, eyes))), eyes) for eyes in EYES)


def texts(place: Path) -> list[str]:
    """The cells of a notebook, or the text of a file."""
    if place.suffix == ".ipynb":
        return [cell.source for cell in code_cells(place)]
    return [place.read_text(encoding="utf-8")]


def named_maps(text: str) -> set[str]:
    """The colour maps that a piece of code names, reversed or not."""
    asked = re.findall(r"""(?:cmap\W{1,4}(?:str = )?|get_cmap\(|colormaps\[)["'](\w+)["']|\bcm\.(\w+)""", text)
    words = {word for pair in asked for word in pair}
    words |= {word for word in re.findall(r"""["'](\w+)["']""", text) if word.removesuffix("_r") not in WORDS}
    return {word.removesuffix("_r") for word in words if word in matplotlib.colormaps}


def test_simulation_is_right():
    """Green and red of equal lightness fall together without the middle cones; greys stay; blue and yellow are far."""
    for eyes in EYES:
        white, black = lab("white", eyes), lab("black", eyes)
        assert white[0] - black[0] == pytest.approx(100, abs=0.5)
        assert abs(lab("#808080", eyes)[1:]).max() < 1
    assert (
        distance("#8f7a00", "#c05f00")[0]
        < 15
        < np.linalg.norm(lab("#8f7a00", "full colour") - lab("#c05f00", "full colour"))
    )
    assert distance("#0072b2", "#e69f00")[0] > 40
    assert distance("#00a000", "#b08000")[1] in ("protanopia", "deuteranopia")


@pytest.mark.parametrize("place", PLACES, ids=label)
def test_no_colour_map_misleads(place):
    found = set().union(*(named_maps(text) for text in texts(place)))
    assert not found & set(FORBIDDEN), f"{label(place)}: {found & set(FORBIDDEN)}"


def test_the_scan_sees_a_colour_map():
    assert named_maps('ax.pcolormesh(x, y, z, cmap="jet_r")') == {"jet"}
    assert named_maps("plt.cm.rainbow(0.3)") == {"rainbow"}
    assert named_maps('plots.field_map(lat, lon, z, cmap="cividis")') == {"cividis"}


@pytest.mark.parametrize("name", sorted(set().union(*(named_maps(text) for place in PLACES for text in texts(place)))))
@pytest.mark.parametrize("eyes", EYES)
def test_colour_maps_keep_their_order(name, eyes):
    """More is lighter all the way (or darker), or away from the middle; whatever the eyes."""
    if name not in IN_ORDER + WITH_A_MIDDLE:
        pytest.fail(f"{name}: expected one of {', '.join(IN_ORDER + WITH_A_MIDDLE)}, or a word in this test why not")
    light = np.array([lab(matplotlib.colormaps[name](x)[:3], eyes)[0] for x in np.linspace(0, 1, 33)])
    halves = [light] if name in IN_ORDER else [light[:17], light[16:]]
    for half in halves:
        steps = np.diff(half) * np.sign(half[-1] - half[0])
        assert steps.min() > -1.5, (name, eyes)
        assert abs(half[-1] - half[0]) > 30


def test_palette_of_the_package():
    close = {(a, b): distance(a, b) for a, b in combinations(plots.OKABE_ITO, 2)}
    assert min(close.values())[0] >= 1.5 * APART, sorted(close.items(), key=lambda item: item[1])[:3]
    assert distance(plots.OBSERVED, plots.MISSING)[0] >= 40
    assert distance(plots.SEA, plots.INK)[0] >= 40


def functions(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(text, node) or "" for node in found}


def colours_together() -> dict[str, list[str]]:
    """Colours of one figure: those that a cell, or a function of the package that draws, names."""
    together = {}
    for path in NOTEBOOKS:
        for number, cell in enumerate(code_cells(path)):
            together[f"{label(path)}, code cell {number}"] = COLOUR.findall(cell.source)
    for name, text in functions(ROOT / "stgcn_lab" / "plots.py").items():
        together[f"plots.{name}"] = COLOUR.findall(text)
    return {place: sorted({c.lower() for c in found}) for place, found in together.items() if len(set(found)) > 1}


# Pairs that need not be told apart by their colour alone, with what else tells them apart
TOLD_OTHERWISE: dict[frozenset[str], str] = {}


def test_colours_of_one_figure_are_told_apart():
    together = colours_together()
    assert len(together) > 20
    close = {
        (place, a, b): distance(a, b)
        for place, colours in together.items()
        for a, b in combinations(colours, 2)
        if frozenset((a, b)) not in TOLD_OTHERWISE
    }
    bad = [f"{place}: {a} {b} {d:.0f} ({eyes})" for (place, a, b), (d, eyes) in close.items() if d < APART]
    assert not bad, "\n".join(bad)
