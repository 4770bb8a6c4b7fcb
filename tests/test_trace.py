"""The record: rows in, tables out, snapshots while it grows, spilling, and two sides joined."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pandas as pd
import pytest
import tools
import traces
from hypothesis import given, settings
from hypothesis import strategies as st

from avlab.measure.numbers import metrics
from avlab.measure.record import trace as tracing
from avlab.measure.record.join import join
from avlab.measure.record.tables import FRAMES, PACKETS, TABLES
from avlab.measure.record.trace import BATCH, FrameRow, Recorder, Trace

NS = 1_000_000_000
FRAME_COLUMNS = (
    "stream index pts timestamp due encoded sent first_packet complete shown bytes packets packets_lost fate"
)
PACKET_COLUMNS = "stream ssrc seq timestamp marker bytes sent received fate"


def recorder(**changes: object) -> Recorder:
    return Recorder(**{"side": "client", "epoch_ns": 5 * NS, "clock": "one"} | changes)  # type: ignore[arg-type]


def packet(seq: int, *, sent: int | None = None, received: int | None = None, fate: str | None = None) -> tuple:  # type: ignore[type-arg]
    return ("video", 7, seq, seq * 3000, True, 1200, sent, received, fate)


# ---- recording


def test_tables_have_the_columns_that_the_documents_name() -> None:
    trace = traces.empty()
    assert " ".join(trace.frames) == FRAME_COLUMNS
    assert " ".join(trace.packets) == PACKET_COLUMNS
    assert list(trace.sync) == ["time", "video_pts", "audio_pts", "offset", "buffer", "skew_ppm"]
    assert list(trace.settings) == ["time", "name", "value", "kind"]


@pytest.mark.parametrize("fate", [None, "used", "socket_dropped"])
def test_a_batch_of_packets_is_recorded_as_they_are_one_by_one(fate: str | None) -> None:
    singly, batch = recorder(), recorder()
    sizes = [1182, 1182, 40]
    singly.packets([("video", 7, 5 + at, 90, at == 2, size, None, 6 * NS, fate) for at, size in enumerate(sizes)])
    batch.packet_batch(
        3, stream="video", ssrc=7, seq=range(5, 8), timestamp=90, marker=[False, False, True], size=sizes,
        received_ns=6 * NS, fate=fate,
    )  # fmt: skip
    pd.testing.assert_frame_equal(batch.trace().packets, singly.trace().packets)
    for words in ({"stream": "text"}, {"stream": "video", "fate": "eaten"}):
        with pytest.raises(ValueError, match=r"a packet's stream is one of .*not '(text|eaten)'"):
            batch.packet_batch(1, ssrc=7, seq=1, timestamp=1, marker=0, size=1, **words)  # type: ignore[arg-type]


def test_times_become_seconds_since_the_epoch_and_the_unknown_stays_unknown() -> None:
    record = recorder()
    record.frame(FrameRow("video", 3, 100_000_000, due_ns=6 * NS, bytes=4321, fate="late"))
    record.packet("audio", 2**32 - 1, -4, None, None, None, None, 5 * NS + 1, None)
    frame, packet = record.trace().frames.iloc[0], record.trace().packets.iloc[0]
    assert (frame["stream"], frame["index"], frame["pts"], frame["due"], frame["bytes"], frame["fate"]) == (
        "video", 3, 0.1, 1.0, 4321, "late",
    )  # fmt: skip
    assert all(pd.isna(frame[column]) for column in ("timestamp", "encoded", "sent", "shown", "packets_lost"))
    assert (packet["stream"], packet["ssrc"], packet["seq"], packet["received"]) == ("audio", 2**32 - 1, -4, 1e-9)
    assert all(pd.isna(packet[column]) for column in ("timestamp", "marker", "bytes", "sent", "fate"))


def test_offset_is_positive_when_the_sound_is_early() -> None:
    record = recorder()
    record.sync(6 * NS, 1_000_000_000, 1_040_000_000, 90_000_000, -12.5)  # 40 ms further on in the sound
    record.sync(7 * NS, 2_000_000_000, None)
    table = record.trace().sync
    assert table["offset"].iloc[0] == pytest.approx(0.040)
    assert table[["time", "buffer", "skew_ppm"]].iloc[0].tolist() == [1.0, 0.09, -12.5]
    assert table[["audio_pts", "offset", "buffer", "skew_ppm"]].iloc[1].isna().all()


def test_settings_and_events_keep_plain_values() -> None:
    record = recorder()
    record.setting(6 * NS, "quality", np.int64(80))
    record.setting(7 * NS, "network", {"loss": 0.1})
    record.event(8 * NS, "bye")
    table = record.trace().settings
    assert table["value"].tolist() == [80, "{'loss': 0.1}", None]
    assert table["kind"].tolist() == ["setting", "setting", "event"]
    assert table["time"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "write",
    [
        lambda record: record.packet("vidio", 1, 1, 1, True, 1, None, 1, "used"),
        lambda record: record.packet("video", 1, 1, 1, True, 1, None, 1, "shown"),
        lambda record: record.frame(FrameRow("sound")),
        lambda record: record.frame(FrameRow("video", fate="used")),
    ],
)
def test_a_word_that_the_ledger_does_not_know_is_refused_by_name(write) -> None:  # type: ignore[no-untyped-def]
    record = recorder()
    with pytest.raises(ValueError, match=r"one of video, audio.*not '(vidio|shown|sound|used)'"):
        write(record)
    assert not len(record.trace().packets)
    assert not len(record.trace().frames)


def test_a_side_is_one_of_those_there_are() -> None:
    with pytest.raises(
        ValueError, match="side must be one of 'server', 'client', 'simulation', 'relay', 'capture', not 'peer'"
    ):
        recorder(side="peer")


def test_a_snapshot_is_a_value() -> None:
    record = recorder()
    record.packets([packet(1)])
    before = record.trace()
    record.packets([packet(2)])
    table = before.packets
    table["extra"] = 1
    before.meta["side"] = "server"
    assert (len(before.packets), len(record.trace().packets)) == (1, 2)
    assert "extra" not in before.packets
    assert before.meta["side"] == "client"


def test_a_snapshot_from_another_thread_has_each_row_whole_and_once() -> None:
    record = recorder()
    seen: list[np.ndarray] = []  # type: ignore[type-arg]
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(record.trace().rows("packets")["seq"])

    thread = threading.Thread(target=look)
    thread.start()
    for start in range(0, 5 * BATCH, 16):
        record.packets([packet(seq) for seq in range(start, start + 16)])
    done.set()
    thread.join(60)
    seen.append(record.trace().rows("packets")["seq"])
    assert all(np.array_equal(seq, np.arange(len(seq))) for seq in seen)
    assert len(seen[-1]) == 5 * BATCH


def test_a_packet_costs_at_most_64_bytes() -> None:
    record = recorder()
    record.packets([packet(seq) for seq in range(3 * BATCH)])
    held = record.trace().rows("packets").nbytes
    assert held / (3 * BATCH) == PACKETS.dtype.itemsize <= 64


def test_old_rows_are_spilled_one_batch_at_a_time_and_nothing_is_forgotten() -> None:
    spilled: list[int] = []

    def spill(rows: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        spilled.append(int(rows["seq"][0]))
        return rows.copy()

    record = recorder(spill=spill, spill_after_ns=60 * NS)
    for seq in range(8 * BATCH):  # a batch every 41 s
        record.packets([packet(seq, received=seq * 10_000_000, fate="used")])
    # The newest batch ends at 8 x 41 s; what ended more than a minute before it is old.
    assert spilled == [batch * BATCH for batch in range(6)]
    assert np.array_equal(record.trace().rows("packets")["seq"], np.arange(8 * BATCH))
    assert metrics.packet_ledger(record.trace()).received == 8 * BATCH


def test_importing_the_record_does_not_import_pandas() -> None:
    code = (
        "import sys; from avlab.measure.record.trace import Recorder; from avlab.measure.record.join import join; "
        "Recorder(side='server', epoch_ns=0, clock='c').trace(); assert 'pandas' not in sys.modules"
    )
    tools.run(sys.executable, "-c", code)


def test_a_trace_says_in_a_line_each_what_it_holds() -> None:
    made = traces.run(seconds=1, packets=2)
    text = repr(join(made.server, made.client))
    assert text.splitlines() == [
        "Trace of count.mp4, seen by the client, joined with the server's",
        "  frames          30: 30 shown",
        "  chunks of sound 50: 50 shown",
        "  video packets   60: 60 used",
        "  audio packets   150: 150 used",
        "  sync            30 readings",
        "  settings        2",
    ]
    assert "<table>" in made.client._repr_html_()


whole = st.none() | st.integers(-(2**50), 2**50)
frames = st.builds(
    FrameRow, st.sampled_from(["video", "audio"]), *[whole] * 9, *[st.none() | st.integers(0, 2**31 - 1)] * 3,
    st.sampled_from([None, "shown", "in_flight"]),
)  # fmt: skip


@settings(max_examples=25)
@given(st.lists(frames, max_size=5))
def test_tables_turn_back_into_the_rows_they_came_from(rows: list[FrameRow]) -> None:
    record = recorder()
    for row in rows:
        record.frame(row)
    trace = record.trace()
    back = FRAMES.to_rows(trace.frames, trace.epoch_ns)
    assert np.array_equal(back, trace.rows("frames"))


# ---- joining


@pytest.mark.parametrize("offset", [0, 5 * NS])
def test_a_joined_trace_has_the_reports_of_its_own_client_on_its_clock(offset: int) -> None:
    made = traces.run(seconds=4, clock_offset_ns=offset)
    told, table = made.server.reports, join(made.server, made.client).reports
    assert set(told["ssrc"]) == {0xAAAA, 0xAAAB, 0xBAAA, 0xBAAB}
    assert set(table["ssrc"]) == {0xAAAA, 0xAAAB}
    mine = told[told["ssrc"] < 0xB000].reset_index(drop=True)
    assert table["time"].tolist() == pytest.approx(mine["time"].tolist(), abs=0.003)
    assert table.drop(columns="time").equals(mine.drop(columns="time"))
    assert "reports         8" in repr(join(made.server, made.client))


def test_reports_without_end_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MOST_REPORTS", 50)
    made = recorder()
    for second in range(80):
        made.report(second * NS, "video", 7, lost=second)
    table, events = made.trace().reports, made.trace().settings
    assert table["lost"].tolist() == list(range(50))
    assert events["name"].tolist() == ["record full"]
    assert "more than 50 receiver reports came" in events["value"].iloc[0]


def closes(trace: Trace) -> bool:
    return metrics.packet_ledger(trace).closes and metrics.frame_ledger(trace).closes


CASES = {
    "nothing lost": {},
    "lost": {"loss": 0.05},
    "all of it": {"loss": 1.0},
    "copied": {"duplication": 0.1, "loss": 0.02},
    "skipped": {"skip": frozenset({3, 4, 50})},
    "the client counts from another lap": {"client_lap": 3, "first_seq": 4 * 65_536 - 100, "loss": 0.05},
    "numbers wrap": {"first_seq": 65_500, "first_timestamp": 2**32 - 4000, "loss": 0.05},
    "silent": {"sound": False, "loss": 0.02},
    "another clock": {"clock_offset_ns": 987_654_321_000, "loss": 0.02, "jitter_ms": 3.0},
    "a clock behind": {"clock_offset_ns": -50 * NS, "jitter_ms": 3.0},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_join_tells_the_truth(case: dict) -> None:  # type: ignore[type-arg]
    made = traces.run(seconds=4, **case)
    trace = join(made.server, made.client)
    packets, frames = metrics.packet_ledger(trace, "video"), metrics.frame_ledger(trace)
    truth = made.truth
    assert closes(trace)
    assert (packets.sent, packets.used, packets.duplicated) == (truth["sent"], truth["used"], truth["duplicate"])
    # The client looks on for a second after the last frame, so nothing is still under way.
    assert (packets.lost, packets.in_flight, packets.late) == (truth["lost"], 0, 0)
    assert (frames.offered, frames.shown, frames.incomplete) == (
        truth["offered"], truth["shown"], truth["incomplete"],
    )  # fmt: skip
    assert (frames.skipped, frames.lost) == (truth["skipped"], truth["frames_gone"])
    video = trace.frames[trace.frames["stream"] == "video"]
    assert video["index"].tolist() == list(range(truth["offered"]))
    assert video["pts"].notna().all()
    assert metrics.frame_ledger(trace, "audio").offered == (0 if case.get("sound") is False else 200)


def test_a_frame_that_arrived_and_has_no_verdict_yet_is_not_lost() -> None:
    server, client = (Recorder(side=side, epoch_ns=0, clock="one") for side in ("server", "client"))  # type: ignore[arg-type]
    for number in range(60):
        sent_ns, ticks = number * NS // 30, number * 3000
        server.frame(FrameRow("video", pts_ns=sent_ns, timestamp=ticks, sent_ns=sent_ns, packets=1))
        server.packet("video", 7, number, ticks, True, 1000, sent_ns, None, None)
        if number != 20:
            client.packet("video", 7, number, ticks, True, 1000, None, sent_ns + 1, "used")
    fates = join(server.trace(), client.trace()).frames["fate"]  # of a page that has said nothing for two seconds
    assert fates.value_counts()[["lost", "in_flight"]].tolist() == [1, 59]
    assert fates.iloc[20] == "lost"


def test_what_was_sent_just_before_the_client_left_is_in_flight() -> None:
    made = traces.run(seconds=2, ends_early_ns=100_000_000, loss=0.3)
    trace = join(made.server, made.client)
    packets = metrics.packet_ledger(trace, "video")
    assert closes(trace)
    assert packets.sent == made.truth["sent"]
    assert packets.in_flight >= made.truth["packets_in_flight"] > 0
    assert packets.in_flight + packets.lost == made.truth["packets_in_flight"] + made.truth["lost"]
    strict = metrics.packet_ledger(join(made.server, made.client, in_flight=0.0), "video")
    assert strict.lost > packets.lost


def test_delays_are_known_on_one_clock_and_never_made_up_on_two() -> None:
    near = traces.run(seconds=2, jitter_ms=3.0)
    far = traces.run(seconds=2, jitter_ms=3.0, clock_offset_ns=123 * NS)
    known = metrics.one_way_delay(join(near.server, near.client))
    video = known[known["stream"] == "video"]["delay_ms"]
    assert 2.0 <= video.min() < video.max() <= 5.01
    trace = join(far.server, far.client)
    assert trace.meta["shared_clock"] is False
    assert metrics.one_way_delay(trace)["delay_ms"].isna().all()
    # The sender's times are moved onto the client's clock so that the fastest packet took no time.
    assert (trace.packets["received"] - trace.packets["sent"]).min() == pytest.approx(0, abs=1e-9)
    assert trace.settings["time"].tolist() == pytest.approx([0, 1 + 0.001], abs=1e-6)


def test_each_client_is_joined_with_its_own_packets_only() -> None:
    one, other = traces.run(seconds=2, ssrc=100, loss=0.1, seed=1), traces.run(seconds=2, ssrc=200, seed=2)
    merged = Trace(
        frames=[one.server.rows("frames")],
        packets=[one.server.rows("packets"), other.server.rows("packets")],
        meta=one.server.meta,
    )
    ledgers = [metrics.packet_ledger(join(merged, made.client), "video") for made in (one, other)]
    assert [(ledger.sent, ledger.lost) for ledger in ledgers] == [(300, one.truth["lost"]), (300, 0)]
    assert one.truth["lost"] > 0


def test_a_clip_played_again_with_the_same_timestamps_is_not_mixed_up() -> None:
    first, again = traces.run(seconds=2, ssrc=100), traces.run(seconds=2, ssrc=200, skip=frozenset({7}), loss=0.1)
    later = {name: again.server.rows(name).copy() for name in ("frames", "packets")}
    for rows, columns in ((later["frames"], ("due", "encoded", "sent")), (later["packets"], ("sent",))):
        for column in columns:
            rows[column][rows[column] > 0] += 10 * NS
    both = Trace(
        frames=[first.server.rows("frames"), later["frames"]],
        packets=[first.server.rows("packets"), later["packets"]],
        meta=first.server.meta,
    )
    came = {name: again.client.rows(name).copy() for name in ("frames", "packets")}
    for name, rows in came.items():
        for column in TABLES[name].times:
            rows[column][rows[column] > 0] += 10 * NS
    meta = again.client.meta | {"end_ns": again.client.meta["end_ns"] + 10 * NS}
    trace = join(both, Trace(frames=[came["frames"]], packets=[came["packets"]], meta=meta))
    assert closes(trace)
    assert metrics.frame_ledger(trace).offered == 60
    assert metrics.frame_ledger(trace).skipped == 1
    assert trace.frames["due"].min() == pytest.approx(10.0)


def test_a_socket_that_ran_over_takes_its_share_of_what_is_missing() -> None:
    made = traces.run(seconds=3, loss=0.1, sound=False)
    record = recorder(epoch_ns=traces.EPOCH)
    record.event(traces.EPOCH + 2 * NS, "socket_dropped", 5)
    client = Trace(
        frames=[made.client.rows("frames")],
        packets=[made.client.rows("packets")],
        settings=record.trace().setting_rows,
        meta=made.client.meta,
    )
    trace = join(made.server, client)
    ledger = metrics.packet_ledger(trace)
    assert closes(trace)
    assert (ledger.socket_dropped, ledger.lost) == (5, made.truth["lost"] - 5)
    assert trace.packets["sent"][trace.packets["fate"] == "socket_dropped"].max() <= 2


def test_a_packet_that_the_servers_own_socket_refused_stays_so() -> None:
    server, client = recorder(side="server"), recorder()
    server.packets([packet(1, sent=6 * NS), packet(2, sent=6 * NS, fate="socket_dropped"), packet(3, sent=20 * NS)])
    client.packets([packet(1, received=6 * NS + 1, fate="used")])
    client.meta["end_ns"] = 20 * NS
    trace = join(server.trace(), client.trace())
    assert trace.packets["fate"].tolist() == ["used", "socket_dropped", "in_flight"]
    assert closes(trace)


def test_joining_again_changes_nothing_and_joining_strangers_is_refused() -> None:
    made, other = traces.run(seconds=1), traces.run(seconds=1, ssrc=5)
    trace = join(made.server, made.client)
    assert join(made.server, trace) is trace
    with pytest.raises(ValueError, match="a server's trace and then a client's, not a client's and a server's"):
        join(made.client, made.server)
    later = other.client.rows("packets").copy()
    later["received"] += 100 * NS
    with pytest.raises(ValueError, match="different runs"):
        join(made.server, Trace(packets=[later], meta=other.client.meta))


def test_a_client_that_has_nothing_yet_joins_to_nothing_yet() -> None:
    made = traces.run(seconds=1)
    for server, client in ((made.server, traces.empty()), (traces.empty("server"), made.client)):
        trace = join(server, client)
        assert trace.meta["joined"]
        assert len(trace.packets) == len(client.packets)


def test_a_client_that_heard_nothing_at_all_still_counts_its_losses() -> None:
    made = traces.run(seconds=2, loss=1.0, sound=False)
    trace = join(made.server, made.client)
    assert metrics.packet_ledger(trace).lost == 300
    assert metrics.frame_ledger(trace).lost == 60
