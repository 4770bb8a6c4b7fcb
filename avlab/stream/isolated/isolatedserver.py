"""A server in a process of its own, behind the same handle: a busy notebook cannot hold up its pacing.

The handle starts `python -m avlab.stream.isolated`, which does not run the notebook or script again, and writes it a
key on its standard input. The process says on its standard output where it listens; all else goes over `pipe`.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from functools import update_wrapper
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from avlab.measure.record.trace import Trace
from avlab.stream.handle import Worker
from avlab.stream.isolated.child import Child
from avlab.stream.isolated.mirror import Mirror
from avlab.stream.isolated.pipe import Pipe, check_packable, packed, unpacked_error
from avlab.stream.server import Server

if TYPE_CHECKING:
    import pandas as pd

START_SECONDS = 60.0
"""A laptop that is busy and has never loaded avlab takes that long, at worst, until the process answers."""

ANSWER_SECONDS = 10.0

CHOSEN = ("quality", "width")
"""The settings that a rate controller sets."""


class IsolatedServer(Server):
    """A `Server` whose work is done by another process: what `Server(..., isolated=True)` gives.

    What is set is checked here, as for any server, and acts there. The trace is fetched when it is asked for, and what
    was fetched once stays here. `pacer` and `rate_control` are what was set: what they have measured stays with the
    process. `quality` and `width` are asked for there, where a rate controller may have set them.

    Whatever is handed in goes there, anyone's own pacer, rule or rate controller too: a copy, made when the server
    starts or the setting is set. Raises ValueError for what lives in this process alone, as a generator does. `start`
    and what is set raise RuntimeError when the process does not answer; one that ends by itself makes `wait` and `stop`
    raise RuntimeError.
    """

    def __init__(self, source: Any = None, *, isolated: bool = True, **settings: Any) -> None:
        self._given: dict[str, Any] = {}  # what goes there; what was never asked for is its own default there too
        self._child: Child | None = None
        self._pipe: Pipe | None = None
        self._where = ""
        self._known: dict[str, Any] = {}
        self._numbers = count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._opened = threading.Event()  # it may be asked, or never will
        self._silent = False  # no answer will come any more
        self._odd = ""  # what it said that makes no sense
        self._mirror = Mirror()
        super().__init__(source, **settings)
        given = {"source": source, **settings}
        check_packable(given)
        self._given = given

    # ---- what it says of itself

    @property
    def url(self) -> str:
        """See `Server`."""
        return self._where or super().url

    invitation = Server.invitation  # of url and class_code, which are the process's own

    def status(self) -> str:
        """See `Server`."""
        return str(self._asked("status", super().status))

    @property
    def audience(self) -> pd.DataFrame:
        """See `Server`. Made here, of `members`: the process has better things to do."""
        return super().audience

    @property
    def trace(self) -> Trace:
        """See `Server`."""
        if self._child is None:
            return super().trace
        self._ask("trace", have=self._mirror.have())
        return self._mirror.trace() or super().trace

    @property
    def pid(self) -> int | None:
        """The number of its process; None before `start`."""
        return None if self._child is None else self._child.pid

    # ---- life

    def _begin(self) -> None:
        values = packed(self._given)
        child = self._child = Child()
        self.spawn("isolated", lambda worker: self._listen(worker, child), self._say_stop)
        if not self._opened.wait(START_SECONDS):
            raise RuntimeError(f"the server's process has not begun for {START_SECONDS:g} s: begin anew")
        answer = self._ask("start", values, seconds=START_SECONDS, path=_places())
        if answer is None:
            raise RuntimeError(self._odd or child.why_ended())
        self._where = answer["url"]

    def _cancel(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _release(self) -> None:
        if self._child is not None:
            self._child.end()

    @property
    def _answering(self) -> bool:
        """Whether there is a server to ask: there is none yet while it starts."""
        return self.running and self._where != ""

    # ---- asking

    def _asked(self, name: str, otherwise: Callable[[], Any]) -> Any:
        """What the process says of itself by this name, or last said; `otherwise` where it never did."""
        if self._answering:
            self._ask("get", name=name)
        return self._known[name] if name in self._known else otherwise()

    def _ask(
        self, what: str, values: bytes = b"", *, seconds: float = ANSWER_SECONDS, **more: Any
    ) -> dict[str, Any] | None:
        """The process's answer, or what it raised; None when it is gone. RuntimeError when it takes too long."""
        number = next(self._numbers)
        answer = self._answers[number] = queue.SimpleQueue()
        try:
            if self._silent or not self._say({"number": number, "do": what, "size": len(values), **more}, values):
                return None
            given = answer.get(timeout=seconds)
        except queue.Empty:
            raise RuntimeError(
                f"the server's process has not answered for {seconds:g} s: stop it, and begin anew"
            ) from None
        finally:
            del self._answers[number]
        if given is not None and "error" in given:
            raise unpacked_error(given["error"])
        return given

    def _say(self, message: dict[str, Any], values: bytes = b"") -> bool:
        """Send a message; False when nobody listens, or it listens to nothing while somebody waits for it to do so."""
        return self._pipe is not None and self._pipe.send(message, [values], seconds=1.0)

    def _say_stop(self) -> None:
        if not self._say({"number": 0, "do": "stop", "size": 0, "have": self._mirror.have()}) and self._pipe is None:
            self._cancel()  # it is starting

    # ---- listening

    def _listen(self, worker: Worker, child: Child) -> None:
        """The thread's body: what the process says, until its end."""
        try:
            pipe = self._pipe = child.connect()
            self._opened.set()
            while pipe is not None and (message := pipe.receive()) is not None:
                self._hear(message, pipe)
        except (EOFError, ConnectionError):  # it ended in the middle of it
            pass
        except Exception as error:  # whatever it says: nothing after it can be trusted
            self._odd = (
                f"the server's process said what makes no sense ({type(error).__name__}), and was ended; begin anew"
            )
            child.kill()
        self._silent = True
        self._opened.set()
        if not worker.stopping.is_set():
            self._fail(RuntimeError(self._odd or child.why_ended()))
        for answer in list(self._answers.values()):
            answer.put(None)
        if self._pipe is not None:
            self._pipe.close()

    def _hear(self, message: dict[str, Any], pipe: Pipe) -> None:
        self._known = self._known | message.get("state", {})
        if "rows" in message:
            self._mirror.add(message, pipe.receive_rows)
        if "failed" in message:
            self._fail(unpacked_error(message["failed"]))
        elif "ended" in message:
            self._ended.set()
        elif answer := self._answers.get(message["number"]):
            answer.put(message)


