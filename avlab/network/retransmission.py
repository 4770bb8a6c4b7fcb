"""Retransmission: what a sender keeps and sends again, what a receiver asks for and when (RFC 4585, RFC 4588).

Pure: packets are bytes, times are integer nanoseconds handed in. What a NACK's bytes are is in `wire.rtcp`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from avlab.timing.playout import TARDY_NS
from avlab.wire.batch import Batch
from avlab.wire.rtp import (
    HEADER,
    HEADER_BYTES,
    MARKER,
    RtpPacket,
    Unwrapper,
    first_sequence,
    seq_delta,
    serialize_header,
)
from avlab.wire.units import NS, WireError

T = TypeVar("T")

KEEP_NS = NS
KEEP_BYTES = 4 << 20
"""How long, and how much, a sender keeps: a second is more than any playout delay worth repairing for."""

SHARE = 0.5
CREDIT_BYTES = 65_536
"""What is sent again is at most this share of what is sent, plus this much at once, which is the largest packet: no
flood of NACKs becomes one of packets."""

AGAIN_NS = 5_000_000
"""A packet asked for again sooner was asked for by the same loss: the answer is on its way."""

MOST_ASKED = 512
"""How many packets one call answers for."""


def rtx_packet(original: bytes, *, payload_type: int, sequence: int, ssrc: int) -> bytes:
    """A retransmission: a header of its own stream, the original sequence number, the payload (RFC 4588 section 4)."""
    _, second, osn, timestamp, _ = HEADER.unpack_from(original)
    header = serialize_header(payload_type, sequence, timestamp, ssrc, second >= MARKER)
    return b"".join((header, osn.to_bytes(2, "big"), original[HEADER_BYTES:]))


def original_packet(packet: RtpPacket, *, payload_type: int, ssrc: int) -> RtpPacket:
    """The packet that a retransmission brings back. Raises WireError when there is no original sequence number."""
    if len(packet.payload) < 2:
        raise WireError(f"A retransmission begins with a sequence number of two bytes; {len(packet.payload)} came.")
    osn = int.from_bytes(packet.payload[:2], "big")
    return RtpPacket(payload_type, osn, packet.timestamp, ssrc, packet.marker, packet.payload[2:])


# ---- the sender


class History(Generic[T]):
    """The newest packets of one stream, whatever they are made of, and which of them are sent again when asked for.

    Bounded by time, bytes and what may be sent again: `unknown` counts packets asked for that are not (or no longer)
    here, `refused` those not sent again because of the bounds, `answered` those that were.
    """

    def __init__(self, *, keep_ns: int = KEEP_NS, keep_bytes: int = KEEP_BYTES) -> None:
        self.unknown = self.refused = self.answered = 0
        self._keep_ns, self._keep_bytes = keep_ns, keep_bytes
        self._packets: dict[int, tuple[int, T]] = {}  # size and packet, by sequence number
        self._order: deque[tuple[int, int, int, T]] = deque()  # when sent, number, size, packet
        self._bytes = 0
        self._again: dict[int, int] = {}  # when each was last sent again
        self._credit = float(CREDIT_BYTES)

    def __len__(self) -> int:
        return len(self._packets)

    def sent(self, number: int, size: int, packet: T, now_ns: int) -> None:
        """A packet of `size` bytes has left for the first time; `number` is any that it is asked for by."""
        self._packets[number] = (size, packet)
        self._order.append((now_ns, number, size, packet))
        self._bytes += size
        self._credit = min(self._credit + SHARE * size, CREDIT_BYTES)
        self._forget(now_ns)

    def answer(self, numbers: Iterable[int], now_ns: int) -> list[T]:
        """The packets asked for that are to be sent again, in that order."""
        self._forget(now_ns)
        out = []
        for count, number in enumerate(numbers):
            size, packet = self._packets.get(number, (0, None))
            if packet is None:
                self.unknown += 1
            elif count >= MOST_ASKED or size > self._credit or now_ns - self._again.get(number, -NS) < AGAIN_NS:
                self.refused += 1
            else:
                self._again[number] = now_ns
                self._credit -= size
                self.answered += 1
                out.append(packet)
        return out

    def _forget(self, now_ns: int) -> None:
        order = self._order
        while order and (now_ns - order[0][0] > self._keep_ns or self._bytes > self._keep_bytes):
            _, number, size, packet = order.popleft()
            self._bytes -= size
            kept = self._packets.get(number)
            if kept is not None and kept[1] is packet:  # else the number has come round again
                del self._packets[number]
                self._again.pop(number, None)


class RtxSender:
    """RTP packets of one stream, and those asked for again as a stream of its own (RFC 4588 section 5.2).

    `ssrc`, `payload_type` and `sequence` are those of the retransmissions. What is kept are batches, as they were sent:
    a packet is cut out when it is asked for. Bounded by time, bytes and what may be sent again: `unknown` counts
    packets asked for that are not (or no longer) here, `refused` those not sent again because of the bounds,
    `answered` those that were.
    """

    def __init__(
        self, *, ssrc: int, payload_type: int, sequence: int, keep_ns: int = KEEP_NS, keep_bytes: int = KEEP_BYTES
    ) -> None:
        self.ssrc, self.payload_type, self.sequence = ssrc, payload_type, sequence
        self.unknown = self.refused = self.answered = 0
        self._keep_ns, self._keep_bytes = keep_ns, keep_bytes
        self._runs: list[tuple[int, Batch]] = []  # when each was sent, oldest first
        self._firsts: list[int] = []  # each one's first number, in a count that does not wrap
        self._next = 0  # the number after the last
        self._bytes = 0
        self._again: dict[int, int] = {}  # when each was last sent again
        self._credit = float(CREDIT_BYTES)

    def __len__(self) -> int:
        """How many packets are kept."""
        return self._next - self._firsts[0] if self._firsts else 0

    @property
    def kept(self) -> tuple[int, int]:
        """Which packets are kept: the first one's 16-bit sequence number, and how many follow upon each other."""
        count = len(self)
        return (self._next - count) & 0xFFFF, count

    def sent(self, batch: Batch, now_ns: int) -> None:
        """Packets have left for the first time, whose numbers follow upon each other.

        Where they do not follow upon those of before, these are forgotten.
        """
        count, size = batch.total, batch.length
        if size < 4:
            return
        first = self._next + seq_delta(first_sequence(batch), self._next & 0xFFFF)
        if first != self._next:
            self._forget(len(self._runs))
            first &= 0xFFFF
        self._runs.append((now_ns, batch))
        self._firsts.append(first)
        self._next = first + count
        self._bytes += size
        self._credit = min(self._credit + SHARE * size, CREDIT_BYTES)
        self._forget_old(now_ns)

    def answer(self, numbers: Iterable[int], now_ns: int, *, most: int = MOST_ASKED) -> list[bytes]:
        """The retransmissions of packets asked for by their 16-bit sequence numbers, in that order; `most` at most."""
        self._forget_old(now_ns)
        out: list[bytes] = []
        first, count = self.kept
        oldest = self._next - count
        for at, number in enumerate(numbers):
            ahead = (number - first) & 0xFFFF
            if ahead >= count:
                self.unknown += 1
                continue
            number = oldest + ahead
            if at >= MOST_ASKED or len(out) >= most or now_ns - self._again.get(number, -NS) < AGAIN_NS:
                self.refused += 1
                continue
            run = bisect_right(self._firsts, number) - 1
            batch, place = self._runs[run][1], number - self._firsts[run]
            size = batch.size if place < batch.total - 1 else batch.last
            if size > self._credit:
                self.refused += 1
                continue
            packet = batch.datagram(place)
            self._again[number] = now_ns
            self._credit -= size
            self.answered += 1
            out.append(rtx_packet(packet, payload_type=self.payload_type, sequence=self.sequence, ssrc=self.ssrc))
            self.sequence = (self.sequence + 1) & 0xFFFF
        return out

    def _forget_old(self, now_ns: int) -> None:
        over, excess = 0, self._bytes - self._keep_bytes
        for sent_ns, batch in self._runs:
            if now_ns - sent_ns <= self._keep_ns and excess <= 0:
                break
            over += 1
            excess -= batch.length
        if over:
            self._forget(over)

    def _forget(self, runs: int) -> None:
        """The oldest so many runs."""
        after = self._firsts[runs] if runs < len(self._firsts) else self._next
        self._bytes -= sum(batch.length for _, batch in self._runs[:runs])
        del self._runs[:runs], self._firsts[:runs]
        if self._again:
            self._again = {number: at_ns for number, at_ns in self._again.items() if number >= after}


