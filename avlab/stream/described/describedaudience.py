"""Who gets a clip without RTSP: whoever receives at one address, or in one group. A description says what comes there.

The clip begins with the server, as nobody can ask for it, and nobody but that address is sent anything. What receivers
report comes back to the sockets that the stream leaves from. All of it belongs to the server's thread.
"""

from __future__ import annotations

import errno
import os
import random
import selectors
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from avlab.core.budget import FeedbackBudget
from avlab.core.events import ClockTold, Doubted, KeyAsked, Path
from avlab.core.sender import MOST_HEARD, Sender
from avlab.measure.numbers.attendance import Member
from avlab.measure.record.trace import Recorder
from avlab.media.sources import Source
from avlab.stream.clock import Clock, WallClock
from avlab.stream.described.describedreceiver import is_description
from avlab.stream.described.interfaces import resolved, written
from avlab.stream.recording import SenderRecording
from avlab.stream.rtsp.dispatch import Dispatch
from avlab.stream.rtsp.feedback import Feedback
from avlab.stream.rtsp.packing import Cut, PacketAudience, Packing
from avlab.stream.rtsp.peer import SERVER_NAME, Recipient, Route, Track, outlet_of
from avlab.stream.rtsp.roll import Receiving, receivers_of, take_pulses
from avlab.stream.rtsp.rooms import Room
from avlab.stream.sending.adapting import Delivery
from avlab.stream.sending.pictures import Pictures
from avlab.stream.sockets.addresses import EVERY_ADDRESS, address_towards
from avlab.stream.sockets.multicast import TTL, is_any_group
from avlab.stream.sockets.protocols import Address, Datagrams, System
from avlab.stream.sockets.system import Sockets
from avlab.wire import rtcp, sdp
from avlab.wire.batch import Batch
from avlab.wire.destinations import read_destination
from avlab.wire.rtp import PACKET_SIZES
from avlab.wire.text import printable
from avlab.wire.units import NS, WireError
from avlab.wire.urls import ip_address

LOOK_NS = NS // 4
"""How often rates are looked at, and whose reports have ceased."""

GONE_NS = 15 * NS
"""Who has reported nothing for so long is no receiver any more: reports come every 5 s and more often."""

FEEDBACK = Path("", control=True)
"""Where feedback comes from: which stream it is about, its bytes say."""


def refuse_asking(to: str | None, file: object, wire: str, asked: Sequence[str]) -> None:
    """ValueError for settings that make no sense where nobody can ask for anything: `asked` are their names."""
    if to is None:
        raise ValueError("sdp describes what goes to an address: give that as well, as to='127.0.0.1:5004'")
    if wire != "rtsp":
        raise ValueError(f"to sends RTP, which the {wire} wire has not: leave out wire={wire!r}")
    if asked:
        raise ValueError(f"{asked[0]} is for clients that ask, and what goes to {to} is not asked for: leave it out")
    if file is not None and not isinstance(file, str | os.PathLike):
        raise TypeError(f"sdp must be the path of a file, not {file!r:.60}")


