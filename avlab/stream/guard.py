"""Calls anyone's own parts, and ends a call that takes too long: a thread watches while there are parts to call.

A call that has taken `LIMIT_S` is ended by an exception raised in its thread, at its next line of Python. What runs no
Python, as a sleep or a computation in C, hears of it when it returns; until then it is named as what stands still.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from avlab.parts import PartEndedError, PartError, described

LIMIT_S = 1.5
"""How long one call of a part may take. One that cannot be ended is named within two seconds, looks included."""

GRACE_S = 0.2
"""How long after the exception a call may go on, before it is named as what does not end."""

LOOK_S = 0.1
"""How often the watching thread looks."""

MOST_BETWEEN_S = 0.5
"""So much counts at most from one look to the next: when all of a process stands still, it is no part's doing."""


class _EndedError(BaseException):
    """Raised in the thread of a call that takes too long; no `except Exception` of a part's is to catch it."""


class _Calling:
    """A call that is under way."""

    __slots__ = ("before", "named", "raised_s", "since_s", "taken_s", "thread", "what")

    def __init__(self, what: str, thread: int, before: _Calling | None) -> None:
        self.what, self.thread, self.before = what, thread, before
        self.since_s = time.perf_counter()
        self.taken_s = 0.0  # of the time since, what the watching thread has seen of it
        self.raised_s: float | None = None  # when it was last told to end
        self.named = False


class Guard:
    """Calls parts for one stream or one simulated run, from any of its threads.

    `stuck` is told, from the watching thread, in a sentence, of a call that does not end. `close` when no more is
    called: the watching thread ends once no call is under way that could still be ended. `limit_s` is how long a call
    may take, in seconds.
    """

    def __init__(self, stuck: Callable[[str], None], *, limit_s: float = LIMIT_S) -> None:
        self._stuck = stuck
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._calls: dict[int, _Calling] = {}  # by thread
        self._watching: threading.Thread | None = None
        self.refusing = False
        """Whether no more parts are called: see `refuse`."""
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns. PartError, which begins with `what`, for all that it raises but Ctrl-C."""
        if self.refusing:
            raise PartEndedError(f"{what} is asked no more: what it was asked for stops")
        thread = threading.get_ident()
        calling = _Calling(what, thread, self._calls.get(thread))
        self._calls[thread] = calling
        if self._watching is None:
            self._watch_from_now_on()
        try:
            try:
                given = function(*arguments)
            finally:
                self._leave(calling)
            if calling.raised_s is not None:  # it has caught that, or was just about to return
                raise _EndedError
            return given
        except _EndedError:
            self._leave(calling)  # it may have come before the first time was over
            raise PartEndedError(
                f"{what} had not returned after {self._limit_s:g} s, and was ended: "
                "is there a loop in it that never ends?"
            ) from None
        except PartError:
            raise
        except BaseException as error:  # exit() ends no stream, either
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # it is the person's
            raise PartError(f"{what} failed: {described(error)}") from error

    @property
    def stuck(self) -> str | None:
        """What stands still and cannot be ended, in a sentence; None when nothing does."""
        with self._lock:
            return next((_stands_still(calling) for calling in self._calls.values() if calling.named), None)

    def refuse(self) -> None:
        """Call no more parts: each call that is yet to come is a PartEndedError at once. From any thread."""
        self.refusing = True

    def close(self) -> None:
        """No more parts are called."""
        self._closing.set()
        watching = self._watching
        if watching is not None and watching is not threading.current_thread() and not self._calls:
            watching.join()

    def _leave(self, calling: _Calling) -> None:
        if calling.before is None and time.perf_counter() - calling.since_s < self._limit_s / 2:
            self._calls.pop(calling.thread, None)  # too soon for anybody to be about to end it
            return
        with self._lock:
            if self._calls.get(calling.thread) is calling:
                if calling.before is None:
                    del self._calls[calling.thread]
                else:
                    self._calls[calling.thread] = calling.before
            if calling.raised_s is not None:
                _raise_in(calling.thread, None)  # if it has not been heard yet, it is not to be

    def _watch_from_now_on(self) -> None:
        with self._lock:
            if self._watching is None and not self._closing.is_set():
                self._watching = threading.Thread(target=self._watch, name="avlab-guard", daemon=True)
                self._watching.start()

    def _watch(self) -> None:
        looked_s = time.perf_counter()
        while not self._closing.wait(LOOK_S) or any(not calling.named for calling in list(self._calls.values())):
            if self._closing.is_set():
                time.sleep(LOOK_S)
            before_s, looked_s = looked_s, time.perf_counter()
            between_s = min(looked_s - before_s, MOST_BETWEEN_S)
            for calling in list(self._calls.values()):
                calling.taken_s += min(between_s, looked_s - calling.since_s)
                if self._look_at(calling):
                    with contextlib.suppress(Exception):
                        self._stuck(_stands_still(calling))

    def _look_at(self, calling: _Calling) -> bool:
        """End a call that has had its time; whether it is to be named, as it does not end."""
        now_s = time.perf_counter()
        if calling.taken_s < self._limit_s:
            return False
        with self._lock:
            if self._calls.get(calling.thread) is not calling:  # it has just returned
                return False
            if calling.raised_s is None or now_s - calling.raised_s >= GRACE_S:  # again, to one that has caught it
                late = calling.raised_s is not None and not calling.named
                calling.named |= late
                calling.raised_s = now_s
                _raise_in(calling.thread, _EndedError)
                return late
        return False


def _stands_still(calling: _Calling) -> str:
    return f"{calling.what} has not returned, and cannot be ended: restart the kernel"


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    exception = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)
