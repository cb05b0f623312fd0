"""Links that plain text becomes: equations and figures by their number; the index of terms; the list of the package.

A chapter says "equation (2.1)", "(2.1)" or "figure 5.2", so that it reads well in any viewer. On the pages these are
links. A number behind the word "equation" or "figure" that belongs to nothing is a warning, and so fails the build.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger
from sphinx.util.nodes import make_refnode

logger = getLogger(__name__)
PACKAGE = Path(__file__).resolve().parents[2] / "stgcn_lab"

TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")
NUMBER = r"\d+\.\d+"
BETWEEN = r"(?:\s*(?:,|and|or|to|[-–])\s*)+"
# "equations (2.1), (2.2) and (2.3)", "equation 2.1", "figures 5.2 to 5.4"; then a number in brackets alone
SPOKEN = re.compile(
    rf"\b(?P<kind>equation|figure|fig\.)s?\s+(?P<list>\(?{NUMBER}\)?(?:{BETWEEN}\(?{NUMBER}\)?)*)", re.IGNORECASE
)
ALONE = re.compile(rf"\({NUMBER}\)")
NO_LINKS_IN = (
    nodes.literal,
    nodes.literal_block,
    nodes.reference,
    nodes.title,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.comment,
    addnodes.pending_xref,
)

# An index leads to where a thing is explained: not to exercises, and not to every place that names it.
NO_INDEX_OF = {"exercises", "references", "summary"}
MOST_CHAPTERS, FEWEST_MENTIONS = 5, 3


def anchor(number: str) -> str:
    return f"equation-{number.replace('.', '-')}"


def spans(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Start, end, kind and number of each reference in a text; kind is "equation", "figure" or "" (brackets alone)."""
    taken = 0
    for match in SPOKEN.finditer(text):
        for alone in ALONE.finditer(text, taken, match.start()):
            yield alone.start(), alone.end(), "", alone[0][1:-1]
        kind = "equation" if match["kind"].lower() == "equation" else "figure"
        start = match.start()
        for one in re.finditer(rf"\(?({NUMBER})\)?", match["list"]):
            end = match.start("list") + one.end()
            # the word belongs to its first number
            yield start if one.start() == 0 else match.start("list") + one.start(), end, kind, one[1]
        taken = match.end()
    for alone in ALONE.finditer(text, taken):
        yield alone.start(), alone.end(), "", alone[0][1:-1]


# -- equations and figures ------------------------------------------------------------------------------------------


class EquationAnchors(SphinxTransform):
    r"""A ``\tag{2.1}`` gives its equation the anchor ``equation-2-1``."""

    default_priority = 410

    def apply(self, **kwargs: Any) -> None:
        known = equations(self.env)
        for node in self.document.findall(nodes.math_block):
            for number in TAG.findall(node.astext()):
                node["ids"].append(anchor(number))
                known[number] = self.env.docname


class NumberLinks(SphinxPostTransform):
    """Put links in the place of the numbers that the text speaks of."""

    default_priority = 20

    def run(self, **kwargs: Any) -> None:
        known, drawn = equations(self.env), figures(self.env)
        for text in list(self.document.findall(nodes.Text)):
            if not any(char.isdigit() for char in text) or self.in_literal(text):
                continue
            self.replace(text, known, drawn)

    @staticmethod
    def in_literal(text: nodes.Text) -> bool:
        node: Any = text.parent
        while node is not None:
            if isinstance(node, NO_LINKS_IN):
                return True
            node = node.parent
        return False

    def replace(self, text: nodes.Text, known: dict[str, str], drawn: dict[str, tuple[str, str]]) -> None:
        source, made, at = str(text), [], 0
        for start, end, kind, number in spans(source):
            found = drawn.get(number) if kind == "figure" else (known.get(number), anchor(number))
            if not found or not found[0]:
                if kind:
                    logger.warning("%s %s: the book has none of this number", kind, number, location=text.parent)
                continue
            words = nodes.inline("", source[start:end], classes=[f"{kind or 'equation'}-link"])
            made += [
                nodes.Text(source[at:start]),
                make_refnode(self.app.builder, self.env.docname, found[0], found[1], words),
            ]
            at = end
        if made:
            text.parent.replace(text, [*made, nodes.Text(source[at:])])


