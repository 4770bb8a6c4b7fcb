"""The client's dialogue with servers that are odd: what is accepted, what is refused, in which words, and how soon."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oddserver import DESCRIBED, Answer, Asked, OddServer, reply
from rawclient import until
from scripted import AUDIO, VIDEO, description

import avlab
from avlab.stream.rtsp import dialogue as rtsp_client
from avlab.stream.rtsp.dialogue import Granted, RefusedError, Session
from avlab.stream.sockets.links import UdpLink, udp_pair
from avlab.wire.rtsp import interleave

TCP = {"video": "tcp", "audio": "tcp"}
UDP = {"video": "udp", "audio": "udp"}
RTP = b"\x80\x1a" + bytes(10)


def bind(host: str) -> tuple[UdpLink, UdpLink]:
    pair = udp_pair(host)
    _LINKS.extend(pair)
    return pair


_LINKS: list[UdpLink] = []


@pytest.fixture(autouse=True)
def links() -> Iterator[None]:
    yield
    for link in _LINKS:
        link.close()
    _LINKS.clear()


def opened(server: OddServer, over: dict[str, str] = TCP, url: str = "", **settings: Any) -> dict[str, Granted]:
    """A dialogue up to PLAY's answer: what was granted."""
    session = Session(url or server.url, timeout=settings.pop("timeout", 5.0))
    try:
        granted = session.open(over, bind, **settings)
        session.play()
        return granted
    finally:
        session.close()


def raw(text: str) -> Answer:
    """An answer to the letter, but for its line ends and its number."""
    return lambda asked: text.replace("\n", "\r\n").replace("{cseq}", asked.cseq).encode()


def sdp_answer(*headers: str, body: str = DESCRIBED, number: bool = True, length: bool = True) -> Answer:
    def answer(asked: Asked) -> bytes:
        lines = ["RTSP/1.0 200 OK", *headers]
        lines += [f"CSeq: {asked.cseq}"] * number + [f"Content-Length: {len(body.encode())}"] * length
        return "\r\n".join([*lines, "", ""]).encode() + body.encode()

    return answer


# ---- accepted


