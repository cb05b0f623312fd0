"""The leaderboard page: what stands in its tables, what it refuses, and the example that it gives."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import book_files as book
import pytest
from docutils.core import publish_from_doctree
from docutils.utils import new_document

sys.path.insert(0, str(book.BOOK / "_ext"))
import stgcn_leaderboard as page  # noqa: E402


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def line(model: str, score: float, **change: object) -> dict[str, object]:
    made = {
        "dataset": "Wind", "model": model, "kind": "linear", "lead": 1, "units": "m/s", "score": score,
        "seeds": [score], "spread": 0.0, "ensemble": None, "difference": interval(score - 0.5, 0.01),
        "ensemble_difference": None, "seconds": 0.02, "parameters": None,
    }  # fmt: skip
    return made | change


LINES = [
    line("worse one", 0.6),
    line("VAR", 0.5, difference=interval(0, 0)),
    line(
        "graph | <b>*net*</b> $x$", 0.45, kind="network", seeds=[0.44, 0.46], spread=0.0141, ensemble=0.43,
        ensemble_difference=interval(-0.07, 0.02), seconds=61.7, parameters=12345,
    ),
    line("level", 0.505, seconds=1.26),
]  # fmt: skip


# Scores of a rare event are small, and their differences still smaller.
BRIER = [
    line("logistic", 0.0187, dataset="Gales", measure="brier", units="1", difference=interval(0, 0)),
    line("net", 0.01849, dataset="Gales", measure="brier", units="1", difference=interval(-0.00021, 0.00008)),
]  # fmt: skip


class Tables(HTMLParser):
    """Captions, and cells as (tag, text) by table and row; also the folded parts and the headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.captions: list[str] = []
        self.tables: list[list[list[tuple[str, str]]]] = []
        self.folds: list[bool] = []
        self.summaries: list[str] = []
        self.headings: list[str] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag == "details":
            self.folds.append("open" in dict(attrs))
        if tag in ("th", "td"):
            self.tables[-1][-1].append((tag, ""))
        if tag in ("caption", "summary", "h2"):
            self._into = {"caption": self.captions, "summary": self.summaries, "h2": self.headings}[tag]
            self._into.append("")

    def handle_endtag(self, tag):
        if tag in ("caption", "summary", "h2"):
            self._into = None

    def handle_data(self, data):
        if self._into is not None:
            self._into[-1] += data
        elif self.tables and self.tables[-1] and self.tables[-1][-1] and data.strip():
            tag, text = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (tag, f"{text} {data.strip()}".strip())


def write(folder: Path, **files: object) -> Path:
    """benchmarks/NAME.json for each name, benchmarks/entries/NAME.json for each that ends with "_entry"."""
    (folder / "benchmarks" / "entries").mkdir(parents=True)
    for name, content in files.items():
        where = "entries/" if name.endswith("_entry") else ""
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "benchmarks" / f"{where}{name}.json").write_text(text, encoding="utf-8")
    return folder / "benchmarks"


def rendered(folder: Path) -> Tables:
    document = new_document("leaderboard")
    document += page.sections(page.read_entries(folder))
    options = {"output_encoding": "unicode", "doctitle_xform": False, "initial_header_level": 2}
    return Tables(publish_from_doctree(document, writer_name="html5", settings_overrides=options))


def test_rows_say_what_the_entries_say(tmp_path):
    # benchmarks of other things have no entries; one entry or several may come from a reader
    folder = write(tmp_path, wind={"entries": LINES[:2]}, regimes={"seeds": [0]}, my_entry=LINES[2],
                   more_entry={"entries": LINES[3:]})  # fmt: skip
    found = rendered(folder)
    assert found.headings == ["Wind"]
    assert found.captions == ["Wind, 1 step ahead: root mean square error in m/s. The reference is VAR."]
    ((heads, *rows),) = found.tables
    assert heads == [("th", name) for name in page.COLUMNS]
    assert [[tag for tag, _ in row] for row in rows] == [["th"] + ["td"] * (len(heads) - 1)] * 4
    assert [[text for _, text in row] for row in rows] == [
        ["graph | <b>*net*</b> $x$ network", "0.4500 ± 0.0141", "0.4300",
         "better −0.0500 −0.0600 to −0.0400", "better −0.0700 −0.0900 to −0.0500", "62", "12,345"],
        ["VAR linear", "0.5000", "–", "the reference", "–", "< 0.1", "–"],
        ["level linear", "0.5050", "–", "not told apart +0.0050 −0.0050 to 0.0150", "–", "1.3", "–"],
        ["worse one linear", "0.6000", "–", "worse +0.1000 0.0900 to 0.1100", "–", "< 0.1", "–"],
    ]  # fmt: skip


def test_an_entry_of_verification_has_the_keys_of_these_tests():
    from stgcn_lab import verification

    assert set(LINES[0]) == set(verification._ENTRY)
    assert set(BRIER[0]) == {*verification._ENTRY, "measure"}


