"""Where pictures leave the client's thread for whoever looks at them: few places, the newest win."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from avlab.timing.demand import Demand, Taken
from avlab.timing.jitterbuffer import Frame
from avlab.timing.verdicts import PictureVerdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AHEAD = 64
"""How many pictures wait in a tap that gets them ahead of their time: two seconds of 30 fps."""


@dataclass(frozen=True, slots=True)
class Received:
    """A picture as `client.frames()` gives it."""

    data: bytes = field(repr=False)
    """As it came: a JPEG, unless a codec of one's own made it."""
    pts: float
    """Presentation time in seconds from the start of the clip."""
    decoded: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """What a codec of one's own has decoded; None where `data` is a JPEG."""
    captured: float | None = None
    """When it was captured by the sender's clock, in seconds since 1970 as `time.time()` has them: its RTP timestamp,
    laid against the sender's reports (RFC 3550 6.4.1). None before the first report has come, from a sender without a
    wall clock (NTP time 0, or one that counts from its own start), and on the classic wire."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """The picture: BGR uint8, shape (height, width, 3). A JPEG is decoded now."""
        return image_of(self.data, self.decoded)

    @property
    def jpeg(self) -> bytes:
        """The picture as a JPEG: as it came, or made now of what a codec of one's own has decoded."""
        return jpeg_of(self.data, self.decoded)


def image_of(data: bytes, decoded: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """A whole picture as BGR uint8, shape (height, width, 3). ValueError when it is damaged."""
    from avlab.media.codec import decode_jpeg

    return decode_jpeg(data) if decoded is None else decoded.copy()  # others have it, too


def jpeg_of(data: bytes, decoded: NDArray[np.uint8] | None) -> bytes:
    """A whole picture as a JPEG."""
    from avlab.media.codec import encode_jpeg

    return data if decoded is None else encode_jpeg(decoded, quality=90)[0]


class Tap:
    """Holds one picture, or the newest `waiting`. A slow taker never holds up the stream: the oldest are replaced.

    With `told`, the taker may decide: while `decides` is set it owes a verdict on each picture, and of several such
    takers the first one's counts. While `ahead` is set, pictures come as soon as they are complete, each with the
    moment at which it is due; for a taker that decides, up to `AHEAD` of them wait.
    """

    def __init__(
        self,
        told: Callable[[Tap, PictureVerdict], None] | None = None,
        *,
        decides: bool = False,
        waiting: int = 1,
        ahead: bool = False,
    ) -> None:
        self.decides = decides and told is not None
        self.ahead = ahead
        self.resigned_shown = False
        """What becomes of the verdicts still owed when `decides` is taken back: shown when released, or skipped."""
        self._told = told
        # Whoever waits at it is woken by the system alone, and not by Python: this is on the way of each picture.
        self._frames: queue.SimpleQueue[tuple[Frame, int | None] | None] = queue.SimpleQueue()  # None: it was closed
        self._waiting = waiting
        self._closed = False
        self._closing = threading.Lock()
        self._offered = self._missed = 0
        self._least = waiting  # waited when one of them came
        self.demand = Demand()  # asked and told by the client's thread

    def put(self, frame: Frame, due_ns: int | None = None) -> None:
        """Offer a picture, from the client's thread; `due_ns` is when it is to be seen, None for now."""
        missed: Sequence[Frame] = ()
        with self._closing:
            if self._closed:
                missed = (frame,)
            else:
                most = AHEAD if self.ahead and self.decides else self._waiting
                waiting = self._frames.qsize()
                if waiting < self._least:
                    self._least = waiting
                self._offered += 1
                if waiting >= most:
                    missed = self._oldest_but(most - 1)
                    self._missed += len(missed)
                self._frames.put((frame, due_ns))
        for each in missed:
            self.skipped(each)

    def _oldest_but(self, kept: int) -> list[Frame]:
        """Those that wait are taken away, the oldest first, until so many are left."""
        out = []
        with contextlib.suppress(queue.Empty):  # somebody else has taken the last
            while self._frames.qsize() > kept and (oldest := self._frames.get_nowait()) is not None:
                out.append(oldest[0])
        return out

    def take(self, timeout: float | None = None) -> Frame | None:
        """The next picture not taken yet; None after `timeout` seconds without one, or when the tap is closed."""
        taken = self.take_due(timeout)
        return taken[0] if taken is not None else None

    def take_due(self, timeout: float | None = None) -> tuple[Frame, int | None] | None:
        """As `take`, and when the picture is due: None for now."""
        try:
            taken = self._frames.get(timeout=timeout)
        except queue.Empty:
            return None
        if taken is None:
            self._frames.put(None)  # for whoever asks next
        return taken

    def presented(self, frame: Frame, now_ns: int, heard_ns: int | None = None) -> None:
        """The taker's verdict: the picture was seen at `now_ns`, when `heard_ns` of media time was heard."""
        if self._told is not None:
            self._told(self, PictureVerdict(frame, now_ns, heard_ns))

    def skipped(self, frame: Frame) -> None:
        """The taker's verdict: the picture was not seen."""
        if self._told is not None:
            self._told(self, PictureVerdict(frame, None))

    def resign(self, *, shown: bool) -> None:
        """Decide no more. What is still owed counts as `shown` when playout released it, or as skipped."""
        self.resigned_shown = shown
        self.decides = False

    def close(self) -> None:
        """No more pictures will come."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._frames.put(None)

    @property
    def takes_all(self) -> bool:
        """Whether its taker is to miss none, as far as it keeps up: several wait for it."""
        return self._waiting > 1 and not self.decides

    def taken(self) -> Taken:
        """What became of the pictures since this was last asked for; on the client's thread."""
        found = Taken(self._offered, self._missed, self.held, self._least)
        self._offered = self._missed = 0
        self._least = self._waiting
        return found

    @property
    def held(self) -> int:
        """How many pictures wait to be taken."""
        return self._frames.qsize() - self._closed

    @property
    def closed(self) -> bool:
        """Whether it was closed; a last picture may still wait."""
        return self._closed
