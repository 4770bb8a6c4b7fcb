"""Fragments in, whole frames out: ordering by sequence number, a fate for every packet. Pure.

The buffer owns no deadline: playout says which media time has passed (`expire`), and what is still incomplete then
leaves as `Dropped(frame, "incomplete")`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from avlab.timing.stage import Dropped
from avlab.wire.rtpjpeg import FrameAssembler
from avlab.wire.units import WireError

WINDOW = 4096
"""How far back, in sequence numbers, a duplicate is recognised."""

MAX_FRAMES = 64
"""How many unfinished frames are held; beyond it the oldest is given up."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One packet's worth of a frame, sequence number and timestamp unwrapped; `media_ns` is the frame's pts."""

    sequence: int
    ticks: int
    media_ns: int
    marker: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A received frame, whole (`jpeg` set) or given up (`jpeg` None). Times in ns on the receiver's clock."""

    ticks: int
    pts_ns: int
    jpeg: bytes | None
    bytes: int
    packets: int
    packets_lost: int
    first_packet_ns: int
    complete_ns: int | None = None


@dataclass(slots=True)
class _Unfinished:
    pts_ns: int
    first_packet_ns: int
    assembler: FrameAssembler
    sequences: list[int] = field(default_factory=list)
    marker: int | None = None
    bytes: int = 0


class JitterBuffer:
    """The frames of one stream, put together from fragments in whatever order they come."""

    def __init__(self) -> None:
        self._tables: dict[int, bytes] = {}
        self._unfinished: dict[int, _Unfinished] = {}
        self._seen: set[int] = set()
        self._newest: int | None = None
        self._passed_ticks: int | None = None  # frames up to here are finished or given up
        self._whole: set[int] = set()
        self._out: list[Frame | Dropped] = []
        self.malformed = 0

    def fate(self, sequence: int, ticks: int) -> str:
        """What becomes of a packet, to be asked before `push`: used, duplicate or late."""
        if sequence in self._seen:
            return "duplicate"
        if self._newest is not None and sequence <= self._newest - WINDOW:
            return "late"
        if ticks in self._whole or (self._passed_ticks is not None and ticks <= self._passed_ticks):
            return "late"
        return "used"

    def push(self, item: Fragment, now_ns: int, /) -> None:
        """Take a packet whose fate is 'used'. One that is no fragment counts as `malformed` and spoils its frame."""
        self._remember(item.sequence)
        frame = self._unfinished.get(item.ticks)
        if frame is None:
            if len(self._unfinished) >= MAX_FRAMES:
                self._give_up(min(self._unfinished))
            frame = self._unfinished[item.ticks] = _Unfinished(item.media_ns, now_ns, FrameAssembler(self._tables))
        frame.sequences.append(item.sequence)
        frame.bytes += len(item.payload)
        if item.marker:
            frame.marker = item.sequence
        try:
            complete = frame.assembler.add(item.sequence, item.marker, item.payload)
            jpeg = frame.assembler.jpeg() if complete else None
        except WireError:
            self.malformed += 1
            return
        if jpeg is not None:
            del self._unfinished[item.ticks]
            self._whole.add(item.ticks)
            whole = self._describe(item.ticks, frame)
            self._out.append(replace(whole, jpeg=jpeg, packets_lost=0, complete_ns=now_ns))

    def wake_at(self) -> int | None:
        """Whole frames are given at once, so there is nothing to wake for."""
        return None

    def pull(self, now_ns: int, /) -> list[Frame | Dropped]:
        """Frames finished or given up since the last call."""
        out, self._out = self._out, []
        return out

    def expire(self, media_ns: int) -> None:
        """Media time has passed `media_ns`: frames due by then and still incomplete are given up."""
        for ticks in sorted(t for t, frame in self._unfinished.items() if frame.pts_ns <= media_ns):
            self._give_up(ticks)

    def flush(self) -> None:
        """Give up everything unfinished, as at the end of a stream."""
        for ticks in sorted(self._unfinished):
            self._give_up(ticks)

    def _give_up(self, ticks: int) -> None:
        frame = self._unfinished.pop(ticks)
        if self._passed_ticks is None or ticks > self._passed_ticks:
            self._passed_ticks = ticks
            self._whole = {t for t in self._whole if t > ticks}
        self._out.append(Dropped(self._describe(ticks, frame), "incomplete"))

    def _describe(self, ticks: int, frame: _Unfinished) -> Frame:
        # A frame's packets are consecutive: what is missing between the ends that were seen is known to be lost.
        last = frame.marker if frame.marker is not None else max(frame.sequences)
        lost = last - min(frame.sequences) + 1 - len(frame.sequences)
        return Frame(ticks, frame.pts_ns, None, frame.bytes, len(frame.sequences), max(0, lost), frame.first_packet_ns)

    def _remember(self, sequence: int) -> None:
        self._seen.add(sequence)
        if self._newest is None or sequence > self._newest:
            self._newest = sequence
        if len(self._seen) > 2 * WINDOW:
            self._seen = {s for s in self._seen if s > self._newest - WINDOW}
        if len(self._whole) > 2 * WINDOW:
            oldest = sorted(self._whole)[-WINDOW]
            self._whole = {t for t in self._whole if t >= oldest}
            self._passed_ticks = max(oldest - 1, self._passed_ticks or oldest - 1)
