"""Fragments in, whole frames out: ordering by sequence number, a fate for every packet. Pure.

The buffer owns no deadline: playout says which media time has passed (`expire`), and what is still incomplete then
leaves as `Dropped(frame, "incomplete")`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from avlab.timing.stage import Dropped
from avlab.wire.batch import Batch
from avlab.wire.payloads.jpeg import MAX_SCAN, FrameAssembler, begins_frame
from avlab.wire.rtp import HEADER_BYTES
from avlab.wire.units import WireError

WINDOW = 4096
"""How many of the latest packets, and of the latest frames, are remembered."""

MAX_FRAMES = 64
MAX_BYTES = 4 * MAX_SCAN
"""How much is held unfinished, however a sender scatters it: beyond either, the frame begun first is given up."""

MAX_REFUSALS = 100


_BLANK = bytes(HEADER_BYTES)


class Fragment(NamedTuple):
    """One packet's worth of a frame, sequence number and timestamp unwrapped; `media_ns` is the frame's pts."""

    sequence: int
    ticks: int
    media_ns: int
    marker: bool
    payload: bytes


class Run(NamedTuple):
    """Packets of one frame with consecutive numbers that came together; `marker` is the last one's."""

    sequence: int
    ticks: int
    media_ns: int
    marker: bool
    batch: Batch
    """The packets, each with its RTP header."""

    @classmethod
    def of(cls, sequence: int, ticks: int, media_ns: int, marker: bool, payloads: Sequence[bytes]) -> Run:
        """A run of payloads that have no headers, or had others: these are blank. All but the last are of one size."""
        data = b"".join(part for payload in payloads for part in (_BLANK, payload))
        return cls(sequence, ticks, media_ns, marker, Batch(data, HEADER_BYTES + len(payloads[0])))

    def part(self, at: int) -> Run:
        """One of the packets, counted from 0."""
        marker = self.marker and at == self.batch.total - 1
        return Run(self.sequence + at, self.ticks, self.media_ns, marker, self.batch.part(at, at + 1))


@dataclass(frozen=True, slots=True)
class Frame:
    """A received frame, whole (`data` set) or given up (`data` None). Times in ns on the receiver's clock."""

    ticks: int
    pts_ns: int
    data: bytes | None
    bytes: int
    packets: int
    packets_lost: int
    first_packet_ns: int
    complete_ns: int | None = None


class Assembler(Protocol):
    """Puts one frame together, as `FrameAssembler` does."""

    complete: bool
    """Whether the frame is whole."""

    def add_run(self, sequence: int, marker: bool, batch: Batch, /) -> Sequence[WireError]:
        """Take fragments with consecutive numbers, the first's and the last's marker given; why any was refused.

        Each stands in `batch` behind its RTP header.
        """

    def frame(self) -> bytes:
        """The whole frame."""

    @property
    def missing(self) -> Sequence[int]:
        """The sequence numbers known to be wanting."""


@dataclass(slots=True)
class _Unfinished:
    pts_ns: int
    first_packet_ns: int
    assembler: Assembler
    packets: int = 0
    bytes: int = 0


