"""What a client makes of servers that are odd, on real sockets: notices, ends, and what is played all the same."""

from __future__ import annotations

import re
from typing import Any

import commands
import numpy as np
import pytest
from rawclient import until
from scripted import AUDIO, VIDEO, Pictures, ScriptedServer, Sound, bye, description, playing, sender_report

import avlab
from avlab.measure.numbers import metrics
from avlab.stream.rtsp import receiver as rtsp_receiver
from avlab.wire import rtsp
from avlab.wire.units import NS

pytestmark = pytest.mark.slow


def client_of(server: ScriptedServer, **settings: Any) -> avlab.Client:
    return avlab.Client(server.url, **({"audio": "null"} | settings))


# ---- what cannot be played


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (("m=audio 0 RTP/AVP 3", "a=rtpmap:3 GSM/8000"), "GSM"),
        (("m=audio 0 RTP/AVP 9",), "G722"),
        (("m=audio 0 RTP/AVP 97", "a=rtpmap:97 MP4A-LATM/48000/2"), r"MP4A-LATM \(AAC\)"),
        (("m=audio 0 RTP/AVP 111", "a=rtpmap:111 vorbis/48000/2"), "VORBIS"),
        (("m=audio 0 RTP/AVP 97",), "payload type 97"),
    ],
)
def test_sound_of_another_encoding_is_named_and_the_pictures_play(lines: tuple[str, ...], named: str) -> None:
    described = description(VIDEO, (*lines, "a=control:1"))
    with ScriptedServer(described, lambda s: playing(s, sound=False)) as server, client_of(server) as client:
        until(lambda: len(client.trace.frames) > 10)
        [words] = client.notices
    assert metrics.summary(client.trace).shown > 5
    assert re.search(rf"sound of this stream is {named}, which avlab does not play", words)
    assert "picture goes on without it" in words


def test_pictures_of_another_encoding_are_named_and_the_sound_plays() -> None:
    described = description(("m=video 0 RTP/AVP 96", "a=rtpmap:96 VP8/90000", "a=control:0"), AUDIO)
    with ScriptedServer(described, playing) as server, client_of(server) as client:
        until(lambda: client.audio_seconds > 0.2)
        [words] = client.notices
    assert "picture of this stream is VP8" in words
    assert "sound goes on without it" in words


def test_a_second_track_of_a_kind_that_is_played_is_no_loss() -> None:
    spare = ("m=audio 0 RTP/AVP 0", "a=rtpmap:0 PCMU/8000", "a=control:1")
    with ScriptedServer(description(VIDEO, AUDIO, spare), playing) as server, client_of(server) as client:
        until(lambda: client.audio_seconds > 0.2)
        assert client.notices == ()


def test_tracks_that_a_server_puts_on_the_same_channels_are_told_apart() -> None:
    class Server(ScriptedServer):
        def _set_up(self, stream: str, asked: str, connection: Any) -> list[str]:
            return super()._set_up(stream, "RTP/AVP/TCP;unicast;interleaved=0-1", connection)

    with (
        Server(description(VIDEO, AUDIO), playing) as server,
        client_of(server, video_over="tcp", audio_over="tcp") as client,
    ):
        until(lambda: client.audio_seconds > 0.5 and (client.trace.frames["fate"] == "shown").sum() > 5)
        packets = client.trace.packets
        assert client.notices == ()
    assert packets.groupby("stream")["ssrc"].nunique().to_dict() == {"video": 1, "audio": 1}
    assert packets.groupby("ssrc")["stream"].nunique().max() == 1


class Misdirecting(ScriptedServer):
    """Sends the packets of these streams on channels that are so many above those that were agreed on."""

    beside: tuple[str, ...] = ("video", "audio")
    by = 4

    def send(self, stream: str, *packets: bytes, control: bool = False) -> None:
        if stream not in self.beside:
            super().send(stream, *packets, control=control)
            return
        way = self._ways.get(stream)
        for packet in packets:
            self.say(rtsp.interleave((way if isinstance(way, int) else 0) + self.by + control, packet))


def test_packets_on_channels_that_were_not_agreed_on_are_named_and_the_rest_plays() -> None:
    with Misdirecting(description(VIDEO, AUDIO), playing) as server:
        server.beside, server.by = ("video",), 9
        with client_of(server, video_over="tcp", audio_over="tcp") as client:
            until(lambda: client.notices and client.audio_seconds > 0.5)
            assert client.running
            [words] = client.notices
    where = server.url.split("/")[2]
    assert words.startswith(
        f"packets come from {where} on channel 9 of the RTSP connection, and channels 0-1 and 2-3 were agreed on: "
    )
    assert set(client.trace.packets["stream"]) == {"audio"}


