"""The video call in data/: what is in the file, and that its maker writes such a one."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tools

import avlab
from benchmarks import call

BEGIN_NS = 1_700_000_000_000_000_000
CALL = Path(__file__).parents[1] / "data" / "call.pcap"


def headers() -> Iterator[tuple[int, bytes]]:
    """Each packet's length on the wire, and what was kept of it."""
    data, at = CALL.read_bytes(), 24
    while at < len(data):
        kept, length = struct.unpack_from("<II", data, at + 8)
        yield length, data[at + 16 : at + 16 + kept]
        at += 16 + kept


def test_nothing_of_payloads_or_of_anybodys_network_is_in_it() -> None:
    made_up = ipaddress.ip_network("192.0.2.0/24")  # RFC 5737
    packets = list(headers())
    assert len(packets) == 2_431
    assert CALL.stat().st_size < 250_000
    for length, data in packets:
        assert len(data) == min(length, call.HEADERS)
        assert call.checksum(data[:20]) == 0
        assert all(ipaddress.ip_address(data[at : at + 4]) in made_up for at in (12, 16))
        assert b"candidate" not in data


def test_its_streams_are_a_call_s_both_ways_with_retransmission() -> None:
    trace = avlab.Trace.from_pcap(CALL, streams=[2, 1])
    streams = trace.meta["streams"]
    assert [(each["kind"], each["payload_type"]) for each in streams] == [
        ("audio", 96), ("video", 97), ("audio", 96), ("video", 97), ("video", 98), ("video", 98),
    ]  # fmt: skip
    assert [each["packets"] for each in streams] == [489, 638, 496, 653, 18, 3]
    assert [each["lost"] for each in streams] == [11, 18, 0, 0, 1, 0]
    assert [each["rate"] for each in streams[:4]] == [48_000, 90_000] * 2
    assert avlab.metrics.frame_ledger(trace).offered == 300
    assert streams[1]["jitter_ms"] > 2 * streams[3]["jitter_ms"]


def test_the_loudness_that_is_in_the_clear_is_that_of_the_clip_s_tones() -> None:
    """RFC 6464's level, in the 20th byte of a packet of sound: a tone of 0.1 s each second."""
    loud = []
    for _, data in headers():
        packet = data[28:]
        if data[12:16] == socket.inet_aton(call.ADA[0]) and packet[0] == 0x90 and packet[1] & 0x7F == 96:
            assert packet[12:16] == b"\xbe\xde\x00\x01"
            assert packet[18] == 0x20
            loud.append((int.from_bytes(packet[4:8], "big"), packet[19] & 0x7F))
    ticks, below = np.array(loud).T
    seconds = (ticks - ticks[0]) / 48_000
    heard = seconds[below < 20]
    begins = heard[np.diff(heard, prepend=-1.0) > 0.5]
    np.testing.assert_allclose(begins, np.arange(10), atol=0.12)
    assert len(heard) / len(below) == pytest.approx(0.1, abs=0.03)


@pytest.mark.needs("tshark")
def test_tshark_counts_the_same() -> None:
    said = tools.run("tshark", "-n", "-r", CALL, "--enable-heuristic", "rtp_udp", "-q", "-z", "rtp,streams")
    told = {}
    for line in said.splitlines():
        if " 0x" in line:
            ssrc, rest = line.split(" 0x")[1].split(None, 1)
            told[int(ssrc, 16)] = tuple(map(int, rest.split("(", 1)[0].split()[-2:]))
    ours = {each["ssrc"]: (each["packets"], each["lost"]) for each in avlab.Trace.from_pcap(CALL).meta["streams"]}
    assert {ssrc: told[ssrc] for ssrc, (packets, _) in ours.items() if packets > 3} == {
        ssrc: counts for ssrc, counts in ours.items() if counts[0] > 3
    }


def test_a_call_that_is_written_down_is_read_again(tmp_path: Path) -> None:
    sound = [struct.pack("!BBHII", 0x80, 96, at, 960 * at, 0xABCD) + bytes(200) for at in range(100)]
    made = [call.Packet(BEGIN_NS + at * 20_000_000, packet, False) for at, packet in enumerate(sound) if at != 50]
    path = tmp_path / "some.pcap"
    path.write_bytes(CALL.read_bytes()[:24] + b"".join(map(call.record, made)))
    [stream] = avlab.Trace.from_pcap(path).meta["streams"]
    assert (stream["packets"], stream["lost"], stream["rate"]) == (99, 1, 48_000)
    assert stream["flow"] == [*call.ADA, *call.BELA, 17]
    assert stream["jitter_ms"] < 1e-3
    assert path.stat().st_size == 24 + 99 * (16 + call.HEADERS)


def test_a_peer_is_reached_by_way_of_the_relay() -> None:
    said = (
        "v=0\r\nm=audio 9 UDP 96\r\na=candidate:1 1 udp 21 10.0.0.1 40001 typ host\r\n"
        "m=video 9 UDP 97\r\na=candidate:1 1 udp 21 10.0.0.1 40001 typ host\r\n",
        "offer",
    )
    assert call.address(said) == ("10.0.0.1", 40_001)
    other = call.by_way_of(said, "127.0.0.1", 5)
    assert other[1] == "offer"
    assert other[0].count(" 127.0.0.1 5 typ host") == 2
    assert "10.0.0.1" not in other[0]
    with pytest.raises(SystemExit, match="no address of IPv4"):
        call.address(("v=0\r\n", "offer"))
