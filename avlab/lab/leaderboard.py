"""A leaderboard: a file that a class shares, a line of JSON for each time that somebody hands in.

Lines are appended under a lock that works between processes and laptops. What is in the file was written by strangers:
it is read up to a bound, names are cleaned, and a line that is none of the challenge's costs the others nothing.
"""

from __future__ import annotations

import datetime
import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from avlab.lab.plots.drawing import BLUE, BODY, GREY, axes, missing, plain, titled
from avlab.measure.numbers.score import Score, points
from avlab.parts import named
from avlab.wire.text import check_name, person, printable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MOST_BYTES = 2_000_000
"""Of a board: some ten thousand lines. It is neither read nor written beyond that."""

MOST_LINE = 2_000
"""Bytes of a line."""

MOST_BARS = 30
"""Names that the figure has room for."""

MOST_SETTINGS = 200
"""Characters of the settings, as a line has them."""

ROUNDED = 0.11
"""Points that the rounded factors' product may be off."""

WAIT_S = 10.0
"""How long to wait for others who write."""


class Entry(NamedTuple):
    """A line: whose, what it was worth, and with which settings."""

    name: str
    points: float
    shown: float
    detail: float
    promptness: float
    settings: str
    when: str


class Leaderboard:
    """Who got how many points. Made by `Challenge.hand_in` and `Challenge.leaderboard`; shows itself in a notebook.

    `table` is a DataFrame, a row a name, the best first: place, name, points, the three factors, tries, settings and
    when. Of equal points, who came first is first. `ignored` counts the file's lines that are none of this challenge.
    """

    def __init__(self, entries: Sequence[Entry], ignored: int = 0, *, cut: bool = False) -> None:
        import pandas as pd

        self.ignored = ignored
        self._cut = cut
        best: dict[str, Entry] = {}
        tries: dict[str, int] = {}
        for one in entries:
            tries[one.name] = tries.get(one.name, 0) + 1
            if one.name not in best or one.points > best[one.name].points:
                best.pop(one.name, None)
                best[one.name] = one
        ranked = sorted(best.values(), key=lambda one: -one.points)  # of equals, the one who came first
        self.table: pd.DataFrame = pd.DataFrame(
            [
                (
                    1 + sum(other.points > one.points for other in ranked),
                    one.name,
                    one.points,
                    one.shown,
                    one.detail,
                    one.promptness,
                    tries[one.name],
                    one.settings,
                    one.when,
                )
                for one in ranked
            ],
            columns=["place", "name", "points", "shown", "detail", "promptness", "tries", "settings", "when"],
        )

    @property
    def remarks(self) -> list[str]:
        """What there is to say of the file, a sentence each."""
        said = []
        if self.ignored:
            lines = "line is" if self.ignored == 1 else "lines are"
            said.append(f"{self.ignored:,} {lines} none of this challenge, and left out.")
        if self._cut:
            said.append(f"The file is longer than {MOST_BYTES:,} bytes: what comes after is left out.")
        return said

    def __repr__(self) -> str:
        rows = self.table.to_string(index=False) if len(self.table) else "Nobody has handed in yet."
        return "\n".join([rows, *self.remarks])

    def _repr_html_(self) -> str:
        rows = "<p>Nobody has handed in yet.</p>"
        if len(self.table):
            rows = str(self.table.to_html(escape=True, index=False, float_format="{:.4g}".format))
        return rows + "".join(f"<p>{html.escape(words)}</p>" for words in self.remarks)

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        display(*([self.figure()] if len(self.table) else []), HTML(self._repr_html_()))

    def figure(self) -> Figure:
        """A bar a name, the best above; of many, the first thirty."""
        rows = self.table.head(MOST_BARS)
        figure, ax = axes(None, "points", "")
        if rows.empty:
            return missing(figure, ax, "Nobody has handed in yet", "challenge.hand_in(name, settings, to=...)")
        figure.set_figheight(1.9 + 0.36 * len(rows))
        places = range(len(rows))
        ax.barh(places, rows["points"], color=[BLUE if place == 1 else GREY for place in rows["place"]], height=0.7)
        ax.set_yticks(places, [plain(name) for name in rows["name"]])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(0, 100)
        for at, (value, share, detail, prompt) in enumerate(
            rows[["points", "shown", "detail", "promptness"]].itertuples(index=False)
        ):
            text = f"{value:.1f} = 100 \N{MULTIPLICATION SIGN} " + " \N{MULTIPLICATION SIGN} ".join(
                f"{factor:.2f}" for factor in (share, detail, prompt)
            )
            inside = value > 55
            ax.annotate(
                text, (value, at), (-8 if inside else 8, 0), textcoords="offset points", va="center", size=BODY,
                ha="right" if inside else "left", color="white" if inside else GREY,
            )  # fmt: skip
        first = rows.iloc[0]
        return titled(figure, ax, f"{plain(first['name'])} leads with {first['points']:.1f} points")


