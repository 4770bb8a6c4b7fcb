"""Datagrams of one size end to end, as one buffer: what a segmented send takes and a coalesced receive gives.

Pure. A packet is no object of its own on any way: what all of a batch share is read through strides of the buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class Batch:
    """Datagrams that go the same way at the same moment: `data` is all of them, end to end, of `size` bytes each.

    The last may be shorter, `last` bytes. `total` is how many there are, none in an empty buffer, `length` their bytes.
    """

    __slots__ = ("data", "last", "length", "size", "total")

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = data, size
        self.length = length = len(data)
        self.total = total = -(-length // size) if length else 0
        self.last = length - (total - 1) * size if length else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and self.size == other.size and self.data == other.data

    def __hash__(self) -> int:
        return hash((self.data, self.size))

    def __repr__(self) -> str:
        return f"Batch({self.data!r}, {self.size})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Batch, (self.data, self.size)

    @property
    def body(self) -> bytes:
        """As `data`, for whoever looks at no header: those may be blank here."""
        return self.data

    def datagrams(self) -> list[bytes]:
        """Each datagram by itself."""
        data, size = self.data, self.size
        if len(data) <= size:
            return [data] if data else []
        return [data[at : at + size] for at in range(0, len(data), size)]

    def datagram(self, at: int) -> bytes:
        """One of them, counted from 0."""
        return self.data[at * self.size : (at + 1) * self.size]

    def part(self, first: int, after: int) -> Batch:
        """The datagrams from `first` to the one before `after`."""
        if first == 0 and after >= self.total:
            return self
        return Batch(self.data[first * self.size : after * self.size], self.size)

    def kept(self) -> Batch:
        """The same for whoever keeps it: some batches hold no longer than a call."""
        return self

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
