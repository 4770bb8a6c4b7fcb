"""Parts of one's own on real sockets, each written as a student would; broken ones, after which the stream goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import avlab
from avlab.lab.notebook.panel import noticed, situation
from avlab.stream.handle import Handle
from avlab.timing.pacing import FOREVER_NS

pytestmark = pytest.mark.slow


def until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@contextmanager
def streaming(clip: Path, *, client: dict[str, Any] | None = None, **server: Any) -> Iterator[tuple[Any, Any]]:
    with (
        avlab.Server(clip, width=160, loop=True, **server) as sender,
        avlab.Client(sender.url, audio="null", **(client or {})) as receiver,
    ):
        yield sender, receiver


def shown(client: avlab.Client) -> int:
    return len(client.trace.frames.query("stream == 'video' and fate == 'shown'"))


def goes_on(client: avlab.Client) -> None:
    """Pictures are shown from here on as well."""
    before = shown(client)
    until(lambda: shown(client) > before + 10)


def named(handle: Handle, words: str) -> None:
    """A handle goes on, and says in its error and in its notices what part has failed."""
    until(lambda: handle.error is not None)
    until(lambda: any(words in told for told in handle.notices))  # type: ignore[attr-defined]
    assert words in str(handle.error)
    assert isinstance(handle.error, avlab.PartError)
    assert handle.running


def spins(*_: Any) -> Any:
    while True:
        pass


def fails(*_: Any) -> Any:
    raise ZeroDivisionError("by hand")


# ---- parts that work


def every_tenth(packet: avlab.Packet, state: dict[str, int]) -> bool:
    if packet.stream != "video":
        return False
    state["count"] = state.get("count", 0) + 1
    return state["count"] % 10 == 0


def a_tenth_of_a_second(packet: avlab.Packet, state: dict[str, Any]) -> float:
    return 0.1


def two_fifths(delays: list[float]) -> float:
    return 0.4


class Fixed:
    """Every frame when it is due, but for each third one, which is left out."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.start_ns = self.count = 0

    def restart(self, start_ns: int) -> None:
        self.frames, self.start_ns = [], start_ns

    def push(self, frame: Any, now_ns: int) -> None:
        self.frames.append(frame)

    def wake_at(self) -> int | None:
        return self.start_ns + self.frames[0].pts_ns if self.frames else None

    def pull(self, now_ns: int) -> list[Any]:
        if not self.frames or self.start_ns + self.frames[0].pts_ns > now_ns:
            return []
        self.count += 1
        frame = self.frames.pop(0)
        return [avlab.Dropped(frame, "skipped") if self.count % 3 == 0 else frame]


def test_a_network_of_ones_own_at_a_server(clip: Path) -> None:
    with streaming(clip, network=avlab.Network(loss=every_tenth, delay=a_tenth_of_a_second)) as (server, client):
        until(lambda: len(server.trace.packets.query("stream == 'video'")) > 150)
        assert server.network.loss is every_tenth
        [said] = server.trace.settings.query("name == 'network'")["value"]
        assert said == "loss every_tenth, delay a_tenth_of_a_second"
    packets = client.trace.packets.query("stream == 'video' and fate != 'in_flight'").sort_values("seq")
    lost = [at % 10 for at, fate in enumerate(packets["fate"]) if fate == "lost"]
    assert lost[:10] == [9] * 10
    assert (packets["received"] - packets["sent"]).min() >= 0.1


@pytest.mark.parametrize("where", ["server", "relay"])
def test_a_part_sees_packets_as_they_are_sent(clip: Path, where: str) -> None:
    told: list[avlab.Packet] = []

    def lost(packet: avlab.Packet, state: dict[str, Any]) -> bool:
        if packet.stream == "video":
            told.append(packet)
        return False

    network = avlab.Network(loss=lost)
    with (
        avlab.Server(clip, width=320, loop=True, network=network if where == "server" else None) as server,
        avlab.Relay(server.url, network=network if where == "relay" else None) as relay,
        avlab.Client(relay.url, audio="null"),
    ):
        until(lambda: len(told) > 200)
        assert server.error is relay.error is None
    assert [packet.number - told[0].number for packet in told] == list(range(len(told)))
    frames = {packet.timestamp: [each for each in told if each.timestamp == packet.timestamp] for packet in told}
    *complete, _ = frames.values()
    assert all(avlab.whole(packets) for packets in complete)
    assert max(len(packets) for packets in complete) > 1
    assert all(len(packet.payload) == packet.size - 12 for packet in told)
    assert all(one.time <= two.time for one, two in pairwise(told))