def check_player(name: object) -> str:
    """What somebody wants to be called. TypeError for no text, ValueError for an empty name or one that is too long."""
    said = check_name(name)
    if not said:
        raise ValueError("a leaderboard needs a name: say what you want to be called")
    return said


def entry(key: str, name: str, score: Score, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is written of a name, its settings and what they are worth."""
    return {
        "challenge": key,
        "name": name,
        "points": score.points,
        "shown": score.shown,
        "detail": score.detail,
        "promptness": score.promptness,
        "settings": printable(in_words(settings), most=MOST_SETTINGS),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings as a line: numbers and words as they are, parts by their names."""
    said = []
    for name, value in settings.items():
        plain = value is None or isinstance(value, str | int | float)
        part = value if isinstance(value, type) or callable(value) else type(value)
        said.append(f"{name}={value if plain else named(part)}")
    return ", ".join(said) or "as it begins"


def append(path: str | os.PathLike[str], made: Mapping[str, Any]) -> None:
    """Append a line while nobody else writes. ValueError for a board that is full, OSError where that cannot be."""
    from filelock import FileLock, SoftFileLock, Timeout

    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder: name a file in it, as {file / 'leaderboard.jsonl'}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent}: make it, or name another file")
    lock = file.with_name(f"{file.name}.lock")
    line = (json.dumps(made, allow_nan=False) + "\n").encode()
    assert len(line) <= MOST_LINE
    try:
        try:
            with FileLock(lock, timeout=WAIT_S):
                _append(file, line)
        except NotImplementedError:  # a shared drive without locks: a file that is there or not
            with SoftFileLock(lock, timeout=WAIT_S):
                _append(file, line)
    except Timeout:
        raise TimeoutError(
            f"somebody has been writing to {file} for {WAIT_S:g} s: try again, or delete {lock} if nobody is"
        ) from None


def _append(file: Path, line: bytes) -> None:
    with file.open("a+b", buffering=0) as board:
        size = board.seek(0, os.SEEK_END)
        if size + len(line) > MOST_BYTES:
            raise ValueError(f"{file} is full, with {size:,} bytes: begin another leaderboard")
        if size:
            board.seek(-1, os.SEEK_END)
            if board.read(1) != b"\n":  # a line that was not finished
                line = b"\n" + line
        board.write(line)


def read(path: str | os.PathLike[str], key: str) -> Leaderboard:
    """The board of one challenge; empty where there is no file. OSError for what cannot be read."""
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder: name the leaderboard's file in it")
    try:
        with file.open("rb") as board:
            data = board.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return Leaderboard(())
    cut = len(data) > MOST_BYTES
    lines = [line for line in data[:MOST_BYTES].split(b"\n") if line.strip()]
    entries = [found for line in lines if (found := _entry(line, key)) is not None]
    return Leaderboard(entries, len(lines) - len(entries), cut=cut)


def _entry(line: bytes, key: str) -> Entry | None:
    """What a line says; None when it is none of this challenge, or does not add up."""
    if len(line) > MOST_LINE:
        return None
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("challenge") != key:
        return None
    texts = [text for name in ("name", "settings", "when") if isinstance(text := said.get(name), str)]
    numbers = [
        float(number)
        for name in ("points", "shown", "detail", "promptness")
        # Neither True nor nan, nor what no float can hold.
        if isinstance(number := said.get(name), int | float) and not isinstance(number, bool) and 0 <= number <= 100
    ]
    if len(texts) < 3 or len(numbers) < 4 or max(numbers[1:]) > 1 or not (called := person(texts[0])):
        return None
    worth, share, details, prompt = numbers
    if abs(worth - points(share, details, prompt)) > ROUNDED:
        return None
    settings, when = printable(texts[1], most=MOST_SETTINGS), printable(texts[2], most=30)
    return Entry(called, worth, share, details, prompt, settings, when)
