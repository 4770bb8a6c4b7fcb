"""Traces on a disk: what is saved comes back exactly, and what is no trace is refused in a sentence."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import traces

from avlab.measure.numbers import metrics
from avlab.measure.record import files
from avlab.measure.record.join import join
from avlab.measure.record.trace import Trace


@pytest.fixture
def trace() -> Trace:
    made = traces.run(seconds=2, loss=0.05, duplication=0.02, skip=frozenset({5}))
    return join(made.server, made.client)


def assert_equal(one: Trace, other: Trace) -> None:
    for name in ("frames", "packets", "sync", "reports"):
        assert one.rows(name).tobytes() == other.rows(name).tobytes()
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)
    pd.testing.assert_frame_equal(one.settings, other.settings, check_exact=True)
    assert one.setting_rows == other.setting_rows
    assert one.meta == other.meta


@pytest.mark.parametrize("name", ["run.avtrace", "run.zip", "run", "a run in déjà-vu.x"])
def test_what_is_saved_comes_back_exactly(trace: Trace, tmp_path: Path, name: str) -> None:
    trace.save(tmp_path / name)
    assert_equal(Trace.load(str(tmp_path / name)), trace)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_each_side_and_nothing_at_all_come_back_too(tmp_path: Path) -> None:
    made = traces.run(seconds=1)
    for side in (made.server, made.client, traces.empty()):
        side.save(tmp_path / "x")
        assert_equal(Trace.load(tmp_path / "x"), side)


def test_numbers_from_a_file_are_the_numbers_of_the_run(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "x")
    assert metrics.summary(Trace.load(tmp_path / "x")) == metrics.summary(trace)


def test_two_sides_are_joined_after_travelling(tmp_path: Path) -> None:
    made = traces.run(seconds=1, clock_offset_ns=999)
    made.server.save(tmp_path / "server")
    made.client.save(tmp_path / "client")
    assert_equal(join(Trace.load(tmp_path / "server"), Trace.load(tmp_path / "client")), join(made.server, made.client))


def test_any_reader_of_parquet_reads_the_tables(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "x") as archive:
        tables = ("clocks", "frames", "packets", "reports", "sync")
        assert sorted(archive.namelist()) == sorted(["settings.json", *(f"{name}.parquet" for name in tables)])
        frames = pd.read_parquet(io.BytesIO(archive.read("frames.parquet")))
        described = json.loads(archive.read("settings.json"))
    assert list(frames) == list(trace.frames)
    assert frames["shown"].equals(trace.frames["shown"])
    assert [row["name"] for row in described["settings"]] == ["playout_delay", "quality"]


def test_saving_replaces_whole_or_not_at_all(trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"what was there before")

    def full(*_: object) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "_described", full)
    with pytest.raises(OSError, match="no space left"):
        trace.save(path)
    assert path.read_bytes() == b"what was there before"
    assert [found.name for found in tmp_path.iterdir()] == ["x"]


def test_a_place_that_cannot_be_saved_to_is_named(trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder: give the trace a file name in it"):
        trace.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to save x in: make it first"):
        trace.save(tmp_path / "nowhere" / "x")


def before_reports_were_a_table(files: dict[str, bytes]) -> None:
    """As avlab saved receiver reports at first: each as some events of one moment."""
    reports = pd.read_parquet(io.BytesIO(files.pop("reports.parquet")))
    described = json.loads(files["settings.json"])
    for _, row in reports.iterrows():
        for name in ("ssrc", "loss", "lost", "jitter", "kbps", "round_trip"):
            if pd.notna(row[name]):
                told = {"time": row["time"], "name": f"reported {row['stream']} {name}", "value": row[name]}
                described["settings"].append(told | {"kind": "event"})
    files["settings.json"] = json.dumps(described).encode()


@pytest.mark.parametrize("side", ["joined", "server"])
def test_reports_saved_as_events_are_the_same_table(side: str, tmp_path: Path) -> None:
    made = traces.run(seconds=4, loss=0.1)
    trace = made.server if side == "server" else join(made.server, made.client)
    assert len(trace.reports) == (16 if side == "server" else 8)
    trace.save(tmp_path / "x")
    rewritten(tmp_path / "x", before_reports_were_a_table)
    assert_equal(Trace.load(tmp_path / "x"), trace)


def test_a_joined_trace_of_before_leaves_out_other_clients(tmp_path: Path) -> None:
    made = traces.run(seconds=4)
    trace = join(made.server, made.client)
    everyone = Trace(packets=[trace.rows("packets")], reports=[made.server.rows("reports")], meta=trace.meta)
    everyone.save(tmp_path / "x")
    rewritten(tmp_path / "x", before_reports_were_a_table)
    pd.testing.assert_frame_equal(Trace.load(tmp_path / "x").reports, trace.reports)


@pytest.mark.parametrize("value", [1e17, -1, None, True, "seven", 2**61, float("nan")])
@pytest.mark.parametrize("word", ["ssrc", "loss", "lost", "jitter", "round_trip", "kbps"])
def test_what_a_report_of_before_cannot_say_is_unknown(word: str, value: object, tmp_path: Path) -> None:
    def told(files: dict[str, bytes]) -> None:
        before_reports_were_a_table(files)
        described = json.loads(files["settings.json"])
        rows = [("reported video ssrc", 7), (f"reported video {word}", value)]
        described["settings"] += [{"time": 1.0, "name": name, "value": it, "kind": "event"} for name, it in rows]
        files["settings.json"] = json.dumps(described).encode()

    traces.empty("server").save(tmp_path / "x")
    rewritten(tmp_path / "x", told)
    table = Trace.load(tmp_path / "x").reports
    assert table["ssrc"].iloc[0] == 7
    assert not table[["jitter", "round_trip"]].abs().gt(4e9).any(axis=None)


def test_recorded_traces_of_before_have_their_reports(data: Path) -> None:
    for name, count in {"4g": 36, "bottleneck": 44, "classroom": 36, "long-haul": 36}.items():
        trace = Trace.load(data / f"{name}.avtrace")
        table = trace.reports
        assert len(table) == count
        assert not trace.settings["name"].str.startswith("reported").any()
        assert table["loss"].between(0, 1).all()
        assert (table["lost"] >= 0).all()
        assert table["round_trip"].dropna().between(0, 5).all()
        assert set(table["ssrc"]) == set(trace.meta["ssrcs"])


# ---- what is no trace


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no trace at .*missing"):
        Trace.load(tmp_path / "missing")
    with pytest.raises(ValueError, match="is a folder, not a saved trace"):
        Trace.load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04 but no more", bytes(1000)])
def test_what_is_no_zip_is_no_trace(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match="is no saved trace, or it was cut short"):
        Trace.load(tmp_path / "x")


def test_every_truncation_and_many_a_flipped_byte_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x"
    traces.run(seconds=0.2, sound=False).client.save(path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 401):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="saved trace"):
            Trace.load(path)
    for at in range(0, len(whole), 211):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        try:
            Trace.load(path)  # a byte that carries nothing, such as a date, may differ
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017 - it may also succeed
            assert "\n" not in str(error)  # noqa: PT017


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def edited(**changes: object) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members["settings.json"] = json.dumps(json.loads(members["settings.json"]) | changes).encode()

    return change


def table(name: str, make: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        key = f"{name}.parquet"
        members[key] = parquet(make(pd.read_parquet(io.BytesIO(members[key]))))

    return change


WRONG = {
    "no packets": (lambda members: members.pop("packets.parquet"), "has no packets.parquet"),
    "no settings": (lambda members: members.pop("settings.json"), "has no settings.json"),
    "no parquet": (lambda members: members.update({"frames.parquet": b"junk"}), "the frames in .* cannot be read"),
    "no json": (lambda members: members.update({"settings.json": b"{"}), "does not say that it is one"),
    "a list": (lambda members: members.update({"settings.json": b"[1]"}), "does not say that it is one"),
    "deep": (lambda members: members.update({"settings.json": b"[" * 100_000}), "does not say that it is one"),
    "another format": (edited(format="a cake"), "is of another format"),
    "a newer format": (edited(version=99), r"saved by a newer avlab \(format 99.*update avlab"),
    "no epoch": (edited(meta={"side": "client", "clock": "one"}), "'epoch_ns' is missing"),
    "odd settings": (edited(settings=[{"time": "noon"}]), "no trace that this avlab can read"),
    "a column lacks": (table("frames", lambda frame: frame.drop(columns="shown")), "it has no column shown"),
    "words for numbers": (
        table("sync", lambda frame: frame.assign(time=["soon"] * len(frame))), "no trace that this avlab can read",
    ),
    "endless times": (
        table("sync", lambda frame: frame.assign(time=np.inf)), "no trace that this avlab can read",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), WRONG.values(), ids=WRONG)
def test_a_zip_that_is_no_trace_is_told_what_is_wrong(
    trace: Trace, tmp_path: Path, change: Callable[[dict[str, bytes]], None], sentence: str
) -> None:
    path = tmp_path / "x"
    trace.save(path)
    rewritten(path, change)
    with pytest.raises(ValueError, match=sentence):
        Trace.load(path)


def test_a_zip_that_swells_is_not_unpacked(trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_MEMBER_BYTES", 100_000)
    path = tmp_path / "x"
    trace.save(path)
    rewritten(path, lambda members: members.update({"settings.json": b" " * 10_000_000}))
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=r"settings.json in .* claims 10,000,000 bytes"):
        Trace.load(path)


def test_a_table_that_swells_is_not_read(trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    trace.save(path)
    monkeypatch.setattr(files, "MAX_ROWS", 10)
    with pytest.raises(ValueError, match=r"it claims \d+ rows, more than 10"):
        Trace.load(path)
