"""The program that runs a server for the handle in `isolated.server`: told what to do by lines of JSON, until they end.

When its input ends, whoever started it is gone, and it ends too. It says nothing on its output but answers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from avlab.measure.record.tables import TABLES, Rows
from avlab.measure.record.trace import Trace
from avlab.stream.isolated.parcel import packed, packed_error, unpacked
from avlab.stream.isolated.server import CHOSEN, READABLE
from avlab.stream.server import Server


class _Process:
    """The other side: does what the lines say, until they end."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._writing = threading.Lock()
        self._server: Server | None = None
        self._parent = os.getppid()

    def run(self, lines: queue.SimpleQueue[bytes | None]) -> None:
        """Until the lines end, or whoever sends them."""
        try:
            while True:
                try:
                    line = lines.get(timeout=1.0)
                except queue.Empty:
                    if os.getppid() == self._parent:  # another may hold the pipe open, as after a fork
                        continue
                    return
                if line is None or not self._do(json.loads(line)):
                    return
        finally:
            if self._server is not None:
                with contextlib.suppress(Exception):  # told when it failed
                    self._server.stop()

    def _do(self, message: dict[str, Any]) -> bool:
        """Do one thing, and answer; False when it was the last."""
        number, values = message["number"], message["values"]
        if message["do"] == "stop":
            if self._server is not None:
                with contextlib.suppress(Exception):
                    self._server.stop()
                state = self._state(self._server)
                self._say({"number": number, "state": state}, self._server.trace, values["have"])
            return False
        try:
            self._answer(message["do"], number, values)
        except Exception as error:
            self._say({"number": number, "error": packed_error(error)})
        return True

    def _answer(self, what: str, number: int, values: dict[str, Any]) -> None:
        if what == "start":
            self._server = Server(**{name: unpacked(value) for name, value in values.items()}).start()
            threading.Thread(target=self._watch, name="avlab-watch", daemon=True).start()
            self._say({"number": number, "url": self._server.url})
            return
        server = self._server
        assert server is not None
        if what == "set":
            for name, value in values.items():
                setattr(server, name, unpacked(value))
            self._say({"number": number})
        elif what == "state":
            self._say({"number": number, "state": self._state(server)})
        else:
            self._say({"number": number}, server.trace, values["have"])

    @staticmethod
    def _state(server: Server) -> dict[str, Any]:
        return {
            "status": server.status(),
            **{name: packed(name, getattr(server, name)) for name in (*READABLE, *CHOSEN)},
        }

    def _watch(self) -> None:
        """Tell how the server ends."""
        assert self._server is not None
        try:
            self._server.wait()
        except BaseException as error:
            self._say({"failed": packed_error(error), "state": self._state(self._server)})
        else:
            self._say({"ended": True, "state": self._state(self._server)})

    def _say(self, message: dict[str, Any], trace: Trace | None = None, have: Mapping[str, int] | None = None) -> None:
        parts: list[Iterator[Rows]] = []
        if trace is not None and have is not None:
            numbers = {name: max(0, trace.count(name) - have[name]) for name in TABLES}
            settings = [list(row) for row in trace.setting_rows[have["settings"] :]]
            message = message | {"rows": numbers, "from": dict(have), "settings": settings, "meta": trace.meta}
            parts = [trace.rows_from(name, have[name]) for name in TABLES]
        with self._writing, contextlib.suppress(OSError):  # nobody reads any more: the lines will end as well
            self._out.write(json.dumps(message).encode() + b"\n")
            for rows in itertools.chain(*parts):
                self._out.write(rows.tobytes())
            self._out.flush()


def _read_lines(put: Callable[[bytes | None], None]) -> None:
    # Not through sys.stdin: a thread that waits in its lock when the process ends is a fatal error to Python.
    rest = b""
    while data := os.read(0, 65_536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            put(line)
    put(None)


def main() -> None:
    """The program."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no line of ours
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines.put,), name="avlab-lines", daemon=True).start()
    _Process(out).run(lines)


if __name__ == "__main__":
    main()
