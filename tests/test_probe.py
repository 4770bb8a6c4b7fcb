"""What a clip claims, what cv2 makes of it, and what its timestamps say."""

from __future__ import annotations

import json
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avlab.media.packets import MediaError, open_clip
from avlab.media.probe import ClipInfo, probe

DATA = Path(__file__).parent.parent / "data"


def make(path: Path, ticks: list[int], base: Fraction, codec: str = "libx264", turn: int = 0) -> Path:
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=round(1 / base))
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.time_base = base
        if turn:
            video.set_display_rotation(turn)
        for n, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), n % 250, np.uint8), "bgr24")
            frame.pts, frame.time_base = tick, base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def test_a_constant_clip_agrees() -> None:
    info = probe(DATA / "count.mp4")
    assert info.claims.fps == info.claims.average_fps == 30
    assert info.opencv.fps == info.measured.fps == pytest.approx(30)
    assert info.claims.frames == info.opencv.frames == info.measured.frames == 600
    assert info.claims.seconds == 20
    assert (info.claims.video_codec, info.claims.audio_codec) == ("h264", "aac")
    assert (info.claims.audio_rate, info.claims.channels, info.claims.rotation) == (44100, 2, 0)
    assert info.measured.smallest_gap_ms == info.measured.largest_gap_ms == pytest.approx(1000 / 30)
    assert (info.measured.variable, info.measured.first_pts) == (False, 0)
    assert info.disagreements() == "They agree."


def test_a_variable_clip_disagrees() -> None:
    info = probe(DATA / "count-vfr.mp4")
    assert info.measured.variable
    assert info.measured.smallest_gap_ms is not None
    assert info.measured.largest_gap_ms is not None
    assert info.measured.smallest_gap_ms < 20 < 80 < info.measured.largest_gap_ms
    assert info.claims.fps != info.claims.average_fps
    assert "They disagree on fps (nominal " in info.disagreements()
    assert "cv2 " in info.disagreements()
    assert info.disagreements().endswith("The rate is variable: no one number is its fps.")


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30_000, 1001), Fraction(60), Fraction(240)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_rounding_to_the_containers_ticks_is_no_variable_rate(tmp_path: Path, fps: Fraction, suffix: str) -> None:
    info = probe(make(tmp_path / f"c.{suffix}", list(range(50)), 1 / fps))
    assert not info.measured.variable
    assert info.measured.frames == 50, "B-frames are put in order"
    assert info.measured.fps == pytest.approx(float(fps), rel=2e-3)


@pytest.mark.parametrize("ticks", [[0, 1, 2, 4, 5, 6], [0, 100, 203, 300, 401, 504]])
def test_a_variable_rate_is_seen(tmp_path: Path, ticks: list[int]) -> None:
    base = Fraction(1, 30) if ticks[1] == 1 else Fraction(1, 3000)
    measured = probe(make(tmp_path / "v.mp4", ticks, base)).measured
    assert measured.variable
    assert measured.fps == pytest.approx(float(5 / (ticks[-1] * base)))
    assert measured.largest_gap_ms == pytest.approx(float(max(np.diff(ticks)) * base * 1000))


def test_the_first_picture_need_not_be_at_0(tmp_path: Path) -> None:
    info = probe(make(tmp_path / "late.mkv", list(range(15, 30)), Fraction(1, 30), "mpeg4"))
    assert info.measured.first_pts == pytest.approx(0.5)
    assert info.measured.frames == 15


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_rotation(tmp_path: Path, turn: int) -> None:
    info = probe(make(tmp_path / "r.mp4", list(range(3)), Fraction(1, 30), turn=turn))
    assert info.claims.rotation is not None
    assert abs(info.claims.rotation) == abs(turn)
    assert (info.claims.width, info.claims.height) == (96, 64)
    if turn != 180:
        assert (info.opencv.width, info.opencv.height) == (64, 96)
        assert "cv2 turns the picture upright" in info.disagreements()


