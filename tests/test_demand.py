"""What a taker takes is told to whoever sends as fast as it can, in virtual time and on sockets."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from rawclient import until

import avlab
from avlab.core.arriving import Described
from avlab.core.budget import FeedbackBudget
from avlab.core.events import Path
from avlab.core.player import Player
from avlab.core.sender import Outlet, Sender
from avlab.stream.playing.tap import Tap
from avlab.stream.rtsp.audience import RtspAudience
from avlab.timing.demand import Demand
from avlab.timing.jitterbuffer import Frame
from avlab.timing.pacing import AHEAD_NS, NoPacing
from avlab.wire import rtcp
from avlab.wire.batch import Batch
from avlab.wire.rtcp import Limit
from avlab.wire.units import NS, WireError


def frame(number: int) -> Frame:
    return Frame(number * 3000, number * NS // 30, b"", 0, 0, 0, 0)


@dataclass
class Bench:
    """A sender that could send `most` pictures a second, and a taker that takes `rate` of them, in virtual time."""

    rate: float
    most: float = 2000.0
    places: int = 8
    trip_ns: int = 2_000_000
    varies: float = 0.3
    seed: int = 1
    now_ns: int = 0
    sent: int = 0
    got: int = 0
    limits: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pacer, self.tap, self.demand = NoPacing(), Tap(waiting=self.places), Demand()
        self.chance = random.Random(self.seed)
        self.told: list[tuple[int, float]] = []  # on their way to the sender
        self.heard_ns = -NS
        self.ready_ns = self.free_ns = self.looked_ns = 0

    def run(self, seconds: float) -> tuple[int, int]:
        """How many were sent and taken meanwhile."""
        sent, got = self.sent, self.got
        end_ns = self.now_ns + round(seconds * NS)
        while self.now_ns < end_ns:
            self.step()
        return self.sent - sent, self.got - got

    def step(self) -> None:
        now_ns = self.now_ns
        if self.told and self.told[0][0] <= now_ns:
            self.pacer.limit, self.heard_ns = self.told.pop(0)[1], now_ns
        if now_ns > self.heard_ns + NS:
            self.pacer.limit = None
        self.limits.append(self.pacer.limit)
        if self.pacer.wake_at() is None and now_ns >= self.ready_ns:
            self.pacer.push(frame(self.sent), now_ns)
            self.ready_ns = now_ns + round(NS / self.most)
        for due in self.pacer.pull(now_ns):
            self.sent += 1
            self.tap.put(due.item)
        if now_ns >= self.free_ns and self.rate and self.tap.take(0) is not None:
            self.got += 1
            self.free_ns = now_ns + round(NS / self.rate * (1 + self.chance.uniform(-self.varies, self.varies)))
        if now_ns >= self.looked_ns + NS // 20:
            self.looked_ns = now_ns
            if self.demand.look(self.tap.taken(), now_ns) and self.demand.limit is not None:
                self.told.append((now_ns + self.trip_ns, self.demand.limit))
        self.now_ns += 100_000


@pytest.mark.parametrize(("rate", "places"), [(900, 8), (120, 8), (30, 4), (450, 2), (900, 64)])
@pytest.mark.parametrize("trip_ms", [1, 80])
def test_few_are_sent_that_nobody_takes_and_the_taker_hardly_waits(rate: float, places: int, trip_ms: int) -> None:
    bench = Bench(rate, places=places, trip_ns=trip_ms * 1_000_000)
    bench.run(4)
    sent, got = bench.run(10)
    assert got > 0.9 * 10 * rate
    assert sent < 1.12 * got
    free = Bench(rate, places=places)
    free.demand.look = lambda taken, now_ns: False  # type: ignore[method-assign]
    sent, got = free.run(4)
    assert sent > 2 * got, "without it, most would be for nobody"


def test_a_taker_that_takes_all_limits_nothing() -> None:
    bench = Bench(rate=3000, most=800)
    sent, got = bench.run(5)
    assert set(bench.limits) == {None}
    assert sent == pytest.approx(got, abs=8)


def test_one_that_paused_or_became_faster_is_soon_sent_more() -> None:
    bench = Bench(200)
    bench.run(3)
    bench.rate = 0
    sent, _ = bench.run(10)
    assert sent < 200, "hardly anything while nothing is taken"
    bench.rate = 200
    bench.run(4)
    _, got = bench.run(5)
    assert got > 0.9 * 5 * 200
    bench.rate = 900
    bench.run(5)
    _, got = bench.run(5)
    assert got > 0.9 * 5 * 900
    bench.rate = 10_000
    bench.run(5)
    assert bench.pacer.limit is None, "it is not the taker that limits any more"


@pytest.mark.parametrize("fps", [1.0, 40.0, 333.0, 1500.0])
def test_a_limit_is_an_average_with_few_at_once(fps: float) -> None:
    pacer = NoPacing()
    pacer.restart(0)
    pacer.limit = fps
    now_ns, left = 0, []
    while now_ns < 5 * NS:
        if pacer.wake_at() is None:
            pacer.push(frame(len(left)), now_ns)
        left += [due.due_ns for due in pacer.pull(now_ns)]
        now_ns += 50_000
    few = 1 + AHEAD_NS * fps / NS
    assert len(left) == pytest.approx(5 * fps, rel=0.05, abs=1 + few)
    assert left == sorted(left)
    most = max(sum(1 for other in left if at <= other < at + AHEAD_NS) for at in left)
    assert most <= 2 * few + 1
    pacer.restart(now_ns)
    assert pacer.limit is None
    for number in range(9):
        pacer.push(frame(number), now_ns)
    assert len(pacer.pull(now_ns)) == 9


@pytest.mark.parametrize("fps", [0.0001, 1.0, 29.97, 1234.567, 1e12])
def test_a_limit_goes_over_the_wire(fps: float) -> None:
    told = Limit(7, 9, fps)
    data = rtcp.serialize_compound([rtcp.ReceiverReport(7), rtcp.Sdes(7, "x"), told])
    [found] = rtcp.limits_in(data)
    assert found == rtcp.parse_compound(data)[-1]
    assert (found.ssrc, found.media_ssrc) == (7, 9)
    assert found.fps == pytest.approx(min(max(fps, 0.001), 0xFFFFFFFF / 1000), abs=0.0005)
    assert rtcp.subjects(data) == [9]
    app = data[-20:]
    # RFC 3550 6.7: version 2, a subtype, type 204, the length in words less one, the source, the name, its data.
    assert app[:12] == bytes([0x81, 204, 0, 4]) + (7).to_bytes(4, "big") + b"avlb"
    for cut in range(1, len(app)):
        with pytest.raises(WireError):
            rtcp.parse_compound(data[:-cut])
    for other in (app.replace(b"avlb", b"avlc"), b"\x82" + app[1:], bytes([0x81, 204, 0, 2]) + app[4:12]):
        assert rtcp.limits_in(data[:-20] + other) == []
        assert rtcp.subjects(data[:-20] + other) == []
        assert rtcp.parse_compound(data[:-20] + other) == rtcp.parse_compound(data[:-20])


@pytest.mark.parametrize("heeds", [True, False])
def test_only_avlab_is_told(heeds: bool) -> None:
    player = Player(ssrc=5)
    player.add("video", Described(26, 90_000, ssrc=9, heeds_limits=heeds))
    player.tell_limit(77.7)
    limits = [limit for _, batch in player.outgoing() for limit in rtcp.limits_in(batch.data)]
    assert limits == ([Limit(5, 9, 77.7)] if heeds else [])
    nobody = Player(ssrc=5)
    nobody.tell_limit(77.7)
    assert nobody.outgoing() == []


def test_a_sender_keeps_the_newest_of_its_own() -> None:
    sender = Sender(unix_offset_ns=0, budget=FeedbackBudget())
    sender.add(Outlet("video", rate=90_000, ssrc=7, sequence=1, timestamp_offset=0))

    def told(ssrc: int, fps: float, now_ns: int) -> tuple[float, int] | None:
        data = rtcp.serialize_compound([rtcp.ReceiverReport(9), rtcp.Sdes(9, "x"), Limit(9, ssrc, fps)])
        sender.receive(Path("", control=True), Batch(data, len(data)), now_ns)
        return sender.limit

    assert told(8, 10, 1) is None
    assert told(7, 10, 2) == (10, 2)
    assert told(7, 20, 3) == (20, 3)
    assert sender.events() == []


class Pictures:
    """Small pictures without end, counted as they are asked for."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.count += 1
            yield np.full((48, 64, 3), self.count % 200, np.uint8)


