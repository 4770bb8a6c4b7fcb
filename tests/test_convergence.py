"""How a rate comes to its target: made-up departures of which every number is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import traces

from avlab.measure.numbers import convergence as module
from avlab.measure.numbers import metrics
from avlab.measure.numbers.metrics import convergence, drift
from avlab.measure.record.trace import FrameRow, Recorder, Trace

NS = 1_000_000_000


def left_at(times: Sequence[float], *, fps: float | None = 30.0, pts: bool = True) -> Trace:
    """A server's record of frames sent at these seconds; timestamps are those of `fps`."""
    record = Recorder(side="server", epoch_ns=0, clock="one")
    record.meta["target_fps"] = fps
    for index, time in enumerate(times):
        meant = round(index / (fps or 30) * NS) if pts else None
        record.frame(FrameRow("video", index, meant, sent_ns=round(time * NS)))
    return record.trace()


def every(*gaps_ms: float) -> list[float]:
    return list(np.cumsum([0.0, *gaps_ms]) / 1e3)


FRAME = 1000 / 30


@pytest.mark.parametrize(
    ("gaps", "ppm", "drift_ms"),
    [
        ([FRAME] * 1800, 0, 0),
        ([FRAME * 1.001] * 1800, -999.0, 59.94),
        ([FRAME * 0.999] * 1800, 1001.0, -60.06),
        ([FRAME * 1.001 - 0.5, FRAME * 1.001 + 0.5] * 900, -999.0, 59.94),
    ],
)
def test_rate_error_and_drift_are_two_words_for_one_slope(gaps: list[float], ppm: float, drift_ms: float) -> None:
    found = convergence(left_at(every(*gaps)), at="sent")
    assert found.rate_error_ppm == pytest.approx(ppm, abs=0.1)
    assert found.drift_ms_per_minute == pytest.approx(drift_ms, abs=0.05)


def test_drift_is_positive_behind_and_starts_at_nothing() -> None:
    table = drift(left_at([5.0, 5.04, 5.06, 5.10], fps=50), at="sent")
    assert table["time"].to_numpy() == pytest.approx([5.0, 5.04, 5.06, 5.10])
    assert table["drift_ms"].to_numpy() == pytest.approx([0, 20, 20, 40])
    by_rate = drift(left_at([0, 0.021, 0.042], fps=50, pts=False), at="sent")
    assert by_rate["drift_ms"].to_numpy() == pytest.approx([0, 1, 2])
    assert len(drift(traces.empty(), at="sent")) == 0
    assert list(drift(left_at([1.0]), at="sent")["drift_ms"]) == [0]


def test_drift_and_ripple_are_those_after_settling() -> None:
    start = [50.0] * 40  # 20 fps for two seconds, and 666 ms behind
    found = convergence(left_at(every(*start, *[FRAME - 1, FRAME + 1] * 600)), at="sent")
    assert found.settled_s == pytest.approx(3, abs=0.1)
    assert found.drift_ms_per_minute == pytest.approx(0, abs=0.5)
    assert found.ripple_ms == pytest.approx(2, abs=1e-4)
    assert found.rate_error_ppm == pytest.approx(-16_000, rel=0.03)


def test_what_never_settles_is_judged_over_all() -> None:
    found = convergence(left_at(every(*[50.0] * 400)), at="sent")
    assert found.settled_s is None
    assert found.mean_fps == pytest.approx(20)
    assert found.drift_ms_per_minute == pytest.approx(20_000, rel=1e-6)
    assert found.ripple_ms == pytest.approx(0, abs=1e-4)
    assert found.overshoot_percent == 0


@pytest.mark.parametrize(
    ("gaps", "percent"),
    [
        ([FRAME] * 90, 0),
        ([40.0] * 60 + [FRAME] * 90, 0),  # from below, never beyond
        ([40.0] * 60 + [FRAME / 1.1] * 60 + [FRAME] * 60, 10),
        ([25.0] * 60 + [FRAME / 0.9] * 60 + [FRAME] * 60, 10),  # from above
    ],
)
def test_overshoot_is_how_far_beyond_the_target_it_went(gaps: list[float], percent: float) -> None:
    found = convergence(left_at(every(*gaps)), at="sent").overshoot_percent
    assert found == pytest.approx(percent, abs=1e-3)


def test_one_late_frame_at_the_end_is_no_drift() -> None:
    times = every(*[FRAME] * 1800)
    late = convergence(left_at([*times[:-1], times[-1] + 0.02]), at="sent")
    assert late.drift_ms_per_minute == pytest.approx(0, abs=0.1)
    assert late.rate_error_ppm == pytest.approx(-333, abs=1)


@pytest.mark.parametrize("trace", [traces.empty(), left_at([]), left_at([1.0]), left_at([1.0, 1.0])])
def test_of_too_little_nothing_is_said(trace: Trace) -> None:
    found = convergence(trace, at="sent")
    assert found.mean_fps is found.rate_error_ppm is found.drift_ms_per_minute is None
    assert "drift                    -" in str(found)


def test_without_a_target_there_is_no_overshoot() -> None:
    found = convergence(left_at(every(40, 40, 40), fps=None, pts=False), at="sent")
    assert found.target_fps is found.overshoot_percent is found.settled_s is found.drift_ms_per_minute is None
    assert found.mean_fps == pytest.approx(25)


def test_it_prints_with_units() -> None:
    lines = str(convergence(left_at(every(*[FRAME * 1.001] * 1800)), at="sent")).splitlines()
    assert [line.split()[-1] for line in lines] == ["fps", "s", "fps", "fps", "ppm", "%", "ms", "ms/min"]
    assert lines[-1].split() == ["drift", "59.94", "ms/min"]
    assert lines[4].split() == ["rate", "error", "-999.00", "ppm"]


def test_metrics_has_it_all() -> None:
    for name in (
        "Convergence",
        "Moment",
        "convergence",
        "drift",
        "fps",
        "interval_error",
        "settling_time",
        "target_fps",
    ):
        assert getattr(metrics, name) is getattr(module, name)
        assert name in metrics.__all__
