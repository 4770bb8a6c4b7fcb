"""Verdicts, as every check gives them, and predictions: kept, drawn into plots, held against what was measured.

Nothing here knows the page: both display themselves.
"""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avlab.measure.record.said import sayings

PURPLE = "#9C4F7A"
"""Of a prediction, in every figure."""

_MARKS = {
    True: ("\N{CHECK MARK}", "#009E73"),
    False: ("\N{BALLOT X}", "#D55E00"),
    None: ("\N{RIGHTWARDS ARROW}", PURPLE),
}


@dataclass(frozen=True)
class Verdict:
    """What a check found, as a sentence. True unless it found something wrong; `passed` None is neither."""

    passed: bool | None
    text: str

    def __bool__(self) -> bool:
        return self.passed is not False

    def __repr__(self) -> str:
        return f"{_MARKS[self.passed][0]} {self.text}"

    def _repr_html_(self) -> str:
        mark, colour = _MARKS[self.passed]
        words = "<br>".join(html.escape(line) for line in self.text.splitlines())
        style = f"border-left: 5px solid {colour}; padding: 0.2em 0.8em; font-size: 1.1em"
        return f'<div style="{style}"><b style="color: {colour}">{mark}</b> {words}</div>'


# ---- predictions


@dataclass(frozen=True)
class Prediction:
    """A number that was said beforehand, None while it was not. Made by `predict`."""

    question: str
    value: float | None
    unit: str = ""

    def __repr__(self) -> str:
        if self.value is None:
            return f"{self.question}: no prediction yet. Put a number in place of ... and run this cell again."
        return f"{self.question}: you say {_number(self.value, self.unit)}"

    def on(self, figure: Figure | Axes, *, axis: Literal["x", "y"] = "y", panel: int = 0) -> Figure:
        """Draw it as a labelled line into a plot, across `panel` of a figure that has several; the figure comes back.

        `axis` is the one that it is read on. A line far beyond what is drawn would flatten the rest: then an arrow
        points there from the edge. Without a prediction nothing is drawn.

        Args:
            figure: A figure, or axes.
            axis: "x" or "y".
            panel: Which axes of a figure, counted from 0.

        Raises:
            ValueError: The axes were removed from their figure.
        """
        ax = figure if isinstance(figure, Axes) else figure.axes[panel]
        whole = ax.get_figure(root=True)
        if whole is None:
            raise ValueError("these axes are in no figure any more: give a figure, or axes of one")
        if self.value is None:
            return whole
        text = f"you said {_number(self.value, self.unit)}"
        low, high = sorted(ax.get_ylim() if axis == "y" else ax.get_xlim())
        room = 0.5 * (high - low)
        label: dict[str, Any] = {"color": PURPLE, "size": 13, "textcoords": "offset points", "zorder": 10}
        label["bbox"] = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1}
        if not low - room <= self.value <= high + room:
            up = self.value > high
            text += ", beyond the edge"
            if axis == "y":
                text = f"\N{UPWARDS ARROW} {text}" if up else f"\N{DOWNWARDS ARROW} {text}"
                ax.annotate(text, (0.02, float(up)), (0, -20 if up else 8), xycoords="axes fraction", **label)
            else:
                text = f"{text} \N{RIGHTWARDS ARROW}" if up else f"\N{LEFTWARDS ARROW} {text}"
                label["ha"] = "right" if up else "left"
                ax.annotate(text, (float(up), 0.9), (-6 if up else 6, 0), xycoords="axes fraction", **label)
            return whole
        if axis == "y":
            ax.set_ylim(min(low, self.value - 0.04 * room), max(high, self.value + 0.2 * room))
            ax.axhline(self.value, color=PURPLE, linewidth=2.5, linestyle="--", zorder=9)
            ax.annotate(text, (0.02, self.value), (0, 5), xycoords=("axes fraction", "data"), **label)
        else:
            ax.set_xlim(min(low, self.value - 0.04 * room), max(high, self.value + 0.2 * room))
            ax.axvline(self.value, color=PURPLE, linewidth=2.5, linestyle="--", zorder=9)
            ax.annotate(text, (self.value, 0.93), (6, 0), xycoords=("data", "axes fraction"), **label)
        return whole

    def against(self, measured: float) -> Verdict:
        """A sentence with what was predicted, what was measured, and how far apart they are.

        Args:
            measured: The number, in the prediction's unit.
        """
        found = _number(_real(measured, "what was measured"), self.unit)
        sayings.found(self.question, float(measured))
        if self.value is None:
            return Verdict(None, f"{self.question}: it is {found}. You made no prediction.")
        said = _number(self.value, self.unit)
        if said == found:
            return Verdict(None, f"{self.question}: you said {said}, and so it is.")
        apart = factor(self.value, measured, self.unit, within=LIKELY)
        apart = apart or f"{_apart(self.value, measured, self.unit)}."
        return Verdict(None, f"{self.question}: you said {said}, it is {found}. That was {apart}")


_NO_VALUE: Any = object()
"""In place of a number that was left out; `...` says that there is none yet."""


