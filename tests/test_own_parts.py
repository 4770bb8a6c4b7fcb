"""Parts of one's own in simulated time, each written as a student would; and broken ones, each of which is named."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import avlab
from avlab.network.impairment import Impairment, InTransit, Seen
from avlab.network.settings import Network
from avlab.parts import Due, PartError, PartWarning, whole
from avlab.stream.guard import Guard
from avlab.stream.simulate import simulate
from avlab.timing.pacing import DeadlinePacer, FeedbackPacer, NoPacing
from avlab.timing.seat import Seat
from avlab.timing.target import OwnTarget

MS, NS = 1_000_000, 1_000_000_000
SHORT: dict[str, Any] = {"seconds": 3.0, "work": 0.001}


def seen(number: int, *, frame: int = 0, first: bool = False, marker: bool = False) -> avlab.Packet:
    return avlab.Packet(number, frame * 3000, 0.0, 1200, "video", first, marker, b"x", None, 0.5)


class Endless(BaseException):
    """What nobody expects."""


def spins(*_: Any) -> Any:
    while True:
        pass


def leaves(*_: Any) -> Any:
    raise SystemExit(3)


# ---- values


def test_a_frame_is_whole_without_a_gap_from_its_first_packet_to_its_marker() -> None:
    packets = [seen(7, first=True), seen(8), seen(9, marker=True)]
    assert whole(packets)
    assert whole(reversed(packets))
    assert whole([seen(3, first=True, marker=True)])
    for part in ([], packets[:2], packets[1:], [packets[0], packets[2]], [*packets, packets[1]]):
        assert not whole(part)
    assert not whole([seen(7, first=True), seen(8, frame=1, marker=True)])


# ---- the network


def every_tenth(packet: avlab.Packet, state: dict[str, int]) -> bool:
    state["count"] = state.get("count", 0) + 1
    return state["count"] % 10 == 0


def slower_and_slower(packet: avlab.Packet, state: dict[str, int]) -> float:
    return 0.02 * packet.time


def test_a_loss_pattern_of_ones_own_loses_what_it_says() -> None:
    trace = simulate(30, network=Network(loss=every_tenth), **SHORT)
    fates = trace.packets["fate"]
    assert [at % 10 for at, fate in enumerate(trace.packets.sort_values("seq")["fate"]) if fate == "lost"] == [9] * (
        len(fates) // 10
    )
    [said] = trace.settings.query("name == 'network'")["value"]
    assert said == "loss every_tenth"


def test_a_delay_of_ones_own_delays_by_what_it_says() -> None:
    trace = simulate(30, network=Network(delay=slower_and_slower), **SHORT)
    packets = trace.packets
    since = packets["sent"]  # a sender report leaves before the first of them, at once
    assert (packets["received"] - packets["sent"] - 0.02 * since).abs().max() < 1e-6
    assert str(Network(delay=slower_and_slower)) == "delay slower_and_slower"
    assert "delay=slower_and_slower" in repr(Network(delay=slower_and_slower))


def test_a_packets_chance_is_its_own_so_that_a_loss_by_it_is_that_of_the_number() -> None:
    by_number = simulate(30, network=Network(loss=0.05), **SHORT)
    by_chance = simulate(30, network=Network(loss=lambda packet, state: packet.chance < 0.05), **SHORT)
    assert (by_number.packets["fate"] == by_chance.packets["fate"]).all()


def test_a_part_sees_packets_of_frames_in_their_order() -> None:
    told: list[avlab.Packet] = []

    def lost(packet: avlab.Packet, state: dict[str, Any]) -> bool:
        told.append(packet)
        return False

    trace = simulate(30, network=Network(loss=lost), **SHORT)
    assert {packet.stream for packet in told} == {"video", "video rtcp"}
    assert told[0].stream == "video rtcp", "a sender report goes before the first packet"
    assert told[0].time == 0.0
    told = [packet for packet in told if packet.stream == "video"]
    assert [packet.number for packet in told] == list(range(len(trace.packets)))
    assert sum(packet.first for packet in told) == sum(packet.marker for packet in told) == len(trace.frames)
    assert all(packet.size <= 1200 and packet.payload for packet in told)
    assert told[0].time == 0.001, "its work"
    assert 2.9 < told[-1].time < 3.0
    frames = {packet.timestamp: [p for p in told if p.timestamp == packet.timestamp] for packet in told}
    assert all(whole(packets) for packets in frames.values())


def test_state_is_one_for_each_stream_client_and_direction_and_both_functions_share_it() -> None:
    states: dict[tuple[int, str, str], set[int]] = {}
    kept: list[dict[str, Any]] = []

    def look(client: int, direction: str) -> Callable[..., int]:
        def ask(packet: avlab.Packet, state: dict[str, Any]) -> int:
            kept.append(state)
            states.setdefault((client, direction, packet.stream), set()).add(id(state))
            return 0

        return ask

    for client in (0, 1):
        for direction in ("up", "down"):
            ask = look(client, direction)
            way = Impairment(Network(loss=ask, delay=ask), client=client, direction=direction)
            for number in range(20):
                way.push(InTransit("video" if number % 2 else "audio", 100, b""), number * MS)
    assert all(len(ids) == 1 for ids in states.values())
    assert len({next(iter(ids)) for ids in states.values()}) == len(states) == 8


def test_numbers_and_timestamps_are_unwrapped_and_bytes_tell_them() -> None:
    told: list[avlab.Packet] = []

    def lost(packet: avlab.Packet, state: dict[str, Any]) -> bool:
        told.append(packet)
        return False

    way = Impairment(Network(loss=lost))
    for number in range(65_533, 65_540):
        header = bytes([0x80, 0x80 | 26]) + (number & 0xFFFF).to_bytes(2) + (2**32 + number * 5).to_bytes(5)[-4:]
        way.push(InTransit("video", 1200, header + bytes(4) + b"here"), number * MS)
    assert [packet.number for packet in told] == list(range(65_533, 65_540))
    assert {packet.payload for packet in told} == {b"here"}
    assert all(packet.marker and packet.first for packet in told)
    other = Impairment(Network(loss=lost), describe=lambda packet: Seen(packet.item, marker=True))
    other.push(InTransit("video", 10, 41), 0)
    assert told[-1][:2] == (41, 0)


def test_what_is_reliable_is_delayed_and_never_lost() -> None:
    way = Impairment(Network(loss=lambda packet, state: True, delay=lambda packet, state: 0.5))
    way.push(InTransit("tcp", 100, b"", True), 0)
    assert way.wake_at() == NS // 2
    assert way.pull(NS // 2) == [InTransit("tcp", 100, b"", True)]


def test_burst_beside_a_loss_of_ones_own_is_refused() -> None:
    with pytest.raises(ValueError, match="burst is for a loss that is a number: every_tenth itself decides"):
        Network(loss=every_tenth, burst=3)


def test_a_recorded_network_does_the_same_again() -> None:
    first = simulate(30, network=Network(loss=0.05, burst=3, delay=0.03, jitter=0.01), **SHORT)
    again = simulate(30, network=Network.replay(first), **SHORT)
    assert (again.packets["fate"] == "lost").sum() == (first.packets["fate"] == "lost").sum() > 0
    one, two = (trace.packets.set_index("seq").sort_index() for trace in (first, again))
    assert ((one["fate"] == "lost") == (two["fate"] == "lost")).all()
    delays = [(table["received"] - table["sent"]).dropna() for table in (one, two)]
    assert (delays[0] - delays[1]).abs().max() < 1e-6


def test_a_recorded_network_is_met_again_from_its_beginning() -> None:
    first = simulate(30, network=Network(loss=0.05, delay=0.03), **SHORT)
    long = simulate(30, network=Network.replay(first), seconds=9.0, work=0.001)
    shares = [(trace.packets["fate"] == "lost").mean() for trace in (first, long)]
    assert shares[0] == pytest.approx(shares[1], rel=0.2)


def test_delays_beyond_the_quickest_where_the_clocks_are_not_shared() -> None:
    first = simulate(30, network=Network(delay=0.3, jitter=0.01), **SHORT)
    server = avlab.Trace(
        frames=[], packets=first.chunks("packets"), sync=[], meta={**first.meta, "shared_clock": False}
    )
    again = simulate(30, network=Network.replay(server), **SHORT)
    took = again.packets["received"] - again.packets["sent"]
    assert took.min() == pytest.approx(0.0, abs=1e-6)
    assert 0 < took.mean() < 0.05


def test_a_trace_that_does_not_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="does not tell when packets were sent"):
        Network.replay(simulate(30, **SHORT))


def assert_it_goes_on(trace: avlab.Trace, instead: str) -> None:
    """Whatever has failed: the record names it, once, and all that was offered is shown."""
    [said] = trace.settings.query("name == 'part failed'")["value"]
    assert said.endswith(instead)
    assert len(trace.frames) == 90
    assert (trace.frames["fate"] == "shown").all()


BROKEN: list[tuple[Any, str]] = [
    (lambda packet, state: 1 / 0, "failed: ZeroDivisionError"),
    (lambda packet: True, "failed: TypeError"),
    (lambda packet, state: "yes", "returned 'yes'"),
    (lambda packet, state: None, "returned nothing: is there a return"),
    (lambda packet, state: ..., "is not written yet"),
    (lambda packet, state: [1, 2], r"returned \[1, 2\]"),
    (lambda packet, state: float("nan"), "returned nan"),
    (lambda packet, state: -1, "returned -1"),
    (leaves, "failed: SystemExit"),
]


@pytest.mark.parametrize(("part", "words"), BROKEN)
@pytest.mark.parametrize("name", ["loss", "delay"])
def test_a_broken_network_is_named(name: str, part: Any, words: str) -> None:
    with pytest.warns(PartWarning, match=f"the network's {name} .*{words}"):
        trace = simulate(30, network=Network(**{name: part}), **SHORT)
    assert_it_goes_on(trace, "The stream goes on without it")


# ---- pacers


class Fixed:
    """Every frame when it is due, as a student writes it: three methods, no name."""

    def __init__(self) -> None:
        self.frames: list[Any] = []

    def push(self, frame: Any, now_ns: int) -> None:
        self.frames.append(frame)

    def wake_at(self) -> int | None:
        return self.frames[0].pts_ns if self.frames else None

    def pull(self, now_ns: int) -> list[Any]:
        due, self.frames = self.frames, []
        return due


class EverySecond(Fixed):
    """Sends one frame of two."""

    count = 0

    def pull(self, now_ns: int) -> list[Any]:
        [frame] = super().pull(now_ns)
        self.count += 1
        return [avlab.Dropped(frame, "skipped") if self.count % 2 else Due(frame, frame.pts_ns)]


def test_a_pacer_of_three_methods_will_do() -> None:
    trace = simulate(30, pacer=Fixed, **SHORT)
    assert (trace.frames["fate"] == "shown").all()
    [said] = trace.settings.query("name == 'pacer'")["value"]
    assert said == "Fixed"


def test_a_pacer_may_drop_frames() -> None:
    trace = simulate(30, pacer=EverySecond, **SHORT)
    assert list(trace.frames.sort_values("index")["fate"]) == ["skipped", "shown"] * 45
    assert trace.frames.query("fate == 'skipped'")["sent"].isna().all()


def pacer(**methods: Any) -> type[Fixed]:
    return type("Mine", (Fixed,), methods)


BAD_PACERS = [
    ({"push": lambda self, frame, now_ns: 1 / 0}, "the pacer Mine failed: ZeroDivisionError"),
    ({"__init__": lambda self: 1 / 0}, "the pacer Mine failed: ZeroDivisionError"),
    ({"wake_at": lambda self: None}, "the pacer Mine holds frame 0 for ever"),
    ({"wake_at": lambda self: "soon"}, r"its wake_at\(\) returned 'soon'"),
    ({"wake_at": lambda self: float("nan")}, r"its wake_at\(\) returned nan"),
    ({"wake_at": lambda self: 0, "pull": lambda self, now_ns: []}, "gives nothing at 0.000000 s"),
    ({"pull": lambda self, now_ns: None}, r"its pull\(\) returned None: it must be a list"),
    ({"pull": lambda self, now_ns: [3]}, r"its pull\(\) returned 3: it must be a frame that was pushed"),
    ({"pull": lambda self, now_ns: self.frames * 2}, "must be a frame that was pushed, once"),
    ({"pull": lambda self, now_ns: [Due(self.frames.pop(), "x")]}, "returned a frame due at 'x'"),
    ({"pull": lambda self, now_ns: [avlab.Dropped(self.frames.pop(), "bored")]}, "dropped a frame as 'bored'"),
    ({"pull": lambda self, now_ns: self.frames.clear() or []}, "Mine (holds|gives)"),
    ({"pull": lambda self, now_ns: [avlab.Dropped(self.frames.pop(), np.zeros(2))]}, "dropped a frame as array"),
    ({"wake_at": lambda self: 10**400}, r"its wake_at\(\) returned 1000"),
    ({"__new__": lambda cls: 5}, "the pacer Mine has no method push"),
    ({"notices": lambda self: 1 / 0}, "the pacer Mine failed: ZeroDivisionError"),
    ({"notices": lambda self: 7}, r"its notices\(\) returned 7: it must be a list of sentences"),
    ({"notices": lambda self: "late"}, r"its notices\(\) returned 'late'"),
    ({"notices": lambda self: [1]}, r"its notices\(\) returned \[1\]"),
    ({"notices": lambda self: np.zeros(2)}, r"its notices\(\) returned array"),
    ({"notices": lambda self: itertools.repeat("late")}, r"its notices\(\) returned repeat"),
    ({"pull": leaves}, "the pacer Mine failed: SystemExit"),
]


@pytest.mark.parametrize(("methods", "words"), BAD_PACERS)
def test_a_broken_pacer_is_named(methods: dict[str, Any], words: str) -> None:
    with pytest.warns(PartWarning, match=words):
        trace = simulate(30, pacer=pacer(**methods), **SHORT)
    assert_it_goes_on(trace, "Frames are sent by their deadlines now")
    assert (trace.frames["sent"] - trace.frames["pts"]).max() < 0.01


@pytest.mark.parametrize(("methods", "words"), BAD_PACERS)
def test_deadlines_take_over_from_a_broken_pacer_with_all_that_it_held(methods: dict[str, Any], words: str) -> None:
    told: list[PartError] = []
    with Guard(lambda words: None) as guard:
        seat = Seat(pacer(**methods), call=guard.call, failed=told.append)
        seat.restart(0)
        sent = []
        for frame in (Frame(0), Frame(33 * MS), Frame(66 * MS)):
            seat.push(frame, frame.pts_ns)
            seat.notices()
            wake_ns = seat.wake_at()
            assert wake_ns is not None
            sent += seat.pull(max(wake_ns, frame.pts_ns))
    assert len(told) == 1
    assert [due.item.pts_ns for due in sent] == [0, 33 * MS, 66 * MS]


class Frame:
    index = 0

    def __init__(self, pts_ns: int) -> None:
        self.pts_ns = pts_ns


class Answers(Fixed):
    """Whatever is asked of it that it does not have, it fails of; and it has something to say."""

    told = False

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)

    def notices(self) -> list[str]:
        self.told, told = True, self.told
        return [] if told else ["a frame is near"]


def test_a_pacer_says_what_it_has_to_say_and_what_it_may_leave_out_is_not_called_for() -> None:
    trace = simulate(30, pacer=Answers, **SHORT)
    assert list(trace.settings.query("name == 'pacer'")["value"]) == ["Answers", "a frame is near"]
    assert (trace.frames["fate"] == "shown").all()


def test_a_pacer_that_keeps_to_its_contract_is_not_told_of() -> None:
    for good in (Fixed, NoPacing(), DeadlinePacer(), FeedbackPacer(lambda delay, measured, target: delay)):
        told: list[PartError] = []
        seat = Seat(good, failed=told.append)
        seat.restart(0)
        for number in range(5):
            seat.push(Frame(number * 33 * MS), number * 33 * MS)
            wake_ns = seat.wake_at()
            assert wake_ns is not None
            assert [due.item.pts_ns for due in seat.pull(wake_ns)] == [number * 33 * MS]  # type: ignore[union-attr]
            assert seat.wake_at() is None
        assert not told


# ---- playout delay


def two_fifths(delays: list[float]) -> float:
    return 0.4


class Slowest:
    """The full form: the largest delay seen, and a frame more."""

    def __init__(self) -> None:
        self.largest = 0.0

    def observe(self, stream: str, delay: float, now: float) -> None:
        assert stream == "video"
        self.largest = max(self.largest, delay)

    def target(self, now: float) -> float | None:
        return self.largest + 0.033


def shown_after(trace: avlab.Trace, last: int = 30) -> float:
    frames = trace.frames.query("fate == 'shown'").tail(last)
    return float((frames["shown"] - frames["first_packet"]).mean())


def test_a_playout_delay_of_ones_own_holds_from_the_first_half_second_on() -> None:
    network = Network(delay=0.02)
    trace = simulate(30, network=network, playout_delay=two_fifths, seconds=6.0, work=0.001)
    assert shown_after(trace) == pytest.approx(0.4, abs=0.02)
    assert simulate(30, network=network, playout_delay=0.1, **SHORT).frames["shown"].iloc[0] == pytest.approx(
        trace.frames["shown"].iloc[0]
    )
    [said] = trace.settings.query("name == 'playout_delay'")["value"]
    assert said == "two_fifths"


def test_a_playout_delay_in_full_form_sees_each_arrival() -> None:
    network = Network(delay=0.02, jitter=0.02)
    trace = simulate(30, network=network, playout_delay=Slowest, seconds=10.0, work=0.001)
    assert 0.03 < shown_after(trace) < 0.3
    assert (trace.frames["fate"] == "shown").mean() > 0.95


def test_what_a_playout_delay_is_told() -> None:
    told: list[list[float]] = []

    def target(delays: list[float]) -> float:
        told.append(delays)
        return 0.1

    aim = OwnTarget(target)
    for number in range(9):
        aim.observe("video", number * 33 * MS, number * 33 * MS + 10 * MS)
    aim.move_ns(0, 300 * MS)
    assert not told  # until ten have come
    for number in range(9, 800):
        aim.observe("audio" if number % 2 else "video", number * 10 * MS, number * 10 * MS + (10 + number % 7) * MS)
        aim.move_ns(0, number * 10 * MS)
    assert all(len(delays) <= 500 for delays in told)
    assert len(told[-1]) == 500
    assert min(told[-1]) == 0.0
    assert max(told[-1]) == pytest.approx(0.006)
    assert 12 <= len(told) <= 18  # each half second


@pytest.mark.parametrize(("given", "kept_ns"), [(7.0, 5 * NS), (-1.0, 0), (float("inf"), 5 * NS), (0.25, NS // 4)])
def test_a_playout_delay_is_kept_within_0_and_5_seconds(given: float, kept_ns: int) -> None:
    aim = OwnTarget(lambda delays: given)
    for number in range(20):
        aim.observe("video", number * 33 * MS, number * 33 * MS)
    assert aim.move_ns(-10 * NS, NS) == 10 * NS + kept_ns


BAD_DELAYS: list[tuple[Any, str]] = [
    (lambda delays: 1 / 0, "failed: ZeroDivisionError"),
    (lambda: 0.1, "failed: TypeError"),
    (lambda delays: None, "returned nothing"),
    (lambda delays: "0.1", "returned '0.1'"),
    (lambda delays: float("nan"), "returned nan"),
    (lambda delays: ..., "is not written yet"),
    (leaves, "failed: SystemExit"),
    (type("Mine", (Slowest,), {"observe": lambda self, stream, delay, now: 1 / 0}), "Mine failed: ZeroDivision"),
    (type("Mine", (Slowest,), {"__init__": lambda self: 1 / 0}), "Mine failed: ZeroDivision"),
    (type("Mine", (Slowest,), {"target": lambda self, now: "later"}), "Mine returned 'later'"),
]


@pytest.mark.parametrize(("part", "words"), BAD_DELAYS)
def test_a_broken_playout_delay_is_named_and_a_tenth_of_a_second_takes_over(part: Any, words: str) -> None:
    with pytest.warns(PartWarning, match=f"the playout delay .*{words}"):
        trace = simulate(30, network=Network(delay=0.02), playout_delay=part, **SHORT)
    assert_it_goes_on(trace, "The playout delay is 0.1 s now")
    assert shown_after(trace) == pytest.approx(0.1, abs=0.02)
    told: list[PartError] = []
    with Guard(lambda words: None) as guard:
        aim = OwnTarget(part, call=guard.call, failed=told.append)
        for number in range(60):
            aim.observe("video", number * 33 * MS, number * 33 * MS)
            aim.move_ns(0, number * 33 * MS)
    assert len(told) == 1
    assert aim.move_ns(-NS, 3 * NS) == NS + NS // 10


def test_half_a_playout_delay_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="the playout delay Half has no method observe"):
        simulate(30, playout_delay=type("Half", (), {"target": lambda self, now: 0.1}), **SHORT)  # type: ignore[arg-type]


# ---- rate control


class Careful:
    """Half the width from the first report on."""

    def update(self, report: avlab.Report) -> avlab.Choice | None:
        return avlab.Choice(report.quality, 320) if report.width > 320 else None


def test_a_rate_controller_of_ones_own_may_be_handed_in_as_a_class() -> None:
    trace = simulate(30, network=Network(), rate_control=Careful, **SHORT)
    assert list(trace.settings.query("name == 'width'")["value"]) == [640, 320]


BAD_CHOICES: list[tuple[Any, str]] = [
    (lambda self, report: 1 / 0, "failed: ZeroDivisionError"),
    (lambda self: None, "failed: TypeError"),
    (lambda self, report: "better", "returned 'better'"),
    (lambda self, report: (80,), r"returned \(80,\)"),
    (lambda self, report: avlab.Choice(0, 320), "a quality from 1 to 100"),
    (lambda self, report: avlab.Choice(80, 5000), "a width from 16 to 2040 pixels"),
    (lambda self, report: avlab.Choice(80.5, 320), "whole numbers"),  # type: ignore[arg-type]
    (lambda self, report: ..., "is not written yet"),
    (leaves, "failed: SystemExit"),
]


@pytest.mark.parametrize(("update", "words"), BAD_CHOICES)
def test_a_broken_rate_controller_is_named(update: Any, words: str) -> None:
    mine = type("Mine", (), {"update": update})
    with pytest.warns(PartWarning, match=f"the rate controller Mine .*{words}"):
        trace = simulate(30, network=Network(), rate_control=mine, **SHORT)
    assert_it_goes_on(trace, "Quality and width stay as they are")
    assert list(trace.settings.query("name == 'width'")["value"]) == [640]


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"__init__": lambda self: 1 / 0}, "failed: ZeroDivisionError"),
        ({"__init__": lambda self, rate: None}, "failed: TypeError"),
        ({"__init__": leaves}, "failed: SystemExit"),
        ({"__init__": spins}, "had not returned"),
        ({"__new__": lambda cls: 5}, "has no method update"),
    ],
)
def test_a_rate_controller_that_cannot_be_made_is_named(methods: dict[str, Any], words: str) -> None:
    mine = type("Mine", (), {"update": lambda self, report: None, **methods})
    with pytest.warns(PartWarning, match=f"the rate controller Mine {words}"):
        trace = simulate(30, network=Network(), rate_control=mine, **SHORT)
    assert_it_goes_on(trace, "Quality and width stay as they are")
    assert list(trace.settings.query("name == 'rate_control'")["value"]) == ["Mine"]


# ---- what never comes back


ENDLESS: list[tuple[str, dict[str, Any]]] = [
    ("the network's loss spins", {"network": Network(loss=spins)}),
    ("the rule spins", {"pacer": FeedbackPacer(spins)}),
    ("the pacer Mine", {"pacer": pacer(wake_at=spins)}),
    ("the playout delay spins", {"playout_delay": spins, "network": Network()}),
    ("the rate controller Mine", {"rate_control": type("Mine", (), {"update": spins}), "network": Network()}),
]


@pytest.mark.parametrize(("name", "settings"), ENDLESS)
def test_a_part_that_never_comes_back_is_ended_and_named(name: str, settings: dict[str, Any]) -> None:
    began = time.monotonic()
    with pytest.warns(PartWarning, match=f"{name} had not returned after 1.5 s"):
        assert_it_goes_on(simulate(30, **SHORT, **settings), "")
    assert time.monotonic() - began < 60


def test_what_catches_everything_is_ended_too() -> None:
    def stubborn() -> None:
        for _ in range(2):
            try:
                spins()
            except BaseException:
                continue

    with Guard(lambda words: None) as guard, pytest.raises(PartError, match="the part had not returned"):
        guard.call("the part", stubborn)


def test_what_cannot_be_ended_is_named_while_it_stands_still() -> None:
    let_go, told = threading.Event(), []

    def named(words: str) -> None:
        told.append(words)
        let_go.set()

    with Guard(named) as guard, pytest.raises(PartError, match="the part had not returned"):
        guard.call("the part", let_go.wait, 60)
    assert told == ["the part has not returned, and cannot be ended: restart the kernel"]


def test_a_process_that_stands_still_is_no_fault_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("avlab.stream.guard.time.perf_counter", lambda: clock[0])
    looks = threading.Event()

    def slow() -> int:
        clock[0] += 60.0  # as while another thread holds the interpreter, or a laptop sleeps
        looks.wait(0.5)
        return 1

    with Guard(lambda words: None) as guard:
        assert guard.call("the part", slow) == 1


def test_a_guard_that_refuses_calls_no_more() -> None:
    called: list[int] = []
    with Guard(lambda words: None) as guard:
        guard.call("the part", called.append, 1)
        guard.refuse()
        with pytest.raises(PartError, match="the part is asked no more"):
            guard.call("the part", called.append, 2)
    assert called == [1]


def test_ctrl_c_is_the_persons_and_that_of_another_thread_is_the_parts() -> None:
    def interrupts() -> None:
        raise KeyboardInterrupt

    raised: list[BaseException] = []
    with Guard(lambda words: None) as guard:
        with pytest.raises(KeyboardInterrupt):
            guard.call("the part", interrupts)

        def elsewhere() -> None:
            try:
                guard.call("the part", interrupts)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(60)
    assert [str(error) for error in raised] == ["the part failed: KeyboardInterrupt"]


def test_an_exception_never_comes_after_the_part_has_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avlab.stream.guard.LIMIT_S", 0.02)
    monkeypatch.setattr("avlab.stream.guard.LOOK_S", 0.001)
    ended = 0
    with Guard(lambda words: None) as guard:
        for turn in range(60):
            until = time.perf_counter() + 0.019 + turn * 5e-5

            def busy(until: float = until) -> int:
                while time.perf_counter() < until:
                    pass
                return 1

            try:
                assert guard.call("the part", busy) == 1
            except PartError:
                ended += 1
            sum(range(1000))  # here it would come
    assert ended < 60


def test_a_simulated_part_that_cannot_be_ended_is_named_while_it_stands_still() -> None:
    let_go = threading.Event()

    def waits(packet: avlab.Packet, state: dict[str, Any]) -> bool:
        return let_go.wait(10)

    threading.Timer(5.0, let_go.set).start()
    with pytest.warns(PartWarning) as warned:
        assert_it_goes_on(simulate(30, network=Network(loss=waits), **SHORT), "The stream goes on without it")
    first, second = (str(each.message) for each in warned)
    assert first == "the network's loss waits has not returned, and cannot be ended: restart the kernel"
    assert second.startswith("the network's loss waits had not returned after 1.5 s, and was ended")
    assert {(each.category, each.filename) for each in warned} == {(PartWarning, __file__)}
