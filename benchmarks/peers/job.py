"""One measurement as its processes see it: what to send, how fast, and the board on which all write down what happened.

Needs nothing but Python, as `painted`. Moments are `time.monotonic_ns`, one clock for all processes of a machine.
"""

from __future__ import annotations

import json
import mmap
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import painted

PICTURES = 16
"""Different pictures in a reel: more than any system has in hand at once, as numbers are painted in place."""

_READY, _SENT, _PHASE, _OFFLOAD, _FROM = range(5)
_HANDED = 8
_SEEN = _HANDED + painted.NUMBERS
_MOST = 1 << 15  # pictures that one receiver may write down
_BLOCK = 2 + 2 * _MOST  # a receiver's cells: ready, count, then number and moment of each picture

OFFLOADS = ("", "off", "on", "for some of the time", "not available")
"""What a sender may say of segmentation offload: nothing, or how its packets left while it was measured."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done. `fps` 0 is flat out; `option` is one of the system's own ways."""

    width: int
    height: int
    folder: str
    port: int
    """The first of 99 UDP and TCP ports on loopback that are free."""
    option: str = ""
    quality: int = 80
    fps: float = 0.0
    paces: bool = False
    """The pictures are all there at once and the system keeps the time; else the source hands each over when due."""
    receivers: int = 1
    depth: int = 3
    """Bytes a pixel of the reel's pictures: BGR (3), or I420, whose luminance is one byte a pixel (1)."""

    def serialize(self) -> str:
        """As text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Job:
        """What `serialize` made."""
        return cls(**json.loads(text))

    @property
    def picture_bytes(self) -> int:
        """Bytes of one picture."""
        pixels = self.width * self.height
        return 3 * pixels if self.depth == 3 else 3 * pixels // 2


class Board:
    """What happened, in a file that all processes of a run have mapped: 64-bit cells, each written by one of them."""

    def __init__(self, folder: str | Path, *, receivers: int = 1, create: bool = False) -> None:
        path = Path(folder) / "board"
        if create:
            with path.open("wb") as file:
                file.truncate(8 * (_SEEN + receivers * _BLOCK))
        with path.open("r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        self._receivers = receivers

    # ---- for both sides

    def ready(self, receiver: int | None = None) -> None:
        """Whoever waits for this receiver, or for the sender if None, may begin."""
        self._cells[_READY if receiver is None else _SEEN + receiver * _BLOCK] = 1

    def wait_sender(self, seconds: float = 30.0) -> None:
        """Wait until the sender is ready; TimeoutError."""
        self._wait([_READY], seconds)

    def wait_receivers(self, seconds: float = 30.0) -> None:
        """Wait until every receiver is ready; TimeoutError."""
        self._wait([_SEEN + receiver * _BLOCK for receiver in range(self._receivers)], seconds)

    def _wait(self, cells: list[int], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not all(self._cells[cell] for cell in cells):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the other side was not ready within {seconds:g} s")
            time.sleep(0.01)

    # ---- for the sender

    def handed(self, number: int) -> None:
        """This picture goes to the system's send call now."""
        self._cells[_HANDED + number] = time.monotonic_ns()
        self._cells[_SENT] = number + 1

    def wait_measured(self) -> int:
        """Wait until all is measured; the moment in ns from which on it was."""
        while self._cells[_PHASE] < 2:
            time.sleep(0.05)
        return self._cells[_FROM]

    def tell_offload(self, used: str) -> None:
        """How packets left while it was measured: one of `OFFLOADS`."""
        self._cells[_OFFLOAD] = OFFLOADS.index(used) + 1

    # ---- for a receiver

    def seen(self, receiver: int, number: int, now_ns: int) -> None:
        """This picture was decoded, and was the receiver's own, at `now_ns`."""
        start = _SEEN + receiver * _BLOCK + 1
        count = self._cells[start]
        if count < _MOST:
            at = start + 1 + 2 * count
            self._cells[at], self._cells[at + 1] = number, now_ns
            self._cells[start] = count + 1

    # ---- for whoever measures

    def begin(self, now_ns: int) -> None:
        """What is measured begins."""
        self._cells[_FROM] = now_ns
        self._cells[_PHASE] = 1

    def finish(self) -> None:
        """All is measured: a sender that has something to say of it does so now."""
        self._cells[_PHASE] = 2

    @property
    def offload(self) -> str | None:
        """What the sender told; None before."""
        told = self._cells[_OFFLOAD]
        return OFFLOADS[told - 1] if told else None

    @property
    def sent(self) -> int:
        """How many pictures have been handed over."""
        return self._cells[_SENT]

    def handed_ns(self, number: int) -> int:
        """When this picture was handed over."""
        return self._cells[_HANDED + number]

    def count(self, receiver: int) -> int:
        """How many pictures this receiver has decoded."""
        return self._cells[_SEEN + receiver * _BLOCK + 1]

    def pictures(self, receiver: int) -> list[tuple[int, int]]:
        """(number, moment in ns) of each picture that this receiver has decoded, in that order."""
        start = _SEEN + receiver * _BLOCK + 2
        cells = self._cells[start : start + 2 * self.count(receiver)].tolist()
        return list(zip(cells[::2], cells[1::2], strict=True))


class Desk:
    """What a system's `send` and `receive` work with: the job, its pictures, and the board.

    `receiver` is which one this process is, from 0; the sender has none.
    """

    def __init__(self, job: Job, receiver: int = 0) -> None:
        self.job, self.receiver = job, receiver
        self.board = Board(job.folder, receivers=job.receivers)
        self._own = memoryview(bytearray(job.picture_bytes))
        with (Path(job.folder) / "reel").open("r+b") as file:
            self._reel = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def pictures(self, *, together: bool = False) -> Iterator[memoryview]:
        """The pictures, numbered, as their bytes; each is handed over as it is given, at its time if the job has one.

        With `together`, time begins when every receiver is ready, and only the first picture is to be had before:
        a system that wants to know how large they are would else be behind its source when the last receiver comes.
        A picture's bytes are used again fifteen pictures later.
        """
        job, size = self.job, self.job.picture_bytes
        start_ns = time.monotonic_ns()
        for number in range(painted.NUMBERS):
            if together and number == 1:
                self.board.wait_receivers()
                start_ns = time.monotonic_ns()
            at = number % PICTURES * size
            if job.fps and not job.paces:
                wait_ns = start_ns + round(number * 1e9 / job.fps) - time.monotonic_ns()
                time.sleep(max(0, wait_ns) / 1e9)
            picture = self._reel[at : at + size]
            painted.paint(picture, job.width, job.height, job.depth, number)
            self.board.handed(number)
            yield picture

    def arrays(self, *, together: bool = False) -> Iterator[Any]:
        """The same as BGR arrays of shape (height, width, 3)."""
        import numpy as np

        shape = self.job.height, self.job.width, 3
        return (np.frombuffer(picture, np.uint8).reshape(shape) for picture in self.pictures(together=together))

    def decoded(self, image: Any, depth: int = 3, *, own: bool = False) -> None:
        """A picture is decoded: `image` is bytes or a contiguous array, `depth` bytes a pixel.

        It is copied, as whoever keeps or changes a picture has to; with `own` it is the receiver's own already.
        """
        pixels = memoryview(image)
        pixels = pixels if pixels.ndim == 1 else pixels.cast("B")
        if not own:
            copy = self._own[: len(pixels)]
            copy[:] = pixels
            pixels = copy
        now_ns = time.monotonic_ns()
        number = painted.read(pixels, self.job.width, self.job.height, depth)
        if number is not None:
            self.board.seen(self.receiver, number, now_ns)
