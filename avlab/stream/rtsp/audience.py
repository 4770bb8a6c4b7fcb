"""The audience that came by RTSP: connections and RTP sockets, and what each of them is sent when.

What one connection may ask, and which tracks it has over which transport, is in `peer`; what a client is sent and
what its reports say, in `core.sender`; how packets leave, in `dispatch`. All of it belongs to the server's thread.
"""

from __future__ import annotations

import random
import selectors
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from avlab.core.budget import FeedbackBudget
from avlab.core.events import ClockTold, Doubted, KeyAsked, Path
from avlab.core.sender import Sender
from avlab.measure.numbers.attendance import Member
from avlab.measure.record.trace import Recorder
from avlab.media.sources import Source
from avlab.network.ownrepair import OwnRepair, Protection
from avlab.stream.clock import Clock, WallClock
from avlab.stream.places import REQUEST_NS, Places, one_too_many
from avlab.stream.recording import SenderRecording
from avlab.stream.rtsp.dispatch import Dispatch
from avlab.stream.rtsp.fan import Fan
from avlab.stream.rtsp.feedback import Feedback
from avlab.stream.rtsp.media_sockets import MediaSockets
from avlab.stream.rtsp.packing import Cut, PacketAudience, Packing
from avlab.stream.rtsp.peer import SERVER_NAME, GroupRoute, Peer, Recipient, Route, Track
from avlab.stream.rtsp.roll import members_of, take_pulses
from avlab.stream.rtsp.rooms import Room, Rooms
from avlab.stream.sending.adapting import Delivery
from avlab.stream.sending.pictures import Pictures
from avlab.stream.sockets.links import interest
from avlab.stream.sockets.listening import Arrival, Listener
from avlab.stream.sockets.protocols import System
from avlab.stream.sockets.system import Sockets
from avlab.stream.ways import STALL_BYTES
from avlab.wire import rtsp, sdp
from avlab.wire.admission import Admission
from avlab.wire.batch import Batch
from avlab.wire.plate import Plate
from avlab.wire.rtp import PACKET_SIZES
from avlab.wire.text import printable
from avlab.wire.units import NS, WireError

TURN_BYTES = 8_192
"""Read of one client before the others, and what is due, have their turn: some 5 ms of answers at the very most."""

TURN_NS = 4_000_000
"""For what clients ask, a turn of the server's thread: the others have the next."""

MOST_TOLD, TOLD_AGAIN_NS = 200, 10 * NS
"""How many refusals and partings the record names, and how long after the last of them another: peers by the thousand
could fill it with them."""

LIMIT_NS, LEAST_LIMIT = NS, 1.0
"""So long a client's word holds of how many pictures a second it takes at most, and no less than so many are sent."""

LOOK_NS = NS // 4
"""How often it is looked for clients that are gone, or silent: all of them for each frame would cost more than the
frame where there are hundreds."""


FEW = 4
"""Streams of clients, of which each report is read as it comes."""

FEEDBACK = Path("", control=True)
"""Where feedback comes from: which stream it is about, its bytes say."""


class _OwnError(Exception):
    """What failed is the server's own (its cause): no peer's doing, although a peer's request brought it about."""


@contextmanager
def _own_work() -> Iterator[None]:
    """What fails within is no peer's doing."""
    try:
        yield
    except Exception as error:
        raise _OwnError from error


