"""Reports and NACKs within a budget, in virtual time: floods cost a fifth of the time at most, and starve nobody."""

from __future__ import annotations

import selectors
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.stream.clock import VirtualClock
from avlab.stream.rtsp.feedback import MOST_WAITING, PATIENCE_NS, REST_NS, TURN_NS, Feedback
from avlab.wire import rtcp
from avlab.wire.units import WireError

US = 1_000
AGE_NS = 3 * US  # of what is in a socket
READING_NS, ANSWERING_NS = 5 * US, 400 * US  # of one datagram, and of one report that is for somebody


class Who:
    """A client, as far as feedback is concerned."""

    def __init__(self, host: str) -> None:
        self.address = (host, 5000)
        self.reports: deque[tuple[bytes, int]] = deque()
        self.gone = False


class Socket:
    """What waits in a socket; the system's buffer holds so many datagrams."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.waiting = clock, deque[tuple[bytes, tuple[str, int]]](maxlen=500)

    def ask_for_ages(self) -> bool:
        return True

    def receive_aged(self, most: int) -> list[tuple[bytes, tuple[str, int], int]]:
        got = [(*self.waiting.popleft(), AGE_NS) for _ in range(min(most, len(self.waiting)))]
        self.clock.sleep_until(self.clock.now_ns() + READING_NS * max(1, len(got)))
        return got


class Selector:
    """Remembers what is watched."""

    def __init__(self) -> None:
        self.watched: set[Any] = set()

    def register(self, link: Any, events: int, data: Any) -> None:
        assert link not in self.watched
        assert events == selectors.EVENT_READ
        self.watched.add(link)

    def unregister(self, link: Any) -> None:
        self.watched.remove(link)


def nack(ssrc: int, *numbers: int) -> bytes:
    return rtcp.serialize_compound([rtcp.ReceiverReport(1), rtcp.Sdes(1, "x"), rtcp.Nack(1, ssrc, numbers or (5,))])


def report(ssrc: int) -> bytes:
    block = rtcp.ReportBlock(ssrc, 0, 0, 0, 0)
    return rtcp.serialize_compound([rtcp.ReceiverReport(1, (block,)), rtcp.Sdes(1, "x")])


class Server:
    """A server's turns as they are: sockets are looked at, reports are answered, and each turn takes what it takes."""

    def __init__(self, *clients: Who, sockets: int = 4) -> None:
        self.clock, self.selector = VirtualClock(), Selector()
        self.by_host: dict[str, dict[int, Any]] = {}
        for ssrc, client in enumerate(clients, 100):
            self.by_host.setdefault(client.address[0], {})[ssrc] = client
        self.feedback = Feedback(self.clock, self.by_host)  # type: ignore[arg-type]
        self.sockets = [Socket(self.clock) for _ in range(sockets)]
        for link in self.sockets:
            self.feedback.watch(link, self.selector)  # type: ignore[arg-type]
        self.answered: list[tuple[Who, bytes]] = []
        self.used_ns = self.longest_ns = 0

    def turn(self) -> None:
        for link in self.sockets:
            if link in self.selector.watched and link.waiting:
                self.feedback.ready(link)  # type: ignore[arg-type]
        began_ns = self.clock.now_ns()
        for client, data, came_ns in self.feedback.turn(began_ns):
            assert came_ns <= self.clock.now_ns() - AGE_NS
            self.answered.append((client, data))  # type: ignore[arg-type]
            self.clock.sleep_until(self.clock.now_ns() + ANSWERING_NS)
        used_ns = self.clock.now_ns() - began_ns
        self.used_ns += used_ns
        self.longest_ns = max(self.longest_ns, used_ns)
        self.clock.sleep_until(self.clock.now_ns() + 100 * US)  # pictures, and whatever else there is


def test_a_flood_takes_a_part_of_the_time_however_fast_the_turns_follow() -> None:
    server = Server(Who("10.0.0.1"))
    flood = [(nack(100), ("10.0.0.1", 1))] * 20
    while server.clock.now_ns() < 400_000_000:
        for link in server.sockets:
            link.waiting.extend(flood)
        server.turn()
    assert server.answered
    assert server.longest_ns <= TURN_NS + 64 * READING_NS + ANSWERING_NS
    assert server.used_ns <= 0.3 * server.clock.now_ns()


