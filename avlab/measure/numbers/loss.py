"""What was lost: the one definition, which summaries, tables, plots, the panel and live numbers share.

A stream's packets are those of its own numbers: what a repair sends has an SSRC of its own (RFC 4588) and is left out,
and parity that follows a frame in the frame's numbers (RFC 5109) counts like any packet. Of the packets sent and no
longer under way, those are lost that the network lost or a socket had no room for, even if a repair brought their
content back. A receiver that knows the sender by its numbers alone takes each number for sent once, and a gap for
lost, at the moment when the number after it came (RFC 3550, A.3). A leap of more than `MAX_DROPOUT` numbers is no
loss unless the stream could have sent them in the time that went by: it is a sender that counts on from elsewhere.

Pure: a trace in; batch by batch, so that it may be of any length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avlab.measure.numbers.delays import arrived
from avlab.measure.numbers.folds import Bins, Flags, Floats, Ints, Series, first_known, seconds
from avlab.measure.record.tables import FRAME_FATES, PACKET_FATES, STREAMS, UNKNOWN, UNKNOWN8, WITHOUT_NUMBERS, Rows
from avlab.measure.record.trace import Trace

MAX_DROPOUT = 3_000
"""Numbers that may be missing in a row before it is a leap (RFC 3550, A.1)."""

_VIDEO = STREAMS.index("video")
_LOST = PACKET_FATES.index("lost")
_RECOVERED = PACKET_FATES.index("recovered")
_IN_FLIGHT = PACKET_FATES.index("in_flight")
_GONE = [_LOST, PACKET_FATES.index("socket_dropped"), _RECOVERED]
_DAMAGED = [FRAME_FATES.index(word) for word in ("lost", "incomplete")]
_UNSETTLED = [FRAME_FATES.index(word) for word in ("skipped", "in_flight")]


class Gaps(NamedTuple):
    """Numbers that never came, gap by gap."""

    stream: NDArray[np.int8]
    ssrc: Ints
    first: Ints
    """The first number that is missing."""
    missing: Ints
    when_ns: Ints
    """When the number after the gap came."""


class Heard:
    """Which numbers of which streams came, as the runs without a gap that they make.

    What it takes grows with the gaps, not with the numbers, and never with the distance between two of them.
    """

    def __init__(self) -> None:
        none = np.empty(0, np.int64)
        self._lanes, self._starts, self._ends, self._begun, self._over = none, none, none, none, none

    def add(self, rows: Rows) -> Flags:
        """Take rows of packets, in the order in which they came; which of them are the first of their number."""
        first = np.ones(len(rows), bool)
        at = np.flatnonzero(rows["seq"] != UNKNOWN)
        lanes, numbers, times = _lanes(rows)[at], rows["seq"][at], rows["received"][at]
        order = np.lexsort((numbers, lanes))  # it keeps the order of equals
        lanes, numbers, times = lanes[order], numbers[order], times[order]
        fresh = np.ones(len(order), bool)
        fresh[1:] = (lanes[1:] != lanes[:-1]) | (numbers[1:] != numbers[:-1])
        fresh[fresh] = ~self._has(lanes[fresh], numbers[fresh])
        first[at[order]] = fresh
        lanes, numbers, times = lanes[fresh], numbers[fresh], times[fresh]
        self._merge(lanes, numbers, numbers, times, times)
        return first

    def _has(self, lanes: Ints, numbers: Ints) -> Flags:
        """Whether each of these, in order, came before."""
        known = len(self._lanes)
        if not known:
            return np.zeros(len(lanes), bool)
        kind = np.repeat([0, 1], [known, len(lanes)])
        order = np.lexsort((kind, np.append(self._starts, numbers), np.append(self._lanes, lanes)))
        before = np.maximum.accumulate(np.where(order < known, order, -1))  # the run that begins at or before it
        runs = before[order >= known]
        has: Flags = (runs >= 0) & (self._lanes[runs] == lanes) & (numbers <= self._ends[runs])
        return has

    def _merge(self, *fresh: Ints) -> None:
        mine = self._lanes, self._starts, self._ends, self._begun, self._over
        lanes, starts, ends, begun, over = (np.concatenate(parts) for parts in zip(mine, fresh, strict=True))
        order = np.lexsort((starts, lanes))
        lanes, starts, ends, begun, over = (each[order] for each in (lanes, starts, ends, begun, over))
        begins = np.ones(len(lanes), bool)
        begins[1:] = (lanes[1:] != lanes[:-1]) | (starts[1:] - 1 != ends[:-1])
        lasts = np.ones(len(lanes), bool)
        lasts[:-1] = begins[1:]
        self._lanes, self._starts, self._begun = lanes[begins], starts[begins], begun[begins]
        self._ends, self._over = ends[lasts], over[lasts]

    def gaps(self) -> Gaps:
        """What is missing between the numbers that came, without leaps."""
        lanes, starts, ends = self._lanes, self._starts, self._ends
        count = starts[1:] - ends[:-1] - 1
        # A lane without an SSRC has no numbers of its own to miss.
        missing = (lanes[1:] == lanes[:-1]) & (lanes[1:] >= 0) & (count > 0)
        missing &= (count <= MAX_DROPOUT) | (count <= 2 * self._pace() * (self._begun[1:] - self._over[:-1]))
        lane = lanes[1:][missing]
        return Gaps(
            (lane & 1).astype(np.int8), lane >> 1, ends[:-1][missing] + 1, count[missing], self._begun[1:][missing]
        )

    def _pace(self) -> Floats:
        """For each run but the first, the numbers of its stream that came in a nanosecond."""
        if not len(self._lanes):
            return np.empty(0)
        heads = np.flatnonzero(np.append(True, self._lanes[1:] != self._lanes[:-1]))
        numbers = np.add.reduceat(np.float64(self._ends) - self._starts + 1, heads)
        low = np.minimum.reduceat(np.minimum(self._begun, self._over), heads)
        high = np.maximum.reduceat(np.maximum(self._begun, self._over), heads)
        pace = numbers / np.maximum(1, np.float64(high) - low)
        return np.repeat(pace, np.diff(heads, append=len(self._lanes)))[1:]


def _lanes(rows: Rows) -> Ints:
    """One number a row for its SSRC and stream, below 0 without an SSRC."""
    ssrc = np.where(rows["ssrc"] == UNKNOWN, -1, rows["ssrc"])
    return np.asarray(ssrc * 2 + (rows["stream"] == STREAMS.index("audio")), np.int64)


class Copies(NamedTuple):
    """Some rows of packets, and what is known of each."""

    rows: Rows
    when_ns: Ints
    """When it was sent, or came where that is not known."""
    was_sent: Flags
    was_received: Flags
    """The network delivered it; what a repair brought back is not among them."""
    media: Flags
    """It has a number of its stream's own, and not of a repair's."""


class Packets:
    """One pass over a trace's packets: first `copies`, then, of a receiver on its own, `gaps`."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._heard = Heard() if reckons(trace) else None
        self._media = media_ssrcs(trace)

    def copies(self) -> Iterator[Copies]:
        """All packets, some at a time."""
        for rows in self._trace.chunks("packets"):
            sent = rows["sent"] != UNKNOWN
            if self._heard is not None:
                sent = self._heard.add(rows)
            yield Copies(rows, first_known(rows, "sent", "received"), sent, arrived(rows), self._is_media(rows))

    def gaps(self) -> Gaps:
        """What is missing in the numbers; nothing where the record says itself what was lost."""
        return (self._heard or Heard()).gaps()

    def media_gaps(self) -> Gaps:
        """Those among the streams' own numbers."""
        gaps = self.gaps()
        mine = self._media.takes(gaps.stream, gaps.ssrc)
        stream, ssrc, first, missing, when_ns = gaps
        return Gaps(stream[mine], ssrc[mine], first[mine], missing[mine], when_ns[mine])

    def _is_media(self, rows: Rows) -> Flags:
        return self._media.takes(rows["stream"], rows["ssrc"])


