"""Numbers that were there of late, held to a plain set of them."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from avlab.timing.recentnumbers import WINDOW, RecentRuns


@given(st.integers(0, 1 << 32), st.integers(1, 60), st.integers(0, 300))
def test_runs_know_what_a_set_of_their_numbers_knows(seed: int, longest: int, spread: int) -> None:
    """In order, out of order, with gaps that fill up later, in runs of any length."""
    chance = random.Random(seed)
    runs, numbers, next_one = RecentRuns(), set[int](), chance.randrange(-5, 70_000)
    for _ in range(120):
        first = max(-9, next_one + chance.randrange(-spread, spread // 3 + 1))
        last = first + chance.randrange(longest)
        there = numbers.isdisjoint(range(first, last + 1))
        assert runs.lack(first, last) == there
        if there:
            runs.add(first, last)
            numbers.update(range(first, last + 1))
            next_one = max(next_one, last + 1)
        probe = first + chance.randrange(-40, 40)
        assert (probe in runs) == (probe in numbers)
    if len(numbers) <= WINDOW:
        assert runs.without(set()) == sorted(numbers)
        some = set(chance.sample(sorted(numbers), len(numbers) // 2))
        assert runs.without(some) == sorted(numbers - some)


@given(st.integers(0, 1 << 32), st.sampled_from([1, 7, 64, 1_500, 9_000]))
def test_the_highest_are_kept_and_no_more(seed: int, longest: int) -> None:
    chance = random.Random(seed)
    runs, numbers, first = RecentRuns(), list[int](), 0
    while len(numbers) < 3 * WINDOW:
        first += chance.choice([0, 0, 1, 5])
        last = first + chance.randrange(longest)
        runs.add(first, last)
        numbers += range(first, last + 1)
        first = last + 1
    assert runs.without(set()) == numbers[-WINDOW:]
    late = numbers[0] - 3  # lower than all that is kept: it is not
    runs.add(late, late)
    assert late not in runs
    assert runs.without(set()) == numbers[-WINDOW:]
