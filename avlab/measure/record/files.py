"""Traces on a disk: one ZIP, whatever its suffix, with a Parquet file a table and settings.json.

The tables are as a student sees them (float seconds on the run's clock): whatever reads Parquet reads them.
A file is a stranger's until checked: only regular files are opened, bytes, rows and seconds are bounded by what is
there and not by what it claims, and whatever is wrong with one is a ValueError with a sentence.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from avlab.measure.record import locks, unfinished
from avlab.measure.record.checked import Rebuilt, checked_description, only_sentence, reports_of_events
from avlab.measure.record.said import sayings
from avlab.measure.record.tables import CLOCKS, REPORTS, SYNC, TABLES, Rows, Table
from avlab.measure.record.trace import Trace

FORMAT = "avlab trace"
VERSION = 1
MAX_FILE_BYTES = 2 << 30
MAX_MEMBER_BYTES = 1 << 30
MAX_SETTINGS_BYTES = 64 << 20
MAX_ROWS = 100_000_000  # an hour and a half of thirty clients at 600 packets a second
MAX_DIRECTORY_BYTES = 1 << 16  # of the ZIP: five members take four hundred
ROWS_A_BYTE = 4
"""A row is different from the last in its time at least; what packs more of them into a byte is no record."""

SWELLS = 20
"""A Parquet file is packed as it is, and text becomes a tenth: nothing grows by more when it is unpacked."""

FREE_BYTES = 4 << 20
"""What a member may have, however little of the file it comes from."""

SECONDS = 20.0
BYTES_A_SECOND = 1 << 18
"""A file may take that long to be read: 20 s, and four seconds more for each megabyte."""

_SETTINGS = "settings.json"
_READ = 1 << 20
_BATCH = 1 << 16


def save(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Save a trace whole: at no moment is there half a file at `path`, and what was there before stays until the end.

    What a process that was killed has left beside it goes. FileNotFoundError: the folder does not exist.
    IsADirectoryError: `path` is a folder. Other OSErrors as they come.
    """
    target = Path(path)
    refuse_place(target)
    # Beside the target, because replacing is atomic only within one file system.
    with locks.held(lambda: target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")) as (scratch, file):
        try:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, table in TABLES.items():
                    with archive.open(f"{name}.parquet", "w", force_zip64=True) as member:
                        _write_table(trace, table, member)
                archive.writestr(_SETTINGS, json.dumps(_described(trace), indent=1, default=str, ensure_ascii=False))
            file.flush()
            locks.replace(file, scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
    clean_up(target)


def refuse_place(target: Path) -> None:
    """Raise an OSError with a sentence if nothing can be saved there: a folder, no folder, no file."""
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder: give the trace a file name in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to save {target.name} in: make it first")
    if target.exists() and not target.is_file():
        raise OSError(f"{target} is no file that a trace could be saved in: name another")


def refuse_file(target: Path) -> None:
    """Raise an OSError with a sentence if a file is there that may only be read, although saving could replace it."""
    if target.exists() and not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK)):
        raise PermissionError("the file that is there may only be read")


