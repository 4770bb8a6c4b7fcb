"""RTCP's compound packets and NTP time."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import stored

from avlab.wire.rtcp import (
    MAX_NACK_FIELDS,
    Bye,
    Delay,
    ExtendedReport,
    Nack,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    Sdes,
    SenderReport,
    ns_to_ntp,
    ntp_to_ns,
    parse_compound,
    serialize_bye,
    serialize_compound,
    serialize_sender_report,
)
from avlab.wire.rtp import Reception
from avlab.wire.units import NS, WireError

U32 = st.integers(0, 0xFFFFFFFF)
BLOCKS = st.lists(
    st.builds(ReportBlock, U32, st.integers(0, 255), st.integers(-(1 << 23), (1 << 23) - 1), U32, U32, U32, U32),
    max_size=3,
).map(tuple)
REPORTS = st.builds(SenderReport, U32, st.integers(0, (1 << 64) - 1), U32, U32, U32, BLOCKS) | st.builds(
    ReceiverReport, U32, BLOCKS
)
BYES = st.builds(Bye, st.lists(U32, max_size=3).map(tuple), st.text(max_size=20))
SR = SenderReport(7, 0x0123456789ABCDEF, 90_000, 10, 12_000, (ReportBlock(8, 1, -2, 3, 4, 5, 6),))
COMPOUND: list[RtcpPacket] = [SR, Sdes(7, "avlab"), Bye((7, 8), "end of clip")]


@given(REPORTS, st.builds(Sdes, U32, st.text(max_size=60)), st.lists(BYES, max_size=2))
def test_a_compound_comes_back_as_it_was(report: SenderReport | ReceiverReport, sdes: Sdes, byes: list[Bye]) -> None:
    packets = [report, sdes, *byes]
    data = serialize_compound(packets)
    assert len(data) % 4 == 0
    assert parse_compound(data) == packets
    assert parse_compound(memoryview(data)) == packets


@given(
    st.tuples(U32, st.integers(0, (1 << 64) - 1), U32, U32, U32), st.text(max_size=20),
    st.lists(st.builds(Delay, U32, U32, U32), max_size=3),
)  # fmt: skip
def test_a_senders_report_is_the_compound_of_its_parts(
    fields: tuple[int, int, int, int, int], cname: str, delays: list[Delay]
) -> None:
    packets: list[RtcpPacket] = [SenderReport(*fields), Sdes(fields[0], cname)]
    packets += [ExtendedReport(fields[0], delays=tuple(delays))] if delays else []
    made = serialize_sender_report(*fields, cname=cname, delays=delays)
    assert made == serialize_compound(packets)
    assert made + serialize_bye(fields[0]) == serialize_compound([*packets, Bye((fields[0],))])


def test_a_senders_report_with_a_number_too_large_is_refused() -> None:
    with pytest.raises(WireError, match="does not fit"):
        serialize_sender_report(1 << 32, 0, 0, 0, 0, cname="x")


def test_the_bytes_are_those_of_rfc_3550() -> None:
    assert serialize_compound([ReceiverReport(1), Sdes(1, "ab"), Bye((1,), "c")]) == bytes.fromhex(
        "80c90001 00000001"
        "81ca0003 00000001 01026162 00000000"  # CNAME of two bytes, the ending null, filled up to a whole word
        "81cb0002 00000001 01630000"
    )


@pytest.mark.parametrize(
    ("packets", "sentence"),
    [
        ([], "starts with a sender or a receiver report"),
        ([Sdes(1, "a"), ReceiverReport(1)], "starts with a sender or a receiver report"),
        ([ReceiverReport(1)], "CNAME"),
        ([ReceiverReport(1 << 32), Sdes(1, "a")], "does not fit"),
        ([ReceiverReport(1, (ReportBlock(1, 0, 1 << 23, 0, 0),)), Sdes(1, "a")], "24 bits; 8388608"),
        ([ReceiverReport(1, (ReportBlock(1, 0, 0, 0, 0),) * 32), Sdes(1, "a")], "at most 31"),
        ([ReceiverReport(1), Sdes(1, "a" * 256)], "CNAME has at most 255 bytes"),
        ([ReceiverReport(1), Sdes(1, "a"), Bye((1,), "a" * 256)], "reason for leaving"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_a_sentence(packets: list[RtcpPacket], sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        serialize_compound(packets)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("", "is empty"),
        ("80c900", "inside a packet's header"),
        ("40c90001 00000001", "version field is 1"),
        ("80c90002 00000001", "says 12 bytes; 8 are left"),
        ("80c80001 00000001", "sender report is cut short"),
        ("81c90001 00000001", "report is cut short"),
        ("a0c90001 00000000", "0 bytes of padding"),
        ("a0c90001 00000005", "5 bytes of padding; it has 4"),
        ("81ca0001 00000001", "source description is cut short"),
        ("81ca0002 00000001 01ff6162", "source description is cut short"),
        ("82cb0001 00000001", "BYE is cut short"),
        ("81cb0002 00000001 05630000", "BYE is cut short"),
    ],
)
def test_what_is_no_rtcp_is_refused_with_a_sentence(data: str, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        parse_compound(bytes.fromhex(data))


def test_unknown_packets_and_items_are_passed_over() -> None:
    data = bytes.fromhex(
        "80c90001 00000001"
        "80cc0003 00000001 6e616d65 00000000"  # application-defined
        "80cd0000"  # feedback
        "81ca0004 00000001 02016e01 02616200 00000000"  # a NAME before the CNAME
        "a1cb0002 00000001 00000004"  # padding on the last packet
    )
    assert parse_compound(data) == [ReceiverReport(1), Sdes(1, "ab", "n"), Bye((1,))]


@pytest.mark.parametrize("name", ["ffmpeg_video_rtcp", "ffmpeg_audio_rtcp"])
def test_ffmpegs_sender_report_is_read(name: str) -> None:
    (report,) = parse_compound(stored(name)[0])
    assert isinstance(report, SenderReport)
    assert report.blocks == ()
    assert 2020 < 1970 + ntp_to_ns(report.ntp) / NS / 31_556_952 < 2100


@pytest.mark.parametrize("data", [serialize_compound(COMPOUND), stored("ffmpeg_video_rtcp")[0]])
def test_every_truncation_and_every_wrong_byte_is_a_value_or_a_wire_error(data: bytes) -> None:
    for end in range(len(data)):
        with contextlib.suppress(WireError):
            parse_compound(data[:end])
        for value in (0, 1, 0x7F, 0x80, 0xA1, 0xFF):
            with contextlib.suppress(WireError):
                parse_compound(data[:end] + bytes([value]) + data[end + 1 :])


@given(st.binary(max_size=80), st.sampled_from([200, 201, 202, 203, 204]), st.integers(0x80, 0xBF))
def test_any_body_is_values_or_a_wire_error(body: bytes, packet_type: int, first: int) -> None:
    data = bytes([first, packet_type]) + (len(body) // 4).to_bytes(2, "big") + body
    with contextlib.suppress(WireError):
        parse_compound(data)


def test_a_block_is_made_from_what_was_received() -> None:
    assert ReportBlock.of(9, Reception(1, 2, 3, 4, 5, 6)) == ReportBlock(9, 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("unix_ns", "ntp"),
    [
        (0, 2_208_988_800 << 32),
        (NS // 2, (2_208_988_800 << 32) + (1 << 31)),
        (2_085_978_496 * NS, 0),  # 7 February 2036: NTP's seconds begin again
    ],
)
def test_ntp_time(unix_ns: int, ntp: int) -> None:
    assert ns_to_ntp(unix_ns) == ntp
    assert ntp_to_ns(ntp) == unix_ns


@given(st.integers(0, 4_000_000_000 * NS))
def test_ntp_time_keeps_every_nanosecond(unix_ns: int) -> None:
    assert ntp_to_ns(ns_to_ntp(unix_ns)) == unix_ns


# ---- NACK


def nack(*sequences: int) -> bytes:
    return serialize_compound([ReceiverReport(1), Sdes(1, "a"), Nack(1, 7, sequences)])[8 + 12 :]


def test_the_bytes_of_a_nack_are_those_of_rfc_4585() -> None:
    assert nack(100, 101, 116, 117, 65_535, 3) == bytes.fromhex(
        "81cd0005 00000001 00000007"
        "0064 8001"  # 100, the one after it, the sixteenth after it
        "0075 0000"
        "ffff 0008"  # numbers wrap
    )


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=100))
def test_a_nack_names_all_that_was_asked_for(sequences: list[int]) -> None:
    (back,) = parse_compound(nack(*sequences))
    assert isinstance(back, Nack)
    assert (back.ssrc, back.media_ssrc) == (1, 7)
    assert set(back.sequences) == set(sequences)


def test_a_nack_is_bounded_both_ways() -> None:
    most = [20 * n for n in range(MAX_NACK_FIELDS)]
    data = nack(*most)
    assert len(parse_compound(data)) == 1
    longer = data[:2] + (int.from_bytes(data[2:4], "big") + 1).to_bytes(2, "big") + data[4:] + bytes(4)
    with pytest.raises(WireError, match="more packets than any receiver lacks"):
        parse_compound(longer)
    for wrong in ([], [*most, 20 * MAX_NACK_FIELDS]):
        with pytest.raises(WireError, match="1 to 256 fields"):
            nack(*wrong)
    with pytest.raises(WireError, match="16 bits"):
        nack(65_536)


def test_a_nack_cut_short_is_refused_and_other_feedback_passed_over() -> None:
    data = bytearray(nack(1))
    for words in (1, 2):
        with pytest.raises(WireError, match="cut short"):
            parse_compound(bytes((data[0], data[1], 0, words)) + bytes(4 * words))
    data[0] = 0x8F  # FMT 15: congestion control feedback, of which nothing is known here
    assert parse_compound(bytes(data)) == []
