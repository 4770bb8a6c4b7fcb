"""A camera that sends JPEG in parts over HTTP, or avlab's own http wire, as a client sees it: pictures, and no more.

Nothing on this wire says when a picture is to be seen: each is shown as it comes. A thread reads the connection, so
that pictures are taken off it however busy the client's own thread is; of those that wait for that the newest count.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from avlab.stream.clock import Clock
from avlab.stream.ends import Offer
from avlab.stream.http.fetching import Body, Fetch
from avlab.stream.playing.presentation import Presentation
from avlab.stream.recording import PlayerRecording
from avlab.stream.sockets.links import Waker
from avlab.timing.jitterbuffer import Frame
from avlab.wire import multipart
from avlab.wire.digest import Credentials
from avlab.wire.jpegsize import check_jpeg
from avlab.wire.malformed import MALFORMED_PICTURES, MalformedCount
from avlab.wire.text import printable
from avlab.wire.units import NS, WireError

MOST_WAITING = 32
"""Pictures that wait for the client's thread; of more the oldest are dropped."""

SILENCE_NS = 10 * NS
"""Without a picture for so long the camera is taken for gone."""

NO_PLAYOUT_DELAY = (
    "The http wire carries no timestamps, so nothing tells when a picture is to be shown: each is shown as it comes, "
    "and playout_delay does not apply. Play over rtsp:// to have it."
)

CUT_SHORT = "The server at {where} closed the connection in the middle of a picture: it was stopped, or lost."

TOO_LARGE = "Pictures from {where} have more than {most:,} bytes and are passed over: have it send smaller ones."

_REASONS = {
    "video_over": "has all of it over one TCP connection",
    "audio_over": "has no sound for a player, only for its page",
    "av_offset": "has no sound for a player, only for its page",
    "jitter_buffer": "has whole pictures over TCP, so that there is nothing to put in order or together",
    "payload": "has each picture as a JPEG in a part of its own",
    "codec": "has each picture as a JPEG in a part of its own",
    "repair": "is TCP's, which sends again what is lost",
    "reconnect": "has pictures without numbers and timestamps, so that nothing tells how one goes on",
    "capture": "is not RTSP or RTP, which is what a capture here is of",
}


