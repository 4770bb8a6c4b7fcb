"""The control panel in a notebook: sliders and buttons over a server and a client, and what goes on, live.

Callbacks write a value into a handle, and nothing else. The numbers come from one thread, which belongs to the client
and touches nothing of the widgets but `send`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anywidget
import ipywidgets as widgets
from IPython.core.getipython import get_ipython
from IPython.display import display

from avlab.lab.notebook import view
from avlab.lab.notebook.controls import Controls, sentence
from avlab.lab.notebook.live import Live, Post, Shown
from avlab.lab.plots.runs import ACCEPTABLE
from avlab.measure.numbers.recent import LOOK_S, Numbers, numbers
from avlab.stream.client import Client
from avlab.stream.clock import MonotonicClock, VirtualClock
from avlab.stream.handle import Handle, Worker
from avlab.stream.registry import Registry
from avlab.stream.server import Server
from avlab.wire.units import NS

EVERY_S = 0.4
"""Between two readings of the numbers, seconds."""

NOTICES_SHOWN = 5
"""Of each handle: a notice that matters is no use below a hundred others."""

_SERVER_HAS = ("width", "quality", "pacer", "network")
_CLIENT_HAS = ("playout_delay",)


class Desk(anywidget.AnyWidget):  # type: ignore[misc]
    """The part of a panel that the page draws by itself: buttons, numbers, sentences."""

    _esm = Path(__file__).with_name("panel.js")
    _css = Path(__file__).with_name("panel.css")


class _Extra:
    """What a switch shows inside the panel, of the client there is: its picture, or its plots."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.switch = widgets.Checkbox(description=name, indent=False)
        self.box = widgets.VBox()
        self.box.add_class("avlab-extra")
        self._make = make
        self._made: Any = None
        self._of: Any = None

    def follow(self, client: Any) -> None:
        """Show this client's, if it runs; of one that has ended, the last picture stays."""
        fresh = client is not None and client.running and client is not self._of
        if self._made is not None and (fresh or not self.switch.value):
            self.close()
        if self._made is None and self.switch.value and client is not None and client.running:
            self._made, self._of = self._make(), client
            self.box.children = (self._made,)

    def close(self) -> None:
        """Take it off the page."""
        if self._made is not None:
            self._made.close()
        self._made = self._of = None
        self.box.children = ()


