"""RTP: packets, numbers that wrap, media clocks and reception statistics (RFC 3550).

Pure: packets go in and come out as bytes; arrival times are integer nanoseconds handed in.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from avlab.wire.batch import Batch
from avlab.wire.units import NS, WireError

MAX_PACKET = 1200
"""Bytes of the largest RTP packet, unless another size is asked for: it fits any path, tunnels included, without IP
fragments."""

PACKET_SIZES = range(576, 65_001)
"""Bytes that the largest RTP packet may be made to have: what every host takes (RFC 1122 3.3.3), up to what fits a
datagram with its headers, repair included."""

REPAIR_BYTES = 18
"""Left free in each picture's packet: parity over it, or the packet sent again, is no longer than the largest then."""

HEADER_BYTES = 12
HEADER = struct.Struct("!BBHII")
"""The fixed header: version and flags, marker and payload type, sequence number, timestamp, SSRC (RFC 3550 5.1)."""

_unpack_header = HEADER.unpack_from
_new_tuple = tuple.__new__

VERSION_2 = 0x80
MARKER = 0x80

# Payload types, RFC 3551 section 6. From 96 on a session description says what they mean.
L16_STEREO = 10
L16_MONO = 11
JPEG = 26
FIRST_DYNAMIC = 96

VIDEO_CLOCK = 90_000
"""Ticks a second of every video clock here (RFC 3551 section 5)."""


def check_packet_size(size: object) -> int:
    """The size as a number of bytes. ValueError for anything but a whole number from 576 to 65,000."""
    if isinstance(size, bool) or not isinstance(size, int) or size not in PACKET_SIZES:
        least, most = PACKET_SIZES[0], PACKET_SIZES[-1]
        raise ValueError(f"packet_size must be a whole number of bytes from {least} to {most:,}, not {size!r:.60}")
    return size


class RtpPacket(NamedTuple):
    """One RTP packet without its contributing sources and header extension, which nothing here uses.

    A named tuple, as 20,000 are made in a second and a frozen dataclass costs three times as much to make.
    """

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    marker: bool
    payload: bytes

    def serialize(self) -> bytes:
        """The packet's bytes. Raises WireError when a field does not fit its bits."""
        return serialize_header(self.payload_type, self.sequence, self.timestamp, self.ssrc, self.marker) + self.payload

    @classmethod
    def parse(cls, data: bytes | memoryview) -> RtpPacket:
        """Read one datagram or interleaved block. Raises WireError when it is no RTP packet."""
        if len(data) < HEADER_BYTES:
            raise WireError(f"An RTP packet has at least {HEADER_BYTES} bytes; this one has {len(data)}.")
        first, second, sequence, timestamp, ssrc = _unpack_header(data)
        if first == VERSION_2:  # the common case: nothing between header and payload, nothing after it
            payload = data[HEADER_BYTES:]
        elif first & 0xC0 == VERSION_2:
            start, end = _payload_span(data, first)
            payload = data[start:end]
        else:
            raise WireError(f"This is not RTP version 2: its version field is {first >> 6}.")
        # Past the named tuple's own constructor, a Python call that would take a third of the time.
        return _new_tuple(cls, (second & 0x7F, sequence, timestamp, ssrc, second >= MARKER, bytes(payload)))


class RtpRun(NamedTuple):
    """RTP packets with consecutive sequence numbers and all else the same: those of a frame, or some of them.

    Those of a chunk of sound differ in their timestamps, too, by the same step. They lie end to end in `batch`, each
    with a fixed header of `HEADER_BYTES` and nothing but its payload after it.
    """

    payload_type: int
    sequence: int
    """The first packet's."""
    timestamp: int
    """The first packet's."""
    ssrc: int
    marker: bool
    """The last packet's; the others have none."""
    batch: Batch
    size: int = 0
    """Bytes of a single packet as it came, where its header had more than is here; 0 where it had not."""
    ticks: int = 0
    """From one packet's timestamp to the next one's."""

    @property
    def total(self) -> int:
        """How many packets there are."""
        return self.batch.total

    @property
    def sizes(self) -> list[int]:
        """How many bytes each packet had as it came."""
        if self.size:
            return [self.size]
        batch = self.batch
        return [batch.size] * (batch.total - 1) + [batch.last]

    @property
    def payloads(self) -> list[bytes]:
        """Each packet's payload."""
        return payloads(self.batch)

    @property
    def packets(self) -> list[bytes]:
        """Each packet with its header."""
        return self.batch.datagrams()

    def part(self, first: int, after: int) -> RtpRun:
        """The packets from `first` to the one before `after`."""
        count = self.batch.total
        marker = self.marker and after >= count
        return self._replace(
            sequence=(self.sequence + first) & 0xFFFF,
            timestamp=(self.timestamp + first * self.ticks) & 0xFFFFFFFF,
            marker=marker,
            batch=self.batch.part(first, after),
        )


