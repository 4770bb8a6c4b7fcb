"""UDP sockets for multicast, IPv4's: who speaks to a group at one interface, and who is a member of it there.

On no other interface than that of the address which is given: what is meant for a room does not leave by another way.
"""

from __future__ import annotations

import ipaddress
import socket
import sys

from avlab.stream.sockets.links import UdpLink, udp_pair

TTL = 1
"""Routers pass nothing of it on (RFC 1112 6.1): it is for this network."""

IP_MULTICAST_ALL = 49  # linux/in.h


def is_group(address: str) -> bool:
    """Whether an address is one of IPv4's for groups, and none of those that routers speak with (224.0.0.0/24)."""
    try:
        group = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return group.is_multicast and group not in ipaddress.IPv4Network("224.0.0.0/24")


def speakers(host: str) -> tuple[UdpLink, UdpLink]:
    """Two links on an even port of `host` and the next one, whose datagrams to a group leave at its interface alone.

    OSError when the system has no ports left, or no multicast there.
    """
    pair = udp_pair(host)
    try:
        for link in pair:
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
    # Bound to the group, Linux gives it nothing that is sent to the port and to others; elsewhere that cannot be had.
    link = UdpLink(group if sys.platform.startswith("linux") else "", port, shared=True)
    try:
        membership = socket.inet_aton(group) + socket.inet_aton(host)
        link.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        if sys.platform.startswith("linux"):
            link.socket.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)  # none that others here are members of
    except OSError:
        link.close()
        raise
    return link


def free_ports(host: str) -> tuple[int, int]:
    """An even number and the next one that are no ports of anybody's at `host` now: for a group."""
    first, second = udp_pair(host)
    ports = first.port, second.port
    first.close()
    second.close()
    return ports
