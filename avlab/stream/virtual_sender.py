"""The sender's end of a simulated network: frames cut into packets, which may be spread, repaired, asked for again.

No codec and no bytes of pictures: a payload says which fragment it is of how many, parity which packets it is over. No
threads, no sockets.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, cast

from avlab.measure.record.trace import FrameRow
from avlab.network.impairment import Impairment, Packet, Seen
from avlab.network.parity import groups
from avlab.network.retransmission import History
from avlab.timing.jitterbuffer import Frame
from avlab.timing.spreading import Burst, Spreader
from avlab.wire.payloads.jpeg import jfif_header
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, REPAIR_BYTES, VIDEO_CLOCK, ns_to_ticks
from avlab.wire.units import NS

FRAGMENT_HEADER = 8
"""RTP/JPEG's, in every packet (RFC 2435 3.1)."""

FRAGMENT_BYTES = MAX_PACKET - REPAIR_BYTES - HEADER_BYTES - FRAGMENT_HEADER
JPEG_BYTES = len(jfif_header(8, 8, 1, bytes(128), 0)) + 2
"""What a JPEG has beside its scan: headers, and the marker at its end."""

PLACE = struct.Struct("!HH")
"""A payload: which fragment it is, and of how many."""


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


class Travelling:
    """A packet's own part of what the impairment carries: whose it is, and what a trace says of it."""

    __slots__ = ("frame", "marker", "payload", "sent_ns", "sequence", "size")

    def __init__(self, frame: Sent, sequence: int, marker: bool, payload: bytes, size: int) -> None:
        self.frame, self.sequence, self.marker, self.payload = frame, sequence, marker, payload
        self.size, self.sent_ns = size, 0


class Again(NamedTuple):
    """A packet sent once more: its number in a stream of its own, and when."""

    original: Travelling
    sequence: int
    sent_ns: int


class Over(NamedTuple):
    """Parity over some packets of a frame."""

    packet: Travelling
    members: tuple[Travelling, ...]


def seen(packet: Packet) -> Seen:
    """What anyone's own network is told of a packet."""
    item: Travelling | Again | Over = packet.item
    if isinstance(item, Again):
        return Seen(
            item.sequence & 0xFFFF, item.original.frame.ticks & 0xFFFFFFFF, item.original.marker, item.original.payload
        )
    if isinstance(item, Over):
        return Seen(item.packet.sequence & 0xFFFF, item.packet.frame.ticks & 0xFFFFFFFF)
    return Seen(item.sequence & 0xFFFF, item.frame.ticks & 0xFFFFFFFF, item.marker, item.payload)


@cache
def _payloads(count: int) -> tuple[bytes, ...]:
    return tuple(PLACE.pack(place, count) for place in range(count))


class Packetizer:
    """Cuts frames into packets of at most `MAX_PACKET` bytes and hands them to the network, spread or all at once.

    `repair` is "rtx", which keeps them for those who ask, "fec", which has `parity` packets a packet follow, or None.
    What repairs travels in streams of its own, so that it shifts nothing of what the media loses.
    """

    def __init__(
        self,
        network: Impairment,
        *,
        frame_ns: int = NS // 30,
        spread: float = 0.0,
        repair: str | None = None,
        parity: float = 0.25,
    ) -> None:
        self._network, self._frame_ns = network, frame_ns
        self._sequence = self._again = 0
        self._spreader = Spreader(spread)
        self._parity = parity if repair == "fec" else 0.0
        self._history: History[Travelling] | None = History() if repair == "rtx" else None
        self._asked: list[tuple[int, list[int]]] = []  # NACKs on their way, by arrival
        self.sent_bytes = 0

    def send(self, frame: Sent) -> None:
        """A frame leaves at its `sent_ns`: its first packets at least."""
        assert frame.sent_ns is not None
        frame.packets = max(1, -(-frame.scan // FRAGMENT_BYTES))
        left = frame.scan
        packets: list[Travelling | Over] = []
        for place, payload in enumerate(_payloads(frame.packets)):
            part = left if left < FRAGMENT_BYTES else FRAGMENT_BYTES
            left -= part
            size = part + HEADER_BYTES + FRAGMENT_HEADER if frame.scan else 0
            packets.append(Travelling(frame, self._sequence, place == frame.packets - 1, payload, size))
            self._sequence += 1
        if self._parity:
            media = cast(list[Travelling], packets[:])
            for _, members in groups(frame.packets, self._parity):
                over = tuple(media[at] for at in members)
                size = max(packet.size for packet in over) + REPAIR_BYTES
                packets.append(Over(Travelling(frame, self._sequence, False, b"", size), over))
                self._sequence += 1
        if self._spreader.share:
            self._spreader.push(Burst(packets, self._frame_ns), frame.sent_ns)
            packets = self._spreader.pull(frame.sent_ns)
        self._hand_over(packets, frame.sent_ns)

    def ask(self, numbers: list[int], at_ns: int) -> None:
        """A NACK will arrive at `at_ns`."""
        heapq.heappush(self._asked, (at_ns, numbers))

    def wake_at(self) -> int | None:
        """When a spread packet is to leave, or a NACK arrives."""
        moments = [self._asked[0][0]] if self._asked else []
        if (spread_ns := self._spreader.wake_at()) is not None:
            moments.append(spread_ns)
        return min(moments, default=None)

    def move_along(self, now_ns: int) -> None:
        """Send what is due, and what was asked for."""
        self._hand_over(self._spreader.pull(now_ns), now_ns)
        while self._history is not None and self._asked and self._asked[0][0] <= now_ns:
            for packet in self._history.answer(heapq.heappop(self._asked)[1], now_ns):
                self.sent_bytes += packet.size + 2
                again = Again(packet, self._again, now_ns)
                self._again += 1
                self._network.push(Packet("video rtx", packet.size + 2, again), now_ns)

    def _hand_over(self, packets: Sequence[Travelling | Over], now_ns: int) -> None:
        push, history = self._network.push, self._history
        for item in packets:
            packet = item.packet if isinstance(item, Over) else item
            packet.sent_ns = now_ns
            self.sent_bytes += packet.size
            push(Packet("video fec" if item is not packet else "video", packet.size, item), now_ns)
            if history is not None:
                history.sent(packet.sequence, packet.size, packet, now_ns)
