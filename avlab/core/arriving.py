"""The streams of one server as they arrive, packet by packet: whose they are, and when they are for. Pure.

What is told of a source (its SSRC, its clocks, where it begins) is believed as far as the packets bear it out. What
has been taken goes to the presentation, and what happened leaves as events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from avlab.core.events import (
    ClockTold,
    Leapt,
    Malformed,
    NotBelieved,
    Notice,
    NumbersRestarted,
    PacketsTaken,
    Path,
    PlayerEvent,
    SourceChanged,
    SourcesKnown,
    Stray,
)
from avlab.core.moments import Moments, delay_ns
from avlab.core.presenting import Presenting
from avlab.core.repairing import Asking, Rebuilding, Repair, Repairing, repairing
from avlab.network.ownrepair import OwnRepair, Recovered, RepairReceiver
from avlab.timing.jitterbuffer import Run
from avlab.timing.ownbuffer import Tell
from avlab.timing.soundbuffer import SoundChunk
from avlab.timing.timeline import REORDERED_NS, Timeline
from avlab.wire import rtcp
from avlab.wire.batch import Batch
from avlab.wire.malformed import MalformedCount
from avlab.wire.payloads.formats import L16Format, SoundReader, VideoFormat
from avlab.wire.payloads.jpeg import NoSizeError
from avlab.wire.rtp import HEADER_BYTES, ReceiverStats, RtpPacket, RtpRun, SequenceNumbers, Unwrapper, chunk, runs
from avlab.wire.units import NS, PREDICTED, WireError

PROBATION = 3
"""So many packets with consecutive numbers make a source (RFC 3550 8.2 and A.1 leave the count open): one stray packet
does not."""

QUIET_NS = NS // 2
"""A source that was heard is not replaced before it has been quiet for so long, or has said BYE: of two that send at
the same time, the first is played."""

MOST_HELD = 256
"""Runs of packets kept of a source that is on probation."""

STRAYS_TOLD = 100
"""How many stray packets are told of; a hostile sender could fill a record with them."""

CLOCK_TOLD_NS = NS // 8
"""How often a stream's sender is listened to about its clock: it tells it twice a second."""

LEAPS_TOLD_NS = 5 * NS
"""Streams that leap within this are told of once."""

MISFIT = 1.5
"""How many times as much sound as its timestamps tell of is no jitter and no rounding."""

NOT_DESCRIBED = 25
"""So many packets of a payload type that was not described are worth a notice, while none comes of the one that was."""

STANDING = 25
STANDING_NS = 2 * NS
"""So many pictures or packets of sound with one timestamp, over so long, are worth a notice."""

SLIDE_S = 60
"""Seconds from one picture to the next, at the most that makes two after a leap of one stretch."""

NOTHING = Repairing()

_new = tuple.__new__  # a named tuple's own constructor takes twice as long

NOUNS = {"video": "pictures", "audio": "sound"}


@dataclass(slots=True)
class _Candidate:
    """A source on probation."""

    ssrc: int
    follows: int  # the sequence number that the next packet has
    runs: list[tuple[RtpRun, int]]  # with their arrivals
    packets: int


class Described(NamedTuple):
    """One stream as the server described and granted it."""

    payload_type: int
    rate: int
    """Ticks a second of its RTP clock."""
    channels: int = 1
    encoding: str = ""
    """As the description names it, for sentences."""
    ssrc: int | None = None
    """Its source, as far as the server told it."""
    repairs: Mapping[str, int] = MappingProxyType({})
    """The payload type of each kind of repair that is described."""
    repair: Repair | None = None
    """The kind that is agreed on."""
    own: OwnRepair | None = None
    """Anyone's own repair that is agreed on, beside that or instead."""
    tells_times: bool = False
    """Whether receivers are to tell their time, and are answered (RFC 3611 5.1, rcvr-rtt)."""
    heeds_limits: bool = False
    """Whether its sender is avlab, which is told how many pictures are taken."""
    repair_ssrcs: Mapping[str, int] = MappingProxyType({})
    """The sources of repairs that are streams of their own, as far as the server told them."""
    pictures: Mapping[int, VideoFormat] = MappingProxyType({})
    """The payload formats of pictures, by payload type; one that is not there is RTP/JPEG."""
    sound: SoundReader | None = None
    """The payload format of sound; None for L16."""

    @property
    def reordered(self) -> bool:
        """Whether its pictures may be sent in another order than they are seen, as predicted ones are."""
        return any(form.assembler().coding in PREDICTED for form in self.pictures.values())

    def repairing(self, ssrcs: Mapping[str, int]) -> Repairing | None:
        """The repair from its start, whose sources are known as far as `ssrcs` has them; None without one."""
        return repairing(self.repair, payload_type=self.payload_type, types=self.repairs, ssrcs=ssrcs, own=self.own)


