"""Parity packets that bring lost ones back: XOR over groups of a frame's packets (RFC 5109, ULPFEC with one level).

Pure: packets are bytes. Parity shares the media's SSRC and sequence numbers and is told apart by its payload type, as
GStreamer and WebRTC have it; the RFC would rather have it in a stream of its own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from avlab.wire.rtp import HEADER_BYTES, PACKET_SIZES, REPAIR_BYTES, Unwrapper, serialize_header
from avlab.wire.units import WireError

MASK_BITS = 48
"""The longest mask: packets of one group lie within so many (RFC 5109 7.4)."""

MOST_OVERHEAD = 1.0
"""A parity packet a packet: each is as good as sent twice."""

_LONG = 0x40  # the L bit: a mask of 48 bits instead of 16
_HEADER = struct.Struct("!BBHIH")  # E, L and the recovery fields P, X, CC; M, PT; SN base; TS; length (7.3)
_LEVEL = struct.Struct("!H")  # protection length; the mask follows (7.4)
_SSRC_AND_MORE = 8  # where in an RTP header what parity does not cover begins


class Parity(NamedTuple):
    """What one parity packet says."""

    base: int
    """16 bits: the sequence number that the mask's first bit stands for."""
    mask: int
    """48 bits, the first the highest."""
    flags: int
    """P, X and CC of all packets of the group, as the low six bits of a byte, one over the other."""
    marker_and_type: int
    timestamp: int
    length: int
    """The lengths of what follows the fixed header."""
    body: bytes

    @property
    def offsets(self) -> list[int]:
        """Which packets from the base on are in the group."""
        return [at for at in range(MASK_BITS) if self.mask >> (MASK_BITS - 1 - at) & 1]


def parse_parity(payload: bytes) -> Parity:
    """Read a parity packet's payload. Raises WireError when it is none, or of another kind than XOR with one level."""
    if len(payload) < _HEADER.size + _LEVEL.size + 2:
        raise WireError(
            f"A parity packet has at least {_HEADER.size + _LEVEL.size + 2} bytes; this has {len(payload)}."
        )
    first, second, base, timestamp, length = _HEADER.unpack_from(payload)
    if first & 0x80:
        raise WireError("The parity packet's extension flag is set, which RFC 5109 reserves.")
    protected = int.from_bytes(payload[_HEADER.size : _HEADER.size + 2], "big")
    wide = 6 if first & _LONG else 2
    start = _HEADER.size + _LEVEL.size + wide
    mask = int.from_bytes(payload[_HEADER.size + 2 : start], "big") << (MASK_BITS - 8 * wide)
    body = payload[start : start + protected]
    if len(body) < protected or not mask:
        raise WireError("The parity packet says more bytes than it has, or protects no packet.")
    return Parity(base, mask, first & 0x3F, second, timestamp, length, body)


def parity_payload(packets: Sequence[bytes], offsets: Sequence[int], base: int) -> bytes:
    """The payload that protects `packets`, which lie `offsets` after the 16-bit sequence number `base`."""
    total = length = mask = most = 0
    for packet, offset in zip(packets, offsets, strict=True):
        total ^= int.from_bytes(packet, "little")  # little: the shorter of two packets is filled up at its end
        length ^= len(packet) - HEADER_BYTES
        most = max(most, len(packet))
        mask |= 1 << (MASK_BITS - 1 - offset)
    folded = total.to_bytes(most, "little")
    wide = mask & 0xFFFFFFFF != 0
    return b"".join(
        (
            _HEADER.pack(
                (folded[0] & 0x3F) | (_LONG if wide else 0),
                folded[1],
                base,
                int.from_bytes(folded[4:8], "big"),
                length,
            ),
            _LEVEL.pack(most - HEADER_BYTES),
            mask.to_bytes(6, "big") if wide else (mask >> 32).to_bytes(2, "big"),
            folded[HEADER_BYTES:],
        )
    )


assert _HEADER.size + _LEVEL.size + 6 == REPAIR_BYTES  # what parity has beyond the longest packet that it protects


