"""The program that runs a server for the handle in `isolated.server`: does what the pipe says, until its end.

When its input or the pipe ends, whoever started it is gone, and it ends too. On its output it says where it listens,
and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

from avlab.measure.record.tables import TABLES, Rows
from avlab.measure.record.trace import Trace
from avlab.stream.isolated.door import Door
from avlab.stream.isolated.isolatedserver import CHOSEN, READABLE
from avlab.stream.isolated.pipe import Pipe, packed_error, read_key, unpacked
from avlab.stream.server import Server

LOOK_SECONDS = 1.0
"""How often it looks whether its parent is there."""

STOP_SECONDS = 3.0
"""Its threads' time to end, within that of the handle's own."""

Asked = tuple[Pipe, dict[str, Any], bytes]
"""A message, the pipe that it came by, and the packed values behind it."""


class _Process:
    """The other side: does what it is told, until the end."""

    def __init__(self, told: int) -> None:
        self._told = told  # the descriptor that was its standard input
        self._asked: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._server: Server | None = None
        self._parent = os.getppid()

    def run(self, door: Door) -> None:
        """Until the pipe ends, or whoever is at its other end."""
        for name, body in (("door", lambda: self._read(door)), ("input", self._watch_input)):
            threading.Thread(target=body, name=f"avlab-{name}", daemon=True).start()
        try:
            while (asked := self._next()) is not None and self._do(*asked):
                pass
        finally:
            door.close()
            if self._server is not None:
                with contextlib.suppress(Exception):  # told when it failed
                    self._server.stop(STOP_SECONDS)

    def _next(self) -> Asked | None:
        while True:
            try:
                return self._asked.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                if os.getppid() != self._parent:  # another may hold pipe and input open, as after a fork
                    return None

    def _read(self, door: Door) -> None:
        """The thread that waits for the handle, and then for what it says."""
        try:
            connection = door.accept()
            door.close()
            if connection is not None:
                pipe = Pipe(connection)
                while (message := pipe.receive(longest=None)) is not None:
                    self._asked.put((pipe, message, pipe.receive_rows(message["size"])))
        finally:
            self._asked.put(None)

    def _watch_input(self) -> None:
        # Not through sys.stdin: a thread that waits in its lock when the process ends is a fatal error to Python.
        with contextlib.suppress(OSError):
            while os.read(self._told, 4096):
                pass
        self._asked.put(None)

    def _do(self, pipe: Pipe, message: dict[str, Any], values: bytes) -> bool:
        """Do one thing, and answer; False when it was the last."""
        number = message["number"]
        if message["do"] == "stop":
            if self._server is not None:
                with contextlib.suppress(Exception):
                    self._server.stop(STOP_SECONDS)
                _say(pipe, {"number": number, "state": _state(self._server)}, self._server.trace, message["have"])
            return False
        try:
            self._answer(pipe, number, message, values)
        except Exception as error:
            _say(pipe, {"number": number, "error": packed_error(error)})
        return True

    def _answer(self, pipe: Pipe, number: int, message: dict[str, Any], values: bytes) -> None:
        what = message["do"]
        if what == "start":
            sys.path[:] = message["path"]
            server = self._server = Server(**unpacked(values)).start()
            threading.Thread(target=_watch, args=(server, pipe), name="avlab-watch", daemon=True).start()
            _say(pipe, {"number": number, "url": server.url})
            return
        if self._server is None:
            raise RuntimeError("the server has not been started in its process")
        server = self._server
        if what == "set":
            for name, value in unpacked(values).items():
                setattr(server, name, value)
            _say(pipe, {"number": number})
        elif what == "get":
            _say(pipe, {"number": number, "state": {message["name"]: _said(server, message["name"])}})
        else:
            _say(pipe, {"number": number}, server.trace, message["have"])


def _watch(server: Server, pipe: Pipe) -> None:
    """Tell how a server ends."""
    try:
        server.wait()
    except BaseException as error:
        _say(pipe, {"failed": packed_error(error), "state": _state(server)})
    else:
        _say(pipe, {"ended": True, "state": _state(server)})


def _say(pipe: Pipe, message: dict[str, Any], trace: Trace | None = None, have: dict[str, int] | None = None) -> None:
    """Send a message, with what a trace has more than the handle; where nobody reads it, the end is near."""
    parts: list[Iterator[Rows]] = []
    if trace is not None and have is not None:
        numbers = {name: max(0, trace.count(name) - have[name]) for name in TABLES}
        settings = [tuple(row) for row in trace.setting_rows[have["settings"] :]]
        message = message | {"rows": numbers, "from": have, "settings": settings, "meta": trace.meta}
        parts = [trace.rows_from(name, have[name]) for name in TABLES]
    pipe.send(message, (rows.tobytes() for rows in itertools.chain(*parts)))


def _said(server: Server, name: str) -> Any:
    return server.status() if name == "status" else getattr(server, name)


def _state(server: Server) -> dict[str, Any]:
    """All that it says of itself."""
    state = {}
    for name in ("status", *READABLE, *CHOSEN):
        with contextlib.suppress(Exception):  # a part of anyone's own is asked for some of it
            state[name] = _said(server, name)
    return state


def main() -> None:
    """The program."""
    said, told = os.dup(1), os.dup(0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # what a library prints, or anyone's own part, is not for the handle, nor is it to wait
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(told, 1)):
            return
        line += byte
    process = _Process(told)
    door = Door(read_key(line))
    with os.fdopen(said, "wb") as out:
        out.write(json.dumps(door.address).encode() + b"\n")
    process.run(door)
