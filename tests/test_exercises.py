"""What the notebooks ask for: right answers of several kinds pass, typical wrong ones fail with a hint that fits.

Cases come of a seed: each answer is held against several.
"""

from __future__ import annotations

import base64
import contextlib
import io
import math
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tools import without_addresses

import avlab
from avlab import Choice, Report, check
from avlab.lab.check.patience import LIMIT_S
from avlab.lab.predictions import Verdict
from avlab.network.ratecontrol import Aimd

SEEDS = (1, 2, 3)


def wrong(verdict: Verdict, words: str) -> None:
    assert verdict.passed is False, verdict
    assert words in verdict.text


# ---- functions: notebooks 00, 01, 02, 05, 06


def sorted_first(times: list[float]) -> float:
    times.sort()
    return (len(times) - 1) / (times[-1] - times[0])


def a_loop(size: int) -> int:
    count = 0
    while size > 0:
        size, count = size - 1_162, count + 1
    return count


def halving(n: int, shown: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        low, high = (p, high) if (1 - p) ** n > shown else (low, p)
    return low


def a_buffer_that_runs_out(ms: float, ppm: float) -> float:
    return ms / 1_000 / (ppm / 1_000_000)


def geometric(n: int, p: float, frames: int) -> float:
    whole = (1 - p) ** n
    return whole * (1 - whole**frames) / (1 - whole) / frames


def picture_by_picture(n: int, p: float, frames: int) -> float:
    good, total = 1.0, 0.0
    for _ in range(frames):
        good *= (1 - p) ** n
        total += good
    return total / frames


def product_of_three(shown: float, size: float, delay: float) -> float:
    detail = min(1, max(0, math.log2(size / 1_000) / 5))
    return 100 * shown * detail * min(1, max(0, (0.4 - delay) / 0.25))


def by_cases(shown: float, size: float, delay: float) -> float:
    doublings = np.clip(np.log(size / 1_000) / np.log(2), 0, 5)
    if delay >= 0.4:
        return 0
    late = 0.0 if delay <= 0.15 else (delay - 0.15) / 0.25
    return float(20 * shown * doublings * (1 - late))


def as_a_mean(shown: float, size: float, delay: float) -> float:
    detail = min(1, max(0, math.log2(size / 1_000) / 5))
    return 100 * (shown + detail + min(1, max(0, (0.4 - delay) / 0.25))) / 3


def without_limits(shown: float, size: float, delay: float) -> float:
    return 100 * shown * math.log2(size / 1_000) / 5 * (0.4 - delay) / 0.25


def by_another_logarithm(shown: float, size: float, delay: float) -> float:
    detail = min(1, max(0, math.log(size / 1_000) / 5))
    return 100 * shown * detail * min(1, max(0, (0.4 - delay) / 0.25))


def the_middles_apart(t1: float, t2: float, t3: float, t4: float) -> float:
    return statistics.fmean((t2, t3)) - statistics.fmean((t1, t4))


def under_way(t1: float, t2: float, t3: float, t4: float) -> float:
    there, back = t2 - t1, t4 - t3  # each with the clocks' offset, which falls out of their sum
    return (there + back) / 2


def by_numpy(numbers: list[int]) -> int:
    whole = np.unwrap(numbers, period=65_536)
    return int(np.ptp(whole)) + 1 - len(np.unique(whole))


def counted(numbers: list[int]) -> int:
    """The numbers from the first to the last."""
    return int(np.ptp(np.unwrap(numbers, period=65_536))) + 1


def around_the_clock(numbers: list[int]) -> int:
    """All that did not come, of those that lie ahead of the first one."""
    ahead = {(number - numbers[0] + 100) % 65_536 for number in numbers}
    return sum(each not in ahead for each in range(min(ahead), max(ahead)))


def sum_of_gaps(numbers: list[int]) -> int:
    steps = np.diff(np.unwrap(numbers, period=65_536)).astype(int)
    return int(sum(step - 1 for step in steps if step > 1))


RIGHT: list[tuple[str, Callable[..., Any]]] = [
    ("packets", lambda size: -(-size // 1_162)),
    ("packets", lambda size: math.ceil(size / 1_162)),
    ("packets", lambda size: (size + 1_161) // 1_162),
    ("packets", a_loop),
    ("packets", lambda size: np.ceil(size / 1_162)),
    ("mean_fps", lambda times: (len(times) - 1) / (max(times) - min(times))),
    ("mean_fps", lambda times: 1 / np.mean(np.diff(sorted(times)))),
    ("mean_fps", lambda times: 1 / np.diff(np.sort(times)).mean()),
    ("mean_fps", sorted_first),
    ("base64_size", lambda count: (count + 2) // 3 * 4),
    ("base64_size", lambda count: len(base64.b64encode(bytes(count)))),
    ("base64_size", lambda count: 4 * math.ceil(count / 3)),
    ("most_loss", lambda n, shown: 1 - shown ** (1 / n)),
    ("most_loss", lambda n, shown: 1 - math.exp(math.log(shown) / n)),
    ("most_loss", halving),
    ("unspoilt", geometric),
    ("unspoilt", picture_by_picture),
    ("missing", by_numpy),
    ("missing", around_the_clock),
    ("lasts", lambda ms, ppm: 1_000 * ms / ppm),
    ("points", product_of_three),
    ("points", by_cases),
    ("lasts", a_buffer_that_runs_out),
    ("ahead", lambda t1, t2, t3, t4: ((t2 - t1) + (t3 - t4)) / 2),
    ("ahead", the_middles_apart),
    ("unsure", lambda t1, t2, t3, t4: ((t4 - t1) - (t3 - t2)) / 2),
    ("unsure", under_way),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "work"), RIGHT)
def test_a_right_answer_passes(name: str, work: Callable[..., Any], seed: int) -> None:
    verdict = getattr(check, name)(work, seed=seed)
    assert verdict.passed, verdict
    assert "is right in all" in verdict.text


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(sorted(times))]


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("packets", lambda size: size // 1_162, "What is left over takes a packet as well: round up."),
    ("packets", lambda size: size / 1_162, "There is no part of a packet"),
    ("packets", lambda size: round(size / 1_162), "however little it is: round up"),
    ("packets", lambda size: size // 1_162 + 1, "takes none for nothing"),
    ("packets", lambda size: -(-size // 1_200), "1,200 bytes, but not all of them are the frame's"),
    ("packets", lambda size: {1: 1, 1_162: 1, 1_163: 2, 14_000: 13}.get(size, 13), "should give"),
    ("packets", lambda size: ..., "not written yet"),
    ("packets", lambda size: None, "returns nothing: is there a return?"),
    ("mean_fps", lambda times: np.mean(1 / np.diff(sorted(times))), "Rates are not averaged, time is"),
    ("mean_fps", lambda times: (len(times) - 1) / (times[-1] - times[0]), "The list is in any order"),
    ("mean_fps", lambda times: len(times) / (max(times) - min(times)), "count the gaps"),
    ("mean_fps", lambda times: 1 / statistics.median(gaps(times)), "the gap in the middle"),
    ("mean_fps", lambda times: (max(times) - min(times)) / (len(times) - 1), "frames a second are wanted"),
    ("mean_fps", lambda times: (len(times) - 1) / (max(times) - min(times)) / 1_000, "a thousand times too little"),
    ("packets", lambda size: -(-size // 1_182), "1,182 bytes, but not all of them are the frame's"),
    ("packets", lambda size: math.ceil(size / 1_180), "1,180 bytes, but not all of them are the frame's"),
    ("packets", lambda size: math.ceil(size / 1_500), "1,500 bytes are not what avlab has in a packet"),
    ("packets", lambda size: str(-(-size // 1_162)), "That is text: a number is wanted"),
    ("packets", lambda size: range(0, size, 1_162), "as len says it"),
    ("packets", lambda size: 12, "It says the same whatever it is given."),
    ("mean_fps", lambda times: round((len(times) - 1) / (max(times) - min(times)), 2), "Leave out the rounding"),
    ("mean_fps", lambda times: (len(times) - 1) / max(times), "The first time need not be 0"),
    ("mean_fps", lambda times: 1 / np.mean(np.abs(np.diff(times))), "sort it before you take differences"),
    ("mean_fps", lambda times: len(times), "how many there are, whatever time they take"),
    ("mean_fps", lambda times: {3: 10, 4: 10}.get(len(times), 10), "should give"),
    ("base64_size", lambda count: count * 4 / 3, "Three begun are four whole ones"),
    ("base64_size", lambda count: count // 3 * 4, "take four as well: round up"),
    ("base64_size", lambda count: (count // 3 + 1) * 4, "Where nothing is left over, nothing is added"),
    ("base64_size", lambda count: len(base64.encodebytes(bytes(count))), "line ends"),
    ("base64_size", lambda count: {0: 0, 1: 4, 3: 4, 4: 8, 6_912: 9_216}.get(count), "returns nothing"),
    ("base64_size", lambda count: 1.33 * count, "three become four exactly"),
    ("base64_size", lambda count: math.ceil(count * 3 / 4), "The other way round: three bytes become four"),
    ("base64_size", lambda count: base64.b64encode(bytes(count)), "as len says it"),
    ("base64_size", lambda count: 32 * math.ceil(count / 3), "eight times too much: bits?"),
    (
        "missing",
        lambda numbers: (numbers[-1] - numbers[0]) % 65_536 + 1 - len(set(numbers)),
        "need not be the earliest",
    ),
    ("missing", lambda numbers: sum(b - a - 1 for a, b in pairwise(sorted(set(numbers)))), "After 65,535 comes 0"),
    ("missing", lambda numbers: 0, "It says the same whatever it is given."),
    ("missing", lambda numbers: max(numbers) - min(numbers) + 1 - len(set(numbers)), "After 65,535 comes 0"),
    ("missing", lambda numbers: numbers[-1] - numbers[0] + 1 - len(numbers), "And count each number once"),
    ("missing", lambda numbers: sum_of_gaps(numbers), "What comes late is no longer missing"),
    ("missing", lambda numbers: (numbers[-1] - numbers[0]) % 65_536 + 1 - len(numbers), "comes twice does not stand"),
    ("missing", lambda numbers: counted(numbers) - len(set(numbers)) - 1, "From 3 to 5 are three numbers"),
    ("missing", lambda numbers: len(set(numbers)), "how many came: how many did not"),
    ("missing", lambda numbers: 3, "should give"),
    ("missing", lambda numbers: ..., "not written yet"),
    ("unspoilt", lambda n, p, frames: (1 - p) ** n, "all those since the key frame"),
    ("unspoilt", lambda n, p, frames: (1 - p) ** (n * frames), "the earlier ones need fewer"),
    ("unspoilt", lambda n, p, frames: 1 - geometric(n, p, frames), "the share that is spoilt"),
    ("unspoilt", lambda n, p, frames: geometric(n, p, frames) / (1 - p) ** n, "own packets have to be there"),
    ("unspoilt", lambda n, p, frames: 100 * geometric(n, p, frames), "a hundred times too much"),
    ("unspoilt", lambda n, p, frames: (1 - p) ** (n * frames / 2), "the mean of powers is not the power of the mean"),
    ("unspoilt", lambda n, p, frames: 1 - n * p * frames / 2, "Chances multiply, they do not add up"),
    ("unspoilt", lambda n, p, frames: sum((1 - p) ** (n * at) for at in range(1, frames)) / frames, "one picture is"),
    ("most_loss", lambda n, shown: 1 - shown**1 / n, "1 / n wants parentheses"),
    ("most_loss", lambda n, shown: -math.log(shown) / n, "take the n-th root"),
    ("most_loss", lambda shown, n: 1 - shown ** (1 / n), "taken for each other"),
    ("most_loss", lambda n, shown: 1 - shown, "Asked is that of packets".lower()),
    ("most_loss", lambda n, shown: (1 - shown) / n, "chances multiply, they do not add up"),
    ("most_loss", lambda n, shown: shown ** (1 / n), "the share of packets that have to arrive"),
    ("most_loss", lambda n, shown: 100 * (1 - shown ** (1 / n)), "a hundred times too much: per cent?"),
    ("most_loss", lambda n, shown: {1: 0.01, 2: 0.1, 12: 0.0561}.get(n, 0.0), "should give"),
    ("lasts", lambda ms, ppm: ms / ppm, "A thousand times too little: ms are thousandths"),
    ("lasts", lambda ms, ppm: 1e6 * ms / ppm, "those are milliseconds"),
    ("lasts", lambda ms, ppm: 1_000 * ms / ppm / 60, "those are minutes"),
    ("lasts", lambda ms, ppm: ms * ppm / 1_000, "Does a buffer last longer when the clocks differ by more?"),
    ("lasts", lambda ms, ppm: ms * ppm, "Does a buffer last longer when the clocks differ by more?"),
    ("lasts", lambda ms, ppm: ppm / ms, "Upside down."),
    ("lasts", lambda ms, ppm: 1_000 * ms // ppm, "Leave out the rounding"),
    ("lasts", lambda ppm, ms: 1_000 * ms / ppm, "Upside down."),
    ("lasts", lambda ms, ppm: 500, "It says the same whatever it is given."),
    ("points", lambda shown, size, delay: product_of_three(1, size, delay), "however many frames are shown"),
    ("points", lambda shown, size, delay: 100 * product_of_three(shown, size, delay), "Points go to 100."),
    (
        "points",
        lambda shown, size, delay: min(1, size / 32_000) * product_of_three(shown, 32_000, delay),
        "Not each byte adds as much",
    ),
    ("points", as_a_mean, "they are multiplied"),
    ("points", without_limits, "stay between 0 and 1"),
    ("points", by_another_logarithm, "the logarithm to the base 2"),
    ("points", lambda shown, size, delay: product_of_three(shown, size, delay) / 100, "a share of 1: points go to 100"),
    ("points", lambda shown, size, delay: product_of_three(shown, size, 0.1), "however late a frame is"),
    ("points", lambda shown, size, delay: product_of_three(shown, size, delay / 1_000), "150 ms are 0.15"),
    ("points", lambda shown, size, delay: {1.0: 100.0}.get(shown, 40.0), "should give"),
    ("lasts", lambda ms, ppm: {(100, 200): 500, (100, 50): 2_000, (20, 200): 100}.get((ms, ppm), 500), "should give"),
    ("ahead", lambda t1, t2, t3, t4: t2 - t1, "That has the way there in it"),
    ("ahead", lambda t1, t2, t3, t4: ((t1 - t2) + (t4 - t3)) / 2, "The other way round"),
    ("ahead", lambda t1, t2, t3, t4: (t2 - t1) + (t3 - t4), "Twice too much"),
    ("ahead", lambda t1, t2, t3, t4: ((t4 - t1) - (t3 - t2)) / 2, "how unsure the answer is"),
    ("ahead", lambda t1, t2, t3, t4: ((t2 - t1) + (t3 - t4)) * 500, "a thousand times too much: milliseconds?"),
    ("ahead", lambda t1, t2, t3, t4: 0.3, "should give"),
    ("ahead", lambda t1, t2, t3, t4: t2 - t4, "compare the middles"),
    ("unsure", lambda t1, t2, t3, t4: t3 - t2, "That is how long the answer was kept"),
    ("unsure", lambda t1, t2, t3, t4: ((t4 - t1) + (t3 - t2)) / 2, "take it off"),
    ("unsure", lambda t1, t2, t3, t4: -((t4 - t1) - (t3 - t2)) / 2, "not less than 0"),
    ("unsure", lambda t1, t2, t3, t4: (t4 - t1) - (t3 - t2), "Twice too much"),
    ("unsure", lambda t1, t2, t3, t4: (t4 - t1) / 2, "The time that the answer was kept"),
    ("unsure", lambda t1, t2, t3, t4: ((t2 - t1) + (t3 - t4)) / 2, "asked is by how much it can be wrong"),
    ("unsure", lambda t1, t2, t3, t4: t2 - t1, "compare each clock with itself alone"),
    ("unsure", lambda t1, t2, t3, t4: 0.01, "should give"),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "work", "words"), WRONG)
def test_a_wrong_answer_fails_with_a_hint_that_fits(name: str, work: Callable[..., Any], words: str, seed: int) -> None:
    wrong(getattr(check, name)(work, seed=seed), words)


def test_a_hint_is_not_taken_from_a_single_small_case() -> None:
    """Of 1 byte many a mistake makes the same: what is wrong elsewhere decides, or nothing is said."""
    verdict = check.packets(lambda size: max(1, size // 2_000), seed=1)
    wrong(verdict, "should give")
    assert "round up" not in verdict.text
    assert "bytes" not in verdict.text


def test_two_numbers_that_look_alike_are_shown_in_full() -> None:
    verdict = check.function(lambda number: number * (1 + 3e-6), {24.0: 24.0})
    wrong(verdict, "gives 24.000072 and should give 24.0")


def spins(*_: Any) -> Any:
    while True:
        pass


async def waits(*_: Any) -> float:
    return 1.0


def yields(*_: Any) -> Any:
    yield 1.0


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (waits, "leave out async"),
        (yields, "put return in place of yield"),
        (spins, "spins had not returned after 1 s, and was stopped: is there a loop that never ends?"),
    ],
    ids=without_addresses,
)
@pytest.mark.parametrize("name", ["lasts", "packets", "receiver", "bursts", "target"])
def test_what_is_no_ordinary_function_is_told_so(name: str, work: Any, words: str) -> None:
    verdict = getattr(check, name)(work)
    wrong(verdict, words)
    assert work is not spins or verdict.text == words


def test_what_cannot_be_compared_in_time_is_told_in_the_checks_own_words() -> None:
    class Stands:
        def __eq__(self, _other: object) -> bool:
            spins()
            return False

        __hash__ = None  # type: ignore[assignment]

    verdict = check.lasts(lambda ms, ppm: Stands())
    wrong(verdict, "had not returned after 1 s")
    assert "WrongError" not in verdict.text


def test_a_right_answer_may_be_of_another_kind_of_number() -> None:
    assert check.lasts(lambda ms, ppm: Decimal(1_000 * ms) / ppm, seed=1).passed
    assert check.lasts(lambda ms, ppm: Fraction(1_000 * ms, ppm), seed=1).passed


@pytest.mark.parametrize(
    "name", ["packets", "mean_fps", "base64_size", "missing", "most_loss", "unspoilt", "lasts", "points", "receiver"]
)
def test_without_a_seed_the_cases_are_others_each_time(name: str) -> None:
    said = []
    for _ in range(2):
        asked: list[Any] = []

        def listens(*arguments: Any, asked: list[Any] = asked) -> Any:
            if name == "receiver":
                asked.append(arguments[0].recv(1_000_000))
                raise KeyError  # enough has been seen
            asked.append(str(arguments))
            return 1e9

        getattr(check, name)(listens)
        said.append(asked)
    assert said[0] != said[1]
    one, other = (getattr(check, name)(lambda *_: 1e9, seed=5).text for _ in range(2))
    assert one == other


# ---- pacing rules: notebook 03


def proportional(gain: float) -> Callable[[float, float, float], float]:
    def rule(delay: float, measured_fps: float, target_fps: float) -> float:
        return max(0.0, delay + gain * (1 / target_fps - 1 / measured_fps))

    return rule


class PaysBack:
    """Adds up the errors."""

    def reset(self) -> None:
        self.debt = 0.0

    def __call__(self, delay: float, measured_fps: float, target_fps: float) -> float:
        self.debt += 1 / target_fps - 1 / measured_fps
        return max(0.0, 1 / target_fps - 0.002 + self.debt)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("work", [proportional(0.3), proportional(1.0), avlab.pi_rule, PaysBack], ids=without_addresses)
def test_a_rule_that_does_not_slide_passes(work: Any, seed: int) -> None:
    verdict = check.rule(work, seed=seed)
    assert verdict.passed, verdict


def a_millisecond(delay: float, measured_fps: float, target_fps: float) -> float:
    return max(0.0, delay + (0.001 if measured_fps > target_fps else -0.001))


def of_fps(delay: float, measured_fps: float, target_fps: float) -> float:
    return max(0.0, delay + 0.0005 * (measured_fps - target_fps))


def for_thirty(delay: float, measured_fps: float, target_fps: float) -> float:
    return max(0.0, delay + 0.3 * (1 / 30 - 1 / measured_fps))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("work", "words"),
    [
        (avlab.tutorial_rule, "Its step is the same for a small error and a large one"),
        (a_millisecond, "ms a minute. Its step is the same for a small error and a large one"),
        (of_fps, "Count the error in seconds a frame"),
        (proportional(0.001), "It corrects by a 1,000th of the error"),
        (proportional(-0.3), "Does the delay grow when measured_fps is above target_fps"),
        (proportional(2.1), "is that step too large?"),
        (for_thirty, "never settles within 2 % of 24 fps"),
        (lambda delay, measured_fps, target_fps: delay, "The delay stays as it is"),
        (lambda delay, measured_fps, target_fps: 33.3, "is it in milliseconds? Seconds are wanted."),
        (lambda delay, measured_fps, target_fps: target_fps, "those are frames a second. The next delay is wanted"),
        (lambda delay, measured_fps, target_fps: None, "returns nothing: is there a return?"),
        (lambda delay, measured_fps, target_fps: delay + 1, "is it in milliseconds? Seconds are wanted."),
    ],
    ids=without_addresses,
)
def test_a_rule_that_slides_or_strays_is_told_why(work: Any, words: str, seed: int) -> None:
    verdict = check.rule(work, seed=seed)
    wrong(verdict, words)
    assert ("milliseconds?" in verdict.text) == ("milliseconds?" in words)


# ---- receivers: notebook 04


def by_pieces(sock: Any, size: int) -> bytes:
    pieces, missing = [], size
    while missing:
        pieces.append(sock.recv(min(missing, 4096)))
        if not pieces[-1]:
            raise ConnectionError("the end came early")
        missing -= len(pieces[-1])
    return b"".join(pieces)


def into_a_buffer(sock: Any, size: int) -> bytearray:
    sock.settimeout(5)
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = sock.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return data


def as_a_file(sock: Any, size: int) -> bytes:
    with sock.makefile("rb") as file:
        data: bytes = file.read(size)
    if len(data) < size:
        raise ConnectionError
    return data


def unbuffered(sock: Any, size: int) -> bytes:
    file = sock.makefile("rb", buffering=0)
    data = b""
    while len(data) < size:
        data += (piece := file.read(size - len(data)))
        if not piece:
            raise ConnectionAbortedError
    return data


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("work", [by_pieces, into_a_buffer, as_a_file, unbuffered])
def test_a_reader_that_reads_exactly_passes(work: Any, seed: int) -> None:
    verdict = check.receiver(work, seed=seed)
    assert verdict.passed, verdict
    assert ("reads ahead" in verdict.text) == (work is as_a_file)


@pytest.mark.parametrize("work", [by_pieces, into_a_buffer, as_a_file, unbuffered])
def test_what_passes_reads_a_real_connection(work: Any) -> None:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        sender.sendall(b"0123456789")
        assert bytes(work(receiver, 10)) == b"0123456789"
        sender.sendall(b"0123")
        sender.close()
        with pytest.raises((OSError, EOFError)):
            work(receiver, 10)


def ends_with_an_exception(sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise Exception("the end")
        data += piece
    return data


def takes_all(sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += sock.recv(4096)
    return data


def stops_at_the_end(sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def the_tutorials(sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data))
    return data


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda sock, size: sock.recv(size), "recv returns what is there, so go on until all have come"),
        (lambda sock, size: sock.makefile("rb", buffering=0).read(size), "recv returns what is there"),
        (takes_all, "never ask recv for more than is still missing"),
        (the_tutorials, "goes on for ever when the connection ends after 4 of 10 bytes"),
        (stops_at_the_end, "raise ConnectionError, or nobody notices"),
        (ends_with_an_exception, "raise ConnectionError, which tells"),
        (lambda sock, size: [sock.recv(1) for _ in range(size)], "join them, as in b''.join(pieces)"),
        (lambda sock, size: b"0123456789"[:size], "it returns"),
    ],
)
def test_a_reader_that_does_not_is_told_why(work: Any, words: str, seed: int) -> None:
    wrong(check.receiver(work, seed=seed), words)


# ---- rate controllers: notebook 07


class Halves:
    """Remembers the shortest round trip, and halves the quality when it has grown by 30 ms."""

    def __init__(self) -> None:
        self.shortest = math.inf

    def update(self, report: Report) -> Choice | None:
        if report.round_trip is None:
            return None
        self.shortest = min(self.shortest, report.round_trip)
        if report.round_trip - self.shortest > 0.03:
            return Choice(max(10, report.quality // 2), report.width)
        return Choice(min(80, report.quality + 2), report.width)


class Narrows(Halves):
    """The same with the width."""

    def update(self, report: Report) -> Choice | None:
        if report.round_trip is None:
            return None
        self.shortest = min(self.shortest, report.round_trip)
        if report.round_trip - self.shortest > 0.03:
            return Choice(report.quality, max(160, int(report.width * 0.75)))
        return Choice(report.quality, min(640, report.width + 16))


class OnlyDown(Halves):
    """It never tries more again."""

    def update(self, report: Report) -> Choice | None:
        choice = super().update(report)
        return choice if choice is not None and choice.quality < report.quality else None


class WaitsForLoss:
    def update(self, report: Report) -> Choice:
        if report.loss > 0:
            return Choice(max(10, int(report.quality * 0.7)), report.width)
        return Choice(min(80, report.quality + 2), report.width)


class Always:
    def update(self, report: Report) -> Choice:
        return Choice(50, 640)


class ByTheClock:
    """What would fit one path, at the times at which that changes."""

    def update(self, report: Report) -> Choice:
        return Choice(20, 640) if 5 < report.time < 20 else Choice(80, 640)


class Steps:
    """A tenth down at a round trip that is long for any path, one up else: it remembers nothing."""

    def update(self, report: Report) -> Choice | None:
        if report.round_trip is None:
            return None
        return Choice(max(5, report.quality - 12) if report.round_trip > 0.1 else min(85, report.quality + 1), 640)


class Trend:
    """Goes by whether the round trip grows, and by how long it is."""

    def __init__(self) -> None:
        self.last = math.inf

    def update(self, report: Report) -> Choice | None:
        if report.round_trip is None:
            return None
        last, self.last = self.last, report.round_trip
        if report.round_trip > min(last + 0.02, 0.15):
            return Choice(max(8, int(report.quality * 0.6)), report.width)
        return Choice(min(80, report.quality + 1), report.width)


class LossToo(Halves):
    """Listens to both."""

    def update(self, report: Report) -> Choice | None:
        if report.loss > 0:
            return Choice(max(10, report.quality // 2), report.width)
        return super().update(report)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("work", [Halves, Narrows, Steps, Trend, LossToo, Aimd, Halves()], ids=without_addresses)
def test_a_sensible_controller_passes(work: Any, seed: int) -> None:
    verdict = check.controller(work, seed=seed)
    assert verdict.passed, verdict


class AtOtherTimes(ByTheClock):
    """What would fit the other path."""

    def update(self, report: Report) -> Choice:
        return Choice(25, 640) if 8 < report.time < 20 else Choice(80, 640)


class CreepsBack:
    """Halves at a loss, and is careful from then on: where a queue is short, that does."""

    def update(self, report: Report) -> Choice:
        if report.loss > 0:
            return Choice(max(10, report.quality // 2), report.width)
        return Choice(min(80, report.quality + 1), report.width)


class RemembersLoss:
    """Keeps below where there was a loss."""

    def __init__(self) -> None:
        self.most = 80

    def update(self, report: Report) -> Choice:
        self.most = int(report.quality * 0.6) if report.loss > 0 else min(80, self.most + 1)
        return Choice(max(5, self.most), report.width)


class HalvesAtLoss:
    def update(self, report: Report) -> Choice:
        if report.loss > 0:
            return Choice(max(10, report.quality // 2), report.width)
        return Choice(min(80, report.quality + 5), report.width)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("work", "words"),
    [
        (WaitsForLoss, "The round trip grows before anything is lost: go down when it does."),
        (HalvesAtLoss, "The round trip grows before anything is lost: go down when it does."),
        (CreepsBack, "CreepsBack waits for losses, and a long queue has none"),
        (RemembersLoss, "RemembersLoss waits for losses, and a long queue has none"),
        (Always, "Always always chooses quality 50 and width 640, whatever the report says"),
        (OnlyDown, "Try more again while the round trip is short."),
        (ByTheClock, "ByTheClock stays low: when the path takes"),
        (AtOtherTimes, "AtOtherTimes "),
    ],
)
def test_a_controller_that_does_not_listen_is_told_so(work: Any, words: str, seed: int) -> None:
    wrong(check.controller(work, seed=seed), words)


def test_a_controller_may_be_tried_on_one_path() -> None:
    wrong(check.controller(WaitsForLoss, seconds=20, rate=2_500), "WaitsForLoss lets the queue overflow: when the path")
    wrong(check.controller(WaitsForLoss, full=True, rate=2_500), "the queue overflow: on a path of 2,500 kbit/s")


@pytest.mark.parametrize("rate", [1_700, 2_000, 2_500, 3_000])
def test_a_controller_is_judged_alike_whatever_the_bottlenecks_take(rate: float) -> None:
    for sensible in (Halves, Aimd):
        verdict = check.controller(sensible, rate=rate)
        assert verdict.passed, verdict
    for mistaken in (Always, WaitsForLoss, CreepsBack, OnlyDown):
        assert check.controller(mistaken, rate=rate).passed is False


def test_what_has_never_seen_a_short_round_trip_is_told_that_and_not_that_it_does_not_look() -> None:
    wrong(check.controller(Halves, rate=2_000, full=True), "How would it know a round trip that is short")
    assert check.controller(Aimd, rate=1_000, full=True).passed


def test_quality_alone_does_not_go_down_far_enough_for_a_very_narrow_path() -> None:
    wrong(check.controller(Halves, rate=900), "Can the picture become narrower as well?")
    assert check.controller(Aimd, rate=1_000).passed


@pytest.mark.parametrize("rate", [0, -5, 3_300, 5_000])
def test_where_the_whole_stream_has_room_nothing_is_to_be_judged(rate: float) -> None:
    with pytest.raises(ValueError, match="the stream has 3,300 kbit/s, so a bottleneck takes less"):
        check.controller(Aimd, rate=rate)


# ---- settings of a challenge: notebook 09


CHALLENGES = [avlab.Challenge(word) for word in ("blue kettle", 2026)]


@pytest.mark.parametrize("challenge", CHALLENGES, ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"quality": 30, "repair": "rtx", "playout_delay": 0.08},
        {"quality": 40, "width": 560, "repair": "rtx"},
        {"quality": 10, "repair": "fec", "playout_delay": 0.06},
    ],
    ids=str,
)
def test_settings_that_suit_a_challenge_pass(challenge: avlab.Challenge, settings: dict[str, Any]) -> None:
    verdict = check.tuned(settings, challenge)
    assert verdict.passed, verdict
    assert f"{challenge.score(**settings).points:.1f} points" in verdict.text


@pytest.mark.parametrize("challenge", CHALLENGES, ids=str)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quality": 80, "playout_delay": 0.1}, "of the frames are shown: are they too large for the bottleneck"),
        ({"quality": 100, "repair": "rtx"}, "of the frames are shown: are they too large for the bottleneck"),
        ({"quality": 30, "repair": "rtx", "playout_delay": 0.4}, "beyond 150 that costs points"),
        ({"quality": 30, "width": 240, "repair": "rtx", "playout_delay": 0.08}, "have little detail"),
        ({"qualty": 30}, "'qualty' is no setting of a challenge: did you mean 'quality'?"),
        ({"quality": 300}, "The settings cannot be: quality must be"),
        ({"network": "wide"}, "that is the challenge's own"),
        ({"rate_control": Aimd}, "a 'rate_control' of your own: numbers and names are wanted here"),
        ({"quality": ...}, "have no 'quality' yet"),
        (..., "The settings are not written yet"),
        (30, "a dict is wanted"),
    ],
    ids=str,
)
def test_settings_that_do_not_are_told_why(challenge: avlab.Challenge, settings: Any, words: str) -> None:
    wrong(check.tuned(settings, challenge), words)


# ---- work that does not return


def spins_and_holds_on(*_: Any) -> Any:
    while True:
        with contextlib.suppress(Exception):
            spins()


def naps(*_: Any) -> Any:
    time.sleep(0.03)
    return 0.03


def in_a_class(work: Callable[..., Any]) -> Any:
    return type(work.__name__, (), {"update": work})


CHECKS: dict[str, Callable[[Any], Verdict]] = {
    "packets": lambda work: check.packets(work, seed=1),
    "function": lambda work: check.function(work, {number: number for number in range(100)}),
    "rule": check.rule,
    "receiver": lambda work: check.receiver(work, seed=1),
    "controller": lambda work: check.controller(in_a_class(work)),
    "part": lambda work: check.part("playout_delay", work),
}


@pytest.mark.parametrize("work", [spins, spins_and_holds_on])
@pytest.mark.parametrize("which", CHECKS)
def test_a_loop_that_never_ends_is_stopped_and_named(which: str, work: Callable[..., Any]) -> None:
    before = set(threading.enumerate())
    wrong(CHECKS[which](work), f"{work.__name__} had not returned after 1 s, and was stopped")
    assert set(threading.enumerate()) <= before


def test_a_rule_that_sleeps_is_told_to_leave_it_out() -> None:
    wrong(check.rule(naps), "it sleeps. Leave out time.sleep")
    wrong(check.controller(in_a_class(lambda _self, _report: time.sleep(0.2))), "it sleeps")
    wrong(check.part("network", lambda _packet, _state: time.sleep(0.2) is None), "it sleeps. Leave out time.sleep")


@pytest.mark.parametrize("which", CHECKS)
def test_what_cannot_be_stopped_is_named_and_left_behind(which: str) -> None:
    held = threading.Event()

    def waits(*_: Any) -> Any:
        held.wait(20)  # as a sleep: nothing in it hears of an exception

    before = set(threading.enumerate())
    began = time.monotonic()
    verdict = CHECKS[which](waits)
    took = time.monotonic() - began
    held.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
    wrong(verdict, "waits has not returned, and cannot be stopped: restart the kernel")
    assert took < 15  # it did not wait for its end
    assert LIMIT_S < 2


def test_ctrl_c_in_a_check_is_not_kept_waiting_for() -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    for which in CHECKS.values():
        with pytest.raises(KeyboardInterrupt):
            which(interrupted)


def test_what_work_prints_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    check.packets(lambda size: print("of", size), seed=1)
    assert "of 1" in capsys.readouterr().out


# ---- predictions, in words


@pytest.mark.parametrize(
    ("said", "measured", "unit", "words"),
    [
        (14, 14_124, "bytes", "That was a thousand times too little: kilobytes? Bytes are wanted."),
        (12, 14_124, "bytes", "a thousand times too little: kilobytes?"),
        (0.18, 184, "ms", "a thousand times too little: seconds?"),
        (500, 8.3, "min", "sixty times too much: seconds? Minutes are wanted."),
        (0.22, 22, "%", "a hundred times too little: a share of 1? Per cent is wanted."),
        (13_999_000, 14_124, "bytes", "990 times too much."),
        (500, 14_124, "bytes", "28 times too little."),
        (1, 50_000_000, "", "more than a million times too little."),
        (99.9, 50, "ms", "100 % too high."),
        (5_000, 14_124, "bytes", "65 % too low."),
        (0, 14_124, "bytes", "14,124 bytes too low."),
        (23, 22, "%", "4.5 % too high."),
    ],
)
def test_how_far_off_a_prediction_was_is_said_in_words(said: float, measured: float, unit: str, words: str) -> None:
    verdict = avlab.predict("it", said, unit).against(measured)
    assert words in verdict.text
    assert "e+" not in verdict.text


def test_predictions_over_eleven_decades_are_in_words() -> None:
    chance = random.Random(3)
    for _ in range(2_000):
        said, measured = (10 ** chance.uniform(-4, 7) for _ in range(2))
        for unit in ("bytes", "ms", "%", ""):
            assert "e+" not in avlab.predict("it", said, unit).against(measured).text.split("That was")[1]


def test_a_prediction_without_its_question_gets_a_sentence() -> None:
    for asks in (lambda: avlab.predict("14 kB"), lambda: avlab.predict(14_000, "bytes"), lambda: avlab.predict(14)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a prediction begins with what is predicted"):
            asks()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("14 kB", "14_000"),
        ("1.5", "1.5"),
        ("22 %", "22"),
        ("3 Mbit/s", "3_000_000"),
        ("12,000 bytes", "12_000"),
        ("14 KB", "14_000"),
        ("1.5e3", "1_500"),
    ],
)
def test_a_prediction_with_its_unit_in_quotes_is_told_how_to_write_it(text: str, number: str) -> None:
    with pytest.raises(TypeError, match=f"instead of '{text}', write {number}$"):
        avlab.predict("bytes a frame", text)


def test_streams_of_the_io_module_are_what_a_reader_may_expect() -> None:
    seen: list[Any] = []

    def looks(sock: Any, size: int) -> bytes:
        sock.setblocking(True)
        seen.append((isinstance(sock.makefile("rb"), io.BufferedReader), sock.gettimeout(), sock.getpeername()))
        return by_pieces(sock, size)

    assert check.receiver(looks, seed=1).passed
    assert seen[0][0]
