"""What teachers get: slides from marked cells, a guide that knows every exercise, a quiz whose answers are right."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("build", ROOT / "teaching" / "build.py")
assert _spec and _spec.loader
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

CHAPTERS = build.chapters()
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def test_every_file_of_material_belongs_to_a_chapter():
    assert {path.stem for path in build.CHAPTERS.glob("*.yml")} == {path.stem for path in CHAPTERS}


# ---- slides ----


@each_chapter
def test_slides_are_marked_and_fit(path):
    cells = build.marked(read(path))
    assert 8 <= len(cells) <= 14, len(cells)
    assert not [fault for cell in cells for fault in build.slide_faults(cell)]


@each_chapter
def test_a_deck_shows_every_marked_figure_with_its_alt_text_and_asks_nobody(path):
    deck, cells = build.deck(path), build.marked(read(path))
    assert deck.count("<section>") == len(cells) + 2
    figures = [cell for cell in cells if cell.metadata["slide"].get("show", "output") in ("output", "both")]
    figures = [cell for cell in figures if cell.cell_type == "code" and build._picture(cell)]
    images = re.findall(r"<img alt=\"([^\"]*)\" src=\"data:image/png;base64,", deck)
    assert len(images) == len(figures) and all(images)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//", deck)
    assert "$" not in re.sub(
        r"<pre.*?</pre>|<img[^>]*>|<script>.*?</script>|<style>.*?</style>", "", deck, flags=re.DOTALL
    )


def test_print_is_as_large_as_the_slide_allows():
    short, wide, long = (build._letters([text], ["a point"]) for text in ("a = 1", "x" * 88, "x\n" * 40))
    assert short == 24 and 17 <= wide < short and long < wide
    assert wide * 0.61 * 88 <= build.WIDTH and long * 1.36 * 40 <= build.HEIGHT


def marked_cell(show: str, **changed):
    cell = nbformat.v4.new_code_cell("print(1)", outputs=[nbformat.v4.new_output("stream", text="1\n")])
    cell.metadata["slide"] = {"title": "A title", "points": ["one point"], "show": show, **changed}
    return cell


def test_faults_of_a_marked_cell_are_named():
    assert build.slide_faults(marked_cell("output")) == []
    assert "title" in build.slide_faults(marked_cell("output", title=" "))[0]
    assert "show" in build.slide_faults(marked_cell("equation"))[0]
    assert "unknown keys" in build.slide_faults(marked_cell("output", colour="red"))[0]
    assert "points" in build.slide_faults(marked_cell("output", points=["a"] * 6))[0]
    assert "points" in build.slide_faults(marked_cell("none", points=[]))[0]
    for points in ("one point", None, [1]):
        assert "points: expected a list of texts" in build.slide_faults(marked_cell("output", points=points))[0]
    odd = marked_cell("output")
    odd.metadata["slide"] = "A title"
    assert "found 'A title'" in build.slide_faults(odd)[0]
    silent = marked_cell("output")
    silent.outputs = []
    assert "no output" in build.slide_faults(silent)[0]
    long = marked_cell("both")
    long.source = "x = 1\n" * 16
    long.outputs[0].text = "1\n" * 15
    assert len(build.slide_faults(long)) == 2


def test_first_sentence_ends_where_a_sentence_ends():
    first = build._first_sentence
    assert first("A forecast, equation (3.1), is one. Another.") == "A forecast, equation (3.1), is one."
    assert first("The value $a.b $ counts 0.5 of it. No.") == "The value $a.b $ counts 0.5 of it."
    assert first('It says "no." Then more.') == 'It says "no."'
    assert first("No stop") == "No stop"


# ---- guide and quiz ----


@each_chapter
def test_the_guide_speaks_of_every_exercise(path):
    entry, exercises = build.material(path), build._exercises(read(path))
    assert sorted(entry["exercises"]) == list(range(1, len(exercises) + 1))
    assert all(solution and check for _, solution, check in exercises)
    assert set(entry["minutes"]) == {"lecture", "lab"} and all(15 <= m <= 180 for m in entry["minutes"].values())
    assert 2 <= len(entry["misconceptions"]) <= 4 and 2 <= len(entry["discussion"]) <= 3
    for one in entry["misconceptions"]:
        assert set(one) == {"says", "truth", "try"} and all(str(text).strip() for text in one.values())


@each_chapter
def test_quiz_checks_accept_the_answer_and_nothing_else(path):
    questions = build.material(path)["quiz"]
    assert len(questions) >= 5
    for one in questions:
        assert set(one) == {"question", "choices", "answer", "why", "check"}
        assert 3 <= len(one["choices"]) <= 5 and len(set(map(str, one["choices"]))) == len(one["choices"])
        assert build.accepted(one) == [one["answer"]], one["question"]


def test_quiz_answers_do_not_hide_in_their_place():
    """Nobody passes by always taking the same letter."""
    places = [one["answer"] for path in CHAPTERS for one in build.material(path)["quiz"]]
    assert max(places.count(place) for place in set(places)) < 0.5 * len(places)


def test_gift_has_every_question_with_one_right_answer():
    entries = build.gift().strip().split("\n\n")
    assert len(entries) == sum(len(build.material(path)["quiz"]) for path in CHAPTERS)
    for entry in entries:
        assert len(re.findall(r"^=", entry, re.MULTILINE)) == 1 and len(re.findall(r"^~", entry, re.MULTILINE)) >= 2
        assert len(re.findall(r"(?<!\\)[{}]", entry)) == 2, entry


def test_the_timetables_add_up():
    text = (ROOT / "teaching" / "syllabi.md").read_text(encoding="utf-8")
    sessions = re.findall(r"^### [^\n]+ \((\d+) minutes\)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(sessions) == 5
    for total, table in sessions:
        assert sum(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == int(total)
    assert len(re.findall(r"^\| \d+ \| \[", text, re.MULTILINE)) == 14  # the weeks of a term


def test_links_of_guide_and_syllabi_lead_somewhere():
    for name in ("guide.md", "syllabi.md", "README.md"):
        text = (ROOT / "teaching" / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert (ROOT / "teaching" / target).resolve().exists(), f"{name}: {target}"


# ---- the program ----


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for what npm brings, so that these tests need none."""
    for name in ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE"):
        target = tmp_path / "reveal" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("")
    monkeypatch.setattr(build, "REVEAL", tmp_path / "reveal")


