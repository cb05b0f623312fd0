"""What teachers take from the book: slides, the instructor's guide, the quiz bank.

    python teaching/build.py [--out FOLDER]          build everything (make teach)
    python teaching/build.py --check-quiz 02 [...]   try the answers of the quiz of one chapter

Slides come from the cells of the notebooks that are marked with ``slide`` in their metadata, the guide and the quiz
from ``teaching/chapters/NN-topic.yml``: one source for each thing. Nothing is fetched when a page is opened; reveal.js
comes from npm (``make teach`` installs it), KaTeX from the book.
"""

from __future__ import annotations

import argparse
import base64
import html
import math
import re
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import yaml
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ROOT / "teaching" / "chapters"
OUT = ROOT / "_build" / "teach"
REVEAL = ROOT / "node_modules" / "reveal.js"
KATEX = ROOT / "book" / "_extra" / "katex"
SHOW = ("output", "code", "both", "equation", "none")
MAX_POINTS, MAX_PRINTED, MAX_CODE = 5, 14, 15
WIDTH, HEIGHT = 1076, 612  # px that a slide has below its title
COLOURS = HtmlFormatter(style="a11y-high-contrast-light", nowrap=True)

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
{head}
</head>
<body>
{body}
</body>
</html>
"""
KATEX_HEAD = '<link rel="stylesheet" href="slides/shared/katex/katex.css">'
KATEX_BODY = (
    '<script src="slides/shared/katex/katex.min.js"></script><script src="slides/shared/katex/typeset.js"></script>'
)
REVEAL_HEAD = """<link rel="stylesheet" href="shared/reveal/reset.css">
<link rel="stylesheet" href="shared/reveal/reveal.css">
<link rel="stylesheet" href="shared/katex/katex.css">
<link rel="stylesheet" href="shared/slides.css">
<style>{colours}</style>"""
REVEAL_BODY = """<div class="reveal"><main class="slides">
{slides}
</main></div>
<script src="shared/katex/katex.min.js"></script>
<script src="shared/katex/typeset.js"></script>
<script src="shared/reveal/reveal.js"></script>
<script src="shared/reveal/notes.js"></script>
<script>
Reveal.initialize({{hash: true, center: false, display: "flex", width: 1100, height: 700, margin: 0.04,
  slideNumber: "c/t", transition: "none", plugins: [RevealNotes]}});
</script>"""
PAGE_HEAD = '<link rel="stylesheet" href="slides/shared/pages.css">'


# ---- Markdown ----


def _mathematics(content: str, options: dict[str, Any]) -> str:
    shown = html.escape(content.strip())
    return rf"\[{shown}\]" if options["display_mode"] else rf"\({shown}\)"


MARKDOWN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=_mathematics, double_inline=True)


def markdown(text: str) -> str:
    """HTML of Markdown with mathematics in dollars; equations keep their numbers."""
    return MARKDOWN.render(text)


def inline(text: str) -> str:
    return MARKDOWN.renderInline(text)


# ---- the chapters ----


def chapters() -> list[Path]:
    """The notebooks of the book in the order of their numbers."""
    return sorted((ROOT / "book").glob("*/[0-9][0-9]-*.ipynb"), key=lambda path: path.name)


def title_and_outcomes(notebook: nbformat.NotebookNode) -> tuple[str, list[str]]:
    first = notebook.cells[0].source
    title = re.match(r"# (.+)", first).group(1).strip()
    outcomes = re.search(r"\*\*You will be able to\*\*(.*?)> \*\*You need\*\*", first, re.DOTALL).group(1)
    flat = re.sub(r"\n> +(?![-*] )", " ", outcomes)
    return title, [point.rstrip(";.") for point in re.findall(r"^> [-*] (.+)$", flat, re.MULTILINE)]


def summary_points(notebook: nbformat.NotebookNode) -> list[str]:
    """The first sentence of each point of the chapter's summary, as many as a slide holds."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    part = re.search(r"^## Summary\s*\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL).group(1)
    points = re.split(r"^(?:[-*]|\d+\.) ", part, flags=re.MULTILINE)[1:]
    return [_first_sentence(" ".join(point.split())) for point in points[:MAX_POINTS]]


