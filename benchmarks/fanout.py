"""How many clients one server holds on one core: the share of pictures delivered, and the sender's processor time.

The server is a process on one core; clients that only count share another process, on another core: SETUP, PLAY, and
then a look at the headers of what comes over UDP, pictures of 46 KB at 640x360 and 30 fps, once without sound and once
with it. Run on an idle machine: python -m benchmarks.fanout [--clients 16 50 100 200] [--seconds 10]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import av
import numpy as np
import psutil

import avlab
from benchmarks.peers.pictures import reel

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, FPS, QUALITY = 640, 360, 30, 80
VIDEO_CLOCK, RATE = 90_000, 44_100
CLIENTS = (16, 50, 100, 200)
WARM = 3.0
"""Seconds with every client served before it is measured: the server has seen by then whether offload pays."""
GRACE = 0.5
"""Seconds that what was sent at the end of what is measured may still take: later pictures are not delivered."""
BUSY = 0.9
"""From this share of a core on, it is the counting that holds pictures up."""

UDP_GRO = 104  # linux/udp.h
RECEIVE_BYTES = 1 << 20


# ---- the server


def serve(clip: str | None, core: int | None) -> None:
    """Serve a clip, or pictures without sound, until standard input ends; then tell how, as a line of JSON."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    source: Any = clip or list(reel(WIDTH, HEIGHT))
    with avlab.Server(source, port=0, loop=True, quality=QUALITY, fps=None if clip else FPS) as server:
        print(server.url, flush=True)
        sys.stdin.read()
        settings, frames = server.trace.settings, server.trace.frames
    used = list(dict.fromkeys(settings[settings["name"] == "offload in use"]["value"]))
    skipped = int((frames["fate"] == "skipped").sum())
    print(json.dumps({"offload": ", then ".join(map(str, used)) or "off", "skipped": skipped}), flush=True)