def payloads(batch: Batch) -> list[bytes]:
    """What is behind the fixed header of each packet of a batch."""
    if isinstance(batch, StampedBatch):
        return batch.packed.payloads
    data, size = batch.data, batch.size
    return [data[at + HEADER_BYTES : at + size] for at in range(0, len(data), size)]


def first_sequence(batch: Batch) -> int:
    """The 16-bit sequence number of the first packet of a batch, which has 4 bytes at least."""
    if isinstance(batch, StampedBatch):
        return batch.sequence
    return int.from_bytes(batch.data[2:4], "big")


def spanned(batch: Batch) -> tuple[int, int, bool, bool]:
    """Of packets whose timestamps are as far apart, all of one source: the first one's timestamp, that distance, and
    whether the first and the last have the marker.
    """
    if isinstance(batch, StampedBatch) and (kind := batch.packed.kind) is not None:
        _, marker, ticks = kind
        return batch.timestamp, ticks, marker and batch.total == 1, marker
    data, count = batch.data, batch.total
    _, first, _, timestamp, _ = _unpack_header(data)
    _, last, _, last_timestamp, _ = _unpack_header(data, (count - 1) * batch.size)
    ticks = ((last_timestamp - timestamp) & 0xFFFFFFFF) // (count - 1) if count > 1 else 0
    return timestamp, ticks, first >= MARKER, last >= MARKER


FEW = 12
"""Packets that are looked at, and stamped, one by one."""

MOST_IN_RUN = 255

_COUNTING = bytes(range(256)) * 2
"""What the low bytes of consecutive numbers look like, from any of them on."""


def runs(batch: Batch, *, spaced: bool = False) -> Iterable[RtpRun | WireError]:
    """The packets of a batch, in their order, as runs; and in its place, why one is no RTP packet.

    A run ends with a marker; with `spaced`, one may have timestamps that are a step apart, as a chunk of sound has. The
    headers of a whole batch are compared at once, by strides of its bytes: a packet in a run costs a twentieth of what
    it does by itself, and none of what this process has stamped itself is read at all.
    """
    if isinstance(batch, StampedBatch) and (known := batch.run) is not None and (spaced or not known.ticks):
        return (known,)
    return _runs_read(batch, spaced)


def _runs_read(batch: Batch, spaced: bool) -> Iterator[RtpRun | WireError]:
    data, size, count = batch.data, batch.size, batch.total
    if count == 1:
        if len(data) >= HEADER_BYTES and data[0] == VERSION_2:
            _, second, sequence, timestamp, ssrc = _unpack_header(data)
            yield _new_tuple(RtpRun, (second & 0x7F, sequence, timestamp, ssrc, second >= MARKER, batch, 0, 0))
        elif data:
            yield _single(data)
        return
    at = 0
    while at < count:
        start = at * size
        if spaced and (apart := _spaced(data, size, at, count)) is not None:
            length, ticks = apart
            _, kind, sequence, timestamp, ssrc = _unpack_header(data, start)
            run = batch.part(at, at + length)
            yield _new_tuple(RtpRun, (kind, sequence, timestamp, ssrc, False, run, 0, ticks))
            at += length
            continue
        length = _alike(data, size, at, min(count, at + MOST_IN_RUN))
        if length:
            _, _, sequence, timestamp, ssrc = _unpack_header(data, start)
            second = data[start + (length - 1) * size + 1]
            run = batch.part(at, at + length)
            yield _new_tuple(RtpRun, (second & 0x7F, sequence, timestamp, ssrc, second >= MARKER, run, 0, 0))
        else:
            yield _single(data[at * size : (at + 1) * size])
            length = 1
        at += length


def chunk(batch: Batch) -> RtpRun | None:
    """All packets of a batch as one run whose timestamps are a step apart, as a chunk of sound has; None: they are not.

    It is what `runs` gives where it gives no more than that.
    """
    if isinstance(batch, StampedBatch) and (known := batch.run) is not None:
        return known if known.ticks else None
    data, size, count = batch.data, batch.size, batch.total
    if count < 2 or size < HEADER_BYTES or len(data) < (count - 1) * size + HEADER_BYTES:
        return None
    version, kind, sequence, timestamp, ssrc = _unpack_header(data)
    ticks = (_unpack_header(data, size)[3] - timestamp) & 0xFFFFFFFF
    if version != VERSION_2 or kind >= MARKER or not 0 < ticks < 0x8000_0000:
        return None
    number, stamp = sequence, timestamp
    for start in range(size, count * size, size):
        number, stamp = (number + 1) & 0xFFFF, (stamp + ticks) & 0xFFFFFFFF
        if _unpack_header(data, start) != (VERSION_2, kind, number, stamp, ssrc):
            return None
    return _new_tuple(RtpRun, (kind, sequence, timestamp, ssrc, False, batch, 0, ticks))


