"""A client and cameras that send JPEG in parts: a camera by hand, with what real ones do to HTTP and to parts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import ports
import pytest
import tools
from rawclient import until

from avlab.media.codec import decode_jpeg
from avlab.stream.client import Client
from avlab.stream.http.fetching import MAX_MOVES, HttpPlace
from avlab.wire.multipart import MAX_PART

pytestmark = pytest.mark.slow

LOGIN = b'WWW-Authenticate: Digest realm="cam", nonce="abc", qop="auth", algorithm=MD5\r\n'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"


def jpeg_of(grey: int) -> bytes:
    return cv2.imencode(".jpeg", np.full((48, 64, 3), grey, np.uint8))[1].tobytes()


JPEGS = [jpeg_of(grey) for grey in (40, 90, 140, 190)]
COUNTED = b"".join(
    b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg) for jpeg in JPEGS
)


class Camera:
    """Answers each request with what `answer(request)` gives, and closes; `asked` has the requests."""

    def __init__(self, answer: Callable[[bytes], bytes], *, context: ssl.SSLContext | None = None) -> None:
        self._answer, self._context = answer, context
        self.asked: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http{'s' * (context is not None)}://127.0.0.1:{self.port}/video.mjpg"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(60)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        line = connection if self._context is None else self._context.wrap_socket(connection, server_side=True)
        request = b""
        while b"\r\n\r\n" not in request:
            if not (data := line.recv(4096)):
                return
            request += data
        self.asked.append(request)
        line.sendall(self._answer(request))
        if self._context is not None:
            line.close()


def greys(url: str, **settings: object) -> list[int]:
    """How grey the pictures are that a client plays, to the end of the stream."""
    client = Client(url, **settings)  # type: ignore[arg-type]
    tap = client.presentation.tap(decides=False, waiting=200)  # before the first picture comes
    found: list[int] = []
    with client:
        assert client.wait(60)
        while (frame := tap.take(0)) is not None:
            assert frame.data is not None
            image = decode_jpeg(frame.data)
            assert image.shape == (48, 64, 3)
            found.append(round(image.mean() / 10) * 10)
    assert set(client.trace.frames["fate"]) <= {"shown"}
    return found


ALL = [40, 90, 140, 190]


def chunked(body: bytes, step: int = 700) -> bytes:
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace"


@pytest.mark.parametrize(
    "answer",
    [
        OK + COUNTED + b"--frame--\r\n",
        OK + COUNTED,
        OK.replace(b"1.1", b"1.0") + COUNTED,
        HEAD + b"; boundary=frame\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(COUNTED),
        HEAD + b"; boundary=frame\r\nContent-Length: %d\r\n\r\n" % len(COUNTED) + COUNTED,
        HEAD + b'; boundary="frame"\r\n\r\n' + COUNTED,
        HEAD + b"; boundary=--frame\r\n\r\n" + COUNTED,
        HEAD + b"\r\n\r\n" + COUNTED,
        HEAD + b"; boundary=other\r\n\r\n" + COUNTED,
        OK + b"Welcome to this camera.\r\n\r\n" + COUNTED,
        OK + b"".join(b"--frame\nContent-Type: image/jpeg\n\n%b\n" % jpeg for jpeg in JPEGS) + b"--frame\n",
        OK + b"--frame\r\nContent-Type: text/plain\r\n\r\nmotion\r\n" + COUNTED,
    ],
    ids=["ours", "no end", "1.0", "chunks", "length", "quotes", "hyphens", "none", "other", "preamble", "lf", "text"],
)  # fmt: skip
def test_cameras_are_played_however_they_send(answer: bytes) -> None:
    with Camera(lambda request: answer) as camera:
        assert greys(camera.url) == ALL
    assert camera.asked[0].startswith(b"GET /video.mjpg HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % camera.port)


def test_a_stream_that_is_cut_short_shows_what_came_and_says_so() -> None:
    with Camera(lambda request: OK + COUNTED[:-200]) as camera, Client(camera.url) as client:
        assert client.wait(60)
        assert client.trace.frames["fate"].tolist() == ["shown"] * 3
        assert any("in the middle of a picture" in words for words in client.notices)


def test_what_is_no_picture_and_what_is_too_large_is_passed_over() -> None:
    odd = b"--frame\r\nContent-Type: image/jpeg\r\n\r\nno JPEG\r\n"
    large = b"--frame\r\nContent-Length: %d\r\n\r\n" % (MAX_PART + 1) + bytes(MAX_PART + 1) + b"\r\n"
    with Camera(lambda request: OK + odd + large + COUNTED) as camera, Client(camera.url) as client:
        assert client.wait(60)
    assert client.trace.frames["fate"].tolist() == ["shown"] * 4
    assert any("passed over" in words for words in client.notices)
    assert "malformed packet" in client.trace.settings["name"].tolist()


def test_a_camera_of_which_some_pictures_are_none_is_said_to_be_so() -> None:
    odd = b"--frame\r\nContent-Type: image/jpeg\r\n\r\nno JPEG\r\n"
    with Camera(lambda request: OK + 5 * odd + COUNTED) as camera, Client(camera.url) as client:
        assert client.wait(60)
    assert ["as pictures cannot be read, and is passed over" in words for words in client.notices] == [True]


def test_a_user_and_a_password_are_told_by_digest() -> None:
    def answer(request: bytes) -> bytes:
        if b"Authorization: Digest" not in request:
            return b"HTTP/1.1 401 Unauthorized\r\n" + LOGIN + b"Content-Length: 2\r\n\r\nno"
        given = dict(part.strip().partition("=")[::2] for part in request.decode().partition("Digest ")[2].split(","))
        a1 = hashlib.md5(b"ada:cam:love lace").hexdigest()
        a2 = hashlib.md5(b"GET:/video.mjpg").hexdigest()
        told = ":".join([a1, "abc", given["nc"], given["cnonce"].split('"')[1], "auth", a2])
        right = hashlib.md5(told.encode()).hexdigest() in given["response"]
        return OK + COUNTED if right else b"HTTP/1.1 401 No\r\n" + LOGIN + b"\r\n"

    with Camera(answer) as camera:
        assert greys(camera.url.replace("//", "//ada:love%20lace@")) == ALL
        assert b"love" not in b"".join(camera.asked)
        for url, words in (
            (camera.url, "wants a user name"),
            (camera.url.replace("//", "//ada:wrong@"), "does not accept"),
        ):
            with pytest.raises(OSError, match=words) as caught:
                Client(url).start()
            assert "wrong" not in str(caught.value)


def test_a_password_is_sent_as_it_is_only_where_that_is_allowed() -> None:
    proof = b"Authorization: Basic " + base64.b64encode(b"ada:lovelace")

    def answer(request: bytes) -> bytes:
        return OK + COUNTED if proof in request else b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="cam"\r\n\r\n'

    with Camera(answer) as camera:
        login = camera.url.replace("//", "//ada:lovelace@")
        with pytest.raises(OSError, match="allow_basic=True"):
            Client(login).start()
        assert proof not in b"".join(camera.asked)
        assert greys(login, allow_basic=True) == ALL


def test_a_camera_may_send_on_and_another_is_told_no_password() -> None:
    with Camera(lambda request: OK + COUNTED) as there:

        def answer(request: bytes) -> bytes:
            to = there.url if b"/elsewhere" in request else "/elsewhere"
            return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n".encode()

        with Camera(answer) as camera, Client(camera.url.replace("//", "//ada:lovelace@")) as client:
            assert client.wait(60)
            assert any("is not told the user name" in words for words in client.notices)
        assert len(client.trace.frames) == 4
        assert b"Authorization" not in b"".join(there.asked)
    with Camera(lambda request: b"HTTP/1.1 301 Moved\r\nLocation: /video.mjpg\r\n\r\n") as camera:
        with pytest.raises(OSError, match="more than 3 times"):
            Client(camera.url).start()
        assert len(camera.asked) == MAX_MOVES + 1
    for to in ("ftp://127.0.0.1/", "rtsp://127.0.0.1/", "", "http://[", "//"):
        moved = f"HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n".encode()
        with Camera(lambda request, moved=moved: moved) as camera, pytest.raises(OSError, match=r"times|not played"):
            Client(camera.url).start()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", OSError, "404 Not Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + JPEGS[0], ValueError, "one picture and no stream"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", ValueError, "a page and no stream"),
        (b"HTTP/1.1 200 OK\r\n\r\nx", ValueError, "JPEG in parts"),
        (b"RTSP/1.0 200 OK\r\n\r\n", OSError, "something else than HTTP"),
        (b"\x16\x03\x01\x02", OSError, "something else than HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", OSError, "something else than HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, OSError, "something else than HTTP"),
        (b"", OSError, "without an answer"),
    ],
)
def test_what_is_no_stream_is_refused_in_a_sentence(answer: bytes, kind: type[Exception], words: str) -> None:
    with Camera(lambda request: answer) as camera, pytest.raises(kind, match=words):
        Client(camera.url).start()


def test_a_camera_that_never_answers_or_sends_no_parts_is_given_up() -> None:
    with Camera(lambda request: b"") as camera:
        quiet = socket.create_server(("127.0.0.1", 0))  # whose backlog takes the connection
        with quiet, pytest.raises(TimeoutError, match="does not answer within"):
            Client(f"http://127.0.0.1:{quiet.getsockname()[1]}/", timeout=0.3).start()
    with pytest.raises(ConnectionRefusedError, match="nothing listens"):
        Client(f"http://127.0.0.1:{ports.free()}/").start()
    with Camera(lambda request: OK + b"no parts\n" * 100_000) as camera:
        client = Client(camera.url).start()
        with pytest.raises(ValueError, match="no stream of pictures"):
            client.wait(60)
        client.stop()
    with Camera(lambda request: OK) as camera:
        client = Client(camera.url).start()
        with pytest.raises(ConnectionError, match="before a picture came"):
            client.wait(60)
        client.stop()


def test_a_start_that_waits_can_be_called_off() -> None:
    quiet = socket.create_server(("127.0.0.1", 0))
    client = Client(f"http://127.0.0.1:{quiet.getsockname()[1]}/", timeout=60.0)
    failed: list[BaseException] = []

    def begin() -> None:
        try:
            client.start()
        except RuntimeError as error:
            failed.append(error)

    with quiet:
        thread = threading.Thread(target=begin)
        thread.start()
        until(lambda: client.started)
        client.stop()
        thread.join(60)
    assert "stopped while it was starting" in str(failed[0])


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://host/a?b=c#d", HttpPlace("http", "host", 80, "/a?b=c")),
        ("HTTPS://user:p@Host:444", HttpPlace("https", "host", 444, "/")),
        ("http://[::1]:8080/x y", HttpPlace("http", "::1", 8080, "/x%20y")),
        ("http://", None),
        ("http://host:0/", None),
        ("http://host:99999/", None),
        ("http://[::", None),
        ("http://a\\b/", None),
    ],
)
def test_an_address_is_read_or_refused(url: str, place: HttpPlace | None) -> None:
    if place is None:
        with pytest.raises(ValueError, match="is no address to play"):
            Client(url)
    else:
        assert HttpPlace.parse(url) == place
        assert HttpPlace.parse(place.url) == place


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 by itself, with its key."""
    path = tmp_path / "camera.pem"
    tools.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", tmp_path / "cert.pem",
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return path


@pytest.mark.needs("openssl")
def test_https_is_played_where_the_certificate_is_known(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proof = b"Authorization: Basic " + base64.b64encode(b"ada:lovelace")

    def answer(request: bytes) -> bytes:
        return OK + COUNTED if proof in request else b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="cam"\r\n\r\n'

    with Camera(answer, context=context) as camera:
        login = camera.url.replace("//", "//ada:lovelace@")
        with pytest.raises(OSError, match="cannot be reached by https"):
            Client(login).start()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert greys(login) == ALL  # nobody on the way reads the password
        with pytest.raises(OSError, match=r"something else than HTTP|broke|closed|without"):
            Client(camera.url.replace("https", "http")).start()


def test_avlab_play_plays_a_camera(tmp_path: Path) -> None:
    with Camera(lambda request: OK + COUNTED + b"--frame--\r\n") as camera:
        command = [sys.executable, "-m", "avlab", "play", camera.url, "--no-window", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["shown"] == 4
    assert said["lost"] is None
    assert said["error"] is None
