"""When a clip is over: in virtual time by pacer, and once over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import avlab
from avlab.measure.record.trace import Recorder
from avlab.media.sources import ArraySource
from avlab.stream.clock import VirtualClock
from avlab.stream.handle import Worker
from avlab.stream.recording import SenderRecording
from avlab.stream.sending.clip import Sending
from avlab.timing.pacing import DeadlinePacer, FeedbackPacer, NoPacing, Pacer
from avlab.wire.units import NS, Chunk

FPS = 25
FRAME_NS = NS // FPS


class Pictures(ArraySource):
    """Arrays, and sound beside them if there is to be any."""

    def __init__(self, count: int, *, fps: float, sound_seconds: float) -> None:
        super().__init__([np.zeros((16, 16, 3), np.uint8)] * count, fps=fps)
        self.has_audio = sound_seconds > 0


class Everyone:
    """An audience that notes when it was sent what."""

    def __init__(self, clock: VirtualClock, sound_seconds: float) -> None:
        self.clock, self.sound_seconds = clock, sound_seconds
        self.sent: dict[str, list[int]] = {"video": [], "audio": []}

    def prepare(self, frame: Any) -> Any:
        return frame

    def timestamp(self, stream: str, pts_ns: int) -> int:
        return pts_ns // 1000

    def chunks(self) -> Iterator[Chunk]:
        for index in range(round(self.sound_seconds * 10)):
            yield Chunk(index, index * NS // 10, np.zeros((4800, 1), np.int16), 48_000)

    def send_frame(self, unit: Any, pts_ns: int) -> tuple[int, int]:
        self.sent["video"].append(self.clock.now_ns())
        return self.clock.now_ns(), 1

    def send_sound(self, chunk: Chunk) -> tuple[int, list[Any]]:
        self.sent["audio"].append(self.clock.now_ns())
        return self.clock.now_ns(), []


def played(pacer: Pacer, count: int, *, fps: float = FPS, sound_seconds: float = 0.0) -> tuple[Everyone, int]:
    """Send a clip; who it was sent to, and when it was over. No time passes while the feeds read."""
    clock = VirtualClock()
    everyone, come = Everyone(clock, sound_seconds), threading.Event()
    sending = Sending(
        Pictures(count, fps=fps, sound_seconds=sound_seconds),
        loop=False,
        audience=everyone,  # type: ignore[arg-type]
        clock=clock,  # type: ignore[arg-type]
        record=SenderRecording(Recorder(side="server", epoch_ns=0, clock="virtual")).offered,
        ready=come.set,
        notice=lambda name, words: None,
    )
    sending.pacer = pacer
    chunks = round(sound_seconds * 10)
    workers = [Worker(name, feed.run, wake=feed.wake) for name, feed in sending.feeds.items()]
    for worker in workers:
        worker.start()
    try:
        sending.play(clock.now_ns())

        def fed() -> bool:
            """Whether each pacer has its next unit, or there is none any more: then the next moment is known."""
            sending.take(clock.now_ns())
            moment_ns = sending.wake_at()
            waiting = (pacer.wake_at(), sending.sound_pacer.wake_at())
            more = (len(everyone.sent["video"]) < count, len(everyone.sent["audio"]) < chunks)
            return moment_ns is not None and all(w is not None for w, m in zip(waiting, more, strict=True) if m)

        over = False
        while not over:
            while not fed():
                assert come.wait(10)
                come.clear()
            moment_ns = sending.wake_at()
            assert moment_ns is not None
            clock.sleep_until(moment_ns)
            over = sending.send_due(clock.now_ns())
        return everyone, clock.now_ns()
    finally:
        for worker in workers:
            worker.signal()
        for worker in workers:
            assert worker.join(10)


@pytest.mark.parametrize(("count", "fps"), [(1, 0.01), (1, 25), (40, 0.1), (600, 30)])
def test_pictures_flat_out_are_over_when_the_last_is_sent(count: int, fps: float) -> None:
    everyone, over_ns = played(NoPacing(), count, fps=fps)
    assert len(everyone.sent["video"]) == count
    assert over_ns == everyone.sent["video"][-1] == 0


@pytest.mark.parametrize("count", [1, 40])
def test_a_last_picture_on_its_deadline_has_its_time(count: int) -> None:
    everyone, over_ns = played(DeadlinePacer(), count)
    assert everyone.sent["video"] == [number * FRAME_NS for number in range(count)]
    assert over_ns == count * FRAME_NS


@pytest.mark.parametrize(("seconds", "sound_seconds"), [(8, 2.0), (1, 2.0)])
def test_sound_keeps_its_time_beside_pictures_flat_out(seconds: int, sound_seconds: float) -> None:
    everyone, over_ns = played(NoPacing(), seconds * FPS, sound_seconds=sound_seconds)
    assert set(everyone.sent["video"]) == {0}
    assert everyone.sent["audio"] == [number * NS // 10 for number in range(20)]
    assert over_ns == 2 * NS


@pytest.mark.parametrize("delay", [0.005, 0.04, 0.2])
def test_a_rule_that_is_ahead_of_the_clip_is_not_waited_for(delay: float) -> None:
    everyone, over_ns = played(FeedbackPacer(lambda *_: delay, start=delay, name="fixed"), 50)
    assert over_ns == everyone.sent["video"][-1] == pytest.approx(49 * delay * NS)


@pytest.mark.parametrize("wire", ["rtsp", "classic"])
def test_a_server_flat_out_ends_with_its_last_picture(wire: str) -> None:
    """Of pictures that are said to last an hour and a half."""
    pictures = [np.full((32, 32, 3), number % 256, np.uint8) for number in range(600)]
    with (
        avlab.Server(pictures, fps=0.1, pacer="none", once=True, wire=wire) as server,
        avlab.Client(server.url, audio="null", playout_delay=0) as client,
    ):
        assert server.wait(60)
        assert client.wait(60)
    assert client.error is None
    assert len(server.trace.frames.dropna(subset=["sent"])) == 600