def test_build_writes_everything_and_leaves_the_assignments(npm, tmp_path):
    out = tmp_path / "teach"
    (out / "assignments").mkdir(parents=True)
    build.build(out)
    build.build(out)  # a second time over the first
    made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"index.html", "guide.html", "quiz.html", "quiz.gift", "slides/shared/slides.css"} <= made
    assert {f"slides/{path.stem}.html" for path in CHAPTERS} <= made
    assert (out / "assignments").exists()
    for page in ("guide.html", "quiz.html", f"slides/{CHAPTERS[0].stem}.html"):  # formulas need both
        text = (out / page).read_text(encoding="utf-8")
        assert "katex/katex.css" in text and "katex/typeset.js" in text, page
    for page in ("index.html", "guide.html", "quiz.html"):
        text = (out / page).read_text(encoding="utf-8")
        for target in re.findall(r"(?:src|href)=\"([^\"#]+)", text):
            built = target.startswith("../html/") or "://" in target
            assert built or (out / target).exists(), f"{page}: {target}"
    guide = (out / "guide.html").read_text(encoding="utf-8")
    assert guide.count("<summary>Solution and check</summary>") == sum(len(build._exercises(read(p))) for p in CHAPTERS)


def test_nothing_is_written_when_a_part_cannot_be_made(npm, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "CHAPTERS", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="every chapter has one"):
        build.build(tmp_path / "teach")
    assert not (tmp_path / "teach").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("quiz:", "quizz:", "expected the keys .*, found the keys .*quizz"),
        ("lecture:", "lectures:", "minutes: expected the keys lab, lecture"),
        ("answer: ", "answer: -", "quiz, number .: expected the index of a choice"),
        ("why:", "because:", "quiz, number 1: expected the keys"),
        ("exercises:", "exercises: [", "expected YAML"),
    ],
)
def test_a_mistake_in_the_material_is_named(old, new, said, tmp_path, monkeypatch):
    text = (build.CHAPTERS / f"{CHAPTERS[1].stem}.yml").read_text(encoding="utf-8")
    (tmp_path / f"{CHAPTERS[1].stem}.yml").write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(build, "CHAPTERS", tmp_path)
    with pytest.raises(ValueError, match=rf"(?s)^teaching/chapters/{CHAPTERS[1].stem}.yml.*{said}"):
        build.material(CHAPTERS[1])


def test_the_guide_misses_no_exercise(tmp_path, monkeypatch):
    text = (build.CHAPTERS / f"{CHAPTERS[0].stem}.yml").read_text(encoding="utf-8")
    changed = re.sub(r"^  1:", "  9:", text, count=1, flags=re.MULTILINE)
    (tmp_path / f"{CHAPTERS[0].stem}.yml").write_text(changed, encoding="utf-8")
    monkeypatch.setattr(build, "CHAPTERS", tmp_path)
    with pytest.raises(ValueError, match="exercises: expected the numbers 1 to"):
        build.guide()


def test_files_of_others_are_left_alone(npm, tmp_path, capsys):
    for name in ("file", "talks/slides/mine.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    for out, said in (("file", "expected a folder, found the file"), ("talks", "has slides of its own")):
        assert build.main(["--out", str(tmp_path / out)]) == 1
        assert said in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == (tmp_path / "talks/slides/mine.html").read_text() == "mine"


def test_a_quiz_of_no_chapter_is_refused(capsys):
    assert build.main(["--check-quiz", "99"]) == 1
    assert "expected chapters of 01, 02" in capsys.readouterr().err
    assert build.main(["--check-quiz", "2"]) == 0


def test_without_npm_the_error_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "REVEAL", tmp_path)
    with pytest.raises(FileNotFoundError, match="make teach"):
        build.build(tmp_path / "teach")
