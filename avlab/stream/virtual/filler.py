"""What stands for pictures and sound in virtual time: bytes of the right size, cut into packets as real ones are."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from avlab.media.sources import CHUNK_NS
from avlab.wire.batch import Batch
from avlab.wire.payloads.formats import JpegFormat, L16Format
from avlab.wire.payloads.jpeg import MAX_SCAN, begins_frame, derived_tables, jfif_header, packed
from avlab.wire.payloads.l16 import packed_sound
from avlab.wire.payloads.pcm import octets
from avlab.wire.rtp import HEADER_BYTES, L16_MONO, L16_STEREO, MARKER, MAX_PACKET, Packed
from avlab.wire.units import JPEG_CODING, NS, Chunk, Samples, WireError

EOI = b"\xff\xd9"

MOST_KEPT = 1_024
"""Pictures that are kept: a clip's sizes come again at each turn, and in the next run."""

CHUNKS_A_SECOND = NS // CHUNK_NS
"""As a clip is read."""

L16_DYNAMIC = 97

_HEADER_BYTES = 8
"""Of RTP/JPEG, before a packet's part of the scan: these pictures have no tables of their own."""


_AROUND = len(jfif_header(8, 8, 1, bytes(128), 0)) + len(EOI)


def picture_bytes(scan: int) -> int:
    """How many bytes a received picture has whose scan has so many."""
    return _AROUND + scan


@lru_cache(maxsize=MOST_KEPT)
def picture(scan: int, width: int, quality: int, packet_size: int = MAX_PACKET) -> Packed:
    """A picture whose scan has so many bytes, as a server of that width, quality and packet size sends it."""
    # Where all is blank, a picture's packets are the first ones of a larger picture's, but for the end of the last.
    blank = _larger(min(MAX_SCAN, 1 << scan.bit_length()), width, quality, packet_size).batch
    larger, size = blank.data, blank.size
    around = HEADER_BYTES + _HEADER_BYTES
    count = -(-scan // (size - around))
    data = bytearray(larger[: scan + count * around])
    data[(count - 1) * size + 1] |= MARKER
    return Packed(Batch(bytes(data), min(size, len(data))))


@lru_cache(maxsize=64)
def _larger(scan: int, width: int, quality: int, packet_size: int) -> Packed:
    return packed(jpeg(scan, width, quality), packet_size=packet_size)


def jpeg(scan: int, width: int, quality: int) -> bytes:
    """The headers of a JPEG of that width and quality, and as many bytes for its scan."""
    across = min(2040, max(8, (width + 4) // 8 * 8))
    down = min(2040, max(8, (across * 9 // 16 + 4) // 8 * 8))
    return jfif_header(across, down, 1, derived_tables(min(99, quality)), 0) + bytes(scan) + EOI


def whole_picture() -> Packed:
    """A picture that is one packet: for a way that knows of no packets."""
    return picture(1, 8, 50)


_BLANK = memoryview(bytes(MAX_SCAN + 4_096))


class Blanks(JpegFormat):
    """RTP/JPEG whose scans are known to be blank: of a packet, only where it belongs and its length are looked at."""

    def whole(self, batch: Batch) -> bytes | None:
        """See `JpegFormat`."""
        if not begins_frame(batch.body[HEADER_BYTES : HEADER_BYTES + 4]):
            return None
        octets = batch.length - (HEADER_BYTES + _HEADER_BYTES) * batch.total
        return _BLANK[: picture_bytes(octets)]  # type: ignore[return-value]  # as below

    def assembler(self) -> BlankAssembler:  # type: ignore[override]
        """See `VideoFormat`."""
        return BlankAssembler()


class BlankAssembler:
    """Says of the packets of one picture, each of which comes once, what `jpeg.FrameAssembler` says."""

    coding, key = JPEG_CODING, True
    refused = None
    __slots__ = ("_begun", "_ended", "_highest", "_lowest", "_numbers", "_octets")

    def __init__(self) -> None:
        self._numbers: list[range] = []
        self._lowest = self._highest = self._octets = 0
        self._begun = self._ended = False  # the first and the last packet are there

    @property
    def complete(self) -> bool:
        """Whether the picture is whole."""
        if not (self._begun and self._ended):
            return False
        return sum(map(len, self._numbers)) == self._highest - self._lowest + 1

    def add_run(self, sequence: int, marker: bool, batch: Batch, /) -> tuple[WireError, ...]:
        """See `Assembler`."""
        count = batch.total
        last = sequence + count - 1
        if not self._numbers:
            self._lowest, self._highest = sequence, last
        else:
            self._lowest, self._highest = min(self._lowest, sequence), max(self._highest, last)
        self._numbers.append(range(sequence, last + 1))
        self._octets += batch.length - (HEADER_BYTES + _HEADER_BYTES) * count
        self._begun = self._begun or begins_frame(batch.body[HEADER_BYTES : HEADER_BYTES + 4])
        self._ended = self._ended or marker
        return ()

    def begins(self, sequence: int, /) -> None:
        """A packet says so itself."""

    def ends(self, sequence: int, /) -> None:
        """The last packet has come."""
        self._ended = self._ended or sequence == self._highest

    def frame(self) -> bytes:
        """As many bytes as the picture has."""
        return _BLANK[: picture_bytes(self._octets)]  # type: ignore[return-value]  # nobody but `len` looks at it

    def rescued(self) -> None:
        """Nothing can be had of a JPEG that is not whole."""

    @property
    def missing(self) -> list[int]:
        """The sequence numbers known to be wanting."""
        if self.complete:
            return []
        there = {number for numbers in self._numbers for number in numbers}
        first, last = self._lowest - (not self._begun), self._highest + (not self._ended)
        return [number for number in range(first, last + 1) if number not in there]


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
        self._together: dict[tuple[int, int, int], Samples] = {}

    def samples(self, payload: bytes, /) -> Samples:
        """See `SoundFormat`."""
        return self._silence(len(payload))

    def together(self, batch: Batch, step: int, /) -> Samples | None:
        """See `SoundReader`."""
        kind = batch.size, batch.length, step
        made = self._together.get(kind)
        if made is None and (whole := octets(batch, step, 2 * self.channels)):
            made = self._together[kind] = self._silence(whole)
        return made

    def _silence(self, size: int) -> Samples:
        made = self._made.get(size)
        if made is None:
            made = self._made[size] = super().samples(bytes(size))
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
