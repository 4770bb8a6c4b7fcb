"""Parity: what one packet in each group brings back, and nonsense that brings back nothing."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.network.parity import (
    KEEP_GROUPS,
    KEEP_PACKETS,
    MASK_BITS,
    ParityDecoder,
    ParityEncoder,
    groups,
    parity_payload,
    parse_parity,
)
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, REPAIR_BYTES, RtpPacket, serialize_header
from avlab.wire.units import WireError

MEDIA, FEC, SSRC = 26, 97, 0xABCD


def frame(count: int, first: int = 65_530, *, timestamp: int = 90_000, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    longest = MAX_PACKET - HEADER_BYTES - REPAIR_BYTES
    return [
        serialize_header(MEDIA, (first + at) & 0xFFFF, timestamp, SSRC, at == count - 1)
        + chance.randbytes(chance.randrange(longest + 1))
        for at in range(count)
    ]


def decoder() -> ParityDecoder:
    return ParityDecoder(payload_type=MEDIA, parity_type=FEC)


def recovered(packets: list[bytes], lost: set[int], overhead: float) -> list[bytes]:
    """What comes back of one frame when the packets at `lost` do not arrive."""
    receiver = decoder()
    sent = [*packets, *ParityEncoder(payload_type=FEC, overhead=overhead).protect(packets)]
    return [back for at, packet in enumerate(sent) if at not in lost for back in receiver.feed(packet)]


def test_the_bytes_are_those_of_rfc_5109() -> None:
    first = bytes.fromhex("80 1a 0064 00000bb8 0000abcd 010203")
    second = bytes.fromhex("80 9a 0066 00000bb8 0000abcd 0f00")
    assert parity_payload([first, second], [0, 2], 100) == bytes.fromhex(
        "00 80 0064 00000000 0001"  # neither E nor L; M and PT; SN base; TS; length: 3 xor 2
        "0003 a000"  # protection length; the first and the third packet
        "0e0203"
    )
    assert parse_parity(parity_payload([first, second], [0, 20], 100)).offsets == [0, 20]
    assert parity_payload([first, second], [0, 20], 100)[0] == 0x40  # L: the mask has 48 bits


@given(st.integers(1, 120), st.floats(0.01, 1), st.data())
def test_one_loss_in_each_group_comes_back(count: int, overhead: float, data: st.DataObject) -> None:
    packets = frame(count)
    lost = {data.draw(st.sampled_from(list(members))) for _, members in groups(count, overhead)}
    assert sorted(recovered(packets, lost, overhead)) == sorted(packets[at] for at in lost)


@pytest.mark.parametrize(("count", "overhead"), [(12, 0.25), (12, 0.5), (7, 0.3), (48, 0.1), (60, 0.1), (1, 0.01)])
def test_a_burst_as_long_as_there_are_groups_comes_back(count: int, overhead: float) -> None:
    packets = frame(count)
    length = len([first for first, _ in groups(count, overhead) if first == 0])
    for start in range(count - length + 1):
        lost = set(range(start, start + length))
        assert sorted(recovered(packets, lost, overhead)) == sorted(packets[at] for at in lost), start


@given(st.integers(1, 300), st.floats(0.001, 1))
def test_groups_cover_every_packet_once(count: int, overhead: float) -> None:
    found = list(groups(count, overhead))
    assert sorted(at for _, members in found for at in members) == list(range(count))
    assert all(members[-1] - first < MASK_BITS for first, members in found)
    assert len(found) <= overhead * count + -(-count // MASK_BITS)


def test_no_packet_is_longer_than_allowed_and_numbers_go_on() -> None:
    packets = frame(12)
    parity = [RtpPacket.parse(data) for data in ParityEncoder(payload_type=FEC, overhead=0.25).protect(packets)]
    assert [packet.sequence for packet in parity] == [6, 7, 8]
    assert {(packet.payload_type, packet.ssrc, packet.timestamp, packet.marker) for packet in parity} == {
        (FEC, SSRC, 90_000, False)
    }
    assert max(len(packet.serialize()) for packet in parity) <= MAX_PACKET


def test_without_overhead_there_is_no_parity() -> None:
    assert ParityEncoder(payload_type=FEC, overhead=0).protect(frame(5)) == []
    with pytest.raises(ValueError, match="parity must be 0 to 1"):
        ParityEncoder(payload_type=FEC, overhead=1.5)


def test_packets_in_any_order_and_twice() -> None:
    packets = frame(10)
    sent = [*packets, *ParityEncoder(payload_type=FEC, overhead=0.2).protect(packets)]
    for seed in range(20):
        order = [at for at in range(len(sent)) if at not in (4, 7)] * 2
        random.Random(seed).shuffle(order)
        receiver = decoder()
        back = [restored for at in order for restored in receiver.feed(sent[at])]
        assert {packets[4], packets[7]} <= set(back) <= set(packets)  # some come back before they come
        assert len(back) == len(set(back)) == receiver.recovered
        assert receiver.nonsense == 0


def test_a_packet_brought_back_helps_another_group() -> None:
    packets = frame(6)
    rows = [parity_payload([packets[a] for a in row], list(row), 65_530) for row in ((0, 1, 2), (2, 3, 4))]
    receiver = decoder()
    parity = [serialize_header(FEC, 1 + at, 90_000, SSRC, False) + payload for at, payload in enumerate(rows)]
    fed = [packets[0], packets[1], packets[4], parity[1], parity[0]]  # 2 and 3 are missing
    back = [restored for packet in fed for restored in receiver.feed(packet)]
    assert back == [packets[2], packets[3]]


def test_parity_that_is_cut_short_is_refused_at_every_length() -> None:
    payload = parity_payload(frame(3), [0, 1, 2], 65_530)
    for length in range(len(payload)):
        with pytest.raises(WireError):
            parse_parity(payload[:length])


@given(st.binary(max_size=60))
def test_nonsense_brings_back_nothing_of_another_kind(payload: bytes) -> None:
    receiver = decoder()
    for packet in frame(6):
        receiver.feed(packet)
    for number in range(6):
        for back in receiver.feed(serialize_header(FEC, number, 90_000, SSRC, False) + payload):
            packet = RtpPacket.parse(back) if len(back) >= HEADER_BYTES else None
            assert packet is None or (packet.payload_type, packet.ssrc) == (MEDIA, SSRC)


def test_a_flood_of_parity_stays_bounded() -> None:
    chance, receiver = random.Random(3), decoder()
    for number in range(20_000):
        mask = chance.getrandbits(47) | 1
        head = bytes((0x40, chance.getrandbits(8))) + ((number - 30) & 0xFFFF).to_bytes(2, "big") + chance.randbytes(6)
        payload = head + (20).to_bytes(2, "big") + mask.to_bytes(6, "big") + chance.randbytes(20)
        receiver.feed(serialize_header(FEC, number & 0xFFFF, 0, SSRC, False) + payload)
    assert len(receiver._groups) <= KEEP_GROUPS
    assert len(receiver._waiting) <= KEEP_GROUPS * MASK_BITS
    assert len(receiver._packets) <= KEEP_PACKETS


def test_a_frame_is_repaired_before_the_next_one_begins() -> None:
    frames = [frame(9, first, timestamp=first, seed=first) for first in (0, 12, 24)]
    encoder, receiver, back = ParityEncoder(payload_type=FEC, overhead=0.3), decoder(), []
    for before, after in pairwise(frames):
        for packet in [*before[:4], *before[5:], *encoder.protect(before)]:
            back += receiver.feed(packet)
        assert back[-1] == before[4]
        assert RtpPacket.parse(after[0]).sequence == RtpPacket.parse(before[0]).sequence + 12