def predict(question: str, value: Any = _NO_VALUE, unit: str = "") -> Prediction:
    """Keep a number that is said before it is measured; `...` in its place says that there is none yet.

    `.on(figure)` draws it into a plot, `.against(measured)` compares; both numbers are saved with each trace of this
    process, where `avlab.gather` finds those of a class. TypeError for what is no number, ValueError for
    one that is not finite.

    Args:
        question: What is asked.
        value: The number; `...` for none yet.
        unit: Its unit, as plots write it.
    """
    if value is _NO_VALUE or not isinstance(question, str):
        text = "a prediction begins with what is predicted, in quotes, and then has a number and its unit, as in "
        raise TypeError(f'{text}avlab.predict("bytes of a frame", 14_000, "bytes")')
    if value is ... or value is None:
        sayings.take_back(question)
        return Prediction(question, None, unit)
    number = _real(value, "a prediction")
    sayings.say(question, number, unit if isinstance(unit, str) else str(unit))
    return Prediction(question, number, unit)


# ---- how far apart two numbers are, in words

LIKELY = 0.5
"""A prediction may be off by this part, and still be one in another unit."""

_UNITS: dict[str, dict[float, str]] = {
    "bytes": {1e-3: "kilobytes", 1e-6: "megabytes", 8: "bits"},
    "ms": {1e-3: "seconds", 1e3: "microseconds"},
    "s": {1e3: "milliseconds", 1 / 60: "minutes"},
    "min": {60: "seconds", 1 / 60: "hours", 60e3: "milliseconds"},
    "%": {1e-2: "a share of 1"},
    "share": {100: "per cent"},
    "fps": {1e-3: "frames a millisecond"},
    "kbit/s": {1e-3: "Mbit/s", 1e3: "bit/s", 1 / 8: "kilobytes a second"},
}
"""What a number is likely to be in that is so many times what it should be, by the unit that was asked for."""

_TIMES = {8: "eight", 60: "sixty", 100: "a hundred", 1_000: "a thousand", 60_000: "sixty thousand", 1e6: "a million"}


def factor(said: Any, right: Any, unit: str, *, within: float) -> str:
    """That a number seems to be in another unit, as a phrase with a question; empty when it does not.

    `said` may differ from what the other unit makes of `right` by the part `within`.
    """
    if not all(isinstance(value, Real) and not isinstance(value, bool) for value in (said, right)):
        return ""
    if not right or not math.isfinite(said) or said / right <= 0:
        return ""
    ratio = said / right
    for times, other in _UNITS.get(unit, {}).items():
        if within >= LIKELY and 1 / 20 < times < 20:
            continue  # a guess is off by so much as it is
        if abs(math.log(ratio / times)) <= math.log1p(within):
            return f"{_times(times)}: {other}? {_wanted(unit)}"
    if within < LIKELY:  # of a calculation, not of a guess
        for times in (1_000, 1e-3):
            if abs(math.log(ratio / times)) <= math.log1p(within):
                return f"{_times(times)}: is it in another unit?"
    return ""


def _wanted(unit: str) -> str:
    names = {"s": "Seconds", "ms": "Milliseconds", "min": "Minutes", "%": "Per cent", "share": "A share of 1"}
    name = names.get(unit, unit[:1].upper() + unit[1:])
    return f"{name} {'is' if unit in ('share', '%') else 'are'} wanted."


def _times(times: float) -> str:
    size = round(max(times, 1 / times), 6)
    words = _TIMES.get(size) or f"{size:,.0f}"
    return f"{words} times too {'much' if times > 1 else 'little'}"


def _apart(said: float, right: float, unit: str) -> str:
    """How far two numbers are apart, as a phrase: times where it is much, per cent where it is not."""
    off = said - right
    ratio = said / right if right else 0.0
    if ratio <= 0:
        return f"{_number(abs(off), unit)} too {'high' if off > 0 else 'low'}"
    size = max(ratio, 1 / ratio)
    if ratio >= 2 or ratio <= 0.1:
        text = "more than a million" if size > 1e6 else f"{float(f'{size:.2g}'):,.10g}"
        return f"{text} times too {'much' if ratio > 1 else 'little'}"
    percent = abs(ratio - 1) * 100
    return f"{f'{percent:.0f}' if percent >= 10 else f'{percent:.2g}'} % too {'high' if off > 0 else 'low'}"


def _real(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        if (number := _meant(value)) is not None:
            raise TypeError(f"{what} is one number without quotes or units: instead of {value!r}, write {number}")
        raise TypeError(f"{what} is one number without quotes or units, such as 25 or 0.5, and not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{what} is a finite number, and not {value}")
    return float(value)


_PREFIXES = {"k": 1_000, "K": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def _meant(value: Any) -> str | None:
    """A number that is written with its unit, such as "14 kB", as it is to be written."""
    found = (
        re.fullmatch(r"\s*([-+]?[\d_,]*\.?\d+(?:[eE][-+]?\d{1,3})?)\s*([kKMG]?)(?:\s*[A-Za-z%/]+)?\s*", value)
        if isinstance(value, str)
        else None
    )
    if found is None:
        return None
    number = float(found[1].replace(",", "").replace("_", "")) * _PREFIXES.get(found[2], 1)
    if not math.isfinite(number):
        return None
    return f"{int(number):_}" if number == int(number) else f"{number:g}"


def _number(value: float, unit: str) -> str:
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".strip().replace("-", "\N{MINUS SIGN}", 1 if value < 0 else 0)
