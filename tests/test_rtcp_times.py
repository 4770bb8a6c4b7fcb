"""RFC 3611's times: receivers that tell theirs, senders that answer, and what strangers can do with either."""

from __future__ import annotations

import pytest
from clockpair import PICTURE

from avlab.core.arriving import Described
from avlab.core.budget import FeedbackBudget
from avlab.core.events import ClockTold, Path
from avlab.core.moments import MOST_KEPT, Moments, delay_units, middle
from avlab.core.player import Player
from avlab.core.sender import Outlet, Sender
from avlab.measure.record import trace as records
from avlab.measure.record.trace import Recorder
from avlab.wire import rtcp, sdp
from avlab.wire.batch import Batch
from avlab.wire.rtp import JPEG, VIDEO_CLOCK
from avlab.wire.units import NS, WireError

MS = NS // 1000
UNIX_NS = 1_780_000_000 * NS
CONTROL = Path("video", control=True)

TOLD = rtcp.ExtendedReport(9, reference=0xE9A1_0000_8000_0001)
ANSWERED = rtcp.ExtendedReport(5, delays=(rtcp.Delay(9, 0x0000_8000, 65_536), rtcp.Delay(10, 7, 3)))
BOTH = rtcp.ExtendedReport(5, reference=1 << 63, delays=(rtcp.Delay(9, 1, 2),))


def compound(*packets: rtcp.RtcpPacket) -> bytes:
    return rtcp.serialize_compound([rtcp.ReceiverReport(9), rtcp.Sdes(9, "x"), *packets])


@pytest.mark.parametrize("report", [TOLD, ANSWERED, BOTH, rtcp.ExtendedReport(3)])
def test_an_extended_report_is_read_as_it_was_written(report: rtcp.ExtendedReport) -> None:
    assert rtcp.parse_compound(compound(report))[-1] == report
    assert rtcp.reference_in(compound(report)) == (
        None if report.reference is None else (report.ssrc, report.reference)
    )


def test_the_bytes_are_those_of_the_rfc() -> None:
    data = compound(TOLD, ANSWERED)
    assert bytes.fromhex("80cf0004 00000009 04000002 e9a10000 80000001") in data
    assert bytes.fromhex("80cf0008 00000005 05000006 00000009 00008000 00010000 0000000a 00000007 00000003") in data


def test_blocks_of_other_kinds_are_passed_over() -> None:
    other = bytes.fromhex("80cf0007 00000009 07000001 ffffffff 04000002 00000001 00000002 00000000")
    # A block that is longer than what is left is no report; one whose length does not fit its kind is passed over.
    assert rtcp.parse_compound(compound() + other[:-4].replace(b"\xcf\x00\x07", b"\xcf\x00\x06"))[-1] == (
        rtcp.ExtendedReport(9, reference=0x0000_0001_0000_0002)
    )
    odd = bytes.fromhex("80cf0003 00000009 04000001 ffffffff")
    assert rtcp.parse_compound(compound() + odd)[-1] == rtcp.ExtendedReport(9)


@pytest.mark.parametrize("cut", range(1, 20))
def test_one_that_is_cut_short_is_refused(cut: int) -> None:
    whole = bytes.fromhex("80cf0004 00000009 04000002 e9a10000 80000001")
    with pytest.raises(WireError):
        rtcp.parse_compound(compound() + whole[:-cut])


@pytest.mark.parametrize("words", [0, 2, 3])
def test_a_block_that_is_longer_than_its_report_is_refused(words: int) -> None:
    whole = bytes.fromhex("80cf") + words.to_bytes(2, "big") + bytes.fromhex("00000009 04000002 e9a10000 80000001")
    with pytest.raises(WireError, match="cut short"):
        rtcp.parse_compound(compound() + whole[: 4 + 4 * words])


def test_a_block_answers_no_more_than_it_may() -> None:
    delays = tuple(rtcp.Delay(each, each, each) for each in range(rtcp.MAX_DELAYS + 1))
    with pytest.raises(WireError, match="at most 64 receivers"):
        compound(rtcp.ExtendedReport(5, delays=delays))
    long = bytes.fromhex("80cf") + (1 + 1 + 3 * 200).to_bytes(2, "big") + bytes(4)
    long += bytes.fromhex("0500") + (3 * 200).to_bytes(2, "big") + bytes(12 * 200)
    assert len(rtcp.parse_compound(compound() + long)[-1].delays) == rtcp.MAX_DELAYS  # type: ignore[union-attr]


