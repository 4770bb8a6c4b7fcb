"""The receiver's end of a simulated network: packets put together, repaired, shown and written down.

The stages are a real client's, but for what puts a frame together and what parity brings back, where bytes would be
needed. No threads, no sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from avlab.measure.record.trace import PacketTuple, Recorder
from avlab.network.impairment import Copy, Impairment, Packet
from avlab.network.parity import KEEP_GROUPS, KEEP_PACKETS
from avlab.network.ratecontrol import Choice, RateController, Report, asked
from avlab.network.retransmission import Requester
from avlab.parts import Call, called
from avlab.stream.virtual_sender import PLACE, Again, Over, Packetizer, Sent, Travelling
from avlab.timing.jitterbuffer import Frame, JitterBuffer, Run
from avlab.timing.playout import DEFAULT_DELAY_NS, MediaClock, Playout, Start
from avlab.timing.stage import Dropped
from avlab.timing.target import Steering
from avlab.wire.batch import Batch
from avlab.wire.rtp import HEADER_BYTES
from avlab.wire.units import JPEG_CODING, NS, WireError

REPORT_NS = NS // 2
"""As often as on sockets."""


class _Counted:
    """Puts a frame together by counting: every payload says its place and how many there are."""

    def __init__(self) -> None:
        self._here: set[int] = set()
        self._first = self._count = 0
        self.complete = False

    def add_run(self, sequence: int, marker: bool, batch: Batch, /) -> Sequence[WireError]:
        place, self._count = PLACE.unpack_from(batch.data, HEADER_BYTES)
        self._first = sequence - place
        self._here.update(range(sequence, sequence + batch.total))
        self.complete = len(self._here) == self._count
        return ()

    def frame(self) -> bytes:
        return b""

    coding, key = JPEG_CODING, True

    def begins(self, sequence: int, /) -> None:
        pass

    def rescued(self) -> None:
        pass

    @property
    def missing(self) -> Sequence[int]:
        return [n for n in range(self._first, self._first + self._count) if n not in self._here]


class _Rebuilding:
    """The groups of a frame's packets that parity is over, and which of them are wanting."""

    def __init__(self) -> None:
        self._wanting: dict[int, tuple[set[int], dict[int, Travelling]]] = {}  # by the parity's own number
        self._groups: dict[int, int] = {}  # a wanted packet's number -> the parity over it
        self._here: dict[int, None] = {}

    def arrived(self, packet: Travelling) -> Travelling | None:
        """A packet came; the one that it brings back."""
        self._here[packet.sequence] = None
        if len(self._here) > KEEP_PACKETS:
            del self._here[next(iter(self._here))]
        key = self._groups.pop(packet.sequence, None)
        if key is None:
            return None
        self._wanting[key][0].discard(packet.sequence)
        return self._back(key)

    def parity(self, over: Over) -> Travelling | None:
        """Parity came; the packet that it brings back."""
        members = {packet.sequence: packet for packet in over.members}
        wanting = {number for number in members if number not in self._here}
        if not wanting:
            return None
        key = over.packet.sequence
        self._wanting[key] = wanting, members
        self._groups |= dict.fromkeys(wanting, key)
        if len(self._wanting) > KEEP_GROUPS:
            self._forget(next(iter(self._wanting)))
        return self._back(key)

    def _back(self, key: int) -> Travelling | None:
        wanting, members = self._wanting[key]
        if len(wanting) != 1:
            return None
        (number,) = wanting
        self._forget(key)
        self._here[number] = None
        return members[number]

    def _forget(self, key: int) -> None:
        for number in self._wanting.pop(key)[0]:
            self._groups.pop(number, None)


