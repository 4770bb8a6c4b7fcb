"""Pictures to JPEG and back, at the size that is asked for. Touches no file and no device.

Every JPEG made here is one that RFC 2435 can carry: baseline, 4:2:0, standard Huffman tables, sides multiples of 8.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import Any

import cv2
import numpy as np
import simplejpeg
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from avlab.wire.jpegsize import check_size, sized

Image = NDArray[np.uint8]

SMALLEST, LARGEST = 16, 2040
"""The least and largest side of a picture sent, in pixels; RFC 2435, section 3.1.5, counts eights in one byte."""

_BLOCK = 8
_HD_LINES = 720  # from here on, pictures that do not say are BT.709 by convention; below, BT.601
# FFmpeg's numbers for a picture's colour matrix (AVCOL_SPC_*), and what its scaler calls the same.
_UNSPECIFIED = 2
_YUV = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12"}
_MATRIX = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


Matrix = tuple[int, int, int, int]
"""How a picture is turned and mirrored: a, b, c and d of ISO 14496-12, each -1, 0 or 1."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a source: `index` from 0, `pts_ns` from the start of the clip, rising through every loop.

    `image` is a decoded `av.VideoFrame`, or BGR uint8 of shape (height, width, 3); `encode_jpeg` takes both, and
    `matrix`, by which a frame is put upright.
    """

    index: int
    pts_ns: int
    image: VideoFrame | Image
    matrix: Matrix | None = None


@lru_cache(maxsize=64, typed=True)
def fit(width: int, height: int, to_width: int | None = None) -> tuple[int, int]:
    """The size (width, height) at which a picture of `width` x `height` pixels is sent.

    Both sides are multiples of 8 from 16 to 2040 in the picture's own proportions, as near as that allows. Without
    `to_width` it is the picture's own size. Raises ValueError when `to_width` is not a whole number from 16 to 2040.
    """
    wanted = width if to_width is None else check_width(to_width)
    scale = min(wanted / width, LARGEST / width, LARGEST / height)
    return _side(width * scale), _side(height * scale)


def check_width(width: int) -> int:
    """The width to send at, in pixels, when it is a whole number from 16 to 2040; else ValueError."""
    return _whole("width", width, SMALLEST, LARGEST, "pixels")


def check_quality(quality: int) -> int:
    """The JPEG quality when it is a whole number from 1 to 100; else ValueError."""
    return _whole("quality", quality, 1, 100, "100 is best")


def check_fps(fps: float) -> None:
    """ValueError for a frame rate that is not above 0 and at most 1000 frames a second."""
    if not 0 < fps <= 1000:
        raise ValueError(f"fps must be above 0 and at most 1000 frames a second, not {fps}.")


def encode_jpeg(
    image: VideoFrame | Image, *, width: int | None = None, quality: int = 80, matrix: Matrix | str | None = "own"
) -> tuple[bytes, int, int]:
    """One picture as (JPEG, width, height), upright, scaled to `width` pixels (None: its own size, as `fit` says).

    `image` is a decoded `av.VideoFrame` in any pixel format, or BGR uint8 of shape (height, width, 3). The result is
    full-range BT.601, as JFIF wants it, whatever the clip's own colour matrix is. Raises ValueError for a width or
    quality out of range. `matrix` spares the look at a frame's own display matrix where that is known.
    """
    check_quality(quality)
    if isinstance(image, VideoFrame):
        if isinstance(matrix, str):
            matrix = display_matrix(image)
        lying = matrix is not None and not matrix[0]  # its rows are shown as columns
        to_width, to_height = fit(*((image.height, image.width) if lying else (image.width, image.height)), width)
        planes = _planes(image, *((to_height, to_width) if lying else (to_width, to_height)))
        if matrix is not None:
            planes = [_upright(plane, matrix) for plane in planes]
    else:
        to_width, to_height = fit(image.shape[1], image.shape[0], width)
        planes = [_resized(image, to_width, to_height)]
    if len(planes) == 3:
        return simplejpeg.encode_jpeg_yuv_planes(*planes, quality), to_width, to_height
    return simplejpeg.encode_jpeg(planes[0], quality, "BGR", "420"), to_width, to_height


def to_bgr(image: VideoFrame | Image, *, width: int | None = None, matrix: Matrix | None = None) -> Image:
    """One picture as BGR uint8 of shape (height, width, 3), upright, at the size of which `encode_jpeg` makes it.

    An array of its own, whatever is done with it. ValueError for a width out of range.
    """
    if not isinstance(image, VideoFrame):
        to_width, to_height = fit(image.shape[1], image.shape[0], width)
        resized = _resized(image, to_width, to_height)
        return resized.copy() if np.shares_memory(resized, image) else resized
    lying = matrix is not None and not matrix[0]  # its rows are shown as columns
    to_width, to_height = fit(*((image.height, image.width) if lying else (image.width, image.height)), width)
    size = (to_height, to_width) if lying else (to_width, to_height)
    scaled = _scaler.reformat(image, *size, "bgr24", src_colorspace=_colour_matrix(image), threads=1)
    upright = _view(scaled.planes[0], 3) if matrix is None else _upright(_view(scaled.planes[0], 3), matrix)
    return upright.copy()


def to_array(frame: VideoFrame) -> Image:
    """A decoded frame as BGR uint8 of shape (height, width, 3), at its own size whatever that is."""
    size = (frame.width, frame.height)
    scaled = _scaler.reformat(frame, *size, "bgr24", src_colorspace=_colour_matrix(frame), threads=1)
    return _view(scaled.planes[0], 3).copy()


_fit_head = b""
"""What stands before the only scan of the JPEG that was decoded last: those of one stream all begin with the same."""


def decode_jpeg(jpeg: bytes) -> Image:
    """A JPEG as BGR uint8 of shape (height, width, 3). Raises ValueError when it is damaged or not a JPEG.

    Whoever made it: what claims more than 4096 pixels a side, or comes in more passes than any encoder makes, counts as
    damaged and is not decoded. All pictures from elsewhere are decoded here.
    """
    global _fit_head
    known = _fit_head  # read once: another thread may put another one in its place, or none, which all begin with
    try:
        if not (known and jpeg.startswith(known)):
            _, _, head = sized(jpeg)
            # As the decoder itself reads it, too: it would have that much memory before it looks any further.
            height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
            check_size(width, height)
            _fit_head = head
        image: Image = simplejpeg.decode_jpeg(jpeg, "BGR")
    except ValueError as error:
        raise ValueError(f"These {len(jpeg)} bytes are no whole JPEG ({error}).") from None
    return image


def display_matrix(frame: VideoFrame) -> Matrix | None:
    """How the picture is to be turned and mirrored, each of a, b, c, d -1, 0 or 1; None when it is upright.

    The pixel at (x, y) is shown at (a x + c y, b x + d y): ISO 14496-12, section 6.2.2. To be asked once a clip: PyAV
    ties a frame that was asked for its side data to itself, and then the pictures of many seconds stay in memory until
    Python looks for such rings.
    """
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(found), np.int32).tolist()
    # Only quarter turns are taken; what lies between goes to the nearest, and a matrix of zeros says nothing.
    if abs(b) + abs(c) > abs(a) + abs(d):
        a, d = 0, 0
    else:
        b, c = 0, 0
    matrix = _sign(a), _sign(b), _sign(c), _sign(d)
    return None if matrix == (1, 0, 0, 1) or a * d == b * c else matrix


def _upright(plane: Image, matrix: Matrix) -> Image:
    a, b, c, d = matrix
    if not a:
        plane, a, d = plane.swapaxes(0, 1), c, b
    return np.ascontiguousarray(plane[::d, ::a])


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


class _Scaler(threading.local):
    """FFmpeg's scaler, set up once a thread: setting up costs as much as scaling, and two threads may not share one."""

    def __init__(self) -> None:
        self.reformat = VideoReformatter().reformat


