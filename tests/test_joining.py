"""Joining a server that asks who comes: by a class's code or as a user, over a relay, with anyone's player."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import tools
from rawclient import RawClient, until

import avlab
from avlab.stream.invitation import Invitation
from avlab.stream.rtsp.dialogue import RefusedError
from avlab.wire.digest import Credentials, secret_of

PICTURES = [np.full((48, 64, 3), 2 * number, np.uint8) for number in range(100)]


@contextlib.contextmanager
def serving(**settings: Any) -> Iterator[avlab.Server]:
    """A server of pictures on this machine alone."""
    with avlab.Server(PICTURES, fps=25, loop=True, **({"host": "127.0.0.1"} | settings)) as server:
        yield server


def shown(url: str, **settings: Any) -> avlab.Client:
    """A client that has shown a few pictures, and has stopped."""
    with avlab.Client(url, audio="null", **settings) as client:
        until(lambda: (client.trace.frames["fate"] == "shown").sum() >= 3)
    return client


def users_file(folder: Path, **passwords: str) -> Path:
    path = folder / "users"
    path.write_text("".join(f"{user}:lab:{secret_of(user, 'lab', word)}\n" for user, word in passwords.items()))
    path.chmod(0o600)
    return path


def answer_to(raw: RawClient, credentials: Credentials, method: str, path: str = "", **headers: str) -> Any:
    """One request with credentials, as far as there is a challenge to answer."""
    told = credentials.header(method, raw.url + path, cnonce="c")
    answer = raw.ask(method, path, **headers, **({} if told is None else {"Authorization": told}))
    if answer.status == 401:
        credentials.take(answer.headers["WWW-Authenticate"], answered=False)
    return answer


# ---- a class's code


def test_a_class_joins_by_its_code_and_nobody_else() -> None:
    with serving(class_code=True) as server:
        code = server.class_code
        assert len(code) == 6
        shown(server.url, class_code=f" {code[:3].lower()}-{code[3:]} ")
        shown(server.url.replace("//", f"//class:{code}@"))
        wrong = "BBBBBB" if code != "BBBBBB" else "CCCCCC"
        with pytest.raises(RefusedError, match=r"does not accept .* or the code \(401\)"):
            avlab.Client(server.url, class_code=wrong).start()
        with pytest.raises(RefusedError, match=r"wants a user name and a password \(401\).*class_code="):
            avlab.Client(server.url).start()
        events = server.trace.settings
    assert any("wrong" in str(value) for value in events["value"])
    assert not any(code in str(value) for value in events["value"])


def test_a_code_is_drawn_at_each_start_and_shown_only_to_who_asks_for_it() -> None:
    codes = []
    for _ in range(2):
        server = avlab.Server(PICTURES, fps=25, class_code=True, host="127.0.0.1")
        assert server.class_code == ""
        with server:
            codes.append(server.class_code)
            told = server.invitation()
            assert server.class_code in str(told)
            seen = [repr(server), repr(told), server.url, server.status(), str(server.trace.meta), *server.notices]
            seen.append(str(server.trace.settings))
        assert not any(codes[-1] in text for text in seen)
    assert codes[0] != codes[1]


def test_five_wrong_codes_and_the_address_is_not_heard() -> None:
    with serving(class_code=True) as server, RawClient(server.url) as raw:
        with RawClient(server.url) as joined:
            good = Credentials("class", server.class_code)
            answer_to(joined, good, "DESCRIBE")
            assert answer_to(joined, good, "DESCRIBE").status == 200
            bad = Credentials("class", "x")
            statuses = [answer_to(raw, bad, "DESCRIBE").status for _ in range(7)]
            assert statuses == [401] * 6 + [403]
            assert answer_to(joined, good, "DESCRIBE").status == 200  # who is in stays in
        with pytest.raises(RefusedError, match="403 5 wrong guesses came from this address, wait a minute"):
            avlab.Client(server.url, class_code=server.class_code).start()


def test_every_request_but_options_is_challenged() -> None:
    with serving(class_code=True) as server, RawClient(server.url) as raw:
        assert raw.ask("OPTIONS").status == 200
        asked = [
            ("SETUP", "/video"),
            ("PLAY", ""),
            ("PAUSE", ""),
            ("GET_PARAMETER", ""),
            ("TEARDOWN", ""),
            ("DESCRIBE", ""),
        ]
        for method, path in asked:
            answer = raw.ask(method, path, Transport="RTP/AVP/TCP;interleaved=0-1")
            assert answer.status == 401, method
            assert "Digest" in answer.headers["WWW-Authenticate"]
        assert [name for name, _ in answer.headers.lines()].count("WWW-Authenticate") == 2
        good = Credentials("class", server.class_code)
        good.take(answer.headers["WWW-Authenticate"], answered=False)
        assert answer_to(raw, good, "SETUP", "/video", Transport="RTP/AVP/TCP;interleaved=0-1").status == 200
        assert answer_to(raw, good, "PLAY").status == 200
        assert raw.ask("PAUSE").status == 401  # to have joined once is not enough: a connection may be taken over
        assert answer_to(raw, good, "TEARDOWN").status == 200


def test_a_class_code_opens_to_the_network_and_leaves_a_host_that_is_given() -> None:
    with avlab.Server(PICTURES, fps=25, class_code=True) as server, RawClient(server.url) as raw:
        assert raw.ask("OPTIONS").status == 200
        invitation = server.invitation()
        assert invitation.links == [
            each.replace("//", f"//class:{server.class_code}@") for each in invitation.addresses
        ]
    with serving(class_code=True) as server:
        assert server.invitation().addresses == [server.url]


@pytest.mark.parametrize("refused", [{"class_code": True}, {"users": "users"}])
def test_the_classic_wire_asks_nobody(refused: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is the rtsp and http wires': nobody can be asked for a password"):
        avlab.Server(PICTURES, fps=25, wire="classic", **refused)


@pytest.mark.parametrize(
    ("url", "settings", "error"),
    [
        ("classic://127.0.0.1:9", {"class_code": "BCDFGH"}, ValueError),
        ("rtsp://127.0.0.1:9/x", {"class_code": "BCDFG"}, ValueError),
        ("rtsp://127.0.0.1:9/x", {"class_code": "BCDFG7"}, ValueError),
        ("rtsp://127.0.0.1:9/x", {"class_code": True}, TypeError),
        ("rtsp://ann:secret@127.0.0.1:9/x", {"class_code": "BCDFGH"}, ValueError),
    ],
)
def test_what_cannot_be_a_code_is_said(url: str, settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"class_code|class code") as caught:
        avlab.Client(url, **settings)
    assert "BCDFG" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_cannot_be_a_servers_code_is_said() -> None:
    with pytest.raises(TypeError, match="class_code must be True or False"):
        avlab.Server(PICTURES, class_code="BCDFGH")  # type: ignore[arg-type]


# ---- users


def test_users_of_a_file_join_with_their_passwords(tmp_path: Path) -> None:
    file = users_file(tmp_path, ann="sec:ret@/ 1", bob="other")
    with serving(users=file) as server:
        shown(server.url.replace("//", "//ann:sec%3Aret%40%2F%201@"))
        for login in ("ann:other", "carl:other", "class:BCDFGH"):
            with pytest.raises(RefusedError, match="401"):
                avlab.Client(server.url.replace("//", f"//{login}@")).start()


def test_users_and_a_class_join_the_same_server(tmp_path: Path) -> None:
    with serving(users=users_file(tmp_path, ann="secret"), class_code=True) as server:
        shown(server.url.replace("//", "//ann:secret@"))
        shown(server.url, class_code=server.class_code)


def test_a_file_of_users_that_others_can_read_is_refused_before_anything_starts(tmp_path: Path) -> None:
    file = users_file(tmp_path, ann="secret")
    file.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        avlab.Server(PICTURES, fps=25, users=file)


def test_no_password_is_in_a_record_a_capture_or_a_file(tmp_path: Path) -> None:
    capture, saved = [tmp_path / f"{side}.pcapng" for side in ("server", "client")], tmp_path / "client.avtrace"
    with serving(users=users_file(tmp_path, ann="topsecret"), capture=capture[0]) as server:
        client = shown(server.url.replace("//", "//ann:topsecret@"), capture=capture[1])
        client.trace.save(saved)
        seen = [repr(server), repr(client), client.url, str(client.trace.meta), str(server.trace.settings)]
    assert not any("topsecret" in text or "ann:" in text for text in seen)
    for file in (*capture, saved):
        data = file.read_bytes()
        assert b"topsecret" not in data
        assert b"response=" not in data  # from which a password can be guessed at leisure


# ---- a relay between, a server in another process


def test_rtsp_over_a_relay_joins_as_well() -> None:
    with serving(class_code=True) as server, avlab.Relay(server.url) as relay:
        shown(relay.url, class_code=server.class_code)
        with pytest.raises(RefusedError, match="401"):
            avlab.Client(relay.url, class_code="BBBBBB").start()


@pytest.mark.slow
def test_an_isolated_server_draws_a_code_of_its_own(tmp_path: Path) -> None:
    with serving(isolated=True, class_code=True, users=users_file(tmp_path, ann="secret")) as server:
        code = server.class_code
        assert code in str(server.invitation())
        shown(server.url, class_code=code)
        shown(server.url.replace("//", "//ann:secret@"))
        with pytest.raises(RefusedError, match="401"):
            avlab.Client(server.url).start()
    assert server.class_code == code


# ---- others' players


@pytest.fixture
def class_server(data: Path) -> Iterator[avlab.Server]:
    with avlab.Server(data / "count-15.mp4", width=320, class_code=True, host="127.0.0.1") as server:
        yield server


@pytest.mark.slow
@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_ffmpeg_joins_with_the_code(class_server: avlab.Server, transport: str) -> None:
    url = class_server.invitation().links[0]
    quiet = ["ffmpeg", "-hide_banner", "-loglevel", "warning", "-rtsp_transport", transport]
    command = [*quiet, "-i", url, "-map", "0:v", "-frames:v", "10", "-c", "copy", "-f", "framecrc", "-"]
    lines = tools.run(*command).splitlines()
    assert len([line for line in lines if not line.startswith("#")]) == 10
    failed = tools.finished(*quiet, "-i", class_server.url, "-f", "null", "-")
    assert failed.returncode != 0
    assert "401" in failed.stderr


@pytest.mark.slow
@pytest.mark.needs("gst-launch-1.0", "gst:rtspsrc", "gst:rtpjpegdepay", "gst:multifilesink")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_gstreamer_joins_with_the_code(class_server: avlab.Server, tmp_path: Path, transport: str) -> None:
    def play(url: str) -> None:
        tools.gst_launch(
            f"rtspsrc location={url} protocols={transport} latency=1000 name=s "
            f"s. ! rtpjpegdepay ! multifilesink location={tmp_path}/%05d.jpg s. ! rtpL16depay ! fakesink"
        )

    play(class_server.invitation().links[0])
    # That none is missing is for test_peers: over UDP a busy machine may lose one.
    assert len(list(tmp_path.glob("*.jpg"))) >= (75 if transport == "tcp" else 60)
    with pytest.raises((RuntimeError, subprocess.CalledProcessError, AssertionError)):
        play(class_server.url)


# ---- the command line


@pytest.mark.slow
def test_the_command_line_opens_a_class_and_joins_it(data: Path) -> None:
    with tools.started(
        *commands.command("serve", data / "count.mp4", "--class", "--host", "127.0.0.1", "--port", 0, "--seconds", 60)
    ) as serve:
        assert serve.stdout is not None
        said = [serve.stdout.readline().strip() for _ in range(5)]
        url = said[0].rpartition(" ")[2]
        code = said[1].removeprefix("class code: ")
        assert said[2] == f"join with avlab: avlab play {url} --code {code}"
        assert said[3] == f"join with any other player: {url.replace('//', f'//class:{code}@')}"
        options = ["--no-window", "--audio", "null", "--seconds", "1"]
        assert commands.run("play", url, "--code", code, *options).returncode == 0
        refused = commands.run("play", url, *options)
        assert refused.returncode == 1
        assert "avlab play --code" in refused.stderr


def test_what_the_command_line_refuses(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from avlab.cli import main

    clip = str(data / "count.mp4")
    file = users_file(tmp_path, ann="secret")
    file.chmod(0o640)
    for arguments, said in (
        (["serve", clip, "--wire", "classic", "--class"], "class_code is the rtsp and http wires'"),
        (["serve", clip, "--users", str(file)], "is open to others (mode 640)"),
        (["serve", clip, "--users", str(tmp_path / "none")], "there is no file of users at"),
        (["play", "rtsp://127.0.0.1:9/x", "--no-window", "--code", "topsec1"], "a class code has 6 letters"),
        (
            ["play", "classic://127.0.0.1:9", "--no-window", "--code", "BCDFGH"],
            "the classic wire asks nobody for a code",
        ),
    ):
        assert main(arguments) == 1
        told = capsys.readouterr().err
        assert said in commands.sentence(told)
        assert "topsec" not in told


# ---- invitations


def test_an_invitation_has_the_code_and_a_picture_of_it_that_is_dark_on_light() -> None:
    told = Invitation("rtsp://127.0.0.1:8554/a%3Cb%3E", "127.0.0.1", "BCDFGH")
    assert told.links == ["rtsp://class:BCDFGH@127.0.0.1:8554/a%3Cb%3E"]
    assert "BCDFGH" in str(told)
    assert "BCDFGH" not in repr(told)
    page = told._repr_html_()
    assert page.count("<svg") == 1
    assert 'fill="#fff"' in page
    rows = told.qr().splitlines()
    assert len({len(row) for row in rows}) == 1
    assert not "".join(rows[:2]).strip()  # four light modules around
    assert rows[2][4:11] == "\u2588\u2580\u2580\u2580\u2580\u2580\u2588"  # the corner by which a camera finds it
    assert all(
        line.startswith("\x1b[30;107m") and line.endswith("\x1b[0m") for line in told.qr(colours=True).splitlines()
    )


def test_the_picture_says_the_link() -> None:
    cv2 = pytest.importorskip("cv2")
    told = Invitation("rtsp://192.168.1.20:8554/count", "192.168.1.20", "BCDFGH")
    dark = {" ": (0, 0), "\u2580": (1, 0), "\u2584": (0, 1), "\u2588": (1, 1)}
    columns = [[dark[each] for each in row] for row in told.qr().splitlines()]
    modules = np.array([[cell[half] for cell in row] for row in columns for half in (0, 1)], np.uint8)
    picture = np.kron(255 * (1 - modules), np.ones((8, 8), np.uint8)).astype(np.uint8)
    text, *_ = cv2.QRCodeDetector().detectAndDecode(picture)
    assert text == told.links[0]


def test_an_invitation_without_a_code_is_the_address_alone() -> None:
    told = Invitation("rtsp://[::1]:8554/count", "::1")
    assert told.links == told.addresses == ["rtsp://[::1]:8554/count"]
    assert told.lines == ["play it: avlab play rtsp://[::1]:8554/count"]
