"""The client: receives, reassembles, and presents picture and sound in step.

One thread owns the sockets, the buffers and the media clock; another opens and closes the sound device, whose own
thread pulls sound through a lock. Pictures leave through taps, and no taker can hold up the stream.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import selectors
import threading
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal

from avlab.measure.join import join
from avlab.measure.trace import FrameRow, Recorder, Trace
from avlab.media.speaker import NullSpeaker, Speaker, SpeakerError, open_speaker
from avlab.stream.clock import MonotonicClock, clock_identity, spill
from avlab.stream.links import Address, TcpLink, UdpLink, Waker, interest, udp_pair
from avlab.stream.rtsp_client import Granted, Session
from avlab.stream.server import Server
from avlab.stream.tap import Received, Tap
from avlab.stream.worker import Handle, Worker, running_handles
from avlab.timing.drift import Timeline
from avlab.timing.jitterbuffer import Fragment, Frame, JitterBuffer
from avlab.timing.playout import ClockReading, MediaClock, Playout, Start
from avlab.timing.sound import SoundBuffer
from avlab.timing.stage import Dropped
from avlab.wire import rtcp, rtsp
from avlab.wire.rtp import ReceiverStats, RtpPacket, Unwrapper, parse_l16
from avlab.wire.units import NS, Samples, WireError

BYE_PATIENCE_NS = NS // 4
"""How long after the connection's end a BYE that comes over UDP may be."""

VERDICT_PATIENCE_NS = NS
"""At the end of the stream, how long a view may take to say what became of its last pictures."""

SILENCE_NS = 10 * NS
"""With no packet for this long, while playing, the server is taken for gone."""

REPORT_NS = 5 * NS

