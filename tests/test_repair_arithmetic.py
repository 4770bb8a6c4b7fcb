"""Retransmission against arithmetic: how many rounds there is time for says how many frames are shown.

What is asked for again, and when, is reckoned here on its own: from the playout delay, the round trip, the frames'
interval, and how a loss is noticed.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import product

import numpy as np
import pytest
from packing import JpegPacketizer

from avlab.core.arriving import Described
from avlab.core.events import Path
from avlab.core.player import Player
from avlab.measure.record.trace import Trace
from avlab.media import codec
from avlab.network.parity import ParityEncoder
from avlab.network.retransmission import ASKING, LAST_NS, QUIET_NS, Requester
from avlab.network.settings import Network
from avlab.stream.simulate import simulate
from avlab.timing.playout import TARDY_NS
from avlab.wire.batch import Batch
from avlab.wire.rtp import JPEG, VIDEO_CLOCK
from avlab.wire.units import EncodedFrame

MS = 1_000_000
RTX_SSRC = 2

NOTICED_MS = {
    0: QUIET_NS / 1e6,  # nothing of the frame after it: its end is overdue
    1: ASKING.reorder_ns / 1e6,
    2: ASKING.reorder_ns / 1e6,
    3: 0.0,  # three later ones
}
"""How long after the frame's arrival a lost packet is asked for, by how many of its frame came after it."""


def rounds(noticed_ms: float, *, trip_ms: float, playout_ms: float, interval_ms: float) -> int:
    """How often there is time to ask for a packet and to be answered before its frame is given up."""
    last_ms = playout_ms + min(interval_ms, TARDY_NS / 1e6) - trip_ms - LAST_NS / 1e6
    asked, moment_ms = 0, noticed_ms
    while moment_ms <= last_ms + 1e-6 and asked < ASKING.tries:
        asked += 1
        again_ms = moment_ms + trip_ms + ASKING.margin_ns / 1e6
        moment_ms = last_ms if again_ms > last_ms >= moment_ms + trip_ms else again_ms
    return asked


def share_shown(packets: int, loss: float, *, trip_ms: float, playout_ms: float, interval_ms: float) -> float:
    """The share of frames of so many packets of which every lost packet comes back in time."""
    times = {"trip_ms": trip_ms, "playout_ms": playout_ms, "interval_ms": interval_ms}

    @cache
    def back(noticed_ms: float) -> float:
        answered = (1 - loss) ** 2  # what asks is lost as often as what answers
        return 1 - (1 - answered) ** rounds(noticed_ms, **times)

    @cache
    def rest(left: int, after: int) -> float:
        """Of the `left` packets in front, when `after` of those behind them came, from the last one to the first."""
        if not left:
            return 1.0
        came = (1 - loss) * rest(left - 1, min(3, after + 1))
        return came + loss * back(NOTICED_MS[after]) * rest(left - 1, after)

    whole_lost = loss**packets  # nothing came at all: the next one's absence is noticed, an interval later
    instead = back(NOTICED_MS[0] + interval_ms) ** packets - back(NOTICED_MS[0]) ** packets
    return rest(packets, 0) + whole_lost * instead


def test_the_reckoning_is_that_of_plain_cases() -> None:
    none = share_shown(7, 0.1, trip_ms=500, playout_ms=100, interval_ms=33)
    assert none == pytest.approx(0.9**7)
    once = share_shown(7, 0.1, trip_ms=90, playout_ms=100, interval_ms=33)
    assert once == pytest.approx((1 - 0.1 * (1 - 0.9**2)) ** 7)
    assert share_shown(7, 0.1, trip_ms=2, playout_ms=100, interval_ms=33) > 1 - 1e-6


