"""What a server is to one client, in literal time and without a socket: the wire's own parsers read its bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.core.budget import FeedbackBudget
from avlab.core.events import Doubted, Path, Reported, Sent
from avlab.core.sender import REPORT_NS, SLACK_NS, Outlet, Sender
from avlab.network.parity import ParityDecoder, ParityEncoder
from avlab.network.retransmission import AGAIN_NS, KEEP_NS, RtxSender, original_packet
from avlab.timing.spreading import STEP_NS
from avlab.wire import rtcp
from avlab.wire.batch import Batch
from avlab.wire.payloads.l16 import packed_sound
from avlab.wire.rtp import HEADER_BYTES, Packed, ReceiverStats, RtpPacket, serialize_header
from avlab.wire.units import NS, Chunk

MS = 1_000_000
FRAME_NS = 33 * MS
UNIX_NS = 1_700_000_000 * NS
VIDEO, AUDIO, RTX, FEC = 26, 10, 98, 99
VIDEO_SSRC, AUDIO_SSRC, RTX_SSRC = 0xA0, 0xB0, 0xC0
RTCP = Path("video", control=True)


def frame(packets: int, *, size: int = 100, last: int = 40) -> Packed:
    """A picture's packets, each with bytes of its own."""
    data = [
        serialize_header(VIDEO, 0, 0, 0, at == packets - 1) + bytes([at + 1]) * (last if at == packets - 1 else size)
        for at in range(packets)
    ]
    return Packed(Batch(b"".join(data), HEADER_BYTES + (size if packets > 1 else last)))


def sound(pts_ns: int, samples: int = 882) -> Packed:
    chunk = Chunk(0, pts_ns, np.zeros((samples, 2), np.int16), 44_100)
    return packed_sound(chunk, payload_type=AUDIO, rate=44_100, channels=2)


def sender(
    *,
    repair: str = "",
    sequence: int = 65_530,
    budget: FeedbackBudget | None = None,
    interval_ns: int | None = FRAME_NS,
) -> Sender:
    """One that has pictures and sound to send, and nobody has said PLAY yet."""
    made = Sender(unix_offset_ns=UNIX_NS, budget=budget or FeedbackBudget())
    again = RtxSender(ssrc=RTX_SSRC, payload_type=RTX, sequence=65_535) if repair == "rtx" else None
    parity = ParityEncoder(payload_type=FEC) if repair == "fec" else None
    made.add(
        Outlet(
            "video",
            rate=90_000,
            ssrc=VIDEO_SSRC,
            sequence=sequence,
            timestamp_offset=2**32 - 900,
            spreads=True,
            interval_ns=interval_ns,
            again=again,
            parity=parity,
        )
    )
    made.add(Outlet("audio", rate=44_100, ssrc=AUDIO_SSRC, sequence=7, timestamp_offset=5, marks_first=True))
    return made


def media(machine: Sender, stream: str = "video") -> list[RtpPacket]:
    """The packets of a stream that leave now."""
    found = [batch for path, batch, _ in machine.outgoing() if path == Path(stream, control=False)]
    return [RtpPacket.parse(data) for batch in found for data in batch.datagrams()]


def reports(machine: Sender) -> list[tuple[str, list[rtcp.RtcpPacket]]]:
    """The RTCP that leaves now, by stream."""
    return [
        (path.stream, rtcp.parse_compound(data))
        for path, batch, _ in machine.outgoing()
        if path.control
        for data in batch.datagrams()
    ]


def tell(
    machine: Sender, now_ns: int, *blocks: rtcp.ReportBlock, nack: tuple[int, ...] = (), ssrc: int = VIDEO_SSRC
) -> None:
    """The client reports, and asks for packets again."""
    asked = [rtcp.Nack(1, ssrc, nack)] if nack else []
    data = rtcp.serialize_compound([rtcp.ReceiverReport(1, blocks), rtcp.Sdes(1, "x"), *asked])
    machine.receive(RTCP, Batch(data, len(data)), now_ns)


def sent_by(machine: Sender) -> list[Sent]:
    """The batches of media that leave now, by their events."""
    return [leaving.sent for leaving in machine.outgoing() if leaving.sent is not None]


