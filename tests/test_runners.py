"""A reader runs the book on a machine of their own, on Binder or on Colab: one address, one version, one wheel."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml

from stgcn_lab import datasets

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import repository  # noqa: E402
import run_notebooks  # noqa: E402
import versions  # noqa: E402

GITHUB = "https://github.com/weather-on/graphs.book"
HERE = repository.repository()


# ---- the stored results of the benchmarks ----

RESULTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.json"))


@pytest.mark.parametrize("name", RESULTS)
def test_stored_results_are_those_of_the_repository(name):
    assert datasets.load_benchmark(name) == json.loads((ROOT / "benchmarks" / f"{name}.json").read_text("utf-8"))


def test_programs_of_the_benchmarks_can_be_read():
    assert datasets.benchmark_program("frameworks") == (ROOT / "benchmarks" / "frameworks.py").read_text("utf-8")


@pytest.mark.parametrize("load", [datasets.load_benchmark, datasets.benchmark_program])
@pytest.mark.parametrize("name", ["rain", "../pyproject", "regimes.json", "", None, ["regimes"]])
def test_an_unknown_benchmark_is_told_which_there_are(load, name):
    with pytest.raises(ValueError, match=r"name: no stored benchmark .*'irish_wind'.*'regimes'"):
        load(name)


def test_an_entry_of_the_leaderboard_is_found_by_its_folder(tmp_path, monkeypatch):
    (tmp_path / "benchmarks" / "entries").mkdir(parents=True)
    (tmp_path / "benchmarks" / "entries" / "mine.json").write_text('{"score": 1}')
    monkeypatch.setattr(datasets.bundled, "DATA_DIR", tmp_path)
    assert datasets.load_benchmark("entries/mine") == {"score": 1}
    with pytest.raises(ValueError, match="expected one of .*entries/mine"):
        datasets.load_benchmark("mine")


@pytest.mark.parametrize("content", [b"", b'{"score": ', b"\xff\xfe{"])
def test_damaged_results_are_called_damaged(content, tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "mine.json").write_bytes(content)
    monkeypatch.setattr(datasets.bundled, "DATA_DIR", tmp_path)
    with pytest.raises(ValueError, match=r"benchmark 'mine': its stored results are damaged .*please reinstall"):
        datasets.load_benchmark("mine")


def test_a_package_without_benchmarks_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.bundled, "DATA_DIR", tmp_path)
    monkeypatch.setattr(datasets.bundled, "CLONE", tmp_path)
    with pytest.raises(FileNotFoundError, match="please reinstall stgcn-lab"):
        datasets.load_benchmark("regimes")


# ---- the wheel ----


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The wheel of this tree, unpacked where no repository is near."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = run_notebooks.build_wheel(folder)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "package")
    return folder / "package"


def test_the_wheel_holds_the_package_its_data_and_its_benchmarks(unpacked):
    stored = [path for kind in ("*.py", "*.json") for path in (ROOT / "benchmarks").rglob(kind)]
    package = [path for path in (ROOT / "stgcn_lab").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for source, target, files in (
        ("stgcn_lab", "stgcn_lab", package),
        ("benchmarks", "stgcn_lab/data/benchmarks", stored),
    ):
        assert len(files) > 20
        for path in files:
            copy = unpacked / target / path.relative_to(ROOT / source)
            assert copy.read_bytes() == path.read_bytes(), path
    assert not (ROOT / "stgcn_lab" / "data" / "benchmarks").exists(), "the repository keeps one copy"


def test_an_installed_package_reads_its_own_copy(unpacked):
    code = "import json, sys; from stgcn_lab import datasets\n"
    code += "print(json.dumps([datasets.__file__, datasets.load_benchmark('regimes')['seeds'],"
    code += " datasets.benchmark_program('frameworks'), len(datasets.load_irish_wind().time)]))"
    environment = {"PYTHONPATH": str(unpacked), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=unpacked, env=environment, capture_output=True, text=True, check=True
    )
    file, seeds, program, days = json.loads(done.stdout)
    assert Path(file).is_relative_to(unpacked)
    assert seeds == datasets.load_benchmark("regimes")["seeds"] and days == 6574
    assert program == datasets.benchmark_program("frameworks")


def test_the_source_archive_can_be_built_into_the_same_wheel(tmp_path, unpacked):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "stgcn_lab", source / "stgcn_lab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "benchmarks", source / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = "from setuptools import build_meta; build_meta.build_sdist('..')"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, archive]
    subprocess.run(build, check=True, cwd=tmp_path, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as contents:
        names = {name for name in contents.namelist() if not name.endswith("/")}
    assert names == {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}


def test_chapters_read_nothing_of_the_repository():
    for path in repository.notebooks():
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                found = re.search(r"\.\./|benchmarks/", cell.source)
                assert not found, f"{path.name}: an installed package has no such file; datasets.load_benchmark has it"


# ---- the address ----


def copied_tree(folder: Path) -> Path:
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "_config.yml", "CITATION.cff"):
        shutil.copy(ROOT / name, tree)
    for path in [*repository.notebooks(), *(ROOT / "book").glob("*.md")]:
        copy = tree / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tree


def contents(tree: Path) -> dict[str, bytes]:
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


@pytest.fixture
def tree(tmp_path) -> Path:
    copy = copied_tree(tmp_path)
    assert repository.main([], copy) == 0
    return copy


def setup_cell(path: Path) -> nbformat.NotebookNode:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    (found,) = [cell for cell in code if "setup" in cell.metadata.get("tags", [])]
    assert code[0] is found, f"{path.name}: the setup cell is the first code cell"
    return found


def test_every_derived_place_is_in_step_with_pyproject():
    behind = [path for path, text in repository.derived(ROOT).items() if path.read_text("utf-8") != text]
    assert not behind, "run: make set-repository"


def test_a_second_call_changes_nothing(tree):
    before = contents(tree)
    assert repository.main([], tree) == 0
    assert contents(tree) == before


def test_an_address_on_github_reaches_every_place(tree, capsys):
    assert repository.main([GITHUB + ".git/"], tree) == 0
    assert "git push origin v" in capsys.readouterr().out
    version = HERE.version
    assert repository.repository(tree) == repository.Repository(GITHUB, version)
    configuration = yaml.safe_load((tree / "_config.yml").read_text("utf-8"))
    assert configuration["repository"] == {"url": GITHUB, "path_to_book": "book", "branch": f"v{version}"}
    assert configuration["launch_buttons"]["binderhub_url"] == "https://mybinder.org"
    assert configuration["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    assert configuration["html"]["use_repository_button"] and configuration["html"]["use_issues_button"]
    cited = yaml.safe_load((tree / "CITATION.cff").read_text("utf-8"))
    assert (cited["repository-code"], cited["version"]) == (GITHUB, version)
    readme = (tree / "README.md").read_text("utf-8")
    first = "book/foundations/01-weather-on-a-graph.ipynb"
    assert f"(https://mybinder.org/v2/gh/weather-on/graphs.book/v{version}?urlpath=lab/tree/{first})" in readme
    colab = f"(https://colab.research.google.com/github/weather-on/graphs.book/blob/v{version}/{first})"
    assert colab in readme and f"({GITHUB}/issues)" in readme
    for path in repository.notebooks(tree):
        name = path.relative_to(tree).as_posix()
        source = setup_cell(path).source
        extra = f"[{repository.EXTRAS[name]}]" if name in repository.EXTRAS else ""
        assert f'"{GITHUB}"' in source
        assert f'"stgcn-lab{extra} @ git+{{source}}@v{version}"' in source
        assert len(source.splitlines()) <= 25 and max(map(len, source.splitlines())) <= 88
    assert not [name for name, content in contents(tree).items() if b"example.org" in content]


def test_a_page_says_where_to_report_a_mistake(tree):
    page = tree / "book" / "errata.md"
    page.write_text(f"# Errata\n\n{repository.REPORTING}\n<!-- end -->\n", encoding="utf-8")
    assert repository.main([], tree) == 0
    before = page.read_text("utf-8")
    assert "no public address" in before and "http" not in before
    assert repository.main([GITHUB], tree) == 0
    assert f"({GITHUB}/issues)" in page.read_text("utf-8")
    assert repository.main([repository.PLACEHOLDER], tree) == 0
    assert page.read_text("utf-8") == before


def test_the_way_back_leads_to_where_it_began(tree):
    before = contents(tree)
    assert repository.main([GITHUB], tree) == 0
    assert contents(tree) != before
    assert repository.main([repository.PLACEHOLDER], tree) == 0
    assert contents(tree) == before


def test_the_placeholder_promises_no_button(tree):
    assert repository.main([repository.PLACEHOLDER], tree) == 0
    configuration = yaml.safe_load((tree / "_config.yml").read_text("utf-8"))
    assert not {"repository", "launch_buttons"} & set(configuration)
    assert not configuration["html"]["use_repository_button"] and not configuration["html"]["use_issues_button"]
    readme = (tree / "README.md").read_text("utf-8")
    assert "make set-repository URL=" in readme and "mybinder.org" not in readme and "example.org" not in readme
    assert "repository-code" not in yaml.safe_load((tree / "CITATION.cff").read_text("utf-8"))


def test_another_host_has_its_links_but_no_launch_buttons(tree, capsys):
    assert repository.main(["https://gitlab.com/group/part/book"], tree) == 0
    assert "left out" in capsys.readouterr().out
    configuration = yaml.safe_load((tree / "_config.yml").read_text("utf-8"))
    assert "launch_buttons" not in configuration
    assert configuration["repository"]["url"] == "https://gitlab.com/group/part/book"
    for path in repository.notebooks(tree):
        assert "git+{source}@v" in setup_cell(path).source


WRONG = [
    "",
    "github.com/owner/name",
    "http://github.com/owner/name",
    "https://github.com/owner",
    "https://github.com/owner/name/tree/main",
    "https://user:secret@github.com/owner/name",
    "https://github.com/owner/na me",
    "https://github.com/owner/name?tab=readme",
    'https://github.com/owner/name"\nevil = "',
    "https://localhost/owner/name",
    "https://github.com/../name",
]


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_address_changes_nothing(tree, url, capsys):
    before = contents(tree)
    assert repository.main([url], tree) == 1
    assert "URL: expected https://github.com/OWNER/NAME" in capsys.readouterr().err
    assert contents(tree) == before


def test_a_place_that_is_missing_changes_nothing(tree, capsys):
    readme = tree / "README.md"
    readme.write_text(readme.read_text("utf-8").replace("<!-- end -->", ""), encoding="utf-8")
    before = contents(tree)
    assert repository.main([GITHUB], tree) == 1
    assert "README.md: expected the marks" in capsys.readouterr().err
    assert contents(tree) == before


def test_all_files_are_written_or_none(tree, monkeypatch):
    before, calls, replace = contents(tree), [], repository.os.replace

    def failing(source, target):
        calls.append(target)
        if len(calls) == 5:
            raise OSError("the disk is gone")
        replace(source, target)

    monkeypatch.setattr(repository.os, "replace", failing)
    assert repository.main([GITHUB], tree) == 1
    assert len(calls) == 5
    assert contents(tree) == before


def test_a_call_that_was_killed_is_finished_by_the_next(tree):
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import repository; from pathlib import Path\n"
        "replace, calls = os.replace, []\n"
        "def dying(source, target):\n"
        "    calls.append(target)\n"
        "    os._exit(9) if len(calls) == 3 else replace(source, target)\n"
        "os.replace = dying\n"
        "repository.main([sys.argv[2]], Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", program, str(ROOT / "tools"), GITHUB, str(tree)]
    assert subprocess.run(command, check=False).returncode == 9
    assert list(tree.rglob("*.tmp"))
    assert repository.main([GITHUB], tree) == 0
    assert not list(tree.rglob("*.tmp"))
    assert repository.write_all(repository.derived(tree)) == []


@pytest.mark.parametrize("text", ["[]", "{", '{"cells": null, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'])
def test_a_broken_notebook_is_named_and_nothing_changes(text, tree, capsys):
    broken = repository.notebooks(tree)[1]
    broken.write_text(text, encoding="utf-8")
    before = contents(tree)
    assert repository.main([GITHUB], tree) == 1
    assert f"{broken.relative_to(tree)}: expected a Jupyter notebook" in capsys.readouterr().err
    assert contents(tree) == before


def test_a_new_notebook_gets_its_cell_and_the_counts_of_an_execution(tmp_path):
    tree = copied_tree(tmp_path)
    path = tree / "book" / "foundations" / "99-new.ipynb"
    new = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=1)
    code = nbformat.v4.new_code_cell("1 + 1", execution_count=1, outputs=[output])
    new.cells = [nbformat.v4.new_markdown_cell("# New"), code]
    nbformat.write(new, path)
    assert repository.main([], tree) == 0
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "code"]
    assert cells[1].metadata.tags == ["setup", "remove-cell"]
    assert [cell.execution_count for cell in cells[1:]] == [1, 2] and cells[2].outputs[0].execution_count == 2


def test_a_release_moves_every_place_to_its_version(tree):
    pyproject = tree / "pyproject.toml"
    changed = pyproject.read_text("utf-8").replace(f'version = "{HERE.version}"', 'version = "7.8.9"', 1)
    pyproject.write_text(changed, encoding="utf-8")
    assert repository.main([GITHUB], tree) == 0
    texts = {name: content.decode() for name, content in contents(tree).items()}
    assert texts["_config.yml"].count("v7.8.9") == 1 and texts["README.md"].count("v7.8.9") == 2
    assert "version: 7.8.9" in texts["CITATION.cff"]
    assert all("@v7.8.9" in text for name, text in texts.items() if name.endswith(".ipynb"))


def test_the_buttons_of_a_page_open_that_chapter(tmp_path):
    """As the theme makes them, in a book of one chapter."""
    chapter = "book/foundations/01-weather-on-a-graph"
    tree = copied_tree(tmp_path)
    assert repository.main([GITHUB], tree) == 0
    configuration = yaml.safe_load((tree / "_config.yml").read_text("utf-8"))
    kept = {key: configuration[key] for key in ("title", "repository", "launch_buttons", "execute")}
    kept["html"] = {key: configuration["html"][key] for key in ("use_repository_button", "use_issues_button")}
    kept["only_build_toc_files"] = True
    (tree / "_config.yml").write_text(yaml.safe_dump(kept), encoding="utf-8")
    (tree / "book" / "_toc.yml").write_text(f"format: jb-book\nroot: {chapter.removeprefix('book/')}\n")
    path = tree / f"{chapter}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = notebook.cells[:2]  # links to other chapters would lead nowhere
    notebook.cells[0].source = "# Weather on a graph"
    nbformat.write(notebook, path)
    builder = Path(sys.executable).with_name("jupyter-book")
    build = [builder, "build", "book", "--config", "_config.yml", "--path-output", ".", "--quiet"]
    subprocess.run(build, cwd=tree, check=True, capture_output=True)
    page = (tree / "_build" / "html" / f"{chapter.removeprefix('book/')}.html").read_text("utf-8")
    assert f"https://mybinder.org/v2/gh/weather-on/graphs.book/{HERE.tag}?urlpath=lab/tree/{chapter}.ipynb" in page
    assert f"https://colab.research.google.com/github/weather-on/graphs.book/blob/{HERE.tag}/{chapter}.ipynb" in page
    assert f'href="{GITHUB}"' in page and f"{GITHUB}/issues/new" in page
    assert "find_spec" not in page, "the setup cell is for those who run the notebook"


# ---- the setup cell ----

ADDRESS = repository.Repository(GITHUB, "1.2.3")
EXPLAINING = "book/challenges/18-explaining.ipynb"


def run_setup(source: str, tmp_path: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + source], cwd=tmp_path, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("here", [ADDRESS, repository.Repository(repository.PLACEHOLDER, "1.2.3")])
def test_the_setup_cell_does_nothing_where_the_package_is(here, tmp_path):
    done = run_setup(repository.setup_source(EXPLAINING, here), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


MISSING = """
import importlib.util, json, subprocess
real = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "stgcn_lab" else real(name)
class Done: returncode, stderr = {code}, "pip says why"
def run(command, **options):
    print("CALLED", json.dumps(command))
    return Done
