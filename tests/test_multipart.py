"""Pictures in parts: what is written is what the RFC says, and what cameras send instead is read all the same."""

from __future__ import annotations

import email
import email.policy
import random

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.wire import multipart
from avlab.wire.multipart import MAX_HEADERS, MAX_PREAMBLE, BodyPart, MultipartReader, boundary_of, media_type
from avlab.wire.units import WireError


def jpeg_of(seed: int, width: int = 64, height: int = 48) -> bytes:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpeg", image)[1].tobytes()


JPEGS = [jpeg_of(seed) for seed in range(4)]
OURS = multipart.OPENING + b"".join(map(multipart.part, JPEGS)) + multipart.CLOSING


def read(body: bytes, boundary: str | None, *, step: int | None = None, most: int = multipart.MAX_PART) -> list[bytes]:
    """The pictures of a body that comes `step` bytes at a time, the end included."""
    reader, found = MultipartReader(boundary, most=most), list[BodyPart]()
    step = len(body) if step is None else step
    for at in range(0, len(body), step):
        found += reader.feed(body[at : at + step])
    found += reader.end()[0]
    return [one.data for one in found if one.picture]


# ---- what is written


def test_what_is_written_is_read_by_the_standard_library_s_parser() -> None:
    message = email.message_from_bytes(
        f"Content-Type: {multipart.CONTENT_TYPE}\r\n\r\n".encode() + OURS, policy=email.policy.HTTP
    )
    assert not message.defects
    parts = list(message.iter_parts())  # type: ignore[attr-defined]
    assert [part.get_payload(decode=True) for part in parts] == JPEGS
    assert {part.get_content_type() for part in parts} == {"image/jpeg"}
    assert [int(part["Content-Length"]) for part in parts] == [len(jpeg) for jpeg in JPEGS]


def test_a_picture_is_known_to_be_over_before_the_next_one_comes() -> None:
    for boundary in (multipart.BOUNDARY, None):
        reader = MultipartReader(boundary)
        sent = reader.feed(multipart.OPENING)
        for jpeg in JPEGS:
            sent += reader.feed(multipart.part(jpeg))
            assert sent[-1] == BodyPart("image/jpeg", jpeg)
    assert multipart.part(JPEGS[0]).endswith(multipart.OPENING)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100, 1000])
def test_what_is_written_is_read_however_it_is_cut(step: int) -> None:
    assert read(OURS, multipart.BOUNDARY, step=step) == JPEGS
    reader = MultipartReader(multipart.BOUNDARY)
    for at in range(0, len(OURS), step):
        reader.feed(OURS[at : at + step])
    assert reader.over
    assert reader.held == 0
    assert reader.feed(b"what comes after it") == []


# ---- headers


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/x-mixed-replace; boundary=frame", "frame"),
        ("multipart/x-mixed-replace;boundary=--myboundary", "--myboundary"),
        ('multipart/x-mixed-replace; boundary="a b;c"', "a b;c"),
        (r'multipart/x-mixed-replace; Boundary = "a\"b"', 'a"b'),
        ("multipart/x-mixed-replace; charset=x; boundary=frame ; more=1", "frame"),
        ('multipart/x-mixed-replace; boundary="never closed', "never closed"),
        ("multipart/x-mixed-replace", None),
        ("multipart/x-mixed-replace; boundary=", None),
    ],
)
def test_a_boundary_is_read_as_it_is_announced(header: str, boundary: str | None) -> None:
    assert boundary_of(header) == boundary
    assert media_type(header.upper()) == multipart.MEDIA_TYPE


# ---- what cameras send


def camera(
    delimiter: bytes, *, length: int | None = 0, before: bytes = b"", end: bytes = b"\r\n", gap: bytes = b"\r\n"
) -> bytes:
    """A body as a camera has it: `length` is how much its lengths are off by, None for none at all."""
    body = bytearray(before)
    for jpeg in JPEGS:
        told = b"" if length is None else b"Content-Length: %d" % (len(jpeg) + length) + end
        body += delimiter + end + b"Content-Type: image/jpeg" + end + told + end + jpeg + gap
    return bytes(body + delimiter + end)


@pytest.mark.parametrize("step", [1, 5, 1000, 100_000])
@pytest.mark.parametrize(
    ("announced", "body"),
    [
        ("frame", camera(b"--frame")),
        ("frame", camera(b"--frame", length=None)),
        ("--frame", camera(b"--frame")),  # announced with the hyphens that are not part of it
        ("--frame", camera(b"----frame", length=None)),
        ("frame", camera(b"frame")),  # or written without them
        (None, camera(b"--frame", length=None)),
        ("frame", camera(b"--other")),  # another one than was announced
        ("frame", camera(b"--other", length=None)),
        ("frame", camera(b"--frame", end=b"\n", gap=b"\n")),
        ("frame", camera(b"--frame", end=b"\n", gap=b"\n", length=None)),
        ("frame", camera(b"--frame", gap=b"")),  # no line's end between picture and boundary
        ("frame", camera(b"--frame", gap=b"", length=None)),
        ("frame", camera(b"--frame", gap=b"\r\n\r\n\r\n")),
        ("frame", camera(b"--frame", before=b"This is a camera.\r\n-- of the best --\r\n\r\n")),
        ("frame", camera(b"--frame", before=b"\r\n\r\n", length=None)),
        ("frame", camera(b"--frame", length=-20)),
        ("frame", camera(b"--frame", length=30)),
        ("frame", camera(b"--frame", length=500)),
        ("frame", camera(b"--frame  ", length=None)),  # blanks at the end (RFC 2046's transport padding)
        ("frame", b"--frame\r\n\r\n" + b"\r\n--frame\r\n\r\n".join(JPEGS) + b"\r\n--frame--\r\n"),  # no headers
        ("frame", b"--frame\r\n" + b"\r\n--frame\r\n".join(JPEGS) + b"\r\n--frame--"),  # not even an empty line
        (
            "frame",
            b"--frame\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nmotion\r\n" + camera(b"--frame"),
        ),
    ],
)
def test_pictures_of_odd_cameras_are_read_however_they_are_cut(announced: str | None, body: bytes, step: int) -> None:
    assert read(body, announced, step=step) == JPEGS


