"""mpv as a player of avlab's streams: what it has drawn and heard, written to files in place of a screen and a card."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import tools

import avlab

pytestmark = [pytest.mark.slow, pytest.mark.needs("mpv")]


@pytest.mark.parametrize("over", ["tcp", "udp"])
@pytest.mark.parametrize("coded", [False, True])
def test_mpv_plays_pictures_and_sound_to_the_end(data: Path, tmp_path: Path, coded: bool, over: str) -> None:
    clip = data / "count-15.mp4"
    with (
        avlab.Server(clip, once=True, width=320, codec="h264", audio_codec="opus")
        if coded
        else avlab.Server(clip, once=True, width=320) as server
    ):
        done = tools.finished(
            "mpv", "--no-config", "--msg-level=all=warn", f"--rtsp-transport={over}",
            "--vo=image", "--vo-image-format=jpg", f"--vo-image-outdir={tmp_path}",
            "--ao=pcm", f"--ao-pcm-file={tmp_path}/sound.raw", "--ao-pcm-waveheader=no", "--audio-format=s16",
            server.url,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout
    pictures = sorted(tmp_path.glob("*.jpg"))
    assert 60 <= len(pictures) <= 80, "of 75, in five seconds"
    seen = cv2.imread(str(pictures[len(pictures) // 2]))
    assert seen is not None
    assert seen.shape == (176, 320, 3)
    heard = (tmp_path / "sound.raw").stat().st_size / (2 * 2 * (48_000 if coded else 44_100))
    assert heard == pytest.approx(5, abs=0.7)
