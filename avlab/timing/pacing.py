"""When each frame is sent: absolute deadlines, or as fast as frames come. Pure: decides when, never waits.

A pacer is a Stage whose items have `pts_ns`; what it gives back are `Due(item, due_ns)`, so that the send error can be
measured against the moment that was meant.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol


class Timed(Protocol):
    """Anything with a presentation time."""

    @property
    def pts_ns(self) -> int:
        """Presentation time in nanoseconds from the start of the clip."""


@dataclass(frozen=True, slots=True)
class Due:
    """An item and the moment at which it was meant to leave."""

    item: Any
    due_ns: int


class Pacer(Protocol):
    """A Stage that can be told when presentation time 0 is. Anyone's own pacer has these four methods."""

    def restart(self, start_ns: int, /) -> None:
        """Forget what waits; presentation time 0 falls on `start_ns`."""

    def push(self, item: Any, now_ns: int, /) -> None:
        """Take a frame."""

    def wake_at(self) -> int | None:
        """When the next frame is due; None when none waits."""

    def pull(self, now_ns: int, /) -> list[Due]:
        """The frames due by now."""


class DeadlinePacer:
    """Each frame at start + pts on an absolute clock: an error in one frame's moment never reaches the next.

    A frame that comes late leaves at once. Without `restart`, the first frame pushed sets the start.
    """

    name = "deadline"

    def __init__(self) -> None:
        self._start_ns: int | None = None
        self._waiting: deque[Any] = deque()

    def restart(self, start_ns: int, /) -> None:
        """Forget what waits; presentation time 0 falls on `start_ns`."""
        self._start_ns = start_ns
        self._waiting.clear()

    def push(self, item: Timed, now_ns: int, /) -> None:
        """Take a frame; frames come in the order of their pts."""
        if self._start_ns is None:
            self._start_ns = now_ns - item.pts_ns
        self._waiting.append(item)

    def wake_at(self) -> int | None:
        """Start + pts of the frame at the head."""
        if not self._waiting or self._start_ns is None:
            return None
        return int(self._start_ns + self._waiting[0].pts_ns)

    def pull(self, now_ns: int, /) -> list[Due]:
        """Every frame whose deadline has come."""
        out = []
        while (due_ns := self.wake_at()) is not None and due_ns <= now_ns:
            out.append(Due(self._waiting.popleft(), due_ns))
        return out


class NoPacing:
    """Every frame at once: what reading a file flat out does to a stream. Due is the moment a frame came."""

    name = "none"

    def __init__(self) -> None:
        self._waiting: deque[Due] = deque()

    def restart(self, start_ns: int, /) -> None:
        """Forget what waits; frames are not held to any start."""
        self._waiting.clear()

    def push(self, item: Any, now_ns: int, /) -> None:
        """Take a frame; it is due now."""
        self._waiting.append(Due(item, now_ns))

    def wake_at(self) -> int | None:
        """The moment the oldest waiting frame came."""
        return self._waiting[0].due_ns if self._waiting else None

    def pull(self, now_ns: int, /) -> list[Due]:
        """All that waits."""
        out = list(self._waiting)
        self._waiting.clear()
        return out


PACERS = {pacer.name: pacer for pacer in (DeadlinePacer, NoPacing)}
"""The pacers that the command line and the panel offer, by name."""


def pacer_named(choice: str | Pacer) -> Pacer:
    """A pacer from its name, or the pacer handed in; ValueError for a name that is none."""
    if not isinstance(choice, str):
        return choice
    if choice not in PACERS:
        raise ValueError(f"pacer must be one of {', '.join(sorted(PACERS))}, not {choice!r}")
    pacer: Pacer = PACERS[choice]()
    return pacer
