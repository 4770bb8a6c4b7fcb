"""A stream that breaks off comes back: servers killed, connections ended, silence, and servers that refuse."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path
from typing import Any

import commands
import numpy as np
import ports
import psutil
import pytest
from oddserver import Asked, OddServer, reply
from rawclient import until
from test_joining import users_file

import avlab
from avlab.measure.numbers import metrics, rates
from avlab.measure.record.trace import Trace
from avlab.stream.returning import LIVED_NS, MOST_NS, REFUSED_NS, SCATTER, Returning
from avlab.stream.rtsp import receiver as rtsp_receiver
from avlab.stream.rtsp.dialogue import RefusedError
from avlab.wire import rtsp
from avlab.wire.units import NS

CLIP = Path(__file__).parents[1] / "data" / "count-15.mp4"


def shown(client: avlab.Client) -> int:
    frames = client.trace.frames
    return int(frames["fate"].isin(["shown", "damaged"])[frames["stream"] == "video"].sum())


def breaks(trace: Trace) -> list[str]:
    """The events of breaks, in order."""
    return [name for name in trace.settings["name"] if name in ("connection lost", "connection back")]


def said(client: avlab.Client, words: str) -> list[str]:
    return [notice for notice in client.notices if words in notice]


def is_back(client: avlab.Client, times: int = 1) -> bool:
    return len(said(client, "the stream is back")) == times


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


def goes_on(client: avlab.Client, more: int = 10) -> None:
    """Pictures come again."""
    before = shown(client)
    until(lambda: shown(client) >= before + more)


def one_timeline(trace: Trace) -> None:
    """The record is whole: every frame has a fate, media time never goes back, and the break is no loss."""
    assert metrics.frame_ledger(trace).closes
    assert metrics.frame_ledger(trace).lost == 0
    if not trace.meta.get("joined"):  # else what the server before has sent is in nobody's record
        assert metrics.packet_ledger(trace).lost == 0
        assert metrics.packet_ledger(trace).closes
    summary = metrics.summary(trace)
    assert summary.packet_loss_percent == 0
    for stream in ("video", "audio"):
        frames = trace.frames[trace.frames["stream"] == stream].dropna(subset=["shown", "pts"]).sort_values("shown")
        assert (np.diff(frames["pts"]) > 0).all(), stream


# ---- when, and for how long


class Told:
    """A break without a client."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str | float]] = []
        self.notices: list[str] = []
        self.returning = Returning(
            note=lambda name, value: self.notes.append((name, value)), notice=self.notices.append, chance=lambda: 0.0
        )

    def wait(self, now_ns: int) -> int:
        assert self.returning.at_ns is not None
        return self.returning.at_ns - now_ns


GONE = ConnectionRefusedError("nothing listens at h:1: start the server first, or check the port")


