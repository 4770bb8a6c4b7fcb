"""Between a sender and its client, the network of that client: its own both ways, whatever carries the bytes.

A driver pushes what its sender has, and is handed what has come through, runs of one batch together. One thread's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Generic, NamedTuple, Protocol, TypeVar

from avlab.core.events import Sent
from avlab.network.impairment import Copy, Impairment, InTransit, Outcome, Part, Seen, seen_in
from avlab.network.settings import Network
from avlab.stream.recording import SenderRecording
from avlab.timing.stage import Dropped
from avlab.wire.batch import Batch

MOST_RISING = 256
"""Datagrams of one client's feedback that are under way in its network; of more, the newest are lost: a client that
floods is not to fill the memory, however long the delay."""

STALL_BYTES = 1 << 20
"""Media for a peer that reads no faster is dropped while this much waits for it; others are not held up."""

_new = tuple.__new__  # a named tuple's own constructor takes twice as long

R = TypeVar("R")
Given = TypeVar("Given", contravariant=True)


class _Parcel(NamedTuple, Generic[R]):
    """A batch on its way through the network to one client."""

    route: R
    sent: Sent | None  # the batch of media that it is; None for RTCP
    data: bytes = b""  # RTCP's


class Carrier(Protocol[Given]):
    """Hands over what has come through a network; `route` is whatever it was pushed with."""

    def hand_over(self, route: Given, event: Sent, now_ns: int, /) -> None:
        """Packets of media: carry them, and write down what became of them."""

    def hand_over_copy(self, route: Given, event: Sent, now_ns: int, /) -> None:
        """A packet that the network has made a second time: carry it. It was never sent, and has no row."""

    def hand_over_rtcp(self, route: Given, data: bytes, now_ns: int, /) -> None:
        """A compound packet of RTCP."""


def upward(network: Network) -> Network:
    """What a network does to feedback on its way up: delay, jitter and loss. The bottleneck is that of the way down."""
    return replace(network, rate=None, bottleneck=None, duplicate=0.0)


def _described(packet: InTransit) -> Seen:
    """What a network of anyone's own is told of a packet: what its bytes say."""
    parcel, first, after = packet.item
    return seen_in(parcel.data if parcel.sent is None else parcel.sent.batch.part(first, after).data)


class Way(Generic[R]):
    """One client's network, down to it and up from it. `client` is its number, by which it draws its chances."""

    def __init__(self, network: Network, *, client: int, carrier: Carrier[R], recording: SenderRecording) -> None:
        self.down = Impairment(network, client=client, describe=_described)
        self.up = Impairment(upward(network), client=client, direction="up")
        self._carrier, self._recording = carrier, recording
        self._rising = 0  # datagrams in `up`

    def become(self, network: Network) -> None:
        """Another network, both ways: it acts on the next packet, and what is under way stays."""
        self.down.network, self.up.network = network, upward(network)

    # ---- what the client is sent

    def push(
        self, route: R, event: Sent | None, batch: Batch, now_ns: int, stream: str, reliable: bool, waiting: int = 0
    ) -> bool:
        """A batch leaves; whether it went in. None is the event of a compound packet of RTCP.

        What is `reliable` is part of a TCP connection, for which `waiting` bytes wait beyond the network: one lane for
        all of it keeps its order, and media that finds too much under way is dropped.
        """
        if event is None:
            lane, parcel = f"{stream} rtcp", _Parcel(route, None, batch.data)
            self.down.push_batch("tcp" if reliable else lane, batch, parcel, now_ns, reliable)
            return True
        down = self.down
        if reliable and waiting + down.reliable_bytes > STALL_BYTES:
            self._recording.sent(event._replace(fate="socket_dropped"))
            return False
        parcel = _new(_Parcel, (route, event, b""))
        down.push_batch("tcp" if reliable else event.lane, batch, parcel, now_ns, reliable)
        return True

    def deliver(self, now_ns: int) -> int | None:
        """Hand over what has come through by now; when more may."""
        outcomes = self.down.pull(now_ns)
        if len(outcomes) == 1 and isinstance(one := outcomes[0], InTransit):  # as most come
            _, _, ((route, sent, data), first, after), _ = one
            if sent is None:
                self._carrier.hand_over_rtcp(route, data, now_ns)
            else:
                if first or after < sent.batch.total:
                    sent = sent.part(first, after)
                self._carrier.hand_over(route, sent, now_ns)
        elif outcomes:
            self._deliver(outcomes, now_ns)
        return self.down.wake_at()

    def _deliver(self, outcomes: Iterable[Outcome], now_ns: int) -> None:
        lost: list[Dropped] = []
        run: _Parcel[R] | None = None  # the packets from `first` to the one before `after`
        first = after = 0
        for outcome in outcomes:
            if isinstance(outcome, Dropped):
                lost.append(outcome)
                continue
            copied = isinstance(outcome, Copy)
            part: Part = outcome.packet.item if isinstance(outcome, Copy) else outcome.item
            parcel: _Parcel[R] = part.item
            if parcel is run and part.first == after and not copied:
                after = part.after
                continue
            if run is not None and run.sent is not None:
                self._carrier.hand_over(run.route, run.sent.part(first, after), now_ns)
            run = None
            if parcel.sent is None:
                self._carrier.hand_over_rtcp(parcel.route, parcel.data, now_ns)
            elif copied:
                self._carrier.hand_over_copy(parcel.route, parcel.sent.part(part.first, part.after), now_ns)
            else:
                run, first, after = parcel, part.first, part.after
        if run is not None and run.sent is not None:
            self._carrier.hand_over(run.route, run.sent.part(first, after), now_ns)
        if lost:
            self._write(lost)

    def close(self) -> None:
        """The client is gone, or the server: what is under way arrives nowhere."""
        self._write(self.down.flush())

    def _write(self, dropped: Iterable[Dropped]) -> None:
        """Write down packets that did not arrive: those next to each other in a batch together."""
        sent: Sent | None = None
        first = after = 0
        reason: str | None = None
        for one in dropped:
            part: Part = one.item.item
            parcel: _Parcel[R] = part.item
            if parcel.sent is None:
                continue
            if parcel.sent is sent and (part.first, one.reason) == (after, reason):
                after = part.after
                continue
            if sent is not None:
                self._recording.sent(sent.part(first, after, reason))
            sent, first, after, reason = parcel.sent, part.first, part.after, one.reason
        if sent is not None:
            self._recording.sent(sent.part(first, after, reason))

    # ---- what it says

    def rise(self, stream: str, data: bytes, now_ns: int) -> bool:
        """Feedback about a stream sets out over UDP; False when too much of it is under way.

        Each stream's draws by itself, as "video rtcp" or "audio rtcp", the names that its reports have on the way down.
        """
        if self._rising >= MOST_RISING:
            return False
        self._rising += 1
        self.up.push(InTransit(f"{stream} rtcp", len(data), data), now_ns)
        return True

    def risen(self, now_ns: int) -> list[bytes]:
        """The feedback that has come through by now."""
        outcomes = self.up.pull(now_ns) if self._rising else []
        self._rising -= len(outcomes)
        return [outcome.item for outcome in outcomes if isinstance(outcome, InTransit)]
