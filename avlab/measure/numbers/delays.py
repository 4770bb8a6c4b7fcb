"""When sound and picture are presented, and how long packets take: offsets, what waits, one-way delay, jitter.

Pure: a trace in, arrays out, one fold a figure, batch by batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avlab.measure.numbers.folds import Flags, Floats, Ints, Series, every, seconds, some_packets
from avlab.measure.record.clock_offset import ClockOffset
from avlab.measure.record.tables import PACKET_FATES, STREAMS, UNKNOWN, Rows
from avlab.measure.record.trace import Trace

VIDEO_HZ = 90_000
"""Ticks a second of video's media clock (RFC 3551)."""

_RECOVERED = PACKET_FATES.index("recovered")


# ---- picture against sound


def sync_offsets(trace: Trace) -> Series:
    """Milliseconds by which the sound was early, at each reading; NaN where the reading has no picture or no sound."""
    parts = []
    for rows in trace.chunks("sync"):
        known = (rows["video_pts"] != UNKNOWN) & (rows["audio_pts"] != UNKNOWN)
        offset = np.where(known, rows["audio_pts"] - rows["video_pts"], 0) / 1e6
        parts.append(np.stack([seconds(trace, rows["time"]), np.where(known, offset, np.nan)]))
    return np.concatenate(parts, axis=1)


def sound_buffered(trace: Trace) -> Series:
    """Milliseconds of sound that waited before its device, at each reading that says so."""
    parts = []
    for rows in trace.chunks("sync"):
        rows = rows[rows["buffer"] != UNKNOWN]
        parts.append(np.stack([seconds(trace, rows["time"]), rows["buffer"] / 1e6]))
    return np.concatenate(parts, axis=1)


# ---- packets


class TimedPackets(NamedTuple):
    """Packets that the network delivered, in milliseconds each."""

    time: Floats
    stream: NDArray[np.int8]
    ssrc: Ints
    ms: Floats


class OneWay(NamedTuple):
    """How long packets that were delivered were under way, in milliseconds, and by how much that can be wrong."""

    time: Floats
    """When each was sent."""
    stream: NDArray[np.int8]
    ssrc: Ints
    ms: Floats
    error_ms: Floats
    """0 where both sides have one clock; of two, all of a run's delays are wrong alike, and not each by chance."""


def arrived(rows: Rows) -> Flags:
    """Which packets the network delivered; what a repair brought back is not among them."""
    came: Flags = (rows["received"] != UNKNOWN) & (rows["fate"] != _RECOVERED)
    return came


def one_way(trace: Trace) -> OneWay:
    """Each received packet's delay, in order of sending; NaN where nothing tells how far two clocks are apart.

    Of more than five million packets, one in two, in three and so on.
    """
    parts = [rows[["stream", "ssrc", "sent", "received"]][arrived(rows) & (rows["sent"] != UNKNOWN)]
             for rows in some_packets(trace)]  # fmt: skip
    rows = np.concatenate(parts)
    rows = rows[np.argsort(rows["sent"], kind="stable")]
    shared = trace.meta.get("shared_clock", trace.meta["side"] == "simulation")
    sent = seconds(trace, rows["sent"])
    delay = (rows["received"] - rows["sent"]) / 1e6
    if shared:
        error = np.zeros(len(rows))
    elif (offset := clock_offset(trace)) is not None:
        error = offset.error_at(rows["received"]) / 1e6
    else:
        delay = error = np.full(len(rows), np.nan)
    return OneWay(sent, rows["stream"], rows["ssrc"], delay, error)


def clock_offset(trace: Trace) -> ClockOffset | None:
    """How far the clocks of a joined run's two sides are apart; None where they are one, or nothing tells."""
    return ClockOffset.of_plain(trace.meta.get("clock_offset"))


def interarrival_jitter(trace: Trace) -> TimedPackets:
    """Jitter as receivers report it (RFC 3550, 6.4.1), at each packet: see `metrics.jitter`."""
    import pandas as pd  # which has the smoothing that numpy lacks

    rates = np.array([float(VIDEO_HZ), float(trace.meta.get("audio_rate") or np.nan)])
    rates[~(rates > 0)] = np.nan
    own = _own_rates(trace)
    step = every(trace.count("packets"))
    parts: list[TimedPackets] = []
    held = np.empty(0, [("lane", "<i8"), ("received", "<i8"), ("timestamp", "<i8"), ("jitter", "<f8")])
    for rows in trace.chunks("packets"):
        rows = rows[arrived(rows) & (rows["timestamp"] != UNKNOWN) & (rows["ssrc"] != UNKNOWN)]
        # Where a stream was left off comes first, with the jitter that it had; then what has come since.
        fresh = np.zeros(len(rows), held.dtype)
        fresh["lane"] = rows["ssrc"] * len(STREAMS) + rows["stream"]
        fresh["received"], fresh["timestamp"] = rows["received"], rows["timestamp"]
        both = np.concatenate([held, fresh])
        order = np.lexsort((both["received"], np.arange(len(both)) >= len(held), both["lane"]))
        both, news = both[order], order >= len(held)
        begins = np.diff(both["lane"], prepend=both["lane"][:1] - 1) != 0
        times = seconds(trace, both["received"])
        ticks = np.diff(both["timestamp"], prepend=both["timestamp"][:1]).astype(np.int32)  # 32 bits wrap, RFC 3550
        clock = rates[both["lane"] % len(STREAMS)]
        for ssrc, rate in own.items():
            clock[both["lane"] // len(STREAMS) == ssrc] = rate
        moved = np.abs(np.diff(times, prepend=times[:1]) - ticks / clock)
        moved = np.where(begins, both["jitter"], moved)
        smooth = pd.Series(moved).groupby(np.cumsum(begins)).ewm(alpha=1 / 16, adjust=False).mean()
        both["jitter"] = smooth.to_numpy()
        held = both[np.append(begins[1:], True)[: len(both)]]
        told = both[news][::step]
        stream = (told["lane"] % len(STREAMS)).astype(np.int8)
        jitter_ms = told["jitter"] * np.where(np.isnan(clock[news][::step]), np.nan, 1e3)
        parts.append(TimedPackets(seconds(trace, told["received"]), stream, told["lane"] // len(STREAMS), jitter_ms))
    return TimedPackets(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _own_rates(trace: Trace) -> dict[int, float]:
    """Media clocks of sources that have another than their kind's: meta's `clock_rates`, by the source."""
    told = trace.meta.get("clock_rates")
    found: dict[int, float] = {}
    for name, rate in told.items() if isinstance(told, dict) else ():
        if isinstance(rate, int | float) and rate > 0 and name.isdecimal() and len(name) < 19:
            found[int(name)] = float(rate)
    return found
