"""The process that another server works in: started, told a key, read from until it listens, ended. Knows no server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, cast

from avlab.stream.clock import CLOCK_VARIABLE, clock_identity
from avlab.stream.isolated.pipe import Pipe, connected, new_key

PROGRAM = "avlab.stream.isolated"

LONGEST_LINE = 1 << 16
"""Bytes. What is longer is no address."""

_WINDOWS_FLAGS = 0x200 | 0x08000000  # CREATE_NEW_PROCESS_GROUP: Ctrl-C is not for it; CREATE_NO_WINDOW


class Child:
    """A process that runs; OSError, with a sentence, where none can be started."""

    def __init__(self) -> None:
        errors: IO[bytes] | None = None
        try:
            errors = self._errors = tempfile.TemporaryFile(prefix="avlab-")  # noqa: SIM115 - closed by `end`
            self._process = _started(errors)
        except OSError as error:
            if errors is not None:
                errors.close()
            reason = error.strerror or str(error)
            raise OSError(
                error.errno, f"no process can be started for the server ({reason}): leave isolated out"
            ) from None
        self._input, self._output = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def connect(self) -> Pipe | None:
        """The pipe to it, once it listens; None when it has ended instead."""
        key = new_key()
        with contextlib.suppress(OSError):
            self._input.write(key.hex().encode() + b"\n")
            self._input.flush()  # and stays open: its end tells the process that there is nobody any more
        line = self._output.readline(LONGEST_LINE)
        try:
            return connected(line, key) if line else None
        except (EOFError, ConnectionError, FileNotFoundError):  # it was killed in between
            return None

    def kill(self) -> None:
        """End it at once; harmless when it has ended."""
        self._process.kill()

    def end(self) -> None:
        """Let it end, for a second, and then make it."""
        with contextlib.suppress(OSError):
            self._input.close()
        self._wait()
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: a thread that would not end reads from it
            self._output.close()
        self._errors.close()

    def why_ended(self) -> str:
        """A sentence of how it ended by itself; one that has closed its output, and goes on, is ended."""
        code = self._wait()
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4096))
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        said = f", its last words: {words[-1]}" if words else ""
        return f"the server's process ended by itself with exit code {code}{said}; begin anew"

    def _wait(self) -> int:
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _started(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """The program: the same interpreter, avlab from where this one has it, nothing from the folder."""
    home = str(Path(__file__).resolve().parents[3])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    windows = sys.platform == "win32"
    return subprocess.Popen(
        [sys.executable, "-P", "-m", PROGRAM],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), CLOCK_VARIABLE: clock_identity()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        # Ctrl-C in a terminal is meant for the one who will stop this process, and not for it as well.
        start_new_session=not windows,
        creationflags=_WINDOWS_FLAGS if windows else 0,
    )
