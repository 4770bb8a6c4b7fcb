"""Plots of a trace: a trace in, a matplotlib figure out. Computes nothing: the numbers come from measure/numbers/.

Figures are made without pyplot, so they are safe on any thread and none is left open; each shows itself in a notebook.
In a script that has imported pyplot, `plt.show()` shows them.
Those that need no trace are in `figures`, those of networks in `networks` and `adapting`; the package has all names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avlab.lab.plots import several
from avlab.lab.plots.drawing import BLUE, GREEN, GREY, ORANGE, VERMILION, plain, plot
from avlab.lab.plots.drawing import BODY as _BODY
from avlab.lab.plots.drawing import MANY as _MANY
from avlab.lab.plots.drawing import PAPER as _PAPER
from avlab.lab.plots.drawing import axes as _axes
from avlab.lab.plots.drawing import label as _label
from avlab.lab.plots.drawing import label_ends as _label_ends
from avlab.lab.plots.drawing import missing as _missing
from avlab.lab.plots.drawing import named as _named
from avlab.lab.plots.drawing import of_trace as _of_trace
from avlab.lab.plots.drawing import titled as _titled
from avlab.lab.plots.figures import frame_sizes, gaps, levels, packets, pieces, players
from avlab.lab.plots.networks import delays, frame_loss, playout, raster
from avlab.lab.plots.several import or_several as _or_several
from avlab.lab.plots.sides import adaptation, real_against_simulated, reports
from avlab.measure.numbers import metrics, timelines
from avlab.measure.numbers import rates as timestamps
from avlab.measure.numbers.convergence import video_frames
from avlab.measure.record.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

    from avlab.lab.notebook.live import Live
    from avlab.stream.client import Client

# ITU-R BT.1359-1: how early (+) or late (-) the sound may be until viewers notice, and until they mind, in ms.
DETECTABLE = (-125.0, 45.0)
ACCEPTABLE = (-185.0, 90.0)

__all__ = [
    "adaptation", "bitrate", "delay", "delays", "fps", "frame_bytes", "frame_loss", "frame_sizes", "gaps",
    "interval_error", "levels", "live", "loss", "pacers", "packets", "page", "pieces", "players", "playout", "raster",
    "real_against_simulated", "reports", "sync",
]  # fmt: skip


@_or_several(several.fps)
def fps(trace: Trace, *, ax: Axes | None = None) -> Figure:
    """Frames shown a second, over the trailing second, with the target, its band of 2 % and when that was reached.

    Several runs, as {name: trace}, are laid over each other, without the moment.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        ax: Where to draw; None makes a figure of its own.
    """
    figure, ax = _axes(ax, "time (s)", "frames a second")
    rates, found = metrics.fps(trace), metrics.convergence(trace)
    if found.mean_fps is None:
        return _missing(figure, ax, "No frame was shown", "fps needs at least two frames that were shown")
    ax.plot(rates["time"], rates["fps"], color=BLUE, linewidth=2)
    target = found.target_fps
    if target is None:
        return _titled(figure, ax, f"{found.mean_fps:.2f} fps on average")
    asked = timestamps.target_rate(trace)
    if asked is None:
        ax.axhspan(target * 0.98, target * 1.02, color=GREEN, alpha=0.2, linewidth=0)
        ax.axhline(target, color=GREEN, linewidth=1)
        low, high, goal = target, target, f"{target:.5g}"
        place: dict[str, Any] = {"xy": (float(rates["time"].iloc[-1]), target * 1.02), "xytext": (-4, 4)}
    else:  # a rate that varies is held against the clip's own timestamps
        ax.fill_between(asked[0], asked[1] * 0.98, asked[1] * 1.02, color=GREEN, alpha=0.3, linewidth=0, zorder=1)
        low, high, goal = float(asked[1].min()), float(asked[1].max()), "what its timestamps ask for"
        place = {"xy": (1, 1), "xycoords": "axes fraction", "xytext": (-6, -16)}
    # The first interval alone can read as any rate: it must not flatten the rest.
    ax.set_ylim(
        max(0.0, min(float(rates["fps"].min()), low * 0.88) - 0.02 * low),
        min(max(float(rates["fps"].max()), high * 1.12) + 0.02 * high, high * 1.6),
    )
    end = float(rates["time"].iloc[-1])
    ax.annotate(
        f"target {f'{target:.5g} fps' if asked is None else goal}, \N{PLUS-MINUS SIGN}2 %", **place,
        textcoords="offset points", ha="right", color=GREEN, size=_BODY, bbox=_PAPER,
    )  # fmt: skip
    if found.settled_s is None:
        return _titled(figure, ax, f"{found.mean_fps:.2f} fps on average, never settled within 2 % of {goal}")
    settled = float(rates["time"].iloc[0]) + found.settled_s
    ax.axvline(settled, color=GREY, linewidth=1.2, linestyle=":")
    right = settled > 0.6 * end
    ax.annotate(
        f"settled after {found.settled_s:.2f} s", (settled, 0.06), (-6 if right else 6, 0),
        xycoords=("data", "axes fraction"), textcoords="offset points", ha="right" if right else "left",
        color=GREY, size=_BODY, bbox=_PAPER,
    )  # fmt: skip
    return _titled(figure, ax, f"{found.mean_fps:.2f} fps on average, settled within 2 % after {found.settled_s:.2f} s")


@_of_trace
def interval_error(trace: Trace, *, ax: Axes | None = None) -> Figure:
    """How much longer or shorter than asked each gap between two frames on the screen was.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        ax: Where to draw; None makes a figure of its own.
    """
    figure, ax = _axes(ax, "time (s)", "interval error (ms)")
    errors = metrics.interval_error(trace)
    size = metrics.spread(errors["error_ms"])
    if size.median_ms is None or size.p95_ms is None:
        return _missing(figure, ax, "No interval to compare", "it needs two frames that were shown, and their pts")
    ax.axhline(0, color=GREY, linewidth=1)
    ax.plot(errors["time"], errors["error_ms"], ".", color=BLUE, markersize=5, alpha=0.6, markeredgewidth=0)
    ax.axhspan(-size.p95_ms, size.p95_ms, color=BLUE, alpha=0.1, linewidth=0)
    top = max(min(6 * size.p95_ms, float(errors["error_ms"].abs().max()) * 1.3), 2 * size.p95_ms, 1.0)
    _limit(ax, errors["error_ms"], -top, top)
    _label(ax, (f"95 % of the frames: \N{PLUS-MINUS SIGN}{_ms(size.p95_ms)}", BLUE))
    return _titled(figure, ax, f"Half of the frames come within {_ms(size.median_ms)} of the interval asked for")


@_or_several(several.sync)
def sync(trace: Trace, *, ax: Axes | None = None) -> Figure:
    """Sound against picture, positive when the sound is early, with what viewers notice and accept (ITU-R BT.1359).

    Several runs, as {name: trace}, are laid over each other: the middle of each second.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        ax: Where to draw; None makes a figure of its own.
    """
    figure, ax = _axes(ax, "time (s)", "late  \N{LEFTWARDS ARROW}  sound  \N{RIGHTWARDS ARROW}  early (ms)")
    size = metrics.sync_summary(trace)
    if size.p95_ms is None:
        return _missing(figure, ax, "No readings of picture against sound", "they need a clip with sound, and playout")
    offset = trace.sync["offset"] * 1e3
    for (low, high), colour, alpha in ((ACCEPTABLE, ORANGE, 0.14), (DETECTABLE, GREEN, 0.18)):
        ax.axhspan(low, high, color=colour, alpha=alpha, linewidth=0)
    ax.plot(trace.sync["time"], offset, ".", color=BLUE, markersize=5, markeredgewidth=0)
    ax.axhline(0, color=GREY, linewidth=1)
    low, high = (float(offset.quantile(q)) * 1.2 for q in (0.01, 0.99))
    _limit(ax, offset, max(-550.0, min(ACCEPTABLE[0] - 30, low)), min(450.0, max(ACCEPTABLE[1] + 30, high)))
    for low, text, colour in (
        (DETECTABLE[0], "not noticed (+45 to \N{MINUS SIGN}125 ms)", "#00664A"),
        (ACCEPTABLE[0], "noticed but accepted (+90 to \N{MINUS SIGN}185 ms)", "#8A5F00"),
    ):
        ax.annotate(text, (1, low), (-6, 4), xycoords=("axes fraction", "data"), textcoords="offset points",
                    ha="right", color=colour, size=_BODY)  # fmt: skip
    middle = size.signed_median_ms or 0.0
    side = "in time" if abs(middle) < 0.5 else f"{_ms(abs(middle))} {'early' if middle > 0 else 'late'}"
    within = f"Picture and sound within {_ms(size.p95_ms)} 95 % of the time"
    return _titled(figure, ax, f"{within}; sound typically {side}")


@_or_several(several.loss)
def loss(trace: Trace, *, ax: Axes | None = None) -> Figure:
    """Packets lost and frames damaged by it, a second at a time.

    Several runs, as {name: trace}, are laid over each other: their frames.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        ax: Where to draw; None makes a figure of its own.
    """
    figure, ax = _axes(ax, "time (s)", "lost in each second (%)")
    table, found = metrics.loss(trace), metrics.summary(trace)
    if found.packet_loss_percent is None and found.frame_loss_percent is None:
        return _missing(figure, ax, "No packet was sent", "loss needs a trace in which video was sent")
    edges = np.append(table["time"], table["time"].iloc[-1] + 1)
    for column, colour in (("frame_loss", VERMILION), ("packet_loss", BLUE)):
        ax.stairs(table[column] * 100, edges, baseline=None, color=colour, linewidth=2)
    top = max(5.0, 130 * float(table[["packet_loss", "frame_loss"]].max().max()))
    ax.set_ylim(-0.02 * top, top)
    _label(ax, ("frames lost or incomplete", VERMILION), ("packets lost", BLUE))
    if not found.packet_loss_percent and not found.frame_loss_percent:
        return _titled(figure, ax, "Nothing was lost")
    frames = _percent(found.frame_loss_percent)
    if found.packet_loss_percent is None:
        return _titled(figure, ax, f"{frames} of the frames lost")
    packets = _percent(found.packet_loss_percent)
    return _titled(figure, ax, f"{packets} of the packets lost, and with them {frames} of the frames")


@_or_several(several.delay)
def delay(trace: Trace, *, ax: Axes | None = None) -> Figure:
    """How long each packet was under way; a band and a bar are by how much that can be wrong, where two clocks differ.

    All points can lie that much lower or higher together: their shape is sure, their height is not. Several runs, as
    {name: trace}, are laid over each other: the middle of each second.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        ax: Where to draw; None makes a figure of its own.
    """
    figure, ax = _axes(ax, "time (s)", "one-way delay (ms)")
    table = metrics.one_way_delay(trace)
    size = metrics.spread(table["delay_ms"])
    if size.median_ms is None or size.p95_ms is None:
        text = (
            "nothing tells how far both sides' clocks are apart"
            if len(table)
            else "it needs both sides' packets: join the two traces"
        )
        return _missing(figure, ax, "No one-way delay", text)
    came = []
    for stream, colour, dark in (("video", BLUE, BLUE), ("audio", ORANGE, "#8A5F00")):
        mine = table[table["stream"] == stream]
        ax.plot(mine["time"], mine["delay_ms"], ".", color=colour, markersize=4, alpha=0.5, markeredgewidth=0)
        came += [(stream, dark)] if len(mine) else []
    error = _draw_error(ax, table)
    ax.set_ylim(0, 1.3 * float(table["delay_ms"].max()) + error or 1.0)
    _label(ax, *came)
    found = f"Half of the packets arrive within {_ms(size.median_ms)}, 95 % within {_ms(size.p95_ms)}"
    return _titled(figure, ax, found + (f"; all \N{PLUS-MINUS SIGN}{_ms(error)}" if error else ""))


def _draw_error(ax: Axes, table: pd.DataFrame) -> float:
    """Draw by how much delays can be wrong, around the median of each second, and at the side; in milliseconds."""
    error = float(table["error_ms"].median())
    if not error > 0:
        return 0.0
    stream = "video" if (table["stream"] == "video").any() else "audio"
    mine = table[table["stream"] == stream]
    middle, wrong = (timelines.by_second(mine["time"], mine[name]) for name in ("delay_ms", "error_ms"))
    low, high = middle.median - wrong.median, middle.median + wrong.median
    ax.fill_between(middle.time, np.maximum(0, low), high, color=GREY, alpha=0.25, linewidth=0, zorder=1)
    ax.plot(middle.time, middle.median, color=GREY, linewidth=1.5, zorder=2.2)
    at, half = float(middle.time[len(middle.time) // 2]), float(middle.median[len(middle.time) // 2])
    ax.errorbar(at, half, yerr=[[min(half, error)], [error]], color="black", capsize=7, elinewidth=2, zorder=3)
    ax.annotate(
        f"two clocks: \N{PLUS-MINUS SIGN}{_ms(error)}", (at, half + error), (0, 6), textcoords="offset points",
        ha="center", size=_BODY, bbox=_PAPER, zorder=3,
    )  # fmt: skip
    return error


@_of_trace
def frame_bytes(trace: Trace, *, ax: Axes | None = None) -> Figure:
    """How large each picture was, with a mark where quality or width was changed and came to rest.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        ax: Where to draw; None makes a figure of its own.
    """
    figure, ax = _axes(ax, "time (s)", "bytes a frame")
    frames = video_frames(trace)
    moment = "sent" if frames["sent"].notna().any() else "complete"
    known = frames.dropna(subset=[moment, "bytes"])
    if known.empty:
        return _missing(figure, ax, "No frame's size is known", "it needs frames that were sent, or complete")
    times, sizes = known[moment], known["bytes"]
    ax.plot(times, sizes, ".", color=BLUE, markersize=6, markeredgewidth=0)
    top = 1.25 * float(sizes.max())
    ax.set_ylim(0, top)
    for name, colour, height in (("quality", "#B04E00", 0.97), ("width", "#00664A", 0.89)):
        rows = trace.settings
        rows = rows[(rows["name"] == name) & rows["time"].between(times.min(), times.max())]
        for at in timelines.steps(list(rows["time"])):
            time, value = float(rows["time"].iloc[at]), rows["value"].iloc[at]
            ax.axvline(time, color=colour, linewidth=1.2, linestyle=":")
            ax.annotate(
                f"{name} {plain(value)}", (time, height), (5, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", va="top", color=colour, size=_BODY, bbox=_PAPER,
            )  # fmt: skip
    half, largest = float(sizes.median()), float(sizes.max())
    return _titled(figure, ax, f"Half of the frames have {half:,.0f} bytes or fewer, the largest {largest:,.0f}")


def pacers(traces: Mapping[str, Trace]) -> Figure:
    """Pacing rules laid over each other by name: fps on leaving the sender, and below how far behind each comes.

    Any trace that says when frames were sent will do: a simulated one, a server's, a joined one.

    Args:
        traces: Records by name.
    """
    traces = _named("pacers", traces)
    figure = plot(figsize=(12, 6.2), layout="constrained")  # both halves fit a projector of 1280x800
    above, below = figure.subplots(2, 1, sharex=True)
    _axes(above, "", "frames a second")
    _axes(below, "time (s)", "behind its timestamps by (ms)")
    found = {name: metrics.convergence(trace, at="sent") for name, trace in traces.items()}
    found = {name: numbers for name, numbers in found.items() if numbers.mean_fps is not None}
    if not found:
        below.set_axis_off()
        return _missing(figure, above, "No rules to compare", "it needs traces of frames that were sent")
    target = next((numbers.target_fps for numbers in found.values() if numbers.target_fps is not None), None)
    if target is not None:
        above.axhspan(target * 0.98, target * 1.02, color=GREEN, alpha=0.2, linewidth=0)
        above.axhline(target, color=GREEN, linewidth=1)
        above.annotate(
            f"target {target:.5g} fps, \N{PLUS-MINUS SIGN}2 %", (0.5, target * 1.02), (0, 4),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="center", color=GREEN, size=_BODY,
        )  # fmt: skip
    below.axhline(0, color=GREEN, linewidth=1)
    rated, drifted, slides = [], [], {}
    ends = {name: float(metrics.drift(traces[name], at="sent")["time"].iloc[-1]) for name in found}
    low, high = (np.inf, -np.inf) if target is None else (target * 0.94, target * 1.06)
    for (name, numbers), (colour, dark) in zip(found.items(), cycle(_MANY)):
        rates, drifts = metrics.fps(traces[name], at="sent"), metrics.drift(traces[name], at="sent")
        above.plot(rates["time"], rates["fps"], color=colour, linewidth=1.6, alpha=0.9)
        below.plot(drifts["time"], drifts["drift_ms"], color=colour, linewidth=2)
        # The first second can read as any rate: it must not flatten the rest.
        later = rates["fps"][rates["time"] > rates["time"].iloc[0] + 1]
        later = later if len(later) else rates["fps"]
        low, high = min(low, float(later.quantile(0.02))), max(high, float(later.quantile(0.98)))
        settled, slide = numbers.settled_s, numbers.drift_ms_per_minute
        text = f"{name}: " + ("never settles" if settled is None else f"settles in {settled:.2g} s")
        rated.append((rates["time"].iloc[-1], rates["fps"].iloc[-1], text, dark))
        text = name
        if ends[name] < 0.8 * max(ends.values()):
            text += f": stops at {ends[name]:.2g} s"
            for ax, ys in ((above, rates["fps"]), (below, drifts["drift_ms"])):
                ax.plot(ends[name], ys.iloc[-1], "X", color=colour, markersize=10)
        elif slide is not None:
            text += f": {_signed_ms(slide)} a minute"
            slides[name] = abs(slide)
        drifted.append((drifts["time"].iloc[-1], drifts["drift_ms"].iloc[-1], text, dark))
    above.set_ylim(low - 0.01 * (high - low), high + 0.01 * (high - low))
    _label_ends(above, rated)
    _label_ends(below, drifted)
    if len(slides) < 2:
        return _titled(figure, above, "How the rate comes to its target, and how far the stream slides away")
    best, worst = min(slides, key=slides.__getitem__), max(slides, key=slides.__getitem__)
    finding = f"{best} slides by {_ms(slides[best])} a minute, {worst} by {_ms(slides[worst])}"
    return _titled(figure, above, finding)


@_or_several(several.bitrate)
def bitrate(trace: Trace, *, ax: Axes | None = None) -> Figure:
    """Kilobits of packets a second, of video and of sound, a second at a time.

    Several runs, as {name: trace}, are laid over each other: all packets.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        ax: Where to draw; None makes a figure of its own.
    """
    figure, ax = _axes(ax, "time (s)", "bit rate (kbit/s)")
    table = metrics.bitrate(trace)
    table = table.iloc[:-1] if len(table) > 1 else table  # the last second is as a rule not whole
    usual = metrics.spread(table["video"] + table["audio"])
    if usual.median_ms is None:
        return _missing(figure, ax, "No packet was received", "the bit rate needs a trace in which packets came")
    edges = np.append(table["time"], table["time"].iloc[-1] + 1)
    labels = []
    for column, colour, label in (("video", BLUE, ("video", BLUE)), ("audio", ORANGE, ("sound", "#8A5F00"))):
        if table[column].any():
            ax.stairs(table[column], edges, baseline=None, color=colour, linewidth=2)
            labels.append(label)
    ax.set_ylim(0, 1.3 * max(1.0, float(table[["video", "audio"]].max().max())))
    _label(ax, *labels)
    return _titled(figure, ax, f"{usual.median_ms:,.0f} kbit/s in half of the seconds, or less")


@_of_trace
def page(trace: Trace, *, kinds: Sequence[str] = ("fps", "interval_error", "sync", "loss")) -> Figure:
    """Several plots on one page, by default fps, interval error, sync and loss; `bitrate` and `delay` can be added.

    Of a stream that is sound alone there are those that sound has, bit rate and delay. ValueError for a kind that is
    none.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        kinds: The plots' names, from top to bottom.
    """
    draws = {draw.__name__: draw for draw in (fps, interval_error, sync, loss, bitrate, delay)}
    unknown = [kind for kind in kinds if kind not in draws]
    if unknown or not kinds:
        raise ValueError(f"kinds must be of {', '.join(draws)}, not {', '.join(map(repr, unknown)) or 'none'}")
    if _sound_alone(trace):
        kinds = [kind for kind in kinds if kind in ("bitrate", "delay")] or ["bitrate", "delay"]
    across = min(2, len(kinds))
    down = -(-len(kinds) // across)
    figure = plot(figsize=(9 * across, 5 * down), layout="constrained")
    axes = np.ravel(figure.subplots(down, across, squeeze=False))
    for ax, kind in zip(axes, kinds, strict=False):
        draws[kind](trace, ax=ax)
    for ax in axes[len(kinds) :]:
        ax.set_axis_off()
    return figure


def _sound_alone(trace: Trace) -> bool:
    """Whether there is sound in a run, and no picture."""
    streams = {str(stream) for table in (trace.frames, trace.packets) for stream in table["stream"].dropna().unique()}
    return streams == {"audio"}


def live(
    client: Client,
    *,
    kinds: Sequence[str] = ("fps", "interval_error", "sync", "loss", "bitrate"),
    seconds: float = 30.0,
) -> Live:
    """Plots of what a client sees now, over the last `seconds`, in a notebook; displays itself, returns the widget.

    `live(client).figure()` is the whole run as a plain matplotlib figure, during the stream and after it. `kinds`
    chooses among the five. Raises RuntimeError when the client does not run, ValueError for a kind that is none.

    Args:
        client: A client that runs.
        kinds: The plots' names, from top to bottom.
        seconds: How much of the run is seen, more than 0.
    """
    from avlab.lab.notebook import live as room  # widgets are for notebooks, and take a while to import

    return room.live(client, kinds=kinds, seconds=seconds)


def _limit(ax: Axes, values: pd.Series[Any], low: float, high: float) -> None:
    """Show from `low` to `high`; a few values far out would flatten all others, so they are counted instead."""
    ax.set_ylim(low, high)
    beyond = int(((values < low) | (values > high)).sum())
    if beyond:
        text = f"{beyond} beyond the edge, up to {_ms(float(values.abs().max()))}"
        ax.annotate(
            text,
            (0, 0),
            (6, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            color=GREY,
            size=_BODY,
            bbox=_PAPER,
        )


def _ms(value: float) -> str:
    # Virtual time is exact but for the last bit of a float: a microsecond is as fine as anyone reads.
    return f"{round(value, 3):.2g} ms" if value < 10 else f"{value:,.0f} ms"


def _signed_ms(value: float) -> str:
    value = round(value, 3)
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
    return sign + _ms(abs(value))


def _percent(value: float | None) -> str:
    return "an unknown part" if value is None else f"{value:.2g} %" if value < 9.95 else f"{value:.0f} %"
