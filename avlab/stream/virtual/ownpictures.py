"""Pictures of anyone's own codec and payload format in virtual time: encoded once, then sent as so many bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from avlab.core.arriving import Described
from avlab.media.sources import ClipSource
from avlab.parts import Call, PartError
from avlab.stream.sending.pictures import Pictures
from avlab.stream.virtual import filler
from avlab.wire.payloads.ownpayload import OwnFormat
from avlab.wire.rtp import VIDEO_CLOCK, Packed
from avlab.wire.units import JPEG_CODING, EncodedFrame

MOST_ENCODED = 100
"""Pictures of a clip that a codec is given, at the most: theirs are the sizes of all."""


class _Made(NamedTuple):
    """What a codec made of a picture: how many bytes, and of which kind."""

    size: int
    key: bool
    coding: str


class OwnPictures:
    """What is sent of each frame where `payload` or `codec` is anyone's own.

    `sizes` gives the bytes of JPEGs' scans at a width and quality, as `driver.Settings` has it. A codec is given the
    clip's pictures by `encode`; where quality or width are others than those, its sizes grow as JPEG's do. Both parts
    are asked by `call`; `failed` makes what is told that one has failed, of what is done instead.
    """

    def __init__(
        self,
        *,
        payload: Any,
        codec: Any,
        sizes: Callable[[int, int], Sequence[int]],
        call: Call,
        failed: Callable[[str], Callable[[PartError], None]],
    ) -> None:
        self._pictures = Pictures(
            codec=codec, payload=payload, call=call, failed=lambda error, instead: failed(instead)(error)
        )
        self._payload, self._sizes = payload, sizes
        self._call, self._failed = call, failed
        self._made: list[_Made] = []
        self._at = 0, 0  # width and quality of what was made
        self._packed: dict[tuple[int, bool, str], Packed] = {}  # by what differs, where the format is avlab's

    def encode(self, clip: str | Path, *, width: int, quality: int) -> None:
        """Have the codec encode some of the clip's pictures."""
        source = ClipSource(clip)
        self._at = width, quality
        self._pictures.begin()
        for picture in islice(source.pictures(), MOST_ENCODED):
            frame = self._pictures.encoded(picture, width=width, quality=quality)
            self._made.append(_Made(len(frame.data), frame.key, frame.coding))
        if not self._made:
            raise ValueError(f"the clip {Path(clip).name} has no pictures to encode")

    def described(self, **known: Any) -> Described:
        """The pictures as a client has them described, with what is `known` of any."""
        form = self._pictures.form
        kind = form.payload_type
        if self._payload is not None:
            codec = form.parameters.partition("=")[2]
            failed = self._failed("Pictures that it makes nothing of are incomplete")
            form = OwnFormat(self._payload, codec=codec, call=self._call, failed=failed)
        formats = {kind: form, **self._pictures.further}
        return Described(kind, VIDEO_CLOCK, encoding=form.encoding, pictures=formats, **known)

    def packed(self, index: int, width: int, quality: int, packet_size: int) -> tuple[Packed, int]:
        """A frame's packets, and how many bytes the picture has."""
        made, data = self._filled(index, width, quality)
        frame = EncodedFrame(index, 0, data, 0, 0, coding=made.coding, key=made.key)
        if self._payload is not None:
            return self._pictures.pack(frame, packet_size=packet_size), made.size
        if made not in self._packed:
            if len(self._packed) >= filler.MOST_KEPT:
                self._packed.clear()
            self._packed[made] = self._pictures.pack(frame, packet_size=packet_size)
        return self._packed[made], made.size

    def _filled(self, index: int, width: int, quality: int) -> tuple[_Made, bytes]:
        """What stands for a picture: a JPEG, so far as one is to be recognised, or so many zeros."""
        scans = self._sizes(width, quality)
        scan = scans[index % len(scans)]
        made = self._made[index % len(self._made)] if self._made else None
        if made is None or made.coding == JPEG_CODING:
            data = filler.jpeg(scan, width, quality)
            return _Made(len(data), True, JPEG_CODING), data
        if (width, quality) != self._at:
            before = self._sizes(*self._at)
            made = made._replace(size=max(1, round(made.size * sum(scans) * len(before) / sum(before) / len(scans))))
        return made, bytes(made.size)
