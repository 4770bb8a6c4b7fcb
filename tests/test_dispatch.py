"""Between a server's senders and its sockets, in virtual time: runs in one send, a network each way, rows for all."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

from avlab.core.budget import FeedbackBudget
from avlab.core.sender import Sender
from avlab.measure.record.trace import Recorder
from avlab.network.impairment import Impairment, InTransit
from avlab.network.offload import Offload
from avlab.network.settings import Network
from avlab.stream.recording import SenderRecording
from avlab.stream.rtsp.dispatch import Dispatch
from avlab.stream.rtsp.peer import Peer, Route, Track, outlet_of
from avlab.stream.ways import MOST_RISING, STALL_BYTES, upward
from avlab.wire import rtcp, sdp
from avlab.wire.batch import Batch
from avlab.wire.rtp import HEADER_BYTES, Packed, RtpPacket, serialize_header

MS = 1_000_000
TRACK = Track("video", 26, 90_000, 1, 0, sdp.Media(kind="video", payload_type=26, encoding="JPEG", clock_rate=90_000))
HERE = ("127.0.0.1", 5000)


class Udp:
    """A socket: what was sent from it, a batch at a time; it may take no more than so many datagrams a call."""

    can_segment = True
    offload = False

    def __init__(self, takes: int = 1000) -> None:
        self.batches: list[Batch] = []
        self.takes = takes

    def send_batch(self, batch: Batch, to: Any) -> int:
        taken = min(batch.total, self.takes)
        self.batches.append(batch.part(0, taken))
        return taken

    def send(self, packets: list[bytes], to: Any) -> int:
        self.batches += [Batch(data, len(data)) for data in packets]
        return len(packets)

    @property
    def sequences(self) -> list[list[int]]:
        return [[RtpPacket.parse(data).sequence for data in batch.datagrams()] for batch in self.batches]


class Tcp:
    """A connection: bytes that wait for the peer, and those that went."""

    waiting = 0

    def __init__(self) -> None:
        self.sent = b""

    def send(self, data: bytes, now_ns: int) -> None:
        self.sent += data


class Stand:
    """One client of a server without sockets."""

    def __init__(self, network: Network | None = None, *, interleaved: bool = False, takes: int = 1000) -> None:
        self.recorder = Recorder(side="server", epoch_ns=0, clock="virtual")
        self.dispatch = Dispatch(SenderRecording(self.recorder), Offload())
        self.dispatch.network = network or Network()
        self.rtp, self.rtcp, self.tcp = Udp(takes), Udp(), Tcp()
        stage: Any = None
        link: Any = self.tcp
        self.sender = Sender(unix_offset_ns=0, budget=FeedbackBudget())
        self.peer = Peer(link, HERE, HERE, stage, 0, self.sender)
        links: Any = (self.rtp, self.rtcp)
        ways: dict[str, Any] = {"channels": (0, 1)} if interleaved else {"addresses": (HERE, HERE), "links": links}
        self.route = self.peer.routes["video"] = Route(TRACK, 77, **ways)
        self.sender.add(outlet_of(self.route, sequence=100))
        self.dispatch.join(self.peer)
        self.sender.play(0, 0)
        self.dispatch.send(self.peer, 0)
        self.rtp.batches.clear()

    def frame(self, packets: int, now_ns: int) -> None:
        data = b"".join(serialize_header(26, 0, 0, 0, at == packets - 1) + bytes(100) for at in range(packets))
        self.sender.send("video", Packed(Batch(data, HEADER_BYTES + 100)), now_ns, now_ns)
        self.dispatch.send(self.peer, now_ns)

    @property
    def rows(self) -> pd.DataFrame:
        return self.recorder.trace().packets.sort_values("seq")


def test_a_frame_is_one_send_and_a_row_for_each_packet() -> None:
    stand = Stand()
    stand.frame(5, 10 * MS)
    assert stand.rtp.sequences == [[100, 101, 102, 103, 104]]
    rows = stand.rows
    assert list(rows["seq"]) == [100, 101, 102, 103, 104]
    assert set(rows["ssrc"]) == {77}
    assert list(rows["marker"]) == [False] * 4 + [True]
    assert set(rows["bytes"]) == {112}
    assert set(rows["sent"]) == {0.01}
    assert len(set(rows["timestamp"])) == 1
    assert rows["fate"].isna().all()


def test_what_the_system_does_not_take_is_written_down_as_dropped() -> None:
    stand = Stand(takes=3)
    stand.frame(5, 0)
    assert list(stand.rows["fate"].astype(object).fillna("")) == ["", "", "", "socket_dropped", "socket_dropped"]
    stand.route.links = None  # torn down meanwhile
    stand.frame(2, 0)
    assert list(stand.rows["fate"].astype(object).fillna(""))[5:] == ["socket_dropped"] * 2


def test_a_connection_that_is_not_read_is_given_no_more() -> None:
    stand = Stand(interleaved=True)
    stand.frame(2, 0)
    sent = stand.tcp.sent
    assert sent.count(b"$\x00") == 2
    stand.tcp.waiting = STALL_BYTES + 1
    for network in (Network(), Network(delay=0.01)):
        stand.dispatch.network = network
        stand.frame(2, 0)
    assert stand.tcp.sent == sent
    assert list(stand.rows["fate"].astype(object).fillna("")) == ["", "", *["socket_dropped"] * 4]


def test_a_network_loses_what_its_draws_say_and_the_rest_leaves_in_runs() -> None:
    network = Network(loss=0.2, burst=3, delay=0.02, seed=5)
    stand = Stand(network)
    bare = Impairment(network, client=0)
    for _ in range(20):
        bare.push(InTransit("video", 112), 0)
    lost = [outcome for outcome in bare.pull(0) if not isinstance(outcome, InTransit)]
    stand.frame(20, 0)
    assert stand.rtp.batches == []
    assert stand.dispatch.wake_at() == 0 or stand.dispatch.wake_at() == 20 * MS
    stand.dispatch.deliver(20 * MS)
    came = [number for run in stand.rtp.sequences for number in run]
    rows = stand.rows
    assert sorted([*came, *rows["seq"][rows["fate"] == "lost"]]) == list(range(100, 120))
    assert len(rows["seq"][rows["fate"] == "lost"]) == len(lost) > 0
    breaks = sum(second != first + 1 for first, second in pairwise(came))
    assert len(stand.rtp.batches) == breaks + 1, "one send for packets that are next to each other"
    assert set(rows["sent"]) == {0.0}


def test_what_is_under_way_when_a_client_leaves_arrives_nowhere() -> None:
    stand = Stand(Network(delay=0.5))
    stand.frame(4, 0)
    stand.dispatch.leave(stand.peer)
    assert list(stand.rows["fate"]) == ["in_flight"] * 4
    stand.dispatch.deliver(1000 * MS)
    assert stand.rtp.batches == []


def test_copies_are_sent_and_have_no_row() -> None:
    stand = Stand(Network(duplicate=1.0))
    stand.frame(3, 0)
    assert sorted(number for run in stand.rtp.sequences for number in run) == [100, 100, 101, 101, 102, 102]
    assert list(stand.rows["seq"]) == [100, 101, 102]
    assert stand.sender.outlets["video"].copies == 3


# ---- on the way up


def report(number: int) -> bytes:
    block = rtcp.ReportBlock(77, 0, 0, number, 0)
    return rtcp.serialize_compound([rtcp.ReceiverReport(1, (block,)), rtcp.Sdes(1, "x")])


def test_without_a_network_feedback_comes_at_once() -> None:
    stand = Stand()
    assert stand.dispatch.rise(stand.peer, 77, b"a", 0) == [b"a"]
    assert stand.dispatch.risen(0) == []
    assert stand.dispatch.wake_at() is None


def test_feedback_takes_the_networks_delay_up() -> None:
    stand = Stand(Network(delay=0.05))
    stand.dispatch.deliver(1000 * MS)
    assert stand.dispatch.rise(stand.peer, 77, b"a", 1000 * MS) == []
    assert stand.dispatch.wake_at() == 1050 * MS
    assert stand.dispatch.risen(1049 * MS) == []
    stand.dispatch.network = Network()
    assert stand.dispatch.rise(stand.peer, 77, b"b", 1049 * MS) == [], "b does not overtake a"
    assert stand.dispatch.risen(1050 * MS) == [(stand.peer, b"a"), (stand.peer, b"b")]
    assert stand.dispatch.rise(stand.peer, 77, b"c", 1051 * MS) == [b"c"]


@pytest.mark.parametrize("seed", [1, 2])
def test_feedback_is_lost_as_a_simulation_with_the_same_seed_loses_it(seed: int) -> None:
    network = Network(loss=0.4, burst=2, jitter=0.01, rate=10, duplicate=0.5, seed=seed)
    stand = Stand(network)
    bare = Impairment(Network(loss=0.4, burst=2, jitter=0.01, seed=seed), client=0, direction="up")
    here: list[bytes] = []
    expected: list[bytes] = []
    for at in range(60):
        now_ns, data = at * 40 * MS, report(at)
        here += [data for _, data in stand.dispatch.risen(now_ns)]
        expected += [outcome.item for outcome in bare.pull(now_ns) if isinstance(outcome, InTransit)]
        here += stand.dispatch.rise(stand.peer, 77, data, now_ns)
        bare.push(InTransit("video rtcp", len(data), data), now_ns)
        expected += [outcome.item for outcome in bare.pull(now_ns) if isinstance(outcome, InTransit)]
    assert here == expected
    assert 20 < len(here) < 55


def test_the_bottleneck_is_that_of_the_way_down() -> None:
    passes = Network(loss=0.1, burst=3, delay=0.1, jitter=0.01, reorder=True, queue=0.3, seed=9)
    assert upward(replace(passes, rate=100, duplicate=0.2)) == passes


def test_a_flood_under_way_takes_no_more_than_so_much_memory() -> None:
    stand = Stand(Network(delay=10))
    for at in range(3 * MOST_RISING):
        assert stand.dispatch.rise(stand.peer, 77, report(at), 0) == []
    arrived = [data for _, data in stand.dispatch.risen(10 * 1000 * MS)]
    assert arrived == [report(at) for at in range(MOST_RISING)]
    stand.dispatch.network = Network()
    assert stand.dispatch.rise(stand.peer, 77, b"next", 10 * 1000 * MS) == [b"next"]


@pytest.mark.parametrize("settings", [{"delay": 0.03}, {"rate": 400, "queue": 1.0}, {"delay": 0.01, "jitter": 0.02}])
def test_what_is_under_way_arrives_though_the_network_is_clear_by_then(settings: dict[str, float]) -> None:
    stand = Stand()
    stand.frame(3, 0)  # with nothing between, nothing is waited for
    assert stand.dispatch.wake_at() is None
    for round_ns in (100 * MS, 900 * MS):
        stand.dispatch.network = Network(seed=2, **settings)  # type: ignore[arg-type]
        before = sum(map(len, stand.rtp.sequences))
        stand.frame(4, round_ns)
        stand.dispatch.network = Network()
        arrived = []
        while (at_ns := stand.dispatch.wake_at()) is not None:
            assert round_ns <= at_ns < round_ns + 700 * MS
            stand.dispatch.deliver(at_ns)
            arrived.append(sum(map(len, stand.rtp.sequences)) - before)
        assert arrived[-1] == 4
        assert not stand.dispatch.risen(round_ns + 700 * MS)
        assert stand.dispatch.wake_at() is None
