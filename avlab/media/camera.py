"""A camera as a source of pictures: stamped when they are read, lost when nobody asks. Opens devices with cv2.

A microphone may go with it, as one source with one origin of time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import count
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from avlab.media.codec import Picture, check_fps
from avlab.media.microphone import MicrophoneSource
from avlab.media.packets import MediaError
from avlab.wire.units import NS, Chunk

_AWAY_NS = 500_000_000  # no encoder takes so long over a picture: nobody was watching
_KEPT = 5  # pictures that a driver keeps, at most: V4L2 has four buffers in OpenCV
_TRIES = 10  # some drivers give nothing at first, and now and then


class VideoCapture(Protocol):
    """What of `cv2.VideoCapture` a camera is read through; a stand-in has the same methods."""

    def isOpened(self) -> bool: ...  # noqa: N802, D102

    def set(self, prop: int, value: float) -> bool: ...  # noqa: D102

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]: ...  # noqa: D102

    def grab(self) -> bool: ...  # noqa: D102

    def release(self) -> None: ...  # noqa: D102


def open_camera(index: int) -> VideoCapture:
    """The camera of this number, opened by OpenCV."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # that there is no such camera is said by the error, not on standard error
    try:
        capture: VideoCapture = cv2.VideoCapture(index)
    finally:
        cv2.utils.logging.setLogLevel(level)
    return capture


class CameraSource:
    """A camera by its number, from 0; each `pictures()` opens it, and closing that iterator releases it.

    A picture's pts is when it was read, on the clock `now_ns`, counted from `begin`'s moment. Without a `begin` it is
    counted from the first picture, and a pause of more than half a second is taken out. Nobody waits for a camera:
    when pictures are not asked for, they are lost, and the next is a new one. `fps` is asked of the camera, which may
    give another rate. `width` and `height` are None until the first picture is known.

    `microphone` is where the sound comes from, if any: it counts from the same moment. One that is lost on the way is
    told of by `notices`, and the pictures go on. What a camera delays beyond reading is not known to it: `av_offset`
    trims that.

    Tested with a stand-in for the device alone (`opener`), on no real camera.

    Raises ValueError for an index or fps out of range, and from `pictures()` MediaError (a ValueError) when there is
    no such camera or it gives no more pictures.
    """

    live = True
    loop = False
    has_video = True
    duration_ns: int | None = None

    def __init__(
        self,
        index: int,
        *,
        fps: float | None = None,
        microphone: MicrophoneSource | None = None,
        opener: Callable[[int], VideoCapture] | None = None,
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        if index < 0:
            raise ValueError(f"A camera's number is 0 or more, not {index}.")
        if fps is not None:
            check_fps(fps)
        self.index = index
        self.fps: Fraction | None = Fraction(fps or 30.0).limit_denominator(1001)
        self.width: int | None = None
        self.height: int | None = None
        self.microphone = microphone
        self.has_audio = microphone is not None
        self.rate: int | None = microphone.rate if microphone else None
        self.channels: int | None = microphone.channels if microphone else None
        self._origin_ns: int | None = None
        self._asked, self._opener, self._now_ns = fps, opener or open_camera, now_ns

    def begin(self, origin_ns: int) -> None:
        """Let pts 0 be at `origin_ns`, for pictures and sound alike, for the iterators made from now on."""
        self._origin_ns = origin_ns
        if self.microphone is not None:
            self.microphone.begin(origin_ns)

    def pictures(self) -> Iterator[Picture]:
        """The pictures as they come, BGR uint8, until the camera gives no more."""
        gap_ns = round(NS / (self.fps or 30))
        capture = self._opener(self.index)
        try:
            if not capture.isOpened():
                raise MediaError(
                    f"Camera {self.index} cannot be opened: plug one in or try another number, close the programs "
                    "that use it, and allow access to it in the system's privacy settings."
                )
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # where the system has a say, old pictures do not queue up
            if self._asked is not None:
                capture.set(cv2.CAP_PROP_FPS, self._asked)
            origin_ns, last_ns = self._origin_ns, -1
            for index in count():
                image = self._read(capture, index)
                now_ns = self._now_ns()
                if origin_ns is None:
                    origin_ns = now_ns
                pts_ns = max(last_ns + 1, now_ns - origin_ns)
                yield Picture(index, pts_ns, image)
                last_ns = pts_ns
                if self._now_ns() - now_ns > _AWAY_NS:
                    # Nobody watched. What the system kept from then is old. Where nothing else counts from the same
                    # moment, time goes on as if there had been no pause.
                    for _ in range(_KEPT):
                        capture.grab()
                    if self._origin_ns is None:
                        origin_ns = self._now_ns() - pts_ns - gap_ns
        finally:
            capture.release()

    def chunks(self) -> Generator[Chunk]:
        """The microphone's sound; nothing when there is none. It ends, without an error, where the device is lost."""
        if self.microphone is None:
            return
        given = False
        with closing(self.microphone.chunks()) as chunks:
            try:
                for chunk in chunks:
                    yield chunk
                    given = True
            except MediaError as error:
                if not given:
                    raise
                self.microphone.tell(f"the pictures go on without sound: {error}")

    def notices(self) -> list[str]:
        """What there is to report since last asked, as sentences."""
        return self.microphone.notices() if self.microphone else []

    def close(self) -> None:
        """Nothing is held open between iterators; each releases its device when it ends or is closed."""

    def _read(self, capture: VideoCapture, index: int) -> NDArray[np.uint8]:
        for _ in range(_TRIES):
            given, image = capture.read()
            if given and image is not None and image.size:
                self.height, self.width = image.shape[:2]
                return image
        raise MediaError(
            f"Camera {self.index} gives no more pictures after {index}: "
            "it was unplugged, or the system took it away; plug it in again and start anew."
            if index
            else f"Camera {self.index} was opened but gives no picture: close the programs that use it, and allow "
            "access to it in the system's privacy settings."
        )
