"""RTP payload format for H.265 (RFC 7798), without decoding order numbers. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from avlab.wire.payloads.h264 import parameter_sets
from avlab.wire.payloads.marked import packed_payloads
from avlab.wire.payloads.nal import (
    BEGINS,
    ENDS,
    Fragments,
    NalAssembler,
    aggregated,
    exp_golomb,
    packed_units,
    recovery_message,
    split,
)
from avlab.wire.rtp import FIRST_DYNAMIC, HEADER_BYTES, MAX_PACKET, REPAIR_BYTES, VIDEO_CLOCK, Packed
from avlab.wire.units import H265_CODING, EncodedFrame, WireError

VPS, SPS, PPS, SEI, AP, FU, PACI = 32, 33, 34, 39, 48, 49, 50
"""Types of NAL units (H.265 table 7-1) and of packets (RFC 7798 4.4)."""

KEYS = range(16, 24)
"""Pictures at which decoding may begin (IRAP)."""

_SETS = {"sprop-vps": VPS, "sprop-sps": SPS, "sprop-pps": PPS}


class H265Format:
    """H265. `setup` is the parameter sets that an fmtp line tells (sprop-vps, -sps and -pps, 7.1) as a byte stream."""

    encoding, payload_type, clock_rate = "H265", FIRST_DYNAMIC, VIDEO_CLOCK
    by_marker, rescues = True, False
    coding = H265_CODING

    def __init__(self, *, setup: bytes = b"") -> None:
        self.setup = setup

    @classmethod
    def described(cls, parameters: Mapping[str, str]) -> H265Format:
        """As an fmtp line has it. Parameter sets that cannot be read are as if not told: they may come in band.

        Raises WireError where units may come in another order than they are decoded in (sprop-max-don-diff).
        """
        if parameters.get("sprop-max-don-diff", "0").strip() not in ("", "0"):
            raise WireError("H.265 with decoding order numbers (sprop-max-don-diff) is not played.")
        return cls(setup=b"".join(parameter_sets(parameters.get(name, "")) for name in _SETS))

    @property
    def parameters(self) -> str:
        """See `formats.VideoFormat`."""
        told = []
        for name, kind in _SETS.items():
            units = [base64.b64encode(unit).decode() for unit in split(self.setup) if _kind(unit) == kind]
            if units:
                told.append(f"{name}={','.join(units)}")
        return ";".join(told)

    def pack(self, frame: EncodedFrame, *, payload_type: int = FIRST_DYNAMIC, packet_size: int = MAX_PACKET) -> Packed:
        """See `formats.VideoFormat`: units that fit as they are, others in fragments."""
        room = packet_size - REPAIR_BYTES - HEADER_BYTES
        payloads = packed_units(frame.data, room, _fragment_header, _kind, size=2)
        if not payloads:
            raise WireError("A picture in H.265 has at least one NAL unit; here there is none.")
        return packed_payloads(payloads, payload_type)

    def begins(self, payload: bytes, /) -> bool:
        """See `formats.VideoFormat`."""
        return False

    def assembler(self) -> NalAssembler:
        """See `formats.VideoFormat`."""
        return NalAssembler(units_of, is_key, coding=self.coding)


def _kind(unit: bytes) -> int:
    return unit[0] >> 1 & 63


def _fragment_header(unit: bytes) -> bytes:
    return bytes((unit[0] & 0x81 | FU << 1, unit[1]))


def is_key(unit: bytes) -> bool:
    """Whether a unit is of a picture at which decoding may begin."""
    return _kind(unit) in KEYS


def recovers_in(data: bytes) -> int | None:
    """As in H.264: how many pictures it takes until they are whole, where a recovery point says so; None for none."""
    for unit in split(data):
        if _kind(unit) == SEI and (told := recovery_message(unit[2:])) is not None:
            number = exp_golomb(told)  # of a number with a sign (9.2.2): 1, -1, 2, -2, ...
            return None if number is None else max(0, (number + 1) // 2 if number % 2 else 0)
    return None


def units_of(payloads: list[bytes]) -> list[bytes]:
    """The NAL units of an access unit's payloads, in order. Raises WireError."""
    fragments = Fragments()
    for payload in payloads:
        if not payload:
            continue  # padding alone
        if len(payload) < 3:
            raise WireError(f"A packet of H.265 has more than 2 bytes; this one has {len(payload)}.")
        kind = _kind(payload)
        if kind == AP:
            for unit in aggregated(payload[2:]):
                if len(unit) < 2:
                    raise WireError("A NAL unit of H.265 has a header of two bytes; this one is shorter.")
                fragments.add(unit)
        elif kind == FU:
            header = bytes((payload[0] & 0x81 | (payload[2] & 63) << 1, payload[1]))
            if len(payload) < 4:
                raise WireError("A fragment of a NAL unit is empty.")
            fragments.part(header, payload[3:], begins=bool(payload[2] & BEGINS), ends=bool(payload[2] & ENDS))
        elif kind < AP:
            fragments.add(payload)
        else:
            raise WireError(f"A packet of H.265 has the type {kind}, which is not played.")
    return fragments.whole()
