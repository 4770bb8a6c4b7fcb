"""The server: the handle, and the loop of its one thread. What is sent and when is in `sending`, to whom behind `ends`.

That thread owns the sending and the audience with its sockets; two others read the clip ahead of it.
"""

from __future__ import annotations

import os
import platform
import selectors
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from avlab.measure.numbers.attendance import Member, audience_table
from avlab.measure.record.scratch import Scratch
from avlab.measure.record.trace import Recorder, Trace
from avlab.media import codec as jpeg_codec
from avlab.media.microphone import Microphone
from avlab.media.soundencoder import check_opus
from avlab.media.sources import ClipSource, open_source
from avlab.media.videoencoder import check_bit_rate, check_key_interval
from avlab.network.offload import Mode, Offload, check_offload
from avlab.network.ownnetwork import kept_going
from avlab.network.ownrepair import own_repairs
from avlab.network.parity import check_overhead
from avlab.network.ratecontrol import Choice, RateController, controller_name, controller_named
from avlab.network.settings import Network
from avlab.parts import Pacer, PartError, named
from avlab.stream.capturing import Capture, check_capture
from avlab.stream.classic.classicaudience import ClassicAudience
from avlab.stream.clock import MonotonicClock, clock_identity
from avlab.stream.described.describedaudience import DescribedAudience, refuse_asking
from avlab.stream.ends import Audience
from avlab.stream.handle import Handle, Worker
from avlab.stream.invitation import Invitation
from avlab.stream.joining import admission_of, let_class_in, new_code
from avlab.stream.places import Places
from avlab.stream.recording import SenderRecording
from avlab.stream.rtsp.audience import RtspAudience
from avlab.stream.sending.adapting import Adapting, Delivery
from avlab.stream.sending.clip import Sending
from avlab.stream.sending.meter import Meter
from avlab.stream.sending.pictures import BIT_RATE, KEY_INTERVAL, Pictures
from avlab.stream.sockets.links import Waker
from avlab.stream.sockets.tapped import TappedSockets
from avlab.stream.turns import ServerTurns
from avlab.timing.pacing import pacer_named
from avlab.timing.seat import pacer_name
from avlab.timing.spreading import check_spread
from avlab.wire.payloads.coded import OPUS_RATE
from avlab.wire.rtp import FIRST_DYNAMIC, MAX_PACKET, check_packet_size
from avlab.wire.text import printable
from avlab.wire.units import NS

if TYPE_CHECKING:
    import pandas as pd


_RTP = (RtspAudience, DescribedAudience)
"""The audiences whose packets have numbers: networks act on them, and reports come back."""

HTTP_HAS = {
    "packet_size": "TCP cuts up what it carries there",
    "spread": "TCP decides there when packets leave",
    "parity": "TCP sends again there what is lost",
    "repairs": "TCP sends again there what is lost",
    "rate_control": "its clients report nothing",
    "offload": "TCP cuts up what it carries there",
}
"""Why settings do not apply on the http wire."""


