"""When frames leave: literal moments, no clock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import avlab
from avlab.stream.simulate import simulate
from avlab.timing.pacing import (
    FOREVER_NS,
    PACERS,
    DeadlinePacer,
    Due,
    FeedbackPacer,
    NoPacing,
    Pacer,
    PiRule,
    TutorialPacer,
    pacer_named,
    pi_rule,
    tutorial_rule,
)

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
    assert set(PACERS) == {"deadline", "none", "pi", "tutorial"}
    assert [pacer_named(name).name for name in PACERS] == list(PACERS)  # type: ignore[attr-defined]
    assert isinstance(pacer_named("deadline"), DeadlinePacer)
    assert isinstance(pacer_named("none"), NoPacing)
    assert pacer_named("none") is not pacer_named("none")
    own = NoPacing()
    assert pacer_named(own) is own
    with pytest.raises(ValueError, match=r"pacer must be one of deadline, none.*, not 'fast'"):
        pacer_named("fast")


# ---- feedback


def waits(pacer: Pacer, fps: float, work_ns: Sequence[int], *, start_ns: int = 0) -> list[int]:
    """How long each frame but the first waited, where each costs `work_ns` to send; ends where all stands still."""
    pacer.restart(start_ns)
    now_ns, out = start_ns, []
    for index, work in enumerate(work_ns):
        frame = Frame(round(index * 1_000_000_000 / fps))
        pacer.push(frame, now_ns)
        wake_ns = pacer.wake_at()
        assert wake_ns is not None
        if index:
            out.append(wake_ns - now_ns)
        if wake_ns >= FOREVER_NS:
            assert pacer.pull(now_ns + 10**15) == []
            break
        assert pacer.pull(wake_ns - 1) == []
        assert pacer.pull(wake_ns) == [Due(frame, wake_ns)]
        now_ns = wake_ns + work
    return out


def tutorials_waits(first: float, fps: float, work_ns: Sequence[int]) -> list[int]:
    """What the tutorial's loop hands to waitKey, in ms, up to the one that waits for ever; its clock is Unix time."""
    now_ns, since_ns, wait, counted, out = 1_600_000_000 * 1_000_000_000, 0, first / fps, 0, []
    for work in work_ns:
        now_ns += work
        if counted == 1:
            measured, since_ns, counted = 1_000_000_000 / (now_ns - since_ns), now_ns, 0
            wait += 0.001 if measured > fps else -0.001 if measured < fps else 0.0
        counted += 1
        out.append(int(1000 * wait))
        if out[-1] <= 0:
            break
        now_ns += out[-1] * MS
    return out


