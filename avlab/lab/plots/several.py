"""Several runs laid over each other by name: their rates, sync, losses, delays, bit rates, and what each adapted to.

As in lab.plots, traces come in and a figure goes out; what is computed is computed in avlab.measure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from functools import wraps
from itertools import cycle
from typing import Any, Concatenate, NamedTuple, ParamSpec

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avlab.lab.plots.drawing import (
    BODY,
    GREEN,
    GREY,
    MANY,
    PAPER,
    axes,
    check_trace,
    label,
    label_ends,
    milliseconds,
    missing,
    named,
    percent,
    plain,
    plot,
    titled,
)  # fmt: skip
from avlab.measure.numbers import adaptation as adapting
from avlab.measure.numbers import metrics, rates, timelines
from avlab.measure.record.trace import Trace

P = ParamSpec("P")


def or_several(
    over: Callable[..., Figure],
) -> Callable[[Callable[Concatenate[Trace, P], Figure]], Callable[Concatenate[Trace | Mapping[str, Trace], P], Figure]]:
    """A plot of one trace which, given several by name, has them drawn by `over`. TypeError for what is neither."""

    def decorate(
        draw: Callable[Concatenate[Trace, P], Figure],
    ) -> Callable[Concatenate[Trace | Mapping[str, Trace], P], Figure]:
        @wraps(draw)
        def checked(*given: Any, **settings: Any) -> Figure:
            traces = given[0] if given else settings.pop("trace", None)
            if isinstance(traces, Mapping):
                return over(named(draw.__name__, traces), *given[1:], **settings)
            check_trace(draw.__name__, traces)
            return draw(traces, *given[1:], **settings)

        return checked

    return decorate


class _Line(NamedTuple):
    """One run's: times, values, and what its label says behind the name."""

    x: Any
    y: Any
    says: str
    level: float
    """By which runs are compared in the title."""


def _lines(
    runs: Mapping[str, Trace],
    ax: Axes | None,
    what: str,
    line: Callable[[Trace], _Line | None],
    *,
    nothing: tuple[str, str],
    steps: bool = False,
    limits: Callable[[float, float], tuple[float, float]] | None = None,
) -> tuple[Figure, Axes, dict[str, _Line]]:
    """Every run's line in a colour of its own, with its name beside its end."""
    figure, ax = axes(ax, "time (s)", what)
    found = {name: one for name, trace in runs.items() if (one := line(trace)) is not None and len(one.x)}
    if not found:
        return missing(figure, ax, *nothing), ax, {}
    ends = []
    for (name, one), (colour, dark), style in zip(found.items(), cycle(MANY), _styles(), strict=False):
        draw = "steps-post" if steps else "default"
        ax.plot(one.x, one.y, color=colour, linewidth=2, linestyle=style, drawstyle=draw)
        if len(one.x) == 1:
            ax.plot(one.x, one.y, "o", color=colour, markersize=8)
        ends.append((float(one.x[-1]), float(one.y[-1]), f"{plain(name)}: {one.says}", dark))
    values = np.concatenate([np.asarray(one.y, np.float64) for one in found.values()])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = max(high - low, abs(high) * 0.05, 1e-3)
    low, high = low - 0.08 * room, high + 0.12 * room
    ax.set_ylim(*(limits(low, high) if limits is not None else (low, high)))
    label_ends(ax, [(x, y if np.isfinite(y) else low, text, colour) for x, y, text, colour in ends])
    return figure, ax, found


def _styles() -> cycle[Any]:
    """Beyond the colours, a line that is dashed: the seventh run is not to look like the first."""
    return cycle(["-"] * len(MANY) + ["--"] * len(MANY) + [":"] * len(MANY))


def _compared(found: Mapping[str, _Line], what: str, say: Callable[[float], str]) -> str:
    """The runs that have least and most of it, as a sentence."""
    least, most = (find(found, key=lambda name: found[name].level) for find in (min, max))
    if len(found) == 1 or say(found[least].level) == say(found[most].level):
        alike = say(found[most].level)
        return f"{what}: {alike}" if len(found) == 1 else f"{what}: {alike} in all {len(found)} runs"
    finding = f"{what}: {say(found[least].level)} in {plain(least)}, {say(found[most].level)} in {plain(most)}"
    return textwrap.fill(finding, 66)