@dataclass(slots=True)
class Incoming:
    """One stream as it arrives."""

    stream: str
    described: Described
    stats: ReceiverStats
    again: SequenceNumbers  # of packets sent again
    own_numbers: SequenceNumbers  # of packets of anyone's own repair
    repairing: Repairing | None
    ticks: Unwrapper = field(default_factory=lambda: Unwrapper(32))
    ssrc: int | None = None
    ended: bool = False
    """Whether its source has said BYE."""
    clock_told_ns: int | None = None  # when its source's clock was told of last
    heard_ns: int | None = None
    """When the newest packet of the stream's source came, a report included."""
    media_ns: int | None = None
    """The media time of the newest packet."""
    came_ns: int | None = None
    """When the newest packet of media came; None again when another source has taken over."""
    seen: set[int] = field(default_factory=set)
    repaired: set[int] = field(default_factory=set)  # numbers of packets of anyone's own repair
    first: int = 0  # the first number since the timestamps leapt: those before it are of another stretch
    held: tuple[RtpRun, int] | None = None  # out of line: the next packet proves it, or it was a stray one
    candidate: _Candidate | None = None
    kind: int | None = None  # the payload type of the newest packet of media
    foreign: int = 0  # packets of a payload type that was not described, since the newest packet of media
    foreign_after: int | None = None  # when that one came
    foreign_told: bool = False
    standing: tuple[int, int, int] = (-1, 0, 0)  # a timestamp that others have too: since when, and how many
    sound: SoundReader = field(init=False)  # what its sound is in packets
    measured: tuple[int, int] | None = None  # since which timestamp sound is measured, and how much came since
    misfit: bool = False  # its sound is not what the description says, and is not played
    past: int | None = None  # its source before it was cleared and added again
    early: rtcp.SenderReport | None = None  # of a source that goes on with the stream, before its first packet

    @property
    def numbers(self) -> tuple[SequenceNumbers, SequenceNumbers, SequenceNumbers]:
        """Of its packets, of those sent again, and of anyone's own repair."""
        return self.stats.numbers, self.again, self.own_numbers

    def __post_init__(self) -> None:
        self.sound = self.described.sound or L16Format(self.described.rate, self.described.channels)