class MediaSources(NamedTuple):
    """Which SSRCs are a stream's own: all but `others`, or, where that is not known, the commonest of each stream."""

    others: list[int] | None
    commonest: dict[int, int]

    def takes(self, stream: NDArray[np.int8], ssrc: Ints) -> Flags:
        """Which rows are media. What has no SSRC is."""
        if self.others is not None:
            return np.isin(ssrc, np.array(self.others, np.int64), invert=True)
        mine: Flags = ssrc == UNKNOWN
        for code, own in self.commonest.items():
            mine |= (stream == code) & (ssrc == own)
        return mine


def reckons(trace: Trace) -> bool:
    """Whether the record is of a receiver on its own, which knows what was sent by the numbers alone."""
    return bool(trace.meta["side"] in ("client", "capture") and not trace.meta.get("joined"))


def media_ssrcs(trace: Trace) -> MediaSources:
    """Which SSRCs of a trace are media: meta's `repair_ssrcs` are not; without it, the commonest of a stream is."""
    named = trace.meta.get("repair_ssrcs")
    if isinstance(named, list | tuple) and all(isinstance(ssrc, int) and abs(ssrc) < 2**62 for ssrc in named):
        return MediaSources(list(named), {})
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))] * len(STREAMS)
    for rows in trace.chunks("packets"):
        for code, (ssrcs, counts) in enumerate(found):
            mine = rows["ssrc"][(rows["stream"] == code) & (rows["ssrc"] != UNKNOWN)]
            more, at = np.unique(mine, return_counts=True)
            both, place = np.unique(np.append(ssrcs, more), return_inverse=True)
            found[code] = both, np.bincount(place, np.append(counts, at), len(both)).astype(np.int64)
    return MediaSources(
        None, {code: int(ssrcs[counts.argmax()]) for code, (ssrcs, counts) in enumerate(found) if len(ssrcs)}
    )


