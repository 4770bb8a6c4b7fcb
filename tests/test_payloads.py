"""Payload formats: bytes to packets and back over losses, what descriptions say of them, and anyone's own."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.parts import PartError
from avlab.timing.jitterbuffer import AssemblingBuffer, Frame, Run
from avlab.timing.stage import Dropped
from avlab.wire import sdp
from avlab.wire.batch import Batch, batches
from avlab.wire.payloads.formats import BytesFormat, JpegFormat, L16Format, VideoFormat, fmtp, video_format
from avlab.wire.payloads.marked import packed_payloads
from avlab.wire.payloads.ownpayload import OwnFormat, check_payload
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, REPAIR_BYTES, Packed, RtpPacket
from avlab.wire.units import JPEG_CODING, OWN_CODING, EncodedFrame, WireError

MOST = MAX_PACKET - REPAIR_BYTES - HEADER_BYTES
TICKS, GAP_NS = 3000, 33_000_000


class Chunked:
    """As a student would write it: four bytes of number and count before each piece."""

    name = "mine"

    def pack(self, frame: bytes, most: int) -> list[bytes]:
        room = most - 4
        count = -(-len(frame) // room)
        return [
            at.to_bytes(2, "big") + count.to_bytes(2, "big") + frame[at * room : (at + 1) * room] for at in range(count)
        ]

    def unpack(self, payloads: list[bytes | None]) -> bytes | None:
        here = {int.from_bytes(p[:2], "big"): p for p in payloads if p is not None}
        if not here or len(here) < int.from_bytes(next(iter(here.values()))[2:4], "big"):
            return None
        return b"".join(here[at][4:] for at in sorted(here))


class Patched(Chunked):
    """Losses become zeros: something is had of every frame."""

    name = "patched"

    def pack(self, frame: bytes, most: int) -> list[bytes]:
        return [frame[at : at + 100] for at in range(0, len(frame), 100)]

    def unpack(self, payloads: list[bytes | None]) -> bytes | None:
        return b"".join(bytes(100) if p is None else p for p in payloads)


def encoded(data: bytes, index: int = 0, *, key: bool = True, coding: str = OWN_CODING) -> EncodedFrame:
    return EncodedFrame(index, index * GAP_NS, data, 64, 48, coding, key)


def packets_of(packed: Packed, sequence: int, timestamp: int = 0) -> list[bytes]:
    return [
        data
        for batch in packed.all_stamped(sequence=sequence, timestamp=timestamp, ssrc=7)
        for data in batch.datagrams()
    ]


class Stream:
    """Frames of one format on their way into a jitter buffer; numbers that do not wrap, timestamps from 0."""

    def __init__(self, form: VideoFormat) -> None:
        self.form, self.buffer = form, AssemblingBuffer()
        self.number = 65_000

    def sent(self, frame: EncodedFrame) -> list[tuple[int, int, bool, bytes]]:
        """Each packet: number, ticks, marker and all of its bytes."""
        out = []
        for data in packets_of(self.form.pack(frame, payload_type=96), self.number & 0xFFFF):
            out.append((self.number, frame.index * TICKS, RtpPacket.parse(data).marker, data))
            self.number += 1
        return out

    def push(self, packets: Iterable[tuple[int, int, bool, bytes]]) -> None:
        for number, ticks, marker, data in packets:
            run = Run(number, ticks, ticks // TICKS * GAP_NS, marker, Batch(data, len(data)), self.form)
            self.buffer.push_run(run, 1)

    def out(self) -> list[Frame | Dropped]:
        return self.buffer.pull(1)

    def whole(self) -> list[bytes | None]:
        return [frame.data for frame in self.out() if isinstance(frame, Frame)]


# ---- X-bytes


@given(st.binary(min_size=1, max_size=9_000), st.booleans(), st.integers(576, 3_000))
def test_any_bytes_go_and_come_back_in_packets_of_the_size_asked_for(data: bytes, key: bool, size: int) -> None:
    form = BytesFormat(codec="mine")
    packed = form.pack(encoded(data, key=key), payload_type=101, packet_size=size)
    packets = packets_of(packed, 3)
    assert max(map(len, packets)) <= size - REPAIR_BYTES
    assert [RtpPacket.parse(packet).marker for packet in packets] == [False] * (len(packets) - 1) + [True]
    assert [form.begins(RtpPacket.parse(packet).payload) for packet in packets] == [True] + [False] * (len(packets) - 1)
    assembler = form.assembler()
    for batch in batches(packets):
        assert not assembler.add_run(3, True, batch)
    assert assembler.complete
    assert (assembler.frame(), assembler.key, assembler.coding) == (data, key, OWN_CODING)


@given(st.integers(1, 12), st.randoms(use_true_random=False), st.data())
def test_bytes_in_any_order_are_whole_when_the_last_of_them_has_come(
    count: int, chance: random.Random, data: st.DataObject
) -> None:
    form = BytesFormat()
    frame = chance.randbytes(count * (MOST - 4))
    packets = list(enumerate(packets_of(form.pack(encoded(frame, coding=JPEG_CODING)), 0)))
    lost = data.draw(st.integers(0, count - 1))
    missing = packets.pop(lost)
    chance.shuffle(packets)
    assembler = form.assembler()
    for number, packet in packets:
        assembler.add_run(number, number == count - 1, Batch(packet, len(packet)))
    assert not assembler.complete
    assert assembler.frame() is None
    assert assembler.rescued() is None
    assert not packets or lost in assembler.missing
    assembler.add_run(missing[0], missing[0] == count - 1, Batch(missing[1], len(missing[1])))
    assert assembler.complete
    assert (assembler.frame(), assembler.coding, tuple(assembler.missing)) == (frame, JPEG_CODING, ())


@pytest.mark.parametrize("payload", [b"", b"\x80\0\0\0", b"\x80\xff\xff\xffx", b"\x40\0\0\x05other flags"])
def test_a_payload_that_is_no_part_of_the_frame_is_refused_and_changes_nothing(payload: bytes) -> None:
    form = BytesFormat()
    packets = packets_of(form.pack(encoded(bytes(2_000))), 0)
    assembler = form.assembler()
    assembler.add_run(0, False, Batch(packets[0], len(packets[0])))
    [refused] = assembler.add_run(5, True, Batch(bytes(HEADER_BYTES) + payload, HEADER_BYTES + len(payload)))
    assert isinstance(refused, WireError)
    assembler.add_run(1, True, Batch(packets[1], len(packets[1])))
    assert assembler.frame() == bytes(2_000)


def test_nothing_is_sent_of_a_frame_without_bytes_or_beyond_what_receivers_hold() -> None:
    for data in (b"", bytes((4 << 20) + 1)):
        with pytest.raises(WireError, match="A picture in X-bytes has 1 to"):
            BytesFormat().pack(encoded(data))


# ---- packets of several sizes


def test_packets_of_several_sizes_are_numbered_and_stamped_as_one_frame() -> None:
    payloads = [bytes(n) for n in (10, 300, 300, 5, 5, 700, 1)]
    packed = packed_payloads(payloads, 96)
    assert (packed.total, packed.octets) == (7, sum(map(len, payloads)))
    parsed = [RtpPacket.parse(data) for data in packets_of(packed, 65_533, timestamp=9)]
    assert [packet.payload for packet in parsed] == payloads
    assert [packet.sequence for packet in parsed] == [65_533, 65_534, 65_535, 0, 1, 2, 3]
    assert {(packet.timestamp, packet.ssrc, packet.payload_type) for packet in parsed} == {(9, 7, 96)}
    assert [packet.marker for packet in parsed] == [False] * 6 + [True]


# ---- frames told apart by markers


def test_frames_of_ones_own_format_come_back_whole() -> None:
    stream = Stream(OwnFormat(Chunked(), codec="grey"))
    frames = [random.Random(n).randbytes(1 + 700 * n) for n in range(6)]
    for index, data in enumerate(frames):
        stream.push(stream.sent(encoded(data, index)))
    assert stream.whole() == frames


def test_what_says_nothing_of_its_place_is_whole_once_the_frame_before_it_has_ended() -> None:
    stream = Stream(OwnFormat(Chunked(), codec="grey"))
    sent = [stream.sent(encoded(bytes([n]) * 3_000, n)) for n in range(4)]
    stream.push(sent[0])
    assert len(stream.whole()) == 1
    stream.push(sent[1][:-2] + sent[2])  # where the third begins, nobody can tell
    assert stream.whole() == []
    stream.push(sent[1][-1:])
    assert stream.whole() == [bytes([2]) * 3_000]
    stream.push(sent[1][-2:-1] + sent[3][1:])
    assert stream.whole() == [bytes([1]) * 3_000]
    stream.push(sent[3][:1])
    assert stream.whole() == [bytes([3]) * 3_000]


def test_parity_among_the_numbers_is_of_no_frame() -> None:
    stream = Stream(OwnFormat(Chunked(), codec="grey"))
    stream.push(stream.sent(encoded(b"one", 0)))
    parity, stream.number = stream.number, stream.number + 1
    stream.push(stream.sent(encoded(b"two", 1)))
    assert stream.whole() == [b"one"]
    stream.buffer.pass_over(parity, 1)
    assert stream.whole() == [b"two"]


@pytest.mark.parametrize("lost", [[0], [1], [3], [0, 1], [2, 3]])
def test_at_its_deadline_a_format_gets_none_for_what_is_lost(lost: list[int]) -> None:
    stream = Stream(OwnFormat(Patched(), codec="grey"))
    frames = [bytes([n + 1]) * 400 for n in range(3)]
    sent = [stream.sent(encoded(data, index)) for index, data in enumerate(frames)]
    stream.push(sent[0])
    stream.push(packet for at, packet in enumerate(sent[1]) if at not in lost)
    assert stream.whole() == frames[:1]
    assert stream.buffer.ripe_pts_ns == GAP_NS
    stream.buffer.ripen(GAP_NS - 1, 1)
    assert stream.out() == []
    stream.buffer.ripen(GAP_NS, 1)
    [frame] = stream.out()
    assert isinstance(frame, Frame)
    assert frame.data is not None
    pieces = [frame.data[at : at + 100] for at in range(0, len(frame.data), 100)]
    if lost != [2, 3]:  # of the end, no more is known than that there was one
        assert pieces == [bytes(100) if at in lost else b"\x02" * 100 for at in range(4)]
    else:
        assert pieces == [b"\x02" * 100, b"\x02" * 100, bytes(100)]
    assert frame.packets_lost == len(lost) - (lost == [2, 3])
    stream.push(packet for at, packet in enumerate(sent[1]) if at in lost)  # too late for it
    stream.push(sent[2])
    assert stream.whole() == [frames[2]]


def test_a_frame_of_which_nothing_can_be_had_is_incomplete() -> None:
    told: list[PartError] = []
    stream = Stream(OwnFormat(Chunked(), codec="grey", failed=told.append))
    stream.push(stream.sent(encoded(bytes(3_000)))[:-1])
    stream.buffer.ripen(0, 1)
    [dropped] = stream.out()
    assert isinstance(dropped, Dropped)
    assert (dropped.reason, dropped.item.data, told) == ("incomplete", None, [])


@given(st.lists(st.integers(1, 600), min_size=2, max_size=8), st.data())
def test_frames_told_apart_by_markers_leave_once_and_as_they_were(sizes: list[int], data: st.DataObject) -> None:
    stream = Stream(OwnFormat(Patched(), codec="grey"))
    frames = [bytes([n]) * size for n, size in enumerate(sizes)]
    packets = [packet for n, frame in enumerate(frames) for packet in stream.sent(encoded(frame, n))]
    first = len(stream.form.pack(encoded(frames[0]), payload_type=96).batch.datagrams())
    late = data.draw(st.permutations(packets[first:]))
    stream.push(packets[:first] + list(late))
    stream.buffer.flush()
    out = [frame for frame in stream.out() if isinstance(frame, Frame)]
    assert sorted(frame.ticks for frame in out) == sorted({frame.ticks for frame in out})
    for frame in out:
        assert frame.data == frames[frame.ticks // TICKS]
    assert len(out) == len(frames)


# ---- what is said of formats


def test_formats_are_known_by_the_names_that_descriptions_have() -> None:
    assert isinstance(video_format("JPEG"), JpegFormat)
    generic = video_format("X-BYTES", {"codec": "grey"})
    assert isinstance(generic, BytesFormat)
    assert (generic.codec, generic.parameters) == ("grey", "codec=grey")
    assert video_format("X-MINE") is video_format("H266") is None
    assert fmtp(96, generic) == (("fmtp", "96 codec=grey"),)
    assert fmtp(11, L16Format(44_100, 1)) == ()
    assert [L16Format(*kind).payload_type for kind in ((44_100, 2), (44_100, 1), (48_000, 2))] == [10, 11, 97]


def test_a_description_tells_the_format_and_its_parameters() -> None:
    form = OwnFormat(Chunked(), codec="grey")
    media = sdp.Media(
        kind="video", payload_type=96, encoding=form.encoding, clock_rate=90_000, attributes=fmtp(96, form)
    )
    text = sdp.serialize(sdp.SessionDescription(media=(media,)))
    assert "a=rtpmap:96 X-mine/90000" in text
    [back] = sdp.parse(text).media
    assert (back.encoding, back.parameters(96), back.parameters(97)) == ("X-MINE", {"codec": "grey"}, {})


# ---- broken formats of one's own


def fails(*_: Any) -> Any:
    raise ZeroDivisionError("by hand")


BROKEN_PACK = {
    "failed: ZeroDivisionError": fails,
    "returned None": lambda self, frame, most: None,
    "returned []": lambda self, frame, most: [],
    "gave 'x' as a piece": lambda self, frame, most: ["x"],
    f"a piece of {MOST + 1:,} bytes": lambda self, frame, most: [bytes(most + 1)],
    "a piece of 0 bytes": lambda self, frame, most: [b""],
    "pieces: 8,192 is the most": lambda self, frame, most: [b"x"] * 10_000,
}


@pytest.mark.parametrize("words", BROKEN_PACK)
def test_a_format_that_packs_nonsense_is_named(words: str) -> None:
    form = OwnFormat(type("Mine", (Chunked,), {"pack": BROKEN_PACK[words]})())
    with pytest.raises(PartError, match="the payload format Mine") as caught:
        form.pack(encoded(bytes(50)))
    assert words in str(caught.value)


BROKEN_UNPACK = {
    "failed: ZeroDivisionError": fails,
    "returned nothing: is there a return?": lambda self, payloads: None,
    "returned 7: it must be": lambda self, payloads: 7,
    "returned b''": lambda self, payloads: b"",
    "that are not the JPEG that was packed": lambda self, payloads: b"no picture",
}


@pytest.mark.parametrize("words", BROKEN_UNPACK)
def test_a_format_that_unpacks_nonsense_is_told_of_once_and_its_frames_are_incomplete(words: str) -> None:
    told: list[PartError] = []
    part = type("Mine", (Chunked,), {"unpack": BROKEN_UNPACK[words]})()
    stream = Stream(OwnFormat(part, failed=told.append))
    for index in range(3):
        stream.push(stream.sent(encoded(b"some", index, coding=JPEG_CODING)))
    assert [isinstance(frame, Dropped) and frame.reason for frame in stream.out()] == ["incomplete"] * 3
    [error] = told
    assert "the payload format Mine" in str(error)
    assert words in str(error)


def test_a_format_that_fails_of_what_is_lost_is_asked_again_for_what_is_whole() -> None:
    told: list[PartError] = []

    def joins(self: Any, payloads: list[bytes]) -> bytes:
        return b"".join(payload[4:] for payload in payloads)  # fails of None

    stream = Stream(OwnFormat(type("Mine", (Chunked,), {"unpack": joins})(), codec="grey", failed=told.append))
    stream.push(stream.sent(encoded(b"first", 0)))
    stream.push(stream.sent(encoded(bytes(3_000), 1))[1:])
    stream.buffer.ripen(GAP_NS, 1)
    stream.push(stream.sent(encoded(b"whole", 2)))
    _, dropped, frame = stream.out()
    assert isinstance(dropped, Dropped)
    assert isinstance(frame, Frame)
    assert frame.data == b"whole"
    assert len(told) == 1


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (7, "the payload format int has no method pack"),
        (type("Mine", (), {"name": "mine", "pack": fails}), "the payload format Mine has no method unpack"),
        (type("Mine", (Chunked,), {"name": "my format"}), "its name is 'my format': it must be up to 32 letters"),
        (type("Mine", (Chunked,), {"name": None}), "its name is None"),
        (type("Mine", (Chunked,), {"name": "Bytes"}), "is the generic format's"),
    ],
)
def test_what_is_no_format_is_refused_at_once(part: Any, words: str) -> None:
    with pytest.raises(TypeError, match="the payload format") as caught:
        check_payload(part)
    assert words in str(caught.value)


def test_numbers_of_a_frame_follow_on_each_other() -> None:
    stream = Stream(OwnFormat(Chunked()))
    numbers = [number for n in range(3) for number, *_ in stream.sent(encoded(bytes(5_000), n))]
    assert {b - a for a, b in pairwise(numbers)} == {1}
