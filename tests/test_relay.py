"""The relay between real sockets: what passes, what is lost, who is listened to; avlab and ffmpeg through it."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import tools
from hypothesis import given
from hypothesis import strategies as st
from rawclient import RawClient, until

import avlab
from avlab.measure.numbers import metrics
from avlab.network.impairment import Impairment, InTransit
from avlab.network.settings import Network
from avlab.stream import clock as stream_clock
from avlab.stream.relay import Relay
from avlab.stream.relaying import newcomers as relay_places
from avlab.stream.relaying import session as relay_session
from avlab.stream.relaying.relaydialogue import Dialogue, RelayTrack
from avlab.timing.stage import Dropped
from avlab.wire import rtsp
from avlab.wire.rtp import serialize_header
from avlab.wire.units import WireError

SECONDS = 60.0


def expected_losses(network: Network, count: int, *, stream: str = "video", client: int = 0) -> list[int]:
    """Which of the first `count` packets of a stream are lost, by the stage alone."""
    stage = Impairment(network, client=client)
    for number in range(count):
        stage.push(InTransit(stream, 1200, number), number)
    return [o.item.item for o in stage.pull(1 << 62) if isinstance(o, Dropped)]


@contextmanager
def datagrams(address: tuple[str, int] | None = None) -> Iterator[socket.socket]:
    """A UDP socket on loopback, connected to `address` if there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(SECONDS)
        end.bind(("127.0.0.1", 0))
        if address is not None:
            end.connect(address)
        yield end


@contextmanager
def plain(**settings: Any) -> Iterator[tuple[Relay, socket.socket, socket.socket]]:
    """A relay, a client's socket and the peer's."""
    with (
        datagrams() as peer,
        Relay(f"127.0.0.1:{peer.getsockname()[1]}", **settings) as relay,
        datagrams(("127.0.0.1", relay.port)) as client,
    ):
        yield relay, client, peer


def rtp(number: int, size: int = 100) -> bytes:
    return serialize_header(26, number, 90 * number, 7, False) + bytes(size)


# ---- plain datagrams


def test_datagrams_go_there_and_back() -> None:
    with plain() as (relay, client, peer):
        assert repr(relay).startswith(f"<Relay to 127.0.0.1:{peer.getsockname()[1]}, at rtsp://127.0.0.1:{relay.port}")
        for number in range(50):
            client.send(rtp(number))
        came = [peer.recvfrom(2000) for _ in range(50)]
        assert [data for data, _ in came] == [rtp(number) for number in range(50)]
        addresses = {address for _, address in came}
        assert len(addresses) == 1
        assert addresses != {client.getsockname()}  # the peer answers the relay
        peer.sendto(b"an answer", addresses.pop())
        assert client.recv(100) == b"an answer"
        assert relay.sessions == 1
    rows = relay.trace.packets
    assert list(rows["seq"].dropna()) == list(range(50))
    assert (rows["fate"] == "used").all()
    assert metrics.packet_ledger(relay.trace).closes
    assert not relay.running


@pytest.mark.parametrize(
    ("sent", "numbers"),
    [
        ([65_534, 65_535, 65_536, 65_537], [65_534, 65_535, 65_536, 65_537]),  # they wrap
        ([0, 1, 2, 30_000, 30_001, 30_002], [0, 1, 2, None, 4, 5]),  # the sender has begun anew: nothing is lost
        ([0, 1, 40_000, 2, 3, 4], [0, 1, None, 2, 3, 4]),  # one stray packet moves nothing
        ([5, 7, 6, 8], [5, 7, 6, 8]),
    ],
)
def test_the_record_believes_numbers_as_a_receiver_does(sent: list[int], numbers: list[int | None]) -> None:
    relay = Relay("127.0.0.1:1")
    came = [serialize_header(26, number & 0xFFFF, 3000 * at, 7, False) + bytes(10) for at, number in enumerate(sent)]
    assert [relay.row("video", data, at * 33_000_000)[2] for at, data in enumerate(came)] == numbers


def test_a_peer_may_be_named() -> None:
    with (
        datagrams() as peer,
        Relay(f"localhost:{peer.getsockname()[1]}") as relay,
        datagrams(("127.0.0.1", relay.port)) as client,
    ):
        client.send(b"hello")
        assert peer.recv(100) == b"hello"


