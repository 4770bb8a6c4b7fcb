"""Where the processor time of a frame goes, by thread and, with --calls, by file: a server and a client, flat out.

The server and the client are processes of their own, each on one core where the system allows that; the client counts
pictures and decodes none, so that all it spends is the way from a socket to a picture. Times of threads are as the
system has them. --calls runs cProfile in every thread, which makes Python several times slower: read its shares and
its counts of calls, not its times. Run: python -m benchmarks.profiles [--size 1280x720] [--packet-size 8000] [--calls]
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import os
import pstats
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

import avlab
from benchmarks.fanout import two_cores
from benchmarks.peers.pictures import reel

ROOT = Path(__file__).parents[1]
QUALITY = 80
WARM = 4.0
"""Seconds before it is measured: the server has seen by then whether offload pays."""
FILES = 14
"""So many lines of the second table."""


class Spent:
    """Processor time of this process's threads since it was made; with `calls`, what they called."""

    def __init__(self, *, calls: bool) -> None:
        self._profiles: dict[str, cProfile.Profile] = {}
        if calls:
            threading.setprofile(self._begin)
        self._before: dict[int, tuple[float, float]] = {}

    def _begin(self, frame: FrameType, event: str, arg: object) -> None:
        """A thread has begun: from here on it is profiled."""
        sys.setprofile(None)
        profile = self._profiles[threading.current_thread().name] = cProfile.Profile()
        profile.enable()

    def start(self) -> None:
        """Measure from here on."""
        self._before = {each.id: (each.user_time, each.system_time) for each in psutil.Process().threads()}

    def threads(self) -> list[tuple[str, float, float]]:
        """Each thread that did anything: its name, and seconds of user and of system time."""
        named = {each.native_id: each.name for each in threading.enumerate()}
        rows = []
        for each in psutil.Process().threads():
            user, system = self._before.get(each.id, (0.0, 0.0))
            spent = each.user_time - user, each.system_time - system
            if sum(spent) > 0:
                rows.append((named.get(each.id, "another library's"), *spent))
        return sorted(rows, key=lambda row: -row[1] - row[2])

    def files(self) -> list[tuple[str, float, int]]:
        """The share of the profiled time that each file had by itself, and its calls; waiting is left out."""
        seconds: Counter[str] = Counter()
        calls: Counter[str] = Counter()
        for profile in self._profiles.values():
            profile.disable()
            table: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = vars(pstats.Stats(profile))["stats"]
            for (file, _, function), (_, called, own, _, _) in table.items():
                if "poll" in function or "acquire" in function or "sleep" in function:
                    continue
                name = function if file == "~" else _short(file)
                seconds[name] += own
                calls[name] += called
        total = sum(seconds.values()) or 1.0
        return [(name, own / total, calls[name]) for name, own in seconds.most_common(FILES)]


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def serve(size: tuple[int, int], packet_size: int, seconds: float, core: int | None, *, calls: bool) -> None:
    """Serve pictures without end; then tell, as a line of JSON, what it took."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    spent = Spent(calls=calls)
    pictures = list(reel(*size))

    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        for picture in itertools.cycle(pictures):
            taken += 1
            yield picture

    with avlab.Server(endless(), port=0, pacer="none", quality=QUALITY, packet_size=packet_size) as server:
        print(server.url, flush=True)
        sys.stdin.readline()
        spent.start()
        before = taken
        time.sleep(seconds)
        frames, threads = taken - before, spent.threads()
        sys.stdin.readline()  # the client measures to its end
    print(json.dumps({"frames": frames, "threads": threads, "files": spent.files()}), flush=True)


def measure(
    size: tuple[int, int], packet_size: int, seconds: float, warm: float, *, calls: bool
) -> list[dict[str, Any]]:
    """What the server and the client spent, as `serve` tells it."""
    cores = two_cores()
    command = [sys.executable, "-m", "benchmarks.profiles", "--serve", "--size", f"{size[0]}x{size[1]}"]
    command += ["--packet-size", str(packet_size), "--seconds", str(seconds), *["--calls"] * calls]
    command += ["--core", str(cores[0])] if cores else []
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdin is not None
            url = server.stdout.readline().strip()
            if not url:
                raise RuntimeError("the server did not start")
            if cores:
                os.sched_setaffinity(0, {cores[-1]})
            spent = Spent(calls=calls)
            with avlab.Client(url, playout_delay=0) as client:
                pictures = client.frames(waiting=64)
                _count(pictures, warm)
                server.stdin.write("\n")
                server.stdin.flush()
                spent.start()
                frames = _count(pictures, seconds)
                threads = spent.threads()
            server.stdin.write("\n")
            server.stdin.flush()
            told: dict[str, Any] = json.loads(server.stdout.readline())
        finally:
            server.kill()
    return [
        {"side": "server", **told},
        {"side": "client", "frames": frames, "threads": threads, "files": spent.files()},
    ]


def _count(pictures: Iterator[Any], seconds: float) -> int:
    until = time.monotonic() + seconds
    for count, _ in enumerate(pictures, 1):
        if time.monotonic() >= until:
            return count
    raise RuntimeError("the stream has ended")


def print_tables(sides: Sequence[dict[str, Any]], seconds: float, *, calls: bool) -> None:
    """In Markdown."""
    print(
        "| side | frames a second | thread | user, us a frame | system, us a frame |", "|---|---|---|---|---|", sep="\n"
    )
    for each in sides:
        frames = max(1, each["frames"])
        for name, user, system in each["threads"]:
            cells = (
                each["side"],
                f"{frames / seconds:.0f}",
                name,
                f"{1e6 * user / frames:.0f}",
                f"{1e6 * system / frames:.0f}",
            )
            print("| " + " | ".join(cells) + " |")
    if not calls:
        return
    for each in sides:
        print(f"\nThe {each['side']}'s time under cProfile, by file:\n\n| file | share | calls |\n|---|---|---|")
        for name, share, count in each["files"]:
            print(f"| `{name}` | {share:.1%} | {count:,} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiles", description=__doc__)
    parser.add_argument("--size", default="640x360", metavar="WxH")
    parser.add_argument("--packet-size", type=int, default=1_200, metavar="BYTES")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=WARM, help=argparse.SUPPRESS)
    parser.add_argument("--calls", action="store_true", help="by file as well, under cProfile")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    width, height = (int(side) for side in options.size.split("x"))
    if options.serve:
        serve((width, height), options.packet_size, options.seconds, options.core, calls=options.calls)
        return
    try:
        sides = measure((width, height), options.packet_size, options.seconds, options.warm, calls=options.calls)
    except (OSError, RuntimeError) as failed:
        sys.exit(f"profiles: {failed}")
    print_tables(sides, options.seconds, calls=options.calls)


if __name__ == "__main__":
    main()
