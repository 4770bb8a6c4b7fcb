"""Which addresses of this machine a description means: where to receive what it says, and where to send from.

Never more than it says. What goes to an address is received at that address alone. An address of another machine is
taken for this one seen from elsewhere (a router's, a container's): packets are received at the one address where the
way to it begins. A group is joined where the way to it begins, and on loopback, for senders on this machine.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from avlab.stream.sockets.addresses import EVERY_ADDRESS, address_towards
from avlab.stream.sockets.links import SHORTAGES
from avlab.stream.sockets.multicast import is_any_group
from avlab.stream.sockets.protocols import Datagrams, System
from avlab.wire.destinations import Destination
from avlab.wire.urls import ip_address

LOOKUP_TIMEOUT = 2.0
"""Seconds at most to learn where a name leads."""


class Opened(NamedTuple):
    """The links of one medium."""

    links: tuple[Datagrams, ...]
    """RTP's, and RTCP's where that has a port of its own."""
    where: str
    """host:port that is received at, for sentences."""
    multicast: bool
    words: str = ""
    """What a person should know of it."""


def open_destination(to: Destination, system: System) -> Opened:
    """Receive what goes to a destination. OSError, with a sentence, when it cannot be."""
    host = resolved(to.host, system)
    ports = (to.port,) if to.muxed else (to.port, to.control_port)
    if (address := ip_address(host.partition("%")[0])) is not None and address.is_multicast:
        return _joined(host, ports, to, system)
    words = ""
    try:
        links = _bound(host, ports, system)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        own = address_towards(host)
        if own is None:
            raise OSError(
                errno.EADDRNOTAVAIL,
                f"the description sends to {host}, which is no address of this machine, and no way leads there: have "
                "the stream sent to an address of this machine",
            ) from error
        words = (
            f"the description sends to {host}, which is no address of this machine: what comes to {own} is played, "
            "where the way there begins; if nothing comes, have the stream sent there"
        )
        host, links = own, _bound(own, ports, system)
    if host in EVERY_ADDRESS:
        words = "the description names no address, so packets are taken at every address of this machine"
    return Opened(links, written(host, to.port), multicast=False, words=words)


def _bound(host: str, ports: tuple[int, ...], system: System) -> tuple[Datagrams, ...]:
    links: list[Datagrams] = []
    try:
        for port in ports:  # one by one: those before one that fails are to be closed
            link = system.datagrams(host, port)
            links.append(link)
    except OSError as error:
        for link in links:
            link.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                errno.EADDRINUSE,
                f"port {port} on {host} is in use, and the description has the stream sent there: stop what receives "
                "there, or have it sent to another port",
            ) from error
        raise
    return tuple(links)


def _joined(group: str, ports: tuple[int, ...], to: Destination, system: System) -> Opened:
    if not is_any_group(group):
        raise OSError(
            errno.EADDRNOTAVAIL, f"{group} is a group that routers and hosts speak with: media is sent to others"
        )
    loopback = "::1" if ":" in group else "127.0.0.1"
    hosts = tuple(dict.fromkeys((address_towards(group) or loopback, loopback)))
    links: list[Datagrams] = []
    try:
        for at in ports:  # one by one: those before one that fails are to be closed
            link = system.member_at(group, at, hosts, to.sources)
            links.append(link)
    except OSError as error:
        for link in links:
            link.close()
        if error.errno in SHORTAGES or error.errno == errno.EADDRINUSE:
            raise
        raise OSError(
            error.errno, f"multicast is not to be had at {' or '.join(hosts)}: {error.strerror or error}"
        ) from error
    return Opened(tuple(links), written(group, to.port), multicast=True)


def resolved(host: str, system: System) -> str:
    """The address that a host is, itself where it is one. OSError, with a sentence, for a name that nobody knows."""
    if ip_address(host.partition("%")[0]) is not None:
        return host
    try:
        known = sorted(str(address[0]) for _, address in system.dialler().lookup(host, 9, LOOKUP_TIMEOUT))
        return next((address for address in known if ":" not in address), None) or known[0]
    except (OSError, UnicodeError, ValueError, IndexError) as error:
        raise OSError(f"{host} is no address, and no name that is known here: write an address") from error


def written(host: str, port: int) -> str:
    """host:port, for sentences."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
