"""Connections that are opened in a given time, and broken off from another thread; clients that wait in the network."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ports
import pytest
from rawclient import until

import avlab
from avlab.stream.sockets import dialling
from avlab.stream.sockets.dialling import BrokenOffError, Dialler


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Takes connections, and answers nothing."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        made.settimeout(20)
        yield made


@pytest.fixture
def full() -> Iterator[int]:
    """A port of this machine whose connections are never taken: its queue is full, so that it answers nobody."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(socket.socket())
        made.bind(("127.0.0.1", 0))
        made.listen(0)
        port = made.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def aside(work: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_connection_carries_bytes(host: str, listener: socket.socket) -> None:
    with Dialler().connect(host, listener.getsockname()[1], 10) as here, listener.accept()[0] as there:
        there.sendall(b"hello")
        assert here.recv(5, socket.MSG_WAITALL) == b"hello"
        assert here.gettimeout() == 10


def test_nobody_listens_and_nobody_knows() -> None:
    with pytest.raises(ConnectionRefusedError):
        Dialler().connect("127.0.0.1", ports.free(), 10)
    with pytest.raises(UnicodeError):
        Dialler().connect("a" * 70 + ".example", 9, 10)


def test_the_time_is_bounded(full: int) -> None:
    with pytest.raises(TimeoutError):
        Dialler().connect("127.0.0.1", full, 0.1)


def test_what_was_cancelled_connects_no_more(listener: socket.socket) -> None:
    dialler = Dialler()
    dialler.cancel()
    dialler.cancel()
    with pytest.raises(BrokenOffError):
        dialler.connect("127.0.0.1", listener.getsockname()[1], 10)


def test_one_that_waits_for_a_connection_is_broken_off(full: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    wait = Dialler.wait_for

    def watched(self: Dialler, *args: Any) -> bool:
        waits.set()
        return wait(self, *args)

    monkeypatch.setattr(Dialler, "wait_for", watched)
    dialler = Dialler()
    thread, raised = aside(lambda: dialler.connect("127.0.0.1", full, 60))
    assert waits.wait(10)
    dialler.cancel()
    thread.join(10)
    assert [type(error) for error in raised] == [BrokenOffError]


def test_one_that_waits_for_an_answer_finds_the_end(listener: socket.socket) -> None:
    dialler = Dialler()
    connection = dialler.connect("127.0.0.1", listener.getsockname()[1], 60)
    said: list[bytes] = []
    thread, raised = aside(lambda: said.append(connection.recv(10)))
    dialler.cancel()
    thread.join(10)
    connection.close()
    assert not thread.is_alive()
    assert (said, raised) == ([b""], [])


def test_a_name_that_nobody_answers_for_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = threading.Event(), threading.Event()
    lookup = socket.getaddrinfo

    def slow(host: str, *args: Any, **more: Any) -> Any:
        if more.get("flags"):
            raise socket.gaierror("no number")
        asked.set()
        assert answered.wait(30)
        return lookup("127.0.0.1", *args, **more)

    monkeypatch.setattr(dialling.socket, "getaddrinfo", slow)
    dialler = Dialler()
    thread, raised = aside(lambda: dialler.connect("server.example", 554, 60))
    assert asked.wait(10)
    dialler.cancel()
    thread.join(10)
    assert [type(error) for error in raised] == [BrokenOffError]
    with pytest.raises(TimeoutError, match=r"nobody says within 0\.05 s where 'server.example' is"):
        Dialler().connect("server.example", 554, 0.05)
    answered.set()
    until(lambda: not any(thread.name == "avlab-lookup" for thread in threading.enumerate()))


def test_a_client_that_waits_for_an_answer_is_stopped(listener: socket.socket) -> None:
    client = avlab.Client(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x", audio="null", timeout=60)
    thread, raised = aside(client.start)
    with listener.accept()[0] as there:
        assert there.recv(4096)  # it has asked
        client.stop()
    thread.join(20)
    assert [str(error) for error in raised] == ["this client was stopped while it was starting"]


def test_a_client_that_waits_for_a_picture_is_stopped() -> None:
    """Nothing listens where the classic wire's sound is: it waits for pictures alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pictures:
        pictures.bind(("127.0.0.1", 0))
        pictures.settimeout(20)
        client = avlab.Client(f"classic://127.0.0.1:{pictures.getsockname()[1]}", audio="null", timeout=60)
        thread, raised = aside(client.start)
        assert pictures.recv(100)
        client.stop()
    thread.join(20)
    assert [str(error) for error in raised] == ["this client was stopped while it was starting"]


def test_a_client_that_waits_for_a_connection_is_stopped(full: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    wait = Dialler.wait_for

    def watched(self: Dialler, *args: Any) -> bool:
        waits.set()
        return wait(self, *args)

    monkeypatch.setattr(Dialler, "wait_for", watched)
    for url in (f"rtsp://127.0.0.1:{full}/x", f"classic://127.0.0.1:{full + 1}"):
        waits.clear()
        client = avlab.Client(url, audio="null", timeout=60)
        thread, raised = aside(client.start)
        assert waits.wait(10)
        client.stop()
        thread.join(20)
        assert [str(error) for error in raised] == ["this client was stopped while it was starting"]
