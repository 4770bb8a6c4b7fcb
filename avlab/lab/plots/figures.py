"""Figures that need no trace: gaps of pictures, players against the clock, sound that waits, sizes, bytes of packets.

As in lab.plots, numbers come in and a figure goes out; what is computed is computed in avlab.measure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from avlab.lab.plots.drawing import BODY, GREEN, GREY, MANY, axes, label_ends, missing, plot, titled
from avlab.measure.numbers import timelines
from avlab.measure.numbers.datagrams import LIMITS
from avlab.wire.fields import Field

if TYPE_CHECKING:
    import pandas as pd


def gaps(clips: Mapping[str, Iterable[float]]) -> Figure:
    """The time from each picture of a clip to its next, clip by clip; `clips` names each one's timestamps, in seconds.

    What leaves a sender has timestamps, too. Where gaps are nearly equal, the plot shows how they differ; else it
    begins at 0.

    Args:
        clips: Moments at which pictures come, in seconds, by name.
    """
    figure, ax = axes(None, "time (s)", "gap to the next picture (ms)")
    ordered = {name: np.sort(np.fromiter(times, np.float64)) for name, times in clips.items()}
    ordered = {name: times for name, times in ordered.items() if len(times) > 1}
    if not ordered:
        return missing(figure, ax, "No gaps to compare", "it needs a clip with two pictures or more")
    said, ends = [], []
    for (name, times), (colour, dark) in zip(ordered.items(), cycle(MANY)):
        found = timelines.gaps(times)
        line = 1.2 if len(times) < 60 else 0  # where there is room, the eye is helped along
        ax.plot(
            times[:-1], found.gaps_ms, ".-", color=colour, linewidth=line, markersize=7, markeredgewidth=0, alpha=0.8
        )
        low, high = float(found.gaps_ms.min()), float(found.gaps_ms.max())
        said.append(f"{name} every {low:.3g} ms" if found.even else f"{name} from {low:.3g} ms to {high:.3g} ms")
        ends.append((float(times[-2]), float(found.gaps_ms[-1]), f"{name}: {found.fps:.4g} fps", dark))
    low = min(float(np.diff(times).min()) for times in ordered.values()) * 1e3
    high = max(float(np.diff(times).max()) for times in ordered.values()) * 1e3
    near = high - low < 0.25 * high
    room = max(high - low, 0.02 * high)
    ax.set_ylim(low - room if near else 0, high + room if near else 1.12 * high)
    label_ends(ax, ends)
    return titled(figure, ax, textwrap.fill(f"Pictures come: {', '.join(said)}", 76))


def players(runs: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """How far into its clip each player is, against real time: pairs (moment, pts) of each picture, in seconds.

    On the diagonal a second of clip takes a second.

    Args:
        runs: Runs of a player, by name.
    """
    figure, ax = axes(None, "real time (s)", "time in the clip (s)")
    seen = {name: timelines.playing(pairs) for name, pairs in runs.items() if len(pairs) > 1}
    if not seen:
        return missing(figure, ax, "No player to compare", "it needs pairs (moment, pts) of two pictures or more")
    end = max(float(found.media[-1]) for found in seen.values())
    ax.plot([0, end], [0, end], color=GREEN, linewidth=6, alpha=0.35, solid_capstyle="butt")
    ends = [(end, end, "in real time", "#00664A")]
    for (name, found), (colour, dark) in zip(seen.items(), cycle(MANY)):
        ax.plot(found.real, found.media, color=colour, linewidth=2.5)
        ax.plot(found.real[-1], found.media[-1], "o", color=colour, markersize=7)
        how = f"up to {abs(found.off):.2g} s {'late' if found.off > 0 else 'early'}"
        if found.speed is not None and found.speed >= 1.5:
            how = f"{found.speed:.3g} times too fast"
        elif abs(found.off) < 0.01:
            how = "in time"
        ends.append((float(found.real[-1]), float(found.media[-1]), f"{name}: {how}", dark))
    ax.set_ylim(0, 1.05 * end)
    label_ends(ax, sorted(ends))  # of players that end together, the later one's label is above: no lines cross
    worst = max(seen, key=lambda name: abs(seen[name].off))
    finding = f"{worst}: {seen[worst].media[-1]:.3g} s of clip in {seen[worst].real[-1]:.3g} s"
    return titled(figure, ax, finding)


def levels(runs: Mapping[str, pd.Series[float]]) -> Figure:
    """How much sound waits before it is heard, run by run: milliseconds, by the minute.

    Where a line falls, two clocks differ; one that comes down to nothing has run empty, and sound has broken off.

    Args:
        runs: A buffer's level by name, as (seconds, milliseconds).
    """
    figure, ax = axes(None, "time (min)", "sound that waits (ms)")
    runs = {name: run.dropna() for name, run in runs.items()}
    runs = {name: run for name, run in runs.items() if len(run)}
    if not runs:
        return missing(figure, ax, "No sound that waits", "it needs a run with sound")
    said, ends = [], []
    for (name, run), (colour, dark) in zip(runs.items(), cycle(MANY)):
        ax.plot(run.index, run, color=colour, linewidth=2.5)
        least = float(run.min())
        empty = least < EMPTY_MS
        said.append(f"{name} {f'runs empty after {run.idxmin():.3g} min' if empty else f'keeps {least:.0f} ms'}")
        ends.append((float(run.index[-1]), float(run.iloc[-1]), name, dark))
    ax.set_ylim(0, 1.25 * max(float(run.max()) for run in runs.values()))
    label_ends(ax, ends)
    finding = ", ".join(said)
    return titled(figure, ax, textwrap.fill(finding[0].upper() + finding[1:], 76))


EMPTY_MS = 5.0
"""Sound that waits for less has no time to be heard in order."""


def frame_sizes(sizes: pd.DataFrame, *, limits: Mapping[str, int] = LIMITS) -> Figure:
    """Bytes of a frame over quality and width, with a line where a frame just fits each of `limits`, in bytes.

    `sizes` is as `avlab.frame_sizes` makes it: a row a quality, a column a width. Two of each at least.

    Args:
        sizes: Bytes of a frame, as `avlab.frame_sizes` gives them.
        limits: Bytes by name, each a line.
    """
    figure, ax = axes(None, "width (pixels)", "JPEG quality")
    if min(sizes.shape) < 2:
        return missing(figure, ax, "No sizes to draw", "it needs two widths and two qualities or more")
    widths, qualities = sizes.columns.to_numpy(float), sizes.index.to_numpy(float)
    values = sizes.to_numpy(float)
    norm = LogNorm(values.min(), values.max())
    mesh = ax.pcolormesh(widths, qualities, values, norm=norm, cmap="cividis", shading="gouraud", rasterized=True)
    bar = figure.colorbar(mesh, ax=ax, pad=0.02)
    bar.set_label("bytes a frame", size=BODY)
    bar.ax.tick_params(labelsize=BODY)
    bar.ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _at: f"{value:,.0f}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    outline: list[patheffects.AbstractPathEffect] = [patheffects.withStroke(linewidth=5, foreground="black")]
    beyond = []
    for (name, limit), style in zip(limits.items(), cycle((":", "--", "-"))):
        if not values.min() < limit < values.max():
            beyond.append(f"{'every' if limit >= values.max() else 'no'} frame fits {name} ({limit:,} bytes)")
            continue
        lines = ax.contour(widths, qualities, values, [limit], colors="white", linewidths=2.5, linestyles=style)
        lines.set_path_effects(outline)
        path = max((np.asarray(path.vertices) for path in lines.get_paths()), key=len)
        inside = path[path[:, 1] > qualities.min() + 0.15 * np.ptp(qualities)]  # lower, a label would leave the axes
        x, y = inside[len(inside) // 2] if len(inside) else path[len(path) // 2]
        left, low = x > widths.mean(), y < qualities.min() + 0.2 * np.ptp(qualities)
        beside = -10 if left else 10, 4 if low else -20
        ax.annotate(
            f"{name}: {limit:,} bytes", (x, y), beside, textcoords="offset points", size=BODY,
            ha="right" if left else "left", color="white",
            bbox={"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2},
        )  # fmt: skip
    ax.grid(visible=False)
    ax.margins(0)
    low, high = values.min(), values.max()
    finding = f"A frame has from {low:,.0f} to {high:,.0f} bytes"
    return titled(figure, ax, textwrap.fill("; ".join([finding, *beyond]), 76))


def pieces(runs: Mapping[str, Sequence[int]]) -> Figure:
    """Where bytes were cut: for each name, the sizes in which they were sent or received, as bars in a row.

    Args:
        runs: Sizes in bytes, by name.
    """
    figure, ax = axes(None, "bytes, one after another", "")
    if not any(runs.values()):
        return missing(figure, ax, "No pieces to draw", "it needs the sizes of what was sent or received")
    whole = max(sum(sizes) for sizes in runs.values())
    for row, (sizes, (colour, dark)) in enumerate(zip(runs.values(), cycle(MANY))):
        ends = np.cumsum(sizes)
        for size, end in zip(sizes, ends, strict=True):
            bar = Rectangle(
                (end - size, row - 0.32), size, 0.64, facecolor=colour, alpha=0.35, edgecolor=dark, linewidth=2
            )
            ax.add_patch(bar)
            if size > 0.045 * whole:
                ax.text(end - size / 2, row, f"{size:,}", ha="center", va="center", size=BODY)
    ax.set_xlim(0, 1.02 * whole)
    ax.set_ylim(len(runs) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_yticks(range(len(runs)), [f"{name}\n{len(sizes)} pieces" for name, sizes in runs.items()])
    return titled(figure, ax, "; ".join(f"{name}: {len(sizes)} pieces" for name, sizes in runs.items()))


def packets(shown: Mapping[str, tuple[bytes, Sequence[Field]]], *, rows: int = 2) -> Figure:
    """The first bytes of packets, field by field: `shown` names pairs of bytes and their fields (avlab.wire.fields).

    Sixteen bytes a row. Fields are told apart by frame, number and colour; the numbers' meanings stand to the right.

    Args:
        shown: Pairs of bytes and their fields, by name.
        rows: Rows of sixteen bytes that are drawn of each at most.
    """
    heights = [max(rows, 0.62 * len(fields)) + 1.1 for _, fields in shown.values()]
    figure = plot(figsize=(12, 0.42 * sum(heights) + 0.3), layout="constrained")
    if not shown:
        return missing(figure, figure.add_subplot(), "No packets to look at", "it needs bytes, and their fields")
    grid = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, (name, (data, fields)) in zip(grid, shown.items(), strict=True):
        _bytes(ax, data, fields, rows)
        titled(figure, ax, f"{name}: {len(data):,} bytes")
    named = (f"{name}, {len(data):,} bytes: {_listed(fields)}." for name, (data, fields) in shown.items())
    figure.alt = f"The first {16 * rows} bytes, field by field. {' '.join(named)}"
    return figure


def _listed(fields: Sequence[Field]) -> str:
    return "; ".join(f"{field.name}, {field.value}" for field in fields)


def _bytes(ax: Axes, data: bytes, fields: Sequence[Field], rows: int) -> None:
    ax.set_axis_off()
    ax.set_xlim(-0.1, 30)
    ax.set_ylim(max(rows, 0.62 * len(fields)) + 0.1, -0.1)
    for number, (field, (colour, dark)) in enumerate(zip(fields, cycle(MANY)), 1):
        for at in range(field.start, min(field.stop, 16 * rows)):
            place = at % 16, at // 16
            ax.add_patch(Rectangle(place, 1, 1, facecolor=colour, alpha=0.22, edgecolor="white", linewidth=2))
            middle = place[0] + 0.5, place[1] + 0.58
            ax.text(*middle, f"{data[at]:02x}", ha="center", va="center", size=BODY, family="monospace")
        if field.start < 16 * rows:
            corner = field.start % 16 + 0.08, field.start // 16 + 0.06
            ax.text(*corner, str(number), size=9, color=dark, weight="bold", ha="left", va="top")
        text = f"{number}  {field.name}: {field.value}"
        ax.text(16.5, 0.62 * number - 0.3, text, color=dark, size=BODY - 1, va="center")
    if len(data) > 16 * rows:
        ax.text(15.9, rows + 0.02, "...", size=BODY, color=GREY, ha="right", va="top")
