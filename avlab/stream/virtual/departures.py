"""When frames leave in virtual time: a server's loop, whose work a frame costs so much time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from avlab.measure.record.trace import Recorder
from avlab.parts import Dropped
from avlab.timing.pacing import FOREVER_NS
from avlab.timing.seat import Seat

_new = tuple.__new__  # a named tuple's own constructor takes twice as long


class FrameWork(NamedTuple):
    """What one frame costs the sender: encoding, done ahead; waking late for it; sending it."""

    encode_ns: int
    late_ns: int
    send_ns: int


class DepartingFrame(NamedTuple):
    """A frame of the clip."""

    index: int  # type: ignore[assignment]  # tuple has a method of this name, which nobody misses
    pts_ns: int


class Departure(NamedTuple):
    """A frame that leaves, or does not."""

    index: int  # type: ignore[assignment]
    pts_ns: int
    chosen_ns: int
    """When its encoding began: by the width and quality of that moment."""
    encoded_ns: int
    due_ns: int | None = None
    sent_ns: int | None = None
    """None for one that never leaves."""
    fate: str | None = None
    """What becomes of one that never leaves, in the ledger's words."""


def departures(
    frames: Iterator[DepartingFrame], pacer: Seat, work: Callable[[], FrameWork], recorder: Recorder
) -> Iterator[Departure]:
    """Frames as the server's loop sends them: it takes a frame, waits as the pacer says, sends, goes on.

    Each frame is encoded while the loop waits with the one before. Nothing comes back to it, so its time may run ahead
    of the receiver's. A pacer that stands still for ever ends it, with the frame that it holds.
    """
    pacer.restart(0)
    free_ns = encoded_ns = chosen_ns = 0
    for frame in frames:
        cost = work()
        now_ns = max(free_ns, encoded_ns)
        pacer.push(frame, now_ns)
        next_chosen_ns, next_encoded_ns = now_ns, now_ns + cost.encode_ns
        left = False
        while not left:
            wake_ns = pacer.wake_at()
            for words in pacer.notices():
                recorder.event(now_ns, "pacer", words)
            if wake_ns is None:  # it has dropped what it held
                break
            if wake_ns >= FOREVER_NS:
                yield Departure(frame.index, frame.pts_ns, chosen_ns, encoded_ns, fate="in_flight")
                return
            now_ns = max(wake_ns, now_ns) + cost.late_ns
            for due in pacer.pull(now_ns):
                left = True
                index, pts_ns = due.item
                if isinstance(due, Dropped):
                    yield Departure(index, pts_ns, chosen_ns, encoded_ns, fate=due.reason)
                else:
                    yield _new(Departure, (index, pts_ns, chosen_ns, encoded_ns, due.due_ns, now_ns, None))
        free_ns = now_ns + cost.send_ns
        chosen_ns, encoded_ns = next_chosen_ns, next_encoded_ns
