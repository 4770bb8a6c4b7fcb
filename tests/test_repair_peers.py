"""Retransmission and parity held against GStreamer's own elements, both ways, byte for byte."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from tools import SYSTEM_PYTHON

from avlab.network.parity import ParityDecoder, ParityEncoder
from avlab.network.retransmission import RtxSender, original_packet
from avlab.wire.batch import batches
from avlab.wire.rtp import RtpPacket, serialize_header

pytestmark = pytest.mark.slow

MEDIA, RTX, FEC, SSRC = 26, 96, 97, 0x1234

Step = tuple[bytes, bytes]


def gstreamer(kind: str, steps: Iterable[Step]) -> list[bytes]:
    """What one of GStreamer's elements makes of the steps."""
    command = [SYSTEM_PYTHON, str(Path(__file__).with_name("gst_repair.py")), kind]
    told = b"".join(letter + len(data).to_bytes(2, "big") + data for letter, data in steps)
    data = subprocess.run(command, input=told, capture_output=True, check=True, timeout=180).stdout
    out = []
    while data:
        end = 3 + int.from_bytes(data[1:3], "big")
        out.append(data[3:end])
        data = data[end:]
    return out


def frames(count: int, packets: int, first: int = 65_530) -> list[list[bytes]]:
    """Frames of packets of unequal length, numbered past where 16 bits wrap."""
    chance = random.Random(5)
    out, number = [], first
    for at in range(count):
        frame = []
        for place in range(packets):
            header = serialize_header(MEDIA, number & 0xFFFF, 90_000 + 3000 * at, SSRC, place == packets - 1)
            frame.append(header + chance.randbytes(chance.randrange(1, 1150)))
            number += 1
        out.append(frame)
    return out


def numbers(packets: Iterable[bytes]) -> list[int]:
    return [RtpPacket.parse(packet).sequence for packet in packets]


def unnumbered(packet: bytes) -> bytes:
    return packet[:2] + packet[4:]


@pytest.mark.needs("gst-rtsp-server", "gst:rtprtxsend")
def test_what_gstreamer_sends_again_is_restored() -> None:
    sent = [packet for frame in frames(3, 5) for packet in frame]
    wanted = [sent[1], sent[8], sent[14]]
    asked = [(b"R", packet[2:4]) for packet in wanted]
    out = gstreamer("rtxsend", [*((b"P", packet) for packet in sent), *asked])
    again = [packet for data in out if (packet := RtpPacket.parse(data)).payload_type == RTX]
    assert [original_packet(packet, payload_type=MEDIA, ssrc=SSRC).serialize() for packet in again] == wanted
    assert len(out) == len(sent) + 3


@pytest.mark.needs("gst-rtsp-server", "gst:rtprtxreceive")
def test_gstreamer_restores_what_is_sent_again() -> None:
    sent = [packet for frame in frames(3, 5) for packet in frame]
    history = RtxSender(ssrc=0x9876, payload_type=RTX, sequence=65_535)
    for batch in batches(sent):
        history.sent(batch, 0)
    lost = {1, 8, 13}
    steps = [(b"P", packet) for at, packet in enumerate(sent) if at not in lost]
    for at in sorted(lost):
        steps.append((b"R", sent[at][2:4]))
        steps += [(b"P", packet) for packet in history.answer(numbers([sent[at]]), at)]
    out = gstreamer("rtxreceive", steps)
    assert sorted(out) == sorted(sent)
    assert out[-3:] == [sent[at] for at in sorted(lost)]


@pytest.mark.needs("gst-rtsp-server", "gst:rtpulpfecenc")
def test_gstreamers_parity_brings_packets_back() -> None:
    sent = [packet for frame in frames(12, 10) for packet in frame]
    out = gstreamer("fecenc", [(b"P", packet) for packet in sent])
    parity = [data for data in out if RtpPacket.parse(data).payload_type == FEC]
    media = [data for data in out if RtpPacket.parse(data).payload_type == MEDIA]
    assert len(media) == len(sent)
    assert len(parity) > 30
    decoder = ParityDecoder(payload_type=MEDIA, parity_type=FEC)
    lost = media[3::10]  # one a frame
    back = [restored for data in out if data not in lost for restored in decoder.feed(data)]
    assert back == lost
    assert decoder.nonsense == 0


@pytest.mark.needs("gst-rtsp-server", "gst:rtpulpfecdec", "gst:rtpstorage")
@pytest.mark.parametrize(("size", "overhead", "burst"), [(10, 0.2, 2), (12, 0.25, 3), (5, 0.2, 1), (60, 0.1, 3)])
def test_gstreamer_brings_back_what_parity_protects(size: int, overhead: float, burst: int) -> None:
    encoder = ParityEncoder(payload_type=FEC, overhead=overhead)
    steps: list[Step] = []
    lost: list[bytes] = []
    number = 65_500
    for frame in frames(6, size):
        renumbered = [f[:2] + ((number + at) & 0xFFFF).to_bytes(2, "big") + f[4:] for at, f in enumerate(frame)]
        parity = encoder.protect(renumbered)
        number += size + len(parity)
        gone = renumbered[2 : 2 + burst]
        steps += [(b"P", packet) for packet in [*renumbered, *parity] if packet not in gone]
        steps += [(b"L", packet[2:4]) for packet in gone]
        lost += gone
    # The element numbers what it gives anew, parity included; all else is as it was sent.
    wanted = [unnumbered(packet) for packet in lost]
    assert [found for packet in gstreamer("fecdec", steps) if (found := unnumbered(packet)) in wanted] == wanted
