"""What a simulated run has of a real one: sound on the same way, reports, feedback's own network, the same losses."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_own_buffer import FixedDelay
from test_own_repair import Both, Once, Twice, Xor

import avlab
from avlab.measure.numbers import metrics
from avlab.network.settings import Network
from avlab.stream.simulate import simulate
from avlab.stream.virtual.collector import full_collections_put_off
from avlab.stream.virtual.device import Device

DATA = Path(__file__).parents[1] / "data"
CLIP = DATA / "count-15.mp4"


def run(seconds: float = 5, **settings: Any) -> avlab.Trace:
    return simulate(CLIP, seconds=seconds, width=400, work=0, **settings)


def of(trace: avlab.Trace, stream: str) -> pd.DataFrame:
    return trace.frames[trace.frames["stream"] == stream]


# ---- sound


def test_sound_is_heard_and_pictures_keep_to_it() -> None:
    trace = run(network=Network(delay=0.02))
    sound = of(trace, "audio")
    assert (sound["fate"] == "shown").all()
    assert len(sound) == 3 * 50 * 5, "three packets a chunk"
    assert (trace.packets.query("stream == 'audio'")["bytes"] <= 1200).all()
    assert sound["bytes"].sum() == 44_100 * 4 * 5
    sync = trace.sync
    assert len(sync) == (of(trace, "video")["fate"] == "shown").sum()
    assert sync["offset"].abs().quantile(0.95) < 0.005
    assert trace.meta["audio_rate"] == 44_100
    for stream in ("video", "audio"):
        assert metrics.packet_ledger(trace, stream).closes
    assert metrics.frame_ledger(trace).closes


def test_sound_may_be_left_out_and_a_clip_without_has_none() -> None:
    for trace in (run(audio=False, network=Network()), simulate(15.0, seconds=2, network=Network(), work=0)):
        assert set(trace.frames["stream"]) == set(trace.packets["stream"]) == {"video"}
        assert len(trace.sync) == 0
    with pytest.raises(TypeError, match="audio must be True, False or a Device"):
        run(audio="speaker")


def test_sound_shares_the_bottleneck_and_loses_nothing_over_tcp() -> None:
    narrow = Network(rate=1_700, queue=0.1, loss=0.02, seed=3)
    alone, together = run(network=narrow, audio=False), run(network=narrow)
    shown = [(of(trace, "video")["fate"] == "shown").mean() for trace in (alone, together)]
    assert shown[1] < shown[0] - 0.3, "1.4 Mbit/s of sound leave little room"
    sound = together.packets.query("stream == 'audio'").sort_values("seq")
    assert not (sound["fate"] == "lost").any()
    assert sound["received"].is_monotonic_increasing
    assert (sound["received"] - sound["sent"]).max() > 0.02, "it waits in the queue"


def test_without_a_network_sound_is_there_too_and_packets_are_not() -> None:
    trace = run()
    assert len(trace.packets) == 0
    assert (of(trace, "audio")["fate"] == "shown").all()
    assert (of(trace, "video")["fate"] == "shown").all()


@pytest.mark.parametrize("ppm", [-300.0, 300.0])
def test_pictures_follow_a_device_whose_clock_is_off(ppm: float) -> None:
    trace = simulate(CLIP, seconds=60, width=64, network=Network(), work=0, audio=Device(ppm=ppm, latency=0.03))
    assert trace.sync["skew_ppm"].iloc[-1] == pytest.approx(-ppm, abs=30)
    assert trace.sync["offset"].abs().max() < 0.01
    assert (of(trace, "video")["fate"] == "shown").mean() > 0.99


@pytest.mark.parametrize("settings", [{"block": 0}, {"latency": -1}, {"ppm": float("nan")}, {"block": "long"}])
def test_a_device_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    [name] = settings
    with pytest.raises(ValueError, match=f"a device's {name} must be a number from"):
        Device(**settings)


# ---- reports and feedback


def test_reports_have_real_values_and_come_a_way_later() -> None:
    trace = run(network=Network(loss=0.05, delay=0.04, jitter=0.01, seed=5))
    reports = trace.reports
    assert set(reports["stream"]) == {"video", "audio"}
    video = reports[reports["stream"] == "video"]
    assert video["lost"].iloc[-1] == pytest.approx((trace.packets.query("ssrc == 1")["fate"] == "lost").sum(), abs=12)
    assert 0.0 < video["jitter"].iloc[-1] < 0.03
    assert video["round_trip"].dropna().between(0.08, 0.3).all()
    assert ((video["time"] * 1e3) % 250).min() > 0, "a report takes the way up"
    assert video["kbps"].iloc[1:].between(500, 4_000).all()


def test_feedback_is_lost_as_often_as_media() -> None:
    def asked_in_time(network: Network) -> float:
        return float((of(run(seconds=30, network=network, repair="rtx"), "video")["fate"] == "shown").mean())

    def down_alone(packet: avlab.Packet, state: dict[Any, Any]) -> bool:
        return packet.stream == "video" and packet.chance < 0.2

    both, down = Network(loss=0.2, delay=0.03), Network(loss=down_alone, delay=0.03)
    assert asked_in_time(both) < asked_in_time(down) - 0.05


def test_the_first_report_to_a_controller_is_of_what_has_arrived() -> None:
    told: list[avlab.Report] = []

    class Looks:
        def update(self, report: avlab.Report) -> None:
            told.append(report)

    run(seconds=5, network=Network(delay=0.5), rate_control=Looks)
    assert told[0].loss == 0.0
    assert {report.quality for report in told} == {80}
    assert told[-1].round_trip == pytest.approx(1.0, abs=0.01)
    assert told[-1].sent_kbps > 300


# ---- parts of one's own


@pytest.mark.parametrize("part", [Xor, Twice, Once, Both])
def test_a_repair_of_ones_own_brings_back_what_is_lost(part: type[Any]) -> None:
    lossy = Network(loss=0.04, delay=0.01, seed=2)
    bare, repaired = run(network=lossy), run(network=lossy, repair=part)
    shown = [(of(trace, "video")["fate"] == "shown").mean() for trace in (bare, repaired)]
    assert shown[1] > shown[0] + 0.1
    assert (repaired.packets["fate"] == "recovered").sum() > 5
    assert metrics.packet_ledger(repaired).closes
    [said] = repaired.settings.query("name == 'repair'")["value"]
    assert said == part.__name__


def test_a_jitter_buffer_of_ones_own_gives_the_frames() -> None:
    trace = run(network=Network(loss=0.02, delay=0.01), jitter_buffer=FixedDelay)
    assert (of(trace, "video")["fate"] == "shown").mean() > 0.6
    assert metrics.packet_ledger(trace).closes
    [said] = trace.settings.query("name == 'jitter_buffer'")["value"]
    assert said == "FixedDelay"


def test_avlabs_own_takes_over_from_a_jitter_buffer_that_fails() -> None:
    class Mine(FixedDelay):
        def pull(self, now: float) -> Any:
            return 1 / 0

    with pytest.warns(avlab.PartWarning, match="Mine failed: ZeroDivisionError.*avlab's own jitter buffer"):
        trace = run(network=Network(), jitter_buffer=Mine)
    assert (of(trace, "video")["fate"] == "shown").all()


@pytest.mark.parametrize("sound", [True, False])
def test_a_run_is_its_seeds_to_the_bit(sound: bool) -> None:
    network = Network(loss=0.05, delay=0.02, jitter=0.01, reorder=True, duplicate=0.02, rate=5_000)

    def bits() -> list[bytes]:
        trace = run(
            network=network, repair="rtx", spread=0.3, playout_delay="adaptive", rate_control="aimd", audio=sound
        )
        return [trace.rows(name).tobytes() for name in ("frames", "packets", "sync", "reports")]

    assert bits() == bits()


# ---- against sockets


@pytest.mark.slow
@pytest.mark.alone
def test_a_run_on_sockets_and_its_simulation_agree() -> None:
    """The same losses, packet by packet; as many lost in the end; about as many asked for; about the same fates."""
    network = Network(loss=0.05, burst=2, delay=0.02, seed=11)
    with (
        avlab.Server(CLIP, width=400, network=network) as server,
        avlab.Client(server.url, audio="null", repair="rtx", playout_delay=0.4) as client,
    ):
        assert client.wait(60), "no BYE came"
    simulated = simulate(CLIP, seconds=5, width=400, network=network, repair="rtx", playout_delay=0.4)

    def media(trace: avlab.Trace) -> pd.DataFrame:
        packets = trace.packets[(trace.packets["stream"] == "video") & trace.packets["sent"].notna()]
        again = trace.meta["repair_ssrcs"]
        return packets[~packets["ssrc"].isin(again)].sort_values("seq")

    def lost_at_first(trace: avlab.Trace) -> list[int]:
        return [int(at) for at in np.flatnonzero(media(trace)["fate"].isin(["lost", "recovered"]))]

    def lost_in_the_end(trace: avlab.Trace) -> int | None:
        reports = trace.reports[trace.reports["stream"] == "video"]
        after = reports[reports["time"] > media(trace)["sent"].max() + 2 * network.steady_delay]
        return int(after["lost"].iloc[-1]) if len(after) else None

    def asked(trace: avlab.Trace) -> int:
        again = trace.packets[trace.packets["ssrc"].isin(trace.meta["repair_ssrcs"])]
        return int(again["sent"].notna().sum())

    real = client.trace
    assert lost_at_first(real) == lost_at_first(simulated)
    assert len(lost_at_first(real)) > 8
    # In the end as many are lost, says the goodbye; but it may be lost itself, as anything that goes up.
    assert lost_in_the_end(simulated) == len(lost_at_first(simulated))
    assert lost_in_the_end(real) in (None, len(lost_at_first(real)))
    assert abs(asked(real) - asked(simulated)) <= max(3, 0.02 * asked(simulated))
    fates = [of(trace, "video").sort_values("pts")["fate"].astype(str).to_numpy() for trace in (real, simulated)]
    assert len(fates[0]) == len(fates[1]) == 75
    assert (fates[0] != fates[1]).sum() <= 1


def test_full_collections_wait_for_the_end_of_the_last_run() -> None:
    """And begin by themselves again after it, also where a run fails."""
    usual, begun = gc.get_threshold(), []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            begun.append(threading.current_thread())

    def run(seconds: float) -> None:
        avlab.simulate(30, seconds=seconds, network=avlab.Network(loss=0.02))

    gc.collect()
    gc.callbacks.append(note)
    try:
        with full_collections_put_off():
            run(30.0)
            assert gc.get_threshold() != usual
            with pytest.raises(ValueError, match="seconds"):
                run(-1.0)
            others = [threading.Thread(target=run, args=(2.0,)) for _ in range(2)]
            for other in others:
                other.start()
            for other in others:
                other.join(60)
                assert not other.is_alive()
        assert not begun
    finally:
        gc.callbacks.remove(note)
    assert gc.get_threshold() == usual
    with pytest.raises(ValueError, match="seconds"):
        run(-1.0)
    assert gc.get_threshold() == usual
