"""A sound device in virtual time: asks for a block at a time, by a clock of its own, ahead of when it is heard."""

from __future__ import annotations

import math
from dataclasses import dataclass

from avlab.core.sink import BufferSink
from avlab.timing.playout import ClockReading
from avlab.wire.units import NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a simulated sound device is like; without settings, as the one that keeps time in silence on sockets.

    ValueError for what is out of range.
    """

    block: float = 0.01
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
        self._rate, self._latency_ns = rate, round(device.latency * NS)
        self._speed = device.ppm * 1e-6
        self._blocks_a_second = 1 / device.block
        self._block = 0  # the one that is asked for next
        self._given = self._until = 0  # sample frames that it has had, and will have had with that one
        self.sink = BufferSink(rate=rate, channels=channels, lead_ns=self._latency_ns)
        self.due_ns = self._plan()

    def ask(self, before_ns: int) -> list[ClockReading]:
        """Take all blocks that are due before a moment; what is heard when each is. Nothing before there is sound."""
        readings: list[ClockReading] = []
        pass_by, latency_ns = self.sink.pass_by, self._latency_ns
        due_ns = self.due_ns
        while due_ns < before_ns:
            until = self._until
            reading = pass_by(until - self._given, due_ns + latency_ns)
            if reading is not None:
                readings.append(reading)
            self._given = until
            due_ns = self.due_ns = self._plan()
        return readings

    def _plan(self) -> int:
        """When the next block is asked for; `_until` is the last sample frame that it has then."""
        self._block = block = self._block + 1
        self._until = math.floor(block * self._rate / self._blocks_a_second + 0.5)
        return round(block * NS / self._blocks_a_second / (1 + self._speed))
