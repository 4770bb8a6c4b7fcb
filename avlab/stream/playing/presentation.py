"""The player at work: its events go to whoever subscribes, its pictures to taps, and what is heard and seen to it.

All of it belongs to the client's thread, but for taps, which anyone may hold, and the sound's own threads.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from avlab.core.events import (
    DecodeEnds,
    FrameDecided,
    FrameDue,
    FrameReady,
    FrameToDecode,
    Notice,
    Path,
    PlayerEvent,
    SyncRead,
)
from avlab.core.player import Player
from avlab.core.presenting import LOOK_NS
from avlab.measure.numbers.rates import rate_of
from avlab.stream.playing.decoding import Decoder
from avlab.stream.playing.sound import Sounding
from avlab.stream.playing.tap import Tap
from avlab.timing.jitterbuffer import Frame
from avlab.timing.target import DelayTarget
from avlab.timing.verdicts import PictureVerdict
from avlab.wire.batch import Batch
from avlab.wire.units import NS, Samples

MOST_UNWRITTEN = 64
"""So many events wait to be written down where pictures are shown as they come, and no longer than from one
`move_along` to the next, a tenth of a second: whoever waits for the picture does not wait for that."""


DEMAND_NS = NS // 20
"""How often it is looked at what takers take, at most; `Demand` waits for more where that is too little."""


class Presentation:
    """Drives a player, and shows each picture when the sound reaches it; with no sound, by the monotonic clock.

    Taps may be opened at any time; nothing is taken before `begin`. `record` is told of every event; `notice` of each
    sentence for a person. `ssrc` and `unix_offset_ns` are the player's.
    """

    def __init__(
        self,
        record: Callable[[PlayerEvent], None],
        notice: Callable[[str], None] | None = None,
        *,
        ssrc: int = 0,
        unix_offset_ns: int = 0,
    ) -> None:
        self.player = Player(ssrc=ssrc, unix_offset_ns=unix_offset_ns)
        self._record = record
        self._notice = notice or (lambda words: None)
        self._sounding: Sounding | None = None
        self.taps: list[Tap] = []
        self._verdicts: deque[tuple[Tap | None, PictureVerdict]] = deque()
        self._leader: Tap | None = None  # the first tap that decides: its verdicts are the record's
        self._ahead: set[Tap] = set()  # that get pictures before they are due
        self._recent: deque[int] = deque(maxlen=240)  # when the newest pictures were shown
        self._offset_ns: int | None = None
        self._dropped = 0
        self._fates: Counter[str] = Counter()
        self._moved_ns = self._demanded_ns = 0
        self._fps: float | None = None
        self._decoding: Decoder | None = None
        self._decoders: list[Decoder] = []  # that one, and those that it has replaced
        self._unwritten: list[PlayerEvent] = []  # what is to be recorded, and not yet
        self._undecoded: list[Frame] = []  # that nobody is there to decode
        self._hands: dict[type, Callable[[Any], None]] = {
            FrameToDecode: self._have_decoded,
            DecodeEnds: self._end_decoding,
            FrameReady: self._give_ahead,
            FrameDue: self._show,
            FrameDecided: self._count,
            SyncRead: self._read_sync,
            Notice: lambda event: self._notice(event.words),
        }

    def begin(
        self,
        *,
        streams: set[str],
        delay_ns: int | None,
        sounding: Sounding | None,
        timed: bool = True,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        decoding: Decoder | None = None,
    ) -> None:
        """The server is about to send `streams`; `delay_ns` is the playout delay (0: shown at once, None: adaptive).

        Pictures of a wire that is not `timed` are shown as they come; nothing tells how far they are from the sound.
        `size` is their width and height, and `fps` their rate, where a description tells them. `decoding` decodes those
        that are no JPEG; without, they are incomplete.
        """
        self._sounding = sounding
        self.go_on(fps=fps, decoding=decoding)
        self.player.prepare(streams=streams, delay_ns=delay_ns, sound=sounding, timed=timed, size=size)

    def interrupt(self, now_ns: int) -> None:
        """The way to the server has broken off: what has come is presented, and more may come after `go_on`."""
        self.player.interrupt(now_ns)
        self.pump()
        self._write()

    def go_on(self, *, fps: float | None, decoding: Decoder | None) -> None:
        """The server sends again, pictures at `fps` that `decoding` decodes."""
        self._fps, self._decoding = fps, decoding
        if decoding is not None and decoding not in self._decoders:
            self._decoders.append(decoding)

    # ---- taps, for anyone

    def tap(self, *, decides: bool, waiting: int = 1, ahead: bool = False) -> Tap:
        """A place to take pictures from; one that `decides` owes a verdict on each. `waiting` is how many it holds.

        With `ahead` it gets them as soon as they are complete, and not when they are due.
        """
        tap = Tap(self._told, decides=decides, waiting=waiting, ahead=ahead)
        self.taps.append(tap)
        return tap

    def untap(self, tap: Tap) -> None:
        """Let go of a tap; a picture that waits in one that decides is skipped."""
        if tap in self.taps:
            self.taps.remove(tap)
        tap.close()
        while (last := tap.take(0)) is not None:
            tap.skipped(last)

    def presented(self, frame: Frame, now_ns: int) -> None:
        """A picture was seen at `now_ns`, says whoever shows it."""
        self._verdicts.append((None, PictureVerdict(frame, now_ns)))

    def close_taps(self) -> None:
        """No more pictures will come."""
        for tap in list(self.taps):
            tap.close()

    @property
    def decoding(self) -> Decoder | None:
        """What decodes the pictures that come now; None where that needs nobody."""
        return self._decoding

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
        return self.player.timed

    @property
    def target_fps(self) -> float | None:
        """The rate that the server has promised."""
        return self._fps

    @property
    def received(self) -> tuple[int, int]:
        """How many packets of video were to be expected so far, and how many came; zeros on a wire without numbers."""
        return self.player.received

    @property
    def unsettled_ns(self) -> int:
        """How old a picture may be whose fate is still open, counted from its arrival."""
        return self.player.unsettled_ns

    @property
    def delay_ns(self) -> int:
        """The playout delay: the one set, or the one that was found."""
        return self.player.delay_ns

    @property
    def least_delay_ns(self) -> int:
        """What the device needs: less, and sound comes too late for it."""
        return self.player.least_delay_ns

    def status(self, now_ns: int) -> str:
        """A line of what is going on."""
        rate = round(rate_of(list(self._recent), now_ns))
        sync = "no sound" if self._offset_ns is None else f"A/V {self._offset_ns / 1e6:+.0f} ms"
        sync = sync if self.timed else "A/V unknown"
        return f"{rate} fps, {sync}, {self._dropped} dropped"

    # ---- for the client's thread

    @property
    def base_ns(self) -> int | None:
        """Where media time 0 falls; None before anything is presented."""
        return self.player.base_ns

    @property
    def held_back_ns(self) -> int:
        """How long sound is held back: the playout delay, or more where the device is slower."""
        return self.player.held_back_ns

    def receive(self, path: Path, batch: Batch, now_ns: int) -> None:
        """Packets that came together."""
        self.player.receive(path, batch, now_ns)
        self.pump()

    def take_frame(self, frame: Frame, now_ns: int) -> None:
        """A whole picture of a wire that is not timed."""
        self.player.take_frame(frame, now_ns)

    def take_sound(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> str:
        """A packet of sound of a wire that is not timed; its fate: used or late."""
        return self.player.take_sound(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns)

    def ahead_ns(self, pts_ns: int, now_ns: int) -> int | None:
        """How long from now until sound at `pts_ns` is heard; None before any is."""
        heard_ns = self._sounding.heard(now_ns)[0] if self._sounding is not None else None
        return None if heard_ns is None else pts_ns - heard_ns

    def wake_at(self) -> int:
        """The next moment at which `move_along` has something to do."""
        timer_ns, look_ns = self.player.timer_at(), self._moved_ns + LOOK_NS
        return look_ns if timer_ns is None else min(timer_ns, look_ns)

    def move_along(self, now_ns: int) -> None:
        """Show what is due by now, give up what came too late, hand on what the device and the taps have said."""
        self._moved_ns = now_ns
        for decoder in self._decoders:
            for frame, image, fate in decoder.done():
                self.player.decoded(frame, image, now_ns, fate=fate)
        self._follow_taps(now_ns)
        if self._sounding is not None and (readings := self._sounding.readings()):
            self.player.heard(*readings)
        self.player.handle_timer(now_ns)
        self.pump()
        self._hand_on_verdicts()
        if now_ns >= self._demanded_ns + DEMAND_NS:
            self._tell_demand(now_ns)
        self._write()

    def set_delay(self, delay_ns: int | None) -> None:
        """Another playout delay, from now on; None lets it find itself, beginning with what it is."""
        self.player.set_delay(delay_ns)
        self.pump()

    def steer_by(self, target: DelayTarget) -> None:
        """What an adaptive playout delay keeps to, from now on; from any thread."""
        self.player.steer_by(target)

    def finished(self, now_ns: int) -> bool:
        """After the stream's end: whether all that came has been seen and heard, or had its time."""
        finished = self.player.finished(now_ns)
        self.pump()
        if finished:
            self._write()
        return finished

    def close_books(self, now_ns: int) -> None:
        """Every frame gets its fate."""
        self.player.flush(now_ns)
        self.pump()
        self.close_taps()
        self._hand_on_verdicts()
        self.player.close()
        self.pump()
        self._write()

    def pump(self) -> None:
        """Hand on what happened: to the record, to taps, and to those who look at numbers."""
        events = self.player.events()
        if not events:
            return
        hands = self._hands
        for event in events:  # whoever waits for a picture first: writing it down can wait
            if (hand := hands.get(type(event))) is not None:
                hand(event)
        self._unwritten += events
        if self.player.delay_ns or len(self._unwritten) >= MOST_UNWRITTEN:
            self._write()
        if self._undecoded:
            undecoded, self._undecoded = self._undecoded, []
            for frame in undecoded:
                self.player.decoded(frame, None, frame.complete_ns or 0)
            self.pump()

    def _write(self) -> None:
        """Write down what happened."""
        if self._unwritten:
            unwritten, self._unwritten = self._unwritten, []
            for event in unwritten:
                self._record(event)

    # ---- events

    def _have_decoded(self, event: FrameToDecode) -> None:
        if self._decoding is not None:
            self._decoding.put(event.frame)
        else:
            self._undecoded.append(event.frame)

    def _end_decoding(self, event: DecodeEnds) -> None:
        if self._decoding is not None:
            self._decoding.end()

    def _give_ahead(self, event: FrameReady) -> None:
        for tap in self._ahead:
            tap.put(event.frame, event.due_ns)

    def _show(self, event: FrameDue) -> None:
        """A picture is to be seen now: for all taps but those that had it ahead of its time."""
        for tap in list(self.taps):
            if (event.at_once or tap not in self._ahead) and tap is not event.holder:
                tap.put(event.frame)

    def _count(self, event: FrameDecided) -> None:
        _, fate, shown_ns, _ = event
        self._fates[fate] += 1
        if shown_ns is not None:
            self._recent.append(shown_ns)
        else:
            self._dropped += fate != "in_flight"

    def _read_sync(self, event: SyncRead) -> None:
        self._offset_ns = event.audio_pts_ns - event.video_pts_ns

    # ---- taps

    def _told(self, tap: Tap, verdict: PictureVerdict) -> None:
        self._verdicts.append((tap, verdict))

    def _follow_taps(self, now_ns: int) -> None:
        """A tap has begun or ceased to decide, or to be given pictures ahead of their time."""
        leader, ahead = None, set[Tap]()
        for tap in list(self.taps):
            if leader is None and tap.decides:
                leader = tap
            if tap.ahead:
                ahead.add(tap)
        if leader is self._leader and ahead == self._ahead:
            return
        if leader is not self._leader and self._leader is not None:
            self._hand_on_verdicts()
            if not self._leader.decides:  # what it owes besides, it will not say
                self.player.resign(self._leader, shown=self._leader.resigned_shown)
        self.player.follow(leader, ahead=leader in ahead, now_ns=now_ns)
        for tap in ahead - self._ahead:
            for frame, due_ns in self.player.give_waiting(tap):
                tap.put(frame, due_ns)
        self._leader, self._ahead = leader, ahead
        self.pump()

    def _tell_demand(self, now_ns: int) -> None:
        """How many pictures a second the fastest of those takes who are to miss none, if none of them takes all."""
        self._demanded_ns = now_ns
        demands = [(tap.demand, tap.demand.look(tap.taken(), now_ns)) for tap in list(self.taps) if tap.takes_all]
        limits = [demand.limit for demand, _ in demands if demand.limit is not None]
        if limits and len(limits) == len(demands) and any(looked for _, looked in demands):
            self.player.tell_limit(max(limits))

    def _hand_on_verdicts(self) -> None:
        """What the takers have said, in the order in which they have."""
        if not self._verdicts:
            return
        while self._verdicts:
            tap, verdict = self._verdicts.popleft()
            self.player.presented((verdict,), taker=tap)
        self.pump()
