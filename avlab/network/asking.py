"""A rule of anyone's own for which lost packets to ask for again, and when, in the place of a `Requester`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from avlab.network.ownrepair import Working
from avlab.network.retransmission import KEEP_NS, SPARE_NS, Requester, RoundTrip
from avlab.parts import Missing
from avlab.timing.playout import TARDY_NS
from avlab.wire.units import NS

ASK_NS = 10_000_000
"""How often it is asked while something is missing; besides, whenever something has come."""

MOST_MISSING = 512
"""How many missing packets are kept in mind; of more the oldest are given up."""


@dataclass(slots=True)
class _AskedGap:
    since_ns: int
    media_ns: int  # of the packet after it: its own frame's is no later
    asked: int = 0
    asked_ns: int = 0  # when last
    over: bool = False  # it is not told of any more, though an answer may still come


class OwnRequester:
    """Asks a repair's `ask` which packets of one stream to ask for again; the same methods as a `Requester`'s.

    A packet is missing once a later one has come, until its frame is of no more use. Where the repair fails, the rule
    that comes with avlab takes over: it has seen everything, too.
    """

    def __init__(self, working: Working) -> None:
        self._working, self._usual = working, Requester()
        self.trip = RoundTrip()
        self._gaps: dict[int, _AskedGap] = {}
        self._highest: int | None = None
        self._epoch_ns = 0  # when the first packet came
        self._wake_ns: int | None = None

    @property
    def base_ns(self) -> int | None:
        """Where media time 0 falls, if that is known; its owner keeps it."""
        return self._usual.base_ns

    @base_ns.setter
    def base_ns(self, value: int | None) -> None:
        self._usual.base_ns = value

    @property
    def least_delay_ns(self) -> int:
        """How long frames must wait for two answers to come in time; 0 before any came, half a second at the most."""
        return 0 if self.trip.smooth_ns is None else min(NS // 2, 2 * self.trip.smooth_ns + SPARE_NS)

    def arrived(self, sequence: int, media_ns: int, marker: bool, now_ns: int) -> None:
        """A packet came by itself: its unwrapped number, its frame's pts, whether it is its frame's last."""
        self._usual.arrived(sequence, media_ns, marker, now_ns)
        self._gaps.pop(sequence, None)
        highest = self._highest
        if highest is None:
            self._epoch_ns = now_ns
        elif sequence > highest + 1:
            for number in range(max(highest + 1, sequence - MOST_MISSING), sequence):
                self._gaps[number] = _AskedGap(now_ns, media_ns)
            while len(self._gaps) > MOST_MISSING:
                del self._gaps[next(iter(self._gaps))]
        self._highest = sequence if highest is None else max(highest, sequence)
        if self._gaps:
            self._wake_ns = now_ns

    def arrived_together(self, first: int, count: int, media_ns: int, marker: bool, now_ns: int) -> None:
        """Packets of one frame came together, numbered from `first` on; `marker` is the last one's."""
        for at in range(count):
            self.arrived(first + at, media_ns, marker and at == count - 1, now_ns)

    def restored(self, sequence: int, media_ns: int, marker: bool, now_ns: int) -> bool:
        """A retransmission of a packet came; whether it had been asked for and was still missing."""
        gap = self._gaps.get(sequence)
        if gap is None or not gap.asked:
            return self._usual.restored(sequence, media_ns, marker, now_ns)
        del self._gaps[sequence]
        self._usual.settled(sequence)
        if gap.asked == 1:  # Karn's rule, RFC 6298 section 3
            self.trip.measure(now_ns - gap.asked_ns, now_ns)
        return True

    def settled(self, sequence: int) -> None:
        """A packet is here by another way."""
        self._gaps.pop(sequence, None)
        self._usual.settled(sequence)

    def wake_at(self) -> int | None:
        """The next moment at which there may be something to ask for."""
        return self._usual.wake_at() if self._working.broken else self._wake_ns

    def pull(self, now_ns: int) -> list[int]:
        """The sequence numbers to ask for now."""
        if self._working.broken:
            return self._usual.pull(now_ns)
        if self._wake_ns is None or now_ns < self._wake_ns:
            return []
        self._forget(now_ns)
        missing = [self._missing(number, gap) for number, gap in sorted(self._gaps.items()) if not gap.over]
        self._wake_ns = now_ns + ASK_NS if missing else None
        if not missing:
            return []
        asked = self._working.ask(missing, (now_ns - self._epoch_ns) / NS)
        if asked is None:
            return self._usual.pull(now_ns)
        for number in asked:
            gap = self._gaps[number]
            gap.asked, gap.asked_ns = gap.asked + 1, now_ns
        return asked

    def _forget(self, now_ns: int) -> None:
        """What is of no more use is not told of; what was asked for is known for a while, as it may come."""
        for number, gap in list(self._gaps.items()):
            deadline_ns = self._deadline_ns(gap)
            gap.over = now_ns > (gap.since_ns + KEEP_NS if deadline_ns is None else deadline_ns)
            if gap.over and (not gap.asked or now_ns - gap.asked_ns > KEEP_NS):
                del self._gaps[number]

    def _deadline_ns(self, gap: _AskedGap) -> int | None:
        return None if self.base_ns is None else self.base_ns + gap.media_ns + TARDY_NS

    def _missing(self, number: int, gap: _AskedGap) -> Missing:
        deadline_ns, trip_ns = self._deadline_ns(gap), self.trip.smooth_ns
        return Missing(
            number,
            (gap.since_ns - self._epoch_ns) / NS,
            gap.asked,
            None if deadline_ns is None else (deadline_ns - self._epoch_ns) / NS,
            None if trip_ns is None else trip_ns / NS,
        )
