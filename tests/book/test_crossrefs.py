"""Numbers in the text become links, terms an index, names a list: by themselves, and in a small book that is built."""

from __future__ import annotations

import importlib
import json
import re
import sys
from io import StringIO
from pathlib import Path

import book_files as book
import pytest
import yaml
from docutils import nodes
from sphinx.application import Sphinx

import stgcn_lab

sys.path.insert(0, str(book.BOOK / "_ext"))
import citation  # noqa: E402
import references  # noqa: E402


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("as equation (2.1) says", [("equation (2.1)", "equation", "2.1")]),
        ("Equations (2.1) and (2.2),", [("Equations (2.1)", "equation", "2.1"), ("(2.2)", "equation", "2.2")]),
        ("equations (2.1)–(2.3)", [("equations (2.1)", "equation", "2.1"), ("(2.3)", "equation", "2.3")]),
        ("in equation\n11.13 the", [("equation\n11.13", "equation", "11.13")]),
        ("by (11.5), and figure 5.2", [("(11.5)", "", "11.5"), ("figure 5.2", "figure", "5.2")]),
        (
            "Figures 5.2, 5.3 and 5.10.",
            [("Figures 5.2", "figure", "5.2"), ("5.3", "figure", "5.3"), ("5.10", "figure", "5.10")],
        ),
        ("Fig. 1.1 shows", [("Fig. 1.1", "figure", "1.1")]),
        ("figure 2 of that paper, 3.5 m/s, version 1.2, (5 %)", []),
        ("a configuration 1.2", []),
    ],
)
def test_numbers_are_found_in_text(text, found):
    assert [(text[a:b], kind, number) for a, b, kind, number in references.spans(text)] == found


def test_terms_are_found_as_they_are_written():
    for term, there, not_there in [
        ("Adjacency matrix", "the adjacency matrix", "the adjacency"),
        ("Edge", "Edges are drawn", "knowledge, edgewise, two-edge"),
        ("Climatology", "two climatologies", "climatological"),
        ("Hidden Markov model", "a hidden Markov model", "a hidden markov model"),
        ("Memory (of a cell)", "its memory", "memorable"),
        ("ROC curve", "ROC curves", "roc curves"),
    ]:
        assert references.pattern(term).search(there), term
        assert not references.pattern(term).search(not_there), term


def test_an_index_entry_leads_where_a_term_is_used_most():
    pages = {
        "a/01": [("First", "first", "edge edge edge", set()), ("Other", "other", "edge", set())],
        "a/02": [("On an edge", "on", "nothing", set())],
        "a/03": [("Linked", "linked", "nothing", {"edge"})],
        "a/04": [("Named twice", "twice", "edge edge", set())],
        "a/05": [("List", "list", "edge list edge list edge list", set())],
    }
    found = references.places("Edge", "edge", pages, ["Edge list"])
    assert found == [("a/01", "first", "First"), ("a/02", "on", "On an edge"), ("a/03", "linked", "Linked")]
    # a term that is nowhere used three times is not left without a place
    assert references.places("Edge", "x", {"a/04": pages["a/04"]}, []) == [("a/04", "twice", "Named twice")]
    assert references.places("Grid", "grid", pages, []) == []


def test_public_names_are_those_of_the_package():
    found = references.public_names()
    assert list(found) == stgcn_lab.__all__
    for module, names in found.items():
        imported = importlib.import_module(f"stgcn_lab.{module}")
        assert names, module
        for name, (kind, words) in names.items():
            assert hasattr(imported, name), f"{module}.{name}"
            assert kind in ("function", "class", "constant", "type"), f"{module}.{name}"
            assert words or kind in ("constant", "type"), f"{module}.{name} has no docstring"
            assert ":func:" not in words


def test_used_names_are_those_of_the_code(tmp_path):
    cells = [
        {"cell_type": "code", "source": ["from stgcn_lab import graphs as g, datasets\n"]},
        {"cell_type": "code", "source": ["from stgcn_lab.layers import GraphConv\n"]},
        {"cell_type": "code", "source": ["x = g.knn_graph(1).graphs.no\n", "datasets.load_irish_wind()\n"]},
        {"cell_type": "markdown", "source": ["`g.radius_graph`"]},
    ]  # fmt: skip
    path = tmp_path / "01-x.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert references.used_names(path) == {"graphs.knn_graph", "datasets.load_irish_wind", "layers.GraphConv"}


def figure_numbers() -> set[str]:
    """The numbers that Sphinx gives: within a chapter one for each output with a caption, in order."""
    found = set()
    for path in book.NOTEBOOKS:
        cells = book.code_cells(path)
        count = sum("figure" in cell.metadata.get("mystnb", {}) for cell in cells)
        found |= {f"{int(path.name.split('-')[0])}.{i}" for i in range(1, count + 1)}
    return found


@pytest.mark.parametrize("path", [*book.NOTEBOOKS, *book.MARKDOWN], ids=book.label)
def test_figures_and_equations_that_a_text_names_exist(path):
    known = {"figure": figure_numbers(), "equation": {t for p in book.NOTEBOOKS for t in book.equation_tags(p)}}
    for text in book.prose(path):
        plain = re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", " ", text, flags=re.DOTALL)
        for _, _, kind, number in references.spans(plain):
            assert not kind or number in known[kind], f"{kind} {number}"


