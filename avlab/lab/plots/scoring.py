"""What a run is worth, drawn: the three factors of a score, each with its curve and where the run stands on it.

As in lab.plots, numbers come in and a figure goes out; what is computed is computed in avlab.measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from avlab.lab.plots.drawing import BODY, GREY, MANY, PAPER, TITLE, plain, plot
from avlab.measure.numbers.score import LATEST_S, PROMPT_S, Score, detail, promptness

_TIMES = " \N{MULTIPLICATION SIGN} "


def score(scores: Score | Mapping[str, Score]) -> Figure:
    """What points are made of: frames shown, detail and promptness, each as a curve with the runs on it.

    TypeError for what is no score.

    Args:
        scores: As `avlab.metrics.score` or a challenge's `score` returns it; or several by name.
    """
    every: dict[str, Any] = (
        {str(name): one for name, one in scores.items()} if isinstance(scores, Mapping) else {"": scores}
    )
    for one in every.values():
        if not isinstance(one, Score):
            raise TypeError(f"plots.score draws scores, as challenge.score(...) returns them, not {type(one).__name__}")
    figure = plot(figsize=(12, 4.9), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    sizes = np.geomspace(0.7, 45, 200)
    delays = np.linspace(0, 500, 200)
    curves = (
        ("shown", "frames shown (%)", np.array([0.0, 100.0]), np.array([0.0, 1.0])),
        ("detail", "kilobytes of a frame shown", sizes, detail(1e3 * sizes)),
        ("promptness", "from a frame's moment to its picture (ms)", delays, promptness(delays / 1e3)),
    )
    for ax, (name, across, x, y) in zip(axes, curves, strict=True):
        ax.plot(x, y, color=GREY, linewidth=2)
        ax.set_title(name, size=TITLE, loc="left")
        ax.set_xlabel(across, size=BODY)
        ax.tick_params(labelsize=BODY)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_ylim(0, 1.12)
    axes[1].set_xscale("log", base=2)
    axes[1].set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes[2].set_xticks([0, 1e3 * PROMPT_S, 300, 1e3 * LATEST_S])
    for one, (colour, dark) in zip(every.values(), cycle(MANY)):
        places = (100 * one.shown, one.kilobytes, one.delay_ms)
        for ax, at, factor in zip(axes, places, (one.shown, one.detail, one.promptness), strict=True):
            inside = float(np.clip(at, *sorted(ax.get_xlim())))
            ax.plot([inside], [factor], "o", color=colour, markersize=12, zorder=3)
            ax.annotate(
                f"{factor:.2f}", (inside, factor), (-12, 6), textcoords="offset points", ha="right", color=dark,
                size=BODY, bbox=PAPER, zorder=4,
            )  # fmt: skip
    told = [_told(name, one) for name, one in every.items()]
    figure.suptitle("\n".join(told), size=TITLE, x=0.01, ha="left")
    figure.alt = " ".join([*(f"{words}." for words in told), figure.described()])
    return figure


def _told(name: str, one: Score) -> str:
    factors = _TIMES.join(f"{factor:.2f}" for factor in (one.shown, one.detail, one.promptness))
    return f"{plain(name)}{': ' if name else ''}{one.points:.1f} points = 100{_TIMES}{factors}"