def _spaced(data: bytes, size: int, first: int, after: int) -> tuple[int, int] | None:
    """How many packets from `first` on, two or more and none with a marker, have timestamps as far apart, and how far;
    None where the first two do not.
    """
    if size < HEADER_BYTES or len(data) < first * size + HEADER_BYTES:
        return None
    begins, kind, number, timestamp, ssrc = _unpack_header(data, first * size)
    if begins != VERSION_2 or kind >= MARKER:
        return None
    length, ticks = 1, 0
    for start in range((first + 1) * size, min(after * size, len(data) - HEADER_BYTES + 1), size):
        header = _unpack_header(data, start)
        if length == 1:
            ticks = (header[3] - timestamp) & 0xFFFFFFFF
            if not 0 < ticks < 0x8000_0000:
                return None
        there = (timestamp + length * ticks) & 0xFFFFFFFF
        if header != (VERSION_2, kind, (number + length) & 0xFFFF, there, ssrc):
            break
        length += 1
    return (length, ticks) if length > 1 else None


def _alike(data: bytes, size: int, first: int, after: int) -> int:
    """How many packets from `first` on are one run; 0 when that one is to be read by itself."""
    start = first * size
    if size < HEADER_BYTES or len(data) < start + HEADER_BYTES or data[start] != VERSION_2:
        return 0
    if len(data) - (after - 1) * size < HEADER_BYTES:  # the last one ends within its header
        after -= 1
    count = after - first
    if count <= FEW:  # each by itself takes less time than all of them by strides
        return _alike_one_by_one(data, size, start, count)
    end = after * size
    kinds, lows = data[start + 1 : end : size], data[start + 3 : end : size]
    low, high = lows[0], data[start + 2]
    wrap = 256 - low  # from there on the number's high byte is the next
    highs = bytes((high,)) * min(wrap, count) + bytes(((high + 1) & 0xFF,)) * (count - wrap)
    if (
        data[start:end:size] == b"\x80" * count
        and kinds[:-1] == kinds[:1] * (count - 1)
        and kinds[0] < MARKER
        and kinds[-1] & 0x7F == kinds[0]
        and lows == _COUNTING[low : low + count]
        and data[start + 2 : end : size] == highs
        and repeats(data, start + 4, 8, size, end)
    ):
        return count
    # Where they differ is found one by one: in a burst of several frames, say.
    return _alike_one_by_one(data, size, start, count)


def repeats(data: bytes, first: int, width: int, stride: int, end: int) -> bool:
    """Whether `width` bytes from `first` on are the same again each `stride` bytes, up to `end`.

    By columns, as they are there: an array of them would be made only to be thrown away.
    """
    for start in range(first, first + width):
        column = data[start:end:stride]
        if column != column[:1] * len(column):
            return False
    return True


def _alike_one_by_one(data: bytes, size: int, start: int, count: int) -> int:
    """As `_alike`, of `count` packets of which the first, at `start`, can be read."""
    _, kind, number, timestamp, ssrc = _unpack_header(data, start)
    length = 1
    while length < count and kind < MARKER:
        start += size
        begins, second, there, stamp, source = _unpack_header(data, start)
        if second != kind:
            if second & 0x7F != kind:
                break
            kind = second  # the marker: the run ends with it
        if there != (number + length) & 0xFFFF or stamp != timestamp or source != ssrc or begins != VERSION_2:
            break
        length += 1
    return length


def _single(data: bytes) -> RtpRun | WireError:
    """One packet as a run, what else its header may have taken out; or why it is none."""
    try:
        packet = RtpPacket.parse(data)
    except WireError as error:
        return error
    plain = packet.serialize()
    return RtpRun(*packet[:5], Batch(plain, len(plain)), len(data))


def serialize_header(payload_type: int, sequence: int, timestamp: int, ssrc: int, marker: bool) -> bytes:
    """The 12 bytes before a payload. Raises WireError when a field does not fit its bits."""
    if not 0 <= payload_type < 128:
        raise WireError(f"An RTP payload type is 0 to 127, not {payload_type}.")
    try:
        return HEADER.pack(VERSION_2, payload_type | MARKER if marker else payload_type, sequence, timestamp, ssrc)
    except struct.error:
        raise WireError(
            "An RTP sequence number has 16 bits, a timestamp and an SSRC have 32: "
            f"{sequence}, {timestamp}, {ssrc} do not fit."
        ) from None


_STAMP = struct.Struct("!HII")
"""What differs from one client to another in a header: sequence number, timestamp, SSRC."""

