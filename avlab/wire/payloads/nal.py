"""Pictures of NAL units, as H.264 and H.265 have them: from a byte stream to packets and back. Pure.

What the two differ in (headers, which types carry several units or a part of one) is in `h264` and `h265`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from avlab.wire.payloads.jpeg import MAX_SCAN
from avlab.wire.payloads.marked import MarkedAssembler
from avlab.wire.units import WireError

START = b"\0\0\0\1"
"""What stands before each unit in a byte stream (annex B of either standard)."""

_STARTS = re.compile(b"\0\0\1")

BEGINS, ENDS = 0x80, 0x40
"""What a fragment of a unit says: that it is the first, the last."""

RECOVERY_POINT = 6
"""The message that tells when pictures will be whole again for who begins to decode here, without a key frame."""

MAX_PARAMETERS = 1 << 16
"""Bytes of the parameter sets that a description may tell."""


def split(data: bytes) -> list[bytes]:
    """The units of a byte stream, without what stands before and the zeros that may stand after each."""
    marks = [match.start() for match in _STARTS.finditer(data)]
    ends = [*marks[1:], len(data)][: len(marks)]
    units = (data[start + 3 : end].rstrip(b"\0") for start, end in zip(marks, ends, strict=True))
    return [unit for unit in units if unit]


def joined(units: Iterable[bytes]) -> bytes:
    """Units as a byte stream."""
    return b"".join(part for unit in units for part in (START, unit))


def aggregated(data: bytes) -> list[bytes]:
    """The units of an aggregation packet's body: each behind its size in 16 bits. Raises WireError."""
    units, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        unit = data[at + 2 : at + 2 + size]
        if not size or len(unit) < size:
            raise WireError("An aggregation packet ends within one of its NAL units.")
        units.append(unit)
        at += 2 + size
    if not units:
        raise WireError("An aggregation packet has no NAL unit.")
    return units


def recovery_message(sei: bytes) -> bytes | None:
    """What the recovery point message of a unit of such messages says (H.264 D.1.8, H.265 D.2.8); None without one.

    `sei` is the unit behind its header.
    """
    body, at = sei.replace(b"\0\0\3", b"\0\0"), 0
    while at + 2 <= len(body):
        numbers = []
        for _ in range(2):  # kind and size: each 255 per byte that is full, and what is left
            full = at
            while at < len(body) and body[at] == 0xFF:
                at += 1
            numbers.append(255 * (at - full) + (body[at] if at < len(body) else 0))
            at += 1
        kind, size = numbers
        if kind == RECOVERY_POINT:
            return body[at : at + size]
        at += size
    return None


def exp_golomb(data: bytes) -> int | None:
    """The number ue(v) that bits begin with (H.264 9.1); None for none of up to 16 bits."""
    bits = f"{int.from_bytes(data[:5], 'big'):0{8 * len(data[:5])}b}"
    zeros = len(bits) - len(bits.lstrip("0"))
    return int(bits[zeros : 2 * zeros + 1], 2) - 1 if zeros <= 16 and len(bits) > 2 * zeros else None


def packed_units(
    data: bytes, room: int, header: Callable[[bytes], bytes], kind: Callable[[bytes], int], *, size: int
) -> list[bytes]:
    """The payloads of a byte stream's units, of at most `room` bytes each: units that fit as they are, others in
    fragments.

    A unit's header has `size` bytes. A fragment has what `header` makes of its unit instead, then a byte with the
    unit's `kind` and whether it begins or ends the unit (RFC 6184 5.8, RFC 7798 4.4.3).
    """
    payloads: list[bytes] = []
    for unit in split(data):
        if len(unit) <= room:
            payloads.append(unit)
            continue
        step = room - size - 1
        before, number = header(unit), kind(unit)
        for at in range(size, len(unit), step):
            flags = BEGINS * (at == size) | ENDS * (at + step >= len(unit))
            payloads.append(before + bytes((flags | number,)) + unit[at : at + step])
    return payloads


class Fragments:
    """Puts units together of which each packet carries a part: the first begins it, the last ends it."""

    def __init__(self) -> None:
        self.units: list[bytes] = []
        self._parts: list[bytes] | None = None

    def add(self, unit: bytes) -> None:
        """A whole unit. Raises WireError in the middle of another one."""
        if self._parts is not None:
            raise WireError("A NAL unit that is sent in fragments is not ended.")
        self.units.append(unit)

    def part(self, header: bytes, data: bytes, *, begins: bool, ends: bool) -> None:
        """A part of a unit that has this header. Raises WireError for one out of place."""
        if begins == (self._parts is not None) or (begins and ends):
            raise WireError("A fragment of a NAL unit is out of place.")
        if self._parts is None:
            self._parts = [header]
        elif self._parts[0] != header:
            raise WireError("A fragment of a NAL unit has another header than the one before it.")
        self._parts.append(data)
        if ends:
            self.units.append(b"".join(self._parts))
            self._parts = None

    def whole(self) -> list[bytes]:
        """All units. Raises WireError while one has not ended."""
        if self._parts is not None:
            raise WireError("A NAL unit that is sent in fragments is not ended.")
        return self.units


class NalAssembler(MarkedAssembler):
    """Puts one access unit together, as a byte stream. `units` makes NAL units of its payloads; `keyed` is whether a
    unit is of a picture that needs no other.
    """

    def __init__(
        self, units: Callable[[list[bytes]], list[bytes]], keyed: Callable[[bytes], bool], *, coding: str
    ) -> None:
        super().__init__(self._stream, coding=coding, rescues=False)
        self.key = False
        self._units, self._keyed = units, keyed

    def _stream(self, payloads: list[bytes | None]) -> bytes | None:
        whole = [payload for payload in payloads if payload is not None]
        if len(whole) < len(payloads):
            return None
        try:
            units = self._units(whole)
        except WireError as error:
            self.refused = error
            return None
        self.key = any(map(self._keyed, units))
        data = joined(units)
        return data if 0 < len(data) <= MAX_SCAN else None
