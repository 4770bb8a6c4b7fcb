"""A server that is reached by RTSP: the sockets that its streams come by, and whether it lives.

The dialogue before PLAY is in `dialogue`; what arrives goes to the player, what it says goes back. All of it belongs to
the client's thread, but for `open` and `play`, which come before it.
"""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from avlab.core.arriving import NOUNS
from avlab.core.events import Path
from avlab.core.repairing import Repair
from avlab.network.ownrepair import OwnRepair
from avlab.parts import named
from avlab.stream.clock import Clock
from avlab.stream.ends import Offer
from avlab.stream.playing.presentation import Presentation
from avlab.stream.recording import PlayerRecording
from avlab.stream.rtsp.dialogue import Granted, RefusedError, Session
from avlab.stream.rtsp.opening import SHUT_NS, knock, opens
from avlab.stream.rtsp.origin import Origin
from avlab.stream.rtsp.reading import Overload, OwnParts, Reading
from avlab.stream.sockets.links import TcpLink, interest
from avlab.stream.sockets.protocols import Datagrams, System
from avlab.stream.sockets.system import Sockets
from avlab.wire import rtsp, sdp
from avlab.wire.answers import reply_to
from avlab.wire.batch import Batch, batches
from avlab.wire.digest import Credentials
from avlab.wire.units import NS, WireError

BYE_PATIENCE_NS = NS // 4
"""How long after the connection's end a BYE that comes over UDP may be."""

SILENCE_NS = 10 * NS
"""With nothing from the server for this long, it is asked whether it is there. Silence is no death: a slide may stand
for long, and pictures may begin late."""

ANSWER_NS = 5 * NS
"""It is gone when it says nothing for so long after that."""

LATE_START_NS = 5 * NS
LONG_SILENCE_NS = 15 * NS
"""A stream from which nothing has come since PLAY, or for so long, is named in a notice."""

AFTER_END_NS = 2 * NS
"""With the clip's end passed, so much silence is the end, when no BYE says so."""

NEAR_END_NS = NS
"""A server that closes the connection so near the clip's end has come to its end."""

SESSION_NOT_FOUND = 454

STRANGER_REPORT_NS = 5 * NS
"""Reports to an address that nobody has vouched for, no more often than RFC 3550 6.2 allows: it might be anybody's."""

LOOK_NS = NS // 10
"""How often the end is looked for."""

UNCLAIMED_TOLD = 3
"""So many packets on channels that were not agreed on are worth a notice."""

MOST_REPLIES = 64 << 10
"""Bytes that may wait to be read by a server that asks by itself: with more, it is not answered."""

STRAYS_TOLD = 100
"""How often the record says that bytes on the connection belonged to nothing; a server may send them all the time."""

FALL_BACK_TIMEOUT = 3.0
"""Seconds at most for each answer when everything is asked for over TCP: the server has just answered."""

NO_ROOM = (453, 503)
"""How a server refuses one client more: Not Enough Bandwidth, Service Unavailable."""

LEAVING_SECONDS = 0.25
"""A server that is left and asked again is given so long to end the session and the connection."""


@dataclass(slots=True)
class _Way:
    """How one stream comes."""

    stream: str
    granted: Granted
    origin: Origin
    reported_ns: int | None = None  # when a report went to an address that nobody has vouched for


