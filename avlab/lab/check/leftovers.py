"""What a notebook leaves behind: servers and clients that run, threads, sockets, and errors that nobody was told of."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from avlab.lab.check import words
from avlab.lab.predictions import Verdict
from avlab.stream.handle import running_handles, stop_all, untold_errors

_uncaught: deque[str] = deque(maxlen=20)  # what threads and finalisers of this process failed of, while watched
_known: weakref.WeakSet[socket.socket] = weakref.WeakSet()  # sockets that were open before
watching = False


def begin() -> None:
    """End what an earlier run left playing; from here on, errors of threads and open sockets are `nothing_left`'s."""
    global watching
    stop_all()
    untold_errors()
    _uncaught.clear()
    _known.clear()
    _known.update(_open_sockets())
    if not watching:
        watching = True
        threading.excepthook = _kept(threading.excepthook, lambda args: f"thread {args.thread and args.thread.name}")
        sys.unraisablehook = _kept(sys.unraisablehook, lambda args: words.short(args.object))


def nothing_left() -> Verdict:
    """Whether a notebook has ended all that it began: no server or client, no thread, no socket, no unseen error."""
    left = [f"{handle!r} still runs: stop() it, or avlab.stop_all()" for handle in running_handles()]
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("avlab-")]
    if threads and not left:
        left.append(f"threads still run: {', '.join(threads)}")
    left += [
        f"a socket is still open at {_address(sock)}: close() it, or make it with a with statement"
        for sock in _open_sockets()
        if sock not in _known and not running_handles()
    ]
    left += [f"nobody was told of this error: {words.told(error)}" for error in untold_errors()]
    left += list(_uncaught)
    _uncaught.clear()
    if left:
        return Verdict(False, "\n".join(words.sentence(text) for text in left))
    return Verdict(True, "Nothing is left: no server or client, no thread, no socket, no error.")


def stop_button() -> Any:
    """A button for a notebook's last cell: what plays goes on until it is pressed, and then `nothing_left` is shown."""
    from avlab.lab.check.stopping import StopButton  # ipywidgets only where a page is

    return StopButton()


def _kept(before: Callable[[Any], Any], who: Callable[[Any], str]) -> Callable[[Any], Any]:
    """A hook that keeps what it is told of and hands it on."""

    def hook(args: Any) -> None:
        _uncaught.append(f"{who(args)} failed with {words.told(args.exc_value)}")
        before(args)

    return hook


def _open_sockets() -> list[socket.socket]:
    """Internet sockets of this process that are open, but for those by which event loops wake themselves."""
    objects = gc.get_objects()
    # By type(): proxies among the objects would be woken by isinstance().
    sockets = [thing for thing in objects if issubclass(type(thing), socket.socket) and thing.fileno() != -1]
    loops = [thing for thing in objects if issubclass(type(thing), asyncio.BaseEventLoop)] if sockets else []
    own = {id(getattr(loop, name, None)) for loop in loops for name in ("_ssock", "_csock")}
    internet = (socket.AF_INET, socket.AF_INET6)
    return [sock for sock in sockets if sock.family in internet and id(sock) not in own]


def _address(sock: socket.socket) -> str:
    kind = "UDP" if sock.type == socket.SOCK_DGRAM else "TCP"
    try:
        host, port = sock.getsockname()[:2]
    except OSError:
        return kind
    return f"{kind} {host}:{port}"
