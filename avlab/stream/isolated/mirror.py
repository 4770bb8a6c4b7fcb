"""The trace of a server in another process, as far as it was fetched: what is here is never fetched again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from avlab.measure.record.batches import RowBatch
from avlab.measure.record.scratch import Scratch
from avlab.measure.record.tables import TABLES, Rows
from avlab.measure.record.trace import SettingRow, Trace

MANY_PARTS = 64
MUCH_BYTES = 1 << 24


class Mirror:
    """The process's trace as far as it was fetched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scratch = Scratch()
        self._parts: dict[str, list[RowBatch]] = {name: [] for name in TABLES}
        self._have = dict.fromkeys((*TABLES, "settings"), 0)
        self._settings: list[SettingRow] = []
        self._meta: dict[str, Any] = {}

    def have(self) -> dict[str, int]:
        """How many rows of each table are here."""
        with self._lock:
            return dict(self._have)

    def trace(self) -> Trace | None:
        """What is here; None when nothing has been fetched."""
        with self._lock:
            if not self._meta:
                return None
            return Trace(**self._parts, settings=self._settings, meta=self._meta)

    def add(self, message: Mapping[str, Any], read: Callable[[int], bytes]) -> None:
        """Take the rows that a message announces; what is here already, as two have asked, is passed over."""
        with self._lock:
            self._meta = message["meta"]
            for name, number in message["rows"].items():
                rows: Rows = np.frombuffer(read(number * TABLES[name].dtype.itemsize), TABLES[name].dtype)
                rows = rows[self._have[name] - message["from"][name] :]
                self._have[name] += len(rows)
                self._parts[name] = self._with(name, rows)
            fresh = message["settings"][self._have["settings"] - message["from"]["settings"] :]
            self._settings += [SettingRow(*row) for row in fresh]
            self._have["settings"] += len(fresh)

    def _with(self, name: str, rows: Rows) -> list[RowBatch]:
        """The parts with these rows; what is much goes to the disk, behind what is there already."""
        there = [part for part in self._parts[name] if not isinstance(part.rows, np.ndarray)]
        fresh = [part.rows for part in self._parts[name] if isinstance(part.rows, np.ndarray)] + [rows]
        size = sum(part.nbytes for part in fresh)
        if len(fresh) <= MANY_PARTS and size <= MUCH_BYTES:
            return [*self._parts[name], RowBatch.of(TABLES[name], rows)]
        whole = RowBatch.of(TABLES[name], np.concatenate(fresh))
        if size > MUCH_BYTES:
            with contextlib.suppress(OSError):  # a disk without room: then it stays in memory
                whole = whole._replace(rows=self._scratch(whole.read()))
        joined = there[-1].followed_by(whole) if there else None
        return [*there, whole] if joined is None else [*there[:-1], joined]
