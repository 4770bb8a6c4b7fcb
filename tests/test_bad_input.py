"""What goes wrong at the command line: one sentence that names the thing, an exit code, and no record is lost."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import commands
import numpy as np
import ports
import pytest
from commands import running, sentence
from rawclient import RawClient, until

import avlab
from avlab import cli
from avlab.lab.window import NoWindowError, check_display
from avlab.measure.numbers import metrics
from avlab.media import synth
from avlab.stream.playing.tap import Received

pytestmark = pytest.mark.slow

QUIET = ("--no-window", "--audio", "null")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture and sound at 15 fps."""
    return synth.write(synth.constant("two.mp4", 15, 2), tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "notes.mp4"
    path.write_text("This is no clip.\n" * 100)
    return path


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on, and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def free() -> int:
    """A port that nobody listens on."""
    return ports.free()


def failed(*arguments: object) -> str:
    """Run a command that fails; its sentence."""
    done = commands.run(*arguments)
    assert done.returncode == 1, done
    assert done.stdout == ""
    return sentence(done.stderr)


def here(*arguments: object) -> int:
    """Run a command that fails at once in this very process, which is quicker; its exit code."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return cli.main([str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("command", ["probe", "serve", "demo"])
def test_a_file_that_is_not_there(command: str, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out") if command == "demo" else ()
    said = failed(command, tmp_path / "nowhere.mp4", *out)
    assert str(tmp_path / "nowhere.mp4") in said


@pytest.mark.parametrize("command", ["probe", "serve"])
def test_a_file_that_is_no_clip(command: str, text: Path) -> None:
    assert "notes.mp4" in failed(command, text)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--width", 0, "width must be a whole number from 16 to 2040"),
        ("--quality", 101, "quality must be a whole number from 1 to 100"),
        ("--port", 70_000, "port must be 0 (any free one) to 65535, not 70000"),
        ("--host", "192.0.2.1", "192.0.2.1 is not an address of this machine"),
        ("--trace", "/nowhere/at/all.avtrace", "the trace cannot be saved in /nowhere/at/all.avtrace"),
    ],
)
def test_settings_that_cannot_be(
    short: Path, option: str, value: object, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("serve", short, option, value) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert words in sentence(said.err)


def test_a_port_in_use(short: Path, taken: int) -> None:
    said = failed("serve", short, "--port", taken)
    assert said == f"port {taken} on 127.0.0.1 is in use: stop what listens there, or choose another port"


PLAYS = [
    (
        "ftp://127.0.0.1:80/",
        "'ftp://127.0.0.1:80/' is no address to play: write it as rtsp://host:port/path, http://host:port/path for a "
        "camera that sends JPEG, or the name of a session description (session.sdp)",
    ),
    ("rtsps://ada:secret@camera/live", "camera/live' is no address to play: write it as rtsp://host:port/path, http"),
    ("rtp://239.255.1.1:5004", "or the name of a session description (session.sdp)"),
    ("http:/camera/stream", "'http:/camera/stream' is no address to play"),
    ("http://127.0.0.1:9/", "nothing listens at 127.0.0.1:9: start the server first, or check the port"),
    ("http://127.0.0.1:99999/x", "is no address to play: write it as http://host:port/path"),
    ("count.mp4", "'count.mp4' is a file, and a client plays an address: serve it"),
    ("/films/A Film.MKV", "'/films/A Film.MKV' is a file, and a client plays an address"),
    ("server.local", "'server.local' is no address to play: write it as rtsp://host:port/path"),
    ("rtsp://127.0.0.1:99999/x", "is no address to play"),
    ("rtsp://", "'rtsp://' is no address to play"),
]


@pytest.mark.parametrize(("url", "words"), PLAYS)
def test_what_cannot_be_played(url: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("play", url, *QUIET, "--json") == 1
    said = capsys.readouterr()
    assert words in sentence(said.err)
    assert json.loads(said.out)["error"] == sentence(said.err)


def failed_play(url: str, *options: object) -> str:
    """Play what cannot be played, with --json: its sentence, which is the line's `error`, too."""
    done = commands.run("play", url, *QUIET, "--json", *options)
    assert done.returncode == 1, done
    assert done.stdout.count("\n") == 1
    said = sentence(done.stderr)
    line = json.loads(done.stdout)
    assert line["error"] == said
    assert line["shown"] is None
    return said


def test_nothing_listens(free: int) -> None:
    words = f"nothing listens at 127.0.0.1:{free}: start the server first, or check the port"
    assert failed_play(f"rtsp://127.0.0.1:{free}/x") == words


def test_a_host_that_does_not_answer(taken: int) -> None:
    words = f"the server at 127.0.0.1:{taken} does not answer OPTIONS within 5 s: is it an RTSP server?"
    assert failed_play(f"rtsp://127.0.0.1:{taken}/x") == words


def test_a_server_of_another_kind() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>")

        thread = threading.Thread(target=serve)
        thread.start()
        said = failed_play(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x")
        thread.join(10)
    assert "is no RTSP server" in said


def test_a_server_that_hangs_up() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        client = avlab.Client(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x", audio="null")
        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:\d+ (hung up|broke off) instead of answering OPTIONS"):
            client.start()
        thread.join(10)


def test_no_display_for_a_window() -> None:
    done = commands.run("play", "rtsp://127.0.0.1:9/x", "--window", "--audio", "null")
    assert done.returncode == 1
    assert "no display" in sentence(done.stderr)
    assert "--no-window" in done.stderr


def test_without_a_display_no_window_is_meant(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(NoWindowError):
        check_display()
    done = commands.run("play", f"rtsp://127.0.0.1:{free}/x", "--audio", "null")
    assert "nothing listens" in sentence(done.stderr)


def test_a_server_that_is_killed_in_mid_stream(short: Path, tmp_path: Path) -> None:
    saved = tmp_path / "client.avtrace"
    with (
        running("serve", short, "--port", 0, "--loop") as server,
        running("play", server.url, *QUIET, "--trace", saved) as player,
        RawClient(server.url) as beside,
    ):
        beside.set_up("audio", "RTP/AVP/TCP;unicast;interleaved=0-1")
        beside.ask("PLAY")
        until(lambda: beside.read() and len(beside.packets) > 50)  # what it was sent, the player was sent
        server.process.kill()
        code, out, complaints = player.wait()
    assert code == 1
    assert "shown" in out
    said = sentence(complaints)
    assert re.fullmatch(
        r"the server at 127\.0\.0\.1:\d+ closed the connection in mid-stream: "
        r"see whether it still runs, then play again",
        said,
    )
    trace = avlab.Trace.load(saved)
    assert metrics.packet_ledger(trace, "audio").received > 50
    assert metrics.frame_ledger(trace, "audio").closes
    assert metrics.frame_ledger(trace).closes


def test_a_server_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stands, nothing comes, and the server says that it is there: no error, and a notice says so."""
    from avlab.stream.rtsp import receiver as rtsp_receiver

    monkeypatch.setattr(rtsp_receiver, "SILENCE_NS", 300_000_000)
    monkeypatch.setattr(rtsp_receiver, "ANSWER_NS", 300_000_000)
    monkeypatch.setattr(rtsp_receiver, "LONG_SILENCE_NS", 300_000_000)
    source = (picture for picture in [synth.draw(0, 0.0, "x", None)] * 5)

    def then_nothing() -> Iterator[object]:
        yield from source
        stuck.wait(60)

    stuck = threading.Event()
    with avlab.Server(then_nothing(), fps=60) as server:
        client = avlab.Client(server.url, audio="null").start()
        until(lambda: any(words.startswith("no pictures for") for words in client.notices))
        assert not client.wait(2)
        stuck.set()
        assert client.wait(60)  # the end of the source is the end
        client.stop()
    assert metrics.frame_ledger(client.trace).shown > 0


def test_a_clip_that_is_cut_short(data: Path, tmp_path: Path) -> None:
    """All that is there is played; the player ends well, the server says what is wrong with its clip."""
    whole = (data / "count-15.mp4").read_bytes()
    cut, saved = tmp_path / "cut.mp4", tmp_path / "server.avtrace"
    cut.write_bytes(whole[: len(whole) * 2 // 5])
    with running("serve", cut, "--port", 0, "--trace", saved) as server:
        play = commands.run("play", server.url, *QUIET, "--json")
        code, _, complaints = server.wait()
    assert (play.returncode, json.loads(play.stdout)["error"]) == (0, None)
    assert code == 1
    assert re.search(r"cut\.mp4.* stops after .* copy or download it again", sentence(complaints))
    assert len(avlab.Trace.load(saved).frames) > 20


def test_the_trace_is_not_refused_after_the_stream(free: int, tmp_path: Path) -> None:
    """A place where nothing can be saved is noticed before anything is streamed."""
    for place in (tmp_path, tmp_path / "no" / "run.avtrace"):
        said = failed_play(f"rtsp://127.0.0.1:{free}/x", "--trace", place)
        assert said == f"the trace cannot be saved in {place}: name a file in a folder that is there"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"video_over": "x"}, "video_over must be 'udp', 'tcp' or 'multicast'"),
        ({"audio_over": "both"}, "audio_over must be 'udp', 'tcp' or 'multicast'"),
        ({"audio": "loud"}, "audio must be 'auto', 'speaker' or 'null'"),
        ({"playout_delay": "a"}, "playout_delay must be 0 to 5 seconds"),
    ],
)
def test_a_client_refuses_settings_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        avlab.Client("rtsp://127.0.0.1:9/x", **wrong)


def test_values_of_the_wrong_kind_get_a_sentence() -> None:
    with pytest.raises(TypeError, match="a client plays an address"):
        avlab.Client(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="join takes two traces, not int and int"):
        avlab.join(1, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no pictures to stream"):
        avlab.Server([])
    with pytest.raises(TypeError, match="wrap it"):
        avlab.Server([np.zeros((16, 16, 3), np.uint8)], pacer=avlab.tutorial_rule)  # type: ignore[arg-type]


def test_a_picture_shows_itself_in_a_line() -> None:
    assert repr(Received(b"\xff" * 10_000, 1.5)) == "Received(pts=1.5, captured=None)"


def test_plots_that_cannot_be_kept_are_refused_before_streaming(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    done = commands.run("demo", "--seconds", 1, "--out", tmp_path / "taken", "--audio", "null")
    assert done.returncode == 1
    assert "name another folder with --out" in sentence(done.stderr)
