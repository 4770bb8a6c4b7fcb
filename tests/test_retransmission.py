"""Retransmission in virtual time: what comes back, what is asked for and when, and peers that ask for too much."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.network.retransmission import (
    AGAIN_NS,
    ASKING,
    CREDIT_BYTES,
    FIRST_RTT_NS,
    KEEP_BYTES,
    KEEP_NS,
    MOST_ASKED,
    SHARE,
    STALE_NS,
    Requester,
    RtxReceiver,
    RtxSender,
    original_packet,
    rtx_packet,
)
from avlab.timing.spreading import Burst, Spreader
from avlab.wire.batch import batches
from avlab.wire.rtp import RtpPacket, Unwrapper, serialize_header
from avlab.wire.units import NS, WireError

MS = 1_000_000
MEDIA, RTX, SSRC, RTX_SSRC = 26, 96, 7, 8
FRAME_NS = NS // 30


def packet(number: int, size: int = 100, timestamp: int = 0, marker: bool = False) -> bytes:
    return serialize_header(MEDIA, number & 0xFFFF, timestamp, SSRC, marker) + bytes([number & 0xFF]) * size


def history(**settings: int) -> RtxSender:
    return RtxSender(ssrc=RTX_SSRC, payload_type=RTX, sequence=65_535, **settings)


def sent(sender: RtxSender, packets: list[bytes], now_ns: int) -> None:
    for batch in batches(packets):
        sender.sent(batch, now_ns)


# ---- bytes


@given(st.binary(max_size=50), st.integers(0, 0xFFFF), st.booleans())
def test_a_retransmission_brings_the_packet_back(payload: bytes, number: int, marker: bool) -> None:
    original = RtpPacket(MEDIA, number, 1234, SSRC, marker, payload)
    again = RtpPacket.parse(rtx_packet(original.serialize(), payload_type=RTX, sequence=5, ssrc=RTX_SSRC))
    assert again == RtpPacket(RTX, 5, 1234, RTX_SSRC, marker, number.to_bytes(2, "big") + payload)
    assert original_packet(again, payload_type=MEDIA, ssrc=SSRC) == original


@pytest.mark.parametrize("payload", [b"", b"\x01"])
def test_a_retransmission_of_nothing_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match="two bytes"):
        original_packet(RtpPacket(RTX, 5, 0, RTX_SSRC, False, payload), payload_type=MEDIA, ssrc=SSRC)


def test_the_stream_of_retransmissions_is_known_by_its_type_and_source() -> None:
    told, learnt = (RtxReceiver(payload_type=MEDIA, rtx_payload_type=RTX, rtx_ssrc=ssrc) for ssrc in (RTX_SSRC, None))
    for receiver, payload_type, ssrc, taken in [
        (told, RTX, RTX_SSRC, True),
        (told, RTX, 99, False),
        (told, MEDIA, RTX_SSRC, False),
        (learnt, RTX, 99, True),
    ]:
        assert receiver.takes(RtpPacket(payload_type, 0, 0, ssrc, False, b"")) is taken


# ---- the sender


def test_what_was_sent_is_sent_again_as_a_stream_of_its_own() -> None:
    sender = history()
    sent(sender, [packet(n) for n in (65_535, 0, 1)], 0)
    again = [RtpPacket.parse(data) for data in sender.answer([1, 65_535], 10 * MS)]
    assert [(p.ssrc, p.payload_type, p.sequence) for p in again] == [(RTX_SSRC, RTX, 65_535), (RTX_SSRC, RTX, 0)]
    assert [p.payload[:2] for p in again] == [b"\x00\x01", b"\xff\xff"]
    assert (sender.answered, sender.unknown, sender.refused) == (2, 0, 0)


def test_packets_never_sent_are_counted_and_not_answered() -> None:
    sender = history()
    sent(sender, [packet(5)], 0)
    assert sender.answer(range(1000, 1400), 1) == []
    assert sender.unknown == 400


def test_history_is_bounded_by_time_and_bytes() -> None:
    sender = history()
    for number in range(10_000):
        sent(sender, [packet(number, 1188)], number * 10_000)
    assert len(sender) * 1200 <= KEEP_BYTES
    assert sender.answer([0], 10_000 * 10_000) == []
    sent(sender, [packet(1)], 2 * KEEP_NS)
    assert len(sender) == 1
    assert sender.answer([1], 2 * KEEP_NS) != []


def test_a_number_that_comes_round_again_is_the_new_packet() -> None:
    sender = history(keep_ns=10 * NS)
    sent(sender, [packet(3, timestamp=1)], 0)
    sent(sender, [packet(3, timestamp=2)], 9 * NS)
    assert RtpPacket.parse(sender.answer([3], 11 * NS)[0]).timestamp == 2


def test_the_same_packet_is_not_sent_twice_for_one_loss() -> None:
    sender = history()
    sent(sender, [packet(3)], 0)
    assert len(sender.answer([3, 3, 3], 0)) == 1
    assert sender.answer([3], AGAIN_NS - 1) == []
    assert sender.refused == 3
    assert len(sender.answer([3], AGAIN_NS)) == 1


def test_a_flood_of_nacks_does_not_become_a_flood_of_packets() -> None:
    sender, total, again = history(), 0, 0
    for at in range(3000):
        packets = [packet(10 * at + n, 1000) for n in range(10)]
        total += sum(map(len, packets))
        sent(sender, packets, at * 33 * MS)
        for flood in range(3):
            again += sum(map(len, sender.answer(range(65_536), at * 33 * MS + flood * 10 * MS)))
        if at == 20:
            break
    assert again <= CREDIT_BYTES + SHARE * total
    assert sender.refused + sender.unknown + sender.answered == 65_536 * 3 * 21
    assert len(sender.answer(range(1000), 10 * NS)) <= MOST_ASKED


# ---- the receiver


def test_a_gap_is_asked_for_after_three_later_packets() -> None:
    receiver = Requester()
    receiver.arrived(10, 0, False, 0)
    for number in (12, 13):
        receiver.arrived(number, 0, False, 0)
        assert receiver.pull(0) == []
    receiver.arrived(14, 0, False, 0)
    assert receiver.pull(0) == [11]
    assert receiver.pull(0) == []


def test_a_gap_with_little_after_it_is_asked_for_after_a_moment() -> None:
    receiver = Requester()
    receiver.arrived(10, 0, False, 0)
    receiver.arrived(12, 0, True, 5 * MS)
    wake_ns = receiver.wake_at()
    assert wake_ns == 5 * MS + ASKING.reorder_ns
    assert receiver.pull(wake_ns - 1) == []
    assert receiver.pull(wake_ns) == [11]


def test_a_packet_that_was_only_overtaken_is_not_asked_for() -> None:
    receiver = Requester()
    for number in (10, 12, 11, 13, 14, 15):
        receiver.arrived(number, 0, number == 15, 0)
    assert receiver.pull(NS) == []
    assert len(receiver) == 0


def test_where_packets_overtake_each_other_patience_grows() -> None:
    receiver, asked = Requester(), 0
    for pair in range(200):  # every second packet comes 12 ms late, overtaken by three
        now_ns = pair * 40 * MS
        asked += len(receiver.pull(now_ns))
        for number in (0, 2, 3, 4):
            receiver.arrived(5 * pair + number, now_ns, number == 4, now_ns)
        asked += len(receiver.pull(now_ns)) + len(receiver.pull(now_ns + 11 * MS))
        receiver.arrived(5 * pair + 1, now_ns, False, now_ns + 12 * MS)
    assert asked <= 2


def test_it_is_asked_again_after_a_round_trip_and_not_for_ever() -> None:
    receiver, moments = Requester(), []
    for number in (1, 3, 4, 5):
        receiver.arrived(number, 0, number == 5, 0)
    while (wake_ns := receiver.wake_at()) is not None:
        moments += [wake_ns] * len(receiver.pull(wake_ns))
    assert moments == [FIRST_RTT_NS * at for at in range(ASKING.tries)]
    assert len(receiver) == 0


def test_nothing_is_asked_for_that_cannot_come_in_time() -> None:
    receiver = Requester()
    receiver.base_ns = 100 * MS
    receiver.trip.measure(40 * MS, 0)
    receiver.arrived(1, 0, False, 0)
    receiver.arrived(3, 0, True, 50 * MS)
    assert receiver.pull(60 * MS) == [2]  # 100 ms is when it has to be there, and then it is
    receiver.arrived(5, FRAME_NS, True, 80 * MS)
    assert receiver.pull(94 * MS) == []  # 4 belongs to a frame of 133 ms


def test_an_answer_is_in_time_until_the_next_frame_is_shown() -> None:
    receiver = Requester()
    receiver.base_ns = 0
    receiver.trip.measure(40 * MS, 0)
    receiver.arrived(1, 0, True, -90 * MS)
    receiver.arrived(2, FRAME_NS, False, -60 * MS)  # the interval is known from here on
    receiver.arrived(4, FRAME_NS, True, 10 * MS)
    asked, wake_ns = [], 0
    while (wake_ns := receiver.wake_at() or NS) < NS:
        asked += [wake_ns] * (3 in receiver.pull(wake_ns))
    assert asked[0] == 13 * MS
    # A frame of 33 ms is given up at 67 ms: beyond 27 ms, no answer is in time.
    assert max(asked) <= 2 * FRAME_NS - 40 * MS


def test_the_last_moment_to_ask_again_is_used_where_the_round_trip_varies() -> None:
    for deviation_ns, again in ((0, 45 * MS), (20 * MS, 59 * MS), (35 * MS, 59 * MS)):
        receiver = Requester()
        receiver.base_ns = 100 * MS
        receiver.trip.measure(40 * MS, 0)
        receiver.trip.deviation_ns = deviation_ns
        for number in (1, 3, 4, 5):
            receiver.arrived(number, 0, number == 5, 0)
        assert receiver.pull(0) == [2]
        assert receiver.wake_at() == again
        assert receiver.pull(again) == [2]


def test_one_packet_held_up_does_not_make_it_slow_for_good() -> None:
    receiver = Requester()

    def frame(at: int, *, overtaken_ns: int = 0, slow_ns: int = 0) -> int:
        """Five packets of one frame; when the loss of the last would be noticed."""
        now_ns, first = at * FRAME_NS, 5 * at
        for number in range(first, first + 4):
            if number != first + 1 or not overtaken_ns:
                receiver.arrived(number, now_ns, False, now_ns)
        noticed_ns = receiver.wake_at()
        assert noticed_ns is not None
        receiver.pull(now_ns + max(overtaken_ns, slow_ns))
        if overtaken_ns:
            receiver.arrived(first + 1, now_ns, False, now_ns + overtaken_ns)
        receiver.arrived(first + 4, now_ns, True, now_ns + max(overtaken_ns, slow_ns))
        return noticed_ns - now_ns

    quick_ns = [frame(at) for at in range(10)][-1]
    frame(10, slow_ns=30 * MS)
    frame(11, overtaken_ns=30 * MS)
    assert frame(12) > quick_ns + 20 * MS
    for at in range(13, 300):
        frame(at)
    assert frame(300) < quick_ns + 2 * MS
    for number in (1506, 1507, 1508):  # three later ones say again that one is lost
        receiver.arrived(number, 301 * FRAME_NS, False, 301 * FRAME_NS)
    assert 1505 in receiver.pull(301 * FRAME_NS + 1)


def test_a_round_trip_measured_long_ago_forbids_nothing() -> None:
    receiver = Requester()
    receiver.base_ns = 100 * MS
    receiver.trip.measure(NS, 0)
    for number, now_ns, asked in ((3, 10 * MS, []), (9, STALE_NS + 10 * MS, [8])):
        receiver.arrived(number - 2, now_ns, True, now_ns)
        receiver.arrived(number, now_ns, True, now_ns)
        assert receiver.pull(now_ns + 5 * MS)[-1:] == asked


def test_a_stream_that_ends_is_asked_for_once_and_wakes_nobody_after() -> None:
    for base_ns in (None, 0, 100 * MS, NS):
        receiver = Requester()
        receiver.base_ns = base_ns
        for number in range(10):
            receiver.arrived(number, number // 5 * FRAME_NS, number % 5 == 4, number // 5 * FRAME_NS)
        moments = []
        while (wake_ns := receiver.wake_at()) is not None:
            assert len(moments) < 10
            moments += [wake_ns, *receiver.pull(wake_ns)]
        assert len(receiver) == 0


def test_only_what_was_asked_for_is_taken_and_measures_the_round_trip() -> None:
    receiver = Requester()
    assert not receiver.restored(2, 0, False, 0)
    for number in (1, 3, 4, 5):
        receiver.arrived(number, 0, number == 5, 0)
    assert not receiver.restored(2, 0, False, 0)  # missing, but nobody asked
    assert receiver.pull(0) == [2]
    assert receiver.restored(2, 0, False, 40 * MS)
    assert not receiver.restored(2, 0, False, 41 * MS)
    assert receiver.trip.smooth_ns == 40 * MS
    assert receiver.unasked == 3


def test_the_end_of_a_frame_that_is_lost_is_asked_for_before_the_next_frame() -> None:
    receiver = Requester()
    for number in range(5):
        receiver.arrived(number, 0, False, number * MS)
    wake_ns = receiver.wake_at()
    assert wake_ns is not None
    assert wake_ns < 15 * MS
    assert receiver.pull(wake_ns) == [5]
    assert receiver.restored(5, 0, True, wake_ns + 40 * MS)
    assert receiver.pull(NS) == []


def test_an_asked_for_packet_that_was_only_slow_is_forgotten() -> None:
    receiver = Requester()
    receiver.arrived(1, 0, False, 0)
    wake_ns = receiver.wake_at()
    assert wake_ns is not None
    assert receiver.pull(wake_ns) == [2]
    receiver.arrived(2, 0, True, 20 * MS)
    assert receiver.wake_at() is None or receiver.pull(NS) == []
    assert not receiver.restored(2, 0, True, 40 * MS)


@given(st.lists(st.tuples(st.integers(-70_000, 70_000), st.booleans()), max_size=60), st.integers(0, 20))
def test_numbers_that_jump_are_bounded(jumps: list[tuple[int, bool]], step: int) -> None:
    receiver, number = Requester(), 0
    for at, (jump, restored) in enumerate(jumps):
        number += jump
        if restored:
            receiver.restored(number, at, True, at * step * MS)
        else:
            receiver.arrived(number, at, False, at * step * MS)
        assert len(receiver.pull(at * step * MS)) <= ASKING.limit + 1
        assert len(receiver) <= ASKING.limit + 1
        assert len(receiver._fresh) <= 2 * ASKING.limit


# ---- both, with a network between


def frames_shown(
    packets: int, *, loss: float, frames: int = 3000, spread: float = 0.5, repair: bool = True, seed: int = 1
) -> tuple[float, Counter[str]]:
    """The fraction of frames whole when they are due: 20 ms each way, 100 ms of playout delay, loss one way."""
    delay_ns, playout_ns = 20 * MS, 100 * MS
    chance, order = random.Random(seed), count()
    sender, spreader, receiver = history(), Spreader(spread), Requester()
    rtx, unwrap = RtxReceiver(payload_type=MEDIA, rtx_payload_type=RTX), Unwrapper(16)
    events: list[tuple[int, int, Callable[[int], None]]] = []
    whole: dict[int, set[int]] = {at: set() for at in range(frames)}
    complete: dict[int, int] = {}
    tally: Counter[str] = Counter()
    receiver.base_ns = delay_ns + round(spread * FRAME_NS) + playout_ns  # from when the quickest frame is whole

    def later(at_ns: int, what: Callable[[int], None]) -> None:
        heapq.heappush(events, (at_ns, next(order), what))

    def transmit(data: bytes, now_ns: int) -> None:
        tally["sent"] += 1
        if chance.random() >= loss:
            later(now_ns + delay_ns, lambda at_ns: arrive(RtpPacket.parse(data), at_ns))

    def arrive(came: RtpPacket, now_ns: int) -> None:
        again = rtx.takes(came)
        original = rtx.restore(came, SSRC) if again else came
        number, frame = unwrap(original.sequence), original.timestamp
        if again:
            receiver.restored(number, frame * FRAME_NS, original.marker, now_ns)
        else:
            receiver.arrived(number, frame * FRAME_NS, original.marker, now_ns)
        whole[frame].add(number)
        if len(whole[frame]) == packets:
            complete.setdefault(frame, now_ns)

    def answer(asked: list[int], now_ns: int) -> None:
        for data in sender.answer([number & 0xFFFF for number in asked], now_ns):
            transmit(data, now_ns)

    for at in range(frames):
        burst = [packet(packets * at + n, 1000, at, n == packets - 1) for n in range(packets)]
        spreader.push(Burst(burst, FRAME_NS), at * FRAME_NS)
        while (due_ns := spreader.wake_at()) is not None:
            batch = spreader.pull(due_ns)
            later(
                due_ns, lambda now_ns, batch=batch: (sent(sender, batch, now_ns), [transmit(b, now_ns) for b in batch])
            )
    while events:
        wake_ns = receiver.wake_at()
        now_ns = events[0][0]
        if repair and wake_ns is not None and wake_ns < now_ns:
            now_ns = wake_ns
        while events and events[0][0] <= now_ns:
            heapq.heappop(events)[2](now_ns)
        asked = receiver.pull(now_ns) if repair else []
        if asked:
            tally["asked"] += len(asked)
            later(now_ns + delay_ns, lambda at_ns, asked=asked: answer(asked, at_ns))
    shown = sum(complete.get(at, 1 << 62) <= at * FRAME_NS + receiver.base_ns for at in range(frames))
    return shown / frames, tally


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("packets", [1, 2, 6, 12])
def test_retransmission_shows_more_than_995_of_1000_frames(packets: int, spread: float) -> None:
    bare, _ = frames_shown(packets, loss=0.05, repair=False, spread=spread)
    shown, tally = frames_shown(packets, loss=0.05, spread=spread)
    assert bare == pytest.approx(0.95**packets, abs=0.03)
    assert shown >= 0.995
    assert tally["sent"] < 1.1 * packets * 3000  # 1.05 for the losses, and their losses


def test_without_loss_nothing_is_asked_for() -> None:
    for spread in (0.0, 0.3, 0.9):
        shown, tally = frames_shown(12, loss=0.0, frames=300, spread=spread)
        assert shown == 1
        assert tally["asked"] == 0
