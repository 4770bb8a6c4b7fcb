"""Sound whose samples stand in packets as they are: G.711 (PCMU, PCMA), L8 and L24 (RFC 3551 4.5, RFC 3190). Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avlab.wire.batch import Batch
from avlab.wire.rtp import HEADER_BYTES, payloads
from avlab.wire.units import Samples, WireError

DYNAMIC = 97


def _mu_law() -> NDArray[np.int16]:
    """What each byte of mu-law stands for (ITU-T G.711 table 2): inverted; sign, exponent of 3 bits, mantissa of 4."""
    byte = ~np.arange(256) & 0xFF
    size = (((byte & 15) << 3) + 132 << (byte >> 4 & 7)) - 132
    return np.where(byte & 128, -size, size).astype(np.int16)


def _a_law() -> NDArray[np.int16]:
    """What each byte of A-law stands for (table 1): every other bit inverted, the sign set for positive ones."""
    byte = np.arange(256) ^ 0x55
    exponent, mantissa = byte >> 4 & 7, byte & 15
    size = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0))
    return np.where(byte & 128, size, -size).astype(np.int16)


_LAWS = {"PCMU": (0, _mu_law()), "PCMA": (8, _a_law())}


def octets(batch: Batch, step: int, wide: int) -> int:
    """How many bytes packets carry behind plain RTP headers: `step` sample frames of `wide` bytes each, and no more of
    the last; 0 for others.
    """
    whole, octets_each = batch.length - HEADER_BYTES * batch.total, step * wide
    alike = batch.size == HEADER_BYTES + octets_each and batch.last > HEADER_BYTES and not whole % wide
    return whole if alike else 0


def joined(batch: Batch, step: int, wide: int) -> bytes | None:
    """What such packets carry, in one; None for others."""
    return b"".join(payloads(batch)) if octets(batch, step, wide) else None


class PcmFormat:
    """Sound of one byte or three a sample, which is read as 16 bits: `encoding` is PCMU, PCMA, L8 or L24.

    Raises WireError for another one.
    """

    parameters = ""

    def __init__(self, encoding: str, rate: int, channels: int) -> None:
        self.encoding = encoding.upper()
        if self.encoding not in ("PCMU", "PCMA", "L8", "L24"):
            raise WireError(f"{encoding} is none of PCMU, PCMA, L8 and L24.")
        self.clock_rate, self.channels = rate, channels
        law, _ = _LAWS.get(self.encoding, (DYNAMIC, None))
        self.payload_type = law if (rate, channels) == (8_000, 1) else DYNAMIC
        self._wide = 3 if self.encoding == "L24" else 1

    def together(self, batch: Batch, step: int, /) -> Samples | None:
        """See `formats.SoundReader`."""
        payloads = joined(batch, step, self._wide * self.channels)
        return None if payloads is None else self.samples(payloads)

    def samples(self, payload: bytes, /) -> Samples:
        """See `formats.SoundReader`."""
        if len(payload) % (self._wide * self.channels):
            raise WireError(
                f"{len(payload)} bytes of {self.encoding} are not whole sample frames of {self.channels} channels."
            )
        codes = np.frombuffer(payload, np.uint8)
        if self.encoding in _LAWS:
            samples = _LAWS[self.encoding][1][codes]
        elif self.encoding == "L8":  # from 0 to 255 about 128 (RFC 3551 4.5.10)
            samples = ((codes.astype(np.int16) - 128) << 8).astype(np.int16)
        else:  # the upper 16 bits of 24
            samples = codes.reshape(-1, 3)[:, :2].copy().view(">i2").astype(np.int16)
        return samples.reshape(-1, self.channels)
