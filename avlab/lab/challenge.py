"""A challenge: a network that nobody has seen, drawn from a word that a class shares, and what settings get there.

All of it is simulated, with seeds of its own, so that every laptop gets the same points for the same settings.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import random
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os import PathLike
from typing import Any, Literal

from avlab.lab.leaderboard import Leaderboard, append, check_player, entry, read
from avlab.measure.numbers.score import Score, score
from avlab.measure.record.trace import Trace
from avlab.network.ratecontrol import RateController
from avlab.network.settings import Network
from avlab.parts import JitterBuffer, Pacer, PlayoutDelay, Target, shown
from avlab.stream.simulate import simulate_strictly

EDITION = 1
"""Another one, other networks and points: what was handed in before is of another challenge then."""

FPS, SECONDS = 30.0, 15.0
"""Of each run."""

RUNS = 3
"""What a score is the mean of."""

LONGEST_WORD = 200


@dataclass(frozen=True)
class Challenge:
    """A network that nobody has seen, the same for all who say the same word, and the points that settings get there.

    Pictures of 640x360 at 30 frames a second, without sound, pass a network with loss, delay, jitter, and a bottleneck
    that becomes narrower for some seconds. What it does is drawn from `word`, and no setting of a trace tells of it:
    measure it. `points` are what `avlab.metrics.score` makes of the runs. Whoever wants to can find the network in
    this process's memory: a challenge is a game, and no examination.

    Args:
        word: Text or a number that a class shares, of at most 200 characters; capitals and blanks do not count.
    """

    word: str | int

    def __post_init__(self) -> None:
        if isinstance(self.word, bool) or not isinstance(self.word, str | int):
            raise TypeError(f"a challenge begins with a word or a number that a class shares, not {shown(self.word)}")
        if not self._told or len(self._told) > LONGEST_WORD:
            raise ValueError(f"a challenge's word has 1 to {LONGEST_WORD} characters, not {len(self._told)}")

    def run(
        self,
        *,
        seed: int = 1,
        quality: int = 80,
        width: int = 640,
        playout_delay: float | Literal["adaptive"] | Target | type[PlayoutDelay] = 0.1,
        repair: Literal["rtx", "fec"] | type[Any] | None = None,
        parity: float = 0.25,
        spread: float = 0.0,
        rate_control: str | RateController | type[RateController] | None = None,
        pacer: str | Pacer | type[Pacer] = "deadline",
        jitter_buffer: type[JitterBuffer] | None = None,
    ) -> Trace:
        """One run of 15 s over the network, to look at: what `simulate` returns. The points' own runs are others.

        A part of your own that fails ends the run, with PartError.

        Args:
            seed: Draws what is lost and late in this run; the network is the same for each.
            quality: JPEG quality, 1 to 100.
            width: Pixels, 16 to 2040.
            playout_delay: Seconds, 0 to 5, "adaptive" or your own; as `simulate` has it.
            repair: None, "rtx", "fec" or a class of your own.
            parity: Parity packets for each packet with `repair="fec"`, 0 to 1.
            spread: The share of a frame's time over which its packets leave, 0 to 0.95.
            rate_control: None, "aimd" or your own controller.
            pacer: When frames leave; as `simulate` has it.
            jitter_buffer: A class of your own in place of avlab's.

        Raises:
            TypeError: The seed is no whole number.
            ValueError: A setting is none that can be.
            PartError: A part of your own has failed.
        """
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"a seed is a whole number, not {shown(seed)}")
        return self._simulated(
            f"run {seed}",
            {
                "quality": quality,
                "width": width,
                "playout_delay": playout_delay,
                "repair": repair,
                "parity": parity,
                "spread": spread,
                "rate_control": rate_control,
                "pacer": pacer,
                "jitter_buffer": jitter_buffer,
            },
        )

    def score(self, **settings: Any) -> Score:
        """What settings are worth: the score of three runs together, whose losses are others than those of `run`.

        TypeError for what is no setting of `run`, with the nearest; else as `run`.

        Args:
            settings: As `run` has them, but for the seed: score(quality=50, repair="rtx").
        """
        check_settings(settings)
        if all(value is None or isinstance(value, str | int | float) for value in settings.values()):
            return _score_of_plain(self, tuple(settings), *settings.values())
        return self._scored(settings)

    def hand_in(self, name: str, settings: Mapping[str, Any], *, to: str | PathLike[str]) -> Leaderboard:
        """Score settings, and write the points down on a leaderboard that a class shares; the board comes back.

        A line is appended to the file while nobody else writes: a folder on a shared drive will do. The file is made
        where there is none. ValueError for a board that is full, and for a name that is empty or too long; OSError,
        in a sentence, where nothing can be written, and TimeoutError where somebody else does not stop writing.

        Args:
            name: What you want to be called: at most 40 characters, for all to read.
            settings: As `run` has them, {"quality": 50, "repair": "rtx"}.
            to: The leaderboard's file, as "leaderboard.jsonl".

        Raises:
            TypeError: The settings are no dict.
        """
        if not isinstance(settings, Mapping):
            raise TypeError(f'settings are a dict, as {{"quality": 50, "repair": "rtx"}}, not {shown(settings)}')
        said = check_player(name)
        append(to, entry(self.key, said, self.score(**settings), settings))
        return read(to, self.key)

    def leaderboard(self, path: str | PathLike[str]) -> Leaderboard:
        """What was handed in for this challenge: it shows itself as the last line of a cell. Empty without a file.

        Args:
            path: The leaderboard's file.
        """
        return read(path, self.key)

    @property
    def key(self) -> str:
        """By what lines of a leaderboard are known to be of this challenge."""
        return hashlib.sha256(f"avlab challenge {EDITION}: {self._told}".encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"the challenge {self._told!r}"

    # ---- what nobody sees

    @cached_property
    def _told(self) -> str:
        """The word as it counts."""
        return " ".join(unicodedata.normalize("NFKC", str(self.word)).casefold().split())

    def _scored(self, settings: Mapping[str, Any]) -> Score:
        return score([self._simulated(f"score {number}", settings) for number in range(RUNS)])

    def _simulated(self, run: str, settings: Mapping[str, Any]) -> Trace:
        drawn = hashlib.sha256(f"{self.key} {run}".encode()).digest()
        seed = int.from_bytes(drawn[:4], "big")
        return simulate_strictly(
            FPS, seconds=SECONDS, seed=seed, network=_networks(self.key, seed), audio=False, **settings
        )


@lru_cache(maxsize=256, typed=True)
def _score_of_plain(challenge: Challenge, names: tuple[str, ...], *values: Any) -> Score:
    """Of numbers and names, which get the same points each time: asked again, they are not run again."""
    return challenge._scored(dict(zip(names, values, strict=True)))


class HiddenNetwork(Network):
    """A network that does not say what it does."""

    def __repr__(self) -> str:
        return "a network to be measured"

    def __str__(self) -> str:
        return "hidden"


def _networks(key: str, seed: int) -> list[tuple[float, Network]]:
    """What a key's network is: wide, narrower for some seconds, and wide again. Round figures: the same everywhere."""
    chance = random.Random(int(key, 16))
    way: dict[str, Any] = {
        "loss": chance.randrange(10, 41, 5) / 1_000,
        "burst": float(chance.choice((1, 1, 2, 3))),
        "delay": chance.randrange(15, 46, 5) / 1_000,
        "jitter": chance.randrange(4, 13) / 1_000,
        "queue": chance.choice((0.1, 0.15, 0.2, 0.3)),
        "seed": seed,
    }
    rate = chance.randrange(2_600, 3_801, 100)  # about what the stream begins with
    narrow = rate * chance.randrange(60, 81) / 100
    begins, ends = chance.randrange(40, 61) / 10, chance.randrange(95, 116) / 10
    stages = ((0.0, float(rate)), (begins, narrow), (ends, float(rate)))
    return [(at, HiddenNetwork(rate=kbps, **way)) for at, kbps in stages]


SETTINGS = tuple(name for name in inspect.signature(Challenge.run).parameters if name not in ("self", "seed"))
"""What may be chosen."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """TypeError, with the nearest name, for what is no setting of a challenge."""
    for name in settings:
        if name in SETTINGS:
            continue
        near = difflib.get_close_matches(str(name), SETTINGS, 1, 0.5)
        if name == "seed":
            ask = "a score's seeds are its own"
        elif name in ("network", "clip", "seconds", "delay", "audio", "work", "packet_size", "payload", "codec"):
            ask = "that is the challenge's own"
        else:
            ask = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SETTINGS)}"
        raise TypeError(f"{shown(name)} is no setting of a challenge: {ask}")
