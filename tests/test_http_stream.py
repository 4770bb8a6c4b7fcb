"""The http wire on real sockets: what players read, who is refused, what hostile peers do, and what stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
import pytest
import tools
from rawclient import until
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

import avlab
from avlab.media.codec import decode_jpeg
from avlab.stream.client import Client
from avlab.stream.http.handlers import MAX_MESSAGE, MESSAGES_A_SECOND
from avlab.stream.http.site import MAX_HEADERS
from avlab.stream.http.viewers import MESSAGE, PICTURE, SOUND
from avlab.stream.places import MOST_WAITING
from avlab.stream.server import Server
from avlab.wire import multipart

pytestmark = pytest.mark.slow

WIDTH = 320


@pytest.fixture
def server(clip: Path) -> Iterator[Server]:
    with Server(clip, wire="http", width=WIDTH, loop=True) as made:
        yield made


def place(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port, parts.path


def ask(url: str, path: str = "", *, method: str = "GET", body: str | None = None, **headers: str) -> Any:
    """One request; its answer, with `.text`. Underscores in header names stand for hyphens."""
    host, port, start = place(url)
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, start + path, body=body, headers=given)
        answer: Any = connection.getresponse()
        kind = answer.headers.get("Content-Type", "")
        answer.text = "" if kind.startswith("multipart") else answer.read().decode()
        return answer
    finally:
        connection.close()


class Raw:
    """A connection to the server at `url`, by hand."""

    def __init__(self, url: str, *, receive_buffer: int | None = None) -> None:
        host, port, self.path = place(url)
        self.socket = socket.socket()
        self.socket.settimeout(60)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((host, port))
        self.host = f"{host}:{port}"

    def get(self, path: str = "stream", *more: str) -> None:
        lines = [f"GET {self.path}{path} HTTP/1.1", f"Host: {self.host}", *more, "", ""]
        self.socket.sendall("\r\n".join(lines).encode())

    def closed(self) -> bool:
        """Wait until the server has closed it."""
        with contextlib.suppress(OSError):
            while self.socket.recv(65_536):
                pass
        return True

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def on_websocket(url: str, talk: Callable[[WebSocketClientConnection], Any], **headers: str) -> Any:
    """What `talk` makes of a WebSocket to the server's page."""
    host, port, path = place(url)
    origin = {"Origin": f"http://{host}:{port}"}

    async def run() -> Any:
        request = HTTPRequest(f"ws://{host}:{port}{path}live", headers=origin | headers, request_timeout=60)
        connection = await websocket_connect(request)
        try:
            return await asyncio.wait_for(talk(connection), 60)
        finally:
            connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.read_message(), 0.01)

    return asyncio.run(run())


# ---- what is read


def test_opencv_reads_the_pictures(server: Server) -> None:
    reader = cv2.VideoCapture(f"{server.url}stream", cv2.CAP_FFMPEG)
    try:
        for _ in range(20):
            read, image = reader.read()
            assert read
            assert image.shape == (176, WIDTH, 3)
    finally:
        reader.release()
    until(lambda: server.clients == 0)


def test_pyav_reads_the_pictures(server: Server) -> None:
    with av.open(f"{server.url}stream", format="mpjpeg") as container:
        stream = container.streams.video[0]
        for _, frame in zip(range(20), container.decode(stream), strict=False):
            assert (frame.width, frame.height) == (WIDTH, 176)


@pytest.mark.needs("ffmpeg")
def test_ffmpeg_reads_the_pictures(server: Server, tmp_path: Path) -> None:
    tools.run(
        "ffmpeg", "-v", "error", "-i", f"{server.url}stream", "-frames:v", "20", "-y", tmp_path / "out.mjpeg"
    )  # fmt: skip
    assert (tmp_path / "out.mjpeg").read_bytes().count(b"\xff\xd8\xff") == 20


@pytest.mark.needs("gst-launch-1.0", "gst:souphttpsrc", "gst:multipartdemux", "gst:jpegdec")
def test_gstreamer_reads_the_pictures(server: Server, tmp_path: Path) -> None:
    tools.run(
        "gst-launch-1.0", "-q", "souphttpsrc", f"location={server.url}stream", "num-buffers=60", "!", "multipartdemux",
        "!", "image/jpeg", "!", "jpegdec", "!", "filesink", f"location={tmp_path / 'out.i420'}",
    )  # fmt: skip
    assert (tmp_path / "out.i420").stat().st_size >= WIDTH * 176 * 3 // 2


