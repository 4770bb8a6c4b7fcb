"""A player whose way to the server breaks off and is there again, and what pictures know of the sender's clock.

All in virtual time, with the driver of `test_player`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scripted import Pictures, sender_report
from scripted import Sound as Sounds
from test_player import AUDIO, EACH, GAP_NS, MS, PICTURES, VIDEO, A, Run, V

from avlab.core.events import (
    FrameDecided,
    FrameDue,
    FrameToDecode,
    Leapt,
    NotBelieved,
    PacketsTaken,
    Path,
    PlayerEvent,
    SoundDecided,
)
from avlab.measure.numbers import rates
from avlab.measure.record.trace import Recorder
from avlab.wire import rtcp
from avlab.wire.payloads.ownpayload import OwnFormat
from avlab.wire.rtp import RtpPacket, SequenceNumbers
from avlab.wire.units import NS

BREAK_NS, BACK_NS = NS, 4 * NS


def broken(run: Run, *, sound: bool = False, ssrc: int = V) -> list[int]:
    """A second of a stream, three seconds without, and the way to one that begins at 0 again.

    What media time that stands for is in the answer then.
    """
    began: list[int] = []
    run.at(BREAK_NS, lambda now_ns: run.player.interrupt(now_ns))

    def back(now_ns: int) -> None:
        run.player.add("video", VIDEO._replace(ssrc=ssrc))
        if sound:
            run.player.add("audio", AUDIO)
        infos = {"video": 5_000, "audio": 77_000} if sound else {"video": 5_000}
        began.append(run.player.begin(0, infos, now_ns))

    run.at(BACK_NS, back)
    return began


def stream(
    run: Run, from_ns: int, count: int = 20, *, sound: bool = False, pictures: list[list[bytes]] = PICTURES
) -> None:
    """Pictures, and sound with them, from a moment on."""
    for number in range(count):
        run.picture(number, from_ns + number * GAP_NS + 20 * MS, pictures[number])
    sounds = Sounds(ssrc=A, sequence=500, ticks=77_000)
    for number in range(count * 2 if sound else 0):
        run.arrive(from_ns + number * 20 * MS + 20 * MS, Path("audio"), [sounds.packet(number * 20 * MS)])


def seen(run: Run) -> list[tuple[float, float]]:
    """When each picture was shown, and its media time, in ms."""
    return [
        (event.shown_ns / MS, event.frame.pts_ns / MS) for event in run.all(FrameDecided) if event.shown_ns is not None
    ]


@pytest.mark.parametrize("same", [True, False])
def test_media_time_goes_on_as_time_does_and_the_numbers_without_a_gap(same: bool) -> None:
    """The server has its clock and its numbers from the beginning again, of the same source or of another one."""
    run = Run()
    stream(run, 0)
    broken(run, ssrc=V if same else 0x9999)
    other = Pictures(ssrc=0x9999, sequence=7, ticks=5_000)
    stream(run, BACK_NS, pictures=PICTURES if same else [other.frame(n * GAP_NS, n) for n in range(20)])
    run.run(6 * NS)
    shown = seen(run)
    assert len(shown) == 40
    assert [at - pts for at, pts in shown] == [120.0] * 40, "each 120 ms after its moment, after the break, too"
    assert shown[20][1] == BACK_NS / MS
    for ssrc in {V} if same else {V, 0x9999}:
        taken = [event for event in run.all(PacketsTaken) if event.ssrc == ssrc]
        numbers = [event.sequence + at for event in taken for at in range(len(event.fates))]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no number of a source is missing"
    assert set(run.packets()) == {"used"}
    assert run.all(Leapt) == []


def test_what_was_whole_is_shown_and_what_was_not_was_under_way() -> None:
    run = Run()
    stream(run, 0, 3)
    half_ns = BREAK_NS - 5 * MS
    run.picture(24, half_ns)
    run.arrive(half_ns, Path("video"), PICTURES[25][: EACH // 2])
    broken(run)
    run.run(3 * NS)
    assert run.fates() == {
        **{number: ("shown", number * 40 + 120) for number in range(3)},
        24: ("shown", 24 * 40 + 120),
        25: ("in_flight", None),
    }
    stream(run, BACK_NS)
    run.run(6 * NS)
    assert len(seen(run)) == 24


def test_sound_and_pictures_are_in_step_again() -> None:
    run = Run(sound=True)
    stream(run, 0, sound=True)
    broken(run, sound=True)
    stream(run, BACK_NS, sound=True)
    run.run(7 * NS)
    heard = {round(one.pts_ns / MS): one.heard_ns for event in run.all(SoundDecided) for one in event.packets}
    assert sum(at is not None for at in heard.values()) >= 76
    shown = {round(pts): at for at, pts in seen(run)}
    both = [(shown[pts], at / MS) for pts, at in heard.items() if at is not None and pts in shown]
    after = [picture - sound for picture, sound in both if picture > BACK_NS / MS]
    assert len(after) >= 15
    assert all(abs(apart) < 20 for apart in after)


@pytest.mark.parametrize("sound", [True, False])
def test_what_was_late_before_a_break_is_in_time_after_it(sound: bool) -> None:
    """A machine that was too busy for a while: with sound that is heard, pictures would be late for good."""
    run = Run(sound=sound)
    stream(run, 0, 5, sound=sound)
    for number in range(5, 18):
        run.picture(number, number * GAP_NS + 250 * MS)
    if sound:
        run.sound(range(10, 45), late_ns=20 * MS)
    broken(run, sound=sound)
    stream(run, BACK_NS, sound=sound)
    run.run(7 * NS)
    after = [pts for at, pts in seen(run) if at > BACK_NS / MS]
    assert len(after) >= 18


def test_nothing_is_asked_for_and_reported_while_there_is_nobody() -> None:
    run = Run(repair="rtx")
    stream(run, 0)
    run.arrive(BREAK_NS - 40 * MS, Path("video"), PICTURES[24][1:])  # the first is missing
    run.at(BREAK_NS, lambda now_ns: run.player.interrupt(now_ns))
    run.run(BACK_NS)
    assert [at for at, _, _ in run.sent if at > BREAK_NS] == []
    assert run.player.streams == {}
    assert not run.player.said_goodbye
    assert not run.player.over


def test_a_second_break_before_anything_came_again_changes_nothing() -> None:
    run = Run()
    stream(run, 0)
    broken(run)
    run.at(BACK_NS + 1, lambda now_ns: run.player.interrupt(now_ns))

    def again(now_ns: int) -> None:
        run.player.add("video", VIDEO)
        run.player.begin(0, {"video": 5_000}, now_ns)

    run.at(BACK_NS + NS, again)
    stream(run, BACK_NS + NS)
    run.run(8 * NS)
    assert [at - pts for at, pts in seen(run)] == [120.0] * 40
    numbers = [event.sequence + at for event in run.all(PacketsTaken) for at in range(len(event.fates))]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_the_time_that_a_server_begins_at_is_that_of_the_record() -> None:
    run = Run()
    stream(run, 0)
    began = broken(run)
    run.run(BACK_NS)
    assert began == [BACK_NS - 20 * MS], "what is sent now comes 20 ms later"


def test_pictures_of_a_format_that_ends_by_the_marker_begin_again() -> None:
    """The last picture before the break is cut, so that nothing tells where the first one after it begins."""

    class Pieces:
        name = "pieces"

        def pack(self, frame: bytes, most: int) -> list[bytes]:
            return [frame[:most], frame[most:]]

        def unpack(self, payloads: list[bytes | None]) -> bytes | None:
            return None if None in payloads else b"".join(filter(None, payloads))

    described = VIDEO._replace(payload_type=96, encoding="X-PIECES", pictures={96: OwnFormat(Pieces(), codec="x")})
    run = Run()
    run.player.clear()
    run.player.add("video", described)
    run.player.begin(0, {"video": 5_000}, 0)
    taken: list[bytes | None] = []

    def look(now_ns: int, events: list[PlayerEvent]) -> None:
        taken.extend(event.frame.data for event in events if isinstance(event, FrameToDecode))

    run.look = look

    def packet(sequence: int, ticks: int, marker: bool) -> bytes:
        return RtpPacket(96, sequence, ticks, V, marker, b"%d" % sequence).serialize()

    run.arrive(10 * MS, Path("video"), [packet(10, 5_000, False), packet(11, 5_000, True)])
    run.arrive(50 * MS, Path("video"), [packet(12, 8_600, False)])
    run.at(BREAK_NS, lambda now_ns: run.player.interrupt(now_ns))

    def back(now_ns: int) -> None:
        run.player.add("video", described)
        run.player.begin(0, {}, now_ns)

    run.at(BACK_NS, back)
    run.arrive(BACK_NS + 10 * MS, Path("video"), [packet(700, 99, False), packet(701, 99, True)])
    run.run(BACK_NS + 50 * MS)
    assert taken == [b"1011", b"700701"]


# ---- the sender's wall clock


WALL_NS = 1_790_000_000 * NS


def captured(*reports: tuple[int, int, int]) -> list[float]:
    """Ten pictures, and reports of (when, NTP, ticks): the seconds since 1970 of each picture, NaN where none."""
    run = Run(delay_ns=0)
    for number in range(10):
        run.picture(number, number * GAP_NS + 20 * MS)
    for at_ns, ntp, ticks in reports:
        run.arrive(at_ns, Path("video", True), [sender_report(V, ntp, ticks)])
    run.run(NS)
    moments = [event.frame.captured_ns for event in run.all(FrameDue)]
    assert len(moments) == 10
    return [math.nan if moment is None else moment / NS for moment in moments]


def test_a_picture_has_the_moment_that_the_reports_tell() -> None:
    ntp = rtcp.ns_to_ntp(WALL_NS)
    found = captured((0, ntp, 5_000), (201 * MS, rtcp.ns_to_ntp(WALL_NS + 200 * MS), 5_000 + 18_000))
    assert found == pytest.approx([WALL_NS / NS + number * 0.04 for number in range(10)], abs=1e-6)


def test_before_the_first_report_there_is_none() -> None:
    found = captured((100 * MS, rtcp.ns_to_ntp(WALL_NS), 5_000))
    assert all(map(math.isnan, found[:2]))
    assert found[3:] == pytest.approx([WALL_NS / NS + number * 0.04 for number in range(3, 10)], abs=1e-6)


@pytest.mark.parametrize("ntp", [0, 77 << 32, 5_000_000 << 32])
def test_a_sender_without_a_wall_clock_tells_none(ntp: int) -> None:
    """NTP time 0, or a time since the sender's own start, whose high bit is 0 (RFC 3550 6.4.1)."""
    assert all(map(math.isnan, captured((0, ntp, 5_000))))


