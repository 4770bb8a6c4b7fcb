"""Receiver reports that cannot be true, and those of honest receivers, whatever befalls their packets."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.network.belief import Account, doubt
from avlab.wire.rtcp import ReportBlock
from avlab.wire.rtp import ReceiverStats

NS, RATE = 1_000_000_000, 90_000
SENT = Account(first=65_000, packets=1_000, copies=0, since_ns=5 * NS, rate=RATE)
HONEST = ReportBlock(1, fraction_lost=12, cumulative_lost=50, highest_sequence=65_999, jitter=900)


def test_an_honest_report_is_believed() -> None:
    assert doubt(HONEST, SENT) is None


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ({"highest_sequence": 66_000}, "never sent"),
        ({"highest_sequence": 65_999 + 65_536}, "never sent"),
        ({"highest_sequence": 64_999}, "never sent"),
        ({"highest_sequence": 0}, None),  # 65,536 without the wrap: it came later
        ({"highest_sequence": 0x7FFF_FFFF}, "never sent"),
        ({"cumulative_lost": -1, "fraction_lost": 0}, None),  # a packet overtook the first
        ({"cumulative_lost": -100}, "received"),
        ({"cumulative_lost": -0x800000}, "received"),
        ({"cumulative_lost": 1_001}, "lost"),
        ({"cumulative_lost": 0x7FFFFF}, "lost"),
        ({"jitter": 0xFFFF_FFFF}, "jitter"),
        ({"jitter": 6 * RATE}, "jitter"),
        ({"cumulative_lost": 0, "fraction_lost": 255}, "fraction"),
        ({"cumulative_lost": 50, "fraction_lost": 255}, "fraction"),
    ],
)
def test_a_report_is_believed_as_far_as_its_numbers_add_up(lie: dict[str, int], why: str | None) -> None:
    found = doubt(replace(HONEST, **lie), SENT)
    assert found is None if why is None else why in (found or "")


def test_the_report_before_counts_too() -> None:
    later = SENT._replace(packets=2_000, since_ns=10 * NS)
    now = replace(HONEST, highest_sequence=66_999)
    assert doubt(now, later, HONEST) is not None, "12 of 256, and none more is lost"
    assert doubt(replace(now, cumulative_lost=97), later, HONEST) is None
    assert "backwards" in (doubt(replace(now, highest_sequence=65_900), later, HONEST) or "")
    assert "lost" in (doubt(replace(now, cumulative_lost=1_200, fraction_lost=0), later, HONEST) or "")


def test_nothing_was_sent_and_something_is_reported() -> None:
    assert doubt(HONEST, SENT._replace(packets=0)) is not None


@given(
    first=st.integers(0, 0xFFFF),
    missed=st.integers(0, 200),
    loss=st.floats(0, 0.9),
    seed=st.integers(0, 1000),
    heard=st.floats(0.3, 1),
)
def test_an_honest_receiver_is_believed_whatever_the_network_does(
    first: int, missed: int, loss: float, seed: int, heard: float
) -> None:
    """Packets are lost and overtake each other, the first ones are missed, numbers wrap, and reports are lost too."""
    chance, stats = random.Random(seed), ReceiverStats(RATE)
    before: ReportBlock | None = None
    packets = 0
    for part in range(12):
        batch = list(range(packets, packets + 600))
        packets += 600
        here = [n for n in batch if n >= missed and chance.random() >= loss]
        for at in range(0, len(here) - 1, 7):
            here[at], here[at + 1] = here[at + 1], here[at]
        for n in here:
            stats.update((first + n) & 0xFFFF, n * 300, n * NS // 300 + chance.randrange(20_000_000))
        reception = stats.report(packets * NS // 300)
        if reception is None or (before is not None and chance.random() > heard):
            continue
        block = ReportBlock.of(1, reception)
        sent = Account(first, packets, 0, packets * NS // 300, RATE)
        found = doubt(block, sent, before)
        if heard == 1:
            assert found is None, (part, block)
        else:
            assert found is None or "fraction" in found, (part, block)
        before = block


def test_what_a_network_of_ones_own_copies_may_be_received() -> None:
    doubled = replace(HONEST, cumulative_lost=-300, fraction_lost=0)
    assert doubt(doubled, SENT) is not None
    assert doubt(doubled, SENT._replace(copies=300)) is None
