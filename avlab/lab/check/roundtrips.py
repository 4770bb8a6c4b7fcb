"""What notebook 10 asks for: how far two clocks are apart by a round trip's four moments, and how unsure that is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from avlab.lab.check.functions import Case, Exercise, Mistake
from avlab.lab.predictions import Verdict


def ahead(work: Any, *, seed: int | None = None) -> Verdict:
    """Check an `ahead(t1, t2, t3, t4)`: by how many seconds the clock that shows t2 and t3 is ahead of the other.

    A message leaves at t1 and comes at t2, its answer leaves at t3 and comes at t4; both are under way equally long.
    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _AHEAD.judge(work, seed)


def unsure(work: Any, *, seed: int | None = None) -> Verdict:
    """Check an `unsure(t1, t2, t3, t4)`: by how many seconds `ahead` can be wrong at the most, if one way is quicker.

    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _UNSURE.judge(work, seed)


def _trips(chance: random.Random) -> Iterator[Case]:
    """Round trips between two clocks: the second far ahead, hardly ahead, or behind."""
    for apart in (chance.uniform(1, 90), chance.uniform(0.001, 0.5), -chance.uniform(0.2, 40), chance.uniform(-1, 1)):
        sent, there, kept = (chance.uniform(*span) for span in ((0, 100), (0.001, 0.05), (0.1, 0.6)))
        back = there if chance.random() < 0.3 else chance.uniform(0.001, 0.05)
        times = sent, sent + there + apart, sent + there + kept + apart, sent + there + kept + back
        yield tuple(round(time, 6) for time in times)


def _there(t1: float, t2: float, t3: float, t4: float) -> float:
    """What a message seems to take one way."""
    return t2 - t1


def _back(t1: float, t2: float, t3: float, t4: float) -> float:
    """What its answer seems to take."""
    return t4 - t3


def _half(t1: float, t2: float, t3: float, t4: float) -> float:
    """Half of what both were under way."""
    return ((t4 - t1) - (t3 - t2)) / 2


def _middle(t1: float, t2: float, t3: float, t4: float) -> float:
    """How far the second clock is ahead, if both ways take equally long."""
    return ((t2 - t1) + (t3 - t4)) / 2


_HALVE = "Twice too much: that is both ways together, and asked is one half of it."
_KEPT = "The time that the answer was kept, t3 - t2, is no time under way: take it off."

_AHEAD_MISTAKES: tuple[Mistake, ...] = (
    (_there, "That has the way there in it: the way back, t4 - t3, has the same time with the other sign."),
    (lambda *t: _back(*t), "That has the way back in it: the way there, t2 - t1, has the same time in it."),
    (lambda *t: -_back(*t), "That has the way back in it: the way there, t2 - t1, has the same time in it."),
    (lambda *t: -_middle(*t), "The other way round: more than 0 is to mean that the clock of t2 and t3 is ahead."),
    (lambda *t: 2 * _middle(*t), _HALVE),
    (_half, "That is half of the round trip: it says how unsure the answer is, and not what it is."),
    (lambda *t: 2 * _half(*t), "That is the round trip: clocks do not matter to it at all."),
    (lambda t1, t2, t3, t4: t2 - t4, "What is under way back, and kept, is in that: compare the middles."),
    (lambda t1, t2, t3, t4: t3 - t1, "What is under way there, and kept, is in that: compare the middles."),
    (lambda t1, t2, t3, t4: (t2 + t3) / 2 - t1, "What is in the middle of t2 and t3 is to be compared with t1 and t4."),
)

_AHEAD = Exercise(right=_middle, cases=_trips, mistakes=_AHEAD_MISTAKES, unit="s")

_UNSURE = Exercise(
    right=_half,
    cases=_trips,
    mistakes=(
        (lambda *t: 2 * _half(*t), _HALVE),
        (lambda t1, t2, t3, t4: (t4 - t1) / 2, _KEPT),
        (lambda t1, t2, t3, t4: t4 - t1, _KEPT),
        (_middle, "That is the answer itself: asked is by how much it can be wrong."),
        (lambda *t: _half(*t) / 2, "At worst one way takes all of the time, and the other none at all."),
        (_there, "Two clocks are in that, and it can be less than 0: compare each clock with itself alone."),
        (lambda *t: abs(_there(*t)), "Two clocks are in that: compare each clock with itself alone."),
        (lambda *t: -_half(*t), "It is a size, and not less than 0."),
        (lambda t1, t2, t3, t4: t3 - t2, "That is how long the answer was kept: how long was all under way?"),
        *((lambda t1, t2, t3, t4, parts=parts: ((t4 - t1) + (t3 - t2)) / parts, _KEPT) for parts in (1, 2)),
    ),
    unit="s",
)
