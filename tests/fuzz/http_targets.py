"""What reads bytes of others over HTTP: a camera's body in parts, where it sends on to, and requests at the gate."""

from __future__ import annotations

import contextlib
import random
from functools import cache

import cv2
import numpy as np

from avlab.stream.http.fetching import HttpPlace, is_http
from avlab.stream.http.gate import Gate
from avlab.stream.joining import let_class_in
from avlab.wire import multipart
from avlab.wire.admission import Admission
from avlab.wire.jpegsize import check_jpeg
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


def _request(data: bytes) -> object:
    """A browser's headers, a line each, in front of a server with a class's code: none of them lets anybody in."""
    rng = random.Random(1)
    admission = Admission({}, draw=rng.randbytes)
    let_class_in(admission, "BCDFGH")
    gate = Gate("0.0.0.0", admission=admission, by_code=True)
    gate.port = 8080
    lines = data.decode("latin-1").split("\n")
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    page, websocket = len(data) % 2 > 0, len(data) % 3 == 0
    place = gate.check_place(headers, local="10.0.0.7", page=page, websocket=websocket)
    token = gate.check_token(headers.get("Token", ""))
    person = gate.check_person(
        "GET", "/", authorization=headers.get("Authorization"), ticket=headers.get("Cookie"), host="10.0.0.9", now_ns=0
    )
    code = gate.check_code(headers.get("Code", ""), host="10.0.0.9", now_ns=0)
    assert token is not None
    assert person is not None
    assert place is None or place.status == 403
    return place is None, person.status, code is None


_REQUESTS = [
    b"Host: 10.0.0.7:8080\nOrigin: http://10.0.0.7:8080\nSec-Fetch-Site: same-origin\nCookie: x\nCode: ZZZZZZ",
    b"Host: [fe80::1]:8080\nReferer: http://[fe80::1]:8080/\nSec-Fetch-Mode: navigate\nSec-Fetch-Dest: document",
    b'Host: laptop.local:8080\nAuthorization: Digest username="class", realm="avlab", nonce="1", uri="/", response="2"',
]


def _place(data: bytes) -> object:
    """An address to play, or one that a camera sends on to."""
    text = data.decode("utf-8", "replace")
    place = HttpPlace.parse(text)
    assert HttpPlace.parse(place.url) == place
    return is_http(text)


HTTP_TARGETS = (
    Target("a request at the http wire's gate", _request, lambda: _REQUESTS, (), (b"Origin: null", b"\nHost: ", b"@")),
    Target(
        "an address of HTTP",
        _place,
        lambda: [b"http://user:p@host:80/a?b#c", b"https://[::1]:8443/x%20y", b"http://host"],
        (ValueError,),
        (b"http://", b"https://[", b"%25eth0]", b"@", b"#", b"\\"),
    ),
    Target(
        "a camera's pictures in parts, cut anywhere",
        _parts,
        _bodies,
        (WireError,),
        (b"--frame", b"--", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"Content-Type: image/jpeg", b"boundary=", b'"'),
    ),
)
