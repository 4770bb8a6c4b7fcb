"""What the relay costs: packets a second that it carries, what it adds when nothing is set, how it holds a set delay.

Sender, relay and receiver are processes of their own. Sender and receiver stamp packets with one clock; what they cost
between themselves, without a relay, is measured first and shown beside. Run on an idle machine: python
benchmarks/relay.py [--seconds 10]
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
import psutil

from avlab.stream.sockets.links import UdpLink
from avlab.wire.rtp import serialize_header

STAMP = struct.Struct("!QI")
PACKET = 1200
WARM_UP = 0.5


def send(port: int, rate: int, burst: int, seconds: float) -> int:
    """Send `rate` packets a second, `burst` at a time, each with its number and the moment of its sending."""
    link = UdpLink("127.0.0.1")
    padding = bytes(PACKET - 12 - STAMP.size)
    number, begun_ns = 0, time.perf_counter_ns()
    while (due_ns := begun_ns + number * 1_000_000_000 // rate) < begun_ns + seconds * 1e9:
        while (left := due_ns - time.perf_counter_ns()) > 0:
            time.sleep(left / 1e9)
        now_ns = time.perf_counter_ns()
        packets = []
        for n in range(number, number + burst):
            header = serialize_header(96, n & 0xFFFF, n * 90, 1, False)
            packets.append(header + STAMP.pack(now_ns, n) + padding)
        link.send(packets, ("127.0.0.1", port))
        number += burst
    link.close()
    return number


def receive(connection: Connection) -> None:
    """Collect what comes until a second passes without any; give back delays in ms and how many came."""
    link = UdpLink("127.0.0.1")
    link.socket.setblocking(True)
    link.socket.settimeout(3.0)
    connection.send(link.port)
    delays: list[float] = []
    numbers: set[int] = set()
    try:
        while True:
            first, _ = link.socket.recvfrom(65_536, socket.MSG_PEEK)
            now_ns = time.perf_counter_ns()
            del first
            link.socket.setblocking(False)
            for data, _ in link.receive(1024):
                sent_ns, number = STAMP.unpack_from(data, 12)
                delays.append((now_ns - sent_ns) / 1e6)
                numbers.add(number)
            link.socket.setblocking(True)
            link.socket.settimeout(1.5)
    except TimeoutError:
        connection.send((delays, len(numbers), link.dropped()))
    link.close()


@contextmanager
def relaying(port: int, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    """`avlab relay` towards a port: its own port, and its process."""
    command = [sys.executable, "-m", "avlab", "relay", "--listen", "0", "--to", f"127.0.0.1:{port}", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None
        yield int(relay.stdout.readline().split("127.0.0.1:")[2].split(":")[0].split("/")[0]), psutil.Process(relay.pid)
        relay.terminate()


def measure(name: str, rate: int, burst: int, seconds: float, *options: str, relay: bool = True) -> None:
    """One line of the table."""
    here, there = multiprocessing.Pipe()
    receiver = multiprocessing.Process(target=receive, args=(there,))
    receiver.start()
    port = here.recv()
    cpu = None
    if relay:
        with relaying(port, *options) as (entrance, process):
            before = sum(process.cpu_times()[:2])
            sent = send(entrance, rate, burst, seconds)
            cpu = (sum(process.cpu_times()[:2]) - before) / seconds
            delays, came, dropped = here.recv()
    else:
        sent = send(port, rate, burst, seconds)
        delays, came, dropped = here.recv()
    receiver.join()
    settled = np.array(delays[int(len(delays) * WARM_UP / seconds) :])
    p50, p95, p99 = np.quantile(settled, (0.5, 0.95, 0.99))
    share = "" if cpu is None else f"{cpu:.0%}"
    missing = f"{sent - came} ({dropped} of them at the receiver's socket)" if sent - came else "0"
    print(f"| {name} | {rate:,} | {sent:,} | {missing} | {p50:.2f} | {p95:.2f} | {p99:.2f} | {share} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    print("| way | packets a second | sent | not come | delay p50, ms | p95 | p99 | relay's processor |")
    print("|---|---|---|---|---|---|---|---|")
    measure("no relay", 360, 12, seconds, relay=False)
    measure("relay, nothing set", 360, 12, seconds)
    measure("relay, delay 20 ms", 360, 12, seconds, "--delay", "0.02")
    measure("no relay", 2_000, 1, seconds, relay=False)
    measure("relay, nothing set", 2_000, 1, seconds)
    measure("relay, delay 20 ms", 2_000, 1, seconds, "--delay", "0.02")
    measure("no relay", 20_000, 10, seconds, relay=False)
    measure("relay, nothing set", 20_000, 10, seconds)
    measure("relay, delay 20 ms", 20_000, 10, seconds, "--delay", "0.02")
    measure("relay, delay 20 ms, jitter 5 ms", 20_000, 10, seconds, "--delay", "0.02", "--jitter", "0.005")


if __name__ == "__main__":
    main()
