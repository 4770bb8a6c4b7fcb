"""The last moments of a run: what live plots follow, and what goes on at this moment. Cheap enough for four times a
second.

Pure: a trace in, plain arrays out, by the folds in `rates`, `loss` and `delays`, as avlab.metrics has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avlab.measure.numbers.delays import sound_buffered, sync_offsets
from avlab.measure.numbers.folds import Floats, Series, of_frames, without_gaps
from avlab.measure.numbers.loss import loss_series
from avlab.measure.numbers.rates import bit_rate, frame_rate, interval_error, rate_now, target_fps
from avlab.measure.record.tables import FRAME_FATES, NS
from avlab.measure.record.trace import Trace

LOOK_S = 3.0
"""How much of a trace `numbers` needs: what is of the last second, and what has yet to be decided, are in it."""

_LATE = FRAME_FATES.index("late")
_SETTLES_S = 0.5
"""Seconds after which what was lost in a second is known."""


def loss(trace: Trace) -> Series:
    """Percent of the packets lost, and of the frames damaged, in each second: as `metrics.loss`, times 100."""
    found = loss_series(trace)
    found[1:] *= 100
    return found


FOLDS: dict[str, Callable[[Trace], Series]] = {
    "fps": frame_rate,
    "interval_error": interval_error,
    "sync": sync_offsets,
    "loss": loss,
    "bitrate": bit_rate,
}
"""What can be followed live, by the name of its plot."""

_BINNED = ("loss", "bitrate")


class Recent:
    """The last `seconds` of a run as series, kept up to date from ever new tails of its trace.

    For `patience_ns` a frame's verdict, or a packet, may still be under way; what is twice as old does not change any
    more. `reach` says how far back the next tail must go.
    """

    def __init__(self, kinds: tuple[str, ...], *, seconds: float = 30.0, patience_ns: int = NS) -> None:
        unknown = [kind for kind in kinds if kind not in FOLDS]
        if unknown or not kinds:
            raise ValueError(f"kinds must be of {', '.join(FOLDS)}, not {', '.join(map(repr, unknown)) or 'none'}")
        if not seconds > 0:
            raise ValueError(f"seconds must be more than 0, not {seconds}")
        self.seconds, self.patience_ns = seconds, patience_ns
        self.series: dict[str, Series] = {kind: np.empty((3 if kind in _BINNED else 2, 0)) for kind in kinds}
        self.since_ns: int | None = None
        self._settled = -np.inf  # seconds: before this moment, points are kept as they are

    def update(self, trace: Trace, now_ns: int) -> None:
        """Take in a tail that reaches back to `since_ns`, as it was at `now_ns`."""
        now = (now_ns - trace.epoch_ns) / NS
        for kind, old in self.series.items():
            new = FOLDS[kind](trace)
            since = self._settled
            if kind in _BINNED:  # a second that has not been seen whole says nothing yet
                since = np.floor(since) if np.isfinite(since) else since
                new = new[:, new[0] + 1 <= now - (self.patience_ns / NS if kind == "loss" else 0)]
            merged = np.concatenate([old[:, old[0] < since], new[:, new[0] >= since]], axis=1)
            if kind in _BINNED:
                merged = _without_gaps(merged, np.nan if kind == "loss" else 0.0)
            self.series[kind] = merged[:, merged[0] >= now - self.seconds - (1 if kind in _BINNED else 0)]
        self._settled = max(self._settled, now - 2 * self.patience_ns / NS)
        # The next tail must hold whole bins, the second before the first new point, and the frame before that.
        firsts = [self._settled - 1.0]
        for kind, series in self.series.items():
            kept = series[0][series[0] < self._settled]
            if kind not in _BINNED and len(kept):
                firsts.append(kept[-1] - 1e-6)
        self.since_ns = trace.epoch_ns + int(min(firsts) * NS)

    def reach(self, now_ns: int) -> float:
        """How many seconds back from `now_ns` the next tail must go; never further than what is kept."""
        longest = self.seconds + 1 + 2 * self.patience_ns / NS
        return longest if self.since_ns is None else min(longest, (now_ns - self.since_ns) / NS)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What goes on at this moment; None where it is not known. Rates and loss are of the last second that is whole."""

    sent_fps: float | None
    received_fps: float | None
    shown_fps: float | None
    offset_ms: float | None
    loss_percent: float | None
    bitrate_kbps: float | None
    buffer_ms: float | None
    target_fps: float | None
    """The clip's own rate."""
    late: int
    """Pictures of the last two seconds that came whole, and too late to be shown."""


def numbers(trace: Trace, now_ns: int) -> Numbers:
    """The numbers of a trace's last second, at `now_ns` on its clock."""
    end = (now_ns - trace.epoch_ns) / NS
    offset, buffer, rates = sync_offsets(trace), sound_buffered(trace), bit_rate(trace)
    fates, complete = of_frames(trace, "video", "fate", "complete")
    return Numbers(
        sent_fps=rate_now(frame_rate(trace, "sent"), end),
        received_fps=rate_now(frame_rate(trace, "complete"), end),
        shown_fps=rate_now(frame_rate(trace, "shown"), end),
        offset_ms=_median(offset[1, offset[0] >= end - 1]),
        loss_percent=loss_now(trace, now_ns),
        bitrate_kbps=_of_second(rates[0], rates[1:].sum(axis=0), end, nothing=0.0),
        buffer_ms=_median(buffer[1, buffer[0] >= end - 1]),
        target_fps=target_fps(trace),
        late=int(((fates == _LATE) & (complete >= now_ns - 2 * NS)).sum()),
    )


def loss_now(trace: Trace, now_ns: int) -> float | None:
    """Percent of the packets lost in the last second that is whole, and half a second old; None where it says nothing.

    What the panel and the picture's overlay show.
    """
    found = loss(trace)
    return _of_second(found[0], found[1], (now_ns - trace.epoch_ns) / NS - _SETTLES_S, nothing=None)


def _of_second(seconds: Floats, values: Floats, end: float, *, nothing: float | None) -> float | None:
    """The value of the last second that is whole by `end`: `nothing` after the last of `seconds`, None before them."""
    second = np.floor(end) - 1
    if not len(seconds) or second < seconds[0]:
        return None
    if second > seconds[-1]:
        return nothing
    value = float(values[np.searchsorted(seconds, second)])
    return value if np.isfinite(value) else None


def _median(values: Floats) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _without_gaps(bins: Series, empty: float) -> Series:
    """The bins with those that lack between the first and the last."""
    numbers, values = without_gaps(bins[0].astype(np.int64), bins[1:], empty)
    return np.concatenate([numbers[np.newaxis].astype(np.float64), values])
