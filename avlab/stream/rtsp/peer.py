"""Signalling, the server's side: one `Peer` a connection, who gets which track over which transport. RFC 2326.

Bytes come in and go out through a TcpLink; what a request means for the stream is asked of a `Stage`, the audience.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import unquote

from avlab.media.sources import Source
from avlab.network.parity import ParityEncoder
from avlab.network.retransmission import KEEP_NS, RtxSender
from avlab.stream.sockets.links import Address, TcpLink, UdpLink
from avlab.timing.spreading import Spreader
from avlab.wire import rtcp, rtsp, sdp
from avlab.wire.rtp import JPEG, L16_MONO, L16_STEREO, VIDEO_CLOCK, L16Packetizer, Unwrapper, rtp_timestamp
from avlab.wire.rtpjpeg import Fragments, JpegPacketizer
from avlab.wire.units import NS, Chunk, WireError

SERVER_NAME = "avlab"

MAX_REQUESTS = 64
"""More than these in one turn are no client's: it is parted from, before answering it costs the others their time."""

RTX_TYPE, FEC_TYPE = 98, 99
"""The payload types of packets sent again and of parity."""

REPORT_NS = NS // 2
"""How often reports go either way. RFC 3550 6.2 lets them be 360 / kilobits-a-second seconds apart: 0.2 s at 1800."""

STALL_BYTES = 1 << 20
"""Media for a peer that reads no faster is dropped while this much waits for it; others are not held up."""


@dataclass(slots=True)
class Track:
    """One stream of the clip as every client gets it: timestamps are common, SSRC and sequence numbers not."""

    stream: str  # video or audio
    payload_type: int
    rate: int
    channels: int
    timestamp_offset: int
    media: sdp.Media

    def timestamp(self, pts_ns: int) -> int:
        """The RTP timestamp of a presentation time."""
        return rtp_timestamp(pts_ns, self.rate, self.timestamp_offset)

    def restart(self) -> None:
        """The clip begins again: other timestamps, so that no two frames of a run have the same one."""
        self.timestamp_offset = secrets.randbits(32)


