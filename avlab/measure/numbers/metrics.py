"""Numbers from a trace: ledgers, fps and its settling, pacing, loss, delay, jitter, sync, what networks did.

Pure: a trace in, DataFrames and frozen summaries out, of the folds in `rates`, `loss` and `delays`. On an empty trace
counts are 0, numbers None and DataFrames empty. Times are float seconds on the run's clock, `*_ms` are milliseconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from avlab.measure.numbers import delays, rates
from avlab.measure.numbers.adaptation import reports
from avlab.measure.numbers.clocks import Clocks, clocks, round_trips
from avlab.measure.numbers.compare import compare
from avlab.measure.numbers.convergence import (
    Convergence,
    Printed,
    convergence,
    drift,
    fps,
    interval_error,
    known,
    settling_time,
)
from avlab.measure.numbers.folds import as_table, of_frames, quantile
from avlab.measure.numbers.loss import Packets, frames_damaged, loss_series, packets_lost, tells_loss
from avlab.measure.numbers.network import (
    Agreement,
    FrameLoss,
    Lateness,
    agreement,
    buffer_depth,
    expected_frame_loss,
    frame_loss,
    lateness,
    packet_fates,
    packets_a_frame,
    predicted_late,
)
from avlab.measure.numbers.rates import Moment, mean_rate, target_fps
from avlab.measure.numbers.score import Score, score
from avlab.measure.record.tables import FRAME_FATES, NS, PACKET_FATES, STREAMS, UNKNOWN
from avlab.measure.record.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = FRAME_FATES.index("shown")

__all__ = [
    "Agreement",
    "Clocks",
    "Convergence",
    "FrameLedger",
    "FrameLoss",
    "Lateness",
    "Moment",
    "PacingSummary",
    "PacketLedger",
    "Score",
    "Spread",
    "Summary",
    "SyncSummary",
    "agreement",
    "audio_seconds",
    "bitrate",
    "buffer_depth",
    "clocks",
    "compare",
    "convergence",
    "drift",
    "expected_frame_loss",
    "fps",
    "frame_ledger",
    "frame_loss",
    "interval_error",
    "jitter",
    "lateness",
    "loss",
    "media_jitter",
    "one_way_delay",
    "pacing",
    "packet_fates",
    "packet_ledger",
    "packets_a_frame",
    "predicted_late",
    "reports",
    "round_trips",
    "score",
    "settling_time",
    "spread",
    "summary",
    "sync_summary",
    "target_fps",
]


def __dir__() -> list[str]:
    return sorted(__all__)


@dataclass(frozen=True, kw_only=True)
class PacketLedger(Printed):
    """Where every copy of every packet went."""

    sent: int
    duplicated: int
    received: int
    lost: int
    socket_dropped: int
    in_flight: int
    used: int
    duplicate: int
    late: int
    recovered: int = 0
    """Lost, and brought back by a repair. The packets that did it were sent, received and used like any others."""

    @property
    def closes(self) -> bool:
        """What was sent or copied was received, lost, dropped or is under way; what was received has a use."""
        gone = self.lost + self.recovered + self.socket_dropped + self.in_flight
        return (
            self.sent + self.duplicated == self.received + gone
            and self.received == self.used + self.duplicate + self.late
        )


@dataclass(frozen=True, kw_only=True)
class FrameLedger(Printed):
    """What became of every frame."""

    offered: int
    shown: int
    late: int
    incomplete: int
    lost: int
    skipped: int
    in_flight: int
    damaged: int = 0
    """Shown, and spoilt: predicted from what was lost before."""

    @property
    def closes(self) -> bool:
        """Every frame offered has exactly one fate."""
        seen, unseen = self.shown + self.damaged, self.late + self.incomplete + self.lost + self.skipped
        return self.offered == seen + unseen + self.in_flight


@dataclass(frozen=True, kw_only=True)
class PacingSummary(Printed):
    """Sent less due: size of the error over all frames; drift, the last second's median less the first second's."""

    median_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    drift_ms: float | None
    frames: int


@dataclass(frozen=True, kw_only=True)
class Spread(Printed):
    """How large `count` values are, signs aside."""

    median_ms: float | None
    p95_ms: float | None
    max_ms: float | None
    count: int


@dataclass(frozen=True, kw_only=True)
class SyncSummary(Spread):
    """How far picture and sound were apart over `count` readings: sizes, and on which side.

    `median_ms`, `p95_ms` and `max_ms` are sizes, signs aside. The sign matters, as viewers bear late sound better than
    early: ITU-R BT.1359 has them notice it from 45 ms early and from 125 ms late on, and mind from 90 and 185.
    """

    signed_median_ms: float | None
    """The middle reading: positive when the sound is early, negative when it is late."""
    early_p95_ms: float | None
    """95 in a hundred readings have the sound no earlier than this; 0 when they have it late."""
    late_p95_ms: float | None
    """95 in a hundred readings have the sound no later than this, as a positive number; 0 when they have it early."""
    early: float | None
    """The part of the readings in which the sound is early, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Summary(Printed):
    """A run in a table.

    `fps` is the mean over what was shown, breaks of the connection apart; `delay_ms` the median one-way delay of a
    packet.

    `av_median_ms` and `av_p95_ms` are how far picture and sound were apart, whichever was early; `av_signed_ms` is the
    median with its sign, positive when the sound is early. `packet_loss_percent` is as `numbers.loss` defines it:
    repairs bring packets back, and do not make them unlost. What was lost is None on the classic wire, which has no
    numbers to tell it by.
    """

    offered: int
    shown: int
    late: int
    incomplete: int
    skipped: int
    lost: int | None
    in_flight: int
    fps: float | None
    target_fps: float | None
    audio_seconds: float
    av_median_ms: float | None
    av_p95_ms: float | None
    av_signed_ms: float | None
    send_error_ms: float | None
    packet_loss_percent: float | None
    frame_loss_percent: float | None
    delay_ms: float | None
    bitrate_kbps: float | None
    damaged: int = 0
    """Frames that were shown, and spoilt by an earlier loss: of codecs that predict."""
    delay_error_ms: float | None = None
    """By how much `delay_ms` can be wrong: 0 where both sides share a clock, None where the delay is not known."""

    def as_dict(self) -> dict[str, int | float | None]:
        """The same as plain values, ready for JSON."""
        return asdict(self)


