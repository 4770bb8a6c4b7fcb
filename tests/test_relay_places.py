"""Who may pass through a relay: decided with literal times, and then tried on one, by those who have no right to it."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawclient import RawClient, until
from test_relay import datagrams, plain

import avlab
from avlab.stream import places
from avlab.stream import relay as module
from avlab.stream.places import MOST_WAITING
from avlab.stream.relay import Relay
from avlab.stream.relaying import newcomers as relay_places
from avlab.stream.relaying import session as relay_session
from avlab.stream.relaying.newcomers import (
    MAX_PER_ADDRESS,
    MAX_SESSIONS,
    Standing,
    room_for_connection,
    room_for_datagrams,
    room_for_setup,
)

HERE, ELSEWHERE = "127.0.0.1", "192.0.2.7"
ASKING, UNANSWERED, SERVED = Standing


@dataclass
class Guest:
    standing: Standing
    host: str = HERE
    since_ns: int = 0
    heard_ns: int = 0


# ---- decided


def test_while_there_is_room_all_are_let_in_and_nobody_goes() -> None:
    there = [Guest(standing) for standing in Standing for _ in range(10)]
    for room in (room_for_connection(there, HERE), room_for_datagrams(there, HERE), room_for_setup(there)):
        assert room == (True, None, "")


def test_the_unanswered_that_was_silent_longest_makes_way() -> None:
    there = [Guest(UNANSWERED, since_ns=n, heard_ns=1000 - n) for n in range(MAX_SESSIONS - 1)] + [Guest(SERVED)]
    for room in (room_for_datagrams(there, ELSEWHERE), room_for_setup(there)):
        assert room == (True, there[-2], relay_places.MADE_WAY)


def test_who_is_served_makes_way_for_nobody() -> None:
    there = [Guest(SERVED, heard_ns=-1) for _ in range(MAX_SESSIONS)] + [Guest(ASKING) for _ in range(5)]
    for room in (room_for_datagrams(there, HERE), room_for_setup(there)):
        assert room == (False, None, relay_places.FULL)
    assert room_for_connection(there, HERE).admitted  # to ask is free


def test_of_those_who_only_ask_the_oldest_makes_way() -> None:
    there = [Guest(ASKING, since_ns=100 - n, heard_ns=n) for n in range(MOST_WAITING)]
    assert room_for_connection(there, HERE) == (True, there[-1], relay_places.HUNG_UP)
    assert room_for_connection(there, ELSEWHERE) == (True, there[-1], relay_places.HUNG_UP)
    assert room_for_setup(there) == (True, None, "")  # they have no place


def test_whoever_opens_many_connections_is_the_first_to_lose_one() -> None:
    others = [Guest(ASKING, f"192.0.2.{n}", n) for n in range(10)]
    many = [Guest(ASKING, HERE, 100 + n) for n in range(MOST_WAITING - 10)]
    for host in (HERE, ELSEWHERE):
        assert room_for_connection(others + many, host) == (True, many[0], relay_places.HUNG_UP)


@pytest.mark.parametrize("standing", Standing)
def test_an_address_has_its_share_and_this_machine_has_no_bound(standing: Standing) -> None:
    crowd = [Guest(standing, ELSEWHERE, n, n) for n in range(MAX_PER_ADDRESS)]
    others = [Guest(ASKING, "192.0.2.8", -1), Guest(UNANSWERED, "192.0.2.8", -1, -1)]
    for decide, goes in ((room_for_connection, ASKING), (room_for_datagrams, UNANSWERED)):
        room = decide(crowd + others, ELSEWHERE)
        leaves = crowd[0] if standing is goes else None
        assert room == (leaves is not None, leaves, relay_places.CROWDED)  # none of another address
        assert decide(crowd + others, "192.0.2.9") == (True, None, "")
        assert decide([Guest(standing) for _ in crowd], HERE) == (True, None, "")


@given(st.lists(st.builds(Guest, st.sampled_from(Standing), st.sampled_from([HERE, ELSEWHERE]), st.integers())))
def test_whoever_goes_was_there_and_is_not_served(there: list[Guest]) -> None:
    for room in (room_for_connection(there, ELSEWHERE), room_for_datagrams(there, HERE), room_for_setup(there)):
        if room.leaves is not None:
            assert room.admitted
            assert room.leaves.standing is not SERVED
            assert any(guest is room.leaves for guest in there)
        assert bool(room.words) == (not room.admitted or room.leaves is not None)


# ---- tried


def test_a_place_is_not_kept_by_a_datagram_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_places, "MAX_SESSIONS", 4)
    with plain() as (relay, client, peer), ExitStack() as stack:
        client.send(b"hello")
        address = peer.recvfrom(100)[1]
        peer.sendto(b"answer", address)
        assert client.recv(100) == b"answer"
        for number in range(8):
            other = stack.enter_context(datagrams(("127.0.0.1", relay.port)))
            other.send(bytes([number]))
            assert peer.recv(100) == bytes([number])  # each is let in, if only for a while
            assert relay.sessions <= 4
        client.send(b"still here")
        assert peer.recvfrom(100) == (b"still here", address)
        assert relay.notices == (relay_places.MADE_WAY,)
    events = relay.trace.settings
    assert f"127.0.0.1: {relay_places.MADE_WAY}" in list(events["value"])


def test_connections_that_set_up_nothing_make_way_the_oldest_first(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_WAITING", 3)
    with avlab.Server(data / "count-15.mp4") as server, Relay(server.url) as relay, ExitStack() as stack:
        player = stack.enter_context(RawClient(relay.url))
        player.set_up("video", "RTP/AVP/TCP;unicast;interleaved=0-1")
        asking = [stack.enter_context(RawClient(relay.url)) for _ in range(3)]
        for client in asking:
            assert client.ask("OPTIONS").status == 200
        late = stack.enter_context(RawClient(relay.url))
        assert late.ask("OPTIONS").status == 200
        assert asking[0].hung_up()
        for client in (asking[1], asking[2], player):
            assert client.ask("OPTIONS").status == 200
        assert relay.notices == (relay_places.HUNG_UP,)


def test_a_setup_that_there_is_no_room_for_is_refused_and_may_be_asked_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_places, "MAX_SESSIONS", 1)
    transport = "RTP/AVP/TCP;unicast;interleaved=0-1"
    with avlab.Server(data / "count-15.mp4") as server, Relay(server.url) as relay, RawClient(relay.url) as second:
        with RawClient(relay.url) as first:
            first.set_up("video", transport)
            assert second.ask("SETUP", "/video", Transport=transport).status == 503
            assert second.ask("OPTIONS").status == 200
            first.set_up("audio", "RTP/AVP/TCP;unicast;interleaved=2-3")  # who is in, is in
        until(lambda: relay.sessions == 1)
        second.set_up("video", transport)
        assert relay.notices == (relay_places.FULL,)


@pytest.mark.parametrize("said", [b"", b"\r\n", b"OPTIONS rtsp://x/ RTSP/1.0\r\n", b"$\0\xff\xff"])
def test_a_connection_on_which_no_request_comes_is_closed(
    data: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(relay_session, "FIRST_REQUEST_NS", 200_000_000)
    with avlab.Server(data / "count-15.mp4") as server, Relay(server.url) as relay, RawClient(relay.url) as client:
        client.socket.sendall(said)
        assert client.hung_up()
        assert [words.startswith("connections on which no request came") for words in relay.notices] == [True]


def test_whoever_has_asked_in_time_may_stay(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with avlab.Server(data / "count-15.mp4") as server, Relay(server.url) as relay, RawClient(relay.url) as client:
        assert client.ask("OPTIONS").status == 200
        monkeypatch.setattr(relay_session, "FIRST_REQUEST_NS", -1)  # whoever has not is overdue from here on
        with RawClient(relay.url) as silent:
            assert silent.hung_up()
        assert client.ask("OPTIONS").status == 200


def test_a_network_that_holds_more_than_there_is_room_for_says_what_it_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 1 << 20)
    with plain(network=avlab.Network(delay=10)) as (relay, client, _):
        for _ in range(60):
            client.send(bytes(40_000))
        until(lambda: any("were under way" in words for words in relay.notices))
    fates = relay.trace.packets["fate"].value_counts()
    assert fates["in_flight"] == (1 << 20) // 40_000
    assert fates["socket_dropped"] > 0


# ---- whatever a client, the peer or the system does ends one session at most


@contextlib.contextmanager
def a_player(relay: Relay) -> Iterator[RawClient]:
    """A client that is answered before and afterwards."""
    with RawClient(relay.url) as client:
        client.set_up("audio", "RTP/AVP/TCP;unicast;interleaved=0-1")
        yield client
        assert client.ask("OPTIONS").status == 200
        with RawClient(relay.url) as new:
            assert new.ask("OPTIONS").status == 200


@pytest.mark.parametrize(
    "said",
    [
        b"OPTIONS rtsp://[x RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        "OPTIONS rtsp://a\u2100b/x RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode(),
        b"DESCRIBE rtsp://a\\q/x RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"SETUP rtsp://x/video RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP;unicast;client_port=0-0\r\n\r\n",
        b"SETUP rtsp://x/video RTSP/1.0\r\nCSeq: 1\r\nTransport: \r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n",
        b"$\0\0\0" * 100,
        bytes(range(256)) * 50,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
    ],
)
def test_a_client_that_says_anything_ends_its_own_session_at_most(data: Path, said: bytes) -> None:
    with avlab.Server(data / "count-15.mp4") as server, Relay(server.url) as relay, a_player(relay):
        for reset in (False, True):
            with RawClient(relay.url) as client:
                client.socket.sendall(said)
                if reset:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_empty_datagrams_pass_like_any_other() -> None:
    with plain() as (relay, client, peer):
        for data in (b"", b"", b"one", b"", b"two", b""):
            client.send(data)
        assert [peer.recv(100) for _ in range(6)] == [b"", b"", b"one", b"", b"two", b""]
        relay.network = avlab.Network(delay=0.05)  # from here on all leave at once
        for data in (b"", b"", b"three", b"", b""):
            client.send(data)
        assert sorted(peer.recv(100) for _ in range(5)) == [b"", b"", b"", b"", b"three"]
        assert relay.running


def test_an_error_that_nobody_thought_of_ends_its_session_and_is_told(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = relay_session.Dialogue.request

    def request(self: Any, message: Any) -> Any:
        if message.uri.endswith("/odd"):
            raise ZeroDivisionError("an\x1b[2J escape")
        return real(self, message)

    monkeypatch.setattr(relay_session.Dialogue, "request", request)
    with avlab.Server(data / "count-15.mp4") as server, Relay(server.url) as relay, a_player(relay):
        with RawClient(relay.url) as client:
            client.send("OPTIONS", "/odd")
            assert client.hung_up()
        [words] = relay.notices
        assert "ZeroDivisionError" in words
        assert words.isprintable()


def test_a_peer_that_cannot_be_reached_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with plain() as (relay, client, peer):

        def unreachable(_: Any) -> str:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")

        with monkeypatch.context() as patch:
            patch.setattr(module, "local_address", unreachable)
            client.send(b"lost")
            until(lambda: "session broken off" in list(relay.trace.settings["name"]))
        client.send(b"found")
        assert peer.recv(100) == b"found"


def test_there_is_an_end_to_notices() -> None:
    relay = Relay("127.0.0.1:9")
    for number in range(1000):
        relay.note("session broken off", f"nonsense {number}", tell=True)
    assert len(relay.notices) == module.NOTICES_TOLD


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "\udcff"])
def test_a_name_that_is_none_is_one_sentence(host: str) -> None:
    with pytest.raises(OSError, match="is not known: check its spelling"):
        Relay(f"{host}:80").start()


if sys.platform.startswith("linux"):

    @pytest.mark.slow
    def test_a_relay_without_descriptors_goes_on_and_says_so(data: Path) -> None:
        with (
            avlab.Server(data / "count-15.mp4", loop=True) as server,
            commands.running("relay", "--listen", "0", "--to", server.url.split("/")[2]) as relay,
            ExitStack() as stack,
        ):
            resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (64, 64))
            url = relay.url.rstrip(":")
            player = stack.enter_context(RawClient(url))
            player.set_up("video", "RTP/AVP;unicast;client_port=5000-5001")
            with ExitStack() as greedy:
                for _ in range(40):
                    client = greedy.enter_context(RawClient(url))
                    client.send("SETUP", "/video", Transport="RTP/AVP;unicast;client_port=5000-5001")
                for _ in range(70):
                    greedy.enter_context(datagrams(("127.0.0.1", int(url.split(":")[2])))).send(b"x")
                assert player.ask("OPTIONS").status == 200
            assert player.ask("OPTIONS").status == 200
            with RawClient(url) as new:
                assert new.ask("OPTIONS").status == 200
            assert relay.process.poll() is None
            _, _, said = relay.end()
        assert "ulimit -n" in said
        assert "Traceback" not in said
