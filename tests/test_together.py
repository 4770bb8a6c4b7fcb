"""Two processes that share the tests: side by side, but for a test that needs the machine to itself."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import tools
from rawclient import until
from together import Turns

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there tests run one after another")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Turns, Turns]]:
    """What two processes have; locks are between open files, and so between these two as well."""
    turns = Turns(tmp_path), Turns(tmp_path)
    yield turns
    for each in turns:
        each.close()


class Waiting:
    """Someone on a thread who waits for a turn, and has it until told."""

    def __init__(self, turns: Turns, *, alone: bool = False) -> None:
        self._turns, self._alone = turns, alone
        self.begun, self.over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._turns.turn(alone=self._alone):
            self.begun.set()
            self.over.wait(60)

    def __enter__(self) -> Waiting:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_tests_go_on_side_by_side(pair: tuple[Turns, Turns]) -> None:
    with pair[0].turn(), pair[1].turn():
        pass


@pytest.mark.parametrize("first", [True, False])
def test_one_that_is_to_be_alone_waits_and_is_waited_for(pair: tuple[Turns, Turns], first: bool) -> None:
    with ExitStack() as stack:
        with pair[0].turn(alone=first):
            other = stack.enter_context(Waiting(pair[1], alone=not first))
            assert not other.begun.wait(0.1)
        assert other.begun.wait(60)


def test_a_row_of_them_is_one_turn(pair: tuple[Turns, Turns]) -> None:
    with ExitStack() as stack:
        with pair[0].turn(alone=True, following=True):
            other = stack.enter_context(Waiting(pair[1]))
        assert not other.begun.wait(0.1)
        with pair[0].turn(alone=True):
            assert not other.begun.wait(0.1)
        assert other.begun.wait(60)


def test_one_that_waits_to_be_alone_is_not_overtaken_for_ever(pair: tuple[Turns, Turns], tmp_path: Path) -> None:
    third = Turns(tmp_path)
    with ExitStack() as stack:
        with pair[0].turn():
            alone = stack.enter_context(Waiting(pair[1], alone=True))
            assert not alone.begun.wait(0.1)
            late = stack.enter_context(Waiting(third))
            assert not late.begun.wait(0.1), "it lines up behind"
        until(lambda: alone.begun.is_set() and not late.begun.is_set())
        alone.over.set()
        assert late.begun.wait(60)
    third.close()


SUITE = """
import os, time
from pathlib import Path
import pytest

HERE = Path(__file__).parent

def beside():
    (HERE / f"in-{os.getpid()}").touch()
    time.sleep(0.05)
    seen = len(list(HERE.glob("in-*")))
    (HERE / f"in-{os.getpid()}").unlink()
    return seen

@pytest.mark.parametrize("n", range(5))
def test_side_by_side(n):
    assert beside() <= 2

@pytest.mark.alone
@pytest.mark.parametrize("n", range(5))
def test_alone(n):
    assert beside() == 1

def test_last():
    assert not HERE
"""


def test_a_run_of_two_processes_keeps_the_turns_and_tells_what_failed(tmp_path: Path) -> None:
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(SUITE)
    here = Path(__file__).parent
    (tmp_path / "conftest.py").write_text((here / "conftest.py").read_text())
    done = tools.finished(
        sys.executable, "-m", "pytest", "-c", here.parent / "pyproject.toml", "--rootdir", tmp_path, "-q",
        "-p", "no:cacheprovider", "--require-all", "-n", "2", "--dist", "loadfile", tmp_path,
        env={"PYTHONPATH": str(here), "PYTEST_ADDOPTS": None, "PYTEST_XDIST_WORKER": None},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed, 20 passed" in done.stdout
