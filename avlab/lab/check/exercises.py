"""The functions that the notebooks ask for: what is right, cases that a seed draws, and what is easily mistaken."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from avlab.lab.check.functions import Case, Exercise
from avlab.lab.predictions import Verdict

PACKET_BYTES = 1_162
"""Of a frame, in each packet of avlab's default wire but the last; notebook 00 says how 1,200 become that."""


def packets(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `packets(size)`: how many packets a frame of `size` bytes takes, at 1,162 bytes of it in each.

    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _PACKETS.judge(work, seed)


def mean_fps(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `mean_fps(times)`: the mean rate, in frames a second, of timestamps in seconds, in any order.

    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _MEAN_FPS.judge(work, seed)


def base64_size(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `base64_size(count)`: how many bytes `count` bytes are in base64, without line ends.

    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _BASE64.judge(work, seed)


def most_loss(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `most_loss(n, shown)`: the share of packets, 0 to 1, that may be lost, one by one, if the share `shown`
    of frames of `n` packets is to stay whole.

    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _MOST_LOSS.judge(work, seed)


def lasts(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `lasts(ms, ppm)`: how many seconds a buffer of `ms` milliseconds lasts at a drift of `ppm` millionths.

    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _LASTS.judge(work, seed)


def unspoilt(work: Any, *, seed: int | None = None) -> Verdict:
    """Check an `unspoilt(n, p, frames)`: the share of `frames` pictures, 0 to 1, that no loss has spoilt, where the
    first needs no other and each of the rest the one before it; each has `n` packets, and the share `p` of those is
    lost, one by one.

    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _UNSPOILT.judge(work, seed)


def points(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `points(shown, size, delay)`: what a challenge gives for the share `shown` of frames, of `size` bytes
    each, that come `delay` seconds after their moment.

    `seed` draws the cases; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    return _POINTS.judge(work, seed)


# ---- packets


def _sizes(chance: random.Random) -> Iterator[Case]:
    yield from ((1,), (PACKET_BYTES,), (PACKET_BYTES + 1,))
    yield (chance.randrange(900_000, 1_000_000),)  # tells packets of 1,180 bytes from those of 1,182
    for _ in range(4):
        whole = chance.randrange(2, 40)
        yield (whole * PACKET_BYTES,)
        yield (whole * PACKET_BYTES + chance.randrange(1, PACKET_BYTES),)


_PACKETS = Exercise(
    right=lambda size: -(-size // PACKET_BYTES),
    cases=_sizes,
    mistakes=(
        (lambda size: size // PACKET_BYTES, "What is left over takes a packet as well: round up."),
        (lambda size: size / PACKET_BYTES, "There is no part of a packet: round up."),
        (lambda size: round(size / PACKET_BYTES), "What is left over takes a packet, however little it is: round up."),
        (lambda size: size // PACKET_BYTES + 1, "A frame that just fills its packets takes none for nothing."),
        *(
            (
                lambda size, each=each: -(-size // each),
                f"Each packet has {each:,} bytes, but not all of them are the frame's: {PACKET_BYTES:,} are.",
            )
            for each in (1_200, 1_188, 1_182, 1_180)
        ),
        *(
            (
                lambda size, each=each: -(-size // each),
                f"{each:,} bytes are not what avlab has in a packet: of each, {PACKET_BYTES:,} are the frame's.",
            )
            for each in (1_500, 1_480, 1_472, 1_460, 1_400, 1_024, 1_000, 65_507)
        ),
    ),
)

# ---- frames a second


def _timestamps(chance: random.Random) -> Iterator[Case]:
    def shuffled(times: Sequence[float]) -> Case:
        mixed = [round(time, 6) for time in times]
        while mixed[-1] - mixed[0] in (0, max(mixed) - min(mixed)):
            chance.shuffle(mixed)
        return (mixed,)

    fps = chance.choice((10, 12.5, 20, 24, 25, 30, 50))
    yield ([round(number / fps, 6) for number in range(chance.randrange(4, 8))],)
    yield shuffled([number / fps for number in range(chance.randrange(5, 9))])
    # Two rates in one list, as phones record; far from 0.
    begin = chance.randrange(3, 90)
    slow, fast = chance.choice(((0.1, 0.02), (0.2, 0.04), (0.08, 0.01)))
    times = [begin + number * slow for number in range(chance.randrange(3, 6))]
    times += [times[-1] + number * fast for number in range(1, chance.randrange(4, 7))]
    yield ([round(time, 6) for time in times],)
    yield shuffled(times)
    gaps = [chance.uniform(0.01, 0.2) for _ in range(7)]
    yield shuffled([begin + sum(gaps[:number]) for number in range(8)])


def _gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(sorted(times))]


_MEAN_FPS = Exercise(
    right=lambda times: (len(times) - 1) / (max(times) - min(times)),
    cases=_timestamps,
    mistakes=(
        (
            lambda times: (len(times) - 1) / (times[-1] - times[0]),
            "The list is in any order, as a file's is: the first and the last of it are not the earliest and latest.",
        ),
        (
            lambda times: len(times) / (times[-1] - times[0]),
            "There is one gap fewer than there are times; and the list is in any order.",
        ),
        (
            lambda times: len(times) / (max(times) - min(times)),
            "There is one gap fewer than there are times: count the gaps.",
        ),
        (
            lambda times: statistics.fmean(1 / gap for gap in _gaps(times)),
            "Rates are not averaged, time is: a long gap counts for as long as it lasts.",
        ),
        (
            lambda times: statistics.fmean(1 / (after - before) for before, after in pairwise(times)),
            "Rates are not averaged, time is; and the list is in any order.",
        ),
        (
            lambda times: 1 / statistics.median(_gaps(times)),
            "That is the rate of the gap in the middle; asked is the rate of all of them.",
        ),
        (lambda times: 1 / max(_gaps(times)), "That is the rate of the longest gap alone."),
        (lambda times: 1 / min(_gaps(times)), "That is the rate of the shortest gap alone."),
        (
            lambda times: (max(times) - min(times)) / (len(times) - 1),
            "That is seconds a frame: frames a second are wanted.",
        ),
        *(
            (
                lambda times, fewer=fewer: (len(times) - fewer) / max(times),
                "The first time need not be 0: how long is it from the first to the last?",
            )
            for fewer in (0, 1)
        ),
        (
            lambda times: 1 / statistics.fmean(abs(after - before) for before, after in pairwise(times)),
            "The list is in any order: sort it before you take differences.",
        ),
        *(
            (lambda times, count=count: float(count(times)), "That is how many there are, whatever time they take.")
            for count in (len, lambda times: len(times) - 1)
        ),
    ),
    unit="fps",
)

# ---- base64


def _counts(chance: random.Random) -> Iterator[Case]:
    yield from ((0,), (1,), (3,), (4,))
    for _ in range(3):
        threes = chance.randrange(5, 5_000)
        yield from ((3 * threes + rest,) for rest in (0, 1, 2))


_BASE64 = Exercise(
    right=lambda count: -(-count // 3) * 4,
    cases=_counts,
    mistakes=(
        (lambda count: count * 4 / 3, "Three begun are four whole ones: it is always a multiple of 4."),
        (lambda count: -(-count * 4 // 3), "Three begun are four whole ones: round up the threes, and then times 4."),
        (lambda count: count * 4 // 3, "Three begun are four whole ones: round up the threes, and then times 4."),
        (lambda count: round(count * 4 / 3), "Three begun are four whole ones: round up the threes, and then times 4."),
        (lambda count: count // 3 * 4, "One or two bytes that are left over take four as well: round up."),
        (lambda count: (count // 3 + 1) * 4, "Where nothing is left over, nothing is added."),
        (
            lambda count: -(-count // 3) * 4 + -(-count // 57),
            "Those are base64's line ends, which encodebytes adds: the wire has none.",
        ),
        *(
            (mistaken, "The other way round: three bytes become four.")
            for mistaken in (
                lambda count: -(-count // 4) * 3,
                lambda count: count * 3 / 4,
                lambda count: count * 3 // 4,
                lambda count: -(-count * 3 // 4),
            )
        ),
        *(
            (
                lambda count, times=times: times * count,
                "Nearly, but three become four exactly, and what is begun is whole: round up the threes.",
            )
            for times in (1.33, 1.3, 1.333, 1.34, 1.35, 1.37)
        ),
    ),
    unit="bytes",
)

# ---- loss


def _losses(chance: random.Random) -> Iterator[Case]:
    yield (1, round(chance.uniform(0.5, 0.99), 3))
    for _ in range(5):
        yield (chance.randrange(2, 40), round(chance.uniform(0.3, 0.9), 3))


_MOST_LOSS = Exercise(
    right=lambda n, shown: 1 - shown ** (1 / n),
    cases=_losses,
    mistakes=(
        (lambda n, shown: 1 - shown, "That is the share of frames that may be lost: asked is that of packets."),
        (
            lambda n, shown: (1 - shown) / n,
            "Nearly, where little is lost. But chances multiply, they do not add up: shown = (1 - p)^n.",
        ),
        (
            lambda n, shown: shown ** (1 / n),
            "That is the share of packets that have to arrive: the others may be lost.",
        ),
        (lambda n, shown: 1 - shown**n, "That goes from packets to frames, and asked is the way back."),
        (lambda n, shown: (1 - shown) ** (1 / n), "Which of the two is it that is multiplied n times: (1 - p)^n = ?"),
        (
            lambda n, shown: 1 - shown / n,
            "Chances multiply: from shown = (1 - p)^n, what is p? (shown ** 1 / n is (shown ** 1) / n: 1 / n wants "
            "parentheses.)",
        ),
        (
            lambda n, shown: -math.log(shown) / n,
            "Nearly, where little is lost. But that is for losses without end: take the n-th root of shown.",
        ),
    ),
    within=1e-3,
    unit="share",
)

# ---- pictures that need the one before


def _chains(chance: random.Random) -> Iterator[Case]:
    yield (1, round(chance.uniform(0.05, 0.2), 3), 2)
    for _ in range(5):
        yield (chance.randrange(1, 8), round(chance.uniform(0.005, 0.08), 4), chance.randrange(3, 90))


def _whole(n: int, p: float, frames: int, *, own: int = 1) -> float:
    """The mean share of chains that are whole up to each picture; without `own`, up to the one before it."""
    return statistics.fmean((1 - p) ** (n * (before + own)) for before in range(frames))


_UNSPOILT = Exercise(
    right=_whole,
    cases=_chains,
    mistakes=(
        (lambda n, p, frames: 1 - _whole(n, p, frames), "That is the share that is spoilt: asked is the rest."),
        (
            lambda n, p, frames: (1 - p) ** n,
            "That is one picture's own packets: all those since the key frame have to be there as well.",
        ),
        (
            lambda n, p, frames: (1 - p) ** (n * frames),
            "That is the last picture, which needs all the others: the earlier ones need fewer. Asked is their mean.",
        ),
        (
            lambda n, p, frames: (1 - p) ** (n * (frames + 1) / 2),
            "Nearly. But the mean of powers is not the power of the mean: work out each picture, then their mean.",
        ),
        (
            lambda n, p, frames: _whole(n, p, frames, own=0),
            "A picture's own packets have to be there, too, the key frame's among them.",
        ),
        (
            lambda n, p, frames: _whole(1, p, frames),
            "A picture has n packets, and needs each of them.",
        ),
        (lambda n, p, frames: frames * _whole(n, p, frames), "That is how many pictures: a share of all is wanted."),
        (
            lambda n, p, frames: (1 - p) ** (n * frames / 2),
            "Nearly. But the mean of powers is not the power of the mean: work out each picture, then their mean.",
        ),
        *(
            (
                lambda n, p, frames, count=count: 1 - n * p * count(frames),
                "Chances multiply, they do not add up: a picture of n packets is whole with (1 - p)^n.",
            )
            for count in (lambda frames: 1, lambda frames: frames, lambda frames: frames / 2)
        ),
        *(
            (
                lambda n, p, frames, count=count: sum((1 - p) ** (n * at) for at in range(1, frames)) / count(frames),
                "range(1, frames) ends before frames: one picture is missing.",
            )
            for count in (lambda frames: frames, lambda frames: frames - 1)
        ),
        (
            lambda n, p, frames: p**n,
            "That is how likely all packets of a picture are lost: one of them is enough to spoil it.",
        ),
    ),
    within=1e-3,
    unit="share",
)

# ---- drift


def _drifts(chance: random.Random) -> Iterator[Case]:
    yield (100, 200)
    for _ in range(5):
        yield (chance.randrange(5, 500), chance.choice((5, 20, 30, 50, 80, 120, 150, 250, 400, 700)))


_LASTS = Exercise(
    right=lambda ms, ppm: 1_000 * ms / ppm,
    cases=_drifts,
    mistakes=(
        (
            lambda ms, ppm: ms / ppm,
            "A thousand times too little: ms are thousandths of a second, and ppm are millionths.",
        ),
        (lambda ms, ppm: 1e6 * ms / ppm, "A thousand times too much: those are milliseconds. Seconds are wanted."),
        (lambda ms, ppm: 1_000 * ms / ppm / 60, "Sixty times too little: those are minutes. Seconds are wanted."),
        (lambda ms, ppm: ms * ppm / 1_000, "Does a buffer last longer when the clocks differ by more?"),
        (lambda ms, ppm: ms / 1_000 * ppm, "Does a buffer last longer when the clocks differ by more?"),
        (lambda ms, ppm: ms / 1_000 * ppm / 1e6, "That is by how much they drift apart meanwhile: divide instead."),
        *(
            (
                lambda ms, ppm, times=times: times * ms * ppm,
                "Does a buffer last longer when the clocks differ by more?",
            )
            for times in (1.0, 1_000.0)
        ),
        *((lambda ms, ppm, times=times: times * ppm / ms, "Upside down.") for times in (1e-6, 1.0, 1_000.0)),
        (
            lambda ms, ppm: 1_000 * ms / ppm / 3_600,
            "3,600 times too little: those are hours. Seconds are wanted.",
        ),
        (lambda ms, ppm: math.ceil(1_000 * ms / ppm), "No rounding: a part of a second is one, too."),
    ),
    unit="s",
)

# ---- a challenge's points


def _outcomes(chance: random.Random) -> Iterator[Case]:
    def size() -> int:
        return chance.randrange(2_000, 30_000)

    yield (1.0, 32_000, 0.1)
    yield (round(chance.uniform(0.3, 0.95), 2), 8_000, round(chance.uniform(0.2, 0.35), 3))
    for _ in range(2):
        yield (round(chance.uniform(0.5, 1), 2), size(), round(chance.uniform(0.03, 0.14), 3))
        yield (round(chance.uniform(0.5, 1), 2), size(), round(chance.uniform(0.16, 0.39), 3))
    yield (round(chance.uniform(0.5, 1), 2), size(), round(chance.uniform(0.41, 0.8), 3))
    yield (round(chance.uniform(0.5, 1), 2), chance.randrange(300, 900), round(chance.uniform(0.03, 0.14), 3))
    yield (round(chance.uniform(0.5, 1), 2), chance.randrange(40_000, 90_000), round(chance.uniform(0.2, 0.3), 3))


def _worth(
    shown: float,
    size: float,
    delay: float,
    *,
    log: Callable[[float], float] = math.log2,
    inside: Callable[[float], float] = lambda value: min(1.0, max(0.0, value)),
    between: tuple[float, float] = (0.15, 0.4),
) -> tuple[float, float, float]:
    first, last = between
    return shown, inside(log(size / 1_000) / 5), inside((last - delay) / (last - first))


_POINTS = Exercise(
    right=lambda shown, size, delay: 100 * math.prod(_worth(shown, size, delay)),
    cases=_outcomes,
    mistakes=(
        (
            lambda shown, size, delay: math.prod(_worth(shown, size, delay)),
            "That is a share of 1: points go to 100.",
        ),
        (
            lambda shown, size, delay: 100 * statistics.fmean(_worth(shown, size, delay)),
            "That is the mean of the three, which gives points for a picture that nobody sees: they are multiplied.",
        ),
        (
            lambda shown, size, delay: 100 * sum(_worth(shown, size, delay)),
            "The three are multiplied, and not added.",
        ),
        (
            lambda shown, size, delay: 100 * math.prod(_worth(shown, size, delay, inside=float)),
            "Both detail and promptness stay between 0 and 1: cut off what is above and what is below.",
        ),
        (
            lambda shown, size, delay: 100 * math.prod(_worth(shown, size, delay, inside=lambda v: max(0.0, v))),
            "Detail and promptness are 1 at most: a frame that comes at once gets no more than one in time.",
        ),
        (
            lambda shown, size, delay: 100 * math.prod(_worth(shown, size, delay, inside=lambda v: min(1.0, v))),
            "Detail and promptness are 0 at least: what comes later than too late is not worth less than nothing.",
        ),
        *(
            (
                lambda shown, size, delay, log=log: 100 * math.prod(_worth(shown, size, delay, log=log)),
                "Each doubling adds a fifth: that is the logarithm to the base 2, math.log2.",
            )
            for log in (math.log, math.log10)
        ),
        (
            lambda shown, size, delay: 100 * math.prod(_worth(shown, 1_000 * size, delay)),
            "The size is in bytes, and a frame of 1,000 of them has no detail.",
        ),
        (
            lambda shown, size, delay: 100 * math.prod(_worth(shown, size, delay, between=(0.0, 0.4))),
            "Promptness is 1 up to 0.15 s, and falls from there on.",
        ),
        (
            lambda shown, size, delay: 100 * math.prod((shown, min(1.0, size / 32_000), _worth(1, 1, delay)[2])),
            "Not each byte adds as much, but each doubling: that is a logarithm.",
        ),
        (
            lambda shown, size, delay: 100 * math.prod((shown, *_worth(1, 1_000 * (size / 1_000) ** 5, delay)[1:])),
            "Each doubling adds a fifth, and not a whole.",
        ),
        (lambda shown, size, delay: 10_000 * math.prod(_worth(shown, size, delay)), "Points go to 100."),
        (
            lambda shown, size, delay: 100 * math.prod(_worth(1.0, size, delay)),
            "It says the same however many frames are shown.",
        ),
        (
            lambda shown, size, delay: 100 * math.prod(_worth(shown, 32_000, delay)),
            "It says the same however large a frame is. The size is in bytes, and one of 1,000 has no detail.",
        ),
        (
            lambda shown, size, delay: 100 * math.prod((*_worth(shown, size, 0.0)[:2], float(delay < 0.4))),
            "Promptness falls along a straight line from 0.15 to 0.4 s.",
        ),
        (
            lambda shown, size, delay: 100 * math.prod(_worth(shown, size, 0.0)),
            "It says the same however late a frame is. The delay is in seconds: 150 ms are 0.15.",
        ),
    ),
    unit="points",
)
