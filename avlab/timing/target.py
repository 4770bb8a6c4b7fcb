"""How long to wait before what comes is presented: a quantile of the delays seen, old ones forgotten. Pure.

After NetEq, WebRTC's jitter buffer for sound (modules/audio_coding/neteq: relative_arrival_delay_tracker, histogram,
underrun_optimizer): each arrival's delay beyond the quickest of the last seconds, the largest of each half second into
a histogram that fades, a quantile of it. Unlike there, the answer is a moment and not a number of packets: where media
time 0 should fall.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from avlab.timing.playout import MediaClock
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


class Quantile:
    """A histogram of delays that fades, and where a part `quantile` of its weight lies below."""

    def __init__(self, *, quantile: float = QUANTILE, forget: float = FORGET) -> None:
        self._quantile, self._forget = quantile, forget
        self._weights = [0.0] * BUCKETS
        self._count = 0

    def add(self, delay_ns: int) -> None:
        """One delay, 0 or more; longer ones than two seconds count as that."""
        self._count += 1
        # The first few count alike, as an average: NetEq's start_forget_weight.
        keep = min(self._forget, 1 - 2 / (self._count + 1))
        weights = self._weights = [weight * keep for weight in self._weights]
        weights[min(BUCKETS - 1, max(0, delay_ns) // BUCKET_NS)] += 1 - keep

    def value_ns(self) -> int:
        """The delay, rounded up to a bucket's end; 0 before the first was added."""
        below = 0.0
        for bucket, weight in enumerate(self._weights):
            below += weight
            if below >= self._quantile:
                return (bucket + 1) * BUCKET_NS
        return BUCKETS * BUCKET_NS if self._count else 0


class _Arrivals:
    """One stream's: how late each arrival is beyond the quickest of the last seconds."""

    def __init__(self) -> None:
        self.quantile = Quantile()
        self._slots: deque[tuple[int, int]] = deque()  # each half second's end, and its quickest
        self._end_ns = 0
        self._quickest_ns: int | None = None
        self._slowest_ns = 0

    def arrived(self, offset_ns: int, now_ns: int) -> None:
        """Something arrived `offset_ns` after its media time."""
        if self._quickest_ns is None:
            self._quickest_ns = self._slowest_ns = offset_ns
            self._end_ns = now_ns + RESAMPLE_NS
        elif now_ns >= self._end_ns:
            self._close(now_ns)
            self._quickest_ns = self._slowest_ns = offset_ns
        elif offset_ns < self._quickest_ns:
            self._quickest_ns = offset_ns
        elif offset_ns > self._slowest_ns:
            self._slowest_ns = offset_ns

    def quickest_ns(self) -> int | None:
        """The quickest arrival's offset, of those remembered."""
        known = [quickest_ns for _, quickest_ns in self._slots]
        return min([*known, self._quickest_ns]) if self._quickest_ns is not None else None

    def needed_ns(self, least_ns: int) -> int | None:
        """The offset that nearly all arrivals keep; None before the first half second is over."""
        quickest_ns = self.quickest_ns()
        if quickest_ns is None or not self._slots:
            return None
        return quickest_ns + max(least_ns, self.quantile.value_ns())

    def _close(self, now_ns: int) -> None:
        assert self._quickest_ns is not None
        self._slots.append((self._end_ns, self._quickest_ns))
        while self._slots[0][0] < now_ns - QUICKEST_NS:
            self._slots.popleft()
            if not self._slots:
                self._slots.append((self._end_ns, self._quickest_ns))
                break
        quickest_ns = self.quickest_ns()
        assert quickest_ns is not None
        self.quantile.add(self._slowest_ns - quickest_ns)
        self._end_ns = now_ns + RESAMPLE_NS


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
            arrivals = self._streams[stream] = _Arrivals()
        arrivals.arrived(now_ns - media_ns, now_ns)

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
        known = (arrivals.quickest_ns() for arrivals in self._streams.values())
        return base_ns - min((offset_ns for offset_ns in known if offset_ns is not None), default=base_ns)

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


class Steering:
    """Brings a media clock to where the target wants it: later at once, which is a rebuffer, earlier slowly."""

    def __init__(self) -> None:
        self.target = DelayTarget()
        self._steered_ns = self._easing_ns = self._noted_ns = 0

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
