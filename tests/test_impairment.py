"""What a network does to packets, held against theory with fixed seeds; nothing is lost or made beyond what is said."""

from __future__ import annotations

import random
from dataclasses import FrozenInstanceError, replace
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import avlab
from avlab.network.impairment import Copy, Impairment, InTransit, Outcome
from avlab.network.settings import Network
from avlab.timing.stage import Dropped
from avlab.wire.batch import Batch

MS = 1_000_000
NS = 1_000_000_000


def run(
    stage: Impairment,
    count: int = 10_000,
    *,
    every_ns: int = MS,
    stream: str = "video",
    size: int = 1200,
    together: int = 1,
    start: int = 0,
) -> list[tuple[int, Outcome]]:
    """Push `count` packets, `together` at a time, numbered from `start`; what came out, and when, to the last."""
    out: list[tuple[int, Outcome]] = []
    for number in range(start, start + count):
        now_ns = number // together * together * every_ns
        drain(stage, now_ns, out)
        stage.push(InTransit(stream, size, (number, now_ns)), now_ns)
    drain(stage, None, out)
    return out


def drain(stage: Impairment, until_ns: int | None, out: list[tuple[int, Outcome]]) -> None:
    """Wake a stage whenever it wants to be, up to a moment, or until it is idle."""
    while (wake_ns := stage.wake_at()) is not None and (until_ns is None or wake_ns <= until_ns):
        out += [(wake_ns, outcome) for outcome in stage.pull(wake_ns)]


def packet_of(outcome: Outcome) -> InTransit:
    if isinstance(outcome, Copy):
        return outcome.packet
    packet: InTransit = outcome.item if isinstance(outcome, Dropped) else outcome
    return packet


def number(outcome: Outcome) -> int:
    found: int = packet_of(outcome).item[0]
    return found


def lost(out: list[tuple[int, Outcome]]) -> list[int]:
    assert {outcome.reason for _, outcome in out if isinstance(outcome, Dropped)} <= {"lost"}
    return sorted(number(outcome) for _, outcome in out if isinstance(outcome, Dropped))


def arrived(out: list[tuple[int, Outcome]]) -> list[int]:
    return [number(outcome) for _, outcome in out if isinstance(outcome, InTransit)]