def test_a_network_of_ones_own_at_a_relay(clip: Path) -> None:
    with (
        avlab.Server(clip, width=160, loop=True) as server,
        avlab.Relay(server.url, network=avlab.Network(loss=every_tenth)) as relay,
        avlab.Client(relay.url, audio="null") as client,
    ):
        until(lambda: (relay.trace.packets["fate"] == "lost").sum() > 5)
        goes_on(client)
    packets = relay.trace.packets.query("stream == 'video'").sort_values("seq")
    assert [at % 10 for at, fate in enumerate(packets["fate"]) if fate == "lost"][:5] == [9] * 5


def test_a_playout_delay_of_ones_own(clip: Path) -> None:
    with streaming(clip, client={"playout_delay": two_fifths}) as (_, client):
        until(lambda: abs(client.playout_target - 0.4) < 0.03)
        assert client.playout_delay is two_fifths
        goes_on(client)
        client.playout_delay = 0.2
        until(lambda: abs(client.playout_target - 0.2) < 0.03)


def test_a_pacer_of_ones_own(clip: Path) -> None:
    with streaming(clip, pacer=Fixed) as (server, client):
        until(lambda: len(server.trace.frames.query("stream == 'video'")) > 40)
        goes_on(client)
        assert server.error is None
    fates = list(server.trace.frames.query("stream == 'video'").sort_values("index")["fate"])
    assert [fate == "skipped" for fate in fates[:30]] == [False, False, True] * 10


# ---- parts that do not


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("the rule fails failed", {"pacer": avlab.FeedbackPacer(fails)}),
    ("the rule <lambda> returned 'x'", {"pacer": avlab.FeedbackPacer(lambda *measured: "x")}),  # type: ignore[arg-type,return-value]
    ("the pacer Mine holds frame", {"pacer": type("Mine", (Fixed,), {"wake_at": lambda self: None})}),
    ("the pacer Mine gives nothing", {"pacer": type("Mine", (Fixed,), {"pull": lambda self, now_ns: []})}),
    ("pull() returned None", {"pacer": type("Mine", (Fixed,), {"pull": lambda self, now_ns: None})}),
    ("the network's loss fails failed", {"network": avlab.Network(loss=fails)}),
    ("the network's delay <lambda> returned nothing", {"network": avlab.Network(delay=lambda packet, state: None)}),  # type: ignore[arg-type,return-value]
    ("the rate controller Mine failed", {"rate_control": type("Mine", (), {"update": fails})}),
    ("the rate controller Mine failed", {"rate_control": type("Mine", (), {"__init__": fails, "update": fails})}),
    ("the rate controller Mine returned 7", {"rate_control": type("Mine", (), {"update": lambda self, report: 7})}),
]


@pytest.mark.parametrize(("words", "settings"), BROKEN)
def test_a_stream_goes_on_without_a_broken_part_of_its_server(clip: Path, words: str, settings: dict[str, Any]) -> None:
    with streaming(clip, **settings) as (server, client):
        named(server, words)
        goes_on(client)
        assert situation(server, client) == ("playing", "")
        assert any(words in told for told in noticed(server, client))
    assert words in str(server.error)


@pytest.mark.parametrize("part", [fails, lambda delays: "x", type("Mine", (), {"observe": fails, "target": fails})])
def test_a_stream_goes_on_without_a_broken_playout_delay(clip: Path, part: Any) -> None:
    with streaming(clip, client={"playout_delay": part}) as (server, client):
        named(client, "the playout delay")
        goes_on(client)
        assert server.error is None


def test_a_relay_goes_on_without_a_broken_network(clip: Path) -> None:
    with (
        avlab.Server(clip, width=160, loop=True) as server,
        avlab.Relay(server.url, network=avlab.Network(loss=fails)) as relay,
        avlab.Client(relay.url, audio="null") as client,
    ):
        named(relay, "the network's loss fails failed")
        goes_on(client)


ENDLESS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the rule spins had not returned", {"pacer": avlab.FeedbackPacer(spins)}, {}),
    ("the network's loss spins had not", {"network": avlab.Network(loss=spins)}, {}),
    ("the rate controller Mine had not", {"rate_control": type("Mine", (), {"update": spins})}, {}),
    ("the playout delay spins had not", {}, {"playout_delay": spins}),
]


@pytest.mark.parametrize(("words", "server", "client"), ENDLESS)
def test_a_part_that_never_comes_back_is_ended_and_the_stream_goes_on(
    clip: Path, words: str, server: dict[str, Any], client: dict[str, Any]
) -> None:
    with streaming(clip, client=client, **server) as (sender, receiver):
        named(sender if server else receiver, words)
        goes_on(receiver)


