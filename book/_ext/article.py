"""The page that answers the article, from book/article.yml: one entry for each of its sentences."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

STATUS = {
    "true": "true",
    "half true": "half true",
    "not borne out": "not borne out",
    "wrong": "wrong as printed",
    "no claim": "no claim",
}
KEYS = {"id", "digest", "says", "status", "answer", "sections", "functions", "tests"}


def read_article(path: Path) -> dict[str, Any]:
    """The answers to the article; an error says which entry is wrong."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in content["entries"]:
        name = f"{path.name}: {entry.get('id')}"
        if set(entry) - KEYS or {"id", "digest", "says", "status", "answer"} - set(entry):
            raise ValueError(f"{name}: expected {', '.join(sorted(KEYS))}, found {', '.join(sorted(entry))}")
        if entry["status"] not in STATUS:
            raise ValueError(f"{name}: status: expected one of {', '.join(STATUS)}, found {entry['status']!r}")
    return dict(content)


def section_of(entry: dict[str, Any]) -> str:
    return str(entry["id"]).rpartition("-")[0]


def place(target: str) -> str:
    """A link whose words are the title of its target, behind the number of its chapter."""
    number = re.search(r"/(\d+)-[^/]*\.ipynb", target)
    return f"{int(number[1])} []({target})" if number else f"[]({target})"


class Article(SphinxDirective):
    """How many sentences are how true, then each with its answer."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "article.yml"
        self.env.note_dependency(str(path))
        try:
            content = read_article(path)
        except (ValueError, yaml.YAMLError) as error:
            raise ExtensionError(f"article: {error}") from error
        entries = content["entries"]
        counts = Counter(entry["status"] for entry in entries)
        lines = ["| Verdict | Statements |", "|---|---:|"]
        lines += [f"| {words} | {counts[status]} |" for status, words in STATUS.items()]
        lines += ["", f"Together {len(entries)}.", ""]
        made = self.parse_text_to_nodes("\n".join(lines))
        for section, title in content["titles"].items():
            heading = title if section == "0" else f"{section} {title}"
            block = nodes.section("", nodes.title(text=heading), ids=[nodes.make_id(f"article section {section}")])
            block["names"] = block["ids"]
            for entry in entries:
                if section_of(entry) == section:
                    block += self.entry(entry)
            made.append(block)
        return made

    def entry(self, entry: dict[str, Any]) -> nodes.container:
        lines = [f"**{entry['id']}** {entry['says']}", ""]
        lines += [f"**{STATUS[entry['status']].capitalize()}.** {entry['answer'].strip()}", ""]
        where = []
        if entry.get("sections"):
            where.append("See " + "; ".join(place(target) for target in entry["sections"]) + ".")
        if entry.get("functions"):
            where.append("In the code: " + ", ".join(f"`{name}`" for name in entry["functions"]) + ".")
        if entry.get("tests"):
            where.append(
                "Tested by " + ", ".join(f"`{name.split('::')[-1].split('/')[-1]}`" for name in entry["tests"]) + "."
            )
        box = nodes.container("", classes=["article-entry", "verdict-" + entry["status"].replace(" ", "-")])
        box["ids"].append(f"says-{nodes.make_id(str(entry['id']))}")
        first, second = self.parse_text_to_nodes("\n".join(lines))[:2]
        first["classes"].append("article-says")
        second["classes"].append("article-answer")
        box += [first, second]
        if where:
            third = self.parse_text_to_nodes(" ".join(where))[0]
            third["classes"].append("article-where")
            box += third
        return box


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("article-answers", Article)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
