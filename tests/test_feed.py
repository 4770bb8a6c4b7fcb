"""A source read ahead of need: order, bounds, rewinding, what a source raises in mid-stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rawclient import until

from avlab.stream.handle import Worker
from avlab.stream.sending.feed import Feed, Line


class Run:
    """A feed on its thread; `units` takes until the end, as the server does."""

    def __init__(self, passes: Callable[[], Iterator[int]], ahead: int = 2, live: bool = False) -> None:
        self.ready = threading.Event()
        self.feed: Feed[int] = Feed(passes, ahead=ahead, ready=self.ready.set, live=live)
        self.worker = Worker("feed", self.feed.run, wake=self.feed.wake)
        self.worker.start()

    def take(self) -> int | None:
        """The next unit, waited for; None at the end."""
        while True:
            self.ready.clear()
            unit = self.feed.take()
            if unit is not None or self.feed.ended:
                return unit
            assert self.ready.wait(60), "the feed never called ready"

    def units(self) -> list[int]:
        return list(iter(self.take, None))

    def stop(self) -> None:
        self.worker.signal()
        assert self.worker.join(10)


@pytest.fixture
def run() -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def make(passes: Callable[[], Iterator[int]], ahead: int = 2, live: bool = False) -> Run:
        runs.append(Run(passes, ahead, live))
        return runs[-1]

    yield make
    for one in runs:
        one.stop()


@pytest.mark.parametrize("ahead", [1, 2, 8])
def test_every_unit_comes_in_order_and_then_the_end(run: Callable[..., Run], ahead: int) -> None:
    feed = run(lambda: iter(range(200)), ahead)
    assert feed.units() == list(range(200))
    assert feed.feed.ended
    assert feed.feed.error is None
    assert feed.feed.take() is None


def test_the_source_is_read_no_further_than_asked(run: Callable[..., Run]) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for unit in range(100):
            read.append(unit)
            yield unit

    feed = run(source, 3)
    assert feed.take() == 0
    until(lambda: len(read) == 5)  # one taken, three in the queue, one in hand
    assert not feed.ready.wait(0.05)
    assert len(read) == 5


def test_rewinding_begins_again_and_forgets_what_was_read(run: Callable[..., Run]) -> None:
    feed = run(lambda: iter(range(10)))
    for taken in (0, 1, 4, 10):
        assert [feed.take() for _ in range(taken)] == list(range(taken))
        feed.feed.rewind()
    assert feed.units() == list(range(10))
    feed.feed.rewind()
    assert not feed.feed.ended
    assert feed.units() == list(range(10))


def test_a_source_is_closed_when_it_is_left(run: Callable[..., Run]) -> None:
    closed: list[int] = []

    def source() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(1)

    feed = run(source)
    assert feed.take() == 0
    feed.feed.rewind()
    until(lambda: len(closed) == 1)
    assert feed.take() == 0
    feed.stop()
    assert len(closed) == 2


def test_what_came_before_an_error_is_given_first(run: Callable[..., Run]) -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise ValueError("no more")

    feed = run(source, 2)
    assert feed.units() == list(range(5))
    assert feed.feed.ended
    assert str(feed.feed.error) == "no more"
    assert feed.worker.error is None
    feed.feed.rewind()
    assert feed.feed.error is None
    assert feed.units() == list(range(5))


def fail() -> int:
    raise ValueError("nothing at all")


def test_a_source_that_gives_nothing_but_an_error_fails_its_thread(run: Callable[..., Run]) -> None:
    def source() -> Iterator[int]:
        yield from iter(fail, 0)

    feed = run(source)
    assert feed.worker.join(10)
    assert str(feed.worker.error) == "nothing at all"


def test_stopping_while_the_queue_is_full(run: Callable[..., Run]) -> None:
    feed = run(lambda: iter(range(100)), 1)
    assert feed.take() == 0
    feed.stop()
    assert feed.worker.error is None


def test_a_unit_that_comes_just_after_the_look_is_told_of(run: Callable[..., Run]) -> None:
    """Between finding the queue empty and saying so, a unit may be put: its `ready` must not be missed."""
    looked, gone_on = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        assert looked.wait(60)
        yield 7
        gone_on.set()  # the unit is in the queue, and `ready` was called or never will be

    class Slow(Line[Any]):
        def take(self) -> Any:
            if (unit := super().take()) is None:
                looked.set()
                assert gone_on.wait(60)
            return unit

    feed = run(source)
    feed.feed.line = Slow(2)
    assert feed.feed.take() is None
    assert feed.ready.is_set()
    assert feed.take() == 7


def test_no_unit_is_waited_for_in_vain(run: Callable[..., Run]) -> None:
    """`ready` is called for every unit that a take has missed, however taking and putting fall together."""
    feed = run(lambda: iter(range(5000)), 1)
    assert feed.units() == list(range(5000))  # Run.take fails when `ready` is missed once


def test_a_live_source_is_read_from_the_first_taker_to_the_last(run: Callable[..., Run]) -> None:
    opened: list[int] = []
    closed: list[int] = []

    def source() -> Iterator[int]:
        opened.append(1)
        try:
            yield from range(10_000)
        finally:
            closed.append(1)

    feed = run(source, live=True)
    for turn in (1, 2, 3):
        assert feed.feed.take() is None
        assert not feed.ready.wait(0.05)
        assert len(opened) == len(closed) == turn - 1, "nobody takes: nothing is open"
        feed.feed.begin()
        feed.feed.begin()
        assert [feed.take() for _ in range(5)] == [0, 1, 2, 3, 4]
        assert len(opened) == turn
        feed.feed.rewind()
        until(lambda turn=turn: len(closed) == turn)


def test_what_is_no_live_source_is_read_ahead_of_its_taker(run: Callable[..., Run]) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for unit in range(10):
            read.append(unit)
            yield unit

    feed = run(source)
    until(lambda: len(read) == 3)
    feed.feed.begin()
    assert feed.units() == list(range(10))
    assert read == list(range(10))
