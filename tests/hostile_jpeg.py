"""JPEGs that no encoder makes: legal, small, and dear to decode. Written bit by bit (ITU-T T.81, B.2 and G.1.2)."""

from __future__ import annotations

import struct

SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, body: bytes) -> bytes:
    """A marker segment with its length."""
    return bytes((0xFF, marker)) + struct.pack("!H", len(body) + 2) + body


def frame_header(width: int, height: int, *, kind: int = 0xC2, colours: int = 1) -> bytes:
    """A frame header of one sample a pixel and colour; `kind` 0xC0 is baseline, 0xC2 progressive."""
    parts = b"".join(bytes((n + 1, 0x11, 0)) for n in range(colours))
    return segment(kind, struct.pack("!BHHB", 8, height, width, colours) + parts)


def progressive(width: int, height: int, scans: int) -> bytes:
    """A grey picture in a scan of averages and `scans` more, each with one bit of one frequency, all of them zero.

    Up to 882 of them follow the rules: 63 frequencies, 14 bits each.
    """
    blocks = -(-width // 8) * -(-height // 8)
    out = SOI + segment(0xDB, bytes([0]) + bytes([1]) * 64) + frame_header(width, height)
    out += segment(0xC4, bytes([0x00, 1, *[0] * 15, 0]))  # "0": no difference from the block before
    out += segment(0xC4, bytes([0x10, 0, 0, 0, 15, *[0] * 12]) + bytes(run << 4 for run in range(15)))  # EOB runs
    out += _scan(0, 0, 0) + _bits("0" * blocks)
    steps = [(frequency, low) for frequency in range(1, 64) for low in range(13, -1, -1)]
    empty = _bits(_runs(blocks))
    return out + b"".join(_scan(k, 0 if low == 13 else low + 1, low) + empty for k, low in steps[:scans]) + EOI


def _scan(frequency: int, high: int, low: int) -> bytes:
    return segment(0xDA, bytes((1, 1, 0x00, frequency, frequency, high << 4 | low)))


def _runs(blocks: int) -> str:
    out = ""
    while blocks:
        run = min(blocks, 32_767)
        size = run.bit_length() - 1
        out += format(size, "04b") + (format(run - (1 << size), f"0{size}b") if size else "")
        blocks -= run
    return out


def _bits(text: str) -> bytes:
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