def test_the_seeds_losses_and_no_others() -> None:
    network = Network(loss=0.2, burst=2, duplicate=0.1, seed=5)
    with plain(network=network) as (relay, client, _):
        for number in range(200):
            client.send(rtp(number))
            until(lambda count=number: len(set(relay.trace.packets["seq"])) > count)  # none lost by being too fast
    stage = Impairment(network, client=0, direction="up")
    for number in range(200):
        stage.push(InTransit("video", 112, number), 0)
    lost = [outcome.item.item for outcome in stage.pull(0) if isinstance(outcome, Dropped)]
    rows = relay.trace.packets
    assert list(rows["seq"][rows["fate"] == "lost"]) == lost
    ledger = metrics.packet_ledger(relay.trace)
    assert ledger.closes
    assert ledger.sent == 200
    assert ledger.duplicated == ledger.duplicate > 5


def test_one_way_loses_nothing_on_the_way_to_the_peer() -> None:
    with plain(network=Network(loss=1, delay=0.01), one_way=True) as (relay, client, peer):
        client.send(b"hello")
        data, address = peer.recvfrom(100)
        assert data == b"hello"
        peer.sendto(rtp(1), address)
        until(lambda: len(relay.trace.packets) == 2)
    assert list(relay.trace.packets["fate"]) == ["used", "lost"]
    assert metrics.one_way_delay(relay.trace)["delay_ms"].min() >= 10


def test_the_network_acts_on_the_next_packet() -> None:
    with plain(network=Network(loss=1)) as (relay, client, peer):
        client.send(rtp(0))
        until(lambda: len(relay.trace.packets) == 1)
        relay.network = Network()
        client.send(rtp(1))
        assert peer.recv(2000) == rtp(1)
        relay.network = Network(delay=0.05)
        client.send(rtp(2))
        relay.network = Network()
        assert peer.recv(2000) == rtp(2)
        with pytest.raises(TypeError, match=r"network must be an avlab\.Network, not 0\.5"):
            relay.network = 0.5  # type: ignore[assignment]
    assert list(relay.trace.packets["fate"]) == ["lost", "used", "used"]
    networks = relay.trace.settings.query("name == 'network'")
    assert list(networks["value"]) == ["loss 1", "clear", "delay 50 ms", "clear"]


def test_nobody_but_the_peer_is_listened_to() -> None:
    with plain() as (relay, client, peer), datagrams() as stranger:
        client.send(b"from the client")
        _, address = peer.recvfrom(100)
        stranger.sendto(b"from a stranger", address)
        peer.sendto(b"from the peer", address)
        assert client.recv(100) == b"from the peer"
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(100)
        assert len(relay.trace.packets) <= 2


def test_each_address_is_a_client_with_its_own_losses_and_there_is_an_end_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_places, "MAX_SESSIONS", 2)
    with plain() as (relay, client, peer), datagrams(("127.0.0.1", relay.port)) as second:
        addresses = []
        for end, words in ((client, b"first"), (second, b"second")):
            end.send(words)
            data, address = peer.recvfrom(100)
            assert data == words
            addresses.append(address)
            peer.sendto(b"answer", address)
            assert end.recv(100) == b"answer"
        assert addresses[0] != addresses[1]
        with datagrams(("127.0.0.1", relay.port)) as third:
            third.send(b"third")
            client.send(b"first again")
            assert peer.recv(100) == b"first again"
        peer.sendto(b"to the second", addresses[1])
        assert second.recv(100) == b"to the second"
        relay.idle_ns = 1  # from here on all are silent for too long
        until(lambda: relay.sessions == 0)
        relay.idle_ns = 1 << 62
        client.send(b"once more")
        assert peer.recv(100) == b"once more"


def test_what_is_under_way_at_the_end_is_in_flight() -> None:
    with plain(network=Network(delay=10)) as (relay, client, _):
        client.send(rtp(1))
        until(lambda: relay.sessions == 1)
    ledger = metrics.packet_ledger(relay.trace)
    assert (ledger.sent, ledger.in_flight, ledger.closes) == (1, 1, True)


# ---- RTSP


