"""A bottleneck that several streams share: one queue, whatever comes in through which network."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

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
