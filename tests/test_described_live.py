"""Streams without RTSP, on sockets: what others send is played, and what avlab sends is played by others."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import commands
import pytest
import tools
from rawclient import until

import avlab
from avlab.measure.numbers import metrics
from avlab.stream.described import receiver
from avlab.stream.sockets.links import UdpLink
from avlab.stream.sockets.system import Sockets
from avlab.wire import rtcp, sdp

pytestmark = pytest.mark.slow

SENT: dict[str, str] = {
    "jpeg": "mjpeg -huffman default -pix_fmt yuvj420p -force_duplicated_matrix 1 -q:v 5",
    "h264": "libx264 -preset ultrafast -tune zerolatency -g 8",
    "h265": "libx265 -preset ultrafast -tune zerolatency -x265-params keyint=8:log-level=none",
    "l16": "pcm_s16be -ar 44100 -ac 2",
    "aac": "aac -ar 44100 -ac 2",
    "opus": "libopus -ar 48000 -ac 2",
    "pcmu": "pcm_mulaw -ar 8000 -ac 1",
    "pcma": "pcm_alaw -ar 8000 -ac 1",
}
"""How ffmpeg is asked for what a description names."""


def ports(host: str = "127.0.0.1") -> int:
    """An even port that is free with the three after it, which is as long as nobody takes them."""
    for _ in range(100):
        links = []
        try:
            links += Sockets().udp_pair(host)
            first = links[0].port
            links += [UdpLink(host, first + 2), UdpLink(host, first + 3)]
        except OSError:
            continue
        else:
            return first
        finally:
            for link in links:
                link.close()
    raise OSError("no four neighbouring ports are free")


@contextmanager
def ffmpeg(
    data: Path, folder: Path, video: str, audio: str, *, host: str = "127.0.0.1", options: str = "", seconds: float = 60
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """ffmpeg as it sends a clip again and again to free ports: its description, and the process."""
    bare = host.strip("[]")
    port = ports("127.0.0.1" if bare[:3] in ("239", "232") else bare)
    file = folder / "session.sdp"
    command = ["ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", str(data / "count-15.mp4")]
    command += ["-t", str(seconds)]
    for kind, what, at in (("v", video, port), ("a", audio, port + 2)):
        if what:
            scaled = ["-vf", "scale=320:-2"] if kind == "v" else []
            command += ["-map", f"0:{kind}", "-t", str(seconds), f"-c:{kind}", *SENT[what].split(), *scaled]
            command += ["-rtpflags", "send_bye", "-f", "rtp", f"rtp://{host}:{at}{options}"]
    with tools.started(*command[:1], "-sdp_file", file, *command[1:]) as process:
        until(lambda: file.is_file() and file.read_text().count("\nm=") == bool(video) + bool(audio))
        yield file, process


def shown(client: avlab.Client) -> int:
    frames = client.trace.frames.query("stream == 'video'")
    return int(frames["fate"].isin(["shown", "damaged"]).sum())


# ---- what others send


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize(
    ("video", "audio", "host", "options"),
    [
        ("jpeg", "l16", "127.0.0.1", ""),
        ("h264", "aac", "127.0.0.1", ""),
        ("h265", "opus", "127.0.0.1", ""),
        ("jpeg", "pcma", "[::1]", ""),
        ("", "pcmu", "127.0.0.1", ""),
        ("h264", "opus", "239.255.77.{}", "?ttl=0&localaddr=127.0.0.1"),
    ],
)
def test_what_ffmpeg_sends_is_played(
    data: Path, tmp_path: Path, video: str, audio: str, host: str, options: str
) -> None:
    host = host.format(1 + ports() % 250)
    with (
        ffmpeg(data, tmp_path, video, audio, host=host, options=options) as (file, _),
        avlab.Client(file, audio="null", playout_delay=0.3) as client,
    ):
        until(lambda: client.audio_seconds > 1.5 and (not video or shown(client) > 15))
        if video == "jpeg" and audio == "l16":  # ffmpeg reports every five seconds
            ways = client.receiver.ways.values()  # type: ignore[attr-defined]
            until(lambda: all(way.sender.reported for way in ways))
    assert client.notices == ()
    assert client.error is None
    assert client.trace.meta["wire"] == "rtp"
    over = client.trace.settings.query("name in ['video_over', 'audio_over']")["value"]
    assert set(over) == {"multicast" if options else "udp"}
    ledger = metrics.frame_ledger(client.trace)
    assert ledger.closes
    if video:
        assert abs(metrics.summary(client.trace).av_p95_ms or 0.0) < 60


@pytest.mark.needs("ffmpeg")
def test_play_ends_by_bye_and_says_so_by_its_exit_code(data: Path, tmp_path: Path) -> None:
    with ffmpeg(data, tmp_path, "jpeg", "l16", seconds=12) as (file, process):
        play = commands.run("play", file, "--no-window", "--audio", "null", "--json")
        out, said = play.stdout, play.stderr
        assert process.wait(tools.SECONDS) == 0
    assert play.returncode == 0, said
    found = json.loads(out.splitlines()[-1])
    assert found["error"] is None
    assert found["shown"] > 10
    assert "Traceback" not in said


@pytest.mark.needs("ffmpeg")
def test_what_ffmpeg_prints_is_as_good_as_its_file_and_silence_is_the_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "SILENCE_NS", 2_000_000_000)
    with ffmpeg(data, tmp_path, "jpeg", "") as (file, process):
        printed = tmp_path / "printed"
        printed.write_text("SDP:\n" + file.read_text() + "\n")
        with avlab.Client(str(printed), audio="null") as client:
            until(lambda: shown(client) > 5)
            process.kill()
            assert client.wait(60)
    assert client.error is None
    assert client.notices == ("nothing has come for 2 s, so the stream is over",)


def test_where_nothing_comes_it_is_named_and_then_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "LATE_START_NS", 100_000_000)
    monkeypatch.setattr(receiver, "START_NS", 600_000_000)
    port = ports()
    file = tmp_path / "session.sdp"
    file.write_text(f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 26\nm=audio {port + 2} RTP/AVP 0\n")
    client = avlab.Client(file, audio="null").start()
    with pytest.raises(TimeoutError, match=f"nothing has come to 127.0.0.1:{port} and 127.0.0.1:{port + 2} for"):
        client.wait(30)
    client.stop()
    assert [words[:10] for words in client.notices] == ["no picture", "no sound f"]


def test_a_port_that_is_taken_is_a_sentence_at_the_command_line(tmp_path: Path) -> None:
    port = ports()
    taken = UdpLink("127.0.0.1", port)
    file = tmp_path / "session.sdp"
    file.write_text(f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 26\n")
    try:
        play = commands.run("play", file, "--no-window")
    finally:
        taken.close()
    assert play.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in commands.sentence(play.stderr)


# ---- what avlab sends


def serving(data: Path, folder: Path, to: str | None = None, **given: Any) -> avlab.Server:
    """A server of the short clip, again and again unless `once` is asked for, to free ports of this machine."""
    codecs: dict[str, Any] = {"codec": "h264", "audio_codec": "opus"} if given.pop("coded", False) else {}
    to = f"127.0.0.1:{ports()}" if to is None else to
    given = {"width": 320, "loop": True, "key_interval": 0.5, **given}
    return avlab.Server(data / "count-15.mp4", to=to, sdp=folder / "session.sdp", **codecs, **given)


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "239.255.78.{}"])
def test_a_client_plays_what_is_described_and_reports(data: Path, tmp_path: Path, coded: bool, host: str) -> None:
    port = ports("::1" if ":" in host else "127.0.0.1")
    host = host.format(1 + port % 250)
    to = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    way = {"host": "127.0.0.1"} if host.startswith("239") else {}
    with serving(data, tmp_path, to, coded=coded, **way) as server:
        assert server.url == str(tmp_path / "session.sdp")
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
    port = ports()
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
        options = ("--to", f"127.0.0.1:{ports()}", "--sdp", file, "--loop", "--width", "320")
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
    options = ("serve", data / "count-15.mp4", "--to", f"127.0.0.1:{ports()}", "--seconds", "4")
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


@pytest.mark.needs("gst-launch-1.0", "gst:rtpjpegpay", "gst:jpegenc")
def test_what_gstreamer_sends_by_hand_is_played(tmp_path: Path) -> None:
    """As its documentation has it: a pipeline with no RTCP at all, and a description that somebody has written."""
    port = ports()
    file = tmp_path / "session.sdp"
    file.write_text(f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 26\na=rtcp-mux\n")
    pipeline = (
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 ! jpegenc ! rtpjpegpay"
    )
    command = ["gst-launch-1.0", *f"{pipeline} ! udpsink host=127.0.0.1 port={port}".split()]
    with tools.started(*command), avlab.Client(file, audio="null") as client:
        until(lambda: shown(client) > 10)
    assert client.notices == ()
