"""Rates: frames a second, how far the gaps between frames are off and what that adds up to, bits a second.

Pure: a trace in, arrays out, one fold a figure, batch by batch. Live plots, the panel, tables, summaries and plots all
take theirs from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from avlab.measure.numbers.folds import Bins, Floats, Series, of_frames, quantile, seconds, span_seconds
from avlab.measure.record.tables import CONNECTION_BACK, NS, PACKET_FATES, STREAMS, UNKNOWN, UNKNOWN32
from avlab.measure.record.trace import Trace

Moment: TypeAlias = Literal["shown", "sent", "complete"]
"""Where the frames of a video are watched: on the screen, leaving the server, or whole at the client."""

STILL_S = 2.0
"""Seconds without a frame after which the rate is 0: a busy page's word on what it showed may take one."""

_VIDEO = STREAMS.index("video")
_RECOVERED = PACKET_FATES.index("recovered")


# ---- frames


def moments(trace: Trace, at: Moment) -> Floats:
    """When video's frames were `at` that point, in order; those that never were are left out."""
    (times,) = of_frames(trace, "video", seen_at(trace, at))
    return (np.sort(times[times != UNKNOWN]) - trace.epoch_ns) / NS


def seen_at(trace: Trace, at: Moment) -> Moment:
    """In a capture nothing is shown: when a frame was whole stands for it."""
    return "complete" if at == "shown" and trace.meta["side"] == "capture" else at


def trailing_rate(times: Floats, window: float) -> Floats:
    """Intervals a second over the `window` seconds before each of these moments, which are in order; first NaN."""
    rate = np.full(len(times), np.nan)
    if len(times) > 1:
        here = np.arange(1, len(times))
        since = np.minimum(np.searchsorted(times, times[1:] - window - 1e-9), here - 1)
        span = times[1:] - times[since]
        rate[1:] = np.divide(here - since, span, out=np.full(len(span), np.inf), where=span > 0)
    return rate


def frame_rate(trace: Trace, at: Moment = "shown", window: float = 1.0) -> Series:
    """Frames a second at each frame, over the trailing `window` seconds: see `metrics.fps`."""
    if not window > 0:
        raise ValueError(f"window must be more than 0 seconds, not {window}")
    times = moments(trace, at)
    return np.stack([times, trailing_rate(times, window)])


def rate_now(rates: Series, now: float) -> float | None:
    """The last rate of a series as `frame_rate` makes it; 0 when nothing has come for `STILL_S` seconds before `now`.

    None when nothing ever came, as far as can be seen.
    """
    finite = rates[:, np.isfinite(rates[1])]
    if not finite.shape[1]:
        return None
    return float(finite[1, -1]) if finite[0, -1] > now - STILL_S else 0.0


def rate_of(moments_ns: Iterable[int], now_ns: int) -> float:
    """Frames a second over the trailing second, of moments in nanoseconds; 0 where `rate_now` has none."""
    times = np.sort(np.fromiter(moments_ns, np.int64)) / NS
    return rate_now(np.stack([times, trailing_rate(times, 1.0)]), now_ns / NS) or 0.0


def rate_by_timestamps(trace: Trace, at: Moment = "shown", window: float = 1.0) -> Series | None:
    """Frames a second at each frame as a part of what the clip's own timestamps ask for then: 1 is as asked.

    Over the trailing `window` seconds, and the stretch of the clip that was seen in it; the first NaN. None where the
    clip keeps one rate, or not all of its timestamps are known: they are a sender's.
    """
    times_ns, pts, index = of_frames(trace, "video", seen_at(trace, at), "pts", "index")
    offered = np.sort(pts[pts != UNKNOWN])
    # A receiver alone does not see which timestamps there were between those that came.
    if len(offered) < 3 or (index == UNKNOWN32).any() or not varies(offered):
        return None
    both = (times_ns != UNKNOWN) & (pts != UNKNOWN)
    order = np.argsort(times_ns[both], kind="stable")
    times, meant = seconds(trace, times_ns[both][order]), pts[both][order]
    if len(times) != int((times_ns != UNKNOWN).sum()) or len(times) < 2:
        return None
    here = np.arange(1, len(times))
    since = np.minimum(np.searchsorted(times, times[1:] - window - 1e-9), here - 1)
    real, media = times[1:] - times[since], (meant[1:] - meant[since]) / NS
    asked = np.searchsorted(offered, meant[1:]) - np.searchsorted(offered, meant[since])
    known = (real > 0) & (media > 0) & (asked > 0)
    part = np.full(len(times), np.nan)
    part[1:][known] = ((here - since) / np.maximum(asked, 1) * media / np.where(real > 0, real, 1))[known]
    part[1:][~known] = np.inf
    return np.stack([times, part])


