"""RTCP: sender and receiver reports, source descriptions, BYE (RFC 3550 section 6), NACK (RFC 4585), times (RFC 3611).

Pure: compound packets in, values out, and back. Wall-clock time comes in as nanoseconds since 1970.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from avlab.wire.rtp import Reception
from avlab.wire.units import NS, WireError

SR, RR, SDES, BYE = 200, 201, 202, 203
"""Packet types (RFC 3550 section 12.1)."""

APP = 204
LIMIT, LIMIT_NAME = 1, b"avlb"
"""Application-defined packets, and the one of avlab's own: a subtype and a name (RFC 3550 section 6.7)."""

RTPFB = 205
GENERIC_NACK = 1
"""Transport layer feedback, and the one of its formats that is known here (RFC 4585 section 6.2.1)."""

PSFB = 206
PICTURE_LOSS = 1
"""Payload-specific feedback, and the one of its formats that is known here (RFC 4585 section 6.3.1)."""

XR = 207
RECEIVER_TIME, DELAYS = 4, 5
"""Extended reports, and the two of their blocks that are known here (RFC 3611 sections 2, 4.4 and 4.5)."""

MAX_DELAYS = 64
"""Receivers that one block of delays answers."""

MAX_NACK_FIELDS = 256
"""Fields of 17 packets each in one NACK: a receiver that lacks more has lost its stream and not some packets."""

CNAME, NAME = 1, 2
"""Items of a source description (RFC 3550 section 12.2)."""

NTP_1970 = 2_208_988_800
"""Seconds from 1900, where NTP counts from, to 1970."""

_VERSION_2 = 0x80
_PADDING = 0x20
_HEADER = struct.Struct("!BBH")
_SENDER = struct.Struct("!IQIII")
_SENDER_REPORT = struct.Struct("!BBHIQIII")  # of six words behind the first
_BLOCK = struct.Struct("!IB3sIIII")
_XR_BLOCK = struct.Struct("!BxH")  # its type, and how many words follow
_DELAY = struct.Struct("!III")
_LIMIT = struct.Struct("!I4sII")  # who says it, the name, the source it is about, pictures in a thousand seconds
_ASKS = {(RTPFB, GENERIC_NACK), (PSFB, PICTURE_LOSS)}
_NACK_FIELD = struct.Struct("!HH")  # a sequence number, and a bit for each of the 16 after it, the next one's lowest


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What one receiver saw of the source `ssrc` (RFC 3550 6.4.1). The fields are those of `rtp.Reception`."""

    ssrc: int
    fraction_lost: int
    cumulative_lost: int
    highest_sequence: int
    jitter: int
    last_sr: int = 0
    delay_since_sr: int = 0

    @classmethod
    def of(cls, ssrc: int, reception: Reception) -> ReportBlock:
        """The block that reports `reception` of the source `ssrc`."""
        return cls(ssrc, *reception)


@dataclass(frozen=True, slots=True)
class SenderReport:
    """A sender's clocks at one moment, and its totals (RFC 3550 6.4.1).

    `ntp` is the wall clock in 64 bits (`ntp_to_ns`) and `rtp_timestamp` the media clock, both at that moment;
    `packets` and `octets` (of payload) count what was sent since the beginning, modulo 2**32.
    """

    ssrc: int
    ntp: int
    rtp_timestamp: int
    packets: int
    octets: int
    blocks: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """What the receiver `ssrc`, which sends nothing itself, saw of others (RFC 3550 6.4.2)."""

    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class Sdes:
    """The lasting name of a source (RFC 3550 6.5.1), and what people call it (6.5.2); other items are not kept."""

    ssrc: int
    cname: str
    name: str = ""
    """Empty where it is not said."""


@dataclass(frozen=True, slots=True)
class Bye:
    """Sources that leave, and perhaps why (RFC 3550 6.6)."""

    ssrcs: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Nack:
    """Packets of the source `media_ssrc` that the receiver `ssrc` lacks (RFC 4585 6.2.1), by 16-bit number."""

    ssrc: int
    media_ssrc: int
    sequences: tuple[int, ...]
    """In the order asked; runs of numbers within 17 of each other share a field."""


@dataclass(frozen=True, slots=True)
class PictureLoss:
    """The receiver `ssrc` asks the source `media_ssrc` for a picture that needs no other (RFC 4585 6.3.1)."""

    ssrc: int
    media_ssrc: int


@dataclass(frozen=True, slots=True)
class Limit:
    """The receiver `ssrc` takes at most so many pictures a second of the source `media_ssrc`: avlab's own packet.

    An APP packet (RFC 3550 6.7), which who does not know it passes over. `fps` is told in thousandths, up to 4 million.
    """

    ssrc: int
    media_ssrc: int
    fps: float


class Delay(NamedTuple):
    """The answer to one receiver's time: which it was, and how long it was kept (RFC 3611 4.5)."""

    ssrc: int
    """The receiver's."""
    last: int
    """The middle 32 bits of the NTP time that it told (LRR)."""
    delay: int
    """Since that came, in 65,536ths of a second (DLRR)."""


