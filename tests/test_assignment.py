"""What is handed out and what is graded: the student's edition fails its checks, the teacher's passes all of them."""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

import avlab

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "teaching"))
import assignment  # noqa: E402

EXERCISES, _ = assignment.answers()
SETUP = {"avlab": avlab, "math": math, "Choice": avlab.Choice, "challenge": avlab.Challenge("a class of its own")}
"""What the notebooks have before their exercises."""
NOTEBOOKS = sorted({exercise.notebook for exercise in EXERCISES})


def cells(path: Path) -> dict[str, Any]:
    return {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("course")
    done = subprocess.run(
        [sys.executable, "teaching/assignment.py", "--to", str(to)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert str(to / "release") in done.stdout
    return to


def ids(exercise: assignment.Exercise) -> str:
    return f"{exercise.notebook}-{exercise.cell}"


def test_every_notebook_with_an_exercise_is_made() -> None:
    asking = {
        path.stem
        for path in (ROOT / "notebooks").glob("*.ipynb")
        for cell in cells(path).values()
        if cell.cell_type == "code" and "\n\n\navlab.check." in cell.source
    }
    assert asking == set(NOTEBOOKS)
    assert len(EXERCISES) >= 11


@pytest.mark.parametrize("exercise", EXERCISES, ids=ids)
def test_the_students_edition_fails_its_checks_and_the_teachers_passes(made: Path, exercise: Any) -> None:
    for kind, right in (("release", False), ("source", True)):
        of = cells(made / kind / exercise.notebook / f"{exercise.notebook}.ipynb")
        scope: dict[str, Any] = dict(SETUP)
        exec(of[exercise.cell].source, scope)
        test = of[f"{exercise.cell}-test"].source
        if right:
            exec(test, scope)
            assert scope["verdict"].passed
        else:
            with pytest.raises(AssertionError, match=exercise.work):
                exec(test, scope)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_the_students_what_is_locked_and_what_gives_points(made: Path, name: str) -> None:
    editions = [cells(made / kind / name / f"{name}.ipynb") for kind in ("source", "release")]
    here = [exercise for exercise in EXERCISES if exercise.notebook == name]
    for of in editions:
        marked = {key: cell.metadata.nbgrader for key, cell in of.items() if "nbgrader" in cell.metadata}
        assert len(marked) == 2 * len(here) + 1
        for key, said in marked.items():
            assert set(said) - {"points"} == {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
            assert said.grade_id == key
            assert said.schema_version == 3
            assert ("points" in said) == said.grade
            assert said.locked == (not said.solution)
            assert not said.task
        for exercise in here:
            assert marked[exercise.cell].solution
            assert not marked[exercise.cell].grade
            test = marked[f"{exercise.cell}-test"]
            assert test.locked
            assert test.points == exercise.points > 0
            order = list(of)
            assert order.index(f"{exercise.cell}-test") == order.index(exercise.cell) + 1
        words = marked["explain-answer"]
        assert words.grade
        assert words.solution
    teachers, students = editions
    assert list(teachers) == list(students)
    for exercise in here:
        assert assignment.BEGIN in teachers[exercise.cell].source
        assert exercise.unwritten in students[exercise.cell].source + "\n"
    words = assignment.explained(name)
    assert words.startswith("1. **") == (name in assignment.EXPLAINED.read_text(encoding="utf-8"))
    assert words in teachers["explain-answer"].source
    assert "SOLUTION" not in students["explain-answer"].source
    others = set(teachers) - {"explain-answer", *(exercise.cell for exercise in here)}
    assert all(teachers[key] == students[key] for key in others)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_an_edition_is_the_notebook_and_has_the_data_that_it_needs_beside_it(made: Path, name: str) -> None:
    original = cells(ROOT / "notebooks" / f"{name}.ipynb")
    folder = made / "release" / name
    of = cells(folder / f"{name}.ipynb")
    nbformat.validate(nbformat.read(folder / f"{name}.ipynb", as_version=4))  # type: ignore[no-untyped-call]
    assert [key for key in of if not key.endswith("-test")] == list(original)
    said = "".join(cell.source for cell in of.values())
    assert "../data" not in said
    files = {file.name for file in (ROOT / "data").iterdir() if file.name in said}
    assert bool(files) == any("../data" in cell.source for cell in original.values())
    assert {file.name for file in (folder / "data").iterdir()} == files
    for cell in of.values():
        assert cell.cell_type != "code" or not cell.outputs


def test_some_are_made_and_another_name_is_told(tmp_path: Path) -> None:
    assert assignment.write(["03_pacing"], tmp_path) == 1
    assert [path.name for path in (tmp_path / "release").iterdir()] == ["03_pacing"]
    with pytest.raises(SystemExit, match="no exercise in a notebook 3_pacing: name some of 00_welcome, 01_"):
        assignment.write(["3_pacing"], tmp_path)


def test_a_cell_that_has_changed_is_noticed() -> None:
    exercise = EXERCISES[0]
    for source in ("def packets(size):\n    return 13\n\n\navlab.check.packets(packets)", "avlab.check.packets(13)"):
        with pytest.raises(ValueError, match=r"00_welcome: the cell check is not the one that answers\.toml tells of"):
            exercise.parts(source)


def test_an_answer_that_is_not_marked_is_the_same_one() -> None:
    for exercise in EXERCISES:
        definition = exercise.unwritten.rstrip("\n")
        plain, marked = (exercise.solved(definition, marked=each) for each in (False, True))
        left = [line for line in marked.splitlines() if "SOLUTION" not in line]
        assert left == plain.splitlines() == exercise.answer.rstrip("\n").splitlines()


# ---- Otter


def questions(notebook: Any) -> dict[str, dict[str, Any]]:
    """What Otter reads in a master notebook: a question's settings by its name, with the cells of each block in it.

    Blocks begin and end by raw cells, and those of a question do not nest further.
    """
    found: dict[str, dict[str, Any]] = {}
    stack: list[str] = []
    at: dict[str, Any] = {}
    for cell in notebook.cells[1:]:
        begun, ended = (re.match(rf"# {word} (\w+)$", cell.source, re.M) for word in ("BEGIN", "END"))
        if cell.cell_type == "raw" and begun:
            stack.append(begun[1])
            if begun[1] == "QUESTION":
                at = yaml.safe_load(cell.source)
                found[at["name"]] = at
        elif cell.cell_type == "raw":
            assert ended is not None, cell.source
            assert stack.pop() == ended[1]
        elif stack[1:]:
            at.setdefault(stack[1], []).append(cell)
        assert len(stack) <= 2
        assert stack[:1] in ([], ["QUESTION"])
    assert not stack
    return found


def as_otter_hands_out(source: str) -> str:
    """A solution's cell without what Otter takes away: the solution, and the marks of the prompt."""
    without = re.sub(r"^ *# BEGIN SOLUTION NO PROMPT\n.*?^ *# END SOLUTION\n", "", source, flags=re.M | re.S)
    return "\n".join(line for line in without.splitlines() if not line.endswith(("# BEGIN PROMPT", "# END PROMPT")))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_otters_master_has_each_question_with_its_solution_and_its_test(tmp_path: Path, name: str) -> None:
    assert assignment.write([name], tmp_path, "otter") == 1
    folder = tmp_path / "otter" / name
    whole = nbformat.read(folder / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(whole)
    settings = yaml.safe_load(whole.cells[0].source)
    assert whole.cells[0].source.startswith("# ASSIGNMENT CONFIG\n")
    assert settings["name"] == name
    assert all((folder / file).exists() for file in settings["files"])
    asked = questions(whole)
    here = {each.cell.replace("-", "_"): each for each in EXERCISES if each.notebook == name}
    assert set(asked) == {*here, "explain"}
    assert asked["explain"]["manual"]
    assert asked["explain"]["PROMPT"][0].source.startswith("*Your lines")
    assert asked["explain"]["SOLUTION"][0].source == assignment.explained(name)
    for key, exercise in here.items():
        [solution], [test] = asked[key]["SOLUTION"], asked[key]["TESTS"]
        assert asked[key]["points"] == exercise.points
        handed_out = as_otter_hands_out(solution.source)
        [original] = [cell for cell in cells(ROOT / "notebooks" / f"{name}.ipynb").values() if cell.id == exercise.cell]
        assert handed_out.strip() == exercise.parts(original.source)[0].strip()
        [function] = ast.parse(test.source).body  # Otter takes a function, alone
        assert isinstance(function, ast.FunctionDef)
        for source, right in ((handed_out, False), (solution.source, True)):
            scope: dict[str, Any] = dict(SETUP)
            exec(source, scope)
            exec(test.source, scope)
            # Otter hands over by name what the notebook has.
            asks = [scope[argument.arg] for argument in function.args.args]
            if right:
                scope[function.name](*asks)
            else:
                with pytest.raises(AssertionError, match=exercise.work):
                    scope[function.name](*asks)


def test_make_takes_the_format() -> None:
    said = subprocess.run(
        ["make", "--dry-run", "assignment", "FORMAT=otter", "ARGS=03_pacing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert "teaching/assignment.py --format otter 03_pacing" in said
