"""Clips of H.264 and H.265 as byte streams, made by PyAV for tests: each access unit by itself."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np


def access_units(
    count: int,
    *,
    size: tuple[int, int] = (64, 48),
    key_every: int = 10,
    name: str = "libx264",
    b: int = 0,
    more: str = "",
) -> list[tuple[int, bytes]]:
    """The number of each picture and its bytes, in the order of decoding; pictures brighten from one to the next.

    `more` is further options of the encoder, as in ":open-gop=1".
    """
    context = av.CodecContext.create(name, "w")
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.gop_size, context.max_b_frames = key_every, b
    lean = f"bframes={b}:b-adapt=0:scenecut=0:log-level=0{more}"
    context.options = (
        {"preset": "ultrafast", "x265-params": lean}
        if name == "libx265"
        else {"preset": "ultrafast", "x264-params": lean.replace(":log-level=0", "") + ":sliced-threads=0"}
    )
    out = []
    for number in range(count):
        shade = np.full((size[1], size[0], 3), 40 + number * 4 % 160, np.uint8)
        frame = av.VideoFrame.from_ndarray(shade, "bgr24").reformat(format="yuv420p")
        frame.pts = number
        out += context.encode(frame)
    out += context.encode(None)
    return [(packet.pts, bytes(packet)) for packet in out if packet.pts is not None]
