"""What a sweep keeps in its folder: which sweep it is, and one appended line of JSON a point.

A line is written when its point is done. A sweep that was killed left at most its last line unfinished, and that is cut
off again; the points that are there need not be run anew.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from avlab.lab.sweeps.points import Axis, Plain, Point, fingerprint
from avlab.parts import named

SWEEP, POINTS = "sweep.json", "points.jsonl"

_ODD = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Outcome(NamedTuple):
    """What came of a point: what was measured, or why nothing was, in a sentence."""

    measured: dict[str, Plain]
    error: str | None = None
    live: bool = False
    """Whether something streamed in real time for it. Not written down."""


class Kept:
    """The folder of one sweep. `done` has what came of each point that is, by its key."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._points = folder, folder / POINTS
        self.done: dict[str, Outcome] = {}

    def open(self, run: Callable[..., Any], measure: Any, axes: list[Axis], seeds: list[int | None]) -> bool:
        """Read what is there, and write which sweep this is; whether one of fewer points is gone on with.

        ValueError when the folder has another sweep: another run or measure, other parameters, or points that this one
        does not have. OSError where nothing can be written.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"a sweep keeps its points in a folder, and {self.folder} is a file: name another")
        self.folder.mkdir(parents=True, exist_ok=True)
        mine = {
            "python": ".".join(platform.python_version_tuple()[:2]),
            "run": {"name": named(getattr(run, "func", run)), "code": fingerprint(run)},
            "measure": {"name": named(getattr(measure, "func", measure)), "code": fingerprint(measure)},
            "grid": {axis.name: axis.labels for axis in axes},
            "seeds": seeds,
        }
        there = self._read_sweep()
        larger = False
        if there is not None:
            self._refuse_another(there, mine)
            larger = (there["grid"], there["seeds"]) != (mine["grid"], mine["seeds"])
        elif self._points.exists():
            raise ValueError(
                f"{self.folder} has points of a sweep, but no {SWEEP} that says which: name another folder"
            )
        if there != mine:
            beside = self.folder / f".{SWEEP}.{os.getpid()}"
            beside.write_text(json.dumps(mine, indent=1), encoding="utf-8")
            os.replace(beside, self.folder / SWEEP)
        self._read_points()
        return larger

    def add(self, point: Point, outcome: Outcome) -> None:
        """A point is done: its line is appended, in one piece."""
        measured = {name: _to_json(value) for name, value in outcome.measured.items()}
        row = {"point": point.labels, "seed": point.seed, "measured": measured, "error": outcome.error}
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with self._points.open("ab", buffering=0) as file:
            file.write(line)
        self.done[point.key] = outcome

    # ---- reading

    def _read_sweep(self) -> dict[str, Any] | None:
        try:
            said = json.loads((self.folder / SWEEP).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            said = None
        if not isinstance(said, dict) or not {"python", "run", "measure", "grid", "seeds"} <= said.keys():
            raise ValueError(f"{self.folder / SWEEP} does not say which sweep it is of: name another folder")
        return said

    def _refuse_another(self, there: dict[str, Any], mine: dict[str, Any]) -> None:
        other = f"{self.folder} has another sweep's points: "
        ask = ". Name another folder, or delete that one to begin anew"
        for what in ("run", "measure"):
            if there[what]["name"] != mine[what]["name"]:
                raise ValueError(f"{other}its {what} is {there[what]['name']}, not {mine[what]['name']}{ask}")
            if there["python"] == mine["python"] and there[what]["code"] != mine[what]["code"]:
                raise ValueError(f"{other}its {what}, {mine[what]['name']}, or what that uses, was changed since{ask}")
        if set(there["grid"]) != set(mine["grid"]):
            had, has = (", ".join(grid) or "none" for grid in (there["grid"], mine["grid"]))
            raise ValueError(f"{other}its parameters are {had}, not {has}{ask}")
        for name, labels in {**there["grid"], "seed": there["seeds"]}.items():
            now = mine["seeds"] if name == "seed" else mine["grid"][name]
            gone = [label for label in labels if label not in now]
            if gone:
                raise ValueError(f"{other}its {name} has {', '.join(map(repr, gone[:5]))}, too{ask}")

    def _read_points(self) -> None:
        """The points that are done. What a kill has left of a last line is cut off."""
        try:
            data = self._points.read_bytes()
        except FileNotFoundError:
            return
        lines, at = data.split(b"\n"), 0
        for number, line in enumerate(lines, 1):
            try:
                point, outcome = _read_line(line)
            except (ValueError, KeyError, TypeError, AttributeError):
                if any(lines[number:]):
                    words = (
                        f"line {number} of {self._points} is no point of a sweep: delete it, and that point is run anew"
                    )
                    raise ValueError(words) from None
                break
            if number == len(lines):  # whole, but for its end
                with self._points.open("ab") as file:
                    file.write(b"\n")
                at = len(data)
                self.done.setdefault(point.key, outcome)
                break
            at += len(line) + 1
            self.done.setdefault(point.key, outcome)
        if at < len(data):
            with contextlib.closing(self._points.open("r+b")) as file:
                file.truncate(at)


def _read_line(line: bytes) -> tuple[Point, Outcome]:
    row = json.loads(line)
    measured = {
        name: _ODD.get(value["float"]) if isinstance(value, dict) else value for name, value in row["measured"].items()
    }
    return Point({}, dict(row["point"]), row["seed"]), Outcome(measured, row["error"])


def _to_json(value: Plain) -> Any:
    """JSON has no infinity, and nothing that is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"}
    return value