def test_the_description_asks_for_times_as_the_rfc_writes_it() -> None:
    assert sdp.TIMES_ASKED == (("rtcp-xr", "rcvr-rtt=sender"),)
    assert sdp.asks_for_times((("rtcp-xr", "stat-summary=loss,jitt rcvr-rtt=all:20"),))
    assert not sdp.asks_for_times((("rtcp-xr", "stat-summary"), ("rtcp-fb", "rcvr-rtt=all")))


def test_moments_are_known_again_by_their_middle_bits_and_forgotten_in_time() -> None:
    moments = Moments(UNIX_NS)
    told = [moments.tell(number * 500 * MS + 1) for number in range(MOST_KEPT + 1)]
    assert moments.echoed(middle(told[-1])) == MOST_KEPT * 500 * MS + 1
    assert moments.echoed(middle(told[0])) is None
    assert moments.echoed(0) is None
    assert rtcp.ntp_to_ns(told[3]) == UNIX_NS + 1500 * MS + 1
    assert (delay_units(-5), delay_units(NS), delay_units(NS << 20)) == (0, 65_536, 0xFFFFFFFF)


# ---- a sender


def sender(*, shared: bool = False) -> Sender:
    machine = Sender(unix_offset_ns=UNIX_NS, budget=FeedbackBudget(), shared=shared)
    machine.add(Outlet("video", rate=VIDEO_CLOCK, ssrc=5, sequence=1, timestamp_offset=0))
    machine.play(0, 0)
    machine.send("video", PICTURE, 0, 0)
    machine.outgoing()
    machine.events()
    return machine


def told(reporter: int, reference: int | None, *, last_sr: int = 0, delay: int = 0) -> Batch:
    block = rtcp.ReportBlock(5, 0, 0, 1, 0, last_sr, delay)
    packets: list[rtcp.RtcpPacket] = [rtcp.ReceiverReport(reporter, (block,)), rtcp.Sdes(reporter, "x")]
    if reference is not None:
        packets.append(rtcp.ExtendedReport(reporter, reference=reference))
    data = rtcp.serialize_compound(packets)
    return Batch(data, len(data))


def answers(machine: Sender) -> list[rtcp.Delay]:
    found = []
    for path, batch, _ in machine.outgoing():
        for packet in rtcp.parse_compound(batch.data) if path.control else ():
            found += packet.delays if isinstance(packet, rtcp.ExtendedReport) else ()
    return found


def test_a_sender_answers_once_in_its_next_report() -> None:
    machine = sender()
    reference = rtcp.ns_to_ntp(UNIX_NS + 3 * NS)
    machine.receive(CONTROL, told(9, reference), 200 * MS)
    [event] = [event for event in machine.events() if isinstance(event, ClockTold)]
    assert (event.time_ns, event.peer, event.told_ns, event.echo_ns) == (200 * MS, 9, UNIX_NS + 3 * NS, None)
    machine.send("video", PICTURE, 600 * MS, 600 * MS)
    assert answers(machine) == [rtcp.Delay(9, middle(reference), delay_units(400 * MS))]
    machine.send("video", PICTURE, 1200 * MS, 1200 * MS)
    assert answers(machine) == []


def test_a_sender_knows_which_of_its_reports_is_answered() -> None:
    machine = sender()
    first = middle(rtcp.ns_to_ntp(UNIX_NS))
    machine.receive(CONTROL, told(9, None, last_sr=first, delay=delay_units(150 * MS)), 200 * MS)
    [event] = [event for event in machine.events() if isinstance(event, ClockTold)]
    assert (event.told_ns, event.echo_ns) == (None, 0)
    assert event.held_ns == pytest.approx(150 * MS, abs=16_000)
    machine.receive(CONTROL, told(9, None, last_sr=first + 77), 400 * MS)  # that was never sent
    assert not [event for event in machine.events() if isinstance(event, ClockTold)]


