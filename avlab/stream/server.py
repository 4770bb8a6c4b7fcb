"""The server: a clip, encoded once, paced by its timestamps and sent to every client that plays.

One thread owns the sockets, the pacers and all that is known of the clients; two others read the clip ahead of it.
"""

from __future__ import annotations

import platform
import secrets
import selectors
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avlab.measure.trace import FrameRow, Recorder, Trace
from avlab.media import codec
from avlab.media.sources import open_source
from avlab.stream.clock import MonotonicClock, WallClock, clock_identity, spill
from avlab.stream.feed import Feed
from avlab.stream.links import TcpLink, UdpLink, Waker, interest, listen, udp_pair
from avlab.stream.rtsp_server import STALL_BYTES, Outlet, Peer, Track
from avlab.stream.worker import Handle, Worker
from avlab.timing.pacing import DeadlinePacer, Due, Pacer, pacer_named
from avlab.timing.stage import Dropped
from avlab.wire import rtcp, sdp
from avlab.wire.rtp import HEADER_BYTES, JPEG, L16_MONO, L16_STEREO, VIDEO_CLOCK, RtpPacket
from avlab.wire.rtpjpeg import Fragments, fragments
from avlab.wire.rtsp import interleave
from avlab.wire.units import NS, Chunk, EncodedFrame, WireError

BEHIND_NS = 60_000_000
HOPELESS_NS = NS
"""When frames have been behind for so long before they are even encoded, the machine is too slow for the clip: frames
are skipped then until it has caught up. A single stall is caught up with by working faster, and costs no frame."""

MAX_PEERS = 256

TURN_BYTES = 16_384
"""Read of one client before the others, and what is due, have their turn: some 10 ms of answers at the very most."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """A frame ready to be sent."""

    frame: EncodedFrame
    fragments: Fragments

    @property
    def pts_ns(self) -> int:
        """The frame's presentation time."""
        return self.frame.pts_ns


