"""Record `data/call.pcap`: a video call between two peers with aiortc, through a lossy network, as one of them sees it.

Ada and Bela send each other a sample clip, VP8 and Opus over SRTP, by way of a relay in this process, which is the
network in between. What arrives at Bela's and what Bela sends is written down when it does, cut to its headers, with
made-up addresses (RFC 5737): nothing of pictures, sound or this machine is in the file.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import re
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import avlab
from avlab.network.impairment import Impairment, InTransit

DATA = Path(__file__).parents[1] / "data"
CLIP = DATA / "count.mp4"
TO_BELA = avlab.Network(loss=0.03, burst=2, delay=0.04, jitter=0.008, seed=12)
TO_ADA = avlab.Network(loss=0.01, delay=0.04, jitter=0.004, seed=13)
SECONDS = 10.0
HEADERS = 64
"""Bytes kept of a packet: IP, UDP, RTP and its header extensions."""

ADA, BELA = ("192.0.2.1", 40_002), ("192.0.2.2", 40_004)


class Packet(NamedTuple):
    """A datagram, and when Bela's machine had it."""

    time_ns: int
    data: bytes
    sent: bool


# ---- the two peers, each a process of its own


async def _peer(pipe: Connection, offers: bool) -> None:
    from aiortc import RTCPeerConnection, RTCSessionDescription
    from aiortc.contrib.media import MediaBlackhole, MediaPlayer

    def ask() -> RTCSessionDescription:
        return RTCSessionDescription(*pipe.recv())

    def tell() -> None:
        pipe.send((link.localDescription.sdp, link.localDescription.type))

    loop = asyncio.get_running_loop()
    player, sink, link = MediaPlayer(str(CLIP)), MediaBlackhole(), RTCPeerConnection()
    link.on("track", sink.addTrack)
    if not offers:
        await link.setRemoteDescription(await loop.run_in_executor(None, ask))
    link.addTrack(player.audio)
    link.addTrack(player.video)
    await link.setLocalDescription(await (link.createOffer() if offers else link.createAnswer()))
    tell()
    if offers:
        await link.setRemoteDescription(await loop.run_in_executor(None, ask))
    await sink.start()
    await loop.run_in_executor(None, pipe.recv)  # until it is told that this is enough
    await sink.stop()
    await link.close()


def peer(pipe: Connection, offers: bool) -> None:
    """One side of the call."""
    asyncio.run(_peer(pipe, offers))


# ---- the network in between


def address(description: tuple[str, str]) -> tuple[str, int]:
    """Where a peer listens: the first of its addresses of IPv4."""
    found = re.search(r"^a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host", description[0], re.M)
    if found is None:
        raise SystemExit("a peer has no address of IPv4: give this machine a network device, a dummy will do")
    return found[1], int(found[2])


def by_way_of(description: tuple[str, str], host: str, port: int) -> tuple[str, str]:
    """The description of a peer that is reached at another address."""
    rest = re.sub(r"^a=candidate:.*\r\n", "", description[0], flags=re.M)
    candidate = f"a=candidate:1 1 udp 2130706431 {host} {port} typ host\r\n"
    return re.sub(r"^(m=.*\r\n)", rf"\g<1>{candidate}", rest, flags=re.M), description[1]


def relayed(ada: socket.socket, bela: socket.socket, ends: list[tuple[str, int]], seconds: float) -> Iterator[Packet]:
    """Carry packets for so long after the first of RTP; what Bela's machine sees. `ada` is what Bela talks to."""
    forth, back = Impairment(TO_BELA), Impairment(TO_ADA, direction="up")
    ways = {bela: (forth, ada, ends[1]), ada: (back, bela, ends[0])}
    with selectors.DefaultSelector() as waiting:
        for sock in ways:
            waiting.register(sock, selectors.EVENT_READ)
        until = time.monotonic() + 30
        begun = False
        while (now := time.monotonic()) < until:
            wakes = [at for way, *_ in ways.values() if (at := way.wake_at()) is not None]
            wait = min([until - now, *((at - time.monotonic_ns()) / 1e9 for at in wakes)])
            for key, _ in waiting.select(max(0.0, wait)):
                data, _ = key.fileobj.recvfrom(2_048)  # type: ignore[union-attr]
                way, *_ = ways[key.fileobj]  # type: ignore[index]
                way.push(InTransit("call", len(data), data), time.monotonic_ns())
                if key.fileobj is ada:
                    yield Packet(time.time_ns(), data, True)
                if not begun and data[0] >> 6 == 2:
                    begun, until = True, time.monotonic() + seconds
            for way, out, to in ways.values():
                for each in way.pull(time.monotonic_ns()):
                    if isinstance(each, InTransit):
                        out.sendto(each.item, to)
                        if way is forth:
                            yield Packet(time.time_ns(), each.item, False)


def call(seconds: float) -> list[Packet]:
    """Both peers, connected through the relay."""
    context = multiprocessing.get_context("spawn")
    pipes, peers = [], []
    for offers in (True, False):
        mine, theirs = context.Pipe()
        peers.append(context.Process(target=peer, args=(theirs, offers)))
        peers[-1].start()
        pipes.append(mine)
    offer = pipes[0].recv()
    ends = [address(offer)]
    host = ends[0][0]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ada,  # stands for Ada where Bela is
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bela,
    ):
        for sock in (ada, bela):
            sock.bind((host, 0))
        pipes[1].send(by_way_of(offer, host, ada.getsockname()[1]))
        answer = pipes[1].recv()
        ends.append(address(answer))
        pipes[0].send(by_way_of(answer, host, bela.getsockname()[1]))
        seen = list(relayed(ada, bela, ends, seconds))
    for pipe, process in zip(pipes, peers, strict=True):
        pipe.send("enough")
        process.join(10)
        process.kill()
    return seen


# ---- the file


def checksum(header: bytes) -> int:
    """RFC 1071's, of an even number of bytes."""
    whole = sum(struct.unpack(f"!{len(header) // 2}H", header))
    whole = (whole & 0xFFFF) + (whole >> 16)
    return ~((whole & 0xFFFF) + (whole >> 16)) & 0xFFFF


def record(packet: Packet) -> bytes:
    """A packet as the file has it, with the length that it had."""
    source, target = (BELA, ADA) if packet.sent else (ADA, BELA)
    size = 28 + len(packet.data)
    ends = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    ip = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0x4000, 64, socket.IPPROTO_UDP, 0) + ends
    ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    udp = struct.pack("!HHHH", source[1], target[1], size - 20, 0)
    kept = (ip + udp + packet.data)[:HEADERS]
    seconds, rest = divmod(packet.time_ns, 1_000_000_000)
    return struct.pack("<IIII", seconds, rest, len(kept), size) + kept


def main() -> None:
    """Hold the call, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA / "call.pcap")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    seen = call(options.seconds)
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, 228)  # nanoseconds, LINKTYPE_IPV4
    options.out.write_bytes(head + b"".join(map(record, seen)))
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {len(seen)} packets")


if __name__ == "__main__":
    main()
