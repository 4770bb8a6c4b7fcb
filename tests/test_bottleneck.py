"""A bottleneck that several streams share: one queue, whatever comes in through which network."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import avlab
from avlab.network.impairment import Impairment, InTransit
from avlab.stream.ways import upward

MS = 1_000_000


def arrivals(way: Impairment, until_ns: int) -> list[tuple[int, Any]]:
    out = []
    while (at := way.wake_at()) is not None and at <= until_ns:
        out += [(at, outcome) for outcome in way.pull(at)]
    return out


def kbps(trace: avlab.Trace) -> float:
    packets = trace.packets
    came = packets[packets["received"].notna()]
    return float(came["bytes"].sum()) * 8 / 1000 / 8


def test_two_ways_wait_in_one_queue() -> None:
    shared = avlab.Bottleneck(1000, queue=0.02)  # a packet of 1,250 bytes takes 10 ms
    one, other = (Impairment(avlab.Network(bottleneck=shared, delay=delay)) for delay in (0.0, 0.005))
    one.push(InTransit("video", 1250, "a"), 0)
    other.push(InTransit("video", 1250, "b"), 0)
    one.push(InTransit("video", 1250, "c"), 1 * MS)
    other.push(InTransit("video", 1250, "d"), 2 * MS)  # finds 28 ms waiting
    other.push(InTransit("video", 1250, "tcp", True), 2 * MS)  # waits all the same
    first, second = arrivals(one, 10**9), arrivals(other, 10**9)
    assert [(at // MS, outcome.item) for at, outcome in first] == [(10, "a"), (30, "c")]
    assert [at // MS for at, _ in second] == [2, 25, 45]
    assert second[0][1].reason == "lost"
    shared.restart()
    another = Impairment(avlab.Network(bottleneck=shared))
    another.push(InTransit("video", 1250, "e"), 0)
    assert another.wake_at() == 10 * MS


mixes = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["video", "tcp"]), st.integers(1, 1500)), min_size=1, max_size=80
)


def fares(way: Impairment, packets: list[tuple[int, str, int]]) -> list[tuple[int, str]]:
    """When each packet of a run arrives, or is lost, and which it is."""
    out: list[tuple[int, str]] = []

    def drain(until_ns: int) -> None:
        for at, outcome in arrivals(way, until_ns):
            lost = not isinstance(outcome, InTransit)
            out.append((at, f"{outcome.item.item} lost" if lost else outcome.item))

    now_ns = 0
    for number, (gap_ms, stream, size) in enumerate(packets):
        now_ns += gap_ms * MS
        drain(now_ns)
        way.push(InTransit(stream, size, f"{stream} {number}", stream == "tcp"), now_ns)
    drain(1 << 60)
    return out


@given(mixes, st.sampled_from([0.0, 0.02, 0.5]))
def test_of_one_stream_alone_it_makes_what_a_bottleneck_of_its_own_would(
    packets: list[tuple[int, str, int]], queue: float
) -> None:
    shared, own = avlab.Bottleneck(1000, queue=queue), avlab.Network(rate=1000, queue=queue, delay=0.01)
    assert fares(Impairment(avlab.Network(bottleneck=shared, delay=0.01)), packets) == fares(Impairment(own), packets)


@given(st.lists(mixes, min_size=2, max_size=3), st.sampled_from([0.0, 0.02, 0.5]))
def test_what_tcp_carries_waits_for_room_and_is_never_lost(
    runs: list[list[tuple[int, str, int]]], queue: float
) -> None:
    shared = avlab.Bottleneck(1000, queue=queue)
    ways = [Impairment(avlab.Network(bottleneck=shared)) for _ in runs]
    steps = []
    for way, packets in zip(ways, runs, strict=True):
        now_ns = 0
        for gap_ms, stream, size in packets:
            now_ns += gap_ms * MS
            steps.append((now_ns, len(steps), way, InTransit(stream, size, len(steps), stream == "tcp")))
    out: dict[int, list[tuple[int, Any]]] = {id(way): [] for way in ways}

    def pass_time(until_ns: int) -> None:
        while (at := min(way.wake_at() or 1 << 62 for way in ways)) <= until_ns:
            for way in ways:
                out[id(way)] += [(at, outcome) for outcome in way.pull(at)]

    for now_ns, _, way, packet in sorted(steps, key=lambda step: step[:2]):
        pass_time(now_ns)
        way.push(packet, now_ns)
    pass_time(1 << 60)
    came = []
    for way in ways:
        assert way.reliable_bytes == 0
        said = [step[3].item for step in steps if step[2] is way and step[3].reliable]
        assert [p.item for _, p in out[id(way)] if isinstance(p, InTransit) and p.reliable] == said
        came += [(at, p) for at, p in out[id(way)] if isinstance(p, InTransit)]
    came.sort(key=lambda each: each[0])
    for (before_ns, _), (at_ns, packet) in pairwise(came):
        assert at_ns - before_ns >= 8_000 * packet.size  # ns that it takes by itself
    began_ns = {step[3].item: step[0] for step in steps}
    for at_ns, packet in came:
        if not packet.reliable:
            assert at_ns - began_ns[packet.item] <= queue * 1e9 + 8_000 * packet.size


def test_what_others_send_finds_no_longer_queue_for_what_tcp_carries() -> None:
    """A connection that was given a second's worth at once has it held back: a packet later on waits for 20 ms."""
    shared = avlab.Bottleneck(1000, queue=0.02)
    tcp, udp = (Impairment(avlab.Network(bottleneck=shared)) for _ in range(2))
    for number in range(100):
        tcp.push(InTransit("tcp", 1250, number, True), 0)
    assert tcp.reliable_bytes == 125_000
    assert len(arrivals(tcp, 500 * MS)) == 50
    udp.push(InTransit("video", 1250, "a"), 505 * MS)
    assert udp.pull(505 * MS)[0].reason == "lost"  # type: ignore[union-attr]
    assert len(arrivals(tcp, 2000 * MS)) == 50
    udp.push(InTransit("video", 1250, "b"), 2000 * MS)
    assert [at // MS for at, _ in arrivals(udp, 3000 * MS)] == [2010]


@pytest.mark.parametrize("after", [{}, {"rate": 1000.0}, {"bottleneck": "another"}])
def test_what_tcp_holds_back_goes_on_through_another_network(after: dict[str, Any]) -> None:
    way = Impairment(avlab.Network(bottleneck=avlab.Bottleneck(1000, queue=0.0)))
    for number in range(4):
        way.push(InTransit("tcp", 1250, number, True), 0)
    assert way.pull(5 * MS) == []
    if "bottleneck" in after:
        after = {"bottleneck": avlab.Bottleneck(1000, queue=0.0)}
    way.network = avlab.Network(**after)
    way.push(InTransit("tcp", 1250, 4, True), 5 * MS)
    out = arrivals(way, 10**9)
    assert [p.item for _, p in out] == list(range(5))
    assert out[-1][0] == (45 * MS if after else 10 * MS)


def test_two_streams_get_what_passes_between_them() -> None:
    shared = avlab.Network(bottleneck=avlab.Bottleneck(4000))
    alone = avlab.simulate(30, seconds=8, network=shared, work=0)
    both = avlab.simulate_together({"a": 30, "b": {"clip": 30, "seed": 2}}, seconds=8, network=shared, work=0)
    assert kbps(alone) == pytest.approx(3500, rel=0.1)
    assert sum(map(kbps, both.values())) == pytest.approx(4000, rel=0.05)
    # Drop-tail is not fair: of two that send at one moment, the later one finds the queue full.
    assert max(avlab.metrics.summary(trace).packet_loss_percent or 0 for trace in both.values()) > 20
    assert avlab.metrics.summary(alone).packet_loss_percent == 0


def test_streams_without_one_do_what_they_do_alone() -> None:
    network = avlab.Network(loss=0.02, delay=0.03, rate=3000)
    alone = avlab.simulate(30, seconds=2, network=network, seed=3)
    together = avlab.simulate_together({"x": {"clip": 30, "seed": 3}, "y": 15}, seconds=2, network=network)["x"]
    assert together.frames.equals(alone.frames)
    assert together.packets.equals(alone.packets)


def test_a_run_is_the_same_each_time() -> None:
    shared = avlab.Network(bottleneck=avlab.Bottleneck(4000))
    runs = [
        avlab.simulate_together({"a": {"clip": 30, "rate_control": "aimd"}, "b": 30}, seconds=3, network=shared)
        for _ in range(2)
    ]
    for name in "ab":
        assert runs[0][name].packets.equals(runs[1][name].packets)


def test_feedback_does_not_wait_in_it_and_a_network_says_that_it_is_there() -> None:
    network = avlab.Network(bottleneck=avlab.Bottleneck(4000, queue=0.2))
    assert upward(network).clear
    assert not network.clear
    assert str(network) == "shared rate 4000 kbit/s, queue 200 ms"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: avlab.Bottleneck(0), "rate must be more than 0"),
        (lambda: avlab.Bottleneck(1000, queue=20), "queue must be at most 10 seconds"),
        (lambda: avlab.Network(bottleneck=4000), "must be an avlab.Bottleneck"),
        (lambda: avlab.Network(bottleneck=avlab.Bottleneck(4000), rate=1), "rate or bottleneck, not both"),
        (lambda: avlab.simulate_together({}), "streams must have"),
        (lambda: avlab.simulate_together({"a": {"seed": 1}}), "stream 'a' has no clip"),
    ],
    ids=["rate", "queue", "number", "both", "none", "no clip"],
)
def test_what_cannot_be_is_said(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_what_is_shared_is_not_copied_to_another_process() -> None:
    with pytest.raises(TypeError, match="shared within one process"):
        pickle.dumps(avlab.Bottleneck(4000))
    with pytest.raises(TypeError, match="no setting 'qualty'"):
        avlab.simulate_together({"a": {"clip": 30, "qualty": 5}})
