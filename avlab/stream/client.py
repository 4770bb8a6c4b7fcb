"""The client: the handle, and the loop of its one thread, which owns the sockets and the presentation.

What receives is behind `ends`, what becomes of it in `presentation`, and what sound's own threads do in `sounding`.
Pictures leave through taps, and no taker can hold up the stream.
"""

from __future__ import annotations

import math
import os
import platform
import secrets
import selectors
from collections.abc import Callable, Generator
from typing import Any, Literal

from avlab.core.repairing import Repair, check_repair
from avlab.measure.record.join import join
from avlab.measure.record.scratch import Scratch
from avlab.measure.record.tables import UNKNOWN, WITHOUT_NUMBERS
from avlab.measure.record.trace import Recorder, Trace
from avlab.media.owncodec import check_codec
from avlab.network.ownrepair import OwnRepair
from avlab.network.settings import meant
from avlab.parts import JitterBuffer, PartError, PlayoutDelay, Target, gone_on, named
from avlab.stream.capturing import Capture, check_capture
from avlab.stream.classic.classicreceiver import NO_PLAYOUT_DELAY, ClassicReceiver, is_classic, refuse_choices
from avlab.stream.client_address import credentials_for, refuse_file, refuse_other
from avlab.stream.client_loop import ClientLoop
from avlab.stream.clock import MonotonicClock, WallClock
from avlab.stream.described.describedreceiver import DescribedReceiver, is_description
from avlab.stream.ends import Offer, Receiver, SoundOffer
from avlab.stream.handle import Handle, Worker, running_handles
from avlab.stream.http import httpcamera as camera
from avlab.stream.http.fetching import is_http
from avlab.stream.playing.decoding import Decoder, Decoding
from avlab.stream.playing.predicted import Damaged, PredictedDecoding
from avlab.stream.playing.presentation import Presentation
from avlab.stream.playing.sound import Sounding
from avlab.stream.playing.tap import Received, Tap
from avlab.stream.recording import PlayerRecording
from avlab.stream.returning import Returning
from avlab.stream.rtsp.reading import OwnParts
from avlab.stream.rtsp.receiver import RtspReceiver
from avlab.stream.server import Server
from avlab.stream.sockets.links import Waker
from avlab.stream.sockets.tapped import TappedSockets
from avlab.stream.turns import ClientTurns
from avlab.timing.jitterbuffer import Frame
from avlab.timing.ownbuffer import check_own_buffer
from avlab.timing.playout import DEFAULT_DELAY_NS
from avlab.timing.target import DelayTarget, OwnTarget, own_target
from avlab.wire.payloads.ownpayload import check_payload
from avlab.wire.text import check_name, printable
from avlab.wire.units import NS, PREDICTED
from avlab.wire.urls import redacted

SOUGHT_NS = NS // 10
"""How often it is looked for a server of this process."""

NO_NAME = "the server is not told the name: the {} wire has no reports that could carry it"


