"""A capture of what one handle sends and receives: pcapng (draft-ietf-opsawg-pcapng) as Wireshark reads it.

No privileges and no device: `sockets.tapped` tells of what passes, which costs the stream's thread an append; a thread
of its own makes headers and writes, within a bound of bytes. IP, UDP and TCP headers are made here, from the sockets'
own addresses: datagrams as they are on the wire, TCP as a connection that loses nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from avlab.stream.clock import MonotonicClock, WallClock
from avlab.stream.handle import Worker
from avlab.stream.sockets.links import sockaddr
from avlab.wire.batch import Batch
from avlab.wire.credentials import Blanking

WAITING_BYTES = 64 << 20
"""What may wait to be written; of more, the newest is left out, and counted."""

WRITE_SECONDS = 0.25
"""How often what waits is written: what a kill costs."""

SEGMENT = 1_448
"""Bytes of a TCP segment: a stream of bytes has no packets of its own, and Ethernet's are usual."""

MOST_WAITING = 1 << 18
"""Datagrams and runs of bytes that may wait: empty ones have no bytes."""

LINKTYPE_RAW = 101
_SYN, _FIN, _PUSH, _ACK = 2, 1, 8, 16
_SCALED_WINDOW = bytes((2, 4, 5, 0xA8, 1, 3, 3, 14))  # MSS 1448, and a window that is never full, scaled by 2**14
_IN, _OUT = 1, 2  # epb_flags


def check_capture(path: object) -> Path | None:
    """Where a capture goes, None for none. TypeError for what is no path."""
    if path is None or isinstance(path, str | os.PathLike):
        return None if path is None else Path(os.fsdecode(os.fspath(path)))
    raise TypeError(f"capture must be the path of a file, not {path!r:.60}")


class _Datagrams(NamedTuple):
    time_ns: int
    batch: Batch
    source: Any
    target: Any
    direction: int


class _Bytes(NamedTuple):
    time_ns: int
    connection: TcpCapture
    data: bytes
    sent: bool
    flags: int = 0


