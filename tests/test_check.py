"""Predictions and checks: each mistake of a student's is told in a sentence that names it, and nothing is raised."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from rawclient import until
from tools import without_addresses

import avlab
from avlab import Aimd, Choice, Report
from avlab.lab import check
from avlab.lab.plots import runs as plots
from avlab.stream.handle import Handle, Worker, untold_errors


@pytest.fixture(autouse=True)
def hooks_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `begin` puts in place of Python's own hooks is this test's alone."""
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    monkeypatch.setattr("sys.unraisablehook", lambda _args: None)
    monkeypatch.setattr("avlab.lab.check.leftovers.watching", False)
    yield
    untold_errors()


# ---- predictions


@pytest.mark.parametrize("value", [12_000, 12.5, np.float64(3), np.int64(3), -4, 0])
def test_a_prediction_is_any_finite_number(value: Any) -> None:
    guess = avlab.predict("bytes a frame", value, "bytes")
    assert guess.value == value
    assert "you say" in repr(guess)


@pytest.mark.parametrize("value", ["12", "12 bytes", True, [1], 1j])
def test_a_prediction_that_is_no_number_is_told_so(value: Any) -> None:
    with pytest.raises(TypeError, match="a prediction is one number"):
        avlab.predict("bytes a frame", value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prediction_is_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        avlab.predict("bytes a frame", value)


@pytest.mark.parametrize("value", [..., None])
def test_without_a_prediction_nothing_is_drawn_and_nothing_held_against_anyone(value: Any) -> None:
    guess = avlab.predict("bytes a frame", value)
    assert "Put a number in place of ..." in repr(guess)
    figure = plots.gaps({"clip": [0, 0.1, 0.25]})
    lines = len(figure.axes[0].lines)
    assert guess.on(figure) is figure
    assert len(figure.axes[0].lines) == lines
    assert guess.against(3).text == "bytes a frame: it is 3. You made no prediction."


@pytest.mark.parametrize(
    ("said", "measured", "words"),
    [
        (12_000, 10_000, "you said 12,000 bytes, it is 10,000 bytes. That was 20 % too high."),
        (5_000, 10_000, "That was 50 % too low."),
        (30_000, 10_000, "That was 3 times too much."),
        (10_000, 10_000, "you said 10,000 bytes, and so it is."),
        (5, 0, "That was 5 bytes too high."),
        (-5, 10, "That was 15 bytes too low."),
        (-5, 0.1, "you said \N{MINUS SIGN}5 bytes, it is 0.1 bytes. That was 5.1 bytes too low."),
    ],
)
def test_a_prediction_is_compared_in_a_sentence(said: float, measured: float, words: str) -> None:
    verdict = avlab.predict("size", said, "bytes").against(measured)
    assert verdict.text.endswith(words)
    assert verdict.passed is None
    assert verdict
    assert verdict.text in repr(verdict)


@pytest.mark.parametrize(("axis", "value"), [("y", 120), ("y", 80), ("x", 0.15)])
def test_a_prediction_is_drawn_as_a_line_within_sight(axis: Any, value: float) -> None:
    figure = avlab.predict("gap", value, "ms").on(plots.gaps({"clip": [0, 0.1, 0.25]}), axis=axis)
    ax = figure.axes[0]
    line = ax.lines[-1]
    where = line.get_ydata() if axis == "y" else line.get_xdata()
    assert list(where) == [value, value]  # type: ignore[arg-type]
    low, high = ax.get_ylim() if axis == "y" else ax.get_xlim()
    assert low < value < high
    assert f"you said {value:g} ms" in [text.get_text() for text in ax.texts]
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("axis", "value", "sign"), [("y", 1e6, "↑"), ("y", -1e6, "↓"), ("x", 99, "→"), ("x", -99, "←")]
)
def test_a_prediction_far_off_is_pointed_to_and_flattens_nothing(axis: Any, value: float, sign: str) -> None:
    plain = plots.gaps({"clip": [0, 0.1, 0.25]})
    limits = plain.axes[0].get_ylim(), plain.axes[0].get_xlim()
    ax = avlab.predict("gap", value).on(plain.axes[0], axis=axis).axes[0]
    assert (ax.get_ylim(), ax.get_xlim()) == limits
    assert sign in ax.texts[-1].get_text()


# ---- functions


def double(x: float) -> Any:
    return 2 * x


def forgets(x: float) -> Any:
    double(x)


def unwritten(x: float) -> Any:
    return ...


def fails(x: float) -> Any:
    return x / 0


