"""Datagrams of one size end to end, as one buffer: what a segmented send takes and a coalesced receive gives.

Pure. A packet is no object of its own on any way: what all of a batch share is read through strides of the buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Batch(NamedTuple):
    """Datagrams that go the same way at the same moment.

    `data` is all of them, end to end; `size` is how many bytes each has, but for the last, which may be shorter.
    """

    data: bytes
    size: int

    @property
    def total(self) -> int:
        """How many datagrams there are; none in an empty buffer."""
        return -(-len(self.data) // self.size) if self.data else 0

    @property
    def last(self) -> int:
        """Bytes of the last datagram."""
        return len(self.data) - (self.total - 1) * self.size if self.data else 0

    def datagrams(self) -> list[bytes]:
        """Each datagram by itself."""
        data, size = self.data, self.size
        if len(data) <= size:
            return [data] if data else []
        return [data[at : at + size] for at in range(0, len(data), size)]

    def part(self, first: int, after: int) -> Batch:
        """The datagrams from `first` to the one before `after`."""
        if first == 0 and after >= self.total:
            return self
        return Batch(self.data[first * self.size : after * self.size], self.size)

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
