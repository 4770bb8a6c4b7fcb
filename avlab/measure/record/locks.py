"""Files that belong to a process while it lives: how another knows whether it still does, and may remove them.

On POSIX a lock is held on each, which the system lets go of when the process ends, however it ends; on Windows an open
file cannot be removed. No process is asked for by its number: numbers come again, and mean nothing across containers.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def held(name: Callable[[], Path]) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file of this process's own, by a name that is made up for it; closed at the end. OSErrors as they come."""
    path, file = take(name)
    with file:
        yield path, file


def take(name: Callable[[], Path]) -> tuple[Path, IO[bytes]]:
    """A new file of this process's own, open for writing, as long as it is not closed."""
    while True:
        path = name()
        file = open(path, "x+b")  # noqa: SIM115 - it is handed on
        try:
            _lock(file, wait=True)
            # Between making and locking it, another may have taken it for one that was left behind.
            if _is(path, file):
                return path, file
        except BaseException:
            file.close()
            raise
        file.close()


def remove_if_left(path: Path) -> bool:
    """Remove a file unless a process that lives holds it; whether it was removed. What cannot be removed stays."""
    try:
        with open(_for_a_look(path), "rb") as file:
            _lock(file, wait=False)
            if not _is(path, file):
                return False
            if sys.platform == "win32":
                file.close()
            path.unlink()
    except OSError:  # held by another, gone, or not ours to remove
        return False
    return True


def _for_a_look(path: Path) -> int:
    """The descriptor of a file that is opened for reading, and of nothing that is no file."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


def replace(file: IO[bytes], path: Path, target: Path) -> None:
    """Put a file of this process's own in the place of `target`, in one step."""
    if sys.platform == "win32":
        file.close()  # what is open cannot be moved there
    os.replace(path, target)


def _is(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


if sys.platform == "win32":

    def _lock(file: IO[bytes], *, wait: bool) -> None:
        """An open file is held without more."""

else:
    import fcntl

    def _lock(file: IO[bytes], *, wait: bool) -> None:
        """OSError: it is held by another. Where the file system has no locks, nothing is held, and nothing removed."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if not wait:
                raise
