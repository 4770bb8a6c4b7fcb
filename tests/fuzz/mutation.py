"""Good inputs spoilt: bits, bytes, numbers and words changed, pieces cut, doubled, moved, and mixed with other inputs.

A mutator of our own, since it draws tens of thousands of inputs a second where hypothesis draws hundreds, and on every
system and Python that avlab runs on, where coverage-guided fuzzers have their wheels for some. What it has in place of
coverage is in `running`: an input with an outcome that has not been seen joins the good ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MOST_BYTES = 200_000
"""No input is longer: three of the largest datagrams."""

NUMBERS = (
    b"0", b"-1", b"1", b"9", b"00", b"127", b"128", b"255", b"256", b"65535", b"65536", b"2147483647", b"2147483648",
    b"4294967295", b"4294967296", b"18446744073709551616", b"1e9", b"1e309", b"-1e309", b"nan", b"inf", b"0x10", b"1_0",
    b"+1", b" 1", b"9" * 40, b"9" * 5000, "²".encode(), "٣".encode(), b"1.5", b".",
)  # fmt: skip
"""Numbers as text that parsers stumble over."""

WORDS = (
    b"", b"\0", b"\r\n", b"\n", b"\r\n\r\n", b" ", b"\t", b";", b",", b"=", b":", b"/", b"?", b"@", b"[", b"]", b"%",
    b"$", b"\\", b"\\g<9>", b"*", b"\x1b[2J", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", "℀".encode(), "\u202e".encode(),
)  # fmt: skip

_INTEGERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    31,
    63,
    64,
    127,
    128,
    255,
    256,
    1023,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31,
)


def mutated(rng: random.Random, good: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """One of the good inputs, changed in one to eight ways."""
    data = bytearray(rng.choice(good))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        rng.choice(_WAYS)(rng, data, good, words)
    return bytes(data[:MOST_BYTES])


def _span(rng: random.Random, data: bytearray) -> tuple[int, int]:
    """Where a piece begins and ends; most are short."""
    start = rng.randrange(len(data) + 1)
    most = rng.choice((1, 2, 4, 16, 64, len(data)))
    return start, min(len(data), start + rng.randint(0, most))


def _flip(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def _early_byte(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    """Headers come first, and are what is parsed."""
    if data:
        data[rng.randrange(min(len(data), 32))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _integer(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    size = rng.choice((2, 3, 4, 8))
    if len(data) >= size:
        at = rng.randrange(len(data) - size + 1)
        value = rng.choice((rng.choice(_INTEGERS), -rng.choice(_INTEGERS), rng.getrandbits(64), len(data)))
        data[at : at + size] = (value % (1 << (8 * size))).to_bytes(size, rng.choice(("big", "little")))


def _delete(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    del data[start:end]


def _double(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    times = rng.choice((1, 1, 2, 10, 300))
    if (end - start) * times < MOST_BYTES:
        data[start:start] = data[start:end] * times


def _move(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data)
    piece = data[start:end]
    del data[start:end]
    at = rng.randrange(len(data) + 1)
    data[at:at] = piece


def _truncate(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _insert(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 12, 40)))


def _word(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    start, end = _span(rng, data) if rng.random() < 0.3 else (rng.randrange(len(data) + 1),) * 2
    data[start:end] = rng.choice((*words, *WORDS)) if rng.random() < 0.7 or not words else rng.choice(words)


def _number(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    """Put another number in the place of one that is written in digits."""
    digits = [at for at in range(min(len(data), 2000)) if 0x30 <= data[at] <= 0x39]
    if digits:
        start = end = rng.choice(digits)
        while end < len(data) and 0x30 <= data[end] <= 0x39:
            end += 1
        while start and 0x30 <= data[start - 1] <= 0x39:
            start -= 1
        data[start:end] = rng.choice(NUMBERS)


def _splice(rng: random.Random, data: bytearray, good: Sequence[bytes], words: Sequence[bytes]) -> None:
    other = rng.choice(good)
    start = rng.randrange(len(other) + 1)
    data[rng.randrange(len(data) + 1) :] = other[start:]


_Way = Callable[[random.Random, bytearray, Sequence[bytes], Sequence[bytes]], None]
_WAYS: tuple[_Way, ...] = (
    _flip, _byte, _early_byte, _early_byte, _integer, _delete, _double, _move, _truncate, _insert, _word, _number,
    _splice,
)  # fmt: skip


def smaller(data: bytes, fails: Callable[[bytes], bool], tries: int = 400) -> bytes:
    """A shorter input that fails likewise: pieces are left out, large ones first, as long as it goes on failing."""
    size = len(data) // 2
    while size and tries:
        at = 0
        while at < len(data) and tries:
            shorter = data[:at] + data[at + size :]
            tries -= 1
            if fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data
