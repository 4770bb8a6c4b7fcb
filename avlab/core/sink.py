"""Where a player's sound goes: what it asks of whoever has the device, and a buffer that does it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from avlab.timing.playout import ClockReading
from avlab.timing.soundbuffer import Played, PlayedChunk, SoundBuffer, SoundChunk
from avlab.wire.units import Samples

SPARE_NS = 20_000_000
"""The least time between sound's arrival and the device's asking for it."""


class SoundSink(Protocol):
    """Where sound goes to be heard: a buffer from which a device pulls. It may have a lock; the player has none."""

    @property
    def channels(self) -> int:
        """How many channels the sound has."""

    @property
    def lead_ns(self) -> int:
        """How long before it is heard the device asks for sound."""

    @property
    def least_delay_ns(self) -> int:
        """How long before it is heard sound must come; less, and it is too late."""

    @property
    def sink_lead_ns(self) -> int:
        """How long before it is heard another place than the client's own device wants sound; 0 for that device."""

    @property
    def drained(self) -> bool:
        """Whether nothing waits to be heard."""

    def take(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> bool:
        """A packet's sound; False if it comes too late."""

    def take_together(self, chunk: SoundChunk) -> Sequence[bool]:
        """The sound of packets that came together: as `take` for each."""

    def begin(self, base_ns: int) -> None:
        """Media time 0 is to be heard at `base_ns`. Readings from before hold no more."""

    def shift(self, by_ns: int) -> None:
        """Hear everything later by `by_ns` from here on. Readings from before hold no more."""

    def follow(self, by_ns: int) -> None:
        """Hear everything later by `by_ns`, as everything comes later by that. Readings from before hold no more."""

    def ease(self, by_ns: int) -> None:
        """Hear everything earlier by `by_ns` in the end, unheard; 0 for no more than has been."""

    def heard(self, now_ns: int) -> tuple[int | None, int, float]:
        """Media time heard at a moment (None before sound began), the buffer's depth in ns, the clocks' skew in ppm."""

    def played(self, *, last: bool = False) -> Sequence[Played | PlayedChunk]:
        """What has been heard, or was not, since the last call; with `last`, also what is left, as in flight."""


class BufferSink:
    """A `SoundSink` for a device on the player's own thread, a simulated one for instance: `read` is called for each
    block that it wants, and what that says is heard goes to `Player.heard`.

    `rate` is in sample frames a second; `lead_ns` is how long before it is heard the device asks for sound.
    """

    def __init__(self, *, rate: int, channels: int, lead_ns: int = 0) -> None:
        self.channels, self.lead_ns = channels, lead_ns
        self.sink_lead_ns = 0  # there is no other place for the sound
        self._buffer = SoundBuffer(rate=rate, channels=channels)
        # Called for each block and each chunk.
        self.pass_by = self._buffer.pass_by
        """As `read`, for a device that nobody listens to: what is heard, and no sound."""
        self.take_together = self._buffer.push_together
        """See `SoundSink`."""

    @property
    def least_delay_ns(self) -> int:
        """The device must be ahead of the sound by more than its own latency, or the first late packet is a gap."""
        return self.lead_ns + SPARE_NS

    @property
    def drained(self) -> bool:
        """Whether nothing waits to be heard."""
        return not self._buffer.started or self._buffer.buffered_ns() == 0

    def read(self, count: int, heard_ns: int) -> tuple[Samples, ClockReading | None]:
        """`count` sample frames, of which the first is heard at `heard_ns`; and what is heard then."""
        return self._buffer.read(count, heard_ns)

    def take(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> bool:
        """See `SoundSink`."""
        return self._buffer.push(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns)

    def begin(self, base_ns: int) -> None:
        """See `SoundSink`."""
        self._buffer.begin(base_ns)

    def shift(self, by_ns: int) -> None:
        """See `SoundSink`."""
        self._buffer.shift(by_ns)

    def follow(self, by_ns: int) -> None:
        """See `SoundSink`."""
        self._buffer.follow(by_ns)

    def ease(self, by_ns: int) -> None:
        """See `SoundSink`."""
        self._buffer.ease(by_ns)

    def heard(self, now_ns: int) -> tuple[int | None, int, float]:
        """See `SoundSink`."""
        return self._buffer.heard_ns(now_ns), self._buffer.control.level_ns, self._buffer.skew_ppm

    def played(self, *, last: bool = False) -> list[Played | PlayedChunk]:
        """See `SoundSink`."""
        played = self._buffer.played()
        return played + self._buffer.flush() if last else played