@pytest.mark.needs("ffmpeg")
def test_an_edit_lists_pictures_are_not_counted(tmp_path: Path) -> None:
    # Copied from 2.5 s on, the file holds pictures back to the last key frame, which its edit list discards.
    cut = tmp_path / "cut.mp4"
    command = ["ffmpeg", "-v", "error", "-ss", "2.5", "-i", str(DATA / "count-24.mp4"), "-c", "copy", str(cut)]
    subprocess.run(command, check=True, timeout=180)
    info = probe(cut)
    assert info.measured.frames == 60
    assert info.claims.frames is not None
    assert info.claims.frames > 60
    assert "They disagree on frames (container " in info.disagreements()


def test_a_file_without_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.wav"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        out.mux(sound.encode(frame))
    info = probe(path)
    assert (info.claims.video_codec, info.claims.audio_rate, info.claims.channels) == (None, 8000, 1)
    assert (info.measured.frames, info.measured.fps, info.opencv.fps) == (0, None, None)
    assert info.disagreements() == "There are no pictures in it, only sound."
    assert "nominal fps" not in str(info)
    assert capfd.readouterr() == ("", "")


def table_of(info: ClipInfo) -> list[str]:
    return [line for line in str(info).splitlines() if line.startswith(("nominal", "average", "frames", "duration"))]


def test_the_table_is_aligned_and_html_says_the_same() -> None:
    info = probe(DATA / "count-29.97.mp4")
    assert [line.split() for line in table_of(info)] == [
        ["nominal", "fps", "29.97", "29.97"],
        ["average", "fps", "29.97", "29.97"],
        ["frames", "150", "150", "150"],
        ["duration,", "s", "5.005"],
    ]
    lines = str(info).splitlines()
    head = lines[2]
    assert all(len(line) <= len(head) for line in lines[3:-2])
    ends = head.index("cv2") + 3
    assert lines[4][ends - 5 : ends] == "29.97"
    assert lines[-1] == info.disagreements()
    page = info._repr_html_()
    for row in info.rows():
        assert all(f">{cell}</td>" in page for cell in row)
    assert info.disagreements() in page


def test_names_are_escaped_in_html(tmp_path: Path) -> None:
    path = tmp_path / "a<b>&.mp4"
    path.write_bytes((DATA / "count-15.mp4").read_bytes())
    page = probe(path)._repr_html_()
    assert "a&lt;b&gt;&amp;.mp4" in page
    assert "<b>&.mp4" not in page


def test_to_dict_is_json() -> None:
    found = json.loads(json.dumps(probe(DATA / "count-29.97.mp4").to_dict()))
    assert found["claims"]["fps"] == pytest.approx(30_000 / 1001)
    assert found["measured"]["frames"] == found["opencv"]["frames"] == 150
    assert set(found) == {"path", "claims", "measured", "opencv"}


@pytest.mark.parametrize(
    ("name", "content", "error", "sentence"),
    [
        ("none.mp4", None, FileNotFoundError, r"There is no file '.*none\.mp4'; check the name and the folder"),
        ("notes.txt", b"hello\n" * 50, ValueError, r"notes\.txt' is not a clip .*; give a video or sound file"),
        ("notes.mp4", b"hello\n" * 50, ValueError, r"notes\.mp4' is not a clip"),
        ("zeros.mkv", bytes(5000), ValueError, r"zeros\.mkv' is not a clip"),
        ("head.mp4", "head", ValueError, r"head\.mp4' is not a clip"),
    ],
)
def test_what_is_no_clip_is_said_in_a_sentence_and_nothing_else(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    content: bytes | str | None,
    error: type[Exception],
    sentence: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes((DATA / "count.mp4").read_bytes()[:3000] if isinstance(content, str) else content)
    with pytest.raises(error, match=sentence):
        probe(path)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_clip_makes_no_noise(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes((DATA / "count.mp4").read_bytes()[:200_000])
    info = probe(path)
    assert 0 < info.measured.frames < info.claims.frames == 600
    assert "frames (container 600, " in info.disagreements()
    assert capfd.readouterr() == ("", "")


def test_a_name_with_a_colon_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "http:clip.mp4"
    path.write_bytes((DATA / "count-15.mp4").read_bytes())
    with open_clip(path) as clip:
        assert clip.streams.video
    with pytest.raises(MediaError, match="is an address"):  # and is not asked for over the network
        open_clip("http://127.0.0.1:9/clip.mp4")
    assert issubclass(MediaError, ValueError)
