"""What the book's pages need beyond Jupyter Book: tagged equations, the solution button, the status table, no Thebe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

MEASUREMENTS = Path(__file__).resolve().parents[2] / "benchmarks" / "notebooks.json"


class TaggedEquations(SphinxTransform):
    r"""Hand an equation with a ``\tag`` to KaTeX as it stands.

    Sphinx puts mathematics that contains a line break into a ``split`` environment, where TeX allows no tag.
    """

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for node in self.document.findall(nodes.math_block):
            text = node.astext()
            if r"\tag{" in text and not node.get("nowrap"):
                node["nowrap"] = True
                node.children = [nodes.Text(rf"\[{text.strip()}\]")]


class SolutionButtons(SphinxTransform):
    """Cells tagged "solution" or "check" say so on the button that opens them."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for node in self.document.findall(nodes.container):
            for what in ("solution", "check"):
                if f"tag_{what}" in node["classes"]:
                    node["prompt_show"] = f"Show {what}"
                    node["prompt_hide"] = f"Hide {what}"


class StatusTable(SphinxDirective):
    """The table of measured notebooks, from benchmarks/notebooks.json."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(MEASUREMENTS))
        measured = json.loads(MEASUREMENTS.read_text(encoding="utf-8")) if MEASUREMENTS.exists() else {}
        if not measured:
            return [nodes.paragraph(text="Nothing has been measured yet.")]
        rows = ["| Notebook | Time (s) | Peak memory (MB) | Measured |", "|---|---:|---:|---|"]
        machines: dict[str, list[str]] = {}
        for name, entry in sorted(measured.items()):
            machine, number = entry["machine"], Path(name).name.split("-")[0]
            machines.setdefault(
                f"{machine['system']}, {machine['cores']} cores of which {machine['threads']} were used, "
                f"Python {machine['python']}, PyTorch {machine['torch']}",
                [],
            ).append(str(int(number)) if number.isdigit() else name)
            # an empty link text becomes the title of the chapter
            link = f"[]({name.removeprefix('book/')})"
            rows.append(f"| {link} | {entry['seconds']:.0f} | {entry['peak_mb']:.0f} | {entry['date']} |")
        where = [f"- Chapters {', '.join(chapters)}: {machine}." for machine, chapters in machines.items()]
        return self.parse_text_to_nodes("\n".join([*rows, "", *where]))


def without_thebe(app: Sphinx, config: Any) -> None:
    """Jupyter Book loads an extension for running cells that puts a script with an outside address into every page."""
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]
    for files in (app.registry.css_files, app.registry.js_files):
        files[:] = [entry for entry in files if "thebe" not in (entry[0] or "")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", without_thebe)
    app.add_transform(TaggedEquations)
    app.add_transform(SolutionButtons)
    app.add_directive("notebook-costs", StatusTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