def told(machine: Sender) -> list[Reported | Doubted]:
    return [event for event in machine.events() if isinstance(event, Reported | Doubted)]


# ---- media


def test_packets_are_numbered_stamped_and_marked() -> None:
    machine = sender()
    machine.play(1000 * MS, 40 * MS)
    machine.outgoing()
    assert machine.send("video", frame(8), 50 * MS, 1010 * MS) == 8
    first = media(machine)
    assert [packet.sequence for packet in first] == [65_530, 65_531, 65_532, 65_533, 65_534, 65_535, 0, 1]
    assert [packet.marker for packet in first] == [False] * 7 + [True]
    assert {packet.timestamp for packet in first} == {(2**32 - 900 + 4500) & 0xFFFFFFFF}
    assert {(packet.ssrc, packet.payload_type) for packet in first} == {(VIDEO_SSRC, VIDEO)}
    assert [packet.payload for packet in first] == [bytes([at]) * 100 for at in range(1, 8)] + [bytes([8]) * 40]
    machine.send("video", frame(1), 50 * MS + FRAME_NS, 1043 * MS)
    [later] = media(machine)
    assert (later.sequence, later.timestamp, later.marker) == (2, 3600 + 2970, True)


def test_a_chunk_of_sound_counts_its_samples_and_only_the_first_is_marked() -> None:
    machine = sender()
    machine.play(0, 0)
    machine.outgoing()
    machine.send("audio", sound(0), 0, 0)
    machine.send("audio", sound(20 * MS), 20 * MS, 20 * MS)
    packets = media(machine, "audio")
    assert [packet.marker for packet in packets] == [True] + [False] * (len(packets) - 1)
    assert [packet.sequence for packet in packets] == list(range(7, 7 + len(packets)))
    ticks = 5
    for packet in packets:
        assert packet.timestamp == ticks
        ticks += len(packet.payload) // 4
    assert ticks == 5 + 2 * 882


def test_a_frame_is_made_once_for_all_and_each_client_has_its_own_packets() -> None:
    packed = frame(4)
    before = packed.batch.data
    first, second = sender(sequence=1), sender(sequence=60_000)
    for machine in (first, second):
        machine.play(0, 0)
        machine.outgoing()
        machine.send("video", packed, 0, 0)
    assert packed.batch.data == before
    assert [packet.sequence for packet in media(first)] == [1, 2, 3, 4]
    assert [packet.sequence for packet in media(second)] == [60_000, 60_001, 60_002, 60_003]


def test_who_does_not_play_or_has_no_such_stream_is_sent_nothing() -> None:
    machine = sender()
    assert machine.send("video", frame(3), 0, 0) == 0
    machine.play(0, 0)
    machine.outgoing()
    assert machine.send("subtitles", frame(3), 0, 0) == 0
    assert machine.send("audio", sound(0, samples=0), 0, 0) == 0
    machine.pause()
    assert machine.send("video", frame(3), 0, 0) == 0
    machine.remove("video")
    machine.remove("video")
    machine.play(0, 0)
    machine.outgoing()
    assert machine.send("video", frame(3), 0, 0) == 0
    assert machine.outgoing() == []


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.3, 0.95])), min_size=1, max_size=8))
def test_what_leaves_is_told_in_the_same_order_and_whole(frames: list[tuple[int, float]]) -> None:
    machine, events = sender(), []
    machine.play(0, 0)
    for at, (packets, share) in enumerate(frames):
        machine.spread = share
        machine.send("video", frame(packets), at * FRAME_NS, at * FRAME_NS)
        while (moment_ns := machine.timer_at()) is not None and moment_ns < (at + 1) * FRAME_NS:
            machine.handle_timer(moment_ns)
    machine.end(NS)
    for path, batch, event in machine.outgoing():
        assert path.control == (event is None)
        if event is not None:
            assert event.batch is batch
            events.append(event)
    number = 65_530
    for event in events:
        assert event.number == number
        assert (event.stream, event.ssrc, event.repair, event.fate, event.lane) == (
            "video",
            VIDEO_SSRC,
            "",
            None,
            "video",
        )
        numbers = [RtpPacket.parse(data).sequence for data in event.batch.datagrams()]
        assert numbers == [(number + at) & 0xFFFF for at in range(event.batch.total)]
        number += event.batch.total
    assert number - 65_530 == sum(packets for packets, _ in frames)
    assert [event.time_ns for event in events] == sorted(event.time_ns for event in events)