def delays(out: list[tuple[int, Outcome]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of the packets that arrived, in ms, in the order of sending."""
    found = {outcome.item[0]: at_ns - outcome.item[1] for at_ns, outcome in out if isinstance(outcome, InTransit)}
    return np.array([found[number] for number in sorted(found)]) / MS


# ---- loss


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 1.0])
def test_independent_loss(share: float) -> None:
    gone = lost(run(Impairment(Network(loss=share)), 15_000))
    assert len(gone) / 15_000 == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 15_000))
    together = np.mean(np.diff(gone) == 1) if len(gone) > 1 else 0
    assert together == pytest.approx(
        share if len(gone) > 1 else 0, abs=0.05
    )  # whether one goes says nothing of the next


@pytest.mark.parametrize(("share", "length"), [(0.02, 3.0), (0.2, 10.0), (0.5, 4.0), (0.9, 20.0)])
def test_bursts_have_the_mean_loss_and_the_mean_length(share: float, length: float) -> None:
    gone = set(lost(run(Impairment(Network(loss=share, burst=length)), 60_000)))
    runs = [len(list(group)) for is_lost, group in groupby(range(60_000), gone.__contains__) if is_lost]
    # A burst and the gap behind it are two geometric lengths: this many cycles leave so much to chance.
    spread = 4 / np.sqrt(len(runs))
    assert len(gone) / 60_000 == pytest.approx(share, rel=1.5 * spread)
    assert np.mean(runs) == pytest.approx(length, rel=spread)
    assert np.std(runs) == pytest.approx(np.sqrt(length * (length - 1)), rel=2 * spread)  # a geometric distribution's


@pytest.mark.parametrize("length", [1.0, 1.2, 1 / 0.7])
def test_a_burst_no_longer_than_chance_has_is_chance(length: float) -> None:
    assert lost(run(Impairment(Network(loss=0.3, burst=length)))) == lost(run(Impairment(Network(loss=0.3))))


def test_a_seed_a_stream_a_client_and_a_direction_have_losses_of_their_own() -> None:
    network = Network(loss=0.1)
    usual = lost(run(Impairment(network)))
    assert usual == lost(run(Impairment(network)))
    others = [
        lost(run(Impairment(replace(network, seed=2)))),
        lost(run(Impairment(network), stream="audio")),
        lost(run(Impairment(network, client=1))),
        lost(run(Impairment(network, direction="up"))),
    ]
    for at, other in enumerate(others):
        assert other not in [usual, *others[:at]]
        both = len(set(usual) & set(other)) / 10_000
        assert both == pytest.approx(0.01, abs=0.004)  # as independent as can be


def test_the_losses_of_a_seed_stay() -> None:
    """Numbers that others may have published: they are part of the interface."""
    assert lost(run(Impairment(Network(loss=0.1, seed=1)), 100)) == [28, 40, 97]


def test_another_stream_shifts_nothing() -> None:
    network = Network(loss=0.1, jitter=0.005, delay=0.01, duplicate=0.05)
    alone = run(Impairment(network), 500)
    stage = Impairment(network)
    out: list[tuple[int, Outcome]] = []
    for n in range(500):
        drain(stage, n * MS, out)
        stage.push(InTransit("video", 1200, (n, n * MS)), n * MS)
        for _ in range(n % 3):
            stage.push(InTransit("audio", 300, (n, n * MS)), n * MS)
            stage.push(InTransit("rtsp", 300, (n, n * MS), True), n * MS)
    drain(stage, None, out)

    mine = [(at_ns, type(o), number(o)) for at_ns, o in out if packet_of(o).stream == "video"]
    assert mine == [(at_ns, type(o), number(o)) for at_ns, o in alone]


@pytest.mark.parametrize(
    "other",
    [{"delay": 0.1}, {"jitter": 0.02}, {"jitter": 0.02, "reorder": True}, {"duplicate": 0.5}, {"queue": 3.0}],
    ids=str,
)
def test_other_settings_do_not_shift_the_losses(other: dict[str, Any]) -> None:
    network = Network(loss=0.05, burst=3)
    assert lost(run(Impairment(replace(network, **other)))) == lost(run(Impairment(network)))


def test_more_loss_loses_the_same_packets_and_more_and_leaves_the_others_their_delay() -> None:
    for reorder in (False, True):
        few, many = (run(Impairment(Network(loss=p, jitter=0.01, reorder=reorder))) for p in (0.02, 0.1))
        assert set(lost(few)) < set(lost(many))
        at = [{number(o): at_ns for at_ns, o in out if isinstance(o, InTransit)} for out in (few, many)]
        assert all(at[0][n] == at_ns for n, at_ns in at[1].items())


# ---- delay, jitter, reordering, copies


def test_nothing_set_changes_nothing() -> None:
    assert Network().clear
    out = run(Impairment(), 100)
    assert arrived(out) == list(range(100))
    assert (delays(out) == 0).all()


def test_delay_is_exact() -> None:
    assert (delays(run(Impairment(Network(delay=0.0421)), 1000)) == 42.1).all()


@pytest.mark.parametrize("together", [1, 12])
@pytest.mark.parametrize("reorder", [False, True])
def test_jitter_is_exponential_with_the_mean_that_was_asked_for(reorder: bool, together: int) -> None:
    network = Network(delay=0.02, jitter=0.008, reorder=reorder)
    out = run(Impairment(network), 24_000, every_ns=3 * MS, together=together)
    beyond = delays(out)[::together] - 20  # of the first of each group
    assert beyond.min() >= 0
    assert beyond.mean() == pytest.approx(8, rel=0.08)
    assert beyond.std() == pytest.approx(8, rel=0.1)
    for share in (0.5, 0.9, 0.99):
        assert np.quantile(beyond, share) == pytest.approx(-8 * np.log(1 - share), rel=0.15)
    order = arrived(out)
    assert sorted(order) == list(range(24_000))
    assert (order == sorted(order)) is not reorder
    if together > 1 and not reorder:  # those sent together arrive together
        assert (np.ptp(delays(out).reshape(-1, together), axis=1) == 0).all()


def test_a_receiver_reports_the_jitter_that_was_set() -> None:
    """RFC 3550, A.8, over packets that draw each its own."""
    late = delays(run(Impairment(Network(jitter=0.01, reorder=True)), every_ns=20 * MS))
    jitter = [0.0]
    for before, after in pairwise(late):
        jitter.append(jitter[-1] + (abs(after - before) - jitter[-1]) / 16)
    assert np.mean(jitter[100:]) == pytest.approx(10, rel=0.05)


def test_copies() -> None:
    out = run(Impairment(Network(duplicate=0.1, loss=0.2, delay=0.01)), 15_000)
    copies = [number(outcome) for _, outcome in out if isinstance(outcome, Copy)]
    assert len(copies) / len(arrived(out)) == pytest.approx(0.1, abs=0.01)
    assert not set(copies) & set(lost(out))
    there = [number(outcome) for _, outcome in out if not isinstance(outcome, Dropped)]
    assert there == sorted(there)  # without reordering a copy follows its original at once
    reordered = run(Impairment(Network(duplicate=1.0, jitter=0.005, reorder=True)), 5000)
    at: dict[int, int] = {}
    apart = [
        at_ns - at.setdefault(number(o), at_ns) for at_ns, o in reordered if isinstance(o, Copy) or number(o) not in at
    ]
    assert min(apart) >= 0
    assert np.mean([gap > 0 for gap in apart]) > 0.2


# ---- the bottleneck


def test_the_bottleneck_passes_its_rate_and_no_more() -> None:
    out = run(Impairment(Network(rate=2_000, queue=0.2)), 5_000)  # 9,600 kbit/s are offered
    times = np.array([at_ns for at_ns, outcome in out if isinstance(outcome, InTransit)])
    assert np.diff(times) == pytest.approx(4.8 * MS, abs=1)  # 1,200 bytes at 2,000 kbit/s
    late = delays(out)
    assert late[0] == 4.8  # only itself
    assert late.max() <= 200 + 4.8
    assert late[-100:].min() > 195
    assert len(lost(out)) == pytest.approx(5_000 * (1 - 2_000 / 9_600) - 200 / 4.8, abs=2)
    assert arrived(out) == sorted(arrived(out))


@pytest.mark.parametrize(("queue", "passed"), [(0.0, 1), (0.01, 2), (0.05, 6), (1.0, 10)])
def test_a_burst_finds_the_room_that_there_is(queue: float, passed: int) -> None:
    """Ten packets of 10 ms each: as many pass as find no more than the queue waiting."""
    out = run(Impairment(Network(rate=960, queue=queue)), 10, together=10)
    assert arrived(out) == list(range(passed))
    assert delays(out) == pytest.approx(10 * np.arange(1, passed + 1))
    assert [at_ns for at_ns, outcome in out if isinstance(outcome, Dropped)] == [0] * (10 - passed)


def test_an_idle_bottleneck_delays_a_packet_by_itself_alone() -> None:
    out = run(Impairment(Network(rate=9_600, delay=0.03)), 500, every_ns=2 * MS)
    assert delays(out) == pytest.approx(31)


def test_streams_share_the_bottleneck() -> None:
    stage = Impairment(Network(rate=960, queue=0.02))
    for n, stream in enumerate(["video", "audio"] * 5):
        stage.push(InTransit(stream, 1200, (n, 0)), 0)
    out: list[tuple[int, Outcome]] = []
    drain(stage, None, out)
    assert arrived(out) == [0, 1, 2]
    assert stage.backlog_ns(0) == 0


# ---- what TCP carries


def test_bytes_of_a_connection_are_held_and_never_lost_copied_or_reordered() -> None:
    stage = Impairment(Network(loss=0.5, duplicate=1, jitter=0.02, delay=0.05, reorder=True, rate=1_000, queue=0.03))
    out: list[tuple[int, Outcome]] = []
    for n in range(300):
        drain(stage, n * MS, out)
        stage.push(InTransit("rtsp", 1000, (n, n * MS), reliable=True), n * MS)
        assert stage.reliable_bytes == 1000 * (n + 1 - len(out))
    drain(stage, None, out)
    assert [number(outcome) for _, outcome in out] == list(range(300))
    assert all(isinstance(outcome, InTransit) for _, outcome in out)
    assert stage.reliable_bytes == 0
    assert out[0][0] >= 50 * MS
    assert out[-1][0] >= 300 * 8 * MS + 50 * MS  # a thousand bytes take 8 ms


def test_a_connection_waits_for_room_and_fills_the_queue_for_the_others() -> None:
    stage = Impairment(Network(rate=960, queue=0.05))
    for n in range(100):
        stage.push(InTransit("rtsp", 1200, (n, 0), reliable=True), 0)
    assert stage.backlog_ns(0) == 60 * MS  # the first one that finds 50 ms waiting is let in, no more
    out: list[tuple[int, Outcome]] = []
    stage.push(InTransit("video", 1200, (1000, 0)), 0)
    drain(stage, None, out)
    assert lost(out) == [1000]
    assert [at_ns // MS for at_ns, outcome in out if isinstance(outcome, InTransit)] == [10 * n for n in range(1, 101)]


# ---- while it runs


def test_settings_act_on_the_next_packet_and_lose_nothing_of_what_is_under_way() -> None:
    stage = Impairment(Network(delay=0.1))
    for n in range(5):
        stage.push(InTransit("video", 1200, (n, 0)), 0)
    stage.network = Network(loss=1)
    for n in range(5, 10):
        stage.push(InTransit("video", 1200, (n, 0)), MS)
    stage.network = Network()
    stage.push(InTransit("video", 1200, (10, 0)), 2 * MS)
    out: list[tuple[int, Outcome]] = []
    drain(stage, None, out)
    assert lost(out) == list(range(5, 10))
    assert arrived(out) == [0, 1, 2, 3, 4, 10]  # the last one does not overtake


def test_a_change_of_other_settings_does_not_shift_the_losses() -> None:
    network = Network(loss=0.1)
    stage = Impairment(network)
    out = run(stage, 1000)
    stage.network = replace(network, delay=0.05, jitter=0.01, duplicate=0.3, reorder=True)
    out += run(stage, 1000, start=1000)
    assert lost(out) == lost(run(Impairment(network), 2000))
    stage.network = replace(network, seed=5)
    assert lost(run(stage, 500, start=2000)) == [n + 2000 for n in lost(run(Impairment(stage.network), 500))]


def test_a_bottleneck_that_is_opened_lets_go_of_what_waited() -> None:
    stage = Impairment(Network(rate=1.0, queue=10))
    stage.push(InTransit("video", 1200, (0, 0)), 0)
    for n in range(1, 4):
        stage.push(InTransit("rtsp", 1200, (n, 0), reliable=True), 0)
    assert stage.pull(MS) == []
    stage.network = Network(rate=10, queue=10)  # half of the first has passed: 480 ms are left of it
    stage.push(InTransit("video", 1200, (4, 0)), 4800 * MS)
    assert stage.wake_at() == 5280 * MS
    stage.network = Network()
    stage.push(InTransit("video", 1200, (5, 0)), 4900 * MS)
    assert arrived([(0, outcome) for outcome in stage.pull(4900 * MS)]) == [0, 1, 2, 3, 4, 5]


def test_what_is_under_way_at_the_end_is_in_flight() -> None:
    stage = Impairment(Network(delay=1, duplicate=1, rate=100))
    for n in range(5):
        stage.push(InTransit("video", 1200, (n, 0)), 0)
        stage.push(InTransit("rtsp", 1200, (n + 10, 0), reliable=True), 0)
    left = stage.flush()
    assert sorted(lost([(0, dropped) for dropped in left if dropped.reason == "lost"])) == [1, 2, 3, 4]  # no room
    assert sorted(number(dropped) for dropped in left if dropped.reason == "in_flight") == [0, 10, 11, 12, 13, 14]
    assert stage.wake_at() is None
    assert stage.flush() == []


networks = st.builds(
    Network,
    loss=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    burst=st.floats(1, 20),
    delay=st.sampled_from([0.0, 0.005, 0.3]),
    jitter=st.sampled_from([0.0, 0.001, 0.1]),
    reorder=st.booleans(),
    duplicate=st.sampled_from([0.0, 0.2, 1.0]),
    rate=st.sampled_from([None, 50.0, 3_000.0]),
    queue=st.sampled_from([0.0, 0.01, 1.0]),
    seed=st.integers(),
)
steps = st.lists(
    st.tuples(st.integers(0, 20 * MS), st.sampled_from(["video", "audio", "rtsp"]), st.integers(0, 1500), networks),
    max_size=60,
)


@given(steps, st.integers(0, 9))
def test_nothing_is_lost_or_made_beyond_what_is_said(packets: list[Any], changed_every: int) -> None:
    stage = Impairment()
    out: list[tuple[int, Outcome]] = []
    now_ns = 0
    for n, (gap_ns, stream, size, network) in enumerate(packets):
        now_ns += gap_ns
        drain(stage, now_ns, out)
        if changed_every and n % changed_every == 0:
            stage.network = network
        stage.push(InTransit(stream, size, (n, now_ns), stream == "rtsp"), now_ns)
    drain(stage, None, out)
    times = [at_ns for at_ns, _ in out]
    assert times == sorted(times)
    assert sorted(arrived(out) + lost(out)) == list(range(len(packets)))
    copies = [number(outcome) for _, outcome in out if isinstance(outcome, Copy)]
    assert len(set(copies)) == len(copies)
    assert set(copies) <= set(arrived(out))
    rtsp = [n for n in arrived(out) if packets[n][1] == "rtsp"]
    assert rtsp == [n for n, packet in enumerate(packets) if packet[1] == "rtsp"]
    assert not {n for n in copies if packets[n][1] == "rtsp"}
    assert stage.reliable_bytes == 0
    assert stage.backlog_ns(now_ns) == 0


# ---- settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": -0.1}, "loss must be a share of packets from 0 to 1, not -0.1"),
        ({"loss": 2}, "loss must be a share of packets from 0 to 1, not 2"),
        ({"loss": float("nan")}, "loss must be a share of packets from 0 to 1, not nan"),
        ({"loss": "2 %"}, "loss must be a share of packets from 0 to 1, not '2 %'"),
        ({"loss": True}, "loss must be a share"),
        ({"duplicate": 1.5}, "duplicate must be a share of packets from 0 to 1, not 1.5"),
        ({"burst": 0.5}, "burst must be 1 packet or more, not 0.5"),
        ({"burst": float("inf")}, "burst must be at most 1,000,000 packets, not inf"),
        ({"burst": 1e300}, "burst must be at most 1,000,000 packets, not 1e\\+300"),
        ({"burst": float("nan")}, "burst must be 1 packet or more, not nan"),
        ({"delay": -1}, "delay must be 0 or more seconds, not -1"),
        ({"delay": 1e300}, "delay must be at most 10 seconds, not 1e\\+300"),
        ({"delay": 20}, r"delay must be at most 10 seconds, not 20: did you mean 0.02 s\\?"),
        ({"jitter": 40}, r"jitter must be at most 10 seconds, not 40: did you mean 0.04 s\\?"),
        ({"queue": 200.0}, r"queue must be at most 10 seconds, not 200.0: did you mean 0.2 s\\?"),
        ({"delay": 10_001}, "delay must be at most 10 seconds, not 10001$"),
        ({"delay": 10**400}, "delay must be at most 10 seconds, not 1000000"),
        ({"delay": -(10**5000)}, "delay must be 0 or more seconds, not a number of thousands of digits"),
        ({"jitter": float("inf")}, "jitter must be at most 10 seconds, not inf"),
        ({"jitter": float("-inf")}, "jitter must be 0 or more seconds, not -inf"),
        ({"jitter": float("nan")}, "jitter must be 0 or more seconds, not nan"),
        ({"queue": 1e18}, "queue must be at most 10 seconds, not 1e\\+18"),
        ({"queue": None}, "queue must be 0 or more seconds, not None"),
        ({"rate": 0}, "rate must be more than 0 kbit/s, or None for no bottleneck, not 0"),
        ({"rate": -5}, "rate must be more than 0 kbit/s"),
        ({"rate": float("nan")}, "rate must be more than 0 kbit/s, or None for no bottleneck, not nan"),
        ({"rate": float("inf")}, "rate must be from 0.001 to 1,000,000,000 kbit/s, or None for no bottleneck, not inf"),
        ({"rate": 5e-324}, "rate must be from 0.001 to 1,000,000,000 kbit/s, or None for no bottleneck, not 5e-324"),
        ({"reorder": 1}, "reorder must be True or False, not 1"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"seed": 10**1000}, "seed must be a whole number of at most 1000 digits, not 1000000"),
        ({"seed": 10**5000}, "seed must be a whole number of at most 1000 digits, not a number of thousands of digits"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        Network(**settings)


@given(
    loss=st.floats(0, 1),
    burst=st.floats(1, 1e6),
    delay=st.floats(0, 10),
    jitter=st.floats(0, 10),
    duplicate=st.floats(0, 1),
    rate=st.none() | st.floats(0.001, 1e9),
    queue=st.floats(0, 10),
    reorder=st.booleans(),
    seed=st.integers(),
)
def test_whatever_can_be_works(**settings: Any) -> None:
    stage = Impairment(Network(**settings))
    for number in range(5):
        stage.push(InTransit("video", 1200, number), number * NS)
        stage.push(InTransit("rtsp", 300, number, True), number * NS)
    moments = 0
    while (moment_ns := stage.wake_at()) is not None and moments < 100:
        stage.pull(moment_ns)
        moments += 1
    assert moment_ns is None
    assert stage.reliable_bytes == 0


def test_a_network_is_a_frozen_value() -> None:
    assert avlab.Network is Network
    assert Network(loss=0.1) == Network(loss=0.1) != Network(loss=0.2)
    with pytest.raises(FrozenInstanceError):
        Network().loss = 0.5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Network(0.1)  # type: ignore[misc]
    with pytest.raises(TypeError, match="los"):
        Network(los=0.1)  # type: ignore[call-arg]


def test_it_says_what_it_does() -> None:
    assert str(Network()) == "clear"
    assert str(Network(queue=1, burst=3)) == "clear"
    said = "loss 0.02, in bursts of 4, delay 5 ms, jitter 30 ms, rate 4000 kbit/s, queue 200 ms"
    assert str(Network.presets["classroom"]) == said
    assert str(Network(jitter=0.01, reorder=True, duplicate=0.1)) == "jitter 10 ms, reordering, duplicate 0.1"


def test_presets_have_sources_and_the_figures_that_these_say() -> None:
    assert set(Network.presets) == set(Network.sources) == {"home-wifi", "4g", "long-haul", "classroom"}
    assert not any(network.clear for network in Network.presets.values())

    def quantile(name: str, share: float) -> float:
        network = Network.presets[name]
        return 1e3 * (network.delay - network.jitter * np.log(1 - share))

    assert quantile("home-wifi", 0.5) == pytest.approx(4.5, abs=0.5)
    assert quantile("home-wifi", 0.9) == pytest.approx(12.5, abs=0.5)
    assert quantile("4g", 0.98) == pytest.approx(89, abs=0.5)
    assert quantile("long-haul", 0.999) - 150 == pytest.approx(48, abs=0.5)
    assert quantile("classroom", 0.5) == pytest.approx(26, abs=0.5)
    assert quantile("classroom", 0.9) == pytest.approx(74, abs=0.5)
    assert not hasattr(Network(), "loss_rate")


# ---- packets that are sent together


TOGETHER = [
    Network(),
    Network(loss=0.2, seed=3),
    Network(loss=0.3, burst=3, delay=0.02),
    Network(loss=0.1, jitter=0.01, delay=0.01),
    Network(loss=0.1, jitter=0.01, reorder=True, duplicate=0.3),
    Network(duplicate=0.5, delay=0.01),
    Network(rate=500, queue=0.05, loss=0.1),
    Network(loss=lambda packet, state: packet.number % 3 == 0),
    Network(delay=lambda packet, state: packet.chance * 0.1),
]


@pytest.mark.parametrize("reliable", [False, True])
@pytest.mark.parametrize("network", TOGETHER, ids=str)
def test_packets_sent_together_fare_as_each_by_itself(network: Network, reliable: bool) -> None:
    chance = random.Random(1)
    one, all_of_them = Impairment(network), Impairment(network)
    singly: list[Any] = []
    together: list[Any] = []
    for turn in range(200):
        now_ns = turn * 7 * MS
        count, size = chance.randrange(1, 9), chance.randrange(20, 1200)
        last = chance.randrange(12, size + 1)
        batch = Batch(bytes((count - 1) * size + last), size)
        for at in range(count):
            one.push(InTransit("video", size if at < count - 1 else last, (turn, at), reliable), now_ns)
        all_of_them.push_batch("video", batch, turn, now_ns, reliable)
        singly += [(now_ns, *each) for outcome in one.pull(now_ns) for each in told_singly(outcome)]
        together += [(now_ns, *each) for outcome in all_of_them.pull(now_ns) for each in told_together(outcome)]
        assert one.reliable_bytes == all_of_them.reliable_bytes
        assert one.wake_at() == all_of_them.wake_at()
    assert singly == together
    assert [each for outcome in one.flush() for each in told_singly(outcome)] == [
        each for outcome in all_of_them.flush() for each in told_together(outcome)
    ]


def told_singly(outcome: Any) -> list[tuple[str, Any]]:
    packet, word = opened(outcome)
    return [(word, packet.item)]


def told_together(outcome: Any) -> list[tuple[str, Any]]:
    packet, word = opened(outcome)
    turn, first, after = packet.item
    return [(word, (turn, at)) for at in range(first, after)]


def opened(outcome: Any) -> tuple[Any, str]:
    if isinstance(outcome, Dropped):
        return outcome.item, outcome.reason
    return (outcome.packet, "copy") if isinstance(outcome, Copy) else (outcome, "came")