_stamp = _STAMP.pack_into


class _Kind(NamedTuple):
    """What those of one run have in common: the payload type, whether the last has the marker, the timestamps' step."""

    payload_type: int
    marker: bool
    ticks: int


def _kind(batch: Batch, ticks: int) -> _Kind | None:
    """Those of one run have fixed headers and no marker but the last one's; none where their timestamps differ."""
    seconds, count = batch.column(1), batch.total
    if not 0 < count <= MOST_IN_RUN or not 0 <= ticks < 0x8000_0000 or not HEADER_BYTES <= batch.last <= batch.size:
        return None
    first, marker = seconds[0] & 0x7F, seconds[-1] >= MARKER
    alike = seconds == bytes((first,)) * (count - 1) + seconds[-1:] and seconds[-1] & 0x7F == first
    if not alike or batch.column(0) != b"\x80" * count or (marker and ticks):
        return None
    return _Kind(first, marker, ticks if count > 1 else 0)


class Packed:
    """A frame's packets, or a chunk's, made once for all clients: what differs from one to another is left blank.

    `batch` has them end to end, with payload type and marker; `ticks` is how far each packet's timestamp is ahead of
    the one before: 0 for a picture's. Where packets are of several sizes, `rest` has those that come after. `total` is
    how many packets there are.
    """

    __slots__ = ("_payloads", "batch", "kind", "rest", "ticks", "total")

    def __init__(
        self, batch: Batch, ticks: int = 0, rest: tuple[Batch, ...] = (), *, kind: _Kind | None = None
    ) -> None:
        self.batch, self.ticks, self.rest = batch, ticks, rest
        self.total = batch.total + sum(each.total for each in rest) if rest else batch.total
        self.kind = _kind(batch, ticks) if kind is None else kind
        """What the packets of `batch` have in common; None: they are no one run."""
        self._payloads: list[bytes] | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Packed):
            return NotImplemented
        return (self.batch, self.ticks, self.rest) == (other.batch, other.ticks, other.rest)

    def __hash__(self) -> int:
        return hash((self.batch, self.ticks, self.rest))

    @property
    def octets(self) -> int:
        """Bytes of the payloads, as a sender report counts them."""
        return sum(batch.length - HEADER_BYTES * batch.total for batch in (self.batch, *self.rest))

    @property
    def payloads(self) -> list[bytes]:
        """What each packet of `batch` carries; not to be changed."""
        if self._payloads is None:
            self._payloads = payloads(self.batch)
        return self._payloads

    def part(self, first: int, after: int) -> Packed:
        """The packets of `batch` from `first` to the one before `after`."""
        batch, kind = self.batch.part(first, after), self.kind
        if kind is not None and batch.total:  # they are as the others are, and the marker is the last one's
            ticks = kind.ticks if batch.total > 1 else 0
            kind = _Kind(kind.payload_type, kind.marker and after >= self.batch.total, ticks)
        return Packed(batch, self.ticks, kind=kind if batch.total else None)

    def all_stamped(self, sequence: int, timestamp: int, ssrc: int) -> list[Batch]:
        """One client's packets, as `stamped`, of all sizes."""
        out: list[Batch] = [_stamped(self, sequence, timestamp, ssrc)]
        if not self.rest:
            return out
        at = self.batch.total
        for batch in self.rest:
            number, ticks = (sequence + at) & 0xFFFF, (timestamp + at * self.ticks) & 0xFFFFFFFF
            out.append(_stamped(Packed(batch, self.ticks), number, ticks, ssrc))
            at += batch.total
        return out

    def stamped(self, *, sequence: int, timestamp: int, ssrc: int) -> StampedBatch:
        """One client's packets of `batch`: numbered from `sequence` on, the first one's `timestamp`, its source."""
        return _stamped(self, sequence, timestamp, ssrc)