def test_messages_are_rewritten() -> None:
    agreed: list[RelayTrack] = []
    dialogue = Dialogue("10.0.0.5:554", bind=lambda: ((6000, 6001), (7000, 7001)), changed=agreed.append)

    def ask(method: str, path: str, **headers: str) -> rtsp.Request:
        known = {"CSeq": "1"} | headers
        return dialogue.request(rtsp.Request(method, f"rtsp://127.0.0.1:8555{path}", rtsp.Headers(known)))

    def answer(body: bytes = b"", **headers: str) -> rtsp.Response:
        given = {name.replace("_", "-"): value for name, value in {"CSeq": "1", **headers}.items()}
        return dialogue.response(rtsp.Response(200, "", rtsp.Headers(given), body))

    assert ask("DESCRIBE", "/a/b").uri == "rtsp://10.0.0.5:554/a/b"
    description = (
        "v=0\r\no=- 1 1 IN IP4 10.0.0.5\r\ns=x\r\nt=0 0\r\na=control:rtsp://10.0.0.5/a/b\r\n"
        "m=audio 0 RTP/AVP 10\r\na=control:rtsp://10.0.0.5:554/a/b/track1\r\n"
        "m=video 0 RTP/AVP 26\r\na=control:track2\r\n"
    )
    described = answer(description.encode(), Content_Base="rtsp://10.0.0.5:554/a/b/")
    assert described.headers["Content-Base"] == "rtsp://127.0.0.1:8555/a/b/"
    assert b"a=control:rtsp://127.0.0.1:8555/a/b/track1" in described.body
    assert b"rtsp://10.0.0.5" not in described.body
    offer = "RTP/AVP;unicast;client_port=5000-5001;destination=1.2.3.4;x=y,RTP/AVP/TCP;unicast;interleaved=0-1"
    asked = ask("SETUP", "/a/b/track1", Transport=offer)
    expected = "RTP/AVP;unicast;x=y;client_port=7000-7001,RTP/AVP/TCP;unicast;interleaved=0-1"
    assert asked.headers["Transport"] == expected
    granted = "RTP/AVP;unicast;client_port=7000-7001;server_port=9000-9001;source=10.0.0.5;ssrc=0000ABCD"
    transport = answer(Transport=granted).headers["Transport"]
    assert transport == "RTP/AVP;unicast;ssrc=0000ABCD;client_port=5000-5001;server_port=6000-6001"
    assert agreed == [RelayTrack("audio", (5000, 5001), (6000, 6001), (7000, 7001), (9000, 9001))]
    ask("SETUP", "/a/b/track2", Transport="RTP/AVP/TCP;unicast;interleaved=2-3")
    interleaved = "RTP/AVP/TCP;unicast;interleaved=2-3"
    assert answer(Transport=interleaved).headers["Transport"] == interleaved
    assert dialogue.stream_of(2) == "video"
    assert dialogue.stream_of(3) is None
    ask("PLAY", "/a/b/")
    info = "url=rtsp://10.0.0.5:554/a/b/track1;seq=1;rtptime=2,url=rtsp://10.0.0.5:554/a/b/track2;seq=3"
    rewritten = answer(RTP_Info=info).headers["RTP-Info"]
    assert [i.url for i in rtsp.parse_rtp_info(rewritten)] == [
        "rtsp://127.0.0.1:8555/a/b/track1",
        "rtsp://127.0.0.1:8555/a/b/track2",
    ]
    with pytest.raises(WireError):
        ask("SETUP", "/a/b/track1", Transport="RTP/AVP;unicast;client_port=99999-100000")


HOSTS = [
    "[x",
    "a\u2100b",
    "a\\q",
    "\\g<9>",
    "h:port",
    "@",
    "a@b@",
    "[::1]:99999",
    "%",
    "\udcff",
    "x" * 5000,
    "h?q",
    "h#f",
]


