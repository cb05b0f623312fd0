"""The graded assignments: what students get holds no answers, and points are earned by understanding alone.

Most tests mark here, in this process, with the tests of the built autograder, because a kernel for each notebook would
take minutes. That the real grader agrees is tried on one notebook; ``make teach`` has it mark all six solutions.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import pytest
from nbclient import NotebookClient

pytest.importorskip("otter", reason="the assignments need the extra 'teach'")
from otter.nbmeta_config import NBMetadataConfig  # noqa: E402
from otter.test_files import create_test_file  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("assignments", ROOT / "teaching" / "assignments.py")
assert _spec and _spec.loader
assignments = importlib.util.module_from_spec(_spec)
sys.modules["assignments"] = assignments  # its dataclasses look themselves up
_spec.loader.exec_module(assignments)

MASTERS = assignments.masters()
every = pytest.mark.parametrize("path", MASTERS, ids=[path.stem for path in MASTERS])


# ---- marking in this process ----


@dataclass
class Marked:
    """A notebook that was run: what each question earned, and what its cells left behind."""

    points: dict[str, float]
    names: dict[str, Any]
    errors: list[str] = field(default_factory=list)


def code(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def score(tests: Path, question: str, names: dict[str, Any]) -> float:
    """Points of one question for what stands in these names."""
    found = create_test_file(str(tests / f"{question}.py"), NBMetadataConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.run(names)
    return float(found.score)


def run(sources: list[str], tests: Path) -> Marked:
    """Run code cells as the grader does: an error ends its cell, not the notebook; each check marks at once."""
    result = Marked({}, {"__name__": "__main__"})

    class Grader:
        def check(self, question: str) -> None:
            result.points[question] = score(tests, question, result.names)

    for source in sources:
        if "otter.Notebook(" in source:
            result.names["grader"] = Grader()
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(source, "<cell>", "exec"), result.names)
        except Exception as error:
            result.errors.append(f"{type(error).__name__}: {error} in {source[:60]!r}")
    return result


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All assignments, as make teach writes them but for the outputs of the solutions."""
    out = tmp_path_factory.mktemp("assignments")
    for path in MASTERS:
        assignments.build(path, out, check=False)
        with zipfile.ZipFile(out / path.stem / "autograder" / f"{path.stem}.zip") as archive:
            archive.extractall(out / path.stem / "unpacked")
    return out


@pytest.fixture(scope="module")
def solved(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Marked]]:
    """The marked solution of a master; each is run once."""
    import matplotlib.pyplot as plt
    import torch

    matplotlib.use("Agg")
    threads, done = torch.get_num_threads(), {}

    def get(path: Path) -> Marked:
        if path not in done:
            sources = code(version(built, path, "solution"))
            with chdir(tmp_path_factory.mktemp("run")):
                done[path] = run(sources, unpacked(built, path))
            plt.close("all")
        return done[path]

    yield get
    torch.set_num_threads(threads)


def version(built: Path, path: Path, kind: str) -> nbformat.NotebookNode:
    return nbformat.read(built / path.stem / kind / path.name, as_version=4)


def unpacked(built: Path, path: Path) -> Path:
    return built / path.stem / "unpacked" / "tests"


def by_tests(path: Path) -> list[Any]:
    return [question for question in assignments.questions(path) if not question.by_hand]


# ---- the masters ----


def cells(path: Path) -> list[tuple[str, nbformat.NotebookNode]]:
    """The cells of a master with the innermost block that they stand in: SOLUTION, TESTS, QUESTION or nothing."""
    found, blocks = [], []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "raw":
            begin = re.match(r"# BEGIN (\w+)", cell.source)
            if begin:
                blocks.append(begin.group(1))
            elif cell.source.startswith("# END"):
                blocks.pop()
        else:
            found.append((blocks[-1] if blocks else "", cell))
    assert not blocks, f"{path.name}: blocks without an end: {blocks}"
    return found


def test_there_are_six() -> None:
    assert [path.stem[:2] for path in MASTERS] == ["01", "02", "03", "04", "05", "06"]