@pytest.mark.parametrize(
    ("work", "passed", "words"),
    [
        (double, True, "double is right in all 2 cases."),
        (lambda x: x + 1, False, "<lambda>(0) gives 1 and should give 0."),
        (forgets, False, "forgets(0) returns nothing: is there a return?"),
        (unwritten, False, "unwritten(0) is not written yet: put your own in place of ..."),
        (fails, False, "fails(0) fails with ZeroDivisionError: division by zero."),
        (lambda: 1, False, "<lambda>(0) fails with TypeError"),
        (7, False, "7 is no function"),
        (lambda x: "two", False, "<lambda>(0) gives 'two' and should give 0."),
    ],
)
def test_what_is_wrong_with_a_function_is_told(work: Any, passed: bool, words: str) -> None:
    verdict = check.function(work, {0: 0, 3: 6})
    assert verdict.passed is passed
    assert bool(verdict) is passed
    assert words in verdict.text


def test_cases_may_have_several_arguments_and_arrays() -> None:
    assert check.function(lambda a, b: a + b, {(1, 2): 3, (0.1, 0.2): 0.3})
    assert check.function(lambda x: np.arange(x), {3: np.array([0, 1, 2])})
    assert not check.function(lambda x: np.arange(x), {3: np.array([0, 1, 9])})


# ---- rules


def nudge(delay: float, measured_fps: float, target_fps: float) -> Any:
    return delay + (0.001 if measured_fps > target_fps else -0.001)


def backwards(delay: float, measured_fps: float, target_fps: float) -> Any:
    return max(0.0, delay - (0.001 if measured_fps > target_fps else -0.001))


def lazy(delay: float, measured_fps: float, target_fps: float) -> Any:
    return 0.05


def hasty(delay: float, measured_fps: float, target_fps: float) -> Any:
    return max(0.0, delay - 0.001)


def nothing(delay: float, measured_fps: float, target_fps: float) -> Any:
    delay + 0.001


def later(delay: float, measured_fps: float, target_fps: float) -> Any:
    return ...


def broken(delay: float, measured_fps: float, target_fps: float) -> Any:
    return delay + missing  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("work", "passed", "words"),
    [
        (avlab.pi_rule, True, "pi_rule works: at 30 and 24 fps it settles within"),
        (backwards, False, "fps on average). Does the delay grow when measured_fps is above target_fps"),
        (hasty, False, "hasty lets its wait run out in"),
        (lazy, False, "lazy never settles within 2 % of 30 fps"),
        (nudge, False, "nudge settles, but slides: at 24 fps it falls behind by"),
        (nothing, False, "nothing returns nothing: is there a return?"),
        (later, False, "later is not written yet"),
        (broken, False, "NameError: name 'missing' is not defined"),
        (lambda delay: delay, False, "must take (delay, measured_fps, target_fps)"),
        (0.03, False, "Rule must be a function of (delay, measured_fps, target_fps), not 0.03"),
    ],
)
def test_what_is_wrong_with_a_rule_is_told(work: Any, passed: bool, words: str) -> None:
    verdict = check.rule(work, seconds=20)
    assert verdict.passed is passed
    assert words in verdict.text


# ---- rate controllers


class _By:
    """A controller that does what a function says."""

    def __init__(self, update: Callable[[Report], Any]) -> None:
        self.update = update


class _Deaf:
    """It has no update."""


class _Late:
    """It waits for loss."""

    def update(self, report: Report) -> Choice:
        if report.loss > 0:
            return Choice(max(10, int(report.quality * 0.7)), report.width)
        return Choice(min(80, report.quality + 2), report.width)


class _Ahead:
    """It looks at the round trip, as a student might."""

    def __init__(self) -> None:
        self.shortest = 9.0

    def update(self, report: Report) -> Choice | None:
        if report.round_trip is None:
            return None
        self.shortest = min(self.shortest, report.round_trip)
        queue = report.round_trip - self.shortest
        step = -10 if queue > 0.05 else 1 if queue < 0.02 else 0
        return Choice(min(80, max(10, report.quality + step)), report.width)


@pytest.mark.parametrize(
    ("work", "passed", "words"),
    [
        (Aimd(), True, "Aimd works: on paths of "),
        (_Ahead, True, "_Ahead works: "),
        (_Late(), False, "The round trip grows before anything is lost"),
        (_By(lambda report: Choice(79 + report.quality % 2, 640)), False, "_By lets a queue stand: when the path"),
        (_By(lambda _report: Choice(50, 640)), False, "_By always chooses quality 50 and width 640"),
        (_By(lambda _report: None), False, "_By never chooses anything. "),
        (_By(lambda report: Choice(11 - report.quality % 2, 160)), False, "_By is too modest: "),
        (_By(lambda _report: ...), False, "_By.update is not written yet"),
        (_By(lambda _report: 50), False, "_By.update returned 50: it is to return Choice(quality=..., width=...)"),
        (_By(lambda _report: (50, 640.0)), False, "Width must be a whole number"),
        (_By(lambda report: Choice(report.quality - 30, 640)), False, "Quality must be"),
        (_By(lambda _report: 1 / 0), False, "_By.update fails with ZeroDivisionError: division by zero, when "),
        (_Deaf(), False, "is no controller: it wants a class with a method update(self, report)"),
        (_By, False, "_By fails with TypeError"),
        (0.5, False, "0.5 is no controller"),
    ],
    ids=without_addresses,
)
def test_what_is_wrong_with_a_controller_is_told(work: Any, passed: bool, words: str) -> None:
    verdict = check.controller(work)
    assert words in verdict.text
    assert bool(verdict) is passed


