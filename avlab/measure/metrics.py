"""Numbers from a trace: ledgers, fps and its settling, pacing, loss, delay, jitter, sync, what networks did.

Pure: a trace in, DataFrames and frozen summaries out, each a fold over the trace's columns. On an empty trace counts
are 0, numbers None and DataFrames empty. Times are float seconds on the run's clock, `*_ms` are milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from avlab.measure.adaptation import reports
from avlab.measure.compare import compare
from avlab.measure.convergence import (
    Convergence,
    Floats,
    Moment,
    Printed,
    convergence,
    drift,
    fps,
    interval_error,
    known,
    mean_rate,
    quantile,
    settling_time,
    target_fps,
    video_frames,
)
from avlab.measure.network import (
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
from avlab.measure.tables import PACKET_FATES
from avlab.measure.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Agreement",
    "Convergence",
    "FrameLedger",
    "FrameLoss",
    "Lateness",
    "Moment",
    "PacingSummary",
    "PacketLedger",
    "Spread",
    "Summary",
    "SyncSummary",
    "agreement",
    "audio_seconds",
    "bitrate",
    "buffer_depth",
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
    "settling_time",
    "spread",
    "summary",
    "sync_summary",
    "target_fps",
]


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

    @property
    def closes(self) -> bool:
        """Every frame offered has exactly one fate."""
        return self.offered == self.shown + self.late + self.incomplete + self.lost + self.skipped + self.in_flight


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


class SyncSummary(Spread):
    """How far picture and sound were apart, whichever was early, over `count` readings."""


@dataclass(frozen=True, kw_only=True)
class Summary(Printed):
    """A run in a table. `fps` is the mean over what was shown; `delay_ms` the median one-way delay of a packet.

    What was lost is None on the classic wire, which has no numbers to tell it by.
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
    send_error_ms: float | None
    packet_loss_percent: float | None
    frame_loss_percent: float | None
    delay_ms: float | None
    bitrate_kbps: float | None

    def as_dict(self) -> dict[str, int | float | None]:
        """The same as plain values, ready for JSON."""
        return asdict(self)


def packet_ledger(trace: Trace, stream: str | None = None) -> PacketLedger:
    """Where packets went, of one stream or of all.

    A client's own trace does not say what was sent: then it is what the sequence numbers leave room for, as a receiver
    reckons it (RFC 3550, A.3); on the classic wire, which has none, it is what came. A server's own trace says nothing
    of arrivals, so its ledger does not close.
    """
    copies = _copies(trace)
    if stream is not None:
        copies = copies[copies["stream"] == stream]
    count = {str(word): int(number) for word, number in copies["fate"].value_counts().items()}
    return PacketLedger(
        sent=int(copies["was_sent"].sum()),
        duplicated=int((~copies["was_sent"] & copies["was_received"]).sum()),
        received=int(copies["was_received"].sum()),
        **{word: count.get(word, 0) for word in PACKET_FATES},
    )


def frame_ledger(trace: Trace, stream: str = "video") -> FrameLedger:
    """What became of a stream's frames; for "audio", of its chunks of sound."""
    frames = video_frames(trace, stream)
    count = {str(word): int(number) for word, number in frames["fate"].value_counts().items()}
    words = ("shown", "late", "incomplete", "lost", "skipped", "in_flight")
    return FrameLedger(offered=len(frames), **{word: count.get(word, 0) for word in words})


def pacing(trace: Trace) -> PacingSummary:
    """How exactly frames left when they were due."""
    frames = video_frames(trace).dropna(subset=["due", "sent"]).sort_values("due")
    due, sent = (np.asarray(frames[column], np.float64) for column in ("due", "sent"))
    error = (sent - due) * 1e3
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

    `time` is where the bin starts. A packet is lost in the network or at the socket, even if a repair brought it back;
    a frame is damaged if it is lost or incomplete after all. Only video counts; what is in flight does not, nor what
    was skipped before sending. NaN where nothing was sent, and on the classic wire, which has no numbers to tell loss
    by.
    """
    import pandas as pd

    copies = _copies(trace)
    copies = copies[(copies["stream"] == "video") & copies["was_sent"] & (copies["fate"] != "in_flight")]
    frames = video_frames(trace)
    frames = frames[~frames["fate"].isin(["skipped", "in_flight"])]
    when = _first_of(frames, "sent", "first_packet", "complete", "shown")
    packet_loss = _binned(copies["time"], copies["fate"].isin(["lost", "socket_dropped", "recovered"]), bin)
    frame_loss = _binned(when, frames["fate"].isin(["lost", "incomplete"]), bin)
    table = pd.DataFrame({"packet_loss": packet_loss, "frame_loss": frame_loss})
    if not _tells_loss(trace):
        table = table * np.nan
    if len(table):
        table = table.reindex(range(int(table.index.min()), int(table.index.max()) + 1))
    table.insert(0, "time", np.asarray(table.index, np.float64) * bin)
    return table.reset_index(drop=True)


def one_way_delay(trace: Trace) -> pd.DataFrame:
    """Each received packet's delay: columns time (when sent), stream, delay_ms. NaN unless both sides share a clock."""
    import pandas as pd

    packets = _arrived(trace).dropna(subset=["sent"])
    shared = trace.meta.get("shared_clock", trace.meta["side"] == "simulation")
    delay = (packets["received"] - packets["sent"]) * 1e3 if shared else np.nan
    table = pd.DataFrame({"time": packets["sent"], "stream": packets["stream"], "delay_ms": delay})
    return table.sort_values("time", kind="stable").reset_index(drop=True)


