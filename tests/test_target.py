"""The playout delay that finds itself: what it waits for, when it moves, and that it forgets."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from avlab.timing.target import (
    BUCKET_NS,
    BUCKETS,
    CALM_NS,
    GROW_NS,
    SHRINK_NS,
    SPARE_NS,
    DelayTarget,
    Quantile,
)
from avlab.wire.units import NS

MS = 1_000_000
FRAME_NS = NS // 30
Delay = Callable[[int], int]


def test_a_quantile_of_what_was_added() -> None:
    chance, quantile = random.Random(1), Quantile()
    assert quantile.value_ns() == 0
    for _ in range(2000):
        quantile.add(round(chance.uniform(0, 100 * MS)))
    assert quantile.value_ns() == pytest.approx(95 * MS, abs=12 * MS)


def test_old_delays_are_forgotten() -> None:
    quantile = Quantile()
    for _ in range(100):
        quantile.add(200 * MS)
    added = 0
    while quantile.value_ns() > 100 * MS:
        quantile.add(10 * MS)
        added += 1
    assert 150 < added < 200  # 0.983 ** 175 is the twentieth that the quantile leaves over


def test_the_first_delays_count_alike() -> None:
    quantile = Quantile()
    quantile.add(300 * MS)
    assert quantile.value_ns() == 300 * MS + BUCKET_NS
    for _ in range(60):
        quantile.add(0)
    assert quantile.value_ns() == BUCKET_NS


def test_delays_out_of_range_count_as_the_longest() -> None:
    quantile = Quantile()
    quantile.add(10**15)
    assert quantile.value_ns() == BUCKETS * BUCKET_NS
    quantile.add(-5)


def fed(delay: Delay, seconds: float, *, target: DelayTarget | None = None, first: int = 0) -> DelayTarget:
    """A target that has seen frames of 30 a second, each `delay(n)` after its pts."""
    target = target or DelayTarget()
    for n in range(first, first + round(30 * seconds)):
        target.observe("video", n * FRAME_NS, n * FRAME_NS + delay(n))
    return target


def jittery(most_ms: float, seed: int = 1) -> Delay:
    chance = random.Random(seed)
    return lambda n: 20 * MS + round(chance.uniform(0, most_ms) * MS)


def test_nothing_is_said_before_half_a_second_is_over() -> None:
    target = fed(jittery(50), 0.4)
    assert target.base_ns() is None
    assert target.move_ns(0, 0) is None
    assert DelayTarget().delay_ns(5) == 0


@pytest.mark.parametrize("most_ms", [0, 30, 100, 300])
def test_the_target_covers_what_arrives(most_ms: float) -> None:
    base_ns = fed(jittery(most_ms), 60).base_ns()
    assert base_ns is not None
    assert 20 + most_ms - 15 <= base_ns / MS <= 20 + most_ms + 2 * BUCKET_NS / MS


def test_the_stream_that_needs_the_most_decides() -> None:
    target = fed(jittery(10), 10)
    for n in range(500):
        target.observe("audio", n * 20 * MS, n * 20 * MS + (80 if n % 20 == 0 else 40) * MS)
    assert target.base_ns() == 80 * MS + BUCKET_NS
    assert target.delay_ns(100 * MS) == pytest.approx(80 * MS, abs=MS)  # beyond the quickest, which is a picture
    target.lead_ns["audio"] = 30 * MS
    assert target.base_ns() == 110 * MS + BUCKET_NS
    target.least_ns["video"] = 200 * MS
    assert target.base_ns() == pytest.approx(220 * MS, abs=MS)


def test_a_clock_that_is_too_early_is_moved_at_once_and_far_enough() -> None:
    target = fed(lambda n: 60 * MS, 10)
    at_ns = 65 * MS
    assert target.base_ns() == at_ns
    assert target.move_ns(at_ns - GROW_NS, 0) is None
    assert target.move_ns(at_ns - GROW_NS - 1, 0) == GROW_NS + 1 + SPARE_NS
    assert target.move_ns(at_ns - 100 * MS, 0) == 100 * MS + SPARE_NS


def test_a_clock_that_is_too_late_comes_down_after_a_calm_and_stops_at_the_target() -> None:
    target = fed(lambda n: 60 * MS, 10)
    at_ns = 65 * MS
    assert target.move_ns(0, 10 * NS) == at_ns + SPARE_NS
    assert target.move_ns(at_ns + 50 * MS, 10 * NS + CALM_NS - 1) is None
    assert target.move_ns(at_ns + SHRINK_NS, 20 * NS) is None
    for left_ms in (50, 30, 10, 6):
        assert target.move_ns(at_ns + left_ms * MS, 20 * NS) == -left_ms * MS
    assert target.move_ns(at_ns + 4 * MS, 20 * NS) == 0
    assert target.move_ns(at_ns + 4 * MS, 20 * NS) is None


def test_a_longer_path_is_followed_and_a_short_one_found_again() -> None:
    def path(n: int) -> int:
        return (150 if 900 <= n < 1800 else 20) * MS

    target = fed(path, 60)
    assert target.base_ns() is not None
    bases = [fed(path, 10, target=target, first=first).base_ns() or 0 for first in range(1800, 6000, 300)]
    assert bases[-1] == 20 * MS + BUCKET_NS
    assert bases == sorted(bases, reverse=True)


def test_rough_minutes_are_waited_for_and_quiet_ones_are_not() -> None:
    chance = random.Random(4)

    def rough(n: int) -> bool:
        return (n // 3600) % 2 == 1

    target, base_ns, late, moves = DelayTarget(), 120 * MS, 0, 0
    delays: dict[bool, list[int]] = {True: [], False: []}
    for n in range(36_000):
        pts_ns = n * FRAME_NS
        offset_ns = 20 * MS + round(chance.expovariate(1 / (40 if rough(n) else 4)) * MS)
        target.observe("video", pts_ns, pts_ns + offset_ns)
        late += offset_ns > base_ns
        if n % 3600 > 3000:  # long enough after the change to have forgotten
            delays[rough(n)].append(base_ns)
        move_ns = target.move_ns(base_ns, pts_ns + offset_ns) or 0
        moves += move_ns > 0
        base_ns += move_ns if move_ns > 0 else max(move_ns, -FRAME_NS // 100)
    quiet_ms, rough_ms = (sum(delays[which]) / len(delays[which]) / MS for which in (False, True))
    assert late / 36_000 < 0.01
    assert quiet_ms < 80
    assert rough_ms > 150
    assert moves < 40
