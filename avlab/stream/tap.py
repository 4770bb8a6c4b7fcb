"""Where pictures leave the client's thread for whoever looks at them: one place, the newest wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from avlab.timing.jitterbuffer import Frame

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Received:
    """A picture as `client.frames()` gives it."""

    jpeg: bytes = field(repr=False)
    pts: float
    """Presentation time in seconds from the start of the clip."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """The picture, decoded now: BGR uint8, shape (height, width, 3)."""
        from avlab.media.codec import decode_jpeg

        return decode_jpeg(self.jpeg)


class Tap:
    """Holds one picture. A slow taker never holds up the stream: what it did not take in time is replaced.

    `replaced` is told of every picture that was, or that came after the tap was closed; with it, the taker owes a
    verdict on each picture it took.
    """

    def __init__(self, replaced: Callable[[Frame], None] | None = None) -> None:
        self.decides = replaced is not None
        self._replaced = replaced
        self._frame: Frame | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> None:
        """Offer a picture, from the client's thread."""
        with self._changed:
            if self._closed:
                missed: Frame | None = frame
            else:
                missed, self._frame = self._frame, frame
                self._changed.notify()
        if missed is not None and self._replaced is not None:
            self._replaced(missed)

    def take(self, timeout: float | None = None) -> Frame | None:
        """The newest picture not taken yet; None after `timeout` seconds without one, or when the tap is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed, timeout)
            frame, self._frame = self._frame, None
            return frame

    def close(self) -> None:
        """No more pictures will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether it was closed; a last picture may still wait."""
        return self._closed