def test_challenges_keep_their_lines_and_what_answers_them_its_address() -> None:
    """Players read only one challenge a line; and a server compares the address that was hashed with the one asked."""
    dialogue = Dialogue("10.0.0.5:554", bind=lambda: ((6000, 6001), (7000, 7001)), changed=lambda track: None)
    challenges = [("WWW-Authenticate", f'Digest realm="r", nonce="n", algorithm={name}') for name in ("SHA-256", "MD5")]
    refused = dialogue.response(rtsp.Response(401, "", rtsp.Headers([("CSeq", "1"), *challenges])))
    assert [line for line in refused.serialize().decode().splitlines() if line.startswith("WWW")] == [
        f"{name}: {value}" for name, value in challenges
    ]
    uri = "rtsp://me:secret@relay:8555/a"
    for told, passed in (
        ('Digest username="me", uri="rtsp://relay:8555/a"', "rtsp://relay:8555/a"),
        ("Basic bWU6c2VjcmV0", "rtsp://10.0.0.5:554/a"),
        ("", "rtsp://10.0.0.5:554/a"),
    ):
        headers = rtsp.Headers(
            {"CSeq": "2", "Transport": "RTP/AVP;unicast;client_port=5000-5001", "Authorization": told}
        )
        request = dialogue.request(rtsp.Request("SETUP", uri, headers))
        assert (request.uri, request.headers["Authorization"]) == (passed, told)
        assert list(request.headers) == ["CSeq", "Transport", "Authorization"]
        assert request.headers["Transport"] == "RTP/AVP;unicast;client_port=7000-7001"


@pytest.mark.parametrize("host", HOSTS)
def test_whatever_host_a_client_names_is_given_back_to_it(host: str) -> None:
    dialogue = Dialogue("10.0.0.5:554", bind=lambda: ((6000, 6001), (7000, 7001)), changed=lambda track: None)
    asked = dialogue.request(rtsp.Request("DESCRIBE", f"rtsp://{host}/a", rtsp.Headers({"CSeq": "1"})))
    assert asked.uri.startswith("rtsp://10.0.0.5:554")
    body = b"v=0\r\ns=x\r\na=control:rtsp://10.0.0.5:554/a\r\nm=video 0 RTP/AVP 26\r\n"
    headers = rtsp.Headers({"CSeq": "1", "Content-Base": "rtsp://10.0.0.5:554/a/"})
    answer = dialogue.response(rtsp.Response(200, "", headers, body))
    named = re.split(r"[?#]", host)[0].rpartition("@")[2] or "10.0.0.5:554"
    assert answer.headers["Content-Base"] == f"rtsp://{named}/a/"
    assert f"a=control:rtsp://{named}/a\r\n".encode("utf-8", "replace") in answer.body
    answer.serialize()


@given(st.text(), st.binary())
def test_no_address_and_no_description_is_more_than_a_wire_error(uri: str, body: bytes) -> None:
    dialogue = Dialogue("10.0.0.5:554", bind=lambda: ((6000, 6001), (7000, 7001)), changed=lambda track: None)
    for number, method in enumerate(("DESCRIBE", "SETUP")):
        with contextlib.suppress(WireError):
            headers = rtsp.Headers({"CSeq": str(number), "Transport": "RTP/AVP;unicast;client_port=5000-5001"})
            dialogue.request(rtsp.Request(method, f"rtsp://{uri}", headers)).serialize()
            dialogue.response(rtsp.Response(200, "", headers, b"rtsp://" + body)).serialize()


@pytest.mark.slow
@pytest.mark.parametrize(("video", "audio"), [("udp", "tcp"), ("udp", "udp"), ("tcp", "tcp")])
def test_avlab_through_the_relay_loses_what_the_relay_loses(data: Path, video: str, audio: str) -> None:
    network = Network(loss=0.02, delay=0.02, seed=3)
    with (
        avlab.Server(data / "count-15.mp4", width=400) as server,
        Relay(server.url, network=network, one_way=True) as relay,
        avlab.Client(relay.url, audio="null", video_over=video, audio_over=audio) as client,
    ):
        assert relay.url == server.url.replace(server.url.split("/")[2], f"127.0.0.1:{relay.port}")
        assert client.wait(60), "no BYE came"
    assert client.trace.meta["joined"]  # its SSRCs are the server's own
    passed, seen = relay.trace, client.trace
    assert metrics.packet_ledger(passed).closes
    assert metrics.packet_ledger(seen).closes
    assert metrics.frame_ledger(seen).closes
    assert metrics.packet_ledger(passed).in_flight == 0
    for stream, over in (("video", video), ("audio", audio)):
        sides = (trace.packets[trace.packets["stream"] == stream] for trace in (passed, seen))
        at_relay, at_client = (rows[rows["sent"].notna()].sort_values("seq").reset_index() for rows in sides)
        assert len(at_relay) == len(at_client) > 400
        lost = [list(np.flatnonzero(rows["received"].isna())) for rows in (at_relay, at_client)]
        assert lost[0] == lost[1]
        assert lost[0] == ([] if over == "tcp" else expected_losses(network, len(at_relay), stream=stream))
        took = (at_client["received"] - at_client["sent"]).dropna()
        assert took.min() >= 0.02
    assert metrics.frame_ledger(seen).incomplete + metrics.frame_ledger(seen).lost > 0 or video == "tcp"


