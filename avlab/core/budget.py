"""How many packets are sent again a second, for all who ask a server. Pure."""

from __future__ import annotations

from avlab.wire.units import NS

PACKETS_A_SECOND = 20_000
"""At some 10 us each, a fifth of one thread's time: pictures come first."""

PACKETS_AT_ONCE = 2_000
"""After a pause; 20 ms of that thread's time."""


class FeedbackBudget:
    """One for all `Sender`s of a server, who send packets again out of it; it fills as time passes.

    What one client may have sent again is bounded by what it is sent (`retransmission.SHARE`): no single one empties
    it. `a_second` and `at_once` are packets, 1 or more; ValueError below.
    """

    def __init__(self, *, a_second: int = PACKETS_A_SECOND, at_once: int = PACKETS_AT_ONCE) -> None:
        if a_second < 1 or at_once < 1:
            raise ValueError(f"a feedback budget has 1 packet or more, not {a_second} a second and {at_once} at once")
        self._a_second, self._most = a_second, at_once * NS
        self._filled = self._most  # in packets times nanoseconds, so that nothing is rounded
        self._since_ns: int | None = None

    def left(self, now_ns: int) -> int:
        """How many packets may be sent again now."""
        if self._since_ns is not None:
            self._filled = min(self._most, self._filled + max(0, now_ns - self._since_ns) * self._a_second)
        self._since_ns = now_ns if self._since_ns is None else max(now_ns, self._since_ns)
        return self._filled // NS

    def spend(self, packets: int) -> None:
        """So many were sent again."""
        self._filled = max(0, self._filled - packets * NS)
