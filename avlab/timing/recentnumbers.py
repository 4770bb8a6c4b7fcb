"""Which numbers were there of late: of packets as runs of consecutive ones, of frames one by one. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Sequence

WINDOW = 4096
"""How many of the latest packets, and of the latest frames, are remembered."""


class RecentNumbers:
    """The latest numbers of a kind, `WINDOW` of them at least: those that came together are forgotten together."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self._order: deque[Sequence[int]] = deque()

    def add(self, numbers: Sequence[int]) -> None:
        """Numbers that are not among them."""
        self.numbers.update(numbers)
        self._order.append(numbers)
        while len(self.numbers) - len(self._order[0]) >= WINDOW:
            self.numbers.difference_update(self._order.popleft())


class RecentRuns:
    """The highest `WINDOW` of numbers that mostly go on one after the other: a run of any length is one entry."""

    def __init__(self) -> None:
        self._firsts: list[int] = []  # ascending, and each run's last beside it; no two of them touch
        self._lasts: list[int] = []
        self._count = 0

    def __contains__(self, number: int) -> bool:
        return not self.lack(number, number)

    def lack(self, first: int, last: int) -> bool:
        """Whether no number from `first` to `last` is among them."""
        lasts = self._lasts
        if not lasts or first > lasts[-1]:  # as most are: they come in order
            return True
        at = bisect_right(self._firsts, last) - 1
        return at < 0 or lasts[at] < first

    def add(self, first: int, last: int) -> None:
        """The numbers from `first` to `last`, of which none is among them."""
        firsts, lasts = self._firsts, self._lasts
        self._count += last - first + 1
        if lasts and first == lasts[-1] + 1:
            lasts[-1] = last
        else:
            at = bisect_right(firsts, first)
            if at and lasts[at - 1] == first - 1:
                at -= 1
                first = firsts.pop(at)
                del lasts[at]
            if at < len(firsts) and firsts[at] == last + 1:
                last = lasts.pop(at)
                del firsts[at]
            firsts.insert(at, first)
            lasts.insert(at, last)
        if self._count > WINDOW:
            self._forget(self._count - WINDOW)

    def without(self, others: Collection[int]) -> list[int]:
        """All of them but `others`, ascending."""
        runs = zip(self._firsts, self._lasts, strict=True)
        return [number for first, last in runs for number in range(first, last + 1) if number not in others]

    def _forget(self, count: int) -> None:
        """The lowest `count` of them."""
        firsts, lasts = self._firsts, self._lasts
        self._count -= count
        gone = 0
        while (length := lasts[gone] - firsts[gone] + 1) <= count:
            count -= length
            gone += 1
        firsts[gone] += count
        if gone:
            del firsts[:gone], lasts[:gone]
