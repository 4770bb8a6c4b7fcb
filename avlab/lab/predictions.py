"""Verdicts, as every check gives them, and predictions: kept, drawn into plots, held against what was measured.

Nothing here knows the page: both display themselves.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
        """
        ax = figure if isinstance(figure, Axes) else figure.axes[panel]
        whole = ax.get_figure(root=True)
        assert whole is not None
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
        """A sentence with what was predicted, what was measured, and how far apart they are."""
        found = _number(_real(measured, "what was measured"), self.unit)
        if self.value is None:
            return Verdict(None, f"{self.question}: it is {found}. You made no prediction.")
        said = _number(self.value, self.unit)
        if said == found:
            return Verdict(None, f"{self.question}: you said {said}, and so it is.")
        off = self.value - measured
        if measured and self.value / measured >= 2:
            apart = f"{self.value / measured:.2g} times too much"
        elif measured and abs(off / measured) < 10:
            apart = f"{abs(off / measured) * 100:.2g} % too {'high' if off > 0 else 'low'}"
        else:
            apart = f"{_number(abs(off), self.unit)} too {'high' if off > 0 else 'low'}"
        return Verdict(None, f"{self.question}: you said {said}, it is {found}. That was {apart}.")


def predict(question: str, value: Any, unit: str = "") -> Prediction:
    """Keep a number that is said before it is measured; `...` in its place says that there is none yet.

    `.on(figure)` draws it into a plot, `.against(measured)` compares. TypeError for what is no number, ValueError for
    one that is not finite.
    """
    if value is ... or value is None:
        return Prediction(question, None, unit)
    return Prediction(question, _real(value, "a prediction"), unit)


def _real(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} is one number without quotes or units, such as 25 or 0.5, and not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{what} is a finite number, and not {value}")
    return float(value)


def _number(value: float, unit: str) -> str:
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".strip().replace("-", "\N{MINUS SIGN}", 1 if value < 0 else 0)
