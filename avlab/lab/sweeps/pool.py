"""Where the points of a sweep are run: the machine's cores, or whatever joblib's configuration says; one worker or all.

A worker may die of its point. joblib's own pool breaks with it, so those that were under way are given back as
undecided, and the others go on in a new one. A Dask cluster knows which task it was: its futures are asked, as joblib's
backend waits for ever for one whose worker was killed again and again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from functools import partial
from itertools import islice
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend

from avlab.lab.sweeps.kept import Outcome
from avlab.lab.sweeps.points import Point

Work = Callable[[dict[str, Any], int | None], Outcome]
"""Runs one point, and raises nothing."""

KILLED = "its worker was killed, again and again: out of memory, or a crash in C"
"""What is said of a point that kills its worker twice."""

Done = tuple[Point, Outcome | None]
"""A point, and what came of it: None when its worker has died, of it or of another one."""


def done(points: Sequence[Point], work: Work, *, jobs: int, together: bool) -> Iterator[Done]:
    """Run points, `jobs` at a time as joblib counts them; one after another unless `together`. As they are done.

    With jobs=1 and nothing else in joblib's configuration they are run in this process; else in workers, even a single
    one. TypeError when the run cannot be sent there.
    """
    backend: Any = get_active_backend()[0]
    client = getattr(backend, "client", None)
    if client is not None:
        return _by_dask(points, work, client, getattr(backend, "submit_kwargs", {}), together)
    if jobs == 1:
        return ((point, work(point.settings, point.seed)) for point in points)
    return _by_joblib(points, work, jobs, together)


def _by_joblib(points: Sequence[Point], work: Work, jobs: int, together: bool) -> Iterator[Done]:
    many = effective_n_jobs(jobs)
    at_once = many if together else 1
    waiting = iter(range(len(points)))
    broken = True
    while broken:
        broken = False
        flying: set[int] = set()

        def leaving(flying: set[int] = flying) -> Iterator[Any]:
            for number in waiting:
                flying.add(number)
                yield delayed(_numbered)(number, work, points[number].settings, points[number].seed)

        # With one job, joblib runs in this process: a point that kills it is to kill a worker. One a worker at a time:
        # those under way when one dies are all that are in doubt.
        pool = Parallel(n_jobs=max(2, many), return_as="generator_unordered", batch_size=1, pre_dispatch=at_once)
        try:
            for number, outcome in pool(leaving()):
                flying.discard(number)
                yield points[number], outcome
        except BrokenExecutor:
            broken = True
            for number in sorted(flying):
                yield points[number], None
        except Exception as error:
            raise _said(error) from error


def _numbered(number: int, work: Work, settings: dict[str, Any], seed: int | None) -> tuple[int, Outcome]:
    return number, work(settings, seed)


def _by_dask(
    points: Sequence[Point], work: Work, client: Any, settings: dict[str, Any], together: bool
) -> Iterator[Done]:
    from distributed import KilledWorker, as_completed

    submit = partial(client.submit, work, pure=False, **settings)
    waiting, flying = iter(points), {}
    ready = as_completed(loop=client.loop)

    def leave(count: int) -> None:
        for point in islice(waiting, max(0, count)):
            try:
                future = submit(point.settings, point.seed)
            except Exception as error:
                raise _said(error) from error
            flying[future] = point
            ready.add(future)

    try:
        while True:
            threads = client.ncores().values()
            # No more than run: those that wait at a worker which dies are suspected with the one that runs there.
            leave((max(1, sum(threads)) if together else 1) - len(flying))
            if not flying:
                return
            future = next(ready)
            point = flying.pop(future)
            try:
                outcome = future.result()
            except KilledWorker:  # by its scheduler's count: distributed.scheduler.allowed-failures
                outcome = Outcome({}, KILLED) if all(count == 1 for count in threads) else None
            yield point, outcome
    finally:
        for future in flying:
            future.cancel()


def _said(error: Exception) -> Exception:
    """What went wrong with the pool: as a sentence where a value could not be sent."""
    cause: BaseException = error
    while (before := cause.__cause__ or cause.__context__) is not None:
        if "pickle" in str(before):
            cause = before
            break
        cause = before
    if type(error).__name__ != "PicklingError" and "pickle" not in str(cause) and "serialize" not in str(error):
        return error
    return TypeError(f"run, measure or a value of the grid cannot be sent to another process ({cause}): give jobs=1")


def in_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
