"""The two ends of a simulated network: frames cut into packets, and packets put together, shown and written down.

No codec and no bytes of pictures: a payload says which fragment it is of how many. No threads, no sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from avlab.measure.trace import FrameRow, PacketTuple, Recorder
from avlab.network.impairment import Copy, Impairment, Packet
from avlab.timing.jitterbuffer import Fragment, Frame, JitterBuffer
from avlab.timing.playout import MediaClock, Playout, Start
from avlab.timing.stage import Dropped
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, VIDEO_CLOCK, ns_to_ticks
from avlab.wire.rtpjpeg import jfif_header

FRAGMENT_HEADER = 8
"""RTP/JPEG's, in every packet (RFC 2435 3.1)."""

FRAGMENT_BYTES = MAX_PACKET - HEADER_BYTES - FRAGMENT_HEADER
JPEG_BYTES = len(jfif_header(8, 8, 1, bytes(128), 0)) + 2
"""What a JPEG has beside its scan: headers, and the marker at its end."""

_PLACE = struct.Struct("!HH")


@dataclass(slots=True)
class Sent:
    """A frame on its way; `scan` is the bytes of its scan, 0 where nobody cuts it into packets."""

    index: int
    pts_ns: int
    encoded_ns: int
    due_ns: int | None = None
    sent_ns: int | None = None
    scan: int = 0
    packets: int = 1
    dropped: int = 0
    late: int = 0
    ticks: int = field(init=False)
    """The timestamp, before 32 bits wrap it."""

    def __post_init__(self) -> None:
        self.ticks = ns_to_ticks(self.pts_ns, VIDEO_CLOCK)

    def row(self, fate: str, frame: Frame | None = None, shown_ns: int | None = None) -> FrameRow:
        """As the trace has it; `frame` is what the receiver made of it, if anything reached it."""
        counted = self.packets if self.scan else None
        return FrameRow(
            "video",
            self.index,
            self.pts_ns,
            self.ticks & 0xFFFFFFFF,
            self.due_ns,
            self.encoded_ns,
            self.sent_ns,
            first_packet_ns=frame.first_packet_ns if frame else None,
            complete_ns=frame.complete_ns if frame else None,
            shown_ns=shown_ns,
            bytes=self.scan + JPEG_BYTES if self.scan else None,
            packets=frame.packets if counted and frame else counted,
            packets_lost=None if counted is None else frame.packets_lost if frame else self.dropped,
            fate=fate,
        )


class _Travelling:
    """A packet's own part of what the impairment carries: whose it is, and what a trace says of it."""

    __slots__ = ("frame", "marker", "payload", "sequence")

    def __init__(self, frame: Sent, sequence: int, marker: bool, payload: bytes) -> None:
        self.frame, self.sequence, self.marker, self.payload = frame, sequence, marker, payload


@cache
def _payloads(count: int) -> tuple[bytes, ...]:
    return tuple(_PLACE.pack(place, count) for place in range(count))


