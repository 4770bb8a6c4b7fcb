"""How good a picture the path takes: what receivers report in, quality and width out. Pure.

The part to be replaced by one's own is a `RateController`; the one that comes with avlab is `Aimd`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from avlab.parts import Call, Choice, PartError, RateController, Report, called, missing_methods, named, shown
from avlab.wire.text import spelt

__all__ = [
    "CONTROLLERS",
    "Aimd",
    "Choice",
    "RateController",
    "Report",
    "asked",
    "controller_name",
    "controller_named",
    "cost",
    "ladder",
    "made",
]

LEAST_WIDTH, MOST_WIDTH = 16, 2_040
"""Pixels across that a picture may have."""


@spelt
class Aimd:
    """Additive increase, multiplicative decrease, on the queue's length and not on its overflow.

    A path that is sent more than it takes builds a queue, and the round trip grows before anything is dropped. So the
    rate is cut to `decrease` of what was sent when the round trip is `queue` seconds over the shortest seen, or when
    more than a tenth is lost; it grows by `increase_kbps` a second while the queue is short and less than a fiftieth is
    lost (the bounds are those of Google congestion control, draft-ietf-rmcat-gcc-02 section 6): Wi-Fi's own losses are
    no reason to send less.

    A rate becomes a `Choice` by what the last choices cost: first quality goes down, to half of the best one's, then
    width. `best` is never exceeded; without it, it is what was sent when the first report came. All clients get the
    same pictures: of what their paths take, the lower median decides, of two the lower, so that one client by itself
    does not make the picture poor for many. Reports whose numbers do not add up are not for it to see.

    Args:
        best: The quality and width that are never exceeded.
        queue: Seconds, more than 0.
        increase_kbps: Kilobits a second, each second, more than 0.
        decrease: A share, between 0 and 1.
        least_width: Pixels, below which no width is chosen.

    Raises:
        ValueError: A number is out of its range.
    """

    believed_only = True
    """A server hands it only reports that can be true; controllers without this are given every one."""

    def __init__(
        self,
        *,
        best: Choice | None = None,
        queue: float = 0.03,
        increase_kbps: float = 100.0,
        decrease: float = 0.85,
        least_width: int = 160,
    ) -> None:
        if not 0 < queue < math.inf:
            raise ValueError(f"queue must be more than 0 seconds, not {queue}")
        if not 0 < increase_kbps < math.inf:
            raise ValueError(f"increase_kbps must be more than 0 kilobits a second, each second, not {increase_kbps}")
        if not 0 < decrease < 1:
            raise ValueError(f"decrease must be between 0 and 1, not {decrease}")
        self.best = best
        self._queue, self._increase, self._decrease = queue, increase_kbps, decrease
        self._least_width = least_width
        self._clients: dict[int, _Path] = {}
        self._ladder: list[Choice] = []
        self._unit_kbps: float | None = None  # what a choice of cost 1 sends
        self._now: Choice | None = None
        self._decisive: int | None = None  # whose path decides

    def settings(self) -> dict[str, Any]:
        """What it was made with, by name; `best` as learnt, where it was not given."""
        return {
            "best": self.best,
            "queue": self._queue,
            "increase_kbps": self._increase,
            "decrease": self._decrease,
            "least_width": self._least_width,
        }

    def update(self, report: Report, /) -> Choice | None:
        """A report came; what to send from now on, None while that is what is sent.

        Args:
            report: What a client has reported.
        """
        if not _sane(report):
            return None
        sent = Choice(report.quality, report.width)
        if not self._ladder:
            self.best = self.best or sent
            self._ladder = ladder(self.best, self._least_width)
        self._learn(report, sent)
        path = self._clients.setdefault(report.client, _Path(report.time))
        path.update(report, self._queue, self._increase, self._decrease)
        for client in [c for c, known in self._clients.items() if report.time - known.time > FORGET_S]:
            del self._clients[client]
        self._decisive, rate = self._lower_median()
        if self._unit_kbps is None:
            return None
        affordable = (choice for choice in self._ladder if cost(choice) * self._unit_kbps <= rate)
        choice = next(affordable, self._ladder[-1])
        self._now = choice
        return choice if choice != sent else None

    @property
    def held_back_by(self) -> int | None:
        """The client (its SSRC) for whose path less than the best is sent; None while the best is."""
        return self._decisive if self._now is not None and self._now != self.best else None

    def _lower_median(self) -> tuple[int, float]:
        """Whose path decides, and what it takes."""
        paths = sorted(self._clients.items(), key=lambda item: item[1].kbps)
        client, path = paths[(len(paths) - 1) // 2]
        return client, path.kbps

    def _learn(self, report: Report, sent: Choice) -> None:
        """What pictures of these contents cost; not from a time in which the choice was another."""
        if report.sent_kbps <= 0 or self._now not in (None, sent):
            return
        unit = report.sent_kbps / cost(sent)
        first = self._unit_kbps is None or self._now is None
        self._unit_kbps = unit if first else (self._unit_kbps or unit) * 0.7 + unit * 0.3
        self._now = sent


FORGET_S = 10.0
"""A client that has reported nothing for so long no longer holds the others back."""

SHORTEST_S = 30.0
"""How long the shortest round trip is believed: then the path may have become another."""

LOST_MUCH, LOST_LITTLE = 0.1, 0.02


@dataclass(slots=True)
class _Path:
    """What one client's path takes."""

    time: float
    kbps: float = math.inf
    shortest: float = math.inf
    shortest_time: float = 0.0
    queue: float = 0.0  # seconds, at the last report

    def update(self, report: Report, most_queue: float, increase: float, decrease: float) -> None:
        seconds = min(max(0.0, report.time - self.time), 2.0)
        self.time = report.time
        if self.kbps == math.inf:
            self.kbps = 1.5 * report.sent_kbps  # what is sent varies, and the path has not complained
        before = self.queue
        if report.round_trip is not None:
            if report.round_trip < self.shortest or report.time - self.shortest_time > SHORTEST_S:
                self.shortest, self.shortest_time = report.round_trip, report.time
            self.queue = report.round_trip - self.shortest
        full = self.queue > most_queue
        if (full and self.queue > 0.8 * before) or report.loss > LOST_MUCH:
            if report.sent_kbps > 0:
                self.kbps = min(self.kbps, report.sent_kbps) * decrease
        elif not full and self.queue <= 0.5 * most_queue and report.loss < LOST_LITTLE:
            # Not far beyond what was sent: a rate that was never tried says nothing of the path.
            self.kbps = min(self.kbps + increase * seconds, max(self.kbps, 1.5 * report.sent_kbps))


