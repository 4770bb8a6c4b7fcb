"""How large frames are: from the table in avlab/data/ that `benchmarks/sizes.py` records, or as a clip was measured."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Callable
from functools import cache, lru_cache, partial
from importlib.resources import files
from importlib.resources.abc import Traversable

import numpy as np
from numpy.typing import NDArray

from avlab.media import clip_sizes
from avlab.media.codec import check_quality, check_width

SIZES: Traversable = files("avlab.data") / "sizes.csv"
"""Bytes of the sample clips' frames; README.md beside it says how they were recorded."""

STAND_IN = "count.mp4"
"""The clip whose frames stand for those that are not in the table."""

SAMPLES: Traversable = files("avlab.data") / "clips.csv"
"""By which the sample clips are known, whatever they are called: `clip_sizes.digest`."""

Sizes = NDArray[np.float64]


def sizes_of(clip: object) -> Callable[[int, int], tuple[int, ...]]:
    """What gives the bytes of each frame's scan at a width and quality, of the clip that is given.

    Of a sample clip, as recorded; of any other file, as measured, which is done here if it never was (seconds, with a
    progress bar on a terminal). What is no file has `STAND_IN`'s.
    """
    if not isinstance(clip, str | os.PathLike):
        return partial(frame_bytes, STAND_IN)
    told_by = clip_sizes.digest(clip)
    sample = _samples().get(told_by)
    if sample is not None:
        return partial(frame_bytes, sample)
    clip_sizes.measured(clip)
    return partial(_own_bytes, os.fspath(clip), told_by)


@lru_cache(maxsize=256)
def _own_bytes(path: str, told_by: str, width: int, quality: int) -> tuple[int, ...]:
    check_width(width)
    check_quality(quality)
    return _interpolated({at: np.log(sizes) for at, sizes in clip_sizes.measured(path).items()}, width, quality)


@cache
def _samples() -> dict[str, str]:
    if not SAMPLES.is_file():
        raise FileNotFoundError(f"the list of sample clips {SAMPLES} is not here: install avlab anew")
    return {row["digest"]: row["clip"] for row in csv.DictReader(SAMPLES.read_text(encoding="utf-8").splitlines())}


@cache
def frame_bytes(clip: str, width: int, quality: int) -> tuple[int, ...]:
    """Bytes of each frame's scan, in the clip's order: what its packets carry, beside their headers.

    `clip` is a file's name without its folder; where its own frames are not in the table, `STAND_IN`'s are given.
    Between the recorded widths and qualities, the sizes' logarithms are interpolated, over the width's logarithm and
    over the quality; beyond them, carried on. ValueError for a width or quality that cannot be, FileNotFoundError
    without the table.
    """
    check_width(width)
    check_quality(quality)
    table = table_of_sizes()
    recorded = table.get(clip, table[STAND_IN])
    return _interpolated(recorded, width, quality)


def _interpolated(recorded: dict[tuple[int, int], Sizes], width: int, quality: int) -> tuple[int, ...]:
    widths = sorted({at for at, _ in recorded})
    below, above, share = _between(widths, width, logarithm=True)
    low, high = (_over_quality(recorded, at, quality) for at in (below, above))
    return tuple(int(size) for size in np.maximum(1, np.rint(np.exp(low * (1 - share) + high * share))))


def _over_quality(recorded: dict[tuple[int, int], Sizes], width: int, quality: int) -> Sizes:
    below, above, share = _between(sorted(q for at, q in recorded if at == width), quality)
    return recorded[width, below] * (1 - share) + recorded[width, above] * share


def _between(grid: list[int], value: int, *, logarithm: bool = False) -> tuple[int, int, float]:
    """The two points of the grid nearest around `value`, and how far it is from the first to the second."""
    at = min(max(1, sum(point < value for point in grid)), len(grid) - 1)
    below, above = grid[at - 1], grid[at]
    scale = np.log if logarithm else float
    return below, above, float((scale(value) - scale(below)) / (scale(above) - scale(below)))


@cache
def table_of_sizes() -> dict[str, dict[tuple[int, int], Sizes]]:
    """By clip, width and quality, the logarithm of each frame's bytes."""
    if not SIZES.is_file():
        raise FileNotFoundError(f"the recorded frame sizes {SIZES} are not here: install avlab anew")
    table: dict[str, dict[tuple[int, int], Sizes]] = defaultdict(dict)
    for row in csv.DictReader(SIZES.read_text(encoding="utf-8").splitlines()):
        sizes = np.log(np.array(row["bytes"].split(), np.float64))
        table[row["clip"]][int(row["width"]), int(row["quality"])] = sizes
    return dict(table)
