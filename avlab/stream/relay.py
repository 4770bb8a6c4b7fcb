"""An impairing relay between any two peers: UDP datagrams, and RTSP sessions with all that belongs to them.

One thread owns every socket. What comes in is handed to the network of its session and direction, what comes out of
that is sent on. Nothing goes anywhere but between the clients that came and the one peer that the relay was told of.
Whatever a client, the peer or the system does ends one session at most: see `Relay._guard`.
"""

from __future__ import annotations

import errno
import platform
import selectors
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from avlab.measure.record.scratch import Scratch
from avlab.measure.record.trace import PacketTuple, Recorder, Trace
from avlab.network.impairment import Copy, Impairment, InTransit
from avlab.network.offload import Offload
from avlab.network.ownnetwork import kept_going
from avlab.network.settings import Network
from avlab.parts import Dropped, PartError
from avlab.stream.clock import MonotonicClock, clock_identity
from avlab.stream.handle import Handle, Worker
from avlab.stream.places import MOST_WAITING
from avlab.stream.relaying.newcomers import (
    MAX_SESSIONS,
    Newcomer,
    room_for_connection,
    room_for_datagrams,
    room_for_setup,
)
from avlab.stream.relaying.session import (
    MAX_TRACKS,
    Carried,
    CarriedBytes,
    CarriedDatagram,
    Handler,
    RelaySession,
    RtspSession,
    Source,
)
from avlab.stream.sockets.links import SHORTAGES, Address, UdpLink, Waker
from avlab.stream.sockets.listening import ACCEPTED_A_TURN, OUT_OF_DESCRIPTORS, Arrival, Listener
from avlab.wire.rtp import HEADER, HEADER_BYTES, L16_MONO, L16_STEREO, VERSION_2, SequenceNumbers, is_rtcp
from avlab.wire.units import NS, WireError

TURN = 256
"""Datagrams read from one socket before the others have their turn."""

MAX_UNDER_WAY = 16 << 20
"""Bytes of one client's datagrams that the network may hold: 130 Mbit/s for a second."""

MAX_SOCKETS = 480 if sys.platform == "win32" else 1 << 16
"""`select` on Windows takes 512."""

NOTICES_TOLD = 64
"""How many notices there are at most."""

LONGEST_IDLE = 366 * 86_400
"""Seconds that `idle_timeout` may be."""

LONGEST_WAIT_NS = 3600 * NS
"""A selector cannot be asked to wait for months."""


CLOCK_RATE = 90_000
"""Ticks a second that numbers are judged by: that of pictures. A relay is not told what a stream's clock is."""