class StampedBatch(Batch):
    """One client's packets of a frame or a chunk: what their headers say, laid out as bytes once somebody asks.

    `packed` is what they are made from; `sequence` and `timestamp` are the first one's.
    """

    __slots__ = ("_laid_out", "packed", "sequence", "ssrc", "timestamp")

    _laid_out: bytes | None
    packed: Packed
    sequence: int
    timestamp: int
    ssrc: int

    @property
    def data(self) -> bytes:  # type: ignore[override]  # made when it is first asked for
        """All packets, end to end."""
        if self._laid_out is None:
            self._laid_out = self._stamp()
        return self._laid_out

    @property
    def body(self) -> bytes:
        """See `Batch`."""
        return self.packed.batch.data

    @property
    def run(self) -> RtpRun | None:
        """The packets as `runs` reads them, where they are one run."""
        kind = self.packed.kind
        if kind is None:
            return None
        payload_type, marker, ticks = kind
        known = payload_type, self.sequence, self.timestamp, self.ssrc, marker, self, 0, ticks
        return _new_tuple(RtpRun, known)

    def datagram(self, at: int) -> bytes:
        """See `Batch`: it alone is laid out, where the others are not yet."""
        return super().datagram(at) if self._laid_out is not None else self.part(at, at + 1).data

    def part(self, first: int, after: int) -> Batch:
        """See `Batch`."""
        if first == 0 and after >= self.total:
            return self
        packed = self.packed.part(first, after)
        timestamp = (self.timestamp + first * packed.ticks) & 0xFFFFFFFF
        return _stamped(packed, (self.sequence + first) & 0xFFFF, timestamp, self.ssrc)

    def _stamp(self) -> bytes:
        size, count, step = self.size, self.total, self.packed.ticks
        sequence, timestamp, ssrc = self.sequence, self.timestamp, self.ssrc
        data = bytearray(self.body)
        if count <= FEW or step:  # each by itself takes less time than all of them by strides
            for start in range(2, count * size + 2, size):
                _stamp(data, start, sequence, timestamp, ssrc)
                sequence, timestamp = (sequence + 1) & 0xFFFF, (timestamp + step) & 0xFFFFFFFF
            return bytes(data)
        if count <= 256:
            low, high = sequence & 0xFF, sequence >> 8
            wrap = 256 - low
            data[3::size] = _COUNTING[low : low + count]
            data[2::size] = bytes((high,)) * min(wrap, count) + bytes(((high + 1) & 0xFF,)) * (count - wrap)
        else:
            for at in range(count):
                data[at * size + 2 : at * size + 4] = ((sequence + at) & 0xFFFF).to_bytes(2, "big")
        for at, value in enumerate(ssrc.to_bytes(4, "big"), 8):
            data[at::size] = bytes((value,)) * count
        for at, value in enumerate(timestamp.to_bytes(4, "big"), 4):
            data[at::size] = bytes((value,)) * count
        return bytes(data)


_new_object = object.__new__


def _stamped(packed: Packed, sequence: int, timestamp: int, ssrc: int) -> StampedBatch:
    """Makes a `StampedBatch`: past a constructor, which would take three times as long."""
    batch, blank = _new_object(StampedBatch), packed.batch
    batch.size, batch.total, batch.length, batch.last = blank.size, blank.total, blank.length, blank.last
    batch.packed, batch.sequence, batch.timestamp, batch.ssrc = packed, sequence, timestamp, ssrc
    batch._laid_out = None
    return batch


def _payload_span(data: bytes | memoryview, first: int) -> tuple[int, int]:
    """Where the payload lies when there are contributing sources, an extension or padding (RFC 3550 5.1, 5.3.1)."""
    end = len(data)
    start = HEADER_BYTES + 4 * (first & 0x0F)
    if first & 0x10:
        if start + 4 > end:
            raise WireError("The RTP packet ends inside its header extension.")
        start += 4 + 4 * ((data[start + 2] << 8) | data[start + 3])
    if start > end:
        raise WireError(f"The RTP packet's header says {start} bytes; the packet has {end}.")
    if first & 0x20:
        padding = data[end - 1] if end > start else 0
        if not 0 < padding <= end - start:
            raise WireError(f"The RTP packet says {padding} bytes of padding; {end - start} follow its header.")
        end -= padding
    return start, end


def is_rtcp(data: bytes | memoryview) -> bool:
    """Whether a packet on a shared socket is RTCP: its second byte is a type of 192 to 223 (RFC 5761 section 4)."""
    return len(data) >= 2 and 192 <= data[1] <= 223


# ---- numbers that wrap, and the media clock


def seq_delta(a: int, b: int) -> int:
    """How far sequence number `a` is ahead of `b`: a - b in 16 bits with a sign, -32768 to 32767."""
    return ((a - b + 0x8000) & 0xFFFF) - 0x8000


class Unwrapper:
    """Extends numbers of `bits` bits that wrap into ones that do not, around the highest seen.

    A number up to half the range ahead of the highest moves it on; one behind it is old and may come out
    negative when it is older than the first. The first comes out as it is.
    """

    def __init__(self, bits: int) -> None:
        self._half = 1 << (bits - 1)
        self._mask = (1 << bits) - 1
        self.highest: int | None = None

    def __call__(self, value: int) -> int:
        """The extended number of `value`."""
        highest = self.highest
        if highest is None:
            self.highest = value
            return value
        extended = highest + ((value - highest + self._half) & self._mask) - self._half
        if extended > highest:
            self.highest = extended
        return extended

    def peek(self, value: int) -> int:
        """The extended number of `value`, which moves nothing on."""
        highest = value if self.highest is None else self.highest
        return highest + ((value - highest + self._half) & self._mask) - self._half

    def start_at(self, value: int) -> int:
        """The extended number of `value`, which counts as the highest from here on, whatever was before."""
        self.highest = self.peek(value)
        return self.highest

    def after(self, value: int) -> int:
        """The next number above the highest that `value` may stand for, however far ahead: numbers began again."""
        if self.highest is None:
            return self(value)
        self.highest += 1 + ((value - self.highest - 1) & self._mask)
        return self.highest


