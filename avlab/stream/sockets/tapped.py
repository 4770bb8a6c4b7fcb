"""The system's sockets with a tap on them: whoever wants to know is told of all that is sent and received.

What it costs is the owner's time, so a tap is to be quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from avlab.stream.sockets import multicast
from avlab.stream.sockets.dialling import Dialler
from avlab.stream.sockets.links import LinkTap, UdpLink, bind_udp, udp_pair
from avlab.stream.sockets.protocols import Connection, Datagrams, Dialling, Listening
from avlab.stream.sockets.system import Sockets


class TcpTap(Protocol):
    """Who wants to know what passes a connection, in its order."""

    def sent(self, data: bytes) -> None:
        """Bytes that the system has taken."""

    def received(self, data: bytes) -> None:
        """Bytes that have come; none at the connection's end."""

    def closed(self) -> None:
        """This side has closed it."""


class AnyTap(LinkTap, Protocol):
    """Who wants to know what passes any link."""

    def connection(self, local: Any, remote: Any, *, opened: bool) -> TcpTap:
        """A TCP connection that has just been opened, by this side (`opened`) or by the other."""


class TappedSockets(Sockets):
    """The system itself, told of to `tap`, which is to be set before anything is opened; None: to nobody."""

    def __init__(self) -> None:
        self.tap: AnyTap | None = None

    def listen(self, host: str, port: int) -> Listening:
        """See `System`."""
        return _Listening(super().listen(host, port), self)

    def udp_pair(self, host: str) -> tuple[Datagrams, Datagrams]:
        """See `System`."""
        first, second = udp_pair(host)
        return self.tapped(first), self.tapped(second)

    def datagrams(self, host: str, port: int) -> Datagrams:
        """See `System`."""
        return self.tapped(bind_udp(host, port))

    def speakers(self, host: str) -> tuple[Datagrams, Datagrams]:
        """See `System`."""
        first, second = multicast.speakers(host)
        return self.tapped(first), self.tapped(second)

    def member(self, group: str, port: int, host: str) -> Datagrams:
        """See `System`."""
        return self.tapped(multicast.member(group, port, host))

    def member_at(self, group: str, port: int, hosts: Sequence[str], sources: Sequence[str] = ()) -> Datagrams:
        """See `System`."""
        return self.tapped(multicast.member_at(group, port, hosts, sources))

    def tapped(self, link: UdpLink) -> UdpLink:
        """A link, with the tap on it."""
        link.tap = self.tap
        return link

    def dialler(self) -> Dialling:
        """See `System`."""
        return _Dialling(self)

    def connection(self, connection: Connection, *, opened: bool) -> Connection:
        """A connection that has just been opened, with the tap on it."""
        if self.tap is None:
            return connection
        try:
            ends = connection.getsockname()[:2], connection.getpeername()[:2]
        except (OSError, TypeError):  # reset already, and so without an address
            return connection
        return _Connection(connection, self.tap.connection(*ends, opened=opened))


class _Dialling:
    def __init__(self, sockets: TappedSockets) -> None:
        self._sockets, self._dialler = sockets, Dialler()

    def connect(self, host: str, port: int, timeout: float) -> Connection:
        return self._sockets.connection(self._dialler.connect(host, port, timeout), opened=True)

    def lookup(self, host: str, port: int, timeout: float) -> list[tuple[int, Any]]:
        return self._dialler.lookup(host, port, timeout)

    def cancel(self) -> None:
        self._dialler.cancel()


class _Listening:
    def __init__(self, listening: Listening, sockets: TappedSockets) -> None:
        self._listening, self._sockets = listening, sockets
        self.fileno, self.getsockname, self.close = listening.fileno, listening.getsockname, listening.close

    def accept(self) -> tuple[Connection, Any]:
        connection, address = self._listening.accept()
        return self._sockets.connection(connection, opened=False), address


class _Connection:
    """A connection whose bytes are told of."""

    def __init__(self, connection: Connection, tap: TcpTap) -> None:
        self._connection, self._tap = connection, tap
        self.fileno, self.shutdown = connection.fileno, connection.shutdown
        self.getpeername, self.getsockname = connection.getpeername, connection.getsockname
        self.setblocking, self.settimeout = connection.setblocking, connection.settimeout
        self.setsockopt, self.getsockopt = connection.setsockopt, connection.getsockopt

    def send(self, data: bytes | bytearray, /) -> int:
        taken = self._connection.send(data)
        self._tap.sent(bytes(data[:taken]))
        return taken

    def sendall(self, data: bytes, /) -> None:
        self._connection.sendall(data)
        self._tap.sent(data)

    def recv(self, most: int, /) -> bytes:
        data = self._connection.recv(most)
        self._tap.received(data)
        return data

    def close(self) -> None:
        self._tap.closed()
        self._connection.close()
