"""Rows of a record that are one thing until they are read: a frame's packets, what becomes of some sound. Pure.

A record is written at every moment of a stream, and read now and then: what rows share is taken down once, and arrays
of rows are made of thousands of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from avlab.measure.record.tables import (
    FRAME_FATES,
    FRAMES,
    PACKET_FATES,
    PACKETS,
    STREAMS,
    UNKNOWN,
    UNKNOWN8,
    UNKNOWN32,
    Rows,
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


def _packets(runs: Sequence[PacketRun]) -> Rows:
    """The rows of runs, in their order."""
    width = len(PacketRun._fields)
    table = np.fromiter(chain.from_iterable(runs), np.int64, width * len(runs)).reshape(-1, width)
    counts = table[:, 0]
    ends = np.cumsum(counts)
    starts = ends - counts
    each = dict(zip(PacketRun._fields, np.repeat(table, counts, axis=0).T, strict=True))
    places = np.arange(ends[-1]) - np.repeat(starts, counts)
    rows: Rows = np.empty(int(ends[-1]), PACKETS.dtype)
    for name in ("stream", "ssrc", "fate", "sent", "received"):
        rows[name] = each[name]
    rows["seq"] = each["seq"] + places
    rows["timestamp"] = (each["timestamp"] + each["ticks"] * places) & 0xFFFFFFFF
    rows["marker"], rows["bytes"] = 0, each["size"]
    first, last = (PacketRun._fields.index(name) for name in ("first_marker", "last_marker"))
    rows["marker"][starts] = table[:, first]
    rows["marker"][ends - 1] |= table[:, last].astype(rows["marker"].dtype)
    rows["bytes"][ends - 1] = table[:, PacketRun._fields.index("last")]
    return rows


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
    counts = [chunk.count for chunk in chunks]
    pts, stamps, sizes = zip(*chain.from_iterable([chunk.parts for chunk in chunks]), strict=True)
    rows: Rows = np.empty(len(pts), FRAMES.dtype)
    rows["stream"], rows["packets"] = STREAM_CODE["audio"], 1
    for name in ("encoded", "first_packet", "complete", "shown"):
        rows[name] = UNKNOWN
    rows["packets_lost"], rows["fate"] = UNKNOWN32, UNKNOWN8
    for name in ("index", "due", "sent"):
        at = SoundSent._fields.index(name)
        rows[name] = np.repeat(np.array([chunk[at] for chunk in chunks]), counts)
    base = np.repeat(np.array([chunk.pts for chunk in chunks]), counts)
    rows["pts"], rows["timestamp"], rows["bytes"] = base + pts, UNKNOWN, sizes
    base = np.repeat(np.array([chunk.timestamp for chunk in chunks]), counts)
    if None not in stamps:
        rows["timestamp"] = (base + stamps) & 0xFFFFFFFF
        return rows
    told = np.array([stamp is not None for stamp in stamps])
    rows["timestamp"][told] = (base + [stamp or 0 for stamp in stamps])[told] & 0xFFFFFFFF
    return rows


class SoundPlayed(NamedTuple):
    """What a client knows of packets of sound; see `Recorder.sound_played`."""

    count: int  # type: ignore[assignment]  # as above
    wide: int
    timed: bool
    runs: Sequence[tuple[int, int, int, int, int | None, str]]


def _sounds_played(chunks: Sequence[SoundPlayed]) -> Rows:
    """The rows of frames of some sound, in their order."""
    counts = [chunk.count for chunk in chunks]
    of_all = chain.from_iterable([chunk.runs for chunk in chunks])
    ticks, pts, sizes, arrived, heard, fates = zip(*of_all, strict=True)
    rows: Rows = np.empty(len(pts), FRAMES.dtype)
    rows["stream"], rows["packets"], rows["packets_lost"] = STREAM_CODE["audio"], 1, 0
    for name in ("index", "due", "encoded", "sent"):
        rows[name] = UNKNOWN
    wide, timed = (
        np.repeat(np.array(column), counts) for column in zip(*(chunk[1:3] for chunk in chunks), strict=True)
    )
    rows["timestamp"] = np.where(timed, np.array(ticks) & 0xFFFFFFFF, UNKNOWN)
    rows["bytes"] = np.array(sizes) * wide
    rows["pts"], rows["shown"] = pts, _known(heard)
    rows["first_packet"] = rows["complete"] = arrived
    rows["fate"] = list(map(FRAME_CODE.__getitem__, fates))
    return rows


def _known(values: Sequence[int | None]) -> Sequence[int | None]:
    """A column of integers, `UNKNOWN` where there is None."""
    return [UNKNOWN if value is None else value for value in values] if None in values else values


UNFOLD: Mapping[type, Callable[[list[Any]], Rows]] = {
    PacketRun: _packets,
    SoundSent: _sounds_sent,
    SoundPlayed: _sounds_played,
}
"""How rows are made of each kind."""
