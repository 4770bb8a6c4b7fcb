"""The media clock and the verdicts: playout alone decides when a picture is shown, and which are not. Pure.

A picture is shown when the sound reaches its pts. With no sound the media clock runs on the monotonic clock.
"""

from __future__ import annotations

import heapq
from itertools import zip_longest
from typing import Any, NamedTuple

from avlab.timing.stage import Dropped
from avlab.wire.units import NS

DEFAULT_DELAY_NS = 100_000_000
"""From the arrival of a stream's beginning to its presentation."""

TARDY_NS = 40_000_000
"""A picture that is later than this is not worth showing: ITU-R BT.1359 finds 45 ms of early sound detectable."""

START_PATIENCE_NS = NS // 2
"""How long the first stream waits for the other before both are taken as they come; what was due by then is late."""

ASTRAY_NS = NS
"""When for so long nothing came in time, the sender stood still or jumped, and playout follows it."""


class ClockReading(NamedTuple):
    """What is heard at a moment: media time `media_ns` at `now_ns`."""

    media_ns: int
    now_ns: int


class MediaClock:
    """Media time on the monotonic clock: now = base + media, the base steered by readings of what is heard.

    Readings scatter by milliseconds (a device reports its latency in steps), so each moves the base by a fraction
    `gain` of its error. One that is off by more than `snap_ns` is passed over; a third in a row, within `snap_ns` of
    the one before it, is believed at once.
    """

    def __init__(self, *, gain: float = 0.05, snap_ns: int = 60_000_000) -> None:
        self.led = False  # by readings
        self.base_ns: int | None = None
        """Where media time 0 falls; None before it is set."""
        self._gain = gain
        self._snap_ns = snap_ns
        self._strange = 0
        self._strange_ns = 0  # the base that the newest strange reading spoke for

    @property
    def running(self) -> bool:
        """Whether the clock has been set."""
        return self.base_ns is not None

    def set(self, base_ns: int) -> None:
        """Media time 0 falls on `base_ns`."""
        self.base_ns = base_ns
        self._strange = 0

    def shift(self, by_ns: int) -> None:
        """Everything from here on is presented later by `by_ns` (earlier when negative)."""
        if self.base_ns is not None:
            self.base_ns += by_ns

    def feed(self, *readings: ClockReading) -> None:
        """Steer by readings, in their order."""
        self.led = True
        base_ns, gain, snap_ns = self.base_ns, self._gain, self._snap_ns
        for media_ns, now_ns in readings:
            seen = now_ns - media_ns
            if base_ns is None:
                base_ns = seen
            error = seen - base_ns
            if -snap_ns <= error <= snap_ns:
                self._strange = 0
                base_ns += round(gain * error)
                continue
            again = self._strange > 0 and abs(seen - self._strange_ns) <= snap_ns
            self._strange = self._strange + 1 if again else 1
            self._strange_ns = seen
            if self._strange == 3:
                base_ns, self._strange = seen, 0
        self.base_ns = base_ns

    def media_ns(self, now_ns: int) -> int:
        """Media time at a moment; ValueError before the clock is set."""
        return now_ns - self._base()

    def when_ns(self, media_ns: int) -> int:
        """The moment of a media time; ValueError before the clock is set."""
        return self._base() + media_ns

    def _base(self) -> int:
        if self.base_ns is None:
            raise ValueError("the media clock has not been set")
        return self.base_ns


class Start:
    """When the first picture and the first sound are presented: together, and a playout delay after they came.

    `expect` names the streams; `arrived` is told of the first of each; `base_ns` is the answer, once all came or the
    first has waited for `START_PATIENCE_NS`.
    """

    def __init__(self, *, expect: set[str], delay_ns: int) -> None:
        self._missing = set(expect)
        self.delay_ns = delay_ns
        self._base_ns: int | None = None  # the latest arrival's, before any delay
        self._patience_ns: int | None = None

    def arrived(self, stream: str, pts_ns: int, now_ns: int) -> None:
        """The first of a stream is there, ready to be presented."""
        if stream not in self._missing:
            return
        self._missing.discard(stream)
        base_ns = now_ns - pts_ns
        self._base_ns = base_ns if self._base_ns is None else max(base_ns, self._base_ns)
        if self._patience_ns is None:
            self._patience_ns = now_ns + START_PATIENCE_NS

    def base_ns(self, now_ns: int, *, lead_ns: int = 0) -> int | None:
        """Where media time 0 falls on the monotonic clock; None while a stream is still awaited.

        `lead_ns` is how far ahead of being heard a device wants its sound: a delay shorter than that is lengthened.
        """
        if self._base_ns is None or self._patience_ns is None:
            return None
        if self._missing and now_ns < self._patience_ns:
            return None
        self._missing.clear()  # the answer is final, and there is nothing more to wake for
        return self._base_ns + max(self.delay_ns, lead_ns)

    @property
    def ready(self) -> bool:
        """Whether every stream came."""
        return self._base_ns is not None and not self._missing

    def wake_at(self) -> int | None:
        """When patience ends, while something is missing."""
        return self._patience_ns if self._missing else None