@pytest.mark.parametrize("over", ["tcp", "udp"])
def test_with_every_packet_on_other_channels_it_says_so_and_waits(over: str) -> None:
    """Also when far more than a reader of connections would pass over of bytes that belong to nothing."""
    sent = 0

    def script(server: ScriptedServer) -> None:
        nonlocal sent
        while server.pause(0.01):
            server.send("video", *(b"\x80\x1a" + bytes(1_100) for _ in range(20)))
            sent += 20

    with Misdirecting(description(VIDEO), script) as server, client_of(server, video_over=over) as client:
        until(lambda: client.notices)
        [words] = client.notices
        until(lambda: sent > 600)
        assert client.running
        assert client.notices[0] == words
    assert "on channel 4 of the RTSP connection" in words
    assert ("channels 0-1 were agreed on" if over == "tcp" else "all was to come over UDP") in words


def test_what_a_server_asks_while_it_plays_is_answered_and_playback_goes_on() -> None:
    def asks(server: ScriptedServer) -> None:
        for method in ("OPTIONS", "SET_PARAMETER", "ANNOUNCE"):
            server.say(f"{method} * RTSP/1.0\r\nCSeq: 4\r\nSession: 1\r\n\r\n".encode())
        playing(server)

    with ScriptedServer(description(VIDEO, AUDIO), asks) as server, client_of(server) as client:
        until(lambda: len(server.replies) == 3 and (client.trace.frames["fate"] == "shown").sum() > 5)
        assert client.notices == ()
    for text in server.replies:
        assert text.startswith("RTSP/1.0 200 OK\r\nCSeq: 4\r\nSession: 1")


class Gathering(ScriptedServer):
    """What it sends over the connection leaves some packets at a time, cut anywhere."""

    together, cut = 1, 0

    def send(self, stream: str, *packets: bytes, control: bool = False) -> None:
        way = self._ways[stream]
        assert isinstance(way, int)
        self.waiting = getattr(self, "waiting", [])
        self.waiting += [rtsp.interleave(way + control, packet) for packet in packets]
        while len(self.waiting) >= self.together and self._connection is not None:
            data, self.waiting = b"".join(self.waiting[: self.together]), self.waiting[self.together :]
            for part in (data[: self.cut], data[self.cut :]):
                if part:
                    self._connection.sendall(part)


def gathered(server: ScriptedServer) -> None:
    """A script: chunks of three packets of sound, a picture of several packets after each fourth, and reports."""
    pictures, tones = Pictures(), Sound()
    for number in range(60):
        pts_ns = number * 60 * NS // 1000
        server.send("audio", *(tones.packet(pts_ns + at * 20_000_000) for at in range(3)))
        if number % 4 == 0:
            server.send("video", *pictures.frame(pts_ns, number))
        if number % 7 == 0:
            server.send("audio", sender_report(tones.ssrc, number << 32, tones.ticks), control=True)
        if not server.pause(0.004):
            return
    server.send("video", bye(0x1111), control=True)
    server.send("audio", bye(tones.ssrc), control=True)
    while server.pause(0.05):  # what is left
        server.send("audio", sender_report(tones.ssrc, 99 << 32, tones.ticks), control=True)


@pytest.mark.parametrize(("together", "cut"), [(1, 0), (1, 7), (3, 0), (4, 300), (11, 1000), (2, 2)])
def test_packets_that_come_together_over_the_connection_fare_as_each_by_itself(together: int, cut: int) -> None:
    class Server(Gathering):
        pass

    Server.together, Server.cut = together, cut
    with (
        Server(description(VIDEO, AUDIO), gathered) as server,
        client_of(server, video_over="tcp", audio_over="tcp", playout_delay=0.3) as client,
    ):
        until(lambda: (client.trace.packets["stream"] == "audio").sum() == 180)
        until(lambda: (client.trace.packets["stream"] == "video").sum() == 15 * len(Pictures().frame(0)))
        packets = client.trace.packets
        assert client.notices == ()
    sound = packets[packets["stream"] == "audio"]
    assert list(sound["seq"]) == list(range(500, 680))
    assert [int(step) for step in sound["timestamp"].diff().dropna().unique()] == [160]
    assert set(sound["bytes"]) == {12 + 320}
    assert set(packets["fate"]) <= {"used", "late"}
    assert packets["received"].is_monotonic_increasing


# ---- what is set while it starts