class Panel(Shown, widgets.VBox):  # type: ignore[misc]
    """Sliders, buttons and numbers over a server and a client. Made by `avlab.panel`.

    What a handle refuses is said in the panel, and the slider goes back. Start makes new handles of those that have
    ended, with the same arguments and what the sliders say: they are `panel.server` and `panel.client` from then on,
    and what `view()` and the live plots show inside the panel follows. `clock` is for tests.
    """

    server: Any
    client: Any
    _worker: Worker | None = None
    _closed = False
    extras: tuple[_Extra, ...] = ()

    def __init__(
        self, server: Server | None, client: Client | None, *, clock: MonotonicClock | VirtualClock | None = None
    ) -> None:
        _hear_while_cells_run()
        self.server, self.client = server, client
        self._clock = clock or MonotonicClock()
        self.lock = threading.RLock()  # callbacks may come on several threads
        self._said = ""
        self._post = Post()
        self._first = {"server": _values(server, _SERVER_HAS), "client": _values(client, _CLIENT_HAS)}
        self._view_settings: dict[str, Any] = {}
        self.extras = (_Extra("Picture", self._make_view), _Extra("Live plots", lambda: Live(self.client)))
        self.controls = Controls(self, say=self._say, lock=self.lock)
        self.desk = Desk()
        self.desk.on_msg(self._hear)
        screen, plots = self.extras
        switches = widgets.HBox([extra.switch for extra in self.extras if client is not None])
        switches.add_class("avlab-switches")
        super().__init__([self.desk, screen.box, self.controls.box, switches, plots.box])
        self.add_class("avlab-panel")
        for extra in self.extras:
            extra.switch.observe(lambda _change: self._show_extras(), "value")
        if client is not None:
            view.with_panel.add(client)
        self._watch()
        _panels.add(self)

    # ---- what the buttons do

    def start(self) -> None:
        """Start what does not run: for a handle that has ended, a new one. Raises what the handles' `start` raises.

        Views and other panels of the old handles are of the new ones then.
        """
        with self.lock:
            server, client = self.server, self.client
            if server is not None and not server.running:
                if client is not None and client.running:
                    client.stop()
                self.server = _renewed(server, _SERVER_HAS)
                self.server.start()
            if client is not None and not client.running:
                changes = {} if server is None or self.server is None else _moved(client.url, server, self.server)
                self.client = _renewed(client, _CLIENT_HAS, **changes)
                view.with_panel.add(self.client)
                self.client.start()
            self._watch()
            self._show_extras()
            if client is not None and self.client is not client:
                view.follow(client, self.client)
            new_server, new_client = self.server, self.client
        for panel in _panels.all():
            if panel is not self and (panel.server, panel.client) == (server, client):
                panel.server, panel.client = new_server, new_client
                panel._watch()
                panel._show_extras()

    def stop(self) -> None:
        """Stop both. Raises what they failed of."""
        with self.lock, contextlib.ExitStack() as stops:
            for handle in (self.server, self.client):  # the client first: the last one in is the first one out
                if handle is not None:
                    stops.callback(handle.stop)

    def reset(self) -> None:
        """Set everything back to what it was when the panel was made."""
        with self.lock:
            for handle, first in ((self.server, self._first["server"]), (self.client, self._first["client"])):
                for name, value in first.items():
                    setattr(handle, name, value)
            self.controls.refresh()

    def view(self, **settings: Any) -> Panel:
        """Show the picture inside the panel too; `settings` are those of `client.view`. Follows a new client."""
        with self.lock:
            self._view_settings = settings
            self.extras[0].switch.value = True
        return self

    def close(self) -> None:
        """Take the panel off the page, with all that is in it; the stream goes on."""
        _panels.discard(self)
        self._closed, worker = True, self._worker
        if worker is not None:
            worker.signal()
            worker.join(1.0)
        for extra in self.extras:
            extra.close()
        super().close()

    def _show_extras(self) -> None:
        """The picture and the plots, of the client there is now, where they are asked for."""
        with self.lock:
            for extra in self.extras:
                extra.follow(self.client)

    def _make_view(self) -> Any:
        return view.View(self.client, **self._view_settings)

    # ---- what goes on

    def _watch(self) -> None:
        """Have the numbers followed, by a thread of the handle that runs."""
        running = (handle for handle in (self.client, self.server) if handle is not None and handle.running)
        owner = next(running, None)
        if owner is not None and not self._closed and not (self._worker is not None and self._worker.alive):
            self._worker = owner.spawn("panel", lambda worker: self._follow(worker, owner))

    def _follow(self, worker: Worker, owner: Handle) -> None:
        try:
            while not worker.stopping.wait(EVERY_S) and owner.running:
                number = self._post.admit(self._clock.now_ns())
                if number is not None:
                    self._report(number, self._numbers())
        except Exception as error:  # the numbers are no reason to stop the stream: the page says what it was
            self._said = f"The numbers cannot be read: {error}"
            self._closed = True
        self._report(None)
        self._worker = None
        self._watch()  # the client may have ended, and the server not

    def _numbers(self) -> Numbers:
        now_ns = self._clock.now_ns()
        if self.client is not None:
            return numbers(self.client.recent(LOOK_S), now_ns)
        return numbers(self.server.trace.tail(now_ns - round(LOOK_S * NS)), now_ns)

    def _report(self, number: int | None, seen: Numbers | None = None) -> None:
        """Tell the page how things stand; from any thread."""
        state, text = situation(self.server, self.client)
        handles = [handle for handle in (self.server, self.client) if handle is not None]
        content: dict[str, Any] = {
            "number": number,
            "state": state,
            "say": self._said or text or ("" if seen is None else self._hints(seen)),
            "wrong": bool(self._said) or state == "failed",
            "start": not all(handle.running for handle in handles),
            "stop": any(handle.running for handle in handles),
            "waits": _sliders_wait(),
            "notices": noticed(self.server, self.client),
        }
        if seen is not None:
            content["numbers"] = _words(seen)
        self.desk.send(content)

    def _hints(self, seen: Numbers) -> str:
        """What is to be known of how things are, while all goes its way."""
        said = ["" if self.client is None else hint(seen), "" if self.server is None else held_back(self.server)]
        return " ".join(words for words in said if words)

    def _say(self, said: str) -> None:
        """What a slider's handle refuses; empty when it does not."""
        if said != self._said:
            self._said = said
            self._report(None)

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """A word from the page; on the kernel's main thread or on a subshell's."""
        if "hello" in content:
            self._post.hello(self._clock.now_ns())
            self._report(None)
        elif "seen" in content:
            self._post.seen(content["seen"], self._clock.now_ns())
            self.controls.refresh()  # what was set elsewhere
        elif content.get("press") in ("start", "stop", "reset"):
            self._press(content["press"])

    def _press(self, button: str) -> None:
        """Do what a button says; what goes wrong is said in the panel."""
        self._said = ""
        try:
            getattr(self, button)()
        except Exception as error:
            self._said = sentence(error)
        self.controls.refresh()
        self._report(None)


