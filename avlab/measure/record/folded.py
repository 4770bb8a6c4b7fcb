"""Rows of a record that are one thing until they are read: a frame's packets, what becomes of some sound. Pure.

A record is written at every moment of a stream, and read now and then: what rows share is taken down once, and arrays
of rows are made of thousands of them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from avlab.measure.record.batches import Fold, Stored, Unfold
from avlab.measure.record.tables import (
    FRAME_FATES,
    FRAMES,
    NS,
    PACKET_FATES,
    PACKETS,
    STREAMS,
    UNKNOWN,
    UNKNOWN8,
    UNKNOWN32,
    Rows,
    repeated,
)

STREAM_CODE: dict[str | None, int] = {word: code for code, word in enumerate(STREAMS)}
FRAME_CODE: dict[str | None, int] = {None: UNKNOWN8} | {word: code for code, word in enumerate(FRAME_FATES)}
PACKET_CODE: dict[str | None, int] = {None: UNKNOWN8} | {word: code for code, word in enumerate(PACKET_FATES)}
FLAG: dict[bool | None, int] = {None: UNKNOWN8, False: 0, True: 1}


class PacketRun(NamedTuple):
    """Packets that are one row until they are read, as `Recorder.packet_run` takes them, words as codes."""

    count: int  # type: ignore[assignment]  # tuple has a method of this name, which nobody misses
    stream: int
    ssrc: int
    seq: int
    timestamp: int
    ticks: int
    first_marker: bool
    last_marker: bool
    size: int
    last: int
    sent: int
    received: int
    fate: int


_WIDTH = len(PacketRun._fields)
_FIELD = {name: at for at, name in enumerate(PacketRun._fields)}

_Runs: TypeAlias = NDArray[np.int64]
"""Runs of packets, a row each, whose columns are the fields of `PacketRun`."""


def _packets(runs: Sequence[PacketRun]) -> Rows:
    """The rows of runs, in their order."""
    return _packets_of(_integers(runs, _WIDTH))


def _packets_of(table: _Runs) -> Rows:
    """As `_packets`, of runs that are an array."""
    counts = table[:, 0]
    ends = np.cumsum(counts)
    starts = ends - counts
    heads: Rows = np.empty(len(table), PACKETS.dtype)
    for name in ("stream", "ssrc", "seq", "timestamp", "sent", "received", "fate"):
        heads[name] = table[:, _FIELD[name]]
    heads["marker"], heads["bytes"] = 0, table[:, _FIELD["size"]]
    rows = repeated(heads, counts)
    places = np.arange(len(rows)) - np.repeat(starts, counts)
    rows["seq"] += places
    rows["timestamp"] += np.repeat(table[:, _FIELD["ticks"]], counts) * places
    rows["timestamp"] &= 0xFFFFFFFF
    rows["marker"][starts] = table[:, _FIELD["first_marker"]]
    rows["marker"][ends - 1] |= table[:, _FIELD["last_marker"]].astype(rows["marker"].dtype)
    rows["bytes"][ends - 1] = table[:, _FIELD["last"]]
    return rows


class PacketRuns:
    """`batches.FoldedRows` of the packets of some runs, in their order: of a frame of forty, a twentieth of the room.

    Never changed once it is made: any thread may read it.
    """

    def __init__(self, runs: Sequence[PacketRun]) -> None:
        self._runs = _integers(runs, _WIDTH)
        self._ends = np.cumsum(self._runs[:, 0])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, stop: int) -> Rows:
        """The packets from number `start` up to `stop`."""
        first, after = np.searchsorted(self._ends, (start, stop - 1), side="right").tolist()
        runs = self._runs[first : after + 1]
        if start >= stop or not len(runs):
            return PACKETS.empty()
        before = int(self._ends[first] - runs[0, 0])
        return _packets_of(runs)[start - before : stop - before]

    def followed_by(self, other: Stored) -> Stored | None:
        """None: they stay as they are."""
        return None

    @property
    def nbytes(self) -> int:
        """Bytes that they take as they are."""
        return self._runs.nbytes + self._ends.nbytes

    @property
    def moments(self) -> tuple[int, int]:
        """The earliest and the latest time in them, as `Table.span` has it."""
        times = self._runs[:, [_FIELD["sent"], _FIELD["received"]]]
        known = times[times != UNKNOWN]
        return (int(known.min()), int(known.max())) if len(known) else (UNKNOWN, UNKNOWN)


class SoundSent(NamedTuple):
    """What a server knows of the packets of a chunk of sound; see `Recorder.sound_sent`."""

    count: int  # type: ignore[assignment]  # as above
    index: int  # type: ignore[assignment]
    due: int
    sent: int
    pts: int
    timestamp: int
    parts: Sequence[tuple[int, int | None, int]]


def _sounds_sent(chunks: Sequence[SoundSent]) -> Rows:
    """The rows of frames of some chunks, in their order."""
    counts, index, due, sent, pts, stamp = _integers(map(itemgetter(slice(0, 6)), chunks), 6).T
    heads = _sound_heads(len(chunks))
    heads["index"], heads["due"], heads["sent"], heads["pts"], heads["timestamp"] = index, due, sent, pts, stamp
    heads["first_packet"] = heads["complete"] = heads["shown"] = UNKNOWN
    heads["packets_lost"], heads["fate"] = UNKNOWN32, UNKNOWN8
    rows = repeated(heads, counts)
    parts = list(map(itemgetter(6), chunks))
    # Chunks of a stream are alike, and those of a simulated one the same: each is looked at once.
    different = {id(part): part for part in parts}
    later, stamps, sizes = zip(*chain.from_iterable(different.values()), strict=True)
    begins = dict(zip(different, accumulate(map(len, different.values()), initial=0), strict=False))
    begin = np.fromiter(map(begins.__getitem__, map(id, parts)), np.int64, len(parts))
    at = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts - begin, counts)  # where a row's are in these
    rows["pts"] += np.array(later)[at]
    rows["bytes"] = np.array(sizes)[at]
    rows["timestamp"] += np.array([number or 0 for number in stamps])[at]
    rows["timestamp"] &= 0xFFFFFFFF
    if None in stamps:
        rows["timestamp"][np.array([number is None for number in stamps])[at]] = UNKNOWN
    return rows


def _sound_heads(count: int) -> Rows:
    """Rows of frames for so many packets of sound, or chunks, of which what a packet has in common is there."""
    heads: Rows = np.empty(count, FRAMES.dtype)
    heads["stream"], heads["packets"], heads["encoded"] = STREAM_CODE["audio"], 1, UNKNOWN
    return heads


class SoundPlayed(NamedTuple):
    """What a client knows of packets of sound; see `Recorder.sound_played`."""

    count: int  # type: ignore[assignment]  # as above
    wide: int
    timed: bool
    runs: Sequence[tuple[int, int, int, int, int | None, str]]


def _sounds_played(chunks: Sequence[SoundPlayed]) -> Rows:
    """The rows of frames of some sound, in their order."""
    of_all = chain.from_iterable([chunk.runs for chunk in chunks])
    ticks, pts, sizes, arrived, heard, fates = zip(*of_all, strict=True)
    rows: Rows = np.empty(len(pts), FRAMES.dtype)
    rows["stream"], rows["packets"], rows["packets_lost"] = STREAM_CODE["audio"], 1, 0
    for name in ("index", "due", "encoded", "sent"):
        rows[name] = UNKNOWN
    wide, timed = _repeated(chunks)
    rows["timestamp"] = np.where(timed, np.array(ticks) & 0xFFFFFFFF, UNKNOWN)
    rows["bytes"] = np.array(sizes) * wide
    rows["pts"], rows["shown"] = pts, _known(heard)
    rows["first_packet"] = rows["complete"] = arrived
    rows["fate"] = list(map(FRAME_CODE.__getitem__, fates))
    return rows


class SoundHeard(NamedTuple):
    """What a client knows of chunks of sound that were heard; see `Recorder.sound_heard`."""

    count: int  # type: ignore[assignment]  # as above
    wide: int
    timed: bool
    chunks: Sequence[HeardChunk]


HeardChunk: TypeAlias = tuple[int, int, int, int, int, int, int, Sequence[int], Sequence[tuple[int, int, int]]]
"""Packets of sound that came together, as `Recorder.sound_heard` takes them."""

_PLAIN = slice(0, 7)
"""Those of a chunk's fields that are one number each."""


