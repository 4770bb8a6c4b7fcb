"""The last moments of a run, folded straight from the packed rows: cheap enough for four times a second, live.

Pure: a trace in, plain arrays out. The numbers are those of avlab.metrics, without a DataFrame on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from avlab.measure.numbers import metrics
from avlab.measure.numbers.convergence import Floats, Moment, trailing_rate
from avlab.measure.numbers.folds import without_gaps
from avlab.measure.numbers.loss import loss_bins
from avlab.measure.record.tables import FRAME_FATES, NS, STREAMS, UNKNOWN, Rows
from avlab.measure.record.trace import Trace

Series: TypeAlias = Floats
"""Shape (columns, points): the times in float seconds on the run's clock, then what was measured at each."""

_VIDEO = STREAMS.index("video")
_LATE = FRAME_FATES.index("late")


def fps(trace: Trace, at: Moment = "shown") -> Series:
    """Frames a second over the trailing second, as `metrics.fps`."""
    frames = _video(trace)
    times = np.sort(_seconds(trace, frames[at][frames[at] != UNKNOWN]))
    return np.stack([times, trailing_rate(times, 1.0)])


def interval_error(trace: Trace) -> Series:
    """Milliseconds by which each gap between two frames shown was too long, as `metrics.interval_error`."""
    frames = _video(trace)
    frames = frames[frames["shown"] != UNKNOWN]
    frames = frames[np.argsort(frames["shown"], kind="stable")]
    times, known = _seconds(trace, frames["shown"]), frames["pts"] != UNKNOWN
    pts = np.where(known, frames["pts"], 0) / NS
    target = trace.meta.get("target_fps")
    meant = np.where(known[1:] & known[:-1], np.diff(pts), 1 / target if target else np.nan)
    return np.stack([times[1:], (np.diff(times) - meant) * 1e3])


def sync(trace: Trace) -> Series:
    """Milliseconds by which the sound was early, at each reading."""
    rows = trace.rows("sync")
    known = (rows["video_pts"] != UNKNOWN) & (rows["audio_pts"] != UNKNOWN)
    offset = np.where(known, rows["audio_pts"] - rows["video_pts"], 0) / 1e6
    return np.stack([_seconds(trace, rows["time"]), np.where(known, offset, np.nan)])


def loss(trace: Trace) -> Series:
    """Percent of the packets lost, and of the frames damaged, in each second: as `metrics.loss`, times 100."""
    found = loss_bins(trace)
    return np.stack([found.numbers.astype(np.float64), found.packets * 100, found.frames * 100])


def bitrate(trace: Trace) -> Series:
    """Kilobits of video and of sound in each second, as `metrics.bitrate`."""
    bins, sums = metrics.bit_bins(trace)
    return np.concatenate([bins[np.newaxis].astype(np.float64), sums])


FOLDS: dict[str, Callable[[Trace], Series]] = {
    "fps": fps,
    "interval_error": interval_error,
    "sync": sync,
    "loss": loss,
    "bitrate": bitrate,
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
    frames, rows = _video(trace), trace.rows("sync")
    rows = rows[rows["time"] >= now_ns - NS]
    buffer = rows["buffer"][rows["buffer"] != UNKNOWN]
    offset = sync(trace)
    rates, losses = bitrate(trace), loss(trace)
    rates, losses = rates[1:, rates[0] + 1 <= end], losses[1, losses[0] + 1 <= end - 0.5]
    return Numbers(
        sent_fps=_rate_now(fps(trace, "sent"), end),
        received_fps=_rate_now(fps(trace, "complete"), end),
        shown_fps=_rate_now(fps(trace, "shown"), end),
        offset_ms=_median(offset[1][offset[0] >= end - 1]),
        loss_percent=_last(losses),
        bitrate_kbps=_last(rates.sum(axis=0)),
        buffer_ms=_median(buffer / 1e6),
        target_fps=trace.meta.get("target_fps"),
        late=int(((frames["fate"] == _LATE) & (frames["complete"] >= now_ns - 2 * NS)).sum()),
    )


def _rate_now(rates: Series, end: float) -> float | None:
    """The last rate; 0 when nothing has come for two seconds: a busy page's word on what it showed may take one.

    None when nothing ever came, as far as can be seen.
    """
    finite = rates[:, np.isfinite(rates[1])]
    if not finite.shape[1]:
        return None
    return float(finite[1, -1]) if finite[0, -1] > end - 2 else 0.0


def _last(values: Floats) -> float | None:
    return float(values[-1]) if len(values) and np.isfinite(values[-1]) else None


def _median(values: Floats) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _video(trace: Trace) -> Rows:
    frames = trace.rows("frames")
    video: Rows = frames[frames["stream"] == _VIDEO]
    return video


def _seconds(trace: Trace, times_ns: NDArray[np.int64]) -> Floats:
    return (times_ns - trace.epoch_ns) / NS


def _without_gaps(bins: Series, empty: float) -> Series:
    """The bins with those that lack between the first and the last."""
    numbers, values = without_gaps(bins[0].astype(np.int64), bins[1:], empty)
    return np.concatenate([numbers[np.newaxis].astype(np.float64), values])