def test_a_part_of_what_was_sent_has_its_own_numbers_and_fate() -> None:
    machine = sender()
    machine.play(0, 0)
    machine.send("video", frame(5), 0, 0)
    [sent] = sent_by(machine)
    part = sent.part(2, 4, "lost")
    assert (part.number, part.batch.total, part.fate) == (65_532, 2, "lost")
    assert [RtpPacket.parse(data).sequence for data in part.batch.datagrams()] == [65_532, 65_533]


# ---- spreading


def test_packets_of_a_frame_are_spread_over_its_share_and_stay_in_order() -> None:
    machine = sender(interval_ns=10 * MS)
    machine.play(0, 0)
    machine.outgoing()
    machine.spread = 0.5
    machine.send("video", frame(6), 0, 0)
    left = [(0, [packet.sequence for packet in media(machine)])]
    while (moment_ns := machine.timer_at()) is not None and moment_ns < 100 * MS:
        machine.handle_timer(moment_ns - 1)
        assert media(machine) == []
        machine.handle_timer(moment_ns)
        left.append((moment_ns, [packet.sequence for packet in media(machine)]))
    assert left == [(at * STEP_NS, [(65_530 + at) & 0xFFFF]) for at in range(6)]
    machine.send("audio", sound(0), 0, 5 * MS)
    assert media(machine, "audio"), "sound is not spread"


