"""RTP payload format for linear sound, L16 (RFC 3551 4.5.11): chunks to packets, and packets to samples. Pure."""

from __future__ import annotations

import numpy as np

from avlab.wire.batch import Batch
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, Packed, serialize_header
from avlab.wire.units import Chunk, Samples, WireError


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
