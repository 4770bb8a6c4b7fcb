"""Sound that is coded: AAC (RFC 3640, AAC-hbr) and Opus (RFC 7587); what a decoder is fed of each packet. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from avlab.wire.batch import Batch
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, Packed, serialize_header
from avlab.wire.units import Chunk, WireError

AAC, OPUS = "aac", "opus"
"""What sound is coded in."""

OPUS_RATE = 48_000
"""Of the RTP clock, whatever is coded (RFC 7587 4.1)."""

MOST_UNIT = 8_191
"""Bytes of an AAC access unit: its size has 13 bits."""

_DYNAMIC = 97

_MODE, _LENGTHS = "AAC-hbr", {"sizelength": "13", "indexlength": "3", "indexdeltalength": "3"}


class AacFormat:
    """MPEG4-GENERIC in the mode AAC-hbr: access units behind their sizes (RFC 3640 3.3.6).

    `coding` is what it is coded in, `setup` what the decoder has to know beforehand.

    WireError for another mode, or without the decoder's configuration.
    """

    encoding, coding, payload_type = "MPEG4-GENERIC", AAC, _DYNAMIC

    def __init__(self, rate: int, channels: int, parameters: Mapping[str, str]) -> None:
        self.clock_rate, self.channels = rate, channels
        said = {name: parameters.get(name, "").strip(" \t\"'") for name in ("mode", *_LENGTHS, "config")}
        lengths = [(name, said[name]) for name in _LENGTHS if said[name] not in ("", _LENGTHS[name])]
        # Either says the other: the mode means these lengths, and no other mode has them.
        if said["mode"].lower() != _MODE.lower() and (said["mode"] or not all(said[name] for name in _LENGTHS)):
            raise WireError(
                f"MPEG4-GENERIC is played in the mode {_MODE} alone, and this is {said['mode'][:40] or 'none'}."
            )
        if lengths:
            name, value = lengths[0]
            raise WireError(f"{_MODE} has {name}={_LENGTHS[name]} (RFC 3640 3.3.6), and this has {value[:40]}.")
        config = said["config"]
        if not re.fullmatch(r"(?:[0-9A-Fa-f]{2}){2,64}", config):
            raise WireError("AAC is described without the configuration of its decoder (config=).")
        self.setup = bytes.fromhex(config)
        self._part, self._whole = b"", 0  # of a unit that is larger than a packet

    def units(self, payload: bytes, /) -> list[bytes]:
        """What a packet has for the decoder, in order. Of a unit in several packets, the last one has it. WireError."""
        bits = int.from_bytes(payload[:2], "big")
        count, start = bits // 16, 2 + bits // 8
        if not count or bits % 16 or len(payload) <= start:
            raise WireError(f"A packet of AAC has {bits} bits of headers, and {len(payload)} bytes in all.")
        sizes = [int.from_bytes(payload[at : at + 2], "big") >> 3 for at in range(2, start, 2)]
        if count == 1 and sizes[0] > len(payload) - start:
            return self._fragment(payload[start:], sizes[0])
        self._part = b""
        units = []
        for size in sizes:
            if not size or start + size > len(payload):
                raise WireError("A packet of AAC ends within one of its access units.")
            units.append(payload[start : start + size])
            start += size
        return units

    def _fragment(self, data: bytes, whole: int) -> list[bytes]:
        if whole != self._whole:
            self._part = b""
        self._whole = whole
        self._part += data
        if len(self._part) < whole:
            return []
        unit, self._part = self._part, b""
        return [unit] if len(unit) == whole else []


class OpusFormat:
    """Opus: one packet of it each. WireError for another clock than 48,000 Hz, or more than two channels."""

    encoding, coding, payload_type = "opus", OPUS, _DYNAMIC
    setup = b""

    def __init__(self, rate: int = OPUS_RATE, channels: int = 2) -> None:
        if rate != OPUS_RATE or channels not in (1, 2):
            raise WireError(f"Opus has a clock of 48000 Hz and 1 or 2 channels, not {rate} and {channels}.")
        self.clock_rate, self.channels = rate, channels

    @property
    def parameters(self) -> str:
        """See `formats.SoundFormat`."""
        return "sprop-stereo=1;stereo=1" if self.channels == 2 else ""

    def pack(self, chunk: Chunk, *, payload_type: int = _DYNAMIC, packet_size: int = MAX_PACKET) -> Packed:
        """A chunk, which has been encoded, as the one packet that it is (RFC 7587 4.2). WireError for another one."""
        size = HEADER_BYTES + len(chunk.data)
        if not chunk.data or size > packet_size:
            raise WireError(f"A chunk of Opus has 1 to {packet_size - HEADER_BYTES:,} bytes, not {len(chunk.data):,}.")
        return Packed(Batch(serialize_header(payload_type, 0, 0, 0, False) + chunk.data, size))

    def units(self, payload: bytes, /) -> list[bytes]:
        """See `AacFormat.units`."""
        if not payload:
            raise WireError("A packet of Opus is empty.")
        return [payload]


CodedSound: TypeAlias = AacFormat | OpusFormat
"""Sound of whose packets a decoder has still to make samples."""
