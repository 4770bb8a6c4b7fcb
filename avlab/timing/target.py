"""How long to wait before what comes is presented: a quantile of the delays seen, old ones forgotten. Pure.

After NetEq, WebRTC's jitter buffer for sound (modules/audio_coding/neteq: relative_arrival_delay_tracker, histogram,
underrun_optimizer): each arrival's delay beyond the quickest of the last seconds, the largest of each half second into
a histogram that fades, a quantile of it. Unlike there, the answer is a moment and not a number of packets: where media
time 0 should fall.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from avlab.parts import Call, PartError, called, missing_methods, named, number, shown
from avlab.timing.playout import DEFAULT_DELAY_NS, MediaClock
from avlab.wire.units import NS

QUANTILE = 0.95
FORGET = 0.983
RESAMPLE_NS = NS // 2
"""NetEq's own: nineteen of twenty half seconds without anything late; a half second's weight halves in twenty more."""

BUCKET_NS = 5_000_000
BUCKETS = 400
"""NetEq counts in packets' lengths of 20 ms; a picture has none."""

QUICKEST_NS = 10 * NS
"""How long the quickest arrival is remembered: long enough to see past a full queue, short enough for clocks to drift
by 2 ms at the most."""

GROW_NS = 10_000_000
"""So much too early, and presentation is moved: each move is a silence, so that small ones are not worth it."""

SPARE_NS = 10_000_000
"""A move goes so much further, so that the next is not needed at once."""

SHRINK_NS = 30_000_000
"""So much too late, and time is taken out, slowly."""

CALM_NS = 5 * NS
"""How long after a move nothing is taken out."""

STEER_NS = NS // 10
"""How often a clock is brought to its target."""

EASE = 0.01
"""Without sound, pictures may come so much too fast while the delay comes down: nobody sees a hundredth."""

NOTED_NS = 5_000_000
"""The record has the delay whenever it has changed by this."""

REMEMBERED = 500
"""Delays, of all streams together, that anyone's own playout delay is told of."""

FEWEST = 10
"""Before so many have come, it is not asked."""

LONGEST_NS = 5 * NS
"""What it asks for is kept within 0 and this."""


