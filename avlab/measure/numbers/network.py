"""What a network did to a run: every packet's fate, frame loss over packet loss, delays, what a playout delay costs.

Pure: a trace in, DataFrames, arrays and frozen summaries out; NaN, None or no rows where the trace does not say.
Times are float seconds on the run's clock, `*_ms` are milliseconds, losses are fractions from 0 to 1. What was lost and
repaired counts as lost here: it is what the network did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avlab.measure.numbers.convergence import Printed, video_frames
from avlab.measure.numbers.delays import VIDEO_HZ, clock_offset, sound_buffered
from avlab.measure.numbers.folds import Floats, quantile
from avlab.measure.numbers.loss import Gaps, Heard, frames_damaged, packets_lost, reckons
from avlab.measure.record.tables import MOST_ROWS, PACKET_FATES, STREAMS
from avlab.measure.record.trace import Trace
from avlab.timing.playout import TARDY_NS

if TYPE_CHECKING:
    import pandas as pd

GONE = ("lost", "recovered")
"""The fates of packets that the network lost. `socket_dropped` is the doing of a computer."""


# ---- packets


def packet_fates(trace: Trace, stream: str = "video") -> pd.DataFrame:
    """A row a copy of a packet, in order of time: columns number, time, sent, received, timestamp, marker, fate.

    `number` counts sequence numbers from the first one's 0; `time` is when it was sent, or came where that is not
    known; `fate` is one of the trace's words, or "sent" where the record is the sender's alone. In a client's own
    record the missing numbers are `lost`, at the time between their neighbours (RFC 3550, A.3). Packets that repairs
    send have numbers of their own and are left out; so is all but one client of a server's record.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        stream: "video" or "audio".
    """
    import pandas as pd

    packets = trace.packets
    packets = packets[(packets["stream"] == stream) & packets["seq"].notna() & packets["ssrc"].notna()]
    if len(packets):
        packets = packets[packets["ssrc"] == packets["ssrc"].value_counts(sort=True).index[0]]
    seq = packets["seq"].to_numpy(np.int64)
    table = packets[["sent", "received", "timestamp", "marker"]].assign(
        fate=packets["fate"].astype(object).where(packets["fate"].notna(), "sent"),
        time=packets["sent"].fillna(packets["received"]),
        number=seq - (seq.min() if len(seq) else 0),
    )
    if reckons(trace) and len(table):
        gaps = _gaps_of(trace, stream, int(packets["ssrc"].iloc[0]))
        table = pd.concat([table, _gaps(table, gaps, int(seq.min()))], ignore_index=True)
    columns = ["number", "time", "sent", "received", "timestamp", "marker", "fate"]
    return table.sort_values("time", kind="stable")[columns].reset_index(drop=True)


def _gaps_of(trace: Trace, stream: str, ssrc: int) -> Gaps:
    heard = Heard()
    for rows in trace.chunks("packets"):
        heard.add(rows[(rows["stream"] == STREAMS.index(stream)) & (rows["ssrc"] == ssrc)])
    return heard.gaps()


def _gaps(table: pd.DataFrame, gaps: Gaps, lowest: int) -> pd.DataFrame:
    """The numbers that never came, as lost packets."""
    missing = int(gaps.missing.sum())
    if len(table) + missing > MOST_ROWS:
        raise ValueError(
            f"{missing:,} packets are missing between the {len(table):,} that came, more than the {MOST_ROWS:,} rows "
            "of one table: ask for a part of the run, as in trace.between(0, 60)"
        )
    first = table.drop_duplicates("number").sort_values("number")
    here = first["number"].to_numpy(np.int64)
    before = np.cumsum(gaps.missing) - gaps.missing
    lost = np.repeat(gaps.first - lowest - before, gaps.missing) + np.arange(missing)
    rows = first.iloc[:0].reindex(range(missing))
    rows["number"], rows["fate"] = lost, "lost"
    rows["time"] = np.interp(lost, here, np.asarray(first["time"], np.float64))
    return rows.astype(dict(table.dtypes))


def frames_of(packets: pd.DataFrame) -> pd.DataFrame:
    """Packets, as `packet_fates` has them, put together to frames by timestamp, in order: one row a frame.

    Columns: media (seconds of media clock since the first, from timestamps), packets (how many it was sent in, up to
    its marker; what follows is parity), whole (when the last of them came, NaN if one never did), lost (how many the
    network lost). Frames without their marker are cut at an end of the record, and left out.
    """
    import pandas as pd

    first = packets.dropna(subset=["timestamp"]).drop_duplicates("number").sort_values("number")
    ends = first["number"].where(first["marker"].fillna(False).astype(bool))
    ends = ends.groupby(first["timestamp"]).transform("max")
    first = first[first["number"] <= ends]
    grouped = first.groupby("timestamp", sort=False)
    table = pd.DataFrame(
        {
            "packets": grouped.size(),
            "whole": grouped["received"].max().where(grouped["received"].count() == grouped.size()),
            "lost": first["fate"].isin(GONE).groupby(first["timestamp"], sort=False).sum(),
        }
    )
    ticks = np.asarray(table.index, np.int64)
    steps = np.diff(ticks, prepend=ticks[:1]).astype(np.int32)  # 32 bits wrap (RFC 3550)
    table.insert(0, "media", np.cumsum(steps, dtype=np.int64) / VIDEO_HZ)
    table.index.name = "timestamp"
    return table


# ---- frame loss over packet loss


@dataclass(frozen=True, kw_only=True)
class FrameLoss(Printed):
    """How many packets the network lost, and how many frames were lost or incomplete in the end."""

    packet_loss: float
    """The fraction lost, as `avlab.measure.numbers.loss` defines it; the same as a summary's."""
    frame_loss: float
    packets: int
    frames: int
    burst: float
    """How many packets were lost in a row, on average; 0 when none was."""
    bursty: bool
    """Whether that is more than chance alone makes of so many losses, by four standard errors and a quarter packet."""
    repaired: int
    """How many of the lost packets a repair brought back."""


