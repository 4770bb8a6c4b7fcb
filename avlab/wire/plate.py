"""A frame's packets in one buffer that every client's numbers are stamped into in turn, for a system that copies them.

Pure. What clients are sent differs in two fields of each header; laid out anew for each, a frame would be copied as
often as there are clients.
"""

from __future__ import annotations

import numpy as np

from avlab.wire.batch import Batch
from avlab.wire.rtp import Packed

_HEADS = np.dtype([("first", "u1"), ("second", "u1"), ("sequence", ">u2"), ("timestamp", ">u4"), ("ssrc", ">u4")])

_COUNTING = (np.arange(0x10000 + 0x4000) & 0xFFFF).astype(">u2")
"""Consecutive sequence numbers, from any of them on."""


class PassingBatch(Batch):
    """Packets whose bytes hold until others are stamped into their place: for whoever copies them at once."""

    __slots__ = ()

    def kept(self) -> Batch:
        """See `Batch`: a copy."""
        return Batch(bytes(self.data), self.size)


class Plate:
    """The packets of a frame, or of a chunk, the first of which has this RTP timestamp; ValueError for others than it
    `takes`.

    `batch` is they, as last stamped; `ticks` is how far apart their timestamps are, and `marker` whether the last one
    has it.
    """

    def __init__(self, packed: Packed, timestamp: int) -> None:
        blank, kind = packed.batch, packed.kind
        if kind is None:
            raise ValueError("packets of more than one run are laid out for each client")
        data = bytearray(blank.data)
        # Their headers, wherever they stand: the last packet may be shorter, and has a whole one.
        heads = np.ndarray((blank.total,), _HEADS, data, strides=(blank.size,))
        heads["timestamp"] = timestamp
        if kind.ticks:
            heads["timestamp"] += np.arange(blank.total, dtype=np.uint32) * np.uint32(kind.ticks)
        self.timestamp, self.ticks, self.marker = timestamp, kind.ticks, kind.marker
        self._sequences, self._sources = heads["sequence"], heads["ssrc"]
        self._count = blank.total
        self.batch = PassingBatch(memoryview(data), blank.size)  # type: ignore[arg-type]  # bytes, for the time being

    @staticmethod
    def takes(packed: Packed) -> bool:
        """Whether packets are one run, of one size: others are laid out for each client."""
        return packed.kind is not None and not packed.rest

    def stamp(self, sequence: int, ssrc: int) -> None:
        """They are this source's from now on, numbered from `sequence` on, which has 16 bits."""
        self._sequences[:] = _COUNTING[sequence : sequence + self._count]
        self._sources.fill(ssrc)
