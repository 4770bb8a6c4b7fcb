"""The parts that a notebook asks for: a loss in bursts, a playout delay, a payload format that saves half a frame.

`part` holds any part against its contract; these want to know, besides, whether it does what was asked for. Cases are
drawn by a seed.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from avlab import testing
from avlab.lab.check.patience import Patience, WrongError, judged
from avlab.lab.check.words import name, no_function, nothing, said, sentence, short, told
from avlab.lab.predictions import Verdict
from avlab.parts import Packet, number

BURST = 3
"""Packets that are lost in a row."""

ONE_IN = 100
"""Of so many packets, one begins a burst."""

LATE_ONE_IN = 20
"""Of so many packets, one may come later than a playout delay waits."""

END = b"\xff\xd9"
"""What a JPEG ends with."""


def bursts(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `lost(packet, state)` that loses three packets in a row, begun by each packet with a chance of 1 in 100.

    `seed` draws the packets; without it they are others each time.

    Args:
        work: What the student hands in.
        seed: Draws the cases; None has others each time.
    """
    chance = _chance(seed)
    return judged(work, lambda patience: _told(lambda: _bursts(work, chance, patience)))


def target(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `target(delays)`: the playout delay, in seconds, that 19 of 20 delays keep to, and no more.

    `seed` draws the delays; without it they are others each time.

    Args:
        work: What the student hands in.
        seed: Draws the cases; None has others each time.
    """
    chance = _chance(seed)
    return judged(work, lambda patience: _told(lambda: _target(work, chance, patience)))


def half(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a payload format that saves what came before the first gap, where that is half of the pieces or more.

    `seed` draws the frames; without it they are others each time.

    Args:
        work: What the student hands in.
        seed: Draws the cases; None has others each time.
    """
    chance = _chance(seed)
    return judged(work, lambda patience: _told(lambda: _half(work, chance, patience)))


def _chance(seed: int | None) -> random.Random:
    return random.Random(random.SystemRandom().getrandbits(64) if seed is None else seed)


def _told(check: Callable[[], str]) -> Verdict:
    try:
        return Verdict(True, check())
    except WrongError as wrong:
        return Verdict(False, said(wrong))
    except AssertionError as wrong:  # the contract's
        return Verdict(False, sentence(said(wrong)))


def _asked(patience: Patience, call: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What work returns. WrongError, in a sentence, when it fails."""
    try:
        return patience.call(function, *arguments)
    except WrongError:
        raise
    except Exception as error:
        raise WrongError(f"{call} fails with {told(error)}.") from None


# ---- a loss in bursts


def _packets(chance: random.Random, count: int, stream: str) -> list[Packet]:
    """Of each hundred packets one draws a number below 0.01, one below 0.02 and so on: little is left to luck.

    Now and then the one after it draws such a number as well, which begins no burst, as one has begun.
    """
    out: list[Packet] = []
    for begin in range(0, count, ONE_IN):
        places = chance.sample(range(ONE_IN), ONE_IN)
        if begin % (10 * ONE_IN) == 0:
            places[(places.index(0) + 1) % ONE_IN] = 0
        for at, place in enumerate(places, begin):
            draw = (place + chance.random()) / ONE_IN
            out.append(
                Packet(at, at // 12 * 3000, at // 12 / 30, 1200, stream, at % 12 == 0, at % 12 == 11, b"", None, draw)
            )
    return out


def _bursts(work: Any, chance: random.Random, patience: Patience) -> str:
    if not callable(work):
        raise WrongError(no_function(work))
    who = name(work)

    def is_lost(packet: Packet, state: dict[Any, Any]) -> bool:
        call = f"{who}(packet, state)"
        given = _asked(patience, call, work, packet, state)
        if (words := nothing(call, given)) is not None:
            raise WrongError(words)
        if type(given).__name__ not in ("bool", "bool_"):
            raise WrongError(f"{call} returns {short(given)}: True or False is wanted.")
        return bool(given)

    packets = _packets(chance, 80 * ONE_IN, "video")
    state: dict[Any, Any] = {}
    found = [is_lost(packet, state) for packet in packets]
    _judge_bursts(who, found)
    # Two streams at once: each has a state of its own, and what is remembered elsewhere mixes them up.
    both = [packets[: 10 * ONE_IN], _packets(chance, 10 * ONE_IN, "audio")]
    states: list[dict[Any, Any]] = [{}, {}]
    beside = [[is_lost(packet, states[at]) for at, packet in enumerate(pair)] for pair in zip(*both, strict=True)]
    if [first for first, _ in beside] != found[: 10 * ONE_IN]:
        raise WrongError(
            f"{who} loses other packets of a stream when there is a second stream beside it, or a second run: remember "
            "in state alone, of which each stream has one, and take chance from packet.chance alone."
        )
    testing.check_network(loss=work)
    begun = _begun(found)
    return f"{who} loses {BURST} packets in a row, {len(begun)} times in {len(packets):,} packets, in each stream."


def _begun(found: Sequence[bool]) -> list[int]:
    """Where bursts begin, two that follow each other at once told apart."""
    begun, at = [], 0
    for lost, run in groupby(found):
        length = len(list(run))
        begun += list(range(at, at + length, BURST)) if lost else []
        at += length
    return begun


def _judge_bursts(who: str, found: Sequence[bool]) -> None:
    lengths = [len(list(run)) for lost, run in groupby(found) if lost]
    if found[-1:] == [True]:
        lengths.pop()  # it would have gone on
    if not lengths:
        raise WrongError(f"{who} loses {'every one' if found[-1] else 'none'} of {len(found):,} packets.")
    starts = [at for at, lost in enumerate(found) if lost and (at == 0 or not found[at - 1])]
    if len({after - before for before, after in pairwise(starts)}) <= 3:
        raise WrongError(f"{who} counts instead of drawing: it loses packets at regular distances. See packet.chance.")
    usual = max(set(lengths), key=lengths.count)
    odd = sum(length % BURST != 0 for length in lengths)
    if odd:
        hint = {
            1: "Remember in state how many of a burst are still to come.",
            2: "The packet that a burst begins with is one of the three.",
            BURST + 1: "The packet that a burst begins with is one of the three.",
        }.get(usual, "A burst that has begun is not prolonged by what the packets in it draw.")
        length = usual if usual % BURST else next(length for length in lengths if length % BURST)
        raise WrongError(f"{who} loses {length} in a row, {'mostly' if usual == length else 'now and then'}. {hint}")
    begun = _begun(found)
    expected = len(found) / (ONE_IN + BURST - 1)
    if not 0.8 * expected <= len(begun) <= 1.2 * expected:
        raise WrongError(
            f"{who} begins {len(begun):,} bursts in {len(found):,} packets: at 1 in {ONE_IN} it would be about "
            f"{expected:.0f}. Is packet.chance below {1 / ONE_IN:g}?"
        )


# ---- a playout delay


def _delays(chance: random.Random) -> Iterator[list[float]]:
    for count in (20, 40, chance.randrange(61, 79), 100, chance.randrange(301, 399), 500):
        mean = chance.uniform(0.005, 0.06)
        yield [chance.expovariate(1 / mean) for _ in range(count)]
    # It was calm, and is not any more: where the latest stand says nothing.
    yield [chance.uniform(0, 0.01) for _ in range(350)] + [chance.uniform(0.05, 0.2) for _ in range(150)]
    yield [chance.uniform(0.05, 0.2) for _ in range(150)] + [chance.uniform(0, 0.01) for _ in range(350)]


def _between(delays: Sequence[float], share: float) -> float:
    """What a share of them keeps to, as np.quantile has it."""
    return float(np.quantile(delays, share))


_WAITS: tuple[tuple[Callable[[list[float]], float], str], ...] = (
    (max, "That waits for the slowest of all: one in 20 may come too late."),
    (min, "That is the quickest of all: it waits for nobody."),
    (lambda delays: delays[-1], "That is the last one's delay alone."),
    (lambda delays: sum(delays) / len(delays), "That is the mean, and many are slower than that."),
    (lambda delays: sorted(delays)[len(delays) // 2], "That is the middle: half of them are slower."),
    (lambda delays: statistics.median(delays), "That is the middle: half of them are slower."),
    (
        lambda delays: _between(delays, 0.0095),
        "That is the share 0.0095: np.percentile counts to 100, and np.quantile to 1.",
    ),
    *(
        (
            lambda delays, share=share: _between(delays, share),
            f"That is what {100 * share:g} % of them keep to: 19 of 20 are 95 %.",
        )
        for share in (0.75, 0.8, 0.9, 0.98, 0.99)
    ),
    *(
        (
            lambda delays, times=times, spread=spread: statistics.fmean(delays) + times * spread(delays),
            "The mean and some deviations do for one distribution only: count.",
        )
        for times in (1, 2, 3)
        for spread in (statistics.stdev, statistics.pstdev)
    ),
    *(
        (
            lambda delays, last=last: _between(delays[-last:], 0.95),
            "That is of the last few alone: all delays that are given count.",
        )
        for last in (10, 20, 50, 100)
    ),
    (lambda delays: delays[len(delays) * 19 // 20], "They stand in the order in which they came: sort them first."),
    (lambda delays: sorted(delays)[len(delays) // 20], "That is from the wrong end: 19 of 20 are slower."),
    (lambda delays: 0.95 * max(delays), "That is a share of the longest delay, not what a share of them keeps to."),
    *(
        (
            lambda delays, times=times: times * sum(delays) / len(delays),
            "A multiple of the mean does for one distribution only.",
        )
        for times in (1.5, 2, 2.5, 3, 4, 5)
    ),
    (lambda delays: 1.95 * sum(delays) / len(delays), "A multiple of the mean does for one distribution only."),
)
"""What is easily mistaken for the right rule, and what is to be said of it."""


def _target(work: Any, chance: random.Random, patience: Patience) -> str:
    if not callable(work):
        raise WrongError(no_function(work))
    who = name(work)
    answers: list[tuple[list[float], float]] = []
    wrong = ""
    for delays in _delays(chance):
        call = f"{who} of {len(delays)} delays"
        given = _asked(patience, call, work, list(delays))
        if (words := nothing(call, given)) is not None:
            raise WrongError(words)
        seconds = number(given)
        if seconds is None or not math.isfinite(seconds):
            raise WrongError(f"{call} returns {short(given)}: a number of seconds is wanted.")
        answers.append((delays, seconds))
        wrong = wrong or _wrong_wait(call, delays, seconds)
    if wrong:
        raise WrongError(f"{wrong} {_why_wrong(answers)}".rstrip())
    testing.check_delay(work)
    return f"{who} waits for 19 of 20, and no longer, in all {len(answers)} cases."


def _wrong_wait(call: str, delays: Sequence[float], seconds: float) -> str:
    ordered, count = sorted(delays), len(delays)
    share = 1 - 1 / LATE_ONE_IN
    # Wherever anyone's definition of a quantile has it between two of them.
    least, most = ordered[math.floor(share * (count - 1))], ordered[min(count - 1, math.ceil(share * count))]
    if least - 1e-9 <= seconds <= most + 1e-9:
        return ""
    late = sum(delay > seconds for delay in delays)
    if seconds < least:
        return f"{call} gives {seconds:.4g} s, and {late} would come too late: {count // LATE_ONE_IN} may."
    return f"{call} gives {seconds:.4g} s, and {most:.4g} s would do: {count // LATE_ONE_IN} may come too late."


def _why_wrong(answers: Sequence[tuple[list[float], float]]) -> str:
    if len({seconds for _, seconds in answers}) == 1:
        return "It says the same whatever the delays are."
    for mistaken, words in _WAITS:
        if all(math.isclose(mistaken(delays), seconds, rel_tol=1e-6) for delays, seconds in answers):
            return words
    if not any(_wrong_wait("", delays, seconds / 1_000) for delays, seconds in answers):
        return "That is a thousand times too much: milliseconds? Seconds are wanted."
    return ""


# ---- a payload format


def _half(work: Any, chance: random.Random, patience: Patience) -> str:
    who = name(work)
    try:
        testing.check_payload(work)
    except AssertionError as failed:
        if "makes something else" in said(failed):
            _judge_whole(who, work, chance, patience)
        raise
    made = _asked(patience, who, work) if isinstance(work, type) else work
    whole = saved = 0
    for size in (2 * 1_180, 4_000, 6_500, 11_000, 14_000, 25_000):
        frame = b"\xff\xd8" + chance.randbytes(size + chance.randrange(100)) + END
        pieces = [bytes(piece) for piece in _asked(patience, f"{who}.pack", made.pack, frame, 1_180)]
        for gaps in _gaps(chance, len(pieces)):
            given = [None if at in gaps else piece for at, piece in enumerate(pieces)]
            what = f"{who}.unpack() of {len(pieces)} pieces, the first {min(gaps)} of them before a gap,"
            back = _asked(patience, what, made.unpack, list(given))
            if 2 * min(gaps) < len(pieces):
                if back is not None:
                    raise WrongError(f"{what} returns {short(back)}: less than half has come, so None is wanted.")
                continue
            _judge_saved(what, back, frame, pieces, min(gaps))
            saved += 1
        whole += 1
    return f"{who} saves what came before a gap, in all {saved} cases, and gives up where that is less than half."


def _judge_whole(who: str, work: Any, chance: random.Random, patience: Patience) -> None:
    """Whether a frame of which all has come gets an end that it has already; what else is wrong, the contract tells."""
    frame = b"\xff\xd8" + chance.randbytes(5_000) + END
    try:
        made = patience.call(work) if isinstance(work, type) else work
        pieces = list(patience.call(made.pack, frame, 1_180))
        back = patience.call(made.unpack, pieces)
    except WrongError:
        raise
    except Exception:
        return
    if isinstance(back, bytes) and back == frame + END:
        raise WrongError(
            f"{who}.unpack() of all {len(pieces)} pieces puts an end after a frame that has one: when nothing is "
            "missing, join them and leave it at that."
        )


def _gaps(chance: random.Random, count: int) -> Iterator[set[int]]:
    """Which pieces are lost. Of an odd number nobody knows which half the middle one is of."""
    for first in range(count):
        if 2 * first == count - 1:
            continue
        yield {first}
        yield {first, *chance.sample(range(first, count), chance.randrange(count - first) + 1)}


def _judge_saved(what: str, back: Any, frame: bytes, pieces: Sequence[bytes], before: int) -> None:
    if back is None:
        raise WrongError(f"{what} gives nothing: half has come, so return what came before the gap.")
    data = bytes(back)
    if not data.endswith(END):
        raise WrongError(f'{what} does not end as a JPEG ends: put b"\\xff\\xd9" after what came before the gap.')
    body = data[: -len(END)]
    if not frame.startswith(body):
        raise WrongError(f"{what} returns something else than the frame's beginning: what came after a gap stays out.")
    # A format may spend some bytes of each piece on a header of its own.
    expected = len(frame) * sum(map(len, pieces[:before])) / sum(map(len, pieces)) - 16 * before - 16
    if len(body) < expected:
        raise WrongError(f"{what} returns {len(body):,} bytes of the frame: about {expected:,.0f} came before the gap.")
