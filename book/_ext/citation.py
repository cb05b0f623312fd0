"""How to cite the book, a chapter of it, and its data: all from CITATION.cff and from the register of the data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
CITATION = ROOT / "CITATION.cff"
REGISTRY = ROOT / "stgcn_lab" / "data" / "registry.json"


def names(cited: dict[str, Any]) -> list[str]:
    """The authors: people family name first, groups as they are called."""
    found = []
    for author in cited["authors"]:
        found.append(author["name"] if "name" in author else f"{author['family-names']}, {author['given-names']}")
    return found


def year_of(cited: dict[str, Any], otherwise: str) -> str:
    return str(cited.get("date-released", otherwise))[:4]


def sentence(cited: dict[str, Any], otherwise: str, chapter: str = "") -> str:
    """The citation as it stands in a list of references."""
    where = f" {cited['repository-code']}" if "repository-code" in cited else ""
    part = f"{chapter}. In: " if chapter else ""
    return (
        f"{' and '.join(names(cited))} ({year_of(cited, otherwise)}). {part}{cited['title']}. "
        f"Version {cited['version']}.{where}"
    )


def bibtex(cited: dict[str, Any], otherwise: str, chapter: str = "", number: int = 0) -> str:
    """The same for BibTeX; a group's name and the capitals of a title are held together by braces."""
    key = "weather_on_graphs"
    people = " and ".join(f"{{{name}}}" if "," not in name else name for name in names(cited))
    fields = {"author": people}
    if chapter:
        fields |= {"title": f"{{{chapter}}}", "booktitle": f"{{{cited['title']}}}", "chapter": str(number)}
    else:
        fields["title"] = f"{{{cited['title']}}}"
    fields |= {"year": year_of(cited, otherwise), "note": f"Version {cited['version']}"}
    if "repository-code" in cited:
        fields["url"] = cited["repository-code"]
    kind, key = ("inbook", f"{key}_{number}") if chapter else ("book", key)
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def title_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    found = re.search(r"^# (.+)$", "".join(cells[0]["source"]), re.MULTILINE)
    if found is None:
        raise ValueError(f"{notebook.name}: expected a title in the first cell")
    return found[1].strip()


class CiteThis(SphinxDirective):
    """The citation of the book, or of the chapter that is named, as text and for BibTeX."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(CITATION))
        year = re.sub(r"\D.*", "", str(self.config.copyright))
        try:
            cited = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
            chapter, number = "", 0
            if self.arguments:
                path = Path(self.env.srcdir) / self.arguments[0]
                self.env.note_dependency(str(path))
                chapter, number = title_of(path), int(path.name.split("-")[0])
            texts = sentence(cited, year, chapter), bibtex(cited, year, chapter, number)
        except (KeyError, OSError, ValueError, yaml.YAMLError) as error:
            raise ExtensionError(f"cite-this: {error}") from error
        block = nodes.literal_block(texts[1], texts[1], language="bibtex")
        return [nodes.paragraph(text=texts[0]), block]


class CiteData(SphinxDirective):
    """The data that come with the package: what they are, whom to cite, under which terms."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(REGISTRY))
        register = json.loads(REGISTRY.read_text(encoding="utf-8"))
        lines = []
        for one in sorted(register.values(), key=lambda one: one["title"]):
            references = re.sub(r"doi:(10\.\S+?)(?=[.,]?(?:\s|$))", linked, one["references"]).rstrip(".")
            lines.append(f"- **{one['title']}.** {one['original_source']}. {references}. Terms: {one['license']}.")
        return self.parse_text_to_nodes("\n".join(lines))


def linked(match: re.Match[str]) -> str:
    """A DOI as a link; its brackets would be taken for those of Markdown."""
    words = re.sub(r"[<>]", lambda m: f"\\{m[0]}", match[0])
    return f"[{words}](https://doi.org/{re.sub(r'[<>()]', lambda m: f'%{ord(m[0]):02X}', match[1])})"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("cite-this", CiteThis)
    app.add_directive("cite-data", CiteData)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