def test_what_is_over_the_budget_is_read_later() -> None:
    server = Server(*(Who(f"10.0.0.{n}") for n in range(8)), sockets=1)
    for n in range(8):
        server.sockets[0].waiting.append((nack(100 + n), (f"10.0.0.{n}", 1)))
    server.turn()
    assert 1 <= len(server.answered) < 8
    wake_ns = server.feedback.wake_at()
    assert wake_ns is not None
    assert wake_ns - server.clock.now_ns() <= REST_NS
    assert not server.selector.watched, "nothing spins while it rests"
    while server.feedback.wake_at() is not None:
        server.clock.sleep_until(server.feedback.wake_at() or 0)
        server.turn()
    assert len(server.answered) == 8
    assert server.selector.watched == set(server.sockets)


def test_no_address_starves_anothers_reports() -> None:
    loud, quiet = [Who("10.0.0.1") for _ in range(5)], Who("10.0.0.2")
    server = Server(*loud, quiet)
    waited: list[int] = []
    flooded_ns = 0
    for _ in range(50):
        server.sockets[1].waiting.append((report(105), ("10.0.0.2", 1)))
        said_ns, before = server.clock.now_ns(), len(server.answered)
        while quiet not in [client for client, _ in server.answered[before:]]:
            while flooded_ns < server.clock.now_ns():  # twenty thousand a second
                flooded_ns += 50 * US
                link = server.sockets[flooded_ns // (100 * US) % 4]
                link.waiting.append((nack(100 + flooded_ns // (400 * US) % 5), ("10.0.0.1", 9)))
            server.turn()
            assert server.clock.now_ns() - said_ns < 100_000_000
        waited.append(server.clock.now_ns() - said_ns)
    assert sorted(waited)[25] < 20_000_000


def test_clients_at_one_address_have_turns_as_well() -> None:
    first, second = Who("10.0.0.1"), Who("10.0.0.1")
    server = Server(first, second)
    for _ in range(MOST_WAITING):
        server.feedback.put(first, nack(100), -AGE_NS)  # type: ignore[arg-type]
    server.feedback.put(second, report(101), -AGE_NS)  # type: ignore[arg-type]
    server.turn()
    assert [client for client, _ in server.answered[:2]] == [first, second]


def test_strangers_and_unknown_sources_are_answered_nothing() -> None:
    server = Server(Who("10.0.0.1"))
    for data, host in [
        (nack(100), "10.0.0.9"),
        (nack(99), "10.0.0.1"),
        (report(7), "10.0.0.1"),
        (b"", "10.0.0.1"),
        (bytes(1400), "10.0.0.1"),
        (nack(100) + bytes(1500), "10.0.0.1"),
    ]:
        server.sockets[0].waiting.append((data, (host, 1)))
    server.turn()
    assert server.answered == []
    assert server.feedback.wake_at() is None


def test_of_one_clients_flood_the_newest_are_kept() -> None:
    client = Who("10.0.0.1")
    server = Server(client)
    for n in range(100):
        server.feedback.put(client, nack(100, n), -AGE_NS)  # type: ignore[arg-type]
    for _ in range(100):
        server.turn()
    assert [data for _, data in server.answered] == [nack(100, n) for n in range(100 - MOST_WAITING, 100)]


def test_a_socket_that_closes_while_feedback_rests_is_forgotten() -> None:
    server = Server(Who("10.0.0.1"), sockets=2)
    server.sockets[0].waiting.extend((nack(100), ("10.0.0.1", 1)) for _ in range(400))
    server.turn()
    assert server.feedback.wake_at() is not None
    server.feedback.forget(server.sockets[0])  # type: ignore[arg-type]
    server.clock.sleep_until(server.feedback.wake_at() or 0)
    while server.feedback.wake_at() is not None:
        server.turn()
    assert server.selector.watched == {server.sockets[1]}


# ---- what may wait


def test_what_is_not_urgent_waits_for_a_turn_that_there_is_anyway() -> None:
    client = Who("10.0.0.1")
    server = Server(client)
    server.feedback.patient = True
    server.turn()
    assert not server.selector.watched, "nothing wakes the server"
    looked_ns = server.clock.now_ns()
    server.sockets[1].waiting.append((report(100), ("10.0.0.1", 1)))
    server.clock.sleep_until(looked_ns + PATIENCE_NS // 2)
    server.turn()
    assert not server.answered
    wake_ns = server.feedback.wake_at()
    assert wake_ns is not None
    assert PATIENCE_NS < wake_ns - looked_ns <= 2 * PATIENCE_NS, "a turn of its own comes later than others would"
    server.clock.sleep_until(looked_ns + PATIENCE_NS)
    server.turn()
    assert [data for _, data in server.answered] == [report(100)]


def test_as_soon_as_something_may_be_urgent_it_is_looked_for_again() -> None:
    server = Server(Who("10.0.0.1"))
    server.feedback.patient = True
    server.turn()
    server.sockets[0].waiting.append((nack(100), ("10.0.0.1", 1)))
    server.feedback.patient = False
    assert (server.feedback.wake_at() or 0) <= server.clock.now_ns()
    server.turn()
    assert [data for _, data in server.answered] == [nack(100)]
    assert server.selector.watched == set(server.sockets)
    assert server.feedback.wake_at() is None


def test_sockets_that_tell_no_ages_are_looked_at_at_once() -> None:
    server = Server(Who("10.0.0.1"))
    plain = Socket(server.clock)
    plain.ask_for_ages = lambda: False  # type: ignore[method-assign]
    server.feedback.watch(plain, server.selector)  # type: ignore[arg-type]
    server.feedback.patient = True
    server.turn()
    assert server.feedback.wake_at() is None
    assert plain in server.selector.watched


def test_what_is_left_when_time_is_up_is_read_before_patience_is_over() -> None:
    clients = [Who(f"10.0.0.{n}") for n in range(8)]
    server = Server(*clients, sockets=1)
    server.feedback.patient = True
    server.turn()
    for n in range(8):
        server.sockets[0].waiting.append((report(100 + n), (f"10.0.0.{n}", 1)))
    server.clock.sleep_until(server.clock.now_ns() + PATIENCE_NS)
    for _ in range(8):
        server.turn()
        server.clock.sleep_until(server.clock.now_ns() + REST_NS)
    assert len(server.answered) == 8


def test_what_floods_a_socket_meanwhile_starves_nobody() -> None:
    loud, quiet = Who("10.0.0.1"), Who("10.0.0.2")
    server = Server(loud, quiet, sockets=1)
    server.feedback.patient = True
    server.turn()
    server.sockets[0].waiting.extend([(report(100), ("10.0.0.1", 1))] * 400)
    server.sockets[0].waiting.append((report(101), ("10.0.0.2", 1)))
    began_ns = server.clock.now_ns()
    while quiet not in [client for client, _ in server.answered]:
        server.clock.sleep_until(server.feedback.wake_at() or 0)
        server.turn()
    assert server.clock.now_ns() - began_ns < 3 * PATIENCE_NS


# ---- what is looked at


numbers = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=200)


@given(numbers, st.integers(0, 0xFFFF), st.integers(0, 0x1000))
def test_a_nack_is_read_for_the_packets_that_exist(asked: list[int], first: int, count: int) -> None:
    data = rtcp.serialize_compound([rtcp.ReceiverReport(1), rtcp.Sdes(1, "x"), rtcp.Nack(1, 9, tuple(asked))])
    [whole] = [packet for packet in rtcp.parse_compound(data) if isinstance(packet, rtcp.Nack)]
    blocks, [found] = rtcp.parse_feedback(data)
    assert not blocks
    assert found.media_ssrc == 9
    assert found.within(first, count) == [n for n in whole.sequences if (n - first) & 0xFFFF < count]


@given(st.lists(st.sampled_from([nack(3), report(4), report(5)]), min_size=1, max_size=4))
def test_a_look_finds_what_reading_finds(parts: list[bytes]) -> None:
    data = b"".join(parts)
    blocks, asked = rtcp.parse_feedback(data)
    assert sorted(rtcp.subjects(data)) == sorted([block.ssrc for block in blocks] + [one.media_ssrc for one in asked])


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda end: nack(3) + end))
def test_nonsense_raises_nothing_else_than_is_said(data: bytes) -> None:
    rtcp.subjects(data)
    try:
        rtcp.parse_feedback(data)
    except WireError:
        with pytest.raises(WireError):
            rtcp.parse_compound(data)
