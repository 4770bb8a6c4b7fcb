"""The parts that a notebook asks for: right ones of several kinds pass, wrong ones fail with a hint that fits."""

from __future__ import annotations

import random
import statistics
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tools import without_addresses

from avlab import Packet, check
from avlab.lab.predictions import Verdict

SEEDS = (1, 2)
END = b"\xff\xd9"


def wrong(verdict: Verdict, words: str) -> None:
    assert verdict.passed is False, verdict
    assert words in verdict.text


# ---- a loss in bursts


def in_bursts(length: int = 3, chance: float = 0.01) -> Callable[[Packet, dict[Any, Any]], bool]:
    def lost(packet: Packet, state: dict[Any, Any]) -> bool:
        if state.get("left", 0) == 0 and packet.chance < chance:
            state["left"] = length
        if state.get("left", 0) == 0:
            return False
        state["left"] -= 1
        return True

    return lost


def by_number(packet: Packet, state: dict[Any, Any]) -> Any:
    if packet.number > state.get("until", -1) and packet.chance > 0.99:
        state["until"] = packet.number + 2
    return np.bool_(packet.number <= state.get("until", -1))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("work", [in_bursts(), by_number], ids=["counts down", "by number"])
def test_a_loss_of_three_in_a_row_passes(work: Any, seed: int) -> None:
    verdict = check.bursts(work, seed=seed)
    assert verdict.passed, verdict
    assert "3 packets in a row" in verdict.text


def prolonged(packet: Packet, state: dict[Any, Any]) -> bool:
    state["left"] = 3 if packet.chance < 0.01 else state.get("left", 0)
    state["left"] -= 1
    return bool(state["left"] >= 0)


def counts(packet: Packet, state: dict[Any, Any]) -> bool:
    return packet.number % 100 < 3


def draws_for_itself() -> Callable[[Packet, dict[Any, Any]], bool]:
    chance, lost = random.Random(5), in_bursts()
    return lambda packet, state: lost(packet._replace(chance=chance.random()), state)


def remembers_elsewhere() -> Callable[[Packet, dict[Any, Any]], bool]:
    memory: dict[Any, Any] = {}
    return lambda packet, state: in_bursts()(packet, memory)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda packet, state: False, "loses none of 8,000 packets"),
        (lambda packet, state: True, "loses every one of 8,000 packets"),
        (lambda packet, state: packet.chance < 0.01, "Remember in state how many of a burst are still to come"),
        (lambda packet, state: packet.chance < 0.03, "loses 1 in a row, mostly"),
        (in_bursts(2), "loses 2 in a row, mostly. The packet that a burst begins with is one of the three"),
        (in_bursts(4), "loses 4 in a row, mostly. The packet that a burst begins with is one of the three"),
        (in_bursts(3, 0.03), "Is packet.chance below 0.01?"),
        (in_bursts(3, 0.001), "Is packet.chance below 0.01?"),
        (prolonged, "A burst that has begun is not prolonged"),
        (counts, "counts instead of drawing"),
        (draws_for_itself(), "take chance from packet.chance"),
        (remembers_elsewhere(), "remember in state alone"),
        (lambda packet, state: ..., "not written yet"),
        (lambda packet, state: None, "returns nothing: is there a return?"),
        (lambda packet, state: packet.chance, "True or False is wanted"),
        (lambda packet, state: state["left"] > 0, "fails with KeyError: 'left'"),
        (lambda packet: False, "fails with TypeError"),
        (0.03, "0.03 is no function"),
    ],
    ids=without_addresses,
)
def test_another_loss_is_told_why(work: Any, words: str, seed: int) -> None:
    wrong(check.bursts(work, seed=seed), words)


