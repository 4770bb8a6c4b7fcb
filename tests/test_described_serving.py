"""Streams without RTSP, on sockets: what avlab sends is described, and played by itself and by others."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import commands
import ports
import pytest
import tools
from described import shown
from rawclient import until

import avlab
from avlab.measure.numbers import metrics
from avlab.stream.sockets.links import UdpLink
from avlab.wire import rtcp, sdp

pytestmark = pytest.mark.slow


def serving(data: Path, folder: Path, to: str | None = None, **given: Any) -> avlab.Server:
    """A server of the short clip, again and again unless `once` is asked for, to free ports of this machine."""
    codecs: dict[str, Any] = {"codec": "h264", "audio_codec": "opus"} if given.pop("coded", False) else {}
    to = f"127.0.0.1:{ports.free(4)}" if to is None else to
    given = {"width": 320, "loop": True, "key_interval": 0.5, **given}
    return avlab.Server(data / "count-15.mp4", to=to, sdp=folder / "session.sdp", **codecs, **given)


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "239.255.78.{}"])
def test_a_client_plays_what_is_described_and_reports(data: Path, tmp_path: Path, coded: bool, host: str) -> None:
    port = ports.free(4, "::1" if ":" in host else "127.0.0.1")
    host = host.format(1 + port % 250)
    to = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    way = {"host": "127.0.0.1"} if host.startswith("239") else {}
    with serving(data, tmp_path, to, coded=coded, **way) as server:
        assert server.url == str(tmp_path / "session.sdp")
        with pytest.raises(RuntimeError, match="hand over its description"):
            server.invitation()
        with avlab.Client(server.url, audio="null", name="Ada", playout_delay=0.3) as client:
            until(lambda: client.audio_seconds > 1 and shown(client) > 15 and len(server.members) == 1)
            until(lambda: server.members[0].loss is not None and server.members[0].kbps)
            [member] = server.members
            server.quality = 40
        assert (member.name, member.loss) == ("Ada", 0.0)
        assert member.round_trip is not None
        assert server.error is client.error is None
    assert client.notices == server.notices == ()
    assert client.trace.meta["joined"]
    ledger = metrics.packet_ledger(client.trace)
    assert ledger.closes
    assert ledger.lost == 0, "what went by before it listened is not lost to it"
    assert metrics.frame_ledger(client.trace).lost == 0
    text = server.description
    assert text.replace("\r\n", "\n") == (tmp_path / "session.sdp").read_text()
    described = sdp.parse(text)
    assert [media.port for media in described.media] == [port, port + 2]
    assert described.address == host
    assert ("c=IN IP4 " + host + "/1\r\n" in text) == host.startswith("239")
    assert "control" not in text
    if coded:
        assert "sprop-parameter-sets=" in text
        assert [name for name, _ in described.media[0].attributes].count("rtcp-fb") == 1


def test_nothing_goes_anywhere_else_and_the_clip_is_sent_once(data: Path, tmp_path: Path) -> None:
    port = ports.free(4)
    here = [UdpLink("127.0.0.1", port + at) for at in range(4)]
    elsewhere = UdpLink("127.0.0.1", port + 4)
    try:
        with serving(data, tmp_path, f"127.0.0.1:{port}", loop=False, capture=tmp_path / "all.pcapng") as server:
            assert server.wait(60), "it ends with the clip, as nobody can ask for more"
            came = [link.receive(10_000) for link in here]
        assert elsewhere.receive() == []
    finally:
        for link in (*here, elsewhere):
            link.close()
    assert all(came)
    goodbyes = [
        [packet for data, _ in came[at] for packet in rtcp.parse_compound(data) if isinstance(packet, rtcp.Bye)]
        for at in (1, 3)
    ]
    assert [len(each) for each in goodbyes] == [1, 1]
    trace = avlab.Trace.from_pcap(tmp_path / "all.pcapng")
    assert len(trace.meta["streams"]) == 2
    sent = server.trace.frames.query("stream == 'video'")
    assert sent["sent"].notna().sum() > 20


def test_a_loss_is_a_loss_and_a_receiver_that_leaves_is_forgotten(data: Path, tmp_path: Path) -> None:
    network = avlab.Network(loss=0.1, seed=3)
    with serving(data, tmp_path, network=network) as server:
        with avlab.Client(server.url, audio="null") as client:
            until(lambda: (client.trace.packets["fate"] == "lost").sum() > 20)
            until(lambda: any(member.loss for member in server.members))
        until(lambda: server.clients == 0)
        assert server.running
    assert metrics.packet_ledger(client.trace).closes


def test_a_picture_that_needs_no_other_is_asked_for_without_rtsp(data: Path, tmp_path: Path) -> None:
    with serving(data, tmp_path, coded=True, key_interval=60.0) as server:
        time.sleep(0.5)  # the key frame of the beginning has gone by
        with avlab.Client(server.url, audio="null", playout_delay=0.3) as client:
            until(lambda: shown(client) > 10)


@pytest.mark.parametrize("isolated", [False, True])
def test_serve_and_play_at_the_command_line(data: Path, tmp_path: Path, isolated: bool) -> None:
    file = tmp_path / "session.sdp"
    if isolated:
        with serving(data, tmp_path, isolated=True) as server:
            assert server.description.startswith("v=0")
            play = commands.run("play", file, "--no-window", "--audio", "null", "--seconds", "1.5", "--json")
    else:
        options = ("--to", f"127.0.0.1:{ports.free(4)}", "--sdp", file, "--loop", "--width", "320")
        with commands.running("serve", data / "count-15.mp4", *options) as serve:
            assert re.match(r"serving .* to 127\.0\.0\.1:\d+$", serve.first)
            until(file.is_file)
            play = commands.run("play", file, "--no-window", "--audio", "null", "--seconds", "1.5", "--json")
            code, said, errors = serve.end()
        assert code in (0, 130), errors
        assert re.search(r"^sent [0-9.]+ MB in", said, re.MULTILINE)
    assert play.returncode == 0, play.stderr
    assert json.loads(play.stdout.splitlines()[-1])["shown"] > 8


def test_serve_says_how_it_is_played_or_prints_the_description(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "session.sdp"
    options = ("serve", data / "count-15.mp4", "--to", f"127.0.0.1:{ports.free(4)}", "--seconds", "3")
    said = commands.run(*options, "--sdp", file).stdout
    assert f"play it: avlab play {file}    or: ffplay -protocol_whitelist file,udp,rtp {file}" in said
    printed = tmp_path / "printed.sdp"
    printed.write_text(commands.run(*options).stdout)
    assert [media.encoding for media in sdp.parse(printed.read_text()).media] == ["JPEG", "L16"]
    refused = commands.run("serve", data / "count-15.mp4", "--sdp", file)
    assert refused.returncode == 1
    assert "give that as well, as to=" in commands.sentence(refused.stderr)


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("coded", [False, True])
def test_ffmpeg_plays_what_is_described(data: Path, tmp_path: Path, coded: bool) -> None:
    with serving(data, tmp_path, coded=coded) as server:
        command = ["ffmpeg", "-v", "fatal", "-nostdin", "-protocol_whitelist", "file,udp,rtp", "-i", server.url]
        done = tools.run(*command, "-t", "2", "-f", "framemd5", "-")
    lines = [line.split(",")[0].strip() for line in done.splitlines() if line[:1].isdigit()]
    assert lines.count("0") >= 15
    assert lines.count("1") >= 40


@pytest.mark.needs("gst-launch-1.0", "gst:sdpdemux", "gst:rtpjpegdepay", "gst:rtph264depay", "gst:openh264dec")
@pytest.mark.parametrize("coded", [False, True])
def test_gstreamer_plays_what_is_described(data: Path, tmp_path: Path, coded: bool) -> None:
    video = "rtph264depay ! h264parse ! openh264dec ! videoconvert" if coded else "rtpjpegdepay ! jpegdec"
    audio = "rtpopusdepay ! opusdec" if coded else "rtpL16depay"
    with serving(data, tmp_path, coded=coded, loop=False) as server:
        tools.gst_launch(  # ends by BYE
            f"filesrc location={server.url} ! sdpdemux name=s latency=200 "
            f"s. ! {video} ! jpegenc ! multifilesink location={tmp_path}/%05d.jpg "
            f"s. ! {audio} ! filesink location={tmp_path}/sound.raw"
        )
    assert len(list(tmp_path.glob("*.jpg"))) >= 10
    assert (tmp_path / "sound.raw").stat().st_size > 40_000
