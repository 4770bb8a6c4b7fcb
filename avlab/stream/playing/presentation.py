"""What becomes of pictures and sound once they have arrived: buffers, the media clock, taps, and a row for each fate.

All of it belongs to the client's thread, but for taps, which anyone may hold, and the sound's own threads.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from avlab.measure.numbers.rates import rate_of
from avlab.measure.record.trace import FrameRow, Recorder
from avlab.stream.playing.sound import Sounding
from avlab.stream.playing.tap import Tap, Verdict
from avlab.timing.jitterbuffer import MAX_FRAMES, Frame, JitterBuffer, Run
from avlab.timing.playout import DEFAULT_DELAY_NS, TARDY_NS, MediaClock, Playout, Start
from avlab.timing.stage import Dropped
from avlab.timing.target import Steering
from avlab.wire.units import NS, Samples, WireError

VERDICT_PATIENCE_NS = NS
"""At the end of the stream, how long a view may take to say what became of its last pictures."""

MUTE_NS = 2 * NS
"""With no packet of sound for so long, or none yet, pictures go by the monotonic clock: nothing is heard that they
could keep to. Sound that comes later is taken up where it belongs."""

SLOW_NS = 5 * NS
SLOW_PICTURES = 10
SLOW_SHARE = 0.1
"""In so long, so many pictures, and such a part of all, that were there in time and not shown in time: the machine is
too slow, and a notice says so."""

MOST_OWED = 2048
"""Verdicts waited for, a minute of 30 fps; beyond it the oldest picture counts as skipped."""


@dataclass(slots=True)
class _Owed:
    """A picture given to a tap that decides, less its JPEG: it leaves once it has a verdict and playout is done too."""

    tap: Tap
    frame: Frame
    released_ns: int | None = None  # when playout let it go
    missed: str = "skipped"  # what it is when it was not seen
    settled: bool = False


class Presentation:
    """Puts frames together and shows each when the sound reaches it; with no sound, by the monotonic clock.

    Taps may be opened at any time; nothing is taken before `begin`. `notice(name, words)` tells a person a sentence.
    """

    def __init__(self, recorder: Recorder, notice: Callable[[str, str], None] | None = None) -> None:
        self._recorder = recorder
        self._notice = notice or (lambda name, words: None)
        self._sounding: Sounding | None = None
        self._clock = MediaClock()
        self._buffer = JitterBuffer()
        self._playout = Playout(self._clock)
        self._start = Start(expect=set(), delay_ns=0)
        self._delay_ns = 0
        self._timed = True
        self._taps: list[Tap] = []
        self._verdicts: deque[tuple[Tap | None, Verdict]] = deque()
        self._owed: dict[int, _Owed] = {}  # by the pictures' ticks
        self._leader: Tap | None = None  # the first tap that decides: its verdicts are the record's
        self._ahead: set[Tap] = set()  # that get pictures before they are due
        self._wait_ns: int | None = None  # how much later than its quickest arrival all is presented
        self._presented_ns = 0
        self._recent: deque[int] = deque(maxlen=240)  # when the newest pictures were shown
        self._offset_ns: int | None = None
        self._sound_ns: int | None = None  # when the newest sound came
        self._dropped = 0
        self._fates: Counter[str] = Counter()
        self._moved_ns = 0  # when playout was last looked at
        self._slow: tuple[int, int, int] | None = None  # since when; how many pictures; how many that we were late for
        self._by_itself: dict[int, int] = {}  # when the latest of a picture came unrepaired, by ticks, before the start
        self._numbers: tuple[int, int] | None = None  # of the packets of video: the lowest and the highest
        self._packets = 0
        self.least_ns = 0
        """What a repair needs at the least, when the delay is adaptive."""
        self._steering = Steering()
        self._adaptive = False

    def begin(
        self,
        *,
        streams: set[str],
        delay_ns: int | None,
        sounding: Sounding | None,
        timed: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        """The server is about to send `streams`; `delay_ns` is the playout delay (0: shown at once, None: adaptive).

        Pictures of a wire that is not `timed` are shown as they come; nothing tells how far they are from the sound.
        `size` is their width and height, where a description tells them.
        """
        self._buffer = JitterBuffer(size=size)
        self._sounding = sounding
        self._adaptive = delay_ns is None
        self._delay_ns = delay_ns = DEFAULT_DELAY_NS if delay_ns is None else delay_ns
        self._timed = timed
        self._start = Start(expect=streams if timed else streams & {"audio"}, delay_ns=delay_ns)
        self._playout.at_once = delay_ns == 0 or not timed

    # ---- taps, for anyone

    def tap(self, *, decides: bool, waiting: int = 1) -> Tap:
        """A place to take pictures from; one that `decides` owes a verdict on each. `waiting` is how many it holds."""
        tap = Tap(lambda tap, verdict: self._verdicts.append((tap, verdict)), decides=decides, waiting=waiting)
        self._taps.append(tap)
        return tap

    def untap(self, tap: Tap) -> None:
        """Let go of a tap; a picture that waits in one that decides is skipped."""
        if tap in self._taps:
            self._taps.remove(tap)
        tap.close()
        while (last := tap.take(0)) is not None:
            tap.skipped(last)

    def presented(self, frame: Frame, now_ns: int) -> None:
        """A picture was seen at `now_ns`, says whoever shows it."""
        self._verdicts.append((None, Verdict(frame, now_ns)))

    def close_taps(self) -> None:
        """No more pictures will come."""
        for tap in list(self._taps):
            tap.close()

    @property
    def sounding(self) -> Sounding | None:
        """The sound that pictures keep to; None before `begin`, and for a stream without sound."""
        return self._sounding

    @property
    def offset_ns(self) -> int | None:
        """Picture against sound at the newest picture shown, positive when the sound is early; None without sound."""
        return self._offset_ns

    @property
    def fates(self) -> Mapping[str, int]:
        """How many pictures came to which end so far, by the record's words."""
        return self._fates

    @property
    def timed(self) -> bool:
        """Whether the wire tells when a picture is to be seen; without, how far it is from its sound is not known."""
        return self._timed

    @property
    def target_fps(self) -> float | None:
        """The rate that the server has promised."""
        fps: float | None = self._recorder.meta.get("target_fps")
        return fps

    @property
    def received(self) -> tuple[int, int]:
        """How many packets of video were to be expected so far, and how many came; zeros on a wire without numbers."""
        low, high = self._numbers or (0, -1)
        return high - low + 1, self._packets

    def count_anew(self) -> None:
        """Another source sends the pictures from now on: its packets have numbers of their own."""
        self._numbers, self._packets = None, 0

    def refusals(self) -> list[WireError]:
        """Why packets were no part of a picture, since the last call."""
        return self._buffer.refusals()

    @property
    def unsettled_ns(self) -> int:
        """How old a picture may be whose fate is still open, counted from its arrival."""
        return NS // 2 + (self._wait_ns or 0) + (VERDICT_PATIENCE_NS if self._leader is not None else 0)

    def status(self, now_ns: int) -> str:
        """A line of what is going on."""
        rate = round(rate_of(list(self._recent), now_ns))
        sync = "no sound" if self._offset_ns is None else f"A/V {self._offset_ns / 1e6:+.0f} ms"
        sync = sync if self._timed else "A/V unknown"
        return f"{rate} fps, {sync}, {self._dropped} dropped"

    # ---- for the client's thread

    @property
    def base_ns(self) -> int | None:
        """Where media time 0 falls; None before anything is presented."""
        return self._clock.when_ns(0) if self._clock.running else None

    @property
    def delay_ns(self) -> int:
        """The playout delay: the one set, or the one that was found."""
        base_ns = self.base_ns
        return self._steering.target.delay_ns(base_ns) if self._adaptive and base_ns is not None else self._delay_ns

    def take_run(self, run: Run, now_ns: int, *, back: bool = False) -> list[str]:
        """Packets of a picture; the fate of each: used, duplicate or late. `back`: they were lost, and repaired."""
        if not back:
            self._steering.target.observe("video", run.media_ns, now_ns)
            if not self._clock.running:
                self._by_itself[run.ticks] = now_ns
                if len(self._by_itself) > MAX_FRAMES:
                    del self._by_itself[next(iter(self._by_itself))]
        fates = self._buffer.push_run(run, now_ns)
        new = len(fates) - fates.count("duplicate")
        if new:
            first, last = run.sequence, run.sequence + len(fates) - 1
            low, high = self._numbers or (first, last)
            self._numbers, self._packets = (min(low, first), max(high, last)), self._packets + new
        self._take_frames(now_ns)
        return fates

    def take_frame(self, frame: Frame, now_ns: int) -> None:
        """A whole picture of a wire that is not timed."""
        self._playout.push(frame, now_ns)

    def ahead_ns(self, pts_ns: int, now_ns: int) -> int | None:
        """How long from now until sound at `pts_ns` is heard; None before any is."""
        heard_ns = self._sounding.heard(now_ns)[0] if self._sounding is not None else None
        return None if heard_ns is None else pts_ns - heard_ns

    @property
    def least_delay_ns(self) -> int:
        """What the device needs: less, and sound comes too late for it."""
        return 0 if self._sounding is None else self._sounding.least_delay_ns

    @property
    def held_back_ns(self) -> int:
        """How long sound is held back: the playout delay, or more where the device is slower."""
        return max(self._delay_ns, self.least_delay_ns)

    def take_sound(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> str:
        """A packet of sound; its fate: used or late."""
        assert self._sounding is not None
        self._sound_ns = now_ns
        self._start.arrived("audio", pts_ns, now_ns)
        self._steering.target.observe("audio", pts_ns, now_ns)
        return "used" if self._sounding.take(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns) else "late"

    def wake_at(self) -> int | None:
        """The next moment at which `move_along` has something to do."""
        moments = (self._playout.wake_at(), self._start.wake_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def move_along(self, now_ns: int) -> None:
        """Show what is due by now, give up what came too late, write down what became of it."""
        self._follow_taps(now_ns)
        if not self._clock.running:
            self._try_to_start(now_ns)
        if self._sounding is not None:
            self._follow_sink(self._sounding)
            self._follow_sound(self._sounding, now_ns)
        if self._adaptive:
            self._steer(now_ns)
        for item in self._playout.pull(now_ns):
            if isinstance(item, Dropped):
                self._see_that_it_keeps_up(item.item, item.reason, now_ns)
                self._drop(item.item, item.reason, now_ns)
            else:
                self._see_that_it_keeps_up(item, "shown", now_ns)
                self._present(item, now_ns)
        self._moved_ns = now_ns
        if self._playout.shown_pts_ns is not None:
            self._buffer.expire(self._playout.shown_pts_ns)
            self._take_frames(now_ns)
        self._write_verdicts()
        if self._sounding is not None:
            self._sounding.write_rows()

    def set_delay(self, delay_ns: int | None) -> None:
        """Another playout delay, from now on; None lets it find itself, beginning with what it is."""
        before_ns = self.delay_ns
        self._adaptive = delay_ns is None
        self._ease(0)
        self._delay_ns = self._start.delay_ns = before_ns if delay_ns is None else delay_ns
        self._playout.at_once = delay_ns == 0 or not self._timed
        if delay_ns is not None and self._wait_ns is not None:
            self._shift(max(delay_ns, self.least_delay_ns) - self._wait_ns)

    def _ease(self, by_ns: int) -> None:
        """Present everything earlier by `by_ns`, bit by bit; 0 for no more than has been."""
        if self._sounding is not None:
            self._sounding.ease(by_ns)  # pictures follow the sound
        else:
            self._steering.ease(by_ns)

    def _steer(self, now_ns: int) -> None:
        """See to an adaptive playout delay."""
        target = self._steering.target
        target.least_ns["video"], target.lead_ns["audio"] = self.least_ns, self.least_delay_ns

        def note(name: str, seconds: float) -> None:
            self._recorder.event(now_ns, name, seconds)

        self._steering.steer(self._clock, now_ns, shift=self._shift, ease=self._ease, note=note)
        if self._wait_ns is not None:
            self._wait_ns = self.delay_ns

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
        owed = any(not each.settled for each in self._owed.values())
        patient = owed and now_ns - self._presented_ns < VERDICT_PATIENCE_NS
        return not len(self._playout) and not patient and (self._sounding is None or self._sounding.drained)

    def close_books(self, now_ns: int) -> None:
        """Every frame gets its fate."""
        self._buffer.flush()
        for item in [*self._buffer.pull(now_ns), *self._playout.flush()]:
            frame, fate = (item.item, item.reason) if isinstance(item, Dropped) else (item, "in_flight")
            if frame.ticks not in self._owed:
                self._decide(frame, None, "in_flight" if fate != "late" else "late")
        self.close_taps()
        self._write_verdicts()
        for owed in self._owed.values():
            if not owed.settled:
                self._decide(owed.frame, None, "late" if owed.missed == "late" else "in_flight")
        self._owed.clear()
        if self._sounding is not None:
            self._sounding.write_rows(last=True)

    # ---- within

    def _take_frames(self, now_ns: int) -> None:
        for frame in self._buffer.pull(now_ns):
            if isinstance(frame, Dropped):
                self._decide(frame.item, None, frame.reason)
            else:
                # Not when it was repaired: a loss at the start would add its repair to the playout delay for good.
                self._start.arrived("video", frame.pts_ns, self._by_itself.get(frame.ticks, now_ns))
                self._push(frame, now_ns)
                for tap in self._ahead if self._clock.running and not self._playout.at_once else ():
                    self._give(tap, frame, self._clock.when_ns(frame.pts_ns))

    def _push(self, frame: Frame, now_ns: int) -> None:
        """Hand a picture to playout; where that follows a sender that stood still, sound does, too."""
        before_ns = self.base_ns
        self._playout.push(frame, now_ns)
        if self._sounding is not None and before_ns is not None and self.base_ns not in (None, before_ns):
            self._sounding.follow(self._clock.when_ns(0) - before_ns)

    def _follow_sound(self, sounding: Sounding, now_ns: int) -> None:
        """Steer by what the device says is heard, while there is sound to be heard."""
        mute = self._timed and (self._sound_ns is None or now_ns - self._sound_ns > MUTE_NS)
        readings = sounding.readings()
        self._clock.led = self._clock.led and not mute
        for reading in () if mute else readings:
            self._clock.feed(reading)

    def _try_to_start(self, now_ns: int) -> None:
        wait_ns = self.least_delay_ns
        base_ns = self._start.base_ns(now_ns, lead_ns=wait_ns)
        if base_ns is None:
            return
        self._wait_ns = max(self._delay_ns, wait_ns)
        self._clock.set(base_ns)
        self._by_itself.clear()
        if self._sounding is not None:
            self._sounding.begin(base_ns)
        for tap in self._ahead:
            self._give_waiting(tap)

    def _shift(self, by_ns: int) -> None:
        """From here on everything is presented later by `by_ns`, sound and pictures alike."""
        assert self._wait_ns is not None
        self._wait_ns += by_ns
        self._clock.shift(by_ns)
        if self._sounding is not None:
            self._sounding.shift(by_ns)

    def _follow_sink(self, sounding: Sounding) -> None:
        """Sound has gone to a sink that wants it earlier: what has been presented so far was too close to its end."""
        if self._wait_ns is not None and sounding.sink_lead_ns > self._wait_ns:
            self._shift(sounding.sink_lead_ns - self._wait_ns)

    def _see_that_it_keeps_up(self, frame: Frame, fate: str, now_ns: int) -> None:
        """Count the pictures that were there in time, and skipped as playout was not looked at until the next one."""
        began_ns, all_of_them, missed = self._slow or (now_ns, 0, 0)
        if fate == "skipped" and self._clock.running and not self._playout.at_once and frame.complete_ns is not None:
            missed += frame.complete_ns <= self._moved_ns < self._clock.when_ns(frame.pts_ns)
        self._slow = began_ns, all_of_them + 1, missed
        if now_ns - began_ns < SLOW_NS:
            return
        self._slow = None
        if missed >= SLOW_PICTURES and missed >= SLOW_SHARE * all_of_them:
            self._recorder.event(now_ns, "too slow", missed)
            self._notice(
                "overload",
                "this computer is too slow for the stream: pictures that came in time are skipped; have the server "
                "send smaller ones or fewer, or close other programs",
            )

    # ---- taps

    def _follow_taps(self, now_ns: int) -> None:
        """A tap has begun or ceased to decide, or to be given pictures ahead of their time."""
        leader = next((tap for tap in list(self._taps) if tap.decides), None)
        if leader is not self._leader:
            if self._leader is not None:
                self._resign(self._leader)
            self._recorder.event(now_ns, "view", "gone" if leader is None else "here")
            self._leader = leader
        ahead = {tap for tap in list(self._taps) if tap.ahead}
        if ahead == self._ahead:
            return
        for tap in ahead - self._ahead:
            self._give_waiting(tap)
        self._ahead = ahead

    def _resign(self, tap: Tap) -> None:
        """What a tap owes and will not say: playout's own word counts."""
        self._write_verdicts()
        for ticks, owed in list(self._owed.items()):
            if owed.tap is not tap or tap.decides:
                continue
            if owed.released_ns is not None and not owed.settled:
                seen = tap.resigned_shown and owed.missed == "skipped"
                self._decide(owed.frame, owed.released_ns if seen else None, "shown" if seen else owed.missed)
                owed.settled = True
            if owed.settled and owed.released_ns is None:
                continue  # playout still has it, and must not judge it a second time
            del self._owed[ticks]

    def _give_waiting(self, tap: Tap) -> None:
        """The pictures that were there before the tap wanted them ahead, or before the clock ran."""
        for frame in self._playout.waiting if self._clock.running and not self._playout.at_once else ():
            self._give(tap, frame, self._clock.when_ns(frame.pts_ns))

    def _give(self, tap: Tap, frame: Frame, due_ns: int | None) -> None:
        if tap is self._leader and frame.ticks not in self._owed:
            self._owed[frame.ticks] = _Owed(tap, _light(frame))
            if len(self._owed) > MOST_OWED:
                oldest = self._owed.pop(next(iter(self._owed)))
                if not oldest.settled:
                    self._decide(oldest.frame, None, oldest.missed)
        tap.put(frame, due_ns)

    def _present(self, frame: Frame, now_ns: int) -> None:
        """Playout has released a picture: to be seen now."""
        self._presented_ns = now_ns
        given = self._owed.get(frame.ticks)
        for tap in list(self._taps):
            if not (tap in self._ahead and not self._playout.at_once) and (given is None or given.tap is not tap):
                self._give(tap, frame, None)
        owed = self._owed.get(frame.ticks)
        if owed is None:
            self._decide(frame, now_ns, "shown")
            return
        owed.released_ns = now_ns
        if owed.settled:
            del self._owed[frame.ticks]

    def _drop(self, frame: Frame, reason: str, now_ns: int) -> None:
        """Playout will not show a picture; a view that had it ahead of its time may have shown it all the same."""
        owed = self._owed.get(frame.ticks)
        if owed is None:
            self._decide(frame, None, reason)
            return
        owed.released_ns, owed.missed = now_ns, reason
        if owed.settled:
            del self._owed[frame.ticks]

    def _write_verdicts(self) -> None:
        while self._verdicts:
            tap, (frame, shown_ns, heard_ns) = self._verdicts.popleft()
            owed = self._owed.get(frame.ticks)
            if owed is None or owed.settled or tap not in (None, owed.tap):
                continue
            self._decide(owed.frame, shown_ns, "shown" if shown_ns is not None else owed.missed, heard_ns)
            owed.settled = True
            if owed.released_ns is not None:
                del self._owed[frame.ticks]

    def _decide(self, frame: Frame, shown_ns: int | None, fate: str, heard_ns: int | None = None) -> None:
        """A frame's row, written once its fate is known; `heard_ns` is for a view that plays the sound itself."""
        self._fates[fate] += 1
        self._recorder.frame(
            FrameRow(
                "video",
                index=None if self._timed else frame.ticks,
                pts_ns=frame.pts_ns if self._timed else None,
                timestamp=frame.ticks & 0xFFFFFFFF if self._timed else None,
                first_packet_ns=frame.first_packet_ns,
                complete_ns=frame.complete_ns,
                shown_ns=shown_ns,
                bytes=len(frame.jpeg) if frame.jpeg is not None else frame.bytes,
                packets=frame.packets,
                packets_lost=frame.packets_lost if self._timed else None,
                fate=fate,
            )
        )
        if shown_ns is None:
            self._dropped += fate != "in_flight"
            return
        self._recent.append(shown_ns)
        if self._sounding is None or not self._timed:
            return
        reckoned_ns, depth_ns, skew_ppm = self._sounding.heard(shown_ns)
        heard_ns = reckoned_ns if heard_ns is None else heard_ns
        if heard_ns is not None:
            self._offset_ns = heard_ns - frame.pts_ns
            self._recorder.sync(shown_ns, frame.pts_ns, heard_ns, depth_ns, skew_ppm)


def _light(frame: Frame) -> Frame:
    """A frame's facts without its picture, which may have to wait for a verdict for long."""
    return replace(frame, jpeg=None, bytes=len(frame.jpeg) if frame.jpeg is not None else frame.bytes)
