"""The points of a sweep: what varies, by which words it is written down, and by what another sweep is told from it.

Nothing here runs anything or opens a file.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import inspect
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from os import PathLike, fspath
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

from avlab.parts import named, shown

Plain = str | int | float | bool | None
"""What a line of JSON and a cell of a table have."""

AXES_OF_OURS = ("seed", "error")
"""Columns of the table that are no parameter's."""


class Point(NamedTuple):
    """One run: what it is called with, and what is written down of that."""

    settings: dict[str, Any]
    labels: dict[str, Plain]
    seed: int | None

    @property
    def key(self) -> str:
        """What tells it from any other point, now and in the next session: 0 and 0.0 are one number."""
        return json.dumps([[name, _told(label)] for name, label in sorted(self.labels.items())] + [_told(self.seed)])


def _told(label: Plain) -> Plain:
    return float(label) if isinstance(label, int) and not isinstance(label, bool) else label


class Axis(NamedTuple):
    """A parameter, its values, and their labels."""

    name: str
    values: list[Any]
    labels: list[Plain]


def axes(grid: Mapping[str, Any]) -> list[Axis]:
    """A grid's axes. TypeError or ValueError, in a sentence, for what cannot be one."""
    if not isinstance(grid, Mapping):
        raise TypeError(f"a sweep's grid is a dict, as {{'loss': [0, 0.01, 0.05]}}, not {shown(grid)}")
    found = []
    for name, given in grid.items():
        if not isinstance(name, str):
            raise TypeError(f"a grid's keys are names of parameters, not {shown(name)}")
        if name in AXES_OF_OURS:
            raise ValueError(
                f"{name!r} cannot be in the grid: {'give seeds=' if name == 'seed' else 'name it otherwise'}"
            )
        if isinstance(given, Mapping):
            values = list(given.values())
            labels: list[Plain] = [str(key) for key in given]
        elif isinstance(given, Iterable) and not isinstance(given, str | bytes | PathLike):
            values = list(given)
            labels = [_label(name, value) for value in values]
        else:
            raise TypeError(f"the grid's {name} is a list of values, as [{shown(given)}], not {shown(given)}")
        if not values:
            raise ValueError(f"the grid's {name} has no values")
        seen: set[str] = set()
        for label in labels:
            if (told := json.dumps(_told(label))) in seen:
                raise ValueError(
                    f"the grid's {name} has two values called {label!r}: give them names, as "
                    f"{{{name!r}: {{'first': ..., 'second': ...}}}}"
                )
            seen.add(told)
        found.append(Axis(name, values, labels))
    return found


def _label(name: str, value: Any) -> Plain:
    """What a value is called in the table: itself where it is a number, a word or nothing."""
    value = scalar(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, PathLike):
        return str(fspath(value))
    if isinstance(value, FunctionType | type) or inspect.ismethod(value) or inspect.isbuiltin(value):
        return named(value)
    text = str(value)
    if re.search(r" at 0x[0-9a-fA-F]+", text):  # another one in the next session
        raise ValueError(
            f"the grid's {name} has {shown(value)}, which has no name: give it one, as {{{name!r}: {{'mine': ...}}}}"
        )
    return text


