"""What a trace's file says, checked before it is believed, and its rows as they are put together again."""

from __future__ import annotations

import contextlib
import errno
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from avlab.measure.record.batches import RowBatch
from avlab.measure.record.scratch import Scratch
from avlab.measure.record.tables import NS, REPORTS, STREAMS, TABLES, UNKNOWN, UNKNOWN8, Rows, Table
from avlab.measure.record.trace import MOST_LETTERS, SIDES, SettingRow, Trace
from avlab.wire.text import printable

IN_MEMORY_ROWS = 1 << 20
"""Rows of a table beyond which they are read to the disk, and not into memory."""

MANY_ROWS = 1 << 18
_FAR = 1 << 62
_DEEP = 6


@contextlib.contextmanager
def only_sentence(source: Path) -> Iterator[None]:
    """Whatever goes wrong with what is in a file is a ValueError with one sentence, or an OSError of the disk's."""
    try:
        with _as_value_errors(source):
            yield
    except ValueError as error:  # what it cites of the file may hold anything
        raise ValueError(printable(error)) from None


@contextlib.contextmanager
def _as_value_errors(source: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, EOFError, zlib.error, struct.error) as error:
        raise ValueError(f"{source} is no saved trace, or it was cut short ({_reason(error)})") from None
    except (NotImplementedError, RuntimeError) as error:
        reason = _reason(error)
        raise ValueError(f"{source} is no saved trace: its ZIP is of a kind that traces never are ({reason})") from None
    except MemoryError:
        raise ValueError(f"{source} takes more memory to read than there is") from None
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError, UnicodeError) as error:
        raise ValueError(f"{source} is no trace that this avlab can read: {_reason(error)}") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        # Of a library that finds the bytes odd, or of a place in the file that cannot be; not of the disk.
        raise ValueError(f"{source} is no trace that this avlab can read: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return printable(f"{first} is missing" if isinstance(error, KeyError) else first, most=200)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e15


def _moment(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _FAR


def _list_of_moments(value: object) -> bool:
    return isinstance(value, list) and len(value) < 100_000 and all(map(_moment, value))


_KINDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "side": (lambda value: value in SIDES, "one of the sides"),
    "clock": (lambda value: isinstance(value, str), "a name"),
    "epoch_ns": (_moment, "a time in nanoseconds"),
    "end_ns": (_moment, "a time in nanoseconds"),
    "target_fps": (lambda value: _number(value) and value >= 0, "a number"),  # type: ignore[operator]
    "audio_rate": (lambda value: _number(value) and value >= 0, "a number"),  # type: ignore[operator]
    "ssrcs": (_list_of_moments, "a list of numbers"),
    "repair_ssrcs": (_list_of_moments, "a list of numbers"),
    "joined": (lambda value: isinstance(value, bool), "true or false"),
    "shared_clock": (lambda value: isinstance(value, bool), "true or false"),
    "wire": (lambda value: isinstance(value, str), "a name"),
    "clip": (lambda value: isinstance(value, str), "a name"),
    "server": (lambda value: isinstance(value, dict), "what its server's record says"),
    "unix_offset_ns": (_moment, "a time in nanoseconds"),
    "reports_as": (_moment, "a source's number"),
    "clock_offset": (lambda value: isinstance(value, dict), "how far two clocks are apart"),
}
"""What of a record's description is read by name: what it must be, unless it is null."""

_DEMANDED = ("side", "clock", "epoch_ns")


def checked_description(source: Path, described: Mapping[str, Any]) -> tuple[dict[str, Any], list[SettingRow]]:
    """The `meta` and the settings of a description. ValueError for what is not as a record's is."""
    try:
        meta = _cleaned(described["meta"], _DEEP)
        for name in _DEMANDED:
            meta[name]
        for name, (fits, kind) in _KINDS.items():
            value = meta.get(name)
            if (value is not None or name in _DEMANDED) and not fits(value):
                raise ValueError(f"{name} is not {kind}")
        epoch_ns = int(meta["epoch_ns"])
        return meta, [_setting(row, epoch_ns) for row in described["settings"]]
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{source} is no trace that this avlab can read: {_reason(error)}") from None


def _cleaned(value: Any, deep: int) -> Any:
    """Plain values, with texts that may be shown."""
    if isinstance(value, str):
        return printable(value, most=MOST_LETTERS)
    if isinstance(value, dict | list) and not deep:
        raise ValueError("what it says of the run is nested too deep")
    if isinstance(value, dict):
        return {printable(key, most=200): _cleaned(each, deep - 1) for key, each in value.items()}
    return [_cleaned(each, deep - 1) for each in value] if isinstance(value, list) else value


def _setting(row: Mapping[str, Any], epoch_ns: int) -> SettingRow:
    time, name, value, kind = (row[key] for key in ("time", "name", "value", "kind"))
    time = float(time)
    if not abs(time) <= 4e9:
        raise ValueError("a setting's time is no time")
    if kind not in ("setting", "event"):
        raise ValueError("a row of the settings is neither a setting nor an event")
    if isinstance(value, str):
        value = printable(value, most=MOST_LETTERS)
    elif not (value is None or (isinstance(value, int | float) and abs(value) < _FAR) or value != value):
        raise ValueError(f"the value of {name!r:.60} is no plain value")
    return SettingRow(round(time * NS) + epoch_ns, printable(str(name), most=200), value, kind)


def check_rows(table: Table, rows: Rows, epoch_ns: int) -> None:
    """ValueError unless packed rows could be a record's: words that there are, and times and numbers within bounds."""
    for column, kind in table.columns.items():
        values = rows[column]
        if isinstance(kind, tuple):
            odd = (values != UNKNOWN8) & ((values < 0) | (values >= len(kind)))
        elif kind == "flag":
            odd = (values != UNKNOWN8) & (values != 0) & (values != 1)
        elif kind in ("time", "span"):
            away = values - (epoch_ns if kind == "time" else 0)
            odd = (values != UNKNOWN) & ((away > 4 * NS * NS) | (away < -4 * NS * NS))
        elif kind == "count":
            odd = (values != UNKNOWN) & ((values > _FAR) | (values < -_FAR))
        else:
            continue
        if odd.any():
            raise ValueError(f"{column} has what cannot be in a record")


_REPORTED = re.compile(rf"reported ({'|'.join(STREAMS)}) (ssrc|loss|lost|jitter|round_trip|kbps)")


def reports_of_events(meta: Mapping[str, Any], settings: list[SettingRow]) -> tuple[Rows, list[SettingRow]]:
    """The receiver reports of a record of before they had a table, and its settings without them.

    Each was some events of one moment, as "reported video loss", in order. A joined record had the reports of all
    clients of its server: those of its own streams are its own.
    """
    told: list[dict[str, Any]] = []
    rest: list[SettingRow] = []
    open_reports: dict[str, dict[str, Any]] = {}  # of a stream, the report that is being read
    for row in settings:
        match = _REPORTED.fullmatch(row.name)
        if match is None or row.kind != "event" or not isinstance(row.value, int | float):
            rest.append(row)
            continue
        stream, word = match.groups()
        report = open_reports.get(stream)
        if report is None or report["time"] != row.time_ns or word in report:
            report = open_reports[stream] = {"time": row.time_ns, "stream": STREAMS.index(stream)}
            told.append(report)
        report[word] = row.value
    rows: Rows = np.zeros(len(told), REPORTS.dtype)
    for name, kind in REPORTS.columns.items():
        values: list[Any] = [report.get(name) for report in told]
        if kind == "ratio":
            rows[name] = [np.nan if value is None else value for value in values]
        elif kind == "span":  # in seconds then
            rows[name] = [round(value * NS) if _number(value) and abs(value) <= 4e9 else UNKNOWN for value in values]
        else:
            rows[name] = [value if _moment(value) else UNKNOWN for value in values]
    mine = [ssrc for ssrc in meta.get("ssrcs") or () if ssrc is not None]
    if meta.get("joined") and mine:
        rows = rows[np.isin(rows["ssrc"], mine) | (rows["ssrc"] == UNKNOWN)]
    return rows, rest


class Rebuilt:
    """The rows of a trace as they are read: in memory while they are few, else on the disk, in files without a name."""

    def __init__(self, epoch_ns: int) -> None:
        self.epoch_ns = epoch_ns
        self._scratch = Scratch()
        self._batches: dict[str, list[RowBatch]] = {name: [] for name in TABLES}
        self._waiting: dict[str, list[Rows]] = {name: [] for name in TABLES}
        self.counts = dict.fromkeys(TABLES, 0)

    def add(self, table: Table, rows: Rows) -> None:
        """Some more of a table's rows, in order. OSError when the disk has no room for them."""
        name = table.name
        self._waiting[name].append(rows)
        self.counts[name] += len(rows)
        if self.counts[name] > IN_MEMORY_ROWS and sum(map(len, self._waiting[name])) >= MANY_ROWS:
            batch = RowBatch.of(table, np.concatenate(self._waiting[name]))
            self._batches[name].append(batch._replace(rows=self._scratch(batch.read())))
            self._waiting[name] = []

    def trace(self, meta: Mapping[str, Any], settings: list[SettingRow]) -> Trace:
        """All of it."""
        tables: dict[str, list[Rows | RowBatch]] = {}
        for name, table in TABLES.items():
            rest = self._waiting[name]
            rows = np.concatenate(rest) if rest else table.empty()
            tables[name] = [*self._batches[name], rows]
        return Trace(**tables, settings=settings, meta=meta)
