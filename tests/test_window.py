"""The window and the speaker for real, on a private screen and sound card, watched by an outsider to their clocks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import numpy as np
import pytest
import tools
from commands import command
from numpy.typing import NDArray

import avlab
from avlab.lab import window
from avlab.stream.clock import MonotonicClock
from avlab.stream.playing.tap import PictureVerdict, Tap
from avlab.timing.jitterbuffer import Frame
from benchmarks import observe

pytestmark = [pytest.mark.slow, pytest.mark.needs("xvfb", "pulse", "ffmpeg")]


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)


def test_each_flash_is_seen_and_its_own_tone_is_heard(data: Path, tmp_path: Path) -> None:
    reference = observe.reference(data / "count.mp4")  # which has all six
    for _ in range(3):
        seen = played(data / "count-15.mp4", tmp_path)
        assert [flash.which for flash in seen.flashes] == sorted(flash.which for flash in seen.flashes)
        assert [tone.which for tone in seen.tones] == sorted(tone.which for tone in seen.tones)
        # A busy machine may skip the frames of some flash, or break a tone off; it may not mix them up, nor always.
        if len(seen.pairs(reference)) >= 4:
            return
    pytest.fail("in three runs, fewer than four of the five flashes had their tones")


def played(clip: Path, folder: Path) -> observe.Seen:
    """What an outsider sees and hears of a clip of 75 frames and 5 s; both ends have accounted for all of it."""
    sent, came = folder / "server.avtrace", folder / "client.avtrace"
    with observe.stage() as (screen, sound, env):
        observer = observe.Observer(screen, sound)
        observer.start()
        try:
            with tools.started(*command("serve", clip, "--port", 0, "--once", "--trace", sent), env=env) as server:
                assert server.stdout is not None
                url = server.stdout.readline().split()[-1]
                asked = command("play", url, "--window", "--audio", "speaker", "--json", "--trace", came)
                play = tools.finished(*asked, env=env)
                assert server.wait(60) == 0
        finally:
            seen = observer.stop()
    assert (play.returncode, play.stderr) == (0, f"trace saved in {came}\n")
    told = json.loads(play.stdout)
    assert told["error"] is None
    trace = avlab.join(avlab.Trace.load(sent), avlab.Trace.load(came))
    video, audio = (avlab.metrics.frame_ledger(trace, stream) for stream in ("video", "audio"))
    assert video.closes, video
    assert audio.closes, audio
    assert (video.offered, video.shown) == (75, told["shown"])
    rows = trace.frames.query("stream == 'audio'")
    assert rows["bytes"].sum() / (44_100 * 2 * 2) == pytest.approx(5.0, abs=0.03)
    assert 0 < told["audio_seconds"] <= 5.0 + 0.03
    return seen


@pytest.mark.needs("xdotool")
def test_the_window_shows_its_fps_and_closes_at_q(clip: Path, tmp_path: Path) -> None:
    record = tmp_path / "run.avtrace"
    serve = command("serve", clip, "--port", 0, "--loop")
    with observe.stage() as (screen, _, env), tools.started(*serve, env=env) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        play = command("play", url, "--window", "--audio", "null", "--trace", record)
        with tools.started(*play, env=env) as player:
            # The number in the clip is white and large; the overlay is white in the corner above it.
            until(lambda: white(screen.pixels()[:360, :640]) > 5000, "a picture")
            until(lambda: white(screen.pixels()[:40, :120]) > 50, "the fps")
            found = tools.run("xdotool", "search", "--name", f"^{window.TITLE}$", env=env).split()
            tools.run("xdotool", "windowfocus", found[0], "key", "q", env=env)
            assert player.wait(60) == 0
    assert record.exists()


def white(pixels: NDArray[np.uint8]) -> int:
    return int(np.all(pixels > 200, axis=2).sum())


def test_a_display_that_does_not_answer_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(window.NoWindowError, match=":4711 does not answer"):
        window.check_display()


def test_without_a_display_a_window_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(window.NoWindowError, match="no display"):
        window.check_display()


def test_a_picture_that_does_not_decode_is_skipped_and_the_window_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts: list[PictureVerdict] = []
    tap = Tap(lambda _tap, verdict: verdicts.append(verdict), decides=True)
    monkeypatch.setattr(window, "check_display", lambda: None)
    monkeypatch.setitem(
        sys.modules, "cv2", MagicMock(**{"pollKey.return_value": -1, "getWindowProperty.return_value": 1.0})
    )
    shown = window.Window(cast(Any, SimpleNamespace(tap=lambda decides: tap, clock=MonotonicClock())))
    damaged = Frame(
        ticks=0,
        pts_ns=0,
        data=b"\xff\xd8 no more",
        bytes=10,
        packets=1,
        packets_lost=0,
        first_packet_ns=0,
        complete_ns=0,
    )
    tap.put(damaged)
    assert shown.step(0)
    assert verdicts == [PictureVerdict(damaged, None)]