# ---- the receiver


class Settings(NamedTuple):
    """How a receiver asks."""

    reorder_packets: int = 3
    """So many later packets say that one is lost and not on its way (as TCP does, RFC 5681 section 3.2)."""
    reorder_ns: int = 3_000_000
    """So long after the next packet, too: the last of a burst has no three behind it."""
    tries: int = 10
    """How often one packet is asked for at the most: its deadline ends the asking sooner, as a rule."""
    margin_ns: int = 5_000_000
    """Beyond the round trip, before it is asked for again; a sender passes over what comes sooner (`AGAIN_NS`)."""
    limit: int = 512
    """How many missing packets are kept in mind. What is missing beyond them is taken for lost."""


ASKING = Settings()

FIRST_RTT_NS = 100_000_000
"""Before any answer came: when to ask again."""

MOST_DISORDER_NS = 30_000_000
"""How long a gap is given at the most where packets overtake each other; it is learnt from those that do."""

STALE_NS = 2 * NS
"""A round trip measured longer ago is not believed to forbid asking: or one bad one would be the last."""

SPARE_NS = 20_000_000
"""For noticing two losses and asking."""

FADE = 64
"""What was learnt of packets that come late is forgotten by a 64th with each frame: one that was held up for 30 ms, as
on a busy machine, would else make the receiver slow to ask for good."""

