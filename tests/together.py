"""Turns of tests that several processes run: side by side, but for those that need the machine to themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

with suppress(ImportError):  # on Windows tests run one after another
    import fcntl


class Turns:
    """One process's view of the locks in `folder`, which all of them are given.

    There are two, both freed by the system when a process ends: `house`, shared by all tests or held by one, and
    `door`, held by whoever waits for the house, so that those who want it to themselves get their turn.
    """

    def __init__(self, folder: Path) -> None:
        self._door, self._house = (folder / "door").open("wb"), (folder / "house").open("wb")
        self._alone = False

    @contextmanager
    def turn(self, *, alone: bool = False, following: bool = False) -> Iterator[None]:
        """Wait for a test's turn. `following`: the next one is to be alone, too; a row of these is one turn."""
        if not self._alone:
            fcntl.flock(self._door, fcntl.LOCK_EX)
            fcntl.flock(self._house, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            self._alone = alone and following
            if not self._alone:
                fcntl.flock(self._house, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give up whatever is held."""
        self._door.close()
        self._house.close()
