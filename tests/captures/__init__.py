"""Captures, made up byte by byte; beside them one of a video call, made by aiortc and cut to 96 bytes a packet."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

AIORTC = Path(__file__).with_name("aiortc.pcap")
"""Two peers with aiortc 1.16 on one machine, VP8 and PCMU over SRTP both ways, four seconds, by tshark -i any -s 96."""

A, B = "192.0.2.1", "192.0.2.2"
BEGIN_NS = 1_700_000_000_123_456_789

Packet = tuple[int, bytes]
"""A time in nanoseconds since the beginning, and bytes."""


def rtp(
    seq: int, timestamp: int, *, ssrc: int = 0x1234, kind: int = 96, marker: bool = False, size: int = 100
) -> bytes:
    """An RTP packet, whose payload nobody can read."""
    head = struct.pack("!BBHII", 0x80, kind | marker << 7, seq & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
    return head + bytes((seq * 7 + at) & 0xFF for at in range(size))


def udp(data: bytes, *, ends: tuple[str, str] = (A, B), ports: tuple[int, int] = (5004, 5006)) -> bytes:
    """An IP packet of either version."""
    return ip(struct.pack("!HHHH", *ports, 8 + len(data), 0) + data, 17, ends)


def tcp(data: bytes, seq: int, *, ends: tuple[str, str] = (A, B), ports: tuple[int, int] = (554, 40_000)) -> bytes:
    """The same for a TCP segment."""
    return ip(struct.pack("!HHIIBBHHH", *ports, seq & 0xFFFFFFFF, 0, 5 << 4, 0x18, 65_535, 0, 0) + data, 6, ends)


def ip(body: bytes, protocol: int, ends: tuple[str, str]) -> bytes:
    """A packet of the version of its addresses."""
    source, target = (ipaddress.ip_address(end).packed for end in ends)
    if len(source) == 4:
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0) + source + target + body
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + source + target + body


def _ether(packet: bytes) -> bytes:
    return bytes(12) + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "Ethernet": (1, lambda packet: _ether(packet) + bytes(6)),  # with a short frame's padding
    "VLAN in VLAN": (1, lambda packet: bytes(12) + b"\x88\xa8\0\1\x81\0\0\2" + _ether(packet)[12:]),
    "PPPoE": (1, lambda packet: bytes(12) + b"\x88\x64\x11\0\0\1" + struct.pack("!HH", len(packet) + 2, 0x21) + packet),
    "cooked": (113, lambda packet: bytes(14) + _ether(packet)[12:]),
    "cooked 2": (276, lambda packet: _ether(packet)[12:14] + bytes(18) + packet),
    "raw": (101, lambda packet: packet),
    "null": (0, lambda packet: b"\2\0\0\0" + packet),
    "loop": (108, lambda packet: b"\0\0\0\2" + packet),
}
"""How a packet of IP is put onto a link, by LINKTYPE_ number."""


def pcap(
    packets: Iterable[Packet], *, link: int = 101, order: str = "<", nano: bool = True, snap: int = 1 << 18
) -> bytes:
    """A file of the old kind."""
    made = [struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, snap, link)]
    for time_ns, data in packets:
        seconds, rest = divmod(BEGIN_NS + time_ns, 1_000_000_000)
        head = struct.pack(order + "IIII", seconds, rest if nano else rest // 1000, len(data[:snap]), len(data))
        made.append(head + data[:snap])
    return b"".join(made)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A block of the new kind."""
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(link: int, *, order: str = "<", resolution: int = 9) -> bytes:
    """The head of a section with one interface."""
    head = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    interface = struct.pack(order + "HHI", link, 0, 0) + struct.pack(order + "HHBxxx", 9, 1, resolution) + bytes(4)
    return head + block(1, interface, order)


def pcapng(
    packets: Iterable[Packet], *, link: int = 101, order: str = "<", resolution: int = 9, number: int = 0
) -> bytes:
    """A section with its packets."""
    made = [section(link, order=order, resolution=resolution)]
    for time_ns, data in packets:
        now_ns = BEGIN_NS + time_ns
        power = resolution & 0x7F
        ticks = (now_ns << power) // 1_000_000_000 if resolution & 0x80 else now_ns * 10**power // 1_000_000_000
        head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        made.append(block(6, head + data, order))
    return b"".join(made)


def film(seconds: float = 2.0, *, ssrc: int = 0x1234, packets: int = 4, kind: int = 96) -> list[Packet]:
    """Pictures, 25 a second, of so many packets each, a millisecond apart."""
    made, step = [], 1_000_000_000 // 25
    for frame in range(round(seconds * 25)):
        for at in range(packets):
            seq, last = frame * packets + at, at == packets - 1
            packet = rtp(seq, frame * 3600, ssrc=ssrc, marker=last, size=900, kind=kind)
            made.append((frame * step + at * 1_000_000, packet))
    return made


def sound(seconds: float = 2.0, *, ssrc: int = 0x5678, rate: int = 48_000, kind: int = 97) -> list[Packet]:
    """Sound, a packet each 20 ms."""
    count = round(seconds * 50)
    return [(at * 20_000_000, rtp(at, at * rate // 50, ssrc=ssrc, kind=kind, size=120)) for at in range(count)]
