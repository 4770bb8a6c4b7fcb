"""Multicast: one packet for all who have asked for it, whoever they are. A room is one group, at one address of ours.

To the core a room is one client, with sources and numbers of its own; its members have their sessions, and say what
they received each for itself. Nothing is sent again to a group, nor parity with it: what one has lost would be
everybody's load. All of it belongs to the server's thread.
"""

from __future__ import annotations

import random
import selectors
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from avlab.core.sender import MOST_HEARD, Sender
from avlab.measure.numbers.attendance import Pulse
from avlab.stream.rtsp.feedback import Feedback
from avlab.stream.rtsp.peer import GroupRoute, Peer, Recipient, Route, Track, outlet_of
from avlab.stream.sockets.links import Address
from avlab.stream.sockets.protocols import Datagrams, System


@dataclass(slots=True, eq=False)
class Room:
    """A `Recipient`: everybody who has asked for multicast at one address of the server's."""

    address: Address
    sender: Sender
    routes: dict[str, Route] = field(default_factory=dict)
    members: dict[Peer, set[str]] = field(default_factory=dict)
    """Who has asked for which streams."""
    gone: bool = False
    reports: deque[tuple[bytes, int]] = field(default_factory=deque)
    pulse: Pulse = field(default_factory=Pulse)
    reporters: dict[int, str] = field(default_factory=dict)
    """The addresses that reports come from, by who reports (SSRC)."""

    @property
    def waiting(self) -> int:
        """None: datagrams wait for nobody."""
        return 0

    def interleave(self, data: bytes, now_ns: int) -> None:
        """See `Recipient`; a group has no connection."""
        raise OSError("a group has no connection")

    @property
    def occupied(self) -> bool:
        """Whether any member plays."""
        return any(peer.playing for peer in self.members)

    def plays(self, stream: str) -> bool:
        """Whether any member plays a stream."""
        return self.sender.playing and any(stream in streams and peer.playing for peer, streams in self.members.items())

    def has(self, host: str, stream: str) -> bool:
        """Whether anybody at an address has asked for a stream."""
        return any(stream in streams and peer.address[0] == host for peer, streams in self.members.items())

    def play(self, peer: Peer, now_ns: int, media_ns: int) -> None:
        """A member plays from now on: with a sender report at once, as others may have had theirs long ago."""
        if not self.sender.playing:
            for stream, outlet in self.sender.outlets.items():
                outlet.timestamp_offset = self.routes[stream].track.timestamp_offset
            self.sender.play(now_ns, media_ns)
            return
        for stream in self.members[peer]:
            self.sender.outlets[stream].reported_ns = None


class Rooms:
    """The rooms of a server, one for each of its addresses that multicast was asked at. `make` makes a sender."""

    def __init__(self, system: System, feedback: Feedback, chance: random.Random, make: Callable[[], Sender]) -> None:
        self._system, self._feedback, self._chance, self._make = system, feedback, chance, make
        self._selector: selectors.BaseSelector  # from `open` on
        self._links: list[Datagrams] = []
        self._routes: dict[tuple[str, str], GroupRoute] = {}  # by the address of ours, and the stream
        self.by_address: dict[str, Room] = {}

    def __iter__(self) -> Iterator[Room]:
        return iter(self.by_address.values())

    def open(self, selector: selectors.BaseSelector) -> None:
        """Before the first is asked for."""
        self._selector = selector

    def route(self, local: str, track: Track) -> GroupRoute:
        """How a track goes to the group of an address, for one who has asked for it there. OSError: it cannot."""
        room = self.by_address.get(local)
        if room is None:
            # Of this site alone (RFC 2365 6.1); which one is chance, so that servers of one network are apart.
            group = f"239.255.{self._chance.randrange(255)}.{self._chance.randrange(1, 255)}"
            room = self.by_address[local] = Room((group, 0), self._make())
        found = self._routes.get((local, track.stream))
        if found is None:
            found = self._routes[local, track.stream] = room.routes[track.stream] = self._bound(room, local, track)
        return replace(found)  # each member asks for it in its own way

    def of(self, peer: Peer) -> Room | None:
        """The room that a peer is a member of."""
        return next((room for room in self.by_address.values() if peer in room.members), None)

    def heard(self, who: Recipient, data: bytes, host: str) -> None:
        """A report came from an address: which of a room's members it is."""
        if isinstance(who, Room):
            reporter = int.from_bytes(data[4:8], "big")
            if len(who.reporters) >= MOST_HEARD and reporter not in who.reporters:
                del who.reporters[next(iter(who.reporters))]
            who.reporters[reporter] = host

    def enter(self, peer: Peer, route: GroupRoute) -> Room:
        """A peer is a member from now on."""
        room = next(room for room in self.by_address.values() if route.shared in room.sender.outlets.values())
        room.members.setdefault(peer, set()).add(route.track.stream)
        return room

    def leave(self, peer: Peer, route: GroupRoute) -> Room | None:
        """A peer gets a stream of its room no more."""
        room = self.of(peer)
        if room is not None:
            room.members[peer].discard(route.track.stream)
            if not room.members[peer]:
                del room.members[peer]
        return room

    def close(self) -> None:
        """Close every socket. The selector is to be closed first."""
        for link in self._links:
            link.close()

    def _bound(self, room: Room, local: str, track: Track) -> GroupRoute:
        group = room.address[0]
        ports = self._system.free_ports(local)
        links = self._system.speakers(local)
        self._links += links
        reports = self._system.member(group, ports[1], local)  # where members report to that know of no other place
        self._links.append(reports)
        for link in (*links, reports):
            self._feedback.watch(link, self._selector)
        addresses = (group, ports[0]), (group, ports[1])
        plain = Route(track, self._chance.getrandbits(32), addresses=addresses, links=links)
        outlet = outlet_of(plain, sequence=self._chance.getrandbits(16))
        room.sender.add(outlet)
        return GroupRoute(track, plain.ssrc, addresses=addresses, links=links, shared=outlet)
