"""Pictures and sound as one client's packets, by the package's own packers: what a scripted server sends."""

from __future__ import annotations

from typing import NamedTuple

from avlab.wire.payloads.jpeg import packed
from avlab.wire.payloads.l16 import packed_sound
from avlab.wire.rtp import HEADER_BYTES, JPEG, MARKER, VIDEO_CLOCK, Packed, rtp_timestamp
from avlab.wire.units import Chunk, EncodedFrame


class Fragments(NamedTuple):
    """One frame's RTP payloads."""

    payloads: tuple[bytes, ...]
    q: int
    octets: int


def fragments(jpeg: bytes) -> Fragments:
    """What a JPEG's packets carry. Raises WireError as `packed` does."""
    payloads = tuple(data[HEADER_BYTES:] for data in packed(jpeg).batch.datagrams())
    return Fragments(payloads, payloads[0][5], sum(map(len, payloads)))


class Packetizer:
    """Numbers and stamps one stream's packets. `sequence` is the number of the next one."""

    rate = VIDEO_CLOCK

    def __init__(self, *, ssrc: int, sequence: int, timestamp_offset: int, payload_type: int = JPEG) -> None:
        self.ssrc, self.sequence, self.timestamp_offset = ssrc, sequence, timestamp_offset
        self.payload_type = payload_type

    def timestamp(self, pts_ns: int) -> int:
        return rtp_timestamp(pts_ns, self.rate, self.timestamp_offset)

    def stamped(self, unit: Packed, pts_ns: int) -> list[bytes]:
        if not unit.batch.data:
            return []
        batch = unit.stamped(sequence=self.sequence, timestamp=self.timestamp(pts_ns), ssrc=self.ssrc)
        self.sequence = (self.sequence + batch.total) & 0xFFFF
        return batch.datagrams()


class JpegPacketizer(Packetizer):
    """A stream of pictures."""

    def pack(self, frame: EncodedFrame) -> list[bytes]:
        return self.stamped(packed(frame.data, payload_type=self.payload_type), frame.pts_ns)


class L16Packetizer(Packetizer):
    """A stream of sound, whose very first packet bears the marker."""

    def __init__(self, *, rate: int, channels: int, **settings: int) -> None:
        super().__init__(**settings)
        self.rate, self.channels = rate, channels
        self._first = True

    def pack(self, chunk: Chunk) -> list[bytes]:
        unit = packed_sound(chunk, payload_type=self.payload_type, rate=self.rate, channels=self.channels)
        packets = self.stamped(unit, chunk.pts_ns)
        if packets and self._first:
            self._first = False
            packets[0] = packets[0][:1] + bytes([packets[0][1] | MARKER]) + packets[0][2:]
        return packets
