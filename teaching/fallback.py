"""Recorded runs for when the sockets, the Wi-Fi or the time fail in class: a trace for each cell that streams.

    python teaching/fallback.py [--to build/fallback]

Each is simulated, from a seed, with the settings of the notebook's own cell, and so the same on every machine; a folder
`class` has what eight made-up students hand in, for `avlab.gather`. fallback.md tells which line loads which.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import avlab
from avlab import Network, Trace, TutorialPacer, simulate

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "data" / "count.mp4"


def burst(packet: Any, state: dict[str, int]) -> bool:
    """Three in a row: what notebook 08 asks for."""
    left = state.get("left", 0) or (3 if packet.chance < 0.01 else 0)
    state["left"] = max(0, left - 1)
    return left > 0


RUNS: Mapping[str, Callable[[], Trace]] = {
    "00_welcome": lambda: simulate(CLIP, seconds=10, network=Network()),
    "03_pacing-mine": lambda: simulate(CLIP, seconds=6, width=400, pacer="pi"),
    "03_pacing-tutorial": lambda: simulate(CLIP, seconds=6, width=400, pacer=TutorialPacer()),
    "03_pacing-deadlines": lambda: simulate(CLIP, seconds=6, width=400),
    "05_loss": lambda: simulate(CLIP, seconds=8, network=Network(loss=0.05, seed=7)),
    "06_playout": lambda: simulate(
        CLIP, seconds=10, playout_delay="adaptive", network=[(0, Network(jitter=0.002)), (4, Network(jitter=0.06))]
    ),
    "07_adaptation": lambda: simulate(
        CLIP,
        seconds=10,
        playout_delay=0.3,
        rate_control="aimd",
        network=[(0, Network()), (3, Network(rate=4_000, queue=0.2, delay=0.02))],
    ),
    "08_your_own_parts-bursts": lambda: simulate(CLIP, seconds=6, network=Network(loss=burst)),
    "08_your_own_parts-wait": lambda: simulate(
        CLIP, seconds=10, playout_delay=max, network=[(0, Network(jitter=0.002)), (4, Network(jitter=0.06))]
    ),
    "one-stream-for-all": lambda: simulate(CLIP, seconds=10, width=400, network=Network.presets["classroom"]),
}
"""A run by its file's name."""

CLASS = {"ada": 2, "bela": 20, "chen": 24, "dana": 4, "emre": 2, "fatou": 12, "gil": 50, "hana": 22}
"""Made-up students, and how many per cent of the frames each says that 2 % of packet loss will damage."""

QUESTION = "frames damaged by 2 % of packet loss"


def write(to: Path) -> list[Path]:
    """Write them all, each in place of one that is there; the files."""
    (to / "class").mkdir(parents=True, exist_ok=True)
    written = []

    def save(trace: Trace, name: str) -> None:
        written.append(to / f"{name}.avtrace")
        trace.save(written[-1])

    for name, run in RUNS.items():
        save(run(), name)
    for seed, (name, said) in enumerate(CLASS.items(), 1):
        damaged = avlab.predict(QUESTION, said, "%")
        trace = simulate(CLIP, seconds=8, network=Network(loss=0.02, seed=seed))
        ledger = avlab.metrics.frame_ledger(trace)
        damaged.against(100 * (1 - ledger.shown / ledger.offered))
        save(trace, f"class/{name}")
    avlab.predict(QUESTION, ...)
    return written


def main() -> None:
    """Write them, and say where they are."""
    parser = argparse.ArgumentParser(description=textwrap.dedent((__doc__ or "").partition("\n\n")[0]))
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "fallback", help="the folder")
    to = parser.parse_args().to
    written = write(to)
    size = sum(path.stat().st_size for path in written)
    print(f"{len(written)} runs, {size / 1e6:.1f} MB, are in {to}: 'avlab report FILE' makes a page of each.")


if __name__ == "__main__":
    main()