class Capture:
    """Writes a capture. `udp` and `connection` belong to the thread that owns the links; `run` is the writer's.

    Raises OSError, with a sentence, when `path` cannot be written. `notice` is told once when the disk takes no more,
    and when so much came at once that some was left out. `close` writes what is left.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: MonotonicClock, notice: Callable[[str, str], None]):
        self.path = Path(path)
        self._clock, self._wall, self._notice = clock, WallClock(), notice
        self.file: IO[bytes] | None = _opened(self.path)
        self._waiting: deque[_Datagrams | _Bytes] = deque()
        self._put = self._taken = 0  # bytes, each counted by one thread
        self._left_out = 0
        self._identification = 0
        try:
            self.file.write(_head())
            self.file.flush()
        except OSError as error:
            self.file.close()
            raise _refused(self.path, error) from None

    # ---- from the links' owner

    def udp(self, batch: Batch, source: Any, target: Any, *, sent: bool) -> None:
        """Datagrams that have been sent or received, between two sockets' addresses."""
        if self._room(batch.length):
            self._waiting.append(_Datagrams(self._clock.now_ns(), batch, source, target, _OUT if sent else _IN))

    def connection(self, local: Any, remote: Any, *, opened: bool) -> TcpCapture:
        """A TCP connection that has just been opened, by this side (`opened`) or by the other."""
        made = TcpCapture(self, local, remote)
        for sent, flags in ((opened, _SYN), (not opened, _SYN | _ACK), (opened, _ACK)):
            self.put(made, b"", sent=sent, flags=flags)
        return made

    def put(self, connection: TcpCapture, data: bytes, *, sent: bool, flags: int = 0) -> bool:
        """Bytes that a connection has taken or given; for `TcpCapture`. False when there is no room for them."""
        if not self._room(len(data)):
            return False
        self._waiting.append(_Bytes(self._clock.now_ns(), connection, data, sent, flags))
        return True

    def _room(self, size: int) -> bool:
        if self._put - self._taken + size > WAITING_BYTES or len(self._waiting) >= MOST_WAITING:
            self._left_out += 1
            if self._left_out == 1:
                self._notice("capture", "the disk does not keep up with the capture, so some of it is left out")
            return False
        self._put += size
        return True

    # ---- the writer

    def run(self, worker: Worker) -> None:
        """The writer's thread: until it is told to stop; `close` writes the rest."""
        while not worker.stopping.wait(WRITE_SECONDS):
            self.write()

    def write(self) -> None:
        """Write what waits, and hand it to the system, which keeps it whatever becomes of this process."""
        out = self.file
        if out is None:
            self._waiting.clear()
            return
        try:
            for _ in range(len(self._waiting)):
                for block in self._blocks(self._waiting.popleft()):
                    out.write(block)
            out.flush()
        except OSError as error:
            self.file = None
            reason = error.strerror or str(error)
            self._notice("capture", f"the capture ends here, as {self.path} cannot be written any more ({reason})")
            with contextlib.suppress(OSError):  # it tries to write the rest
                out.close()

    def close(self) -> None:
        """Write what is left, and how much was left out, and close the file. Nothing may be put any more."""
        self.write()
        if self.file is not None:
            now_ns = self._wall.unix_ns(self._clock.now_ns())
            try:
                with self.file as file:
                    file.write(_statistics(now_ns, self._left_out))
            except OSError as error:
                self._notice("capture", f"the end of the capture is missing ({error.strerror or error})")
            self.file = None

    def _blocks(self, item: _Datagrams | _Bytes) -> Iterator[bytes]:
        time_ns = self._wall.unix_ns(item.time_ns)
        if isinstance(item, _Datagrams):
            self._taken += item.batch.length
            ends = _ends(item.source, item.target)
            for data in item.batch.datagrams() or (b"",):
                yield _enhanced(time_ns, self._packet(ends, 17, _udp(ends, data)), item.direction)
            return
        self._taken += len(item.data)
        connection, direction = item.connection, _OUT if item.sent else _IN
        local, remote = connection.local, connection.remote
        ends = _ends(local, remote) if item.sent else _ends(remote, local)
        for segment in connection.segments(item.data, sent=item.sent, flags=item.flags):
            yield _enhanced(time_ns, self._packet(ends, 6, _tcp(ends, segment)), direction)

    def _packet(self, ends: _Ends, protocol: int, segment: bytes) -> bytes:
        """An IP packet; IPv4's are numbered, and not to be cut."""
        if len(ends.hosts) == 32:
            head = struct.pack("!IHBB", 6 << 28, min(len(segment), 65_535), protocol, 64)
            return head + ends.hosts + segment
        self._identification = (self._identification + 1) & 0xFFFF
        fixed = (0x45, 0, min(20 + len(segment), 65_535), self._identification, 0x4000, 64, protocol)
        known = struct.pack("!BBHHHBB", *fixed)
        return known + _checksum(known + ends.hosts).to_bytes(2, "big") + ends.hosts + segment


class TcpCapture:
    """One connection: what `sockets.tapped` tells of it. Sequence numbers begin at 0, as Wireshark shows them."""

    def __init__(self, capture: Capture, local: Any, remote: Any) -> None:
        self.local, self.remote = local, remote
        self._capture = capture
        self._next = {True: 0, False: 0}  # by whether it is sent; these and the blanking are the writer's
        self._blank = {True: Blanking(), False: Blanking()}
        self._ended = {True: False, False: False}

    def sent(self, data: bytes) -> None:
        """Bytes that the system has taken."""
        self._put(data, sent=True)

    def received(self, data: bytes) -> None:
        """Bytes that have come; none at the connection's end."""
        if data:
            self._put(data, sent=False)
        else:
            self._end(sent=False)

    def closed(self) -> None:
        """This side has closed it."""
        self._end(sent=True)

    def _end(self, *, sent: bool) -> None:
        self._put(b"", sent=sent, flags=_FIN | _ACK)
        self._ended[sent] = True

    def _put(self, data: bytes, *, sent: bool, flags: int = 0) -> None:
        if not self._ended[sent] and not self._capture.put(self, data, sent=sent, flags=flags):
            self._ended[sent] = True  # nobody could follow it beyond a hole

    def segments(self, data: bytes, *, sent: bool, flags: int) -> Iterator[_Segment]:
        """What bytes are on the wire; asked in their order, by the writer alone."""
        data = self._blank[sent].blanked(data)
        for at in range(0, len(data) or 1, SEGMENT):
            part = data[at : at + SEGMENT]
            bits = flags or _ACK | (_PUSH if at + SEGMENT >= len(data) else 0)
            yield _Segment(self._next[sent], self._next[not sent] if bits & _ACK else 0, bits, part)
            self._next[sent] = (self._next[sent] + len(part) + bool(bits & (_SYN | _FIN))) & 0xFFFFFFFF


