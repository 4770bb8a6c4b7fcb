"""What a client is, without sockets, threads, devices and clocks: batches of packets in, pictures and sound out. Pure.

A driver calls `receive` when bytes have come, and `handle_timer` after that and whenever `timer_at` says so; it sends
what `outgoing` gives, at once and in order, and hands `events` to whoever subscribes. All times are integer nanoseconds
on one monotonic clock, the driver's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from avlab.core.arriving import Arriving, Described, Incoming
from avlab.core.ending import Ending
from avlab.core.events import Path, PlayerEvent
from avlab.core.moments import Moments
from avlab.core.presenting import LOOK_NS, Presenting
from avlab.core.sink import SoundSink
from avlab.parts import Call, PartError, called
from avlab.timing.jitterbuffer import Frame
from avlab.timing.playout import ClockReading
from avlab.timing.target import DelayTarget
from avlab.timing.verdicts import PictureVerdict
from avlab.wire import rtcp
from avlab.wire.batch import Batch
from avlab.wire.units import NS, Samples

REPORT_NS = NS // 2
"""As often as the server's own; see there."""

ASK_KEY_NS = NS // 2
"""A picture that needs no other is asked for so often at the most: it is large, and takes a while to come."""

FIRST_REPORT_NS = REPORT_NS // 2
"""From the beginning to the first report, half as long (RFC 3550 6.2): it tells a round trip while queues are short."""


