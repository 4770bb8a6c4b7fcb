"""Signalling, the server's side: one `Peer` a connection, who gets which track over which transport. RFC 2326.

Bytes come in and go out through a TcpLink; what a request means for the stream is asked of the audience, a
`PeerAudience`.
"""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import unquote

from avlab.core.sender import Outlet, Sender
from avlab.measure.numbers.attendance import Pulse
from avlab.media.sources import Source
from avlab.network.ownrepair import MOST_OFFERED, Protection, RepairSender
from avlab.network.parity import ParityEncoder
from avlab.network.retransmission import KEEP_NS, RtxSender
from avlab.stream.sockets.links import Address, TcpLink
from avlab.stream.sockets.multicast import TTL
from avlab.stream.sockets.protocols import Datagrams
from avlab.wire import rtsp, sdp
from avlab.wire.admission import FORBIDDEN, Admission
from avlab.wire.payloads.formats import (
    H264Format,
    JpegFormat,
    L16Format,
    OpusFormat,
    SoundFormat,
    VideoFormat,
    fmtp,
)
from avlab.wire.rtp import HEADER_BYTES, PACKET_SIZES, rtp_timestamp
from avlab.wire.units import NS, WireError

SERVER_NAME = rtsp.PRODUCT

MAX_REQUESTS = 64
"""More than these in one turn are no client's: it is parted from, before answering it costs the others their time."""

RTX_TYPE, FEC_TYPE = 98, 99
"""The payload types of packets sent again and of parity."""

OWN_TYPES = range(112, 112 + MOST_OFFERED)
"""Those of repairs of anyone's own."""

PROFILES = (sdp.PLAIN, sdp.FEEDBACK)
"""What SETUP may ask for."""

PLAIN_READERS = ("LIVE555",)
"""What names itself so in its requests passes over each medium whose profile is not RTP/AVP: VLC and openRTSP."""


@dataclass(slots=True)
class Track:
    """One stream of the clip as every client gets it: timestamps are common, SSRC and sequence numbers not."""

    stream: str  # video or audio
    payload_type: int
    rate: int
    channels: int
    timestamp_offset: int
    media: sdp.Media
    protections: Mapping[str, Protection] = field(default_factory=dict)
    """Repairs of anyone's own that are offered, by name."""

    def timestamp(self, pts_ns: int) -> int:
        """The RTP timestamp of a presentation time."""
        return rtp_timestamp(pts_ns, self.rate, self.timestamp_offset)

    def restart(self, chance: random.Random) -> None:
        """The clip begins again: other timestamps, so that no two frames of a run have the same one."""
        self.timestamp_offset = chance.getrandbits(32)
        for protection in self.protections.values():
            protection.restart()


def sound_of(source: Source, codec: str | None) -> SoundFormat | None:
    """What a source's sound is in packets: L16, or Opus where that is its codec; None where it has none."""
    if source.rate is None or source.channels is None:
        return None
    return L16Format(source.rate, source.channels) if codec is None else OpusFormat()


