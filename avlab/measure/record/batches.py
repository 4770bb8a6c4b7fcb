"""A table's rows as they pile up: batches in memory, and from a bound of bytes on in a file that grows.

Pure: no file and no lock. Whatever reaches a disk goes through a callable, and comes back as `Stored`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from avlab.measure.record.tables import UNKNOWN, Rows, Table, joined, whole

BATCH = 4096
"""Rows that are put aside together."""

CHUNK = 1 << 19
"""Rows of a table that a fold sees at once, at most: some hundred megabytes with all that is made of them."""

PIECE = 1 << 18
"""Rows on a disk that are one batch of a trace: so an hour of thirty clients is a few hundred of them."""

SLICE = 1 << 14
"""Rows that are read at once by whoever looks for the newest."""

MEMORY_BYTES = 128 << 20
"""What the rows of all records of a process take in memory, before the oldest go to a disk."""

KEPT_BYTES = 2 << 20
"""What a table keeps in memory whatever the others take: the last seconds, which live plots ask for all the time."""


@runtime_checkable
class Stored(Protocol):
    """Rows that are elsewhere than in memory. Any thread may read them, while more are added behind them."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, start: int, stop: int) -> Rows:
        """Those from `start` up to `stop`. OSError when they cannot be read."""
        ...

    def followed_by(self, other: Stored) -> Stored | None:
        """Both in one, where `other` lies right behind; else None."""
        ...


Spill: TypeAlias = Callable[[Rows], "Rows | Stored"]
"""Puts rows away and gives what stands for them. OSError: they could not be put away."""


class RowBatch(NamedTuple):
    """Some rows, and between which moments they lie; `UNKNOWN` twice for rows without any time."""

    rows: Rows | Stored
    oldest: int
    newest: int

    @classmethod
    def of(cls, table: Table, rows: Rows) -> RowBatch:
        """A batch of rows in memory."""
        return cls(rows, *table.span(rows))

    @classmethod
    def joined(cls, table: Table, batches: Sequence[RowBatch]) -> RowBatch:
        """The rows of several, in memory."""
        rows = joined([batch.read() for batch in batches]) if batches else table.empty()
        moments = [moment for batch in batches for moment in batch[1:] if moment != UNKNOWN]
        return cls(rows, min(moments, default=UNKNOWN), max(moments, default=UNKNOWN))

    def read(self) -> Rows:
        """The rows, wherever they are."""
        return self.rows if isinstance(self.rows, np.ndarray) else self.rows.read(0, len(self.rows))

    def slices(self) -> Iterator[Rows]:
        """The rows a slice at a time, the last slice first."""
        if isinstance(self.rows, np.ndarray):
            yield self.rows
            return
        for stop in range(len(self.rows), 0, -SLICE):
            yield self.rows.read(max(0, stop - SLICE), stop)

    def followed_by(self, other: RowBatch) -> RowBatch | None:
        """Both in one, where they lie one behind the other on a disk and stay small enough; else None."""
        if isinstance(self.rows, np.ndarray) or isinstance(other.rows, np.ndarray):
            return None
        if len(self.rows) + len(other.rows) > PIECE:
            return None
        both = self.rows.followed_by(other.rows)
        if both is None:
            return None
        known = [moment for moment in (self.oldest, other.oldest) if moment != UNKNOWN]
        return RowBatch(both, min(known, default=UNKNOWN), max(self.newest, other.newest))


def chunked(batches: Iterable[RowBatch], most: int = CHUNK) -> Iterator[Rows]:
    """The rows of batches in order, some of `most` at a time; a batch that is larger comes in parts."""
    waiting: list[Rows] = []
    count = 0
    for batch in batches:
        for start in range(0, len(batch.rows), most):
            stop = min(start + most, len(batch.rows))
            part: Rows = batch.rows[start:stop] if isinstance(batch.rows, np.ndarray) else batch.rows.read(start, stop)
            if count and count + len(part) > most:
                yield joined(waiting)
                waiting, count = [], 0
            waiting.append(part)
            count += len(part)
    if waiting:
        yield joined(waiting)


class Budget:
    """How many bytes of rows the logs of a process keep in memory together.

    There is no lock: each log writes a place of its own, and a dict's values are listed in a single operation.
    """

    def __init__(self, limit: int = MEMORY_BYTES) -> None:
        self.limit = limit
        self._held: dict[int, int] = {}

    def of(self, log: object) -> Callable[[int], None]:
        """Where a log writes how much it holds; forgotten with it."""
        place = id(log)
        self._held[place] = 0
        weakref.finalize(log, self._held.pop, place, None).atexit = False
        return lambda held: self._held.__setitem__(place, held)

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return sum(list(self._held.values()))

    @property
    def over(self) -> bool:
        """Whether it is more than it should be."""
        return self.held > self.limit


@runtime_checkable
class Folded(Protocol):
    """Rows that are one thing until somebody reads them: the packets of a frame, say."""

    @property
    def count(self) -> int:
        """How many rows there are."""
        ...


Unfold: TypeAlias = Mapping[type, Callable[[list[Any]], Rows]]
"""For each kind of `Folded`, what makes rows of some, in their order."""


@runtime_checkable
class FoldedRows(Stored, Protocol):
    """Rows that are made of what they have in common whenever they are read, as they take far less room so."""

    @property
    def nbytes(self) -> int:
        """Bytes that they take as they are."""
        ...

    @property
    def moments(self) -> tuple[int, int]:
        """The earliest and the latest time in them, as `Table.span` has it."""
        ...


Fold: TypeAlias = Mapping[type, Callable[[list[Any]], FoldedRows]]
"""For kinds of `Folded` that stay so, what keeps some of them."""

FOLDED_ROWS = 8
"""What is folded counts as so many rows where a live list is measured, which is turned over after 512 of such."""


