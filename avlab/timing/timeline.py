"""RTP timestamps of several streams on one media clock, and what of a sender's word on them is believed. Pure.

A sender tells by RTP-Info where its timestamps begin and by sender reports which of them belong together. Either may be
wrong, and the timestamps themselves may leap. What is believed is bounded by what arrives: packets of one moment of
the clip arrive within seconds of each other, and each stream's own packets at the rate of its timestamps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from avlab.wire.rtp import ticks_to_ns
from avlab.wire.units import NS

BELIEVED_NS = 60 * NS
"""Sender reports that contradict RTP-Info by more are not on one clock: some senders' streams each have their own. It
holds until packets of both streams have arrived."""

APART_NS = 2 * NS
"""So far apart may packets of one moment arrive: encoders, buffers and networks hold one stream back more than the
other, and not by more."""

FITS_NS = NS
"""So far from where RTP-Info says that a stream begins may its first packet be, besides the time that has passed."""

TOGETHER_NS = NS // 4
"""First packets of two streams that come within this are of one moment, when the sender says nothing better."""

BACK_NS = NS // 10
AHEAD_NS = NS
"""A newer packet whose timestamp is so much older than the one before, or so much further ahead than the time that
passed, and than any packet of late was, is on another stretch of the sender's clock: a film begins again, a seek."""

REORDERED_NS = NS
"""So much older may it be where pictures are sent in another order than they are seen: one that is predicted from a
later one comes after it, 16 pictures at the most (H.264 A.3.1, H.265 A.4.2) and mostly three to five."""

STEADY_NS = NS // 10
"""A packet that comes so near the moment at which the next one was due goes on where the one before it ended."""

ALIKE_NS = NS // 2
LEAP_NS = 5 * NS
"""Streams that leap by about the same within this time have leapt together, and stay as they were to each other."""

RELATIVE_NS = ((1 << 32) - 2_208_988_800) * NS
"""7 February 2036, where NTP's seconds wrap. A clock that says more counts from its own start, and is no wall clock:
until then the high bit tells the two apart (RFC 3550 6.4.1)."""

WINDOW_NS = 5 * NS
RECENT_NS = NS // 2
"""The quickest packet is remembered for one to two of these: the former to tell a leap from a packet that others were
held up before, the latter to tell what arrives at the same time."""

NEVER_YET_NS = -(1 << 62)
"""Before all moments."""


_new = tuple.__new__  # a named tuple's own constructor takes twice as long


class _Report(NamedTuple):
    ticks: int
    sender_ns: int

    def agrees(self, later: _Report, rate: int) -> bool:
        """Whether the sender's wall clock went on as its media clock did; one that stands still does not."""
        media_ns = ticks_to_ns(later.ticks - self.ticks, rate)
        return abs(later.sender_ns - self.sender_ns - media_ns) <= NS // 10 + abs(media_ns) // 100


class _Anchor(NamedTuple):
    """A timestamp, unwrapped, and the media time that it stands for: from RTP-Info, else from the first packet."""

    ticks: int
    media_ns: int
    rate: int

    def ns(self, ticks: int) -> int:
        return self.media_ns + ticks_to_ns(ticks - self.ticks, self.rate)


class _Newest(NamedTuple):
    ticks: int
    now_ns: int


