"""A trace as one page of HTML: what ran, its numbers, figures and settings, and nothing that is fetched from anywhere.

What a trace says was said by peers and files: it is text on the page, whatever it looks like.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from avlab.lab import plots
from avlab.lab.plots.drawing import Plot
from avlab.measure.numbers import metrics
from avlab.measure.record.trace import Trace
from avlab.wire.text import printable

MOST_ROWS = 500
"""Settings and events that a page lists."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
body { font-family: system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
th, td { text-align: left; padding: 0.2rem 0.9rem 0.2rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0 2rem; }
img { max-width: 100%; height: auto; }
"""


def report(trace: Trace, *, title: str | None = None) -> str:
    """The page, as text. `title` is the heading; without one, the clip's name."""
    meta = trace.meta
    heading = title or (f"A run of {meta['clip']}" if meta.get("clip") else "A run")
    known = ((name, value) for name, value in meta.items() if isinstance(value, str | int | float | bool))
    figures = [one for draw in _figures(trace) if (one := _figure(draw, trace)) is not None]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{_text(heading)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(heading)}</h1>",
        "<h2>What ran</h2>",
        _table(("", ""), known),
        "<h2>Numbers</h2>",
        _table(("", ""), _numbers(metrics.summary(trace).as_dict().items())),
        "<h2>Figures</h2>",
        *(figures or ["<p>There is nothing to draw: neither frames nor packets were recorded.</p>"]),
        "<h2>Settings and events</h2>",
        _settings(trace),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _figures(trace: Trace) -> list[Callable[[Trace], Any]]:
    draws: list[Callable[[Trace], Any]] = [plots.fps, plots.interval_error, plots.sync, plots.loss, plots.delay]
    draws += [plots.bitrate, plots.frame_bytes]
    if trace.count("reports"):
        draws.append(plots.reports)
    if any(row.name == "rate_control" for row in trace.setting_rows):
        draws.append(plots.adaptation)
    return draws


def _figure(draw: Callable[[Trace], Any], trace: Trace) -> str | None:
    """A figure as an image of the page's own; None for one that only says what it would need."""
    figure: Plot = draw(trace)
    if not any(ax.lines or ax.patches or ax.collections for ax in figure.axes):
        return None
    image = base64.b64encode(figure._repr_png_()).decode()
    return f'<figure><img src="data:image/png;base64,{image}" alt="{_text(figure.described())}"></figure>'


def _settings(trace: Trace) -> str:
    rows = trace.setting_rows
    said = [(f"{(row.time_ns - trace.epoch_ns) / 1e9:.3f}", row.kind, row.name, row.value) for row in rows[:MOST_ROWS]]
    more = f"<p>and {len(rows) - MOST_ROWS:,} more: they are in the trace</p>" if len(rows) > MOST_ROWS else ""
    return _table(("time (s)", "kind", "name", "value"), said) + more


def _numbers(pairs: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, str]]:
    for name, value in pairs:
        yield (
            name,
            "not known"
            if value is None
            else f"{value:,.3f}".rstrip("0").rstrip(".")
            if isinstance(value, float)
            else f"{value:,}",
        )


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{_text(text)}</th>" for text in heads) if any(heads) else ""
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{_text(value)}</td>" for value in others)
        lines.append(f"<tr><th>{_text(first)}</th>{cells}</tr>")
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{''.join(lines)}</tbody></table>"


def _text(value: Any) -> str:
    return html.escape(printable(value), quote=True)
