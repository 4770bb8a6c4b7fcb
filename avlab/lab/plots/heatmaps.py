"""Plots of a sweep's table: a number over two parameters, and what two numbers cost each other.

As in lab.plots, a table comes in and a figure goes out; what is computed is computed in avlab.measure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avlab.lab.plots.drawing import BLUE, BODY, GREY, PAPER, axes, missing, plain, titled
from avlab.measure.numbers import grids

if TYPE_CHECKING:
    import pandas as pd

MOST_TOLD = 150
"""Cells of a heat map that have their number written in them: more, and nobody could read it."""

MOST_NAMED = 8
"""Points of a front that are named."""


def heatmap(table: pd.DataFrame, x: str, y: str, value: str, *, ax: Axes | None = None) -> Figure:
    """A measured column over two parameters of a sweep, the mean over seeds and whatever else varies.

    `table` is as `avlab.sweep` returns it; `x`, `y` and `value` name its columns. A cell in which every run failed is
    crossed out. ValueError for a column that is not there.

    Args:
        table: As `avlab.sweep` returns it.
        x: The column along the x axis, a parameter of the sweep.
        y: The column along the y axis, another one.
        value: The column that is drawn as colour.
        ax: Where to draw; None makes a figure of its own.
    """
    _check("heatmap", table, x, y, value)
    figure, ax = axes(ax, plain(x), plain(y))
    wide = grids.cells(table, x, y, value)
    values = wide.to_numpy(float)
    if not np.isfinite(values).any():
        return missing(figure, ax, f"No {plain(value)} was measured", "every run failed: see the column error")
    shown = np.ma.masked_invalid(values)
    image = ax.imshow(shown, aspect="auto", origin="lower", cmap="cividis")
    ax.grid(visible=False)
    for ticks, names in ((ax.set_xticks, wide.columns), (ax.set_yticks, wide.index)):
        every = max(1, -(-len(names) // 12))
        ticks(range(0, len(names), every), [_word(name) for name in names[::every]])
    bar = figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label(plain(value), size=BODY)
    bar.ax.tick_params(labelsize=BODY)
    low, high = float(shown.min()), float(shown.max())
    for (row, column), one in np.ndenumerate(values):
        if not np.isfinite(one):
            ax.plot(column, row, "x", color=GREY, markersize=14, markeredgewidth=2)
        elif values.size <= MOST_TOLD:
            dark = high > low and (one - low) / (high - low) < 0.55
            ax.text(column, row, _number(one), ha="center", va="center", size=BODY, color="white" if dark else "black")
    best, worst = (np.unravel_index(int(find(values)), values.shape) for find in (np.nanargmax, np.nanargmin))

    def place(at: Any) -> str:
        return f"{plain(x)} {_word(wide.columns[at[1]])}, {plain(y)} {_word(wide.index[at[0]])}"

    if low == high:
        return titled(figure, ax, f"{plain(value)} is {_number(low)} everywhere")
    finding = f"{plain(value)}: most, {_number(high)}, at {place(best)}; least, {_number(low)}, at {place(worst)}"
    return titled(figure, ax, textwrap.fill(finding, 66))


def pareto(table: pd.DataFrame, x: str, y: str, *, more: Sequence[str] = (), ax: Axes | None = None) -> Figure:
    """Two columns of a sweep against each other, a mark a point, the mean over seeds; those that none beats are named.

    Less of both is better, but for a column that is named in `more`, as more=["shown"]. `table` is as `avlab.sweep`
    returns it. ValueError for a column that is not there.

    Args:
        table: As `avlab.sweep` returns it.
        x: The column along the x axis.
        y: The column along the y axis.
        more: The columns of which more is better.
        ax: Where to draw; None makes a figure of its own.
    """
    more = [more] if isinstance(more, str) else list(more)
    _check("pareto", table, x, y)
    unknown = [name for name in more if name not in (x, y)]
    if unknown:
        raise ValueError(f"more names {x!r} or {y!r}, of which more is better, not {unknown[0]!r}")
    figure, ax = axes(
        ax,
        f"{plain(x)} ({'more' if x in more else 'less'} is better)",
        f"{plain(y)} ({'more' if y in more else 'less'} is better)",
    )
    found = grids.means(table, x, y)
    if found.empty:
        return missing(figure, ax, "No point has both numbers", "every run failed: see the column error")
    across, down = found[x].to_numpy(float), found[y].to_numpy(float)
    first = grids.front(across, down, more_x=x in more, more_y=y in more)
    ax.plot(across[~first], down[~first], "o", color=GREY, markersize=8, alpha=0.55, markeredgewidth=0)
    order = np.argsort(across[first], kind="stable")
    at = np.flatnonzero(first)[order]
    ax.plot(across[at], down[at], "o--", color=BLUE, markersize=11, linewidth=1.6, markeredgewidth=0)
    ax.margins(0.14, 0.16)
    count = len(found)
    ax.annotate(
        f"{count - len(at):,} that another one beats" if count > len(at) else "", (1, 1), (-6, -16),
        xycoords="axes fraction", textcoords="offset points", ha="right", color=GREY, size=BODY,
    )  # fmt: skip
    beaten = f"{len(at)} of {count} points {'is' if len(at) == 1 else 'are'} beaten by no other"
    titled(figure, ax, f"{beaten} in {plain(x)} and {plain(y)}")
    varied = [name for name in grids.parameters(table) if found[name].nunique(dropna=False) > 1]
    _name(ax, found, across, down, at, [name for name in varied if name not in (x, y)] or varied)
    return figure


def _name(ax: Axes, found: pd.DataFrame, across: Any, down: Any, at: Any, names: Sequence[str]) -> None:
    """Words beside the points of the front, as many as there is room for, the ends among them."""
    figure = ax.get_figure(root=True)
    if not names or figure is None:
        return
    figure.draw_without_rendering()  # only then it is known where everything is
    room = ax.get_window_extent().padded(2)
    taken = [text.get_window_extent() for text in ax.texts if text.get_text()]
    chosen = at[np.unique(np.linspace(0, len(at) - 1, min(len(at), MOST_NAMED)).round().astype(int))]
    middle = (across.min() + across.max()) / 2
    ends = {chosen[0], chosen[-1]}
    for one in [*(end for end in chosen if end in ends), *(inner for inner in chosen if inner not in ends)]:
        sides = [("right", -10), ("left", 10)]
        words = ", ".join(f"{plain(name)} {_word(found[name].iloc[one])}" for name in names)
        places = [(*side, up) for side in (sides if across[one] > middle else sides[::-1]) for up in (12, -20)]
        for last, (side, aside, up) in enumerate(places, 1):
            label = ax.annotate(
                words, (across[one], down[one]), (aside, up), textcoords="offset points", ha=side, size=BODY,
                color=BLUE, bbox=PAPER,
            )  # fmt: skip
            place = label.get_window_extent()
            inside = room.x0 <= place.x0 and place.x1 <= room.x1
            free = not any(place.overlaps(other) for other in taken)
            if (inside and free) or (one in ends and last == len(places)):
                taken.append(place)
                break
            label.remove()


def _check(name: str, table: Any, *columns: str) -> None:
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"plots.{name} draws the table that avlab.sweep returns, not {type(table).__name__}")
    for column in columns:
        if column not in table:
            known = ", ".join(str(known) for known in table.columns if known not in ("seed", "error"))
            raise ValueError(f"the table has no column {column!r}: it has {known}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def _word(value: Any) -> str:
    if value is None or value != value:  # pandas makes nan of None
        return "None"
    return f"{value:g}" if isinstance(value, float) else plain(value)
