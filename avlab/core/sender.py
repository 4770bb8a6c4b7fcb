"""What a server is to one client: packets numbered and stamped, reports both ways, packets sent again. Pure.

A machine as the package has it: calls and moments in, bytes and events out. What a client may ask, and over which
sockets its packets go, is its driver's affair.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from avlab.core.budget import FeedbackBudget
from avlab.core.events import ClockTold, Doubted, KeyAsked, Outgoing, Path, Reported, SenderEvent, Sent
from avlab.core.moments import Moments, Reference, delay_ns, delay_units, middle
from avlab.network import belief
from avlab.network.belief import Account
from avlab.network.ownrepair import RepairSender
from avlab.network.parity import ParityEncoder
from avlab.network.retransmission import RtxSender
from avlab.timing.spreading import Burst, Spreader
from avlab.wire import rtcp
from avlab.wire.batch import Batch, batches
from avlab.wire.rtp import HEADER_BYTES, MARKER, Packed, Unwrapper, first_sequence, rtp_timestamp, ticks_to_ns
from avlab.wire.text import person
from avlab.wire.units import NS, WireError

REPORT_NS = NS // 2
"""How often reports go either way. RFC 3550 6.2 lets them be 360 / kilobits-a-second seconds apart: 0.2 s at 1800."""

SLACK_NS = NS // 10
"""A sender report that is due goes before the next packet, and so long after its time by itself, where none comes:
a server of many clients would else wake up for each one's reports alone."""

FIRST_INTERVAL_NS = NS // 30
"""From one frame to the next, before two have come."""

MOST_INTERVAL_NS = NS // 5
"""Beyond it a frame's packets are not spread: what comes next may be sooner than what was before."""

MOST_TRIP_NS = 30 * NS
"""A round trip that is longer, by what a report says, is a report that lies or is of another clock."""

SENT_BEFORE_NS = NS
"""A sender report may have gone out so long before the first packet."""

_new = tuple.__new__  # a named tuple's own constructor takes twice as long


class SendState(Enum):
    """What a client is to be sent: nothing, everything, or, after the end, what it still asks for again.

    play: any -> PLAYING        pause: any -> IDLE        end: PLAYING -> ENDED
    """

    IDLE = auto()
    PLAYING = auto()
    ENDED = auto()


_PLAYING = SendState.PLAYING  # looking up a member takes as long as a call, and each packet's moment asks for it


@dataclass(slots=True)
class Hearing:
    """What one receiver last said of a stream, when, and how many octets had been sent by then."""

    reception: rtcp.ReportBlock | None = None
    heard_ns: int | None = None
    octets: int = 0
    told: Reported | None = None
    """What was made of it."""
    reference: Reference | None = None
    """The newest time that it told of its own clock, as yet unanswered."""


MOST_HEARD = 512
"""Receivers of one stream who are told apart; of more, who was heard first is forgotten."""


class Passing:
    """What many clients get alike of a frame, or of a chunk of sound: all but their packets' sources and numbers.

    `timestamp_offset` is the timestamp of pts 0. The numbers of packets and bytes are those of `packed`. Sender reports
    of `many` clients go together, before the first frame of each half second: to make them in a row costs half of what
    each costs by itself, between pictures.
    """

    __slots__ = ("length", "octets", "pts_ns", "reports_from_ns", "stream", "timestamp", "timestamp_offset", "total")

    def __init__(
        self, stream: str, packed: Packed, pts_ns: int, now_ns: int, *, rate: int, timestamp_offset: int, many: bool
    ) -> None:
        self.stream, self.pts_ns, self.timestamp_offset = stream, pts_ns, timestamp_offset
        self.timestamp = rtp_timestamp(pts_ns, rate, timestamp_offset)
        self.total, self.octets = packed.total, packed.octets
        self.length = self.octets + HEADER_BYTES * self.total
        self.reports_from_ns = now_ns - (now_ns % REPORT_NS if many else REPORT_NS - 1)


