"""The score of a challenge: what a run is worth, of how many frames it shows, in which detail, and how soon. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avlab.measure.numbers.convergence import Printed
from avlab.measure.numbers.folds import of_frames
from avlab.measure.record.tables import FRAME_FATES, NS, UNKNOWN
from avlab.measure.record.trace import Trace

LEAST_BYTES, DOUBLINGS = 1_000, 5
"""A frame of 1 kB has no detail, and each doubling adds a fifth: one of 32 kB has all of it."""

PROMPT_S, LATEST_S = 0.15, 0.4
"""Seconds from a frame's moment to its picture: up to the first nobody minds, at the second nobody talks (G.114)."""


@dataclass(frozen=True, kw_only=True)
class Score(Printed):
    """What a run is worth: `points`, 0 to 100, are 100 times `shown` times `detail` times `promptness`."""

    points: float
    """0 to 100, to a tenth."""
    shown: float
    """The share of the frames that were shown, 0 to 1."""
    detail: float
    """0 to 1, the mean of the frames shown: 0 at 1 kB, and a fifth more for each doubling of a frame's bytes. Utility
    that grows with the logarithm of the bytes is what players of adaptive streams maximise (Spiteri, Urgaonkar and
    Sitaraman, BOLA, INFOCOM 2016)."""
    promptness: float
    """0 to 1, the mean of the frames shown: 1 up to 150 ms from a frame's moment to its picture, 0 from 400 ms on, and
    a straight line between. The two figures are ITU-T G.114's, for conversations."""
    kilobytes: float
    """Of a frame shown, on average."""
    delay_ms: float
    """From a frame's moment to its picture, in milliseconds, on average."""


def detail(size: NDArray[Any] | float) -> NDArray[np.float64]:
    """How much of the detail a frame of `size` bytes has, 0 to 1."""
    return np.clip(np.log2(np.maximum(1.0, size) / LEAST_BYTES) / DOUBLINGS, 0.0, 1.0)


def promptness(seconds: NDArray[Any] | float) -> NDArray[np.float64]:
    """What a frame that is shown so many seconds after its moment is worth, 0 to 1."""
    return np.clip((LATEST_S - np.asarray(seconds, np.float64)) / (LATEST_S - PROMPT_S), 0.0, 1.0)


def points(shown: float, details: float, promptnesses: float) -> float:
    """The three factors' product, of 100, to a tenth."""
    return round(100.0 * shown * details * promptnesses, 1)


def score(traces: Trace | Sequence[Trace]) -> Score:
    """The score of a run, or of several as if they were one. Pictures count, and sound does not.

    Args:
        traces: A run's record, both sides joined; or several.
    """
    every = [traces] if isinstance(traces, Trace) else list(traces)
    parts = [of_frames(trace, "video", "fate", "bytes", "due", "shown") for trace in every]
    fates, sizes, due_ns, shown_ns = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    seen = (fates == FRAME_FATES.index("shown")) & (due_ns != UNKNOWN) & (shown_ns != UNKNOWN)
    if not seen.any():
        return Score(points=0.0, shown=0.0, detail=0.0, promptness=0.0, kilobytes=0.0, delay_ms=0.0)
    seconds = (shown_ns[seen] - due_ns[seen]) / NS
    # Exactly rounded sums: the same on every machine, however its arrays are added up.
    share, details, prompt, size, delay = (
        math.fsum(values) / count
        for values, count in (
            ([int(seen.sum())], len(seen)),
            *((column.tolist(), len(seconds)) for column in (detail(sizes[seen]), promptness(seconds))),
            (sizes[seen].tolist(), len(seconds)),
            (seconds.tolist(), len(seconds)),
        )
    )
    return Score(
        points=points(share, details, prompt),
        shown=round(share, 4),
        detail=round(details, 4),
        promptness=round(prompt, 4),
        kilobytes=round(size / 1e3, 2),
        delay_ms=round(1e3 * delay, 1),
    )
