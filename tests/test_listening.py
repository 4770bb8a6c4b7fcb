"""The listening socket: peers that are gone before they are let in, a system without descriptors, a scan of ports."""

from __future__ import annotations

import errno
import selectors
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from rawclient import until

import avlab
from avlab.stream.sockets.links import SHORTAGES, TcpLink
from avlab.stream.sockets.listening import REST_NS, Listener

RESET_AT_CLOSE = struct.pack("ii", 1, 0)
NOW_NS = 5_000_000_000


class Scripted:
    """A listening socket on which `accept` does first what it is told, and then what the real one does."""

    def __init__(self, real: socket.socket, *outcomes: Any) -> None:
        self.real, self.outcomes = real, list(outcomes)

    def accept(self) -> Any:
        if not self.outcomes:
            return self.real.accept()
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, int):
            raise OSError(outcome, "as told")
        return outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Told(list[str]):
    """The names of the notices so far."""

    def __call__(self, name: str, words: str) -> None:
        self.append(name)
        assert words.endswith("(ulimit -n)")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def listener(told: Told) -> Iterator[Listener]:
    made = Listener("127.0.0.1", 0, notice=told)
    yield made
    made.close()


@pytest.fixture
def selector(listener: Listener) -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        listener.watch(made, "listener")
        yield made


def connect(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), 10)


def arrivals(listener: Listener, count: int) -> list[Any]:
    got: list[Any] = []

    def all_there() -> bool:
        got.extend(listener.accept(NOW_NS))
        return len(got) >= count

    until(all_there)
    return got


def test_a_connection_is_told_with_both_addresses(listener: Listener, selector: selectors.BaseSelector) -> None:
    assert listener.accept(NOW_NS) == []
    with connect(listener) as far:
        [(key, _)] = selector.select(10)
        assert key.data == "listener"
        [arrival] = listener.accept(NOW_NS)
        assert arrival.address == far.getsockname()
        assert arrival.local == ("127.0.0.1", listener.port)
        far.sendall(b"hello")
        until(lambda: arrival.link.receive() == b"hello")
        arrival.link.close()


def test_more_than_a_turns_connections_take_another_turn(listener: Listener) -> None:
    far = [connect(listener) for _ in range(20)]
    first = listener.accept(NOW_NS)
    assert 0 < len(first) < 20
    rest = arrivals(listener, 20 - len(first))
    assert {arrival.address for arrival in first + rest} == {end.getsockname() for end in far}
    for end in far:
        end.close()
    for arrival in first + rest:
        arrival.link.close()


def test_a_peer_that_has_reset_is_no_error(listener: Listener) -> None:
    for _ in range(5):
        gone = connect(listener)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        gone.close()
    with connect(listener) as far:
        got: list[Any] = []

        def there() -> bool:
            got.extend(listener.accept(NOW_NS))
            return any(arrival.address == far.getsockname() for arrival in got)

        until(there)
        for arrival in got[:-1]:
            assert arrival.link.receive() is None
        for arrival in got:
            arrival.link.close()


def test_a_connection_that_takes_no_options_is_still_a_link() -> None:
    class Reset(socket.socket):
        def setsockopt(self, *_: Any) -> None:
            raise OSError(errno.EINVAL, "as macOS says of a connection that was reset")

    near, far = socket.socketpair()
    with far:
        link = TcpLink(Reset(fileno=near.detach()))
        far.sendall(b"hello")
        until(lambda: link.receive() == b"hello")
        link.close()


@pytest.mark.parametrize(
    "code",
    [errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EINVAL],
)
def test_what_befell_one_peer_keeps_no_other_out(
    listener: Listener, selector: selectors.BaseSelector, told: Told, code: int
) -> None:
    with connect(listener):
        assert selector.select(10)
        listener.socket = Scripted(listener.socket, code, code)  # type: ignore[assignment]
        [arrival] = listener.accept(NOW_NS)
        arrival.link.close()
    assert listener.wake_at() is None
    assert not told


def test_a_connection_without_an_address_is_let_go(listener: Listener) -> None:
    near, far = socket.socketpair()
    listener.socket = Scripted(listener.socket, (near, None))  # type: ignore[assignment]
    assert listener.accept(NOW_NS) == []
    assert near.fileno() == -1
    far.close()


@pytest.mark.parametrize("code", sorted(SHORTAGES))
def test_without_descriptors_it_rests_says_so_once_and_goes_on(
    listener: Listener, selector: selectors.BaseSelector, told: Told, code: int
) -> None:
    with connect(listener):
        assert selector.select(10)
        listener.socket = Scripted(listener.socket, code, code)  # type: ignore[assignment]
        for moment_ns in (NOW_NS, NOW_NS + REST_NS):  # twice in a row
            assert listener.accept(moment_ns) == []
            assert selector.select(0) == []  # else a loop would find it ready for ever
            assert listener.wake_at() == moment_ns + REST_NS
            listener.resume(moment_ns + REST_NS - 1)
            assert selector.select(0) == []
            listener.resume(moment_ns + REST_NS)
            assert listener.wake_at() is None
            assert selector.select(10)
        [arrival] = listener.accept(NOW_NS + 2 * REST_NS)
        arrival.link.close()
    assert told == ["out of descriptors"]


@pytest.mark.parametrize("code", [errno.EBADF, errno.ENOTSOCK])
def test_a_fault_of_ones_own_is_not_hidden(listener: Listener, code: int) -> None:
    listener.socket = Scripted(listener.socket, code)  # type: ignore[assignment]
    with pytest.raises(OSError, match="as told"):
        listener.accept(NOW_NS)


# ---- a scan of ports


SAID = [
    b"",
    b"\r\n",
    b"OPTIONS rtsp://",
    b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n",
    b"OPTIONS rtsp://[x RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
    b"$\0\xff\xff" + bytes(100),
    bytes(range(256)) * 100,
]
"""What those say who look what listens at a port: nothing, half a request, another protocol, anything."""


@contextmanager
def everything(kind: str, clip: str) -> Iterator[tuple[str, int, int]]:
    """A server or a relay: its URL, its TCP port and its UDP port."""
    with avlab.Server(clip, loop=True, wire="classic" if kind == "classic" else "rtsp") as server:
        port = urlsplit(server.url).port or 0
        if kind == "classic":
            yield server.url, port - 1, port
        elif kind == "rtsp":
            yield server.url, port, port
        else:
            with avlab.Relay(server.url) as relay:
                yield relay.url, relay.port, relay.port


@pytest.mark.parametrize("kind", ["rtsp", "classic", "relay"])
def test_a_scan_of_its_ports_keeps_nobody_out(kind: str, data: Path) -> None:
    with everything(kind, str(data / "count-15.mp4")) as (url, tcp_port, udp_port):
        with ExitStack() as stack:
            sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for reset in (True, False):
                for said in SAID:
                    sender.sendto(said[:1400], ("127.0.0.1", udp_port))
                    end = stack.enter_context(socket.create_connection(("127.0.0.1", tcp_port), 10))
                    end.sendall(said)
                    if reset:
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                        end.close()
                        socket.create_connection(("127.0.0.1", tcp_port), 10).close()
            with avlab.Client(url, audio="null") as client:  # while those are there who only hold a connection
                until(lambda: len(client.trace.frames) > 5)
        with avlab.Client(url, audio="null") as client:
            until(lambda: len(client.trace.frames) > 5)