class Playout:
    """A Stage for pictures: holds each until its pts, newest wins. With `delay_ns` 0 a picture is shown as it comes.

    With sound, pictures keep to the sound; without, the clock goes to a sender that has stood still.

    What leaves is the picture to be shown, or `Dropped(picture, reason)`: `late` when it came too late to be worth
    showing, `skipped` when a newer one was due as well.
    """

    def __init__(self, clock: MediaClock, *, at_once: bool = False, tardy_ns: int = TARDY_NS, limit: int = 512) -> None:
        self.at_once = at_once
        self._clock = clock
        self._tardy_ns = tardy_ns
        self._limit = limit
        self._waiting: list[tuple[int, int, Any]] = []
        self._count = 0
        self._dropped: list[Dropped] = []
        self._shown_pts_ns: int | None = None
        self._ahead_ns = 0  # how early the newest picture in time was
        self._astray_ns: int | None = None  # since when none was

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> list[Any]:
        """What waits for its pts, the next one first."""
        return [item for _, _, item in sorted(self._waiting)]

    @property
    def shown_pts_ns(self) -> int | None:
        """The pts of the newest picture shown."""
        return self._shown_pts_ns

    def push(self, item: Any, now_ns: int, /) -> None:
        """Take a whole picture (anything with `pts_ns`)."""
        if self._shown_pts_ns is not None and item.pts_ns <= self._shown_pts_ns:
            self._dropped.append(Dropped(item, "late"))
            return
        if self._clock.running and not self.at_once and not self._in_time(item, now_ns):
            self._dropped.append(Dropped(item, "late"))
            return
        self._count += 1
        heapq.heappush(self._waiting, (item.pts_ns, self._count, item))
        if len(self._waiting) > self._limit:  # a sender far ahead of the clock: the oldest makes room
            self._dropped.append(Dropped(heapq.heappop(self._waiting)[2], "skipped"))

    def wake_at(self) -> int | None:
        """When the next picture is due; the moment is in the past when one is overdue."""
        if not self._waiting:
            return 0 if self._dropped else None
        base_ns = self._clock.base_ns
        if self._dropped or self.at_once:
            return 0
        return None if base_ns is None else base_ns + self._waiting[0][0]

    def pull(self, now_ns: int, /) -> list[Any]:
        """The newest picture due by now, and what was dropped for it; all that came, when shown at once."""
        out: list[Any] = []
        if self._dropped:
            out, self._dropped = list(self._dropped), []
        due = []
        while self._waiting and (self.at_once or self._is_due(now_ns)):
            due.append(heapq.heappop(self._waiting)[2])
        if not due:
            return out
        self._shown_pts_ns = due[-1].pts_ns
        for item, newer in zip_longest(due, due[1:]):
            # Shown at once, those that one read of the socket brought leave one after the other.
            skipped = newer is not None and (not self.at_once or newer.pts_ns == item.pts_ns)
            out.append(Dropped(item, "skipped") if skipped else item)
        return out

    def flush(self) -> list[Dropped]:
        """What still waits at the end of a run, as in flight."""
        left = [Dropped(item, "in_flight") for item in self.waiting]
        self._waiting.clear()
        out, self._dropped = self._dropped + left, []
        return out

    def _is_due(self, now_ns: int) -> bool:
        base_ns = self._clock.base_ns
        return base_ns is not None and base_ns + self._waiting[0][0] <= now_ns

    def _in_time(self, item: Any, now_ns: int) -> bool:
        ahead_ns = self._clock.when_ns(item.pts_ns) - now_ns
        if ahead_ns >= -self._tardy_ns:
            self._ahead_ns, self._astray_ns = max(0, ahead_ns), None
            return True
        if self._astray_ns is None:
            self._astray_ns = now_ns
        if self._clock.led or now_ns - self._astray_ns < ASTRAY_NS:
            return False
        self._clock.set(now_ns + self._ahead_ns - item.pts_ns)
        self._astray_ns = None
        return True
