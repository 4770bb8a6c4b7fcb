"""A target in a process of its own: native code that aborts ends that process, and the input that did it is known."""

from __future__ import annotations

import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from .everything import BY_NAME
from .running import Failure, Tally, Target, bounded, fuzz


def _feed(name: str, seed: int, seconds: float, last: str, tell: Connection) -> None:
    with bounded():
        tally = fuzz(BY_NAME[name], seed=seed, seconds=seconds, last=Path(last))
    for failure in tally.failures:
        failure.target = None  # which holds functions, and is known by its name
    tell.send(tally)


def apart(target: Target, seed: int, seconds: float) -> Tally:
    """Feed a target for some seconds, in another process."""
    context = multiprocessing.get_context("spawn")
    heard, tell = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="avlab-fuzz-") as folder:
        last = Path(folder) / "last"
        child = context.Process(target=_feed, args=(target.name, seed, seconds, str(last), tell))
        child.start()
        tell.close()
        try:
            tally: Tally = heard.recv()
        except EOFError:
            child.join(60)
            data = last.read_bytes() if last.exists() else b""
            size = int.from_bytes(data[:8], "little")
            tally = Tally(failures=[Failure(target, data[16 : 16 + size], f"the process ended, {child.exitcode}")])
            tally.tried = int.from_bytes(data[8:16], "little")
        child.join(60)
    for failure in tally.failures:
        failure.target = target
    return tally