@pytest.mark.parametrize("delay", [0.37, "adaptive"])
@pytest.mark.parametrize("moment", ["OPTIONS", "PLAY"])
def test_a_playout_delay_that_is_set_while_the_client_starts_holds(moment: str, delay: Any) -> None:
    client: avlab.Client

    class Server(ScriptedServer):
        def _answer(self, connection: Any, head: str) -> None:
            if head.startswith(moment):
                client.playout_delay = delay
            super()._answer(connection, head)

    with Server(description(VIDEO, AUDIO), playing) as server:
        client = client_of(server)
        with client:
            assert client.playout_delay == delay
            until(lambda: (client.trace.frames["fate"] == "shown").sum() > 5)
            waits = client.trace.frames.query("fate == 'shown' and stream == 'video'").eval("shown - first_packet")
            if delay == "adaptive":
                assert client.playout_target > 0
            else:
                assert client.playout_target == pytest.approx(delay)
                assert waits.median() > 0.25


# ---- silence is no death


SLOWER = 5.0
"""How much faster than in earnest the patience of these tests runs out."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that a client has patience for, a fifth of each."""
    for name in ("SILENCE_NS", "ANSWER_NS", "LATE_START_NS", "LONG_SILENCE_NS", "AFTER_END_NS"):
        monkeypatch.setattr(rtsp_receiver, name, round(getattr(rtsp_receiver, name) / SLOWER))