ACCEPTED: dict[str, dict[str, Answer]] = {
    "no number in any answer": {
        "OPTIONS": raw("RTSP/1.0 200 OK\n\n"),
        "DESCRIBE": sdp_answer(number=False),
        "SETUP": raw("RTSP/1.0 200 OK\nSession: 1\n\n"),
        "PLAY": raw("RTSP/1.0 200 OK\n\n"),
    },
    "numbers that are 0": {
        "OPTIONS": raw("RTSP/1.0 200 OK\nCSeq: 0\n\n"),
        "PLAY": raw("RTSP/1.0 200 OK\nCSeq: 0\n\n"),
    },
    "numbers that are none": {
        "OPTIONS": raw("RTSP/1.0 200 OK\nCSeq: x\n\n"),
        "PLAY": raw("RTSP/1.0 200 OK\nCSeq:\n\n"),
    },
    "an answer told twice": {
        "PLAY": lambda asked: raw("RTSP/1.0 455 No\nCSeq: 2\n\n")(asked) + reply(asked)  # type: ignore[operator]
    },
    "numbers one too high": {
        method: lambda asked: reply(asked).replace(b"CSeq: ", b"CSeq: 9") for method in ("OPTIONS", "PLAY")
    },
    "Continue first": {"OPTIONS": raw("RTSP/1.0 100 Continue\nCSeq: {cseq}\n\nRTSP/1.0 200 OK\nCSeq: {cseq}\n\n")},
    "OPTIONS unknown": {"OPTIONS": raw("RTSP/1.0 501 Not Implemented\nCSeq: {cseq}\n\n")},
    "OPTIONS not allowed": {"OPTIONS": raw("RTSP/1.0 405 No\nCSeq: {cseq}\n\n")},
    "OPTIONS forbidden": {"OPTIONS": raw("RTSP/1.0 403 Forbidden\nCSeq: {cseq}\n\n")},
    "OPTIONS that end in an error of the server": {
        "OPTIONS": raw("RTSP/1.0 500 Internal Server Error\nCSeq: {cseq}\n\n")
    },
    "no Content-Base": {"DESCRIBE": sdp_answer("Content-Type: application/sdp")},
    "an empty Content-Base": {"DESCRIBE": sdp_answer("Content-Base:")},
    "a blank Content-Base": {"DESCRIBE": sdp_answer("Content-Base:  ", "Content-Location: ")},
    "a Content-Base that is none": {"DESCRIBE": sdp_answer("Content-Base: /cam")},
    "Content-Location alone": {"DESCRIBE": sdp_answer("Content-Location: rtsp://127.0.0.1/odd/")},
    "no Content-Length": {"DESCRIBE": sdp_answer("Content-Type: application/sdp", length=False)},
    "no Transport": {"SETUP": raw("RTSP/1.0 200 OK\nCSeq: {cseq}\nSession: 1\n\n")},
    "an empty Transport": {"SETUP": raw("RTSP/1.0 200 OK\nCSeq: {cseq}\nTransport:\nSession: 1\n\n")},
    "a port that cannot be": {
        "SETUP": raw("RTSP/1.0 200 OK\nCSeq: {cseq}\nTransport: RTP/AVP/TCP;interleaved=0-1;client_port=99999\n\n")
    },
    "interleaved, but not TCP": {
        "SETUP": raw("RTSP/1.0 200 OK\nCSeq: {cseq}\nTransport: RTP/AVP;unicast;interleaved=0-1\nSession: 1\n\n")
    },
    "no Session": {
        "SETUP": raw("RTSP/1.0 200 OK\nCSeq: {cseq}\nTransport: RTP/AVP/TCP;interleaved=0-1\n\n"),
        "PLAY": raw("RTSP/1.0 200 OK\nCSeq: {cseq}\n\n"),
    },
    "a Session with blanks": {"SETUP": raw("RTSP/1.0 200 OK\nCSeq: {cseq}\nSession:  1 ; timeout = 30 \n\n")},
    "no status but the number": {"OPTIONS": raw("RTSP/1.0 200\nCSeq: {cseq}\n\n")},
    "created": {"SETUP": raw("RTSP/1.0 201 Created\nCSeq: {cseq}\nSession: 1\n\n")},
    "another version": {"OPTIONS": raw("RTSP/2.0 200 OK\nCSeq: {cseq}\n\n")},
    "stray bytes first": {"OPTIONS": lambda asked: b"\0\xff\x01" + reply(asked), "PLAY": lambda a: b"\n\0" + reply(a)},
    "RTP-Info of nonsense": {"PLAY": raw("RTSP/1.0 200 OK\nCSeq: {cseq}\nRTP-Info: url=rtsp://[x;rtptime=5,x\n\n")},
    "a Range of nonsense": {"PLAY": raw("RTSP/1.0 200 OK\nCSeq: {cseq}\nRange: npt=999999999999-\n\n")},
}


@pytest.mark.parametrize("answers", ACCEPTED.values(), ids=ACCEPTED)
def test_an_odd_answer_is_one_all_the_same(answers: dict[str, Answer]) -> None:
    with OddServer(answers) as server:
        assert set(opened(server)) == {"video", "audio"}


ASKS = {
    "OPTIONS": b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "ANNOUNCE": b"ANNOUNCE rtsp://127.0.0.1/odd RTSP/1.0\r\nCSeq: 312\r\nContent-Type: application/sdp\r\n"
    b"Content-Length: 5\r\n\r\nv=0\r\n",
    "SET_PARAMETER": b"SET_PARAMETER rtsp://127.0.0.1/odd RTSP/1.0\r\nCSeq: 2\r\nContent-Length: 5\r\n\r\na: b\n",
    "GET_PARAMETER": b"GET_PARAMETER rtsp://127.0.0.1/odd RTSP/1.0\r\nCSeq: 0\r\n\r\n",
    "REDIRECT": b"REDIRECT rtsp://127.0.0.1/odd RTSP/1.0\r\nCSeq: 5\r\nLocation: rtsp://127.0.0.1:9/\r\n\r\n",
}