def test_a_clock_that_steps_is_not_believed_until_it_goes_on() -> None:
    ntp = rtcp.ns_to_ntp(WALL_NS)
    later = rtcp.ns_to_ntp(WALL_NS + 3_600 * NS)
    found = captured((0, ntp, 5_000), (100 * MS, later, 5_000 + 9_000))
    assert not math.isnan(found[0])
    assert all(map(math.isnan, found[3:]))


def test_after_a_break_it_is_the_new_servers() -> None:
    run = Run(delay_ns=0)
    stream(run, 0)
    run.arrive(0, Path("video", True), [sender_report(V, rtcp.ns_to_ntp(WALL_NS), 5_000)])
    broken(run)
    again = rtcp.ns_to_ntp(WALL_NS + 9 * NS)
    run.arrive(BACK_NS + 1 * MS, Path("video", True), [sender_report(V, again, 5_000)])  # before its first packet
    stream(run, BACK_NS)
    run.run(6 * NS)
    moments = [(event.frame.captured_ns or 0) / NS for event in run.all(FrameDue)]
    assert moments[:20] == pytest.approx([WALL_NS / NS + number * 0.04 for number in range(20)], abs=1e-6)
    assert moments[20:] == pytest.approx([WALL_NS / NS + 9 + number * 0.04 for number in range(20)], abs=1e-6)
    assert run.all(NotBelieved) == []


