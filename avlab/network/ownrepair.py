"""Repairs of anyone's own: what goes beside a frame at a server, what comes back of it at a client. Pure.

Payloads of a repair travel in an RTP stream of their own, with the frame's timestamp. Before each are four numbers of
16 bits: the sequence number of the frame's first packet, how many packets it has, which of its repair payloads this
is, and how many of those there are. A repair that fails is told of, and used no more.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from avlab.parts import Call, Missing, PartError, called, missing_methods, named, number, shown
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, REPAIR_BYTES, Packed, RtpPacket, serialize_header
from avlab.wire.units import WireError

T = TypeVar("T")

HEAD = struct.Struct("!HHHH")
"""Base number, count, index, and of how many."""

MOST_REPAIRS = 256
"""Repair payloads of one frame."""

MOST_PACKETS = 4_096
"""Packets of one frame that is protected, and payloads that a client keeps."""

MOST_GROUPS = 64
"""Frames whose repair a client keeps while something of them is missing."""

MOST_OFFERED = 8
"""Repairs that a server offers: each has a payload type of its own."""

TAKEN = ("rtx", "fec", "ulpfec", "red")
"""Names that are those of repairs which everybody has."""

METHODS = ("protect", "recover", "ask")


class OwnRepair:
    """A repair's class as it was handed in, how it is called, and who is told when it fails.

    TypeError or ValueError, in a sentence, for what is no repair's class. Without `failed`, PartError is raised.
    """

    def __init__(self, part: Any, *, call: Call = called, failed: Callable[[PartError], None] | None = None) -> None:
        if not isinstance(part, type):
            raise TypeError(f"a repair of one's own is handed in as a class, not as {shown(part)}")
        self.part, self.call, self.failed = part, call, failed
        self.said = f"the repair {named(part)}"
        name = getattr(part, "name", None)
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}", name):
            raise ValueError(f"{self.said}: its name must be up to 32 letters, digits and hyphens, not {shown(name)}")
        self.name = name.lower()
        """As it is said in a description, where case makes no difference."""
        if self.name in TAKEN:
            raise ValueError(f"{self.said}: its name must be another than {name!r}, which everybody knows as a repair")
        missing = missing_methods(part, METHODS)
        if len(missing) == len(METHODS):
            raise TypeError(f"{self.said} has neither protect, recover nor ask: one of them at least")
        self.has = tuple(method for method in METHODS if method not in missing)
        self.protects, self.recovers, self.asks = (method in self.has for method in METHODS)

    def begin(self) -> Working:
        """One object of it, for a stream and a run."""
        return Working(self)


class Working:
    """One object of a repair at work: what it returns is looked at, and after a failure it is asked no more."""

    def __init__(self, own: OwnRepair) -> None:
        self.own = own
        self.broken = False
        self._at: Any = None

    def protect(self, payloads: Sequence[bytes], most: int) -> list[bytes]:
        """The payloads to send beside those of a frame, of `most` bytes each at the most; none after a failure."""

        def ask() -> list[bytes]:
            given = self._called("protect", list(payloads))
            if not isinstance(given, list | tuple) or len(given) > MOST_REPAIRS:
                raise PartError(
                    f"{self.own.said}: protect() of {len(payloads)} payloads returned {shown(given)}: it must be a "
                    f"list of bytes, {MOST_REPAIRS} of them at the most"
                )
            for each in given:
                if not isinstance(each, bytes | bytearray | memoryview):
                    raise PartError(f"{self.own.said}: protect() gave {shown(each)} as a payload: it must be bytes")
                if not 1 <= len(each) <= most:
                    raise PartError(
                        f"{self.own.said}: protect() gave a payload of {len(each):,} bytes: from 1 to {most:,} fit a "
                        "packet"
                    )
            return [bytes(each) for each in given]

        return self._guarded(ask, [])

    def recover(self, payloads: Sequence[bytes | None], repairs: Sequence[bytes | None]) -> list[bytes | None]:
        """The payloads again, with those that could be brought back; as they were after a failure."""

        def ask() -> list[bytes | None]:
            given = self._called("recover", list(payloads), list(repairs))
            if not isinstance(given, list | tuple) or len(given) != len(payloads):
                raise PartError(
                    f"{self.own.said}: recover() of {len(payloads)} payloads returned {shown(given)}: it must be a "
                    "list of as many"
                )
            out: list[bytes | None] = []
            for before, each in zip(payloads, given, strict=True):
                if each is not None and (not isinstance(each, bytes | bytearray | memoryview) or not len(each)):
                    raise PartError(
                        f"{self.own.said}: recover() gave {shown(each)} for a payload: it must be bytes, or None"
                    )
                if before is not None and (each is None or bytes(each) != before):
                    raise PartError(f"{self.own.said}: recover() changed a payload that was not lost")
                out.append(None if each is None else bytes(each))
            return out

        return self._guarded(ask, list(payloads))

    def ask(self, missing: Sequence[Missing], now: float) -> list[int] | None:
        """The numbers to ask for again now; None after a failure."""

        def ask() -> list[int] | None:
            given = self._called("ask", list(missing), now)
            if not isinstance(given, list | tuple | set | frozenset):
                raise PartError(
                    f"{self.own.said}: ask() returned {shown(given)}: it must be a list of numbers, empty if there are "
                    "none"
                )
            known = {lost.number for lost in missing}
            out: dict[int, None] = {}
            for each in given:
                if number(each) is None or each not in known:
                    raise PartError(f"{self.own.said}: ask() asks for {shown(each)}, which is not missing")
                out[int(each)] = None
            return sorted(out)

        return self._guarded(ask, None)

    def _called(self, method: str, *arguments: Any) -> Any:
        own = self.own
        if self._at is None:
            at = own.call(own.said, own.part)
            if missing := missing_methods(at, own.has):
                raise PartError(f"{own.said} has no method {missing[0]} any more, once it is made")
            self._at = at
        return own.call(own.said, getattr(self._at, method), *arguments)

    def _guarded(self, ask: Callable[[], T], otherwise: T) -> T:
        if self.broken:
            return otherwise
        try:
            return ask()
        except PartError as error:
            if self.own.failed is None:
                raise
            self.broken = True
            self.own.failed(error)
            return otherwise


# ---- the sender


class Protection:
    """A repair at a server: what goes beside each frame is made once for all clients, when the first one needs it."""

    def __init__(self, own: OwnRepair) -> None:
        self.own, self.name = own, own.name
        self._working = own.begin()
        self._made: dict[int, tuple[Packed, list[bytes]]] = {}  # of the newest frame, cut in as many ways as there are

    def restart(self) -> None:
        """The stream begins again: another object, unless this one has failed."""
        self._made.clear()
        if not self._working.broken:
            self._working = self.own.begin()

    def of(self, packed: Packed) -> list[bytes]:
        """The repair payloads of a frame."""
        made = self._made.get(id(packed))
        if made is None or made[0] is not packed:
            if len(self._made) >= 4:
                self._made.clear()
            batch = packed.batch
            payloads = list(packed.payloads)
            most = max(MAX_PACKET, batch.size + REPAIR_BYTES) - HEADER_BYTES - HEAD.size
            few = 0 < len(payloads) <= MOST_PACKETS
            made = self._made[id(packed)] = packed, self._working.protect(payloads, most) if few else []
        return made[1]


class RepairSender:
    """One client's stream of a repair: `ssrc`, `payload_type` and the 16-bit `sequence` of its first packet."""

    def __init__(self, protection: Protection, *, ssrc: int, payload_type: int, sequence: int) -> None:
        self.ssrc, self.payload_type, self.name = ssrc, payload_type, protection.name
        self.number = sequence
        """That of the next packet that leaves; it does not wrap."""
        self._next = sequence  # that of the next packet made
        self._protection = protection

    def packets(self, packed: Packed, *, base: int, timestamp: int) -> list[bytes]:
        """The packets that go beside a frame, which has its first one numbered `base` (16 bits) and this timestamp."""
        payloads, count = self._protection.of(packed), packed.batch.total
        out = []
        for index, payload in enumerate(payloads):
            head = HEAD.pack(base & 0xFFFF, count, index, len(payloads))
            last = index == len(payloads) - 1
            header = serialize_header(self.payload_type, self._next & 0xFFFF, timestamp, self.ssrc, last)
            out.append(header + head + payload)
            self._next += 1
        return out


