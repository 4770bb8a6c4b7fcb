"""The private pipe between an isolated server's handle and its process: the one place where avlab unpickles.

Whoever holds the other end has proved that it knows a key, made anew for each process and told on its standard input
alone: it is this very program, and no peer. What peers send never comes here.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.connection import Client
from typing import Any

import cloudpickle

LONGEST = 1 << 26
"""Bytes of a message to the handle. Settings of hours fit; what is longer is none of such a process."""

PIECE = 1 << 22
"""Bytes of a trace's rows that go at a time."""

LOOPBACK = "127.0.0.1"


class Pipe:
    """Messages, each a dict, and behind one of them rows as they are. Any thread may send, one receives.

    `connection` is one of multiprocessing's, whose class differs from system to system.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: dict[str, Any], rows: Iterable[bytes] = (), seconds: float = -1) -> bool:
        """Send them together; False when nobody listens any more, or for so many `seconds` (-1: as long as it takes).

        Raises what pickling raises, before anything is sent.
        """
        data = cloudpickle.dumps(message)
        if not self._sending.acquire(timeout=seconds):
            return False
        try:
            self._connection.send_bytes(data)
            for part in rows:
                for start in range(0, len(part), PIECE):
                    self._connection.send_bytes(part, start, min(PIECE, len(part) - start))
        except OSError:  # closed, on this side or the other
            return False
        finally:
            self._sending.release()
        return True

    def receive(self, longest: int | None = LONGEST) -> dict[str, Any] | None:
        """The next message; None when the other side has gone. Raises anything else for what is none."""
        try:
            data = self._connection.recv_bytes(longest)
        except (EOFError, ConnectionError):
            return None
        try:
            message = pickle.loads(data)
        except EOFError:
            raise ValueError("a message that ends early") from None
        if not isinstance(message, dict):
            raise TypeError(f"a {type(message).__name__} is no message")
        return message

    def receive_rows(self, size: int) -> bytes:
        """So many bytes, behind the message that announced them. EOFError when they end early, ValueError for more."""
        parts: list[bytes] = []
        while size:
            parts.append(self._connection.recv_bytes(PIECE))
            size -= len(parts[-1])
            if size < 0 or not parts[-1]:
                raise ValueError("rows that were not announced")
        return b"".join(parts)

    def close(self) -> None:
        """Let go of this end."""
        self._connection.close()


def connected(line: bytes, key: bytes) -> Pipe:
    """The pipe to the process that says on its output, in this line, where it listens. Raises anything for no line."""
    address = json.loads(line)
    if isinstance(address, list):  # a port of this machine
        host, port = address
        address = (host, port)
        if host != LOOPBACK:
            raise ValueError("the process listens on another machine")
    return Pipe(Client(address, authkey=key))


# ---- what goes over it


def packed(values: Mapping[str, Any]) -> bytes:
    """Values by name, anyone's own functions and classes among them: those of a notebook or script go as code.

    What two of them share is shared on the other side as well. ValueError, naming the value, for what lives in this
    process alone.
    """
    file = io.BytesIO()
    _pack(values, file)
    return file.getvalue()


def check_packable(values: Mapping[str, Any]) -> None:
    """As `packed`, which keeps nothing. ValueError."""
    _pack(values, _Nowhere())


def _pack(values: Mapping[str, Any], file: Any) -> None:
    pickler = cloudpickle.Pickler(file, protocol=pickle.HIGHEST_PROTOCOL)  # remembers from one value to the next
    pickler.dump(list(values))
    for name, value in values.items():
        if isinstance(value, Iterator):  # some could be sent, less what was read of them here
            raise ValueError(
                f"{name} is a {type(value).__name__}, which can be read only once and only in this process, and "
                "isolated=True has the server run in another: hand over a list or the path of a clip, or leave "
                "isolated out"
            )
        try:
            pickler.dump(value)
        except Exception as error:  # anyone's own __reduce__ and __getstate__ are called
            raise ValueError(
                f"{name} cannot be sent to another process ({_words(error)}), and isolated=True has the server run in "
                "one: make what it needs inside of it when it is first called, or leave isolated out"
            ) from None


def unpacked(data: bytes) -> dict[str, Any]:
    """What `packed` was given. ValueError, naming the value, for what cannot be made in this process."""
    unpickler = pickle.Unpickler(io.BytesIO(data))
    values: dict[str, Any] = {}
    for name in unpickler.load():
        try:
            values[name] = unpickler.load()
        except Exception as error:  # a module that is not found here, anyone's own __setstate__
            raise ValueError(
                f"{name} cannot be made in the isolated server's process ({_words(error)}): define it in the notebook "
                "or script itself, or leave isolated out"
            ) from None
    return values


def _words(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said:.200}" if said else type(error).__name__


class _Nowhere:
    """A file that keeps nothing: whether pictures can be sent is asked without a second copy of them."""

    def write(self, data: Any) -> int:
        """So many bytes, forgotten."""
        return len(memoryview(data))


# ---- errors


def packed_error(error: BaseException) -> dict[str, Any]:
    """An error, with its sentence for where it cannot be made again."""
    text = f"{type(error).__name__}: {error}" if not isinstance(error, Exception) else str(error)
    said: dict[str, Any] = {"kind": type(error).__name__, "text": text or type(error).__name__}
    if isinstance(error, Exception):
        try:
            said["pickled"] = cloudpickle.dumps(error)
        except Exception:  # it holds something that lives in this process alone
            return said
    return said


def unpacked_error(said: Mapping[str, Any]) -> Exception:
    """The same error, where it can be made again; else a RuntimeError with its sentence."""
    kind, text = str(said["kind"]), str(said["text"])
    if "pickled" in said:
        try:
            error = pickle.loads(said["pickled"])
            if isinstance(error, Exception) and (str(error) or kind) == text:
                error.args = error.args or (text,)  # as a MemoryError has none, and no sentence
                return error
        except Exception:  # made with other arguments than those it keeps
            return RuntimeError(text)
    return RuntimeError(text if text.startswith(kind) else f"{kind}: {text}")


def read_key(line: bytes) -> bytes:
    """The key, from the line that the handle writes. ValueError."""
    key = bytes.fromhex(line.decode("ascii"))
    if not key:
        raise ValueError("no key")
    return key


def new_key() -> bytes:
    """A key that nobody guesses."""
    return os.urandom(32)
