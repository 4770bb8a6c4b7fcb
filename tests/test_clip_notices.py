"""What a person should know of a clip before it plays, and names and addresses of every kind where a clip is meant."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from commands import run, running

import avlab
from avlab.media import probe as probing
from avlab.media.packets import MediaError
from avlab.media.probe import probe
from avlab.media.sources import ClipSource
from avlab.wire import sdp

RATE = 44_100


def write(
    path: Path, *, tones: tuple[int, ...] = (440,), default: int | None = None, transfer: int = 1, spoil: bool = False
) -> Path:
    """Ten pictures, and a track of half a second for each tone in Hz; `default` is the number of the default one.

    `spoil` has the sound's packets hold what no decoder takes.
    """
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=20)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.color_trc = transfer
        tracks = [out.add_stream("aac", rate=RATE, layout="mono") for _ in tones]
        for number, track in enumerate(tracks):
            chosen = default is None or number == default
            track.disposition = Disposition.default if chosen else Disposition(0)
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 * number, np.uint8), "bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 20)
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))
        for hertz, track in zip(tones, tracks, strict=True):
            wave = (12_000 * np.sin(2 * np.pi * hertz * np.arange(RATE // 2) / RATE)).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
            sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
            for packet in [*track.encode(sound), *track.encode(None)]:
                out.mux(_spoilt(packet) if spoil and packet.size else packet)
    return path


def _spoilt(packet: av.Packet) -> av.Packet:
    made = av.Packet(b"\x7f" * packet.size)
    made.stream, made.pts, made.dts, made.time_base = packet.stream, packet.pts, packet.dts, packet.time_base
    made.duration = packet.duration
    return made


def pitch(path: Path) -> int:
    """The tone that a clip sounds, in Hz, to the nearest 20."""
    sound = np.concatenate([chunk.samples[:, 0] for chunk in ClipSource(path).chunks()])[2000:18_000].astype(float)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return round(float(np.argmax(spectrum)) * RATE / len(sound) / 20) * 20


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize("default", [0, 1, 2])
def test_the_default_sound_is_played(tmp_path: Path, suffix: str, default: int) -> None:
    tones = (440, 880, 1320)
    path = write(tmp_path / f"three.{suffix}", tones=tones, default=default)
    assert pitch(path) == tones[default]
    assert ClipSource(path).notices == ()


@pytest.mark.parametrize("default", [None, 9])
def test_without_one_default_it_is_the_first(tmp_path: Path, default: int | None) -> None:
    """All of them, or none."""
    assert pitch(write(tmp_path / "two.mkv", tones=(440, 880), default=default)) == 440


@pytest.mark.parametrize("isolated", [False, True])
def test_sound_that_does_not_decode_is_told_and_pictures_go_on(tmp_path: Path, isolated: bool) -> None:
    path = write(tmp_path / "spoilt.mkv", spoil=True)
    with avlab.Server(path, once=True, isolated=isolated) as server, avlab.Client(server.url, audio="null") as client:
        [said] = server.notices
        assert client.wait(20)
        assert server.wait(10)
    assert said.startswith(
        f"The sound of {str(path)!r} (aac) cannot be decoded here: only the pictures will be streamed"
    )
    assert set(client.trace.frames["stream"]) == {"video"}
    assert len(client.trace.frames) == 10


def test_the_command_line_tells_it(tmp_path: Path) -> None:
    path = write(tmp_path / "spoilt.mkv", spoil=True)
    with running("serve", path, "--once", "--port", 0) as serve:
        with avlab.Client(serve.url, audio="null") as client:
            assert client.wait(20)
        code, _, said = serve.wait()
    assert code == 0
    assert said.startswith("note: The sound of ")


@pytest.mark.parametrize(("transfer", "kind"), [(16, "PQ"), (18, "HLG")])
def test_pictures_in_hdr_are_told(tmp_path: Path, transfer: int, kind: str) -> None:
    path = write(tmp_path / "hdr.mp4", transfer=transfer)
    [said] = avlab.Server(path).notices
    assert f"is HDR ({kind}), and its pictures are sent without tone mapping" in said


def test_an_ordinary_clip_has_no_notices(tmp_path: Path) -> None:
    assert ClipSource(write(tmp_path / "plain.mp4")).notices == ()


# ---- names


NAMES = ["a:b", "rtsp:x", "line\nbreak", "tab\t\x1b[31mred", "x?y#z", "ünï 日本", "100%", "a;b, c", "'quoted'", "-dash"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wire", ["rtsp", "classic"])
def test_a_clip_of_any_name_is_streamed_and_its_name_breaks_no_line(tmp_path: Path, name: str, wire: str) -> None:
    path = write(tmp_path / f"{name}.mp4")
    with (
        avlab.Server(path, wire=wire, once=True) as server,  # type: ignore[arg-type]
        avlab.Client(server.url, audio="null") as client,
    ):
        said = [server.url, repr(server), repr(client), server.status(), client.trace.meta["clip"]]
        assert client.wait(20)
    assert len(client.trace.frames.query("stream == 'video'")) == 10
    assert all(text.isprintable() for text in said), said


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_of_any_name_is_looked_into(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name alone, too, which begins like an address where it has a colon."""
    write(tmp_path / f"{name}.mp4")
    monkeypatch.chdir(tmp_path)
    info = probe(f"{name}.mp4")
    assert info.opencv.frames == info.measured.frames == 10
    assert all(line.isprintable() for line in str(info).split("\n"))
    assert str(info).count("\n") == str(probe(write(tmp_path / "plain.mp4"))).count("\n")


