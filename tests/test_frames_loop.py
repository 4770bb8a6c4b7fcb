"""`for frame in Client(url).frames()`: starts and stops what it needs, waits for nothing, and never falls behind."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rawclient import until
from scripted import VIDEO, Pictures, ScriptedServer, description, sender_report

import avlab
from avlab.measure.numbers import metrics
from avlab.wire import rtcp
from avlab.wire.units import NS

FPS = 30


def pictures(width: int = 320, height: int = 192) -> Iterator[np.ndarray]:
    """A bar that wanders, for ever."""
    for number in itertools.count():
        image = np.full((height, width, 3), 40, np.uint8)
        left = 8 * number % (width - 32)
        image[:, left : left + 32] = 220
        yield image


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("avlab-")]


@pytest.fixture(params=["h264", "jpeg"])
def camera(request: pytest.FixtureRequest) -> Iterator[avlab.Server]:
    codec: dict[str, Any] = {"codec": "h264"} if request.param == "h264" else {}
    with avlab.Server(pictures(), fps=FPS, **codec) as server:
        yield server


def test_a_loop_starts_its_client_and_ends_it(camera: avlab.Server) -> None:
    before = set(own_threads())
    client = avlab.Client(camera.url)
    seen = []
    for frame in client.frames():
        seen.append(frame)
        if len(seen) == 5:
            assert client.running
            assert client.playout_delay == 0, "nothing waits for a moment to be shown"
            assert client.speaker_name == ""
            break
    del frame
    until(lambda: not client.running)
    until(lambda: not any("client" in name or "decoder" in name for name in set(own_threads()) - before))
    assert [frame.image.shape for frame in seen] == [(192, 320, 3)] * 5
    assert metrics.frame_ledger(client.trace).closes


def test_what_was_given_stays_as_it_was(camera: avlab.Server) -> None:
    client = avlab.Client(camera.url, playout_delay=0.3, audio="null")
    loop = client.frames()
    next(loop)
    assert client.playout_delay == 0.3
    loop.close()
    assert not client.running


@pytest.mark.parametrize("started", [False, True])
def test_a_slow_loop_gets_the_newest_and_all_is_decoded(camera: avlab.Server, started: bool) -> None:
    client = avlab.Client(camera.url, audio="null")
    if started:
        client.start()
    loop = client.frames()
    seen = [next(loop).pts]
    for _ in range(3):
        newest = seen[-1]
        until(lambda newest=newest: latest(client) > newest + 0.4)  # type: ignore[misc]
        known = latest(client)
        seen.append(next(loop).pts)
        assert seen[-1] >= known - 1e-3, "it is not one of those that came meanwhile"
    loop.close()
    client.stop()
    ledger = metrics.frame_ledger(client.trace)
    assert ledger.damaged == ledger.incomplete == 0
    assert ledger.shown >= 30


def latest(client: avlab.Client) -> float:
    """The pts of the newest picture that was shown."""
    return float(client.trace.frames.query("fate == 'shown'")["pts"].max())


def test_a_client_that_waits_to_show_lets_a_loop_have_its_pictures_before(camera: avlab.Server) -> None:
    with avlab.Client(camera.url, audio="null") as client:
        had = {}
        for frame in itertools.islice(client.frames(), 40):
            had[round(frame.pts, 4)] = client.clock.now_ns()
        until(lambda: latest(client) >= max(had))
    trace = client.trace
    shown = trace.frames.query("fate == 'shown'")
    times = {round(pts, 4): trace.epoch_ns + at * NS for pts, at in zip(shown["pts"], shown["shown"], strict=True)}
    before = [times[pts] - at for pts, at in had.items() if pts in times]
    assert len(before) >= 30
    assert np.median(before) > 0, "most of them before they are shown"


def test_with_a_delay_that_was_asked_for_they_come_when_they_are_shown(camera: avlab.Server) -> None:
    with avlab.Client(camera.url, audio="null", playout_delay=0.3) as client:
        had = {}
        for frame in itertools.islice(client.frames(waiting=64), 20):
            had[round(frame.pts, 4)] = client.clock.now_ns()
        until(lambda: latest(client) >= max(had))
    trace = client.trace
    shown = trace.frames.query("fate == 'shown'")
    times = {round(pts, 4): trace.epoch_ns + at * NS for pts, at in zip(shown["pts"], shown["shown"], strict=True)}
    assert all(at >= times[pts] - NS // 1000 for pts, at in had.items())


def test_pts_never_go_back_when_pictures_overtake_each_other() -> None:
    """JPEGs that come in another order: one that is older than one that was given is not given any more."""

    def crossed(server: ScriptedServer) -> None:
        made = Pictures()
        frames = [made.frame(number * NS // 25, number) for number in range(60)]
        for first, second in zip(frames[::2], frames[1::2], strict=True):
            server.send("video", *second, *first)
            if not server.pause(0.06):
                return

    with ScriptedServer(description(VIDEO), crossed) as server, avlab.Client(server.url, audio="null") as client:
        seen = [frame.pts for frame in itertools.islice(client.frames(waiting=32), 15)]
    assert (np.diff(seen) > 0).all()


def test_the_time_of_capture_is_the_senders(camera: avlab.Server) -> None:
    before = time.time()
    seen = list(itertools.islice(avlab.Client(camera.url).frames(waiting=8), 12))
    after = time.time()
    captured = [frame.captured for frame in seen]
    known = [(frame.pts, frame.captured) for frame in seen if frame.captured is not None]
    assert len(known) >= len(captured) - 2, "a report comes before the first packet, or with it"
    assert before - 60 < known[0][1] < after + 60
    steps = np.array([each for _, each in known]) - np.array([pts for pts, _ in known])
    assert np.ptp(steps) < 1e-3, "both clocks go alike"


@pytest.mark.parametrize("ntp", [0, 1_234 << 32, None])
def test_without_a_wall_clock_there_is_no_time_of_capture(ntp: int | None) -> None:
    """NTP time 0, a clock that counts from the sender's start, or no report at all."""

    def script(server: ScriptedServer) -> None:
        made = Pictures(ticks=5_000)
        for number in range(100):
            if ntp is not None:
                server.send("video", sender_report(0x1111, ntp and ntp + (number << 32) // 25, 5_000 + number * 3_600),
                            control=True)  # fmt: skip
            server.send("video", *made.frame(number * NS // 25, number))
            if not server.pause(0.04):
                return

    with ScriptedServer(description(VIDEO), script) as server:
        seen = list(itertools.islice(avlab.Client(server.url).frames(), 10))
    assert [frame.captured for frame in seen] == [None] * 10


def test_a_report_in_mid_stream_tells_from_there_on() -> None:
    wall_ns = 1_790_000_000 * NS

    def script(server: ScriptedServer) -> None:
        made = Pictures(ticks=5_000)
        for number in range(200):
            if number == 10:
                ntp = rtcp.ns_to_ntp(wall_ns + number * NS // 25)
                server.send("video", sender_report(0x1111, ntp, 5_000 + number * 3_600), control=True)
            server.send("video", *made.frame(number * NS // 25, number))
            if not server.pause(0.04):
                return

    with ScriptedServer(description(VIDEO), script) as server:
        loop = avlab.Client(server.url).frames(waiting=64)
        first = next(loop)
        told = next(frame for frame in loop if frame.captured is not None)
        loop.close()
    assert first.captured is None
    assert told.captured == pytest.approx(wall_ns / NS + told.pts, abs=0.001)


def test_a_loop_over_nobody_raises_as_start_does() -> None:
    client = avlab.Client("rtsp://127.0.0.1:9/x")
    with pytest.raises(ConnectionRefusedError, match="nothing listens"):
        next(client.frames())
    assert not client.running
    with pytest.raises(RuntimeError, match="could not be started"):
        next(client.frames())
    with pytest.raises(ValueError, match="waiting must be 1 or more"):
        next(avlab.Client("rtsp://127.0.0.1:9/x").frames(waiting=0))
