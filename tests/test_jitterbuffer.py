"""Fragments of real JPEGs in, whole frames out: any order, any loss, anyone's datagrams."""

from __future__ import annotations

import random
from collections import Counter
from functools import lru_cache
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packing import fragments

from avlab.media.codec import encode_jpeg
from avlab.timing.jitterbuffer import MAX_BYTES, MAX_FRAMES, WINDOW, AssemblingBuffer, Fragment, Frame, Run
from avlab.timing.stage import Dropped
from avlab.wire.batch import Batch
from avlab.wire.payloads.formats import JpegFormat

MS = 1_000_000
TICKS = 3_000  # a frame, at 30 fps
FRAME_NS = 33_333_333


@lru_cache
def payloads(seed: int = 0, *, large: bool = False) -> tuple[bytes, ...]:
    """A JPEG's fragments: three of them, or about forty."""
    image = np.random.default_rng(seed).integers(0, 256, (96, 112, 3) if large else (48, 64, 3), np.uint8)
    jpeg, _, _ = encode_jpeg(image, quality=97 if large else 90)
    return fragments(jpeg).payloads


def frame(index: int = 0, *, first: int | None = None, large: bool = False) -> list[Fragment]:
    """One frame's packets; numbered so that frame after frame is consecutive."""
    parts = payloads(index % 4, large=large)
    begin = 1_000 + index * len(parts) if first is None else first
    last = len(parts) - 1
    return [Fragment(begin + n, index * TICKS, index * FRAME_NS, n == last, payload) for n, payload in enumerate(parts)]


def offer(buffer: AssemblingBuffer, packet: Fragment, now_ns: int = 0) -> str:
    """As a client does: its fate, and in with it if it is of use."""
    fate = buffer.fate(packet.sequence, packet.ticks)
    if fate == "used":
        buffer.push(packet, now_ns)
    return fate


