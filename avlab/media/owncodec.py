"""A codec of anyone's own in the place of JPEG's: asked, looked at, and named when it fails. Touches no device."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import numpy as np

from avlab.media.codec import Image
from avlab.parts import Call, Encoded, PartError, called, missing_methods, named, shown
from avlab.wire.jpegsize import MAX_SIDE
from avlab.wire.payloads.jpeg import MAX_SCAN

LONGEST_NAME = 32

METHODS = ("encode", "decode")


class OwnCodec:
    """`part` as a codec: an object or a class with `encode` and `decode`; see `avlab.parts`. A class is made when it is
    first needed.

    What is asked of it may be asked from one thread. PartError, which names it, when it fails or returns nonsense.
    """

    def __init__(self, part: Any, *, call: Call = called) -> None:
        self.said = said(part)
        self._part, self._call = part, call
        self._at: Any = None if isinstance(part, type) else part
        self._full: bool | None = None

    @property
    def full(self) -> bool:
        """Whether it has key frames: `encode(image, quality, *, key, pts)`."""
        if self._full is None:
            self._full = is_full(self._part)
        return self._full

    def reset(self) -> None:
        """What comes next begins anew; harmless for a codec without `reset`."""
        if self._at is not None and self.full and not missing_methods(self._at, ("reset",)):
            self._call(self.said, self._at.reset)

    def encode(self, image: Image, quality: int, *, key: bool, pts: float) -> Encoded:
        """A picture as bytes; `pts` is in seconds."""
        at = self._made()
        if not self.full:
            return Encoded(self._bytes(self._call(self.said, at.encode, image, quality)), True)
        given = self._call(self.said, partial(at.encode, image, quality, key=key, pts=pts))
        if not isinstance(given, tuple) or len(given) != 2:
            raise PartError(
                f"{self.said}: encode() returned {shown(given)}: with key= and pts= it is Encoded(data, key)"
            )
        data, is_key = given
        if key and not is_key:
            raise PartError(f"{self.said}: encode() was asked for a key frame, and made none")
        return Encoded(self._bytes(data), bool(is_key))

    def decode(self, data: bytes) -> Image:
        """The picture, BGR uint8 of (height, width, 3)."""
        image = self._call(self.said, self._made().decode, data)
        of = f"{self.said}: decode() of {len(data):,} bytes"
        if image is None:
            raise PartError(f"{of} returned nothing: is there a return? It must return the picture")
        if not isinstance(image, np.ndarray):
            raise PartError(f"{of} returned {shown(image)}: it must be an array, BGR uint8 of (height, width, 3)")
        right = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        if not right or not all(1 <= side <= MAX_SIDE for side in image.shape[:2]):
            raise PartError(
                f"{of} returned an array of {image.shape}, {image.dtype}: it must be BGR uint8 of (height, width, 3), "
                f"sides of 1 to {MAX_SIDE:,}"
            )
        return np.ascontiguousarray(image)

    def _made(self) -> Any:
        if self._at is None:
            at = self._call(self.said, self._part)
            if missing := missing_methods(at, METHODS):
                raise PartError(f"{self.said} has no method {missing[0]}: it needs encode and decode")
            self._at = at
        return self._at

    def _bytes(self, data: Any) -> bytes:
        if data is None:
            raise PartError(f"{self.said}: encode() returned nothing: is there a return? It must return bytes")
        if not isinstance(data, bytes | bytearray | memoryview) or not 0 < len(data) <= MAX_SCAN:
            raise PartError(
                f"{self.said}: encode() returned {shown(data)}: it must be bytes, from 1 to {MAX_SCAN:,} of them"
            )
        return bytes(data)


def is_full(part: Any) -> bool:
    """Whether a codec, or its class, encodes with key frames."""
    try:
        return {"key", "pts"} <= set(inspect.signature(part.encode).parameters)
    except Exception:  # some functions do not tell
        return False


def said(part: Any) -> str:
    """What a sentence calls a codec."""
    return f"the codec {named(part if isinstance(part, type) else type(part))}"


def codec_name(part: Any) -> str:
    """What a session's description calls a codec: its `name`, or its class's; letters, digits and hyphens."""
    name = getattr(part, "name", None)
    name = name if isinstance(name, str) else named(part if isinstance(part, type) else type(part))
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:LONGEST_NAME] or "own"


def check_codec(part: Any) -> None:
    """TypeError, in a sentence, for what is no codec, nor a class of one."""
    if missing := missing_methods(part, METHODS):
        raise TypeError(f"{said(part)} has no method {missing[0]}: it needs encode and decode")
