"""What is alive of a kind in this process, for whoever asks, on any thread. Keeps nothing alive."""

from __future__ import annotations

import threading
import weakref
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """A set of weak references that may be looked through on one thread while others add to it.

    A `WeakSet` raises RuntimeError then: it is iterated in Python, and other threads run in between.
    """

    def __init__(self) -> None:
        self._members: weakref.WeakSet[T] = weakref.WeakSet()
        self._lock = threading.RLock()  # again by this thread: a finaliser may run at any moment

    def add(self, member: T) -> None:
        """Add one; does nothing when it is there."""
        with self._lock:
            self._members.add(member)

    def discard(self, member: T) -> None:
        """Take one out, if it is there."""
        with self._lock:
            self._members.discard(member)

    def all(self) -> list[T]:
        """Those that are there now, in no order."""
        with self._lock:
            return list(self._members)

    def take(self) -> list[T]:
        """Those that are there now, who are not any more."""
        with self._lock:
            taken = list(self._members)
            self._members.clear()
            return taken
