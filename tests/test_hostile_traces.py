"""Files that claim to be traces: whatever is in one, it is loaded or refused in a sentence, soon, in little memory."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import traces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avlab.measure.numbers import metrics
from avlab.measure.record import files, unfinished
from avlab.measure.record.join import join
from avlab.measure.record.trace import Recorder, Trace

Members = dict[str, bytes]


def small() -> Trace:
    made = traces.run(seconds=0.3, loss=0.1)
    return join(made.server, made.client)


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, parts: Members, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "x"
    small().save(path)
    return path


def refused(path: Path, sentence: str = "trace|cannot be read") -> str:
    with pytest.raises(ValueError, match=sentence) as said:
        Trace.load(path)
    words = str(said.value)
    assert words.isprintable()
    return words


def parquet(*tables: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    with pyarrow.parquet.ParquetWriter(buffer, tables[0].schema, compression="zstd", **settings) as writer:
        for table in tables:
            writer.write_table(table)
    return buffer.getvalue()


def nulls(good: Path, name: str, rows: int, **columns: Any) -> Any:
    like = pyarrow.parquet.read_table(io.BytesIO(members(good)[f"{name}.parquet"]))
    return pyarrow.table(
        {
            field.name: columns.get(
                field.name,
                pyarrow.nulls(rows, pyarrow.string() if pyarrow.types.is_dictionary(field.type) else field.type),
            )
            for field in like.schema
        }
    )


# ---- what is no file


def test_only_files_are_opened(tmp_path: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        refused(tmp_path / "fifo", "is no file, but a device or a pipe")
        refused(Path("/dev/zero"), "is no file, but a device or a pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        refused(tmp_path / "socket", "is no file, but a device or a pipe")
    refused(tmp_path, "is a folder, not a saved trace")
    with pytest.raises(FileNotFoundError, match="there is no trace at"):
        Trace.load(tmp_path / "none")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="loop"):
        Trace.load(tmp_path / "loop")


# ---- what swells


def test_text_that_swells_is_not_unpacked(good: Path, tmp_path: Path) -> None:
    for text in (b"[]," * 30_000_000, b" " * 60_000_000, b'{"a":' * 1_000_000):
        bomb = b'{"format":"avlab trace","version":1,"meta":{},"settings":[' + text + b"[]]}"
        path = packed(tmp_path / "x", members(good) | {"settings.json": bomb})
        assert path.stat().st_size < 500_000
        refused(path)


def test_text_with_more_in_it_than_a_record_keeps_is_not_read(good: Path, tmp_path: Path) -> None:
    text = b'{"format":"avlab trace","version":1,"meta":{},"settings":[' + b"{}," * 700_000 + b"{}]}"
    refused(packed(tmp_path / "x", members(good) | {"settings.json": text}, zipfile.ZIP_STORED), "than a record keeps")


def test_rows_that_no_byte_stands_for_are_not_made(good: Path, tmp_path: Path) -> None:
    data = parquet(*[nulls(good, "packets", 10**6)] * 20)
    assert len(data) < 1_000_000
    refused(packed(tmp_path / "x", members(good) | {"packets.parquet": data}), "which cannot be a record")


def test_a_column_of_long_words_is_not_read(good: Path, tmp_path: Path) -> None:
    words = pyarrow.array(["x" * 10_000_000] * 2)
    data = parquet(nulls(good, "frames", 2, fate=words))
    refused(packed(tmp_path / "x", members(good) | {"frames.parquet": data}), "claims [0-9,]+ bytes")


def test_a_zip_with_a_long_directory_is_not_read(tmp_path: Path) -> None:
    packed(tmp_path / "x", {f"{number:0100}": b"" for number in range(1000)})
    refused(tmp_path / "x", "a long directory")


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_pack_are_refused(good: Path, tmp_path: Path, how: int) -> None:
    refused(packed(tmp_path / "x", members(good), how), "its ZIP is of a kind that traces never are")


def test_members_that_are_there_twice_are_refused(good: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        for name, data in members(good).items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("settings.json", b"{}")
    refused(tmp_path / "x", "it has two of ")


def test_a_trace_that_was_zipped_anew_is_one(good: Path, tmp_path: Path) -> None:
    again = Trace.load(packed(tmp_path / "x", members(good)))
    assert metrics.summary(again) == metrics.summary(Trace.load(good))


def test_a_reader_has_no_endless_patience(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SECONDS", -1000.0)
    refused(good, "takes too long to read")


# ---- what is not what it should be


def described(**changes: Any) -> Callable[[Members], None]:
    def change(parts: Members) -> None:
        said = json.loads(parts["settings.json"])
        for name, value in changes.items():
            if name == "settings":
                said["settings"] = value
            else:
                said["meta"][name] = value
        parts["settings.json"] = json.dumps(said).encode()

    return change


def column(table: str, name: str, values: Any) -> Callable[[Members], None]:
    def change(parts: Members) -> None:
        frame = pd.read_parquet(io.BytesIO(parts[f"{table}.parquet"]))
        frame[name] = [values] * len(frame)
        buffer = io.BytesIO()
        frame.to_parquet(buffer)
        parts[f"{table}.parquet"] = buffer.getvalue()

    return change


def row(**changes: Any) -> list[dict[str, Any]]:
    return [{"time": 1.0, "name": "quality", "value": 3, "kind": "setting"} | changes]


ODD = {
    "a side that there is not": described(side="both"),
    "an epoch beyond 64 bits": described(epoch_ns=2**70),
    "an epoch that is a text": described(epoch_ns="now"),
    "an end of time": described(end_ns=1e300),
    "a rate that is a text": described(target_fps="fast"),
    "a rate without end": described(target_fps=float("inf")),
    "a rate below nothing": described(audio_rate=-1),
    "SSRCs that are none": described(ssrcs=["a", {}]),
    "a clip that is a list": described(clip=["x"]),
    "deep": described(more=json.loads("[" * 50 + "]" * 50)),
    "a moment without end": described(settings=row(time=float("inf"))),
    "no moment": described(settings=row(time=None)),
    "a value that is a table": described(settings=row(value={"a": 1})),
    "a value beyond all": described(settings=row(value=10**400)),
    "another kind": described(settings=row(kind="wish")),
    "a row that is a text": described(settings=["quality"]),
    "settings that are a number": described(settings=7),
    "numbers that are texts": column("packets", "seq", "one"),
    "numbers that are lists": column("packets", "seq", [1, 2]),
    "numbers beyond 62 bits": column("packets", "seq", 2**63 - 1),
    "sizes beyond 31 bits": column("packets", "bytes", 2**40),
    "times beyond all": column("packets", "received", 1e30),
    "flags that are floats": column("packets", "marker", 0.5),
    "words that are numbers": column("frames", "fate", 7),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_what_could_be_no_record_is_refused(good: Path, tmp_path: Path, change: Callable[[Members], None]) -> None:
    parts = members(good)
    change(parts)
    refused(packed(tmp_path / "x", parts))


def test_what_pandas_or_others_note_beside_the_columns_does_not_matter(good: Path, tmp_path: Path) -> None:
    parts = members(good)
    table = pyarrow.parquet.read_table(io.BytesIO(parts["packets.parquet"]))
    for noted in (b'{"x": 1}', b"{", b'{"index_columns": ["seq"], "columns": []}'):
        parts["packets.parquet"] = parquet(table.replace_schema_metadata({b"pandas": noted}))
        loaded = Trace.load(packed(tmp_path / "x", parts))
        assert np.array_equal(loaded.rows("packets"), Trace.load(good).rows("packets"))


def test_large_sequence_numbers_come_back_exactly(tmp_path: Path) -> None:
    made = Recorder(side="client", epoch_ns=0, clock="one")
    numbers = [2**53 + 1, 2**61 - 1, -(2**60)]
    for number in numbers:
        made.packet("video", 1, number, None, None, None, None, 5, "used")
    made.trace().save(tmp_path / "x")
    assert Trace.load(tmp_path / "x").rows("packets")["seq"].tolist() == numbers


def test_texts_are_fit_to_be_shown(good: Path, tmp_path: Path) -> None:
    parts = members(good)
    described(clip="a\x1b[31mb\x9b", server={"clip": "\x07c\u202e"})(parts)
    described(settings=row(name="q\x1b]0;x\x07", value="\x1b[2J"))(parts)
    trace = Trace.load(packed(tmp_path / "x", parts))
    said = f"{trace!r}{trace.meta}{trace.setting_rows}"
    assert not set(said) & {"\x1b", "\x9b", "\x07", "\u202e"}


# ---- any bytes


def survives(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    try:
        trace = Trace.load(path)
    except ValueError as error:
        said = str(error)
    else:
        said = repr(trace).replace("\n", " ")
        metrics.summary(trace)
        metrics.loss(trace)
    assert said.isprintable()


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    kind = draw(st.sampled_from(["flip", "cut", "insert", "zero", "number"]))
    where, length = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(1, 64))
    junk = draw(st.binary(min_size=1, max_size=16))

    def change(data: bytes) -> bytes:
        at = int(where * len(data))
        if kind == "flip":
            return data[:at] + bytes(each ^ junk[0] for each in data[at : at + 1]) + data[at + 1 :]
        if kind == "cut":
            return data[:at] + data[at + length :]
        if kind == "insert":
            return data[:at] + junk + data[at:]
        if kind == "zero":
            return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]
        return data[:at] + struct.pack("<I", 2**32 - length) + data[at + 4 :]

    return change


FUZZED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZED
@given(changes=st.lists(mutations(), min_size=1, max_size=4))
def test_any_change_of_a_file_is_loaded_or_refused(good: Path, tmp_path: Path, changes: Any) -> None:
    data = good.read_bytes()
    for change in changes:
        data = change(data)
    survives(data, tmp_path / "x")


@FUZZED
@given(name=st.sampled_from(["packets.parquet", "frames.parquet", "sync.parquet", "settings.json"]),
       changes=st.lists(mutations(), min_size=1, max_size=3))  # fmt: skip
def test_any_change_of_a_member_is_loaded_or_refused(good: Path, tmp_path: Path, name: str, changes: Any) -> None:
    parts = members(good)
    for change in changes:
        parts[name] = change(parts[name])
    survives(packed(tmp_path / "y", parts).read_bytes(), tmp_path / "x")


@FUZZED
@given(changes=st.lists(mutations(), min_size=1, max_size=3))
def test_any_change_of_an_unfinished_record_is_loaded_or_refused(tmp_path: Path, changes: Any) -> None:
    data = unfinished_bytes(tmp_path)
    for change in changes:
        data = change(data)
    survives(data, tmp_path / "x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@FUZZED
@given(name=st.sampled_from(["side", "epoch_ns", "clock", "end_ns", "target_fps", "audio_rate", "ssrcs", "joined",
                             "repair_ssrcs", "wire", "clip", "server", "shared_clock", "settings"]),
       value=json_values)  # fmt: skip
def test_any_word_on_a_run_is_believed_or_refused(good: Path, tmp_path: Path, name: str, value: Any) -> None:
    parts = members(good)
    described(**{name: value})(parts)
    survives(packed(tmp_path / "y", parts).read_bytes(), tmp_path / "x")


# ---- unfinished records


def unfinished_bytes(folder: Path) -> bytes:
    written = unfinished.Unfinished(folder / "run")
    written.write(small())
    data = written.path.read_bytes()
    written.discard()
    return data


def block(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    body = zlib.compress(data, 9)
    return struct.pack("<4sIII", kind, len(data) if size is None else size, len(body), zlib.crc32(body)) + body


def test_a_block_that_swells_or_lies_ends_the_record(tmp_path: Path) -> None:
    sound = unfinished_bytes(tmp_path)
    path = tmp_path / "x"
    path.write_bytes(sound)
    count = len(Trace.load(path).rows("packets"))
    for bad in (block(b"pack", bytes(47 * 1_000_000)), block(b"pack", b"", 2**31), block(b"pack", bytes(46)), b"junk"):
        path.write_bytes(sound + bad)
        assert len(Trace.load(path).rows("packets")) == count


def test_rows_that_could_be_no_record_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(unfinished_bytes(tmp_path) + block(b"pack", b"\x55" * 470))
    refused(path, "has what cannot be in a record")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_what_is_refused_takes_little_memory(good: Path, tmp_path: Path) -> None:
    parts = members(good)
    packed(tmp_path / "rows", parts | {"packets.parquet": parquet(*[nulls(good, "packets", 10**6)] * 49)})
    packed(tmp_path / "text", parts | {"settings.json": b"[" + b"[]," * 50_000_000 + b"]"})
    code = (
        "import resource, sys; from avlab.measure.record.trace import Trace; import pyarrow.parquet, pandas\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20),) * 2)\n"
        "for name in sys.argv[1:]:\n"
        "    try: Trace.load(name)\n"
        "    except ValueError as error: print('refused')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "rows"), str(tmp_path / "text")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "refused\nrefused\n", done.stderr
