"""The player alone, in virtual time: packets in, pictures and sound with their fates out, reports and requests back.

A driver of thirty lines wakes it when it says so and at no other moment, and a device asks for its blocks.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import RATE, SOUND, Pictures, bye, jpeg, sender_report
from scripted import Sound as Sounds

from avlab.core.arriving import Described
from avlab.core.events import (
    FrameDecided,
    FrameDue,
    FrameReady,
    LeaderChanged,
    Notice,
    PacketsTaken,
    Path,
    PlayerEvent,
    Rebuffered,
    SoundDecided,
    SourceChanged,
    SourcesKnown,
    SyncRead,
)
from avlab.core.player import Player
from avlab.core.sink import BufferSink
from avlab.network.parity import ParityEncoder
from avlab.timing.jitterbuffer import Frame
from avlab.timing.verdicts import PictureVerdict
from avlab.wire import rtcp
from avlab.wire.batch import Batch, batches
from avlab.wire.rtp import JPEG, VIDEO_CLOCK, RtpPacket, rtp_timestamp
from avlab.wire.units import NS, EncodedFrame

MS = NS // 1000
FPS = 25
GAP_NS = NS // FPS
V, A, OWN, RTX = 0x1111, 0x2222, 0x7, 0x7777
BLOCK_NS, LATENCY_NS = 10 * MS, 15 * MS
VIDEO = Described(JPEG, VIDEO_CLOCK, encoding="JPEG", ssrc=V, repairs={"rtx": 98, "fec": 99})
AUDIO = Described(SOUND, RATE, encoding="L16", ssrc=A)

Kind = TypeVar("Kind")


class Run:
    """A player and its driver: a heap of moments, nothing else that passes time."""

    def __init__(
        self,
        *,
        sound: bool = False,
        delay_ns: int | None = 100 * MS,
        repair: Any = None,
        timed: bool = True,
        lasts: bool = True,
    ) -> None:
        self.player = Player(ssrc=OWN)
        self.events: list[PlayerEvent] = []
        self.sent: list[tuple[int, str, bytes]] = []
        self.heard: list[tuple[int, int]] = []  # when, and the first sample of each block that is not silent
        self.answer: Callable[[int, str, bytes], None] = lambda now_ns, stream, data: None
        self.look: Callable[[int, list[PlayerEvent]], None] = lambda now_ns, events: None
        self.turns = 0
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._count = 0
        self.sink = BufferSink(rate=RATE, channels=1, lead_ns=LATENCY_NS) if sound else None
        streams = {"video", "audio"} if sound else {"video"}
        if timed:
            self.player.add("video", VIDEO._replace(repair=repair))
            if sound:
                self.player.add("audio", AUDIO)
        self.player.prepare(streams=streams, delay_ns=delay_ns, sound=self.sink, timed=timed)
        if timed:
            self.player.begin(0, {"video": 5_000, "audio": 77_000} if sound else {"video": 5_000}, 0)
        if self.sink is not None and lasts:
            self.at(0, self._ask)

    def at(self, at_ns: int, act: Callable[[int], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_ns, self._count, act))

    def arrive(self, at_ns: int, path: Path, packets: Iterable[bytes]) -> None:
        for batch in batches(packets):
            self.at(at_ns, lambda now_ns, batch=batch: self.player.receive(path, batch, now_ns))  # type: ignore[misc]

    def picture(self, number: int, at_ns: int, packets: list[bytes] | None = None) -> None:
        self.arrive(at_ns, Path("video"), PICTURES[number] if packets is None else packets)

    def sound(self, numbers: Iterable[int], late_ns: int = 20 * MS) -> None:
        for number in numbers:
            self.arrive(number * 20 * MS + late_ns, Path("audio"), [SOUNDS[number]])

    def run(self, until_ns: int) -> None:
        """Let the time pass."""
        now_ns = 0
        while True:
            timer_ns = self.player.timer_at()
            assert timer_ns == self.player.timer_at()
            moments = [self._heap[0][0]] if self._heap else []
            moments += [] if timer_ns is None else [timer_ns]
            if not moments or min(moments) > until_ns:
                return
            now_ns = max(now_ns, min(moments))
            while self._heap and self._heap[0][0] <= now_ns:
                heapq.heappop(self._heap)[2](now_ns)
            self.player.handle_timer(now_ns)
            self.turns += 1
            after_ns = self.player.timer_at()
            assert after_ns is None or after_ns > now_ns, "it would be woken without end"
            self.pump(now_ns)

    def pump(self, now_ns: int) -> None:
        events = self.player.events()
        self.events += events
        self.look(now_ns, events)
        for path, batch in self.player.outgoing():
            assert path.control
            for data in batch.datagrams():
                self.sent.append((now_ns, path.stream, data))
                self.answer(now_ns, path.stream, data)

    def end(self, now_ns: int) -> None:
        self.player.flush(now_ns)
        self.player.close()
        self.pump(now_ns)

    def all(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    def fates(self) -> dict[int, tuple[str, float | None]]:
        """By a picture's number, what became of it and when, in ms."""
        out: dict[int, tuple[str, float | None]] = {}
        for event in self.all(FrameDecided):
            number = round(event.frame.pts_ns / GAP_NS)
            assert number not in out, "one end each"
            out[number] = event.fate, None if event.shown_ns is None else event.shown_ns / MS
        return out

    def packets(self, stream: str = "video") -> list[str | None]:
        return [fate for event in self.all(PacketsTaken) if event.stream == stream for fate in event.fates]

    def said(self, kind: type[Kind], stream: str = "video") -> list[tuple[float, Kind]]:
        """What the player sent of a kind, with the moments in seconds."""
        return [
            (at_ns / NS, each)
            for at_ns, of, data in self.sent
            if of == stream
            for each in rtcp.parse_compound(data)
            if isinstance(each, kind)
        ]

    def _ask(self, now_ns: int) -> None:
        assert self.sink is not None
        block, reading = self.sink.read(RATE * BLOCK_NS // NS, now_ns + LATENCY_NS)
        if reading is not None:
            self.player.heard(reading)
        if block[0, 0]:
            self.heard.append((now_ns + LATENCY_NS, int(block[0, 0])))
        self.at(now_ns + BLOCK_NS, self._ask)


def _pictures() -> list[list[bytes]]:
    noise = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    from avlab.media import codec

    picture, width, height = codec.encode_jpeg(noise, quality=80)
    packer = Pictures(ssrc=V, sequence=65_500, ticks=5_000).packer
    out = [packer.pack(EncodedFrame(0, n * GAP_NS, picture, width, height)) for n in range(20 * FPS)]
    assert len(out[0]) > 4
    return out


PICTURES = _pictures()
EACH = len(PICTURES[0])
_sounds = Sounds(ssrc=A, sequence=500, ticks=77_000)
SOUNDS = [_sounds.packet(number * 20 * MS) for number in range(20 * 50)]


# ---- pictures


def test_without_sound_each_picture_is_due_a_delay_after_the_first_came() -> None:
    run = Run()
    for number in range(5):
        run.picture(number, number * GAP_NS + 20 * MS + number % 2 * 15 * MS)
    run.run(NS // 2)
    assert run.fates() == {number: ("shown", number * 40 + 120) for number in range(5)}
    assert [event.time_ns for event in run.all(FrameDue)] == [(number * 40 + 120) * MS for number in range(5)]
    assert [event.due_ns for event in run.all(FrameReady)] == [(number * 40 + 120) * MS for number in range(5)]
    assert run.packets() == ["used"] * 5 * EACH
    assert run.player.received == (5 * EACH, 5 * EACH)
    assert run.all(SourcesKnown)[-1].ssrcs == (V,)
    assert run.turns <= 2 * 5 + 1


def test_with_a_delay_of_nothing_pictures_are_shown_as_they_come() -> None:
    run = Run(delay_ns=0)
    for number in range(3):
        run.picture(number, number * GAP_NS + number * MS)
    run.run(NS // 2)
    assert run.fates() == {0: ("shown", 0), 1: ("shown", 41), 2: ("shown", 82)}


def test_a_picture_that_is_not_whole_in_time_is_incomplete_and_what_comes_after_is_late() -> None:
    run = Run()
    for number in range(4):
        packets = PICTURES[number]
        run.picture(number, number * GAP_NS, packets[:-1] if number == 1 else packets)
    run.picture(1, 300 * MS, PICTURES[1][-1:])
    run.run(NS // 2)
    assert run.fates() == {0: ("shown", 100), 1: ("incomplete", None), 2: ("shown", 180), 3: ("shown", 220)}
    assert run.packets()[-1] == "late"
    [incomplete] = [event.frame for event in run.all(FrameDecided) if event.fate == "incomplete"]
    assert (incomplete.packets, incomplete.data) == (EACH - 1, None)


def test_a_whole_picture_that_comes_too_late_is_late_and_one_that_comes_twice_a_duplicate() -> None:
    run = Run()
    for number in (0, 1, 3):
        run.picture(number, number * GAP_NS)
    run.picture(1, GAP_NS + MS)
    run.picture(2, 230 * MS)  # due at 180
    run.run(NS // 2)
    assert run.fates()[2] == ("late", None)
    assert run.packets().count("duplicate") == EACH


def test_another_delay_acts_at_once() -> None:
    run = Run()
    for number in range(20):
        run.picture(number, number * GAP_NS)
    run.at(400 * MS, lambda _: run.player.set_delay(300 * MS))
    run.run(2 * NS)
    fates = run.fates()
    assert fates[5] == ("shown", 300)
    assert fates[19] == ("shown", 19 * 40 + 300)


def test_an_adaptive_delay_grows_when_pictures_come_late_and_says_so() -> None:
    run = Run(delay_ns=None)
    for number in range(10 * FPS):
        late_ns = 160 * MS if number > 3 * FPS and number % 3 == 0 else 0
        run.picture(number, number * GAP_NS + late_ns)
    run.run(12 * NS)
    assert run.all(Rebuffered)
    assert run.player.delay_ns >= 160 * MS
    late = [number for number, (fate, _) in run.fates().items() if fate != "shown"]
    assert late
    assert max(late) < 6 * FPS


# ---- sound


def test_pictures_keep_to_the_sound_which_is_heard_when_it_is_due() -> None:
    run = Run(sound=True)
    for number in range(2 * FPS):
        run.picture(number, number * GAP_NS + 10 * MS)
    run.sound(range(2 * 50), late_ns=30 * MS)
    run.run(3 * NS)
    run.end(3 * NS)
    assert {fate for fate, _ in run.fates().values()} == {"shown"}
    offsets = [each.audio_pts_ns - each.video_pts_ns for each in run.all(SyncRead)]
    assert len(offsets) == 2 * FPS
    assert max(map(abs, offsets[5:])) <= 2 * MS
    assert {played.reason for event in run.all(SoundDecided) for played in event.packets} == {"shown"}
    assert run.packets("audio") == ["used"] * 100
    assert not run.player.finished(3 * NS)  # the device still plays what it was given
    assert run.player.finished(3 * NS + LATENCY_NS)
    assert run.heard[0][0] == pytest.approx(130 * MS, abs=BLOCK_NS)


def test_sound_that_breaks_off_leaves_the_pictures_going() -> None:
    run = Run(sound=True)
    for number in range(8 * FPS):
        run.picture(number, number * GAP_NS)
    run.sound(range(50))
    run.run(9 * NS)
    shown = [number for number, (fate, _) in run.fates().items() if fate == "shown"]
    assert len(shown) >= 8 * FPS - 2


@pytest.mark.parametrize(("times", "played"), [(1, True), (2, False), (4, False)])
def test_more_sound_than_the_timestamps_tell_of_is_something_else_and_is_left_out(times: int, played: bool) -> None:
    run = Run(sound=True)
    for number in range(6 * FPS):
        run.picture(number, number * GAP_NS)
    for number in range(6 * 50):
        packet = SOUNDS[number]
        run.arrive(number * 20 * MS, Path("audio"), [packet[:12] + packet[12:] * times])
    run.run(7 * NS)
    told = [each.words for each in run.all(Notice) if each.name == "sound is not as described"]
    assert (told == []) is played
    if told:
        assert len(told) == 1
        assert f"L16 at {RATE:,} Hz brings {times}.0 times the sound" in told[0]
    assert run.packets("audio")[-200:] == ["used" if played else None] * 200
    assert sum(fate == "shown" for fate, _ in run.fates().values()) >= 5 * FPS


def test_sound_that_comes_too_late_for_the_device_is_late() -> None:
    run = Run(sound=True)
    run.picture(0, 0)
    run.sound(range(20), late_ns=0)
    run.sound([20], late_ns=400 * MS)
    run.sound(range(21, 40), late_ns=0)
    run.run(2 * NS)
    run.end(2 * NS)
    assert run.packets("audio").count("late") == 1
    assert [played.reason for event in run.all(SoundDecided) for played in event.packets].count("late") == 1


# ---- what goes back


def test_reports_go_back_soon_and_twice_a_second_and_count_what_is_lost() -> None:
    run = Run(sound=True)
    for number in range(2 * FPS):
        run.picture(number, number * GAP_NS, PICTURES[number][:-1] if number % 5 == 0 else None)
    run.sound(range(2 * 50))
    run.arrive(500 * MS, Path("video", control=True), [sender_report(V, 0x1234_5678_9ABC_DEF0, 50_000)])
    run.run(2 * NS)
    for stream, ssrc in (("video", V), ("audio", A)):
        reports = run.said(rtcp.ReceiverReport, stream)
        assert [at for at, _ in reports] == [0.25, 0.75, 1.25, 1.75]
        assert {(report.ssrc, report.blocks[0].ssrc) for _, report in reports} == {(OWN, ssrc)}
    first, second, *_, last = [report.blocks[0] for _, report in run.said(rtcp.ReceiverReport)]
    assert (first.last_sr, first.delay_since_sr) == (0, 0)
    assert (second.last_sr, second.delay_since_sr) == (0x5678_9ABC, 65_536 // 4)
    assert last.cumulative_lost == 9
    assert last.fraction_lost == pytest.approx(256 / 5 / EACH, rel=0.3)
    wraps_and_number = last.highest_sequence
    assert wraps_and_number & 0xFFFF == RtpPacket.parse(PICTURES[43][-1]).sequence
    assert {block.cumulative_lost for _, each in run.said(rtcp.ReceiverReport, "audio") for block in each.blocks} == {0}


@pytest.mark.parametrize("round_trip_ms", [10, 40])
def test_what_is_lost_is_asked_for_and_is_taken_back(round_trip_ms: int) -> None:
    run = Run(repair="rtx", delay_ns=250 * MS)
    lost = {RtpPacket.parse(PICTURES[number][at]).sequence: PICTURES[number][at] for number, at in ((10, 1), (20, 2))}
    for number in range(30):
        run.picture(number, number * GAP_NS, [data for data in PICTURES[number] if data not in lost.values()])

    asked: list[int] = []

    def answer(now_ns: int, stream: str, data: bytes) -> None:
        for packet in rtcp.parse_compound(data):
            for sequence in packet.sequences if isinstance(packet, rtcp.Nack) else ():
                assert (packet.ssrc, packet.media_ssrc) == (OWN, V)
                asked.append(sequence)
                if sequence not in lost:
                    continue  # after the last one, the next one's beginning is suspected
                one = RtpPacket.parse(lost[sequence])
                again = one._replace(payload_type=98, ssrc=RTX, payload=sequence.to_bytes(2, "big") + one.payload)
                run.arrive(now_ns + round_trip_ms * MS, Path("video"), [again.serialize()])

    run.answer = answer
    run.run(3 * NS)
    assert {fate for fate, _ in run.fates().values()} == {"shown"}
    assert run.packets().count("recovered") == 2
    assert run.all(SourcesKnown)[-1].repair_ssrcs == (RTX,)
    assert asked[:2] == list(lost)


def test_what_is_lost_and_has_parity_is_made_up_for_and_asked_for_by_nobody() -> None:
    run = Run(repair="fec")
    for number in range(10):
        packets = PICTURES[number]
        parity = ParityEncoder(payload_type=99, overhead=1 / EACH).protect(packets)
        # Numbered after the frame, as the next frame's first packet is: this sender sends each frame by itself.
        run.picture(number, number * GAP_NS, [packets[0], *packets[2:]] if number == 4 else packets)
        if number == 4:
            run.picture(number, number * GAP_NS + 5 * MS, parity)
    run.run(NS)
    assert run.fates()[4] == ("shown", 260)
    assert run.packets().count("recovered") == 1
    assert run.said(rtcp.Nack) == []


# ---- who looks


def test_a_taker_that_has_pictures_ahead_of_their_time_says_what_became_of_them() -> None:
    run = Run()
    page = object()
    ready: list[tuple[Frame, int]] = []

    def look(now_ns: int, events: list[PlayerEvent]) -> None:
        ready.extend((event.frame, event.due_ns) for event in events if isinstance(event, FrameReady))

    run.look = look
    run.at(0, lambda now_ns: run.player.follow(page, ahead=True, now_ns=now_ns))
    for number in range(4):
        run.picture(number, number * GAP_NS)
    run.at(110 * MS, lambda _: run.player.presented([PictureVerdict(ready[0][0], 101 * MS)], taker=page))
    run.at(
        120 * MS, lambda _: run.player.presented([PictureVerdict(ready[1][0], 120 * MS)], taker=page)
    )  # before its time
    run.at(400 * MS, lambda _: run.player.presented([PictureVerdict(ready[2][0], None)], taker=page))
    run.run(NS // 2)
    assert [due_ns for _, due_ns in ready] == [(number * 40 + 100) * MS for number in range(4)]
    assert run.fates() == {0: ("shown", 101), 1: ("shown", 120), 2: ("skipped", None)}
    assert [event.holder is page for event in run.all(FrameDue)] == [True] * 4
    run.at(NS // 2, lambda now_ns: run.player.follow(None, ahead=False, now_ns=now_ns))
    run.at(NS // 2, lambda _: run.player.resign(page, shown=True))
    run.run(NS)
    assert run.fates()[3] == ("shown", 220)
    assert [event.here for event in run.all(LeaderChanged)] == [True, False]


def test_who_begins_late_is_given_what_waits() -> None:
    run = Run(delay_ns=400 * MS)
    page = object()
    given: list[tuple[Frame, int]] = []

    def begin(now_ns: int) -> None:
        run.player.follow(page, ahead=True, now_ns=now_ns)
        given.extend(run.player.give_waiting(page))

    for number in range(4):
        run.picture(number, number * GAP_NS)
    run.at(200 * MS, begin)
    run.run(NS)
    assert [due_ns for _, due_ns in given] == [(number * 40 + 400) * MS for number in range(4)]
    assert run.fates() == {}  # each owes a word
    assert not run.player.finished(NS)
    run.end(2 * NS)
    assert {fate for fate, _ in run.fates().values()} == {"in_flight"}


# ---- sources, the end, another wire


def test_another_source_is_followed_after_bye() -> None:
    run = Run()
    other = Pictures(ssrc=0x3333, sequence=7, ticks=0).packer
    for number in range(10):
        run.picture(number, number * GAP_NS)
    run.arrive(400 * MS, Path("video", control=True), [bye(V)])
    for number in range(10, 20):
        picture = EncodedFrame(0, number * GAP_NS, jpeg(number), 64, 48)
        run.arrive(number * GAP_NS + 5 * MS, Path("video"), other.pack(picture))
    run.run(2 * NS)
    [changed] = run.all(SourceChanged)
    assert (changed.before, changed.ssrc) == (V, 0x3333)
    assert {fate for fate, _ in run.fates().values()} == {"shown"}
    assert run.player.streams["video"].ssrc == 0x3333


def test_the_end_is_when_all_that_came_was_seen() -> None:
    run = Run()
    run.picture(0, 0)
    run.picture(1, GAP_NS)
    run.picture(2, 2 * GAP_NS, PICTURES[2][:-1])
    run.arrive(90 * MS, Path("video", control=True), [bye(V)])
    run.run(140 * MS)
    assert run.player.streams["video"].ended
    assert not run.player.finished(140 * MS)
    run.run(219 * MS)
    assert not run.player.finished(219 * MS)  # due at 180, and worth showing for 40 ms more
    assert run.player.finished(220 * MS)
    run.end(220 * MS)
    assert run.fates() == {0: ("shown", 100), 1: ("shown", 140), 2: ("incomplete", None)}


def test_a_wire_without_timestamps_has_its_pictures_shown_as_they_come() -> None:
    run = Run(sound=True, timed=False)
    for number in range(5):
        frame = Frame(number, number * GAP_NS, b"jpeg", 4, 1, 0, number * GAP_NS, number * GAP_NS)
        run.at(number * GAP_NS, lambda now_ns, frame=frame: run.player.take_frame(frame, now_ns))  # type: ignore[misc]
    samples = np.full((RATE // 50, 1), 9, np.int16)
    for number in range(10):
        run.at(
            number * 20 * MS,
            lambda now_ns, number=number: run.player.take_sound(  # type: ignore[misc]
                samples, ticks=number * len(samples), pts_ns=number * 20 * MS, now_ns=now_ns
            ),
        )
    run.run(NS)
    assert run.fates() == {number: ("shown", number * 40) for number in range(5)}
    assert not any(event.timed for event in run.all(FrameDecided))
    assert run.all(SyncRead) == []
    assert run.heard[0][0] == pytest.approx(100 * MS, abs=BLOCK_NS)
    assert run.sent == []


def test_what_cannot_be_read_is_told_of_once_as_a_sentence() -> None:
    run = Run()
    for at in range(5):
        run.arrive(at * MS, Path("video"), [bytes(20)])
        run.arrive(at * MS, Path("video", control=True), [b"nonsense"])
    run.run(NS)
    [notice] = run.all(Notice)
    assert notice.name == "malformed packets"


ARRIVALS = st.tuples(st.integers(0, 1_500), st.integers(0, 12), st.integers(0, EACH - 1), st.integers(1, EACH))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1_500), st.integers(0, 38), st.integers(1, 5), st.sampled_from([0, 0, 0, RATE, RATE * 70])
        ),
        max_size=40,
    ),
    st.sampled_from([None, 100 * MS]),
)
def test_sound_that_comes_together_fares_as_each_packet_by_itself(
    chunks: list[tuple[int, int, int, int]], delay_ns: int | None
) -> None:
    def play(together: bool) -> Run:
        run = Run(sound=True, delay_ns=delay_ns)
        for at_ms, number, count, leap in chunks:
            packets = [SOUNDS[each] for each in range(number, min(40, number + count))]
            if leap:
                parsed = (RtpPacket.parse(data) for data in packets)
                packets = [each._replace(timestamp=each.timestamp + leap).serialize() for each in parsed]
            for some in [packets] if together else [[packet] for packet in packets]:
                run.arrive(at_ms * MS, Path("audio"), some)
        run.run(3 * NS)
        run.end(3 * NS)
        return run

    def told(run: Run) -> list[tuple[Any, ...]]:
        out: list[tuple[Any, ...]] = []
        for event in run.events:
            if isinstance(event, PacketsTaken):
                out += [
                    (event.sequence + at, event.timestamp + at * event.ticks, event.time_ns, fate)
                    for at, fate in enumerate(event.fates)
                ]
            else:
                out.append(tuple(event))
        return out

    whole, parts = play(True), play(False)
    assert told(whole) == told(parts)
    assert whole.sent == parts.sent


@given(
    st.lists(ARRIVALS, max_size=60),
    st.lists(st.tuples(st.integers(0, 1_500), st.integers(0, 40)), max_size=30),
    st.sampled_from([None, 0, 100 * MS, 700 * MS]),
    st.sampled_from([None, "rtx", "fec"]),
)
def test_whatever_comes_it_is_woken_no_more_than_it_has_to_do_and_does_the_same_again(
    pictures: list[tuple[int, int, int, int]], sounds: list[tuple[int, int]], delay_ns: int | None, repair: Any
) -> None:
    def play() -> Run:
        run = Run(sound=True, delay_ns=delay_ns, repair=repair)
        for at_ms, number, first, count in pictures:
            run.picture(number, at_ms * MS, PICTURES[number][first : first + count])
        for at_ms, number in sounds:
            run.arrive(at_ms * MS, Path("audio"), [SOUNDS[number]])
        run.run(3 * NS)
        run.end(3 * NS)
        return run

    run, again = play(), play()
    came = sum(len(PICTURES[number][first : first + count]) for _, number, first, count in pictures)
    assert len(run.packets()) == came
    assert len(run.packets("audio")) == len(sounds)
    assert sum(len(event.packets) for event in run.all(SoundDecided)) == len(sounds) - run.packets("audio").count(
        "duplicate"
    )
    assert run.turns < 1_500
    run.fates()  # one each
    assert repr(run.events) == repr(again.events)
    assert run.sent == again.sent


def test_packets_have_the_numbers_and_sizes_that_came() -> None:
    run = Run()
    run.picture(0, 0)
    run.picture(1, GAP_NS)
    run.run(NS)
    taken = run.all(PacketsTaken)
    assert [size for event in taken for size in event.sizes] == [len(data) for n in (0, 1) for data in PICTURES[n]]
    assert taken[0].sequence == 65_500
    assert {event.timestamp for event in taken} == {rtp_timestamp(n * GAP_NS, VIDEO_CLOCK, 5_000) for n in (0, 1)}


def test_a_stream_that_nobody_added_is_an_error() -> None:
    with pytest.raises(KeyError):
        Player().receive(Path("video"), Batch(PICTURES[0][0], len(PICTURES[0][0])), 0)