class Receiver:
    """A client's jitter buffer and playout behind a network, and the record of what became of every packet and frame.

    `packets` says whether the record has rows of packets; `ssrc` names their source, and the next number that of what
    is sent again. `delay_ns` None is an adaptive playout delay, by `steering`. With `ask`, what is missing is asked
    for, as long as the answer can come in time: `ask(numbers, now_ns)`.
    """

    def __init__(
        self,
        network: Impairment,
        recorder: Recorder,
        *,
        delay_ns: int | None,
        steering: Steering | None,
        packets: bool,
        ssrc: int,
        repair: str | None = None,
        ask: Callable[[list[int], int], None] | None = None,
    ) -> None:
        self._network, self._recorder = network, recorder
        self._packets, self._ssrc = packets, ssrc
        self.repair_ssrc = ssrc + 1
        self._clock = MediaClock()
        self._buffer = JitterBuffer(_Counted)
        self._playout = Playout(self._clock, at_once=delay_ns == 0)
        self._start = Start(expect={"video"}, delay_ns=DEFAULT_DELAY_NS if delay_ns is None else delay_ns)
        self._steering = steering
        self._open: dict[int, Sent] = {}  # frames without a fate, by ticks
        self._repaired = repair is not None
        self._requester = Requester() if repair == "rtx" else None
        self._ask = ask
        self._rebuilding = _Rebuilding() if repair == "fec" else None
        self._by_itself: dict[int, int] = {}  # when the latest of a frame came that was not repaired, before the start
        self._missed: dict[int, PacketTuple] = {}  # rows of lost packets that may still come back, by number
        self.arrived = self.lost = 0  # packets of the media, for reports

    def expect(self, frame: Sent) -> None:
        """A frame has been sent: it is owed a row."""
        self._open[frame.ticks] = frame

    def wake_at(self) -> int | None:
        """When a packet arrives, a picture is due, or something is to be asked for."""
        earliest, shown_ns = self._network.wake_at(), self._playout.wake_at()
        if shown_ns is not None and (earliest is None or shown_ns < earliest):
            earliest = shown_ns
        if self._requester is not None:
            asked_ns = self._requester.wake_at()
            if asked_ns is not None and (earliest is None or asked_ns < earliest):
                earliest = asked_ns
        return earliest

    def move_along(self, now_ns: int) -> None:
        """Take what has arrived, show what is due, give up what came too late."""
        rows: list[PacketTuple] = []
        run: list[Travelling] = []  # packets of a frame that came together, in their order
        for outcome in self._network.pull(now_ns):
            item = outcome.item if isinstance(outcome, Packet) else None
            if run and not (
                isinstance(item, Travelling)
                and item.frame is run[0].frame
                and item.sequence == run[-1].sequence + 1
                and self._rebuilding is None  # each may bring back one that lies between it and the next
            ):
                self._take_run(run, now_ns, rows)
                run = []
            if isinstance(item, Travelling):
                run.append(item)
            elif isinstance(outcome, Dropped):
                self._miss(outcome.item, outcome.reason, rows)
            elif isinstance(outcome, Copy):
                self._take(outcome.packet, now_ns, rows, copy=True)
            else:
                self._take(outcome, now_ns, rows, copy=False)
        if run:
            self._take_run(run, now_ns, rows)
        if self._requester is not None and self._ask is not None:
            self._requester.base_ns = self._clock.when_ns(0) if self._clock.running else None
            if asked := self._requester.pull(now_ns):
                self._ask(asked, now_ns)
        if self._steering is not None:
            self._steer(self._steering, now_ns)
        if rows and self._packets:
            self._recorder.packets(rows)
        for item in self._playout.pull(now_ns):
            if isinstance(item, Dropped):
                self._decide(item.item, item.reason)
            else:
                self._decide(item, "shown", now_ns)
        if self._playout.shown_pts_ns is not None:
            self._buffer.expire(self._playout.shown_pts_ns)
            self._take_frames(now_ns)

    def close(self, now_ns: int) -> None:
        """Nothing more will come: what is still incomplete stays so."""
        self._buffer.flush()
        self._take_frames(now_ns)
        self.move_along(now_ns)
        if self._packets:
            self._recorder.packets(self._missed.values())
        for frame in list(self._open.values()):
            self._settle(frame)

    def _steer(self, steering: Steering, now_ns: int) -> None:
        """See to an adaptive playout delay."""
        if self._requester is not None:
            steering.target.least_ns["video"] = self._requester.least_delay_ns

        def note(name: str, seconds: float) -> None:
            self._recorder.event(now_ns, name, seconds)

        steering.steer(self._clock, now_ns, shift=self._clock.shift, ease=steering.ease, note=note)

    def _take(self, packet: Packet, now_ns: int, rows: list[PacketTuple], *, copy: bool) -> None:
        """A packet that repairs, or a copy of any."""
        item: Travelling | Again | Over = packet.item
        if isinstance(item, Again):
            self._take_again(item, packet.size, now_ns, rows, copy=copy)
        elif isinstance(item, Travelling):
            self._take_run([item], now_ns, rows, copy=copy)
        else:
            fate, sent_ns = ("duplicate", None) if copy else ("used", item.packet.sent_ns)
            rows.append(self._row(item.packet, sent_ns, now_ns, fate))
            if self._rebuilding is not None and not copy and (back := self._rebuilding.parity(item)) is not None:
                self._restore(back, now_ns, rows)

    def _take_run(self, run: Sequence[Travelling], now_ns: int, rows: list[PacketTuple], *, copy: bool = False) -> None:
        """Packets of one frame with consecutive numbers."""
        first, last = run[0], run[-1]
        frame = first.frame
        payloads = [item.payload for item in run]
        fates = self._buffer.push_run(Run.of(first.sequence, frame.ticks, frame.pts_ns, last.marker, payloads), now_ns)
        for item, fate in zip(run, fates, strict=True):
            rows.append(self._row(item, None if copy else item.sent_ns, now_ns, fate))
            if fate == "late" and not copy:
                frame.late += 1
                self._settle(frame)
        self.arrived += 0 if copy else len(run)
        if self._steering is not None:
            self._steering.target.observe("video", frame.pts_ns, now_ns)
        if not self._clock.running:
            self._by_itself[frame.ticks] = now_ns
        if self._buffer.wake_at() is not None:
            self._take_frames(now_ns)
        for item in run:
            if self._requester is not None:
                self._requester.arrived(item.sequence, frame.pts_ns, item.marker, now_ns)
            elif self._rebuilding is not None and (back := self._rebuilding.arrived(item)) is not None:
                self._restore(back, now_ns, rows)

    def _take_again(self, item: Again, size: int, now_ns: int, rows: list[PacketTuple], *, copy: bool) -> None:
        """A packet sent again: what it brings back, if that was asked for."""
        packet, fate = item.original, "duplicate"
        assert self._requester is not None
        if not copy and self._requester.restored(packet.sequence, packet.frame.pts_ns, packet.marker, now_ns):
            fate = self._restore(packet, now_ns, rows)
        rows.append(self._again_row(item, size, None if copy else item.sent_ns, now_ns, fate))

    def _restore(self, packet: Travelling, now_ns: int, rows: list[PacketTuple]) -> str:
        """A packet is back; its fate."""
        frame = packet.frame
        run = Run.of(packet.sequence, frame.ticks, frame.pts_ns, packet.marker, (packet.payload,))
        [fate] = self._buffer.push_run(run, now_ns)
        if fate == "used":
            missed = self._missed.pop(packet.sequence, None)
            if missed is not None:
                frame.dropped -= 1
                rows.append((*missed[:7], now_ns, "recovered"))
        if self._buffer.wake_at() is not None:
            self._take_frames(now_ns)
        return fate

    def _miss(self, packet: Packet, reason: str, rows: list[PacketTuple]) -> None:
        item: Travelling | Again | Over = packet.item
        if isinstance(item, Again):
            rows.append(self._again_row(item, packet.size, item.sent_ns, None, reason))
            return
        if isinstance(item, Over):
            rows.append(self._row(item.packet, item.packet.sent_ns, None, reason))
            return
        self.lost += 1
        item.frame.dropped += 1
        row = self._row(item, item.sent_ns, None, reason)
        if self._repaired:
            self._missed[item.sequence] = row
        else:
            rows.append(row)
            self._settle(item.frame)

    def _row(self, item: Travelling, sent_ns: int | None, received_ns: int | None, fate: str) -> PacketTuple:
        timestamp = item.frame.ticks & 0xFFFFFFFF
        return "video", self._ssrc, item.sequence, timestamp, item.marker, item.size, sent_ns, received_ns, fate

    def _again_row(
        self, item: Again, size: int, sent_ns: int | None, received_ns: int | None, fate: str
    ) -> PacketTuple:
        packet = item.original
        timestamp, ssrc = packet.frame.ticks & 0xFFFFFFFF, self.repair_ssrc
        return "video", ssrc, item.sequence, timestamp, packet.marker, size, sent_ns, received_ns, fate

    def _settle(self, frame: Sent) -> None:
        """A frame of which no packet was, or will be, of use is lost; or late, if it came at all."""
        if frame.dropped + frame.late == frame.packets and frame.ticks in self._open:
            del self._open[frame.ticks]
            self._recorder.frame(frame.row("late" if frame.late else "lost"))

    def _take_frames(self, now_ns: int) -> None:
        for frame in self._buffer.pull(now_ns):
            if isinstance(frame, Dropped):
                self._decide(frame.item, frame.reason)
                continue
            # Not when it was repaired: a packet lost at the start would add its repair to the playout delay for good.
            self._start.arrived("video", frame.pts_ns, self._by_itself.get(frame.ticks, now_ns))
            if not self._clock.running and (base_ns := self._start.base_ns(now_ns)) is not None:
                self._clock.set(base_ns)
            self._playout.push(frame, now_ns)

    def _decide(self, frame: Frame, fate: str, shown_ns: int | None = None) -> None:
        self._recorder.frame(self._open.pop(frame.ticks).row(fate, frame, shown_ns))


