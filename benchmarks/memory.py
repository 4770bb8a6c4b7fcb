"""Whether the memory of a server stays bounded: `avlab serve` with sound and clients that only count, for hours.

Prints the server's resident memory once a minute, with what it has sent by then. Beyond what a record holds in memory
(docs/trust.md) its rows go to disk, and memory stays where it is.
python -m benchmarks.memory [--clients 30] [--seconds 7200] [--clip data/count.mp4]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.fanout import Room

CLIP = Path(__file__).parents[1] / "data" / "count.mp4"
MB = 1 << 20
HEARD_EVERY = 15.0
"""Seconds after which each client says that it is there."""
HEAD = "| minutes | resident memory, MB | packets counted | server's CPU | streams without any |\n|---|---|---|---|---|"


def watch(clip: Path, clients: int, seconds: float, every: float = 60.0) -> int:
    """Serve and count for so long; the most memory in bytes that was seen."""
    command = [sys.executable, "-m", "avlab", "serve", str(clip), "--loop", "--port", "0"]
    most = packets = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, Room() as room:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        process = psutil.Process(server.pid)
        try:
            for _ in range(clients):
                room.enter(url, sound=True)
            print(HEAD, flush=True)
            began = time.monotonic()
            until, spent = began, sum(process.cpu_times()[:2])
            while until < began + seconds:
                since, until = until, min(until + every, began + seconds)
                while (left := until - time.monotonic()) > 0:
                    room.count(min(HEARD_EVERY, left))
                    room.keep_alive()
                streams = [stream for name in ("video", "audio") for stream in room.streams(name)]
                quiet = sum(not stream.packets for stream in streams)
                packets += sum(stream.packets for stream in streams)
                room.reset()
                resident, before, spent = process.memory_info().rss, spent, sum(process.cpu_times()[:2])
                most = max(most, resident)
                share = (spent - before) / (until - since)
                minutes, resident_mb = (until - began) / 60, resident / MB
                print(f"| {minutes:.0f} | {resident_mb:.0f} | {packets:,} | {share:.0%} | {quiet} |", flush=True)
        finally:
            server.terminate()
    return most


def main() -> None:
    """Print a line a minute, and the most at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=30, metavar="N")
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--clip", type=Path, default=CLIP)
    given = parser.parse_args()
    most = watch(given.clip, given.clients, given.seconds)
    print(f"\nMost: {most / MB:.0f} MB with {given.clients} clients.")


if __name__ == "__main__":
    main()
