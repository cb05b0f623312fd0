"""Write the repository's address, and the released version, wherever they are needed.

    python tools/repository.py [URL]

Both stand in pyproject.toml: the address under [project.urls], the version under [project]. With a URL
(https://github.com/OWNER/NAME) the address there is changed first. Then everything derived from the two is written
anew: the setup cell of each notebook, the buttons of the pages (_config.yml), the lines on running the book in
README.md, those on reporting mistakes in the pages that have them, and CITATION.cff. All files are written or none;
a second call changes nothing.

Without a public address (the placeholder) there are no launch buttons, and the setup cells say what to do instead.
"""

from __future__ import annotations

import glob
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDER = "https://example.org/stgcn-lab"

# What a notebook needs beyond the package's own dependencies. The run of the notebooks against the installed wheel
# hides the libraries of all other extras, and so proves that this table names enough.
EXTRAS = {
    "book/applications/12-farming.ipynb": "applications",
    "book/applications/13-energy.ipynb": "applications",
    "book/challenges/17-efficiency.ipynb": "scale",
    "book/challenges/18-explaining.ipynb": "explain",
    "book/tools/20-archives.ipynb": "scale",
}

SETUP_TAGS = ["setup", "remove-cell"]
SETUP_ID = "setup"


@dataclass(frozen=True)
class Repository:
    """Where the project is published, and as which version."""

    url: str
    version: str

    @property
    def public(self) -> bool:
        return self.url != PLACEHOLDER

    @property
    def on_github(self) -> bool:
        """Whether Binder and Colab can open it by owner and name."""
        return self.url.startswith("https://github.com/")

    @property
    def tag(self) -> str:
        """The git tag of the released version."""
        return f"v{self.version}"

    def binder(self, path: str) -> str:
        """Address that opens a notebook of the released version on Binder."""
        return f"https://mybinder.org/v2/gh/{self.url.removeprefix('https://github.com/')}/{self.tag}?urlpath=lab/tree/{path}"

    def colab(self, path: str) -> str:
        """Address that opens a notebook of the released version on Colab."""
        owner_name = self.url.removeprefix("https://github.com/")
        return f"https://colab.research.google.com/github/{owner_name}/blob/{self.tag}/{path}"


def checked_url(url: str) -> str:
    """The address without a closing slash or ".git"; ValueError for anything but https://HOST/OWNER/NAME."""
    short = url.strip().removesuffix("/").removesuffix(".git")
    if short == PLACEHOLDER:
        return short
    part = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
    host = r"[a-z0-9-]+(\.[a-z0-9-]+)+"
    owner_name = part + (rf"/{part}" if short.startswith("https://github.com/") else rf"(/{part})+")
    if not re.fullmatch(rf"https://{host}/{owner_name}", short):
        raise ValueError(f"URL: expected https://github.com/OWNER/NAME or the like, found {url!r}")
    return short


def repository(root: Path = ROOT) -> Repository:
    """Address and version as pyproject.toml has them."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return Repository(checked_url(project["urls"]["Repository"]), project["version"])


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook with a setup cell: those of the book, and those that teachers hand out."""
    built = {"_build", "dist", ".ipynb_checkpoints"}
    found = [path for folder in ("book", "teaching") for path in sorted((root / folder).rglob("*.ipynb"))]
    return [path for path in found if not built & set(path.relative_to(root).parts)]


# ---- the setup cell ----

INSTALL = """\
# Setup: where stgcn_lab is installed, as on Binder, this does nothing. Elsewhere, as on
# Colab, it installs the version of the book that this notebook belongs to.
import importlib.util
import subprocess
import sys
from importlib.metadata import version

if importlib.util.find_spec("stgcn_lab") is None:
    print("Installing stgcn-lab; this takes a minute or two.")
    source = "{url}"
    book = f"{package} @ git+{{source}}@{tag}"
    there = [name for name in ("numpy", "torch") if importlib.util.find_spec(name)]
    kept = [f"{{name}}=={{version(name)}}" for name in there]  # pip leaves these alone
    pip = [sys.executable, "-m", "pip", "install", "--quiet", book, *kept]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:])
        message = "stgcn-lab could not be installed: see what pip says above. It needs "
        message += "Python 3.11 or newer and the network. Run this cell again, or see"
        raise ImportError(f"{{message}} {{source}}")
"""

