"""A short share of what `make fuzz` does for ten minutes, with the same inputs each time; and what it once found."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tools
from fuzz import running
from fuzz.everything import BY_NAME, TARGETS
from fuzz.mutation import MOST_BYTES, mutated, smaller
from fuzz.running import Target, bounded, fuzz
from fuzz.targets import joined, pieces
from hypothesis import given
from hypothesis import strategies as st

from avlab.measure.record.tables import TABLES

FOUND: list[tuple[str, bytes]] = [
    ("a session through a relay", b"IONS r://] RTSP/1.1\n\n"),
    ("an address", b"rtsp://" + b"%" * 64_000),
    ("RTP packets in runs, counted", b'\x00\x00\x00"\x04\xa4\x80\n\x00\x04\x00\x00\x01&\x00\x00\x124'),
]
"""Inputs that let something else than the documented errors out: a target, and the bytes as `make fuzz` prints them."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_only_documented_errors_leave(target: Target) -> None:
    with bounded():
        tally = fuzz(target, seed=1, inputs=target.share)
    assert not tally.failures, str(tally.failures[0])
    assert tally.tried == target.share


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_good_inputs_are_good(target: Target) -> None:
    """Else what is made of them reaches nothing: the first of them, at least, is read."""
    target.call(target.good()[0])


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_stays_mended(name: str, data: bytes) -> None:
    _, took_ns = running.attempt(BY_NAME[name], data)
    assert took_ns < BY_NAME[name].seconds * 1e9


@pytest.mark.parametrize(
    "path", sorted(Path(running.__file__).with_name("found").glob("*.avtrace")), ids=lambda p: p.name
)
def test_traces_that_ended_the_process_are_refused(path: Path) -> None:
    """In a process of its own, as a library below that aborts takes the tests with it."""
    code = "import sys, avlab\ntry:\n    avlab.Trace.load(sys.argv[1])\nexcept ValueError:\n    print('refused')"
    assert tools.run(sys.executable, "-c", code, path) == "refused\n"


def test_a_trace_s_smallest_numbers_are_summed_up() -> None:
    """An SSRC so far below zero that a step below its lane was none."""
    rows = np.zeros(3, TABLES["packets"].dtype)
    rows["ssrc"], rows["seq"], rows["received"] = -(2**62), [1, 2, 5], [0, 1000, 2000]
    running.attempt(BY_NAME["a trace's rows, summed up"], joined([(list(TABLES).index("packets"), rows.tobytes())]))


# ---- the fuzzing itself


def target(call: Callable[[bytes], object], *, seconds: float = 2.0) -> Target:
    return Target("made up", call, lambda: [b"0123456789abcdef" * 4], (LookupError,), seconds=seconds)


def test_what_is_not_documented_is_a_failure_with_a_short_input() -> None:
    def fragile(data: bytes) -> int:
        if len(data) > 3 and b"\xff" in data:
            raise OverflowError("a byte too far")
        if not data:
            raise KeyError("nothing")
        return len(data)

    tally = fuzz(target(fragile), seed=1, inputs=5000)
    (failure,) = tally.failures
    assert b"\xff" in failure.data
    assert len(failure.data) == 4
    assert "OverflowError leaves it" in str(failure)
    assert repr(failure.data) in str(failure)


def test_documented_errors_are_counted_by_kind() -> None:
    def odd(data: bytes) -> int:
        if len(data) % 2:
            raise KeyError(data[:1]) if data[0] % 2 else IndexError
        return 0

    tally = fuzz(target(odd), seed=1, inputs=500)
    assert not tally.failures
    assert set(tally.errors) == {"KeyError", "IndexError"}
    assert 0 < tally.errors.total() < tally.tried == 500


def test_the_same_seed_tries_the_same() -> None:
    def tried(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        fuzz(target(seen.append), seed=seed, inputs=200)
        return seen

    assert tried(1) == tried(1) != tried(2)


def test_what_never_ends_is_a_failure() -> None:
    def endless(data: bytes) -> None:
        while data:
            pass

    with bounded():
        (failure,) = fuzz(target(endless, seconds=0.1), seed=1, inputs=5).failures
    assert "TooSlowError" in failure.reason


def test_what_takes_long_is_a_failure() -> None:
    def slow(data: bytes) -> None:
        until_ns = time.thread_time_ns() + 150_000_000
        while time.thread_time_ns() < until_ns:
            pass

    with bounded():
        (failure,) = fuzz(target(slow, seconds=0.1), seed=1, inputs=5).failures
    assert "it took 0." in failure.reason


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
def test_what_takes_too_much_memory_is_a_failure() -> None:
    with bounded():
        (failure,) = fuzz(target(lambda data: len(bytes(8 << 30))), seed=1, inputs=5).failures
    assert "MemoryError" in failure.reason
    assert len(bytes(200 << 20)) == 200 << 20  # and it is as before


@given(st.lists(st.tuples(st.integers(0, 31), st.binary(max_size=80)), max_size=20), st.binary(max_size=9))
def test_pieces_come_apart_as_they_were_joined(parts: list[tuple[int, bytes]], rest: bytes) -> None:
    assert [(piece.kind, piece.data) for piece in pieces(joined(parts))] == parts
    assert len(list(pieces(joined(parts) + rest))) <= len(parts) + 3  # whatever follows, it ends


@given(st.randoms(use_true_random=False), st.lists(st.binary(max_size=50), min_size=1, max_size=3))
def test_any_input_can_be_spoilt(rng: st.DataObject, good: list[bytes]) -> None:
    assert all(len(mutated(rng, good, (b"word",))) <= MOST_BYTES for _ in range(50))  # type: ignore[arg-type]


def test_an_input_is_made_smaller_as_long_as_it_fails() -> None:
    assert smaller(b"a lot of text with a needle in it", lambda data: b"needle" in data) == b"needle"