def test_with_a_length_nothing_is_waited_for_and_without_one_the_next_boundary_is() -> None:
    counted, uncounted = MultipartReader("frame"), MultipartReader("frame")
    head = b"--frame\r\nContent-Type: image/jpeg\r\n"
    assert counted.feed(head + b"Content-Length: %d\r\n\r\n" % len(JPEGS[0]) + JPEGS[0])
    assert not uncounted.feed(head + b"\r\n" + JPEGS[0])
    assert not uncounted.feed(b"\r\n--frame")  # --framework would be none
    assert uncounted.feed(b"\r\n")


def test_a_boundary_s_bytes_within_a_picture_end_nothing() -> None:
    inside = JPEGS[0][:-2] + b"--framework--fram" + JPEGS[0][-2:]
    body = b"--frame\r\n\r\n" + inside + b"\r\n--frame--"
    for step in (1, 9, len(body)):
        assert read(body, "frame", step=step) == [inside]


# ---- what is not read


def read_on(reader: MultipartReader, more: bytes, *, times: int) -> None:
    for _ in range(times):
        reader.feed(more)


@pytest.mark.parametrize("length", [None, 0])
@pytest.mark.parametrize("step", [100, 50_000])
def test_a_part_that_is_too_large_is_passed_over_and_never_kept(length: int | None, step: int) -> None:
    large = jpeg_of(9, 640, 480)
    most = len(large) - 1
    told = b"" if length is None else b"Content-Length: %d\r\n" % len(large)
    body = b"--frame\r\n" + told + b"\r\n" + large + b"\r\n" + camera(b"--frame", length=length)
    reader, found = MultipartReader("frame", most=most), list[BodyPart]()
    for at in range(0, len(body), step):
        found += reader.feed(body[at : at + step])
        assert reader.held <= most + step + 100
    assert [part.data for part in found] == JPEGS
    assert reader.too_large == 1


def test_a_part_that_never_ends_is_never_kept() -> None:
    reader = MultipartReader("frame", most=100_000)
    reader.feed(b"--frame\r\n\r\n")
    for _ in range(1000):
        reader.feed(bytes(10_000))
        assert reader.held <= 110_100
    assert reader.too_large == 1


@pytest.mark.parametrize(
    ("start", "more", "most"),
    [
        (b"", b"nothing of the kind\n", MAX_PREAMBLE),
        (b"", b"x" * 999, MAX_PREAMBLE),
        (b"--frame\r\n", b"X-More: and more\r\n", MAX_HEADERS),
        (b"--frame\r\n", b"x" * 999, MAX_HEADERS),
        (b"--frame\r\nContent-Length: 1\r\n\r\n.\r\n--frame\r\n", b"y" * 999, MAX_HEADERS),
    ],
)
def test_what_is_in_no_parts_is_refused_before_it_fills_the_memory(start: bytes, more: bytes, most: int) -> None:
    reader = MultipartReader("frame")
    reader.feed(start)
    for _ in range(most // len(more) - 2):
        reader.feed(more)
    with pytest.raises(WireError, match="no stream of pictures"):
        read_on(reader, more, times=8)
    assert reader.held <= most + len(more)


def test_a_stream_that_is_cut_short_says_so() -> None:
    whole = camera(b"--frame", length=None)
    reader = MultipartReader("frame")
    assert len(reader.feed(whole[: whole.index(JPEGS[2]) + 100])) == 2
    assert reader.end() == ([], True)
    last = b"--frame\r\n\r\n" + JPEGS[0]  # the last picture is whole, though no boundary follows
    reader = MultipartReader("frame")
    assert reader.feed(last) == []
    assert reader.end() == ([BodyPart("", JPEGS[0])], False)
    reader = MultipartReader("frame")
    assert reader.feed(camera(b"--frame")) != []
    assert reader.end() == ([], False)


@given(st.integers(0, 10**9), st.lists(st.binary(max_size=300), max_size=12))
def test_any_bytes_are_read_or_refused_and_the_cut_makes_no_difference(seed: int, pieces: list[bytes]) -> None:
    rng = random.Random(seed)
    words = [b"--frame", b"\r\n", b"--frame--", b"Content-Length: 40\r\n", b"\r\n\r\n", *JPEGS[:1], b"\xff\xd9"]
    body = b"".join(piece + rng.choice(words) for piece in pieces)

    def outcome(step: int) -> object:
        try:
            return read(body, "frame", step=max(1, step), most=2_000)
        except WireError as error:
            return str(error)

    assert outcome(len(body)) == outcome(1) == outcome(rng.randint(1, 50))
