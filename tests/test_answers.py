"""What servers send, read liberally: odd headers, odd status lines, stray bytes; and every bound."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.wire.answers import MAX_STRAY, Answers, reply_to
from avlab.wire.rtsp import MAX_BODY, MAX_HEADERS, Event, Headers, Interleaved, Request, Response, RtspError, interleave
from avlab.wire.units import WireError

RTP = b"\x80\x1a" + bytes(10)
RTCP = b"\x81\xc9" + bytes(10)
SDP = b"v=0\r\ns=x\r\nm=video 0 RTP/AVP 26\r\n"
OK = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nSession: 1\r\n\r\n"


def read(*pieces: bytes, channels: tuple[int, ...] = ()) -> list[Event]:
    answers = Answers()
    answers.channels = channels
    return [event for piece in pieces for event in answers.feed(piece)]


def one(data: bytes) -> Response:
    (event,) = read(data)
    assert isinstance(event, Response)
    return event


# ---- answers


@pytest.mark.parametrize(
    "line",
    [
        b"RTSP/1.0 200 OK",
        b"RTSP/1.0 200",
        b"RTSP/1.0 200 ",
        b"RTSP/1.0  200  OK",
        b"RTSP/1.0\t200\tOK",
        b"RTSP/2.0 200 OK",
        b"RTSP/1.1 200 OK",
        b"rtsp/1.0 200 ok",
        b"RTSP/1.0 200 \xd6k\xff",
        b"RTSP/1.0 200 OK (GStreamer/1.22)",
    ],
)
def test_status_lines(line: bytes) -> None:
    assert one(line + b"\r\nCSeq: 7\r\n\r\n").status == 200


# Header blocks as servers write them; a client needs Session of each, and that it ends where it ends.
HEADER_BLOCKS = {
    "live555": b"CSeq: 2\r\nDate: Thu, Jun 13 2024 04:05:06 GMT\r\nSession: 47;timeout=65\r\n\r\n",
    "a date on a line of its own": b"CSeq: 2\r\nThu, Jun 13 2024 04:05:06\r\nSession: 47;timeout=65\r\n\r\n",
    "a word": b"CSeq: 2\r\nOK\r\nSession: 47;timeout=65\r\n\r\n",
    "LF alone": b"CSeq: 2\nSession: 47;timeout=65\n\n",
    "both": b"CSeq: 2\nSession: 47;timeout=65\r\n\r\n",
    "lower case": b"cseq: 2\r\nsession: 47;timeout=65\r\n\r\n",
    "capitals": b"CSEQ: 2\r\nSESSION: 47;timeout=65\r\n\r\n",
    "Foscam's Cseq": b"Cseq: 2 \r\nSession: 47;timeout=65 \r\n\r\n",
    "no blanks": b"CSeq:2\r\nSession:47;timeout=65\r\n\r\n",
    "blanks around": b"CSeq : 2\r\nSession  :   47 ; timeout = 65  \r\n\r\n",
    "tabs": b"CSeq:\t2\r\nSession\t:\t47;timeout=65\r\n\r\n",
    "folded": b"CSeq: 2\r\nSession: 47;\r\n timeout=65\r\n\r\n",
    "twice": b"CSeq: 2\r\nCSeq: 2\r\nSession: 47;timeout=65\r\nSession: 47;timeout=65\r\n\r\n",
    "two that are joined": b"Public: PLAY\r\nPublic: SETUP\r\nSession: 47;timeout=65\r\n\r\n",
    "latin-1": b"Server: Kamera T\xfcr\r\nSession: 47;timeout=65\r\n\r\n",
    "a NUL": b"Server: a\0b\r\nSession: 47;timeout=65\r\n\r\n",
    "names that are none": b"X Y: z\r\n: nothing\r\n(a): b\r\nSession: 47;timeout=65\r\n\r\n",
    "an empty one": b"Content-Base:\r\nServer:\r\nSession: 47;timeout=65\r\n\r\n",
    "a length of nothing": b"Content-Length:\r\nSession: 47;timeout=65\r\n\r\n",
    "a length of none": b"Content-Length: 0\r\nContent-Type: application/sdp\r\nSession: 47;timeout=65\r\n\r\n",
    "a length that is none": b"Content-Length: none\r\nSession: 47;timeout=65\r\n\r\n",
}


@pytest.mark.parametrize("block", HEADER_BLOCKS.values(), ids=HEADER_BLOCKS)
def test_header_blocks(block: bytes) -> None:
    first, second = read(b"RTSP/1.0 200 OK\r\n" + block + OK)
    assert isinstance(first, Response)
    assert first.headers["Session"].replace(" ", "") == "47;timeout=65"
    assert second == one(OK)


@pytest.mark.parametrize(
    "length",
    [b"Content-Length: %d", b"Content-length:%d", b"CONTENT-LENGTH :  %d  ", b"Content-Length: %d bytes"],
)
def test_lengths(length: bytes) -> None:
    data = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\n" + length % len(SDP) + b"\r\n\r\n" + SDP
    first, second = read(data + OK)
    assert isinstance(first, Response)
    assert first.body == SDP
    assert second == one(OK)


def test_a_length_given_twice_is_the_first() -> None:
    assert one(b"RTSP/1.0 200 OK\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabc").body == b"abc"


UNSAID = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\n\r\n"


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    answers = Answers()
    for at in range(len(UNSAID + SDP)):
        assert answers.feed((UNSAID + SDP)[at : at + 1]) == []
    assert answers.open_ended
    (event,) = answers.end()
    assert isinstance(event, Response)
    assert event.body == SDP
    assert not answers.open_ended
    assert answers.end() == []


def test_a_body_without_a_length_ends_with_the_next_answer() -> None:
    first, second = read(UNSAID + SDP + OK)
    assert isinstance(first, Response)
    assert first.body.strip() == SDP.strip()
    assert second == one(OK)


def test_among_packets_no_answer_has_a_body_without_a_length() -> None:
    answer, packet = read(UNSAID + PACKETS[0], channels=(0, 1))
    assert isinstance(answer, Response)
    assert (answer.body, packet) == (b"", Interleaved(0, RTP))


def test_a_body_that_is_cut_short_is_what_came() -> None:
    answers = Answers()
    assert answers.feed(b"RTSP/1.0 200 OK\r\nContent-Length: 400\r\n\r\n" + SDP) == []
    assert not answers.open_ended
    (event,) = answers.end()
    assert isinstance(event, Response)
    assert event.body == SDP


@pytest.mark.parametrize("method", ["OPTIONS", "ANNOUNCE", "SET_PARAMETER", "GET_PARAMETER", "REDIRECT"])
@pytest.mark.parametrize("uri", ["*", "rtsp://a/b", "/b"])
def test_what_a_server_asks_is_read_too_before_its_first_answer_and_after(method: str, uri: str) -> None:
    asked = Request(method, uri, Headers({"CSeq": "9"}), b"v=0\r\n" if method == "ANNOUNCE" else b"")
    data = asked.serialize()
    first, answer, last = read(data + OK + data)
    assert isinstance(first, Request)
    assert (first.method, first.uri, first.headers["CSeq"], first.body) == (method, uri, "9", asked.body)
    assert (answer, last) == (one(OK), first)


@pytest.mark.parametrize(
    ("method", "headers", "body", "status", "told"),
    [
        ("OPTIONS", {}, b"", 200, {"Public": "OPTIONS, ANNOUNCE, GET_PARAMETER, SET_PARAMETER"}),
        ("ANNOUNCE", {"Content-Type": "application/sdp"}, SDP, 200, {}),
        ("GET_PARAMETER", {}, b"", 200, {}),
        ("GET_PARAMETER", {"Content-Type": "text/parameters"}, b"packets_received\r\n", 451, {}),
        ("SET_PARAMETER", {}, b"", 200, {}),
        ("SET_PARAMETER", {"Content-Type": "text/parameters"}, b"barparam: barstuff\r\n", 451, {}),
        ("REDIRECT", {"Location": "rtsp://b"}, b"", 501, {}),
        ("PLAY_NOTIFY", {}, b"", 501, {}),
        ("OPTIONS", {"Require": "implicit-play"}, b"", 551, {"Unsupported": "implicit-play"}),
    ],
)
@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ({"CSeq": "7", "Session": "12345678;timeout=30"}, {"CSeq": "7", "Session": "12345678"}),
        ({"CSeq": "007"}, {"CSeq": "007"}),
        ({"CSeq": "x", "Session": " \x1b"}, {}),
        ({}, {}),
    ],
)
def test_what_a_server_asks_is_answered(
    method: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    told: dict[str, str],
    given: dict[str, str],
    echoed: dict[str, str],
) -> None:
    answer = reply_to(Request(method, "rtsp://a/b", Headers(headers | given), body))
    assert (answer.status, answer.headers, answer.body) == (status, Headers(told | echoed), b"")
    assert one(answer.serialize()).status == status


@given(st.binary(max_size=200))
def test_whatever_a_server_asks_its_answer_is_one(asked: bytes) -> None:
    data = b"OPTIONS * RTSP/1.0\r\nCSeq: " + asked
    with contextlib.suppress(WireError):
        for event in read(data + b"\r\n\r\n"):
            if isinstance(event, Request):
                assert len(read(reply_to(event).serialize())) == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n<html>", "'HTTP/1.1 400 Bad Request'"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "'SSH-2.0-OpenSSH_9.2'"),
        (b"220 mail.example ESMTP\r\n", "'220 mail"),
        (b"<!doctype html>", "'<!doctype html>'"),
        (b"RTSP/1.0 twohundred OK\r\n\r\n", "no RTSP message"),
        (b"RTSP/1.0 200 OK\r\nX: " + b"a" * MAX_HEADERS, "over 16384 bytes"),
        (b"RTSP/1.0 200 OK\r\nContent-Length: 65537\r\n\r\n", "65536 is the most"),
        (UNSAID + b"a" * (MAX_BODY + 1), "over 65536 bytes"),
        (b"\xff" * (MAX_STRAY + 100), "had to be passed over"),
        (b"$\0\xff\xff" + b"\xff" * (MAX_STRAY + 100), "had to be passed over"),
    ],
)
def test_what_is_no_rtsp_is_refused_for_good(data: bytes, words: str) -> None:
    answers = Answers()
    with pytest.raises(RtspError, match=words):
        answers.feed(data)
    with pytest.raises(RtspError, match=words):
        answers.feed(OK)
    assert answers.end() == []


# ---- stray bytes

STRAYS = [
    b"\x00\xff\x13\x37\x00\x01",
    b"\0",
    b"\x80" * 40,
    b"$",
    b"$$$$$$",
    b"$\0\0\x0c",
    b"$\0\0\x0cAAAA",
    b"$\x09\0\x0c" + RTP,  # a packet, but on a channel that nobody has asked for
    b"RTSP/",
    b"RTSP",
    b"R",
    b"hello\r\n",
    b"\r\n \r\n",
    bytes(range(256)).replace(b"$", b""),
]
PACKETS = [interleave(channel, RTP if channel == 0 else RTCP) for channel in (0, 0, 1, 0, 0)]


@pytest.mark.parametrize("stray", STRAYS)
@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_after_stray_bytes_it_is_in_step_again(stray: bytes, size: int) -> None:
    data = OK + b"".join(PACKETS[:2]) + stray + b"".join(PACKETS) + OK + PACKETS[0]
    answers = Answers()
    answers.channels = (0, 1)
    events = [event for at in range(0, len(data), size) for event in answers.feed(data[at : at + size])]
    packets = [event for event in events if isinstance(event, Interleaved)]
    assert packets == [Interleaved(0, RTP)] * 2 + [Interleaved(p[1], p[4:]) for p in PACKETS] + [Interleaved(0, RTP)]
    assert sum(isinstance(event, Response) for event in events) == 2
    assert answers.skipped <= len(stray)
    assert not answers.stray


@pytest.mark.parametrize("stray", [b"\0", b"\0\0\0\0", b"pad", b"$", b"\x80\x1a\0\0"])
def test_stray_bytes_after_every_packet(stray: bytes) -> None:
    """Of a source that was heard, a packet is known by itself."""
    answers = Answers()
    answers.channels = (0, 1)
    events = answers.feed(OK + b"".join(packet + stray for packet in PACKETS * 20))
    assert sum(isinstance(event, Interleaved) for event in events) >= 90
    assert answers.skipped <= 100 * len(stray)


@pytest.mark.parametrize("size", [1, 17, 100_000])
@pytest.mark.parametrize("stray", [b"\0", b"\0\xff\1\2\3\4\5", b"$\0", b"$$$$$$$$"])
def test_a_source_that_begins_between_strays_is_found(stray: bytes, size: int) -> None:
    """Each packet has strays behind it, so that nothing but a source that is met twice tells that it is one."""
    sound = interleave(2, b"\x80\x0a" + bytes(6) + b"\1\2\3\4" + bytes(100))
    data = OK + b"".join(packet + stray for packet in [PACKETS[0], sound] * 20)
    answers = Answers()
    answers.channels = (0, 1, 2, 3)
    events = [event for at in range(0, len(data), size) for event in answers.feed(data[at : at + size])]
    found = [event for event in events if isinstance(event, Interleaved)]
    assert sum(event.channel == 2 for event in found) >= 18
    assert sum(event.channel == 0 for event in found) >= 18
    assert all(len(event.data) in (len(RTP), 112) for event in found)


@pytest.mark.parametrize("length", [MAX_BODY + 1, 999_999_999, 10**12 - 1])
def test_among_packets_an_answer_whose_length_cannot_be_has_no_body(length: int) -> None:
    """The dialogue is over, and the stream does not end of a header; before, it is refused."""
    lie = OK.replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % length)
    events = read(OK, PACKETS[0] + lie + PACKETS[0], channels=(0, 1))
    assert [type(event) for event in events] == [Response, Interleaved, Response, Interleaved]
    with pytest.raises(RtspError, match="65536 is the most"):
        read(lie)


def test_a_length_that_lies_costs_no_more_than_it_says() -> None:
    lie = b"$\0\x03\xe8" + RTP  # 1,000 bytes, and there are 12
    data = OK + lie + b"".join(PACKETS * 100)
    events = read(data, channels=(0, 1))
    assert len(events) > 2 + 500 - 1000 // 16 - 3


@pytest.mark.parametrize("stray", [b"\0\0\0", b"\xff" * 5000, b"noise\r\n", b"\r\n\r\n\0"])
def test_stray_bytes_before_an_answer(stray: bytes) -> None:
    answers = Answers()
    assert answers.feed(stray) == []
    assert [event for event in answers.feed(OK) if isinstance(event, Response)] == [one(OK)]


def test_how_stray_bytes_began_is_told_until_it_goes_on() -> None:
    answers = Answers()
    answers.feed(b"\x01\x02\x03 what is this? 0123456789")
    assert answers.stray.startswith(b"\x01\x02\x03 what")
    answers.feed(OK)
    assert answers.stray == b""
    assert answers.skipped > 10


@pytest.mark.parametrize("agreed", [(0, 1), (0, 1, 2, 3), (7, 200)])
@pytest.mark.parametrize("others", [(4,), (4, 5), (255, 4, 17)])
@pytest.mark.parametrize("size", [1, 7, 1_000, 1 << 20])
def test_packets_on_channels_that_were_not_agreed_on_are_counted_and_passed_over(
    agreed: tuple[int, ...], others: tuple[int, ...], size: int
) -> None:
    turns = 100 if size < 100 else 2_000
    piece = b"".join(interleave(other, RTP + b"$" * 40 + bytes(100)) for other in others)
    data = OK + piece * 3 + (piece + interleave(agreed[0], RTP) + OK) * (turns // 50) + piece * turns
    answers = Answers()
    answers.channels = agreed
    events = [event for at in range(0, len(data), size) for event in answers.feed(data[at : at + size])]
    assert [event for event in events if isinstance(event, Interleaved)] == [Interleaved(agreed[0], RTP)] * (
        turns // 50
    )
    assert sum(isinstance(event, Response) for event in events) == 1 + turns // 50
    total = 3 + turns + turns // 50
    last = {others[-1]: total - 1}  # nothing behind it tells yet that it was one
    assert answers.unclaimed == dict.fromkeys(others, total) | last
    assert (answers.skipped, answers.stray) == (0, b"")


@pytest.mark.parametrize("stray", [b"\0", b"\xff" * 5_000, b"noise", b"$\x09\0\x0c" + b"\0" * 12])
def test_between_packets_of_other_channels_too_it_is_in_step_again_after_stray_bytes(stray: bytes) -> None:
    answers = Answers()
    answers.channels = (0, 1)
    other = interleave(4, RTP + bytes(300))
    for _ in range(400):
        assert answers.feed(other * 2 + stray) == []
    assert answers.unclaimed[4] > 300
    assert answers.feed(other + OK) == [one(OK)]


def test_while_in_step_no_packet_waits_for_the_next() -> None:
    answers = Answers()
    answers.channels = (0, 1)
    for packet in PACKETS:
        assert len(answers.feed(packet)) == 1


@given(st.lists(st.binary(max_size=60) | st.sampled_from([OK, SDP, UNSAID, *PACKETS, *STRAYS]), max_size=12))
def test_any_bytes_are_events_or_a_wire_error(pieces: list[bytes]) -> None:
    answers = Answers()
    answers.channels = (0, 1)
    with contextlib.suppress(WireError):
        for piece in pieces:
            answers.feed(piece)
        answers.end()


@given(st.integers(1, 80), st.lists(st.sampled_from([OK, UNSAID, *PACKETS, *STRAYS]), max_size=8))
def test_however_the_stream_is_cut_it_reads_alike(size: int, pieces: list[bytes]) -> None:
    data = OK + b"".join(pieces) + OK
    cut = read(*(data[at : at + size] for at in range(0, len(data), size)), channels=(0, 1))
    assert [event for event in cut if isinstance(event, Response)][:1] == [one(OK)]
    whole = read(data, channels=(0, 1))
    assert [type(event) for event in cut] == [type(event) for event in whole]


def test_a_long_body_without_a_length_that_comes_byte_by_byte_costs_no_seconds() -> None:
    body = b"v=0" + b"\r\na=f" * 12_000
    data = (
        b"RTSP/1.0 200 OK\r\nContent-Type: application/sdp\r\n\r\n" + body + b"\r\nRTSP/1.0 200 OK\r\nCSeq: 2\r\n\r\n"
    )
    answers, events = Answers(), []
    begun_ns = time.thread_time_ns()
    for at in range(len(data)):
        events += answers.feed(data[at : at + 1])
    assert time.thread_time_ns() - begun_ns < 5_000_000_000
    first, second = events
    assert isinstance(first, Response)
    assert first.body.strip() == body
    assert isinstance(second, Response)
    assert second.headers["CSeq"] == "2"
