"""Pictures whose packets say nothing of their place: what a picture is, markers and numbers tell alone. Pure.

A picture begins after the packet that ends another one, and ends with its marker (RFC 3550 5.1, RFC 3551 section 5).
"""

from __future__ import annotations

from collections.abc import Callable

from avlab.wire.batch import Batch, batches
from avlab.wire.payloads.jpeg import MAX_FRAGMENTS
from avlab.wire.rtp import MARKER, Packed, payloads, serialize_header
from avlab.wire.units import JPEG_CODING, WireError


class MarkedAssembler:
    """Puts one picture together from payloads in the order of their numbers.

    `unpack` makes its bytes of the payloads, None for each that is lost, or says None. It is asked when all are there,
    and with `rescues` at the deadline, too. `coding` is what those bytes are.
    """

    def __init__(
        self,
        unpack: Callable[[list[bytes | None]], bytes | None],
        *,
        coding: str = JPEG_CODING,
        rescues: bool = True,
    ) -> None:
        self.coding = coding
        self.key = True
        self.refused: WireError | None = None
        self._unpack, self._rescues = unpack, rescues
        self._payloads: dict[int, bytes] = {}
        self._lowest = self._highest = 0  # of their numbers
        self._first: int | None = None
        self._last: int | None = None

    def add_run(self, sequence: int, marker: bool, batch: Batch, /) -> list[WireError]:
        """See `formats.Assembler`."""
        last = sequence + batch.total - 1
        beyond = (self._last is not None and last > self._last) or (self._first is not None and sequence < self._first)
        lowest, highest = sequence, last
        if self._payloads:
            lowest, highest = min(lowest, self._lowest), max(highest, self._highest)
        if beyond or highest - lowest >= MAX_FRAGMENTS:
            return [WireError(f"Packet {sequence} is no part of the picture whose timestamp it has.")]
        for number, payload in enumerate(payloads(batch), sequence):
            self._payloads.setdefault(number, payload)
        self._lowest, self._highest = lowest, highest
        if marker:
            self._last = last
        return []

    def begins(self, sequence: int, /) -> None:
        """See `formats.Assembler`."""
        if not self._payloads or sequence <= self._lowest:
            self._first = sequence

    def ends(self, sequence: int, /) -> None:
        """See `formats.Assembler`."""
        if self._last is None and self._payloads and sequence == self._highest:
            self._last = sequence

    @property
    def complete(self) -> bool:
        """Whether all packets are there, from the first to the marker."""
        if self._first is None or self._last is None:
            return False
        return len(self._payloads) == self._last - self._first + 1

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers known to be wanting; the one after the highest, where the marker is."""
        if not self._payloads or self.complete:
            return ()
        first, last = self._span()
        return tuple(number for number in range(first, last + 1) if number not in self._payloads)

    def frame(self) -> bytes | None:
        """See `formats.Assembler`."""
        return self._made()

    def rescued(self) -> bytes | None:
        """See `formats.Assembler`."""
        return self._made() if self._rescues and self._payloads else None

    def _span(self) -> tuple[int, int]:
        first = self._lowest if self._first is None else self._first
        return first, self._highest + 1 if self._last is None else self._last

    def _made(self) -> bytes | None:
        first, last = self._span()
        return self._unpack([self._payloads.get(number) for number in range(first, last + 1)])


def packed_payloads(payloads: list[bytes], payload_type: int) -> Packed:
    """Payloads of whatever sizes as one picture's packets, the marker on the last."""
    plain = serialize_header(payload_type, 0, 0, 0, False)
    last = serialize_header(payload_type, 0, 0, 0, True)
    packets = [plain + payload for payload in payloads[:-1]]
    first, *others = batches([*packets, last + payloads[-1]])
    assert last[1] & MARKER
    return Packed(first, rest=tuple(others))