def _sounds_heard(items: Sequence[SoundHeard]) -> Rows:
    """The rows of frames of some chunks of sound, in their order."""
    chunks = list(chain.from_iterable([item.chunks for item in items]))
    counts, ticks, step, size, arrived, position, rate = _integers(map(itemgetter(_PLAIN), chunks), 7).T
    ends = np.cumsum(counts)
    of = np.repeat(np.arange(len(chunks)), counts)
    first = (np.arange(len(of)) - (ends - counts)[of]) * step[of]  # each packet's first sample, within its chunk
    blocks = list(map(itemgetter(8), chunks))
    begin, end, heard = _integers(chain.from_iterable(blocks), 3).T
    owner = np.repeat(np.arange(len(chunks)), list(map(len, blocks)))
    # It was heard in the first block of its chunk that goes on beyond where it begins.
    at = np.searchsorted((owner << 32) + end - position[owner], (of << 32) + first, side="right")
    within = np.maximum(position[of] + first - begin[at], 0)
    heads = _sound_heads(len(chunks))
    heads["index"] = heads["due"] = heads["sent"] = UNKNOWN
    heads["first_packet"] = heads["complete"] = arrived
    heads["packets_lost"], heads["fate"] = 0, FRAME_CODE["shown"]
    rows = repeated(heads, counts)
    wide, timed = _repeated(items)
    rows["timestamp"] = np.where(timed, (ticks[of] + first) & 0xFFFFFFFF, UNKNOWN)
    rows["bytes"] = np.minimum(step[of], size[of] - first) * wide
    rows["pts"] = np.fromiter(chain.from_iterable(map(itemgetter(7), chunks)), np.int64, len(of))
    rows["shown"] = heard[at] + within * NS // rate[of]
    return rows


def _integers(tuples: Iterable[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    """Tuples of so many integers, a row each."""
    return np.fromiter(chain.from_iterable(tuples), np.int64).reshape(-1, width)


def _repeated(items: Sequence[SoundPlayed] | Sequence[SoundHeard]) -> tuple[NDArray[Any], NDArray[Any]]:
    """How wide a sample frame is, and whether there are timestamps, for each row of some sound."""
    counts, wide, timed = _integers(map(itemgetter(slice(0, 3)), items), 3).T
    return np.repeat(wide, counts), np.repeat(timed, counts) > 0


def _known(values: Sequence[int | None]) -> Sequence[int | None]:
    """A column of integers, `UNKNOWN` where there is None."""
    return [UNKNOWN if value is None else value for value in values] if None in values else values


UNFOLD: Unfold = {
    PacketRun: _packets,
    SoundSent: _sounds_sent,
    SoundPlayed: _sounds_played,
    SoundHeard: _sounds_heard,
}
"""How rows are made of each kind."""

FOLD: Fold = {PacketRun: PacketRuns}
"""What stays folded."""
