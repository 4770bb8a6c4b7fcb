"""How far behind a camera its reader is: from the number painted into a picture to the array, and what the way costs.

H.264 of 1280x720 at 30 fps from a camera, a process of its own, to a reader, another one: avlab's `frames()`, OpenCV's
`VideoCapture` and PyAV's `av.open`, each with a consumer that does nothing and with one that takes 100 ms a picture.
Prints Markdown. python -m benchmarks.camera [--seconds 60] [--cost-alone]
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
from numpy.typing import NDArray

from avlab.media.videodecoder import VideoDecoder
from avlab.media.videoencoder import H264Encoder
from avlab.wire.units import H264_CODING
from benchmarks.peers.job import Board, Job
from benchmarks.peers.pictures import Image, reel
from benchmarks.peers.run import PATIENCE, PeerError, folder, free_ports, last_words, rows_between, started

SIZE, FPS = (1280, 720), 30
SLOW = "0.1"
"""Seconds a picture of a consumer that is too slow: a third of what comes."""

START, WINDOW = 5.0, 10.0
"""Seconds from the first picture on that are the start, and that are looked at after a minute."""

SYSTEM_PYTHON = "/usr/bin/python3"

CAMERAS = {
    "avlab": ("camera_server", sys.executable, 3),
    "GStreamer": ("camera_gstreamer", SYSTEM_PYTHON, 1),
}
"""The module of each, what runs it, and the bytes a pixel that it is given."""

READERS = {
    "avlab": "avlab",
    "OpenCV": "opencv",
    "PyAV": "pyav",
    "PyAV over TCP": "pyav_tcp",
}


@dataclass(frozen=True)
class Lag:
    """Milliseconds from painting a picture to its array, of one stretch of a run."""

    ms: NDArray[np.float64]

    def __str__(self) -> str:
        if len(self.ms) < 3:
            return f"{len(self.ms)} pictures |"
        p50, p99 = (float(np.quantile(self.ms, share)) for share in (0.5, 0.99))
        return f"{p50:,.0f} | {p99:,.0f}"


@dataclass(frozen=True)
class Run:
    """What a reader had of a camera."""

    start: Lag
    later: Lag
    fps: float
    """Pictures that the consumer had a second, in the end."""
    cpu: float
    """The reader's share of a core, in the end."""


def smooth(width: int, height: int) -> Iterator[Image]:
    """The reel's pictures, there and back: they are shown in a circle, and a camera does not jump."""
    pictures = list(reel(width, height))
    yield from pictures[::2]
    yield from pictures[::-2]


def write_reel(job: Job) -> None:
    """The pictures of a job, as its camera is given them."""
    with (Path(job.folder) / "reel").open("wb") as file:
        for picture in smooth(job.width, job.height):
            file.write(picture if job.depth == 3 else cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420))


def measure(camera: str, reader: str, *, work: str, seconds: float) -> Run:
    """Read a camera for so many seconds and the window after it. PeerError when nothing comes."""
    module, python, depth = CAMERAS[camera]
    with folder() as name, free_ports() as port, contextlib.ExitStack() as sides:
        width, height = SIZE
        job = Job(width=width, height=height, folder=name, port=port, option=work, fps=FPS, depth=depth)
        write_reel(job)
        board = Board(name, create=True)
        sender = sides.enter_context(started(module, "serve", job, python))
        receiver = sides.enter_context(started("camera_readers", READERS[reader], job, sys.executable))
        deadline = time.monotonic() + PATIENCE
        while not board.count(0):
            for role, process in (("reader", receiver), ("camera", sender)):
                if process.poll() is not None:
                    raise PeerError(f"the {role} ended: {last_words(job, process)}")
            if time.monotonic() > deadline:
                raise PeerError(f"no picture came within {PATIENCE:g} s")
            time.sleep(0.02)
        began_ns = time.monotonic_ns()
        time.sleep(max(START, seconds))
        if receiver.poll() is not None:
            raise PeerError(f"the reader ended: {last_words(job, receiver)}")
        later_ns, before = time.monotonic_ns(), spent(receiver)
        time.sleep(WINDOW)
        end_ns, after = time.monotonic_ns(), spent(receiver)
        start, later = (
            rows_between(board, 0, *span) for span in ((0, began_ns + round(START * 1e9)), (later_ns, end_ns))
        )
    window = (end_ns - later_ns) / 1e9
    return Run(lag(start), lag(later), len(later) / window, (after - before) / window)


