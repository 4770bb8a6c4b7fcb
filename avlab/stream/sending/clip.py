"""What is sent, and when: a clip, encoded once, paced by its timestamps, and given to whoever the audience is.

The server's thread owns it; a thread for each of its feeds reads the clip ahead. Who the clients are and how a frame
gets to each of them is the audience's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from avlab.core.events import Offered, SoundOffered
from avlab.media.sources import ClipSource, LiveSource, Source
from avlab.parts import Call, Dropped, Due, Pacer, PartError, called
from avlab.stream.clock import Clock
from avlab.stream.ends import Audience
from avlab.stream.sending.feed import Feed, Supply
from avlab.stream.sending.pictures import Pictures
from avlab.timing.pacing import DeadlinePacer, NoPacing
from avlab.timing.seat import Seat
from avlab.timing.skipping import Skipper
from avlab.wire.units import NS, Chunk, EncodedFrame, FrameTooLargeError

TOO_SLOW = "pictures are skipped, as this machine is too slow for all of them: lower the quality or the width"

TOLD_AGAIN_NS = 10 * NS
"""The record has it so often that a machine is too slow; thirty times a second would be no help, and fill it."""

LIMITED_NS = NS // 20
"""How often it is looked at whether clients say how many pictures they take."""

SOUND_AHEAD = 32
"""Chunks of sound that are ready: over half a second, so that long turns of the server's thread hold up none."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A frame ready to be sent, and the pictures before it that it was too late for."""

    frame: EncodedFrame
    unit: Any  # what the audience made of it; None: it has no room for it
    chosen_ns: int
    encoded_ns: int
    skipped: tuple[EncodedFrame, ...] = ()

    @property
    def pts_ns(self) -> int:
        """The frame's presentation time."""
        return self.frame.pts_ns


@dataclass(frozen=True, slots=True)
class _Skipped:
    """Pictures at the end of a clip that it was too late for."""

    skipped: tuple[EncodedFrame, ...]