MAX_DROPOUT = 3000
MAX_MISORDER = 100
"""A number so far ahead of the highest, or behind it, is in line; further off it is believed once the next one follows
it (RFC 3550 A.1)."""

PLAUSIBLE = 4
"""A jump ahead is an outage, and what lies between is lost, when the source may have sent so many at this many times
the rate that it had before; otherwise it has started its numbers again, and nothing is lost."""


class SequenceNumbers:
    """One source's sequence numbers made ones that do not wrap, as RFC 3550 A.1 does; `rate` is its clock's, in hertz.

    What is more than `MAX_DROPOUT` ahead of the highest, or so far behind it that its timestamp is not of the last
    second either, is not believed before the next number follows it: by then, or at once for two packets that come
    together, the source has started again. Its numbers go on from the highest then, so that a jump is no loss; after
    an outage, which is as long as the jump says, they keep to the 16 bits.

    `above` is the highest number of an earlier source, which these come after; with `adjoining` without a gap.
    """

    def __init__(self, rate: int, *, above: int | None = None, adjoining: bool = False) -> None:
        self.highest: int | None = None
        self.restarts = 0
        self.proved = 0
        """1 after a packet that has proved the one before it, for which the answer was None: that one counts, too."""
        self.odd = False
        """Whether the newest packet's number is a little old and its timestamp is not."""
        self._rate = rate
        self._above, self._adjoining = above, adjoining
        self._shift = 0  # a number less its 16 bits, modulo 65,536
        self._timestamp = 0  # the highest number's
        self._count = 0
        self._first_ns = self._newest_ns = 0
        self._awaited: int | None = None  # what would prove a number that is out of line
        self._behind = 0  # how many in a row were a little behind, with timestamps that were not

    def __call__(self, sequence: int, timestamp: int, now_ns: int, *, count: int = 1) -> int | None:
        """The number of a packet, or of the first of `count` that came together; None while it is not believed."""
        self.proved, self.odd = 0, False
        before = self.highest
        if before is not None and sequence == (before + 1 - self._shift) & 0xFFFF:  # as most do, it goes on
            self._move_to(before + count, timestamp, now_ns, count)
            return before + 1
        if self.highest is None:
            first = sequence if self._above is None else self._above + 1
            if self._adjoining:
                self._shift = (first - sequence) & 0xFFFF
            else:
                first += (sequence - first) & 0xFFFF
            self._first_ns = now_ns
            self._move_to(first + count - 1, timestamp, now_ns, count)
            return first
        ahead = seq_delta(sequence, self.wire(self.highest))
        if 0 < ahead < MAX_DROPOUT:
            number = self.highest + ahead
        elif ahead <= 0 and self._of_late(timestamp):
            number = self.highest + ahead
            self._awaited, self._behind = None, 0
            self._count += count
            if number + count - 1 > self.highest:
                self._move_to(number + count - 1, timestamp, now_ns, 0)
            return number
        elif -MAX_MISORDER < ahead <= 0 and self._behind + count < 3:
            self._awaited, self.odd = None, True
            self._behind += count
            self._count += count
            return self.highest + ahead
        elif sequence == self._awaited or count > 1 or -MAX_MISORDER < ahead <= 0:
            self.proved = int(sequence == self._awaited)
            number = self._jump(self.highest, (sequence - self.proved) & 0xFFFF, timestamp, now_ns) + self.proved
        else:
            self._awaited, self._behind = (sequence + 1) & 0xFFFF, 0
            return None
        self._move_to(number + count - 1, timestamp, now_ns, count + self.proved)
        return number

    def going_on(self, sequence: int) -> int | None:
        """The unwrapped number of a packet that comes next after the highest; None for any other."""
        highest = self.highest
        return None if highest is None or sequence != (highest + 1 - self._shift) & 0xFFFF else highest + 1

    def go_on(self, highest: int, timestamp: int, now_ns: int, count: int) -> None:
        """After the highest number, `count` packets came; of the last one of them, number and timestamp are these."""
        self.proved, self.odd = 0, False
        self.highest, self._timestamp, self._newest_ns = highest, timestamp, now_ns  # as `_move_to`
        self._count += count
        self._awaited, self._behind = None, 0

    @property
    def last(self) -> int | None:
        """The highest number, of the earlier source's while none has come of this one."""
        return self._above if self.highest is None else self.highest

    def peek(self, sequence: int) -> int:
        """The number of a sequence number near the highest; that moves nothing on."""
        if self.highest is None:
            return sequence
        return self.highest + seq_delta(sequence, self.wire(self.highest))

    def wire(self, number: int) -> int:
        """The 16 bits of a number that was not before the newest start."""
        return (number - self._shift) & 0xFFFF

    def _of_late(self, timestamp: int) -> bool:
        """Whether a timestamp is the newest or at most a second older."""
        return 0 <= ((self._timestamp - timestamp + 0x8000_0000) & 0xFFFFFFFF) - 0x8000_0000 <= self._rate

    def _jump(self, highest: int, sequence: int, timestamp: int, now_ns: int) -> int:
        ahead = (sequence - self.wire(highest)) & 0xFFFF
        rate = self._count * NS / max(NS, self._newest_ns - self._first_ns)
        outage = ahead <= PLAUSIBLE * rate * (now_ns - self._newest_ns) / NS and not self._of_late(timestamp)
        number = highest + (ahead if outage else 1)
        if not outage:
            self.restarts += 1
            self._shift = (number - sequence) & 0xFFFF
        return number

    def _move_to(self, highest: int, timestamp: int, now_ns: int, count: int) -> None:
        self.highest, self._timestamp, self._newest_ns = highest, timestamp, now_ns
        self._count += count
        self._awaited, self._behind = None, 0


