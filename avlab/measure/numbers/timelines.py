"""What a list of timestamps says: the gaps between pictures, and how fast a player went through its clip. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class PictureGaps(NamedTuple):
    """The gaps between pictures, in milliseconds, and the mean rate that they make."""

    gaps_ms: Floats
    """Shape (pictures less one,)."""
    fps: float | None
    """Gaps by the time from first picture to last; None without a gap."""

    @property
    def even(self) -> bool:
        """Whether all are equal, but for two ticks of a 90 kHz clock."""
        return not len(self.gaps_ms) or float(np.ptp(self.gaps_ms)) < 2000 / 90_000


def gaps(times: Iterable[float]) -> PictureGaps:
    """The gaps between pictures that are shown at `times`, in seconds, in any order."""
    ordered = np.sort(np.fromiter(times, np.float64))
    span = float(ordered[-1] - ordered[0]) if len(ordered) else 0.0
    return PictureGaps(np.diff(ordered) * 1e3, (len(ordered) - 1) / span if span > 0 else None)


class Playing(NamedTuple):
    """How a player went through its clip. All in seconds."""

    real: Floats
    media: Floats
    speed: float | None
    """Seconds of clip in a second, from the first picture to the last; None when no time went by."""
    off: float
    """How far behind its timestamp the one picture came that was furthest from it; negative when ahead."""


def playing(seen: Sequence[tuple[float, float]]) -> Playing:
    """Fold what a player saw: pairs (moment, pts) of each picture, in seconds. ValueError without any."""
    if not len(seen):
        raise ValueError("a player's record needs at least one picture: a pair (moment, pts) in seconds for each")
    real, media = np.array(seen, np.float64).T
    real, media = real - real[0], media - media[0]
    speed = float(media[-1] / real[-1]) if real[-1] > 0 else None
    behind = real - media
    return Playing(real, media, speed, float(behind[np.abs(behind).argmax()]))


def steps(times: Sequence[float], apart: float = 0.5) -> list[int]:
    """Of changes at `times`, in order, the last of each run that follows its predecessor within `apart` seconds.

    A slider that is pulled makes dozens of them; only where it came to rest is worth a mark.
    """
    return [at for at, time in enumerate(times) if at + 1 == len(times) or times[at + 1] - time > apart]


class Seconds(NamedTuple):
    """What each second's values are like, those without any left out."""

    time: Floats
    """The middle of each second, in seconds."""
    median: Floats


def by_second(times: Iterable[float], values: Iterable[float]) -> Seconds:
    """The median of each second's values; those that are unknown (NaN) count nowhere."""
    at, value = np.asarray(list(times), np.float64), np.asarray(list(values), np.float64)
    known = np.isfinite(at) & np.isfinite(value)
    at, value = at[known], value[known]
    order = np.argsort(at, kind="stable")
    seconds, first = np.unique(np.floor(at[order]), return_index=True)
    parts = np.split(value[order], first[1:]) if len(first) else []
    return Seconds(seconds + 0.5, np.array([np.median(part) for part in parts], np.float64))
