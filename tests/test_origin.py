"""Which datagrams are a stream's: by addresses, however written, and by who came first. No sockets."""

from __future__ import annotations

import pytest
from scripted import single

from avlab.stream.rtsp.origin import STRANGERS, Origin
from avlab.wire.batch import Batch
from avlab.wire.rtp import RtpPacket

SERVER, OTHER, THIRD = "192.0.2.1", "198.51.100.7", "203.0.113.9"
SSRC = 0x1234


def packet(*, ssrc: int = SSRC, kind: int = 26, number: int = 0) -> bytes:
    return RtpPacket(kind, number, 0, ssrc, False, b"x").serialize()


def origin(**settings: object) -> Origin:
    return Origin(SERVER, **({"payload_type": 26, "ssrc": SSRC} | settings))  # type: ignore[arg-type]


def taken(origin: Origin, host: str, count: int = 1, *, port: int = 5000, **of: int) -> int:
    batches = [batch for _ in range(count) for batch in origin.media([(single(packet(**of)), (host, port))])]
    return sum(batch.total for batch in batches)


def test_the_servers_own_address_counts_at_once() -> None:
    it = origin()
    assert not it.reached
    assert taken(it, SERVER) == 1
    assert (it.host, it.adopted, it.reached) == (SERVER, False, True)


@pytest.mark.parametrize("written", ["::ffff:192.0.2.1", "::FFFF:192.0.2.1"])
def test_however_it_is_written(written: str) -> None:
    assert taken(origin(), written) == 1
    six = Origin("fe80::1%eth0", payload_type=26)
    assert len(six.media([(single(packet()), ("FE80:0::1%eth0", 5))])) == 1
    assert not six.media([(single(packet()), ("fe80::1%eth1", 5))])
    assert len(six.media([(single(packet()), ("fe80::1", 5))])) == 1  # as sockets tell it: the scope is a number
    assert six.reports_to == ("fe80::1%eth0", 6)


def test_what_setup_says_is_the_servers_own_too() -> None:
    it = origin(sources=(OTHER,), server_port=(6000, 6001))
    assert it.reports_to == (SERVER, 6001)
    assert taken(it, OTHER) == 1
    assert not it.adopted
    assert it.reports_to == (OTHER, 6001)


def test_a_stranger_is_taken_after_five_packets_and_none_of_them_is_lost() -> None:
    it = origin()
    assert taken(it, OTHER, STRANGERS - 1) == 0
    assert it.host == SERVER
    assert taken(it, OTHER) == STRANGERS
    assert (it.host, it.adopted) == (OTHER, True)
    assert taken(it, OTHER, 3) == 3


def test_those_that_come_in_one_batch_are_taken_whole() -> None:
    """The system may hand over many of a stranger's packets together: those after the five are taken, too."""
    it = origin()
    together = Batch(packet() * 12, len(packet()))
    assert sum(batch.total for batch in it.media([(together, (OTHER, 5000))])) == 12
    assert (it.host, it.adopted) == (OTHER, True)
    assert it.media([(together, (THIRD, 5000))]) == []
    assert it.media([(together, (SERVER, 5000))]) == [together]


@pytest.mark.parametrize(
    "between",
    [
        (OTHER, {"ssrc": 9}),
        (OTHER, {"kind": 0}),
        (THIRD, {}),
        (SERVER, {}),
    ],
)
def test_the_five_are_in_a_row(between: tuple[str, dict[str, int]]) -> None:
    it = origin()
    host, of = between
    taken(it, OTHER, STRANGERS - 1)
    taken(it, host, **of)
    assert taken(it, OTHER) == 0
    assert it.host == SERVER


def test_bytes_that_are_no_packet_make_nobody_the_source() -> None:
    it = origin()
    for data in (b"", b"\x80", bytes(12), b"\x80\x1a" + bytes(5), packet()[:11]):
        for _ in range(STRANGERS):
            assert it.media([(single(data), (OTHER, 5))]) == []
    assert it.host == SERVER


def test_the_server_wins_also_later_and_for_good() -> None:
    it = origin()
    taken(it, OTHER, STRANGERS)
    assert taken(it, SERVER) == 1
    assert (it.host, it.adopted) == (SERVER, False)
    assert taken(it, OTHER, 3 * STRANGERS) == 0


def test_one_stranger_after_the_other_does_not_take_over() -> None:
    it = origin()
    taken(it, OTHER, STRANGERS)
    assert taken(it, THIRD, 3 * STRANGERS) == 0
    assert it.host == OTHER


def test_an_ssrc_that_was_not_described_is_one_all_the_same() -> None:
    it = origin(ssrc=None)
    for ssrc in range(2 * STRANGERS):
        assert taken(it, OTHER, ssrc=ssrc) == 0
    assert taken(it, OTHER, STRANGERS, ssrc=77) == STRANGERS


def test_a_flood_of_addresses_is_not_remembered() -> None:
    it = origin()
    for n in range(5000):
        taken(it, f"198.51.{n >> 8}.{n & 255}")
    assert taken(it, SERVER) == 1


def test_reports_of_strangers_count_for_nothing() -> None:
    it = origin(server_port=(6000, 6001))
    assert it.control([(single(b"bye"), (OTHER, 6001))]) == []
    assert it.control([(single(b"report"), (SERVER, 6001))]) == [single(b"report")]


def test_of_one_address_the_port_that_was_granted_counts() -> None:
    it = origin(server_port=(6000, 6001))
    assert it.control([(single(b"report"), (SERVER, 7777))]) == [single(b"report")]  # through a NAT, say
    assert it.control([(single(b"report"), (SERVER, 6001))]) == [single(b"report")]
    assert it.control([(single(b"bye"), (SERVER, 7777))]) == []
    assert it.control([(single(b"bye"), (SERVER, 6001))]) == [single(b"bye")]


def test_without_a_port_granted_reports_go_where_reports_come_from() -> None:
    it = origin()
    assert it.reports_to is None
    assert it.doors == []
    taken(it, SERVER, port=7000)
    assert it.reports_to == (SERVER, 7001)
    it.control([(single(b"report"), (SERVER, 7500))])
    assert it.reports_to == (SERVER, 7500)


def test_doors_are_each_port_of_each_address() -> None:
    it = origin(sources=(OTHER,), server_port=(6000, 6001))
    assert it.doors == [((SERVER, 6000), (SERVER, 6001)), ((OTHER, 6000), (OTHER, 6001))]