def _room(batch: RowBatch) -> int:
    """Bytes that a batch takes in memory."""
    rows = batch.rows
    return rows.nbytes if isinstance(rows, np.ndarray | FoldedRows) else 0


class Log:
    """One table as it grows: full batches, and a live list to which packed rows are appended, or `Folded` ones.

    There is no lock. One thread appends; both parts hang on one attribute which is replaced as a whole, and both
    appending to a list and copying it are single operations: a snapshot from any thread has each row, whole, once.
    What cannot be put away is left out, and `lost` is told how many rows and why.
    """

    def __init__(
        self,
        table: Table,
        spill: Spill | None,
        *,
        budget: Budget,
        spill_after_ns: int | None,
        lost: Callable[[int, int, OSError], None],
        unfold: Unfold = MappingProxyType({}),
        fold: Fold = MappingProxyType({}),
    ) -> None:
        self._table, self._unfold, self._fold = table, unfold, fold
        self._row_bytes = table.dtype.itemsize
        self._folded_bytes = FOLDED_ROWS * self._row_bytes
        self._full_at = BATCH * self._row_bytes
        self._spill, self._spill_after_ns, self._lost = spill, spill_after_ns, lost
        self._stored: tuple[RowBatch, ...] = ()
        self._held = 0
        self._budget = budget
        self._tell = budget.of(self)
        self._state: tuple[tuple[RowBatch, ...], list[Any]] = ((), [])
        self._bytes = 0  # of packed rows in the live list

    def append(self, packed: bytes) -> None:
        """Take packed rows; from the one thread that writes."""
        self._state[1].append(packed)
        self._bytes += len(packed)
        if self._bytes >= self._full_at:
            self._turn_over()

    def append_folded(self, rows: Folded) -> None:
        """Take rows that are unfolded when they are read, or when they are put aside and do not stay folded."""
        self._state[1].append(rows)
        self._bytes += self._folded_bytes
        if self._bytes >= self._full_at:
            self._turn_over()

    def extend_folded(self, rows: Sequence[Folded]) -> None:
        """As `append_folded`, of several."""
        self._state[1].extend(rows)
        self._bytes += len(rows) * self._folded_bytes
        if self._bytes >= self._full_at:
            self._turn_over()

    def _turn_over(self) -> None:
        """The live list is full."""
        batches, live = self._state
        batch = self._batch(live)
        self._held += _room(batch)
        self._tell(self._held)
        self._bytes = 0
        self._state = (self._put_away((*batches, batch)), [])

    def _batch(self, live: list[Any]) -> RowBatch:
        """What a live list has, folded where that takes less room."""
        kind = type(live[0])
        if kind in self._fold and len(set(map(type, live))) == 1:
            folded = self._fold[kind](live)
            if folded.nbytes < len(folded) * self._row_bytes:
                return RowBatch(folded, *folded.moments)
        return RowBatch.of(self._table, self._rows(live))

    def _rows(self, live: list[Any]) -> Rows:
        """The rows of a live list: those of one kind are unfolded together, and each is put where it belongs."""
        types = list(map(type, live))
        kinds = dict.fromkeys(types)
        if len(kinds) < 2:
            return self._unfolded(types[0], live) if live else self._table.empty()
        numbers = {kind: number for number, kind in enumerate(kinds)}
        kind_of = np.fromiter(map(numbers.__getitem__, types), np.int64, len(types))
        counts = np.empty(len(live), np.int64)
        parts: list[Rows] = []
        for kind, number in numbers.items():
            of_kind = kind_of == number
            items = list(compress(live, of_kind.tolist()))
            counts[of_kind] = self._counts(kind, items)
            parts.append(self._unfolded(kind, items))
        of = np.repeat(kind_of, counts)
        rows: Rows = np.empty(len(of), self._table.dtype)
        for number, part in enumerate(parts):
            whole(rows)[of == number] = whole(part)
        return rows

    def _counts(self, kind: type, items: list[Any]) -> Any:
        """How many rows each of some items has."""
        if kind is bytes:
            return np.fromiter(map(len, items), np.int64, len(items)) // self._row_bytes
        return np.fromiter(map(attrgetter("count"), items), np.int64, len(items))

    def _unfolded(self, kind: type, items: list[Any]) -> Rows:
        if kind is bytes:
            return np.frombuffer(b"".join(items), self._table.dtype)
        return self._unfold[kind](items)

    def _put_away(self, batches: tuple[RowBatch, ...]) -> tuple[RowBatch, ...]:
        """Hand on the oldest batches in memory while there is too much of them: one or two, so the cost is even."""
        if self._spill is None:
            return batches
        for _ in range(2):
            at = len(self._stored)
            if at >= len(batches) - 1 or not self._has_to_go(batches[at], batches[-1]):
                break
            oldest = batches[at]
            self._held -= _room(oldest)
            self._tell(self._held)
            try:
                moved = oldest._replace(rows=self._spill(oldest.read()))
            except OSError as error:
                self._lost(oldest.newest, len(oldest.rows), error)
            else:
                joined = self._stored[-1].followed_by(moved) if self._stored else None
                self._stored = (*self._stored, moved) if joined is None else (*self._stored[:-1], joined)
            batches = (*self._stored, *batches[at + 1 :])
        return batches

    def _has_to_go(self, oldest: RowBatch, newest: RowBatch) -> bool:
        if self._spill_after_ns is not None and oldest.newest < newest.newest - self._spill_after_ns:
            return True
        return self._held > KEPT_BYTES and self._budget.over

    def snapshot(self) -> tuple[RowBatch, ...]:
        """All rows so far; from any thread."""
        batches, live = self._state
        live = list(live)
        return (*batches, self._batch(live)) if live else batches
