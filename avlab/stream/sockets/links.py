"""Sockets that carry packets: UDP in batches, TCP in a bounded queue, and a way to wake whoever waits for them.

Linux-only speed (UDP segmentation offload both ways, the kernel's count of dropped datagrams) is taken where it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import struct
import sys
import threading
from functools import lru_cache
from itertools import groupby
from typing import Any, Protocol

from avlab.stream.sockets import ages
from avlab.stream.sockets.protocols import Address as Address
from avlab.stream.sockets.protocols import Connection
from avlab.wire.batch import Batch, batches
from avlab.wire.text import TOO_MANY_FILES

BUFFER_BYTES = 4 << 20
"""Asked for in SO_RCVBUF and SO_SNDBUF; what is granted depends on the system."""

UDP_SEGMENT, UDP_GRO, SO_RXQ_OVFL = 103, 104, 40  # linux/udp.h, asm-generic/socket.h
IP_RECVERR, IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
MSG_ERRQUEUE = 0x2000  # linux/socket.h
MAX_BURST = 65_507
MAX_SEGMENTS = 64
"""Bytes and packets of one segmented send: it is a datagram until it is cut, and linux/udp.h has UDP_MAX_SEGMENTS."""

REMEMBERED = 256
"""Destinations that are known to take no segmented send; of more than these the oldest are tried again."""

TRIES = 16
"""How often one call reads on after an error: each tells of something that was sent earlier, and is told once."""

DATAGRAM = 65_536
"""No datagram is larger, nor are those that the system has put together."""

ROOM = 4 * DATAGRAM
"""What is read before it is handed on: a large picture comes in several pieces, and costs less as one."""

REST_S = 200e-6
"""For the rest of a burst whose last piece is as large as one segmented send can be: what comes next is on its way, and
a turn for each piece of a picture would cost as much as the picture."""

MAX_FAILURES = 256
"""Errors in a row, with never a datagram nor an empty queue between them, are no news of the network any more."""

SHORTAGES = frozenset(
    getattr(errno, name) for name in ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "WSAEMFILE") if hasattr(errno, name)
)
"""What the system says when it is out of descriptors or memory: nobody's fault, and it passes."""

FAULTS = frozenset((errno.EBADF, errno.ENOTSOCK, errno.EFAULT))
"""What a socket says only when the program itself is mistaken."""


def sockaddr(address: Address) -> Any:
    """An address as sockets take it: a link-local one of IPv6, as in `fe80::1%eth0`, with its scope as a number."""
    return _scoped(*address[:2]) if "%" in address[0] else address


@lru_cache(64)
def _scoped(host: str, port: int) -> Any:
    return socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]


def host_of(address: Any) -> str:
    """The host of a socket's address, with the scope that a link-local one of IPv6 is nothing without."""
    host = str(address[0])
    scope = address[3] if len(address) == 4 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host


