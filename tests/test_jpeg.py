"""Pictures from elsewhere that cost more than they are worth: refused before they are decoded, wherever they are."""

from __future__ import annotations

import base64
import struct
import time
from contextlib import suppress

import cv2
import numpy as np
import pytest
import simplejpeg
from hostile_jpeg import EOI, SOI, frame_header, progressive, segment
from hypothesis import given, settings
from hypothesis import strategies as st

from avlab.media import codec
from avlab.media.codec import decode_jpeg, encode_jpeg
from avlab.stream.playing.tap import Received
from avlab.wire.classic import ClassicVideo
from avlab.wire.jpegsize import MAX_SCANS, MAX_SIDE, check_jpeg
from avlab.wire.units import WireError

IMAGE = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
PLAIN = encode_jpeg(IMAGE)[0]


def encoded(*settings: int) -> bytes:
    return cv2.imencode(".jpg", IMAGE, list(settings))[1].tobytes()


@pytest.mark.parametrize(
    "jpeg",
    [
        PLAIN,
        encoded(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
        encoded(cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        cv2.imencode(".jpg", IMAGE[:, :, 0], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
        SOI + segment(0xE1, b"Exif\0\0" + PLAIN) + PLAIN[2:],  # a thumbnail in its header
        SOI + b"\xff\xff\xff" + PLAIN[2:],  # fill bytes
    ],
    ids=["baseline", "progressive", "restarts", "optimised", "grey", "thumbnail", "fill"],
)
def test_what_encoders_make_is_shown(jpeg: bytes) -> None:
    assert check_jpeg(jpeg) == (64, 48)
    assert decode_jpeg(jpeg).shape == (48, 64, 3)
    assert [frame.jpeg for frame in ClassicVideo().feed(base64.b64encode(jpeg), 0)] == [jpeg]


@pytest.mark.parametrize("scans", [0, 1, 12, MAX_SCANS - 1])
def test_several_passes_are_right(scans: int) -> None:
    jpeg = progressive(64, 48, scans)
    assert (decode_jpeg(jpeg) == 128).all()


@pytest.mark.parametrize("scans", [MAX_SCANS, 100, 882])
def test_a_picture_in_countless_passes_is_not_decoded(scans: int) -> None:
    """The last of them takes a decoder two seconds, and fits one datagram."""
    jpeg = progressive(4096, 2048 if scans == 882 else 64, scans)
    before = time.process_time()
    for refused in (lambda: decode_jpeg(jpeg), lambda: Received(jpeg, 0.0).image):
        with pytest.raises(ValueError, match=rf"no whole JPEG \(this JPEG has {scans + 1} scans"):
            refused()
    with pytest.raises(WireError, match="no picture of the classic wire: this JPEG has"):
        ClassicVideo().feed(base64.b64encode(jpeg), 0)
    assert time.process_time() - before < 1


@pytest.mark.parametrize("kind", [0xC0, 0xC1, 0xC2])
@pytest.mark.parametrize("planes", [1, 2, 3])
def test_scans_of_some_planes_each_are_counted_whatever_the_coding(kind: int, planes: int) -> None:
    """A decoder goes on with the next scan where the first has not all planes, or each has some of the bits."""
    start = SOI + frame_header(64, 48, kind=kind, colours=3)
    scan = segment(0xDA, bytes((planes,)) + b"".join(bytes((n + 1, 0)) for n in range(planes)) + b"\0\x3f\0") + b"\0"
    assert check_jpeg(start + MAX_SCANS * scan) == (64, 48)
    many = start + (MAX_SCANS + 1) * scan + EOI
    if planes == 3 and kind != 0xC2:  # all that comes after the first is passed over
        assert check_jpeg(many) == (64, 48)
        return
    with pytest.raises(WireError, match=f"this JPEG has {MAX_SCANS + 1} scans"):
        check_jpeg(many)


def test_scans_after_a_picture_in_one_pass_are_not_decoded() -> None:
    """Two thousand of them would take a decoder a second, and are refused at the second one."""
    jpeg = encode_jpeg(np.resize(IMAGE, (1536, 2048, 3)))[0]
    again = jpeg[:-2] + 2_000 * jpeg[jpeg.index(b"\xff\xda") :][:2_000] + EOI
    before = time.process_time()
    with pytest.raises(ValueError, match="no whole JPEG"):
        decode_jpeg(again)
    assert time.process_time() - before < 1


@pytest.mark.parametrize(("width", "height"), [(65_535, 65_535), (MAX_SIDE + 1, 16), (16, 65_500), (0, 16), (16, 0)])
@pytest.mark.parametrize("kind", [0xC0, 0xC1, 0xC2, 0xC9])
def test_a_size_that_is_only_claimed_takes_no_memory(width: int, height: int, kind: int) -> None:
    place = PLAIN.index(b"\xff\xc0")
    after = place + 2 + struct.unpack_from("!H", PLAIN, place + 2)[0]
    jpeg = PLAIN[:place] + frame_header(width, height, kind=kind, colours=3) + PLAIN[after:]
    with pytest.raises(ValueError, match=f"claims {width}x{height}"):
        decode_jpeg(jpeg)
    with pytest.raises(WireError, match=f"claims {width}x{height}"):
        ClassicVideo().feed(base64.b64encode(jpeg), 0)


@pytest.mark.parametrize("alone", [0x01, 0xD0, 0xD7, 0xD8, 0xD9])
def test_no_other_size_is_hidden_behind_a_marker_without_a_length(alone: int) -> None:
    """A reader that takes what follows for a length would step over the header that a decoder goes by."""
    large = frame_header(65_500, 65_500, colours=3)
    jpeg = SOI + bytes((0xFF, alone)) + large + PLAIN[2:]
    hidden = SOI + bytes((0xFF, alone)) + struct.pack("!H", len(large) + 2) + large + PLAIN[2:]
    for odd in (jpeg, hidden):
        with pytest.raises(WireError):
            check_jpeg(odd)
        with pytest.raises(ValueError, match="no whole JPEG"):
            decode_jpeg(odd)


def test_a_second_header_changes_nothing() -> None:
    """What a decoder makes of it is bounded by what the first one says."""
    place = PLAIN.index(b"\xff\xda")
    with pytest.raises(ValueError, match="no whole JPEG"):
        decode_jpeg(PLAIN[:place] + frame_header(65_500, 65_500, colours=3) + PLAIN[place:])


def test_pictures_in_turn_are_each_read_by_their_own_headers() -> None:
    """The headers that were found fit last are known again, and nothing but them."""
    wide = encode_jpeg(np.resize(IMAGE, (48, 128, 3)))[0]
    expected = {each: simplejpeg.decode_jpeg(each, "BGR") for each in (PLAIN, wide, encoded(), progressive(64, 48, 3))}
    place = PLAIN.index(b"\xff\xc0")
    large = PLAIN[: place + 5] + struct.pack("!HH", 65_500, 65_500) + PLAIN[place + 9 :]
    many = progressive(64, 48, MAX_SCANS)
    for first in (PLAIN, wide, progressive(64, 48, 3)):
        for then in (PLAIN, wide, encoded(), progressive(64, 48, 3)):
            assert (decode_jpeg(first) == expected[first]).all()
            for refused in (large, many, first[: first.index(b"\xff\xda") + 3], first[:2], b""):
                with pytest.raises(ValueError, match="no whole JPEG"):
                    decode_jpeg(refused)
            assert (decode_jpeg(then) == expected[then]).all()


def test_another_threads_picture_lets_none_pass_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers known are taken away, as a picture of several scans does, just as they are looked at."""

    class TakenAway(bytes):
        def __bool__(self) -> bool:
            codec._fit_head = b""
            return True

    monkeypatch.setattr(codec, "_fit_head", TakenAway(PLAIN[:200]))
    with pytest.raises(ValueError, match="scans"):
        decode_jpeg(progressive(64, 48, MAX_SCANS))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_a_damaged_picture_and_nothing_else(data: st.DataObject) -> None:
    """Cut, overwritten, repeated, in every coding: a picture of its size, or ValueError."""
    source = data.draw(st.sampled_from([PLAIN, encoded(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), progressive(64, 48, 20)]))
    jpeg = bytearray(source)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(jpeg) - 1))
        piece = data.draw(st.binary(max_size=6) | st.sampled_from([b"\xff\xd0", b"\xff\xda", SOI, EOI, b"\xff\0"]))
        jpeg[at : at + data.draw(st.integers(0, len(piece)))] = piece
    cut = bytes(jpeg[: data.draw(st.integers(0, len(jpeg)))])
    with suppress(ValueError):
        image = decode_jpeg(cut)
        assert image.shape[:2] == simplejpeg.decode_jpeg_header(cut)[:2]