@settings(max_examples=25, deadline=None)
@given(
    edition=st.sampled_from(["windows", "macos"]),
    fps=st.sampled_from([15.0, 24.0, 30_000 / 1001, 30.0]),
    most_ms=st.sampled_from([0.5, 3, 20, 90]),
    seed=st.integers(0, 10**6),
)
def test_the_tutorials_loop_wait_for_wait(edition: Any, fps: float, most_ms: float, seed: int) -> None:
    chance = random.Random(seed)
    work = [chance.randrange(round(most_ms * MS)) for _ in range(200)]
    ours = waits(TutorialPacer(edition=edition, fps=fps, stall="real"), fps, work)
    theirs = tutorials_waits({"windows": 0.5, "macos": 1.0}[edition], fps, work)
    whole = [ns for ns in ours if ns < FOREVER_NS // 2]
    assert whole == [ms * MS for ms in theirs[: len(whole)]]
    assert len(whole) == len(ours) or theirs[len(whole)] == 0


@pytest.mark.parametrize(("edition", "first_ms"), [("windows", [16, 15, 16]), ("macos", [33, 32, 31])])
def test_the_editions_start_with_half_a_frame_and_with_a_whole_one(edition: Any, first_ms: list[int]) -> None:
    # The first nudge is down in both: the stopwatch has run since 1970.
    assert [ns // MS for ns in waits(TutorialPacer(edition=edition), 30, [3 * MS] * 4)] == first_ms


def test_waits_are_whole_milliseconds_for_the_tutorials_rule_and_as_the_rule_says_for_others() -> None:
    def mine(delay: float, measured_fps: float, target_fps: float) -> float:
        return tutorial_rule(delay, measured_fps, target_fps)

    work = [2 * MS] * 50
    assert all(ns % MS == 0 for ns in waits(FeedbackPacer(tutorial_rule), 30, work))
    assert all(ns % MS for ns in waits(FeedbackPacer(mine), 30, work))
    assert all(ns % MS == 0 for ns in waits(FeedbackPacer(mine, whole_ms=True), 30, work))
    assert all(ns % MS for ns in waits(FeedbackPacer(tutorial_rule, whole_ms=False), 30, work))


def test_the_rule_is_told_what_it_said_what_was_measured_and_the_target() -> None:
    asked = []

    def rule(delay: float, measured_fps: float, target_fps: float) -> float:
        asked.append((delay, measured_fps, target_fps))
        return delay + 0.010

    assert waits(FeedbackPacer(rule, start=0.020), 25, [5 * MS] * 4) == [20 * MS, 30 * MS, 40 * MS]
    assert [delay for delay, _, _ in asked] == pytest.approx([0.020, 0.030])
    assert [fps for _, fps, _ in asked] == pytest.approx([1 / 0.025, 1 / 0.035])  # the work is in it
    assert [fps for _, _, fps in asked] == pytest.approx([25, 25])
    waits(FeedbackPacer(rule, fps=50), 25, [0] * 4)
    assert asked[-1][2] == 50


def test_the_target_is_learned_as_the_timestamps_mean_rate() -> None:
    seen: list[float] = []

    def rule(delay: float, measured_fps: float, target_fps: float) -> float:
        seen.append(target_fps)
        return 0.01

    pacer = FeedbackPacer(rule)
    pacer.restart(0)
    for index in range(300):
        pacer.push(Frame(round(index * 1001 / 30) * MS), index * 33 * MS)  # a container that counts milliseconds
        pacer.pull(FOREVER_NS)
    assert seen[-1] == pytest.approx(30_000 / 1001, rel=1e-4)


def test_the_first_frame_is_on_time_wherever_in_the_clip_it_is() -> None:
    pacer = FeedbackPacer(tutorial_rule)
    pacer.restart(1_000)
    pacer.push(Frame(10_000), 4_000)  # chosen while another pacer's frames were on their way
    assert pacer.wake_at() == 11_000
    assert pacer.pull(10_999) == []
    assert pacer.pull(12_000) == [Due(Frame(10_000), 11_000)]
    free = FeedbackPacer(tutorial_rule)
    free.push(Frame(10_000), 4_000)
    assert free.wake_at() == 4_000


def test_frames_pushed_too_soon_leave_one_by_one() -> None:
    pacer = FeedbackPacer(lambda delay, _measured, _target: delay, start=0.010)
    pacer.restart(0)
    for index in range(3):
        pacer.push(Frame(index * 40 * MS), 0)
    assert pacer.pull(0) == [Due(Frame(0), 0)]
    assert pacer.pull(9 * MS) == []
    assert pacer.pull(500 * MS) == [Due(Frame(40 * MS), 10 * MS)]
    assert pacer.wake_at() == 510 * MS
    pacer.restart(7)
    assert pacer.wake_at() is None
    assert pacer.pull(10**18) == []


def test_a_wait_that_runs_out_is_reported_once_and_the_stream_goes_on() -> None:
    pacer = TutorialPacer()
    waited = waits(pacer, 30, [40 * MS] * 60)
    assert waited[:17] == [ms * MS for ms in (*range(16, 0, -1), 1)]
    assert set(waited[16:]) == {MS}
    assert pacer.stalls == len(waited) - 16
    (words,) = pacer.notices()
    assert words.startswith("after 17 frames the rule tutorial_rule asks to wait 0.67 ms")
    assert "waitKey(0)" in words
    assert "goes on at 1 ms" in words
    assert pacer.notices() == []
    pacer.restart(0)
    assert pacer.stalls == 0


def test_the_real_thing_stands_still_for_ever() -> None:
    pacer = TutorialPacer(stall="real")
    waited = waits(pacer, 30, [40 * MS] * 60)
    assert len(waited) == 17
    assert waited[-1] > 100 * 365 * 86_400 * 10**9
    assert "stands still" in pacer.notices()[0]
    assert waits(pacer, 30, [3 * MS] * 60)[-1] < 40 * MS


def test_a_rule_that_recovers_is_given_the_wait_it_really_had() -> None:
    given_ms: list[float] = []

    def rule(delay: float, measured_fps: float, target_fps: float) -> float:
        given_ms.append(delay * 1e3)
        return 0.0 if len(given_ms) < 3 else delay + 0.004

    assert [ns / MS for ns in waits(FeedbackPacer(rule), 50, [0] * 6)] == pytest.approx([20, 1, 1, 5, 9])
    assert given_ms == pytest.approx([20, 1, 1, 5])


@pytest.mark.parametrize(
    "answer", [float("nan"), float("inf"), -0.001, None, "0.03", True, 1j, np.array([0.03])], ids=str
)
def test_what_is_no_delay_is_refused_and_the_rule_named(answer: Any) -> None:
    def my_rule(delay: float, measured_fps: float, target_fps: float) -> Any:
        return answer

    with pytest.raises(
        ValueError, match=r"the rule my_rule returned .* as its delay: it must be a finite number of sec"
    ):
        waits(FeedbackPacer(my_rule), 30, [0] * 3)


@pytest.mark.parametrize("answer", [0.02, np.float64(0.02), np.float32(0.02), 1])
def test_any_real_number_is_a_delay(answer: Any) -> None:
    waited = waits(FeedbackPacer(lambda _delay, _measured, _target: answer), 30, [0] * 3)
    assert waited[1] == pytest.approx(float(answer) * 1e9)


@pytest.mark.parametrize(
    ("rule", "settings", "error", "words"),
    [
        (0.03, {}, TypeError, "rule must be a function of \\(delay, measured_fps, target_fps\\), not 0.03"),
        (lambda delay: delay, {}, TypeError, "the rule <lambda> must take"),
        (lambda: 0.03, {}, TypeError, "the rule <lambda> must take"),
        (lambda: tutorial_rule, {}, TypeError, "the rule <lambda> must take"),
        (tutorial_rule, {"fps": 0}, ValueError, "fps must be more than 0 and finite, not 0"),
        (tutorial_rule, {"start": -1}, ValueError, "start must be 0 or more seconds"),
        (tutorial_rule, {"stall": "never"}, ValueError, "stall must be 'report' or 'real', not 'never'"),
    ],
)
def test_settings_that_cannot_be(rule: Any, settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        FeedbackPacer(rule, **settings)


def test_an_edition_that_is_none() -> None:
    with pytest.raises(ValueError, match="edition must be 'windows' or 'macos', not 'linux'"):
        TutorialPacer(edition="linux")  # type: ignore[arg-type]


def test_what_makes_a_rule_is_called_and_a_rule_that_remembers_is_reset() -> None:
    class Counting:
        count = 0

        def reset(self) -> None:
            self.count = 0

        def __call__(self, delay: float, measured_fps: float, target_fps: float) -> float:
            self.count += 1
            return delay

    for rule in (Counting, Counting()):
        pacer = FeedbackPacer(rule)
        assert pacer.name == "Counting"
        waits(pacer, 30, [0] * 10)
        waits(pacer, 30, [0] * 5)
        assert pacer.rule.count == 3  # type: ignore[attr-defined]
    assert FeedbackPacer(pi_rule).name == "pi_rule"
    assert FeedbackPacer(pi_rule(ki=0.5)).rule.ki == 0.5  # type: ignore[attr-defined]


def test_pi_rule_is_a_rule_and_each_pacer_has_one_that_remembers_by_itself() -> None:
    assert pi_rule(0.03, 25.0, 30.0) == PiRule()(0.03, 25.0, 30.0)
    first, second = FeedbackPacer(pi_rule), FeedbackPacer(pi_rule)
    assert first.rule is not second.rule


def test_nothing_is_called_to_see_whether_it_is_a_rule() -> None:
    asked: list[float] = []

    def rule(delay: float = 0.0, measured_fps: float = 0.0, target_fps: float = 0.0) -> float:
        asked.append(delay)
        return delay

    pacer = FeedbackPacer(rule)
    assert not asked
    assert pacer.rule is rule


@pytest.mark.parametrize(("kp", "ki"), [(0.1, 0.2), (0, 0.05), (0, 1), (0.5, 0.3), (-0.3, 1.2)])
def test_pi_holds_the_rate_and_the_drift(kp: float, ki: float) -> None:
    work, count = 5 * MS, 400
    waited = waits(FeedbackPacer(pi_rule(kp=kp, ki=ki)), 30, [work] * count)
    gaps_ms = np.array(waited) / MS + work / MS
    assert gaps_ms[-50:] == pytest.approx(1000 / 30, abs=1e-4)
    # The errors' sum, which is the drift, is what moved the delay from a frame's length to that less the work.
    assert float(np.sum(gaps_ms - 1000 / 30)) == pytest.approx(5 / ki, abs=0.01)


def test_one_long_stall_does_not_use_up_pis_delay() -> None:
    pacer = FeedbackPacer(pi_rule())
    waited = waits(pacer, 30, [5 * MS] * 100 + [2_000 * MS] + [5 * MS] * 100)
    assert pacer.stalls == 0
    assert min(waited) > 10 * MS
    assert waited[-1] / MS == pytest.approx(1000 / 30 - 5, abs=1e-3)


@pytest.mark.parametrize(("kp", "ki"), [(1, 0.1), (-1, 0.1), (0, 0), (0, 2), (0.5, 1), (float("nan"), 0.2)])
def test_gains_that_swing_ever_wider_are_refused(kp: float, ki: float) -> None:
    with pytest.raises(ValueError, match="pi_rule is stable for"):
        pi_rule(kp=kp, ki=ki)


def test_a_bare_rule_is_no_pacer_and_is_told_how_to_become_one() -> None:
    with pytest.raises(TypeError, match=r"tutorial_rule is a rule, not a pacer: .*FeedbackPacer\(tutorial_rule\)"):
        pacer_named(tutorial_rule)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a pacer is one of"):
        pacer_named(3)  # type: ignore[arg-type]


def test_a_rule_that_fails_is_named() -> None:
    def dividing(delay: float, measured_fps: float, target_fps: float) -> float:
        return delay / 0

    with pytest.warns(avlab.PartWarning, match=r"the rule dividing failed at delay=.*ZeroDivisionError"):
        simulate(30.0, pacer=FeedbackPacer(dividing), seconds=1)