# ---- receivers


def exactly(sock: Any, size: int) -> Any:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return data


def once(sock: Any, size: int) -> Any:
    return sock.recv(size)


def greedy(sock: Any, size: int) -> Any:
    data = b""
    while len(data) < size:
        data += sock.recv(4096)
    return data[:size]


def endless(sock: Any, size: int) -> Any:
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data))
    return data


def short(sock: Any, size: int) -> Any:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def insatiable(sock: Any, size: int) -> Any:
    data = b""
    while len(data) <= size:
        data += sock.recv(size)
    return data


@pytest.mark.parametrize(
    ("work", "passed", "words"),
    [
        (exactly, True, "exactly is right"),
        (once, False, "of 10 bytes that come as 4 and 6, it returns b'ieqh': recv returns what is there"),
        (greedy, False, "takes some of the next message"),
        (endless, False, "goes on for ever when the connection ends after 4 of 10 bytes"),
        (short, False, "when the connection ends after 4 of 10 bytes: raise ConnectionError, or nobody notices"),
        (insatiable, False, "goes on reading"),
        (lambda sock, size: None, False, "returns nothing"),
        (lambda sock, size: ..., False, "is not written yet"),
        (lambda sock: b"", False, "fails with TypeError"),
        (None, False, "None is no function"),
    ],
)
def test_what_is_wrong_with_a_receiver_is_told(work: Any, passed: bool, words: str) -> None:
    verdict = check.receiver(work, seed=1)
    assert verdict.passed is passed
    assert words in verdict.text


# ---- what is left


class Failing(Handle):
    def _begin(self) -> None:
        self.spawn("failing", self._fall)

    def _fall(self, _worker: Worker) -> None:
        raise RuntimeError("it fell over")


class Idle(Handle):
    def _begin(self) -> None:
        self.spawn("idle", lambda worker: worker.stopping.wait(30) and None)


def test_nothing_left_is_said_so() -> None:
    check.begin()
    assert check.nothing_left().text.startswith("Nothing is left")


def test_a_handle_that_runs_is_named_and_begin_ends_it() -> None:
    check.begin()
    handle = Idle().start()
    verdict = check.nothing_left()
    assert not verdict
    assert "still runs: stop() it, or avlab.stop_all()" in verdict.text
    check.begin()
    assert not handle.running
    assert check.nothing_left()


def test_an_error_that_nobody_was_told_of_is_told_and_only_once() -> None:
    check.begin()
    handle = Failing().start()
    until(lambda: not handle.running)
    avlab.stop_all()
    verdict = check.nothing_left()
    assert not verdict
    assert "nobody was told of this error: RuntimeError: it fell over." in verdict.text.lower().replace(
        "runtimeerror", "RuntimeError"
    )
    assert check.nothing_left()


@pytest.mark.parametrize("how", [lambda handle: handle.stop(), lambda handle: handle.wait(60)])
def test_an_error_that_was_raised_is_no_surprise(how: Callable[[Handle], None]) -> None:
    check.begin()
    handle = Failing().start()
    with pytest.raises(RuntimeError, match="fell over"):
        how(handle)
    handle.stop()
    assert check.nothing_left()


def test_an_exception_in_a_students_thread_is_told() -> None:
    check.begin()
    thread = threading.Thread(target=lambda: 1 / 0, name="mine")
    thread.start()
    thread.join(10)
    verdict = check.nothing_left()
    assert verdict.text == "Thread mine failed with ZeroDivisionError: division by zero."
    assert check.nothing_left()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_socket_left_open_is_named_with_its_address(kind: socket.SocketKind) -> None:
    before = socket.socket(type=kind)
    check.begin()
    assert check.nothing_left()
    sock = socket.socket(type=kind)
    sock.bind(("127.0.0.1", 0))
    verdict = check.nothing_left()
    sock.close()
    before.close()
    assert f"{'UDP' if kind == socket.SOCK_DGRAM else 'TCP'} 127.0.0.1:" in verdict.text
    assert "close() it, or make it with a with statement" in verdict.text
    assert check.nothing_left()


def test_a_verdict_in_the_page_is_text_and_nothing_else() -> None:
    page = check.Verdict(False, "<b>a & b</b>\nsecond")._repr_html_()
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;<br>second" in page