def lag(rows: NDArray[np.int64]) -> Lag:
    """Of rows of (number, painted, read)."""
    return Lag((rows[:, 2] - rows[:, 1]) / 1e6)


def spent(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds of a process."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def behind(cameras: list[str], readers: list[str], seconds: float) -> None:
    """The table of lags."""
    print(
        f"From painting a picture to its array, 1280x720 at {FPS} fps, H.264; ms, and pictures that the consumer had:\n"
    )
    print("| camera | reader | consumer | at the start p50 | p99", end=" | ")
    print(f"after {seconds:g} s p50 | p99 | fps | reader's CPU |")
    print("|" + "---|" * 9, flush=True)
    for camera in cameras:
        for reader in readers:
            for consumer, work in (("fast", ""), ("100 ms a picture", SLOW)):
                try:
                    run = measure(camera, reader, work=work, seconds=seconds)
                    cells = f"{run.start} | {run.later} | {run.fps:.1f} | {run.cpu:.0%}"
                except PeerError as error:
                    cells = f"({error}) | | | | |"
                print(f"| {camera} | {reader} | {consumer} | {cells} |", flush=True)


# ---- what it costs


def cost(seconds: float) -> None:
    """CPU of `avlab serve` and `avlab play` with a film of the same pictures, and the codecs' own share of it."""
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "film.mp4"
        decode = write_film(clip)
        encode = coding(clip)
        command = [sys.executable, "-m", "avlab"]
        serve = [*command, "serve", str(clip), "--loop", "--port", "0", "--codec", "h264"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            play = [*command, "play", url, "--no-window", "--audio", "null", "--seconds", str(seconds + 30)]
            with subprocess.Popen(play, stdout=subprocess.DEVNULL) as client:
                time.sleep(5)  # start-up apart
                sides = [psutil.Process(server.pid), psutil.Process(client.pid)]
                before, began = [sum(each.cpu_times()[:2]) for each in sides], time.perf_counter()
                time.sleep(seconds)
                passed = time.perf_counter() - began
                shares = [
                    (sum(each.cpu_times()[:2]) - early) / passed for each, early in zip(sides, before, strict=True)
                ]
                client.terminate()
            server.terminate()
    print(f"\nWhat the way costs, 1280x720 at {FPS} fps, H.264 of 2,000 kbit/s, a film of H.264; shares of a core:\n")
    print("| | all of it | the codecs alone |\n|---|---|---|")
    print(
        f"| `avlab serve --codec h264` | {shares[0]:.0%} | decoding the film {decode:.0%}, encoding {encode[0]:.0%} |"
    )
    print(f"| `avlab play` | {shares[1]:.0%} | decoding to BGR {encode[1]:.0%} |", flush=True)


def write_film(path: Path, pictures: int = 300) -> float:
    """A film of the reel; the share of a core that decoding it takes."""
    frames = [
        av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p") for picture in smooth(*SIZE)
    ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *SIZE, "yuv420p", 8_000_000
        for number in range(pictures):
            frame = frames[number % len(frames)]
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    began = time.process_time()
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        count = sum(1 for _ in container.decode(video=0))
    return (time.process_time() - began) / count * FPS


def coding(path: Path) -> tuple[float, float]:
    """The shares of a core that encoding a film's pictures takes, and decoding what comes of that to arrays."""
    encoder, coded = H264Encoder(bit_rate=2_000), []
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    began = time.process_time()
    for number, frame in enumerate(frames):
        coded.append(
            encoder.encode(
                frame, width=None, matrix=None, key=number % (2 * FPS) == 0, quality=80, pts_ns=number * 10**9 // FPS
            ).data
        )
    encoded = time.process_time() - began
    decoder, began = VideoDecoder(H264_CODING), time.process_time()
    for number, data in enumerate(coded):
        decoder.decode(data, number)
    decoded = time.process_time() - began
    return encoded / len(frames) * FPS, decoded / len(frames) * FPS


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="after which it is looked again (60)")
    parser.add_argument("--camera", choices=CAMERAS, action="append", help="these cameras alone")
    parser.add_argument("--reader", choices=READERS, action="append", help="these readers alone")
    parser.add_argument("--cost-alone", action="store_true", help="only what the way costs")
    parser.add_argument("--lag-alone", action="store_true", help="only how far readers are behind")
    options = parser.parse_args()
    if not options.cost_alone:
        behind(options.camera or list(CAMERAS), options.reader or list(READERS), options.seconds)
    if not options.lag_alone:
        cost(30.0)


if __name__ == "__main__":
    main()
