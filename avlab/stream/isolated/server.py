"""A server in a process of its own, behind the same handle: a busy notebook cannot hold up its pacing.

The handle starts `process` as a program, and they talk in lines of JSON over its standard input and output;
the rows of a trace follow their line as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import update_wrapper
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np

from avlab.measure.record.batches import Batch
from avlab.measure.record.scratch import Scratch
from avlab.measure.record.tables import TABLES, Rows
from avlab.measure.record.trace import SettingRow, Trace
from avlab.stream.clock import CLOCK_VARIABLE, clock_identity
from avlab.stream.handle import Worker
from avlab.stream.isolated.parcel import packed, unpacked, unpacked_error
from avlab.stream.sending.adapting import Delivery
from avlab.stream.server import Server

PROGRAM = "avlab.stream.isolated.process"

START_SECONDS = 60.0
"""A laptop that is busy and has never loaded avlab takes that long, at worst, until the process answers."""

ANSWER_SECONDS = 10.0
MANY_PARTS = 64
MUCH_BYTES = 1 << 24
LONGEST_LINE = 1 << 26
"""Bytes. Settings of hours fit; what is longer is no line of such a process."""

CHOSEN = ("quality", "width")
"""The settings that a rate controller sets."""

_WINDOWS_FLAGS = 0x200 | 0x08000000  # CREATE_NEW_PROCESS_GROUP: Ctrl-C is not for it; CREATE_NO_WINDOW


class IsolatedServer(Server):
    """A `Server` whose work is done by another process: what `Server(..., isolated=True)` gives.

    What is set is checked here, as for any server, and acts there. The trace is fetched when it is asked for, and what
    was fetched once stays here. `pacer` and `rate_control` are what was set: what they have measured stays with the
    process. `quality` and `width` are asked for there, where a rate controller may have set them.

    Raises ValueError for a source or pacer that lives in this process alone. `start` and what is set raise RuntimeError
    when the process does not answer; one that ends by itself makes `wait` and `stop` raise RuntimeError.
    """

    def __init__(self, source: Any = None, *, isolated: bool = True, **settings: Any) -> None:
        super().__init__(source, **settings)
        if not (source is None or isinstance(source, str | os.PathLike | int | np.integer)):
            raise ValueError(
                f"isolated=True takes the path of a clip or the number of a camera, not {type(source).__name__}: what "
                "is made in this process cannot be had from another; write it to a clip, or leave isolated out"
            )
        self._asked_for = {"source": source, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._where = ""
        self._known: dict[str, Any] = {}
        self._writing = threading.Lock()
        self._numbers = count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._silent = False  # no answer will come any more
        self._errors: IO[bytes] | None = None
        self._mirror = _Mirror()

    # ---- what it says of itself

    @property
    def url(self) -> str:
        """See `Server`."""
        return self._where or super().url

    def status(self) -> str:
        """See `Server`."""
        said = self._state_now()
        return str(said["status"]) if said else super().status()

    @property
    def trace(self) -> Trace:
        """See `Server`."""
        if self._process is None:
            return super().trace
        self._ask("trace", have=self._mirror.have())
        return self._mirror.trace() or super().trace

    @property
    def pid(self) -> int | None:
        """The number of its process; None before `start`."""
        return None if self._process is None else self._process.pid

    # ---- life

    def _begin(self) -> None:
        try:
            self._errors = tempfile.TemporaryFile(prefix="avlab-")  # noqa: SIM115 - closed by _release
            self._process = _started(self._errors)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                error.errno, f"no process can be started for the server ({reason}): leave isolated out"
            ) from None
        self.spawn("isolated", self._listen, self._say_stop)
        settings = self._asked_for | {name: getattr(self, name) for name in _SETTABLE}
        if "parity" not in self._asked_for and self.parity == Delivery().parity:
            del settings["parity"]  # what was asked for is told of where it does not apply, as on the classic wire
        answer = self._ask("start", START_SECONDS, **{name: packed(name, value) for name, value in settings.items()})
        if answer is None:
            raise RuntimeError(self._why_ended())
        self._where = answer["url"]

    def _cancel(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _release(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            try:
                self._process.wait(1.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            assert self._process.stdout is not None
            with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: a thread that would not end reads from it
                self._process.stdout.close()
        if self._errors is not None:
            self._errors.close()

    @property
    def _answering(self) -> bool:
        """Whether there is a server to ask: there is none yet while it starts."""
        return self.running and self._where != ""

    # ---- asking

    def _state_now(self) -> dict[str, Any]:
        """What the process says of itself, or last said; empty before `start`."""
        if self._answering:
            self._ask("state")
        return self._known

    def _ask(self, what: str, seconds: float = ANSWER_SECONDS, **values: Any) -> dict[str, Any] | None:
        """The process's answer, or what it raised; None when it is gone. RuntimeError when it takes too long."""
        number = next(self._numbers)
        answer = self._answers[number] = queue.SimpleQueue()
        try:
            if self._silent or not self._say({"number": number, "do": what, "values": values}):
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

    def _say(self, message: dict[str, Any]) -> bool:
        """Write a line; False when nobody reads any more."""
        assert self._process is not None
        assert self._process.stdin is not None
        if not self._writing.acquire(timeout=1.0):  # it reads nothing, and somebody waits for it to do so
            return False
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # ValueError: closed on this side
            return False
        finally:
            self._writing.release()
        return True

    def _say_stop(self) -> None:
        self._say({"number": 0, "do": "stop", "values": {"have": self._mirror.have()}})

    # ---- listening

    def _listen(self, worker: Worker) -> None:
        """The thread's body: what the process says, until its end."""
        assert self._process is not None
        assert self._process.stdout is not None
        odd = ""
        with self._process.stdout as said:
            try:
                while line := said.readline(LONGEST_LINE):
                    self._hear(json.loads(line), said)
            except Exception as error:  # whatever it says: nothing after it can be trusted
                odd = (
                    f"the server's process said what makes no sense ({type(error).__name__}), and was ended; begin anew"
                )
                self._process.kill()
        self._silent = True
        if not worker.stopping.is_set():
            self._fail(RuntimeError(odd or self._why_ended()))
        for answer in list(self._answers.values()):
            answer.put(None)

    def _hear(self, message: dict[str, Any], rows: IO[bytes]) -> None:
        self._known = message.get("state", self._known)
        if "rows" in message:
            self._mirror.add(message, rows)
        if "failed" in message:
            self._fail(unpacked_error(message["failed"]))
        elif "ended" in message:
            self._ended.set()
        elif answer := self._answers.get(message["number"]):
            answer.put(message)

    def _why_ended(self) -> str:
        assert self._process is not None
        assert self._errors is not None
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:  # it has closed its output, and says nothing any more
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4096))
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        said = f", its last words: {words[-1]}" if words else ""
        return f"the server's process ended by itself with exit code {code}{said}; begin anew"


