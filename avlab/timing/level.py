"""How early sound comes before it is heard, and when a sample must go in or out to keep it so. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

SETTLE = 100
"""How many arrivals the level to be kept is taken from: two thirds of a second of chunks of 40 ms, in six packets."""

MEMORY = 256
"""The moving average's length in arrivals."""

SURPRISE_NS = 20_000_000
"""The most that one arrival counts for, so that a burst after a pause does not pass for a drift."""

FAR_NS = 20_000_000
"""The depth of the buffer stays within this of its level: beyond it, sound is cut instead of corrected."""

_WITHIN_NS = FAR_NS + 0.5  # as far as that in whole nanoseconds

FEW = MEMORY // 4
_CALM_NS = FAR_NS - FEW * SURPRISE_NS // MEMORY

SLACK_NS = 1_500_000
"""How far the level may stray before samples are corrected. Arrivals that scatter by 3 ms move the average by 0.2."""


class LevelControl:
    """Keeps the margin, the time from a sound's arrival to its being heard, where its first arrivals had it.

    What is corrected counts in the average at once and not when later arrivals show it. Otherwise a lag of 256 arrivals
    makes a controller overshoot and swing for ever; so, it takes one sample at a time, at the pace of the drift.
    """

    def __init__(self) -> None:
        self._first: list[int] = []
        self._average_ns = 0.0
        self._target_ns: float | None = None
        self.wish = 0
        """Samples to consume beyond those asked for: 1 when too much is buffered, -1 when too little, mostly 0."""
        self.calm = True
        """Whether the level is that near to where it is kept that `FEW` arrivals cannot bring it far from there."""
        self.easing_ns = 0.0
        """How much is still to be taken out, slowly, and not to be put in again."""

    @property
    def level_ns(self) -> int:
        """The moving average of the margin."""
        return round(self._average_ns)

    @property
    def target_ns(self) -> int:
        """The margin that is kept: the middle of the first ones, or the average while those are still coming."""
        return round(self._average_ns if self._target_ns is None else self._target_ns)

    @property
    def stray_ns(self) -> int:
        """How far the level is above where it is to be kept; negative when too little is buffered."""
        return 0 if self._target_ns is None else round(self._average_ns - self._target_ns)

    def usual(self, margin_ns: int) -> bool:
        """Whether a margin is near the level, once there is one."""
        return self._target_ns is not None and abs(margin_ns - self._average_ns) <= SURPRISE_NS

    def arrival(self, margin_ns: int) -> bool:
        """Sound came `margin_ns` before it is to be heard; whether the level is `FAR_NS` from where it is kept."""
        self.arrivals((margin_ns,))
        return self._target_ns is not None and not -_WITHIN_NS <= self._average_ns - self._target_ns <= _WITHIN_NS

    def arrivals(self, moments_ns: Sequence[int], later_ns: int = 0) -> None:
        """Sound came so long before it is to be heard, each time later by `later_ns`."""
        target_ns, average_ns = self._target_ns, self._average_ns
        if target_ns is None:
            self._settle([moment_ns + later_ns for moment_ns in moments_ns])
            return
        for moment_ns in moments_ns:
            surprise_ns = moment_ns + later_ns - average_ns
            if surprise_ns > SURPRISE_NS:
                surprise_ns = SURPRISE_NS
            elif surprise_ns < -SURPRISE_NS:
                surprise_ns = -SURPRISE_NS
            average_ns += surprise_ns / MEMORY
        self._average_ns = average_ns
        stray_ns = average_ns - target_ns
        if -SLACK_NS <= stray_ns <= SLACK_NS:
            self.wish, self.calm = 0, True
        else:
            self.wish, self.calm = 1 if stray_ns > 0 else -1, -_CALM_NS <= stray_ns <= _CALM_NS

    def _settle(self, margins_ns: Sequence[int]) -> None:
        """The first arrivals, of which the level is taken; with `SETTLE` of them, those after that are `arrivals`."""
        first = self._first
        for at, margin_ns in enumerate(margins_ns, 1):
            first.append(margin_ns)
            self._average_ns += (margin_ns - self._average_ns) / len(first)
            if len(first) == SETTLE:
                self._average_ns = self._target_ns = _middle(first)
                first.clear()
                self.arrivals(margins_ns[at:])
                return

    def corrected(self, by_ns: float) -> None:
        """What comes from here on has a margin higher by `by_ns`, as was wished."""
        self._average_ns += by_ns
        self._first = [margin_ns + round(by_ns) for margin_ns in self._first]
        self.arrivals(())

    def ease(self, by_ns: int) -> None:
        """The margin may come down by `by_ns`, a little at a time; 0 for no further. Replaces what was said before."""
        self.easing_ns = float(by_ns)

    def eased(self, by_ns: float) -> None:
        """So much of it was taken out: the margin is lower by that, and is to stay so."""
        self.easing_ns = max(0.0, self.easing_ns - by_ns)
        self.shift(-by_ns)

    def shift(self, by_ns: float) -> None:
        """The margin is higher by `by_ns` from here on, and is to stay so."""
        if self._target_ns is not None:
            self._target_ns += by_ns
        self.corrected(by_ns)


def _middle(margins_ns: Sequence[int]) -> float:
    """The mean of the margins around their median: where the moving average comes to rest with more like these.

    The median alone is no middle of bursts: of six packets that come together it is the third's or the fourth's.
    """
    middle_ns = median(margins_ns)
    return fmean([margin_ns for margin_ns in margins_ns if abs(margin_ns - middle_ns) <= SURPRISE_NS] or margins_ns)