def tells_loss(trace: Trace) -> bool:
    """Whether loss can be told: not on the classic and http wires, which have no numbers to tell it by."""
    return trace.meta.get("wire") not in WITHOUT_NUMBERS


class Lost(NamedTuple):
    """How many of a stream's packets, or frames, were lost, of how many that were sent and are not under way."""

    lost: int
    settled: int

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None of nothing."""
        return self.lost / self.settled if self.settled else None

    @property
    def percent(self) -> float | None:
        """From 0 to 100; None of nothing."""
        return 100 * self.lost / self.settled if self.settled else None


def packets_lost(trace: Trace, stream: str = "video") -> Lost:
    """A stream's loss, as this file's head defines it; nothing of nothing where it cannot be told."""
    if not tells_loss(trace):
        return Lost(0, 0)
    code, packets = STREAMS.index(stream), Packets(trace)
    lost = settled = 0
    for copies in packets.copies():
        counts = _settled(copies) & (copies.rows["stream"] == code)
        settled += int(counts.sum())
        lost += int(np.isin(copies.rows["fate"][counts], _GONE).sum())
    gaps = packets.media_gaps()
    missing = int(gaps.missing[gaps.stream == code].sum())
    return Lost(lost + missing, settled + missing)


def frames_damaged(trace: Trace) -> Lost:
    """Video's frames that were lost or incomplete after all, of those offered that were not skipped or under way."""
    damaged = settled = 0
    for rows in trace.chunks("frames") if tells_loss(trace) else ():
        fates = _settled_frames(rows)["fate"]
        settled += len(fates)
        damaged += int(np.isin(fates, _DAMAGED).sum())
    return Lost(damaged, settled)


def _settled_frames(rows: Rows) -> Rows:
    settled: Rows = rows[(rows["stream"] == _VIDEO) & ~np.isin(rows["fate"], _UNSETTLED)]
    return settled