def equations(env: BuildEnvironment) -> dict[str, str]:
    """The page of each numbered equation."""
    if not hasattr(env, "book_equations"):
        env.book_equations = {}  # type: ignore[attr-defined]
    return env.book_equations  # type: ignore[attr-defined]


def figures(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    """Page and identifier of each figure by the number that Sphinx has given it."""
    return {
        ".".join(map(str, number)): (page, name)
        for page, kinds in env.toc_fignumbers.items()
        for name, number in kinds.get("figure", {}).items()
    }


# -- the index of terms -----------------------------------------------------------------------------------------------


def index(env: BuildEnvironment) -> dict[str, Any]:
    """For each chapter its sections: title, anchor, text, and the glossary entries that it links to.

    Under "glossary" stand its entries: title, slug, anchor.
    """
    if not hasattr(env, "book_index"):
        env.book_index = {}  # type: ignore[attr-defined]
    return env.book_index  # type: ignore[attr-defined]


def prose(section: nodes.Element) -> str:
    """The paragraphs of a section: no code, no output, no mathematics."""
    words = []
    for text in section.findall(nodes.Text):
        parents, node = [], text.parent
        while node is not None and node is not section:
            parents.append(node)
            node = node.parent
        if not any(isinstance(one, (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw))
                   for one in parents):  # fmt: skip
            words.append(str(text))
    return " ".join(" ".join(words).split())


def collect(app: Sphinx, document: nodes.document) -> None:
    """Keep what the index needs of a chapter, and the entries of the glossary."""
    page = app.env.docname
    if page == "glossary":
        # the terms are the headings of the third level; those of the second are groups
        sections = [one for one in document.findall(nodes.section) if isinstance(one.parent.parent, nodes.section)]
        index(app.env)[page] = [(one.next_node(nodes.title).astext(), one["slug"], one["ids"][0]) for one in sections]
    if "/" not in page:
        return
    kept = []
    for section in document.findall(nodes.section):
        # the sections below the chapter's title; what a subsection says counts for its section
        if not isinstance(section.parent, nodes.section) or isinstance(section.parent.parent, nodes.section):
            continue
        if section["ids"][0] in NO_INDEX_OF:
            continue
        linked = {
            node["reftargetid"]
            for node in section.findall(addnodes.pending_xref)
            if node.get("reftarget") == "glossary" and node.get("reftargetid")
        }
        title = section.next_node(nodes.title)
        kept.append((title.astext() if title else "", section["ids"][0], prose(section), linked))
    index(app.env)[page] = kept


def forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    index(env).pop(page, None)
    for number in [number for number, where in equations(env).items() if where == page]:
        del equations(env)[number]


def merge(app: Sphinx, env: BuildEnvironment, pages: list[str], other: BuildEnvironment) -> None:
    index(env).update({page: kept for page, kept in index(other).items() if page in pages})
    equations(env).update({number: page for number, page in equations(other).items() if page in pages})


def pattern(term: str) -> re.Pattern[str]:
    """A term as a chapter may write it: in lower case, as a plural, at the start of a sentence."""
    words = re.sub(r"\s*\(.*?\)", "", term)
    first = f"[{words[0].upper()}{words[0].lower()}]"
    rest = re.escape(words[1:-1]) + "(?:y|ies)" if words.endswith("y") else re.escape(words[1:]) + "(?:s|es)?"
    return re.compile(rf"(?<![\w-]){first}{rest}(?![\w-])")


def places(term: str, slug: str, pages: dict[str, Any], longer: list[str]) -> list[tuple[str, str, str]]:
    """Page, anchor and title of the sections that explain a term: those that link to it, and those that use it most.

    A chapter counts that uses the term at least three times (once, where none does); of these the five that use it
    most, and of each the one section that does. Every section counts that has the term in its title or links to its
    glossary entry. A longer term that begins with this one, as "degree days" with "degree", does not count for it.
    """
    others = "".join(f"(?!{re.escape(other[len(term) :])})" for other in longer)
    found = re.compile(pattern(term).pattern + others)
    sure: set[tuple[str, str]] = set()
    best: list[tuple[int, str, str]] = []
    for page, sections in pages.items():
        counts = [len(found.findall(text)) for _, _, text, _ in sections]
        sure |= {(page, name) for title, name, _, linked in sections if slug in linked or found.search(title)}
        if any(counts):
            best.append((sum(counts), page, sections[counts.index(max(counts))][1]))
    enough = [one for one in best if one[0] >= FEWEST_MENTIONS]
    if not enough and not sure:
        enough = best
    sure |= {(page, name) for _, page, name in sorted(enough, key=lambda one: -one[0])[:MOST_CHAPTERS]}
    # in the order of the book
    return [(page, name, title) for page, kept in pages.items() for title, name, *_ in kept if (page, name) in sure]


class TermIndex(nodes.General, nodes.Element):
    """Stands for the index until all pages have been read."""


class TermIndexDirective(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [TermIndex()]


def chapter_number(env: BuildEnvironment, page: str) -> str:
    number = env.toc_secnumbers.get(page, {}).get("")
    return ".".join(map(str, number)) if number else ""


def in_order(env: BuildEnvironment) -> list[str]:
    """The pages as the table of contents has them."""
    return sorted(env.found_docs, key=lambda page: (env.toc_secnumbers.get(page, {}).get("") or (10_000,), page))


def index_nodes(app: Sphinx, here: str) -> list[nodes.Node]:
    env = app.env
    kept = index(env)
    pages = {page: kept[page] for page in in_order(env) if page in kept and page != "glossary"}
    entries = sorted(kept.get("glossary", []), key=lambda entry: entry[0].casefold())
    letters: dict[str, list[nodes.Node]] = {}
    for title, slug, name in entries:
        line = nodes.paragraph(classes=["index-entry"])
        line += make_refnode(app.builder, here, "glossary", name, nodes.strong("", title))
        chapters: dict[str, list[tuple[str, str]]] = {}
        longer = [other for other, *_ in entries if other != title and other.startswith(f"{title} ")]
        for page, section, words in places(title, slug, pages, longer):
            chapters.setdefault(page, []).append((section, words))
        for page, sections in chapters.items():
            line += nodes.Text("; " if len(line) > 1 else ": ")
            line += nodes.inline("", chapter_number(env, page) + " ", classes=["index-chapter"])
            for i, (section, words) in enumerate(sections):
                line += nodes.Text(", " if i else "")
                line += make_refnode(app.builder, here, page, section, nodes.inline("", words))
        letters.setdefault(title[0].upper(), []).append(line)
    made: list[nodes.Node] = []
    for letter, lines in letters.items():
        section = nodes.section("", nodes.title(text=letter), ids=[f"letter-{letter.lower()}"], classes=["index"])
        section["names"] = section["ids"]
        section += lines
        made.append(section)
    jump = nodes.paragraph(classes=["index-letters"])
    for letter in letters:
        jump += [nodes.reference("", letter, refid=f"letter-{letter.lower()}", internal=True), nodes.Text(" ")]
    return [jump, *made]


# -- the list of the package ------------------------------------------------------------------------------------------


def definitions(path: Path) -> dict[str, tuple[str, str]]:
    """Kind and first line of the docstring of everything public that a file defines at its top."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            first = (ast.get_docstring(node) or "").strip().split("\n\n")[0]
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            found[node.name] = (kind, re.sub(r":\w+:(?=`)", "", " ".join(first.split())))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = ("constant" if target.id.isupper() else "type", "")
    return {name: what for name, what in found.items() if not name.startswith("_")}


def exported(path: Path) -> list[str] | None:
    """The names in a file's ``__all__``, if it has one."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return None


def public_names(package: Path = PACKAGE) -> dict[str, dict[str, tuple[str, str]]]:
    """For each public module its public names, with kind and first line: read from the files, nothing is imported."""
    modules = exported(package / "__init__.py") or []
    defined: dict[str, dict[str, tuple[str, str]]] = {}
    listed: dict[str, list[str] | None] = {}
    for module in modules:
        single = package / f"{module}.py"
        files = [single] if single.exists() else sorted((package / module).glob("*.py"))
        defined[module] = {name: what for file in files for name, what in definitions(file).items()}
        listed[module] = exported(single if single.exists() else package / module / "__init__.py")
    everywhere = {name: what for names in defined.values() for name, what in names.items()}
    found = {}
    for module in modules:
        names, here = listed[module], defined[module]
        if names is None:  # what a module sets aside for itself, such as a logger, is not for its users
            names = [name for name, (kind, _) in here.items() if kind != "type"]
        # what a module hands on is defined in another
        found[module] = {name: here.get(name) or everywhere.get(name, ("", "")) for name in sorted(names)}
    return found


def first_line(package: Path, module: str) -> str:
    path = package / f"{module}.py"
    path = path if path.exists() else package / module / "__init__.py"
    return " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())


@cache
def used_names(notebook: Path) -> frozenset[str]:
    """What a notebook's code takes from the package, as "graphs.knn_graph"."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    found, alias = set(), {}
    trees = [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "stgcn_lab":
            below = (node.module or "").partition(".")[2]
            for name in node.names:
                if below:
                    found.add(f"{below}.{name.name}")
                else:
                    alias[name.asname or name.name] = name.name
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in alias:
            found.add(f"{alias[node.value.id]}.{node.attr}")
    return frozenset(found)


class PackageList(SphinxDirective):
    """A table for each module: its public names, what they are for, the chapters whose code uses them."""

    def run(self) -> list[nodes.Node]:
        source = Path(self.env.srcdir)
        notebooks = sorted(p for p in source.rglob("*.ipynb") if "_build" not in p.parts and "." not in p.parent.name)
        notebooks.sort(key=lambda path: path.name)
        for path in (*notebooks, *PACKAGE.rglob("*.py")):
            self.env.note_dependency(str(path))
        lines = []
        for module, names in public_names().items():
            lines += [f"## {module}", "", first_line(PACKAGE, module), ""]
            lines += ["| Name | What it is | Chapters |", "|---|---|---|"]
            for name, (kind, words) in names.items():
                used = [path for path in notebooks if f"{module}.{name}" in used_names(path)]
                links = ", ".join(
                    f"[{int(path.name.split('-')[0])}]({path.relative_to(source).as_posix()})" for path in used
                )
                words = (words or f"A {kind}.").replace("|", r"\|")
                lines.append(f"| `{name}` | {words} | {links or '–'} |")
            lines.append("")
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def late_pages(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """The index is made of all other pages, so it is written anew with any of them."""
    return [page for page in ("genindex",) if page in env.found_docs]


def fill_index(app: Sphinx, document: nodes.document, page: str) -> None:
    for node in list(document.findall(TermIndex)):
        node.replace_self(index_nodes(app, page))


def own_index(app: Sphinx, config: Any) -> None:
    # Sphinx would write its own genindex.html over the book's page
    config.html_use_index = False


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(EquationAnchors)
    app.add_post_transform(NumberLinks)
    app.add_node(TermIndex)
    app.add_directive("term-index", TermIndexDirective)
    app.add_directive("package-list", PackageList)
    app.connect("config-inited", own_index)
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", late_pages)
    app.connect("doctree-resolved", fill_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
