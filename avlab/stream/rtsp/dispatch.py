"""Batches on their way between the server and its clients: over each one's own transport, through a network or not.

Between the server and each client may be a network that loses and delays: a stage of its own for every client and
direction. All of it belongs to the server's thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from avlab.core.events import SenderEvent, Sent
from avlab.network.offload import Offload
from avlab.network.settings import Network
from avlab.stream.recording import SenderRecording
from avlab.stream.rtsp.peer import Recipient, Route
from avlab.stream.sockets.protocols import Datagrams
from avlab.stream.ways import STALL_BYTES, Way, upward
from avlab.wire.batch import Batch
from avlab.wire.plate import Plate
from avlab.wire.rtsp import interleave


class _Hands:
    """What carries to one client, for its network."""

    def __init__(self, peer: Recipient, dispatch: Dispatch) -> None:
        self.peer, self._dispatch = peer, dispatch

    def hand_over(self, route: Route, event: Sent, now_ns: int) -> None:
        """See `ways.Carrier`."""
        self._dispatch.hand_over(self.peer, route, event, now_ns)

    def hand_over_copy(self, route: Route, event: Sent, now_ns: int) -> None:
        """See `ways.Carrier`."""
        self.peer.sender.copied(event.ssrc)
        self._dispatch.give(self.peer, route, event.batch, now_ns)

    def hand_over_rtcp(self, route: Route, data: bytes, now_ns: int) -> None:
        """See `ways.Carrier`."""
        self._dispatch.hand_over_rtcp(self.peer, route, data, now_ns)


class Dispatch:
    """Sends from an outlet's own sockets, or over a peer's connection, through `network`."""

    def __init__(self, recording: SenderRecording, offload: Offload) -> None:
        self._recording, self._offload = recording, offload
        self._network = self._upward = Network()
        self.clear = True
        """Whether there is no network: as it is asked for each client and picture, it is known."""
        self._ways: dict[int, tuple[Recipient, Way[Route]]] = {}  # by the number of the client
        self._way_of: dict[Recipient, Way[Route]] = {}
        self._numbered = 0
        self._quiet = True  # nothing is under way on any of them, nor comes to be as long as the network is clear
        self.sent_bytes = 0  # of RTP and RTCP, to all

    @property
    def network(self) -> Network:
        """What happens to packets; to be set from any thread."""
        return self._network

    @network.setter
    def network(self, value: Network) -> None:
        self._network, self._upward, self.clear = value, upward(value), value.clear

    # ---- who there is

    def join(self, peer: Recipient) -> None:
        """A client plays: from its first PLAY on it has a network of its own."""
        if peer not in self._way_of:
            if self._numbered in self._ways:  # of one that has left, and not hung up
                self._abandon(self._numbered)
            carrier = _Hands(peer, self)
            way = Way(self._network, client=self._numbered, carrier=carrier, recording=self._recording)
            self._ways[self._numbered], self._way_of[peer] = (peer, way), way
            self._numbered += 1

    def leave(self, peer: Recipient) -> None:
        """A client is gone: what is under way to it arrives nowhere."""
        for number, (who, _) in list(self._ways.items()):
            if who is peer:
                self._abandon(number)

    def begin_again(self) -> None:
        """Nobody is left: the next client is the first one again, and loses what that lost."""
        self._numbered = 0

    def close(self) -> None:
        """Nothing that is under way arrives any more."""
        for number in list(self._ways):
            self._abandon(number)

    @property
    def direct(self) -> bool:
        """Whether there is no network between: what is sent leaves at once, as it is."""
        return self._quiet and self.clear

    def wake_at(self) -> int | None:
        """When the network lets go of something, either way."""
        if self._quiet:
            return None
        moments = (stage.wake_at() for _, way in self._ways.values() for stage in (way.down, way.up))
        at_ns = min((moment for moment in moments if moment is not None), default=None)
        self._quiet = at_ns is None and self.clear
        return at_ns

    # ---- what clients are sent

    def send(self, peer: Recipient, now_ns: int) -> list[SenderEvent]:
        """All that a client's sender has for it leaves; what the sender tells is returned."""
        self.send_outgoing(peer, now_ns)
        return peer.sender.events()

    def send_outgoing(self, peer: Recipient, now_ns: int) -> None:
        """As `send`; what the sender tells is left with it."""
        way = self._way_of.get(peer)
        if way is not None and self.clear and way.down.wake_at() is None:
            way = None
        pushed = False
        for path, batch, leaving in peer.sender.outgoing():
            route = peer.routes.get(path.stream)
            if route is None:  # it was torn down by the same bytes that asked for it
                continue
            if way is not None:
                self._quiet = False
                way.down.network = self._network
                reliable = route.channels is not None
                pushed |= way.push(route, leaving, batch, now_ns, path.stream, reliable, peer.waiting)
            elif leaving is not None:
                self.hand_over(peer, route, leaving, now_ns)
            else:
                self.hand_over_rtcp(peer, route, batch.data, now_ns)
        if pushed:
            self.deliver(now_ns)

    def deliver(self, now_ns: int) -> None:
        """Hand over what has come through the network by now, runs of one batch together."""
        if self._quiet:
            return
        for _, way in list(self._ways.values()):
            way.deliver(now_ns)

    # ---- what they say

    def rise(self, peer: Recipient, ssrc: int, data: bytes, now_ns: int) -> list[bytes]:
        """Feedback about a source came from a client over UDP; what of it has come through the network by now."""
        way = self._way_of.get(peer)
        if way is None or (self.clear and way.up.wake_at() is None):
            return [data]
        self._quiet = False
        way.up.network = self._upward
        stream = peer.sender.stream_of(ssrc) or "video"
        return way.risen(now_ns) if way.rise(stream, data, now_ns) else []

    def risen(self, now_ns: int) -> list[tuple[Recipient, bytes]]:
        """The feedback that has come through the network by now, and whose it is."""
        if self._quiet:
            return []
        return [(peer, data) for peer, way in self._ways.values() for data in way.risen(now_ns)]

    # ---- what carries

    def hand_over(self, peer: Recipient, route: Route, event: Sent, now_ns: int) -> None:
        """Give packets of media to the system, and write down what became of them."""
        self._write(event, self.give(peer, route, event.batch, now_ns))

    def _write(self, event: Sent, taken: int) -> None:
        """Write down what became of packets, of which the system has taken so many."""
        count = event.batch.total
        if taken == count:
            self._recording.sent(event)
            return
        if taken:
            self._recording.sent(event.part(0, taken))
        self._recording.sent(event.part(taken, count, "socket_dropped"))

    def give(self, peer: Recipient, route: Route, batch: Batch, now_ns: int) -> int:
        """Give packets of media to the system; how many it took."""
        count = batch.total
        self.sent_bytes += batch.length
        if route.addresses is not None:
            if route.links is None:
                return 0
            link = route.links[0]
            self.decide_offload(link, count, now_ns)
            return link.send_batch(batch, route.addresses[0])
        if route.channels is not None:
            if peer.waiting > STALL_BYTES:
                return 0
            self._interleave(peer, route.channels[0], batch.datagrams(), now_ns)
        return count

    def decide_offload(self, link: Datagrams, packets: int, now_ns: int) -> None:
        """Whether the system is to cut up what is sent from a socket: so many packets now."""
        link.offload = self._offload.count(packets, link.can_segment, now_ns)

    def passed_on(self, plate: Plate, stream: str, each: Sequence[tuple[int, int, int]]) -> None:
        """A frame's packets went to many, by a `Fan`: the source, first number and time of each client's."""
        self.sent_bytes += len(each) * plate.batch.length
        self._offload.count(len(each) * plate.batch.total, True, each[-1][2])
        self._recording.passed_on(plate, stream, each)

    def given(self, event: Sent, taken: int) -> None:
        """Packets were given to the system, by a `Fan`, and it took so many."""
        self.sent_bytes += event.batch.length
        self._write(event, taken)

    def hand_over_rtcp(self, peer: Recipient, route: Route, data: bytes, now_ns: int) -> None:
        """Give a compound packet of RTCP to the system."""
        self.sent_bytes += len(data)
        if route.channels is not None:
            self._interleave(peer, route.channels[1], [data], now_ns)
        elif route.addresses is not None and route.links is not None:
            route.links[1].send([data], route.addresses[1])

    def _interleave(self, peer: Recipient, channel: int, packets: list[bytes], now_ns: int) -> None:
        try:
            peer.interleave(b"".join(interleave(channel, packet) for packet in packets), now_ns)
        except OSError:
            peer.gone = True  # the audience parts from it once the round of sending is over

    def _abandon(self, number: int) -> None:
        """A client is gone, or the server: what is under way arrives nowhere."""
        peer, way = self._ways.pop(number)
        del self._way_of[peer]
        way.close()
