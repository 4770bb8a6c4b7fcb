"""Real peers: ffmpeg and GStreamer play an avlab server, avlab plays a GStreamer server, tshark reads the stream."""

from __future__ import annotations

import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tools
from pcap import Capture

import avlab
from avlab.measure.numbers import metrics
from avlab.media.sources import ClipSource
from avlab.wire import rtsp

pytestmark = pytest.mark.slow

FRAMES, SAMPLES = 75, 5 * 44_100  # of count-15.mp4


@pytest.fixture
def server(data: Path) -> Iterator[avlab.Server]:
    with avlab.Server(data / "count-15.mp4", width=320) as server:
        yield server


def sound_of(path: Path) -> bytes:
    """A clip's sound as L16 has it."""
    return b"".join(chunk.samples.astype(">i2").tobytes() for chunk in ClipSource(path).chunks())


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=tools.SECONDS).stdout


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_ffmpeg_plays_a_server_and_gets_every_frame_and_every_sample(server: avlab.Server, transport: str) -> None:
    quiet = ["ffmpeg", "-hide_banner", "-loglevel", "warning", "-rtsp_transport", transport]
    crc = run(*quiet, "-i", server.url, "-map", "0", "-c", "copy", "-f", "framecrc", "-")
    sizes: dict[str, list[int]] = {"0": [], "1": []}
    for line in crc.splitlines():
        if not line.startswith("#"):
            fields = [word.strip() for word in line.split(",")]
            sizes[fields[0]].append(int(fields[4]))
    assert len(sizes["0"]) == FRAMES
    assert sum(sizes["1"]) == SAMPLES * 4
    ledger = metrics.packet_ledger(server.trace, "video")
    assert ledger.socket_dropped == 0
    frames = server.trace.frames.query("stream == 'video'")
    assert list(frames["index"]) == list(range(FRAMES))


@pytest.mark.needs("gst-launch-1.0", "gst:rtspsrc", "gst:rtpjpegdepay", "gst:rtpL16depay", "gst:multifilesink")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_gstreamer_plays_a_server_and_gets_every_frame_and_every_sample(
    server: avlab.Server, data: Path, tmp_path: Path, transport: str
) -> None:
    tools.gst_launch(
        f"rtspsrc location={server.url} protocols={transport} latency=1000 name=s "
        f"s. ! rtpjpegdepay ! multifilesink location={tmp_path}/%05d.jpg "
        f"s. ! rtpL16depay ! filesink location={tmp_path}/sound.raw"
    )
    assert len(list(tmp_path.glob("*.jpg"))) == FRAMES
    assert (tmp_path / "sound.raw").read_bytes() == sound_of(data / "count-15.mp4")


@pytest.mark.needs("gst-rtsp-server", "gst:jpegenc", "gst:rtpjpegpay", "gst:rtpL16pay", "gst:videotestsrc")
@pytest.mark.parametrize(("video", "audio"), [("udp", "tcp"), ("udp", "udp"), ("tcp", "tcp")])
def test_avlab_plays_a_gstreamer_server(video: str, audio: str) -> None:
    command = [tools.SYSTEM_PYTHON, str(Path(__file__).with_name("gst_server.py")), "0", "45"]
    with tools.started(*command) as peer:
        assert peer.stdout is not None
        url = f"rtsp://127.0.0.1:{peer.stdout.readline().strip()}/test"
        # A delay so long that nothing is late on a busy machine: what is late there is not the peers' doing.
        with avlab.Client(url, audio="null", video_over=video, audio_over=audio, playout_delay=1.0) as client:
            assert client.wait(60), "no BYE came"
        trace = client.trace
    frames, sound = metrics.frame_ledger(trace), metrics.frame_ledger(trace, "audio")
    # The frame that a GStreamer server prerolls with is not always sent; what is sent is counted.
    assert frames.offered >= 44
    assert frames.lost + frames.incomplete == 0
    assert frames.closes
    assert sound.closes
    assert sound.late + sound.lost == 0
    assert metrics.packet_ledger(trace).closes
    pts = trace.frames.query("stream == 'video'").sort_values("timestamp")["pts"]
    assert np.diff(pts).round(2) == pytest.approx(1 / 15, abs=0.01)


@pytest.mark.needs("tshark")
def test_tshark_reads_the_stream_without_complaint(server: avlab.Server, tmp_path: Path) -> None:
    capture, ports = record(server, seconds=2.0)
    capture.write(tmp_path / "stream.pcap")
    tshark = ["tshark", "-r", str(tmp_path / "stream.pcap"), "-d", f"tcp.port=={ports},rtsp", "-2"]

    def count(display: str) -> int:
        return len(run(*tshark, "-Y", display).splitlines())

    assert run(*tshark, "-Y", '_ws.malformed || _ws.expert.severity >= "Warning"') == ""
    assert count("rtsp.response") >= 5
    assert count("jpeg") >= 20
    assert count("rtp.p_type == 10") >= 50
    assert count("rtcp.pt == 200") >= 2  # sender reports of both streams
    assert count("rtcp.pt == 203") == 0


def record(server: avlab.Server, seconds: float) -> tuple[Capture, int]:
    """Play a server for a while, by hand, and keep all that went either way."""
    capture = Capture()
    port = int(server.url.split(":")[2].split("/")[0])
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtcp,
        selectors.DefaultSelector() as selector,
    ):
        for link in (rtp, rtcp):
            link.bind(("127.0.0.1", 0))
        tcp_ports = (connection.getsockname()[1], port)
        receiver, session, answered = rtsp.MessageReader(), "", 0

        def heard(data: bytes) -> None:
            nonlocal session, answered
            capture.tcp(time.time_ns(), data, mine=False, ports=tcp_ports)
            for event in receiver.feed(data):
                if isinstance(event, rtsp.Response):
                    assert event.status == 200, event
                    answered = event.cseq
                    session = event.headers.get("Session", session).split(";")[0]

        def ask(cseq: int, method: str, url: str, headers: dict[str, str]) -> None:
            known = {"CSeq": str(cseq)} | ({"Session": session} if session else {}) | headers
            request = rtsp.Request(method, url, rtsp.Headers(known)).serialize()
            capture.tcp(time.time_ns(), request, mine=True, ports=tcp_ports)
            connection.sendall(request)
            while answered < cseq:
                heard(connection.recv(65_536))

        ports = f"{rtp.getsockname()[1]}-{rtcp.getsockname()[1]}"
        ask(1, "OPTIONS", server.url, {})
        ask(2, "DESCRIBE", server.url, {"Accept": "application/sdp"})
        ask(3, "SETUP", f"{server.url}/video", {"Transport": f"RTP/AVP;unicast;client_port={ports}"})
        ask(4, "SETUP", f"{server.url}/audio", {"Transport": "RTP/AVP/TCP;unicast;interleaved=2-3"})
        ask(5, "PLAY", server.url, {"Range": "npt=0-"})
        for link in (connection, rtp, rtcp):
            selector.register(link, selectors.EVENT_READ)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for key, _ in selector.select(0.1):
                if key.fileobj is connection:
                    heard(connection.recv(65_536))
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    data, address = key.fileobj.recvfrom(65_536)
                    own = key.fileobj.getsockname()[1]
                    capture.udp(time.time_ns(), data, mine=False, ports=(own, address[1]))
        ask(6, "TEARDOWN", server.url, {})
    wait_until(lambda: server.clients == 0, "TEARDOWN")
    return capture, port
