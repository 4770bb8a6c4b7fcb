"""The one shape that everything timed has: items in, items out, and the next moment worth waking for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that leaves a stage unused, and why; `reason` is one of the ledger's words."""

    item: Any
    reason: str


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
