"""UDP sockets for multicast: who speaks to a group at one interface, and who is a member of it there.

On no other interface than that of the address which is given: what is meant for a room does not leave by another way.
With IPv6, an address names its interface where it is loopback's or has a scope; else the system chooses.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Sequence

from avlab.stream.sockets.links import UdpLink, udp_pair

TTL = 1
"""Routers pass nothing of it on (RFC 1112 6.1): it is for this network."""

IP_MULTICAST_ALL, IPV6_MULTICAST_ALL = 49, 29  # linux/in.h, linux/in6.h
_ADD_SOURCE = {"darwin": 70, "win32": 15}.get(sys.platform, 39)  # IP_ADD_SOURCE_MEMBERSHIP, which Python has from 3.12


def is_group(address: str) -> bool:
    """Whether an address is one of IPv4's for groups, and none of those that routers speak with (224.0.0.0/24)."""
    try:
        group = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return group.is_multicast and group not in ipaddress.IPv4Network("224.0.0.0/24")


def is_any_group(address: str) -> bool:
    """As `is_group`, of IPv6's as well, but for those that reach no further than one cable (RFC 4291 2.7)."""
    try:
        group = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if group.version == 4:
        return is_group(address)
    return group.is_multicast and group.packed[1] & 15 > 2


def speakers(host: str) -> tuple[UdpLink, UdpLink]:
    """Two links on an even port of `host` and the next one, whose datagrams to a group leave at its interface alone.

    OSError when the system has no ports left, or no multicast there.
    """
    pair = udp_pair(host)
    try:
        for link in pair:
            if ":" in host:
                link.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, _interface(host))
                link.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, TTL)
                link.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
                continue
            link.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host))
            link.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TTL)
            link.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)  # members on this machine, too
    except OSError:
        for link in pair:
            link.close()
        raise
    return pair


def member(group: str, port: int, host: str) -> UdpLink:
    """A link that gets what is sent to a port of a group at the interface of `host`, as others on this machine may.

    OSError when the port is taken by somebody who shares it with nobody, or there is no multicast at that interface.
    """
    return member_at(group, port, (host,))


def member_at(group: str, port: int, hosts: Sequence[str], sources: Sequence[str] = ()) -> UdpLink:
    """As `member`, at the interfaces of several addresses: those that have no multicast do not count while one has.

    With `sources`, addresses of IPv4, the network is asked for what they send alone (RFC 4607), where the system can.
    """
    # Bound to the group, Linux gives it nothing that is sent to the port and to others; elsewhere that cannot be had.
    linux = sys.platform.startswith("linux")
    six = ":" in group
    link = UdpLink(group if linux else "::" if six else "", port, shared=True)
    try:
        why: OSError | None = None
        joined = 0
        for host in hosts:
            try:
                _join(link, group, host, sources)
                joined += 1
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # it is a member there by another of its addresses
                    why = error
        if not joined:
            raise why or OSError(errno.EADDRNOTAVAIL, "there is no interface to be a member of a group at")
        if linux and six:
            with contextlib.suppress(OSError):
                link.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)
        elif linux:
            link.socket.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)  # none that others here are members of
    except OSError:
        link.close()
        raise
    return link


def _join(link: UdpLink, group: str, host: str, sources: Sequence[str]) -> None:
    if ":" in group:
        wanted = socket.inet_pton(socket.AF_INET6, group.partition("%")[0]) + struct.pack("=I", _interface(host))
        link.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, wanted)
        return
    there, at = socket.inet_aton(group), socket.inet_aton(host)
    own = [socket.inet_aton(source) for source in sources if ":" not in source]
    for source in own:
        wanted = there + at + source if sys.platform.startswith("linux") else there + source + at
        link.socket.setsockopt(socket.IPPROTO_IP, _ADD_SOURCE, wanted)
    if not own:
        link.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, there + at)


def _interface(host: str) -> int:
    """The number of an IPv6 address's interface; 0, the system's choice, where the address does not tell."""
    address, _, scope = host.partition("%")
    if scope:
        return int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    return 1 if ipaddress.ip_address(address).is_loopback else 0  # loopback is the first on each of the three systems


def free_ports(host: str) -> tuple[int, int]:
    """An even number and the next one that are no ports of anybody's at `host` now: for a group."""
    first, second = udp_pair(host)
    ports = first.port, second.port
    first.close()
    second.close()
    return ports