def refuse_settings(**given: Any) -> None:
    """ValueError for a setting that was made and that this wire has no way to keep."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} cannot be had: the http wire {_REASONS[name]}; use rtsp:// for it")


class _Came(NamedTuple):
    """A picture as it came."""

    time_ns: int
    data: bytes


class HttpReceiver:
    """An `ends.Receiver`. ValueError for an address that is none.

    `notice(name, words)` tells a person a sentence, once, and puts it into the record each time; `spawn(name, body,
    wake)` starts a thread that ends with the client.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        presentation: Presentation,
        clock: Clock,
        recording: PlayerRecording,
        notice: Callable[[str, str], None],
        spawn: Callable[..., Any],
        credentials: Credentials | None = None,
    ) -> None:
        self._fetch = Fetch(url, timeout=timeout, clock=clock, credentials=credentials)
        self._presentation, self._clock, self._recording = presentation, clock, recording
        self._notice, self._spawn = notice, spawn
        self._body: Body  # from `open` on
        self._held: list[Body | Waker] = []  # to be closed
        self._came: deque[_Came] = deque()
        self._dropped = 0  # by the thread that reads
        self._told_dropped = self._pictures = 0
        self._malformed = MalformedCount()
        self._too_large = self._cut = self._ended = False
        self._error: WireError | None = None
        self._told: set[str] = set()
        self._picture_ns: int | None = None
        self._first_ns = self._play_ns = self._moved_ns = 0

    @property
    def where(self) -> str:
        """host:port, for messages."""
        return self._fetch.place.where

    @property
    def ssrcs(self) -> set[int]:
        """None: the wire has no such numbers."""
        return set()

    @property
    def said_goodbye(self) -> bool:
        """Whether the connection has ended."""
        return self._ended

    # ---- before and after the client's thread

    def open(self) -> Offer:
        """Ask for the pictures."""
        body = self._body = self._fetch.open()
        self._held.append(body)
        for words in self._fetch.moves:
            self._notice("sent on", words)
        kind = multipart.media_type(body.content_type)
        if not kind.startswith("multipart/"):
            raise ValueError(_no_stream(body.place.url, kind))
        return Offer(frozenset({"video"}), clip=self.where, delay_ns=0)

    def cancel(self) -> None:
        """See `ends.Receiver`."""
        self._fetch.cancel()

    def play(self, selector: selectors.BaseSelector) -> None:
        """Read what comes, on a thread."""
        body, waker = self._body, Waker()
        self._held.append(waker)
        selector.register(waker, selectors.EVENT_READ)
        self._play_ns = self._clock.now_ns()
        self._recording.note(self._play_ns, "play")
        self._spawn("camera", lambda worker: self._read(body, waker), self._fetch.cancel)

    def leave(self, now_ns: int) -> None:
        """Closing the connection is all that a server notices."""
        self._fetch.cancel()

    def close(self) -> None:
        """Close the connection."""
        for held in self._held:
            held.close()

    # ---- the thread that reads

    def _read(self, body: Body, waker: Waker) -> None:
        reader = multipart.MultipartReader(multipart.boundary_of(body.content_type))
        try:
            while not reader.over and (data := body.read()):
                self._put(reader.feed(data), waker)
                self._too_large = reader.too_large > 0
            parts, cut = reader.end()
            self._cut = cut and not self._fetch.cancelled
            self._put(parts, waker)
        except WireError as error:
            self._error = error
        except OSError:  # reset, or the host is not reached any more
            self._cut = not self._fetch.cancelled
        finally:
            self._ended = True
            waker.wake()

    def _put(self, parts: list[multipart.BodyPart], waker: Waker) -> None:
        now_ns = self._clock.now_ns()
        for part in parts:
            if part.picture:
                self._came.append(_Came(now_ns, part.data))
        while len(self._came) > MOST_WAITING:
            self._came.popleft()
            self._dropped += 1
        if parts:
            waker.wake()

    # ---- what has come

    def attend(self, what: Any, link: Any) -> None:
        """Nothing: a `Waker` is all that is registered."""

    def wake_at(self) -> int:
        """When to look whether the camera is still there."""
        return self._moved_ns + NS // 4

    def move_along(self, now_ns: int) -> None:
        """Take the pictures that have come."""
        self._moved_ns = now_ns
        while self._came:
            came = self._came.popleft()
            try:
                self._take(came)
            except Exception as error:  # whatever is in it: the next one may be whole
                told = self._malformed.add(error)
                if told.record is not None:
                    self._recording.note(came.time_ns, "malformed packet", told.record)
                if told.notice is not None:
                    words = MALFORMED_PICTURES.format(where=self.where, why=told.notice)
                    self._notice("malformed pictures", words)
        if self._dropped != self._told_dropped:
            self._recording.note(now_ns, "socket_dropped", self._dropped - self._told_dropped)
            self._told_dropped = self._dropped
        if self._too_large:
            self._tell("too large", TOO_LARGE)
        if self._ended and self._cut:
            self._tell("cut short", CUT_SHORT)

    def _take(self, came: _Came) -> None:
        check_jpeg(came.data)
        if self._picture_ns is None:
            self._first_ns = came.time_ns
        self._picture_ns = came.time_ns
        self._recording.unnumbered(came.time_ns, "video", len(came.data))
        frame = Frame(
            ticks=self._pictures,
            pts_ns=came.time_ns - self._first_ns + self._pictures,  # no two alike, even of one read
            data=came.data,
            bytes=len(came.data),
            packets=1,
            packets_lost=0,
            first_packet_ns=came.time_ns,
            complete_ns=came.time_ns,
        )
        self._pictures += 1
        self._presentation.take_frame(frame, came.time_ns)

    def deserted(self, now_ns: int) -> bool:
        """See `ends.Receiver`: nothing tells an end from another one."""
        return False

    def over(self, now_ns: int) -> bool:
        """Whether the connection has ended, and all that came on it was taken. WireError for what is in no parts."""
        if self._fetch.cancelled:
            return False
        if self._ended and not self._came:
            if self._error is not None:
                raise self._error
            if self._picture_ns is None:
                raise ConnectionError(f"{self.where} closed the connection before a picture came")
            return True
        quiet_ns = now_ns - (self._play_ns if self._picture_ns is None else self._picture_ns)
        if quiet_ns > SILENCE_NS:
            raise TimeoutError(f"no picture has come from {self.where} for {SILENCE_NS // NS} s: the server is gone")
        return False

    def _tell(self, name: str, words: str) -> None:
        """A notice, once."""
        if name not in self._told:
            self._told.add(name)
            self._notice(name, words.format(where=self.where, most=multipart.MAX_PART))


def _no_stream(url: str, kind: str) -> str:
    """What to say of an answer that is no stream of pictures."""
    said = printable(kind, most=100) or "nothing that is told"
    if kind == "image/jpeg":
        return f"{url} is one picture and no stream: ask the camera's manual for its address of MJPEG"
    if kind == "text/html":
        return f"{url} is a page and no stream: play the address of the stream that the page shows"
    return f"{url} is {said}, and what is played over http is JPEG in parts ({multipart.MEDIA_TYPE})"
