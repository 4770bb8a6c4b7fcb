"""Datagrams of one size end to end, as one buffer: what a segmented send takes and a coalesced receive gives.

Pure. A packet is no object of its own on any way: what all of a batch share is read through strides of the buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

_new = tuple.__new__


class _Sized(NamedTuple):
    data: bytes
    """All of them, end to end."""
    size: int
    """How many bytes each has, but for the last, which may be shorter."""
    total: int
    """How many there are; none in an empty buffer."""


class Batch(_Sized):
    """Datagrams that go the same way at the same moment: `data` is all of them, end to end, of `size` bytes each."""

    __slots__ = ()

    def __new__(cls, data: bytes, size: int) -> Self:
        """Of so many bytes each; the last may be shorter."""
        return _new(cls, (data, size, -(-len(data) // size) if data else 0))

    def __getnewargs__(self) -> tuple[bytes, int]:
        """What makes another like it."""
        return self.data, self.size

    @property
    def last(self) -> int:
        """Bytes of the last datagram."""
        return len(self.data) - (self.total - 1) * self.size if self.data else 0

    def datagrams(self) -> list[bytes]:
        """Each datagram by itself."""
        data, size, _ = self
        if len(data) <= size:
            return [data] if data else []
        return [data[at : at + size] for at in range(0, len(data), size)]

    def part(self, first: int, after: int) -> Batch:
        """The datagrams from `first` to the one before `after`."""
        data, size, total = self
        if first == 0 and after >= total:
            return self
        return _new(Batch, (data[first * size : after * size], size, max(0, min(after, total) - first)))

    def column(self, at: int) -> bytes:
        """The byte at `at` of every datagram, in their order; shorter where the last one ends before it."""
        return self.data[at :: self.size]


def batches(datagrams: Iterable[bytes]) -> Iterator[Batch]:
    """Datagrams in their order as batches: runs of one size, the last of a run possibly shorter. Without empty ones."""
    run: list[bytes] = []
    size = 0
    for data in datagrams:
        if not data:
            continue
        if run and (len(run[-1]) < size or len(data) > size):
            yield Batch(b"".join(run), size)
            run = []
        if not run:
            size = len(data)
        run.append(data)
    if run:
        yield Batch(run[0] if len(run) == 1 else b"".join(run), size)