class Sending:
    """The clip on its way to those who play. Nothing is sent, and no time passes, before `play`.

    `width` (pixels, None for the clip's own), `quality` (1 to 100) and `pacer` are set by the server, from any thread:
    they act on the next frame. `start_ns` is when media time 0 was, None while nobody plays; `feeds` are to be run on
    a thread each, and call `ready`, from there, when something has come that was waited for. `record` is told of what
    is sent and what is not; `notice` takes an event's name and what is to be said to a person, from any thread. A pacer
    of anyone's own is asked by `call`; when it fails `failed` is told, and deadlines take over. `feed` makes what reads
    ahead, a thread's `Feed` or another `Supply`, and `pictures` turns each into bytes: by default JPEG, as `encode`
    does, which is `codec.encode_jpeg` or the like. `limit` tells at a moment how many pictures a second are taken at
    most, None for any number: what is sent as fast as it comes is held to it.
    """

    def __init__(
        self,
        source: Source,
        *,
        loop: bool,
        audience: Audience,
        clock: Clock,
        record: Callable[[Offered | SoundOffered], None],
        ready: Callable[[], None],
        notice: Callable[[str, str], None],
        pictures: Pictures | None = None,
        call: Call = called,
        failed: Callable[[PartError], None] | None = None,
        feed: Callable[..., Any] = Feed,
        encode: Callable[..., tuple[bytes, int, int]] | None = None,
        limit: Callable[[int], float | None] | None = None,
    ) -> None:
        self._call, self._failed = call, failed
        self._source, self._loop, self._audience = source, loop, audience
        self._clock, self._record, self._notice = clock, record, notice
        self._pictures = Pictures(jpeg=encode) if pictures is None else pictures
        self.width: int | None = None
        self.quality = 80
        self.encoded_width: int | None = None  # of the newest frame
        self.pacer: Pacer | type[Pacer] = DeadlinePacer()
        self.start_ns: int | None = None
        self._in_use = Seat(self.pacer)  # keeps its frame when another pacer is chosen, unless it stands still
        self.sound_pacer = DeadlinePacer()
        self._last_media_ns = 0
        self._lasting: tuple[Fraction | None, int] = None, 0  # a rate, and how long a picture lasts then
        self._told_setting: tuple[int | None, int] | None = None  # at which frames were too large
        self._limit, self._limited_ns = limit, 0
        self._skipper = Skipper()
        self._paced_ns = 0  # when the pacer got its frame
        self._video: Supply[_Ready | _Skipped] | None = None
        self._sound: Supply[Chunk] | None = None
        self.feeds: dict[str, Any] = {}
        if source.has_video:
            self.feeds["video"] = self._video = feed(self._encoded, ahead=1, ready=ready, live=source.live)
        if source.has_audio:
            self.feeds["sound"] = self._sound = feed(audience.chunks, ahead=SOUND_AHEAD, ready=ready, live=source.live)

    def play(self, now_ns: int) -> int:
        """Somebody plays from now on: the clip starts, unless it runs; the media time of now, in ns."""
        if self.start_ns is None:
            self.start_ns = now_ns
            if isinstance(self._source, LiveSource):
                self._source.begin(now_ns)
            for feed in self.feeds.values():
                feed.begin()
            self._in_use = self._seat()
            self._in_use.restart(now_ns)
            self.sound_pacer.restart(now_ns)
        return now_ns - self.start_ns

    def take(self, now_ns: int) -> None:
        """Take what the feeds have: when it leaves is known then. Nothing while nobody plays."""
        if (start_ns := self.start_ns) is not None:
            self._fill(start_ns, now_ns)

    def wake_at(self) -> int | None:
        """When what was taken is due, or the clip over. None while nobody plays or nothing came."""
        if (start_ns := self.start_ns) is None:
            return None
        moments = (self._in_use.wake_at(), self.sound_pacer.wake_at(), self._end_ns(start_ns))
        return min((moment for moment in moments if moment is not None), default=None)

    def send_due(self, now_ns: int) -> bool:
        """Send what is due by now; whether the clip is over with it."""
        if (start_ns := self.start_ns) is None:
            return False
        self._fill(start_ns, now_ns)  # what has just come may be due at once
        for _ in range(SOUND_AHEAD):  # all of the sound that is due, however long the last turn was
            chunks = self.sound_pacer.pull(now_ns)
            if not chunks:
                break
            for due in chunks:
                self._send_sound(due)
            self._fill(start_ns, now_ns)
        for leaving in self._in_use.pull(now_ns + (self._skipper.early_ns if self._punctual else 0)):
            if isinstance(leaving, Dropped):
                self._note_skipped(start_ns, leaving.item.frame, leaving.reason)
            else:
                self._send_frame(start_ns, leaving)
        for words in self._in_use.notices():
            self._notice("pacer", words)
        if isinstance(self._source, LiveSource):
            for words in self._source.notices():
                self._notice("source", words)
        self._fill(
            start_ns, self._clock.now_ns()
        )  # the time that sending took is part of what a feedback rule measures
        pacer = self._in_use.pacer
        if isinstance(pacer, NoPacing) and self._limit is not None and now_ns >= self._limited_ns + LIMITED_NS:
            self._limited_ns = now_ns
            pacer.limit = self._limit(now_ns)  # what nothing else paces leaves no faster than somebody takes it
        end_ns = self._end_ns(start_ns)
        return end_ns is not None and now_ns >= end_ns

    def fault(self) -> Exception | None:
        """Why the clip ends before its end, once all that came before has been taken."""
        return next((feed.error for feed in self.feeds.values() if feed.error is not None), None)

    def rewind(self) -> None:
        """Stop, and start from the beginning at the next `play`."""
        self.start_ns = None
        self._last_media_ns = 0
        for feed in self.feeds.values():
            feed.rewind()

    # ---- the video thread

    def _encoded(self) -> Iterator[_Ready | _Skipped]:
        """One pass over the pictures, encoded at the width and quality of the moment and prepared for all, once.

        Pictures that are too late are left out here, before any work: as many as it takes, not one a turn of the
        server's thread, which may be the one that is slow. Where not even decoding keeps up, a clip is left unread up
        to a picture that can be sent in time.
        """
        self._pictures.begin()
        source = self._source
        skipper = self._skipper = Skipper(live=source.live, leaps=isinstance(source, ClipSource))
        skipped: list[EncodedFrame] = []
        told_ns, last = 0, (-1, 0)
        pictures = source.pictures(self._leap) if isinstance(source, ClipSource) else source.pictures()
        for picture in pictures:
            index, pts_ns = picture.index, picture.pts_ns
            if index != last[0] + 1:
                skipped.extend(_unread(last, (index, pts_ns)))
            last = index, pts_ns
            start_ns, now_ns = self.start_ns, self._clock.now_ns()
            if start_ns is not None and self._punctual and skipper.skips(start_ns + pts_ns, now_ns):
                if now_ns >= told_ns:
                    told_ns = now_ns + TOLD_AGAIN_NS
                    self._notice("overload", TOO_SLOW)
                skipped.append(EncodedFrame(index, pts_ns, b"", 0, 0))
                continue
            frame = self._pictures.encoded(picture, width=self.width, quality=self.quality)
            encoded_ns = self._clock.now_ns()
            self.encoded_width = frame.width
            unit = None
            try:
                unit = self._audience.prepare(frame)
            except FrameTooLargeError as error:  # paced like the others, or a clip of such frames would end at once
                self._tell_too_large(error)
            yield _Ready(frame, unit, now_ns, encoded_ns, tuple(skipped))
            skipped = []
        if skipped:
            yield _Skipped(tuple(skipped))

    def _leap(self) -> int | None:
        """From which pts on, in ns, pictures are worth reading, where it is not the next one."""
        start_ns = self.start_ns
        if start_ns is None or not self._punctual:
            return None
        moment_ns = self._skipper.leap(self._clock.now_ns())
        return None if moment_ns is None else moment_ns - start_ns

    @property
    def _punctual(self) -> bool:
        """Whether pictures may be left out: a feedback rule's slide, or that of anybody's own pacer, is to be seen."""
        return self._in_use.keeps_deadlines

    def _tell_too_large(self, error: FrameTooLargeError) -> None:
        """Once for each setting: thirty times a second would be no help."""
        setting = (self.width, self.quality)
        if setting != self._told_setting:
            self._told_setting = setting
            self._notice("frame too large", str(error))

    # ---- from the feeds into the pacers

    def _fill(self, start_ns: int, now_ns: int) -> None:
        """Give each pacer its next frame once it has sent the one before."""
        if self._in_use.pacer is not self.pacer:
            self._change_pacers(start_ns, now_ns)
        while self._video is not None and self._in_use.wake_at() is None:
            unit = self._video.take()
            if unit is None:
                break
            for picture in unit.skipped:
                self._note_skipped(start_ns, picture)
            if isinstance(unit, _Skipped):
                continue
            self._paced_ns = now_ns
            self._in_use.push(unit, now_ns)
        while self._sound is not None and self.sound_pacer.wake_at() is None:
            chunk = self._sound.take()
            if chunk is None:
                break
            self.sound_pacer.push(chunk, now_ns)

    def _seat(self) -> Seat:
        return Seat(self.pacer, call=self._call, failed=self._failed)

    def _change_pacers(self, start_ns: int, now_ns: int) -> None:
        """Another pacer was chosen: it takes over with the next frame, or at once from one that stands still."""
        before, wake_ns = self._in_use, self._in_use.wake_at()
        if wake_ns is not None and wake_ns < before.stands_ns:
            return
        self._in_use = self._seat()
        self._in_use.restart(start_ns)
        for unit in before.held:
            self._in_use.push(unit, now_ns)

    def _note_skipped(self, start_ns: int, picture: EncodedFrame, fate: str = "skipped") -> None:
        if picture.data:
            self._pictures.refresh()  # those after it may need it, and have no number to miss it by
        self._record(
            Offered(
                "video",
                picture.index,
                picture.pts_ns,
                self._audience.timestamp("video", picture.pts_ns),
                start_ns + picture.pts_ns,
                bytes=len(picture.data) or None,  # none at all, where it was too late to encode it
                packets=0,
                fate=fate,
            )
        )

    def _end_ns(self, start_ns: int) -> int | None:
        """When the clip is over; None while there is more of it."""
        if (self._loop or self._source.live) and self.fault() is not None:
            return start_ns  # at once: the other stream would go on for ever
        if self._in_use.wake_at() is None and self.sound_pacer.wake_at() is None:
            return start_ns + self._last_media_ns if all(feed.ended for feed in self.feeds.values()) else None
        return None

    # ---- from the pacers to the audience

    def _send_frame(self, start_ns: int, due: Due) -> None:
        frame: EncodedFrame = due.item.frame
        if self._punctual:  # the last picture has its time; by a pacer that keeps none it is over when it is sent
            self._last_media_ns = max(self._last_media_ns, frame.pts_ns + self._lasting_ns())
        if due.item.unit is None:
            self._note_skipped(start_ns, frame)
            return
        try:
            sent_ns, count = self._audience.send_frame(due.item.unit, frame.pts_ns)
        except FrameTooLargeError as error:
            self._tell_too_large(error)
            self._note_skipped(start_ns, frame)
            return
        if sent_ns is not None:
            self._skipper.sent(due.item.chosen_ns, self._paced_ns, due.due_ns, sent_ns)
        self._record(
            Offered(
                "video",
                frame.index,
                frame.pts_ns,
                self._audience.timestamp("video", frame.pts_ns),
                due.due_ns,
                encoded_ns=due.item.encoded_ns,
                sent_ns=sent_ns,
                bytes=len(frame.data),
                packets=count,
            )
        )

    def _lasting_ns(self) -> int:
        """How long a picture lasts at the source's rate; 0 where that is not known. Reckoned once for each rate."""
        fps, lasting_ns = self._lasting
        if fps is not self._source.fps:
            fps = self._source.fps
            lasting_ns = round(NS / fps) if fps else 0
            self._lasting = fps, lasting_ns
        return lasting_ns

    def _send_sound(self, due: Due) -> None:
        chunk: Chunk = due.item
        self._last_media_ns = max(self._last_media_ns, chunk.pts_ns + chunk.duration_ns)
        sent_ns, parts = self._audience.send_sound(chunk)
        if parts:
            self._record(SoundOffered(chunk.index, due.due_ns, sent_ns, parts))


def _unread(last: tuple[int, int], found: tuple[int, int]) -> Iterator[EncodedFrame]:
    """The pictures between two, each an index and a pts, that were left unread; they lie evenly, as far as is known."""
    count, span_ns = found[0] - last[0], found[1] - last[1]
    for number in range(1, count):
        yield EncodedFrame(last[0] + number, last[1] + span_ns * number // count, b"", 0, 0)
