"""Frames of a captured stream by timestamp and marker, and picture against sound by sender reports. Pure.

A frame is the packets of one timestamp, and its last one has the marker where the stream marks any (RFC 3550 5.1). It
is whole when no number is missing that must have been its own. Which frame's a missing packet was is told by the marker
before the gap and by how far the timestamps went on: no payload is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from avlab.measure.captures.control import Control, SenderClock
from avlab.measure.numbers.folds import Ints
from avlab.measure.numbers.loss import MAX_DROPOUT
from avlab.measure.record.tables import (
    FRAME_FATES,
    FRAMES,
    PACKET_FATES,
    STREAMS,
    SYNC,
    UNKNOWN,
    UNKNOWN8,
    UNKNOWN32,
    Rows,
)
from avlab.measure.record.trace import Recorder, Trace

HELD = 2_000
"""Packets of a stream that are looked at again with the next ones, as some may come out of order."""

MOST_LOST = 1_000
"""Whole frames that one gap may stand for."""

_USED = PACKET_FATES.index("used")
_INCOMPLETE, _LOST = FRAME_FATES.index("incomplete"), FRAME_FATES.index("lost")
_HEADER = 12


def frames_and_sync(recorder: Recorder, trace: Trace, main: dict[str, dict[str, Any]], control: Control) -> None:
    """Write the frames of the video, the packets of sound, and at each whole frame which sound had come by then."""
    clocks = {kind: _Clock(each, control) for kind, each in main.items() if each["rate"]}
    base_ns = min((clock.begin_ns for clock in clocks.values() if clock.told), default=None)
    told = len(clocks) == len(STREAMS) and all(clock.told for clock in clocks.values())
    for clock in clocks.values():
        clock.base_ns = base_ns if told else None
    video = _Frames(main["video"], clocks.get("video")) if "video" in main else None
    heard: tuple[Ints, Ints] = np.array([UNKNOWN]), np.array([UNKNOWN])  # when sound came, and its place in the clip
    chunks = [*trace.chunks("packets"), None] if trace.count("packets") <= 1 << 19 else _and_none(trace)
    for rows in chunks:
        if rows is not None and "audio" in clocks:
            sound = rows[(rows["ssrc"] == main["audio"]["code"]) & (rows["fate"] == _USED)]
            if len(sound):
                pts = clocks["audio"].pts(sound["timestamp"], sound["received"])
                recorder.frame_rows(_sound(sound, pts))
                latest = np.maximum.accumulate(np.append(heard[1][-1], pts))
                heard = np.append(heard[0][-1], sound["received"]), latest
        if video is None:
            continue
        made = (
            video.add(rows[(rows["ssrc"] == video.code) & (rows["fate"] == _USED)]) if rows is not None else video.end()
        )
        if not len(made):
            continue
        recorder.frame_rows(made)
        if told:
            whole = made[(made["complete"] != UNKNOWN) & (made["pts"] != UNKNOWN)]
            at = np.searchsorted(heard[0], whole["complete"], side="right") - 1
            found = np.zeros(len(whole), SYNC.dtype)
            found["time"], found["video_pts"] = whole["complete"], whole["pts"]
            found["audio_pts"] = np.where(at >= 0, heard[1][np.maximum(at, 0)], UNKNOWN)
            found["buffer"], found["skew_ppm"] = UNKNOWN, np.nan
            recorder.sync_rows(found[found["audio_pts"] != UNKNOWN])


def _and_none(trace: Trace) -> Any:
    yield from trace.chunks("packets")
    yield None


class _Clock:
    """From timestamps to the sender's own clock, by its reports; without them, to what has gone by since the first."""

    def __init__(self, stream: dict[str, Any], control: Control) -> None:
        self.rate = int(stream["rate"])
        told: list[SenderClock] = sorted(control.sent.get((stream["flow"][0], stream["ssrc"]), []))
        self.told = bool(told)
        self.base_ns: int | None = None
        self._times = np.array([each.time_ns for each in told], np.int64)
        self._ntp = np.array([each.ntp_ns for each in told], np.int64)
        self._ticks = np.array([each.timestamp for each in told], np.int64)
        self.begin_ns = int(self._ntp[0]) if told else 0
        self._last: tuple[int, int] | None = None  # a timestamp, and the time that it stands for

    def pts(self, timestamps: Ints, times: Ints) -> Ints:
        """The place in the clip of packets, in order of the numbers or of time, in nanoseconds."""
        if self.base_ns is not None:
            at = np.maximum(np.searchsorted(self._times, times, side="right") - 1, 0)
            ahead = (timestamps - self._ticks[at]).astype(np.int32).astype(np.int64)
            return self._ntp[at] - self.base_ns + ahead * 1_000_000_000 // self.rate
        first, begin = self._last or (int(timestamps[0]), 0)
        steps = np.diff(timestamps, prepend=first).astype(np.int32)
        ticks = begin + np.cumsum(steps, dtype=np.int64)
        self._last = int(timestamps[-1]), int(ticks[-1])
        return ticks * 1_000_000_000 // self.rate


def _sound(rows: Rows, pts: Ints) -> Rows:
    made = _empty(len(rows))
    made["stream"], made["pts"], made["timestamp"] = STREAMS.index("audio"), pts, rows["timestamp"]
    made["first_packet"] = made["complete"] = rows["received"]
    made["bytes"], made["packets"], made["packets_lost"] = np.maximum(rows["bytes"] - _HEADER, 0), 1, 0
    return made


