"""What a client makes of what arrives, packet by packet at literal moments: sources, numbers, timestamps, reports.

A sender's packets are handed to the streams, a device asks for its blocks, and what is seen and heard is compared by
what it shows: the media time that each picture and each sample really are of.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import AUDIO, RATE, SOUND, VIDEO, Pictures, bye, described, description, jpeg, sender_report

from avlab.core.events import Path
from avlab.measure.record.trace import Recorder, Trace
from avlab.stream.clock import MonotonicClock
from avlab.stream.handle import Worker
from avlab.stream.playing import sound as sounding_module
from avlab.stream.playing.presentation import Presentation
from avlab.stream.playing.sound import Sounding
from avlab.stream.recording import PlayerRecording
from avlab.wire import rtcp, rtp, sdp
from avlab.wire.batch import batches
from avlab.wire.units import NS, EncodedFrame, Samples

MS = NS // 1000
BLOCK_NS = 10 * MS
LATENCY_NS = 10 * MS
FPS = 25
V, A = 0x1111, 0x2222
WALL_NS = 1_700_000_000 * NS


class Moments(MonotonicClock):
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.at_ns = 0

    def now_ns(self) -> int:
        return self.at_ns


class Device:
    """A sound device that asks when it is told to."""

    name, latency_ns, error, stalled = "device", LATENCY_NS, None, False

    def __init__(self) -> None:
        self.fill: Callable[[int, int], Samples] | None = None

    def start(self, fill: Callable[[int, int], Samples], /) -> None:
        self.fill = fill

    def stop(self) -> None:
        """Nothing is open."""


@dataclass
class Heard:
    """What came of a run."""

    trace: Trace
    notices: list[str]
    events: list[str]
    pictures: list[tuple[float, float]]  # when, and of which moment of the sender's clock
    sounds: list[tuple[float, float]]

    def gaps(self, which: list[tuple[float, float]], after: float = 0.7) -> float:
        """The longest time without a picture, or sound."""
        times = [when for when, _ in which if when >= after]
        return max(np.diff(times), default=math.inf)

    def offsets(self, since: float = 0.0, until: float = math.inf) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Picture against sound, as they really were: seconds by which what is heard is later."""
        times = [when for when, _ in self.sounds]
        out = []
        for when, moment in self.pictures:
            at = bisect_right(times, when) - 1
            if since <= when <= until and at >= 0 and when - times[at] < 0.05:
                out.append(self.sounds[at][1] + when - times[at] - moment)
        return np.array(out)

    def pts(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        frames = self.trace.frames
        return np.asarray(frames[(frames["stream"] == "video") & (frames["fate"] == "shown")]["pts"], np.float64)


@dataclass
class Rig:
    """A client less its sockets: `send` schedules what arrives, `run` lets the time pass."""

    sound: bool = True
    infos: dict[str, int] = field(default_factory=dict)
    ssrcs: dict[str, int | None] = field(default_factory=dict)
    first_ns: int = 0
    repair: Any = None
    delay_ns: int | None = 100 * MS
    described: str = ""
    turn_ms: int = 0  # how seldom the loop comes round to playout; 0 for at once

    def __post_init__(self) -> None:
        self.clock = Moments()
        self.recorder = Recorder(side="client", epoch_ns=0, clock="test")
        self.notices: list[str] = []
        self.presentation = Presentation(PlayerRecording(self.recorder), self._notice, ssrc=7)
        self.player = self.presentation.player
        self.said: list[tuple[str, bytes]] = []  # what the player sends: of which stream, and each compound
        self.answer: Callable[[bytes], Iterable[bytes]] = lambda _: ()  # a sender's to what the player says of video
        self._acts: list[tuple[int, Callable[[], None]]] = []
        self._events: list[tuple[int, int, str, list[bytes], bool]] = []
        self.moments: dict[int, list[float]] = {}  # of a picture's timestamp: the sender's moments
        media = sdp.parse(self.described or description(VIDEO, *([AUDIO] if self.sound else []))).media
        self.size = next((each.size for each in media if each.kind == "video"), None)
        for each in media:
            ssrc = self.ssrcs.get(each.kind, {"video": V, "audio": A}[each.kind])
            repair = self.repair if each.kind == "video" else None
            self.player.add(each.kind, described(each, ssrc=ssrc, repair=repair))
        self.presentation.pump()

    def _notice(self, words: str) -> None:
        if words not in self.notices:
            self.notices.append(words)

    def report(self, stream: str) -> rtcp.ReportBlock:
        """What the player's newest report says of a stream."""
        blocks = []
        for data in [data for of, data in self.said if of == stream]:
            for packet in rtcp.parse_compound(data):
                blocks += packet.blocks if isinstance(packet, rtcp.ReceiverReport) else ()
        return blocks[-1]

    def at(self, moment: float, act: Callable[[], None]) -> None:
        self._acts.append((round(moment * NS), act))

    def send(self, at: float, stream: str, *packets: bytes, control: bool = False) -> None:
        self._events.append((round(at * NS), len(self._events), stream, list(packets), control))

    def run(self, seconds: float, *, trust: bool = True) -> Heard:
        """Everything that was scheduled, in order; a device's block and a turn of the loop each 10 ms, and between."""
        device = Device()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sounding_module, "open_speaker", lambda *_, **__: device)
            sounding = worker = None
            if self.sound:
                sounding = Sounding(
                    rate=RATE, channels=1, audio="null", av_offset_ns=0, clock=self.clock, note=lambda *_: None
                )
                worker = Worker("speaker", sounding.run)
                worker.start()
                while device.fill is None:
                    assert worker.alive
            try:
                return self._run(seconds, device, sounding, trust)
            finally:
                if worker is not None:
                    worker.signal()
                    worker.join(5)

    def _run(self, seconds: float, device: Device, sounding: Sounding | None, trust: bool) -> Heard:
        self.presentation.begin(
            streams=set(self.player.streams), delay_ns=self.delay_ns, sounding=sounding, size=self.size
        )
        self.player.begin(self.first_ns, self.infos, 0)
        heard: list[tuple[float, float]] = []
        turn_ns = 0
        ticks = [(at * BLOCK_NS, -1, "", [], False) for at in range(round(seconds * NS) // BLOCK_NS)]
        for now_ns, order, stream, packets, control in sorted([*self._events, *ticks]):
            self.clock.at_ns = now_ns
            if order >= 0:
                self._take(Path(stream, control), packets, now_ns)
            elif device.fill is not None:
                block = device.fill(RATE * BLOCK_NS // NS, now_ns + LATENCY_NS)
                if (code := int(block[len(block) // 2, 0])) > 0:  # 20 ms of sound of one number are of one moment
                    at = int(np.argmax(block[:, 0] == code)) / RATE
                    start = (now_ns + LATENCY_NS) / NS + at
                    heard.append((start + 0.005 - at, (code - 1) * 0.02 + 0.01))
            while self._acts and now_ns >= self._acts[0][0]:
                self._acts.pop(0)[1]()
            if now_ns >= turn_ns:
                self.presentation.move_along(now_ns)
                for path, batch in self.player.outgoing():
                    self.said.append((path.stream, batch.data))
                    self._take(Path(path.stream), self.answer(batch.data), now_ns)
                turn_ns = now_ns + self.turn_ms * MS
        self.presentation.close_books(self.clock.at_ns)
        trace = self.recorder.trace()
        frames = trace.frames[(trace.frames["stream"] == "video") & (trace.frames["fate"] == "shown")]
        pictures = [
            (float(row.shown), max(at for at in self.moments[int(row.timestamp)] if at <= row.shown))
            for row in frames.sort_values("shown").itertuples()
            if trust  # that each picture is one of the sender's below
        ]
        events = [row.name for row in trace.setting_rows]
        return Heard(trace, self.notices, events, pictures, heard)

    def _take(self, path: Path, packets: Iterable[bytes], now_ns: int) -> None:
        for batch in batches(packets):
            self.presentation.receive(path, batch, now_ns)

    # ---- a sender

    def video(
        self,
        span: Iterable[int],
        *,
        ssrc: int = V,
        sequence: int = 100,
        ticks: int = 5_000,
        late: Callable[[int], float] = lambda _: 0.02,
    ) -> int:
        """Pictures by number, each 1/25 s; `ticks` stands for the first one's timestamp. The next sequence number."""
        first: int | None = None
        packer = Pictures(ssrc=ssrc, sequence=sequence & 0xFFFF, ticks=0).packer
        for number in span:
            first = number if first is None else first
            packer.timestamp_offset = ticks - first * 90_000 // FPS
            pts_ns = number * NS // FPS
            packets = packer.pack(EncodedFrame(0, pts_ns, jpeg(number), 64, 48))
            self.moments.setdefault(packer.timestamp(pts_ns), []).append(number / FPS)
            self.send(number / FPS + late(number), "video", *packets)
        return packer.sequence

    def audio(
        self,
        span: Iterable[int],
        *,
        ssrc: int = A,
        sequence: int = 500,
        ticks: int = 77_000,
        late: Callable[[int], float] = lambda _: 0.02,
    ) -> int:
        """Sound by number, each 20 ms, whose samples say which."""
        for at, number in enumerate(span):
            payload = np.full(RATE // 50, number + 1, ">i2").tobytes()
            stamp = (ticks + at * RATE // 50) & 0xFFFFFFFF
            packet = rtp.RtpPacket(SOUND, (sequence + at) & 0xFFFF, stamp, ssrc, False, payload)
            self.send(number / 50 + late(number), "audio", packet.serialize())
        return sequence + len(list(span))

    def reports(self, seconds: list[float], *, video: int | None, audio: int | None, **said: Any) -> None:
        """Sender reports at these moments; the timestamps that stand for moment 0."""
        ntp = said.get("ntp", lambda moment: rtcp.ns_to_ntp(WALL_NS + round(moment * NS)))
        for moment in seconds:
            if video is not None:
                data = sender_report(said.get("video_ssrc", V), ntp(moment), video + round(moment * 90_000))
                self.send(moment + 0.02, "video", data, control=True)
            if audio is not None:
                data = sender_report(said.get("audio_ssrc", A), ntp(moment), audio + round(moment * RATE))
                self.send(moment + 0.03, "audio", data, control=True)


def in_step(heard: Heard, since: float = 0.0, until: float = math.inf, *, within: float = 0.045) -> None:
    offsets = heard.offsets(since, until)
    assert len(offsets) > 10
    assert np.abs(offsets).max() < within, (offsets.min(), offsets.max())


def test_a_sender_as_it_should_be() -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.video(range(5 * FPS))
    rig.audio(range(5 * 50))
    heard = rig.run(5)
    in_step(heard)
    assert heard.notices == []
    assert len(heard.pictures) > 4.5 * FPS
    assert heard.gaps(heard.pictures) < 0.06
    assert not [name for name in heard.events if name not in ("playout_delay",)]


@pytest.mark.parametrize("count", [14, 17, 24])
def test_what_comes_to_its_end_is_written_down_by_then(count: int) -> None:
    """Whoever has waited for the end reads the record: nothing of it is still to be written."""
    rig = Rig(sound=False, delay_ns=0, infos={"video": 5_000}, turn_ms=300)
    rig.video(range(count))
    written: list[int] = []

    def look() -> None:
        if rig.presentation.finished(rig.clock.at_ns):
            written.append(int((rig.recorder.trace().frames["fate"] == "shown").sum()))

    rig.at(count / FPS + 0.03, look)
    rig.run(count / FPS + 0.1)
    assert written == [count]


# ---- sources


@pytest.mark.parametrize("told", [0x0BADCAFE, None])
def test_a_source_told_wrongly_is_taken_over(told: int | None) -> None:
    rig = Rig(ssrcs={"video": told, "audio": told}, infos={"video": 5_000, "audio": 77_000})
    rig.video(range(4 * FPS))
    rig.audio(range(4 * 50))
    heard = rig.run(4)
    in_step(heard)
    assert len(heard.pictures) >= 3.7 * FPS
    assert {V, A} <= set(heard.trace.meta["ssrcs"])
    assert ("video source changed" in heard.events) == (told is not None)
    for stream, ssrc in (("video", V), ("audio", A)):
        assert (rig.report(stream).cumulative_lost, rig.report(stream).ssrc) == (0, ssrc)


@pytest.mark.parametrize("goodbye", [False, True])
@pytest.mark.parametrize("restart", [(0, 0), (60_000, 4_000_000_000), (101, 1)])
def test_a_source_that_changes_in_mid_stream_is_followed(goodbye: bool, restart: tuple[int, int]) -> None:
    sequence, ticks = restart
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.video(range(3 * FPS))
    rig.audio(range(3 * 50))
    if goodbye:
        rig.send(3.01, "video", bye(V), control=True)
        rig.send(3.01, "audio", bye(A), control=True)
    rig.video(range(3 * FPS, 7 * FPS), ssrc=0x3333, sequence=sequence, ticks=ticks)
    rig.audio(range(3 * 50, 7 * 50), ssrc=0x4444, sequence=sequence, ticks=ticks)
    heard = rig.run(7)
    assert heard.gaps(heard.pictures) < (0.2 if goodbye else 0.9)
    assert heard.gaps(heard.sounds) < (0.2 if goodbye else 0.9)
    in_step(heard, 0, 2.9)
    in_step(heard, 4.2)
    assert (np.diff(heard.pts()) > 0).all()
    assert {"video source changed", "audio source changed"} <= set(heard.events)
    assert rig.player.streams["video"].ssrc == 0x3333
    assert not rig.player.streams["video"].ended
    packets = heard.trace.packets
    assert set(packets[packets["stream"] == "video"]["ssrc"]) == {V, 0x3333}
    theirs = packets[packets["ssrc"] == 0x3333]["seq"]
    assert (theirs % 65_536).iloc[0] == sequence
    assert theirs.max() - theirs.min() + 1 == len(theirs)
    report = rig.report("video")
    assert (report.cumulative_lost, report.jitter) == (0, 0)
    expected, came = rig.presentation.received
    assert expected == came


@pytest.mark.parametrize("delay", [0.1, 0.3, 0.7, 1.0])
def test_what_came_of_a_source_before_it_was_believed_is_shown_while_it_is_in_time(delay: float) -> None:
    """It is believed after half a second, by which time most of it is late for a short delay."""
    rig = Rig(sound=False, infos={"video": 5_000}, delay_ns=round(delay * NS))
    rig.video(range(3 * FPS))
    rig.video(range(3 * FPS, 7 * FPS), ssrc=0x3333, sequence=0, ticks=0)
    heard = rig.run(7)
    late = round(max(0.0, 0.5 - delay) * FPS)
    fates = heard.trace.frames["fate"].value_counts()
    assert late - 1 <= fates["late"] <= late + 1
    assert fates["lost"] == fates["incomplete"] == 0
    assert heard.gaps(heard.pictures, 1.5) < 0.06 + (late + 1) / FPS * (late > 0)


@pytest.mark.parametrize("each", [1, 2])
def test_stray_packets_of_other_sources_change_nothing(each: int) -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.video(range(4 * FPS))
    rig.audio(range(4 * 50))
    for at in range(40):
        stray = Pictures(ssrc=0x9999, sequence=at * 100, ticks=at * 9_999_999)
        rig.send(0.3 + at * 0.08, "video", *[p for n in range(each) for p in stray.frame(n * NS)][:each])
    heard = rig.run(4)
    in_step(heard)
    assert len(heard.pictures) > 3.7 * FPS
    assert rig.player.streams["video"].ssrc == V


def test_of_two_sources_at_once_the_first_is_played() -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.video(range(4 * FPS))
    other = Pictures(ssrc=0x9999)
    for number in range(4 * FPS):
        rig.send(number / FPS + 0.03, "video", *other.frame(number * NS // FPS))
    rig.audio(range(4 * 50))
    heard = rig.run(4)
    assert len(heard.pictures) > 3.7 * FPS
    assert "video source changed" not in heard.events


# ---- timestamps and numbers


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("numbers", ["go on", "begin again"])
@pytest.mark.parametrize("leap", [-3600.0, -30.0, -2.9, -0.5, 1.5, 8.0, 600.0, 20_000.0])
def test_timestamps_that_leap_are_followed(leap: float, numbers: str, sound: bool) -> None:
    rig = Rig(sound=sound, infos={"video": 5_000, **({"audio": 77_000} if sound else {})})
    if numbers == "begin again" and abs(leap) < 1:
        numbers = "go on"  # that would be a film that begins again after less than a second
    after_v = rig.video(range(3 * FPS))
    after_a = rig.audio(range(3 * 50)) if sound else 0
    again = numbers == "begin again"
    rig.video(
        range(3 * FPS, 7 * FPS),
        sequence=100 if again else after_v,
        ticks=(5_000 + round((3 + leap) * 90_000)) & 0xFFFFFFFF,
    )
    if sound:
        rig.audio(
            range(3 * 50, 7 * 50),
            sequence=500 if again else after_a,
            ticks=(77_000 + round((3 + leap) * RATE)) & 0xFFFFFFFF,
        )
    heard = rig.run(7)
    assert heard.gaps(heard.pictures) < 1.0
    assert len([when for when, _ in heard.pictures if when > 4.1]) > 2.7 * FPS
    if sound:
        assert heard.gaps(heard.sounds) < 1.0
        in_step(heard, 0, 2.9)
        in_step(heard, 4.1)
    assert (np.diff(heard.pts()) > 0).all()
    assert heard.pts()[-1] == pytest.approx(7, abs=0.4)
    assert [words for words in heard.notices if "timestamps leapt" in words]
    assert len(heard.notices) == 1
    assert any("timestamps leapt" in name for name in heard.events)
    report = rig.report("video")
    assert report.jitter == 0
    assert report.cumulative_lost <= 0


def test_a_film_that_begins_again_and_again_is_told_of_a_few_times() -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    video, audio = 100, 500
    for lap in range(20):
        video = rig.video(range(lap * FPS, (lap + 1) * FPS), sequence=video, ticks=5_000)
        audio = rig.audio(range(lap * 50, (lap + 1) * 50), sequence=audio, ticks=77_000)
    heard = rig.run(20)
    in_step(heard)
    assert len(heard.pictures) > 19 * FPS
    assert heard.pts()[-1] == pytest.approx(20, abs=0.3)
    assert len(heard.notices) <= 2


@pytest.mark.parametrize("ahead", [-1800.0, -1.0, 5.0, 3600.0])
def test_one_timestamp_out_of_line_is_a_stray_packet(ahead: float) -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    sequence = rig.video(range(2 * FPS))
    stray = Pictures(ssrc=V, sequence=sequence, ticks=5_000 + round((2 + ahead) * 90_000)).packer
    rig.send(2.01, "video", *stray.pack(EncodedFrame(0, 0, jpeg(3), 64, 48))[:1])
    rig.video(range(2 * FPS, 5 * FPS), sequence=sequence + 1, ticks=5_000 + 2 * 90_000)
    audio = rig.audio(range(2 * 50))
    odd = rtp.RtpPacket(SOUND, audio, 77_000 + round((2 + ahead) * RATE) & 0xFFFFFFFF, A, False, bytes(320)).serialize()
    rig.send(2.01, "audio", odd)
    rig.audio(range(2 * 50, 5 * 50), sequence=audio + 1, ticks=77_000 + 2 * RATE)
    heard = rig.run(5)
    in_step(heard)
    assert len(heard.pictures) > 4.6 * FPS
    assert {"stray video packet", "stray audio packet"} <= set(heard.events)
    assert heard.notices == []


def test_packets_from_before_a_leap_that_come_after_it_are_late() -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    sequence = rig.video(range(2 * FPS), late=lambda number: 0.15 if number in (47, 48) else 0.02)
    rig.video(range(2 * FPS, 4 * FPS), sequence=sequence, ticks=4_000_000_000)
    rig.audio(range(4 * 50))
    heard = rig.run(4)
    assert heard.gaps(heard.pictures) < 0.3
    assert (np.diff(heard.pts()) > 0).all()
    assert sum("leapt" in name for name in heard.events) == 2  # the picture's, and the notice


def test_an_outage_is_no_leap() -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.video(n for n in range(9 * FPS) if not 2 * FPS <= n < 6 * FPS)
    heard = rig.run(9)
    assert not any("leapt" in name for name in heard.events)
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.video(range(6 * FPS), late=lambda n: max(0.02, 4.0 - n / FPS) if 2 * FPS <= n < 4 * FPS else 0.02)  # a stall
    rig.audio(range(6 * 50), late=lambda n: max(0.02, 4.0 - n / 50) if 100 <= n < 200 else 0.02)
    heard = rig.run(6)
    assert not any("leapt" in name for name in heard.events)
    in_step(heard, 0, 1.9)


# ---- what a sender tells of its clocks


@pytest.mark.parametrize("wrong", [{"video": 0}, {"audio": 0}, {"video": 0, "audio": 0}, {"video": 5_000 + 3 * 90_000},
                                   {"audio": 77_000 - 3 * RATE}, {"video": 3_000_000_000}])  # fmt: skip
@pytest.mark.parametrize("starts", [(2_000_000_000, 900_000_000), (5_000 + (1 << 31), 77_000 + (1 << 31))])
def test_rtp_info_that_does_not_fit_the_packets_is_not_believed(wrong: dict[str, int], starts: tuple[int, int]) -> None:
    video, audio = starts
    rig = Rig(infos={"video": video, "audio": audio} | wrong)
    rig.video(range(4 * FPS), ticks=video)
    rig.audio(range(4 * 50), ticks=audio)
    heard = rig.run(4)
    in_step(heard)
    assert len(heard.pictures) > 3.6 * FPS
    assert "RTP-Info not believed" in heard.events
    assert heard.pts()[0] < 1


def test_rtp_info_that_is_wrong_alike_for_both_still_says_what_belongs_together() -> None:
    """A server that names its clocks' beginning and not the range's; its pictures start 300 ms after its sound."""
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.audio(range(4 * 50), ticks=77_000 + 500 * RATE)
    rig.video(range(8, 4 * FPS), ticks=5_000 + 500 * 90_000 + 8 * 3_600)
    heard = rig.run(4)
    in_step(heard)


@pytest.mark.parametrize("clock", ["none", "stands still", "another"])
@pytest.mark.parametrize("late", [0.0, 0.5])
def test_reports_without_a_clock_are_not_used(clock: str, late: float) -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.video(range(8 * FPS))
    rig.audio(range(8 * 50))
    moments = [at + 0.1 for at in range(8)]
    still = rtcp.ns_to_ntp(WALL_NS)
    ntp = {"none": lambda _: 0, "stands still": lambda _: still}.get(
        clock, lambda moment: rtcp.ns_to_ntp(WALL_NS + round(moment * NS))
    )
    rig.reports([at + late for at in moments], video=5_000, audio=None, ntp=ntp)
    ntp = ntp if clock != "another" else lambda moment: rtcp.ns_to_ntp(round(moment * NS) + 70 * NS)
    rig.reports(moments, video=None, audio=77_000, ntp=ntp)
    heard = rig.run(8)
    in_step(heard, 2.5)  # two reports show that a clock stands still
    if clock != "stands still":
        in_step(heard)


def test_reports_put_right_what_arrival_alone_cannot_tell() -> None:
    """No RTP-Info, and the sound comes 300 ms later than its pictures."""
    rig = Rig()
    rig.video(range(8 * FPS))
    rig.audio(range(8 * 50), late=lambda _: 0.32)
    rig.reports([0.4, 1.4, 2.4, 3.4], video=5_000, audio=77_000)
    heard = rig.run(8)
    in_step(heard, 3)


def test_reports_of_a_new_stretch_count_and_those_of_the_old_do_not() -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    video = rig.video(range(3 * FPS))
    audio = rig.audio(range(3 * 50))
    rig.reports([0.1, 1.1, 2.1], video=5_000, audio=77_000)
    rig.video(range(3 * FPS, 8 * FPS), sequence=video, ticks=1_000)
    rig.audio(range(3 * 50, 8 * 50), sequence=audio, ticks=3_000_000_000)
    rig.reports([2.99], video=5_000, audio=77_000)
    rig.reports([3.5, 4.5, 5.5], video=1_000 - 3 * 90_000, audio=3_000_000_000 - 3 * RATE)
    heard = rig.run(8)
    in_step(heard, 0, 2.9)
    in_step(heard, 4.2)
    assert heard.gaps(heard.pictures) < 1


@pytest.mark.parametrize("by_s", [10.0, 3600.0])
def test_a_report_that_names_a_moment_far_from_what_arrives(by_s: float) -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.video(range(5 * FPS))
    rig.audio(range(5 * 50))
    rig.reports([0.1, 1.1, 2.1, 3.1], video=5_000 + round(by_s * 90_000), audio=77_000)
    heard = rig.run(5)
    in_step(heard)


# ---- streams that are silent


def test_sound_that_never_comes_leaves_the_pictures() -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    # The sender stands still for two seconds: pictures follow it, as no sound leads them.
    rig.video(range(10 * FPS), late=lambda n: 0.02 if n < 3 * FPS else 2.02)
    heard = rig.run(13)
    assert len(heard.pictures) > 8.5 * FPS
    assert heard.gaps(heard.pictures) < 3.2


@pytest.mark.parametrize("infos", [{}, {"video": 5_000, "audio": 77_000}])
@pytest.mark.parametrize("stood_s", [0.0, 2.0])
@pytest.mark.parametrize("begins_s", [1, 3, 7])
def test_sound_that_begins_late_is_taken_up(infos: dict[str, int], stood_s: float, begins_s: int) -> None:
    rig = Rig(infos=infos)
    # Before the sound begins the sender stands still for a while, and all that follows comes so much later.
    rig.video(range(12 * FPS), late=lambda n: 0.02 if n < FPS // 2 else 0.02 + stood_s)
    rig.audio(range(begins_s * 50, 12 * 50), ticks=77_000 + begins_s * RATE, late=lambda _: 0.02 + stood_s)
    heard = rig.run(12 + stood_s)
    assert len(heard.pictures) > 12 * FPS - (1.6 + stood_s) * FPS
    assert len(heard.sounds) > (12 - begins_s - 1.5) * 100
    in_step(heard, begins_s + stood_s + 1.5, within=0.06)


def test_sound_that_falls_silent_and_comes_back() -> None:
    rig = Rig(infos={"video": 5_000, "audio": 77_000})
    rig.video(range(14 * FPS))
    audio = rig.audio(range(3 * 50))
    rig.audio(range(9 * 50, 14 * 50), sequence=audio, ticks=77_000 + 9 * RATE)
    heard = rig.run(14)
    assert heard.gaps(heard.pictures) < 0.1
    in_step(heard, 0, 3)
    in_step(heard, 9.5)


def test_pictures_that_begin_late_are_taken_up() -> None:
    rig = Rig()
    rig.audio(range(20 * 50))
    rig.video(range(13 * FPS, 20 * FPS), ticks=5_000)
    heard = rig.run(20)
    in_step(heard)
    assert len(heard.pictures) > 6.5 * FPS


# ---- malformed, and not described


def test_malformed_packets_are_told_of_once() -> None:
    rig = Rig(sound=False)
    rig.video(range(2 * FPS))
    for at in range(20):
        rig.send(0.5 + at / 50, "video", b"\x80\x1a" + bytes(at))
    heard = rig.run(2)
    [words] = heard.notices
    assert "packets come that cannot be read" in words
    assert len(heard.pictures) > 1.7 * FPS


def test_one_malformed_packet_is_only_recorded() -> None:
    rig = Rig(sound=False)
    rig.video(range(FPS))
    rig.send(0.5, "video", b"nonsense")
    heard = rig.run(1)
    assert heard.notices == []
    assert "malformed packet" in heard.events


def test_a_payload_type_that_was_not_described_is_named() -> None:
    rig = Rig()
    rig.audio(range(3 * 50))
    for number in range(60):
        rig.send(number / 30, "video", rtp.RtpPacket(96, number, number * 3000, V, True, bytes(50)).serialize())
    heard = rig.run(3)
    [words] = heard.notices
    assert "payload type 96" in words
    assert "JPEG as 26" in words


@pytest.mark.parametrize("before_s", [0, 1.5])
@pytest.mark.parametrize("stream", ["video", "audio"])
def test_timestamps_that_stand_still_are_told_of(stream: str, before_s: float) -> None:
    rig = Rig()
    rig.audio(range(5 * 50 if stream == "video" else round(before_s * 50)))
    rig.video(range(5 * FPS if stream == "audio" else round(before_s * FPS)))
    kind, ssrc, size = (26, V, 900) if stream == "video" else (97, A, 80)
    for number in range(round((5 - before_s) * 50)):
        packet = rtp.RtpPacket(kind, 9000 + number, 123_456, ssrc, True, bytes(size))
        rig.send(before_s + number / 50, stream, packet.serialize())
    told = [words for words in rig.run(5).notices if "stand still" in words]
    assert len(told) == 1
    assert ("pictures" if stream == "video" else "sound") in told[0]


def test_a_picture_of_many_packets_is_none_that_stands_still() -> None:
    """Nor are slides, though each packet of a slide has the same timestamp."""
    rig = Rig(sound=False)
    rig.video(range(0, 20 * FPS, 5 * FPS))
    heard = rig.run(20)
    assert not [words for words in heard.notices if "stand still" in words]


@pytest.mark.parametrize("before_s", [0.2, 1, 3])
@pytest.mark.parametrize("ssrc", [V, V + 1])
def test_a_payload_type_that_changes_in_mid_stream_is_named(before_s: float, ssrc: int) -> None:
    rig = Rig()
    rig.audio(range(6 * 50))
    rig.video(range(round(before_s * FPS)))
    for number in range(round((6 - before_s) * 200)):
        packet = rtp.RtpPacket(96, 9000 + number, number * 450, ssrc, number % 8 == 7, bytes(50))
        rig.send(before_s + number / 200, "video", packet.serialize())
    heard = rig.run(6)
    [words] = heard.notices
    assert "payload type 96" in words


def test_a_few_packets_of_another_payload_type_between_others_are_nothing_to_tell() -> None:
    """Such as comfort noise, RFC 3389."""
    rig = Rig()
    rig.video(range(6 * FPS))
    for at in range(0, 6, 2):
        rig.audio(range(at * 50, at * 50 + 40))
        for number in range(10):
            packet = rtp.RtpPacket(13, 9000 + number, number * 160, A, False, bytes(1))
            rig.send(at + 0.9 + number / 10, "audio", packet.serialize())
    heard = rig.run(6)
    assert not [words for words in heard.notices if "payload type" in words]


@pytest.mark.parametrize("told", ["a=x-dimensions:2560,1440", "a=framesize:26 2560-1440", ""])
def test_pictures_too_large_for_their_header(told: str) -> None:
    """Shown where the description tells their size; else a notice says what is the matter, once."""
    rig = Rig(sound=False, described=description((*VIDEO, *filter(None, [told]))))
    source = Pictures()
    for number in range(2 * FPS):
        packets = source.frame(number * NS // FPS, number)
        rig.moments[source.packer.timestamp(number * NS // FPS)] = [number / FPS]
        rig.send(number / FPS, "video", *(packet[:18] + b"\0\0" + packet[20:] for packet in packets))
    heard = rig.run(2)
    if told:
        assert len(heard.pictures) > 1.7 * FPS
        assert heard.notices == []
    else:
        assert heard.pictures == []
        [words] = heard.notices
        assert "over 2040 pixels" in words
        assert "have it send smaller ones" in words


# ---- a machine that is too slow


@pytest.mark.parametrize(("every_ms", "told"), [(10, False), (35, False), (130, True)])
def test_a_loop_that_comes_round_too_seldom_is_told_of(every_ms: int, told: bool) -> None:
    rig = Rig(sound=False)
    rig.video(range(14 * FPS))
    rig.turn_ms = every_ms
    heard = rig.run(14)
    assert bool([words for words in heard.notices if "too slow for the stream" in words]) == told
    assert len(heard.notices) == told


def test_pictures_that_are_skipped_for_another_delay_are_no_overload() -> None:
    rig = Rig(sound=False, delay_ns=5 * NS)
    rig.video(range(20 * FPS))
    rig.at(8.0, lambda: rig.presentation.set_delay(100 * MS))
    heard = rig.run(20)
    assert (heard.trace.frames["fate"] == "skipped").sum() > 50
    assert heard.notices == []


@pytest.mark.parametrize(("late_s", "told"), [(0.0, False), (0.05, False), (0.4, True)])
def test_pictures_that_nearly_all_come_too_late_are_told_of(late_s: float, told: bool) -> None:
    """A server whose pictures lag behind its sound, as one that does not keep up: nothing shown is not nothing said."""
    rig = Rig()
    rig.audio(range(13 * 50))
    rig.video(range(12 * FPS), late=lambda number: 0.02 if number < FPS else late_s)
    heard = rig.run(13)
    assert bool([words for words in heard.notices if "come too late for their time" in words]) == told


# ---- repair, and whatever comes

REPAIRED = (
    "m=video 0 RTP/AVP 26 98 99", "a=rtpmap:98 rtx/90000", "a=fmtp:98 apt=26;rtx-time=1000", "a=rtpmap:99 ulpfec/90000",
    "a=control:0",
)  # fmt: skip


@pytest.mark.parametrize("change", ["source", "numbers"])
def test_repair_begins_anew_with_what_it_repairs(change: str) -> None:
    """After another source, or other numbers, what is lost is asked for by the numbers of now, and taken back."""
    rig = Rig(sound=False, described=description(REPAIRED), repair="rtx")
    rig.video(range(2 * FPS))
    if change == "source":
        rig.send(2.0, "video", bye(V), control=True)
    ssrc = 0x3333 if change == "source" else V
    packer = Pictures(ssrc=ssrc, sequence=40_000, ticks=5_000).packer
    lost: list[rtp.RtpPacket] = []
    for number in range(2 * FPS, 4 * FPS):
        pts_ns = number * NS // FPS
        rig.moments[packer.timestamp(pts_ns)] = [number / FPS]
        packets = packer.pack(EncodedFrame(0, pts_ns, jpeg(number), 64, 48))
        if number == 3 * FPS:
            lost += [rtp.RtpPacket.parse(packet) for packet in packets]
        else:
            rig.send(number / FPS + 0.02, "video", *packets)
    asked = []

    def answer(data: bytes) -> Iterable[bytes]:
        """What a NACK asks for, sent again at once."""
        for packet in rtcp.parse_compound(data):
            for sequence in packet.sequences if isinstance(packet, rtcp.Nack) else ():
                asked.append(sequence)
                for one in lost:
                    if one.sequence == sequence:
                        payload = sequence.to_bytes(2, "big") + one.payload
                        yield one._replace(payload_type=98, ssrc=0x7777, payload=payload).serialize()

    rig.answer = answer
    heard = rig.run(4)
    assert {packet.sequence for packet in lost} <= set(asked)
    assert (heard.trace.packets["fate"] == "recovered").sum() == len(lost)
    assert 3.0 in [moment for _, moment in heard.pictures]
    assert 0x7777 in heard.trace.meta["ssrcs"]


HOSTILE = st.builds(
    rtp.RtpPacket,
    payload_type=st.sampled_from((26, 26, 26, 97, 98, 99, 96)),
    sequence=st.one_of(st.integers(0, 0xFFFF), st.integers(100, 110)),
    timestamp=st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from((5_000, 8_600, 12_200))),
    ssrc=st.sampled_from((V, V, V, A, 0x3333)),
    marker=st.booleans(),
    payload=st.one_of(st.binary(max_size=12), st.just(Pictures().frame(0)[0][12:]), st.just(bytes(320))),
)
CONTROL = st.one_of(
    st.builds(
        sender_report,
        st.sampled_from((V, A, 0x3333)),
        st.integers(0, 0xFFFFFFFF_FFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
    ),
    st.builds(bye, st.sampled_from((V, A, 0x3333))),
    st.binary(max_size=40),
)
ARRIVALS = st.tuples(
    st.integers(0, 3_000),
    st.sampled_from(("video", "audio")),
    st.one_of(
        st.tuples(st.just(False), st.lists(HOSTILE.map(lambda packet: packet.serialize()), min_size=1, max_size=4)),
        st.tuples(st.just(True), st.lists(CONTROL, min_size=1, max_size=2)),
    ),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(ARRIVALS, max_size=40),
    st.sampled_from((None, "rtx", "fec")),
    st.dictionaries(st.sampled_from(("video", "audio")), st.integers(0, 0xFFFFFFFF)),
)
def test_whatever_comes_raises_nothing_and_pictures_are_shown_in_order(
    arrivals: list[tuple[int, str, tuple[bool, list[bytes]]]], repair: Any, infos: dict[str, int]
) -> None:
    rig = Rig(described=description(REPAIRED, AUDIO), repair=repair, infos=infos)
    for at_ms, stream, (control, packets) in arrivals:
        rig.send(at_ms / 1000, stream, *packets, control=control)
    heard = rig.run(3.2, trust=False)
    assert (np.diff(heard.pts()) > 0).all()
    assert len(heard.notices) < 20
    numbers = heard.trace.packets.groupby("ssrc")["seq"].agg(["min", "max"])
    assert ((numbers["max"] - numbers["min"]) <= 3_000 * 4 * len(arrivals) + 2 * 65_536).all()