class Relay(Handle):
    """Puts a network between any two peers, avlab or not. A handle: start, stop, wait; a context manager.

    `to` is HOST:PORT, or an RTSP address, of the peer that clients are to reach through the relay, which listens on
    `port` of `host` (0: any free one; loopback unless told otherwise), for TCP and for UDP. A TCP connection is taken
    for an RTSP session: its addresses and ports are rewritten on the way, its media passes through ports of the relay's
    own. Datagrams go to the peer's port of the same number as they are, and its answers back to whoever sent them.

    `network` acts on both directions, on each with losses of its own, and may be set at any time: it acts on the next
    packet. With `one_way`, what goes to the peer has the delay and nothing else. `idle_timeout` is in seconds: a
    session is forgotten when nothing has come for so long. ValueError for what cannot be; `start` raises OSError when
    the port is taken.

    Args:
        to: HOST:PORT, or an RTSP address, of the peer.
        host: The address to listen at.
        port: The port to listen at, 0 to 65535; 0 takes any free one.
        network: What happens to packets, both ways.
        one_way: Whether what goes to the peer has the network's delay alone, without loss, jitter and the rest.
        idle_timeout: Seconds, more than 0 and at most a year.
    """

    def __init__(
        self,
        to: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        network: Network | None = None,
        one_way: bool = False,
        idle_timeout: float = 60.0,
    ) -> None:
        super().__init__()
        self._to_host, self._to_port, self._path = _target(to)
        if not 0 <= port <= 65_535:
            raise ValueError(f"port must be 0 (any free one) to 65535, not {port}")
        if not 0 < idle_timeout <= LONGEST_IDLE:
            words = "more than 0 seconds" if not idle_timeout > 0 else f"at most {LONGEST_IDLE:,} seconds, a year"
            raise ValueError(f"idle_timeout must be {words}, not {idle_timeout}")
        self._host, self._port = host, port
        self._one_way = one_way
        self.idle_ns = round(idle_timeout * NS)
        self._clock = MonotonicClock()
        self._recorder = Recorder(side="relay", epoch_ns=self._clock.now_ns(), clock=clock_identity(), spill=Scratch())
        self._recorder.meta |= {
            "clip": self._target_name,
            "shared_clock": True,
            "platform": platform.platform(),
            "python": platform.python_version(),
        }
        self._sessions: list[RelaySession] = []
        self._by_address: dict[Address, RelaySession] = {}
        self._numbered = 0
        self._notices = self._recorder.notices
        self._offload = Offload(self._tell_of_offload)
        self._ways: dict[Impairment, RelaySession] = {}  # those that hold something
        self._numbers: dict[tuple[str, int], SequenceNumbers] = {}
        self._rows: list[PacketTuple] = []
        self.network = network if network is not None else Network()

    @property
    def network(self) -> Network:
        """What is done to packets; acts on the next one. TypeError for anything but a Network."""
        return self._network

    @network.setter
    def network(self, value: Network) -> None:
        if not isinstance(value, Network):
            raise TypeError(f"network must be an avlab.Network, not {value!r:.60}")
        self._network = value
        self._kept = kept_going(value, self._part_guard.call, self._network_failed)
        for session in list(self._sessions):
            session.down.network, session.up.network = self._kept, self._upwards()
        self._recorder.setting(self._clock.now_ns(), "network", str(value))

    def _network_failed(self, error: PartError) -> None:
        self._part_failed(error, "Packets pass without it")

    def _tell(self, name: str, words: str) -> None:
        self.note(name, words, tell=True)

    def _upwards(self) -> Network:
        network = self._kept
        return Network(delay=network.delay, seed=network.seed) if self._one_way else network

    @property
    def url(self) -> str:
        """Where clients find the peer's stream, through the relay; RuntimeError before `start`."""
        if not self._started or self._port == 0:
            raise RuntimeError("the relay has no address before start(): call start(), or use it in a with statement")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"rtsp://{_authority(host, self._port)}{self._path}"

    @property
    def port(self) -> int:
        """The port that it listens on, for TCP and for UDP."""
        return self._port

    @property
    def sessions(self) -> int:
        """How many clients pass through it."""
        return len(self._sessions)

    @property
    def trace(self) -> Trace:
        """What passed so far: a row a packet of media, `sent` when it came and `received` when it was sent on."""
        return self._recorder.trace()

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of, a sentence each, oldest first: that the peer cannot be reached, say."""
        return tuple(self._notices)

    def status(self) -> str:
        """A line of what is going on."""
        return f"{'1 session' if self.sessions == 1 else f'{self.sessions} sessions'}, {self._network}"

    def __repr__(self) -> str:
        state = f"at {self.url}, {self.status()}" if self.running else "not running"
        return f"<Relay to {self._target_name}, {state}>"

    @property
    def _target_name(self) -> str:
        return _authority(self._to_host, self._to_port)

    # ---- life

    def _begin(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._doors: tuple[Listener | UdpLink, ...] = ()  # to be closed
        try:
            found = socket.getaddrinfo(self._to_host, self._to_port, type=socket.SOCK_DGRAM)
        except (socket.gaierror, UnicodeError) as error:  # the latter for a name that is none, such as a..b
            raise OSError(f"the host {self._to_host!r} is not known: check its spelling") from error
        # A name such as localhost may have addresses of both kinds; servers here listen on IPv4 unless told otherwise.
        address = min(found, key=lambda info: info[0] != socket.AF_INET)[4]
        self._peer: Address = (str(address[0]), int(address[1]))
        self._listener, self._front = self._bind()
        self._doors = self._listener, self._front
        self._port = self._front.port
        self._listener.watch(self._selector, Handler(None, self._accept))
        self._selector.register(self._front, selectors.EVENT_READ, Handler(None, self._hear_clients))
        self._selector.register(self._waker, selectors.EVENT_READ, Handler(None, self._waker.clear))
        self.spawn("relay", self._run, self._waker.wake)

    def _bind(self) -> tuple[Listener, UdpLink]:
        """A TCP and a UDP socket on one port; any free one for 0. OSError, in a sentence, when it is taken."""
        for attempt in range(20):
            listener = Listener(self._host, self._port, notice=lambda name, words: self.note(name, words, tell=True))
            try:
                return listener, UdpLink(self._host, listener.port)
            except OSError as error:
                taken = listener.port
                listener.close()
                if self._port or attempt == 19:
                    words = f"UDP port {taken} on {self._host} is in use: choose another port"
                    raise OSError(error.errno, words) from error
        raise AssertionError("the last attempt returns or raises")

    def _release(self) -> None:
        if not hasattr(self, "_selector"):
            return
        for session in self._sessions:
            session.close(lambda link: None)
        self._selector.close()
        for door in self._doors:
            door.close()
        self._waker.close()

    # ---- the relay's thread

    def _run(self, worker: Worker) -> None:
        check_ns = 0
        try:
            while not worker.stopping.is_set():
                for key, _ in self._clock.wait(self._selector, self._wake_at(), attentive=True):
                    handler: Handler = key.data
                    if handler.session is None:
                        handler.act()
                    else:
                        self._guard(handler.session, handler.act)
                now_ns = self._clock.now_ns()
                self._listener.resume(now_ns)
                self._send_due(now_ns)
                if now_ns >= check_ns:
                    check_ns = now_ns + NS // 4
                    self._see_to_sessions(now_ns)
        finally:
            self._close_books()

    def _guard(self, session: RelaySession, act: Callable[..., None], *args: Any) -> None:
        """Do something for a session, and part from it if that fails: it is the one that pays for what it led to."""
        if session.gone:  # since this was found to be due
            return
        try:
            act(*args)
        except Exception as error:
            self._tell_of(error, "session broken off", session.host)
            session.gone = True
        if session.gone:
            self._part(session)

    def _tell_of(self, error: Exception, name: str, host: str) -> None:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            self.note(*OUT_OF_DESCRIPTORS, tell=True)
        elif isinstance(error, WireError | OSError):
            self.note(name, str(error), host=host)
        else:  # nobody thought of this one
            self.note(name, f"a client was parted from after an error of the relay's: {error!r:.200}", tell=True)

    def _wake_at(self) -> int:
        moments = [wake_ns for way in self._ways if (wake_ns := way.wake_at()) is not None]
        moments.append(self._clock.now_ns() + (NS // 4 if self._sessions else LONGEST_WAIT_NS))
        if (resume_ns := self._listener.wake_at()) is not None:
            moments.append(resume_ns)
        return min(moments)

    def _send_due(self, now_ns: int) -> None:
        """Send on what has come through the networks by now."""
        for way, session in list(self._ways.items()):
            self._guard(session, self._deliver, session, way, now_ns)
        if self._rows:
            self._recorder.packets(self._rows)
            self._rows = []

    def _deliver(self, session: RelaySession, way: Impairment, now_ns: int) -> None:
        """Send on what has come through one of them, in that order: a BYE is not to overtake its packets."""
        run: list[tuple[CarriedDatagram, bool]] = []  # datagrams in a row from one socket to one address
        said: list[CarriedBytes] = []  # on the session's connection
        for outcome in way.pull(now_ns):
            if isinstance(outcome, Dropped):
                lost: Carried = outcome.item.item
                session.under_way -= len(lost.data)  # what comes over TCP is not lost
                self._write(lost, None, outcome.reason)
                continue
            copy = isinstance(outcome, Copy)
            carried: Carried = outcome.packet.item if isinstance(outcome, Copy) else outcome.item
            if isinstance(carried, CarriedBytes):
                said.append(carried)
                continue
            if not copy:
                session.under_way -= len(carried.data)
            if run and (run[0][0].out is not carried.out or run[0][0].to != carried.to):
                self._send_run(run)
                run = []
            run.append((carried, copy))
        if way.wake_at() is None:
            del self._ways[way]
        self._send_run(run)
        if said:
            said[0].session.say(said[0].out, b"".join(carried.data for carried in said), now_ns)
            for carried in said:
                self._write(carried, now_ns, "used")

    def _send_run(self, run: Sequence[tuple[CarriedDatagram, bool]]) -> None:
        if not run:
            return
        link, to = run[0][0].out, run[0][0].to
        link.offload = self._offload.count(len(run), link.can_segment, self._clock.now_ns())
        taken = link.send([carried.data for carried, _ in run], to)
        sent_ns = self._clock.now_ns()
        for at, (carried, copy) in enumerate(run):
            fate = ("duplicate" if copy else "used") if at < taken else "socket_dropped"
            self._write(carried, sent_ns if at < taken else None, fate, copy=copy)

    def _write(self, carried: Carried, received_ns: int | None, fate: str, *, copy: bool = False) -> None:
        if carried.row is not None and not (copy and received_ns is None):
            stream, ssrc, seq, timestamp, marker, size, sent_ns = carried.row
            row = (stream, ssrc, seq, timestamp, marker, size, None if copy else sent_ns, received_ns, fate)
            self._rows.append(row)

    def _close_books(self) -> None:
        for session in self._sessions:
            self._forget_under_way(session)
        self._recorder.packets(self._rows)
        self._recorder.meta["end_ns"] = self._clock.now_ns()

    def _forget_under_way(self, session: RelaySession) -> None:
        for way in (session.down, session.up):
            for dropped in way.flush():
                self._write(dropped.item.item, None, dropped.reason)
            self._ways.pop(way, None)

    # ---- sessions of either kind

    def _ways_of_one(self) -> tuple[Impairment, Impairment]:
        """Down to a new client and up from it, numbered as they come."""
        number, self._numbered = self._numbered, self._numbered + 1
        down = Impairment(self._kept, client=number, direction="down")
        return down, Impairment(self._upwards(), client=number, direction="up")

    def _accept(self) -> None:
        for arrival in self._listener.accept(self._clock.now_ns()):
            self._admit_connection(arrival)

    def _admit_connection(self, arrival: Arrival) -> None:
        host = arrival.address[0]
        if not self._make(room_for_connection(self._sessions, host), host):
            arrival.link.close()
            return
        down, up = self._ways_of_one()
        session = RtspSession(
            arrival.link, host, self._peer, self._target_name, down=down, up=up, desk=self, selector=self._selector
        )
        self._sessions.append(session)
        self._guard(session, session.begin)

    def _make(self, room: Newcomer[RelaySession], host: str) -> bool:
        """Make room for a client from `host`, as was decided; whether there is some."""
        if room.words:
            self.note("made way" if room.admitted else "client refused", room.words, tell=True, host=host)
        if room.leaves is not None:
            self._part(room.leaves)
        return room.admitted

    def _see_to_sessions(self, now_ns: int) -> None:
        """Part from sessions that have ended, are silent for too long, or have asked nothing in time."""
        for session in list(self._sessions):
            self._guard(session, session.tend)
            if session.gone:
                continue
            if words := session.overdue(now_ns):
                self.note("client timed out", words, tell=True, host=session.host)
            if words or session.over or now_ns - session.heard_ns > self.idle_ns:
                self._part(session)

    def _part(self, session: RelaySession) -> None:
        """Let go of a session and of all that is under way in it."""
        session.gone = True
        if session in self._sessions:
            self._sessions.remove(session)
            if session.address is not None:
                del self._by_address[session.address]
            self._forget_under_way(session)
            session.close(self._unwatch)

    def _unwatch(self, link: Any) -> None:
        if link in self._selector.get_map():
            self._selector.unregister(link)

    # ---- for the sessions: session.Desk

    def push(
        self,
        session: RelaySession,
        way: Impairment,
        stream: str,
        carried: Carried,
        now_ns: int,
        *,
        reliable: bool = False,
    ) -> None:
        """Hand something to the network.

        Args:
            session: The session it belongs to.
            way: Its direction.
            stream: The stream it is of.
            carried: What is carried.
            now_ns: The moment, in nanoseconds on the relay's clock.
            reliable: Whether it is of a TCP connection, which loses nothing.
        """
        way.push(InTransit(stream, len(carried.data), carried, reliable), now_ns)
        self._ways[way] = session

    def has_place(self, session: RelaySession) -> bool:
        """Whether there is room for its first track. It takes its place once the peer has granted it.

        Args:
            session: One of its sessions.
        """
        return self._make(room_for_setup(self._sessions), session.host)

    def note(self, name: str, words: str, *, tell: bool = False, host: str = "") -> None:
        """Something happened, because of a client at `host`; `tell` it to whoever runs the relay.

        Args:
            name: The event's name in the record.
            words: A sentence.
            tell: Whether `notices` says so, too.
            host: Whom it is about.
        """
        self._recorder.event(self._clock.now_ns(), name, f"{host}: {words}" if host else words)
        if tell and len(self._notices) < NOTICES_TOLD:
            self._notices.add(words)

    def _tell_of_offload(self, used: str, words: str) -> None:
        self._recorder.setting(self._clock.now_ns(), "offload in use", used)
        if words:
            self.note("offload", words, tell=True)

    def now_ns(self) -> int:
        """The moment."""
        return self._clock.now_ns()

    # ---- datagrams

    def listen_to(self, link: UdpLink, source: Source) -> None:
        """Pass on the datagrams of a socket. OSError when there are too many sockets.

        Args:
            link: The socket.
            source: What is done with what comes there.
        """
        if len(self._selector.get_map()) >= MAX_SOCKETS:
            raise OSError(errno.EMFILE, "too many sockets")
        handler = Handler(source.session, lambda: self._hear(link, source))
        self._selector.register(link, selectors.EVENT_READ, handler)

    def _hear(self, link: UdpLink, source: Source) -> None:
        packets = link.receive(TURN)
        now_ns = self._clock.now_ns()
        self._note_drops(link, now_ns)
        for data, address in packets:
            if address[0] == source.host and source.port in (None, address[1]):  # nobody else is listened to
                source.session.answered = True  # a client of datagrams: its peer is who sends here
                self._take(data, source, now_ns)

    def _take(self, data: bytes, source: Source, now_ns: int) -> None:
        source.session.heard_ns = now_ns
        stream = source.stream or _kind(data)
        row = self.row(stream.partition(" ")[0], data, now_ns) if source.recorded and " " not in stream else None
        session, carried = source.session, CarriedDatagram(data, source.out, source.to, row)
        if session.under_way + len(data) > MAX_UNDER_WAY:
            words = (
                f"more than {MAX_UNDER_WAY >> 20} MB of a client's datagrams were under way: later ones were dropped"
            )
            self.note("too much under way", words, tell=True, host=session.host)
            self._write(carried, None, "socket_dropped")
            return
        session.under_way += len(data)
        self.push(session, source.way, session.lane(stream, data), carried, now_ns)

    def _hear_clients(self) -> None:
        """Plain datagrams: each address that sends some is a client, with a socket of its own towards the peer."""
        packets = self._front.receive(TURN)
        now_ns = self._clock.now_ns()
        self._note_drops(self._front, now_ns)
        new = 0
        for data, address in packets:
            session = self._by_address.get(address)
            if session is None:
                new += 1
                session = self._admit(address, now_ns) if new <= ACCEPTED_A_TURN else None
            if session is not None:
                source = Source(session, session.up, session.links[0], self._peer, *address, None, True)
                self._guard(session, self._take, data, source, now_ns)

    def _admit(self, address: Address, now_ns: int) -> RelaySession | None:
        """A session for whoever sends datagrams from an address; None when there is no room or no socket for it."""
        if not self._make(room_for_datagrams(self._sessions, address[0]), address[0]):
            return None
        session = RelaySession(*self._ways_of_one(), address[0], now_ns, now_ns, address)
        self._sessions.append(session)
        self._by_address[address] = session
        self._guard(session, self._reach, session, address)
        return None if session.gone else session

    def _reach(self, session: RelaySession, address: Address) -> None:
        """A socket of a client's own towards the peer."""
        session.links.append(UdpLink(local_address(self._peer)))
        source = Source(session, session.down, self._front, address, *self._peer, None, True)
        self.listen_to(session.links[0], source)

    def _note_drops(self, link: UdpLink, now_ns: int) -> None:
        if dropped := link.dropped():
            self._recorder.event(now_ns, "socket_dropped", dropped)

    def row(self, stream: str, data: bytes, now_ns: int) -> tuple[Any, ...]:
        """What the record says of a packet, up to the moment when it came.

        A number that is far from all before it is left out until the next one follows it (RFC 3550 A.1): nothing was
        lost where a sender has begun anew.

        Args:
            stream: The stream it is of.
            data: The packet.
            now_ns: The moment, in nanoseconds on the relay's clock.
        """
        if len(data) < HEADER_BYTES or data[0] & 0xC0 != VERSION_2 or is_rtcp(data):
            return stream, None, None, None, None, len(data), now_ns
        _, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
        numbers = self._numbers.get((stream, ssrc))
        if numbers is None:
            if (
                len(self._numbers) > 4 * (MAX_SESSIONS + MOST_WAITING) * MAX_TRACKS
            ):  # a sender that takes a new source for each packet
                self._numbers.clear()
            numbers = self._numbers[stream, ssrc] = SequenceNumbers(CLOCK_RATE)
        return stream, ssrc, numbers(sequence, timestamp, now_ns), timestamp, second >= 0x80, len(data), now_ns


def _target(to: str) -> tuple[str, int, str]:
    """Host, port and path of HOST:PORT or rtsp://HOST:PORT/PATH; ValueError, in a sentence, for anything else."""
    try:
        parts = urlsplit(to if "://" in to else f"rtsp://{to}")
        host, port = parts.hostname, parts.port
    except (ValueError, TypeError):
        host = port = None
    if not host or not port or parts.scheme != "rtsp":
        raise ValueError(f"{to!r} is no peer to relay to: write it as HOST:PORT, or rtsp://HOST:PORT/PATH")
    return host, port, parts.path


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _kind(data: bytes) -> str:
    """The stream that a packet seems to be of, and whether it is RTCP: payload types that say sound say so."""
    if is_rtcp(data):
        return "video rtcp"
    return "audio" if len(data) > 1 and data[1] & 0x7F in (L16_STEREO, L16_MONO) else "video"


def local_address(peer: Address) -> str:
    """The address of this machine from which a peer is reached."""
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])
