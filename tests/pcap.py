"""A capture file of one dialogue as its client saw it, for tshark: no privileges needed, only what went either way."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

CLIENT, SERVER = "10.0.0.2", "10.0.0.1"


@dataclass
class Capture:
    """Packets between a client and a server; times are in nanoseconds, `mine` is whether the client sent them."""

    records: list[tuple[int, bytes]] = field(default_factory=list)
    _next: dict[bool, int] = field(default_factory=lambda: {True: 1, False: 1})

    def udp(self, now_ns: int, data: bytes, *, mine: bool, ports: tuple[int, int]) -> None:
        """One datagram; `ports` are the client's and the server's."""
        source, target = ports if mine else ports[::-1]
        self._ip(now_ns, 17, struct.pack("!HHHH", source, target, 8 + len(data), 0) + data, mine)

    def tcp(self, now_ns: int, data: bytes, *, mine: bool, ports: tuple[int, int]) -> None:
        """A run of bytes of the connection, as segments of at most 1,400."""
        source, target = ports if mine else ports[::-1]
        for at in range(0, len(data), 1400):
            part = data[at : at + 1400]
            numbers = (self._next[mine], self._next[not mine])
            header = struct.pack("!HHIIBBHHH", source, target, *numbers, 5 << 4, 0x18, 65_535, 0, 0)
            self._next[mine] += len(part)
            self._ip(now_ns, 6, header + part, mine)

    def write(self, path: Path) -> None:
        """As a pcap file with nanoseconds and raw IPv4 (LINKTYPE_IPV4)."""
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 228))
            for now_ns, data in self.records:
                seconds, rest = divmod(now_ns, 1_000_000_000)
                file.write(struct.pack("<IIII", seconds, rest, len(data), len(data)) + data)

    def _ip(self, now_ns: int, protocol: int, body: bytes, mine: bool) -> None:
        ends = (CLIENT, SERVER) if mine else (SERVER, CLIENT)
        source, target = (bytes(map(int, end.split("."))) for end in ends)
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0, source, target)
        total = sum(struct.unpack("!10H", header))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        self.records.append((now_ns, header[:10] + struct.pack("!H", checksum) + header[12:] + body))
