"""Sound on its way to the device: placed by its timestamps, read by the device's clock, kept from drifting. Pure.

The device pulls: `read` is called for each block it wants. Sender and device never run at quite the same rate (200 ppm
empties a 100 ms buffer in eight minutes), so one sample is interpolated in or out of a block whenever the buffer's
level has moved; pictures follow the sound.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avlab.timing.drift import RateEstimator
from avlab.timing.level import FEW, LevelControl
from avlab.timing.playout import ASTRAY_NS, ClockReading
from avlab.wire.units import NS, Samples

LIMIT_NS = 10 * NS
"""How far ahead of what is heard sound is taken."""

LIMIT_RUNS = 4096
"""The most runs held, however short a sender cuts them."""

CUSHION_NS = 20_000_000
"""How far ahead of the device's reading a sender that jumped is put at least."""

JUMP_NS = 60_000_000
"""A block heard this far from where the one before it ended, three times running, means that the device jumped."""

MEASURE_NS = 100_000_000
"""How often the two clocks are compared; more often would cost more and tell no more."""

EASE = 0.003
"""The part of the samples that is left out while the delay comes down: a twentieth of a semitone higher, which nobody
hears, and 3 ms a second."""

_DECAY_NS = 2_000_000  # in which a step left by a gap dies away to 1/e: slow enough to be no click

_new = tuple.__new__  # a named tuple's own constructor takes twice as long


class SoundChunk(NamedTuple):
    """Packets of sound that came together, each of which goes on where the one before it ends."""

    samples: Samples
    """Of all of them: int16, shape (sample frames, channels)."""
    ticks: int
    """The first one's RTP timestamp, unwrapped."""
    step: int
    """From one timestamp to the next, and how many sample frames each packet has; the last one may have fewer."""
    pts_ns: Sequence[int]
    """The media time of each, to the nearest nanosecond by these timestamps."""
    now_ns: int
    """When they came."""

    def apart(self) -> Iterator[tuple[Samples, int, int]]:
        """Of each packet its samples, timestamp and media time."""
        for at, pts_ns in enumerate(self.pts_ns):
            first = at * self.step
            yield self.samples[first : first + self.step], self.ticks + first, pts_ns


Block = tuple[int, int, int]
"""What a device was given at a time: from which position on, to which, and when the first of it is heard."""


class Played(NamedTuple):
    """A packet's sound that has left the buffer: `heard_ns` is when it began to sound, None if it never did."""

    ticks: int
    pts_ns: int
    size: int  # in samples
    arrived_ns: int
    heard_ns: int | None
    reason: str  # shown, late, skipped or in_flight


class PlayedChunk(NamedTuple):
    """Packets of sound that came together, and have been heard from the first to the last."""

    count: int  # type: ignore[assignment]  # tuple has a method of this name, which nobody misses
    ticks: int
    """The first one's timestamp; the next ones' are `step` apart."""
    step: int
    """And so many samples has each, but for the last."""
    size: int
    """In samples, of all of them."""
    arrived_ns: int
    position: int
    """Of the first sample, in samples of media time."""
    rate: int
    """Samples a second."""
    pts_ns: Sequence[int]
    """Of each."""
    blocks: Sequence[Block]
    """In which they were heard, in their order."""

    @property
    def reason(self) -> str:
        """See `Played`."""
        return "shown"

    def apart(self) -> list[Played]:
        """Each packet by itself."""
        out = []
        for at, pts_ns in enumerate(self.pts_ns):
            first = at * self.step
            heard_ns = _heard_ns(self.position + first, self.blocks, self.rate)
            size = min(self.step, self.size - first)
            out.append(Played(self.ticks + first, pts_ns, size, self.arrived_ns, heard_ns, "shown"))
        return out