QUIET_NS = 5_000_000
"""The next packet is asked for on suspicion when it is overdue by this: by then two more of its frame, or the next
frame, should have come. What has nothing behind it would else be missed a frame later, too late to ask twice."""

LAST_NS = 1_000_000
"""The last moment to ask is so much earlier than the arithmetic says: frames do not come to the nanosecond."""

COUNTED = 8
"""Of so many frames it is known how many packets they had: as many are asked for when the rest of one is overdue."""

MOST_ANSWERS = 64
"""Of so many packets that are back, later answers are known for what they are."""

FEW = 3
"""A frame of so few packets may well be lost whole: when it is overdue, all of it is asked for and not its first."""


@dataclass(slots=True)
class _Gap:
    media_ns: int  # pts of the frame that it belongs to, the earliest that it can be
    latest_ns: int  # and the latest
    since_ns: int
    ask_ns: int  # when to ask (again)
    asked: int = 0
    asked_ns: int = 0  # when last
    suspected: bool = False  # nothing has come after it
    begun: bool = True  # something of its frame has come, unless it is another frame's


class RoundTrip:
    """A smoothed round trip and its deviation, as RFC 6298 section 2 has them; None before the first measurement."""

    def __init__(self) -> None:
        self.smooth_ns: int | None = None
        self.deviation_ns = 0
        self.measured_ns = 0

    def measure(self, trip_ns: int, now_ns: int) -> None:
        """One round trip took `trip_ns` and ended at `now_ns`."""
        self.measured_ns = now_ns
        if self.smooth_ns is None:
            self.smooth_ns, self.deviation_ns = trip_ns, trip_ns // 4
            return
        self.deviation_ns += (abs(trip_ns - self.smooth_ns) - self.deviation_ns) // 4
        self.smooth_ns += (trip_ns - self.smooth_ns) // 8