def tracks_of(
    source: Source,
    chance: random.Random,
    *,
    pictures: VideoFormat | None = None,
    further: Mapping[int, VideoFormat] | None = None,
    sound: SoundFormat | None = None,
    protections: Mapping[str, Protection] | None = None,
) -> dict[str, Track]:
    """What a source has, as it is described and sent: video, audio or both; each timestamp's start is drawn.

    `pictures` is what pictures are in packets, RTP/JPEG by default; `further`, by payload type, is what they may come
    to be in mid-stream. `sound` is what sound is in packets (`sound_of`). `protections` are repairs of anyone's own,
    offered for the pictures.
    """
    tracks = {}
    if source.has_video:
        form = JpegFormat() if pictures is None else pictures
        kind, clock = form.payload_type, form.clock_rate
        protections = {} if protections is None else protections
        own = dict(zip(protections, OWN_TYPES, strict=False))
        offer = sdp.repair_offer(kind, clock, rtx=RTX_TYPE, fec=FEC_TYPE, keep_ms=KEEP_NS // 1_000_000, own=own)
        offer["attributes"] += fmtp(kind, form)
        if isinstance(form, H264Format):
            offer["attributes"] += (("rtcp-fb", f"{kind} nack pli"),)
        for number, other in (further or {}).items():
            offer["others"] += ((number, sdp.Format(other.encoding, other.clock_rate)),)
            offer["attributes"] += fmtp(number, other)
        offer["attributes"] += sdp.TIMES_ASKED
        media = sdp.Media(
            kind="video",
            payload_type=kind,
            encoding=form.encoding,
            clock_rate=clock,
            control="video",
            framerate=float(source.fps) if source.fps else None,
            **offer,
        )
        tracks["video"] = Track("video", kind, clock, 1, chance.getrandbits(32), media, protections=protections)
    if sound is not None:
        kind, clock, channels = sound.payload_type, sound.clock_rate, sound.channels
        media = sdp.Media(
            kind="audio",
            payload_type=kind,
            encoding=sound.encoding,
            clock_rate=clock,
            channels=channels,
            control="audio",
            attributes=fmtp(kind, sound) + sdp.TIMES_ASKED,
        )
        tracks["audio"] = Track("audio", kind, clock, channels, chance.getrandbits(32), media)
    return tracks


@dataclass(slots=True)
class Route:
    """How one track gets to one client: what its outlet (`core.sender`) has to say goes this way."""

    track: Track
    ssrc: int
    channels: tuple[int, int] | None = None  # interleaved: RTP, RTCP
    addresses: tuple[Address, Address] | None = None  # UDP: RTP, RTCP
    links: tuple[Datagrams, Datagrams] | None = None  # which of the server's sockets it leaves from, while it is set up
    url: str = ""  # by which the client has asked for it
    profile: str = sdp.PLAIN  # RTP/AVP or RTP/AVPF, as it was asked for
    packet_size: int | None = None  # bytes of its packets at the most, where it has asked for a size


@dataclass(slots=True)
class GroupRoute(Route):
    """How one track gets to a group of clients by multicast, told to each of them: it is set up for all at once."""

    addresses: tuple[Address, Address] = field(kw_only=True)
    links: tuple[Datagrams, Datagrams] = field(kw_only=True)
    shared: Outlet = field(kw_only=True)
    """What the whole group gets of the track, from one sender."""


class Recipient(Protocol):
    """Whom packets are sent to: a client, or a group of them."""

    address: Address
    sender: Sender
    routes: dict[str, Route]
    gone: bool
    reports: deque[tuple[bytes, int]]

    @property
    def waiting(self) -> int:
        """Bytes that it has not made room for on its connection."""

    def interleave(self, data: bytes, now_ns: int) -> None:
        """Send packets over its connection. OSError when it is gone."""


class PeerAudience(Protocol):
    """What a peer asks of the audience that it belongs to."""

    tracks: dict[str, Track]
    session_timeout: float
    chance: random.Random
    """What draws SSRCs and first numbers, which nobody is to guess (RFC 3550 5.1, 8.1)."""

    def describe(self, host: str, tell: Callable[[str, sdp.Media], sdp.Media]) -> str:
        """The session description; `tell` makes of each track's what one client is told of it."""

    def admit(self, peer: Peer) -> None:
        """Let a peer have a session. RtspError when there is no place left."""

    def set_up(self, peer: Peer, route: Route) -> None:
        """Let a peer have a route, and the sockets for it. RtspError when there are none left."""

    def tear_down(self, peer: Peer, route: Route) -> None:
        """A route is used no more."""

    def group_route(self, peer: Peer, track: Track) -> GroupRoute | None:
        """How a track comes by multicast at the address that a peer has asked; None where it does not."""

    def play(self, peer: Peer, now_ns: int) -> int:
        """Let a peer have the stream from now on; media time at this moment, in ns."""

    def turned_away(self, peer: Peer, words: str) -> None:
        """A peer has made a wrong guess at how to join, or is heard no more for having made too many."""


@dataclass(slots=True, eq=False)
class Peer:
    """A client's connection: its session, its routes, when it was last heard of. What it is sent is its `sender`'s."""

    link: TcpLink
    address: Address
    local: Address
    stage: PeerAudience
    heard_ns: int  # when anything complete came: a request, a packet, a report
    sender: Sender
    scope: tuple[int, ...] = ()  # of a link-local address, as the system has it: flow and interface
    asked_ns: int = 0  # when a request came
    number: int = 0  # of its session, from 1
    joined_ns: int = 0  # when it was let in
    pulse: Pulse = field(default_factory=Pulse)
    session: str | None = None
    state: rtsp.State = rtsp.State.INIT
    routes: dict[str, Route] = field(default_factory=dict)
    has_played: bool = False
    gone: bool = False
    reports: deque[tuple[bytes, int]] = field(default_factory=deque)  # not read yet, and when they came
    admission: Admission | None = None  # who may join, where not everybody may
    proved: bool = False  # it has shown that it may
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of streams that it may ask for: the sources that were described, of media and of what is sent again."""
    _receiver: rtsp.MessageReader = field(default_factory=rtsp.MessageReader)

    @property
    def playing(self) -> bool:
        """Whether media goes to it."""
        return self.sender.playing and not self.gone

    @property
    def waiting(self) -> int:
        """See `Recipient`."""
        return self.link.waiting

    def interleave(self, data: bytes, now_ns: int) -> None:
        """See `Recipient`."""
        self.link.send(data, now_ns)

    def feed(self, data: bytes, now_ns: int) -> list[bytes]:
        """Take what came over the connection, answer requests; RTCP that came interleaved is returned.

        WireError when it is not RTSP, OSError when the connection is gone.
        """
        reports = []
        events = self._receiver.feed(data)
        if sum(isinstance(event, rtsp.Request) for event in events) > MAX_REQUESTS:
            raise WireError("it asks more at once than a client does")
        for event in events:
            self.heard_ns = now_ns  # bytes that complete nothing are no sign of life
            if isinstance(event, rtsp.Request):
                self.asked_ns = now_ns
                self.link.send(self._answer(event, now_ns).serialize(), now_ns)
            elif isinstance(event, rtsp.Interleaved) and any(
                route.channels and event.channel in route.channels for route in self.routes.values()
            ):
                reports.append(event.data)
        return reports

    def release(self) -> None:
        """Give up the session and all that it has taken."""
        self.sender.pause()
        for stream, route in self.routes.items():
            self.stage.tear_down(self, route)
            self.sender.remove(stream)
        self.session, self.routes = None, {}

    def _answer(self, request: rtsp.Request, now_ns: int) -> rtsp.Response:
        """Carry a request out, or refuse it with the status that RFC 2326 has for it."""
        request = replace(request, uri=rtsp.without_credentials(request.uri))  # addresses are told again
        try:
            request.cseq  # noqa: B018 - raises when there is none
            if (refusal := self._turned_away(request, now_ns)) is not None:
                return refusal
            state = rtsp.next_state(self.state, request.method)
            named = request.headers.get("session")
            if named is not None and rtsp.SessionHeader.parse(named).id != self.session:
                raise rtsp.RtspError("The session is not known.", 454)
            handler = {
                "OPTIONS": self._options,
                "DESCRIBE": self._describe,
                "SETUP": self._setup,
                "PLAY": self._play,
            }.get(request.method, self._acknowledge)
            headers, body = handler(request, now_ns)
        except rtsp.RtspError as error:
            lists = {405: "Allow", 455: "Allow", 501: "Public"}.get(error.status)
            offered = rtsp.METHODS if error.status == 501 else rtsp.allowed(self.state)
            reason = str(error) if error.status == 503 else ""  # RFC 2326 has no word for what is short
            return _reply(request, error.status, [(lists, ", ".join(offered))] if lists else [], reason=reason)
        self.state = state
        if self.session is not None:
            timeout = max(1, int(self.stage.session_timeout))
            headers["Session"] = rtsp.SessionHeader(self.session, timeout).serialize()
        if request.method == "TEARDOWN":
            self.release()
        elif request.method == "PAUSE":
            self.sender.pause()
        return _reply(request, 200, headers.items(), body)

    def _turned_away(self, request: rtsp.Request, now_ns: int) -> rtsp.Response | None:
        """How to refuse who has not shown with this very request that it may join; what is offered anybody may ask."""
        if self.admission is None or request.method == "OPTIONS":
            return None
        told = request.headers.get("authorization")
        refusal = self.admission.check(
            request.method, request.uri, told, host=self.address[0], now_ns=now_ns, proved=self.proved
        )
        if refusal is None:
            self.proved = True
            return None
        if refusal.wrong or refusal.status == FORBIDDEN:
            self.stage.turned_away(self, refusal.reason or "a wrong user name, password or class code")
        challenges = [("WWW-Authenticate", value) for value in refusal.challenges]
        return _reply(request, refusal.status, challenges, reason=refusal.reason)

    def _options(self, request: rtsp.Request, now_ns: int) -> _Answer:
        return {"Public": ", ".join(rtsp.METHODS)}, b""

    def _acknowledge(self, request: rtsp.Request, now_ns: int) -> _Answer:
        if request.method == "GET_PARAMETER" and request.body.strip():
            raise rtsp.RtspError("There are no parameters to get.", 451)
        return {}, b""

    def _describe(self, request: rtsp.Request, now_ns: int) -> _Answer:
        accept = request.headers.get("accept", "application/sdp")
        if "application/sdp" not in accept and "*/*" not in accept:
            raise rtsp.RtspError("Only application/sdp is offered.", 406)
        base = request.uri.rstrip("/") + "/"
        headers = {"Content-Base": base, "Content-Type": "application/sdp"}
        agent = request.headers.get("user-agent", "").upper()
        tell = _told_plainly if any(name in agent for name in PLAIN_READERS) else self._told
        return headers, self.stage.describe(self.local[0], tell).encode()

    def _told(self, stream: str, media: sdp.Media) -> sdp.Media:
        """A track as this client is told of it. What is sent again has a source of its own, which is drawn with the
        track's: SETUP's answer has room for one.
        """
        if "rtx" not in media.repairs:
            return media
        chance = self.stage.chance
        ssrc, rtx_ssrc = self.sources.setdefault(stream, (chance.getrandbits(32), chance.getrandbits(32)))
        return sdp.with_feedback(media, ssrc=ssrc, rtx_ssrc=rtx_ssrc, cname=SERVER_NAME)

    def _setup(self, request: rtsp.Request, now_ns: int) -> _Answer:
        stream = _track_of(request.uri, self.stage.tracks)
        track = self.stage.tracks.get(stream)
        if track is None:
            raise rtsp.RtspError(f"There is no track {stream[:40]!r}.", 404)
        # destination= is ignored: media goes only to the address that asked.
        offers = rtsp.transports_offered(request.headers.get("transport", ""))
        route = next((found for offer in offers if (found := self._route(track, offer)) is not None), None)
        if route is None:
            raise rtsp.RtspError("RTP/AVP or RTP/AVPF over UDP or interleaved is offered.", 461)
        if self.session is None:
            self.stage.admit(self)
        route.url = request.uri
        route.packet_size = asked_size(request)
        again_ssrc = self.stage.chance.getrandbits(32)
        group = isinstance(route, GroupRoute)
        if stream in self.sources and not group:
            route.ssrc, again_ssrc = self.sources[stream]
        self.stage.set_up(self, route)
        if not group:
            self.sources.pop(stream, None)  # set up once more, it is another source (RFC 3550 8.1)
        if stream in self.routes:
            self.stage.tear_down(self, self.routes[stream])
        self.routes[stream] = route
        self.session = self.session or secrets.token_hex(8)
        if isinstance(route, GroupRoute):
            self.sender.remove(stream)
            return {"Transport": _of_group(route).serialize()}, b""
        outlet = outlet_of(route, sequence=self.stage.chance.getrandbits(16))
        self.sender.add(outlet)
        feedback = "rtx" if route.profile == sdp.FEEDBACK else ""  # it alone says that lost packets are wanted
        wish = request.headers.get(rtsp.REPAIR_HEADER, feedback)
        headers = _grant_repair(outlet, route, wish, self.stage.chance, again_ssrc)
        granted = rtsp.Transport(profile=route.profile, ssrc=route.ssrc)
        if route.addresses is None or route.links is None:
            granted = replace(granted, lower="TCP", interleaved=route.channels)
        else:
            client_port = (route.addresses[0][1], route.addresses[1][1])
            server_port = (route.links[0].port, route.links[1].port)
            granted = replace(granted, lower="UDP", client_port=client_port, server_port=server_port)
        return headers | {"Transport": granted.serialize()}, b""

    def _play(self, request: rtsp.Request, now_ns: int) -> _Answer:
        joins = not self.playing
        if (size := asked_size(request)) is not None:
            for route in self.routes.values():
                route.packet_size = size
        media_ns = self.stage.play(self, now_ns)
        if joins:
            for stream, outlet in self.sender.outlets.items():
                outlet.timestamp_offset = self.routes[stream].track.timestamp_offset
        self.sender.play(now_ns, media_ns)
        outlets = [
            (route, route.shared if isinstance(route, GroupRoute) else self.sender.outlets[stream])
            for stream, route in self.routes.items()
        ]
        infos = [rtsp.RtpInfo(route.url, outlet.next_sequence, outlet.timestamp(media_ns)) for route, outlet in outlets]
        self.has_played = True
        # All share the clip: nobody seeks it, and nobody plays it faster (RFC 2326 12.29, 12.34).
        headers = {"Range": sdp.NptRange(media_ns).serialize(), "RTP-Info": rtsp.serialize_rtp_info(infos)}
        return headers | ({"Scale": "1"} if "scale" in request.headers else {}), b""

    def _route(self, track: Track, offer: rtsp.Transport) -> Route | None:
        if offer.profile not in PROFILES or offer.mode not in ("", "PLAY"):
            return None
        if not offer.unicast:
            group = self.stage.group_route(self, track) if offer.lower == "UDP" else None
            return None if group is None else replace(group, profile=offer.profile)
        route = Route(track, self.stage.chance.getrandbits(32), profile=offer.profile)
        if offer.lower == "TCP":
            taken = {c for other in self.routes.values() if other.track is not track for c in other.channels or ()}
            pair = offer.interleaved or (0, 1)
            if taken & set(pair) or pair[0] == pair[1]:
                free = [c for c in range(0, 254, 2) if not taken & {c, c + 1}]
                pair = (free[0], free[0] + 1)
            route.channels = pair
        elif offer.lower == "UDP" and offer.client_port is not None and all(offer.client_port):
            rtp_port, rtcp_port = offer.client_port
            route.addresses = self._towards(rtp_port), self._towards(rtcp_port)
        else:
            return None
        return route

    def _towards(self, port: int) -> Any:
        """A port of the client's own address; of a link-local one, with the interface that it is at."""
        return (self.address[0], port, *self.scope)


_Answer = tuple[dict[str, str], bytes]


def _told_plainly(stream: str, media: sdp.Media) -> sdp.Media:
    return sdp.without_feedback(media)


def asked_size(request: rtsp.Request) -> int | None:
    """Bytes that a packet may have, if the client asks for a size; what is less than the least is that."""
    block = rtsp.parse_blocksize(request.headers["blocksize"]) if "blocksize" in request.headers else None
    return None if block is None else max(PACKET_SIZES[0], block + HEADER_BYTES)


def outlet_of(route: Route, *, sequence: int) -> Outlet:
    """What a client gets of a track, numbered from `sequence`: a marker begins sound, UDP is what a burst overruns."""
    track = route.track
    video = track.stream == "video"
    return Outlet(
        track.stream,
        rate=track.rate,
        ssrc=route.ssrc,
        sequence=sequence,
        timestamp_offset=track.timestamp_offset,
        marks_first=not video,
        spreads=video and route.addresses is not None,
        interval_ns=round(NS / track.media.framerate) if video and track.media.framerate else None,
    )


def _of_group(route: GroupRoute) -> rtsp.Transport:
    """How a client is told of its group (RFC 2326 12.39); reports may go there, or to the server's own port."""
    (group, rtp_port), (_, rtcp_port) = route.addresses
    return rtsp.Transport(
        profile=route.profile,
        unicast=False,
        destination=group,
        port=(rtp_port, rtcp_port),
        ttl=TTL,
        server_port=(route.links[0].port, route.links[1].port),
        ssrc=route.ssrc,
    )


def _grant_repair(outlet: Outlet, route: Route, wish: str, chance: random.Random, again_ssrc: int) -> dict[str, str]:
    """What a client is granted that wants lost packets back, `again_ssrc` being the source of those that are sent
    again. What comes over TCP is not lost.
    """
    media, granted = route.track.media, []
    for name in rtsp.repair_wishes(wish) if route.addresses is not None else ():
        ssrc, sequence = chance.getrandbits(32), chance.getrandbits(16)
        if name == "fec" and name in media.repairs:
            outlet.parity = ParityEncoder(payload_type=FEC_TYPE)
            granted.append(name)
        elif name == "rtx" and name in media.repairs and outlet.again is None:
            outlet.again = RtxSender(ssrc=again_ssrc, payload_type=RTX_TYPE, sequence=sequence)
            granted.append(f"{name};ssrc={again_ssrc:08X}")
        elif (protection := route.track.protections.get(name)) is not None and outlet.own is None:
            kind = media.repairs[name]
            outlet.own = RepairSender(protection, ssrc=ssrc, payload_type=kind, sequence=sequence)
            granted.append(f"{name};ssrc={ssrc:08X}")
    return {rtsp.REPAIR_HEADER: ", ".join(granted)} if granted else {}


def _track_of(uri: str, tracks: Mapping[str, Track]) -> str:
    """The track that an address names: its last part, before a query or after it, as clients put together the two.

    `rtsp://h/clip?key=1` and `video` make `rtsp://h/clip?key=1/video` for some, `rtsp://h/clip/video?key=1` for others.
    """
    ends = [unquote(part.rstrip("/").rsplit("/", 1)[-1]) for part in (uri, uri.partition("?")[0])]
    return next((end for end in ends if end in tracks), ends[-1])


def _reply(
    request: rtsp.Request, status: int, headers: Iterable[tuple[str, str]], body: bytes = b"", *, reason: str = ""
) -> rtsp.Response:
    known = [("CSeq", request.headers.get("cseq", "0")), ("Server", SERVER_NAME)]
    return rtsp.Response(status, reason, rtsp.Headers([*known, *headers]), body)
