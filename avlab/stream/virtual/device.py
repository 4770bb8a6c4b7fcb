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
        self._asked = 0  # blocks
        self._given = 0  # sample frames
        self.sink = BufferSink(rate=rate, channels=channels, lead_ns=self._latency_ns)
        self.due_ns = self._moment_ns(1)

    def ask(self, before_ns: int) -> list[ClockReading]:
        """Take all blocks that are due before a moment; what is heard when each is. Nothing before there is sound."""
        readings: list[ClockReading] = []
        pass_by, rate, blocks_a_second = self.sink.pass_by, self._rate, self._blocks_a_second
        while self.due_ns < before_ns:
            self._asked += 1
            until = math.floor(self._asked * rate / blocks_a_second + 0.5)
            count, self._given = until - self._given, until
            due_ns, self.due_ns = self.due_ns, self._moment_ns(self._asked + 1)
            reading = pass_by(count, due_ns + self._latency_ns)
            if reading is not None:
                readings.append(reading)
        return readings

    def _moment_ns(self, block: int) -> int:
        return round(block * NS / self._blocks_a_second / (1 + self._speed))
