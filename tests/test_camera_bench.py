"""The benchmark of cameras: the pictures are the reel's, a lag is told as it is, and a run reads a camera."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import camera
from benchmarks.peers.pictures import reel


def test_the_pictures_go_there_and_back() -> None:
    """Each is near the one before it, the first near the last: a circle without a jump."""
    pictures = [picture.astype(float) for picture in camera.smooth(640, 360)]
    assert len(pictures) == len(list(reel(640, 360)))
    steps = [np.abs(after - before).mean() for before, after in zip(pictures, pictures[1:] + pictures[:1], strict=True)]
    jump = np.abs(pictures[0] - pictures[len(pictures) // 2]).mean()
    assert max(steps) < jump


def test_a_lag_is_a_median_and_what_one_in_a_hundred_has() -> None:
    rows = np.array([(number, 0, number * 1_000_000) for number in range(101)], np.int64)
    lag = camera.lag(rows)
    assert str(lag) == "50 | 99"
    assert str(camera.lag(rows[:2])) == "2 pictures |"


@pytest.mark.slow
@pytest.mark.parametrize(
    "maker", ["avlab", pytest.param("GStreamer", marks=pytest.mark.needs("gst-rtsp-server", "gst:openh264enc"))]
)
def test_a_camera_is_read(maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "SIZE", (416, 240))
    monkeypatch.setattr(camera, "START", 1.0)
    monkeypatch.setattr(camera, "WINDOW", 2.0)
    run = camera.measure(maker, "avlab", work="0.05", seconds=1.0)
    assert len(run.start.ms) >= 1
    assert len(run.later.ms) >= 3
    assert (run.later.ms > 0).all()
    assert 0 < run.fps <= 20.5
    assert run.cpu > 0


def test_the_codecs_own_share_is_measured(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "SIZE", (416, 240))
    clip = tmp_path / "film.mp4"  # type: ignore[operator]
    assert camera.write_film(clip, pictures=30) > 0
    assert all(share > 0 for share in camera.coding(clip))
