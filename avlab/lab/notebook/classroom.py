"""A class on one page: who plays a server's stream, how each of them fares, and what it all comes to.

One thread asks the server once a second and sends the page what it says; `send` is all that it touches of the widget.
Names are strangers' and go to the page as text. `classroom.js` is the page's half.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import anywidget
from IPython.core.getipython import get_ipython
from IPython.display import display

from avlab.lab.notebook.controls import sentence
from avlab.lab.notebook.live import Post, Shown
from avlab.measure.numbers.attendance import WIFI, Member, Roll, total_kbps, total_words
from avlab.stream.clock import MonotonicClock, VirtualClock, WallClock
from avlab.stream.handle import Worker
from avlab.stream.server import Server
from avlab.wire.units import NS

EVERY_S = 1.0
"""Between two looks, seconds."""

REMEMBERED = 60
"""Looks that a sparkline shows: a minute."""

NEWS_SHOWN = 5
"""Who came or left last."""


class Classroom(Shown, anywidget.AnyWidget):  # type: ignore[misc]
    """The table of a server's clients, live. Made by `avlab.classroom`; ends with the server, or by `close()`.

    The saved notebook holds none of it: names are its people's affair. `error` is what failed, which the page tells
    too, and which does not stop the stream. `clock` is for tests.
    """

    _esm = Path(__file__).with_name("classroom.js")
    _css = Path(__file__).with_name("classroom.css")
    _worker: Worker | None = None

    def __init__(self, server: Server, *, clock: MonotonicClock | VirtualClock | None = None) -> None:
        super().__init__()
        self._server = server
        self._clock = clock or MonotonicClock()
        self._wall = WallClock()
        self._post = Post()
        self._roll = Roll()
        self._news: deque[str] = deque(maxlen=NEWS_SHOWN)
        self._past: dict[int, deque[tuple[float | None, float | None]]] = {}
        self._last: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self.on_msg(self._hear)
        self._worker = server.spawn("classroom", self._follow)

    def close(self) -> None:
        """Take the table off the page; ends its thread."""
        if self._worker is not None:
            self._worker.signal()
            self._worker.join(1.0)
        super().close()

    def _follow(self, worker: Worker) -> None:
        members: Sequence[Member] = ()
        try:
            while self._server.running:
                members = self._server.members
                self._take(members)
                number = self._post.admit(self._clock.now_ns())
                if number is not None:
                    self._tell(number, members)
                if worker.stopping.wait(EVERY_S):
                    break
            self._tell(None, members)
        except Exception as error:  # a table that fails is no reason to stop the stream: the page says what it was
            self.error = error
            self._last = {"number": None, "failed": True, "say": f"The table cannot be read: {sentence(error)}"}
            self.send(self._last)

    def _take(self, members: Sequence[Member]) -> None:
        """One more look, whether the page is told of it or not."""
        now = self._wall.unix_ns(self._clock.now_ns())
        at = datetime.fromtimestamp(now / NS).strftime("%H:%M:%S")
        self._news.extend(f"{at} {change}" for change in self._roll.call(members, now))
        past = {member.client: self._past.get(member.client) or deque(maxlen=REMEMBERED) for member in members}
        for member in members:
            past[member.client].append((_scaled(member.fps), _scaled(member.loss, 100)))
        self._past = past

    def _tell(self, number: int | None, members: Sequence[Member]) -> None:
        """Send how things stand; without a number, for the last time."""
        self._last = {
            "number": number,
            "ended": number is None,
            "rows": [self._row(member) for member in members],
            "say": total_words(members) if number is not None else "The server has ended.",
            "mbps": total_kbps(members) / 1e3,
            "carries": [[name, mbps] for name, mbps in WIFI],
            "news": list(self._news),
            "seconds": REMEMBERED * EVERY_S,
        }
        self.send(self._last)

    def _row(self, member: Member) -> dict[str, Any]:
        """A client in the page's units; None for what is not known."""
        past = self._past.get(member.client, ())
        return {
            "client": member.client,
            "name": member.name,
            "address": member.address + " (multicast)" * bool(member.group),
            "since": datetime.fromtimestamp(member.since_ns / NS).strftime("%H:%M:%S"),
            "fps": _scaled(member.fps),
            "loss": _scaled(member.loss, 100),
            "jitter": _scaled(member.jitter, 1e3),
            "round_trip": _scaled(member.round_trip, 1e3),
            "kbps": _scaled(member.kbps),
            "report": _scaled(member.last_report),
            "fps_past": [fps for fps, _ in past],
            "loss_past": [loss for _, loss in past],
        }

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """A word from the page; on the kernel's main thread or on a subshell's."""
        if "hello" in content:
            self._post.hello(self._clock.now_ns())
            if self._last is not None:  # after a reload, what was there before
                self.send(self._last | {"number": None})
        elif "seen" in content:
            self._post.seen(content["seen"], self._clock.now_ns())


def _scaled(value: float | None, by: float = 1.0) -> float | None:
    return None if value is None else round(value * by, 1)


def classroom(server: Server) -> Classroom:
    """Show who plays a server's stream, live in the notebook: a table that sorts, and a sparkline for each client.

    Each has its name (`avlab.Client(url, name="Ada")`, `avlab play --name Ada`), what is sent to it, and what it
    reports; above them stands what all are sent together, against what a room's Wi-Fi carries. Returns the widget.
    TypeError for what is no server, RuntimeError when it does not run.

    Args:
        server: A server of this process that runs.
    """
    if not isinstance(server, Server):
        raise TypeError(f"classroom shows the clients of an avlab.Server, not of {type(server).__name__}")
    if not server.running:
        raise RuntimeError("this server does not run, so nobody plays it: start it first, as in server.start()")
    made = Classroom(server)
    if get_ipython() is not None:
        display(made)
    return made
