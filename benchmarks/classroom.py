"""What a class's page costs a server of thirty clients: processor time of `avlab.classroom`, beside all the rest.

The server is a process of its own; the class is one more: clients that set up pictures over UDP, count what comes, and
report as a player does, with a name, some of them with losses of their own. What the page is sent is sent nowhere, as
in a notebook whose page takes each message at once. Run on an idle machine:
python -m benchmarks.classroom [--clients 30] [--seconds 20]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

import avlab
from avlab.wire import rtcp
from avlab.wire.rtp import ReceiverStats, RtpPacket
from benchmarks.fanout import UDP_GRO, VIDEO_CLOCK, Client, allow_files

ROOT = Path(__file__).parents[1]
NAMES = (
    "Ada", "Alan", "Annie", "Barbara", "Betty", "Claude", "Donald", "Dorothy", "Edsger", "Emmy", "Evelyn", "Fran",
    "Grace", "Hedy", "Jean", "Jon", "Karen", "Kathleen", "Katherine", "Ken", "Lynn", "Margaret", "Mary", "Niklaus",
    "Radia", "Shafi", "Sophie", "Steve", "Tim", "Van",
)  # fmt: skip
REPORT_S = 0.5


class Classmate:
    """One of a class: counts its pictures' packets, and reports. `loss` is the share of them that it does not see."""

    def __init__(self, url: str, name: str, *, loss: float = 0.0, seed: int = 0) -> None:
        self._client = Client(url, sound=False)
        self.stream = self._client.streams["video"]
        if sys.platform.startswith("linux"):
            with contextlib.suppress(OSError):
                self.stream.rtp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 0)
        self.stream.rtcp.setblocking(False)
        self.name, self.loss = name, loss
        self._chance = random.Random(seed)
        self._own = self._chance.getrandbits(32)
        self._stats = ReceiverStats(VIDEO_CLOCK)
        self._ssrc: int | None = None
        self._to: tuple[str, int] | None = None
        self.due = time.monotonic() + REPORT_S * self._chance.random()

    def take(self) -> None:
        """Read what has come."""
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = RtpPacket.parse(self.stream.rtp.recv(65_536))
                if self._ssrc is None:
                    self._ssrc = packet.ssrc
                if self._chance.random() >= self.loss:
                    self._stats.update(packet.sequence, packet.timestamp, time.perf_counter_ns())
        with contextlib.suppress(BlockingIOError):
            while True:
                data, self._to = self.stream.rtcp.recvfrom(65_536)
                for each in rtcp.parse_compound(data):
                    if isinstance(each, rtcp.SenderReport):
                        self._stats.sender_report(each.ntp, time.perf_counter_ns())

    def report(self) -> None:
        """Say what came, as a player does."""
        self.due += REPORT_S
        reception = self._stats.report(time.perf_counter_ns())
        if reception is None or self._ssrc is None or self._to is None:
            return
        blocks = (rtcp.ReportBlock.of(self._ssrc, reception),)
        described = rtcp.Sdes(self._own, "avlab", self.name)
        self.stream.rtcp.sendto(rtcp.serialize_compound([rtcp.ReceiverReport(self._own, blocks), described]), self._to)

    def close(self) -> None:
        """Leave."""
        self._client.close()


def attend(
    url: str, count: int, seconds: float, *, names: Sequence[str] = NAMES, over: threading.Event | None = None
) -> None:
    """A class of so many plays for so long, or until it is `over`; the last of them loses 4 %, two others 1 %."""
    allow_files()
    mates: list[Classmate] = []
    try:
        with selectors.DefaultSelector() as selector:
            for number in range(count):
                loss = {count - 1: 0.04, count // 2: 0.01, count // 3: 0.01}.get(number, 0.0)
                mate = Classmate(url, names[number % len(names)], loss=loss, seed=number)
                mates.append(mate)
                for link in (mate.stream.rtp, mate.stream.rtcp):
                    selector.register(link, selectors.EVENT_READ, mate)
            until = time.monotonic() + seconds
            while (now := time.monotonic()) < until and not (over is not None and over.is_set()):
                for key, _ in selector.select(max(0.0, min(mate.due for mate in mates) - now)):
                    key.data.take()
                for mate in mates:
                    if time.monotonic() >= mate.due:
                        mate.report()
    finally:
        for mate in mates:
            mate.close()


# ---- the server


def serve() -> None:
    """Serve the sample clip, with the page, until standard input ends; tell processor time whenever asked."""
    with avlab.Server(ROOT / "data" / "count.mp4", port=0, loop=True) as server:
        made = avlab.classroom(server)

        def taken(content: dict[str, Any], buffers: object = None) -> None:
            """In place of a browser: the message is made, and the page has taken it."""
            json.dumps(content)
            made._hear(made, {"seen": content["number"] or 0}, [])

        made.send = taken
        made._hear(made, {"hello": True}, [])
        print(server.url, flush=True)
        [page] = [thread.native_id for thread in threading.enumerate() if "classroom" in thread.name]
        process = psutil.Process()
        for _ in sys.stdin:
            spent = {each.id: each.user_time + each.system_time for each in process.threads()}
            print(json.dumps({"all": sum(spent.values()), "page": spent[page]}), flush=True)


def _asked(server: subprocess.Popen[str]) -> dict[str, float]:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write("?\n")
    server.stdin.flush()
    told: dict[str, float] = json.loads(server.stdout.readline())
    return told


def measure(clients: int, seconds: float) -> tuple[float, float]:
    """Shares of a core with a class: the whole server's, and the page's thread's."""
    command = [sys.executable, "-m", "benchmarks.classroom"]
    with subprocess.Popen(
        [*command, "--serve"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        attending = ["--attend", url, "--clients", str(clients), "--seconds", str(seconds + 6)]
        with subprocess.Popen([*command, *attending], cwd=ROOT) as room:
            try:
                time.sleep(4)
                before, begun = _asked(server), time.monotonic()
                time.sleep(seconds)
                after, spent = _asked(server), time.monotonic() - begun
            finally:
                room.kill()
                server.kill()
    return (after["all"] - before["all"]) / spent, (after["page"] - before["page"]) / spent


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what it costs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classroom", description=__doc__)
    parser.add_argument("--clients", type=int, default=30, metavar="N")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--attend", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve()
    elif options.attend is not None:
        attend(options.attend, options.clients, options.seconds)
    else:
        whole, page = measure(options.clients, options.seconds)
        print("| clients | the server's CPU | of it the page's |\n|---|---|---|")
        print(f"| {options.clients} | {whole:.1%} | {page:.2%} |")


if __name__ == "__main__":
    main()
