"""Whole pictures in the order in which they are decoded, where each is predicted from others. Pure.

That order is the order of their packets' numbers, which is not always that of their times. A picture whose packets
are missing is waited for as long as those after it have time; then it is passed over, and the next one is told so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from avlab.timing.jitterbuffer import Frame
from avlab.timing.stage import Dropped
from avlab.wire.units import NS

LEAD_NS = NS // 4
"""So long before it is due a picture is decoded: decoded ones are large, and few of them are kept."""

LAST_NS = NS // 25
"""So long before it is due a picture is decoded at the latest, whatever is missing before it."""

MOST_WAITING = 256
"""Pictures that wait; of more, the first are decoded."""


class DecodeOrder:
    """`put` what is whole, `release` what is to be decoded now."""

    def __init__(self) -> None:
        self.waiting: list[Frame] = []
        """What waits, by their packets' numbers; for reading."""
        self._last: int | None = None  # the number of the last packet that was released
        self._broken = False

    def __len__(self) -> int:
        return len(self.waiting)

    def put(self, frame: Frame) -> None:
        """A whole picture; one whose numbers are not known is in its place."""
        if frame.numbers is None:
            after = self.waiting[-1].numbers if self.waiting else None
            number = max(self._last or 0, after[1] if after else 0) + 1
            frame = replace(frame, numbers=(number, number))
        self.waiting.append(frame)
        self.waiting.sort(key=_first)

    def lost(self) -> None:
        """Something is missing from here on: another source sends, or numbers do not tell."""
        self._broken = True

    def anew(self) -> None:
        """Numbers begin anew."""
        self._last, self._broken = None, True

    def due_ns(self, adjoin: Callable[[int, int], bool]) -> int | None:
        """The media time at which `release` has something; None while nothing waits."""
        if not self.waiting:
            return None
        ahead_ns = LEAD_NS if self._in_line(self.waiting[0], adjoin) else LAST_NS
        return min(frame.pts_ns for frame in self.waiting) - ahead_ns

    def release(
        self, media_ns: int | None, adjoin: Callable[[int, int], bool], *, at_once: bool = False
    ) -> list[Frame | Dropped]:
        """What is to be decoded at media time `media_ns` (None: it has not begun), in order; and what came too late
        for that. `adjoin(before, after)` is whether nothing is missing between two packets.
        """
        out: list[Frame | Dropped] = []
        while self.waiting:
            head = self.waiting[0]
            if self._last is not None and _first(head) <= self._last:
                out.append(Dropped(self.waiting.pop(0), "late"))
                continue
            due_ns = self.due_ns(adjoin)
            due = media_ns is not None and due_ns is not None and due_ns <= media_ns
            if not (due or at_once or len(self.waiting) > MOST_WAITING):
                break
            if self._last is not None and not self._in_line(head, adjoin):
                self._broken = True
            if self._broken:
                head = replace(head, after_loss=True)
            self._broken = False
            self._last = head.numbers[1] if head.numbers else self._last
            self.waiting.pop(0)
            out.append(head)
        return out

    def flush(self) -> list[Frame]:
        """What waits, as nothing more is decoded."""
        out, self.waiting = self.waiting, []
        return out

    def _in_line(self, frame: Frame, adjoin: Callable[[int, int], bool]) -> bool:
        return self._last is None or adjoin(self._last, _first(frame))


def _first(frame: Frame) -> int:
    return frame.numbers[0] if frame.numbers is not None else 0
