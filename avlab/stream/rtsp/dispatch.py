"""Packets on their way to the clients that came by RTSP: counted, recorded, and sent over each one's own transport.

Between the server and each client may be a network that loses and delays: a stage of its own for every client. All of
it belongs to the server's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from avlab.measure.record.trace import PacketTuple, Recorder
from avlab.network.impairment import Copy, Impairment, Packet
from avlab.network.offload import Offload
from avlab.network.settings import Network
from avlab.stream.rtsp.peer import FEC_TYPE, STALL_BYTES, Outlet, Peer
from avlab.timing.stage import Dropped
from avlab.wire.rtp import HEADER, HEADER_BYTES, MARKER, RtpPacket
from avlab.wire.rtsp import interleave

_HEADERS = np.dtype([("first", "u1"), ("second", "u1"), ("sequence", ">u2"), ("timestamp", ">u4"), ("ssrc", ">u4")])
"""`rtp.HEADER`, for a frame's packets at once."""


class _Parcel(NamedTuple):
    """A packet on its way through the network to one client."""

    peer: Peer
    outlet: Outlet
    data: bytes
    row: PacketTuple | None  # what the record says of a packet of media; None for RTCP


class Dispatch:
    """Sends from an outlet's own sockets, or over a peer's connection, through `network`."""

    def __init__(self, recorder: Recorder, offload: Offload) -> None:
        self._recorder, self._offload = recorder, offload
        self.network = Network()
        self._ways: dict[int, tuple[Peer, Impairment]] = {}  # by the number of the client
        self._numbered = 0

    # ---- who there is

    def join(self, peer: Peer) -> None:
        """A client plays: from its first PLAY on it has a network of its own."""
        if self._way(peer) is None:
            if self._numbered in self._ways:  # of one that has left, and not hung up
                self._abandon(self._numbered)
            self._ways[self._numbered] = peer, Impairment(self.network, client=self._numbered)
            self._numbered += 1

    def leave(self, peer: Peer) -> None:
        """A client is gone: what is under way to it arrives nowhere."""
        for number, (owner, _) in list(self._ways.items()):
            if owner is peer:
                self._abandon(number)

    def begin_again(self) -> None:
        """Nobody is left: the next client is the first one again, and loses what that lost."""
        self._numbered = 0

    def close(self) -> None:
        """Nothing that is under way arrives any more."""
        for number in list(self._ways):
            self._abandon(number)

    # ---- what they are sent

    def send(self, peer: Peer, outlet: Outlet, packets: list[bytes], now_ns: int) -> None:
        """Packets of media, with parity among them: counted, kept for a client that may ask again, and sent."""
        stream, ssrc, first = outlet.track.stream, outlet.ssrc, outlet.first_sequence + outlet.packets
        if outlet.began_ns is None:
            outlet.began_ns = now_ns
        outlet.packets += len(packets)
        outlet.octets += sum(map(len, packets)) - HEADER_BYTES * len(packets)
        if outlet.again is not None:
            outlet.again.sent(packets, now_ns)
        way = self._between(peer)
        if way is None:
            taken = self._give(peer, outlet, packets, now_ns)
            self._write(outlet, packets[:taken], first, now_ns, None)
            self._write(outlet, packets[taken:], first + taken, now_ns, "socket_dropped")
            return
        rows: list[PacketTuple] = []
        for number, packet in enumerate(packets, first):
            _, second, _, timestamp, _ = HEADER.unpack_from(packet)
            rows.append((stream, ssrc, number, timestamp, second >= MARKER, len(packet), now_ns, None, None))
        self._give_network(way, peer, outlet, packets, rows, now_ns, lane=stream)

    def send_again(self, peer: Peer, outlet: Outlet, packets: list[bytes], now_ns: int) -> None:
        """Packets that a client asked for, as a stream of their own."""
        rows: list[PacketTuple] = []
        for packet in packets:
            header = RtpPacket.parse(packet)
            mark = outlet.track.stream, header.ssrc, outlet.again_sequence(header.sequence), header.timestamp
            rows.append((*mark, header.marker, len(packet), now_ns, None, None))
        way = self._between(peer)
        if way is None:
            self._hand_over(peer, outlet, packets, rows, now_ns)
        else:
            self._give_network(way, peer, outlet, packets, rows, now_ns, lane=f"{outlet.track.stream} rtx")

    def send_rtcp(self, peer: Peer, outlet: Outlet, data: bytes, now_ns: int) -> None:
        """A report or a BYE."""
        way = self._between(peer)
        if way is None:
            self._hand_over_rtcp(peer, outlet, data, now_ns)
        else:
            self._push(way, f"{outlet.track.stream} rtcp", _Parcel(peer, outlet, data, None), now_ns)

    def wake_at(self) -> int | None:
        """When the network lets go of something."""
        moments = (way.wake_at() for _, way in self._ways.values())
        return min((moment for moment in moments if moment is not None), default=None)

    def deliver(self, now_ns: int) -> None:
        """Hand over what has come through the network by now, runs of one stream together."""
        for _, way in list(self._ways.values()):
            lost: list[PacketTuple] = []
            run: list[tuple[_Parcel, PacketTuple | None]] = []
            for outcome in way.pull(now_ns):
                if isinstance(outcome, Dropped):
                    self._note(outcome, lost)
                    continue
                copied = isinstance(outcome, Copy)
                parcel: _Parcel = outcome.packet.item if isinstance(outcome, Copy) else outcome.item
                parcel.outlet.copies += copied and parcel.row is not None
                if parcel.row is None or (run and run[0][0].outlet is not parcel.outlet):
                    self._hand_over_run(run, now_ns)
                    run = []
                if parcel.row is None:
                    self._hand_over_rtcp(parcel.peer, parcel.outlet, parcel.data, now_ns)
                else:  # a copy that the network made was never sent: it has no row here
                    run.append((parcel, None if copied else parcel.row))
            self._hand_over_run(run, now_ns)
            self._recorder.packets(lost)

    # ---- within

    def _give_network(
        self,
        way: Impairment,
        peer: Peer,
        outlet: Outlet,
        packets: list[bytes],
        rows: list[PacketTuple],
        now_ns: int,
        *,
        lane: str,
    ) -> None:
        """Packets leave through a network; what repairs has a lane of its own and shifts no loss."""
        if outlet.channels is not None and peer.link.waiting + way.reliable_bytes > STALL_BYTES:
            self._recorder.packets([(*row[:-1], "socket_dropped") for row in rows])
            return
        for packet, row in zip(packets, rows, strict=True):
            parity = outlet.parity is not None and packet[1] & 0x7F == FEC_TYPE
            self._push(way, f"{lane} fec" if parity else lane, _Parcel(peer, outlet, packet, row), now_ns)
        self.deliver(now_ns)

    def _hand_over(
        self, peer: Peer, outlet: Outlet, packets: list[bytes], rows: Sequence[PacketTuple | None], now_ns: int
    ) -> None:
        """Give packets of media to the system, and write down those that have a row."""
        taken = self._give(peer, outlet, packets, now_ns)
        kept = (row if at < taken else (*row[:-1], "socket_dropped") for at, row in enumerate(rows) if row is not None)
        self._recorder.packets(kept)

    def _give(self, peer: Peer, outlet: Outlet, packets: list[bytes], now_ns: int) -> int:
        """Give packets of media to the system; how many it took."""
        if outlet.addresses is not None:
            if outlet.links is None:
                return 0
            link = outlet.links[0]
            link.offload = self._offload.count(len(packets), link.can_segment, now_ns)
            return link.send(packets, outlet.addresses[0])
        if outlet.channels is not None:
            if peer.link.waiting > STALL_BYTES:
                return 0
            self._interleave(peer, outlet.channels[0], packets, now_ns)
        return len(packets)

    def _write(self, outlet: Outlet, packets: list[bytes], first: int, now_ns: int, fate: str | None) -> None:
        """A row for each of some packets of media, the first of which has the number `first`."""
        if not packets:
            return
        headers = np.frombuffer(b"".join([packet[:HEADER_BYTES] for packet in packets]), _HEADERS)
        self._recorder.packet_batch(
            len(packets),
            stream=outlet.track.stream,
            ssrc=outlet.ssrc,
            seq=np.arange(first, first + len(packets)),
            timestamp=headers["timestamp"],
            marker=headers["second"] >> 7,
            size=list(map(len, packets)),
            sent_ns=now_ns,
            fate=fate,
        )

    def _hand_over_rtcp(self, peer: Peer, outlet: Outlet, data: bytes, now_ns: int) -> None:
        if outlet.channels is not None:
            self._interleave(peer, outlet.channels[1], [data], now_ns)
        elif outlet.addresses is not None and outlet.links is not None:
            outlet.links[1].send([data], outlet.addresses[1])

    def _interleave(self, peer: Peer, channel: int, packets: list[bytes], now_ns: int) -> None:
        try:
            peer.link.send(b"".join(interleave(channel, packet) for packet in packets), now_ns)
        except OSError:
            peer.gone = True  # the audience parts from it once the round of sending is over

    def _way(self, peer: Peer) -> Impairment | None:
        return next((way for owner, way in self._ways.values() if owner is peer), None)

    def _between(self, peer: Peer) -> Impairment | None:
        """The network between the server and a client; None where packets leave at once."""
        way = self._way(peer)
        return None if way is None or (self.network.clear and way.wake_at() is None) else way

    def _push(self, way: Impairment, stream: str, parcel: _Parcel, now_ns: int) -> None:
        reliable = parcel.outlet.channels is not None  # one lane for all that is interleaved keeps its order
        way.network = self.network
        way.push(Packet("tcp" if reliable else stream, len(parcel.data), parcel, reliable), now_ns)

    def _hand_over_run(self, run: list[tuple[_Parcel, PacketTuple | None]], now_ns: int) -> None:
        if run:
            first, packets = run[0][0], [parcel.data for parcel, _ in run]
            self._hand_over(first.peer, first.outlet, packets, [row for _, row in run], now_ns)

    def _note(self, dropped: Dropped, rows: list[PacketTuple]) -> None:
        row = dropped.item.item.row
        if row is not None:
            rows.append((*row[:-1], dropped.reason))

    def _abandon(self, number: int) -> None:
        """A client is gone, or the server: what is under way arrives nowhere."""
        rows: list[PacketTuple] = []
        for dropped in self._ways.pop(number)[1].flush():
            self._note(dropped, rows)
        self._recorder.packets(rows)