def scalar(value: Any) -> Any:
    """A number of numpy's as one of Python's; anything else as it is."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "shape", None) == () else value


def seeds_of(seeds: Any) -> list[int | None]:
    """Seeds as whole numbers; None: one run a point, without one."""
    if seeds is None:
        return [None]
    if isinstance(seeds, str | bytes) or not isinstance(seeds, Iterable):
        raise TypeError(f"seeds is a list of whole numbers, as range(5), or None, not {shown(seeds)}")
    found: list[int | None] = []
    for seed in map(scalar, seeds):
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"a seed is a whole number, not {shown(seed)}")
        if seed in found:
            raise ValueError(f"seeds has {seed} twice")
        found.append(seed)
    if not found:
        raise ValueError("seeds has none: give range(1), or None for runs without one")
    return found


def points(axes: list[Axis], seeds: list[int | None]) -> Iterator[Point]:
    """Every point with every seed, the last axis and the seeds fastest."""
    names = [axis.name for axis in axes]
    for chosen in itertools.product(*(zip(axis.values, axis.labels, strict=True) for axis in axes)):
        settings = dict(zip(names, (value for value, _ in chosen), strict=True))
        labels = dict(zip(names, (label for _, label in chosen), strict=True))
        for seed in seeds:
            yield Point(settings, labels, seed)


def check_called(run: Callable[..., Any], names: list[str], *, seeded: bool) -> None:
    """TypeError unless `run` can be called with these parameters: one that it has not is named, with the nearest."""
    if not callable(run):
        raise TypeError(f"run is a function that makes one run and returns its trace, not {shown(run)}")
    try:
        parameters = inspect.signature(run).parameters
    except (TypeError, ValueError):  # something built in that does not say
        return
    called = {name for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    title = named(run.func if isinstance(run, functools.partial) else run)
    if not anything:
        for name in names:
            if name not in called:
                near = difflib.get_close_matches(name, sorted(called), 1, 0.5)
                ask = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(called)) or 'none'}"
                raise TypeError(f"{title} has no parameter {name!r}: {ask}")
        if seeded and "seed" not in called:
            raise TypeError(f"{title} has no parameter 'seed': give it one, or seeds=None for one run a point")
    given = {*names, "seed"} if seeded else set(names)
    for name, one in parameters.items():
        needed = one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        if needed and name not in given:
            ask = "give seeds=" if name == "seed" else "put it into the grid, or give it a default"
            raise TypeError(f"{title} needs {name!r}, which the sweep does not give: {ask}")


# ---- what was measured


def plain_row(measured: Any) -> dict[str, Plain]:
    """What a run or a measure returned as a row: a dict, a frozen summary, a Series, or one number. TypeError else."""
    if is_dataclass(measured) and not isinstance(measured, type):
        measured = asdict(measured)
    elif not isinstance(measured, Mapping) and callable(getattr(measured, "to_dict", None)):
        if getattr(measured, "ndim", 1) != 1:
            raise TypeError(f"a point's row is of single values, not {shown(type(measured).__name__)}")
        measured = measured.to_dict()
    measured = scalar(measured)
    if measured is None or isinstance(measured, bool | int | float):
        measured = {"value": measured}
    if not isinstance(measured, Mapping):
        raise TypeError(f"a point's row is a dict of numbers, or one number, not {shown(measured)}")
    return {str(name): _plain(str(name), value) for name, value in measured.items()}


def _plain(name: str, value: Any) -> Plain:
    value = scalar(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a point's row is of numbers and words, and {name} is {shown(value)}")


# ---- whether it is the same run


def fingerprint(function: Any) -> str:
    """What a function does, as far as its code and the plain values that it uses tell: another when these change.

    Where it stands in its file or notebook does not matter. Compare those of one version of Python alone.
    """
    digest = hashlib.sha256()
    _write(function, digest.update, set())
    return digest.hexdigest()[:16]


def _write(value: Any, write: Callable[[bytes], Any], seen: set[int]) -> None:
    value = scalar(value)
    if isinstance(value, str | bytes | int | float | bool | None):
        write(repr(value).encode())
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, functools.partial):
        for part in (value.func, value.args, tuple(value.keywords.items())):
            _write(part, write, seen)
    elif isinstance(value, FunctionType) and (value.__module__ or "").partition(".")[0] == "avlab":
        write(f"{value.__module__}.{value.__qualname__}".encode())  # its version is another matter
    elif isinstance(value, FunctionType):
        _write(value.__code__, write, seen)
        _write((value.__defaults__, *(value.__kwdefaults__ or {}).items()), write, seen)
        for cell in value.__closure__ or ():
            _write(_inside(cell), write, seen)
        for name in _names(value.__code__):
            if name in value.__globals__ and _ours(value.__globals__[name], value.__module__):
                write(name.encode())
                _write(value.__globals__[name], write, seen)
    elif isinstance(value, CodeType):
        write(value.co_code)
        write(repr(value.co_names).encode())
        _write(value.co_consts, write, seen)
    elif isinstance(value, tuple):
        write(str(len(value)).encode())
        for one in value:
            _write(one, write, seen)
    elif isinstance(value, MethodType):
        for one in (value.__func__, value.__self__):
            _write(one, write, seen)
    elif _frozen(value):
        write(type(value).__qualname__.encode())
        for field in fields(value):
            _write(getattr(value, field.name), write, seen)
    else:  # a list may be what runs are written into
        write(named(value).encode())


def _names(code: CodeType) -> list[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return sorted({*code.co_names, *(name for one in inner for name in _names(one))})


def _inside(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing yet
        return None


def _ours(value: Any, module: str) -> bool:
    """Whether a global is of the same notebook or file, and says what a run does."""
    if isinstance(value, FunctionType):
        return value.__module__ == module
    return isinstance(value, str | bytes | int | float | bool | tuple | None) or _frozen(value)


def _frozen(value: Any) -> bool:
    """Whether it is a value that never changes, as a network or a challenge is."""
    return bool(getattr(getattr(type(value), "__dataclass_params__", None), "frozen", False))