class Requester:
    """Which packets of one stream to ask for, and when: only while the answer can come before the frame's deadline.

    `arrived` takes every packet of the stream, `restored` says whether a retransmission was asked for, `pull` gives
    what to ask for now (unwrapped sequence numbers). `base_ns` is when media time 0 is presented, None before that is
    known; its owner keeps it. The round trip is measured on packets asked for once (Karn's rule, RFC 6298 section 3).

    A loss is noticed by what comes after it; the end of a frame, which has nothing after it, by its overdue marker; a
    frame that is lost whole by the frames' interval. `asked` counts what was asked for, `restorations` what came back,
    `in_vain` what was asked for and came by itself after all.
    """

    def __init__(self, settings: Settings = ASKING) -> None:
        self.base_ns: int | None = None
        self.trip = RoundTrip()
        self.asked = self.restorations = self.unasked = self.in_vain = self.passed_over = 0
        self._settings = settings
        self._gaps: dict[int, _Gap] = {}  # in rising order but for those on suspicion, which are higher
        self._fresh: deque[int] = deque()  # gaps that may still be packets on their way
        self._wake_ns: int | None = None
        self._highest: int | None = None
        self._media_ns = 0  # the highest packet's frame
        self._first: int | None = None  # that frame's first number, where its predecessor's end is known
        self._before = 0  # the highest number of the frames before it
        self._counts: deque[int] = deque(maxlen=COUNTED)  # how many packets the latest frames had
        self._highest_ns = self._frame_ns = 0  # when it came, or would have, and the first of its frame
        self._marker = True
        self._spacing_ns = 1_000_000  # between packets of a frame
        self._interval_ns = 0  # between frames
        self._suspect: int | None = None  # the highest number that was suspected
        self._answers: dict[int, tuple[int, int]] = {}  # of what came back: when asked for last, answers still to come
        self._slow_ns = 0  # how late what was suspected came after all, the latest of late
        self._disorder_ns = 0  # how late packets come that others have overtaken, the latest of late

    def __len__(self) -> int:
        return len(self._gaps)

    @property
    def least_delay_ns(self) -> int:
        """How long frames must wait for two answers to come in time; 0 before any came, half a second at the most."""
        return 0 if self.trip.smooth_ns is None else min(NS // 2, 2 * self.trip.smooth_ns + SPARE_NS)

    def arrived(self, sequence: int, media_ns: int, marker: bool, now_ns: int) -> None:
        """A packet came by itself: its unwrapped number, its frame's pts, whether it is its frame's last."""
        highest = self._highest
        if self._gaps and (gap := self._gaps.pop(sequence, None)) is not None:
            self.in_vain += gap.asked > 0
            late_ns = min(now_ns - gap.since_ns, MOST_DISORDER_NS)
            if not gap.suspected:
                self._disorder_ns = max(late_ns, self._disorder_ns)
            elif gap.begun == (media_ns == self._media_ns):  # else it is the next frame's, and nothing was slow
                self._slow_ns = max(late_ns, self._slow_ns)
        if highest is not None and sequence <= highest:
            self._ends_before(sequence, marker)
            return
        if highest is not None:
            if sequence != highest + 1:
                self._open(highest + 1, sequence, media_ns, now_ns)
            elif media_ns == self._media_ns:
                self._spacing_ns += (min(now_ns - self._highest_ns, NS // 20) - self._spacing_ns) // 16
            elif 0 < media_ns - self._media_ns < NS:
                self._interval_ns = media_ns - self._media_ns
        self._advance(sequence, media_ns, marker, now_ns, now_ns)
        if self._fresh:
            self._ask_for_overtaken(sequence, now_ns)

    def _ask_for_overtaken(self, sequence: int, now_ns: int) -> None:
        """What so many packets have overtaken is lost, and is asked for at once."""
        fresh, surely = self._fresh, sequence - self._settings.reorder_packets
        while fresh and fresh[0] <= surely:
            gap = self._gaps.get(fresh.popleft())
            if gap is not None and not gap.asked and self._disorder_ns <= self._settings.reorder_ns:
                gap.ask_ns = self._wake_ns = now_ns

    def arrived_together(self, first: int, count: int, media_ns: int, marker: bool, now_ns: int) -> None:
        """Packets of one frame came together, numbered from `first` on; `marker` is the last one's.

        As `arrived` for each, in the time of one where those after the first are the highest, and nothing is missing
        among them.
        """
        before, last = self._highest, first + count - 1
        self.arrived(first, media_ns, marker and count == 1, now_ns)
        new = before is None or before < first
        if not new or (self._suspect is not None and self._suspect > first):
            for number in range(first + 1, last + 1):
                self.arrived(number, media_ns, marker and number == last, now_ns)
            return
        if count > 1:
            spacing_ns = self._spacing_ns
            for _ in range(count - 1):
                if -16 < spacing_ns <= 0:
                    break
                spacing_ns += -spacing_ns // 16
            self._spacing_ns = spacing_ns
            self._advance(last, media_ns, marker, now_ns, now_ns)
            self._ask_for_overtaken(last, now_ns)

    def restored(self, sequence: int, media_ns: int, marker: bool, now_ns: int) -> bool:
        """A retransmission of a packet came; whether it had been asked for and was still missing."""
        gap = self._gaps.get(sequence)
        if gap is None or not gap.asked:
            self.unasked += 1
            self._measure_last(sequence, now_ns)
            return False
        del self._gaps[sequence]
        self.restorations += 1
        self._measure(sequence, gap, now_ns)
        highest = self._highest
        if highest is None or sequence <= highest:
            self._ends_before(sequence, marker)
            return True
        if sequence != highest + 1:
            self._open(highest + 1, sequence, media_ns, now_ns)
        # Its like would have come by now, if it came by itself: what is missing behind it is overdue already.
        frame_ns = self._frame_ns if media_ns == self._media_ns else self._frame_ns + self._interval_ns
        self._advance(sequence, media_ns, marker, min(now_ns, max(frame_ns, self._highest_ns)), now_ns)
        return True

    def settled(self, sequence: int) -> None:
        """A packet is here by another repair: it is asked for no more, and tells nothing of delays."""
        self._gaps.pop(sequence, None)

    def wake_at(self) -> int | None:
        """The next moment at which there may be something to ask for."""
        quiet_ns, wake_ns = self._quiet_ns(), self._wake_ns
        return wake_ns if quiet_ns is None or (wake_ns is not None and wake_ns < quiet_ns) else quiet_ns

    def pull(self, now_ns: int) -> list[int]:
        """The sequence numbers to ask for now."""
        quiet_ns, highest = self._quiet_ns(), self._highest
        if highest is not None and quiet_ns is not None and now_ns >= quiet_ns:
            self._suspect_more(highest, quiet_ns - QUIET_NS - self._slow_ns, now_ns)
        if self._wake_ns is None or now_ns < self._wake_ns:
            return []
        out, over, wakes = [], [], []
        for sequence, gap in self._gaps.items():
            # A frame of which nothing has come may not have been sent: it is asked for once.
            most = self._settings.tries if gap.begun or not gap.suspected else 1
            if gap.ask_ns > now_ns:
                wakes.append(gap.ask_ns)
            elif gap.asked >= most or not self._in_time(gap, now_ns):
                if gap.asked and now_ns - gap.asked_ns < KEEP_NS:  # an answer may still come, and is known then
                    gap.ask_ns = gap.asked_ns + KEEP_NS
                    wakes.append(gap.ask_ns)
                else:
                    over.append(sequence)
            else:
                gap.asked += 1
                gap.asked_ns = now_ns
                gap.ask_ns = self._again_ns(gap)
                wakes.append(gap.ask_ns)
                out.append(sequence)
        for sequence in over:
            del self._gaps[sequence]
        self._wake_ns = min(wakes, default=None)
        self.asked += len(out)
        return out

    def _measure(self, sequence: int, gap: _Gap, now_ns: int) -> None:
        """Measure the round trip on a packet that came back; not on one of which it is not known which was answered."""
        known = self.trip.smooth_ns is not None
        if gap.asked == 1:
            self.trip.measure(now_ns - gap.asked_ns, now_ns)
        if gap.asked > 1:
            self._answers[sequence] = (gap.asked_ns, gap.asked - 1)
            if len(self._answers) > MOST_ANSWERS:
                del self._answers[next(iter(self._answers))]
        if (
            not known and self.trip.smooth_ns is not None
        ):  # what was asked for before anything was known need not wait so long
            for other in self._gaps.values():
                if other.asked:
                    self._ask_by(other, self._again_ns(other))

    def _measure_last(self, sequence: int, now_ns: int) -> None:
        """A packet that is back already came once more: as many answers as were asked for tell which is the last's.

        Where the way has grown longer than is believed, all is asked for twice, and nothing else would ever tell.
        """
        asked_ns, left = self._answers.pop(sequence, (0, 0))
        if left == 1:
            self.trip.measure(now_ns - asked_ns, now_ns)
        elif left:
            self._answers[sequence] = (asked_ns, left - 1)

    def _ask_by(self, gap: _Gap, moment_ns: int) -> None:
        gap.ask_ns = min(gap.ask_ns, moment_ns)
        self._wake_ns = gap.ask_ns if self._wake_ns is None else min(self._wake_ns, gap.ask_ns)

    def _open(self, first: int, after: int, media_ns: int, now_ns: int) -> None:
        """Packets from `first` to the one before `after`, which is of the frame at `media_ns`, are missing."""
        start = max(first, after - self._settings.limit)
        self.passed_over += start - first
        ask_ns = now_ns + max(self._settings.reorder_ns, self._disorder_ns * 5 // 4)
        early_ns = media_ns if self._marker else self._media_ns
        for sequence in range(start, after):
            known = self._gaps.get(sequence)
            # The frame that has not ended has one more at least, and perhaps no other.
            latest_ns = self._media_ns if sequence == first and not self._marker else media_ns
            if known is None:
                self._gaps[sequence] = _Gap(early_ns, latest_ns, now_ns, ask_ns)
                self._fresh.append(sequence)
                continue
            known.suspected, known.latest_ns = False, max(known.media_ns, latest_ns)
            if known.asked:  # sure now: it waits for its answer, and no longer
                self._ask_by(known, max(now_ns, self._again_ns(known)))
        self._wake_ns = ask_ns if self._wake_ns is None else min(self._wake_ns, ask_ns)
        while len(self._gaps) > self._settings.limit:
            del self._gaps[next(iter(self._gaps))]
            self.passed_over += 1
        while self._fresh and self._fresh[0] < after - self._settings.limit:
            self._fresh.popleft()

    def _advance(self, sequence: int, media_ns: int, marker: bool, came_ns: int, now_ns: int) -> None:
        """The highest number is `sequence` now; it came, or would have come by itself, at `came_ns`."""
        if media_ns != self._media_ns or self._highest is None:
            self._frame_ns = came_ns
            self._slow_ns -= self._slow_ns // FADE
            self._disorder_ns -= self._disorder_ns // FADE
            self._before = sequence if self._highest is None else self._highest
            self._first = None if self._highest is None or not self._marker else self._highest + 1
        self._highest, self._highest_ns, self._media_ns, self._marker = sequence, came_ns, media_ns, marker
        if marker:
            if self._first is not None:
                self._counts.append(sequence - self._first + 1)
            if self._suspect is not None:  # what was suspected behind its frame's end is the next frame's
                for beyond in range(sequence + 1, self._suspect + 1):
                    self._gaps.pop(beyond, None)
                self._suspect = min(self._suspect, sequence)

    def _ends_before(self, sequence: int, marker: bool) -> None:
        """A packet came that is not the highest: one with the marker says where the frame after it begins."""
        if marker and self._first is None and sequence > self._before:
            self._first = sequence + 1

    def _quiet_ns(self) -> int | None:
        """When silence means that the next packet is lost: one of a frame that has not ended, or the next frame's."""
        if self._highest is None or (self._marker and not self._interval_ns):
            return None
        if self._suspect is not None and self._highest < self._suspect:
            return None
        expected_ns = self._frame_ns + self._interval_ns if self._marker else self._highest_ns + 2 * self._spacing_ns
        return expected_ns + QUIET_NS + self._slow_ns

    def _suspect_more(self, highest: int, since_ns: int, now_ns: int) -> None:
        """The next packet has been overdue since `since_ns`: it, and what should have come with it, may be lost."""
        begun = not self._marker
        media_ns = self._media_ns if begun else self._media_ns + self._interval_ns
        more = 1
        if self._counts and self._slow_ns <= QUIET_NS:  # where packets come late, one tells enough
            usual = self._usual(now_ns)
            if begun and self._first is not None:
                more = self._first + usual - 1 - highest
            elif not begun and usual <= FEW:
                more = usual
        first = highest + 1
        for sequence in range(first, first + max(1, min(more, self._settings.limit // 2))):
            self._gaps[sequence] = _Gap(media_ns, media_ns, since_ns, now_ns, suspected=True, begun=begun)
            self._suspect = sequence
        self._wake_ns = now_ns

    def _usual(self, now_ns: int) -> int:
        """How many packets a frame has, by the latest ones.

        As many as any of them, if the question is there before the next frame is sent: a number too many costs nothing
        then. Else as many as most have: it would be answered, and that in vain.
        """
        trip_ns = self.trip.smooth_ns
        if trip_ns is not None and now_ns + trip_ns < self._frame_ns + self._interval_ns:
            return max(self._counts)
        return sorted(self._counts)[3 * (len(self._counts) - 1) // 4]

    def _in_time(self, gap: _Gap, now_ns: int) -> bool:
        return self.base_ns is None or now_ns <= self._last_ns(self.base_ns, gap.latest_ns, now_ns) + LAST_NS

    def _last_ns(self, base_ns: int, media_ns: int, now_ns: int) -> int:
        """The last moment to ask: an answer is in time until playout gives the frame up, as the next one is due."""
        trip_ns = self.trip.smooth_ns
        if trip_ns is None or now_ns - self.trip.measured_ns > STALE_NS:
            trip_ns = 0
        return base_ns + media_ns + min(self._interval_ns, TARDY_NS) - trip_ns - LAST_NS

    def _again_ns(self, gap: _Gap) -> int:
        """When to ask again: once the answer is overdue, or at the last moment that there is for it."""
        trip_ns = self.trip.smooth_ns
        if trip_ns is None:
            return gap.asked_ns + FIRST_RTT_NS
        again_ns = gap.asked_ns + trip_ns + max(self._settings.margin_ns, 2 * self.trip.deviation_ns)
        base_ns = self.base_ns
        if base_ns is None:
            return again_ns
        for media_ns in (gap.media_ns, gap.latest_ns):
            last_ns = self._last_ns(base_ns, media_ns, gap.asked_ns)
            if last_ns >= gap.asked_ns + trip_ns:
                return min(again_ns, last_ns)
        return again_ns


class RtxReceiver:
    """The retransmissions of one stream, turned back into its packets (RFC 4588 section 5.3).

    `ssrc` and `payload_type` are the original stream's; `rtx_ssrc` is that of the retransmissions, learnt from the
    first packet of their payload type when the session did not say it.
    """

    def __init__(self, *, payload_type: int, rtx_payload_type: int, rtx_ssrc: int | None = None) -> None:
        self.payload_type, self.rtx_payload_type, self.rtx_ssrc = payload_type, rtx_payload_type, rtx_ssrc
        self.sequence = Unwrapper(16)

    def takes(self, packet: RtpPacket) -> bool:
        """Whether a packet is one of the retransmissions."""
        return packet.payload_type == self.rtx_payload_type and self.rtx_ssrc in (None, packet.ssrc)

    def restore(self, packet: RtpPacket, ssrc: int) -> RtpPacket:
        """The original of a retransmission. WireError when it holds none."""
        return original_packet(packet, payload_type=self.payload_type, ssrc=ssrc)
