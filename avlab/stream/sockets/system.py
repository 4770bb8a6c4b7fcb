"""The system's own sockets, as a driver asks for them."""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Sequence

from avlab.stream.sockets import multicast
from avlab.stream.sockets.dialling import Dialler
from avlab.stream.sockets.links import UdpLink, bind_udp, largest_datagram, listen, udp_pair
from avlab.stream.sockets.protocols import Datagrams, Dialling, Listening


class Sockets:
    """The system itself."""

    def selector(self) -> selectors.BaseSelector:
        """See `System`."""
        return selectors.DefaultSelector()

    def listen(self, host: str, port: int) -> Listening:
        """See `System`."""
        return listen(host, port)

    def udp_pair(self, host: str) -> tuple[Datagrams, Datagrams]:
        """See `System`."""
        return udp_pair(host)

    def datagrams(self, host: str, port: int) -> Datagrams:
        """See `System`."""
        return bind_udp(host, port)

    def speakers(self, host: str) -> tuple[Datagrams, Datagrams]:
        """See `System`."""
        return multicast.speakers(host)

    def member(self, group: str, port: int, host: str) -> Datagrams:
        """See `System`."""
        return multicast.member(group, port, host)

    def member_at(self, group: str, port: int, hosts: Sequence[str], sources: Sequence[str] = ()) -> Datagrams:
        """See `System`."""
        return multicast.member_at(group, port, hosts, sources)

    def free_ports(self, host: str) -> tuple[int, int]:
        """See `System`."""
        return multicast.free_ports(host)

    def largest_datagram(self, host: str, most: int) -> int:
        """See `System`."""
        with contextlib.suppress(OSError):
            link = UdpLink(host)
            try:
                return largest_datagram(link, most)
            finally:
                link.close()
        return most

    def dialler(self) -> Dialling:
        """See `System`."""
        return Dialler()
