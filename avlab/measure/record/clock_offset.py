"""How far a client's clock is ahead of its server's, from what each side saw of the other's packets, and how surely.

Pure: arrays in, a `ClockOffset` out. Each packet bounds it from one side: what was sent at `x` on the server's clock
and came at `y` on the client's took no less than nothing, so the client was ahead by at most `y - x`; what came back
bounds it from below. Of the lines between all upper and all lower bounds (Moon, Skelly and Towsley, INFOCOM 1999;
Zhang, Liu and Xia, INFOCOM 2002), the highest and the lowest at a moment are where the offset can be at all, whatever
share of a round trip each way has: half a round trip, at the least one that there was (as NTP's clock filter has it,
RFC 5905 section 10). A bound holds less the further away in time it is: by `WANDER`, as RFC 5905 has a rate change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avlab.measure.record.tables import UNKNOWN, Rows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WANDER = 15e-6
"""A clock's rate stays within so much of a straight line's (RFC 5905 section 7.1, PHI: 15 microseconds a second)."""

MOST_DRIFT = 1e-3
"""By how much two clocks' rates differ at the most: NTP steers each by 500 ppm and no more (RFC 5905, MAXFREQ)."""

UNIT_NS = 15_259
"""The 65,536th part of a second, in which LSR, DLSR, LRR and DLRR are given."""

MOST_AT_NS, MOST_AHEAD_NS = 1 << 62, 1 << 61
"""146 years, and 73: a wall clock that begins in 1970 is 56 years behind."""

MOMENTS = 65
"""Between the first and the last moment, the offset is told at so many."""

MOST_MOMENTS = 1_000
"""In a record that is read from a file."""

BINS = 512
"""Of so many stretches of the run, the tightest bound of each is looked at."""

_STEPS = 60
"""Halvings, or cuts by a third, of the span of rates: far below a nanosecond in an hour."""


class Bounds(NamedTuple):
    """Bounds of the offset from one side: at `at_ns` on the server's clock it is at most, or at least, `ahead_ns`."""

    at_ns: Ints
    ahead_ns: Ints

    @classmethod
    def of(cls, *parts: Bounds) -> Bounds:
        """All of several, but for those that no clock is so far from another for."""
        at_ns, ahead_ns = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        near = (np.abs(at_ns) < MOST_AT_NS) & (np.abs(ahead_ns) < MOST_AHEAD_NS)
        return cls(at_ns[near], ahead_ns[near])


class Side(NamedTuple):
    """What one side's record says of clocks: its rows of `tables.CLOCKS`, and Unix time less its own clock."""

    rows: Rows
    unix_offset_ns: int | None


def bounds_told(server: Side, client: Side) -> tuple[Bounds, Bounds]:
    """Bounds from above and from below by what RTCP told each side of the other's clock.

    What is counted in 65,536ths of a second is taken for as much more, or less, as that leaves room for.
    """
    upper, lower = [_NONE], [_NONE]
    if server.unix_offset_ns is not None:  # sender reports, and answers in them to a receiver's time
        rows = client.rows[client.rows["told_ns"] != UNKNOWN]
        sent = rows["told_ns"] - server.unix_offset_ns
        upper.append(Bounds(sent, rows["time"] - sent))
        answers = rows["echo"] != UNKNOWN
        came = sent[answers] - rows["held"][answers]
        lower.append(Bounds(came, rows["echo"][answers] - came - UNIT_NS))
    rows = server.rows
    if client.unix_offset_ns is not None:  # receivers' times, and in the same reports answers to a sender report
        told = rows[rows["told_ns"] != UNKNOWN]
        sent = told["told_ns"] - client.unix_offset_ns
        lower.append(Bounds(told["time"], sent - told["time"]))
        answers = told["echo"] != UNKNOWN
        echo = told["echo"][answers]
        upper.append(Bounds(echo, sent[answers] - told["held"][answers] - echo + UNIT_NS))
    if server.unix_offset_ns is not None:  # answers of receivers that do not tell their time
        mute = rows[(rows["told_ns"] == UNKNOWN) & (rows["echo"] != UNKNOWN)]
        told = client.rows[client.rows["told_ns"] != UNKNOWN]
        _, at, to = np.intersect1d(mute["echo"], told["told_ns"] - server.unix_offset_ns, return_indices=True)
        mute, told = mute[at], told[to]
        lower.append(Bounds(mute["time"], told["time"] + mute["held"] - mute["time"] - UNIT_NS))
    return Bounds.of(*upper), Bounds.of(*lower)


