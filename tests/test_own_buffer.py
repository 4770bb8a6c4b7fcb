"""Jitter buffers of one's own, each written as a student would; and broken ones, from which avlab's own takes over."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_machines import FPS, MS, Pair

import avlab
from avlab import Dropped, Packet, PartError, testing, whole
from avlab.core.events import FrameDecided, PacketsTaken
from avlab.stream.guard import Guard
from avlab.timing.jitterbuffer import AssemblingBuffer, Run
from avlab.timing.ownbuffer import OwnBuffer
from avlab.wire.units import NS


class FixedDelay:
    """Each frame 50 ms after its first packet."""

    def __init__(self) -> None:
        self.frames: dict[int, list[Packet]] = {}
        self.again: list[Packet] = []

    def push(self, packet: Packet, now: float) -> None:
        frame = self.frames.setdefault(packet.timestamp, [])
        (self.again if packet.number in [each.number for each in frame] else frame).append(packet)

    def pull(self, now: float) -> list[list[Packet] | Dropped]:
        again, self.again = self.again, []
        due = sorted(t for t, packets in self.frames.items() if packets[0].time + 0.05 <= now)
        frames = [sorted(self.frames.pop(timestamp)) for timestamp in due]
        out = [frame if whole(frame) else Dropped(frame, "incomplete") for frame in frames]
        return [*([Dropped(again, "duplicate")] if again else []), *out]

    def wake_at(self) -> float | None:
        return min((packets[0].time + 0.05 for packets in self.frames.values()), default=None)


class Patient:
    """Each frame when it is whole, else until its deadline; nothing of it says when to ask."""

    def __init__(self) -> None:
        self.frames: dict[int, dict[int, Packet]] = {}
        self.left: set[int] = set()
        self.out: list[Any] = []

    def push(self, packet: Packet, now: float) -> None:
        frame = self.frames.setdefault(packet.timestamp, {})
        if packet.timestamp in self.left:
            self.out.append(Dropped([packet], "late"))
        elif packet.number in frame:
            self.out.append(Dropped([packet], "duplicate"))
        else:
            frame[packet.number] = packet

    def pull(self, now: float) -> list[Any]:
        out, self.out = self.out, []
        for timestamp in sorted(self.frames):
            packets = [self.frames[timestamp][number] for number in sorted(self.frames[timestamp])]
            if not packets:
                del self.frames[timestamp]
                continue
            assert packets[0].deadline is not None
            over = packets[0].deadline <= now
            if not over and not whole(packets):
                break
            out.append(packets if whole(packets) else Dropped(packets, "incomplete"))
            self.left.add(timestamp)
            del self.frames[timestamp]
        return out


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard(lambda words: None) as guard:
        yield guard


def run(buffer: Any, **settings: Any) -> Pair:
    """Two seconds of pictures and sound, and what became of them."""
    pair = Pair(buffer=buffer, seconds=2, **settings)
    pair.run(4 * NS)
    return pair


def packets(pair: Pair, stream: str = "video") -> Counter[str | None]:
    return Counter(fate for e in pair.seen if isinstance(e, PacketsTaken) and e.stream == stream for fate in e.fates)


def came(pair: Pair) -> int:
    return sum(event.batch.total for event in pair.sent if hasattr(event, "batch") and event.stream == "video")


FRAMES = 2 * FPS


@pytest.mark.parametrize("buffer", [FixedDelay, Patient])
def test_a_buffer_of_ones_own_shows_what_avlabs_shows(buffer: Any) -> None:
    testing.check_jitter_buffer(buffer)
    mine, usual = run(buffer), run(None)
    assert mine.fates() == usual.fates() == ["shown"] * FRAMES
    assert packets(mine) == packets(usual)
    assert packets(mine, "audio") == packets(usual, "audio")


@pytest.mark.parametrize("buffer", [FixedDelay, Patient])
def test_every_packet_and_frame_has_one_fate_under_loss(buffer: Any) -> None:
    pair = run(buffer, loss=0.05)
    fates, frames = packets(pair), Counter(pair.fates())
    assert set(fates) == {"used"}
    assert fates["used"] + pair.lost == came(pair)
    assert set(frames) == {"shown", "incomplete"}
    assert sum(frames.values()) == len({e.frame.ticks for e in pair.seen if isinstance(e, FrameDecided)})
    assert frames == Counter(run(None, loss=0.05).fates())


def test_what_a_buffer_is_told_of_a_packet() -> None:
    told: list[tuple[Packet, float]] = []

    class Listens(Patient):
        def push(self, packet: Packet, now: float) -> None:
            told.append((packet, now))
            super().push(packet, now)

    pair = run(Listens)
    seen = [packet for packet, _ in told]
    assert [packet.number for packet in seen] == list(range(65_000, 65_000 + came(pair)))
    assert all(packet.stream == "video" and packet.time == now for packet, now in told)
    assert seen[0].time == 0.0
    assert all(len(packet.payload) == packet.size - 12 for packet in seen)
    frames: dict[int, list[Packet]] = {}
    for packet in seen:
        frames.setdefault(packet.timestamp, []).append(packet)
    assert len(frames) == FRAMES
    assert all(whole(frame) and len({packet.deadline for packet in frame}) == 1 for frame in frames.values())
    waits = [packet.deadline - packet.time for packet in seen if packet.deadline is not None]
    assert waits == pytest.approx([0.2] * len(seen), abs=0.005)  # the playout delay
    assert all(0 <= packet.chance < 1 for packet in seen)
    assert [packet.chance for packet in seen] == [packet.chance for packet in [p for p, _ in told]]
    assert len({packet.chance for packet in seen}) == len(seen)


def test_a_buffer_that_holds_on_for_too_long_shows_less() -> None:
    class Slow(FixedDelay):
        def pull(self, now: float) -> list[list[Packet] | Dropped]:
            return super().pull(now - 0.3)

        def wake_at(self) -> float | None:
            at = super().wake_at()
            return None if at is None else at + 0.3

    pair = run(Slow)
    assert set(pair.fates()) == {"late"}
    assert set(packets(pair)) == {"used"}


def test_what_a_buffer_says_of_packets_is_written_down() -> None:
    class Picky(Patient):
        """Takes every third packet for a late one, and tells so when it is asked."""

        def push(self, packet: Packet, now: float) -> None:
            if packet.number % 3:
                super().push(packet, now)
            else:
                self.out.append(Dropped([packet], "late"))

    pair = run(Picky)
    assert packets(pair)["late"] == pytest.approx(came(pair) / 3, abs=1)
    assert packets(pair).total() == came(pair)


def test_what_is_sent_again_goes_through_a_buffer_of_ones_own() -> None:
    pair = run(Patient, loss=0.05, repair="rtx")
    assert packets(pair)["recovered"] > 10
    assert Counter(pair.fates())["shown"] >= FRAMES - 1


@given(
    st.permutations(range(24)),
    st.sets(st.integers(0, 23), max_size=6),
    st.lists(st.integers(0, 23), max_size=6),
    st.sampled_from([FixedDelay, Patient]),
)
def test_whatever_the_network_does_every_packet_and_frame_leaves_once(
    order: list[int], lost: set[int], again: list[int], part: Any
) -> None:
    told: list[tuple[int, str]] = []
    buffer = OwnBuffer(part, AssemblingBuffer())
    arrivals = [number for number in [*order, *again] if number not in lost]
    left: list[Any] = []
    for at, number in enumerate(arrivals):
        now_ns = at * MS
        frame, place = divmod(number, 3)
        run = Run.of(100 + number, frame * 3000, frame * 33 * MS, place == 2, [bytes([0, 0, 0, place]) + b"scan"])
        deadline_ns = frame * 33 * MS + 100 * MS
        buffer.push_run(run, now_ns, deadline_ns=deadline_ns, tell=lambda at, fate, n=number: told.append((n, fate)))
        left += buffer.pull(now_ns)
    now_ns = 0
    while (wake_ns := buffer.wake_at()) is not None and now_ns < 10 * NS:
        now_ns = max(now_ns + 1, wake_ns)
        left += buffer.pull(now_ns)
    assert buffer.newest_pts_ns is None
    assert sorted(number for number, _ in told) == sorted(arrivals)
    frames = [item.item if isinstance(item, Dropped) else item for item in left]
    assert sorted(frame.ticks for frame in frames) == sorted({number // 3 * 3000 for number in arrivals})


# ---- broken ones


def spins(*_: Any) -> Any:
    while True:
        pass


def leaves(*_: Any) -> Any:
    raise SystemExit(3)


def mine(**methods: Any) -> type[Patient]:
    return type("Mine", (Patient,), methods)


def forgets(self: Patient, packet: Packet, now: float) -> None:
    if packet.number % 20:
        Patient.push(self, packet, now)


def alters(self: Patient, now: float) -> list[Any]:
    return [[p._replace(payload=b"?") for p in frame] for frame in Patient.pull(self, now)]


BROKEN = [
    ({"__init__": lambda self: 1 / 0}, "Mine failed: ZeroDivisionError"),
    ({"push": lambda self, packet, now: 1 / 0}, "Mine failed: ZeroDivisionError"),
    ({"push": lambda self, packet: None}, "Mine failed: TypeError"),
    ({"pull": lambda self, now: 1 / 0}, "Mine failed: ZeroDivisionError"),
    ({"pull": leaves}, "Mine failed: SystemExit"),
    ({"pull": lambda self, now: None}, r"its pull\(\) returned None: it must be a list of frames"),
    ({"pull": lambda self, now: "frames"}, r"its pull\(\) returned 'frames'"),
    ({"pull": lambda self, now: [3]}, r"its pull\(\) gave 3: it must be a frame"),
    ({"pull": lambda self, now: [[]]}, r"its pull\(\) gave \[\]"),
    ({"pull": lambda self, now: [p for f in Patient.pull(self, now) for p in f]}, r"its pull\(\) gave Packet"),
    ({"pull": lambda self, now: Patient.pull(self, now) * 2}, "was not pushed, or has left before"),
    ({"pull": alters}, "was not pushed, or has left before"),
    ({"pull": lambda self, now: [f[1:] for f in Patient.pull(self, now)]}, "are no frame: see avlab.whole|gave"),
    ({"pull": lambda self, now: [Dropped(f, "bored") for f in Patient.pull(self, now)]}, "dropped packets as 'bored'"),
    ({"pull": lambda self, now: []}, "holds packet 65000 for ever, or has lost it"),
    ({"push": forgets}, r"holds packet \d+ for ever, or has lost it: by its deadline at \d\.\d+ s it must leave"),
    ({"wake_at": lambda self: None, "pull": lambda self, now: []}, "holds packet 65000 for ever"),
    ({"wake_at": lambda self: 1e12, "pull": lambda self, now: []}, "holds packet 65000 for ever"),
    ({"wake_at": lambda self: 0.001, "pull": lambda self, now: []}, "gives nothing at 0.001 s, as its wake_at"),
    ({"wake_at": lambda self: "soon"}, r"its wake_at\(\) returned 'soon'"),
    ({"wake_at": lambda self: float("nan")}, r"its wake_at\(\) returned nan"),
]


@pytest.mark.parametrize(("methods", "words"), BROKEN)
def test_avlabs_own_takes_over_from_a_broken_buffer_with_all_that_it_held(
    methods: dict[str, Any], words: str, guard: Guard
) -> None:
    told: list[PartError] = []
    pair = run(mine(**methods), call=guard.call, failed=told.append)
    [error] = told
    assert str(error).startswith("the jitter buffer Mine")
    with pytest.raises(PartError, match=words):
        raise error
    fates = Counter(pair.fates())
    assert fates.total() == FRAMES
    held = 40 if "holds packet" in words else 5  # what is held for ever is too late when that shows
    assert fates["shown"] >= FRAMES - held
    assert packets(pair).total() == came(pair)
    assert set(packets(pair)) <= {"used", "late", "duplicate"}
    assert pair.fates()[-10:] == ["shown"] * 10


@pytest.mark.parametrize(("methods", "words"), BROKEN[:3])
def test_without_anyone_to_tell_a_broken_buffer_ends_the_run(methods: dict[str, Any], words: str) -> None:
    if "SystemExit" not in words:
        with pytest.raises(PartError, match=words):
            run(mine(**methods))


def test_a_buffer_with_a_loop_that_never_ends_is_ended(guard: Guard) -> None:
    told: list[PartError] = []
    began = time.monotonic()
    pair = run(mine(push=spins), call=guard.call, failed=told.append)
    assert time.monotonic() - began < 10
    assert "the jitter buffer Mine had not returned after 1.5 s, and was ended" in str(told[0])
    assert pair.fates() == ["shown"] * FRAMES


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Patient(), "jitter_buffer must be a class with push and pull"),
        (0.1, "jitter_buffer must be a class with push and pull"),
        (type("Mine", (), {"push": None}), "the jitter buffer Mine has no method push"),
        (type("Mine", (), {"push": leaves}), "the jitter buffer Mine has no method pull"),
    ],
)
def test_what_is_no_jitter_buffer_is_refused(given: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        avlab.Client("rtsp://127.0.0.1:1/x", jitter_buffer=given)
    with pytest.raises(
        ValueError, match=r"jitter_buffer='Patient' cannot be had: the classic wire has one datagram a frame"
    ):
        avlab.Client("classic://127.0.0.1:9688", jitter_buffer=Patient)
