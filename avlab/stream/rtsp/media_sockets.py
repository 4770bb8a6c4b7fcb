"""The UDP sockets that media leaves from: a pair for each stream, at the address that the client has asked.

A server on all addresses binds a pair for each address that is asked, while somebody uses it. A datagram's source could
be chosen for each (IP_PKTINFO), from one socket: but not alike on the three systems, and on Windows not from Python.
"""

from __future__ import annotations

import selectors

from avlab.stream.rtsp.feedback import Feedback
from avlab.stream.sockets.protocols import Datagrams, System

Pair = tuple[Datagrams, Datagrams]

EVERY_ADDRESS = ("0.0.0.0", "::", "")


class MediaSockets:
    """Pairs of sockets, for RTP and RTCP, by stream and local address; what comes to them is `feedback`'s to read."""

    def __init__(self, host: str, feedback: Feedback, system: System) -> None:
        self._host, self._feedback, self._system = host, feedback, system
        self._selector: selectors.BaseSelector  # from `open` on
        self._pairs: dict[tuple[str, str], Pair] = {}
        self._users: dict[tuple[str, str], int] = {}

    def open(self, selector: selectors.BaseSelector, streams: list[str]) -> None:
        """Bind what can be bound before anybody asks. OSError when there are no ports."""
        self._selector = selector
        if self._host not in EVERY_ADDRESS:
            for stream in streams:
                self._bind(stream, self._host)

    def largest(self, most: int) -> int:
        """How many bytes, `most` at most, this system sends in one datagram; `most` where it cannot be tried out."""
        return self._system.largest_datagram(self._host, most)

    def take(self, stream: str, local: str) -> Pair:
        """The pair of a stream for a client that has asked at the address `local`; to be given back.

        OSError when there are no ports or descriptors left.
        """
        key = stream, self._address(local)
        pair = self._pairs.get(key) or self._bind(*key)
        self._users[key] = self._users.get(key, 0) + 1
        return pair

    def give_back(self, stream: str, local: str) -> None:
        """A client uses its pair no more; the last one closes it, unless it is at the server's one address."""
        key = stream, self._address(local)
        self._users[key] -= 1
        if not self._users[key] and self._host in EVERY_ADDRESS:
            del self._users[key]
            for link in self._pairs.pop(key):
                self._feedback.forget(link)
                link.close()

    def close(self) -> None:
        """Close every socket. The selector is to be closed first."""
        for pair in self._pairs.values():
            for link in pair:
                link.close()

    def _address(self, local: str) -> str:
        return local if self._host in EVERY_ADDRESS else self._host

    def _bind(self, stream: str, host: str) -> Pair:
        pair = self._pairs[stream, host] = self._system.udp_pair(host)
        for link in pair:  # a client may send to either: to open a firewall, or reports
            self._feedback.watch(link, self._selector)
        return pair
