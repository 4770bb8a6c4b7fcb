"""What clients say of the media that they get, RTCP over UDP and interleaved, read within a budget and in fair turns.

Pictures come first: whatever comes, and from however many, reading it takes a part of the server's thread and no more.
Datagrams of strangers, and about sources that nobody has, are dropped at a look. What is over the budget waits, in the
sockets and in a short queue for each client; clients have their turns by address, so that nobody's reports starve.
Where nothing urgent can be among it, it waits for the next turn that there is anyway.
"""

from __future__ import annotations

import selectors
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from avlab.stream.clock import Clock
from avlab.stream.rtsp.peer import Recipient
from avlab.stream.sockets.protocols import Datagrams
from avlab.wire import rtcp

REPORT_BYTES = 1_500
"""No report is longer: a receiver's fits into its own network's largest packet (RFC 3550 6.1), and a NACK's 256 fields
take 1,040."""

TURN_NS = 1_000_000
"""For all feedback, a turn of the server's thread."""

REST_NS = 4_000_000
"""After a turn that used all of it, before the sockets are looked at again: feedback takes a fifth of the time at most,
however fast it comes and the turns follow on each other."""

PATIENCE_NS = 80_000_000
"""How long what is not urgent may wait for a turn that something else brings about, and then as long for one of its
own: a turn for each report of many clients would cost more than what is in them."""

READ_A_TURN = 64
"""Datagrams of one socket, before the others' are read."""

MOST_WAITING = 8
"""Reports of one client that wait; of more, the oldest are dropped: they say what newer ones say better."""


class Feedback:
    """Reads the sockets that it is given to `watch`; `clients` is who gets which source (SSRC), by address.

    `rise` is the network that datagrams pass on their way up: it is given whose one is, about which source, and when it
    came, and answers with those that have come through by then. What comes through later is `put`. `came` is told of
    each, and of the address that it is from.
    """

    def __init__(
        self,
        clock: Clock,
        clients: Mapping[str, Mapping[int, Recipient]],
        rise: Callable[[Recipient, int, bytes, int], Iterable[bytes]] = lambda peer, ssrc, data, now_ns: (data,),
        came: Callable[[Recipient, bytes, str], None] = lambda peer, data, host: None,
    ) -> None:
        self._clock, self._clients, self._rise, self._came = clock, clients, rise, came
        self._selector: selectors.BaseSelector | None = None
        self._links: dict[Datagrams, None] = {}
        self._ready: OrderedDict[Datagrams, None] = OrderedDict()  # whose turn it is to be read first
        self._turns: OrderedDict[str, deque[Recipient]] = OrderedDict()  # whose reports wait, by address
        self._resume_ns: int | None = None
        self._watching = True  # the selector tells of what comes
        self._patient = False
        self._ages = True  # all sockets tell how old what they have is

    @property
    def patient(self) -> bool:
        """Whether nothing that comes is urgent. It waits then, where sockets tell how long it has."""
        return self._patient

    @patient.setter
    def patient(self, value: bool) -> None:
        if value != self._patient:
            self._patient = value
            if self._resume_ns is None or not self._watching:
                self._resume_ns = self._clock.now_ns()  # the next turn sees to it

    def watch(self, link: Datagrams, selector: selectors.BaseSelector) -> None:
        """Read what comes to a socket; the selector tells of it, with this object, and is told when to look away."""
        self._selector = selector
        self._links[link] = None
        self._ages = link.ask_for_ages() and self._ages
        if self._watching:
            selector.register(link, selectors.EVENT_READ, self)

    def forget(self, link: Datagrams) -> None:
        """Read it no more: it is about to be closed."""
        del self._links[link]
        self._ready.pop(link, None)
        if self._watching and self._selector is not None:
            self._selector.unregister(link)

    def ready(self, link: Datagrams) -> None:
        """Something has come to a socket."""
        self._ready[link] = None

    def put(self, peer: Recipient, data: bytes, came_ns: int) -> None:
        """A report or a NACK came, at some moment, over a client's own connection or from its address."""
        if len(data) > REPORT_BYTES:
            return
        if not peer.reports:
            self._turns.setdefault(peer.address[0], deque()).append(peer)
        elif len(peer.reports) >= MOST_WAITING:
            peer.reports.popleft()
        peer.reports.append((data, came_ns))

    def wake_at(self) -> int | None:
        """When there is time for more of it; None while nothing had to wait."""
        if self._resume_ns is not None and self._waits and not self._ready and not self._turns:
            return self._resume_ns + PATIENCE_NS
        return self._resume_ns

    @property
    def _waits(self) -> bool:
        """Whether what comes is left for later."""
        return self._patient and self._ages

    def turn(self, now_ns: int) -> Iterator[tuple[Recipient, bytes, int]]:
        """What there is time for now: a client, what came from it, and when."""
        if self._resume_ns is not None:
            if now_ns < self._resume_ns:
                return
            self._look_again()
        began_ns = self._clock.now_ns()
        while self._ready and self._clock.now_ns() < began_ns + TURN_NS // 2:
            self._read(self._ready.popitem(last=False)[0])
        while (waiting := self._next()) is not None:  # one at least
            yield waiting
            if self._clock.now_ns() >= began_ns + TURN_NS:
                break
        if self._turns or self._ready:
            self._look_away(REST_NS)
        elif self._waits:
            self._look_away(PATIENCE_NS)

    def _next(self) -> tuple[Recipient, bytes, int] | None:
        """The next client's oldest report: by address in turns, and at one address by client."""
        while self._turns:
            host, peers = self._turns.popitem(last=False)
            peer = peers.popleft()
            said = peer.reports.popleft() if peer.reports else None
            if peer.reports:
                peers.append(peer)
            if peers:
                self._turns[host] = peers
            if said is not None and not peer.gone:
                return peer, *said
        return None

    def _read(self, link: Datagrams) -> None:
        found = link.receive_aged(READ_A_TURN)
        if len(found) >= READ_A_TURN and not self._watching:
            self._ready[link] = None  # nothing else tells that there is more
        for data, address, age_ns in found:
            known = self._clients.get(address[0])
            if known is None or len(data) > REPORT_BYTES:
                continue
            about = {id(known[ssrc]): (known[ssrc], ssrc) for ssrc in rtcp.subjects(data)[::-1] if ssrc in known}
            for peer, ssrc in about.values():
                self._came(peer, data, address[0])
                now_ns = self._clock.now_ns()
                for arrived in self._rise(peer, ssrc, data, now_ns):
                    self.put(peer, arrived, now_ns - age_ns)

    def _look_away(self, rest_ns: int) -> None:
        self._resume_ns = self._clock.now_ns() + rest_ns
        if self._watching and self._selector is not None:
            self._watching = False
            for link in self._links:
                self._selector.unregister(link)

    def _look_again(self) -> None:
        self._resume_ns = None
        if not self._watching and not self._waits and self._selector is not None:
            self._watching = True
            for link in self._links:
                self._selector.register(link, selectors.EVENT_READ, self)
        for link in self._links:
            self._ready.setdefault(link)  # before the selector tells of it: else what waits here would keep it out
