"""Fragments in, whole frames out: ordering by sequence number, a fate for every packet. Pure.

The buffer owns no deadline: playout says which media time has passed (`expire`), and what is still incomplete then
leaves as `Dropped(frame, "incomplete")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from avlab.timing.recentnumbers import WINDOW, RecentNumbers, RecentRuns
from avlab.timing.stage import Dropped
from avlab.wire.batch import Batch
from avlab.wire.payloads.formats import Assembler, JpegFormat, VideoFormat
from avlab.wire.payloads.jpeg import MAX_SCAN, FrameAssembler, begins_frame
from avlab.wire.rtp import HEADER_BYTES
from avlab.wire.units import JPEG_CODING, WireError

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
    form: VideoFormat | None = None
    """Their payload format; None for the buffer's usual one."""

    @classmethod
    def of(
        cls,
        sequence: int,
        ticks: int,
        media_ns: int,
        marker: bool,
        payloads: Sequence[bytes],
        form: VideoFormat | None = None,
    ) -> Run:
        """A run of payloads that have no headers, or had others: these are blank. All but the last are of one size."""
        data = b"".join(part for payload in payloads for part in (_BLANK, payload))
        return cls(sequence, ticks, media_ns, marker, Batch(data, HEADER_BYTES + len(payloads[0])), form)

    def part(self, at: int) -> Run:
        """One of the packets, counted from 0."""
        marker = self.marker and at == self.batch.total - 1
        return Run(self.sequence + at, self.ticks, self.media_ns, marker, self.batch.part(at, at + 1), self.form)


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
    coding: str = JPEG_CODING
    """What `data` is, as `units.EncodedFrame` has it."""
    key: bool = True
    """Whether it can be decoded without those before it."""
    image: Any = field(default=None, repr=False, compare=False)
    """The picture, BGR uint8 of (height, width, 3), where `data` is no JPEG and has been decoded; else None."""
    numbers: tuple[int, int] | None = None
    """The sequence numbers of the first and the last of its packets that came; None where they are not known."""
    after_loss: bool = False
    """Whether something that was sent before it, and since the last one that was decoded, is lost."""
    damaged: bool = False
    """Whether what it was predicted from had been spoilt by a loss."""
    captured_ns: int | None = None
    """Its moment on the sender's wall clock, in ns since 1970, by the sender's reports; None where they do not say."""


@dataclass(slots=True)
class _Unfinished:
    pts_ns: int
    first_packet_ns: int
    assembler: Assembler
    form: VideoFormat | None
    lowest: int  # of the numbers that came
    highest: int
    begun: bool = False  # its assembler knows where it begins
    packets: int = 0
    bytes: int = 0

    @property
    def by_marker(self) -> bool:
        return self.form is not None and self.form.by_marker

    @property
    def rescues(self) -> bool:
        return self.form is not None and self.form.rescues