class Quantile:
    """A histogram of delays that fades, and where a part `quantile` of its weight lies below."""

    def __init__(self, *, quantile: float = QUANTILE, forget: float = FORGET) -> None:
        self._quantile, self._forget = quantile, forget
        self._weights = np.zeros(BUCKETS)
        self._count = 0

    def add(self, delay_ns: int) -> None:
        """One delay, 0 or more; longer ones than two seconds count as that."""
        self._count += 1
        # The first few count alike, as an average: NetEq's start_forget_weight.
        keep = min(self._forget, 1 - 2 / (self._count + 1))
        weights = self._weights
        weights *= keep
        weights[min(BUCKETS - 1, max(0, delay_ns) // BUCKET_NS)] += 1 - keep

    def value_ns(self) -> int:
        """The delay, rounded up to a bucket's end; 0 before the first was added."""
        bucket = int(np.searchsorted(np.cumsum(self._weights), self._quantile))
        if bucket < BUCKETS:
            return (bucket + 1) * BUCKET_NS
        return BUCKETS * BUCKET_NS if self._count else 0


class _Arrivals:
    """One stream's: how late each arrival is beyond the quickest of the last seconds."""

    def __init__(self, offset_ns: int, now_ns: int) -> None:
        """The first arrived `offset_ns` after its media time."""
        self.quantile = Quantile()
        self._slots: deque[tuple[int, int]] = deque()  # each half second's end, and its quickest
        self.end_ns = now_ns + RESAMPLE_NS
        self.quickest_of_late_ns = self.slowest_ns = offset_ns

    def arrived(self, offset_ns: int, now_ns: int) -> None:
        """Something arrived `offset_ns` after its media time."""
        if now_ns >= self.end_ns:
            self._close(now_ns)
            self.quickest_of_late_ns = self.slowest_ns = offset_ns
        elif offset_ns < self.quickest_of_late_ns:
            self.quickest_of_late_ns = offset_ns
        elif offset_ns > self.slowest_ns:
            self.slowest_ns = offset_ns

    def quickest_ns(self) -> int:
        """The quickest arrival's offset, of those remembered."""
        return min([*(quickest_ns for _, quickest_ns in self._slots), self.quickest_of_late_ns])

    def needed_ns(self, least_ns: int) -> int | None:
        """The offset that nearly all arrivals keep; None before the first half second is over."""
        if not self._slots:
            return None
        return self.quickest_ns() + max(least_ns, self.quantile.value_ns())

    def _close(self, now_ns: int) -> None:
        self._slots.append((self.end_ns, self.quickest_of_late_ns))
        while self._slots[0][0] < now_ns - QUICKEST_NS:
            self._slots.popleft()
            if not self._slots:
                self._slots.append((self.end_ns, self.quickest_of_late_ns))
                break
        self.quantile.add(self.slowest_ns - self.quickest_ns())
        self.end_ns = now_ns + RESAMPLE_NS


class DelayTarget:
    """Where media time 0 should fall on the monotonic clock, and when to move it there.

    `observe` takes every arrival of every stream, late ones too; `move_ns` says what to do about a clock that stands
    elsewhere. The streams share one media clock, so the one that needs the most decides. By stream, `least_ns` is the
    least delay beyond the quickest arrival, as a repair needs it, and `lead_ns` what a device wants beyond it.
    """

    def __init__(self) -> None:
        self.least_ns: dict[str, int] = {}
        self.lead_ns: dict[str, int] = {}
        self._streams: dict[str, _Arrivals] = {}
        self._moved_ns: int | None = None
        self._easing = False

    def observe(self, stream: str, media_ns: int, now_ns: int) -> None:
        """Something of media time `media_ns` arrived."""
        arrivals = self._streams.get(stream)
        if arrivals is None:
            self._streams[stream] = _Arrivals(now_ns - media_ns, now_ns)
        else:
            arrivals.arrived(now_ns - media_ns, now_ns)

    def observe_together(self, stream: str, media_times_ns: Sequence[int], now_ns: int) -> None:
        """What arrived together, of these media times in rising order: as `observe` for each."""
        arrivals = self._streams.get(stream)
        if arrivals is None or now_ns >= arrivals.end_ns:
            for media_ns in media_times_ns:
                self.observe(stream, media_ns, now_ns)
            return
        # Of all, the first took longest and the last shortest.
        slowest_ns, quickest_ns = now_ns - media_times_ns[0], now_ns - media_times_ns[-1]
        if quickest_ns < arrivals.quickest_of_late_ns:
            arrivals.quickest_of_late_ns = quickest_ns
        if slowest_ns > arrivals.slowest_ns:
            arrivals.slowest_ns = slowest_ns

    def base_ns(self) -> int | None:
        """Where media time 0 should fall; None before the first half second is over."""
        wanted = []
        for stream, arrivals in self._streams.items():
            needed_ns = arrivals.needed_ns(self.least_ns.get(stream, 0))
            if needed_ns is not None:
                wanted.append(needed_ns + self.lead_ns.get(stream, 0))
        return max(wanted, default=None)

    def delay_ns(self, base_ns: int) -> int:
        """The delay, beyond the quickest arrival of any stream, at which a clock that stands at `base_ns` presents."""
        return base_ns - min((arrivals.quickest_ns() for arrivals in self._streams.values()), default=base_ns)

    def after(self, usual: DelayTarget) -> None:
        """Go on from what another has seen of the same streams."""
        self._streams, self.least_ns, self.lead_ns = usual._streams, usual.least_ns, usual.lead_ns

    def move_ns(self, base_ns: int, now_ns: int) -> int | None:
        """What to do with a clock that stands at `base_ns`; None: nothing else than before.

        More than 0: present later by so much, at once, and take nothing out. Less: take so much out from here on,
        slowly and unheard, whatever was said before. 0: take no more out.
        """
        target_ns = self.base_ns()
        if target_ns is None:
            return None
        short_ns = target_ns - base_ns
        if short_ns > GROW_NS:
            self._moved_ns, self._easing = now_ns, False
            return short_ns + SPARE_NS
        calm = self._moved_ns is None or now_ns - self._moved_ns >= CALM_NS
        if self._easing or (calm and short_ns < -SHRINK_NS):
            self._easing = short_ns < -BUCKET_NS
            return short_ns if self._easing else 0
        return None


class OwnTarget(DelayTarget):
    """A playout delay of anyone's own, as a `DelayTarget`: a function `target(delays)`, or a class; see `avlab.parts`.

    Delays are those beyond the quickest arrival of any stream in the last ten seconds. It is asked each half second,
    once ten have come, and what it says is kept within 0 and 5 s; 0.1 s until then. What a device needs at the least
    it gets all the same. A class is made by the first arrival.

    With `failed`, one that fails is told of in a sentence, and 0.1 s holds from then on; without, PartError is raised.
    """

    def __init__(self, part: Any, *, call: Call = called, failed: Callable[[PartError], None] | None = None) -> None:
        super().__init__()
        self._part, self._call, self._failed = part, call, failed
        self._said = f"the playout delay {named(part if callable(part) else type(part))}"
        self._full: Any = None if callable(part) else part  # with observe and target
        self._broken = False
        self._offsets: deque[int] = deque(maxlen=REMEMBERED)
        self._count = 0
        self._began_ns: int | None = None
        self._asked_ns: int | None = None
        self._delay_ns = DEFAULT_DELAY_NS
        self._easing = False

    def observe(self, stream: str, media_ns: int, now_ns: int) -> None:
        """Something of media time `media_ns` arrived."""
        offset_ns = now_ns - media_ns
        if self._began_ns is None:
            self._began_ns = now_ns
        super().observe(stream, media_ns, now_ns)
        self._offsets.append(offset_ns)
        self._count += 1
        if self._full is None and not isinstance(self._part, type):
            return
        delay = (offset_ns - self._quickest_ns()) / NS
        self._guarded(lambda: self._observed(stream, delay, (now_ns - (self._began_ns or 0)) / NS))

    def observe_together(self, stream: str, media_times_ns: Sequence[int], now_ns: int) -> None:
        """What arrived together: the part is told of each."""
        for media_ns in media_times_ns:
            self.observe(stream, media_ns, now_ns)

    def move_ns(self, base_ns: int, now_ns: int) -> int | None:
        """What to do with a clock that stands at `base_ns`; see `DelayTarget`."""
        if not self._offsets:
            return None
        if self._asked_ns is None or now_ns - self._asked_ns >= RESAMPLE_NS:
            self._asked_ns = now_ns
            if self._count >= FEWEST:
                self._guarded(lambda: self._ask(now_ns))
        least_ns = max(self.lead_ns.values(), default=0)
        short_ns = self._quickest_ns() + max(self._delay_ns, least_ns) - base_ns
        if short_ns > GROW_NS:
            self._easing = False
            return short_ns
        if self._easing or short_ns < -GROW_NS:
            self._easing = short_ns < 0
            return short_ns if self._easing else 0
        return None

    def _quickest_ns(self) -> int:
        return min(-self.delay_ns(0), min(self._offsets))  # what moves on with the seconds, and what is told of

    def _observed(self, stream: str, delay: float, now: float) -> None:
        if self._full is None:
            self._full = self._call(self._said, self._part)
            if missing := missing_methods(self._full, ("observe", "target")):
                raise PartError(f"{self._said} has no method {missing[0]}: it needs observe and target")
        self._call(self._said, self._full.observe, stream, delay, now)

    def _ask(self, now_ns: int) -> None:
        if self._full is not None:
            given = self._call(self._said, self._full.target, (now_ns - (self._began_ns or 0)) / NS)
            if given is None:
                return
        else:
            quickest_ns = self._quickest_ns()
            given = self._call(self._said, self._part, [(offset_ns - quickest_ns) / NS for offset_ns in self._offsets])
        self._delay_ns = _within(given, self._said)

    def _guarded(self, ask: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            ask()
        except PartError as error:
            if self._failed is None:
                raise
            self._broken, self._delay_ns = True, DEFAULT_DELAY_NS
            self._failed(error)


def _within(given: Any, said: str) -> int:
    """Seconds as nanoseconds, within 0 and 5 s. PartError for what is no number."""
    if given is ...:
        raise PartError(f"{said} is not written yet: put your own in place of ...")
    if given is None:
        raise PartError(f"{said} returned nothing: is there a return? It must return seconds")
    seconds = number(given)
    if seconds is None:
        raise PartError(f"{said} returned {shown(given)}: it must return a number of seconds, from 0 to 5")
    return round(min(LONGEST_NS / NS, max(0.0, seconds)) * NS)


def own_target(choice: Any) -> bool:
    """Whether a playout delay is anyone's own: a function, or a class or object with `observe` and `target`.

    TypeError, in a sentence, for a class or object that has only a part of that.
    """
    missing = missing_methods(choice, ("observe", "target"))
    if isinstance(choice, type) and missing:
        raise TypeError(f"the playout delay {named(choice)} has no method {missing[0]}: it needs observe and target")
    return callable(choice) or not missing


class Steering:
    """Brings a media clock to where the target wants it: later at once, which is a rebuffer, earlier slowly."""

    def __init__(self, target: DelayTarget | None = None) -> None:
        self.target = DelayTarget() if target is None else target
        self._steered_ns = self._easing_ns = self._noted_ns = 0

    def steer_by(self, target: DelayTarget) -> None:
        """Another target, from now on; what was seen so far is not forgotten. From any thread."""
        target.after(self.target)
        self.target = target

    def ease(self, by_ns: int) -> None:
        """Take `by_ns` out of the clock bit by bit; 0 for no more than has been. For a clock that no sound leads."""
        self._easing_ns = by_ns

    def wake_at(self, clock: MediaClock) -> int | None:
        """When to steer again; None while the clock does not run."""
        return self._steered_ns + STEER_NS if clock.running else None

    def steer(
        self,
        clock: MediaClock,
        now_ns: int,
        *,
        shift: Callable[[int], None],
        ease: Callable[[int], None],
        note: Callable[[str, float], None],
    ) -> None:
        """Now and then, what the moment asks for.

        `shift(ns)` presents later at once, `ease(ns)` earlier bit by bit; `note(name, seconds)` records a `rebuffer`
        and its length, and the `playout_target` when it has moved.
        """
        elapsed_ns = min(NS, now_ns - self._steered_ns)
        if elapsed_ns < STEER_NS or not clock.running:
            return
        self._steered_ns = now_ns
        move_ns = self.target.move_ns(clock.when_ns(0), now_ns)
        if move_ns is not None:
            ease(max(0, -move_ns))
            if move_ns > 0:
                shift(move_ns)
                note("rebuffer", move_ns / NS)
        eased_ns = min(self._easing_ns, int(elapsed_ns * EASE))
        self._easing_ns -= eased_ns
        clock.shift(-eased_ns)
        delay_ns = self.target.delay_ns(clock.when_ns(0))
        if abs(delay_ns - self._noted_ns) >= NOTED_NS:
            self._noted_ns = delay_ns
            note("playout_target", delay_ns / NS)
