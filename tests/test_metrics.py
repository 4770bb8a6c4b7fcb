"""Numbers from a trace, against runs whose every truth is known, and against reckonings by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import traces
from hypothesis import given, settings
from hypothesis import strategies as st

from avlab.measure.numbers import metrics
from avlab.measure.record.join import join
from avlab.measure.record.trace import FrameRow, Recorder, Trace

NS = 1_000_000_000
MS = 1_000_000


def joined(**case: object) -> Trace:
    made = traces.run(**case)  # type: ignore[arg-type]
    return join(made.server, made.client)


def shown_at(times: list[float], *, target: float | None = None, pts: list[float] | None = None) -> Trace:
    """A trace of frames shown at these seconds."""
    record = Recorder(side="simulation", epoch_ns=0, clock="virtual")
    record.meta["target_fps"] = target
    for index, time in enumerate(times):
        media = round(pts[index] * NS) if pts else None
        record.frame(FrameRow("video", index, media, shown_ns=round(time * NS), fate="shown"))
    return record.trace()


# ---- fps


@pytest.mark.parametrize("rate", [15, 24, 30_000 / 1001, 30, 60])
def test_a_steady_stream_reads_its_own_rate_from_the_second_frame_on(rate: float) -> None:
    table = metrics.fps(shown_at([i / rate for i in range(200)]))
    assert np.isnan(table["fps"].iloc[0])
    assert table["fps"].iloc[1:].to_numpy() == pytest.approx(rate, rel=1e-6)


def test_fps_is_over_the_trailing_second_only() -> None:
    times = [i / 30 for i in range(60)] + [2 + i / 10 for i in range(1, 31)]  # 30 fps, then 10
    table = metrics.fps(shown_at(times))
    late = table[table["time"] > 3.1]
    assert late["fps"].to_numpy() == pytest.approx(10, rel=1e-6)
    middle = table[(table["time"] > 2.45) & (table["time"] < 2.55)]
    assert 15 < middle["fps"].iloc[0] < 25


def test_a_gap_counts_in_full() -> None:
    table = metrics.fps(shown_at([0.0, 0.1, 5.1]))
    assert table["fps"].tolist()[1:] == pytest.approx([10, 0.2])


def test_fps_needs_a_window() -> None:
    with pytest.raises(ValueError, match="window must be more than 0 seconds, not 0"):
        metrics.fps(traces.empty(), window=0)


def rates(*values: float) -> pd.DataFrame:
    return pd.DataFrame({"time": np.arange(len(values)) / 10 + 3, "fps": values})


@pytest.mark.parametrize(
    ("table", "settled"),
    [
        (rates(np.nan, *[30] * 11), 0.1),
        (rates(np.nan, 20, 28, *[29.5] * 11), 0.3),
        (rates(np.nan, 30, 30, 25, *[30] * 11), 0.4),  # it left the band: not settled before
        (rates(np.nan, 30, 30, 25, *[30] * 10), None),  # not yet a second within it
        (rates(np.nan, 30, 30, 25), None),
        (rates(np.nan, *[29.4, 30.6] * 6), 0.1),  # the band's edges belong to it
        (rates(np.nan), None),
        (rates(), None),
    ],
)
def test_settled_means_within_the_band_for_good(table: pd.DataFrame, settled: float | None) -> None:
    found = metrics.settling_time(table, 30)
    assert found == (None if settled is None else pytest.approx(settled))


def test_convergence_tells_rate_error_from_the_clips_own_times() -> None:
    pts = [i / 30 for i in range(300)]
    found = metrics.convergence(shown_at([t * 1.001 for t in pts], target=30, pts=pts))
    assert found.rate_error_ppm == pytest.approx(-999, abs=0.1)
    assert found.mean_fps == pytest.approx(30 / 1.001)
    assert found.settled_s == pytest.approx(1.001 / 30)
    assert found.deviation_fps == pytest.approx(0, abs=1e-6)


def test_the_target_is_the_one_named_else_the_one_the_timestamps_mean() -> None:
    pts = [i / 24 for i in range(50)]
    assert metrics.target_fps(shown_at(pts, target=25, pts=pts)) == 25
    assert metrics.target_fps(shown_at(pts, pts=pts)) == pytest.approx(24)
    assert metrics.target_fps(shown_at(pts)) is None


# ---- pacing, intervals


def test_interval_error_is_actual_less_asked_even_where_frames_lack() -> None:
    trace = shown_at([0, 0.042, 0.120, 0.240], pts=[0, 0.040, 0.120, 0.240])
    assert metrics.interval_error(trace)["error_ms"].to_numpy() == pytest.approx([2, -2, 0])
    by_rate = shown_at([0, 0.042, 0.080], target=25)
    assert metrics.interval_error(by_rate)["error_ms"].to_numpy() == pytest.approx([2, -2])


def test_pacing_gives_errors_and_the_drift_of_the_whole_run() -> None:
    record = Recorder(side="server", epoch_ns=0, clock="one")
    for index in range(300):
        due = index * NS // 30
        record.frame(FrameRow("video", index, due, due_ns=due, sent_ns=due + 100_000 + index * 1000))
    found = metrics.pacing(record.trace())
    assert (found.frames, found.median_ms, found.max_ms) == (300, pytest.approx(0.2495), pytest.approx(0.399))
    assert found.p95_ms == pytest.approx(0.384, abs=1e-3)
    assert found.drift_ms == pytest.approx(0.269)  # from the first second's median frame to the last's


def test_a_clock_that_runs_slow_shows_as_drift() -> None:
    assert metrics.pacing(joined(seconds=10, drift=0.0005)).drift_ms == pytest.approx(4.5, abs=0.1)


# ---- packets


def test_loss_by_the_second_adds_up_to_the_ledger() -> None:
    trace = joined(seconds=5, loss=0.1)
    table = metrics.loss(trace)
    ledger, frames = metrics.packet_ledger(trace, "video"), metrics.frame_ledger(trace)
    assert table["time"].tolist() == [0, 1, 2, 3, 4]
    # 150 packets and 30 frames in each second
    assert table["packet_loss"].sum() * 150 == pytest.approx(ledger.lost)
    assert table["frame_loss"].sum() * 30 == pytest.approx(frames.incomplete + frames.lost)
    assert ledger.lost > 0


def test_a_client_alone_reckons_losses_from_gaps_in_the_numbers() -> None:
    made = traces.run(seconds=5, loss=0.1, duplication=0.05)
    alone = metrics.packet_ledger(made.client, "video")
    truth = metrics.packet_ledger(join(made.server, made.client), "video")
    # What was lost before the first packet or after the last one leaves no gap.
    assert truth.lost - 5 <= alone.lost <= truth.lost
    assert (alone.received, alone.duplicated, alone.used) == (truth.received, truth.duplicated, truth.used)
    assert alone.closes
    seconds = metrics.loss(made.client)["packet_loss"]
    assert seconds.mean() == pytest.approx(0.1, abs=0.05)


def test_a_server_alone_does_not_pretend_to_know_what_arrived() -> None:
    ledger = metrics.packet_ledger(traces.run(seconds=1).server)
    assert (ledger.sent, ledger.received, ledger.closes) == (300, 0, False)


def test_delay_and_jitter_of_a_perfect_link_are_constant_and_zero() -> None:
    trace = joined(seconds=2, packets=1)
    delay = metrics.one_way_delay(trace)
    assert delay[delay["stream"] == "video"]["delay_ms"].to_numpy() == pytest.approx(2.0)
    assert delay[delay["stream"] == "audio"]["delay_ms"].to_numpy() == pytest.approx(1.0)
    jitter = metrics.jitter(trace)
    # The sender's own unevenness (up to 0.1 ms) and ticks rounded to 1/90 ms are all there is.
    assert jitter[jitter["stream"] == "video"]["jitter_ms"].max() < 0.1


def test_jitter_is_rfc_3550s_sum() -> None:
    record = Recorder(side="client", epoch_ns=0, clock="one")
    arrivals, ticks = [0, 45, 78, 140], [2**32 - 3000, 0, 3000, 6000]  # ms; 90 kHz, wrapping
    for seq, (ms, timestamp) in enumerate(zip(arrivals, ticks, strict=True)):
        record.packet("video", 1, seq, timestamp, True, 1000, None, ms * 1_000_000, "used")
    expected, value = [0.0], 0.0
    for i in range(1, 4):
        value += (abs((arrivals[i] - arrivals[i - 1]) - 3000 / 90) - value) / 16
        expected.append(value)
    assert metrics.jitter(record.trace())["jitter_ms"].to_numpy() == pytest.approx(expected)


def test_sound_has_no_jitter_without_its_rate() -> None:
    made = traces.run(seconds=1)
    meta = made.client.meta | {"audio_rate": None}
    table = metrics.jitter(Trace(packets=[made.client.rows("packets")], meta=meta))
    assert table[table["stream"] == "audio"]["jitter_ms"].iloc[1:].isna().all()
    assert table[table["stream"] == "video"]["jitter_ms"].notna().all()


def test_bitrate_counts_what_this_side_saw() -> None:
    made = traces.run(seconds=3, sound=False)
    assert metrics.bitrate(made.server)["video"].tolist() == pytest.approx([1440] * 3)  # 150 packets of 1,200 bytes
    assert metrics.bitrate(made.client)["video"].sum() == pytest.approx(3 * 1440)
    assert (metrics.bitrate(made.client)["audio"] == 0).all()


@pytest.mark.parametrize("measure", [metrics.loss, metrics.bitrate])
def test_a_bin_has_a_width(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="bin must be more than 0 seconds, not 0"):
        measure(traces.run(seconds=1).client, bin=0)


# ---- sync, sound, the summary


@pytest.mark.parametrize("av_ms", [60, -60])
def test_sync_is_the_size_of_the_offset(av_ms: float) -> None:
    found = metrics.sync_summary(joined(seconds=5, av_ms=av_ms))
    assert found.median_ms == pytest.approx(60, abs=1)
    assert found.median_ms < found.p95_ms < found.max_ms < 75
    assert found.count == 150


@pytest.mark.parametrize(("av_ms", "early"), [(60, 1.0), (-60, 0.0)])
def test_sync_says_which_is_early(av_ms: float, early: float) -> None:
    trace = joined(seconds=5, av_ms=av_ms)
    found = metrics.sync_summary(trace)
    assert found.signed_median_ms == pytest.approx(av_ms, abs=1)
    sides = (found.early_p95_ms, found.late_p95_ms)
    assert (sides if early else sides[::-1]) == (pytest.approx(63, abs=3), 0.0)
    assert found.early == early
    assert metrics.summary(trace).av_signed_ms == found.signed_median_ms
    assert "av signed" in str(metrics.summary(trace))


def test_seconds_of_sound_are_those_that_were_played() -> None:
    assert metrics.audio_seconds(joined(seconds=5)) == pytest.approx(5)
    half = traces.run(seconds=5)
    rows = half.client.rows("frames").copy()
    late = (rows["stream"] == 1) & (np.arange(len(rows)) % 2 == 0)
    rows["fate"][late] = 1
    assert metrics.audio_seconds(Trace(frames=[rows], meta=half.client.meta)) == pytest.approx(2.5)


def test_the_summary_is_plain_values_and_prints_as_rows() -> None:
    trace = joined(seconds=5, loss=0.02, av_ms=5)
    found = metrics.summary(trace)
    ledger = metrics.frame_ledger(trace)
    assert (found.offered, found.shown, found.incomplete) == (ledger.offered, ledger.shown, ledger.incomplete)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["shown"] == found.shown
    assert found.audio_seconds == pytest.approx(5)
    assert found.delay_ms is not None
    assert 1 <= found.delay_ms <= 2
    lines = str(found).splitlines()
    assert lines[1].split() == ["shown", str(found.shown)]
    assert "target               30.00 fps" in lines
    assert max(map(len, lines)) < 40


FOLDS = [
    metrics.fps, metrics.interval_error, metrics.loss, metrics.one_way_delay, metrics.jitter, metrics.bitrate,
]  # fmt: skip


@pytest.mark.parametrize("side", ["server", "client", "simulation"])
def test_of_nothing_there_are_empty_tables_and_no_numbers(side: str) -> None:
    trace = traces.empty(side)
    assert all(len(fold(trace)) == 0 and "time" in fold(trace) for fold in FOLDS)
    summary = metrics.summary(trace)
    assert {value for value in summary.as_dict().values() if value is not None} == {0}
    assert summary.fps is summary.av_p95_ms is summary.packet_loss_percent is None
    assert metrics.convergence(trace).mean_fps is metrics.pacing(trace).drift_ms is None
    assert metrics.packet_ledger(trace).closes
    assert metrics.frame_ledger(trace).closes
    assert "-" in str(summary)


def test_one_frame_alone_breaks_nothing() -> None:
    trace = shown_at([1.0])
    assert metrics.convergence(trace).mean_fps is None
    assert len(metrics.interval_error(trace)) == 0
    assert metrics.summary(trace).shown == 1


@settings(max_examples=20)
@given(
    loss=st.floats(0, 1),
    duplication=st.floats(0, 0.5),
    first_seq=st.integers(0, 2**20),
    lap=st.integers(0, 3),
    seed=st.integers(0, 99),
    early=st.sampled_from([0, 60_000_000, 400_000_000]),
)
def test_both_ledgers_close_whatever_the_network_does(
    loss: float, duplication: float, first_seq: int, lap: int, seed: int, early: int
) -> None:
    trace = joined(
        seconds=0.5, fps=20, packets=3, sound=False, loss=loss, duplication=duplication,
        first_seq=first_seq, client_lap=lap, seed=seed, ends_early_ns=early,
    )  # fmt: skip
    packets, frames = metrics.packet_ledger(trace), metrics.frame_ledger(trace)
    assert packets.closes
    assert frames.closes
    assert (packets.sent, frames.offered) == (30, 10)


def test_what_a_repair_brought_back_stands_apart() -> None:
    server = Recorder(side="server", epoch_ns=0, clock="one")
    client = Recorder(side="client", epoch_ns=0, clock="one")
    client.meta |= {"ssrcs": [1, 2], "end_ns": 2 * NS}
    for seq in range(10):
        server.packet("video", 1, seq, 3000 * seq, True, 1000, seq * MS, None, None)
    server.packet("video", 2, 70, 9000, True, 1002, 50 * MS, None, None)  # 3 once more, and it comes
    server.packet("video", 2, 71, 12_000, True, 1002, 51 * MS, None, None)  # 4, which is lost again
    for seq in (0, 1, 2, 5, 6, 7, 8, 9):
        client.packet("video", 1, seq, 3000 * seq, True, 1000, None, (20 + seq) * MS, "used")
    client.packet("video", 2, 70, 9000, True, 1002, None, 70 * MS, "used")
    client.packet("video", 1, 3, 9000, True, 1000, None, 70 * MS, "recovered")
    joined = join(server.trace(), client.trace(), in_flight=0)
    ledger = metrics.packet_ledger(joined)
    assert (ledger.sent, ledger.received, ledger.used, ledger.lost, ledger.recovered) == (12, 9, 9, 2, 1)
    assert ledger.closes
    # Of the ten packets of the video itself two were lost; those that were sent again count nowhere.
    assert metrics.loss(joined)["packet_loss"].iloc[0] == pytest.approx(2 / 10)
    assert metrics.one_way_delay(joined)["delay_ms"].tolist() == pytest.approx([20.0] * 9)
    assert metrics.summary(joined).packet_loss_percent == pytest.approx(100 * 2 / 10)
    alone = metrics.packet_ledger(client.trace())
    assert (alone.sent, alone.received, alone.lost, alone.recovered) == (11, 9, 1, 1)
    assert alone.closes
    assert metrics.bitrate(client.trace())["video"].iloc[0] == pytest.approx((8 * 1000 + 1002) * 8 / 1000)
