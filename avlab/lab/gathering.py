"""A class's traces in one table and one plot: who saw what, and what each had predicted.

The files are strangers': one that cannot be read is a row with its sentence, and names, clips and questions are text.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from avlab.lab.plots.drawing import BLUE, BODY, GREY, TITLE, legend, plain, plot
from avlab.lab.predictions import PURPLE
from avlab.measure.numbers import metrics
from avlab.measure.record.said import Said, predictions_of
from avlab.measure.record.trace import Trace
from avlab.wire.text import person, printable

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".avtrace"
MOST_FILES = 1_000

NUMBERS = ("shown", "shown_percent", "fps", "packet_loss_percent", "frame_loss_percent", "delay_ms", "av_p95_ms")
"""Columns of the table that a trace's summary gives."""

MOST_PANELS = 5
"""Questions that the plot has room for: those that most were asked."""


class _Row(NamedTuple):
    file: str
    name: str = ""
    clip: str = ""
    side: str = ""
    numbers: dict[str, float | None] = {}  # noqa: RUF012 - never written to
    said: Sequence[Said] = ()
    error: str = ""

    @property
    def label(self) -> str:
        return self.name or self.file


class Gathered:
    """What a class brought: `table`, `predictions` and `figure()`. Made by `avlab.gather`; shows itself in a notebook.

    `table` is a DataFrame, a row a file: file, name (`Client(name=...)`), clip, side, frames shown, their share, fps,
    losses, delay, the picture's distance from its sound; for each question that `avlab.predict` was asked, what was
    said and what was measured (`said: ...`, `found: ...`, with the unit); and `error`, why a file could not be read.
    `predictions` has the same, a row a prediction: file, name, question, unit, said, found.
    """

    def __init__(self, rows: Sequence[_Row]) -> None:
        import pandas as pd

        self._rows = list(rows)
        columns: dict[str, Any] = {
            "file": [row.file for row in rows],
            "name": [row.name for row in rows],
            "clip": [row.clip for row in rows],
            "side": [row.side for row in rows],
        }
        for number in NUMBERS:
            columns[number] = np.array([row.numbers.get(number) for row in rows], np.float64)
        self._questions = _questions(rows)
        for question, unit in self._questions:
            for kind, field in (("said", "value"), ("found", "measured")):
                values = [_of(row, question, unit, field) for row in rows]
                if kind == "said" or any(value is not None for value in values):
                    columns[f"{kind}: {question}{f' ({unit})' if unit else ''}"] = np.array(values, np.float64)
        columns["error"] = [row.error for row in rows]
        self.table: pd.DataFrame = pd.DataFrame(columns)
        self.predictions: pd.DataFrame = pd.DataFrame(
            [
                (row.file, row.name, said.question, said.unit, said.value, said.measured)
                for row in rows
                for said in row.said
            ],
            columns=["file", "name", "question", "unit", "said", "found"],
        ).astype({"said": np.float64, "found": np.float64})

    def __repr__(self) -> str:
        broken = sum(bool(row.error) for row in self._rows)
        cannot = f", {broken} of them cannot be read" if broken else ""
        return f"{len(self._rows)} traces{cannot}, {len(self.predictions)} predictions\n{self.table}"

    def _repr_html_(self) -> str:
        shown = self.table.drop(columns="error") if not any(self.table["error"]) else self.table
        return str(shown.to_html(escape=True, na_rep="\N{EN DASH}", float_format="{:,.4g}".format, index=False))

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        display(HTML(self._repr_html_()), self.figure())

    def figure(self) -> Figure:
        """A line a trace: the share of frames shown, and beside it, for each question, what was said and found.

        Of more than five questions, those that most were asked. A file that could not be read is a line with nothing.
        """
        rows = self._rows
        panels = self._questions[:MOST_PANELS]
        figure = plot(figsize=(5 + 3 * len(panels), 1.6 + 0.28 * max(4, len(rows))), layout="constrained")
        every = figure.subplots(1, 1 + len(panels), sharey=True, squeeze=False)[0]
        places = np.arange(len(rows))
        for ax in every:
            ax.grid(alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize=BODY - 2)
        first = every[0]
        first.set_yticks(places, [plain(row.label) for row in rows])
        first.set_ylim(len(rows) - 0.4, -0.6)
        shares = np.array([row.numbers.get("shown_percent") for row in rows], np.float64)
        first.plot(shares, places, "o", color=BLUE)
        for place, row in zip(places, rows, strict=True):
            if row.error:
                first.text(2, place, "cannot be read", va="center", color=GREY, size=BODY - 2)
        first.set_xlim(0, 104)
        first.set_xlabel("frames shown, %", size=BODY)
        for ax, (question, unit) in zip(every[1:], panels, strict=True):
            said = np.array([_of(row, question, unit, "value") for row in rows], np.float64)
            found = np.array([_of(row, question, unit, "measured") for row in rows], np.float64)
            for place, one, other in zip(places, said, found, strict=True):
                if np.isfinite(one) and np.isfinite(other):
                    ax.plot([one, other], [place, place], color=GREY, alpha=0.4, linewidth=1, zorder=1)
            ax.plot(said, places, "o", color=PURPLE, zorder=3)
            ax.plot(found, places, "|", color=BLUE, markersize=12, markeredgewidth=2.5, zorder=2)
            numbers = np.concatenate([said, found])
            numbers = numbers[np.isfinite(numbers)]
            if numbers.min() > 0 and numbers.max() / numbers.min() > 50:  # as far apart as guesses are
                ax.set_xscale("log")
            ax.set_xlabel(textwrap.fill(plain(question), 26) + (f"\n{plain(unit)}" if unit else ""), size=BODY)
        if panels:
            legend(every[-1], [("said", "o", PURPLE, PURPLE, 7), ("found", "|", BLUE, "none", 10)], at="lower right")
        figure.suptitle(_finding(rows, shares), size=TITLE, x=0.01, ha="left")
        return figure


