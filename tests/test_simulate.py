"""Whole runs in virtual time: the same again for a seed, ledgers that close, work that delays and does not add up."""

from __future__ import annotations

import random
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tools import without_addresses

from avlab.measure.numbers.metrics import convergence, drift, frame_ledger, pacing, packet_ledger, summary
from avlab.media import codec
from avlab.media.sources import ClipSource
from avlab.network.settings import Network
from avlab.parts import PartWarning, Report
from avlab.stream import recorded_sizes as sizes
from avlab.stream import simulate as module
from avlab.stream.recorded_sizes import frame_bytes
from avlab.stream.simulate import picture_times_ns, recorded_work, simulate
from avlab.timing.pacing import DeadlinePacer, Due, FeedbackPacer, Pacer, TutorialPacer
from benchmarks import work

DATA = Path(__file__).parents[1] / "data"


def scattered(chance: random.Random) -> float:
    return chance.uniform(0, 0.03)


def test_ten_minutes_are_exact() -> None:
    trace = simulate(30.0, seconds=600, work=0)
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
    {"work": 0},
    {"pacer": "none"},
    {"pacer": "tutorial"},
    {"pacer": "pi", "work": 0.05},
    {"pacer": TutorialPacer(stall="real"), "work": 0.04},
    {"pacer": "none", "work": 0.001},
    {"playout_delay": 0.0},
    {"playout_delay": 0.0, "work": scattered, "delay": 0.2},
    {"playout_delay": 2.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=without_addresses)
def test_ledgers_close(settings: dict[str, Any]) -> None:
    trace = simulate(30.0, seconds=30, **settings)
    ledger = frame_ledger(trace)
    stalled = "work" in settings and isinstance(settings.get("pacer"), TutorialPacer)
    assert ledger.offered == (18 if stalled else 900)
    assert ledger.in_flight == int(stalled)
    assert ledger.closes
    assert ledger.shown > 0
    shown = trace.frames["shown"].notna()
    assert (shown == (trace.frames["fate"] == "shown")).all()
    assert sorted(trace.frames["index"]) == list(range(ledger.offered))


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
    frames = simulate(25.0, seconds=4, work=0, delay=0.25, playout_delay=0.05).frames
    assert (frames["complete"] - frames["sent"]).to_numpy() == pytest.approx(0.25)
    assert (frames["shown"] - frames["complete"]).to_numpy() == pytest.approx(0.05)
    frames = simulate(25.0, seconds=4, work=0, delay=0.25, playout_delay=0).frames
    assert frames["shown"].to_numpy() == pytest.approx(frames["complete"].to_numpy())


def test_a_clip_is_paced_by_its_own_times_and_loops() -> None:
    times = picture_times_ns(DATA / "count-vfr.mp4")
    assert len(set(np.diff(times))) > 1
    once = len(times)
    frames = simulate(DATA / "count-vfr.mp4", seconds=20, work=0).frames
    frames = frames[frames["stream"] == "video"]
    assert len(frames) > 2 * once
    assert frames["pts"].to_numpy()[:once] == pytest.approx(np.array(times) / 1e9)
    assert (np.diff(frames["pts"]) > 0).all()
    assert np.diff(frames["pts"])[once - 1] == pytest.approx(np.median(np.diff(times)) / 1e9, rel=1)
    assert (frames["sent"] == frames["due"]).all()


def test_times_in_seconds() -> None:
    frames = simulate([0, 0.5, 0.75, 3.0, 9.0], seconds=5, work=0).frames
    assert list(frames["pts"]) == [0, 0.5, 0.75, 3.0]
    assert list(frames["sent"]) == [0, 0.5, 0.75, 3.0]
    assert len(simulate([], seconds=5).frames) == 0


def test_anyones_pacer() -> None:
    class Half(DeadlinePacer):
        """Sends at half speed."""

        def wake_at(self) -> int | None:
            due_ns = super().wake_at()
            return None if due_ns is None else 2 * due_ns

    frames = simulate(10.0, pacer=Half(), seconds=2, work=0, playout_delay=5).frames
    assert frames["sent"].to_numpy() == pytest.approx(2 * frames["pts"].to_numpy())