class _Quickest:
    """Arrival less media time of the quickest packet of one to two windows."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._begun = False
        self.end_ns = NEVER_YET_NS  # of the window that is going on
        self.least_ns = 0  # in it
        self._before_ns: int | None = None

    def add(self, offset_ns: int, now_ns: int) -> None:
        if now_ns >= self.end_ns:
            self._before_ns = self.least_ns if self._begun else None
            self.least_ns, self.end_ns, self._begun = offset_ns, now_ns + self._window_ns, True
        elif offset_ns < self.least_ns:
            self.least_ns = offset_ns

    def value_ns(self) -> int:
        return self.least_ns if self._before_ns is None else min(self.least_ns, self._before_ns)

    def shift(self, by_ns: int) -> None:
        self.least_ns += by_ns
        if self._before_ns is not None:
            self._before_ns += by_ns


@dataclass(slots=True)
class _Stream:
    rate: int
    back_ns: int  # so much older than the one before is no leap
    anchor: _Anchor | None = None
    report: _Report | None = None  # the newest sender report, if it is believed
    heard: _Report | None = None  # the newest sender report
    newest: _Newest | None = None
    step: int = 0  # ticks, from one timestamp to the next
    ahead: int = 0  # ticks, no more than `AHEAD_NS`
    quickest: _Quickest = field(default_factory=lambda: _Quickest(WINDOW_NS))  # by the stream's own anchor
    recent: _Quickest = field(default_factory=lambda: _Quickest(RECENT_NS))

    def put(self, ticks: int, media_ns: int) -> _Anchor:
        """From here on a timestamp stands for this media time."""
        self.anchor = anchor = _Anchor(ticks, media_ns, self.rate)
        return anchor

    def shift(self, anchor: _Anchor, by_ns: int) -> _Anchor:
        """The same timestamps stand for media times later by `by_ns`."""
        self.quickest.shift(-by_ns)
        self.recent.shift(-by_ns)
        return self.put(anchor.ticks, anchor.media_ns + by_ns)


class Timeline:
    """RTP timestamps of several streams on one media clock (nanoseconds of the clip).

    The reference stream (sound, where there is any) keeps to its anchor, so that its samples never jump. The others
    follow it through the sender's clock once both have a sender report (RFC 3550 6.4.1), and through their own anchor
    until then: RTP-Info's (RFC 2326 12.33) where it fits what arrives, else the moment of arrival. Timestamps come in
    unwrapped.
    """

    def __init__(self, *, reference: str) -> None:
        self._reference = reference
        self._streams: dict[str, _Stream] = {}
        self._begin_ns: int | None = None  # when what is played was to begin
        self._first_media_ns = 0  # and with which media time
        self._excess_ns: int | None = None  # by how much RTP-Info named the beginning too early
        self._leap: tuple[str, int, int] | None = None  # the newest: of which stream, when, and by how much

    def add(self, stream: str, rate: int, *, reordered: bool = False) -> None:
        """Make a stream known; `rate` is its RTP clock in Hz.

        `reordered` is whether what it sends may come in another order than that of its timestamps.
        """
        back_ns = REORDERED_NS if reordered else BACK_NS
        self._streams[stream] = _Stream(rate, back_ns, ahead=rate * AHEAD_NS // NS)

    def begin(self, media_ns: int, now_ns: int) -> None:
        """From `now_ns` on the clip is sent, from `media_ns` on: what arrives is checked against that."""
        self._first_media_ns, self._begin_ns = media_ns, now_ns

    def anchor(self, stream: str, ticks: int, media_ns: int) -> None:
        """`ticks` stands for `media_ns`, says RTP-Info."""
        self._streams[stream].put(ticks, media_ns)

    def anchored(self, stream: str) -> bool:
        """Whether the stream's timestamps can be turned into media time yet."""
        return self._streams[stream].anchor is not None

    # ---- what arrives

    def arrived(self, stream: str, ticks: int, now_ns: int, *, step: int | None = None) -> bool:
        """A packet arrived. False when it is the stream's first and RTP-Info, which does not fit it, is given up.

        `step` is for the last of several that came together: how far its timestamp is from the one before.
        """
        own = self._streams[stream]
        anchor, fits = own.anchor, True
        if own.newest is None or anchor is None:
            anchor, fits = self._place_first(own, ticks, now_ns)
        elif ticks > own.newest.ticks:
            own.step = ticks - own.newest.ticks if step is None else step
        offset_ns = now_ns - anchor.ns(ticks)
        own.quickest.add(offset_ns, now_ns)
        own.recent.add(offset_ns, now_ns)
        if own.newest is None or ticks > own.newest.ticks:
            own.newest = _new(_Newest, (ticks, now_ns))
        return fits

    def goes_on(self, stream: str, first: int, step: int, count: int, now_ns: int) -> list[int] | None:
        """Packets arrived together, newer than all before them, with timestamps `step` apart: the media time of each.

        None, and nothing done, where the first `leaps` or is its stream's first.
        """
        own = self._streams[stream]
        anchor, newest = own.anchor, own.newest
        if anchor is None or newest is None:
            return None
        before, before_ns = newest
        usual = 0 <= first - before <= own.ahead and now_ns >= before_ns
        if not usual and self.leaps(stream, first, now_ns):
            return None
        since, media_ns, rate = anchor
        own.step = step
        # As `ticks_to_ns`, for each.
        twice, begin, stride = 2 * rate, 2 * NS * (first - since) + rate, 2 * NS * step
        times_ns = [media_ns + part // twice for part in range(begin, begin + count * stride, stride)]
        offset_ns = now_ns - times_ns[-1]
        quickest, recent = own.quickest, own.recent
        if now_ns < quickest.end_ns and now_ns < recent.end_ns:  # as `add`
            if offset_ns < quickest.least_ns:
                quickest.least_ns = offset_ns
            if offset_ns < recent.least_ns:
                recent.least_ns = offset_ns
        else:
            quickest.add(offset_ns, now_ns)
            recent.add(offset_ns, now_ns)
        own.newest = _new(_Newest, (first + (count - 1) * step, now_ns))
        if stream == self._reference:
            return times_ns
        by_ns = self._follows_ns(own)
        return [time_ns + by_ns for time_ns in times_ns] if by_ns else times_ns

    def leaps(self, stream: str, ticks: int, now_ns: int) -> bool:
        """Whether the timestamp of a packet, newer than all before it, is on another stretch of the sender's clock."""
        own = self._streams[stream]
        newest = own.newest
        if newest is None or own.anchor is None:
            return False
        step = ticks - newest.ticks
        if 0 <= step <= own.ahead and now_ns >= newest.now_ns:  # as most are
            return False
        step_ns = ticks_to_ns(step, own.rate)
        if step_ns < -own.back_ns:
            return True
        early_ns = own.anchor.ns(ticks) - (now_ns - own.quickest.value_ns())
        return step_ns - (now_ns - newest.now_ns) > AHEAD_NS and early_ns > AHEAD_NS

    def resume(self, stream: str, ticks: int, now_ns: int, *, seen: int | None = None) -> int:
        """The stream goes on with other timestamps, `ticks` first: media time counts on. How far it leapt, in ns.

        `seen` is the same timestamp unwrapped around those before it; None when another source has taken over, whose
        timestamps have nothing to do with those.
        """
        own = self._streams[stream]
        self._freeze()
        own.report = own.heard = None
        anchor = own.anchor
        if own.newest is None or anchor is None:
            return 0
        step_ns = ticks_to_ns(own.step, own.rate)
        goes_on_ns = anchor.ns(own.newest.ticks) + step_ns
        due_ns = now_ns - own.recent.value_ns()
        passed_ns = now_ns - own.newest.now_ns
        if abs(passed_ns - step_ns) > STEADY_NS:
            goes_on_ns = max(goes_on_ns, due_ns)
        leap_ns = 0
        if seen is not None:
            leap_ns = anchor.ns(seen) - goes_on_ns
            if self._leap is not None:
                who, when_ns, by_ns = self._leap
                if who != stream and now_ns - when_ns <= LEAP_NS and abs(by_ns - leap_ns) <= ALIKE_NS:
                    goes_on_ns += leap_ns - by_ns
                    leap_ns = by_ns
            self._leap = stream, now_ns, leap_ns
        own.put(ticks, goes_on_ns)
        own.newest = _new(_Newest, (ticks, now_ns))
        return leap_ns

    def report(self, stream: str, ticks: int, sender_ns: int, now_ns: int | None = None) -> bool:
        """`ticks` was the moment `sender_ns` of the sender's wall clock, says a sender report. False: not believed.

        It is not when the wall clock has not gone on as the media clock since the report before, or when `ticks` is
        far from what arrives at `now_ns`.
        """
        own = self._streams[stream]
        report, before = _Report(ticks, sender_ns), own.heard
        if own.newest is not None and now_ns is not None:
            step_ns = ticks_to_ns(ticks - own.newest.ticks, own.rate)
            if abs(step_ns - (now_ns - own.newest.now_ns)) > BELIEVED_NS:
                return False
        own.heard = report
        if before is not None and not before.agrees(report, own.rate):
            own.report = None
            return False
        own.report = report
        return True

    # ---- media time

    def media_ns(self, stream: str, ticks: int) -> int:
        """The media time of a timestamp; KeyError for an unknown stream, ValueError before its anchor."""
        own = self._streams[stream]
        if own.anchor is None:
            raise ValueError(f"the {stream} stream has no anchor yet")
        return own.anchor.ns(ticks) + self._follows_ns(own)

    def captured_ns(self, stream: str, ticks: int) -> int | None:
        """What the sender's wall clock said at a timestamp, in ns since 1970, by its newest report.

        None before one, and where the sender has no wall clock.
        """
        report = self._streams[stream].report
        if report is None or report.sender_ns >= RELATIVE_NS:
            return None
        return report.sender_ns + ticks_to_ns(ticks - report.ticks, self._streams[stream].rate)

    def go_on(self, latest_ns: int | None, now_ns: int) -> None:
        """What had broken off comes again: where it goes on is told by the quickest packets of the seconds before.

        If those came later than `latest_ns`, arrival less media time, as on a machine that was too busy, that is not
        taken over: it would be so for good.
        """
        self._freeze()
        there = [own for own in self._streams.values() if own.newest is not None]
        slowest_ns = max([own.quickest.value_ns() for own in there], default=0)
        late_ns = 0 if latest_ns is None else max(0, slowest_ns - latest_ns)
        for own in there:
            offset_ns = own.quickest.value_ns() - late_ns
            own.quickest, own.recent = _Quickest(WINDOW_NS), _Quickest(RECENT_NS)
            own.quickest.add(offset_ns, now_ns)
            own.recent.add(offset_ns, now_ns)

    def due_ns(self, now_ns: int) -> int | None:
        """The media time of what would come now, by the quickest of late; None before anything has come."""
        streams = [self._streams.get(self._reference), *self._streams.values()]
        for own in streams:
            if own is not None and own.newest is not None:
                return now_ns - own.recent.value_ns() + self._follows_ns(own)
        return None

    def _follows_ns(self, own: _Stream) -> int:
        """By how much a stream's media time is later than its anchor says, as it follows the reference."""
        reference = self._streams.get(self._reference)
        if reference is None or own is reference or own.anchor is None or reference.anchor is None:
            return 0
        if own.report is None or reference.report is None:
            return 0
        sender_ns = own.report.sender_ns + ticks_to_ns(own.anchor.ticks - own.report.ticks, own.rate)
        since_ns = reference.anchor.ticks - reference.report.ticks
        reference_ns = reference.report.sender_ns + ticks_to_ns(since_ns, reference.rate)
        by_ns = reference.anchor.media_ns + sender_ns - reference_ns - own.anchor.media_ns
        if own.newest is None or reference.newest is None:
            return by_ns if abs(by_ns) <= BELIEVED_NS and self._can_be_played(own, own.anchor, by_ns) else 0
        if abs(by_ns) <= APART_NS:
            return by_ns
        apart_ns = own.recent.value_ns() - by_ns - reference.recent.value_ns()
        return by_ns if abs(apart_ns) <= APART_NS else 0

    def _can_be_played(self, own: _Stream, anchor: _Anchor, by_ns: int) -> bool:
        """Whether what has come of a stream, put later by so much, is of the moments that are sent since the beginning.

        For as long as nothing of the reference has come: what RTP-Info says of it may be wrong.
        """
        if own.newest is None or self._begin_ns is None:
            return True
        earliest_ns = self._begin_ns - self._first_media_ns - FITS_NS  # arrival less media time
        first_ns = anchor.media_ns + by_ns
        return first_ns >= self._first_media_ns - FITS_NS and own.recent.value_ns() - by_ns >= earliest_ns

    def _freeze(self) -> None:
        """What streams have by following the reference becomes their own: it will leap, or they will."""
        for own in self._streams.values():
            if own.newest is not None and own.anchor is not None and (by_ns := self._follows_ns(own)):
                own.shift(own.anchor, by_ns)

    def _place_first(self, own: _Stream, ticks: int, now_ns: int) -> tuple[_Anchor, bool]:
        """Anchor a stream by its first packet, unless RTP-Info has and may be right; with False when it is given up."""
        others = [other for other in self._streams.values() if other is not own and other.newest is not None]
        due_ns = self._first_media_ns
        if others:
            other = others[0]
            by_arrival_ns = now_ns - other.recent.value_ns() + self._follows_ns(other)
            if abs(by_arrival_ns - due_ns) > TOGETHER_NS:
                due_ns = by_arrival_ns
        anchor = own.anchor
        if anchor is None:
            return own.put(ticks, due_ns), True
        if self._begin_ns is None:
            return anchor, True
        named_ns = anchor.ns(ticks)
        ahead_ns = named_ns - self._first_media_ns
        if -FITS_NS <= ahead_ns <= now_ns - self._begin_ns + FITS_NS:
            return anchor, True
        if self._excess_ns is not None and abs(named_ns - self._excess_ns - due_ns) <= APART_NS:
            # Wrong as the other's is: right as to which packets belong together.
            return own.shift(anchor, -self._excess_ns), True
        if self._excess_ns is None and not others:
            self._excess_ns = named_ns - due_ns
        return own.put(ticks, due_ns), False
