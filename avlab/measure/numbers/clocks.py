"""Two computers' clocks against each other, as a run's record tells them.

Pure: a trace in, a frozen summary out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from avlab.measure.numbers.convergence import Printed
from avlab.measure.numbers.delays import clock_offset
from avlab.measure.record.clock_offset import ClockOffset, Side, told_alone
from avlab.measure.record.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Clocks(Printed):
    """How far the client's clock is ahead of the server's, and how fast it runs on it."""

    ahead_ms: float
    """In the middle of the run; negative where the client's clock is behind."""
    error_ms: float
    """By how much `ahead_ms` can be wrong at the most, however a round trip is shared by its two ways."""
    drift_ppm: float
    """By how much the client's clock is faster, in parts per million: 1 ppm is 3.6 ms an hour."""
    drift_error_ppm: float
    """By how much `drift_ppm` can be wrong at the most: a short run says little of it."""
    round_trip_ms: float | None
    """The shortest that reports told of; None where none did."""
    reports: int
    """How many told of the other side's clock."""
    consistent: bool
    """False where no two clocks that go on evenly fit: one has stopped or leapt, as when a computer slept."""


def clocks(trace: Trace) -> Clocks | None:
    """How far the clocks of a run's two computers are apart, from RTCP and the packets; None where nothing tells.

    A packet takes no less than nothing: each that arrives bounds the offset from above, each that the server receives
    from below. The estimate is the middle between the two, and half of what is between them is its error: about half of
    the shortest round trip (RFC 5905, section 10), also where one way is slower than the other. Bounds at different
    times are compared by straight lines (Moon, Skelly and Towsley, 1999), whose rate may change by 15 ppm (RFC 5905,
    PHI). Moments of the server come from sender reports, those of the client from receiver reference times (RFC 3611,
    4.4 and 4.5), or by what receiver reports answer (LSR and DLSR: RFC 3550, 6.4.1).

    Of a joined trace, they are the two monotonic clocks by which its times are compared; of a client's alone, the wall
    clocks, as far as its server answers. One clock that both sides share is 0 ahead, with no error.

    Args:
        trace: A run's record: both sides' joined, or a client's.
    """
    offset, joined = clock_offset(trace), bool(trace.meta.get("joined"))
    rows = trace.rows("clocks")
    trips = round_trips(trace)["round_trip_ms"]
    least = float(trips.min()) if len(trips) else None
    if joined and trace.meta.get("shared_clock"):
        return Clocks(ahead_ms=0.0, error_ms=0.0, drift_ppm=0.0, drift_error_ppm=0.0, round_trip_ms=least,
                      reports=len(rows), consistent=True)  # fmt: skip
    if not joined and trace.meta["side"] == "client":
        offset = told_alone(Side(rows, trace.meta.get("unix_offset_ns")))
    return None if offset is None else _summed(offset, least, len(rows))


def round_trips(trace: Trace) -> pd.DataFrame:
    """How long it was to the other side and back: a row a report that answers one of this side's, as it came.

    A server knows it by what receiver reports say of its sender reports (RFC 3550, 6.4.1), a client by what is said of
    its receiver reference times (RFC 3611, 4.5). Columns: `time` in seconds, `stream`, `round_trip_ms`, at least 0.

    Args:
        trace: A run's record, of either side or of both.
    """
    told = trace.clocks
    answers = told[told["echo"].notna()]
    trips = 1e3 * np.maximum(0.0, answers["time"] - answers["echo"] - answers["held"])
    made = {"time": answers["time"], "stream": answers["stream"], "round_trip_ms": trips}
    return pd.DataFrame(made).reset_index(drop=True)


def _summed(offset: ClockOffset, least: float | None, reports: int) -> Clocks:
    middle = len(offset.at_ns) // 2
    return Clocks(
        ahead_ms=float(offset.ahead_ns[middle]) / 1e6,
        error_ms=float(offset.error_ns[middle]) / 1e6,
        drift_ppm=offset.drift_ppm,
        drift_error_ppm=offset.drift_error_ppm,
        round_trip_ms=least,
        reports=reports,
        consistent=offset.consistent,
    )
