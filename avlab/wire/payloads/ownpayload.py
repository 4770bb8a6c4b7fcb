"""A payload format of anyone's own as a `formats.VideoFormat`: asked, looked at, and named when it fails. Pure.

Its payloads are all that is in the packets: where a picture begins and ends is told by markers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from avlab.parts import Call, PartEndedError, PartError, called, missing_methods, named, shown
from avlab.wire.jpegsize import check_jpeg
from avlab.wire.payloads.jpeg import MAX_FRAGMENTS, MAX_SCAN
from avlab.wire.payloads.marked import MarkedAssembler, packed_payloads
from avlab.wire.rtp import FIRST_DYNAMIC, HEADER_BYTES, MAX_PACKET, REPAIR_BYTES, VIDEO_CLOCK, Packed
from avlab.wire.units import JPEG_CODING, OWN_CODING, EncodedFrame, WireError

METHODS = ("pack", "unpack")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")


class OwnFormat:
    """X-<name>, as `part` packs and unpacks it: an object with `name`, `pack` and `unpack`, or its class.

    `codec` is the name of the codec whose bytes are carried; "" for JPEG's. `pack` raises PartError where the part
    fails. On the receiving side a picture of which it makes nothing is incomplete, and `failed` is told, the first
    time; one that never came back is asked no more.
    """

    payload_type, clock_rate = FIRST_DYNAMIC, VIDEO_CLOCK
    by_marker = rescues = True

    def __init__(
        self,
        part: Any,
        *,
        codec: str = "",
        call: Call = called,
        failed: Callable[[PartError], None] | None = None,
    ) -> None:
        self.codec = codec
        self.said = said(part)
        self._part, self._call, self._failed = part, call, failed
        self._at: Any = None if isinstance(part, type) else part
        self._told = self._broken = False
        self.encoding = f"X-{part_name(part)}"

    @property
    def parameters(self) -> str:
        """See `formats.VideoFormat`."""
        return f"codec={self.codec}" if self.codec else ""

    def pack(self, frame: EncodedFrame, *, payload_type: int = FIRST_DYNAMIC, packet_size: int = MAX_PACKET) -> Packed:
        """See `formats.VideoFormat`. PartError for a part that fails, or gives what cannot be sent."""
        most = packet_size - REPAIR_BYTES - HEADER_BYTES
        given = self._call(self.said, self._made().pack, frame.data, most)
        return packed_payloads(_pieces(given, len(frame.data), most, self.said), payload_type)

    def begins(self, payload: bytes, /) -> bool:
        """See `formats.VideoFormat`."""
        return False

    def assembler(self) -> MarkedAssembler:
        """See `formats.VideoFormat`."""
        return MarkedAssembler(self._unpack, coding=OWN_CODING if self.codec else JPEG_CODING)

    def _made(self) -> Any:
        if self._at is None:
            at = self._call(self.said, self._part)
            if missing := missing_methods(at, METHODS):
                raise PartError(f"{self.said} has no method {missing[0]}: it needs pack and unpack")
            self._at = at
        return self._at

    def _unpack(self, payloads: list[bytes | None]) -> bytes | None:
        if self._broken:
            return None
        try:
            return self._asked(payloads)
        except PartError as error:
            if self._failed is None:
                raise
            self._broken = isinstance(error, PartEndedError)
            if not self._told:
                self._told = True
                self._failed(error)
            return None

    def _asked(self, payloads: list[bytes | None]) -> bytes | None:
        lost = sum(payload is None for payload in payloads)
        given = self._call(self.said, self._made().unpack, payloads)
        of = f"unpack() of {len(payloads)} payloads, {lost or 'none'} of them lost,"
        if given is None:
            if lost:
                return None
            raise PartError(f"{self.said}: {of} returned nothing: is there a return? It must return the frame's bytes")
        if not isinstance(given, bytes | bytearray | memoryview) or not 0 < len(given) <= MAX_SCAN:
            raise PartError(f"{self.said}: {of} returned {shown(given)}: it must be the frame's bytes, or None")
        data = bytes(given)
        if not self.codec:
            try:
                check_jpeg(data)
            except WireError as error:
                raise PartError(
                    f"{self.said}: {of} returned {len(data):,} bytes that are not the JPEG that was packed ({error})"
                ) from error
        return data


def _pieces(given: Any, size: int, most: int, said: str) -> list[bytes]:
    """What `pack` returned, as payloads. PartError for anything that cannot be sent."""
    of = f"{said}: pack() of {size:,} bytes"
    if not isinstance(given, list | tuple) or not given:
        raise PartError(f"{of} returned {shown(given)}: it must be a list of bytes, one at least")
    if len(given) > MAX_FRAGMENTS:
        raise PartError(f"{of} returned {len(given):,} pieces: {MAX_FRAGMENTS:,} is the most")
    for piece in given:
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise PartError(f"{of} gave {shown(piece)} as a piece: it must be bytes")
        if not 1 <= len(piece) <= most:
            raise PartError(f"{of} gave a piece of {len(piece):,} bytes: from 1 to {most:,} are asked")
    return [bytes(piece) for piece in given]


def said(part: Any) -> str:
    """What a sentence calls a payload format."""
    return f"the payload format {named(part if isinstance(part, type) else type(part))}"


def part_name(part: Any) -> str:
    """The name of a payload format, or of its class. TypeError, in a sentence, for what is none."""
    name = getattr(part, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise TypeError(
            f"{said(part)}: its name is {shown(name)}: it must be up to 32 letters, digits and hyphens, as they are "
            "said in the session's description"
        )
    if name.lower() == "bytes":
        raise TypeError(f"{said(part)}: the name 'bytes' is the generic format's: give it another one")
    return name


def check_payload(part: Any) -> None:
    """TypeError, in a sentence, for what is no payload format, nor a class of one."""
    if missing := missing_methods(part, METHODS):
        raise TypeError(f"{said(part)} has no method {missing[0]}: it needs pack and unpack")
    part_name(part)