IsolatedServer.__name__ = "Server"  # what its sentences call it
update_wrapper(IsolatedServer.__init__, Server.__init__, assigned=())


def _forwarding(name: str, own: property) -> property:
    """A setting that is checked by a server here, and acts in the process as well; what is chosen there is asked."""
    get, check = own.fget, own.fset
    assert get is not None
    assert check is not None

    def act(self: IsolatedServer, value: Any) -> None:
        before = get(self)
        check(self, value)
        try:
            sent = packed(name, get(self))
        except ValueError:
            check(self, before)
            raise
        if self._answering:
            self._ask("set", **{name: sent})
        elif self.started and name in self._known:
            self._known = self._known | {name: sent}

    def ask(self: IsolatedServer) -> Any:
        if name not in CHOSEN or not self.started:
            return get(self)
        return self._state_now().get(name, get(self))

    return property(ask, act, doc=own.__doc__)


def _reading(name: str, own: property) -> property:
    """What a server says of itself, of the kind that a server here would say."""
    get = own.fget
    assert get is not None

    def ask(self: IsolatedServer) -> Any:
        said, here = self._state_now(), get(self)
        if name not in said:
            return here
        value = unpacked(said[name])
        return type(here)(value) if isinstance(value, list) else value

    return property(ask, doc=own.__doc__)


_OWN = {name: member for name, member in vars(Server).items() if isinstance(member, property) and name[0] != "_"}
_SETTABLE = [name for name, member in _OWN.items() if member.fset]
READABLE = [name for name, member in _OWN.items() if not member.fset and name not in vars(IsolatedServer)]
for _name in _SETTABLE:
    setattr(IsolatedServer, _name, _forwarding(_name, _OWN[_name]))
for _name in READABLE:
    setattr(IsolatedServer, _name, _reading(_name, _OWN[_name]))


class _Mirror:
    """The process's trace as far as it was fetched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scratch = Scratch()
        self._parts: dict[str, list[Batch]] = {name: [] for name in TABLES}
        self._have = dict.fromkeys((*TABLES, "settings"), 0)
        self._settings: list[SettingRow] = []
        self._meta: dict[str, Any] = {}

    def have(self) -> dict[str, int]:
        """How many rows of each table are here."""
        with self._lock:
            return dict(self._have)

    def trace(self) -> Trace | None:
        """What is here; None when nothing has been fetched."""
        with self._lock:
            if not self._meta:
                return None
            return Trace(**self._parts, settings=self._settings, meta=self._meta)

    def add(self, message: Mapping[str, Any], source: IO[bytes]) -> None:
        """Take the rows that a message announces; what is here already, as two have asked, is passed over."""
        with self._lock:
            self._meta = message["meta"]
            for name, number in message["rows"].items():
                rows: Rows = np.frombuffer(source.read(number * TABLES[name].dtype.itemsize), TABLES[name].dtype)
                rows = rows[self._have[name] - message["from"][name] :]
                self._have[name] += len(rows)
                self._parts[name] = self._with(name, rows)
            fresh = message["settings"][self._have["settings"] - message["from"]["settings"] :]
            self._settings += [SettingRow(*row) for row in fresh]
            self._have["settings"] += len(fresh)

    def _with(self, name: str, rows: Rows) -> list[Batch]:
        """The parts with these rows; what is much goes to the disk, behind what is there already."""
        there = [part for part in self._parts[name] if not isinstance(part.rows, np.ndarray)]
        fresh = [part.rows for part in self._parts[name] if isinstance(part.rows, np.ndarray)] + [rows]
        size = sum(part.nbytes for part in fresh)
        if len(fresh) <= MANY_PARTS and size <= MUCH_BYTES:
            return [*self._parts[name], Batch.of(TABLES[name], rows)]
        whole = Batch.of(TABLES[name], np.concatenate(fresh))
        if size > MUCH_BYTES:
            with contextlib.suppress(OSError):  # a disk without room: then it stays in memory
                whole = whole._replace(rows=self._scratch(whole.read()))
        joined = there[-1].followed_by(whole) if there else None
        return [*there, whole] if joined is None else [*there[:-1], joined]


def _started(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """The program: the same interpreter, avlab from where this one has it, nothing from the folder."""
    home = str(Path(__file__).resolve().parents[3])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    windows = sys.platform == "win32"
    return subprocess.Popen(
        [sys.executable, "-P", "-m", PROGRAM],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), CLOCK_VARIABLE: clock_identity()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        # Ctrl-C in a terminal is meant for the one who will stop this process, and not for it as well.
        start_new_session=not windows,
        creationflags=_WINDOWS_FLAGS if windows else 0,
    )