def told_alone(client: Side) -> ClockOffset | None:
    """The offset of the two wall clocks, by what a client's record alone says; None where it has no round trip."""
    unix_offset_ns = client.unix_offset_ns
    if unix_offset_ns is None:
        return None
    rows = client.rows.copy()
    for column in ("time", "echo"):
        rows[column][rows[column] != UNKNOWN] += unix_offset_ns
    upper, lower = bounds_told(Side(rows[:0], 0), Side(rows, 0))
    at_ns = np.concatenate([upper.at_ns, lower.at_ns])
    return offset_between(upper, lower, (int(at_ns.min()), int(at_ns.max()))) if len(at_ns) else None


_NONE = Bounds(np.zeros(0, np.int64), np.zeros(0, np.int64))


class ClockOffset(NamedTuple):
    """By how much a client's clock is ahead of its server's, at moments of a run; straight lines between them."""

    at_ns: Ints
    """Moments on the server's clock."""
    ahead_ns: Ints
    """The client's clock less the server's, then: the middle of where it can be."""
    error_ns: Ints
    """Half of the span in which it can be."""
    drift_ppm: float
    """By how much the client's clock is faster, over the run, in parts per million."""
    drift_error_ppm: float
    """By how much that can be wrong: the errors at both ends over the time between them."""
    consistent: bool
    """Whether two such clocks exist: not where one has stopped or leapt, as when a computer slept."""

    def to_client(self, times_ns: Ints) -> Ints:
        """Moments of the server's clock on the client's."""
        base = int(self.at_ns[0])
        ahead = self._line(times_ns, self.at_ns, self.ahead_ns - self.ahead_ns[0], base)
        return np.asarray(times_ns + np.rint(ahead).astype(np.int64) + self.ahead_ns[0], np.int64)

    def error_at(self, client_ns: Ints) -> Floats:
        """By how much an offset can be wrong, in nanoseconds, at moments of the client's clock."""
        at_ns = self.at_ns + self.ahead_ns
        return self._line(client_ns, at_ns, self.error_ns, int(at_ns[0]))

    def _line(self, times_ns: Ints, at_ns: Ints, values: Ints, base: int) -> Floats:
        x = (at_ns - base).astype(np.float64)
        return np.interp((times_ns - base).astype(np.float64), x, values.astype(np.float64))

    def plain(self) -> dict[str, Any]:
        """As plain values, for a trace's `meta`."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in self._asdict().items()}  # fmt: skip

    @classmethod
    def of_plain(cls, told: object) -> ClockOffset | None:
        """The inverse of `plain`, of a file that may be anybody's; None for what cannot be one."""
        if not isinstance(told, Mapping):
            return None
        try:
            at, ahead, error = (np.array(told[name], np.int64) for name in ("at_ns", "ahead_ns", "error_ns"))
            drift, doubt = (float(told[name]) for name in ("drift_ppm", "drift_error_ppm"))
            if at.ndim != 1 or not at.shape == ahead.shape == error.shape or not 0 < len(at) <= MOST_MOMENTS:
                return None
            far = np.abs(at).max() >= MOST_AT_NS or max(np.abs(ahead).max(), np.abs(error).max()) >= MOST_AHEAD_NS
            rises = bool((np.diff(at) > 0).all() and (np.diff(at + ahead) > 0).all())
            if far or not rises or (error < 0).any():
                return None
            return cls(at, ahead, error, drift, doubt, told["consistent"] is True)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None


