"""The client: asks a server for its streams, receives them, and has them presented in step.

One thread owns the sockets and the presentation; what sound's own threads do is in `sounding`. Pictures leave through
taps, and no taker can hold up the stream.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import selectors
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal

from avlab.measure.join import join
from avlab.measure.trace import Recorder, Trace
from avlab.stream.clock import MonotonicClock, clock_identity, spill
from avlab.stream.links import Address, TcpLink, UdpLink, Waker, interest, udp_pair
from avlab.stream.presentation import Presentation
from avlab.stream.rtsp_client import Granted, Session
from avlab.stream.server import Server
from avlab.stream.sounding import Sounding
from avlab.stream.tap import Received, Tap
from avlab.stream.worker import Handle, Worker, running_handles
from avlab.timing.drift import Timeline
from avlab.timing.jitterbuffer import Fragment, Frame
from avlab.wire import rtcp, rtsp, sdp
from avlab.wire.rtp import ReceiverStats, RtpPacket, Unwrapper, parse_l16
from avlab.wire.units import NS, WireError

BYE_PATIENCE_NS = NS // 4
"""How long after the connection's end a BYE that comes over UDP may be."""

SILENCE_NS = 10 * NS
"""With no packet for this long, while playing, the server is taken for gone."""

REPORT_NS = 5 * NS

MALFORMED_TOLD = 100
"""How many malformed packets the record names; a hostile sender could fill it with them."""


@dataclass(slots=True)
class _Incoming:
    """One stream as it arrives."""

    stream: str
    granted: Granted
    stats: ReceiverStats
    sequence: Unwrapper = field(default_factory=lambda: Unwrapper(16))
    ticks: Unwrapper = field(default_factory=lambda: Unwrapper(32))
    ssrc: int | None = None
    ended: bool = False
    seen: set[int] = field(default_factory=set)


