"""Make what is handed out and what is graded of the notebooks: a student's edition and a teacher's, each as nbgrader's.

    python teaching/assignment.py [--to build/assignment] [--format nbgrader|otter] [NOTEBOOK ...]

Both are made of notebooks/, answers.toml and explain.md. `release` is the student's: the notebook as it is, with the
cell of each exercise apart from its check, which fails until the exercise is done. `source` is the teacher's: answers
between nbgrader's marks, and every check passes. The layout is that of an nbgrader course, one assignment a notebook,
with the clips and traces that it needs beside it. For Otter there is one notebook, `otter`, of which `otter assign`
makes both. Needs nbformat alone.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
ANSWERS = ROOT / "teaching" / "answers.toml"
EXPLAINED = ROOT / "teaching" / "explain.md"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
ASKED, ANSWER = "explain", "explain-answer"
"""The cell with the questions for a student's own words, and the one for the words, which a person reads."""


@dataclass(frozen=True)
class Exercise:
    """What a cell of a notebook asks for."""

    notebook: str
    cell: str
    work: str
    points: int
    unwritten: str
    answer: str

    def parts(self, source: str) -> tuple[str, str]:
        """A cell's definition, and the expression that checks it. ValueError where the cell is not what it was."""
        definition, _, check = source.rpartition("\n\n\n")
        if (definition + "\n").count(self.unwritten) != 1 or not check.startswith("avlab.check."):
            raise ValueError(f"{self.notebook}: the cell {self.cell} is not the one that answers.toml tells of")
        return definition, check

    def solved(self, definition: str, *, marked: bool = True) -> str:
        """The definition with the answer in it, between nbgrader's marks or without them."""
        indent = self.answer[: len(self.answer) - len(self.answer.lstrip(" "))]
        answer = f"{indent}{BEGIN}\n{self.answer}{indent}{END}\n" if marked else self.answer
        return (definition + "\n").replace(self.unwritten, answer).rstrip("\n")

    def mastered(self, definition: str) -> str:
        """The definition with the answer between Otter's marks, and what is there without it as Otter's prompt."""
        indent = self.answer[: len(self.answer) - len(self.answer.lstrip(" "))]
        marked = f"{indent}# BEGIN SOLUTION NO PROMPT\n{self.answer}{indent}# END SOLUTION\n"
        prompt = f'{indent}""" # BEGIN PROMPT\n{self.unwritten}{indent}""" # END PROMPT\n'
        return (definition + "\n").replace(self.unwritten, marked + prompt).rstrip("\n")

    def test(self, check: str) -> str:
        """The cell that gives the points."""
        return f"verdict = {check}\nassert verdict, verdict\nverdict"


def answers() -> tuple[list[Exercise], int]:
    """All exercises, and the points for an explanation."""
    with ANSWERS.open("rb") as file:
        said = tomllib.load(file)
    return [Exercise(**each) for each in said["exercise"]], said["explain_points"]


