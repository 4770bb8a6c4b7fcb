"""The numbers of each stream of a capture: one fold over all packets, some at a time. Pure.

Jitter is RFC 3550's (6.4.1, A.8), smoothed over all packets as they came. Its mean and maximum are Wireshark's, of the
packets without a marker; where every packet has one, as in some sound, Wireshark says 0, and here they are of those.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from avlab.measure.captures.control import Control
from avlab.measure.captures.rtpstreams import Stream, nearest_rate
from avlab.measure.numbers.folds import Floats, Ints
from avlab.measure.numbers.loss import Gaps
from avlab.measure.record.tables import PACKET_FATES, UNKNOWN, Rows
from avlab.measure.record.trace import Trace

SAMPLES = 2_000_000
"""Delays of all streams together that quantiles are taken of."""

_DUPLICATE = PACKET_FATES.index("duplicate")


def measured(trace: Trace, streams: list[Stream], gaps: Gaps, control: Control) -> list[dict[str, Any]]:
    """What is to be said of each stream, in plain values, in order of their first packets."""
    folds = {stream.code: _Fold(_rate(stream, control)) for stream in streams}
    step = max(1, trace.count("packets") // SAMPLES)
    for rows in trace.chunks("packets"):
        order = np.argsort(rows["ssrc"], kind="stable")
        ordered = rows[order]
        begins = np.flatnonzero(np.diff(ordered["ssrc"], prepend=UNKNOWN))
        for part in np.split(ordered, begins[1:]) if len(ordered) else ():
            folds[int(part["ssrc"][0])].add(part, step)
    lost = _sums(gaps.ssrc, gaps.missing)
    found = [_described(stream, folds[stream.code], lost.get(stream.code, 0), control, trace.epoch_ns)
             for stream in streams if folds[stream.code].packets]  # fmt: skip
    found.sort(key=lambda each: (each["start"], each["code"]))
    return [{"number": number, **each} for number, each in enumerate(found, 1)]


def _rate(stream: Stream, control: Control) -> int | None:
    """Ticks a second: as described, else what the sender's own reports say, else what was guessed."""
    told = control.sent.get((stream.flow.source, stream.ssrc), [])
    if not stream.format.name and len(told) > 1:
        span = (told[-1].ntp_ns - told[0].ntp_ns) / 1e9
        ticks = (told[-1].timestamp - told[0].timestamp) % (1 << 32)
        if 1 <= span <= 10_000 and (rate := nearest_rate(ticks / span)) is not None:
            return rate
    return stream.format.rate


def _sums(keys: Ints, values: Ints) -> dict[int, int]:
    found, at = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, at, values)
    return dict(zip(found.tolist(), sums.tolist(), strict=True))


class _Jitter:
    """The mean and the maximum of some packets' jitter, in milliseconds."""

    def __init__(self) -> None:
        self.mean_ms = self.max_ms = 0.0
        self.count = 0

    def add(self, values: Floats, weights: Floats) -> None:
        """Values, and how many packets of the stream came before each: m = (m (n - 1) + value) / n, one by one."""
        if not len(values):
            return
        self.count += len(values)
        self.max_ms = max(self.max_ms, float(values.max()))
        kept = np.cumprod(((weights - 1) / weights)[::-1])[::-1]
        self.mean_ms = float(self.mean_ms * kept[0] + (values / weights * np.append(kept[1:], 1.0)).sum())