def held(
    fps: float, width: int, playout: float, *, delay: float, loss: float, seconds: float
) -> tuple[float, int, int]:
    """Frames that the arithmetic expects not to be shown, those that were not, and all, but for the first second's."""
    network = Network(loss=loss, delay=delay, seed=round(1e4 * delay + 1e6 * loss))
    trace = simulate(fps, seconds=seconds, width=width, work=0, network=network, playout_delay=playout, repair="rtx")
    frames = trace.frames.query("pts >= 1")  # by then the round trip is known
    times = {"trip_ms": 2e3 * delay, "playout_ms": 1e3 * playout, "interval_ms": 1e3 / fps}
    sizes = Counter(trace.packets.query(f"ssrc != {RTX_SSRC} and fate != 'duplicate'").groupby("timestamp").size())
    expected = sum(n * (1 - share_shown(count, loss, **times)) for count, n in sizes.items()) / sizes.total()
    return expected * len(frames), int((frames["fate"] != "shown").sum()), len(frames)


@pytest.mark.parametrize("delay", [0.001, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04])
def test_as_many_frames_are_shown_as_there_are_rounds_for(delay: float) -> None:
    for loss in (0.01, 0.05, 0.1, 0.2):
        expected, missed, frames = held(30.0, 400, 0.1, delay=delay, loss=loss, seconds=60)
        error = math.sqrt(expected * (1 - expected / frames))
        assert abs(missed - expected) <= 3 * max(error, 1), (loss, expected, missed)


@pytest.mark.parametrize(
    ("fps", "width", "playout", "delay"),
    [
        (25.0, 400, 0.15, 0.02),
        (60.0, 400, 0.08, 0.01),
        (10.0, 400, 0.2, 0.03),
        (30.0, 640, 0.1, 0.012),
        (30.0, 160, 0.1, 0.02),  # two packets a frame: one in 25 is lost whole
        (50.0, 64, 0.1, 0.01),  # one
    ],
)
def test_it_is_so_for_other_rates_sizes_and_delays(fps: float, width: int, playout: float, delay: float) -> None:
    for loss in (0.05, 0.2):
        expected, missed, frames = held(fps, width, playout, delay=delay, loss=loss, seconds=1800 / fps)
        error = math.sqrt(expected * (1 - expected / frames))
        assert abs(missed - expected) <= 3 * max(error, 1), (loss, expected, missed)


# ---- what it costs


def again(trace: Trace) -> Counter[str]:
    """What became of the packets that were sent again."""
    return Counter(trace.packets.query(f"ssrc == {RTX_SSRC}")["fate"].astype(str))


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize(
    "network",
    [
        Network(delay=0.02),
        Network(delay=0.02, jitter=0.005),
        Network(delay=0.02, jitter=0.02),
        Network(delay=0.02, jitter=0.002, reorder=True),
        Network(delay=0.02, jitter=0.01, reorder=True),
    ],
    ids=str,
)
def test_where_nothing_is_lost_little_is_asked_for(network: Network, spread: float) -> None:
    trace = simulate(30.0, seconds=60, width=400, network=network, repair="rtx", spread=spread)
    sent = (trace.packets["ssrc"] != RTX_SSRC).sum()
    assert again(trace).total() <= 0.035 * sent


@pytest.mark.parametrize(("delay", "loss"), list(product([0.005, 0.02, 0.04], [0.05, 0.2])))
def test_hardly_anything_is_asked_for_that_was_not_lost(delay: float, loss: float) -> None:
    trace = simulate(30.0, seconds=60, width=400, network=Network(delay=delay, loss=loss), repair="rtx")
    fates = again(trace)
    assert fates["duplicate"] <= 0.06 * fates.total()
    lost = trace.packets.query(f"ssrc != {RTX_SSRC} and fate in ('lost', 'recovered')")
    # Each loss is asked for once, and again as often as the answer is lost.
    assert fates.total() <= 1.08 * len(lost) / (1 - loss)


def test_what_is_asked_for_and_comes_by_itself_is_counted() -> None:
    receiver = Requester()
    for number in (1, 3, 4, 5):
        receiver.arrived(number, 0, False, 0)
    assert receiver.pull(0) == [2]
    receiver.arrived(2, 0, False, 4 * MS)
    assert (receiver.asked, receiver.in_vain) == (1, 1)