class Server(Handle):
    """Streams a clip over RTSP to whoever asks: JPEG and L16 over RTP. A handle: start, stop, wait; a context manager.

    `source` is a path, the number of a camera, or an iterable of BGR uint8 arrays (height, width, 3) or of (seconds,
    array). `width` in pixels
    (16 to 2040, None for the clip's own; rounded to a multiple of 8), `quality` from 1 to 100 and `pacer` (a name or a
    pacer) act while it runs. `loop` plays on without a seam. With `once` the server ends with the clip.
    `fps` is for arrays without times. `session_timeout` is in seconds.

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
        self._clock, self._wall = MonotonicClock(), WallClock()
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
        self._start_ns: int | None = None
        self._pacer: Pacer = DeadlinePacer()  # the one in use, which keeps its frame when another is chosen
        self._sound_pacer = DeadlinePacer()
        self._last_media_ns = 0
        self.tracks = self._make_tracks()
        self.width = width
        self.quality = quality
        self.pacer = pacer

    # ---- what is set while it runs

    @property
    def width(self) -> int | None:
        """Pixels across, None for the clip's own; acts on the next frame encoded. ValueError outside 16 to 2040."""
        return self._width

    @width.setter
    def width(self, value: int | None) -> None:
        if value is not None:
            codec.check_width(value)
        self._width = value
        self._recorder.setting(self._clock.now_ns(), "width", value)

    @property
    def quality(self) -> int:
        """JPEG quality; acts on the next frame encoded. ValueError outside 1 to 100."""
        return self._quality

    @quality.setter
    def quality(self, value: int) -> None:
        codec.check_quality(value)
        self._quality = value
        self._recorder.setting(self._clock.now_ns(), "quality", value)

    @property
    def pacer(self) -> Pacer:
        """What decides when a frame leaves; set it to a name or a pacer, and it acts on the next frame."""
        return self._chosen

    @pacer.setter
    def pacer(self, value: str | Pacer) -> None:
        self._chosen = pacer = pacer_named(value)
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
        return f"{self.clients} clients, {playing}"

    def _media_seconds(self) -> float:
        start_ns = self._start_ns
        return 0.0 if start_ns is None else (self._clock.now_ns() - start_ns) / NS

    def __repr__(self) -> str:
        state = f"at {self.url}, {self.clients} clients" if self.running else "not running"
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
        if self._start_ns is None:
            self._start_ns = now_ns
            self._pacer = self._chosen
            self._pacer.restart(now_ns)
            self._sound_pacer.restart(now_ns)
        return now_ns - self._start_ns

    def clip_ns(self) -> int | None:
        """The clip's length; None when it is unknown or the clip loops."""
        return None if self._loop else self._source.duration_ns

    # ---- life

    def _begin(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._udp: dict[str, tuple[UdpLink, UdpLink]] = {}
        self._listener: socket.socket | None = None
        self._listener = listen(self._host, self._port)
        self._port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ, "listener")
        self._selector.register(self._waker, selectors.EVENT_READ, "waker")
        for stream in self.tracks:
            self._udp[stream] = udp_pair(self._host)
            for link in self._udp[stream]:  # a client may send to either: to open a firewall, or reports
                self._selector.register(link, selectors.EVENT_READ, (stream, link))
        self._video: Feed[_Cut | Dropped] | None = None
        self._sound: Feed[Chunk] | None = None
        if self._source.has_video:
            self._video = Feed(self._encoded, ahead=1, ready=self._waker.wake)
            self._spawn("video", self._video.run, self._video.wake)
        if self._source.has_audio:
            self._sound = Feed(self._source.chunks, ahead=8, ready=self._waker.wake)
            self._spawn("sound", self._sound.run, self._sound.wake)
        self._spawn("server", self._run, self._waker.wake)

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

    # ---- the video thread

    def _encoded(self) -> Iterator[_Cut | Dropped]:
        """One pass over the pictures, encoded at the width and quality of the moment and cut into fragments, once."""
        behind_since_ns: int | None = None
        for picture in self._source.pictures():
            start_ns, now_ns = self._start_ns, self._clock.now_ns()
            punctual = getattr(self._pacer, "keeps_deadlines", True)  # a feedback rule's slide is meant to be seen
            if start_ns is None or not punctual or now_ns <= start_ns + picture.pts_ns + BEHIND_NS:
                behind_since_ns = None
            elif behind_since_ns is None:
                behind_since_ns = now_ns
            elif now_ns > behind_since_ns + HOPELESS_NS:
                yield Dropped(EncodedFrame(picture.index, picture.pts_ns, b"", 0, 0), "skipped")
                continue
            jpeg, width, height = codec.encode_jpeg(picture.image, width=self._width, quality=self._quality)
            frame = EncodedFrame(picture.index, picture.pts_ns, jpeg, width, height, self._clock.now_ns())
            try:
                yield _Cut(frame, fragments(jpeg))
            except WireError as error:
                raise WireError(f"frame {frame.index} cannot be sent as RTP/JPEG: {error}") from error

    # ---- the server's thread

    def _run(self, worker: Worker) -> None:
        try:
            while not worker.stopping.is_set():
                ready = self._clock.wait(self._selector, self._wake_at())
                for key, _ in ready:
                    self._attend(key.data, key.fileobj)
                now_ns = self._clock.now_ns()
                if self._start_ns is not None:
                    self._send_what_is_due(now_ns)
                self._see_to_peers(self._clock.now_ns())
        finally:
            self._say_goodbye(self._clock.now_ns())
            self._drain_links()

    def _wake_at(self) -> int | None:
        moments: list[int | None] = [self._next_check_ns()]
        if self._start_ns is not None:
            self._fill(self._clock.now_ns())
            moments += [self._pacer.wake_at(), self._sound_pacer.wake_at()]
            moments.append(self._end_ns())
        return min((m for m in moments if m is not None), default=None)

    def _next_check_ns(self) -> int | None:
        return self._clock.now_ns() + NS // 4 if self._peers else None

    def _fill(self, now_ns: int) -> None:
        """Give each pacer its next frame once it has sent the one before."""
        while self._video is not None and self._pacer.wake_at() is None:
            unit = self._video.take()
            if unit is None:
                break
            if isinstance(unit, Dropped):
                self._note_skipped(unit)
                continue
            if self._pacer is not self._chosen and self._start_ns is not None:
                self._pacer = self._chosen
                self._pacer.restart(self._start_ns)
            self._pacer.push(unit, now_ns)
        while self._sound is not None and self._sound_pacer.wake_at() is None:
            chunk = self._sound.take()
            if chunk is None:
                break
            self._sound_pacer.push(chunk, now_ns)

    def _end_ns(self) -> int | None:
        """When the clip is over; None while there is more of it."""
        assert self._start_ns is not None
        if self._loop and self._fault() is not None:
            return self._start_ns  # at once: the other stream would go on for ever
        if self._pacer.wake_at() is None and self._sound_pacer.wake_at() is None:
            return self._start_ns + self._last_media_ns if all(feed.ended for feed in self._feeds()) else None
        return None

    def _feeds(self) -> list[Feed[Any]]:
        return [feed for feed in (self._video, self._sound) if feed is not None]

    def _fault(self) -> Exception | None:
        """Why the clip ends before its end, once all that came before has been taken."""
        return next((feed.error for feed in self._feeds() if feed.error is not None), None)

    def _send_what_is_due(self, now_ns: int) -> None:
        assert self._start_ns is not None
        for due in self._sound_pacer.pull(now_ns):
            self._send_sound(due)
        for due in self._pacer.pull(now_ns):
            self._send_frame(due)
        for words in getattr(self._pacer, "notices", list)():
            self._recorder.event(now_ns, "pacer", words)
        self._fill(self._clock.now_ns())  # the time that sending took is part of what a feedback rule measures
        end_ns = self._end_ns()
        if end_ns is not None and now_ns >= end_ns:
            self._end_of_clip(now_ns)

    def _send_frame(self, due: Due) -> None:
        frame: EncodedFrame = due.item.frame
        fps = self._source.fps
        self._last_media_ns = max(self._last_media_ns, frame.pts_ns + (round(NS / fps) if fps else 0))
        sent_ns, count = self._to_all("video", due.item.fragments, frame.pts_ns)
        self._recorder.frame(
            FrameRow(
                "video",
                index=frame.index,
                pts_ns=frame.pts_ns,
                timestamp=self.tracks["video"].timestamp(frame.pts_ns),
                due_ns=due.due_ns,
                encoded_ns=frame.encoded_ns,
                sent_ns=sent_ns,
                bytes=len(frame.jpeg),
                packets=count,
            )
        )

    def _send_sound(self, due: Due) -> None:
        chunk: Chunk = due.item
        self._last_media_ns = max(self._last_media_ns, chunk.pts_ns + chunk.duration_ns)
        self._to_all("audio", chunk, chunk.pts_ns, due)

    def _to_all(self, stream: str, unit: Any, pts_ns: int, sound: Due | None = None) -> tuple[int | None, int | None]:
        """Send one unit to every client that plays; when the first send began, and how many packets it is."""
        first_ns, count = None, None
        for peer in self._peers:
            outlet = peer.outlets.get(stream) if peer.playing else None
            if outlet is None:
                continue
            now_ns = self._clock.now_ns()
            self._owe_report(peer, outlet, now_ns)
            packets = outlet.pack(unit, pts_ns)
            if first_ns is None:
                first_ns, count = now_ns, len(packets)
                if sound is not None:
                    self._record_sound(sound, packets, now_ns)
            self._send(peer, outlet, packets, now_ns)
        return first_ns, count

    def _send(self, peer: Peer, outlet: Outlet, packets: list[bytes], now_ns: int) -> None:
        rows = []
        sequence = outlet.first_sequence + outlet.packets
        taken = len(packets)
        if outlet.channels is not None:
            if peer.link.waiting > STALL_BYTES:
                taken = 0
            else:
                self._interleave(peer, outlet.channels[0], packets, now_ns)
        elif outlet.addresses is not None:
            taken = self._udp[outlet.track.stream][0].send(packets, outlet.addresses[0])
        for at, packet in enumerate(packets):
            header = RtpPacket.parse(packet)
            rows.append(
                (
                    outlet.track.stream,
                    outlet.ssrc,
                    sequence + at,
                    header.timestamp,
                    header.marker,
                    len(packet),
                    now_ns,
                    None,
                    None if at < taken else "socket_dropped",
                )
            )
        outlet.packets += len(packets)
        outlet.octets += sum(map(len, packets)) - HEADER_BYTES * len(packets)
        self._recorder.packets(rows)

    def _record_sound(self, due: Due, packets: list[bytes], now_ns: int) -> None:
        """A row a packet: a packet of sound is a unit of its own to the client, lost or heard by itself."""
        chunk: Chunk = due.item
        track = self.tracks["audio"]
        first = track.timestamp(chunk.pts_ns)
        for packet in packets:
            header = RtpPacket.parse(packet)
            into_ns = ((header.timestamp - first) & 0xFFFFFFFF) * NS // track.rate
            self._recorder.frame(
                FrameRow(
                    "audio",
                    index=chunk.index,
                    pts_ns=chunk.pts_ns + into_ns,
                    timestamp=header.timestamp,
                    due_ns=due.due_ns,
                    sent_ns=now_ns,
                    bytes=len(packet) - HEADER_BYTES,
                    packets=1,
                )
            )

    def _note_skipped(self, dropped: Dropped) -> None:
        track = self.tracks["video"]
        picture: EncodedFrame = dropped.item
        assert self._start_ns is not None
        self._recorder.frame(
            FrameRow(
                "video",
                index=picture.index,
                pts_ns=picture.pts_ns,
                timestamp=track.timestamp(picture.pts_ns),
                due_ns=self._start_ns + picture.pts_ns,
                packets=0,
                fate=dropped.reason,
            )
        )

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

    def _owe_report(self, peer: Peer, outlet: Outlet, now_ns: int) -> None:
        assert self._start_ns is not None
        report = peer.report_due(outlet, now_ns, self._wall.unix_ns(now_ns), now_ns - self._start_ns)
        if report is not None:
            self._send_rtcp(peer, outlet, report, now_ns)

    def _send_rtcp(self, peer: Peer, outlet: Outlet, data: bytes, now_ns: int) -> None:
        if outlet.channels is not None:
            self._interleave(peer, outlet.channels[1], [data], now_ns)
        elif outlet.addresses is not None:
            self._udp[outlet.track.stream][1].send([data], outlet.addresses[1])

    def _interleave(self, peer: Peer, channel: int, packets: list[bytes], now_ns: int) -> None:
        try:
            peer.link.send(b"".join(interleave(channel, packet) for packet in packets), now_ns)
        except OSError:
            peer.gone = True  # parted from once the round of sending is over

    def _end_of_clip(self, now_ns: int) -> None:
        self._say_goodbye(now_ns)
        self._recorder.event(now_ns, "end of clip")
        fault = self._fault()
        self._rewind()
        if fault is not None:
            raise fault
        if self._once:
            self._ended.set()

    def _say_goodbye(self, now_ns: int) -> None:
        if self._start_ns is None:
            return
        media_ns = now_ns - self._start_ns
        for peer in self._peers:
            if not peer.playing:
                continue
            for outlet in peer.outlets.values():
                self._send_rtcp(peer, outlet, peer.goodbye(outlet, self._wall.unix_ns(now_ns), media_ns), now_ns)
            peer.end_of_stream()

    def _rewind(self) -> None:
        self._start_ns = None
        self._last_media_ns = 0
        for peer in self._peers:
            peer.has_played = False
        for feed in self._feeds():
            feed.rewind()
        for track in self.tracks.values():
            track.restart()

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
