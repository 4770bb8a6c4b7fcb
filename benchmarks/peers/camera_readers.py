"""Who reads a camera, each as its own documentation has it: a loop over arrays, which works `option` seconds on each.

A picture counts as read when it is an array of the reader's own.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.peers.job import Desk


def _take(desk: Desk, image: Any) -> None:
    desk.decoded(image, own=True)
    time.sleep(float(desk.job.option or 0))


def _url(desk: Desk) -> str:
    desk.board.wait_sender()
    return f"rtsp://127.0.0.1:{desk.job.port}/live"


def avlab(desk: Desk) -> None:
    """`Client.frames`."""
    import avlab

    for frame in avlab.Client(_url(desk)).frames():
        _take(desk, frame.image)


def opencv(desk: Desk) -> None:
    """`cv2.VideoCapture`."""
    import cv2

    capture = cv2.VideoCapture(_url(desk), cv2.CAP_FFMPEG)
    while True:
        there, image = capture.read()
        if not there:
            raise EOFError("there are no more pictures")
        _take(desk, image)


def pyav(desk: Desk) -> None:
    """`av.open`."""
    import av

    with av.open(_url(desk)) as container:
        for frame in container.decode(video=0):
            _take(desk, frame.to_ndarray(format="bgr24"))


def pyav_tcp(desk: Desk) -> None:
    """`av.open`, over TCP, as OpenCV has it."""
    import av

    with av.open(_url(desk), options={"rtsp_transport": "tcp"}) as container:
        for frame in container.decode(video=0):
            _take(desk, frame.to_ndarray(format="bgr24"))
