"""What a network did, as folds of a trace: loss, fates, delays, lateness, reports; a lossy live run's ledgers."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import traces
from rawclient import reports_port, until

import avlab
from avlab.measure.numbers import adaptation, metrics, network
from avlab.measure.record.join import join
from avlab.measure.record.trace import FrameRow, Recorder, Trace
from avlab.network.settings import Network
from avlab.wire import rtcp

MS = 1_000_000
NS = 1_000_000_000


def simulated(seconds: float = 20, *, playout_delay: float = 0.1, **net: object) -> Trace:
    through = Network(**net)  # type: ignore[arg-type]
    return avlab.simulate(30.0, seconds=seconds, width=400, network=through, playout_delay=playout_delay, work=0)


def packets(*rows: tuple[object, ...], side: str = "simulation", **meta: object) -> Trace:
    """A trace of video packets: (seq, timestamp, marker, sent ms, received ms, fate)."""
    record = Recorder(side=side, epoch_ns=0, clock="virtual")  # type: ignore[arg-type]
    record.meta |= meta
    for seq, timestamp, marker, sent, received, fate in rows:
        times = (None if at is None else round(at * MS) for at in (sent, received))  # type: ignore[operator]
        record.packet("video", 9, seq, timestamp, marker, 100, *times, fate)  # type: ignore[arg-type]
    return record.trace()


# ---- fates


def test_every_copy_has_a_fate_and_repairs_own_numbers_are_left_out() -> None:
    record = Recorder(side="simulation", epoch_ns=0, clock="virtual")
    for seq, fate in ((70, "used"), (71, "recovered"), (72, "lost"), (73, "late")):
        record.packet("video", 9, seq, 0, seq == 73, 100, seq * MS, None if fate == "lost" else 90 * MS, fate)
    record.packet("video", 9, 70, 0, False, 100, None, 91 * MS, "duplicate")
    record.packet("video", 10, 500, 0, False, 100, 80 * MS, 90 * MS, "used")  # sent again
    table = network.packet_fates(record.trace())
    assert table["number"].tolist() == [0, 1, 2, 3, 0]
    assert table["fate"].tolist() == ["used", "recovered", "lost", "late", "duplicate"]
    assert table["time"].tolist() == pytest.approx([0.070, 0.071, 0.072, 0.073, 0.091])


def test_a_client_alone_sees_its_gaps_and_a_server_alone_what_it_sent() -> None:
    made = traces.run(seconds=2, loss=0.1, sound=False)
    ours = network.packet_fates(made.client)
    truth = network.packet_fates(join(made.server, made.client))
    gone = [set(table["number"][table["fate"] == "lost"]) for table in (ours, truth)]
    shift = {number + truth["number"][truth["fate"] == "used"].min() for number in gone[0]}
    assert shift == {number for number in gone[1] if min(shift) <= number <= max(shift)}
    assert ours["time"].notna().all()
    assert set(network.packet_fates(made.server)["fate"]) == {"sent"}
    assert network.packet_fates(traces.empty()).empty


def test_frames_are_put_together_by_timestamp_up_to_the_marker() -> None:
    wrap = 2**32 - 3000
    trace = packets(
        (0, wrap, False, 0, 20, "used"), (1, wrap, True, 1, 30, "used"), (2, wrap, False, 1, 99, "used"),  # parity
        (3, 0, False, 33, 50, "used"), (4, 0, True, 34, None, "lost"),
        (5, 3000, True, 66, 95, "late"), (6, 6000, False, 99, 110, "used"),
    )  # fmt: skip
    table = network.frames_of(network.packet_fates(trace))
    assert table["packets"].tolist() == [2, 2, 1]
    assert table["media"].tolist() == pytest.approx([0, 1 / 30, 2 / 30])
    assert np.array_equal(table["whole"], [0.03, np.nan, 0.095], equal_nan=True)
    assert table["lost"].tolist() == [0, 1, 0]


# ---- loss


def test_frame_loss_is_expected_from_every_size_that_frames_have() -> None:
    sizes = {1: 3, 10: 1}
    p = np.array([0.0, 0.1, 1.0])
    found = network.expected_frame_loss(p, sizes)
    np.testing.assert_allclose(found, [0, (3 * 0.1 + 1 - 0.9**10) / 4, 1])
    assert found[1] < 1 - 0.9 ** (13 / 4)  # the mean size would say too much
    assert np.isnan(network.expected_frame_loss(0.1, {}))
    assert (network.middle(sizes, 0.1), network.middle(sizes, 0.9)) == (1, 10)


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.15])
def test_measured_frame_loss_meets_the_expected(loss: float) -> None:
    trace = simulated(120, loss=loss)
    found = metrics.frame_loss(trace)
    assert found is not None
    assert found.packet_loss == pytest.approx(loss, rel=0.15)
    assert not found.bursty
    expected = float(metrics.expected_frame_loss(found.packet_loss, metrics.packets_a_frame(trace)))
    assert found.frame_loss == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / found.frames))


def test_bursts_are_told_from_chance_and_harm_fewer_frames() -> None:
    trace = simulated(120, loss=0.05, burst=6)
    found = metrics.frame_loss(trace)
    assert found is not None
    assert found.bursty
    assert found.burst == pytest.approx(6, rel=0.25)
    expected = float(metrics.expected_frame_loss(found.packet_loss, metrics.packets_a_frame(trace)))
    assert found.frame_loss < 0.7 * expected


def test_what_was_repaired_was_lost_and_its_frames_were_not() -> None:
    record = Recorder(side="simulation", epoch_ns=0, clock="virtual")
    for n in range(10):
        record.packet("video", 9, n, n * 3000, True, 100, n, 10 * MS, "recovered" if n == 4 else "used")
        record.frame(FrameRow("video", n, n, timestamp=n * 3000, shown_ns=n, fate="shown"))
    found = metrics.frame_loss(record.trace())
    assert found is not None
    assert (found.packet_loss, found.frame_loss, found.repaired) == (0.1, 0, 1)


@pytest.mark.parametrize("repair", ["rtx", "fec"])
def test_a_repaired_runs_frames_are_counted_in_their_own_packets(repair: Literal["rtx", "fec"]) -> None:
    through = Network(loss=0.05, delay=0.02)
    plain, repaired = (
        avlab.simulate(30.0, seconds=20, width=400, network=through, repair=how, work=0) for how in (None, repair)
    )
    assert metrics.packets_a_frame(repaired) == metrics.packets_a_frame(plain)
    before, after = metrics.frame_loss(plain), metrics.frame_loss(repaired)
    assert before is not None
    assert after is not None
    assert after.packet_loss == pytest.approx(before.packet_loss, abs=0.01)
    assert after.frame_loss < 0.2 * before.frame_loss
    assert after.repaired > 100
    assert metrics.packet_ledger(repaired).closes


# ---- delays and playout


def test_delays_are_of_one_clock_or_beyond_the_quickest() -> None:
    near, far = (traces.run(seconds=2, jitter_ms=3, clock_offset_ns=offset) for offset in (0, 77 * NS))
    for trace, absolute, least in (
        (join(near.server, near.client), True, 1.0),
        (join(far.server, far.client), False, 0.0),
        (near.client, False, 0.0),
    ):
        found = network.delays(trace)
        assert found.absolute is absolute
        assert set(found.table["stream"]) == {"video", "audio"}
        assert least - 1e-6 <= found.table["delay_ms"].min() < found.table["delay_ms"].max() < 14
        assert found.table["time"].is_monotonic_increasing
    assert network.delays(traces.empty()).table.empty


def test_lateness_is_predicted_from_another_runs_delays() -> None:
    runs = [simulated(60, delay=0.02, jitter=0.03, reorder=True, playout_delay=wait) for wait in (0.02, 0.06, 0.12)]
    for run in runs:
        found = metrics.lateness(run)
        assert found is not None
        for other in runs:
            predicted = metrics.predicted_late(other, [found.playout_delay_ms])
            assert predicted is not None
            assert found.late == pytest.approx(float(predicted[0]), abs=0.012)
    late = [found.late for run in runs if (found := metrics.lateness(run)) is not None]
    assert late[0] > 2 * late[1] > 4 * late[2]
    curve = metrics.predicted_late(runs[0], np.linspace(0, 1000, 50))
    assert curve is not None
    assert (np.diff(curve) <= 0).all()
    assert (curve[0] > 0.5, curve[-1]) == (True, 0)


def test_an_adaptive_delay_is_the_mean_of_what_it_was() -> None:
    record = Recorder(side="simulation", epoch_ns=0, clock="virtual")
    record.setting(0, "playout_delay", "adaptive")
    record.event(0, "playout_target", 0.05)
    record.event(NS, "playout_target", 0.15)
    for n in range(20):
        shown = n * 100 * MS + (50 if n < 10 else 150) * MS
        record.frame(FrameRow("video", n, n * 100 * MS, complete_ns=n * 100 * MS, shown_ns=shown, fate="shown"))
    found = metrics.lateness(record.trace())
    assert found is not None
    assert found.playout_delay_ms == pytest.approx(100)
    assert network.playout_delays(record.trace())["delay_ms"].tolist() == [50, 150]


def test_depth_is_the_sounds_or_else_the_pictures() -> None:
    made = traces.run(seconds=3)
    depth = metrics.buffer_depth(join(made.server, made.client))
    assert depth["depth_ms"].tolist() == pytest.approx([100.0] * len(depth))
    depth = metrics.buffer_depth(simulated(5, delay=0.01, playout_delay=0.2))
    assert depth["depth_ms"].iloc[20:-10].between(165, 201).all()
    with pytest.raises(ValueError, match="window must be more than 0 seconds, not 0"):
        metrics.buffer_depth(traces.empty(), window=0)


@pytest.mark.parametrize("side", ["client", "server"])
def test_of_an_empty_trace_nothing_is_known(side: str) -> None:
    trace = traces.empty(side)
    assert metrics.frame_loss(trace) is None
    assert metrics.lateness(trace) is None
    assert metrics.predicted_late(trace, [100.0]) is None
    assert metrics.packets_a_frame(trace) == {}
    tables = (metrics.buffer_depth(trace), metrics.reports(trace), adaptation.queueing(trace))
    assert all(table.empty for table in (*tables, adaptation.sent_rate(trace), adaptation.bottleneck(trace)))
    found = metrics.agreement(trace, trace)
    assert (len(found.packets), len(found.frames)) == (0, 0)


# ---- adaptation and reports


def test_rate_and_queue_of_a_bottleneck() -> None:
    trace = simulated(20, rate=1_000, queue=0.2, delay=0.05)
    assert adaptation.bottleneck(trace)["kbps"].tolist() == [1_000]
    assert adaptation.steps(trace, "quality")["value"].tolist() == [80]
    rates = adaptation.sent_rate(trace)
    assert rates["video"].iloc[1:-1].between(1_300, 2_400).all()
    sent = trace.packets["sent"].notna()
    assert rates["video"].sum() * 0.5 == pytest.approx(trace.packets["bytes"][sent].sum() * 8 / 1000)
    waits = adaptation.queueing(trace)
    assert 180 < waits["queue_ms"].max() < 212
    with pytest.raises(ValueError, match="bin must be more than 0 seconds, not 0"):
        adaptation.sent_rate(trace, bin=0)


def test_reports_are_read_as_they_were_written() -> None:
    record = Recorder(side="server", epoch_ns=NS, clock="virtual")
    for at, ssrc, loss in ((2, 7, 0.25), (2, 8, 0.0), (3, 7, 0.5)):  # two clients in one moment
        record.report(at * NS, "video", ssrc, loss=loss, lost=10 * ssrc, jitter_ns=4_000_000)
    record.report(4 * NS, "audio", None, loss=0.125, round_trip_ns=30_000_000)
    table = metrics.reports(record.trace())
    assert table["time"].tolist() == [1, 1, 2, 3]
    assert table["stream"].tolist() == ["video", "video", "video", "audio"]
    assert table["ssrc"].tolist()[:3] == [7, 8, 7]
    assert table["fraction_lost"].tolist() == [0.25, 0.0, 0.5, 0.125]
    assert table["cumulative_lost"].tolist()[:3] == [70, 80, 70]
    assert table["jitter_ms"].tolist()[:3] == [4, 4, 4]
    assert table["round_trip_ms"].iloc[3] == 30
    assert table["round_trip_ms"].isna().tolist() == [True, True, True, False]
    assert list(record.trace().reports) == ["time", "stream", "ssrc", "loss", "lost", "jitter", "round_trip", "kbps"]
    with pytest.raises(ValueError, match="a report's stream is one of video, audio, not 'text'"):
        record.report(0, "text", 7)


def test_true_loss_is_between_reports() -> None:
    fates = ["used", "lost", "used", "recovered", "used", "used", "socket_dropped", "in_flight"]
    trace = packets(*((n, n, True, n * 10, None, fate) for n, fate in enumerate(fates)))
    assert adaptation.true_loss(trace, np.array([0.035, 0.065]))["loss"].tolist() == [0.5, pytest.approx(1 / 3)]


def test_true_loss_is_counted_when_a_receiver_can_know_of_it() -> None:
    fates = ["used", "lost", "used", "recovered", "used", "used", "socket_dropped"]
    came = [None if fate in ("lost", "socket_dropped") else 10 * n + 50 for n, fate in enumerate(fates)]
    trace = packets(*((n, n, True, n * 10, came[n], fate) for n, fate in enumerate(fates)))
    # The first is missed at 70, the second at 90, when what was sent after it came, the last with the run's end at 100.
    assert adaptation.true_loss(trace, np.array([0.075, 0.095, 0.105]))["loss"].tolist() == [
        pytest.approx(1 / 3),
        0.5,
        0.5,
    ]


# ---- live


@pytest.mark.slow
def test_a_lossy_live_run_closes_its_ledgers_and_agrees_with_its_simulation_and_its_reports(data: Path) -> None:
    through = Network(loss=0.06, burst=2, delay=0.02, jitter=0.008, reorder=True, duplicate=0.05, seed=5)
    with (
        avlab.Server(data / "count-15.mp4", width=400, network=through) as server,
        avlab.Client(server.url, audio="null", audio_over="udp", playout_delay=0.25) as client,
    ):
        assert client.wait(60), "no BYE came"
    for stream in ("video", "audio"):
        ledger = metrics.packet_ledger(client.trace, stream)
        gone = ledger.lost + ledger.recovered + ledger.socket_dropped + ledger.in_flight
        assert ledger.sent + ledger.duplicated == ledger.received + gone
        assert ledger.received == ledger.used + ledger.duplicate + ledger.late
        assert ledger.lost > 0
        assert ledger.duplicated > 0
        frames = metrics.frame_ledger(client.trace, stream)
        assert frames.closes
        assert frames.shown > 0
    twin = avlab.simulate(data / "count-15.mp4", seconds=5, width=400, network=through, playout_delay=0.25, work=0)
    found = metrics.agreement(client.trace, twin)
    assert len(found.lost) > 10
    assert not len(found.differing)
    assert len(found.frames) > 60
    harmed = found.frames["simulated"].isin(["lost", "incomplete"])
    assert harmed.sum() > 5
    assert not (found.frames["real"][harmed] == "shown").any()  # the rest is what a busy machine's lateness costs
    # What the client reported is what the network did, less duplicates and what was on its way just then.
    table = metrics.reports(server.trace)
    assert set(table["stream"]) == {"video", "audio"}
    assert set(table["ssrc"]) <= set(client.trace.meta["ssrcs"])
    for stream in ("video", "audio"):
        mine = table[table["stream"] == stream]
        true = adaptation.true_loss(client.trace, mine["time"].to_numpy(float), stream)
        assert mine["fraction_lost"].tolist() == pytest.approx(true["loss"].tolist(), abs=0.15)
    joined = metrics.reports(client.trace)  # on the client's clock, which began later
    assert joined.drop(columns="time").equals(table.drop(columns="time"))


def test_a_server_keeps_reports_of_its_own_streams_and_no_flood_of_them(data: Path) -> None:
    with (
        avlab.Server(data / "count-15.mp4", width=160, loop=True) as server,
        avlab.Client(server.url, audio="null", video_over="tcp", audio_over="tcp"),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        until(lambda: len(metrics.reports(server.trace)) >= 2)  # the client's first ones
        ours = set(metrics.reports(server.trace)["ssrc"])
        blocks = [rtcp.ReportBlock(ssrc, 128, 5, 0, 900) for ssrc in (*ours, max(ours) ^ 1)]
        flood = rtcp.serialize_compound([rtcp.ReceiverReport(1, (*blocks, *blocks)), rtcp.Sdes(1, "x")])
        port = reports_port(server.url)
        until(lambda: stranger.sendto(flood, ("127.0.0.1", port)) and len(metrics.reports(server.trace)) >= 8)
        table = metrics.reports(server.trace)
    assert set(table["ssrc"]) == ours
    for ssrc in ours:
        assert np.diff(table["time"][table["ssrc"] == ssrc]).min() >= 0.125 - 1e-9


# ---- joining


@pytest.mark.parametrize("offset", [0, 77 * NS])
def test_what_was_skipped_after_the_last_frame_sent_belongs_to_who_was_there(offset: int) -> None:
    """A server that is too slow to the very end: nothing that it sent comes after what it skipped."""
    last = frozenset(range(50, 60))
    made = traces.run(seconds=2, skip=last, clock_offset_ns=offset, sound=False)
    trace = join(made.server, made.client)
    ledger = metrics.frame_ledger(trace)
    assert (ledger.offered, ledger.skipped) == (60, 10)
    assert ledger.closes
    # A client that left before: what was due after its end is nobody's.
    left = made.client.meta | {"end_ns": traces.EPOCH + offset + round(55.5 / 30 * NS)}
    early = Trace(
        frames=[made.client.rows("frames")], packets=[made.client.rows("packets")], settings=made.client.setting_rows,
        meta=left,
    )  # fmt: skip
    assert metrics.frame_ledger(join(made.server, early)).skipped == 6


def test_what_was_skipped_after_another_clients_frames_is_the_others() -> None:
    one, other = traces.run(seconds=2, ssrc=100, sound=False), traces.run(seconds=2, ssrc=200, skip=frozenset({59}))
    later = {name: other.server.rows(name).copy() for name in ("frames", "packets")}
    for name, columns in (("frames", ("due", "encoded", "sent")), ("packets", ("sent",))):
        for column in columns:
            later[name][column][later[name][column] > 0] += 5 * NS
    later["frames"]["timestamp"] += 10**6
    both = Trace(
        frames=[one.server.rows("frames"), later["frames"]],
        packets=[one.server.rows("packets"), later["packets"]],
        meta=one.server.meta,
    )
    assert metrics.frame_ledger(join(both, one.client)).skipped == 0