def gather(folder: str | os.PathLike[str]) -> Gathered:
    """A class's traces and predictions in one table and one plot: of all `.avtrace` files in a folder and those in it.

    Each student saves one (`client.trace.save("ada.avtrace")`, `avlab play URL --name Ada --trace ada.avtrace`); what
    `avlab.predict` was told before, and `.against` found, is saved with it. The result shows itself as the last line of
    a cell, and has `.table`, `.predictions` and `.figure()`. A file that cannot be read is a row with its sentence.
    NotADirectoryError for what is no folder, FileNotFoundError when there is no trace in it, ValueError for more than
    a thousand.

    Args:
        folder: The folder of what was handed in.
    """
    home = Path(folder)
    if not home.is_dir():
        raise NotADirectoryError(f"{home} is no folder: name the one that the class's traces are in")
    files = sorted(path for path in home.rglob(f"*{SUFFIX}") if not path.name.startswith("."))
    if not files:
        raise FileNotFoundError(f"there is no trace in {home}: a class saves them as NAME{SUFFIX}")
    if len(files) > MOST_FILES:
        raise ValueError(
            f"{home} has {len(files):,} traces, more than the {MOST_FILES:,} of any class: name one folder"
        )
    return Gathered([_read(path, path.relative_to(home).as_posix()) for path in files])


def _read(path: Path, said: str) -> _Row:
    file = printable(said, most=200)
    try:
        trace = Trace.load(path)
        return _row(file, trace)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return _Row(file, error=printable(words, most=300))
    except Exception as error:  # a stranger's file: nobody else's row is to be lost to it
        return _Row(file, error=printable(f"it cannot be read ({type(error).__name__}: {error})", most=300))


def _row(file: str, trace: Trace) -> _Row:
    meta, summary = trace.meta, metrics.summary(trace)
    numbers: dict[str, float | None] = {name: getattr(summary, name, None) for name in NUMBERS}
    numbers["shown_percent"] = 100 * summary.shown / summary.offered if summary.offered else None
    name = meta.get("name")
    return _Row(
        file,
        person(name) if isinstance(name, str) else "",
        printable(meta.get("clip") or "", most=60),
        printable(meta["side"], most=20),
        numbers,
        predictions_of(trace.setting_rows),
    )


def _questions(rows: Sequence[_Row]) -> list[tuple[str, str]]:
    """Questions with their units, those that most were asked first, then as they came."""
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        for said in row.said:
            counts[said.question, said.unit] = counts.get((said.question, said.unit), 0) + 1
    return sorted(counts, key=lambda each: -counts[each])


def _of(row: _Row, question: str, unit: str, field: str) -> float | None:
    for said in row.said:
        if (said.question, said.unit) == (question, unit):
            value: float | None = getattr(said, field)
            return value
    return None


def _finding(rows: Sequence[_Row], shares: Any) -> str:
    known = shares[np.isfinite(shares)]
    read = sum(not row.error for row in rows)
    said = f"{read} trace{'s' * (read != 1)}"
    if len(known):
        said += f", {np.median(known):.0f} % of frames shown in the middle one"
    broken = len(rows) - read
    return said + (f"; {broken} cannot be read" if broken else "")
