"""An RTSP server for tests that is right in all but what a test changes: any answer, and the way its datagrams take."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self

from scripted import AUDIO, VIDEO, Pictures, Sound, description, sender_report

from avlab.wire.units import NS

Udp = Literal["open", "shut", "walled", "reports alone"]
DESCRIBED = description(VIDEO, AUDIO)


@dataclass(frozen=True)
class Asked:
    """A request: its first line's words, its headers by lower-case name, and all of it as it came."""

    method: str
    uri: str
    headers: Mapping[str, str]
    text: str

    @property
    def cseq(self) -> str:
        """Its number."""
        return self.headers.get("cseq", "0")


def reply(asked: Asked, *headers: str, body: str | bytes = b"", status: str = "200 OK") -> bytes:
    """An answer as the RFC has it."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"RTSP/1.0 {status}", f"CSeq: {asked.cseq}", *headers]
    lines += [f"Content-Length: {len(data)}"] if data else []
    return "\r\n".join([*lines, "", ""]).encode() + data


Answer = Callable[[Asked], "bytes | None"]
"""What to answer; None for nothing and the connection's end."""


@dataclass
class Visit:
    """One connection, and what was agreed on it."""

    connection: socket.socket
    ways: dict[str, tuple[list[socket.socket], tuple[str, int]] | int] = field(default_factory=dict)
    playing: bool = False
    closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class OddServer:
    """Answers as `answers` says by method, else as usual; plays pictures and sound to each connection that asks.

    `udp` is what befalls its datagrams: "walled" lets those through that go back to where one came from, and "reports
    alone" those of RTCP. They leave from `address`; SETUP's answers have `transport` behind them. With `one_session`,
    whatever is still being played goes to the newest connection.
    """

    def __init__(
        self,
        answers: Mapping[str, Answer] | None = None,
        *,
        described: str = DESCRIBED,
        udp: Udp = "open",
        address: str = "127.0.0.1",
        host: str = "127.0.0.1",
        transport: str = "",
        ports: bool = True,
        stray: bytes = b"",
        path: str = "odd",
        one_at_a_time: bool = False,
        one_session: bool = False,
    ) -> None:
        self.answers, self.described, self.udp, self.address = dict(answers or {}), described, udp, address
        self.transport, self.ports, self.stray = transport, ports, stray
        self.one_at_a_time, self.one_session = one_at_a_time, one_session
        self._one = Pictures(), Sound()
        self.guard: Answer = lambda asked: None  # how to refuse a request, before anything else
        self.hangs_up = False  # after a refusal
        self.asked: list[Asked] = []
        self.knocks: list[tuple[str, bool, bytes]] = []  # stream, whether at the RTCP port, what
        self.reports: list[bytes] = []
        self.replies: list[str] = []  # to what the server asks by itself, by `asks`
        self.asks: Mapping[str, bytes] = {}  # by the method of the client's before whose answer it is asked
        self.events: list[str] = []  # method and connection, in order
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.visits: list[Visit] = []
        six = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=six)
        self.port = self._listener.getsockname()[1]
        self.url = f"rtsp://{f'[{host}]' if ':' in host else host}:{self.port}/{path}"

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for visit in self.visits:
            with suppress(OSError):
                visit.connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    @property
    def methods(self) -> list[str]:
        """What was asked, in order."""
        return [asked.method for asked in self.asked]

    def _begin(self, body: Callable[[], None]) -> None:
        def run() -> None:
            with suppress(OSError):
                body()

        self._threads.append(threading.Thread(target=run, name="odd server"))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._over.is_set():
            connection, _ = self._listener.accept()
            visit = Visit(connection)
            self.visits.append(visit)
            if self.one_at_a_time:
                self._serve(visit)
            else:
                self._begin(lambda visit=visit: self._serve(visit))  # type: ignore[misc]

    def _serve(self, visit: Visit) -> None:
        data = b""
        with visit.connection:
            try:
                while more := visit.connection.recv(65_536):
                    data += more
                    while data:
                        if data[:1] == b"$":
                            size = 4 + int.from_bytes(data[2:4], "big")
                            if len(data) < size:
                                break
                            self.reports.append(data[4:size])
                            data = data[size:]
                            continue
                        head, end, rest = data.partition(b"\r\n\r\n")
                        if not end:
                            break
                        data = rest
                        if not self._take(visit, head.decode()):
                            return
            except OSError:
                return
            finally:
                visit.closed = True

    def _take(self, visit: Visit, text: str) -> bool:
        if text.startswith("RTSP/"):
            self.replies.append(text)
            return True
        first, *lines = text.split("\r\n")
        method, uri, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        asked = Asked(method, uri, headers, text)
        self.asked.append(asked)
        self.events.append(f"{method} {self.visits.index(visit)}")
        if (refusal := self.guard(asked)) is not None:
            visit.connection.sendall(refusal)
            return not self.hangs_up
        told = self._set_up(visit, asked) if method == "SETUP" and "transport" in headers else ""
        if method in self.answers:
            answer = self.answers[method](asked)
        elif method == "OPTIONS":
            answer = reply(asked, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN")
        elif method == "DESCRIBE":
            answer = reply(asked, f"Content-Base: {uri}/", "Content-Type: application/sdp", body=self.described)
        elif method == "SETUP":
            answer = reply(asked, f"Transport: {told}", "Session: 1;timeout=60")
        else:
            answer = reply(asked, "Session: 1")
        if answer is None:
            return False
        with visit.lock:
            visit.connection.sendall(self.asks.get(method, b"") + answer)
        if method == "PLAY" and not visit.playing:
            visit.playing = True
            self._begin(lambda: self._play(visit))
        return method != "TEARDOWN"

    def _set_up(self, visit: Visit, asked: Asked) -> str:
        stream = "audio" if asked.uri.rstrip("/").endswith("1") else "video"
        transport = asked.headers["transport"]
        if ports := re.search(r"client_port=(\d+)", transport):
            pair = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
            for each in pair:
                each.bind((self.address, 0))
                each.setblocking(False)
            self._sockets += pair
            visit.ways[stream] = pair, (visit.connection.getpeername()[0], int(ports[1]))
            if self.ports:
                transport += ";server_port={}-{}".format(*(each.getsockname()[1] for each in pair))
        elif channel := re.search(r"interleaved=(\d+)", transport):
            visit.ways[stream] = int(channel[1])
        return transport + self.transport

    def _play(self, visit: Visit) -> None:
        pictures, sound = self._one if self.one_session else (Pictures(), Sound())
        opened, number = set[tuple[str, bool]](), 0
        began = time.monotonic()  # however busy the machine is, pictures do not come later and later
        while not self._over.wait(max(0, began + 0.04 * (number + 1) - time.monotonic())):
            if self.one_session:
                visit = self.visits[-1]
            if visit.closed:
                break
            for stream, way in list(visit.ways.items()):
                for control in (False, True) if isinstance(way, tuple) else ():
                    assert isinstance(way, tuple)
                    with suppress(BlockingIOError):
                        while True:
                            self.knocks.append((stream, control, way[0][control].recv(2048)))
                            opened.add((stream, control))
            pts_ns = number * NS // 25
            self._send(visit, "video", pictures.frame(pts_ns, number), opened)
            self._send(visit, "audio", [sound.packet(pts_ns + at * NS // 1000) for at in (0, 20)], opened)
            self._send(visit, "video", [sender_report(0x1111, 1 << 32, 5_000)], opened, control=True)
            number += 1

    def _send(
        self, visit: Visit, stream: str, packets: list[bytes], opened: set[tuple[str, bool]], *, control: bool = False
    ) -> None:
        way = visit.ways.get(stream)
        if isinstance(way, int) and not control:
            with visit.lock:
                for packet in packets:
                    visit.connection.sendall(struct.pack("!BBH", 0x24, way, len(packet)) + packet + self.stray)
        elif isinstance(way, tuple):
            lets = {"open": True, "shut": False, "walled": (stream, control) in opened, "reports alone": control}
            for packet in packets if lets[self.udp] else ():
                way[0][control].sendto(packet, (way[1][0], way[1][1] + control))
