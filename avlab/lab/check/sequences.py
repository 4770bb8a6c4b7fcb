"""What notebook 12 asks for: what never came, by the sequence numbers of what did. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from avlab.lab.check.functions import Case, Exercise
from avlab.lab.predictions import Verdict

NUMBERS = 1 << 16
"""Of RTP: after the last of them comes 0 (RFC 3550 5.1)."""


def missing(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `missing(numbers)`: how many packets never came, by the 16-bit sequence numbers of those that did, in the
    order in which they came: some late, some twice.

    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _MISSING.judge(work, seed)


def _arrivals(chance: random.Random) -> Iterator[Case]:
    def came(first: int, *, lost: int = 0, late: int = 0, twice: int = 0, ends_late: bool = False) -> Case:
        count = chance.randrange(30, 50)
        gone = chance.sample(range(3, count - 3), lost)
        numbers = [(first + at) % NUMBERS for at in range(count) if at not in gone]
        for at in chance.sample(range(1, len(numbers) - 2, 2), late):
            numbers[at], numbers[at + 1] = numbers[at + 1], numbers[at]
        for at in chance.sample(range(1, len(numbers) - 1), twice):
            numbers.insert(at, numbers[at])
        if ends_late:  # the first packet, and the last but one
            numbers[:2], numbers[-2:] = numbers[1::-1], numbers[:-3:-1]
        return (numbers,)

    def inside() -> int:
        return chance.randrange(100, 60_000)

    def over() -> int:
        return NUMBERS - chance.randrange(10, 20)

    yield came(inside())
    yield came(inside(), lost=chance.randrange(2, 6))
    yield came(over(), lost=chance.randrange(2, 6))
    yield came(inside(), lost=2, late=chance.randrange(2, 5))
    yield came(inside(), lost=1, twice=chance.randrange(1, 4))
    yield came(over(), lost=3, late=2, twice=2)
    yield came(inside(), lost=2, ends_late=True)
    yield came(over(), lost=chance.randrange(2, 5), ends_late=True)


def _unwrapped(numbers: Sequence[int]) -> list[int]:
    found = [numbers[0]]
    for number in numbers[1:]:
        found.append(found[-1] + (number - found[-1] + NUMBERS // 2) % NUMBERS - NUMBERS // 2)
    return found


def _off_by_one(numbers: Sequence[int]) -> list[int]:
    around = max(numbers) - min(numbers) > NUMBERS // 2
    return [number + NUMBERS - 1 if around and number < NUMBERS // 2 else number for number in numbers]


_HALF_WAY = "What comes late is no longer missing: not every step back and forth is a loss."
_TWICE = "A packet that comes twice does not stand for another: count each number once."
_WRAPS = "After 65,535 comes 0: a number far below the one before it is 65,536 further on."

_ENDS = (
    "The first that comes need not be the earliest, nor the last one the latest: what comes late comes after others."
)

_MISSING = Exercise(
    right=lambda numbers: max(whole := _unwrapped(numbers)) - min(whole) + 1 - len(set(whole)),
    cases=_arrivals,
    mistakes=(
        (lambda numbers: max(numbers) - min(numbers) + 1 - len(set(numbers)), _WRAPS),
        (lambda numbers: numbers[-1] - numbers[0] + 1 - len(set(numbers)), _WRAPS),
        *(
            (lambda numbers, span=span: span(numbers) + 1 - len(numbers), f"{_WRAPS} And count each number once.")
            for span in (lambda numbers: max(numbers) - min(numbers), lambda numbers: numbers[-1] - numbers[0])
        ),
        (lambda numbers: max(whole := _unwrapped(numbers)) - min(whole) + 1 - len(whole), _TWICE),
        (lambda numbers: (numbers[-1] - numbers[0]) % NUMBERS + 1 - len(numbers), _TWICE),
        (lambda numbers: (numbers[-1] - numbers[0]) % NUMBERS + 1 - len(set(numbers)), _ENDS),
        (
            lambda numbers: max(whole := _off_by_one(numbers)) - min(whole) + 1 - len(set(whole)),
            "After 65,535 comes 0, so there are 65,536 numbers: a number beyond the last is that much further on.",
        ),
        (lambda numbers: sum(b - a - 1 for a, b in pairwise(sorted(set(numbers)))), _WRAPS),
        (lambda numbers: sum(b - a - 1 for a, b in pairwise(numbers)), _WRAPS),
        (lambda numbers: sum(b - a > 1 for a, b in pairwise(sorted(numbers))), "A gap may be of several packets."),
        (lambda numbers: sum(b - a - 1 for a, b in pairwise(_unwrapped(numbers)) if b > a + 1), _HALF_WAY),
        (lambda numbers: sum((b - a) % NUMBERS - 1 for a, b in pairwise(numbers) if b != a), _HALF_WAY),
        (lambda numbers: sum(b != a + 1 for a, b in pairwise(_unwrapped(numbers))), "A gap may be of several packets."),
        (
            lambda numbers: max(whole := _unwrapped(numbers)) - min(whole) - len(set(whole)),
            "From 3 to 5 are three numbers, and not two: one more than their difference.",
        ),
        (lambda numbers: len(set(numbers)), "That is how many came: how many did not?"),
    ),
    unit="packets",
)
