"""Pictures to H.264, through PyAV and libx264: no picture waits for a later one. Touches no device."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import av
from av.error import FFmpegError
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from avlab.media.codec import Image, Matrix, fit, to_bgr
from avlab.wire.rtp import VIDEO_CLOCK
from avlab.wire.units import NS

BIT_RATES = (50, 50_000)
"""Kilobits a second, least and most."""

KEY_INTERVALS = (0.1, 60.0)
"""Seconds from one key frame to the next, least and most."""

USUAL_QUALITY = 80
"""At this quality and above the bit rate is what was asked for; below it is less in proportion."""

_SMPTE170M = 6  # FFmpeg's number for the colour matrix of BT.601


class Coded(NamedTuple):
    """A picture as bytes, whether it needs no other, and its size."""

    data: bytes
    key: bool
    width: int
    height: int


def check_bit_rate(kbps: int) -> int:
    """A bit rate in kilobits a second, if it is a whole number from 50 to 50,000; else ValueError."""
    if isinstance(kbps, bool) or not isinstance(kbps, int) or not BIT_RATES[0] <= kbps <= BIT_RATES[1]:
        raise ValueError(f"bit_rate must be a whole number from 50 to 50,000 kilobits a second, not {kbps!r}")
    return kbps


def check_key_interval(seconds: float) -> float:
    """Seconds from one key frame to the next, if they are from 0.1 to 60; else ValueError."""
    least, most = KEY_INTERVALS
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not least <= seconds <= most:
        raise ValueError(f"key_interval must be {least:g} to {most:g} seconds, not {seconds!r}")
    return float(seconds)


class H264Encoder:
    """Encodes one stream, for one thread. `bit_rate` (kilobits a second) may be set at any time.

    ValueError, in a sentence, where this PyAV has no libx264.
    """

    def __init__(self, *, bit_rate: int) -> None:
        self.bit_rate = bit_rate
        self._context: av.VideoCodecContext | None = None
        self._kind: tuple[int, int, int] | None = None  # width, height and colour matrix that it is open for
        self._scale = VideoReformatter().reformat
        self._pts = -1
        try:
            av.Codec("libx264", "w")
        except (FFmpegError, ValueError) as error:
            raise ValueError(
                "this PyAV has no libx264 to make H.264 with: 'pip install --force-reinstall av' brings one that has"
            ) from error

    def reset(self) -> None:
        """The next picture is the first of a stream."""
        self._context = None

    def encode(
        self,
        image: VideoFrame | Image,
        *,
        width: int | None,
        matrix: Matrix | None,
        key: bool,
        quality: int,
        pts_ns: int,
    ) -> Coded:
        """A picture scaled to `width` pixels (None: its own), as `codec.fit` says; with `key`, one that needs no other.

        A picture of another size or colour matrix than the one before is such a one, too.
        """
        frame = self._prepared(image, width, matrix)
        kind = frame.width, frame.height, int(frame.colorspace)
        kbps = max(BIT_RATES[0], round(self.bit_rate * min(1.0, quality / USUAL_QUALITY)))
        if self._context is None or kind != self._kind:
            self._context, self._kind, self._pts = self._opened(*kind, kbps), kind, -1
        context = self._context
        if context.bit_rate != kbps * 1000:  # libx264 follows it from one picture to the next
            context.bit_rate = kbps * 1000
        frame.pts = self._pts = max(self._pts + 1, pts_ns * VIDEO_CLOCK // NS)
        frame.time_base = context.time_base
        frame.pict_type = PictureType.I if key else PictureType.NONE
        packets = context.encode(frame)
        data = b"".join(bytes(packet) for packet in packets)
        return Coded(data, any(packet.is_keyframe for packet in packets), frame.width, frame.height)

    def _prepared(self, image: VideoFrame | Image, width: int | None, matrix: Matrix | None) -> VideoFrame:
        """The picture at its size, as YUV 4:2:0 of limited range, in the clip's own colour matrix."""
        if not isinstance(image, VideoFrame) or matrix is not None:
            upright = VideoFrame.from_ndarray(to_bgr(image, width=width, matrix=matrix), format="bgr24")
            made = self._scale(upright, format="yuv420p", dst_colorspace=Colorspace.ITU601, threads=1)
            made.colorspace = _SMPTE170M
            return made
        to_width, to_height = fit(image.width, image.height, width)
        made = self._scale(image, to_width, to_height, "yuv420p", dst_color_range=ColorRange.MPEG, threads=1)
        if made is image:  # nothing to scale: what is set below is not to be the clip's
            made = VideoFrame.from_ndarray(image.to_ndarray(), format="yuv420p")
        made.colorspace = image.colorspace
        return made

    @staticmethod
    def _opened(width: int, height: int, colour_matrix: int, kbps: int) -> av.VideoCodecContext:
        context = av.CodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.framerate = Fraction(1, VIDEO_CLOCK), Fraction(30)  # it goes by the times
        context.bit_rate = kbps * 1000
        context.gop_size = 1 << 16  # key frames are asked for
        context.colorspace = colour_matrix
        context.thread_count = 1
        # A key frame is to end what was before (forced-idr), and may be as long as half a second's bits at the most.
        context.options = {
            "preset": "veryfast",
            "tune": "zerolatency",
            "profile": "baseline",
            "forced-idr": "1",
            "maxrate": str(kbps * 1000),
            "bufsize": str(kbps * 500),
            "x264-params": "scenecut=0:repeat-headers=1",
        }
        context.open()
        return context
