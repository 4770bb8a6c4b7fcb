"""What each byte of a packet is, by name: RTP/JPEG beside the classic wire's two formats. Pure."""

from __future__ import annotations

import binascii
from typing import NamedTuple

from avlab.wire.classic import read_pickle
from avlab.wire.payloads.jpeg import parse_fragment
from avlab.wire.rtp import HEADER_BYTES, JPEG, VIDEO_CLOCK, RtpPacket
from avlab.wire.units import WireError


class Field(NamedTuple):
    """A run of bytes, from `start` to before `stop`, and what they say."""

    name: str
    start: int
    stop: int
    value: str


def rtp_fields(packet: bytes) -> list[Field]:
    """The fields of an RTP packet (RFC 3550 5.1), and of its RTP/JPEG header (RFC 2435 3.1) when it is one.

    Raises WireError for bytes that are none. Of packets with contributing sources or an extension only the fixed header
    is named.
    """
    parsed = RtpPacket.parse(packet)
    flags = "marker: last of its frame" if parsed.marker else "no marker: more of the frame follows"
    found = [
        Field("version", 0, 1, f"{packet[0] >> 6}"),
        Field("marker and payload type", 1, 2, f"{parsed.payload_type}, {flags}"),
        Field("sequence number", 2, 4, f"{parsed.sequence}"),
        Field("timestamp", 4, 8, f"{parsed.timestamp:,} ticks of 1/{VIDEO_CLOCK:,} s"),
        Field("SSRC", 8, 12, f"{parsed.ssrc:#010x}, this stream's name"),
    ]
    if parsed.payload_type != JPEG or packet[0] & 0x1F:
        return [*found, Field("payload", HEADER_BYTES, len(packet), f"{len(packet) - HEADER_BYTES} bytes")]
    part = parse_fragment(parsed.payload)
    begin = len(packet) - len(part.data)
    found += [
        Field("type-specific", 12, 13, f"{packet[12]}"),
        Field("fragment offset", 13, 16, f"{part.offset}, where in the frame this belongs"),
        Field("type", 16, 17, f"{packet[16]}, 4:2:{'0' if part.type else '2'}"),
        Field("Q", 17, 18, f"{part.q}, the quality" if part.q < 128 else f"{part.q}, tables in the frame"),
        Field("width and height", 18, 20, f"{part.width} x {part.height}, in eights"),
    ]
    if begin > 20:
        found.append(Field("restart and table headers", 20, begin, f"{begin - 20} bytes"))
    return [*found, Field("JPEG data", begin, len(packet), f"{len(part.data):,} bytes")]


def classic_picture_fields(datagram: bytes) -> list[Field]:
    """The only field of a classic picture. Raises WireError when it is no base64."""
    try:
        jpeg = binascii.a2b_base64(datagram, strict_mode=True)
    except binascii.Error as error:
        raise WireError(f"This datagram is no picture of the classic wire: no base64 ({error}).") from None
    return [Field("a JPEG in base64", 0, len(datagram), f"{len(datagram):,} bytes for {len(jpeg):,} of JPEG")]


def classic_sound_fields(message: bytes) -> list[Field]:
    """The fields of one message of classic sound. Raises WireError when it is not whole, or no pickled bytes."""
    size = int.from_bytes(message[:8], "little")
    if len(message) != 8 + size:
        raise WireError(f"A classic message is 8 bytes of length and as many as they say; this has {len(message)}.")
    sound = read_pickle(message[8:])
    begin = message.index(sound, 8) if sound else len(message) - 1
    end = begin + len(sound)
    return [
        Field("length", 0, 8, f"{size:,}, in the sender's own byte order"),
        Field("pickle: here comes a bytes object", 8, begin, f"protocol {message[9]}"),
        Field("sound", begin, end, f"{len(sound):,} bytes, 16 bits a sample"),
        Field("pickle: and this was it", end, len(message), f"{len(message) - end} bytes"),
    ]