def tracks_of(source: Source) -> dict[str, Track]:
    """What a source has, as it is described and sent: video, audio or both."""
    tracks = {}
    if source.has_video:
        media = sdp.Media(
            kind="video",
            payload_type=JPEG,
            encoding="JPEG",
            clock_rate=VIDEO_CLOCK,
            control="video",
            framerate=float(source.fps) if source.fps else None,
            **sdp.repair_offer(JPEG, VIDEO_CLOCK, rtx=RTX_TYPE, fec=FEC_TYPE, keep_ms=KEEP_NS // 1_000_000),
        )
        tracks["video"] = Track("video", JPEG, VIDEO_CLOCK, 1, secrets.randbits(32), media)
    if source.has_audio:
        rate, channels = source.rate, source.channels
        assert rate is not None
        assert channels is not None
        static = {(44_100, 2): L16_STEREO, (44_100, 1): L16_MONO}
        payload_type = static.get((rate, channels), 97)
        media = sdp.Media(
            kind="audio",
            payload_type=payload_type,
            encoding="L16",
            clock_rate=rate,
            channels=channels,
            control="audio",
        )
        tracks["audio"] = Track("audio", payload_type, rate, channels, secrets.randbits(32), media)
    return tracks


@dataclass(slots=True)
class Outlet:
    """One track on its way to one client."""

    track: Track
    packetizer: JpegPacketizer | L16Packetizer
    channels: tuple[int, int] | None = None  # interleaved: RTP, RTCP
    addresses: tuple[Address, Address] | None = None  # UDP: RTP, RTCP
    links: tuple[UdpLink, UdpLink] | None = None  # which of the server's sockets it leaves from, while it is set up
    url: str = ""  # by which the client has asked for it
    packets: int = 0
    copies: int = 0  # that a network between has made of them
    began_ns: int | None = None  # when the first packet left
    octets: int = 0
    first_sequence: int = 0
    reported_ns: int | None = None  # when the last sender report went out; None: one is owed
    reception: rtcp.ReportBlock | None = None  # what the client last said it received
    doubted: bool = False  # what it said could not be true, and the record says so
    again: RtxSender | None = None  # packets that the client may ask for
    parity: ParityEncoder | None = None
    again_sequence: Unwrapper = field(default_factory=lambda: Unwrapper(16))  # of what is sent again
    spreader: Spreader = field(default_factory=Spreader)
    reported_octets: int = 0  # when the client's last report came, and what had been sent by then
    heard_ns: int | None = None

    @property
    def ssrc(self) -> int:
        """The source that this client knows the track by."""
        return self.packetizer.ssrc

    def report(self, unix_ns: int, media_ns: int) -> rtcp.SenderReport:
        """Both clocks at this moment, and the totals."""
        packets, octets = self.packets & 0xFFFFFFFF, self.octets & 0xFFFFFFFF
        return rtcp.SenderReport(self.ssrc, rtcp.ns_to_ntp(unix_ns), self.track.timestamp(media_ns), packets, octets)

    def pack(self, unit: Fragments | Chunk, pts_ns: int) -> list[bytes]:
        """The client's own packets for a frame cut into fragments, or for a chunk of sound."""
        if isinstance(self.packetizer, JpegPacketizer):
            assert isinstance(unit, Fragments)
            packets = self.packetizer.pack_fragments(unit, pts_ns)
            if self.parity is not None:
                packets += self.parity.protect(packets)
                self.packetizer.sequence = (packets_end(packets) + 1) & 0xFFFF
            return packets
        assert isinstance(unit, Chunk)
        return self.packetizer.pack(unit)


def packets_end(packets: list[bytes]) -> int:
    """The sequence number of the last of some packets."""
    return (packets[-1][2] << 8) | packets[-1][3]


class Stage(Protocol):
    """What a peer asks of the audience that it belongs to."""

    tracks: dict[str, Track]
    session_timeout: float

    def describe(self, host: str) -> str:
        """The session description."""

    def admit(self, peer: Peer) -> None:
        """Let a peer have a session. RtspError when there is no place left."""

    def set_up(self, peer: Peer, outlet: Outlet) -> None:
        """Let a peer have an outlet, and the sockets for it. RtspError when there are none left."""

    def tear_down(self, peer: Peer, outlet: Outlet) -> None:
        """An outlet is used no more."""

    def play(self, peer: Peer, now_ns: int) -> int:
        """Let a peer have the stream from now on; media time at this moment, in ns."""


@dataclass(slots=True, eq=False)
class Peer:
    """A client's connection: its session, its outlets, when it was last heard of."""

    link: TcpLink
    address: Address
    local: Address
    stage: Stage
    heard_ns: int  # when anything complete came: a request, a packet, a report
    scope: tuple[int, ...] = ()  # of a link-local address, as the system has it: flow and interface
    asked_ns: int = 0  # when a request came
    session: str | None = None
    state: rtsp.State = rtsp.State.INIT
    outlets: dict[str, Outlet] = field(default_factory=dict)
    has_played: bool = False
    finished: bool = False  # the clip has ended since PLAY
    gone: bool = False
    reports: deque[bytes] = field(default_factory=deque)  # that there was no time to read yet
    _receiver: rtsp.Receiver = field(default_factory=rtsp.Receiver)

    @property
    def playing(self) -> bool:
        """Whether media goes to it."""
        return self.attentive and not self.finished

    @property
    def attentive(self) -> bool:
        """Whether it has asked to be sent media and not to stop; the clip may have ended."""
        return self.state == rtsp.State.PLAYING and not self.gone

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
                outlet.channels and event.channel in outlet.channels for outlet in self.outlets.values()
            ):
                reports.append(event.data)
        return reports

    def outlet_of(self, ssrc: int) -> Outlet | None:
        """The outlet that the client knows by this source; None when it is none of its own."""
        return next((outlet for outlet in self.outlets.values() if outlet.ssrc == ssrc), None)

    def release(self) -> None:
        """Give up the session and all that it has taken."""
        for outlet in self.outlets.values():
            self.stage.tear_down(self, outlet)
        self.session, self.outlets = None, {}

    def report_due(self, outlet: Outlet, now_ns: int, unix_ns: int, media_ns: int) -> bytes | None:
        """A sender report with both clocks of this moment, before the first packet and every half second after."""
        if outlet.reported_ns is not None and now_ns - outlet.reported_ns < REPORT_NS:
            return None
        outlet.reported_ns = now_ns
        return rtcp.serialize_compound([outlet.report(unix_ns, media_ns), rtcp.Sdes(outlet.ssrc, SERVER_NAME)])

    def goodbye(self, outlet: Outlet, unix_ns: int, media_ns: int) -> bytes:
        """A last report and BYE (RFC 3550 6.6)."""
        report = outlet.report(unix_ns, media_ns)
        return rtcp.serialize_compound([report, rtcp.Sdes(outlet.ssrc, SERVER_NAME), rtcp.Bye((outlet.ssrc,))])

    def end_of_stream(self) -> None:
        """The clip is over; the session stays, for PAUSE or for another PLAY."""
        self.finished = True

    def _answer(self, request: rtsp.Request, now_ns: int) -> rtsp.Response:
        """Carry a request out, or refuse it with the status that RFC 2326 has for it."""
        request = replace(request, uri=rtsp.without_credentials(request.uri))  # addresses are told again
        try:
            request.cseq  # noqa: B018 - raises when there is none
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
            refusal = {405: "Allow", 455: "Allow", 501: "Public"}.get(error.status)
            offered = rtsp.METHODS if error.status == 501 else rtsp.allowed(self.state)
            reason = str(error) if error.status == 503 else ""  # RFC 2326 has no word for what is short
            return _reply(request, error.status, {refusal: ", ".join(offered)} if refusal else {}, reason=reason)
        self.state = state
        if self.session is not None:
            timeout = max(1, int(self.stage.session_timeout))
            headers["Session"] = rtsp.SessionHeader(self.session, timeout).serialize()
        if request.method == "TEARDOWN":
            self.release()
        return _reply(request, 200, headers, body)

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
        return headers, self.stage.describe(self.local[0]).encode()

    def _setup(self, request: rtsp.Request, now_ns: int) -> _Answer:
        stream = _track_of(request.uri, self.stage.tracks)
        track = self.stage.tracks.get(stream)
        if track is None:
            raise rtsp.RtspError(f"There is no track {stream[:40]!r}.", 404)
        # destination= is ignored: media goes only to the address that asked.
        offers = rtsp.transports_offered(request.headers.get("transport", ""))
        outlet = next((o for offer in offers if (o := self._outlet(track, offer)) is not None), None)
        if outlet is None:
            raise rtsp.RtspError("Unicast RTP/AVP over UDP or interleaved is offered.", 461)
        if self.session is None:
            self.stage.admit(self)
        outlet.url = request.uri
        self.stage.set_up(self, outlet)
        if stream in self.outlets:
            self.stage.tear_down(self, self.outlets[stream])
        self.outlets[stream] = outlet
        self.session = self.session or secrets.token_hex(8)
        headers = self._repair(outlet, request.headers.get(rtsp.REPAIR_HEADER, ""))
        if outlet.addresses is None or outlet.links is None:
            granted = rtsp.Transport(lower="TCP", interleaved=outlet.channels, ssrc=outlet.ssrc)
        else:
            client_port = (outlet.addresses[0][1], outlet.addresses[1][1])
            server_port = (outlet.links[0].port, outlet.links[1].port)
            granted = rtsp.Transport(lower="UDP", client_port=client_port, server_port=server_port, ssrc=outlet.ssrc)
        return headers | {"Transport": granted.serialize()}, b""

    def _repair(self, outlet: Outlet, wish: str) -> dict[str, str]:
        """What a client is granted that wants lost packets back. What comes over TCP is not lost."""
        wish = wish.strip().lower()
        if outlet.addresses is None or wish not in outlet.track.media.repairs:
            return {}
        if wish == "fec":
            outlet.parity = ParityEncoder(payload_type=FEC_TYPE)
            return {rtsp.REPAIR_HEADER: wish}
        ssrc = secrets.randbits(32)
        outlet.again = RtxSender(ssrc=ssrc, payload_type=RTX_TYPE, sequence=secrets.randbits(16))
        return {rtsp.REPAIR_HEADER: f"{wish};ssrc={ssrc:08X}"}

    def _play(self, request: rtsp.Request, now_ns: int) -> _Answer:
        joins = not self.playing
        media_ns = self.stage.play(self, now_ns)
        infos = []
        for outlet in self.outlets.values():
            if joins:
                outlet.reported_ns = None
                outlet.packetizer.timestamp_offset = outlet.track.timestamp_offset
            infos.append(rtsp.RtpInfo(outlet.url, outlet.packetizer.sequence, outlet.track.timestamp(media_ns)))
        self.has_played, self.finished = True, False
        # All share the clip: nobody seeks it, and nobody plays it faster (RFC 2326 12.29, 12.34).
        headers = {"Range": sdp.NptRange(media_ns).serialize(), "RTP-Info": rtsp.serialize_rtp_info(infos)}
        return headers | ({"Scale": "1"} if "scale" in request.headers else {}), b""

    def _outlet(self, track: Track, offer: rtsp.Transport) -> Outlet | None:
        if offer.profile != "RTP/AVP" or not offer.unicast or offer.mode not in ("", "PLAY"):
            return None
        common: dict[str, Any] = {
            "payload_type": track.payload_type,
            "ssrc": secrets.randbits(32),
            "sequence": secrets.randbits(16),
            "timestamp_offset": track.timestamp_offset,
        }
        packetizer = (
            JpegPacketizer(**common)
            if track.stream == "video"
            else L16Packetizer(**common, rate=track.rate, channels=track.channels)
        )
        outlet = Outlet(track, packetizer, first_sequence=packetizer.sequence)
        if offer.lower == "TCP":
            taken = {c for o in self.outlets.values() if o.track is not track and o.channels for c in o.channels}
            pair = offer.interleaved or (0, 1)
            if taken & set(pair) or pair[0] == pair[1]:
                free = [c for c in range(0, 254, 2) if not taken & {c, c + 1}]
                pair = (free[0], free[0] + 1)
            outlet.channels = pair
        elif offer.lower == "UDP" and offer.client_port is not None:
            rtp_port, rtcp_port = offer.client_port
            outlet.addresses = self._towards(rtp_port), self._towards(rtcp_port)
        else:
            return None
        return outlet

    def _towards(self, port: int) -> Any:
        """A port of the client's own address; of a link-local one, with the interface that it is at."""
        return (self.address[0], port, *self.scope)


_Answer = tuple[dict[str, str], bytes]


def _track_of(uri: str, tracks: Mapping[str, Track]) -> str:
    """The track that an address names: its last part, before a query or after it, as clients put together the two.

    `rtsp://h/clip?key=1` and `video` make `rtsp://h/clip?key=1/video` for some, `rtsp://h/clip/video?key=1` for others.
    """
    ends = [unquote(part.rstrip("/").rsplit("/", 1)[-1]) for part in (uri, uri.partition("?")[0])]
    return next((end for end in ends if end in tracks), ends[-1])


def _reply(
    request: rtsp.Request, status: int, headers: Mapping[str, str], body: bytes = b"", *, reason: str = ""
) -> rtsp.Response:
    known = {"CSeq": request.headers.get("cseq", "0"), "Server": SERVER_NAME}
    return rtsp.Response(status, reason, rtsp.Headers(known | dict(headers)), body)
