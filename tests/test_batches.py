"""Records that are long: rows on a disk, parts of a run, and numbers folded over it some at a time."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import traces
from hypothesis import given
from hypothesis import strategies as st

from avlab.measure.numbers import adaptation, metrics, rates, recent
from avlab.measure.record import trace as tracing
from avlab.measure.record.batches import BATCH, KEPT_BYTES, Budget, Stored
from avlab.measure.record.folded import UNFOLD, PacketRun, PacketRuns
from avlab.measure.record.join import join
from avlab.measure.record.scratch import Scratch
from avlab.measure.record.tables import PACKETS, TABLES, UNKNOWN, Rows
from avlab.measure.record.trace import FrameRow, Recorder, SettingRow, Trace

NS = 1_000_000_000
STEP_NS = 1_000_000


def record(count: int, **settings: object) -> Recorder:
    """A client's packets, a millisecond apart, with every seventh missing."""
    made = Recorder(**{"side": "client", "epoch_ns": 0, "clock": "one"} | settings)  # type: ignore[arg-type]
    fill(made, 0, count)
    return made


def fill(made: Recorder, first: int, count: int) -> None:
    for start in range(first, first + count, 1000):
        numbers = np.arange(start, min(start + 1000, first + count))
        numbers = numbers[numbers % 7 != 3]
        for number in numbers[:: len(numbers)]:
            made.packet_batch(
                len(numbers), stream="video", ssrc=7, seq=numbers, timestamp=numbers * 90, marker=numbers % 5 == 4,
                size=1000, received_ns=int(number) * STEP_NS, fate="used",
            )  # fmt: skip


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


# ---- rows on a disk


def test_what_is_beyond_the_bound_goes_to_one_file_a_table_and_comes_back_whole() -> None:
    gc.collect()  # what other tests have left behind is let go of first
    before = descriptors()
    small = Budget(KEPT_BYTES)
    plain, spilling = record(300_000), record(300_000, spill=Scratch(), budget=small)
    assert descriptors() - before <= 1
    assert not small.over
    assert spilling.trace().rows("packets").tobytes() == plain.trace().rows("packets").tobytes()
    del spilling
    gc.collect()
    assert descriptors() == before


def test_records_share_the_bound_and_a_quiet_one_keeps_what_it_has() -> None:
    budget = Budget(3 * KEPT_BYTES)
    kept: list[int] = []

    class Counted(Scratch):
        def __call__(self, rows):  # type: ignore[no-untyped-def]
            kept.append(len(rows))
            return super().__call__(rows)

    quiet = record(100_000, spill=Counted(), budget=budget)
    assert not kept
    busy = record(200_000, spill=Counted(), budget=budget)
    spilled = len(kept)
    assert spilled > 0
    del quiet
    gc.collect()
    fill(busy, 200_000, 5_000)  # there is room again
    assert len(kept) <= spilled + 2


def test_reading_goes_on_while_rows_are_added_and_put_away() -> None:
    made = record(10, spill=Scratch(), budget=Budget(0), spill_after_ns=1)
    wrong: list[str] = []
    done = threading.Event()

    def look() -> None:
        last = 0
        while not done.is_set():
            seen = made.trace()
            numbers = seen.rows("packets")["seq"]
            if len(numbers) < last or (np.diff(numbers) <= 0).any():
                wrong.append(f"{len(numbers)} rows after {last}")
            last = len(numbers)
            tail = seen.tail((int(numbers[-1]) - 1000) * STEP_NS).rows("packets")
            if not len(tail):
                wrong.append("an empty tail")

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    fill(made, 1000, 200_000)
    done.set()
    for reader in readers:
        reader.join(60)
    assert not wrong


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EFBIG])
def test_a_disk_that_takes_no_more_costs_what_did_not_fit_and_is_said_once(number: int) -> None:
    room = [5]

    class Full(Scratch):
        def __call__(self, rows):  # type: ignore[no-untyped-def]
            room[0] -= 1
            if room[0] < 0:
                raise OSError(number, os.strerror(number))
            return super().__call__(rows)

    made = record(300_000, spill=Full(), budget=Budget(0))
    trace = made.trace()
    assert len(made.notices) == 1
    assert "a part of the record is missing" in made.notices[0]
    assert os.strerror(number) in made.notices[0]
    assert (trace.settings["name"] == "record cut").sum() == 1
    numbers = trace.rows("packets")["seq"]
    assert 4 * BATCH + KEPT_BYTES / PACKETS.dtype.itemsize <= len(numbers) < 250_000
    assert numbers[0] == 0
    assert numbers[-1] >= 299_998
    assert metrics.packet_ledger(trace).received == len(numbers)


