"""What the machines tell: events, in the order in which they happened, and the paths that bytes take. Pure.

Times are integer nanoseconds of the clock that the machine's driver hands in.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from avlab.wire.batch import Batch


class Path(NamedTuple):
    """One way of a stream's bytes between the two ends; how it is carried is the driver's affair."""

    stream: str
    """video or audio."""
    control: bool
    """Whether it is RTCP's; else RTP's."""


# ---- a sender's


class Sent(NamedTuple):
    """Packets of one source left the sender, one batch of `outgoing`: their `Sent` come in the same order as those."""

    time_ns: int
    stream: str
    ssrc: int
    number: int
    """The first packet's sequence number, which does not wrap; those of the others follow on it."""
    batch: Batch
    repair: str = ""
    """Empty for media, "fec" for parity among it, "rtx" for packets sent again."""
    fate: str | None = None
    """None from the sender. A driver knows more: "lost" in a network of its own, "socket_dropped", "in_flight"."""

    @property
    def lane(self) -> str:
        """What an impairment draws its chances by: what repairs has lanes of its own and shifts no loss."""
        return f"{self.stream} {self.repair}" if self.repair else self.stream

    def part(self, first: int, after: int, fate: str | None = None) -> Sent:
        """The packets from `first` to the one before `after`, counted from 0, and what became of them."""
        return self._replace(number=self.number + first, batch=self.batch.part(first, after), fate=fate)


class Reported(NamedTuple):
    """A receiver report about one of the sender's streams came, whether it is believed or not."""

    time_ns: int
    stream: str
    ssrc: int
    loss: float
    """Share of packets lost since the receiver's last report, 0 to 1."""
    lost: int
    """Packets lost since the beginning, less duplicates."""
    jitter_ns: int
    """Mean deviation of the packets' spacing (RFC 3550 6.4.1)."""
    round_trip_ns: int | None
    """None when the report answers to no sender report, or to one that cannot have been heard."""
    kbps: float | None
    """What was sent of the stream since the last report, in kilobits a second; None for the first report."""
    doubt: str | None
    """Why it cannot be true, in a few words; None when it can."""


class Doubted(NamedTuple):
    """A report could not be true, for the first time of a stream to which packets have been sent."""

    time_ns: int
    stream: str
    ssrc: int
    doubt: str
    """Why, in a few words."""


SenderEvent: TypeAlias = Sent | Reported | Doubted
