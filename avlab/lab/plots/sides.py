"""Plots of two sides: what a sender was told and made of it, what receivers report, real runs over simulated ones.

As in lab.plots, traces come in and a figure goes out; what is computed is computed in avlab.measure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from avlab.lab.plots import several
from avlab.lab.plots.drawing import (
    BLUE,
    BODY,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    axes,
    check_trace,
    legend,
    milliseconds,
    missing,
    of_trace,
    plot,
    titled,
)  # fmt: skip
from avlab.lab.plots.several import or_several
from avlab.measure.numbers import adaptation as adapting
from avlab.measure.numbers import metrics, network
from avlab.measure.record.trace import Trace

FRAME_FATES = {
    "shown": BLUE, "late": ORANGE, "incomplete": VERMILION, "lost": "black", "skipped": "#CC79A7", "in_flight": GREY,
    "sent": GREY, "damaged": GREEN,
}  # fmt: skip

TALL = {"shown": 0.15, "late": 0.24, "skipped": 0.24, "lost": 0.42}
"""Half of a frame's bar, by its fate: not by colour alone."""


@or_several(several.adaptation)
def adaptation(trace: Trace) -> Figure:
    """What was sent, how long it queued, and what was chosen: rate with the bottleneck's, queue, quality and width.

    The bottleneck takes all packets, those of the sound and of repairs, too; it is drawn where the settings have it.
    Several runs, as {name: trace}, are laid over each other.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    figure = plot(figsize=(12, 6.8), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True)
    axes(above, "", "sent (kbit/s)")
    axes(middle, "", "queue (ms)")
    axes(below, "time (s)", "JPEG quality")
    rates, waits = adapting.sent_rate(trace), adapting.queueing(trace)
    rates = rates.iloc[:-1] if len(rates) > 1 else rates  # the last half second is as a rule not whole
    if rates.empty:
        for ax in (middle, below):
            ax.set_axis_off()
        return missing(figure, above, "No rate to show", "it needs a run in which packets were sent")
    end = float(rates["time"].iloc[-1]) + 0.5
    edges, both = np.append(rates["time"], end), rates["video"] + rates["audio"]
    rows = [("all packets", "s", BLUE, BLUE, 9.0)]
    if (rates["audio"] > 0).any():
        above.stairs(rates["video"], edges, baseline=None, color="#56B4E9", linewidth=1.5)
        rows.append(("video alone", "s", "#56B4E9", "#56B4E9", 9.0))
    above.stairs(both, edges, baseline=None, color=BLUE, linewidth=2.5)
    limit, top = adapting.bottleneck(trace), float(both.max())
    known = limit[limit["time"] < end].dropna()
    if len(known):
        above.step(*_until(limit, "kbps", end), where="post", color=VERMILION, linewidth=2, linestyle="--")
        top = max(top, min(4 * top, float(known["kbps"].max())))
        rows.append((f"bottleneck, {known['kbps'].iloc[-1]:,.0f} kbit/s", "_", VERMILION, VERMILION, 12.0))
    above.set_ylim(0, 1.45 * max(1.0, top))
    legend(above, rows, at="upper right", beside=True)
    if len(waits):
        middle.plot(waits["time"], waits["queue_ms"], color=ORANGE, linewidth=2)
        middle.set_ylim(0, 1.15 * max(1.0, float(waits["queue_ms"].max())))
    else:
        missing(figure, middle, "", "no delay of packets is known")
    _choices(below, trace, end)
    above.set_xlim(float(rates["time"].iloc[0]) - 0.25, end + 0.25)
    return titled(figure, above, _adapted(float(both.max()), known, waits))


def _choices(below: Axes, trace: Trace, end: float) -> None:
    quality, width = (adapting.steps(trace, name).dropna() for name in ("quality", "width"))
    below.set_ylim(0, 105)
    if quality.empty:
        below.text(
            0.5, 0.5, "quality and width are not in the record", transform=below.transAxes, ha="center", size=BODY
        )
        return
    below.step(*_until(quality, "value", end), where="post", color=BLUE, linewidth=2)
    below.yaxis.label.set_color(DARK[BLUE])
    if len(width):
        beside = below.twinx()
        beside.step(*_until(width, "value", end), where="post", color=GREEN, linewidth=2, linestyle="--")
        beside.set_ylabel("width (pixels), dashed", size=BODY, color=DARK[GREEN])
        beside.tick_params(labelsize=BODY)
        beside.set_ylim(0, 1.25 * float(width["value"].max()))
        beside.spines["top"].set_visible(False)


def _adapted(most: float, known: pd.DataFrame, waits: pd.DataFrame) -> str:
    finding = f"Up to {most:,.0f} kbit/s are sent"
    if len(known):
        finding += f", {known['kbps'].iloc[-1]:,.0f} can pass"
    if len(waits):
        finding += f"; packets wait up to {milliseconds(float(waits['queue_ms'].max()))}"
    return finding


def _until(table: pd.DataFrame, column: str, end: float) -> tuple[list[float], list[float]]:
    """A setting's steps, the last one held until `end`."""
    table = table[table["time"] < end]
    times, values = list(table["time"]), list(table[column])
    return [*times, end], [*values, values[-1]] if values else [np.nan]


