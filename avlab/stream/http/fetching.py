"""A GET whose answer goes on and on: reached in a given time, sent on, with a user and a password where asked for them.

HTTP itself, TLS and chunks are the standard library's `http.client` and `ssl`; the socket is opened by a `Dialler` and
read here, so that each wait can be broken off and has an end.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import secrets
import selectors
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from avlab.stream.clock import Clock
from avlab.stream.sockets.dialling import BrokenOffError, Dialler
from avlab.wire import multipart
from avlab.wire.digest import MOST_TRIES, Credentials
from avlab.wire.text import printable
from avlab.wire.units import NS
from avlab.wire.urls import redacted, request_uri, same_host

MAX_MOVES = 3
"""How often a server may send on to another address."""

LOOK_S = 0.2
"""How often a wait for bytes looks whether it is to be broken off."""

PORTS = {"http": 80, "https": 443}
MOVED = (301, 302, 303, 307, 308)

HOW_TO_LOG_IN = "play http://USER:PASSWORD@host/path, or give class_code= (avlab play --code) where a class has a code"


def is_http(url: object) -> bool:
    """Whether an address is one of HTTP."""
    return isinstance(url, str) and url.lower().startswith(("http:", "https:"))


class HttpPlace(NamedTuple):
    """An address of HTTP, taken apart; a user and a password that it has are in no part of it."""

    scheme: str
    host: str
    port: int
    target: str
    """What the request's first line names: path and query."""

    @classmethod
    def parse(cls, url: str) -> HttpPlace:
        """Read an address; ValueError, with a sentence that shows no password, for one that is none to play."""
        try:
            parts = urlsplit(request_uri(url))
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        scheme = parts.scheme.lower()
        if scheme not in PORTS or not parts.hostname or port == 0 or "%" in parts.hostname or "\\" in parts.netloc:
            raise ValueError(f"{redacted(url)!r} is no address to play: write it as http://host:port/path")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(scheme, parts.hostname, PORTS[scheme] if port is None else port, target)

    @property
    def where(self) -> str:
        """host:port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address again."""
        return f"{self.scheme}://{self.where}{self.target}"


class Body:
    """What an answer brings, as it comes."""

    def __init__(self, line: _HeaderLine, response: http.client.HTTPResponse, place: HttpPlace) -> None:
        self._line, self._response = line, response
        self.place = place
        self.content_type = response.headers.get("Content-Type", "")

    def read(self) -> bytes:
        """The next bytes, once there are any; none at the end, also when the wait was broken off. OSError."""
        try:
            return self._response.read1(1 << 16)
        except http.client.HTTPException:  # it ended within a chunk
            return b""

    def close(self) -> None:
        """Close the connection."""
        self._line.release()


