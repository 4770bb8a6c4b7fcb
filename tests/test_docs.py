"""The documentation site builds without a warning and has every page; `make docs` runs its notebooks, too."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import avlab

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the site is, built without running a cell."""
    to = tmp_path_factory.mktemp("site")
    options = [
        "-W",
        "--keep-going",
        "-q",
        "-c",
        "docs",
        "-b",
        "html",
        "-D",
        "nb_execution_mode=off",
        "-d",
        str(to / "read"),
    ]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ".", str(to / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    said = [
        line for line in built.stderr.splitlines() if "No source code lexer found" not in line and "WARNING" in line
    ]
    assert not said, built.stderr
    return to / "html"


def test_every_page_and_notebook_is_in_it(site: Path) -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert len(pages) > 20
    for page in pages:
        assert (site / page.relative_to(ROOT)).with_suffix(".html").stat().st_size > 3_000, page


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    said = "".join(page.read_text() for page in (site / "docs" / "api").glob("*.html"))
    modules = {"check", "metrics", "plots", "testing"}
    for name in avlab.__all__:
        assert f'id="avlab.{name}"' in said or f'id="avlab.parts.{name}"' in said or name in modules, name


def test_no_page_asks_another_machine_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for attribute in ('src="http', 'rel="stylesheet" href="http', "@import"):
            assert attribute not in text, (page, attribute)


# ---- a line for each parameter


STAGE = {"push", "pull", "restart", "wake_at"}
"""What `avlab.parts.Pacer` says for all pacers."""


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """What `avlab` and its four public modules have: functions, classes, and the classes' public methods."""
    for name in avlab.__all__:
        value = getattr(avlab, name)
        inside = {f"{name}.{each}": getattr(value, each) for each in getattr(value, "__all__", ())}
        for said, found in (inside if isinstance(value, ModuleType) else {name: value}).items():
            if not callable(found) or not str(found.__module__).startswith("avlab"):
                continue
            if inspect.isclass(found) and "." in said:
                continue  # what a function returns: nobody makes one
            yield said, found
            if inspect.isclass(found):
                for method, function in inspect.getmembers(found, inspect.isroutine):
                    ours = str(getattr(function, "__module__", "")).startswith("avlab")
                    if ours and not method.startswith("_") and method not in STAGE:
                        yield f"{said}.{method}", function


def described_fields(kind: type) -> set[str]:
    """The fields that a class's own text has a docstring for."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = set()
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            found.add(field.target.id)
    return found


def undescribed(function: Callable[..., Any]) -> list[str]:
    """The parameters that the docstring, or a docstring of a field, has no line for."""
    if inspect.isclass(function) and not (inspect.isfunction(function.__init__) or hasattr(function, "_fields")):
        return []  # made as its base is
    words = inspect.getdoc(function) or ""
    block = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n(?=[ ]{4}))*)", words, re.MULTILINE)
    lines = set(re.findall(r"^[ ]{4}(\w+): \S", block[1], re.MULTILINE)) if block else set()
    if inspect.isclass(function):
        lines |= described_fields(function)
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls", *lines}]


def test_every_parameter_of_what_is_public_has_its_line() -> None:
    said = {name: found for name, function in public_callables() if (found := undescribed(function))}
    assert len(dict(public_callables())) > 120
    assert not said


def test_a_parameter_without_its_line_is_seen() -> None:
    def one(first: int, second: int) -> None:
        """A function.

        Args:
            first: A number,
                second: which goes on.
        """

    assert undescribed(one) == ["second"]
    assert undescribed(lambda other: None) == ["other"]
