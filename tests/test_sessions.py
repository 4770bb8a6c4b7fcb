"""Several clients on one server, the well-behaved and the others; and what the server answers to each request."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawclient import RawClient, until

import avlab
from avlab.measure.numbers import metrics
from avlab.media import synth
from avlab.stream.rtsp.dialogue import RefusedError, Session
from avlab.stream.sockets.links import UdpLink, udp_pair
from avlab.stream.ways import STALL_BYTES
from avlab.wire import rtcp, rtsp, sdp
from avlab.wire.rtp import RtpPacket

INTERLEAVED = "RTP/AVP/TCP;unicast;interleaved=0-1"


def received(client: avlab.Client) -> int:
    """How many packets have come."""
    return len(client.recent(3600, joined=False).packets)


def pictures(count: int = 30) -> list[NDArray[np.uint8]]:
    return [np.full((64, 64, 3), 2 * n + 10, np.uint8) for n in range(count)]


def heavy(count: int = 4) -> list[NDArray[np.uint8]]:
    """Noise: some 300 KB a picture at quality 90, which fill any socket's buffers soon."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two seconds of picture and sound."""
    return str(synth.write(synth.constant("two.mp4", 15, 2), tmp_path_factory.mktemp("clips")))


@pytest.fixture
def server(clip: str) -> Iterator[avlab.Server]:
    with avlab.Server(clip, loop=True) as running:
        yield running


@pytest.fixture
def raw(server: avlab.Server) -> Iterator[RawClient]:
    with RawClient(server.url) as client:
        yield client


# ---- what is answered


def test_the_methods_are_told(raw: RawClient) -> None:
    answer = raw.ask("OPTIONS")
    assert answer.status == 200
    assert answer.headers["Public"] == "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER"


def test_the_description_is_one_that_can_be_read(raw: RawClient) -> None:
    answer = raw.ask("DESCRIBE", Accept="application/sdp")
    described = sdp.parse(answer.body.decode())
    assert answer.headers["Content-Base"] == raw.url + "/"
    assert [(m.kind, m.encoding, m.clock_rate, m.control) for m in described.media] == [
        ("video", "JPEG", 90_000, "video"),
        ("audio", "L16", 44_100, "audio"),
    ]
    assert described.media[0].framerate == 15
    assert described.media[1].channels == 2


REFUSALS: list[tuple[str, list[tuple[str, str, dict[str, Any]]], int]] = [
    ("a track that is not there", [("SETUP", "/smell", {"Transport": INTERLEAVED})], 404),
    ("no way to carry it", [("SETUP", "/video", {"Transport": "RTP/AVP;multicast;port=5000-5001"})], 461),
    ("recording", [("SETUP", "/video", {"Transport": INTERLEAVED + ';mode="RECORD"'})], 461),
    ("UDP without a port", [("SETUP", "/video", {"Transport": "RTP/AVP;unicast"})], 461),
    ("another protocol", [("SETUP", "/video", {"Transport": "SCTP"})], 461),
    ("no transport at all", [("SETUP", "/video", {})], 461),
    ("a port that cannot be", [("SETUP", "/video", {"Transport": "RTP/AVP;unicast;client_port=70000-70001"})], 400),
    ("playing what was not set up", [("PLAY", "", {})], 455),
    ("pausing what was not set up", [("PAUSE", "", {})], 455),
    ("pausing before playing", [("SETUP", "/video", {"Transport": INTERLEAVED}), ("PAUSE", "", {})], 455),
    ("another's session", [("GET_PARAMETER", "", {"Session": "0123456789abcdef"})], 454),
    ("a method unknown", [("RECORD", "", {})], 501),
    ("a method made up", [("DANCE", "", {})], 501),
    ("a description of another kind", [("DESCRIBE", "", {"Accept": "text/html"})], 406),
    ("a parameter", [("GET_PARAMETER", "", {"body": b"packets_received\r\n"})], 451),
    ("no number", [("OPTIONS", "", {"CSeq": "x"})], 400),
]