def test_a_pacer_that_never_wakes_is_named() -> None:
    class Asleep(DeadlinePacer):
        def wake_at(self) -> int | None:
            return None

        def pull(self, now_ns: int, /) -> list[Due]:
            return []

    with pytest.warns(PartWarning, match="the pacer Asleep holds frame 0 for ever"):
        trace = simulate(10.0, seconds=2, pacer=Asleep())
    assert (trace.frames["fate"] == "shown").all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip": 0}, "frames a second must be more than 0"),
        ({"seconds": 0}, "seconds must be more than 0"),
        ({"seconds": float("inf")}, "seconds must be more than 0 and finite"),
        ({"delay": -0.1}, "delay must be 0 or more seconds, not -0.1"),
        ({"playout_delay": float("nan")}, "playout_delay must be 0 to 5 seconds or 'adaptive', not nan"),
        ({"work": -1}, "work must be 0 or more seconds a frame, not -1"),
        ({"pacer": "fast"}, "pacer must be one of"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        simulate(**({"clip": 30.0} | settings))


def test_a_clip_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    rates = []
    for name in ("count-15.mp4", "count-24.mp4", "count-24.mp4"):
        shutil.copy(DATA / name, clip)
        rates.append([simulate(clip, seconds=1).meta["target_fps"] for _ in range(2)])
    assert rates == [[15, 15], [24, 24], [24, 24]]


def test_a_missing_clip_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        simulate(DATA / "nowhere.mp4")


# ---- the recorded work, and feedback under it


def rates(chance: random.Random) -> float:
    return 0.002 + chance.expovariate(1 / 0.001)


@pytest.mark.parametrize("width", [400, 640])
def test_a_simulated_run_has_the_recorded_runs_statistics(width: int) -> None:
    late_ms = np.array([cost.late_ns for cost in recorded_work(width)]) / 1e6
    assert len(late_ms) > 500
    frames = simulate(30.0, seconds=600, width=width).frames
    simulated_ms = (frames["sent"] - frames["due"]).to_numpy() * 1e3
    real_error, our_error = (np.abs(np.diff(values)) for values in (late_ms, simulated_ms))
    for share in (0.25, 0.5, 0.75):
        assert np.quantile(simulated_ms, share) == pytest.approx(np.quantile(late_ms, share), rel=0.15)
        assert np.quantile(our_error, share) == pytest.approx(np.quantile(real_error, share), rel=0.15)


def test_the_nearest_recorded_width_counts() -> None:
    assert recorded_work(64) is recorded_work(400)
    assert recorded_work(1920) is recorded_work(640)
    assert recorded_work(400) is not recorded_work(640)
    assert all(min(cost) >= 0 and cost.encode_ns > 0 and cost.send_ns > 0 for cost in recorded_work(640))


@pytest.mark.slow
def test_a_machines_own_work_can_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As avlab/data/README.md tells; `simulate` takes the new file."""
    own = tmp_path / "work.csv"
    monkeypatch.setattr("sys.argv", ["work.py", "--seconds", "1", "--out", str(own)])
    work.main()
    monkeypatch.setattr(module, "RECORDED", own)
    module.recorded_costs.cache_clear()
    try:
        for width in work.WIDTHS:
            costs = recorded_work(width)
            assert len(costs) > 5
            assert all(cost.encode_ns > 0 and cost.send_ns > 0 for cost in costs)
        assert len(simulate(30.0, seconds=1).frames) == 30
    finally:
        module.recorded_costs.cache_clear()


def test_without_the_record_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORDED", DATA / "nowhere.csv")
    module.recorded_costs.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"work times .*nowhere\.csv are not here: .* give work="):
        simulate(30.0, seconds=1)
    assert len(simulate(30.0, seconds=1, work=0).frames) == 30
    module.recorded_costs.cache_clear()


@pytest.mark.parametrize("pacer", ["deadline", "tutorial", "pi"])
def test_a_seed_is_a_run_for_every_pacer(pacer: str) -> None:
    def run(seed: int, pacer: str | Pacer = pacer) -> bytes:
        return simulate(30.0, pacer=pacer, seconds=10, seed=seed).rows("frames").tobytes()

    assert run(3) == run(3) != run(4)


def test_a_pacer_used_again_starts_afresh() -> None:
    pacer = FeedbackPacer(lambda delay, measured, target: delay + 0.2 * (1 / target - 1 / measured))
    first, second = (simulate(30.0, pacer=pacer, seconds=5, work=rates).rows("frames") for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_the_tutorials_rule_slides_and_the_others_do_not() -> None:
    def slide(pacer: str | Pacer) -> float:
        found = convergence(simulate(29.97, pacer=pacer, seconds=120, work=rates), at="sent").drift_ms_per_minute
        assert found is not None
        return abs(found)

    assert slide("deadline") < 1
    assert slide("pi") < 5
    assert slide("tutorial") > 50
    assert slide(TutorialPacer(edition="macos")) > 50


def test_work_is_in_the_loop_and_encoding_is_not() -> None:
    def fixed(encode_ms: float, late_ms: float, send_ms: float) -> float:
        costs = (module.FrameWork(round(encode_ms * 1e6), round(late_ms * 1e6), round(send_ms * 1e6)),)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "recorded_work", lambda width: costs)
            pacer = FeedbackPacer(lambda delay, measured, target: 0.020)
            sent = simulate(30.0, pacer=pacer, seconds=10).frames["sent"].to_numpy()
        return float(np.median(np.diff(sent))) * 1e3

    assert fixed(0, 0, 0) == pytest.approx(20)
    assert fixed(0, 1, 2) == pytest.approx(23)
    assert fixed(15, 1, 2) == pytest.approx(23)  # done while the loop waits
    assert fixed(30, 1, 2) == pytest.approx(30)  # the loop waits for its next frame


def test_the_wait_that_ran_out_is_in_the_record() -> None:
    trace = simulate(30.0, pacer="tutorial", seconds=10, work=0.04)
    events = trace.settings[trace.settings["kind"] == "event"]
    assert list(events["name"].unique()) == ["pacer", "late pictures"]
    assert "waitKey(0)" in events["value"].iloc[0]
    assert 0.5 < events["time"].iloc[0] < 1.5
    gaps = np.diff(trace.frames["sent"].to_numpy())
    assert gaps[-100:] == pytest.approx(0.041)
    assert drift(trace, at="sent")["drift_ms"].iloc[-1] > 1000


def test_the_real_thing_ends_with_a_frame_that_never_left() -> None:
    trace = simulate(30.0, pacer=TutorialPacer(stall="real"), seconds=10, work=0.04)
    held = trace.frames[trace.frames["fate"] == "in_flight"]
    assert list(held["index"]) == [17]
    assert held["sent"].isna().all()
    assert trace.frames["sent"].max() < 2
    assert "stands still" in str(trace.settings["value"].iloc[-1])


def test_a_pacer_that_wakes_for_nothing_is_named() -> None:
    class Empty(DeadlinePacer):
        def pull(self, now_ns: int, /) -> list[Due]:
            return []

    with pytest.warns(PartWarning, match=r"the pacer Empty gives nothing at 0\.000000 s"):
        trace = simulate(10.0, seconds=2, pacer=Empty())
    assert (trace.frames["fate"] == "shown").all()


# ---- with a network: packets


NETWORKS = [
    Network(),
    Network(loss=0.02),
    Network(loss=1),
    Network(loss=0.1, burst=5, delay=0.05, jitter=0.01),
    Network(delay=0.02, jitter=0.06, reorder=True, duplicate=0.1),
    Network(rate=1_500, queue=0.05, delay=0.01),
    Network.presets["classroom"],
]


@pytest.mark.parametrize("network", NETWORKS, ids=without_addresses)
def test_both_ledgers_close_over_a_network(network: Network) -> None:
    trace = simulate(30.0, seconds=20, width=400, network=network, work=0)
    packets, frames = packet_ledger(trace), frame_ledger(trace)
    assert packets.closes
    assert frames.closes
    assert frames.offered == 600
    assert packets.sent > 3_000
    assert packets.in_flight == frames.in_flight == 0
    assert sorted(trace.frames["index"]) == list(range(600))
    rows = trace.packets
    assert sorted(rows["seq"][rows["sent"].notna()]) == list(range(packets.sent))
    assert rows["bytes"].max() <= 1200
    # A frame is whole, shown or not, if none of its packets was lost or late, and only then.
    missed = set(rows["timestamp"][rows["fate"].isin(["lost", "late"]) & rows["sent"].notna()])
    harmed = trace.frames["complete"].isna()
    assert set(trace.frames["timestamp"][harmed]) == missed


def test_a_network_that_does_nothing_changes_nothing_of_the_frames() -> None:
    columns = ["index", "pts", "timestamp", "due", "encoded", "sent", "first_packet", "complete", "shown", "fate"]
    with_, without = (
        simulate(30.0, seconds=10, width=400, work=scattered, **settings).frames[columns]
        for settings in ({"network": Network(delay=0.03)}, {"delay": 0.03})
    )
    pd.testing.assert_frame_equal(with_, without)


def test_frame_loss_is_what_its_packets_make_it() -> None:
    share = 0.02
    trace = simulate(30.0, seconds=300, width=400, network=Network(loss=share), work=0)
    frames, packets = trace.frames, packet_ledger(trace)
    assert packets.lost / packets.sent == pytest.approx(share, rel=0.1)
    count = trace.packets.groupby("timestamp").size().reindex(frames["timestamp"])
    predicted = (1 - (1 - share) ** count).mean()
    assert frames["fate"].isin(["lost", "incomplete"]).mean() == pytest.approx(predicted, rel=0.1)
    lossy = summary(trace)
    assert lossy.packet_loss_percent == pytest.approx(100 * packets.lost / packets.sent)
    assert lossy.frame_loss_percent is not None
    assert lossy.frame_loss_percent > 5 * (lossy.packet_loss_percent or 0)


def test_a_seed_loses_the_same_packets_whatever_the_work_is() -> None:
    def run(losses: int, **settings: Any) -> Any:
        network = Network(loss=0.05, burst=2, jitter=0.002, seed=losses)
        return simulate(30.0, seconds=20, width=400, network=network, **settings)

    def lost(trace: Any) -> list[int]:
        return sorted(trace.packets["seq"][trace.packets["fate"] == "lost"])

    first, again = run(1), run(1)
    for table in ("frames", "packets"):
        assert first.rows(table).tobytes() == again.rows(table).tobytes()
    assert lost(first) == lost(run(1, seed=9)) == lost(run(1, work=scattered, pacer="none")) != lost(run(2))


def test_a_bottleneck_delays_and_then_drops() -> None:
    trace = simulate(30.0, seconds=20, width=640, network=Network(rate=3_000, queue=0.08), work=0, playout_delay=0.5)
    packets = trace.packets
    late = (packets["received"] - packets["sent"]).max()
    assert 0.08 < late < 0.09
    received = packets["bytes"][packets["received"].notna()].sum() * 8 / 1000
    assert received / packets["received"].max() == pytest.approx(3_000, rel=0.02)
    assert packet_ledger(trace).lost > 500


def test_frames_are_as_large_as_the_clips() -> None:
    clip = DATA / "count-15.mp4"
    trace = simulate(clip, seconds=1, width=400, quality=50, network=Network(), work=0)
    server = [
        len(codec.encode_jpeg(p.image, width=400, quality=50, matrix=p.matrix)[0])
        for p in islice(ClipSource(clip).pictures(), 15)
    ]
    pictures = trace.frames[trace.frames["stream"] == "video"]
    # A receiver leaves out the JFIF segment's rest.
    assert list(pictures["bytes"]) == [size - 16 for size in server]
    assert frame_bytes("anyone.mp4", 400, 80) == frame_bytes("count.mp4", 400, 80)


def test_sizes_between_those_recorded() -> None:
    def mean(width: int, quality: int) -> float:
        return float(np.mean(frame_bytes("count.mp4", width, quality)))

    grid = [[mean(width, quality) for quality in (1, 10, 40, 80, 88, 100)] for width in (16, 160, 240, 500, 1280, 2040)]
    assert (np.diff(grid, axis=0) > 0).all()
    assert (np.diff(grid, axis=1) > 0).all()
    assert len(frame_bytes("count.mp4", 333, 77)) == 600
    picture = next(ClipSource(DATA / "count.mp4").pictures())
    for width, quality in ((480, 65), (240, 90)):
        jpeg, _, _ = codec.encode_jpeg(picture.image, width=width, quality=quality, matrix=picture.matrix)
        assert frame_bytes("count.mp4", width, quality)[0] == pytest.approx(len(jpeg) - 625, rel=0.12)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"network": 0.02}, TypeError, "network must be an avlab.Network, .*not 0.02"),
        ({"network": Network(), "delay": 0.1}, ValueError, r"delay is one of the network's own.*Network\(delay=0.1"),
        ({"network": Network(), "width": 3}, ValueError, "width must be a whole number from 16"),
        ({"network": Network(), "quality": 101}, ValueError, "quality must be a whole number from 1 to 100"),
    ],
)
def test_what_cannot_be_of_a_network(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        simulate(30.0, seconds=1, **settings)


def test_without_the_sizes_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "SIZES", DATA / "nowhere.csv")
    for cached in (sizes.table_of_sizes, sizes.frame_bytes):
        cached.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"frame sizes .*nowhere\.csv are not here: install avlab anew"):
        simulate(30.0, seconds=1, network=Network())
    assert len(simulate(30.0, seconds=1).frames) == 30


# ---- a network that becomes another


WIDE, NARROW = Network(rate=8_000, delay=0.02), Network(rate=1_500, queue=0.1, delay=0.02)


def test_a_list_of_one_network_is_that_network() -> None:
    one, listed = (simulate(30, network=network, seconds=3) for network in (NARROW, [(0, NARROW)]))
    assert one.frames.equals(listed.frames)
    assert one.packets.equals(listed.packets)


def test_a_network_that_becomes_another_does_so_on_its_time_and_is_recorded() -> None:
    trace = simulate(30, network=[(0, WIDE), (2.5, NARROW), (5, WIDE)], seconds=8)
    lost = trace.packets.query("fate == 'lost'")["sent"]
    assert 2.5 < lost.min() < 3 < lost.max() < 5.1
    frames = trace.frames.query("fate == 'shown'")["pts"]
    assert not frames.between(3.2, 4.9).any()
    assert frames.between(0, 2.4).sum() == 73
    said = trace.settings.query("name == 'network'")
    assert list(said["time"]) == [0, 2.5, 5]
    assert list(said["value"]) == [str(WIDE), str(NARROW), str(WIDE)]
    assert trace.packets.equals(simulate(30, network=[(0, WIDE), (2.5, NARROW), (5, WIDE)], seconds=8).packets)


def test_feedback_meets_the_same_networks() -> None:
    heard: list[tuple[float, float | None]] = []

    class Listens:
        def update(self, report: Report) -> None:
            heard.append((report.time, report.round_trip))

    far = Network(delay=0.2)
    simulate(30, network=[(0, Network()), (3, far)], rate_control=Listens, seconds=6)
    near = [trip for time, trip in heard if time < 3 and trip is not None]
    assert near
    assert max(near) < 0.05
    assert heard[-1][1] == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize(
    ("network", "error", "words"),
    [
        ([], ValueError, "this list is empty"),
        ([(1, WIDE)], ValueError, "must begin with 0 and rise, and 1 does not fit"),
        ([(0, WIDE), (0, NARROW)], ValueError, "must begin with 0 and rise, and 0 does not fit"),
        ([(0, WIDE), (5, NARROW), (4, WIDE)], ValueError, "and 4 does not fit"),
        ([(0, WIDE), (float("nan"), NARROW)], ValueError, "and nan does not fit"),
        ([(0, WIDE), (float("inf"), NARROW)], ValueError, "and inf does not fit"),
        ([WIDE, NARROW], TypeError, "is no such pair"),
        ([(WIDE, 0)], TypeError, "is no such pair"),
        ([(0, 0.02)], TypeError, "is no such pair"),
        ("wide", TypeError, "network must be an avlab.Network, or a list of"),
    ],
)
def test_what_is_no_list_of_networks(network: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        simulate(30, network=network, seconds=1)


@pytest.mark.parametrize("grows", [1.3, 2.0, 1e6])
def test_a_run_with_a_pacer_that_waits_longer_and_longer_ends(grows: float) -> None:
    trace = simulate(30.0, pacer=FeedbackPacer(lambda delay, measured_fps, target_fps: delay * grows), seconds=10)
    sent = trace.frames["sent"].dropna()
    assert 0 < len(sent) < 300
    assert sent.max() <= 4 * 10 + 60
    assert list(trace.settings["name"]).count("ended early") == 1
