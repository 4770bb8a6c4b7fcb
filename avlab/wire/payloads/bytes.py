"""The generic payload format, X-bytes: any bytes as pictures, for codecs that have no format of their own. Pure.

Each payload begins with four bytes: flags (8 bits; 0x80: can be decoded without the pictures before it, 0x40: is a
JPEG, whatever the codec of the others) and how many bytes of the picture came before (24 bits).
"""

from __future__ import annotations

from avlab.wire.batch import Batch
from avlab.wire.payloads.jpeg import MAX_FRAGMENTS, MAX_SCAN
from avlab.wire.rtp import (
    FIRST_DYNAMIC,
    HEADER_BYTES,
    MARKER,
    MAX_PACKET,
    REPAIR_BYTES,
    VIDEO_CLOCK,
    Packed,
    payloads,
    serialize_header,
)
from avlab.wire.units import JPEG_CODING, OWN_CODING, EncodedFrame, WireError

KEY, IS_JPEG = 0x80, 0x40
_PREFIX = 4  # bytes of flags and offset


class BytesFormat:
    """X-bytes. `codec` is the name of the codec whose bytes they are, as the description tells it; "" for JPEG's."""

    encoding, payload_type, clock_rate = "X-bytes", FIRST_DYNAMIC, VIDEO_CLOCK
    by_marker = rescues = False

    def __init__(self, *, codec: str = "") -> None:
        self.codec = codec

    @property
    def parameters(self) -> str:
        """See `formats.VideoFormat`."""
        return f"codec={self.codec}" if self.codec else ""

    def pack(self, frame: EncodedFrame, *, payload_type: int = FIRST_DYNAMIC, packet_size: int = MAX_PACKET) -> Packed:
        """See `formats.VideoFormat`."""
        data = frame.data
        if not 0 < len(data) <= MAX_SCAN:
            raise WireError(f"A picture in X-bytes has 1 to {MAX_SCAN:,} bytes; this one has {len(data):,}.")
        flags = KEY * frame.key | IS_JPEG * (frame.coding == JPEG_CODING)
        head = serialize_header(payload_type, 0, 0, 0, False) + bytes((flags,))
        size = packet_size - REPAIR_BYTES
        room = size - HEADER_BYTES - _PREFIX
        parts = bytearray(
            b"".join(head + at.to_bytes(3, "big") + data[at : at + room] for at in range(0, len(data), room))
        )
        count = -(-len(data) // room)
        parts[(count - 1) * size + 1] |= MARKER
        return Packed(Batch(bytes(parts), size if count > 1 else len(parts)))

    def begins(self, payload: bytes, /) -> bool:
        """See `formats.VideoFormat`."""
        return payload[1:_PREFIX] == b"\0\0\0"

    def assembler(self) -> BytesAssembler:
        """See `formats.VideoFormat`."""
        return BytesAssembler()


class BytesAssembler:
    """Puts one picture together from payloads that tell where they belong. See `formats.Assembler`."""

    refused: WireError | None = None

    def __init__(self) -> None:
        self.complete = False
        self._parts: dict[int, tuple[int, bytes]] = {}  # offset and data, by number
        self._flags = 0
        self._lowest = self._highest = 0  # of the numbers
        self._last: int | None = None  # the number that bore the marker

    @property
    def coding(self) -> str:
        """A JPEG, or of the codec that the description names."""
        return JPEG_CODING if self._flags & IS_JPEG else OWN_CODING

    @property
    def key(self) -> bool:
        """Whether it can be decoded without those before it."""
        return bool(self._flags & KEY)

    def add_run(self, sequence: int, marker: bool, batch: Batch, /) -> list[WireError]:
        """See `formats.Assembler`."""
        refused = []
        last = sequence + batch.total - 1
        for number, payload in enumerate(payloads(batch), sequence):
            if number in self._parts:
                continue
            try:
                self._take(number, payload)
            except WireError as error:
                refused.append(error)
                continue
            if marker and number == last:
                self._last = last
        if self._last is not None and not self.complete:
            self.complete = self._contiguous(self._last)
        return refused

    def _take(self, number: int, payload: bytes) -> None:
        if len(payload) <= _PREFIX:
            raise WireError(f"An X-bytes payload has more than {_PREFIX} bytes; this one has {len(payload)}.")
        offset, data = int.from_bytes(payload[1:_PREFIX], "big"), payload[_PREFIX:]
        if offset + len(data) > MAX_SCAN:
            raise WireError(f"A picture in X-bytes has at most {MAX_SCAN:,} bytes; here it goes on after {offset:,}.")
        if self._parts and payload[0] != self._flags:
            raise WireError("An X-bytes payload has other flags than its picture's others.")
        lowest, highest = (min(number, self._lowest), max(number, self._highest)) if self._parts else (number, number)
        if highest - lowest >= MAX_FRAGMENTS:
            raise WireError(f"A picture in X-bytes has at most {MAX_FRAGMENTS} packets; this one would have more.")
        self._flags, self._lowest, self._highest = payload[0], lowest, highest
        self._parts[number] = offset, data

    def _contiguous(self, last: int) -> bool:
        place = 0
        for number in sorted(self._parts):
            offset, data = self._parts[number]
            if offset != place or number > last:
                return False
            place += len(data)
        return last in self._parts

    def begins(self, sequence: int, /) -> None:
        """The payloads say so themselves."""

    def ends(self, sequence: int, /) -> None:
        """See `formats.Assembler`."""
        if self._last is None and sequence in self._parts:
            self._last = sequence
            self.complete = self._contiguous(sequence)

    def frame(self) -> bytes | None:
        """The picture's bytes."""
        return b"".join(self._parts[number][1] for number in sorted(self._parts)) if self.complete else None

    def rescued(self) -> bytes | None:
        """Nothing: what the bytes are, the codec alone knows."""
        return None

    @property
    def missing(self) -> tuple[int, ...]:
        """See `formats.Assembler`."""
        if not self._parts or self.complete:
            return ()
        first = self._lowest - (self._parts[self._lowest][0] != 0)
        last = self._highest + (self._last is None)
        return tuple(number for number in range(first, last + 1) if number not in self._parts)