def _first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence; one inside mathematics or brackets does not."""
    depth = dollars = 0
    for i, sign in enumerate(text):
        dollars ^= sign == "$"
        depth += (sign in "([") - (sign in ")]")
        if sign in ".!?" and not dollars and depth == 0:
            closing = re.match(r'["*”]*(?=\s|$)', text[i + 1 :])
            if closing:
                return text[: i + 1] + closing.group()
    return text


def marked(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if "slide" in cell.metadata]


# ---- slides ----


def slide_faults(cell: nbformat.NotebookNode) -> list[str]:
    """What is wrong with a marked cell; empty where nothing is."""
    mark, wrong = cell.metadata["slide"], []
    if not isinstance(mark, dict):
        return [f'expected {{"title": ..., "points": [...], ...}}, found {mark!r}']
    show = mark.get("show", "output" if cell.cell_type == "code" else "none")
    if not str(mark.get("title", "")).strip():
        wrong.append("title: missing")
    if set(mark) - {"title", "points", "show", "notes"}:
        wrong.append(f"unknown keys {sorted(set(mark) - {'title', 'points', 'show', 'notes'})}")
    if show not in SHOW or (show == "equation") != (cell.cell_type == "markdown" and show != "none"):
        wrong.append(f"show: {show!r} does not go with a {cell.cell_type} cell; one of {', '.join(SHOW)}")
    points = mark.get("points", [])
    if not isinstance(points, list) or not all(isinstance(point, str) for point in points):
        return [*wrong, f"points: expected a list of texts, found {points!r}"]
    if len(points) > MAX_POINTS or any(len(point.split()) > 25 for point in points):
        wrong.append(f"points: at most {MAX_POINTS} of at most 25 words")
    if show in ("code", "both") and len(cell.source.splitlines()) > MAX_CODE:
        wrong.append(f"{len(cell.source.splitlines())} lines of code, at most {MAX_CODE} fit")
    if cell.cell_type == "code" and show in ("output", "both"):
        picture, printed = _picture(cell), _printed(cell)
        if not picture and not printed:
            wrong.append("show: the cell has no output to show")
        if not picture and len(printed.splitlines()) > MAX_PRINTED:
            wrong.append(f"{len(printed.splitlines())} printed lines, at most {MAX_PRINTED} fit")
    if show == "equation" and "$$" not in cell.source:
        wrong.append("show: the cell has no display equation")
    if show == "none" and not points:
        wrong.append("points: a slide that shows nothing needs some")
    return wrong


def _picture(cell: nbformat.NotebookNode) -> str:
    return next((out.data["image/png"] for out in cell.outputs if "image/png" in out.get("data", {})), "")


def _printed(cell: nbformat.NotebookNode) -> str:
    return "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == "stdout").rstrip()


def _height(points: list[str], width: float) -> float:
    """About how high the points stand in a column of this width (px of the slide, see slides.css)."""
    letters = (width - 40) / 13.5
    lines = [math.ceil(len(re.sub(r"\\[a-zA-Z]+|[$`*{}]", "", point)) / letters) for point in points]
    return sum(35 * count + 6 for count in lines) + 16 if points else 0


def _figure(picture: str, alt: str, points: list[str]) -> tuple[str, bool]:
    """The figure's HTML, and whether it becomes larger below the points than beside them."""
    width, height = struct.unpack(">II", base64.b64decode(picture[:64])[16:24])
    below = min(WIDTH / width, (HEIGHT - _height(points, WIDTH)) / height)
    beside = min((0.62 * WIDTH - 24) / width, HEIGHT / height)
    data = "".join(picture.split())
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">', below >= beside


def _letters(texts: list[str], points: list[str]) -> int:
    """The size (px) at which code and print are readable and still fit below the points."""
    lines = [line for text in texts for line in text.splitlines()]
    free = HEIGHT - _height(points, WIDTH) - 44 * len(texts)
    return int(min(24, (WIDTH - 40) / (0.61 * max(map(len, lines))), free / (1.36 * len(lines))))


