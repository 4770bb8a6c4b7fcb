"""A server of the classic wire as a client sees it: pictures in datagrams, sound over a connection, and no more.

The connection is read no faster than its sound is played, so that TCP holds the server back: the tutorial's sends all
of its sound at once. All of it belongs to the client's thread, but for `open` and `play`, which come before it.
"""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from avlab.core.sink import SPARE_NS
from avlab.stream.clock import Clock
from avlab.stream.ends import Offer, SoundOffer
from avlab.stream.playing.presentation import Presentation
from avlab.stream.recording import PlayerRecording
from avlab.stream.sockets.dialling import BrokenOffError, Dialler
from avlab.stream.sockets.links import Address, TcpLink, UdpLink
from avlab.stream.sockets.tapped import TappedSockets
from avlab.timing.jitterbuffer import Frame
from avlab.wire.classic import (
    CHANNELS,
    HELLO,
    PORT,
    RATE,
    ClassicChunk,
    ClassicEnd,
    ClassicSound,
    ClassicVideo,
    sound_port,
)
from avlab.wire.malformed import MALFORMED_PICTURES, MalformedCount
from avlab.wire.units import NS, WireError

DELAY_NS = 100_000_000
"""How long sound is held back, its device's latency included: two of the tutorial's chunks are 46 ms."""

GREET_NS = NS
"""A hello may be lost like any datagram: it is said again until a picture comes."""

QUIET_NS = 3 * NS
"""With the sound over, or none, so long without a picture is the end: nothing on the wire says so."""

AFTER_NS = NS // 4
"""How long after the connection's end a picture may still be on its way."""

SILENCE_NS = 10 * NS
"""With neither picture nor sound for so long, and the sound not over, the server is taken for gone."""

TURN_BYTES = 8192
"""Read of the connection at a time: two of the tutorial's chunks."""

MOST_CHUNKS = 32
"""Chunks of one turn that are kept apart; more of them are of a few samples each, and would cost the others time."""

LOOK_NS = NS // 10
"""How often the end is looked for, and the connection once the sound is over."""

NO_PLAYOUT_DELAY = (
    "The classic wire carries no timestamps, so nothing tells when a picture is to be shown: each is shown as it "
    "comes, and playout_delay does not apply. Play over rtsp:// to have it."
)

BROKEN_OFF = (
    "The server at {where} closed the connection without an empty chunk, the only end that the classic wire has: it "
    "was stopped or lost in mid-stream, or it is the tutorial's, which ends so with its clip."
)

QUIET = (
    "No picture has come from {where} for {seconds} s: taken for the end, as the classic wire does not tell one; it "
    "may also be that the server was lost."
)

NO_PICTURE = (
    "Sound comes from {where} and not one picture: it may have none, its frames may be too large for a datagram there "
    "(its notices say so), or a firewall holds back UDP datagrams from port {port}."
)

_REASONS = {
    "class_code": "asks nobody for a code",
    "allow_basic": "asks nobody for a password",
    "video_over": "has pictures over UDP and sound over TCP, and no way to ask for anything else",
    "audio_over": "has pictures over UDP and sound over TCP, and no way to ask for anything else",
    "reconnect": "has no description by which a stream could be known to be the same one, and its pictures are no RTP",
    "av_offset": "carries no timestamps, so that nothing ties a picture to its sound that could be shifted",
    "jitter_buffer": "has one datagram a frame, so that there is nothing to put in order or together",
    "payload": "has each frame as a JPEG in base64 in one datagram",
    "codec": "has each frame as a JPEG in base64 in one datagram",
    "repair": "has one datagram a frame and no numbers on them, so that nothing can be asked for again or made up for",
}


def is_classic(url: str) -> bool:
    """Whether an address is one of the classic wire."""
    return isinstance(url, str) and url.lower().startswith("classic:")


