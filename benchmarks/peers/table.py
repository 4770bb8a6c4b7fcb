"""The figures of all systems as a Markdown table and as a plot. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(kw_only=True)
class Figures:
    """What was measured of one system: a number, None where it is not asked for, or why there is none."""

    label: str
    kind: str = "peer"
    """avlab, bound (the codecs alone) or peer."""
    small_fps: float | str | None = None
    small_cpu_ms: float | str | None = None
    large_fps: float | str | None = None
    large_cpu_ms: float | str | None = None
    latency_ms: float | str | None = None
    latency_p99_ms: float | str | None = None
    pacing_ms: float | str | None = None
    rate_ppm: float | str | None = None
    own_pacing: bool = False
    one_cpu: float | None = None
    """The sender's share of a core for one receiver."""
    all_cpu: float | str | None = None
    """The same for sixteen."""
    all_latency_ms: float | str | None = None
    all_latency_p99_ms: float | str | None = None
    all_delivered: float | str | None = None
    remarks: list[str] = field(default_factory=list)


Column = tuple[str, Callable[[Figures], float | str | None], Callable[[float], str]]

COLUMNS: Sequence[Column] = (
    ("640x360 flat out, fps", lambda f: f.small_fps, "{:.0f}".format),
    ("CPU a frame, ms", lambda f: f.small_cpu_ms, "{:.2f}".format),
    ("1280x720 flat out, fps", lambda f: f.large_fps, "{:.0f}".format),
    ("CPU a frame, ms", lambda f: f.large_cpu_ms, "{:.2f}".format),
    ("send to picture at 30 fps, p50 ms", lambda f: f.latency_ms, "{:.2f}".format),
    ("p99", lambda f: f.latency_p99_ms, "{:.2f}".format),
    ("pacing p50, ms", lambda f: f.pacing_ms, "{:.2f}".format),
    ("rate, ppm", lambda f: f.rate_ppm, "{:+.0f}".format),
    ("16 receivers: sender's CPU", lambda f: f.all_cpu, "{:.1%}".format),
    ("beyond one", lambda f: beyond_one(f), "{:+.1%}".format),
    ("send to picture, p50 ms", lambda f: f.all_latency_ms, "{:.1f}".format),
    ("p99", lambda f: f.all_latency_p99_ms, "{:.1f}".format),
    ("delivered", lambda f: f.all_delivered, "{:.1%}".format),
)


def beyond_one(figures: Figures) -> float | None:
    """What fifteen receivers more cost the sender, a share of a core."""
    if isinstance(figures.all_cpu, float) and figures.one_cpu is not None:
        return figures.all_cpu - figures.one_cpu
    return None


def markdown(systems: Sequence[Figures]) -> str:
    """The table; below it, why a figure is missing, once for each reason."""
    reasons: list[str] = []

    def cell(value: float | str | None, form: Callable[[float], str]) -> str:
        if value is None or value != value:
            return "-"
        if not isinstance(value, str):
            return form(value)
        if value not in reasons:
            reasons.append(value)
        return f"({reasons.index(value) + 1})"

    rows = [["", *(head for head, _, _ in COLUMNS)]]
    for figures in systems:
        cells = [cell(value(figures), form) for _, value, form in COLUMNS]
        if cells[6] != "-" and not figures.own_pacing:
            cells[6] += " *"
        rows.append([figures.label, *cells])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    notes = [f"({number}) {reason}" for number, reason in enumerate(reasons, 1)]
    notes += [f"{figures.label}: {remark}" for figures in systems for remark in figures.remarks]
    if any(figures.pacing_ms is not None and not figures.own_pacing for figures in systems):
        notes.insert(0, "* has no pacing of its own: its source sleeps until each picture is due.")
    return "\n".join(lines) + "".join(f"\n\n{note}" for note in notes)


# ---- the plot

PANELS: Sequence[tuple[str, str, Callable[[Figures], float | str | None], str]] = (
    ("Flat out, 640x360", "frames delivered a second", lambda f: f.small_fps, "{:.0f}"),
    ("Flat out, 1280x720", "frames delivered a second", lambda f: f.large_fps, "{:.0f}"),
    ("Processor, 1280x720", "ms a frame, both sides", lambda f: f.large_cpu_ms, "{:.1f}"),
    ("Send call to picture, 30 fps", "ms, median", lambda f: f.latency_ms, "{:.1f}"),
    ("Pacing error, 30 fps", "ms, median, at the receiver", lambda f: f.pacing_ms, "{:.2f}"),
    ("Serving 16 receivers, 30 fps", "sender, % of a core", lambda f: _percent(f.all_cpu), "{:.0f}"),
)

_COLOURS = {"avlab": "#0072B2", "bound": "#E69F00", "peer": "#999999"}  # Okabe and Ito's, told apart by everyone


def plot(systems: Sequence[Figures], file: Path) -> None:
    """A panel a figure, a bar a system, from the first system at the top down."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3, sharey=True).ravel()
    names = [figures.label for figures in systems]
    for axes, (title, unit, value, form) in zip(panels, PANELS, strict=True):
        values = [value(figures) for figures in systems]
        lengths = [number if isinstance(number, float) else 0.0 for number in values]
        bars = axes.barh(names, lengths, color=[_COLOURS[figures.kind] for figures in systems])
        for bar, figures, number in zip(bars, systems, values, strict=True):
            if figures.kind == "bound":
                bar.set_hatch("//")
            said = form.format(number) if isinstance(number, float) else "-"
            axes.annotate(said, (bar.get_width(), bar.get_y() + bar.get_height() / 2), (5, 0),
                          textcoords="offset points", va="center", fontsize=13,
                          weight="bold" if figures.kind == "avlab" else "normal")  # fmt: skip
        axes.set_title(title, fontsize=16, loc="left")
        axes.set_xlabel(unit, fontsize=13)
        axes.set_xlim(0, 1.18 * max([*lengths, 1e-9]))
        axes.tick_params(labelsize=13)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.suptitle("avlab (blue) beside its peers (gray) and the codecs alone (hatched): JPEG quality 80, one machine",
                    fontsize=18)  # fmt: skip
    figure.savefig(file, dpi=100)


def _percent(share: float | str | None) -> float | str | None:
    return 100 * share if isinstance(share, float) else share