def clean_up(target: Path) -> None:
    """Remove what processes that are no more have left beside `target`: halves of it, and unfinished records."""
    for pattern in (f".{_escaped(target.name)}.{'[0-9a-f]' * 8}", unfinished.pattern(target)):
        for left in target.parent.glob(pattern):
            locks.remove_if_left(left)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def load(path: str | os.PathLike[str]) -> Trace:
    """Read a trace back, exactly as it was saved.

    Of a run that was ended before it could be saved, the unfinished record beside it is read, if it is newer: all but
    the last seconds. FileNotFoundError: nothing is there. ValueError: it is no trace, is cut short or damaged, or is
    larger than a trace may be. Another OSError: it cannot be read.
    """
    source = Path(path)
    left = unfinished.newest(source)
    if left is not None and not (source.exists() and source.stat().st_mtime_ns >= left.stat().st_mtime_ns):
        source = left
    deadline = time.monotonic() + SECONDS
    with _opened(source) as file, only_sentence(source):
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{source} has {size:,} bytes; a trace has at most {MAX_FILE_BYTES:,}")
        deadline += size / BYTES_A_SECOND

        def patience() -> None:
            if time.monotonic() > deadline:
                raise ValueError(f"{source} takes too long to read for its {size:,} bytes: it is no trace")

        if unfinished.is_one(file):
            return unfinished.read(source, file, patience, MAX_ROWS)
        return _read_archive(source, file, size, patience)


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[IO[bytes]]:
    try:
        mode = source.stat().st_mode  # before it is opened: some devices and pipes do something when they are
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no trace at {source}") from None
    except ValueError:  # a name with a NUL in it
        raise ValueError(f"{str(source)!r} cannot be the name of a file") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{source} is a folder, not a saved trace")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{source} is no file, but a device or a pipe: it cannot be a saved trace")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(source, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{source} is no file, but a device or a pipe: it cannot be a saved trace")
        yield file


def _read_archive(source: Path, file: IO[bytes], size: int, patience: Callable[[], None]) -> Trace:
    _check_directory(source, file, size)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{source} is no saved trace: it has two of {twice!r:.60}")
        limit = min(MAX_MEMBER_BYTES, MAX_SETTINGS_BYTES)
        with _member(source, archive, _SETTINGS, limit, patience) as member:
            described = _read_settings(source, member.read())
        meta, settings = checked_description(source, described)
        rebuilt = Rebuilt(int(meta["epoch_ns"]))
        for name, table in TABLES.items():
            if table is REPORTS and f"{name}.parquet" not in names:  # saved before reports were a table
                reports, settings = reports_of_events(meta, settings)
                rebuilt.add(table, reports)
                continue
            if table is CLOCKS and f"{name}.parquet" not in names:  # saved before clocks were compared
                continue
            with _member(source, archive, f"{name}.parquet", MAX_MEMBER_BYTES, patience) as member:
                _read_table(source, member, table, rebuilt, patience)
        return rebuilt.trace(meta, settings)


def _check_directory(source: Path, file: IO[bytes], size: int) -> None:
    """A ZIP's directory is read whole into memory by whoever opens it: see first that it is a short one."""
    file.seek(max(0, size - (1 << 16) - 22))
    end = file.read()
    at = len(end) - 22 if end[-22:-18] == b"PK\5\6" and end[-2:] == b"\0\0" else end.rfind(b"PK\5\6")
    file.seek(0)
    if at < 0 or len(end) - at < 22:
        raise ValueError(f"{source} is no saved trace, or it was cut short (it has no end as a ZIP has one)")
    if int.from_bytes(end[at + 12 : at + 16], "little") > MAX_DIRECTORY_BYTES or end[at - 20 : at - 16] == b"PK\6\7":
        raise ValueError(f"{source} is no saved trace: its ZIP is of a kind that traces never are (a long directory)")


@contextlib.contextmanager
def _member(
    source: Path, archive: zipfile.ZipFile, name: str, most: int, patience: Callable[[], None]
) -> Iterator[IO[bytes]]:
    """A member, unpacked: in memory while it is small, else in a temporary file."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"{source} is no saved trace: it has no {name} in it") from None
    if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{source} is no saved trace: its ZIP is of a kind that traces never are ({name} in it)")
    if info.file_size > most:
        raise ValueError(f"{name} in {source} claims {info.file_size:,} bytes; a trace has at most {most:,} in a table")
    if info.file_size > FREE_BYTES + SWELLS * info.compress_size:
        raise ValueError(
            f"{name} in {source} claims {info.file_size:,} bytes, out of {info.compress_size:,}: no trace swells so"
        )
    with tempfile.SpooledTemporaryFile(max_size=64 << 20) as unpacked, archive.open(info) as packed:
        # What is read is bounded by what is claimed: zipfile stops there, and checks the sum.
        while part := packed.read(_READ):
            unpacked.write(part)
            patience()
        unpacked.seek(0)
        yield unpacked


def _read_settings(source: Path, data: bytes) -> dict[str, Any]:
    # A few bytes each of what has to be made for them: counted before it is.
    if data.count(b"[") + data.count(b"{") > 600_000 or data.count(b",") > 3_000_000:
        raise ValueError(f"{source} is no saved trace: its {_SETTINGS} has more in it than a record keeps")
    try:
        described = json.loads(data)
        known = described["format"] == FORMAT
        version = int(described["version"])
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError):
        raise ValueError(f"{source} is no saved trace: its {_SETTINGS} does not say that it is one") from None
    if not known:
        raise ValueError(f"{source} is no saved trace: its {_SETTINGS} is of another format")
    if version > VERSION:
        raise ValueError(
            f"{source} was saved by a newer avlab (format {version}; this one reads {VERSION}): update avlab"
        )
    return dict(described)


def _described(trace: Trace) -> dict[str, Any]:
    settings = [
        {"time": (row.time_ns - trace.epoch_ns) / 1_000_000_000, "name": row.name, "value": row.value, "kind": row.kind}
        for row in (*trace.setting_rows, *([] if trace.from_file else sayings.rows(trace.epoch_ns)))
    ]
    return {"format": FORMAT, "version": VERSION, "meta": trace.meta, "settings": settings}


def _write_table(trace: Trace, table: Table, file: IO[bytes]) -> None:
    import pyarrow
    import pyarrow.parquet

    with contextlib.ExitStack() as stack:
        writer: Any = None
        for rows in trace.chunks(table.name):
            frame = table.to_frame(rows, trace.epoch_ns)
            if table is SYNC:
                frame.insert(3, "offset", frame["audio_pts"] - frame["video_pts"])
            part = pyarrow.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                made = pyarrow.parquet.ParquetWriter(file, part.schema, compression="zstd")
                writer = stack.enter_context(made)
            writer.write_table(part)


def _read_table(source: Path, data: IO[bytes], table: Table, rebuilt: Rebuilt, patience: Callable[[], None]) -> None:
    import pyarrow
    import pyarrow.parquet

    size = data.seek(0, io.SEEK_END)
    data.seek(0)
    try:
        file = pyarrow.parquet.ParquetFile(
            data, pre_buffer=False, thrift_string_size_limit=1 << 24, thrift_container_size_limit=1 << 20
        )
        _check_parquet(file, table, size)
        columns = list(table.columns)
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns, use_threads=False):
            patience()
            rebuilt.add(table, _to_rows(batch, table, rebuilt.epoch_ns))
    except UnreadableError as error:
        raise ValueError(f"{source} is no trace that this avlab can read: {table.name} has {error}") from None
    except (pyarrow.ArrowException, ValueError, OSError, TypeError, KeyError, IndexError, OverflowError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the {table.name} in {source} cannot be read: {reason}") from None


class UnreadableError(Exception):
    """Columns that are not what a trace's are."""


def _check_parquet(file: Any, table: Table, size: int) -> None:
    """Refuse what takes more than its bytes can hold. Run lengths make a billion equal rows a few bytes."""
    meta = file.metadata
    if meta.num_rows > MAX_ROWS:
        raise ValueError(f"it claims {meta.num_rows:,} rows, more than {MAX_ROWS:,}")
    if meta.num_rows > 20_000 + ROWS_A_BYTE * size:
        raise ValueError(f"it claims {meta.num_rows:,} rows in {size:,} bytes, which cannot be a record")
    names = file.schema_arrow.names
    missing = [column for column in table.columns if column not in names]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    if len(set(names)) < len(names) or len(names) > 100 or meta.num_row_groups > 10_000:
        raise ValueError("its columns or groups of rows are not those of a trace")
    for at in range(meta.num_row_groups):
        # Not column by column: pyarrow has no way out for what is odd in a column's statistics, and ends the process.
        group = meta.row_group(at)
        if group.total_byte_size > (1 << 20) + 32 * group.num_columns * group.num_rows:
            raise ValueError(f"a group of {group.num_rows:,} rows claims {group.total_byte_size:,} bytes")


def _to_rows(batch: Any, table: Table, epoch_ns: int) -> Rows:
    """A part of a table of Parquet, packed; what pandas or others have noted beside the columns does not matter."""
    rows = np.zeros(batch.num_rows, table.dtype)
    for column, kind in table.columns.items():
        values = batch.column(batch.schema.get_field_index(column))
        if isinstance(kind, tuple):
            rows[column] = _words(values, kind, column)
            continue
        # Integers stay integers: a float holds a sequence number only up to 2**53.
        numbers, missing = _numbers(values, kind, column)
        into = rows.dtype[column]
        if kind == "ratio":
            rows[column] = np.where(missing, np.nan, numbers)
            continue
        if kind in ("time", "span"):
            missing |= np.isnan(numbers)
            seconds = np.where(missing, 0.0, numbers)
            if (np.abs(seconds) > 4e9).any():
                raise UnreadableError(f"times in {column} that are no times")
            numbers = np.rint(seconds * 1_000_000_000).astype(np.int64) + (epoch_ns if kind == "time" else 0)
        elif (np.abs(np.where(missing, 0, numbers).astype(np.float64)) > min(2.0**62, np.iinfo(into).max)).any():
            raise UnreadableError(f"numbers in {column} that are too large")
        rows[column] = np.where(missing, np.iinfo(into).min, numbers)
    return rows


def _numbers(values: Any, kind: str, column: str) -> tuple[Any, Any]:
    import pyarrow

    wanted = {"flag": pyarrow.types.is_boolean, "count": pyarrow.types.is_integer, "size": pyarrow.types.is_integer}
    if not (wanted.get(kind, pyarrow.types.is_floating)(values.type) or pyarrow.types.is_null(values.type)):
        raise UnreadableError(f"{values.type} in the column {column}"[:120])
    missing = np.asarray(values.is_null())
    if pyarrow.types.is_null(values.type):
        return np.zeros(len(values)), missing
    filled = values.fill_null(False if kind == "flag" else 0)
    return filled.to_numpy(zero_copy_only=False), missing


def _words(values: Any, words: tuple[str, ...], column: str) -> Any:
    import pyarrow

    if pyarrow.types.is_null(values.type):
        return np.full(len(values), -128)
    if pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type):
        values = values.dictionary_encode()
    if not (pyarrow.types.is_dictionary(values.type) and pyarrow.types.is_string(values.type.value_type)):
        raise UnreadableError(f"{values.type} in the column {column}"[:120])
    code = {word: at for at, word in enumerate(words)}
    codes = np.array([*(code.get(word, -128) for word in values.dictionary.to_pylist()), -128])
    at = values.indices.fill_null(len(codes) - 1).to_numpy(zero_copy_only=False)
    if len(at) and not (at.min() >= 0 and at.max() < len(codes)):
        raise UnreadableError(f"words in {column} that are not there")
    return codes[at]