# -- a small book -----------------------------------------------------------------------------------------------------

CHAPTER = r"""# One

## Start

$$
a = b
\tag{1.1}
$$

See equation (1.1) and (1.1), `(1.1)`, ($1.1$), (1.9) and figure 1.1. A [knot](../glossary.md#knot).

```{figure} dot.png
:name: fig-dot
:alt: A dot.

A dot.
```

## Exercises

A knot, a knot, a knot.
"""
BAD = "# Two\n\nSee equation (7.7) and figure 9.9.\n"


def build(folder: Path, chapters: dict[str, str]) -> tuple[Path, str]:
    source = folder / "book"
    (source / "part").mkdir(parents=True)
    (source / "part" / "dot.png").write_bytes((book.BOOK / "_static" / "front.png").read_bytes())
    pages = {
        "glossary": "# Glossary\n\n## Words\n\n### Knot\nA speed.\n",
        "genindex": "# Index\n\n```{term-index}\n```\n",
    }
    pages |= {f"part/{name}": text for name, text in chapters.items()}
    for name, text in pages.items():
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    listed = "\n".join(f"part/{name}" for name in chapters)
    (source / "index.md").write_text(
        f"# Book\n\n```{{toctree}}\n:numbered:\n{listed}\n```\n\n```{{toctree}}\nglossary\ngenindex\n```\n",
        encoding="utf-8",
    )
    # the same extensions, without the theme of the book
    config = {
        "extensions": ["myst_parser", "stgcn_book", "references"],
        "myst_enable_extensions": ["dollarmath"],
        "myst_heading_anchors": 3,
        "numfig": True,
        "exclude_patterns": [],
    }
    said = StringIO()
    app = Sphinx(
        source, None, folder / "html", folder / "trees", "html", confoverrides=config, status=None, warning=said
    )
    app.build()
    return folder / "html", said.getvalue()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("small"), {"01-one": CHAPTER})


def links_of(page: Path) -> list[tuple[str, str]]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'<a class="reference internal" href="([^"]*)"[^>]*>(.*?)</a>', text, re.DOTALL)
    return [(href, re.sub("<[^>]*>", "", words)) for href, words in found]


def test_equations_have_anchors_and_links(built):
    folder, said = built
    assert not re.search("WARNING|ERROR", said)
    page = folder / "part" / "01-one.html"
    text = page.read_text(encoding="utf-8")
    assert re.search(r'<div class="math[^"]*" id="equation-1-1">', text)
    links = links_of(page)
    assert links.count(("#equation-1-1", "equation (1.1)")) == 1
    assert links.count(("#equation-1-1", "(1.1)")) == 1  # not the one in code
    assert ("#fig-dot", "figure 1.1") in links
    assert not [words for _, words in links if "1.9" in words]


def test_the_index_leads_to_the_section_and_not_to_exercises(built):
    links = links_of(built[0] / "genindex.html")
    assert ("glossary.html#knot", "Knot") in links
    assert ("part/01-one.html#start", "Start") in links
    assert not [href for href, _ in links if "exercises" in href]
    assert "1 " in (built[0] / "genindex.html").read_text(encoding="utf-8").split("index-chapter")[1][:20]


def test_an_unknown_number_is_a_warning(tmp_path):
    _, said = build(tmp_path, {"01-one": CHAPTER, "02-two": BAD})
    assert "equation 7.7: the book has none of this number" in said
    assert "figure 9.9: the book has none of this number" in said


# -- how to cite ------------------------------------------------------------------------------------------------------


def test_citations_come_from_the_file():
    cited = yaml.safe_load(citation.CITATION.read_text(encoding="utf-8"))
    text = citation.sentence(cited, "2026")
    assert text.startswith(f"{cited['authors'][0]['name']} (") and cited["title"] in text
    assert f"Version {cited['version']}." in text
    chapter = citation.title_of(book.NOTEBOOKS[0])
    assert chapter in citation.bibtex(cited, "2026", chapter, 1)


def test_people_places_and_dates_are_cited_too():
    cited = {
        "authors": [{"family-names": "Noether", "given-names": "Emmy"}, {"name": "A group"}],
        "title": "T", "version": "2.0", "date-released": "2031-02-03", "repository-code": "https://example.org/x",
    }  # fmt: skip
    assert citation.sentence(cited, "1999") == "Noether, Emmy and A group (2031). T. Version 2.0. https://example.org/x"
    assert citation.bibtex(cited, "1999", "C", 4) == (
        "@inbook{weather_on_graphs_4,\n  author = {Noether, Emmy and {A group}},\n  title = {{C}},\n"
        "  booktitle = {{T}},\n  chapter = {4},\n  year = {2031},\n  note = {Version 2.0},\n"
        "  url = {https://example.org/x},\n}"
    )


def test_a_doi_with_brackets_is_a_link():
    made = re.sub(r"doi:(10\.\S+?)(?=[.,]?(?:\s|$))", citation.linked, "77. doi:10.1/a(9)<1:B>2, next")
    assert made == r"77. [doi:10.1/a(9)\<1:B\>2](https://doi.org/10.1/a%289%29%3C1:B%3E2), next"


def test_literal_text_gets_no_link():
    text = nodes.Text("(1.1)")
    parent = nodes.literal("", "", text)
    text.parent = parent
    assert references.NumberLinks.in_literal(text)
