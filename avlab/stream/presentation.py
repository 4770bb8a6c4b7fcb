"""What becomes of pictures and sound once they have arrived: buffers, the media clock, taps, and a row for each fate.

All of it belongs to the client's thread, but for taps, which anyone may hold, and the sound's own threads.
"""

from __future__ import annotations

from collections import deque

from avlab.measure.trace import FrameRow, Recorder
from avlab.stream.sounding import Sounding
from avlab.stream.tap import Tap
from avlab.timing.jitterbuffer import Fragment, Frame, JitterBuffer
from avlab.timing.playout import MediaClock, Playout, Start
from avlab.timing.stage import Dropped
from avlab.wire.units import NS, Samples

VERDICT_PATIENCE_NS = NS
"""At the end of the stream, how long a view may take to say what became of its last pictures."""


class Presentation:
    """Puts frames together and shows each when the sound reaches it; with no sound, by the monotonic clock.

    Taps may be opened at any time; nothing is taken before `begin`.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._sounding: Sounding | None = None
        self._clock = MediaClock()
        self._buffer = JitterBuffer()
        self._playout = Playout(self._clock)
        self._start = Start(expect=set(), delay_ns=0)
        self._delay_ns = 0
        self._timed = True
        self._taps: list[Tap] = []
        self._verdicts: deque[tuple[Frame, int | None, str]] = deque()
        self._owed: dict[int, Frame] = {}  # pictures given to taps that decide, by their ticks
        self._presented_ns = 0
        self._recent: deque[int] = deque(maxlen=240)  # when the newest pictures were shown
        self._offset_ns: int | None = None
        self._dropped = 0

    def begin(self, *, streams: set[str], delay_ns: int, sounding: Sounding | None, timed: bool = True) -> None:
        """The server is about to send `streams`; `delay_ns` is the playout delay (0: pictures are shown at once).

        Pictures of a wire that is not `timed` are shown as they come; nothing tells how far they are from the sound.
        """
        self._sounding = sounding
        self._delay_ns = delay_ns
        self._timed = timed
        self._start = Start(expect=streams if timed else streams & {"audio"}, delay_ns=delay_ns)
        self._playout.at_once = delay_ns == 0 or not timed

    # ---- taps, for anyone

    def tap(self, *, decides: bool) -> Tap:
        """A place to take pictures from; one that `decides` owes a verdict on each."""
        tap = Tap((lambda frame: self._verdicts.append((frame, None, "skipped"))) if decides else None)
        self._taps.append(tap)
        return tap

    def untap(self, tap: Tap) -> None:
        """Let go of a tap; a picture that waits in one that decides is skipped."""
        if tap in self._taps:
            self._taps.remove(tap)
        tap.close()
        last = tap.take(0)
        if last is not None and tap.decides:
            self._verdicts.append((last, None, "skipped"))

    def presented(self, frame: Frame, now_ns: int) -> None:
        """A picture was seen at `now_ns`."""
        self._verdicts.append((frame, now_ns, "shown"))

    def close_taps(self) -> None:
        """No more pictures will come."""
        for tap in list(self._taps):
            tap.close()

    def status(self, now_ns: int) -> str:
        """A line of what is going on."""
        rate = sum(moment > now_ns - NS for moment in list(self._recent))
        sync = "no sound" if self._offset_ns is None else f"A/V {self._offset_ns / 1e6:+.0f} ms"
        sync = sync if self._timed else "A/V unknown"
        return f"{rate} fps, {sync}, {self._dropped} dropped"

    # ---- for the client's thread

    def take_fragment(self, fragment: Fragment, now_ns: int) -> str:
        """A packet of a picture; its fate: used, duplicate or late."""
        fate = self._buffer.fate(fragment.sequence, fragment.ticks)
        if fate == "used":
            self._buffer.push(fragment, now_ns)
            self._take_frames(now_ns)
        return fate

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
        self._start.arrived("audio", pts_ns, now_ns)
        return "used" if self._sounding.take(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns) else "late"

    def wake_at(self) -> int | None:
        """The next moment at which `move_along` has something to do."""
        moments = (self._playout.wake_at(), self._start.wake_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def move_along(self, now_ns: int) -> None:
        """Show what is due by now, give up what came too late, write down what became of it."""
        if not self._clock.running:
            self._try_to_start(now_ns)
        if self._sounding is not None:
            for reading in self._sounding.readings():
                self._clock.feed(reading)
        for item in self._playout.pull(now_ns):
            if isinstance(item, Dropped):
                self._decide(item.item, None, item.reason)
            else:
                self._present(item, now_ns)
        if self._playout.shown_pts_ns is not None:
            self._buffer.expire(self._playout.shown_pts_ns)
            self._take_frames(now_ns)
        self._write_verdicts()
        if self._sounding is not None:
            self._sounding.write_rows()

    def set_delay(self, delay_ns: int) -> None:
        """Another playout delay, from now on."""
        least_ns = self.least_delay_ns
        by_ns = max(delay_ns, least_ns) - max(self._delay_ns, least_ns)
        self._delay_ns = self._start.delay_ns = delay_ns
        self._playout.at_once = delay_ns == 0
        self._clock.shift(by_ns)
        if self._sounding is not None:
            self._sounding.shift(by_ns)

    def finished(self, now_ns: int) -> bool:
        """After the stream's end: whether all that came has been seen and heard, or had its time."""
        self._buffer.flush()
        self._take_frames(now_ns)
        owed = self._owed and now_ns - self._presented_ns < VERDICT_PATIENCE_NS
        return not len(self._playout) and not owed and (self._sounding is None or self._sounding.drained)

    def close_books(self, now_ns: int) -> None:
        """Every frame gets its fate."""
        self._buffer.flush()
        for item in [*self._buffer.pull(now_ns), *self._playout.flush()]:
            if isinstance(item, Dropped):
                self._decide(item.item, None, "in_flight" if item.reason != "late" else "late")
            else:
                self._decide(item, None, "in_flight")
        self.close_taps()
        self._write_verdicts()
        for frame in self._owed.values():
            self._decide(frame, None, "in_flight")
        self._owed.clear()
        if self._sounding is not None:
            self._sounding.write_rows(last=True)

    # ---- within

    def _take_frames(self, now_ns: int) -> None:
        for frame in self._buffer.pull(now_ns):
            if isinstance(frame, Dropped):
                self._decide(frame.item, None, frame.reason)
            else:
                self._start.arrived("video", frame.pts_ns, now_ns)
                self._playout.push(frame, now_ns)

    def _try_to_start(self, now_ns: int) -> None:
        base_ns = self._start.base_ns(now_ns, lead_ns=self.least_delay_ns)
        if base_ns is None:
            return
        self._clock.set(base_ns)
        if self._sounding is not None:
            self._sounding.begin(base_ns)

    def _present(self, frame: Frame, now_ns: int) -> None:
        taps = list(self._taps)
        if any(tap.decides for tap in taps):
            self._owed[frame.ticks], self._presented_ns = frame, now_ns
        else:
            self._decide(frame, now_ns, "shown")
        for tap in taps:
            tap.put(frame)

    def _write_verdicts(self) -> None:
        while self._verdicts:
            frame, shown_ns, fate = self._verdicts.popleft()
            if self._owed.pop(frame.ticks, None) is not None:
                self._decide(frame, shown_ns, fate)

    def _decide(self, frame: Frame, shown_ns: int | None, fate: str) -> None:
        """A frame's row, written once its fate is known."""
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
        heard_ns, depth_ns, skew_ppm = self._sounding.heard(shown_ns)
        if heard_ns is not None:
            self._offset_ns = heard_ns - frame.pts_ns
            self._recorder.sync(shown_ns, frame.pts_ns, heard_ns, depth_ns, skew_ppm)