@every
def test_master_says_what_it_asks(path: Path) -> None:
    texts = [cell.source for _, cell in cells(path) if cell.cell_type == "markdown"]
    assert texts[0].startswith(f"# Assignment {int(path.stem[:2])}: ")
    for part in ("> **You will be able to**", "> **You need**", "> **Time** ", "**Points** 20"):
        assert part in texts[0], f"{path.name}: the first cell lacks {part!r}"
    minutes = re.search(r"\*\*Time\*\* (\d+) to (\d+) minutes", texts[0])
    assert minutes and 60 <= int(minutes[1]) < int(minutes[2]) <= 120
    asked = assignments.questions(path)
    assert 4 <= len(asked) <= 6 and sum(question.points for question in asked) == 20
    by_hand = [question for question in asked if question.by_hand]
    assert len(by_hand) == 1 and any("*Rubric: " in text for text in texts)
    for number, question in enumerate(asked, 1):
        heading = rf"## Question {number}: .* \({question.points:g} points\)"
        assert any(re.match(heading, text) for text in texts), f"{path.name}: no heading {heading!r}"
    assert not any(re.search(r"```\{|^:::|\{\w+\}`", text, re.MULTILINE) for text in texts), "a raw directive"


@every
def test_master_keeps_to_the_conventions(path: Path) -> None:
    for block, cell in cells(path):
        if cell.cell_type != "code":
            continue
        assert not cell.outputs, f"{path.name}: a master stores no outputs"
        if block == "TESTS" or "setup" in cell.metadata.get("tags", []):
            continue
        lines = cell.source.splitlines()
        assert len(lines) <= (45 if block == "SOLUTION" else 25), f"{path.name}: {len(lines)} lines in {lines[0]!r}"
        assert max(map(len, lines)) <= 88, f"{path.name}: a long line in {lines[0]!r}"
        if "plt.show()" in cell.source:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 60, f"{path.name}: the figure of {lines[0]!r} has no text for those who can't see it"


@every
def test_every_question_has_open_and_hidden_tests(path: Path, built: Path) -> None:
    for question in by_tests(path):
        cases = create_test_file(str(unpacked(built, path) / f"{question.name}.py"), NBMetadataConfig()).test_cases
        points = {hidden: sum(case.points for case in cases if case.hidden == hidden) for hidden in (True, False)}
        assert points[False] > 0 and points[True] >= points[False], f"{path.name}, {question.name}: {points}"
        assert sum(points.values()) == question.points
        assert len(cases) == len({case.body.test_func.__name__ for case in cases})


# ---- what is handed out ----


def answers(path: Path) -> set[str]:
    """Every line of a solution, and every sentence of a model answer, that stands nowhere else in the master."""
    secret: set[str] = set()
    given: set[str] = set()
    for block, cell in cells(path):
        inside = False
        for line in cell.source.splitlines():
            text = line.strip()
            if text.startswith(("# BEGIN SOLUTION", "# END SOLUTION")):
                inside = text.startswith("# BEGIN")
            elif block == "SOLUTION" and (inside or cell.cell_type == "markdown"):
                secret.add(text)
            elif text.endswith("# SOLUTION"):
                secret.add(text.split("=", 1)[1].removesuffix("# SOLUTION").strip())
            elif block != "TESTS":
                given.add(text)
    return {text for text in secret - given if len(text) > 15}


def hidden(path: Path) -> set[str]:
    """The lines of the hidden tests that stand in no open test."""
    parts: dict[bool, set[str]] = {True: set(), False: set()}
    for block, cell in cells(path):
        if block == "TESTS":
            parts["hidden: true" in cell.source] |= {line.strip() for line in cell.source.splitlines()}
    return {text for text in parts[True] - parts[False] if len(text) > 20}


@every
def test_student_version_holds_no_answer(path: Path, built: Path) -> None:
    student = version(built, path, "student")
    text = "\n".join(cell.source for cell in student.cells)
    text += "\n".join(student.metadata["otter"]["tests"].values())
    secret = answers(path)
    assert len(secret) > 10
    assert not [line for line in secret if line in text]
    for word in ("SOLUTION", "A model answer", "*Marking:", "hidden=True", "HIDDEN"):
        assert word not in text
    assert not any(cell.get("outputs") for cell in student.cells)
    assert sorted(path.name for path in (built / path.stem / "student").iterdir()) == [path.name]


