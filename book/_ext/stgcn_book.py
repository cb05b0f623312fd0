"""What the book's pages need beyond Jupyter Book: equations with tags, the solution button, the status tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MEASUREMENTS, SPEED = BENCHMARKS / "notebooks.json", BENCHMARKS / "speed.json"


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


class SpeedTable(SphinxDirective):
    """How fast training is, from benchmarks/speed.json."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(SPEED))
        if not SPEED.exists():
            return [nodes.paragraph(text="Nothing has been measured yet.")]
        return self.parse_text_to_nodes("\n".join(speed_lines(json.loads(SPEED.read_text(encoding="utf-8")))))


def speed_lines(results: dict[str, Any]) -> list[str]:
    """Markdown: the steps of training at each size, then how they grow, what memory they take, how fast data come."""
    forms = [
        ("Package, window by window", "windows", "float32"),
        ("Package, stretches of 32 forecasts", "stretch of 32", "float32"),
        ("The same in bf16", "stretch of 32", "bfloat16"),
    ]
    head = ["Stations", "Textbook, windows a second", *(words for words, *_ in forms)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---:|" * len(head)]
    for size in results["training"]["sizes"]:
        rows = {(row["form"], row["precision"]): row for row in size["rows"]}
        cells = [f"{size['nodes']:,}", counted(rows["textbook", "float32"])]
        found = [rows[form, precision] for _, form, precision in forms]
        cells += [f"{counted(row)}, {row['ratio']:.1f} times, {row['share']:.0%} of the roof" for row in found]
        lines.append("| " + " | ".join(cells) + " |")
    machine, growth, data = results["machine"], results["growth"], results["data"]["stream"]
    memory = next(row for row in results["memory"]["rows"] if row["allocator"] == "reuse_memory")
    device = results["device"].get("name", f"nothing measured, {results['device'].get('skipped')}")
    by_nodes, by_history = growth["nodes"]["rows"], growth["history"]["rows"]
    best = max(row["windows/s"] for row in data["rows"])
    return [
        *lines,
        "",
        f"- Measured on {machine['processor']}, {machine['cores']} cores of which {machine['threads']} were used, "
        f"Python {machine['python']}, PyTorch {machine['torch']}; peak {machine['float32 GFLOP/s']:.0f} GFLOP/s "
        f"({machine['bfloat16 GFLOP/s']:.0f} in bf16), {machine['copy GB/s']:.0f} GB/s.",
        f"- A step takes time in proportion to stations to the power {growth['nodes']['slope']:.2f} "
        f"({by_nodes[0]['nodes']:,} to {by_nodes[-1]['nodes']:,}) and to history to the power "
        f"{growth['history']['slope']:.2f} ({by_history[0]['history']} to {by_history[-1]['history']} steps).",
        f"- Training at {results['memory']['nodes']:,} stations, one window a step, takes {memory['peak MB']:.0f} MB "
        "with all libraries.",
        f"- Windows of {data['history']} hours at {data['stations']:,} stations with {data['variables']} variables "
        f"come from a store on disk at up to {best:.0f} a second, in {data['peak MB']:.0f} MB.",
        f"- On a GPU: {device}.",
    ]


def counted(row: dict[str, Any]) -> str:
    return f"{row['windows/s']:,.0f}" if row["windows/s"] >= 100 else f"{row['windows/s']:.2g}"


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
    app.add_directive("speed-figures", SpeedTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
