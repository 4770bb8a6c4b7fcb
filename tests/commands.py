"""The command line as a person runs it: in a process of its own, with its words and its exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SECONDS = 60.0


def environment() -> dict[str, str]:
    """This process's environment without a display, so that no window opens."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "avlab", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, of which it has a minute."""
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )


def sentence(said: str) -> str:
    """The one sentence that a failed command says last on stderr; AssertionError if it says more than that."""
    assert "Traceback" not in said, said
    lines = said.splitlines()
    assert [line for line in lines if line.startswith("avlab: ")] == lines[-1:], said
    assert all(line.startswith("trace saved in ") for line in lines[:-1]), said
    return lines[-1].removeprefix("avlab: ")


@dataclass
class Running:
    """A command that runs: `first` is the first line it said."""

    process: subprocess.Popen[str]
    first: str
    said: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        found = re.search(r"(rtsp|classic)://\S+", self.first)
        assert found is not None, self.first or f"it said nothing, but: {self.process.communicate()[1]}"
        return found[0]

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal and wait; exit code, stdout after the first line, stderr."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        """Wait for the end; exit code, stdout after the first line, stderr."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


@contextmanager
def running(*arguments: object) -> Iterator[Running]:
    """A command in the background, from its first line on stdout; killed at the block's end if it still runs.

    With `--json` it says nothing before its end, and `first` is empty.
    """
    process = subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    guard = threading.Timer(SECONDS, process.kill)  # so that a command which says nothing fails the test
    guard.start()
    try:
        assert process.stdout is not None
        yield Running(process, "" if "--json" in arguments else process.stdout.readline())
    finally:
        guard.cancel()
        guard.join()
        if process.poll() is None:
            process.kill()
        process.communicate()
