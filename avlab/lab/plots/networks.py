"""Plots of what networks do: frame loss over packet loss, packet rasters, delays, what a playout delay buys.

As in lab.plots, traces come in and a figure goes out; what is computed is computed in avlab.measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avlab.lab.plots.drawing import (
    BLUE,
    BODY,
    DARK,
    GREEN,
    GREY,
    MANY,
    ORANGE,
    PAPER,
    VERMILION,
    axes,
    label_ends,
    legend,
    milliseconds,
    missing,
    named,
    of_trace,
    percent,
    plot,
    titled,
)  # fmt: skip
from avlab.measure.numbers import metrics, network
from avlab.measure.record.trace import Trace

FATES = {  # marker, colour, size: told apart by shape and place, too
    "sent": (".", GREY, 4), "used": (".", BLUE, 4), "in_flight": ("o", GREY, 6), "duplicate": ("+", "black", 8),
    "late": ("^", ORANGE, 7), "recovered": ("D", GREEN, 6), "lost": ("x", VERMILION, 8),
    "socket_dropped": ("s", "#CC79A7", 7),
}  # fmt: skip
"""How each fate is drawn, the commonest first: what is rare is drawn over it."""

FEW = 300
"""So few packets have larger marks."""

LINES = 1500
"""Up to so many packets, a line shows each one's way."""


def frame_loss(traces: Mapping[str, Trace] | Sequence[Trace]) -> Figure:
    """Frame loss over packet loss, measured in each run, beside 1 - (1 - p)^n for its n packets a frame.

    A run is a point: a disk where packets were lost by chance, a diamond where they were lost in bursts (more than
    chance alone makes), hollow where a repair brought packets back. The line is the mean of 1 - (1 - p)^n over the
    frames of all runs; the band is between the smallest tenth of them and the largest.

    Args:
        traces: Records by name, or in a row.
    """
    figure, ax = axes(None, "packets lost (%)", "frames lost or incomplete (%)")
    runs = named("frame_loss", traces)
    found = {name: loss for name, trace in runs.items() if (loss := network.frame_loss(trace)) is not None}
    if not found:
        return missing(figure, ax, "No loss to compare", "it needs runs that tell packets' fates: joined or simulated")
    sizes: dict[int, int] = {}
    for name in found:
        for size, count in network.packets_a_frame(runs[name]).items():
            sizes[size] = sizes.get(size, 0) + count
    right = min(1.0, 1.15 * max(0.02, *(loss.packet_loss for loss in found.values())))
    line = np.linspace(0, right, 200)
    top = max(loss.frame_loss for loss in found.values())
    if sizes:
        low, high = (network.middle(sizes, share) for share in (0.1, 0.9))
        expected = network.expected_frame_loss(line, sizes) * 100
        if low < high:
            under, over = (network.expected_frame_loss(line, {size: 1}) * 100 for size in (low, high))
            ax.fill_between(line * 100, under, over, color=GREEN, alpha=0.15, linewidth=0)
        ax.plot(line * 100, expected, color=GREEN, linewidth=2)
        counted = f"n = {low}" if low == high else f"n from {low} to {high}"
        ax.annotate(
            f"1 \N{MINUS SIGN} (1 \N{MINUS SIGN} p)^n, {counted}", (line[110] * 100, expected[110]), (10, -22),
            textcoords="offset points", color=DARK[GREEN], size=BODY, bbox=PAPER,
        )  # fmt: skip
        top = max(top, expected[-1] / 100)
    for loss in found.values():
        colour = ORANGE if loss.bursty else BLUE
        ax.plot(
            loss.packet_loss * 100, loss.frame_loss * 100, "D" if loss.bursty else "o", color=colour, markersize=11,
            markerfacecolor="white" if loss.repaired else colour, markeredgewidth=2, zorder=3,
        )  # fmt: skip
    ax.set_xlim(-0.02 * right * 100, right * 100)
    ax.set_ylim(-9 * top - 1, min(108, 112 * top + 1))
    points = [(100 * loss.packet_loss, 100 * loss.frame_loss, name) for name, loss in found.items()]
    name_points(ax, points)
    kinds = [
        ("lost by chance", "o", BLUE, BLUE, any(not loss.bursty for loss in found.values())),
        ("lost in bursts", "D", ORANGE, ORANGE, any(loss.bursty for loss in found.values())),
        ("hollow: repaired", "o", BLUE, "white", any(loss.repaired for loss in found.values())),
    ]
    legend(ax, [(text, marker, edge, face, 10) for text, marker, edge, face, is_there in kinds if is_there])
    worst = max(found.values(), key=lambda loss: loss.packet_loss)
    own = network.packets_a_frame(runs[next(name for name, loss in found.items() if loss is worst)])
    predicted = float(network.expected_frame_loss(worst.packet_loss, own))
    finding = f"{percent(worst.packet_loss)} of the packets lost cost {percent(worst.frame_loss)} of the frames"
    said = f"{finding}; by chance alone, {percent(predicted)}" if sizes else finding
    return titled(figure, ax, said)


