"""Records what a frame costs avlab's server: its encoding, its sending, and how late its thread wakes for it.

avlab/data/work.csv comes from here, and `avlab.simulate` draws from that. The client is a process of its own, as in a
classroom. Run on an idle machine: python benchmarks/work.py [--seconds 30] [--out avlab/data/work.csv]
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from avlab.media import codec
from avlab.stream.sending.clip import Sending
from avlab.stream.server import Server
from avlab.timing.pacing import Due

DATA = Path(__file__).parents[1] / "data"
SHIPPED = Path(__file__).parents[1] / "avlab" / "data"
WIDTHS = (400, 640)


def record(width: int, seconds: float) -> list[tuple[int, float, float, float]]:
    """(width, encode_ms, send_ms, late_ms) of each frame."""
    encode_ns: list[int] = []
    send_ns: dict[int, int] = {}
    encode, send = codec.encode_jpeg, Sending._send_frame

    def encoding(*args: Any, **settings: Any) -> Any:
        begun_ns = time.perf_counter_ns()
        jpeg = encode(*args, **settings)
        encode_ns.append(time.perf_counter_ns() - begun_ns)
        return jpeg

    def sending(own: Sending, start_ns: int, due: Due) -> None:
        begun_ns = time.perf_counter_ns()
        send(own, start_ns, due)
        send_ns[due.item.frame.index] = time.perf_counter_ns() - begun_ns

    with (
        mock.patch.object(codec, "encode_jpeg", encoding),
        mock.patch.object(Sending, "_send_frame", sending),
        Server(DATA / "count.mp4", width=width, quality=80, loop=True) as server,
    ):
        play = [sys.executable, "-m", "avlab.cli", "play", server.url, "--no-window", "--audio", "null"]
        subprocess.run([*play, "--seconds", str(seconds)], check=True, stdout=subprocess.DEVNULL)
        frames = server.trace.frames
    frames = frames[(frames["stream"] == "video") & frames["sent"].notna()]
    late = (frames["sent"] - frames["due"]).to_numpy() * 1e3
    rows = []
    for index, late_ms in zip(frames["index"], late, strict=True):
        rows.append((width, encode_ns[index] / 1e6, send_ns[index] / 1e6, max(0.0, float(late_ms))))
    return rows


def main() -> None:
    """Record every width and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=SHIPPED / "work.csv")
    options = parser.parse_args()
    with options.out.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("width", "encode_ms", "send_ms", "late_ms"))
        for width in WIDTHS:
            rows = record(width, options.seconds)
            table.writerows((at, *(f"{value:.3f}" for value in values)) for at, *values in rows)
            print(f"{width} pixels: {len(rows)} frames")


if __name__ == "__main__":
    main()