def slide(cell: nbformat.NotebookNode) -> str:
    """One marked cell as a section of reveal.js."""
    mark = cell.metadata["slide"]
    show = mark.get("show", "output" if cell.cell_type == "code" else "none")
    texts = mark.get("points", [])
    points = "".join(f"<li>{inline(point)}</li>" for point in texts)
    parts, layout = [f"<ul>{points}</ul>"] if points else [], "wide-picture"
    shown: list[str] = []
    code = cell.source if show in ("code", "both") else ""
    picture = _picture(cell) if cell.cell_type == "code" and show in ("output", "both") else ""
    printed = _printed(cell) if cell.cell_type == "code" and show in ("output", "both") and not picture else ""
    if code or printed:
        size = _letters([text for text in (code, printed) if text], texts)
        blocks = [highlight(code, PythonLexer(), COLOURS)] if code else []
        blocks += [html.escape(printed)] if printed else []
        shown += [f"<pre tabindex='0' style='font-size: {size}px'><code>{block}</code></pre>" for block in blocks]
    if picture:
        figure, below = _figure(picture, cell.metadata.get("mystnb", {}).get("image", {}).get("alt", ""), texts)
        shown.append(figure)
        layout = layout if below or not points else "tall-picture"
    if show == "equation":
        shown += [markdown(equation) for equation in re.findall(r"\$\$.*?\$\$", cell.source, re.DOTALL)]
    if shown:
        kind = "shown-picture" if "<img" in shown[-1] else "shown"
        parts.append(f"<div class='{kind}'>{''.join(shown)}</div>")
    else:
        layout = "only-points"
    notes = f"<aside class='notes'>{markdown(mark['notes'])}</aside>" if mark.get("notes") else ""
    body = f"<div class='slide-body {layout}'>{''.join(parts)}</div>"
    return f"<section><h2>{inline(mark['title'])}</h2>{body}{notes}</section>"


def deck(path: Path) -> str:
    """The slides of one chapter as a page."""
    notebook = nbformat.read(path, as_version=4)
    title, outcomes = title_and_outcomes(notebook)
    faults = {cell.id: slide_faults(cell) for cell in marked(notebook)}
    wrong = [f"cell {name}: {'; '.join(what)}" for name, what in faults.items() if what]
    if wrong:
        raise ValueError(f"{path.relative_to(ROOT)}: " + " | ".join(wrong))

    def listed(points: list[str]) -> str:
        return "<ul>" + "".join(f"<li>{inline(point)}</li>" for point in points) + "</ul>"

    number = int(path.name[:2])
    heading = f"<h1>{inline(title)}</h1><p class='from'>Weather on graphs, chapter {number}</p>"
    first = f"<section>{heading}<p>You will be able to</p>{listed(outcomes)}</section>"
    last = f"<section><h2>Summary</h2>{listed(summary_points(notebook))}</section>"
    slides = "\n".join([first, *map(slide, marked(notebook)), last])
    body = REVEAL_BODY.format(slides=slides)
    head = REVEAL_HEAD.format(colours=COLOURS.get_style_defs(".reveal"))
    return PAGE.format(title=html.escape(f"{number} {title}: slides"), head=head, body=body)


# ---- the guide and the quiz ----


