"""Where pictures that are no JPEG are decoded: on a thread of its own, so that a slow codec holds up nothing else.

The queue is bounded; what a codec cannot keep up with is skipped.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from avlab.media.owncodec import OwnCodec
from avlab.parts import Call, PartEndedError, PartError, called
from avlab.stream.handle import Worker
from avlab.timing.jitterbuffer import Frame

MOST_WAITING = 32
"""Pictures that wait to be decoded: a second of 30 fps."""


FIRST = 10
"""So many pictures at a stream's beginning may fail a codec with key frames: a payload format may not tell those."""


class Decoded(NamedTuple):
    """What became of a picture: its image, BGR uint8 of (height, width, 3), or None and its fate. The frame is the one
    that was to be decoded, perhaps with `damaged` set.
    """

    frame: Frame
    image: Any
    fate: str = "incomplete"


class Decoder(Protocol):
    """What decodes pictures, as the presentation knows it: `put` what is to be decoded, ask what is `done`."""

    def put(self, frame: Frame) -> None:
        """A whole picture is to be decoded."""

    def end(self) -> None:
        """Nothing more will come: what is held back is to be given."""

    def done(self) -> list[Decoded]:
        """What has become of pictures since last asked."""


class Decoding:
    """Decodes pictures by a codec of anyone's own, in the order in which they come.

    It is asked by `call`. What it fails of is incomplete, and `failed` is told, the first time; one that never came
    back is asked no more, and so is one that is `stuck`. `ready` is called, on the decoding thread, when a picture has
    been decoded.

    A picture that needs those before it is left out until one has come that does not, at the beginning and after one
    that could not be decoded.
    """

    def __init__(
        self,
        codec: Any,
        *,
        call: Call = called,
        failed: Callable[[PartError], None],
        stuck: Callable[[], bool] = lambda: False,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._codec = OwnCodec(codec, call=call)
        self._failed, self._stuck, self._ready = failed, stuck, ready
        self._changed = threading.Condition()
        self._waiting: deque[Frame] = deque()
        self._under_way: Frame | None = None
        self._done: deque[Decoded] = deque()
        self._ended = self._broken = self._told = False
        self._keyed = False
        self._count = 0  # how many were decoded, or failed, before the first was

    # ---- from the client's thread

    def put(self, frame: Frame) -> None:
        """A whole picture is to be decoded. Of those that wait too many, the oldest is skipped."""
        with self._changed:
            if self._broken or self._ended:
                self._done.append(Decoded(frame, None))
                return
            self._waiting.append(frame)
            if len(self._waiting) > MOST_WAITING:
                self._done.append(Decoded(self._waiting.popleft(), None, "skipped"))
                self._keyed = self._keyed and not self._codec.full
            self._changed.notify()

    def end(self) -> None:
        """See `Decoder`: it gives each picture at once."""

    def renew(self) -> None:
        """What is `put` from here on is of another stream, and needs nothing that came before."""
        with self._changed:
            self._keyed = self._keyed and not self._codec.full

    def done(self) -> list[Decoded]:
        """What has become of pictures since last asked."""
        with self._changed:
            if self._stuck() and not self._broken:
                self._broken = True
                under_way = () if self._under_way is None else (self._under_way,)
                self._done += [Decoded(frame, None) for frame in (*under_way, *self._waiting)]
                self._waiting.clear()
                self._under_way = None
            out = list(self._done)
            self._done.clear()
        return out

    # ---- the decoding thread

    def run(self, worker: Worker) -> None:
        """The thread's body."""
        while not worker.stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                frame = self._under_way = self._waiting.popleft()
            decoded = self._decoded(frame)
            with self._changed:
                if self._under_way is frame:  # else it has been given up
                    self._done.append(decoded)
                self._under_way = None
            self._ready()

    def wake(self) -> None:
        """Let the thread look up, when it is to stop."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    @property
    def _joins(self) -> bool:
        """Whether failures are to be expected: what came first may need pictures from before that."""
        return self._codec.full and self._count < FIRST

    def _decoded(self, frame: Frame) -> Decoded:
        if self._broken or frame.data is None or not (frame.key or self._keyed):
            return Decoded(frame, None)
        try:
            image = self._codec.decode(frame.data)
        except PartError as error:
            self._keyed = False
            self._broken = self._broken or isinstance(error, PartEndedError)
            self._count += 1
            if not self._told and (self._broken or not self._joins):
                self._told = True
                self._failed(error)
            return Decoded(frame, None)
        self._keyed, self._count = True, FIRST
        return Decoded(frame, image)