def refuse_choices(**given: Any) -> None:
    """ValueError for a setting that was made and that this wire has no way to keep."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} cannot be had: the classic wire {_REASONS[name]}; use rtsp:// for it")


class ClassicReceiver:
    """An `ends.Receiver`: pictures by UDP from the address's port (9688 when it names none), sound from the one below.

    `notice(name, words)` tells a person a sentence, once, and puts it into the record each time. ValueError for an
    address that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        presentation: Presentation,
        clock: Clock,
        recording: PlayerRecording,
        notice: Callable[[str, str], None],
        system: TappedSockets,
    ) -> None:
        self._system = system
        parts = urlsplit(url)
        try:
            port = PORT if parts.port is None else parts.port
        except ValueError:
            port = 0
        if not parts.hostname or not port or parts.path.strip("/"):
            raise ValueError(f"{url!r} is no address to play: write it as classic://host:port")
        if not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}")
        sound_port(port)
        self._host, self._port, self._timeout = parts.hostname, port, timeout
        self._presentation, self._clock, self._recording, self._notice = presentation, clock, recording, notice
        self._video, self._sound = ClassicVideo(), ClassicSound()
        self._address: Address = ("", 0)
        self._looked_ns = self._moved_ns = 0
        self._udp: UdpLink  # from `open` on
        self._tcp: TcpLink | None = None  # stays None where there are pictures alone
        self._links: list[UdpLink | TcpLink] = []  # to be closed
        self._early: list[tuple[bytes, Address]] = []
        self._held: deque[ClassicChunk] = deque()  # came, and is not to be handed on yet
        self._reading = False
        self._pictures = 0
        self._malformed = MalformedCount()
        self._dialler = Dialler()
        self._told: set[str] = set()  # notices
        self._samples = 0  # handed on
        self._pts_ns = 0  # where the next sound goes: pauses of the sender count
        self._began_ns: int | None = None  # when the first sound came
        self._picture_ns: int | None = None
        self._first_picture_ns = 0
        self._sound_ns: int | None = None
        self._sound_over_ns: int | None = None
        self._closed_ns: int | None = None

    @property
    def where(self) -> str:
        """host:port, for messages."""
        return f"{self._host}:{self._port}"

    @property
    def ssrcs(self) -> set[int]:
        """None: the wire has no such numbers."""
        return set()

    @property
    def said_goodbye(self) -> bool:
        """Whether the sound is over; the pictures' end is not told."""
        return self._sound_over_ns is not None

    # ---- before and after the client's thread

    def open(self) -> Offer:
        """Open the sound's connection; where there is none, see whether pictures come without one."""
        refusal: OSError | None = None
        for address in self._addresses():  # a name may have several, and the server listen at one
            self._address = address
            try:
                self._tcp = TcpLink(self._system.connection(self._connect(address[0]), opened=True))
                self._links.append(self._tcp)
                break
            except ConnectionRefusedError as error:
                refusal = error
        self._udp = self._system.tapped(UdpLink("::" if ":" in self._address[0] else "0.0.0.0"))
        self._links.append(self._udp)
        if self._tcp is None:
            self._wait_for_a_picture(refusal)
        streams, sound = frozenset({"video"}), None
        if self._tcp is not None:
            streams, sound = streams | {"audio"}, SoundOffer(RATE, CHANNELS)
        return Offer(streams, sound=sound, clip=self.where, delay_ns=DELAY_NS)

    def cancel(self) -> None:
        """See `ends.Receiver`."""
        self._dialler.cancel()

    def play(self, selector: selectors.BaseSelector) -> None:
        """Say hello, and register the sockets."""
        self._selector = selector
        selector.register(self._udp, selectors.EVENT_READ)
        self._read(self._tcp is not None)
        self._play_ns = self._greeted_ns = self._clock.now_ns()
        self._recording.note(self._play_ns, "play")
        self._udp.send([HELLO], self._address)
        self._take_datagrams(self._early, self._play_ns)

    def leave(self, now_ns: int) -> None:
        """Nothing can be said; closing the connection is all that a server may notice."""

    def close(self) -> None:
        """Close every socket."""
        for link in self._links:
            link.close()

    def _addresses(self) -> list[Address]:
        try:
            found = self._dialler.lookup(self._host, self._port, self._timeout)
        except (socket.gaierror, UnicodeError) as error:
            raise OSError(f"the host {self._host!r} is not known: check its spelling, or write its address") from error
        known = [(str(address[0]), self._port) for _, address in found]
        return sorted(known, key=lambda address: ":" in address[0])  # IPv4 first: it is all that the tutorial knows

    def _connect(self, host: str) -> socket.socket:
        """The sound's connection; ConnectionRefusedError when nothing listens there, else OSError with a sentence."""
        try:
            return self._dialler.connect(host, self._port - 1, self._timeout, prepare=_hold_back)
        except OSError as error:
            if isinstance(error, ConnectionRefusedError | BrokenOffError):
                raise
            if isinstance(error, TimeoutError):
                raise TimeoutError(
                    f"{self.where} does not answer within {self._timeout:g} s: check the address, and that no firewall "
                    f"is between; its sound is on TCP port {self._port - 1}"
                ) from error
            raise OSError(f"{self.where} cannot be reached: {error.strerror or error}") from error

    def _wait_for_a_picture(self, refusal: OSError | None) -> None:
        """A server may have pictures alone; ConnectionRefusedError when none comes either."""
        until_ns = self._clock.now_ns() + round(min(self._timeout, 2.0) * NS)
        self._udp.send([HELLO], self._address)
        with selectors.DefaultSelector() as selector:
            selector.register(self._udp, selectors.EVENT_READ)
            while not self._early and self._clock.now_ns() < until_ns:
                if self._dialler.cancelled:
                    raise BrokenOffError(f"the wait for a picture from {self.where} was broken off")
                if self._clock.wait(selector, min(until_ns, self._clock.now_ns() + NS // 20)):
                    self._early = [one for one in self._udp.receive() if one[1][0] == self._address[0]]
        if not self._early:
            raise ConnectionRefusedError(
                f"nothing listens at {self.where}: sound was refused on TCP port {self._port - 1}, and no picture "
                "came; start the server first, or check the port"
            ) from refusal
        self._recording.note(self._clock.now_ns(), "no sound", f"nothing listens on TCP port {self._port - 1}")

    # ---- what arrives

    def attend(self, what: Any, link: Any) -> None:
        """A socket is ready. WireError, with a sentence, when the server sends something else than sound."""
        if isinstance(link, TcpLink):
            self._take_bytes(link)
            return
        datagrams = link.receive()
        now_ns = self._clock.now_ns()
        if dropped := link.dropped():
            self._recording.note(now_ns, "socket_dropped", dropped)
        self._take_datagrams(datagrams, now_ns)

    def _take_datagrams(self, datagrams: list[tuple[bytes, Address]], now_ns: int) -> None:
        """Whole pictures, each a datagram; one that holds none is counted and passed over."""
        for datagram, address in datagrams:
            if address[0] != self._address[0]:
                continue
            try:
                self._take_picture(datagram, now_ns)
            except Exception as error:  # whatever is in it: the next one may be whole
                told = self._malformed.add(error)
                if told.record is not None:
                    self._recording.note(now_ns, "malformed packet", told.record)
                if told.notice is not None:
                    words = MALFORMED_PICTURES.format(where=self.where, why=told.notice)
                    self._notice("malformed pictures", words)

    def _take_picture(self, datagram: bytes, now_ns: int) -> None:
        [picture] = self._video.feed(datagram, now_ns)
        if self._picture_ns is None:
            self._first_picture_ns = now_ns
        self._picture_ns = now_ns
        self._recording.unnumbered(now_ns, "video", len(datagram))
        frame = Frame(
            ticks=self._pictures,
            pts_ns=now_ns - self._first_picture_ns + self._pictures,  # no two alike, even of one turn
            data=picture.jpeg,
            bytes=len(picture.jpeg),
            packets=1,
            packets_lost=0,
            first_packet_ns=now_ns,
            complete_ns=now_ns,
        )
        self._pictures += 1
        self._presentation.take_frame(frame, now_ns)

    def _take_bytes(self, link: TcpLink, most: int = TURN_BYTES) -> None:
        try:
            data = link.receive(most)
        except OSError:  # nobody is reached there any more: as good as closed
            data = None
        now_ns = self._clock.now_ns()
        if data is None:
            self._read(False)
            self._closed_ns = now_ns
            self._recording.note(now_ns, "sound connection closed")
            if self._sound_over_ns is None:
                self._sound_over_ns = now_ns
                if self._picture_ns is not None or self._sound_ns is not None:
                    self._tell("broken off", BROKEN_OFF)
            return
        try:
            self._take_sound(self._sound.feed(data, now_ns), now_ns)
        except WireError as error:
            self._recording.note(now_ns, "sound refused", str(error))
            raise
        except Exception as error:  # whatever its bytes have led to ends with a sentence, as this is the only peer
            words = f"the sound from {self.where} cannot be taken ({type(error).__name__}: {error})"
            self._recording.note(now_ns, "sound refused", words)
            raise WireError(words) from error

    def _take_sound(self, units: list[ClassicChunk | ClassicEnd], now_ns: int) -> None:
        if units:
            self._sound_ns = now_ns
        chunks = [unit for unit in units if isinstance(unit, ClassicChunk)]
        if len(chunks) > MOST_CHUNKS:
            chunks = [ClassicChunk(np.concatenate([chunk.samples for chunk in chunks]), now_ns)]
        for chunk in chunks:
            self._held.append(chunk)
            self._recording.unnumbered(now_ns, "audio", chunk.samples.nbytes)
        if any(isinstance(unit, ClassicEnd) for unit in units):
            self._sound_over_ns = now_ns
            self._recording.note(now_ns, "end of sound")
        self._hand_on(now_ns)

    def _hand_on(self, now_ns: int) -> None:
        """Give the presentation what is heard soon; while anything is left here, the connection is not read."""
        while self._held and self._due_ns(now_ns) <= now_ns:
            chunk = self._held.popleft()
            if self._began_ns is None:
                self._began_ns = now_ns
            ahead_ns = self._presentation.ahead_ns(self._pts_ns, now_ns)
            if ahead_ns is not None and ahead_ns < self._presentation.least_delay_ns - SPARE_NS // 2:
                # The sender has paused, and nothing says for how long: what comes now goes on from here.
                self._pts_ns += self._presentation.held_back_ns - ahead_ns
            self._presentation.take_sound(chunk.samples, ticks=self._samples, pts_ns=self._pts_ns, now_ns=now_ns)
            self._samples += len(chunk.samples)
            self._pts_ns += len(chunk.samples) * NS // RATE
        self._read(not self._held and self._sound_over_ns is None)

    def _due_ns(self, now_ns: int) -> int:
        """When the next sound is to be handed on: as long before it is heard as sound is held back."""
        if self._began_ns is None:
            return now_ns
        ahead_ns = self._presentation.ahead_ns(self._pts_ns, now_ns)
        if ahead_ns is None:
            return self._began_ns + self._pts_ns
        return now_ns + ahead_ns - self._presentation.held_back_ns

    def _read(self, wanted: bool) -> None:
        if self._tcp is not None and wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._selector.register(self._tcp, selectors.EVENT_READ)
            else:
                self._selector.unregister(self._tcp)

    # ---- what the moment asks for

    def wake_at(self) -> int:
        """When the next sound is to be handed on; the end is looked for ten times a second."""
        look_ns = self._moved_ns + LOOK_NS
        return min(look_ns, self._due_ns(self._moved_ns)) if self._held else look_ns

    def move_along(self, now_ns: int) -> None:
        """Hand sound on; say hello again while no picture has come."""
        self._moved_ns = now_ns
        if self._held:
            self._hand_on(now_ns)
        over = self._sound_over_ns is not None and self._closed_ns is None and not self._held
        if self._tcp is not None and over and now_ns - self._looked_ns > LOOK_NS:
            # For its closing alone: the tutorial's server sends empty chunks without end, as fast as they are read.
            self._looked_ns = now_ns
            self._take_bytes(self._tcp, 32 * TURN_BYTES)
        if self._picture_ns is None and now_ns - self._greeted_ns >= GREET_NS and self._sound_over_ns is None:
            self._greeted_ns = now_ns
            self._udp.send([HELLO], self._address)

    def deserted(self, now_ns: int) -> bool:
        """See `ends.Receiver`: the connection's end is the only one that this wire has."""
        return False

    def over(self, now_ns: int) -> bool:
        """Whether what is told, an empty chunk or the connection's end, and what is not, quiet, speak for the end."""
        if self._held:
            return False
        if self._picture_ns is None and self._sound_ns is None:
            self._see_that_it_lives(now_ns)
            return False
        quiet_ns = now_ns - (self._picture_ns or self._play_ns)
        if self._picture_ns is None and (quiet_ns > QUIET_NS or self._closed_ns is not None):
            self._tell("no picture", NO_PICTURE)
        if self._closed_ns is not None:
            if self._picture_ns is None and not self._sound.ended:
                raise ConnectionError(f"the server at {self.where} closed the connection before a picture came")
            return quiet_ns > AFTER_NS and now_ns - self._closed_ns > AFTER_NS
        if self._sound_over_ns is not None:
            return quiet_ns > QUIET_NS and now_ns - self._sound_over_ns > QUIET_NS
        if self._sound_ns is None:
            if quiet_ns > QUIET_NS:
                self._tell("quiet", QUIET)
                return True
            return False
        if quiet_ns > SILENCE_NS and now_ns - self._sound_ns > SILENCE_NS:
            raise TimeoutError(f"nothing has come from {self.where} for {SILENCE_NS // NS} s: the server is gone")
        return False

    def _tell(self, name: str, words: str) -> None:
        """A notice, once."""
        if name not in self._told:
            self._told.add(name)
            self._notice(name, words.format(where=self.where, port=self._port, seconds=QUIET_NS // NS))

    def _see_that_it_lives(self, now_ns: int) -> None:
        if self._closed_ns is not None and now_ns - self._closed_ns > AFTER_NS:
            raise ConnectionError(
                f"the server at {self.where} closed the connection before anything came: is it one of the classic "
                "wire, and is it still running?"
            )
        if now_ns - self._play_ns > self._timeout * NS:
            raise TimeoutError(
                f"neither picture nor sound has come from {self.where} within {self._timeout:g} s: is it a server of "
                "the classic wire, and does a firewall hold back datagrams?"
            )


def _hold_back(connection: socket.socket) -> None:
    # Before it connects: only the window of a small buffer holds a server back that sends all at once.
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