def offset_between(upper: Bounds, lower: Bounds, span_ns: tuple[int, int]) -> ClockOffset | None:
    """The offset over a span of the server's clock; None where there is no bound from either side.

    `upper` are bounds from above, by what the client received, `lower` those from below, by what the server did.
    """
    if not len(upper.at_ns) or not len(lower.at_ns):
        return None
    first, last = span_ns[0], max(span_ns[1], span_ns[0] + 1)
    base = int(np.median(upper.ahead_ns))
    high_x, high = _tightest(upper, first, base, np.minimum)
    low_x, low = _tightest(lower, first, base, np.maximum)
    moments = np.unique(np.linspace(0, last - first, MOMENTS).astype(np.int64))
    t = moments.astype(np.float64)[:, None]
    reach_high, reach_low = high_x - t, low_x - t
    above, below = high + WANDER * np.abs(reach_high), low - WANDER * np.abs(reach_low)

    def highest(rate: Floats) -> Floats:
        return np.asarray((above - rate[:, None] * reach_high).min(axis=1), np.float64)

    def lowest(rate: Floats) -> Floats:
        return np.asarray((below - rate[:, None] * reach_low).max(axis=1), np.float64)

    # Both are as a line's height at the moment is, by its rate: the one concave, the other convex.
    least, most = (np.full(len(moments), side * MOST_DRIFT) for side in (-1, 1))
    best = _peak(lambda rate: highest(rate) - lowest(rate), least, most)
    consistent = bool((highest(best) >= lowest(best)).all())
    left, right = (_edge(lambda rate: highest(rate) >= lowest(rate), best, side) for side in (least, most))
    top = highest(_peak(highest, left, right))
    bottom = lowest(_peak(lambda rate: -lowest(rate), left, right))
    middle, error = (top + bottom) / 2, np.where(top >= bottom, (top - bottom) / 2, bottom - top)  # wide where none fit
    error += WANDER * float(moments[1] - moments[0])  # between two moments the line is not looked at
    ahead = np.rint(middle).astype(np.int64) + base
    lasted = float(moments[-1])
    drift, doubt = (middle[-1] - middle[0]) / lasted, (error[-1] + error[0]) / lasted
    slowest, fastest = max(-MOST_DRIFT, drift - doubt), min(MOST_DRIFT, drift + doubt)
    if slowest < fastest:
        drift, doubt = (slowest + fastest) / 2, (fastest - slowest) / 2
    return ClockOffset(moments + first, ahead, np.ceil(error).astype(np.int64),
                       float(drift * 1e6), float(doubt * 1e6), consistent)  # fmt: skip


def _tightest(bounds: Bounds, first: int, base: int, least: Any) -> tuple[Floats, Floats]:
    """Of each stretch of time the bound that says most: where it is, in ns since `first`, and its value less `base`."""
    order = np.argsort(bounds.at_ns, kind="stable")
    x, y = bounds.at_ns[order] - first, bounds.ahead_ns[order] - base
    if len(x) > BINS:
        edges = np.unique(np.searchsorted(x, np.linspace(x[0], x[-1], BINS, endpoint=False)))
        best = np.repeat(least.reduceat(y, edges), np.diff(edges, append=len(x)))
        kept = np.flatnonzero(y == best)
        x, y = x[kept], y[kept]
        x, y = (x[:: 1 + len(x) // (4 * BINS)], y[:: 1 + len(y) // (4 * BINS)])  # where very many are equal
    return x.astype(np.float64), y.astype(np.float64)


def _peak(height: Callable[[Floats], Floats], left: Floats, right: Floats) -> Floats:
    """Where each of several concave functions is highest, between `left` and `right`."""
    for _ in range(2 * _STEPS):
        third = (right - left) / 3
        lower = height(left + third) < height(right - third)
        left, right = np.where(lower, left + third, left), np.where(lower, right, right - third)
    return (left + right) / 2


def _edge(within: Callable[[Floats], NDArray[np.bool_]], inside: Floats, outside: Floats) -> Floats:
    """How far one can go from `inside` towards `outside`."""
    reached, near, far = within(outside), inside, outside
    for _ in range(_STEPS):
        middle = (near + far) / 2
        fits = within(middle)
        near, far = np.where(fits, middle, near), np.where(fits, far, middle)
    return np.where(reached, outside, near)
