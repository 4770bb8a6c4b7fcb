"""avlab beside the codecs alone, in turn: on a machine that others use too, the ratio of neighbours can be trusted.

The codecs alone are the bound: the same pictures, the same calls, and nothing between the two processes but memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.peers.catalogue import SYSTEMS
from benchmarks.peers.rounds import FPS, LARGE, SMALL, Length, run_once
from benchmarks.peers.run import Seen


@dataclass(frozen=True)
class Line:
    """One figure of both, and what avlab's is to be."""

    label: str
    figure: Callable[[Seen], float]
    compare: Callable[[float, float], float]
    """avlab's figure against the codecs' own."""
    form: str
    """Of a comparison."""
    target: str


def _ratio(own: float, bound: float) -> float:
    return own / bound


def _more(own: float, bound: float) -> float:
    return own - bound


def _fps(seen: Seen) -> float:
    return seen.fps


def _cpu_ms(seen: Seen) -> float:
    return seen.cpu_ms


def _latency_ms(seen: Seen) -> float:
    return float(np.median(seen.latency_ms))


KINDS: Sequence[tuple[tuple[int, int], float, Sequence[Line]]] = (
    (LARGE, 0.0, (Line("1280x720 flat out, fps", _fps, _ratio, "{:.2f}", "0.85 at least"),
                  Line("CPU a frame, ms", _cpu_ms, _ratio, "{:.2f}", "1.20 at most"))),
    (SMALL, 0.0, (Line("640x360 flat out, fps", _fps, _ratio, "{:.2f}", ""),
                  Line("CPU a frame, ms", _cpu_ms, _ratio, "{:.2f}", ""))),
    (SMALL, FPS, (Line("640x360 at 30 fps, send to picture, p50 ms", _latency_ms, _more, "{:+.2f}", "+1.00 at most"),
                  Line("CPU a frame, ms", _cpu_ms, _ratio, "{:.2f}", ""))),
)  # fmt: skip


def measure_pairs(count: int, length: Length) -> str:
    """A Markdown table: the medians of both, and of the comparisons of `count` pairs with their least and largest."""
    systems = {system.name: system for system in SYSTEMS}
    rows = [
        "| | codecs alone | avlab | avlab against them: median (least to largest) | wanted |",
        "|---|---|---|---|---|",
    ]
    for size, fps, lines in KINDS:
        seen: list[dict[str, Seen]] = []
        for number in range(count):
            names = ("codecs", "avlab") if number % 2 == 0 else ("avlab", "codecs")
            seconds = length.paced if fps else length.flat
            seen.append({name: run_once(systems[name], size, seconds, length, fps=fps) for name in names})
            print(f"pair {number + 1} of {count}, {_told(lines, seen[-1:])}", file=sys.stderr, flush=True)
        rows += [_row(line, seen) for line in lines]
    return "\n".join(rows)


def _compared(line: Line, pairs: Sequence[dict[str, Seen]]) -> list[float]:
    return [line.compare(line.figure(pair["avlab"]), line.figure(pair["codecs"])) for pair in pairs]


def _told(lines: Sequence[Line], pairs: Sequence[dict[str, Seen]]) -> str:
    return "; ".join(f"{line.label}: {line.form.format(_compared(line, pairs)[0])}" for line in lines)


def _row(line: Line, pairs: Sequence[dict[str, Seen]]) -> str:
    bound, own = (float(np.median([line.figure(pair[name]) for pair in pairs])) for name in ("codecs", "avlab"))
    compared = _compared(line, pairs)
    said = [line.form.format(value) for value in (float(np.median(compared)), min(compared), max(compared))]
    cells = line.label, f"{bound:.4g}", f"{own:.4g}", f"{said[0]} ({said[1]} to {said[2]})", line.target
    return "| " + " | ".join(cells) + " |"