# ---- how a loss at a frame's end is noticed, and asked for again


def stream(receiver: Requester, frames: range, packets: int, *, lost: frozenset[int] = frozenset()) -> None:
    """Frames of so many packets, 40 ms apart, that come all at once; numbers from 0 on."""
    for at in frames:
        for number in range(at * packets, (at + 1) * packets):
            if number not in lost:
                last = number % packets == packets - 1
                receiver.arrived(number, at * 40 * MS, last, at * 40 * MS)
        receiver.pull(at * 40 * MS)


def asked_until(receiver: Requester, until_ns: int) -> list[tuple[int, list[int]]]:
    """What is asked for up to a moment, and when."""
    out = []
    while (wake_ns := receiver.wake_at()) is not None and wake_ns < until_ns:
        if numbers := receiver.pull(wake_ns):
            out.append((wake_ns, numbers))
    return out


def learnt(packets: int, *, trip_ms: int = 10) -> Requester:
    """A receiver that has seen ten frames, and knows the round trip."""
    receiver = Requester()
    receiver.base_ns = 100 * MS
    stream(receiver, range(10), packets)
    receiver.trip.measure(trip_ms * MS, 9 * 40 * MS)
    receiver.trip.deviation_ns = 0
    return receiver


def test_the_last_packet_whose_answer_is_lost_too_is_asked_for_again_before_the_next_frame() -> None:
    receiver = learnt(5)
    stream(receiver, range(10, 11), 5, lost=frozenset({54}))
    asked = asked_until(receiver, 440 * MS)
    assert [numbers for _, numbers in asked] == [[54], [54], [54]]
    assert asked[1][0] - asked[0][0] == 10 * MS + ASKING.margin_ns
    stream(receiver, range(11, 12), 5)  # and goes on being asked for, once the next frame has come
    assert [54] in [numbers for _, numbers in asked_until(receiver, 480 * MS)]


@pytest.mark.parametrize("trip_ms", [10, 30, 60])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_all_of_an_end_that_is_lost_is_asked_for_at_once(count: int, trip_ms: int) -> None:
    receiver = learnt(5, trip_ms=trip_ms)
    end = range(55 - count, 55)
    stream(receiver, range(10, 11), 5, lost=frozenset(end))
    [(asked_ns, numbers)] = asked_until(receiver, 410 * MS)
    assert numbers == list(end)
    assert asked_ns == pytest.approx(405 * MS, abs=MS)


def test_an_end_that_is_longer_than_usual_is_asked_for_as_soon_as_that_shows() -> None:
    receiver = learnt(5)
    for number in range(50, 53):  # of seven
        receiver.arrived(number, 400 * MS, False, 400 * MS)
    [(asked_ns, numbers)] = asked_until(receiver, 410 * MS)
    assert numbers == [53, 54]
    back_ns = asked_ns + 10 * MS
    assert receiver.restored(53, 400 * MS, False, back_ns)
    assert receiver.restored(54, 400 * MS, False, back_ns)
    assert receiver.pull(back_ns)[:1] == [55]  # overdue already


def test_numbers_behind_an_end_that_comes_sooner_than_usual_are_the_next_frames() -> None:
    receiver = learnt(5)
    for number in range(50, 52):  # of three
        receiver.arrived(number, 400 * MS, False, 400 * MS)
    [(asked_ns, numbers)] = asked_until(receiver, 410 * MS)
    assert numbers == [52, 53, 54]
    assert receiver.restored(52, 400 * MS, True, asked_ns + 10 * MS)
    assert len(receiver) == 0
    assert asked_until(receiver, 440 * MS) == []
    for number in range(53, 58):
        receiver.arrived(number, 440 * MS, number == 57, 440 * MS)
    assert receiver.pull(440 * MS) == []