def _settled(copies: Copies) -> Flags:
    settled: Flags = copies.was_sent & copies.media & (copies.rows["fate"] != _IN_FLIGHT)
    return settled


class LossBins(NamedTuple):
    """The fraction of video's packets lost and of its frames damaged in each bin of time, NaN where there was none."""

    numbers: Ints
    packets: Floats
    frames: Floats


def loss_bins(trace: Trace, width: float = 1.0) -> LossBins:
    """Loss over time, in bins of `width` seconds. NaN on the classic wire, which has no numbers to tell loss by.

    A packet counts when it was sent, or came; a frame, damaged if lost or incomplete after all, when it was sent. What
    is under way does not count, nor what was skipped before sending.
    """
    bins, packets = Bins(4, width), Packets(trace)
    for copies in packets.copies():
        counts = _settled(copies) & (copies.rows["stream"] == _VIDEO)
        gone = np.isin(copies.rows["fate"][counts], _GONE)
        _add(bins, seconds(trace, copies.when_ns[counts]), 0, gone)
    gaps = packets.media_gaps()
    mine = gaps.stream == _VIDEO
    when, count = seconds(trace, gaps.when_ns[mine]), gaps.missing[mine]
    bins.add(when, count, count, 0 * count, 0 * count)
    for rows in trace.chunks("frames"):
        settled = _settled_frames(rows)
        when = seconds(trace, first_known(settled, "sent", "first_packet", "complete", "shown"))
        _add(bins, when, 2, np.isin(settled["fate"], _DAMAGED))
    numbers, sums = bins.sums()
    tells = tells_loss(trace)
    packet_loss, frame_loss = (_ratio(sums[at], sums[at + 1] if tells else 0 * sums[at]) for at in (0, 2))
    return LossBins(numbers, packet_loss, frame_loss)


def loss_series(trace: Trace, bin: float = 1.0) -> Series:
    """Where each bin of `bin` seconds starts, and the fractions of packets lost and of frames damaged in it."""
    found = loss_bins(trace, bin)
    return np.stack([found.numbers * bin, found.packets, found.frames])


def loss_between(trace: Trace, times: Floats, stream: str = "video") -> Floats:
    """The fraction of a stream's packets that were lost before each of `times`, in order, and after the one before.

    Shape as `times`, NaN where none was. By when a receiver can know: a packet counts when it came; a lost one when the
    next one sent after it came, which is how it is missed. Only of packets whose sending is recorded.
    """
    code, sent, received, gone = STREAMS.index(stream), [], [], []
    for copies in Packets(trace).copies():
        rows = copies.rows
        counts = _settled(copies) & (rows["stream"] == code) & (rows["sent"] != UNKNOWN) & (rows["fate"] != UNKNOWN8)
        sent.append(rows["sent"][counts])
        received.append(rows["received"][counts])
        gone.append(np.isin(rows["fate"][counts], _GONE))
    order = np.argsort(np.concatenate(sent), kind="stable")
    left, came, lost = (np.concatenate(parts)[order] for parts in (sent, received, gone))
    seen = _next_known(np.where(lost, UNKNOWN, came))
    slots = np.searchsorted(times, seconds(trace, np.where(seen == UNKNOWN, left, seen)))
    gone_in, all_in = (np.bincount(slots, each, len(times))[: len(times)] for each in (lost, np.ones(len(lost))))
    return _ratio(gone_in.astype(np.float64), all_in.astype(np.float64))


def _next_known(values: Ints) -> Ints:
    """Each value, or where it is unknown the next one that is known, else the last one."""
    known = np.flatnonzero(values != UNKNOWN)
    if not len(known):
        return values
    return values[known[np.minimum(np.searchsorted(known, np.arange(len(values))), len(known) - 1)]]


def _add(bins: Bins, when: Floats, column: int, marks: NDArray[Any]) -> None:
    """Marks, and how many there are, into two of the four columns."""
    none = np.zeros(len(marks))
    values = [none] * 4
    values[column], values[column + 1] = marks, none + 1
    bins.add(when, *values)


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratio
