"""A Stage that does to packets what a network does: loses, delays, reorders, copies them, lets them queue. Pure.

One `Impairment` is one direction of the way to one client. Its streams share the bottleneck, and nothing else.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import repeat, starmap
from math import inf, log1p
from typing import Any, NamedTuple, TypeAlias

from avlab import parts
from avlab.network.ownnetwork import seconds_taken, whether_lost
from avlab.network.settings import Network
from avlab.parts import Call, Dropped, called
from avlab.wire.batch import Batch
from avlab.wire.rtp import HEADER_BYTES, Unwrapper

NS = 1_000_000_000

NEVER = 1 << 62

_new = tuple.__new__  # a named tuple's own constructor takes twice as long


class InTransit(NamedTuple):
    """What is sent: `item` is anyone's own, `size` in bytes. What is `reliable` is part of a TCP connection's bytes."""

    stream: str
    size: int
    item: Any = None
    reliable: bool = False


class Part(NamedTuple):
    """Some of a batch's packets, which fare alike: what `Impairment.push_batch` puts in place of their `item`."""

    item: Any
    """What was handed in for the batch."""
    first: int
    after: int
    """From the packet at `first`, counted from 0, to the one before this."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A packet that the network made a second time."""

    packet: InTransit


Outcome: TypeAlias = InTransit | Copy | Dropped
"""What leaves: a packet, a copy of one, or `Dropped(packet, "lost")`."""

_Arrival: TypeAlias = list[Any]
"""When what leaves does, its number, by which those of one moment are in order, and the `Outcome`."""


class Seen(NamedTuple):
    """What anyone's own loss or delay is told of a packet, as far as whoever sends it knows."""

    number: int | None = None
    """Its sequence number, wrapped or not; None: packets are counted."""
    timestamp: int = 0
    marker: bool = False
    payload: bytes = b""


Describe: TypeAlias = Callable[[InTransit], Seen]


def seen_in(data: bytes) -> Seen:
    """What the bytes of an RTP packet tell (RFC 3550 5.1), interleaved or not; nothing of what is none."""
    if data[:1] == b"$":  # RFC 2326 10.12
        data = data[4:]
    if len(data) < HEADER_BYTES or data[0] >> 6 != 2 or 192 <= data[1] <= 223:  # the latter are RTCP's types
        return Seen(payload=bytes(data))
    start = HEADER_BYTES + 4 * (data[0] & 0x0F)
    number, timestamp = int.from_bytes(data[2:4]), int.from_bytes(data[4:8])
    return Seen(number, timestamp, bool(data[1] & 0x80), bytes(data[start:]))


def _seen(packet: InTransit) -> Seen:
    """What can be told of a packet of whose item nothing else is known: that it is bytes, or has some."""
    data = packet.item if isinstance(packet.item, bytes) else getattr(packet.item, "data", b"")
    return seen_in(data) if isinstance(data, bytes) else Seen()


class _Queued(NamedTuple):
    """A packet before the bottleneck, as `InTransit` has it, and what has been drawn for it."""

    stream: str
    size: int
    item: Any
    reliable: bool
    at: int | None  # its place in the batch that was pushed with the item; None: it is the packet's own
    lost: bool
    jitter: float
    copied: float
    copys_jitter: float
    delay_ns: int | None  # its own; None: what the network's settings say when it is forwarded

    @property
    def packet(self) -> InTransit:
        """What leaves."""
        stream, size, item, reliable, at, *_ = self
        return InTransit(stream, size, item if at is None else Part(item, at, at + 1), reliable)


class _Lane:
    """What one stream remembers from packet to packet."""

    __slots__ = (
        "_marked",
        "_number",
        "_numbers",
        "_ticks",
        "_timestamp",
        "bad",
        "chance",
        "drained_ns",
        "draw",
        "newest_ns",
        "state",
    )

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.draw = chance, chance.random
        self.state: dict[Any, Any] = {}  # that of anyone's own loss and delay
        self._numbers, self._ticks = Unwrapper(16), Unwrapper(32)
        self._number = -1  # of the newest packet
        self._timestamp: int | None = None
        self._marked = True  # whether a frame ended with it
        self.bad: bool | None = None  # Gilbert's state; None before the first packet
        self.drained_ns = 0  # when the queue that jitter stands for is empty
        self.newest_ns = 0  # the latest arrival

    def packet(self, item: InTransit, seen: Seen, time: float, chance: float) -> parts.Packet:
        """The next packet, as anyone's own loss and delay see it."""
        self._number = self._number + 1 if seen.number is None else self._numbers(seen.number)
        timestamp = self._ticks(seen.timestamp)
        first = self._marked or timestamp != self._timestamp
        self._timestamp, self._marked = timestamp, seen.marker
        return parts.Packet(
            self._number, timestamp, time, item.size, item.stream, first, seen.marker, seen.payload, None, chance
        )

    def loses(self, p: float, network: Network, draw: float) -> bool:
        """Whether the next packet is lost, by a draw from 0 to 1: each state's chance of the bad one as the next."""
        if not 0 < p < 1:
            self.bad = p == 1
            return self.bad
        if self.bad is None:
            chance = p
        else:
            length = max(network.burst, 1 / (1 - p))
            chance = 1 - 1 / length if self.bad else p / (length * (1 - p))
        self.bad = draw < chance
        return self.bad

    def losses(self, p: float, network: Network, draws: list[float]) -> Sequence[bool]:
        """As `loses`, of packets that are sent together; empty where nothing is ever lost."""
        if not p:
            self.bad = False
            return ()
        if self.bad is None or p >= 1:
            return [self.loses(p, network, draw) for draw in draws]
        length = max(network.burst, 1 / (1 - p))
        stays, comes, bad = 1 - 1 / length, p / (length * (1 - p)), self.bad
        out = [bad := draw < (stays if bad else comes) for draw in draws]
        self.bad = bad
        return out

    def wait_ns(self, mean: float, draw: float, now_ns: int) -> int:
        """Jitter without reordering: what is left of the queue met before, or a new one when that has drained.

        The time in a new one is exponentially distributed, of this mean in seconds.
        """
        if now_ns < self.drained_ns:
            return self.drained_ns - now_ns
        wait_ns = round(-mean * NS * log1p(-draw))
        self.drained_ns = now_ns + wait_ns
        return wait_ns


