"""A way to the server that has broken off: when it is tried again, what is said of it, and when it is given up.

Waits for nothing and opens nothing: the client's thread asks it, and tells it what became of each try.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from avlab.measure.record.tables import CONNECTION_BACK, CONNECTION_LOST
from avlab.stream.rtsp.dialogue import RefusedError
from avlab.wire.units import NS

FIRST_NS = NS // 2
MOST_NS = 10 * NS
"""How long after the break the first try is, and the longest from one to the next: each wait is twice the last one."""

SCATTER = 0.25
"""By up to such a part each wait is longer, by chance: a class that lost its server does not come back all at once."""

LIVED_NS = 10 * NS
"""A way that has held so long begins with the shortest wait again when it breaks."""

REFUSED_NS = 60 * NS
"""How long a server that answers, and has no such stream, is asked again: one that starts may need a while."""

WRONG_LOGIN = (401, 407)
"""Tried once: a wrong password does not become right, and servers lock out who guesses."""


class Returning:
    """A break, from `broke` to `back`, which `failed` tries may precede.

    `note(name, value)` writes an event down, `notice(words)` tells a person. `chance` gives a number from 0 to 1.
    """

    def __init__(
        self,
        *,
        note: Callable[[str, str | float], None],
        notice: Callable[[str], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._note, self._notice, self._chance = note, notice, chance
        self._lost_ns: int | None = None
        self._back_ns: int | None = None
        self._refused_ns: int | None = None  # since when the server has answered, and refused
        self._wait_ns = FIRST_NS
        self._said = ""
        self.at_ns: int | None = None
        """When to try again; None while there is no break."""

    @property
    def broken(self) -> bool:
        """Whether there is a break now."""
        return self._lost_ns is not None

    def broke(self, why: str, now_ns: int) -> None:
        """The way has broken off; `why` is a sentence."""
        if self._back_ns is None or now_ns - self._back_ns >= LIVED_NS:
            self._wait_ns = FIRST_NS
        why = _happened(why)
        self._lost_ns, self._refused_ns, self._said = now_ns, None, why
        self._wait(now_ns)
        self._note(CONNECTION_LOST, why)
        self._notice(f"the stream broke off at {time.strftime('%X')} and is asked for again until it is back: {why}")

    def failed(self, error: OSError | ValueError, now_ns: int) -> None:
        """A try has failed. ConnectionError, with a sentence, when that was the last."""
        status = error.status if isinstance(error, RefusedError) else None
        answered = status is not None or isinstance(error, ValueError)
        if answered and self._refused_ns is None:
            self._refused_ns = now_ns
        elif not answered:
            self._refused_ns = None
        patient = self._refused_ns is None or now_ns - self._refused_ns < REFUSED_NS
        if status in WRONG_LOGIN or not patient:
            raise ConnectionError(f"the stream broke off and does not come back: {error}") from error
        words = str(error) if answered else _happened(str(error))
        if words != self._said:
            self._said = words
            how_long = f" for {REFUSED_NS // NS} s" if answered else ""
            self._notice(f"the stream is not back at {time.strftime('%X')}, and is asked for again{how_long}: {words}")
        self._wait(now_ns)

    def back(self, now_ns: int) -> None:
        """The server sends again."""
        seconds = 0.0 if self._lost_ns is None else (now_ns - self._lost_ns) / NS
        self._lost_ns = self.at_ns = None
        self._back_ns = now_ns
        self._note(CONNECTION_BACK, round(seconds, 3))
        self._notice(f"the stream is back at {time.strftime('%X')}, after {seconds:.1f} s")

    def _wait(self, now_ns: int) -> None:
        self.at_ns = now_ns + round(self._wait_ns * (1 + SCATTER * self._chance()))
        self._wait_ns = min(MOST_NS, 2 * self._wait_ns)


def _happened(sentence: str) -> str:
    """What a sentence says has happened, without what to do about it, as that is being done."""
    return sentence.rpartition(": ")[0] or sentence