@lru_cache(64)
def _segmented(size: int) -> tuple[int, list[tuple[int, int, bytes]]]:
    """How many packets of a size one segmented send takes, and what the system is told with it."""
    return min(MAX_SEGMENTS, MAX_BURST // size), [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))]


class LinkTap(Protocol):
    """Who wants to know what passes links of datagrams, as a capture does; what it costs is their owner's time."""

    def udp(self, batch: Batch, source: Any, target: Any, *, sent: bool) -> None:
        """Datagrams that have been sent or received, from one socket's address to another's."""


class UdpLink:
    """A UDP socket that sends and receives many packets a call. Non-blocking. A `shared` port may be others', too."""

    def __init__(self, host: str, port: int = 0, *, shared: bool = False) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self.socket.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                _try_option(self.socket, socket.SOL_SOCKET, option, BUFFER_BYTES)
            linux = sys.platform.startswith("linux")
            self.can_segment = linux and _try_option(self.socket, socket.IPPROTO_UDP, UDP_SEGMENT, 0)
            """Whether the system can take equal packets many at a time and cut them up, as far as is known."""
            self.gathers = linux and _try_option(self.socket, socket.IPPROTO_UDP, UDP_GRO, 1)
            """Whether the system hands over equal packets of one sender many at a time."""
            if linux:
                _try_option(self.socket, socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
            if shared:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if sys.platform == "darwin":  # where a group's port is shared by this one
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self.socket.bind(sockaddr((host, port)))
        except BaseException:
            self.socket.close()
            raise
        self.offload = True
        """Whether equal packets are handed over many at a time, for the system to cut up (Linux): less work, but a
        capture on this machine sees them before they are cut."""
        self.tap: LinkTap | None = None
        self._singly: dict[Address, None] = {}  # destinations that are sent each packet by itself, oldest first
        self._failures = 0  # in a row
        self._kernel_dropped = self._told_dropped = 0
        self._told_refusals = self._tells_ages = False
        self._held = memoryview(bytearray(ROOM))  # what has been read and belongs together

    @property
    def port(self) -> int:
        """The local port."""
        return int(self.socket.getsockname()[1])

    def fileno(self) -> int:
        """For selectors."""
        return self.socket.fileno()

    @property
    def _messages(self) -> Any:
        """The socket with sendmsg and recvmsg, which Windows has not and Linux alone is asked for."""
        return self.socket

    def send(self, packets: list[bytes], to: Address) -> int:
        """Send packets in order; how many the system took. The rest is lost, as datagrams are."""
        sent = self._send(packets, to)
        if self.tap is not None:
            for batch in batches(packets[:sent]):
                self.tap.udp(batch, self.socket.getsockname(), to, sent=True)
        return sent

    def _send(self, packets: list[bytes], to: Address) -> int:
        if not self.segments or len(packets) == 1 or to in self._singly:
            return self._send_singly(packets, to)
        sent = 0
        for burst in bursts(packets):
            if len(burst) == 1:
                sent += self._send_singly(burst, to)
                continue
            control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", len(burst[0])))]
            try:
                self._messages.sendmsg(burst, control, 0, sockaddr(to))
                sent += len(burst)
            except BlockingIOError:
                return sent
            except OSError as error:
                if not self._segments_no_more(error, to):
                    sent += self._send_singly(burst, to)  # a refused port: reported once, then it goes on
                    continue
                return sent + self._send_singly(packets[sent:], to)
        return sent

    def send_batch(self, batch: Batch, to: Address) -> int:
        """Send a batch in order; how many of its datagrams the system took. The rest is lost, as datagrams are."""
        sent = self._send_batch(batch, to)
        if self.tap is not None and sent:
            self.tap.udp(batch.part(0, sent).kept(), self.socket.getsockname(), to, sent=True)
        return sent

    def _send_batch(self, batch: Batch, to: Address) -> int:
        size, count = batch.size, batch.total
        if count < 2 or not (self.can_segment and self.offload) or to in self._singly:
            return self._send_singly(batch.datagrams(), to)
        most, control = _segmented(size)
        if most < 2:
            return self._send_singly(batch.datagrams(), to)
        burst: Any = batch.data
        view, sent = burst if count <= most else memoryview(burst), 0
        while sent < count:
            if count > most:
                burst = view[sent * size : (sent + most) * size]
                if len(burst) <= size:
                    return sent + self._send_singly([bytes(burst)], to)
            try:
                self._messages.sendmsg((burst,), control, 0, to if "%" not in to[0] else sockaddr(to))
                if count <= most:
                    return count
                sent = min(count, sent + most)
            except BlockingIOError:
                return sent
            except OSError as error:
                rest = batch.part(sent, count).datagrams()
                if self._segments_no_more(error, to):
                    return sent + self._send_singly(rest, to)
                taken = self._send_singly(rest[:most], to)  # a refused port: reported once, then it goes on
                sent += taken
                if taken < len(rest[:most]):
                    return sent
        return sent

    def _segments_no_more(self, error: OSError, to: Address) -> bool:
        """Whether an error says that equal packets are not to be handed over together: to this destination, or any."""
        if error.errno == errno.EIO:  # net/ipv4/udp.c: this device cannot
            self.can_segment = False
        elif error.errno in (errno.EINVAL, errno.EMSGSIZE):  # a path of small packets, or no port at all
            self._singly[to] = None
            if len(self._singly) > REMEMBERED:
                del self._singly[next(iter(self._singly))]
        else:
            return False
        return True

    @property
    def segments(self) -> bool:
        """Whether equal packets leave many at a time: as `offload` says, where the system can."""
        return self.can_segment and self.offload

    def send_large(self, packet: bytes, to: Address) -> bool:
        """Send one packet of any size; whether the system took it. OSError, EMSGSIZE, when it is too large for it."""
        for _ in range(2):
            try:
                self.socket.sendto(packet, sockaddr(to))
            except BlockingIOError:
                return False
            except OSError as error:  # else the pending error of an earlier packet, as in `send`
                if error.errno == errno.EMSGSIZE:
                    raise
                continue
            if self.tap is not None:
                self.tap.udp(Batch(packet, len(packet)), self.socket.getsockname(), to, sent=True)
            return True
        return False

    def ask_for_refusals(self) -> None:
        """Have `refused` tell of ports that nobody listens at, where the system can."""
        if sys.platform.startswith("linux"):
            six = self.socket.family == socket.AF_INET6
            level, option = (socket.IPPROTO_IPV6, IPV6_RECVERR) if six else (socket.IPPROTO_IP, IP_RECVERR)
            self._told_refusals = _try_option(self.socket, level, option, 1)

    def refused(self) -> list[Address]:
        """To whom something was sent since the last call that was answered by a refusal: nobody listens there.

        A selector finds the link ready until this has been called.
        """
        out: list[Address] = []
        while self._told_refusals and len(out) < 64:
            try:
                _, ancillary, _, address = self._messages.recvmsg(64, 512, MSG_ERRQUEUE)
            except OSError:
                break
            # struct sock_extended_err, linux/errqueue.h: a host that cannot be reached now may be again, a port not.
            reasons = {int.from_bytes(value[:4], sys.byteorder) for _, _, value in ancillary}
            if address and errno.ECONNREFUSED in reasons:
                out.append(address[:2])
        return out

    def receive(self, most: int = 64) -> list[tuple[bytes, Address]]:
        """The datagrams that wait, each by itself; else as `receive_batches`."""
        found = self.receive_batches(most)
        return [(data, address) for batch, address in found for data in batch.datagrams() or (b"",)]

    def receive_batches(self, most: int = 64) -> list[tuple[Batch, Address]]:
        """The datagrams that wait, up to about `most`, in their order: those of one size and sender in one batch.

        Those of a burst that the system hands over in pieces are one call's, as far as they come within `REST_S`.
        An empty datagram is an empty batch. What became of datagrams sent earlier is no error here; OSError for a
        socket that can receive nothing any more.
        """
        out = self._receive_batches(most)
        if self.tap is not None and out:
            here = self.socket.getsockname()
            for batch, address in out:
                self.tap.udp(batch, address, here, sent=False)
        return out

    def _receive_batches(self, most: int) -> list[tuple[Batch, Address]]:
        out = _Gathered()
        held, end, step, source = self._held, 0, 0, None  # the bytes before `end` are datagrams of `step`, from there
        count = tries = octets = 0
        goes_on = ended = (
            False  # whether the last piece was as large as any: there is more of the burst; or was its end
        )
        while not ended and (count < most or (goes_on and octets < ROOM)):
            try:
                if self.gathers:
                    size, ancillary, _, address = self._messages.recvmsg_into([held[end : end + DATAGRAM]], 128)
                else:
                    data, address = self.socket.recvfrom(DATAGRAM)
            except (BlockingIOError, InterruptedError):
                self._failures = 0
                if goes_on and self._rest_comes():
                    continue
                break
            except OSError as error:
                # An ICMP message about something sent earlier: a refused port (on Windows WinError 10054), a host or
                # network that cannot be reached (RFC 1122 4.1.3.3). The next datagram is not harmed.
                tries += 1
                if self._gives_up(error, tries):
                    break
                continue
            self._failures = 0
            if not self.gathers:
                count += 1
                out.add(data, address)
                continue
            each = size
            for level, kind, value in ancillary:
                if level == socket.IPPROTO_UDP and kind == UDP_GRO:
                    each = int.from_bytes(value[:2], sys.byteorder)
                elif level == socket.SOL_SOCKET and kind == SO_RXQ_OVFL:
                    self._kernel_dropped = int.from_bytes(value[:4], sys.byteorder)
            packets = -(-size // each) if size else 1
            count += packets
            octets += size
            goes_on = packets == MAX_SEGMENTS or (packets > 1 and size + each > MAX_BURST)
            ended = packets > 1 and not goes_on  # what comes behind a whole burst is for the next call
            # These go on where those before them ended: all of one size, or one that may be the last.
            joins = end and not end % step and address == source and (each == step or (0 < each == size < step))
            if end and not joins:
                out.add_batch(Batch(bytes(held[:end]), step), source)
                if each < size:
                    held[:size] = held[end : end + size]
            if joins or each < size:
                end, step, source = (end + size, step, source) if joins else (size, each, address)
            else:
                out.add(bytes(held[end : end + size]), address)
                end = 0
            if end > ROOM - DATAGRAM:
                out.add_batch(Batch(bytes(held[:end]), step), source)
                end = 0
        if end:
            out.add_batch(Batch(bytes(held[:end]), step), source)
        return out.batches()

    def _gives_up(self, error: OSError, tries: int) -> bool:
        """Whether to read no more for now, after so many errors of one call. Raises the error of a broken socket."""
        self._failures += 1
        if error.errno in FAULTS or self._failures > MAX_FAILURES:
            raise error
        return tries == TRIES or error.errno in SHORTAGES

    def ask_for_ages(self) -> bool:
        """Have `receive_aged` tell how old datagrams are; whether the system can."""
        self._tells_ages = ages.ask_for_ages(self.socket)
        return self._tells_ages

    def receive_aged(self, most: int = 64) -> list[tuple[bytes, Address, int]]:
        """As `receive`, and how many ns ago each came; 0 where that was not asked for, or is not to be had."""
        if not self._tells_ages:
            return [(data, address, 0) for data, address in self.receive(most)]
        out = ages.receive(self.socket, most, self._gives_up)
        if len(out) < most:
            self._failures = 0
        if self.tap is not None:
            for data, address, _ in out:
                self.tap.udp(Batch(data, len(data)), address, self.socket.getsockname(), sent=False)
        return out

    def _rest_comes(self) -> bool:
        """Whether something comes within `REST_S`: waited for to the microsecond, which epoll does not."""
        try:
            return bool(select.select([self.socket], [], [], REST_S)[0])
        except ValueError:  # a descriptor that `select` does not take, as it is beyond the first 1,024
            return False

    def dropped(self) -> int:
        """How many datagrams the socket had no room for since the last call, where the system tells; else 0."""
        more = (self._kernel_dropped - self._told_dropped) & 0xFFFFFFFF
        self._told_dropped = self._kernel_dropped
        return more

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _send_singly(self, packets: list[bytes], to: Address) -> int:
        for count, packet in enumerate(packets):
            for attempt in (1, 2):
                try:
                    self.socket.sendto(packet, sockaddr(to))
                    break
                except BlockingIOError:
                    return count
                except OSError:  # the pending ICMP error of an earlier packet is reported instead of sending this one
                    if attempt == 2:
                        return count
        return len(packets)


class _Gathered:
    """Datagrams as they are read, put together into batches: whoever takes them is spared an object a packet."""

    def __init__(self) -> None:
        self._out: list[tuple[Batch, Address]] = []
        self._run: list[bytes] = []  # of one size and sender, the last possibly shorter: then nothing follows it
        self._size = 0
        self._from: Any = None

    def add(self, data: bytes, address: Any) -> None:
        """The next datagram."""
        size = len(data)
        if self._run and address == self._from and 0 < size <= self._size == len(self._run[-1]):
            self._run.append(data)
            return
        self._close()
        self._run, self._size, self._from = [data], size, address

    def add_batch(self, batch: Batch, address: Any) -> None:
        """Datagrams that the system has put together."""
        self._close()
        self._out.append((batch, address[:2]))

    def batches(self) -> list[tuple[Batch, Address]]:
        """All of them."""
        self._close()
        return self._out

    def _close(self) -> None:
        if self._run:
            data = self._run[0] if len(self._run) == 1 else b"".join(self._run)
            self._out.append((Batch(data, self._size), self._from[:2]))
            self._run = []


def bursts(packets: list[bytes]) -> list[list[bytes]]:
    """Runs of equal packets, the last of a run possibly shorter: what one segmented send can carry.

    An empty packet is a run of its own: there is nothing to tell it by among others.
    """
    bursts: list[list[bytes]] = []
    for size, run in groupby(packets, key=len):
        most = max(1, min(MAX_SEGMENTS, MAX_BURST // size)) if size else 1
        equal = list(run)
        last = bursts[-1] if bursts else []
        if last and 0 < size < len(last[0]) == len(last[-1]) and len(last) < most:
            last.append(equal.pop(0))
        bursts += [equal[at : at + most] for at in range(0, len(equal), most)]
    return bursts


def bind_udp(host: str, port: int) -> UdpLink:
    """A UDP link on a port; OSError with one sentence when the port is taken or the address is not ours."""
    try:
        return UdpLink(host, port)
    except OSError as error:
        raise _explained(error, host, port) from error


def largest_datagram(link: UdpLink, most: int) -> int:
    """How many bytes, `most` at most, this system lets the link send in one datagram: tried out, to itself."""
    host = link.socket.getsockname()[0]
    with socket.socket(link.socket.family, socket.SOCK_DGRAM) as scratch:
        try:
            scratch.bind((host, 0))
            to = ("::1" if host == "::" else "127.0.0.1" if host == "0.0.0.0" else host, scratch.getsockname()[1])
        except OSError:
            return most
        low, high, size = 0, most, most
        while low < high:
            try:
                link.send_large(bytes(size), to)
                low = size
            except OSError:
                high = size - 1
            size = (low + high + 1) // 2
    return low


def udp_pair(host: str) -> tuple[UdpLink, UdpLink]:
    """Two UDP links on an even port and the next one, for RTP and RTCP (RFC 3550 section 11)."""
    for _ in range(100):
        first = UdpLink(host)
        if first.port % 2 == 0 and first.port < 65_535:
            try:
                return first, UdpLink(host, first.port + 1)
            except OSError as error:
                if error.errno in SHORTAGES:
                    first.close()
                    raise
        first.close()
    raise OSError(errno.EADDRINUSE, f"no two neighbouring UDP ports are free on {host}")


class TcpLink:
    """A TCP connection with a bounded queue of what it has not taken yet. Non-blocking, TCP_NODELAY."""

    def __init__(self, connection: Connection) -> None:
        self.socket = connection
        connection.setblocking(False)
        _try_option(connection, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # macOS: EINVAL once the peer has reset it
        self._waiting = bytearray()
        self.progress_ns: int | None = None  # since when bytes have waited without any of them leaving

    @property
    def waiting(self) -> int:
        """Bytes that the peer has not made room for."""
        return len(self._waiting)

    def fileno(self) -> int:
        """For selectors."""
        return self.socket.fileno()

    def send(self, data: bytes, now_ns: int) -> None:
        """Send what the peer takes, keep the rest for `flush`. The owner bounds `waiting`. OSError when it is gone."""
        if not self._waiting:
            data = data[self._push(data) :]
        if data and not self._waiting:
            self.progress_ns = now_ns
        self._waiting += data

    def flush(self, now_ns: int) -> None:
        """Send what waits, as far as the peer takes it. OSError when it is gone."""
        if self._waiting:
            taken = self._push(self._waiting)
            del self._waiting[:taken]
            self.progress_ns = None if not self._waiting else now_ns if taken else self.progress_ns

    def receive(self, most: int = 262_144) -> bytes | None:
        """Up to `most` bytes that have come; empty when nothing waits, None at the end of the connection."""
        try:
            return self.socket.recv(most) or None
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:  # reset, timed out, or the host cannot be reached any more
            if error.errno in FAULTS:
                raise
            return None

    def close(self) -> None:
        """Close the connection."""
        # What came and was never read would turn the orderly end into a reset, which can overtake the last bytes sent.
        for _ in range(16):
            try:
                if not self.socket.recv(262_144):
                    break
            except OSError:
                break
        self.socket.close()

    def _push(self, data: bytes | bytearray) -> int:
        try:
            return self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; OSError with one sentence when the port is taken or the address is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":  # SO_REUSEADDR there lets two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(sockaddr((host, port)))
        listener.listen(64)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _explained(error, host, port) from error
    return listener


def _explained(error: OSError, host: str, port: int) -> OSError:
    if error.errno == errno.EADDRINUSE:
        return OSError(error.errno, f"port {port} on {host} is in use: stop what listens there, or choose another port")
    if error.errno == errno.EACCES:
        return OSError(error.errno, f"port {port} is reserved by the system: choose one above 1023")
    if error.errno in SHORTAGES:
        return OSError(error.errno, TOO_MANY_FILES)
    return OSError(error.errno, f"{host} is not an address of this machine: try 127.0.0.1, or 0.0.0.0 for all of them")


class Waker:
    """Lets another thread end a `select`: register `fileno()` for reading, call `wake` from anywhere.

    On Linux by an eventfd, which costs half of what a pair of sockets does.
    """

    def __init__(self) -> None:
        self._pending = False  # a wake-up that has not been cleared
        self._closing = threading.Lock()  # a number that was closed may be another file's at once
        self._counter: int | None = None
        self._pair: tuple[socket.socket, ...] = ()
        if sys.platform == "linux":
            self._counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)

    def fileno(self) -> int:
        """For selectors; -1 once it is closed."""
        if self._pair:
            return self._pair[0].fileno()
        return -1 if self._counter is None else self._counter

    def wake(self) -> None:
        """End the wait; cheap, safe from any thread, and harmless after `close`."""
        if self._pending:  # whoever is woken has yet to look at what it was woken for
            return
        self._pending = True
        with self._closing, contextlib.suppress(OSError):
            if self._pair:
                self._pair[1].send(b"\0")
            elif sys.platform == "linux" and self._counter is not None:
                os.eventfd_write(self._counter, 1)

    def clear(self) -> None:
        """Forget wake-ups; before looking at what they were for."""
        with self._closing, contextlib.suppress(OSError):
            if self._pair:
                self._pair[0].recv(4096)
            elif sys.platform == "linux" and self._counter is not None:
                os.eventfd_read(self._counter)
        self._pending = False  # after the bytes are gone: else a wake-up in between would be the last one ever

    def close(self) -> None:
        """Close what it is made of."""
        with self._closing:
            counter, self._counter = self._counter, None
            if counter is not None:
                os.close(counter)
            for end in self._pair:
                end.close()


def interest(selector: selectors.BaseSelector, link: TcpLink) -> None:
    """Watch a TCP link for reading, and for writing only while something waits."""
    events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.waiting else 0)
    if selector.get_key(link).events != events:
        selector.modify(link, events, selector.get_key(link).data)


def _try_option(sock: Connection, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
