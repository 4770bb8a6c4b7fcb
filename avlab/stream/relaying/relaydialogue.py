"""An RTSP session that passes through a relay: addresses and ports in its messages are changed on the way. RFC 2326.

Messages in, messages out; which UDP ports stand in for which is asked of whoever owns the sockets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from avlab.wire import rtsp, sdp
from avlab.wire.units import WireError

PortPair = tuple[int, int]

_AUTHORITY = re.compile(r"(rtsp[su]?://)([^/?#\s;,\"]+)", re.IGNORECASE)
"""Where an address says who is meant (RFC 3986 3.2). What stands there is anybody's: it is led elsewhere, not read."""
_REWRITTEN = ("content-base", "content-location", "location", "rtp-info")
MAX_ASKED = 64
"""Requests that wait for an answer; of more than these the oldest are forgotten."""


@dataclass(slots=True)
class RelayTrack:
    """One stream of a session: its UDP ports at both ends and the relay's own between them, or its channels."""

    stream: str
    client_port: PortPair | None = None
    to_client: PortPair | None = None  # the relay's, as the client sees them
    to_server: PortPair | None = None  # the relay's, as the server sees them
    server_port: PortPair | None = None
    channels: tuple[int, int] | None = None


class Dialogue:
    """Rewrites the messages of one connection, and learns from them what goes where.

    `server` is HOST:PORT as the server is to be addressed. `bind` makes the relay's own ports for a track, the pair
    towards the client and the pair towards the server; `changed` is told when a track has been agreed on.
    """

    def __init__(
        self, server: str, *, bind: Callable[[], tuple[PortPair, PortPair]], changed: Callable[[RelayTrack], None]
    ) -> None:
        self.tracks: dict[str, RelayTrack] = {}
        self._server, self._bind, self._changed = server, bind, changed
        self._relay = server  # as the client addresses it
        self._asked: dict[str, tuple[str, RelayTrack | None]] = {}
        self._kinds: list[tuple[str, str]] = []  # each stream of the description: how its address ends, video or audio

    def request(self, message: rtsp.Request) -> rtsp.Request:
        """What the client asks, as the server is to be asked. WireError for a transport that cannot be.

        What has credentials of Digest goes to the address that the client has named: the address is a part of what was
        hashed, and servers compare the two (RFC 7616 3.4.6).
        """
        if asked := _AUTHORITY.match(message.uri):
            self._relay = asked[2].rpartition("@")[2] or self._relay
        headers = list(message.headers.lines())
        track = None
        if message.method == "SETUP":
            track = self._track(message.uri)
            offers = [self._offered(track, offer) for offer in message.headers.get("transport", "").split(",")]
            headers = _with(headers, "transport", ",".join(offers))
        self._asked[message.headers.get("cseq", "")] = message.method, track
        while len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        proves = re.match(r"\s*digest\s", message.headers.get("authorization", ""), re.IGNORECASE)
        uri = rtsp.without_credentials(message.uri) if proves else _to(self._server, message.uri)
        return replace(message, uri=uri, headers=rtsp.Headers(headers))

    def response(self, message: rtsp.Response) -> rtsp.Response:
        """What the server answers, as the client is to be answered."""
        method, track = self._asked.pop(message.headers.get("cseq", ""), ("", None))
        headers = [
            (name, _to(self._relay, value) if name.lower() in _REWRITTEN else value)
            for name, value in message.headers.lines()
        ]
        body = message.body
        if method == "DESCRIBE" and message.status == 200:
            body = self._described(body)
        if track is not None and message.status == 200:
            headers = _with(headers, "transport", self._granted(track, message.headers.get("transport", "")))
            self.tracks[track.stream] = track
            self._changed(track)
        return rtsp.Response(message.status, message.reason, rtsp.Headers(headers), body)

    def stream_of(self, channel: int) -> str | None:
        """The stream whose RTP packets come on a channel of the connection."""
        return next((t.stream for t in self.tracks.values() if t.channels and t.channels[0] == channel), None)

    def _track(self, uri: str) -> RelayTrack:
        """A track by its address: its kind as described, else after how many there are."""
        taken = set(self.tracks)
        for control, kind in self._kinds:
            if uri.rstrip("/").endswith(control):
                return RelayTrack(kind)
        return RelayTrack("audio" if "video" in taken else "video")

    def _described(self, body: bytes) -> bytes:
        text = body.decode("utf-8", "replace")
        try:
            media = sdp.parse(text).media
        except WireError:
            media = ()
        kinds = [(m.control.rstrip("/").rsplit("/", 1)[-1], m.kind) for m in media if m.kind in ("video", "audio")]
        self._kinds = [(control, kind) for control, kind in kinds if control]
        # A description without an absolute address goes through byte by byte.
        return _to(self._relay, text).encode("utf-8", "replace") if b"rtsp" in body.lower() else body

    def _offered(self, track: RelayTrack, offer: str) -> str:
        """One transport as the server is to be offered it: the relay's ports in the place of the client's."""
        parsed = next(iter(rtsp.parse_transport(offer)), None)
        if parsed is None or parsed.client_port is None:
            return offer
        if track.to_server is None:
            track.to_client, track.to_server = self._bind()
        track.client_port = parsed.client_port
        return _parameters(offer, client_port=track.to_server, destination=None)

    def _granted(self, track: RelayTrack, transport: str) -> str:
        """The transport that the server grants, with the ports that the client knows and those it is to send to."""
        given = next(iter(rtsp.parse_transport(transport)), None)
        if given is None or given.lower == "TCP" or track.client_port is None:
            track.channels = given.interleaved or (0, 1) if given is not None else None
            track.client_port = None
            return transport
        track.server_port = given.server_port
        client_port, server_port = track.client_port, track.to_client
        return _parameters(transport, client_port=client_port, server_port=server_port, source=None, destination=None)


def _to(authority: str, text: str) -> str:
    """Every RTSP address in a text, led to another host and port."""
    return _AUTHORITY.sub(lambda found: found[1] + authority, text)


def _with(headers: list[tuple[str, str]], name: str, value: str) -> list[tuple[str, str]]:
    """Headers with another value for one of them, where it is, on one line."""
    at = next((at for at, (key, _) in enumerate(headers) if key.lower() == name), None)
    if at is None:
        return headers
    rest = [each for each in headers[at + 1 :] if each[0].lower() != name]
    return [*headers[:at], (headers[at][0], value), *rest]


def _parameters(transport: str, **values: Any) -> str:
    """A transport with other values for some of its parameters; one that is to have none is taken out."""
    parts = []
    for part in transport.split(";"):
        name = part.partition("=")[0].strip().lower()
        if name not in values:
            parts.append(part)
    given = {name: pair for name, pair in values.items() if pair is not None}
    return ";".join([*parts, *(f"{name}={pair[0]}-{pair[1]}" for name, pair in given.items())])