_panels: Registry[Panel] = Registry()
"""Those of this kernel, as several may be of the same handles."""


def situation(server: Handle | None, client: Handle | None) -> tuple[str, str]:
    """How things stand in a word, and in a sentence where there is something to say."""
    handles = {name: handle for name, handle in (("client", client), ("server", server)) if handle is not None}
    for name in reversed(handles):  # the server's failure is the cause, the client's the effect
        if handles[name].error is not None and not handles[name].running:
            return "failed", f"The {name} failed. {sentence(handles[name].error)} Start makes a new one."
    running = [name for name, handle in handles.items() if handle.running]
    if len(running) == len(handles):
        return "playing", ""
    if all(handle.fresh for handle in handles.values()):
        return "ready", "Nothing has been started yet: press Start."
    if not running:
        return "stopped", "Start plays again from the beginning."
    other = "server" if running == ["client"] else "client"
    if handles[other].fresh:
        return "ready", f"The {other} has not been started yet: press Start."
    return "stopped", f"The {other} has ended, the {running[0]} still runs. Start makes a new {other}."


def noticed(server: Handle | None, client: Handle | None) -> list[str]:
    """The latest notices of both, each with whose it is, oldest first; where there are more, their number."""
    found = []
    for name, handle in (("server", server), ("client", client)):
        own: Sequence[str] = ()
        with contextlib.suppress(RuntimeError):  # an isolated server's process does not answer
            own = getattr(handle, "notices", ())
        found += [f"{name}: {words}" for words in own[-NOTICES_SHOWN:]]
        if len(own) > NOTICES_SHOWN:
            found.append(f"{name}: {len(own)} notices in all are in {name}.notices")
    return found


