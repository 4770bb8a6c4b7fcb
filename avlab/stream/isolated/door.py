"""Where an isolated server's process waits for its handle: a place that nobody else has access to, for one connection.

A socket's file in a folder of one's own on POSIX, a named pipe on Windows, and a port of the loopback interface where
the system has neither, or not in so deep a folder. It is there while the process starts and no longer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from multiprocessing import AuthenticationError
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

from avlab.stream.isolated.pipe import LOOPBACK

PREFIX = "avlab-pipe-"
LONGEST_PATH = 100
"""Bytes. sockaddr_un holds 104 on macOS and 108 on Linux, with a zero at the end."""


class Door:
    """Listens from the start on; `address` is where. OSError when there is no place at all to listen."""

    def __init__(self, key: bytes) -> None:
        self._folder: Path | None = None
        self._held = -1
        self._listener = self._opened(key)
        self.address: Any = self._listener.address

    def accept(self) -> Any:
        """The connection of the first that proves to know the key; None once the door is closed."""
        while True:
            try:
                return self._listener.accept()
            except (AuthenticationError, EOFError, ConnectionError):  # somebody else, or a scanner of ports
                continue
            except OSError:
                return None

    def close(self) -> None:
        """Listen no more, and remove what is on the disk."""
        with contextlib.suppress(OSError):
            self._listener.close()
        self._remove()

    def _opened(self, key: bytes) -> Listener:
        if sys.platform == "win32":
            return Listener(None, "AF_PIPE", authkey=key)
        else:  # noqa: RET505 - so that types hold on both
            sweep(Path(tempfile.gettempdir()))
            with contextlib.suppress(OSError):  # a file system without sockets, or nowhere to write
                self._folder, self._held = _own_folder()
                path = str(self._folder / "s")
                if len(os.fsencode(path)) <= LONGEST_PATH:
                    return Listener(path, "AF_UNIX", authkey=key)
            self._remove()
            return Listener((LOOPBACK, 0), "AF_INET", authkey=key)

    def _remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._held)
            self._folder = None


if sys.platform != "win32":
    import fcntl

    def _own_folder() -> tuple[Path, int]:
        """A new folder that only this user may enter, locked for as long as this process lives, however it ends."""
        while True:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # with mode 0700
            with contextlib.suppress(FileNotFoundError):  # another process swept in just that moment
                held = os.open(folder, os.O_RDONLY)
                if _lock(held) is not False and folder.exists():
                    return folder, held
                os.close(held)

    def sweep(home: Path) -> None:
        """Remove what processes that were killed in the middle of their start have left there."""
        for folder in home.glob(PREFIX + "*"):
            with contextlib.suppress(OSError):
                found = folder.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                    continue
                held = os.open(folder, os.O_RDONLY)
                if _lock(held):
                    shutil.rmtree(folder, ignore_errors=True)
                os.close(held)

    def _lock(held: int) -> bool | None:
        """Whether the lock is this process's now; None on a file system without locks, where nothing is swept."""
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True