@pytest.mark.parametrize(("requests", "status"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_what_is_refused(raw: RawClient, requests: list[tuple[str, str, dict[str, Any]]], status: int) -> None:
    *before, (method, path, headers) = requests
    for one, track, given in before:
        assert raw.ask(one, track, **given).status == 200
    answer = raw.ask(method, path, **headers)
    assert answer.status == status
    if status == 455:
        assert "SETUP" in answer.headers["Allow"]
    if status == 501:
        assert "PLAY" in answer.headers["Public"]
    assert raw.ask("OPTIONS").status == 200  # a refusal costs nothing


@pytest.mark.parametrize(
    ("offers", "granted"),
    [
        ("RTP/AVP;multicast,RTP/AVP/TCP;unicast;interleaved=4-5", (4, 5)),
        ("RTP/AVP/TCP;unicast", (0, 1)),
        ("RTP/AVP/TCP;unicast;interleaved=7-7", (0, 1)),
        ("RTP/AVP/TCP;unicast;interleaved=254-255;ssrc=xyz", (254, 255)),
    ],
)
def test_the_first_offer_that_can_be_is_taken(raw: RawClient, offers: str, granted: tuple[int, int]) -> None:
    assert raw.set_up("video", offers).interleaved == granted


def test_two_tracks_never_share_channels(raw: RawClient) -> None:
    assert raw.set_up("video", INTERLEAVED).interleaved == (0, 1)
    assert raw.set_up("audio", INTERLEAVED).interleaved == (2, 3)


def test_a_destination_is_ignored(server: avlab.Server, raw: RawClient) -> None:
    """Media goes to the address that asked, whatever address it names: a server must not be turned on others."""
    links, victims = udp_pair("127.0.0.1"), udp_pair("127.0.0.2")
    ports = f"client_port={links[0].port}-{links[1].port}"
    granted = raw.set_up("video", f"RTP/AVP;unicast;destination=127.0.0.2;{ports}")
    assert granted.destination == ""
    assert granted.client_port == (links[0].port, links[1].port)
    assert raw.ask("PLAY").status == 200
    got: list[bytes] = []

    def some() -> bool:
        got.extend(data for data, _ in links[0].receive())
        return len(got) > 20

    until(some)
    assert victims[0].receive() == []
    assert {RtpPacket.parse(data).ssrc for data in got} == {granted.ssrc}
    for link in (*links, *victims):
        link.close()


def test_a_report_comes_before_the_first_packet_and_the_answer_before_both(raw: RawClient) -> None:
    granted = {stream: raw.set_up(stream, INTERLEAVED) for stream in ("video", "audio")}
    answer = raw.ask("PLAY", Range="npt=0-")
    assert answer.status == 200
    assert sdp.NptRange.parse(answer.headers["Range"]).start_ns == 0
    infos = {info.url: info for info in rtsp.parse_rtp_info(answer.headers["RTP-Info"])}
    until(lambda: raw.read() and len(raw.packets) > 60)
    for stream, transport in granted.items():
        assert transport.interleaved is not None
        media, control = transport.interleaved
        mine = [packet for packet in raw.packets if packet.channel in (media, control)]
        report = rtcp.parse_compound(mine[0].data)[0]
        assert mine[0].channel == control
        assert isinstance(report, rtcp.SenderReport)
        first = RtpPacket.parse(next(packet.data for packet in mine if packet.channel == media))
        info = infos[f"{raw.url}/{stream}"]
        assert (first.sequence, first.timestamp, first.ssrc) == (info.seq, info.rtptime, transport.ssrc)
        assert report.ssrc == transport.ssrc


def test_a_session_lives_while_it_is_asked_after(clip: str) -> None:
    """Keep-alives count, silence does not; receiver reports count like keep-alives."""
    with avlab.Server(clip, loop=True, session_timeout=3) as server, RawClient(server.url) as raw:
        with RawClient(server.url) as silent:
            for client in (raw, silent):
                client.set_up("audio", INTERLEAVED)
            session = raw.session
            assert server.clients == 2

            def alive() -> bool:
                assert raw.ask("GET_PARAMETER").status == 200
                return server.clients == 1

            until(alive)
            assert silent.hung_up()
        assert raw.session == session
        answer = raw.ask("GET_PARAMETER")
        assert rtsp.SessionHeader.parse(answer.headers["Session"]) == rtsp.SessionHeader(session or "", 3)
        assert "client timed out" in list(server.trace.settings["name"])


@pytest.mark.slow
def test_receiver_reports_over_udp_keep_a_session_alive(clip: str) -> None:
    with avlab.Server(clip, loop=True, session_timeout=3) as server, RawClient(server.url) as raw:
        links = udp_pair("127.0.0.1")
        granted = raw.set_up("audio", f"RTP/AVP;unicast;client_port={links[0].port}-{links[1].port}")
        assert granted.server_port is not None
        assert raw.ask("PLAY").status == 200
        block = rtcp.ReportBlock(granted.ssrc or 0, 0, 0, 0, 0, 0, 0)
        report = rtcp.serialize_compound([rtcp.ReceiverReport(7, (block,)), rtcp.Sdes(7, "by hand")])

        def five_seconds() -> bool:
            links[1].send([report], ("127.0.0.1", granted.server_port[1] if granted.server_port else 0))
            return len(server.trace.frames.query("stream == 'video'")) > 75

        until(five_seconds)
        assert server.clients == 1
        until(lambda: server.clients == 0)  # and then silence
        for link in links:
            link.close()


# ---- the clip's course


def test_a_later_client_joins_at_the_present(server: avlab.Server) -> None:
    with avlab.Client(server.url, audio="null") as early:
        until(lambda: len(server.trace.frames.query("stream == 'video'")) > 8)
        with RawClient(server.url) as late:
            ssrcs = {stream: late.set_up(stream, INTERLEAVED).ssrc for stream in ("video", "audio")}
            answer = late.ask("PLAY")
            start_ns = sdp.NptRange.parse(answer.headers["Range"]).start_ns
            assert start_ns is not None
            assert start_ns > 8 / 15 * 1e9
            until(lambda: late.read() and len(late.packets) > 60)
        assert early.running
    frames = server.trace.frames
    for info in rtsp.parse_rtp_info(answer.headers["RTP-Info"]):
        stream, rate = ("video", 90_000) if info.url.endswith("video") else ("audio", 44_100)
        assert info.rtptime is not None
        mine = [RtpPacket.parse(p.data) for p in late.packets if p.channel == (0 if stream == "video" else 2)]
        assert {packet.ssrc for packet in mine} == {ssrcs[stream]}
        assert mine[0].sequence == info.seq
        # A frame's timestamp less RTP-Info's is its pts less the range's start.
        row = frames[(frames["stream"] == stream) & (frames["timestamp"] == mine[0].timestamp)].iloc[0]
        ahead = ((mine[0].timestamp - info.rtptime + 2**31) % 2**32 - 2**31) / rate
        assert row["pts"] - start_ns / 1e9 == pytest.approx(ahead, abs=1e-4)
        assert ahead > -0.03


def test_pausing_is_one_clients_own_affair(server: avlab.Server) -> None:
    with avlab.Client(server.url, audio="null", video_over="tcp") as other, RawClient(server.url) as raw:
        raw.set_up("video", INTERLEAVED)
        assert raw.ask("PLAY").status == 200
        until(lambda: raw.read() and len(raw.packets) > 20)
        assert raw.ask("PAUSE").status == 200
        last = [RtpPacket.parse(p.data) for p in raw.packets if p.channel == 0][-1]
        raw.packets.clear()
        before = len(server.trace.frames)
        until(lambda: len(server.trace.frames) > before + 60)  # the others have gone on
        assert raw.ask("GET_PARAMETER").status == 200
        assert raw.packets == []
        answer = raw.ask("PLAY")
        until(lambda: raw.read() and len(raw.packets) > 20)
        info = rtsp.parse_rtp_info(answer.headers["RTP-Info"])[0]
        first = next(RtpPacket.parse(p.data) for p in raw.packets if p.channel == 0)
        assert (first.sequence, first.ssrc) == (info.seq, other_than(server, other))
        assert server.clients == 2
    ledger = metrics.packet_ledger(other.trace)
    assert ledger.closes
    assert (ledger.lost, ledger.socket_dropped) == (0, 0)
    # Live: what was missed is not made up for. Sixty rows are five pictures and their sound.
    assert (first.timestamp - last.timestamp) % 2**32 > 3 * 90_000 / 15


def other_than(server: avlab.Server, client: avlab.Client) -> int:
    [ssrc] = server.ssrcs - set(client.trace.meta["ssrcs"])
    return ssrc


def test_all_may_pause_and_the_clip_goes_on_for_them() -> None:
    with avlab.Server(pictures(60), fps=60, loop=True) as server, RawClient(server.url) as raw:
        raw.set_up("video", INTERLEAVED)
        raw.ask("PLAY")
        raw.ask("PAUSE")
        until(lambda: len(server.trace.frames) > 30)
        assert sdp.NptRange.parse(raw.ask("PLAY").headers["Range"]).start_ns or 0 > 10 / 60 * 1e9


@pytest.mark.parametrize("leaves", ["teardown", "close"])
def test_when_nobody_is_left_the_clip_rewinds(leaves: str) -> None:
    with avlab.Server(pictures(), fps=30, loop=True) as server:
        for _ in range(3):
            with RawClient(server.url) as raw:
                raw.set_up("video", INTERLEAVED)
                assert sdp.NptRange.parse(raw.ask("PLAY").headers["Range"]).start_ns == 0
                until(lambda: raw.read() and len(raw.packets) > 3)
                if leaves == "teardown":
                    assert raw.ask("TEARDOWN").status == 200
                    assert raw.ask("PLAY").status == 455
            until(lambda: server.clients == 0 and "waiting" in server.status())


def test_the_same_client_may_play_again_after_the_end() -> None:
    with avlab.Server(pictures(6), fps=30) as server, RawClient(server.url) as raw:
        raw.set_up("video", INTERLEAVED)
        stamps = []
        for _ in range(2):
            raw.packets.clear()
            assert raw.ask("PLAY").status == 200
            until(lambda: raw.read() and any(is_bye(packet) for packet in raw.packets))
            media = [RtpPacket.parse(packet.data) for packet in raw.packets if packet.channel == 0]
            assert sum(packet.marker for packet in media) == 6
            stamps.append({packet.timestamp for packet in media})
        assert not stamps[0] & stamps[1]


def is_bye(packet: rtsp.Interleaved) -> bool:
    return packet.channel % 2 == 1 and any(isinstance(one, rtcp.Bye) for one in rtcp.parse_compound(packet.data))


# ---- transports


@pytest.mark.slow
@pytest.mark.parametrize(("video", "audio"), [("udp", "tcp"), ("udp", "udp"), ("tcp", "tcp"), ("tcp", "udp")])
def test_every_split_of_transports(clip: str, video: Any, audio: Any) -> None:
    with (
        avlab.Server(clip) as server,
        avlab.Client(server.url, audio="null", video_over=video, audio_over=audio) as client,
    ):
        assert client.wait(60)
    trace = client.trace
    assert client.error is None
    for stream, way in (("video", video), ("audio", audio)):
        packets, frames = metrics.packet_ledger(trace, stream), metrics.frame_ledger(trace, stream)
        assert packets.closes
        assert frames.closes
        assert packets.socket_dropped == 0
        assert way == "udp" or packets.lost == 0
    assert metrics.frame_ledger(trace).offered == 30
    assert metrics.frame_ledger(trace, "audio").offered == 100 * 3  # 20 ms are three packets at 44.1 kHz


class Choosy:
    """A server that grants one lower transport for all tracks of a session, and plays nothing."""

    def __init__(self, grants: str, *, status: int = 461) -> None:
        self.grants, self.status = grants, status
        self.asked: list[list[str]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self.listener.getsockname()[1]}/clip"
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                receiver, ways = rtsp.MessageReader(), list[str]()
                self.asked.append(ways)
                while data := connection.recv(4096):
                    if data == b"end":
                        return
                    for event in receiver.feed(data):
                        assert isinstance(event, rtsp.Request)
                        connection.sendall(self.answer(event, ways).serialize())

    def answer(self, request: rtsp.Request, ways: list[str]) -> rtsp.Response:
        headers = {"CSeq": request.headers["CSeq"]}
        if request.method == "DESCRIBE":
            media = [("video", 26, "JPEG", 90_000, 1), ("audio", 11, "L16", 44_100, 1)]
            described = sdp.SessionDescription(
                media=tuple(
                    sdp.Media(kind=k, payload_type=t, encoding=e, clock_rate=r, channels=c, control=k)
                    for k, t, e, r, c in media
                )
            )
            return rtsp.Response(200, "", rtsp.Headers(headers), sdp.serialize(described).encode())
        if request.method == "SETUP":
            transport = rtsp.parse_transport(request.headers["Transport"])[0]
            ways.append(transport.lower)
            mixed = len(set(ways)) > 1
            if (self.grants == "any" and mixed) or self.grants not in ("any", transport.lower):
                return rtsp.Response(self.status, "", rtsp.Headers(headers))
            headers |= {"Transport": transport.serialize(), "Session": "1;timeout=5"}
        return rtsp.Response(200, "", rtsp.Headers(headers))

    def __enter__(self) -> Choosy:
        return self

    def __exit__(self, *_: object) -> None:
        with socket.create_connection(self.listener.getsockname()) as last:
            last.sendall(b"end")
            self.thread.join(10)
        self.listener.close()


@pytest.mark.parametrize(
    ("grants", "status", "asked"),
    [
        ("any", 461, [["UDP", "TCP"], ["UDP", "UDP"]]),
        ("TCP", 461, [["UDP"], ["UDP"], ["TCP", "TCP"]]),
        ("any", 455, [["UDP", "TCP"], ["UDP", "UDP"]]),
        ("any", 500, [["UDP", "TCP"], ["UDP", "UDP"]]),
    ],
)
def test_a_server_that_refuses_a_mixture_is_asked_for_one(grants: str, status: int, asked: list[list[str]]) -> None:
    links: list[UdpLink] = []

    def bind(host: str) -> tuple[UdpLink, UdpLink]:
        pair = udp_pair(host)
        links.extend(pair)
        return pair

    with Choosy(grants, status=status) as server:
        session = Session(server.url)
        granted = session.open({"video": "udp", "audio": "tcp"}, bind)
        session.close()
        assert server.asked == asked
        assert {stream: one.links is not None for stream, one in granted.items()} == dict.fromkeys(
            ("video", "audio"), asked[-1][-1] == "UDP"
        )
    for link in links:
        link.close()


@pytest.mark.parametrize(("grants", "status", "tries"), [("none", 461, 3), ("none", 404, 1)])
def test_a_server_that_refuses_all_is_left_with_its_own_words(grants: str, status: int, tries: int) -> None:
    with Choosy(grants, status=status) as server:
        client = avlab.Client(server.url, audio="null")
        with pytest.raises(RefusedError, match=rf"127\.0\.0\.1:\d+ refused SETUP: {status} \w+"):
            client.start()
        assert len(server.asked) == tries


# ---- bad company


@pytest.mark.slow
def test_bad_clients_cost_the_good_ones_nothing(clip: str) -> None:
    """One that never reads, one that dies, one that says nothing, one that talks nonsense, one that asks and asks."""
    with ExitStack() as stack:
        server = stack.enter_context(avlab.Server(clip, loop=True, session_timeout=3))
        good = [stack.enter_context(avlab.Client(server.url, audio="null", video_over=way)) for way in ("tcp", "udp")]
        bad = [stack.enter_context(RawClient(server.url, receive_buffer=4096)) for _ in range(5)]
        lazy, dying, silent, mad, pushy = bad
        for client in (lazy, dying):
            client.set_up("video", INTERLEAVED)
            client.send("PLAY")
        mad.socket.sendall(bytes(range(256)) * 100 + b"\r\n\r\n")
        until(lambda: good[0].running and server.clients == 4)
        dying.socket.close()
        until(lambda: server.clients <= 3)
        pushy.socket.settimeout(0.05)
        push_until_refused(pushy, options(pushy), at_once=500)
        until(lambda: server.clients == 2)
        heard = received(good[0])
        until(lambda: received(good[0]) > heard + 100)
        assert all(client.running for client in good)
        for client in (lazy, silent, mad, pushy):
            client.socket.settimeout(60)
            assert client.hung_up()

    sent = server.trace.packets
    mine = {
        way: sent[sent["ssrc"].isin(one.trace.meta["ssrcs"])] for way, one in zip(("tcp", "udp"), good, strict=True)
    }
    for way, packets in mine.items():
        assert (packets["fate"] == "socket_dropped").sum() == 0, way
    ledger = metrics.packet_ledger(good[0].trace)
    assert ledger.closes
    assert (ledger.lost, ledger.socket_dropped) == (0, 0)
    frames = good[0].trace.frames.query("stream == 'video'")
    assert not frames["fate"].isin(["lost", "incomplete"]).any()
    assert (np.diff(sorted(frames["index"].astype(int))) == 1).all()
    assert metrics.frame_ledger(good[1].trace).closes
    events = server.trace.settings
    assert (events["name"] == "client timed out").sum() >= 2
    assert events["value"].astype(str).str.contains("no RTSP message|headers are over").any()


def test_one_that_never_reads_is_sent_no_more_than_it_leaves_room_for() -> None:
    """What it does not take is dropped and counted, not kept; the clip goes on."""
    with (
        avlab.Server(heavy(), fps=60, loop=True, quality=90) as server,
        RawClient(server.url, receive_buffer=4096) as lazy,
    ):
        lazy.set_up("video", INTERLEAVED)
        lazy.send("PLAY")
        until(lambda: (server.trace.packets["fate"] == "socket_dropped").sum() > 500)
        [peer] = server.signalling.peers
        assert STALL_BYTES < peer.link.waiting < 2 * STALL_BYTES
        frames = len(server.trace.frames)
        until(lambda: len(server.trace.frames) > frames + 10)
        assert peer.link.waiting < 2 * STALL_BYTES
    packets = server.trace.packets
    assert list(packets["seq"]) == list(range(packets["seq"].min(), packets["seq"].min() + len(packets)))


def push_until_refused(client: RawClient, request: rtsp.Request, *, at_once: int) -> None:
    """Ask and ask, reading nothing, until the connection takes no more or is gone."""
    try:
        for _ in range(20_000 // at_once):
            client.socket.sendall(request.serialize() * at_once)
    except OSError:
        return


def options(client: RawClient) -> rtsp.Request:
    return rtsp.Request("OPTIONS", client.url, rtsp.Headers({"CSeq": "1"}))


def describe_at_length(client: RawClient) -> rtsp.Request:
    """A request whose address of 10 KB comes back in the answer."""
    return rtsp.Request("DESCRIBE", client.url + "/" + "x" * 10_000, rtsp.Headers({"CSeq": "1"}))


@pytest.mark.parametrize(
    ("request_of", "at_once", "words"),
    [(options, 500, "asks more at once than a client does"), (describe_at_length, 1, "does not read the answers")],
    ids=["floods", "never reads"],
)
def test_one_that_asks_and_asks_is_parted_from(
    server: avlab.Server, request_of: Callable[[RawClient], rtsp.Request], at_once: int, words: str
) -> None:
    with RawClient(server.url, receive_buffer=4096) as pushy:
        push_until_refused(pushy, request_of(pushy), at_once=at_once)
        until(lambda: server.trace.settings["value"].astype(str).str.contains(words).any())
        assert pushy.hung_up()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)) + b"\r\n\r\n",
        b"OPTIONS rtsp://x RTSP/1.0\r\n" + b"X: y\r\n" * 5000,
        b"A" * 40_000,
        b"SETUP rtsp://x/video RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 99999999\r\n\r\n",
    ],
    ids=["HTTP", "TLS", "endless headers", "an endless line", "an endless body"],
)
def test_nonsense_ends_the_connection_and_nothing_else(server: avlab.Server, nonsense: bytes) -> None:
    with RawClient(server.url) as mad:
        mad.socket.sendall(nonsense)
        assert mad.hung_up()
    assert server.running
    assert "client refused" in list(server.trace.settings["name"])
    with RawClient(server.url) as sane:
        assert sane.ask("OPTIONS").status == 200


