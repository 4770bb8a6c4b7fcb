"""Reaching a server over TCP in a given time, in a way that another thread can break off."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from avlab.stream.sockets.links import Waker


class BrokenOffError(ConnectionError):
    """`Dialler.cancel` was called while a connection was opened."""


class Dialler:
    """Opens connections until it is cancelled. `cancel` may come from any thread, the rest is its owner's."""

    def __init__(self) -> None:
        self._waker: Waker | None = None
        self._last: socket.socket | None = None
        self._lock = threading.Lock()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Have `connect` raise BrokenOffError now and from now on; whoever waits for the last connection finds its end.

        Harmless at any time, also before and after.
        """
        with self._lock:
            self._cancelled = True
            if self._waker is not None:
                self._waker.wake()
            if self._last is not None:
                with contextlib.suppress(OSError):  # closed, or never connected
                    self._last.shutdown(socket.SHUT_RDWR)

    def connect(
        self, host: str, port: int, timeout: float, *, prepare: Callable[[socket.socket], None] | None = None
    ) -> socket.socket:
        """A connection to the first of the host's addresses that takes one, within `timeout` seconds for each.

        `prepare` is given each socket before it connects. Raises socket.gaierror for a name that is not known,
        TimeoutError, ConnectionRefusedError and other OSErrors as the system says them, BrokenOffError once cancelled.
        The socket blocks for up to `timeout` seconds.
        """
        failures: list[OSError] = []
        for family, address in self.lookup(host, port, timeout):
            try:
                return self._connect(family, address, timeout, prepare)
            except BrokenOffError:
                raise
            except OSError as error:
                failures.append(error)
        raise failures[0]  # a look-up that finds nothing raises

    def lookup(self, host: str, port: int, timeout: float) -> list[tuple[int, Any]]:
        """The host's families and addresses for TCP. Raises as `connect` does."""
        found: list[tuple[int, Any]] = []
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found.extend((int(family), address) for family, _, _, _, address in known)
            except BaseException as error:
                failures.append(error)
            waker.wake()

        with self._waiting() as waker:
            try:
                # A number is no question to anybody; a name may be one to a server that is gone, for half a minute.
                known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
                found.extend((int(family), address) for family, _, _, _, address in known)
            except (OSError, UnicodeError):
                thread = threading.Thread(target=ask, name="avlab-lookup", daemon=True)
                thread.start()
                if not self.wait_for(waker, None, timeout) and not (found or failures):
                    raise TimeoutError(f"nobody says within {timeout:g} s where {host!r} is") from None
                self._check()
                thread.join(1.0)
        if failures:
            raise failures[0]
        return found

    def _connect(
        self, family: int, address: Any, timeout: float, prepare: Callable[[socket.socket], None] | None
    ) -> socket.socket:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            if prepare is not None:
                prepare(connection)
            connection.setblocking(False)
            number = connection.connect_ex(address)
            if number in (errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS)):
                with self._waiting() as waker:
                    if not self.wait_for(waker, connection, timeout):
                        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._check()
            if number:
                raise OSError(number, os.strerror(number))  # of the subclass that belongs to the number
            connection.settimeout(timeout)
            with self._lock:
                self._last = connection
            self._check()
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _waiting(self) -> Any:
        waker = Waker()
        with self._lock:
            self._waker = waker
        try:
            self._check()
            yield waker
        finally:
            with self._lock:
                self._waker = None
            waker.close()

    def wait_for(self, waker: Waker, connection: socket.socket | None, timeout: float) -> bool:
        """Until the waker wakes or the connection is open or refused; False when the time is over first."""
        deadline = time.perf_counter() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(waker, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection, selectors.EVENT_WRITE)
            while (left := deadline - time.perf_counter()) > 0:
                if selector.select(left):
                    return True
        return False

    def _check(self) -> None:
        if self._cancelled:
            raise BrokenOffError("it was broken off")
