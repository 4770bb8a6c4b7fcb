"""The way that media take to a client: firewalls, servers with several addresses, UDP refused or lost, stray bytes."""

from __future__ import annotations

import re
import socket
import threading
from typing import Any

import numpy as np
import pytest
from oddserver import DESCRIBED, Asked, OddServer, reply
from rawclient import until
from scripted import bye

import avlab
from avlab.stream.rtsp import opening
from avlab.stream.rtsp import receiver as rtsp_receiver
from avlab.stream.rtsp.dialogue import RefusedError
from avlab.wire import rtcp
from avlab.wire.rtp import RtpPacket

pytestmark = pytest.mark.slow

FALLEN_BACK = "everything comes over TCP now"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way is taken for shut a little sooner than in earnest."""
    monkeypatch.setattr(opening, "SHUT_NS", 400_000_000)
    monkeypatch.setattr(rtsp_receiver, "FALL_BACK_TIMEOUT", 0.5)


def shown(client: avlab.Client) -> int:
    return int((client.trace.frames.query("stream == 'video'")["fate"] == "shown").sum())


def ways(client: avlab.Client) -> list[tuple[str, str]]:
    """Each stream's transports in turn, as the record has them."""
    rows = client.trace.settings
    return [(name, value) for name, value in zip(rows["name"], rows["value"], strict=True) if name.endswith("_over")]


def watched(server: Any, frames: int = 5, **settings: Any) -> avlab.Client:
    """Play until some pictures were shown, and leave."""
    with avlab.Client(server.url, audio="null", **settings) as client:
        until(lambda: client.wait(0) or shown(client) >= frames)
    return client


def ports_of(asked: Asked) -> tuple[int, int]:
    found = re.search(r"client_port=(\d+)-(\d+)", asked.headers["transport"])
    assert found is not None
    return int(found[1]), int(found[2])


# ---- firewalls


@pytest.mark.parametrize("audio", ["udp", "tcp"])
def test_a_datagram_from_each_port_to_each_opens_the_way(audio: Any) -> None:
    with OddServer(udp="walled") as server:
        client = watched(server, audio_over=audio)
    assert ("video_over", "udp") in ways(client)
    assert not client.notices
    streams = {"video", "audio"} if audio == "udp" else {"video"}
    assert {(stream, control) for stream, control, _ in server.knocks} >= {
        (s, c) for s in streams for c in (False, True)
    }
    for _, control, data in server.knocks:
        if control:
            assert isinstance(rtcp.parse_compound(data)[0], rtcp.ReceiverReport)
        else:
            knock = RtpPacket.parse(data)
            assert (knock.payload, knock.payload_type in (26, 97)) == (b"", False)


def test_where_no_datagram_comes_through_all_is_asked_for_over_tcp() -> None:
    with OddServer(udp="shut") as server:
        client = watched(server)
    assert any(FALLEN_BACK in words for words in client.notices)
    assert ways(client) == [("video_over", "udp"), ("audio_over", "tcp"), ("video_over", "tcp"), ("audio_over", "tcp")]
    order = server.events
    assert order.index("TEARDOWN 0") < order.index("SETUP 1") < order.index("PLAY 1") < order.index("TEARDOWN 1")


def test_a_server_that_keeps_one_session_sends_one_stream() -> None:
    """Left too late, it would go on with what it sent before in the new connection."""
    with OddServer(udp="shut", one_session=True) as server:
        client = watched(server, 20)
    assert any(FALLEN_BACK in words for words in client.notices)
    assert not any("leapt" in words for words in client.notices)
    frames = client.trace.frames.query("stream == 'video'")
    assert (frames["fate"] == "shown").sum() >= 0.75 * len(frames)


def test_a_server_without_tcp_is_asked_for_udp_again() -> None:
    def answer(asked: Asked) -> bytes | None:
        no_tcp = asked.method == "SETUP" and "interleaved" in asked.headers["transport"]
        return reply(asked, status="461 Unsupported Transport") if no_tcp else None

    with OddServer(udp="shut") as server:
        server.guard = answer
        with avlab.Client(server.url, audio="null") as client:
            until(lambda: client.wait(0) or server.methods.count("PLAY") == 2)
            server.udp = "open"
            until(lambda: client.wait(0) or shown(client) > 3)
    assert not any(FALLEN_BACK in words for words in client.notices)
    assert dict(ways(client)) == {"video_over": "udp", "audio_over": "udp"}
    first = server.methods.index("PLAY")
    assert "TEARDOWN" in server.methods[first : server.methods.index("PLAY", first + 1)]


