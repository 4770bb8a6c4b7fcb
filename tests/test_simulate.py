"""Whole runs in virtual time: the same again for a seed, ledgers that close, work that delays and does not add up."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avlab.measure.metrics import frame_ledger, pacing
from avlab.stream.simulate import picture_times_ns, simulate
from avlab.timing.pacing import DeadlinePacer, Due

DATA = Path(__file__).parents[1] / "data"


def scattered(chance: random.Random) -> float:
    return chance.uniform(0, 0.03)


def test_ten_minutes_are_exact() -> None:
    trace = simulate(30.0, seconds=600)
    frames = trace.frames
    assert len(frames) == 18_000
    assert (frames["fate"] == "shown").all()
    assert (frames["sent"] == frames["due"]).all()
    assert frames["sent"].to_numpy() == pytest.approx(frames["pts"].to_numpy(), abs=1e-9)
    assert frames["shown"].to_numpy() == pytest.approx(frames["pts"].to_numpy() + 0.1, abs=1e-9)
    assert pacing(trace).max_ms == 0
    assert frame_ledger(trace).closes


def test_a_seed_gives_the_same_run_to_the_bit() -> None:
    def run(seed: int) -> Any:
        trace = simulate(29.97, seconds=20, seed=seed, work=scattered, delay=0.01)
        return trace.rows("frames").tobytes(), trace.meta

    assert run(1) == run(1)
    assert run(1)[0] != run(2)[0]
    assert run(7)[1]["seed"] == 7


SETTINGS: list[dict[str, Any]] = [
    {},
    {"work": 0.01},
    {"work": 0.05},  # more than there is time for
    {"work": scattered},
    {"delay": 0.08},
    {"pacer": "none"},
    {"pacer": "none", "work": 0.001},
    {"playout_delay": 0.0},
    {"playout_delay": 0.0, "work": scattered, "delay": 0.2},
    {"playout_delay": 2.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_ledgers_close(settings: dict[str, Any]) -> None:
    trace = simulate(30.0, seconds=30, **settings)
    ledger = frame_ledger(trace)
    assert ledger.offered == 900
    assert ledger.closes
    assert ledger.shown > 0
    shown = trace.frames["shown"].notna()
    assert (shown == (trace.frames["fate"] == "shown")).all()
    assert sorted(trace.frames["index"]) == list(range(900))


def test_work_delays_a_frame_and_not_the_next() -> None:
    trace = simulate(30.0, seconds=60, work=0.01)
    late_ms = (trace.frames["sent"] - trace.frames["due"]).to_numpy() * 1e3
    assert late_ms == pytest.approx(10, abs=1e-6)
    assert pacing(trace).drift_ms == pytest.approx(0, abs=1e-6)
    trace = simulate(30.0, seconds=60, work=scattered)
    late_ms = (trace.frames["sent"] - trace.frames["due"]).to_numpy() * 1e3
    assert late_ms.max() < 30
    assert np.median(late_ms[-300:]) == pytest.approx(np.median(late_ms[:300]), abs=3)


def test_the_senders_work_does_not_hold_up_the_receiver() -> None:
    frames = simulate(30.0, seconds=10, work=0.02, delay=0.033, playout_delay=0.01).frames
    assert (frames["fate"] == "shown").all()
    assert frames["shown"].to_numpy() == pytest.approx(frames["sent"].to_numpy() + 0.043, abs=1e-9)


def test_more_work_than_time_adds_up() -> None:
    trace = simulate(25.0, seconds=20, work=0.05)
    frames = trace.frames
    assert (frames["sent"] - frames["due"]).iloc[-1] == pytest.approx(0.05 + 499 * 0.01, abs=1e-6)
    assert frame_ledger(trace).late > 200  # by turns: a second too late, then followed, then overtaken again


def test_delay_and_playout_delay() -> None:
    frames = simulate(25.0, seconds=4, delay=0.25, playout_delay=0.05).frames
    assert (frames["complete"] - frames["sent"]).to_numpy() == pytest.approx(0.25)
    assert (frames["shown"] - frames["complete"]).to_numpy() == pytest.approx(0.05)
    frames = simulate(25.0, seconds=4, delay=0.25, playout_delay=0).frames
    assert frames["shown"].to_numpy() == pytest.approx(frames["complete"].to_numpy())


def test_a_clip_is_paced_by_its_own_times_and_loops() -> None:
    times = picture_times_ns(DATA / "count-vfr.mp4")
    assert len(set(np.diff(times))) > 1
    once = len(times)
    frames = simulate(DATA / "count-vfr.mp4", seconds=20).frames
    assert len(frames) > 2 * once
    assert frames["pts"].to_numpy()[:once] == pytest.approx(np.array(times) / 1e9)
    assert (np.diff(frames["pts"]) > 0).all()
    assert np.diff(frames["pts"])[once - 1] == pytest.approx(np.median(np.diff(times)) / 1e9, rel=1)
    assert (frames["sent"] == frames["due"]).all()


def test_times_in_seconds() -> None:
    frames = simulate([0, 0.5, 0.75, 3.0, 9.0], seconds=5).frames
    assert list(frames["pts"]) == [0, 0.5, 0.75, 3.0]
    assert list(frames["sent"]) == [0, 0.5, 0.75, 3.0]
    assert len(simulate([], seconds=5).frames) == 0


def test_anyones_pacer() -> None:
    class Half(DeadlinePacer):
        """Sends at half speed."""

        def wake_at(self) -> int | None:
            due_ns = super().wake_at()
            return None if due_ns is None else 2 * due_ns

    frames = simulate(10.0, pacer=Half(), seconds=2, playout_delay=5).frames
    assert frames["sent"].to_numpy() == pytest.approx(2 * frames["pts"].to_numpy())


def test_a_pacer_that_never_wakes_is_named() -> None:
    class Asleep(DeadlinePacer):
        def wake_at(self) -> int | None:
            return None

        def pull(self, now_ns: int, /) -> list[Due]:
            return []

    with pytest.raises(ValueError, match="the pacer Asleep holds frame 0 for ever"):
        simulate(10.0, pacer=Asleep())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip": 0}, "frames a second must be more than 0"),
        ({"seconds": 0}, "seconds must be more than 0"),
        ({"seconds": float("inf")}, "seconds must be more than 0 and finite"),
        ({"delay": -0.1}, "delay must be 0 or more seconds, not -0.1"),
        ({"playout_delay": float("nan")}, "playout_delay must be 0 or more seconds, not nan"),
        ({"work": -1}, "work must be 0 or more seconds a frame, not -1"),
        ({"pacer": "fast"}, "pacer must be one of"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        simulate(**({"clip": 30.0} | settings))


def test_a_missing_clip_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        simulate(DATA / "nowhere.mp4")