def test_what_cannot_be_ended_is_named_and_stop_returns(clip: Path) -> None:
    let_go = threading.Event()

    def waits(*_: Any) -> float:
        let_go.wait(120)
        return 0.03

    server = avlab.Server(clip, width=160, loop=True, pacer=avlab.FeedbackPacer(waits)).start()
    client = avlab.Client(server.url, audio="null").start()
    try:
        named(server, "the rule waits has not returned, and cannot be ended: restart the kernel")
        began = time.monotonic()
        client.stop()
        server.stop(timeout=10.0)
        assert time.monotonic() - began < 10.0
        assert not server.running
    finally:
        let_go.set()
    until(lambda: not any(thread.name.startswith("avlab-") for thread in threading.enumerate()))
    assert isinstance(server.error, avlab.PartError)  # what the thread found closed is no fault of the student's


class Slow:
    """A payload format that takes its time with each frame, and less than it may."""

    name = "slow"
    calls = 0

    def pack(self, frame: bytes, most: int) -> list[bytes]:
        return [frame[at : at + most] for at in range(0, len(frame), most)]

    def unpack(self, payloads: list[bytes | None]) -> bytes | None:
        self.calls += 1
        time.sleep(0.9)
        return None if None in payloads else b"".join(payload for payload in payloads if payload)


class SlowLoss:
    calls = 0

    def __call__(self, packet: avlab.Packet, state: dict[str, int]) -> bool:
        self.calls += 1
        time.sleep(0.9 if self.calls > 30 else 0.0)
        return False


@pytest.mark.parametrize("slow", [Slow(), SlowLoss()], ids=["payload", "network"])
def test_many_slow_calls_do_not_hold_stop_up(clip: Path, slow: Any) -> None:
    own = isinstance(slow, Slow)
    server = {"payload": slow} if own else {"network": avlab.Network(loss=slow)}
    with streaming(clip, client={"payload": slow} if own else {}, **server) as (sender, receiver):
        until(lambda: slow.calls > (2 if own else 32))  # what has come meanwhile waits
        receiver.stop(timeout=10.0)
        sender.stop(timeout=10.0)
        assert sender.error is receiver.error is None


def test_a_client_whose_server_stands_still_in_a_part_says_so(clip: Path) -> None:
    let_go = threading.Event()

    def waits(packet: avlab.Packet, state: dict[str, Any]) -> bool:
        let_go.wait(120)
        return False

    server = avlab.Server(clip, width=160, loop=True, network=avlab.Network(loss=waits)).start()
    try:
        with pytest.raises(TimeoutError, match="In this process, the network's loss waits has not returned"):
            avlab.Client(server.url, audio="null").start()
    finally:
        let_go.set()
        server.stop()


def test_another_pacer_takes_over_from_one_that_stands_still(clip: Path) -> None:
    never = {"wake_at": lambda self: FOREVER_NS if self.frames else None, "pull": lambda self, now_ns: []}
    still = type("Still", (Fixed,), never)
    with streaming(clip, pacer=still) as (server, client):
        until(lambda: server.clients == 1)
        time.sleep(0.5)
        assert not shown(client)
        server.pacer = "deadline"
        goes_on(client)
        assert server.error is None


def test_a_part_that_failed_may_be_followed_by_one_that_works(clip: Path) -> None:
    with streaming(clip, network=avlab.Network(loss=fails)) as (server, client):
        named(server, "fails failed")
        server.network = avlab.Network(loss=every_tenth)
        until(lambda: (server.trace.packets["fate"] == "lost").sum() > 3)
        goes_on(client)


def test_parts_of_ones_own_in_an_isolated_server(clip: Path) -> None:
    with streaming(clip, isolated=True, network=avlab.Network(loss=every_tenth), pacer=Fixed) as (server, client):
        until(lambda: (client.trace.packets["fate"] == "lost").sum() > 3)
        until(lambda: (server.trace.frames["fate"] == "skipped").sum() > 3)
        goes_on(client)
        assert server.error is None
    packets = client.trace.packets.query("stream == 'video' and fate != 'in_flight'").sort_values("seq")
    assert [at % 10 for at, fate in enumerate(packets["fate"]) if fate == "lost"][:3] == [9] * 3


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("the network's loss fails failed", {"network": avlab.Network(loss=fails)}),
        ("the rule spins had not returned", {"pacer": avlab.FeedbackPacer(spins)}),
        ("the pacer Mine holds", {"pacer": type("Mine", (Fixed,), {"wake_at": lambda self: None})}),
        ("the rate controller Mine failed", {"rate_control": type("Mine", (), {"update": fails})}),
    ],
)
def test_an_isolated_server_goes_on_without_a_broken_part(clip: Path, words: str, settings: dict[str, Any]) -> None:
    with streaming(clip, isolated=True, **settings) as (server, client):
        named(server, words)
        goes_on(client)
