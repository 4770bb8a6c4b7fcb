"""The page as a sound device, who has the sound, and pictures given ahead of their time: no browser, literal times."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from test_jitterbuffer import frame as packets

from avlab.core.arriving import Described
from avlab.core.events import PacketsTaken, Path, PlayerEvent
from avlab.lab.notebook.page_sound import LEAD_NS, RING_NS, SWITCH_S, PageSpeaker
from avlab.measure.record.trace import Recorder
from avlab.media.speaker import NullSpeaker, Speaker
from avlab.stream.clock import MonotonicClock, VirtualClock
from avlab.stream.handle import Handle
from avlab.stream.playing.presentation import Presentation
from avlab.stream.playing.sound import BELIEVED_BLOCKS, Pull, Sink, Sounding
from avlab.stream.playing.tap import Tap
from avlab.stream.recording import PlayerRecording
from avlab.timing.jitterbuffer import Fragment
from avlab.timing.playout import ClockReading
from avlab.wire.batch import Batch
from avlab.wire.rtp import JPEG, VIDEO_CLOCK, RtpPacket
from avlab.wire.units import NS, Samples

MS = 1_000_000
RATE = 8_000
BLOCK = RATE // 25


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- the page as a device -----------------------------------------------------------------------------------------


class Device:
    """A `PageSpeaker` whose time stands still until it is told to go on, and what it asked for and sent."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.asked: list[int] = []  # when each block is to be heard, in ms
        self.sent: queue.Queue[tuple[int, ClockReading | None]] = queue.Queue()
        self.turns: list[bool] = []
        self.takes: Callable[..., None] = self.send
        self.speaker = PageSpeaker(
            self.pull,
            lambda *block: self.takes(*block),
            rate=RATE,
            turned=self.turns.append,
            clock=cast(MonotonicClock, self.clock),
        )

    def pull(self, count: int, heard_ns: int) -> tuple[Samples, ClockReading | None]:
        assert count == BLOCK
        self.asked.append(heard_ns // MS)
        return np.zeros((count, 1), np.int16), ClockReading(len(self.asked) * 40 * MS, heard_ns)

    def send(self, position: int, reading: ClockReading | None, samples: Samples) -> None:
        self.sent.put((position, reading))

    def block(self) -> int:
        return self.sent.get(timeout=60)[0] // BLOCK

    def rests(self) -> None:
        with pytest.raises(queue.Empty):
            self.sent.get(timeout=0.1)


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device()
    device.speaker.start(lambda count, _: np.zeros((count, 1), np.int16))
    yield device
    device.speaker.stop()


def test_the_page_is_sent_as_much_as_its_ring_holds_and_then_what_it_plays(device: Device) -> None:
    first = [device.block() for _ in range(RING_NS // (40 * MS) + 1)]
    assert first == [0, 1, 2, 3, 4, 5, 6]
    device.rests()
    # The page began to play at 200 ms, and what it plays is heard 60 ms later: the first sample at 260 ms.
    device.clock.sleep_until(210 * MS)
    device.speaker.reported(0, 260 * MS, 60 * MS, playing=True)
    device.rests()
    device.clock.sleep_until(200 * MS + 80 * MS)
    assert [device.block(), device.block()] == [7, 8]
    device.rests()
    assert device.asked[7:] == [260 + 280, 260 + 320]
    assert device.speaker.latency_ns == 60 * MS


def test_a_slow_device_wants_its_sound_earlier(device: Device) -> None:
    assert device.speaker.lead_ns == LEAD_NS
    for latency in (50, 50, 260, 260, 260, 260, 260):  # one odd word is not believed
        device.speaker.reported(0, NS, latency * MS, playing=True)
        wanted = device.speaker.lead_ns
        assert wanted == LEAD_NS or device.speaker.latency_ns == 260 * MS
    assert wanted == RING_NS + 260 * MS + 20 * MS


def test_a_ring_that_ran_dry_is_filled_again(device: Device) -> None:
    for _ in range(7):
        device.block()
    device.speaker.reported(7 * BLOCK, NS, 40 * MS, playing=False)
    assert [device.block() for _ in range(7)] == list(range(7, 14))
    device.rests()


def test_a_machine_that_slept_goes_on_from_where_it_is(device: Device) -> None:
    for _ in range(7):
        device.block()
    device.speaker.reported(0, 40 * MS, 40 * MS, playing=True)
    device.clock.sleep_until(100 * NS)
    device.block()
    assert device.asked[7] == 100_000 + 40


def test_what_fails_in_sending_is_the_speaker_s_error() -> None:
    device = Device()

    def broken(*_: object) -> None:
        raise ConnectionError("gone")

    device.takes = broken
    device.speaker.start(lambda count, _: np.zeros((count, 1), np.int16))
    until(lambda: device.speaker.error is not None)
    device.speaker.stop()


def test_python_s_threads_take_shorter_turns_while_a_page_has_the_sound() -> None:
    before = sys.getswitchinterval()
    first, second = Device(), Device()
    for each in (first, second):
        each.speaker.start(lambda count, _: np.zeros((count, 1), np.int16))
        assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
    first.speaker.stop()
    first.speaker.stop()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
    second.speaker.stop()
    assert sys.getswitchinterval() == pytest.approx(before)
    assert first.turns == [True, False]


# --- who has the sound --------------------------------------------------------------------------------------------


class Elsewhere(NullSpeaker):
    """A speaker in some page."""

    def __init__(self, name: str) -> None:
        super().__init__(rate=RATE, channels=1)
        self.name = name


def sink(name: str) -> Sink:
    def make(_: Pull) -> Speaker:
        return Elsewhere(name)

    return Sink(make, LEAD_NS)


@pytest.fixture
def told() -> list[str]:
    """Where the sound has gone to."""
    return []


@pytest.fixture
def sounding(told: list[str]) -> Iterator[Sounding]:
    def note(name: str, words: str) -> None:
        assert name == "sound goes to"
        told.append(words)

    sounding = Sounding(rate=RATE, channels=1, audio="null", av_offset_ns=0, clock=MonotonicClock(), note=note)
    with Handle() as handle:
        handle.spawn("speaker", sounding.run)
        assert sounding.ready.wait(60)
        yield sounding


def goes_to(sounding: Sounding, name: str) -> None:
    until(lambda: sounding.speaker is not None and sounding.speaker.name == name)


def test_of_several_pages_the_first_has_the_sound_and_the_next_when_it_lets_go(
    sounding: Sounding, told: list[str]
) -> None:
    assert (sounding.claimed, sounding.sink_lead_ns) == (False, 0)
    sounding.claim("a", sink("first page"))
    goes_to(sounding, "first page")
    assert sounding.least_delay_ns >= LEAD_NS
    sounding.claim("b", sink("second page"))
    sounding.claim("a", sink("again"))  # said twice
    sounding.wants("b", 2 * LEAD_NS)  # it has no say
    assert sounding.sink_lead_ns == LEAD_NS
    sounding.wants("a", LEAD_NS + MS)
    assert sounding.sink_lead_ns == LEAD_NS + MS
    sounding.release("a")
    goes_to(sounding, "second page")
    sounding.release("b")
    sounding.release("b")
    goes_to(sounding, NullSpeaker.name)
    assert not sounding.claimed
    assert told == ["first page", "second page", NullSpeaker.name]


def test_the_device_takes_the_sound_back_from_every_page(sounding: Sounding) -> None:
    sounding.claim("a", sink("page"))
    goes_to(sounding, "page")
    sounding.rest(silent=False, alone=True)
    goes_to(sounding, NullSpeaker.name)  # this client's device
    assert (sounding.claimed, sounding.sink_lead_ns) == (False, 0)
    sounding.claim("a", sink("page"))  # loaded again
    assert not sounding.claimed
    sounding.offer()
    sounding.claim("b", sink("another page"))
    goes_to(sounding, "another page")


def test_that_the_device_has_the_sound_back_is_told_once_it_runs(sounding: Sounding) -> None:
    assert not sounding.back()
    sounding.claim("a", sink("page"))
    goes_to(sounding, "page")
    sounding.release("a")
    goes_to(sounding, NullSpeaker.name)  # silence until a page is there again, which wants as much
    until(lambda: sounding.blocks > BELIEVED_BLOCKS)
    assert not sounding.back()
    assert sounding.sink_lead_ns == LEAD_NS
    sounding.rest(silent=False)
    until(sounding.back)
    assert sounding.sink_lead_ns == 0
    assert not sounding.back()


# --- pictures ahead of their time ---------------------------------------------------------------------------------


class Stage:
    """A presentation of pictures alone, 30 a second with 100 ms of delay, and its record."""

    def __init__(self) -> None:
        self.recorder = Recorder(side="client", epoch_ns=0, clock="test")
        self.recording = PlayerRecording(self.recorder)
        self.fates_of_packets: list[str | None] = []
        self.presentation = Presentation(self.hear)
        self.presentation.player.add("video", Described(JPEG, VIDEO_CLOCK, ssrc=1))
        self.presentation.begin(streams={"video"}, delay_ns=100 * MS, sounding=None)
        self.presentation.player.begin(0, {"video": 0}, 0)

    def hear(self, event: PlayerEvent) -> None:
        self.recording(event)
        if isinstance(event, PacketsTaken):
            self.fates_of_packets += event.fates

    def come(self, *indices: int, now_ns: int) -> None:
        for index in indices:
            for packet in packets(index):
                assert self.take(packet, now_ns) == ["used"]
        self.presentation.move_along(now_ns)

    def take(self, packet: Fragment, now_ns: int) -> list[str | None]:
        sequence, ticks, _, marker, payload = packet
        data = RtpPacket(JPEG, sequence, ticks, 1, marker, payload).serialize()
        self.fates_of_packets.clear()
        self.presentation.receive(Path("video"), Batch(data, len(data)), now_ns)
        return self.fates_of_packets.copy()

    def tap(self) -> Tap:
        tap = self.presentation.tap(decides=True)
        tap.ahead = True
        return tap

    def fates(self) -> dict[int, Any]:
        """By the number of the frame: its fate and when it was shown, in ms."""
        frames = self.recorder.trace().frames
        return {
            round(row.pts * 30): (row.fate, None if np.isnan(row.shown) else round(row.shown * 1000))
            for row in frames.itertuples()
        }


@pytest.fixture
def stage() -> Stage:
    return Stage()


def taken(tap: Tap) -> list[tuple[int, int | None]]:
    """What waits in a tap: the numbers of the frames, and when they are due, in ms."""
    out = []
    while (item := tap.take_due(0)) is not None:
        frame, due_ns = item
        out.append((frame.ticks // 3000, None if due_ns is None else due_ns // MS))
    return out


def test_a_tap_ahead_gets_each_picture_when_it_is_complete_with_the_moment_it_is_due(stage: Stage) -> None:
    tap, plain = stage.tap(), stage.presentation.tap(decides=False)
    stage.presentation.move_along(0)
    stage.come(0, 1, 2, now_ns=0)
    assert taken(tap) == [(0, 100), (1, 133), (2, 166)]
    assert taken(plain) == []
    stage.presentation.move_along(100 * MS)
    assert taken(plain) == [(0, None)]
    assert taken(tap) == []


def test_a_tap_that_turns_to_pictures_ahead_gets_those_that_wait(stage: Stage) -> None:
    stage.come(0, 1, now_ns=0)
    tap = stage.tap()
    stage.presentation.move_along(MS)
    assert taken(tap) == [(0, 100), (1, 133)]
    tap.ahead = False
    stage.presentation.move_along(2 * MS)
    stage.presentation.move_along(100 * MS)
    assert taken(tap) == []  # it has that one
    stage.come(2, now_ns=110 * MS)
    assert taken(tap) == []
    stage.presentation.move_along(170 * MS)
    assert taken(tap) == [(2, None)]


@pytest.mark.parametrize("early", [True, False])
def test_the_page_s_verdict_is_the_record_s_before_playout_s_own_moment_and_after(stage: Stage, early: bool) -> None:
    tap = stage.tap()
    stage.presentation.move_along(0)
    stage.come(0, 1, now_ns=0)
    frames = [tap.take(0), tap.take(0)]
    if not early:
        stage.presentation.move_along(140 * MS)
    for frame in frames:
        assert frame is not None
        tap.presented(frame, frame.pts_ns + 95 * MS)
        tap.presented(frame, 1)  # said twice, written once
    stage.presentation.move_along(141 * MS)
    stage.presentation.move_along(200 * MS)
    assert stage.fates() == {0: ("shown", 95), 1: ("shown", 128)}
    assert len(stage.recorder.trace().frames) == 2


def test_only_the_first_tap_that_decides_is_heard(stage: Stage) -> None:
    first, second = stage.tap(), stage.tap()
    stage.presentation.move_along(0)
    stage.come(0, now_ns=0)
    frame = second.take(0)
    assert frame is not None
    second.presented(frame, 50 * MS)
    first.skipped(frame)
    stage.presentation.move_along(150 * MS)
    assert stage.fates() == {0: ("skipped", None)}


@pytest.mark.parametrize(("shown", "fate"), [(True, ("shown", 150)), (False, ("skipped", None))])
def test_what_a_page_that_left_owes_is_settled_and_playout_goes_on(
    stage: Stage, shown: bool, fate: tuple[str, int | None]
) -> None:
    tap = stage.tap()
    stage.presentation.move_along(0)
    stage.come(0, 3, now_ns=0)
    stage.presentation.move_along(150 * MS)  # the first is released
    assert stage.fates() == {}
    tap.resign(shown=shown)
    stage.presentation.move_along(160 * MS)
    assert stage.fates() == {0: fate}
    stage.presentation.move_along(220 * MS)
    assert stage.fates() == {0: fate, 3: ("shown", 220)}  # nobody owes a word on it
    events = [row.value for row in stage.recorder.trace().setting_rows if row.name == "view"]
    assert events == ["here", "gone"]


def test_a_picture_that_came_too_late_and_was_not_shown_is_late(stage: Stage) -> None:
    tap = stage.tap()
    stage.presentation.move_along(0)
    stage.come(0, now_ns=0)
    stage.come(1, now_ns=200 * MS)  # it was due at 133
    for frame in (tap.take(0), tap.take(0)):
        assert frame is not None
        tap.skipped(frame)
    stage.presentation.move_along(201 * MS)
    assert stage.fates() == {0: ("skipped", None), 1: ("late", None)}


def test_verdicts_that_never_come_are_in_flight_at_the_end_each_once(stage: Stage) -> None:
    tap = stage.tap()
    stage.presentation.move_along(0)
    stage.come(0, 1, 2, now_ns=0)
    stage.presentation.move_along(100 * MS)
    first = tap.take(0)
    assert first is not None
    tap.presented(first, 100 * MS)
    assert not stage.presentation.finished(110 * MS)
    stage.presentation.close_books(120 * MS)
    assert stage.fates() == {0: ("shown", 100), 1: ("in_flight", None), 2: ("in_flight", None)}
    assert len(stage.recorder.trace().frames) == 3


@pytest.mark.parametrize("came_back", [True, False])
def test_after_bye_an_incomplete_frame_has_until_it_is_too_late_to_show_it(stage: Stage, came_back: bool) -> None:
    stage.come(0, now_ns=0)
    stage.come(1, now_ns=33 * MS)
    *_, last = packets(2)
    for packet in packets(2)[:-1]:
        assert stage.take(packet, 67 * MS) == ["used"]
    stage.presentation.move_along(140 * MS)
    assert not stage.presentation.finished(140 * MS)
    if came_back:  # sent again: frame 2 is due at 167
        assert stage.take(last, 160 * MS) == ["used"]
    stage.presentation.move_along(167 * MS)
    assert stage.presentation.finished(206 * MS) == came_back
    assert stage.presentation.finished(207 * MS)
    assert stage.fates()[2] == (("shown", 167) if came_back else ("incomplete", None))


def test_loss_is_counted_by_the_packets_numbers(stage: Stage) -> None:
    parts = packets(0)
    for packet in (parts[0], parts[0], parts[-1]):
        stage.take(packet, 0)
    assert stage.presentation.received == (len(parts), 2)


def test_threads_of_a_speaker_end_with_it() -> None:
    device = Device()
    device.speaker.start(lambda count, _: np.zeros((count, 1), np.int16))
    device.speaker.stop()
    assert not [t for t in threading.enumerate() if t.name == "avlab-page-sound"]