def cost(choice: Choice) -> float:
    """Roughly how many bits a picture takes, as a number to be compared.

    Quality as libjpeg scales its tables (RFC 2435 4.2); the exponents fit pictures of streets and faces within a third,
    which is enough, as each measured rate corrects it.
    """
    quality = min(99, max(1, choice.quality))
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    return float((choice.width / 640) ** 1.4 * (scale / 40) ** -0.6)


def ladder(best: Choice, least_width: int = 160) -> list[Choice]:
    """Choices from the best down, each cheaper than the one before: quality first, to half, then width by an eighth."""
    out = [best]
    width = best.width
    low = max(10, best.quality // 2)
    while width >= min(least_width, best.width):
        for quality in range(best.quality, low - 1, -5):
            choice = Choice(quality, width)
            if cost(choice) < 0.97 * cost(out[-1]):
                out.append(choice)
        width = max(8, (width * 7 // 8) // 8 * 8) if width > 8 else 0
    return out


def _sane(report: Report) -> bool:
    """Whether a report's numbers are of their kind; whether they can be true is known to whoever sent the packets."""
    numbers = (report.time, report.loss, report.jitter, report.sent_kbps, report.round_trip or 0.0)
    return all(math.isfinite(number) and number >= 0 for number in numbers) and report.loss <= 1


CONTROLLERS: dict[str, type[Aimd]] = {"aimd": Aimd}
"""The controllers that can be chosen by name."""


def controller_named(
    choice: str | RateController | type[RateController] | None,
) -> RateController | type[RateController] | None:
    """A controller from its name, the one or the class handed in, or None.

    ValueError for a name that is none, TypeError for no controller.
    """
    if choice is None:
        return None
    if isinstance(choice, str):
        if choice not in CONTROLLERS:
            raise ValueError(f"rate_control must be one of {', '.join(sorted(CONTROLLERS))} or None, not {choice!r}")
        return CONTROLLERS[choice]()
    if missing_methods(choice, ["update"]):
        raise TypeError(
            f"a rate controller is 'aimd', or a class or object with update(report); {shown(choice)} is neither"
        )
    return choice


def controller_name(controller: RateController | type[RateController]) -> str:
    """What a controller is called, in the record and in a sentence: its class's name."""
    return named(controller if isinstance(controller, type) else type(controller))


def made(controller: RateController | type[RateController], *, call: Call = called) -> RateController:
    """An object of a controller that was handed in as a class. PartError, in a sentence, when it cannot be made."""
    if not isinstance(controller, type):
        return controller
    what = f"the rate controller {controller_name(controller)}"
    at: RateController = call(what, controller)
    if missing_methods(at, ["update"]):
        raise PartError(f"{what} has no method update: it needs update(report)")
    return at


def asked(controller: RateController, report: Report, *, call: Call = called) -> Choice | None:
    """What a controller chooses. PartError, in a sentence that names it, when it fails or returns what it may not."""
    what = f"the rate controller {controller_name(controller)}"
    given = call(what, controller.update, report)
    if given is None:
        return None
    if given is ...:
        raise PartError(f"{what} is not written yet: put your own in place of ...")
    try:
        quality, width = given
        right = _whole(quality) and _whole(width) and 1 <= quality <= 100 and LEAST_WIDTH <= width <= MOST_WIDTH
    except Exception:  # it is no pair, or does not let itself be compared
        right = False
    if not right:
        raise PartError(
            f"{what} returned {shown(given)}: it must be None, or a Choice of a quality from 1 to 100 and a width from "
            f"{LEAST_WIDTH} to {MOST_WIDTH} pixels, whole numbers"
        )
    return Choice(int(quality), int(width))


def _whole(value: Any) -> bool:
    """Whether it is a whole number; numpy's are, True is not."""
    return hasattr(value, "__index__") and not isinstance(value, bool)