def packet_ledger(trace: Trace, stream: str | None = None) -> PacketLedger:
    """Where packets went, of one stream or of all.

    A client's own trace does not say what was sent: then it is what the sequence numbers leave room for, as a receiver
    reckons it (RFC 3550, A.3); on the classic wire, which has none, it is what came. A server's own trace says nothing
    of arrivals, so its ledger does not close.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        stream: "video" or "audio"; None for both.

    Raises:
        ValueError: There is no such stream.
    """
    if stream is not None and stream not in STREAMS:
        raise ValueError(f"stream must be one of {', '.join(STREAMS)}, or None for all, not {stream!r}")
    packets, fates = Packets(trace), np.zeros(len(PACKET_FATES), np.int64)
    sent = duplicated = received = 0
    for copies in packets.copies():
        mine = np.ones(len(copies.rows), bool)
        if stream is not None:
            mine = copies.rows["stream"] == STREAMS.index(stream)
        sent += int((copies.was_sent & mine).sum())
        duplicated += int((~copies.was_sent & copies.was_received & mine).sum())
        received += int((copies.was_received & mine).sum())
        fates += _counts(copies.rows["fate"][mine], len(fates))
    gaps = packets.gaps()
    missing = int(gaps.missing[(gaps.stream == STREAMS.index(stream)) if stream is not None else slice(None)].sum())
    count = dict(zip(PACKET_FATES, fates.tolist(), strict=True))
    count["lost"] += missing
    return PacketLedger(sent=sent + missing, duplicated=duplicated, received=received, **count)


