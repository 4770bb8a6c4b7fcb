"""The packets of a frame over part of the frame interval, instead of in one burst that overruns a queue. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

STEP_NS = 1_000_000
"""The least time between two batches: packets that leave in one cost a system call, and the path a queue, together."""

MOST_SHARE = 0.95
"""Of the interval: beyond it a late wake-up would run one frame into the next."""


def check_spread(share: object) -> float:
    """The share as a number. ValueError outside 0 to 0.95."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= MOST_SHARE:
        raise ValueError(
            f"spread must be 0 (a frame's packets at once) to {MOST_SHARE} of a frame's time, not {share!r}"
        )
    return float(share)


class Burst(NamedTuple):
    """The packets of one frame, in order, and how long it is until the next frame's."""

    packets: Sequence[Any]
    interval_ns: int


class Spreader:
    """A Stage: takes a `Burst`, gives packets, the first at once and the last when `share` of the interval is over.

    They leave in batches of equal size, a millisecond or more apart, and in order: what is left of one frame goes
    before the next one's first packet. With a share of 0 a frame leaves in one batch. The share acts on the next frame.
    """

    def __init__(self, share: float = 0.0) -> None:
        self.share = share
        self._batches: deque[tuple[int, Sequence[Any]]] = deque()

    @property
    def share(self) -> float:
        """Of a frame's interval over which its packets are spread. ValueError outside 0 to 0.95."""
        return self._share

    @share.setter
    def share(self, value: float) -> None:
        self._share = check_spread(value)

    def __len__(self) -> int:
        return sum(len(packets) for _, packets in self._batches)

    def push(self, item: Burst, now_ns: int, /) -> None:
        """Take a frame's packets; the first batch is due now."""
        packets, interval_ns = item
        window_ns = int(self._share * interval_ns)
        number = max(1, min(len(packets), window_ns // STEP_NS + 1))
        for at in range(number):
            first, after = len(packets) * at // number, len(packets) * (at + 1) // number
            due_ns = now_ns + (window_ns * at // (number - 1) if at else 0)
            if after > first:
                self._batches.append((due_ns, packets[first:after]))

    def wake_at(self) -> int | None:
        """When the next batch is due."""
        return self._batches[0][0] if self._batches else None

    def pull(self, now_ns: int, /) -> list[Any]:
        """The packets due by now, and any that are before them."""
        out: list[Any] = []
        while self._batches and self._batches[0][0] <= now_ns:
            out += self._batches.popleft()[1]
        return out

    def flush(self) -> list[Any]:
        """All that waits, at the end of a stream."""
        out = [packet for _, packets in self._batches for packet in packets]
        self._batches.clear()
        return out
