"""What peers and files say reaches a person as text, and never a terminal as a command; in whatever it is written."""

from __future__ import annotations

import errno
import inspect
import os
import re
import shutil
import socket
import subprocess
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import commands as command_line
import pytest
import tools
from hypothesis import given
from hypothesis import strategies as st

import avlab
from avlab.cli import main
from avlab.measure.record.trace import Recorder
from avlab.stream.handle import Handle
from avlab.wire.malformed import MALFORMED_RECORDED, MALFORMED_TOLD, MalformedCount
from avlab.wire.text import MOST_CHARACTERS, MOST_NOTICES, Notices, printable, tidied
from avlab.wire.units import WireError

EVIL = "\x1b]0;x\x07"
SHAPES = [EVIL, "\x1b[2J", "\x9b31m", "\u202egpj.exe", "\x08\x08\x7f", "\x0e\u2066"]


def commands(text: str) -> list[str]:
    """The characters of a text that a terminal acts on, but for line breaks."""
    return [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@given(st.text(max_size=300), st.integers(3, 200), st.booleans())
def test_nothing_that_is_printable_commands_a_terminal(text: str, most: int, lines: bool) -> None:
    said = printable(text.replace("\u200c", "").replace("\u200d", ""), most=most, lines=lines)
    assert commands(said) == []
    assert len(said) <= most
    assert lines or "\n" not in said
    assert printable(said, most=most, lines=lines) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("count.mp4", "count.mp4"),
        ("数える.mp4", "数える.mp4"),
        (EVIL, "\\x1b]0;x\\x07"),
        ("a\u202eb", "a\\u202eb"),
        ("a\x9b1mb", "a\\x9b1mb"),
        ("a\r\nb\tc\u2028d\u00a0e", "a  b c d e"),
        ("\udcff", "\\udcff"),
        ("\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}", "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}"),
        (None, "None"),
    ],
)
def test_what_was_there_can_be_seen(text: object, said: str) -> None:
    assert printable(text) == said


def test_it_is_bounded() -> None:
    assert printable("x" * 10_000_000) == "x" * (MOST_CHARACTERS - 3) + "..."
    assert len(printable("\x1b" * 10_000_000)) == MOST_CHARACTERS
    for further in (0, 1, 2, 1000):  # what is beyond the bound changes nothing
        text = "x" * (MOST_CHARACTERS + further)
        assert printable(text + EVIL) == "x" * (MOST_CHARACTERS - 3) + "..."


def test_an_error_that_quotes_a_peer_is_the_same_error_and_printable() -> None:
    error = ConnectionError(f"it says {EVIL}")
    assert tidied(error) is error
    assert str(error) == "it says \\x1b]0;x\\x07"
    refused = OSError(2, f"no {EVIL}", f"{EVIL}.mp4")
    assert commands(str(tidied(refused))) == []
    assert (refused.errno, tidied(KeyError(3)).args) == (2, (3,))


def test_notices_are_printable_each_once_and_bounded() -> None:
    notices = Notices()
    for number in range(2 * MOST_NOTICES):
        notices.add(f"{EVIL}{number}")
        notices.add(f"{EVIL}{number}")
    assert len(list(notices)) == MOST_NOTICES
    assert commands("".join(notices)) == []


def test_what_a_worker_fails_of_is_printable() -> None:
    class Quoting(Handle):
        def _begin(self) -> None:
            def body(_worker: object) -> None:
                raise ValueError(f"it sent {EVIL}")

            self.spawn("quoting", body)

    with pytest.raises(ValueError, match=re.escape("it sent \\x1b]0;x\\x07")), Quoting() as handle:
        handle.wait(5)


# ---- a server that says it in every place

_DESCRIPTION = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns={name}\r\ni={info}\r\nt=0 0\r\na=control:*\r\n"
    "m=video 0 RTP/AVP 26\r\na=control:0\r\na={attribute}\r\n"
    "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 {encoding}/8000\r\na=control:{control}\r\n"
)
_PLACES = (
    "reason",
    "name",
    "info",
    "attribute",
    "encoding",
    "control",
    "session",
    "transport",
    "server",
    "base",
    "cut",
)