@every
def test_student_version_holds_no_hidden_test(path: Path, built: Path) -> None:
    student = version(built, path, "student")
    text = (built / path.stem / "student" / path.name).read_text(encoding="utf-8")
    names = set(re.findall(r"def (test_\w+)", "".join(line for line in hidden(path))))
    assert len(names) >= len(by_tests(path))
    assert not [name for name in names if name in text]
    everything = "\n".join([*student.metadata["otter"]["tests"].values(), *(cell.source for cell in student.cells)])
    messages = {m for line in hidden(path) for m in re.findall(r'"([^"{}]{20,})"', line)}
    assert messages and not [message for message in messages if message in everything]


@every
def test_setup_comes_before_the_first_import(path: Path, built: Path) -> None:
    for kind in ("student", "solution"):
        sources = code(version(built, path, kind))
        assert "stgcn_lab" in sources[0] and "otter.Notebook(" not in sources[0]
        assert f'otter.Notebook("{path.name}")' in sources[1]
        assert "stgcn_lab" in sources[2]


@every
def test_two_builds_are_equal(path: Path, built: Path, tmp_path: Path) -> None:
    again = assignments.build(path, tmp_path, check=False)
    for file in (f"student/{path.name}", f"solution/{path.name}", f"autograder/{path.stem}.zip"):
        assert (again / file).read_bytes() == (built / path.stem / file).read_bytes(), file


# ---- marks ----


@every
def test_solution_earns_everything(path: Path, solved: Callable[[Path], Marked]) -> None:
    found = solved(path)
    assert not found.errors
    assert found.points == {question.name: question.points for question in by_tests(path)}


def test_the_data_still_say_what_the_model_answers_say(solved: Callable[[Path], Marked]) -> None:
    leak, forecast, regimes, gales = (solved(path).names for path in MASTERS[2:])
    others = [error for name, error in leak["errors"].items() if name not in ("smoothed", "climatology")]
    assert leak["errors"]["smoothed"] < 0.5 * min(others) and max(others) < leak["errors"]["climatology"]
    loss = forecast["loss"]
    _, low, high = forecast["interval"](loss["graph network"], loss["all stations, linear"])
    assert 0 < low < high < loss["damped persistence"].mean() - 0.9 * loss["all stations, linear"].mean()
    assert 0.1 < regimes["p_value"](regimes["real"], regimes["made"]) < 0.9
    worth = dict(zip(gales["ratios"], gales["worth"], strict=True))
    assert worth[0.1] > 0.15 and abs(worth[0.6]) < 0.03


@every
def test_untouched_version_earns_nothing(path: Path, built: Path, tmp_path: Path) -> None:
    with chdir(tmp_path):
        found = run(code(version(built, path, "student")), unpacked(built, path))
    assert found.points == dict.fromkeys((question.name for question in by_tests(path)), 0)
    assert not found.errors, "the notebook that students open should run as it stands"


@every
def test_constants_do_not_pass_hidden_tests(path: Path, built: Path, solved: Callable[[Path], Marked]) -> None:
    """Who returns what is right for the data of the notebook, whatever is asked, earns the open tests at most."""
    found = solved(path)
    solutions = [c.source for block, c in cells(path) if block == "SOLUTION" and c.cell_type == "code"]
    for question, source in zip(by_tests(path), solutions, strict=True):
        names, said = dict(found.names), {}
        functions = [name for name in re.findall(r"^def (\w+)\(", source, re.MULTILINE) if name != "sort"]
        if not functions:
            assert "class " in source
            continue

        def remember(name: str, function: Callable[..., Any], said: dict[str, Any]) -> Callable[..., Any]:
            def wrapped(*given: Any, **named: Any) -> Any:
                answer = function(*given, **named)
                said.setdefault(name, answer)
                return said[name]

            return wrapped

        for name in functions:
            names[name] = remember(name, found.names[name], said)
        tail = re.split(r"\n\n\n(?=\w)", source)[-1]  # what the cell computes with its functions
        if not tail.startswith(("def ", "class ")):
            exec(tail, names)
        earned = score(unpacked(built, path), question.name, names)
        cases = create_test_file(str(unpacked(built, path) / f"{question.name}.py"), NBMetadataConfig()).test_cases
        assert earned < question.points - max(c.points for c in cases if c.hidden) + 1e-9, f"{question.name}: {earned}"


