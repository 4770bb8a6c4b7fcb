"""Two clocks against each other: what media time a timestamp stands for, how fast one clock runs on another. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from avlab.wire.rtp import ticks_to_ns
from avlab.wire.units import NS

BELIEVED_NS = 60 * NS
"""Sender reports that contradict RTP-Info by more are not on one clock: some senders' streams each have their own."""


@dataclass(slots=True)
class _Stream:
    rate: int
    anchor: tuple[int, int] | None = None  # unwrapped ticks, media ns: from RTP-Info, else from the first packet
    report: tuple[int, int] | None = None  # unwrapped ticks, sender's wall clock ns: the newest sender report


class Timeline:
    """RTP timestamps of several streams on one media clock (nanoseconds of the clip).

    The reference stream (sound, where there is any) keeps to its RTP-Info anchor, so that its samples never jump. The
    others follow it through the sender's clock once both have a sender report (RFC 3550 6.4.1), and through their own
    RTP-Info anchor (RFC 2326 12.33) until then. Timestamps come in unwrapped.
    """

    def __init__(self, *, reference: str) -> None:
        self._reference = reference
        self._streams: dict[str, _Stream] = {}

    def add(self, stream: str, rate: int) -> None:
        """Make a stream known; `rate` is its RTP clock in Hz."""
        self._streams[stream] = _Stream(rate)

    def anchor(self, stream: str, ticks: int, media_ns: int) -> None:
        """`ticks` stands for `media_ns`, says RTP-Info."""
        self._streams[stream].anchor = (ticks, media_ns)

    def anchored(self, stream: str) -> bool:
        """Whether the stream's timestamps can be turned into media time yet."""
        return self._streams[stream].anchor is not None

    def report(self, stream: str, ticks: int, sender_ns: int) -> None:
        """`ticks` was the moment `sender_ns` of the sender's wall clock, says a sender report."""
        self._streams[stream].report = (ticks, sender_ns)

    def media_ns(self, stream: str, ticks: int) -> int:
        """The media time of a timestamp; KeyError for an unknown stream, ValueError before its anchor."""
        own = self._streams[stream]
        reference = self._streams.get(self._reference)
        if own.anchor is None:
            raise ValueError(f"the {stream} stream has no anchor yet")
        media_ns = own.anchor[1] + ticks_to_ns(ticks - own.anchor[0], own.rate)
        if reference is None or own is reference:
            return media_ns
        if own.report is None or reference.report is None or reference.anchor is None:
            return media_ns
        sender_ns = own.report[1] + ticks_to_ns(ticks - own.report[0], own.rate)
        reference_ns = reference.report[1] + ticks_to_ns(reference.anchor[0] - reference.report[0], reference.rate)
        reported_ns = reference.anchor[1] + sender_ns - reference_ns
        return reported_ns if abs(reported_ns - media_ns) <= BELIEVED_NS else media_ns


class RateEstimator:
    """How fast one clock runs on another: a least-squares slope over pairs of readings, old ones fading.

    `time_constant_s` is the age at which a pair's weight has fallen to 1/e. Before the pairs span `least_s` there is no
    rate: 3 ms of scatter are hundreds of ppm in a second.
    """

    def __init__(self, *, time_constant_s: float = 60.0, least_s: float = 10.0) -> None:
        self._tau_s = time_constant_s
        self._least_s = least_s
        self._origin: tuple[int, int] | None = None
        self._last_s = 0.0
        self._weight = self._mx = self._my = self._sxx = self._sxy = 0.0

    def update(self, on_ns: int, of_ns: int) -> None:
        """When the clock measured on reads `on_ns`, the clock measured reads `of_ns`."""
        if self._origin is None:
            self._origin = (on_ns, of_ns)
        on_ns -= self._origin[0]
        x = on_ns / 1e9
        y = (of_ns - self._origin[1] - on_ns) / 1e9  # the difference alone, so that no digits are lost over hours
        fade = math.exp(-max(0.0, x - self._last_s) / self._tau_s)
        self._last_s = max(x, self._last_s)
        self._weight = self._weight * fade + 1.0
        self._sxx *= fade
        self._sxy *= fade
        dx, dy = x - self._mx, y - self._my
        self._mx += dx / self._weight
        self._my += dy / self._weight
        self._sxx += dx * (x - self._mx)
        self._sxy += dx * (y - self._my)

    @property
    def ppm(self) -> float:
        """Parts per million by which the measured clock is fast; NaN before the pairs span long enough."""
        return 1e6 * self._sxy / self._sxx if self._sxx > 0 and self._last_s >= self._least_s else math.nan
