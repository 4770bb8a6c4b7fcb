"""Python's collector of garbage, while simulated runs go on in this process.

A run keeps tens of thousands of rows, so that Python would look through all that is alive in the process again and
again, and find nothing: this would be a tenth of a run's time, and more in a notebook. What dies young is collected, in
larger portions than otherwise; full collections wait for the end of the last run.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PORTION = 10_000
"""So many objects more than before are looked through for garbage."""

_NEVER = 1 << 30
_lock = threading.Lock()
_runs = 0
_usual = gc.get_threshold()


@contextmanager
def full_collections_put_off() -> Iterator[None]:
    """No full collection begins by itself; runs on several threads share it, and the last one ends it."""
    global _runs, _usual
    with _lock:
        if _runs == 0:
            _usual = gc.get_threshold()
            gc.set_threshold(_usual[0] and max(_usual[0], _PORTION), _usual[1], _NEVER)
        _runs += 1
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            if _runs == 0:
                gc.set_threshold(*_usual)
