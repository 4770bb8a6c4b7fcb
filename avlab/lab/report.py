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
:root { color-scheme: light dark; }
body { font-family: system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222;
  background: #fff; line-height: 1.4; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
th, td { text-align: left; padding: 0.2rem 0.9rem 0.2rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0 2rem; }
img { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818; }
  th, td { border-color: #444; }
  img { filter: invert(0.93) hue-rotate(180deg); }
}
"""


def report(trace: Trace, *, title: str | None = None) -> str:
    """The page, as text. `title` is the heading; without one, the clip's name."""
    meta = trace.meta
    clip = str(meta["clip"]).replace("\\", "/").rpartition("/")[2] if meta.get("clip") else ""
    heading = title or (f"A run of {clip}" if clip else "A run")
    figures = [one for draw in _figures(trace) if (one := _figure(draw, trace)) is not None]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{_text(heading)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(heading)}</h1>",
        "<h2>What ran</h2>",
        _table(("", ""), _what_ran(trace)),
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


_ASIDE = {"clock", "epoch_ns", "end_ns"}
"""Readings of a clock, of which a page has the time between."""

_WORDS = {
    "offered": "frames offered",
    "shown": "shown",
    "late": "came too late",
    "incomplete": "incomplete",
    "skipped": "skipped",
    "lost": "lost",
    "in_flight": "on their way at the end",
    "damaged": "shown damaged",
    "fps": "frames shown a second",
    "target_fps": "frames a second of the clip",
    "audio_seconds": "seconds of sound heard",
    "av_median_ms": "picture against sound, half of the time within (ms)",
    "av_p95_ms": "95 % of the time within (ms)",
    "av_signed_ms": "the sound is early by, typically (ms)",
    "send_error_ms": "frames leave off their moment by (ms)",
    "packet_loss_percent": "packets lost (%)",
    "frame_loss_percent": "frames lost or incomplete (%)",
    "delay_ms": "one-way delay of half of the packets, at most (ms)",
    "bitrate_kbps": "came (kbit/s)",
}
"""A summary's numbers in words, in an order in which one goes with the one before it."""


def _what_ran(trace: Trace) -> Iterable[tuple[str, Any]]:
    for name, value in trace.meta.items():
        if isinstance(value, str | int | float | bool) and name not in _ASIDE:
            yield name.replace("_", " "), value
    begun, ended = (trace.meta.get(name) for name in ("epoch_ns", "end_ns"))
    if isinstance(begun, int) and isinstance(ended, int) and ended > begun:
        yield "lasted (s)", _number((ended - begun) / 1e9)


def _numbers(pairs: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, str]]:
    known = dict(pairs)
    for name in [*(name for name in _WORDS if name in known), *(name for name in known if name not in _WORDS)]:
        yield _WORDS.get(name, name.replace("_", " ")), _number(known[name])


def _number(value: int | float | None) -> str:
    if value is None:
        return "not known"
    if not isinstance(value, float):
        return f"{value:,}"
    return f"{round(value, 3) or 0.0:,.3f}".rstrip("0").rstrip(".")


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{_text(text)}</th>" for text in heads) if any(heads) else ""
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{_text(value)}</td>" for value in others)
        lines.append(f"<tr><th>{_text(first)}</th>{cells}</tr>")
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{''.join(lines)}</tbody></table>"


def _text(value: Any) -> str:
    return html.escape(printable(value), quote=True)