class Client(Handle):
    """Plays a stream: `rtsp://host:port/path`. A handle: start, stop, wait; a context manager.

    `playout_delay` is in seconds, from the arrival of what came quickest to its presentation; 0 shows pictures as they
    come. `audio` is `auto` (a device where there is one), `speaker` (a device is demanded) or `null` (time is kept, in
    silence). `av_offset` in seconds is what the device delays beyond what it reports (Bluetooth). `video_over` and
    `audio_over` are `udp` or `tcp`; a server that refuses a mixture is asked again with one for both.
    `timeout` is how many seconds the server has for each answer.

    `start` raises OSError when the server cannot be reached, ValueError when it offers nothing that can be played.
    """

    def __init__(
        self,
        url: str,
        *,
        playout_delay: float = 0.1,
        audio: Literal["auto", "speaker", "null"] = "auto",
        av_offset: float = 0.0,
        video_over: Literal["udp", "tcp"] = "udp",
        audio_over: Literal["udp", "tcp"] = "tcp",
        timeout: float = 5.0,
    ) -> None:
        super().__init__()
        for name, over in (("video_over", video_over), ("audio_over", audio_over)):
            if over not in ("udp", "tcp"):
                raise ValueError(f"{name} must be 'udp' or 'tcp', not {over!r}")
        if audio not in ("auto", "speaker", "null"):
            raise ValueError(f"audio must be 'auto', 'speaker' or 'null', not {audio!r}")
        self.url = url
        self._audio: Literal["auto", "speaker", "null"] = audio
        self._av_offset_ns = round(av_offset * NS)
        self._session = Session(url, timeout=timeout)
        self._over = {"video": video_over, "audio": audio_over}
        self._clock = MonotonicClock()
        self._recorder = Recorder(side="client", epoch_ns=self._clock.now_ns(), clock=clock_identity(), spill=spill)
        self._recorder.meta |= {"url": url, "platform": platform.platform(), "python": platform.python_version()}
        self._delay_ns = 0
        self.playout_delay = playout_delay
        self._incoming: dict[str, _Incoming] = {}
        self._peer: Server | None = None
        self._final: Trace | None = None
        self._timeline = Timeline(reference="audio")
        self._presentation = Presentation(self._recorder)
        self._sounding: Sounding | None = None

    # ---- what is set while it runs

    @property
    def playout_delay(self) -> float:
        """Seconds from the quickest arrival to presentation; takes effect at once. ValueError outside 0 to 5."""
        return self._delay_ns / NS

    @playout_delay.setter
    def playout_delay(self, seconds: float) -> None:
        if not isinstance(seconds, int | float) or not 0 <= seconds <= 5:
            raise ValueError(f"playout_delay must be 0 to 5 seconds, not {seconds!r}")
        self._delay_ns = round(seconds * NS)
        self._recorder.setting(self._clock.now_ns(), "playout_delay", seconds)
        if self.running:
            self._waker.wake()

    # ---- what it says of itself

    @property
    def trace(self) -> Trace:
        """What was seen so far; joined with the server's own record when the server runs in this process."""
        if self._final is not None:
            return self._final
        final = self._stopped and not any(worker.alive for worker in self._workers)
        trace = self._recorder.trace()
        if self._peer is not None:  # after a BYE, nothing is on its way any more
            trace = join(self._peer.trace, trace, in_flight=0.0 if self._said_goodbye() else 0.5)
        if final:
            self._final = trace
        return trace

    @property
    def speaker_name(self) -> str:
        """Where the sound goes; empty when the stream has none."""
        speaker = self._sounding.speaker if self._sounding is not None else None
        return speaker.name if speaker is not None else ""

    @property
    def audio_seconds(self) -> float:
        """How much sound has been heard, in seconds."""
        return self._sounding.heard_seconds if self._sounding is not None else 0.0

    def status(self) -> str:
        """A line of what is going on."""
        return self._presentation.status(self._clock.now_ns())

    def __repr__(self) -> str:
        return f"<Client of {self.url}, {'playing' if self.running else 'not running'}>"

    # ---- pictures

    def frames(self) -> Generator[Received]:
        """Pictures as they are presented: `.image` is BGR uint8 (height, width, 3), `.pts` is in seconds.

        The newest wins: what comes while the loop's body works is not queued. Ends with the stream; raises what failed,
        and RuntimeError before `start`.
        """
        if not self.started:
            raise RuntimeError(
                "there are no pictures before start(): call start(), or use the client in a with statement"
            )
        tap = self.tap()
        try:
            while True:
                frame = tap.take(0.2)
                if frame is not None and frame.jpeg is not None:
                    yield Received(frame.jpeg, frame.pts_ns / NS)
                elif not self.running:
                    self._raise_once()
                    return
        finally:
            self.untap(tap)

    def tap(self, *, decides: bool = False) -> Tap:
        """A place to take pictures from. One that `decides` reports what became of each by `presented`.

        Of several that decide, the first verdict on a picture counts. A view that keeps its last one to itself for
        a second after the stream's end has it recorded as in flight.
        """
        return self._presentation.tap(decides=decides)

    def untap(self, tap: Tap) -> None:
        """Let go of a tap."""
        self._presentation.untap(tap)

    def presented(self, frame: Frame, now_ns: int) -> None:
        """A picture was seen at `now_ns`; from whoever holds a tap that decides."""
        self._presentation.presented(frame, now_ns)

    def view(self) -> Any:
        """The live view in a notebook; displays itself."""
        # The one door upward: views live on a higher floor, and are bound when asked for.
        return importlib.import_module("avlab.lab.view").view(self)

    # ---- life

    def _begin(self) -> None:
        import pandas  # noqa: F401 - now, as a first look at the trace in mid-stream would hold up the pictures

        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._links: list[UdpLink] = []
        self._link: TcpLink | None = None
        self._malformed = 0
        self._lost_ns: int | None = None  # when the connection ended
        self._last_call_ns: int | None = None  # when the first stream's BYE was seen
        self._drained_ns: int | None = None  # when the device will have played the last of the sound
        granted = self._session.open(self._over, self._bind)
        for stream, grant in granted.items():
            self._incoming[stream] = _Incoming(stream, grant, ReceiverStats(grant.media.clock_rate), ssrc=grant.ssrc)
            self._timeline.add(stream, grant.media.clock_rate)
        self._peer = self._find_server()
        self._describe_run()
        if "audio" in granted:
            self._open_sound(granted["audio"].media)
        self._presentation.begin(streams=set(granted), delay_ns=self._delay_ns, sounding=self._sounding)
        self._presented_delay_ns = self._delay_ns
        playing = self._session.play()
        self._play_ns = self._heard_ns = self._clock.now_ns()
        self._recorder.event(self._play_ns, "play")
        self._anchor(playing)
        self._link = TcpLink(self._session.detach())
        self._selector.register(self._waker, selectors.EVENT_READ, None)
        self._selector.register(self._link, selectors.EVENT_READ, None)
        for incoming in self._incoming.values():
            if incoming.granted.links is not None:
                for link in incoming.granted.links:
                    self._selector.register(link, selectors.EVENT_READ, (incoming, link))
        self._report_ns = self._play_ns + NS
        self._alive_ns = self._play_ns + self._session.keep_alive_ns
        self.spawn("client", self._run, self._waker.wake)

    def _release(self) -> None:
        if not hasattr(self, "_selector"):
            return
        self._selector.close()
        self._session.close()
        if self._link is not None:
            self._link.close()
        for link in self._links:
            link.close()
        self._waker.close()
        self._presentation.close_taps()

    def _bind(self, host: str) -> tuple[UdpLink, UdpLink]:
        pair = udp_pair(host)
        self._links += pair
        return pair

    def _find_server(self) -> Server | None:
        ssrcs = {incoming.ssrc for incoming in self._incoming.values()}
        servers = (handle for handle in running_handles() if isinstance(handle, Server))
        return next((server for server in servers if ssrcs & server.ssrcs), None)

    def _describe_run(self) -> None:
        video, audio = self._incoming.get("video"), self._incoming.get("audio")
        self._recorder.meta["ssrcs"] = [i.ssrc for i in self._incoming.values() if i.ssrc is not None]
        self._recorder.meta["target_fps"] = video.granted.media.framerate if video else None
        self._recorder.meta["audio_rate"] = audio.granted.media.clock_rate if audio else None
        self._recorder.meta["clip"] = self._session.description.name

    def _anchor(self, playing: rtsp.Response) -> None:
        """RTP-Info says which timestamps stand for the start of the range (RFC 2326 12.33)."""
        start_ns, infos = self._session.positions(playing)
        self._first_media_ns = start_ns
        for stream, rtptime in infos.items():
            self._timeline.anchor(stream, self._incoming[stream].ticks(rtptime), start_ns)

    def _open_sound(self, media: sdp.Media) -> None:
        """Open the device and let it run before anything is played: it takes a while until it asks steadily."""
        self._sounding = Sounding(
            rate=media.clock_rate,
            channels=media.channels,
            audio=self._audio,
            av_offset_ns=self._av_offset_ns,
            clock=self._clock,
            recorder=self._recorder,
        )
        worker = self.spawn("speaker", self._sounding.run)
        self._sounding.ready.wait(3.0)
        if self._sounding.speaker is None and self._sounding.ready.is_set():  # it failed, and is about to say so
            worker.join(1.0)
        self._raise_once()

    # ---- the client's thread

    def _run(self, worker: Worker) -> None:
        assert self._link is not None
        try:
            while not worker.stopping.is_set() and not self._ended.is_set():
                for key, _ in self._clock.wait(self._selector, self._wake_at()):
                    self._receive(key.fileobj, key.data)
                self._move_along(self._clock.now_ns())
        finally:
            self._close_books(self._clock.now_ns())

    def _wake_at(self) -> int:
        now_ns = self._clock.now_ns()
        moments = [self._presentation.wake_at(), self._report_ns, self._alive_ns, now_ns + NS // 10]
        return min(moment for moment in moments if moment is not None)

    def _receive(self, link: Any, data: tuple[_Incoming, UdpLink] | None) -> None:
        if link is self._waker:
            self._waker.clear()
        elif data is not None:
            incoming, udp = data
            assert incoming.granted.links is not None
            packets = udp.receive()
            now_ns = self._clock.now_ns()
            if dropped := udp.dropped():
                self._recorder.event(now_ns, "socket_dropped", dropped)
            host = incoming.granted.host
            for packet, address in packets:
                if address[0] == host:
                    self._take(incoming, packet, now_ns, control=udp is incoming.granted.links[1])
        else:
            self._receive_tcp()

    def _receive_tcp(self) -> None:
        assert self._link is not None
        try:
            self._link.flush(self._clock.now_ns())
            data = self._link.receive()
        except OSError:
            data = None
        now_ns = self._clock.now_ns()
        if data is None:
            self._selector.unregister(self._link)
            self._alive_ns = 1 << 62
            self._lost_ns = now_ns
            return
        for event in self._session.feed(data):
            if isinstance(event, rtsp.Interleaved):
                self._take_interleaved(event, now_ns)
        interest(self._selector, self._link)

    def _take_interleaved(self, event: rtsp.Interleaved, now_ns: int) -> None:
        for incoming in self._incoming.values():
            channels = incoming.granted.channels
            if channels and event.channel in channels:
                self._take(incoming, event.data, now_ns, control=event.channel == channels[1])

    def _take(self, incoming: _Incoming, data: bytes, now_ns: int, *, control: bool) -> None:
        """One RTP or RTCP packet; one that is neither is counted and passed over."""
        try:
            if control:
                self._take_report(incoming, data, now_ns)
            else:
                self._take_packet(incoming, data, now_ns)
        except WireError as error:
            self._malformed += 1
            if self._malformed <= MALFORMED_TOLD:
                self._recorder.event(now_ns, "malformed packet", str(error))

    def _take_report(self, incoming: _Incoming, data: bytes, now_ns: int) -> None:
        for packet in rtcp.parse_compound(data):
            if isinstance(packet, rtcp.SenderReport) and incoming.ssrc in (None, packet.ssrc):
                incoming.ssrc = packet.ssrc
                incoming.stats.sender_report(packet.ntp, now_ns)
                ticks = incoming.ticks(packet.rtp_timestamp)
                self._timeline.report(incoming.stream, ticks, rtcp.ntp_to_ns(packet.ntp))
            elif isinstance(packet, rtcp.Bye) and incoming.ssrc in packet.ssrcs:
                incoming.ended = True

    def _take_packet(self, incoming: _Incoming, data: bytes, now_ns: int) -> None:
        packet = RtpPacket.parse(data)
        if packet.payload_type != incoming.granted.media.payload_type:
            return
        if incoming.ssrc is None:
            incoming.ssrc = packet.ssrc
            self._recorder.meta["ssrcs"] = [i.ssrc for i in self._incoming.values() if i.ssrc is not None]
        if packet.ssrc != incoming.ssrc:
            return
        self._heard_ns = now_ns
        sequence, ticks = incoming.sequence(packet.sequence), incoming.ticks(packet.timestamp)
        incoming.stats.update(packet.sequence, packet.timestamp, now_ns)
        if not self._timeline.anchored(incoming.stream):
            self._timeline.anchor(incoming.stream, ticks, self._first_media_ns)
        take = self._take_picture if incoming.stream == "video" else self._take_sound
        fate = take(incoming, packet, sequence, ticks, now_ns)
        self._recorder.packets(
            [
                (
                    incoming.stream,
                    packet.ssrc,
                    sequence,
                    packet.timestamp,
                    packet.marker,
                    len(data),
                    None,
                    now_ns,
                    fate,
                )
            ]
        )

    def _take_picture(self, incoming: _Incoming, packet: RtpPacket, sequence: int, ticks: int, now_ns: int) -> str:
        media_ns = self._timeline.media_ns("video", ticks)
        fragment = Fragment(sequence, ticks, media_ns, packet.marker, packet.payload)
        return self._presentation.take_fragment(fragment, now_ns)

    def _take_sound(self, incoming: _Incoming, packet: RtpPacket, sequence: int, ticks: int, now_ns: int) -> str:
        if sequence in incoming.seen:
            return "duplicate"
        incoming.seen.add(sequence)
        if len(incoming.seen) > 8192:
            incoming.seen = {s for s in incoming.seen if s > sequence - 4096}
        samples = parse_l16(packet.payload, incoming.granted.media.channels)
        pts_ns = self._timeline.media_ns("audio", ticks)
        return self._presentation.take_sound(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns)

    def _move_along(self, now_ns: int) -> None:
        """Everything that the moment asks for, between packets."""
        if self._presented_delay_ns != self._delay_ns:
            self._presented_delay_ns = self._delay_ns
            self._presentation.set_delay(self._delay_ns)
        self._presentation.move_along(now_ns)
        if now_ns >= self._report_ns:
            self._send_reports(now_ns)
        if now_ns >= self._alive_ns:
            self._send(self._session.keep_alive(), now_ns)
            self._alive_ns = now_ns + self._session.keep_alive_ns
        self._look_for_the_end(now_ns)

    def _send_reports(self, now_ns: int) -> None:
        self._report_ns = now_ns + REPORT_NS
        for incoming in self._incoming.values():
            reception = incoming.stats.report(now_ns)
            if reception is None or incoming.ssrc is None:
                continue
            block = rtcp.ReportBlock.of(incoming.ssrc, reception)
            own = self._session.ssrc
            data = rtcp.serialize_compound([rtcp.ReceiverReport(own, (block,)), rtcp.Sdes(own, "avlab")])
            granted = incoming.granted
            if granted.channels is not None:
                self._send(rtsp.interleave(granted.channels[1], data), now_ns)
            elif granted.links is not None and granted.server_port is not None:
                to: Address = (granted.host, granted.server_port[1])
                granted.links[1].send([data], to)

    def _send(self, data: bytes, now_ns: int) -> None:
        assert self._link is not None
        with contextlib.suppress(OSError):  # a lost connection is noticed where it is read
            self._link.send(data, now_ns)

    def _look_for_the_end(self, now_ns: int) -> None:
        ended = [incoming.ended for incoming in self._incoming.values()]
        if not any(ended):
            if self._lost_ns is not None and now_ns - self._lost_ns > BYE_PATIENCE_NS:
                raise ConnectionError(
                    f"the server at {self._session.where} closed the connection in mid-stream: "
                    "see whether it still runs, then play again"
                )
            mute = [i.stream for i in self._incoming.values() if i.sequence.highest is None]
            if mute and now_ns - self._play_ns > SILENCE_NS:
                raise TimeoutError(
                    f"no {' and no '.join(mute)} has come from {self._session.where} for {SILENCE_NS // NS} s: if a "
                    f"firewall holds back datagrams, ask for {mute[0]}_over='tcp'"
                )
            if now_ns - self._heard_ns > SILENCE_NS:
                raise TimeoutError(
                    f"nothing has come from {self._session.where} for {SILENCE_NS // NS} s: the server is gone"
                )
            return
        # A BYE over UDP may be lost: a second after the first stream's, all are taken to have ended.
        self._last_call_ns = self._last_call_ns or now_ns
        if not all(ended) and self._lost_ns is None and now_ns - self._last_call_ns < NS:
            return
        if not self._presentation.finished(now_ns):
            return
        lead_ns = 0 if self._sounding is None else max(0, self._sounding.lead_ns)
        self._drained_ns = self._drained_ns or now_ns + lead_ns
        if now_ns >= self._drained_ns:
            self._ended.set()

    def _said_goodbye(self) -> bool:
        return bool(self._incoming) and all(incoming.ended for incoming in self._incoming.values())

    def _close_books(self, now_ns: int) -> None:
        """Every frame gets its fate, and the server its TEARDOWN."""
        self._presentation.close_books(now_ns)
        self._recorder.meta["end_ns"] = now_ns
        if self._link is not None:
            self._send(self._session.teardown(), now_ns)