IsolatedServer.__name__ = "Server"  # what its sentences call it
update_wrapper(IsolatedServer.__init__, Server.__init__, assigned=())


def _forwarding(name: str, own: property) -> property:
    """A setting that is checked by a server here, and acts in the process as well; what is chosen there is asked."""
    get, check = cast("Callable[[Any], Any]", own.fget), cast("Callable[[Any, Any], None]", own.fset)

    def act(self: IsolatedServer, value: Any) -> None:
        before = get(self) if self._given else None
        check(self, value)
        if not self._given:  # it is being made
            return
        try:
            sent = packed({name: value})
        except ValueError:
            check(self, before)
            raise
        self._given[name] = value
        if self._answering:
            self._ask("set", sent)
        elif self.started and name in self._known:
            self._known = self._known | {name: get(self)}

    def ask(self: IsolatedServer) -> Any:
        return self._asked(name, lambda: get(self)) if name in CHOSEN and self.started else get(self)

    return property(ask, act, doc=own.__doc__)


def _reading(name: str, own: property) -> property:
    """What the server says of itself."""
    get = cast("Callable[[Any], Any]", own.fget)

    def ask(self: IsolatedServer) -> Any:
        return self._asked(name, lambda: get(self))

    return property(ask, doc=own.__doc__)


_OWN = {name: member for name, member in vars(Server).items() if isinstance(member, property) and name[0] != "_"}
_SETTABLE = [name for name, member in _OWN.items() if member.fset]
READABLE = [name for name, member in _OWN.items() if not member.fset and name not in vars(IsolatedServer)]
for _name in _SETTABLE:
    setattr(IsolatedServer, _name, _forwarding(_name, _OWN[_name]))
for _name in READABLE:
    setattr(IsolatedServer, _name, _reading(_name, _OWN[_name]))


def _places() -> list[str]:
    """Where this process finds modules, for what is handed in and comes from one."""
    return [os.path.abspath(place) for place in sys.path if isinstance(place, str)]
