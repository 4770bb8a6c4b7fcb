"""One run at each point of a grid, with each seed: on all cores, or on a cluster; a row each, kept as they are done."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avlab.lab.sweeps import pool
from avlab.lab.sweeps.kept import Kept, Outcome
from avlab.lab.sweeps.points import Axis, Point, axes, check_called, plain_row, points, seeds_of
from avlab.measure.numbers import metrics
from avlab.measure.record.trace import Trace
from avlab.parts import named, shown
from avlab.stream.handle import started_so_far
from avlab.stream.recorded_sizes import sizes_of
from avlab.wire.text import printable

if TYPE_CHECKING:
    import pandas as pd


def sweep(
    run: Callable[..., Any],
    grid: Mapping[str, Any],
    *,
    seeds: Iterable[int] | None = range(5),
    to: str | PathLike[str],
    measure: Callable[[Trace], Any] = metrics.summary,
    jobs: int = -1,
) -> pd.DataFrame:
    """Run each point of a grid with each seed: a row each, with its parameters, `seed`, what was measured, `error`.

    `run` is called with a value of each of the grid's parameters, and with `seed`; it returns a trace, of which
    `measure` makes the row, or the row itself, a dict of numbers and words. It may be a lambda or a notebook's own.
    `grid` names the values of each parameter: a list, or a dict of names and values where values have no short name, as
    functions and networks. `seeds`: whole numbers; None for one run a point, without a seed.

    `to` is a folder, which gets a line of JSON for each point as soon as it is done, in points.jsonl, and no trace. The
    same call goes on where a killed one was, and returns at once when all is done; more values or seeds are added, with
    a UserWarning. ValueError for another run, measure or grid in that folder.

    `jobs` is how many at a time, as joblib counts: -1 is one a core, 1 runs in this process. Within
    `joblib.parallel_config(backend="dask")` a Dask cluster does it. The first point runs by itself; when it has
    streamed live (it started a server, a client or a relay), so do all others, one after another.

    A run or a measure that fails is a row with its `error`, and so is a point that kills its worker twice. TypeError
    for a parameter that `run` does not have, and for one that it needs and is not given.

    Args:
        run: A function of the grid's parameters and `seed`, which returns a trace or a dict.
        grid: The values of each parameter, a list or a dict of names and values.
        seeds: Whole numbers; None for one run a point, without a seed.
        to: The folder of the results.
        measure: A function that makes the row of a trace.
        jobs: How many at a time: -1 is one a core, 1 runs in this process.
    """
    made = axes(grid)
    numbers = seeds_of(seeds)
    check_called(run, [axis.name for axis in made], seeded=seeds is not None)
    if not callable(measure):
        raise TypeError(f"measure is a function of a trace, as avlab.metrics.summary, not {shown(measure)}")
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs == 0:
        raise ValueError(f"jobs must be a whole number, -1 for one a core, not {shown(jobs)}")
    kept = Kept(Path(to))
    if kept.open(run, measure, made, numbers):
        warnings.warn(
            f"{to} has a sweep of fewer values or seeds: {len(kept.done):,} points are taken from it", stacklevel=2
        )
    every = list(points(made, numbers))
    left = [point for point in every if point.key not in kept.done]
    if left:
        _measure_clips(made)
        _run(left, partial(attempt, run, measure), kept, jobs=jobs, among=len(every))
    return table(every, made, kept.done, seeded=seeds is not None)


def _measure_clips(axes: list[Axis]) -> None:
    """Clips among the grid's values: their frame sizes are measured once, and not by every worker."""
    for axis in axes:
        for value in axis.values:
            if isinstance(value, str | PathLike) and Path(value).is_file():
                with suppress(OSError, ValueError, RuntimeError):  # it is no clip, or the run will say
                    sizes_of(value)


def _run(left: list[Point], work: pool.Work, kept: Kept, *, jobs: int, among: int) -> None:
    from tqdm.auto import tqdm

    failed = sum(outcome.error is not None for outcome in kept.done.values())
    with tqdm(
        total=among,
        initial=among - len(left),
        desc="sweep",
        unit="run",
        disable=None if not pool.in_notebook() else False,
    ) as bar:

        def keep(point: Point, outcome: Outcome) -> None:
            nonlocal failed
            kept.add(point, outcome)
            if outcome.error is not None:
                failed += 1
                bar.set_postfix(failed=failed, refresh=False)
            bar.update()

        doubtful: list[Point] = []
        live = False
        # What all of them need is made by the first (a clip's frame sizes); and it says whether they are live.
        for few in (left[:1], left[1:]):
            for point, outcome in pool.done(few, work, jobs=jobs, together=not live):
                if outcome is None:
                    doubtful.append(point)
                else:
                    live = live or outcome.live
                    keep(point, outcome)
        for doubted in doubtful:
            for point, outcome in pool.done([doubted], work, jobs=jobs, together=False):
                keep(point, Outcome({}, pool.KILLED) if outcome is None else outcome)


def attempt(
    run: Callable[..., Any], measure: Callable[[Trace], Any], settings: dict[str, Any], seed: int | None
) -> Outcome:
    """Run one point and measure it; what fails is said."""
    began = started_so_far()
    try:
        made = run(**settings) if seed is None else run(**settings, seed=seed)
        if isinstance(made, Trace):
            measured = plain_row(measure(made))
        elif isinstance(made, Mapping):
            measured = plain_row(made)
        else:
            raise TypeError(f"{named(run)} is to return a trace or a dict of numbers, not {shown(made)}")
    except (Exception, SystemExit) as error:
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return Outcome({}, printable(words), live=started_so_far() > began)
    return Outcome(measured, live=started_so_far() > began)


def table(points: list[Point], axes: list[Axis], outcomes: Mapping[str, Outcome], *, seeded: bool) -> pd.DataFrame:
    """A row a point, in the grid's order. What was measured under a parameter's own name is `measured_...`."""
    import pandas as pd

    taken = {axis.name for axis in axes} | {"seed", "error"}
    found = [outcomes[point.key] for point in points]
    measured = list(dict.fromkeys(name for outcome in found for name in outcome.measured))
    columns: dict[str, Any] = {axis.name: [point.labels[axis.name] for point in points] for axis in axes}
    if seeded:
        columns["seed"] = [point.seed for point in points]
    for name in measured:
        columns[f"measured_{name}" if name in taken else name] = [outcome.measured.get(name) for outcome in found]
    columns["error"] = pd.Series([outcome.error for outcome in found], dtype=object)
    made = pd.DataFrame(columns)
    made.attrs["parameters"] = [axis.name for axis in axes]
    return made