WRONG = {
    "a plane instead of a globe": (
        "01",
        "q1",
        1,
        """
def distances(lat, lon):
    x = 111.19 * np.cos(np.radians(lat.mean())) * (lon[:, None] - lon)
    return np.hypot(x, 111.19 * (lat[:, None] - lat))
km = distances(lat, lon)""",
    ),
    "degrees taken for kilometres": (
        "01",
        "q1",
        0,
        """
def distances(lat, lon):
    return np.hypot(lat[:, None] - lat, lon[:, None] - lon)
km = distances(lat, lon)""",
    ),
    "the nearest of all is the station itself": (
        "01",
        "q2",
        1,
        """
def nearest(distance, k):
    adjacency = np.zeros_like(distance)
    np.put_along_axis(adjacency, distance.argsort(axis=1)[:, 1 : k + 1], 1, axis=1)
    return np.maximum(adjacency, adjacency.T)
adjacency = nearest(km, 3)""",
    ),
    "the season is left in": (
        "01",
        "q3",
        1,
        """
def departures(values, month):
    return values - values.mean(axis=0)
x = departures(wind.values, month)
r = correlation(x)""",
    ),
    "each station's pair with itself is fitted too": (
        "01",
        "q4",
        1,
        """
def decay(distance, r):
    slope, start = np.polyfit(distance.ravel(), np.log(r.ravel()), 1)
    return np.exp(start), -1 / slope
fitted = decay(km, r)""",
    ),
    "before and after mixed up": (
        "01",
        "q5",
        1,
        """
def ahead(x, lag=1):
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    return z[lag:].T @ z[:-lag] / (len(x) - lag)
tomorrow = ahead(x)""",
    ),
    "no self-loops": (
        "02",
        "q1",
        1,
        """
def operator(adjacency):
    degree = np.maximum(adjacency.sum(axis=1), 1)
    return adjacency / np.sqrt(np.outer(degree, degree))
A_hat = operator(adjacency)""",
    ),
    "the mean instead of both roots": (
        "02",
        "q1",
        0,
        """
def operator(adjacency):
    looped = adjacency + np.eye(len(adjacency))
    return looped / looped.sum(axis=1, keepdims=True)
A_hat = operator(adjacency)""",
    ),
    "neighbours counted, not weighed": (
        "02",
        "q1",
        2,
        """
def operator(adjacency):
    looped = adjacency + np.eye(len(adjacency))
    degree = (looped > 0).sum(axis=1)
    return looped / np.sqrt(np.outer(degree, degree))
A_hat = operator(adjacency)""",
    ),
    "only for symmetric operators": (
        "02",
        "q2",
        2,
        """
def layer(operator, x, weight, bias):
    return np.maximum(0, operator.T @ x @ weight + bias)
ours = layer(A_hat, features, W, b)""",
    ),
    "the bias outside": (
        "02",
        "q2",
        0,
        """
def layer(operator, x, weight, bias):
    return np.maximum(0, operator @ x @ weight) + bias
ours = layer(A_hat, features, W, b)""",
    ),
    "the error against the noisy field": (
        "02",
        "q3",
        0,
        """
def best_steps(operator, noisy, clean, most=20):
    return int(np.argmin([((smooth(operator, noisy, k) - noisy) ** 2).mean() for k in range(most + 1)]))
steps = best_steps(A_hat, noisy, field)""",
    ),
    "no smoothing isn't a choice": (
        "02",
        "q3",
        1,
        """
def best_steps(operator, noisy, clean, most=20):
    return 1 + int(np.argmin([((smooth(operator, noisy, k) - clean) ** 2).mean() for k in range(1, most + 1)]))
steps = best_steps(A_hat, noisy, field)""",
    ),
    "the sign of the eigenvalue forgotten": (
        "02",
        "q4",
        1,
        """
def half_life(operator):
    return int(np.ceil(np.log(0.5) / np.log(np.linalg.eigvalsh(operator)[-2])))
half = half_life(A_hat)""",
    ),
    "a centred mean": (
        "03",
        "q1",
        0,
        """
def causal(series, kernel, dilation=1):
    return np.convolve(series, kernel, mode="same")""",
    ),
    "the dilation ignored": (
        "03",
        "q1",
        1,
        """
def causal(series, kernel, dilation=1):
    return np.convolve(series, kernel)[: len(series)]""",
    ),
    "layers side by side": (
        "03",
        "q2",
        0,
        """
def receptive_field(kernel_size, dilations):
    return kernel_size * len(dilations)""",
    ),
    "today is its own target": (
        "03",
        "q3",
        0,
        """
def windows(values, history, lead):
    count = len(values) - history - lead + 1
    rows = np.arange(count)[:, None] + np.arange(history)
    return values[rows], values[history - 2 + lead :][:count]
made = windows(x, 5, 1)""",
    ),
    "the lead ignored": (
        "03",
        "q3",
        1,
        """
def windows(values, history, lead):
    count = len(values) - history
    rows = np.arange(count)[:, None] + np.arange(history)
    return values[rows], values[history:]
made = windows(x, 5, 1)""",
    ),
    "split by the window's first day": (
        "03",
        "q4",
        0,
        """
def split(rows, history, lead, cut):
    first = np.arange(rows - history - lead + 1)
    return first[first < cut], first[first >= cut]
parts = split(len(x), 5, 1, cut)""",
    ),
    "the future changed by too little": (
        "03",
        "q5",
        1,
        """
def leaks(prepare, values, cut):
    changed = values.copy()
    changed[cut:] *= 0.9
    return not np.allclose(prepare(values)[:cut], prepare(changed)[:cut], equal_nan=True)
verdict = {prepare.__name__: leaks(prepare, x, cut) for prepare in prepared}""",
    ),
    "missing rows taken for a change": (
        "03",
        "q5",
        1,
        """
def leaks(prepare, values, cut):
    changed = values.copy()
    changed[cut:] = 1e6 * np.random.default_rng(0).normal(size=changed[cut:].shape)
    return not np.allclose(prepare(values)[:cut], prepare(changed)[:cut])
verdict = {prepare.__name__: leaks(prepare, x, cut) for prepare in prepared}""",
    ),
    "the slope learned from all years": (
        "04",
        "q1",
        1,
        """
def damped(z, cut):
    slope = (z[:-1] * z[1:]).sum(axis=0) / (z[:-1] ** 2).sum(axis=0)
    return slope * persistence(z)""",
    ),
    "a penalty that forgets the number of days": (
        "04",
        "q2",
        1,
        """
def fit_var(z, cut, ridge):
    a, b = z[: cut - 1], z[1:cut]
    return np.linalg.solve(a.T @ a + ridge * np.eye(z.shape[1]), a.T @ b)
M = fit_var(z, cut, 0.01)""",
    ),
    "without what was there": (
        "04",
        "q3",
        1,
        """
def forward(self, x, operator):
    h = F.relu(self.space(self.time(x[..., None])[:, 0], operator))
    return self.head(h)[..., 0] + self.memory * x[:, -1]
SmallSTGCN = type("SmallSTGCN", (SmallSTGCN,), {"forward": forward})""",
    ),
    "each method has days of its own": (
        "04",
        "q4",
        1,
        """
def interval(loss_a, loss_b, block=20, resamples=1000, seed=0):
    rng, days = np.random.default_rng(seed), len(loss_a)
    drawn = [rng.choice(loss_a, days).mean() - rng.choice(loss_b, days).mean() for _ in range(resamples)]
    return loss_a.mean() - loss_b.mean(), *np.quantile(drawn, [0.025, 0.975])
found = interval(loss["damped persistence"], rival)""",
    ),
    "days drawn one by one": (
        "04",
        "q4",
        2,
        """
def interval(loss_a, loss_b, block=20, resamples=1000, seed=0):
    rng, gap = np.random.default_rng(seed), loss_a - loss_b
    drawn = [rng.choice(gap, len(gap)).mean() for _ in range(resamples)]
    return gap.mean(), *np.quantile(drawn, [0.025, 0.975])
found = interval(loss["damped persistence"], rival)""",
    ),
    "areas without their root": (
        "05",
        "q1",
        1,
        """
def eofs(x, area, number):
    u, s, _ = np.linalg.svd((x - x.mean(axis=0)) * area, full_matrices=False)
    return u[:, :number] * s[:number], (s**2 / (s**2).sum())[:number]
scores, share = eofs(x, area, 6)""",
    ),
    "shuffled months as surrogates": (
        "05",
        "q3",
        2,
        """
def surrogate(series, seed):
    return np.random.default_rng(seed).permutation(series)
copy = surrogate(scores, 0)""",
    ),
    "a phase for each series": (
        "05",
        "q3",
        2,
        """
def surrogate(series, seed):
    spectrum = np.fft.rfft(series, axis=0)
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, spectrum.shape)
    angle[0], angle[-1] = 0, 0 if len(series) % 2 == 0 else angle[-1]
    return np.fft.irfft(spectrum * np.exp(1j * angle), n=len(series), axis=0)
copy = surrogate(scores, 0)""",
    ),
    "a tie counts for the data": (
        "05",
        "q3",
        3,
        """
def p_value(real, made):
    return (1 + (np.asarray(made) > real).sum()) / (1 + len(made))""",
    ),
    "February is followed by December": (
        "05",
        "q4",
        1,
        """
def transitions(labels, winter, kinds):
    count = np.zeros((kinds, kinds))
    np.add.at(count, (labels[:-1], labels[1:]), 1)
    followed = count.sum(axis=1, keepdims=True)
    return np.where(followed > 0, count / np.maximum(followed, 1), np.nan)
matrix = transitions(labels, winter, 3)""",
    ),
    "months as independent cases": (
        "05",
        "q5",
        1,
        """
def composite(x, labels, winter, regime):
    mine = x[labels == regime]
    return mine.mean(axis=0), mine.std(axis=0, ddof=1) / np.sqrt(len(mine))
parts = [composite(x, labels, winter, k) for k in range(3)]""",
    ),
    "the limit knows the test years": (
        "06",
        "q1",
        1,
        """
def events(speed, cut, share):
    limit = np.quantile(speed, 1 - share, axis=0)
    return (speed > limit).astype(float), limit
event, limit = events(speed, cut, 0.05)""",
    ),
    "the root forgotten": (
        "06",
        "q2",
        1,
        """
def probability(mean, spread, limit):
    return 1 - ndtr((limit - mean**2) / (2 * mean * spread))
p = probability(mean, spread, limit)""",
    ),
    "the rate of the test years": (
        "06",
        "q3",
        1,
        """
def brier_skill(p, event, rate):
    return 1 - ((p - event) ** 2).mean() / ((event.mean() - event) ** 2).mean()""",
    ),
    "bins closed on the other side": (
        "06",
        "q4",
        1,
        """
def reliability(p, event, edges):
    which = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, len(edges) - 2)
    number = np.bincount(which, minlength=len(edges) - 1)
    total = [np.bincount(which, weights=w, minlength=len(edges) - 1) for w in (p, event)]
    with np.errstate(invalid="ignore"):
        return total[0] / number, total[1] / number, number
bins = reliability(said, came, edges)""",
    ),
    "everybody acts at a half": (
        "06",
        "q5",
        1,
        """
def value(p, event, a):
    act = p > 0.5
    paid = a * act.mean() + ((event == 1) & ~act).mean()
    climate, perfect = min(a, event.mean()), a * event.mean()
    return (climate - paid) / (climate - perfect)""",
    ),
}


