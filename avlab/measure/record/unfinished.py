"""Records of runs that go on: written beside their target every few seconds, so that a kill costs the last of them.

A file of blocks, each a table's new rows as they are packed, or what is new of the settings, with its length and its
sum; what was being written when the end came is left out. `NAME.part-XXXXXXXX` stands beside NAME until it is saved.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from avlab.measure.record import locks
from avlab.measure.record.checked import Rebuilt, check_rows, checked_description, reports_of_events
from avlab.measure.record.tables import REPORTS, TABLES, Rows
from avlab.measure.record.trace import SettingRow, Trace

EVERY_SECONDS = 5.0
"""How often what is new is written: what a kill costs, at most, with the time that it takes."""

MAGIC = b"avlab unfinished record 1\n"
_BLOCK = struct.Struct("<4sIII")  # which table, bytes unpacked and packed, CRC-32 of the packed ones
_KINDS = {name: name[:4].encode() for name in TABLES}
_TABLE_OF = {kind: name for name, kind in _KINDS.items()}
_SETTINGS = b"sett"
_MOST = 64 << 20
"""Bytes in a block, unpacked."""

_ROWS = 5_000
"""Settings in a block: a few megabytes at most, as each is bounded."""

_SWELLS = 100
_NS = 1_000_000_000


def pattern(target: Path) -> str:
    """What matches the names of the unfinished records beside a target, and no others."""
    name = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in target.name)
    return f"{name}.part-{'[0-9a-f]' * 8}"


def newest(target: Path) -> Path | None:
    """The unfinished record beside a target that was written last; None where there is none."""
    found: list[tuple[int, Path]] = []
    with contextlib.suppress(OSError, ValueError):
        for path in target.parent.glob(pattern(target)):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path))
    return max(found)[1] if found else None


class Unfinished:
    """The unfinished record of one run, written by one thread. Made where the trace will be saved.

    OSError: the folder cannot be written.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        where = Path(target)
        self.path, self._file = locks.take(lambda: where.with_name(f"{where.name}.part-{uuid.uuid4().hex[:8]}"))
        self._end = 0
        self._have = dict.fromkeys((*TABLES, "settings"), 0)
        self._meta: dict[str, Any] = {}
        try:
            self._append(MAGIC)
        except OSError:
            self.discard()
            raise

    def write(self, trace: Trace) -> None:
        """Add what is new in a trace of the run. OSError: there is no room; what is new is then tried again."""
        fresh = trace.setting_rows[self._have["settings"] :]
        for start in range(0, len(fresh) if trace.meta == self._meta else max(1, len(fresh)), _ROWS):
            part = fresh[start : start + _ROWS]
            said = {"meta": trace.meta, "settings": [list(row) for row in part]}
            self._append(_block(_SETTINGS, json.dumps(said, default=str).encode()))
            self._have["settings"] += len(part)
        self._meta = trace.meta
        for name in TABLES:
            for rows in trace.rows_from(name, self._have[name]):
                self._append(_block(_KINDS[name], rows.tobytes()))
                self._have[name] += len(rows)

    def _append(self, data: bytes) -> None:
        """All of it or nothing, and past the process's end: the system has it, once it is written."""
        view, descriptor = memoryview(data), self._file.fileno()
        try:
            os.lseek(descriptor, self._end, os.SEEK_SET)
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self._end)
            raise
        self._end += len(data)

    def close(self) -> None:
        """Leave it where it is, for `Trace.load`."""
        self._file.close()

    def discard(self) -> None:
        """Remove it: the trace was saved."""
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


class Keeping:
    """Writes the unfinished record of a run from a thread of its own, until `end`. `told` hears what goes wrong."""

    def __init__(self, target: str | os.PathLike[str], trace: Callable[[], Trace], told: Callable[[str], None]) -> None:
        self._unfinished = Unfinished(target)
        self._trace, self._told = trace, told
        self._ending = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="avlab-record", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._unfinished.path

    def _run(self) -> None:
        while not self._ending.wait(EVERY_SECONDS):
            try:
                self._unfinished.write(self._trace())
                self._failed = False
            except OSError as error:
                if not self._failed:
                    self._told(f"the record is not being kept beside its file ({error.strerror or error})")
                self._failed = True

    def end(self, *, saved: bool) -> None:
        """Stop; what was written goes if the trace `saved`, and stays for `Trace.load` if it could not be."""
        self._ending.set()
        self._thread.join()
        if saved:
            self._unfinished.discard()
        else:
            self._unfinished.close()