class _SoundRun(NamedTuple):
    """A packet's sound, or a chunk's."""

    position: int  # in samples of media time
    end: int
    samples: Samples
    ticks: int
    step: int
    pts_ns: Sequence[int]  # of each packet
    arrived_ns: int
    blocks: list[Block]  # in which it has been heard so far; a single packet's begin with the first of it

    def apart(self) -> Iterator[_SoundRun]:
        """Each packet by itself."""
        if len(self.pts_ns) == 1:
            yield self
            return
        for at, pts_ns in enumerate(self.pts_ns):
            first = at * self.step
            samples = self.samples[first : first + self.step]
            position = self.position + first
            end = position + len(samples)
            blocks = [block for block in self.blocks if block[0] < end and block[1] > position]
            known = position, end, samples, self.ticks + first, 0, (pts_ns,), self.arrived_ns, blocks
            yield _new(_SoundRun, known)


class SoundBuffer:
    """Runs of samples in, blocks for the device out, readings for the media clock on the way.

    Not thread-safe: the owner holds a lock around its methods, which two threads call.
    """

    def __init__(self, *, rate: int, channels: int) -> None:
        self.rate, self.channels = rate, channels
        self.control = LevelControl()
        self.underruns = 0  # how often sound broke off for want of samples, the end of a stream included
        self.corrected = 0  # samples taken out less samples put in
        self.cuts = 0  # how often sound was left out, or silence put in, at a stroke
        self._runs: deque[_SoundRun] = deque()  # by position
        self._chunks = 0  # how many of them are several packets'
        self._played: list[Played | PlayedChunk] = []
        self._limit = LIMIT_NS * rate // NS
        self._base_ns: int | None = None
        self._position: int | None = None  # the next sample to be read, in samples of media time
        self._spent = 0  # samples before this position were read, and are not heard again when the position steps back
        self._blocks: list[Block] = []  # that devices have taken of what is there, and that runs know nothing of yet
        self._orderly = 0  # from this position on, nothing is in two runs, or was read before
        self._astray_ns: int | None = None  # since when all that came was out of reach

        self._read = 0  # samples given to the device
        self._last: ClockReading | None = None  # of the newest block, once sound has begun
        self._due_ns = 0  # when the newest block ends, once sound has begun
        self._strange = 0
        self._skew = RateEstimator()
        self._measure_ns = 0  # when to compare the clocks again

        self._ease_credit = 0.0  # samples that may be left out by now, while the delay comes down
        self._follows: int | None = None  # the position that continues what was sent last; None after silence
        self._sent = np.zeros((1, channels), np.int16)  # the newest block
        self._step: NDArray[np.float32] | None = None  # what is left of the newest step in the sound, dying away

    @property
    def started(self) -> bool:
        """Whether the first sample has been read."""
        return self._position is not None

    @property
    def skew_ppm(self) -> float:
        """By how much the sender's clock is faster than the device's; NaN until measured."""
        return self._skew.ppm

    def begin(self, base_ns: int) -> None:
        """Media time 0 is to be heard at `base_ns`."""
        self._base_ns = base_ns

    def push(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> bool:
        """A run of int16 samples (n, channels) whose first is media time `pts_ns`; False if it comes too late."""
        position = (pts_ns * self.rate + NS // 2) // NS
        end, here = position + len(samples), self._position
        run: _SoundRun = _new(_SoundRun, (position, end, samples, ticks, 0, (pts_ns,), now_ns, []))
        if here is not None and here < end and position - here <= self._limit:
            self._astray_ns = None
        elif not self._in_reach(run, now_ns):
            late = self._position is not None and run.end <= self._position
            self._finish(run, "late" if late else "skipped")
            return not late
        if self._last is not None:
            heard_now_ns, since_ns = self._last
            margin_ns = pts_ns - heard_now_ns - now_ns + since_ns
            if self.control.arrival(margin_ns):
                self._catch_up()
            if now_ns >= self._measure_ns:
                self._measure(pts_ns, now_ns, margin_ns=margin_ns)
        if not self._runs or self._runs[-1].end <= position:
            self._runs.append(run)
        else:
            self._take_apart(end)
            self._runs.insert(bisect_right(self._runs, position, key=attrgetter("position")), run)
        if len(self._runs) > LIMIT_RUNS:
            self._settle()
            self._finish(self._runs.popleft(), "skipped")
        return True

    def push_together(self, chunk: SoundChunk) -> list[bool]:
        """A chunk's packets, as `push` for each: in less time where they are as they should.

        That is: within reach, after all that is there, and with the level where it is kept. They are one run then.
        """
        samples, ticks, step, pts_ns, now_ns = chunk
        here, last, runs, control, rate = self._position, self._last, self._runs, self.control, self.rate
        position, rest = divmod(pts_ns[0] * rate + NS // 2, NS)
        end = position + len(samples)
        if (
            here is None
            or last is None
            or not here < position
            or self._spent > position
            or end - self._limit > here
            or not rate < rest < NS - rate  # else rounded moments may not be a whole step of samples apart
            or len(runs) + len(pts_ns) > LIMIT_RUNS
            or (runs and runs[-1].end > position)
            or not control.calm
            or len(pts_ns) > FEW
        ):
            return [self.push(each, ticks=stamp, pts_ns=at_ns, now_ns=now_ns) for each, stamp, at_ns in chunk.apart()]
        self._astray_ns = None
        lead_ns = last[1] - last[0] - now_ns
        told = 0
        while now_ns >= self._measure_ns and told < len(pts_ns):
            margin_ns = pts_ns[told] + lead_ns
            control.arrival(margin_ns)
            self._measure(pts_ns[told], now_ns, margin_ns=margin_ns)
            told += 1
        control.arrivals(pts_ns[told:] if told else pts_ns, lead_ns)
        runs.append(_new(_SoundRun, (position, end, samples, ticks, step, pts_ns, now_ns, [])))
        self._chunks += 1
        return [True] * len(pts_ns)

    def shift(self, by_ns: int) -> None:
        """Hear everything later by `by_ns` (earlier when negative): silence goes in, or sound is left out."""
        self._move(by_ns)
        self.control.shift(by_ns)

    def follow(self, by_ns: int) -> None:
        """Hear everything later by `by_ns`, as everything comes later by that: the sender stood still."""
        self._move(by_ns)

    def ease(self, by_ns: int) -> None:
        """Hear everything earlier by `by_ns` in the end, by so few samples a block that none is missed; 0: no more."""
        self.control.ease(by_ns)

    def read(self, count: int, heard_ns: int) -> tuple[Samples, ClockReading | None]:
        """`count` samples, int16 (count, channels), of which the first is heard at `heard_ns`; and what is heard then.

        Silence until the moment given to `begin` comes, sample-exactly, and silence where nothing is. There is no step
        where sound sets in or breaks off: the difference to the sample before it dies away within milliseconds.
        """
        heard_ns, reading, begin = self._reach(count, heard_ns)
        if begin is None:
            return self._silence(count), reading
        consume = self._consume(begin, count, heard_ns)
        if consume == count:
            block, holes = self._gather(begin, count)
        else:
            block, holes = stretch(self._gather(begin, consume + 1)[0], consume, count), []
        self._leave(begin + consume)
        return self._smooth(block, holes, begin, begin + consume), reading

    def pass_by(self, count: int, heard_ns: int) -> ClockReading | None:
        """As `read`, for a device that nobody listens to: no block is made. Underruns are not counted."""
        begin, due_ns, control = self._position, self._due_ns, self.control
        if begin is None or begin < self._orderly or control.wish or control.easing_ns > 0:
            return self._pass_by_oddly(count, heard_ns)
        if not -JUMP_NS <= heard_ns - due_ns <= JUMP_NS:
            return self._pass_by_oddly(count, heard_ns)
        rate, end, runs = self.rate, begin + count, self._runs
        self._strange = 0
        self._due_ns = heard_ns + count * NS // rate
        self._read += count
        self._follows = None
        self._position = self._spent = end
        self._blocks.append((begin, end, heard_ns))
        if not runs or runs[0].end <= end:
            self._leave(end)
        self._last = reading = _new(ClockReading, (begin * NS // rate, heard_ns))
        return reading

    def _pass_by_oddly(self, count: int, heard_ns: int) -> ClockReading | None:
        """As `pass_by`, where each run is to be looked at: where sound begins, say, or samples are left out."""
        heard_ns, reading, begin = self._reach(count, heard_ns)
        if begin is not None:
            self._leave(begin + self._consume(begin, count, heard_ns))
            self._follows = None
        return reading

    def _reach(self, count: int, heard_ns: int) -> tuple[int, ClockReading | None, int | None]:
        """When the next `count` samples are heard, what is heard then, and from where on; None before sound begins."""
        heard_ns = self._plausible(heard_ns)
        self._due_ns = heard_ns + count * NS // self.rate
        self._read += count
        if self._position is None:
            if self._base_ns is None:
                return heard_ns, None, None
            wanted = _samples(heard_ns - self._base_ns, self.rate)
            if not self._runs or wanted + count <= self._runs[0].position:
                return heard_ns, ClockReading(_ns(wanted, self.rate), heard_ns), None
            self._position = self._spent = wanted
        self._last = _new(ClockReading, (self._position * NS // self.rate, heard_ns))
        return heard_ns, self._last, self._position

    def _leave(self, end: int) -> None:
        """All before this position has been given to the device."""
        self._position = end
        if end > self._spent:
            self._spent = end
        runs, left = self._runs, end
        while runs and runs[0].end <= end:
            left = runs[0].end
            self._finish(runs.popleft(), "shown")
        if self._blocks:  # the newest one may go on into the next run
            self._blocks = self._blocks[-1:] if runs and left < end else []

    def _hear(self, begin: int, end: int, heard_ns: int) -> bool:
        """A device takes a block, whose first sample is heard at a moment. Whether there are holes in it."""
        self._settle()
        return self._write_block(begin, end, heard_ns, max(begin, self._spent))

    def _settle(self) -> None:
        """Runs are told of the blocks in which they were heard."""
        for begin, end, heard_ns in self._blocks:
            self._write_block(begin, end, heard_ns, begin)
        self._blocks.clear()

    def _write_block(self, begin: int, end: int, heard_ns: int, unheard: int) -> bool:
        """Runs are told of a block, of which all before a position is not heard. Whether there are holes in it."""
        done, holes, block = begin, False, (begin, end, heard_ns)
        for run in self._runs:
            left, right = run.position, run.end
            if left >= end:
                break
            if left >= unheard:
                run.blocks.append(block)
                holes = holes or left > done
            elif right > unheard and end > unheard:
                run.blocks.append((unheard, end, heard_ns + (unheard - begin) * NS // self.rate))
                holes = holes or unheard > done
            else:
                continue
            done = unheard = right
        return holes or done < end

    def heard_ns(self, now_ns: int) -> int | None:
        """The media time that is heard at a moment; None before sound has begun."""
        return None if self._last is None else self._last.media_ns + (now_ns - self._last.now_ns)

    def played(self) -> list[Played | PlayedChunk]:
        """What has left the buffer since the last call."""
        if not self._played:
            return []
        out, self._played = self._played, []
        return out

    def flush(self) -> list[Played | PlayedChunk]:
        """What is left at the end of a run, as in flight."""
        self._discard("in_flight")
        return self.played()

    def buffered_ns(self) -> int:
        """Sound that waits to be read."""
        if not self._runs:
            return 0
        begin = self._runs[0].position if self._position is None else self._position
        return max(0, _ns(max(run.end for run in self._runs) - begin, self.rate))

    # ---- where sound is placed

    def _in_reach(self, run: _SoundRun, now_ns: int) -> bool:
        """Whether a run can still be heard, and soon; when nothing could be for a while, playout goes to the sender."""
        if self._position is None:
            return not self._runs or abs(run.position - self._runs[0].position) <= self._limit
        if run.end > self._position and run.position - self._position <= self._limit:
            self._astray_ns = None
            return True
        if self._astray_ns is None:
            self._astray_ns = now_ns
        if now_ns - self._astray_ns < ASTRAY_NS or self._last is None:
            return False
        self._discard("skipped")
        margin_ns = run.pts_ns[0] - self._last.media_ns - now_ns + self._last.now_ns
        ahead_ns = _ns(run.position - self._position, self.rate)
        self._move(max(self.control.target_ns - margin_ns, CUSHION_NS - ahead_ns))
        self._spent = self._orderly = self._position
        self._skew = RateEstimator()
        self._astray_ns = None
        return run.end > self._position

    def _catch_up(self) -> None:
        """Go to the level in one cut when it is further off than single samples mend in good time.

        Each underrun of a busy device puts sound off by tens of milliseconds, for good if nothing were left out.
        """
        stray_ns = self.control.stray_ns
        self._move(-stray_ns)
        self.control.corrected(-stray_ns)
        self.cuts += 1

    def _take_apart(self, end: int = 0) -> None:
        """Each packet has to be looked at by itself, up to the end of all that is there, or this one."""
        self._settle()
        if self._chunks:
            self._chunks = 0
            self._runs = deque(packet for run in self._runs for packet in run.apart())
            while self._position is not None and self._runs and self._runs[0].end <= self._position:
                self._finish(self._runs.popleft(), "shown")
        self._orderly = max(self._orderly, self._spent, end, self._runs[-1].end if self._runs else 0)

    def _move(self, by_ns: int) -> None:
        self._take_apart()
        if self._base_ns is not None:
            self._base_ns += by_ns
        if self._position is not None:
            self._position -= _samples(by_ns, self.rate)
        if self._last is not None:
            self._last = ClockReading(self._last.media_ns - by_ns, self._last.now_ns)

    def _plausible(self, heard_ns: int) -> int:
        """The moment that the device names, or for up to two blocks the one that was expected, if it is far from that.

        A third time it is believed, and the position goes along: a device that stood still, or was replaced by another
        one, makes sound neither later nor earlier than it was.
        """
        if self._position is None:
            return heard_ns
        off_ns = heard_ns - self._due_ns
        if -JUMP_NS <= off_ns <= JUMP_NS:
            self._strange = 0
            return heard_ns
        self._strange += 1
        if self._strange < 3:
            return self._due_ns
        self._strange = 0
        self._take_apart()
        self._position += _samples(off_ns, self.rate)
        self._skew = RateEstimator()
        return heard_ns

    def _measure(self, pts_ns: int, now_ns: int, *, margin_ns: int) -> None:
        """Now and then, compare the sender's clock with the device's, by which `_read` samples are heard at `_due_ns`.

        By what came about as early as usual.
        """
        if now_ns >= self._measure_ns and self.control.usual(margin_ns):
            self._skew.update(self._read * NS // self.rate + now_ns - self._due_ns, pts_ns)
            self._measure_ns = now_ns + MEASURE_NS

    # ---- what is sent to the device

    def _consume(self, begin: int, count: int, heard_ns: int) -> int:
        """A device takes a block of `count` samples. How many of media time it is made of: some off when corrected."""
        wish, easing = self._correction(count)
        consume = count + wish + easing
        if consume == count or count == 1:
            self._hear(begin, begin + count, heard_ns)
        elif not self._hear(begin, begin + consume + 1, heard_ns):  # one more, to interpolate towards
            self._correct(wish, easing)
            return consume
        return count

    def _correction(self, count: int) -> tuple[int, int]:
        """How many samples to consume beyond those asked for: by the level, and for a delay that comes down."""
        return self.control.wish, self._easing(count) if self.control.easing_ns > 0 else 0

    def _correct(self, wish: int, easing: int) -> None:
        """So many were consumed beyond those asked for."""
        self.corrected += wish
        self.control.corrected(-wish * NS / self.rate)
        self.control.eased(easing * NS / self.rate)

    def _easing(self, count: int) -> int:
        """How many samples of a block to leave out for a delay that comes down."""
        self._ease_credit += count * EASE
        whole = int(self._ease_credit)
        self._ease_credit -= whole
        return whole

    def _gather(self, begin: int, count: int) -> tuple[Samples, list[tuple[int, int]]]:
        """The samples at `count` positions from `begin`; and the holes (first, end), filled with silence."""
        block = np.empty((count, self.channels), np.int16)
        holes = []
        end = begin + count
        done = begin
        unheard = begin if begin > self._spent else self._spent
        for run in self._runs:
            left, right = run.position, run.end
            if left >= end:
                break
            if left < unheard:
                left = unheard
            if right > end:
                right = end
            if left >= right:
                continue
            if left > done:
                holes.append((done - begin, left - begin))
            block[left - begin : right - begin] = run.samples[left - run.position : right - run.position]
            done = unheard = right
        if done < end:
            holes.append((done - begin, count))
        for first, after in holes:
            block[first:after] = 0
        return block, holes

    def _smooth(self, block: Samples, holes: list[tuple[int, int]], begin: int, end: int) -> Samples:
        """Take the steps out of a block: wherever it does not continue what was before, it starts from there."""
        if holes or self._follows != begin or self._step is not None:
            count = len(block)
            silent = bool(holes) and holes[0][0] == 0
            self.underruns += sum(left > 0 for left, _ in holes) + (silent and self._follows == begin)
            edges = [at for hole in holes for at in hole if 0 < at < count]
            if self._follows != (None if silent else begin):
                edges.insert(0, 0)
            if edges or self._step is not None:
                block = self._blend(block, edges)
        self._follows = None if holes and holes[-1][1] == len(block) else end
        self._sent = block
        return block

    def _blend(self, block: Samples, edges: list[int]) -> Samples:
        """From each edge on, add the step that is there, dying away; and what is left of the one before."""
        mixed = block.astype(np.float32)
        decay = _decay(len(block), self.rate)
        before = self._sent[-1].astype(np.float32)
        step = np.zeros_like(before) if self._step is None else self._step
        for start, stop in pairwise(sorted({0, *edges, len(block)})):
            if start in edges:
                step = before - mixed[start]
            mixed[start:stop] += step * decay[: stop - start]
            before, step = mixed[stop - 1], step * decay[stop - start]
        self._step = step if np.abs(step).max() >= 0.5 else None
        return np.clip(np.rint(mixed), -32768, 32767).astype(np.int16)

    def _silence(self, count: int) -> Samples:
        return np.zeros((count, self.channels), np.int16)

    # ---- the ledger

    def _discard(self, reason: str) -> None:
        self._settle()
        while self._runs:
            self._finish(self._runs.popleft(), reason)

    def _finish(self, run: _SoundRun, reason: str) -> None:
        position, end, _, ticks, step, pts_ns, arrived_ns, blocks = run
        blocks += self._blocks
        if len(pts_ns) > 1:
            self._chunks -= 1
            if reason == "shown":
                known = len(pts_ns), ticks, step, end - position, arrived_ns, position, self.rate, pts_ns, blocks
                self._played.append(_new(PlayedChunk, known))
                return
            for packet in run.apart():
                self._finish(packet, "shown" if packet.end <= self._spent else reason)
            return
        if reason == "shown" and not blocks:
            reason = "skipped"  # passed over: by the start, by a shift, or in favour of a run at the same place
        heard_ns = _heard_ns(position, blocks, self.rate) if reason == "shown" else None
        self._played.append(_new(Played, (ticks, pts_ns[0], end - position, arrived_ns, heard_ns, reason)))


def _heard_ns(position: int, blocks: Sequence[Block], rate: int) -> int:
    """When the first sample of a packet was heard: of what is at its position, or what begins behind that."""
    begin, _, heard_ns = next(block for block in blocks if block[1] > position)
    return heard_ns + max(0, position - begin) * NS // rate


def _samples(ns: int, rate: int) -> int:
    return (ns * rate + NS // 2) // NS


def _ns(samples: int, rate: int) -> int:
    return samples * NS // rate


@lru_cache(maxsize=16)
def _decay(count: int, rate: int) -> NDArray[np.float32]:
    """How much of a step is left, for the `count` samples from it on and the next block's first."""
    decay: NDArray[np.float64] = np.exp(np.arange(count + 1) * (-NS / (rate * _DECAY_NS)))
    return decay.astype(np.float32)[:, None]


@lru_cache(maxsize=16)
def _grid(consume: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    at = np.arange(count) * (consume / count)
    whole = at.astype(np.intp)
    return whole, (at - whole).astype(np.float32)[:, None]


def stretch(source: Samples, consume: int, count: int) -> Samples:
    """`count` samples spread evenly over `consume` of the source's `consume + 1`, by linear interpolation."""
    whole, part = _grid(consume, count)
    left = source[whole].astype(np.float32)
    return np.rint(left + (source[whole + 1] - left) * part).astype(np.int16)
