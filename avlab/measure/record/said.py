"""What was predicted in this process before it was measured: it goes into every trace of this process that is saved.

A prediction is a row of a trace's settings by the name of `PREDICTION`, its value a line of JSON. Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, NamedTuple

from avlab.measure.record.trace import SettingRow
from avlab.wire.text import printable

PREDICTION = "prediction"

MOST_KEPT = 200
"""Predictions of a process, the latest ones; and of a file."""

_QUESTION, _UNIT = 200, 30
"""Letters."""


class Said(NamedTuple):
    """A number that was said beforehand, and what was measured then, None while it was not."""

    question: str
    value: float
    unit: str = ""
    measured: float | None = None


class Sayings:
    """The predictions of a process, one for each question: the latest. From any thread."""

    def __init__(self) -> None:
        self._kept: dict[str, Said] = {}

    def say(self, question: str, value: float, unit: str) -> None:
        """A prediction is made, or made anew; what was measured for the same number stays."""
        before = self._kept.pop(question, None)
        same = before is not None and (before.value, before.unit) == (value, unit)
        self._kept[question] = before if same and before is not None else Said(question, value, unit)
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def take_back(self, question: str) -> None:
        """There is no prediction any more."""
        self._kept.pop(question, None)

    def clear(self) -> None:
        """Nothing was said."""
        self._kept.clear()

    def found(self, question: str, measured: float) -> None:
        """It was measured; nothing where nothing was said."""
        if (said := self._kept.get(question)) is not None:
            self._kept[question] = said._replace(measured=measured)

    def rows(self, time_ns: int) -> list[SettingRow]:
        """As settings of a trace, all of one time."""
        return [SettingRow(time_ns, PREDICTION, _as_line(said)) for said in list(self._kept.values())]


sayings = Sayings()
"""Those of this process."""


def predictions_of(rows: Iterable[SettingRow]) -> list[Said]:
    """The predictions among a trace's settings, the latest of each question. What is none is passed over: files are
    strangers'.
    """
    found: dict[str, Said] = {}
    for row in rows:
        said = _of_line(row.value) if row.name == PREDICTION and isinstance(row.value, str) else None
        if said is not None and (said.question in found or len(found) < MOST_KEPT):
            found[said.question] = said
    return list(found.values())


def _as_line(said: Said) -> str:
    question, unit = printable(said.question, most=_QUESTION), printable(said.unit, most=_UNIT)
    return json.dumps(said._replace(question=question, unit=unit)._asdict())


def _of_line(line: str) -> Said | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("question"), str) or not told["question"]:
        return None
    value, measured = _number(told.get("value")), _number(told.get("measured"))
    if value is None:
        return None
    unit = told.get("unit")
    return Said(
        printable(told["question"], most=_QUESTION),
        value,
        printable(unit, most=_UNIT) if isinstance(unit, str) else "",
        measured,
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
