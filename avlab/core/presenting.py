"""What becomes of pictures and sound once they have arrived: buffers, the media clock, verdicts, a fate for each. Pure.

Sound leaves through a sink, as only that knows what comes too late; all else that happens leaves as events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from avlab.core.events import (
    DecodeEnds,
    DelayChanged,
    FrameDecided,
    FrameDue,
    FrameReady,
    FrameToDecode,
    LeaderChanged,
    Notice,
    PlayerEvent,
    Rebuffered,
    SoundDecided,
    SyncRead,
    TooSlow,
)
from avlab.core.sink import SoundSink
from avlab.parts import Call, PartError, called
from avlab.timing.decodeorder import DecodeOrder
from avlab.timing.jitterbuffer import MAX_FRAMES, AssemblingBuffer, Frame, Run
from avlab.timing.ownbuffer import OwnBuffer, Tell
from avlab.timing.playout import DEFAULT_DELAY_NS, TARDY_NS, ClockReading, MediaClock, Playout, Start
from avlab.timing.soundbuffer import SoundChunk
from avlab.timing.stage import Dropped
from avlab.timing.target import DelayTarget, Steering
from avlab.timing.verdicts import Decision, PictureVerdict, Verdicts
from avlab.wire.units import JPEG_CODING, NS, PREDICTED, Samples, WireError

VERDICT_PATIENCE_NS = NS
"""At the end of the stream, how long a view may take to say what became of its last pictures."""

LOOK_NS = NS // 10
"""How often the device is looked at when nothing else asks for it: what it says is heard may come from elsewhere."""

MUTE_NS = 2 * NS
"""With no packet of sound for so long, or none yet, pictures go by the monotonic clock: nothing is heard that they
could keep to. Sound that comes later is taken up where it belongs."""

SLOW_NS = 5 * NS
SLOW_PICTURES = 10
SLOW_SHARE = 0.1
"""In so long, so many pictures, and such a part of all, that were there in time and not shown in time: the machine is
too slow, and a notice says so."""


LATE_SHARE = 0.5
"""In as long, such a part of all pictures too late to be shown: a notice says so, as it looks like a fault here."""

_new = tuple.__new__  # a named tuple's own constructor takes twice as long


class Presenting:
    """Puts pictures together and says when each is to be seen: when the sound reaches it, else by the monotonic clock.

    Nothing is taken before `prepare`. Whoever shows pictures is told of them by events; `follow` says whose verdicts
    count.
    """

    def __init__(self, emit: Callable[[PlayerEvent], None]) -> None:
        self._emit = emit
        self.captured_ns: Callable[[int], int | None] = lambda ticks: None
        """A picture's moment on the sender's wall clock, by its ticks."""
        self._sound: SoundSink | None = None
        self._clock = MediaClock()
        self._buffer: AssemblingBuffer | OwnBuffer = AssemblingBuffer()
        self._tells_later = False
        self._make_own: Callable[[AssemblingBuffer], OwnBuffer] | None = None
        self._quickest_ns: int | None = None  # of the pictures' packets before the start: arrival less media time
        self._playout = Playout(self._clock)
        self._decoding: dict[int, Frame] = {}  # whole pictures that are being decoded, by ticks
        self._order = DecodeOrder()
        self._decode_over = False
        self.needs_key = False
        """Whether pictures are spoilt, or cannot be decoded, until one comes that needs no other."""
        self._start = Start(expect=set(), delay_ns=0)
        self._delay_ns = 0
        self._timed = True
        self._verdicts = Verdicts()
        self._ahead = False  # the leader gets pictures before they are due
        self.readings: list[ClockReading] = []
        """What the device says is heard: the media clock goes by it from the next `handle_timer` on."""
        self._wait_ns: int | None = None  # how much later than its quickest arrival all is presented
        self._presented_ns = 0
        self._sound_ns: int | None = None  # when the newest sound came
        self._moved_ns = 0  # when playout was last looked at
        # Since when; how many pictures; how many that we were late for; how many that came late
        self._slow: tuple[int, int, int, int] | None = None
        self._by_itself: dict[int, int] = {}  # when the latest of a picture came unrepaired, by ticks, before the start
        self._numbers: tuple[int, int] | None = None  # of the packets of video: the lowest and the highest
        self._packets = 0
        self.least_ns = 0
        """What a repair needs at the least, when the delay is adaptive."""
        self._steering = Steering()
        self._adaptive = False

    def buffer_by(self, part: Any, *, call: Call = called, failed: Callable[[PartError], None] | None = None) -> None:
        """A jitter buffer of anyone's own puts pictures together, from the next `prepare` on; see `OwnBuffer`."""
        self._make_own = lambda usual: OwnBuffer(part, usual, call=call, failed=failed)

    def prepare(
        self,
        *,
        streams: set[str],
        delay_ns: int | None,
        sound: SoundSink | None,
        timed: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        """The server is about to send `streams`; `delay_ns` is the playout delay (0: shown at once, None: adaptive).

        Pictures of a wire that is not `timed` are shown as they come; nothing tells how far they are from the sound.
        `size` is their width and height, where a description tells them.
        """
        usual = AssemblingBuffer(size=size)
        self._buffer = usual if self._make_own is None else self._make_own(usual)
        self._tells_later = isinstance(self._buffer, OwnBuffer)
        self._sound = sound
        self._adaptive = delay_ns is None
        self._delay_ns = delay_ns = DEFAULT_DELAY_NS if delay_ns is None else delay_ns
        self._timed = timed
        self._start = Start(expect=streams if timed else streams & {"audio"}, delay_ns=delay_ns)
        self._playout.at_once = delay_ns == 0 or not timed

    # ---- how it stands

    @property
    def timed(self) -> bool:
        """Whether the wire tells when a picture is to be seen; without, how far it is from its sound is not known."""
        return self._timed

    @property
    def base_ns(self) -> int | None:
        """Where media time 0 falls; None before anything is presented."""
        return self._clock.base_ns

    @property
    def delay_ns(self) -> int:
        """The playout delay: the one set, or the one that was found."""
        base_ns = self.base_ns
        return self._steering.target.delay_ns(base_ns) if self._adaptive and base_ns is not None else self._delay_ns

    @property
    def latest_ns(self) -> int | None:
        """Arrival less media time of what comes just as it is expected; None while nothing waits to be presented."""
        base_ns = self.base_ns
        return None if base_ns is None or self._wait_ns is None or self._playout.at_once else base_ns - self._wait_ns

    @property
    def least_delay_ns(self) -> int:
        """What the device needs: less, and sound comes too late for it."""
        return 0 if self._sound is None else self._sound.least_delay_ns

    @property
    def sound_lead_ns(self) -> int:
        """How long before it is heard the sound's device asks for it; 0 without sound."""
        return 0 if self._sound is None else max(0, self._sound.lead_ns)

    @property
    def held_back_ns(self) -> int:
        """How long sound is held back: the playout delay, or more where the device is slower."""
        return max(self._delay_ns, self.least_delay_ns)

    @property
    def unsettled_ns(self) -> int:
        """How old a picture may be whose fate is still open, counted from its arrival."""
        patience_ns = VERDICT_PATIENCE_NS if self._verdicts.leader is not None else 0
        return NS // 2 + (self._wait_ns or 0) + patience_ns

    @property
    def received(self) -> tuple[int, int]:
        """How many packets of video were to be expected so far, and how many came; zeros on a wire without numbers."""
        low, high = self._numbers or (0, -1)
        return high - low + 1, self._packets

    # ---- what arrives

    def count_anew(self) -> None:
        """Another source sends the pictures from now on: its packets have numbers of their own."""
        self._numbers, self._packets = None, 0
        self._order.anew()

    def refusals(self) -> list[WireError]:
        """Why packets were no part of a picture, since the last call."""
        return self._buffer.refusals()

    @property
    def tells_later(self) -> bool:
        """Whether what becomes of a packet is known when it leaves the buffer, and not when it comes."""
        return self._tells_later

    def take_run(self, run: Run, now_ns: int, *, back: bool = False, tell: Tell | None = None) -> list[str]:
        """Packets of a picture; the fate of each: used, duplicate or late. `back`: they were lost, and repaired.

        Where the buffer `tells_later`, it is the fate by its number, and `tell` is told of the true one.
        """
        if not back:
            self._steering.target.observe("video", run.media_ns, now_ns)
            if not self._clock.running:
                self._by_itself[run.ticks] = now_ns
                if len(self._by_itself) > MAX_FRAMES:
                    del self._by_itself[next(iter(self._by_itself))]
        if isinstance(self._buffer, OwnBuffer):
            deadline_ns = self._deadline_ns(run, now_ns, back=back)
            fates = self._buffer.push_run(run, now_ns, deadline_ns=deadline_ns, tell=tell)
        else:
            fates = self._buffer.push_run(run, now_ns)
        new = len(fates) - fates.count("duplicate")
        if new:
            first, last = run.sequence, run.sequence + len(fates) - 1
            low, high = self._numbers or (first, last)
            self._numbers, self._packets = (min(low, first), max(high, last)), self._packets + new
        self._take_frames(now_ns)
        return fates

    def pass_over(self, sequence: int, now_ns: int) -> None:
        """A packet among those of pictures that is of none: parity."""
        self._buffer.pass_over(sequence, now_ns)

    def take_decoded(self, frame: Frame, image: Any, now_ns: int, *, fate: str) -> None:
        """What became of a picture that was to be decoded; with no image, its fate."""
        if self._decoding.pop(frame.ticks, None) is None:
            return
        if frame.coding in PREDICTED:
            self.needs_key = image is None or frame.damaged
        if image is None:
            self._decide((Decision(replace(frame, data=None), fate),))
            return
        self._play(replace(frame, image=image), now_ns)

    def take_frame(self, frame: Frame, now_ns: int) -> None:
        """A whole picture of a wire that is not timed."""
        self._playout.push(frame, now_ns)

    def take_sound(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> str:
        """A packet of sound; its fate: used, or late, as all of it is without a sink."""
        self._sound_ns = now_ns
        self._start.arrived("audio", pts_ns, now_ns)
        self._steering.target.observe("audio", pts_ns, now_ns)
        if self._sound is None:
            return "late"
        return "used" if self._sound.take(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns) else "late"

    def take_sounds(self, chunk: SoundChunk) -> list[str]:
        """Packets of sound that came together: as `take_sound` for each."""
        _, _, _, pts_ns, now_ns = chunk
        self._sound_ns = now_ns
        if self._clock.base_ns is None:
            self._start.arrived("audio", pts_ns[0], now_ns)
        self._steering.target.observe_together("audio", pts_ns, now_ns)
        if self._sound is None:
            return ["late"] * len(pts_ns)
        taken = self._sound.take_together(chunk)
        return ["used" if each else "late" for each in taken] if False in taken else ["used"] * len(taken)

    # ---- who looks

    def follow(self, taker: object | None, *, ahead: bool, now_ns: int) -> None:
        """The verdicts of this taker are the record's from now on, None for playout's own.

        With `ahead`, it gets pictures as soon as they are complete, by `FrameReady`, and owes its word on each.
        """
        self._ahead = ahead
        if taker is not self._verdicts.leader:
            self._emit(LeaderChanged(now_ns, taker is not None))
            self._verdicts.lead(taker)

    def give_waiting(self, taker: object) -> list[tuple[Frame, int]]:
        """The pictures that wait, with the moments that they are due at: for a taker that gets them ahead from now on.

        None before the clock runs: they come as events then.
        """
        waiting = self._waiting()
        if taker is self._verdicts.leader:
            for frame, _ in waiting:
                self._decide(self._verdicts.give(frame))
        return waiting

    def resign(self, taker: object, *, shown: bool) -> None:
        """A taker will say nothing more; with `shown`, what playout has released counts as seen, else as skipped."""
        self._decide(self._verdicts.resign(taker, shown=shown))

    def presented(self, taker: object | None, verdict: PictureVerdict) -> None:
        """A taker's verdict on a picture that it was given; of None, whoever was given it."""
        self._decide(self._verdicts.told(taker, verdict))

    # ---- time

    def timer_at(self) -> int | None:
        """The next moment at which `handle_timer` has something to do; 0 for at once."""
        base_ns, at_ns = self._clock.base_ns, self._playout.wake_at()
        if base_ns is None:
            if self._start.ready:
                return 0
            start_ns = self._start.wake_at()
            if start_ns is not None and (at_ns is None or start_ns < at_ns):
                at_ns = start_ns
        if self._sound is not None:
            look_ns = self._moved_ns + LOOK_NS
            if at_ns is None or look_ns < at_ns:
                at_ns = look_ns
        if self._clock.led and self._timed and self._sound_ns is not None:
            mute_ns = self._sound_ns + MUTE_NS + 1
            if at_ns is None or mute_ns < at_ns:
                at_ns = mute_ns
        if self._order.waiting or self._adaptive or self._tells_later:
            moments = (at_ns, *self._further(base_ns))
            at_ns = min([moment for moment in moments if moment is not None], default=None)
        if base_ns is not None and not self._playout.at_once:
            ripe_ns = self._buffer.ripe_pts_ns
            if ripe_ns is not None:
                at_ns = base_ns + ripe_ns if at_ns is None else min(at_ns, base_ns + ripe_ns)
        return at_ns

    def _further(self, base_ns: int | None) -> Iterator[int | None]:
        """Moments that most players have not."""
        if isinstance(self._buffer, OwnBuffer):
            yield self._buffer.wake_at()
        decode_ns = self._order.due_ns(self._buffer.adjoin)
        if decode_ns is not None and base_ns is not None and not self._playout.at_once:
            yield base_ns + decode_ns
        if self._adaptive:
            yield self._steering.wake_at(self._clock)

    def heed_sound(self, now_ns: int) -> bool | None:
        """Sound has come, and nothing else: go by what the device says is heard. Whether the media clock has moved.

        None, and nothing done, when there is more to do. What has been heard is told of by the next `handle_timer`.
        """
        clock, sound, wait_ns = self._clock, self._sound, self._wait_ns
        base_ns = clock.base_ns
        usual = base_ns is not None and self._timed and self._sound_ns == now_ns
        if not usual or self._adaptive or self._tells_later:
            return None
        if sound is None or wait_ns is None or sound.sink_lead_ns > wait_ns:
            return None
        if self.readings:
            clock.feed(*self.readings)
            self.readings.clear()
        self._moved_ns = now_ns
        return clock.base_ns != base_ns

    def handle_timer(self, now_ns: int) -> None:
        """Release what is due by now, give up what came too late."""
        clock, buffer, playout, sound = self._clock, self._buffer, self._playout, self._sound
        if clock.base_ns is None:
            self._try_to_start(now_ns)
        if sound is not None:
            if self._wait_ns is not None and sound.sink_lead_ns > self._wait_ns:
                # Sound has gone to a sink that wants it earlier: what has been presented was too close to its end.
                self._shift(sound.sink_lead_ns - self._wait_ns)
            # Steered by what the device says is heard, while there is sound to be heard.
            if self._timed and (self._sound_ns is None or now_ns - self._sound_ns > MUTE_NS):
                clock.led = False
                self.readings.clear()
            elif self.readings:
                clock.feed(*self.readings)
                self.readings.clear()
        if self._adaptive:
            self._steer(now_ns)
        busy = not buffer.idle
        if busy:
            if clock.base_ns is not None and not playout.at_once:
                buffer.ripen(now_ns - clock.base_ns, now_ns)
                self._take_frames(now_ns)
            elif self._tells_later:
                self._take_frames(now_ns)
        due_ns = playout.wake_at()
        if due_ns is not None and due_ns <= now_ns:
            self._present(now_ns)
        self._moved_ns = now_ns
        if busy:
            self._expire(now_ns)
        if self._order.waiting:
            self._decode(now_ns)
        if sound is not None:
            runs = sound.played()
            if runs:
                self._emit(_new(SoundDecided, (runs, sound.channels, self._timed)))

    def steer_by(self, target: DelayTarget) -> None:
        """What an adaptive playout delay keeps to, from now on."""
        self._steering.steer_by(target)

    def set_delay(self, delay_ns: int | None) -> None:
        """Another playout delay, from now on; None lets it find itself, beginning with what it is."""
        before_ns = self.delay_ns
        self._adaptive = delay_ns is None
        self._ease(0)
        self._delay_ns = self._start.delay_ns = before_ns if delay_ns is None else delay_ns
        self._playout.at_once = delay_ns == 0 or not self._timed
        if delay_ns is not None and self._wait_ns is not None:
            self._shift(max(delay_ns, self.least_delay_ns) - self._wait_ns)

    def finished(self, now_ns: int) -> bool:
        """After the stream's end: whether all that came has been seen and heard, or had its time.

        BYE may overtake packets, and some are sent again: an incomplete frame has until it is too late to show it.
        """
        newest_ns = self._buffer.newest_pts_ns
        if (
            newest_ns is not None
            and self._clock.running
            and not self._playout.at_once
            and now_ns < self._clock.when_ns(newest_ns) + TARDY_NS
        ):
            return False
        self._buffer.flush()
        self._take_frames(now_ns)
        if not self._order.waiting and not self._decode_over:
            self._decode_over = True
            self._emit(DecodeEnds())
        patient = self._verdicts.waiting and now_ns - self._presented_ns < VERDICT_PATIENCE_NS
        return (
            not len(self._playout)
            and not self._decoding
            and not self._order.waiting
            and not patient
            and (self._sound is None or self._sound.drained)
        )

    def interrupt(self, now_ns: int) -> None:
        """The stream has broken off, and may go on later, for which nothing that came before is of use.

        What is whole is presented in its time.
        """
        self._buffer.flush()
        self._take_frames(now_ns, broken=True)
        self._decode(now_ns, all_of_them=True)
        self._emit(DecodeEnds())
        self.count_anew()
        self.needs_key = self._decode_over = False

    def flush(self, now_ns: int) -> None:
        """Nothing more comes: each picture that nobody owes a verdict on gets its fate."""
        self._buffer.flush()
        decoding, self._decoding = [*self._decoding.values(), *self._order.flush()], {}
        for item in [*self._buffer.pull(now_ns), *decoding, *self._playout.flush()]:
            frame, fate = (item.item, item.reason) if isinstance(item, Dropped) else (item, "in_flight")
            self._decide(self._verdicts.left(frame, fate if fate == "late" else "in_flight"))

    def close(self) -> None:
        """No verdict will come either: each picture and all sound have a fate."""
        self._decide(self._verdicts.close())
        if self._sound is not None and (runs := self._sound.played(last=True)):
            self._emit(SoundDecided(runs, self._sound.channels, self._timed))

    # ---- within

    def _waiting(self) -> list[tuple[Frame, int]]:
        if not self._clock.running or self._playout.at_once:
            return []
        return [(frame, self._clock.when_ns(frame.pts_ns)) for frame in self._playout.waiting]

    def _deadline_ns(self, run: Run, now_ns: int, *, back: bool) -> int:
        """When the picture of a run is due: as far as can be told before the start, by the quickest packet so far."""
        if self._clock.running:
            return self._clock.when_ns(run.media_ns)
        if not back:
            since_ns = now_ns - run.media_ns
            self._quickest_ns = since_ns if self._quickest_ns is None else min(since_ns, self._quickest_ns)
            if run.marker:  # the buffer may hold it until it is due, and sound is not to wait for that
                self._start.arrived("video", run.media_ns, now_ns)
        return run.media_ns + (self._quickest_ns or 0) + self.held_back_ns

    def _take_frames(self, now_ns: int, *, broken: bool = False) -> None:
        """What has left the buffer; when the stream is `broken` off, what is not whole was under way."""
        for frame in self._buffer.pull(now_ns):
            if isinstance(frame, Dropped):
                self._decide((Decision(frame.item, "in_flight" if broken else frame.reason),))
                continue
            if (captured_ns := self.captured_ns(frame.ticks)) is not None:
                # Nobody else has it yet: a copy would take as long as all that is done with a frame here.
                object.__setattr__(frame, "captured_ns", captured_ns)
            # Not when it was repaired: a loss at the start would add its repair to the playout delay for good.
            if self._clock.base_ns is None:
                self._start.arrived("video", frame.pts_ns, self._by_itself.get(frame.ticks, now_ns))
            if frame.coding == JPEG_CODING:
                self._play(frame, now_ns)
            elif frame.coding in PREDICTED:
                self._order.put(frame)
            else:
                self._to_decode(frame)
        if self._order.waiting:
            self._decode(now_ns)

    def _decode(self, now_ns: int, *, all_of_them: bool = False) -> None:
        """Have pictures decoded whose turn it is."""
        if not self._order.waiting:
            return
        media_ns = self._clock.media_ns(now_ns) if self._clock.running else None
        at_once = all_of_them or self._playout.at_once
        for frame in self._order.release(media_ns, self._buffer.adjoin, at_once=at_once):
            if isinstance(frame, Dropped):
                self._decide((Decision(replace(frame.item, data=None), frame.reason),))
            else:
                self._to_decode(frame)

    def _to_decode(self, frame: Frame) -> None:
        self._decoding[frame.ticks] = frame
        self._emit(FrameToDecode(frame))

    def _play(self, frame: Frame, now_ns: int) -> None:
        self._push(frame, now_ns)
        if not self._clock.running:
            return
        if self._playout.at_once:  # now, and not when the driver comes round to it
            self._present(now_ns)
            self._expire(now_ns)
        else:
            self._offer(frame, self._clock.when_ns(frame.pts_ns))

    def _present(self, now_ns: int) -> None:
        """What playout lets go of by now is seen, or is not."""
        for item in self._playout.pull(now_ns):
            if isinstance(item, Dropped):
                self._see_that_it_keeps_up(item.item, item.reason, now_ns)
                self._decide(self._verdicts.dropped(item.item, item.reason, now_ns))
            else:
                self._see_that_it_keeps_up(item, "shown", now_ns)
                self._release(item, now_ns)

    def _expire(self, now_ns: int) -> None:
        """Give up what is incomplete and older than what was seen."""
        if not self._buffer.idle and self._playout.shown_pts_ns is not None:
            self._buffer.expire(self._playout.shown_pts_ns)
            self._take_frames(now_ns)

    def _push(self, frame: Frame, now_ns: int) -> None:
        """Hand a picture to playout; where that follows a sender that stood still, sound does, too."""
        before_ns = self.base_ns
        self._playout.push(frame, now_ns)
        if self._sound is not None and before_ns is not None and self.base_ns not in (None, before_ns):
            self.readings.clear()
            self._sound.follow(self._clock.when_ns(0) - before_ns)

    def _offer(self, frame: Frame, due_ns: int) -> None:
        """A picture for those that want it ahead of its time."""
        if self._ahead:
            self._decide(self._verdicts.give(frame))
        self._emit(_new(FrameReady, (frame, due_ns)))

    def _release(self, frame: Frame, now_ns: int) -> None:
        """Playout has released a picture: to be seen now."""
        self._presented_ns = now_ns
        holder = self._verdicts.holder(frame)
        if not self._ahead or self._playout.at_once:
            self._decide(self._verdicts.give(frame))
        self._emit(_new(FrameDue, (now_ns, frame, holder, self._playout.at_once)))
        self._decide(self._verdicts.released(frame, now_ns))

    def _try_to_start(self, now_ns: int) -> None:
        wait_ns = self.least_delay_ns
        base_ns = self._start.base_ns(now_ns, lead_ns=wait_ns)
        if base_ns is None:
            return
        self._wait_ns = max(self._delay_ns, wait_ns)
        self._clock.set(base_ns)
        self._by_itself.clear()
        if self._sound is not None:
            self.readings.clear()
            self._sound.begin(base_ns)
        for frame, due_ns in self._waiting():
            self._offer(frame, due_ns)

    def _shift(self, by_ns: int) -> None:
        """From here on everything is presented later by `by_ns`, sound and pictures alike."""
        if self._wait_ns is not None:
            self._wait_ns += by_ns
        self._clock.shift(by_ns)
        if self._sound is not None:
            self.readings.clear()
            self._sound.shift(by_ns)

    def _ease(self, by_ns: int) -> None:
        """Present everything earlier by `by_ns`, bit by bit; 0 for no more than has been."""
        if self._sound is not None:
            self._sound.ease(by_ns)  # pictures follow the sound
        else:
            self._steering.ease(by_ns)

    def _steer(self, now_ns: int) -> None:
        """See to an adaptive playout delay."""
        target = self._steering.target
        target.least_ns["video"], target.lead_ns["audio"] = self.least_ns, self.least_delay_ns

        def note(name: str, seconds: float) -> None:
            event = Rebuffered if name == "rebuffer" else DelayChanged
            self._emit(event(now_ns, round(seconds * NS)))

        self._steering.steer(self._clock, now_ns, shift=self._shift, ease=self._ease, note=note)
        if self._wait_ns is not None:
            self._wait_ns = self.delay_ns

    def _see_that_it_keeps_up(self, frame: Frame, fate: str, now_ns: int) -> None:
        """Count the pictures that were there in time, and skipped as playout was not looked at until the next one; and
        those that came too late for their time.
        """
        began_ns, all_of_them, missed, late = self._slow or (now_ns, 0, 0, 0)
        own = isinstance(self._buffer, OwnBuffer)  # what that has held back is no fault of the machine's
        timely = self._clock.running and not self._playout.at_once and not own
        if fate == "skipped" and timely and frame.complete_ns is not None:
            missed += frame.complete_ns <= self._moved_ns < self._clock.when_ns(frame.pts_ns)
        self._slow = began_ns, all_of_them + 1, missed, late + (fate == "late")
        if now_ns - began_ns < SLOW_NS:
            return
        self._slow = None
        if late >= SLOW_PICTURES and late >= LATE_SHARE * all_of_them:
            words = (
                "most pictures come too late for their time, and are not shown: a longer playout_delay helps where the "
                "way is slow; else see whether the server keeps up, or what it says of its clock"
            )
            self._emit(Notice(now_ns, "late pictures", words))
        if missed >= SLOW_PICTURES and missed >= SLOW_SHARE * all_of_them:
            self._emit(TooSlow(now_ns, missed))
            words = (
                "this computer is too slow for the stream: pictures that came in time are skipped; have the server "
                "send smaller ones or fewer, or close other programs"
            )
            self._emit(Notice(now_ns, "overload", words))

    # ---- what is told

    def _decide(self, decisions: Iterable[Decision]) -> None:
        """What became of pictures; and how far one that was seen was from the sound."""
        for frame, fate, shown_ns, heard_ns in decisions:
            fate = "damaged" if fate == "shown" and frame.damaged else fate
            self._emit(_new(FrameDecided, (frame, fate, shown_ns, self._timed)))
            if shown_ns is None or self._sound is None or not self._timed:
                continue
            reckoned_ns, depth_ns, skew_ppm = self._sound.heard(shown_ns)
            heard_ns = reckoned_ns if heard_ns is None else heard_ns
            if heard_ns is not None:
                self._emit(_new(SyncRead, (shown_ns, frame.pts_ns, heard_ns, depth_ns, skew_ppm)))
