"""Who was given a picture, and who saw it: what playout says, unless a taker that decides was given the picture. Pure.

A page or a window may paint a picture before playout's own moment or long after it. So a picture that was given to
such a taker leaves these books only when both have spoken: the taker has said whether it was seen, and playout has let
go of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from avlab.timing.jitterbuffer import Frame

MOST_OWED = 2048
"""Verdicts waited for, a minute of 30 fps; beyond it the oldest picture counts as skipped."""


class PictureVerdict(NamedTuple):
    """What became of a picture, says whoever was given it: `shown_ns` is when it was seen, None if it was not.

    `heard_ns` is the media time that was heard then, where the taker plays the sound itself.
    """

    frame: Frame
    shown_ns: int | None
    heard_ns: int | None = None


class Decision(NamedTuple):
    """The end of a picture's way, told once for each: its fate in the ledger's words, and when it was seen, if it was.

    `heard_ns` is as in `PictureVerdict`. A picture that was given away comes without its bytes.
    """

    frame: Frame
    fate: str
    shown_ns: int | None = None
    heard_ns: int | None = None


@dataclass(slots=True)
class _Owed:
    """A picture given to a taker that decides, less its bytes."""

    taker: object
    frame: Frame
    released_ns: int | None = None  # when playout let it go
    missed: str = "skipped"  # what it is when it was not seen
    settled: bool = False  # its decision has been told


class Verdicts:
    """Asks for one verdict a picture, of the taker that leads, and tells one decision a picture.

    A taker is whatever object stands for it, compared by identity. Each method returns the decisions that it brought
    about. `most` is how many verdicts are waited for.
    """

    def __init__(self, *, most: int = MOST_OWED) -> None:
        self._most = most
        self._leader: object | None = None
        self._owed: dict[int, _Owed] = {}  # by the pictures' ticks

    def __len__(self) -> int:
        return len(self._owed)

    @property
    def leader(self) -> object | None:
        """The taker whose verdicts count; None when playout's own word does."""
        return self._leader

    @property
    def waiting(self) -> bool:
        """Whether a verdict is still owed."""
        return any(not owed.settled for owed in self._owed.values())

    def lead(self, taker: object | None) -> None:
        """The verdicts of this taker count from here on. What the one before it was given, it still owes."""
        self._leader = taker

    def holder(self, frame: Frame) -> object | None:
        """The taker that owes a verdict on a picture; None when nobody does."""
        owed = self._owed.get(frame.ticks)
        return owed.taker if owed is not None else None

    def give(self, frame: Frame) -> Sequence[Decision]:
        """The leader is given a picture. Nothing changes when there is none, or when somebody has the picture."""
        if self._leader is None or frame.ticks in self._owed:
            return ()
        self._owed[frame.ticks] = _Owed(self._leader, light(frame))
        if len(self._owed) <= self._most:
            return ()
        open_ones = [owed for owed in self._owed.values() if not owed.settled]
        return [self._settle(oldest, oldest.missed) for oldest in open_ones[: -self._most]]

    def released(self, frame: Frame, now_ns: int) -> Sequence[Decision]:
        """Playout says that a picture is to be seen now."""
        return self._let_go(frame, now_ns, None)

    def dropped(self, frame: Frame, reason: str, now_ns: int) -> Sequence[Decision]:
        """Playout will not show a picture; a taker that had it ahead of its time may have shown it all the same."""
        return self._let_go(frame, now_ns, reason)

    def _let_go(self, frame: Frame, now_ns: int, reason: str | None) -> Sequence[Decision]:
        owed = self._owed.get(frame.ticks)
        if owed is None:
            return (Decision(frame, "shown", now_ns) if reason is None else Decision(frame, reason),)
        owed.released_ns = now_ns
        owed.missed = owed.missed if reason is None else reason
        if owed.settled:
            del self._owed[frame.ticks]
        return ()

    def told(self, taker: object | None, verdict: PictureVerdict) -> Sequence[Decision]:
        """A taker's verdict; of None, whoever was given the picture. One that is not owed changes nothing."""
        frame, shown_ns, heard_ns = verdict
        owed = self._owed.get(frame.ticks)
        if owed is None or owed.settled or (taker is not None and taker is not owed.taker):
            return ()
        return (self._settle(owed, "shown" if shown_ns is not None else owed.missed, shown_ns, heard_ns),)

    def _settle(self, owed: _Owed, fate: str, shown_ns: int | None = None, heard_ns: int | None = None) -> Decision:
        """The one decision on a picture; while playout has it, it stays in the books, or would be judged again."""
        owed.settled = True
        if owed.released_ns is not None:
            del self._owed[owed.frame.ticks]
        return Decision(owed.frame, fate, shown_ns, heard_ns)

    def resign(self, taker: object, *, shown: bool) -> Sequence[Decision]:
        """A taker will say nothing more: playout's word counts for what it was given.

        With `shown`, what playout has released counts as seen at that moment; else as skipped.
        """
        out = []
        for owed in [each for each in self._owed.values() if each.taker is taker and not each.settled]:
            if owed.released_ns is None:
                del self._owed[owed.frame.ticks]  # playout will say
            elif shown and owed.missed == "skipped":
                out.append(self._settle(owed, "shown", owed.released_ns))
            else:
                out.append(self._settle(owed, owed.missed))
        return out

    def left(self, frame: Frame, fate: str) -> Sequence[Decision]:
        """A picture was still on its way at the end; nothing changes when a verdict on it is owed, or was given."""
        return () if frame.ticks in self._owed else (Decision(frame, fate),)

    def close(self) -> Sequence[Decision]:
        """Verdicts that never came: late pictures stay so, the others are in flight."""
        owed, self._owed = self._owed, {}
        return [
            Decision(each.frame, "late" if each.missed == "late" else "in_flight")
            for each in owed.values()
            if not each.settled
        ]


def light(frame: Frame) -> Frame:
    """A frame's facts without its picture, which may have to wait for a verdict for long."""
    return replace(frame, data=None, image=None, bytes=len(frame.data) if frame.data is not None else frame.bytes)
