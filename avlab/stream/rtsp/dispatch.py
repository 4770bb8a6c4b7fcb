"""Batches on their way between the server and its clients: over each one's own transport, through a network or not.

Between the server and each client may be a network that loses and delays: a stage of its own for every client and
direction. All of it belongs to the server's thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from avlab.core.events import Doubted, Reported, Sent
from avlab.network.impairment import Copy, Impairment, Outcome, Packet, Seen, seen_in
from avlab.network.offload import Offload
from avlab.network.settings import Network
from avlab.stream.recording import SenderRecording
from avlab.stream.rtsp.peer import STALL_BYTES, Peer, Route
from avlab.timing.stage import Dropped
from avlab.wire.batch import Batch
from avlab.wire.rtsp import interleave

MOST_RISING = 256
"""Datagrams of one client's feedback that are under way in its network; of more, the newest are lost: a client that
floods is not to fill the memory, however long the delay."""


class _Parcel(NamedTuple):
    """A packet on its way through the network to one client."""

    route: Route
    sent: Sent | None  # the batch of media that it is of; None for RTCP
    at: int = 0  # its place in that batch
    data: bytes = b""  # RTCP's


def _described(packet: Packet) -> Seen:
    """What a network of anyone's own is told of a packet: what its bytes say."""
    parcel: _Parcel = packet.item
    return seen_in(parcel.data if parcel.sent is None else parcel.sent.batch.part(parcel.at, parcel.at + 1).data)


@dataclass(slots=True, eq=False)
class _Way:
    """A client's own network, both directions of it."""

    peer: Peer
    down: Impairment
    up: Impairment
    rising: int = 0  # datagrams in `up`


def upward(network: Network) -> Network:
    """What a network does to feedback on its way up: delay, jitter and loss. The bottleneck is that of the way down."""
    return replace(network, rate=None, duplicate=0.0)


