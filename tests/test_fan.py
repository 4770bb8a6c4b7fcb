"""A frame to many clients at once: what each gets, and the record of it, is what each would get by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.core.budget import FeedbackBudget
from avlab.core.sender import Sender
from avlab.measure.record.trace import Recorder
from avlab.network.offload import Offload
from avlab.network.parity import ParityEncoder
from avlab.network.retransmission import RtxSender
from avlab.stream.clock import VirtualClock
from avlab.stream.recording import SenderRecording
from avlab.stream.rtsp.dispatch import Dispatch
from avlab.stream.rtsp.fan import Fan
from avlab.stream.rtsp.peer import Peer, Recipient, Route, Track, outlet_of
from avlab.wire import sdp
from avlab.wire.batch import Batch
from avlab.wire.plate import Plate
from avlab.wire.rtp import HEADER_BYTES, Packed, serialize_header

MS = 1_000_000
TRACK = Track("video", 26, 90_000, 1, 7, sdp.Media(kind="video", payload_type=26, encoding="JPEG", clock_rate=90_000))


class Udp:
    """A socket of one client: the bytes that were sent from it; it may take no more than so many packets a call."""

    can_segment = True
    offload = False
    takes = 1000

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send_batch(self, batch: Batch, to: Any) -> int:
        taken = min(batch.total, self.takes)
        self.sent.append(bytes(batch.part(0, taken).data))
        return taken

    def send(self, packets: list[bytes], to: Any) -> int:
        self.sent += packets
        return len(packets)


class Room:
    """So many clients of a server without sockets."""

    def __init__(self, clients: int) -> None:
        self.recorder = Recorder(side="server", epoch_ns=0, clock="virtual")
        self.offload = Offload(mode="on")
        self.dispatch = Dispatch(SenderRecording(self.recorder), self.offload)
        self.clock = VirtualClock()
        self.links = [(Udp(), Udp()) for _ in range(clients)]
        self.peers: list[Peer] = []
        nobody: Any = None
        for number, links in enumerate(self.links):
            here = ("127.0.0.1", 5000 + 2 * number)
            peer = Peer(nobody, here, here, nobody, 0, Sender(unix_offset_ns=0, budget=FeedbackBudget()))
            given: Any = links
            peer.routes["video"] = Route(TRACK, 0xFFFF_FFF0 + number, addresses=(here, here), links=given)
            peer.sender.add(outlet_of(peer.routes["video"], sequence=65_500 + 9 * number))
            self.dispatch.join(peer)
            peer.sender.play(0, 0)
            self.dispatch.send(peer, 0)
            self.peers.append(peer)

    def one_by_one(self, packed: Packed, pts_ns: int, recipients: list[Recipient]) -> None:
        for one in recipients:
            now_ns = self.clock.now_ns()
            one.sender.send("video", packed, pts_ns, now_ns)
            self.dispatch.send(one, now_ns)

    def together(self, packed: Packed, pts_ns: int, recipients: list[Recipient]) -> None:
        _, others = Fan(self.dispatch, self.clock).send(TRACK, packed, pts_ns, recipients, size=1200)
        self.one_by_one(packed, pts_ns, others)

    @property
    def state(self) -> list[Any]:
        ways = [peer.sender.outlets["video"] for peer in self.peers]
        known = [
            (o.number, o.packets, o.octets, o.frames, o.newest, o.sent_bytes, o.began_ns, o.reported_ns) for o in ways
        ]
        sent = [(rtp.sent, rtcp.sent, rtp.offload) for rtp, rtcp in self.links]
        rows = self.recorder.trace().rows("packets")
        return [known, sent, self.dispatch.sent_bytes, rows[rows.argsort(order=("ssrc", "seq"))].tobytes()]


def cut(count: int, last: int = 100, ticks: int = 0) -> Packed:
    """A picture's packets, or a chunk's, whose last one has `last` bytes behind its header."""
    marker = not ticks
    sizes = [100] * (count - 1) + [last]
    heads = [serialize_header(26, 0, 0, 0, marker and at == count - 1) for at in range(count)]
    data = b"".join(head + bytes([at % 251]) * size for at, (head, size) in enumerate(zip(heads, sizes, strict=True)))
    return Packed(Batch(data, HEADER_BYTES + (100 if count > 1 else last)), ticks)


def plain(room: Room) -> None:
    """All get their packets as they are."""


def repaired(room: Room) -> None:
    room.peers[0].sender.outlets["video"].parity = ParityEncoder(payload_type=99)
    room.peers[2].sender.outlets["video"].again = RtxSender(ssrc=9, payload_type=98, sequence=5)


def leaving(room: Room) -> None:
    room.peers[1].sender.pause()
    room.peers[2].routes["video"].links = None


def crowded(room: Room) -> None:
    room.links[1][0].takes = 2
    room.links[2][0].takes = 0


def spread(room: Room) -> None:
    room.peers[1].sender.spread = 0.5


@pytest.mark.parametrize("change", [plain, repaired, leaving, crowded, spread])
def test_many_are_sent_what_each_would_be(change: Callable[[Room], None]) -> None:
    rooms = Room(3), Room(3)
    for room, send in zip(rooms, (Room.one_by_one, Room.together), strict=True):
        change(room)
        for number in range(50):  # reports are due in between, at the start of each half second
            room.clock.sleep_until(25 * MS * number)
            send(room, cut(1 + 7 * (number % 9), 1 + number), 25 * MS * number, list(room.peers))
    assert rooms[0].state == rooms[1].state


def test_reports_of_clients_that_came_apart_go_together() -> None:
    room = Room(3)
    room.together(cut(3), 0, list(room.peers))  # the first frame is each client's own
    ways = [peer.sender.outlets["video"] for peer in room.peers]
    moments: list[list[int]] = [[], [], []]
    for number in range(1, 100):
        if number in (4, 7):
            ways[number // 3].reported_ns = room.clock.now_ns()
        room.clock.sleep_until(33 * MS * number)
        room.together(cut(3), 33 * MS * number, list(room.peers))
        for seen, way in zip(moments, ways, strict=True):
            if way.reported_ns == room.clock.now_ns():
                seen.append(number)
    assert moments == [[16, 31, 46, 61, 76, 91]] * 3


def test_who_does_not_get_it_as_it_is_is_sent_nothing() -> None:
    room = Room(3)
    room.together(cut(3), 0, list(room.peers))  # the first frame is each client's own
    repaired(room)
    before = [len(rtp.sent) for rtp, _ in room.links]
    fan = Fan(room.dispatch, room.clock)
    room.clock.sleep_until(33 * MS)
    first_ns, others = fan.send(TRACK, cut(3), 33 * MS, room.peers, size=1200)
    assert first_ns == 33 * MS
    assert others == [room.peers[0], room.peers[2]]
    assert [len(rtp.sent) - count for count, (rtp, _) in zip(before, room.links, strict=True)] == [0, 1, 0]


def test_smaller_packets_are_for_who_asks_for_them() -> None:
    room = Room(2)
    room.together(cut(3), 0, list(room.peers))
    room.peers[0].routes["video"].packet_size = 600
    room.peers[1].routes["video"].packet_size = 1500
    _, others = Fan(room.dispatch, room.clock).send(TRACK, cut(3), 0, room.peers, size=1200)
    assert others == [room.peers[0]]


@given(
    st.integers(1, 200), st.integers(0, 100), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF), st.sampled_from([0, 1, 480]),
)  # fmt: skip
def test_stamped_in_place_they_are_as_laid_out_anew(
    count: int, last: int, sequence: int, timestamp: int, ssrc: int, ticks: int
) -> None:
    packed = cut(count, last, ticks)
    assert Plate.takes(packed)
    plate = Plate(packed, timestamp)
    for number, source in ((3, 5), (sequence, ssrc)):
        plate.stamp(number, source)
        again = packed.stamped(sequence=number, timestamp=timestamp, ssrc=source)
        kept = plate.batch.kept()
        assert kept.data == again.data
        assert (kept.size, kept.total, kept.last) == (again.size, again.total, again.last)
        assert [bytes(data) for data in plate.batch.datagrams()] == again.datagrams()
    plate.stamp(0, 0)
    assert kept.data == again.data, "what is kept stays"


def test_packets_of_several_sizes_or_kinds_are_not_stamped_in_place() -> None:
    batch = cut(2).batch
    assert not Plate.takes(Packed(batch, rest=(batch,)))
    assert not Plate.takes(Packed(Batch(serialize_header(26, 0, 0, 0, True) + serialize_header(27, 0, 0, 0, True), 12)))
