"""What is looked through on one thread while others add to it: no error, and nothing lost."""

from __future__ import annotations

import gc
import threading

import pytest

from avlab.stream.handle import Handle, running_handles, stop_all, untold_errors
from avlab.stream.registry import Registry


class Thing:
    pass


def test_it_keeps_nothing_alive() -> None:
    registry: Registry[Thing] = Registry()
    kept, dropped = Thing(), Thing()
    for thing in (kept, dropped, kept):
        registry.add(thing)
    assert len(registry.all()) == 2
    del thing, dropped
    gc.collect()
    assert registry.all() == [kept]
    registry.discard(kept)
    registry.discard(kept)
    assert registry.take() == []


@pytest.mark.parametrize("look", ["all", "take"])
def test_many_add_while_others_look(look: str) -> None:
    registry: Registry[Thing] = Registry()
    things = [[Thing() for _ in range(2000)] for _ in range(4)]
    together = threading.Barrier(6)
    errors: list[BaseException] = []
    taken: list[Thing] = []

    def add(mine: list[Thing]) -> None:
        together.wait(30)
        for thing in mine:
            registry.add(thing)
        for thing in mine[::2]:
            registry.discard(thing)

    def read() -> None:
        together.wait(30)
        try:
            for _ in range(300):
                taken.extend(getattr(registry, look)())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(mine,)) for mine in things]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    wanted = {id(thing) for mine in things for thing in mine[1::2]}
    assert wanted <= {id(thing) for thing in [*taken, *registry.all()]}


def test_handles_start_and_stop_while_others_look() -> None:
    """As when a notebook's cells, its buttons and a sweep's threads all begin something at once."""
    over = threading.Event()
    together = threading.Barrier(5)
    errors: list[BaseException] = []

    def begin() -> None:
        together.wait(30)
        try:
            for _ in range(200):
                with Handle():
                    pass
        except BaseException as error:
            errors.append(error)

    def look() -> None:
        together.wait(30)
        try:
            while not over.is_set():
                running_handles()
                untold_errors()
        except BaseException as error:
            errors.append(error)

    beginners = [threading.Thread(target=begin) for _ in range(3)]
    lookers = [threading.Thread(target=look) for _ in range(2)]
    for thread in (*beginners, *lookers):
        thread.start()
    for thread in beginners:
        thread.join(60)
    over.set()
    for thread in lookers:
        thread.join(60)
    assert errors == []
    stop_all()
    assert running_handles() == []
