"""The web server of the http wire, Tornado's, in an event loop on a thread of its own: handlers, and who looks.

All of it belongs to that loop, but for `take`, `show`, `hear`, `end` and `finish`, which are the server's thread's, and
for what is read of `viewers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from tornado import httpserver
from tornado.iostream import IOStream, StreamClosedError

from avlab.measure.record.trace import Recorder
from avlab.stream.clock import Clock
from avlab.stream.handle import Worker
from avlab.stream.http.gate import Denied, Gate
from avlab.stream.http.handlers import TYPES, application
from avlab.stream.http.viewers import Unit, Viewer
from avlab.stream.places import REQUEST_NS, Places, one_too_many
from avlab.wire.units import NS

MAX_HEADERS = 16 << 10
"""Bytes of a request's first line and headers."""

MAX_BODY = 1 << 10
"""Bytes of a request's body: a class's code is all that comes so."""

MAX_BUFFER = 64 << 10
"""Bytes of one connection that have come and were not read yet."""

UNREAD_BYTES = 64 << 10
"""What the system keeps of what a viewer has not read yet (Linux: twice that): what waits in a larger one is old."""

TICK_S = 1.0
"""How often pages are told numbers, and it is looked for viewers that take nothing."""

FAREWELL_S = 0.5
"""How long the last bytes have to leave."""

GRACE_S = 1.5
"""How long the loop waits for `finish` once its thread is to end: the server's thread may stand still in a part."""

MOST_TOLD = 200
"""How many refusals and partings the record names."""


class PageContent(NamedTuple):
    """What there is to see and to hear."""

    title: str
    fps: float | None
    pictures: bool
    rate: int | None
    """Sample frames a second; None without sound."""
    channels: int | None


