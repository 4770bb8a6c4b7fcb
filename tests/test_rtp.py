"""RTP packets, numbers that wrap, media clocks, reception statistics, linear sound."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import stored
from packing import L16Packetizer

from avlab.wire import rtp
from avlab.wire.batch import Batch, batches
from avlab.wire.payloads.l16 import packed_sound, parse_l16
from avlab.wire.rtp import (
    HEADER_BYTES,
    JPEG,
    L16_STEREO,
    MAX_PACKET,
    Packed,
    ReceiverStats,
    Reception,
    RtpPacket,
    RtpRun,
    Unwrapper,
    first_sequence,
    is_rtcp,
    ns_to_ticks,
    payloads,
    rtp_timestamp,
    runs,
    seq_delta,
    spanned,
    ticks_to_ns,
)
from avlab.wire.units import NS, Chunk, WireError

STORED = ("ffmpeg_jpeg", "gstreamer_jpeg", "ffmpeg_l16")
PLAIN = bytes.fromhex("801a0e011835f544be65e476")


@given(
    st.builds(
        RtpPacket,
        payload_type=st.integers(0, 127),
        sequence=st.integers(0, 0xFFFF),
        timestamp=st.integers(0, 0xFFFFFFFF),
        ssrc=st.integers(0, 0xFFFFFFFF),
        marker=st.booleans(),
        payload=st.binary(max_size=64),
    )
)
def test_a_packet_comes_back_as_it_was(packet: RtpPacket) -> None:
    data = packet.serialize()
    assert RtpPacket.parse(data) == packet
    parsed = RtpPacket.parse(memoryview(data))
    assert parsed == packet
    assert type(parsed.payload) is bytes
    assert type(parsed.marker) is bool


@pytest.mark.parametrize(
    ("packet", "word"),
    [
        (RtpPacket(128, 0, 0, 0, False, b""), "payload type"),
        (RtpPacket(-1, 0, 0, 0, False, b""), "payload type"),
        (RtpPacket(26, 0x10000, 0, 0, False, b""), "sequence number"),
        (RtpPacket(26, 0, 1 << 32, 0, False, b""), "timestamp"),
        (RtpPacket(26, 0, 0, -1, False, b""), "SSRC"),
    ],
)
def test_a_field_that_does_not_fit_is_named(packet: RtpPacket, word: str) -> None:
    with pytest.raises(WireError, match=word):
        packet.serialize()


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        (PLAIN, b""),
        (PLAIN + b"ab", b"ab"),
        (b"\x82" + PLAIN[1:] + bytes(8) + b"ab", b"ab"),  # two contributing sources
        (b"\x90" + PLAIN[1:] + b"\xbe\xde\0\1" + bytes(4) + b"ab", b"ab"),  # an extension of one word
        (b"\x90" + PLAIN[1:] + b"\xbe\xde\0\0", b""),  # an empty extension
        (b"\xa0" + PLAIN[1:] + b"ab\0\0\3", b"ab"),  # three bytes of padding
        (b"\xb1" + PLAIN[1:] + bytes(4) + b"\xbe\xde\0\1" + bytes(4) + b"ab\1", b"ab"),  # all of them
        (b"\xa0" + PLAIN[1:] + b"\1", b""),  # padding alone
    ],
)
def test_what_stands_around_the_payload_is_taken_off(data: bytes, payload: bytes) -> None:
    assert RtpPacket.parse(data) == RtpPacket(26, 0x0E01, 0x1835F544, 0xBE65E476, False, payload)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "at least 12 bytes; this one has 0"),
        (PLAIN[:11], "this one has 11"),
        (b"\x40" + PLAIN[1:], "not RTP version 2: its version field is 1"),
        (b"\x8f" + PLAIN[1:], "header says 72 bytes; the packet has 12"),
        (b"\x90" + PLAIN[1:] + b"\0\0\0", "ends inside its header extension"),
        (b"\x90" + PLAIN[1:] + b"\0\0\xff\xff", "header says 262156 bytes"),
        (b"\xa0" + PLAIN[1:], "0 bytes of padding"),
        (b"\xa0" + PLAIN[1:] + b"\0", "0 bytes of padding"),
        (b"\xa0" + PLAIN[1:] + b"a\3", "3 bytes of padding; 2 follow"),
    ],
)
def test_what_is_no_packet_is_refused_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        RtpPacket.parse(data)


@pytest.mark.parametrize("name", STORED)
def test_stored_packets_come_back_byte_by_byte(name: str) -> None:
    datagrams = stored(name)
    packets = [RtpPacket.parse(datagram) for datagram in datagrams]
    assert [packet.serialize() for packet in packets] == datagrams
    assert [packet.sequence - packets[0].sequence for packet in packets] == list(range(len(packets)))
    assert len({packet.ssrc for packet in packets}) == 1


@pytest.mark.parametrize("name", STORED)
def test_every_truncation_is_a_packet_or_a_wire_error(name: str) -> None:
    datagram = stored(name)[0]
    for first in (0x80, 0x81, 0x8F, 0x90, 0x9F, 0xA0, 0xAF, 0xB0, 0xBF, 0x00):  # sources, extension, padding
        for end in range(len(datagram)):
            with contextlib.suppress(WireError):
                RtpPacket.parse(bytes([first]) + datagram[1:end])


@given(st.binary(max_size=100))
def test_any_bytes_are_a_packet_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert RtpPacket.parse(data).payload in data


def test_rtcp_is_told_from_rtp_on_one_socket() -> None:
    for name in STORED:
        assert not any(is_rtcp(datagram) for datagram in stored(name))
    assert all(is_rtcp(stored(name)[0]) for name in ("ffmpeg_video_rtcp", "ffmpeg_audio_rtcp"))
    assert not is_rtcp(b"\x80")


# ---- numbers that wrap, and clocks


@pytest.mark.parametrize(
    ("a", "b", "delta"),
    [(1, 0, 1), (0, 1, -1), (0, 0xFFFF, 1), (0xFFFF, 0, -1), (5, 65530, 11), (0x7FFF, 0, 0x7FFF), (0x8000, 0, -0x8000)],
)
def test_the_distance_of_sequence_numbers(a: int, b: int, delta: int) -> None:
    assert seq_delta(a, b) == delta


@pytest.mark.parametrize("bits", [16, 32])
@given(first=st.integers(0, 0xFFFF), steps=st.lists(st.integers(-0x7000, 0x7000), max_size=60))
def test_unwrapping_undoes_wrapping(bits: int, first: int, steps: list[int]) -> None:
    """Numbers that stay within half the range of the highest come out as they were before they wrapped."""
    unwrap = Unwrapper(bits)
    assert unwrap(first) == first
    highest = first
    for step in steps:
        true = highest + step
        assert unwrap(true % (1 << bits)) == true
        highest = max(highest, true)
        assert unwrap.highest == highest


def test_unwrapping_a_number_older_than_the_first() -> None:
    unwrap = Unwrapper(16)
    assert [unwrap(value) for value in (3, 65535, 2, 65000, 4)] == [3, -1, 2, -536, 4]


@pytest.mark.parametrize(
    ("ns", "rate", "ticks"),
    [
        (0, 90_000, 0),
        (NS, 90_000, 90_000),
        (33_333_333, 90_000, 3000),
        (33_366_667, 90_000, 3003),
        (-NS, 48_000, -48_000),
        (20_000_000, 44_100, 882),
        (11_111, 90_000, 1),
        (5_555, 90_000, 0),
        (10**18, 44_100, 44_100 * 10**9),
    ],
)
def test_nanoseconds_to_ticks(ns: int, rate: int, ticks: int) -> None:
    assert ns_to_ticks(ns, rate) == ticks


@given(st.integers(-(10**15), 10**15), st.sampled_from([8000, 44_100, 48_000, 90_000]))
def test_ticks_come_back_through_nanoseconds_exactly(ticks: int, rate: int) -> None:
    ns = ticks_to_ns(ticks, rate)
    assert abs(ns * rate - ticks * NS) * 2 <= rate
    assert ns_to_ticks(ns, rate) == ticks


def test_a_timestamp_wraps() -> None:
    assert rtp_timestamp(NS, 90_000, 0xFFFFFFFF) == 89_999


# ---- reception statistics


def test_a_report_counts_losses_since_the_last_one_and_in_all() -> None:
    stats = ReceiverStats(90_000)
    assert stats.report(0) is None
    for sequence in (65533, 65534, 65535, 0, 2, 3, 1, 6):  # 4 and 5 are wanting
        stats.update(sequence, 0, 0)
    first = stats.report(0)
    assert first is not None
    assert (first.fraction_lost, first.cumulative_lost, first.highest_sequence) == (2 * 256 // 10, 2, 65536 + 6)
    for sequence in (7, 8, 8, 8):  # duplicates count as received (RFC 3550 6.4.1)
        stats.update(sequence, 0, 0)
    second = stats.report(0)
    assert second is not None
    assert (second.fraction_lost, second.cumulative_lost, second.highest_sequence) == (0, 0, 65536 + 8)
    third = stats.report(0)
    assert third is not None
    assert third.fraction_lost == 0


@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.integers(0, 20_000_000) | st.integers(0, 9_000_000_000)),
        min_size=1,
        max_size=12,
    )
)
def test_packets_that_came_together_count_as_one_by_one(bursts: list[tuple[int, int]]) -> None:
    together, singly = ReceiverStats(90_000), ReceiverStats(90_000)
    sequence, now_ns = 65_500, 0
    for frame, (count, later_ns) in enumerate(bursts):
        now_ns += later_ns
        together.update(sequence, 3000 * frame, now_ns, count=count)
        for number in range(sequence, sequence + count):
            singly.update(number & 0xFFFF, 3000 * frame, now_ns)
        sequence = (sequence + count) & 0xFFFF
    assert together.report(now_ns) == singly.report(now_ns)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 6),
            st.integers(0, 20_000_000) | st.integers(0, 9_000_000_000),
            st.sampled_from(["together", "singly", "stepped", "asked"]),
        ),
        max_size=40,
    )
)
def test_chunks_count_as_their_packets_one_by_one(chunks: list[tuple[int, int, str]]) -> None:
    together, singly = ReceiverStats(44_100), ReceiverStats(44_100)
    number, timestamp, now_ns = 65_500, 2**32 - 900, 0
    for stats in (together, singly):
        stats.update(number, timestamp, now_ns)
    for count, later_ns, way in chunks:
        now_ns += later_ns
        first = together.numbers.going_on((number + 1) & 0xFFFF)
        assert first == number + 1
        timestamp = (timestamp + 294) & 0xFFFFFFFF
        if way == "together":
            together.went_on(first, timestamp, now_ns, count=count, ticks=294)
        for at in range(count):
            for stats in (together, singly) if way != "together" else (singly,):
                stats.update((first + at) & 0xFFFF, (timestamp + at * 294) & 0xFFFFFFFF, now_ns)
        number, timestamp = number + count, (timestamp + (count - 1) * 294) & 0xFFFFFFFF
        if way == "stepped":
            together.clock_stepped(), singly.clock_stepped()
        if way == "asked":
            assert together.report(now_ns) == singly.report(now_ns)
    assert together.report(now_ns) == singly.report(now_ns)
    assert together.numbers.last == singly.numbers.last == number


def test_jitter_is_nothing_on_a_steady_link_and_settles_at_the_mean_deviation() -> None:
    steady, uneven = ReceiverStats(90_000), ReceiverStats(90_000)
    for index in range(2000):
        timestamp = (0xFFFF0000 + 3000 * index) & 0xFFFFFFFF  # wraps on the way
        arrival_ns = ticks_to_ns(3000 * index, 90_000) + 1
        steady.update(index & 0xFFFF, timestamp, arrival_ns)
        uneven.update(index & 0xFFFF, timestamp, arrival_ns + (10_000_000 if index % 2 else 0))
    calm, shaken = steady.report(0), uneven.report(0)
    assert calm is not None
    assert shaken is not None
    assert calm.jitter == 0
    assert shaken.jitter == pytest.approx(900, abs=2)  # each step is 10 ms off: 900 ticks


def test_a_report_echoes_the_last_sender_report() -> None:
    stats = ReceiverStats(90_000)
    stats.update(1, 0, 0)
    stats.sender_report(0x0123_4567_89AB_CDEF, 5 * NS)
    report = stats.report(5 * NS + NS // 2)
    assert report is not None
    assert (report.last_sr, report.delay_since_sr) == (0x4567_89AB, 32_768)


# ---- runs

_FIELDS = st.builds(
    RtpPacket,
    payload_type=st.sampled_from((26, 99)),
    sequence=st.sampled_from((65_534, 65_535, 0, 1, 2)),
    timestamp=st.sampled_from((0, 3000)),
    ssrc=st.sampled_from((7, 8)),
    marker=st.booleans(),
    payload=st.binary(max_size=3),
)
_ODD = st.sampled_from(
    (b"", b"short", bytes(12), PLAIN, b"\xa0" + PLAIN[1:] + b"\1\2\2", b"\x90" + PLAIN[1:] + bytes(4))
)


@given(
    st.lists(
        st.one_of(st.integers(1, 9), st.tuples(st.integers(1, 5), st.integers(0, 900)), _FIELDS, _ODD), max_size=12
    ),
    st.booleans(),
)
def test_runs_hold_what_the_packets_held(items: list[int | tuple[int, int] | RtpPacket | bytes], spaced: bool) -> None:
    packets: list[bytes] = []
    for item in items:
        if isinstance(item, tuple) and not isinstance(item, RtpPacket):  # a chunk's packets
            first = 65_533 + len(packets)
            packets += [
                RtpPacket(
                    10, (first + at) & 0xFFFF, (2**32 - 900 + at * item[1]) & 0xFFFFFFFF, 8, False, b"data"
                ).serialize()
                for at in range(item[0])
            ]
        elif isinstance(item, int):  # a frame's packets
            first = 65_533 + len(packets)
            packets += [
                RtpPacket(26, (first + at) & 0xFFFF, 90, 7, at == item - 1, b"data").serialize() for at in range(item)
            ]
        else:
            packets.append(item.serialize() if isinstance(item, RtpPacket) else item)
    packets = [data for data in packets if data]
    wanted: list[RtpPacket | str] = []
    sizes: list[int] = []
    for data in packets:
        try:
            wanted.append(RtpPacket.parse(data))
            sizes.append(len(data))
        except WireError as error:
            wanted.append(str(error))
    found: list[RtpPacket | str] = []
    came: list[int] = []
    for run in (run for batch in batches(packets) for run in runs(batch, spaced=spaced)):
        if isinstance(run, WireError):
            found.append(str(run))
            continue
        came += run.sizes
        assert [RtpPacket.parse(packet).payload for packet in run.packets] == run.payloads
        for at, payload in enumerate(run.payloads):
            number, marker = (run.sequence + at) & 0xFFFF, run.marker and at == len(run.payloads) - 1
            stamp = (run.timestamp + at * run.ticks) & 0xFFFFFFFF
            found.append(RtpPacket(run.payload_type, number, stamp, run.ssrc, marker, payload))
            assert run.part(at, at + 1).timestamp == stamp
    assert found == wanted
    assert came == sizes


@pytest.mark.parametrize("size", range(1, 2 * HEADER_BYTES))
@pytest.mark.parametrize("spaced", [False, True])
def test_datagrams_that_end_within_a_header_are_refused_each_by_itself(size: int, spaced: bool) -> None:
    """As the system hands them over: of one size, the last perhaps shorter."""
    for more in range(size):
        for count in (1, 2, 5, 40):
            data = (b"\x80" * size) * count + b"\x80" * more
            found = list(runs(Batch(data, size), spaced=spaced))
            refused = sum(isinstance(run, WireError) for run in found)
            short = count if size < HEADER_BYTES else 0
            assert refused == short + (0 < more < HEADER_BYTES)
            whole = [run.batch.total for run in found if isinstance(run, RtpRun)]
            assert sum(whole) == count + (more > 0) - refused


def test_a_frame_that_came_in_one_piece_is_one_run() -> None:
    packets = [RtpPacket(26, (65_530 + at) & 0xFFFF, 90, 7, at == 19, b"data").serialize() for at in range(20)]
    (whole,) = batches(packets)
    assert [run.batch.total for run in runs(whole) if not isinstance(run, WireError)] == [20]
    (lossy,) = batches(packets[:5] + packets[6:])
    assert [run.batch.total for run in runs(lossy) if not isinstance(run, WireError)] == [5, 14]
    front, back = (run for run in runs(lossy) if not isinstance(run, WireError))
    assert (front.sequence, front.marker, back.sequence, back.marker) == (65_530, False, 0, True)
    assert (back.part(2, 4).sequence, back.part(2, 4).marker, back.part(12, 14).marker) == (2, False, True)


def test_a_chunk_of_sound_is_one_run_for_whoever_wants_it_so() -> None:
    packets = [RtpPacket(10, at, 300 * at, 8, False, b"data").serialize() for at in range(4)]
    (whole,) = batches(packets)
    assert [(run.batch.total, run.ticks) for run in runs(whole, spaced=True) if isinstance(run, RtpRun)] == [(4, 300)]
    assert [(run.batch.total, run.ticks) for run in runs(whole) if isinstance(run, RtpRun)] == [(1, 0)] * 4
    packets[2] = RtpPacket(10, 2, 601, 8, False, b"data").serialize()
    (odd,) = batches(packets)
    assert [run.batch.total for run in runs(odd, spaced=True) if isinstance(run, RtpRun)] == [2, 2]


@given(st.integers(0, 0xFFFF), st.integers(1, 600), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_a_stamped_frame_has_the_numbers_it_was_given(sequence: int, total: int, timestamp: int, ssrc: int) -> None:
    blank = [RtpPacket(26, 0, 0, 0, at == total - 1, bytes([at & 0xFF]) * 5).serialize() for at in range(total)]
    (batch,) = batches(blank)
    stamped = Packed(batch).stamped(sequence=sequence, timestamp=timestamp, ssrc=ssrc)
    for at, data in enumerate(stamped.datagrams()):
        wanted = RtpPacket(26, (sequence + at) & 0xFFFF, timestamp, ssrc, at == total - 1, bytes([at & 0xFF]) * 5)
        assert RtpPacket.parse(data) == wanted
    found = [run for run in runs(stamped) if not isinstance(run, WireError)]
    assert sum(run.batch.total for run in found) == total
    assert len(found) == -(-total // 255)


@given(
    st.data(),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 300),
    st.sampled_from([0, 0, 300, 0x8000_0000]),
)
def test_what_a_stamped_batch_knows_is_what_its_bytes_say(
    drawn: st.DataObject, sequence: int, timestamp: int, total: int, ticks: int
) -> None:
    """Of packets as they are made and of odd ones: markers and payload types anywhere, other versions, short ends."""
    firsts, seconds = ([0x80] * total, [10] * total) if total else ([], [])
    if total and drawn.draw(st.booleans()):
        seconds[-1] |= 0x80
    for kinds, values in ((firsts, [0x80, 0x90, 0xA0, 0]), (seconds, [10, 11, 0x8A])):
        if total and drawn.draw(st.integers(0, 3)) == 0:
            kinds[drawn.draw(st.integers(0, total - 1))] = drawn.draw(st.sampled_from(values))
    size, last = drawn.draw(st.integers(HEADER_BYTES, 20)), 0
    if total:
        last = drawn.draw(st.integers(HEADER_BYTES if total == 1 else 4, size))
    blank = b"".join(bytes((first, second)) + bytes(size - 2) for first, second in zip(firsts, seconds, strict=True))
    stamped = Packed(Batch(blank[: len(blank) - size + last] if total else b"", size), ticks).stamped(
        sequence=sequence, timestamp=timestamp, ssrc=7
    )
    if total and last < HEADER_BYTES:  # such a packet cannot be stamped
        assert stamped.run is None
        return
    first = drawn.draw(st.integers(0, total))
    one_by_one = [stamped.datagram(at) for at in range(total)]  # before all of them are laid out, and after
    assert one_by_one == stamped.datagrams() == [stamped.datagram(at) for at in range(total)]
    for batch in (stamped, stamped.part(first, drawn.draw(st.integers(first, total)))):
        read = Batch(batch.data, batch.size)
        assert batch == read
        assert (batch.total, batch.length, batch.last) == (read.total, read.length, read.last)
        for spaced in (False, True):
            assert list(map(str, runs(batch, spaced=spaced))) == list(map(str, runs(read, spaced=spaced)))
        assert rtp.chunk(batch) == rtp.chunk(read)
        assert payloads(batch) == payloads(read)
        if batch.total:
            assert first_sequence(batch) == first_sequence(read)
            assert spanned(batch) == spanned(read)
    assert pickle.loads(pickle.dumps(stamped)) == stamped


@pytest.mark.parametrize(("frames", "channels", "most"), [(882, 2, 1200), (882, 1, 576), (160, 2, 1200), (1, 1, 1200)])
def test_sound_packed_once_is_what_a_packetizer_makes(frames: int, channels: int, most: int) -> None:
    samples = np.arange(frames * channels, dtype=np.int16).reshape(frames, channels)
    chunk = Chunk(0, NS, samples, 44_100)
    packed = packed_sound(chunk, payload_type=10, rate=44_100, channels=channels, packet_size=most)
    stamped = packed.stamped(sequence=65_535, timestamp=0xFFFFFFF0, ssrc=9)
    packets = [RtpPacket.parse(data) for data in stamped.datagrams()]
    assert b"".join(packet.payload for packet in packets) == samples.astype(">i2").tobytes()
    assert all(len(data) <= most for data in stamped.datagrams())
    at = 0
    for number, packet in enumerate(packets):
        assert packet.sequence == (65_535 + number) & 0xFFFF
        assert packet.timestamp == (0xFFFFFFF0 + at) & 0xFFFFFFFF
        at += len(packet.payload) // (2 * channels)
    with pytest.raises(WireError, match="Resample"):
        packed_sound(chunk, payload_type=10, rate=48_000, channels=channels)


# ---- linear sound


def chunk(frames: int, channels: int, rate: int = 44_100, pts_ns: int = 0) -> Chunk:
    samples = np.random.default_rng(frames).integers(-32768, 32768, (frames, channels)).astype(np.int16)
    return Chunk(0, pts_ns, samples, rate)


def packetizer(channels: int, rate: int = 44_100, **settings: int) -> L16Packetizer:
    known = {"payload_type": L16_STEREO, "ssrc": 7, "sequence": 65534, "timestamp_offset": 0xFFFFFFF0}
    return L16Packetizer(**(known | settings), rate=rate, channels=channels)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("frames", [1, 2, 297, 298, 594, 595, 882, 960, 4410])
def test_sound_comes_back_from_small_packets_cut_between_sample_frames(frames: int, channels: int) -> None:
    sound = chunk(frames, channels)
    data = packetizer(channels).pack(sound)
    parsed = [RtpPacket.parse(packet) for packet in data]
    assert max(map(len, data)) <= MAX_PACKET
    assert len({len(packet) for packet in data[:-1]}) <= 1
    pieces = [parse_l16(packet.payload, channels) for packet in parsed]
    np.testing.assert_array_equal(np.concatenate(pieces), sound.samples)
    assert pieces[0].dtype == np.int16
    position = 0
    for index, (packet, piece) in enumerate(zip(parsed, pieces, strict=True)):
        assert packet.sequence == (65534 + index) & 0xFFFF
        assert packet.timestamp == (0xFFFFFFF0 + position) & 0xFFFFFFFF
        assert packet.marker == (index == 0)
        position += len(piece)


def test_twenty_milliseconds_of_stereo_are_three_equal_packets() -> None:
    assert [len(packet) for packet in packetizer(2).pack(chunk(882, 2))] == [HEADER_BYTES + 294 * 4] * 3


def test_chunks_follow_each_other_in_sequence_and_time_and_only_the_first_is_marked() -> None:
    stream = packetizer(2, sequence=0, timestamp_offset=100)
    packets = [
        RtpPacket.parse(packet)
        for index in range(5)
        for packet in stream.pack(chunk(882, 2, pts_ns=ticks_to_ns(882 * index, 44_100)))
    ]
    assert [packet.sequence for packet in packets] == list(range(15))
    assert [packet.timestamp for packet in packets] == [100 + 294 * index for index in range(15)]
    assert [packet.marker for packet in packets] == [True] + [False] * 14
    assert stream.sequence == 15
    assert stream.pack(chunk(0, 2)) == []


def test_sound_is_big_endian() -> None:
    sound = Chunk(0, 0, np.array([[0x0102, -2]], dtype=np.int16), 44_100)
    assert packetizer(2).pack(sound)[0][HEADER_BYTES:] == b"\x01\x02\xff\xfe"


@pytest.mark.parametrize("sound", [chunk(10, 1), chunk(10, 2, 48_000), Chunk(0, 0, np.zeros(4, np.int16), 44_100)])
def test_sound_of_another_shape_is_refused(sound: Chunk) -> None:
    with pytest.raises(WireError, match="2 channels at 44100 Hz"):
        packetizer(2).pack(sound)


@pytest.mark.parametrize(("size", "channels"), [(3, 1), (6, 2), (4, 0)])
def test_half_a_sample_frame_is_refused(size: int, channels: int) -> None:
    with pytest.raises(WireError, match="whole sample frames"):
        parse_l16(bytes(size), channels)


def test_ffmpegs_sound_is_the_tone_that_was_sent() -> None:
    packets = [RtpPacket.parse(datagram) for datagram in stored("ffmpeg_l16")]
    assert {packet.payload_type for packet in packets} == {L16_STEREO}
    sound = np.concatenate([parse_l16(packet.payload, 2) for packet in packets])
    assert [packet.timestamp - packets[0].timestamp for packet in packets] == [0, 97, 194]
    np.testing.assert_array_equal(sound[:, 0], sound[:, 1])
    crossings = np.count_nonzero(np.diff(np.signbit(sound[:, 0])))
    assert crossings / (len(sound) / 44_100) / 2 == pytest.approx(440, rel=0.15)


def test_ffmpegs_pictures_bear_jpegs_payload_type() -> None:
    assert {RtpPacket.parse(datagram).payload_type for datagram in stored("ffmpeg_jpeg")} == {JPEG}


# ---- sources that start again, and numbers that are out of line


def fed(stats: ReceiverStats, numbers: Iterable[int], *, now_ns: int = 0) -> list[int | None]:
    """What becomes of packets that come one by one, 10 ms of media each."""
    out = []
    for at, number in enumerate(numbers):
        moment_ns = now_ns + at * 10_000_000
        out.append(stats.update(number & 0xFFFF, ns_to_ticks(moment_ns, 90_000) & 0xFFFFFFFF, moment_ns))
    return out


def reported(stats: ReceiverStats) -> Reception:
    report = stats.report(0)
    assert report is not None
    return report


def test_numbers_that_jump_about_are_no_millions_lost() -> None:
    stats = ReceiverStats(90_000)
    assert max(number or 0 for number in fed(stats, (at * 32_767 for at in range(300)))) == 0
    assert reported(stats).cumulative_lost <= 0  # half of them seem to be old
    pairs = ReceiverStats(90_000)  # each jump proved by a second packet
    taken = fed(pairs, (at // 2 * 32_767 + at % 2 for at in range(300)))
    assert reported(pairs).cumulative_lost == 0
    numbers = [number for number in taken if number is not None]
    assert numbers == sorted(numbers)
    assert max(numbers) < 400


@pytest.mark.parametrize("stray", [3_200, 20_000, 40_000, 60_000, 65_400])
@pytest.mark.parametrize("begin", [0, 1_000, 65_500])
def test_one_packet_out_of_line_moves_nothing(stray: int, begin: int) -> None:
    stats = ReceiverStats(90_000)
    numbers = [*range(begin, begin + 50), begin + 49 + stray, *range(begin + 50, begin + 100)]
    assert fed(stats, numbers) == [*range(begin, begin + 50), None, *range(begin + 50, begin + 100)]
    assert (reported(stats).cumulative_lost, reported(stats).highest_sequence) == (0, begin + 99)


@pytest.mark.parametrize("jump", [3_001, 9_000, 32_767, 32_768, 40_000, 65_000, 65_400])
def test_a_source_that_starts_again_loses_nothing(jump: int) -> None:
    stats = ReceiverStats(90_000)
    fed(stats, range(100, 600))
    again = 599 + jump
    assert fed(stats, range(again, again + 20), now_ns=5 * NS) == [None, *range(601, 620)]
    assert stats.numbers.restarts == 1
    report = reported(stats)
    assert (report.cumulative_lost, report.highest_sequence) == (0, (again + 19) & 0xFFFF)
    assert stats.numbers.wire(619) == (again + 19) & 0xFFFF
    assert stats.numbers.peek((again + 7) & 0xFFFF) == 607


@pytest.mark.parametrize("back", [5, 60, 99, 100, 500])
def test_numbers_that_start_again_a_little_behind(back: int) -> None:
    """A short film that begins again with the same numbers: its packets are no duplicates for long."""
    stats = ReceiverStats(90_000)
    fed(stats, range(1_000, 1_500))
    taken = fed(stats, range(1_500 - back, 1_560 - back), now_ns=5 * NS)
    assert stats.numbers.restarts == 1
    assert taken[3:] == list(range(taken[3] or 0, (taken[3] or 0) + 57))
    assert (taken[3] or 0) > 1_499


@pytest.mark.parametrize("late", [1, 50, 99, 101, 400, 900])
def test_packets_that_were_overtaken_are_old_however_many_there_are(late: int) -> None:
    stats = ReceiverStats(90_000)
    for number in range(1_000):  # 1,000 in half a second
        stats.update(number, number * 45, number * 500_000)
    for number in range(1_000 - late, 1_000 - late + min(late, 5)):
        assert stats.update(number, number * 45, NS // 2) == number
    assert stats.numbers.restarts == 0


@pytest.mark.parametrize(("silent_s", "lost"), [(3.0, 6_000), (20.0, 40_000)])
def test_an_outage_is_as_long_as_the_numbers_say(silent_s: float, lost: int) -> None:
    stats = ReceiverStats(90_000)
    for number in range(4_000):  # 2,000 a second
        stats.update(number & 0xFFFF, number * 45, number * 500_000)
    begin = 4_000 + lost
    for number in range(begin, begin + 100):
        assert stats.update(number & 0xFFFF, number * 45 & 0xFFFFFFFF, number * 500_000) in (number, None)
    assert stats.numbers.restarts == 0
    assert reported(stats).cumulative_lost == lost


def test_a_source_in_anothers_place_has_higher_numbers_of_the_same_bits() -> None:
    for above, sequence in ((70_000, 5), (70_000, 4_464), (70_000, 4_465), (10, 11), (10, 10)):
        stats = ReceiverStats(90_000, above=above)
        number = stats.update(sequence, 0, 0)
        assert number is not None
        assert above < number <= above + 65_536
        assert number % 65_536 == sequence
        assert reported(stats).highest_sequence == sequence


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(1, 40)), max_size=60))
def test_whatever_comes_no_more_is_lost_than_jumps_allow(packets: list[tuple[int, int, int]]) -> None:
    stats, now_ns, received = ReceiverStats(90_000), 0, 0
    for sequence, timestamp, count in packets:
        now_ns += 1_000_000
        number = stats.update(sequence, timestamp, now_ns, count=count)
        received += count
        assert number is None or number + count - 1 <= (stats.numbers.highest or 0)
    if packets:
        assert reported(stats).cumulative_lost <= 3_000 * received


def test_a_clock_that_stepped_is_no_jitter() -> None:
    stats = ReceiverStats(90_000)
    fed(stats, range(50))
    stats.update(50, 4_000_000_000, 500_000_000)
    stats.clock_stepped()
    stats.update(51, 4_000_000_900, 510_000_000)
    assert reported(stats).jitter == 0
