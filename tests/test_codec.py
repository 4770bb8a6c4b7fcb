"""Pictures to JPEG and back: sizes, colours, rotation, and what RFC 2435 can carry."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from avlab.media import codec, synth
from avlab.media.codec import decode_jpeg, encode_jpeg, fit
from avlab.media.sources import ClipSource

BARS = [*synth.FLASH_COLOURS, (255, 255, 255), (0, 0, 0)]


def bars(width: int, height: int) -> np.ndarray:
    """Upright bars of known colours, the first with a bright corner at its top."""
    image = np.empty((height, width, 3), np.uint8)
    for i, colour in enumerate(BARS):
        image[:, i * width // len(BARS) : (i + 1) * width // len(BARS)] = colour
    image[: height // 4, : width // len(BARS)] = (255, 255, 255)
    return image


def middles(image: np.ndarray) -> np.ndarray:
    """The colours of the bars, as int of shape (bars, 3)."""
    height, width = image.shape[:2]
    return image[height * 5 // 8, [(2 * i + 1) * width // (2 * len(BARS)) for i in range(len(BARS))]].astype(int)


def clip(path: Path, image: np.ndarray, *, matrix: str, tag: int, full: bool = False, turn: int = 0) -> Path:
    """Two frames of `image` in MP4, in the colour matrix given, tagged with FFmpeg's number for one."""
    reach = "JPEG" if full else "MPEG"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=30, options={"crf": "8"})
        video.height, video.width = image.shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.colorspace, video.codec_context.color_range = tag, 2 if full else 1
        if turn:
            video.set_display_rotation(turn)
        for pts in range(2):
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=reach)
            frame.pts, frame.time_base = pts, Fraction(1, 30)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


@pytest.mark.parametrize(
    ("size", "to_width", "expected"),
    [
        ((640, 360), None, (640, 360)),
        ((640, 360), 400, (400, 224)),
        ((640, 360), 401, (400, 224)),
        ((640, 360), 16, (16, 16)),
        ((640, 360), 1280, (1280, 720)),
        ((1366, 768), None, (1368, 768)),
        ((3840, 2160), None, (2040, 1144)),
        ((3840, 2160), 2040, (2040, 1144)),
        ((1080, 1920), 2040, (1144, 2040)),
        ((2160, 3840), None, (1144, 2040)),
        ((5, 5), None, (16, 16)),
    ],
)
def test_fit(size: tuple[int, int], to_width: int | None, expected: tuple[int, int]) -> None:
    assert fit(*size, to_width) == expected


@given(st.integers(1, 8000), st.integers(1, 8000), st.none() | st.integers(16, 2040))
@settings(max_examples=100, deadline=None)
def test_fit_is_always_legal(width: int, height: int, to_width: int | None) -> None:
    for side in fit(width, height, to_width):
        assert side % 8 == 0
        assert 16 <= side <= 2040


@pytest.mark.parametrize("width", [0, -8, 15, 2041, 400.0, "400", True])
def test_bad_widths(width: int) -> None:
    with pytest.raises(ValueError, match=r"width must be a whole number from 16 to 2040"):
        fit(640, 360, width)


@pytest.mark.parametrize("quality", [0, 101, -1, 80.5, None, True])
def test_bad_qualities(quality: int) -> None:
    with pytest.raises(ValueError, match=r"quality must be a whole number from 1 to 100"):
        encode_jpeg(bars(64, 64), width=None, quality=quality)