@pytest.mark.slow
@pytest.mark.parametrize("repair", ["rtx", "fec"])
def test_what_repairs_shifts_no_loss_of_the_media(data: Path, repair: Any) -> None:
    network = Network(loss=0.1, delay=0.005, seed=3)
    with (
        avlab.Server(data / "count-15.mp4", width=400) as server,
        Relay(server.url, network=network, one_way=True) as relay,
        avlab.Client(relay.url, audio="null", repair=repair, playout_delay=0.3) as client,
    ):
        assert client.wait(60), "no BYE came"
    rows = relay.trace.packets.query("stream == 'video'")
    rows = rows[rows["ssrc"] == rows["ssrc"].iloc[0]].sort_values("seq")
    ends = rows[rows["marker"].astype(bool)].groupby("timestamp")["seq"].min()
    media = rows[rows["seq"] <= rows["timestamp"].map(ends)]  # parity comes behind the marker
    assert list(np.flatnonzero(media["fate"] == "lost")) == expected_losses(network, len(media))
    assert len(relay.trace.packets.query("stream == 'video'")) > len(media)
    assert metrics.packet_ledger(client.trace, "video").recovered > 10


def test_requests_and_interleaved_packets_keep_their_order_under_jitter_and_a_bottleneck(data: Path) -> None:
    network = Network(loss=0.5, jitter=0.01, reorder=True, duplicate=0.5, rate=4_000, queue=0.05)
    with (
        avlab.Server(data / "count-15.mp4", width=320) as server,
        Relay(server.url, network=network) as relay,
        RawClient(relay.url) as client,
    ):
        assert client.ask("OPTIONS").status == 200
        described = client.ask("DESCRIBE")
        assert described.headers["Content-Base"].startswith(relay.url)
        for at, stream in enumerate(("video", "audio")):
            granted = client.set_up(stream, f"RTP/AVP/TCP;unicast;interleaved={2 * at}-{2 * at + 1}")
            assert granted.interleaved == (2 * at, 2 * at + 1)
        answer = client.ask("PLAY")
        assert all(info.url.startswith(relay.url) for info in rtsp.parse_rtp_info(answer.headers["RTP-Info"]))
        while len(client.packets) < 300:
            client.read()
        assert client.ask("TEARDOWN").status == 200
    for channel in (0, 2):
        numbers = [int.from_bytes(p.data[2:4], "big") for p in client.packets if p.channel == channel]
        assert len(numbers) > 20
        assert set(np.diff(numbers) % 65536) == {1}
    assert (relay.trace.packets["fate"].isin(["used", "in_flight"])).all()


def test_a_peer_that_is_not_there_is_named() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        with Relay(where) as relay:
            with pytest.raises(OSError, match="refused OPTIONS: 503"):
                avlab.Client(f"{relay.url}/count", audio="null").start()
            assert relay.notices == (f"nothing listens at {where}: start it first, or check the port",)
            until(lambda: relay.sessions == 0)
            assert relay.running
        assert relay.notices[0] in list(relay.trace.settings["value"])


def test_nonsense_ends_its_own_session_alone(data: Path) -> None:
    with avlab.Server(data / "count-15.mp4") as server, Relay(server.url) as relay, RawClient(relay.url) as other:
        assert other.ask("OPTIONS").status == 200
        with RawClient(relay.url) as client:
            client.socket.sendall(b"\0nonsense\r\n\r\n" * 20)
            assert client.hung_up()
        with RawClient(relay.url) as client:
            client.send("SETUP", "/video", Transport="RTP/AVP;unicast;client_port=70000-70001")
            assert client.hung_up()
        with RawClient(relay.url) as greedy:
            for _ in range(relay_session.MAX_TRACKS):
                greedy.set_up("video", "RTP/AVP;unicast;client_port=5000-5001")
            greedy.send("SETUP", "/video", Transport="RTP/AVP;unicast;client_port=5000-5001")
            assert greedy.hung_up()
        assert other.ask("DESCRIBE").status == 200
        until(lambda: relay.sessions == 1)
    assert any("more than 8 tracks" in str(value) for value in relay.trace.settings["value"])


