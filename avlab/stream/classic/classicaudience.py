"""The audience of the classic wire: whoever writes a datagram is sent pictures, whoever connects is sent sound.

Nothing on this wire says who is who or what anybody wants: a viewer and a listener are matched by their address, and
an address that proves nothing by a connection is sent two seconds (`timing.allowance`). What a peer does ends with its
own session. All of it belongs to the server's thread, but for `prepare` and `chunks`.
"""

from __future__ import annotations

import errno
import selectors
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from avlab.measure.numbers.attendance import Member, Pulse
from avlab.measure.record.trace import PacketTuple, Recorder
from avlab.media.sources import Source
from avlab.media.stereo import stereo
from avlab.stream.clock import Clock, WallClock
from avlab.stream.ends import SoundPart
from avlab.stream.sockets import listening
from avlab.stream.sockets.links import Address, TcpLink, UdpLink, bind_udp, interest, largest_datagram
from avlab.stream.sockets.tapped import TappedSockets
from avlab.timing.allowance import UNPROVEN_NS, Allowance
from avlab.wire.classic import (
    CHUNK_FRAMES,
    MAX_DATAGRAM,
    RATE,
    ClassicEnd,
    ClassicSound,
    ClassicVideo,
    sound_port,
)
from avlab.wire.units import NS, Chunk, EncodedFrame

PATIENCE_NS = 10 * NS
"""How long a viewer that no connection has proved keeps its place while there is nothing to send it."""

WAITING_NS = 30 * NS
"""How long a hello that was not answered, or no longer, is remembered for the connection that may follow it."""

GUESS_NS = 10 * NS
"""How long after a connection came for a remembered hello it may turn out to be that of another at its address."""

LATELY_NS = 5 * NS
"""A client says hello so soon after it has connected; a connection that is older may belong to nobody."""

MAX_WAITING, MAX_WAITING_HERE = 256, 8
"""How many of those there are, and how many from one host; the oldest are forgotten."""

DOUBT_NS = NS
"""How long a viewer is kept whose connection closed when there are others at its address: it may be one of theirs."""

MAX_VIEWERS = 256

MAX_UNMET, UNMET_NS = 64, 15 * NS
"""Connections that no hello has come for: how many there are, the oldest going first, and how long each may wait."""

STALL_BYTES = 1 << 18
"""A second and a half of sound: what comes while this much waits for a listener that does not read is dropped."""

EVENTS_TOLD = 200
"""How many refusals and partings the record names; a flood of forged datagrams could fill it with them."""


@dataclass(slots=True, eq=False)
class SoundListener:
    """A connection for sound."""

    link: TcpLink
    host: str
    since_ns: int
    leaving: bool = False  # once all that waits has been sent
    gone: bool = False


@dataclass(slots=True, eq=False)
class ClassicViewer:
    """Somewhere that a datagram came from."""

    address: Address
    since_ns: int
    listener: SoundListener | None = None
    doubtful_ns: int | None = None  # when its connection closed
    guessed_ns: int | None = None  # when a connection was taken for its own, long after its hello
    number: int = 0
    """From 1, in the order in which they came."""
    pulse: Pulse = field(default_factory=Pulse)
    frames: int = 0
    sent_bytes: int = 0


