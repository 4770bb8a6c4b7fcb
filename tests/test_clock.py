"""How a clock waits for sockets where `select` is coarse, as on Windows: in virtual time, with its own selector."""

from __future__ import annotations

import selectors
from typing import Any

import pytest

from avlab.stream import clock
from avlab.stream.clock import NAP_NS, MonotonicClock

MS = 1_000_000
STEP_NS = 15_625_000  # of Windows' select


class Coarse(MonotonicClock):
    """A machine whose `select` wakes in steps of 15.6 ms, and a socket that becomes ready at `arrives_ns`."""

    def __init__(self, arrives_ns: int | None = None) -> None:
        self.time_ns = 0
        self.arrives_ns = arrives_ns
        self.sleeps_ns: list[int] = []
        self.key: Any = (object(), selectors.EVENT_READ)

    def now_ns(self) -> int:
        return self.time_ns

    def sleep_until(self, moment_ns: int) -> None:
        self.sleeps_ns.append(moment_ns - self.time_ns)
        self.time_ns = max(self.time_ns, moment_ns)

    def select(self, timeout: float | None) -> list[Any]:
        until_ns = None if timeout is None else self.time_ns + round(timeout * 1e9)
        if self.arrives_ns is not None and (until_ns is None or self.arrives_ns <= until_ns):
            self.time_ns = max(self.time_ns, self.arrives_ns)
            self.arrives_ns = None
            return [self.key]
        assert until_ns is not None
        if timeout:  # too late by up to a step
            self.time_ns = -(-until_ns // STEP_NS) * STEP_NS
        return []


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "WINDOWS", True)
    monkeypatch.setattr(clock, "MARGIN_NS", 20 * MS)


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("deadline_ms", [0, 1, 5, 19, 20, 21, 40, 100, 333])
def test_a_deadline_is_met_though_select_is_coarse(deadline_ms: int) -> None:
    machine = Coarse()
    assert machine.wait(machine, deadline_ms * MS) == []  # type: ignore[arg-type]
    assert machine.now_ns() == deadline_ms * MS
    assert max(machine.sleeps_ns, default=0) <= NAP_NS


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("attentive", [False, True])
@pytest.mark.parametrize("arrives_ns", [0, 3 * MS, 17 * MS, 18 * MS + 1, 33 * MS, 59 * MS + 7])
def test_a_socket_is_seen_within_a_millisecond(arrives_ns: int, attentive: bool) -> None:
    machine = Coarse(arrives_ns)
    assert machine.wait(machine, 60 * MS, attentive=attentive) == [machine.key]  # type: ignore[arg-type]
    assert arrives_ns <= machine.now_ns() <= arrives_ns + NAP_NS


@pytest.mark.usefixtures("windows")
def test_a_deadline_that_has_passed_costs_one_look() -> None:
    machine = Coarse(arrives_ns=0)
    machine.time_ns = 50 * MS
    assert machine.wait(machine, 40 * MS) == [machine.key]  # type: ignore[arg-type]
    assert machine.wait(machine, 40 * MS) == []  # type: ignore[arg-type]
    assert (machine.now_ns(), machine.sleeps_ns) == (50 * MS, [])


def test_where_select_is_fine_the_last_moment_is_slept_at_once() -> None:
    machine = Coarse()
    assert machine.wait(machine, 1 * MS) == []  # type: ignore[arg-type]
    assert machine.sleeps_ns == [1 * MS]
