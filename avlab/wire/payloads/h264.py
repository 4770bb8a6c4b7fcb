"""RTP payload format for H.264 (RFC 6184), in its single-unit and non-interleaved modes. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from avlab.wire.payloads.marked import packed_payloads
from avlab.wire.payloads.nal import (
    BEGINS,
    ENDS,
    MAX_PARAMETERS,
    Fragments,
    NalAssembler,
    aggregated,
    exp_golomb,
    joined,
    packed_units,
    recovery_message,
    split,
)
from avlab.wire.rtp import FIRST_DYNAMIC, HEADER_BYTES, MAX_PACKET, REPAIR_BYTES, VIDEO_CLOCK, Packed
from avlab.wire.units import H264_CODING, EncodedFrame, WireError

IDR, SEI, SPS, PPS, STAP_A, FU_A = 5, 6, 7, 8, 24, 28
"""Types of NAL units (H.264 table 7-1) and of packets (RFC 6184 table 1)."""

BASELINE_4 = "42C028"
"""The profile and level of a description that tells no parameter sets: constrained baseline, level 4 (1080p)."""


class H264Format:
    """H264. `parameters` is what an fmtp line says, `setup` the parameter sets in it (sprop-parameter-sets, 8.1) as a
    byte stream, for the decoder.
    """

    encoding, payload_type, clock_rate = "H264", FIRST_DYNAMIC, VIDEO_CLOCK
    by_marker, rescues = True, False
    coding = H264_CODING

    def __init__(self, *, setup: bytes = b"") -> None:
        self.setup = setup

    @classmethod
    def described(cls, parameters: Mapping[str, str]) -> H264Format:
        """As an fmtp line has it. Parameter sets that cannot be read are as if not told: they may come in band.

        Raises WireError for the interleaved mode, in which units come in another order than they are decoded in.
        """
        if parameters.get("packetization-mode", "0").strip() not in ("", "0", "1"):
            raise WireError("H.264 in the interleaved mode (packetization-mode=2) is not played.")
        return cls(setup=parameter_sets(parameters.get("sprop-parameter-sets", "")))

    @property
    def parameters(self) -> str:
        """See `formats.VideoFormat`."""
        units = split(self.setup)
        profile = next((unit[1:4].hex().upper() for unit in units if _kind(unit) == SPS and len(unit) > 3), "")
        told = ["packetization-mode=1", f"profile-level-id={profile or BASELINE_4}"]
        if profile:
            sets = ",".join(base64.b64encode(unit).decode() for unit in units)
            told.append(f"sprop-parameter-sets={sets}")
        return ";".join(told)

    def pack(self, frame: EncodedFrame, *, payload_type: int = FIRST_DYNAMIC, packet_size: int = MAX_PACKET) -> Packed:
        """See `formats.VideoFormat`: units that fit as they are, others in fragments (FU-A)."""
        room = packet_size - REPAIR_BYTES - HEADER_BYTES
        payloads = packed_units(frame.data, room, lambda unit: bytes((unit[0] & 0xE0 | FU_A,)), _kind, size=1)
        if not payloads:
            raise WireError("A picture in H.264 has at least one NAL unit; here there is none.")
        return packed_payloads(payloads, payload_type)

    def begins(self, payload: bytes, /) -> bool:
        """See `formats.VideoFormat`."""
        return False

    def assembler(self) -> NalAssembler:
        """See `formats.VideoFormat`."""
        return NalAssembler(units_of, is_key, coding=self.coding)


def _kind(unit: bytes) -> int:
    return unit[0] & 31


def is_key(unit: bytes) -> bool:
    """Whether a unit is of a picture that needs no other."""
    return _kind(unit) == IDR


def units_of(payloads: list[bytes]) -> list[bytes]:
    """The NAL units of an access unit's payloads, in order. Raises WireError."""
    fragments = Fragments()
    for payload in payloads:
        if not payload:
            continue  # padding alone
        kind = _kind(payload)
        if 1 <= kind <= 23:
            fragments.add(payload)
        elif kind == STAP_A:
            for unit in aggregated(payload[1:]):
                fragments.add(unit)
        elif kind == FU_A:
            if len(payload) < 3:
                raise WireError("A fragment of a NAL unit is empty.")
            header = bytes((payload[0] & 0xE0 | payload[1] & 31,))
            fragments.part(header, payload[2:], begins=bool(payload[1] & BEGINS), ends=bool(payload[1] & ENDS))
        else:
            raise WireError(f"A packet of H.264 has the type {kind}, which is none of the non-interleaved mode.")
    return fragments.whole()


def parameter_sets(text: str) -> bytes:
    """Parameter sets in base64, separated by commas, as a byte stream; what is none is left out."""
    units = []
    for word in text[:MAX_PARAMETERS].split(","):
        try:
            unit = base64.b64decode(word.strip() + "=" * (-len(word.strip()) % 4))
        except (binascii.Error, ValueError):
            continue
        if unit:
            units.append(unit)
    return joined(units)


def recovers_in(data: bytes) -> int | None:
    """How many pictures from that of a byte stream on it takes until they are whole, for who begins to decode with it:
    encoders that refresh pictures bit by bit say so, and those whose key frames are none that all else ends at. None
    where nothing is said.
    """
    for unit in split(data):
        if _kind(unit) == SEI and (told := recovery_message(unit[1:])) is not None:
            return exp_golomb(told)
    return None


def parameter_sets_in(data: bytes) -> bytes:
    """The parameter sets of a byte stream, as a byte stream of their own."""
    return joined(unit for unit in split(data) if _kind(unit) in (SPS, PPS))