def test_the_caption_names_the_measure(tmp_path):
    found = rendered(write(tmp_path, wind={"entries": LINES}, gales={"entries": BRIER}))
    assert found.captions == [
        "Gales, 1 step ahead: Brier score. The reference is logistic.",
        "Wind, 1 step ahead: root mean square error in m/s. The reference is VAR.",
    ]
    (net, logistic), wind = found.tables[0][1:], found.tables[1]
    assert net[1][1] == "0.01849" and logistic[1][1] == "0.01870"
    assert net[3][1] == "better −0.00021 −0.00029 to −0.00013"
    assert wind[2][1][1] == "0.5000"
    far = [one | {"lead": 2} for one in BRIER]
    found = rendered(write(tmp_path / "far", gales={"entries": BRIER + far}))
    assert found.summaries[1] == "2 steps ahead: first is net, 0.01849, better than the reference"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.2, -0.1, "better"),
        (-0.2, 0.0, "not told apart"),
        (-0.1, 0.2, "not told apart"),
        (0.0, 0.2, "not told apart"),
        (0.1, 0.2, "worse"),
    ],
)
def test_the_word_is_that_of_the_interval(low, high, word):
    assert page.verdict(low, high) == word


def test_data_sets_and_lead_times_have_tables_of_their_own(tmp_path):
    far = [line("VAR", 0.9, lead=12, difference=None), line("net <1>", 0.8, lead=12)]
    entries = [*LINES[:2], line("persistence", 0.4, dataset="Air", difference=None), *far]
    found = rendered(write(tmp_path, wind={"entries": entries}))
    assert found.headings == ["Air", "Wind"]
    assert [caption.split(":")[0] for caption in found.captions] == [
        "Air, 1 step ahead", "Wind, 1 step ahead", "Wind, 12 steps ahead",
    ]  # fmt: skip
    # alone, without a reference; compared with nothing, and so the reference of the others
    assert found.captions[0].endswith("The reference is not in the table.")
    assert found.captions[2].endswith("The reference is VAR.")
    assert [row[3][1] for row in found.tables[2][1:]] == ["worse +0.3000 0.2900 to 0.3100", "the reference"]
    # only where there are several lead times; the first is open
    assert found.folds == [True, False]
    assert found.summaries == [
        "1 step ahead: first is VAR, 0.5000, the reference",
        "12 steps ahead: first is net <1>, 0.8000, worse than the reference",
    ]


def test_nothing_measured_is_no_error(tmp_path):
    assert page.sections(page.read_entries(write(tmp_path))) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ([1], "expected an entry or .*, found list"),
        ({"model": "mine"}, r"entries\[0\]: expected what verification.entry makes"),
        ({"entries": {"model": "mine"}}, "entries: expected a list, found dict"),
        ({"entries": [LINES[0], "mine"]}, r"entries\[1\]: expected a dict"),
        (LINES[0] | {"difference": "0.1"}, ""),
        (LINES[0] | {"score": "low"}, ""),
        (LINES[0], "with the files before it: .*'worse one'.* twice"),
        (line("other", 0.3, units="knots"), "with the files before it: .*one unit"),
        (line("other", 0.3, measure="mae"), "with the files before it: .*one measure"),
        (line("other", 0.3, measure="r2"), r"entries\[0\]\['measure'\]: expected one of rmse"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, content, message):
    folder = write(tmp_path, wind={"entries": LINES}, mine_entry=content)
    with pytest.raises(ValueError, match=rf"^benchmarks/entries/mine_entry\.json\b.*{message}"):
        page.read_entries(folder)


def test_entries_of_the_project_can_be_read():
    table = page.read_entries(book.ROOT / "benchmarks")
    assert not table.empty
    for (dataset, lead), rows in table.groupby(["dataset", "lead"]):
        assert page.reference_of(rows), f"{dataset}, lead {lead}: no reference"
        assert {"linear", "network"} <= set(rows["kind"]), f"{dataset}, lead {lead}"
        assert (rows.loc[rows["kind"] == "network", "runs"] >= 5).all(), f"{dataset}, lead {lead}: five seeds"


def test_the_example_of_the_page_runs_and_enters(tmp_path, monkeypatch):
    text = (book.BOOK / "leaderboard.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert max(map(len, code.splitlines())) <= 88
    folder = write(tmp_path)
    (folder / "entries").rmdir()
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, names)
    (entered,) = page.read_entries(folder).itertuples()
    assert (entered.model, entered.lead, entered.runs) == ("mean of VAR(3) and AR(3)", 1, 1)
    assert out.getvalue().startswith(f"{entered.score:.4f}")
    # the reference of the example is that of the benchmark: 0.4598 under protocol (b)
    assert entered.score - entered.difference == pytest.approx(0.4598, abs=1e-4)
    stored = page.read_entries(book.ROOT / "benchmarks")
    rows = stored[stored["dataset"] == entered.dataset]
    assert not rows.empty, "the example names a data set that has no table"
    assert set(rows["units"]) == {entered.units}
    reference = rows.set_index("model")["score"][page.reference_of(rows)]
    assert reference == pytest.approx(0.4598, abs=1e-4)
