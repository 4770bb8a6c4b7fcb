"""What reads bytes of others over HTTP: a camera's body in parts, and the header that announces them."""

from __future__ import annotations

import contextlib
from functools import cache

import cv2
import numpy as np

from avlab.wire import multipart
from avlab.wire.jpeg import check_jpeg
from avlab.wire.units import WireError

from .running import Target
from .targets import cut

_MOST = 20_000


@cache
def _jpegs() -> list[bytes]:
    noise = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
    return [cv2.imencode(".jpeg", noise, [cv2.IMWRITE_JPEG_QUALITY, q])[1].tobytes() for q in (10, 60)]


def _bodies() -> list[bytes]:
    """Ours, and what other cameras make of it; the first line is what the header announces."""
    counted = b"".join(
        b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg)
        for jpeg in _jpegs()
    )
    uncounted = b"".join(b"--frame\nContent-Type: image/jpeg\n\n%b\n" % jpeg for jpeg in _jpegs())
    ours = multipart.OPENING + b"".join(map(multipart.part, _jpegs())) + multipart.CLOSING
    return [
        multipart.CONTENT_TYPE.encode() + b"\n" + ours,
        b"multipart/x-mixed-replace; boundary=--frame\n" + counted + b"--frame--",
        b'multipart/mixed; boundary="other"\nA camera.\r\n\r\n' + uncounted + b"--frame\n",
        b"multipart/x-mixed-replace\n" + counted + b"--frame\r\nContent-Length: 99999999\r\n\r\n" + counted,
    ]


def _parts(data: bytes) -> object:
    """A body as it comes from a connection: what is held stays bounded, and no part is larger than it may be."""
    header, _, body = data.partition(b"\n")
    reader = multipart.MultipartReader(multipart.boundary_of(header.decode("latin-1")), most=_MOST)
    parts = []
    for piece in cut(body):
        parts += reader.feed(piece)
        assert reader.held <= _MOST + multipart.MAX_PREAMBLE + len(piece) + 100
    more, was_cut = reader.end()
    sizes = []
    for part in parts + more:
        assert len(part.data) <= _MOST + 2
        assert part.data in body
        sizes.append(len(part.data))
        with contextlib.suppress(WireError):
            check_jpeg(part.data)
    return sizes, was_cut, reader.over


HTTP_TARGETS = (
    Target(
        "a camera's pictures in parts, cut anywhere",
        _parts,
        _bodies,
        (WireError,),
        (b"--frame", b"--", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"Content-Type: image/jpeg", b"boundary=", b'"'),
    ),
)
