"""A server's audience on a terminal, or as lines in a file: who plays, every few seconds, and who comes and leaves."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime

from avlab.measure.numbers.attendance import Member, Roll, total_words
from avlab.wire.units import NS

LOOK_S = 1.0
"""How often it is looked who is there."""

TABLE_S, REDRAWN_S = 5.0, 2.0
"""How often the table is printed anew, and how often where it is drawn over itself."""

NAME_CELLS = 24
"""As wide as a name is at most; of a longer one, the beginning is shown."""

_HEADS = ("name", "address", "since", "fps", "loss", "jitter", "round trip", "kbit/s", "report")


class RollCall:
    """Prints with `say` what `members` says; `look` is to be called often, and has its own pace.

    With `redraw`, each table takes the place of the one before on a terminal of `size()` columns and lines: whoever
    prints something else in between calls `forget`. Without, tables follow on each other, and there are no control
    sequences.
    """

    def __init__(
        self,
        members: Callable[[], Sequence[Member]],
        say: Callable[[str], None],
        *,
        redraw: bool,
        size: Callable[[], tuple[int, int]] = lambda: (120, 50),
    ) -> None:
        self._members, self._say, self._redraw, self._size = members, say, redraw, size
        self._roll = Roll()
        self._looked_s = self._table_s = -1e9
        self._drawn = 0  # lines of the table that stands above the cursor
        self._empty = True

    def look(self, now_s: float, now_unix_ns: int) -> None:
        """Print what there is to print now; `now_s` is of any clock that goes on evenly."""
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        members = self._members()
        news = [str(change) for change in self._roll.call(members, now_unix_ns)]
        due = now_s - self._table_s >= (REDRAWN_S if self._redraw else TABLE_S)
        shows = due and not (self._empty and not news)  # whoever came first has a name by then
        if not news and not shows:
            return
        out = []
        table: list[str] = []
        if shows or (self._redraw and self._drawn):
            columns, lines = self._size() if self._redraw else (10_000, 10_000)
            table = audience_lines(members, columns=columns - 1, most=max(1, lines - 8))
            self._table_s, self._empty = now_s, not members
        if self._redraw:
            out.append("\r\x1b[K" + (f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""))
            self._drawn = len(table)
        self._say("".join(out) + "".join(f"{line}\n" for line in (*news, *table)))

    def forget(self) -> None:
        """Something else was printed: the table that is there stays."""
        self._drawn = 0


def audience_lines(members: Sequence[Member], *, columns: int, most: int) -> list[str]:
    """A heading, a line for each of the first `most` clients, and the sum, in lines of at most `columns` cells."""
    rows = [_HEADS, *map(_cells, members[:most])]
    widths = [max(_width(row[at]) for row in rows) for at in range(len(_HEADS))]
    lines = []
    for row in rows if members else ():
        cells = (
            cell + " " * (width - _width(cell)) if at < 3 else " " * (width - _width(cell)) + cell
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    if len(members) > most:
        lines.append(f"and {len(members) - most} more")
    return [_cut(line, columns) for line in (*lines, *textwrap.wrap(total_words(members), max(20, columns)))]


def _cells(member: Member) -> tuple[str, ...]:
    return (
        _cut(member.name or "-", NAME_CELLS),
        member.address,
        datetime.fromtimestamp(member.since_ns / NS).strftime("%H:%M:%S"),
        _number(member.fps, 1),
        _number(member.loss, 1, 100, " %"),
        _number(member.jitter, 1, 1e3, " ms"),
        _number(member.round_trip, 1, 1e3, " ms"),
        _number(member.kbps, 0),
        _number(member.last_report, 0, 1, " s"),
    )


def _number(value: float | None, digits: int, by: float = 1.0, unit: str = "") -> str:
    return "-" if value is None else f"{value * by:,.{digits}f}{unit}"


def _width(text: str) -> int:
    """Cells of a terminal: East Asian characters take two, accents none."""
    return sum(
        0
        if unicodedata.combining(each) or unicodedata.category(each) == "Cf"
        else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in text
    )


def _cut(text: str, cells: int) -> str:
    while _width(text) > cells:
        text = text[:-1]
    return text