class Player:
    """A client of one server. `add` its streams, `prepare` how they are presented, `begin` when they are asked for.

    `ssrc` is the player's own, in its reports; `unix_offset_ns` is Unix time less the driver's clock. On a wire without
    RTP, nothing is added, and `take_frame` and `take_sound` take what came.
    """

    def __init__(self, *, ssrc: int = 0, unix_offset_ns: int = 0) -> None:
        self.ssrc = ssrc
        self.name = ""
        """What whoever plays is called, told with each report (RFC 3550 6.5.2); empty: nothing is told."""
        self._events: list[PlayerEvent] = []
        self._outgoing: list[tuple[Path, Batch]] = []
        self._presenting = Presenting(self._events.append)
        self._moments = Moments(unix_offset_ns)
        self._arriving = Arriving(self._presenting, self._events.append, ssrc=ssrc, moments=self._moments)
        self._presenting.captured_ns = self._arriving.captured_ns
        self._report_ns: int | None = None  # when the next report is due; None before anything is asked for
        self._ending = Ending()
        self._asked_key_ns: int | None = None
        self._handled_ns = 0
        self._drained_ns: int | None = None  # at the end, when the device will have played the last of the sound

    # ---- what is agreed with the server

    def clear(self) -> None:
        """Other streams will come instead of those that were added."""
        self._arriving.clear()

    def add(self, stream: str, described: Described) -> None:
        """A stream, video or audio, as the server described and granted it.

        One that was there before `interrupt` goes on: its media time, as time does, and its packets' numbers.
        """
        self._arriving.add(stream, described)

    def leave_out(self, stream: str) -> None:
        """What comes of a stream of sound that was added is not played."""
        self._arriving.incoming[stream].misfit = True

    def interrupt(self, now_ns: int) -> None:
        """The way to the server has broken off. What has come is presented, and nothing reported or asked for.

        Streams may be added and begun again.
        """
        self._presenting.interrupt(now_ns)
        self._arriving.clear()
        self._report_ns = self._drained_ns = None
        self._outgoing.clear()
        self._ending = Ending()

    def prepare(
        self,
        *,
        streams: set[str],
        delay_ns: int | None,
        sound: SoundSink | None = None,
        timed: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        """The server is about to send `streams`, whose sound goes to `sound`.

        `delay_ns` is the playout delay: 0 shows pictures as they come, None finds one. Pictures of a wire that is not
        `timed` are shown as they come. `size` is their width and height, where a description tells them.
        """
        self._presenting.prepare(streams=streams, delay_ns=delay_ns, sound=sound, timed=timed, size=size)

    def begin(self, media_ns: int, stamps: Mapping[str, int], now_ns: int) -> int:
        """The server sends from now on, from `media_ns` on, for which each stream has its stamp (RFC 2326 12.33).

        The media time that it stands for: another one when the streams go on after `interrupt`.
        """
        self._report_ns = now_ns + FIRST_REPORT_NS
        return self._arriving.begin(media_ns, stamps, now_ns)

    def set_delay(self, delay_ns: int | None) -> None:
        """Another playout delay, from now on; None lets it find itself, beginning with what it is."""
        self._presenting.set_delay(delay_ns)

    def buffer_by(self, part: Any, *, call: Call = called, failed: Callable[[PartError], None] | None = None) -> None:
        """A jitter buffer of anyone's own (`avlab.parts`) for the pictures, from the next `prepare` on.

        It is called by `call`; when it fails, avlab's own takes over, and `failed` is told; without, PartError is
        raised.
        """
        self._presenting.buffer_by(part, call=call, failed=failed)

    def steer_by(self, target: DelayTarget) -> None:
        """What an adaptive playout delay keeps to, from now on: anyone's own, or the one that comes with avlab."""
        self._presenting.steer_by(target)

    # ---- what comes

    def receive(self, path: Path, batch: Batch, now_ns: int) -> None:
        """Packets that came together. KeyError for a stream that was not added."""
        self._arriving.take(path, batch, now_ns)

    def take_frame(self, frame: Frame, now_ns: int) -> None:
        """A whole picture of a wire that is not timed: `ticks` is its number, from 0."""
        self._presenting.take_frame(frame, now_ns)

    def take_sound(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> str:
        """Sound of a wire that is not timed, `ticks` samples after the first; its fate: used or late."""
        return self._presenting.take_sound(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns)

    def decoded(self, frame: Frame, image: Any, now_ns: int, *, fate: str = "incomplete") -> None:
        """What became of a picture that was to be decoded: BGR uint8 of (height, width, 3), or None and the `fate`."""
        self._presenting.take_decoded(frame, image, now_ns, fate=fate)

    def heard(self, *readings: ClockReading) -> None:
        """What the device says is heard."""
        self._presenting.readings += readings

    # ---- who looks

    def follow(self, taker: object | None, *, ahead: bool, now_ns: int) -> None:
        """The verdicts of this taker are the record's from now on, None for playout's own.

        With `ahead`, it gets pictures as soon as they are complete, by `FrameReady`, and owes its word on each; else
        when they are due, by `FrameDue`.
        """
        self._presenting.follow(taker, ahead=ahead, now_ns=now_ns)

    def give_waiting(self, taker: object) -> list[tuple[Frame, int]]:
        """The pictures that wait, with the moments that they are due at: for a taker that gets them ahead from now on.

        None before the first is presented: they come as events then.
        """
        return self._presenting.give_waiting(taker)

    def presented(self, verdicts: Iterable[PictureVerdict], *, taker: object | None = None) -> None:
        """What became of pictures, says a taker that was given them; with None, whoever was given each."""
        for verdict in verdicts:
            self._presenting.presented(taker, verdict)

    def resign(self, taker: object, *, shown: bool) -> None:
        """A taker will say nothing more; with `shown`, what playout has released counts as seen, else as skipped."""
        self._presenting.resign(taker, shown=shown)

    # ---- time

    def timer_at(self) -> int | None:
        """The next moment at which `handle_timer` has something to do; one in the past is for at once."""
        at_ns = self._presenting.timer_at()
        if self._report_ns is not None and (at_ns is None or self._report_ns < at_ns):
            at_ns = self._report_ns
        for _, asking in self._arriving.askings:
            ask_ns = asking.requester.wake_at()
            if ask_ns is not None and (at_ns is None or ask_ns < at_ns):
                at_ns = ask_ns
        if self._ending.begun or self._drained_ns is not None:
            return self._ends_at(at_ns)
        return at_ns

    def _ends_at(self, at_ns: int | None) -> int | None:
        """The next moment, `at_ns` or one at which the end is to be looked after."""
        moments = [at_ns]
        if self._ending.begun:  # what is left has its end by what the device and takers do, which tell nobody
            moments += [self._ending.timer_at(), self._handled_ns + LOOK_NS]
        if self._drained_ns is not None and self._drained_ns > self._handled_ns:
            moments.append(self._drained_ns)
        return min([moment for moment in moments if moment is not None], default=None)

    def handle_timer(self, now_ns: int) -> None:
        """Present what is due, ask for what is missing, report what came."""
        self._handled_ns = now_ns
        if self._arriving.ended or self._ending.begun:
            self._ending.look(self._arriving.incoming.values(), now_ns)
        self._presenting.handle_timer(now_ns)
        for incoming, asking in self._arriving.askings:
            if incoming.ssrc is None:
                continue
            requester = asking.requester
            requester.base_ns = self._presenting.base_ns
            ask_ns = requester.wake_at()
            if ask_ns is not None and ask_ns <= now_ns:
                nack = asking.nack(self.ssrc, incoming.ssrc, now_ns, wire=incoming.stats.numbers.wire)
                if nack is not None:
                    self._send(incoming.stream, nack)
            self._presenting.least_ns = requester.least_delay_ns
        if self._presenting.needs_key:
            self._ask_for_key(now_ns)
        if self._report_ns is not None and now_ns >= self._report_ns:
            self._report_ns = now_ns + REPORT_NS
            self._report(now_ns)

    def heed_sound(self, now_ns: int, at_ns: int) -> int | None:
        """Sound has come, and nothing else: as `handle_timer`, in less time, where nothing else is to be done.

        `at_ns` is what `timer_at` was; it is what this gives now, or later. None, when there is more to it: call
        `handle_timer` then.
        """
        if self._arriving.ended or self._ending.begun:
            return None
        moved = self._presenting.heed_sound(now_ns)
        return self.timer_at() if moved else None if moved is None else at_ns

    def outgoing(self) -> list[tuple[Path, Batch]]:
        """What is to be sent, a compound packet of RTCP each, since the last call."""
        if not self._outgoing:
            return []
        out, self._outgoing = self._outgoing, []
        return out

    def events(self) -> list[PlayerEvent]:
        """What happened, in order, since the last call."""
        if not self._events:
            return []
        out = self._events.copy()
        self._events.clear()
        return out

    # ---- the end

    @property
    def said_goodbye(self) -> bool:
        """Whether a stream has said BYE, and none has gone on in its place."""
        return self._ending.begun

    @property
    def over(self) -> bool:
        """Whether all has come that will, by the BYEs that came and by the last `handle_timer`."""
        return self._ending.over

    def finished(self, now_ns: int) -> bool:
        """After the streams' end: whether all that came has been seen and heard, or had its time."""
        if not self._presenting.finished(now_ns):
            return False
        if self._drained_ns is None:
            self._drained_ns = now_ns + self._presenting.sound_lead_ns
        return now_ns >= self._drained_ns

    def say_goodbye(self, now_ns: int) -> None:
        """A last report on each stream of which anything came, and BYE (RFC 3550 6.3.7): nobody plays any more."""
        self._report(now_ns, rtcp.Bye((self.ssrc,)))

    def flush(self, now_ns: int) -> None:
        """Nothing more comes: each picture that nobody owes a verdict on gets its fate."""
        self._presenting.flush(now_ns)

    def close(self) -> None:
        """After `flush` and the last verdicts: whatever is left gets its fate."""
        self._presenting.close()

    # ---- how it stands

    @property
    def streams(self) -> Mapping[str, Incoming]:
        """What is known of each stream; for reading."""
        return self._arriving.incoming

    @property
    def timed(self) -> bool:
        """Whether the wire tells when a picture is to be seen; without, how far it is from its sound is not known."""
        return self._presenting.timed

    @property
    def base_ns(self) -> int | None:
        """Where media time 0 falls; None before anything is presented."""
        return self._presenting.base_ns

    @property
    def delay_ns(self) -> int:
        """The playout delay: the one set, or the one that was found."""
        return self._presenting.delay_ns

    @property
    def least_delay_ns(self) -> int:
        """What the sound's device needs: less, and sound comes too late for it."""
        return self._presenting.least_delay_ns

    @property
    def held_back_ns(self) -> int:
        """How long sound is held back: the playout delay, or more where the device is slower."""
        return self._presenting.held_back_ns

    @property
    def unsettled_ns(self) -> int:
        """How old a picture may be whose fate is still open, counted from its arrival."""
        return self._presenting.unsettled_ns

    @property
    def received(self) -> tuple[int, int]:
        """How many packets of video were to be expected so far, and how many came; zeros on a wire without numbers."""
        return self._presenting.received

    # ---- within

    def _ask_for_key(self, now_ns: int) -> None:
        """A PLI (RFC 4585 6.3.1): pictures are spoilt until one comes that needs no other.

        Whether it was described or not: a server that does not know it passes it over (RFC 3550 6.1), and one that
        does ends seconds of damage.
        """
        incoming = self.streams.get("video")
        if incoming is None or incoming.ssrc is None or incoming.ended:
            return
        if self._asked_key_ns is not None and now_ns - self._asked_key_ns < ASK_KEY_NS:
            return
        self._asked_key_ns = now_ns
        asked = rtcp.PictureLoss(self.ssrc, incoming.ssrc)
        self._send(
            "video", rtcp.serialize_compound([rtcp.ReceiverReport(self.ssrc), rtcp.Sdes(self.ssrc, "avlab"), asked])
        )

    def tell_limit(self, fps: float) -> None:
        """Say that no more than so many pictures a second are taken, where the sender heeds it; the newest counts.

        It is forgotten after a second: as long as it holds, it is to be said again.
        """
        incoming = self.streams.get("video")
        if incoming is None or incoming.ssrc is None or incoming.ended or not incoming.described.heeds_limits:
            return
        told = rtcp.Limit(self.ssrc, incoming.ssrc, fps)
        self._send(
            "video", rtcp.serialize_compound([rtcp.ReceiverReport(self.ssrc), rtcp.Sdes(self.ssrc, "avlab"), told])
        )

    def _report(self, now_ns: int, *more: rtcp.RtcpPacket) -> None:
        """A receiver report on each stream of which anything came, with `more` behind it."""
        for incoming in self.streams.values():
            reception = incoming.stats.report(now_ns)
            if reception is None or incoming.ssrc is None:
                continue
            block = rtcp.ReportBlock.of(incoming.ssrc, reception)
            report: list[rtcp.RtcpPacket] = [rtcp.ReceiverReport(self.ssrc, (block,))]
            report.append(rtcp.Sdes(self.ssrc, "avlab", self.name))
            if incoming.described.tells_times:
                report.append(rtcp.ExtendedReport(self.ssrc, reference=self._moments.tell(now_ns)))
            self._send(incoming.stream, rtcp.serialize_compound([*report, *more]))

    def _send(self, stream: str, compound: bytes) -> None:
        self._outgoing.append((Path(stream, control=True), Batch(compound, len(compound))))