def test_the_client_plays_the_page_s_address_and_the_pictures_own(server: Server) -> None:
    for url in (server.url, f"{server.url}stream"):
        with Client(url) as client:
            images = [frame.image for _, frame in zip(range(10), client.frames(), strict=False)]
            assert {image.shape for image in images} == {(176, WIDTH, 3)}
            assert server.clients == 1
            assert client.trace.meta["wire"] == "http"
            assert "A/V unknown" in client.status()
        shown = client.trace.frames
        assert set(shown["fate"]) == {"shown"}
        assert shown["shown"].notna().all()
        assert avlab.metrics.summary(client.trace).lost is None
        with pytest.raises(ValueError, match="http wire cannot be joined"):
            avlab.join(server.trace, client.trace)


def test_settings_act_on_the_next_frame_and_a_frame_is_encoded_once_for_all(server: Server) -> None:
    with Client(server.url) as one, Client(server.url) as other:
        until(lambda: server.clients == 2)
        server.width = 160
        for client in (one, other):
            assert any(frame.image.shape[1] == 160 for frame in client.frames())
        server.quality = 10
        server.pacer = "none"
        until(lambda: (server.trace.frames["bytes"].tail(3) < 3000).all())
        server.pacer = "deadline"
    frames = server.trace.frames.query("stream == 'video' and sent == sent")
    assert frames["index"].is_unique
    assert (frames["packets"] == 1).all()
    assert frames["due"].notna().all()
    assert frames["encoded"].notna().all()
    assert set(server.trace.settings["name"]) >= {"width", "quality", "pacer"}


def test_the_clip_s_end_is_the_stream_s_end_and_the_next_who_comes_begins_it_anew(data: Path) -> None:
    pictures = [np.full((64, 64, 3), at * 20, np.uint8) for at in range(10)]
    with Server(pictures, wire="http", fps=20) as server:
        for _ in range(2):
            with Client(server.url) as client:
                assert client.wait(60)
            assert client.error is None
            assert not client.notices
            seen = client.trace.frames
            assert len(seen) == 10
            until(lambda: server.start_ns is None)
        answer = ask(server.url, "hello")
        assert json.loads(answer.text)["rate"] is None
    assert not server.notices


def test_a_stream_that_the_server_ends_is_over_for_all(server: Server) -> None:
    with Client(server.url) as client, Raw(server.url) as raw:
        raw.get()
        until(lambda: server.clients == 2)
        server.stop()
        assert client.wait(60)
        assert client.error is None
        raw.closed()
    assert server.clients == 0


# ---- the page's WebSocket


def test_the_page_gets_pictures_numbers_and_sound_once_it_asks(server: Server) -> None:
    async def talk(page: WebSocketClientConnection) -> None:
        kinds: set[object] = set()
        times: dict[int, list[float]] = {PICTURE: [], SOUND: []}
        await page.write_message(json.dumps({"name": "Ada\u202e <b>"}))
        while len(times[SOUND]) < 15 or len(times[PICTURE]) < 30 or str not in kinds:
            data = await page.read_message()
            assert data is not None
            kinds.add(type(data))
            if isinstance(data, str):
                assert json.loads(data) == {"clients": 1, "skipped": 0}
                assert not times[SOUND]
                await page.write_message(json.dumps({"sound": True}))
                continue
            kind, pts = MESSAGE.unpack_from(data)
            times[kind].append(pts)
            if kind == PICTURE:
                assert decode_jpeg(data[MESSAGE.size :]).shape == (176, WIDTH, 3)
            else:
                assert len(data[MESSAGE.size :]) % 4 == 0
        for each in times.values():
            assert each == sorted(each)
        assert abs(times[SOUND][-1] - times[PICTURE][-1]) < 1

    on_websocket(server.url, talk)
    assert server.trace.frames["stream"].tolist().count("audio") >= 15
    until(lambda: server.clients == 0)


def test_the_audience_says_who_looks(server: Server) -> None:
    async def talk(page: WebSocketClientConnection) -> None:
        await page.write_message(json.dumps({"name": "Ada\u202e <b>"}))
        for _ in range(60):
            await page.read_message()
        rows = server.audience
        assert rows["name"].tolist() == ["Ada <b>"]
        assert rows["address"].tolist() == ["127.0.0.1"]
        assert rows["fps"].iloc[0] > 0
        assert rows["kbps"].iloc[0] > 0
        assert np.isnan(rows["loss"].iloc[0])

    on_websocket(server.url, talk)


