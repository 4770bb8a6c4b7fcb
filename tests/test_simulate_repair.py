"""Repair, spreading and the adaptive delay in simulated runs: what they bring, that ledgers close."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from avlab.measure.numbers import metrics
from avlab.measure.record.trace import Trace
from avlab.network.settings import Network
from avlab.stream.simulate import simulate
from avlab.wire.rtp import MAX_PACKET

LOSSY = Network(loss=0.05, delay=0.02)


def run(seconds: float = 60, network: Network = LOSSY, **settings: Any) -> Trace:
    return simulate(30.0, seconds=seconds, width=400, quality=80, work=0, network=network, **settings)


def shown(trace: Trace) -> float:
    ledger = metrics.frame_ledger(trace)
    return ledger.shown / ledger.offered


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_retransmission_shows_more_than_995_of_1000_frames(spread: float) -> None:
    bare, repaired = run(spread=spread), run(spread=spread, repair="rtx")
    assert bare.packets.groupby("timestamp").size().max() <= 12
    assert shown(bare) < 0.8
    assert shown(repaired) >= 0.995


def lost_media(trace: Trace) -> set[int]:
    return set(trace.packets.query("ssrc == 1 and bytes > 0 and fate in ('lost', 'recovered')")["seq"])


def test_repair_shifts_nothing_of_what_the_media_loses() -> None:
    assert lost_media(run(seconds=20)) == lost_media(run(seconds=20, repair="rtx"))


@pytest.mark.parametrize(("parity", "least"), [(0.2, 0.9), (0.5, 0.96)])
def test_parity_brings_back_what_groups_allow(parity: float, least: float) -> None:
    trace = run(repair="fec", parity=parity)
    assert shown(trace) > least
    assert metrics.packet_ledger(trace).recovered > 100
    assert trace.packets["bytes"].max() <= MAX_PACKET


def test_interleaved_parity_stands_up_to_bursts() -> None:
    bursts = Network(loss=0.02, burst=2, delay=0.02)
    assert shown(run(network=bursts, repair="fec", parity=0.4)) > shown(run(network=bursts)) + 0.03


NETWORKS = [
    LOSSY,
    Network(loss=0.3, burst=4, delay=0.05, jitter=0.02),
    Network(loss=0.1, jitter=0.01, reorder=True, duplicate=0.05),
    Network(rate=1500, queue=0.05, delay=0.01),
    Network(loss=1.0),
    Network(delay=0.2, loss=0.1),
]


@pytest.mark.parametrize(("network", "repair"), list(product(NETWORKS, ["rtx", "fec"])), ids=str)
def test_ledgers_close_and_a_seed_is_a_run(network: Network, repair: str) -> None:
    settings: dict[str, Any] = {"repair": repair, "spread": 0.4, "playout_delay": "adaptive"}
    first, second = (run(seconds=15, network=network, **settings) for _ in range(2))
    for name in ("frames", "packets"):
        assert first.rows(name).tobytes() == second.rows(name).tobytes()
    packets, frames = metrics.packet_ledger(first), metrics.frame_ledger(first)
    assert packets.closes
    assert frames.closes
    assert frames.offered == 450


def test_an_adaptive_delay_goes_with_the_jitter() -> None:
    def found(jitter: float) -> float:
        trace = run(seconds=120, network=Network(delay=0.02, jitter=jitter), playout_delay="adaptive")
        return float(trace.settings.query("name == 'playout_target'")["value"].iloc[-1])

    calm, rough = found(0.002), found(0.03)
    assert calm < 0.06
    assert rough > 0.1


def test_growing_is_counted_as_a_rebuffer() -> None:
    trace = run(seconds=60, network=Network(delay=0.02, jitter=0.08), playout_delay="adaptive")
    rebuffers = trace.settings.query("name == 'rebuffer'")
    assert len(rebuffers) >= 1
    assert (rebuffers["value"].astype(float) > 0).all()
    late = metrics.frame_ledger(trace).late + metrics.frame_ledger(trace).incomplete
    fixed = metrics.frame_ledger(run(seconds=60, network=Network(delay=0.02, jitter=0.08), playout_delay=0.1))
    assert late < 0.5 * (fixed.late + fixed.incomplete)


def test_an_adaptive_delay_waits_for_repair_on_a_long_way() -> None:
    far = Network(loss=0.05, delay=0.15)
    assert shown(run(network=far, repair="rtx", playout_delay=0.1)) < 0.8
    assert shown(run(network=far, repair="rtx", playout_delay="adaptive")) > 0.95


@pytest.mark.parametrize(("rate", "settled"), [(3000, 0), (1200, 7)])
def test_rate_control_comes_down_before_the_bottleneck_drops(rate: float, settled: float) -> None:
    """3.5 Mbit/s into a little less: nothing is lost. Into a third: the queue is full before the first report."""
    narrow = Network(rate=rate, queue=0.3, delay=0.02)

    def adapted(rate_control: str | None) -> Trace:
        return simulate(
            30.0, seconds=60, width=640, work=0, network=narrow, playout_delay=0.4, rate_control=rate_control
        )

    kept, trace = adapted(None), adapted("aimd")
    assert shown(kept) < 0.4
    assert (trace.packets.query("fate == 'lost'")["sent"] < settled).all()
    assert shown(trace) > 0.9
    assert (trace.settings["name"] == "quality").sum() > 1
    assert metrics.packet_ledger(trace).closes


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"repair": "nack"}, "repair must be 'rtx'"),
        ({"parity": 2}, "parity must be 0 to 1"),
        ({"spread": 1}, "spread must be 0"),
        ({"playout_delay": "quick"}, "playout_delay must be 0 to 5 seconds or 'adaptive'"),
        ({"repair": "rtx", "network": None}, "there are none without a network"),
        ({"rate_control": "aimd", "network": None}, "there are none without a network"),
        ({"rate_control": "pid"}, "rate_control must be one of aimd or None"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        run(seconds=1, **settings)
