"""Sound on its way to the device: placed by its timestamps, read by the device's clock, kept from drifting. Pure.

The device pulls: `read` is called for each block it wants. Sender and device never run at quite the same rate (200 ppm
empties a 100 ms buffer in eight minutes), so one sample is interpolated in or out of a block whenever the buffer's
level has moved; pictures follow the sound.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from avlab.timing.drift import RateEstimator
from avlab.timing.playout import ClockReading
from avlab.wire.units import NS, Samples

FADE_NS = 3_000_000
"""How long sound takes to fade at the edge of a gap, so that the gap is no click."""

LIMIT_NS = 10 * NS
"""The most sound held; a sender that is further ahead loses its oldest."""


@dataclass(frozen=True, slots=True)
class Played:
    """A run of sound that has left the buffer: `heard_ns` is when its first sample sounds, None if it never did."""

    ticks: int
    pts_ns: int
    size: int  # in samples
    arrived_ns: int
    heard_ns: int | None
    reason: str  # shown, late, skipped or in_flight


@dataclass(slots=True)
class _Run:
    position: int  # in samples of media time
    samples: Samples
    ticks: int
    pts_ns: int
    arrived_ns: int
    heard_ns: int | None = None

    @property
    def end(self) -> int:
        return self.position + len(self.samples)


class LevelControl:
    """Decides when a sample goes in or out: a thermostat on how early sound comes before it is heard.

    `margin_ns` is sampled at each arrival. The first `settle` arrivals set the level to be kept; from then on its
    moving average is brought back whenever it has strayed by `on_ns`, until within `off_ns`.
    """

    def __init__(self, *, settle: int = 100, smoothing: float = 1 / 256, on_ns: int = 1_500_000) -> None:
        self._settle = settle
        self._smoothing = smoothing
        self._on_ns, self._off_ns = on_ns, on_ns // 6
        self._count = 0
        self._average_ns = 0.0
        self._target_ns: float | None = None
        self._direction = 0

    @property
    def level_ns(self) -> int:
        """The moving average of the margin."""
        return round(self._average_ns)

    def arrival(self, margin_ns: int) -> None:
        """Sound came `margin_ns` before it is to be heard."""
        self._count += 1
        weight = max(self._smoothing, 1 / self._count)
        self._average_ns += weight * (margin_ns - self._average_ns)
        if self._target_ns is None and self._count >= self._settle:
            self._target_ns = self._average_ns

    def shift(self, by_ns: int) -> None:
        """The level is meant to be higher by `by_ns` from here on, and is."""
        self._average_ns += by_ns
        if self._target_ns is not None:
            self._target_ns += by_ns

    def correction(self) -> int:
        """Samples to consume beyond those asked for in this block: +1 when too much is buffered, -1 when too little."""
        if self._target_ns is None:
            return 0
        error = self._average_ns - self._target_ns
        if abs(error) > self._on_ns:
            self._direction = 1 if error > 0 else -1
        elif abs(error) < self._off_ns or error * self._direction < 0:
            self._direction = 0
        return self._direction


class SoundBuffer:
    """Runs of samples in, blocks for the device out, readings for the media clock on the way.

    Not thread-safe: the owner holds a lock around `push` and `read`, which two threads call.
    """

    def __init__(self, *, rate: int, channels: int) -> None:
        self.rate, self.channels = rate, channels
        self.control = LevelControl()
        self.underruns = 0
        self.corrected = 0  # samples taken out less samples put in
        self._sender = RateEstimator()
        self._device = RateEstimator()
        self._runs: deque[_Run] = deque()
        self._base_ns: int | None = None
        self._position: int | None = None  # the next sample to be read, in samples of media time
        self._last: ClockReading | None = None
        self._sounding = False
        self._out = 0
        self._played: list[Played] = []

    @property
    def started(self) -> bool:
        """Whether the first sample has been read."""
        return self._position is not None

    @property
    def skew_ppm(self) -> float:
        """By how much the sender's clock is faster than the device's; NaN until measured."""
        return self._sender.ppm - self._device.ppm

    def begin(self, base_ns: int) -> None:
        """Media time 0 is to be heard at `base_ns`."""
        self._base_ns = base_ns

    def push(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> bool:
        """A run of int16 samples (n, channels) whose first is media time `pts_ns`; False if it comes too late."""
        position = _samples(pts_ns, self.rate)
        self._sender.update(now_ns, pts_ns)
        run = _Run(position, samples, ticks, pts_ns, now_ns)
        if self._position is not None:
            heard_now_ns = self.heard_ns(now_ns)
            if heard_now_ns is not None:
                self.control.arrival(pts_ns - heard_now_ns)
            if run.end <= self._position:
                self._finish(run, "late")
                return False
        at = len(self._runs)
        while at and self._runs[at - 1].position > position:
            at -= 1
        self._runs.insert(at, run)
        while self._runs[-1].end - self._runs[0].position > LIMIT_NS * self.rate // NS:
            self._finish(self._runs.popleft(), "skipped")
        return True

    def shift(self, by_ns: int) -> None:
        """Hear everything later by `by_ns` (earlier when negative): silence goes in, or sound is left out."""
        if self._base_ns is not None:
            self._base_ns += by_ns
        if self._position is not None:
            self._position -= _samples(by_ns, self.rate)
            self._sounding = False  # fades in from here
            self.control.shift(by_ns)

    def read(self, count: int, heard_ns: int) -> tuple[Samples, ClockReading | None]:
        """`count` samples, int16 (count, channels), of which the first is heard at `heard_ns`; and what is heard then.

        Silence until the moment given to `begin` comes, sample-exactly; silence with faded edges where nothing is.
        """
        self._device.update(heard_ns, self._out * NS // self.rate)
        self._out += count
        block = np.zeros((count, self.channels), dtype=np.int16)
        if self._position is None:
            if self._base_ns is None:
                return block, None
            wanted = _samples(heard_ns - self._base_ns, self.rate)
            first = self._runs[0].position if self._runs else None
            if first is None or wanted + count <= first:
                return block, ClockReading(_ns(wanted, self.rate), heard_ns)
            self._position = wanted
        consume = count + (self.control.correction() if self._sounding else 0)
        reading = ClockReading(_ns(self._position, self.rate), heard_ns)
        self._last = reading
        self.corrected += consume - count
        self._take(block, consume, heard_ns)
        return block, reading

    def heard_ns(self, now_ns: int) -> int | None:
        """The media time that is heard at a moment; None before sound has begun."""
        return None if self._last is None else self._last.media_ns + (now_ns - self._last.now_ns)

    def played(self) -> list[Played]:
        """The runs that have left the buffer since the last call."""
        out, self._played = self._played, []
        return out

    def flush(self) -> list[Played]:
        """What is left at the end of a run, as in flight."""
        while self._runs:
            self._finish(self._runs.popleft(), "in_flight")
        return self.played()

    def buffered_ns(self) -> int:
        """Sound that waits to be read."""
        if not self._runs:
            return 0
        begin = self._runs[0].position if self._position is None else self._position
        return max(0, _ns(self._runs[-1].end - begin, self.rate))

    def _take(self, block: Samples, consume: int, heard_ns: int) -> None:
        """Fill the block from the `consume` samples at the position, and move on."""
        assert self._position is not None
        begin, end = self._position, self._position + consume
        source = block if consume == len(block) else np.zeros((consume + 1, self.channels), dtype=np.int16)
        edge = begin + len(source)  # when samples are interpolated, one beyond the end is looked at
        holes: list[tuple[int, int]] = []
        covered = begin
        for run in self._runs:
            if run.position >= edge:
                break
            if run.end <= covered:
                continue
            left, right = max(run.position, covered), min(run.end, edge)
            source[left - begin : right - begin] = run.samples[left - run.position : right - run.position]
            if left > covered:
                holes.append((covered - begin, left - begin))
            if run.heard_ns is None and left < end:
                run.heard_ns = heard_ns + _ns(left - begin, self.rate)
            covered = right
        if covered < end:
            holes.append((covered - begin, edge - begin))
        self._fade(source, holes, ends=not any(run.position <= end < run.end for run in self._runs))
        if source is not block:
            block[:] = _stretch(source, consume, len(block))
        self._position = end
        while self._runs and self._runs[0].end <= end:
            self._finish(self._runs.popleft(), "shown")

    def _fade(self, source: Samples, holes: list[tuple[int, int]], *, ends: bool) -> None:
        """Ramp the sound down before each hole and up after it; down at the block's end when nothing follows yet."""
        whole = len(source)
        ramp = min(whole, max(1, FADE_NS * self.rate // NS))
        was_sounding = self._sounding
        self._sounding = not ends
        if was_sounding and (holes or ends):
            self.underruns += 1
        if ends and not (holes and holes[-1][1] == whole):
            source[whole - ramp :] = _scaled(source[whole - ramp :], _ramp(ramp)[::-1])
        for left, right in holes:
            if left > 0:
                size = min(ramp, left)
                source[left - size : left] = _scaled(source[left - size : left], _ramp(size)[::-1])
            if right < whole:
                size = min(ramp, whole - right)
                source[right : right + size] = _scaled(source[right : right + size], _ramp(size))
        if not was_sounding and (not holes or holes[0][0] > 0):  # sound begins with the block itself
            source[:ramp] = _scaled(source[:ramp], _ramp(ramp))

    def _finish(self, run: _Run, reason: str) -> None:
        if reason == "shown" and run.heard_ns is None:
            reason = "late"
        heard_ns = run.heard_ns if reason == "shown" else None
        self._played.append(Played(run.ticks, run.pts_ns, len(run.samples), run.arrived_ns, heard_ns, reason))


def _samples(ns: int, rate: int) -> int:
    return (ns * rate + NS // 2) // NS


def _ns(samples: int, rate: int) -> int:
    return samples * NS // rate


@lru_cache(maxsize=16)
def _ramp(size: int) -> NDArray[np.float32]:
    return np.linspace(0, 1, size + 2, dtype=np.float32)[1:-1, None]


def _scaled(samples: Samples, gain: NDArray[np.float32]) -> Samples:
    return np.round(samples * gain).astype(np.int16)


@lru_cache(maxsize=16)
def _grid(consume: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    at = np.arange(count) * (consume / count)
    whole = at.astype(np.intp)
    return whole, (at - whole).astype(np.float32)[:, None]


def _stretch(source: Samples, consume: int, count: int) -> Samples:
    """`count` samples spread evenly over `consume` of the source's `consume + 1`, by linear interpolation."""
    whole, part = _grid(consume, count)
    left = source[whole].astype(np.float32)
    return np.round(left + (source[whole + 1] - left) * part).astype(np.int16)
