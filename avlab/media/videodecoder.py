"""H.264 and H.265 to pictures, through PyAV. Touches no device.

What comes is a stranger's: a damaged stream costs pictures and nothing else, and their size is bounded.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import av
from av.codec.context import Flags
from av.error import FFmpegError

from avlab.media.codec import Image, to_array
from avlab.wire.payloads.nal import START
from avlab.wire.units import H264_CODING, H265_CODING

MOST_PIXELS = 4096 * 2304
"""Of a picture: 4K. A decoder keeps up to 17 of them."""

NAMES = {H264_CODING: "h264", H265_CODING: "hevc"}
"""FFmpeg's names for what pictures are coded in."""

CALLED = {H264_CODING: "H.264", H265_CODING: "H.265"}


class DecodedPicture(NamedTuple):
    """A decoded picture: which one (the `stamp` that came with its bytes), BGR uint8, whether it needed no other, and
    whether the decoder had to make up a part of it."""

    stamp: int
    image: Image
    key: bool
    corrupt: bool = False


class DecodeError(ValueError):
    """Bytes that make no picture. The message is a sentence."""


class VideoDecoder:
    """Decodes one stream. `setup` is parameter sets that were told beforehand, as a byte stream.

    ValueError, in a sentence, where this PyAV has no such decoder.
    """

    def __init__(self, coding: str, *, setup: bytes = b"") -> None:
        self.coding = coding
        self._setup = setup if setup.startswith(START) else b""  # else it would be taken for what MP4 has
        self._context = self._opened()

    @property
    def reorders(self) -> int:
        """How many pictures are held back, as they are sent in another order than they are seen."""
        return int(self._context.reorder_depth)

    def decode(self, data: bytes, stamp: int) -> list[DecodedPicture]:
        """Feed the bytes of one picture; the pictures that come out by that, in the order in which they are seen.

        Raises DecodeError. Whatever comes next may be fed all the same.
        """
        packet = av.Packet(data)
        packet.pts = stamp
        try:
            frames = self._context.decode(packet)
        except (FFmpegError, ValueError, MemoryError) as error:
            raise DecodeError(f"{CALLED[self.coding]} of {len(data):,} bytes is damaged ({error})") from error
        return self._seen(frames)

    def drain(self) -> list[DecodedPicture]:
        """The pictures that were held back: nothing more comes."""
        try:
            return self._seen(self._context.decode(None))
        except (FFmpegError, ValueError, MemoryError):
            return []

    def _seen(self, frames: list[av.VideoFrame]) -> list[DecodedPicture]:
        out = []
        for frame in frames:
            if frame.pts is None or frame.width * frame.height > MOST_PIXELS:
                continue
            out.append(DecodedPicture(frame.pts, to_array(frame), bool(frame.key_frame), bool(frame.is_corrupt)))
        return out

    def _opened(self) -> av.VideoCodecContext:
        name = NAMES[self.coding]
        try:
            context = cast(av.VideoCodecContext, av.CodecContext.create(name, "r"))
        except (FFmpegError, ValueError) as error:
            raise ValueError(
                f"this PyAV has no decoder for {CALLED[self.coding]}: 'pip install --force-reinstall av' brings one "
                "that has"
            ) from error
        context.options = {"max_pixels": str(MOST_PIXELS)}
        context.flags |= Flags.output_corrupt
        context.thread_count = 1  # more of them hold pictures back
        if self._setup:
            context.extradata = self._setup
        try:
            context.open()
        except FFmpegError:  # parameter sets that lie; the stream may bring its own
            self._setup = b""
            return self._opened() if context.extradata else context
        return context
