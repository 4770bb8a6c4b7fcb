"""The moments at which one end told its time, so that an answer that echoes one is known for it. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from avlab.wire.rtcp import ns_to_ntp
from avlab.wire.units import NS

MOST_KEPT = 128
"""A minute of reports that go twice a second: what is answered later is answered too late."""


class Moments:
    """What one end has told of its clock: 64 bits of NTP time for the wire, whose middle 32 bits come back.

    `unix_offset_ns` is Unix time less the driver's clock, in nanoseconds.
    """

    def __init__(self, unix_offset_ns: int = 0) -> None:
        self.unix_offset_ns = unix_offset_ns
        self._kept: OrderedDict[int, int] = OrderedDict()

    def tell(self, now_ns: int) -> int:
        """The NTP time of a moment that is about to be told."""
        ntp = ns_to_ntp(now_ns + self.unix_offset_ns)
        self._kept[middle(ntp)] = now_ns
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return ntp

    def echoed(self, bits: int) -> int | None:
        """The moment that an answer names by its middle 32 bits; None for one that was not told, or long ago."""
        return self._kept.get(bits) if bits else None


class Reference(NamedTuple):
    """A time that a receiver told of its own clock, and that is to be answered."""

    ssrc: int
    """The receiver's."""
    bits: int
    """The middle 32 bits of the time."""
    came_ns: int


def middle(ntp: int) -> int:
    """The 32 bits of an NTP time that answers name it by: 16 of seconds, 16 of fraction (RFC 3550 6.4.1)."""
    return ntp >> 16 & 0xFFFFFFFF


def delay_ns(units: int) -> int:
    """A delay in 65,536ths of a second, as DLSR and DLRR have it, in nanoseconds."""
    return units * NS >> 16


def delay_units(ns: int) -> int:
    """The inverse of `delay_ns`, rounded down, within 32 bits."""
    return max(0, min(0xFFFFFFFF, (ns << 16) // NS))