@pytest.mark.parametrize(
    ("matrix", "tag", "full", "size"),
    [
        ("ITU601", 6, False, (640, 360)),
        ("ITU601", 2, False, (640, 360)),
        ("ITU601", 6, True, (640, 360)),
        ("ITU709", 1, False, (640, 360)),
        ("ITU709", 1, False, (1280, 720)),
        ("ITU709", 2, False, (1280, 720)),
    ],
)
@pytest.mark.parametrize("shrink", [1, 2])
def test_colours_are_the_clips(
    tmp_path: Path, matrix: str, tag: int, full: bool, size: tuple[int, int], shrink: int
) -> None:
    image = bars(*size)
    path = clip(tmp_path / "c.mp4", image, matrix=matrix, tag=tag, full=full)
    picture = next(ClipSource(path).pictures())
    jpeg, width, height = encode_jpeg(picture.image, width=size[0] // shrink, quality=95)
    ours = decode_jpeg(jpeg)
    assert ours.shape == (height, width, 3)
    assert np.abs(middles(ours) - middles(image)).max() <= 6
    if tag != 2 or size[1] < 720:  # cv2 takes large pictures that do not say for BT.601, players for BT.709
        _, theirs = cv2.VideoCapture(str(path)).read()
        assert np.abs(middles(ours) - middles(theirs)).max() <= 5


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_rotated_clips_come_upright(tmp_path: Path, turn: int) -> None:
    path = clip(tmp_path / "r.mp4", bars(320, 176), matrix="ITU601", tag=6, turn=turn)
    source = ClipSource(path)
    _, theirs = cv2.VideoCapture(str(path)).read()
    assert (source.height, source.width) == theirs.shape[:2]
    jpeg, width, height = encode_jpeg(next(source.pictures()).image, width=source.width, quality=95)
    assert (height, width) == theirs.shape[:2]
    inner = np.s_[8:-8, 8:-8]
    assert np.abs(decode_jpeg(jpeg)[inner].astype(int) - theirs[inner].astype(int)).mean() < 5


@pytest.mark.parametrize("width", [None, 400, 160, 640])
def test_arrays_keep_their_colours(width: int | None) -> None:
    image = bars(640, 360)
    jpeg, to_width, to_height = encode_jpeg(image, width=width, quality=95)
    assert (to_width, to_height) == fit(640, 360, width)
    assert np.abs(middles(decode_jpeg(jpeg)) - middles(image)).max() <= 6


def test_views_of_arrays_are_taken_as_they_are() -> None:
    image = bars(640, 360)
    for view in (image[:, ::-1], image[::2, ::2], np.asfortranarray(image)):
        jpeg, _, _ = encode_jpeg(view, width=None, quality=95)
        same, _, _ = encode_jpeg(view.copy(order="C"), width=None, quality=95)
        assert jpeg == same


def test_a_thin_line_survives_shrinking() -> None:
    image = np.zeros((720, 1280, 3), np.uint8)
    image[::4] = 255
    jpeg, _, _ = encode_jpeg(image, width=320, quality=95)
    assert abs(int(decode_jpeg(jpeg).mean()) - 64) < 8, "averaged, not dropped"


def segments(jpeg: bytes) -> list[tuple[int, bytes]]:
    """(marker, contents) of each segment up to the scan."""
    found, at = [], 2
    while (marker := jpeg[at + 1]) != 0xDA:
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append((marker, jpeg[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def tables(jpeg: bytes) -> dict[int, bytes]:
    """Quantisation tables by number."""
    found = {}
    for marker, body in segments(jpeg):
        while marker == 0xDB and body:
            found[body[0]], body = body[1:65], body[65:]
    return found


@pytest.mark.parametrize("kind", ["array", "frame", "hd frame", "turned"])
def test_jpegs_are_those_of_rfc_2435(tmp_path: Path, kind: str) -> None:
    image: object = bars(320, 176)
    if kind != "array":
        tag, matrix = (1, "ITU709") if kind == "hd frame" else (6, "ITU601")
        path = clip(tmp_path / "k.mp4", bars(320, 176), matrix=matrix, tag=tag, turn=90 if kind == "turned" else 0)
        image = next(ClipSource(path).pictures()).image
    base = tables(encode_jpeg(image, width=None, quality=50)[0])  # quality 50 is the tables of JPEG's Annex K as is
    huffman = None
    for quality in (1, 25, 50, 80, 99):
        jpeg, width, height = encode_jpeg(image, width=None, quality=quality)
        parts = segments(jpeg)
        assert not {marker for marker, _ in parts} & {0xC1, 0xC2, 0xDD}, "baseline, no restarts"
        (frame,) = (body for marker, body in parts if marker == 0xC0)
        assert (int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")) == (width, height)
        assert frame[5] == 3
        assert [frame[6 + 3 * i + 1] for i in range(3)] == [0x22, 0x11, 0x11], "4:2:0"
        assert [frame[6 + 3 * i + 2] for i in range(3)] == [0, 1, 1], "two tables"
        # RFC 2435, section 4.2: the tables of Q are Annex K's, scaled.
        factor = 5000 // quality if quality < 50 else 200 - 2 * quality
        for number, table in tables(jpeg).items():
            derived = [min(255, max(1, (value * factor + 50) // 100)) for value in base[number]]
            assert list(table) == derived
        found = [body for marker, body in parts if marker == 0xC4]
        assert huffman in (None, found), "the same Huffman tables at every quality"
        huffman = found
    assert simplejpeg.decode_jpeg_header(jpeg)[2:] == ("YCbCr", "420")


def test_quality_orders_size() -> None:
    image = next(ClipSource(Path(__file__).parent.parent / "data" / "count-15.mp4").pictures()).image
    sizes = [len(encode_jpeg(image, width=400, quality=quality)[0]) for quality in (10, 40, 80, 100)]
    assert all(small < large for small, large in pairwise(sizes))


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xff\xd8\xff" + b"0" * 40])
def test_garbage_is_no_jpeg(junk: bytes) -> None:
    with pytest.raises(ValueError, match=rf"These {len(junk)} bytes are no whole JPEG"):
        decode_jpeg(junk)


def test_a_cut_jpeg_is_no_jpeg() -> None:
    jpeg, _, _ = encode_jpeg(bars(320, 176), width=None, quality=80)
    for end in range(0, len(jpeg) - 2, 97):
        with pytest.raises(ValueError, match="no whole JPEG"):
            decode_jpeg(jpeg[:end])


def test_check_width_takes_numpy_integers() -> None:
    assert codec.check_width(np.int64(400)) == 400
    assert codec.check_quality(np.uint8(80)) == 80
