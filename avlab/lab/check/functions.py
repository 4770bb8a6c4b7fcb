"""A student's function, held against a table of cases or against a function that is right, with hints."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

from avlab.lab.check.patience import Patience, WrongError, judged
from avlab.lab.check.words import name, no_function, nothing, said, short, told
from avlab.lab.predictions import Verdict, factor

Case: TypeAlias = tuple[Any, ...]
"""The arguments of one call."""

Mistake: TypeAlias = tuple[Callable[..., Any], str]
"""What is easily mistaken for the right function, and what is to be said of it."""


MOST = 2 / 3
"""A mistake that explains so many of the wrong answers is hinted at."""


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
        """What fits all answers; else all that are wrong; else most of those."""
        wrong = [answer for answer in answers if not answer.same]
        for some in (answers, wrong):
            for mistaken, words in self.mistakes:
                if all(_alike(mistaken, answer, self.within) for answer in some):
                    return words
            if words := self._usual(some):
                return words
        fits = [sum(_alike(mistaken, answer, self.within) for answer in wrong) for mistaken, _ in self.mistakes]
        most = max(fits, default=0)
        # One case alone fits many a mistake: small numbers are alike.
        return self.mistakes[fits.index(most)][1] if most > 1 and most >= MOST * len(wrong) else ""

    def _usual(self, answers: Sequence[Answer]) -> str:
        """What goes wrong with any function, as a hint; empty when it is none of that."""
        for mistaken, words in USUAL:
            try:
                if len(answers) > 1 and all(mistaken(self.right, answer, self.within) for answer in answers):
                    return words
            except Exception:  # what is given is nothing to be reckoned with
                continue
        if len(answers) > 1 and _one(answer.given for answer in answers):
            return "It says the same whatever it is given." if not _one(answer.right for answer in answers) else ""
        found = {factor(given, right, self.unit, within=self.within) for _, given, right, _ in answers}
        return f"That is {words}" if len(found) == 1 and (words := found.pop()) else ""


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
            return _failed(error, f"{call} fails with {told(error)}.")
        if not first and (words := nothing(call, given)) is not None:
            return Verdict(False, words)
        try:
            same = patience.call(_same, given, right, within)
        except Exception as error:
            if first:
                break
            text = f"{call} should give {_shown(right)}; what it gives cannot be compared with that"
            return _failed(error, f"{text}: it fails with {told(error)}.")
        if not same:
            alike = _shown(given) == _shown(right)
            show = repr if alike else _shown
            first = first or f"{call} gives {show(given)} and should give {show(right)}."
        answers.append(Answer(arguments, given, right, bool(same)))
    if first:
        return Verdict(False, f"{first} {hint(answers)}".rstrip())
    return Verdict(True, f"{who} is right in all {len(cases)} cases.")


def _failed(error: Exception, words: str) -> Verdict:
    """What is said of an error: a check's own sentence as it is."""
    return Verdict(False, said(error) if isinstance(error, WrongError) else words)


def _alike(mistaken: Callable[..., Any], answer: Answer, within: float) -> bool:
    """Whether a mistake gives just this."""
    try:
        return _same(answer.given, mistaken(*copy.deepcopy(answer.case)), within)
    except Exception:  # what is given is nothing to be compared, or the mistake divides by zero here
        return False


def _one(values: Iterable[Any]) -> bool:
    """Whether all are one number."""
    first, *rest = values
    return isinstance(first, Real) and all(isinstance(value, Real) and value == first for value in rest)


def _rounded(right: Callable[..., Any], answer: Answer, within: float) -> bool:
    """Whether it is right but for what rounding takes off, which may be nothing."""
    if not isinstance(answer.given, Real):
        return False
    whole = math.floor(answer.right), math.ceil(answer.right)
    return answer.given in whole or any(answer.given == round(float(answer.right), digits) for digits in range(1, 5))


def _swapped(right: Callable[..., Any], answer: Answer, within: float) -> bool:
    first, second = answer.case
    return _same(answer.given, right(second, first), within)


USUAL: tuple[tuple[Callable[[Callable[..., Any], Answer, float], bool], str], ...] = (
    (
        lambda _, answer, within: isinstance(answer.given, str) and _same(float(answer.given), answer.right, within),
        "That is text: a number is wanted, without quotes.",
    ),
    (
        lambda _, answer, within: _same(len(answer.given), answer.right, within),
        "Those are the things themselves: asked is how many they are, as len says it.",
    ),
    (_swapped, "The two are taken for each other: look at the order in which the function is given them."),
    (
        lambda _, answer, within: bool(answer.right) and _same(answer.given, -answer.right, within),
        "The sign is the other one.",
    ),
    (lambda _, answer, within: _same(answer.given, 1 / answer.right, within), "Upside down."),
    (_rounded, "Leave out the rounding: the number is wanted as it is."),
)
"""What may be mistaken whatever is asked for: of the right function and an answer, and what is to be said of it."""


def _same(given: Any, right: Any, within: float) -> bool:
    if isinstance(given, Decimal):
        given = float(given)
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
