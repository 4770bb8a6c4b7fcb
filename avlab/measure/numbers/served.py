"""What a server's own record says at its end: what it sent, to how many, and what they reported. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from avlab.measure.numbers.convergence import Printed
from avlab.measure.numbers.folds import of_frames, quantile
from avlab.measure.record.tables import NS, STREAMS, UNKNOWN
from avlab.measure.record.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Served(Printed):
    """A server's run in a table. What was reported is None without a report (RFC 3550, 6.4)."""

    frames: int
    """Pictures that were sent, once each however many clients had them."""
    seconds: float
    """From the first picture to the last."""
    fps: float | None
    packets: int
    """To all clients, of pictures, sound and repairs."""
    megabytes: float
    reporting: int
    """Clients' streams that reported."""
    loss_percent: float | None
    """Lost of all that they should have had, by each one's last report."""
    jitter_ms: float | None
    """The median of all reports on pictures; of all, where there are none."""
    round_trip_ms: float | None
    """The median of all reports."""


def served(trace: Trace) -> Served:
    """Fold a server's record. What was sent counts by packets; the classic wire has no reports."""
    (sent,) = of_frames(trace, "video", "sent")
    sent = np.sort(sent[sent != UNKNOWN])
    span = float(sent[-1] - sent[0]) / NS if len(sent) > 1 else 0.0
    packets = size = 0
    count: dict[int, int] = {}
    for rows in trace.chunks("packets"):
        mine = rows[rows["sent"] != UNKNOWN]
        packets += len(mine)
        size += int(mine["bytes"].sum())
        for ssrc, number in zip(*np.unique(mine["ssrc"], return_counts=True), strict=True):
            count[int(ssrc)] = count.get(int(ssrc), 0) + int(number)
    reports = trace.reports
    last = reports.groupby("ssrc").tail(1)
    lost, due = 0.0, 0
    for ssrc, number in zip(last["ssrc"], last["lost"], strict=True):
        if int(ssrc) in count and number == number and number is not None:
            lost, due = lost + max(0.0, float(number)), due + count[int(ssrc)]
    pictures = reports[reports["stream"] == STREAMS[0]]
    return Served(
        frames=len(sent),
        seconds=span,
        fps=(len(sent) - 1) / span if span else None,
        packets=packets,
        megabytes=size / 1e6,
        reporting=len(last),
        loss_percent=100 * lost / due if due else None,
        jitter_ms=_median_ms(pictures["jitter"] if len(pictures) else reports["jitter"]),
        round_trip_ms=_median_ms(reports["round_trip"]),
    )


def _median_ms(seconds: Any) -> float | None:
    known = seconds.to_numpy(np.float64, na_value=np.nan)
    return quantile(known[np.isfinite(known)] * 1e3, 0.5)
