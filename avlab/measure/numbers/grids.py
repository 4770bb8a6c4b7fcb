"""Folds over a table of runs: means over seeds, and which points no other one beats. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


def parameters(table: pd.DataFrame) -> list[str]:
    """The columns of a sweep's table that are its grid's: those before the seed."""
    said = table.attrs.get("parameters")
    if said is not None:
        return [name for name in said if name in table]
    columns = list(table.columns)
    return columns[: columns.index("seed")] if "seed" in columns else []


def cells(table: pd.DataFrame, x: str, y: str, value: str) -> pd.DataFrame:
    """The mean of a column over seeds and all other parameters: a row a value of `y`, a column a value of `x`.

    In the order in which they come, numbers by size. NaN where nothing was measured.
    """
    made = table.assign(**{value: numbers(table[value])}).groupby([y, x], sort=False, dropna=False)[value].mean()
    wide = made.unstack(x)
    return wide.reindex(index=_ordered(table[y]), columns=_ordered(table[x]))


def means(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The mean of each of `columns` over seeds: a row a point that has them all, with its parameters."""
    names = [name for name in parameters(table) if name not in columns]
    plain = table.assign(**{column: numbers(table[column]) for column in columns})
    keys = names + [column for column in columns if column in parameters(table)]
    measured = [column for column in columns if column not in keys]
    if not keys:
        return plain[list(columns)].dropna().reset_index(drop=True)
    if not measured:
        return plain[keys].drop_duplicates().dropna(subset=list(columns)).reset_index(drop=True)
    found = plain.groupby(keys, sort=False, dropna=False)[measured].mean().reset_index()
    return found.dropna(subset=list(columns)).reset_index(drop=True)


def front(x: Any, y: Any, *, more_x: bool = False, more_y: bool = False) -> NDArray[np.bool_]:
    """Which points no other one beats: is at least as good in both, and better in one. Less is better unless `more`."""
    across = np.asarray(x, np.float64) * (-1 if more_x else 1)
    down = np.asarray(y, np.float64) * (-1 if more_y else 1)
    as_good = (across[None, :] <= across[:, None]) & (down[None, :] <= down[:, None])
    better = (across[None, :] < across[:, None]) | (down[None, :] < down[:, None])
    beaten: NDArray[np.bool_] = np.any(as_good & better, axis=1)
    return ~beaten


def numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as numbers, True as 1; what is none is NaN."""
    import pandas as pd

    return pd.to_numeric(column, errors="coerce").astype(np.float64)


def _ordered(column: pd.Series[Any]) -> list[Any]:
    import pandas as pd

    values = list(pd.unique(column))
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values