class Dispatch:
    """Sends from an outlet's own sockets, or over a peer's connection, through `network`."""

    def __init__(self, recording: SenderRecording, offload: Offload) -> None:
        self._recording, self._offload = recording, offload
        self._network = self._upward = Network()
        self._ways: dict[int, _Way] = {}  # by the number of the client
        self._way_of: dict[Peer, _Way] = {}
        self._numbered = 0

    @property
    def network(self) -> Network:
        """What happens to packets; to be set from any thread."""
        return self._network

    @network.setter
    def network(self, value: Network) -> None:
        self._network, self._upward = value, upward(value)

    # ---- who there is

    def join(self, peer: Peer) -> None:
        """A client plays: from its first PLAY on it has a network of its own."""
        if peer not in self._way_of:
            if self._numbered in self._ways:  # of one that has left, and not hung up
                self._abandon(self._numbered)
            down = Impairment(self._network, client=self._numbered, describe=_described)
            up = Impairment(self._upward, client=self._numbered, direction="up")
            self._ways[self._numbered] = self._way_of[peer] = _Way(peer, down, up)
            self._numbered += 1

    def leave(self, peer: Peer) -> None:
        """A client is gone: what is under way to it arrives nowhere."""
        for number, way in list(self._ways.items()):
            if way.peer is peer:
                self._abandon(number)

    def begin_again(self) -> None:
        """Nobody is left: the next client is the first one again, and loses what that lost."""
        self._numbered = 0

    def close(self) -> None:
        """Nothing that is under way arrives any more."""
        for number in list(self._ways):
            self._abandon(number)

    def wake_at(self) -> int | None:
        """When the network lets go of something, either way."""
        moments = (stage.wake_at() for way in self._ways.values() for stage in (way.down, way.up))
        return min((moment for moment in moments if moment is not None), default=None)

    # ---- what clients are sent

    def send(self, peer: Peer, now_ns: int) -> list[Reported | Doubted]:
        """All that a client's sender has for it leaves; what else the sender tells is returned."""
        told: list[Reported | Doubted] = []
        media: list[Sent] = []
        for event in peer.sender.events():
            if isinstance(event, Sent):
                media.append(event)
            else:
                told.append(event)
        sent = iter(media)
        way = self._way_of.get(peer)
        if way is not None and self._network.clear and way.down.wake_at() is None:
            way = None
        pushed = False
        for path, batch in peer.sender.outgoing():
            leaving = None if path.control else next(sent)
            route = peer.routes.get(path.stream)
            if route is None:  # it was torn down by the same bytes that asked for it
                continue
            if way is not None:
                pushed = self._push(way, route, leaving, batch, now_ns) or pushed
            elif leaving is not None:
                self._hand_over(peer, route, leaving, now_ns)
            else:
                self._hand_over_rtcp(peer, route, batch.data, now_ns)
        if pushed:
            self.deliver(now_ns)
        return told

    def deliver(self, now_ns: int) -> None:
        """Hand over what has come through the network by now, runs of one batch together."""
        for way in list(self._ways.values()):
            if (wake_ns := way.down.wake_at()) is not None and wake_ns <= now_ns:
                self._deliver(way.peer, way.down.pull(now_ns), now_ns)

    def _deliver(self, peer: Peer, outcomes: Iterable[Outcome], now_ns: int) -> None:
        lost: list[Dropped] = []
        run: _Parcel | None = None  # the packets from its place on, to the one before `after`
        after = 0
        for outcome in outcomes:
            if isinstance(outcome, Dropped):
                lost.append(outcome)
                continue
            copied = isinstance(outcome, Copy)
            parcel: _Parcel = outcome.packet.item if isinstance(outcome, Copy) else outcome.item
            if run is not None and parcel.sent is run.sent and parcel.at == after and not copied:
                after += 1
                continue
            self._hand_over_run(peer, run, after, now_ns)
            run = None
            if parcel.sent is None:
                self._hand_over_rtcp(peer, parcel.route, parcel.data, now_ns)
            elif copied:  # never sent, so that it has no row here
                peer.sender.copied(parcel.sent.ssrc)
                self._give(peer, parcel.route, parcel.sent.batch.part(parcel.at, parcel.at + 1), now_ns)
            else:
                run, after = parcel, parcel.at + 1
        self._hand_over_run(peer, run, after, now_ns)
        self._write(lost)

    # ---- what they say

    def rise(self, peer: Peer, ssrc: int, data: bytes, now_ns: int) -> list[bytes]:
        """Feedback about a source came from a client over UDP; what of it has come through the network by now.

        Each stream's draws by itself, as "video rtcp" or "audio rtcp", the names that its reports have on the way down.
        """
        way = self._way_of.get(peer)
        if way is None or (self._network.clear and way.up.wake_at() is None):
            return [data]
        if way.rising >= MOST_RISING:
            return []
        way.rising += 1
        way.up.network = self._upward
        way.up.push(Packet(f"{peer.sender.stream_of(ssrc)} rtcp", len(data), data), now_ns)
        return self._risen(way, now_ns)

    def risen(self, now_ns: int) -> list[tuple[Peer, bytes]]:
        """The feedback that has come through the network by now, and whose it is."""
        return [(way.peer, data) for way in self._ways.values() for data in self._risen(way, now_ns)]

    def _risen(self, way: _Way, now_ns: int) -> list[bytes]:
        outcomes = way.up.pull(now_ns) if way.rising else []
        way.rising -= len(outcomes)
        return [outcome.item for outcome in outcomes if isinstance(outcome, Packet)]

    # ---- within

    def _push(self, way: _Way, route: Route, event: Sent | None, batch: Batch, now_ns: int) -> bool:
        """A batch leaves through a network; whether it went in."""
        reliable = route.channels is not None  # one lane for all that is interleaved keeps its order
        way.down.network = self._network
        if event is None:
            lane, parcel = f"{route.track.stream} rtcp", _Parcel(route, None, data=batch.data)
            way.down.push(Packet("tcp" if reliable else lane, len(batch.data), parcel, reliable), now_ns)
            return True
        if reliable and way.peer.link.waiting + way.down.reliable_bytes > STALL_BYTES:
            self._recording.sent(event._replace(fate="socket_dropped"))
            return False
        lane, last = "tcp" if reliable else event.lane, batch.total - 1
        for at in range(batch.total):
            size = batch.size if at < last else batch.last
            way.down.push(Packet(lane, size, _Parcel(route, event, at), reliable), now_ns)
        return True

    def _hand_over_run(self, peer: Peer, run: _Parcel | None, after: int, now_ns: int) -> None:
        if run is not None and run.sent is not None:
            self._hand_over(peer, run.route, run.sent.part(run.at, after), now_ns)

    def _hand_over(self, peer: Peer, route: Route, event: Sent, now_ns: int) -> None:
        """Give packets of media to the system, and write down what became of them."""
        count = event.batch.total
        taken = self._give(peer, route, event.batch, now_ns)
        if taken == count:
            self._recording.sent(event)
            return
        if taken:
            self._recording.sent(event.part(0, taken))
        self._recording.sent(event.part(taken, count, "socket_dropped"))

    def _give(self, peer: Peer, route: Route, batch: Batch, now_ns: int) -> int:
        """Give packets of media to the system; how many it took."""
        count = batch.total
        if route.addresses is not None:
            if route.links is None:
                return 0
            link = route.links[0]
            link.offload = self._offload.count(count, link.can_segment, now_ns)
            return link.send_batch(batch, route.addresses[0])
        if route.channels is not None:
            if peer.link.waiting > STALL_BYTES:
                return 0
            self._interleave(peer, route.channels[0], batch.datagrams(), now_ns)
        return count

    def _hand_over_rtcp(self, peer: Peer, route: Route, data: bytes, now_ns: int) -> None:
        if route.channels is not None:
            self._interleave(peer, route.channels[1], [data], now_ns)
        elif route.addresses is not None and route.links is not None:
            route.links[1].send([data], route.addresses[1])

    def _interleave(self, peer: Peer, channel: int, packets: list[bytes], now_ns: int) -> None:
        try:
            peer.link.send(b"".join(interleave(channel, packet) for packet in packets), now_ns)
        except OSError:
            peer.gone = True  # the audience parts from it once the round of sending is over

    def _abandon(self, number: int) -> None:
        """A client is gone, or the server: what is under way arrives nowhere."""
        way = self._ways.pop(number)
        del self._way_of[way.peer]
        self._write(way.down.flush())

    def _write(self, dropped: Iterable[Dropped]) -> None:
        """Write down packets that did not arrive: those next to each other in a batch together."""
        sent: Sent | None = None
        first = after = 0
        reason: str | None = None
        for one in dropped:
            parcel: _Parcel = one.item.item
            if parcel.sent is None:
                continue
            if parcel.sent is sent and (parcel.at, one.reason) == (after, reason):
                after += 1
                continue
            if sent is not None:
                self._recording.sent(sent.part(first, after, reason))
            sent, first, after, reason = parcel.sent, parcel.at, parcel.at + 1, one.reason
        if sent is not None:
            self._recording.sent(sent.part(first, after, reason))