def _empty(count: int) -> Rows:
    made: Rows = np.empty(count, FRAMES.dtype)
    for name in made.dtype.names or ():
        made[name] = {"q": UNKNOWN, "i": UNKNOWN32, "b": UNKNOWN8}[made.dtype[name].char.replace("l", "q")]
    return made


class _Frames:
    """Puts one stream's packets together."""

    def __init__(self, stream: dict[str, Any], clock: _Clock | None) -> None:
        self.code: int = stream["code"]
        self._clock = clock
        self._rest: Rows | None = None
        self._marks = False
        self._step = 0  # ticks from a frame to the next, usually
        self._before: tuple[int, int, bool] | None = None  # the last frame's last number, timestamp and marker
        self._count = 0

    def add(self, rows: Rows) -> Rows:
        """Packets as they came, each number once; the frames that no later packet changes."""
        rows = rows if self._rest is None else np.concatenate([self._rest, rows])
        rows = rows[np.argsort(rows["seq"], kind="stable")]
        begins = _begins(rows)
        settled = begins[begins <= len(rows) - HELD]
        self._rest = rows[settled[-1] :].copy() if len(settled) > 1 else rows
        return self._made(rows, settled) if len(settled) > 1 else _empty(0)

    def end(self) -> Rows:
        """The last frames; one that was cut off by the capture's end, not by a gap, counts as whole as far as it is."""
        rows, self._rest = self._rest, None
        return _empty(0) if rows is None or not len(rows) else self._made(rows, np.append(_begins(rows), len(rows)))

    def _made(self, rows: Rows, edges: Ints) -> Rows:
        """The frames between edges; what is behind the last edge tells of a gap there."""
        begins, ends = edges[:-1], edges[1:]
        seq, stamps = rows["seq"], rows["timestamp"]
        last = seq[ends - 1]
        marked = rows["marker"][ends - 1] == 1
        self._marks = self._marks or bool(marked.any())
        steps = np.diff(stamps[begins]).astype(np.int32)
        steps = steps[steps > 0]
        self._step = int(np.median(steps)) if len(steps) else self._step
        inner = last - seq[begins] + 1 - (ends - begins)
        inner[inner > MAX_DROPOUT] = 0
        # Gaps between each frame and the one before it; then whose the missing packets were.
        known = self._before
        previous = np.append(known[0] if known else seq[begins[0]] - 1, last[:-1])
        previous_stamps = np.append(known[1] if known else stamps[begins[0]], stamps[begins[:-1]])
        previous_marked = np.append(known[2] if known else True, marked[:-1])
        gap = seq[begins] - previous - 1
        gap[(gap > MAX_DROPOUT) | (gap < 0)] = 0
        ahead = (stamps[begins] - previous_stamps).astype(np.int32).astype(np.int64)
        between = np.clip(np.rint(ahead / self._step).astype(np.int64) - 1, 0, MOST_LOST) if self._step else 0 * gap
        between = np.minimum(np.where(gap > 0, between, 0), gap)
        tail = (gap > 0) & self._marks & ~previous_marked  # the frame before has lost its end
        head = (gap > 0) & ~tail & (between == 0)  # this one has lost its beginning
        missing = inner + np.where(head, gap, 0)
        missing[:-1] += np.where(tail[1:], np.maximum(gap[1:] - between[1:], 1), 0)
        if ends[-1] < len(rows) and self._marks and not marked[-1]:
            missing[-1] += min(max(0, int(seq[ends[-1]] - last[-1] - 1)), MAX_DROPOUT)
        made = _empty(len(begins))
        made["stream"], made["timestamp"] = STREAMS.index("video"), stamps[begins]
        made["first_packet"] = np.minimum.reduceat(rows["received"][: ends[-1]], begins)
        complete = np.maximum.reduceat(rows["received"][: ends[-1]], begins)
        made["complete"] = np.where(missing > 0, UNKNOWN, complete)
        sizes = np.maximum(rows["bytes"][: ends[-1]] - _HEADER, 0)
        made["bytes"], made["packets"] = np.add.reduceat(sizes, begins), ends - begins + missing
        made["packets_lost"] = missing
        made["fate"] = np.where(missing > 0, _INCOMPLETE, UNKNOWN8)
        if self._clock is not None:
            made["pts"] = self._clock.pts(made["timestamp"], made["first_packet"])
        self._before = int(last[-1]), int(stamps[begins[-1]]), bool(marked[-1])
        return self._with_lost(made, between)

    def _with_lost(self, made: Rows, between: Ints) -> Rows:
        """Frames of which nothing came, before those that came; numbers for all."""
        if between.any():
            places = np.repeat(np.arange(len(made)), between)
            back = np.repeat(between, between) - _counted(between)
            lost = _empty(len(places))
            lost["stream"], lost["fate"] = STREAMS.index("video"), _LOST
            lost["timestamp"] = (made["timestamp"][places] - back * self._step) % (1 << 32)
            if self._clock is not None:
                lost["pts"] = made["pts"][places] - back * self._step * 1_000_000_000 // self._clock.rate
            made = np.insert(made, places, lost)
        made["index"] = np.arange(self._count, self._count + len(made))
        self._count += len(made)
        return made


def _begins(rows: Rows) -> Ints:
    """Where a timestamp is another than before."""
    return np.flatnonzero(np.append(True, np.diff(rows["timestamp"]) != 0)) if len(rows) else np.empty(0, np.int64)


def _counted(numbers: Ints) -> Ints:
    """0 up to each of the numbers, one behind the other."""
    starts = np.cumsum(numbers) - numbers
    return np.arange(int(numbers.sum())) - np.repeat(starts, numbers)