# ---- a playout delay


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "work",
    [
        lambda delays: sorted(delays)[len(delays) * 19 // 20],
        lambda delays: sorted(delays, reverse=True)[len(delays) // 20],
        lambda delays: np.quantile(delays, 0.95),
        lambda delays: statistics.quantiles(delays, n=20)[-1],
        lambda delays: float(np.percentile(np.array(delays), 95, method="higher")),
    ],
    ids=["sorted", "reversed", "quantile", "statistics", "higher"],
)
def test_a_delay_that_nineteen_of_twenty_keep_to_passes(work: Any, seed: int) -> None:
    verdict = check.target(work, seed=seed)
    assert verdict.passed, verdict


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda delays: 0.1, "It says the same whatever the delays are."),
        (max, "one in 20 may come too late"),
        (lambda delays: delays[-1], "That is the last one's delay alone."),
        (lambda delays: sum(delays) / len(delays), "That is the mean"),
        (statistics.mean, "That is the mean"),
        (lambda delays: delays[len(delays) * 19 // 20], "sort them first"),
        (lambda delays: sorted(delays)[len(delays) // 20], "from the wrong end"),
        (lambda delays: 0.95 * max(delays), "a share of the longest delay"),
        (lambda delays: 1_000 * np.quantile(delays, 0.95), "milliseconds? Seconds are wanted."),
        (lambda delays: np.quantile(delays, 0.5), "would come too late: 1 may. That is the middle"),
        (lambda delays: np.quantile(delays, 0.9), "That is what 90 % of them keep to"),
        (lambda delays: np.quantile(delays, 0.99), "That is what 99 % of them keep to"),
        (lambda delays: np.percentile(delays, 0.95), "np.percentile counts to 100"),
        (lambda delays: np.quantile(delays[-50:], 0.95), "all delays that are given count"),
        (lambda delays: statistics.mean(delays) + 2 * statistics.stdev(delays), "for one distribution only"),
        (lambda delays: 3 * statistics.mean(delays), "A multiple of the mean does for one distribution only"),
        (lambda delays: delays.sort(), "returns nothing: is there a return?"),
        (lambda delays: "0.1", "a number of seconds is wanted"),
        (lambda delays: delays[500], "fails with IndexError"),
        (lambda delays: float("nan"), "a number of seconds is wanted"),
        (0.1, "is no function"),
    ],
    ids=without_addresses,
)
def test_another_delay_is_told_why(work: Any, words: str, seed: int) -> None:
    wrong(check.target(work, seed=seed), words)


# ---- a payload format


class Halves:
    name = "halves"

    def pack(self, frame: bytes, most: int) -> list[bytes]:
        return [frame[at : at + most] for at in range(0, len(frame), most)]

    def unpack(self, payloads: list[bytes | None]) -> Any:
        came: list[bytes] = []
        for payload in payloads:
            if payload is None:
                return b"".join(came) + END if 2 * len(came) >= len(payloads) else None
            came.append(payload)
        return b"".join(came)


class Numbered(Halves):
    """Each piece says where it belongs and how long the frame is: half of that counts, not of the pieces."""

    def pack(self, frame: bytes, most: int) -> list[bytes]:
        room = most - 8
        ends = range(0, len(frame), room)
        return [at.to_bytes(4, "big") + len(frame).to_bytes(4, "big") + frame[at : at + room] for at in ends]

    def unpack(self, payloads: list[bytes | None]) -> Any:
        came = super().unpack([None if each is None else each[8:] for each in payloads])
        return None if came is None else came


def mended(unpack: Callable[[list[bytes | None], int], Any]) -> type:
    """A format that does this where something is lost, and the place of the first gap."""

    class Mine(Halves):
        def unpack(self, payloads: list[bytes | None]) -> Any:
            return unpack(payloads, payloads.index(None)) if None in payloads else super().unpack(payloads)

    return Mine


def joined(payloads: list[bytes | None]) -> bytes:
    return b"".join(payload for payload in payloads if payload is not None)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("work", [Halves, Halves(), Numbered], ids=["class", "object", "numbered"])
def test_a_format_that_saves_the_first_half_passes(work: Any, seed: int) -> None:
    verdict = check.half(work, seed=seed)
    assert verdict.passed, verdict


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("work", "words"),
    [
        (mended(lambda payloads, gap: None), "half has come, so return what came before the gap"),
        (mended(lambda payloads, gap: joined(payloads[:gap]) + END), "less than half has come, so None is wanted"),
        (mended(lambda payloads, gap: joined(payloads[:gap]) if 2 * gap >= len(payloads) else None), "as a JPEG ends"),
        (
            mended(lambda payloads, gap: joined(payloads) + END if 2 * gap >= len(payloads) else None),
            "what came after a gap stays out",
        ),
        (
            mended(lambda payloads, gap: joined(payloads[: gap - 1]) + END if 2 * gap >= len(payloads) else None),
            "came before the gap",
        ),
        (mended(lambda payloads, gap: joined(payloads[:gap]) + END if gap > 6 else None), "half has come"),
        (mended(lambda payloads, gap: b"".join(payloads)), "failed: TypeError"),  # type: ignore[arg-type]
        (mended(lambda payloads, gap: "half"), "it must be the frame's bytes, or None"),
        (type("Ends", (Halves,), {"unpack": lambda _, payloads: joined(payloads) + END}), "leave it at that"),
        (type("Nothing", (), {}), "needs pack and unpack"),
        (type("NoName", (Halves,), {"name": "no name"}), "letters, digits and hyphens"),
    ],
    ids=without_addresses,
)
def test_another_format_is_told_why(work: Any, words: str, seed: int) -> None:
    wrong(check.half(work, seed=seed), words)


# ---- all three


def spins(*_: Any) -> Any:
    while True:
        pass


@pytest.mark.parametrize("which", [check.bursts, check.target])
def test_a_loop_that_never_ends_is_stopped_and_named(which: Callable[[Any], Verdict]) -> None:
    before = set(threading.enumerate())
    wrong(which(spins), "spins had not returned after 1 s, and was stopped")
    assert set(threading.enumerate()) <= before


def test_a_format_that_never_returns_is_named() -> None:
    wrong(check.half(type("Stands", (Halves,), {"unpack": spins})), "payload format Stands")


@pytest.mark.parametrize(("name", "work"), [("bursts", in_bursts()), ("target", max), ("half", Halves)])
def test_without_a_seed_the_cases_are_others_each_time(name: str, work: Any) -> None:
    seen: list[list[str]] = []

    def noted(*arguments: Any) -> Any:
        seen[-1].append(repr(arguments))
        return work(*arguments)

    class Noted(Halves):
        def pack(self, frame: bytes, most: int) -> list[bytes]:
            seen[-1].append(repr(frame))
            return super().pack(frame, most)

    for seed in (None, None, 7, 7):
        seen.append([])
        getattr(check, name)(Noted if name == "half" else noted, seed=seed)
    assert seen[0] != seen[1]
    assert seen[2] == seen[3]