def whole(items: list[Frame | Dropped]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def given_up(items: list[Frame | Dropped]) -> list[Frame]:
    assert all(item.reason == "incomplete" for item in items if isinstance(item, Dropped))
    return [item.item for item in items if isinstance(item, Dropped)]


def test_a_frame_is_given_when_its_last_fragment_comes() -> None:
    buffer = AssemblingBuffer()
    packets = frame(large=True)
    assert len(packets) > 10
    for n, packet in enumerate(packets[:-1]):
        assert offer(buffer, packet, 100 + n) == "used"
        assert buffer.wake_at() is None
        assert buffer.pull(100 + n) == []
    offer(buffer, packets[-1], 500)
    assert buffer.wake_at() is not None
    (out,) = whole(buffer.pull(500))
    assert out.data is not None
    assert out.data[:2] == b"\xff\xd8"
    assert out.data[-2:] == b"\xff\xd9"
    assert (out.ticks, out.pts_ns, out.first_packet_ns, out.complete_ns) == (0, 0, 100, 500)
    assert (out.packets, out.packets_lost, out.bytes) == (len(packets), 0, sum(len(p.payload) for p in packets))
    assert buffer.pull(500) == []
    assert buffer.wake_at() is None


@given(st.lists(st.integers(0, 11), max_size=30), st.randoms(use_true_random=False))
def test_runs_fare_as_their_packets_do(numbers: list[int], chance: random.Random) -> None:
    packets = [packet for index in range(4) for packet in frame(index)]
    single, joined = AssemblingBuffer(), AssemblingBuffer()
    for now_ns, number in enumerate(numbers):
        first = packets[number % len(packets)]
        rest = [each for each in packets if each.ticks == first.ticks and each.sequence >= first.sequence]
        some = rest[: chance.randint(1, len(rest))]
        run = Run.of(first.sequence, first.ticks, first.media_ns, some[-1].marker, tuple(each.payload for each in some))
        assert joined.push_run(run, now_ns) == [offer(single, each, now_ns) for each in some]
        assert joined.pull(now_ns) == single.pull(now_ns)
        if not chance.randrange(8):
            for buffer in (single, joined):
                buffer.expire(first.media_ns)


def test_any_order_makes_the_same_picture() -> None:
    packets = frame()
    assert len(packets) >= 3
    pictures = set()
    for order in permutations(packets):
        buffer = AssemblingBuffer()
        assert [offer(buffer, packet) for packet in order] == ["used"] * len(packets)
        (out,) = whole(buffer.pull(0))
        pictures.add(out.data)
    assert len(pictures) == 1


def test_frames_that_cross() -> None:
    buffer = AssemblingBuffer()
    mixed = [packet for pair in zip(frame(0), frame(1), strict=False) for packet in reversed(pair)]
    rest = [packet for packet in [*frame(0), *frame(1)] if packet not in mixed]
    assert [offer(buffer, packet) for packet in [*mixed, *rest]] == ["used"] * (len(mixed) + len(rest))
    assert {out.ticks for out in whole(buffer.pull(0))} == {0, TICKS}


def test_duplicates_change_nothing() -> None:
    buffer = AssemblingBuffer()
    for packet in frame():
        assert [offer(buffer, packet) for _ in range(3)] == ["used", "duplicate", "duplicate"]
    assert [offer(buffer, packet) for packet in frame()] == ["duplicate"] * len(frame())
    (out,) = whole(buffer.pull(0))
    assert out.packets == len(frame())


@pytest.mark.parametrize("lost", range(len(payloads(large=True))))
def test_the_loss_of_any_fragment_gives_the_frame_up_when_its_time_has_passed(lost: int) -> None:
    buffer = AssemblingBuffer()
    packets = frame(3, large=True)
    for packet in packets:
        if packet is not packets[lost]:
            offer(buffer, packet, 7)
    buffer.expire(packets[0].media_ns - 1)
    assert buffer.pull(0) == []
    buffer.expire(packets[0].media_ns)
    (out,) = given_up(buffer.pull(0))
    assert (out.ticks, out.data, out.complete_ns) == (3 * TICKS, None, None)
    assert (out.packets, out.packets_lost, out.first_packet_ns) == (len(packets) - 1, 1, 7)
    assert offer(buffer, packets[lost]) == "late"
    assert buffer.pull(0) == []


def test_what_comes_for_a_frame_that_has_left_is_late() -> None:
    buffer = AssemblingBuffer()
    for packet in frame(1):
        offer(buffer, packet)
    assert offer(buffer, Fragment(5_000, TICKS, FRAME_NS, False, b"again, by another number")) == "late"
    offer(buffer, frame(2)[0])
    buffer.expire(2 * FRAME_NS)
    assert offer(buffer, frame(0)[0]) == "late"  # playout has passed this one
    assert offer(buffer, frame(3)[0]) == "used"


def test_a_frame_may_arrive_after_later_ones() -> None:
    buffer = AssemblingBuffer()
    for packet in [*frame(2), *frame(1)]:
        assert offer(buffer, packet) == "used"
    assert [out.ticks for out in whole(buffer.pull(0))] == [2 * TICKS, TICKS]


def test_flush_gives_up_all_in_order() -> None:
    buffer = AssemblingBuffer()
    for index in (5, 3, 4):
        offer(buffer, frame(index)[0])
    buffer.flush()
    assert [out.ticks // TICKS for out in given_up(buffer.pull(0))] == [3, 4, 5]


@pytest.mark.parametrize("payload", [b"", b"short", bytes(8), b"\xff" * 100])
def test_what_is_no_fragment_counts_and_hurts_nobody(payload: bytes) -> None:
    buffer = AssemblingBuffer()
    stray = Fragment(900, 0, 0, False, payload)
    assert offer(buffer, stray) == "used"
    assert buffer.malformed == 1
    for packet in frame(0):  # even in the very frame
        offer(buffer, packet)
    assert len(whole(buffer.pull(0))) == 1
    buffer.flush()
    assert buffer.pull(0) == []


def test_numbers_that_leap_do_not_make_the_rest_late() -> None:
    buffer = AssemblingBuffer()
    offer(buffer, frame(0)[0])
    assert offer(buffer, Fragment(1_000 + 30_000, 10**9, 10**13, True, b"stray")) == "used"
    for index in range(1, 200):
        assert {offer(buffer, packet) for packet in frame(index)} == {"used"}
    assert len(whole(buffer.pull(0))) == 199


def held(buffer: AssemblingBuffer) -> int:
    """Bytes of fragments that the buffer keeps, counted from outside by giving all up."""
    buffer.pull(0)
    buffer.flush()
    return sum(out.bytes for out in given_up(buffer.pull(0)))


def test_random_timestamps_hold_no_more_than_the_limit() -> None:
    chance = random.Random(1)
    buffer = AssemblingBuffer()
    exits = Counter[int]()
    used = set()
    for sequence in range(0, 10 * WINDOW, 2):  # with gaps: a frame ends before the next number, whatever it is of
        ticks = chance.randrange(1 << 32)
        if offer(buffer, Fragment(sequence, ticks, ticks, False, payloads()[0])) == "used":
            used.add(ticks)
        exits.update(out.ticks for out in given_up(buffer.pull(0)))
    buffer.flush()
    left = given_up(buffer.pull(0))
    assert len(left) <= MAX_FRAMES
    exits.update(out.ticks for out in left)
    assert set(exits) == used
    assert max(exits.values()) == 1
    # and a decent sender is served again at once
    for packet in frame(10**6):
        offer(buffer, packet)
    assert len(whole(buffer.pull(0))) == 1


@pytest.mark.parametrize("frames", [1, 3])
def test_endless_fragments_hold_no_more_than_the_limit(frames: int) -> None:
    header, rest = payloads(large=True)[1][:8], bytes(60_000)
    buffer = AssemblingBuffer()
    for sequence in range(1500):
        offer(buffer, Fragment(sequence, sequence % frames, 0, False, header + rest))
    assert held(buffer) <= MAX_BYTES


def test_fragments_refused_count_against_the_limit_too() -> None:
    buffer = AssemblingBuffer()
    for sequence in range(1500):
        offer(buffer, Fragment(sequence * 20_000, 0, 0, False, payloads(large=True)[1][:8] + bytes(60_000)))
    assert buffer.malformed > 100
    assert len(given_up(buffer.pull(0))) == 1  # given up once, and late ever after
    assert held(buffer) <= MAX_BYTES


@given(st.data())
def test_each_packet_has_one_fate_and_each_frame_one_exit(data: st.DataObject) -> None:
    packets = [packet for index in range(data.draw(st.integers(1, 8))) for packet in frame(index)]
    arrivals = data.draw(st.lists(st.sampled_from(packets), max_size=2 * len(packets)))
    passing = data.draw(st.dictionaries(st.integers(0, 60), st.integers(0, 8), max_size=4))
    buffer = AssemblingBuffer()
    used: list[Fragment] = []
    out: list[Frame | Dropped] = []
    for n, packet in enumerate(arrivals):
        before = packet in used
        fate = offer(buffer, packet, n)
        assert (fate == "duplicate") == before
        if fate == "used":
            used.append(packet)
        if n in passing:
            buffer.expire(passing[n] * FRAME_NS)
        if n % 3:
            out += buffer.pull(n)
    buffer.flush()
    out += buffer.pull(0)
    exits = Counter(item.item.ticks if isinstance(item, Dropped) else item.ticks for item in out)
    assert set(exits) == {packet.ticks for packet in used}
    assert set(exits.values()) <= {1}
    by_frame = Counter(packet.ticks for packet in used)
    for item in whole(out):
        assert item.packets == by_frame[item.ticks] == len(frame(item.ticks // TICKS))
        assert item.packets_lost == 0
    for item in given_up(out):
        assert item.packets == by_frame[item.ticks] < len(frame(item.ticks // TICKS))
        assert item.packets_lost >= 1
    assert buffer.malformed == 0


class ByFragments(JpegFormat):
    """RTP/JPEG whose pictures are put together a fragment at a time, however they come."""

    def whole(self, batch: Batch) -> bytes | None:
        return None


@given(st.data())
def test_pictures_that_come_whole_fare_as_those_that_do_not(data: st.DataObject) -> None:
    """Between pictures that are incomplete, late, out of order, twice there, or without a marker on the last packet."""
    packets = [packet for index in range(8) for packet in frame(index)]
    size = len(frame(0))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(packets) - 1), max_size=8)))
    cuts = sorted({*cuts, *range(size, len(packets), size)})
    runs = [packets[begin:end] for begin, end in pairwise([0, *cuts, len(packets)])]
    chance = data.draw(st.randoms(use_true_random=False))
    unmarked = data.draw(st.sets(st.integers(0, 7), max_size=3))
    sent = []
    for run in runs:
        if chance.random() < 0.2:
            continue  # lost
        sent += [run] * (1 + (chance.random() < 0.1))
    for _ in range(data.draw(st.integers(0, 3))):
        if len(sent) > 1:
            at = chance.randrange(len(sent) - 1)
            sent[at], sent[at + 1] = sent[at + 1], sent[at]
    buffers = [(AssemblingBuffer(), form) for form in (JpegFormat(), ByFragments())]
    for number, run in enumerate(sent):
        first, marker = run[0], run[-1].marker and run[-1].ticks // TICKS not in unmarked
        told = []
        for buffer, form in buffers:
            now_ns = 10 * MS * number
            one = Run.of(first.sequence, first.ticks, first.media_ns, marker, [each.payload for each in run], form)
            fates = buffer.push_run(one, now_ns)
            told.append((fates, buffer.pull(now_ns), buffer.idle, buffer.newest_pts_ns))
        assert told[0] == told[1]
        if chance.random() < 0.15:
            for buffer, _ in buffers:
                buffer.expire(first.media_ns - FRAME_NS)
    for buffer, _ in buffers:
        buffer.flush()
    assert buffers[0][0].pull(0) == buffers[1][0].pull(0)