def test_avlabs_own_server_does_not_begin_again() -> None:
    """Its only client stays, by another session."""
    frames = [np.full((48, 64, 3), number, np.uint8) for number in range(200)]
    with avlab.Server(frames, fps=25, network=avlab.Network(loss=1.0)) as server:
        client = watched(server)
    assert any(FALLEN_BACK in words for words in client.notices)
    pts = client.trace.frames.query("stream == 'video' and fate == 'shown'")["pts"]
    assert pts.iloc[0] > 0.2


def test_avlabs_own_server_with_room_for_one_is_left_first() -> None:
    frames = [np.full((48, 64, 3), number, np.uint8) for number in range(200)]
    with avlab.Server(frames, fps=25, clients=1, network=avlab.Network(loss=1.0)) as server:
        client = watched(server)
    assert any(FALLEN_BACK in words for words in client.notices)


def test_a_server_with_room_for_one_is_left_first() -> None:
    with OddServer(udp="shut", one_at_a_time=True) as server:
        client = watched(server)
    assert any(FALLEN_BACK in words for words in client.notices)
    assert server.methods.index("TEARDOWN") < len(server.methods) - 1 - server.methods[::-1].index("PLAY")


@pytest.mark.parametrize("settings", [{"video_over": "udp"}, {"video_over": "udp", "audio_over": "udp"}])
def test_udp_that_was_asked_for_stays(settings: dict[str, Any]) -> None:
    with OddServer(udp="shut") as server, avlab.Client(server.url, audio="null", **settings) as client:
        assert not client.wait(1)
        assert client.notices == ()
    assert "SETUP 1" not in server.events
    assert dict(ways(client))["video_over"] == "udp"


@pytest.mark.parametrize(
    ("udp", "described", "blamed"),
    [
        ("shut", "RTP/AVP 26", True),
        ("reports alone", "RTP/AVP 26", False),
        ("open", "RTP/AVP 96", False),  # packets come, of a payload type that was not described
    ],
)
def test_a_firewall_is_blamed_only_where_it_can_be_the_cause(
    udp: Any, described: str, blamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtsp_receiver, "LATE_START_NS", 500_000_000)
    text = DESCRIBED.replace("RTP/AVP 26", described).replace("a=control:0", "a=rtpmap:96 JPEG/90000\r\na=control:0")
    with OddServer(udp=udp, described=text) as server:
        with avlab.Client(server.url, audio="null", video_over="udp") as client:
            until(lambda: client.wait(0) or any("no picture" in words for words in client.notices))
        assert any("firewall" in words for words in client.notices) is blamed


def test_reports_alone_show_that_the_way_is_open() -> None:
    with OddServer(udp="reports alone") as server, avlab.Client(server.url, audio="null") as client:
        assert not client.wait(1)
    assert "SETUP 1" not in server.events
    assert dict(ways(client)) == {"video_over": "udp", "audio_over": "tcp"}


@pytest.mark.parametrize("status", ["461 Unsupported Transport", "400 Bad Request", "501 Not Implemented"])
def test_udp_that_is_refused(status: str) -> None:
    def answer(asked: Asked) -> bytes:
        if "client_port" in asked.headers["transport"]:
            return reply(asked, status=status)
        return reply(asked, f"Transport: {asked.headers['transport']}", "Session: 1")

    with OddServer({"SETUP": answer}) as server:
        client = watched(server)
        assert dict(ways(client)) == {"video_over": "tcp", "audio_over": "tcp"}
        assert any("refused the transports asked for: video over TCP, audio over TCP now" in w for w in client.notices)
        with pytest.raises(RefusedError, match=f"refused SETUP: {status}"):
            avlab.Client(server.url, audio="null", video_over="udp").start()


def test_a_stop_does_not_wait_for_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with OddServer(udp="shut", answers={"TEARDOWN": lambda _: None}) as server:
        client = avlab.Client(server.url, audio="null")
        monkeypatch.setattr(opening, "SHUT_NS", 20_000_000_000)

        def stop() -> None:
            until(lambda: "PLAY" in server.methods)
            client.stop()

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises((OSError, RuntimeError)):
            client.start()
        thread.join(10)
        assert not client.running


# ---- addresses