def test_a_page_that_is_not_looked_at_is_sent_no_pictures(server: Server) -> None:
    async def talk(page: WebSocketClientConnection) -> None:
        await page.write_message(json.dumps({"pictures": False, "sound": True}))
        kinds = [0] * 50
        for at in range(200):
            data = await page.read_message()
            kinds[at % 50] = data[0] if isinstance(data, bytes) else 0
        assert PICTURE not in kinds
        assert SOUND in kinds

    on_websocket(server.url, talk)


@pytest.mark.parametrize(
    "said",
    [["no JSON"], ["[1]"], ["1"], ["[" * 500], ["{}"] * (3 * MESSAGES_A_SECOND), ["x" * (2 * MAX_MESSAGE)], [b"\xff"]],
    ids=["text", "list", "number", "deep", "often", "large", "bytes"],
)
def test_what_no_page_of_ours_says_ends_its_connection_alone(server: Server, said: list[str]) -> None:
    async def talk(page: WebSocketClientConnection) -> None:
        with contextlib.suppress(Exception):
            for each in said:
                await page.write_message(each, binary=isinstance(each, bytes))
        while await page.read_message() is not None:
            pass

    with Client(server.url) as client:
        on_websocket(server.url, talk)
        until(lambda: server.clients == 1)
        assert next(client.frames()).image is not None


# ---- who is refused


@pytest.mark.parametrize("path", ["", "stream", "live", "hello", "page.js", "nothing"])
def test_another_host_and_another_origin_are_refused_everywhere(server: Server, path: str) -> None:
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{urlsplit(server.url).port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
    ):
        answer = ask(server.url, path, **headers)
        assert answer.status == 403, headers
        assert not any(name.lower().startswith("access-control") for name in answer.headers)
    assert server.clients == 0


def test_a_websocket_of_another_origin_is_refused(server: Server) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13",
               "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert ask(server.url, "live", **upgrade, **headers).status == 403
    own = server.url.rstrip("/")
    assert ask(server.url, "live", **upgrade, Origin=own).status == 101


def test_no_answer_lets_another_origin_read_or_frame_it(server: Server) -> None:
    for path in ("", "page.js", "page.css", "icon.svg", "hello", "stream", "nothing"):
        headers = ask(server.url, path).headers
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not any(name.lower().startswith("access-control") for name in headers)
        assert "tornado" not in str(headers).lower()


def test_the_token_is_asked_for_where_others_can_reach_it(clip: Path) -> None:
    with Server(clip, wire="http", host="0.0.0.0", width=WIDTH) as server:
        host, port, path = place(server.url)
        assert len(path) == 14
        bare = f"http://{host}:{port}/"
        for wrong in ("", "stream", "live", "favicon.ico", f"{path[1:-2]}/stream", f"x/{path[1:]}stream"):
            answer = ask(bare, wrong)
            assert answer.status == 403, wrong
            assert "not complete" in answer.text
        assert ask(bare, path[1:-1]).headers["Location"] == path
        assert ask(server.url).status == 200
        assert ask(server.url, "nothing").status == 404
        with Client(server.url) as client:
            assert next(client.frames()).image is not None
        with pytest.raises(OSError, match="403"):
            Client(bare).start()
        assert path in server.invitation().addresses[0]