def jitter(trace: Trace) -> pd.DataFrame:
    """Interarrival jitter as receivers report it (RFC 3550, 6.4.1): columns time, stream, ssrc, jitter_ms.

    Media clocks tick at 90 kHz for video (RFC 3551) and at meta's `audio_rate` for sound; without it, sound has NaN.
    """
    import pandas as pd

    rates = {"video": 90_000.0, "audio": float(trace.meta.get("audio_rate") or np.nan)}
    packets = _arrived(trace).dropna(subset=["timestamp", "ssrc"]).sort_values("received", kind="stable")
    parts = []
    for (stream, ssrc), arrivals in packets.groupby(["stream", "ssrc"], observed=True):
        times = np.asarray(arrivals["received"], np.float64)
        rate = rates[str(stream)]
        ticks = np.diff(arrivals["timestamp"].to_numpy(np.int64)).astype(np.int32)  # 32 bits wrap, RFC 3550
        moved = np.abs(np.diff(times) - ticks / rate)
        smooth = pd.Series(np.append(0.0, moved)).ewm(alpha=1 / 16, adjust=False).mean() * 1e3
        smooth = smooth if rate > 0 else smooth * np.nan
        parts.append(pd.DataFrame({"time": times, "stream": stream, "ssrc": ssrc, "jitter_ms": smooth}))
    if not parts:
        return pd.DataFrame({"time": [], "stream": [], "ssrc": [], "jitter_ms": []})
    return pd.concat(parts, ignore_index=True)


def media_jitter(trace: Trace, stream: str = "video") -> pd.DataFrame:
    """A stream's own jitter, without that of packets which are sent again: columns as `jitter` has them."""
    table = jitter(trace)
    table = table[table["stream"] == stream]
    return table[table["ssrc"] == table["ssrc"].mode()[0]] if len(table) else table


def bitrate(trace: Trace, bin: float = 1.0) -> pd.DataFrame:
    """Kilobits of packets a second, each `bin` seconds: columns time, video, audio. Received, or sent for a server."""
    import pandas as pd

    packets = trace.packets if trace.meta["side"] == "server" else _arrived(trace)
    packets = packets.assign(when=packets["sent" if trace.meta["side"] == "server" else "received"])
    packets = packets.dropna(subset=["when", "bytes"])
    slot = _bins(packets["when"], bin)
    table = pd.DataFrame(index=range(int(slot.min()), int(slot.max()) + 1) if len(slot) else [])
    table["time"] = np.asarray(table.index, np.float64) * bin
    for stream in ("video", "audio"):
        mine = packets["stream"] == stream
        size = packets["bytes"][mine].astype(np.float64).groupby(slot[mine]).sum()
        table[stream] = size.reindex(table.index, fill_value=0.0) * 8 / 1000 / bin
    return table.reset_index(drop=True)


def sync_summary(trace: Trace) -> SyncSummary:
    """How far picture and sound were apart."""
    return SyncSummary(**asdict(spread(trace.sync["offset"] * 1e3)))


def spread(values_ms: pd.Series[Any]) -> Spread:
    """How large the values of a column are, signs and NaN aside."""
    size = np.abs(known(values_ms))
    return Spread(median_ms=quantile(size, 0.5), p95_ms=quantile(size, 0.95), max_ms=quantile(size, 1), count=len(size))


