"""Who is let in: places are taken by SETUP, connections that ask nothing are closed, and nobody keeps all out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawclient import RawClient, until

import avlab
from avlab.stream import places
from avlab.stream.places import MOST_WAITING, Places, is_loopback, one_too_many
from avlab.stream.rtsp import audience as rtsp_audience

INTERLEAVED = "RTP/AVP/TCP;unicast;interleaved=0-1"
PICTURES = [np.full((64, 64, 3), 9 * n, np.uint8) for n in range(20)]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None, "many"])
@pytest.mark.parametrize("name", ["clients", "clients_per_address"])
def test_what_is_no_number_of_places_is_named(name: str, wrong: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of 1 or more, not"):
        avlab.Server(PICTURES, fps=30, **{name: wrong})  # type: ignore[arg-type]


def test_places_by_address_and_in_all() -> None:
    few = Places(clients=4, per_address=2)
    assert few.refusal("10.0.0.1", []) is None
    assert few.refusal("10.0.0.1", ["10.0.0.1", "10.0.0.2"]) is None
    assert few.refusal("10.0.0.1", ["10.0.0.1", "10.0.0.1"]) == "All 2 places for one address are taken"
    assert few.refusal("10.0.0.2", ["10.0.0.1", "10.0.0.1"]) is None
    assert few.refusal("127.0.0.1", ["127.0.0.1"] * 3) is None
    assert few.refusal("127.0.0.1", ["127.0.0.1"] * 4) == "All 4 places are taken"


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("no address", False),
    ],
)
def test_this_very_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=100))
def test_whoever_opens_most_loses_the_oldest(waiting: list[str]) -> None:
    at = one_too_many(waiting)
    if len(waiting) <= MOST_WAITING:
        assert at is None
    else:
        assert at is not None
        assert all(waiting.count(waiting[at]) >= waiting.count(host) for host in "abc")
        assert waiting[at] not in waiting[:at]


@pytest.fixture
def server() -> Iterator[avlab.Server]:
    with avlab.Server(PICTURES, fps=30, loop=True, clients=2) as running:
        yield running


def test_setup_takes_a_place_and_leaving_gives_it_back(server: avlab.Server) -> None:
    with RawClient(server.url) as first, RawClient(server.url) as second, RawClient(server.url) as third:
        first.set_up("video", INTERLEAVED)
        first.set_up("video", INTERLEAVED)  # the same session
        second.set_up("video", INTERLEAVED)
        assert third.ask("OPTIONS").status == third.ask("DESCRIBE").status == 200  # that takes none
        answer = third.ask("SETUP", "/video", Transport=INTERLEAVED)
        assert (answer.status, answer.reason) == (503, "All 2 places are taken")
        assert server.notices == ("all 2 places are taken: others are refused until one of them leaves",)
        assert first.ask("TEARDOWN").status == 200
        first.session = None
        third.set_up("video", INTERLEAVED)
        assert first.ask("SETUP", "/video", Transport=INTERLEAVED).status == 503
        second.socket.close()
        until(lambda: first.ask("SETUP", "/video", Transport=INTERLEAVED).status == 200)
        assert server.clients == 2


def test_a_client_is_told_that_the_server_is_full(server: avlab.Server) -> None:
    with RawClient(server.url) as first, RawClient(server.url) as second:
        first.set_up("video", INTERLEAVED)
        second.set_up("video", INTERLEAVED)
        with pytest.raises(OSError, match="503 All 2 places are taken"):
            avlab.Client(server.url, audio="null").start()


def test_one_address_has_so_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "is_loopback", lambda host: False)  # this machine counts as another
    with (
        avlab.Server(PICTURES, fps=30, loop=True, clients_per_address=1) as server,
        RawClient(server.url) as first,
        RawClient(server.url) as second,
    ):
        first.set_up("video", INTERLEAVED)
        answer = second.ask("SETUP", "/video", Transport=INTERLEAVED)
        assert (answer.status, answer.reason) == (503, "All 1 places for one address are taken")


def test_connections_that_ask_nothing_keep_nobody_out(server: avlab.Server) -> None:
    with ExitStack() as stack:
        with RawClient(server.url) as steady:
            steady.set_up("video", INTERLEAVED)
            idle = [stack.enter_context(RawClient(server.url)) for _ in range(MOST_WAITING + 10)]
            assert idle[0].hung_up()
            with RawClient(server.url) as late:
                late.set_up("video", INTERLEAVED)
                assert late.ask("PLAY").status == 200
                until(lambda: late.read() and len(late.packets) > 5)
            assert steady.ask("OPTIONS").status == 200, "who has a session stays"
        assert any("the oldest of them are closed" in words for words in server.notices)


@pytest.mark.parametrize("said", [b"\r\n", b"OPTIONS ", b"$", b"$\x00\x00\x00"], ids=["newline", "part", "$", "packet"])
def test_bytes_that_ask_nothing_are_no_request(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(rtsp_audience, "REQUEST_NS", 500_000_000)
    with avlab.Server(PICTURES, fps=30, loop=True) as server, RawClient(server.url) as steady:
        steady.set_up("video", INTERLEAVED)
        with RawClient(server.url) as idle:

            def closed() -> bool:
                try:
                    idle.socket.sendall(said)
                except OSError:
                    return True
                return False

            until(closed)
        assert steady.ask("OPTIONS").status == 200
        assert "client timed out" in list(server.trace.settings["name"])