@pytest.mark.parametrize(("asks", "status"), [*zip(ASKS, (200, 200, 451, 200, 501), strict=True)])
@pytest.mark.parametrize("before", ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])
def test_a_server_that_asks_before_it_answers_is_answered(asks: str, status: int, before: str) -> None:
    with OddServer() as server:
        server.asks = {before: ASKS[asks] * 2}
        with contextlib.closing(Session(server.url)) as session:
            session.open(TCP, bind)
            session.play()
            times = 4 if before == "SETUP" else 2  # pictures and sound are set up
            until(lambda: len(server.replies) == times)
    [number] = re.findall(rb"CSeq: \d+", ASKS[asks])
    for text in server.replies:
        assert text.startswith(f"RTSP/1.0 {status} ")
        assert number.decode() in text


def test_a_server_that_asks_and_never_answers_is_given_up() -> None:
    with OddServer({"OPTIONS": lambda asked: ASKS["OPTIONS"]}) as server:
        began = time.perf_counter()
        with pytest.raises(TimeoutError, match="does not answer OPTIONS"):
            opened(server, timeout=0.3)
        assert time.perf_counter() - began < 5
        assert len(server.replies) == 1


def test_who_sends_back_what_it_is_sent_is_no_server() -> None:
    with (
        OddServer({"OPTIONS": lambda asked: f"{asked.text}\r\n\r\n".encode()}) as server,
        pytest.raises(ConnectionError, match="no RTSP server: It sends back what it is sent"),
    ):
        opened(server, timeout=2)


def test_no_session_that_was_not_given_is_named() -> None:
    with OddServer(ACCEPTED["no Session"]) as server:
        opened(server)
        assert not any("session" in asked.headers for asked in server.asked)


@pytest.mark.parametrize("method", ["OPTIONS", "DESCRIBE"])
def test_a_server_that_hangs_up_after_each_answer_is_connected_to_again(method: str) -> None:
    """As with Connection: close; once a session stands that is its end."""

    usual: dict[str, Answer] = {"OPTIONS": reply, "DESCRIBE": sdp_answer("Content-Type: application/sdp")}
    hangs = threading.Event()
    with OddServer() as server:

        def then_close(asked: Asked) -> bytes | None:
            if hangs.is_set():
                return usual[method](asked)
            hangs.set()
            answer = usual[method](asked) or b""
            visit = server.visits[-1]
            visit.connection.sendall(answer)
            return None

        server.answers[method] = then_close
        assert set(opened(server)) == {"video", "audio"}
        assert len(server.visits) == 2


def test_a_description_that_ends_with_the_connection() -> None:
    with OddServer() as server:

        def describe(asked: Asked) -> None:
            body = sdp_answer("Content-Type: application/sdp", length=False)(asked)
            server.visits[-1].connection.sendall(body or b"")

        server.answers["DESCRIBE"] = describe
        assert set(opened(server)) == {"video", "audio"}
        assert server.events[-1] == "PLAY 1"


