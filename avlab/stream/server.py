"""The server: the handle, and who its clients are; what they are sent, and when, is in `sending`.

One thread owns the sockets, the sending and all that is known of the clients; two others read the clip ahead of it.
"""

from __future__ import annotations

import platform
import secrets
import selectors
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avlab.measure.trace import Recorder, Trace
from avlab.media import codec
from avlab.media.sources import open_source
from avlab.stream.clock import MonotonicClock, clock_identity, spill
from avlab.stream.links import TcpLink, UdpLink, Waker, interest, listen, udp_pair
from avlab.stream.rtsp_server import STALL_BYTES, Outlet, Peer, Track
from avlab.stream.sending import Sending
from avlab.stream.worker import Handle, Worker
from avlab.timing.pacing import Pacer, pacer_named
from avlab.wire import rtcp, sdp
from avlab.wire.rtp import JPEG, L16_MONO, L16_STEREO, VIDEO_CLOCK
from avlab.wire.units import NS, WireError

MAX_PEERS = 256

TURN_BYTES = 16_384
"""Read of one client before the others, and what is due, have their turn: some 10 ms of answers at the very most."""


class Server(Handle):
    """Streams a clip over RTSP to whoever asks: JPEG and L16 over RTP. A handle: start, stop, wait; a context manager.

    `source` is a path, the number of a camera, or an iterable of BGR uint8 arrays (height, width, 3) or of (seconds,
    array). `width` in pixels (16 to 2040, None for the clip's own; rounded to a multiple of 8), `quality` from 1 to 100
    and `pacer` (a name or a pacer) act while it runs. `loop` plays on without a seam. With `once` the server ends
    with the clip. `fps` is for arrays without times. `session_timeout` is in seconds.

    Raises FileNotFoundError, ValueError or TypeError for a source or setting that cannot be; `start` raises OSError
    when the port is taken. A source that fails in mid-stream is played as far as it goes; then clients get BYE, and
    `wait` and `stop` raise what it raised.
    """

    def __init__(
        self,
        source: Any,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        width: int | None = None,
        quality: int = 80,
        pacer: str | Pacer = "deadline",
        loop: bool = False,
        once: bool = False,
        fps: float | None = None,
        session_timeout: float = 60.0,
    ) -> None:
        super().__init__()
        if not 0 <= port <= 65_535:
            raise ValueError(f"port must be 0 (any free one) to 65535, not {port}")
        if not session_timeout > 0:
            raise ValueError(f"session_timeout must be more than 0 seconds, not {session_timeout}")
        self._source = open_source(source, loop=loop, fps=fps)
        self._name = Path(str(source)).stem if isinstance(source, str | Path) else "live"
        self._clip = str(source) if isinstance(source, str | Path) else "pictures"
        self._host, self._port = host, port
        self._loop, self._once = loop, once
        self.session_timeout = session_timeout
        self._clock = MonotonicClock()
        self._recorder = Recorder(side="server", epoch_ns=self._clock.now_ns(), clock=clock_identity(), spill=spill)
        self._recorder.meta |= {
            "clip": self._clip,
            "target_fps": float(self._source.fps) if self._source.fps else None,
            "audio_rate": self._source.rate,
            "platform": platform.platform(),
            "python": platform.python_version(),
        }
        self._peers: list[Peer] = []
        self._session_id = secrets.randbits(32)
        self._udp: dict[str, tuple[UdpLink, UdpLink]] = {}
        self.tracks = self._make_tracks()
        self._sending = Sending(
            self._source,
            loop=loop,
            tracks=self.tracks,
            peers=self._peers,
            udp=self._udp,
            clock=self._clock,
            recorder=self._recorder,
            ready=lambda: self._waker.wake(),  # there is none before the start
        )
        self.width = width
        self.quality = quality
        self.pacer = pacer

    # ---- what is set while it runs

    @property
    def width(self) -> int | None:
        """Pixels across, None for the clip's own; acts on the next frame encoded. ValueError outside 16 to 2040."""
        return self._sending.width

    @width.setter
    def width(self, value: int | None) -> None:
        if value is not None:
            codec.check_width(value)
        self._sending.width = value
        self._recorder.setting(self._clock.now_ns(), "width", value)

    @property
    def quality(self) -> int:
        """JPEG quality; acts on the next frame encoded. ValueError outside 1 to 100."""
        return self._sending.quality

    @quality.setter
    def quality(self, value: int) -> None:
        codec.check_quality(value)
        self._sending.quality = value
        self._recorder.setting(self._clock.now_ns(), "quality", value)

    @property
    def pacer(self) -> Pacer:
        """What decides when a frame leaves; set it to a name or a pacer, and it acts on the next frame."""
        return self._sending.pacer

    @pacer.setter
    def pacer(self, value: str | Pacer) -> None:
        self._sending.pacer = pacer = pacer_named(value)
        self._recorder.setting(self._clock.now_ns(), "pacer", getattr(pacer, "name", type(pacer).__name__))

    # ---- what it says of itself

    @property
    def url(self) -> str:
        """Where clients find it; RuntimeError before `start`."""
        if not self._started or self._port == 0:
            raise RuntimeError("the server has no address before start(): call start(), or use it in a with statement")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"rtsp://{f'[{host}]' if ':' in host else host}:{self._port}/{quote(self._name)}"

    @property
    def clients(self) -> int:
        """How many clients have a session."""
        return sum(peer.session is not None and not peer.gone for peer in list(self._peers))

    @property
    def trace(self) -> Trace:
        """What this side has seen so far."""
        return self._recorder.trace()

    def status(self) -> str:
        """A line of what is going on."""
        playing = "waiting for a client" if self._start_ns is None else f"media time {self._media_seconds():.1f} s"
        return f"{self._counted()}, {playing}"

    @property
    def _start_ns(self) -> int | None:
        return self._sending.start_ns

    def _counted(self) -> str:
        return "1 client" if self.clients == 1 else f"{self.clients} clients"

    def _media_seconds(self) -> float:
        start_ns = self._start_ns
        return 0.0 if start_ns is None else (self._clock.now_ns() - start_ns) / NS

    def __repr__(self) -> str:
        state = f"at {self.url}, {self._counted()}" if self.running else "not running"
        return f"<Server of {self._clip}, {state}>"

    @property
    def ssrcs(self) -> set[int]:
        """The sources that its clients know its tracks by."""
        return {outlet.ssrc for peer in list(self._peers) for outlet in list(peer.outlets.values())}

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
        return self._sending.play(now_ns)

    def clip_ns(self) -> int | None:
        """The clip's length; None when it is unknown or the clip loops."""
        return None if self._loop else self._source.duration_ns

    # ---- life

    def _begin(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._listener: socket.socket | None = None
        self._listener = listen(self._host, self._port)
        self._port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ, "listener")
        self._selector.register(self._waker, selectors.EVENT_READ, "waker")
        for stream in self.tracks:
            self._udp[stream] = udp_pair(self._host)
            for link in self._udp[stream]:  # a client may send to either: to open a firewall, or reports
                self._selector.register(link, selectors.EVENT_READ, (stream, link))
        for name, feed in self._sending.feeds.items():
            self.spawn(name, feed.run, feed.wake)
        self.spawn("server", self._run, self._waker.wake)

    def _release(self) -> None:
        if not hasattr(self, "_selector"):
            return
        self._selector.close()
        for peer in self._peers:
            peer.link.close()
        for pair in self._udp.values():
            for link in pair:
                link.close()
        if self._listener is not None:
            self._listener.close()
        self._waker.close()

    def _make_tracks(self) -> dict[str, Track]:
        tracks = {}
        if self._source.has_video:
            offset = secrets.randbits(32)
            media = sdp.Media(
                kind="video",
                payload_type=JPEG,
                encoding="JPEG",
                clock_rate=VIDEO_CLOCK,
                control="video",
                framerate=float(self._source.fps) if self._source.fps else None,
            )
            tracks["video"] = Track("video", JPEG, VIDEO_CLOCK, 1, offset, media)
        if self._source.has_audio:
            rate, channels = self._source.rate, self._source.channels
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

    # ---- the server's thread

    def _run(self, worker: Worker) -> None:
        try:
            while not worker.stopping.is_set():
                ready = self._clock.wait(self._selector, self._wake_at())
                for key, _ in ready:
                    self._attend(key.data, key.fileobj)
                now_ns = self._clock.now_ns()
                if self._sending.send_due(now_ns):
                    self._end_of_clip(now_ns)
                self._see_to_peers(self._clock.now_ns())
        finally:
            self._sending.say_goodbye(self._clock.now_ns())
            self._drain_links()

    def _wake_at(self) -> int | None:
        moments = (self._next_check_ns(), self._sending.wake_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def _next_check_ns(self) -> int | None:
        return self._clock.now_ns() + NS // 4 if self._peers else None

    # ---- clients

    def _attend(self, what: Any, fileobj: Any) -> None:
        now_ns = self._clock.now_ns()
        if what == "waker":
            self._waker.clear()
        elif what == "listener":
            self._accept(now_ns)
        elif isinstance(what, Peer):
            self._hear(what, now_ns)
        else:
            _, link = what
            for data, address in link.receive():
                self._take_report(data, address[0], now_ns)

    def _accept(self, now_ns: int) -> None:
        assert self._listener is not None
        try:
            connection, address = self._listener.accept()
        except OSError:
            return
        if len(self._peers) >= MAX_PEERS:
            connection.close()
            return
        link = TcpLink(connection)
        peer = Peer(link, address[:2], connection.getsockname()[:2], self, now_ns)
        self._peers.append(peer)
        self._selector.register(link, selectors.EVENT_READ, peer)

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
        """A receiver report keeps its session alive and says what was received."""
        try:
            packets = rtcp.parse_compound(data)
        except WireError:
            return
        blocks = [block for packet in packets for block in getattr(packet, "blocks", ())]
        for peer in self._peers:
            for outlet in peer.outlets.values():
                for block in blocks:
                    if block.ssrc == outlet.ssrc and (outlet is interleaved or peer.address[0] == host):
                        peer.heard_ns = now_ns
                        outlet.reception = block

    def _see_to_peers(self, now_ns: int) -> None:
        """Part from clients that are gone, have said nothing within the session time-out, or take nothing."""
        limit_ns = round(self.session_timeout * NS)
        for peer in list(self._peers):
            stalled = peer.link.progress_ns is not None and now_ns - peer.link.progress_ns > limit_ns
            if now_ns - peer.heard_ns > limit_ns or stalled:
                self._recorder.event(now_ns, "client timed out", peer.address[0])
                peer.gone = True
            if peer.gone:
                self._part(peer)
            elif peer.link.waiting:
                interest(self._selector, peer.link)
        if self._start_ns is not None and not any(peer.has_played and peer.session for peer in self._peers):
            self._rewind()

    def _part(self, peer: Peer) -> None:
        peer.gone = True
        if peer in self._peers:
            self._peers.remove(peer)
            self._selector.unregister(peer.link)
            peer.link.close()

    def _end_of_clip(self, now_ns: int) -> None:
        self._sending.say_goodbye(now_ns)
        self._recorder.event(now_ns, "end of clip")
        fault = self._sending.fault()
        self._rewind()
        if fault is not None:
            raise fault
        if self._once:
            self._ended.set()

    def _rewind(self) -> None:
        self._sending.rewind()
        for peer in self._peers:
            peer.has_played = False

    def _drain_links(self) -> None:
        """Let the last bytes leave, for up to half a second."""
        until_ns = self._clock.now_ns() + NS // 2
        while (waiting := [p for p in self._peers if p.link.waiting]) and self._clock.now_ns() < until_ns:
            for peer in waiting:
                try:
                    peer.link.flush(self._clock.now_ns())
                except OSError:
                    self._part(peer)
            self._clock.sleep_until(self._clock.now_ns() + 2_000_000)