@dataclass(frozen=True, slots=True)
class ExtendedReport:
    """What `ssrc` says of clocks, beyond reports (RFC 3611): its own time, and delays since others told theirs."""

    ssrc: int
    reference: int | None = None
    """Its wall clock as it sends this, 64 bits of NTP time (4.4); None where it is not said."""
    delays: tuple[Delay, ...] = ()


RtcpPacket: TypeAlias = SenderReport | ReceiverReport | Sdes | Bye | Nack | PictureLoss | Limit | ExtendedReport


def ns_to_ntp(unix_ns: int) -> int:
    """Nanoseconds since 1970 as a 64-bit NTP time, 32 bits of seconds and 32 of fraction (RFC 3550 section 4)."""
    seconds, rest = divmod(unix_ns, NS)
    return (((seconds + NTP_1970) << 32) + ((rest << 32) + NS // 2) // NS) & 0xFFFFFFFF_FFFFFFFF


def ntp_to_ns(ntp: int) -> int:
    """A 64-bit NTP time as nanoseconds since 1970, exact for what `ns_to_ntp` made from 1970 to 2104.

    NTP's seconds wrap in 2036; a time before 1968 is taken as one after that (RFC 4330 section 3).
    """
    seconds, fraction = ntp >> 32, ntp & 0xFFFFFFFF
    era = 0 if seconds & 0x80000000 else 1 << 32
    return (seconds + era - NTP_1970) * NS + ((fraction * NS + (1 << 31)) >> 32)


# ---- to bytes


def serialize_compound(packets: Sequence[RtcpPacket]) -> bytes:
    """One compound packet. Raises WireError unless it starts with a report and names its source (RFC 3550 6.1)."""
    if not packets or not isinstance(packets[0], SenderReport | ReceiverReport):
        raise WireError("A compound RTCP packet starts with a sender or a receiver report.")
    if not any(isinstance(packet, Sdes) for packet in packets):
        raise WireError("A compound RTCP packet has a source description with a CNAME; add an Sdes.")
    try:
        return b"".join(map(_serialize, packets))
    except struct.error as error:
        raise WireError(f"A number in an RTCP packet does not fit its field: {error}.") from None


def serialize_sender_report(
    ssrc: int, ntp: int, rtp_timestamp: int, packets: int, octets: int, *, cname: str, delays: Sequence[Delay] = ()
) -> bytes:
    """What `serialize_compound` makes of a `SenderReport` without blocks, an `Sdes` and, where there are `delays`, an
    `ExtendedReport` of them: each client is sent it all the time.
    """
    try:
        report = _SENDER_REPORT.pack(_VERSION_2, SR, 6, ssrc, ntp, rtp_timestamp, packets, octets)
    except struct.error as error:
        raise WireError(f"A number in an RTCP packet does not fit its field: {error}.") from None
    answers = _serialize(ExtendedReport(ssrc, delays=tuple(delays))) if delays else b""
    return report + _serialize_cname(ssrc, cname) + answers


def serialize_bye(ssrc: int) -> bytes:
    """What ends a source's last compound packet."""
    return _serialize(Bye((ssrc,)))


@lru_cache(maxsize=512)
def _serialize_cname(ssrc: int, cname: str) -> bytes:
    return _serialize_sdes(Sdes(ssrc, cname))


def _serialize(packet: RtcpPacket) -> bytes:
    match packet:
        case SenderReport():
            sender = (packet.ssrc, packet.ntp, packet.rtp_timestamp, packet.packets, packet.octets)
            return _frame(SR, len(packet.blocks), _SENDER.pack(*sender) + _serialize_blocks(packet.blocks))
        case ReceiverReport():
            return _frame(RR, len(packet.blocks), struct.pack("!I", packet.ssrc) + _serialize_blocks(packet.blocks))
        case Sdes():
            return _serialize_sdes(packet)
        case Bye():
            reason = _text(packet.reason, "reason for leaving") if packet.reason else b""
            return _frame(BYE, len(packet.ssrcs), struct.pack(f"!{len(packet.ssrcs)}I", *packet.ssrcs) + reason)
        case Nack():
            head = struct.pack("!II", packet.ssrc, packet.media_ssrc)
            return _frame(RTPFB, GENERIC_NACK, head + _serialize_nack(packet.sequences))
        case PictureLoss():
            return _frame(PSFB, PICTURE_LOSS, struct.pack("!II", packet.ssrc, packet.media_ssrc))
        case Limit():
            told = min(max(round(packet.fps * 1000), 1), 0xFFFFFFFF)
            return _frame(APP, LIMIT, _LIMIT.pack(packet.ssrc, LIMIT_NAME, packet.media_ssrc, told))
        case ExtendedReport():
            return _frame(XR, 0, struct.pack("!I", packet.ssrc) + _serialize_times(packet))


@lru_cache(maxsize=32)
def _serialize_sdes(packet: Sdes) -> bytes:
    items = struct.pack("!IB", packet.ssrc, CNAME) + _text(packet.cname, "CNAME")
    if packet.name:
        items += bytes([NAME]) + _text(packet.name, "NAME")
    return _frame(SDES, 1, items + b"\0")  # the item list ends with a null; _frame fills up to a whole word


def _serialize_times(packet: ExtendedReport) -> bytes:
    if len(packet.delays) > MAX_DELAYS:
        raise WireError(f"A block of delays answers at most {MAX_DELAYS} receivers, not {len(packet.delays)}.")
    blocks = b""
    if packet.reference is not None:
        blocks += _XR_BLOCK.pack(RECEIVER_TIME, 2) + packet.reference.to_bytes(8, "big")
    if packet.delays:
        blocks += _XR_BLOCK.pack(DELAYS, 3 * len(packet.delays))
        blocks += b"".join(_DELAY.pack(*delay) for delay in packet.delays)
    return blocks


def _serialize_nack(sequences: Sequence[int]) -> bytes:
    fields: list[tuple[int, int]] = []
    for number in sequences:
        if not 0 <= number <= 0xFFFF:
            raise WireError(f"A NACK names packets by 16 bits; {number} does not fit.")
        ahead = (number - fields[-1][0]) & 0xFFFF if fields else 0
        if 1 <= ahead <= 16:
            fields[-1] = fields[-1][0], fields[-1][1] | 1 << (ahead - 1)
        else:
            fields.append((number, 0))
    if not 1 <= len(fields) <= MAX_NACK_FIELDS:
        raise WireError(f"A NACK has 1 to {MAX_NACK_FIELDS} fields of up to 17 packets, not {len(fields)}.")
    return b"".join(_NACK_FIELD.pack(*entry) for entry in fields)


def _frame(packet_type: int, count: int, body: bytes) -> bytes:
    if count > 31:
        raise WireError(f"An RTCP packet carries at most 31 reports or sources, not {count}.")
    body += bytes(-len(body) % 4)
    return _HEADER.pack(_VERSION_2 | count, packet_type, len(body) // 4) + body


def _serialize_blocks(blocks: Sequence[ReportBlock]) -> bytes:
    if not blocks:
        return b""
    return b"".join(
        _BLOCK.pack(
            block.ssrc,
            block.fraction_lost,
            _signed_24(block.cumulative_lost),
            block.highest_sequence,
            block.jitter,
            block.last_sr,
            block.delay_since_sr,
        )
        for block in blocks
    )


def _signed_24(value: int) -> bytes:
    if not -0x800000 <= value <= 0x7FFFFF:
        raise WireError(f"The cumulative count of lost packets has 24 bits; {value} does not fit.")
    return value.to_bytes(3, "big", signed=True)


def _text(value: str, name: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if len(data) > 255:
        raise WireError(f"A {name} has at most 255 bytes, not {len(data)}.")
    return bytes([len(data)]) + data


# ---- from bytes


def parse_compound(data: bytes | memoryview) -> list[RtcpPacket]:
    """The packets of one datagram, in order; unknown types are skipped (RFC 3550 6.1).

    Any type may come first, as RFC 5506 lets senders leave out the report. Raises WireError when a length or a
    version is wrong; then nothing of the datagram is to be believed.
    """
    packets: list[RtcpPacket] = []
    for packet_type, count, body in _bodies(bytes(data)):
        packets += _parse_body(packet_type, count, body)
    return packets


@lru_cache(maxsize=64)
def _bodies(data: bytes) -> tuple[tuple[int, int, bytes], ...]:
    """Type, count and body of each packet of a datagram, without padding; it is asked several things. WireError."""
    if not data:
        raise WireError("An RTCP datagram is empty.")
    bodies: list[tuple[int, int, bytes]] = []
    position = 0
    while position < len(data):
        if len(data) - position < 4:
            raise WireError("The RTCP datagram ends inside a packet's header.")
        first, packet_type, words = _HEADER.unpack_from(data, position)
        if first & 0xC0 != _VERSION_2:
            raise WireError(f"This is not RTCP version 2: its version field is {first >> 6}.")
        end = position + 4 + 4 * words
        if end > len(data):
            raise WireError(f"The RTCP packet says {4 + 4 * words} bytes; {len(data) - position} are left.")
        body = data[position + 4 : end]
        if first & _PADDING:
            body = _without_padding(body)
        bodies.append((packet_type, first & 0x1F, body))
        position = end
    return tuple(bodies)


class Asked(NamedTuple):
    """A NACK as it came: its fields are read for the packets that exist, and not one by one."""

    media_ssrc: int
    fields: bytes

    def within(self, first: int, count: int) -> list[int]:
        """Which of the `count` packets from the 16-bit number `first` on are asked for, in the order asked."""
        numbers: list[int] = []
        for number, others in _NACK_FIELD.iter_unpack(self.fields):
            ahead = (number - first) & 0xFFFF
            if ahead >= count and ahead <= 0xFFFF - 16:
                continue  # neither it nor the sixteen after it
            if ahead < count:
                numbers.append(number)
            if others:
                after = ((number + 1 + bit) & 0xFFFF for bit in range(16) if others >> bit & 1)
                numbers += [one for one in after if (one - first) & 0xFFFF < count]
        return numbers


def subjects(data: bytes) -> list[int]:
    """The sources whose reception a datagram reports, or whose packets it asks for; looked at, and not yet read.

    Cheap, for whoever is sent more than there is time to read, and of use to whoever reads it next. Empty where a
    length cannot be.
    """
    found: list[int] = []
    try:
        bodies = _bodies(data)
    except WireError:
        return found
    for packet_type, count, body in bodies:
        if packet_type in (SR, RR):
            start = _SENDER.size if packet_type == SR else 4
            blocks = range(start, min(start + count * _BLOCK.size, len(body) - 3), _BLOCK.size)
            found += [int.from_bytes(body[at : at + 4], "big") for at in blocks]
        elif (packet_type, count) in _ASKS and len(body) >= 8:
            found.append(int.from_bytes(body[4:8], "big"))
        elif packet_type == APP and _is_limit(count, body):
            found.append(int.from_bytes(body[8:12], "big"))
    return found


def parse_feedback(data: bytes) -> tuple[list[ReportBlock], list[Asked]]:
    """What receivers tell a sender: the blocks of all reports of a datagram, and its NACKs. Raises WireError."""
    blocks: list[ReportBlock] = []
    asked: list[Asked] = []
    for packet_type, count, body in _bodies(data):
        if packet_type in (SR, RR):
            start = _SENDER.size if packet_type == SR else 4
            _need(body, start, "report")
            blocks += _parse_blocks(body, start, count)
        elif packet_type == RTPFB and count == GENERIC_NACK:
            _check_nack(body)
            asked.append(Asked(int.from_bytes(body[4:8], "big"), body[8:]))
    return blocks, asked


def name_in(data: bytes) -> str:
    """What the first source that a datagram names is called by people, as it came; empty when none is. WireError."""
    for packet_type, count, body in _bodies(data):
        if packet_type == SDES:
            for described in _parse_sdes(body, count):
                if described.name:
                    return described.name
    return ""


def asks_for_key(data: bytes) -> list[int]:
    """The sources of which a datagram asks for a picture that needs no other (RFC 4585 6.3.1). Raises WireError."""
    return [
        int.from_bytes(body[4:8], "big")
        for packet_type, count, body in _bodies(data)
        if packet_type == PSFB and count == PICTURE_LOSS and len(body) >= 8
    ]


def limits_in(data: bytes) -> list[Limit]:
    """What receivers say in a datagram of how many pictures they take at most. Raises WireError."""
    if LIMIT_NAME not in data:  # as in nearly all
        return []
    return [_parse_limit(body) for kind, count, body in _bodies(data) if kind == APP and _is_limit(count, body)]


def _is_limit(count: int, body: bytes) -> bool:
    return count == LIMIT and len(body) >= _LIMIT.size and body[4:8] == LIMIT_NAME


def _parse_limit(body: bytes) -> Limit:
    ssrc, _, media_ssrc, told = _LIMIT.unpack_from(body)
    return Limit(ssrc, media_ssrc, max(told, 1) / 1000)


def reference_in(data: bytes) -> tuple[int, int] | None:
    """The first receiver in a datagram that tells its time (RFC 3611 4.4): its source, and 64 bits of NTP time.

    None where none does. Raises WireError.
    """
    for packet_type, _, body in _bodies(data):
        if packet_type == XR and (report := _parse_xr(body)).reference is not None:
            return report.ssrc, report.reference
    return None


def _without_padding(body: bytes) -> bytes:
    padding = body[-1] if body else 0
    if not 0 < padding <= len(body):
        raise WireError(f"The RTCP packet says {padding} bytes of padding; it has {len(body)}.")
    return body[:-padding]


def _parse_body(packet_type: int, count: int, body: bytes) -> Sequence[RtcpPacket]:
    if packet_type == SR:
        _need(body, _SENDER.size, "sender report")
        ssrc, ntp, timestamp, packets, octets = _SENDER.unpack_from(body)
        blocks = _parse_blocks(body, _SENDER.size, count)
        return [SenderReport(ssrc, ntp, timestamp, packets, octets, blocks)]
    if packet_type == RR:
        _need(body, 4, "receiver report")
        return [ReceiverReport(int.from_bytes(body[:4], "big"), _parse_blocks(body, 4, count))]
    if packet_type == SDES:
        return _parse_sdes(body, count)
    if packet_type == BYE:
        _need(body, 4 * count, "BYE")
        reason = body[4 * count :]
        if reason:
            _need(reason, 1 + reason[0], "BYE")
        return [Bye(struct.unpack_from(f"!{count}I", body), _decode(reason[1 : 1 + reason[0]]) if reason else "")]
    if packet_type == RTPFB and count == GENERIC_NACK:
        return [_parse_nack(body)]
    if packet_type == PSFB and count == PICTURE_LOSS:
        _need(body, 8, "picture loss indication")
        return [PictureLoss(*struct.unpack_from("!II", body))]
    if packet_type == APP and _is_limit(count, body):
        return [_parse_limit(body)]
    if packet_type == XR:
        return [_parse_xr(body)]
    return []


def _parse_xr(body: bytes) -> ExtendedReport:
    """Blocks of other kinds are passed over, and of the delays all but the first `MAX_DELAYS`."""
    _need(body, 4, "extended report")
    reference: int | None = None
    delays: list[Delay] = []
    position = 4
    while position < len(body):
        _need(body, position + _XR_BLOCK.size, "extended report")
        kind, words = _XR_BLOCK.unpack_from(body, position)
        start, position = position + _XR_BLOCK.size, position + _XR_BLOCK.size + 4 * words
        _need(body, position, "extended report")
        if kind == RECEIVER_TIME and words == 2:
            reference = int.from_bytes(body[start:position], "big")
        elif kind == DELAYS and words % 3 == 0:
            delays += map(Delay._make, _DELAY.iter_unpack(body[start:position]))
    return ExtendedReport(int.from_bytes(body[:4], "big"), reference, tuple(delays[:MAX_DELAYS]))


def _parse_nack(body: bytes) -> Nack:
    _check_nack(body)
    ssrc, media_ssrc = struct.unpack_from("!II", body)
    sequences: list[int] = []
    for number, others in _NACK_FIELD.iter_unpack(body[8:]):
        sequences.append(number)
        sequences += [(number + 1 + bit) & 0xFFFF for bit in range(16) if others >> bit & 1]
    return Nack(ssrc, media_ssrc, tuple(sequences))


def _check_nack(body: bytes) -> None:
    _need(body, 8 + _NACK_FIELD.size, "NACK")
    if len(body) > 8 + MAX_NACK_FIELDS * _NACK_FIELD.size:
        raise WireError(f"A NACK of {len(body)} bytes asks for more packets than any receiver lacks.")
    if len(body) % _NACK_FIELD.size:
        raise WireError("An RTCP NACK is cut short: its last field has four bytes.")


def _parse_blocks(body: bytes, start: int, count: int) -> tuple[ReportBlock, ...]:
    _need(body, start + count * _BLOCK.size, "report")
    blocks = []
    for ssrc, fraction, lost, highest, jitter, last_sr, delay in _BLOCK.iter_unpack(
        body[start : start + count * _BLOCK.size]
    ):
        lost_total = int.from_bytes(lost, "big", signed=True)
        blocks.append(ReportBlock(ssrc, fraction, lost_total, highest, jitter, last_sr, delay))
    return tuple(blocks)


@lru_cache(maxsize=32)
def _parse_sdes(body: bytes, count: int) -> tuple[Sdes, ...]:
    """Each chunk is an SSRC and a list of items (type, length, text) ended by a null, filled up to a whole word.

    A source says the same of itself with every report.
    """
    found = []
    position = 0
    for _ in range(count):
        _need(body, position + 5, "source description")
        ssrc = int.from_bytes(body[position : position + 4], "big")
        position += 4
        texts: dict[int, str] = {}
        while body[position]:
            _need(body, position + 2, "source description")
            end = position + 2 + body[position + 1]
            _need(body, end + 1, "source description")
            if body[position] in (CNAME, NAME):
                texts[body[position]] = _decode(body[position + 2 : end])
            position = end
        if texts:
            found.append(Sdes(ssrc, texts.get(CNAME, ""), texts.get(NAME, "")))
        position = (position // 4 + 1) * 4
    return tuple(found)


def _need(body: bytes, size: int, name: str) -> None:
    if len(body) < size:
        raise WireError(f"An RTCP {name} is cut short: {size} bytes are needed, {len(body)} are there.")


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")
