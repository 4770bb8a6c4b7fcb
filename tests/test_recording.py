"""What a player tells as rows of the record: one for each packet, frame and reading, with what each is."""

from __future__ import annotations

import math

import pytest

from avlab.core.events import (
    FrameDecided,
    FrameDue,
    LeaderChanged,
    Leapt,
    Malformed,
    Notice,
    PacketsTaken,
    PlayerEvent,
    Rebuffered,
    SoundDecided,
    SourceChanged,
    SourcesKnown,
    SyncRead,
)
from avlab.measure.record.trace import Recorder, Trace
from avlab.stream.recording import PlayerRecording
from avlab.timing.jitterbuffer import Frame
from avlab.timing.soundbuffer import Played

FRAME = Frame(2**32 + 90_000, 1_000_000_000, b"jpegs", 5, 3, 1, 10_000_000, 20_000_000)


def recorded(*events: PlayerEvent) -> Trace:
    recorder = Recorder(side="client", epoch_ns=0, clock="test")
    recording = PlayerRecording(recorder)
    for event in events:
        recording(event)
    return recorder.trace()


def test_a_run_is_a_row_a_packet_but_for_what_is_malformed() -> None:
    fates = ["used", "used", "duplicate", None, "used", "used"]
    trace = recorded(PacketsTaken(7, "video", 5, 100, 9_000, True, [50, 50, 50, 50, 50, 20], fates))
    packets = trace.packets
    assert list(packets["seq"]) == [100, 101, 102, 104, 105]
    assert list(packets["fate"]) == ["used", "used", "duplicate", "used", "used"]
    assert list(packets["marker"]) == [False, False, False, False, True]
    assert list(packets["bytes"]) == [50, 50, 50, 50, 20]
    assert set(packets["received"]) == {7e-9}
    assert set(packets["ssrc"]) == {5}


@pytest.mark.parametrize("fate", ["used", "late"])
def test_a_run_without_its_frame_s_end_has_no_marker(fate: str) -> None:
    trace = recorded(
        PacketsTaken(7, "video", 5, 100, 9_000, False, [50, 50], [fate, fate]),
        PacketsTaken(8, "video", 5, 102, 9_000, True, [50], [fate]),
    )
    assert list(trace.packets["marker"]) == [False, False, True]


def test_pictures_and_sound_and_how_far_they_are_apart() -> None:
    played = Played(77, 500_000_000, 160, 30_000_000, 90_000_000, "shown")
    trace = recorded(
        FrameDue(1, FRAME, None, False),
        FrameDecided(FRAME, "shown", 60_000_000, True),
        SyncRead(60_000_000, 1_000_000_000, 1_010_000_000, 5_000_000, math.nan),
        SoundDecided([played], 2, True),
    )
    video, audio = trace.frames.itertuples()
    assert (video.stream, video.timestamp, video.bytes, video.packets, video.packets_lost) == (
        "video", 90_000, 5, 3, 1,
    )  # fmt: skip
    assert (video.shown, video.pts, video.fate) == (0.06, 1.0, "shown")
    assert (audio.stream, audio.bytes, audio.shown, audio.first_packet) == ("audio", 640, 0.09, 0.03)
    [sync] = trace.sync.itertuples()
    assert sync.offset == pytest.approx(0.01)  # the sound is early


def test_without_timestamps_a_picture_has_a_number_and_nothing_that_is_not_known() -> None:
    trace = recorded(FrameDecided(FRAME, "skipped", None, False))
    [row] = trace.frames.itertuples(index=False)
    assert trace.frames["index"][0] == FRAME.ticks
    assert row.fate == "skipped"
    assert math.isnan(row.pts)
    assert math.isnan(row.shown)


def test_what_only_the_driver_knows_is_written_by_the_same_hand() -> None:
    recorder = Recorder(side="client", epoch_ns=0, clock="test")
    recording = PlayerRecording(recorder)
    recording.note(1, "play")
    recording.setting(2, "video_over", "udp")
    recording.unnumbered(3, "video", 1_234)
    trace = recorder.trace()
    assert [(row.name, row.value, row.kind) for row in trace.setting_rows] == [
        ("play", None, "event"),
        ("video_over", "udp", "setting"),
    ]
    [packet] = trace.packets.itertuples()
    assert (packet.stream, packet.bytes, packet.fate, packet.received) == ("video", 1_234, "used", 3e-9)


def test_what_happened_besides_is_an_event_with_its_moment() -> None:
    trace = recorded(
        SourcesKnown((1, 2), (2,)),
        SourceChanged(1, "video", None, 0xAB),
        Leapt(2, "audio", -1_500_000_000),
        Malformed(3, "No."),
        Rebuffered(4, 20_000_000),
        LeaderChanged(5, True),
        Notice(6, "overload", "It is too slow."),
    )
    assert (trace.meta["ssrcs"], trace.meta["repair_ssrcs"]) == ([1, 2], [2])
    assert [(row.time_ns, row.name, row.value) for row in trace.setting_rows] == [
        (1, "video source changed", "none to 000000ab"),
        (2, "audio timestamps leapt", -1.5),
        (3, "malformed packet", "No."),
        (4, "rebuffer", 0.02),
        (5, "view", "here"),
        (6, "overload", "It is too slow."),
    ]