class Recent:
    """The latest numbers of a kind, `WINDOW` of them."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self._order: deque[int] = deque()

    def add(self, numbers: Sequence[int]) -> None:
        """Numbers that are not among them."""
        self.numbers.update(numbers)
        self._order.extend(numbers)
        while len(self._order) > WINDOW:
            self.numbers.discard(self._order.popleft())


class JitterBuffer:
    """The frames of one stream, put together from fragments in whatever order they come.

    Every packet has one fate and every frame one exit. What a packet is judged by is its own number and its frame's
    timestamp, never how far ahead of the others it is: one stray packet does not make those that follow late.
    `assembler` makes what puts a frame together, RTP/JPEG by default; `size` is for pictures that are too large for its
    header, as the session's description tells it (width, height).
    """

    def __init__(
        self, assembler: Callable[[], Assembler] | None = None, *, size: tuple[int, int] | None = None
    ) -> None:
        self.malformed = 0
        tables: dict[int, bytes] = {}
        self.assembler: Callable[[], Assembler] = assembler or (lambda: FrameAssembler(tables, size=size))
        self.begins: Callable[[bytes], bool] | None = begins_frame if assembler is None else None
        """Whether a payload is the first of its frame, where it says so itself."""
        self._unfinished: dict[int, _Unfinished] = {}  # by ticks, the one begun first in front
        self._held = 0  # bytes in those
        self._seen = Recent()  # sequence numbers
        self._closed = Recent()  # ticks of the frames that have left
        self._passed_ticks: int | None = None  # the newest frame that playout has passed
        self._refused: list[WireError] = []
        self._out: list[Frame | Dropped] = []

    def after(self, seen: Iterable[int], closed: Iterable[int]) -> None:
        """Go on from another buffer of the same stream: packets that it has seen, frames (ticks) that have left it."""
        self._seen.add(sorted(seen))
        self._closed.add(sorted(closed))

    def fate(self, sequence: int, ticks: int) -> str:
        """What becomes of a packet, to be asked before `push`: used, duplicate or late."""
        if sequence in self._seen.numbers:
            return "duplicate"
        if ticks in self._closed.numbers or (self._passed_ticks is not None and ticks <= self._passed_ticks):
            return "late"
        return "used"

    def push(self, item: Fragment, now_ns: int, /) -> None:
        """Take a packet whose fate is 'used'. One that is no part of its frame counts as `malformed`."""
        sequence, ticks, media_ns, marker, payload = item
        self._push(Run.of(sequence, ticks, media_ns, marker, (payload,)), now_ns)

    def push_run(self, run: Run, now_ns: int, /) -> list[str]:
        """Judge packets that came together, and take those that are used; the fate of each."""
        sequence, ticks, media_ns, marker, batch = run
        numbers = range(sequence, sequence + batch.total)
        if self.fate(sequence, ticks) == "used" and self._seen.numbers.isdisjoint(numbers):
            self._push(run, now_ns)
            return ["used"] * len(numbers)
        fates = []
        for at, number in enumerate(numbers):
            fates.append(fate := self.fate(number, ticks))
            if fate == "used":
                last = marker and number == numbers[-1]
                self._push(Run(number, ticks, media_ns, last, batch.part(at, at + 1)), now_ns)
        return fates

    def _push(self, run: Run, now_ns: int) -> None:
        sequence, ticks, media_ns, marker, batch = run
        self._seen.add(range(sequence, sequence + batch.total))
        frame = self._unfinished.get(ticks)
        if frame is None:
            frame = self._unfinished[ticks] = _Unfinished(media_ns, now_ns, self.assembler())
        size = len(batch.data) - HEADER_BYTES * batch.total
        frame.packets += batch.total
        frame.bytes += size
        self._held += size
        if refused := frame.assembler.add_run(sequence, marker, batch):
            self.malformed += len(refused)
            self._refused += refused[: MAX_REFUSALS - len(self._refused)]
        if frame.assembler.complete:
            self._out.append(self._close(ticks, data=frame.assembler.frame(), complete_ns=now_ns))
        elif frame.bytes > 2 * MAX_SCAN:  # fragments without end
            self._give_up(ticks)
        elif self._held > MAX_BYTES or len(self._unfinished) > MAX_FRAMES:
            self._give_up(next(iter(self._unfinished)))

    def wake_at(self) -> int | None:
        """Now (0) when frames wait to be pulled; else nothing will come by itself."""
        return 0 if self._out else None

    def pull(self, now_ns: int, /) -> list[Frame | Dropped]:
        """Frames finished or given up since the last call."""
        out, self._out = self._out, []
        return out

    def refusals(self) -> list[WireError]:
        """Why packets were no part of their frames, since the last call; the first `MAX_REFUSALS` of them."""
        if not self._refused:
            return []
        out, self._refused = self._refused, []
        return out

    @property
    def newest_pts_ns(self) -> int | None:
        """The latest pts of the frames that are still incomplete; None when there are none."""
        return max((frame.pts_ns for frame in self._unfinished.values()), default=None)

    def expire(self, media_ns: int) -> None:
        """Media time has passed `media_ns`: frames due by then and still incomplete are given up."""
        for ticks in sorted(t for t, frame in self._unfinished.items() if frame.pts_ns <= media_ns):
            self._passed_ticks = ticks if self._passed_ticks is None else max(ticks, self._passed_ticks)
            self._give_up(ticks)

    def flush(self) -> None:
        """Give up everything unfinished, as at the end of a stream."""
        for ticks in sorted(self._unfinished):
            self._give_up(ticks)

    def _give_up(self, ticks: int) -> None:
        self._out.append(Dropped(self._close(ticks), "incomplete"))

    def _close(self, ticks: int, *, data: bytes | None = None, complete_ns: int | None = None) -> Frame:
        frame = self._unfinished.pop(ticks)
        self._held -= frame.bytes
        self._closed.add((ticks,))
        # A frame's packets are consecutive: what is missing between the ends that were seen is known to be lost.
        lost = len(frame.assembler.missing)
        return Frame(ticks, frame.pts_ns, data, frame.bytes, frame.packets, lost, frame.first_packet_ns, complete_ns)