def audio_seconds(trace: Trace) -> float:
    """Seconds of sound played: each chunk lasts until the next one's pts; where chunks lack, as long as most do."""
    chunks = video_frames(trace, "audio").dropna(subset=["pts"]).drop_duplicates("pts").sort_values("pts")
    length = np.diff(np.asarray(chunks["pts"], np.float64))
    usual = quantile(length, 0.5)
    if usual is None:
        return 0.0
    length = np.append(np.where(length > 3 * usual, usual, length), usual)
    return float(length[np.asarray(chunks["fate"] == "shown")].sum())


def summary(trace: Trace) -> Summary:
    """The numbers that `demo` and `play --json` print."""
    ledger, packets, sync = frame_ledger(trace), packet_ledger(trace, "video"), sync_summary(trace)
    packets_settled = packets.sent - packets.in_flight
    frames_settled = ledger.offered - ledger.skipped - ledger.in_flight
    rates, tells = bitrate(trace), _tells_loss(trace)
    return Summary(
        offered=ledger.offered,
        shown=ledger.shown,
        late=ledger.late,
        incomplete=ledger.incomplete,
        skipped=ledger.skipped,
        lost=ledger.lost if tells else None,
        in_flight=ledger.in_flight,
        fps=mean_rate(np.sort(known(video_frames(trace)["shown"]))),
        target_fps=target_fps(trace),
        audio_seconds=audio_seconds(trace),
        av_median_ms=sync.median_ms,
        av_p95_ms=sync.p95_ms,
        send_error_ms=pacing(trace).median_ms,
        packet_loss_percent=_percent(packets.lost + packets.recovered + packets.socket_dropped, packets_settled)
        if tells
        else None,
        frame_loss_percent=_percent(ledger.lost + ledger.incomplete, frames_settled) if tells else None,
        delay_ms=quantile(known(one_way_delay(trace)["delay_ms"]), 0.5),
        bitrate_kbps=quantile(np.asarray(rates["video"] + rates["audio"], np.float64), 0.5),
    )


def _tells_loss(trace: Trace) -> bool:
    return trace.meta.get("wire") != "classic"


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole > 0 else None


def _first_of(table: pd.DataFrame, *columns: str) -> pd.Series[Any]:
    """For each row, the first of these columns that is known."""
    first = table[columns[0]]
    for column in columns[1:]:
        first = first.fillna(table[column])
    return first


def _binned(times: pd.Series[Any], marks: pd.Series[Any], bin: float) -> pd.Series[Any]:
    """The fraction marked in each bin of time, by the bin's number."""
    known = times.notna()
    return marks[known].astype(np.float64).groupby(_bins(times[known], bin)).mean()


def _bins(times: pd.Series[Any], bin: float) -> pd.Series[Any]:
    if not bin > 0:
        raise ValueError(f"bin must be more than 0 seconds, not {bin}")
    slots: pd.Series[Any] = np.floor(times / bin).astype(int)
    return slots


def _arrived(trace: Trace) -> pd.DataFrame:
    """The packets that the network delivered; what a repair brought back is not among them."""
    packets = trace.packets
    return packets[packets["received"].notna() & (packets["fate"] != "recovered")]


def _copies(trace: Trace) -> pd.DataFrame:
    """A row for each copy of a packet: stream, fate, time, was_sent, was_received."""
    packets = trace.packets
    copies = packets[["stream", "fate"]].assign(
        time=_first_of(packets, "sent", "received"),
        was_sent=packets["sent"].notna(),
        was_received=packets["received"].notna() & (packets["fate"] != "recovered"),
    )
    if trace.meta["side"] != "client" or trace.meta.get("joined"):
        return copies
    # A receiver on its own: each number was sent once, further arrivals are copies, and a gap is a loss, seen when the
    # number after it arrives.
    import pandas as pd

    copies["was_sent"] = packets["seq"].isna() | ~packets.duplicated(["ssrc", "seq"])
    parts: list[pd.DataFrame] = [copies]
    first = packets[copies["was_sent"] & packets["seq"].notna()].sort_values("seq")
    for (stream, _), mine in first.groupby(["stream", "ssrc"], observed=True):
        gaps = np.diff(mine["seq"].to_numpy(np.int64)) - 1
        times = np.repeat(np.asarray(mine["received"], np.float64)[1:], gaps)
        parts.append(_losses(str(stream), times, copies))
    return pd.concat([part for part in parts if len(part)], ignore_index=True) if len(copies) else copies


def _losses(stream: str, times: Sequence[float] | Floats, like: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    lost = pd.DataFrame({"stream": stream, "fate": "lost", "time": times, "was_sent": True, "was_received": False})
    return lost.astype({"stream": like["stream"].dtype, "fate": like["fate"].dtype})