def test_it_is_tried_after_half_a_second_and_then_less_and_less_often() -> None:
    told, now_ns, waits = Told(), 0, []
    told.returning.broke("the server at h:1 closed the connection: see whether it runs", now_ns)
    assert told.returning.broken
    for _ in range(7):
        waits.append(told.wait(now_ns))
        now_ns += waits[-1]
        told.returning.failed(GONE, now_ns)
    assert waits == [NS // 2, NS, 2 * NS, 4 * NS, 8 * NS, MOST_NS, MOST_NS]
    assert told.notes == [("connection lost", "the server at h:1 closed the connection")]
    assert len(told.notices) == 2, "the break, and that nothing listens, once"
    assert told.notices[1].endswith("asked for again: nothing listens at h:1")
    told.returning.back(now_ns)
    assert not told.returning.broken
    assert told.returning.at_ns is None
    assert told.notes[-1] == ("connection back", now_ns / NS)


def test_a_way_that_breaks_again_at_once_is_tried_no_more_often_than_before() -> None:
    told = Told()
    told.returning.broke("gone", 0)
    told.returning.failed(GONE, NS)
    told.returning.back(2 * NS)
    told.returning.broke("gone", 3 * NS)
    assert told.wait(3 * NS) == 2 * NS
    told.returning.back(6 * NS)
    told.returning.broke("gone", 6 * NS + LIVED_NS)
    assert told.wait(6 * NS + LIVED_NS) == NS // 2


def test_chance_scatters_a_class() -> None:
    returning = Returning(note=lambda name, value: None, notice=lambda words: None, chance=lambda: 1.0)
    returning.broke("gone", 0)
    assert returning.at_ns == NS // 2 * (1 + SCATTER)


def refusal(status: int) -> RefusedError:
    return RefusedError("h:1", "DESCRIBE", rtsp.Response(status))


@pytest.mark.parametrize("status", [401, 407])
def test_a_password_is_tried_once(status: int) -> None:
    told = Told()
    told.returning.broke("gone", 0)
    with pytest.raises(ConnectionError, match=r"broke off and does not come back: .* wants a user name"):
        told.returning.failed(refusal(status), NS)


@pytest.mark.parametrize("error", [refusal(404), refusal(503), ValueError("the server offers nothing")])
def test_a_server_that_is_there_and_has_no_such_stream_has_a_minute(error: Any) -> None:
    told = Told()
    told.returning.broke("gone", 0)
    told.returning.failed(error, NS)
    told.returning.failed(error, NS + REFUSED_NS - 1)
    assert len([words for words in told.notices if str(error) in words and "for 60 s" in words]) == 1
    with pytest.raises(ConnectionError, match="does not come back"):
        told.returning.failed(error, NS + REFUSED_NS)


def test_the_minute_begins_anew_when_the_server_was_gone_meanwhile() -> None:
    told = Told()
    told.returning.broke("gone", 0)
    told.returning.failed(refusal(404), NS)
    told.returning.failed(GONE, 2 * NS)
    told.returning.failed(refusal(404), 3 * NS)
    told.returning.failed(refusal(404), NS + REFUSED_NS)
    assert told.returning.broken


# ---- servers that are killed


def serving(port: int, *options: object) -> Any:
    return commands.running("serve", CLIP, "--loop", "--width", 160, "--port", port, *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "given"),
    [
        ((), {}),
        (("--codec", "h264", "--audio-codec", "opus"), {}),
        (("--codec", "h264"), {"video_over": "tcp"}),
        ((), {"repair": "rtx", "playout_delay": "adaptive"}),
    ],
    ids=["jpeg", "h264 and opus", "h264 over tcp", "with repair"],
)
def test_a_client_comes_back_to_a_server_that_was_killed(options: tuple[str, ...], given: dict[str, Any]) -> None:
    with serving(ports.free(), *options) as first:
        client = avlab.Client(first.url, audio="null", reconnect=True, **given).start()
        goes_on(client)
        first.process.kill()
        until(lambda: said(client, "the stream broke off"))
        assert client.status() == "no connection, trying again"
        assert client.running
    with client:
        with serving(port_of(first.url), *options) as second:
            until(lambda: is_back(client))
            goes_on(client)
            second.process.kill()
            until(lambda: len(said(client, "the stream broke off")) == 2)
        with serving(port_of(first.url), *options):
            until(lambda: is_back(client, 2))
            goes_on(client)
            assert client.audio_seconds > 1
        assert client.error is None
    trace = client.trace
    one_timeline(trace)
    assert breaks(trace) == 2 * ["connection lost", "connection back"]
    assert len(rates.came_back(trace)) == 2
    whole = rates.mean_rate(rates.moments(trace, "shown"))
    assert (metrics.summary(trace).fps or 0) > 1.2 * (whole or 0), "the mean rate leaves the breaks out"
    assert metrics.frame_ledger(trace).damaged == 0, "nothing after a break needs what was before it"


@pytest.mark.slow
def test_frames_go_on_and_a_loop_over_them_ends_with_stop() -> None:
    with serving(ports.free()) as first:
        client = avlab.Client(first.url, reconnect=True)
        pictures = client.frames()
        seen = [next(pictures) for _ in range(10)]
        first.process.kill()
    with serving(port_of(first.url)):
        seen += [next(pictures) for _ in range(10)]
        client.stop()
        assert len(list(pictures)) <= 1
    times = [picture.pts for picture in seen]
    assert times == sorted(set(times))
    captured = np.array([picture.captured for picture in seen], float)  # NaN where a report comes after its picture
    known = captured[np.isfinite(captured)]
    assert len(known) >= 15
    assert (np.diff(known) > 0).all()