# ---- the receiver


class Recovered(NamedTuple):
    """A payload that was lost, and is here now."""

    number: int
    """Its packet's, unwrapped."""
    timestamp: int
    """32 bits."""
    marker: bool
    payload: bytes


@dataclass(slots=True)
class _Group:
    """A frame of which something is missing, and its repair as far as it came."""

    count: int
    timestamp: int
    repairs: list[bytes | None] = field(default_factory=list)


class RepairReceiver:
    """Brings back payloads of one stream by a repair of anyone's own.

    `media` takes each of the stream's payloads by its unwrapped number, `repair` each packet of the repair's stream.
    `ssrc` is the repair's source, learnt from its first packet when the session did not say it.
    """

    def __init__(self, working: Working, *, payload_type: int, ssrc: int | None = None) -> None:
        self.payload_type, self.ssrc = payload_type, ssrc
        self._working = working
        self._payloads: dict[int, bytes] = {}
        self._groups: dict[int, _Group] = {}  # by the number of the first packet

    def takes(self, packet: RtpPacket) -> bool:
        """Whether a packet is one of the repair's."""
        return packet.payload_type == self.payload_type and self.ssrc in (None, packet.ssrc)

    def media(self, number: int, payload: bytes) -> list[Recovered]:
        """A payload of the stream came; what it brings back of others."""
        self._payloads[number] = payload
        if len(self._payloads) > MOST_PACKETS:
            del self._payloads[next(iter(self._payloads))]
        out: list[Recovered] = []
        for first, group in list(self._groups.items()):
            if first <= number < first + group.count:
                out += self._recover(first, group)
        return out

    def repair(self, packet: RtpPacket, unwrap: Callable[[int], int]) -> list[Recovered]:
        """A packet of the repair came; what it brings back. WireError when it is not what it should be.

        `unwrap` gives a 16-bit number of the stream its whole one.
        """
        if len(packet.payload) <= HEAD.size:
            raise WireError(f"A repair packet has more than {HEAD.size} bytes; this has {len(packet.payload)}.")
        base, count, index, of = HEAD.unpack_from(packet.payload)
        if not (1 <= count <= MOST_PACKETS and index < of <= MOST_REPAIRS):
            raise WireError(f"A repair packet says that it is number {index} of {of}, for {count} packets.")
        first = unwrap(base)
        self.ssrc = packet.ssrc
        group = self._groups.get(first)
        if group is None:
            if all(number in self._payloads for number in range(first, first + count)):
                return []
            group = self._groups[first] = _Group(count, packet.timestamp, [None] * of)
            if len(self._groups) > MOST_GROUPS:
                del self._groups[next(iter(self._groups))]
        elif (group.count, group.timestamp, len(group.repairs)) != (count, packet.timestamp, of):
            raise WireError("A repair packet says of its frame another thing than the one before it.")
        group.repairs[index] = packet.payload[HEAD.size :]
        return self._recover(first, group)

    def _recover(self, first: int, group: _Group) -> list[Recovered]:
        payloads = [self._payloads.get(first + at) for at in range(group.count)]
        if None not in payloads:
            del self._groups[first]
            return []
        back = self._working.recover(payloads, group.repairs)
        out = []
        for at, (before, payload) in enumerate(zip(payloads, back, strict=True)):
            if before is None and payload is not None:
                self._payloads[first + at] = payload
                out.append(Recovered(first + at, group.timestamp, at == group.count - 1, payload))
        if None not in back:
            del self._groups[first]
        return out


def own_repairs(
    given: Any, *, call: Call = called, failed: Callable[[PartError], None] | None = None
) -> Mapping[str, OwnRepair]:
    """A server's `repairs`, by name. TypeError or ValueError, in a sentence, for anything but a list of classes."""
    if not isinstance(given, list | tuple):
        raise TypeError(f"repairs must be a list of classes, as [Mine], not {shown(given)}")
    out: dict[str, OwnRepair] = {}
    for part in given:
        own = OwnRepair(part, call=call, failed=failed)
        if own.name in out:
            raise ValueError(f"two repairs are called {own.name!r}: clients choose them by name")
        out[own.name] = own
    if len(out) > MOST_OFFERED:
        raise ValueError(f"{MOST_OFFERED} repairs can be offered at the most, not {len(out)}")
    return out
