"""Runs beside each other: a row a trace, its convergence numbers in the columns. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from avlab.measure.numbers.convergence import convergence, drift
from avlab.measure.numbers.rates import Moment
from avlab.measure.record.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "settled_s": "settled, s",
    "overshoot_percent": "overshoot, %",
    "ripple_ms": "ripple, ms",
    "rate_error_ppm": "rate error, ppm",
    "drift_ms_per_minute": "slide, ms a minute",
}
"""Of `Convergence`, what is compared, and how a column is headed."""


def compare(traces: Mapping[str, Trace], at: Moment = "sent") -> pd.DataFrame:
    """How each run's rate came to its target and kept it: a row a trace, columns as in `COLUMNS` and `behind, ms`.

    `behind, ms` is how far behind its timestamps the last frame is; NaN stands for what never came or is not known.
    `convergence` says what the others mean.

    Args:
        traces: Records by name.
        at: Which moment of a frame counts: "shown", "sent" or "complete".
    """
    import pandas as pd

    rows = {}
    for name, trace in traces.items():
        found, behind = convergence(trace, at), drift(trace, at)["drift_ms"]
        row = {label: getattr(found, field) for field, label in COLUMNS.items()}
        rows[name] = row | {"behind, ms": float(behind.iloc[-1]) if len(behind) else None}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*COLUMNS.values(), "behind, ms"], dtype=float)
    return table.round(2) + 0.0  # no minus before a zero
