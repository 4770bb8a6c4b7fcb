"""avlab beside the codecs alone and imageZMQ, in turn: where others use the machine, the ratio of neighbours holds.

The codecs alone are the bound: the same pictures, the same calls, and nothing between the two processes but memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.peers.catalogue import SYSTEMS, System
from benchmarks.peers.rounds import FPS, LARGE, RECEIVERS, SMALL, Length, run_once, told
from benchmarks.peers.run import PeerError, Seen

OWN = ("avlab", "avlab-8000")
BOUND, PEER = "codecs", "imagezmq-pub"


@dataclass(frozen=True)
class Line:
    """One figure, whose it is compared with, and what the ratio is to be for each of `OWN`."""

    label: str
    figure: Callable[[Seen], float]
    beside: str
    targets: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Kind:
    """What all systems do in turn, and what is read from it."""

    size: tuple[int, int]
    lines: tuple[Line, ...]
    fps: float = 0.0
    receivers: int = 1

    @property
    def label(self) -> str:
        """For the left column."""
        pace = f"at {self.fps:.0f} fps" if self.fps else "flat out"
        many = f", {self.receivers} receivers" if self.receivers > 1 else ""
        return f"{self.size[0]}x{self.size[1]} {pace}{many}"

    @property
    def systems(self) -> tuple[str, ...]:
        """Those that take part."""
        beside = dict.fromkeys(line.beside for line in self.lines)
        return (*beside, *OWN)


def _fps(seen: Seen) -> float:
    return seen.fps


def _cpu(seen: Seen) -> float:
    return seen.cpu_ms


def _sender_cpu(seen: Seen) -> float:
    return seen.sender_ms


def _sender_share(seen: Seen) -> float:
    return 100 * seen.sender_share


def _p50(seen: Seen) -> float:
    return seen.p50_ms


def _p99(seen: Seen) -> float:
    return seen.p99_ms


def _flat_out(fps: tuple[str, str], cpu: tuple[str, str]) -> tuple[Line, ...]:
    return (
        Line("fps", _fps, BOUND, fps),
        Line("CPU a frame, ms", _cpu, BOUND, cpu),
        Line("sender's CPU a frame, ms", _sender_cpu, BOUND),
        Line("fps", _fps, PEER, ("more than 1", "more than 1")),
        Line("CPU a frame, ms", _cpu, PEER),
    )


def _twice(words: str) -> tuple[str, str]:
    return words, words


KINDS: Sequence[Kind] = (
    Kind(LARGE, _flat_out(("0.93 at least", "0.95 at least"), ("1.10 at most", "1.07 at most"))),
    Kind(SMALL, _flat_out(_twice("0.90 at least"), _twice("1.15 at most"))),
    Kind(SMALL, (Line("send to picture, p50 ms", _p50, PEER, _twice("1.2 at most")),
                 Line("send to picture, p99 ms", _p99, PEER, _twice("1.5 at most")),
                 Line("send to picture, p50 ms", _p50, BOUND),
                 Line("CPU a frame, ms", _cpu, PEER)), fps=FPS),
    Kind(SMALL, (Line("sender's CPU, % of a core", _sender_share, PEER, _twice("1.2 at most")),
                 Line("send to picture, p50 ms", _p50, PEER),
                 Line("send to picture, p99 ms", _p99, PEER, _twice("1.5 at most")),
                 Line("CPU a frame, ms", _cpu, PEER)), fps=FPS, receivers=RECEIVERS),
)  # fmt: skip

Turn = Mapping[str, Seen]
"""What each system did in one turn."""

HEAD = (
    "| what | of | median | beside | median | ratio: median of the turns (least to largest) | wanted | offload |",
    "|---|---|---|---|---|---|---|---|",
)


def measure_pairs(count: int, length: Length) -> str:
    """A Markdown table of ratios, each of two runs of one turn; `count` turns, every other one in reverse."""
    systems = {system.name: system for system in SYSTEMS}
    absent = {name: words for name in (BOUND, PEER, *OWN) if (words := systems[name].missing())}
    rows: list[str] = [*HEAD]
    for kind in KINDS:
        names = [name for name in kind.systems if name not in absent]
        turns = []
        for number in range(count):
            order = names if number % 2 == 0 else names[::-1]
            turns.append(_turn(kind, [systems[name] for name in order], length, f"{number + 1} of {count}"))
        rows += rows_of(kind, turns)
    notes = [f"\n{systems[name].label}: {words}." for name, words in absent.items()]
    return "\n".join(rows + notes)


def _turn(kind: Kind, systems: Sequence[System], length: Length, number: str) -> Turn:
    turn: dict[str, Seen] = {}
    fan = kind.receivers > 1
    seconds = length.fan if fan else length.paced if kind.fps else length.flat
    for system in systems:
        try:
            seen = run_once(system, kind.size, seconds, length, fps=kind.fps, receivers=kind.receivers)
        except PeerError as failed:
            print(f"{kind.label}, turn {number}, {system.label}: {failed}", file=sys.stderr, flush=True)
            continue
        turn[system.name] = seen
        print(f"{kind.label}, turn {number}, {system.label}: {told(seen)}", file=sys.stderr, flush=True)
    return turn


def rows_of(kind: Kind, turns: Sequence[Turn]) -> list[str]:
    """The table's rows of one kind: a figure of each of `OWN`, where it was measured beside the other's in a turn."""
    labels = {system.name: system.label for system in SYSTEMS}
    rows = []
    for line in kind.lines:
        for own, target in zip(OWN, line.targets, strict=True):
            pairs = [(turn[own], turn[line.beside]) for turn in turns if own in turn and line.beside in turn]
            if not pairs:
                continue
            figures = np.array([(line.figure(mine), line.figure(other)) for mine, other in pairs])
            ratios = figures[:, 0] / figures[:, 1]
            medians = [f"{median:.4g}" for median in np.median(figures, axis=0)]
            spread = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
            offload = " or ".join(dict.fromkeys(mine.offload or "not told" for mine, _ in pairs))
            what = f"{kind.label}: {line.label}"
            cells = what, labels[own], medians[0], labels[line.beside], medians[1], spread, target, offload
            rows.append("| " + " | ".join(cells) + " |")
    return rows