def test_packets_on_channels_nobody_has_are_passed_over(raw: RawClient) -> None:
    for channel in (0, 1, 77, 255):
        raw.socket.sendall(rtsp.interleave(channel, bytes(range(200))))
    assert raw.ask("OPTIONS").status == 200
    raw.set_up("video", INTERLEAVED)
    raw.socket.sendall(rtsp.interleave(1, b"\x81\xc9\x00\x07no report"))
    assert raw.ask("PLAY").status == 200


@pytest.mark.slow
def test_three_clients_get_every_frame(clip: str) -> None:
    with avlab.Server(clip) as server, ExitStack() as stack:
        clients = [stack.enter_context(avlab.Client(server.url, audio="null", video_over="tcp")) for _ in range(3)]
        for client in clients:
            assert client.wait(60)
        assert len({ssrc for client in clients for ssrc in client.trace.meta["ssrcs"]}) == 6
        for client in clients:
            client.stop()
        until(lambda: server.clients == 0)
    for client in clients:
        frames = client.trace.frames.query("stream == 'video'")
        assert metrics.packet_ledger(client.trace).closes
        assert not frames["fate"].isin(["lost", "incomplete"]).any()
        indexes = sorted(frames["index"].astype(int))
        assert indexes == list(range(indexes[0], 30))
    assert clients[0].trace.frames.query("stream == 'video'")["index"].min() == 0
    encoded = server.trace.frames.query("stream == 'video'")
    assert len(encoded) == 30  # once for all


def test_a_client_that_leaves_is_forgotten_at_once(server: avlab.Server) -> None:
    for _ in range(3):
        client = avlab.Client(server.url, audio="null").start()
        assert server.clients == 1
        client.stop()
        until(lambda: server.clients == 0)
    assert re.match("0 clients, waiting", server.status())


def test_a_wait_that_runs_out_is_told_to_whoever_runs_the_server(clip: str) -> None:
    def impatient(delay: float, measured_fps: float, target_fps: float) -> float:
        return 0.0

    with avlab.Server(clip, pacer=avlab.FeedbackPacer(impatient)) as server, avlab.Client(server.url, audio="null"):
        until(lambda: server.notices)
        [said] = server.notices
    assert "the rule impatient asks to wait 0 ms" in said
    events = server.trace.settings.query("name == 'pacer' and kind == 'event'")
    assert list(events["value"]) == [said]