@of_trace
def reports(trace: Trace) -> Figure:
    """What receivers reported (RFC 3550) beside what the network did: loss since the last report, and jitter.

    The truth is known where the record is of both sides: a server's, joined with its client's.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    figure = plot(figsize=(12, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    axes(above, "", "lost since the last report (%)")
    axes(below, "time (s)", "jitter (ms)")
    table = adapting.reports(trace)
    stream = "video" if (table["stream"] == "video").any() else "audio"
    table = table[table["stream"] == stream].sort_values("time")
    if table.empty:
        below.set_axis_off()
        return missing(figure, above, "No report came", "it needs a server's record, or one joined with it")
    times = table["time"].to_numpy(float)
    true = adapting.true_loss(trace, times, stream)
    if true["loss"].notna().any():
        edges = np.append(min(network.packet_fates(trace, stream)["time"].min(), times[0]), times)
        above.stairs(true["loss"] * 100, edges, baseline=None, color=GREEN, linewidth=3, alpha=0.7)
    above.plot(times, table["fraction_lost"] * 100, "o", color=BLUE, markersize=9)
    jitter = metrics.media_jitter(trace, stream)
    if len(jitter):
        below.plot(jitter["time"], jitter["jitter_ms"], color=GREEN, linewidth=1.5, alpha=0.7)
    below.plot(times, table["jitter_ms"], "o", color=BLUE, markersize=9)
    for ax, room in ((above, 0.55), (below, 0.25)):  # above, for the legend
        high = max(ax.get_ylim()[1], 1.0)
        ax.set_ylim(-0.04 * high, (1 + room) * high)
    legend(above, [("reported", "o", BLUE, BLUE, 9), ("what the network did", "s", GREEN, GREEN, 9)], at="upper right")
    count, lost = len(table), table["cumulative_lost"].dropna()
    finding = f"{'One report' if count == 1 else f'{count:,} reports'} of the {stream}"
    return titled(
        figure, above, f"{finding}: {lost.iloc[-1]:,.0f} packets lost by the last one" if len(lost) else finding
    )


def real_against_simulated(real: Trace, simulated: Trace) -> Figure:
    """A real and a simulated run of one seed laid over each other: which packets each lost, what became of each frame.

    What differs is marked: above, packets that were lost in one run alone, counted from each run's first; below, frames
    with two fates.

    Args:
        real: The record of a run on sockets, both sides joined.
        simulated: What `simulate` gave for the same seed and settings.

    Raises:
        TypeError: One of them is no trace.
    """
    check_trace("real_against_simulated", real)
    check_trace("real_against_simulated", simulated)
    figure = plot(figsize=(12, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1)
    axes(above, "packet, counted from the first", "")
    axes(below, "frame", "")
    found = network.agreement(real, simulated)
    if found.packets.empty or found.frames.empty:
        below.set_axis_off()
        need = "it needs two runs that tell what became of packets and frames: joined, and simulated with a network"
        return missing(figure, above, "Nothing to lay over each other", need)
    numbers = found.packets["number"]
    for lane, name in ((1, "real"), (0, "simulated")):
        for fate, colour in (
            ("late", ORANGE),
            ("socket_dropped", "#CC79A7"),
            ("lost", VERMILION),
            ("recovered", GREEN),
        ):
            mine = numbers[found.packets[name] == fate]
            above.vlines(mine, lane - 0.32, lane + 0.32, color=colour, linewidth=1.8)
        for fate, colour in FRAME_FATES.items():
            at = found.frames.index[found.frames[name] == fate]
            tall = TALL.get(fate, 0.34)
            below.vlines(at, lane - tall, lane + tall, color=colour, linewidth=2.2)
    above.vlines(found.lost, 0.32, 0.68, color=GREY, linewidth=0.8)
    above.plot(found.differing, [0.5] * len(found.differing), "X", color="black", markersize=9)
    below.plot(found.frames_differing, [0.5] * len(found.frames_differing), "X", color="black", markersize=9)
    above.set_xlim(-0.01 * float(numbers.max()), 1.01 * float(numbers.max()) + 1)
    for ax in (above, below):
        ax.set_yticks([1, 0], ["real", "simulated"])
        ax.set_ylim(-0.5, 1.5)
        ax.grid(visible=False, axis="y")
    fates = pd.unique(found.frames[["real", "simulated"]].to_numpy().ravel())
    _legend_above(below, [(f.replace("_", " "), c) for f, c in FRAME_FATES.items() if f in fates and f != "sent"])
    lost = pd.unique(found.packets[["real", "simulated"]].to_numpy().ravel())
    words = {"lost": VERMILION, "recovered": GREEN, "late": ORANGE, "socket_dropped": "#CC79A7"}
    _legend_above(above, [(f.replace("_", " "), c) for f, c in words.items() if f in lost])
    differ, frames = len(found.differing), len(found.frames_differing)
    packets = f"{len(found.lost):,} packet{'s' * (len(found.lost) != 1)} lost in both" + (
        f", {differ:,} in one alone" if differ else ", none in one alone"
    )
    fated = (
        f"{frames:,} of {len(found.frames):,} frames {'fares' if frames == 1 else 'fare'} differently"
        if frames
        else f"all {len(found.frames):,} frames fare alike"
    )
    return titled(figure, above, f"{packets}; {fated}")


def _legend_above(ax: Axes, rows: list[tuple[str, str]]) -> None:
    """What bars stand for: text, colour; and the mark of what differs. Over the upper right corner, in a row."""
    handles = [Line2D([], [], color=colour, linewidth=5) for _, colour in rows]
    handles.append(Line2D([], [], linestyle="none", marker="X", color="black", markersize=9))
    texts = [*(text for text, _ in rows), "differs"]
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 0.96), "ncols": len(texts)}
    ax.legend(handles, texts, fontsize=BODY, frameon=False, **place)