@pytest.mark.parametrize(
    ("base", "control", "asked"),
    [
        ("", "0", "rtsp://127.0.0.1:{port}/odd/0"),
        ("rtsp://10.0.0.5/live/", "0", "rtsp://10.0.0.5/live/0"),
        ("rtsp://me:secret@10.0.0.5/live/", "0", "rtsp://10.0.0.5/live/0"),
        ("rtsp://10.0.0.5/cam?channel=1&subtype=0/", "0", "rtsp://10.0.0.5/cam?channel=1&subtype=0/0"),
        ("", "rtsp://me:secret@10.0.0.5/other/0", "rtsp://10.0.0.5/other/0"),
        ("", "/odd/0", "rtsp://127.0.0.1:{port}/odd/0"),
        ("", "?ctype=0", "rtsp://127.0.0.1:{port}/odd?ctype=0"),
        ("", "my track 0", "rtsp://127.0.0.1:{port}/odd/my%20track%200"),
    ],
)
def test_tracks_are_asked_for_as_cameras_expect(base: str, control: str, asked: str) -> None:
    described = description((VIDEO[0], f"a=control:{control}"))
    with OddServer({"DESCRIBE": sdp_answer(f"Content-Base: {base}", body=described)}) as server:
        opened(server)
        setup = next(one for one in server.asked if one.method == "SETUP")
        assert setup.uri == asked.format(port=server.port)


@pytest.mark.parametrize(
    "info",
    [
        "url=rtsp://127.0.0.1/odd?x=1/0;rtptime=7,url=rtsp://127.0.0.1/odd?x=1/1;rtptime=9",
        "url=rtsp://elsewhere/odd?x=1/0;seq=1;rtptime=7, url=rtsp://elsewhere/odd?x=1/1;seq=2;rtptime=9",
        "url=0;rtptime=7,url=1;rtptime=9",
        "url=/0;rtptime=7,url=/1;rtptime=9",
        "url=rtsp://elsewhere/another/0;rtptime=7,url=rtsp://elsewhere/another/1;rtptime=9",
        "url=rtsp://127.0.0.1/odd?x=1;rtptime=1,url=1;rtptime=9,url=0;rtptime=7,url=;rtptime=3",
        "url=0;seq=1;rtptime=7,url=1;seq=1;rtptime=9,url=1;seq=99999;rtptime=5,url=0;rtptime=-1",
    ],
)
def test_each_track_has_its_own_place_in_rtp_info(info: str) -> None:
    with OddServer({"PLAY": lambda asked: reply(asked, f"RTP-Info: {info}")}, path="odd?x=1") as server:
        session = Session(server.url)
        with contextlib.closing(session):
            session.open(TCP, bind)
            start_ns, infos = session.positions(session.play())
    assert (start_ns, infos) == (0, {"video": 7, "audio": 9})


def test_avlabs_own_server_is_played_with_a_query_too() -> None:
    frames = [np.full((48, 64, 3), number, np.uint8) for number in range(3)]
    with avlab.Server(frames, fps=25, loop=True) as server:
        session = Session(server.url + "?channel=1")
        with contextlib.closing(session):
            granted = session.open(TCP, bind)
            _, infos = session.positions(session.play())
    assert set(infos) == set(granted) == {"video"}


@pytest.mark.parametrize(
    ("source", "sources"),
    [
        ("192.168.1.10", ("192.168.1.10",)),
        ("localhost", ("127.0.0.1",)),
        ("::ffff:10.0.0.1", ("::ffff:10.0.0.1",)),
        ("no.such.host.invalid", ()),
        ("0.0.0.0", ()),
        ("224.1.1.1", ()),
        ("a" * 300, ()),
        ("..", ()),
    ],
)
def test_where_datagrams_are_said_to_come_from(source: str, sources: tuple[str, ...]) -> None:
    with OddServer(transport=f";source={source}") as server:
        granted = opened(server, UDP)
        assert granted["video"].host == "127.0.0.1"
        assert granted["video"].sources == sources


@pytest.mark.parametrize("number", ["1", "01", "1 OPTIONS"])
def test_a_server_with_one_number_for_all_its_answers_is_waited_for_once(number: str) -> None:
    """An earlier answer, told twice, has such a number as well: the right one goes first while it may come."""

    def numbered(asked: Asked) -> bytes:
        extra = ("Session: 1",) if asked.method == "SETUP" else ()
        body = DESCRIBED if asked.method == "DESCRIBE" else ""
        return reply(asked, *extra, body=body).replace(f"CSeq: {asked.cseq}\r".encode(), f"CSeq: {number}\r".encode())

    with OddServer(dict.fromkeys(("OPTIONS", "DESCRIBE", "SETUP", "PLAY"), numbered)) as server:
        session = Session(server.url, timeout=2.0)
        try:
            assert set(session.open(TCP, bind)) == {"video", "audio"}
            session.play()
            assert not session.numbered
        finally:
            session.close()


