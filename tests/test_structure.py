"""What holds of the code as a whole: one name for one thing, and how far tests reach into private parts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_PRIVATE = 10


def private(name: str) -> bool:
    return re.fullmatch(r"_[a-z]\w*(?<!_)", name) is not None


def defined(tree: ast.AST) -> Iterator[str]:
    """Every private name that a module gives to something: functions, classes, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case (
                ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store())
                | ast.Name(id=name, ctx=ast.Store())
            ):
                yield name


def used(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where a test takes a name of something else: `x._name`, `from m import _name`, `setattr(x, "_name", ...)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.ImportFrom(names=names):
                yield from ((node.lineno, each.name) for each in names)
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr"), args=args):
                texts = [each.value for each in args[:2] if isinstance(each, ast.Constant)]
                yield from ((node.lineno, text.rpartition(".")[2]) for text in texts if isinstance(text, str))


def of_the_live_floors(source: str) -> bool:
    """Whether a test imports avlab itself, whose doors are the live floors', or something of theirs."""
    return (
        re.search(r"^\s*(import avlab$|(from|import) avlab\.(stream|lab)\b|from avlab import)", source, re.M)
        is not None
    )


def private_uses(tests: dict[str, str], modules: list[str]) -> list[str]:
    """The uses in tests of what is private in these modules; a test's own classes may know each other."""
    theirs = {name for source in modules for name in defined(ast.parse(source)) if private(name)}
    found = []
    for file, source in tests.items():
        tree = ast.parse(source)
        own = {name for name in defined(tree) if private(name)}
        found += [f"{file}:{line} {name}" for line, name in used(tree) if name in theirs - own]
    return found


def test_tests_of_the_live_floors_leave_private_names_alone() -> None:
    modules = [file.read_text() for floor in ("stream", "lab") for file in (ROOT / "avlab" / floor).rglob("*.py")]
    sources = {file.name: file.read_text() for file in (ROOT / "tests").rglob("*.py")}
    tests = {name: source for name, source in sources.items() if of_the_live_floors(source)}
    assert len(modules) > 80
    assert len(tests) > 70
    found = private_uses(tests, modules)
    assert len(found) <= MOST_PRIVATE, "\n".join(found)


def test_private_names_are_seen_however_a_test_takes_them() -> None:
    module = "class A:\n    def __init__(self): self._a = 1\n    def _b(self): pass\n_c = 1\n"
    taken = "from m import _c\nx._a\nx.y._b()\npatch.setattr(A, '_b', 1)\npatch.setattr('m._c', 1)\nA._a = 2\n"
    assert len(private_uses({"test": taken}, [module])) == 6
    assert not private_uses(
        {"test": "class B:\n    def f(self): self._a = other._a\nx._replace()\nx.__dict__\n"}, [module]
    )


def modules() -> list[Path]:
    return sorted((ROOT / "avlab").rglob("*.py"))


def test_no_two_files_have_one_name() -> None:
    named: dict[str, list[Path]] = {}
    for path in modules():
        if not path.stem.startswith("__"):
            named.setdefault(path.name, []).append(path.relative_to(ROOT))
    assert [paths for paths in named.values() if len(paths) > 1] == []


def test_no_two_classes_have_one_name() -> None:
    named: dict[str, list[Path]] = {}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                named.setdefault(node.name, []).append(path.relative_to(ROOT))
    assert {name: paths for name, paths in named.items() if len(paths) > 1} == {}
