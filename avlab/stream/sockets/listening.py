"""The listening socket of a server or relay: connections as they come, whatever befalls them or the system meanwhile.

A peer that has gone before it is accepted is no error, and a system that is out of descriptors no reason to spin.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Any, NamedTuple

from avlab.stream.sockets.links import FAULTS, SHORTAGES, Address, TcpLink
from avlab.stream.sockets.protocols import System
from avlab.stream.sockets.system import Sockets
from avlab.wire.units import NS

ACCEPTED_A_TURN = 16
"""Connections taken before whoever is there already has their turn."""

REST_NS = NS // 2
"""How long no connection is taken when the system has nothing left to take one with."""

OUT_OF_DESCRIPTORS = (
    "out of descriptors",
    "this system has no room for another connection, so nobody else is let in until one ends: "
    "end other programs, or raise the limit of open files (ulimit -n)",
)
"""The notice, by name and sentence, that is given when the system is out of descriptors or memory."""


class Arrival(NamedTuple):
    """A connection that has come: from where, and to which address of this machine."""

    link: TcpLink
    address: Address
    local: Address


class Listener:
    """Listens for TCP connections on a port (0: any free one). OSError, in a sentence, when it cannot be had.

    `notice` is told once, by a name and a sentence, when the system is out of descriptors. Then the socket is taken out
    of the selector, which would find it ready again and again, until `resume` is called at `wake_at` or later.
    """

    def __init__(
        self, host: str, port: int, *, notice: Callable[[str, str], None], system: System | None = None
    ) -> None:
        self.socket = (Sockets() if system is None else system).listen(host, port)
        self._notice = notice
        self._told = False
        self._selector: selectors.BaseSelector | None = None
        self._data: Any = None
        self._resume_ns: int | None = None

    @property
    def port(self) -> int:
        """The local port."""
        return int(self.socket.getsockname()[1])

    def fileno(self) -> int:
        """For selectors."""
        return self.socket.fileno()

    def watch(self, selector: selectors.BaseSelector, data: Any) -> None:
        """Have the selector tell of connections that come, with `data`."""
        self._selector, self._data = selector, data
        selector.register(self, selectors.EVENT_READ, data)

    def accept(self, now_ns: int) -> list[Arrival]:
        """The connections that have come since the last call, up to 16. Raises nothing that a peer could cause."""
        out: list[Arrival] = []
        for _ in range(ACCEPTED_A_TURN):
            try:
                connection, address = self.socket.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno in FAULTS:
                    raise
                if error.errno in SHORTAGES:
                    self._rest(now_ns)
                    break
                continue  # it has gone again (ECONNABORTED), or accept(2) on Linux tells of an error on its way here
            try:
                out.append(Arrival(TcpLink(connection), address[:2], connection.getsockname()[:2]))
            except (OSError, TypeError):  # macOS: EINVAL, and no address, for one that has been reset
                connection.close()
        return out

    def wake_at(self) -> int | None:
        """When connections are to be taken again; None while they are."""
        return self._resume_ns

    def resume(self, now_ns: int) -> None:
        """Take connections again, if the moment has come."""
        if self._resume_ns is not None and now_ns >= self._resume_ns:
            self._resume_ns = None
            if self._selector is not None:
                self._selector.register(self, selectors.EVENT_READ, self._data)

    def close(self) -> None:
        """Close the socket. Its selector is to be closed first."""
        self.socket.close()

    def _rest(self, now_ns: int) -> None:
        if self._selector is not None and self._resume_ns is None:
            self._selector.unregister(self)
            self._resume_ns = now_ns + REST_NS
        if not self._told:
            self._told = True
            self._notice(*OUT_OF_DESCRIPTORS)