def test_a_small_frame_that_is_lost_whole_is_asked_for_whole() -> None:
    receiver = learnt(2)
    assert [numbers for _, numbers in asked_until(receiver, 420 * MS)] == [[20, 21]]
    big = learnt(8)
    assert [numbers for _, numbers in asked_until(big, 420 * MS)] == [[80]]


def test_a_first_packet_whose_answer_is_lost_is_asked_for_again_once_others_come() -> None:
    receiver = learnt(8)
    assert [numbers for _, numbers in asked_until(receiver, 410 * MS)] == [[80]]  # nothing of the frame has come
    for number in range(81, 88):
        receiver.arrived(number, 400 * MS, number == 87, 412 * MS)
    assert asked_until(receiver, 425 * MS) == [(420 * MS, [80])]


def test_a_way_that_grows_longer_is_learnt_though_all_is_asked_for_twice() -> None:
    """With a round trip of 40 ms believed, and one of 90 ms: every packet is asked for again before its answer."""
    receiver = learnt(8, trip_ms=40)
    receiver.base_ns = 10_000 * MS
    numbers = range(80, 80 + 8 * 40)
    lost = frozenset(range(81, 400, 16))
    answers: list[tuple[int, int]] = []
    asks: Counter[int] = Counter()
    for number in numbers:
        now_ns = number // 8 * 40 * MS
        for wake_ns in range(now_ns, now_ns + 40 * MS if number % 8 == 7 else now_ns + 1, 5 * MS):
            for came_ns, back in [answer for answer in answers if answer[0] <= wake_ns]:
                receiver.restored(back, back // 8 * 40 * MS, False, came_ns)
                answers.remove((came_ns, back))
            for asked in receiver.pull(wake_ns):
                asks[asked] += 1
                answers.append((wake_ns + 90 * MS, asked))
        if number not in lost:
            receiver.arrived(number, now_ns, number % 8 == 7, now_ns)
    assert receiver.trip.smooth_ns is not None
    assert receiver.trip.smooth_ns > 75 * MS
    assert [asks[number] for number in sorted(lost)[-6:-3]] == [1, 1, 1]


def test_a_repair_at_the_very_start_adds_nothing_to_the_playout_delay() -> None:
    for seed in range(8):
        network = Network(delay=0.03, loss=0.2, seed=seed)
        trace = simulate(30.0, seconds=5, width=400, work=0, network=network, repair="rtx", playout_delay=0.12)
        shown = trace.frames.query("fate == 'shown'")
        assert (shown["shown"] - shown["pts"]).min() == pytest.approx(0.15, abs=1e-6)


@pytest.mark.parametrize("repaired_ms", [None, 5, 80])
def test_nor_does_it_on_sockets(repaired_ms: int | None) -> None:
    """The client's own player, at literal moments: a picture comes, of which one packet was lost and made up for."""
    noise = np.random.default_rng(1).integers(0, 255, (240, 320, 3), np.uint8)
    picture, width, height = codec.encode_jpeg(noise, quality=60)
    packer = JpegPacketizer(ssrc=1, sequence=0, timestamp_offset=0)
    packets = packer.pack(EncodedFrame(0, 0, picture, width, height))
    assert len(packets) > 3
    [*_, parity] = ParityEncoder(payload_type=99, overhead=1 / len(packets)).protect(packets)
    player = Player()
    player.add("video", Described(JPEG, VIDEO_CLOCK, ssrc=1, repairs={"fec": 99}, repair="fec"))
    player.prepare(streams={"video"}, delay_ns=100 * MS)
    player.begin(0, {"video": 0}, 0)

    def arrives(data: bytes, now_ns: int) -> None:
        player.receive(Path("video"), Batch(data, len(data)), now_ns)
        player.handle_timer(now_ns)

    for number, data in enumerate(packets):
        if number != 1 or repaired_ms is None:
            arrives(data, 10 * MS)
    if repaired_ms is not None:
        assert player.base_ns is None
        arrives(parity, (10 + repaired_ms) * MS)
    assert player.base_ns == 110 * MS
