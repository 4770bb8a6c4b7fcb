"""The media clock, the common start and the verdicts, at literal moments."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.timing.playout import START_PATIENCE_NS, TARDY_NS, ClockReading, MediaClock, Playout, Start
from avlab.timing.stage import Dropped

MS = 1_000_000


@dataclass(frozen=True)
class Picture:
    pts_ns: int
    name: str = ""


def playing(base_ns: int = 0, *, at_once: bool = False, limit: int = 512) -> Playout:
    clock = MediaClock()
    clock.set(base_ns)
    return Playout(clock, at_once=at_once, limit=limit)


def dropped(items: list[Any]) -> list[tuple[Any, str]]:
    return [(item.item, item.reason) for item in items if isinstance(item, Dropped)]


# ---- verdicts


def test_a_picture_waits_for_its_pts() -> None:
    playout = playing(100)
    playout.push(Picture(50), 0)
    assert len(playout) == 1
    assert playout.wake_at() == 150
    assert playout.pull(149) == []
    assert playout.pull(150) == [Picture(50)]
    assert playout.shown_pts_ns == 50
    assert playout.wake_at() is None
    assert len(playout) == 0


def test_pictures_come_out_by_pts_whatever_the_order_they_came_in() -> None:
    playout = playing()
    for pts_ns in (30, 10, 20):
        playout.push(Picture(pts_ns), 0)
    assert [playout.pull(now_ns) for now_ns in (10, 20, 30)] == [[Picture(10)], [Picture(20)], [Picture(30)]]


def test_the_newest_due_wins() -> None:
    playout = playing()
    for pts_ns in (10, 20, 30, 40):
        playout.push(Picture(pts_ns), 0)
    out = playout.pull(35)
    assert dropped(out) == [(Picture(10), "skipped"), (Picture(20), "skipped")]
    assert out[-1] == Picture(30)
    assert playout.wake_at() == 40


@pytest.mark.parametrize(("late_ns", "shown"), [(0, True), (TARDY_NS, True), (TARDY_NS + 1, False)])
def test_what_comes_too_late_is_late(late_ns: int, shown: bool) -> None:
    playout = playing()
    playout.push(Picture(1000), 1000 + late_ns)
    wake_ns = playout.wake_at()
    assert wake_ns is not None
    assert wake_ns <= 1000 + late_ns
    out = playout.pull(1000 + late_ns)
    assert out == [Picture(1000)] if shown else dropped(out) == [(Picture(1000), "late")]


def test_nothing_older_than_the_picture_shown_is_shown() -> None:
    playout = playing()
    playout.push(Picture(20), 0)
    playout.pull(20)
    for pts_ns in (10, 20):
        playout.push(Picture(pts_ns), 21)
    assert dropped(playout.pull(21)) == [(Picture(10), "late"), (Picture(20), "late")]


def test_before_the_clock_is_set_pictures_wait() -> None:
    clock = MediaClock()
    playout = Playout(clock)
    playout.push(Picture(0), 0)
    assert playout.wake_at() is None
    assert playout.pull(10**15) == []
    clock.set(10**15)
    assert playout.wake_at() == 10**15
    assert playout.pull(10**15) == [Picture(0)]


@pytest.mark.parametrize("running", [False, True])
def test_at_once(running: bool) -> None:
    clock = MediaClock()
    if running:
        clock.set(10**12)
    playout = Playout(clock, at_once=True)
    playout.push(Picture(10**15), 5)
    wake_ns = playout.wake_at()
    assert wake_ns is not None
    assert wake_ns <= 5
    assert playout.pull(5) == [Picture(10**15)]
    playout.push(Picture(10**15 - 1), 6)
    assert dropped(playout.pull(6)) == [(Picture(10**15 - 1), "late")]


def test_pictures_that_came_together_are_all_shown_at_once() -> None:
    playout = playing(at_once=True)
    for pts_ns in (20, 30, 10):
        playout.push(Picture(pts_ns), 5)
    assert playout.pull(5) == [Picture(10), Picture(20), Picture(30)]
    assert playout.shown_pts_ns == 30


def test_a_sender_far_ahead_loses_its_oldest() -> None:
    playout = playing(limit=3)
    for pts_ns in range(10, 60, 10):
        playout.push(Picture(pts_ns), 0)
    assert len(playout) == 3
    assert dropped(playout.pull(0)) == [(Picture(10), "skipped"), (Picture(20), "skipped")]


def test_flush_gives_all_that_waits() -> None:
    playout = playing()
    playout.push(Picture(30), 0)
    playout.push(Picture(20), 0)
    playout.push(Picture(0), 10**12)
    assert dropped(list(playout.flush())) == [
        (Picture(0), "late"),
        (Picture(20), "in_flight"),
        (Picture(30), "in_flight"),
    ]
    assert playout.flush() == []


@pytest.mark.parametrize("sound", [False, True])
def test_a_sender_that_stood_still_is_followed_when_there_is_no_sound(sound: bool) -> None:
    clock = MediaClock()
    clock.set(100 * MS)
    playout = Playout(clock)
    out = []
    for n in range(100):
        now_ns = n * 40 * MS + (3_000 * MS if n >= 20 else 0)
        if sound:
            clock.feed(ClockReading(now_ns - 100 * MS, now_ns))
        playout.push(Picture(n * 40 * MS), now_ns)
        out += playout.pull(now_ns + 39 * MS)
    out += playout.flush()
    late = [item.pts_ns for item, reason in dropped(out) if reason == "late"]
    assert late == [n * 40 * MS for n in range(20, 100 if sound else 45)]
    assert clock.when_ns(0) == (100 * MS if sound else 3_100 * MS)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(-60, 150)), max_size=60),
    st.booleans(),
    st.sampled_from([3, 512]),
)
def test_every_picture_leaves_exactly_once(arrivals: list[tuple[int, int]], at_once: bool, limit: int) -> None:
    """Pictures of any pts (ms), each pushed so many ms before or after it is due, in that order of time."""
    playout = playing(at_once=at_once, limit=limit)
    pushed, out = [], []
    now_ns = 0
    for n, (pts_ms, ahead_ms) in enumerate(sorted(arrivals, key=lambda arrival: arrival[0] - arrival[1])):
        now_ns = max(now_ns, (pts_ms - ahead_ms) * MS)
        pushed.append(Picture(pts_ms * MS, str(n)))
        playout.push(pushed[-1], now_ns)
        if n % 3:
            out += playout.pull(now_ns)
    while (wake_ns := playout.wake_at()) is not None and len(arrivals) % 2:
        now_ns = max(now_ns, wake_ns)
        out += playout.pull(now_ns)
    out += playout.flush()
    shown = [item for item in out if not isinstance(item, Dropped)]
    assert sorted([*shown, *(item for item, _ in dropped(out))], key=lambda p: int(p.name)) == pushed
    assert {reason for _, reason in dropped(out)} <= {"late", "skipped", "in_flight"}
    assert all(a.pts_ns < b.pts_ns for a, b in pairwise(shown))


# ---- the media clock


def test_a_clock_that_is_not_set_says_so() -> None:
    clock = MediaClock()
    running = clock.running
    assert not running
    for ask in (clock.media_ns, clock.when_ns):
        with pytest.raises(ValueError, match="the media clock has not been set"):
            ask(0)
    clock.shift(5)
    clock.feed(ClockReading(1_000, 5_000))
    assert clock.running
    assert clock.media_ns(5_000) == 1_000
    assert clock.when_ns(2_000) == 6_000
    clock.shift(500)
    assert clock.when_ns(2_000) == 6_500


def test_scatter_of_5_ms_moves_the_clock_by_less_than_2() -> None:
    chance = random.Random(4)
    clock = MediaClock()
    clock.set(0)
    errors = []
    for n in range(10_000):
        now_ns = n * 10 * MS
        clock.feed(ClockReading(now_ns - chance.randint(-5 * MS, 5 * MS), now_ns))
        errors.append(clock.media_ns(now_ns) - now_ns)
    assert max(map(abs, errors)) < 2 * MS
    assert abs(sum(errors) / len(errors)) < MS // 10


def test_a_drift_of_200_ppm_is_followed() -> None:
    clock = MediaClock()
    clock.set(0)
    for n in range(10_000):
        clock.feed(ClockReading(n * 10 * MS * 10_002 // 10_000, n * 10 * MS))
    assert clock.media_ns(10**11) == pytest.approx(10**11 * 1.0002, abs=MS // 10)


def test_the_third_strange_reading_is_believed() -> None:
    clock = MediaClock()
    clock.set(0)
    for n, expected in enumerate([0, 0, 200 * MS]):
        clock.feed(ClockReading(n, n + 200 * MS))
        assert clock.when_ns(0) == expected


@pytest.mark.parametrize("strange", [[200, 0, 200, 200], [200, -200, 200, -200], [200, 200, 0, 200, 200]])
def test_readings_that_contradict_each_other_are_not_believed(strange: list[int]) -> None:
    clock = MediaClock()
    clock.set(0)
    for error_ms in strange:
        clock.feed(ClockReading(0, error_ms * MS))
    assert clock.when_ns(0) == 0


# ---- the start


def test_both_streams_start_a_delay_after_the_slower_one_came() -> None:
    start = Start(expect={"video", "audio"}, delay_ns=100 * MS)
    assert start.base_ns(0) is None
    assert start.wake_at() is None
    start.arrived("audio", 2_000 * MS, 50 * MS)
    assert start.base_ns(50 * MS) is None
    assert start.wake_at() == 50 * MS + START_PATIENCE_NS
    start.arrived("video", 2_010 * MS, 70 * MS)
    assert start.wake_at() is None
    assert start.base_ns(70 * MS) == (70 - 2_010 + 100) * MS
    start.arrived("video", 0, 80 * MS)  # only the first of a stream counts
    assert start.base_ns(80 * MS) == (70 - 2_010 + 100) * MS


def test_one_stream_alone_does_not_wait() -> None:
    start = Start(expect={"video"}, delay_ns=100 * MS)
    start.arrived("audio", 0, 5)  # not expected, not heeded
    assert start.base_ns(5) is None
    start.arrived("video", 0, 10)
    assert start.wake_at() is None
    assert start.base_ns(10) == 10 + 100 * MS


def test_patience_ends_and_is_not_woken_for_again() -> None:
    start = Start(expect={"video", "audio"}, delay_ns=100 * MS)
    start.arrived("video", 40 * MS, 60 * MS)
    end_ns = 60 * MS + START_PATIENCE_NS
    assert start.base_ns(end_ns - 1) is None
    assert start.wake_at() == end_ns
    assert start.base_ns(end_ns) == 120 * MS
    assert start.wake_at() is None
    start.arrived("audio", 0, end_ns + MS)  # too late to have a say
    assert start.base_ns(end_ns + MS) == 120 * MS


@pytest.mark.parametrize(("lead_ms", "delay_ms", "expected_ms"), [(0, 100, 100), (80, 100, 100), (150, 100, 150)])
def test_a_device_may_want_its_sound_earlier_than_the_delay_allows(
    lead_ms: int, delay_ms: int, expected_ms: int
) -> None:
    start = Start(expect={"audio"}, delay_ns=delay_ms * MS)
    start.arrived("audio", 0, 0)
    assert start.base_ns(0, lead_ns=lead_ms * MS) == expected_ms * MS