# ---- numbers


def test_the_mean_rate_leaves_out_the_gap_that_a_return_ends() -> None:
    times = np.concatenate([np.arange(11) / 10, 20 + np.arange(11) / 10, 50 + np.arange(11) / 10])
    assert rates.mean_rate(times) == pytest.approx(32 / 51)
    assert rates.mean_rate(times, np.array([19.9, 49.5])) == pytest.approx(10)
    assert rates.mean_rate(times, np.array([19.5, 19.9, 49.5])) == pytest.approx(10), "two tries in one gap"
    assert rates.mean_rate(times, np.array([-1.0, 60.0, 19.9, 49.5])) == pytest.approx(10), "before it all and after"
    assert rates.mean_rate(times[:1], np.array([1.0])) is None
    assert rates.mean_rate(times[[10, 11]], np.array([19.9])) is None


def test_returns_are_read_from_the_record() -> None:
    recorder = Recorder(side="client", epoch_ns=5 * NS, clock="none")
    recorder.event(6 * NS, "connection lost", "why")
    recorder.event(9 * NS, "connection back", 3.0)
    recorder.setting(10 * NS, "connection back", 1.0)
    assert rates.came_back(recorder.trace()).tolist() == [4.0]


def test_numbers_that_adjoin_keep_their_order_and_the_senders_own_on_the_wire() -> None:
    numbers = SequenceNumbers(90_000, above=70_000, adjoining=True)
    assert numbers.last == 70_000
    assert [numbers(sequence, 0, 0) for sequence in (65_534, 65_535, 0, 1)] == [70_001, 70_002, 70_003, 70_004]
    assert numbers.wire(70_003) == 0
    assert numbers.peek(65_535) == 70_002
    apart = SequenceNumbers(90_000, above=70_000)
    assert apart(65_534, 0, 0) == 65_536 + 65_534
