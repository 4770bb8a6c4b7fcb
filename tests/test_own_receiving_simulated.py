"""A jitter buffer and a repair of one's own in simulated time; broken ones, from which a run goes on with a warning."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from test_own_buffer import FixedDelay, Patient, mine, spins
from test_own_repair import Both, Once, Twice, Xor

import avlab
from avlab import Network
from avlab.measure.numbers import metrics
from avlab.stream.simulate import simulate

LOSSY = Network(loss=0.05, delay=0.02)
SHORT: dict[str, Any] = {"seconds": 4.0, "work": 0.001, "playout_delay": 0.2, "audio": False}


def shown(trace: avlab.Trace) -> float:
    return float((trace.frames["fate"] == "shown").mean())


def closes(trace: avlab.Trace) -> bool:
    return metrics.packet_ledger(trace, "video").closes and metrics.frame_ledger(trace).closes


@pytest.mark.parametrize("buffer", [FixedDelay, Patient])
def test_a_jitter_buffer_shows_what_avlabs_shows(buffer: Any) -> None:
    own, usual = (simulate(30, network=LOSSY, jitter_buffer=part, **SHORT) for part in (buffer, None))
    assert list(own.frames["fate"]) == list(usual.frames["fate"])
    assert 0.1 < shown(own) < 0.95
    assert closes(own)
    [said] = own.settings.query("name == 'jitter_buffer'")["value"]
    assert said == buffer.__name__


def test_a_jitter_buffer_needs_no_packets() -> None:
    assert shown(simulate(30, jitter_buffer=Patient, **SHORT)) == 1.0


@pytest.mark.parametrize("part", [Xor, Twice, Once, Both])
def test_a_repair_brings_back_what_is_lost(part: Any) -> None:
    own, plain = (simulate(30, network=LOSSY, repair=repair, **SHORT) for repair in (part, None))
    assert shown(own) > shown(plain) + 0.15
    assert (own.packets["fate"] == "recovered").sum() > 10
    assert closes(own)
    [said] = own.settings.query("name == 'repair'")["value"]
    assert said == part.__name__
    repairs = own.packets[own.packets["ssrc"].isin(own.meta["repair_ssrcs"])]
    assert len(repairs) > 10
    assert metrics.summary(own).packet_loss_percent == pytest.approx(5, abs=2)


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [simulate(30, network=LOSSY, repair=Both, jitter_buffer=Patient, **SHORT) for _ in range(2)]
    assert runs[0].packets.equals(runs[1].packets)
    assert runs[0].frames.equals(runs[1].frames)


def of(**methods: Any) -> type[Both]:
    return type("Mine", (Both,), methods)


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"jitter_buffer": mine(push=lambda self, packet, now: 1 / 0)}, "the jitter buffer Mine failed: ZeroDivisionError"),
    ({"jitter_buffer": mine(pull=lambda self, now: [])}, "the jitter buffer Mine holds packet 0 for ever"),
    ({"jitter_buffer": mine(pull=lambda self, now: None)}, "returned None: it must be a list of frames"),
    ({"jitter_buffer": mine(pull=spins)}, "the jitter buffer Mine had not returned after 1.5 s"),
    ({"repair": of(protect=lambda self, payloads: [b""])}, "gave a payload of 0 bytes"),
    ({"repair": of(recover=lambda self, payloads, repairs: None)}, "the repair Mine: recover"),
    ({"repair": of(ask=spins)}, "the repair Mine had not returned after 1.5 s"),
]


@pytest.mark.parametrize(("part", "words"), BROKEN)
def test_a_run_goes_on_without_a_broken_part(part: dict[str, Any], words: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trace = simulate(30, network=LOSSY, **part, **SHORT)
    assert any(words in str(one.message) for one in told)
    assert any(words in str(value) for value in trace.settings.query("name == 'part failed'")["value"])
    assert (trace.frames.tail(60)["fate"] == "shown").sum() > 20
    assert closes(trace)


@pytest.mark.parametrize(
    ("part", "error", "words"),
    [
        ({"jitter_buffer": Patient()}, TypeError, "jitter_buffer must be a class"),
        ({"repair": Xor()}, ValueError, "repair must be 'rtx'"),
        ({"repair": type("Mine", (), {"name": "mine"})}, TypeError, "neither protect, recover nor ask"),
    ],
)
def test_what_is_no_part_is_refused(part: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        simulate(30, network=LOSSY, **part, **SHORT)