class RtspReceiver:
    """An `ends.Receiver`: JPEG and L16 over RTP. `over` maps video and audio to udp, tcp or multicast; those in `fixed`
    were asked for so, and when they are over UDP nothing makes them come over TCP.

    `notice(name, words)` tells a person a sentence, once, and puts it into the record each time.
    """

    def __init__(
        self,
        url: str,
        *,
        over: Mapping[str, str],
        fixed: Collection[str] = (),
        repair: Repair | OwnRepair | None,
        timeout: float,
        presentation: Presentation,
        clock: Clock,
        recording: PlayerRecording,
        notice: Callable[[str, str], None],
        own: OwnParts | None = None,
        credentials: Credentials | None = None,
        system: System | None = None,
    ) -> None:
        self._system = system = Sockets() if system is None else system
        self._own = OwnParts() if own is None else own
        self._reading = Reading(self._own, notice)
        self._repairs = _wishes(repair)
        self._credentials = credentials
        self._session = Session(
            url,
            timeout=timeout,
            repairs=self._repairs,
            playable=self._own.playable,
            system=system,
            clock=clock,
            credentials=credentials,
        )
        self._url, self._timeout = url, timeout
        self._strays = 0
        self._trying: Session | None = None  # while everything is asked for over TCP
        self._cancelled = False
        self._over, self._fixed, self._repair = over, fixed, repair
        self._presentation, self._clock, self._recording = presentation, clock, recording
        self._notice = notice
        self._session.ssrc = presentation.player.ssrc
        self._incoming = presentation.player.streams  # what the player knows of each stream
        self.ways: dict[str, _Way] = {}
        self._looked_ns = self._cared_ns = 0
        self._overload = Overload(recording, notice)
        self._links: list[Datagrams] = []
        self._link: TcpLink | None = None
        self._asked: dict[int, int] = {}  # keep-alives that have no answer: when each was sent, by number
        self._span_ns: tuple[int, int] | None = None  # of the clip, as far as the server has told its end
        self._lost_ns: int | None = None  # when the connection ended
        self._named: set[str] = set()  # streams whose silence has been told of
        self._unclaimed_told = False

    @property
    def ssrcs(self) -> set[int]:
        """The sources of the streams, as far as they are known."""
        return {incoming.ssrc for incoming in list(self._incoming.values()) if incoming.ssrc is not None}

    @property
    def said_goodbye(self) -> bool:
        """Whether a BYE has come for each stream."""
        return bool(self._incoming) and all(incoming.ended for incoming in list(self._incoming.values()))

    # ---- before and after the client's thread

    def open(self) -> Offer:
        """Describe and set up; what will be sent."""
        granted = self._session.open(self._over, self._bind, self._join, fixed=self._fixed)
        for words in self._session.moves:
            self._notice("sent on", words)
        if any(self._session.plan[stream] != self._over[stream] for stream in granted):
            ways = ", ".join(f"{stream} over {way.upper()}" for stream, way in self._session.plan.items())
            self._notice(
                "other transports", f"the server at {self._session.where} refused the transports asked for: {ways} now"
            )
        self._take_grants(granted)
        self._tell_of_repair(granted)
        media = {stream: grant.media for stream, grant in granted.items()}
        if "video" in media:
            self._reading.name_idle_parts(media["video"], f"the server at {self._session.where}")
        for words in self._session.left_out:
            self._notice("left out", words)
        return self._reading.offer(media, self._session.description.name)

    def _tell_of_repair(self, granted: Mapping[str, Granted]) -> None:
        """Say which repair that was asked for is not there."""
        found = granted["video"].repairs if "video" in granted else frozenset()
        for name in [name for name in self._repairs if name not in found]:
            words = f"the server offers no {name} over UDP"
            if not isinstance(self._repair, OwnRepair):
                self._recording.note(self._clock.now_ns(), "no repair", words)
                continue
            part = named(self._repair.part)
            way = self._session.plan.get("video")
            if way == "tcp":
                words = f"pictures come over TCP, where nothing is lost: the repair {part} does nothing"
            elif way == "multicast":
                words = f"pictures come by multicast, where nothing is repaired: the repair {part} does nothing"
            elif name == self._repair.name:
                words = f"the server does not offer the repair {part}: start it with repairs=[{part}]"
            else:
                words = f"the server sends nothing again: the repair {part} has nothing to ask for"
            self._notice("no repair", words)

    def _take_grants(self, granted: Mapping[str, Granted]) -> None:
        """What is to come, before anything has."""
        player = self._presentation.player
        player.clear()
        self.ways.clear()
        self._reading.begin({stream: grant.media for stream, grant in granted.items()})
        for stream, grant in granted.items():
            media = grant.media
            origin = Origin(
                grant.host,
                sources=grant.sources,
                server_port=grant.server_port,
                payload_type=media.payload_type,
                ssrc=grant.ssrc,
            )
            self.ways[stream] = _Way(stream, grant, origin)
            granted_repairs = grant.repairs if stream == "video" else frozenset()
            own = self._repair if isinstance(self._repair, OwnRepair) and granted_repairs else None
            kinds: tuple[Repair, ...] = ("rtx", "fec")
            described = self._reading.described(stream, media)._replace(
                ssrc=grant.ssrc,
                repairs=media.repairs,
                repair=next((kind for kind in kinds if kind in granted_repairs), None),
                own=own,
                repair_ssrcs=grant.repair_ssrcs,
                heeds_limits=("tool", rtsp.PRODUCT) in self._session.description.attributes,
                tells_times=media.tells_times or sdp.asks_for_times(self._session.description.attributes),
            )
            player.add(stream, described)
            self._recording.setting(self._clock.now_ns(), f"{stream}_over", self._session.plan[stream])
        self._presentation.pump()

    def play(self, selector: selectors.BaseSelector) -> None:
        """PLAY, and register the sockets. Where no datagram comes through, everything is asked for over TCP."""
        self._knock()
        playing = self._session.play()
        over_udp = [stream for stream, way in self._session.plan.items() if way == "udp"]
        links = [link for stream in over_udp for link in self.ways[stream].granted.links or ()]
        if (
            links
            and not set(over_udp) & set(self._fixed)
            and not opens(links, self._session, self._clock, self._system)
        ):
            playing = self._fall_back() or playing
        self._play_ns = self._heard_ns = self._clock.now_ns()
        self._recording.note(self._play_ns, "play")
        self._anchor(playing)
        self._selector = selector
        self._link = TcpLink(self._session.detach())
        selector.register(self._link, selectors.EVENT_READ)
        for way in self.ways.values():
            for link in way.granted.links or ():
                selector.register(link, selectors.EVENT_READ, way)
        self._looked_ns = self._cared_ns = self._prove_ns = self._play_ns
        self._alive_ns = self._play_ns + self._session.keep_alive_ns
        self._take_tcp(b"", self._play_ns)  # what came with PLAY's answer, and not once more comes

    def _knock(self) -> None:
        """Open the ways of datagrams."""
        for way in self.ways.values():
            if way.granted.links is not None and self._session.plan[way.stream] == "udp":
                knock(way.granted.media, way.granted.links, way.origin, self._session.ssrc)

    def _fall_back(self) -> rtsp.Response | None:
        """Everything over TCP, in a session of its own: PLAY's answer, or None when the server will not have it.

        avlab's own server would begin again with nobody left: there the new session plays before the old one ends.
        Every other is left first. It may have room for one session, or keep one alone, and then what it sent before
        goes on in the new connection beside what it sends now.
        """
        old, links, plan = self._session, list(self._links), dict.fromkeys(self._over, "tcp")
        stays = ("tool", rtsp.PRODUCT) in old.description.attributes
        for left_first in (False, True) if stays else (True,):
            if left_first:
                old.leave(LEAVING_SECONDS)
            self._trying = new = Session(
                self._url,
                timeout=min(self._timeout, FALL_BACK_TIMEOUT),
                repairs=self._repairs,
                playable=self._own.playable,
                system=self._system,
                clock=self._clock,
                credentials=self._credentials,
            )
            new.ssrc = old.ssrc
            if self._cancelled:
                new.cancel()
            try:
                granted = new.open(plan, self._bind, self._join)
                alike = {stream: _format(one.media) for stream, one in granted.items()} == {
                    stream: _format(way.granted.media) for stream, way in self.ways.items()
                }
                if left_first and not alike:
                    raise ConnectionError(f"the server at {new.where} describes another stream now: play again")
                over_tcp = "udp" not in new.plan.values()
                playing = new.play() if left_first or (alike and over_tcp) else None
            except RefusedError as error:
                new.close()
                if left_first:
                    raise
                if error.status in NO_ROOM:
                    continue
                return None
            except OSError:
                new.close()
                if left_first or self._cancelled:
                    raise
                continue
            except BaseException:
                new.close()
                raise
            if playing is None:
                new.leave()
                return None
            break
        self._session = new
        self._take_grants(granted)
        old.leave()
        for link in links:
            link.close()
            self._links.remove(link)
        self._knock()  # where the server, asked again, has nothing but UDP
        if over_tcp:
            self._notice(
                "tcp instead of udp",
                f"no datagram has come from {new.where} for {SHUT_NS / NS:g} s, so everything comes over TCP now: a "
                "firewall may hold back UDP, and video_over='udp' keeps to it all the same",
            )
        return playing

    def leave(self, now_ns: int) -> None:
        """TEARDOWN."""
        if self._link is not None:
            self._send(self._session.teardown(), now_ns)

    def cancel(self) -> None:
        """See `ends.Receiver`."""
        self._cancelled = True
        for session in (self._session, self._trying):
            if session is not None:
                session.cancel()

    def close(self) -> None:
        """Close every socket."""
        self._session.close()
        if self._link is not None:
            self._link.close()
        for link in self._links:
            link.close()

    def _bind(self, host: str) -> tuple[Datagrams, Datagrams]:
        pair = self._system.udp_pair(host)
        self._links += pair
        return pair

    def _join(self, group: str, ports: tuple[int, int], host: str) -> tuple[Datagrams, Datagrams]:
        for port in ports:
            self._links.append(self._system.member(group, port, host))
        return self._links[-2], self._links[-1]

    def _anchor(self, playing: rtsp.Response) -> None:
        """RTP-Info says which timestamps stand for the start of the range (RFC 2326 12.33), the range where it ends."""
        start_ns, infos = self._session.positions(playing)
        begun_ns = self._presentation.player.begin(start_ns, infos, self._play_ns)
        told = self._session.description.range
        value = playing.headers.get("Range")
        with contextlib.suppress(WireError):
            if value is not None:
                told = sdp.NptRange.parse(value)
        length_ns = sdp.clock_length_ns(value or "")
        if length_ns is None and told is not None and told.end_ns is not None:
            length_ns = told.end_ns - start_ns
        if length_ns is not None and length_ns > 0:
            self._span_ns = begun_ns, begun_ns + length_ns

    # ---- what arrives

    def attend(self, what: _Way | None, link: Any) -> None:
        """A socket is ready: packets over UDP, or whatever comes over the connection."""
        if what is None:
            self._receive_tcp(link)
            return
        batches = link.receive_batches()
        now_ns = self._clock.now_ns()
        self._overload.note(link.dropped(), now_ns)
        control = what.granted.links is not None and link is what.granted.links[1]
        judge = what.origin.control if control else what.origin.media
        before = what.origin.host
        for batch in judge(batches):
            self._presentation.receive(Path(what.stream, control), batch, now_ns)
        if what.origin.host != before:
            self._recording.note(now_ns, f"{what.stream} from another address", what.origin.host)

    def _receive_tcp(self, link: TcpLink) -> None:
        try:
            link.flush(self._clock.now_ns())
            data = link.receive()
        except OSError:
            data = None
        now_ns = self._clock.now_ns()
        if data is None:
            self._selector.unregister(link)
            self._alive_ns = 1 << 62
            self._lost_ns = now_ns
            return
        self._take_tcp(data, now_ns)
        interest(self._selector, link)

    def _take_tcp(self, data: bytes, now_ns: int) -> None:
        skipped = self._session.skipped
        for found in _together(self._session.feed(data)):
            if isinstance(found, tuple):
                self._take_interleaved(*found, now_ns)
            else:
                self._take_message(found, now_ns)
        self._name_unclaimed()
        if self._session.skipped != skipped:
            self._strays += 1
            if self._strays <= STRAYS_TOLD:
                self._recording.note(now_ns, "stray bytes", self._session.skipped - skipped)

    def _take_message(self, event: rtsp.Request | rtsp.Response, now_ns: int) -> None:
        """An answer to a keep-alive, matched by its number where it has one; or what the server asks for by itself."""
        if isinstance(event, rtsp.Response):
            number = event.headers.get("CSeq", "").strip()
            numbered = self._session.numbered and number.isdecimal()
            if numbered and self._asked.pop(int(number[:10]), None) is None:
                return
            if event.status == SESSION_NOT_FOUND and now_ns - self._newest_ns() > ANSWER_NS:
                raise ConnectionError(
                    f"the server at {self._session.where} has ended the session (454 Session Not Found): play again"
                )
            self._asked.clear()
            if self._session.challenged(event) and now_ns >= self._prove_ns:
                self._prove_ns, self._alive_ns = now_ns + ANSWER_NS, now_ns  # again, with another nonce
        elif self._link is not None and self._link.waiting < MOST_REPLIES:
            self._send(reply_to(event).serialize(), now_ns)
        self._heard_ns = now_ns

    def _take_interleaved(self, channel: int, packets: list[bytes], now_ns: int) -> None:
        """Packets that came one after the other: a chunk's are taken together, as they were sent."""
        claimed = False
        for stream, way in self.ways.items():
            channels = way.granted.channels
            if channels and channel in channels:
                path = Path(stream, channel == channels[1])
                for batch in batches(packets):
                    self._presentation.receive(path, batch, now_ns)
                claimed = True  # and perhaps by another stream, too: some servers put two on the same channels
        if not claimed:
            self._session.unclaimed[channel] += len(packets)

    def _name_unclaimed(self) -> None:
        """Say, once, that packets come on channels that were not agreed on."""
        unclaimed = self._session.unclaimed
        if not unclaimed or self._unclaimed_told or unclaimed.total() < UNCLAIMED_TOLD:
            return
        self._unclaimed_told = True
        agreed = [way.granted.channels for way in self.ways.values() if way.granted.channels is not None]
        ranges = " and ".join(f"{first}-{last}" for first, last in sorted(agreed))
        words = f"channels {ranges} were agreed on" if agreed else "all was to come over UDP"
        numbers = " and ".join(map(str, sorted(unclaimed)[:4]))
        self._notice(
            "other channels",
            f"packets come from {self._session.where} on channel {numbers} of the RTSP connection, and {words}: they "
            "are passed over; see what the server says in its answer to SETUP",
        )

    # ---- what the moment asks for

    def wake_at(self) -> int:
        """When to say that one is there; the end is looked for ten times a second."""
        return min(self._alive_ns, self._looked_ns + LOOK_NS)

    def move_along(self, now_ns: int) -> None:
        """What the player says, and signs of life."""
        self._looked_ns = now_ns
        for path, batch in self._presentation.player.outgoing():
            self._send_rtcp(self.ways[path.stream], batch, now_ns)
        if now_ns < self._cared_ns + LOOK_NS and now_ns < self._alive_ns:
            return  # turns come much more often than anything below changes
        self._cared_ns = now_ns
        silent = now_ns - self._newest_ns() >= SILENCE_NS and not self._asked and self._lost_ns is None
        if now_ns >= self._alive_ns or silent:
            self._send(self._session.keep_alive(), now_ns)
            self._asked[self._session.asked] = now_ns
            self._alive_ns = now_ns + self._session.keep_alive_ns
        self._name_silent(now_ns)

    def over(self, now_ns: int) -> bool:
        """Whether all has come that will: BYE of the streams that live, or the clip's end as the server has told it."""
        player = self._presentation.player
        if not player.said_goodbye:
            return self._cared_ns == now_ns and self._has_ended(now_ns)
        return player.over or self._lost_ns is not None

    def deserted(self, now_ns: int) -> bool:
        """See `ends.Receiver`: at its end a server keeps the connection, and plays again to who asks."""
        return self._lost_ns is not None and not self._at_end(now_ns)

    def _at_end(self, now_ns: int) -> bool:
        """Whether the clip's end has come, as far as the server has told it beforehand."""
        media_ns = max((i.media_ns for i in self._incoming.values() if i.media_ns is not None), default=0)
        near = self._span_ns is not None and media_ns >= self._span_ns[1] - NEAR_END_NS
        return near or self._passed(now_ns)

    def _passed(self, now_ns: int) -> bool:
        """Whether as much time has gone by since PLAY as the server has told that the clip takes."""
        return self._span_ns is not None and now_ns - self._play_ns >= self._span_ns[1] - self._span_ns[0]

    def _newest_ns(self) -> int:
        """When anything last came from the server."""
        return max(self._heard_ns, *(i.heard_ns or 0 for i in self._incoming.values()))

    def _has_ended(self, now_ns: int) -> bool:
        """Without a BYE: whether the clip has come to the end that was told. Raises when the server is gone."""
        newest_ns = self._newest_ns()
        if self._passed(now_ns) and now_ns - newest_ns >= AFTER_END_NS:
            return True
        if self._lost_ns is not None and now_ns - self._lost_ns > BYE_PATIENCE_NS:
            if self._at_end(now_ns):
                return True
            raise ConnectionError(
                f"the server at {self._session.where} closed the connection in mid-stream: "
                "see whether it still runs, then play again"
            )
        asked_ns = min(self._asked.values(), default=now_ns)
        if newest_ns > asked_ns:
            self._asked.clear()  # it lives, whether it answers or not
        elif now_ns - asked_ns > ANSWER_NS and now_ns - newest_ns > SILENCE_NS:
            raise TimeoutError(
                f"nothing has come from {self._session.where} for {(now_ns - newest_ns) // NS} s, and it does not "
                "answer any more: see whether it still runs and whether the network is there, then play again"
            )
        return False

    def _name_silent(self, now_ns: int) -> None:
        """Say which stream is silent, once, while the server lives."""
        for incoming in self._incoming.values():
            if incoming.ended or incoming.stream in self._named:
                continue
            began = incoming.came_ns is not None
            since_ns = incoming.came_ns if incoming.came_ns is not None else self._play_ns
            if now_ns - since_ns <= (LONG_SILENCE_NS if began else LATE_START_NS):
                continue
            self._named.add(incoming.stream)
            noun = NOUNS[incoming.stream]
            other = any(i is not incoming and i.came_ns is not None for i in self._incoming.values())
            on = "the rest goes on without" if other else "waiting for more"
            words = (
                f"no {noun} for {(now_ns - since_ns) // NS} s from {self._session.where}, which is still there: {on}"
            )
            way = self.ways[incoming.stream]
            if way.granted.links is not None and not way.origin.reached:
                words += f"; if a firewall holds back datagrams, ask for {incoming.stream}_over='tcp'"
            self._notice(f"no {noun}", words)

    def _send_rtcp(self, way: _Way, batch: Batch, now_ns: int) -> None:
        granted, origin = way.granted, way.origin
        if granted.channels is not None:
            for data in batch.datagrams():
                self._send(rtsp.interleave(granted.channels[1], data), now_ns)
        elif granted.links is not None and (to := origin.reports_to) is not None:
            if origin.adopted:
                if way.reported_ns is not None and now_ns - way.reported_ns < STRANGER_REPORT_NS:
                    return
                way.reported_ns = now_ns
            granted.links[1].send_batch(batch, to)

    def _send(self, data: bytes, now_ns: int) -> None:
        """To the server, once it has been asked to play."""
        if self._link is not None:
            with contextlib.suppress(OSError):  # a lost connection is noticed where it is read
                self._link.send(data, now_ns)


def _together(events: Iterable[rtsp.Event]) -> Iterator[rtsp.Request | rtsp.Response | tuple[int, list[bytes]]]:
    """What came over a connection, in its order: packets that follow each other on one channel as a list of them."""
    channel, packets = -1, list[bytes]()
    for event in events:
        if packets and not (isinstance(event, rtsp.Interleaved) and event.channel == channel):
            yield channel, packets
            packets = []
        if isinstance(event, rtsp.Interleaved):
            channel = event.channel
            packets.append(event.data)
        else:
            yield event
    if packets:
        yield channel, packets


def _wishes(repair: Repair | OwnRepair | None) -> tuple[str, ...]:
    """The repairs to ask a server for, by name: a rule for what to ask for again has avlab's retransmissions."""
    if isinstance(repair, OwnRepair):
        return (repair.name,) * repair.recovers + ("rtx",) * repair.asks
    return () if repair is None else (repair,)


def _format(media: sdp.Media) -> tuple[str, int, int]:
    return media.encoding, media.clock_rate, media.channels
