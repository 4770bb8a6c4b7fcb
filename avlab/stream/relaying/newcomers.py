"""Who may pass through a relay, and who has to go for it: what anybody can send for nothing keeps nobody out.

Pure: it is told who is there, and answers with whom to part from. Counts are of one relay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Generic, NamedTuple, Protocol, TypeVar

from avlab.stream.places import MOST_WAITING, is_loopback, one_too_many

MAX_SESSIONS = 64
"""Clients with a place: each has sockets of its own."""

MAX_PER_ADDRESS = 16
"""Clients and connections of one address, but for this machine's own."""


class Standing(Enum):
    """How a client came by its place, if it has one."""

    ASKING = "a connection on which no SETUP has passed: it has no place yet"
    UNANSWERED = "it sends datagrams, as anybody can in anybody's name, and the peer has answered none of them"
    SERVED = "the peer has answered it"


class Guest(Protocol):
    """What is asked of a session."""

    host: str
    since_ns: int
    heard_ns: int

    @property
    def standing(self) -> Standing:
        """How it came by its place."""


G = TypeVar("G", bound=Guest)


class Newcomer(NamedTuple, Generic[G]):
    """What is decided about a newcomer: who goes for it, or why it is refused. Either leads to the notice `words`."""

    admitted: bool
    leaves: G | None = None
    words: str = ""


FULL = f"{MAX_SESSIONS} clients pass through the relay, which is the most: others were refused"
CROWDED = f"an address may have {MAX_PER_ADDRESS} clients and connections at the relay: more of them were refused"
MADE_WAY = "clients whose datagrams the peer had not answered made way for others: there is an end to their number"
HUNG_UP = f"of more than {MOST_WAITING} connections on which nothing was set up the oldest were closed"


def room_for_connection(there: Sequence[G], host: str) -> Newcomer[G]:
    """Whether a connection is taken. One that has set up nothing goes for it: the oldest of `host` when that
    has too many, else the oldest of the address that has the most."""
    asking = sorted((guest for guest in there if guest.standing is Standing.ASKING), key=lambda guest: guest.since_ns)
    if _crowded(there, host):
        own = next((guest for guest in asking if guest.host == host), None)
        return Newcomer(own is not None, own, CROWDED)
    leaves = one_too_many([*(guest.host for guest in asking), host])
    return Newcomer(True) if leaves is None else Newcomer(True, asking[leaves], HUNG_UP)


def room_for_datagrams(there: Sequence[G], host: str) -> Newcomer[G]:
    """Whether datagrams from `host` are passed on. Of those unanswered, whoever has been silent longest goes first."""
    if _crowded(there, host):
        own = _longest_silent(guest for guest in there if guest.host == host)
        return Newcomer(own is not None, own, CROWDED)
    return room_for_setup(there)


def room_for_setup(there: Sequence[G]) -> Newcomer[G]:
    """Whether another client can have a place at all."""
    if sum(guest.standing is not Standing.ASKING for guest in there) < MAX_SESSIONS:
        return Newcomer(True)
    leaves = _longest_silent(there)
    return Newcomer(False, None, FULL) if leaves is None else Newcomer(True, leaves, MADE_WAY)


def _crowded(there: Iterable[G], host: str) -> bool:
    return not is_loopback(host) and sum(guest.host == host for guest in there) >= MAX_PER_ADDRESS


def _longest_silent(guests: Iterable[G]) -> G | None:
    unanswered = (guest for guest in guests if guest.standing is Standing.UNANSWERED)
    return min(unanswered, key=lambda guest: guest.heard_ns, default=None)
