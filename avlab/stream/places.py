"""Who is let in: places for sessions, taken by SETUP, and a few connections that have none yet. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from avlab.wire.units import NS

MOST_WAITING = 64
"""Connections without a session."""

REQUEST_NS = 15 * NS
"""How long a connection without a session may go without a complete request."""


@dataclass(frozen=True, slots=True)
class Places:
    """How many sessions there may be: `clients` in all, `per_address` from one address, but for this very machine."""

    clients: int = 256
    per_address: int = 64

    def __post_init__(self) -> None:
        for name, value in (("clients", self.clients), ("clients_per_address", self.per_address)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more, not {value!r:.60}")

    def refusal(self, host: str, sessions: Sequence[str]) -> str | None:
        """Why another session from `host` is refused, given the hosts of those that there are; None: it is not."""
        if len(sessions) >= self.clients:
            return f"All {self.clients} places are taken"
        if not is_loopback(host) and sessions.count(host) >= self.per_address:
            return f"All {self.per_address} places for one address are taken"
        return None


def is_loopback(host: str) -> bool:
    """Whether an address is this very machine's own, also as an IPv4 address mapped into IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def one_too_many(waiting: Sequence[str]) -> int | None:
    """Which of the connections without a session has to go, given their hosts, oldest first; None while there is room.

    The oldest of the address that has the most of them: whoever opens many is the first to lose one.
    """
    if len(waiting) <= MOST_WAITING:
        return None
    counts = Counter(waiting)
    most = max(counts.values())
    return next(at for at, host in enumerate(waiting) if counts[host] == most)