subprocess.run = run
"""


def test_the_setup_cell_installs_the_release_and_keeps_torch(tmp_path):
    import numpy
    import torch

    source = repository.setup_source(EXPLAINING, ADDRESS)
    done = run_setup(source, tmp_path, MISSING.format(code=0))
    assert done.returncode == 0, done.stderr
    command = json.loads(done.stdout.partition("CALLED")[2])
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert set(command[4:]) == {
        "--quiet",
        f"stgcn-lab[explain] @ git+{GITHUB}@v1.2.3",
        f"numpy=={numpy.__version__}",
        f"torch=={torch.__version__}",
    }


def test_the_setup_cell_says_what_to_do_when_it_fails(tmp_path):
    done = run_setup(repository.setup_source(EXPLAINING, ADDRESS), tmp_path, MISSING.format(code=1))
    assert done.returncode == 1 and "pip says why" in done.stdout
    assert "could not be installed" in done.stderr and GITHUB in done.stderr and "Run this cell again" in done.stderr
    nowhere = repository.setup_source(EXPLAINING, repository.Repository(repository.PLACEHOLDER, "1.2.3"))
    done = run_setup(nowhere, tmp_path, MISSING.format(code=0))
    assert done.returncode == 1 and 'pip install ".[explain]"' in done.stderr and "CALLED" not in done.stdout


def test_no_chapter_needs_a_compiled_extra():
    compiled = ("torch-scatter", "torch-sparse", "torch-cluster", "torch-spline-conv", "pyg-lib", "dgl")
    requirements = "\n".join(run_notebooks.needs()).lower().replace("_", "-")
    assert "torch-geometric" in requirements
    assert not [name for name in compiled if name in requirements]
    extras = {name for listed in repository.EXTRAS.values() for name in listed.split(",")}
    assert extras <= set(run_notebooks.MODULES)
    assert all((ROOT / name).is_file() for name in repository.EXTRAS)


# ---- the run of the notebooks ----


def exercise(stub: str, solution: str, check: str) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# A chapter"),
        cell("import random, torch\ndata = [1, 2, 3]"),
        nbformat.v4.new_markdown_cell("### Exercise 3: the mean"),
        cell(stub, metadata={"tags": ["exercise"]}),
        cell(solution, metadata={"tags": ["hide-cell", "solution"]}),
        cell(check, metadata={"tags": ["hide-cell", "check"]}),
    ]
    return notebook


def outcome(notebook: nbformat.NotebookNode, name: str = "book/x.ipynb") -> str:
    """What the cells print, or how they end; as one script in a fresh Python."""
    ready = run_notebooks.prepared(notebook, name)
    code = "\n".join(cell.source for cell in ready.cells if cell.cell_type == "code")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--python: expected the python"),
        (["--python", "not-there"], "--python: expected the python .*found not-there"),
        (["--python", sys.executable, "book/not-there.ipynb"], "NOTEBOOK: expected a notebook below .*not-there.ipynb"),
        (["--python", sys.executable, "README.md"], "NOTEBOOK: .*README.md"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_built(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", *arguments])
    monkeypatch.setattr(run_notebooks, "build_wheel", lambda *given: pytest.fail("began to build"))
    with pytest.raises(SystemExit) as stopped:
        run_notebooks.main()
    assert stopped.value.code == 2 and re.search(said, capsys.readouterr().err)


def test_a_good_exercise_passes_and_leaves_no_trace():
    check = "torch.rand(1); random.random(); print('hello')\nassert answer == 2"
    good = exercise("answer = ...", "answer = sum(data) / 3\nprint(torch.rand(1), random.random())", check)
    seeded = "import random, torch; torch.manual_seed(0); random.seed(0); print(torch.rand(1), random.random())"
    expected = subprocess.run([sys.executable, "-c", seeded], capture_output=True, text=True, check=True).stdout
    good.cells[1].source += "\ntorch.manual_seed(0); random.seed(0)"
    assert outcome(good) == expected + "hello\n"


@pytest.mark.parametrize(
    ("stub", "check", "said"),
    [
        ("answer = ...", "assert data", "Exercise 3: the check passes without an answer"),
        ("answer = ...", "assert hidden == 2", "Exercise 3: the check fails for a name"),
    ],
)
def test_a_check_that_does_not_ask_for_the_answer_is_found(stub, check, said):
    assert said in outcome(exercise(stub, "answer = hidden = 2", check))


@pytest.mark.parametrize(
    ("library", "chapter", "hidden"),
    [
        ("captum.attr", "book/x.ipynb", True),
        ("captum.attr", EXPLAINING, False),
        ("dask", "book/x.ipynb", True),
        ("dask", "book/applications/12-farming.ipynb", False),  # of the extra "scale", but xclim brings it
    ],
)
def test_an_extra_that_the_setup_cell_would_not_install_is_hidden(library, chapter, hidden):
    notebook = exercise("answer = ...", "answer = 2", "assert answer == 2")
    notebook.cells[1].source += f"\nimport {library}"
    said = outcome(notebook, chapter)
    assert library.partition(".")[0] in said if hidden else said == ""


# ---- other versions of Python and of the dependencies ----


def test_a_python_is_found_by_its_version():
    here = "{}.{}".format(*sys.version_info)
    assert versions.python_named(here) == sys.executable
    assert versions.python_named("3.1") is None


def test_without_uv_the_versions_are_not_tested_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(versions.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["versions.py"])
    assert versions.main() == 1
    assert "uv is needed" in capsys.readouterr().err


def test_no_python_at_all_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(versions.shutil, "which", lambda name: name)
    monkeypatch.setattr(versions, "python_named", lambda version: None)
    monkeypatch.setattr(sys, "argv", ["versions.py", "--python", "3.12"])
    assert versions.main() == 1
    assert "Python 3.12: not found here, not tested" in capsys.readouterr().out


def test_the_tests_of_the_versions_exist():
    named = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    assert {*versions.QUICK, *versions.NOT_OF_THE_PACKAGE, *versions.NOT_LOWEST} <= named
