"""Where media goes by a description without RTSP: its address and ports, whose packets are meant. Pure.

RFC 4566 (c=, m=), RFC 3605 (rtcp), RFC 5761 (rtcp-mux), RFC 4570 (source-filter), RFC 5576 (ssrc). And how an address
and a port are written on a command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from avlab.wire import sdp
from avlab.wire.urls import ip_address, same_host

PROFILES = ("RTP/AVP", "RTP/AVPF")
"""What RTP that is not encrypted is called in an m= line (RFC 3551, RFC 4585)."""

MOST_SOURCES = 16
"""Addresses of a source filter that are heeded."""


class Destination(NamedTuple):
    """Where one medium goes."""

    host: str
    """An address, perhaps a group's, or a name; 0.0.0.0 or :: where the description names none."""
    port: int
    control_port: int
    """RTCP's; the same as `port` where both are together."""
    sources: tuple[str, ...] = ()
    """The addresses that alone may send it; empty for any."""
    ssrc: int | None = None
    """Its source, where it is told."""

    @property
    def muxed(self) -> bool:
        """Whether RTCP comes to the same port."""
        return self.port == self.control_port


def destination_of(description: sdp.SessionDescription, media: sdp.Media) -> Destination:
    """Where a medium of a description goes."""
    attributes = {name.lower(): value for name, value in reversed(media.attributes)}
    host = media.address or description.address
    control_port = media.port + 1
    if "rtcp" in attributes and (match := re.match(r"[0-9]{1,5}(?![0-9])", attributes["rtcp"], re.ASCII)):
        told = int(match[0])
        control_port = told if 0 < told <= 65_535 else control_port
    if "rtcp-mux" in attributes:
        control_port = media.port
    ssrc = None
    if (match := re.match(r"[0-9]{1,10}(?![0-9])", attributes.get("ssrc", ""), re.ASCII)) is not None:
        ssrc = int(match[0]) if int(match[0]) < 1 << 32 else None
    filters = [value for name, value in (*description.attributes, *media.attributes) if name == "source-filter"]
    sources = tuple(dict.fromkeys(address for value in filters for address in _sources(value, host)))
    return Destination(host, media.port, control_port, sources[:MOST_SOURCES], ssrc)


def _sources(value: str, host: str) -> Iterator[str]:
    """The addresses of "incl IN IP4 232.1.1.1 192.0.2.7", if it is about this destination."""
    words = value.split()
    if len(words) < 5 or words[0].lower() != "incl" or not (words[3] == "*" or same_host(words[3], host)):
        return
    yield from (word for word in words[4:] if ip_address(word) is not None)


def why_not(media: sdp.Media) -> str:
    """Why a medium cannot come without more being settled than its description says; "" where it can."""
    profile = media.protocol.upper()
    if "SAVP" in profile:
        return f"it is encrypted ({media.protocol[:40]}), and nothing here has its keys"
    if profile not in PROFILES:
        return f"it is no RTP over UDP ({media.protocol[:40]})"
    if not media.port:
        return "it has no port, as in the descriptions that an RTSP server gives: play that server's rtsp:// address"
    return ""


def read_destination(text: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT", of IPv6 "[HOST]:PORT". ValueError, with a sentence, for what is none."""
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or port is None or parts.path or parts.query or "@" in text or re.search(r"\s", text.strip()):
        raise ValueError(f"{text!r:.80} is no address and port: write it as 127.0.0.1:5004, [::1]:5004 or NAME:5004")
    if not 0 < port <= 65_528 or port % 2:
        raise ValueError(
            f"the port must be an even one from 2 to 65528, not {port}: RTCP has the one after it, and the next medium "
            "those after that"
        )
    address = ip_address(host)
    if address is not None and (address.is_unspecified or str(address) == "255.255.255.255"):
        raise ValueError(f"{host} is no address of one machine or of a group: name the one that is to get the stream")
    return host, port
