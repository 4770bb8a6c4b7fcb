"""How exactly frames leave at 15, 24, 29.97, 30 and 60 fps: avlab's server beside ffmpeg -re, one after the other.

Both send RTP/JPEG over UDP from a process of their own; one receiver, which knows neither's clock, stamps each frame's
last packet and holds it against the RTP timestamp. Run on an idle machine: python benchmarks/pacing.py [--seconds 30]
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import avlab
from avlab.measure.numbers import metrics
from avlab.stream.rtsp.dialogue import Session
from avlab.stream.sockets.links import udp_pair
from avlab.wire.rtp import RtpPacket, Unwrapper

DATA = Path(__file__).parents[1] / "data"
CLIPS = {
    "15": "count-15.mp4",
    "24": "count-24.mp4",
    "29.97": "count-29.97.mp4",
    "30": "count.mp4",
    "60": "count-60.mp4",
}
RATES = {"15": 15.0, "24": 24.0, "29.97": 30_000 / 1001, "30": 30.0, "60": 60.0}


@dataclass
class Seen:
    """What the receiver saw: arrival less timestamp, in ms, its median taken off."""

    frames: int
    median_ms: float
    p99_ms: float
    drift_ms: float


def receive(link: socket.socket, seconds: float, frames: int) -> Seen:
    """Stamp frames until `frames` came or nothing has for two seconds."""
    link.settimeout(2.0)
    unwrap, arrivals, stamps = Unwrapper(32), [], []
    deadline = time.perf_counter() + seconds + 10
    while len(arrivals) < frames and time.perf_counter() < deadline:
        try:
            data = link.recv(65_536)
        except TimeoutError:
            break
        now = time.perf_counter()
        packet = RtpPacket.parse(data)
        if packet.marker:
            arrivals.append(now)
            stamps.append(unwrap(packet.timestamp) / 90_000)
    error = (np.array(arrivals) - arrivals[0]) - (np.array(stamps) - stamps[0])
    error = (error - np.median(error)) * 1e3
    second = max(2, len(error) * 1 // int(seconds))
    drift = float(np.median(error[-second:]) - np.median(error[:second]))
    return Seen(len(error), float(np.median(np.abs(error))), float(np.quantile(np.abs(error), 0.99)), drift)


def avlab_run(fps: str, seconds: float, trace: Path) -> tuple[Seen, metrics.PacingSummary]:
    """`avlab serve --loop`, and a receiver that signals like a client but only stamps."""
    command = [sys.executable, "-m", "avlab", "serve", str(DATA / CLIPS[fps]), "--loop", "--port", "0"]
    with subprocess.Popen([*command, "--trace", str(trace)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            session = Session(url)
            links: list = []

            def bind(host: str) -> tuple:
                pair = udp_pair(host)
                links.append(pair)
                return pair

            granted = session.open({"video": "udp", "audio": "udp"}, bind)
            session.play()
            rtp = granted["video"].links[0].socket
            rtp.setblocking(True)
            seen = receive(_plain(rtp), seconds, round(RATES[fps] * seconds))
            session.close()
        finally:
            server.terminate()
            server.wait(10)
            for pair in links:
                for link in pair:
                    link.close()
    record = avlab.Trace.load(trace)
    return seen, metrics.pacing(record)


def _plain(link: socket.socket) -> socket.socket:
    """A receiver like any other's: no datagrams glued together by the kernel."""
    if sys.platform.startswith("linux"):
        link.setsockopt(socket.IPPROTO_UDP, 104, 0)
    return link


def ffmpeg_run(fps: str, seconds: float) -> Seen:
    """`ffmpeg -re` on the same clip, looped, to a plain socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        link.bind(("127.0.0.1", 0))
        to = f"rtp://127.0.0.1:{link.getsockname()[1]}?pkt_size=1200"
        source = ["-re", "-stream_loop", "-1", "-i", str(DATA / CLIPS[fps]), "-t", str(seconds + 1), "-an"]
        encode = ["-c:v", "mjpeg", "-huffman", "default", "-pix_fmt", "yuvj420p", "-q:v", "4"]
        command = ["ffmpeg", "-hide_banner", "-loglevel", "error", *source, *encode, "-f", "rtp", to]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as sender:
            try:
                return receive(link, seconds, round(RATES[fps] * seconds))
            finally:
                sender.kill()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--fps", nargs="*", choices=list(CLIPS), default=list(CLIPS))
    options = parser.parse_args()
    trace = Path(tempfile.mkdtemp()) / "pacing.avtrace"
    print(f"{options.seconds:g} s each; error at the receiver: arrival less timestamp, about its median\n")
    heads = ["fps", "frames", "send error p50, ms", "p99", "drift", "at the receiver p50, ms", "p99", "drift"]
    heads += ["ffmpeg -re p50, ms", "p99", "drift"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for fps in options.fps:
        expected = round(RATES[fps] * options.seconds)
        seen, own = avlab_run(fps, options.seconds, trace)
        peer = ffmpeg_run(fps, options.seconds) if shutil.which("ffmpeg") else None
        cells = [fps, f"{seen.frames} of {expected}", own.median_ms, own.p99_ms, own.drift_ms]
        cells += [seen.median_ms, seen.p99_ms, seen.drift_ms]
        cells += [peer.median_ms, peer.p99_ms, peer.drift_ms] if peer else ["-"] * 3
        print("| " + " | ".join(f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells) + " |", flush=True)
    shutil.rmtree(trace.parent)


if __name__ == "__main__":
    main()
