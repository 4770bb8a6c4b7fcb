"""Where the time of a picture goes, from the source's hand to its array at the client, stage by stage, at 30 fps.

The server and the client are processes of their own and share the system's monotonic clock. Both records say when a
picture was encoded, sent and complete; the source and the taker say the rest. Between two pictures both processes
sleep, so that each stage finds its code and data out of the caches: added up, stages take several times what they do
flat out, which `benchmarks.profiles` tells. Run: python -m benchmarks.stages [--size 1280x720] [--fps 30]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import avlab
from benchmarks.peers.pictures import reel

ROOT = Path(__file__).parents[1]
QUALITY = 80
WARM = 30
"""Pictures before those that count."""
STAGES = (
    ("handed", "encoded", "from the source to the encoder, encode"),
    ("encoded", "sent", "cut into packets, wake the server's thread, number them"),
    ("sent", "complete", "through the system, wake the client's thread, read"),
    ("complete", "taken", "put together, hand on, wake the taker"),
    ("taken", "decoded", "decode"),
    ("handed", "decoded", "all of it"),
)


def receive(url: str, pictures: int) -> None:
    """Play; then tell, as a line of JSON, when each picture was complete, taken and decoded, by its timestamp."""
    rows: list[tuple[float, int, int]] = []
    with avlab.Client(url, playout_delay=0, audio="null") as client:
        for picture in client.frames(waiting=8):
            taken_ns = time.perf_counter_ns()
            shape = picture.image.shape
            rows.append((picture.pts, taken_ns, time.perf_counter_ns()))
            if len(rows) >= pictures or len(shape) != 3:
                break
    seen = pd.DataFrame(rows, columns=["pts", "taken", "decoded"])
    frames = client.trace.frames.query("stream == 'video'")
    frames = frames.assign(at=(frames["pts"] * 1000).round(), complete=client.trace.epoch_ns + frames["complete"] * 1e9)
    joined = frames.merge(seen.assign(at=(seen["pts"] * 1000).round()), on="at")
    print(json.dumps(joined[["timestamp", "complete", "taken", "decoded"]].to_dict("list")), flush=True)


def measure(size: tuple[int, int], fps: float, seconds: float) -> pd.DataFrame:
    """A row a picture: the moments of its way, in ns. RuntimeError when the client tells nothing."""
    pictures, handed = list(reel(*size)), list[int]()

    def paced() -> Iterator[NDArray[np.uint8]]:
        start = time.perf_counter()
        for number in count():
            time.sleep(max(0.0, start + number / fps - time.perf_counter()))
            handed.append(time.perf_counter_ns())
            yield pictures[number % len(pictures)]

    wanted = WARM + round(seconds * fps)
    with avlab.Server(paced(), port=0, pacer="none", fps=fps, quality=QUALITY, offload="on") as server:
        command = [sys.executable, "-m", "benchmarks.stages", "--receive", server.url, str(wanted)]
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60 + 3 * wanted / fps, check=False
        )
    if done.returncode or not done.stdout:
        raise RuntimeError("the client has told nothing")
    frames = server.trace.frames.query("stream == 'video'")
    epoch_ns = server.trace.epoch_ns
    ours = pd.DataFrame(
        {
            "timestamp": frames["timestamp"],
            "handed": [handed[index] for index in frames["index"]],
            "encoded": epoch_ns + frames["encoded"] * 1e9,
            "sent": epoch_ns + frames["sent"] * 1e9,
        }
    )
    return ours.merge(pd.DataFrame(json.loads(done.stdout)), on="timestamp").iloc[WARM:]


def table(moments: pd.DataFrame) -> str:
    """In Markdown."""
    lines = ["| stage | median, us | p90 |", "|---|---|---|"]
    for start, end, words in STAGES:
        spent: Any = (moments[end] - moments[start]) / 1e3
        lines.append(f"| {words} | {spent.median():,.0f} | {spent.quantile(0.9):,.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--size", default="640x360", metavar="WxH")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--receive", nargs=2, metavar=("URL", "PICTURES"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.receive:
        receive(options.receive[0], int(options.receive[1]))
        return
    width, height = (int(side) for side in options.size.split("x"))
    try:
        moments = measure((width, height), options.fps, options.seconds)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as failed:
        sys.exit(f"stages: {failed}")
    print(table(moments))


if __name__ == "__main__":
    main()
