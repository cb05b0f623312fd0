"""The tables of the leaderboard page, from the entries in benchmarks/*.json and benchmarks/entries/*.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from stgcn_lab.verification import MEASURES, leaderboard

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
COLUMNS = (
    "Model and kind", "One run", "Ensemble", "One run against the reference", "Ensemble against the reference",
    "Seconds", "Parameters",
)  # fmt: skip


def entry_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json")) + sorted((folder / "entries").glob("*.json"))


def read_entries(folder: Path) -> pd.DataFrame:
    """All entries of a folder and of its subfolder "entries" as one leaderboard; an error names the file."""
    entries: list[Any] = []
    for path in entry_files(folder):
        name = path.relative_to(folder.parent).as_posix()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise TypeError(f"expected an entry or {{'entries': [...]}}, found {type(content).__name__}")
            # A measurement of the project may be of something else than forecasts, and have none.
            found = content.get("entries", [] if path.parent == folder else [content])
            if not isinstance(found, list):
                raise TypeError(f"entries: expected a list, found {type(found).__name__}")
            leaderboard(found)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error
        try:
            leaderboard(entries + found)
        except ValueError as error:
            raise ValueError(f"{name}, with the files before it: {error}") from error
        entries += found
    return leaderboard(entries)


def decimals(rows: pd.DataFrame) -> int:
    """Scores of rare events are small numbers."""
    return 4 if rows["score"].min() >= 0.1 else 5


def number(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def verdict(low: float, high: float) -> str:
    """What the interval of a difference of errors says."""
    return "better" if high < 0 else "worse" if low > 0 else "not told apart"


def against(value: float, low: float, high: float, digits: int) -> str:
    if pd.isna(value):
        return "–"
    return f"{verdict(low, high)} {number(value, digits, '+')}\n{number(low, digits)} to {number(high, digits)}"


def cells(row: Any, reference: str | None, digits: int) -> list[str]:
    """What stands in a row; a line break is one on the page."""
    several = row.runs > 1
    score = number(row.score, digits)
    return [
        f"{row.model}\n{row.kind}",
        f"{score}\n± {number(row.spread, digits)}" if several else score,
        number(row.ensemble, digits) if several else "–",
        "the reference" if row.model == reference else against(row.difference, row.low, row.high, digits),
        against(row.ensemble_difference, row.ensemble_low, row.ensemble_high, digits),
        f"{row.seconds:.0f}" if row.seconds >= 10 else f"{row.seconds:.1f}" if row.seconds >= 0.1 else "< 0.1",
        "–" if pd.isna(row.parameters) else f"{row.parameters:,}",
    ]


def ahead(lead: int) -> str:
    return f"{lead} step{'s' if lead > 1 else ''} ahead"


def reference_of(rows: pd.DataFrame) -> str | None:
    """The model that differs from the reference by nothing, or else the only one that is not compared with it."""
    same = rows[(rows["low"] == 0) & (rows["high"] == 0)]
    if same.empty and len(rows) > 1:
        same = rows[rows["low"].isna()]
    return str(same["model"].iloc[0]) if len(same) == 1 else None


def table_node(rows: pd.DataFrame) -> nodes.table:
    """The table of one data set and lead time, with caption, column heads and row heads."""
    first, reference, digits = rows.iloc[0], reference_of(rows), decimals(rows)
    units = "" if first["units"] == "1" else f" in {first['units']}"
    caption = f"{first['dataset']}, {ahead(first['lead'])}: {MEASURES[first['measure']]}{units}. "
    caption += f"The reference is {reference}." if reference else "The reference is not in the table."
    group = nodes.tgroup(cols=len(COLUMNS))
    group += [nodes.colspec(colwidth=1, stub=int(name == COLUMNS[0])) for name in COLUMNS]

    def line(texts: Any) -> nodes.row:
        entries = ([nodes.paragraph(text=part) for part in text.splitlines()] for text in texts)
        return nodes.row("", *(nodes.entry("", *paragraphs) for paragraphs in entries))

    group += nodes.thead("", line(COLUMNS))
    group += nodes.tbody("", *(line(cells(row, reference, digits)) for row in rows.itertuples()))
    return nodes.table("", nodes.title(text=caption), group, classes=["leaderboard"])


def summary(rows: pd.DataFrame) -> str:
    """What is seen of a folded table."""
    best, reference = rows.iloc[0], reference_of(rows)
    text = f"{ahead(best['lead'])}: first is {best['model']}, {number(best['score'], decimals(rows))}"
    if best["model"] == reference:
        return f"{text}, the reference"
    if pd.isna(best["low"]):
        return text
    word = verdict(best["low"], best["high"])
    return f"{text}, {word} {'from' if word == 'not told apart' else 'than'} the reference"


def sections(table: pd.DataFrame) -> list[nodes.Node]:
    """A section for each data set; where it has several lead times, all tables but the first are folded."""
    made: list[nodes.Node] = []
    for dataset, rows in table.groupby("dataset", sort=False):
        section = nodes.section("", nodes.title(text=str(dataset)), ids=[nodes.make_id(f"data {dataset}")])
        section["names"] = section["ids"]
        leads = [part for _, part in rows.groupby("lead", sort=False)]
        for i, part in enumerate(leads):
            if len(leads) == 1:
                section += table_node(part)
                continue
            words = nodes.Text(summary(part)).astext().replace("&", "&amp;").replace("<", "&lt;")
            start = f'<details class="leaderboard"{"" if i else " open"}><summary>{words}</summary>'
            section += [nodes.raw("", start, format="html"), table_node(part)]
            section += nodes.raw("", "</details>", format="html")
        made.append(section)
    return made


class Leaderboard(SphinxDirective):
    """The tables of all entries."""

    def run(self) -> list[nodes.Node]:
        for path in entry_files(BENCHMARKS):
            self.env.note_dependency(str(path))
        try:
            table = read_entries(BENCHMARKS)
        except ValueError as error:
            raise ExtensionError(f"leaderboard: {error}") from error
        return sections(table) or [nodes.paragraph(text="Nothing has been measured yet.")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("leaderboard", Leaderboard)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