@pytest.mark.parametrize(
    ("address", "transport"),
    [
        ("127.0.0.2", ";source=127.0.0.2"),
        ("127.0.0.1", ";source=192.168.1.10"),
        ("127.0.0.1", ";source=localhost"),
        ("127.0.0.1", ";source=no.such.host.invalid"),
        ("127.0.0.1", ";source=0.0.0.0"),
        ("127.0.0.2", ""),
        ("127.0.0.2", ";source=192.168.1.10"),
    ],
)
def test_wherever_the_server_sends_from(address: str, transport: str) -> None:
    with OddServer(address=address, transport=transport) as server:
        client = watched(server, video_over="udp", audio_over="udp")
    assert dict(ways(client)) == {"video_over": "udp", "audio_over": "udp"}
    came = client.trace.settings.query("name == 'video from another address'")
    assert list(came["value"]) == ([address] if address != "127.0.0.1" else [])


def test_reports_go_to_where_the_stream_comes_from() -> None:
    with (
        OddServer(address="127.0.0.2", transport=";source=127.0.0.2") as server,
        avlab.Client(server.url, audio="null", audio_over="udp") as client,
    ):
        blocks = lambda: [  # noqa: E731
            packet for _, control, data in server.knocks if control for packet in rtcp.parse_compound(data)
        ]
        until(lambda: any(isinstance(each, rtcp.ReceiverReport) and each.blocks for each in blocks()))
        assert client.running


def test_a_forged_bye_ends_nothing() -> None:
    with OddServer(udp="open") as server, avlab.Client(server.url, audio="null", audio_over="udp") as client:
        until(lambda: shown(client) > 3)
        setups = [asked for asked in server.asked if asked.method == "SETUP"]
        for host in ("127.0.0.1", "127.0.0.9"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
                forger.bind((host, 0))
                for asked, ssrc in zip(setups, (0x1111, 0x2222), strict=True):
                    forger.sendto(bye(ssrc), ("127.0.0.1", ports_of(asked)[1]))
        before = shown(client)
        until(lambda: client.wait(0) or shown(client) > before + 20)
        assert client.running


def test_a_strangers_packets_change_nothing() -> None:
    with OddServer() as server, avlab.Client(server.url, audio="null", audio_over="udp") as client:
        until(lambda: shown(client) > 3)
        video = next(asked for asked in server.asked if asked.method == "SETUP")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.9", 0))
            for number in range(50):
                data = RtpPacket(26, number, 7, 0x1111, True, bytes(20)).serialize()
                stranger.sendto(data, ("127.0.0.1", ports_of(video)[0]))
        before = shown(client)
        until(lambda: client.wait(0) or shown(client) > before + 10)
    assert "video from another address" not in set(client.trace.settings["name"])
    assert (client.trace.packets.query("stream == 'video'")["bytes"] != 32).all()


@pytest.mark.parametrize("host", ["::1"])
@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_ipv6(host: str, way: Any) -> None:
    frames = [np.full((48, 64, 3), number, np.uint8) for number in range(100)]
    with avlab.Server(frames, fps=25, loop=True, host=host) as server:
        client = watched(server, video_over=way)
    assert dict(ways(client))["video_over"] == way


# ---- one connection, and what is between packets


@pytest.mark.parametrize("stray", [b"\x00\xff\x13\x37\x00\x01", b"\0", b"$", b"$\x00\x01\x00"])
def test_stray_bytes_after_every_packet(stray: bytes) -> None:
    with OddServer(stray=stray) as server:
        client = watched(server, video_over="tcp")
    assert "stray bytes" in set(client.trace.settings["name"])


def test_a_password_is_in_no_request_and_no_record(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from avlab.cli import main

    with OddServer() as server:
        url = server.url.replace("rtsp://", "rtsp://me:secret@")
        saved = tmp_path / "run.avtrace"
        options = ["--no-window", "--audio", "null", "--video-over", "tcp", "--audio-over", "tcp", "--seconds", "1"]
        assert main(["play", url, *options, "--trace", str(saved)]) == 0
        said = capsys.readouterr()
        assert f"playing rtsp://127.0.0.1:{server.port}/odd" in said.out
        client = watched(server)
        seen = [said.out, said.err, *(asked.text for asked in server.asked), repr(client), str(client.trace.meta)]
        assert "RTP/AVP/TCP" in next(asked for asked in server.asked if asked.method == "SETUP").text
        trace = avlab.Trace.load(saved)
        seen += [str(trace.meta), repr(trace), str(trace.settings)]
    assert not any("secret" in text for text in seen)
    assert dict(zip(trace.settings["name"], trace.settings["value"], strict=True))["video_over"] == "tcp"