def test_where_the_source_says_no_rate_frames_are_spread_over_the_time_between_them() -> None:
    machine = sender(interval_ns=None)
    machine.play(0, 0)
    machine.spread = 0.5
    for at, (pts_ns, last_ns) in enumerate([(0, NS // 60), (NS, NS // 10), (NS + 40 * MS, 20 * MS)]):
        machine.send("video", frame(50), pts_ns, pts_ns)
        moments = []
        while (moment_ns := machine.timer_at()) is not None and moment_ns < pts_ns + 200 * MS:
            machine.handle_timer(moment_ns)
            moments += [event.time_ns for event in sent_by(machine)]
        assert moments[-1] - pts_ns == pytest.approx(last_ns, abs=STEP_NS), at


def test_what_is_left_of_a_frame_leaves_at_the_end_before_bye() -> None:
    machine = sender()
    machine.play(0, 0)
    machine.spread = 0.9
    machine.send("video", frame(9), 0, 0)
    machine.outgoing()
    machine.end(MS)
    leaving = [(path.control, batch.total) for path, batch, _ in machine.outgoing() if path.stream == "video"]
    assert leaving == [(False, 8), (True, 1)]


# ---- sender reports


def test_a_report_goes_out_at_once_then_before_packets_each_half_second() -> None:
    machine = sender()
    machine.play(1000 * MS, 200 * MS)
    first = reports(machine)
    assert [stream for stream, _ in first] == ["video", "audio"]
    sent_reports: list[int] = []
    for at in range(60):
        now_ns = 1000 * MS + at * FRAME_NS
        machine.send("video", frame(2), 200 * MS + at * FRAME_NS, now_ns)
        leaving = machine.outgoing()
        sent_reports += [at for path, *_ in leaving if path.control]
        assert [path.control for path, *_ in leaving] == [True, False][-len(leaving) :], "before the packet"
    assert sent_reports == [16, 32, 48]


def test_a_report_has_both_clocks_of_its_moment_and_what_was_sent_by_then() -> None:
    machine = sender()
    machine.play(1000 * MS, 200 * MS)
    machine.send("video", frame(3), 200 * MS, 1000 * MS)
    machine.outgoing()
    machine.send("video", frame(1), 700 * MS, 1500 * MS)
    [(stream, [report, description])] = reports(machine)
    assert stream == "video"
    assert isinstance(report, rtcp.SenderReport)
    assert rtcp.ntp_to_ns(report.ntp) == UNIX_NS + 1500 * MS
    assert report.rtp_timestamp == (2**32 - 900 + 63_000) & 0xFFFFFFFF
    assert (report.ssrc, report.packets, report.octets) == (VIDEO_SSRC, 3, 240)
    assert description == rtcp.Sdes(VIDEO_SSRC, "avlab")


def test_a_stream_that_pauses_is_reported_by_the_timer() -> None:
    machine = sender()
    assert machine.timer_at() is None
    machine.play(0, 0)
    machine.outgoing()
    assert machine.timer_at() == machine.timer_at() == REPORT_NS + SLACK_NS
    machine.handle_timer(REPORT_NS + SLACK_NS - 1)
    assert machine.outgoing() == []
    machine.handle_timer(REPORT_NS + SLACK_NS)
    assert [stream for stream, _ in reports(machine)] == ["video", "audio"]
    assert machine.timer_at() == 2 * (REPORT_NS + SLACK_NS)
    machine.pause()
    assert machine.timer_at() is None
    machine.play(10 * NS, 10 * NS)
    assert len(reports(machine)) == 2, "at once, as after the first PLAY"
    machine.play(10 * NS + 1, 10 * NS + 1)
    assert reports(machine) == [], "it plays already"


def test_the_end_is_a_last_report_and_bye_once() -> None:
    machine = sender()
    machine.play(0, 0)
    machine.send("video", frame(2), 0, 0)
    machine.outgoing()
    machine.end(100 * MS)
    ends = reports(machine)
    for (stream, packets), (name, ssrc) in zip(ends, [("video", VIDEO_SSRC), ("audio", AUDIO_SSRC)], strict=True):
        report, _, bye = packets
        assert stream == name
        assert isinstance(report, rtcp.SenderReport)
        assert bye == rtcp.Bye((ssrc,))
    machine.end(200 * MS)
    assert machine.outgoing() == []
    assert machine.timer_at() is None
    assert machine.send("video", frame(2), 0, 300 * MS) == 0


# ---- what the client says


def block(
    highest: int, *, ssrc: int = VIDEO_SSRC, lost: int = 0, fraction: int = 0, jitter: int = 0, sr: int = 0
) -> rtcp.ReportBlock:
    return rtcp.ReportBlock(ssrc, fraction, lost, highest, jitter, sr, 0x8000 if sr else 0)


def test_a_report_that_can_be_true_is_told_with_the_round_trip() -> None:
    machine = sender(sequence=100)
    machine.play(0, 0)
    [(_, [report, _]), _] = reports(machine)
    assert isinstance(report, rtcp.SenderReport)
    machine.send("video", frame(10), 0, 0)
    machine.events()
    last_sr = report.ntp >> 16 & 0xFFFFFFFF
    tell(machine, 540 * MS, block(109, lost=2, fraction=51, jitter=900, sr=last_sr))  # half a second after that report
    [heard] = told(machine)
    assert isinstance(heard, Reported)
    assert (heard.time_ns, heard.stream, heard.ssrc) == (540 * MS, "video", VIDEO_SSRC)
    assert (heard.loss, heard.lost, heard.jitter_ns, heard.kbps, heard.doubt) == (51 / 256, 2, 10 * MS, None, None)
    assert heard.round_trip_ns == pytest.approx(40 * MS, abs=NS >> 15)
    machine.send("video", frame(1, last=1000), 0, 600 * MS)
    tell(machine, 1040 * MS, block(110, lost=2))
    [later] = told(machine)[-1:]
    assert isinstance(later, Reported)
    assert later.kbps == pytest.approx(8 * 1000 / 500)
    assert later.round_trip_ns is None
    assert machine.heard_ns == 1040 * MS


def test_a_report_that_cannot_be_true_is_told_with_why_and_doubted_once() -> None:
    machine = sender(sequence=100)
    machine.play(0, 0)
    machine.send("video", frame(10), 0, 0)
    machine.events()
    for at in (1, 2):
        tell(machine, at * NS, block(5000))
    kinds = [type(event) for event in told(machine)]
    assert kinds == [Doubted, Reported, Reported]
    tell(machine, 3 * NS, block(109))
    [honest] = told(machine)
    assert isinstance(honest, Reported)


def test_what_a_network_of_our_own_copies_may_be_received_twice() -> None:
    machines = sender(sequence=100), sender(sequence=100)
    for machine in machines:
        machine.play(0, 0)
        machine.send("video", frame(100), 0, 0)
        machine.events()
    for _ in range(100):
        machines[1].copied(VIDEO_SSRC)
    machines[1].copied(12345)  # of nobody's: nothing
    doubts = []
    for machine in machines:
        tell(machine, NS, block(199, lost=-100))
        doubts += [event.doubt for event in told(machine) if isinstance(event, Reported)]
    assert doubts == ["more was received than was sent", None]


def test_reports_more_often_than_any_client_sends_them_tell_nothing_more() -> None:
    machine = sender(sequence=100)
    machine.play(0, 0)
    machine.send("video", frame(10), 0, 0)
    machine.events()
    for at in range(1000):
        tell(machine, NS + at * MS, block(109))
    heard = [event.time_ns for event in told(machine)]
    assert len(heard) == 8
    assert min(np.diff(heard)) >= REPORT_NS // 4
    assert machine.heard_ns == NS + 999 * MS, "a sign of life all the same"


def test_what_is_about_other_sources_or_is_nonsense_is_passed_over() -> None:
    machine = sender(repair="rtx")
    machine.play(0, 0)
    machine.send("video", frame(3), 0, 0)
    machine.outgoing()
    machine.events()
    tell(machine, NS, block(0, ssrc=77))
    tell(machine, NS, nack=(65_530,), ssrc=77)
    tell(machine, NS, nack=(7,), ssrc=AUDIO_SSRC)
    for nonsense in (b"\x81", bytes(60), b"\x81\xcd\x00\x02" + bytes(8), b"\xff" * 1400):
        machine.receive(RTCP, Batch(nonsense, len(nonsense)), NS)
    machine.receive(RTCP, Batch(b"", 0), NS)
    assert machine.outgoing() == []
    assert machine.events() == []
    assert machine.heard_ns is None


# ---- repair


def test_packets_asked_for_are_sent_again_as_a_stream_of_their_own() -> None:
    machine = sender(repair="rtx")
    machine.play(0, 0)
    machine.outgoing()
    machine.send("video", frame(9), 0, 0)
    machine.send("video", frame(2), FRAME_NS, FRAME_NS)
    sent = media(machine)
    tell(machine, 50 * MS, nack=(65_535, 0, 3))
    told_again = sent_by(machine)
    again = [RtpPacket.parse(data) for event in told_again for data in event.batch.datagrams()]
    assert [(packet.ssrc, packet.payload_type, packet.sequence) for packet in again] == [
        (RTX_SSRC, RTX, 65_535),
        (RTX_SSRC, RTX, 0),
        (RTX_SSRC, RTX, 1),
    ]
    restored = [original_packet(packet, payload_type=VIDEO, ssrc=VIDEO_SSRC) for packet in again]
    assert restored == [sent[5], sent[6], sent[9]]
    assert {(event.ssrc, event.repair, event.lane) for event in told_again} == {(RTX_SSRC, "rtx", "video rtx")}
    numbers = [event.number + at for event in told_again for at in range(event.batch.total)]
    assert numbers == [65_535, 65_536, 65_537]
    tell(machine, 50 * MS + AGAIN_NS - 1, nack=(0,))
    assert media(machine) == [], "the answer is on its way"
    tell(machine, 50 * MS + AGAIN_NS, nack=(0,))
    [last] = sent_by(machine)
    assert (RtpPacket.parse(last.batch.data).sequence, last.number) == (2, 65_538)


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=60), st.integers(0, 0xFFFF))
def test_only_packets_that_are_kept_are_sent_again(asked: list[int], sequence: int) -> None:
    machine = sender(repair="rtx", sequence=sequence)
    machine.play(0, 0)
    for at in range(5):
        machine.send("video", frame(7), at * FRAME_NS, at * FRAME_NS)
    sent = {packet.sequence: packet for packet in media(machine)}
    wanted = tuple((sequence + number % 64) & 0xFFFF if number & 1 else number for number in asked)
    tell(machine, 200 * MS, nack=wanted)
    back = [original_packet(packet, payload_type=VIDEO, ssrc=VIDEO_SSRC) for packet in media(machine)]
    assert len(back) == len({packet.sequence for packet in back})
    assert {packet.sequence: packet for packet in back} == {number: sent[number] for number in wanted if number in sent}


def test_what_is_old_or_asked_for_by_who_has_paused_is_not_sent_again() -> None:
    machine = sender(repair="rtx", sequence=10)
    machine.play(0, 0)
    machine.send("video", frame(4), 0, 0)
    machine.send("video", frame(4), NS, NS)
    machine.outgoing()
    tell(machine, KEEP_NS + 1, nack=(11, 15))
    assert [int.from_bytes(packet.payload[:2], "big") for packet in media(machine)] == [15]
    machine.pause()
    tell(machine, KEEP_NS + 2, nack=(16,))
    assert machine.outgoing() == []
    machine.play(KEEP_NS + 3, 0)
    machine.end(KEEP_NS + 3)
    machine.outgoing()
    tell(machine, KEEP_NS + 4, nack=(16,))
    assert len(media(machine)) == 1, "after the end, the last frames wait for what is asked for"


def test_all_senders_of_a_server_share_what_may_be_sent_again() -> None:
    budget = FeedbackBudget(a_second=100, at_once=10)
    machines = [sender(repair="rtx", sequence=0, budget=budget) for _ in range(3)]
    answered = []
    for machine in machines:
        machine.play(0, 0)
        machine.send("video", frame(8), 0, 0)
        machine.outgoing()
    for now_ns in (10 * MS, 60 * MS):
        for machine in machines:
            tell(machine, now_ns, nack=tuple(range(8)))
            answered.append(len(media(machine)))
    assert answered == [8, 2, 0, 5, 0, 0]
    tell(machines[2], 10 * NS, nack=tuple(range(8)))
    assert media(machines[2]) == [], "by then they are too old"


@pytest.mark.parametrize(("a_second", "at_once"), [(0, 5), (5, 0)])
def test_a_budget_of_nothing_is_none(a_second: int, at_once: int) -> None:
    with pytest.raises(ValueError, match="1 packet or more"):
        FeedbackBudget(a_second=a_second, at_once=at_once)


@pytest.mark.parametrize("share", [0.0, 0.8])
def test_parity_follows_its_frame_and_brings_a_packet_back(share: float) -> None:
    machine = sender(repair="fec")
    machine.play(0, 0)
    machine.outgoing()
    machine.parity, machine.spread = 0.25, share
    assert machine.send("video", frame(8), 0, 0) == 10
    machine.send("video", frame(2), FRAME_NS, FRAME_NS)
    machine.end(2 * FRAME_NS)
    events = sent_by(machine)
    packets = [data for event in events for data in event.batch.datagrams()]
    assert [RtpPacket.parse(data).sequence for data in packets] == [(65_530 + at) & 0xFFFF for at in range(13)]
    assert [RtpPacket.parse(data).payload_type for data in packets] == [*[VIDEO] * 8, FEC, FEC, VIDEO, VIDEO, FEC]
    assert {(event.repair, event.lane) for event in events} == {("", "video"), ("fec", "video fec")}
    decoder = ParityDecoder(payload_type=VIDEO, parity_type=FEC)
    back = [restored for at, data in enumerate(packets) if at not in (3, 11) for restored in decoder.feed(data)]
    assert back == [packets[3], packets[11]]


# ---- against a receiver's own arithmetic


@given(st.integers(0, 0xFFFF), st.sets(st.integers(0, 99), max_size=60), st.integers(1, 12))
def test_what_a_receiver_counts_of_it_is_always_believed(sequence: int, lost: set[int], packets: int) -> None:
    machine, stats, count = sender(sequence=sequence), ReceiverStats(90_000), 0
    machine.play(0, 0)
    for at in range(90):
        now_ns = at * FRAME_NS
        machine.send("video", frame(packets), now_ns, now_ns)
        for packet in media(machine):
            count += 1
            if count % 100 not in lost:
                stats.update(packet.sequence, packet.timestamp, now_ns + 20 * MS + count % 7 * MS)
        reception = stats.report(now_ns) if at % 15 == 14 else None
        if reception is not None:
            tell(machine, now_ns + 20 * MS, rtcp.ReportBlock.of(VIDEO_SSRC, reception))
    heard = [event for event in told(machine) if isinstance(event, Reported)]
    assert [event.doubt for event in heard] == [None] * len(heard)