@contextmanager
def _saying(what: str, place: str, *, status: int = 200, refused: str = "") -> Iterator[str]:
    """A server that says `what` in a place, and answers a `refused` method with the status; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x"

    def put(name: str, usual: str) -> str:
        return f"{usual}{what}" if place == name else usual

    def answer(head: str) -> bytes:
        method = head.split(" ", 1)[0]
        found = re.search(r"CSeq: (\d+)", head)
        headers, body = [f"CSeq: {found[1] if found else 0}", f"Server: {put('server', 'it')}"], b""
        if method == "DESCRIBE":
            words = {"name": "clip", "info": "of it", "attribute": "x:y", "encoding": "L16", "control": "1"}
            body = _DESCRIPTION.format(**{name: put(name, usual) for name, usual in words.items()}).encode()
            headers += [f"Content-Base: {put('base', url + '/')}", "Content-Type: application/sdp"]
            headers.append(f"Content-Length: {len(body)}")
        elif method == "SETUP":
            asked = re.search(r"Transport: ([^\r]*)", head)
            headers += [f"Transport: {put('transport', asked[1] if asked else '')};server_port=9-10"]
            headers += [f"Session: {put('session', '1')}"]
        code = status if method == refused or not refused else 200
        start = f"RTSP/1.0 {code} {put('reason', 'No')}" if place != "cut" else what
        return "\r\n".join([start, *headers, "", ""]).encode() + body

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    data = b""
                    while more := connection.recv(65_536):
                        data += more
                        while b"\r\n\r\n" in data:
                            head, _, data = data.partition(b"\r\n\r\n")
                            connection.sendall(answer(head.decode(errors="replace")))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield url
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize(
    ("place", "status", "refused"),
    [
        *((place, 200, "") for place in _PLACES),
        ("reason", 404, "DESCRIBE"),
        ("reason", 461, "SETUP"),
        ("reason", 503, "PLAY"),
        ("reason", 401, "DESCRIBE"),
    ],
)
def test_play_prints_nothing_of_a_server_that_commands_a_terminal(
    place: str, status: int, refused: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    if place == "cut":  # what comes is no answer, and is told when the time for one is over
        monkeypatch.setitem(inspect.unwrap(avlab.Client.__init__).__kwdefaults__, "timeout", 1.0)
    for what in SHAPES[:2]:
        with _saying(what, place, status=status, refused=refused) as url:
            # Over UDP and nothing else: the server sends nothing at all, and TCP would only be tried after a while.
            main(["play", url, "--audio", "null", "--no-window", "--seconds", "0.2", "--video-over", "udp"])
            client = avlab.Client(url, audio="null", video_over="udp")  # as in a script or a notebook
            try:
                client.start()
                said += [*client.notices, repr(client), repr(client.trace)]
                client.stop()
            except (OSError, ValueError, RuntimeError) as error:
                said.append(str(error))
    out, err = capfd.readouterr()
    assert commands("".join((out, err, *said))) == []
    assert out + err


@pytest.mark.parametrize("what", SHAPES)
@pytest.mark.parametrize("place", ["reason", "name", "base"])
def test_a_relay_says_nothing_that_commands_a_terminal(place: str, what: str) -> None:
    refused = "DESCRIBE" if place == "reason" else ""
    with _saying(what, place, status=454, refused=refused) as url, avlab.Relay(url) as relay:
        with suppress(OSError, ValueError, RuntimeError):
            avlab.Client(relay.url, audio="null", timeout=1).start().stop()
        assert commands("".join(relay.notices) + repr(relay) + relay.status()) == []


@pytest.mark.parametrize("what", ["\x1b]0;x\x07", "\x1b[2J", "\u202egpj", "\x9b31m"])
def test_a_file_whose_name_commands_a_terminal_is_named_without(
    what: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / f"clip{what}.mp4"
    shutil.copy(data / "count.mp4", clip)
    (tmp_path / f"no{what}.mp4").write_bytes(b"no clip")
    assert main(["probe", str(clip)]) == 0
    assert main(["probe", str(tmp_path / f"no{what}.mp4")]) == 1
    assert main(["probe", str(tmp_path / f"none{what}.mp4")]) == 1
    assert main(["serve", str(clip), "--port", "0", "--seconds", "0.1"]) == 0
    out, err = capfd.readouterr()
    assert commands(out + err) == []
    assert "clip" in out
    assert commands(repr(avlab.Server(clip)) + str(avlab.probe(clip))) == []


def test_a_trace_of_a_clip_whose_name_commands_a_terminal_is_named_without() -> None:
    recorder = Recorder(side="client", epoch_ns=0, clock="virtual:1")
    recorder.meta["clip"] = EVIL
    assert commands(repr(recorder.trace())) == []


def test_a_file_whose_name_is_no_utf8_is_probed(data: Path, tmp_path: Path) -> None:
    clip = os.fsencode(tmp_path) + b"/clip\xff.mp4"
    shutil.copy(data / "count.mp4", clip)
    done = subprocess.run(
        [*map(os.fsencode, command_line.command("probe")), clip],
        env=tools.environment(command_line.environment()),
        capture_output=True,
        timeout=tools.SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"clip\\udcff.mp4" in done.stdout


# ---- outputs that cannot say everything


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "cp437"},
    ],
    ids=str,
)
def test_a_clip_named_in_japanese_is_said_with_replacements(
    variables: dict[str, str], data: Path, tmp_path: Path
) -> None:
    clip = os.fsencode(shutil.copy(data / "count.mp4", tmp_path / "数える.mp4"))
    commands_run: list[list[bytes]] = [
        [b"probe", clip],
        [b"probe", clip + b"x"],
        [b"serve", clip, b"--port", b"0", b"--seconds", b"0.1"],
    ]
    if "cp1252" in variables.values() or "LANG" in variables:  # it takes its time, and prints like the others
        commands_run.append(
            [b"demo", clip, b"--seconds", b"1", b"--audio", b"null", b"--out", os.fsencode(tmp_path / "出力")]
        )
    codes = []
    for arguments in commands_run:
        done = subprocess.run(
            [*map(os.fsencode, command_line.command()), *arguments],
            env=tools.environment(command_line.environment() | variables),
            capture_output=True,
            timeout=tools.SECONDS,
            check=False,
            cwd=tmp_path,
        )
        said = done.stdout.decode("ascii", "replace") + done.stderr.decode("ascii", "replace")
        assert "Traceback" not in said, said
        assert "UnicodeEncodeError" not in said
        assert ".mp4" in said
        codes.append(done.returncode)
    assert codes == [0, 1, 0, 0][: len(codes)]
    assert len(codes) >= 3


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_what_the_system_says_without_descriptors_comes_with_what_to_do(number: int) -> None:
    assert "ulimit -n" in str(tidied(OSError(number, os.strerror(number))))
    assert tidied(OSError(number, "no process can be started: end others")).strerror == (
        "no process can be started: end others"
    )
    assert "ulimit" not in str(tidied(OSError(errno.ENOENT, os.strerror(errno.ENOENT))))
    assert str(tidied(FileNotFoundError("There is no file."))) == "There is no file."  # a sentence without a number


@pytest.mark.parametrize("evil", ["", *SHAPES])
@pytest.mark.parametrize(
    ("kind", "said"), [(WireError, ""), (ValueError, "ValueError: "), (IndexError, "IndexError: ")]
)
def test_of_what_a_peer_sends_malformed_much_is_counted_and_little_told(
    kind: type[Exception], said: str, evil: str
) -> None:
    count = MalformedCount()
    told = [count.add(kind(f"No {number}{evil}.")) for number in range(1, 500)]
    recorded = [each.record for each in told if each.record is not None]
    assert recorded == [f"{said}No {number}{evil}." for number in range(1, MALFORMED_RECORDED + 1)]
    (at,) = (at for at, each in enumerate(told, 1) if each.notice is not None)
    assert at == MALFORMED_TOLD
    assert told[at - 1].notice == f"{said}No {at}{printable(evil)}"