def test_every_question_has_a_misconception() -> None:
    planted = {(number, question) for number, question, _, _ in WRONG.values()}
    missing = {(path.stem[:2], q.name) for path in MASTERS for q in by_tests(path)} - planted
    assert missing <= {("05", "q2")}, missing


@pytest.mark.parametrize("belief", WRONG)
def test_misconception_loses_its_points(belief: str, built: Path, solved: Callable[[Path], Marked]) -> None:
    number, question, expected, source = WRONG[belief]
    path = assignments.master(number)
    names = dict(solved(path).names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(source, names)
    assert score(unpacked(built, path), question, names) == expected


# ---- the real grader, and the commands ----


def test_grader_marks_an_untouched_notebook(built: Path) -> None:
    path = MASTERS[0]
    found = assignments.grade("1", built / path.stem / "student" / path.name, built)
    assert [result.question.name for result in found] == [question.name for question in assignments.questions(path)]
    assert assignments.total(found) == (0, 16)
    assert [result.points for result in found if result.question.by_hand] == [None]
    shown = assignments.table(found, messages=True)
    assert "does the function return one?" in shown and "and up to 4 by hand" in shown


def test_a_student_sees_why(built: Path, tmp_path: Path) -> None:
    """The notebook alone, in an empty folder: its checks find their tests in it and say what is wrong."""
    path = MASTERS[2]
    notebook = version(built, path, "student")
    nbformat.write(notebook, tmp_path / path.name)
    last = next(i for i, cell in enumerate(notebook.cells) if cell.source == 'grader.check("q2")')
    notebook.cells = notebook.cells[: last + 1]
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [str(cell.outputs) for cell in notebook.cells if cell.source.startswith("grader.check(")]
    assert len(shown) == 2 and "causal: expected an array as long as the series" in shown[0]
    assert "one layer with three taps sees three days" in shown[1]


def small(built: Path, folder: Path, *cells: str, name: str = "01-weather-on-a-graph") -> Path:
    """A student's notebook with these code cells alone."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["otter"] = {"assignment_name": name}
    nbformat.write(notebook, folder / "handed-in.ipynb")
    return folder / "handed-in.ipynb"


def test_endless_loop_ends(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignments, "SECONDS", 3)
    with pytest.raises(assignments.AssignmentError, match="longer than 3 s"):
        assignments.grade("1", small(built, tmp_path, "while True: pass"), built)


def test_wrong_files_are_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(assignments.AssignmentError, match="expected a notebook of 01-.*, found one of 02-"):
        assignments.grade("1", small(built, tmp_path, "x = 1", name="02-graph-convolution"), built)
    odd = ("no notebook", "[]", "null", '{"metadata": {}}', '{"nbformat": 4, "nbformat_minor": 5, "cells": null}')
    for number, text in enumerate(odd):
        (tmp_path / f"odd-{number}.ipynb").write_text(text)
    for name in (*(f"odd-{number}.ipynb" for number in range(len(odd))), "not-there.ipynb", "."):
        with pytest.raises(assignments.AssignmentError, match="expected a Jupyter notebook"):
            assignments.grade("1", tmp_path / name, built)
    strange = nbformat.v4.new_notebook(metadata={"otter": "otter"})
    nbformat.write(strange, tmp_path / "strange.ipynb")
    with pytest.raises(assignments.AssignmentError, match="found one of no assignment"):
        assignments.grade("1", tmp_path / "strange.ipynb", built)
    for name in ("7", "regimes", "0", "", "²"):
        with pytest.raises(assignments.AssignmentError, match="NAME: expected one of 01-"):
            assignments.master(name)
    assert assignments.master("05-reg") == assignments.master("5") == MASTERS[4]


def test_who_leaves_the_folder_is_marked_all_the_same(built: Path, tmp_path: Path) -> None:
    """The tests lie in the folder where the kernel began; and a missing function is called just that."""
    found = assignments.grade("1", small(built, tmp_path, "import os\nos.chdir('/')", "exit()", "x = 1"), built)
    said = [message for result in found for message in result.messages]
    assert said and not any("did not come to its end" in message for message in said)
    assert any(message.endswith("is missing: was it renamed or deleted?") for message in said)


def test_without_otter_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "otter.assign", None)
    monkeypatch.setattr(assignments, "build", lambda path, build=assignments.build: build(path, tmp_path))
    assert assignments.main(["build", "1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: Otter is missing") and "[teach]" in said and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(assignments, "build", lambda path, build=assignments.build: build(path, tmp_path / "file"))
    assert assignments.main(["build", "1"]) == 1
    assert capsys.readouterr().err.startswith("error: ") and (tmp_path / "file").read_text() == "in the way"
    # said before the marking, not after it
    assert assignments.main(["grade", "1", "anna.ipynb", "--csv", str(tmp_path / "not-there" / "points.csv")]) == 1
    said = capsys.readouterr().err
    assert "error: --csv: expected a file in a folder that is there" in said and "anna" not in said


def test_two_builds_at_once_leave_one_whole_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another build puts its folder there just when ours has found the place empty."""
    new, target, aside = (tmp_path / name for name in ("new", "target", "aside"))
    for folder in (new, aside):
        folder.mkdir()
    (new / "file").write_text("ours")
    exists = Path.exists

    def meanwhile(path: Path) -> bool:
        found = exists(path)
        if path == target and not found:
            target.mkdir()
            (target / "file").write_text("theirs")
        return found

    monkeypatch.setattr(Path, "exists", meanwhile)
    assignments._put(new, target, aside)
    assert (target / "file").read_text() == "ours" and not exists(new)


def test_a_solution_that_fails_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = MASTERS[0], tmp_path / MASTERS[0].stem
    kept.mkdir()
    (kept / "old.txt").write_text("kept")
    asked = assignments.questions(path)
    lost = [assignments.Result(q, None if q.by_hand else 0.0, ("hidden test, 2 points: no",)) for q in asked]
    monkeypatch.setattr(assignments, "_mark", lambda notebook, archive, path: (lost, notebook))
    with pytest.raises(assignments.AssignmentError, match="its own solution loses points"):
        assignments.build(path, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.stem] and (kept / "old.txt").exists()


def test_a_broken_master_is_said(tmp_path: Path) -> None:
    notebook = nbformat.read(MASTERS[0], as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.source != "# END TESTS"]
    nbformat.write(notebook, tmp_path / "01-broken.ipynb")
    with pytest.raises(assignments.AssignmentError, match="otter assign failed"):
        assignments.build(tmp_path / "01-broken.ipynb", tmp_path / "out", check=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_class_gets_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = assignments.questions(MASTERS[0])
    marks = [assignments.Result(q, None if q.by_hand else 1.0) for q in asked]
    monkeypatch.setattr(assignments, "grade", lambda name, notebook: marks)
    target = tmp_path / "points.csv"
    assert assignments.main(["grade", "1", "anna.ipynb", "ben.ipynb", "--csv", str(target)]) == 0
    header, anna, ben = target.read_text().splitlines()
    assert header == "notebook,q1,q2,q3,q4,q5,q6,total" and anna == "anna.ipynb,1,1,1,1,1,,5" and ben[:3] == "ben"
    assert capsys.readouterr().out.count("by hand of 4") == 2
    assert assignments.main(["grade", "9", "anna.ipynb"]) == 1
    assert "error: NAME: expected one of" in capsys.readouterr().err
    assert assignments.main(["list"]) == 0
    assert capsys.readouterr().out.count("20 points, 4 of them by hand") == 6


# ---- the course project ----


def project_texts() -> list[str]:
    notebook = nbformat.read(ROOT / "teaching" / "course-project.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def test_rubric_adds_up_and_names_every_level() -> None:
    text = next(text for text in project_texts() if "## How it is marked" in text)
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == ["Criterion", "Points", "None", "Half", "All"]
    assert all(len(row) == 5 and all(row) for row in rows)
    assert sum(int(row[1]) for row in rows[2:]) == 100
    named = " ".join(row[0] for row in rows[2:]).lower()
    for word in (
        "question",
        "data",
        "split in time",
        "baselines",
        "uncertainty",
        "honesty",
        "figures",
        "reproduc",
        "text",
    ):
        assert word in named


def test_lines_of_a_course_make_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program that the project gives to teachers, with the lines of two students."""
    import json

    from stgcn_lab import baselines, datasets, verification

    wind = datasets.load_irish_wind().wind_speed.sel(time="1978")
    old = baselines.persistence(wind)
    (tmp_path / "handed-in").mkdir()
    for name, forecast in (("anna", old), ("ben", 0.5 * old + 0.5 * wind.mean("time"))):
        line = verification.entry(
            "Irish wind 1978", name, forecast[1:], wind[1:], old[1:], lead=1, units="m/s", seconds=0.0, kind="simple"
        )
        (tmp_path / "handed-in" / f"{name}.json").write_text(json.dumps(line))
    program = next(m[1] for text in project_texts() if (m := re.search(r"```python\n(.*?)```", text, re.DOTALL)))
    with chdir(tmp_path):
        exec(program, {})
    lines = capsys.readouterr().out.splitlines()
    assert "score" in lines[0] and ["ben" in lines[1], "anna" in lines[2]] == [True, True]
