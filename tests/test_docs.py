"""Docstrings, of which the reference is made, have a line for each parameter; pages say what the code does.

test_notebooks.py builds the site.
"""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import avlab
from avlab import parts
from avlab.arguments import parser
from avlab.media.sources import CHUNK_NS

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "teaching").glob("*.md")))

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
    for name, found in vars(parts).items():
        if not name.startswith("_") and getattr(found, "__module__", "") == parts.__name__ and callable(found):
            if not getattr(found, "_is_protocol", False):  # nobody makes one of those
                yield f"parts.{name}", found
            for method, function in vars(found).items() if inspect.isclass(found) else ():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"parts.{name}.{method}", function


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


def unnamed_errors(function: Callable[..., Any]) -> set[str]:
    """The errors that a function itself raises and its docstring does not name; of a class, its `__init__`."""
    made = vars(function).get("__init__") if inspect.isclass(function) else function
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(made)))  # type: ignore[arg-type]
    except (OSError, TypeError):  # of a dataclass, which has no text
        return set()
    raised = [each.exc for each in ast.walk(body) if isinstance(each, ast.Raise)]
    kinds = {each.func.id for each in raised if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)}
    return {kind for kind in kinds if kind not in (inspect.getdoc(function) or "")}


def test_every_error_that_something_public_raises_is_named() -> None:
    said = {name: found for name, function in public_callables() if (found := unnamed_errors(function))}
    assert not said


def test_an_error_that_is_not_named_is_seen() -> None:
    def one() -> None:
        """ValueError, and nothing else."""
        raise ValueError("named")
        raise TypeError("not named")

    assert unnamed_errors(one) == {"TypeError"}


def test_a_parameter_without_its_line_is_seen() -> None:
    def one(first: int, second: int) -> None:
        """A function.

        Args:
            first: A number,
                second: which goes on.
        """

    assert undescribed(one) == ["second"]
    assert undescribed(lambda other: None) == ["other"]


# ---- what pages say


def command_lines(page: str) -> list[str]:
    """The lines of a page's blocks that begin with avlab, continued lines joined."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    return re.findall(r"^ *avlab (\w.*)$", "\n".join(blocks).replace("\\\n", " "), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one_that_avlab_takes(page: Path) -> None:
    for line in command_lines(page.read_text(encoding="utf-8")):
        parser().parse_args(shlex.split(line, comments=True))  # leaves by SystemExit, with a sentence, where it is not


def test_commands_are_found_in_pages_and_wrong_ones_seen() -> None:
    assert sum(len(command_lines(page.read_text(encoding="utf-8"))) for page in PAGES) > 40
    line = command_lines("- as in\n\n  ```sh\n  avlab play URL \\\n      --windows  # opens\n  ```\n")[0]
    with pytest.raises(SystemExit):
        parser().parse_args(shlex.split(line, comments=True))


def test_the_limits_that_trust_names_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| ([\d,]+) \| ([a-z]\w*(?:\.\w+)*)\.([A-Z]\w+) \|$", text, re.MULTILINE)
    said = {f"{module}.{name}": int(number.replace(",", "")) for number, module, name in rows}
    real = {f"{module}.{name}": getattr(import_module(f"avlab.{module}"), name) for _, module, name in rows}
    assert len(said) > 50
    assert said == {name: value // 10**9 if name.endswith("_NS") else value for name, value in real.items()}


def test_how_long_a_chunk_of_sound_lasts_is_the_same_everywhere() -> None:
    chunk = f"{CHUNK_NS // 10**6} ms"
    assert f"in chunks of {chunk}" in (inspect.getdoc(avlab.simulate) or "")
    assert f"in chunks of {chunk}" in (ROOT / "docs" / "network.md").read_text(encoding="utf-8")
    assert f"sound leaves every {chunk}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
