"""RTP/JPEG: every JPEG that RFC 2435 can carry comes back and decodes alike; every other is refused with the remedy."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import struct

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from packets import stored
from packing import JpegPacketizer, fragments

from avlab.media.codec import encode_jpeg
from avlab.timing.jitterbuffer import Run
from avlab.wire.batch import Batch
from avlab.wire.payloads import jpeg as payloads
from avlab.wire.payloads.jpeg import (
    IN_BAND_Q,
    MAX_FRAGMENTS,
    MAX_SCAN,
    FrameAssembler,
    NoSizeError,
    check_jpeg,
    derived_tables,
    jfif_header,
    packed,
    parse_fragment,
    whole_frame,
)
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, REPAIR_BYTES, Packed, RtpPacket
from avlab.wire.units import EncodedFrame, WireError

S420, S422 = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422
S444, S440 = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440


Image = NDArray[np.uint8]


def picture(width: int = 320, height: int = 240) -> Image:
    noise = np.random.default_rng(1).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@functools.cache
def jpeg(
    width: int = 320, height: int = 240, quality: int = 80, sampling: int = S420, restart: int = 0, **others: int
) -> bytes:
    flags = {"QUALITY": quality, "SAMPLING_FACTOR": sampling, "RST_INTERVAL": restart} | others
    pairs = [number for name, value in flags.items() for number in (getattr(cv2, f"IMWRITE_JPEG_{name}"), value)]
    done, data = cv2.imencode(".jpg", picture(width, height), pairs)
    assert done
    return bytes(data)


def decode(data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def assemble(payloads: list[bytes], order: list[int] | None = None) -> FrameAssembler:
    frame = FrameAssembler()
    for index in order if order is not None else range(len(payloads)):
        frame.add(index, index == len(payloads) - 1, payloads[index])
    return frame


# ---- there and back


@pytest.mark.parametrize("quality", range(1, 101))
def test_every_quality_comes_back_and_decodes_alike(quality: int) -> None:
    data = jpeg(96, 64, quality)
    cut = fragments(data)
    assert cut.q == (quality if quality < 100 else IN_BAND_Q)
    back = assemble(list(cut.payloads)).frame()
    np.testing.assert_array_equal(decode(back), decode(data))
    assert check_jpeg(back)[:4] == check_jpeg(data)[:4]


@pytest.mark.parametrize("restart", [0, 1, 7])
@pytest.mark.parametrize("sampling", [S420, S422])
@pytest.mark.parametrize(("width", "height"), [(8, 8), (16, 16), (2040, 8), (8, 2040), (328, 248), (640, 360)])
def test_every_shape_comes_back_and_decodes_alike(width: int, height: int, sampling: int, restart: int) -> None:
    data = jpeg(width, height, 70, sampling, restart)
    assert check_jpeg(data).restart_interval == restart
    back = assemble(list(fragments(data).payloads)).frame()
    np.testing.assert_array_equal(decode(back), decode(data))
    assert check_jpeg(back)[:4] == check_jpeg(data)[:4]


def test_simplejpegs_pictures_come_back_and_decode_alike() -> None:
    data = simplejpeg.encode_jpeg(picture(), quality=85, colorspace="BGR", colorsubsampling="420")
    cut = fragments(data)
    assert cut.q == 85
    np.testing.assert_array_equal(decode(assemble(list(cut.payloads)).frame()), decode(data))


def test_tables_of_ones_own_travel_with_each_frame() -> None:
    data = bytearray(jpeg())
    data[data.index(b"\xff\xdb") + 5 + 10] += 1
    cut = fragments(bytes(data))
    assert cut.q == IN_BAND_Q
    assert parse_fragment(cut.payloads[0]).tables == check_jpeg(bytes(data)).tables
    np.testing.assert_array_equal(decode(assemble(list(cut.payloads)).frame()), decode(bytes(data)))


def test_a_jpeg_without_huffman_tables_means_the_standard_ones() -> None:
    data = jpeg()
    start = data.index(b"\xff\xc4")
    end = data.index(b"\xff\xda")
    short = data[:start] + data[end:]
    assert fragments(short).payloads == fragments(data).payloads


def test_what_follows_the_headers_of_a_camera_does_no_harm() -> None:
    data = jpeg()
    noted = data[:2] + b"\xff\xff\xff\xfe\0\6text" + data[2:]  # fill bytes and a comment
    assert fragments(noted).payloads == fragments(data).payloads
    misleading = data[:2] + b"\xff\xfe\0\6\xff\xda\0\x0c" + data[2:]  # a comment that looks like the scan's header
    assert fragments(misleading).payloads == fragments(data).payloads
    twice = data + data  # a camera's second picture in the same file
    np.testing.assert_array_equal(decode(assemble(list(fragments(twice).payloads)).frame()), decode(data))


@pytest.mark.parametrize("q", range(1, 100))
def test_derived_tables_are_those_of_libjpeg(q: int) -> None:
    assert derived_tables(q) == check_jpeg(jpeg(16, 16, q)).tables


def test_each_q_has_tables_of_its_own_and_others_have_none() -> None:
    assert len({derived_tables(q) for q in range(1, 100)}) == 99
    for q in (0, 100, 255):
        with pytest.raises(WireError, match=f"1 to 99, not {q}"):
            derived_tables(q)


# ---- what RFC 2435 cannot carry


def patched(old: str, new: str) -> bytes:
    data = jpeg()
    assert bytes.fromhex(old) in data
    return data.replace(bytes.fromhex(old), bytes.fromhex(new), 1)


def grayscale() -> bytes:
    return bytes(cv2.imencode(".jpg", picture()[:, :, 0])[1])


def of_three_tables() -> bytes:
    data = patched("031101", "031102")
    other = b"\xff\xdb\0\x43\2" + bytes(range(1, 65))
    return data[:2] + other + data[2:]


def without_tables() -> bytes:
    data = jpeg()
    return data.replace(b"\xff\xdb", b"\xff\xe1")


def too_large() -> bytes:
    data = jpeg()
    return data[:-2] + bytes(MAX_SCAN) + data[-2:]


SOF = "ffc0001108 00f0 0140 03"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no JPEG"),
        (b"\x89PNG", "no JPEG"),
        (jpeg(PROGRESSIVE=1), "progressive.*baseline"),
        (patched("ffc0", "ffc9"), "arithmetic-coded.*baseline"),
        (patched("ffc0", "ffc3"), "lossless.*baseline"),
        (jpeg(OPTIMIZE=1), "Huffman tables of its own.*without optimisation"),
        (jpeg(sampling=S444), r"1x1, 1x1, 1x1 \(4:4:4\).*encode it as 4:2:0"),
        (jpeg(sampling=S440), "1x2, 1x1, 1x1 and.*encode it as 4:2:0"),
        (grayscale(), "grayscale.*convert it to colour"),
        (jpeg(321, 240), "width is 321.*multiples of 8.*scale it"),
        (jpeg(320, 236), "height is 236.*scale it"),
        (jpeg(2048, 8), "width is 2048.*2040"),
        (patched(SOF, "ffc0001108 0000 0140 03"), "height is 0"),
        (patched(SOF, "ffc000110c 00f0 0140 03"), "12 bits a sample"),
        (patched(SOF, "ffc0001108 00f0 0140 04"), "frame header is missing or cut short"),
        (patched("ffc0", "ffe2"), "frame header is missing"),
        (patched("ffdb004300", "ffdb004310"), "16-bit quantisation tables"),
        (of_three_tables(), "three quantisation tables"),
        (without_tables(), "no quantisation table"),
        (patched("ffda000c03 01", "ffda000c01 01"), "a scan for each plane"),
        (jpeg()[:-2], "cut short: no EOI"),
        (too_large(), "lower its quality or width"),
    ],
)
def test_what_cannot_be_carried_is_refused_with_the_remedy(data: bytes, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        check_jpeg(data)


def test_every_truncation_of_a_jpeg_is_refused() -> None:
    data = jpeg(16, 16)
    for end in range(len(data)):
        with pytest.raises(WireError):
            check_jpeg(data[:end])


@given(st.integers(0, 620), st.integers(0, 255))
def test_any_wrong_byte_in_the_headers_is_a_value_or_a_wire_error(place: int, value: int) -> None:
    data = bytearray(jpeg(16, 16))
    data[place] = value
    with contextlib.suppress(WireError):
        fragments(bytes(data))


# ---- packets


@pytest.mark.parametrize(("quality", "restart"), [(80, 0), (100, 0), (80, 5), (100, 5)])
def test_packets_are_equal_but_the_last_and_small_and_marked(quality: int, restart: int) -> None:
    data = jpeg(quality=quality, restart=restart)
    stream = JpegPacketizer(ssrc=9, sequence=65530, timestamp_offset=0xFFFFFF00)
    packets = stream.pack(EncodedFrame(0, 1_000_000_000, data, 320, 240))
    parsed = [RtpPacket.parse(packet) for packet in packets]
    assert len(packets) > 8
    assert {len(packet) for packet in packets[:-1]} == {MAX_PACKET - REPAIR_BYTES}
    assert len(packets[-1]) <= MAX_PACKET
    assert [packet.marker for packet in parsed] == [False] * (len(packets) - 1) + [True]
    assert [packet.sequence for packet in parsed] == [(65530 + index) & 0xFFFF for index in range(len(packets))]
    assert {packet.timestamp for packet in parsed} == {89_744}
    assert {(packet.payload_type, packet.ssrc) for packet in parsed} == {(26, 9)}
    assert stream.sequence == (65530 + len(packets)) & 0xFFFF
    assert sum(len(packet) - HEADER_BYTES for packet in packets) == fragments(data).octets


def test_the_payload_header_is_that_of_rfc_2435() -> None:
    first, second, *_ = fragments(jpeg(quality=80, restart=3)).payloads
    assert first[:12] == bytes.fromhex("00 000000 41 50 28 1e 0003 ffff")
    assert second[:12] == bytes.fromhex("00 000486 41 50 28 1e 0003 ffff")
    first, second, *_ = fragments(jpeg(quality=100, sampling=S422)).payloads
    assert first[:12] == bytes.fromhex("00 000000 00 ff 28 1e 00 00 0080")
    assert second[:8] == bytes.fromhex("00 000406 00 ff 28 1e")


# ---- reassembly


def test_every_order_and_duplicates_make_the_same_picture() -> None:
    payloads = list(fragments(jpeg()).payloads)
    whole = assemble(payloads).frame()
    orders = [list(reversed(range(len(payloads)))), [*range(len(payloads)), 0, 3]]
    orders += [random.Random(seed).sample(range(len(payloads)), len(payloads)) for seed in range(20)]
    for order in orders:
        frame = assemble(payloads, order)
        assert frame.complete
        assert frame.missing == ()
        assert frame.frame() == whole


def test_the_loss_of_any_fragment_leaves_the_frame_incomplete_and_is_named() -> None:
    payloads = list(fragments(jpeg()).payloads)
    for lost in range(len(payloads)):
        frame = assemble(payloads, [index for index in range(len(payloads)) if index != lost])
        assert not frame.complete
        assert frame.missing == (lost,)
        assert frame.fragments == len(payloads) - 1
        with pytest.raises(WireError, match="incomplete"):
            frame.frame()
        assert frame.add(lost, lost == len(payloads) - 1, payloads[lost])
        assert frame.complete


def test_nothing_came_and_nothing_is_known_to_be_missing() -> None:
    frame = FrameAssembler()
    assert (frame.missing, frame.fragments, frame.complete) == ((), 0, False)
    with pytest.raises(WireError, match="incomplete"):
        frame.frame()


def test_all_bytes_are_there_but_not_in_their_places() -> None:
    a, b = (b"\0\0\0" + bytes([offset]) + b"\1\x50\2\2" + b"abcd" for offset in (0, 4))
    frame = FrameAssembler()
    frame.add(1, False, b)
    assert not frame.add(2, True, b)  # twice the same place: eight bytes, as the marker's fragment wants
    assert not frame.add(3, False, a)
    assert not frame.complete


@pytest.mark.parametrize("place", [4, 5, 6, 7])
def test_a_fragment_of_another_frame_is_refused_and_changes_nothing(place: int) -> None:
    first, second, *rest = fragments(jpeg(quality=80)).payloads
    frame = FrameAssembler()
    frame.add(0, False, first)
    other = bytearray(second)
    other[place] ^= 1
    with pytest.raises(WireError, match="another type, Q or size"):
        frame.add(1, False, bytes(other))
    assert frame.fragments == 1
    for index, payload in enumerate([second, *rest], 1):
        frame.add(index, payload is rest[-1], payload)
    assert frame.complete


def test_a_frame_has_a_bound() -> None:
    first, second, *_ = fragments(jpeg()).payloads
    frame = FrameAssembler()
    frame.add(0, False, first)
    for sequence in (MAX_FRAGMENTS, -MAX_FRAGMENTS):
        with pytest.raises(WireError, match="at most 8192 fragments"):
            frame.add(sequence, False, second)
    frame.add(MAX_FRAGMENTS - 1, False, second)
    assert len(frame.missing) == MAX_FRAGMENTS - 2 + 1


def with_q(payload: bytes, q: int) -> bytes:
    return payload[:5] + bytes([q]) + payload[6:]


def test_tables_sent_once_are_remembered_for_their_q_but_never_for_255() -> None:
    payloads = fragments(jpeg(quality=100)).payloads
    marked = [with_q(payload, 200) for payload in payloads]
    bare = [marked[0][:8] + bytes(4) + marked[0][12 + 128 :], *marked[1:]]
    cache: dict[int, bytes] = {}
    stranger = FrameAssembler(cache)
    with pytest.raises(WireError, match="leaves out the tables of Q 200"):
        stranger.add(0, False, bare[0])
    frames = []
    for sent in (marked, bare):
        frame = FrameAssembler(cache)
        for index, payload in enumerate(sent):
            frame.add(index, index == len(sent) - 1, payload)
        frames.append(frame.frame())
    assert frames[0] == frames[1] == assemble(list(payloads)).frame()
    assert set(cache) == {200}
    with pytest.raises(WireError, match="two tables of 64 bytes; this has 0"):
        parse_fragment(with_q(bare[0], 255))


def test_a_picture_that_carries_its_eoi_gets_no_second_one() -> None:
    payloads = list(fragments(jpeg()).payloads)
    plain = assemble(payloads).frame()
    payloads[-1] += b"\xff\xd9"
    assert assemble(payloads).frame() == plain


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ("", "at least 8 bytes; this one has 0"),
        ("00 000000 01 50 28", "this one has 7"),
        ("00 000000 02 50 28 1e ab", "type 2 is not known"),
        ("00 000000 80 50 28 1e ab", "type 128 is not known"),
        ("00 000000 42 50 28 1e 0001ffff ab", "type 2 is not known"),
        ("00 000000 41 50 28 1e 0001ff", "ends inside its restart header"),
        ("00 000000 01 00 28 1e ab", "Q of 0 is reserved"),
        ("00 000000 01 64 28 1e ab", "Q of 100 is reserved"),
        ("00 000000 01 7f 28 1e ab", "Q of 127 is reserved"),
        ("00 000000 01 50 00 1e ab", "over 2040 pixels.* have it send smaller ones"),
        ("00 000000 01 50 28 00 ab", "over 2040 pixels"),
        ("00 000000 01 50 28 1e", "fragment of 0 bytes at 0"),
        ("00 400000 01 50 28 1e ab", "fragment of 1 bytes at 4194304"),
        ("00 000000 01 ff 28 1e 0000", "inside its quantisation table header"),
        ("00 000000 01 ff 28 1e 00000080 abcd", "inside its quantisation tables"),
        ("00 000000 01 ff 28 1e 00010080 abcd", "128 bytes with precision 1"),
        ("00 000000 01 ff 28 1e 000000c0 abcd", "192 bytes with precision 0"),
        ("00 000000 01 80 28 1e 00000000", "fragment of 0 bytes"),
    ],
)
def test_what_is_no_fragment_is_refused_with_a_sentence(payload: str, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        parse_fragment(bytes.fromhex(payload))


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.binary(max_size=40)), max_size=12))
def test_any_fragments_are_taken_or_refused(parts: list[tuple[int, bool, bytes]]) -> None:
    frame = FrameAssembler()
    for sequence, marker, tail in parts:
        with contextlib.suppress(WireError):
            frame.add(sequence, marker, b"\0\0\0" + tail[:1] + b"\1\x50\2\2" + tail[1:])
        with contextlib.suppress(WireError):
            frame.add(sequence, marker, tail)
    if frame.complete:
        assert frame.frame().startswith(jfif_header(16, 16, 1, derived_tables(80), 0)[:20])


# ---- other senders


@pytest.mark.parametrize("name", ["ffmpeg_jpeg", "gstreamer_jpeg"])
def test_other_senders_frames_decode(name: str) -> None:
    packets = [RtpPacket.parse(datagram) for datagram in stored(name)]
    frame = FrameAssembler()
    done = [frame.add(packet.sequence, packet.marker, packet.payload) for packet in packets]
    assert done == [False] * (len(packets) - 1) + [True]
    image = decode(frame.frame())
    assert image.shape == (120, 160, 3)
    assert image.std() > 40  # the test pictures are bright bars, and grey would be the sign of lost data
    assert fragments(frame.frame()).octets > 2000  # a frame from elsewhere can be sent on


@pytest.mark.parametrize("name", ["ffmpeg_jpeg", "gstreamer_jpeg"])
def test_every_truncation_of_a_stored_fragment_is_a_value_or_a_wire_error(name: str) -> None:
    for datagram in stored(name)[:2]:
        payload = RtpPacket.parse(datagram).payload
        for end in range(len(payload)):
            try:
                fragment = parse_fragment(payload[:end])
            except WireError:
                continue
            assert len(fragment.data) < end


@pytest.mark.parametrize("sides", [(0, 0), (0, 6), (8, 0)])
def test_a_picture_too_large_for_its_header_has_the_size_that_was_described(sides: tuple[int, int]) -> None:
    jpeg, _, _ = encode_jpeg(np.zeros((48, 64, 3), np.uint8))
    payloads = [payload[:6] + bytes(sides) + payload[8:] for payload in fragments(jpeg).payloads]
    told, untold = FrameAssembler(size=(2560, 1441)), FrameAssembler()
    batch = Run.of(0, 0, 0, True, payloads).batch
    assert told.add_run(0, True, batch) == []
    assert told.complete
    sof = told.frame().index(b"\xff\xc0")
    assert told.frame()[sof + 5 : sof + 9] == struct.pack("!HH", 1441, 2560)
    assert {type(refused) for refused in untold.add_run(0, True, batch)} == {NoSizeError}


@pytest.mark.parametrize("quality", [20, 80, 100])
@pytest.mark.parametrize("size", [576, 1200, 8000])
@pytest.mark.parametrize("restart", [0, 3])
def test_a_frame_packed_once_is_put_together_from_batches_cut_anywhere(quality: int, size: int, restart: int) -> None:
    data = jpeg(width=320, height=240, quality=quality, restart=restart)
    batch = packed(data, packet_size=size).stamped(sequence=65_530, timestamp=90, ssrc=7)
    assert all(len(packet) <= size for packet in batch.datagrams())
    if size == 1200:
        packetizer = JpegPacketizer(ssrc=7, sequence=65_530, timestamp_offset=90)
        assert batch.datagrams() == packetizer.pack(EncodedFrame(0, 0, data, 320, 240))
    whole = FrameAssembler()
    whole.add_run(0, True, batch)
    np.testing.assert_array_equal(decode(whole.frame()), decode(data))
    chance = random.Random(quality + size)
    for _ in range(10):
        assembler, total = FrameAssembler(), batch.total
        cuts = sorted({0, total, *(chance.randrange(total) for _ in range(3))})
        parts = list(itertools.pairwise(cuts))
        chance.shuffle(parts)
        for first, after in parts:
            assert assembler.add_run(first, after == total, batch.part(first, after)) == []
            assert assembler.add_run(first, after == total, batch.part(first, after)) == []  # twice changes nothing
        assert assembler.frame() == whole.frame()


def test_a_fragment_that_is_not_where_it_says_is_no_part_of_a_batch() -> None:
    batch = packed(jpeg(width=320, height=240, quality=90)).stamped(sequence=0, timestamp=0, ssrc=0)
    wrong = bytearray(batch.data)
    wrong[5 * batch.size + 12 + 3] ^= 1  # the sixth one's offset
    assembler = FrameAssembler()
    assembler.add_run(0, True, Batch(bytes(wrong), batch.size))
    assert not assembler.complete


@given(
    st.sampled_from([(16, 8), (64, 48), (320, 240)]),
    st.sampled_from([0, 3]),
    st.integers(20, 100),
    st.sampled_from([576, 600, 1200, 8000]),
    st.integers(0, 1 << 32),
)
def test_a_frame_that_came_whole_is_what_an_assembler_makes_of_it(
    sides: tuple[int, int], restart: int, quality: int, size: int, seed: int
) -> None:
    """As sent, and with any byte of a header changed: put together at once as it would be, or left to an assembler."""
    chance = random.Random(seed)
    data = jpeg(width=sides[0], height=sides[1], quality=quality, restart=restart)
    batch = packed(data, packet_size=size).stamped(sequence=7, timestamp=90, ssrc=7)
    plain = whole_frame(batch)
    assert (plain is None) == (batch.total == 1 or restart > 0 or quality == 100)
    for place in (None, *(chance.randrange(HEADER_BYTES, HEADER_BYTES + 8) for _ in range(8))):
        spoilt = bytearray(batch.data)
        if place is not None:
            spoilt[chance.randrange(batch.total) * batch.size + place] ^= 1 << chance.randrange(8)
        given = Batch(bytes(spoilt), batch.size)
        told = chance.choice([None, (320, 240)])
        assembler = FrameAssembler(size=told)
        assembler.add_run(0, True, given)
        at_once = whole_frame(given, told)
        assert at_once is None or (assembler.complete and at_once == assembler.frame())
    cut = batch.part(1, batch.total)
    assert not cut.data or whole_frame(cut) is None


def test_pictures_in_turn_are_each_packed_by_their_own_headers() -> None:
    """What was packed last is known again by its headers, and by nothing less."""
    kinds = [jpeg(), jpeg(quality=30), jpeg(160, 120), jpeg(restart=2), jpeg(sampling=S422), jpeg() + b"camera"]

    def fresh(data: bytes, kind: int, size: int) -> Packed:
        payloads._last_beginning = None
        return packed(data, payload_type=kind, packet_size=size)

    wanted = {(data, kind): fresh(data, kind, size) for data in kinds for kind, size in ((26, 1200), (96, 700))}
    assert len(set(wanted.values())) == 2 * (len(kinds) - 1)
    cut, headless = jpeg()[:-2].replace(b"\xff\xd9", b""), jpeg()[2:]
    for first, then in itertools.product(wanted, repeat=2):
        for data, kind in (first, then):
            assert packed(data, payload_type=kind, packet_size=1200 if kind == 26 else 700) == wanted[data, kind]
        for refused in (cut, headless, jpeg()[:100], jpeg(sampling=S444)):
            with pytest.raises(WireError):
                packed(refused)