def test_a_group_is_answered_each_by_its_own_name_and_no_more_than_fit() -> None:
    machine = sender(shared=True)
    for reporter in range(100, 100 + rtcp.MAX_DELAYS + 6):
        machine.receive(CONTROL, told(reporter, rtcp.ns_to_ntp(UNIX_NS + reporter * NS)), 200 * MS)
    machine.send("video", PICTURE, 600 * MS, 600 * MS)
    first = answers(machine)
    machine.send("video", PICTURE, 1200 * MS, 1200 * MS)
    rest = answers(machine)
    assert [delay.ssrc for delay in first + rest] == list(range(100, 100 + rtcp.MAX_DELAYS + 6))
    assert len(rest) == 6


def test_a_flood_of_times_is_heard_no_more_often_than_reports() -> None:
    machine = sender()
    for number in range(1_000):
        machine.receive(CONTROL, told(9, rtcp.ns_to_ntp(UNIX_NS + number)), 200 * MS + number)
    assert len([event for event in machine.events() if isinstance(event, ClockTold)]) == 1


# ---- a player


def player(*, asked: bool) -> Player:
    machine = Player(ssrc=9, unix_offset_ns=UNIX_NS)
    machine.add("video", Described(JPEG, VIDEO_CLOCK, tells_times=asked))
    machine.prepare(streams={"video"}, delay_ns=0)
    machine.begin(0, {"video": 0}, 0)
    for batch in PICTURE.all_stamped(sequence=1, timestamp=0, ssrc=5):
        machine.receive(Path("video"), batch, 10 * MS)
    machine.handle_timer(300 * MS)
    return machine


@pytest.mark.parametrize("asked", [True, False])
def test_a_player_tells_its_time_where_it_is_asked_to(asked: bool) -> None:
    [(_, batch)] = player(asked=asked).outgoing()
    expected = (9, rtcp.ns_to_ntp(UNIX_NS + 300 * MS)) if asked else None
    assert rtcp.reference_in(batch.data) == expected


def test_a_player_knows_its_own_answer_among_others_and_no_made_up_one() -> None:
    machine = player(asked=True)
    mine = middle(rtcp.ns_to_ntp(UNIX_NS + 300 * MS))
    machine.events()
    for number, delay in enumerate(
        (rtcp.Delay(9, mine, 65_536 // 10), rtcp.Delay(9, 12345, 1), rtcp.Delay(8, mine, 1))
    ):
        report = rtcp.SenderReport(5, rtcp.ns_to_ntp(UNIX_NS + 7 * NS), 0, 1, 1)
        extended = rtcp.ExtendedReport(5, delays=(rtcp.Delay(77, 1, 1), delay))
        data = rtcp.serialize_compound([report, rtcp.Sdes(5, "avlab"), extended])
        machine.receive(CONTROL, Batch(data, len(data)), 500 * MS + number * NS)
    events = [event for event in machine.events() if isinstance(event, ClockTold)]
    assert [event.echo_ns for event in events] == [300 * MS, None, None]
    assert events[0].held_ns == pytest.approx(100 * MS, abs=16_000)
    assert {(event.told_ns, event.peer) for event in events} == {(UNIX_NS + 7 * NS, 5)}


def test_a_flood_of_sender_reports_fills_no_record() -> None:
    machine = player(asked=True)
    for number in range(1_000):
        report = rtcp.SenderReport(5, rtcp.ns_to_ntp(UNIX_NS + number), 0, 1, 1)
        data = rtcp.serialize_compound([report, rtcp.Sdes(5, "avlab")])
        machine.receive(CONTROL, Batch(data, len(data)), 500 * MS + number * MS)
    assert len([event for event in machine.events() if isinstance(event, ClockTold)]) <= 9


def test_a_record_keeps_so_much_of_clocks_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_CLOCKS", 5)
    recorder = Recorder(side="server", epoch_ns=0, clock="one")
    for number in range(9):
        recorder.clock(number, "video", 5, peer=9, told_ns=number)
    trace = recorder.trace()
    assert trace.count("clocks") == 5
    [event] = trace.settings["value"]
    assert "clocks were told of more than 5 times" in event
    with pytest.raises(ValueError, match="a clock's stream is one of"):
        recorder.clock(0, "smell", 5, peer=9)
