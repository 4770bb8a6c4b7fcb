"""How many pictures a second a taker takes, once more come than it does. Pure.

Whoever sends as fast as it can makes pictures that nobody sees, on a machine that both ends may share: told of this, it
makes as many as are taken. The rule is additive increase and multiplicative decrease on the queue before the taker:
one that overflows is cut to what was taken, one that ran empty is let grow, and one that did neither stays.
"""

from __future__ import annotations

from typing import NamedTuple

from avlab.wire.units import NS

LOOK_NS = NS // 10
"""It is looked at so often, or when `ENOUGH` pictures have come, whichever is later; at the latest after a second."""

ENOUGH = 8
"""Pictures from which a rate can be told."""

CUT = 0.99
"""Of what was taken, after an overflow: the queue is to become shorter."""

GROWTH, MOST_GROWTH = 0.02, 1.0
"""A look's growth after an empty queue; twice as much after each look that finds it so again."""

RELEASED = 2.0
"""A limit so many times as high as what comes limits nothing, and is forgotten."""

LEAST_FPS = 1.0
"""A taker that takes nothing for a while is sent so much, to see whether it does again."""


class Taken(NamedTuple):
    """What became of the pictures for one taker, since this was last asked for."""

    offered: int
    missed: int
    """Replaced by newer ones, before they were taken."""
    held: int
    """They wait now."""
    least: int
    """So few waited before one of them, as it came; 0: the taker had to wait."""


class Demand:
    """Tells the limit of one taker, look by look; None while it takes all that comes."""

    def __init__(self) -> None:
        self.limit: float | None = None
        """Pictures a second."""
        self._looked_ns: int | None = None
        self._sum = Taken(0, 0, 0, 1 << 30)
        self._held = 0  # at the last look
        self._growth = GROWTH

    def look(self, taken: Taken, now_ns: int) -> bool:
        """Take what has happened since the last call into account; whether the limit is to be told anew."""
        before = self._sum
        self._sum = total = Taken(
            before.offered + taken.offered,
            before.missed + taken.missed,
            taken.held,
            min(before.least, taken.least),
        )
        if self._looked_ns is None:
            self._begin(total, now_ns)
            return False
        since_ns = now_ns - self._looked_ns
        if since_ns < (LOOK_NS if total.offered >= ENOUGH else NS):
            return False
        rate = NS / since_ns
        came, took = total.offered * rate, (total.offered - total.missed - total.held + self._held) * rate
        if total.missed:
            self.limit = max(LEAST_FPS, CUT * took)
            self._growth = GROWTH
        elif self.limit is not None and total.least == 0:
            self.limit *= 1 + self._growth
            self._growth = min(2 * self._growth, MOST_GROWTH)
            if self.limit > RELEASED * came > 0:
                self.limit = None
        else:
            self._growth = GROWTH
        self._begin(total, now_ns)
        return self.limit is not None

    def _begin(self, total: Taken, now_ns: int) -> None:
        self._looked_ns, self._held = now_ns, total.held
        self._sum = Taken(0, 0, total.held, 1 << 30)
