"""Clips as they come into a classroom: turned, tiny, huge, deep, joined, cut short. Each streams, or gets its sentence.

Every clip is made here with PyAV's encoders. Its four corners are red, green, blue and grey, the grey rising from
picture to picture: so every test sees which way up a picture is and which one it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from packing import fragments

import avlab
from avlab.media import codec
from avlab.media.packets import MediaError
from avlab.media.probe import probe
from avlab.media.sources import ClipSource

Image = NDArray[np.uint8]

UNIT = 1 << 16  # one, in a display matrix
UPRIGHT = "RGBW"  # the corners in reading order: red, green, blue, white


def corners(width: int, height: int, number: int = 0) -> Image:
    image = np.empty((height, width, 3), np.uint8)
    down, across = height // 2, width // 2
    image[:down, :across], image[:down, across:] = (0, 0, 255), (0, 255, 0)
    image[down:, :across], image[down:, across:] = (255, 0, 0), 150 + 2 * number
    return image


def corners_of(image: Image) -> str:
    height, width = image.shape[:2]
    names = {(0, 0, 1): "R", (0, 1, 0): "G", (1, 0, 0): "B", (1, 1, 1): "W", (0, 0, 0): "K"}
    spots = [image[y, x] > 110 for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return "".join(names.get(tuple(spot.astype(int).tolist()), "?") for spot in spots)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A clip to make: pictures at `ticks` of 1/`rate` s, and `sound` seconds of a tone that starts at `sound_at`."""

    name: str
    video: str = "libx264"
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (96, 64)
    ticks: Sequence[int] = range(10)
    rate: int = 10
    options: dict[str, str] = field(default_factory=dict)
    matrix: tuple[int, int, int, int] | None = None
    aspect: Fraction | None = None
    sound: float = 0.0
    sound_at: float = 0.0
    audio: str = "aac"
    audio_rate: int = 44100
    layout: str = "stereo"
    format: str | None = None
    flags: dict[str, str] = field(default_factory=dict)


def make(folder: Path, recipe: Recipe) -> Path:
    path = folder / recipe.name
    with av.open(str(path), "w", format=recipe.format, options=recipe.flags) as out:
        pictures = _picture_stream(out, recipe) if recipe.ticks else None
        sounds = out.add_stream(recipe.audio, rate=recipe.audio_rate, layout=recipe.layout) if recipe.sound else None
        if pictures:
            for number, tick in enumerate(recipe.ticks):
                frame = av.VideoFrame.from_ndarray(corners(*recipe.size, number), "bgr24")
                frame = frame.reformat(format=recipe.pix_fmt)
                frame.pts, frame.time_base = tick, Fraction(1, recipe.rate)
                out.mux(pictures.encode(frame))
            out.mux(pictures.encode(None))
        if sounds:
            for frame in tone(recipe, sounds.codec_context.format.name, sounds.codec_context.frame_size or 1024):
                out.mux(sounds.encode(frame))
            out.mux(sounds.encode(None))
    return path


def _picture_stream(out: Any, recipe: Recipe) -> Any:
    stream = out.add_stream(recipe.video, rate=recipe.rate, options=recipe.options)
    stream.width, stream.height = recipe.size
    stream.pix_fmt = recipe.pix_fmt
    stream.codec_context.time_base = Fraction(1, recipe.rate)
    if recipe.aspect:
        stream.codec_context.sample_aspect_ratio = recipe.aspect
    if recipe.matrix:
        a, b, c, d = (UNIT * n for n in recipe.matrix)
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
    return stream


