"""When frames leave: literal moments, no clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from avlab.timing.pacing import PACERS, DeadlinePacer, Due, NoPacing, pacer_named

MS = 1_000_000
VARIABLE = [0, 33_366_667, 40_000_000, 40_000_001, 1_000_000_000, 1_016_683_333]


@dataclass(frozen=True)
class Frame:
    pts_ns: int


def departures(pacer: DeadlinePacer, frames: list[int], *, late: dict[int, int] | None = None) -> list[tuple[int, int]]:
    """(due, left) of each frame, pushed when the one before has left; `late` holds some back until a moment."""
    out = []
    now_ns = 0
    for pts_ns in frames:
        now_ns = max(now_ns, (late or {}).get(pts_ns, 0))
        pacer.push(Frame(pts_ns), now_ns)
        wake_ns = pacer.wake_at()
        assert wake_ns is not None
        if wake_ns > now_ns:
            assert pacer.pull(wake_ns - 1) == []
        now_ns = max(now_ns, wake_ns)
        (due,) = pacer.pull(now_ns)
        assert due.item == Frame(pts_ns)
        assert pacer.wake_at() is None
        out.append((due.due_ns, now_ns))
    return out


@pytest.mark.parametrize("start_ns", [0, 7, 123_456_789_012_345])
def test_each_frame_at_start_plus_pts(start_ns: int) -> None:
    pacer = DeadlinePacer()
    pacer.restart(start_ns)
    assert departures(pacer, VARIABLE) == [(start_ns + pts_ns, start_ns + pts_ns) for pts_ns in VARIABLE]


def test_a_late_frame_leaves_at_once_and_the_next_is_on_time() -> None:
    pacer = DeadlinePacer()
    pacer.restart(0)
    frames = [0, 40 * MS, 80 * MS, 120 * MS]
    assert departures(pacer, frames, late={40 * MS: 75 * MS}) == [
        (0, 0),
        (40 * MS, 75 * MS),
        (80 * MS, 80 * MS),
        (120 * MS, 120 * MS),
    ]


def test_no_error_is_ever_carried_on() -> None:
    pacer = DeadlinePacer()
    pacer.restart(5)
    frames = [n * 1001 * 1_000_000_000 // 30_000 for n in range(10_000)]
    left = departures(pacer, frames, late={pts_ns: pts_ns + 3 * MS for pts_ns in frames[::7]})
    assert left[-1] == (5 + frames[-1], 5 + frames[-1])
    assert all(due_ns == 5 + pts_ns for (due_ns, _), pts_ns in zip(left, frames, strict=True))


def test_all_that_is_due_leaves_in_order() -> None:
    pacer = DeadlinePacer()
    pacer.restart(100)
    for pts_ns in (0, 10, 20, 30):
        pacer.push(Frame(pts_ns), 0)
    assert pacer.wake_at() == 100
    assert pacer.pull(99) == []
    assert pacer.pull(120) == [Due(Frame(0), 100), Due(Frame(10), 110), Due(Frame(20), 120)]
    assert pacer.wake_at() == 130


def test_without_a_start_the_first_frame_sets_it() -> None:
    pacer = DeadlinePacer()
    assert pacer.wake_at() is None
    assert pacer.pull(10**18) == []
    pacer.push(Frame(500), 2_000)
    pacer.push(Frame(700), 2_010)
    assert pacer.pull(2_010) == [Due(Frame(500), 2_000)]
    assert pacer.wake_at() == 2_200


def test_restart_forgets_what_waits() -> None:
    pacer = DeadlinePacer()
    pacer.restart(0)
    pacer.push(Frame(10), 0)
    pacer.restart(1_000)
    assert pacer.wake_at() is None
    pacer.push(Frame(0), 900)
    assert pacer.wake_at() == 1_000


def test_no_pacing_gives_frames_as_they_come() -> None:
    pacer = NoPacing()
    pacer.restart(10**12)
    assert pacer.wake_at() is None
    pacer.push(Frame(5_000), 3)
    pacer.push(Frame(9_000), 4)
    assert pacer.wake_at() == 3
    assert pacer.pull(7) == [Due(Frame(5_000), 3), Due(Frame(9_000), 4)]
    assert pacer.pull(7) == []
    pacer.push(Frame(1), 8)
    pacer.restart(0)
    assert pacer.wake_at() is None


def test_pacers_by_name() -> None:
    assert set(PACERS) >= {"deadline", "none"}
    assert isinstance(pacer_named("deadline"), DeadlinePacer)
    assert isinstance(pacer_named("none"), NoPacing)
    assert pacer_named("none") is not pacer_named("none")
    own = NoPacing()
    assert pacer_named(own) is own
    with pytest.raises(ValueError, match=r"pacer must be one of deadline, none.*, not 'fast'"):
        pacer_named("fast")
