"""When a stream is over: after BYE, or a second after the first of them. Pure."""

from __future__ import annotations

from collections.abc import Collection

from avlab.core.arriving import Incoming
from avlab.wire.units import NS

AFTER_BYE_NS = NS // 10
"""A source may say BYE and another one go on in its place (RFC 3550 8.2)."""

QUIET_NS = NS
"""A BYE over UDP may be lost: so long after the first one, a stream from which nothing comes has ended, too."""


class Ending:
    """Judges by what has come whether more will; asked at each moment that a player is seen to."""

    def __init__(self) -> None:
        self._bye_ns: int | None = None  # when the first stream's BYE was seen
        self.begun = False
        """Whether a stream has said BYE."""
        self._at_ns: int | None = None
        self.over = False
        """Whether all has come that will."""

    def look(self, streams: Collection[Incoming], now_ns: int) -> None:
        """Something may have come, or time has."""
        for each in streams:
            if each.ended:
                break
        else:
            self._bye_ns = self._at_ns = None
            self.begun = self.over = False
            return
        if self._bye_ns is None:
            self._bye_ns, self.begun = now_ns, True
        silent = [each.heard_ns or 0 for each in streams if not each.ended]
        self._at_ns = max(self._bye_ns, *silent) + QUIET_NS if silent else self._bye_ns + AFTER_BYE_NS
        self.over = now_ns >= self._at_ns

    def timer_at(self) -> int | None:
        """When to look again, unless something comes; None before a BYE, and when it is over."""
        return None if self.over else self._at_ns