def tone(recipe: Recipe, kind: str, block: int) -> Iterable[av.AudioFrame]:
    rate, channels = recipe.audio_rate, {"mono": 1, "stereo": 2, "5.1": 6}[recipe.layout]
    time = np.arange(round(recipe.sound * rate)) / rate
    wave = np.repeat((12_000 * np.cos(2 * np.pi * 440 * time)).astype(np.int16)[:, None], channels, axis=1)
    resampler = av.AudioResampler(kind, recipe.layout, rate)
    for at in range(0, len(wave), block):
        packed = np.ascontiguousarray(wave[at : at + block]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, "s16", recipe.layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = at + round(recipe.sound_at * rate)
        yield from resampler.resample(frame)


@dataclass
class Seen:
    """What came of a clip by the way that a server takes: decoded, made a JPEG, cut for RTP; and its sound."""

    times: list[float] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    sound: NDArray[np.int16] = field(default_factory=lambda: np.zeros((0, 1), np.int16))
    said: list[str] = field(default_factory=list)

    @property
    def heard(self) -> tuple[float, float]:
        """When the tone begins and ends, in seconds."""
        loud = np.flatnonzero(np.abs(self.sound[:, 0].astype(int)) > 3000)
        return float(loud[0]) / self.rate, float(loud[-1]) / self.rate

    rate: int = 44100


def play(path: Path) -> Seen:
    clip, seen = ClipSource(path), Seen()
    try:
        for picture in clip.pictures():
            jpeg, width, height = codec.encode_jpeg(picture.image, quality=95)
            assert fragments(jpeg).payloads
            image = codec.decode_jpeg(jpeg)
            assert image.shape == (height, width, 3)
            seen.times.append(picture.pts_ns / 1e9)
            seen.images.append(image)
    except MediaError as error:
        seen.said.append(str(error))
    blocks = []
    try:
        for chunk in clip.chunks():
            blocks.append(chunk.samples)  # noqa: PERF401  what was had before the error counts
    except MediaError as error:
        seen.said.append(str(error))
    if blocks:
        seen.sound, seen.rate = np.concatenate(blocks), clip.rate or 0
    return seen


def grey_of(image: Image) -> float:
    height, width = image.shape[:2]
    return float(image[height * 5 // 8 : height * 7 // 8, width * 5 // 8 : width * 7 // 8].mean())


TENTHS = [n / 10 for n in range(10)]


# ---- which way up


@pytest.mark.parametrize(
    ("matrix", "expected", "size"),
    [
        ((1, 0, 0, 1), "RGBW", (96, 64)),
        ((0, 1, -1, 0), "BRWG", (64, 96)),  # a phone held upright: its rows are shown as columns
        ((-1, 0, 0, -1), "WBGR", (96, 64)),
        ((0, -1, 1, 0), "GWRB", (64, 96)),
        ((-1, 0, 0, 1), "GRWB", (96, 64)),  # mirrored, as front cameras do
        ((1, 0, 0, -1), "BWRG", (96, 64)),
        ((0, 1, 1, 0), "RBGW", (64, 96)),
        ((0, -1, -1, 0), "WGBR", (64, 96)),
        ((0, 0, 0, 0), "RGBW", (96, 64)),  # nonsense
    ],
)
def test_turned_and_mirrored_clips_come_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], expected: str, size: tuple[int, int]
) -> None:
    path = make(tmp_path, Recipe(name="turned.mov", matrix=matrix, ticks=range(3)))
    clip = ClipSource(path)
    assert (clip.width, clip.height) == size
    images = play(path).images
    assert [corners_of(image) for image in images] == [expected] * 3
    assert images[0].shape == (size[1], size[0], 3)


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = make(tmp_path, Recipe(name="wide.mp4", size=(720, 576), aspect=Fraction(64, 45)))
    clip = ClipSource(path)
    assert (clip.width, clip.height) == (1024, 576)
    image = play(path).images[-1]
    assert image.shape == (576, 1024, 3)
    assert corners_of(image) == UPRIGHT
    turned = Recipe(name="turned.mp4", size=(720, 576), aspect=Fraction(64, 45), matrix=(0, 1, -1, 0), ticks=range(2))
    image = play(make(tmp_path, turned)).images[0]
    assert (image.shape, corners_of(image)) == ((1024, 576, 3), "BRWG")


# ---- sizes, depths, containers


@pytest.mark.parametrize(
    ("recipe", "size"),
    [
        (Recipe(name="odd.mkv", size=(641, 361), video="ffv1", pix_fmt="yuv420p"), (640, 360)),
        (Recipe(name="odd.mov", size=(641, 361), video="png", pix_fmt="rgb24"), (640, 360)),
        (Recipe(name="4k.mp4", size=(3840, 2160), ticks=range(2), options={"preset": "ultrafast"}), (2040, 1144)),
        (Recipe(name="wide.mp4", size=(4096, 64), ticks=range(2)), (2040, 32)),
        (Recipe(name="tall.mov", size=(2, 1000), video="png", pix_fmt="rgb24"), (16, 1000)),
        (Recipe(name="line.mov", size=(1000, 2), video="png", pix_fmt="rgb24"), (1000, 16)),
        (Recipe(name="15.mov", size=(15, 15), video="png", pix_fmt="rgb24"), (16, 16)),
        (Recipe(name="9x7.mov", size=(9, 7), video="png", pix_fmt="rgb24"), (16, 16)),
        (Recipe(name="2.mov", size=(2, 2), video="png", pix_fmt="rgb24"), (16, 16)),
        (Recipe(name="10bit.mp4", pix_fmt="yuv420p10le"), (96, 64)),
        (Recipe(name="422.mp4", pix_fmt="yuv422p10le"), (96, 64)),
        (
            Recipe(name="hevc.mp4", video="libx265", pix_fmt="yuv420p10le", options={"x265-params": "log-level=0"}),
            (96, 64),
        ),
        (Recipe(name="prores.mov", video="prores_ks", pix_fmt="yuva444p10le"), (96, 64)),
        (Recipe(name="alpha.webm", video="libvpx-vp9", pix_fmt="yuva420p"), (96, 64)),
        (Recipe(name="alpha.mov", video="png", pix_fmt="rgba"), (96, 64)),
        (Recipe(name="animation.mov", video="qtrle", pix_fmt="argb"), (96, 64)),
        (Recipe(name="palette.gif", video="gif", pix_fmt="rgb8"), (96, 64)),
        (Recipe(name="moving.png", video="apng", pix_fmt="rgba", format="apng"), (96, 64)),
        (Recipe(name="interlaced.mp4", options={"flags": "+ildct+ilme", "x264-params": "tff=1"}), (96, 64)),
        (Recipe(name="motion.avi", video="mjpeg", pix_fmt="yuvj422p"), (96, 64)),
        (Recipe(name="vp8.webm", video="libvpx"), (96, 64)),
        (Recipe(name="mpeg4.avi", video="mpeg4"), (96, 64)),
        (Recipe(name="h264.mkv"), (96, 64)),
        (Recipe(name="h264.ts"), (96, 64)),
        (Recipe(name="h264.flv"), (96, 64)),
        (Recipe(name="still.png", video="png", pix_fmt="rgba", ticks=range(1), format="image2"), (96, 64)),
        (Recipe(name="still.jpg", video="mjpeg", pix_fmt="yuvj420p", ticks=range(1), format="image2"), (96, 64)),
        (Recipe(name="one.mp4", ticks=range(1)), (96, 64)),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else "",
)
def test_every_kind_of_picture(tmp_path: Path, recipe: Recipe, size: tuple[int, int]) -> None:
    path = make(tmp_path, recipe)
    seen = play(path)
    assert seen.said == []
    np.testing.assert_allclose(seen.times, TENTHS[: len(recipe.ticks)], atol=1.1e-3)
    assert {image.shape for image in seen.images} == {(size[1], size[0], 3)}
    assert {corners_of(image) for image in seen.images} == {UPRIGHT}
    if recipe.pix_fmt != "rgb8":  # whose palette has but eight greys
        assert grey_of(seen.images[-1]) - grey_of(seen.images[0]) == pytest.approx(2 * (len(seen.images) - 1), abs=4)
    assert [round(ns / 1e6) for ns in ClipSource(path).timestamps_ns()] == [round(t * 1e3) for t in seen.times]
    assert probe(path).measured.frames in (len(seen.times), 0), "stills carry no timestamps"


def test_interlaced_broadcast(tmp_path: Path) -> None:
    recipe = Recipe(name="i.ts", video="mpeg2video", rate=25, ticks=range(25), options={"flags": "+ildct+ilme"})
    seen = play(make(tmp_path, recipe))
    np.testing.assert_allclose(seen.times, np.arange(25) / 25, atol=1e-4)  # frames, not fields
    assert {corners_of(image) for image in seen.images} == {UPRIGHT}


# ---- sound


@pytest.mark.parametrize(
    ("recipe", "channels", "heard"),
    [
        (Recipe(name="mono.mp4", sound=1, layout="mono"), 1, (0, 1)),
        (Recipe(name="8k.mp4", sound=1, audio_rate=8000, layout="mono"), 1, (0, 1)),
        (Recipe(name="8k.mkv", sound=1, audio_rate=8000, audio="pcm_s16le", layout="mono"), 1, (0, 1)),
        (Recipe(name="surround.mkv", sound=1, audio_rate=48000, audio="flac", layout="5.1"), 2, (0, 1)),
        (Recipe(name="ac3.ts", sound=1, audio_rate=48000, audio="ac3", layout="5.1"), 2, (0, 1)),
        (Recipe(name="shorter.mp4", sound=0.4), 2, (0, 0.4)),
        (Recipe(name="longer.mp4", sound=2.5), 2, (0, 2.5)),
        (Recipe(name="later.mkv", sound=1, sound_at=3), 2, (3, 4)),
        (Recipe(name="b.mp4", sound=1, options={"bf": "3"}), 2, (0, 1)),
        (Recipe(name="alone.m4a", sound=1, ticks=()), 2, (0, 1)),
        (Recipe(name="alone.mp3", sound=1, ticks=(), audio="libmp3lame"), 2, (0, 1)),
        (Recipe(name="alone.webm", sound=1, ticks=(), audio="libopus", audio_rate=48000), 2, (0, 1)),
        (Recipe(name="one.mp4", sound=2, ticks=range(1)), 2, (0, 2)),
        (Recipe(name="c.avi", sound=1, video="mpeg4", audio="mp2"), 2, (0, 1)),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else "",
)
def test_every_kind_of_sound(tmp_path: Path, recipe: Recipe, channels: int, heard: tuple[float, float]) -> None:
    seen = play(make(tmp_path, recipe))
    assert seen.said == []
    assert seen.sound.shape[1] == channels
    np.testing.assert_allclose(seen.heard, heard, atol=0.03)
    assert len(seen.sound) / seen.rate == pytest.approx(heard[1], abs=0.05)
    np.testing.assert_allclose(seen.times, TENTHS[: len(recipe.ticks)], atol=0.03)  # AC-3 starts a little before


def test_no_pictures_but_their_track(tmp_path: Path) -> None:
    path = tmp_path / "unseen.mkv"
    recipe = Recipe(name="unseen.mkv", sound=1, audio="mp2")
    with av.open(str(path), "w") as out:
        _picture_stream(out, recipe)
        sounds = out.add_stream("mp2", rate=44100, layout="stereo")
        for frame in tone(recipe, "s16", 1152):
            out.mux(sounds.encode(frame))
        out.mux(sounds.encode(None))
    clip = ClipSource(path)
    assert (clip.has_video, clip.has_audio) == (False, True)
    seen = play(path)
    assert (seen.times, seen.said) == ([], [])
    assert seen.heard[1] == pytest.approx(1, abs=0.03)


# ---- time


@pytest.mark.parametrize("name", ["first.mkv", "first.mp4", "first.ts"])
def test_a_first_pts_that_is_not_zero(tmp_path: Path, name: str) -> None:
    seen = play(make(tmp_path, Recipe(name=name, ticks=range(50, 60), sound=1, sound_at=5.2)))
    assert seen.said == [], "nothing is missing before the beginning"
    np.testing.assert_allclose(seen.times, TENTHS, atol=1.1e-3)
    np.testing.assert_allclose(seen.heard, (0.2, 1.2), atol=0.003)


def test_timestamps_that_overflow_go_on(tmp_path: Path) -> None:
    # MPEG-TS counts 90 kHz in 33 bits: 26.5 hours.
    recipe = Recipe(name="wrap.ts", ticks=range(954_436, 954_466), sound=3, sound_at=95_443.6)
    clip = make(tmp_path, recipe)
    seen = play(clip)
    np.testing.assert_allclose(np.diff(seen.times), 0.1, atol=1e-4)
    assert len(seen.times) == 30
    assert seen.heard[1] - seen.times[0] == pytest.approx(3, abs=0.03)
    assert probe(clip).measured.joins == 0


def test_b_frames_come_in_order(tmp_path: Path) -> None:
    seen = play(make(tmp_path, Recipe(name="b.mp4", ticks=range(20), options={"bf": "3", "crf": "5"})))
    assert seen.times == [n / 10 for n in range(20)]
    greys = [grey_of(image) for image in seen.images]
    assert all(after > before for before, after in pairwise(greys))


def test_a_variable_rate_is_kept(tmp_path: Path) -> None:
    ticks = [0, 1, 2, 7, 8, 30, 31]
    seen = play(make(tmp_path, Recipe(name="v.mp4", ticks=ticks, rate=30)))
    assert seen.said == []
    np.testing.assert_allclose(seen.times, np.array(ticks) / 30, atol=1e-6)


def test_an_edit_list_is_obeyed(tmp_path: Path) -> None:
    path = make(tmp_path, Recipe(name="edited.mp4", ticks=range(30), sound=3, options={"bf": "2", "g": "10"}))
    data = bytearray(path.read_bytes())
    scales = [struct.unpack_from(">I", data, at + 16)[0] for at in boxes(data, b"mdhd")]
    for at, scale in zip(boxes(data, b"elst"), scales, strict=True):
        length, begin = struct.unpack_from(">Ii", data, at + 12)  # in thousandths of a second, and in the track's ticks
        struct.pack_into(">Ii", data, at + 12, length - 1500, begin + scale * 3 // 2)
    path.write_bytes(data)
    seen = play(path)
    assert seen.said == []
    np.testing.assert_allclose(seen.times, [n / 10 for n in range(15)], atol=1e-3)
    assert grey_of(seen.images[0]) == pytest.approx(150 + 2 * 15, abs=4), "the sixteenth picture is the first"
    assert ClipSource(path).duration_ns == pytest.approx(1.5e9, abs=3e7)
    assert seen.heard == (pytest.approx(0, abs=0.03), pytest.approx(1.5, abs=0.03))


def boxes(data: bytearray, kind: bytes) -> list[int]:
    """Where boxes of this kind have their name."""
    found, at = [], data.find(kind)
    while at >= 0:
        found.append(at)
        at = data.find(kind, at + 4)
    return found


@pytest.mark.parametrize("starts", [(0.0, 0.0, 0.0), (5.0, 0.0, 1000.0), (1000.0, 5.0, 5.0)])
def test_joined_recordings_play_to_their_end(tmp_path: Path, starts: tuple[float, ...]) -> None:
    parts = []
    for n, start in enumerate(starts):
        ticks = range(round(25 * start), round(25 * start) + 50)
        recipe = Recipe(name=f"{n}.ts", rate=25, ticks=ticks, sound=2, sound_at=start, options={"bf": "2"})
        parts.append(make(tmp_path, recipe).read_bytes())
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    seen = play(path)
    assert seen.said == []
    assert len(seen.times) == 150
    gaps = np.diff(seen.times)
    assert (gaps > 0.03).all()
    assert sorted(gaps)[-3] == pytest.approx(0.04, abs=1e-3)
    assert max(gaps) < 0.2, "what lies at a join is a block of sound, or the order of B-frames"
    assert seen.times[-1] == pytest.approx(6, abs=0.25)
    first, last = seen.heard
    assert last - first == pytest.approx(6, abs=0.25)
    # The third part's sound begins with its pictures.
    third = round((seen.times[100] - 0.06) * seen.rate)
    assert np.abs(seen.sound[third : third + seen.rate, 0].astype(int)).max() > 10_000
    clip = ClipSource(path)
    assert [ns / 1e9 for ns in clip.timestamps_ns()] == pytest.approx(seen.times, abs=1e-6)
    info = probe(path)
    assert (info.measured.frames, info.measured.joins) == (150, 2)
    assert "timestamps start anew (2 x), as where recordings were joined" in info.disagreements()
    assert info.to_dict()["measured"]["joins"] == 2


def test_a_recording_joined_to_one_without_sound(tmp_path: Path) -> None:
    silent = make(tmp_path, Recipe(name="a.ts", ticks=range(20)))
    loud = make(tmp_path, Recipe(name="b.ts", ticks=range(20), sound=2))
    path = tmp_path / "joined.ts"
    path.write_bytes(loud.read_bytes() + silent.read_bytes() + loud.read_bytes())
    seen = play(path)
    assert len(seen.times) == 60
    second = seen.sound[round(2.2 * seen.rate) : round(3.8 * seen.rate)]
    assert not second.any()
    assert seen.heard[1] == pytest.approx(seen.times[-1] + 0.1, abs=0.1)


# ---- what is missing is said


@pytest.mark.parametrize(
    ("share", "said"), [(0.3, r"stops after \d\.\d s of 3\.0 s"), (0.8, r"stops after 2\.\d s of 3\.0 s")]
)
@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_truncated_clip_plays_what_is_there(tmp_path: Path, name: str, share: float, said: str) -> None:
    recipe = Recipe(name=name, ticks=range(30), sound=3, flags={"movflags": "faststart"} if name == "cut.mp4" else {})
    path = make(tmp_path, recipe)
    data = path.read_bytes()
    begin = data.find(b"mdat") if name == "cut.mp4" else 1000  # the share of what holds the media
    path.write_bytes(data[: begin + round((len(data) - begin) * share)])
    seen = play(path)
    assert len(seen.times) >= 30 * share * 0.5
    assert {corners_of(image) for image in seen.images} == {UPRIGHT}
    assert len(seen.said) == 2, "pictures and sound both say so"
    for sentence in seen.said:
        assert sentence.endswith("the rest of the file is missing; copy or download it again.")
    with pytest.raises(MediaError, match=said):
        list(ClipSource(path).pictures())


def cut_at(data: bytes, kind: bytes, extra: int) -> bytes:
    return data[: data.find(kind) + extra]


FAST, PIECES = {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}


@pytest.mark.parametrize(
    ("flags", "kind", "extra", "sentence"),
    [
        ({}, b"moov", -4, r"is not a clip that can be played: an MP4 without its index \(moov\)"),
        ({}, b"moov", 200, r"is not a clip that can be played: an MP4 without its index \(moov\)"),
        ({}, b"mdat", 100, r"is not a clip that can be played: an MP4 without its index \(moov\)"),
        (FAST, b"mdat", 4, "holds not one frame: its recording was broken off or the end of the file is missing"),
        (PIECES, b"moof", -4, "holds not one frame: its recording was broken off"),
    ],
)
def test_an_mp4_of_which_nothing_can_be_played(
    tmp_path: Path, flags: dict[str, str], kind: bytes, extra: int, sentence: str
) -> None:
    path = make(tmp_path, Recipe(name="cut.mp4", sound=1, flags=flags))
    path.write_bytes(cut_at(path.read_bytes(), kind, extra))
    with pytest.raises(MediaError, match=rf"cut\.mp4' {sentence}.*; copy or download it again"):
        ClipSource(path)


def test_an_mp4_in_pieces_plays_those_that_are_there(tmp_path: Path) -> None:
    path = make(tmp_path, Recipe(name="pieces.mp4", ticks=range(30), flags=PIECES, options={"g": "5", "bf": "0"}))
    data = path.read_bytes()
    assert len(play(path).times) == 30
    path.write_bytes(data[: boxes(bytearray(data), b"moof")[4] - 4])
    assert len(play(path).times) == 20


@pytest.mark.parametrize("name", ["zero.avi", "zero.mkv", "zero.mp4"])
def test_a_clip_of_no_frames(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as out:
        _picture_stream(out, Recipe(name=name, video="mpeg4"))
        out.start_encoding()
    with pytest.raises(MediaError, match=r"zero\.\w+' (holds not one frame|is not a clip)"):
        ClipSource(path)


def test_subtitles_that_outlast_the_film_are_no_loss(tmp_path: Path) -> None:
    path = make(tmp_path, Recipe(name="film.mkv", sound=1))
    data = bytearray(path.read_bytes())
    at = data.find(b"\x44\x89\x88") + 3  # the segment's duration, an 8-byte float of milliseconds
    assert 1000 <= struct.unpack_from(">d", data, at)[0] < 1100
    struct.pack_into(">d", data, at, 5000.0)
    path.write_bytes(data)
    assert probe(path).claims.seconds == 5
    assert play(path).said == []


# ---- end to end


STREAMED = [
    (
        Recipe(name="phone.mov", matrix=(0, 1, -1, 0), sound=1, audio_rate=8000, layout="mono", ticks=range(10)),
        "BRWG",
        (96, 64),
    ),
    (
        Recipe(name="odd.mkv", size=(641, 361), video="ffv1", ticks=range(50, 60), sound=1, sound_at=5.0, audio="flac"),
        UPRIGHT,
        (360, 640),
    ),
    (Recipe(name="alpha.webm", video="libvpx-vp9", pix_fmt="yuva420p"), UPRIGHT, (64, 96)),
    (Recipe(name="deep.mp4", pix_fmt="yuv420p10le", sound=0.5, options={"bf": "2"}), UPRIGHT, (64, 96)),
    (Recipe(name="palette.gif", video="gif", pix_fmt="rgb8"), UPRIGHT, (64, 96)),
    (Recipe(name="still.png", video="png", pix_fmt="rgba", ticks=range(1), format="image2"), UPRIGHT, (64, 96)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "expected", "shape"), STREAMED, ids=[recipe.name for recipe, *_ in STREAMED])
def test_odd_clips_stream(tmp_path: Path, recipe: Recipe, expected: str, shape: tuple[int, int]) -> None:
    with avlab.Server(make(tmp_path, recipe)) as server, avlab.Client(server.url, audio="null") as client:
        images = [picture.image for picture in client.frames()]
        assert client.wait(60)
    video = client.trace.frames.query("stream == 'video'")
    assert len(video) == len(recipe.ticks)
    assert images
    assert {image.shape[:2] for image in images} == {shape}
    assert {corners_of(image) for image in images} == {expected}
    assert client.audio_seconds == pytest.approx(recipe.sound, abs=0.15)
    assert client.error is None


@pytest.mark.slow
def test_joined_recordings_and_sound_alone_stream(tmp_path: Path) -> None:
    part = make(tmp_path, Recipe(name="part.ts", sound=1)).read_bytes()
    (tmp_path / "joined.ts").write_bytes(2 * part)
    with avlab.Server(tmp_path / "joined.ts") as server, avlab.Client(server.url, audio="null") as client:
        assert client.wait(60)
    assert len(client.trace.frames.query("stream == 'video'")) == 20
    assert client.audio_seconds == pytest.approx(2, abs=0.2)
    alone = make(tmp_path, Recipe(name="alone.m4a", ticks=(), sound=1))
    with avlab.Server(alone) as server, avlab.Client(server.url, audio="null") as client:
        assert client.wait(60)
    assert client.audio_seconds == pytest.approx(1, abs=0.1)
    assert len(client.trace.frames.query("stream == 'video'")) == 0


@pytest.mark.slow
def test_a_truncated_clip_streams_then_says_so(tmp_path: Path) -> None:
    path = make(tmp_path, Recipe(name="cut.mp4", ticks=range(30), sound=3, flags=FAST))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    server = avlab.Server(path).start()
    with avlab.Client(server.url, audio="null") as client:
        assert client.wait(60)
    with pytest.raises(MediaError, match=r"cut\.mp4' stops after \d\.\d s of 3\.0 s: the rest of the file is missing"):
        server.stop()
    assert len(client.trace.frames.query("stream == 'video'")) >= 5
