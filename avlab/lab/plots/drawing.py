"""What all figures share: colours, axes, labels, what is no trace, how one shows itself in a notebook. Draws no data.

Figures are made without pyplot, so they are safe on any thread and none is left open; but where a script has imported
pyplot to show figures in windows, it is told of those that are made on the main thread.
"""

from __future__ import annotations

import base64
import html
import io
import re
import sys
import textwrap
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from avlab.measure.record.trace import Trace
from avlab.wire.text import printable

# Okabe and Ito's colours, which colour-blind people tell apart.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
MANY = (  # a line's colour, and its label's, dark enough to be read on white; green is the target's
    (BLUE, BLUE), (VERMILION, "#B04E00"), ("#CC79A7", "#9C4F7A"), (ORANGE, "#8A5F00"), ("black", "black"),
    ("#56B4E9", "#2F7FAF"),
)  # fmt: skip

DARK = dict(MANY) | {GREEN: "#00664A", GREY: GREY}
"""A colour's own, dark enough to be read on white."""

BODY, TITLE = 13, 15
PAPER = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}  # behind words that lines may cross


Draw = TypeVar("Draw", bound=Callable[..., Figure])
Traces = Mapping[str, Trace] | Sequence[Trace]
"""Several runs, by name, or in a row."""


def of_trace(draw: Draw) -> Draw:
    """A plot that says in a sentence, as a TypeError, when what it is given as its `trace` is none."""

    @wraps(draw)
    def checked(*given: Any, **settings: Any) -> Figure:
        check_trace(draw.__name__, given[0] if given else settings.get("trace"))
        return draw(*given, **settings)

    return cast(Draw, checked)


def check_trace(name: str, value: object) -> None:
    """TypeError unless `value` is a trace."""
    if not isinstance(value, Trace):
        has_one = isinstance(getattr(type(value), "trace", None), property)
        ask = "give it .trace of that" if has_one else "give it client.trace, or what avlab.simulate returns"
        raise TypeError(f"plots.{name} draws a trace, not {_kind(value)}: {ask}")


def named(name: str, traces: object) -> dict[str, Trace]:
    """Traces by name: a mapping as it is, those in a row as run 1, run 2 and so on, one alone. TypeError else."""
    if isinstance(traces, Trace):
        return {"this run": traces}
    if isinstance(traces, Mapping):
        found = {str(key): value for key, value in traces.items()}
    elif isinstance(traces, Sequence) and not isinstance(traces, str | bytes):
        found = {f"run {number}": value for number, value in enumerate(traces, 1)}
    else:
        raise TypeError(f"plots.{name} draws traces, as {{name: trace}} or in a list, not {_kind(traces)}")
    for value in found.values():
        check_trace(name, value)
    return found


def _kind(value: object) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


class Plot(Figure):
    """A figure which shows itself as the last line of a notebook's cell, with or without pyplot.

    It goes to the page as an image with a text for those who cannot see it: `alt` where that is set, else what its
    titles, axes and labels say.
    """

    alt: str | None = None

    def described(self) -> str:
        """The text in the image's place."""
        return self.alt or " ".join(filter(None, map(_words, self.axes)))

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        # JupyterLab shows HTML before PNG, and makes no use of the alt text in a PNG's metadata, as nbconvert does.
        png, text = base64.b64encode(self._repr_png_()).decode(), self.described()
        image = f'<img class="avlab-plot" src="data:image/png;base64,{png}" alt="{html.escape(text)}" style="{_WIDE}">'
        return {"text/html": _ON_DARK + image, "image/png": png, "text/plain": text}, {"image/png": {"alt": text}}


_WIDE = "max-width: 100%"
_ON_DARK = (
    '<style>:is([data-jp-theme-light="false"], .vscode-dark) .avlab-plot '
    "{filter: invert(0.93) hue-rotate(180deg)}</style>"
)
"""A page's dark theme turns light into dark and leaves hues: JupyterLab says on its body which theme it has, and a plot
follows when that changes. What is saved and exported is the plot on white."""

MOST_SHOWN = 19
"""Figures that wait for `plt.show()`: one more, and pyplot would warn of too many. The oldest is let go of."""

_waiting: deque[weakref.ref[Plot]] = deque()


def plot(**settings: Any) -> Plot:
    """A new figure, which `plt.show()` shows where it is a script's; `settings` are a figure's own.

    In a notebook it shows itself and pyplot is left alone, as on other threads and where pyplot has no windows.
    """
    pyplot = _pyplot_of_script()
    if pyplot is None:
        return Plot(**settings)
    while len(_waiting) >= MOST_SHOWN or (_waiting and _waiting[0]() is None):
        oldest = _waiting.popleft()()
        if oldest is not None:
            pyplot.close(oldest)
    # What the script itself draws into stays that.
    before = pyplot.gcf() if pyplot.get_fignums() else None
    try:
        made: Plot = pyplot.figure(FigureClass=Plot, **settings)
    except Exception:  # of whatever toolkit was chosen: without a display there is no window, but there is a figure
        return Plot(**settings)
    if before is not None:
        pyplot.figure(before.number)
    _waiting.append(weakref.ref(made))
    return made