class Site:
    """Viewers and the web server for them. `come` and `gone` are told a viewer's number, `notice` a sentence.

    `open` gives the thread's body, and `wake` ends it after a while; `finish` does at once.
    """

    def __init__(
        self,
        gate: Gate,
        shown: PageContent,
        *,
        places: Places,
        session_timeout: float,
        clock: Clock,
        recorder: Recorder,
        come: Callable[[int], None],
        gone: Callable[[int], None],
        notice: Callable[[str, str], None],
    ) -> None:
        self.gate, self.shown, self.clock = gate, shown, clock
        self.session_timeout = session_timeout
        self.viewers: dict[int, Viewer] = {}
        self.sent_bytes = 0
        self._places, self._recorder = places, recorder
        self._come, self._gone, self._notice = come, gone, notice
        self._met = self._told = 0
        self._closers: dict[int, Callable[[], None]] = {}  # by number
        self._newest: Unit | None = None  # for who comes while a clip of few pictures runs
        self._connections: dict[IOStream, str] = {}  # without a complete request, oldest first, and their hosts
        self._streams: weakref.WeakKeyDictionary[IOStream, str] = weakref.WeakKeyDictionary()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finished = asyncio.Event()
        self._ran = False
        folder = files("avlab.stream.http")
        self.files = {name: folder.joinpath(name).read_bytes() for name in TYPES}
        patience = min(session_timeout, REQUEST_NS / NS)
        self._server = httpserver.HTTPServer(
            application(self),
            max_header_size=MAX_HEADERS,
            max_body_size=MAX_BODY,
            max_buffer_size=MAX_BUFFER,
            idle_connection_timeout=patience,
            body_timeout=patience,
        )

    # ---- for the server's thread

    def open(self) -> Callable[[Worker], None]:
        """Make the loop: what is handed over from here on waits for the thread, whose body this gives."""
        loop = self._loop = asyncio.SelectorEventLoop()  # on Windows, too, where Tornado needs this one
        return lambda worker: self._run(loop)

    def take(self, connection: Any, host: str, local: str) -> None:
        """A connection has come from a host, to this address of this machine."""
        self._soon(self._take, connection, host, local)

    def show(self, picture: Unit) -> None:
        """A picture, for all who look."""
        self._soon(self._show, picture)

    def hear(self, chunk: Unit) -> None:
        """A chunk of sound, for all who listen."""
        self._soon(self._offer, chunk)

    def end(self, numbers: Collection[int]) -> None:
        """The stream is over for these viewers."""
        self._soon(self._end, tuple(numbers))

    def finish(self) -> None:
        """No more will come: the last bytes leave, and the thread ends."""
        self._soon(self._finished.set)

    def wake(self) -> None:
        """The thread is to end soon, whether or not somebody calls `finish`."""
        self._soon(lambda: asyncio.get_running_loop().call_later(GRACE_S, self._finished.set))

    def close(self) -> None:
        """Let go of a loop that never ran."""
        if self._loop is not None and not self._ran:
            self._loop.close()

    def _soon(self, act: Callable[..., Any], *given: Any) -> None:
        if self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(act, *given)

    # ---- the loop's thread

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ran = True
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self._unforeseen(context))
        ticking = asyncio.ensure_future(self._tick())
        await self._finished.wait()
        ticking.cancel()
        self._end(tuple(self.viewers))
        deadline = time.monotonic() + FAREWELL_S
        while self.viewers and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for stream in list(self._streams):
            stream.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=FAREWELL_S)

    def _take(self, connection: Any, host: str, local: str) -> None:
        """Serve a connection, unless too many wait already that have asked for nothing."""
        if self._finished.is_set():
            connection.close()
            return
        _keep_little(connection)
        stream = IOStream(connection, max_buffer_size=MAX_BUFFER)
        for old in [known for known in self._connections if known.closed()]:
            del self._connections[old]
        self._streams[stream] = local
        self._connections[stream] = host
        self._server.handle_stream(stream, (host, 0))
        if (at := one_too_many(list(self._connections.values()))) is not None:
            self._notice("connections", "more connections come than ask for anything: the oldest of them are closed")
            worst = list(self._connections)[at]
            self.tell("client refused", f"{self._connections.pop(worst)}: it asks for nothing, and others come")
            worst.close()

    def asked(self, stream: IOStream) -> str:
        """A connection has brought a whole request: at which address of this machine it came."""
        self._connections.pop(stream, None)
        return self._streams[stream]

    def refusal(self, host: str) -> Denied | None:
        """Why nobody else from there may look; None when somebody may."""
        words = self._places.refusal(host, [viewer.host for viewer in self.viewers.values()])
        if words is None:
            return None
        self.tell("client refused", f"{host}: {words}")
        self._notice("places", f"{words[0].lower()}{words[1:]}: others are refused until one of them leaves")
        return Denied(503, f"{words}.")

    def enter(self, host: str, *, in_parts: bool, close: Callable[[], None]) -> Viewer:
        """Somebody looks from now on; `close` ends the connection."""
        self._met += 1
        now_ns = self.clock.now_ns()
        viewer = Viewer(self._met, host, in_parts=in_parts, now_ns=now_ns, record=self._record)
        self._closers[viewer.number] = close
        self.viewers[viewer.number] = viewer
        if self._newest is not None:
            viewer.offer(self._newest, now_ns)
        self._come(viewer.number)
        return viewer

    def left(self, viewer: Viewer) -> None:
        """Somebody looks no more."""
        viewer.leave()
        self._closers.pop(viewer.number, None)
        if self.viewers.pop(viewer.number, None) is not None:
            self._gone(viewer.number)

    def _show(self, picture: Unit) -> None:
        self._newest = picture
        self._offer(picture)

    def _offer(self, unit: Unit) -> None:
        now_ns = self.clock.now_ns()
        for viewer in self.viewers.values():
            viewer.offer(unit, now_ns)

    def _end(self, numbers: Sequence[int]) -> None:
        self._newest = None
        for number in numbers:
            if (viewer := self.viewers.get(number)) is not None:
                viewer.end()

    async def _tick(self) -> None:
        """Numbers for the pages, and an end for who takes nothing."""
        limit_ns = round(self.session_timeout * NS)
        for turn in itertools.count():
            await asyncio.sleep(TICK_S / 4)
            now_ns = self.clock.now_ns()
            for viewer in list(self.viewers.values()):
                viewer.look(now_ns)
                if viewer.writing_ns is not None and now_ns - viewer.writing_ns > limit_ns:
                    self.tell("client timed out", f"{viewer.host}: it reads nothing")
                    self._closers[viewer.number]()
                    self.left(viewer)
                elif not viewer.in_parts and turn % 4 == 0:
                    viewer.say(json.dumps({"clients": len(self.viewers), "skipped": viewer.skipped}))

    def _record(self, stream: str, size: int, time_ns: int, fate: str | None) -> None:
        if fate is None:
            self.sent_bytes += size
        self._recorder.packets([(stream, None, None, None, None, size, time_ns, None, fate)])

    def tell(self, name: str, words: str) -> None:
        """An event for the record, unless there were very many."""
        self._told += 1
        if self._told <= MOST_TOLD:
            self._recorder.event(self.clock.now_ns(), name, words)

    def blame(self, host: str, error: BaseException) -> None:
        """Something that nobody has foreseen: it is said aloud, for whoever can mend it, and ends with that client."""
        kind = type(error).__name__
        self._notice("client failed", f"a client was parted from, as what it sent led to an error here ({kind})")
        self.tell("client refused", f"{host}: {kind}: {error}"[:300])

    def _unforeseen(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception) and not isinstance(error, StreamClosedError):
            self.blame("a connection", error)


def _keep_little(connection: socket.socket) -> None:
    """Have the system keep little of what is not read yet."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
