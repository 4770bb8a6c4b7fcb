"""What stands for pictures and sound in virtual time: bytes of the right size, cut into packets as real ones are."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from avlab.wire.payloads.formats import L16Format
from avlab.wire.payloads.jpeg import derived_tables, jfif_header, packed
from avlab.wire.payloads.l16 import packed_sound
from avlab.wire.rtp import L16_MONO, L16_STEREO, MAX_PACKET, Packed
from avlab.wire.units import Chunk, Samples

EOI = b"\xff\xd9"

MOST_KEPT = 1_024
"""Pictures that are kept: a clip's sizes come again at each turn, and in the next run."""

CHUNKS_A_SECOND = 50
"""As a clip is read."""

L16_DYNAMIC = 97


def picture_bytes(scan: int) -> int:
    """How many bytes a received picture has whose scan has so many."""
    return len(jfif_header(8, 8, 1, bytes(128), 0)) + scan + len(EOI)


@lru_cache(maxsize=MOST_KEPT)
def picture(scan: int, width: int, quality: int, packet_size: int = MAX_PACKET) -> Packed:
    """A picture whose scan has so many bytes, as a server of that width, quality and packet size sends it."""
    return packed(jpeg(scan, width, quality), packet_size=packet_size)


def jpeg(scan: int, width: int, quality: int) -> bytes:
    """The headers of a JPEG of that width and quality, and as many bytes for its scan."""
    across = min(2040, max(8, (width + 4) // 8 * 8))
    down = min(2040, max(8, (across * 9 // 16 + 4) // 8 * 8))
    return jfif_header(across, down, 1, derived_tables(min(99, quality)), 0) + bytes(scan) + EOI


def whole_picture() -> Packed:
    """A picture that is one packet: for a way that knows of no packets."""
    return picture(1, 8, 50)


class Sound(NamedTuple):
    """The sound of a clip, as it is described and sent: sample frames a second, channels."""

    rate: int
    channels: int

    @property
    def payload_type(self) -> int:
        """As a server has it (RFC 3551 section 6)."""
        return {(44_100, 2): L16_STEREO, (44_100, 1): L16_MONO}.get(self, L16_DYNAMIC)


class Silence(L16Format):
    """Linear sound that is known to be silence: of a packet, only its length is looked at."""

    def __init__(self, rate: int, channels: int) -> None:
        super().__init__(rate, channels)
        self._made: dict[int, Samples] = {}

    def samples(self, payload: bytes, /) -> Samples:
        """See `SoundFormat`."""
        made = self._made.get(len(payload))
        if made is None:
            made = self._made[len(payload)] = super().samples(payload)
        return made


@lru_cache(maxsize=16)
def chunk(sound: Sound, *, packet_size: int = MAX_PACKET, whole: bool = False) -> Packed:
    """A chunk of sound: silence. With `whole`, one packet, for a way that knows of no packets."""
    samples = np.zeros((sound.rate // CHUNKS_A_SECOND, sound.channels), np.int16)
    most = 1 << 16 if whole else packet_size
    return packed_sound(
        Chunk(0, 0, samples, sound.rate),
        payload_type=sound.payload_type,
        rate=sound.rate,
        channels=sound.channels,
        packet_size=most,
    )
