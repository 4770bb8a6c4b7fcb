"""The audience that came by RTSP: connections and RTP sockets, and what each of them is sent when.

What one connection may ask, and which tracks it has over which transport, is in `rtsp_server`; how packets leave, in
`dispatch`. All of it belongs to the server's thread.
"""

from __future__ import annotations

import secrets
import selectors
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from avlab.measure.trace import Recorder
from avlab.media.sources import Source
from avlab.network.settings import Network
from avlab.stream.adapting import Delivery, Heard
from avlab.stream.clock import MonotonicClock, WallClock
from avlab.stream.dispatch import Dispatch
from avlab.stream.ends import Part
from avlab.stream.links import UdpLink, interest, udp_pair
from avlab.stream.listening import Arrival, Listener
from avlab.stream.rtsp_server import REPORT_NS, STALL_BYTES, Outlet, Peer, tracks_of
from avlab.timing.spreading import Burst
from avlab.wire import rtcp, sdp
from avlab.wire.rtp import HEADER_BYTES, RtpPacket
from avlab.wire.rtpjpeg import Fragments, fragments
from avlab.wire.units import NS, Chunk, EncodedFrame, WireError

MAX_PEERS = 256

TURN_BYTES = 16_384
"""Read of one client before the others, and what is due, have their turn: some 10 ms of answers at the very most."""

REPORT_BYTES = 1_500
"""No report is longer: a receiver's fits into its own network's largest packet (RFC 3550 6.1), and a NACK's 256 fields
take 1,040. A datagram full of NACKs would hold up the frames that are due by 30 ms."""

REPORTS_A_TURN = 16
"""Read of one socket before the others: some 10 ms of NACKs at the very most."""

MAX_DRAIN_NS = 2 * NS
"""At the end, what is under way in the network has so long to arrive, at the most."""


