"""What simulated runs cost: processor time, alone or beside another version of avlab, in turns.

python benchmarks/simulated.py [--beside TREE] [--rounds 5] [--seconds 10 60]

TREE is where that version is, as `git worktree add TREE COMMIT` makes it. Each run is a process of its own, which has
read all tables by then; on a machine that has other work, too, only the ratios mean anything.
"""

from __future__ import annotations

import argparse
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import avlab

CLIP = Path(__file__).parents[1] / "data" / "count.mp4"
WAY = {"loss": 0.02, "delay": 0.02, "jitter": 0.005}
CLASSROOM = {"loss": 0.02, "burst": 4.0, "delay": 0.005, "jitter": 0.030, "rate": 4_000, "queue": 0.2}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "loss and jitter, without sound": (WAY, {"audio": False}),
    "loss and jitter": (WAY, {}),
    "the same with retransmission": (WAY, {"repair": "rtx"}),
    "the classroom network": (CLASSROOM, {}),
}
"""What is simulated: the network, and other settings of the run."""


def cpu(case: str, seconds: float) -> float:
    """Seconds of processor time that one run takes, of the version that is imported; the quicker of two."""
    network, settings = CASES[case]
    known = inspect.signature(avlab.simulate).parameters  # an older version has no sound to leave out
    settings = {name: value for name, value in settings.items() if name in known}
    spent = []
    for length in (1.0, seconds, seconds):
        began = time.process_time()
        avlab.simulate(CLIP, seconds=length, width=400, network=avlab.Network(**network), **settings)
        spent.append(time.process_time() - began)
    return min(spent[1:])


def measured(case: str, seconds: float, tree: Path) -> float:
    """As `cpu`, of the version in a tree, in a process of its own."""
    command = [sys.executable, __file__, "--once", case, "--seconds", str(seconds)]
    settings = os.environ | {"PYTHONPATH": str(tree)}
    run = subprocess.run(command, cwd=tree, env=settings, stdout=subprocess.PIPE, text=True, check=True)
    return float(run.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 60.0])
    parser.add_argument("--once", choices=CASES)
    options = parser.parse_args()
    if options.once is not None:
        print(cpu(options.once, options.seconds[0]))
        return
    trees = [Path(__file__).parents[1], *([options.beside.resolve()] if options.beside else [])]
    print("| simulated | CPU |" + (" beside it | ratio |" if options.beside else ""))
    print("|---|---|" + ("---|---|" if options.beside else ""))
    for seconds in options.seconds:
        for case in CASES:
            rounds = [[measured(case, seconds, tree) for tree in trees] for _ in range(options.rounds)]
            cells = [f"{median(each):.3f} s" for each in zip(*rounds, strict=True)]
            if options.beside:
                cells.append(f"{median(ours / theirs for ours, theirs in rounds):.2f}")
            print(f"| {seconds:g} s, {case} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