def _counts(codes: np.ndarray[tuple[int, ...], np.dtype[np.int8]], words: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How many rows have each of so many words; those without one count nowhere."""
    return np.bincount(codes[codes >= 0], minlength=words)[:words].astype(np.int64)


def frame_ledger(trace: Trace, stream: str = "video") -> FrameLedger:
    """What became of a stream's frames; for "audio", of its chunks of sound.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        stream: "video" or "audio".
    """
    fates, offered = np.zeros(len(FRAME_FATES), np.int64), 0
    for rows in trace.chunks("frames"):
        mine = rows["fate"][rows["stream"] == STREAMS.index(stream)]
        offered += len(mine)
        fates += _counts(mine, len(fates))
    return FrameLedger(offered=offered, **dict(zip(FRAME_FATES, fates.tolist(), strict=True)))


def pacing(trace: Trace) -> PacingSummary:
    """How exactly frames left when they were due.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    due_ns, sent_ns = of_frames(trace, "video", "due", "sent")
    both = (due_ns != UNKNOWN) & (sent_ns != UNKNOWN)
    due_ns, sent_ns = due_ns[both], sent_ns[both]
    order = np.argsort(due_ns, kind="stable")
    due, error = (due_ns[order] - trace.epoch_ns) / NS, (sent_ns - due_ns)[order] / 1e6
    size = np.abs(error)
    drifted = None
    if len(due):
        drifted = float(np.median(error[due >= due[-1] - 1]) - np.median(error[due <= due[0] + 1]))
    return PacingSummary(
        median_ms=quantile(size, 0.5),
        p95_ms=quantile(size, 0.95),
        p99_ms=quantile(size, 0.99),
        max_ms=quantile(size, 1),
        drift_ms=drifted,
        frames=len(due),
    )


def loss(trace: Trace, bin: float = 1.0) -> pd.DataFrame:
    """The fraction of packets lost and of frames damaged, each `bin` seconds: columns time, packet_loss, frame_loss.

    `time` is where the bin starts. Packets are lost as `numbers.loss` defines it, even if a repair brought them
    back; a frame is damaged if it is lost or incomplete after all. Only video counts; what is in flight does not, nor
    what was skipped before sending. NaN where nothing was sent, and on the classic wire, which has no numbers to tell
    loss by. Over more than a million bins, those in which nothing was sent are left out. ValueError for a bin of 0.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        bin: Seconds a bin, more than 0.
    """
    return as_table(loss_series(trace, bin), "time", "packet_loss", "frame_loss")


def one_way_delay(trace: Trace) -> pd.DataFrame:
    """Each received packet's delay: columns time (when sent), stream, delay_ms, error_ms.

    `error_ms` is by how much the delay can be wrong: 0 where both sides share a clock, else as `clocks` has it for that
    moment. All delays of a moment are wrong alike, so that differences between them are not. NaN where nothing tells
    how far two clocks are apart: join both sides' traces.

    Of more than five million packets, one in two, in three and so on.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    import pandas as pd

    found = delays.one_way(trace)
    return pd.DataFrame(
        {"time": found.time, "stream": _streams(found.stream), "delay_ms": found.ms, "error_ms": found.error_ms}
    )


def _streams(codes: np.ndarray[Any, np.dtype[np.int8]]) -> pd.Categorical:
    import pandas as pd

    return pd.Categorical.from_codes(codes, categories=pd.Index(STREAMS, dtype=object))


def jitter(trace: Trace) -> pd.DataFrame:
    """Interarrival jitter as receivers report it (RFC 3550, 6.4.1): columns time, stream, ssrc, jitter_ms.

    Media clocks tick at 90 kHz for video (RFC 3551) and at meta's `audio_rate` for sound; without it, sound has NaN.
    It is reckoned from each packet; of more than five million, one in two, in three and so on is in the table.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    import pandas as pd

    time, stream, ssrc, jitter_ms = delays.interarrival_jitter(trace)
    return pd.DataFrame({"time": time, "stream": _streams(stream), "ssrc": ssrc, "jitter_ms": jitter_ms})


def media_jitter(trace: Trace, stream: str = "video") -> pd.DataFrame:
    """A stream's own jitter, without that of packets which are sent again: columns as `jitter` has them.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        stream: "video" or "audio".
    """
    table = jitter(trace)
    table = table[table["stream"] == stream]
    return table[table["ssrc"] == table["ssrc"].mode()[0]] if len(table) else table


def bitrate(trace: Trace, bin: float = 1.0) -> pd.DataFrame:
    """Kilobits of packets a second, each `bin` seconds: columns time, video, audio. Received, or sent for a server.

    Over more than a million bins, those in which nothing came are left out. ValueError for a bin of 0.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        bin: Seconds a bin, more than 0.
    """
    return as_table(rates.bit_rate(trace, bin), "time", "video", "audio")


def sync_summary(trace: Trace) -> SyncSummary:
    """How far picture and sound were apart, and which was early. Zeros of exact agreement count as neither.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    offsets = delays.sync_offsets(trace)[1]
    offsets = offsets[np.isfinite(offsets)]
    size = np.abs(offsets)
    low, middle, high = (quantile(offsets, q) for q in (0.05, 0.5, 0.95))
    return SyncSummary(
        median_ms=quantile(size, 0.5),
        p95_ms=quantile(size, 0.95),
        max_ms=quantile(size, 1),
        count=len(offsets),
        signed_median_ms=middle,
        early_p95_ms=None if high is None else max(0.0, high),
        late_p95_ms=None if low is None else max(0.0, -low),
        early=float((offsets > 0).mean()) if len(offsets) else None,
    )


def spread(values_ms: pd.Series[Any]) -> Spread:
    """How large the values of a column are, signs and NaN aside.

    Args:
        values_ms: A column of a table, in milliseconds.
    """
    size = np.abs(known(values_ms))
    return Spread(median_ms=quantile(size, 0.5), p95_ms=quantile(size, 0.95), max_ms=quantile(size, 1), count=len(size))


def audio_seconds(trace: Trace) -> float:
    """Seconds of sound played: each chunk lasts until the next one's pts; where chunks are missing, as long as most do.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    pts, fates = of_frames(trace, "audio", "pts", "fate")
    fates, pts = fates[pts != UNKNOWN], pts[pts != UNKNOWN]
    pts, first = np.unique(pts, return_index=True)
    length = np.diff(pts / NS)
    usual = quantile(length, 0.5)
    if usual is None:
        return 0.0
    length = np.append(np.where(length > 3 * usual, usual, length), usual)
    return float(length[fates[first] == _SHOWN].sum())


def summary(trace: Trace) -> Summary:
    """The numbers that `demo` and `play --json` print.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    ledger, sync, delay, error = frame_ledger(trace), sync_summary(trace), *delays.one_way(trace)[3:]
    return Summary(
        offered=ledger.offered,
        shown=ledger.shown,
        late=ledger.late,
        incomplete=ledger.incomplete,
        skipped=ledger.skipped,
        lost=ledger.lost if tells_loss(trace) else None,
        in_flight=ledger.in_flight,
        fps=mean_rate(rates.moments(trace, "shown"), rates.came_back(trace)),
        target_fps=target_fps(trace),
        audio_seconds=audio_seconds(trace),
        av_median_ms=sync.median_ms,
        av_p95_ms=sync.p95_ms,
        av_signed_ms=sync.signed_median_ms,
        send_error_ms=pacing(trace).median_ms,
        packet_loss_percent=packets_lost(trace).percent,
        frame_loss_percent=frames_damaged(trace).percent,
        delay_ms=quantile(delay[np.isfinite(delay)], 0.5),
        bitrate_kbps=quantile(rates.bit_rate(trace)[1:].sum(axis=0), 0.5),
        damaged=ledger.damaged,
        delay_error_ms=quantile(error[np.isfinite(error)], 0.5),
    )
