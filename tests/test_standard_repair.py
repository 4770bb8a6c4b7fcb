"""Repair as the RFCs have it: RTP/AVPF described and agreed on, NACKs answered, GStreamer both ways, plain players."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import av
import cv2
import pytest
import tools
from oddserver import Asked, OddServer, reply
from rawclient import RawClient, until
from scripted import AUDIO, description

import avlab
from avlab.measure.numbers import metrics
from avlab.wire import rtcp, rtsp, sdp
from avlab.wire.rtp import RtpPacket

pytestmark = pytest.mark.slow

LOSS = avlab.Network(loss=0.05, delay=0.01, seed=5)
MEDIA, RTX = 26, 98


@pytest.fixture
def server(data: Path) -> Iterator[avlab.Server]:
    with avlab.Server(data / "count-15.mp4", width=640, quality=70) as server:
        yield server


def described(raw: RawClient, agent: str = "") -> sdp.Media:
    """The pictures, as a client that calls itself so is told of them."""
    answer = raw.ask("DESCRIBE", **({"User_Agent": agent} if agent else {}))
    return sdp.parse(answer.body.decode()).media[0]


# ---- what is described


def test_pictures_are_described_under_the_feedback_profile(server: avlab.Server) -> None:
    with RawClient(server.url) as raw:
        body = raw.ask("DESCRIBE").body.decode()
    [video, audio] = sdp.parse(body).media
    assert "m=video 0 RTP/AVPF 26 98 99\r\n" in body
    assert "a=rtcp-fb:26 nack\r\n" in body
    assert video.rtcp_bits == (20_000, 100_000)
    assert "b=RR:100000\r\n" in body
    assert "a=rtpmap:98 rtx/90000\r\n" in body
    assert "a=fmtp:98 apt=26;rtx-time=1000\r\n" in body
    assert re.findall(r"a=rtpmap:(\d+)", body.partition("m=audio")[0])[-1] == "26"  # for who takes the last one
    assert not audio.feedback
    group = re.search(r"a=ssrc-group:FID (\d+) (\d+)\r\n", body)
    assert group is not None
    assert video.again_from(int(group[1])) == int(group[2])
    for ssrc in group.groups():
        assert f"a=ssrc:{ssrc} cname:avlab\r\n" in body


def test_a_codec_that_predicts_is_described_with_picture_loss(data: Path) -> None:
    with avlab.Server(data / "count-15.mp4", width=160, codec="h264") as server, RawClient(server.url) as raw:
        video = described(raw)
    assert video.feedback
    asked = [value for name, value in video.attributes if name == "rtcp-fb"]
    assert asked == [f"{video.payload_type} nack", f"{video.payload_type} nack pli"]
    assert video.parameters(RTX)["apt"] == str(video.payload_type)


@pytest.mark.parametrize("agent", ["LibVLC/3.0.20 (LIVE555 Streaming Media v2016.11.28)", "openRTSP (live555)"])
def test_live555_is_told_of_the_plain_profile_which_is_all_that_it_reads(server: avlab.Server, agent: str) -> None:
    with RawClient(server.url) as raw:
        video = described(raw, agent)
    assert video.protocol == "RTP/AVP"
    assert (video.payload_type, video.encoding) == (MEDIA, "JPEG")
    assert not {"rtcp-fb", "ssrc-group"} & {name for name, _ in video.attributes}
    assert video.rtcp_bits is None


def test_each_client_is_told_of_its_own_sources(server: avlab.Server) -> None:
    with RawClient(server.url) as one, RawClient(server.url) as other:
        told = [dict(described(raw).attributes)["ssrc-group"] for raw in (one, other, one)]
    assert told[0] == told[2] != told[1]


def test_setup_grants_the_sources_that_were_described_once(server: avlab.Server) -> None:
    with RawClient(server.url) as raw:
        video = described(raw)
        first = raw.set_up("video", "RTP/AVPF;unicast;client_port=9-10")
        again = raw.set_up("video", "RTP/AVPF;unicast;client_port=9-10")
    assert first.ssrc is not None
    assert video.again_from(first.ssrc) is not None
    assert again.ssrc != first.ssrc  # another transport is another source


@pytest.mark.needs("gst-rtsp-server")
def test_gstreamer_reads_the_description(server: avlab.Server) -> None:
    with RawClient(server.url) as raw:
        body = raw.ask("DESCRIBE").body
    program = (
        "import sys, gi; gi.require_version('GstSdp', '1.0'); from gi.repository import Gst, GstSdp; Gst.init(None);"
        "_, message = GstSdp.SDPMessage.new_from_text(sys.stdin.read()); media = message.get_media(0);"
        "caps = [media.get_caps_from_media(pt) for pt in (26, 98)];"
        "[GstSdp.SDPMedia.attributes_to_caps(media, one) for one in caps];"
        "print(media.get_proto()); [print(one.to_string()) for one in caps]"
    )
    done = subprocess.run(
        [tools.SYSTEM_PYTHON, "-c", program], input=body, capture_output=True, timeout=tools.SECONDS, check=True
    )
    profile, media, rtx = done.stdout.decode().splitlines()
    assert profile == "RTP/AVPF"
    assert "encoding-name=(string)JPEG" in media
    assert "rtcp-fb-nack=(boolean)true" in media
    assert "encoding-name=(string)RTX" in rtx
    assert "apt=(string)26" in rtx


# ---- what is agreed on


@pytest.mark.parametrize("profile", ["RTP/AVP", "RTP/AVPF"])
@pytest.mark.parametrize("stream", ["video", "audio"])
def test_the_profile_that_is_asked_for_is_granted(server: avlab.Server, profile: str, stream: str) -> None:
    with RawClient(server.url) as raw:
        over_udp = raw.set_up(stream, f"{profile};unicast;client_port=9-10")
        over_tcp = raw.set_up(stream, f"{profile}/TCP;unicast;interleaved=0-1")
    assert (over_udp.profile, over_udp.lower, over_udp.client_port) == (profile, "UDP", (9, 10))
    assert (over_tcp.profile, over_tcp.lower, over_tcp.interleaved) == (profile, "TCP", (0, 1))


@contextmanager
def viewing(server: avlab.Server, profile: str, **headers: str) -> Iterator[Callable[[], list[RtpPacket]]]:
    """A client by hand that asks for each packet that it gets, once; what has come since the last look."""
    with ExitStack() as stack:
        raw = stack.enter_context(RawClient(server.url))
        media, reports = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
        for each in (media, reports):
            each.bind(("127.0.0.1", 0))
            each.setblocking(False)
        ports = f"{media.getsockname()[1]}-{reports.getsockname()[1]}"
        video = described(raw)
        answer = raw.ask("SETUP", "/video", Transport=f"{profile};unicast;client_port={ports}", **headers)
        granted = rtsp.parse_transport(answer.headers["Transport"])[0]
        assert granted.server_port is not None
        assert granted.ssrc is not None
        assert raw.ask("PLAY").status == 200
        again = video.again_from(granted.ssrc)

        def heard() -> list[RtpPacket]:
            out = []
            while True:
                try:
                    out.append(RtpPacket.parse(media.recv(2048)))
                except BlockingIOError:
                    break
            wanted = tuple(packet.sequence for packet in out if packet.ssrc == granted.ssrc)[-20:]
            if wanted:
                nack = rtcp.Nack(1, granted.ssrc, wanted)
                compound = rtcp.serialize_compound([rtcp.ReceiverReport(1), rtcp.Sdes(1, "x"), nack])
                reports.sendto(compound, ("127.0.0.1", granted.server_port[1]))
            assert {packet.ssrc for packet in out} <= {granted.ssrc, again}
            return out

        yield heard


def test_who_speaks_feedback_has_its_nacks_answered(server: avlab.Server) -> None:
    packets: list[RtpPacket] = []
    with viewing(server, "RTP/AVPF") as heard:
        until(lambda: packets.extend(heard()) or sum(p.payload_type == RTX for p in packets) > 20)
    sent = {packet.sequence: packet for packet in packets if packet.payload_type == MEDIA}
    for packet in (one for one in packets if one.payload_type == RTX):
        original = sent[int.from_bytes(packet.payload[:2], "big")]  # RFC 4588 section 4
        assert packet.payload[2:] == original.payload
        assert (packet.timestamp, packet.marker) == (original.timestamp, original.marker)


@pytest.mark.parametrize(
    ("profile", "headers"), [("RTP/AVP", {}), ("RTP/AVPF", {"X_Repair": "none"}), ("RTP/AVPF", {"X_Repair": "fec"})]
)
def test_who_does_not_is_sent_nothing_that_it_could_not_read(
    server: avlab.Server, profile: str, headers: dict[str, str]
) -> None:
    packets: list[RtpPacket] = []
    with viewing(server, profile, **headers) as heard:
        until(lambda: packets.extend(heard()) or len(packets) > 300)
    assert RTX not in {packet.payload_type for packet in packets}


# ---- avlab's client


FOREIGN = (
    "m=video 0 RTP/AVPF 26 97",
    "a=rtpmap:97 rtx/90000",
    "a=fmtp:97 apt=26",
    "a=ssrc-group:FID 4369 4370",
    "a=control:0",
)


@pytest.mark.parametrize(("repair", "said"), [("rtx", "rtx"), (None, "none")])
def test_the_client_asks_for_the_profile_that_is_described(repair: str | None, said: str) -> None:
    with OddServer(described=description(FOREIGN, AUDIO), transport=";ssrc=00001111") as server:
        with avlab.Client(server.url, audio="null", video_over="udp", audio_over="udp", repair=repair) as client:
            until(lambda: len(client.trace.frames.query("fate == 'shown'")) > 5)
            asking = client.presentation.player.streams["video"].repairing
            assert (asking is not None) == (repair is not None)
            assert asking is None or asking.ssrcs == [4370]  # as the group says
        setups = {asked.uri[-1]: asked.headers for asked in server.asked if asked.method == "SETUP"}
    assert setups["0"]["transport"].startswith("RTP/AVPF;unicast;client_port=")
    assert setups["0"]["x-repair"] == said
    assert setups["1"]["transport"].startswith("RTP/AVP;unicast;client_port=")
    assert "x-repair" not in setups["1"]


@pytest.mark.parametrize(
    ("over", "refuses", "asked_for"),
    [
        ("udp", "RTP/AVPF", ["RTP/AVPF", "RTP/AVP"]),
        ("tcp", "RTP/AVPF", ["RTP/AVP"]),  # where nothing is sent again, it is asked first, for whoever reads captures
        ("tcp", "RTP/AVP", ["RTP/AVP", "RTP/AVPF"]),
    ],
)
def test_a_server_that_does_not_grant_the_one_profile_is_asked_for_the_other(
    over: str, refuses: str, asked_for: list[str]
) -> None:
    with OddServer(described=description(FOREIGN, AUDIO)) as server:

        def guard(asked: Asked) -> bytes | None:
            profile = asked.headers.get("transport", "").partition(";")[0].removesuffix("/TCP")
            refused = profile == refuses and asked.uri.endswith("0")
            return reply(asked, status="461 Unsupported Transport") if refused else None

        server.guard = guard
        with avlab.Client(server.url, audio="null", video_over=over, audio_over=over) as client:
            until(lambda: len(client.trace.frames.query("fate == 'shown'")) > 5)
        asked = [asked.headers["transport"] for asked in server.asked if asked.method == "SETUP"]
    assert [words.partition(";")[0].removesuffix("/TCP") for words in asked] == [*asked_for, "RTP/AVP"]


# ---- GStreamer


def pictures_of(folder: Path) -> int:
    return len(list(folder.glob("*.jpg")))


@pytest.mark.needs("gst-launch-1.0", "gst:rtspsrc", "gst:rtprtxreceive", "gst:multifilesink", "gst:openh264dec")
@pytest.mark.parametrize(
    ("codec", "read"),
    [
        (None, "rtpjpegdepay"),  # 43 and 74 of 75 frames on a machine of its own
        ("h264", "rtph264depay ! h264parse ! openh264dec ! videoconvert ! jpegenc"),  # 22 and 75
    ],
)
def test_gstreamer_gets_back_what_it_has_lost(data: Path, tmp_path: Path, codec: str | None, read: str) -> None:
    came, again = {}, {}
    for asks in ("false", "true"):
        folder = tmp_path / asks
        folder.mkdir()
        with (
            avlab.Server(data / "count-15.mp4", width=640, quality=70, codec=codec) as server,
            avlab.Relay(server.url, network=LOSS, one_way=True) as relay,
        ):
            tools.gst_launch(
                f"rtspsrc location={relay.url} protocols=udp latency=500 do-retransmission={asks} name=s "
                f"s. ! {read} ! multifilesink location={folder}/%05d.jpg s. ! rtpL16depay ! fakesink"
            )
            rows = server.trace.packets.query("stream == 'video'")
        came[asks] = pictures_of(folder)
        again[asks] = int((rows["ssrc"] != rows["ssrc"].iloc[0]).sum())
    assert again["false"] == 0
    assert again["true"] > 15
    assert came["true"] >= came["false"] + 20


@pytest.mark.needs("gst-rtsp-server", "gst:rtprtxsend", "gst:jpegenc", "gst:rtpjpegpay", "gst:videotestsrc")
def test_avlab_gets_back_what_it_has_lost_of_a_gstreamer_server() -> None:
    whole, ledgers = {}, {}
    for repair in (None, "rtx"):
        command = [tools.SYSTEM_PYTHON, str(Path(__file__).with_name("gst_rtx_server.py")), "150"]
        with tools.started(*command) as peer:
            assert peer.stdout is not None
            url = f"rtsp://127.0.0.1:{peer.stdout.readline().strip()}/test"
            with (
                avlab.Relay(url, network=LOSS, one_way=True) as relay,
                avlab.Client(relay.url, audio="null", video_over="udp", playout_delay=0.5, repair=repair) as client,
            ):
                until(lambda client=client: len(client.trace.frames.query("stream == 'video'")) >= 140)
        trace = client.trace
        whole[repair] = metrics.frame_ledger(trace).shown
        ledgers[repair] = metrics.packet_ledger(trace, "video")
    assert ledgers[None].recovered == 0
    assert ledgers["rtx"].recovered > 20
    assert whole["rtx"] >= whole[None] + 50  # 148 and 56
    assert ledgers["rtx"].closes


# ---- players that know nothing of it


@pytest.mark.needs("ffmpeg")
def test_ffmpeg_which_sends_nacks_and_reads_no_retransmission_plays_as_well_as_before(
    data: Path, tmp_path: Path
) -> None:
    """Where a description says RTP/AVPF it sends NACKs, though it asks for RTP/AVP; the answers it would take for
    packets of the stream."""
    came = {}
    for agent in ("Lavf", "LIVE555"):  # the second one is told of RTP/AVP, and sends none
        folder = tmp_path / agent
        folder.mkdir()
        with (
            avlab.Server(data / "count-15.mp4", width=640, quality=70) as server,
            avlab.Relay(server.url, network=LOSS, one_way=True) as relay,
        ):
            asked = ["-rtsp_transport", "udp", "-user_agent", agent, "-max_delay", "500000"]
            command = ["ffmpeg", "-v", "error", *asked, "-i", relay.url, "-map", "0:v", "-c", "copy"]
            tools.finished(*command, f"{folder}/%05d.jpg")
            assert server.trace.packets.query("stream == 'video'")["ssrc"].nunique() == 1
        came[agent] = pictures_of(folder)
    assert came["Lavf"] >= came["LIVE555"] - 3
    assert came["Lavf"] > 25  # of 43 that come whole it leaves out some behind a loss


def test_opencv_and_pyav_play(server: avlab.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    capture = cv2.VideoCapture(server.url, cv2.CAP_FFMPEG)
    assert capture.isOpened()
    for _ in range(10):
        read, image = capture.read()
        assert read
        assert image.shape[1] == 640
    with av.open(server.url, options={"rtsp_transport": "udp"}) as container:
        frames = container.decode(video=0)
        assert [next(frames).width for _ in range(10)] == [640] * 10
    capture.release()
