"""A client's session through a relay: what it holds and, for RTSP, how its two connections and its media pass.

All of it belongs to the relay's thread, which it asks for what it needs (`RelayServices`).
"""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from avlab.network.impairment import Impairment
from avlab.stream.relaying.newcomers import Standing
from avlab.stream.relaying.relaydialogue import Dialogue, PortPair, RelayTrack
from avlab.stream.sockets.links import Address, TcpLink, UdpLink, udp_pair
from avlab.wire import rtsp
from avlab.wire.rtp import HEADER_BYTES, VERSION_2, is_rtcp
from avlab.wire.units import NS, WireError

MAX_TRACKS = 8
"""Of one session: each has sockets of its own."""

FIRST_REQUEST_NS = 15 * NS
"""A connection on which no request has come by then is closed."""

HELD_BYTES = 1 << 20
"""When so much of a connection is under way, no more is read from whoever sends it."""


@dataclass(slots=True)
class CarriedDatagram:
    """A datagram that the network carries: where to, and what the record says; `row` is None for what has no row."""

    data: bytes
    out: UdpLink
    to: Address
    row: tuple[Any, ...] | None


@dataclass(slots=True)
class CarriedBytes:
    """What the network carries of an RTSP connection: whose, to which end of it, and what the record says."""

    data: bytes
    session: RtspSession
    out: TcpLink
    row: tuple[Any, ...] | None


Carried: TypeAlias = CarriedDatagram | CarriedBytes


@dataclass(slots=True)
class Source:
    """Where datagrams of one socket come from, and where they go: from `peer` to `to` by `out`."""

    session: RelaySession
    way: Impairment
    out: UdpLink
    to: Address
    host: str
    port: int | None
    stream: str | None  # None: as the packets say
    recorded: bool


@dataclass(slots=True, eq=False)
class RelaySession:
    """A client, and its ways to the peer and back."""

    down: Impairment
    up: Impairment
    host: str  # of the client
    since_ns: int
    heard_ns: int
    address: Address | None = None  # of a client that sends plain datagrams
    links: list[UdpLink] = field(default_factory=list)
    answered: bool = False  # the peer has: by a datagram, or by granting a SETUP
    under_way: int = 0  # bytes of datagrams that the network holds
    gone: bool = False
    media_types: dict[str, int] = field(default_factory=dict)  # each stream's first payload type

    def lane(self, stream: str, data: bytes) -> str:
        """What to draw a packet's fate by: media has a lane of its own, whatever else shares its port.

        Retransmissions (RFC 4588) and parity (RFC 5109) have payload types of their own. So they shift no loss of what
        they repair, and the same seed loses the same media with a repair and without.
        """
        if len(data) < HEADER_BYTES or data[0] & 0xC0 != VERSION_2 or is_rtcp(data):
            return stream
        kind = data[1] & 0x7F
        return stream if self.media_types.setdefault(stream, kind) == kind else f"{stream} {kind}"

    @property
    def standing(self) -> Standing:
        """How it came by its place."""
        return Standing.SERVED if self.answered else Standing.UNANSWERED

    @property
    def over(self) -> bool:
        """Whether one side has ended and all that it said has been passed on."""
        return False

    def overdue(self, now_ns: int) -> str:
        """What it should have done by now, in a sentence; empty when nothing."""
        return ""

    def tend(self) -> None:
        """What the moment asks for."""

    def close(self, forget: Callable[[Any], None]) -> None:
        """Close every socket; `forget` takes each out of the selector first."""
        for link in self.links:
            forget(link)
            link.close()


class Handler(NamedTuple):
    """What each socket is registered with: what to do when it is ready, and whose it is. None: the relay's own."""

    session: RelaySession | None
    act: Callable[[], None]


class RelayServices(Protocol):
    """What a session asks of its relay."""

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
        """Hand something to the network."""

    def has_place(self, session: RelaySession) -> bool:
        """Whether there is room for its first track."""

    def row(self, stream: str, data: bytes, now_ns: int) -> tuple[Any, ...]:
        """What the record says of a packet, up to the moment when it came."""

    def listen_to(self, link: UdpLink, source: Source) -> None:
        """Pass on the datagrams of a socket."""

    def note(self, name: str, words: str, *, tell: bool = False) -> None:
        """Something happened; `tell` it to whoever runs the relay."""

    def now_ns(self) -> int:
        """The moment."""