class Impairment:
    """A network, for one client and one direction. Packets go in with `push` and come out of `pull` when they arrive.

    `network` may be replaced at any time, from any thread: it acts on the next packet, and what is under way stays.
    Every packet takes the same number of draws from its stream's generator whatever the settings are, so changing one
    of them shifts nothing of the others: a packet that is lost at 1 % is lost at 2 %, too. The generators are made from
    the seed, the stream's name, `client` (a number) and `direction`.

    The order of things: the bottleneck's queue, which loses what it has no room for; the bottleneck; loss, delay and
    jitter on the way behind it; duplication.

    A loss or delay that is anyone's own function is asked when a packet is sent, by `call`. It sees what `describe`
    tells of a packet; without it, what the bytes tell where there are any. One that fails raises PartError out of
    `push`: whoever streams live hands in a network that is `kept_going`.
    """

    def __init__(
        self,
        network: Network | None = None,
        *,
        client: int = 0,
        direction: str = "down",
        describe: Describe = _seen,
        call: Call = called,
    ) -> None:
        self.network = network or Network()
        self._describe, self._call = describe, call
        self._began_ns: int | None = None  # when the first packet was sent
        self._whose = f"{client} {direction}"
        self._use(self.network)
        self._lanes: dict[str, _Lane] = {}
        self._queue: deque[_Queued] = deque()  # in front of it the packet that the bottleneck is at
        self._bits = 0  # of all in the queue
        self._since_ns = 0  # when the bottleneck began with the first of them
        self._departs_ns = NEVER  # when that leaves it
        self._held: deque[_Queued] = deque()  # what a TCP sender keeps back until the queue, or a shared one, has room
        self._arriving: list[_Arrival] = []
        self._newest: _Arrival | None = None  # the newest of those, where packets that follow may yet come with it
        self._count = 0
        self.reliable_bytes = 0
        """Bytes of TCP connections under way: whoever pushes them bounds them."""

    def backlog_ns(self, now_ns: int) -> int:
        """How long a packet that came now would wait before the bottleneck."""
        return max(0, self._queue_ends_ns() - now_ns) if self._queue else 0

    def push(self, item: InTransit, now_ns: int, /) -> None:
        """A packet is sent."""
        if self._departs_ns <= now_ns or self._held:
            self._move_along(now_ns)
        self._take(item, now_ns)

    def _take(self, item: InTransit, now_ns: int) -> None:
        """A packet is sent, and what had happened at the bottleneck before is known."""
        network = self.network
        if network is not self._in_use:
            self._adopt(network, now_ns)
        lane = self._lane(item.stream)
        draw = lane.draw
        chance, delay_ns = draw(), None
        loss = network.loss
        if callable(loss) or callable(network.delay):
            lost, delay_ns = self._asked(network, lane, item, chance, now_ns)
        else:
            lost = lane.loses(loss, network, chance) and not item.reliable
        queued = _Queued(*item, None, lost, draw(), draw(), draw(), delay_ns)
        if item.reliable:
            self.reliable_bytes += item.size
        if network.bottleneck is not None and not self._queue:
            waits = item.reliable and bool(self._held)
            passed_ns = None if waits else network.bottleneck.enter(item.size, now_ns)
            if passed_ns is not None:
                self._forward([(queued, passed_ns)])
            elif item.reliable:
                self._held.append(queued)
            else:
                self._arrive(now_ns, Dropped(item, "lost"))
        elif network.rate is None and not self._queue:
            self._forward([(queued, now_ns)])
        elif not self._queue:
            self._since_ns = now_ns
            self._enter(queued)
        elif item.reliable:
            self._held.append(queued)
        elif self.backlog_ns(now_ns) <= network.queue * NS:
            self._enter(queued)
        else:
            self._arrive(now_ns, Dropped(item, "lost"))
        if self._queue and (self._held or self._departs_ns <= now_ns):
            self._move_along(now_ns)

    def push_batch(self, stream: str, batch: Batch, item: Any, now_ns: int, reliable: bool = False, /) -> None:
        """Packets are sent together: each fares as if it were pushed by itself.

        What leaves has a `Part` of `item` in place of an item, and those next to each other that fare alike leave as
        one `InTransit`, or one that was dropped.
        """
        network = self.network
        if network is not self._in_use:
            self._adopt(network, now_ns)
        if self._limited or self._each:
            if self._departs_ns <= now_ns or self._held:
                self._move_along(now_ns)
            if not self._each:
                self._queue_up(stream, batch, item, now_ns, reliable)
                return
            for at in range(batch.total):
                each = batch.size if at < batch.total - 1 else batch.last
                self._take(_new(InTransit, (stream, each, _new(Part, (item, at, at + 1)), reliable)), now_ns)
            return
        loss, count = self._loss, batch.total
        lane = self._lanes.get(stream) or self._lane(stream)
        jitter = network.jitter
        # For each: its loss, its jitter, its copy, that one's jitter.
        draws = list(starmap(lane.draw, repeat((), 4 * count)))
        least_ns = now_ns + self._delay_ns
        if reliable:
            self.reliable_bytes += batch.length
        wait_ns = lane.wait_ns(jitter, draws[1], now_ns) if jitter else 0
        if (wait_ns or not jitter) and (reliable or self._in_step):  # the queue that one meets is met by all
            at_ns, newest_ns = least_ns + wait_ns, lane.newest_ns
            if at_ns > newest_ns:
                lane.newest_ns = at_ns
            else:
                at_ns = newest_ns
            fates = () if reliable else lane.losses(loss, network, draws[::4])
            if True not in fates:
                self._arrive(at_ns, _new(InTransit, (stream, batch.length, _new(Part, (item, 0, count)), reliable)))
            else:
                if False not in fates:
                    lane.newest_ns = newest_ns
                self._fare_apart(stream, batch, item, fates, now_ns, at_ns)
            return
        overtaking, duplicate = network.reorder and not reliable, network.duplicate
        first, since_ns, since_lost = 0, 0, False  # of the packets that fare alike so far
        for at in range(count):
            chance, jitters, copied, copys_jitter = draws[4 * at : 4 * at + 4]
            lost = not reliable and lane.loses(loss, network, chance)
            if at and jitter:
                wait_ns = lane.wait_ns(jitter, jitters, now_ns)
            if lost:
                at_ns = now_ns
            else:
                if overtaking:
                    at_ns = least_ns + _exponential_ns(jitter, jitters)
                else:
                    at_ns = max(least_ns + wait_ns, lane.newest_ns)
                lane.newest_ns = max(lane.newest_ns, at_ns)
            if first == at:
                since_ns, since_lost = at_ns, lost
            elif at_ns != since_ns or lost is not since_lost:
                self._arrive_together(stream, batch, Part(item, first, at), reliable, since_ns, since_lost)
                first, since_ns, since_lost = at, at_ns, lost
            if not lost and copied < duplicate and not reliable:
                self._arrive_together(stream, batch, Part(item, first, at + 1), reliable, at_ns, False)
                copy_ns = least_ns + _exponential_ns(jitter, copys_jitter) if overtaking else at_ns
                one = InTransit(stream, batch.size if at < count - 1 else batch.last, Part(item, at, at + 1))
                self._arrive(max(copy_ns, at_ns), Copy(one))  # the packet itself comes first
                first = at + 1
        self._arrive_together(stream, batch, Part(item, first, count), reliable, since_ns, since_lost)

    def _queue_up(self, stream: str, batch: Batch, item: Any, now_ns: int, reliable: bool) -> None:
        """Packets that are sent together come to a bottleneck of the network's own: as `_take` for each."""
        network, queue, held = self._in_use, self._queue, self._held
        lane = self._lanes.get(stream) or self._lane(stream)
        count, size, last = batch.total, batch.size, batch.last
        draws = list(starmap(lane.draw, repeat((), 4 * count)))  # as in `push_batch`
        lost = lane.losses(self._loss, network, draws[::4]) if not reliable else ()
        rate, longest_ns = self._rate, network.queue * NS
        if reliable:
            self.reliable_bytes += batch.length
        drawn = zip(lost or repeat(False), draws[1::4], draws[2::4], draws[3::4], strict=False)
        for at, (gone, jitter, copied, copys_jitter) in enumerate(drawn):
            each = size if at < count - 1 else last
            queued = _new(_Queued, (stream, each, item, reliable, at, gone, jitter, copied, copys_jitter, None))
            if not queue:
                self._since_ns = now_ns
                self._enter(queued)
            elif reliable and (held or self._room_ns() > now_ns):
                held.append(queued)
            elif reliable or self._since_ns + round(self._bits * 1e6 / rate) - now_ns <= longest_ns:
                queue.append(queued)
                self._bits += 8 * each
            else:
                self._arrive(now_ns, Dropped(queued.packet, "lost"))
            if self._departs_ns <= now_ns:
                self._move_along(now_ns)

    def _fare_apart(self, stream: str, batch: Batch, item: Any, lost: Sequence[bool], now_ns: int, at_ns: int) -> None:
        """Of a batch some are lost, and all that are not arrive at one moment."""
        first, count = 0, len(lost)
        for at in range(1, count + 1):
            if at == count or lost[at] is not lost[first]:
                arrives_ns = now_ns if lost[first] else at_ns
                self._arrive_together(stream, batch, Part(item, first, at), False, arrives_ns, lost[first])
                first = at

    def _arrive_together(self, stream: str, batch: Batch, part: Part, reliable: bool, at_ns: int, lost: bool) -> None:
        if part.first == part.after:
            return
        size = min(batch.length, part.after * batch.size) - part.first * batch.size
        packet = InTransit(stream, size, part, reliable)
        self._arrive(at_ns, Dropped(packet, "lost") if lost else packet)

    def wake_at(self) -> int | None:
        """When the next packet arrives or is lost, or may arrive, of those before the bottleneck."""
        arriving = self._arriving
        arrives_ns = arriving[0][0] if arriving else None
        if self._queue:
            may_ns = self._departs_ns + self._delay_ns
        elif self._held and self._in_use.bottleneck is not None:
            may_ns = self._in_use.bottleneck.room_ns
        else:
            return arrives_ns
        return may_ns if arrives_ns is None else min(arrives_ns, may_ns)

    def pull(self, now_ns: int, /) -> list[Outcome]:
        """What has arrived by now, in order of arrival, and what was lost."""
        if self._departs_ns <= now_ns or self._held:
            self._move_along(now_ns)
        arriving = self._arriving
        out: list[Outcome] = []
        while arriving and arriving[0][0] <= now_ns:
            arrival = heappop(arriving)
            outcome = arrival[2]
            if arrival is self._newest:
                self._newest = None
            if type(outcome) is InTransit:
                _, size, _, reliable = outcome
                if reliable:
                    self.reliable_bytes -= size
            out.append(outcome)
        return out

    def flush(self) -> list[Dropped]:
        """At the end: what is under way, as in flight; what is known to be lost, as lost. Copies vanish."""
        left: list[Outcome] = [outcome for _, _, outcome in sorted(self._arriving)]
        left += [Dropped(queued.packet, "lost") if queued.lost else queued.packet for queued in self._queue]
        left += [queued.packet for queued in self._held]
        self._arriving.clear()
        self._newest = None
        self._queue.clear()
        self._departs_ns = NEVER
        self._held.clear()
        self._bits = self.reliable_bytes = 0
        kept = (outcome for outcome in left if not isinstance(outcome, Copy))
        return [outcome if isinstance(outcome, Dropped) else Dropped(outcome, "in_flight") for outcome in kept]

    # ---- anyone's own loss and delay

    def _asked(
        self, network: Network, lane: _Lane, item: InTransit, chance: float, now_ns: int
    ) -> tuple[bool, int | None]:
        """Whether a packet is lost, and its own delay, where functions decide; what is no function's, as ever."""
        if self._began_ns is None:
            self._began_ns = now_ns
        packet = lane.packet(item, self._describe(item), (now_ns - self._began_ns) / NS, chance)
        loss, delay = network.loss, network.delay
        if not callable(loss):
            lost = lane.loses(loss, network, chance) and not item.reliable
        else:  # what is part of a TCP connection is sent until it comes
            lost = not item.reliable and whether_lost(loss, packet, lane.state, self._call)
        if not callable(delay):
            return lost, None
        return lost, round(seconds_taken(delay, packet, lane.state, self._call) * NS)

    def _forget_for_others(self, before: Network, network: Network) -> None:
        """Other functions begin with nothing remembered."""
        for old, new in ((before.loss, network.loss), (before.delay, network.delay)):
            if callable(new) and new != old:
                for lane in self._lanes.values():
                    lane.state = {}

    # ---- the settings

    def _lane(self, stream: str) -> _Lane:
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = _Lane(self._generator(stream))
        return lane

    def _generator(self, stream: str) -> random.Random:
        return random.Random(f"{self._in_use.seed} {stream} {self._whose}")

    def _use(self, network: Network) -> None:
        self._in_use = network
        self._delay_ns = round(network.steady_delay * NS)
        # Packets that are sent together fare each by itself: before a bottleneck of its own, or in every way.
        self._limited = network.rate is not None
        self._rate = inf if network.rate is None else network.rate
        self._each = network.bottleneck is not None or callable(network.delay) or callable(network.loss)
        self._loss = 0.0 if callable(network.loss) else network.loss
        self._in_step = not network.reorder and not network.duplicate  # they arrive in order, and none twice

    def _adopt(self, network: Network, now_ns: int) -> None:
        before = self._in_use
        self._use(network)
        self._forget_for_others(before, network)
        if network.seed != before.seed:
            for stream, lane in self._lanes.items():
                lane.chance = self._generator(stream)
                lane.draw = lane.chance.random
        if self._queue:  # what is left of the first packet passes at the new rate
            bits = 8 * self._queue[0].size
            done = min(1.0, (now_ns - self._since_ns) / max(1, _transfer_ns(bits, before.rate)))
            self._since_ns = now_ns - round(done * _transfer_ns(bits, network.rate))
            self._begin_with_first()
            self._move_along(now_ns)
        elif self._held:
            self._since_ns = now_ns
            self._move_along(now_ns)

    # ---- the bottleneck

    def _move_along(self, now_ns: int) -> None:
        """Everything that has happened at the bottleneck by now."""
        shared, rate = self._in_use.bottleneck, self._rate
        queue, held = self._queue, self._held
        passed: list[tuple[_Queued, int]] = []
        while True:
            while held and shared is None and (not queue or self._room_ns() <= now_ns):
                self._enter(held.popleft())
            departs_ns = self._departs_ns
            if departs_ns > now_ns or not queue:
                break
            queued = queue.popleft()
            passed.append((queued, departs_ns))
            self._bits -= 8 * queued[1]
            self._since_ns = departs_ns
            self._departs_ns = departs_ns + round(8 * queue[0][1] * 1e6 / rate) if queue else NEVER
        if passed:
            self._forward(passed)
        while held and shared is not None:
            passed_ns = shared.enter(held[0].size, now_ns)
            if passed_ns is None:
                return
            self._forward([(held.popleft(), passed_ns)])

    def _enter(self, queued: _Queued) -> None:
        self._queue.append(queued)
        self._bits += 8 * queued.size
        if len(self._queue) == 1:
            self._begin_with_first()

    def _begin_with_first(self) -> None:
        """The bottleneck is at the first packet of the queue, since `_since_ns`."""
        self._departs_ns = self._since_ns + _transfer_ns(8 * self._queue[0].size, self._in_use.rate)

    def _queue_ends_ns(self) -> int:
        return self._since_ns + _transfer_ns(self._bits, self._in_use.rate)

    def _room_ns(self) -> int:
        return self._queue_ends_ns() - round(self._in_use.queue * NS)

    # ---- the way behind it

    def _forward(self, passed: list[tuple[_Queued, int]]) -> None:
        """Packets have passed the bottleneck, each at a moment, in their order."""
        network, lanes, steady_ns, in_step = self._in_use, self._lanes, self._delay_ns, self._in_step
        jitter = network.jitter
        for queued, now_ns in passed:
            stream, size, item, reliable, at, lost, draw, copied, copys_draw, own_ns = queued
            lane = lanes[stream]
            # Before it is lost: another loss is not to give those after it another jitter.
            wait_ns = lane.wait_ns(jitter, draw, now_ns) if jitter else 0
            if lost:
                self._arrive(now_ns, Dropped(queued.packet, "lost"))
                continue
            least_ns = now_ns + (steady_ns if own_ns is None else own_ns)
            overtakes = network.reorder and not reliable
            at_ns = least_ns + (_exponential_ns(jitter, draw) if overtakes else wait_ns)
            if at_ns > lane.newest_ns:
                lane.newest_ns = at_ns
            elif not overtakes:  # a delay that has just become shorter does not let it overtake those before it
                at_ns = lane.newest_ns
            if in_step and at:  # most come with those that were sent before them
                newest = self._newest
                if newest is not None and newest[0] == at_ns and type(newest[2]) is InTransit:
                    _, size_before, part, _ = newest[2]
                    if type(part) is Part and part[0] is item and part[2] == at:
                        part = _new(Part, (item, part[1], at + 1))
                        newest[2] = _new(InTransit, (stream, size_before + size, part, reliable))
                        continue
            self._arrive(at_ns, queued.packet)
            if copied < network.duplicate and not reliable:
                copy_ns = least_ns + _exponential_ns(jitter, copys_draw) if overtakes else at_ns
                self._arrive(max(copy_ns, at_ns), Copy(queued.packet))  # the packet itself comes first

    def _arrive(self, at_ns: int, outcome: Outcome) -> None:
        self._count = number = self._count + 1
        self._newest = arrival = [at_ns, number, outcome]
        heappush(self._arriving, arrival)


def _transfer_ns(bits: int, rate: float | None) -> int:
    return 0 if rate is None else round(bits * 1e6 / rate)


def _exponential_ns(mean: float, draw: float) -> int:
    """An exponentially distributed time in ns, its mean in seconds, from a draw of 0 to 1."""
    return round(-mean * NS * log1p(-draw))
