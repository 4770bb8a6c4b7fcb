"""What a driver asks of the system: connections, datagrams, and who says when something has come. Sockets, or others.

The protocols name what the drivers use of sockets and no more, so that memory can stand for a network where time is a
driver's own.
"""

from __future__ import annotations

import selectors
from collections.abc import Sequence
from typing import Any, Protocol

from avlab.wire.batch import Batch

Address = tuple[str, int]


class Connection(Protocol):
    """A TCP connection, as `socket.socket` is one."""

    def fileno(self) -> int:
        """For selectors."""

    def getpeername(self) -> Any:
        """The other end's address."""

    def getsockname(self) -> Any:
        """This end's."""

    def setblocking(self, flag: bool, /) -> None:
        """Whether calls wait; else they raise BlockingIOError."""

    def settimeout(self, value: float | None, /) -> None:
        """How many seconds calls wait; then they raise TimeoutError."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """OSError for an option that it does not have."""

    def getsockopt(self, level: int, option: int, /) -> int:
        """As `setsockopt`."""

    def send(self, data: bytes | bytearray, /) -> int:
        """How many bytes were taken."""

    def sendall(self, data: bytes, /) -> None:
        """Wait until all are taken."""

    def recv(self, most: int, /) -> bytes:
        """What has come; empty at the end."""

    def shutdown(self, how: int, /) -> None:
        """No more in that direction."""

    def close(self) -> None:
        """Let go of it."""


class Listening(Protocol):
    """What connections come to, as a `socket.socket` that listens is."""

    def fileno(self) -> int:
        """For selectors."""

    def getsockname(self) -> Any:
        """Where it listens."""

    def accept(self) -> tuple[Connection, Any]:
        """A connection, and from where it came; BlockingIOError when there is none."""

    def close(self) -> None:
        """Let go of it."""


class Datagrams(Protocol):
    """What sends and receives datagrams, as `UdpLink` does; its docstrings hold."""

    offload: bool

    @property
    def port(self) -> int:
        """The local port."""

    @property
    def can_segment(self) -> bool:
        """Whether equal packets can be handed over many at a time."""

    def fileno(self) -> int:
        """For selectors."""

    def send(self, packets: list[bytes], to: Address) -> int:
        """Send packets in order; how many were taken."""

    def send_batch(self, batch: Batch, to: Address) -> int:
        """Send a batch in order; how many of its datagrams were taken. What keeps it takes its `kept`."""

    def receive(self, most: int = 64) -> list[tuple[bytes, Address]]:
        """The datagrams that wait, each by itself."""

    def ask_for_ages(self) -> bool:
        """Have `receive_aged` tell how old datagrams are; whether that can be told."""

    def receive_aged(self, most: int = 64) -> list[tuple[bytes, Address, int]]:
        """As `receive`, and how many ns ago each came; 0 where that cannot be told."""

    def receive_batches(self, most: int = 64) -> list[tuple[Batch, Address]]:
        """The datagrams that wait, some of one size in one batch."""

    def dropped(self) -> int:
        """How many there was no room for since the last call."""

    def close(self) -> None:
        """Let go of it."""


class Dialling(Protocol):
    """What reaches a server, as `Dialler` does; its docstrings hold."""

    def connect(self, host: str, port: int, timeout: float) -> Connection:
        """A connection, whose calls wait for up to `timeout` seconds."""

    def lookup(self, host: str, port: int, timeout: float) -> list[tuple[int, Any]]:
        """The host's families and addresses."""

    def cancel(self) -> None:
        """Have the others fail at once, from any thread."""


class System(Protocol):
    """Where links come from. OSError, with a sentence, for what cannot be had."""

    def selector(self) -> selectors.BaseSelector:
        """What says at which links something has come."""

    def listen(self, host: str, port: int) -> Listening:
        """Listen for connections; port 0 is any free one."""

    def udp_pair(self, host: str) -> tuple[Datagrams, Datagrams]:
        """Two on an even port and the next one, for RTP and RTCP."""

    def datagrams(self, host: str, port: int) -> Datagrams:
        """One at a port of an address."""

    def speakers(self, host: str) -> tuple[Datagrams, Datagrams]:
        """Two as `udp_pair` gives, whose datagrams to a group leave at the interface of `host` alone."""

    def member(self, group: str, port: int, host: str) -> Datagrams:
        """One that gets what is sent to a port of a group at the interface of `host`."""

    def member_at(self, group: str, port: int, hosts: Sequence[str], sources: Sequence[str] = ()) -> Datagrams:
        """As `member`, at the interfaces of several addresses; with `sources`, of what those send alone."""

    def free_ports(self, host: str) -> tuple[int, int]:
        """Two neighbouring ports that are nobody's at `host` now."""

    def largest_datagram(self, host: str, most: int) -> int:
        """How many bytes, `most` at most, are sent in one datagram; `most` where it cannot be tried out."""

    def dialler(self) -> Dialling:
        """What opens connections."""
