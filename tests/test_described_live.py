"""Streams without RTSP, on sockets: what ffmpeg and GStreamer send is played, and how it ends."""

from __future__ import annotations

import json
import time
from pathlib import Path

import commands
import ports
import pytest
import tools
from described import ffmpeg, shown
from rawclient import until

import avlab
from avlab.measure.numbers import metrics
from avlab.stream.described import describedreceiver as receiver
from avlab.stream.sockets.links import UdpLink
from avlab.wire import rtcp
from avlab.wire.rtp import RtpPacket

pytestmark = pytest.mark.slow


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize(
    ("video", "audio", "host", "options"),
    [
        ("jpeg", "l16", "127.0.0.1", ""),
        ("h264", "aac", "127.0.0.1", ""),
        ("h265", "opus", "127.0.0.1", ""),
        ("h264-b", "opus", "127.0.0.1", ""),
        ("h264-b", "", "127.0.0.1", ""),
        ("h265-b", "pcmu", "127.0.0.1", ""),
        ("jpeg", "pcma", "[::1]", ""),
        ("", "pcmu", "127.0.0.1", ""),
        ("h264", "opus", "239.255.77.{}", "?ttl=0&localaddr=127.0.0.1"),
    ],
)
def test_what_ffmpeg_sends_is_played(
    data: Path, tmp_path: Path, video: str, audio: str, host: str, options: str
) -> None:
    host = host.format(1 + ports.free(4) % 250)
    with (
        ffmpeg(data, tmp_path, video, audio, host=host, options=options) as (file, _),
        avlab.Client(file, audio="null", playout_delay=0.3) as client,
    ):
        until(lambda: (not audio or client.audio_seconds > 1.5) and (not video or shown(client) > 15))
        if video == "jpeg" and audio == "l16":  # ffmpeg reports every five seconds
            ways = client.receiver.ways.values()  # type: ignore[attr-defined]
            until(lambda: all(way.sender.reported for way in ways))
    assert client.notices == ()
    assert client.error is None
    assert client.trace.meta["wire"] == "rtp"
    over = client.trace.settings.query("name in ['video_over', 'audio_over']")["value"]
    if "-b" in video:  # in another order than they are seen, and yet all at their times
        pictures = client.trace.frames.query("stream == 'video' and fate in ['shown', 'late']")
        assert pictures["pts"].diff().dropna().to_numpy() == pytest.approx(1 / 15, abs=0.002)
        assert (pictures["fate"] == "shown").mean() > 0.8
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
    port = ports.free(4)
    file = tmp_path / "session.sdp"
    file.write_text(f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 26\nm=audio {port + 2} RTP/AVP 0\n")
    client = avlab.Client(file, audio="null").start()
    with pytest.raises(TimeoutError, match=f"nothing has come to 127.0.0.1:{port} and 127.0.0.1:{port + 2} for"):
        client.wait(30)
    client.stop()
    assert [words[:10] for words in client.notices] == ["no picture", "no sound f"]


def test_a_port_that_is_taken_is_a_sentence_at_the_command_line(tmp_path: Path) -> None:
    port = ports.free(4)
    taken = UdpLink("127.0.0.1", port)
    file = tmp_path / "session.sdp"
    file.write_text(f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 26\n")
    try:
        play = commands.run("play", file, "--no-window")
    finally:
        taken.close()
    assert play.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in commands.sentence(play.stderr)


@pytest.mark.needs("gst-launch-1.0", "gst:rtpjpegpay", "gst:jpegenc")
def test_what_gstreamer_sends_by_hand_is_played(tmp_path: Path) -> None:
    """As its documentation has it: a pipeline with no RTCP at all, and a description that somebody has written."""
    port = ports.free(4)
    file = tmp_path / "session.sdp"
    file.write_text(f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 26\na=rtcp-mux\n")
    pipeline = (
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 ! jpegenc ! rtpjpegpay"
    )
    command = ["gst-launch-1.0", *f"{pipeline} ! udpsink host=127.0.0.1 port={port}".split()]
    with tools.started(*command), avlab.Client(file, audio="null") as client:
        until(lambda: shown(client) > 10)
    assert client.notices == ()


@pytest.mark.parametrize("line", ["", "a=rtcp-mux\n", "a=rtcp:{}\n"])
def test_reports_come_from_where_they_are_described_and_go_back_there(tmp_path: Path, line: str) -> None:
    port = ports.free(4)
    control_port = port if "mux" in line else port + 3 if "{}" in line else port + 1
    file = tmp_path / "session.sdp"
    file.write_text(f"v=0\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n{line.format(control_port)}")
    media = UdpLink("127.0.0.1")
    control = media if "mux" in line else UdpLink("127.0.0.1")
    heard: list[rtcp.RtcpPacket] = []
    number = 0

    def more() -> bool:
        nonlocal number
        report = rtcp.SenderReport(7, (number + 1) << 32, number * 160, number, number * 160)
        control.send([rtcp.serialize_compound([report, rtcp.Sdes(7, "x")])], ("127.0.0.1", control_port))
        for _ in range(20):
            number += 1
            packet = RtpPacket(0, number, number * 160, 7, False, b"\xff" * 160).serialize()
            media.send([packet], ("127.0.0.1", port))
        time.sleep(0.02)
        for data, _ in control.receive():
            heard.extend(rtcp.parse_compound(data))
        return any(isinstance(each, rtcp.ReceiverReport) and each.blocks for each in heard)

    try:
        with avlab.Client(file, audio="null", name="Ada") as client:
            until(more)
        control_said = [data for data, _ in control.receive()]
    finally:
        for link in {media, control}:
            link.close()
    [block] = next(each for each in heard if isinstance(each, rtcp.ReceiverReport)).blocks
    assert block.ssrc == 7
    assert {each.name for each in heard if isinstance(each, rtcp.Sdes)} == {"Ada"}
    goodbyes = [each for data in control_said for each in rtcp.parse_compound(data) if isinstance(each, rtcp.Bye)]
    assert len(goodbyes) == 1, "who was sent reports is told at the end"
    assert client.error is None
