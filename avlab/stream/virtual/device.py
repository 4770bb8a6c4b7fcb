"""A sound device in virtual time: asks for a block at a time, by a clock of its own, ahead of when it is heard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count

import numpy as np

from avlab.core.sink import BufferSink
from avlab.timing.playout import ClockReading
from avlab.wire.units import NS

PLANNED = 256
"""Blocks whose moments are reckoned at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a simulated sound device is like; without settings, as the one that keeps time in silence on sockets.

    ValueError for what is out of range.
    """

    block: float = 0.02
    """Seconds of sound that it asks for at a time, 0.001 to 1."""
    latency: float = 0.01
    """Seconds from its asking for a block to that being heard, 0 to 5."""
    ppm: float = 0.0
    """By how much its clock is fast, in parts per million, -100,000 to 100,000."""

    def __post_init__(self) -> None:
        for name, least, most in (("block", 0.001, 1.0), ("latency", 0.0, 5.0), ("ppm", -1e5, 1e5)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"a device's {name} must be a number from {least:g} to {most:,g}, not {value!r:.60}")


class WorkingDevice:
    """The device at work: `due_ns` is when it asks next, `ask` has it do so."""

    def __init__(self, device: Device, *, rate: int, channels: int) -> None:
        self._latency_ns = round(device.latency * NS)
        self.sink = BufferSink(rate=rate, channels=channels, lead_ns=self._latency_ns)
        self._blocks = chain.from_iterable(_planned(device, rate))
        self.due_ns, self._count = next(self._blocks)

    def ask(self, before_ns: int) -> list[ClockReading]:
        """Take all blocks that are due before a moment; what is heard when each is. Nothing before there is sound."""
        readings: list[ClockReading] = []
        due_ns, count, latency_ns, pass_by = self.due_ns, self._count, self._latency_ns, self.sink.pass_by
        while due_ns < before_ns:
            reading = pass_by(count, due_ns + latency_ns)
            if reading is not None:
                readings.append(reading)
            due_ns, count = next(self._blocks)
        self.due_ns, self._count = due_ns, count
        return readings


def _planned(device: Device, rate: int) -> Iterator[Iterator[tuple[int, int]]]:
    """When each block is asked for, and how many sample frames it has: some blocks at a time."""
    a_second, speed = 1 / device.block, 1 + device.ppm * 1e-6
    begin = 0
    for first in count(1, PLANNED):
        blocks = np.arange(first, first + PLANNED)
        ends = np.floor(blocks * rate / a_second + 0.5).astype(np.int64)
        due_ns = np.rint(blocks * NS / a_second / speed).astype(np.int64)
        yield zip(due_ns.tolist(), np.diff(ends, prepend=begin).tolist(), strict=True)
        begin = int(ends[-1])