def _pyplot_of_script() -> Any:
    """pyplot, if whoever runs this has imported it and will want windows; else None."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or threading.current_thread() is not threading.main_thread():
        return None
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and hasattr(shell, "kernel"):
        return None
    try:
        name = pyplot.get_backend().lower()
    except Exception:  # a toolkit that is not there
        return None
    return None if name in _WINDOWLESS or "inline" in name else pyplot


_WINDOWLESS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


def _words(ax: Axes) -> str:
    if not ax.axison and not ax.get_title(loc="left"):
        return ""
    title, x, y = " ".join(ax.get_title(loc="left").split()), ax.get_xlabel(), ax.get_ylabel()
    axes = f"{y} against {x}" if x and y else x or y
    legend = ax.get_legend()
    texts = [*ax.texts, *(legend.get_texts() if legend is not None else ())]
    labels = "; ".join(text.get_text() for text in texts if text.get_text().strip())
    return " ".join(f"{part}." for part in (title, axes and f"Plot of {axes}", labels and f"Labels: {labels}") if part)


def axes(ax: Axes | None, x: str, y: str) -> tuple[Figure, Axes]:
    """Axes with their labels, in a figure of their own unless they are handed in."""
    if ax is None:
        ax = plot(figsize=(10, 5.6), layout="constrained").add_subplot()
    ax.set_xlabel(x, size=BODY)
    ax.set_ylabel(y, size=BODY)
    ax.tick_params(labelsize=BODY)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0.01)
    figure = ax.figure
    return figure.figure if isinstance(figure, SubFigure) else figure, ax


def titled(figure: Figure, ax: Axes, finding: str) -> Figure:
    """What the figure shows, as a sentence above it; in several lines where it would run into its neighbour's."""
    letters = _letters(figure, ax)
    text = textwrap.fill(finding, letters) if letters < _ALL else finding  # which may have lines already
    ax.set_title(text, size=TITLE, loc="left", pad=10)
    return figure


_ALL = 1_000
"""Letters: beyond every title's length."""


def _letters(figure: Figure, ax: Axes) -> int:
    """How many letters of a title there is room for above axes; beyond every title's length, where they are alone."""
    place = ax.get_subplotspec()
    share = ax.get_position().width if place is None else len(place.colspan) / place.get_gridspec().ncols
    return _ALL if share > 0.9 else max(16, int(share * figure.get_figwidth() * 0.8 * 72 / (0.52 * TITLE)))


def label(ax: Axes, *labels: tuple[str, str]) -> None:
    """Texts in the colours of what they name, one below the other in the upper right corner, where room was left."""
    for row, (text, colour) in enumerate(labels):
        ax.annotate(text, (1, 1), (-6, -16 - 20 * row), xycoords="axes fraction", textcoords="offset points",
                    ha="right", color=colour, size=BODY)  # fmt: skip


LONGEST = 30
"""Characters of a line of a label beside a plot: longer ones would leave no room for the plot."""


def _in_lines(text: str) -> str:
    """A label in as many lines as it needs; a number and its unit stay in one."""
    if len(text) <= LONGEST:
        return text
    return textwrap.fill(re.sub(r"(?<=\d) (?=\S)", "\N{NO-BREAK SPACE}", text), LONGEST)


def label_ends(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Lines named to the right of their ends (x, y, text, colour), moved apart where they would meet."""
    low, high = ax.get_ylim()
    figure = ax.get_figure(root=True)
    tall = ax.get_position().height * (figure.get_figheight() if figure is not None else 5.6)  # inches
    line = 1.25 * BODY / 72 / tall
    ends = [(x, y, _in_lines(text), colour) for x, y, text, colour in sorted(ends, key=lambda end: end[1])]
    rooms = [0.175 * BODY / 72 / tall + 0.5 * line * (1 + text.count("\n")) for _, _, text, _ in ends]  # half of each
    places = [min(1.0, max(0.0, (y - low) / (high - low))) for _, y, _, _ in ends]
    for at in range(1, len(places)):  # up from the lowest, then down from the top, each apart from the next
        places[at] = max(places[at], places[at - 1] + rooms[at - 1] + rooms[at])
    places[-1] = min(places[-1], 1.0)
    for at in reversed(range(len(places) - 1)):
        places[at] = min(places[at], places[at + 1] - rooms[at] - rooms[at + 1])
    for (x, y, text, colour), place in zip(ends, places, strict=True):
        ax.annotate(
            text, (x, min(high, max(low, y))), (1.03, place), textcoords="axes fraction", va="center", color=colour,
            size=BODY, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "linestyle": ":", "color": colour, "alpha": 0.5, "relpos": (0, 0.5), "shrinkA": 0,
            },
        )  # fmt: skip


def missing(figure: Figure, ax: Axes, finding: str, need: str) -> Figure:
    """Empty axes that say what there is not, and what it would need."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, need, transform=ax.transAxes, ha="center", va="center", size=BODY, color=GREY)
    return titled(figure, ax, finding)


def legend(
    ax: Axes, rows: Sequence[tuple[str, str, str, str, float]], at: str = "upper left", beside: bool = False
) -> None:
    """What marks stand for: text, marker, edge and face colour, size. One below the other, or all in a row."""
    handles = [
        Line2D(
            [], [], linestyle="none", marker=marker, color=edge, markerfacecolor=face, markersize=size,
            markeredgewidth=2 if marker in "x+_" or face != edge else 0,
        )
        for _, marker, edge, face, size in rows
    ]  # fmt: skip
    if handles:
        look: dict[str, Any] = {"loc": at, "ncols": len(rows) if beside else 1, "framealpha": 0.85, "edgecolor": "none"}
        ax.legend(handles, [text for text, *_ in rows], fontsize=BODY, **look)


def plain(text: object) -> str:
    """What a trace says, as it is: in a plot, dollars would make a formula of it, and a wrong one an error."""
    return printable(text, most=60).replace("$", r"\$")


def milliseconds(value: float) -> str:
    """As words."""
    return f"{round(float(value), 3):.2g} ms" if value < 10 else f"{value:,.0f} ms"


def percent(part: float) -> str:
    """A fraction as words."""
    value = 100 * part
    return "none" if value == 0 else f"{value:.2g} %" if value < 9.95 else f"{value:.0f} %"
