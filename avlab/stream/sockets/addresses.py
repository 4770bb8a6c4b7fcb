"""The addresses of this machine, for whoever wants to reach a server that listens on all of them.

The standard library lists them nowhere: where the system has getifaddrs(3), it is asked; elsewhere, as on Windows, the
machine's own name is looked up, and routes are asked for the address that they would leave from.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from avlab.stream.sockets.links import sockaddr

EVERY_ADDRESS = {"0.0.0.0": socket.AF_INET, "": socket.AF_INET, "::": socket.AF_INET6}
"""What a server listens on that takes whichever address it is asked at."""

ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses that are nobody's (RFC 5737, RFC 3849): the route to them is the one to everywhere else."""


class OwnAddress(NamedTuple):
    """An address of this machine."""

    host: str
    """As it is written, of a link-local IPv6 one with its interface: `fe80::1%eth0`."""
    kind: str
    """global, which other machines can use; link-local, which those on the same cable can; or loopback."""

    @property
    def in_url(self) -> str:
        """As an address of RTSP has it: IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host


def own_addresses(host: str) -> list[OwnAddress]:
    """Where a server that was told to listen on `host` can be asked: global ones first, IPv4 before IPv6.

    All of the machine's for `0.0.0.0`, and with IPv6 for `::`, which takes both on the systems that let it; else the
    one address alone. Never raises: what cannot be found out is left out.
    """
    family = EVERY_ADDRESS.get(host)
    if family is None:
        with contextlib.suppress(OSError):
            host = _written(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4])
        return [OwnAddress(host, _kind(host))]
    found = {*interface_addresses(), *name_addresses(), *routed_addresses()}
    kept = [OwnAddress(one, _kind(one)) for one in found if family == socket.AF_INET6 or ":" not in one]
    order = ("global", "link-local", "loopback")
    return sorted(kept, key=lambda one: (order.index(one.kind), ":" in one.host, _number(one.host), one.host))


def first_address(host: str) -> str | None:
    """Of several addresses of this machine the one to tell people: where its way to everywhere else begins.

    As an address of RTSP has it; None where there is none that other machines can use.
    """
    known = [own for own in own_addresses(host) if own.kind == "global"]
    routed = set(routed_addresses())
    return next((own.in_url for own in sorted(known, key=lambda own: own.host not in routed)), None)


def ways_in(url: str, host: str) -> list[str]:
    """What to say of a server that was told to listen on `host` and is at `url` for this machine: a line an address.

    Empty for a server at one address, which `url` tells.
    """
    if host not in EVERY_ADDRESS:
        return []
    parts = urlsplit(url)
    lines: list[str] = []
    for own in own_addresses(host):
        there = f"{parts.scheme}://{own.in_url}:{parts.port}{parts.path}"
        if own.kind == "global":
            lines.append(f"from other machines: {there}")
        elif own.kind == "link-local":
            scope = own.host.partition("%")[2]
            mind = f" (for {scope}, put that machine's own interface)" if scope else ""
            lines.append(f"from the same cable or Wi-Fi: {there}{mind}")
    return lines or ["from other machines: not at all, as this one has no address in a network"]


def _number(host: str) -> int:
    return int(ipaddress.ip_address(host.partition("%")[0]))


def _kind(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "global"
    return "loopback" if address.is_loopback else "link-local" if address.is_link_local else "global"


def name_addresses() -> Iterator[str]:
    """What the machine's own name stands for."""
    with contextlib.suppress(OSError):
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
            yield _written(address)


def routed_addresses() -> Iterator[str]:
    """Where the routes to everywhere else begin; nothing is sent."""
    for elsewhere in ELSEWHERE.values():
        if (found := address_towards(elsewhere)) is not None:
            yield found


def address_towards(host: str) -> str | None:
    """The address of this machine where its way to an address, or to a group, begins; None where there is no way.

    Nothing is sent.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(sockaddr((host, 9)))
        return _written(probe.getsockname())
    return None


def _written(address: Any) -> str:
    """The host of a socket's address, with the interface of a link-local one."""
    host = str(address[0])
    if len(address) < 4 or not address[3] or "%" in host:
        return host
    try:
        return f"{host}%{socket.if_indextoname(address[3])}"
    except OSError:
        return f"{host}%{address[3]}"


# ---- getifaddrs(3): Linux and macOS


class _Interface(ctypes.Structure):
    """The first fields of struct ifaddrs, which are the same on Linux and the BSDs."""


_Interface._fields_ = [
    ("next", ctypes.POINTER(_Interface)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]

_UP = 1  # IFF_UP


def interface_addresses() -> list[str]:
    """The addresses of the interfaces that are up; empty where the system cannot be asked so."""
    return [] if sys.platform == "win32" else _of_getifaddrs()


def _of_getifaddrs() -> list[str]:
    try:
        libc = ctypes.CDLL(None)
        first = ctypes.POINTER(_Interface)()
        if libc.getifaddrs(ctypes.byref(first)) != 0:
            return []
    except (OSError, AttributeError):
        return []
    found: list[str] = []
    try:
        at = first
        while at:
            if at.contents.address and at.contents.flags & _UP:
                found += _of_sockaddr(at.contents.address)
            at = at.contents.next
    finally:
        libc.freeifaddrs(first)
    return found


def _of_sockaddr(pointer: int) -> list[str]:
    """A struct sockaddr_in or sockaddr_in6 in words; none for other kinds."""
    head = ctypes.string_at(pointer, 2)
    family = int.from_bytes(head, sys.byteorder) if sys.platform == "linux" else head[1]  # BSD: length, family
    if family == socket.AF_INET:
        return [socket.inet_ntop(socket.AF_INET, ctypes.string_at(pointer + 4, 4))]
    if family != socket.AF_INET6:
        return []
    data = bytearray(ctypes.string_at(pointer + 8, 16))
    scope = int.from_bytes(ctypes.string_at(pointer + 24, 4), sys.byteorder)
    if data[0] == 0xFE and data[1] & 0xC0 == 0x80 and sys.platform != "linux":
        data[2:4] = b"\0\0"  # KAME keeps the interface there as well
    return [_written((socket.inet_ntop(socket.AF_INET6, bytes(data)), 0, 0, scope))]