NO_ADDRESS = """\
# Setup: where stgcn_lab is installed this does nothing.
import importlib.util

if importlib.util.find_spec("stgcn_lab") is None:
    raise ImportError(
        "stgcn_lab is not installed, and this copy of the book has no public address "
        'to get it from. In the folder of the book run: pip install "{folder}"'
    )
"""


def setup_source(name: str, here: Repository) -> str:
    """Code of the setup cell of the notebook with this path in the repository."""
    extra = f"[{EXTRAS[name]}]" if name in EXTRAS else ""
    if not here.public:
        return NO_ADDRESS.format(folder=f".{extra}").rstrip("\n")
    host = here.url.split("/")[2]
    return INSTALL.format(package=f"stgcn-lab{extra}", url=here.url, tag=here.tag, host=host).rstrip("\n")


def with_setup(text: str, source: str) -> str:
    """A notebook's text with this setup cell below its first cell: the one that is there rewritten, or a new one.

    A new cell prints nothing, so the counts of an executed notebook become what an execution would give.
    """
    notebook = nbformat.reads(text, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    present = [cell for cell in code if "setup" in cell.metadata.get("tags", [])]
    if present:
        present[0].source = source
    else:
        cell = nbformat.v4.new_code_cell(source, id=SETUP_ID, metadata={"tags": list(SETUP_TAGS)})
        if code and all(cell.execution_count for cell in code):
            cell.execution_count = 1
            for other in code:
                other.execution_count += 1
                for output in other.outputs:
                    if output.get("execution_count"):
                        output.execution_count = other.execution_count
        notebook.cells.insert(1, cell)
    written = nbformat.writes(notebook)
    return written if written.endswith("\n") else written + "\n"


# ---- the other places ----


def marked(text: str, begin: str, end: str, content: str, what: str) -> str:
    """The text with everything between two marks replaced; a missing mark is an error, not a silent nothing."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{what}: expected the marks {begin!r} and {end!r}, once each and in this order")
    head, rest = text.split(begin)
    return head + begin + content + end + rest.split(end)[1]


def configuration(text: str, here: Repository) -> str:
    """_config.yml: links to the repository where it is public, and launch buttons where they can work."""
    block = "\n"
    if here.public:
        block += f'repository:\n  url: {here.url}\n  path_to_book: book\n  branch: "{here.tag}"\n'
    if here.on_github:
        block += "launch_buttons:\n  notebook_interface: jupyterlab\n  binderhub_url: https://mybinder.org\n"
        block += "  colab_url: https://colab.research.google.com\n"
    text = marked(text, "# repository: written by make set-repository", "# end of repository", block, "_config.yml")
    buttons, count = re.subn(
        r"^(  use_(?:repository|issues)_button:) (?:true|false)$", rf"\1 {str(here.public).lower()}", text, flags=re.M
    )
    if count != 2:
        raise ValueError("_config.yml: expected use_repository_button and use_issues_button under html")
    return buttons


FIRST = "book/foundations/01-weather-on-a-graph.ipynb"


def readme(text: str, here: Repository) -> str:
    """README.md: where to run the book without installing anything, or how to give it an address."""
    if here.on_github:
        said = (
            f"Without installing anything: open the first chapter [on Binder]({here.binder(FIRST)}) or\n"
            f"[on Colab]({here.colab(FIRST)}). Every page of a chapter has a button for each. The source is at\n"
            f"<{here.url}>, where mistakes are [reported]({here.url}/issues), too."
        )
    elif here.public:
        said = (
            f"The source is at <{here.url}>. Buttons for Binder and Colab appear once it is on GitHub, where both can\n"
            "open it."
        )
    else:
        said = (
            "This copy has no public address yet, so its pages have no buttons for Binder and Colab. Once it is on "
            "GitHub,\n`make set-repository URL=https://github.com/OWNER/NAME` writes the address wherever it is "
            "needed; the buttons open the\nreleased version, so tag it and push the tag "
            f"(`git tag {here.tag} && git push origin {here.tag}`)."
        )
    begin, end = "<!-- written by make set-repository -->", "<!-- end -->"
    return marked(text, begin, end, f"\n{said}\n", "README.md")


REPORTING = "<!-- where to report: written by make set-repository -->"


def page(text: str, here: Repository, name: str) -> str:
    """A page of the book that says where to report a mistake."""
    if here.public:
        said = f"Found another? Please report it [where the book is made]({here.url}/issues)."
    else:
        said = "Found another? Please tell whoever gave you this copy; it has no public address yet."
    return marked(text, REPORTING, "<!-- end -->", f"\n{said}\n", name)


def citation(text: str, here: Repository) -> str:
    """CITATION.cff: version and address; a placeholder is no address to cite."""
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.M)
    line = f"version: {here.version}\n" + (f'repository-code: "{here.url}"\n' if here.public else "")
    changed, count = re.subn(r"^version: .*\n", line, text, flags=re.M)
    if count != 1:
        raise ValueError("CITATION.cff: expected one line that begins with 'version:'")
    return changed


def with_url(text: str, url: str) -> str:
    """pyproject.toml with this address."""
    changed, count = re.subn(r'^Repository = "[^"]*"$', f'Repository = "{url}"', text, flags=re.M)
    if count != 1:
        raise ValueError("pyproject.toml: expected one line 'Repository = \"...\"' under [project.urls]")
    return changed


# ---- all of them ----


def derived(root: Path, url: str | None = None) -> dict[Path, str]:
    """What each file should contain, for the address of pyproject.toml or for a new one."""
    here = repository(root)
    files: dict[Path, str] = {}
    if url is not None:
        here = Repository(checked_url(url), here.version)
        pyproject = root / "pyproject.toml"
        files[pyproject] = with_url(pyproject.read_text(encoding="utf-8"), here.url)
    for name, rewrite in (("README.md", readme), ("_config.yml", configuration), ("CITATION.cff", citation)):
        files[root / name] = rewrite((root / name).read_text(encoding="utf-8"), here)
    for path in sorted((root / "book").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if REPORTING in text:
            files[path] = page(text, here, path.relative_to(root).as_posix())
    for path in notebooks(root):
        source = setup_source(path.relative_to(root).as_posix(), here)
        try:
            files[path] = with_setup(path.read_text(encoding="utf-8"), source)
        except Exception as error:  # odd JSON makes nbformat stumble in many ways
            raise ValueError(f"{path.relative_to(root)}: expected a Jupyter notebook, found: {error}") from error
    return files


def write_all(files: Mapping[Path, str]) -> list[Path]:
    """Write the files that differ, all of them or none. Returns those written."""
    changed = {path: text for path, text in files.items() if path.read_text(encoding="utf-8") != text}
    before = {path: path.read_bytes() for path in changed}
    fresh = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in changed}
    for path in changed:  # a call that was killed has left its drafts
        for draft in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            draft.unlink(missing_ok=True)
    try:
        for path, text in changed.items():
            fresh[path].write_bytes(text.encode())  # a full disk shows here, when nothing has changed yet
        try:
            for path in changed:
                os.replace(fresh[path], path)
        except BaseException:
            for path, content in before.items():
                if path.read_bytes() != content:
                    path.write_bytes(content)
            raise
    finally:
        for path in fresh.values():
            path.unlink(missing_ok=True)
    return list(changed)


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Set the address, where one is given, and bring every derived place in step with it."""
    if len(arguments) > 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        written = write_all(derived(root, arguments[0] if arguments else None))
    except (ValueError, OSError) as error:
        print(f"{error}\nNothing was changed.", file=sys.stderr)
        return 1
    here = repository(root)
    for path in written:
        print(f"written: {path.relative_to(root)}")
    print(f"The repository is {here.url}, version {here.version}: {len(written)} files changed.")
    if not here.public:
        print("This is the placeholder, so the pages have no launch buttons. To set an address:")
        print("  make set-repository URL=https://github.com/OWNER/NAME")
    elif here.on_github:
        print(f"Binder and Colab open the tag {here.tag}: it must exist there (git push origin {here.tag}).")
    else:
        print("Binder and Colab buttons are left out: they need a repository on github.com.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