class Server(Handle):
    """Streams a clip to whoever asks: pictures and sound, encoded once and sent to every client.

    A handle: `start`, `stop`, `wait`; a context manager, which starts and stops it. `width`, `quality`, `pacer`,
    `network`, `spread`, `parity`, `rate_control` and `offload` may be set while it runs, from the next frame on.

    Args:
        source: A path; the number of a camera; an iterable of BGR uint8 arrays (height, width, 3) or of pairs (seconds,
            array); or None, where `microphone` is all that is sent. A camera is opened when the first client plays, and
            closed when the last has gone.
        wire: "rtsp", JPEG and L16 over RTP (RFC 2326, 2435, 3551); "http", a page for any browser at `url`, a phone's
            too, with pictures also as JPEG in parts (RFC 2046) at `url` + "stream"; or "classic", the tutorial's: a
            JPEG in base64 a datagram from `port`, and pickled sound over TCP from the port below. There a frame must
            fit one datagram (65,507 bytes at most, 9,216 on macOS); one that does not is skipped, and `notices` says
            what to lower.
        microphone: The sound of a camera: True for the system's own, a device's number, or a part of its name. Opened
            and closed with the camera.
        host: The address to listen at: 127.0.0.1, this machine alone, when left out; with `class_code` 0.0.0.0, all of
            this machine's; "::" for those of IPv6 as well.
        port: The port to listen at, 0 to 65535; 0 takes any free one, which `url` then has.
        width: Pixels, 16 to 2040, rounded to a multiple of 8; None for the clip's own.
        quality: JPEG quality, 1 to 100.
        pacer: When frames leave: "deadline", "tutorial", "pi" or "none", or a pacer of your own, as an object or its
            class. "none" sends as fast as it can, and no faster than the fastest client takes, where all of them say
            that they do not keep up (`client.frames` with more than one `waiting`).
        network: What happens to media on its way to each client and, except for the bottleneck, to reports and NACKs
            that come back over UDP. Signalling is spared.
        loop: Whether the clip begins again at its end, without a seam.
        once: Whether the server ends with the clip.
        fps: Frames a second of arrays that come without times.
        packet_size: How many bytes an RTP packet has at most, of pictures and sound, 576 to 65,000. A client may ask
            for smaller ones by Blocksize (RFC 2326, 12.7). What is larger than the path's own packets is cut up by IP,
            and a packet is lost with any of its pieces; a system that sends no datagram so large (macOS: 9,216 bytes)
            has it lowered, and `notices` says so.
        to: "HOST:PORT", an address or a group (239.255/16) that is sent the clip without RTSP, from `start` on and
            whether anybody receives it or not: pictures to the port, an even one, sound two above it, RTCP to the ports
            between. Nobody can ask for it, so that it is sent once, or without end with `loop`; `host` is the local
            address that it leaves from, the way there when left out. `url` is `sdp` then.
        sdp: The file that gets the description of what goes `to`, which players open: `avlab play FILE`, `ffplay`.
        multicast: Whether clients may ask to share one stream: it goes once to a group of 239.255/16, whoever and how
            many they are, at the interface of `host` alone, and no router passes it on. What is lost there is not
            repaired.
        spread: The share of a frame's time over which its packets leave, 0 to 0.95; 0 is one burst.
        parity: How many parity packets go with each packet, 0 to 1, to clients that asked for `repair="fec"`.
        repairs: Classes of your own, each of which sends something beside every frame to clients that ask for it by its
            name; see `avlab.parts`.
        rate_control: What lowers quality and width before the path to the clients overflows, and tries more again:
            "aimd", or an object or class with a method `update(Report)` that returns a `Choice` or None. Like `spread`
            and `parity`, it leads only to a notice on the classic and http wires, which have neither packets of their
            own nor reports.
        payload: What an encoded frame is on the wire, an object or a class: `pack(frame, most)` and
            `unpack(payloads)`, sent as X-<name>. The client has to be given the same; for the rtsp wire. See
            `avlab.parts`.
        codec: What makes bytes of pictures instead of JPEG, an object or a class: `encode(image, quality)` and
            `decode(data)`. The client has to be given the same; for the rtsp wire. See `avlab.parts`. Or "h264", which
            any player takes; a picture is encoded once for all clients.
        audio_codec: "opus", or None for L16, sound as it is.
        bit_rate: Kilobits a second of "h264", 50 to 50,000; less in proportion where `quality` is below 80, as
            `rate_control` may have it. It acts while the server runs.
        key_interval: Seconds from one key frame of "h264" to the next, 0.1 to 60; there is one, too, when a client
            joins or asks for one. It acts while the server runs.
        clients: How many may have a session at a time, 1 or more; further ones are refused, and `notices` says so. For
            the rtsp wire.
        clients_per_address: How many of them from one address, 1 or more; this machine's own do not count. For the rtsp
            and http wires.
        offload: Whether the system cuts a frame up into packets (UDP segmentation offload, Linux): "on" is least work,
            and a capture on this machine shows a frame as one large datagram; "off" hands over each packet as it is on
            the wire; "auto" is on from 5,000 packets a second for two seconds, off below 2,500, and `notices` says so.
        capture: A file that gets all that is sent and received from `start` on, RTSP, RTP and RTCP, as pcapng, which
            Wireshark reads: each datagram as it is on the wire. What is in the file already is replaced. `offload`
            "auto" is "off" then, for captures that others make of the same run.
        class_code: Whether only those who know a code of six letters may join, as the user "class" with the code for a
            password. It is drawn at the start; `class_code` says it, `invitation()` with addresses and a QR code.
            From an address with five wrong guesses nobody is heard for a minute.
        users: A file of lines `user:realm:HASH`, as htdigest makes them (MD5, or SHA-256 by 64 digits): only those
            users may join, and a class by its code as well. It is a secret: PermissionError unless it is its owner's
            alone (except on Windows). Both ask by Digest (RFC 7616), on the rtsp and http wires; a page of the http
            wire has a field for the code. Media is not encrypted, so that it keeps neighbours out and no determined
            listener.
        session_timeout: Seconds after which a client that says nothing has gone, more than 0 (RFC 2326, 12.37).
        isolated: Whether it runs in a process of its own, where a busy cell cannot hold it up. All that is handed in
            goes there as a copy, a pacer or rate control of your own too; what lives in this process alone is a
            ValueError.

    Raises:
        FileNotFoundError: There is no such clip.
        ValueError: A setting is outside its range.
        TypeError: A source or part is nothing that can be one.

    `start` raises OSError when the port is taken or the capture cannot be written. A source that fails in mid-stream is
    played as far as it goes; then clients get BYE (RFC 3550, 6.6), and `wait` and `stop` raise what it raised.
    """

    def __init__(
        self,
        source: Any = None,
        *,
        wire: Literal["rtsp", "http", "classic"] = "rtsp",
        microphone: Microphone = False,
        host: str | None = None,
        port: int = 0,
        width: int | None = None,
        quality: int = 80,
        pacer: str | Pacer | type[Pacer] = "deadline",
        network: Network | None = None,
        loop: bool = False,
        once: bool = False,
        fps: float | None = None,
        packet_size: int = MAX_PACKET,
        to: str | None = None,
        sdp: str | os.PathLike[str] | None = None,
        multicast: bool = False,
        spread: float = 0.0,
        parity: float = 0.25,
        repairs: Sequence[type[Any]] = (),
        rate_control: str | RateController | type[RateController] | None = None,
        payload: Any = None,
        codec: Any = None,
        audio_codec: Literal["opus"] | None = None,
        bit_rate: int = BIT_RATE,
        key_interval: float = KEY_INTERVAL,
        clients: int = 256,
        clients_per_address: int = 64,
        offload: Mode = "auto",
        capture: str | os.PathLike[str] | None = None,
        class_code: bool = False,
        users: str | os.PathLike[str] | None = None,
        session_timeout: float = 60.0,
        isolated: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= port <= 65_535:
            raise ValueError(f"port must be 0 (any free one) to 65535, not {port}")
        if wire not in ("rtsp", "http", "classic"):
            raise ValueError(f"wire must be 'rtsp', 'http' or 'classic', not {wire!r}")
        if not session_timeout > 0:
            raise ValueError(f"session_timeout must be more than 0 seconds, not {session_timeout}")
        for part_of, part in (("payload", payload), ("codec", codec)):
            if part is not None and wire != "rtsp":
                is_what = "a JPEG" if wire == "http" else "a JPEG in base64"
                raise ValueError(f"{part_of} acts on the rtsp wire alone: a frame is {is_what} on the {wire} wire")
        if not isinstance(class_code, bool):
            raise TypeError(
                f"class_code must be True or False, as the code is drawn at the start, not {class_code!r:.20}"
            )
        for name, asked in (("class_code", class_code), ("users", users is not None)):
            if asked and wire == "classic":
                raise ValueError(
                    f"{name} is the rtsp and http wires': nobody can be asked for a password on the classic wire"
                )
        if to is not None or sdp is not None:
            asking = {"class_code": class_code, "users": users, "multicast": multicast, "repairs": repairs}
            refuse_asking(to, sdp, wire, [name for name, value in {**asking, "port": port}.items() if value])
        way = host  # where it leaves from; None: as the system has it
        if host is None:
            host = "0.0.0.0" if class_code else "127.0.0.1"
        if multicast and wire != "rtsp":
            raise ValueError(f"multicast is the rtsp wire's: leave out wire={wire!r}, whose clients share nothing")
        if capture is not None and wire == "http":
            raise ValueError("capture is of RTSP, RTP and the classic wire: leave it out, or wire='http'")
        if multicast and ":" in host:
            raise ValueError(
                f"multicast is for addresses of IPv4, and host is {host}: give one of those, or leave it out"
            )
        if audio_codec not in ("opus", None):
            raise ValueError(f"audio_codec must be 'opus', or None for L16, not {audio_codec!r}")
        if audio_codec is not None:
            if wire != "rtsp":
                is_what = "samples as they are" if wire == "http" else "pickled"
                raise ValueError(f"audio_codec acts on the rtsp wire alone: sound is {is_what} on the {wire} wire")
            check_opus()
        self._audio_codec = audio_codec
        places = Places(clients, clients_per_address)
        self._pictures = Pictures(codec=codec, payload=payload, call=self._part_guard.call, failed=self._part_failed)
        self.source = open_source(source, loop=loop, fps=fps, microphone=microphone)
        # A file's name is bytes; what is said, recorded and sent of it is UTF-8, whatever this process takes it for.
        path = Path(os.fsencode(source).decode(errors="replace")) if isinstance(source, str | Path) else None
        self._clip = str(path or ("live" if self.source.live else "pictures"))
        self._once = once or (to is not None and not loop)
        self._host, self._class_code = host, ""
        self._admission = admission_of(users) if class_code or users is not None else None
        self._draws_code = class_code
        self._clock = MonotonicClock()
        self._recorder = Recorder(side="server", epoch_ns=self._clock.now_ns(), clock=clock_identity(), spill=Scratch())
        self._recorder.meta |= {
            "clip": self._clip,
            "wire": "rtp" if to is not None else wire,
            "target_fps": float(self.source.fps) if self.source.fps else None,
            "audio_rate": self.source.rate if audio_codec is None or not self.source.rate else OPUS_RATE,
            "payload_types": {"video": FIRST_DYNAMIC} if codec == "h264" else {},
            "platform": platform.platform(),
            "python": platform.python_version(),
        }
        self._wire = wire
        self._notices = self._recorder.notices
        self._capture_path = check_capture(capture)
        self._capture: Capture | None = None
        self._system = TappedSockets()
        self._network = Network()
        own = own_repairs(repairs, call=self._part_guard.call, failed=self._repair_failed)
        self.repairs = tuple(repairs)
        self._delivery = Delivery(offload=Offload(self._tell_of_offload))
        common: dict[str, Any] = {
            "host": host,
            "port": port,
            "session_timeout": session_timeout,
            "clock": self._clock,
            "recorder": self._recorder,
            "play": self._play,
            "notice": self._notice,
            "system": self._system,
        }
        self._outgoing = Meter()
        self.signalling: Audience
        if wire == "classic":
            self.signalling = ClassicAudience(self.source, **common)
        elif to is not None:
            for unused in ("port", "session_timeout"):
                del common[unused]
            common |= {"host": way, "delivery": self._delivery, "pictures": self._pictures, "audio_codec": audio_codec}
            file = None if sdp is None else Path(sdp)
            self.signalling = DescribedAudience(
                self.source, to=to, file=file, name=path.stem if path else "live", **common
            )
        elif wire == "http":
            from avlab.stream.http.httpaudience import HttpAudience  # its web server is for those who want one

            common |= {"name": path.stem if path else "live", "places": places, "spawn": self.spawn}
            del common["system"]
            common |= {"admission": self._admission, "by_code": class_code, "by_name": users is not None}
            self.signalling = HttpAudience(self.source, **common)
        else:
            name = path.stem if path else "live"
            common |= {"multicast": multicast, "admission": self._admission}
            common |= {"loop": loop, "delivery": self._delivery, "places": places, "pictures": self._pictures}
            common["repairs"] = own
            common["audio_codec"] = audio_codec
            self.signalling = RtspAudience(self.source, name=name, **common)
        self._sending = Sending(
            self.source,
            loop=loop,
            audience=self.signalling,
            clock=self._clock,
            record=SenderRecording(self._recorder).offered,
            ready=lambda: self._waker.wake(),  # there is none before the start
            notice=self._notice,
            pictures=self._pictures,
            call=self._part_guard.call,
            failed=self._pacer_failed,
            limit=self.signalling.fps_limit if isinstance(self.signalling, RtspAudience) else None,
        )
        self._adapting = Adapting(
            self._sending, self._choose, call=self._part_guard.call, failed=self._controller_failed
        )
        self._delivery.heard = self._adapting.heard
        self.width = width
        self.quality = quality
        self.pacer = pacer
        self.network = Network() if network is None else network
        self.packet_size = packet_size
        self.bit_rate = bit_rate
        self.key_interval = key_interval
        self.spread = spread
        if "parity" in self._made_with[1]:  # what was asked for, and no default, is told of where it does not apply
            self.parity = parity
        else:
            self._recorder.setting(self._clock.now_ns(), "parity", self.parity)
        if own:
            self._recorder.setting(self._clock.now_ns(), "repairs", ", ".join(map(named, repairs)))
        self._needs_rtsp("repairs", bool(own), "its packets have no numbers to tell which one is missing")
        self.rate_control = rate_control
        self.offload = offload
        if isinstance(self.source, ClipSource):
            for words in self.source.notices:
                self._notice("source", words)

    def __new__(cls, *args: Any, isolated: bool = False, **settings: Any) -> Self:
        """A server that works in this process, or one that has another do it."""
        kind: type[Any] = cls
        if isolated and cls is Server:
            from avlab.stream.isolated.isolatedserver import (
                IsolatedServer,  # which is a server, and so comes after this
            )

            kind = IsolatedServer
        made: Self = object.__new__(kind)
        return made

    # ---- what is set while it runs

    @property
    def width(self) -> int | None:
        """Pixels across, None for the clip's own; acts on the next frame encoded. ValueError outside 16 to 2040."""
        return self._sending.width

    @width.setter
    def width(self, value: int | None) -> None:
        if value is not None:
            jpeg_codec.check_width(value)
        self._sending.width = value
        self._recorder.setting(self._clock.now_ns(), "width", value)

    @property
    def quality(self) -> int:
        """JPEG quality; acts on the next frame encoded. ValueError outside 1 to 100."""
        return self._sending.quality

    @quality.setter
    def quality(self, value: int) -> None:
        jpeg_codec.check_quality(value)
        self._sending.quality = value
        self._recorder.setting(self._clock.now_ns(), "quality", value)

    @property
    def pacer(self) -> Pacer | type[Pacer]:
        """What decides when a frame leaves; set it to a name or a pacer, and it acts on the next frame."""
        return self._sending.pacer

    @pacer.setter
    def pacer(self, value: str | Pacer | type[Pacer]) -> None:
        self._sending.pacer = pacer = pacer_named(value)
        self._recorder.setting(self._clock.now_ns(), "pacer", pacer_name(pacer))
        waker = getattr(self, "_waker", None)
        if self.running and waker is not None:  # it may wait for a pacer that stands still
            waker.wake()

    @property
    def network(self) -> Network:
        """What happens to media on its way to each client; acts on the next packet.

        TypeError for anything but a Network; ValueError on the classic wire, which has no numbers to see a loss by, and
        on the http wire, where TCP sends again what is lost.
        """
        return self._network if isinstance(self.signalling, _RTP) else Network()

    @network.setter
    def network(self, value: Network) -> None:
        if not isinstance(value, Network):
            raise TypeError(f"network must be an avlab.Network, not {value!r:.60}")
        if isinstance(self.signalling, _RTP):
            self._network = value
            self.signalling.network = kept_going(value, self._part_guard.call, self._network_failed)
        elif not value.clear:
            raise ValueError(f"network acts on the rtsp wire alone: leave out wire={self._wire!r} to lose packets")
        self._recorder.setting(self._clock.now_ns(), "network", str(value))

    @property
    def packet_size(self) -> int:
        """Bytes of the largest RTP packet, pictures and sound alike; acts on the next frame. ValueError outside 576 to
        65,000.
        """
        return self._delivery.packet_size

    @packet_size.setter
    def packet_size(self, value: int) -> None:
        self._delivery.packet_size = check_packet_size(value)
        self._needs_rtsp("packet_size", value != MAX_PACKET, "a frame is one datagram there")
        self._recorder.setting(self._clock.now_ns(), "packet_size", value)

    @property
    def spread(self) -> float:
        """The share of a frame's time over which its packets leave, 0 to 0.95; acts on the next frame. ValueError."""
        return self._delivery.spread

    @spread.setter
    def spread(self, value: float) -> None:
        self._delivery.spread = check_spread(value)
        self._needs_rtsp("spread", bool(value), "a frame is one datagram there")
        self._recorder.setting(self._clock.now_ns(), "spread", value)

    @property
    def parity(self) -> float:
        """Parity packets a packet, 0 to 1, where a client asked for them; acts on the next frame. ValueError."""
        return self._delivery.parity

    @parity.setter
    def parity(self, value: float) -> None:
        self._delivery.parity = check_overhead(value)
        self._needs_rtsp("parity", bool(value), "its packets have no numbers to tell which one is missing")
        self._recorder.setting(self._clock.now_ns(), "parity", value)

    @property
    def rate_control(self) -> RateController | type[RateController] | None:
        """What chooses quality and width by what clients report; set it to a name, to one's own, or to None.

        Of a class, the object that was made of it for the first report; the class until then.
        """
        return self._adapting.working

    @rate_control.setter
    def rate_control(self, value: str | RateController | type[RateController] | None) -> None:
        self._adapting.controller = controller = controller_named(value)
        self._needs_rtsp("rate_control", controller is not None, "its clients report nothing")
        name = None if controller is None else controller_name(controller)
        self._recorder.setting(self._clock.now_ns(), "rate_control", name)

    @property
    def held_back_by(self) -> str | None:
        """The address of the client for whose path `rate_control` sends less than the best; None while it does not.

        A controller of one's own tells by an attribute of the same name: the client of the report that decided.
        """
        client = getattr(self._adapting.working, "held_back_by", None)
        if not isinstance(client, int) or not isinstance(self.signalling, _RTP):
            return None
        return self.signalling.address_of(client)

    @property
    def offload(self) -> Mode:
        """Whether the system cuts packets up, "auto", "on" or "off"; acts on the next packets. ValueError.

        What is used is in the trace, as `offload in use`: on, off, or not available.
        """
        return self._delivery.offload.mode

    @offload.setter
    def offload(self, value: Mode) -> None:
        mode = check_offload(value)
        self._delivery.offload.mode = "off" if mode == "auto" and self._capture_path is not None else mode
        self._needs_rtsp("offload", value == "on", "a frame is one datagram there")
        self._recorder.setting(self._clock.now_ns(), "offload", self._delivery.offload.mode)

    def _tell_of_offload(self, used: str, words: str) -> None:
        self._recorder.setting(self._clock.now_ns(), "offload in use", used)
        if words:
            self._notice("offload", words + "; offload='off' leaves each as it is" * (used == "on"))

    def _needs_rtsp(self, name: str, asked: bool, why: str) -> None:
        if asked and self._wire != "rtsp":
            why = why if self._wire == "classic" else HTTP_HAS[name]
            self._notice(f"{name} does not apply", f"{name} does nothing on the {self._wire} wire: {why}")

    def _choose(self, choice: Choice) -> None:
        self.quality, self.width = choice

    @property
    def audio_codec(self) -> str | None:
        """What sound is coded in; None for L16."""
        return self._audio_codec

    @property
    def bit_rate(self) -> int:
        """Kilobits a second of H.264, 50 to 50,000; acts on the next frame. ValueError."""
        return self._bit_rate

    @bit_rate.setter
    def bit_rate(self, value: int) -> None:
        self._bit_rate = self._pictures.bit_rate = check_bit_rate(value)
        if self.codec == "h264":
            self._recorder.setting(self._clock.now_ns(), "bit_rate", value)

    @property
    def key_interval(self) -> float:
        """Seconds from one key frame of H.264 to the next, 0.1 to 60; acts on the next frame. ValueError."""
        return self._pictures.key_interval

    @key_interval.setter
    def key_interval(self, value: float) -> None:
        self._pictures.key_interval = check_key_interval(value)
        if self.codec == "h264":
            self._recorder.setting(self._clock.now_ns(), "key_interval", value)

    @property
    def payload(self) -> Any:
        """What a frame is on the wire, where it is anyone's own; None for RTP/JPEG."""
        return self._pictures.payload

    @property
    def codec(self) -> Any:
        """What makes bytes of pictures: "h264", or anyone's own; None for JPEG."""
        return self._pictures.codec

    # ---- what it says of itself

    @property
    def url(self) -> str:
        """Where clients find it; RuntimeError before `start`."""
        if not self._started:
            raise RuntimeError("the server has no address before start(): call start(), or use it in a with statement")
        return self.signalling.url

    @property
    def description(self) -> str:
        """What a server with `to` sends and where, as a session description (RFC 4566), from `start` on; else empty."""
        return self.signalling.describe() if self._started and isinstance(self.signalling, DescribedAudience) else ""

    @property
    def class_code(self) -> str:
        """The code that a class joins by, from `start` on; empty for a server without one."""
        return self._class_code

    def invitation(self) -> Invitation:
        """How to join, for people in the room: addresses, the code, and both as a QR code.

        Displays itself in a notebook, and `print` has it in text. RuntimeError before `start`, and for a server with
        `to`, which nobody can ask.
        """
        if isinstance(self.signalling, DescribedAudience):
            raise RuntimeError("nobody joins a stream that goes to an address: hand over its description, server.url")
        return Invitation(self.url, self._host, self.class_code)

    @property
    def clip_width(self) -> int | None:
        """How wide the clip's own pictures are, in pixels; None as long as that is unknown."""
        return self.source.width

    @property
    def clients(self) -> int:
        """How many clients have a session."""
        return self.signalling.clients

    @property
    def members(self) -> tuple[Member, ...]:
        """What `audience` is a table of: a named tuple a client, times in Unix nanoseconds; cheap, from any thread."""
        return self.signalling.members

    @property
    def audience(self) -> pd.DataFrame:
        """Who plays, and how it goes: a row a client, by its number; empty before anybody comes. From any thread.

        `name` is what the client says it is called (`Client(name=...)`; RTCP's NAME), a stranger's word of at most 40
        characters; `address`; `since`, when it came, a time; `fps`, frames sent to it a second; of its latest RTCP
        report, `loss` (a share of the packets, 0 to 1), `jitter` and `round_trip` in seconds, and `last_report`, how
        many seconds ago that came; `kbps`, what is sent to it in kilobits a second, with sound and repair. Rates are of
        the last two seconds. What is not known is NaN: on the classic and http wires nobody reports. Whoever comes
        by multicast is shown what the group gets.
        """
        return audience_table(self.members, datetime.now().astimezone().tzinfo or UTC)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of, a sentence each, oldest first: frames that do not fit the wire, say."""
        return tuple(self._notices)

    @property
    def part_error(self) -> PartError | None:
        """Why the first part of one's own that failed did; the stream goes on without it."""
        return super().part_error

    def _play(self, now_ns: int) -> int:
        return self._sending.play(now_ns)

    def _notice(self, name: str, words: str) -> None:
        self._recorder.event(self._clock.now_ns(), name, words)
        self._notices.add(words)

    _tell = _notice

    def _pacer_failed(self, error: PartError) -> None:
        self._part_failed(error, "Frames are sent by their deadlines now")

    def _network_failed(self, error: PartError) -> None:
        self._part_failed(error, "The stream goes on without it")

    def _repair_failed(self, error: PartError) -> None:
        self._part_failed(error, "Frames are sent without it now")

    def _controller_failed(self, error: PartError) -> None:
        self._part_failed(error, "Quality and width stay as they are")

    @property
    def trace(self) -> Trace:
        """What this side has seen so far."""
        return self._recorder.trace()

    def status(self) -> str:
        """A line of what is going on."""
        if self.start_ns is None:
            return f"{self._counted()}, waiting for a client"
        rate = self._outgoing.megabits(self.signalling.sent_bytes, self._clock.now_ns())
        return f"{self._counted()}, media time {self._media_seconds():.1f} s, sends {rate:.1f} Mbit/s"

    @property
    def sent_bytes(self) -> int:
        """Bytes of media that went out so far, to all clients together: with RTP's headers, without UDP's."""
        return self.signalling.sent_bytes

    @property
    def start_ns(self) -> int | None:
        """When the clip began, on the server's clock in nanoseconds; None before that."""
        return self._sending.start_ns

    def _counted(self) -> str:
        return "1 client" if self.clients == 1 else f"{self.clients} clients"

    def _media_seconds(self) -> float:
        start_ns = self.start_ns
        return 0.0 if start_ns is None else (self._clock.now_ns() - start_ns) / NS

    def __repr__(self) -> str:
        state = f"at {self.url}, {self._counted()}" if self.running else "not running"
        return f"<Server of {printable(self._clip)}, {state}>"

    @property
    def ssrcs(self) -> set[int]:
        """The sources that its clients know its tracks by."""
        return self.signalling.ssrcs

    # ---- life

    def _begin(self) -> None:
        if self._admission is not None and self._draws_code:
            self._class_code = new_code()
            let_class_in(self._admission, self._class_code)
        if self._capture_path is not None:
            capture = Capture(self._capture_path, clock=self._clock, notice=self._notice)
            self._capture = self._system.tap = capture
            self.spawn("capture", capture.run)
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        if isinstance(self.signalling, DescribedAudience):  # which nobody asks for a description later
            self._pictures.foretell(self.source, width=self.width, quality=self.quality)
        self.signalling.open(self._selector)
        self._selector.register(self._waker, selectors.EVENT_READ)
        for name, feed in self._sending.feeds.items():
            self.spawn(name, feed.run, feed.wake)
        self.spawn("server", self._run, self._waker.wake)

    def _release(self) -> None:
        if hasattr(self, "_selector"):
            self._selector.close()
            self.signalling.close()
            self._waker.close()
        if self._capture is not None:
            self._capture.close()

    # ---- the server's thread

    def _run(self, worker: Worker) -> None:
        turns = ServerTurns(
            self.signalling,
            self._sending,
            clock=self._clock,
            over=lambda now_ns: self._recorder.event(now_ns, "end of clip"),
        )
        try:
            while not worker.stopping.is_set():
                if turns.turn(self._clock.wait(self._selector, turns.wake_at(), attentive=True)) and self._once:
                    self._ended.set()
        finally:
            turns.leave()


update_wrapper(Server.__new__, Server.__init__, assigned=())  # help shows what the constructor takes
