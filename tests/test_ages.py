"""How old datagrams are, as the system tells: a report that is read late is told by when it came."""

from __future__ import annotations

import sys
import time

import pytest

from avlab.core.budget import FeedbackBudget
from avlab.core.events import Path, Reported
from avlab.core.sender import Outlet, Sender
from avlab.stream.sockets.links import UdpLink
from avlab.wire import rtcp
from avlab.wire.batch import Batch
from avlab.wire.rtp import Packed, serialize_header
from avlab.wire.units import NS

MS = 1_000_000


@pytest.mark.parametrize("asks", [True, False])
def test_datagrams_are_read_with_their_ages(asks: bool) -> None:
    here, there = UdpLink("127.0.0.1"), UdpLink("127.0.0.1")
    try:
        told = there.ask_for_ages() if asks else False
        if asks and sys.platform.startswith("linux"):
            assert told
        for _ in range(500):  # the kernel begins to note them a moment after it was asked to
            here.send([b"first"], ("127.0.0.1", there.port))
            time.sleep(0.02)
            if not told or there.receive_aged()[0][2] >= 20 * MS:
                break
        while there.receive_aged():
            continue
        here.send([b"first"], ("127.0.0.1", there.port))
        time.sleep(0.02)
        here.send([b"a" * 50, b"b" * 50, b"c" * 20], ("127.0.0.1", there.port))
        found = there.receive_aged()
        assert [data for data, _, _ in found] == [b"first", b"a" * 50, b"b" * 50, b"c" * 20]
        assert {address for _, address, _ in found} == {("127.0.0.1", here.port)}
        if told:
            assert found[0][2] >= 20 * MS
            assert 0 <= found[1][2] <= found[0][2] - 20 * MS
        else:
            assert {age_ns for _, _, age_ns in found} == {0}
        assert there.receive_aged() == []
    finally:
        here.close()
        there.close()


def test_a_round_trip_ends_when_the_report_came() -> None:
    """And not when it is read."""
    told = []
    for age_ns in (0, 40 * MS):
        sender = Sender(unix_offset_ns=10**18, budget=FeedbackBudget())
        sender.add(Outlet("video", rate=90_000, ssrc=5, sequence=7, timestamp_offset=0))
        sender.play(0, 0)
        sender.send("video", Packed(Batch(serialize_header(26, 0, 0, 0, True) + b"x", 13)), 0, 0)
        sent_ns = 0
        last_sr = rtcp.ns_to_ntp(10**18 + sent_ns) >> 16 & 0xFFFFFFFF
        block = rtcp.ReportBlock(5, 0, 0, 7, 0, last_sr, delay_since_sr=0)
        report = rtcp.ReceiverReport(9, (block,))
        data = rtcp.serialize_compound([report, rtcp.Sdes(9, "x")])
        sender.receive(Path("", control=True), Batch(data, len(data)), 100 * MS, age_ns=age_ns)
        told += [event for event in sender.events() if isinstance(event, Reported)]
    assert [one.doubt for one in told] == [None, None]
    trips = [one.round_trip_ns or 0 for one in told]
    assert trips[0] == pytest.approx(NS // 10, abs=MS)
    assert trips[0] - trips[1] == pytest.approx(40 * MS, abs=MS)
