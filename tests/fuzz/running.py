"""Feeds a target with spoilt inputs, and counts: how many, which errors left it, how long the longest took.

An error that the target does not document, a call beyond its seconds, or memory beyond `HEADROOM` is a failure, which
keeps the input. Time is the process's own, so that a busy machine is no reason to fail.
"""

from __future__ import annotations

import contextlib
import mmap
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from . import mutation

HEADROOM = 3 << 30
"""Bytes of address space that a call may ask for beyond what the process has: far more than any needs, though Arrow's
allocator sets a gigabyte aside before it uses any (Linux alone)."""

MOST_GOOD = 1000
"""Inputs that are spoilt further: those that a target begins with, and those whose outcome was new."""


class TooSlowError(Exception):
    """A call was ended because it took too long."""


@dataclass(frozen=True)
class Target:
    """One thing that reads bytes of others."""

    name: str
    call: Callable[[bytes], Any]
    good: Callable[[], list[bytes]]
    """Inputs that are as they should be."""
    errors: tuple[type[BaseException], ...]
    """What may leave `call`: what its docstring names."""
    words: tuple[bytes, ...] = ()
    """Words of its language, to be put where they do not belong."""
    share: int = 200
    """How many inputs the ordinary tests feed it."""
    seconds: float = 2.0
    """What a call may take, in seconds of this process: far more than any takes."""


@dataclass
class Failure:
    """An input that a target did not stand."""

    target: Target | None
    data: bytes
    reason: str

    def __str__(self) -> str:
        assert self.target is not None
        line = (self.target.name, self.data)
        return f"{self.target.name}: {self.reason}\nThe input, for FOUND in test_fuzz.py:\n    {line!r},"


@dataclass
class Tally:
    """What became of a target's inputs."""

    tried: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    longest_ns: int = 0
    outcomes: int = 0
    failures: list[Failure] = field(default_factory=list)


def attempt(target: Target, data: bytes) -> tuple[object, int]:
    """One call: its outcome, comparable to others', and the ns of it. What may not leave it does leave this."""
    begun_ns = time.thread_time_ns()
    try:
        with _limit(target.seconds):
            result = target.call(data)
    except (MemoryError, TooSlowError):  # whatever is documented
        raise
    except target.errors as error:
        return (type(error).__name__, _line(error)), time.thread_time_ns() - begun_ns
    return ("", _shape(result)), time.thread_time_ns() - begun_ns


def fuzz(
    target: Target, *, seed: int, inputs: int | None = None, seconds: float | None = None, last: Path | None = None
) -> Tally:
    """Feed a target `inputs` spoilt inputs, or as many as `seconds` allow; what is good comes first, as it is.

    The same seed and count give the same inputs. A failure ends it. In the file `last` is the input under way,
    after its length and its number: what to look at when native code has ended the process.
    """
    rng, tally = random.Random(f"{target.name} {seed}"), Tally()
    good = list(target.good())
    seen: set[object] = set()
    first = list(good)
    deadline = None if seconds is None else time.monotonic() + seconds
    written = None if last is None else _window(last)
    while (inputs is None or tally.tried < inputs) and (deadline is None or time.monotonic() < deadline):
        data = first.pop() if first else mutation.mutated(rng, good, target.words)
        tally.tried += 1
        if written is not None:
            written[: 16 + len(data)] = len(data).to_bytes(8, "little") + tally.tried.to_bytes(8, "little") + data
        try:
            outcome, took_ns = attempt(target, data)
        except Exception as error:
            tally.failures.append(_failure(target, data, error))
            return tally
        tally.longest_ns = max(tally.longest_ns, took_ns)
        if took_ns > target.seconds * 1e9:
            tally.failures.append(Failure(target, data, f"it took {took_ns / 1e9:.1f} s"))
            return tally
        if isinstance(outcome, tuple) and outcome[0]:
            tally.errors[outcome[0]] += 1
        if outcome not in seen:
            seen.add(outcome)
            if len(good) < MOST_GOOD and len(data) < mutation.MOST_BYTES // 4:
                good.append(data)
    tally.outcomes = len(seen)
    return tally


def _window(path: Path) -> mmap.mmap:
    """A file that is written by writing into memory, whatever becomes of the process."""
    with path.open("w+b") as file:
        file.truncate(16 + 2 * mutation.MOST_BYTES)
        return mmap.mmap(file.fileno(), 0)


def _failure(target: Target, data: bytes, error: Exception) -> Failure:
    """The same fault in as few bytes as possible."""
    kind, line = type(error), _line(error)

    def fails(shorter: bytes) -> bool:
        try:
            attempt(target, shorter)
        except Exception as other:
            return type(other) is kind and _line(other) == line
        return False

    if not isinstance(error, TooSlowError | MemoryError):  # which take their time
        data = mutation.smaller(data, fails)
    told = "".join(traceback.format_exception(error)[-6:])
    return Failure(target, data, f"{kind.__name__} leaves it:\n{told}")


def _line(error: BaseException) -> tuple[str, int]:
    """Where an error was raised."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return ("", 0) if step is None else (step.tb_frame.f_code.co_filename, step.tb_lineno)


def _shape(result: Any) -> object:
    """What kind of a result it is, roughly: few enough kinds that each can be kept."""
    if isinstance(result, Sequence) and not isinstance(result, str | bytes):
        return tuple(sorted({type(each).__name__ for each in result})), min(len(result), 8).bit_length()
    if isinstance(result, str | bytes):
        return type(result).__name__, len(result).bit_length()
    return result if isinstance(result, bool | int) and -64 < result < 64 else type(result).__name__


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """End what takes far longer than that, where the system can: by a signal of the process's own time."""
    if not hasattr(signal, "SIGVTALRM"):
        yield
        return
    signal.setitimer(signal.ITIMER_VIRTUAL, 3 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlowError("it takes three times the seconds that it may")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Within the block, a call that asks for too much memory gets MemoryError, and one that never ends TooSlowError."""
    with contextlib.ExitStack() as stack:
        if hasattr(signal, "SIGVTALRM"):
            before = signal.signal(signal.SIGVTALRM, _too_slow)
            stack.callback(signal.signal, signal.SIGVTALRM, before)
        if sys.platform == "linux":
            import resource

            pages = int(Path("/proc/self/statm").read_text().split()[0])
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            most = pages * resource.getpagesize() + HEADROOM
            resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
            stack.callback(resource.setrlimit, resource.RLIMIT_AS, (soft, hard))
        yield