def test_a_server_that_goes_takes_its_clients_along(data: Path) -> None:
    with avlab.Server(data / "count-15.mp4") as server, Relay(server.url) as relay, RawClient(relay.url) as client:
        assert client.ask("OPTIONS").status == 200
        server.stop()
        assert client.hung_up()
        until(lambda: relay.sessions == 0)


@pytest.mark.slow
@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_ffmpeg_plays_through_the_relay_at_two_percent_loss(data: Path, transport: str) -> None:
    network = Network(loss=0.02, delay=0.01, seed=5)  # which loses no BYE, and none of the 40 reports before it
    with (
        avlab.Server(data / "count-15.mp4", width=400) as server,
        Relay(server.url, network=network, one_way=True) as relay,
    ):
        quiet = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-rtsp_transport", transport]
        # Its reordering queue waits for what never comes: without one it goes on at once.
        heard = [*quiet, "-reorder_queue_size", "0", "-i", relay.url, "-map", "0", "-c", "copy", "-f", "framecrc", "-"]
        found = subprocess.run(heard, capture_output=True, text=True, check=True, timeout=tools.SECONDS)
        frames = [line for line in found.stdout.splitlines() if line.startswith("0,")]
    rows = relay.trace.packets
    video = rows[rows["stream"] == "video"].sort_values("seq")
    lost = video["fate"] == "lost"
    assert metrics.packet_ledger(relay.trace).closes
    if transport == "tcp":
        assert not lost.any()
        assert len(frames) == 75
        return
    assert list(np.flatnonzero(lost)) == expected_losses(network, len(video))
    whole = 75 - video["timestamp"][lost].nunique()
    assert whole < 75
    # ffmpeg hands on a frame whose end came, whatever lacks in its middle.
    assert whole <= len(frames) <= 75


@pytest.mark.slow
@pytest.mark.needs("gst-launch-1.0", "gst:rtspsrc", "gst:rtpjpegdepay", "gst:rtpL16depay", "gst:multifilesink")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_gstreamer_plays_through_the_relay_at_two_percent_loss(data: Path, tmp_path: Path, transport: str) -> None:
    network = Network(loss=0.02, delay=0.01, seed=5)  # which loses no BYE, and none of the 40 reports before it
    with (
        avlab.Server(data / "count-15.mp4", width=400) as server,
        Relay(server.url, network=network, one_way=True) as relay,
    ):
        tools.gst_launch(
            f"rtspsrc location={relay.url} protocols={transport} latency=2000 do-retransmission=false name=s "
            f"s. ! rtpjpegdepay ! multifilesink location={tmp_path}/%05d.jpg "
            f"s. ! rtpL16depay ! filesink location={tmp_path}/sound.raw"
        )
        frames = list(tmp_path.glob("*.jpg"))
    rows = relay.trace.packets
    video = rows[rows["stream"] == "video"].sort_values("seq")
    lost = video["fate"] == "lost"
    assert metrics.packet_ledger(relay.trace).closes
    assert (tmp_path / "sound.raw").stat().st_size > 0
    if transport == "tcp":
        assert not lost.any()
        assert len(frames) == 75
        return
    assert list(np.flatnonzero(lost)) == expected_losses(network, len(video))
    # It hands on whole frames alone.
    assert len(frames) == 75 - video["timestamp"][lost].nunique() < 75