class AssemblingBuffer:
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
        self._rescuable = 0  # how many of those there are of which something can be had without all packets
        self._seen = RecentRuns()  # sequence numbers
        self._closed = RecentNumbers()  # ticks of the frames that have left
        self._passed_ticks: int | None = None  # the newest frame that playout has passed
        self._refused: list[WireError] = []
        self._out: list[Frame | Dropped] = []
        # For frames that are told apart by markers alone.
        self._ends = RecentNumbers()  # sequence numbers with markers
        self._between = RecentNumbers()  # sequence numbers that are of no frame: parity's
        self._opening: int | None = None  # ticks of the stream's first frame: nothing tells where that begins

    def after(self, seen: Iterable[int], closed: Iterable[int]) -> None:
        """Go on from another buffer of the same stream: packets that it has seen, frames (ticks) that have left it.

        Numbers ascend.
        """
        for number in seen:
            self._seen.add(number, number)
        self._closed.add(sorted(closed))

    def fate(self, sequence: int, ticks: int) -> str:
        """What becomes of a packet, to be asked before `push`: used, duplicate or late."""
        if sequence in self._seen:
            return "duplicate"
        return "late" if self._is_late(ticks) else "used"

    def _is_late(self, ticks: int) -> bool:
        """Whether a frame has left, or playout has passed it."""
        return ticks in self._closed.numbers or (self._passed_ticks is not None and ticks <= self._passed_ticks)

    def push(self, item: Fragment, now_ns: int, /) -> None:
        """Take a packet whose fate is 'used'. One that is no part of its frame counts as `malformed`."""
        sequence, ticks, media_ns, marker, payload = item
        self._push(Run.of(sequence, ticks, media_ns, marker, (payload,)), now_ns)

    def push_run(self, run: Run, now_ns: int, /) -> list[str]:
        """Judge packets that came together, and take those that are used; the fate of each."""
        sequence, ticks, media_ns, marker, batch, form = run
        count = batch.total
        if not self._is_late(ticks) and self._seen.lack(sequence, sequence + count - 1):
            if not (marker and isinstance(form, JpegFormat) and self._push_whole(run, form, now_ns)):
                self._push(run, now_ns)
            return ["used"] * count
        numbers = range(sequence, sequence + count)
        fates = []
        for at, number in enumerate(numbers):
            fates.append(fate := self.fate(number, ticks))
            if fate == "late" and marker and number == numbers[-1] and form is not None and form.by_marker:
                self._seen.add(number, number)
                self._ends.add((number,))
                self._look_for_starts(now_ns)
            if fate == "used":
                last = marker and number == numbers[-1]
                self._push(Run(number, ticks, media_ns, last, batch.part(at, at + 1), form), now_ns)
        return fates

    def _push_whole(self, run: Run, form: JpegFormat, now_ns: int) -> bool:
        """Packets that may be all of their frame, as most are where nothing is lost: whether they were, and it left."""
        if run.ticks in self._unfinished or (data := form.whole(run.batch)) is None:
            return False
        sequence, ticks, media_ns, _, batch, _ = run
        count = batch.total
        last = sequence + count - 1
        self._seen.add(sequence, last)
        if self._unfinished:
            self._end_before(sequence, now_ns)
        self._closed.add((ticks,))
        octets = batch.length - HEADER_BYTES * count
        frame = Frame(ticks, media_ns, data, octets, count, 0, now_ns, now_ns, numbers=(sequence, last))
        self._out.append(frame)
        return True

    def _push(self, run: Run, now_ns: int) -> None:
        sequence, ticks, media_ns, marker, batch, form = run
        count = batch.total
        last = sequence + count - 1
        self._seen.add(sequence, last)
        frame = self._unfinished.get(ticks)
        if frame is None:
            assembler = self.assembler() if form is None else form.assembler()
            frame = self._unfinished[ticks] = _Unfinished(media_ns, now_ns, assembler, form, sequence, last)
            self._rescuable += frame.rescues
        elif last > frame.highest:
            frame.highest = last
        size = batch.length - HEADER_BYTES * count
        frame.packets += count
        frame.bytes += size
        self._held += size
        if refused := frame.assembler.add_run(sequence, marker, batch):
            self.malformed += len(refused)
            self._refused += refused[: MAX_REFUSALS - len(self._refused)]
        if len(self._unfinished) > 1:
            self._look_for_ends(run, frame, now_ns)
        if form is not None and frame.by_marker:
            self._follow_markers(run, frame, now_ns)
        if frame.assembler.complete:
            self._finish(ticks, now_ns)
        elif frame.bytes > 2 * MAX_SCAN:  # fragments without end
            self._give_up(ticks)
        elif self._held > MAX_BYTES or len(self._unfinished) > MAX_FRAMES:
            self._give_up(next(iter(self._unfinished)))

    def _look_for_ends(self, run: Run, frame: _Unfinished, now_ns: int) -> None:
        """Some senders set no markers: then a frame ends before the next number that is of another one.

        RFC 3550 leaves to a profile what a marker means, so that a timestamp is what frames are told apart by.
        """
        if frame.highest + 1 in self._seen:
            frame.assembler.ends(frame.highest)
        self._end_before(run.sequence, now_ns, but=frame)

    def _end_before(self, sequence: int, now_ns: int, *, but: _Unfinished | None = None) -> None:
        """The packet of this number is of another frame than those that ended there."""
        for ticks, other in list(self._unfinished.items()):
            if other.highest == sequence - 1 and other is not but:
                other.assembler.ends(other.highest)
                if other.assembler.complete:
                    self._finish(ticks, now_ns)

    def adjoin(self, before: int, after: int) -> bool:
        """Whether nothing of any frame is between the packets of two numbers: parity alone, or nothing at all."""
        if after - before > WINDOW:
            return False
        return all(number in self._between.numbers for number in range(before + 1, after))

    def pass_over(self, sequence: int, now_ns: int) -> None:
        """The packet of this number is of no frame: parity, among the numbers of those that it is over."""
        if sequence not in self._between.numbers:
            self._between.add((sequence,))
            self._look_for_starts(now_ns)

    def _follow_markers(self, run: Run, frame: _Unfinished, now_ns: int) -> None:
        """What the numbers of packets say of where frames begin."""
        if self._opening is None:
            self._opening = run.ticks
        if run.sequence < frame.lowest:
            frame.lowest, frame.begun = run.sequence, False
        if run.marker:
            self._ends.add((run.sequence + run.batch.total - 1,))
        self._look_for_starts(now_ns, but=run.ticks)

    def _look_for_starts(self, now_ns: int, but: int | None = None) -> None:
        """Frames whose beginning is known now may be whole; `but` is one that is seen to elsewhere."""
        for ticks, frame in list(self._unfinished.items()):
            if not frame.by_marker or frame.begun:
                continue
            before = frame.lowest - 1
            while before in self._between.numbers:
                before -= 1
            # With one packet missing after a packet of another frame that is not its last, that one is.
            other = before - 1 in self._seen and before not in self._seen
            known = before in self._seen or before in self._ends.numbers  # of another frame
            known = known or (other and bool(self._ends.numbers) and before - 1 not in self._ends.numbers)
            if known or ticks == self._opening:
                frame.begun = True
                frame.assembler.begins(frame.lowest)
                if frame.assembler.complete and ticks != but:
                    self._finish(ticks, now_ns)

    def _guess_start(self, frame: _Unfinished) -> None:
        """At its deadline, where a frame began whose first packets are lost: after what came last before them.

        Where the end of the one before is lost, too, that was one packet. With parity among them, nobody can tell.
        """
        if not frame.by_marker or frame.begun or self._between.numbers:
            return
        for before in range(frame.lowest - 1, frame.lowest - WINDOW, -1):
            if before in self._seen:
                end = before in self._ends.numbers
                frame.begun = True
                frame.assembler.begins(min(frame.lowest, before + (1 if end else 2)))
                return

    def _finish(self, ticks: int, now_ns: int) -> None:
        assembler = self._unfinished[ticks].assembler
        data = assembler.frame()
        if assembler.refused is not None and len(self._refused) < MAX_REFUSALS:
            self._refused.append(assembler.refused)
        frame = self._close(ticks, data=data, complete_ns=None if data is None else now_ns)
        self._out.append(frame if data is not None else Dropped(frame, "incomplete"))

    @property
    def idle(self) -> bool:
        """Whether nothing is held: no moment changes anything."""
        return not self._unfinished and not self._out

    def wake_at(self) -> int | None:
        """Now (0) when frames wait to be pulled; else nothing will come by itself."""
        return 0 if self._out else None

    def pull(self, now_ns: int, /) -> list[Frame | Dropped]:
        """Frames finished or given up since the last call."""
        if not self._out:
            return []
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
        return max([frame.pts_ns for frame in self._unfinished.values()], default=None)

    @property
    def ripe_pts_ns(self) -> int | None:
        """When the next frame is due of which something can be had though it is not whole; None for none."""
        if not self._rescuable:
            return None
        return min([frame.pts_ns for frame in self._unfinished.values() if frame.rescues], default=None)

    def ripen(self, media_ns: int, now_ns: int) -> None:
        """It is media time `media_ns`: of frames due by now, what can be had leaves."""
        if not self._rescuable:
            return
        for ticks in sorted([t for t, frame in self._unfinished.items() if frame.rescues and frame.pts_ns <= media_ns]):
            self._rescue(ticks, now_ns)

    def _rescue(self, ticks: int, now_ns: int | None) -> None:
        frame = self._unfinished[ticks]
        self._guess_start(frame)
        data = frame.assembler.rescued()
        rescued = self._close(ticks, data=data, complete_ns=None if data is None else now_ns)
        self._out.append(rescued if data is not None else Dropped(rescued, "incomplete"))

    def expire(self, media_ns: int) -> None:
        """Media time has passed `media_ns`: frames due by then and still incomplete are given up."""
        if not self._unfinished:
            return
        for ticks in sorted([t for t, frame in self._unfinished.items() if frame.pts_ns <= media_ns]):
            self._passed_ticks = ticks if self._passed_ticks is None else max(ticks, self._passed_ticks)
            self._give_up(ticks)

    def flush(self) -> None:
        """Give up everything unfinished, as at the end of a stream; another one may follow."""
        self._opening = None
        for ticks in sorted(self._unfinished):
            if self._unfinished[ticks].rescues:
                self._rescue(ticks, None)
            else:
                self._give_up(ticks)

    def _give_up(self, ticks: int) -> None:
        self._out.append(Dropped(self._close(ticks), "incomplete"))

    def _close(self, ticks: int, *, data: bytes | None = None, complete_ns: int | None = None) -> Frame:
        frame = self._unfinished.pop(ticks)
        self._held -= frame.bytes
        self._rescuable -= frame.rescues
        self._closed.add((ticks,))
        # A frame's packets are consecutive: what is missing between the ends that were seen is known to be lost.
        lost = len(frame.assembler.missing)
        assembler = frame.assembler
        return Frame(
            ticks,
            frame.pts_ns,
            data,
            frame.bytes,
            frame.packets,
            lost,
            frame.first_packet_ns,
            complete_ns,
            assembler.coding,
            assembler.key,
            numbers=(frame.lowest, frame.highest),
        )