def test_a_class_joins_by_its_code(clip: Path) -> None:
    with Server(clip, wire="http", host="127.0.0.1", width=WIDTH, class_code=True) as server:
        assert ask(server.url).status == 200  # the page, with a field for the code
        assert json.loads(ask(server.url, "hello").text) == {"asks": "code", "login": False}
        for path in ("stream", "live"):
            answer = ask(server.url, path, Origin=server.url.rstrip("/"))
            assert answer.status == 401
            assert answer.headers.get_all("WWW-Authenticate")[0].startswith("Digest")
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        wrong = ask(server.url, "join", method="POST", body="code=ZZZZZZ", **form)
        assert wrong.status == 403
        assert "not the class's code" in wrong.text
        foreign = ask(server.url, "join", method="POST", body=f"code={server.class_code}", Origin="http://evil.example")
        assert foreign.status == 403
        right = ask(server.url, "join", method="POST", body=f"code={server.class_code.lower()}", **form)
        assert right.status == 204
        cookie = right.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        known = {"Cookie": cookie.partition(";")[0]}
        assert json.loads(ask(server.url, "hello", **known).text)["title"] == "count"
        assert ask(server.url, "stream", **known).status == 200
        assert ask(server.url, "stream", Cookie=known["Cookie"][:-1]).status == 401
        for url in (server.url, f"{server.url}stream"):
            with Client(url, class_code=server.class_code) as client:
                assert next(client.frames()).image is not None
        with pytest.raises(OSError, match="does not accept"):
            Client(server.url, class_code="ZZZZZZ").start()
        with pytest.raises(OSError, match="class_code="):
            Client(server.url).start()
        told = server.trace.settings.query("name == 'client refused'")["value"].tolist()
        assert len(told) == 2
        assert server.class_code not in str(told)


@pytest.mark.needs("ffmpeg")
def test_users_join_by_their_passwords(clip: Path, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"ada:school:{hashlib.md5(b'ada:school:lovelace').hexdigest()}\n")
    users.chmod(0o600)
    with Server(clip, wire="http", width=WIDTH, users=users, loop=True) as server:
        for path in ("", "stream", "live", "login"):
            answer = ask(server.url, path, Origin=server.url.rstrip("/"))
            assert answer.status == 401
        with Client(server.url.replace("//", "//ada:lovelace@")) as client:
            assert next(client.frames()).image is not None
            assert "lovelace" not in str(client.trace.meta) + repr(client)
        with pytest.raises(OSError, match="does not accept"):
            Client(server.url.replace("//", "//ada:byron@")).start()
        login = f"{server.url.replace('//', '//ada:lovelace@')}stream"
        tools.run("ffmpeg", "-v", "error", "-i", login, "-frames:v", "3", "-f", "null", "-")


def test_places_are_bounded(clip: Path) -> None:
    with Server(clip, wire="http", width=WIDTH, clients=2) as server, Client(server.url), Client(server.url):
        until(lambda: server.clients == 2)
        with pytest.raises(OSError, match="503"):
            Client(server.url).start()
        assert "places are taken" in json.loads(ask(server.url, "hello").text)["full"]
        assert ask(server.url, "live", Origin=server.url.rstrip("/")).status == 503
        assert any("places are taken" in words for words in server.notices)


# ---- hostile peers


def test_who_reads_nothing_skips_pictures_holds_up_nobody_and_is_parted_from(clip: Path) -> None:
    with Server(clip, wire="http", width=640, quality=95, loop=True, session_timeout=2.0) as server:
        with Raw(server.url, receive_buffer=4096) as idle, Client(server.url) as client:
            idle.get()
            until(lambda: server.clients == 2)
            until(lambda: "socket_dropped" in set(server.trace.packets["fate"]))
            until(lambda: server.clients == 1)
            idle.closed()
            assert next(client.frames()).image is not None
        assert "it reads nothing" in str(server.trace.settings["value"].tolist())
        assert set(client.trace.frames["fate"]) == {"shown"}


def test_headers_without_end_and_requests_that_never_end_are_cut_off(clip: Path) -> None:
    with Server(clip, wire="http", width=WIDTH, session_timeout=1.0) as server:
        with Raw(server.url) as endless:
            endless.socket.sendall(b"GET / HTTP/1.1\r\n")
            with contextlib.suppress(OSError):
                for _ in range(4 * MAX_HEADERS // 100):
                    endless.socket.sendall(b"X-More: " + b"y" * 90 + b"\r\n")
            assert endless.closed()
        with Raw(server.url) as slow:
            slow.socket.sendall(b"GET / HTT")
            assert slow.closed()
        with Raw(server.url) as body:
            body.socket.sendall(
                f"POST /join HTTP/1.1\r\nHost: {body.host}\r\nContent-Length: 99999999\r\n\r\ncode=".encode()
            )
            assert body.closed()
        with Raw(server.url) as half:
            half.socket.sendall(f"POST /join HTTP/1.1\r\nHost: {half.host}\r\nContent-Length: 99\r\n\r\n".encode())
            assert half.closed()
        with Client(server.url) as client:
            assert next(client.frames()).image is not None


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example:80\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        b"BREW /stream HTTP/1.1\r\nHost: {}\r\n\r\n",
        b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: {}\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: {}\r\nOrigin: http://{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET /stream HTTP/1.1\r\nHost: {}\r\nAuthorization: Digest " + b'username="a",' * 500 + b"\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: {}\r\nCookie: " + b"avlab=\xff;" * 500 + b"\r\n\r\n",
        bytes(range(256)) * 100,
    ],
    ids=lambda said: f"{len(said)}-{said[:8].hex()}",
)
def test_nonsense_ends_its_own_connection_alone(server: Server, said: bytes) -> None:
    with Raw(server.url) as raw:
        with contextlib.suppress(OSError):
            raw.socket.sendall(said.replace(b"{}", raw.host.encode()))
            raw.socket.shutdown(socket.SHUT_WR)
        raw.closed()
    assert ask(server.url).status == 200
    assert server.running
    assert not server.notices


