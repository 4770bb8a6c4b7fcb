"""What the rows of a trace are: each table's columns, packed into bytes on one side and a DataFrame on the other.

Pure: it sees integers, arrays and DataFrames. pandas is imported when a DataFrame is made, not before.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Rows: TypeAlias = NDArray[np.void]
"""A structured array: one record a row, the smallest integer of its width where nothing is known."""

STREAMS = ("video", "audio")
FRAME_FATES = ("shown", "late", "incomplete", "lost", "skipped", "in_flight", "damaged")
PACKET_FATES = ("used", "duplicate", "late", "lost", "socket_dropped", "in_flight", "recovered")
"""`recovered` was lost, and a repair brought its content back; its `received` is when."""

WITHOUT_NUMBERS = frozenset(("classic", "http"))
"""The wires whose packets have no numbers to know them by, as a trace's `meta` names them."""

CONNECTION_LOST, CONNECTION_BACK = "connection lost", "connection back"
"""The events between which a client had no way to its server: nothing was sent to it that could be lost."""

NS = 1_000_000_000
MOST_ROWS = 5_000_000
"""Rows that one DataFrame is made of, at most."""

UNKNOWN = -(2**63)
UNKNOWN32 = -(2**31)
UNKNOWN8 = -128

# How each kind of column is packed, and which numpy type says the same.
_PACKED = {"time": "q", "span": "q", "count": "q", "size": "i", "flag": "b", "ratio": "d"}
_NUMPY = {"q": "<i8", "i": "<i4", "b": "i1", "d": "<f8"}


def whole(rows: Rows) -> NDArray[np.void]:
    """The same rows in the same memory, without columns: to be chosen, put and joined as they are.

    numpy copies rows that have columns one column after the other, which takes twenty times as long.
    """
    return rows.view(np.dtype((np.void, rows.itemsize)))


def chosen(rows: Rows, at: NDArray[Any]) -> Rows:
    """The rows at some places, or where a mask is true."""
    found: Rows = whole(rows)[at].view(rows.dtype)
    return found


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of one table, one or more parts of them, in one array."""
    if len(parts) == 1:
        return parts[0]
    together: Rows = np.concatenate([whole(part) for part in parts]).view(parts[0].dtype)
    return together


def repeated(rows: Rows, counts: NDArray[Any]) -> Rows:
    """Each row so many times."""
    more: Rows = np.repeat(whole(rows), counts).view(rows.dtype)
    return more


class Table:
    """What a table's rows are: a column's name and kind, in packing order.

    Kinds: `time` (nanoseconds on the run's clock; seconds since its epoch in a DataFrame), `span` (nanoseconds;
    seconds), `count` and `size` (integers of 64 and 32 bits), `flag`, `ratio` (float), or a tuple of words.
    """

    def __init__(self, name: str, **columns: str | tuple[str, ...]) -> None:
        codes = {column: _PACKED[kind] if isinstance(kind, str) else "b" for column, kind in columns.items()}
        self.name = name
        self.columns = columns
        self.dtype = np.dtype([(column, _NUMPY[code]) for column, code in codes.items()])
        self.packer = struct.Struct("<" + "".join(codes.values()))
        self.times = tuple(column for column, kind in columns.items() if kind == "time")

    def empty(self) -> Rows:
        """No rows of this table."""
        return np.zeros(0, self.dtype)

    def span(self, rows: Rows) -> tuple[int, int]:
        """The earliest and the latest time in `rows`, in nanoseconds; `UNKNOWN` twice when there is none."""
        newest = self.newest(rows)
        if newest == UNKNOWN:
            return UNKNOWN, UNKNOWN
        # One less than the smallest integer is the largest: what is unknown is then later than everything.
        return min(int((rows[column] - 1).min()) + 1 for column in self.times), newest

    def newest(self, rows: Rows) -> int:
        """The latest time in `rows`, in nanoseconds; `UNKNOWN` when there is none."""
        return max((int(rows[column].max()) for column in self.times), default=UNKNOWN) if len(rows) else UNKNOWN

    def to_frame(self, rows: Rows, epoch_ns: int, columns: Sequence[str] = ()) -> pd.DataFrame:
        """The rows as a DataFrame in a student's units: float seconds, words, NaN and NA. All columns, or some."""
        import pandas as pd

        made: dict[str, Any] = {}
        for column in columns or self.columns:
            kind = self.columns[column]
            values = rows[column]
            if isinstance(kind, tuple):
                codes = np.where(values < 0, -1, values).astype(np.int8)
                made[column] = pd.Categorical.from_codes(codes, categories=pd.Index(kind, dtype=object))
            elif kind == "ratio":
                made[column] = values.astype(np.float64)
            else:
                missing = values == np.iinfo(values.dtype).min
                filled = np.where(missing, 0, values)
                if kind in ("time", "span"):
                    seconds = (filled - epoch_ns if kind == "time" else filled) / NS
                    made[column] = np.where(missing, np.nan, seconds)
                elif kind == "flag":
                    made[column] = pd.arrays.BooleanArray(filled.astype(bool), missing)
                else:
                    made[column] = pd.arrays.IntegerArray(filled.astype(np.int64), missing)
        return pd.DataFrame(made)

    def to_rows(self, frame: pd.DataFrame, epoch_ns: int) -> Rows:
        """The inverse of `to_frame`, exact to the nanosecond for runs of up to 26 days; KeyError without a column."""
        import pandas as pd

        rows = np.zeros(len(frame), self.dtype)
        for column, kind in self.columns.items():
            series, into = frame[column], rows.dtype[column]
            if isinstance(kind, tuple):
                codes = np.asarray(pd.Categorical(series, categories=pd.Index(kind, dtype=object)).codes)
                rows[column] = np.where(codes < 0, UNKNOWN8, codes)
            elif kind == "ratio":
                rows[column] = series
            else:
                known = series.fillna(0).to_numpy(np.float64 if kind in ("time", "span") else np.int64)
                if kind in ("time", "span"):
                    known = np.rint(known * NS).astype(np.int64) + (epoch_ns if kind == "time" else 0)
                rows[column] = np.where(series.isna(), np.iinfo(into).min, known)
        return rows


FRAMES = Table(
    "frames",
    stream=STREAMS,
    index="count",
    pts="span",
    timestamp="count",
    due="time",
    encoded="time",
    sent="time",
    first_packet="time",
    complete="time",
    shown="time",
    bytes="size",
    packets="size",
    packets_lost="size",
    fate=FRAME_FATES,
)
PACKETS = Table(
    "packets",
    stream=STREAMS,
    ssrc="count",
    seq="count",
    timestamp="count",
    marker="flag",
    bytes="size",
    sent="time",
    received="time",
    fate=PACKET_FATES,
)
SYNC = Table("sync", time="time", video_pts="span", audio_pts="span", buffer="span", skew_ppm="ratio")
REPORTS = Table(
    "reports",
    time="time",
    stream=STREAMS,
    ssrc="count",
    loss="ratio",
    lost="count",
    jitter="span",
    round_trip="span",
    kbps="ratio",
)
CLOCKS = Table(
    "clocks",
    time="time",
    stream=STREAMS,
    ssrc="count",
    peer="count",
    told_ns="count",
    echo="time",
    held="span",
)
"""What the other side's RTCP says of its clock: see `Trace.clocks`."""

TABLES = {table.name: table for table in (FRAMES, PACKETS, SYNC, REPORTS, CLOCKS)}
