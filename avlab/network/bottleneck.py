"""One bottleneck that several networks lead through: what any of them sends waits in one queue. Pure but for a lock."""

from __future__ import annotations

import threading

from avlab.wire.text import spelt
from avlab.wire.units import NS


@spelt
class Bottleneck:
    """A bottleneck that streams share: give the same one to each one's network, as `Network(bottleneck=shared)`.

    `rate` is kilobits a second, as `Network.rate` has it, and `queue` seconds of packets that wait before it, 0 to 10;
    a packet that finds more waiting is lost. Bytes of a TCP connection are held back by their sender instead, as its
    window has it, until there is room: none of them is lost, and what others send finds no longer queue for them. More
    than 1 MiB that one client's connection would have to hold back is not sent. Servers, clients and relays of one
    process share it; ValueError for what is out of range.

    Args:
        rate: What passes, in kbit/s, more than 0.
        queue: How long a packet may wait before it, in seconds, 0 to 10.
    """

    def __init__(self, rate: float, *, queue: float = 0.1) -> None:
        from avlab.network.settings import Network  # which knows what a rate and a queue may be

        Network(rate=rate, queue=queue)
        if rate is None:
            raise ValueError("a bottleneck needs a rate in kbit/s")
        self.rate, self.queue = rate, queue
        self._lock = threading.Lock()
        self._free_ns = -(1 << 62)  # when all that has entered will have passed

    def enter(self, size: int, now_ns: int) -> int | None:
        """A packet of so many bytes comes: when it will have passed; None when there is no room for it.

        Args:
            size: Bytes of the packet.
            now_ns: When it comes, in nanoseconds; moments do not go back.
        """
        with self._lock:
            begins_ns = max(now_ns, self._free_ns)
            if begins_ns - now_ns > self.queue * NS:
                return None
            self._free_ns = begins_ns + round(8 * size * 1e6 / self.rate)
            return self._free_ns

    @property
    def room_ns(self) -> int:
        """The first moment at which there is room for a packet, in nanoseconds, unless others come before."""
        with self._lock:
            return self._free_ns - int(self.queue * NS)

    def restart(self) -> None:
        """Nothing waits any more: another run in virtual time begins."""
        with self._lock:
            self._free_ns = -(1 << 62)

    def __reduce__(self) -> str:
        raise TypeError(
            "a bottleneck is shared within one process: make it where the streams are, without isolated=True"
        )

    def __str__(self) -> str:
        return f"shared rate {self.rate:g} kbit/s, queue {1e3 * self.queue:g} ms"

    def __repr__(self) -> str:
        return f"Bottleneck({self.rate!r}, queue={self.queue!r})"