@of_trace
def raster(
    trace: Trace, *, start: float | None = None, seconds: float | None = None, stream: str = "video",
    ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Every packet: its sequence number, counted from the first drawn, over time, with its fate.

    A mark stands where a packet arrived, or where it was sent if it never did; where few are drawn, a line leads from
    sending to arrival. `start` and `seconds`, on the trace's clock, choose a part of a long run. What a repair sends
    has numbers of its own and is not drawn: what it brought back is.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
        start: Seconds on the trace's clock; None for its beginning.
        seconds: How long a part is drawn; None for all that follows.
        stream: "video" or "audio".
        ax: Where to draw; None makes a figure of its own.

    Raises:
        ValueError: `seconds` is not more than 0.
    """
    figure, ax = axes(ax, "time (s)", "sequence number, from the first")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be more than 0, not {seconds}")
    table = network.packet_fates(trace, stream)
    low = -np.inf if start is None else start
    table = table[table["time"].between(low, np.inf if seconds is None else max(low, table["time"].min()) + seconds)]
    if table.empty:
        within = "" if start is None and seconds is None else " in this part of it"
        return missing(figure, ax, f"No packet of {stream}{within}", "it needs a run in which packets were sent")
    table = table.assign(number=table["number"] - table["number"].min())
    ways = table.dropna(subset=["sent", "received"])
    if len(table) <= LINES:
        ax.hlines(ways["number"], ways["sent"], ways["received"], color=GREY, alpha=0.45, linewidth=1)
    counts = table["fate"].value_counts()
    shown = [(fate, *look) for fate, look in FATES.items() if counts.get(fate, 0)]
    for order, (fate, marker, colour, size) in enumerate(shown, 2):
        mine = table[table["fate"] == fate]
        where = mine["received"].fillna(mine["time"])
        ax.plot(
            where, mine["number"], marker, color=colour, markersize=size + 2 * (len(table) < FEW), zorder=order,
            markeredgewidth=2 if marker in "x+" else 0, linestyle="none", rasterized=len(mine) > LINES,
        )  # fmt: skip
    texts = {"in_flight": "in flight", "socket_dropped": "dropped at the socket"}
    rows = [(f"{counts[f]:,} {texts.get(f, f)}", m, c, c, 14 if m == "." else size) for f, m, c, size in shown]
    legend(ax, rows, at="upper left")
    ax.margins(y=0.03)
    gone = sum(int(counts.get(fate, 0)) for fate in ("lost", "recovered", "socket_dropped"))
    sent = table["number"].nunique()
    finding = (
        f"Of {sent:,} packets, {gone:,} {'was' if gone == 1 else 'were'} lost"
        if gone
        else f"Of {sent:,} packets none was lost"
    )
    if counts.get("recovered", 0):
        finding += f", and {counts['recovered']:,} of them recovered"
    return titled(figure, ax, finding)


@of_trace
def delays(trace: Trace) -> Figure:
    """How packets' delays are distributed, with their median, 95th and 99th percentile; below, jitter over time.

    Above, each packet's one-way delay, with a bar for what two clocks leave open, or how much longer than the quickest
    it took where nothing tells how far they are apart: the part of the packets that took no longer. Jitter is what
    receivers report (RFC 3550, A.8).

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    figure = plot(figsize=(12, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    found = network.delays(trace)
    axes(above, "one-way delay (ms)" if found.absolute else "delay beyond the quickest packet's (ms)", "packets (%)")
    axes(below, "time (s)", "jitter (ms)")
    if found.table.empty:
        below.set_axis_off()
        return missing(figure, above, "No delay to show", "it needs a run in which packets arrived")
    said, least, widest = "", np.inf, 0.0
    for stream, colour in (("video", BLUE), ("audio", ORANGE)):
        took = np.sort(found.table["delay_ms"][found.table["stream"] == stream].to_numpy(float))
        if not len(took):
            continue
        above.plot(
            took, np.arange(1, len(took) + 1) / len(took) * 100, color=colour, linewidth=2.5, drawstyle="steps-post"
        )
        marks = np.quantile(took, (0.5, 0.95, 0.99))
        least = min(least, float(took[0]))
        widest = max(widest, float(marks[2]) + 0.35 * float(marks[2] - took[0]), float(took[0]) + 1)
        if not said:
            half, most = milliseconds(marks[0]), milliseconds(marks[2])
            said = f"Half of the {stream} packets take up to {half}, 99 in a hundred up to {most}"
            for mark, share, down in zip(marks, (50, 95, 99), (14, 28, 16), strict=True):
                above.plot(mark, share, "o", color=colour, markersize=8, zorder=3)
                above.annotate(
                    f"{share} %: {milliseconds(mark)}", (mark, share), (12, -down), textcoords="offset points",
                    color=DARK[colour], size=BODY, bbox=PAPER,
                )  # fmt: skip
        jitter = metrics.media_jitter(trace, stream)
        below.plot(jitter["time"], jitter["jitter_ms"], color=colour, linewidth=1.5)
    if found.error_ms:  # the curves are wrong alike
        middle, level = float(found.table["delay_ms"].median()), 26
        left = min(middle, found.error_ms)
        xerr = [[left], [found.error_ms]]
        above.errorbar(middle, level, xerr=xerr, color="black", capsize=7, elinewidth=2, zorder=3)
        above.annotate(
            f"two clocks: \N{PLUS-MINUS SIGN}{milliseconds(found.error_ms)}", (middle - left, level), (6, 9),
            textcoords="offset points", size=BODY, bbox=PAPER, zorder=3,
        )  # fmt: skip
        least, widest = min(least, middle - left), max(widest, middle + 1.1 * found.error_ms)
    begin = least - 0.1 * (widest - least)
    above.set_xlim(0 if begin < 0.4 * widest else begin, widest)
    above.set_ylim(0, 104)
    below.set_ylim(bottom=0)
    legend(above, [(text, "s", colour, colour, 10) for text, colour in _streams(found.table)], at="lower right")
    return titled(figure, above, said)


def playout(traces: Mapping[str, Trace] | Sequence[Trace]) -> Figure:
    """What a playout delay buys: buffer depth over time, and the part of the frames that come late at each delay.

    Below, a run is a point, and the curve is what the first run's own delays predict for other playout delays: the part
    of its frames that took longer. A picture is late when the next one's moment has come, or 40 ms after its own.

    Args:
        traces: Records by name, or in a row.
    """
    runs = named("playout", traces)
    figure = plot(figsize=(12, 6.6), layout="constrained")
    above, below = figure.subplots(2, 1)
    axes(above, "time (s)", "buffer depth (ms)")
    axes(below, "playout delay as it was, from the quickest arrival on (ms)", "frames late (%)")
    depths = {name: network.buffer_depth(trace) for name, trace in runs.items()}
    points = {name: found for name, trace in runs.items() if (found := network.lateness(trace)) is not None}
    if not any(len(depth) for depth in depths.values()) and not points:
        below.set_axis_off()
        return missing(
            figure, above, "No playout to compare", "it needs runs whose frames came, and were shown or late"
        )
    styles = dict(zip(runs, cycle(product("-:", MANY))))  # a seventh run has the first one's colour, dotted
    ends = []
    for name, depth in depths.items():
        if len(depth):
            line_style, (colour, dark) = styles[name]
            above.plot(depth["time"], depth["depth_ms"], line_style, color=colour, linewidth=1.5, alpha=0.9)
            ends.append((float(depth["time"].iloc[-1]), float(depth["depth_ms"].iloc[-1]), name, dark))
    above.set_ylim(bottom=min(0.0, above.get_ylim()[0]))
    widest = max([200.0, *(1.2 * found.playout_delay_ms for found in points.values())])
    line, told, top = np.linspace(0, widest, 400), "", 2.0
    for name, trace in runs.items():
        predicted = network.predicted_late(trace, line)
        if predicted is not None:
            text = f"predicted from the delays of \N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}"
            below.plot(line, predicted * 100, color=GREEN, linewidth=2, label=text)
            below.legend(loc="upper right", fontsize=BODY, framealpha=0.85, edgecolor="none", labelcolor=DARK[GREEN])
            top = max(top, 100 * float(predicted[0]))
            break
    for name, found in points.items():
        line_style, (colour, _) = styles[name]
        hollow = {} if line_style == "-" else {"markerfacecolor": "white", "markeredgewidth": 2}
        below.plot(found.playout_delay_ms, found.late * 100, "o", color=colour, markersize=10, zorder=3, **hollow)
        top = max(top, 100 * found.late)
    below.set_xlim(0, widest)
    below.set_ylim(-0.12 * top, 1.25 * top)
    name_points(below, [(found.playout_delay_ms, 100 * found.late, name) for name, found in points.items()])
    if ends:
        label_ends(above, ends)
    if points:
        least, most = (pick(points, key=lambda name: points[name].playout_delay_ms) for pick in (min, max))
        low, high = points[least], points[most]
        told = f"{percent(low.late)} of the frames are late at a playout delay of {milliseconds(low.playout_delay_ms)}"
        told += f", {percent(high.late)} at {milliseconds(high.playout_delay_ms)}" if least != most else ""
    finding = told[:1].upper() + told[1:] or "What waits to be presented"
    return titled(figure, above, finding)


# ---- drawing


def _streams(table: pd.DataFrame) -> list[tuple[str, str]]:
    return [(word, colour) for word, colour in (("video", BLUE), ("audio", ORANGE)) if (table["stream"] == word).any()]


def name_points(ax: Axes, points: list[tuple[float, float, str]]) -> None:
    """Each point's name beside it, where it stays within the axes and meets no other name and no other point.

    Points that meet share a place, and their names stand in a row.
    """
    (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    figure, box = ax.get_figure(root=True), ax.get_position()
    wide, tall = (72 * inches for inches in (figure.get_size_inches() if figure is not None else (12.0, 6.0)))
    letter, line = 0.62 * BODY / (wide * box.width), 1.3 * BODY / (tall * box.height)  # shares of the axes
    places: dict[tuple[float, float], list[str]] = {}
    for x, y, name in points:
        at = (x - low) / (high - low), (y - bottom) / (top - bottom)
        near = (place for place in places if abs(place[0] - at[0]) < 0.02 and abs(place[1] - at[1]) < 0.04)
        places.setdefault(next(near, at), []).append(name)
    taken = [_Box(x - letter, y - line / 2, x + letter, y + line / 2) for x, y in places]
    for (x, y), names in places.items():
        name = ", ".join(names)
        found = [_beside(x, y, letter, line, len(name), across, up) for up in (0, -1, 1, 2) for across in (1, -1)]
        others = [each for each in taken if not (each.left < x < each.right and each.low < y < each.high)]
        free = [place for place in found if place.inside and not any(place.meets(other) for other in others)]
        place = next(iter(free or [place for place in found if place.inside] or found))
        taken.append(place)
        ax.annotate(
            name, (place.left, (place.low + place.high) / 2), xycoords="axes fraction", va="center", size=BODY,
            bbox=PAPER, zorder=2.5,
        )  # fmt: skip


class _Box(NamedTuple):
    """Where something stands in the axes, in shares of them."""

    left: float
    low: float
    right: float
    high: float

    @property
    def inside(self) -> bool:
        """Whether all of it is within the axes."""
        return self.left >= 0 and self.low >= 0 and self.right <= 1 and self.high <= 1

    def meets(self, other: _Box) -> bool:
        """Whether the two share a spot."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.high <= other.low or other.high <= self.low)


def _beside(x: float, y: float, letter: float, line: float, letters: int, across: int, up: int) -> _Box:
    """The place of a text to the right (`across` 1) or left (-1) of a point, level with it, above or below (`up`)."""
    width = letter * letters
    left = x + 1.2 * letter if across > 0 else x - 1.2 * letter - width
    middle = y + 1.15 * up * line
    return _Box(left, middle - line / 2, left + width, middle + line / 2)
