"""Rate control against a bottleneck in virtual time: down before it drops, up again after, and reports that lie."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.core.events import Reported
from avlab.network.ratecontrol import Aimd, Choice, RateController, Report, controller_named, cost, ladder
from avlab.parts import PartError
from avlab.stream.sending.adapting import Adapting
from avlab.wire.units import NS

BEST = Choice(80, 640)
FPS = 30


@dataclass
class Bottleneck:
    """A path of `rate` (kilobits a second at a time), 20 ms each way, that drops what finds `queue_ms` of queue."""

    rate: Callable[[float], float]
    queue_ms: float = 300.0
    noise: float = 0.1
    loss: float = 0.0
    sent: list[float] = field(default_factory=list)  # kbps, each half second
    queues: list[float] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)  # when

    def run(
        self, controller: RateController, seconds: float, *, full_kbps: float = 4000.0, seed: int = 1
    ) -> Bottleneck:
        """Frames at the controller's choice, `full_kbps` at the best one; a report each half second."""
        chance, choice, waiting, lost, bits = random.Random(seed), BEST, 0.0, 0, 0.0
        for n in range(round(seconds * FPS)):
            now = n / FPS
            waiting = max(0.0, waiting - self.rate(now) / FPS)
            size = full_kbps / FPS * cost(choice) / cost(BEST) * chance.uniform(1 - self.noise, 1 + self.noise)
            bits += size
            if (waiting + size) / self.rate(now) * 1e3 > self.queue_ms:
                lost += 1
                self.dropped.append(now)
            else:
                waiting += size
            if n % (FPS // 2) == FPS // 2 - 1:
                queue = waiting / self.rate(now)
                report = Report(
                    time=now, client=1, loss=max(lost / (FPS // 2), self.loss), jitter=0.001,
                    round_trip=0.04 + queue, sent_kbps=2 * bits, quality=choice.quality, width=choice.width,
                )  # fmt: skip
                self.sent.append(2 * bits)
                self.queues.append(queue)
                choice = controller.update(report) or choice
                self.choices.append(choice)
                lost, bits = 0, 0.0
        return self


@pytest.mark.parametrize("rate", [500, 1000, 2000, 3500])
def test_the_rate_comes_down_before_the_bottleneck_drops(rate: float) -> None:
    path = Bottleneck(lambda now: min(5000.0, max(rate, 5000 - 200 * now))).run(Aimd(), 90)
    assert path.dropped == []
    settled = path.sent[80:]
    assert 0.6 * rate < sum(settled) / len(settled) <= rate
    assert sorted(path.queues[80:])[len(settled) // 2] < 0.05


def test_a_sudden_drop_is_answered_within_two_seconds() -> None:
    path = Bottleneck(lambda now: 5000.0 if now < 10 else 1500.0).run(Aimd(), 60)
    assert all(now < 12.5 for now in path.dropped)
    assert path.choices[-1] != BEST


def test_it_probes_upwards_again() -> None:
    path = Bottleneck(lambda now: 1000.0 if now < 30 else 6000.0).run(Aimd(), 90)
    assert path.choices[50] != BEST
    assert path.choices[-1] == BEST
    assert path.dropped == [] or max(path.dropped) < 5


def test_a_wide_path_leaves_the_best_as_it_is() -> None:
    path = Bottleneck(lambda now: 20_000.0).run(Aimd(), 60)
    assert set(path.choices) == {BEST}


def test_losses_of_the_air_are_no_congestion() -> None:
    path = Bottleneck(lambda now: 20_000.0, loss=0.05).run(Aimd(), 60)
    assert set(path.choices) == {BEST}


def test_much_loss_is_even_where_no_queue_is_seen() -> None:
    path = Bottleneck(lambda now: 20_000.0, loss=0.2).run(Aimd(), 10)
    assert path.choices[-1] == ladder(BEST)[-1]


def report(**changed: Any) -> Report:
    known = Report(
        time=1.0, client=1, loss=0.0, jitter=0.0, round_trip=0.04, sent_kbps=2000.0, quality=80, width=640
    )  # fmt: skip
    return replace(known, **changed)


def settled(controller: Aimd, poor: set[int], clients: int, seconds: int = 60) -> Choice:
    """What is sent in the end when the paths to some clients are poor: half of what goes there is lost."""
    now = BEST
    for at in range(2 * seconds):
        for client in range(1, clients + 1):
            kbps = 2000 * cost(now) / cost(BEST)
            said = report(time=0.5 * at, client=client, sent_kbps=kbps, quality=now.quality, width=now.width)
            now = controller.update(replace(said, loss=0.5 * (client in poor))) or now
    return now


@pytest.mark.parametrize(
    ("clients", "poor", "decides"),
    [
        (1, {1}, True),
        (2, {1}, True),
        (2, {2}, True),
        (3, {2}, False),
        (3, {1, 3}, True),
        (4, {4}, False),
        (4, {2, 3}, True),
        (9, {1, 2, 3, 4}, False),
        (9, {1, 2, 3, 4, 5}, True),
    ],
)
def test_of_what_the_paths_take_the_lower_median_decides(clients: int, poor: set[int], decides: bool) -> None:
    controller = Aimd()
    choice = settled(controller, poor, clients)
    if decides:
        assert choice == ladder(BEST)[-1]
        assert controller.held_back_by in poor
    else:
        assert choice == BEST
        assert controller.held_back_by is None


def test_who_is_gone_holds_nobody_back() -> None:
    controller = Aimd()
    now = settled(controller, {2}, 2)
    assert controller.held_back_by == 2
    for at in range(120, 320):
        kbps = 2000 * cost(now) / cost(BEST)
        now = controller.update(report(time=0.5 * at, sent_kbps=kbps, quality=now.quality, width=now.width)) or now
    assert now == BEST
    assert controller.held_back_by is None


@pytest.mark.parametrize("best", [BEST, Choice(100, 2040), Choice(1, 16), Choice(50, 160), Choice(95, 400)])
def test_the_ladder_leads_down(best: Choice) -> None:
    steps = ladder(best)
    assert steps[0] == best
    costs = [cost(step) for step in steps]
    assert costs == sorted(costs, reverse=True)
    assert all(1 <= step.quality <= best.quality and 16 <= step.width <= best.width for step in steps)
    assert all(step.width % 8 == 0 for step in steps[1:] if step.width != best.width)


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True), st.floats(allow_nan=True), st.none() | st.floats(allow_nan=True), st.floats()
        ),
        max_size=30,
    )
)
def test_reports_that_lie_get_a_choice_of_the_ladder_or_none(
    lies: list[tuple[float, float, float | None, float]],
) -> None:
    controller = Aimd(best=BEST)
    for time, loss, trip, kbps in lies:
        choice = controller.update(report(time=time, loss=loss, round_trip=trip, sent_kbps=kbps))
        assert choice is None or choice in ladder(BEST)
    assert len(controller._clients) <= 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"queue": 0}, "queue must be more than 0 seconds"),
        ({"queue": math.nan}, "queue must be more than 0 seconds"),
        ({"increase_kbps": -1}, "increase_kbps must be more than 0"),
        ({"decrease": 1.0}, "decrease must be between 0 and 1"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Aimd(**settings)  # type: ignore[arg-type]


class Steady:
    """A student's own: half the quality, whatever is reported."""

    def update(self, report: Report, /) -> Choice | None:
        return Choice(40, report.width)


class Counting:
    """How many reports it was handed; the third is one too many."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, report: Report, /) -> Choice | None:
        self.count += 1
        if self.count == 3:
            raise ZeroDivisionError
        return Choice(40 + self.count, report.width)


def test_a_class_is_made_for_its_first_report_and_anew_when_it_is_handed_in_again() -> None:
    chosen: list[int] = []
    failures: list[PartError] = []
    sending = SimpleNamespace(quality=80, width=320, encoded_width=320)
    adapting = Adapting(sending, lambda choice: chosen.append(choice.quality), failed=failures.append)
    report = Reported(NS, "video", 1, 0.0, 0, 0, None, 500.0, None)
    for _ in range(2):
        adapting.controller = Counting
        assert adapting.working is Counting
        for _ in range(4):
            adapting.heard(report)
        assert isinstance(adapting.working, Counting)
    assert chosen == [41, 42] * 2
    assert len(failures) == 2
    own = adapting.controller = Counting()
    adapting.heard(report)
    assert adapting.working is own
    assert own.count == 1


def test_controllers_by_name_and_of_ones_own() -> None:
    own = Steady()
    assert controller_named(own) is own
    assert controller_named(Steady) is Steady
    assert isinstance(controller_named("aimd"), Aimd)
    assert controller_named(None) is None
    with pytest.raises(ValueError, match="one of aimd or None, not 'pid'"):
        controller_named("pid")
    for wrong in (3, int, object()):
        with pytest.raises(TypeError, match=r"object with update\(report\)"):
            controller_named(wrong)  # type: ignore[arg-type]
