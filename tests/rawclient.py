"""An RTSP client by hand, for what avlab's own never does: nonsense, silence, not reading, leaving without a word.

`until` is how tests wait: for a condition, which on a busy machine may take a minute.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from avlab.wire import rtsp

SECONDS = 60.0


def until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Return once `holds()`; AssertionError after `seconds`."""
    deadline = time.perf_counter() + seconds
    while not holds():
        assert time.perf_counter() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(0.002)


class RawClient:
    """A connection to the server of `url`; `ask` sends a request and reads up to its answer."""

    def __init__(self, url: str, *, receive_buffer: int | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.url = url
        self.socket = socket.socket(socket.AF_INET6 if ":" in parts.hostname else socket.AF_INET)
        self.socket.settimeout(SECONDS)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((parts.hostname, parts.port or 0))
        self.session: str | None = None
        self.packets: list[rtsp.Interleaved] = []
        self._receiver = rtsp.MessageReader()
        self._cseq = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, method: str, path: str = "", *, body: bytes = b"", **headers: str) -> None:
        """Send a request; underscores in header names stand for hyphens."""
        self._cseq += 1
        known = {"CSeq": str(self._cseq)} | ({"Session": self.session} if self.session else {})
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.socket.sendall(rtsp.Request(method, self.url + path, rtsp.Headers(known | given), body).serialize())

    def ask(self, method: str, path: str = "", *, body: bytes = b"", **headers: str) -> rtsp.Response:
        """Send a request and read until its answer has come; what is interleaved goes to `packets`."""
        self.send(method, path, body=body, **headers)
        while True:
            for event in self.read():
                if isinstance(event, rtsp.Response):
                    if event.status == 200 and "Session" in event.headers:
                        self.session = rtsp.SessionHeader.parse(event.headers["Session"]).id
                    return event

    def read(self) -> list[rtsp.Event]:
        """Wait for bytes and parse them. ConnectionError at the end of the connection."""
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the server hung up")
        events = self._receiver.feed(data)
        self.packets += [event for event in events if isinstance(event, rtsp.Interleaved)]
        return events

    def set_up(self, stream: str, transport: str) -> rtsp.Transport:
        """SETUP of a track; the transport granted."""
        answer = self.ask("SETUP", f"/{stream}", Transport=transport)
        assert answer.status == 200, answer
        return rtsp.parse_transport(answer.headers["Transport"])[0]

    def hung_up(self) -> bool:
        """Read to the connection's end; whether it ended within ten seconds."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True


def reports_port(url: str) -> int:
    """Where the server of `url` takes reports of its pictures."""
    with RawClient(url) as client:
        server_port = client.set_up("video", "RTP/AVP;unicast;client_port=9-10").server_port
    assert server_port is not None
    return server_port[1]