class Packetizer:
    """Cuts frames into packets of at most `MAX_PACKET` bytes and hands them to the network, all at once."""

    def __init__(self, network: Impairment) -> None:
        self._network = network
        self._sequence = 0

    def send(self, frame: Sent) -> None:
        """A frame leaves at its `sent_ns`."""
        assert frame.sent_ns is not None
        frame.packets = max(1, -(-frame.scan // FRAGMENT_BYTES))
        left, push = frame.scan, self._network.push
        for place, payload in enumerate(_payloads(frame.packets)):
            part = min(left, FRAGMENT_BYTES)
            left -= part
            size = part + HEADER_BYTES + FRAGMENT_HEADER if frame.scan else 0
            item = _Travelling(frame, self._sequence, place == frame.packets - 1, payload)
            push(Packet("video", size, item), frame.sent_ns)
            self._sequence += 1


class _Counted:
    """Puts a frame together by counting: every payload says its place and how many there are."""

    def __init__(self) -> None:
        self._here: set[int] = set()
        self._first = self._count = 0

    def add(self, sequence: int, marker: bool, payload: bytes, /) -> bool:
        place, self._count = _PLACE.unpack(payload)
        self._first = sequence - place
        self._here.add(sequence)
        return len(self._here) == self._count

    def jpeg(self) -> bytes:
        return b""

    @property
    def missing(self) -> Sequence[int]:
        return [n for n in range(self._first, self._first + self._count) if n not in self._here]


class Receiver:
    """A client's jitter buffer and playout behind a network, and the record of what became of every packet and frame.

    `packets` says whether the record has rows of packets; `ssrc` names their source.
    """

    def __init__(self, network: Impairment, recorder: Recorder, *, delay_ns: int, packets: bool, ssrc: int) -> None:
        self._network, self._recorder = network, recorder
        self._packets, self._ssrc = packets, ssrc
        self._clock = MediaClock()
        self._buffer = JitterBuffer(_Counted)
        self._playout = Playout(self._clock, at_once=delay_ns == 0)
        self._start = Start(expect={"video"}, delay_ns=delay_ns)
        self._open: dict[int, Sent] = {}  # frames without a fate, by ticks

    def expect(self, frame: Sent) -> None:
        """A frame has been sent: it is owed a row."""
        self._open[frame.ticks] = frame

    def wake_at(self) -> int | None:
        """When a packet arrives or a picture is due."""
        moments = (self._network.wake_at(), self._playout.wake_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def move_along(self, now_ns: int) -> None:
        """Take what has arrived, show what is due, give up what came too late."""
        rows: list[PacketTuple] = []
        for outcome in self._network.pull(now_ns):
            if isinstance(outcome, Dropped):
                self._miss(outcome.item.item, outcome.reason, rows, outcome.item.size)
            elif isinstance(outcome, Copy):
                self._take(outcome.packet, now_ns, rows, copy=True)
            else:
                self._take(outcome, now_ns, rows, copy=False)
        if rows and self._packets:
            self._recorder.packets(rows)
        for item in self._playout.pull(now_ns):
            if isinstance(item, Dropped):
                self._decide(item.item, item.reason)
            else:
                self._decide(item, "shown", now_ns)
        if self._playout.shown_pts_ns is not None:
            self._buffer.expire(self._playout.shown_pts_ns)
            self._take_frames(now_ns)

    def close(self, now_ns: int) -> None:
        """Nothing more will come: what is still incomplete stays so."""
        self._buffer.flush()
        self._take_frames(now_ns)
        self.move_along(now_ns)

    def _take(self, packet: Packet, now_ns: int, rows: list[PacketTuple], *, copy: bool) -> None:
        item: _Travelling = packet.item
        frame = item.frame
        ticks = frame.ticks
        fate = self._buffer.fate(item.sequence, ticks)
        sent_ns = None if copy else frame.sent_ns
        rows.append(self._row(item, packet.size, sent_ns, now_ns, fate))
        if fate == "used":
            self._buffer.push(Fragment(item.sequence, ticks, frame.pts_ns, item.marker, item.payload), now_ns)
            if self._buffer.wake_at() is not None:
                self._take_frames(now_ns)
        elif fate == "late" and not copy:
            frame.late += 1
            self._settle(frame)

    def _miss(self, item: _Travelling, reason: str, rows: list[PacketTuple], size: int) -> None:
        item.frame.dropped += 1
        rows.append(self._row(item, size, item.frame.sent_ns, None, reason))
        self._settle(item.frame)

    def _row(
        self, item: _Travelling, size: int, sent_ns: int | None, received_ns: int | None, fate: str
    ) -> PacketTuple:
        timestamp = item.frame.ticks & 0xFFFFFFFF
        return "video", self._ssrc, item.sequence, timestamp, item.marker, size, sent_ns, received_ns, fate

    def _settle(self, frame: Sent) -> None:
        """A frame of which no packet was, or will be, of use is lost; or late, if it came at all."""
        if frame.dropped + frame.late == frame.packets and frame.ticks in self._open:
            del self._open[frame.ticks]
            self._recorder.frame(frame.row("late" if frame.late else "lost"))

    def _take_frames(self, now_ns: int) -> None:
        for frame in self._buffer.pull(now_ns):
            if isinstance(frame, Dropped):
                self._decide(frame.item, frame.reason)
                continue
            self._start.arrived("video", frame.pts_ns, now_ns)
            if not self._clock.running and (base_ns := self._start.base_ns(now_ns)) is not None:
                self._clock.set(base_ns)
            self._playout.push(frame, now_ns)

    def _decide(self, frame: Frame, fate: str, shown_ns: int | None = None) -> None:
        self._recorder.frame(self._open.pop(frame.ticks).row(fate, frame, shown_ns))
