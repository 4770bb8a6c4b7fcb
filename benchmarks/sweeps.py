"""What a sweep costs beside its runs: processor time a run, of this process and its workers, where a run does nothing.

    python -m benchmarks.sweeps [--points 500]

A run that does nothing leaves what is the sweep's own: sending it to a worker, a line of JSON, the table. The workers
are started before, by a sweep of a few points: that takes a second or two, once, and is printed apart. What it takes to
measure a run, `avlab.metrics.summary` of a trace of ten seconds, is a row of its own: there, a run returns the same
trace each time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from joblib.externals.loky import get_reusable_executor

import avlab


def run(a: int, b: int, *, seed: int) -> dict[str, float]:
    """A run that does nothing, and has as many numbers as a summary."""
    return {f"number_{at}": float(a * b + seed + at) for at in range(19)}


def recorded(a: int, b: int, *, seed: int) -> avlab.Trace:
    """A run that was made before."""
    return _trace()


@cache
def _trace() -> avlab.Trace:
    return avlab.simulate(30, seconds=10, network=avlab.Network(loss=0.02, delay=0.03, jitter=0.01))


def used() -> float:
    """Processor time of this process and its workers so far, seconds."""
    here = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in (here, *here.children(recursive=True)))


def swept(points: int, jobs: int, to: Path, run: Callable[..., Any] = run) -> tuple[float, float]:
    """Processor time and time of a sweep, seconds."""
    grid: dict[str, Any] = {"a": range(points // 10), "b": range(5)}
    cpu, began = used(), time.perf_counter()
    table = avlab.sweep(run, grid, seeds=range(2), to=to, jobs=jobs)
    took = time.perf_counter() - began
    cpu = used() - cpu
    assert len(table) == points
    assert table["error"].isna().all()
    return cpu, took


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--points", type=int, default=500, help="runs of each sweep, a multiple of ten")
    points = parser.parse_args().points
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bar is drawn ten times a second, however many runs there are
    print(f"| runs | where | processor time a run, ms | time a run, ms |\n|{'---|' * 4}")
    with tempfile.TemporaryDirectory() as folder:
        swept(10, 1, Path(folder) / "imports", recorded)
        cpu, took = swept(points, 1, Path(folder) / "measured", recorded)
        row = f"| {points} | in this process, with the summary of 10 s | {1e3 * cpu / points:.2f} |"
        print(f"{row} {1e3 * took / points:.2f} |")
        for name, jobs in (("in this process", 1), ("two workers", 2)):
            began = time.perf_counter()
            swept(10, jobs, Path(folder) / f"warm-{jobs}")
            warm = time.perf_counter() - began
            cpu, took = swept(points, jobs, Path(folder) / f"sweep-{jobs}")
            print(f"| {points} | {name} | {1e3 * cpu / points:.2f} | {1e3 * took / points:.2f} |")
            if jobs > 1:
                print(f"\nThe workers were there after {warm:.1f} s.")
            began = time.perf_counter()
            swept(points, jobs, Path(folder) / f"sweep-{jobs}")
            print(f"\nThe same call again, with nothing left to do: {1e3 * (time.perf_counter() - began):.0f} ms.\n")
    get_reusable_executor().shutdown(wait=True)


if __name__ == "__main__":
    main()