class RtspAudience(PacketAudience):
    """An `ends.Audience`, and the `peer.Stage` of its peers: JPEG and L16 over RTP, as each asked for it.

    `system`, `chance` and `unix_offset_ns` (from the clock's time to Unix time) are the machine's own when left out.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        host: str,
        port: int,
        loop: bool,
        session_timeout: float,
        clock: Clock,
        recorder: Recorder,
        delivery: Delivery,
        play: Callable[[int], int],
        notice: Callable[[str, str], None],
        places: Places,
        repairs: Mapping[str, OwnRepair] = MappingProxyType({}),
        pictures: Pictures | None = None,
        audio_codec: str | None = None,
        multicast: bool = False,
        admission: Admission | None = None,
        system: System | None = None,
        chance: random.Random | None = None,
        unix_offset_ns: int | None = None,
    ) -> None:
        self._system = Sockets() if system is None else system
        self._name, self._loop = name, loop
        self._host, self._port = host, port
        self.session_timeout = session_timeout
        self._recorder = recorder
        self._unix_offset_ns = WallClock().unix_ns(0) if unix_offset_ns is None else unix_offset_ns
        recorder.meta["unix_offset_ns"] = self._unix_offset_ns
        self.chance = random.SystemRandom() if chance is None else chance
        self._delivery = delivery
        self._start, self._notice, self._places = play, notice, places
        self._start_ns: int | None = None  # when media time 0 was; None while nobody plays
        self._session_id = self.chance.getrandbits(32)
        self._pictures = pictures = Pictures() if pictures is None else pictures
        packing = Packing(
            source,
            chance=self.chance,
            pictures=pictures,
            audio_codec=audio_codec,
            delivery=delivery,
            notice=notice,
            protections={name: Protection(own) for name, own in repairs.items() if own.protects},
        )
        self._recording = SenderRecording(recorder)
        super().__init__(packing, Dispatch(self._recording, delivery.offload), clock)
        self._fan = Fan(self._dispatch, clock)
        self.peers: list[Peer] = []
        self._clients: dict[str, dict[int, Recipient]] = {}  # by address, who gets which source
        self._budget = FeedbackBudget()
        self._feedback = Feedback(clock, self._clients, self._dispatch.rise, lambda *came: self._rooms.heard(*came))
        self._sockets = MediaSockets(host, self._feedback, self._system)
        self._multicast, self._admission = multicast, admission
        self._rooms = Rooms(self._system, self._feedback, self.chance, lambda: self._new_sender(shared=True))
        self._talking: OrderedDict[Peer, None] = OrderedDict()  # who has said something; whose turn it is comes first
        self._told, self._told_ns = 0, 0
        self._looked_ns = 0  # when the peers were last seen to
        self._admitted = 0  # sessions
        self._due_ns: int | None = None  # no sender of any has anything to do by itself before
        self._listener: Listener | None = None

    # ---- what it says of itself

    @property
    def url(self) -> str:
        """Where clients find it, once it is open."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"rtsp://{f'[{host}]' if ':' in host else host}:{self._port}/{quote(self._name)}"

    @property
    def clients(self) -> int:
        """How many have a session."""
        return sum(peer.session is not None and not peer.gone for peer in list(self.peers))

    @property
    def members(self) -> tuple[Member, ...]:
        """Those who have a session, and how each of them fares, in the order in which they came. From any thread."""
        return members_of(list(self.peers), list(self._rooms), self._clock.now_ns(), self._unix_offset_ns)

    @property
    def occupied(self) -> bool:
        """Whether anybody who has asked for the running clip is still there."""
        return any(peer.has_played and peer.session for peer in self.peers)

    def address_of(self, ssrc: int) -> str | None:
        """Where the client is that knows a track by this source. From any thread."""
        for peer in list(self.peers):
            if any(route.ssrc == ssrc for route in list(peer.routes.values())):
                return peer.address[0]
        return None

    @property
    def ssrcs(self) -> set[int]:
        """The sources that clients know its tracks by."""
        return {route.ssrc for peer in list(self.peers) for route in list(peer.routes.values())}

    # ---- for the peers: peer.Stage

    def describe(self, host: str, tell: Callable[[str, sdp.Media], sdp.Media]) -> str:
        """The session description (RFC 4566, RFC 2326 appendix C)."""
        description = sdp.SessionDescription(
            name=printable(self._name),
            session_id=self._session_id,
            origin=host,
            address="::" if ":" in host else "0.0.0.0",  # and no range: nobody seeks in a clip that all share
            media=tuple(map(tell, self.tracks, self._packing.media())),
            attributes=(("tool", SERVER_NAME),),
        )
        return sdp.serialize(description)

    def admit(self, peer: Peer) -> None:
        """Let a peer have a session. RtspError when there is no place left."""
        sessions = [other.address[0] for other in self.peers if other.session is not None]
        if (words := self._places.refusal(peer.address[0], sessions)) is not None:
            self._tell(self._clock.now_ns(), "client refused", f"{peer.address[0]}: {words}")
            self._notice("places", f"{words[0].lower()}{words[1:]}: others are refused until one of them leaves")
            raise rtsp.RtspError(words, 503)
        self._admitted += 1
        peer.number, peer.joined_ns = self._admitted, self._clock.now_ns()

    def turned_away(self, peer: Peer, words: str) -> None:
        """A peer has made a wrong guess at how to join, or too many."""
        self._tell(self._clock.now_ns(), "client refused", f"{peer.address[0]}: {words}")

    def group_route(self, peer: Peer, track: Track) -> GroupRoute | None:
        """How a track comes by multicast at the address that a peer has asked; None where it does not."""
        if not self._multicast or ":" in peer.local[0]:
            return None
        try:
            return self._rooms.route(peer.local[0], track)
        except OSError as error:
            self._tell(self._clock.now_ns(), "client refused", f"{peer.address[0]}: no multicast: {error}")
            self._notice("no multicast", f"multicast is not to be had at {peer.local[0]}: {error.strerror or error}")
            return None

    def set_up(self, peer: Peer, route: Route) -> None:
        """Let a peer have a route, and the sockets for it. RtspError when there are none left."""
        if isinstance(route, GroupRoute):
            self._clients.setdefault(peer.address[0], {})[route.ssrc] = self._rooms.enter(peer, route)
            return
        if route.addresses is not None:
            try:
                route.links = self._sockets.take(route.track.stream, peer.local[0])
            except OSError as error:
                self._tell(self._clock.now_ns(), "client refused", f"{peer.address[0]}: no sockets: {error}")
                self._notice(
                    "out of sockets", "this system has no more sockets for media: raise the limit of open files"
                )
                raise rtsp.RtspError("There are no sockets left", 503) from error
        self._clients.setdefault(peer.address[0], {})[route.ssrc] = peer

    def tear_down(self, peer: Peer, route: Route) -> None:
        """A route is used no more."""
        if isinstance(route, GroupRoute):
            room = self._rooms.leave(peer, route)
            if room is not None and room.has(peer.address[0], route.track.stream):
                return
        mine = self._clients.get(peer.address[0], {})
        mine.pop(route.ssrc, None)
        if not mine:
            self._clients.pop(peer.address[0], None)
        if route.links is not None and not isinstance(route, GroupRoute):
            route.links = None
            self._sockets.give_back(route.track.stream, peer.local[0])

    def play(self, peer: Peer, now_ns: int) -> int:
        """Let a peer have the stream from now on; the media time of now."""
        with _own_work():
            self._dispatch.join(peer)
            media_ns = self._start(now_ns)
            self._pictures.refresh()
        self._start_ns = now_ns - media_ns
        self._feedback.patient = False  # until it is seen whether this one asks for packets again
        if (room := self._rooms.of(peer)) is not None:
            self._dispatch.join(room)
            room.play(peer, now_ns, media_ns)
        return media_ns

    # ---- sockets

    def open(self, selector: selectors.BaseSelector) -> None:
        """Listen; OSError when the port is taken."""
        self._selector = selector
        self._listener = Listener(self._host, self._port, notice=self._notice, system=self._system)
        self._port = self._listener.port
        self._listener.watch(selector, "listener")
        self._sockets.open(selector, list(self.tracks))
        self._rooms.open(selector)
        self._packing.largest = self._sockets.largest(PACKET_SIZES[-1])

    def close(self) -> None:
        """Close every socket."""
        for peer in self.peers:
            peer.link.close()
        self._sockets.close()
        self._rooms.close()
        if self._listener is not None:
            self._listener.close()

    def drain(self) -> None:
        """Let the last bytes leave, for up to half a second."""
        now_ns, until_ns = self._clock.now_ns(), self._under_way_until_ns() + NS // 2
        while now_ns < until_ns:
            self._dispatch.deliver(now_ns)
            waiting = [peer for peer in self.peers if peer.link.waiting]
            if not waiting and self._dispatch.wake_at() is None:
                break
            for peer in waiting:
                try:
                    peer.link.flush(self._clock.now_ns())
                except OSError:
                    self._part(peer)
            self._clock.sleep_until(self._clock.now_ns() + 2_000_000)
            now_ns = self._clock.now_ns()
        self._dispatch.close()

    # ---- clients

    def attend(self, what: Any, link: Any, now_ns: int) -> None:
        """A socket is ready: somebody connects, asks, or reports."""
        if what == "listener":
            for arrival in link.accept(now_ns):
                self._admit(arrival, now_ns)
        elif isinstance(what, Peer):
            self._talking[what] = None
        else:
            self._feedback.ready(link)

    def wake_at(self) -> int | None:
        """When to look after the peers again, to send more of a frame, or when the network lets go of something."""
        moments = [self._looked_ns + LOOK_NS if self.peers else None, self._dispatch.wake_at(), self._due_ns]
        moments.append(self._listener.wake_at() if self._listener is not None else None)
        moments.append(self._feedback.wake_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def look_after(self, now_ns: int) -> None:
        """Hand over what the network lets go of, answer who asks, read reports, and see to the peers.

        What is due was sent before: what peers say has a part of each turn, and no more.
        """
        if self._listener is not None:
            self._listener.resume(now_ns)
        self._dispatch.deliver(now_ns)
        until_ns = self._clock.now_ns() + TURN_NS
        while self._talking and self._clock.now_ns() < until_ns:
            peer = self._talking.popitem(last=False)[0]
            with self._session(peer, now_ns):
                self._hear(peer, now_ns)
        for sayer, data in self._dispatch.risen(now_ns):
            self._feedback.put(sayer, data, now_ns)
        for sayer, data, came_ns in self._feedback.turn(now_ns):
            now_ns = self._clock.now_ns()  # it was read only now: earlier, and it might not have been sent by then
            age_ns = now_ns - came_ns
            if isinstance(sayer, Peer):
                with self._session(sayer, now_ns):
                    sayer.sender.receive(FEEDBACK, Batch(data, len(data)), now_ns, age_ns=age_ns)
                    if sayer.sender.heard_ns is not None:
                        sayer.heard_ns = max(sayer.heard_ns, sayer.sender.heard_ns)
            else:
                sayer.sender.receive(FEEDBACK, Batch(data, len(data)), now_ns, age_ns=age_ns)
            self._send(sayer, now_ns)
        due = self._due_ns is not None and now_ns >= self._due_ns
        if due or now_ns >= self._looked_ns + LOOK_NS or not self._dispatch.clear:
            self._see_to_peers(now_ns)

    def _see_to_peers(self, now_ns: int) -> None:
        """Part from clients that are gone, have said nothing within the session time-out, or take nothing."""
        self._looked_ns = now_ns
        limit_ns = round(self.session_timeout * NS)
        for peer in list(self.peers):
            stalled = peer.link.progress_ns is not None and now_ns - peer.link.progress_ns > limit_ns
            silent = now_ns - peer.heard_ns > limit_ns
            if peer.session is None:
                silent = now_ns - peer.asked_ns > min(limit_ns, REQUEST_NS)
            if silent or stalled:
                self._tell(now_ns, "client timed out", peer.address[0])
                peer.gone = True
            if peer.gone:
                self._part(peer)
            elif peer.link.waiting:
                interest(self._selector, peer.link)
            due_ns = None if peer.gone else peer.sender.timer_at()
            if due_ns is not None and now_ns >= due_ns:
                peer.sender.handle_timer(now_ns)
                self._send(peer, now_ns)
        for room in self._rooms:
            self._see_to_room(room, now_ns)
        self._feedback.patient = self._nothing_urgent()
        take_pulses(self.peers, self._rooms, now_ns)
        timers = [one.sender.timer_at() for one in (*self.peers, *self._rooms)]
        self._due_ns = min((timer for timer in timers if timer is not None), default=None)

    def _nothing_urgent(self) -> bool:
        """Whether clients send reports alone, and so many of them that a turn for each would cost more than they do.

        Packets that are asked for again are urgent, and so are pictures that need no other.
        """
        if self._pictures.codec is not None or not self._dispatch.direct:
            return False
        outlets = [outlet for peer in self.peers if peer.playing for outlet in peer.sender.outlets.values()]
        return len(outlets) > FEW and all(outlet.again is None for outlet in outlets)

    def _see_to_room(self, room: Room, now_ns: int) -> None:
        """Nothing is sent to a group that nobody listens to; and its reports leave in time."""
        if room.sender.playing and not room.occupied:
            room.sender.pause()
        if not room.members:
            self._dispatch.leave(room)
        due_ns = room.sender.timer_at()
        if due_ns is not None and now_ns >= due_ns:
            room.sender.handle_timer(now_ns)
            self._send(room, now_ns)

    def fps_limit(self, now_ns: int) -> float | None:
        """How many pictures a second the fastest client takes; None unless all of them have said so of late."""
        most = None
        for one in (*self.peers, *self._rooms):
            sender = one.sender
            if sender.playing and "video" in sender.outlets:
                if sender.limit is None or now_ns > sender.limit[1] + LIMIT_NS:
                    return None
                most = max(most or LEAST_LIMIT, sender.limit[0])
        return most

    def rewind(self) -> None:
        """The clip starts again at the next PLAY; timestamps will be others."""
        self._start_ns = None
        self._feedback.patient = False
        self._packing.restart()
        for peer in self.peers:
            peer.has_played = False
        for room in self._rooms:
            if room.sender.playing:
                room.sender.pause()
        if not self.occupied and not any(peer.session for peer in self.peers):
            self._dispatch.begin_again()

    @contextmanager
    def _session(self, peer: Peer, now_ns: int) -> Iterator[None]:
        """A session's own work. Whatever a peer's bytes bring about here is recorded, and ends with that peer.

        What is not the session's, such as the clip, a pacer or a rate controller, is done elsewhere, or comes as an
        `_OwnError`: it ends the server, and is seen.
        """
        try:
            yield
        except _OwnError as error:
            raise (error.__cause__ or error) from None
        except (WireError, OSError) as error:
            self._refuse(peer, now_ns, str(error))
        except Exception as error:
            self.blame(peer, now_ns, error)

    def _refuse(self, peer: Peer, now_ns: int, words: str) -> None:
        self._tell(now_ns, "client refused", f"{peer.address[0]}: {words}")
        self._part(peer)

    def blame(self, peer: Peer, now_ns: int, error: Exception) -> None:
        """Something that nobody has foreseen: it is said aloud, for whoever can mend it."""
        kind = type(error).__name__
        self._notice("client failed", f"a client was parted from, as what it sent led to an error here ({kind})")
        self._refuse(peer, now_ns, f"{kind}: {error}"[:300])

    def _tell(self, now_ns: int, name: str, words: str) -> None:
        """An event for the record, unless there have been very many of late; without anybody's password."""
        if self._told >= MOST_TOLD and now_ns - self._told_ns < TOLD_AGAIN_NS:
            return
        self._told, self._told_ns = self._told + 1, now_ns
        self._recorder.event(now_ns, name, rtsp.CREDENTIALS.sub("//", words))

    def _admit(self, arrival: Arrival, now_ns: int) -> None:
        sender = self._new_sender()
        peer = Peer(arrival.link, arrival.address, arrival.local, self, now_ns, sender, asked_ns=now_ns)
        peer.admission = self._admission
        self.peers.append(peer)
        self._selector.register(arrival.link, selectors.EVENT_READ, peer)
        with self._session(peer, now_ns):
            # Link-local addresses (RFC 4007) mean nothing without their interface.
            if arrival.address[0].lower().startswith("fe80:"):
                peer.scope = arrival.link.socket.getpeername()[2:]
                peer.local = f"{arrival.local[0].partition('%')[0]}%{peer.scope[1]}", arrival.local[1]
        waiting = [other for other in self.peers if other.session is None]
        if (at := one_too_many([other.address[0] for other in waiting])) is not None:
            self._notice(
                "connections", "more connections come than clients ask for the clip: the oldest of them are closed"
            )
            self._refuse(waiting[at], now_ns, "it has no session, and others come")

    def _new_sender(self, *, shared: bool = False) -> Sender:
        return Sender(unix_offset_ns=self._unix_offset_ns, budget=self._budget, name=SERVER_NAME, shared=shared)

    def _hear(self, peer: Peer, now_ns: int) -> None:
        peer.link.flush(now_ns)
        data = peer.link.receive(TURN_BYTES)
        if data is None:
            self._part(peer)
            return
        for report in peer.feed(data, now_ns) if data else ():
            self._feedback.put(peer, report, now_ns)
        with _own_work():  # reports at once, before any frame is due: a way that is shut shows
            self._send(peer, now_ns)
            if (room := self._rooms.of(peer)) is not None:
                self._send(room, now_ns)
        if peer.link.waiting > 2 * STALL_BYTES:  # media stops at half of it: these are answers
            raise WireError("it asks and does not read the answers")
        interest(self._selector, peer.link)

    def _send(self, peer: Recipient, now_ns: int) -> None:
        """What a client's sender has to say leaves; what it tells of reports goes to whoever adapts to them.

        Beyond the session's own work: a rate controller that fails is no peer's doing.
        """
        for event in self._dispatch.send(peer, now_ns):
            if isinstance(event, KeyAsked):
                self._pictures.refresh()
                continue
            if isinstance(event, Doubted):
                self._tell(now_ns, "report not believed", f"{peer.address[0]}: {event.doubt}")
                continue
            if isinstance(event, ClockTold):
                self._recording.clock(event)
                continue
            self._recording.reported(event)
            if self._delivery.heard is not None:
                self._delivery.heard(event)
        due_ns = peer.sender.timer_at()
        if peer.gone:
            self._due_ns = now_ns
        elif due_ns is not None and (self._due_ns is None or due_ns < self._due_ns):
            self._due_ns = due_ns
        if peer.waiting and isinstance(peer, Peer) and peer in self.peers and not peer.gone:
            interest(self._selector, peer.link)

    def _part(self, peer: Peer) -> None:
        peer.gone = True
        self._talking.pop(peer, None)
        if peer in self.peers:
            self.peers.remove(peer)
            self._selector.unregister(peer.link)
            peer.link.close()
        peer.release()
        self._dispatch.leave(peer)

    # ---- what they are sent

    def say_goodbye(self, now_ns: int) -> None:
        """A last report and BYE to every client that plays: its clip is over."""
        for peer in self.peers:
            if peer.playing:
                peer.sender.end(now_ns)
                self._send(peer, now_ns)
        for room in self._rooms:
            if room.sender.playing:
                room.sender.end(now_ns)
                self._send(room, now_ns)

    def _to_all(self, stream: str, unit: Cut, pts_ns: int) -> tuple[int | None, int | None]:
        recipients: list[Recipient] = [room for room in self._rooms if room.plays(stream)]
        recipients += self.peers
        packed, delivery = unit.at_most(None), self._delivery
        first: tuple[int | None, int | None] = None, None
        if len(recipients) > 1 and self._dispatch.direct and not delivery.spread and Plate.takes(packed):
            first_ns, recipients = self._fan.send(self.tracks[stream], packed, pts_ns, recipients, size=unit.size)
            first = first_ns, None if first_ns is None else packed.total
        for one in recipients:
            sender = one.sender
            if one.gone or not sender.playing or stream not in sender.outlets:
                continue
            now_ns = self._clock.now_ns()
            sender.spread, sender.parity = delivery.spread, delivery.parity
            count = sender.send(stream, unit.at_most(one.routes[stream].packet_size), pts_ns, now_ns)
            if first[0] is None:
                first = now_ns, count
            self._send(one, now_ns)
        return first
