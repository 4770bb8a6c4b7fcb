"""The command line as a person runs it: in a process of its own, with its words and its exit code."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import tools
from tools import SECONDS


def environment() -> dict[str, str | None]:
    """What is another's environment: without a display, so that no window opens."""
    return {"DISPLAY": None, "WAYLAND_DISPLAY": None}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "avlab", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return tools.finished(*command(*arguments), env=environment())


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
        assert found is not None, self.first or f"it said nothing, but: {self.process.communicate(timeout=SECONDS)[1]}"
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
    with tools.started(*command(*arguments), env=environment(), seconds=SECONDS) as process:
        assert process.stdout is not None
        yield Running(process, "" if "--json" in arguments else process.stdout.readline())