class Fetch:
    """Asks for `url`. `cancel` may come from any thread, and ends each wait; the rest is one thread's at a time.

    `credentials` answer the server's challenges; another server, to which this one may send on, gets none.
    """

    def __init__(self, url: str, *, timeout: float, clock: Clock, credentials: Credentials | None) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}")
        self.place = HttpPlace.parse(url)
        self.moves: list[str] = []
        """Where servers have sent on to, a sentence each."""
        self._timeout, self._clock = timeout, clock
        self._credentials = None if credentials is None else credentials.again()
        self._dialler = Dialler()
        self._left_behind = False  # credentials that were for another server

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._dialler.cancelled

    def cancel(self) -> None:
        """End each wait, of this and of `Body.read`, now and from now on."""
        self._dialler.cancel()

    def open(self) -> Body:
        """The answer, once its headers are there. OSError, with a sentence, when there is none, or it is a refusal."""
        answered = tries = 0
        while True:
            line = self._connect()
            try:
                response = self._ask(line)
                tries += 1
                if 200 <= response.status <= 299:
                    return Body(line, response, self.place)
                if response.status in MOVED:
                    self._move(response)
                    answered = tries = 0
                elif response.status == 401 and self._take(response, answered=bool(answered), tries=tries):
                    answered += 1
                else:
                    raise self._refused(response)
            except BaseException:
                line.release()
                raise
            line.release()

    def _connect(self) -> _HeaderLine:
        place = self.place
        try:
            connection = self._dialler.connect(place.host, place.port, self._timeout)
        except (socket.gaierror, UnicodeError) as error:
            raise OSError(f"the host {place.host!r} is not known: check its spelling, or write its address") from error
        except BrokenOffError:
            raise
        except ConnectionRefusedError as error:
            raise ConnectionRefusedError(
                f"nothing listens at {place.where}: start the server first, or check the port"
            ) from error
        except TimeoutError as error:
            raise self._too_slow() from error
        except OSError as error:
            raise OSError(f"{place.where} cannot be reached: {error.strerror or error}") from error
        try:
            if place.scheme == "https":
                connection = ssl.create_default_context().wrap_socket(connection, server_hostname=place.host)
        except (OSError, ValueError) as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise self._too_slow() from error
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", None) or error
            raise OSError(f"{place.where} cannot be reached by https: {printable(reason)}") from error
        until_ns = self._clock.now_ns() + round(self._timeout * NS)
        return _HeaderLine(connection, self._clock, until_ns, lambda: self._dialler.cancelled)

    def _ask(self, line: _HeaderLine) -> http.client.HTTPResponse:
        place = self.place
        asking = http.client.HTTPConnection(place.host, place.port)
        asking.default_port = PORTS[place.scheme]
        asking.sock = line
        headers = {
            "User-Agent": "avlab",
            "Accept": f"{multipart.MEDIA_TYPE}, image/jpeg;q=0.5, */*;q=0.1",
            "Connection": "close",
        }
        if self._credentials is not None:
            proof = self._credentials.header("GET", place.target, cnonce=secrets.token_hex(8))
            headers |= {"Authorization": proof} if proof is not None else {}
        try:
            asking.request("GET", place.target, headers=headers)
            response = asking.getresponse()
        except TimeoutError as error:
            raise self._too_slow() from error
        except http.client.HTTPException as error:
            if self._dialler.cancelled:
                raise BrokenOffError(f"the wait for {place.where} was broken off") from error
            gone = isinstance(error, http.client.RemoteDisconnected)
            said = "closed the connection without an answer" if gone else "answers with something else than HTTP"
            raise ConnectionError(f"the server at {place.where} {said}") from error
        except OSError as error:
            raise ConnectionError(
                f"the connection to {place.where} broke before an answer came ({error.strerror or error})"
            ) from error
        line.until_ns = None
        return response

    def _take(self, response: http.client.HTTPResponse, *, answered: bool, tries: int) -> bool:
        """Whether the challenges of a 401 can be answered, and it is worth while."""
        asked = ", ".join(response.headers.get_all("WWW-Authenticate", []))
        known = self._credentials is not None and self._credentials.take(asked, answered=answered)
        return known and tries < MOST_TRIES

    def _move(self, response: http.client.HTTPResponse) -> None:
        """Go where the server sends on to."""
        before, given = self.place, response.headers.get("Location", "").strip()
        if len(self.moves) >= MAX_MOVES:
            raise OSError(f"{before.url} is sent on more than {MAX_MOVES} times: play the address where it ends")
        try:
            place = HttpPlace.parse(redacted(urljoin(before.url, given)))
        except ValueError:
            place = None
        if place is None or (before.scheme, place.scheme) == ("https", "http"):
            where = printable(redacted(given), most=200) or "nowhere"
            raise OSError(f"the server at {before.where} sends on ({response.status}) to {where}, which is not played")
        words = f"the server at {before.where} sends on to {printable(place.url, most=200)}"
        if self._credentials is not None and (place.port != before.port or not same_host(place.host, before.host)):
            self._credentials, self._left_behind = None, True
            words += ", which is not told the user name and the password"
        self.moves.append(words)
        self.place = place

    def _refused(self, response: http.client.HTTPResponse) -> OSError:
        """What to raise; of a 401, with what to do about it."""
        where = self.place.where
        if response.status != 401:
            reason = printable(response.reason, most=100) or http.client.responses.get(response.status, "no reason")
            return OSError(f"the server at {where} refused {self.place.target[:200]!r}: {response.status} {reason}")
        login, how = "wants a user name and a password", HOW_TO_LOG_IN
        if self._left_behind:
            how = "those of the address are for the server that has sent on here: play this one's address"
        elif self._credentials is not None:
            login, how = "does not accept the user name and the password, or the code", "check how they are written"
            refusal = printable(self._credentials.refusal, most=100)
            if refusal == "basic":
                login = "wants the password as it is (Basic), readable by everybody on the way"
                how = "allow_basic=True (avlab play --allow-basic) sends it all the same"
            elif refusal:
                login, how = f"wants a proof that avlab does not know: {refusal}", "ask for Digest or Basic there"
        return OSError(f"the server at {where} {login} (401): {how}")

    def _too_slow(self) -> TimeoutError:
        return TimeoutError(
            f"{self.place.where} does not answer within {self._timeout:g} s: check the address, and that no firewall "
            "is between"
        )


class _HeaderLine:
    """A connection as `http.client` wants a socket. A read ends at `until_ns` with TimeoutError, and when `stopped()`.

    What `http.client` closes stays open until `release`.
    """

    def __init__(self, connection: socket.socket, clock: Clock, until_ns: int, stopped: Callable[[], bool]) -> None:
        self.until_ns: int | None = until_ns
        self._connection, self._clock, self._stopped = connection, clock, stopped
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ)

    def sendall(self, data: bytes) -> None:
        """Send a request, within the time that the dialler has set."""
        self._connection.sendall(data)

    def makefile(self, mode: str, *args: Any) -> io.BufferedReader:
        """The answer, to be read."""
        self._connection.setblocking(False)
        return io.BufferedReader(_Raw(self.receive), 1 << 16)

    def receive(self, into: Any) -> int:
        """Bytes, once there are any; how many. 0 at the end."""
        while not self._stopped():
            left = LOOK_S
            if self.until_ns is not None:
                left = min(left, (self.until_ns - self._clock.now_ns()) / NS)
                if left <= 0:
                    raise TimeoutError
            with contextlib.suppress(BlockingIOError, InterruptedError, ssl.SSLWantReadError):
                return self._connection.recv_into(into)
            self._selector.select(left)
        return 0

    def close(self) -> None:
        """`http.client` has asked all that it will."""

    def release(self) -> None:
        """Close the connection."""
        self._selector.close()
        self._connection.close()


class _Raw(io.RawIOBase):
    def __init__(self, receive: Callable[[Any], int]) -> None:
        self._receive = receive

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        return self._receive(into)
