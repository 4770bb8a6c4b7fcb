"""RTP among datagrams: which of them look like it, whose they are, and what they carry. Pure.

Nobody need have told: what has RTP's version, the same source and numbers that count on is RTP, as Wireshark's
heuristic has it, but with more than one packet looked at. Payloads are never read, so they may be encrypted: RFC 3711
leaves the header in the clear.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from avlab.measure.captures.blocks import Ints
from avlab.measure.captures.layers import AddressPair
from avlab.measure.record.tables import PACKETS, STREAMS, UNKNOWN, Rows

NS = 1_000_000_000

ITEM = np.dtype(
    [
        ("time", "<i8"),
        ("ssrc", "<i8"),
        ("timestamp", "<i8"),
        ("size", "<i4"),
        ("seq", "<i4"),
        ("type", "u1"),
        ("mark", "?"),
    ]
)
"""What is kept of a packet: its header, and how many bytes it had."""

ENOUGH = 4
"""Packets of a source before it is believed to be one."""

TOO_MANY = 256
"""Packets without an order that a source may have."""

UNDECIDED = 2_048
"""Packets that wait, at the most, until it is clear whether they are pictures or sound."""

MOST_STREAMS = 10_000
"""Sources at the same time; a capture of random datagrams would have as many as it has packets."""

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 90_000)
"""Media clocks that are met, in ticks a second."""


class PayloadKind(NamedTuple):
    """What a payload type stands for."""

    name: str
    kind: str  # video or audio
    rate: int | None


def _static() -> dict[int, PayloadKind]:
    """RFC 3551, tables 4 and 5."""
    sound = {0: "PCMU", 3: "GSM", 4: "G723", 5: "DVI4", 7: "LPC", 8: "PCMA", 9: "G722", 12: "QCELP", 13: "CN"}
    sound |= {15: "G728", 18: "G729"}
    known = {number: PayloadKind(name, "audio", 8_000) for number, name in sound.items()}
    for number, name, rate in (
        (6, "DVI4", 16_000), (10, "L16", 44_100), (11, "L16", 44_100), (14, "MPA", 90_000), (16, "DVI4", 11_025),
        (17, "DVI4", 22_050),
    ):  # fmt: skip
        known[number] = PayloadKind(name, "audio", rate)
    pictures = {25: "CelB", 26: "JPEG", 28: "nv", 31: "H261", 32: "MPV", 33: "MP2T", 34: "H263"}
    return known | {number: PayloadKind(name, "video", 90_000) for number, name in pictures.items()}


STATIC = _static()
NOTHING_YET = PayloadKind("", "", None)


COPIES = 4
"""So many times a packet may be in a capture: once for each interface that it passes, or by a switch's mirror."""


def counts_on(items: Any) -> bool:
    """Whether most of these packets follow each other in number, of which each may be there several times."""
    steps = np.diff(items["seq"]).astype(np.int16)
    onward = steps[steps != 0]
    if len(onward) < ENOUGH - 2 or len(items) > COPIES * (len(onward) + 1):
        return False
    return bool((np.abs(onward) <= 100).mean() >= 0.6)


def format_of(items: Any, formats: dict[int, PayloadKind]) -> PayloadKind | None:
    """What a source sends: by its payload type, by a captured description, or by its clock; None: not clear yet."""
    kind = int(np.bincount(items["type"]).argmax())
    known = STATIC.get(kind) or formats.get(kind)
    if known is not None:
        return known
    span = int(items["time"][-1] - items["time"][0])
    if len(items) < 16 or span < NS // 2:
        return None
    return guessed(items)


def guessed(items: Any) -> PayloadKind:
    """Several packets with one timestamp are a picture; the clock is the usual one that the timestamps fit.

    Where there is too little to go by, large packets are taken for pictures'.
    """
    items = items[np.append(True, np.diff(items["seq"]) != 0)]  # without copies
    ticks = np.diff(items["timestamp"]).astype(np.int32)
    video = len(ticks) > 0 and float((ticks == 0).mean()) > 0.03
    span = int(items["time"][-1] - items["time"][0]) / NS
    rate = nearest_rate(abs(int(ticks.sum(dtype=np.int64))) / span) if span > 0.2 else None
    video = video or rate == 90_000 or (rate is None and float(items["size"].mean()) > 400)
    return PayloadKind("", "video" if video else "audio", 90_000 if video else rate)


def nearest_rate(ticks_a_second: float) -> int | None:
    """The usual clock within 4 % of a measured one."""
    best = min(RATES, key=lambda rate: abs(ticks_a_second / rate - 1))
    return best if abs(ticks_a_second / best - 1) < 0.04 else None


@dataclass(slots=True, eq=False)
class Stream:
    """A source of packets between two addresses."""

    flow: AddressPair
    ssrc: int
    key: int
    signalled: bool = False  # an RTSP connection carries it: no doubt
    believed: bool | None = None
    format: PayloadKind = NOTHING_YET
    """What it carries, once it is believed."""
    code: int = UNKNOWN
    """Its name in a trace: the SSRC, with 2**32 for each stream before it that has the same."""
    types: Counter[int] = field(default_factory=Counter)
    _held: list[Any] = field(default_factory=list)
    _count: int = 0
    _last: int | None = None  # the number of its last packet, unwrapped

    def offer(self, items: Any, formats: dict[int, PayloadKind]) -> Any:
        """Take packets in the order in which they came; those that are to be written down, if it is clear by now."""
        if self.believed is False:
            return None
        if self.believed:
            return items
        self._held.append(items)
        self._count += len(items)
        if self._count < ENOUGH and not self.signalled:
            return None
        return self._decided(formats, last=self._count >= UNDECIDED)

    def settle(self, formats: dict[int, PayloadKind]) -> Any:
        """No more packets come: those that are to be written down."""
        return self._decided(formats, last=True) if self.believed is None and self._held else None

    def _decided(self, formats: dict[int, PayloadKind], *, last: bool) -> Any:
        items = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        self._held = [items]
        if not self.signalled and not (counts_on(items) and len(items) >= ENOUGH - 1):
            if last or len(items) >= TOO_MANY:
                self.believed = False
                self._held.clear()
            return None
        found = format_of(items, formats) or (guessed(items) if last else None)
        if found is None:
            return None
        self.format, self.believed = found, True
        self._held.clear()
        return items

    def rows(self, items: Any) -> Rows:
        """Packets as rows of a trace, numbers unwrapped (RFC 3550 A.1), without fates."""
        self.types.update(dict(enumerate(np.bincount(items["type"]).tolist())))
        first = int(items["seq"][0])
        begin = first + 65_536 if self._last is None else self._last + _step(first - self._last)
        numbers: Ints = begin + np.append(0, np.cumsum(np.diff(items["seq"]).astype(np.int16), dtype=np.int64))
        self._last = int(numbers[-1])
        rows = np.empty(len(items), PACKETS.dtype)
        rows["stream"], rows["ssrc"], rows["seq"] = STREAMS.index(self.format.kind), self.code, numbers
        rows["timestamp"], rows["marker"], rows["bytes"] = items["timestamp"], items["mark"], items["size"]
        rows["sent"], rows["received"], rows["fate"] = UNKNOWN, items["time"], 0
        return rows


def _step(difference: int) -> int:
    """A step between two 16-bit numbers: the shorter way."""
    return (difference + 32_768) % 65_536 - 32_768
