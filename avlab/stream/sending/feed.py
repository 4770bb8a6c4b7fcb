"""A source read ahead of need on a thread of its own: a bounded queue between decoding and sending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from avlab.stream.handle import Worker

Unit = TypeVar("Unit")
Unit_co = TypeVar("Unit_co", covariant=True)


@dataclass(frozen=True, slots=True)
class _End:
    """A pass is over: read through, or ended by what the source raised."""

    error: Exception | None


class Supply(Protocol[Unit_co]):
    """What a `Feed` is to whoever sends; its docstrings hold."""

    error: Exception | None
    ended: bool

    def take(self) -> Unit_co | None:
        """The next unit, or None when none is ready or the clip has ended."""

    def begin(self) -> None:
        """Somebody takes from now on."""

    def rewind(self) -> None:
        """Start the clip again from its beginning."""


class Line(Generic[Unit]):
    """At most `places` units on their way from one thread to another.

    Waiting and waking are the system's, not Python's: each picture comes by here.
    """

    def __init__(self, places: int) -> None:
        self._units: queue.SimpleQueue[Unit] = queue.SimpleQueue()
        self._places: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(places):
            self._places.put(None)

    def put(self, unit: Unit, timeout: float) -> bool:
        """Whether there was a place for it within `timeout` seconds."""
        try:
            self._places.get(timeout=timeout)
        except queue.Empty:
            return False
        self._units.put(unit)
        return True

    def take(self) -> Unit | None:
        """The one that was put first; None when there is none."""
        if self._units.empty():  # as it mostly is: an exception would cost ten times as much
            return None
        try:
            unit = self._units.get_nowait()
        except queue.Empty:
            return None
        self._places.put(None)
        return unit


class Feed(Generic[Unit]):
    """Runs `passes()` - a fresh iterator over the clip each time - and keeps at most `ahead` units ready.

    The thread blocks when they are not taken: a file loses nothing by waiting. `ready` is called when a unit has come
    and the last `take` found none. What a source raises in mid-stream ends its pass like its last unit: `ended` is set
    and `error` says why. One that raises before its first unit has nothing to offer, and its thread fails. A `live`
    source is read from `begin` to `rewind` and no longer: nothing of it is old, and while nobody takes it is closed.
    """

    def __init__(
        self, passes: Callable[[], Iterator[Unit]], *, ahead: int, ready: Callable[[], None], live: bool = False
    ) -> None:
        self._passes = passes
        self._ready = ready
        self._live, self._wanted = live, not live
        self.line: Line[tuple[int, Unit | _End]] = Line(ahead)
        self._generation = 0
        self._rewound = threading.Event()
        self._hungry = False
        self.ended = False
        self.error: Exception | None = None

    def take(self) -> Unit | None:
        """The next unit, or None when none is ready or the clip has ended (`ended` tells)."""
        self._hungry = True  # before looking: what is put after the look must find it set
        while not self.ended:
            if (taken := self.line.take()) is None:
                return None
            generation, unit = taken
            if generation != self._generation:
                continue
            self._hungry = False
            if not isinstance(unit, _End):
                return unit
            self.ended, self.error = True, unit.error
        return None

    def begin(self) -> None:
        """Somebody takes from now on: a live source is opened. Others are read ahead anyway."""
        if not self._wanted:
            self._wanted = True
            self._generation += 1
            self._rewound.set()

    def rewind(self) -> None:
        """Start the clip again from its beginning, or close a live source; what was read ahead is forgotten."""
        self._wanted = not self._live
        self._generation += 1
        self.ended, self.error = False, None
        self._rewound.set()
        self._drain()

    def run(self, worker: Worker) -> None:
        """The thread's body."""
        while not worker.stopping.is_set():
            generation = self._generation
            self._rewound.clear()
            if self._wanted:
                self._one_pass(worker, generation)
            while generation == self._generation and not worker.stopping.is_set():
                self._rewound.wait()

    def wake(self) -> None:
        """Let the thread look up, when it is to stop."""
        self._rewound.set()
        self._drain()

    def _one_pass(self, worker: Worker, generation: int) -> None:
        units = self._passes()
        given, failure = 0, None
        try:
            for unit in units:
                if not self._put(worker, generation, unit):
                    return
                given += 1
        except Exception as error:
            if not given:
                raise
            failure = error
        finally:
            close = getattr(units, "close", None)
            if close is not None:
                close()
        self._put(worker, generation, _End(failure))

    def _put(self, worker: Worker, generation: int, unit: Unit | _End) -> bool:
        while generation == self._generation and not worker.stopping.is_set():
            if not self.line.put((generation, unit), timeout=1.0):
                continue
            if self._hungry:
                self._ready()
            return True
        return False

    def _drain(self) -> None:
        while self.line.take() is not None:
            pass