def explained(name: str) -> str:
    """What explain.md has for a notebook's questions; a word where it has nothing."""
    parts = re.split(r"^## (\w+)$", EXPLAINED.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(name, "Read by a person.").strip()


def _grading(grade_id: str, *, points: int | None, solution: bool) -> dict[str, Any]:
    """nbgrader's metadata, schema 3: a cell that gives points, a cell that is a student's to write, or both."""
    said: dict[str, Any] = {
        "grade": points is not None,
        "grade_id": grade_id,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return {"nbgrader": said if points is None else said | {"points": points}}


def edition(notebook: Any, name: str, exercises: Mapping[str, Exercise], explain_points: int, *, solved: bool) -> Any:
    """A notebook with an exercise's definition and check in cells of their own, and nbgrader's metadata."""
    made = nbformat.from_dict({**notebook, "cells": []})
    for cell in notebook.cells:
        copy = nbformat.from_dict(cell)
        copy.source = copy.source.replace("../data", "data")
        made.cells.append(copy)
        if cell.id == ANSWER:
            copy.metadata.update(_grading(ANSWER, points=explain_points, solution=True))
            if solved:
                copy.source += f"\n\n{BEGIN}\n\n{explained(name)}\n\n{END}"
        exercise = exercises.get(cell.id)
        if exercise is None:
            continue
        definition, check = exercise.parts(copy.source)
        copy.source = exercise.solved(definition) if solved else definition
        copy.metadata.update(_grading(cell.id, points=None, solution=True))
        grade_id = f"{cell.id}-test"
        test = nbformat.v4.new_code_cell(exercise.test(check), id=grade_id)
        test.metadata.update(_grading(grade_id, points=exercise.points, solution=False))
        made.cells.append(test)
    return made


_OTTER = """# ASSIGNMENT CONFIG
name: {name}
files: [data]
export_cell:
  pdf: false
tests:
  ok_format: false"""


def master(notebook: Any, name: str, exercises: Mapping[str, Exercise], explain_points: int) -> Any:
    """A notebook as `otter assign` takes it: questions with their solutions and tests between raw cells."""
    made = nbformat.from_dict({**notebook, "cells": []})
    made.metadata.kernelspec.language = "python"

    def add(kind: str, source: str) -> None:
        made.cells.append(getattr(nbformat.v4, f"new_{kind}_cell")(source))

    add("raw", _OTTER.format(name=name))
    for cell in notebook.cells:
        source = cell.source.replace("../data", "data")
        exercise = exercises.get(cell.id)
        if cell.id == ASKED:  # Otter locks a question's first cell, so that it may not be the one to write in
            add("raw", f"# BEGIN QUESTION\nname: explain\nmanual: true\npoints: {explain_points}")
            add("markdown", source)
        elif cell.id == ANSWER:
            for part, words in (("PROMPT", source), ("SOLUTION", explained(name))):
                add("raw", f"# BEGIN {part}")
                add("markdown", words)
                add("raw", f"# END {part}")
            add("raw", "# END QUESTION")
        elif exercise is not None:
            definition, check = exercise.parts(source)
            add("raw", f"# BEGIN QUESTION\nname: {cell.id.replace('-', '_')}\npoints: {exercise.points}")
            add("raw", "# BEGIN SOLUTION")
            add("code", exercise.mastered(definition))
            add("raw", "# END SOLUTION")
            add("raw", "# BEGIN TESTS")
            names = (node.id for node in ast.walk(ast.parse(check)) if isinstance(node, ast.Name))
            asks = ", ".join(dict.fromkeys(name for name in names if name != "avlab"))
            test = f"def test_{exercise.work.lower()}({asks}):\n    import avlab\n\n"
            add("code", f"{test}    verdict = {check}\n    assert verdict, verdict")
            add("raw", "# END TESTS")
            add("raw", "# END QUESTION")
        else:
            add(cell.cell_type, source)
    return made


def write(names: Sequence[str], to: Path, form: str = "nbgrader") -> int:
    """Write both editions of the notebooks named, or of all that have an exercise; how many they are."""
    exercises, explain_points = answers()
    known = sorted({exercise.notebook for exercise in exercises})
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"There is no exercise in a notebook {unknown[0]}: name some of {', '.join(known)}.")
    for name in names or known:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        here = {exercise.cell: exercise for exercise in exercises if exercise.notebook == name}
        said = "".join(cell.source for cell in notebook.cells)
        needed = [file for file in (ROOT / "data").iterdir() if re.search(rf"\b{re.escape(file.name)}", said)]
        editions = (
            {"otter": master(notebook, name, here, explain_points)}
            if form == "otter"
            else {
                kind: edition(notebook, name, here, explain_points, solved=solved)
                for kind, solved in (("source", True), ("release", False))
            }
        )
        for kind, made in editions.items():
            folder = to / kind / name
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "data").mkdir(parents=True)
            nbformat.write(made, folder / f"{name}.ipynb")
            for file in needed:
                shutil.copy(file, folder / "data")
    return len(names or known)


def main() -> None:
    """Write both editions, and say where they are."""
    parser = argparse.ArgumentParser(description=textwrap.dedent((__doc__ or "").partition("\n\n")[0]))
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="as 03_pacing; all, if none is named")
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "assignment", help="the course's folder")
    parser.add_argument("--format", choices=("nbgrader", "otter"), default="nbgrader", help="what grades them")
    chosen = parser.parse_args()
    count = write(chosen.notebooks, chosen.to, chosen.format)
    if chosen.format == "otter":
        print(f"{count} notebooks in {chosen.to / 'otter'}: 'otter assign NOTEBOOK dist' makes both editions of each.")
        return
    print(f"{count} notebooks: {chosen.to / 'release'} is to be handed out, {chosen.to / 'source'} has the answers.")


if __name__ == "__main__":
    main()
