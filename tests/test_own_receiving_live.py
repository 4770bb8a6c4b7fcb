"""A jitter buffer and a repair of one's own on real sockets: they work, and a stream goes on without broken ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_own_buffer import FixedDelay, Patient, mine, spins

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
        (mine(pull=spins), "the jitter buffer Mine had not returned after 2 s"),
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
