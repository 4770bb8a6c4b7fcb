"""How a stream's rate comes to its target and keeps it: fps, settling, overshoot, ripple, drift.

Pure: a trace in, DataFrames and a frozen summary out, of the folds in `rates`. avlab.metrics has these names and all
others.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from avlab.measure.numbers import rates as folded
from avlab.measure.numbers.folds import Floats, as_table, of_frames, quantile, span_seconds
from avlab.measure.numbers.rates import Moment, mean_rate, target_fps
from avlab.measure.record.tables import NS, UNKNOWN
from avlab.measure.record.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

_UNITS = {
    "ms_per_minute": "ms/min",
    "ms": "ms",
    "ppm": "ppm",
    "s": "s",
    "seconds": "s",
    "fps": "fps",
    "kbps": "kbit/s",
    "percent": "%",
}


class Printed:
    """Prints as a table: a row a field, the unit that ends a field's name after its value."""

    def __str__(self) -> str:
        lines = []
        for field in fields(self):  # type: ignore[arg-type]  # every heir is a dataclass
            name = field.name
            suffix = next((suffix for suffix in _UNITS if f"_{name}".endswith(f"_{suffix}")), None)
            unit = _UNITS[suffix] if suffix else ""
            label = (name.removesuffix(f"_{suffix}") if suffix else name).replace("_", " ")
            value = getattr(self, field.name)
            if isinstance(value, bool):
                value = "yes" if value else "no"
            elif isinstance(value, float):
                value = (
                    f"{value:,.0f}"
                    if abs(value) >= 1000
                    else f"{round(value, 3) + 0.0:.3g}"
                    if abs(value) < 10
                    else f"{value:.2f}"
                )
            lines.append(f"{label:<16}{'-' if value is None else value:>10} {'' if value is None else unit}".rstrip())
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Convergence(Printed):
    """How fps came to its target.

    `settled_s` counts from the first frame; `rate_error_ppm` is how much faster the clip went by than time did, from
    the first frame to the last. `overshoot_percent` is how far fps went beyond the target, seen from where it began, in
    percent of the target. From settling on (over all, if it never settled): `deviation_fps`, standard deviation;
    `ripple_ms`, how much the time between frames swings, 95th percentile less 5th; `drift_ms_per_minute`, how much
    further behind its timestamps the stream comes in a minute.

    A clip whose rate varies is judged by its own timestamps: settling and overshoot are of fps as a part of what these
    ask for at each moment.
    """

    target_fps: float | None
    settled_s: float | None
    mean_fps: float | None
    deviation_fps: float | None
    rate_error_ppm: float | None
    overshoot_percent: float | None
    ripple_ms: float | None
    drift_ms_per_minute: float | None


def fps(trace: Trace, at: Moment = "shown", window: float = 1.0) -> pd.DataFrame:
    """Frames a second at each frame, over the trailing `window` seconds: columns time, fps.

    A rate is intervals over their length, not frames in a window: 29.97 fps then reads 29.97 and not 29 or 30 by
    turns. The first frame has none (NaN); in the first second the window is what there is; a gap counts in full.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        at: Which moment of a frame counts: "shown", "sent" or "complete".
        window: Seconds, more than 0.
    """
    return as_table(folded.frame_rate(trace, at, window), "time", "fps")


HELD = 1.0
"""Seconds that a rate must stay in its band before it counts as settled: as long as the rate itself looks back."""


def settling_time(rates: pd.DataFrame, target: float, band: float = 0.02) -> float | None:
    """Seconds from the first frame until fps is within `band` of `target` for good; None if it never is.

    For good is to the end, and for `HELD` seconds at least: a run that is in the band with its last frame has not
    settled.

    Args:
        rates: Columns time and fps, as `fps` gives them.
        target: Frames a second.
        band: The share of `target` that fps may be off, 0.02 for 2 %.
    """
    return _settled(np.asarray(rates["time"], np.float64), np.asarray(rates["fps"], np.float64), target, band)


def _settled(times: Floats, values: Floats, target: float, band: float) -> float | None:
    outside = np.flatnonzero(~(np.abs(values - target) <= (band + 1e-9) * target))  # a first NaN is outside
    settled = int(outside[-1]) + 1 if len(outside) else 0
    if settled >= len(values):
        return None
    return float(times[settled] - times[0]) if times[-1] - times[settled] >= HELD - 1e-9 else None


