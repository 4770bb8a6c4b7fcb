"""The audience of the http wire as the server's thread knows it: it hands over what is due, and is told who is there.

The web server and all that is sent by it are `site`'s, in an event loop on a thread of its own. Connections are taken
here, by the same listener as elsewhere, as only that rests when the system is out of descriptors.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from avlab.measure.numbers.attendance import Member
from avlab.measure.record.trace import Recorder
from avlab.media.sources import Source
from avlab.stream.clock import Clock, WallClock
from avlab.stream.ends import SoundPart
from avlab.stream.http.gate import Gate
from avlab.stream.http.site import PageContent, Site
from avlab.stream.http.viewers import Unit, picture_of, sound_of
from avlab.stream.places import Places
from avlab.stream.sockets.links import Waker, host_of
from avlab.stream.sockets.listening import Listener
from avlab.wire.admission import Admission
from avlab.wire.text import printable
from avlab.wire.units import Chunk, EncodedFrame
from avlab.wire.urls import ip_address


class HttpAudience:
    """An `ends.Audience`: whoever opens the page at `url`, or asks for its pictures in parts.

    `spawn(name, body, wake)` starts a thread that ends with the server. `by_code` and `by_name` are whether `admission`
    has a class's code, which is typed into the page, and users, whom the browser asks.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        host: str,
        port: int,
        session_timeout: float,
        clock: Clock,
        recorder: Recorder,
        play: Callable[[int], int],
        notice: Callable[[str, str], None],
        places: Places,
        spawn: Callable[..., Any],
        admission: Admission | None = None,
        by_code: bool = False,
        by_name: bool = False,
    ) -> None:
        self._source, self._host, self._port = source, host, port
        self._clock, self._start, self._notice, self._spawn = clock, play, notice, spawn
        self._gate = Gate(host, admission=admission, by_code=by_code, by_name=by_name)
        sound = source.has_audio
        shown = PageContent(
            printable(name, most=200),
            float(source.fps) if source.fps else None,
            source.has_video,
            source.rate if sound else None,
            source.channels if sound else None,
        )
        self._site = Site(
            self._gate,
            shown,
            places=places,
            session_timeout=session_timeout,
            clock=clock,
            recorder=recorder,
            come=lambda number: self._tell(number, True),
            gone=lambda number: self._tell(number, False),
            notice=notice,
        )
        self._told: deque[tuple[int, bool]] = deque()  # who came, and who went
        self._playing: set[int] = set()
        self._unix_offset_ns = WallClock().unix_ns(0)
        self._waker: Waker | None = None
        self._door: Listener | None = None

    # ---- what it says of itself

    @property
    def url(self) -> str:
        """Where the page is, once it is open."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        path = f"{self._gate.token}/" if self._gate.token else ""
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/{path}"

    @property
    def clients(self) -> int:
        """How many look."""
        return len(self._site.viewers)

    @property
    def sent_bytes(self) -> int:
        """Bytes of pictures and sound that the system has taken so far, for all. From any thread."""
        return self._site.sent_bytes

    @property
    def members(self) -> tuple[Member, ...]:
        """Who looks, since when, and how much they were sent. From any thread."""
        now_ns = self._clock.now_ns()
        return tuple(viewer.member(now_ns, self._unix_offset_ns) for viewer in list(self._site.viewers.values()))

    @property
    def occupied(self) -> bool:
        """Whether anybody who looks at the running clip is left."""
        return bool(self._playing)

    @property
    def ssrcs(self) -> set[int]:
        """None: the wire has no such numbers."""
        return set()

    # ---- sockets

    def open(self, selector: selectors.BaseSelector) -> None:
        """Listen, and start the web server's thread; OSError when the port is taken."""
        self._door = Listener(self._host, self._port, notice=self._notice)
        self._port = self._gate.port = self._door.port
        self._waker = Waker()
        selector.register(self._waker, selectors.EVENT_READ)
        self._door.watch(selector, "door")
        self._spawn("http", self._site.open(), self._site.wake)

    def attend(self, what: Any, link: Any, now_ns: int) -> None:
        """Connections have come."""
        for arrival in link.accept(now_ns):
            host = host_of(arrival.address)
            self._site.take(arrival.link.socket, str(ip_address(host) or host), host_of(arrival.local))

    def wake_at(self) -> int | None:
        """When connections are to be taken again."""
        return self._door.wake_at() if self._door is not None else None

    def look_after(self, now_ns: int) -> None:
        """See who has come and who has gone."""
        if self._door is not None:
            self._door.resume(now_ns)
        while self._told:
            number, came = self._told.popleft()
            if came:
                self._start(now_ns)
                self._playing.add(number)
            else:
                self._playing.discard(number)

    def rewind(self) -> None:
        """The clip starts again when the next one comes."""

    def drain(self) -> None:
        """The web server's thread lets the last bytes leave, and ends."""
        self._site.finish()

    def close(self) -> None:
        """Close every socket."""
        if self._door is not None:
            self._door.close()
        self._site.close()
        if self._waker is not None:
            self._waker.close()

    def _tell(self, number: int, came: bool) -> None:
        """Have the server's thread know; from the web server's."""
        self._told.append((number, came))
        if self._waker is not None:
            self._waker.wake()

    # ---- what they are sent

    def chunks(self) -> Iterator[Chunk]:
        """The sound as it is: the page is told what it is like."""
        return self._source.chunks()

    def prepare(self, frame: EncodedFrame) -> Unit:
        """A picture's bytes, once for all."""
        return picture_of(frame)

    def timestamp(self, stream: str, pts_ns: int) -> None:
        """None: a body of parts has no timestamps that a client could be asked for."""

    def send_frame(self, unit: Unit, pts_ns: int) -> tuple[int | None, int | None]:
        """Hand over a picture, for all who look."""
        if not self._playing:
            return None, None
        now_ns = self._clock.now_ns()
        self._site.show(unit)
        return now_ns, 1

    def send_sound(self, chunk: Chunk) -> tuple[int | None, Sequence[SoundPart]]:
        """Hand over a chunk, for all who listen."""
        if not any(viewer.hears for viewer in list(self._site.viewers.values())):
            return None, ()
        now_ns = self._clock.now_ns()
        self._site.hear(sound_of(chunk))
        return now_ns, (SoundPart(chunk.pts_ns, None, chunk.samples.nbytes),)

    def say_goodbye(self, now_ns: int) -> None:
        """The stream is over for all who look; who comes from now on is there for the next one."""
        self._site.end(self._playing)
        self._playing.clear()