def target_rate(trace: Trace, at: Moment = "shown", window: float = 1.0) -> Series | None:
    """Frames a second that the clip's own timestamps ask for at each frame; None where `rate_by_timestamps` is."""
    part = rate_by_timestamps(trace, at, window)
    if part is None:
        return None
    times, rate = frame_rate(trace, at, window)
    known = np.isfinite(rate) & np.isfinite(part[1]) & (part[1] > 0)
    return np.stack([times[known], rate[known] / part[1, known]])


VARIES = 0.02
"""A clip has a rate of its own at each moment when its seconds differ by more than this from each other."""


def varies(pts: NDArray[np.int64]) -> bool:
    """Whether a clip's rate changes, by its timestamps in ns, rising: gaps that take turns around one rate do not."""
    rates = trailing_rate(pts / NS, 1.0)
    rates = rates[pts - pts[0] >= NS]
    if len(rates) < 2:
        rates = trailing_rate(pts / NS, 0.25)[2:]
    return len(rates) > 1 and float(rates.max() - rates.min()) > VARIES * float(np.median(rates))


def mean_rate(times: Floats, backs: Floats | None = None) -> float | None:
    """Intervals a second, of moments in order, but for those in which a connection came back; None without any."""
    steps = np.diff(times)
    if backs is not None and len(steps):
        kept = np.ones(len(steps), bool)
        after = np.searchsorted(times, backs)
        kept[after[(after > 0) & (after < len(times))] - 1] = False
        steps = steps[kept]
    return float(len(steps) / steps.sum()) if steps.sum() > 0 else None


def came_back(trace: Trace) -> Floats:
    """When a client's connection, which had broken off, was there again; in order."""
    rows = (row.time_ns for row in trace.setting_rows if row.kind == "event" and row.name == CONNECTION_BACK)
    return (np.sort(np.fromiter(rows, np.int64)) - trace.epoch_ns) / NS


def target_fps(trace: Trace) -> float | None:
    """The fps that the clip means to have: meta's `target_fps`, else from the median gap between timestamps.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    named = trace.meta.get("target_fps")
    if named:
        return float(named)
    (pts,) = of_frames(trace, "video", "pts")
    gaps = np.diff(np.sort(pts[pts != UNKNOWN]) / NS)
    gap = quantile(gaps[gaps > 0], 0.5)
    return None if gap is None else 1 / gap


def interval_error(trace: Trace, at: Moment = "shown") -> Series:
    """Milliseconds by which each gap between two frames was longer than asked: see `metrics.interval_error`."""
    times_ns, pts = of_frames(trace, "video", seen_at(trace, at), "pts")
    there = times_ns != UNKNOWN
    times_ns, pts = times_ns[there], pts[there]
    order = np.argsort(times_ns, kind="stable")
    times, meant = seconds(trace, times_ns[order]), np.diff(span_seconds(pts[order]))
    unknown = np.isnan(meant)
    if unknown.any():
        target = target_fps(trace)
        meant[unknown] = np.nan if target is None else 1 / target
    return np.stack([times[1:], (np.diff(times) - meant) * 1e3])


def drift(trace: Trace, at: Moment = "shown") -> Series:
    """Milliseconds that the stream is behind its timestamps since the first frame: see `metrics.drift`."""
    times = moments(trace, at)
    return np.stack([times, np.append(0.0, np.cumsum(interval_error(trace, at)[1]))[: len(times)]])


# ---- bits


def bit_rate(trace: Trace, bin: float = 1.0) -> Series:
    """Kilobits of video's and of sound's packets a second, in bins of `bin` seconds: see `metrics.bitrate`."""
    server = trace.meta["side"] == "server"
    return _bits(trace, bin, "sent" if server else "received", recovered=server)


def sent_rate(trace: Trace, bin: float = 0.5) -> Series:
    """Kilobits of packets a second by when they were sent, or came where no record says: see `adaptation.sent_rate`."""
    known = any((rows["sent"] != UNKNOWN).any() for rows in trace.chunks("packets"))
    return _bits(trace, bin, "sent" if known else "received", recovered=known)


def _bits(trace: Trace, bin: float, at: Literal["sent", "received"], *, recovered: bool) -> Series:
    """By when packets were `at` that point; what a repair brought back counts only if `recovered`: no network did."""
    bins = Bins(2, bin)
    for rows in trace.chunks("packets"):
        counts = rows["bytes"] != UNKNOWN32
        if trace.meta["side"] == "capture":  # which has others' streams, too
            counts &= ~np.isin(rows["ssrc"], np.array(trace.meta.get("repair_ssrcs") or [], np.int64))
        if not recovered:
            counts &= rows["fate"] != _RECOVERED
        rows = rows if counts.all() else rows[counts]
        bits, video = rows["bytes"] * 8e-3 / bin, rows["stream"] == _VIDEO
        bins.add(seconds(trace, rows[at]), bits * video, bits * ~video)
    numbers, sums = bins.sums()
    return np.concatenate([numbers[np.newaxis] * bin, sums])