def slides(server: ScriptedServer, seconds: float = 60, *, every: float = 2.6) -> None:
    """A script: a picture now and then, and nothing else."""
    pictures = Pictures()
    for number in range(round(seconds / every)):
        server.send("video", *pictures.frame(round(number * every * NS), number))
        if not server.pause(every):
            return


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_a_slide_now_and_then_is_no_end(over: Any) -> None:
    with (
        ScriptedServer(description(VIDEO), lambda s: slides(s)) as server,
        client_of(server, video_over=over) as client,
    ):
        assert not client.wait(8)
        assert metrics.summary(client.trace).shown >= 3
        assert "GET_PARAMETER" in server.asked  # it was asked whether it is there
    assert client.error is None


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("described", [(VIDEO,), (VIDEO, AUDIO)])
@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_pictures_that_begin_late_are_waited_for(described: tuple[tuple[str, ...], ...], over: Any) -> None:
    def late(server: ScriptedServer) -> None:
        if server.pause(3.5):
            playing(server, sound=len(described) == 2)

    with ScriptedServer(description(*described), late) as server, client_of(server, video_over=over) as client:
        until(lambda: (client.trace.frames["fate"] == "shown").sum() > 10, 20)
        assert any(words.startswith("no pictures for 1 s") for words in client.notices)
        assert ["firewall" in words for words in client.notices if words.startswith("no pictures")] == [over == "udp"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("deaf", [True, False])
def test_a_server_that_says_nothing_any_more_is_gone_when_it_does_not_answer_either(deaf: bool) -> None:
    def falls_silent(server: ScriptedServer) -> None:
        playing(server, seconds=0.5)
        if deaf:
            server.deaf |= {"GET_PARAMETER", "OPTIONS"}

    with ScriptedServer(description(VIDEO, AUDIO), falls_silent) as server:
        client = client_of(server).start()
        try:
            if deaf:
                with pytest.raises(TimeoutError, match="it does not answer any more: see whether it still runs"):
                    client.wait(20)
            else:
                assert not client.wait(6)
                assert any(words.startswith("no sound for") for words in client.notices)
                assert any(words.startswith("no pictures for") for words in client.notices)
        finally:
            client.stop()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_has_forgotten_the_session_is_named() -> None:
    class Forgetful(ScriptedServer):
        def _answer(self, connection: Any, head: str) -> None:
            if head.startswith("GET_PARAMETER"):
                number = head.partition("CSeq: ")[2].partition("\r\n")[0]
                connection.sendall(f"RTSP/1.0 454 Session Not Found\r\nCSeq: {number}\r\n\r\n".encode())
                return
            super()._answer(connection, head)

    with Forgetful(description(VIDEO), lambda s: playing(s, seconds=0.5, sound=False)) as server:
        client = client_of(server).start()
        with pytest.raises(ConnectionError, match="has ended the session"):
            client.wait(20)
        client.stop()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("answers", ["GET_PARAMETER", "nothing"])
def test_answers_to_other_requests_are_no_sign_of_life(answers: str) -> None:
    class Stale(ScriptedServer):
        def _answer(self, connection: Any, head: str) -> None:
            if head.startswith("GET_PARAMETER") and answers == "nothing":
                connection.sendall(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")  # that of OPTIONS, once more
                return
            super()._answer(connection, head)

    with Stale(description(VIDEO), lambda s: playing(s, seconds=0.5, sound=False)) as server:
        client = client_of(server).start()
        if answers == "nothing":
            with pytest.raises(TimeoutError, match="does not answer any more"):
                client.wait(20)
        else:
            assert not client.wait(5)
        client.stop()


@pytest.mark.usefixtures("impatient")
@pytest.mark.alone
@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("told", ["PLAY", "description"])
def test_a_film_whose_server_says_no_bye_ends_where_its_range_does(closes: bool, told: str) -> None:
    def film(server: ScriptedServer) -> None:
        playing(server, seconds=2.5)
        if closes:
            server.hang_up()

    described = description(VIDEO, AUDIO)
    if told == "description":
        described = described.replace("a=control:*", "a=control:*\r\na=range:npt=0-2.5", 1)
    headers = ("Range: npt=0-2.5",) if told == "PLAY" else ()
    with ScriptedServer(described, film, headers=headers) as server:
        client = client_of(server).start()
        assert client.wait(20)
        client.stop()
    assert metrics.summary(client.trace).shown > 50


@pytest.mark.parametrize("headers", [("Range: npt=0-",), ("Range: npt=0-60",), ()])
def test_a_server_that_closes_before_its_end_has_failed(headers: tuple[str, ...]) -> None:
    def breaks(server: ScriptedServer) -> None:
        playing(server, seconds=1)
        server.hang_up()

    with ScriptedServer(description(VIDEO, AUDIO), breaks, headers=headers) as server:
        client = client_of(server).start()
        with pytest.raises(ConnectionError, match="closed the connection in mid-stream"):
            client.wait(20)
        client.stop()


def test_the_end_is_the_bye_of_the_streams_that_live() -> None:
    def pictures_alone(server: ScriptedServer) -> None:
        playing(server, seconds=1, sound=False)
        server.send("video", bye(0x1111), control=True)

    with ScriptedServer(description(VIDEO, AUDIO), pictures_alone) as server:
        client = client_of(server).start()
        assert client.wait(20)
        client.stop()


def test_sound_that_goes_on_after_the_pictures_bye_is_heard() -> None:
    def longer(server: ScriptedServer) -> None:
        playing(server, seconds=1)
        server.send("video", bye(0x1111), control=True)
        tones = Sound(sequence=550)
        for number in range(50, 200):
            server.send("audio", tones.packet(number * NS // 50))
            if not server.pause(0.02):
                return
        server.send("audio", bye(0x2222), control=True)

    with ScriptedServer(description(VIDEO, AUDIO), longer) as server:
        client = client_of(server, playout_delay=1.0).start()  # what a busy machine sends late is heard, too
        assert client.wait(30)
        client.stop()
    assert client.audio_seconds > 2


def test_a_server_of_this_process_is_known_behind_another_source_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """SETUP's answers tell a stale SSRC: the record is joined with the server's all the same."""
    serialize = rtsp.Transport.serialize
    stale = lambda self: re.sub(r"ssrc=\w+", "ssrc=0BADCAFE", serialize(self))  # noqa: E731
    monkeypatch.setattr(rtsp.Transport, "serialize", stale)
    images = [np.full((48, 64, 3), number, np.uint8) for number in range(200)]
    with avlab.Server(images, fps=25, loop=True) as server, avlab.Client(server.url, audio="null") as client:
        until(lambda: (client.trace.frames["fate"] == "shown").sum() > 10)
        trace = client.trace
    assert trace.meta["joined"]
    assert (trace.packets["sent"].notna() & trace.packets["received"].notna()).sum() > 10


# ---- a run without a picture says why


def played(server: ScriptedServer, *options: object) -> tuple[int, str]:
    """Exit code and standard error of `avlab play`."""
    done = commands.run("play", server.url, "--no-window", "--audio", "null", "--seconds", 2, "--json", *options)
    return done.returncode, done.stderr


def test_pictures_that_are_too_large_are_no_silence() -> None:
    def large(server: ScriptedServer) -> None:
        source = Pictures()
        for number in range(100):
            server.send("video", *(p[:18] + b"\0\0" + p[20:] for p in source.frame(number * NS // 25, number)))
            if not server.pause(0.04):
                return

    with ScriptedServer(description(VIDEO), large) as server:
        code, words = played(server)
    assert code == 0
    assert re.search("note: .*over 2040 pixels", words)
    assert re.search(r"^avlab: no picture was shown: \d+ packets came, and not one whole picture \(", words, re.M)


def test_a_server_that_sends_nothing_is_no_silence() -> None:
    with ScriptedServer(description(VIDEO), lambda s: None) as server:
        code, words = played(server, "--video-over", "tcp")
    assert code == 0
    assert "avlab: no picture was shown: none came" in words


def test_sound_alone_has_no_picture_to_miss() -> None:
    with ScriptedServer(description(AUDIO), lambda s: playing(s)) as server:
        code, words = played(server)
    assert code == 0
    assert "no picture" not in words