@pytest.mark.slow
def test_a_server_in_a_process_of_its_own_is_killed() -> None:
    before = set(psutil.Process().children(recursive=True))
    server = avlab.Server(CLIP, width=160, loop=True, isolated=True, port=ports.free()).start()
    with avlab.Client(server.url, audio="null", reconnect=True) as client:
        goes_on(client)
        for child in set(psutil.Process().children(recursive=True)) - before:
            child.send_signal(signal.SIGKILL)
        until(lambda: said(client, "the stream broke off"))
        with pytest.raises(Exception, match="server"):
            server.wait(30)
        server.stop()
        with avlab.Server(CLIP, width=160, loop=True, isolated=True, port=port_of(server.url)):
            until(lambda: is_back(client))
            goes_on(client)


# ---- servers that end by themselves


@pytest.mark.slow
def test_a_server_that_is_stopped_is_waited_for() -> None:
    """It says goodbye, and ends the connection."""
    with avlab.Server(CLIP, width=160, loop=True, port=ports.free()) as server:
        client = avlab.Client(server.url, audio="null", reconnect=True).start()
        goes_on(client)
    with client:
        until(lambda: said(client, "the server said goodbye and ended the connection"))
        with avlab.Server(CLIP, width=160, loop=True, port=port_of(server.url)) as server:
            until(lambda: is_back(client))
            goes_on(client)
    one_timeline(client.trace)
    assert client.trace.meta["joined"], "with the record of the server that was there first"


def test_the_end_of_a_clip_is_the_end() -> None:
    """A goodbye, and the connection stays: the server would play again."""
    pictures = [np.full((64, 64, 3), 9 * number, np.uint8) for number in range(10)]
    with (
        avlab.Server(pictures, fps=30) as server,
        avlab.Client(server.url, audio="null", reconnect=True) as client,
    ):
        assert client.wait(60)
        assert client.error is None
    assert breaks(client.trace) == []
    ledger = metrics.frame_ledger(client.trace)
    assert ledger.shown + ledger.skipped == ledger.offered == 10  # a busy machine skips


# ---- ways that end


def hang_up(server: OddServer) -> None:
    """End every connection there is."""
    for visit in server.visits:
        if not visit.closed:
            visit.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_a_connection_that_ended_is_opened_again_to_the_same_sources(way: Any) -> None:
    """The server has the same SSRCs, numbers and timestamps again, as cameras have."""
    given: Any = {"video_over": way, "audio_over": way}
    with OddServer() as server, avlab.Client(server.url, audio="null", reconnect=True, **given) as client:
        for times in (1, 2):
            goes_on(client, 20)
            hang_up(server)
            until(lambda times=times: is_back(client, times))  # type: ignore[misc]
        goes_on(client, 20)
    one_timeline(client.trace)
    assert breaks(client.trace) == 2 * ["connection lost", "connection back"]
    assert len(set(client.trace.packets["ssrc"])) == 2


