"""Checks give a verdict for whatever a student wrote: objects that fail when they are called, compared or printed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import avlab
from avlab import check
from avlab.lab.predictions import Verdict


class Own(BaseException):
    """No Exception, and no word of the language."""


class MuteError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


FAILURES: list[type[BaseException]] = [
    ZeroDivisionError,
    SystemExit,
    GeneratorExit,
    asyncio.CancelledError,
    StopIteration,
    RecursionError,
    MemoryError,
    Own,
    MuteError,
]


def failing(failure: type[BaseException]) -> Callable[..., Any]:
    def fails(*_: Any) -> Any:
        raise failure

    return fails


def bad(name: str, failure: type[BaseException]) -> Any:
    """An object of which one of Python's own methods fails."""
    return type("Bad", (), {name: failing(failure)})()


METHODS = [
    "__eq__",
    "__ne__",
    "__repr__",
    "__bool__",
    "__len__",
    "__getattribute__",
    "__class__",
    "__iter__",
    "__float__",
]
CHECKS: dict[str, Callable[[Any], Verdict]] = {
    "function": lambda work: check.function(work, {1: 2}),
    "rule": lambda work: check.rule(work, seconds=2),
    "controller": lambda work: check.controller(work, seconds=5),
    "receiver": check.receiver,
}


def wrong(verdict: Verdict) -> str:
    """What a check says of work that is not right."""
    assert verdict.passed is False
    assert verdict.text
    assert repr(verdict)
    return verdict.text


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("which", CHECKS)
def test_work_that_fails_gets_a_verdict(which: str, failure: type[BaseException]) -> None:
    assert failure.__name__ in wrong(CHECKS[which](failing(failure))) or which == "controller" or failure is MuteError


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("which", ["function", "receiver"])
def test_results_that_fail_at_everything_get_a_verdict(which: str, method: str, failure: type[BaseException]) -> None:
    result = bad(method, failure) if method != "__class__" else type("Bad", (), {method: property(failing(failure))})()
    wrong(CHECKS[which](lambda *_: result))


@pytest.mark.parametrize("failure", [ZeroDivisionError, SystemExit, Own])
@pytest.mark.parametrize("method", ["__repr__", "__getattribute__", "__getattr__", "__call__", "__name__"])
@pytest.mark.parametrize("which", CHECKS)
def test_work_that_fails_when_it_is_looked_at_gets_a_verdict(
    which: str, method: str, failure: type[BaseException]
) -> None:
    work = bad(method, failure) if method != "__name__" else type("Bad", (), {method: property(failing(failure))})()
    wrong(CHECKS[which](work))


@pytest.mark.parametrize("failure", FAILURES)
def test_a_rule_whose_reset_or_making_fails_is_named_with_it(failure: type[BaseException]) -> None:
    class Resets:
        def __call__(self, delay: float, measured_fps: float, target_fps: float) -> float:
            return delay

        def reset(self) -> None:
            raise failure

    class Makes:
        def __init__(self) -> None:
            raise failure

        def __call__(self, delay: float, measured_fps: float, target_fps: float) -> float:
            return delay

    for work in (Resets(), Resets, Makes):
        assert failure.__name__ in wrong(check.rule(work, seconds=2))


@pytest.mark.parametrize("failure", FAILURES)
def test_a_controller_that_fails_anywhere_gets_a_verdict(failure: type[BaseException]) -> None:
    class Updates:
        def update(self, report: Any) -> Any:
            raise failure

    class Makes:
        def __init__(self) -> None:
            raise failure

    class Looked:
        @property
        def update(self) -> Any:
            raise failure

    class Returns:
        def update(self, report: Any) -> Any:
            return bad("__iter__", failure)

    class Quality:
        def update(self, report: Any) -> Any:
            return bad("__lt__", failure), bad("__repr__", failure)

    for work in (Updates, Updates(), Makes, Looked, Returns, Quality):
        wrong(check.controller(work, seconds=5))


def test_arrays_and_what_is_like_them_are_compared_as_before() -> None:
    assert check.function(lambda n: np.arange(n), {3: np.arange(3)}).passed
    assert "should give" in wrong(check.function(lambda n: np.arange(n), {3: np.arange(1, 4)}))
    wrong(check.function(lambda n: [np.arange(n), 1], {3: [np.arange(3), 2]}))
    assert check.function(lambda n: float("nan"), {3: 1.0}).passed is False


def test_ctrl_c_is_the_persons_and_gets_through() -> None:
    for which in CHECKS.values():
        work = failing(KeyboardInterrupt) if which is not CHECKS["controller"] else bad("update", KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            which(work)


def test_a_mistake_in_the_cases_is_the_teachers_and_raises() -> None:
    with pytest.raises(TypeError):
        check.function(lambda x: x, 3)  # type: ignore[arg-type]


def test_the_checks_are_avlabs_own() -> None:
    assert avlab.check is check