class Arriving:
    """The streams of one server. `add` each, `begin` when they are asked for, `take` what comes.

    What has been taken goes to `presenting`, what happened to `emit`. `ssrc` is the player's own, and `moments` are
    those at which it told its time.
    """

    def __init__(
        self, presenting: Presenting, emit: Callable[[PlayerEvent], None], *, ssrc: int = 0, moments: Moments
    ) -> None:
        self.incoming: dict[str, Incoming] = {}
        self._before: dict[str, Incoming] = {}  # streams of which something had come when they were cleared
        self._ssrc, self._moments = ssrc, moments
        self._presenting, self._emit = presenting, emit
        self._timeline = Timeline(reference="audio")
        self._malformed, self._strays = MalformedCount(), 0
        self._too_large = False  # and told of
        self._leapt_ns: int | None = None
        self._ssrcs: dict[int, None] = {}  # all that were heard of
        self._repair_ssrcs: dict[int, None] = {}  # those of them that send what was lost again
        self.ended = False
        """Whether a stream has said BYE, as far as is known: some may have gone on since."""
        self.askings: tuple[tuple[Incoming, Asking], ...] = ()
        """The streams whose lost packets are asked for."""

    def clear(self) -> None:
        """Other streams will come instead of those that were added, or they themselves once more."""
        self._before |= {stream: each for stream, each in self.incoming.items() if each.media_ns is not None}
        self.incoming.clear()
        self.askings, self.ended = (), False
        if not self._before:
            self._timeline = Timeline(reference="audio")

    def add(self, stream: str, described: Described) -> Incoming:
        """A stream that the server has granted. One of which something came before it was cleared goes on."""
        rate = described.rate
        before = self._before.pop(stream, None)
        last = [None] * 3 if before is None else [each.last for each in before.numbers]
        repairing = described.repairing(described.repair_ssrcs)
        stats = ReceiverStats(rate, above=last[0])
        again, own = (SequenceNumbers(rate, above=each, adjoining=each is not None) for each in last[1:])
        incoming = Incoming(stream, described, stats, again, own, repairing)
        if before is None:
            self._timeline.add(stream, rate, reordered=described.reordered)
        else:
            incoming.ticks, incoming.media_ns = before.ticks, before.media_ns
            incoming.first = 1 + (last[0] or 0)
            incoming.past = before.past if before.ssrc is None else before.ssrc
        if described.ssrc is not None:
            self._know_source(incoming, described.ssrc)
        self.incoming[stream] = incoming
        self._find_askings()
        self._tell_sources()
        return incoming

    def _begin_repairing(self, incoming: Incoming, ssrcs: Mapping[str, int]) -> None:
        """A stream's repair starts anew, whose sources are known as far as `ssrcs` has them."""
        incoming.repairing = incoming.described.repairing(ssrcs)
        self._find_askings()

    def _find_askings(self) -> None:
        self.askings = tuple(
            (each, repair.asking)
            for each in self.incoming.values()
            if (repair := each.repairing) is not None and repair.asking is not None
        )

    @staticmethod
    def _know_source(incoming: Incoming, ssrc: int) -> None:
        """A stream comes from this source; from the one before a break, the break is no gap in its numbers."""
        incoming.ssrc = ssrc
        if ssrc == incoming.past:
            above = incoming.stats.numbers.last
            incoming.stats = ReceiverStats(incoming.described.rate, above=above, adjoining=above is not None)

    def begin(self, media_ns: int, stamps: Mapping[str, int], now_ns: int) -> int:
        """The server sends from now on, from `media_ns` on, for which each stream has its stamp (RFC 2326 12.33).

        The media time that it stands for: with streams that go on, the one at which they do.
        """
        self._timeline.go_on(self._presenting.latest_ns, now_ns)
        due_ns = self._timeline.due_ns(now_ns)
        media_ns = media_ns if due_ns is None else due_ns
        self._timeline.begin(media_ns, now_ns)
        for stream, stamp in stamps.items():
            incoming = self.incoming[stream]
            if incoming.media_ns is None:
                self._timeline.anchor(stream, incoming.ticks(stamp), media_ns)
        return media_ns

    def captured_ns(self, ticks: int) -> int | None:
        """What the sender's wall clock said at a timestamp of the pictures; None where its reports do not tell."""
        return self._timeline.captured_ns("video", ticks)

    def take(self, path: Path, batch: Batch, now_ns: int) -> None:
        """RTP or RTCP packets that came together; one that is neither is counted and passed over."""
        stream, control = path
        incoming = self.incoming[stream]
        if not control:
            self._take_packets(incoming, batch, now_ns)
            return
        for data in batch.datagrams():
            try:
                self._take_report(incoming, data, now_ns)
            except WireError as error:
                self._note_malformed(error, now_ns)

    # ---- what is told of it

    def _tell_sources(self) -> None:
        for incoming in self.incoming.values():
            repairs = incoming.repairing.ssrcs if incoming.repairing is not None else []
            for ssrc in (incoming.ssrc, *repairs):
                if ssrc is not None:
                    self._ssrcs[ssrc] = None
            for ssrc in repairs:
                self._repair_ssrcs[ssrc] = None
        own = {incoming.ssrc for incoming in self.incoming.values()}
        self._emit(SourcesKnown(tuple(self._ssrcs), tuple(ssrc for ssrc in self._repair_ssrcs if ssrc not in own)))

    def _note_malformed(self, error: WireError, now_ns: int) -> None:
        told = self._malformed.add(error)
        if told.record is not None:
            self._emit(Malformed(now_ns, told.record))
        if isinstance(error, NoSizeError) and not self._too_large:
            self._too_large = True
            words = f"{str(error)[0].lower()}{str(error)[1:].rstrip('.')}"
            self._emit(Notice(now_ns, "pictures too large", words))
        elif told.notice is not None and not self._too_large:
            words = (
                f"packets come that cannot be read, and are passed over ({told.notice}): see what the server sends, "
                "or what is between"
            )
            self._emit(Notice(now_ns, "malformed packets", words))

    def _note_stray(self, incoming: Incoming, run: RtpRun, now_ns: int) -> None:
        self._strays += 1
        if self._strays <= STRAYS_TOLD:
            self._emit(Stray(now_ns, incoming.stream, run.sequence, run.timestamp))

    def _note_leap(self, incoming: Incoming, leap_ns: int, now_ns: int) -> None:
        self._emit(Leapt(now_ns, incoming.stream, leap_ns))
        told_ns, self._leapt_ns = self._leapt_ns, now_ns
        if told_ns is None or now_ns - told_ns > LEAPS_TOLD_NS:
            way = "back" if leap_ns < 0 else "ahead"
            words = (
                f"the server's timestamps leapt {way} by {abs(leap_ns) / NS:,.1f} s, as when a film begins again or is "
                "wound on: playback goes on, and media time counts on"
            )
            self._emit(Notice(now_ns, "timestamps leapt", words))

    # ---- RTCP

    def _take_report(self, incoming: Incoming, data: bytes, now_ns: int) -> None:
        packets = rtcp.parse_compound(data)
        for packet in packets:
            if isinstance(packet, rtcp.SenderReport) and incoming.ssrc in (None, packet.ssrc):
                if incoming.ssrc is None:
                    self._know_source(incoming, packet.ssrc)
                incoming.heard_ns = now_ns
                incoming.stats.sender_report(packet.ntp, now_ns)
                if incoming.came_ns is None and incoming.media_ns is not None:
                    incoming.early = packet  # what its timestamps follow on is known with the first packet
                else:
                    self._take_clocks(incoming, packet, now_ns)
                self._tell_clock(incoming, packet, packets, now_ns)
            elif isinstance(packet, rtcp.Bye) and incoming.ssrc in packet.ssrcs:
                incoming.ended = self.ended = True

    def _take_clocks(self, incoming: Incoming, report: rtcp.SenderReport, now_ns: int) -> None:
        """What a sender report says of the sender's clocks; an NTP time of 0 says that it has none (6.4.1)."""
        if not report.ntp:
            return
        if incoming.ticks.highest is None:
            incoming.ticks(report.rtp_timestamp)
        ticks = incoming.ticks.peek(report.rtp_timestamp)
        if not self._timeline.report(incoming.stream, ticks, rtcp.ntp_to_ns(report.ntp), now_ns):
            self._emit(NotBelieved(now_ns, incoming.stream, "sender report"))

    def _tell_clock(
        self, incoming: Incoming, report: rtcp.SenderReport, packets: Sequence[rtcp.RtcpPacket], now_ns: int
    ) -> None:
        """What the sender's clock shows, and which of our moments it answers (RFC 3611 4.5)."""
        told_ns = incoming.clock_told_ns
        if not report.ntp or (told_ns is not None and now_ns - told_ns < CLOCK_TOLD_NS):
            return
        incoming.clock_told_ns = now_ns
        delays = (delay for packet in packets if isinstance(packet, rtcp.ExtendedReport) for delay in packet.delays)
        mine = next((delay for delay in delays if delay.ssrc == self._ssrc), None)
        echo_ns = None if mine is None else self._moments.echoed(mine.last)
        held_ns = None if mine is None or echo_ns is None else delay_ns(mine.delay)
        peer, wall_ns = report.ssrc, rtcp.ntp_to_ns(report.ntp)
        self._emit(ClockTold(now_ns, incoming.stream, peer, peer, wall_ns, echo_ns, held_ns))

    # ---- RTP

    def _take_packets(self, incoming: Incoming, batch: Batch, now_ns: int) -> None:
        """RTP packets that came together: the stream's own in runs, and what repairs it."""
        if incoming.stream != "video":
            whole = chunk(batch)
            as_described = whole is not None and whole.payload_type == incoming.described.payload_type
            if whole is not None and as_described and self._take_chunk(incoming, whole, now_ns):
                return
        for run in runs(batch, spaced=incoming.stream != "video"):
            try:
                if isinstance(run, WireError):
                    raise run
                kind, described = run.payload_type, incoming.described
                if kind == described.payload_type or kind in described.pictures:
                    if not run.ticks:
                        self._take_run(incoming, run, now_ns)
                    elif not self._take_chunk(incoming, run, now_ns):
                        for at in range(run.total):
                            self._take_run(incoming, run.part(at, at + 1)._replace(ticks=0), now_ns)
                elif incoming.repairing is not None:
                    for data in run.packets:
                        self._take_repair(incoming, incoming.repairing, RtpPacket.parse(data), data, now_ns)
                elif run.payload_type not in incoming.described.repairs.values():
                    self._note_foreign(incoming, run, now_ns)
            except WireError as error:
                self._note_malformed(error, now_ns)

    def _note_foreign(self, incoming: Incoming, run: RtpRun, now_ns: int) -> None:
        """Packets of a payload type that the description does not have: nothing tells what they are."""
        media, came_ns = incoming.described, incoming.came_ns
        if incoming.foreign_after != came_ns:
            incoming.foreign, incoming.foreign_after = 0, came_ns
        incoming.foreign += run.total
        alone = incoming.foreign >= NOT_DESCRIBED and (came_ns is None or now_ns - came_ns > NS)
        if alone and not incoming.foreign_told:
            incoming.foreign_told = True
            words = (
                f"packets of {NOUNS[incoming.stream]} come with payload type {run.payload_type}, and the server "
                f"described {media.encoding} as {media.payload_type}: see that it describes what it sends"
            )
            self._emit(Notice(now_ns, "payload type not described", words))

    def _take_run(self, incoming: Incoming, run: RtpRun, now_ns: int) -> None:
        """Packets of media: whose they are."""
        if incoming.ssrc is None:
            self._know_source(incoming, run.ssrc)
            self._tell_sources()
        if run.ssrc == incoming.ssrc:
            incoming.candidate = None
            self._take_in_line(incoming, run, now_ns, now_ns)
        elif proved := self._proved(incoming, run, now_ns):
            incoming.candidate = None
            self._change_source(incoming, run.ssrc, now_ns)
            for each, arrived_ns in proved:
                self._take_in_line(incoming, each, arrived_ns, now_ns)

    def _take_chunk(self, incoming: Incoming, run: RtpRun, now_ns: int) -> bool:
        """Packets of sound that came together and go on from those before them, which is as each by itself would fare.

        False, and nothing done, when there is anything else about them.
        """
        kind, number, timestamp, ssrc, _, batch, _, step = run
        count, stats, unwrapper = batch.total, incoming.stats, incoming.ticks
        if ssrc != incoming.ssrc or incoming.held is not None or incoming.repairing is not None:
            return False
        sequence = stats.numbers.going_on(number)
        if incoming.came_ns is None or sequence is None or count * step > incoming.described.rate:
            return False
        first = unwrapper.peek(timestamp)
        if first <= (unwrapper.highest or 0):
            return False
        times_ns = self._timeline.goes_on(incoming.stream, first, step, count, now_ns)
        if times_ns is None:
            return False
        stats.went_on(sequence, timestamp, now_ns, count, step)
        incoming.candidate = None
        incoming.heard_ns = incoming.came_ns = now_ns
        incoming.kind = kind
        unwrapper.highest = first + (count - 1) * step
        incoming.media_ns = times_ns[-1]
        fates = self._take_sounds(incoming, run, sequence, first, times_ns, now_ns)
        taken = now_ns, incoming.stream, ssrc, sequence, timestamp, False, run.sizes, fates, step
        self._emit(_new(PacketsTaken, taken))
        return True

    def _proved(self, incoming: Incoming, run: RtpRun, now_ns: int) -> list[tuple[RtpRun, int]]:
        """The packets of another source that is to take the place of the stream's (RFC 3550 8.2); none while not."""
        candidate = incoming.candidate
        if candidate is None or run.ssrc != candidate.ssrc or run.sequence != candidate.follows:
            candidate = incoming.candidate = _Candidate(run.ssrc, 0, [], 0)
        candidate.runs.append((run, now_ns))
        del candidate.runs[:-MOST_HELD]
        candidate.packets += run.total
        candidate.follows = (run.sequence + run.total) & 0xFFFF
        if candidate.packets < PROBATION:
            return []
        there = incoming.came_ns is not None and not incoming.ended and now_ns - incoming.came_ns < QUIET_NS
        return [] if there else candidate.runs

    def _change_source(self, incoming: Incoming, ssrc: int, now_ns: int) -> None:
        """Another source goes on with the stream: what was counted, learnt and asked for of the old one is over."""
        self._emit(SourceChanged(now_ns, incoming.stream, incoming.ssrc, ssrc))
        highest = incoming.stats.numbers.last
        incoming.ended, incoming.held = False, None
        incoming.stats = ReceiverStats(incoming.described.rate, above=highest)
        self._know_source(incoming, ssrc)
        if highest is not None:
            incoming.first = highest + 1
            incoming.came_ns = None  # its timestamps are compared with nothing
        if incoming.stream == "video":
            self._presenting.count_anew()
        self._begin_repairing(incoming, {})
        self._tell_sources()

    def _take_in_line(self, incoming: Incoming, run: RtpRun, arrived_ns: int, now_ns: int) -> None:
        """Packets of the stream's source: whether their numbers and timestamps are to be believed.

        One packet that is out of line with those before it is held until the next one follows it.
        """
        incoming.heard_ns = now_ns
        numbers = incoming.stats.numbers
        newest, restarts = numbers.highest, numbers.restarts
        sequence = incoming.stats.update(run.sequence, run.timestamp, arrived_ns, count=run.total)
        held, incoming.held = incoming.held, None
        if held is not None and run.sequence != (held[0].sequence + 1) & 0xFFFF:
            self._note_stray(incoming, held[0], now_ns)
            held = None
        if sequence is None:
            incoming.held = run, arrived_ns
            return
        if numbers.restarts != restarts:
            self._emit(NumbersRestarted(now_ns, incoming.stream, run.sequence))
            self._begin_repairing(incoming, self._known_ssrcs(incoming))
        if incoming.came_ns is None:
            first, first_ns = held or (run, arrived_ns)
            self._begin_stamps(incoming, first.timestamp, first_ns)
        elif newest is not None and sequence > newest:
            if held is not None and not self._continues(incoming, held[0], run, arrived_ns):
                self._note_stray(incoming, held[0], now_ns)
                incoming.stats.clock_stepped()
                held = None
            first, first_ns = held or (run, arrived_ns)
            seen = incoming.ticks.peek(first.timestamp)
            if self._timeline.leaps(incoming.stream, seen, first_ns):
                if held is None:
                    incoming.stats.clock_stepped()
                if held is None and run.total == 1:
                    incoming.held = run, arrived_ns
                    return
                incoming.first = sequence - (held is not None)
                ticks = incoming.ticks.after(first.timestamp)
                leap_ns = self._timeline.resume(incoming.stream, ticks, first_ns, seen=seen)
                self._note_leap(incoming, leap_ns, now_ns)
        if held is not None:
            self._use(incoming, held[0], sequence - 1, held[1], now_ns)
        self._use(incoming, run, sequence, arrived_ns, now_ns)

    def _begin_stamps(self, incoming: Incoming, timestamp: int, now_ns: int) -> None:
        """The first timestamp of a source."""
        if incoming.media_ns is None:
            incoming.ticks.start_at(timestamp)
            return
        self._timeline.resume(incoming.stream, incoming.ticks.after(timestamp), now_ns)
        if incoming.early is not None:
            report, incoming.early = incoming.early, None
            self._take_clocks(incoming, report, now_ns)

    def _continues(self, incoming: Incoming, held: RtpRun, run: RtpRun, now_ns: int) -> bool:
        """Whether a packet is on the same stretch of the sender's clock as the one before it, which was held.

        One that was held for its number alone is on that of those before it.
        """
        held_leaps, leaps = (
            self._timeline.leaps(incoming.stream, incoming.ticks.peek(each.timestamp), now_ns) for each in (held, run)
        )
        step = ((run.timestamp - held.timestamp + 0x8000_0000) & 0xFFFFFFFF) - 0x8000_0000
        rate, described = incoming.described.rate, incoming.described
        back = REORDERED_NS * rate // NS if described.reordered else 0
        return held_leaps == leaps and -back <= step <= SLIDE_S * rate

    def _use(self, incoming: Incoming, run: RtpRun, sequence: int, arrived_ns: int, now_ns: int) -> None:
        """Packets of media, numbered: to whom they are for, into the record, and to the repair."""
        total = run.total
        ahead = incoming.ticks.peek(run.timestamp) - (incoming.ticks.highest or 0)
        overtaken = incoming.stats.numbers.highest != sequence + total - 1
        if sequence < incoming.first or (overtaken and ahead > incoming.described.rate):
            # Overtaken by packets with timestamps of another stretch.
            self._tell_run(incoming, run, sequence, ["late"] * total, arrived_ns)
            return
        incoming.came_ns, incoming.kind = now_ns, run.payload_type
        ticks = incoming.ticks(run.timestamp)
        if ahead == 0:
            self._note_standing(incoming, run, ticks, now_ns)
        if not self._timeline.arrived(incoming.stream, ticks, arrived_ns):
            self._emit(NotBelieved(now_ns, incoming.stream, "RTP-Info"))
        incoming.media_ns = media_ns = self._timeline.media_ns(incoming.stream, ticks)
        fates: Sequence[str | None]
        if incoming.stream == "video":
            form = incoming.described.pictures.get(run.payload_type)
            tell = self._teller(incoming, run, sequence, arrived_ns) if self._presenting.tells_later else None
            taken = _new(Run, (sequence, ticks, media_ns, run.marker, run.batch, form))
            fates = self._presenting.take_run(taken, now_ns, tell=tell)
            for refused in self._presenting.refusals():
                self._note_malformed(refused, now_ns)
        else:
            fates = [
                self._take_sound(incoming, payload, number, ticks, now_ns)
                for number, payload in enumerate(run.payloads, sequence)
            ]
        if incoming.stream != "video" or not self._presenting.tells_later:
            self._tell_run(incoming, run, sequence, fates, arrived_ns)
        asking, rebuilding, own = incoming.repairing or NOTHING
        if asking is not None:
            asking.requester.arrived_together(sequence, total, media_ns, run.marker, now_ns)
        if rebuilding is not None:
            for data in run.packets:
                self._take_rebuilt(incoming, rebuilding, data, now_ns)
        if own is not None:
            for number, payload in enumerate(run.payloads, sequence):
                self._take_recovered(incoming, own.media(number, payload), now_ns)

    def _note_standing(self, incoming: Incoming, run: RtpRun, ticks: int, now_ns: int) -> None:
        """Say, once, that the timestamps of what comes do not go on: all with one are a single picture, or overdue."""
        at, since_ns, before = incoming.standing if incoming.standing[0] == ticks else (ticks, now_ns, 0)
        if before < 0:  # told
            return
        count = before + (run.marker if incoming.stream == "video" else run.total)
        if count >= STANDING and now_ns - since_ns >= STANDING_NS:
            count = -1
            words = (
                f"the timestamps of {NOUNS[incoming.stream]} stand still, so that what comes cannot be told apart in "
                "time and is not played: see what the server says of its clock"
            )
            self._emit(Notice(now_ns, "timestamps stand still", words))
        incoming.standing = at, since_ns, count

    @staticmethod
    def _known_ssrcs(incoming: Incoming) -> dict[str, int]:
        """The sources of a stream's repairs by name, as far as they are known by now."""
        asking, _, own = incoming.repairing or NOTHING
        described = incoming.described.own
        known = {"rtx": None if asking is None else asking.ssrc}
        if own is not None and described is not None:
            known[described.name] = own.ssrc
        return {name: ssrc for name, ssrc in known.items() if ssrc is not None}

    def _tell_run(
        self, incoming: Incoming, run: RtpRun, sequence: int, fates: Sequence[str | None], now_ns: int
    ) -> None:
        _, _, stamp, ssrc, marker, _, _, ticks = run
        taken = now_ns, incoming.stream, ssrc, sequence, stamp, marker, run.sizes, fates, ticks
        self._emit(_new(PacketsTaken, taken))

    def _teller(self, incoming: Incoming, run: RtpRun, sequence: int, now_ns: int) -> Tell:
        """Tells what became of a packet of a run, by its place in it, once that is known."""

        def tell(at: int, fate: str) -> None:
            self._tell_run(incoming, run.part(at, at + 1), sequence + at, [fate], now_ns)

        return tell

    def _tell_packet(
        self, incoming: Incoming, packet: RtpPacket, sequence: int, size: int, now_ns: int, fate: str
    ) -> None:
        stamp, marker = packet.timestamp, packet.marker
        self._emit(PacketsTaken(now_ns, incoming.stream, packet.ssrc, sequence, stamp, marker, (size,), (fate,)))

    def _take_repair(
        self, incoming: Incoming, repairing: Repairing, packet: RtpPacket, data: bytes, now_ns: int
    ) -> None:
        """A packet that is not media: one sent again, parity, or what repairs by anyone's own."""
        if incoming.ssrc is None or incoming.came_ns is None:
            return
        asking, rebuilding, own = repairing
        if asking is not None and asking.takes(packet):
            self._take_again(incoming, asking, packet, incoming.ssrc, data, now_ns)
        elif rebuilding is not None and packet.payload_type == rebuilding.parity_type:
            if packet.ssrc == incoming.ssrc:
                self._take_parity(incoming, rebuilding, packet, data, now_ns)
        elif own is not None and own.takes(packet):
            self._take_own(incoming, own, packet, data, now_ns)

    def _take_again(
        self, incoming: Incoming, asking: Asking, packet: RtpPacket, ssrc: int, data: bytes, now_ns: int
    ) -> None:
        """A packet that was sent again."""
        original = asking.original(packet, ssrc)
        sequence = incoming.stats.numbers.peek(original.sequence)
        ticks = incoming.ticks.peek(original.timestamp)
        media_ns = self._timeline.media_ns("video", ticks)
        fate = "duplicate"
        if asking.asked_for(packet, original, sequence, media_ns, now_ns):
            self._tell_sources()
            fate = self._take_back(incoming, original, len(data) - 2, now_ns)
            own = None if incoming.repairing is None else incoming.repairing.own
            if own is not None:
                self._take_recovered(incoming, own.media(sequence, original.payload), now_ns)
        number = incoming.again(packet.sequence, packet.timestamp, now_ns)
        if number is not None:
            self._tell_packet(incoming, packet, number, len(data), now_ns, fate)

    def _take_parity(
        self, incoming: Incoming, rebuilding: Rebuilding, packet: RtpPacket, data: bytes, now_ns: int
    ) -> None:
        """Parity, which has its number among the media's."""
        sequence = incoming.stats.update(packet.sequence, packet.timestamp, now_ns)
        if sequence is None:
            return
        fate = "duplicate" if sequence in incoming.seen else "used"
        self._tell_packet(incoming, packet, sequence, len(data), now_ns, fate)
        if fate == "used":
            self._remember(incoming, (sequence,))
            self._presenting.pass_over(sequence, now_ns)
            self._take_rebuilt(incoming, rebuilding, data, now_ns)

    def _take_own(self, incoming: Incoming, own: RepairReceiver, packet: RtpPacket, data: bytes, now_ns: int) -> None:
        """A packet of anyone's own repair, which is a stream by itself."""
        number = incoming.own_numbers(packet.sequence, packet.timestamp, now_ns)
        if number is None:
            return
        fate = "duplicate" if number in incoming.repaired else "used"
        known = own.ssrc is not None
        recovered = [] if fate == "duplicate" else own.repair(packet, incoming.stats.numbers.peek)
        if not known:
            self._tell_sources()
        self._tell_packet(incoming, packet, number, len(data), now_ns, fate)
        if fate == "used":
            incoming.repaired.add(number)
            if len(incoming.repaired) > 8192:
                incoming.repaired = {each for each in incoming.repaired if each > number - 4096}
        self._take_recovered(incoming, recovered, now_ns)

    def _take_recovered(self, incoming: Incoming, recovered: Sequence[Recovered], now_ns: int) -> None:
        """Payloads that anyone's own repair has brought back."""
        asking = None if incoming.repairing is None else incoming.repairing.asking
        for number, timestamp, marker, payload in recovered:
            kind = incoming.described.payload_type if incoming.kind is None else incoming.kind
            ssrc = incoming.ssrc or 0
            sequence = incoming.stats.numbers.wire(number)
            self._take_back(
                incoming,
                RtpPacket(kind, sequence, timestamp, ssrc, marker, payload),
                HEADER_BYTES + len(payload),
                now_ns,
            )
            if asking is not None:
                asking.requester.settled(number)

    def _take_rebuilt(self, incoming: Incoming, repairing: Rebuilding, data: bytes, now_ns: int) -> None:
        for packet, size in repairing.back(data):
            self._take_back(incoming, packet, size, now_ns)

    def _take_back(self, incoming: Incoming, packet: RtpPacket, size: int, now_ns: int) -> str:
        """A packet that was lost is here after all; its fate says whether that was in time."""
        sequence, ticks = incoming.stats.numbers.peek(packet.sequence), incoming.ticks.peek(packet.timestamp)
        media_ns = self._timeline.media_ns("video", ticks)
        form = incoming.described.pictures.get(packet.payload_type)
        run = Run.of(sequence, ticks, media_ns, packet.marker, (packet.payload,), form)
        [fate] = self._presenting.take_run(run, now_ns, back=True)
        if fate == "used":
            self._tell_packet(incoming, packet, sequence, size, now_ns, "recovered")
        return fate

    def _take_sound(self, incoming: Incoming, payload: bytes, sequence: int, ticks: int, now_ns: int) -> str | None:
        """A packet of sound; its fate, None when it is malformed."""
        if sequence in incoming.seen:
            return "duplicate"
        self._remember(incoming, (sequence,))
        try:
            samples = incoming.sound.samples(payload)
        except WireError as error:
            self._note_malformed(error, now_ns)
            return None
        self._measure(incoming, len(samples), ticks, now_ns)
        if incoming.misfit:
            return None
        pts_ns = self._timeline.media_ns("audio", ticks)
        return self._presenting.take_sound(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns)

    def _take_sounds(
        self, incoming: Incoming, run: RtpRun, sequence: int, first: int, times_ns: Sequence[int], now_ns: int
    ) -> Sequence[str | None]:
        """The packets of a chunk, with the media time of each: as `_take_sound` for each."""
        batch, step, count = run.batch, run.ticks, len(times_ns)
        samples = incoming.sound.together(batch, step)
        since, brought = incoming.measured or (first, 0)
        within = since <= first and first + (count - 1) * step - since < incoming.described.rate
        if samples is None or incoming.misfit or not within:
            return [
                self._take_sound(incoming, payload, sequence + at, first + at * step, now_ns)
                for at, payload in enumerate(run.payloads)
            ]
        self._remember(incoming, range(sequence, sequence + count))  # they go on after all that came before
        incoming.measured = since, brought + len(samples)
        return self._presenting.take_sounds(_new(SoundChunk, (samples, first, step, times_ns, now_ns)))

    def _measure(self, incoming: Incoming, samples: int, ticks: int, now_ns: int) -> None:
        """Hold a second of sound against its timestamps: more than they tell of is sound of another encoding.

        Less may be a loss, or silence that is not sent.
        """
        media = incoming.described
        since, brought = incoming.measured or (ticks, 0)
        incoming.measured = since, brought + samples
        if not 0 <= ticks - since < media.rate:
            told = ticks - since
            if told > 0 and brought > MISFIT * told and not incoming.misfit:
                incoming.misfit = True
                words = (
                    f"what the server calls {media.encoding} at {media.rate:,} Hz brings {brought / told:.1f} times "
                    "the sound that its timestamps tell of, so that it is something else: it is not played"
                )
                self._emit(Notice(now_ns, "sound is not as described", words))
            incoming.measured = ticks, samples

    @staticmethod
    def _remember(incoming: Incoming, numbers: Sequence[int]) -> None:
        incoming.seen.update(numbers)
        if len(incoming.seen) > 8192:
            incoming.seen = {number for number in incoming.seen if number > numbers[-1] - 4096}
