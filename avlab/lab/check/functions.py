"""A student's function, held against a table of cases or against a function that is right, with hints."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

from avlab.lab.check.patience import Patience, WrongError, judged
from avlab.lab.check.words import name, no_function, nothing, short, told
from avlab.lab.predictions import Verdict, factor

Case: TypeAlias = tuple[Any, ...]
"""The arguments of one call."""

Mistake: TypeAlias = tuple[Callable[..., Any], str]
"""What is easily mistaken for the right function, and what is to be said of it."""


class Answer(NamedTuple):
    """What a function gave, and what it should have given."""

    case: Case
    given: Any
    right: Any
    same: bool


@dataclass(frozen=True)
class Exercise:
    """A function that a notebook asks for."""

    right: Callable[..., Any]
    cases: Callable[[random.Random], Iterable[Case]]
    """Cases for a seed: a table of those that were shown does not pass."""
    mistakes: Sequence[Mistake] = ()
    within: float = 1e-6
    unit: str = ""
    """What it returns is in, as a prediction's unit is written."""

    def judge(self, work: Any, seed: int | None) -> Verdict:
        """The verdict on a student's function; without a seed the cases are drawn anew."""
        if seed is None:
            seed = random.SystemRandom().getrandbits(64)
        cases = list(self.cases(random.Random(seed)))
        right = [(case, self.right(*copy.deepcopy(case))) for case in cases]
        return judged(work, lambda patience: _held(work, right, self.within, patience, self._hint))

    def _hint(self, answers: Sequence[Answer]) -> str:
        """What fits all answers; else all that are wrong; else the first of these."""
        wrong = [answer for answer in answers if not answer.same]
        for some in (answers, wrong, wrong[:1]):
            for mistaken, words in self.mistakes:
                if all(_alike(mistaken, case, given, self.within) for case, given, *_ in some):
                    return words
            found = {factor(given, right, self.unit, within=self.within) for _, given, right, _ in some}
            if len(found) == 1 and (words := found.pop()):
                return f"That is {words}"
        return ""


def function(work: Any, cases: Mapping[Any, Any], *, within: float = 1e-6) -> Verdict:
    """Hold a student's function against cases; the verdict names the first that is wrong.

    A case is `argument: result`, or `(argument, argument, ...): result`. Numbers may differ by the part `within`.

    Args:
        work: The student's function.
        cases: Results by argument, or by a tuple of arguments.
        within: The part by which numbers may differ.
    """
    # A mistake in these is the teacher's, and raises.
    right = [(key if isinstance(key, tuple) else (key,), result) for key, result in dict(cases).items()]
    return judged(work, lambda patience: _held(work, right, within, patience))


def _held(
    work: Any,
    cases: Sequence[tuple[Case, Any]],
    within: float,
    patience: Patience,
    hint: Callable[[Sequence[Answer]], str] = lambda _answers: "",
) -> Verdict:
    if not callable(work):
        return Verdict(False, no_function(work))
    who = name(work)
    answers: list[Answer] = []
    first = ""
    for arguments, right in cases:
        call = f"{who}({', '.join(map(short, arguments))})"
        try:
            given = patience.call(work, *copy.deepcopy(arguments))  # it may sort or change what it is given
        except Exception as error:
            if first:
                break
            return _stopped(error) or Verdict(False, f"{call} fails with {told(error)}.")
        if not first and (words := nothing(call, given)) is not None:
            return Verdict(False, words)
        try:
            same = patience.call(_same, given, right, within)
        except Exception as error:
            if first:
                break
            text = f"{call} should give {_shown(right)}; what it gives cannot be compared with that"
            return _stopped(error) or Verdict(False, f"{text}: it fails with {told(error)}.")
        if not same:
            first = first or f"{call} gives {_shown(given)} and should give {_shown(right)}."
        answers.append(Answer(arguments, given, right, bool(same)))
    if first:
        return Verdict(False, f"{first} {hint(answers)}".rstrip())
    return Verdict(True, f"{who} is right in all {len(cases)} cases.")


def _stopped(error: Exception) -> Verdict | None:
    return Verdict(False, str(error)) if isinstance(error, WrongError) else None


def _alike(mistaken: Callable[..., Any], case: Case, given: Any, within: float) -> bool:
    """Whether a mistake gives just this."""
    try:
        return _same(given, mistaken(*copy.deepcopy(case)), within)
    except Exception:  # what is given is nothing to be compared, or the mistake divides by zero here
        return False


def _same(given: Any, right: Any, within: float) -> bool:
    if isinstance(given, Real) and isinstance(right, Real):
        return math.isclose(given, right, rel_tol=within, abs_tol=within)
    same = given == right
    try:
        return bool(same)
    except ValueError:  # arrays compare one by one
        return bool(same.all())


def _shown(value: Any) -> str:
    """A number with six figures at most; anything else as it is."""
    if isinstance(value, float) and math.isfinite(value) and len(repr(float(value))) > 12:
        return f"{value:.6g}"
    return short(value)