class RtspSession(RelaySession):
    """A connection taken for RTSP, the connection to the server on its behalf, and the media that belongs to them.

    `server` is the peer's address, `name` how it is written. Nothing happens before `begin`.
    """

    def __init__(
        self,
        client: TcpLink,
        host: str,
        server: Address,
        name: str,
        *,
        down: Impairment,
        up: Impairment,
        desk: RelayServices,
        selector: selectors.BaseSelector,
    ) -> None:
        now_ns = desk.now_ns()
        super().__init__(down, up, host, now_ns, now_ns)
        self._server, self._name, self._desk, self._selector = server, name, desk, selector
        self._ends = {"client": client}
        self._asked = False
        self._readers: dict[str, rtsp.MessageReader] = {}  # none before it is clear that the server is there
        self._ended: set[str] = set()  # those that will say nothing more
        self._refused = False  # the server cannot be reached
        self._near: dict[PortPair, tuple[UdpLink, UdpLink]] = {}  # towards the client
        self._far: dict[PortPair, tuple[UdpLink, UdpLink]] = {}  # towards the server
        self._dialogue = Dialogue(name, bind=self._bind_track, changed=self._connect_track)

    def begin(self) -> None:
        """Reach for the server. OSError when there is no socket for it."""
        upstream = socket.socket(socket.AF_INET6 if ":" in self._server[0] else socket.AF_INET)
        self._ends["server"] = TcpLink(upstream)
        code = upstream.connect_ex(self._server)
        if code in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._selector.register(self._ends["server"], selectors.EVENT_WRITE, Handler(self, self._connected))
        else:
            self._refuse(code)

    @property
    def standing(self) -> Standing:
        """How it came by its place."""
        return Standing.SERVED if self.answered else Standing.ASKING

    def overdue(self, now_ns: int) -> str:
        """What it should have done by now, in a sentence; empty when nothing."""
        if self._asked or now_ns - self.since_ns <= FIRST_REQUEST_NS:
            return ""
        if not self._readers:
            return f"{self._name} cannot be reached: it has not answered for {FIRST_REQUEST_NS // NS} s"
        return f"connections on which no request came for {FIRST_REQUEST_NS // NS} s were closed"

    @property
    def over(self) -> bool:
        """Whether one end has ended and all that it said has been passed on."""
        ways = {"client": (self.up, self._ends["server"]), "server": (self.down, self._ends["client"])}
        return any(ways[end][0].wake_at() is None and not ways[end][1].waiting for end in self._ended)

    def tend(self) -> None:
        """Read on where there is room again."""
        for end in self._readers:
            self._watch(end)

    def say(self, link: TcpLink, data: bytes, now_ns: int) -> None:
        """Bytes have come through the network: give them to the connection that they are for."""
        try:
            link.send(data, now_ns)
        except OSError:
            self.gone = True
            return
        self._watch("client" if link is self._ends["client"] else "server")

    def close(self, forget: Callable[[Any], None]) -> None:
        """Close every socket; `forget` takes each out of the selector first."""
        super().close(forget)
        for link in self._ends.values():
            forget(link)
            link.close()

    def _connected(self) -> None:
        """The connection to the server stands, or could not be made: only now is the client listened to."""
        self._selector.unregister(self._ends["server"])
        code = self._ends["server"].socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._refuse(code)
            return
        self._readers = {"client": rtsp.MessageReader(), "server": rtsp.MessageReader()}
        for end in self._readers:
            self._watch(end)

    def _refuse(self, code: int) -> None:
        words = f"{self._name} cannot be reached: {errno.errorcode.get(code, code)}"
        if code == errno.ECONNREFUSED:
            words = f"nothing listens at {self._name}: start it first, or check the port"
        self._desk.note("refused", words, tell=True)
        self._refused = True
        self._readers = {"client": rtsp.MessageReader()}
        self._watch("client")

    def _attend(self, end: str) -> None:
        """Something comes from one end of a session, or can be said to it."""
        link, now_ns = self._ends[end], self._desk.now_ns()
        link.flush(now_ns)
        data = link.receive() if self._reads(end) else b""
        if data is None:
            self._ended.add(end)
        elif data:
            self.heard_ns = now_ns
            self._pass_on(end, data, now_ns)
        self._watch(end)

    def _pass_on(self, end: str, data: bytes, now_ns: int) -> None:
        dialogue, up = self._dialogue, end == "client"
        way = self.up if up else self.down
        for event in self._readers[end].feed(data):
            row = None
            self._asked |= up and isinstance(event, rtsp.Request)
            if isinstance(event, rtsp.Interleaved):
                stream = None if up else dialogue.stream_of(event.channel)
                row = self._desk.row(stream, event.data, now_ns) if stream else None
                data = event.serialize()
            elif self._refused:
                self._decline(event, now_ns)
                self._ended.add("server")
                return
            elif up and self._wants_place(event) and not self._desk.has_place(self):
                self._decline(event, now_ns)
                continue
            elif isinstance(event, rtsp.Request):
                data = (dialogue.request(event) if up else event).serialize()
            else:
                data = (event if up else dialogue.response(event)).serialize()
            # One lane for all of a connection: its bytes keep their order.
            carried = CarriedBytes(data, self, self._ends["server" if up else "client"], row)
            self._desk.push(self, way, "tcp", carried, now_ns, reliable=True)

    def _wants_place(self, event: rtsp.Event) -> bool:
        return not self.answered and isinstance(event, rtsp.Request) and event.method == "SETUP"

    def _decline(self, event: rtsp.Request | rtsp.Response, now_ns: int) -> None:
        """503: the server cannot be reached, or there is no room."""
        answer = rtsp.Response(503, "", rtsp.Headers({"CSeq": event.headers.get("cseq", "0")}))
        self.say(self._ends["client"], answer.serialize(), now_ns)

    def _reads(self, end: str) -> bool:
        """Whether there is room for more of what an end says."""
        way, other = (self.up, "server") if end == "client" else (self.down, "client")
        return end not in self._ended and way.reliable_bytes + self._ends[other].waiting < HELD_BYTES

    def _watch(self, end: str) -> None:
        """Read from a connection unless too much of it is under way; write when something waits for it."""
        link = self._ends[end]
        events = selectors.EVENT_READ if self._reads(end) else 0
        events |= selectors.EVENT_WRITE if link.waiting else 0
        watched = link in self._selector.get_map()
        if self.gone or not events:
            if watched:
                self._selector.unregister(link)
        elif not watched:
            self._selector.register(link, events, Handler(self, lambda: self._attend(end)))
        elif self._selector.get_key(link).events != events:
            self._selector.modify(link, events, self._selector.get_key(link).data)

    # ---- a session's media over UDP

    def _bind_track(self) -> tuple[PortPair, PortPair]:
        if len(self._near) >= MAX_TRACKS:
            raise WireError(f"it sets up more than {MAX_TRACKS} tracks")
        ports = []
        for end, pairs in ((self._ends["client"], self._near), (self._ends["server"], self._far)):
            pair = udp_pair(end.socket.getsockname()[0])
            self.links += pair
            ports.append((pair[0].port, pair[1].port))
            pairs[ports[-1]] = pair
        return ports[0], ports[1]

    def _connect_track(self, track: RelayTrack) -> None:
        """A track has been agreed on: from here on its packets are passed on."""
        self.answered = True
        if track.client_port is None or track.to_client is None or track.to_server is None:
            return
        near, far = self._near[track.to_client], self._far[track.to_server]
        client_host, server_host = (self._ends[end].socket.getpeername()[0] for end in ("client", "server"))
        for at, stream in enumerate((track.stream, f"{track.stream} rtcp")):
            client = client_host, track.client_port[at]
            port = track.server_port[at] if track.server_port else None
            down = Source(self, self.down, near[at], client, server_host, port, stream, True)
            up = Source(self, self.up, far[at], (server_host, port or 0), *client, f"{stream} up", False)
            for link, source in ((far[at], down), (near[at], up)):
                if link not in self._selector.get_map() and source.to[1]:
                    self._desk.listen_to(link, source)