def groups(count: int, overhead: float) -> Iterator[tuple[int, range]]:
    """Where the packets of a frame of `count` are grouped: the block's first packet, and the group's packets.

    A frame is cut into blocks of at most 48, each block into interleaved groups, one in every `n`-th packet: a burst
    of up to `n` losses hits each group once. There is at least one group a block where `overhead` is over 0.
    """
    if overhead <= 0:
        return
    blocks = -(-count // MASK_BITS)
    for block in range(blocks):
        first, after = count * block // blocks, count * (block + 1) // blocks
        number = min(after - first, math.ceil(overhead * (after - first) - 1e-9))
        for at in range(number):
            yield first, range(first + at, after, number)


def check_overhead(value: object) -> float:
    """The overhead as a number. ValueError outside 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_OVERHEAD:
        raise ValueError(f"parity must be 0 to {MOST_OVERHEAD:g} parity packets a packet, not {value!r}")
    return float(value)


class ParityEncoder:
    """Follows each frame's packets with parity. `overhead` is parity packets a packet, from 0 to 1; it may change."""

    def __init__(self, *, payload_type: int, overhead: float = 0.25) -> None:
        self.payload_type = payload_type
        self.overhead = overhead

    @property
    def overhead(self) -> float:
        """Parity packets a media packet, rounded up for each frame. ValueError outside 0 to 1."""
        return self._overhead

    @overhead.setter
    def overhead(self, value: float) -> None:
        self._overhead = check_overhead(value)

    def protect(self, packets: Sequence[bytes]) -> list[bytes]:
        """The parity packets of one frame, numbered from the one after its last. WireError for packets too long."""
        if not packets:
            return []
        head = packets[0]
        first = (head[2] << 8) | head[3]
        ssrc, timestamp = int.from_bytes(head[8:12], "big"), int.from_bytes(packets[-1][4:8], "big")
        out: list[bytes] = []
        for start, members in groups(len(packets), self._overhead):
            payload = parity_payload(
                [packets[at] for at in members], [at - start for at in members], (first + start) & 0xFFFF
            )
            number = (first + len(packets) + len(out)) & 0xFFFF
            out.append(serialize_header(self.payload_type, number, timestamp, ssrc, False) + payload)
        return out


# ---- the receiver

KEEP_PACKETS = 1024
KEEP_GROUPS = 128
"""How many packets and incomplete groups a receiver keeps: some frames' worth, whatever a sender says."""


@dataclass(slots=True)
class _ParityGroup:
    parity: Parity
    first: int  # unwrapped sequence number of the base
    missing: set[int]


class ParityDecoder:
    """Brings lost packets back once all others of their group are there.

    `feed` takes every packet of the stream, parity included, in whatever order. What parity claims is believed only
    when the packet that comes out is one of this stream: `nonsense` counts what was not, `recovered` what was.
    """

    def __init__(self, *, payload_type: int, parity_type: int) -> None:
        self.payload_type, self.parity_type = payload_type, parity_type
        self.recovered = self.nonsense = 0
        self._unwrap = Unwrapper(16)
        self._packets: dict[int, bytes] = {}
        self._groups: dict[int, _ParityGroup] = {}
        self._waiting: dict[int, list[int]] = {}  # a missing packet's number -> the groups that want it
        self._count = 0

    def feed(self, packet: bytes) -> list[bytes]:
        """Take one RTP packet; the packets that it brings back, if any."""
        if len(packet) < HEADER_BYTES:
            return []
        sequence = self._unwrap((packet[2] << 8) | packet[3])
        if packet[1] & 0x7F == self.parity_type:
            return self._feed_parity(packet, sequence)
        if packet[1] & 0x7F != self.payload_type or sequence in self._packets:
            return []
        self._keep(sequence, packet)
        return self._completed(sequence) if sequence in self._waiting else []

    def _feed_parity(self, packet: bytes, sequence: int) -> list[bytes]:
        try:
            parity = parse_parity(packet[HEADER_BYTES:])
        except WireError:
            self.nonsense += 1
            return []
        back = (sequence - parity.base) & 0xFFFF
        if back > KEEP_PACKETS:  # it protects what is not here any more, or what is still to come
            self.nonsense += 1
            return []
        first = sequence - back
        group = _ParityGroup(parity, first, {first + at for at in parity.offsets if first + at not in self._packets})
        if len(group.missing) == 1:
            return self._recover(group, packet[8:12])
        if group.missing:
            self._count += 1
            self._groups[self._count] = group
            for number in group.missing:
                self._waiting.setdefault(number, []).append(self._count)
            if len(self._groups) > KEEP_GROUPS:
                self._give_up(next(iter(self._groups)))
        return []

    def _completed(self, sequence: int) -> list[bytes]:
        """A packet came that groups waited for."""
        out: list[bytes] = []
        for key in self._waiting.pop(sequence, []):
            group = self._groups.get(key)
            if group is None:
                continue
            group.missing.discard(sequence)
            if len(group.missing) <= 1:
                self._give_up(key)
                if group.missing:
                    out += self._recover(group, self._packets[sequence][8:12])
        return out

    def _recover(self, group: _ParityGroup, ssrc: bytes) -> list[bytes]:
        """The one packet that the group lacks, and what comes back with its help."""
        (wanted,) = group.missing
        parity = group.parity
        head = bytes((parity.flags, parity.marker_and_type)) + bytes(2) + parity.timestamp.to_bytes(4, "big")
        total = int.from_bytes(b"".join((head, bytes(4), parity.body)), "little")
        length = parity.length
        for at in parity.offsets:
            if group.first + at != wanted:
                if group.first + at not in self._packets:  # pushed out meanwhile
                    return []
                packet = self._packets[group.first + at]
                total ^= int.from_bytes(packet, "little")
                length ^= len(packet) - HEADER_BYTES
        size = length + HEADER_BYTES
        if length > len(parity.body) or size not in range(PACKET_SIZES.stop):
            self.nonsense += 1
            return []
        room = max(size, (total.bit_length() + 7) // 8)
        folded = total.to_bytes(room, "little")
        packet = b"".join(
            (
                bytes((0x80 | (folded[0] & 0x3F), folded[1], (wanted >> 8) & 0xFF, wanted & 0xFF)),
                folded[4:_SSRC_AND_MORE],
                ssrc,
                folded[HEADER_BYTES:size],
            )
        )
        if packet[1] & 0x7F != self.payload_type:
            self.nonsense += 1
            return []
        self.recovered += 1
        self._keep(wanted, packet)
        return [packet, *self._completed(wanted)]

    def _keep(self, sequence: int, packet: bytes) -> None:
        self._packets[sequence] = packet
        if len(self._packets) > KEEP_PACKETS:
            del self._packets[next(iter(self._packets))]

    def _give_up(self, key: int) -> None:
        group = self._groups.pop(key)
        for number in group.missing:
            waiting = self._waiting.get(number)
            if waiting is not None:
                waiting.remove(key)
                if not waiting:
                    del self._waiting[number]
