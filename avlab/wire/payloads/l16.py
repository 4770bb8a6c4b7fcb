"""RTP payload format for linear sound, L16 (RFC 3551 4.5.11): chunks to packets, and packets to samples. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avlab.wire.batch import Batch
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, Packed, rtp_timestamp, serialize_header
from avlab.wire.units import Chunk, Samples, WireError


class L16Packetizer:
    """Cuts chunks of sound into RTP packets: 16 bits, network byte order, channels interleaved (RFC 3551 4.5.11).

    `sequence` is the number of the next packet; `timestamp_offset` is the timestamp of pts 0.
    """

    def __init__(
        self, *, payload_type: int, ssrc: int, sequence: int, timestamp_offset: int, rate: int, channels: int
    ) -> None:
        if rate < 1 or not 1 <= channels <= 255:
            raise WireError(f"Sound needs a rate of at least 1 Hz and 1 to 255 channels, not {rate} and {channels}.")
        self.payload_type = payload_type
        self.ssrc = ssrc
        self.sequence = sequence
        self.timestamp_offset = timestamp_offset
        self.rate = rate
        self.channels = channels
        self._first = True

    def timestamp(self, pts_ns: int) -> int:
        """The RTP timestamp of a presentation time."""
        return rtp_timestamp(pts_ns, self.rate, self.timestamp_offset)

    def pack(self, chunk: Chunk) -> list[bytes]:
        """The chunk's packets, as equal in length as whole sample frames allow, none over MAX_PACKET bytes.

        The marker is on the very first packet alone, the first after silence (RFC 3551 4.1). Raises WireError when
        the chunk's rate or channels are not this stream's.
        """
        samples = chunk.samples
        if samples.ndim != 2 or samples.shape[1] != self.channels or chunk.rate != self.rate:
            raise WireError(
                f"This stream carries {self.channels} channels at {self.rate} Hz; the chunk has shape {samples.shape} "
                f"at {chunk.rate} Hz. Resample it before it is packed."
            )
        data = samples.astype(">i2").tobytes()
        timestamp = self.timestamp(chunk.pts_ns)
        return [self._packet(data, start, end, timestamp) for start, end in self._cuts(len(samples))]

    def _cuts(self, frames: int) -> Iterator[tuple[int, int]]:
        most = (MAX_PACKET - HEADER_BYTES) // (2 * self.channels)
        packets = -(-frames // most)
        size = -(-frames // packets) if packets else 1
        return ((start, min(start + size, frames)) for start in range(0, frames, size))

    def _packet(self, data: bytes, start: int, end: int, timestamp: int) -> bytes:
        wide = 2 * self.channels
        header = serialize_header(
            self.payload_type, self.sequence, (timestamp + start) & 0xFFFFFFFF, self.ssrc, self._first
        )
        self.sequence = (self.sequence + 1) & 0xFFFF
        self._first = False
        return header + data[start * wide : end * wide]


def packed_sound(chunk: Chunk, *, payload_type: int, rate: int, channels: int, packet_size: int = MAX_PACKET) -> Packed:
    """A chunk of sound as L16 packets, as equal in length as whole sample frames allow, none over `packet_size` bytes.

    No packet has the marker (RFC 3551 4.1): whoever stamps the first after silence sets it. Raises WireError when the
    chunk's rate or channels are not this stream's.
    """
    samples = chunk.samples
    if samples.ndim != 2 or samples.shape[1] != channels or chunk.rate != rate:
        raise WireError(
            f"This stream carries {channels} channels at {rate} Hz; the chunk has shape {samples.shape} "
            f"at {chunk.rate} Hz. Resample it before it is packed."
        )
    data, wide = samples.astype(">i2").tobytes(), 2 * channels
    most = (packet_size - HEADER_BYTES) // wide
    packets = -(-len(samples) // most)
    step = -(-len(samples) // packets) if packets else 1
    head = serialize_header(payload_type, 0, 0, 0, False)
    size = HEADER_BYTES + step * wide
    parts = [head + data[start : start + step * wide] for start in range(0, len(data), step * wide)]
    return Packed(Batch(b"".join(parts), min(size, len(parts[0])) if parts else size), step)


def parse_l16(payload: bytes, channels: int) -> Samples:
    """The sound of one L16 packet: int16, shape (sample frames, channels). Raises WireError on a cut sample frame."""
    if channels < 1 or len(payload) % (2 * channels):
        raise WireError(f"{len(payload)} bytes of L16 are not whole sample frames of {channels} channels.")
    return np.frombuffer(payload, ">i2").astype(np.int16).reshape(-1, channels)