def frame_loss(trace: Trace) -> FrameLoss | None:
    """What packet loss did to frames; None for a trace without video packets whose fate is known.

    Packets under way, and frames under way or skipped, count on neither side.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    table = packet_fates(trace)
    table = table[table["fate"].isin(set(PACKET_FATES) - {"in_flight", "duplicate"})]
    frames = video_frames(trace)
    frames = frames[frames["fate"].notna() & ~frames["fate"].isin(["skipped", "in_flight"])]
    found = packets_lost(trace)
    if table.empty or frames.empty or not found.settled:
        return None
    lost = table.sort_values("number")["fate"].isin([*GONE, "socket_dropped"]).to_numpy(bool)
    runs = int((np.diff(lost.astype(int), prepend=0) == 1).sum())
    share = found.fraction or 0.0
    burst = float(lost.sum() / runs) if runs else 0.0
    bursty = False
    if 0 < share < 1:
        chance, error = 1 / (1 - share), np.sqrt(share / runs) / (1 - share)  # of geometric lengths
        bursty = bool(burst > chance + 4 * error + 0.25)
    return FrameLoss(
        packet_loss=share,
        frame_loss=frames_damaged(trace).fraction or 0.0,
        packets=found.settled,
        frames=len(frames),
        burst=burst,
        bursty=bursty,
        repaired=int((table["fate"] == "recovered").sum()),
    )


def packets_a_frame(trace: Trace) -> dict[int, int]:
    """How many frames were sent in how many packets: {packets: frames}.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    frames = frames_of(packet_fates(trace))
    sizes = frames["packets"] if len(frames) else video_frames(trace)["packets"].dropna()
    values, counts = np.unique(sizes[sizes > 0].to_numpy(np.int64), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def middle(sizes: Mapping[int, int], share: float) -> int:
    """Of `sizes` ({packets: frames}), what a `share` of the frames does not exceed. ValueError for no frames."""
    values = np.repeat(list(sizes), list(sizes.values()))
    return int(np.quantile(np.sort(values), share, method="inverted_cdf"))


def expected_frame_loss(packet_loss: ArrayLike, sizes: Mapping[int, int]) -> Floats:
    """The fraction of frames that lose a packet or more, when each is lost by chance for itself.

    1 - (1 - p)^n for a frame of n packets; over frames of all `sizes` ({packets: frames}), the mean of that, which is
    less than what the mean size would give. Shape as `packet_loss`.

    Args:
        packet_loss: The share of packets lost, 0 to 1: a number or an array.
        sizes: {packets: frames}, as `packets_a_frame` gives it.
    """
    p = np.asarray(packet_loss, np.float64)
    total = sum(sizes.values())
    if not total:
        return np.full_like(p, np.nan)
    whole: Any = sum(count * (1 - p) ** size for size, count in sizes.items()) / total
    return np.asarray(1 - whole, np.float64)


# ---- delays


class Delays(NamedTuple):
    """Packets' delays. Unless `absolute`, how much longer each took than the quickest: no two clocks are compared."""

    table: pd.DataFrame
    """Columns time (when it arrived), stream, delay_ms; in order of time."""
    absolute: bool
    error_ms: float = 0.0
    """By how much all of them can be wrong, where two clocks are compared: at half of the moments no more."""


def delays(trace: Trace) -> Delays:
    """How long packets that arrived were under way; beyond the quickest, where both sides do not share a clock.

    Where not even the moment of sending is known, the timestamps stand for it: media clocks tick at 90 kHz for video
    and at meta's `audio_rate` for sound, which is left out without one.
    """
    import pandas as pd

    parts, absolute = [], True
    offset = clock_offset(trace)
    shared = bool(trace.meta.get("shared_clock", trace.meta["side"] in ("simulation", "relay"))) or offset is not None
    error_ms = 0.0 if offset is None else float(np.median(offset.error_ns)) / 1e6
    for stream in ("video", "audio"):
        table = packet_fates(trace, stream)
        table = table[table["received"].notna() & (table["fate"] != "recovered")]
        if table["sent"].notna().any():
            table = table[table["sent"].notna()]
            taken = table["received"] - table["sent"]
            absolute &= shared
        else:
            rate = VIDEO_HZ if stream == "video" else trace.meta.get("audio_rate")
            table = table[table["timestamp"].notna()].sort_values("number")
            if table.empty or not rate:
                continue
            ticks = np.diff(table["timestamp"].to_numpy(np.int64), prepend=int(table["timestamp"].iloc[0]))
            taken = table["received"] - np.cumsum(ticks.astype(np.int32), dtype=np.int64) / float(rate)
            taken, absolute = taken - taken.min(), False
        parts.append(pd.DataFrame({"time": table["received"], "stream": stream, "delay_ms": taken * 1e3}))
    known = [part for part in parts if len(part)]
    if not known:
        return Delays(pd.DataFrame({"time": [], "stream": [], "delay_ms": []}), absolute)
    table = pd.concat(known).sort_values("time", kind="stable").reset_index(drop=True)
    return Delays(table, absolute, error_ms if absolute else 0.0)


# ---- playout


def playout_delays(trace: Trace) -> pd.DataFrame:
    """The playout delay as it was set, or found by "adaptive": columns time, delay_ms. In simulations, too."""
    rows = trace.settings
    values = rows["value"].map(lambda value: isinstance(value, int | float)).astype(bool)
    rows = rows[values & rows["name"].isin(["playout_delay", "playout_target"])]
    table = rows.assign(delay_ms=rows["value"].astype(float) * 1e3)
    return table[["time", "delay_ms"]].reset_index(drop=True)


def buffer_depth(trace: Trace, window: float = 0.5) -> pd.DataFrame:
    """What waits to be presented, in milliseconds of media, the mean of a trailing `window` in seconds.

    Columns time, depth_ms. The sound before its device where the record has it; else, at each picture shown, how much
    newer the newest whole picture is. ValueError for a window of 0.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        window: Seconds, more than 0.
    """
    if not window > 0:
        raise ValueError(f"window must be more than 0 seconds, not {window}")
    times, waiting = sound_buffered(trace)
    if len(times):
        return _smooth(times, waiting, window)
    frames = video_frames(trace).dropna(subset=["complete", "pts"])
    shown = frames.dropna(subset=["shown"]).sort_values("shown")
    whole = frames.sort_values("complete")
    newest = np.maximum.accumulate(np.asarray(whole["pts"], np.float64))
    moments = np.asarray(shown["shown"], np.float64)
    at = np.searchsorted(np.asarray(whole["complete"], np.float64), moments, side="right") - 1
    depth = newest[at] - np.asarray(shown["pts"], np.float64) if len(whole) else moments
    return _smooth(moments, depth * 1e3, window)


def _smooth(times: Floats, depth_ms: Floats, window: float) -> pd.DataFrame:
    import pandas as pd

    order = np.argsort(times, kind="stable")
    index = pd.to_timedelta(times[order], unit="s")
    means = pd.Series(depth_ms[order], index=index).rolling(pd.Timedelta(seconds=window)).mean()
    return pd.DataFrame({"time": times[order], "depth_ms": means.to_numpy(np.float64)})


@dataclass(frozen=True, kw_only=True)
class Lateness(Printed):
    """What a playout delay cost: of the frames that came whole, sooner or later, how many came too late to be shown."""

    playout_delay_ms: float
    """The delay as it was, from the quickest frame's arrival to presentation: what was set, and what else there was to
    wait for (a slow device; the stream that came last). The middle frame's; of an adaptive one, the mean."""
    late: float
    frames: int


def lateness(trace: Trace) -> Lateness | None:
    """Late frames, and the playout delay that a run had; None without one, or without whole frames that were shown.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    steps, whole = playout_delays(trace), _whole(trace)
    held = (whole["shown"] - whole["media"]).dropna() - _took(whole).min(initial=np.inf)
    if held.empty or steps.empty or not (steps["delay_ms"] > 0).all():
        return None
    middle = held.median() if len(steps) == 1 else held.mean()
    late = whole["fate"].isin(["late", "incomplete"])
    return Lateness(playout_delay_ms=float(middle) * 1e3, late=float(late.mean()), frames=len(whole))


def predicted_late(trace: Trace, delays_ms: ArrayLike) -> Floats | None:
    """The fraction of frames that would be late at other playout delays: P(a frame takes longer), from this run's own.

    How long a frame takes is counted as the delay is, from the quickest one. A frame is late when the next one's moment
    has come, or 40 ms after its own, whichever is sooner, as `avlab.timing.playout` has it. Whatever the run's own
    delay was, its record has when the late packets came. Shape as `delays_ms`; None without a whole frame.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        delays_ms: Playout delays in milliseconds: a number or an array.
    """
    whole = _whole(trace)
    if whole.empty:
        return None
    took = np.sort(_took(whole))
    gap = quantile(np.diff(np.sort(np.asarray(whole["media"], np.float64))), 0.5)
    limits = took[0] + np.asarray(delays_ms, np.float64) / 1e3 + min(gap or np.inf, TARDY_NS / 1e9)
    return np.asarray(1 - np.searchsorted(took, limits, side="right") / len(took), np.float64)


def _took(whole: pd.DataFrame) -> Floats:
    """When each frame was whole, less its place in the clip."""
    return np.asarray(whole["whole"] - whole["media"], np.float64)


def _whole(trace: Trace) -> pd.DataFrame:
    """Frames that came whole, sooner or later: media, whole, shown (seconds) and fate. Skipped ones are left out."""
    frames = video_frames(trace)
    frames = frames[frames["fate"].isin(["shown", "damaged", "late", "incomplete"])]
    table = frames_of(packet_fates(trace)).dropna(subset=["whole"])
    if table.empty:  # of a simulation without a network: frames travel whole
        frames = frames.dropna(subset=["complete", "pts"])
        return frames.assign(media=frames["pts"], whole=frames["complete"])[["media", "whole", "shown", "fate"]]
    known = frames.dropna(subset=["timestamp"]).drop_duplicates("timestamp").set_index("timestamp")
    return table[["media", "whole"]].join(known[["shown", "fate"]], how="inner")


# ---- two runs of one seed


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two runs laid over each other, packet by packet from each one's first, and frame by frame by its index."""

    packets: pd.DataFrame
    """A row a packet of both: number, time (the second's, from its first packet), real, simulated (fates)."""
    frames: pd.DataFrame
    """A row a frame of both, by index: real, simulated (fates)."""
    lost: NDArray[np.int64]
    """The numbers of packets that the network lost in both."""
    differing: NDArray[np.int64]
    """The numbers of those that it lost in one alone."""
    frames_differing: NDArray[np.int64]
    """The indexes of frames whose fates differ."""


def agreement(real: Trace, simulated: Trace) -> Agreement:
    """Whether a real and a simulated run of one seed lost the same, as far as both go.

    Compared is what both sent, and what was not under way when either ended.

    Args:
        real: The record of a run on sockets, both sides joined.
        simulated: What `simulate` gave for the same seed and settings.
    """
    import pandas as pd

    ours, theirs = (_by_number(trace) for trace in (real, simulated))
    both = ours.add_suffix("_real").join(theirs, how="inner")
    packets = pd.DataFrame(
        {
            "number": both.index,
            "time": both["time"] - both["time"].min(),
            "real": both["fate_real"],
            "simulated": both["fate"],
        }
    )
    sides = [packets[name].isin(GONE) for name in ("real", "simulated")]
    fates = [_frame_fates(trace) for trace in (real, simulated)]
    frames = pd.concat(fates, axis=1, join="inner", keys=["real", "simulated"]).sort_index()
    numbers = packets["number"].to_numpy(np.int64)
    return Agreement(
        packets=packets.reset_index(drop=True),
        frames=frames,
        lost=numbers[(sides[0] & sides[1]).to_numpy()],
        differing=numbers[(sides[0] ^ sides[1]).to_numpy()],
        frames_differing=frames.index[frames["real"] != frames["simulated"]].to_numpy(np.int64),
    )


def _by_number(trace: Trace) -> pd.DataFrame:
    table = packet_fates(trace)
    table = table[~table["fate"].isin(["duplicate", "in_flight"])]
    return table.drop_duplicates("number").set_index("number")[["time", "fate"]]


def _frame_fates(trace: Trace) -> pd.Series[Any]:
    frames = video_frames(trace).dropna(subset=["index"]).drop_duplicates("index")
    frames = frames[frames["fate"] != "in_flight"]
    fates = frames["fate"].astype(object)
    return fates.where(fates.notna(), "sent").set_axis(frames["index"].to_numpy(np.int64))
