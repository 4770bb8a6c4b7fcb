"""What a JPEG says of itself, before anybody decodes it: its size, and how much work it makes. Pure.

A few kilobytes can claim 65,535 x 65,535 pixels, 12 GB once decoded, or send thousands of passes over a large picture,
each in a dozen bytes (ITU-T T.81 G.1.1: progressive scans): what comes from a peer is looked at here first.
"""

from __future__ import annotations

import struct

from avlab.wire.units import WireError

MAX_SIDE = 4096
"""Pixels of the longest side taken from a peer."""

MAX_SCANS = 32
"""Passes over the picture. Encoders make 1 to 3, progressive ones 6 to 12; at 4096x4096 each costs some 4 ms."""

_MAX_SEGMENTS = 256  # looked through for the frame header, so that fill bytes and empty segments cost nothing


def check_jpeg(jpeg: bytes) -> tuple[int, int]:
    """Width and height of a JPEG that is fit to be decoded. Raises WireError, saying what is wrong, when it is not.

    Whether it is whole only the decoder finds out.
    """
    width, height, _ = sized(jpeg)
    return width, height


def sized(jpeg: bytes) -> tuple[int, int, bytes]:
    """As `check_jpeg`, and what stands before the scan where that is the only one: what begins with it is fit, too.

    Empty for a JPEG of several scans.
    """
    if jpeg[:2] != b"\xff\xd8":
        raise WireError("no JPEG begins here")
    width, height, head = _headers(jpeg)
    check_size(width, height)
    if head:
        return width, height, head
    # Scan data never holds these bytes (B.1.1.5), so nothing that a decoder takes for a scan is missed by counting.
    scans = jpeg.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise WireError(f"this JPEG has {scans} scans; {MAX_SCANS} are decoded at most")
    return width, height, b""


def check_size(width: int, height: int) -> None:
    """Raises WireError for a size, in pixels, that is not decoded."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise WireError(f"this JPEG claims {width}x{height} pixels; sides of 1 to {MAX_SIDE} are shown")


def _headers(jpeg: bytes) -> tuple[int, int, bytes]:
    """Width and height from the frame header (B.2.2), whatever its coding, and all headers where one pass is all.

    So it is where the first scan has all planes and the coding is sequential: a decoder takes no further scan. Counting
    them in all of the data would take a fifteenth of the time that decoding does.
    """
    position, size, planes = 2, None, 0  # the planes of a sequential frame
    for _ in range(_MAX_SEGMENTS):
        if position + 9 > len(jpeg) or jpeg[position] != 0xFF:
            break
        marker = jpeg[position + 1]
        if marker == 0xFF:  # a fill byte (B.1.1.2)
            position += 1
            continue
        if marker == 0xDA:  # the data begins
            if size is None:
                break
            end = position + 2 + ((jpeg[position + 2] << 8) | jpeg[position + 3])
            return *size, jpeg[:end] if 0 < planes == jpeg[position + 4] and end <= len(jpeg) else b""
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # stands alone
            break
        if size is None and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from("!HH", jpeg, position + 5)
            size = width, height
            planes = jpeg[position + 9] if marker <= 0xC1 and position + 9 < len(jpeg) else 0
        position += 2 + ((jpeg[position + 2] << 8) | jpeg[position + 3])
    if size is None:
        raise WireError("this JPEG is damaged or cut short: it has no frame header")
    return *size, b""
