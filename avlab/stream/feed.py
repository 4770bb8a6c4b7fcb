"""A source read ahead of need on a thread of its own: a bounded queue between decoding and sending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from avlab.stream.worker import Worker

Unit = TypeVar("Unit")


class Feed(Generic[Unit]):
    """Runs `passes()` - a fresh iterator over the clip each time - and keeps at most `ahead` units ready.

    The thread blocks when they are not taken: a file loses nothing by waiting. `ready` is called when a unit has come
    and the last `take` found none.
    """

    def __init__(self, passes: Callable[[], Iterator[Unit]], *, ahead: int, ready: Callable[[], None]) -> None:
        self._passes = passes
        self._ready = ready
        self._queue: queue.Queue[tuple[int, Unit | None]] = queue.Queue(maxsize=ahead)
        self._generation = 0
        self._rewound = threading.Event()
        self._hungry = False
        self.ended = False

    def take(self) -> Unit | None:
        """The next unit, or None when none is ready or the clip has ended (`ended` tells)."""
        while not self.ended:
            try:
                generation, unit = self._queue.get_nowait()
            except queue.Empty:
                self._hungry = True
                return None
            if generation != self._generation:
                continue
            if unit is None:
                self.ended = True
                break
            self._hungry = False
            return unit
        return None

    def rewind(self) -> None:
        """Start the clip again from its beginning; what was read ahead is forgotten."""
        self._generation += 1
        self.ended = False
        self._rewound.set()
        self._drain()

    def run(self, worker: Worker) -> None:
        """The thread's body."""
        while not worker.stopping.is_set():
            generation = self._generation
            self._rewound.clear()
            self._one_pass(worker, generation)
            while generation == self._generation and not worker.stopping.is_set():
                self._rewound.wait()

    def wake(self) -> None:
        """Let the thread look up, when it is to stop."""
        self._rewound.set()
        self._drain()

    def _one_pass(self, worker: Worker, generation: int) -> None:
        units = self._passes()
        try:
            for unit in units:
                if not self._put(worker, generation, unit):
                    return
        finally:
            close = getattr(units, "close", None)
            if close is not None:
                close()
        self._put(worker, generation, None)

    def _put(self, worker: Worker, generation: int, unit: Unit | None) -> bool:
        while generation == self._generation and not worker.stopping.is_set():
            try:
                self._queue.put((generation, unit), timeout=1.0)
            except queue.Full:
                continue
            if self._hungry:
                self._ready()
            return True
        return False

    def _drain(self) -> None:
        try:
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            return