class Reports:
    """Receiver reports of a simulated run, two a second, and what a rate controller makes of them."""

    def __init__(
        self,
        controller: RateController,
        now: Choice,
        network: Impairment,
        sender: Packetizer,
        receiver: Receiver,
        call: Call = called,
    ) -> None:
        self._call = call
        self._controller, self._now = controller, now
        self._network, self._sender, self._receiver = network, sender, receiver
        self._report_ns = REPORT_NS
        self._before = 0, 0, 0  # bytes sent, packets arrived and lost, at the last report

    def choice(self, now_ns: int) -> Choice | None:
        """What is to be sent from now on, if that is something else."""
        if now_ns < self._report_ns:
            return None
        seconds = (now_ns - self._report_ns + REPORT_NS) / NS
        self._report_ns = now_ns + REPORT_NS
        after = self._sender.sent_bytes, self._receiver.arrived, self._receiver.lost
        sent, arrived, lost = (new - old for new, old in zip(after, self._before, strict=True))
        self._before = after
        report = Report(
            time=now_ns / NS,
            client=1,
            loss=lost / max(1, arrived + lost),
            jitter=0.0,
            round_trip=2 * self._network.network.steady_delay + self._network.backlog_ns(now_ns) / NS,
            sent_kbps=sent * 8 / 1e3 / seconds,
            quality=self._now.quality,
            width=self._now.width,
        )
        chosen = asked(self._controller, report, call=self._call)
        if chosen is None or chosen == self._now:
            return None
        self._now = chosen
        return self._now