def test_two_hundred_connections_that_ask_for_nothing_leave_room_for_who_does(server: Server) -> None:
    with contextlib.ExitStack() as stack, Client(server.url) as client:
        idle = [stack.enter_context(Raw(server.url)) for _ in range(200)]

        def open_ones() -> int:
            count = 0
            for raw in idle:
                raw.socket.setblocking(False)
                try:
                    count += raw.socket.recv(1) != b""
                except BlockingIOError:
                    count += 1
                except OSError:
                    pass
            return count

        until(lambda: open_ones() <= MOST_WAITING)
        assert ask(server.url).status == 200
        assert next(client.frames()).image is not None
        assert any("more connections come" in words for words in server.notices)


def test_a_class_of_thirty_looks_and_each_picture_is_made_once(clip: Path) -> None:
    with Server(clip, wire="http", width=WIDTH, quality=50, loop=True) as server, contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(Raw(server.url)) for _ in range(30)]
        for raw in viewers:
            raw.get()
        until(lambda: server.clients == 30)
        began = time.perf_counter()
        readers = [multipart.MultipartReader(multipart.BOUNDARY) for _ in viewers]
        seen = [0] * len(viewers)
        while min(seen) < 15:
            assert time.perf_counter() - began < 60
            for at, raw in enumerate(viewers):
                seen[at] += len(readers[at].feed(raw.socket.recv(1 << 16)))
        assert len(server.members) == 30
    frames = server.trace.frames.query("stream == 'video' and sent == sent")
    assert frames["index"].is_unique
    assert len(server.trace.packets) > 10 * len(frames)


# ---- settings


def test_what_the_wire_cannot_keep_is_refused_or_said(clip: Path, tmp_path: Path) -> None:
    for settings in (
        {"codec": "h264"},
        {"audio_codec": "opus"},
        {"multicast": True},
        {"capture": tmp_path / "x.pcapng"},
        {"network": avlab.Network(loss=0.1)},
    ):
        with pytest.raises(ValueError, match="http"):
            Server(clip, wire="http", **settings)
    server = Server(clip, wire="http", packet_size=1000, spread=0.5, parity=0.5, rate_control="aimd", offload="on")
    assert len(server.notices) == 5
    assert all("on the http wire" in words for words in server.notices)
    with pytest.raises(RuntimeError, match="before start"):
        _ = server.url
    for settings in ({"video_over": "tcp"}, {"repair": "rtx"}, {"av_offset": 0.1}, {"capture": "x.pcapng"}):
        with pytest.raises(ValueError, match="http wire"):
            Client("http://127.0.0.1:1/", **settings)
    client = Client("http://127.0.0.1:1/", name="Ada", playout_delay=0.2)
    assert len(client.notices) == 2
    assert client.playout_delay == 0


def test_a_server_in_a_process_of_its_own_serves_the_page(clip: Path) -> None:
    with Server(clip, wire="http", width=WIDTH, class_code=True, isolated=True) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert ask(server.url).status == 200
        with Client(server.url, class_code=server.class_code) as client:
            assert next(client.frames()).image is not None
            until(lambda: server.clients == 1)
    assert len(server.trace.frames)


def test_a_port_that_is_taken_is_said_in_a_sentence(server: Server, clip: Path) -> None:
    with pytest.raises(OSError, match="is in use"):
        Server(clip, wire="http", port=place(server.url)[1]).start()
