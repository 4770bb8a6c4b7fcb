"""One thread with a handle, and the handle that owns several: start, stop, error. Knows no sockets and no media."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from avlab.parts import PartError, gone_on
from avlab.stream.guard import Guard
from avlab.stream.registry import Registry
from avlab.wire.text import check_keywords, nearest, tidied

_handles: Registry[Handle] = Registry()  # what runs in this process, for stop_all and for joining traces
_failed: Registry[Handle] = Registry()  # what has failed, and has told nobody
_orders = itertools.count(1)
_newest = 0

PARTS_GO_ON_S = 1.0
"""How long parts of one's own are still called when their stream stops, and a thread of it does not end."""


def started_so_far() -> int:
    """How many handles this process has started, whether or not they still run: servers, clients and relays."""
    return _newest


class Worker:
    """A thread named `avlab-<name>` that runs `body(worker)` until it returns, fails, or sees `stopping`.

    `wake` is called by `stop`, so that a body that waits for something else than `stopping` looks up.
    """

    def __init__(
        self,
        name: str,
        body: Callable[[Worker], None],
        *,
        wake: Callable[[], None] | None = None,
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.name = f"avlab-{name}"
        self.stopping = threading.Event()
        self.error: BaseException | None = None
        self._body, self._wake, self._failed = body, wake, failed
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def signal(self) -> None:
        """Ask the thread to end; returns at once."""
        self.stopping.set()
        if self._wake is not None:
            self._wake()

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the thread's end; True when it has ended, or is the one that asks."""
        if self.current or self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """It is waited for no longer: that all is closed, when it goes on after all, is no failure."""
        self._given_up = True

    @property
    def current(self) -> bool:
        """Whether this very thread asks."""
        return self._thread is threading.current_thread()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._body(self)
        except BaseException as error:
            if self._given_up:
                return
            self.error = error
            if self._failed is not None:
                self._failed(error)


class CellRun(NamedTuple):
    """One run of one cell of a notebook."""

    cell: str
    number: str


def _run_of_cell() -> CellRun | None:
    """The notebook's cell that runs now; None where there is none, or the page does not name its cells."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    try:  # JupyterLab, Notebook and VS Code name the cell in the request to run it
        request = shell.get_parent()
        return CellRun(str(request["metadata"]["cellId"]), str(request["header"]["msg_id"]))
    except (AttributeError, KeyError, TypeError):
        return None


class Handle:
    """Something that is started and stopped: what a server and a client have in common.

    Nothing happens before `start()`. A worker that fails stops its siblings; `wait` and `stop` raise what failed, once.
    In a notebook, a cell that is run again replaces what it started: `start()` first stops, quietly, every handle that
    an earlier run of the same cell has started.
    """

    _made_with: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    _begun_by: CellRun | None = None
    _order = 0
    _whole = False  # made: from here on, a name that is none of its own is misspelt

    def __init_subclass__(cls, **options: Any) -> None:
        """Have the constructor's arguments remembered, for `again`; its signature stays as it is."""
        super().__init_subclass__(**options)
        if "__init__" not in vars(cls):
            return
        make = cls.__init__

        @functools.wraps(make)
        def remember(self: Handle, *args: Any, **settings: Any) -> None:
            if "_made_with" not in vars(self):  # the outermost constructor's are the ones to make another with
                self._made_with = args, settings
            try:
                make(self, *args, **settings)
            except TypeError:
                check_keywords(make, settings, cls.__name__)
                raise
            if type(self).__init__ is remember:
                self._whole = True

        cls.__init__ = remember  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: Any) -> None:
        if self._whole and name[:1] != "_" and not hasattr(type(self), name) and name not in vars(self):
            raise AttributeError(f"a {self._kind} has no setting {name!r}{_nearest(self, name)}")
        super().__setattr__(name, value)

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self._error: BaseException | None = None
        self._told = False
        self._ended = threading.Event()
        self._released = threading.Event()
        self._state = threading.Lock()  # of the three that follow; held for a moment, and never while anything waits
        self._started = False
        self._stopped = False
        self._starting = False
        self._settled = threading.Event()  # no start is under way any more
        self._part_error: PartError | None = None
        self._part_guard = Guard(self._part_stuck)

    @property
    def started(self) -> bool:
        """Whether `start` has been called and did not fail."""
        return self._started

    @property
    def fresh(self) -> bool:
        """Whether `start` may be called: it was not yet."""
        return not (self._started or self._stopped)

    @property
    def running(self) -> bool:
        """Started, and neither stopped nor at its end."""
        return self._started and not self._stopped and not self._ended.is_set()

    @property
    def error(self) -> BaseException | None:
        """What failed, if anything did; a part of one's own that did, too, in place of which the stream goes on."""
        return self._error or self.part_error

    @property
    def part_error(self) -> PartError | None:
        """Why the first part of one's own that failed did; the stream goes on without it."""
        return self._part_error

    @property
    def standing_still(self) -> str | None:
        """Which part of one's own has not returned and cannot be ended, in a sentence; None when none does so."""
        return self._part_guard.stuck

    def start(self) -> Self:
        """Begin; returns the handle.

        RuntimeError when it was started before, or when `stop` is called from elsewhere while it starts.
        """
        with self._state:
            if not self.fresh:  # stopped, too, when a start has failed
                raise RuntimeError(f"this {self._kind} was started before: make a new one to start again")
            self._started = self._starting = True
        try:
            self._replace_earlier()
            _handles.add(self)
            self._begin()
            with self._state:
                self._starting = self._stopped
            if self._starting:
                raise RuntimeError
        except BaseException as error:
            tidied(error)
            with self._state:
                called_off, self._stopped = self._stopped, True
            self._told = True  # the caller sees this one now
            _failed.discard(self)
            try:
                self._stop(5.0)
            finally:
                self._started = self._starting = False
            if called_off and isinstance(error, Exception):
                raise RuntimeError(f"this {self._kind} was stopped while it was starting") from None
            raise
        finally:
            self._settled.set()
        return self

    @property
    def _kind(self) -> str:
        return type(self).__name__.lower()

    def again(self, **changes: Any) -> Self:
        """A new handle made with the same arguments, but for `changes`; not started. For one that has stopped.

        What was set on this one since, by a slider say, stays behind. In a notebook it counts as started by the cell
        that started this one. Raises ValueError when an argument can be read only once, as a generator can.

        Args:
            changes: Settings that are to differ, by name.
        """
        args, settings = self._made_with
        given = inspect.signature(type(self)).bind(*args, **settings).arguments | changes
        for name, value in given.items():
            if isinstance(value, Iterator):
                raise ValueError(
                    f"the {name} of this {type(self).__name__.lower()} is a {type(value).__name__}, which can be read "
                    "only once: make a new one, or hand over a list"
                )
        made = type(self)(**given)
        made._begun_by = self._begun_by
        return made

    def _replace_earlier(self) -> None:
        """Stop what an earlier run of the cell that runs now has started: what came last goes first."""
        run = self._begun_by = _run_of_cell() or self._begun_by
        global _newest
        self._order = _newest = next(_orders)
        for other in sorted(_handles.all(), key=lambda handle: -handle._order):
            if run and other._begun_by and other._begun_by.cell == run.cell and other._begun_by.number != run.number:
                other._told = True
                _failed.discard(other)
                with contextlib.suppress(RuntimeError):  # a thread that will not end is no reason not to begin
                    other.stop()

    def stop(self, timeout: float = 5.0) -> None:
        """Signal, wake and join every thread, then let go of sockets and devices. Does nothing the second time.

        From any thread; whoever comes second waits for the first, and a start that is under way is called off. Does
        nothing before `start`. Raises RuntimeError when a thread outlives `timeout` seconds, and what failed if nothing
        has raised it before.

        Args:
            timeout: Seconds that it may take.
        """
        own = any(worker.current for worker in list(self.workers))
        while own and self._starting and not self._settled.wait(0.02):
            if self._stopped:  # the start has failed, and waits for this thread
                return
        with self._state:
            if not self._started:
                return
            first, self._stopped = not self._stopped, True
            starting = self._starting
        if starting:
            self._call_off(timeout)
        elif first:
            self._stop(timeout)
        elif not own:
            self._released.wait(timeout)
        self._raise_once()

    def _call_off(self, timeout: float) -> None:
        """A start is under way on another thread, and undoes what it has done once it stops waiting."""
        self._ended.set()
        for worker in list(self.workers):
            worker.signal()
        self._cancel()
        if not self._settled.wait(timeout):
            raise RuntimeError(f"the start of this {self._kind} did not end within {timeout:g} s")

    def _stop(self, timeout: float) -> None:
        self._ended.set()
        for worker in list(self.workers):
            worker.signal()
        began = time.perf_counter()
        deadline, patience = began + timeout, began + min(PARTS_GO_ON_S, timeout / 2)
        try:
            alive = [worker for worker in self.workers if not self._joined(worker, deadline, patience)]
            for worker in alive:
                worker.give_up()
            self._release()
        finally:
            self._part_guard.close()
            _handles.discard(self)
            self._released.set()
        if alive and self.standing_still is None:  # a part that cannot be ended has been told of
            names = ", ".join(worker.name for worker in alive)
            raise RuntimeError(f"{names} did not end within {timeout:g} s")

    def _joined(self, worker: Worker, deadline: float, patience: float) -> bool:
        """Whether a thread has ended by then; one in a part that cannot be ended is not waited for any longer.

        From `patience` on no more parts are called: many slow calls, none of them too slow, may fill a turn.
        """
        while not worker.join(min(0.2, max(0.0, deadline - time.perf_counter()))):
            if time.perf_counter() >= patience:
                self._part_guard.refuse()
            if time.perf_counter() >= deadline or self.standing_still is not None:
                return False
        return True

    def wait(self, seconds: float | None = None) -> bool:
        """Sleep for `seconds` (None: until the end) or until the stream ends; True if it has ended.

        Raises what failed.

        Args:
            seconds: How long at most; None waits for the end.
        """
        deadline = None if seconds is None else time.perf_counter() + seconds
        while not self._ended.is_set():
            left = 0.2 if deadline is None else min(0.2, deadline - time.perf_counter())
            if left <= 0:
                break
            self._ended.wait(left)  # in short turns, so that Ctrl-C is heard on Windows too
        self._raise_once()
        return self._ended.is_set()

    def __enter__(self) -> Self:
        return self if self._started else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._told = True  # what is under way matters more
        self.stop()

    def _begin(self) -> None:
        """Open what is needed and start the workers."""

    def _cancel(self) -> None:
        """Have `_begin` stop waiting for whatever is elsewhere; from another thread than its own."""

    def _release(self) -> None:
        """Let go of what was opened; every worker has ended, or had its time."""

    def spawn(self, name: str, body: Callable[[Worker], None], wake: Callable[[], None] | None = None) -> Worker:
        """Start a thread that stops, and fails, with this handle; for views of a client as for its own.

        Args:
            name: What the thread is called.
            body: What it runs; it is handed its worker.
            wake: Called when the worker is to look whether it should stop.
        """
        worker = Worker(name, body, wake=wake, failed=self._fail)
        self.workers.append(worker)
        worker.start()
        if self._ended.is_set():  # a sibling has failed already, and did not know of this one
            worker.signal()
        return worker

    # ---- parts of anyone's own

    def _tell(self, name: str, words: str) -> None:
        """Have a person know of something; from any thread."""

    def _part_failed(self, error: PartError, instead: str) -> None:
        """A part has failed, and the stream goes on with something else."""
        if self._part_guard.refusing:  # it was not asked any more, which is no failure
            return
        told = PartError(gone_on(error, instead))
        told.__cause__ = error.__cause__
        self._part_error = self._part_error or told
        self._tell("part failed", str(told))

    def _part_stuck(self, words: str) -> None:
        self._part_error = self._part_error or PartError(words)
        self._tell("part stands still", words)

    def _fail(self, error: BaseException) -> None:
        if self._released.is_set():  # a thread that was stuck in a part, and finds everything closed
            return
        if self._error is None:
            self._error = tidied(error)
            _failed.add(self)
        self._ended.set()
        for worker in list(self.workers):
            worker.signal()

    def _raise_once(self) -> None:
        if self._error is not None and not self._told:
            self._told = True
            _failed.discard(self)
            raise self._error


def stop_all(timeout: float = 5.0) -> None:
    """Stop every server and client of this process. What they failed of is not raised here; `handle.error` keeps it.

    Raises RuntimeError, once all have been told to stop, when a thread outlives `timeout` seconds.

    Args:
        timeout: Seconds that each may take.
    """
    alive = []
    for handle in _handles.all():
        handle._told = True
        try:
            handle.stop(timeout)
        except RuntimeError as error:
            alive.append(str(error))
    if alive:
        raise RuntimeError("; ".join(alive))


def running_handles() -> list[Handle]:
    """The servers and clients of this process that were started and not stopped."""
    return _handles.all()


def untold_errors() -> list[BaseException]:
    """What servers and clients failed of that neither `wait` nor `stop` has raised since last asked."""
    untold = [handle.error for handle in _failed.take()]
    return [error for error in untold if error is not None]


def _nearest(handle: Handle, name: str) -> str:
    """A question that ends a sentence on a setting that is none; empty when there is none like it."""
    kind = type(handle)
    own = (each for each in dir(kind) if each[:1] != "_")
    settings = [each for each in own if getattr(getattr(kind, each), "fset", None) is not None]
    return nearest(name, settings) or f", only {', '.join(settings)}"