def run_apart(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    code = f"import os, signal, resource\nfrom test_batches import Budget, Scratch, record\n{code}"
    env = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.path.dirname(__file__)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


def test_a_file_that_may_not_grow_is_survived(tmp_path: Path) -> None:
    done = run_apart(
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "made = record(200_000, spill=Scratch(), budget=Budget(0))\n"
        "print(len(made.notices), made.trace().rows('packets')['seq'][[0, -1]])",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 [     0 199999]\n"
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind_by_a_process_that_is_killed(tmp_path: Path) -> None:
    done = run_apart(
        "made = record(200_000, spill=Scratch(), budget=Budget(0))\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path
    )
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []


# ---- folds


def long_runs() -> dict[str, Trace]:
    made = traces.run(seconds=6, loss=0.05, duplication=0.03, jitter_ms=8, skip=frozenset({9}), av_ms=-20)
    return {"joined": join(made.server, made.client), "client": made.client, "server": made.server}


FOLDS = {
    "summary": metrics.summary,
    "ledger": metrics.packet_ledger,
    "frames": metrics.frame_ledger,
    "loss": metrics.loss,
    "delay": lambda trace: metrics.one_way_delay(trace).sort_values(["time", "delay_ms"]).reset_index(drop=True),
    "jitter": lambda trace: metrics.jitter(trace).sort_values(["ssrc", "time"]).reset_index(drop=True),
    "bitrate": metrics.bitrate,
    "sync": metrics.sync_summary,
    "sent rate": adaptation.sent_rate,
    "live loss": lambda trace: pd.DataFrame(recent.loss(trace)),
    "live rate": lambda trace: pd.DataFrame(rates.bit_rate(trace)),
    "text": repr,
}


@pytest.mark.parametrize("name", FOLDS)
@pytest.mark.parametrize("side", ["joined", "client", "server"])
def test_numbers_are_the_same_whether_folded_at_once_or_some_at_a_time(
    name: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = long_runs()[side]
    parts = {table: [rows[at : at + 37] for at in range(0, len(rows), 37)] for table in TABLES
             for rows in [whole.rows(table)]}  # fmt: skip
    split = Trace(**parts, settings=whole.setting_rows, meta=whole.meta)
    expected = FOLDS[name](whole)  # type: ignore[no-untyped-call]
    monkeypatch.setattr(tracing, "CHUNK", 200)
    found = FOLDS[name](split)  # type: ignore[no-untyped-call]
    if isinstance(expected, pd.DataFrame):
        if name == "jitter" and side != "server":  # what overtook others is seen in another order at a seam
            assert len(found) == len(expected)
            assert found["jitter_ms"].mean() == pytest.approx(expected["jitter_ms"].mean(), rel=0.1)
            return
        pd.testing.assert_frame_equal(found, expected)
    elif name == "summary":
        assert found.as_dict() == pytest.approx(expected.as_dict())
    else:
        assert found == expected


def test_sides_are_joined_alike_whether_read_at_once_or_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = traces.run(seconds=3, loss=0.1, duplication=0.05)
    made_of = {"settings": [SettingRow(traces.EPOCH + at * NS // 10, "socket_dropped", 1, "event") for at in range(25)]}
    client = Trace(**{name: [made.client.rows(name)] for name in TABLES}, **made_of, meta=made.client.meta)
    expected = join(made.server, client)
    monkeypatch.setattr(tracing, "CHUNK", 100)
    found = join(made.server, client)
    for name in TABLES:
        assert found.rows(name).tobytes() == expected.rows(name).tobytes()
    assert metrics.packet_ledger(found).socket_dropped == 24  # when the first was told, nothing was missing yet


def test_a_large_table_is_asked_for_in_parts_and_its_numbers_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made = traces.run(seconds=4, loss=0.05)
    monkeypatch.setattr(tracing, "MOST_ROWS", 300)
    for name in ("packets", "frames"):
        monkeypatch.setattr(tracing, "MOST_ROWS", len(made.server.rows(name)) - 1)
        trace = Trace(frames=[made.server.rows("frames")], packets=[made.server.rows("packets")], meta=made.server.meta)
        with pytest.raises(
            ValueError, match=rf"this run has [\d,]+ {name}, more than .* trace.between\(0, 600\)\.{name}"
        ):
            getattr(trace, name)
        assert len(getattr(trace.between(0, 1), name)) > 0
        assert metrics.packet_ledger(trace).sent == len(made.server.rows("packets"))


# ---- a part of a run


def test_a_part_has_the_rows_of_its_time_and_the_settings_that_held() -> None:
    made = traces.run(seconds=5)
    trace = join(made.server, made.client)
    part = trace.between(2.0, 3.0)
    for name, table in TABLES.items():
        rows = trace.rows(name)
        times = np.stack([rows[column] for column in table.times])
        first, last = traces.EPOCH + 2 * NS, traces.EPOCH + 3 * NS
        within = ((times >= first) & (times < last)).any(axis=0)
        assert within.any()
        assert np.array_equal(part.rows(name), rows[within])
    assert part.settings[["time", "name", "value"]].values.tolist() == [
        [2.0, "playout_delay", 0.1],
        [2.0, "quality", 60],
    ]
    assert part.meta["end_ns"] == traces.EPOCH + 3 * NS
    assert len(trace.between(-np.inf, np.inf).rows("packets")) == len(trace.rows("packets"))
    assert len(trace.between(100, 101).rows("packets")) == 0


def test_the_parts_of_a_run_add_up_wherever_its_rows_are() -> None:
    made = record(120_000, spill=Scratch(), budget=Budget(0))
    made.frame(FrameRow("video", complete_ns=5 * NS))
    trace = made.trace()
    parts = [trace.between(start, start + 30) for start in range(0, 120, 30)]
    assert sum(part.count("packets") for part in parts) == trace.count("packets")
    assert [part.count("frames") for part in parts] == [1, 0, 0, 0]
    assert parts[1].packets["received"].min() >= 30
    assert parts[1].packets["received"].max() < 60


@pytest.mark.parametrize(("start", "end"), [(2, 1), (1, 1), (np.nan, 1), (0, np.nan)])
def test_a_part_begins_before_it_ends(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="between takes a start and an end after it"):
        traces.empty().between(start, end)


# ---- events


def test_events_without_end_take_a_bounded_place() -> None:
    made = Recorder(side="server", epoch_ns=0, clock="one")
    for number in range(30_000):
        made.event(number, "malformed packet", "x" * 100_000)
        made.event(number, f"name {number}")
        if number % 3 == 0:
            made.setting(number, "quality", number)
    rows = made.trace().setting_rows
    assert sum(row.name == "malformed packet" for row in rows) == tracing.MOST_OF_A_NAME
    assert sum(row.name == "quality" for row in rows) == 10_000
    assert [row.value for row in rows if row.name == "record full"] == [
        "more than 20,000 of 'malformed packet' came: further ones are not kept"
    ]
    assert len({row.name for row in rows}) <= tracing.MOST_NAMES + 1
    assert max(len(str(row.value)) for row in rows) <= 2000


def test_what_a_stranger_writes_has_no_control_characters() -> None:
    made = Recorder(side="client", epoch_ns=0, clock="one")
    made.meta["clip"] = "a\x1b]0;owned\x07b\u202ec"
    made.event(0, "sdp", "\x1b[2J\x9b31m\ud800 caf\u00e9")
    trace = made.trace()
    for text in (repr(trace), trace._repr_html_(), trace.settings["value"].iloc[0], trace.meta["clip"]):
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e", "\ud800"}
    assert trace.settings["value"].iloc[0].endswith("caf\u00e9")


# ---- what the numbers of a stranger cost


def alone(numbers: list[int], times: list[float]) -> Trace:
    made = Recorder(side="client", epoch_ns=0, clock="one")
    for number, time in zip(numbers, times, strict=True):
        made.packet("video", 1, number, number * 3000 % 2**32, True, 1000, None, round(time * NS), "used")
    return made.trace()


def peak_of(work) -> int:  # type: ignore[no-untyped-def]
    import tracemalloc

    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


STRANGE = {
    "leaps of half the numbers": ([at * 32_767 for at in range(300)], [at * 0.01 for at in range(300)]),
    "two numbers far apart": ([0, 2**31], [1.0, 2.0]),
    "as far apart as can be": ([-(2**62), 2**62], [1.0, 2.0]),
    "two times far apart": ([0, 1], [1.0, 1e9]),
    "both": ([0, 2**40, 5, 2**50], [0.0, 9e9, -9e9, 3.0]),
}


COSTLY = (
    metrics.summary, metrics.packet_ledger, metrics.loss, metrics.bitrate, metrics.jitter, metrics.packet_fates,
    metrics.one_way_delay, metrics.frame_loss, metrics.buffer_depth, metrics.lateness, adaptation.sent_rate,
    adaptation.queueing, recent.loss, rates.bit_rate,
)  # fmt: skip


@pytest.mark.parametrize("case", STRANGE.values(), ids=STRANGE)
def test_folds_cost_what_the_rows_cost_and_not_what_they_say(case: tuple[list[int], list[float]]) -> None:
    trace = alone(*case)
    trace.packets  # noqa: B018 - what pandas takes for itself at first is not of interest

    def work() -> None:
        for fold in COSTLY:
            fold(trace)
        recent.numbers(trace, 2 * NS)
        live = recent.Recent(tuple(recent.FOLDS))
        for now_ns in (NS, 2 * NS, 3 * NS):
            live.update(trace, now_ns)

    assert peak_of(work) < 60_000_000


def test_a_leap_is_no_loss_and_a_silence_is() -> None:
    leaping = alone([at * 32_767 for at in range(300)], [at * 0.01 for at in range(300)])
    assert metrics.packet_ledger(leaping).lost == 0
    assert metrics.summary(leaping).packet_loss_percent == 0
    # Ten seconds without a packet, of a stream that has six hundred a second.
    numbers = [*range(6000), *range(12_000, 18_000)]
    broken = alone(numbers, [number / 600 for number in numbers])
    assert metrics.packet_ledger(broken).lost == 6000
    assert metrics.summary(broken).packet_loss_percent == pytest.approx(100 / 3)
    assert (metrics.packet_fates(broken)["fate"] == "lost").sum() == 6000


def test_more_missing_packets_than_a_table_takes_are_refused_in_a_sentence() -> None:
    numbers = [at * 3000 for at in range(2000)]
    trace = alone(numbers, [at * 0.01 for at in range(2000)])
    assert metrics.packet_ledger(trace).lost == 1999 * 2999
    with pytest.raises(ValueError, match="packets are missing between the 2,000 that came, more than"):
        metrics.packet_fates(trace)


@pytest.mark.parametrize("repair_ssrcs", [None, [2]])
def test_a_run_with_repairs_has_one_loss(repair_ssrcs: list[int] | None) -> None:
    made = Recorder(side="simulation", epoch_ns=0, clock="virtual")
    if repair_ssrcs is not None:
        made.meta["repair_ssrcs"] = repair_ssrcs
    for number in range(100):
        fate = "lost" if number % 20 == 7 else "recovered" if number % 10 == 3 else "used"
        came = None if fate == "lost" else number * STEP_NS + 5
        made.packet("video", 1, number, number * 3000, True, 1000, number * STEP_NS, came, fate)
        if fate == "recovered":
            made.packet("video", 2, number, number * 3000, True, 1002, number * STEP_NS + 2, came, "used")
        made.frame(FrameRow("video", number, sent_ns=number * STEP_NS, fate="lost" if fate == "lost" else "shown"))
    trace = made.trace()
    found = metrics.frame_loss(trace)
    assert found is not None
    assert found.packet_loss == 0.15
    assert metrics.summary(trace).packet_loss_percent == pytest.approx(15)
    assert metrics.loss(trace)["packet_loss"].tolist() == pytest.approx([0.15])
    assert recent.loss(trace)[1].tolist() == pytest.approx([15])
    fates = metrics.packet_fates(trace)["fate"]
    assert fates.isin(["lost", "recovered"]).mean() == pytest.approx(0.15)


def test_settings_in_force_are_the_last_before() -> None:
    rows = [SettingRow(second * NS, "quality", second) for second in range(5)]
    part = Trace(settings=rows, meta={"side": "client", "epoch_ns": 0}).between(2.5, 4)
    assert [(row.time_ns, row.value) for row in part.setting_rows] == [(round(2.5 * NS), 2), (3 * NS, 3)]


# ---- runs


@given(
    st.lists(
        st.tuples(
            st.integers(1, 80),  # packets
            st.sampled_from(["video", "audio"]),
            st.integers(0, 0xFFFFFFFF),  # SSRC
            st.integers(0, 1 << 40),  # number
            st.integers(0, 0xFFFFFFFF),  # timestamp
            st.sampled_from([0, 294, 90_000]),
            st.booleans(),
            st.booleans(),
            st.integers(12, 65_000),
            st.sampled_from([None, "used", "late", "lost"]),
            st.booleans(),  # whether it is kept as a run, or packet by packet
        ),
        max_size=200,
    )
)
def test_a_run_is_read_as_the_packets_that_it_is_made_of(made: list[Any]) -> None:
    one, other = (Recorder(side="client", epoch_ns=0, clock="test") for _ in range(2))
    for at, (count, stream, ssrc, seq, timestamp, ticks, first, last_marker, size, fate, folded) in enumerate(made):
        rows = [
            (
                stream,
                ssrc,
                seq + place,
                (timestamp + ticks * place) & 0xFFFFFFFF,
                (first and place == 0) or (last_marker and place == count - 1),
                12 if place == count - 1 else size,
                at if fate is None else None,
                at if fate is not None else None,
                fate,
            )
            for place in range(count)
        ]
        other.packets(rows)
        if not folded:
            one.packets(rows)
            continue
        one.packet_run(
            count,
            stream=stream,
            ssrc=ssrc,
            seq=seq,
            timestamp=timestamp,
            ticks=ticks,
            first_marker=first,
            last_marker=last_marker,
            size=size,
            last=12,
            sent_ns=at if fate is None else None,
            received_ns=at if fate is not None else None,
            fate=fate,
        )
    found, wanted = one.trace().rows("packets"), other.trace().rows("packets")
    assert found.tobytes() == wanted.tobytes()


def test_a_run_of_nothing_known_is_refused() -> None:
    recorder = Recorder(side="client", epoch_ns=0, clock="test")
    for words in ({"stream": "smell"}, {"stream": "video", "fate": "eaten"}):
        with pytest.raises(ValueError, match="a packet's stream is one of"):
            recorder.packet_run(1, ssrc=1, seq=1, timestamp=1, size=12, last=12, **words)  # type: ignore[arg-type]
    assert not len(recorder.trace().rows("packets"))


def runs_of(sizes: list[int], *, start: int = 0) -> list[PacketRun]:
    """Runs of so many packets each, a millisecond apart; every third one has arrived instead of being sent."""
    made = []
    for at, count in enumerate(sizes, start):
        sent, received = (UNKNOWN, at * STEP_NS) if at % 3 == 2 else (at * STEP_NS, UNKNOWN)
        stream, ssrc, ticks, last = at % 2, 7 + at % 5, 3 * (at % 2), 40 + at % 9
        known = count, stream, ssrc, 1000 * at, 90 * at, ticks, False, at % 2 == 0, 1200, last
        made.append(PacketRun(*known, sent, received, at % 3))
    return made


@given(st.lists(st.sampled_from([1, 2, 40, 113, 255]), min_size=1, max_size=30), st.data())
def test_runs_that_stay_folded_are_read_in_any_part_like_their_rows(sizes: list[int], data: st.DataObject) -> None:
    runs = runs_of(sizes)
    rows = UNFOLD[PacketRun](runs)
    folded = PacketRuns(runs)
    assert len(folded) == len(rows) == sum(sizes)
    assert folded.moments == PACKETS.span(rows)
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows) + 3))
    assert folded.read(start, stop).tobytes() == rows[start:stop].tobytes()


@pytest.mark.parametrize("sizes", [[40], [1], [113, 3], [1, 40, 255, 2]])
def test_a_long_record_of_runs_takes_the_room_of_what_they_share(sizes: list[int]) -> None:
    runs = runs_of(sizes * (6000 // len(sizes)))
    rows = UNFOLD[PacketRun](runs)
    budget = Budget(min(rows.nbytes, 120 * len(runs)))
    made = Recorder(side="server", epoch_ns=0, clock="one", budget=budget)
    for run in runs:
        made.keep_run(run)
    assert not budget.over
    trace = made.trace()
    assert trace.count("packets") == len(rows)
    assert np.concatenate(list(trace.rows_from("packets", 777))).tobytes() == rows[777:].tobytes()
    since = trace.between(2.0, 2.5).rows("packets")
    times = np.maximum(rows["sent"], rows["received"])
    assert since.tobytes() == rows[(times >= 2 * NS) & (times < 2.5 * NS)].tobytes()
    assert trace.rows("packets").tobytes() == rows.tobytes()


def test_runs_go_to_a_disk_as_rows_once_they_are_too_many() -> None:
    put = []

    def spill(rows: Rows) -> Rows | Stored:
        put.append(len(rows))
        return scratch(rows)

    scratch = Scratch()
    made = Recorder(side="server", epoch_ns=0, clock="one", spill=spill, spill_after_ns=NS, budget=Budget(0))
    runs = runs_of([40, 113, 3] * 4000)
    for run in runs:
        made.keep_run(run)
    rows = UNFOLD[PacketRun](runs)
    assert len(rows) // 2 < sum(put) < len(rows)
    assert made.trace().rows("packets").tobytes() == rows.tobytes()
