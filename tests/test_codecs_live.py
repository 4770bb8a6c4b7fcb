"""The usual codecs: what other programs send is played, in step; and what avlab sends is played by them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
from test_own_parts_live import until

import avlab
from avlab.measure.numbers import metrics
from avlab.stream.playing.sound import Sounding

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs(
        "gst-rtsp-server", "gst:openh264enc", "gst:x265enc", "gst:h264parse", "gst:voaacenc", "gst:rtph264pay"
    ),
]


@contextmanager
def gstreamer(pictures: str, sound: str, seconds: float) -> Iterator[str]:
    """The address of a GStreamer server with a flash and a tone at each second."""
    command = [tools.SYSTEM_PYTHON, str(Path(__file__).with_name("gst_codecs.py")), pictures, sound, str(seconds)]
    with tools.started(*command) as peer:
        assert peer.stdout is not None
        yield f"rtsp://127.0.0.1:{peer.stdout.readline().strip()}/test"


def onsets(times: list[float], loud: list[bool]) -> list[float]:
    """When it begins, each time."""
    return [at for at, before, now in zip(times[1:], loud, loud[1:], strict=False) if now and not before]


def played(url: str, monkeypatch: pytest.MonkeyPatch, **given: Any) -> tuple[avlab.Client, list[float], list[float]]:
    """A stream played to its end: the client, and the media times at which it flashed and at which it sounded."""
    heard: list[tuple[float, np.ndarray[Any, Any], int]] = []
    take = Sounding.take

    def listen(self: Sounding, samples: Any, *, ticks: int, pts_ns: int, now_ns: int) -> bool:
        heard.append((pts_ns / 1e9, samples.copy(), self.rate))
        return take(self, samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns)

    monkeypatch.setattr(Sounding, "take", listen)
    with avlab.Client(url, audio="null", video_over="tcp", playout_delay=0.6, **given) as client:
        seen = [(frame.pts, frame.image.mean() > 120) for frame in client.frames(waiting=120)]
        assert client.wait(60), "no BYE came"
    times: list[float] = []
    loud: list[bool] = []
    for at, samples, rate in heard:
        for start in range(0, len(samples), rate // 200):  # 5 ms each
            times.append(at + start / rate)
            loud.append(bool(np.abs(samples[start : start + rate // 200].astype(int)).max() > 3_000))
    return client, onsets([at for at, _ in seen], [lit for _, lit in seen]), onsets(times, loud)


@pytest.mark.parametrize("pictures", ["h264", "h264-described", "h264-together", "h265"])
def test_pictures_of_a_gstreamer_server_are_played(pictures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with gstreamer(pictures, "none", 2.5) as url:
        client, flashes, _ = played(url, monkeypatch)
    frames = metrics.frame_ledger(client.trace)
    assert frames.closes
    assert frames.shown >= 60
    assert frames.incomplete + frames.lost + frames.damaged <= 2
    assert np.diff(flashes) == pytest.approx(1.0, abs=0.04)
    assert client.notices == ()


@pytest.mark.parametrize(
    ("pictures", "sound"),
    [
        ("h264", "aac"),
        ("h264", "pcmu"),
        ("h265", "opus"),
        ("jpeg", "pcma"),
        ("jpeg", "l8"),
        ("jpeg", "l16"),
        ("jpeg", "l24"),
    ],
)
def test_pictures_and_sound_of_a_gstreamer_server_are_in_step(
    pictures: str, sound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gstreamer(pictures, sound, 3.5) as url:
        client, flashes, tones = played(url, monkeypatch)
    assert len(flashes) >= 2
    assert len(tones) >= 2
    for flash in flashes:
        assert min(abs(flash - tone) for tone in tones) < 0.030, (flashes, tones)
    assert metrics.frame_ledger(client.trace).shown >= 60
    chunks = metrics.frame_ledger(client.trace, "audio")
    assert chunks.shown >= 0.9 * chunks.offered > 0
    assert client.notices == ()


# ---- what avlab sends


@pytest.fixture
def serving(data: Path) -> Iterator[avlab.Server]:
    """Half a minute of H.264 and Opus."""
    with avlab.Server(data / "count-15.mp4", codec="h264", audio_codec="opus", width=320, loop=True) as server:
        yield server


def fates(client: avlab.Client) -> dict[str, int]:
    return client.trace.frames.query("stream == 'video'")["fate"].value_counts().to_dict()


@pytest.mark.parametrize("isolated", [False, True])
def test_h264_and_opus_of_a_server_are_played_and_settings_act(data: Path, isolated: bool) -> None:
    given: dict[str, Any] = {"codec": "h264", "audio_codec": "opus", "width": 320, "isolated": isolated}
    with (
        avlab.Server(data / "count-15.mp4", loop=True, **given) as server,
        avlab.Client(server.url, audio="null", playout_delay=0.5) as client,
    ):
        until(lambda: fates(client).get("shown", 0) > 20)
        server.bit_rate, server.key_interval = 300, 0.5
        with avlab.Client(server.url, audio="null", playout_delay=0.5) as late:
            until(lambda: fates(late).get("shown", 0) > 15)
            assert (server.bit_rate, server.key_interval) == (300, 0.5)
            picture = next(late.frames())
            assert picture.image.shape[1:] == (320, 3)
            assert picture.jpeg[:2] == b"\xff\xd8"
        assert client.audio_seconds > 0.5
        assert client.error is server.error is None
        assert client.notices == ()
    assert set(server.trace.settings["name"]) >= {"bit_rate", "key_interval"}


@pytest.mark.parametrize("damaged", ["show", "freeze"])
def test_a_loss_spoils_pictures_until_a_key_frame_that_is_asked_for(data: Path, damaged: Any) -> None:
    given: dict[str, Any] = {"codec": "h264", "key_interval": 60.0, "network": avlab.Network(loss=0.03, seed=4)}
    with (
        avlab.Server(data / "count-15.mp4", width=640, loop=True, **given) as server,
        avlab.Client(server.url, audio="null", playout_delay=0.3, damaged=damaged) as client,
    ):
        until(lambda: fates(client).get("incomplete", 0) > 4 and fates(client).get("shown", 0) > 30)
    found = fates(client)
    assert bool(found.get("damaged")) == (damaged == "show")
    assert metrics.frame_ledger(client.trace).closes
    assert metrics.summary(client.trace).damaged == found.get("damaged", 0)


@pytest.mark.needs("ffmpeg")
def test_ffmpeg_plays_h264_and_opus(serving: avlab.Server) -> None:
    command = ["ffmpeg", "-v", "error", "-rtsp_transport", "tcp", "-i", serving.url, "-t", "2"]
    done = subprocess.run(
        [*command, "-f", "framemd5", "-"], capture_output=True, text=True, timeout=tools.SECONDS, check=True
    )
    lines = [line.split(",")[0].strip() for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert lines.count("0") >= 20
    assert lines.count("1") >= 40


@pytest.mark.needs("gst:openh264dec", "gst:opusdec", "gst:rtph264depay")
def test_gstreamer_plays_h264_and_opus(data: Path, tmp_path: Path) -> None:
    with avlab.Server(data / "count-15.mp4", codec="h264", audio_codec="opus", width=320, once=True) as server:
        tools.gst_launch(
            f"rtspsrc location={server.url} protocols=tcp latency=200 name=s "
            f"s. ! rtph264depay ! h264parse ! openh264dec ! videoconvert ! jpegenc ! "
            f"multifilesink location={tmp_path}/%05d.jpg "
            f"s. ! rtpopusdepay ! opusdec ! filesink location={tmp_path}/sound.raw"
        )
    assert len(list(tmp_path.glob("*.jpg"))) >= 20
    assert (tmp_path / "sound.raw").stat().st_size > 48_000