def convergence(trace: Trace, at: Moment = "shown", band: float = 0.02) -> Convergence:
    """How, and how exactly, fps came to its target; watch a pacer with `at="sent"`.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        at: Which moment of a frame counts: "shown", "sent" or "complete".
        band: The share of the target that fps may be off, 0.02 for 2 %.
    """
    (times, values), target = folded.frame_rate(trace, at), target_fps(trace)
    asked, judged, goal = folded.rate_by_timestamps(trace, at), (times, values), target
    if asked is not None and target is not None:  # a rate that varies by itself is judged by what it ought to be
        judged, goal = (asked[0], asked[1]), 1.0
    settled = None if goal is None else _settled(*judged, goal, band)
    since = -np.inf if settled is None else times[0] + settled
    after = values[np.isfinite(values) & (times >= since)]  # frames that left at once have no finite rate
    real, meant = _timed(trace, at)
    ppm = None
    if len(real) > 1 and real[-1] > real[0]:
        ppm = float((meant[-1] - meant[0]) / (real[-1] - real[0]) - 1) * 1e6
    errors, drifts = folded.interval_error(trace, at), folded.drift(trace, at)
    swing = errors[1, (errors[0] >= since) & np.isfinite(errors[1])]
    low, high = quantile(swing, 0.05), quantile(swing, 0.95)
    return Convergence(
        target_fps=target,
        settled_s=settled,
        mean_fps=mean_rate(times, folded.came_back(trace)),
        deviation_fps=float(np.std(after)) if len(after) else None,
        rate_error_ppm=ppm,
        overshoot_percent=None if goal is None else _overshoot(judged[1][np.isfinite(judged[1])], goal),
        ripple_ms=None if low is None or high is None else high - low,
        drift_ms_per_minute=_slope(drifts[:, drifts[0] >= since]),
    )


def interval_error(trace: Trace, at: Moment = "shown") -> pd.DataFrame:
    """How much longer each gap between frames was than the timestamps ask: columns time, error_ms.

    Without timestamps (a client before the join), the gap asked for is the one of the nominal rate.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        at: Which moment of a frame counts: "shown", "sent" or "complete".
    """
    return as_table(folded.interval_error(trace, at), "time", "error_ms")


def drift(trace: Trace, at: Moment = "shown") -> pd.DataFrame:
    """How far behind its timestamps the stream has come since the first frame: columns time, drift_ms.

    Positive when behind. What `interval_error` says of each gap, added up.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        at: Which moment of a frame counts: "shown", "sent" or "complete".
    """
    return as_table(folded.drift(trace, at), "time", "drift_ms")


def _timed(trace: Trace, at: Moment) -> tuple[Floats, Floats]:
    """When video's frames were `at` that point, in order, and their pts, of those that have both; in seconds."""
    times, pts = of_frames(trace, "video", at, "pts")
    both = (times != UNKNOWN) & (pts != UNKNOWN)
    times, pts = times[both], pts[both]
    order = np.argsort(times, kind="stable")
    return (times[order] - trace.epoch_ns) / NS, span_seconds(pts[order])


def _overshoot(values: Floats, target: float) -> float | None:
    """How far beyond the target, seen from the first value, the furthest one is, in percent."""
    if not len(values):
        return None
    beyond = (values - target) * (1.0 if values[0] < target else -1.0)
    return max(0.0, float(beyond.max())) / target * 100


def _slope(drifts: Floats) -> float | None:
    """Milliseconds a minute, by least squares: one late frame at the end changes little."""
    times, values = drifts[:, np.isfinite(drifts[1])]
    if len(times) < 2 or not times[-1] > times[0]:
        return None
    times = times - times.mean()
    return float(times @ values / (times @ times)) * 60


def video_frames(trace: Trace, stream: str = "video") -> pd.DataFrame:
    """The rows of one stream."""
    frames = trace.frames
    return frames[frames["stream"] == stream]


def known(column: pd.Series[Any]) -> Floats:
    """A column's values, those that are missing left out."""
    return np.asarray(column.dropna(), np.float64)
