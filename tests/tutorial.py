"""The tutorial's four scripts re-enacted as peers: the same bytes on the wire, without the windows and the sound card.

Run as `python tests/tutorial.py server-a --port P --clip C` (server-b; client-a, client-b without --clip): a line
"ready" goes to standard error when others may begin, one line of JSON to standard output at the end. Tests start it
with `peer`. What the originals show or play is counted here; where they would go on or hang for ever, this one ends.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import pickle
import queue
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tools
from numpy.typing import NDArray

Image = NDArray[np.uint8]

BUFFER = 65_536
WIDTH, QUALITY = 400, 80
CHUNK, RATE, FRAME_BYTES = 1024, 44_100, 4
PREFIX = struct.Struct("Q")
FIRST_WAIT = {"a": 0.5, "b": 1.0}
"""The editions' first wait, in frame intervals: Windows (A) and macOS (B). Their clients do the same."""


# ---- the bytes


def resized(image: Image) -> Image:
    """400 pixels wide, averaging, the height cut to a whole number, as imutils.resize does it."""
    height, width = image.shape[:2]
    size = WIDTH, int(height * (WIDTH / float(width)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def datagram_of(image: Image) -> bytes:
    """One frame as it is sent."""
    _, jpeg = cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(jpeg.tobytes())


def image_of(datagram: bytes) -> Image:
    """One frame as it is received; raises what the original dies of."""
    jpeg = base64.b64decode(datagram, b" /")
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("no picture in the datagram")
    return np.asarray(image, np.uint8)


def message_of(sound: bytes) -> bytes:
    """One chunk as it is sent. The pickle's protocol is the Python's default: 3 up to 3.7, then 4, from 3.14 on 5."""
    pickled = pickle.dumps(sound)
    return PREFIX.pack(len(pickled)) + pickled


# ---- a run


@dataclass
class Run:
    """What one peer did, as it is reported, and what ends it."""

    role: str
    frames: int = 0
    sound_bytes: int = 0
    chunks: int = 0
    empty_chunks: int = 0
    wait_ms: int | None = None
    """A server's last wait in its window, in whole milliseconds; at 0 the original waits for a key for ever."""
    ended: str = ""
    """What ended it: clip, closed (the connection of the sound) or seconds."""
    errors: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event, repr=False)

    def end(self, reason: str) -> None:
        self.ended = self.ended or reason
        self.over.set()

    def start(self, work: Callable[..., None], *arguments: object) -> None:
        """Run `work` in a thread. An error ends that thread alone, as in the originals; the rest goes on."""

        def guarded() -> None:
            try:
                work(self, *arguments)
            except Exception as error:
                self.errors.append(f"{work.__name__}: {type(error).__name__}: {error}")

        threading.Thread(target=guarded, daemon=True).start()

    def report(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "over"}


# ---- the server


def serve(run: Run, host: str, port: int, clip: str, first_wait: float, folder: str) -> None:
    """Bind both ports and start the three threads; the run ends with the clip, up to ten frames unsent as there."""
    sound = str(Path(folder) / "temp.wav")
    extract = ["ffmpeg", "-loglevel", "error", "-i", clip, "-ab", "160k", "-ac", "2", "-ar", "44100", "-vn", sound]
    subprocess.run(extract, stdin=subprocess.DEVNULL, timeout=60, check=False)
    pictures = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    pictures.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    pictures.bind((host, port))
    listener = socket.socket()
    listener.bind((host, port - 1))
    listener.listen(5)
    video = cv2.VideoCapture(clip)
    frames: queue.Queue[Image] = queue.Queue(maxsize=10)
    run.start(send_sound, listener, sound)
    run.start(read_pictures, video, frames)
    run.start(send_pictures, pictures, frames, video.get(cv2.CAP_PROP_FPS), first_wait)


def read_pictures(run: Run, video: cv2.VideoCapture, frames: queue.Queue[Image]) -> None:
    """Fill the queue; at the end of the clip the whole process ends, at once and whatever the others are doing."""
    while True:
        there, image = video.read()
        if not there:
            run.end("clip")
            return
        frames.put(resized(np.asarray(image, np.uint8)))


def send_pictures(
    run: Run, pictures: socket.socket, frames: queue.Queue[Image], target_fps: float, first_wait: float
) -> None:
    """Send to whoever wrote first, nudging the wait by a millisecond a frame towards the clip's rate."""
    wait = first_wait / target_fps
    fps, last, count = 0.0, 0.0, 0
    _, client = pictures.recvfrom(BUFFER)
    while True:
        pictures.sendto(datagram_of(frames.get()), client)
        run.frames += 1
        if count == 1:
            # The first measurement is taken against 1970, so the first nudge always shortens the wait.
            now = time.time()
            fps, last, count = 1 / (now - last), now, 0
            if fps > target_fps:
                wait += 0.001
            elif fps < target_fps:
                wait -= 0.001
        count += 1
        run.wait_ms = int(1000 * wait)
        if run.wait_ms <= 0:
            return  # cv2.waitKey(0) waits for a key, and nobody is there to press one
        time.sleep(run.wait_ms / 1000)


def send_sound(run: Run, listener: socket.socket, sound: str) -> None:
    """Send the whole sound to the first who connects, as fast as it is taken, then empty chunks without end."""
    # Without a client the original's thread dies of the broken connection, and the pictures go on.
    with closing(wave.open(sound, "rb")) as wav, listener.accept()[0] as client, suppress(OSError):
        while True:
            data = wav.readframes(CHUNK)
            client.sendall(message_of(data))
            run.sound_bytes += len(data)
            if data:
                run.chunks += 1
            else:
                run.empty_chunks += 1
                time.sleep(0.001)  # the original does not wait, and takes a core of each machine


# ---- the client


def play(run: Run, host: str, port: int) -> None:
    """Say hello, take the sound and the pictures; the run ends when the sound's connection does."""
    pictures = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    pictures.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    pictures.sendto(b"Hello", (host, port))
    run.start(take_pictures, pictures)
    run.start(take_sound, host, port - 1)


def take_pictures(run: Run, pictures: socket.socket) -> None:
    """Decode and count each frame on arrival; the window takes a millisecond."""
    while True:
        image_of(pictures.recvfrom(BUFFER)[0])
        run.frames += 1
        time.sleep(0.001)


def take_sound(run: Run, host: str, port: int) -> None:
    """Unpickle and play each chunk, no faster than a sound card would take it."""
    card = SoundCard()
    with socket.create_connection((host, port)) as connection:
        with suppress(OSError, EOFError):
            while True:
                (size,) = PREFIX.unpack(receive(connection, PREFIX.size))
                sound = pickle.loads(receive(connection, size))
                card.write(sound)
                run.sound_bytes += len(sound)
                if sound:
                    run.chunks += 1
                else:
                    run.empty_chunks += 1
        run.end("closed")


def receive(connection: socket.socket, size: int) -> bytes:
    """The next `size` bytes. Raises EOFError at the end, where the original, within a chunk, asks again for ever."""
    data = b""
    while len(data) < size:
        packet = connection.recv(min(4096, size - len(data)))
        if not packet:
            raise EOFError
        data += packet
    return data


class SoundCard:
    """Takes 44,100 sample frames a second and blocks when one chunk more than is being played is waiting."""

    def __init__(self) -> None:
        self._played_by = 0.0

    def write(self, sound: bytes) -> None:
        now = time.perf_counter()
        self._played_by = max(self._played_by, now) + len(sound) / FRAME_BYTES / RATE
        time.sleep(max(0.0, self._played_by - 2 * CHUNK / RATE - now))


# ---- as a process


@dataclass(frozen=True)
class Peer:
    """A peer that runs; `report` waits for its end."""

    process: subprocess.Popen[str]

    def report(self, timeout: float = 60) -> dict[str, Any]:
        """What it did: the fields of `Run`. Raises subprocess.TimeoutExpired, or RuntimeError with its last words."""
        said, complaints = self.process.communicate(timeout=timeout)
        if self.process.returncode:
            raise RuntimeError(f"The tutorial's peer failed: {complaints}")
        result: dict[str, Any] = json.loads(said)
        return result


@contextmanager
def peer(role: str, *, port: int, clip: Path | None = None, seconds: float = 120) -> Iterator[Peer]:
    """Run server-a, server-b, client-a or client-b; the block begins when it is ready and ends it."""
    command = [sys.executable, __file__, role, "--port", str(port), "--seconds", str(seconds)]
    if clip is not None:
        command += ["--clip", str(clip)]
    with tools.started(*command) as process:
        assert process.stderr is not None
        said = ""
        while (line := process.stderr.readline()) and line != "ready\n":
            said += line
        if not line:
            raise RuntimeError(f"The tutorial's {role} did not start: {said}")
        yield Peer(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["server-a", "server-b", "client-a", "client-b"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="of the pictures (9688 in A, 9699 in B); sound below")
    parser.add_argument("--clip", help="the server's clip")
    parser.add_argument("--seconds", type=float, default=60, help="end after this long at the latest")
    asked = parser.parse_args()
    kind, edition = asked.role.split("-")
    if (kind == "server") != bool(asked.clip):
        parser.error("a server needs --clip, a client takes none")
    run = Run(asked.role)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if kind == "server":
            serve(run, asked.host, asked.port, asked.clip, FIRST_WAIT[edition], folder)
        else:
            play(run, asked.host, asked.port)
        print("ready", file=sys.stderr, flush=True)
        run.over.wait(asked.seconds)
        run.end("seconds")
    print(json.dumps(run.report()), flush=True)
    os._exit(0)  # as the originals do: their threads wait for ever


if __name__ == "__main__":
    main()