class Slow:
    """A taker that takes a picture each time it is let."""

    def __init__(self, client: avlab.Client, waiting: int, seconds: float) -> None:
        self.ended, self.took = threading.Event(), 0
        self._client, self._waiting, self._seconds = client, waiting, seconds
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        for _ in self._client.frames(waiting=self._waiting):
            self.took += 1
            if self.ended.wait(self._seconds):
                return

    def end(self) -> None:
        self.ended.set()
        self._thread.join(60)


def limit_of(server: avlab.Server) -> float | None:
    audience = server.signalling
    assert isinstance(audience, RtspAudience)
    return audience.fps_limit(server._clock.now_ns())


@pytest.mark.slow
def test_a_server_sends_no_faster_than_the_fastest_client_takes() -> None:
    with (
        avlab.Server(Pictures(), pacer="none", fps=30) as server,
        avlab.Client(server.url, playout_delay=0, audio="null") as one,
    ):
        slow = Slow(one, 4, 0.02)
        try:
            until(lambda: limit_of(server))
            limit = limit_of(server)
            assert limit is not None
            assert limit < 60
            with avlab.Client(server.url, playout_delay=0, audio="null") as two:
                until(lambda: limit_of(server) is None)  # it takes all, as far as is known
                fast = Slow(two, 4, 0.005)
                until(lambda: (limit_of(server) or 0) > 60)
                fast.end()
            until(lambda: (limit_of(server) or 99) < 60)
        finally:
            slow.end()
        until(lambda: limit_of(server) is None)
    assert server.error is one.error is None


@pytest.mark.slow
def test_who_looks_at_the_newest_alone_limits_nothing() -> None:
    with (
        avlab.Server(Pictures(), pacer="none", fps=30) as server,
        avlab.Client(server.url, playout_delay=0, audio="null") as client,
    ):
        looks = Slow(client, 1, 0.02)
        try:
            until(lambda: looks.took > 50)
            assert limit_of(server) is None
        finally:
            looks.end()
    assert client.error is None
