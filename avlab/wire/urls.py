"""RTSP addresses: where to connect to, what a request names, and what of an address nobody else is to see. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

from avlab.wire.rtsp import DEFAULT_PORT

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#]*)(.*)", re.DOTALL)


_TRIED = f" (the address has no port, so {DEFAULT_PORT} was tried, which is RTSP's own; avlab serve has 8554)"


@dataclass(frozen=True, slots=True)
class Place:
    """An rtsp:// address, taken apart; a user and a password that it has are in no part of it."""

    host: str
    """A name or an address as sockets take it; an IPv6 address without brackets and with its scope."""
    port: int
    uri: str
    """The address as requests name it: without user, password and scope, with nothing that would break a line."""
    tried: str = ""
    """For messages, where the address has no port: which was tried instead; else empty."""

    @classmethod
    def parse(cls, url: str) -> Place:
        """Read an address; ValueError, with a sentence that shows no password, for one that is none to play."""
        try:
            parts = urlsplit(url)
            named = parts.port
            port = DEFAULT_PORT if named is None else named
            host = unquote(parts.hostname or "")
        except ValueError:  # brackets or a port that cannot be, characters that look like others
            parts, host, port, named = urlsplit(""), "", 0, None
        if parts.scheme != "rtsp" or not host or not port or re.search(r"[\s\\]", host) or _cut_password(url):
            raise ValueError(f"{redacted(url)!r} is no address to play: write it as rtsp://host:port/path")
        return cls(host, port, request_uri(url), tried="" if named is not None else _TRIED)

    @property
    def where(self) -> str:
        """host:port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def request_uri(url: str) -> str:
    """An address as a request names it: without user and password, and without a scope, which is known to this machine
    alone (RFC 6874 section 4); what a request line has no room for, such as a blank, is escaped.
    """
    match = _AUTHORITY.match(url.strip())
    if match is not None:
        host, bracket, port = match[2].rpartition("@")[2].partition("]")
        host = host.partition("%")[0] if bracket else host
        url = f"{match[1]}{host}{bracket}{port}{match[3]}"
    return re.sub(r"[^!-~]", lambda found: quote(found[0]), url.strip())


def login_of(url: str) -> tuple[str, str] | None:
    """The user and the password that an address has, as they are meant: without percent signs. None without a user."""
    match = _AUTHORITY.match(url.strip())
    if match is None or "@" not in match[2]:
        return None
    user, _, password = match[2].rpartition("@")[0].partition(":")
    return (unquote(user), unquote(password)) if user else None


def redacted(url: str) -> str:
    """A text that may be an address, for messages and records: without anything that may be user and password."""
    match = _AUTHORITY.match(url)
    if match is not None and "@" in match[2]:
        return f"{match[1]}{match[2].rpartition('@')[2]}{match[3]}"
    if match is not None and _cut_password(url):
        return f"{match[1]}{match[3].rpartition('@')[2]}"
    return url


def _cut_password(url: str) -> bool:
    """Whether a slash, a question mark or a # in a password ends the authority before its @: no port is before it."""
    match = _AUTHORITY.match(url)
    return match is not None and "@" in match[3] and bool(re.fullmatch(r"[^@\]]*:(?![0-9]+$).*", match[2], re.DOTALL))


def track_of(url: str) -> str:
    """What of an address tells one track from another: path and query, since hosts may be written in two ways."""
    match = _AUTHORITY.match(url.strip())
    return unquote(match[3] if match is not None else url.strip()).strip("/")


def ip_address(text: str) -> IPAddress | None:
    """The address that a text is, an IPv4 one also when it is written as IPv6; None for a name."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def same_host(one: str, other: str) -> bool:
    """Whether two texts are the same address, however written; a scope counts where both have one."""
    mine, theirs = ip_address(one), ip_address(other)
    if mine is None or theirs is None:
        return one.lower() == other.lower()
    if isinstance(mine, ipaddress.IPv6Address) and isinstance(theirs, ipaddress.IPv6Address):
        scopes = mine.scope_id, theirs.scope_id
        return int(mine) == int(theirs) and (None in scopes or scopes[0] == scopes[1])
    return mine == theirs
