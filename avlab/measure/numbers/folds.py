"""What folds over long records share: sums by bins of time, values of which some stand for all, columns of frames.

Pure. Nothing here is larger than what the rows hold: a time that is far off makes a bin, and not those before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from avlab.measure.record.tables import MOST_ROWS, NS, STREAMS, UNKNOWN, Rows
from avlab.measure.record.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Series: TypeAlias = Floats
"""Shape (columns, points): the times in float seconds on the run's clock, then what was measured at each."""

MOST_BINS = 1_000_000
"""So many bins are listed without a gap: eleven days of seconds. In a longer span, those that hold something are."""


class Bins:
    """Sums of `columns` values in bins of `width` seconds, by the bin's number; 0 is the one that starts at 0 s.

    ValueError unless the width is more than 0.
    """

    def __init__(self, columns: int, width: float = 1.0) -> None:
        if not width > 0:
            raise ValueError(f"bin must be more than 0 seconds, not {width}")
        self._width = width
        self._columns = columns
        self._parts: list[tuple[Ints, Floats]] = []

    def add(self, seconds: Floats, *values: NDArray[Any]) -> None:
        """Each value into the bin of its moment. Moments that are no numbers are left out."""
        known = np.isfinite(seconds)
        if not known.all():
            seconds, values = seconds[known], tuple(each[known] for each in values)
        numbers = np.floor(np.clip(seconds / self._width, -9e18, 9e18)).astype(np.int64)
        self._parts.append(_summed(numbers, np.stack([np.asarray(each, np.float64) for each in values])))

    def sums(self) -> tuple[Ints, Floats]:
        """The bins' numbers in order, and their sums, shape (columns, bins); without a gap where that is possible."""
        if not self._parts:
            return np.empty(0, np.int64), np.empty((self._columns, 0))
        numbers, sums = _summed(*(np.concatenate(parts, axis=-1) for parts in zip(*self._parts, strict=True)))
        self._parts = [(numbers, sums)]
        return without_gaps(numbers, sums, 0.0)


def _summed(numbers: Ints, values: Floats) -> tuple[Ints, Floats]:
    found, at = np.unique(numbers, return_inverse=True)
    return found, np.stack([np.bincount(at, weights=column, minlength=len(found)) for column in values])


def without_gaps(numbers: Ints, values: Floats, empty: float) -> tuple[Ints, Floats]:
    """The bins from the first to the last, those between with `empty`; as they are where that would be too many."""
    if not len(numbers):
        return numbers, values
    span = int(numbers[-1]) - int(numbers[0]) + 1
    if span == len(numbers) or span > max(MOST_BINS, len(numbers)):
        return numbers, values
    whole = np.full((len(values), span), empty)
    whole[:, numbers - numbers[0]] = values
    return np.arange(numbers[0], numbers[0] + span), whole


def seconds(trace: Trace, times_ns: NDArray[Any]) -> Floats:
    """Times as a student reads them; NaN for what is unknown."""
    return np.where(times_ns == UNKNOWN, np.nan, (times_ns - trace.epoch_ns) / NS)


def span_seconds(spans_ns: NDArray[Any]) -> Floats:
    """Spans as a student reads them; NaN for what is unknown."""
    return np.where(spans_ns == UNKNOWN, np.nan, spans_ns / NS)


def first_known(rows: Rows, *columns: str) -> Ints:
    """For each row the first of these times that is known; `UNKNOWN` where none is."""
    time: Any = rows[columns[-1]]
    for column in reversed(columns[:-1]):
        time = np.where(rows[column] == UNKNOWN, time, rows[column])
    return np.asarray(time, np.int64)


def every(count: int) -> int:
    """Of so many values, one in how many stands for all: 1 up to five million."""
    return max(1, -(-count // MOST_ROWS))


def some_packets(trace: Trace) -> Iterator[Rows]:
    """The packets, some at a time; of more than five million, one in two, in three and so on, evenly."""
    step, before = every(trace.count("packets")), 0
    for rows in trace.chunks("packets"):
        yield rows[-before % step :: step]
        before += len(rows)


def of_frames(trace: Trace, stream: str, *columns: str) -> tuple[NDArray[Any], ...]:
    """Some columns of one stream's frames as they are packed, of a run of any length."""
    code = STREAMS.index(stream)
    parts: list[list[NDArray[Any]]] = [[] for _ in columns]
    for rows in trace.chunks("frames"):
        mine = rows["stream"] == code
        for part, column in zip(parts, columns, strict=True):
            part.append(rows[column][mine])
    return tuple(np.concatenate(part) for part in parts)


def as_table(series: Series, *columns: str) -> pd.DataFrame:
    """A series as a student sees it, each of its columns by name."""
    import pandas as pd

    return pd.DataFrame(dict(zip(columns, series, strict=True)))


def quantile(values: Floats, q: float) -> float | None:
    """As numpy's; None of nothing."""
    return float(np.quantile(values, q)) if len(values) else None