# ---- packets


class _Ends(NamedTuple):
    """From where to where."""

    hosts: bytes  # both addresses
    ports: bytes


class _Segment(NamedTuple):
    sequence: int
    acknowledged: int
    flags: int
    data: bytes


def _udp(ends: _Ends, data: bytes) -> bytes:
    return _summed(ends, 17, ends.ports + min(8 + len(data), 65_535).to_bytes(2, "big"), data)


def _tcp(ends: _Ends, segment: _Segment) -> bytes:
    options = _SCALED_WINDOW if segment.flags & _SYN else b""
    fixed = (segment.sequence, segment.acknowledged, (20 + len(options)) << 2, segment.flags, 65_535)
    return _summed(ends, 6, ends.ports + struct.pack("!IIBBH", *fixed), b"\0\0" + options + segment.data)


def _summed(ends: _Ends, protocol: int, before: bytes, after: bytes) -> bytes:
    """A UDP or TCP segment with its checksum between what is before it and after it."""
    size = len(before) + 2 + len(after)
    pseudo = ends.hosts + struct.pack("!IHBB", size, 0, 0, protocol)  # RFC 8200 8.1; for IPv4 it adds up to the same
    total = _checksum(pseudo + before + b"\0\0" + after) or 0xFFFF  # 0 would say that there is none (RFC 768)
    return before + total.to_bytes(2, "big") + after


def _checksum(data: bytes) -> int:
    """RFC 1071: a sum of 16-bit words with the carries added is a remainder by 2**16 - 1."""
    return 0xFFFF - int.from_bytes(data + b"\0" * (len(data) & 1), "big") % 0xFFFF


@lru_cache(256)
def _ends(source: Any, target: Any) -> _Ends:
    """The addresses of two sockets as packets have them; of one on all addresses, where the way to the other begins."""
    hosts = [_address(source[0]), _address(target[0])]
    for at, other in enumerate((target, source)):
        if not any(hosts[at]):
            hosts[at] = _address(_towards(other[0], len(hosts[at])))
    if len(hosts[0]) != len(hosts[1]):  # one of them mapped, the other not
        hosts = [bytes(10) + b"\xff\xff" + host if len(host) == 4 else host for host in hosts]
    return _Ends(b"".join(hosts), struct.pack("!HH", source[1], target[1]))


def _towards(host: str, size: int) -> str:
    """Where a route begins; nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(sockaddr((host, 9)))
        return str(probe.getsockname()[0])
    return "0.0.0.0" if size == 4 else "::"


def _address(host: str) -> bytes:
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).packed


# ---- blocks


def _head() -> bytes:
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _option(4, b"avlab") + _option(0, b"")
    interface = struct.pack("<HHI", LINKTYPE_RAW, 0, 0) + _option(2, b"avlab") + _option(9, b"\x09") + _option(0, b"")
    return _block(0x0A0D0D0A, section) + _block(1, interface)


def _enhanced(time_ns: int, packet: bytes, direction: int) -> bytes:
    size = len(packet)
    head = struct.pack("<IIIII", 0, time_ns >> 32, time_ns & 0xFFFFFFFF, size, size)
    return _block(6, head + packet + b"\0" * (-size % 4) + _option(2, struct.pack("<I", direction)) + _option(0, b""))


def _statistics(time_ns: int, left_out: int) -> bytes:
    dropped = _option(5, struct.pack("<Q", left_out)) + _option(0, b"")
    return _block(5, struct.pack("<III", 0, time_ns >> 32, time_ns & 0xFFFFFFFF) + dropped)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    size = (len(body) + 12).to_bytes(4, "little")
    return kind.to_bytes(4, "little") + size + body + size


# ---- the file


def _opened(path: Path) -> IO[bytes]:
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is no file" if not path.is_dir() else "it is a folder")
        return path.open("wb", buffering=1 << 20)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            words = f"there is no folder {path.parent} to write the capture in: make it first"
            raise FileNotFoundError(words) from None
        raise _refused(path, error) from None


def _refused(path: Path, error: OSError | ValueError) -> OSError:
    reason = getattr(error, "strerror", None) or str(error)
    return OSError(f"the capture cannot be written to {path} ({reason}): name a place that can be written")