class Client(Handle):
    """Plays a stream of a server, avlab's or another, and records what became of every frame and packet.

    A handle: `start`, `stop`, `wait`; a context manager, which starts it and stops it.

    Args:
        url: `rtsp://host:port/path`; `http://host:port/path` or `https://`, a camera that sends JPEG in parts (MJPEG)
            or avlab's http wire, without sound; or `classic://host:port`, the tutorial's wire. The last two have no
            timestamps: pictures are shown as they come, sound is played as it comes, there is no playout delay, no
            `av_offset`, no repair and no choice of transports, and `trace.sync` stays empty. Or a file with a session
            description (RFC 4566), `session.sdp`, as `ffmpeg -sdp_file` and `Server(sdp=)` write it: RTP that comes to
            the address and the ports in it, from whoever sends there; nobody is asked for it.
        playout_delay: Seconds from the arrival of what came quickest to its presentation, 0.1 when left out; 0 shows
            pictures as they come, and "adaptive" has it found from the delays seen: longer by a moment of silence,
            shorter unheard. Or your own: `target(delays)`, a function of the delays of the last 500 arrivals in
            seconds, or a class with `observe(stream, delay, now)` and `target(now)`; see `avlab.parts`.
        jitter_buffer: A class of your own that puts pictures' packets in order and gives whole frames, in place of
            avlab's; see `avlab.parts`.
        payload: The payload format that the server was given as `payload`, an object or a class: its
            `unpack(payloads)`, with None for each that is lost, makes a frame's bytes of what came.
        codec: The codec that the server was given as `codec`, an object or a class: its `decode(data)` makes a picture
            of a frame's bytes.
        damaged: What is done with pictures of H.264 and H.265 that are whole, and predicted from one that a loss has
            spoilt: "show" them, or "freeze" the last good one until a key frame comes.
        repair: What brings back packets of pictures that are lost over UDP, where the server offers it: "rtx" asks for
            them again while they can still come in time (RFC 4585 and RFC 4588, which other servers offer, too), "fec"
            has parity sent with them (RFC 5109), and a class of your own has what a server with `repairs=` sends beside
            them, or asks for them by a rule of its own; see `avlab.parts`.
        audio: Where sound goes: "auto" (a device where there is one), "speaker" (a device is demanded) or "null" (time
            is kept, in silence).
        av_offset: Seconds that the device delays sound beyond what it reports (Bluetooth).
        video_over: "udp", "tcp" or "multicast"; UDP when left out. A server that refuses a mixture is asked again with
            one transport for both, and where no datagram comes through for 3 s, or UDP is refused, everything is asked
            for over TCP, with a notice; what was given here stays so. "multicast" is one stream for all who ask for it,
            where the server offers it, without repair. The transports in use are in `trace.settings`.
        audio_over: As `video_over`; TCP when left out.
        capture: A file that gets all that is sent and received, RTSP, RTP and RTCP, as pcapng, which Wireshark reads;
            credentials in it are blanked. What is in the file already is replaced.
        name: What whoever sits here is called, at most 40 characters: the server is told with each report, as RTCP's
            NAME (RFC 3550, 6.5.2), shows it in `server.audience`, and it is in the trace's `meta`.
        clock: What the client takes for the time, such as `avlab.OtherClock(ahead=0.3, ppm=50)`, a clock as another
            computer's would be; None for this computer's own.
        class_code: The code of six letters that a server's `class_code` says, in letters of any size.
        allow_basic: Whether a user and a password in the address, `rtsp://user:password@host:port/path`, are sent as
            they are where nothing better than Basic is asked for: everybody on the way can read them then. Without it
            they are used by Digest alone, and by Basic over https. They are in no record, message or `url`, and another
            server, to which one may send on, gets none.
        timeout: Seconds that the server has for each answer.
        reconnect: Whether a stream that breaks off is asked for again until it is back: the server was killed or
            stopped, the connection ended, or nobody answers any more. The first try is after half a second, then each
            after twice the time, up to ten seconds. A notice says when it broke off and when it is back; media time
            goes on as time does, and the gap counts as no loss. A server that comes back and refuses the password ends
            it at once, one that refuses the stream after a minute: then what it said is raised. `start` raises as ever
            when the server is not there; a goodbye that leaves the connection open is the clip's end.

    Raises:
        ValueError: The address or a setting is none that can be.
        TypeError: A part has not the methods that it needs.

    `start` raises OSError when the server cannot be reached or the capture cannot be written, and ValueError when the
    server offers nothing that can be played. A peer on the classic wire that sends another pickle than sound is
    refused: `wait` and `stop` raise WireError, a ValueError.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        playout_delay: float | Literal["adaptive"] | Target | type[PlayoutDelay] | None = None,
        jitter_buffer: type[JitterBuffer] | None = None,
        payload: Any = None,
        codec: Any = None,
        damaged: Damaged = "show",
        repair: Repair | type[Any] | None = None,
        audio: Literal["auto", "speaker", "null"] = "auto",
        av_offset: float = 0.0,
        video_over: Literal["udp", "tcp", "multicast"] | None = None,
        audio_over: Literal["udp", "tcp", "multicast"] | None = None,
        capture: str | os.PathLike[str] | None = None,
        name: str = "",
        clock: MonotonicClock | None = None,
        class_code: str | None = None,
        allow_basic: bool = False,
        timeout: float = 5.0,
        reconnect: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(reconnect, bool):
            raise ValueError(f"reconnect must be True or False, not {reconnect!r}")
        self.name = check_name(name)
        for name, way in (("video_over", video_over), ("audio_over", audio_over)):
            if way not in ("udp", "tcp", "multicast", None):
                raise ValueError(f"{name} must be 'udp', 'tcp' or 'multicast', not {way!r}")
        if audio not in ("auto", "speaker", "null"):
            raise ValueError(f"audio must be 'auto', 'speaker' or 'null', not {audio!r}")
        described = isinstance(url, str | os.PathLike) and is_description(url)
        if not described:
            refuse_file(url)
            refuse_other(url)
        address: Any = os.fspath(url) if described else url
        self.url: str = redacted(address) if isinstance(address, str) else address
        self._audio: Literal["auto", "speaker", "null"] = audio
        self._av_offset_ns = round(av_offset * NS)
        self.clock = MonotonicClock() if clock is None else clock
        self._recorder = Recorder(
            side="client", epoch_ns=self.clock.now_ns(), clock=self.clock.identity, spill=Scratch()
        )
        self._recorder.meta |= {"url": self.url, "platform": platform.platform(), "python": platform.python_version()}
        self._notices = self._recorder.notices
        self._capture_path = check_capture(capture)
        self._capture: Capture | None = None
        self._system = TappedSockets()
        self._delay_ns: int | None = 0
        self._own_delay: Any = None  # where the delay is anyone's own
        self._usual_delay = False  # it was left out: frames() does not wait for it
        self.repair = repair
        own_repair = None
        if not isinstance(repair, type):
            check_repair(repair)
        else:
            own_repair = OwnRepair(repair, call=self._part_guard.call, failed=self._repair_failed)
            if not (own_repair.recovers or own_repair.asks):
                raise TypeError(f"{own_repair.said} has neither recover nor ask, which is what a client needs of it")
        self.jitter_buffer = check_own_buffer(jitter_buffer)
        if payload is not None:
            check_payload(payload)
        if codec is not None:
            check_codec(codec)
        self.payload, self.codec = payload, codec
        if damaged not in ("show", "freeze"):
            raise ValueError(f"damaged must be 'show' or 'freeze', not {damaged!r}")
        self.damaged: Damaged = damaged
        self._peer: Server | None = None
        self._offer: Offer | None = None
        self._sought_ns = 0
        self._sought: set[int] = set()  # the sources that a server of this process was looked for by
        self._final: Trace | None = None
        recording = PlayerRecording(self._recorder)
        ssrc, unix_offset_ns = secrets.randbits(32), WallClock().unix_ns(0)
        self._recorder.meta |= {"reports_as": ssrc, "unix_offset_ns": unix_offset_ns}
        self._presentation = Presentation(recording, self._notices.add, ssrc=ssrc, unix_offset_ns=unix_offset_ns)
        if self.name:
            self._presentation.player.name = self._recorder.meta["name"] = self.name
        self._sounding: Sounding | None = None
        self._waker: Waker | None = None
        self._reconnects = reconnect
        self._loop: ClientLoop | None = None
        common: dict[str, Any] = {
            "timeout": timeout,
            "presentation": self._presentation,
            "clock": self.clock,
            "system": self._system,
            "recording": recording,
        }
        wire = "classic" if is_classic(address) else "http" if is_http(address) else "rtp" if described else "rtsp"
        self._recorder.meta["wire"] = wire
        self._untimed = wire in WITHOUT_NUMBERS
        if self.name and self._untimed:
            self._notice("name does not apply", NO_NAME.format(wire))
        self.receiver: Receiver
        self._make_receiver: Callable[[], Receiver]
        if wire == "http":
            camera.refuse_settings(
                video_over=video_over,
                audio_over=audio_over,
                av_offset=av_offset or None,
                jitter_buffer=jitter_buffer and named(jitter_buffer),
                payload=None if payload is None else _said(payload),
                codec=None if codec is None else _said(codec),
                repair=repair if own_repair is None else named(repair),
                capture=capture and os.fspath(capture),
                reconnect=reconnect or None,
            )
            secret = address.lower().startswith("https:")
            self.receiver = camera.HttpReceiver(
                address,
                timeout=timeout,
                presentation=self._presentation,
                clock=self.clock,
                recording=recording,
                notice=self._notice,
                spawn=self.spawn,
                credentials=credentials_for(address, class_code, allow_basic=allow_basic or secret),
            )
        elif wire == "classic":
            refuse_choices(
                class_code="..." if class_code is not None else None,
                allow_basic=allow_basic or None,
                video_over=video_over,
                audio_over=audio_over,
                av_offset=av_offset or None,
                jitter_buffer=jitter_buffer and named(jitter_buffer),
                payload=None if payload is None else _said(payload),
                codec=None if codec is None else _said(codec),
                repair=repair if own_repair is None else named(repair),
                reconnect=reconnect or None,
            )
            self.receiver = ClassicReceiver(address, notice=self._notice, **common)
        elif described:
            asked_for = {"class_code": class_code, "allow_basic": allow_basic or None, "repair": repair}
            asked_for |= {"reconnect": reconnect or None}
            for name, value in (asked_for | {"video_over": video_over, "audio_over": audio_over}).items():
                if value is not None:
                    raise ValueError(f"{name} is for a server that can be asked: {self.url} says how the stream comes")
            self.receiver = DescribedReceiver(
                address, notice=self._notice, own=self._own_parts(payload, codec), **common
            )
        else:
            asked = {"video": video_over, "audio": audio_over}
            over = {"video": video_over or "udp", "audio": audio_over or "tcp"}
            fixed = {stream for stream, way in asked.items() if way is not None}
            self._make_receiver = lambda: RtspReceiver(
                address,
                over=over,
                fixed=fixed,
                repair=own_repair or check_repair(repair),
                notice=self._notice,
                credentials=credentials_for(address, class_code, allow_basic=allow_basic),
                own=self._own_parts(payload, codec),
                **common,
            )
            self.receiver = self._make_receiver()
        if not self._untimed:
            for name, part in (("payload", payload), ("codec", codec)):
                if part is not None:
                    self._recorder.setting(self.clock.now_ns(), name, _said(part))
        if own_repair is not None:
            self._recorder.setting(self.clock.now_ns(), "repair", named(repair))
        if jitter_buffer is not None:
            self._presentation.player.buffer_by(
                jitter_buffer, call=self._part_guard.call, failed=self._jitter_buffer_failed
            )
            self._recorder.setting(self.clock.now_ns(), "jitter_buffer", named(jitter_buffer))
        if playout_delay is not None:
            self.playout_delay = playout_delay
        elif not self._untimed:
            self.playout_delay = DEFAULT_DELAY_NS / NS
            self._usual_delay = True

    # ---- what is set while it runs

    @property
    def playout_delay(self) -> Any:
        """Seconds from the quickest arrival to presentation, 0 to 5, "adaptive" or one's own; acts at once.

        ValueError, or TypeError for a class that is no playout delay.

        On the classic and http wires always 0, and setting it only leads to a notice.
        """
        if self._own_delay is not None:
            return self._own_delay
        return "adaptive" if self._delay_ns is None else self._delay_ns / NS

    @playout_delay.setter
    def playout_delay(self, seconds: float | Literal["adaptive"] | Target | type[PlayoutDelay]) -> None:
        own = own_target(seconds)
        if not own and seconds != "adaptive" and not (isinstance(seconds, int | float) and 0 <= seconds <= 5):
            asked = meant(seconds, 5) if isinstance(seconds, int | float) and seconds > 5 else ""
            raise ValueError(f"playout_delay must be 0 to 5 seconds or 'adaptive', not {seconds!r}{asked}")
        if self._untimed:
            words = NO_PLAYOUT_DELAY if is_classic(self.url) else camera.NO_PLAYOUT_DELAY
            self._notice("playout_delay does not apply", words)
            return
        self._usual_delay = False
        target = OwnTarget(seconds, call=self._part_guard.call, failed=self._delay_failed) if own else DelayTarget()
        self._own_delay = seconds if own else None
        self._delay_ns = None if own or seconds == "adaptive" else round(float(seconds) * NS)  # type: ignore[arg-type]
        if self._delay_ns is None:
            self._presentation.steer_by(target)
        said = named(seconds if callable(seconds) else type(seconds)) if own else seconds
        self._recorder.setting(self.clock.now_ns(), "playout_delay", said)
        if self.running and self._waker is not None:  # while it is being started, what was set is read later
            self._waker.wake()

    @property
    def playout_target(self) -> float:
        """The playout delay that holds at this moment, in seconds.

        It is what "adaptive" has found, or what was set; more than that where the sound needs it, as in the browser.
        With 0, pictures do not wait for the sound.
        """
        if not self._delay_ns:
            return self._presentation.delay_ns / NS
        return max(self._delay_ns, self._presentation.least_delay_ns) / NS

    # ---- what it says of itself

    @property
    def trace(self) -> Trace:
        """What was seen so far; joined with the server's own record when the server runs in this process.

        Not so on the classic and http wires: they carry no number by which a frame here could be known for one there.
        """
        if self._final is not None:
            return self._final
        final = self._stopped and not any(worker.alive for worker in self.workers)
        trace = self._recorder.trace()
        if self._peer is not None:  # after a BYE, nothing is on its way any more
            open_s = 0.0 if self.receiver.said_goodbye else self._presentation.unsettled_ns / NS
            trace = join(self._peer.trace, trace, in_flight=open_s)
        if final:
            self._final = trace
        return trace

    def recent(self, seconds: float, *, joined: bool = True) -> Trace:
        """What `trace` holds of the last `seconds`; what it costs does not grow with the run, so it can be asked often.

        That is each row of which any time is that late. Unless `joined`, it is what this side saw alone, and no server
        is asked, which may be another process.

        Args:
            seconds: How much of the run's end, 0 or more.
            joined: Whether a server of this process is asked for its part.
        """
        since_ns = self.clock.now_ns() - round(seconds * NS)
        trace = self._recorder.trace().tail(since_ns)
        if self._peer is None or not joined:
            return trace
        arrivals = trace.rows("frames")["first_packet"]  # what is seen since may have waited long for it
        first_ns = int(arrivals.min(initial=since_ns, where=arrivals != UNKNOWN))
        return join(self._peer.trace.tail(first_ns - NS), trace).tail(since_ns)

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
        if self._loop is not None and self._loop.broken:
            return "no connection, trying again"
        return self._presentation.status(self.clock.now_ns())

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of, a sentence each, oldest first: a setting that does not apply, say."""
        return tuple(self._notices)

    def nothing_shown(self) -> str | None:
        """Why no picture was shown so far, in a sentence; None when one was, or when there are none in the stream."""
        fates, (_, packets) = self._presentation.fates, self._presentation.received
        if (
            fates.get("shown")
            or fates.get("damaged")
            or (self._offer is not None and "video" not in self._offer.streams)
        ):
            return None
        if self._offer is None:
            return "no picture was shown: the stream had not begun"
        if fates.get("late"):
            why = f"all {fates['late']} that came were too late"
            why += "" if self._untimed else ": a longer playout_delay gives them time"
        elif packets:
            why = f"{packets} packets came, and not one whole picture"
        else:
            why = "none came"
        told = next(iter(self._notices), None)  # the first that went wrong is likely what the rest comes from
        return f"no picture was shown: {why}" + (f" ({told})" if told is not None else "")

    def _note(self, name: str, words: str | float) -> None:
        self._recorder.event(self.clock.now_ns(), name, words)

    def _notice(self, name: str, words: str) -> None:
        self._note(name, words)
        self._notices.add(words)

    _tell = _notice

    def _own_parts(self, payload: Any, codec: Any) -> OwnParts:
        return OwnParts(payload, codec, call=self._part_guard.call, failed=self._payload_failed)

    def _payload_failed(self, error: PartError) -> None:
        self._part_failed(error, "Pictures that it makes nothing of are incomplete")

    def _codec_failed(self, error: PartError) -> None:
        self._part_failed(error, "Pictures that it cannot decode are incomplete")

    def _delay_failed(self, error: PartError) -> None:
        self._part_failed(error, f"The playout delay is {DEFAULT_DELAY_NS / NS:g} s now")

    def _repair_failed(self, error: PartError) -> None:
        self._part_failed(error, "The stream goes on without it")

    def _jitter_buffer_failed(self, error: PartError) -> None:
        self._part_failed(error, "avlab's own jitter buffer has taken over")

    def __repr__(self) -> str:
        return f"<Client of {printable(self.url)}, {'playing' if self.running else 'not running'}>"

    # ---- pictures

    def frames(self, *, waiting: int = 1) -> Generator[Received]:
        """Pictures: `.image`, BGR uint8 (height, width, 3); `.pts` in seconds; `.captured`, the sender's time, or None.

        The classic and http wires tell no pts: there it is the time since the first picture came.

        A loop over a client that was not started starts it, without sound, and stops it at its end. Pictures come as
        soon as they are decoded, whatever the loop's body does meanwhile: playout waits for nothing then. On a client
        that was started before they come so, too, while it shows them in its window or view 0.1 s after they came; one
        that was made with a `playout_delay` has them come when they are presented.

        The newest wins: of what comes while the loop's body works, only the last `waiting` pictures are kept, oldest
        first; all are decoded. 1 is for looking; a loop that is to miss none needs more, and has to keep up on average:
        an avlab server that sends flat out (`pacer="none"`) is told when it does not. Ends with the stream; raises what
        failed, ValueError when `waiting` is below 1, and as `start`.

        Args:
            waiting: Pictures that wait at most, 1 or more.

        Raises:
            RuntimeError: It was started before, and that failed.
        """
        if waiting < 1:
            raise ValueError(f"waiting must be 1 or more pictures, not {waiting}")
        own = self.fresh
        if own:
            self._begin_for_frames()
        elif not self.started:
            raise RuntimeError("this client could not be started, and has no pictures: make a new one")
        tap = self._presentation.tap(decides=False, waiting=waiting, ahead=self._usual_delay)
        newest = -math.inf
        try:
            if own:
                self.start()
            while True:
                frame = tap.take(0.2)
                if frame is not None and frame.data is not None and frame.pts_ns > newest:
                    newest = frame.pts_ns
                    captured = None if frame.captured_ns is None else frame.captured_ns / NS
                    yield Received(frame.data, frame.pts_ns / NS, frame.image, captured)
                elif frame is None and not self.running:
                    self._raise_once()
                    return
                tap.ahead = self._usual_delay
        finally:
            self.untap(tap)
            if own:
                self.stop()

    def _begin_for_frames(self) -> None:
        """Nobody but a loop has the pictures, and nobody hears: what was left out is as that wants it."""
        if self._usual_delay:
            self.playout_delay = 0
        if self._audio == "auto":
            self._audio = "null"

    def tap(self, *, decides: bool = False) -> Tap:
        """A place to take pictures from. One that `decides` reports what became of each by `presented`.

        Of several that decide, the first one's verdicts count. A view that keeps its last one to itself for a second
        after the stream's end has it recorded as in flight.

        Args:
            decides: Whether its taker reports what became of each picture.
        """
        return self._presentation.tap(decides=decides)

    def untap(self, tap: Tap) -> None:
        """Let go of a tap.

        Args:
            tap: One that `tap` gave.
        """
        self._presentation.untap(tap)

    def presented(self, frame: Frame, now_ns: int) -> None:
        """A picture was seen at `now_ns`; from whoever holds a tap that decides.

        Args:
            frame: The picture, as the tap gave it.
            now_ns: When it was seen, in nanoseconds of the client's `clock`: of `time.perf_counter_ns`, unless it was
                given another.
        """
        self._presentation.presented(frame, now_ns)

    def view(self, *, sound: Literal["auto", "browser", "speaker", "none"] = "auto") -> Any:
        """The live view in a notebook; displays itself: picture, and sound in the browser or where `sound` says.

        `speaker` is the device where Python runs; `auto` is the browser, unless the client was made with
        `audio="speaker"` or "null". ValueError for another word, RuntimeError before `start`.

        Args:
            sound: "auto", "browser", "speaker" or "none".
        """
        # The one door upward, named in the contract of the floors: bound when asked for, as a view wants a notebook.
        from avlab.lab.notebook import view

        return view.view(self, sound=sound)

    @property
    def presentation(self) -> Presentation:
        """What becomes of pictures and sound; for views."""
        return self._presentation

    # ---- life

    def _begin(self) -> None:
        try:
            self._begin_playing()
        except TimeoutError as error:
            still = next((words for handle in running_handles() if (words := handle.standing_still)), None)
            if still is None:  # else that is, most likely, the server
                raise
            raise TimeoutError(gone_on(error, f"In this process, {still}")) from error

    def _begin_playing(self) -> None:
        import pandas  # noqa: F401 - now, as a first look at the trace in mid-stream would hold up the pictures

        if self._capture_path is not None:
            capture = Capture(self._capture_path, clock=self.clock, notice=self._notice)
            self._capture = self._system.tap = capture
            self.spawn("capture", capture.run)
        self._selector = selectors.DefaultSelector()
        self._waker = waker = Waker()
        self._offer = offer = self.receiver.open()
        self._find_server()
        self._recorder.meta |= {
            "target_fps": offer.fps,
            "audio_rate": offer.sound.rate if offer.sound is not None else None,
            "clip": offer.clip and printable(offer.clip),
            "payload_types": dict(offer.payload_types),
        }
        if offer.sound is not None:
            self._open_sound(offer.sound)
        timed = offer.delay_ns is None
        wanted_ns = self._delay_ns  # read once: what is set from here on is seen to by the loop
        self._presentation.begin(
            streams=set(offer.streams),
            delay_ns=wanted_ns if offer.delay_ns is None else offer.delay_ns,
            sounding=self._sounding,
            timed=timed,
            size=offer.size,
            fps=offer.fps,
            decoding=self._begin_decoding(offer, waker),
        )
        self.receiver.play(self._selector)
        self._selector.register(waker, selectors.EVENT_READ)
        turns = ClientTurns(
            self._presentation, self.receiver, sounding=self._sounding, delay_ns=wanted_ns, clock=self.clock
        )
        loop = ClientLoop(
            turns,
            self.receiver,
            selector=self._selector,
            waker=waker,
            clock=self.clock,
            before=lambda: self._before_turn(turns),
            after=self._after_turn,
        )
        if self._reconnects:
            told = Returning(note=self._note, notice=self._notices.add)
            loop.come_back(told, new_receiver=self._new_receiver, go_on=lambda offer: self._go_on(offer, waker))
        self._loop = loop
        self.spawn("client", lambda worker: self._run(worker, loop, turns), loop.look_up)

    def _cancel(self) -> None:
        self.receiver.cancel()
        if self._sounding is not None:
            self._sounding.ready.set()  # the device is waited for no more

    def _release(self) -> None:
        if self._waker is not None:
            self._selector.close()
            if self._loop is not None:
                self._loop.close()
            else:
                self.receiver.close()
            self._waker.close()
            self._presentation.close_taps()
        if self._capture is not None:
            self._capture.close()

    def _begin_decoding(self, offer: Offer, waker: Waker) -> Decoder | None:
        """What decodes pictures, on a thread of its own, where they are no JPEG."""
        if offer.coding in PREDICTED:
            predicted = PredictedDecoding(
                offer.coding, setup=offer.setup, damaged=self.damaged, notice=self._notice, ready=waker.wake
            )
            self.spawn("decoder", predicted.run, predicted.wake)
            return predicted
        if self.codec is None:
            return None
        guard = self._part_guard
        decoding = Decoding(
            self.codec,
            call=guard.call,
            failed=self._codec_failed,
            stuck=lambda: guard.stuck is not None,
            ready=waker.wake,
        )
        self.spawn("decoder", decoding.run, decoding.wake)
        return decoding

    def _find_server(self) -> None:
        """The server, if it is one of this process; its sources are known for sure once their packets have come."""
        ssrcs = self.receiver.ssrcs
        if ssrcs == self._sought:
            return
        self._sought = ssrcs
        servers = (handle for handle in running_handles() if isinstance(handle, Server))
        self._peer = next((server for server in servers if ssrcs & server.ssrcs), None)

    def _open_sound(self, sound: SoundOffer) -> None:
        """Open the device and let it run before anything is played: it takes a while until it asks steadily."""
        self._sounding = Sounding(
            rate=sound.rate,
            channels=sound.channels,
            audio=self._audio,
            av_offset_ns=self._av_offset_ns,
            clock=self.clock,
            note=self._note,
            notice=self._notice,
        )
        worker = self.spawn("speaker", self._sounding.run)
        self._sounding.ready.wait(3.0)
        if self._sounding.speaker is None and self._sounding.ready.is_set():  # it failed, and is about to say so
            worker.join(1.0)
        self._raise_once()

    # ---- the client's thread

    def _run(self, worker: Worker, loop: ClientLoop, turns: ClientTurns) -> None:
        try:
            loop.run(worker, self._ended.is_set)
            self._ended.set()
        finally:
            self._recorder.meta["end_ns"] = turns.leave()

    def _before_turn(self, turns: ClientTurns) -> None:
        turns.delay_ns = self._delay_ns

    def _after_turn(self) -> None:
        if self._peer is None and (now_ns := self.clock.now_ns()) >= self._sought_ns + SOUGHT_NS:
            self._sought_ns = now_ns
            self._find_server()

    def _new_receiver(self) -> Receiver:
        self.receiver = self._make_receiver()
        return self.receiver

    def _go_on(self, offer: Offer, waker: Waker) -> None:
        """The server is back: decoders take up what comes now, and sound is heard if the device is open for it."""
        decoding = self._presentation.decoding
        if offer.coding in PREDICTED and isinstance(decoding, PredictedDecoding):
            decoding.renew(offer.coding, setup=offer.setup)
        elif offer.coding not in PREDICTED and isinstance(decoding, Decoding):
            decoding.renew()
        else:
            decoding = self._begin_decoding(offer, waker)
        self._presentation.go_on(fps=offer.fps, decoding=decoding)
        open_for = None if self._sounding is None else SoundOffer(self._sounding.rate, self._sounding.channels)
        if offer.sound is not None and offer.sound != open_for:
            self._presentation.player.leave_out("audio")
            words = f"{offer.sound.rate:,} Hz and {offer.sound.channels} channels"
            self._notice("sound left out", f"the stream is back with other sound, of {words}: play it again to hear it")


def _said(part: Any) -> str:
    """What a part is called in the record: the name of its class."""
    return named(part if isinstance(part, type) else type(part))