class Outlet:
    """One stream on its way to one client. What is settled in its session is handed in; the rest is what happened.

    `ssrc`, `sequence` (16 bits, the first packet's number) and `timestamp_offset` (32 bits, the timestamp of pts 0)
    are to be drawn by chance; `rate` is the media clock's, in hertz. `spreads` is whether a frame's packets may leave
    over part of its time, `interval_ns` the time from one frame to the next where the source says it. With
    `marks_first` its very first packet bears the marker, as a talkspurt's does (RFC 3551 4.1). `again`, `parity`
    and `own`, a repair of anyone's own, are there when the client is granted them.
    """

    def __init__(
        self,
        stream: str,
        *,
        rate: int,
        ssrc: int,
        sequence: int,
        timestamp_offset: int,
        marks_first: bool = False,
        spreads: bool = False,
        interval_ns: int | None = None,
        again: RtxSender | None = None,
        parity: ParityEncoder | None = None,
        own: RepairSender | None = None,
    ) -> None:
        self.stream, self.rate, self.ssrc = stream, rate, ssrc
        self.timestamp_offset = timestamp_offset
        self.again, self.parity, self.own = again, parity, own
        self.media, self.control = Path(stream, control=False), Path(stream, control=True)
        self.first_sequence = self.number = sequence  # the first packet's number and the next one's; neither wraps
        self.packets = self.octets = 0  # that have left
        self.frames = 0  # or chunks of sound
        self.newest = timestamp_offset  # the RTP timestamp of the newest of them
        self.sent_bytes = 0  # of RTP, with what repairs
        self.copies = 0  # that a network on this side has made of them
        self.marks_next = marks_first
        self.spreads, self.spreader = spreads, Spreader()
        self.waiting: deque[tuple[Batch, str]] = deque()  # what the spreader holds: in order, and which repair it is
        self.again_number = Unwrapper(16)
        self.began_ns: int | None = None  # when the first packet left
        self.reported_ns: int | None = None  # when the last sender report went out; None: one is owed
        self.hearings: dict[int, Hearing] = {}  # by who reports; the one client is 0
        self.doubted = False  # a report could not be true, and an event has said so
        self._settled_ns = interval_ns
        self._interval_ns = FIRST_INTERVAL_NS
        self._pts_ns: int | None = None  # the newest frame's

    @property
    def next_sequence(self) -> int:
        """The 16-bit number of the next packet, as RTP-Info tells it."""
        return self.number & 0xFFFF

    def timestamp(self, pts_ns: int) -> int:
        """The RTP timestamp of a presentation time."""
        return rtp_timestamp(pts_ns, self.rate, self.timestamp_offset)

    def hearing(self, reporter: int) -> Hearing:
        """What this receiver said before."""
        found = self.hearings.get(reporter)
        if found is None:
            if len(self.hearings) >= MOST_HEARD:
                del self.hearings[next(iter(self.hearings))]
            found = self.hearings[reporter] = Hearing()
        return found

    def interval_ns(self, pts_ns: int) -> int:
        """How long it is until the next frame, as a frame at `pts_ns` is about to be sent."""
        if self._settled_ns is not None:
            return self._settled_ns
        if self._pts_ns is not None and pts_ns > self._pts_ns:
            self._interval_ns = min(MOST_INTERVAL_NS, pts_ns - self._pts_ns)
        self._pts_ns = pts_ns
        return self._interval_ns


