"""Sound from arrival to device, in virtual time: placed to the sample, free of clicks, in step for hours."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.timing.level import SETTLE, SLACK_NS, LevelControl
from avlab.timing.playout import ASTRAY_NS, ClockReading, MediaClock
from avlab.timing.soundbuffer import LIMIT_RUNS, Played, SoundBuffer
from avlab.wire.units import NS, Samples

MS = 1_000_000
RATE = 48_000
LOUD = 10_000
STEEP = 2 * np.pi * 440 / RATE * LOUD  # a 440 Hz tone's own largest step from sample to sample
BLOCK = RATE // 100  # 10 ms
PACKET = 320  # 6.67 ms: three are a chunk of 20 ms


def tone(first: int, size: int, channels: int = 1) -> Samples:
    one = np.rint(LOUD * np.sin(2 * np.pi * 440 / RATE * np.arange(first, first + size))).astype(np.int16)
    return np.repeat(one[:, None], channels, axis=1)


def ns(samples: int, rate: int = RATE) -> int:
    return (2 * samples * NS + rate) // (2 * rate)


def push(buffer: SoundBuffer, first: int, samples: Samples, now_ns: int = 0) -> bool:
    return buffer.push(samples, ticks=first, pts_ns=ns(first, buffer.rate), now_ns=now_ns)


def with_tone(seconds: float, *, lost: Callable[[int], bool] = lambda packet: False, channels: int = 1) -> SoundBuffer:
    """A buffer that holds a tone from media time 0 on, which is to be heard at 0."""
    buffer = SoundBuffer(rate=RATE, channels=channels)
    for packet in range(round(seconds * RATE) // PACKET):
        if not lost(packet):
            push(buffer, packet * PACKET, tone(packet * PACKET, PACKET, channels))
    buffer.begin(0)
    return buffer


def listen(buffer: SoundBuffer, seconds: float, *, from_ns: int = 0, block: int = BLOCK) -> Samples:
    """What a device hears that reads `block` samples at a time, from `from_ns` on."""
    blocks = round(seconds * RATE) // block
    return np.concatenate([buffer.read(block, from_ns + ns(n * block))[0] for n in range(blocks)])


def steepest(sound: Samples) -> float:
    return float(np.abs(np.diff(sound.astype(np.int64), axis=0)).max())


# ---- placed to the sample


@pytest.mark.parametrize("base_ns", [0, 20 * MS, 51_234_567])
@pytest.mark.parametrize("first", [0, 1, 479, 4_801])
def test_the_first_sample_sounds_at_its_own_sample(base_ns: int, first: int) -> None:
    buffer = SoundBuffer(rate=RATE, channels=2)
    ramp = np.repeat(np.arange(9600, dtype=np.int16)[:, None], 2, axis=1)
    push(buffer, first, ramp)
    started = buffer.started
    assert not started
    buffer.begin(base_ns)
    heard = listen(buffer, 0.5)
    at = round(base_ns * RATE / NS) + first
    assert buffer.started
    assert not heard[:at].any()
    assert np.array_equal(heard[at : at + 9600], ramp)
    assert buffer.played()[0].heard_ns == pytest.approx(base_ns + ns(first), abs=NS // RATE)


def test_silence_before_a_start_is_known_and_readings_from_then_on() -> None:
    buffer = SoundBuffer(rate=RATE, channels=1)
    block, reading = buffer.read(BLOCK, 5 * MS)
    assert block.shape == (BLOCK, 1)
    assert block.dtype == np.int16
    assert not block.any()
    assert reading is None
    assert buffer.heard_ns(0) is None
    buffer.begin(100 * MS)
    assert buffer.read(BLOCK, 15 * MS)[1] == ClockReading(-85 * MS, 15 * MS)
    push(buffer, 0, tone(0, PACKET))
    assert buffer.read(BLOCK, 100 * MS)[1] == ClockReading(0, 100 * MS)
    assert buffer.heard_ns(103 * MS) == 3 * MS


def test_sound_from_before_media_time_0() -> None:
    buffer = SoundBuffer(rate=RATE, channels=1)
    push(buffer, -RATE, tone(0, 2 * RATE))
    buffer.begin(NS)
    assert np.array_equal(listen(buffer, 2), tone(0, 2 * RATE))


def test_blocks_of_any_size_make_the_same_sound() -> None:
    whole = listen(with_tone(1), 1)
    for block in (1, 7, 441, 4800):
        assert np.array_equal(listen(with_tone(1), 1, block=block)[: len(whole)], whole[: RATE // block * block])


def test_order_of_arrival_is_no_matter_and_overlaps_are_heard_once() -> None:
    straight = listen(with_tone(1), 1)
    buffer = SoundBuffer(rate=RATE, channels=1)
    starts = list(range(0, RATE, PACKET))
    random.Random(1).shuffle(starts)
    for first in starts:
        push(buffer, first, tone(first, min(PACKET + 100, RATE - first)))  # each reaches into the next
    push(buffer, 500, tone(500, 100))  # within another
    buffer.begin(0)
    assert np.array_equal(listen(buffer, 1), straight)
    played = buffer.played()
    assert sorted(run.ticks for run in played) == sorted([*starts, 500])
    assert {run.reason for run in played if run.ticks != 500} == {"shown"}
    assert [run.reason for run in played if run.ticks == 500] == ["skipped"]


def test_every_run_leaves_with_one_reason() -> None:
    buffer = with_tone(1)
    listen(buffer, 0.5)
    assert not push(buffer, 0, tone(0, PACKET), 500 * MS)  # too late by half a second
    assert push(buffer, 23_900, tone(23_900, PACKET), 500 * MS)  # late in part
    assert push(buffer, 60 * RATE, tone(0, PACKET), 500 * MS)  # nobody waits a minute
    assert buffer.buffered_ns() == 500 * MS
    left = [*buffer.played(), *buffer.flush()]
    assert buffer.buffered_ns() == 0
    assert [run.reason for run in left].count("shown") == 75
    assert [run.reason for run in left].count("in_flight") == 76
    assert [(run.ticks, run.reason) for run in left if run.heard_ns is None and run.reason != "in_flight"] == [
        (0, "late"),
        (60 * RATE, "skipped"),
    ]
    heard = [run for run in left if run.reason == "shown"]
    assert [run.heard_ns for run in heard] == pytest.approx([run.pts_ns for run in heard], abs=NS // RATE)
    assert heard[0] == Played(0, 0, PACKET, 0, 0, "shown")


# ---- free of clicks


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("block", [1, 64, BLOCK, 1000])
def test_gaps_starts_and_ends_are_no_clicks(channels: int, block: int) -> None:
    buffer = with_tone(1, lost=lambda packet: packet % 7 == 3 or 40 <= packet < 60, channels=channels)
    heard = listen(buffer, 1.2, block=block)
    assert steepest(heard) < 1.5 * STEEP
    assert steepest(tone(0, RATE)) == pytest.approx(STEEP, rel=0.01)
    gap = heard[40 * PACKET : 60 * PACKET]
    assert not gap[RATE * 25 // 1000 :].any()  # silence is silent
    assert not heard[RATE + RATE * 25 // 1000 :].any()
    assert np.array_equal(heard[30 * PACKET : 31 * PACKET], tone(30 * PACKET, PACKET, channels))  # sound is untouched
    assert buffer.underruns == sum(packet % 7 == 3 and not 40 <= packet < 60 for packet in range(150)) + 2


@pytest.mark.parametrize("into", [0, 1, 2, 100, 479])
def test_a_gap_anywhere_in_a_block_is_no_click(into: int) -> None:
    quarter = RATE // 440 // 4  # at the tone's peak
    for end in (4800 + into, 4800 + into + quarter):
        buffer = SoundBuffer(rate=RATE, channels=1)
        push(buffer, 0, tone(0, end))
        push(buffer, end + 700, tone(end + 700, 3000))
        buffer.begin(0)
        assert steepest(listen(buffer, 0.3)) < 1.5 * STEEP


def test_full_scale_stays_in_range() -> None:
    buffer = SoundBuffer(rate=RATE, channels=1)
    push(buffer, 0, np.full((1000, 1), 32_767, np.int16))
    push(buffer, 1000, np.full((1000, 1), -32_768, np.int16))
    push(buffer, 2300, np.full((1000, 1), 32_767, np.int16))
    buffer.begin(0)
    heard = listen(buffer, 0.1)
    assert heard[999] >= 32_766
    assert heard[1999] == -32_768
    assert steepest(heard[1001:]) < 65_536 / 60


@pytest.mark.parametrize("into", [0, 100])
def test_later_puts_silence_in_and_loses_nothing(into: int) -> None:
    buffer = with_tone(1)
    size = 240 + into
    before = listen(buffer, 0.3, block=size)
    buffer.shift(100 * MS)
    after = listen(buffer, 0.5, from_ns=ns(len(before)), block=size)
    heard = np.concatenate([before, after])
    assert steepest(heard) < 1.5 * STEEP
    assert not after[1200:4800].any()
    sound = len(before) + 4800
    expected = tone(len(before), 4800)
    assert np.abs(heard[sound + 1200 : sound + 4800].astype(int) - expected[1200:]).max() <= 1
    assert buffer.underruns == 0


def test_earlier_leaves_sound_out() -> None:
    buffer = with_tone(1)
    before = listen(buffer, 0.3)
    buffer.shift(-100 * MS)
    after = listen(buffer, 0.5, from_ns=300 * MS)
    assert steepest(np.concatenate([before, after])) < 1.5 * STEEP
    assert np.array_equal(after[1200:4800], tone(19_200, 4800)[1200:])
    assert [run.reason for run in buffer.played()].count("skipped") == 15
    assert buffer.underruns == 0


def test_a_shift_before_the_start_moves_the_start() -> None:
    buffer = with_tone(1)
    buffer.shift(50 * MS)
    assert np.array_equal(listen(buffer, 0.5)[2400:], tone(0, 21_600))


@given(st.data())
def test_whatever_comes_each_run_leaves_once_and_nothing_clicks(data: st.DataObject) -> None:
    packets = data.draw(st.lists(st.integers(0, 60), max_size=90))
    blocks = data.draw(st.lists(st.integers(1, 1200), min_size=1, max_size=40))
    shifts = data.draw(st.dictionaries(st.integers(0, 39), st.integers(-30, 30), max_size=3))
    buffer = SoundBuffer(rate=RATE, channels=1)
    buffer.begin(50 * MS)
    left: list[Played] = []
    heard, taken = [np.zeros((1, 1), np.int16)], 0
    for n, size in enumerate(blocks):
        now_ns = ns(taken)
        for packet in packets[n * 3 : n * 3 + 3]:
            push(buffer, packet * PACKET, tone(packet * PACKET, PACKET), now_ns)
        if n in shifts:
            buffer.shift(shifts[n] * MS)
        block, _ = buffer.read(size, now_ns)
        heard.append(block)
        taken += size
        left += buffer.played()
    left += buffer.flush()
    assert sorted(run.ticks for run in left) == sorted(p * PACKET for p in packets[: 3 * len(blocks)])
    assert all((run.heard_ns is not None) == (run.reason == "shown") for run in left)
    assert steepest(np.concatenate(heard)) < 2 * STEEP


@given(st.data())
def test_a_device_that_nobody_listens_to_leaves_the_same_record(data: st.DataObject) -> None:
    packets = data.draw(st.lists(st.integers(0, 300), max_size=200))
    blocks = data.draw(st.lists(st.integers(1, 1200), min_size=1, max_size=150))
    shifts = data.draw(st.dictionaries(st.integers(0, 149), st.integers(-30, 30), max_size=3))
    eases = data.draw(st.dictionaries(st.integers(0, 149), st.integers(0, 30), max_size=2))
    late = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=5))
    loud, mute = (SoundBuffer(rate=RATE, channels=1) for _ in range(2))
    taken = 0
    for buffer in (loud, mute):
        buffer.begin(50 * MS)
    for n, size in enumerate(blocks):
        now_ns = ns(taken)
        for buffer in (loud, mute):
            for packet in packets[n * 2 : n * 2 + 2]:
                push(buffer, packet * PACKET, tone(packet * PACKET, PACKET), now_ns + late[n % len(late)] * MS)
            if n in shifts:
                buffer.shift(shifts[n] * MS)
            if n in eases:
                buffer.ease(eases[n] * MS)
        assert mute.pass_by(size, now_ns) == loud.read(size, now_ns)[1]
        taken += size
        assert mute.played() == loud.played()
        assert mute.control.level_ns == loud.control.level_ns
        assert (mute.corrected, mute.cuts) == (loud.corrected, loud.cuts)
    assert mute.flush() == loud.flush()


# ---- in step with the device


@dataclass
class Run:
    """A sender whose clock is `ppm` fast, an arrival that scatters, a device whose reports scatter. In its own time."""

    ppm: float = 0.0
    rate: int = 44_100
    channels: int = 2
    packets: int = 3  # a chunk of 20 ms is sent in so many, and they arrive together
    block_ms: int = 10
    jitter_ns: int = 4 * MS
    delay_ns: Callable[[int], int] = lambda chunk: 0
    lost: Callable[[int], bool] = lambda packet: False
    during: Callable[[Run, int], None] = lambda run, now_ns: None
    sound: Callable[[int, int], Samples] | None = None
    seed: int = 1
    buffer: SoundBuffer = field(init=False)
    clock: MediaClock = field(init=False)
    levels: list[int] = field(default_factory=list)
    clock_errors: list[int] = field(default_factory=list)
    fates: dict[str, int] = field(default_factory=dict)
    heard: list[Samples] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffer = SoundBuffer(rate=self.rate, channels=self.channels)
        self.clock = MediaClock()
        self.chance = random.Random(self.seed)

    def arrivals(self) -> Iterator[tuple[int, int]]:
        at_ns = chunk = 0
        pace = 1 + self.ppm * 1e-6
        while True:
            sent_ns = int(chunk * 20 * MS / pace) + self.delay_ns(chunk)
            at_ns = max(at_ns, sent_ns + int(self.jitter_ns * self.chance.random()))  # TCP keeps the order
            yield at_ns, chunk
            chunk += 1

    def play(self, seconds: float) -> Run:
        buffer, clock = self.buffer, self.clock
        buffer.begin(100 * MS)
        clock.set(100 * MS)
        silence = np.zeros((self.rate // 50, self.channels), np.int16)
        a_chunk = self.rate // 50
        parts = range(0, a_chunk, a_chunk // self.packets)
        count = self.rate * self.block_ms // 1000
        arrivals = self.arrivals()
        at_ns, chunk = next(arrivals)
        for block in range(round(seconds * 1000) // self.block_ms):
            now_ns = block * self.block_ms * MS
            while at_ns <= now_ns:
                for part, offset in enumerate(parts):
                    if self.lost(chunk * self.packets + part):
                        continue
                    first = chunk * a_chunk + offset
                    size = a_chunk // self.packets
                    samples = self.sound(first, size) if self.sound else silence[:size]
                    buffer.push(samples, ticks=first, pts_ns=ns(first, self.rate), now_ns=at_ns)
                at_ns, chunk = next(arrivals)
            self.during(self, now_ns)
            heard_ns = now_ns + 30 * MS
            samples, reading = buffer.read(count, heard_ns + int(4 * MS * (self.chance.random() - 0.5)))
            if self.sound:
                self.heard.append(samples)
            if reading is not None:
                clock.feed(reading)
                if now_ns % NS == 0 and now_ns >= 3 * NS:
                    self.levels.append(buffer.control.level_ns)
                    self.clock_errors.append(clock.media_ns(heard_ns) - reading.media_ns)
            if now_ns % NS == 0:
                for run in buffer.played():
                    self.fates[run.reason] = self.fates.get(run.reason, 0) + 1
        return self

    @property
    def level_range_ms(self) -> float:
        """The largest departure of the level from where it was at first, in ms."""
        return max(abs(level - self.levels[0]) for level in self.levels) / MS

    @property
    def clock_error_ms(self) -> float:
        return max(map(abs, self.clock_errors)) / MS


def holds(run: Run, ppm: float, seconds: float) -> None:
    assert run.level_range_ms < 5
    assert run.clock_error_ms < 2
    assert run.buffer.underruns == 0
    assert run.buffer.skew_ppm == pytest.approx(ppm, abs=5)
    assert run.buffer.corrected == pytest.approx(ppm * 1e-6 * seconds * run.rate, abs=0.01 * run.rate)


@pytest.mark.parametrize("ppm", [200, -200])
def test_two_hours_of_drift_leave_the_level_where_it_was(ppm: int) -> None:
    seconds = 2 * 3600  # a second and a half of drift, which is fourteen times what the buffer holds
    # Coarsely, to be quick: telephone sound, a packet a chunk, the blocks of a slow device.
    run = Run(ppm, rate=8_000, channels=1, packets=1, block_ms=50).play(seconds)
    holds(run, ppm, seconds)
    assert set(run.fates) == {"shown"}


@pytest.mark.parametrize("ppm", [200, 0, -200])
def test_drift_in_the_packets_and_blocks_of_a_real_run(ppm: int) -> None:
    run = Run(ppm).play(300)
    holds(run, ppm, 300)
    assert set(run.fates) == {"shown"}
    if not ppm:
        assert run.buffer.corrected == 0


@pytest.mark.parametrize("ppm", [1000, -1000])
def test_corrections_cannot_be_heard(ppm: int) -> None:
    run = Run(ppm, rate=RATE, channels=1, sound=tone).play(30)
    assert abs(run.buffer.corrected) > 1000
    heard = np.concatenate(run.heard)[RATE:]
    assert steepest(heard) < 1.01 * STEEP
    assert np.abs(heard).max() <= LOUD  # and nothing is added
    crossings = np.count_nonzero(np.diff(np.signbit(heard[:, 0])))
    assert crossings / 2 / (len(heard) / RATE) == pytest.approx(440, rel=0.0012)


def test_loss_leaves_the_level_alone() -> None:
    chance = random.Random(5)
    run = Run(200, lost=lambda packet: chance.random() < 0.1).play(120)
    assert run.level_range_ms < 5
    assert run.clock_error_ms < 2
    assert run.buffer.skew_ppm == pytest.approx(200, abs=10)


@pytest.mark.parametrize("ppm", [200, -200])
def test_a_sender_that_stops_for_three_seconds_and_catches_up(ppm: int) -> None:
    def stalled(chunk: int) -> int:  # chunks 1000 to 1149 leave together, three seconds after the first
        return max(0, (1150 - chunk) * 20 * MS) if chunk >= 1000 else 0

    run = Run(ppm, delay_ns=stalled).play(60)
    assert run.level_range_ms < 5
    assert run.clock_error_ms < 2
    assert run.buffer.underruns == 1
    assert run.fates["late"] == pytest.approx(3 * 145, abs=6)  # all but the last 100 ms
    assert run.buffer.skew_ppm == pytest.approx(ppm, abs=20)


def test_a_sender_that_stops_for_three_seconds_and_goes_on_where_it_was() -> None:
    run = Run(delay_ns=lambda chunk: 3 * NS if chunk >= 1000 else 0).play(60)
    assert run.fates["late"] == pytest.approx(ASTRAY_NS / NS * 150, abs=6)  # a second's worth, then playout follows
    assert run.level_range_ms < 5
    assert run.buffer.underruns == 1
    assert run.fates["shown"] == pytest.approx(150 * 56 - 165, abs=10)


def test_a_sender_that_jumps_an_hour_is_followed_and_one_stray_packet_is_not() -> None:
    buffer = with_tone(0.5)
    listen(buffer, 0.4)
    far = 3600 * RATE
    assert push(buffer, far, tone(far, PACKET), 400 * MS)  # not for this hour
    push(buffer, 24_000, tone(24_000, 24_000), 450 * MS)
    assert np.array_equal(listen(buffer, 0.5, from_ns=400 * MS), tone(19_200, 24_000))
    for n in range(300):
        push(buffer, far + n * PACKET, tone(n * PACKET, PACKET), 900 * MS + ns(n * PACKET))
        if n % 3 == 2:
            block, reading = buffer.read(960, 900 * MS + ns((n - 2) * PACKET))
    assert reading is not None
    assert reading.media_ns == pytest.approx(3602 * NS, abs=NS)
    assert block.any()


@pytest.mark.parametrize("by_ns", [100 * MS, -50 * MS])
def test_a_playout_delay_changed_in_mid_run_changes_the_level_by_as_much(by_ns: int) -> None:
    def change(run: Run, now_ns: int) -> None:
        if now_ns in (400 * MS, 20 * NS):  # while it settles, and later
            run.buffer.shift(by_ns // 2)
            run.clock.shift(by_ns // 2)

    plain, changed = Run(200).play(40), Run(200, during=change).play(40)
    assert changed.levels[5] - plain.levels[5] == pytest.approx(by_ns // 2, abs=2 * MS)
    assert changed.levels[-1] - plain.levels[-1] == pytest.approx(by_ns, abs=2 * MS)
    assert changed.clock_error_ms < 2
    assert changed.buffer.corrected == pytest.approx(plain.buffer.corrected, abs=60)


def test_a_device_that_stands_still_does_not_make_sound_later() -> None:
    buffer = with_tone(3)
    listen(buffer, 1)
    readings = [buffer.read(BLOCK, NS + 500 * MS + ns(n * BLOCK))[1] for n in range(5)]
    bases = [reading.now_ns - reading.media_ns for reading in readings if reading is not None]
    assert bases == [0] * 5
    assert buffer.heard_ns(NS + 550 * MS) == NS + 550 * MS
    assert steepest(listen(buffer, 0.5, from_ns=NS + 550 * MS)) < 1.01 * STEEP


def test_one_strange_report_of_a_device_changes_nothing() -> None:
    buffer = with_tone(1)
    heard = [buffer.read(BLOCK, ns(n * BLOCK) + (300 * MS if n == 20 else 0)) for n in range(100)]
    assert np.array_equal(np.concatenate([block for block, _ in heard]), tone(0, RATE))
    assert {reading.now_ns - reading.media_ns for _, reading in heard if reading is not None} == {0}


def test_memory_is_bounded_whatever_a_sender_does() -> None:
    buffer = SoundBuffer(rate=RATE, channels=1)
    buffer.begin(0)
    for n in range(3 * LIMIT_RUNS):
        push(buffer, n, tone(n, 1))
    assert len(buffer.flush()) == 3 * LIMIT_RUNS
    chance = random.Random(2)
    for _ in range(LIMIT_RUNS):
        push(buffer, chance.randrange(1 << 32), tone(0, PACKET))
    assert buffer.buffered_ns() <= 20 * NS + ns(PACKET)


# ---- the control by itself


def settled(level_ns: int = 100 * MS) -> LevelControl:
    control = LevelControl()
    for _ in range(SETTLE):
        control.arrival(level_ns)
    return control


def test_the_level_is_the_middle_of_the_first_margins() -> None:
    control = LevelControl()
    for n in range(SETTLE):
        assert control.wish == 0
        control.arrival(100 * MS if n % 3 else -500 * MS)  # a start that stutters
    assert control.level_ns == control.target_ns == 100 * MS


@pytest.mark.parametrize("packets", [1, 2, 3, 4, 5, 6, 7, 9, 12])
@pytest.mark.parametrize("lasts", [10, 20, 40])
def test_bursts_that_come_evenly_need_no_correction(packets: int, lasts: int) -> None:
    """`packets` that come together, each to be heard so much later than the one before, every `lasts` ms."""
    control = LevelControl()
    for n in range(3000):
        control.arrival(60 * MS + n % packets * lasts * MS // packets)
        assert control.wish == 0


def test_a_correction_counts_at_once() -> None:
    control = settled()
    wishes = []
    for _ in range(2000):
        control.arrival(103 * MS)
        wishes.append(control.wish)
        if control.wish:
            control.corrected(-MS // 10)
    first = wishes.index(1)
    assert set(wishes[:first]) == {0}
    assert control.level_ns <= 100 * MS + SLACK_NS + MS // 10
    assert sum(wishes) < 300  # one at a time, never a run of them
    assert all(wish >= 0 for wish in wishes)


def test_one_arrival_counts_for_little() -> None:
    control = settled()
    control.arrival(-3 * NS)
    assert control.level_ns > 99 * MS
    assert control.wish == 0


def test_wishes_are_monotonic_in_the_level() -> None:
    wishes = []
    for margin_ms in range(80, 121, 5):
        control = settled()
        for _ in range(1000):
            control.arrival(margin_ms * MS)
        wishes.append(control.wish)
    assert all(a <= b for a, b in pairwise(wishes))
    assert (wishes[0], wishes[4], wishes[-1]) == (-1, 0, 1)


# ---- a delay that comes down, unheard


@pytest.mark.parametrize("block", [64, BLOCK, 1024])
def test_time_is_taken_out_slowly_and_without_a_click(block: int) -> None:
    buffer = with_tone(8)
    before = listen(buffer, 1, block=block)
    buffer.ease(15 * MS)
    after = listen(buffer, 6, from_ns=ns(len(before)), block=block)
    taken_ns = ns(len(before) + len(after)) - (heard := buffer.heard_ns(ns(len(before) + len(after))) or 0)
    assert -taken_ns == pytest.approx(15 * MS, abs=0.2 * MS), heard
    assert buffer.control.easing_ns == 0
    assert steepest(after) <= 1.1 * STEEP
    assert buffer.underruns == 0


def test_what_is_taken_out_is_not_put_in_again() -> None:
    control = LevelControl()
    for _ in range(SETTLE):
        control.arrival(100 * MS)
    control.ease(30 * MS)
    for _ in range(300):
        control.eased(0.1 * MS)
        control.arrival(round(100 * MS - (30 * MS - control.easing_ns)))
        assert control.wish == 0
    assert control.easing_ns == pytest.approx(0, abs=1)
    assert control.target_ns == pytest.approx(70 * MS, abs=MS)
    control.ease(10 * MS)
    control.ease(0)
    assert control.easing_ns == 0


def test_nothing_is_taken_out_where_there_is_a_gap() -> None:
    buffer = with_tone(1, lost=lambda packet: packet % 2 == 1)
    buffer.ease(10 * MS)
    listen(buffer, 0.5)
    assert buffer.control.easing_ns == pytest.approx(10 * MS, abs=0.5 * MS)