# ---- settings, and the command line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"to": "somewhere"}, "'somewhere' is no peer to relay to: write it as HOST:PORT, or rtsp://HOST:PORT/PATH"),
        ({"to": "http://127.0.0.1:80"}, "is no peer to relay to"),
        ({"to": "127.0.0.1:99999"}, "is no peer to relay to"),
        ({"to": 8554}, "8554 is no peer to relay to"),
        ({"to": "127.0.0.1:8554", "port": -1}, "port must be 0 (any free one) to 65535, not -1"),
        ({"to": "127.0.0.1:8554", "idle_timeout": 0}, "idle_timeout must be more than 0 seconds, not 0"),
        ({"to": "127.0.0.1:8554", "idle_timeout": float("nan")}, "idle_timeout must be more than 0 seconds, not nan"),
        ({"to": "127.0.0.1:8554", "idle_timeout": float("inf")}, "idle_timeout must be at most 31,622,400 seconds"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Relay(**settings)


def test_a_relay_says_where_it_is_once_it_has_started() -> None:
    assert avlab.Relay is Relay
    relay = Relay("127.0.0.1:8554")
    with pytest.raises(RuntimeError, match="no address before start"):
        assert relay.url
    relay.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} on 127.0.0.1 is in use"):
            Relay("127.0.0.1:8554", port=port).start()
    with datagrams() as taken_udp:
        port = taken_udp.getsockname()[1]
        with pytest.raises(OSError, match=f"UDP port {port} on 127.0.0.1 is in use"):
            Relay("127.0.0.1:8554", port=port).start()
    with pytest.raises(OSError, match=r"the host 'no\.such\.host\.invalid' is not known"):
        Relay("no.such.host.invalid:8554").start()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "nowhere"], "'nowhere' is no peer to relay to: write it as HOST:PORT"),
        (["--to", "127.0.0.1:9", "--loss", "2"], "loss must be a share of packets from 0 to 1, not 2.0"),
        (["--to", "127.0.0.1:9", "--burst", "0"], "burst must be 1 packet or more, not 0.0"),
        (["--to", "127.0.0.1:9", "--rate", "0"], "rate must be more than 0 kbit/s"),
        (["--to", "127.0.0.1:9", "--preset", "moon"], "preset must be one of home-wifi, 4g, long-haul, classroom, not"),
        (["--to", "127.0.0.1:9", "--trace", "/nowhere/x"], "the trace cannot be saved in /nowhere/x"),
    ],
)
def test_what_the_command_line_refuses(arguments: list[str], words: str) -> None:
    ended = commands.run("relay", "--listen", "0", *arguments)
    assert ended.returncode == 1
    assert words in commands.sentence(ended.stderr)


@pytest.mark.slow
def test_the_command_relays_and_saves_its_trace(data: Path, tmp_path: Path) -> None:
    trace = tmp_path / "relay.avtrace"
    with avlab.Server(data / "count-15.mp4", width=320) as server:
        given = ["--preset", "home-wifi", "--loss", "0.1", "--seed", "4", "--trace", trace]
        with commands.running("relay", "--listen", "0", "--to", server.url.removeprefix("rtsp://"), *given) as relay:
            assert "loss 0.1, in bursts of 3, delay 1 ms, jitter 5 ms" in relay.first
            url = f"{relay.url.rstrip(':')}/count-15"
            with avlab.Client(url, audio="null") as client:
                assert client.wait(60)
            code, _, said = relay.end()
    assert code in (0, 130)
    assert f"trace saved in {trace}" in said
    passed = avlab.Trace.load(trace)
    assert metrics.packet_ledger(passed).closes
    network = replace(Network.presets["home-wifi"], loss=0.1, seed=4)
    video = passed.packets[passed.packets["stream"] == "video"].sort_values("seq")
    assert len(video) > 300
    assert list(np.flatnonzero(video["fate"] == "lost")) == expected_losses(network, len(video))


@pytest.mark.parametrize("fd_setsize", [1024, 0])
def test_an_attentive_wait_ends_at_its_deadline_or_with_a_socket(
    monkeypatch: pytest.MonkeyPatch, fd_setsize: int
) -> None:
    monkeypatch.setattr(stream_clock, "FD_SETSIZE", fd_setsize)
    clock = stream_clock.MonotonicClock()
    with datagrams() as end, datagrams(end.getsockname()) as other, selectors.DefaultSelector() as selector:
        selector.register(end, selectors.EVENT_READ, "end")
        for ahead_ns in (-1_000_000, 0, 1_000_000, 4_000_000):
            deadline_ns = clock.now_ns() + ahead_ns
            assert clock.wait(selector, deadline_ns, attentive=True) == []
            assert clock.now_ns() >= deadline_ns
        other.send(b"x")
        until(lambda: clock.wait(selector, clock.now_ns() + 1_000_000, attentive=True))
        assert [key.data for key, _ in clock.wait(selector, None, attentive=True)] == ["end"]