class _Fold:
    """One stream's packets, in the order in which they came."""

    def __init__(self, rate: int | None) -> None:
        self.rate = rate
        self.packets = self.bytes = self.duplicates = self.reordered = self.frames = 0
        self.first_ns = self.last_ns = 0
        self.regular, self.marked = _Jitter(), _Jitter()
        self._jitter_ms = 0.0
        self._time_ns = self._last_ticks = 0  # of the last packet
        self._ticks = self._begin_ticks = 0  # the latest, and the first one's
        self._number: int | None = None
        self._quickest = np.inf
        self._taken: list[Floats] = []

    def add(self, rows: Rows, step: int) -> None:
        """Packets that came after the ones before."""
        times, numbers = rows["received"], rows["seq"]
        if self._number is None:
            self.first_ns = self._time_ns = int(times[0])
            self._ticks = self._last_ticks = self._begin_ticks = int(rows["timestamp"][0])
            self._number, self.frames = int(numbers[0]) - 1, 1
        before = np.maximum.accumulate(np.append(self._number, numbers))
        self.reordered += int((numbers < before[:-1]).sum())
        self._number = int(before[-1])
        self.bytes += int(rows["bytes"].sum(dtype=np.int64))
        self.duplicates += int((rows["fate"] == _DUPLICATE).sum())
        steps = np.diff(rows["timestamp"], prepend=self._last_ticks % (1 << 32)).astype(np.int32)  # 32 bits wrap
        ticks = self._last_ticks + np.cumsum(steps, dtype=np.int64)
        latest = np.maximum.accumulate(np.append(self._ticks, ticks))
        self.frames += int((ticks > latest[:-1]).sum())
        if self.rate:
            self._smooth(times, ticks, rows["marker"] == 1, self.rate)
            taken = (times - self.first_ns) / 1e6 - (ticks - self._begin_ticks) * 1e3 / self.rate
            self._quickest = min(self._quickest, float(taken.min()))
            self._taken.append(taken[::step])
        self._time_ns, self._last_ticks, self._ticks = int(times[-1]), int(ticks[-1]), int(latest[-1])
        self.packets += len(rows)
        self.last_ns = max(self.last_ns, int(times.max()))

    def _smooth(self, times: Ints, ticks: Ints, marked: Any, rate: int) -> None:
        import pandas as pd  # which has the smoothing that numpy lacks

        gone_by, went_on = np.diff(times, prepend=self._time_ns), np.diff(ticks, prepend=self._last_ticks)
        moved = np.abs(gone_by / 1e6 - went_on * 1e3 / rate)
        if not self.packets:
            moved[0] = 0.0
        jitter = pd.Series(np.append(self._jitter_ms, moved)).ewm(alpha=1 / 16, adjust=False).mean().to_numpy()[1:]
        self._jitter_ms = float(jitter[-1])
        count = np.arange(self.packets, self.packets + len(times))
        for which, into in ((~marked, self.regular), (marked, self.marked)):
            into.add(jitter[which & (count > 0)], count[which & (count > 0)].astype(np.float64))

    @property
    def jitter(self) -> _Jitter:
        """Of the packets that count."""
        return self.regular if self.regular.count else self.marked

    def delays(self) -> Floats:
        """Milliseconds beyond the quickest packet's, of some packets that stand for all."""
        return np.concatenate(self._taken) - self._quickest if self._taken else np.empty(0)

    @property
    def seconds(self) -> float:
        """From the first packet to the last."""
        return (self.last_ns - self.first_ns) / 1e9

    @property
    def media_seconds(self) -> float | None:
        """By its own clock."""
        return (self._ticks - self._begin_ticks) / self.rate if self.rate else None


def _described(stream: Stream, fold: _Fold, lost: int, control: Control, epoch_ns: int) -> dict[str, Any]:
    delays = fold.delays()
    quantiles = np.quantile(delays, (0.5, 0.95, 1.0)).tolist() if len(delays) else [None] * 3
    sent = fold.packets - fold.duplicates + lost
    media = fold.media_seconds
    return {
        "code": stream.code,
        "ssrc": stream.ssrc,
        "flow": list(stream.flow),
        "kind": stream.format.kind,
        "format": stream.format.name,
        "payload_type": stream.types.most_common(1)[0][0],
        "rate": fold.rate,
        "cname": control.names.get((stream.flow.source, stream.ssrc), ""),
        "start": (fold.first_ns - epoch_ns) / 1e9,
        "seconds": fold.seconds,
        "packets": fold.packets,
        "lost": lost,
        "loss_percent": 100 * lost / sent if sent else None,
        "duplicates": fold.duplicates,
        "reordered": fold.reordered,
        "jitter_ms": fold.jitter.mean_ms if fold.rate else None,
        "max_jitter_ms": fold.jitter.max_ms if fold.rate else None,
        "delay_ms": quantiles[0],
        "delay_p95_ms": quantiles[1],
        "delay_max_ms": quantiles[2],
        "kbps": fold.bytes * 8e-3 / fold.seconds if fold.seconds > 0.2 else None,
        "frames": fold.frames if stream.format.kind == "video" else None,
        "fps": (fold.frames - 1) / media if stream.format.kind == "video" and media and media > 0 else None,
    }
