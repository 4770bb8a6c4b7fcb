"""A bottleneck that live streams share: no more than its rate passes, each gets some, and its queue is bounded.

Sound waits for as long as it has to, as bytes of a TCP connection do: each rate has room for all of it, and not for all
pictures.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from rawclient import until

import avlab

QUEUE_S = 0.1


class Entry(NamedTuple):
    """A packet that came to the bottleneck."""

    size: int
    at_ns: int
    passes_ns: int | None


class Watched(avlab.Bottleneck):
    """One that writes down what enters, in the order in which it does."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate, queue=QUEUE_S)
        self.entries: list[Entry] = []
        self._writing = threading.Lock()

    def enter(self, size: int, now_ns: int) -> int | None:
        with self._writing:
            passes_ns = super().enter(size, now_ns)
            self.entries.append(Entry(size, now_ns, passes_ns))
            return passes_ns

    @property
    def passed(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.passes_ns is not None]

    def check(self) -> None:
        """That it let through no more than its rate, in order, and made no packet wait for longer than its queue."""
        passed = self.passed
        own_ns = [8 * entry.size * 1e6 / self.rate for entry in passed]
        ends_ns = [entry.passes_ns or 0 for entry in passed]
        for end_ns, before_ns, own in zip(ends_ns[1:], ends_ns, own_ns[1:], strict=False):
            assert end_ns - before_ns >= own - 1, "two at once"
        for entry, end_ns, own in zip(passed, ends_ns, own_ns, strict=True):
            assert end_ns - entry.at_ns <= QUEUE_S * 1e9 + own + 1
        bits = 8 * sum(entry.size for entry in passed)
        first_ns = min(entry.at_ns for entry in passed)
        assert bits <= self.rate * 1e-6 * (max(ends_ns) - first_ns) + 1


def came(client: avlab.Client) -> int:
    """Packets of pictures that came so far."""
    packets = client.trace.packets
    return int(((packets["stream"] == "video") & packets["received"].notna()).sum())


def bits(trace: avlab.Trace) -> float:
    packets = trace.packets
    return 8.0 * float(packets.loc[packets["received"].notna(), "bytes"].sum())


def check_shared(shared: Watched, clients: list[avlab.Client]) -> None:
    shared.check()
    assert any(entry.passes_ns is None for entry in shared.entries), "nothing was ever too much for it"
    each = [bits(client.trace) for client in clients]
    # What was received is among what passed, and hardly less: the last of it was still on its way.
    assert sum(each) <= 8 * sum(entry.size for entry in shared.passed)
    assert min(each) > 0.1 * sum(each), "one got nearly nothing"
    for client in clients:
        ledger = avlab.metrics.packet_ledger(client.trace)
        assert ledger.closes
        assert ledger.lost


@pytest.mark.slow
def test_clients_of_servers_in_one_process_share_it(data: Path) -> None:
    shared = Watched(7_000)
    network = avlab.Network(bottleneck=shared)
    with (
        avlab.Server(data / "count-15.mp4", loop=True, network=network) as first,
        avlab.Server(data / "count-24.mp4", loop=True, network=network) as second,
        avlab.Client(first.url, audio="null") as one,
        avlab.Client(first.url, audio="null") as other,
        avlab.Client(second.url, audio="null") as third,
    ):
        clients = [one, other, third]
        until(lambda: min(map(came, clients)) > 150 and len(shared.entries) > 1_500, 60)
    check_shared(shared, clients)


@pytest.mark.slow
def test_a_server_and_a_relay_share_it(data: Path) -> None:
    shared = Watched(6_000)
    network = avlab.Network(bottleneck=shared)
    with (
        avlab.Server(data / "count-15.mp4", loop=True, network=network) as narrow,
        avlab.Server(data / "count-24.mp4", loop=True) as wide,
        avlab.Relay(wide.url, network=network, one_way=True) as relay,
        avlab.Client(narrow.url, audio="null") as one,
        avlab.Client(relay.url, audio="null") as other,
    ):
        clients = [one, other]
        until(lambda: min(map(came, clients)) > 150 and len(shared.entries) > 1_200, 60)
    check_shared(shared, clients)


@pytest.mark.slow
def test_a_stream_that_comes_when_another_has_filled_the_queue_gets_its_share(data: Path) -> None:
    shared = Watched(3_800)
    network = avlab.Network(bottleneck=shared)
    with (
        avlab.Server(data / "count-24.mp4", loop=True, network=network) as first,
        avlab.Client(first.url, audio="null") as one,
    ):
        until(lambda: any(entry.passes_ns is None for entry in shared.entries), 60)
        with (
            avlab.Server(data / "count-15.mp4", loop=True, network=network) as second,
            avlab.Client(second.url, audio="null") as other,
        ):
            until(lambda: came(other) > 200, 60)
    shared.check()
    assert came(one) > 0
