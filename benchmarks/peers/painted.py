"""Numbers painted into pictures, to be read back from what a codec has made of them.

Plain bytes and no imports: GStreamer's side runs in the system's Python, which has no NumPy.
"""

from __future__ import annotations

BLOCK = 16
"""Pixels of a block's side: a macroblock of JPEG in 4:2:0 and of VP8, so that a block is coded by itself."""

NUMBERS = 1 << 16
_BITS = 24  # the number's 16, then 8 that check them
LEAST = (_BITS + 2) * BLOCK
"""Pixels that a number takes of a picture's width, those around it included."""


def check_size(width: int, height: int) -> None:
    """ValueError for a picture that has no room for its number at the top and at the bottom."""
    if width < LEAST or height < 5 * BLOCK:
        raise ValueError(f"A number needs {LEAST}x{5 * BLOCK} pixels; this picture has {width}x{height}.")


def paint(pixels: memoryview, width: int, height: int, depth: int, number: int) -> None:
    """Paint a number from 0 to 65,535 at the top and at the bottom, in place.

    `pixels` are bytes, `depth` of them a pixel, rows without padding: BGR (3), or a plane of luminance (1).
    """
    bits = number << 8 | _check(number)
    row = b"".join(_SHADES[bits >> at & 1] * (BLOCK * depth) for at in range(_BITS - 1, -1, -1))
    for top in strips(height):
        for line in range(top, top + BLOCK):
            start = (line * width + BLOCK) * depth
            pixels[start : start + len(row)] = row


def read(pixels: memoryview, width: int, height: int, depth: int) -> int | None:
    """The number painted, or None where the picture is not whole: top and bottom have to say the same."""
    first, last = (_read_strip(pixels, (top + BLOCK // 2) * width * depth, depth) for top in strips(height))
    return first if first == last else None


_SHADES = (b"\x10", b"\xeb")  # black and white of studio range, which every chain of codecs passes on


def strips(height: int) -> tuple[int, int]:
    """The rows at which the numbers at the top and at the bottom begin."""
    return BLOCK, (height // BLOCK - 2) * BLOCK


def _check(number: int) -> int:
    """Eight bits that differ for numbers that differ in one, and are not all black or white when the number is."""
    return (number * 0x9D + (number >> 8) * 0x35 + 0x5A) & 0xFF


def _read_strip(pixels: memoryview, start: int, depth: int) -> int | None:
    bits, half = 0, BLOCK // 2 * depth
    for block in range(1, _BITS + 1):
        middle = start + block * BLOCK * depth + half // 2
        bits = bits << 1 | (sum(pixels[middle : middle + half]) > 128 * half)
    number = bits >> 8
    return number if bits & 0xFF == _check(number) else None
