"""The streams of a capture for a person: a table, and plots of the pair that was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avlab.lab import plots
from avlab.measure.captures.layers import AddressPair
from avlab.measure.record.trace import Trace
from avlab.wire.text import printable

MOST_LISTED = 200
"""Streams that a table has."""

_COLUMNS = (
    "",
    "from > to",
    "ssrc",
    "format",
    "s",
    "packets",
    "lost",
    "twice",
    "jitter",
    "max",
    "delay",
    "p95",
    "kbit/s",
    "fps",
)


def streams_table(trace: Trace) -> str:
    """A line a stream; jitter and delay in milliseconds, delay beyond that of the packet that came quickest."""
    found: list[dict[str, Any]] = trace.meta["streams"]
    rows = [_COLUMNS, *(_cells(each) for each in found[:MOST_LISTED])]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    lines = []
    for row in rows:
        cells = (_aligned(cell, width, at) for at, (cell, width) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    if len(found) > MOST_LISTED:
        lines.append(f"and {len(found) - MOST_LISTED} more: --json has them all")
    chosen = ", ".join(map(str, trace.meta["shown"]))
    lines += [
        "",
        f"jitter, delay (beyond the quickest): ms; plots and a trace's numbers are of {chosen}: see --streams",
    ]
    if trace.meta["cut"]:
        lines.append("the file is cut short, or damaged from some place on: this is what came before")
    return "\n".join(lines)


def _cells(stream: dict[str, Any]) -> tuple[str, ...]:
    name = stream["format"] or f"{stream['kind']}?"
    clock = f"/{stream['rate']}" if stream["rate"] else ""
    lost = f"{stream['lost']:,} ({stream['loss_percent']:.2f} %)" if stream["loss_percent"] is not None else "-"
    return (
        str(stream["number"]),
        AddressPair(*stream["flow"]).words,
        f"{stream['ssrc']:#010x}",
        printable(f"{stream['payload_type']} {name}{clock}", most=40),
        f"{stream['seconds']:.1f}",
        f"{stream['packets']:,}",
        lost,
        f"{stream['duplicates']:,}",
        *(_number(stream[each], 3) for each in ("jitter_ms", "max_jitter_ms", "delay_ms", "delay_p95_ms")),
        _number(stream["kbps"], 0),
        _number(stream["fps"], 2),
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if 1 <= column <= 3 else cell.rjust(width)


def plots_of(trace: Trace, out: Path) -> list[str]:
    """The plots that `demo` makes, those of delays and reports, and the trace, in a folder that is there.

    What could not be drawn, a sentence each: of some millions of packets there are no tables.
    """
    failed = []
    for name in ("fps", "interval_error", "sync", "loss", "delays", "reports", "raster", "page"):
        try:
            getattr(plots, name)(trace).savefig(out / f"{name}.png")
        except ValueError as error:
            failed.append(f"no {name}.png: {error}")
    trace.save(out / "capture.avtrace")
    return failed