def hint(seen: Numbers) -> str:
    """What is wrong when numbers are like these, in a sentence; empty when nothing is."""
    slow = ""
    if seen.target_fps and seen.sent_fps is not None and seen.sent_fps < 0.9 * seen.target_fps:
        slow = (
            f" {seen.sent_fps:.0f} of {seen.target_fps:.5g} frames a second are sent: the pacer is slow, or kept busy."
        )
    if seen.late:
        came = "1 frame of the last 2 s came" if seen.late == 1 else f"{seen.late} frames of the last 2 s came"
        return f"{came} too late to be shown.{slow or ' A longer playout delay waits for them.'}"
    lost = seen.loss_percent or 0.0
    if lost >= 1 and seen.target_fps and (seen.shown_fps or 0.0) < 0.5 * seen.target_fps:
        return (
            f"{lost:.0f} % of the packets are lost, and a frame needs all of its own. "
            "A lower quality or width, or more rate, brings frames back."
        )
    if seen.offset_ms is not None and not ACCEPTABLE[0] <= seen.offset_ms <= ACCEPTABLE[1]:
        order = "after" if seen.offset_ms > 0 else "before"
        return f"The picture comes {abs(seen.offset_ms):,.0f} ms {order} its sound.{slow}"
    return ""


def held_back(server: Server) -> str:
    """Whose path it is that quality and width are lowered for; empty when they are not."""
    address = server.held_back_by if server.running else None
    if address is None:
        return ""
    return f"Rate control: less is sent to all, as the path to the client at {address} takes no more."


def panel(server: Server | None, client: Client | None = None) -> Panel:
    """Show a panel of a server, a client, or both in the notebook; returns the widget.

    `panel.view()` shows the picture inside it. Without a client it is the server's alone, and with None for the
    server, as for another machine's stream, the client's. TypeError for what is no handle, ValueError for neither.

    Args:
        server: A server of this process, or None.
        client: A client of this process, or None.
    """
    for given, kind in ((server, Server), (client, Client)):
        if given is not None and not isinstance(given, Handle):
            raise TypeError(f"panel takes a {kind.__name__} there, or None, not {type(given).__name__}")
    if server is None and client is None:
        raise ValueError("a panel needs a server, a client, or both")
    made = Panel(server, client)
    if get_ipython() is not None:
        display(made)
    return made


def _values(handle: Handle | None, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(handle, name) for name in names if hasattr(handle, name)}


def _renewed(handle: Any, names: tuple[str, ...], **changes: Any) -> Any:
    """This handle if it can be started, else one like it, set as it is set now."""
    if handle.fresh and not changes:
        return handle
    made = handle.again(**changes)
    for name, value in _values(handle, names).items():
        setattr(made, name, value)
    return made


def _moved(url: str, old: Any, new: Any) -> dict[str, Any]:
    """The client's new address and code, if it played the old server and not something between."""
    with contextlib.suppress(RuntimeError):  # the old one had no address yet
        if new is not old and urlsplit(url).port == urlsplit(old.url).port:
            code = getattr(new, "class_code", "")  # drawn anew at each start
            return {"url": new.url} | ({"class_code": code} if code else {})
    return {}


def _words(seen: Numbers) -> list[list[str]]:
    def word(value: float | None, form: str, unit: str) -> str:
        return "\N{EN DASH}" if value is None else f"{value:{form}} {unit}".replace("-", "\N{MINUS SIGN}")

    return [
        ["sent", word(seen.sent_fps, ".1f", "fps")],
        ["received", word(seen.received_fps, ".1f", "fps")],
        ["shown", word(seen.shown_fps, ".1f", "fps")],
        ["A/V offset", word(seen.offset_ms, "+.0f", "ms")],
        ["loss", word(seen.loss_percent, ".1f", "%")],
        ["bit rate", word(seen.bitrate_kbps, ",.0f", "kbit/s")],
        ["buffer", word(seen.buffer_ms, ".0f", "ms")],
    ]


def _hearing(name: str) -> Any:
    """What the live view knows of the kernel's hearing, where it does."""
    return getattr(view, name, None)


def _sliders_wait() -> bool:
    told = _hearing("sliders_wait")
    return bool(told is not None and told())


def _hear_while_cells_run() -> None:
    pin = _hearing("hear_while_cells_run") or _hearing("_hear_while_cells_run")
    if pin is not None:
        pin()