def material(path: Path) -> dict[str, Any]:
    """teaching/chapters/NN-topic.yml of a chapter."""
    source = CHAPTERS / f"{path.stem}.yml"
    if not source.exists():
        raise FileNotFoundError(f"teaching/chapters/{source.name}: every chapter has one; see teaching/README.md")
    where = f"teaching/chapters/{source.name}"
    try:
        found = yaml.safe_load(source.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: expected YAML, found: {error}") from None
    _expect_keys(found, {"minutes", "misconceptions", "exercises", "discussion", "quiz"}, where)
    _expect_keys(found["minutes"], {"lecture", "lab"}, f"{where}, minutes")
    for name, keys in (
        ("misconceptions", {"says", "truth", "try"}),
        ("quiz", {"question", "choices", "answer", "why", "check"}),
    ):
        if not isinstance(found[name], list):
            raise ValueError(f"{where}, {name}: expected a list, found {found[name]!r}")
        for number, one in enumerate(found[name], 1):
            _expect_keys(one, keys, f"{where}, {name}, number {number}")
    for number, one in enumerate(found["quiz"], 1):
        if one["answer"] not in range(len(one["choices"])):
            raise ValueError(f"{where}, quiz, number {number}: expected the index of a choice, found {one['answer']!r}")
    if not isinstance(found["discussion"], list) or not isinstance(found["exercises"], dict):
        raise ValueError(f"{where}: expected a list under discussion, and under exercises their numbers")
    return found


def _expect_keys(found: Any, wanted: set[str], where: str) -> None:
    if not isinstance(found, dict) or set(found) != wanted:
        what = f"the keys {', '.join(map(str, found))}" if isinstance(found, dict) else repr(found)
        raise ValueError(f"{where}: expected the keys {', '.join(sorted(wanted))}, found {what}")


def passes(question: dict[str, Any], answer: int) -> bool:
    """Whether the check of a question accepts the choice with this index."""
    try:
        exec(question["check"], {"answer": answer, "choices": question["choices"]})
    except AssertionError:
        return False
    return True


def accepted(question: dict[str, Any]) -> list[int]:
    """The choices that the check accepts: of a sound question just its answer."""
    return [i for i in range(len(question["choices"])) if passes(question, i)]


def _exercises(notebook: nbformat.NotebookNode) -> list[tuple[str, str, str]]:
    """Title, solution and check of each exercise."""
    found: list[list[str]] = []
    for cell in notebook.cells:
        heading = re.search(r"^### Exercise \d+: (.+)$", cell.source, re.MULTILINE)
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown" and heading:
            found.append([heading.group(1), "", ""])
        elif "solution" in tags:
            found[-1][1] = cell.source
        elif "check" in tags:
            found[-1][2] = cell.source
    return [(title, solution, check) for title, solution, check in found]


def guide() -> str:
    """The instructor's guide: its general part, the syllabi, then every chapter with its answers."""
    texts = [(ROOT / "teaching" / name).read_text(encoding="utf-8") for name in ("guide.md", "syllabi.md")]
    # from teaching/ to the built pages, which lie beside what is built here
    parts = [
        re.sub(r'href="\.\./book/([^"#]+)\.(?:ipynb|md)', r'href="../html/\1.html', markdown(text)) for text in texts
    ]
    links = "".join(
        f'<li><a href="#{path.stem}">{int(path.name[:2])} '
        f"{inline(title_and_outcomes(nbformat.read(path, as_version=4))[0])}</a></li>"
        for path in chapters()
    )
    parts.append(f'<h1>Chapter by chapter</h1><ul style="list-style: none">{links}</ul>')
    for path in chapters():
        notebook, entry = nbformat.read(path, as_version=4), material(path)
        title, _ = title_and_outcomes(notebook)
        minutes = entry["minutes"]
        parts.append(f'<h2 id="{path.stem}">{int(path.name[:2])} {inline(title)}</h2>')
        parts.append(
            f"<p>About {minutes['lecture']} minutes of lecture, {minutes['lab']} of laboratory (estimates).</p>"
        )
        parts.append("<h3>What students believe</h3>")
        for one in entry["misconceptions"]:
            text = f"“{one['says']}” **In truth:** {one['truth']} **Try:** {one['try']}"
            parts.append(f"<p>{inline(text)}</p>")
        parts.append(
            "<h3>To discuss</h3><ul>" + "".join(f"<li>{inline(one)}</li>" for one in entry["discussion"]) + "</ul>"
        )
        parts.append("<h3>Exercises</h3>")
        asked = _exercises(notebook)
        if sorted(entry["exercises"]) != list(range(1, len(asked) + 1)):
            raise ValueError(f"teaching/chapters/{path.stem}.yml, exercises: expected the numbers 1 to {len(asked)}")
        for number, (name, solution, check) in enumerate(asked, 1):
            parts.append(f"<p><strong>{number}: {inline(name)}.</strong> {inline(entry['exercises'][number])}</p>")
            code = html.escape(f"{solution}\n\n{check}")
            parts.append(f"<details><summary>Solution and check</summary><pre tabindex='0'>{code}</pre></details>")
    return PAGE.format(
        title="Instructor's guide",
        head=PAGE_HEAD + KATEX_HEAD,
        body="\n".join([*parts, KATEX_BODY]),
    )


def quiz() -> str:
    """The quiz bank as a page: every question, its answer folded away."""
    parts = ["<h1>Quiz bank</h1>"]
    for path in chapters():
        title, _ = title_and_outcomes(nbformat.read(path, as_version=4))
        parts.append(f"<h2>{int(path.name[:2])} {inline(title)}</h2>")
        for number, one in enumerate(material(path)["quiz"], 1):
            choices = "".join(f"<li>{inline(str(choice))}</li>" for choice in one["choices"])
            letter = "abcdefgh"[one["answer"]]
            parts.append(
                f"<p><strong>{number}.</strong> {inline(one['question'])}</p><ol type='a'>{choices}</ol>"
                f"<details><summary>Answer</summary><p>({letter}) {inline(one['why'])}</p></details>"
            )
    return PAGE.format(title="Quiz bank", head=PAGE_HEAD + KATEX_HEAD, body="\n".join([*parts, KATEX_BODY]))


def gift() -> str:
    """The quiz bank in GIFT, the text format that Moodle and other systems import."""

    def escaped(text: Any) -> str:
        mathematics = re.sub(r"\$(.+?)\$", r"\\(\1\\)", " ".join(str(text).split()))
        # a backslash of TeX is doubled; the signs of GIFT get one
        return re.sub(r"([~=#{}:])", r"\\\1", mathematics.replace("\\", "\\\\"))

    entries = []
    for path in chapters():
        for number, one in enumerate(material(path)["quiz"], 1):
            choices = [
                f"{'=' if i == one['answer'] else '~'}{escaped(choice)}" for i, choice in enumerate(one["choices"])
            ]
            body = "\n".join(["{", *choices, f"####{escaped(one['why'])}", "}"])
            entries.append(f"::{path.name[:2]}-{number}::[markdown]{escaped(one['question'])}{body}")
    return "\n\n".join(entries) + "\n"


# ---- all of it ----


def build(out: Path) -> None:
    """Write slides, guide and quiz into the folder ``out``; it changes only when everything could be made."""
    if not (REVEAL / "dist" / "reveal.js").exists():
        raise FileNotFoundError("reveal.js is missing: run `make teach`, which fetches it from npm")
    _expect_own(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        new = Path(scratch) / "new"
        shared = new / "slides" / "shared"
        shared.mkdir(parents=True)
        (shared / "reveal").mkdir()
        for name in ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE"):
            shutil.copy(REVEAL / name, shared / "reveal")
        for name in ("slides.css", "pages.css"):
            shutil.copy(ROOT / "teaching" / name, shared)
        shutil.copytree(KATEX, shared / "katex")
        rows = []
        for path in chapters():
            (new / "slides" / f"{path.stem}.html").write_text(deck(path), encoding="utf-8")
            title, _ = title_and_outcomes(nbformat.read(path, as_version=4))
            rows.append(f'<li>{int(path.name[:2])} <a href="slides/{path.stem}.html">{inline(title)}</a></li>')
        (new / "guide.html").write_text(guide(), encoding="utf-8")
        shutil.copy(ROOT / "teaching" / "course-project.ipynb", new)
        (new / "quiz.html").write_text(quiz(), encoding="utf-8")
        (new / "quiz.gift").write_text(gift(), encoding="utf-8")
        body = (
            '<h1>For teachers</h1><ul><li><a href="guide.html">Instructor\'s guide</a>, with syllabi and answers</li>'
            '<li><a href="quiz.html">Quiz bank</a>; for Moodle and others: <a href="quiz.gift">quiz.gift</a></li>'
            "<li>Six assignments in <code>assignments/</code> beside this page: hand out <code>student/</code>, "
            "keep <code>solution/</code> and <code>autograder/</code></li>"
            '<li><a href="course-project.ipynb">Template of the course project</a>, with a rubric</li></ul>'
            "<h2>Slides</h2><p>Press F for the whole screen, S for the notes.</p>"
            f'<ul style="list-style: none">{"".join(rows)}</ul>'
        )
        (new / "index.html").write_text(PAGE.format(title="For teachers", head=PAGE_HEAD, body=body), encoding="utf-8")
        out.mkdir(exist_ok=True)
        for one in new.iterdir():  # what else lies in the folder, such as the assignments, stays
            target = out / one.name
            if target.is_dir():
                target.rename(Path(scratch) / f"old-{one.name}")
            one.replace(target)


def _expect_own(out: Path) -> None:
    """FileExistsError where the build would write over what is not its own."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out: expected a folder, found the file {out}")
    index = out / "index.html"
    if index.is_file() and "<title>For teachers</title>" in index.read_text(encoding="utf-8", errors="replace"):
        return
    names = ("index.html", "guide.html", "quiz.html", "quiz.gift", "slides", "course-project.ipynb")
    there = [name for name in names if (out / name).exists()]
    if there:
        raise FileExistsError(
            f"--out: {out} has {', '.join(there)} of its own, which would be lost: name a new folder, or move them"
        )


def main(given: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, or 1 where something could not be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--check-quiz", nargs="+", metavar="NN", help="numbers of chapters")
    arguments = parser.parse_args(given)
    try:
        if arguments.check_quiz:
            return check_quiz([name.zfill(2) for name in arguments.check_quiz])
        build(arguments.out.resolve())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"For teachers: {arguments.out / 'index.html'}")
    return 0


def check_quiz(numbers: list[str]) -> int:
    """Try the quiz of these chapters ("02"), and say which answers are wrong. Returns the exit status."""
    by_number = {path.name[:2]: path for path in chapters()}
    if unknown := sorted(set(numbers) - set(by_number)):
        raise ValueError(f"--check-quiz: expected chapters of {', '.join(by_number)}, found {', '.join(unknown)}")
    wrong = 0
    for path in map(by_number.__getitem__, numbers):
        for number, one in enumerate(material(path)["quiz"], 1):
            if accepted(one) != [one["answer"]]:
                wrong += 1
                print(f"{path.stem}, question {number}: answer {one['answer']}, the check accepts {accepted(one)}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