SPARE_NS = 20_000_000
"""The least time between sound's arrival and the device's asking for it."""


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
        self._media_clock = MediaClock()
        self._buffer = JitterBuffer()
        self._playout = Playout(self._media_clock, at_once=self._delay_ns == 0)
        self._timeline = Timeline(reference="audio")
        self._sound: SoundBuffer | None = None
        self._sound_lock = threading.Lock()
        self._readings: deque[ClockReading] = deque(maxlen=256)
        self._lead_ns = 0
        self._speaker: Speaker | None = None
        self._speaker_ready = threading.Event()
        self._taps: list[Tap] = []
        self._verdicts: deque[tuple[Frame, int | None, str]] = deque()
        self._owed: dict[int, Frame] = {}  # pictures given to taps that decide, by their ticks
        self._presented_ns = 0
        self._shifts: deque[int] = deque()
        self._recent: deque[int] = deque(maxlen=240)  # when the newest pictures were shown
        self._offset_ns = 0
        self._dropped = 0

    # ---- what is set while it runs

    @property
    def playout_delay(self) -> float:
        """Seconds from the quickest arrival to presentation; takes effect at once. ValueError outside 0 to 5."""
        return self._delay_ns / NS

    @playout_delay.setter
    def playout_delay(self, seconds: float) -> None:
        if not 0 <= seconds <= 5:
            raise ValueError(f"playout_delay must be 0 to 5 seconds, not {seconds}")
        old_ns, self._delay_ns = self._delay_ns, round(seconds * NS)
        self._recorder.setting(self._clock.now_ns(), "playout_delay", seconds)
        if self.running:
            least_ns = self._least_delay_ns()
            self._shifts.append(max(self._delay_ns, least_ns) - max(old_ns, least_ns))
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
        return self._speaker.name if self._speaker is not None else ""

    @property
    def audio_seconds(self) -> float:
        """How much sound has been heard, in seconds."""
        return self._heard_samples / self._sound.rate if self._sound is not None else 0.0

    def status(self) -> str:
        """A line of what is going on."""
        now_ns, recent = self._clock.now_ns(), list(self._recent)
        rate = sum(moment > now_ns - NS for moment in recent)
        skew = f"A/V {self._offset_ns / 1e6:+.0f} ms" if self._sound is not None else "no sound"
        return f"{rate} fps, {skew}, {self._dropped} dropped"

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
        `VERDICT_PATIENCE_NS` after the stream's end has it recorded as in flight.
        """
        tap = Tap((lambda frame: self._verdicts.append((frame, None, "skipped"))) if decides else None)
        self._taps.append(tap)
        return tap

    def untap(self, tap: Tap) -> None:
        """Let go of a tap."""
        if tap in self._taps:
            self._taps.remove(tap)
        tap.close()
        last = tap.take(0)
        if last is not None and tap.decides:
            self._verdicts.append((last, None, "skipped"))

    def presented(self, frame: Frame, now_ns: int) -> None:
        """A picture was seen at `now_ns`; from whoever holds a tap that decides."""
        self._verdicts.append((frame, now_ns, "shown"))

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
        self._heard_samples = 0
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
            media = granted["audio"].media
            self._sound = SoundBuffer(rate=media.clock_rate, channels=media.channels)
            speaking = self._spawn("speaker", self._speak)
            self._speaker_ready.wait(3.0)
            if self._speaker is None and self._speaker_ready.is_set():  # it failed, and is about to say so
                speaking.join(1.0)
            self._raise_once()
        self._start = Start(expect=set(granted), delay_ns=self._delay_ns)
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
        self._spawn("client", self._run, self._waker.wake)

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
        for tap in list(self._taps):
            tap.close()

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

    # ---- the sound device's threads

    def _speak(self, worker: Worker) -> None:
        assert self._sound is not None
        try:
            speaker = open_speaker(self._audio, rate=self._sound.rate, channels=self._sound.channels)
            try:
                speaker = self._start_speaker(speaker)
                while not worker.stopping.wait(0.2):
                    if speaker.error is not None:
                        raise speaker.error
                    if speaker.stalled and self._audio == "speaker":
                        raise SpeakerError(f"{speaker.name} has stopped: see whether it is connected, then play again")
                    if speaker.stalled and not isinstance(speaker, NullSpeaker):
                        self._recorder.event(self._clock.now_ns(), "sound device lost", speaker.name)
                        speaker.stop()
                        speaker = self._start_speaker(NullSpeaker(rate=self._sound.rate, channels=self._sound.channels))
            finally:
                speaker.stop()
        finally:
            self._speaker_ready.set()

    def _start_speaker(self, speaker: Speaker) -> Speaker:
        """The speaker that started: the null speaker where `auto` found a device that does not open."""
        assert self._sound is not None
        try:
            speaker.start(self._fill)
        except SpeakerError as error:
            if self._audio != "auto":
                raise
            self._recorder.event(self._clock.now_ns(), "sound device refused", str(error))
            speaker = NullSpeaker(rate=self._sound.rate, channels=self._sound.channels)
            speaker.start(self._fill)
        self._speaker = speaker
        return speaker

    def _fill(self, count: int, heard_ns: int) -> Samples:
        """What the device asks for; on its own thread."""
        assert self._sound is not None
        heard_ns += self._av_offset_ns
        self._lead_ns = heard_ns - self._clock.now_ns()
        with self._sound_lock:
            block, reading = self._sound.read(count, heard_ns)
        if reading is not None:
            self._readings.append(reading)
        self._speaker_ready.set()
        return block

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
            for tap in list(self._taps):
                tap.close()

    def _wake_at(self) -> int:
        now_ns = self._clock.now_ns()
        moments = [self._playout.wake_at(), self._start.wake_at(), self._report_ns, self._alive_ns, now_ns + NS // 10]
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
        fate = self._buffer.fate(sequence, ticks)
        if fate == "used":
            media_ns = self._timeline.media_ns("video", ticks)
            self._buffer.push(Fragment(sequence, ticks, media_ns, packet.marker, packet.payload), now_ns)
            self._take_frames(now_ns)
        return fate

    def _take_sound(self, incoming: _Incoming, packet: RtpPacket, sequence: int, ticks: int, now_ns: int) -> str:
        assert self._sound is not None
        if sequence in incoming.seen:
            return "duplicate"
        incoming.seen.add(sequence)
        if len(incoming.seen) > 8192:
            incoming.seen = {s for s in incoming.seen if s > sequence - 4096}
        samples = parse_l16(packet.payload, self._sound.channels)
        pts_ns = self._timeline.media_ns("audio", ticks)
        self._start.arrived("audio", pts_ns, now_ns)
        with self._sound_lock:
            return "used" if self._sound.push(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns) else "late"

    def _take_frames(self, now_ns: int) -> None:
        for frame in self._buffer.pull(now_ns):
            if isinstance(frame, Dropped):
                self._decide(frame.item, None, frame.reason)
            else:
                self._start.arrived("video", frame.pts_ns, now_ns)
                self._playout.push(frame, now_ns)

    def _move_along(self, now_ns: int) -> None:
        """Everything that the moment asks for, between packets."""
        while self._shifts:
            self._shift(self._shifts.popleft())
        if not self._media_clock.running:
            self._try_to_start(now_ns)
        while self._readings:
            self._media_clock.feed(self._readings.popleft())
        for item in self._playout.pull(now_ns):
            if isinstance(item, Dropped):
                self._decide(item.item, None, item.reason)
            else:
                self._present(item, now_ns)
        if self._playout.shown_pts_ns is not None:
            self._buffer.expire(self._playout.shown_pts_ns)
            self._take_frames(now_ns)
        self._write_verdicts()
        self._write_sound()
        if now_ns >= self._report_ns:
            self._send_reports(now_ns)
        if now_ns >= self._alive_ns:
            self._send(self._session.keep_alive(), now_ns)
            self._alive_ns = now_ns + self._session.keep_alive_ns
        self._look_for_the_end(now_ns)

    def _try_to_start(self, now_ns: int) -> None:
        base_ns = self._start.base_ns(now_ns, lead_ns=self._least_delay_ns())
        if base_ns is None:
            return
        self._media_clock.set(base_ns)
        self._readings.clear()
        if self._sound is not None:
            with self._sound_lock:
                self._sound.begin(base_ns)

    def _least_delay_ns(self) -> int:
        """The device must be ahead of the sound by more than its own latency, or the first late packet is a gap."""
        return self._lead_ns + SPARE_NS if self._sound is not None else 0

    def _shift(self, by_ns: int) -> None:
        self._playout.at_once = self._delay_ns == 0
        self._start.delay_ns = self._delay_ns
        self._media_clock.shift(by_ns)
        if self._sound is not None:
            with self._sound_lock:
                self._sound.shift(by_ns)
            self._readings.clear()

    def _present(self, frame: Frame, now_ns: int) -> None:
        taps = list(self._taps)
        if any(tap.decides for tap in taps):
            self._owed[frame.ticks], self._presented_ns = frame, now_ns
        else:
            self._decide(frame, now_ns, "shown")
        for tap in taps:
            tap.put(frame)

    def _write_verdicts(self) -> None:
        while self._verdicts:
            frame, shown_ns, fate = self._verdicts.popleft()
            if self._owed.pop(frame.ticks, None) is not None:
                self._decide(frame, shown_ns, fate)

    def _decide(self, frame: Frame, shown_ns: int | None, fate: str) -> None:
        """A frame's row, written once its fate is known."""
        self._recorder.frame(
            FrameRow(
                "video",
                pts_ns=frame.pts_ns,
                timestamp=frame.ticks & 0xFFFFFFFF,
                first_packet_ns=frame.first_packet_ns,
                complete_ns=frame.complete_ns,
                shown_ns=shown_ns,
                bytes=len(frame.jpeg) if frame.jpeg is not None else frame.bytes,
                packets=frame.packets,
                packets_lost=frame.packets_lost,
                fate=fate,
            )
        )
        if shown_ns is None:
            self._dropped += fate != "in_flight"
            return
        self._recent.append(shown_ns)
        if self._sound is None:
            return
        with self._sound_lock:
            heard_ns = self._sound.heard_ns(shown_ns)
            depth_ns, skew_ppm = self._sound.control.level_ns, self._sound.skew_ppm
        if heard_ns is not None:
            self._offset_ns = heard_ns - frame.pts_ns
            self._recorder.sync(shown_ns, frame.pts_ns, heard_ns, depth_ns, skew_ppm)

    def _write_sound(self, *, last: bool = False) -> None:
        if self._sound is None:
            return
        with self._sound_lock:
            played = self._sound.played() + (self._sound.flush() if last else [])
        for run in played:
            self._heard_samples += run.size if run.reason == "shown" else 0
            self._recorder.frame(
                FrameRow(
                    "audio",
                    pts_ns=run.pts_ns,
                    timestamp=run.ticks & 0xFFFFFFFF,
                    first_packet_ns=run.arrived_ns,
                    complete_ns=run.arrived_ns,
                    shown_ns=run.heard_ns,
                    bytes=run.size * 2 * self._sound.channels,
                    packets=1,
                    packets_lost=0,
                    fate=run.reason,
                )
            )

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
            if now_ns - self._heard_ns > SILENCE_NS:
                raise TimeoutError(
                    f"nothing has come from {self._session.where} for {SILENCE_NS // NS} s: the server is gone, "
                    "or a firewall holds back its datagrams (then ask for video_over='tcp')"
                )
            return
        # A BYE over UDP may be lost: a second after the first stream's, all are taken to have ended.
        self._last_call_ns = self._last_call_ns or now_ns
        if not all(ended) and self._lost_ns is None and now_ns - self._last_call_ns < NS:
            return
        self._buffer.flush()
        self._take_frames(now_ns)
        with self._sound_lock:
            heard = self._sound is None or not self._sound.started or self._sound.buffered_ns() == 0
        if not heard or len(self._playout) or (self._owed and now_ns - self._presented_ns < VERDICT_PATIENCE_NS):
            return
        self._drained_ns = self._drained_ns or now_ns + max(0, self._lead_ns)
        if now_ns >= self._drained_ns:
            self._ended.set()

    def _said_goodbye(self) -> bool:
        return bool(self._incoming) and all(incoming.ended for incoming in self._incoming.values())

    def _close_books(self, now_ns: int) -> None:
        """Every frame gets its fate, and the server its TEARDOWN."""
        self._buffer.flush()
        for item in [*self._buffer.pull(now_ns), *self._playout.flush()]:
            if isinstance(item, Dropped):
                self._decide(item.item, None, "in_flight" if item.reason != "late" else "late")
            else:
                self._decide(item, None, "in_flight")
        for tap in list(self._taps):
            tap.close()
        self._write_verdicts()
        for frame in self._owed.values():
            self._decide(frame, None, "in_flight")
        self._owed.clear()
        self._write_sound(last=True)
        self._recorder.meta["end_ns"] = now_ns
        if self._link is not None:
            self._send(self._session.teardown(), now_ns)