def ns_to_ticks(ns: int, rate: int) -> int:
    """Nanoseconds as ticks of a clock of `rate` ticks a second, to the nearest tick, exact at any size."""
    return (ns * rate + NS // 2) // NS


def ticks_to_ns(ticks: int, rate: int) -> int:
    """Ticks of a clock of `rate` ticks a second as nanoseconds, to the nearest, exact at any size."""
    return (2 * ticks * NS + rate) // (2 * rate)


def rtp_timestamp(pts_ns: int, rate: int, offset: int) -> int:
    """The 32-bit RTP timestamp of a presentation time, for a stream whose clock stands at `offset` at pts 0."""
    return ((pts_ns * rate + NS // 2) // NS + offset) & 0xFFFFFFFF  # as `ns_to_ticks`


# ---- reception statistics


class Reception(NamedTuple):
    """What a receiver report says of one source (RFC 3550 6.4.1)."""

    fraction_lost: int
    """Lost since the last report, in 256ths."""
    cumulative_lost: int
    """Expected less received since the beginning; duplicates count as received, so it may be negative. 24 bits."""
    highest_sequence: int
    """The highest sequence number received, extended by the count of its wraps. 32 bits."""
    jitter: int
    """Mean deviation of the packets' spacing, in ticks."""
    last_sr: int
    """The middle 32 bits of the last sender report's NTP time; 0 when none came."""
    delay_since_sr: int
    """From that sender report's arrival to this report, in 65,536ths of a second."""


STRIDE = 8
"""Packets that are looked up at once in `_decays`: a large picture has a hundred."""


def _decayed(jitter_16ths: int, packets: int) -> int:
    """The jitter after so many packets more that came as far apart as they were sent (RFC 3550 A.8)."""
    while packets >= STRIDE and 8 <= jitter_16ths < len(eight := _decays()):
        jitter_16ths = eight[jitter_16ths]
        packets -= STRIDE
    while packets > 0 and jitter_16ths >= 8:
        jitter_16ths -= (jitter_16ths + 8) >> 4
        packets -= 1
    return jitter_16ths


@functools.cache
def _decays() -> list[int]:
    """What becomes of each jitter, in sixteenths of a tick, by `STRIDE` packets."""
    jitter = np.arange(1 << 16)
    for _ in range(STRIDE):
        jitter -= (jitter + 8) >> 4
    out: list[int] = jitter.tolist()
    return out


MOST_UNRECKONED = 256
"""Chunks of sound whose jitter is left until somebody asks for it, twice a second as a rule."""


class ReceiverStats:
    """Counts one source's packets for receiver reports (RFC 3550 A.1, A.3, A.8). `rate` is the media clock's, in hertz.

    The source counts from its first packet; the probation of A.1 is left out, as a session names its SSRC. A source
    whose numbers start again is counted from there, as A.1 has it. `above` is for a source that replaces another: its
    numbers come after that one's; with `adjoining` without a gap.
    """

    def __init__(self, rate: int, *, above: int | None = None, adjoining: bool = False) -> None:
        self.numbers = SequenceNumbers(rate, above=above, adjoining=adjoining)
        self._rate = rate
        self._base = 0
        self._restarts = 0
        self._received = 0
        self._expected_before = self._received_before = 0
        self._transit: int | None = None
        self._arrival_ns = self._arrival_ticks = 0  # of the last packet
        self._jitter_16ths = self._jitter_before = 0
        self._unreckoned: list[tuple[int, int, int, int]] = []  # what went on, and is no part of the jitter yet
        self._last_sr = 0
        self._sr_arrival_ns = 0

    def went_on(self, number: int, timestamp: int, arrival_ns: int, count: int, ticks: int) -> None:
        """As `update`, of packets that come next after the highest number, whose timestamps are `ticks` apart.

        `number`, unwrapped, and `timestamp` are the first one's.
        """
        self._received += count
        self._unreckoned.append((timestamp, arrival_ns, count, ticks))
        if len(self._unreckoned) > MOST_UNRECKONED:
            self._reckon()
        self.numbers.go_on(number + count - 1, (timestamp + (count - 1) * ticks) & 0xFFFFFFFF, arrival_ns, count)

    def _reckon(self) -> None:
        """The jitter of what went on, as of each packet by itself."""
        rate, transit, jitter_16ths = self._rate, self._transit, self._jitter_16ths
        before = self._jitter_before
        for timestamp, arrival_ns, count, ticks in self._unreckoned:
            arrival = arrival_ns * rate // NS - timestamp
            if transit is not None:
                step = (arrival - transit) & 0xFFFFFFFF
                before = jitter_16ths
                jitter_16ths += (step if step <= 0x8000_0000 else 0x1_0000_0000 - step) - (jitter_16ths + 8 >> 4)
            for _ in range(count - 1):
                before = jitter_16ths
                jitter_16ths += ticks - (jitter_16ths + 8 >> 4)
            transit = arrival - (count - 1) * ticks
        self._unreckoned.clear()
        self._transit, self._jitter_16ths, self._jitter_before = transit, jitter_16ths, before

    def update(self, sequence: int, timestamp: int, arrival_ns: int, *, count: int = 1) -> int | None:
        """One data packet arrived; or `count` of them together, with consecutive numbers and the same timestamp.

        Returns the first one's number, unwrapped; None when it is too far from the others to be believed, unless the
        next one follows it: then it counts as well.
        """
        if self._unreckoned:
            self._reckon()
        numbers = self.numbers
        highest = numbers.highest
        number = numbers(sequence, timestamp, arrival_ns, count=count)
        if number is None:
            return None
        if highest is None:
            self._base = number
        elif numbers.restarts != self._restarts:
            self._restarts = numbers.restarts
            self._base = highest + 1
            self._received = self._expected_before = self._received_before = 0
        self._received += count + numbers.proved
        self._jitter_before = jitter_16ths = self._jitter_16ths
        if numbers.odd:
            return number
        if arrival_ns != self._arrival_ns:  # packets that came together share it, and these numbers are large
            self._arrival_ns, self._arrival_ticks = arrival_ns, arrival_ns * self._rate // NS
        transit = (self._arrival_ticks - timestamp) & 0xFFFFFFFF
        if self._transit is not None:
            step = (transit - self._transit) & 0xFFFFFFFF
            if step > 0x8000_0000:  # the size of a difference that may wrap either way
                step = 0x1_0000_0000 - step
            jitter_16ths += step - ((jitter_16ths + 8) >> 4)
        self._transit = transit
        self._jitter_16ths = _decayed(jitter_16ths, count - 1)
        return number

    def clock_stepped(self) -> None:
        """The timestamps of what came last are on another clock than those before it: their step is no jitter."""
        self._reckon()
        self._jitter_16ths = self._jitter_before

    def sender_report(self, ntp: int, arrival_ns: int) -> None:
        """A sender report with this 64-bit NTP time arrived; the next report echoes it, so that the sender can
        measure the round trip.
        """
        self._last_sr = (ntp >> 16) & 0xFFFFFFFF
        self._sr_arrival_ns = arrival_ns

    def report(self, now_ns: int) -> Reception | None:
        """What to report now, None before the first packet; the fraction lost starts afresh."""
        highest = self.numbers.highest
        if highest is None:
            return None
        self._reckon()
        expected = highest - self._base + 1
        expected_since = expected - self._expected_before
        lost_since = expected_since - (self._received - self._received_before)
        self._expected_before, self._received_before = expected, self._received
        fraction = min(255, (lost_since << 8) // expected_since) if lost_since > 0 else 0
        lost = max(-0x800000, min(0x7FFFFF, expected - self._received))
        delay = (now_ns - self._sr_arrival_ns) * 65_536 // NS if self._last_sr else 0
        delay = max(0, min(0xFFFFFFFF, delay))
        extended = self.numbers.wire(self._base) + highest - self._base  # with the wraps since the newest start
        return Reception(fraction, lost, extended & 0xFFFFFFFF, self._jitter_16ths >> 4, self._last_sr, delay)