def test_a_name_that_is_no_text_is_streamed(tmp_path: Path) -> None:
    """On Linux a name is bytes; what is no UTF-8 in them comes as halves of characters."""
    path = Path(f"{tmp_path}/caf\udce9.mp4")
    try:
        shutil.copy(write(tmp_path / "plain.mp4"), path)
    except (OSError, UnicodeError):  # this system has no such names
        return
    with avlab.Server(path, once=True) as server, avlab.Client(server.url, audio="null") as client:
        server.url.encode()
        assert client.wait(20)
        repr(server).encode()
    assert len(client.trace.frames.query("stream == 'video'")) == 10


def test_the_description_says_a_name_on_one_line() -> None:
    with pytest.raises(ValueError, match="must not contain a line break"):
        sdp.serialize(sdp.SessionDescription(name="a\r\na=control:evil"))


# ---- addresses


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("rtsp://127.0.0.1:8554/count", "play it with 'avlab play' or avlab.Client"),
        ("RTSP://host/x", "play it with 'avlab play'"),
        ("classic://127.0.0.1:9688", "play it with 'avlab play'"),
        ("http://example.com/count.mp4", "download it first, and give the path of the file"),
        ("https://example.com/count.mp4", "download it first"),
        ("udp://239.0.0.1:5004", "download it first"),
        ("file:///data/count.mp4", "leave out what stands before its path"),
        (Path("rtsp://127.0.0.1:8554/count"), "play it with 'avlab play'"),  # a path has one slash of them
    ],
)
def test_an_address_where_a_file_is_meant(address: str | Path, advice: str) -> None:
    for take in (avlab.Server, probe, ClipSource):
        with pytest.raises(MediaError, match="is an address, and the path of a clip is meant") as caught:
            take(address)
        assert advice in str(caught.value)


def test_the_command_line_has_the_same_sentence() -> None:
    for command in ("probe", "serve", "demo"):
        done = run(command, "rtsp://127.0.0.1:8554/count")
        assert done.returncode == 1
        assert "is an address, and the path of a clip is meant" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["data/count.mp4", "clip.MKV", Path("data/count.mp4"), Path("whatever"), __file__])
def test_a_file_where_an_address_is_meant(name: str | Path) -> None:
    with pytest.raises(ValueError, match=r"is a file, and a client plays an address: serve it, with avlab\.Server"):
        avlab.Client(name)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_no_address() -> None:
    for name in ("no such.mp4", "C:/films/a.mp4", "c:\\films\\a.mp4", "a:b.mp4"):
        with pytest.raises(FileNotFoundError, match="There is no file"):
            probe(name)


# ---- what cv2 answers


@pytest.mark.parametrize("count", [-1.0, -192_153_584_101_141.0, float("nan"), float("inf"), -float("inf")])
def test_counts_of_cv2_that_cannot_be_are_empty(count: float, monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    class Capture:
        def __init__(self, path: str) -> None:
            self.real = plain(path)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def get(self, what: int) -> float:
            return count if what in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS) else float(self.real.get(what))

    plain = cv2.VideoCapture
    monkeypatch.setattr(probing.cv2, "VideoCapture", Capture)
    info = probe(data / "count-15.mp4")
    assert (info.opencv.frames, info.opencv.fps) == (None, None)
    assert "cv2" not in info.disagreements()
    [row] = [row for row in info.rows() if row[0] == "frames"]
    assert row[2] == ""


def test_a_clip_that_tells_no_duration(tmp_path: Path) -> None:
    """A recording that was streamed into a file: cv2 counts fewer than none."""
    whole = write(tmp_path / "whole.mkv")
    live = tmp_path / "live.mkv"
    with av.open(str(whole)) as source, av.open(str(live), "w", options={"live": "1"}) as out:
        tracks = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream_index]
                out.mux(packet)
    frames = probe(live).opencv.frames
    assert frames is None or frames >= 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_a_pipe_where_a_clip_is_meant_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "clip.mp4"
    os.mkfifo(pipe)
    for meant in (avlab.probe, avlab.Server):
        with pytest.raises(ValueError, match="no file, but a pipe or a device"):
            meant(pipe)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_without_descriptors_a_clip_is_not_said_to_be_none(clip: Path) -> None:
    avlab.probe(clip)  # whatever is imported on the way is here from now on
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        with pytest.raises(OSError, match="too many files are open: end other programs, or raise the limit"):
            avlab.probe(clip)
    finally:
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.mp4"])
def test_a_name_that_no_file_can_have_is_no_file(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file"):
        avlab.probe(name)
