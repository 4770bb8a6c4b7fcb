"""Where the old rows of a record live: files without a name, one a table, that go with the process, however it ends.

The system itself removes them: on POSIX they have no name once they are open, and Windows deletes them when the last
descriptor is closed, be it by a kill.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import weakref
from typing import Any

import numpy as np

from avlab.measure.record.tables import Rows


class Scratch:
    """Puts rows away: one growing file for each kind of rows, made when it is first needed.

    What it returns reads them back, from any thread, while more are added. OSError: the disk is full, or the folder for
    temporary files (TMPDIR) cannot be written.
    """

    def __init__(self) -> None:
        self._files: dict[np.dtype[Any], _File] = {}
        self._lock = threading.Lock()

    def __call__(self, rows: Rows) -> Rows | StoredRows:
        """The rows, on the disk from now on."""
        if not len(rows):
            return rows
        with self._lock:
            file = self._files.get(rows.dtype)
            if file is None:
                file = self._files[rows.dtype] = _File()
        return StoredRows(file, rows.dtype, file.append(rows.tobytes()), len(rows))


class StoredRows:
    """Rows in a scratch file, which stays open as long as any are asked for."""

    def __init__(self, file: _File, dtype: np.dtype[Any], offset: int, count: int) -> None:
        self._file, self._dtype, self._offset, self._count = file, dtype, offset, count

    def __len__(self) -> int:
        """How many."""
        return self._count

    def read(self, start: int, stop: int) -> Rows:
        """Those from `start` up to `stop`, in memory. OSError when the disk fails."""
        size = self._dtype.itemsize
        data = self._file.read(self._offset + start * size, (stop - start) * size)
        return np.frombuffer(data, self._dtype)

    def followed_by(self, other: object) -> StoredRows | None:
        """Both in one, where `other` lies right behind; else None."""
        if not isinstance(other, StoredRows) or other._file is not self._file:
            return None
        if other._offset != self._offset + self._count * self._dtype.itemsize:
            return None
        return StoredRows(self._file, self._dtype, self._offset, self._count + other._count)


class _File:
    """A file without a name that only grows."""

    def __init__(self) -> None:
        self._descriptor = _nameless()
        self._size = 0
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._descriptor)

    def append(self, data: bytes) -> int:
        """Where the data begins. What could be written of it only in part is written over by the next."""
        with self._lock:
            begin, view = self._size, memoryview(data)
            while view:
                view = view[self._write(view, self._size + len(data) - len(view)) :]
            self._size += len(data)
        return begin

    def read(self, offset: int, size: int) -> bytearray:
        """Exactly so many bytes."""
        data = bytearray()
        while len(data) < size:
            part = self._read(size - len(data), offset + len(data))
            if not part:
                raise OSError(f"the file that the record's older rows are in ends early, after {offset:,} bytes")
            data += part
        return data

    if sys.platform == "win32":  # which has no reading at a place of one's own

        def _write(self, data: memoryview, offset: int) -> int:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.write(self._descriptor, data)

        def _read(self, size: int, offset: int) -> bytes:
            with self._lock:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                return os.read(self._descriptor, size)

    else:

        def _write(self, data: memoryview, offset: int) -> int:
            return os.pwrite(self._descriptor, data, offset)

        def _read(self, size: int, offset: int) -> bytes:
            return os.pread(self._descriptor, size, offset)


def _nameless() -> int:
    """The descriptor of a new file that is gone when it is closed."""
    folder = _folder()
    name = os.path.join(folder, f"avlab-{os.getpid()}-{os.urandom(6).hex()}")
    unnamed = getattr(os, "O_TMPFILE", None)
    if unnamed is not None:
        with contextlib.suppress(OSError):  # not every file system has it
            return os.open(folder, unnamed | os.O_RDWR, 0o600)
    # Windows deletes what is open so; elsewhere a file may lose its name while it is open.
    flags = sum(getattr(os, name, 0) for name in ("O_TEMPORARY", "O_BINARY", "O_NOINHERIT"))
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o600)
    if sys.platform != "win32":
        os.unlink(name)
    return descriptor


def _folder() -> str:
    """The folder for temporary files: the one that TMPDIR names, else one that is on a disk.

    On many Linux systems /tmp is memory, which the rows are to make room in; /var/tmp is not (FHS 3.0, 5.15).
    """
    named = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    if not named and sys.platform == "linux" and os.access("/var/tmp", os.W_OK | os.X_OK):
        return "/var/tmp"
    return tempfile.gettempdir()