def test_a_relay_that_was_gone_is_there_again() -> None:
    with OddServer() as server:
        relay = avlab.Relay(f"127.0.0.1:{server.port}", port=ports.free()).start()
        url = f"{relay.url}/odd" if relay.url.count("/") < 3 else relay.url
        with avlab.Client(url, audio="null", reconnect=True) as client:
            goes_on(client)
            relay.stop()
            until(lambda: said(client, "the stream broke off"))
            with avlab.Relay(f"127.0.0.1:{server.port}", port=port_of(relay.url + "/")):
                until(lambda: is_back(client))
                goes_on(client)
    one_timeline(client.trace)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is asked after half a second of silence whether it is there."""
    for name in ("SILENCE_NS", "ANSWER_NS"):
        monkeypatch.setattr(rtsp_receiver, name, NS // 2)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_answers_no_more_is_left_and_asked_anew() -> None:
    with (
        OddServer({"GET_PARAMETER": lambda asked: b""}) as server,
        avlab.Client(server.url, audio="null", reconnect=True) as client,
    ):
        goes_on(client)
        for visit in server.visits:
            visit.ways.clear()  # nothing more is sent, and the connection stays
        until(lambda: said(client, "it does not answer any more"))
        until(lambda: is_back(client))
        goes_on(client)
    one_timeline(client.trace)


# ---- servers that come back otherwise


CHALLENGE = 'WWW-Authenticate: Digest realm="r", nonce="n"'


def test_a_password_that_is_wrong_when_the_server_is_back_ends_it_with_a_sentence(tmp_path: Path) -> None:
    file = users_file(tmp_path, ann="secret")
    with serving(ports.free(), "--users", file) as first:
        url = first.url.replace("//", "//ann:secret@")
        client = avlab.Client(url, audio="null", reconnect=True).start()
        goes_on(client)
        first.process.kill()
    with serving(port_of(first.url), "--users", users_file(tmp_path, ann="another")):
        with pytest.raises(ConnectionError, match=r"does not come back: .* does not accept the user name .* \(401\)"):
            client.wait(60)
        client.stop()
        assert not client.running
    assert "secret" not in " ".join(client.notices)


def test_a_server_that_wants_a_password_of_a_sudden_is_asked_once() -> None:
    with OddServer() as server, avlab.Client(server.url, audio="null", reconnect=True) as client:
        goes_on(client)
        before = len(server.asked)
        server.guard = lambda asked: reply(asked, CHALLENGE, status="401 Unauthorized")
        hang_up(server)
        with pytest.raises(ConnectionError, match="wants a user name and a password"):
            client.wait(60)
        assert [asked.method for asked in server.asked[before:]] == ["OPTIONS", "DESCRIBE"]


def test_a_stream_that_is_not_there_yet_is_waited_for_and_said() -> None:
    def not_yet(asked: Asked) -> bytes:
        return reply(asked, status="404 Not Found")

    with OddServer() as server, avlab.Client(server.url, audio="null", reconnect=True) as client:
        goes_on(client)
        server.guard = not_yet
        hang_up(server)
        until(lambda: said(client, "404 Not Found"))
        server.guard = lambda asked: None
        until(lambda: is_back(client))
        goes_on(client)
    one_timeline(client.trace)


@pytest.mark.slow
def test_a_server_comes_back_with_other_codecs() -> None:
    """Pictures are decoded as what they are now; sound that the device is not open for is left out, and said."""
    with serving(ports.free()) as first:
        client = avlab.Client(first.url, audio="null", reconnect=True).start()
        goes_on(client)
        first.process.kill()
    with client:
        for options in (("--codec", "h264", "--audio-codec", "opus"), ()):
            with serving(port_of(first.url), *options) as next_one:
                until(lambda: len(said(client, "the stream is back")) >= 1 and shown(client) > 0)
                goes_on(client)
                until(lambda: client.status() != "no connection, trying again")
                next_one.process.kill()
            until(lambda: client.status() == "no connection, trying again")
    assert metrics.frame_ledger(client.trace).closes
    assert said(client, "back with other sound, of 48,000 Hz and 2 channels")
    assert client.error is None


# ---- stopping


def test_stop_ends_a_client_that_waits_for_its_server() -> None:
    with OddServer() as server:
        client = avlab.Client(server.url, audio="null", reconnect=True).start()
        goes_on(client)
    until(lambda: said(client, "nothing listens"))
    client.stop(timeout=10)
    assert client.error is None
    one_timeline(client.trace)
    assert breaks(client.trace) == ["connection lost"]


def test_stop_ends_a_client_in_the_middle_of_a_dialogue() -> None:
    with OddServer() as server, avlab.Client(server.url, audio="null", reconnect=True, timeout=600) as client:
        goes_on(client)
        asked = len(server.asked)
        server.guard = lambda each: b" "  # as good as no answer
        hang_up(server)
        until(lambda: len(server.asked) > asked)
        client.stop(timeout=20)
        assert client.error is None


# ---- as it is asked for


def test_the_classic_wire_does_not_come_back() -> None:
    with pytest.raises(ValueError, match="reconnect=True cannot be had: the classic wire"):
        avlab.Client("classic://127.0.0.1:9688", reconnect=True)


def test_what_is_no_yes_or_no_is_refused() -> None:
    with pytest.raises(ValueError, match="reconnect must be True or False, not 'always'"):
        avlab.Client("rtsp://127.0.0.1:9/x", reconnect="always")  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_command_comes_back_and_says_so() -> None:
    options = "--no-window", "--audio", "null", "--reconnect", "--seconds", "600"
    with serving(ports.free()) as first, commands.running("play", first.url, *options) as player:
        time.sleep(1.0)
        first.process.kill()
        assert player.process.stderr is not None
        lines = [player.process.stderr.readline() for _ in range(2)]
        with serving(port_of(first.url)):
            lines.append(player.process.stderr.readline())
            code, out, _ = player.end()
    assert code == 130
    assert "broke off" in lines[0]
    assert "nothing listens" in lines[1]
    assert "is back at" in lines[2]
    assert "shown" in out
