"""The one shape that everything timed has: items in, items out, and the next moment worth waking for. Pure."""

from __future__ import annotations

from typing import Any, Protocol

from avlab.parts import Dropped

__all__ = ["Dropped", "Stage"]


class Stage(Protocol):
    """A pacer, an impairment, a jitter buffer, a playout. Times are integer nanoseconds on one monotonic clock.

    A stage has no lock, no log and no knowledge of the trace; one thread owns it.
    """

    def push(self, item: Any, now_ns: int, /) -> None:
        """Something arrives."""

    def wake_at(self) -> int | None:
        """The next moment at which `pull` has something to give; None when idle."""

    def pull(self, now_ns: int, /) -> list[Any]:
        """What is due by now, in order; what was dropped comes as `Dropped(item, reason)`."""
