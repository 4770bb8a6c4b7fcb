"""What a viewer is still to be sent: the newest picture alone, and half a second of sound. All of it is one loop's.

A picture and a chunk are made into bytes once, for everybody; who reads slowly skips pictures, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from avlab.measure.numbers.attendance import Member, Pulse
from avlab.wire import multipart
from avlab.wire.units import NS, Chunk, EncodedFrame

PICTURE, SOUND = 1, 2
"""The first byte of a message over the WebSocket."""

MESSAGE = struct.Struct("!B7xd")
"""Before a picture or samples: which of the two it is, and its presentation time in seconds."""

MOST_SOUND_NS = NS // 2
"""Of sound that waits for one who looks; of more the oldest is dropped."""

Record: TypeAlias = Callable[[str, int, int, str | None], None]
"""`record(stream, size, time_ns, fate)`: so many bytes left, or did not; see `Recorder.packet`."""


class Unit(NamedTuple):
    """A picture or a chunk of sound, ready to be sent."""

    stream: str
    duration_ns: int
    """Of sound; of a picture 0."""
    message: bytes
    """For the page's WebSocket."""
    part: bytes = b""
    """A picture for a body of parts."""


def picture_of(frame: EncodedFrame) -> Unit:
    """A picture, ready to be sent."""
    message = MESSAGE.pack(PICTURE, frame.pts_ns / NS) + frame.data
    return Unit("video", 0, message, multipart.part(frame.data))


def sound_of(chunk: Chunk) -> Unit:
    """A chunk of sound, ready to be sent: int16, the lower byte first, as all browsers' machines have it."""
    samples = chunk.samples.astype("<i2", copy=False).tobytes()
    return Unit("audio", chunk.duration_ns, MESSAGE.pack(SOUND, chunk.pts_ns / NS) + samples)


class Viewer:
    """One who looks, by the page or by a body of parts (`in_parts`). `number` counts from 1 in order of arrival."""

    def __init__(self, number: int, host: str, *, in_parts: bool, now_ns: int, record: Record) -> None:
        self.number, self.host, self.in_parts, self.since_ns = number, host, in_parts, now_ns
        self.name = ""
        """What whoever looks is called, where the page says it."""
        self.sees, self.hears = True, False
        """What it wants."""
        self.frames = self.skipped = self.sent_bytes = 0
        self.pulse = Pulse()
        self.writing_ns: int | None = None
        """Since when something is on its way to it that the system has not taken."""
        self._record = record
        self._picture: Unit | None = None
        self._sounds: deque[Unit] = deque()
        self._sound_ns = 0
        self._words: str | None = None
        self._over = self._gone = False
        self._something = asyncio.Event()

    @property
    def gone(self) -> bool:
        """Whether nothing can be sent to it any more."""
        return self._gone

    def offer(self, unit: Unit, now_ns: int) -> None:
        """Something is to be sent. What waits and is older gives way."""
        if self._over or not (self.sees if unit.stream == "video" else self.hears):
            return
        if unit.stream == "video":
            if self._picture is not None:
                self.skipped += 1
                self._drop(self._picture, now_ns)
            self._picture = unit
        else:
            self._sounds.append(unit)
            self._sound_ns += unit.duration_ns
            while self._sound_ns > MOST_SOUND_NS and len(self._sounds) > 1:
                self._drop(self._sounds.popleft(), now_ns)
        self._something.set()

    def say(self, words: str) -> None:
        """Words for the page; those that wait give way."""
        self._words = words
        self._something.set()

    def end(self) -> None:
        """The stream is over; what waits is still sent."""
        self._over = True
        self._something.set()

    def leave(self) -> None:
        """Nothing can be sent any more."""
        self._gone = True
        self.end()

    async def next(self, now_ns: Callable[[], int]) -> Unit | str | None:
        """The next thing to be sent, once there is one, sound first; None at the end. `written` is to follow."""
        while not self._gone:
            unit: Unit | str | None = None
            if self._sounds:
                unit = self._sounds.popleft()
                self._sound_ns -= unit.duration_ns
            elif self._words is not None:
                unit, self._words = self._words, None
            elif self._picture is not None:
                unit, self._picture = self._picture, None
            if unit is not None:
                self.writing_ns = now_ns()
                return unit
            if self._over:
                return None
            self._something.clear()
            await self._something.wait()
        return None

    def written(self, unit: Unit | str) -> None:
        """The system has taken it."""
        began_ns, self.writing_ns = self.writing_ns, None
        if isinstance(unit, str):
            return
        size = len(unit.part if self.in_parts else unit.message)
        self.sent_bytes += size
        self.frames += unit.stream == "video"
        self._record(unit.stream, size, began_ns or 0, None)

    def look(self, now_ns: int) -> None:
        """Note how much was sent so far, for rates."""
        if self.pulse.due(now_ns):
            self.pulse.mark(now_ns, self.frames, self.sent_bytes)

    def member(self, now_ns: int, unix_offset_ns: int) -> Member:
        """What is told of it; from any thread."""
        fps, kbps = self.pulse.rates(now_ns)
        return Member(self.number, self.name, self.host, self.since_ns + unix_offset_ns, fps=fps, kbps=kbps)

    def _drop(self, unit: Unit, now_ns: int) -> None:
        self._record(unit.stream, len(unit.part if self.in_parts else unit.message), now_ns, "socket_dropped")
