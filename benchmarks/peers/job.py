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

_READY, _SENT = 0, 1
_HANDED = 8
_SEEN = _HANDED + painted.NUMBERS
_MOST = 1 << 15  # pictures that one receiver may write down


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done. `fps` 0 is flat out; `option` is one of the system's own ways."""

    width: int
    height: int
    folder: str
    port: int
    """The first of a hundred UDP and TCP ports on loopback that are free."""
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
                file.truncate(8 * (_SEEN + receivers * (1 + 2 * _MOST)))
        with path.open("r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    # ---- for the sender

    def ready(self) -> None:
        """Whoever waits for this side may begin."""
        self._cells[_READY] = 1

    def wait_ready(self, seconds: float = 20.0) -> None:
        """Wait for `ready`; TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self._cells[_READY]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the other side was not ready within {seconds:g} s")
            time.sleep(0.01)

    def handed(self, number: int) -> None:
        """This picture goes to the system's send call now."""
        self._cells[_HANDED + number] = time.monotonic_ns()
        self._cells[_SENT] = number + 1

    # ---- for a receiver

    def seen(self, receiver: int, number: int, now_ns: int) -> None:
        """This picture was decoded at `now_ns`."""
        start = _SEEN + receiver * (1 + 2 * _MOST)
        count = self._cells[start]
        if count < _MOST:
            at = start + 1 + 2 * count
            self._cells[at], self._cells[at + 1] = number, now_ns
            self._cells[start] = count + 1

    # ---- for whoever measures

    @property
    def sent(self) -> int:
        """How many pictures have been handed over."""
        return self._cells[_SENT]

    def handed_ns(self, number: int) -> int:
        """When this picture was handed over."""
        return self._cells[_HANDED + number]

    def count(self, receiver: int) -> int:
        """How many pictures this receiver has decoded."""
        return self._cells[_SEEN + receiver * (1 + 2 * _MOST)]

    def pictures(self, receiver: int) -> list[tuple[int, int]]:
        """(number, moment in ns) of each picture that this receiver has decoded, in that order."""
        start = _SEEN + receiver * (1 + 2 * _MOST) + 1
        cells = self._cells[start : start + 2 * self.count(receiver)].tolist()
        return list(zip(cells[::2], cells[1::2], strict=True))


class Desk:
    """What a system's `send` and `receive` work with: the job, its pictures, and the board."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.board = Board(job.folder)
        with (Path(job.folder) / "reel").open("r+b") as file:
            self._reel = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def pictures(self) -> Iterator[memoryview]:
        """The pictures, numbered, as their bytes; each is handed over as it is given, at its time if the job has one.

        A picture's bytes are used again fifteen pictures later.
        """
        job, size = self.job, self.job.picture_bytes
        start_ns = time.monotonic_ns()
        for number in range(painted.NUMBERS):
            at = number % PICTURES * size
            if job.fps and not job.paces:
                wait_ns = start_ns + round(number * 1e9 / job.fps) - time.monotonic_ns()
                time.sleep(max(0, wait_ns) / 1e9)
            picture = self._reel[at : at + size]
            painted.paint(picture, job.width, job.height, job.depth, number)
            self.board.handed(number)
            yield picture

    def arrays(self) -> Iterator[Any]:
        """The same as BGR arrays of shape (height, width, 3)."""
        import numpy as np

        shape = self.job.height, self.job.width, 3
        return (np.frombuffer(picture, np.uint8).reshape(shape) for picture in self.pictures())

    def decoded(self, receiver: int, image: Any, depth: int = 3) -> None:
        """A picture is decoded: `image` is bytes or a contiguous array, `depth` bytes a pixel."""
        now_ns = time.monotonic_ns()
        pixels = memoryview(image)
        pixels = pixels if pixels.ndim == 1 else pixels.cast("B")
        number = painted.read(pixels, self.job.width, self.job.height, depth)
        if number is not None:
            self.board.seen(receiver, number, now_ns)
