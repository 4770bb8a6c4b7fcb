"""A jitter buffer and a repair of one's own on real sockets: they work, and a stream goes on without broken ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_own_buffer import FixedDelay, Patient, mine, spins
from test_own_repair import Both, Once, Twice, Xor

import avlab
from avlab.lab.notebook.panel import noticed, situation
from avlab.measure.numbers import metrics
from avlab.network.settings import Network

pytestmark = pytest.mark.slow


def until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def shown(client: avlab.Client) -> int:
    return len(client.trace.frames.query("stream == 'video' and fate == 'shown'"))


def goes_on(client: avlab.Client) -> None:
    """Pictures are shown from here on as well."""
    before = shown(client)
    until(lambda: shown(client) > before + 10)


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("buffer", [FixedDelay, Patient])
def test_a_jitter_buffer_of_ones_own(clip: Path, buffer: Any, isolated: bool) -> None:
    with (
        avlab.Server(clip, width=160, network=Network(loss=0.02), loop=True, isolated=isolated) as server,
        avlab.Client(server.url, audio="null", jitter_buffer=buffer, playout_delay=0.3) as client,
    ):
        until(lambda: shown(client) > 40)
        until(lambda: "incomplete" in set(client.trace.frames["fate"]))
        assert client.jitter_buffer is buffer
    assert client.error is None
    trace = client.trace
    assert metrics.packet_ledger(trace, "video").closes
    assert metrics.frame_ledger(trace).closes
    [said] = trace.settings.query("name == 'jitter_buffer'")["value"]
    assert said == buffer.__name__
    kinds = set(trace.frames.query("stream == 'video'")["fate"].dropna())
    assert {"shown", "incomplete"} <= kinds


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (mine(push=lambda self, packet, now: 1 / 0), "the jitter buffer Mine failed: ZeroDivisionError"),
        (mine(pull=lambda self, now: []), "for ever, or has lost it"),
        (mine(pull=spins), "the jitter buffer Mine had not returned after 1.5 s"),
    ],
)
def test_a_stream_goes_on_without_a_broken_jitter_buffer(clip: Path, part: Any, words: str) -> None:
    with (
        avlab.Server(clip, width=160, loop=True) as server,
        avlab.Client(server.url, audio="null", jitter_buffer=part) as client,
    ):
        until(lambda: client.error is not None)
        assert isinstance(client.error, avlab.PartError)
        assert words in str(client.error)
        assert str(client.error).endswith("avlab's own jitter buffer has taken over")
        goes_on(client)
        assert any(words in told for told in client.notices)
        assert any(words in told for told in noticed(server, client))
        assert situation(server, client) == ("playing", "")


def test_a_jitter_buffer_that_cannot_be_ended_is_named_and_stop_returns(clip: Path) -> None:
    let_go = threading.Event()
    part = mine(push=lambda self, packet, now: let_go.wait(120))
    server = avlab.Server(clip, width=160, loop=True).start()
    client = avlab.Client(server.url, audio="null", jitter_buffer=part).start()
    try:
        until(lambda: client.error is not None)
        assert "the jitter buffer Mine has not returned, and cannot be ended" in str(client.error)
        began = time.monotonic()
        client.stop()
        server.stop()
        assert time.monotonic() - began < 10.0
    finally:
        let_go.set()
    until(lambda: not any(thread.name.startswith("avlab-") for thread in threading.enumerate()))


# ---- repairs


@pytest.mark.parametrize(("part", "isolated"), [(Xor, False), (Twice, True), (Once, False), (Both, True)])
def test_a_repair_of_ones_own(clip: Path, part: Any, isolated: bool) -> None:
    with (
        avlab.Server(clip, width=160, loop=True, network=Network(loss=0.05), repairs=[Xor, part][part is Xor :],
                     isolated=isolated) as server,
        avlab.Client(server.url, audio="null", repair=part, playout_delay=0.3) as client,
    ):  # fmt: skip
        until(lambda: (client.trace.packets["fate"] == "recovered").sum() > 10)
        until(lambda: shown(client) > 60)
        assert client.repair is part
        assert client.notices == ()
    assert client.error is server.error is None
    trace = client.trace
    assert metrics.packet_ledger(trace, "video").closes
    assert metrics.frame_ledger(trace).closes
    assert metrics.summary(trace).packet_loss_percent == pytest.approx(5, abs=3)
    [said] = trace.settings.query("name == 'repair'")["value"]
    assert said == part.__name__
    repair = trace.packets[trace.packets["ssrc"].isin(trace.meta["repair_ssrcs"])]
    assert len(repair) > 10
    assert set(repair["stream"]) == {"video"}
    assert {"used", "lost"} & set(repair["fate"])


def test_a_client_that_was_promised_no_such_repair_is_told(clip: Path) -> None:
    with (
        avlab.Server(clip, width=160, loop=True) as server,
        avlab.Client(server.url, audio="null", repair=Xor) as client,
    ):
        goes_on(client)
        assert any("does not offer the repair Xor" in words and "repairs=[Xor]" in words for words in client.notices)


def broken(**methods: Any) -> type[Both]:
    return type("Mine", (Both,), methods)


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize(
    ("part", "words"),
    [
        (broken(protect=lambda self, payloads: 1 / 0), "the repair Mine failed: ZeroDivisionError"),
        (broken(protect=spins), "the repair Mine had not returned after 1.5 s"),
    ],
)
def test_a_server_goes_on_without_a_broken_repair(clip: Path, part: Any, words: str, isolated: bool) -> None:
    with (
        avlab.Server(clip, width=160, loop=True, repairs=[part], isolated=isolated) as server,
        avlab.Client(server.url, audio="null", repair=part) as client,
    ):
        until(lambda: server.error is not None)
        assert isinstance(server.error, avlab.PartError)
        assert words in str(server.error)
        goes_on(client)
        assert any(words in told for told in noticed(server, client))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (broken(recover=lambda self, payloads, repairs: payloads[1:]), "it must be a list of as many"),
        (broken(ask=spins), "the repair Mine had not returned after 1.5 s"),
    ],
)
def test_a_client_goes_on_without_a_broken_repair(clip: Path, part: Any, words: str) -> None:
    with (
        avlab.Server(clip, width=160, loop=True, repairs=[part], network=Network(loss=0.05)) as server,
        avlab.Client(server.url, audio="null", repair=part) as client,
    ):
        until(lambda: client.error is not None)
        assert words in str(client.error)
        goes_on(client)
        assert server.error is None


def test_a_repair_that_cannot_be_ended_is_named_and_stop_returns(clip: Path) -> None:
    let_go = threading.Event()
    part = broken(protect=lambda self, payloads: let_go.wait(120))
    server = avlab.Server(clip, width=160, loop=True, repairs=[part]).start()
    client = avlab.Client(server.url, audio="null", repair=part).start()
    try:
        until(lambda: server.error is not None)
        assert "the repair Mine has not returned, and cannot be ended" in str(server.error)
        began = time.monotonic()
        client.stop()
        server.stop()
        assert time.monotonic() - began < 10.0
    finally:
        let_go.set()
    until(lambda: not any(thread.name.startswith("avlab-") for thread in threading.enumerate()))


def test_the_classic_wire_has_no_repairs_and_says_so(clip: Path) -> None:
    server = avlab.Server(clip, wire="classic", repairs=[Xor])
    assert any("repairs does nothing on the classic wire" in words for words in server.notices)
