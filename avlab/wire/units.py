"""The values that every wire carries, and the one shape that a wire has. Pure: no socket, no clock, no codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NS = 1_000_000_000
"""Nanoseconds in a second."""

JPEG_CODING, OWN_CODING = "jpeg", "own"
"""What a picture's bytes are: a JPEG, or of a codec of anyone's own."""

H264_CODING, H265_CODING = "h264", "h265"
"""The same, of codecs that predict a picture from others: byte streams of an access unit each."""

PREDICTED = frozenset((H264_CODING, H265_CODING))
"""Of these codecs every picture is decoded, in the order in which they were sent."""

Samples = NDArray[np.int16]
"""Sound as int16, shape (sample frames, channels)."""


class WireError(ValueError):
    """A peer's bytes, or a value that is to become bytes, are not what the format allows. The message is a sentence."""


class FrameTooLargeError(WireError):
    """A wire has no room for this frame; a smaller one may pass. The message says what to lower."""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One picture as bytes: a baseline JPEG, unless it says otherwise.

    `index` counts the frames offered by the source from 0; `pts_ns` is the presentation time in nanoseconds from
    the start of the clip (a looped clip's goes on rising). `coding` is what the bytes are, and `key` whether they can
    be decoded without those of pictures before.
    """

    index: int
    pts_ns: int
    data: bytes
    width: int
    height: int
    coding: str = JPEG_CODING
    key: bool = True


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of sound: int16 samples, shape (sample frames, channels), at `rate` sample frames a second."""

    index: int
    pts_ns: int
    samples: Samples
    rate: int
    data: bytes = b""
    """What a codec has made of it; empty where samples are sent as they are."""

    @property
    def duration_ns(self) -> int:
        """How long the chunk sounds, in nanoseconds."""
        return len(self.samples) * NS // self.rate


class Wire(Protocol):
    """What a wire format is: units to packets, packets to units. One object a stream and direction."""

    def pack(self, unit: Any, /) -> list[bytes]:
        """The packets that carry one frame or chunk, in sending order."""

    def feed(self, data: bytes, now_ns: int, /) -> list[Any]:
        """Take one packet that arrived at `now_ns`; return the units it completes, oldest first."""