def _block(kind: bytes, data: bytes) -> bytes:
    """Some rows of a table, of which there are half a million at most, or some settings."""
    packed = zlib.compress(data, 1)
    return _BLOCK.pack(kind, len(data), len(packed), zlib.crc32(packed)) + packed


def is_one(file: IO[bytes]) -> bool:
    """Whether an open file is an unfinished record; where it is read from next is not changed."""
    at = file.tell()
    begins = file.read(len(MAGIC)) == MAGIC
    file.seek(at)
    return begins


def read(source: Path, file: IO[bytes], patience: Callable[[], None], most_rows: int) -> Trace:
    """The trace as far as it was written. ValueError for what is no such record, or larger than one may be."""
    file.seek(len(MAGIC))
    meta: dict[str, Any] | None = None
    settings: list[SettingRow] = []
    rebuilt: Rebuilt | None = None
    while (block := _next(file)) is not None:
        patience()
        kind, data = block
        if kind == _SETTINGS:
            meta, fresh = _described(source, data)
            settings += fresh
            rebuilt = rebuilt or Rebuilt(int(meta["epoch_ns"]))
            if len(settings) > 1_000_000:
                raise ValueError(f"{source} has more settings than a record keeps")
        elif rebuilt is not None:
            table = TABLES[_TABLE_OF[kind]]
            rows: Rows = np.frombuffer(data, table.dtype)
            check_rows(table, rows, rebuilt.epoch_ns)
            rebuilt.add(table, rows)
            if rebuilt.counts[table.name] > most_rows:
                raise ValueError(f"{source} has more rows than {most_rows:,}")
    if rebuilt is None or meta is None:
        raise ValueError(f"{source} is an unfinished record that has nothing in it: its run ended within seconds")
    if not rebuilt.counts[REPORTS.name]:  # written before reports were a table, or without any
        reports, settings = reports_of_events(meta, settings)
        rebuilt.add(REPORTS, reports)
    return rebuilt.trace(meta | {"unfinished": True}, settings)


def _next(file: IO[bytes]) -> tuple[bytes, bytes] | None:
    """The next whole block; None at the end, or where what follows was not written to its end."""
    head = file.read(_BLOCK.size)
    if len(head) < _BLOCK.size:
        return None
    kind, size, packed_size, crc = _BLOCK.unpack(head)
    if kind != _SETTINGS and kind not in _TABLE_OF:
        return None
    if size > _MOST or packed_size > _MOST + (1 << 16) or size > (1 << 16) + _SWELLS * packed_size:
        return None
    packed = file.read(packed_size)
    if len(packed) < packed_size or zlib.crc32(packed) != crc:
        return None
    data = zlib.decompressobj().decompress(packed, size + 1)
    whole = kind == _SETTINGS or not len(data) % TABLES[_TABLE_OF[kind]].dtype.itemsize
    return (kind, data) if len(data) == size and whole else None


def _described(source: Path, data: bytes) -> tuple[dict[str, Any], list[SettingRow]]:
    if data.count(b"[") + data.count(b"{") > 600_000 or data.count(b",") > 3_000_000:
        raise ValueError(f"{source} has more settings than a record keeps")
    try:
        said = json.loads(data)
        epoch_ns = said["meta"]["epoch_ns"]
        rows = [
            {"time": (row[0] - epoch_ns) / _NS, "name": row[1], "value": row[2], "kind": row[3]}
            for row in said["settings"]
        ]
    except (KeyError, TypeError, ValueError, IndexError, RecursionError, ArithmeticError):
        raise ValueError(f"{source} is no unfinished record that this avlab can read") from None
    return checked_description(source, {"meta": said["meta"], "settings": rows})