_scaler = _Scaler()


def _planes(frame: VideoFrame, width: int, height: int) -> list[Image]:
    """The picture scaled, as Y, U and V in full-range BT.601; or as one plane of BGR where that comes cheaper."""
    matrix = _colour_matrix(frame)
    if matrix == Colorspace.ITU601 and frame.format.name in _YUV:
        # The encoder's own matrix already: only the range has to be stretched.
        jfif = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.JPEG}
        scaled = _scaler.reformat(frame, width, height, "yuv420p", src_colorspace=matrix, threads=1, **jfif)
        return [_view(plane, 1) for plane in scaled.planes]
    # From one matrix to another the scaler takes four times as long as to BGR (5.7 ms against 0.8 at 1280x720).
    scaled = _scaler.reformat(frame, width, height, "bgr24", src_colorspace=matrix, threads=1)
    return [_view(scaled.planes[0], 3)]


def _colour_matrix(frame: VideoFrame) -> Colorspace | None:
    if frame.colorspace == _UNSPECIFIED:
        return Colorspace.ITU709 if min(frame.width, frame.height) >= _HD_LINES else Colorspace.ITU601
    return _MATRIX.get(frame.colorspace)


def _view(plane: VideoPlane, channels: int) -> Image:
    """A plane's pixels without a copy; its lines are padded, so the view has a stride."""
    lines = np.frombuffer(memoryview(plane), np.uint8)[: plane.line_size * plane.height]
    pixels = lines.reshape(plane.height, plane.line_size)[:, : plane.width * channels]
    return pixels if channels == 1 else pixels.reshape(plane.height, plane.width, channels)


def _resized(image: Image, width: int, height: int) -> Image:
    # Interpolating below half size drops whole lines, averaging by an odd ratio costs ten times as much: halve first.
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * half[0], : 2 * half[1]], half[::-1], interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image)


def _side(length: float) -> int:
    return min(LARGEST, max(SMALLEST, round(length / _BLOCK) * _BLOCK))


def _whole(name: str, value: int, least: int, most: int, unit: str) -> int:
    try:
        number = index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most} ({unit}), not {value!r}.")
    return number
