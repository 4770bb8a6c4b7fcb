"""H.264 and H.265 in RTP: what is packed is what comes out, whatever the sizes; what is odd is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.wire.payloads import h264, h265
from avlab.wire.payloads.formats import video_format
from avlab.wire.payloads.h264 import H264Format
from avlab.wire.payloads.h265 import H265Format
from avlab.wire.payloads.nal import joined, split
from avlab.wire.rtp import HEADER_BYTES, REPAIR_BYTES, RtpPacket
from avlab.wire.units import EncodedFrame, WireError

FORMATS: list[tuple[Any, Any, bytes]] = [(H264Format, h264.units_of, b"\x65"), (H265Format, h265.units_of, b"\x26\x01")]

bodies = st.binary(min_size=4, max_size=5000).map(lambda data: data.replace(b"\0", b"\x03") + b"\x80")


def frame(units: list[bytes]) -> EncodedFrame:
    return EncodedFrame(0, 0, joined(units), 64, 48)


def payloads(form: Any, units: list[bytes], size: int) -> list[bytes]:
    packed = form.pack(frame(units), payload_type=96, packet_size=size)
    packets = [data for batch in packed.all_stamped(sequence=1, timestamp=2, ssrc=3) for data in batch.datagrams()]
    assert all(len(data) <= size - REPAIR_BYTES for data in packets)
    parsed = [RtpPacket.parse(data) for data in packets]
    assert [packet.marker for packet in parsed] == [False] * (len(parsed) - 1) + [True]
    assert all(len(packet.payload) + HEADER_BYTES == len(data) for packet, data in zip(parsed, packets, strict=True))
    return [packet.payload for packet in parsed]


@pytest.mark.parametrize(("form", "units_of", "header"), FORMATS)
@given(st.lists(bodies, min_size=1, max_size=5), st.integers(200, 1500))
def test_what_is_packed_is_what_is_unpacked(
    form: Any, units_of: Any, header: bytes, parts: list[bytes], size: int
) -> None:
    units = [header + part for part in parts]
    came = payloads(form(), units, size)
    assert units_of(came) == units
    assembler = form().assembler()
    packed = form().pack(frame(units), payload_type=96, packet_size=size)
    number = 10
    for batch in packed.all_stamped(sequence=10, timestamp=0, ssrc=0):
        last = number + batch.total == 10 + packed.total
        assert not assembler.add_run(number, last, batch)
        number += batch.total
    assembler.begins(10)
    assert assembler.complete
    assert assembler.frame() == joined(units)
    assert assembler.key


@pytest.mark.parametrize(("form", "units_of", "header"), FORMATS)
def test_a_picture_of_which_a_packet_is_cut_or_lost_is_none(form: Any, units_of: Any, header: bytes) -> None:
    came = payloads(form(), [header + b"\x11" * 900], 300)
    for gone in range(len(came)):
        with pytest.raises(WireError):
            units_of(came[:gone] + came[gone + 1 :]) if gone in (0, len(came) - 1) else units_of(came[::-1])


def test_units_that_share_a_packet_come_out_one_by_one() -> None:
    sps, pps, idr = b"\x67\x42\xc0\x1f", b"\x68\xce", b"\x65" + b"\x22" * 30
    together = b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in (sps, pps, idr))
    assert h264.units_of([together]) == [sps, pps, idr]
    for end in range(2, len(together)):
        if end not in (1 + 2 + len(sps), 1 + 4 + len(sps) + len(pps)):
            with pytest.raises(WireError):
                h264.units_of([together[:end]])
    vps, slice_ = b"\x40\x01\x0c", b"\x26\x01" + b"\x33" * 20
    together = b"\x60\x01" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in (vps, slice_))
    assert h265.units_of([together]) == [vps, slice_]


@pytest.mark.parametrize("units_of", [h264.units_of, h265.units_of])
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_whatever_comes_is_units_or_refused(units_of: Any, came: list[bytes]) -> None:
    try:
        units = units_of(came)
    except WireError:
        return
    assert all(units)


@pytest.mark.parametrize("code", ["abc", "=", "not base64 %", "", ",,,", "Z0LAHg=="])
def test_parameter_sets_that_cannot_be_read_are_as_if_not_told(code: str) -> None:
    form = video_format("H264", {"sprop-parameter-sets": code})
    assert isinstance(form, H264Format)
    assert len(split(form.setup)) <= 1


def test_a_description_tells_the_parameter_sets_and_what_is_not_played() -> None:
    sps, pps = b"\x67\x42\xc0\x1f\x8c", b"\x68\xce\x3c\x80\x01"
    words = f"packetization-mode=1;profile-level-id=42C01F;sprop-parameter-sets={b64(sps)},{b64(pps)}"
    form = video_format("h264", {"sprop-parameter-sets": f"{b64(sps)},{b64(pps)}", "packetization-mode": "1"})
    assert isinstance(form, H264Format)
    assert form.setup == joined([sps, pps])
    assert form.parameters == words
    hevc = H265Format(setup=joined([b"\x40\x01\x0c", b"\x42\x01\x02", b"\x44\x01\x03"]))
    told = dict(word.split("=", 1) for word in hevc.parameters.split(";"))
    assert H265Format.described(told).setup == hevc.setup
    for encoding, parameters in (("H264", {"packetization-mode": "2"}), ("H265", {"sprop-max-don-diff": "3"})):
        with pytest.raises(WireError, match="is not played"):
            video_format(encoding, parameters)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
