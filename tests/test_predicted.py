"""Pictures that are predicted from others: the order of decoding, what a loss spoils, and damaged streams."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import Any

import pytest
from encoded import access_units
from hypothesis import given
from hypothesis import strategies as st

from avlab.media.videodecoder import DecodeError, VideoDecoder
from avlab.stream.handle import Worker
from avlab.stream.playing.decoding import Decoded
from avlab.stream.playing.predicted import PredictedDecoding
from avlab.timing.decodeorder import LAST_NS, LEAD_NS, MOST_WAITING, DecodeOrder
from avlab.timing.jitterbuffer import Frame
from avlab.timing.stage import Dropped
from avlab.wire.payloads import h264, h265
from avlab.wire.payloads.nal import START
from avlab.wire.units import H264_CODING, H265_CODING

MS = 1_000_000


def whole(index: int, data: bytes = b"x", *, at: int | None = None, **more: Any) -> Frame:
    """A picture in three packets, the `at`th to be sent."""
    first = 3 * (index if at is None else at)
    pts_ns = index * 33 * MS
    given = {"coding": H264_CODING, "numbers": (first, first + 2), **more}
    return Frame(index, pts_ns, data, len(data), 3, 0, 0, 0, **given)


def nothing(before: int, after: int) -> bool:
    return after == before + 1


def test_pictures_are_decoded_in_the_order_in_which_they_were_sent() -> None:
    order = DecodeOrder()
    for index, at in ((0, 0), (3, 1), (1, 2), (2, 3)):  # as B-pictures are sent
        order.put(whole(index, at=at))
    released = order.release(10**12, nothing)
    assert [frame.ticks for frame in released if isinstance(frame, Frame)] == [0, 3, 1, 2]
    assert not any(frame.after_loss for frame in released if isinstance(frame, Frame))


def test_none_is_decoded_long_before_it_is_due() -> None:
    order = DecodeOrder()
    for index in range(60):
        order.put(whole(index))
    assert order.due_ns(nothing) == -LEAD_NS
    assert order.release(None, nothing) == []
    released = order.release(0, nothing)
    assert len(released) == LEAD_NS // (33 * MS) + 1
    assert order.due_ns(nothing) == len(released) * 33 * MS - LEAD_NS


def test_a_missing_picture_is_waited_for_and_then_passed_over() -> None:
    order = DecodeOrder()
    order.put(whole(0))
    assert len(order.release(0, nothing)) == 1
    order.put(whole(2))
    order.put(whole(3))
    assert order.release(2 * 33 * MS - LAST_NS - 1, nothing) == []
    assert order.due_ns(nothing) == 2 * 33 * MS - LAST_NS
    [after, *more] = order.release(2 * 33 * MS - LAST_NS, nothing)
    assert isinstance(after, Frame)
    assert after.after_loss
    assert [frame.after_loss for frame in more if isinstance(frame, Frame)] == [False]
    order.put(whole(1))
    [late] = order.release(2 * 33 * MS, nothing)
    assert isinstance(late, Dropped)
    assert late.reason == "late"


def test_one_that_is_repaired_in_time_spoils_nothing() -> None:
    order = DecodeOrder()
    order.put(whole(0))
    order.release(0, nothing)
    order.put(whole(2))
    assert order.release(0, nothing) == []
    order.put(whole(1))
    assert [frame.after_loss for frame in order.release(0, nothing) if isinstance(frame, Frame)] == [False, False]


def test_parity_between_pictures_is_no_loss() -> None:
    order = DecodeOrder()
    order.put(whole(0))
    order.put(replace(whole(1), numbers=(5, 8)))
    released = order.release(0, lambda before, after: True)
    assert [frame.after_loss for frame in released if isinstance(frame, Frame)] == [False, False]


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), max_size=6))
def test_every_picture_leaves_once_and_in_order(arrival: list[int], gone: set[int]) -> None:
    order = DecodeOrder()
    out: list[Frame | Dropped] = []
    for moment, index in enumerate(arrival):
        if index not in gone:
            order.put(whole(index))
        out += order.release(moment * 33 * MS, nothing)
    out += order.release(10**12, nothing)
    ticks = [each.ticks if isinstance(each, Frame) else each.item.ticks for each in out]
    assert sorted(ticks) == sorted(set(range(12)) - gone)
    decoded = [each.ticks for each in out if isinstance(each, Frame)]
    assert decoded == sorted(decoded)
    for before, after in zip([each for each in out if isinstance(each, Frame)], decoded[1:], strict=False):
        later = next(each for each in out if isinstance(each, Frame) and each.ticks == after)
        assert later.after_loss == (after != before.ticks + 1)


def test_however_many_wait_they_are_bounded() -> None:
    order = DecodeOrder()
    for index in range(3 * MOST_WAITING):
        order.put(whole(index))
        order.release(None, nothing)
    assert len(order) == MOST_WAITING


# ---- decoding


def decoded(decoding: PredictedDecoding, frames: list[Frame], *, together: bool = False) -> list[Decoded]:
    """What becomes of pictures that are put one after the other, or `together`; the thread runs as in a client."""
    out: list[Decoded] = []
    worker = Worker("decoder", decoding.run)
    worker.start()
    for frame in frames:
        before = len(out)
        decoding.put(frame)
        for _ in range(0 if together else 2000):
            out += decoding.done()
            if len(out) > before:
                break
            worker.join(0.001)
    decoding.end()
    for _ in range(2000):
        out += decoding.done()
        if len(out) >= len(frames):
            break
        worker.join(0.001)
    decoding.wake()
    worker.join(5.0)
    return out


@pytest.mark.parametrize(("coding", "name"), [(H264_CODING, "libx264"), (H265_CODING, "libx265")])
def test_a_stream_is_decoded_whole(coding: str, name: str) -> None:
    units = access_units(24, name=name, size=(128, 96))
    out = decoded(PredictedDecoding(coding), [whole(n, data) for n, data in units])
    assert [each.frame.ticks for each in out] == list(range(24))
    shades = [each.image.mean() for each in out]
    assert shades == sorted(shades)
    assert shades[-1] > shades[0] + 50
    assert not any(each.frame.damaged for each in out)


def test_pictures_sent_in_another_order_than_they_are_seen_are_all_seen() -> None:
    units = access_units(20, b=2)
    assert [n for n, _ in units] != sorted(n for n, _ in units)
    decoder = VideoDecoder(H264_CODING)
    seen = [each.stamp for n, data in units for each in decoder.decode(data, n)] + [e.stamp for e in decoder.drain()]
    assert seen == list(range(20))


JOINED = [  # what is in the packets' order other than it is seen, or has no key frames that all else ends at
    (H264_CODING, "libx264", 3, ":b-pyramid=normal"),
    (H264_CODING, "libx264", 8, ":ref=8"),
    (H264_CODING, "libx264", 2, ":open-gop=1"),
    (H264_CODING, "libx264", 0, ":intra-refresh=1"),
    (H264_CODING, "libx264", 0, ":intra-refresh=1:slices=3"),
    (H265_CODING, "libx265", 3, ":open-gop=1"),
    (H265_CODING, "libx265", 4, ":open-gop=1:b-pyramid=1"),
    (H265_CODING, "libx265", 0, ":open-gop=0"),
]


@pytest.mark.parametrize(("coding", "name", "b", "more"), JOINED)
@pytest.mark.parametrize("missed", [0, 3, 14])
def test_a_stream_is_joined_wherever_it_is(coding: str, name: str, b: int, more: str, missed: int) -> None:
    units = access_units(60, key_every=12, name=name, b=b, more=more, size=(128, 96))
    out = decoded(PredictedDecoding(coding), [whole(n, data) for n, data in units[missed:]], together=True)
    assert len(out) == 60 - missed
    seen = [each.frame.ticks for each in out if each.image is not None]
    assert seen == list(range(seen[0], 60))
    assert seen[0] - missed <= (24 if "refresh" in more else 12) * bool(missed)
    assert not any(each.frame.damaged for each in out)


@pytest.mark.parametrize(("coding", "name", "b", "more"), JOINED)
def test_a_loss_spoils_no_more_than_until_pictures_are_whole_again(coding: str, name: str, b: int, more: str) -> None:
    units = access_units(60, key_every=12, name=name, b=b, more=more, size=(128, 96))
    frames = [whole(n, data, after_loss=at == 15) for at, (n, data) in enumerate(units) if at != 14]
    out = decoded(PredictedDecoding(coding), frames, together=True)
    spoilt = [each.frame.ticks for each in out if each.frame.damaged or each.image is None]
    assert spoilt
    assert len(spoilt) <= (24 if "refresh" in more else 15)
    assert max(spoilt) < 42


def test_what_follows_a_loss_is_damaged_until_a_key_frame() -> None:
    units = access_units(30)
    frames = [whole(n, data, after_loss=n == 4) for n, data in units if n != 3]
    out = decoded(PredictedDecoding(H264_CODING), frames)
    assert [each.frame.ticks for each in out if each.frame.damaged] == [4, 5, 6, 7, 8, 9]
    assert all(each.image is not None for each in out)


def test_frozen_ones_are_not_shown() -> None:
    units = access_units(30)
    frames = [whole(n, data, after_loss=n == 4) for n, data in units if n != 3]
    out = decoded(PredictedDecoding(H264_CODING, damaged="freeze"), frames)
    assert [(each.frame.ticks, each.fate) for each in out if each.image is None] == [
        (n, "incomplete") for n in range(4, 10)
    ]


def test_nothing_is_shown_before_the_first_key_frame() -> None:
    units = access_units(30)[4:]
    out = decoded(PredictedDecoding(H264_CODING), [whole(n, data) for n, data in units])
    assert [each.frame.ticks for each in out if each.image is not None] == list(range(10, 30))
    assert not any(each.frame.damaged for each in out)


@pytest.mark.parametrize("setup", [b"", b"\0\0\0\1\x67\xff\xff\xff\xff", b"\x01garbage", bytes(100), b"\0\0\0\1"])
def test_parameter_sets_that_lie_cost_nothing_where_the_stream_brings_its_own(setup: bytes) -> None:
    units = access_units(12)
    out = decoded(PredictedDecoding(H264_CODING, setup=setup), [whole(n, data) for n, data in units])
    assert sum(each.image is not None for each in out) == 12


def test_a_stream_that_changes_its_size_goes_on() -> None:
    units = access_units(10) + [(10 + n, data) for n, data in access_units(10, size=(160, 96))]
    out = decoded(PredictedDecoding(H264_CODING), [whole(n, data) for n, data in units])
    assert [each.image.shape for each in out] == [(48, 64, 3)] * 10 + [(96, 160, 3)] * 10


def test_pictures_that_are_too_large_are_not_decoded_and_a_sentence_says_so() -> None:
    told: list[str] = []
    large = access_units(1, size=(7680, 4320))[0][1]
    decoding = PredictedDecoding(H264_CODING, notice=lambda name, words: told.append(words))
    out = decoded(decoding, [whole(n, large, key=True) for n in range(12)])
    assert [each.image for each in out] == [None] * 12
    [words] = told
    assert "4096x2304 at the most" in words


@given(st.binary(max_size=60))
def test_messages_of_strangers_tell_a_number_or_nothing(data: bytes) -> None:
    for recovers, header in ((h264.recovers_in, b"\x06"), (h265.recovers_in, b"\x4e\x01")):
        for body in (data, b"\x06" + data, b"\x01\x02ab\x06\x04" + data):
            found = recovers(START + header + body)
            assert found is None or 0 <= found < 1 << 17


@pytest.mark.parametrize(
    ("said", "h264_count", "h265_count"),
    [(b"\x80", 0, 0), (b"\x50", 1, 1), (b"\x60", 2, 0), (b"\x20", 3, 2), (b"\x0f\x00", 29, 15), (b"", None, None)],
)
def test_recovery_points(said: bytes, h264_count: int | None, h265_count: int | None) -> None:
    message = b"\x05\xff\x01" + bytes(256).replace(b"\0\0", b"\1\1") + b"\x06" + bytes((len(said),)) + said + b"\x80"
    assert h264.recovers_in(START + b"\x09\xf0" + START + b"\x06" + message) == h264_count
    assert h265.recovers_in(START + b"\x4e\x01" + message) == h265_count


@pytest.mark.parametrize("coding", [H264_CODING, H265_CODING])
def test_a_damaged_stream_costs_pictures_and_nothing_else(coding: str) -> None:
    chance = random.Random(7)
    units = access_units(40, name="libx264" if coding == H264_CODING else "libx265", size=(128, 96))
    hurt = []
    for n, data in units:
        bytes_ = bytearray(data)
        for _ in range(chance.randrange(6)):
            bytes_[chance.randrange(len(bytes_))] = chance.randrange(256)
        hurt.append(
            whole(n, bytes(bytes_[: chance.randrange(1, len(bytes_) + 1)] if chance.random() < 0.2 else bytes_))
        )
    out = decoded(PredictedDecoding(coding), hurt)
    assert sorted(each.frame.ticks for each in out) == list(range(40))


def test_pictures_that_want_what_was_lost_are_no_fault_of_the_stream() -> None:
    told: list[str] = []
    decoding = PredictedDecoding(H264_CODING, notice=lambda name, words: told.append(words))
    decoded(decoding, [whole(n, data, key=False) for n, data in access_units(40, key_every=60)[5:]])
    assert told == []


def test_what_is_no_picture_is_an_error_and_the_next_one_is_decoded() -> None:
    decoder = VideoDecoder(H264_CODING)
    for junk in (b"\0", b"junk", b"\0\0\0\1", b"\0\0\0\1\x65" + bytes(50)):
        with contextlib.suppress(DecodeError):
            assert decoder.decode(junk, 1) == []
    assert sum(len(decoder.decode(data, n)) for n, data in access_units(3)) == 3