class RtspAudience:
    """An `ends.Audience`, and the `rtsp_server.Stage` of its peers: JPEG and L16 over RTP, as each asked for it."""

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        host: str,
        port: int,
        loop: bool,
        session_timeout: float,
        clock: MonotonicClock,
        recorder: Recorder,
        delivery: Delivery,
        play: Callable[[int], int],
        notice: Callable[[str, str], None],
    ) -> None:
        self._source, self._name, self._loop = source, name, loop
        self._host, self._port = host, port
        self.session_timeout = session_timeout
        self._clock, self._wall, self._recorder = clock, WallClock(), recorder
        self._delivery = delivery
        self._start, self._notice = play, notice
        self._frame_ns = NS // 30  # from one frame to the next, where the source does not say
        self._frame_pts_ns: int | None = None
        self._start_ns: int | None = None  # when media time 0 was; None while nobody plays
        self._session_id = secrets.randbits(32)
        self.tracks = tracks_of(source)
        self.peers: list[Peer] = []
        self._udp: dict[str, tuple[UdpLink, UdpLink]] = {}
        self._dispatch = Dispatch(self._udp, recorder)
        self._listener: Listener | None = None

    # ---- what it says of itself

    @property
    def network(self) -> Network:
        """The network that all packets are sent through; to be set from any thread."""
        return self._dispatch.network

    @network.setter
    def network(self, value: Network) -> None:
        self._dispatch.network = value

    @property
    def url(self) -> str:
        """Where clients find it, once it is open."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"rtsp://{f'[{host}]' if ':' in host else host}:{self._port}/{quote(self._name)}"

    @property
    def clients(self) -> int:
        """How many have a session."""
        return sum(peer.session is not None and not peer.gone for peer in list(self.peers))

    @property
    def occupied(self) -> bool:
        """Whether anybody who has asked for the running clip is still there."""
        return any(peer.has_played and peer.session for peer in self.peers)

    @property
    def ssrcs(self) -> set[int]:
        """The sources that clients know its tracks by."""
        return {outlet.ssrc for peer in list(self.peers) for outlet in list(peer.outlets.values())}

    # ---- for the peers: rtsp_server.Stage

    def describe(self, host: str) -> str:
        """The session description (RFC 4566, RFC 2326 appendix C)."""
        description = sdp.SessionDescription(
            name=self._name,
            session_id=self._session_id,
            origin=host,
            address="::" if ":" in host else "0.0.0.0",
            range=sdp.NptRange(0, self.clip_ns()),
            media=tuple(track.media for track in self.tracks.values()),
            attributes=(("tool", "avlab"),),
        )
        return sdp.serialize(description)

    def udp(self, stream: str) -> tuple[UdpLink, UdpLink]:
        """The RTP and RTCP sockets of a stream."""
        return self._udp[stream]

    def play(self, peer: Peer, now_ns: int) -> int:
        """Let a peer have the stream from now on; the media time of now."""
        self._dispatch.join(peer)
        media_ns = self._start(now_ns)
        self._start_ns = now_ns - media_ns
        return media_ns

    def clip_ns(self) -> int | None:
        """The clip's length; None when it is unknown or the clip loops."""
        return None if self._loop else self._source.duration_ns

    # ---- sockets

    def open(self, selector: selectors.BaseSelector) -> None:
        """Listen; OSError when the port is taken."""
        self._selector = selector
        self._listener = Listener(self._host, self._port, notice=self._notice)
        self._port = self._listener.port
        self._listener.watch(selector, "listener")
        for stream in self.tracks:
            self._udp[stream] = udp_pair(self._host)
            for link in self._udp[stream]:  # a client may send to either: to open a firewall, or reports
                selector.register(link, selectors.EVENT_READ, (stream, link))

    def close(self) -> None:
        """Close every socket."""
        for peer in self.peers:
            peer.link.close()
        for pair in self._udp.values():
            for link in pair:
                link.close()
        if self._listener is not None:
            self._listener.close()

    def drain(self) -> None:
        """Let the last bytes leave, for up to half a second."""
        network, now_ns = self.network, self._clock.now_ns()
        slow_ns = round((network.delay + 5 * network.jitter + network.queue * bool(network.rate)) * NS)
        until_ns = now_ns + NS // 2 + min(slow_ns, MAX_DRAIN_NS)
        while now_ns < until_ns:
            self._dispatch.deliver(now_ns)
            waiting = [peer for peer in self.peers if peer.link.waiting]
            if not waiting and self._dispatch.wake_at() is None:
                break
            for peer in waiting:
                try:
                    peer.link.flush(self._clock.now_ns())
                except OSError:
                    self._part(peer)
            self._clock.sleep_until(self._clock.now_ns() + 2_000_000)
            now_ns = self._clock.now_ns()
        self._dispatch.close()

    # ---- clients

    def attend(self, what: Any, link: Any, now_ns: int) -> None:
        """A socket is ready: somebody connects, asks, or reports."""
        if what == "listener":
            for arrival in link.accept(now_ns):
                self._admit(arrival, now_ns)
        elif isinstance(what, Peer):
            self._hear(what, now_ns)
        else:
            for data, address in link.receive(REPORTS_A_TURN):
                self._take_report(data, address[0], now_ns)

    def wake_at(self) -> int | None:
        """When to look after the peers again, to send more of a frame, or when the network lets go of something."""
        moments = [self._clock.now_ns() + NS // 4 if self.peers else None, self._dispatch.wake_at()]
        moments.append(self._listener.wake_at() if self._listener is not None else None)
        moments += [outlet.spreader.wake_at() for peer in self.peers for outlet in peer.outlets.values()]
        return min((moment for moment in moments if moment is not None), default=None)

    def look_after(self, now_ns: int) -> None:
        """Hand over what the network lets go of, and see to the peers."""
        if self._listener is not None:
            self._listener.resume(now_ns)
        self._dispatch.deliver(now_ns)
        self._see_to_peers(now_ns)

    def _see_to_peers(self, now_ns: int) -> None:
        """Part from clients that are gone, have said nothing within the session time-out, or take nothing."""
        limit_ns = round(self.session_timeout * NS)
        for peer in list(self.peers):
            stalled = peer.link.progress_ns is not None and now_ns - peer.link.progress_ns > limit_ns
            if now_ns - peer.heard_ns > limit_ns or stalled:
                self._recorder.event(now_ns, "client timed out", peer.address[0])
                peer.gone = True
            if peer.gone:
                self._part(peer)
            elif peer.link.waiting:
                interest(self._selector, peer.link)
            for outlet in peer.outlets.values() if not peer.gone else ():
                if packets := outlet.spreader.pull(now_ns):
                    self._dispatch.send(peer, outlet, packets, now_ns)

    def rewind(self) -> None:
        """The clip starts again at the next PLAY; timestamps will be others."""
        self._start_ns = self._frame_pts_ns = None
        for track in self.tracks.values():
            track.restart()
        for peer in self.peers:
            peer.has_played = False
        if not self.occupied and not any(peer.session for peer in self.peers):
            self._dispatch.begin_again()

    def _admit(self, arrival: Arrival, now_ns: int) -> None:
        if len(self.peers) >= MAX_PEERS:
            arrival.link.close()
            return
        peer = Peer(arrival.link, arrival.address, arrival.local, self, now_ns)
        self.peers.append(peer)
        self._selector.register(arrival.link, selectors.EVENT_READ, peer)

    def _hear(self, peer: Peer, now_ns: int) -> None:
        try:
            peer.link.flush(now_ns)
            data = peer.link.receive(TURN_BYTES)
            if data is None:
                self._part(peer)
                return
            for outlet, report in peer.feed(data, now_ns) if data else []:
                self._take_report(report, peer.address[0], now_ns, outlet)
            if peer.link.waiting > 2 * STALL_BYTES:  # media stops at half of it: these are answers
                raise WireError("it asks and does not read the answers")
            interest(self._selector, peer.link)
        except (WireError, OSError) as error:
            self._recorder.event(now_ns, "client refused", f"{peer.address[0]}: {error}")
            self._part(peer)

    def _take_report(self, data: bytes, host: str, now_ns: int, interleaved: Outlet | None = None) -> None:
        """A receiver report keeps its session alive and says what was received; a NACK what is to be sent again.

        Only a client's own address is listened to: what comes from elsewhere is not even read.
        """
        if len(data) > REPORT_BYTES or not any(peer.address[0] == host for peer in self.peers):
            return
        try:
            packets = rtcp.parse_compound(data)
        except WireError:
            return
        blocks = [block for packet in packets for block in getattr(packet, "blocks", ())]
        nacks = [packet for packet in packets if isinstance(packet, rtcp.Nack)]
        for peer in self.peers:
            for outlet in peer.outlets.values():
                if outlet is not interleaved and peer.address[0] != host:
                    continue
                for block in blocks:
                    if block.ssrc == outlet.ssrc:
                        peer.heard_ns = now_ns
                        self._hear_report(outlet, block, now_ns)
                for nack in nacks:  # after BYE, too: the last frames wait for what is asked for
                    if nack.media_ssrc == outlet.ssrc and outlet.again is not None and peer.attentive:
                        self._dispatch.send_again(peer, outlet, outlet.again.answer(nack.sequences, now_ns), now_ns)

    def _hear_report(self, outlet: Outlet, block: rtcp.ReportBlock, now_ns: int) -> None:
        since_ns = None if outlet.heard_ns is None else now_ns - outlet.heard_ns
        if since_ns is not None and since_ns < REPORT_NS // 4:  # so many tell no more, and cost the others
            return
        sent_bytes = outlet.octets - outlet.reported_octets
        outlet.reception, outlet.heard_ns, outlet.reported_octets = block, now_ns, outlet.octets
        if self._delivery.heard is not None:
            heard = Heard(outlet.track.stream, outlet.ssrc, block, outlet.track.rate, sent_bytes, since_ns)
            self._delivery.heard(heard, now_ns, self._wall.unix_ns(now_ns))

    def _part(self, peer: Peer) -> None:
        peer.gone = True
        if peer in self.peers:
            self.peers.remove(peer)
            self._selector.unregister(peer.link)
            peer.link.close()
        self._dispatch.leave(peer)

    # ---- what they are sent

    def chunks(self) -> Iterator[Chunk]:
        """The sound as it is: a description says what it is like."""
        return self._source.chunks()

    def prepare(self, frame: EncodedFrame) -> Fragments:
        """A frame cut into fragments, once for all."""
        try:
            return fragments(frame.jpeg)
        except WireError as error:
            raise WireError(f"frame {frame.index} cannot be sent as RTP/JPEG: {error}") from error

    def timestamp(self, stream: str, pts_ns: int) -> int:
        """The RTP timestamp of a presentation time."""
        return self.tracks[stream].timestamp(pts_ns)

    def send_frame(self, unit: Fragments, pts_ns: int) -> tuple[int | None, int | None]:
        """Send a frame's fragments to every client that plays."""
        if self._source.fps:
            self._frame_ns = round(NS / self._source.fps)
        elif self._frame_pts_ns is not None and pts_ns > self._frame_pts_ns:
            self._frame_ns = min(NS // 5, pts_ns - self._frame_pts_ns)
        self._frame_pts_ns = pts_ns
        sent_ns, packets = self._to_all("video", unit, pts_ns)
        return sent_ns, None if sent_ns is None else len(packets)

    def send_sound(self, chunk: Chunk) -> tuple[int | None, Sequence[Part]]:
        """Send a chunk to every client that plays: a packet is a unit of its own to the client."""
        sent_ns, packets = self._to_all("audio", chunk, chunk.pts_ns)
        track = self.tracks["audio"]
        first = track.timestamp(chunk.pts_ns)
        parts = []
        for packet in packets:
            timestamp = RtpPacket.parse(packet).timestamp
            into_ns = ((timestamp - first) & 0xFFFFFFFF) * NS // track.rate
            parts.append(Part(chunk.pts_ns + into_ns, timestamp, len(packet) - HEADER_BYTES))
        return sent_ns, parts

    def say_goodbye(self, now_ns: int) -> None:
        """A last report and BYE to every client that plays: its clip is over."""
        if self._start_ns is None:
            return
        media_ns = now_ns - self._start_ns
        for peer in self.peers:
            if not peer.playing:
                continue
            for outlet in peer.outlets.values():
                if packets := outlet.spreader.flush():
                    self._dispatch.send(peer, outlet, packets, now_ns)
                self._dispatch.send_rtcp(
                    peer, outlet, peer.goodbye(outlet, self._wall.unix_ns(now_ns), media_ns), now_ns
                )
            peer.end_of_stream()

    def _to_all(self, stream: str, unit: Fragments | Chunk, pts_ns: int) -> tuple[int | None, list[bytes]]:
        """Send one unit to every client that plays; when the first send began, and that client's packets."""
        first_ns: int | None = None
        sent: list[bytes] = []
        for peer in self.peers:
            outlet = peer.outlets.get(stream) if peer.playing else None
            if outlet is None:
                continue
            now_ns = self._clock.now_ns()
            self._owe_report(peer, outlet, now_ns)
            if outlet.parity is not None:
                outlet.parity.overhead = self._delivery.parity
            packets = outlet.pack(unit, pts_ns)
            if first_ns is None:
                first_ns, sent = now_ns, packets
            if stream == "video" and outlet.addresses is not None:
                outlet.spreader.share = self._delivery.spread
                outlet.spreader.push(Burst(packets, self._frame_ns), now_ns)
                packets = outlet.spreader.pull(now_ns)
            self._dispatch.send(peer, outlet, packets, now_ns)
        return first_ns, sent

    def _owe_report(self, peer: Peer, outlet: Outlet, now_ns: int) -> None:
        assert self._start_ns is not None
        report = peer.report_due(outlet, now_ns, self._wall.unix_ns(now_ns), now_ns - self._start_ns)
        if report is not None:
            self._dispatch.send_rtcp(peer, outlet, report, now_ns)