class Sender:
    """All of RTP and RTCP that goes to one client, and what comes back from it.

    `unix_offset_ns` is Unix time less the driver's clock, both in ns. `budget` is shared by all senders of a server.
    `name` is what sources are called (CNAME). With `shared`, it is a group that all is sent to: each of its members
    reports for itself. `spread` and `parity` may be set at any time and act on the next frame.
    """

    def __init__(
        self, *, unix_offset_ns: int, budget: FeedbackBudget, name: str = "avlab", shared: bool = False
    ) -> None:
        self._shared = shared
        self.outlets: dict[str, Outlet] = {}
        self.state = SendState.IDLE
        self.spread = 0.0
        """The share of a frame's time over which its packets leave, 0 to 0.95."""
        self.parity = 0.25
        """Parity packets a packet, 0 to 1, where a client was granted them."""
        self.heard_ns: int | None = None
        """When a report of one of its streams came last."""
        self.names: dict[int, str] = {}
        """What people call those who report (RFC 3550 6.5.2), where they say it; the one client is 0."""
        self.limit: tuple[float, int] | None = None
        """How many pictures a second the client last said that it takes at most, and when; None before it has."""
        self._unix_offset_ns, self._budget, self._name = unix_offset_ns, budget, name
        self._moments = Moments(unix_offset_ns)
        self._report_ns: int | None = None  # when a sender report goes by itself, where no packet takes it along
        self._spreading = False  # a frame's packets have left over part of its time, and may still do
        self._by_ssrc: dict[int, Outlet] = {}
        self._start_ns = 0  # when media time 0 was
        self._outgoing: list[Outgoing] = []
        self._events: list[SenderEvent] = []

    # ---- what is settled with the client

    def add(self, outlet: Outlet) -> None:
        """The client is to get a stream, instead of what it had of that name."""
        self.remove(outlet.stream)
        self.outlets[outlet.stream] = outlet
        self._by_ssrc[outlet.ssrc] = outlet
        self._see_when_reports_are_due()

    def remove(self, stream: str) -> None:
        """The client gets a stream no more. Harmless when it did not."""
        outlet = self.outlets.pop(stream, None)
        if outlet is not None:
            del self._by_ssrc[outlet.ssrc]
            self._see_when_reports_are_due()

    def stream_of(self, ssrc: int) -> str | None:
        """The stream that the client knows by this source; None when it is none of its own."""
        outlet = self._by_ssrc.get(ssrc)
        return None if outlet is None else outlet.stream

    @property
    def playing(self) -> bool:
        """Whether media goes to the client."""
        return self.state is SendState.PLAYING

    def play(self, now_ns: int, media_ns: int) -> None:
        """Media goes to the client from now on, which is media time `media_ns`; a sender report goes out at once."""
        joins = not self.playing
        self.state, self._start_ns = SendState.PLAYING, now_ns - media_ns
        for outlet in self.outlets.values() if joins else ():
            outlet.reported_ns = None
            self._report_if_due(outlet, now_ns)

    def pause(self) -> None:
        """No more media goes to the client until the next `play`, but for what is left of a frame."""
        self.state = SendState.IDLE

    def end(self, now_ns: int) -> None:
        """The clip is over: what is left of it, a last report and BYE (RFC 3550 6.6). Nothing unless it plays."""
        if not self.playing:
            return
        for outlet in self.outlets.values():
            self._leave(outlet, len(outlet.spreader.flush()), now_ns)
            report, delays = self._report(outlet, now_ns), self._answers(outlet, now_ns)
            last = rtcp.serialize_sender_report(*report, cname=self._name, delays=delays)
            self._send_control(outlet, last + rtcp.serialize_bye(outlet.ssrc))
        self.state = SendState.ENDED

    # ---- media

    def send(self, stream: str, packed: Packed, pts_ns: int, now_ns: int) -> int:
        """A frame, or a chunk of sound, leaves now: its first packets at least. How many packets it is, with parity.

        What a repair of anyone's own sends beside it is a stream by itself, and not among them.

        Nothing, and 0, when the client does not play or has no such stream, or there is nothing in it.
        """
        outlet = self.outlets.get(stream)
        count = packed.total
        if outlet is None or self.state is not _PLAYING or not count:
            return 0
        outlet.frames += 1
        reported_ns = outlet.reported_ns
        if reported_ns is None or now_ns - reported_ns >= REPORT_NS:
            self._send_report(outlet, now_ns)
        timestamp = outlet.newest = rtp_timestamp(pts_ns, outlet.rate, outlet.timestamp_offset)
        stamped = packed.all_stamped(outlet.number & 0xFFFF, timestamp, outlet.ssrc)
        if outlet.marks_next:
            outlet.marks_next = False
            data = bytearray(stamped[0].data)
            data[1] |= MARKER
            stamped[0] = Batch(bytes(data), stamped[0].size)
        spread = outlet.spreads and (self.spread > 0 or bool(outlet.waiting))
        if not spread and outlet.parity is None and outlet.own is None and not outlet.waiting:
            outlet.number += count
            if outlet.spreads:
                outlet.interval_ns(pts_ns)
            for batch in stamped:
                self._let_out(outlet, batch, "", now_ns)
            return count
        outlet.waiting += [(batch, "") for batch in stamped]
        if outlet.parity is not None:
            outlet.parity.overhead = self.parity
            for over in batches(outlet.parity.protect([data for batch in stamped for data in batch.datagrams()])):
                outlet.waiting.append((over, "fec"))
                count += over.total
        leaving = count
        if (own := outlet.own) is not None:
            beside = own.packets(packed, base=outlet.next_sequence, timestamp=timestamp)
            for over in batches(beside):
                outlet.waiting.append((over, own.name))
            leaving += len(beside)
        outlet.number += count
        interval_ns = outlet.interval_ns(pts_ns) if outlet.spreads else 0
        if spread:  # what is left goes before it
            self._spreading = True
            outlet.spreader.share = self.spread
            outlet.spreader.push(Burst(range(leaving), interval_ns), now_ns)
            self._leave(outlet, len(outlet.spreader.pull(now_ns)), now_ns)
        else:
            self._leave(outlet, leaving, now_ns)
        return count

    def pass_on(self, frame: Passing, now_ns: int) -> int | None:
        """As `send`, of what goes to many clients alike: it leaves now, and its packets are the driver's to stamp.

        Returns the first packet's number, which does not wrap; what is outgoing goes before it. None: this client is
        to have more than the packets as they are, or nothing; then nothing has happened, and `send` is to be asked.
        """
        outlet = self.outlets.get(frame.stream)
        if (
            outlet is None
            or self.state is not SendState.PLAYING
            or outlet.began_ns is None
            or outlet.waiting
            or self.spread
            or outlet.again is not None
            or outlet.parity is not None
            or outlet.own is not None
            or outlet.timestamp_offset != frame.timestamp_offset
        ):
            return None
        reported_ns = outlet.reported_ns
        if reported_ns is None or reported_ns < frame.reports_from_ns:
            self._send_report(outlet, now_ns)
        if outlet.spreads and outlet._settled_ns is None:
            outlet.interval_ns(frame.pts_ns)
        number, count = outlet.number, frame.total
        outlet.number = number + count
        outlet.packets += count
        outlet.octets += frame.octets
        outlet.sent_bytes += frame.length
        outlet.frames += 1
        outlet.newest = frame.timestamp
        return number

    def copied(self, ssrc: int) -> None:
        """A network on this side has made a second one of a packet, which the client may count as received."""
        if (outlet := self._by_ssrc.get(ssrc)) is not None:
            outlet.copies += 1

    # ---- what the client says

    def receive(self, path: Path, batch: Batch, now_ns: int, *, age_ns: int = 0) -> None:
        """RTCP came from the client: reports are believed or not, packets asked for are sent again.

        What is no RTCP, or about sources of others, is passed over. `path` tells nothing that the bytes do not. It came
        `age_ns` ago: round trips and clocks are told by that moment.
        """
        for data in batch.datagrams():
            try:
                blocks, nacks = rtcp.parse_feedback(data)
                keys, limits = rtcp.asks_for_key(data), rtcp.limits_in(data)
            except WireError:
                continue
            reporter = int.from_bytes(data[4:8], "big") if self._shared else 0  # a compound's first packet is a report
            for block in blocks:
                if (outlet := self._by_ssrc.get(block.ssrc)) is not None:
                    self.heard_ns = now_ns
                    if self._hear(outlet, outlet.hearing(reporter), block, now_ns, age_ns):
                        self._learn_name(reporter, data)
                        self._learn_clock(outlet, outlet.hearing(reporter), block, data, now_ns - age_ns)
            for ssrc in keys:
                if (outlet := self._by_ssrc.get(ssrc)) is not None and self.playing:
                    self._events.append(KeyAsked(now_ns, outlet.stream, ssrc))
            for limit in limits:
                if limit.media_ssrc in self._by_ssrc:
                    self.limit = limit.fps, now_ns
            for nack in nacks:  # after the end, too: the last frames wait for what is asked for
                outlet = self._by_ssrc.get(nack.media_ssrc)
                if outlet is not None and outlet.again is not None and self.state is not SendState.IDLE:
                    self._send_again(outlet, outlet.again, nack, now_ns)

    # ---- the machine

    def timer_at(self) -> int | None:
        """When `handle_timer` has something to do next; None while it has not."""
        at_ns = self._report_ns if self.state is _PLAYING else None
        if self._spreading:
            for outlet in self.outlets.values():
                due_ns = outlet.spreader.wake_at()
                if due_ns is not None and (at_ns is None or due_ns < at_ns):
                    at_ns = due_ns
        return at_ns

    def handle_timer(self, now_ns: int) -> None:
        """Time has come: more of a frame that is spread leaves, and reports where no packet took one along."""
        self._spreading = False
        for outlet in self.outlets.values():
            reported_ns = outlet.reported_ns
            if self.playing and reported_ns is not None and now_ns >= reported_ns + REPORT_NS + SLACK_NS:
                self._report_if_due(outlet, now_ns)
            self._leave(outlet, len(outlet.spreader.pull(now_ns)), now_ns)
            self._spreading = self._spreading or bool(outlet.waiting)

    def outgoing(self) -> list[Outgoing]:
        """What is to be sent, in order, since the last call: by the driver, at once."""
        out, self._outgoing = self._outgoing, []
        return out

    @property
    def has_outgoing(self) -> bool:
        """Whether there is anything to be sent."""
        return bool(self._outgoing)

    def events(self) -> list[SenderEvent]:
        """What has come from the client since the last call."""
        if not self._events:
            return []
        out, self._events = self._events, []
        return out

    # ---- within

    def _leave(self, outlet: Outlet, count: int, now_ns: int) -> None:
        """The next so many packets of those that wait go out, in as few batches as they are."""
        waiting = outlet.waiting
        while count:
            batch, repair = waiting.popleft()
            total = batch.total
            if total > count:
                waiting.appendleft((batch.part(count, total), repair))
                batch, total = batch.part(0, count), count
            count -= total
            self._let_out(outlet, batch, repair, now_ns)

    def _let_out(self, outlet: Outlet, batch: Batch, repair: str, now_ns: int) -> None:
        """A batch goes out."""
        size, total, packets = batch.length, batch.total, outlet.packets
        outlet.sent_bytes += size
        if repair and (own := outlet.own) is not None and repair == own.name:
            sent = Sent(now_ns, outlet.stream, own.ssrc, own.number, batch, repair)
            self._outgoing.append(Outgoing(outlet.media, batch, sent))
            own.number += total
            return
        if not packets:
            outlet.began_ns = now_ns
        outlet.packets = packets + total
        outlet.octets += size - HEADER_BYTES * total
        if outlet.again is not None:
            outlet.again.sent(batch, now_ns)
        sent = _new(Sent, (now_ns, outlet.stream, outlet.ssrc, outlet.first_sequence + packets, batch, repair, None))
        self._outgoing.append(_new(Outgoing, (outlet.media, batch, sent)))

    def _send_again(self, outlet: Outlet, again: RtxSender, nack: rtcp.Asked, now_ns: int) -> None:
        packets = again.answer(nack.within(*again.kept), now_ns, most=self._budget.left(now_ns))
        self._budget.spend(len(packets))
        for batch in batches(packets):
            number = outlet.again_number(first_sequence(batch))
            outlet.again_number.start_at((number + batch.total - 1) & 0xFFFF)
            outlet.sent_bytes += batch.length
            sent = Sent(now_ns, outlet.stream, again.ssrc, number, batch, "rtx")
            self._outgoing.append(Outgoing(outlet.media, batch, sent))

    def _report_if_due(self, outlet: Outlet, now_ns: int) -> None:
        """A sender report with both clocks of this moment, before the first packet and every half second after."""
        if outlet.reported_ns is None or now_ns - outlet.reported_ns >= REPORT_NS:
            self._send_report(outlet, now_ns)

    def _send_report(self, outlet: Outlet, now_ns: int) -> None:
        outlet.reported_ns = now_ns
        self._see_when_reports_are_due()
        report, delays = self._report(outlet, now_ns), self._answers(outlet, now_ns)
        self._send_control(outlet, rtcp.serialize_sender_report(*report, cname=self._name, delays=delays))

    def _see_when_reports_are_due(self) -> None:
        """When the first of them goes by itself."""
        known = [outlet.reported_ns for outlet in self.outlets.values() if outlet.reported_ns is not None]
        self._report_ns = min(known) + REPORT_NS + SLACK_NS if known else None

    def _report(self, outlet: Outlet, now_ns: int) -> tuple[int, int, int, int, int]:
        """The fields of a sender report."""
        ntp, timestamp = self._moments.tell(now_ns), outlet.timestamp(now_ns - self._start_ns)
        return outlet.ssrc, ntp, timestamp, outlet.packets & 0xFFFFFFFF, outlet.octets & 0xFFFFFFFF

    def _answers(self, outlet: Outlet, now_ns: int) -> list[rtcp.Delay]:
        """To whoever has told its time since the last report: which one that was, and for how long it is here."""
        delays: list[rtcp.Delay] = []
        for hearing in outlet.hearings.values():
            if hearing.reference is not None and len(delays) < rtcp.MAX_DELAYS:
                ssrc, bits, came_ns = hearing.reference
                delays.append(rtcp.Delay(ssrc, bits, delay_units(now_ns - came_ns)))
                hearing.reference = None
        return delays

    def _send_control(self, outlet: Outlet, data: bytes) -> None:
        self._outgoing.append(Outgoing(outlet.control, Batch(data, len(data))))

    def _hear(self, outlet: Outlet, hearing: Hearing, block: rtcp.ReportBlock, now_ns: int, age_ns: int) -> bool:
        """Whether it is no more often than reports come."""
        since_ns = None if hearing.heard_ns is None else now_ns - hearing.heard_ns
        if since_ns is not None and since_ns < REPORT_NS // 4:  # so many tell no more, and cost the others
            return False
        elapsed_ns = now_ns - outlet.began_ns if outlet.began_ns is not None else 0
        sent = Account(outlet.first_sequence, outlet.packets, outlet.copies, elapsed_ns, outlet.rate)
        doubt = belief.doubt(block, sent, hearing.reception)
        if doubt is not None and not outlet.doubted and outlet.packets:
            outlet.doubted = True
            self._events.append(Doubted(now_ns, outlet.stream, outlet.ssrc, doubt))
        sent_bytes = outlet.octets - hearing.octets
        hearing.told = Reported(
            now_ns,
            outlet.stream,
            outlet.ssrc,
            loss=block.fraction_lost / 256,
            lost=block.cumulative_lost,
            jitter_ns=ticks_to_ns(block.jitter, outlet.rate),
            round_trip_ns=self._round_trip_ns(block, elapsed_ns, now_ns - age_ns),
            kbps=sent_bytes * 8 / (since_ns / 1e6) if since_ns else None,
            doubt=doubt,
        )
        self._events.append(hearing.told)
        hearing.reception, hearing.heard_ns, hearing.octets = block, now_ns, outlet.octets
        return True

    def _learn_name(self, reporter: int, data: bytes) -> None:
        """A report says what its sender is called: a stranger's word, kept as far as it can be shown."""
        name = person(rtcp.name_in(data))
        if name and (reporter in self.names or len(self.names) < MOST_HEARD):
            self.names[reporter] = name

    def _learn_clock(self, outlet: Outlet, hearing: Hearing, block: rtcp.ReportBlock, data: bytes, now_ns: int) -> None:
        """What a report says of its sender's clock: kept for an answer, and for whoever compares the two."""
        reference = rtcp.reference_in(data)
        echo_ns = self._moments.echoed(block.last_sr)
        if reference is not None:
            hearing.reference = Reference(reference[0], middle(reference[1]), now_ns)
        elif echo_ns is None:
            return
        told_ns = None if reference is None else rtcp.ntp_to_ns(reference[1])
        held_ns = None if echo_ns is None else delay_ns(block.delay_since_sr)
        peer = int.from_bytes(data[4:8], "big")
        self._events.append(ClockTold(now_ns, outlet.stream, outlet.ssrc, peer, told_ns, echo_ns, held_ns))

    def _round_trip_ns(self, block: rtcp.ReportBlock, elapsed_ns: int, now_ns: int) -> int | None:
        """From the sender report that a report answers to, to now, without the client's own time (RFC 3550 6.4.1)."""
        if not block.last_sr:
            return None
        now = rtcp.ns_to_ntp(now_ns + self._unix_offset_ns) >> 16 & 0xFFFFFFFF
        trip_ns = ((now - block.last_sr - block.delay_since_sr) & 0xFFFFFFFF) * NS >> 16
        return trip_ns if trip_ns <= min(MOST_TRIP_NS, elapsed_ns + SENT_BEFORE_NS) else None