class ClassicAudience:
    """An `ends.Audience`: pictures by UDP on `port`, sound by TCP on the port below. Port 0: any such pair."""

    def __init__(
        self,
        source: Source,
        *,
        host: str,
        port: int,
        session_timeout: float,
        clock: Clock,
        recorder: Recorder,
        play: Callable[[int], int],
        notice: Callable[[str, str], None],
        system: TappedSockets,
    ) -> None:
        self._system = system
        if port:
            sound_port(port)
        self._source, self._host, self._port = source, host, port
        self._patience_ns = round(session_timeout * NS)
        self._clock, self._recorder, self._start, self._notice = clock, recorder, play, notice
        self.video, self._sound = ClassicVideo(), ClassicSound()
        self.viewers: dict[Address, ClassicViewer] = {}
        self.listeners: list[SoundListener] = []
        self._allowance = Allowance()
        self.waiting: dict[Address, int] = {}  # said hello, and is sent nothing until it connects; since when
        self._picture_ns: int | None = None  # the last picture's pts
        self._events = 0
        self.sent_bytes = 0
        self._met = 0  # viewers so far
        self._unix_offset_ns = WallClock().unix_ns(0)
        self._looked_ns = 0
        self._udp: UdpLink  # from `open` on
        self._opened: list[UdpLink | listening.Listener] = []  # to be closed
        self._door: listening.Listener

    # ---- what it says of itself

    @property
    def url(self) -> str:
        """Where clients find it, once it is open."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"classic://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def clients(self) -> int:
        """How many are sent pictures."""
        return len(self.viewers)

    @property
    def members(self) -> tuple[Member, ...]:
        """Who is sent pictures, since when and how much of them: nobody says here what came. From any thread."""
        now_ns = self._clock.now_ns()
        found = []
        for viewer in list(self.viewers.values()):
            fps, kbps = viewer.pulse.rates(now_ns)
            since_ns = viewer.since_ns + self._unix_offset_ns
            found.append(Member(viewer.number, "", viewer.address[0], since_ns, fps=fps, kbps=kbps))
        return tuple(found)

    @property
    def occupied(self) -> bool:
        """Whether anybody is left."""
        return bool(self.viewers)

    @property
    def ssrcs(self) -> set[int]:
        """None: the wire has no such numbers."""
        return set()

    # ---- sockets

    def open(self, selector: selectors.BaseSelector) -> None:
        """Bind both ports; OSError when one is taken."""
        self._selector = selector
        self._udp, self._door = self._bind()
        self._opened += self._udp, self._door
        self._port = self._udp.port
        self._udp.ask_for_refusals()
        self.video.max_datagram = max(4, largest_datagram(self._udp, MAX_DATAGRAM))  # tried out before there is a tap
        self._system.tapped(self._udp)
        selector.register(self._udp, selectors.EVENT_READ, "pictures")
        self._door.watch(selector, "door")

    def close(self) -> None:
        """Close every socket."""
        for listener in self.listeners:
            listener.link.close()
        for opened in self._opened:
            opened.close()

    def drain(self) -> None:
        """Let the last bytes leave, for up to half a second."""
        until_ns = self._clock.now_ns() + NS // 2
        while self._clock.now_ns() < until_ns:
            self.look_after(self._clock.now_ns())
            if not any(listener.link.waiting for listener in self.listeners):
                return
            self._clock.sleep_until(self._clock.now_ns() + 2_000_000)

    def _bind(self) -> tuple[UdpLink, listening.Listener]:
        for _ in range(100):
            udp = bind_udp(self._host, self._port)
            try:
                return udp, self._listen(sound_port(udp.port))
            except OSError as error:
                udp.close()
                if self._port:
                    reason = error.strerror or str(error)
                    raise OSError(error.errno, f"{reason} (sound is sent from the port below the pictures')") from error
        raise OSError(errno.EADDRINUSE, f"no two neighbouring ports are free on {self._host}")

    def _listen(self, port: int) -> listening.Listener:
        return listening.Listener(self._host, port, notice=self._notice, system=self._system)

    # ---- clients

    def attend(self, what: Any, link: Any, now_ns: int) -> None:
        """A socket is ready: a datagram, a refusal, a connection, or its end."""
        if what == "pictures":
            for address in link.refused():
                self._drop(address, now_ns, "nobody listens there any more")
            for _, address in link.receive():
                with self._session(address, now_ns):
                    self._greet(address, now_ns)
        elif what == "door":
            for arrival in link.accept(now_ns):
                self._admit(arrival, now_ns)
        else:
            with self._session(what, now_ns):
                self._hear(what, now_ns)

    @contextmanager
    def _session(self, peer: Address | SoundListener, now_ns: int) -> Iterator[None]:
        """Whatever goes wrong with one peer is recorded, and ends with it: the others go on."""
        try:
            yield
        except Exception as error:
            host = peer.host if isinstance(peer, SoundListener) else peer[0]
            self._tell(now_ns, "client failed", f"{host}: {type(error).__name__}: {error}")
            if isinstance(peer, SoundListener):
                self._hang_up(peer, now_ns)
            else:
                self._drop(peer, now_ns, "it could not be served")

    def wake_at(self) -> int | None:
        """When to look after the clients again."""
        moments = [self._looked_ns + NS // 4 if self.viewers or self.listeners or self.waiting else None]
        moments.append(self._door.wake_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def look_after(self, now_ns: int) -> None:
        """Part from those who are gone, who read nothing, and who proved nothing in time."""
        self._looked_ns = now_ns
        self._door.resume(now_ns)
        for listener in list(self.listeners):
            with self._session(listener, now_ns):
                self._look_after(listener, now_ns)
        for viewer in list(self.viewers.values()):
            if viewer.listener is not None:
                continue
            if viewer.doubtful_ns is not None:
                if now_ns - viewer.doubtful_ns > DOUBT_NS:
                    self._drop(viewer.address, now_ns, "its connection for sound is closed")
            elif now_ns - viewer.since_ns > PATIENCE_NS:
                self._put_off(viewer, now_ns, f"no connection for sound came in {PATIENCE_NS // NS} s")
        for address, since_ns in list(self.waiting.items()):
            if now_ns - since_ns > WAITING_NS:
                del self.waiting[address]

    def _look_after(self, listener: SoundListener, now_ns: int) -> None:
        link = listener.link
        stalled = link.progress_ns is not None and now_ns - link.progress_ns > self._patience_ns
        unmet = not listener.leaving and self._viewer_of(listener) is None
        unmet = unmet and now_ns - listener.since_ns > min(UNMET_NS, self._patience_ns)
        if stalled or unmet:
            self._tell(now_ns, "client timed out", f"{listener.host}: {'it reads' if stalled else 'it asks'} nothing")
        if listener.gone or stalled or unmet or (listener.leaving and not link.waiting):
            self._hang_up(listener, now_ns)
        elif link.waiting:
            interest(self._selector, link)

    def rewind(self) -> None:
        """The clip starts again at the next hello."""
        self._picture_ns = None

    def _greet(self, address: Address, now_ns: int) -> None:
        """Any datagram asks for the stream."""
        if address in self.viewers:
            return
        if len(self.viewers) >= MAX_VIEWERS:
            self._tell(now_ns, "client refused", f"{address[0]}: too many are there already")
            return
        free = self._free_at(address[0], now_ns)
        if free is None and not self._allowance.begin(address[0], now_ns):
            free = self._guessed(address[0], now_ns)
            if free is None:
                if address not in self.waiting:
                    self._tell(now_ns, "client waits", f"{address[0]}: for its connection for sound")
                self._wait(address, now_ns)
                return
        self._serve(ClassicViewer(address, now_ns, free), now_ns)

    def _serve(self, viewer: ClassicViewer, now_ns: int) -> None:
        self.waiting.pop(viewer.address, None)
        self._met += 1
        viewer.number = self._met
        self.viewers[viewer.address] = viewer
        self._start(now_ns)

    def _wait(self, address: Address, now_ns: int) -> None:
        """Remember a hello: the connection that follows it will prove it."""
        self.waiting.pop(address, None)
        self.waiting[address] = now_ns
        here = [other for other in self.waiting if other[0] == address[0]]
        for crowd, most in ((here, MAX_WAITING_HERE), (list(self.waiting), MAX_WAITING)):
            if len(crowd) > most:
                self.waiting.pop(crowd[0], None)

    def _guessed(self, host: str, now_ns: int) -> SoundListener | None:
        """A connection that was lately taken for that of an older hello, which may be forged: it is free again."""
        for viewer in self.viewers.values():
            if viewer.address[0] == host and viewer.guessed_ns is not None and now_ns - viewer.guessed_ns < GUESS_NS:
                del self.viewers[viewer.address]
                self._wait(viewer.address, now_ns)
                return viewer.listener
        return None

    def _put_off(self, viewer: ClassicViewer, now_ns: int, reason: str) -> None:
        """No more for one who has proved nothing, unless its connection still comes, or came for another."""
        listener = self._guessed(viewer.address[0], now_ns)
        if listener is not None:
            self._allowance.prove(listener.host)
            viewer.listener = listener
            return
        self._drop(viewer.address, now_ns, reason)
        self._wait(viewer.address, now_ns)

    def _admit(self, arrival: listening.Arrival, now_ns: int) -> None:
        if len(self.listeners) >= MAX_VIEWERS:
            arrival.link.close()
            return
        listener = SoundListener(arrival.link, arrival.address[0], now_ns)
        self.listeners.append(listener)
        self._selector.register(listener.link, selectors.EVENT_READ, listener)
        with self._session(listener, now_ns):
            self._match(listener, now_ns, doubtful=False)
            unmet = self._free()
            if len(unmet) > MAX_UNMET:
                self._tell(now_ns, "client refused", f"{unmet[0].host}: too many connections ask for nothing")
                self._hang_up(unmet[0], now_ns)

    def _hear(self, listener: SoundListener, now_ns: int) -> None:
        """Nothing that a listener says means anything but that it is there."""
        try:
            listener.link.flush(now_ns)
            if listener.link.receive() is None:
                self._hang_up(listener, now_ns)
            else:
                interest(self._selector, listener.link)
        except OSError:
            self._hang_up(listener, now_ns)

    def _free(self) -> list[SoundListener]:
        taken = {id(viewer.listener) for viewer in self.viewers.values()}
        return [listener for listener in self.listeners if id(listener) not in taken and not listener.leaving]

    def _free_at(self, host: str, now_ns: int) -> SoundListener | None:
        """The connection that a hello from there may be of: in their order when they came lately, else the last."""
        here = [listener for listener in self._free() if listener.host == host]
        lately = [listener for listener in here if now_ns - listener.since_ns < LATELY_NS]
        return lately[0] if lately else here[-1] if here else None

    def _viewer_of(self, listener: SoundListener) -> ClassicViewer | None:
        return next((viewer for viewer in self.viewers.values() if viewer.listener is listener), None)

    def _match(self, listener: SoundListener, now_ns: int, *, doubtful: bool) -> None:
        """A connection vouches for the viewer at its address that has waited longest for one, else for the last hello.

        A hello and its connection follow each other closely, and what waits longer may be forged.
        """
        for viewer in self.viewers.values():
            unproven = viewer.listener is None and viewer.address[0] == listener.host
            if unproven and (viewer.doubtful_ns is None or doubtful):
                if viewer.doubtful_ns is None:
                    self._allowance.prove(listener.host)
                viewer.listener, viewer.doubtful_ns = listener, None
                return
        waiting = next((address for address in reversed(self.waiting) if address[0] == listener.host), None)
        if waiting is not None and len(self.viewers) < MAX_VIEWERS:
            self._serve(ClassicViewer(waiting, now_ns, listener, guessed_ns=now_ns), now_ns)

    def _hang_up(self, listener: SoundListener, now_ns: int) -> None:
        """A connection is closed: its viewer goes too, unless it may have been the connection of another."""
        if listener not in self.listeners:
            return
        self.listeners.remove(listener)
        self._selector.unregister(listener.link)
        listener.link.close()
        viewer = self._viewer_of(listener)
        if viewer is None:
            return
        viewer.listener = None
        if any(other.address[0] == listener.host for other in self.viewers.values() if other is not viewer):
            viewer.doubtful_ns = now_ns
        else:
            del self.viewers[viewer.address]

    def _drop(self, address: Address, now_ns: int, reason: str) -> None:
        viewer = self.viewers.pop(address, None)
        if viewer is None:
            return
        self._tell(now_ns, "client gone", f"{address[0]}:{address[1]}: {reason}")
        if viewer.listener is not None:
            self._match(viewer.listener, now_ns, doubtful=True)
        elif viewer.doubtful_ns is None:
            self._allowance.end(address[0])

    def _tell(self, now_ns: int, name: str, words: str) -> None:
        self._events += 1
        if self._events <= EVENTS_TOLD:
            self._recorder.event(now_ns, name, words)

    # ---- what they are sent

    def chunks(self) -> Iterator[Chunk]:
        """The sound as the wire has it: 44,100 Hz, stereo, chunks of 1,024 sample frames."""
        return stereo(self._source.chunks(), rate=RATE, size=CHUNK_FRAMES)

    def prepare(self, frame: EncodedFrame) -> tuple[EncodedFrame, bytes]:
        """The frame's datagram."""
        return frame, self.video.pack(frame)[0]

    def timestamp(self, stream: str, pts_ns: int) -> None:
        """None: the wire has no timestamps."""

    def send_frame(self, unit: tuple[EncodedFrame, bytes], pts_ns: int) -> tuple[int | None, int | None]:
        """Send a frame's datagram to every viewer."""
        frame, datagram = unit
        first_ns: int | None = None
        shown_ns = self._shown_ns(pts_ns)
        for viewer in list(self.viewers.values()):
            now_ns = self._clock.now_ns()
            unproven = viewer.listener is None and viewer.doubtful_ns is None
            if unproven and not self._allowance.spend(viewer.address[0], shown_ns, now_ns):
                self._put_off(viewer, now_ns, f"no connection for sound came in {UNPROVEN_NS // NS} s of pictures")
                continue
            try:
                taken = self._udp.send_large(datagram, viewer.address)
                self.sent_bytes += len(datagram)
            except OSError as error:
                self.video.max_datagram = max(4, len(datagram) - 1)
                raise self.video.too_large(frame, len(datagram)) from error
            first_ns = first_ns or now_ns
            viewer.frames, viewer.sent_bytes = viewer.frames + 1, viewer.sent_bytes + len(datagram)
            if viewer.pulse.due(now_ns):
                viewer.pulse.mark(now_ns, viewer.frames, viewer.sent_bytes)
            self._recorder.packets([_row("video", len(datagram), now_ns, None if taken else "socket_dropped")])
        return first_ns, None if first_ns is None else 1

    def _shown_ns(self, pts_ns: int) -> int:
        """How long a picture is shown, which is not known yet: as long as the one before it was."""
        before_ns, self._picture_ns = self._picture_ns, pts_ns
        if before_ns is not None and pts_ns > before_ns:
            return pts_ns - before_ns
        return round(NS / (self._source.fps or 30))

    def send_sound(self, chunk: Chunk) -> tuple[int | None, Sequence[SoundPart]]:
        """Send a chunk to every viewer's listener."""
        messages = self._sound.pack(chunk)
        first_ns: int | None = None
        rows = []
        for viewer in self.viewers.values():
            listener = viewer.listener
            if listener is None or listener.gone:
                continue
            now_ns = self._clock.now_ns()
            stalled = listener.link.waiting > STALL_BYTES
            if not stalled:
                self._push(listener, b"".join(messages), now_ns)
            first_ns = first_ns or now_ns
            rows += [_row("audio", len(message), now_ns, "socket_dropped" if stalled else None) for message in messages]
        self._recorder.packets(rows)
        parts = (SoundPart(chunk.pts_ns, None, chunk.samples.nbytes),)
        return first_ns, parts if first_ns is not None else ()

    def say_goodbye(self, now_ns: int) -> None:
        """An empty chunk to every listener, the only end that there is; viewers are sent nothing more."""
        [end] = self._sound.pack(ClassicEnd())
        for viewer in self.viewers.values():
            if viewer.listener is not None:
                self._push(viewer.listener, end, now_ns)
                viewer.listener.leaving = True
            elif viewer.doubtful_ns is None:
                self._allowance.end(viewer.address[0])
        self.viewers.clear()
        self.waiting.clear()

    def _push(self, listener: SoundListener, data: bytes, now_ns: int) -> None:
        try:
            listener.link.send(data, now_ns)
            self.sent_bytes += len(data)
        except OSError:
            listener.gone = True  # parted from once the round of sending is over


def _row(stream: str, size: int, now_ns: int, fate: str | None) -> PacketTuple:
    return stream, None, None, None, None, size, now_ns, None, fate