def fps(runs: Mapping[str, Trace], *, ax: Axes | None = None) -> Figure:
    """Frames shown a second, over the trailing second, run by run."""

    def line(trace: Trace) -> _Line | None:
        table, mean = metrics.fps(trace), metrics.convergence(trace).mean_fps
        if mean is None:
            return None
        return _Line(table["time"].to_numpy(), table["fps"].to_numpy(), f"{mean:.2f} fps", mean)

    targets = {target for trace in runs.values() if (target := metrics.target_fps(trace)) is not None}
    target = min(targets) if len(targets) == 1 else None
    # A rate that varies is held against the timestamps of the clip, where all runs have the same one.
    asked = [of for trace in runs.values() if (of := rates.target_rate(trace)) is not None]
    if asked:
        target = None
    alike = len({trace.meta.get("clip") for trace in runs.values()}) == 1

    # Two frames that come at once are a rate of thousands: nothing else would be seen beside it.
    means = [mean for trace in runs.values() if (mean := metrics.convergence(trace).mean_fps) is not None]
    top = 3 * max([*means, *targets], default=0.0)

    def limits(low: float, high: float) -> tuple[float, float]:
        if target is None:
            return low, min(high, top)
        return min(low, target * 0.94), min(max(high, target * 1.12), target * 1.6)

    nothing = "No frame was shown", "fps needs at least two frames that were shown"
    figure, ax, found = _lines(runs, ax, "frames a second", line, nothing=nothing, limits=limits)
    if not found:
        return figure
    if target is not None:
        ax.axhspan(target * 0.98, target * 1.02, color=GREEN, alpha=0.2, linewidth=0)
        ax.axhline(target, color=GREEN, linewidth=1)
        ax.annotate(
            f"target {target:.5g} fps, \N{PLUS-MINUS SIGN}2 %", (0.5, target * 1.02), (0, 4),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="center", color=GREEN, size=BODY,
            bbox=PAPER,
        )  # fmt: skip
    if asked and alike:
        times, goal = asked[0]
        ax.fill_between(times, goal * 0.98, goal * 1.02, color=GREEN, alpha=0.3, linewidth=0, zorder=1)
        label(ax, ("target: what the timestamps ask for, \N{PLUS-MINUS SIGN}2 %", GREEN))
    return titled(figure, ax, _compared(found, "Frames a second on average", lambda value: f"{value:.2f}"))


def sync(runs: Mapping[str, Trace], *, ax: Axes | None = None) -> Figure:
    """Sound against picture, the middle of each second, run by run; positive when the sound is early."""

    def line(trace: Trace) -> _Line | None:
        size = metrics.sync_summary(trace)
        if size.p95_ms is None:
            return None
        table = trace.sync
        seconds = timelines.by_second(table["time"], table["offset"] * 1e3)
        return _Line(seconds.time, seconds.median, f"within {milliseconds(size.p95_ms)}", size.p95_ms)

    what = "late  \N{LEFTWARDS ARROW}  sound  \N{RIGHTWARDS ARROW}  early (ms)"
    nothing = "No readings of picture against sound", "they need clips with sound, and playout"
    figure, ax, found = _lines(runs, ax, what, line, nothing=nothing)
    if not found:
        return figure
    ax.axhline(0, color=GREY, linewidth=1)
    return titled(figure, ax, _compared(found, "Picture and sound, 95 % of the time, within", milliseconds))


def loss(runs: Mapping[str, Trace], *, ax: Axes | None = None) -> Figure:
    """Frames lost or incomplete, a second at a time, run by run; the label has the packets, too."""

    def line(trace: Trace) -> _Line | None:
        table, found = metrics.loss(trace), metrics.summary(trace)
        if found.frame_loss_percent is None or table.empty:
            return None
        packets = found.packet_loss_percent
        beside = "" if packets is None else f" (packets {percent(packets / 100)})"
        frames = percent(found.frame_loss_percent / 100)
        return _Line(
            np.append(table["time"], table["time"].iloc[-1] + 1),
            np.append(table["frame_loss"], table["frame_loss"].iloc[-1]) * 100,
            f"frames {frames}{beside}",
            found.frame_loss_percent,
        )

    nothing = "No frame was sent", "loss needs traces in which video was sent"
    figure, ax, found = _lines(runs, ax, "frames lost in each second (%)", line, nothing=nothing, steps=True)
    return titled(figure, ax, _compared(found, "Frames lost", lambda value: percent(value / 100))) if found else figure


def delay(runs: Mapping[str, Trace], *, ax: Axes | None = None) -> Figure:
    """How long packets were under way, the middle of each second, run by run.

    A band is by how much that can be wrong, where the two sides' clocks differ.
    """
    bands = []

    def line(trace: Trace) -> _Line | None:
        table = metrics.one_way_delay(trace)
        size = metrics.spread(table["delay_ms"])
        if size.median_ms is None or size.p95_ms is None:
            return None
        video = table[table["stream"] == "video"]
        table = video if len(video.dropna()) else table
        seconds = timelines.by_second(table["time"], table["delay_ms"])
        error = float(table["error_ms"].median())
        says = f"95 % in {milliseconds(size.p95_ms)}"
        if error > 0:
            wrong = timelines.by_second(table["time"], table["error_ms"]).median
            bands.append((seconds.time, np.maximum(0, seconds.median - wrong), seconds.median + wrong))
            says += f" \N{PLUS-MINUS SIGN}{milliseconds(error)}"
        return _Line(seconds.time, seconds.median, says, size.p95_ms)

    nothing = "No one-way delay", "it needs both sides' packets: join each run's two traces"
    figure, ax, found = _lines(runs, ax, "one-way delay (ms), median", line, nothing=nothing)
    if not found:
        return figure
    for time, low, high in bands:
        ax.fill_between(time, low, high, color=GREY, alpha=0.2, linewidth=0, zorder=1)
    if bands:
        ax.set_ylim(top=max(ax.get_ylim()[1], 1.05 * max(float(high.max()) for _, _, high in bands)))
    return titled(figure, ax, _compared(found, "95 % of the packets arrive within", milliseconds))


