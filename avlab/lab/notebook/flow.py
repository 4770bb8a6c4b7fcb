"""What may go to a page, and when; and which moment of the page's clock is which of ours. Decides, and sends nothing.

Times come in as arguments. A kernel hears a page on one thread and sends on another, hence the lock.
"""

from __future__ import annotations

import threading
from collections import deque

from avlab.wire.units import NS

MOST_UNDER_WAY = 20
"""Pictures sent and not acknowledged: a third of a second at 60 fps, more than is painted between two acknowledgements.
A browser tab that takes nothing more then costs the notebook server no more memory than these."""

OVERDUE_NS = 300_000_000
"""The page says something every 250 ms while anything comes. With no word for this long, pictures go on sparsely."""

TRICKLE_NS = 90_000_000  # just below 100 ms: of 30 fps, every third picture

GONE_NS = 3 * NS
"""With no word for this long, although one was due, nobody is there."""

BUSY_GONE_NS = 60 * NS
"""The same while a cell runs and keeps the page's words waiting."""

COAST_BYTES = 16_000_000
"""What a page that was there is sent in full while a cell keeps its words waiting; then pictures go on sparsely."""


class Flow:
    """Which pictures may go to the page, and when. Safe on any thread.

    Nothing goes before the page's first hello, and up to `MOST_UNDER_WAY` pictures may be unacknowledged. When no word
    has come although one was due, ten pictures a second go blindly: in many kernels a cell that runs keeps words from
    the page waiting, even its hello, and the picture should move meanwhile. The longer the silence, the fewer they
    become, so that a page which is gone for good costs next to nothing. `busy` says that such a cell runs.
    """

    def __init__(self, now_ns: int = 0) -> None:
        self._lock = threading.Lock()
        self._heard = False
        self._visible = True
        self._sent = self._acknowledged = 0
        self._sent_ns = 0
        self._since_ns: int | None = None  # since when a word from the page is waited for
        self._made_ns = now_ns
        self._coasted = 0  # bytes since the last word

    @property
    def sent(self) -> int:
        """How many pictures have been admitted."""
        return self._sent

    @property
    def heard(self) -> bool:
        """Whether a page has said something, and has not said goodbye since."""
        return self._heard

    def hello(self, now_ns: int) -> None:
        """The page is there, or there again: what was under way to it is forgotten."""
        with self._lock:
            self._heard = self._visible = True
            self._acknowledged = self._sent
            self._word()

    def acknowledge(self, number: int, now_ns: int, *, visible: bool = True) -> None:
        """The page has seen everything up to picture `number`. Not `visible`: nobody looks, and it wants none."""
        with self._lock:
            self._acknowledged = max(self._acknowledged, min(number, self._sent))
            self._heard, self._visible = True, visible
            self._word()

    def bye(self) -> None:
        """The page has closed the view."""
        with self._lock:
            self._heard = False
            self._made_ns = 1 << 62  # nothing goes blindly to a page that has left
            self._word()

    def expect(self, now_ns: int) -> None:
        """Something else than a picture was sent, for which the page owes a word too."""
        with self._lock:
            if self._since_ns is None:
                self._since_ns = now_ns

    def silent_ns(self, now_ns: int) -> int:
        """For how long a word has been waited for."""
        with self._lock:
            return 0 if self._since_ns is None else now_ns - self._since_ns

    def gone(self, now_ns: int, *, busy: bool = False) -> bool:
        """Whether the page has said nothing for so long that it is taken for gone."""
        return self.silent_ns(now_ns) > (BUSY_GONE_NS if busy else GONE_NS)

    def admit(self, now_ns: int, *, size: int = 0, busy: bool = False) -> int | None:
        """The number, from 1, under which a picture of `size` bytes is to be sent now; None when it is not to be."""
        with self._lock:
            silent_ns = 0 if self._since_ns is None else now_ns - self._since_ns
            if not self._heard:
                waited_ns = now_ns - self._made_ns
                admitted = busy and waited_ns > OVERDUE_NS and self._trickles(now_ns, waited_ns)
            elif not self._visible:
                admitted = False
            elif self._sent - self._acknowledged < MOST_UNDER_WAY:
                admitted = True
            elif busy and silent_ns > OVERDUE_NS and self._coasted < COAST_BYTES:
                admitted = True
                self._coasted += size
            else:
                admitted = silent_ns > OVERDUE_NS and self._trickles(now_ns, silent_ns)
            if not admitted:
                return None
            if self._since_ns is None and self._heard:
                self._since_ns = now_ns
            self._sent, self._sent_ns = self._sent + 1, now_ns
            return self._sent

    def _trickles(self, now_ns: int, silent_ns: int) -> bool:
        return now_ns - self._sent_ns >= max(TRICKLE_NS, silent_ns // 200)

    def _word(self) -> None:
        self._since_ns, self._coasted = None, 0


class PageClock:
    """The page's `performance.now()` on our clock, by the shortest of the latest round trips.

    A message that goes out at `sent_ns` comes to the page at `came_ms`; the page's next one leaves it at `left_ms` and
    is here at `heard_ns`. Half of what was spent on the way is how far off the reckoning may be.
    """

    def __init__(self) -> None:
        self._trips: deque[tuple[int, int]] = deque(maxlen=64)  # (spent on the way, page's zero on our clock)
        self._zero_ns: int | None = None

    @property
    def known(self) -> bool:
        """Whether a round trip has been seen."""
        return self._zero_ns is not None

    @property
    def error_ns(self) -> int | None:
        """At most so far is it off; None before the first round trip."""
        return min(self._trips)[0] // 2 if self._trips else None

    def trip(self, sent_ns: int, came_ms: float, left_ms: float, heard_ns: int) -> None:
        """A round trip; one that cannot have been is passed over."""
        on_the_way_ns = heard_ns - sent_ns - round((left_ms - came_ms) * 1e6)
        if on_the_way_ns < 0 or left_ms < came_ms:
            return
        zero_ns = (sent_ns + heard_ns - round((came_ms + left_ms) * 1e6)) // 2
        self._trips.append((on_the_way_ns, zero_ns))
        self._zero_ns = min(self._trips)[1]

    def to_ns(self, page_ms: float) -> int:
        """A moment of the page's clock on ours; ValueError before the first round trip."""
        if self._zero_ns is None:
            raise ValueError("no round trip to the page has been seen yet")
        return self._zero_ns + round(page_ms * 1e6)