def test_an_answer_with_an_older_number_gives_way_to_the_right_one() -> None:
    with OddServer() as server:

        def twice(asked: Asked) -> bytes:
            server.visits[-1].connection.sendall(raw("RTSP/1.0 455 No\nCSeq: 1\n\n")(asked) or b"")
            time.sleep(0.05)  # a packet of its own; which of them comes first is not asked of the clock
            return sdp_answer()(asked) or b""

        server.answers["DESCRIBE"] = twice
        session = Session(server.url, timeout=30.0)
        try:
            assert set(session.open(TCP, bind)) == {"video", "audio"}
            assert session.numbered
        finally:
            session.close()


# ---- sent on, and refused


def test_a_server_that_sends_on_is_followed() -> None:
    with OddServer() as there:
        location = there.url.replace("rtsp://", "rtsp://me:secret@")
        moved = {"DESCRIBE": lambda asked: reply(asked, f"Location: {location}", status="302 Moved Temporarily")}
        with OddServer(moved) as here:
            session = Session(here.url)
            with contextlib.closing(session):
                session.open(TCP, bind)
                session.play()
            assert session.moves == [f"the server at 127.0.0.1:{here.port} sends on to {there.url}"]
            assert session.where == f"127.0.0.1:{there.port}"
            assert here.methods == ["OPTIONS", "DESCRIBE"]
            assert all(there.url in asked.uri for asked in there.asked)
            assert not any("secret" in asked.text for asked in there.asked)


@pytest.mark.parametrize("status", ["303 See Other", "307 Temporary Redirect", "308 x"])
def test_what_http_calls_moved_is_followed_too(status: str) -> None:
    with OddServer() as there:
        moved = {"DESCRIBE": lambda asked: reply(asked, f"Location: {there.url}", status=status)}
        with OddServer(moved) as here:
            assert set(opened(here)) == {"video", "audio"}
            assert there.methods[-1] == "PLAY"


@pytest.mark.parametrize("method", ["SETUP", "PLAY"])
@pytest.mark.parametrize(
    ("location", "said"),
    [("rtsp://me:secret@127.0.0.2/cam", "names rtsp://127.0.0.2/cam: play that"), ("\x1b[2Jx", r"names \?\[2Jx")],
)
def test_who_is_sent_on_in_mid_dialogue_is_told_where(method: str, location: str, said: str) -> None:
    moved = {method: lambda asked: reply(asked, f"Location: {location}", status="302 Moved Temporarily")}
    with OddServer(moved) as server, pytest.raises(RefusedError, match=said) as caught:
        opened(server)
    assert "secret" not in str(caught.value)


def test_who_is_sent_on_to_where_nothing_listens_is_told_by_whom() -> None:
    with OddServer() as there:
        pass
    moved = {"DESCRIBE": lambda asked: reply(asked, f"Location: {there.url}", status="301 Moved Permanently")}
    with OddServer(moved) as here, pytest.raises(ConnectionRefusedError, match=f"{here.port} sends on to {there.url}"):
        opened(here)


@pytest.mark.parametrize("kept", [False, True])
def test_a_server_that_hangs_up_instead_of_granting_a_transport_is_asked_for_another(kept: bool) -> None:
    """Unless it is UDP or nothing."""

    def setup(asked: Asked) -> bytes | None:
        return None if "client_port" in asked.headers["transport"] else reply(asked, "Session: 1")

    with OddServer({"SETUP": setup}) as server:
        over = {"video": "udp", "audio": "tcp"}
        if kept:
            with pytest.raises(ConnectionError, match="hung up instead of answering SETUP"):
                opened(server, over, fixed=("video",))
        else:
            granted = opened(server, over)
            assert all(each.channels is not None for each in granted.values())