def bitrate(runs: Mapping[str, Trace], *, ax: Axes | None = None) -> Figure:
    """Kilobits of all packets a second, run by run."""

    def line(trace: Trace) -> _Line | None:
        table = metrics.bitrate(trace)
        table = table.iloc[:-1] if len(table) > 1 else table  # the last second is as a rule not whole
        both = table["video"] + table["audio"]
        usual = metrics.spread(both).median_ms
        if usual is None:
            return None
        edges = np.append(table["time"], table["time"].iloc[-1] + 1)
        return _Line(edges, np.append(both, both.iloc[-1]), _kbps(usual), usual)

    nothing = "No packet was received", "the bit rate needs traces in which packets came"
    figure, ax, found = _lines(runs, ax, "bit rate (kbit/s)", line, nothing=nothing, steps=True)
    return titled(figure, ax, _compared(found, "Half of the seconds have", _kbps)) if found else figure


def _kbps(value: float) -> str:
    return f"{value:,.0f} kbit/s"


def adaptation(runs: Mapping[str, Trace]) -> Figure:
    """What each run sent, how long it queued, and which quality it chose; where they have one bottleneck, that too."""
    figure = plot(figsize=(12, 6.8), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True)

    def sent(trace: Trace) -> _Line | None:
        rates = adapting.sent_rate(trace)
        rates = rates.iloc[:-1] if len(rates) > 1 else rates
        if rates.empty:
            return None
        both = (rates["video"] + rates["audio"]).to_numpy()
        edges = np.append(rates["time"], rates["time"].iloc[-1] + 0.5)
        return _Line(edges, np.append(both, both[-1]), _kbps(float(np.median(both))), float(np.median(both)))

    def queue(trace: Trace) -> _Line | None:
        waits = adapting.queueing(trace)
        if waits.empty:
            return None
        most = float(waits["queue_ms"].max())
        return _Line(waits["time"].to_numpy(), waits["queue_ms"].to_numpy(), f"up to {milliseconds(most)}", most)

    def quality(trace: Trace) -> _Line | None:
        steps, rates = adapting.steps(trace, "quality").dropna(), adapting.sent_rate(trace)
        if steps.empty or rates.empty:
            return None
        end = float(rates["time"].iloc[-1]) + 0.5
        steps = steps[steps["time"] < end]
        values = list(steps["value"])
        return _Line([*steps["time"], end], [*values, values[-1]], f"{values[-1]:g} at the end", float(values[-1]))

    bottlenecks = [adapting.bottleneck(trace).reset_index(drop=True) for trace in runs.values()]
    one = bottlenecks[0].dropna() if bottlenecks else None
    shared = one is not None and len(one) > 0 and all(one.equals(other.dropna()) for other in bottlenecks[1:])

    def with_bottleneck(low: float, high: float) -> tuple[float, float]:
        return (0, 1.1 * max(high, min(float(one["kbps"].max()), 4 * high)) if shared and one is not None else high)

    nothing = "No rate to show", "it needs runs in which packets were sent"
    _, _, found = _lines(runs, above, "sent (kbit/s)", sent, nothing=nothing, steps=True, limits=with_bottleneck)
    if not found:
        middle.set_axis_off()
        below.set_axis_off()
        return figure
    _lines(runs, middle, "queue (ms)", queue, nothing=("", "no delay of packets is known"))
    unknown = "", "no quality is in the records"
    _lines(runs, below, "JPEG quality", quality, nothing=unknown, steps=True, limits=lambda low, high: (0, 105))
    above.set_xlabel("")
    middle.set_xlabel("")
    if shared and one is not None:
        times = [*one["time"], max(float(line.x[-1]) for line in found.values())]
        rates = [*one["kbps"], one["kbps"].iloc[-1]]
        above.step(times, rates, where="post", color=GREY, linewidth=2, linestyle="--")
        above.annotate("bottleneck", (times[0], rates[0]), (8, 4), textcoords="offset points", color=GREY, size=BODY)
    return titled(figure, above, _compared(found, "Half of the time at most", _kbps))
