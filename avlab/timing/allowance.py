"""How much of a stream goes to an address that has proved nothing: a datagram can be forged, and floods a stranger.

Pure: knows hosts by name, and time as an argument. What proves an address is for the caller to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from avlab.wire.units import NS

UNPROVEN_NS = 2 * NS
"""Of video, for all viewers of a host together."""

PERIOD_NS = 60 * NS
"""What a host has used comes back so long after the last picture that was sent there without proof."""

AT_A_TIME = 4
"""Hosts that are sent anything without proof at one moment."""

REMEMBERED = 1024
"""Hosts whose use is remembered; while they are that many, no other begins."""


@dataclass(slots=True)
class _Grant:
    last_ns: int  # when something was last sent without proof
    spent_ns: int = 0
    viewers: int = 0  # that are unproven now


class Allowance:
    """Lets unproven viewers begin, and counts what they are sent.

    Each host has `unproven_ns` of video, which all its viewers share, and again when `period_ns` have passed without
    any of it; `at_a_time` hosts may use theirs at one moment.
    """

    def __init__(
        self, *, unproven_ns: int = UNPROVEN_NS, period_ns: int = PERIOD_NS, at_a_time: int = AT_A_TIME
    ) -> None:
        self._unproven_ns, self._period_ns, self._at_a_time = unproven_ns, period_ns, at_a_time
        self._grants: dict[str, _Grant] = {}

    @property
    def hosts(self) -> int:
        """How many hosts have a viewer without proof now."""
        return sum(grant.viewers > 0 for grant in self._grants.values())

    def begin(self, host: str, now_ns: int) -> bool:
        """Whether one more viewer at `host` may be sent pictures without proof; it counts until `end` or `prove`."""
        self._forget(now_ns)
        grant = self._grants.get(host)
        if grant is None:
            if self.hosts >= self._at_a_time or len(self._grants) >= REMEMBERED:
                return False
            grant = self._grants[host] = _Grant(now_ns)
        elif grant.spent_ns >= self._unproven_ns or (not grant.viewers and self.hosts >= self._at_a_time):
            return False
        grant.viewers += 1
        return True

    def spend(self, host: str, video_ns: int, now_ns: int) -> bool:
        """Whether one of the viewers at `host` may be sent a picture that is shown for `video_ns`; it is counted.

        The first picture always goes, however long it is shown.
        """
        grant = self._grants.get(host)
        if grant is None or not grant.viewers:
            return False
        if grant.spent_ns >= self._unproven_ns:
            return False
        grant.last_ns = now_ns
        grant.spent_ns += max(0, video_ns)
        return True

    def end(self, host: str) -> None:
        """One of the unproven viewers at `host` is gone; what was spent stays spent."""
        grant = self._grants.get(host)
        if grant is not None and grant.viewers:
            grant.viewers -= 1

    def prove(self, host: str) -> None:
        """One of the unproven viewers at `host` is proved: whoever is there wants it, and nothing is owed any more."""
        grant = self._grants.get(host)
        if grant is not None:
            grant.viewers = max(0, grant.viewers - 1)
            grant.spent_ns = 0

    def _forget(self, now_ns: int) -> None:
        for host, grant in list(self._grants.items()):
            if not grant.viewers and now_ns - grant.last_ns >= self._period_ns:
                del self._grants[host]