@pytest.mark.parametrize(("status", "method"), [("301 Moved Permanently", "DESCRIBE"), ("301 x", "OPTIONS")])
def test_only_three_times(status: str, method: str) -> None:
    here: OddServer

    def on(asked: Asked) -> bytes:
        return reply(asked, f"Location: /odd{len(here.asked)}", status=status)

    with (
        OddServer({method: on}) as here,
        pytest.raises(OSError, match=r"more than 3 times, last to rtsp://127.*/odd\d"),
    ):
        opened(here)
    assert here.methods.count(method) == 4


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://127.0.0.1/x", r"sends on \(302\) to http://127.0.0.1/x, which is no address to play"),
        ("rtsps://127.0.0.1/x", "rtsps://127.0.0.1/x, which is no"),
        ("", "to nowhere"),
        ("rtsp://[x", r"to rtsp://\[x, which"),
        ("http://me:secret@127.0.0.1/\x1b[31m", r"to http://127.0.0.1/\?\[31m"),
        ("rtsp://127.0.0.1:{free}/x", "nothing listens at 127.0.0.1:{free}"),
    ],
)
def test_where_it_does_not_go_on_is_said(location: str, said: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = str(nobody.getsockname()[1])
        location, said = location.replace("{free}", port), said.replace("{free}", port)
        answers: dict[str, Answer] = {"DESCRIBE": lambda a: reply(a, f"Location: {location}", status="302 Moved")}
        with OddServer(answers) as server, pytest.raises(OSError, match=said) as caught:
            opened(server)
    assert "secret" not in str(caught.value)


def test_a_password_that_is_not_accepted_is_told_to_nobody() -> None:
    wants = 'WWW-Authenticate: Digest realm="cam", nonce="5f3c0de1"'
    answers: dict[str, Answer] = {
        method: lambda asked: reply(asked, wants, status="401 Unauthorized") for method in ("OPTIONS", "DESCRIBE")
    }
    with OddServer(answers) as server:
        client = avlab.Client(server.url.replace("rtsp://", "rtsp://me:secret@"), audio="null")
        with pytest.raises(RefusedError, match=r"127.0.0.1:\d+ does not accept the user name") as caught:
            client.start()
        seen = [str(caught.value), repr(client), client.url, str(client.trace.meta), *client.notices]
        seen += [str(client.trace.settings), *(asked.text for asked in server.asked)]
    assert not any("secret" in text for text in seen)


def test_what_a_server_says_reaches_no_terminal_as_it_is() -> None:
    answers: dict[str, Answer] = {"SETUP": lambda asked: reply(asked, status="453 \x1b[2J\x07no")}
    with OddServer(answers) as server, pytest.raises(RefusedError, match=r"refused SETUP: 453 \?\[2J\?no"):
        opened(server)


@pytest.mark.parametrize(
    ("media", "said"),
    [
        ((["m=audio 0 RTP/AVP 97", "a=rtpmap:97 L16/1"],), r"carries L16/1 \(its clock has 1 ticks a second"),
        (
            (["m=audio 0 RTP/AVP 97", "a=rtpmap:97 L16/8000/200"],),
            r"carries L16/8000/200 \(it has 200 channels, and 8 are the most",
        ),
        ((["m=audio 0 RTP/AVP 97", "a=rtpmap:97 L16/1000000000"],), "carries L16/1000000000"),
        ((["m=video 0 RTP/AVP 26", "a=rtpmap:26 JPEG/1"],), "carries JPEG/1"),
        ((["m=video 0 RTP/AVP 96", "a=rtpmap:96 VP8/90000"],), "carries VP8: avlab plays"),
        ((["m=video 0 RTP/AVP 99"],), "carries payload type 99"),
        ((), "carries nothing"),
    ],
)
def test_a_clock_that_cannot_be_is_not_played(media: Any, said: str) -> None:
    with OddServer(described=description(*media)) as server, pytest.raises(ValueError, match=said):
        opened(server)


@pytest.mark.parametrize("line", ["M=video 0 RTP/AVP 26", "m=video RTP/AVP 26", "M=video RTP/AVP 26"])
def test_a_medium_in_capitals_or_without_a_port_is_played(line: str) -> None:
    with OddServer(described=description([line, "a=control:0"])) as server:
        assert opened(server)["video"].media.encoding == "JPEG"


def test_another_track_of_a_kind_is_played_where_the_first_cannot_be() -> None:
    odd = ["m=audio 0 RTP/AVP 98", "a=rtpmap:98 L16/1", "a=control:9"]
    with OddServer(described=description(odd, AUDIO)) as server:
        assert opened(server)["audio"].media.clock_rate == 8000


def test_of_several_formats_the_one_that_is_played_is_taken() -> None:
    many = ["m=video 0 RTP/AVP 96 26 97", "a=rtpmap:96 VP8/90000", "a=rtpmap:97 rtx/90000", "a=control:0"]
    with OddServer(described=description(many)) as server:
        media = opened(server)["video"].media
    assert (media.payload_type, media.encoding, media.clock_rate) == (26, "JPEG", 90_000)
    assert [number for number, _ in media.others] == [96, 97]


def test_a_cameras_way_back_is_not_taken_for_its_sound() -> None:
    back = ["m=audio 0 RTP/AVP 98", "a=rtpmap:98 L16/16000", "a=control:5", "a=sendonly"]
    with OddServer(described=description(VIDEO, back, AUDIO)) as server:
        assert opened(server)["audio"].media.clock_rate == 8000
    with OddServer(described=description(VIDEO, back)) as server:  # some mark what they send so
        assert opened(server)["audio"].media.clock_rate == 16_000


def test_what_is_no_description_is_a_sentence() -> None:
    with (
        OddServer({"DESCRIBE": sdp_answer(body="<html>")}) as server,
        pytest.raises(ValueError, match=r"127.0.0.1:\d+ says of its stream is not understood: This is no session"),
    ):
        opened(server)


# ---- bounds


@pytest.mark.parametrize(
    "packet", [interleave(0, RTP), interleave(0, RTP + bytes(60_000)), interleave(9, bytes(20_000))]
)
def test_the_time_is_the_answers_whatever_else_comes(packet: bytes) -> None:
    stop = threading.Event()
    with OddServer() as server:

        def endless(asked: Asked) -> bytes:
            deadline = time.perf_counter() + 20
            with contextlib.suppress(OSError):
                while not stop.is_set() and time.perf_counter() < deadline:
                    server.visits[-1].connection.sendall(packet * 20)
            return b""

        server.answers["OPTIONS"] = endless
        began = time.perf_counter()
        session = Session(server.url, timeout=0.5)
        with contextlib.closing(session), pytest.raises(OSError, match=r"does not answer OPTIONS|is no RTSP server"):
            session.open(TCP, bind)
        stop.set()
        assert time.perf_counter() - began < 10
        kept = session.feed(b"") if session.answers.error is None else []
        assert len(kept) <= rtsp_client.EARLY_PACKETS
        assert sum(len(event.data) for event in kept) <= rtsp_client.EARLY_BYTES  # type: ignore[union-attr]


def test_of_what_comes_early_the_newest_is_kept() -> None:
    count = rtsp_client.EARLY_PACKETS + 10
    packets = b"".join(interleave(0, RTP + number.to_bytes(4, "big")) for number in range(count))
    with OddServer({"PLAY": lambda asked: packets + reply(asked)}) as server:
        session = Session(server.url)
        with contextlib.closing(session):
            session.open(TCP, bind)
            session.play()
            kept = session.feed(b"")
    numbers = [int.from_bytes(event.data[-4:], "big") for event in kept if event.data[:2] == RTP[:2]]  # type: ignore[union-attr]
    assert count - 1 in numbers
    assert 0 not in numbers


@pytest.mark.parametrize(
    "answer",
    [
        b"RTSP/1.0 200 OK\r\nX: " + b"a" * 20_000,
        b"RTSP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"\xff" * 400_000,
    ],
)
def test_an_answer_has_bounds(answer: bytes) -> None:
    with OddServer({"DESCRIBE": lambda _: answer}) as server, pytest.raises(ConnectionError, match="is no RTSP server"):
        opened(server, timeout=2)


def test_what_came_instead_of_an_answer_is_told() -> None:
    with (
        OddServer({"OPTIONS": lambda _: b"\x01\x02 I am something else entirely"}) as server,
        pytest.raises(TimeoutError, match=r"begins with b'\\x01\\x02 I am"),
    ):
        opened(server, timeout=0.3)


GOOD = {
    "OPTIONS": b"RTSP/1.0 200 OK\r\nCSeq: @\r\nPublic: DESCRIBE, SETUP, PLAY, GET_PARAMETER\r\n\r\n",
    "DESCRIBE": b"RTSP/1.0 200 OK\r\nCSeq: @\r\nContent-Base: rtsp://127.0.0.1:5/odd/\r\n"
    + b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(DESCRIBED)
    + DESCRIBED.encode(),
    "SETUP": b"RTSP/1.0 200 OK\r\nCSeq: @\r\nSession: 47;timeout=60\r\n"
    b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=0000ABCD;source=127.0.0.1\r\n\r\n",
    "PLAY": b"RTSP/1.0 200 OK\r\nCSeq: @\r\nSession: 47\r\nRange: npt=12.5-\r\n"
    b"RTP-Info: url=rtsp://127.0.0.1:5/odd/0;seq=1;rtptime=5,url=rtsp://127.0.0.1:5/odd/1;seq=7;rtptime=9\r\n\r\n",
}
PIECES = [
    b"\r\n",
    b":",
    b";",
    b"=",
    b"-",
    b"/",
    b"$\0\0\x10",
    b"\0",
    b"\xff\xfe",
    b"9" * 30,
    b" ",
    b",",
    b"[",
    b"%",
    b"npt=",
]


@st.composite
def mutated(draw: Any) -> dict[str, bytes]:
    """Good answers, of which one or two are cut, doubled, overwritten or added to."""
    answers = dict(GOOD)
    for _ in range(draw(st.integers(1, 2))):
        method = draw(st.sampled_from(list(GOOD)))
        data = answers[method]
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 30)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8) | st.just(data[at:end] * 2))
        answers[method] = data[:at] + piece + data[end:]
    return answers


def test_any_answer_plays_or_ends_in_one_sentence() -> None:
    @settings(max_examples=300, deadline=None)
    @given(answers=mutated())
    def tried(answers: dict[str, bytes]) -> None:
        def then_end(asked: Asked) -> bytes | None:
            answer = answers[asked.method].replace(b"@", asked.cseq.encode())
            if answers[asked.method] == GOOD[asked.method]:
                return answer
            server.visits[-1].connection.sendall(answer)
            return None  # so that nothing is waited for

        server.answers = dict.fromkeys(GOOD, then_end)
        session, said = Session(server.url, timeout=5.0), "played"
        try:
            session.open(TCP, bind)
            start_ns, infos = session.positions(session.play())
            assert 0 <= start_ns < 1 << 62
            assert all(0 <= ticks < 1 << 32 for ticks in infos.values())
        except (OSError, ValueError) as error:
            said = "" if isinstance(error, UnicodeError) else str(error)
        finally:
            session.close()
        assert re.fullmatch(r"[^\n\x1b]+", said)

    with OddServer() as server:
        tried()
