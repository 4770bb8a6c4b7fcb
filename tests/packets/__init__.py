"""Datagrams that other programs sent, each file a list of them with a 16-bit length before each.

ffmpeg_*: FFmpeg 5.1, testsrc as RTP/JPEG (Q 255, Huffman tables default) and a sine as L16; gstreamer_jpeg: GStreamer
1.22, videotestsrc through jpegenc and rtpjpegpay. *_rtcp: the first datagram of the control port.
"""

from __future__ import annotations

from pathlib import Path


def stored(name: str) -> list[bytes]:
    """The datagrams of one file."""
    data = (Path(__file__).parent / f"{name}.bin").read_bytes()
    datagrams = []
    while data:
        end = 2 + int.from_bytes(data[:2], "big")
        datagrams.append(data[2:end])
        data = data[end:]
    return datagrams
