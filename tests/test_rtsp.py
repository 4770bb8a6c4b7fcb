"""RTSP messages however cut, the headers' values, and the session's states."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.wire.rtsp import (
    MAX_BODY,
    MAX_HEADERS,
    METHODS,
    SESSION_METHODS,
    STATUS,
    TRANSITIONS,
    Event,
    Headers,
    Interleaved,
    MessageReader,
    Request,
    Response,
    RtpInfo,
    RtspError,
    SessionHeader,
    State,
    Transport,
    allowed,
    interleave,
    next_state,
    parse_rtp_info,
    parse_transport,
    serialize_rtp_info,
    transitions_table,
)
from avlab.wire.units import WireError

# What FFmpeg's client and a server say to each other, with a packet between.
DIALOGUE: list[Event] = [
    Request("OPTIONS", "rtsp://127.0.0.1:8554/clip", Headers({"CSeq": "1", "User-Agent": "Lavf59.27.100"})),
    Response(200, "OK", Headers({"CSeq": "1", "Public": ", ".join(METHODS)})),
    Request("DESCRIBE", "rtsp://127.0.0.1:8554/clip", Headers({"Accept": "application/sdp", "CSeq": "2"})),
    Response(200, "OK", Headers({"CSeq": "2", "Content-Type": "application/sdp"}), b"v=0\r\n\r\ns=\xc3\xa9\r\n"),
    Interleaved(0, b"\x80\x1a" + bytes(10)),
    Interleaved(255, b""),
    Interleaved(1, b"$\0\0\4RTSP/1.0 200 OK\r\n\r\n"),
    Response(455, "Method Not Valid in This State", Headers({"CSeq": "3", "Allow": "OPTIONS, SETUP"})),
    Request("GET_PARAMETER", "*", Headers({"CSeq": "4", "Session": "ab12"}), b"position\r\n"),
]


def with_length(event: Event) -> Event:
    """The event as it is read: with the Content-Length that serializing added."""
    if isinstance(event, Interleaved) or not event.body:
        return event
    headers = Headers({**event.headers, "Content-Length": str(len(event.body))})
    if isinstance(event, Request):
        return Request(event.method, event.uri, headers, event.body)
    return Response(event.status, event.reason, headers, event.body)


STREAM = b"".join(event.serialize() for event in DIALOGUE)
READ = [with_length(event) for event in DIALOGUE]


# ---- messages


def test_what_one_side_says_the_other_reads() -> None:
    assert MessageReader().feed(STREAM) == READ


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_however_the_stream_is_cut_it_reads_alike(size: int) -> None:
    receiver = MessageReader()
    events = []
    for start in range(0, len(STREAM), size):
        events += receiver.feed(STREAM[start : start + size])
    assert events == READ


def test_every_cut_in_two_reads_alike() -> None:
    for end in range(len(STREAM)):
        receiver = MessageReader()
        assert receiver.feed(STREAM[:end]) + receiver.feed(STREAM[end:]) == READ


TOKENS = st.text("ABCdef-_9", min_size=1, max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=12)
HEADERS = st.dictionaries(TOKENS, TEXTS, max_size=4).map(Headers)
EVENTS = (
    st.builds(Request, TOKENS, TEXTS.map("rtsp://".__add__), HEADERS, st.binary(max_size=40))
    | st.builds(Response, st.integers(100, 999), TEXTS.map("A".__add__), HEADERS, st.binary(max_size=40))
    | st.builds(Interleaved, st.integers(0, 255), st.binary(max_size=40))
)


@given(st.lists(EVENTS, max_size=4), st.integers(1, 30))
def test_any_messages_come_back(events: list[Event], size: int) -> None:
    data = b"".join(event.serialize() for event in events)
    receiver = MessageReader()
    read = [event for start in range(0, len(data), size) for event in receiver.feed(data[start : start + size])]
    assert read == [with_length(event) for event in events]


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"RTSP/1.0 200 OK", b"$\0\0\1"])))
def test_any_bytes_are_events_or_a_wire_error(pieces: list[bytes]) -> None:
    receiver = MessageReader()
    with contextlib.suppress(WireError):
        for piece in pieces:
            receiver.feed(piece)


@given(st.integers(0, len(STREAM) - 1), st.integers(0, 255))
def test_any_wrong_byte_is_events_or_a_wire_error(place: int, value: int) -> None:
    receiver = MessageReader()
    with contextlib.suppress(WireError):
        receiver.feed(STREAM[:place] + bytes([value]) + STREAM[place + 1 :])
        receiver.feed(b"")


def test_headers_know_no_case_and_join_what_comes_twice() -> None:
    headers = Headers([("CSeq", "1"), ("Require", "a"), ("REQUIRE", "b")])
    assert headers["cseq"] == headers.get("CSEQ") == "1"
    assert headers["Require"] == "a, b"
    assert "require" in headers
    assert "Range" not in headers
    assert (len(headers), list(headers)) == (2, ["CSeq", "Require"])
    assert headers == {"cseq": "1", "require": "a, b"} != Headers()
    assert headers != 1
    assert repr(headers) == "Headers({'CSeq': '1', 'Require': 'a, b'})"


@pytest.mark.parametrize("items", [{"A B": "c"}, {"": "c"}, {"A:": "c"}, {"A": "b\r\nEvil: c"}, {"A": "b\nc"}])
def test_a_header_that_would_break_the_message_is_refused(items: Mapping[str, str]) -> None:
    with pytest.raises(RtspError, match="does not allow"):
        Headers(items)


@pytest.mark.parametrize(
    "message",
    [
        Request("GET IT", "rtsp://a"),
        Request("PLAY", ""),
        Request("PLAY", "rtsp://a b"),
        Request("PLAY", "rtsp://a\r\nEvil: 1"),
        Response(20),
        Response(200, "OK\r\nEvil: 1"),
    ],
)
def test_a_message_that_would_break_is_refused(message: Request | Response) -> None:
    with pytest.raises(RtspError):
        message.serialize()


def test_a_response_has_the_usual_reason_and_its_bodys_length_once() -> None:
    assert Response(454, headers=Headers({"CSeq": "1"})).serialize() == (
        b"RTSP/1.0 454 Session Not Found\r\nCSeq: 1\r\n\r\n"
    )
    assert Response(299, headers=Headers({"Content-Length": "9"}), body=b"ab").serialize() == (
        b"RTSP/1.0 299 Unknown\r\nContent-Length: 2\r\n\r\nab"
    )
    assert all(100 <= status <= 599 and reason for status, reason in STATUS.items())


def test_blank_lines_bare_line_feeds_and_folded_headers_are_read() -> None:
    (event,) = MessageReader().feed(b"\r\n\n\r\nPLAY rtsp://a RTSP/1.0\nCSeq:7\nRange: npt=0-\n ;x\n\t;y\n\n")
    assert event == Request("PLAY", "rtsp://a", Headers({"CSeq": "7", "Range": "npt=0- ;x ;y"}))
    assert isinstance(event, Request)
    assert event.cseq == 7


@pytest.mark.parametrize("value", [None, "", "x", "-1", "1.5", "9" * 11])
def test_a_message_without_a_number_of_its_own_is_refused(value: str | None) -> None:
    with pytest.raises(RtspError, match="CSeq"):
        _ = Request("PLAY", "*", Headers({} if value is None else {"CSeq": value})).cseq


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"hello\r\n\r\n", 400, "no RTSP message: its first line is 'hello'"),
        (b"GET / HTTP/1.1\r\n\r\n", 505, "RTSP/1.0 is spoken here, not 'HTTP/1.1'"),
        (b"PLAY rtsp://a RTSP/2.0\r\n\r\n", 505, "not 'RTSP/2.0'"),
        (b"PLAY rtsp://a\r\n\r\n", 400, "no RTSP message"),
        (b"PL@Y rtsp://a RTSP/1.0\r\n\r\n", 400, "no RTSP message"),
        (b"RTSP/1.0 20 OK\r\n\r\n", 400, "RTSP message|spoken here"),
        (b"PLAY rtsp://a RTSP/1.0\r\nContent-Length: x\r\n\r\n", 400, "'x' is not a number"),
        (b"PLAY rtsp://a RTSP/1.0\r\nContent-Length: -1\r\n\r\n", 400, "'-1' is not a number"),
        (b"PLAY rtsp://a RTSP/1.0\r\nContent-Length: 65537\r\n\r\n", 413, "65537 bytes; 65536 is the most"),
        (b"PLAY rtsp://a RTSP/1.0\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n", 400, "'1, 2' is not a number"),
        (b"PLAY rtsp://a RTSP/1.0\r\nX: " + b"a" * MAX_HEADERS, 413, "over 16384 bytes"),
        (b"PLAY rtsp://a RTSP/1.0\r\nX: " + b"a" * MAX_HEADERS + b"\r\n\r\n", 413, "over 16384 bytes"),
        (b"a" * (MAX_HEADERS + 1), 413, "over 16384 bytes"),
    ],
)
def test_what_is_no_rtsp_is_refused_for_good(data: bytes, status: int, sentence: str) -> None:
    receiver = MessageReader()
    with pytest.raises(RtspError, match=sentence) as caught:
        receiver.feed(data)
    assert caught.value.status == status
    with pytest.raises(RtspError, match=sentence):
        receiver.feed(STREAM)


def test_events_before_a_fault_are_not_lost() -> None:
    receiver = MessageReader()
    assert receiver.feed(STREAM + b"hello\r\n\r\n") == READ
    assert receiver.error is not None
    with pytest.raises(RtspError, match="hello"):
        receiver.feed(b"")


def test_the_largest_head_and_body_are_read() -> None:
    request = Request("PLAY", "*", Headers({"X": "a" * (MAX_HEADERS - 60)}), bytes(MAX_BODY))
    data = request.serialize()
    receiver = MessageReader()
    events = [event for start in range(0, len(data), 100) for event in receiver.feed(data[start : start + 100])]
    assert events == [with_length(request)]


@pytest.mark.parametrize(("channel", "size"), [(256, 1), (-1, 1), (0, 65536)])
def test_a_packet_that_does_not_fit_its_frame_is_refused(channel: int, size: int) -> None:
    with pytest.raises(WireError, match="channel of 0 to 255 and at most 65535 bytes"):
        interleave(channel, bytes(size))


def test_an_interleaved_packet_has_four_bytes_before_it() -> None:
    assert interleave(2, b"abc") == b"$\2\0\3abc" == Interleaved(2, b"abc").serialize()
    assert MessageReader().feed(interleave(0, bytes(65535))) == [Interleaved(0, bytes(65535))]


# ---- the values of headers


@pytest.mark.parametrize(
    ("value", "transports"),
    [
        ("RTP/AVP;unicast;client_port=4588-4589", [Transport(client_port=(4588, 4589))]),
        ("RTP/AVP/UDP;unicast;client_port=5000", [Transport(client_port=(5000, 5001))]),
        ("RTP/AVP/TCP;interleaved=0-1", [Transport(lower="TCP", interleaved=(0, 1))]),
        ("rtp/avp/tcp;unicast;interleaved=2", [Transport(lower="TCP", interleaved=(2, 3))]),
        ("RTP/AVP;multicast;ttl=127;port=3456", [Transport(unicast=False, port=(3456, 3457), ttl=127)]),
        (
            'RTP/AVP;unicast;client_port=1-2;server_port=3-4;ssrc=0ABCDEF0;mode="PLAY"',
            [Transport(client_port=(1, 2), server_port=(3, 4), ssrc=0x0ABCDEF0, mode="PLAY")],
        ),
        ("RTP/AVP;unicast;ssrc=not-hex;mode=play", [Transport(mode="PLAY")]),
        (
            "RTP/AVP;unicast;destination=192.0.2.1;source=192.0.2.2;client_port=1-2",
            [Transport(destination="192.0.2.1", source="192.0.2.2", client_port=(1, 2))],
        ),
        (
            'RTP/AVP/TCP;unicast;interleaved=0-1;mode="PLAY,RECORD", RTP/AVP;unicast;client_port=8000-8001',
            [Transport(lower="TCP", interleaved=(0, 1), mode="PLAY,RECORD"), Transport(client_port=(8000, 8001))],
        ),
        ("RTP/SAVP;unicast;client_port=1-2", [Transport(profile="RTP/SAVP", client_port=(1, 2))]),
        ("", []),
        (" , ", []),
    ],
)
def test_a_transport_is_read(value: str, transports: list[Transport]) -> None:
    assert parse_transport(value) == transports
    again = ",".join(transport.serialize() for transport in transports)
    assert parse_transport(again) == transports


def test_a_transport_is_written_as_servers_do() -> None:
    udp = Transport(client_port=(5000, 5001), server_port=(6000, 6001), ssrc=0xAB)
    assert udp.serialize() == "RTP/AVP;unicast;client_port=5000-5001;server_port=6000-6001;ssrc=000000AB"
    tcp = Transport(lower="TCP", interleaved=(0, 1), mode="PLAY")
    assert tcp.serialize() == 'RTP/AVP/TCP;unicast;interleaved=0-1;mode="PLAY"'


@pytest.mark.parametrize(
    ("value", "status", "sentence"),
    [
        ("RAW", 461, "'RAW' is not of the form RTP/AVP"),
        ("RTP//TCP", 461, "not of the form"),
        ("RTP/AVP;client_port=65536-1", 400, "client_port is '65536-1'"),
        ("RTP/AVP;client_port=65535", 400, "client_port is '65535'"),
        ("RTP/AVP;client_port=", 400, "client_port is ''"),
        ("RTP/AVP;server_port=a-b", 400, "server_port is 'a-b'"),
        ("RTP/AVP/TCP;interleaved=255-256", 400, "interleaved is '255-256'.*up to 255"),
    ],
)
def test_a_transport_that_cannot_be_is_refused(value: str, status: int, sentence: str) -> None:
    with pytest.raises(RtspError, match=sentence) as caught:
        parse_transport(value)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("value", "infos"),
    [
        ("url=rtsp://h/clip/video;seq=9;rtptime=4294967295", [RtpInfo("rtsp://h/clip/video", 9, 0xFFFFFFFF)]),
        ("url=a;seq=1,url=b;rtptime=2", [RtpInfo("a", 1), RtpInfo("b", None, 2)]),
        ("url=rtsp://h/a,b;c=d/video;seq=1, URL=x", [RtpInfo("rtsp://h/a,b;c=d/video", 1), RtpInfo("x")]),
        ('url="rtsp://h/v";rtptime=3;seq=', [RtpInfo("rtsp://h/v", None, 3)]),
    ],
)
def test_rtp_info(value: str, infos: list[RtpInfo]) -> None:
    assert parse_rtp_info(value) == infos
    assert parse_rtp_info(serialize_rtp_info(infos)) == infos


@pytest.mark.parametrize("value", ["", "seq=1", "url=a;seq=65536", "url=a;seq=-1", "url=a;rtptime=4294967296"])
def test_rtp_info_that_cannot_be_is_refused(value: str) -> None:
    with pytest.raises(RtspError, match="RTP-Info"):
        parse_rtp_info(value)


@pytest.mark.parametrize(
    ("value", "session"),
    [
        ("47112344", SessionHeader("47112344", 60)),
        ("47112344;timeout=30", SessionHeader("47112344", 30)),
        (" a$-_.+ ; foo ; Timeout = 5 ", SessionHeader("a$-_.+", 5)),
        ("x;timeout=soon", SessionHeader("x", 60)),
    ],
)
def test_a_session_header(value: str, session: SessionHeader) -> None:
    assert SessionHeader.parse(value) == session
    assert SessionHeader.parse(session.serialize()) == session


@pytest.mark.parametrize("value", ["", ";timeout=3", "a b", "a" * 257])
def test_a_session_without_a_name_is_refused(value: str) -> None:
    with pytest.raises(RtspError, match="names no session") as caught:
        SessionHeader.parse(value)
    assert caught.value.status == 454


@given(st.text(max_size=60))
def test_any_header_value_is_a_value_or_a_wire_error(value: str) -> None:
    for parse in (parse_transport, parse_rtp_info, SessionHeader.parse):
        with contextlib.suppress(WireError):
            parse(value)
        with contextlib.suppress(WireError):
            parse(f"RTP/AVP;client_port={value};ssrc={value}")


# ---- states


@pytest.mark.parametrize(
    ("state", "method", "after"),
    [
        (State.INIT, "SETUP", State.READY),
        (State.INIT, "TEARDOWN", State.INIT),
        (State.READY, "SETUP", State.READY),
        (State.READY, "PLAY", State.PLAYING),
        (State.READY, "TEARDOWN", State.INIT),
        (State.PLAYING, "SETUP", State.PLAYING),
        (State.PLAYING, "PLAY", State.PLAYING),
        (State.PLAYING, "PAUSE", State.READY),
        (State.PLAYING, "TEARDOWN", State.INIT),
    ],
)
def test_the_states_of_rfc_2326(state: State, method: str, after: State) -> None:
    assert next_state(state, method) is after


@pytest.mark.parametrize(
    ("state", "method", "sentence"),
    [
        (State.INIT, "PLAY", "PLAY is not valid while the session is Init; OPTIONS, DESCRIBE, SETUP, TEARDOWN, GET_P"),
        (State.INIT, "PAUSE", "PAUSE is not valid while the session is Init"),
        (State.READY, "PAUSE", "PAUSE is not valid while the session is Ready"),
    ],
)
def test_a_method_out_of_place_is_refused_with_455(state: State, method: str, sentence: str) -> None:
    with pytest.raises(RtspError, match=sentence) as caught:
        next_state(state, method)
    assert caught.value.status == 455
    assert method not in allowed(state)


def test_every_offered_method_is_allowed_or_refused_as_the_table_says() -> None:
    for state in State:
        for method in METHODS:
            if method not in SESSION_METHODS:
                assert next_state(state, method) is state
            assert (method in allowed(state)) == (method not in SESSION_METHODS or method in TRANSITIONS[state])
        with pytest.raises(RtspError, match="RECORD is not implemented") as caught:
            next_state(state, "RECORD")
        assert caught.value.status == 501


def test_the_documentations_table_is_made_from_the_table() -> None:
    assert transitions_table().split("\n") == [
        "| state | SETUP | PLAY | PAUSE | TEARDOWN |",
        "|---|---|---|---|---|",
        "| Init | Ready | 455 | 455 | Init |",
        "| Ready | Ready | Playing | 455 | Init |",
        "| Playing | Playing | Playing | Ready | Init |",
    ]


def test_a_header_that_comes_twice_keeps_its_lines() -> None:
    headers = Headers(
        [("CSeq", "1"), ("WWW-Authenticate", "Digest a"), ("Server", "x"), ("www-authenticate", "Basic b")]
    )
    assert headers["WWW-AUTHENTICATE"] == "Digest a, Basic b"
    assert len(headers) == 3
    told = Response(401, headers=Headers(headers)).serialize()
    assert told.count(b"WWW-Authenticate: ") == 2
    [read] = MessageReader().feed(told)
    assert isinstance(read, Response)
    assert read.headers == headers
    assert list(read.headers.lines()) == list(headers.lines())
