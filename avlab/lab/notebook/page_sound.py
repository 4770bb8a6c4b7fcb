"""The page as a sound device: a speaker whose samples go to the browser, some 300 ms before they are heard.

One thread asks for blocks as fast as the page's own audio clock plays them, and hands them to whoever sends.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from statistics import median_low

from avlab.media.speaker import Fill
from avlab.stream.clock import MonotonicClock
from avlab.stream.playing.sound import Pull
from avlab.timing.playout import ClockReading
from avlab.wire.units import NS, Samples

RING_NS = 250_000_000
"""How much sound the page holds before its device takes it; it begins to play at 150 ms."""

WAY_NS = 20_000_000
LEAD_NS = 320_000_000
"""By how much sound has to be there before it is heard: the ring, a usual device's latency (50 ms), and the way."""

FAR_NS = 20_000_000
"""Only by more than this is a device's latency worth presenting everything later."""

BLOCKS_PER_SECOND = 25
GUESSED_LATENCY_NS = 40_000_000  # before the page has said what its device takes

SWITCH_S = 0.0005
"""How long a Python loop in a cell may hold the interpreter while the page waits for sound: with Python's 5 ms it was
measured to run dry seven times in ten seconds, with this never."""

Send = Callable[[int, "ClockReading | None", Samples], None]
"""`send(position, reading, samples)`: a block's place in the sound sent so far, and the media time of its first."""


class PageSpeaker:
    """A `Speaker` (see avlab.media.speaker) in the page. `reported` is what the page says of its device."""

    name = "the browser"
    error: BaseException | None = None
    stalled = False  # whether the page is still there is seen by whoever hears its words

    def __init__(
        self,
        pull: Pull,
        send: Send,
        *,
        rate: int,
        turned: Callable[[bool], None],
        clock: MonotonicClock | None = None,
    ) -> None:
        self.latency_ns = GUESSED_LATENCY_NS
        self._pull, self._send, self._turned, self._rate = pull, send, turned, rate
        self._clock = clock or MonotonicClock()
        self._lock = threading.Lock()
        self._given = 0  # samples
        self._anchor: tuple[int, int] | None = None  # (position, when it is heard), while the page plays
        self._latencies: deque[int] = deque(maxlen=9)
        self._heard = 0  # the position at which it stands while it does not
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, fill: Fill, /) -> None:
        """Begin to ask; `fill` is not used, as a page is told the media time of what it plays."""
        _quick.enter()
        self._turned(True)
        self._thread = threading.Thread(target=self._run, name="avlab-page-sound", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; doing it twice does nothing."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
            self._turned(False)
            _quick.leave()

    def reported(self, position: int, heard_ns: int, latency_ns: int, *, playing: bool) -> None:
        """Sample `position` is heard at `heard_ns`, or is the next to be heard once the page has sound again."""
        with self._lock:
            self._latencies.append(max(0, min(latency_ns, NS)))
            self.latency_ns = median_low(self._latencies)
            self._heard = min(position, self._given)
            self._anchor = (position, heard_ns) if playing else None

    @property
    def lead_ns(self) -> int:
        """How long before it is heard sound has to be there: more than `LEAD_NS` for a slow device (Bluetooth)."""
        with self._lock:
            wanted_ns = RING_NS + self.latency_ns + WAY_NS
            return wanted_ns if len(self._latencies) > 4 and wanted_ns > LEAD_NS + FAR_NS else LEAD_NS

    def heard_ns(self, now_ns: int) -> int:
        """When the next sample to be asked for will be heard."""
        with self._lock:
            if self._anchor is None:
                return now_ns + self.latency_ns + (self._given - self._heard) * NS // self._rate
            position, heard_ns = self._anchor
            return heard_ns + (self._given - position) * NS // self._rate

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                now_ns = self._clock.now_ns()
                heard_ns = self.heard_ns(now_ns)
                spare_ns = heard_ns - self.latency_ns - now_ns - RING_NS
                if spare_ns > 0:
                    self._stopping.wait(min(spare_ns, NS // BLOCKS_PER_SECOND) / NS)
                    continue
                if spare_ns < -4 * NS:  # the machine slept: go on from now
                    self.reported(self._given, now_ns + self.latency_ns, self.latency_ns, playing=True)
                    continue
                samples, reading = self._pull(self._rate // BLOCKS_PER_SECOND, heard_ns)
                self._send(self._given, reading, samples)
                with self._lock:
                    self._given += len(samples)
        except BaseException as error:
            self.error = error


class _Quick:
    """Shorter turns for Python's threads, for as long as anyone wants them; then what was before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 0.0

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, SWITCH_S))

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                sys.setswitchinterval(self._before)


_quick = _Quick()
