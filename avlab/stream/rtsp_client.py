"""Signalling, the client's side: describe, set up, play, keep alive, tear down. RFC 2326.

The dialogue before PLAY is held in turn, with a time limit on each answer; then the connection goes to the client's
thread, and `feed` reads what is interleaved on it.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from avlab.stream.links import UdpLink
from avlab.wire import rtsp, sdp
from avlab.wire.units import NS, WireError

PLAYABLE = {"video": "JPEG", "audio": "L16"}
_NOUNS = {"video": "picture", "audio": "sound"}
_FAMILIAR = {"MPEG4-GENERIC": "AAC", "MP4A-LATM": "AAC", "MPA": "MPEG audio"}  # what encodings are better known as

Bind = Callable[[str], tuple[UdpLink, UdpLink]]
"""Makes a pair of UDP links for RTP and RTCP on a local address."""


@dataclass(frozen=True, slots=True)
class Granted:
    """How a server sends one stream."""

    media: sdp.Media
    host: str
    links: tuple[UdpLink, UdpLink] | None = None
    server_port: tuple[int, int] | None = None
    channels: tuple[int, int] | None = None
    ssrc: int | None = None
    repair: str | None = None
    rtx_ssrc: int | None = None


class RefusedError(OSError):
    """The server answered with another status than 200."""

    def __init__(self, where: str, method: str, response: rtsp.Response) -> None:
        reason = response.reason or rtsp.STATUS.get(response.status, "no reason given")
        super().__init__(f"the server at {where} refused {method}: {response.status} {reason}")
        self.status = response.status


class Session:
    """A dialogue with one RTSP server.

    ValueError for an address that is none; OSError, with a sentence, when the server cannot be reached, does not
    answer within `timeout` seconds, or refuses.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, repair: str | None = None) -> None:
        if not isinstance(url, str):
            raise TypeError(f"a client plays an address such as rtsp://host:port/path, not {url!r:.60}")
        parts = urlsplit(url)
        try:
            port = parts.port or rtsp.DEFAULT_PORT
        except ValueError:
            port = 0
        if parts.scheme != "rtsp" or not parts.hostname or not port:
            raise ValueError(f"{url!r} is no address to play: write it as rtsp://host:port/path")
        if not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}")
        self.url = url
        self.ssrc = secrets.randbits(32)
        self.description = sdp.SessionDescription()
        self.left_out: tuple[str, ...] = ()
        """A sentence for each kind of medium that is described and cannot be played, while another one can."""
        self._repair = repair
        self._host, self._port, self._timeout = parts.hostname, port, timeout
        self._socket: socket.socket | None = None
        self._receiver = rtsp.Receiver()
        self._early: list[rtsp.Interleaved] = []
        self._cseq = 0
        self._id: str | None = None
        self._base = url
        self._session_timeout = rtsp.DEFAULT_TIMEOUT
        self._methods: set[str] = set()
        self._streams: dict[str, str] = {}  # stream -> its address

    @property
    def where(self) -> str:
        """host:port, for messages."""
        return f"{self._host}:{self._port}"

    @property
    def keep_alive_ns(self) -> int:
        """How often to say that one is still there."""
        return max(NS // 2, self._session_timeout * NS // 2)

    def open(self, over: Mapping[str, str], bind: Bind) -> dict[str, Granted]:
        """Connect, describe and set up every stream that can be played; how each will come.

        `over` maps video and audio to udp or tcp. A server that refuses a mixture is asked again, with UDP for all and
        then with TCP for all.
        """
        plans = [dict(over)] + [dict.fromkeys(over, way) for way in ("udp", "tcp")]
        unique = [plan for at, plan in enumerate(plans) if plan not in plans[:at]]
        for plan in unique:
            self._connect()
            try:
                return self._set_up(plan, bind)
            except RefusedError as error:
                if plan is unique[-1] or error.status not in (455, 459, 461, 500):
                    raise
                self.close()
        raise AssertionError("the last plan returns or raises")

    def play(self) -> rtsp.Response:
        """Ask for the stream from now on."""
        return self._ask("PLAY", self._base, {"Range": "npt=0-"})

    def positions(self, playing: rtsp.Response) -> tuple[int, dict[str, int]]:
        """From PLAY's answer: where it starts, in ns of the clip, and each stream's timestamp there."""
        start_ns, infos = 0, {}
        with contextlib.suppress(WireError):  # a range or an RTP-Info that is not understood is as good as none
            start_ns = sdp.NptRange.parse(playing.headers.get("Range", "npt=0-")).start_ns or 0
        with contextlib.suppress(WireError):
            for info in rtsp.parse_rtp_info(playing.headers.get("RTP-Info", "")):
                url = sdp.resolve_control(self._base, info.url)
                stream = next((s for s, address in self._streams.items() if _same(address, url)), None)
                if stream is not None and info.rtptime is not None:
                    infos[stream] = info.rtptime
        return start_ns, infos

    def detach(self) -> socket.socket:
        """The connection, for another owner."""
        assert self._socket is not None
        connection, self._socket = self._socket, None
        return connection

    def feed(self, data: bytes) -> list[rtsp.Event]:
        """What bytes from the connection hold, after what came during the dialogue."""
        early, self._early = self._early, []
        return [*early, *(self._receiver.feed(data) if data else [])]

    def keep_alive(self) -> bytes:
        """A request that does nothing but say that one is there (RFC 2326 10.8)."""
        method = "GET_PARAMETER" if "GET_PARAMETER" in self._methods else "OPTIONS"
        return self._request(method, self._base).serialize()

    def teardown(self) -> bytes:
        """The request that ends the session."""
        return self._request("TEARDOWN", self._base).serialize()

    def close(self) -> None:
        """Let go of the connection, if it is still here."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._id = None

    def _connect(self) -> None:
        self._receiver, self._early = rtsp.Receiver(), []
        try:
            self._socket = socket.create_connection((self._host, self._port), self._timeout)
        except TimeoutError as error:
            raise TimeoutError(
                f"{self.where} does not answer within {self._timeout:g} s: "
                "check the address, and that no firewall is between"
            ) from error
        except socket.gaierror as error:
            raise OSError(f"the host {self._host!r} is not known: check its spelling, or write its address") from error
        except ConnectionRefusedError as error:
            raise ConnectionRefusedError(
                f"nothing listens at {self.where}: start the server first, or check the port"
            ) from error
        except OSError as error:
            raise OSError(f"{self.where} cannot be reached: {error.strerror or error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _set_up(self, over: Mapping[str, str], bind: Bind) -> dict[str, Granted]:
        self._base = self.url
        options = self._ask("OPTIONS", self.url)
        self._methods = {method.strip().upper() for method in options.headers.get("Public", "").split(",")}
        described = self._ask("DESCRIBE", self.url, {"Accept": "application/sdp"})
        self._base = described.headers.get("Content-Base", described.headers.get("Content-Location", self.url)).strip()
        self.description = sdp.parse(described.body.decode("utf-8", "replace"))
        wanted: dict[str, sdp.Media] = {}
        for media in self.description.media:
            if PLAYABLE.get(media.kind) == media.encoding and media.kind not in wanted:
                wanted[media.kind] = media
        if not wanted:
            offered = ", ".join(m.encoding or f"payload type {m.payload_type}" for m in self.description.media)
            raise ValueError(
                f"the stream at {self.url} carries {offered or 'nothing'}: avlab plays JPEG pictures and L16 sound"
            )
        self.left_out = _left_out(self.description.media, wanted)
        granted = {}
        for at, (stream, media) in enumerate(wanted.items()):
            self._streams[stream] = sdp.resolve_control(self._base, media.control)
            granted[stream] = self._set_up_stream(stream, media, over[stream], 2 * at, bind)
        self._base = sdp.resolve_control(self._base, self.description.control)
        return granted

    def _set_up_stream(self, stream: str, media: sdp.Media, over: str, channel: int, bind: Bind) -> Granted:
        assert self._socket is not None
        host = self._socket.getpeername()[0]
        links = None
        if over == "udp":
            links = bind(self._socket.getsockname()[0])
            wish = rtsp.Transport(lower="UDP", client_port=(links[0].port, links[1].port))
        else:
            wish = rtsp.Transport(lower="TCP", interleaved=(channel, channel + 1))
        repair = self._repair if over == "udp" and self._repair in media.repairs else None
        wishes = {rtsp.REPAIR_HEADER: repair} if repair is not None else {}
        answer = self._ask("SETUP", self._streams[stream], {"Transport": wish.serialize()} | wishes)
        session = rtsp.SessionHeader.parse(answer.headers.get("Session", ""))
        self._id, self._session_timeout = session.id, session.timeout
        given = next(iter(rtsp.parse_transport(answer.headers.get("Transport", ""))), None)
        if given is None or given.lower != wish.lower:
            raise RefusedError(self.where, "SETUP", rtsp.Response(461))
        channels = (given.interleaved or wish.interleaved) if over == "tcp" else None
        ssrc = re.search(r";\s*ssrc=([0-9A-Fa-f]{8})\s*$", answer.headers.get(rtsp.REPAIR_HEADER, ""))
        rtx_ssrc = int(ssrc[1], 16) if ssrc is not None else None
        return Granted(media, given.source or host, links, given.server_port, channels, given.ssrc, repair, rtx_ssrc)

    def _ask(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> rtsp.Response:
        """One request and its answer."""
        assert self._socket is not None
        request = self._request(method, url, headers)
        deadline = time.perf_counter() + self._timeout
        try:
            self._socket.sendall(request.serialize())
            while True:
                self._socket.settimeout(max(0.001, deadline - time.perf_counter()))
                data = self._socket.recv(65_536)
                if not data:
                    raise ConnectionError(f"the server at {self.where} hung up instead of answering {method}")
                response = self._find(self._receiver.feed(data), request.cseq)
                if response is not None:
                    break
        except TimeoutError as error:
            raise TimeoutError(
                f"the server at {self.where} does not answer {method} within {self._timeout:g} s: is it an RTSP server?"
            ) from error
        except WireError as error:
            raise ConnectionError(f"{self.where} is no RTSP server: {error}") from error
        except ConnectionResetError as error:
            raise ConnectionResetError(f"the server at {self.where} broke off instead of answering {method}") from error
        if response.status != 200:
            raise RefusedError(self.where, method, response)
        return response

    def _find(self, events: list[rtsp.Event], cseq: int) -> rtsp.Response | None:
        found = None
        for event in events:
            if isinstance(event, rtsp.Interleaved):
                self._early.append(event)
            elif isinstance(event, rtsp.Response) and event.cseq == cseq:
                found = event
        return found

    def _request(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> rtsp.Request:
        self._cseq += 1
        known = {"CSeq": str(self._cseq), "User-Agent": "avlab"}
        if self._id is not None:
            known["Session"] = self._id
        return rtsp.Request(method, url, rtsp.Headers(known | dict(headers or {})))


def _left_out(media: Iterable[sdp.Media], wanted: Mapping[str, sdp.Media]) -> tuple[str, ...]:
    """What is described and not played, by kind; another track of a kind that is played is no loss."""
    encodings: dict[str, dict[str, None]] = {}
    for each in media:
        if each.kind in PLAYABLE and each.kind not in wanted:
            name = each.encoding or f"payload type {each.payload_type}"
            familiar = _FAMILIAR.get(each.encoding.upper())
            encodings.setdefault(each.kind, {})[f"{name} ({familiar})" if familiar else name] = None
    return tuple(
        f"the {_NOUNS[kind]} of this stream is {' or '.join(names)}, which avlab does not play, so the "
        f"{' and the '.join(_NOUNS[played] for played in wanted)} goes on without it: have the server send "
        f"{PLAYABLE[kind]}"
        for kind, names in encodings.items()
    )


def _same(one: str, other: str) -> bool:
    """Whether two addresses name one track; hosts may be written in two ways, so the ends of their paths decide."""
    return urlsplit(one).path.rstrip("/") == urlsplit(other).path.rstrip("/")
