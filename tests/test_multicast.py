"""Multicast: one packet for a room, at one interface, played by avlab's own clients, FFmpeg and GStreamer."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import pytest
import tools
from rawclient import RawClient, until

import avlab
from avlab.core.budget import FeedbackBudget
from avlab.core.events import Path as Way
from avlab.core.events import Reported
from avlab.core.sender import MOST_HEARD, Outlet, Sender
from avlab.stream.sending.meter import Meter
from avlab.stream.sockets.multicast import TTL, is_group, member, speakers
from avlab.wire import rtcp, rtsp
from avlab.wire.batch import Batch
from avlab.wire.rtp import RtpPacket

NS = 1_000_000_000
MULTICAST = "RTP/AVP;multicast"


# ---- pure


@pytest.mark.parametrize("address", ["239.255.1.2", "224.0.1.0", "232.1.1.1", "239.0.0.1"])
def test_a_group_is_one(address: str) -> None:
    assert is_group(address)


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", "224.0.0.1", "224.0.0.251", "ff02::1", "240.0.0.1", "example", "239.1"]
)
def test_what_is_no_group_is_none(address: str) -> None:
    assert not is_group(address)


def test_a_transport_of_a_group_is_read_as_it_was_written() -> None:
    told = rtsp.Transport(unicast=False, destination="239.255.7.8", port=(5004, 5005), ttl=1, server_port=(8000, 8001))
    assert told.serialize() == "RTP/AVP;multicast;destination=239.255.7.8;port=5004-5005;server_port=8000-8001;ttl=1"
    assert rtsp.parse_transport(told.serialize()) == [told]
    [odd] = rtsp.parse_transport("RTP/AVP;multicast;port=7000;ttl=many")
    assert (odd.port, odd.ttl, odd.unicast) == ((7000, 7001), None, False)


def said(reporter: int, lost: int) -> bytes:
    block = rtcp.ReportBlock(5, lost, 0, 1, 0, 0, 0)
    return rtcp.serialize_compound([rtcp.ReceiverReport(reporter, (block,)), rtcp.Sdes(reporter, "x")])


def shared(*, group: bool) -> Sender:
    sender = Sender(unix_offset_ns=0, budget=FeedbackBudget(), shared=group)
    sender.add(Outlet("video", rate=90_000, ssrc=5, sequence=1, timestamp_offset=0))
    sender.play(0, 0)
    return sender


def reports(sender: Sender, reporters: list[int], now_ns: int) -> list[Reported]:
    for number, reporter in enumerate(reporters):
        data = said(reporter, number % 256)
        sender.receive(Way("", control=True), Batch(data, len(data)), now_ns)
    return [event for event in sender.events() if isinstance(event, Reported)]


def test_each_member_of_a_group_reports_for_itself() -> None:
    heard = reports(shared(group=True), [100, 200, 300, 200], NS)
    assert [report.loss * 256 for report in heard] == [0, 1, 2], "the second one's second is too soon"


def test_of_one_client_two_reports_at_once_are_one() -> None:
    assert len(reports(shared(group=False), [100, 200, 300], NS)) == 1


def test_a_flood_of_reporters_is_forgotten() -> None:
    sender = shared(group=True)
    assert len(reports(sender, list(range(1, 3 * MOST_HEARD)), NS)) == 3 * MOST_HEARD - 1
    assert len(sender.outlets["video"].hearings) == MOST_HEARD


def test_a_meter_tells_the_rate_of_the_last_second() -> None:
    meter = Meter()
    assert meter.megabits(0, 0) == 0.0
    rates = [meter.megabits(at * 50_000, at * NS // 10) for at in range(1, 31)]
    assert rates == pytest.approx([4.0] * 30)
    for at in range(31, 42):
        last = meter.megabits(1_500_000, at * NS // 10)
    assert last == 0.0
    assert meter.megabits(1_500_000, 4_100_000_000) == 0.0


# ---- settings


def test_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="multicast is the rtsp wire's"):
        avlab.Server("data/count.mp4", wire="classic", multicast=True)
    with pytest.raises(ValueError, match="multicast is for addresses of IPv4"):
        avlab.Server("data/count.mp4", host="::1", multicast=True)
    with pytest.raises(ValueError, match="video_over must be 'udp', 'tcp' or 'multicast'"):
        avlab.Client("rtsp://127.0.0.1/x", video_over="broadcast")  # type: ignore[arg-type]


# ---- on sockets


@pytest.fixture
def server(data: Path) -> Iterator[avlab.Server]:
    with avlab.Server(data / "count-15.mp4", loop=True, multicast=True, width=320) as running:
        yield running


def shown(client: avlab.Client) -> int:
    return int((client.recent(5).frames.query("stream == 'video'")["fate"] == "shown").sum())


def test_the_group_is_told_and_leaves_at_the_interface_of_the_host(server: avlab.Server) -> None:
    told: list[rtsp.Transport] = []
    with RawClient(server.url) as one, RawClient(server.url) as other:
        for client in (one, other):
            told.append(client.set_up("video", MULTICAST))
            answer = client.ask("PLAY")
            assert rtsp.parse_rtp_info(answer.headers["RTP-Info"])[0].url.endswith("/video")
        assert told[0] == told[1], "one source, one group, one pair of ports for all"
        way = told[0]
        assert not way.unicast
        assert way.destination.startswith("239.255.")
        assert way.ttl == TTL == 1
        assert way.port is not None
        link = member(way.destination, way.port[0], "127.0.0.1")
        try:
            packets: list[tuple[bytes, Any]] = []
            until(lambda: packets.extend(link.receive()) or len(packets) > 30)
        finally:
            link.close()
        assert {host for _, (host, _) in packets} == {"127.0.0.1"}
        assert {RtpPacket.parse(data).ssrc for data, _ in packets} == {way.ssrc}


def test_a_speaker_keeps_to_its_interface_and_to_one_hop() -> None:
    for link in (pair := speakers("127.0.0.1")):
        option = link.socket.getsockopt
        assert option(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 1
        assert option(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4) == socket.inet_aton("127.0.0.1")
    for link in pair:
        link.close()


@pytest.mark.slow
def test_one_packet_is_for_all_and_each_reports(server: avlab.Server) -> None:
    both: Any = {"video_over": "multicast", "audio_over": "multicast", "audio": "null"}
    with avlab.Client(server.url, **both) as one, avlab.Client(server.url, **both) as other:
        until(lambda: shown(one) > 20 and shown(other) > 20)
        sent, seen = server.trace, one.trace
        until(lambda: server.trace.reports.query("stream == 'video'")["time"].nunique() > 6)
        assert server.clients == 2
    packets = sent.packets.query("stream == 'video'")
    assert packets["ssrc"].nunique() == 1
    assert packets["seq"].is_unique, "each packet is sent once"
    assert set(seen.settings.query("name in ['video_over', 'audio_over']")["value"]) == {"multicast"}
    assert not one.notices
    for client in (one, other):
        came = client.trace.packets.query("stream == 'video' and fate == 'used'")
        assert len(came) == came["seq"].max() - came["seq"].min() + 1, "and comes whole"
    assert (server.trace.reports["lost"].dropna() == 0).all()


@pytest.mark.slow
def test_the_last_one_to_leave_ends_it_and_who_comes_again_begins_it(server: avlab.Server) -> None:
    for _ in range(2):
        with avlab.Client(server.url, video_over="multicast", audio="null") as client:
            until(lambda client=client: shown(client) > 3)
        until(lambda: server.clients == 0)
        until(lambda: "waiting" in server.status())
        before = len(server.trace.packets)
        with RawClient(server.url) as idle:
            for _ in range(3):
                idle.ask("OPTIONS")
        assert len(server.trace.packets) == before, "nothing goes to a group that nobody listens to"


@pytest.mark.slow
@pytest.mark.parametrize("repair", ["rtx", "fec"])
def test_at_the_end_all_get_a_bye_and_nothing_is_repaired(data: Path, repair: Any) -> None:
    with avlab.Server(data / "count-15.mp4", multicast=True, once=True) as server:
        ways: Any = {"video_over": "multicast", "audio_over": "tcp", "audio": "null", "repair": repair}
        with avlab.Client(server.url, **ways) as one, avlab.Client(server.url, video_over="tcp", audio="null") as other:
            assert one.wait(60)
            assert other.wait(60)
    assert server.trace.packets.query("stream == 'video'")["ssrc"].nunique() == 2
    events = one.trace.settings
    assert events[events["name"] == "no repair"]["value"].tolist() == [f"the server offers no {repair} over UDP"]


@pytest.mark.slow
def test_serve_offers_it_play_takes_it_and_the_sum_is_told(data: Path) -> None:
    with commands.running("serve", data / "count-15.mp4", "--multicast", "--port", "0") as serve:
        ways = ("--video-over", "multicast", "--audio", "null", "--no-window", "--seconds", "1", "--json")
        play = commands.run("play", serve.url, *ways)
        assert play.returncode == 0, play.stderr
        _, said, _ = serve.end()
    assert re.search(r"^sent [0-9.]+ MB in [0-9]+ s, [0-9.]+ Mbit/s on average$", said, re.MULTILINE), said


@pytest.mark.slow
def test_a_server_that_offers_none_says_so(data: Path) -> None:
    with avlab.Server(data / "count-15.mp4") as server:
        with pytest.raises(OSError, match=r"refused SETUP: 461 .*another transport may be granted"):
            avlab.Client(server.url, video_over="multicast", audio="null").start()
        with RawClient(server.url) as client:
            assert client.ask("SETUP", "/video", Transport=f"{MULTICAST},RTP/AVP/TCP;interleaved=0-1").status == 200


@pytest.mark.slow
def test_an_isolated_server_has_it_and_a_network_loses_it_for_all(data: Path) -> None:
    server = avlab.Server(
        data / "count-15.mp4", loop=True, multicast=True, isolated=True, network=avlab.Network(loss=0.2, seed=4)
    )
    ways: Any = {"video_over": "multicast", "audio_over": "multicast", "audio": "null"}
    with server, avlab.Client(server.url, **ways) as one, avlab.Client(server.url, **ways) as other:
        until(lambda: min(len(each.trace.packets) for each in (one, other)) > 300)
        came = [each.trace.packets.query("stream == 'video' and fate == 'used'") for each in (one, other)]
    first = max(each["seq"].min() for each in came)
    last = min(each["seq"].max() for each in came)
    numbers = [set(each["seq"][each["seq"].between(first, last)]) for each in came]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) < 0.95 * (last - first)


@pytest.mark.slow
@pytest.mark.needs("ffmpeg")
def test_ffmpeg_is_a_member(server: avlab.Server) -> None:
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-rtsp_transport", "udp_multicast"]
    command += ["-i", server.url, "-map", "0:v", "-frames:v", "20", "-c", "copy", "-f", "framecrc", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=tools.SECONDS, check=False)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(lines) == 20, done.stderr
    assert server.trace.packets["ssrc"].nunique() <= 2


@pytest.mark.slow
@pytest.mark.needs("gst-launch-1.0", "gst:rtspsrc", "gst:rtpjpegdepay", "gst:multifilesink")
def test_gstreamer_is_a_member(data: Path, tmp_path: Path) -> None:
    """It is ended once it has pictures: whether a BYE ends it is not for this test."""
    with avlab.Server(data / "count-15.mp4", multicast=True, width=320, loop=True) as server:
        pipeline = (
            f"rtspsrc location={server.url} protocols=udp-mcast multicast-iface=lo latency=200 name=s "
            f"s. ! application/x-rtp,media=video ! rtpjpegdepay ! multifilesink location={tmp_path}/%05d.jpg "
            "s. ! application/x-rtp,media=audio ! fakesink"
        )
        with tools.process(
            "gst-launch-1.0",
            *pipeline.split(),
            folder=tmp_path,
            env={"LC_ALL": "C"},
            ready=lambda: len(list(tmp_path.glob("*.jpg"))) > 60,
            seconds=tools.SECONDS,
        ):
            assert server.trace.packets["ssrc"].nunique() == 2