def write_clip(path: Path, seconds: int = 2) -> None:
    """The pictures, with hardly anything lost, and a tone, as a file that ends where it begins."""
    pictures = list(reel(WIDTH, HEIGHT))
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(seconds * RATE) / RATE)).astype(np.int16)
    with av.open(str(path), "w", format="matroska") as out:
        video = out.add_stream("mjpeg", rate=FPS, options={"qmin": "1", "qmax": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        audio = out.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        step = RATE // FPS
        for number in range(seconds * FPS):
            frame = av.VideoFrame.from_ndarray(pictures[number % len(pictures)], "bgr24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(video.encode(frame))
            stereo = np.repeat(tone[number * step : (number + 1) * step], 2).reshape(1, -1)
            sound = av.AudioFrame.from_ndarray(stereo, "s16", "stereo")
            sound.sample_rate, sound.pts, sound.time_base = RATE, number * step, Fraction(1, RATE)
            out.mux(audio.encode(sound))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))


# ---- the clients


class Stream:
    """One stream of one client: a UDP socket whose packets are counted by their headers.

    Equal packets come many at a time where the system can (UDP_GRO). A packet's sequence number, timestamp and marker
    are in its first twelve bytes (RFC 3550 5.1); where it belongs in its picture is in the next (RFC 2435 3.1).
    """

    def __init__(self, host: str, *, pictures: bool) -> None:
        self._pictures = pictures
        self.rtp, self.rtcp = _pair(host)
        if sys.platform.startswith("linux"):
            with contextlib.suppress(OSError):
                self.rtp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        self._whole = False  # the picture that is coming, as far as it has come
        self._next: int | None = None
        self.reset()

    def reset(self) -> None:
        """Count from here on."""
        self.stamps: list[int] = []  # of whole pictures
        self.packets = self.bytes = 0
        self.missing = 0

    def take(self, buffer: bytearray, most: int = 64) -> None:
        """Read what has come."""
        for _ in range(most):
            try:
                size, ancillary = self._receive(buffer)
            except (BlockingIOError, ConnectionRefusedError):
                return
            step = next(
                (int.from_bytes(value[:4], sys.byteorder) for _, kind, value in ancillary if kind == UDP_GRO), 0
            )
            self.bytes += size
            self.count(buffer, size, step or size)

    def _receive(self, buffer: bytearray) -> tuple[int, Sequence[tuple[int, int, bytes]]]:
        if not hasattr(self.rtp, "recvmsg_into"):  # Windows
            return self.rtp.recv_into(buffer), ()
        return self.rtp.recvmsg_into([buffer], 64)[:2]

    def count(self, data: bytes | bytearray, size: int, step: int) -> None:
        """Take packets of `step` bytes that lie end to end, the last of which may be shorter."""
        if size < 12:
            return
        count = -(-size // step)
        last = (count - 1) * step
        if data[4:8] != data[last + 4 : last + 8]:  # more than one picture: one packet at a time
            for at in range(0, size, step):
                self.count(data[at : at + step], min(step, size - at), step)
            return
        sequence, end = int.from_bytes(data[2:4], "big"), int.from_bytes(data[last + 2 : last + 4], "big")
        lost = 0 if self._next is None else (sequence - self._next) & 0xFFFF
        self.packets += count
        if lost < 0x8000:
            self.missing += lost
            self._next = (end + 1) & 0xFFFF
        if not self._pictures:
            return
        first = data[13:16] == b"\0\0\0"
        self._whole = (first or (self._whole and not lost)) and (end - sequence + 1) & 0xFFFF == count
        if data[last + 1] & 0x80:
            if self._whole:
                self.stamps.append(int.from_bytes(data[last + 4 : last + 8], "big"))
            self._whole = False

    def delivered(self, seconds: float) -> float:
        """The share of the pictures of `seconds` from the first one on that came whole, or of the sound's packets."""
        if not self._pictures:
            return self.packets / max(1, self.packets + self.missing)
        if not self.stamps:
            return 0.0
        within = {stamp for stamp in self.stamps if (stamp - self.stamps[0]) & 0xFFFFFFFF < seconds * VIDEO_CLOCK - 1}
        return len(within) / round(seconds * FPS)

    def close(self) -> None:
        """Let go of the ports."""
        self.rtp.close()
        self.rtcp.close()


class Client:
    """An RTSP client that sets up every stream and counts; RuntimeError when it is refused."""

    def __init__(self, url: str, *, sound: bool) -> None:
        where = urlsplit(url)
        assert where.hostname
        self._url, self._session, self._number = url, "", 0
        self._control = socket.create_connection((where.hostname, where.port or 554), timeout=30)
        self.streams: dict[str, Stream] = {}
        try:
            for name in ("video", "audio") if sound else ("video",):
                self.streams[name] = stream = Stream(where.hostname, pictures=name == "video")
                port = stream.rtp.getsockname()[1]
                self._ask("SETUP", f"/{name}", f"Transport: RTP/AVP;unicast;client_port={port}-{port + 1}\r\n")
            self._ask("PLAY")
        except BaseException:
            self.close()
            raise

    def _ask(self, method: str, path: str = "", headers: str = "") -> None:
        self._number += 1
        headers += f"Session: {self._session}\r\n" if self._session else ""
        self._control.sendall(f"{method} {self._url}{path} RTSP/1.0\r\nCSeq: {self._number}\r\n{headers}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self._control.recv(65_536)
            if not data:
                raise RuntimeError(f"the server hung up at {method}")
            answer += data
        lines = answer.decode(errors="replace").split("\r\n")
        if " 200 " not in lines[0]:
            raise RuntimeError(f"the server answers {method}{path} with {lines[0]}")
        for line in lines:
            name, _, value = line.partition(":")
            if name.lower() == "session":
                self._session = value.split(";")[0].strip()

    def keep_alive(self) -> None:
        """Say that one is there."""
        self._ask("OPTIONS")

    def close(self) -> None:
        """Leave."""
        self._control.close()
        for stream in self.streams.values():
            stream.close()


class Room:
    """All clients of a server, in this process and on one selector."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(65_536)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._selector.close()
        for client in self.clients:
            client.close()

    def enter(self, url: str, *, sound: bool) -> None:
        """One client more; what comes for the others meanwhile is read."""
        client = Client(url, sound=sound)
        self.clients.append(client)
        for stream in client.streams.values():
            self._selector.register(stream.rtp, selectors.EVENT_READ, stream)
        self._turn(0.0)

    def count(self, seconds: float) -> None:
        """Count for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._turn(left)

    def _turn(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            key.data.take(self._buffer)

    def keep_alive(self) -> None:
        """Have the server know that its clients are there (RFC 2326 10.8): it waits a minute for a word of each."""
        for client in self.clients:
            client.keep_alive()

    def streams(self, name: str) -> list[Stream]:
        """Every client's stream of this name."""
        return [client.streams[name] for client in self.clients if name in client.streams]

    def reset(self) -> None:
        """All count from here on."""
        for client in self.clients:
            for stream in client.streams.values():
                stream.reset()


def _pair(host: str) -> tuple[socket.socket, socket.socket]:
    """Two UDP sockets on neighbouring ports, the first even (RFC 3550 11)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(1000):
        rtp, rtcp = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        with contextlib.suppress(OSError):
            rtp.bind((host, 0))
            port = rtp.getsockname()[1]
            if port % 2 == 0:
                rtcp.bind((host, port + 1))
                rtp.setblocking(False)
                rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
                return rtp, rtcp
        rtp.close()
        rtcp.close()
    raise RuntimeError("no two neighbouring UDP ports are free")


# ---- what is measured


@dataclass(frozen=True, kw_only=True)
class Row:
    """What so many clients had of one server."""

    clients: int
    sound: bool
    delivered: float
    """The share of pictures that came whole, over all clients; `least` is that of the client that got fewest."""
    least: float
    heard: float | None
    """The share of the sound's packets that came."""
    sender: float
    """Its share of a core; `counting` is the clients', all together."""
    counting: float
    mbps: float
    offload: str
    skipped: int


HEAD = (
    "| clients | sound | pictures delivered | of the client with fewest | sound delivered | Mbit/s | sender's CPU "
    "| clients' CPU | offload | pictures skipped by the sender |",
    "|" + "---|" * 10,
)


def cells(row: Row) -> str:
    """A line of the table."""
    heard = "-" if row.heard is None else f"{row.heard:.2%}"
    busy = " *" if row.counting > BUSY else ""
    shown = [
        f"{row.clients}", "with" if row.sound else "without", f"{row.delivered:.2%}", f"{row.least:.2%}", heard,
        f"{row.mbps:.0f}", f"{row.sender:.1%}", f"{row.counting:.1%}{busy}", row.offload, f"{row.skipped}",
    ]  # fmt: skip
    return "| " + " | ".join(shown) + " |"


def measure(clients: int, clip: Path | None, seconds: float, *, core: int | None = None, warm: float = WARM) -> Row:
    """One server, on this core if any, and so many clients; RuntimeError when it does not serve them."""
    with _serving(clip, core) as (url, server), Room() as room:
        for _ in range(clients):
            room.enter(url, sound=clip is not None)
        room.count(warm)
        room.reset()
        process = psutil.Process(server.pid)
        begun, cpu, own = time.monotonic(), _cpu(process), time.process_time()
        room.count(seconds)
        spent, cpu, own = time.monotonic() - begun, _cpu(process) - cpu, time.process_time() - own
        received = sum(stream.bytes for name in ("video", "audio") for stream in room.streams(name))
        room.count(GRACE)
        shares = [stream.delivered(seconds) for stream in room.streams("video")]
        heard = [stream.delivered(seconds) for stream in room.streams("audio")]
        told = _told(server)
    return Row(
        clients=clients,
        sound=clip is not None,
        delivered=float(np.mean(shares)),
        least=min(shares),
        heard=float(np.mean(heard)) if heard else None,
        sender=cpu / spent,
        counting=own / spent,
        mbps=received * 8 / spent / 1e6,
        offload=str(told["offload"]),
        skipped=int(told["skipped"]),
    )


@contextlib.contextmanager
def _serving(clip: Path | None, core: int | None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "benchmarks.fanout", "--serve", str(clip or "")]
    command += [] if core is None else ["--core", str(core)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            if not url:
                raise RuntimeError("the server did not start")
            yield url, server
        finally:
            server.kill()


def _told(server: subprocess.Popen[str]) -> dict[str, Any]:
    """What the server has to say at its end."""
    said, _ = server.communicate(timeout=60)
    told: dict[str, Any] = json.loads(said)
    return told


def _cpu(process: psutil.Process) -> float:
    """Seconds of a process and of its children, those that have ended included."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def two_cores() -> list[int]:
    """A core for the server and one for the clients; none where the system cannot keep processes to theirs."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    return [cores[0], cores[-1]] if len(cores) > 1 else []


def allow_files() -> None:
    """As many sockets as this system lets a process open: 200 clients have five each, and 1,024 is a usual limit."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--sound", choices=("with", "without", "both"), default="both")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        serve(options.serve or None, options.core)
        return
    allow_files()
    try:
        _print_table(options.clients, {"without": [False], "with": [True], "both": [False, True]}[options.sound],
                     options.seconds)  # fmt: skip
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, RuntimeError) as failed:
        sys.exit(f"fanout: {failed}")


def _print_table(clients: Sequence[int], sounds: Sequence[bool], seconds: float) -> None:
    cores = two_cores()
    if cores:
        os.sched_setaffinity(0, {cores[1]})
    with tempfile.TemporaryDirectory(prefix="avlab-fanout-") as folder:
        clip = Path(folder) / "clip.mkv"
        write_clip(clip)
        print(*HEAD, sep="\n", flush=True)
        counted: list[Row] = []
        for count in clients:
            for sound in sounds:
                path = clip if sound else None
                counted.append(measure(count, path, seconds, core=cores[0] if cores else None))
                print(cells(counted[-1]), flush=True)
    if not cores:
        print("\nServer and clients share all cores: this system keeps no process to one, or has no second.")
    if any(row.counting > BUSY for row in counted):
        print("\n* the clients' own core was full: what is missing may have been missed by them.")


if __name__ == "__main__":
    main()