class _Anybody(Mapping[str, Mapping[int, Recipient]]):
    """By address, who gets which source: of a group, anybody may be a member."""

    def __init__(self, sources: Mapping[int, Recipient]) -> None:
        self._sources = sources

    def __getitem__(self, host: str) -> Mapping[int, Recipient]:
        return self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class DescribedAudience(PacketAudience):
    """An `ends.Audience`: RTP and RTCP to `to`, "HOST:PORT", of which `host` is the way, a local address; the way that
    the system has when left out. The pictures go to the port, the sound two above, RTCP to the ports between.

    `file` gets the description. ValueError for an address that cannot be. `system`, `chance` and `unix_offset_ns` (from
    the clock's time to Unix time) are the machine's own when left out.
    """

    def __init__(
        self,
        source: Source,
        *,
        to: str,
        file: FilePath | None,
        name: str,
        host: str | None,
        clock: Clock,
        recorder: Recorder,
        delivery: Delivery,
        play: Callable[[int], int],
        notice: Callable[[str, str], None],
        pictures: Pictures,
        audio_codec: str | None = None,
        system: System | None = None,
        chance: random.Random | None = None,
        unix_offset_ns: int | None = None,
    ) -> None:
        self._there, self._port = read_destination(to)
        self._group = _is_group(self._there)
        self._file, self._name, self._host = file, name, host
        self._recording, self._recorder = SenderRecording(recorder), recorder
        self._delivery, self._start, self._notice, self._pictures = delivery, play, notice, pictures
        self._system = Sockets() if system is None else system
        self._chance = random.SystemRandom() if chance is None else chance
        self._unix_offset_ns = WallClock().unix_ns(0) if unix_offset_ns is None else unix_offset_ns
        recorder.meta["unix_offset_ns"] = self._unix_offset_ns
        self._session_id = self._chance.getrandbits(32)
        packing = Packing(
            source, chance=self._chance, pictures=pictures, audio_codec=audio_codec, delivery=delivery, notice=notice
        )
        super().__init__(packing, Dispatch(self._recording, delivery.offload), clock)
        sender = Sender(unix_offset_ns=self._unix_offset_ns, budget=FeedbackBudget(), name=SERVER_NAME, shared=True)
        self._room = Room((self._there, self._port), sender)
        self._sources: dict[int, Recipient] = {}
        self._clients: dict[str, Mapping[int, Recipient]] = {}
        clients = _Anybody(self._sources) if self._group else self._clients
        self._feedback = Feedback(clock, clients, self._dispatch.rise, self._heard)
        self._receivers: dict[int, Receiving] = {}
        self._links: list[Datagrams] = []
        self._began = self._over = False
        self._looked_ns = 0
        self._met = 0
        self._local = ""

    # ---- what it says of itself

    @property
    def url(self) -> str:
        """The description's file, by which it is played; without one, where it goes."""
        return str(self._file) if self._file is not None else f"rtp://{self._where}"

    @property
    def _where(self) -> str:
        return written(self._there, self._port)

    @property
    def clients(self) -> int:
        """How many report that they receive it."""
        return len(self._receivers)

    @property
    def members(self) -> tuple[Member, ...]:
        """Those who report, and how each of them fares. From any thread."""
        group = self._there if self._group else ""
        now_ns = self._clock.now_ns()
        return receivers_of(self._room, list(self._receivers.items()), group, now_ns, self._unix_offset_ns)

    @property
    def occupied(self) -> bool:
        """Whether the clip goes on: it does so whoever receives it."""
        return self._began and not self._over

    @property
    def ssrcs(self) -> set[int]:
        """The sources of its tracks."""
        return set(self._sources)

    def address_of(self, ssrc: int) -> str | None:
        """Where a source goes to."""
        return self._where if ssrc in self._sources else None

    def describe(self) -> str:
        """The session description (RFC 4566), once it is open; empty before."""
        if not self._local:
            return ""
        address = f"{self._there}/{TTL}" if self._group and ":" not in self._there else self._there
        media = []
        for at, (told, route) in enumerate(zip(self._packing.media(), self._room.routes.values(), strict=True)):
            kinds = {told.payload_type, *self._pictures.further}
            attributes = (one for one in told.attributes if _stands_alone(one, kinds))
            described = replace(
                told,
                port=self._port_of(at),
                control="",
                others=tuple(one for one in told.others if one[0] in kinds),
                attributes=(*attributes, ("ssrc", f"{route.ssrc} cname:{SERVER_NAME}")),
            )
            media.append(described)
        description = sdp.SessionDescription(
            name=printable(self._name),
            session_id=self._session_id,
            origin=self._local,
            address=address,
            control="",
            media=tuple(media),
            attributes=(("tool", SERVER_NAME),),
        )
        return sdp.serialize(description)

    def _port_of(self, at: int) -> int:
        """Where the packets of a track go, the first of which is 0; its reports go to the port above."""
        return self._port + 2 * at

    # ---- sockets

    def open(self, selector: selectors.BaseSelector) -> None:
        """Bind, and write the description. OSError, with a sentence, when there is no way, or no such file."""
        there = self._there = resolved(self._there, self._system)
        self._group = _is_group(there)
        local = None if self._host in EVERY_ADDRESS else self._host
        local = local or address_towards(there)
        if local is None and self._group:
            local = "::1" if ":" in there else "127.0.0.1"
        if local is None:
            raise OSError(errno.EADDRNOTAVAIL, f"no way leads to {there}: name an address of this or another machine")
        self._local = local
        self._clients[there] = self._sources
        self._room.address = there, self._port
        self._check_file()
        for at, (stream, track) in enumerate(self.tracks.items()):
            port = self._port_of(at)
            self._bind(stream, track, ((there, port), (there, port + 1)), selector)
        self._packing.largest = self._system.largest_datagram(local, PACKET_SIZES[-1])
        if self._file is not None:
            try:
                self._file.write_text(self.describe(), encoding="utf-8", newline="")
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"the description cannot be written to {self._file} ({error.strerror or error}): name another file",
                ) from error

    def _check_file(self) -> None:
        """Nothing but a description is written over."""
        file = self._file
        if file is not None and file.is_file() and file.stat().st_size and not is_description(file):
            raise OSError(
                errno.EEXIST, f"{file} is something else than a description of a stream: name another file for that"
            )

    def _bind(
        self, stream: str, track: Track, addresses: tuple[Address, Address], selector: selectors.BaseSelector
    ) -> None:
        try:
            links = self._system.speakers(self._local) if self._group else self._system.udp_pair(self._local)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            raise OSError(error.errno, f"{self._local} is no address of this machine: leave host out") from error
        self._links += links
        route = Route(track, self._chance.getrandbits(32), addresses=addresses, links=links)
        self._room.routes[stream] = route
        self._sources[route.ssrc] = self._room
        self._room.sender.add(outlet_of(route, sequence=self._chance.getrandbits(16)))
        for link in links:
            self._feedback.watch(link, selector)

    def close(self) -> None:
        """Close every socket."""
        for link in self._links:
            link.close()

    def drain(self) -> None:
        """Let what the network holds arrive."""
        now_ns, until_ns = self._clock.now_ns(), self._under_way_until_ns()
        while now_ns < until_ns and self._dispatch.wake_at() is not None:
            self._dispatch.deliver(now_ns)
            self._clock.sleep_until(now_ns + 2_000_000)
            now_ns = self._clock.now_ns()
        self._dispatch.close()

    # ---- the turns

    def attend(self, what: Any, link: Any, now_ns: int) -> None:
        """A socket is ready: somebody reports."""
        self._feedback.ready(link)

    def wake_at(self) -> int | None:
        """At once, to begin; then when the network lets go of something, or a report is due."""
        if not self._began:
            return 0
        moments = (
            self._looked_ns + LOOK_NS, self._dispatch.wake_at(), self._room.sender.timer_at(), self._feedback.wake_at()
        )  # fmt: skip
        return min(moment for moment in moments if moment is not None)

    def look_after(self, now_ns: int) -> None:
        """Begin; hand over what the network lets go of, read reports, send what is due."""
        sender = self._room.sender
        if not self._began:
            self._begin(now_ns)
        self._dispatch.deliver(now_ns)
        for sayer, data in self._dispatch.risen(now_ns):
            self._feedback.put(sayer, data, now_ns)
        for _, data, came_ns in self._feedback.turn(now_ns):
            read_ns = self._clock.now_ns()
            sender.receive(FEEDBACK, Batch(data, len(data)), read_ns, age_ns=read_ns - came_ns)
            self._send(now_ns)
        due_ns = sender.timer_at()
        if due_ns is not None and now_ns >= due_ns:
            sender.handle_timer(now_ns)
            self._send(now_ns)
        if now_ns >= self._looked_ns + LOOK_NS:
            self._looked_ns = now_ns
            take_pulses((), (self._room,), now_ns)
            for ssrc, receiving in list(self._receivers.items()):
                if now_ns - receiving.heard_ns > GONE_NS:
                    self._receivers.pop(ssrc, None)

    def _begin(self, now_ns: int) -> None:
        self._began = True
        self._dispatch.join(self._room)
        media_ns = self._start(now_ns)
        self._pictures.refresh()
        self._room.sender.play(now_ns, media_ns)
        self._send(now_ns)

    def _heard(self, who: Recipient, data: bytes, host: str) -> None:
        """A report came, from a receiver at an address."""
        reporter, now_ns = int.from_bytes(data[4:8], "big"), self._clock.now_ns()
        if reporter in _leaving(data):
            self._receivers.pop(reporter, None)
            return
        if (known := self._receivers.get(reporter)) is not None:
            known.heard_ns = now_ns
            return
        if len(self._receivers) >= MOST_HEARD:
            del self._receivers[next(iter(self._receivers))]
        self._met += 1
        self._receivers[reporter] = Receiving(self._met, host, now_ns, now_ns)

    def _send(self, now_ns: int) -> None:
        """What the sender has to say leaves; what it tells of reports goes to whoever adapts to them."""
        for event in self._dispatch.send(self._room, now_ns):
            if isinstance(event, KeyAsked):
                self._pictures.refresh()
            elif isinstance(event, Doubted):
                self._recorder.event(now_ns, "report not believed", event.doubt)
            elif isinstance(event, ClockTold):
                self._recording.clock(event)
            else:
                self._recording.reported(event)
                if self._delivery.heard is not None:
                    self._delivery.heard(event)

    def rewind(self) -> None:
        """The clip is over; there is nobody who could ask for it again."""
        self._over = True
        self._packing.restart()

    # ---- what is sent

    def say_goodbye(self, now_ns: int) -> None:
        """A last report and BYE: the clip is over, or the server ends."""
        self._room.sender.end(now_ns)
        self._send(now_ns)

    def _to_all(self, stream: str, unit: Cut, pts_ns: int) -> tuple[int | None, int | None]:
        now_ns, sender = self._clock.now_ns(), self._room.sender
        sender.spread = self._delivery.spread
        count = sender.send(stream, unit.at_most(None), pts_ns, now_ns)
        self._send(now_ns)
        return now_ns, count


def _leaving(data: bytes) -> set[int]:
    """Who says BYE in a compound packet."""
    try:
        return {ssrc for packet in rtcp.parse_compound(data) if isinstance(packet, rtcp.Bye) for ssrc in packet.ssrcs}
    except WireError:
        return set()


def _is_group(host: str) -> bool:
    """Whether an address is a group's. ValueError for one that media cannot be sent to."""
    address = ip_address(host.partition("%")[0])
    if address is None or not address.is_multicast:
        return False
    if not is_any_group(host):
        raise ValueError(f"{host} is a group that routers and hosts speak with: take one of 239.255.0.0/16")
    return True


def _stands_alone(attribute: tuple[str, str], kinds: Collection[int]) -> bool:
    """Whether an attribute of a medium says something without RTSP: of repairs, which are settled there, it does not.

    `kinds` are the payload types of media.
    """
    name, value = attribute
    kind, _, rest = value.partition(" ")
    if name in ("fmtp", "rtcp-fb"):
        return kind in map(str, kinds) and rest != "nack"
    return name != "ssrc-group"
