"""A frame's packets over a share of its time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.timing.spreading import MOST_SHARE, STEP_NS, Burst, Spreader

FRAME_NS = 33_333_333


def departures(spreader: Spreader) -> list[tuple[int, list[int]]]:
    out = []
    while (wake_ns := spreader.wake_at()) is not None:
        assert spreader.pull(wake_ns - 1) == []
        out.append((wake_ns, spreader.pull(wake_ns)))
    return out


def test_without_a_share_a_frame_leaves_in_one_batch() -> None:
    spreader = Spreader()
    spreader.push(Burst(range(12), FRAME_NS), 5)
    assert departures(spreader) == [(5, list(range(12)))]


def test_half_a_frame_interval() -> None:
    spreader = Spreader(0.5)
    spreader.push(Burst(range(12), FRAME_NS), 0)
    batches = departures(spreader)
    assert [packets for _, packets in batches] == [[n] for n in range(12)]
    assert batches[0][0] == 0
    assert batches[-1][0] == FRAME_NS // 2
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(batches)]
    assert max(gaps) - min(gaps) <= 1


def test_a_large_frame_keeps_its_batches() -> None:
    spreader = Spreader(0.5)
    spreader.push(Burst(range(170), FRAME_NS), 0)
    batches = departures(spreader)
    assert len(batches) == 17
    assert {len(packets) for _, packets in batches} == {10}


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 50_000_000)), max_size=5),
    st.floats(0, MOST_SHARE),
)
def test_every_packet_leaves_once_and_in_order(frames: list[tuple[int, int]], share: float) -> None:
    spreader, now_ns, pushed = Spreader(share), 0, 0
    got: list[int] = []
    for size, interval_ns in frames:
        spreader.push(Burst(range(pushed, pushed + size), interval_ns), now_ns)
        pushed += size
        now_ns += interval_ns
        got += spreader.pull(now_ns)
    assert got + spreader.flush() == list(range(pushed))
    assert spreader.wake_at() is None
    assert len(spreader) == 0


def test_batches_are_a_millisecond_apart_at_least() -> None:
    spreader = Spreader(0.1)
    spreader.push(Burst(range(100), FRAME_NS), 0)
    times = [at_ns for at_ns, _ in departures(spreader)]
    assert min(later - earlier for earlier, later in pairwise(times)) >= STEP_NS


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan"), "half", True])
def test_an_impossible_share_is_named(share: object) -> None:
    with pytest.raises(ValueError, match=r"spread must be 0 .* to 0.95"):
        Spreader(share)  # type: ignore[arg-type]
