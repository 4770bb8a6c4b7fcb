"""Signalling, the server's side: one `Peer` a connection, who gets which track over which transport. RFC 2326.

Bytes come in and go out through a TcpLink; what a request means for the stream is asked of a `Stage`, the audience.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from avlab.media.sources import Source
from avlab.network.parity import ParityEncoder
from avlab.network.retransmission import KEEP_NS, RtxSender
from avlab.stream.links import Address, TcpLink, UdpLink
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
    packets: int = 0
    octets: int = 0
    first_sequence: int = 0
    reported_ns: int | None = None  # when the last sender report went out; None: one is owed
    reception: rtcp.ReportBlock | None = None  # what the client last said it received
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

    def udp(self, stream: str) -> tuple[UdpLink, UdpLink]:
        """The RTP and RTCP sockets of a stream."""

    def play(self, peer: Peer, now_ns: int) -> int:
        """Let a peer have the stream from now on; media time at this moment, in ns."""

    def clip_ns(self) -> int | None:
        """How long the clip is; None when nobody knows, or it plays for ever."""


@dataclass(slots=True)
class Peer:
    """A client's connection: its session, its outlets, when it was last heard of."""

    link: TcpLink
    address: Address
    local: Address
    stage: Stage
    heard_ns: int
    session: str | None = None
    state: rtsp.State = rtsp.State.INIT
    outlets: dict[str, Outlet] = field(default_factory=dict)
    has_played: bool = False
    finished: bool = False  # the clip has ended since PLAY
    gone: bool = False
    _receiver: rtsp.Receiver = field(default_factory=rtsp.Receiver)

    @property
    def playing(self) -> bool:
        """Whether media goes to it."""
        return self.attentive and not self.finished

    @property
    def attentive(self) -> bool:
        """Whether it has asked to be sent media and not to stop; the clip may have ended."""
        return self.state == rtsp.State.PLAYING and not self.gone

    def feed(self, data: bytes, now_ns: int) -> list[tuple[Outlet, bytes]]:
        """Take what came over the connection, answer requests; RTCP that came interleaved is returned.

        WireError when it is not RTSP, OSError when the connection is gone.
        """
        self.heard_ns = now_ns
        reports = []
        events = self._receiver.feed(data)
        if sum(isinstance(event, rtsp.Request) for event in events) > MAX_REQUESTS:
            raise WireError("it asks more at once than a client does")
        for event in events:
            if isinstance(event, rtsp.Request):
                self.link.send(self._answer(event, now_ns).serialize(), now_ns)
            elif isinstance(event, rtsp.Interleaved):
                reports += [
                    (o, event.data) for o in self.outlets.values() if o.channels and event.channel in o.channels
                ]
        return reports

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
            return _reply(request, error.status, {refusal: ", ".join(offered)} if refusal else {})
        self.state = state
        if self.session is not None:
            timeout = max(1, int(self.stage.session_timeout))
            headers["Session"] = rtsp.SessionHeader(self.session, timeout).serialize()
        if request.method == "TEARDOWN":
            self.session, self.outlets = None, {}
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
        stream = request.uri.rstrip("/").rsplit("/", 1)[-1]
        track = self.stage.tracks.get(stream)
        if track is None:
            raise rtsp.RtspError(f"There is no track {stream[:40]!r}.", 404)
        # destination= is ignored: media goes only to the address that asked.
        offers = rtsp.parse_transport(request.headers.get("transport", ""))
        outlet = next((o for offer in offers if (o := self._outlet(track, offer)) is not None), None)
        if outlet is None:
            raise rtsp.RtspError("Unicast over UDP or interleaved is offered.", 461)
        headers = self._repair(outlet, request.headers.get(rtsp.REPAIR_HEADER, ""))
        self.session = self.session or secrets.token_hex(8)
        self.outlets[stream] = outlet
        if outlet.addresses is None:
            granted = rtsp.Transport(lower="TCP", interleaved=outlet.channels, ssrc=outlet.ssrc)
        else:
            links = self.stage.udp(stream)
            client_port = (outlet.addresses[0][1], outlet.addresses[1][1])
            server_port = (links[0].port, links[1].port)
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
        base = request.uri.rstrip("/")
        infos = []
        for stream, outlet in self.outlets.items():
            if joins:
                outlet.reported_ns = None
                outlet.packetizer.timestamp_offset = outlet.track.timestamp_offset
            url = base if base.endswith(f"/{stream}") else f"{base}/{stream}"
            infos.append(rtsp.RtpInfo(url, outlet.packetizer.sequence, outlet.track.timestamp(media_ns)))
        self.has_played, self.finished = True, False
        span = sdp.NptRange(media_ns, self.stage.clip_ns())
        return {"Range": span.serialize(), "RTP-Info": rtsp.serialize_rtp_info(infos)}, b""

    def _outlet(self, track: Track, offer: rtsp.Transport) -> Outlet | None:
        if not offer.unicast or offer.mode not in ("", "PLAY"):
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
        elif offer.client_port is not None:
            rtp_port, rtcp_port = offer.client_port
            outlet.addresses = ((self.address[0], rtp_port), (self.address[0], rtcp_port))
        else:
            return None
        return outlet


_Answer = tuple[dict[str, str], bytes]


def _reply(request: rtsp.Request, status: int, headers: Mapping[str, str], body: bytes = b"") -> rtsp.Response:
    known = {"CSeq": request.headers.get("cseq", "0"), "Server": SERVER_NAME}
    return rtsp.Response(status, "", rtsp.Headers(known | dict(headers)), body)
