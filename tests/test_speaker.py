"""Speakers: what a block's stamps mean, errors that never reach C, the null speaker's time, and a real device."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tools

from avlab.media import speaker as module
from avlab.media.resampling import ResampledFill
from avlab.media.speaker import (
    DEVICE_BLOCKS_PER_SECOND,
    NULL_LATENCY_NS,
    HeardClock,
    NullSpeaker,
    PyAudioSpeaker,
    SoundDeviceSpeaker,
    SpeakerError,
    WillingSpeaker,
    open_speaker,
)
from avlab.wire.units import NS, Samples

MS = 1_000_000
RATE = 48_000
BLOCK = RATE // module.DEVICE_BLOCKS_PER_SECOND
BLOCK_NS = NS // module.DEVICE_BLOCKS_PER_SECOND


class Clock:
    """Stands for the `time` module, and for the null speaker's stop event: waiting is what moves it."""

    def __init__(self, now_ns: int = 5_000 * NS) -> None:
        self.now_ns = now_ns
        self.late_ns = 0
        self.waits = 0
        self.most_waits = 1_000_000

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> bool:
        self.waits += 1
        self.now_ns += round(seconds * NS) + self.late_ns
        return False

    def is_set(self) -> bool:
        return self.waits >= self.most_waits

    def set(self) -> None:
        self.most_waits = 0

    clear = is_set


class FakeStream:
    """A PortAudio stream of either library that asks when it is told to."""

    latency = 0.04
    fails: type[Exception] | None = None

    def __init__(self, **asked: Any) -> None:
        self.asked = asked
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.calls.append(name)

    def get_output_latency(self) -> float:
        return self.latency


class FakePyAudio(types.ModuleType):
    """The module `pyaudio` with one output device, or none, or one that does not open."""

    paInt16 = 8  # noqa: N815
    paContinue = 0  # noqa: N815

    def __init__(self, device: str | None = "Fake", opens: bool = True) -> None:
        super().__init__("pyaudio")
        self.device, self.opens = device, opens
        self.initialised = 0
        self.streams: list[FakeStream] = []

    def PyAudio(self) -> FakePyAudio:  # noqa: N802
        self.initialised += 1
        return self

    def terminate(self) -> None:
        self.initialised -= 1

    def get_default_output_device_info(self) -> dict[str, object]:
        if self.device is None:
            raise OSError("No Default Output Device Available")
        return {"name": self.device}

    def open(self, **asked: Any) -> FakeStream:
        if not self.opens:
            raise OSError(-9985, "Device unavailable")
        self.streams.append(FakeStream(**asked))
        return self.streams[-1]


class FakeSoundDevice(types.ModuleType):
    """The module `sounddevice`, likewise."""

    class PortAudioError(Exception):
        pass

    def __init__(self, device: str | None = "Fake") -> None:
        super().__init__("sounddevice")
        self.device = device
        self.streams: list[FakeStream] = []

    def query_devices(self, kind: str) -> dict[str, object]:
        assert kind == "output"
        if self.device is None:
            raise self.PortAudioError("Error querying device -1")
        return {"name": self.device}

    def RawOutputStream(self, **asked: Any) -> FakeStream:  # noqa: N802
        self.streams.append(FakeStream(**asked))
        return self.streams[-1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePyAudio:
    """PyAudio alone: the real sounddevice looks for devices once a process, and tests with real ones come later."""
    fake = FakePyAudio()
    monkeypatch.setitem(sys.modules, "pyaudio", fake)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    return fake


def ask(speaker: PyAudioSpeaker, clock: Clock, latency_ns: int = 40 * MS, late_ns: int = 0) -> Samples:
    """One block as PyAudio asks for it, stamped when it was due and called `late_ns` after that."""
    due_s = clock.now_ns / NS
    clock.now_ns += late_ns
    block, verdict = speaker._callback(
        None, BLOCK, {"current_time": due_s, "output_buffer_dac_time": due_s + latency_ns / NS}, 0
    )
    assert verdict == FakePyAudio.paContinue
    clock.now_ns += BLOCK_NS - late_ns
    return np.frombuffer(block, np.int16).reshape(-1, 2)


def started(fake: FakePyAudio, clock: Clock, fill: module.Fill) -> PyAudioSpeaker:
    """A speaker on the fake device, past the silence at its start."""
    speaker = PyAudioSpeaker(rate=RATE, channels=2)
    speaker.start(fill)
    for _ in range(3):
        assert not ask(speaker, clock).any()
    return speaker


def ones(count: int, heard_ns: int) -> Samples:
    return np.ones((count, 2), np.int16)


@pytest.mark.parametrize(
    ("current_s", "dac_s", "usual_s", "latency_ns"),
    [
        (100.0, 100.04, 0.5, 40 * MS),
        (0.0, 0.04, 0.5, 40 * MS),  # no stamp, and the difference is still the delay
        (100.0, 100.0, 0.03, 30 * MS),
        (100.0, 99.9, 0.03, 30 * MS),
        (100.0, 103.0, 0.03, 30 * MS),
        (0.0, 0.0, 0.03, 30 * MS),
        (100.0, 0.0, -1.0, 0),
        (100.0, 0.0, 50.0, 2 * NS),
    ],
)
def test_latency_is_the_blocks_own_unless_that_is_nonsense(
    current_s: float, dac_s: float, usual_s: float, latency_ns: int
) -> None:
    clock = HeardClock()
    assert clock.heard_ns(7 * NS, current_s, dac_s, usual_s) == pytest.approx(7 * NS + latency_ns, abs=1000)
    assert clock.latency_ns == pytest.approx(latency_ns, abs=1000)


def test_a_callback_that_python_delays_does_not_move_what_is_heard() -> None:
    clock = HeardClock()
    unix_s = 1.8e9  # PortAudio's clock on Linux; its floats still resolve a quarter of a microsecond
    for block, late_ns in enumerate([0, 5 * MS, 0, 30 * MS, 1 * MS]):
        at_ns = 77 * NS + block * BLOCK_NS
        stamp_s = unix_s + block * 0.02
        assert clock.heard_ns(at_ns + late_ns, stamp_s, stamp_s + 0.04, 0.0) == pytest.approx(
            at_ns + 40 * MS, abs=2_000
        )


@pytest.mark.parametrize("step_s", [-3.0, 3.0])
def test_a_stepped_clock_is_forgotten_within_a_second(step_s: float) -> None:
    clock = HeardClock()
    for block in range(101):
        at_ns = 77 * NS + block * BLOCK_NS
        stamp_s = 1e6 + block * 0.02 + (step_s if block > 50 else 0.0)
        heard_ns = clock.heard_ns(at_ns, stamp_s, stamp_s + 0.04, 0.0)
    assert heard_ns == pytest.approx(at_ns + 40 * MS, abs=2_000)


def test_pyaudio_is_asked_for_a_small_block_and_plays_what_fill_gives(fake: FakePyAudio, clock: Clock) -> None:
    heard = []

    def fill(count: int, heard_ns: int) -> Samples:
        heard.append(heard_ns)
        return np.arange(2 * count, dtype=np.int16).reshape(-1, 2)

    speaker = started(fake, clock, fill)
    asked = fake.streams[0].asked
    assert (asked["rate"], asked["channels"], asked["frames_per_buffer"], asked["format"]) == (RATE, 2, BLOCK, 8)
    now_ns = clock.now_ns
    assert (ask(speaker, clock, 35 * MS, late_ns=4 * MS) == fill(BLOCK, 0)).all()
    assert heard[0] == pytest.approx(now_ns + 35 * MS, abs=2_000)
    assert speaker.latency_ns == pytest.approx(35 * MS, abs=2_000)
    assert speaker.name == "Fake (PyAudio)"
    speaker.stop()
    speaker.stop()
    assert fake.streams[0].calls == ["start_stream", "close"]
    assert fake.initialised == 0


def test_silence_until_the_device_runs_at_its_own_pace(fake: FakePyAudio, clock: Clock) -> None:
    speaker = PyAudioSpeaker(rate=RATE, channels=2)
    speaker.start(ones)
    for _ in range(3):  # swallowed at once
        assert not ask(speaker, clock).any()
        clock.now_ns -= BLOCK_NS
    clock.now_ns += 1_900 * MS  # a sound server thinks
    assert not speaker.stalled
    played = [ask(speaker, clock).all() for _ in range(5)]
    assert played == [False, False, False, True, True]
    clock.now_ns += 300 * MS  # and again
    assert not ask(speaker, clock).any()
    speaker.stop()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda count, heard_ns: 1 // 0, "by zero"),
        (lambda count, heard_ns: np.ones((count - 1, 2), np.int16), r"int16 of shape \(960, 2\)"),
        (lambda count, heard_ns: np.ones((count, 2)), "float64"),
        (lambda count, heard_ns: None, "attribute"),
    ],
)
def test_what_fill_does_wrong_is_kept_and_silence_played(
    fake: FakePyAudio, clock: Clock, wrong: module.Fill, says: str
) -> None:
    speaker = started(fake, clock, wrong)
    assert speaker.error is None
    assert not ask(speaker, clock).any()
    first = speaker.error
    assert not ask(speaker, clock).any()
    assert speaker.error is first
    with pytest.raises(Exception, match=says):
        raise first or AssertionError("no error was kept")
    assert not speaker.stalled
    speaker.stop()
    speaker.start(ones)
    assert speaker.error is None
    speaker.stop()


def test_a_device_that_stops_asking_is_stalled(fake: FakePyAudio, clock: Clock) -> None:
    speaker = started(fake, clock, ones)
    assert ask(speaker, clock).all()
    clock.now_ns += 900 * MS
    assert not speaker.stalled
    clock.now_ns += 200 * MS
    assert speaker.stalled
    speaker.stop()
    assert not speaker.stalled


def test_a_device_that_never_asks_is_stalled_after_three_seconds(fake: FakePyAudio, clock: Clock) -> None:
    speaker = PyAudioSpeaker(rate=RATE, channels=2)
    assert not speaker.stalled
    speaker.start(ones)
    clock.now_ns += 2_900 * MS
    assert not speaker.stalled
    clock.now_ns += 200 * MS
    assert speaker.stalled
    speaker.stop()


def test_starting_twice_is_a_mistake(fake: FakePyAudio, clock: Clock) -> None:
    speaker = started(fake, clock, ones)
    with pytest.raises(RuntimeError, match=r"Fake .PyAudio. is already started"):
        speaker.start(ones)
    assert ask(speaker, clock).all()
    speaker.stop()


def test_a_device_that_does_not_open_says_what_to_do_and_holds_nothing(
    fake: FakePyAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.opens = False
    speaker = open_speaker("speaker", rate=RATE, channels=2)
    with pytest.raises(SpeakerError, match=r"Fake .PyAudio. does not open for 48000 Hz and 2 channels .*null speaker"):
        speaker.start(ones)
    assert fake.initialised == 0
    fake.opens = True
    speaker.start(ones)
    speaker.stop()


def test_sounddevice_plays_what_fill_gives(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    fake = FakeSoundDevice("Headphones")
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    speaker = SoundDeviceSpeaker(rate=RATE, channels=2)
    assert speaker.name == "Headphones (sounddevice)"
    speaker.start(ones)
    for block in range(4):
        out = bytearray(BLOCK * 4)
        at_s = clock.now_ns / NS
        stamps = types.SimpleNamespace(currentTime=at_s, outputBufferDacTime=at_s + 0.04)
        speaker._callback(memoryview(out), BLOCK, stamps, None)
        clock.now_ns += BLOCK_NS
        assert np.frombuffer(out, np.int16).any() == (block == 3)
    assert speaker.error is None
    speaker.stop()
    speaker.stop()
    assert fake.streams[0].calls == ["start", "abort", "close"]


class Picky:
    """What a fake library's device takes; other rates and channels are refused as PortAudio does."""

    def __init__(self) -> None:
        self.takes: set[tuple[int, int]] = set()
        self.asked: list[tuple[int, int]] = []

    def __call__(self, rate: int, channels: int) -> None:
        self.asked.append((rate, channels))
        if (rate, channels) not in self.takes:
            raise OSError(-9997, "Invalid sample rate")


Both = tuple[FakePyAudio, Picky, FakeSoundDevice, Picky]


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Both:
    """Both libraries, whose devices take nothing until their `takes` says so."""
    one, first, two, second = FakePyAudio("One"), Picky(), FakeSoundDevice("Two"), Picky()
    opened_one, opened_two = one.open, two.RawOutputStream

    def open_one(**asked: Any) -> FakeStream:
        first(asked["rate"], asked["channels"])
        return opened_one(**asked)

    def open_two(**asked: Any) -> FakeStream:
        try:
            second(asked["samplerate"], asked["channels"])
        except OSError as error:
            raise two.PortAudioError(str(error)) from error
        return opened_two(**asked)

    monkeypatch.setattr(one, "open", open_one)
    monkeypatch.setattr(two, "RawOutputStream", open_two)
    monkeypatch.setitem(sys.modules, "pyaudio", one)
    monkeypatch.setitem(sys.modules, "sounddevice", two)
    return one, first, two, second


@pytest.mark.parametrize(
    ("one", "two", "name", "resampled"),
    [
        ([(22_050, 1)], [(22_050, 1)], "One (PyAudio)", ""),
        ([], [(22_050, 1)], "Two (sounddevice)", ""),
        ([(48_000, 1)], [(22_050, 1)], "Two (sounddevice)", ""),
        ([(48_000, 1)], [(48_000, 1)], "One (PyAudio)", "22,050 Hz and 1 channel is resampled to 48,000 Hz and 1:"),
        ([], [(48_000, 1)], "Two (sounddevice)", "resampled to 48,000 Hz and 1: Two (sounddevice)"),
        ([(48_000, 2)], [], "One (PyAudio)", "resampled to 48,000 Hz and 2"),
        ([(48_000, 2)], [(48_000, 1)], "Two (sounddevice)", "resampled to 48,000 Hz and 1"),
    ],
)
def test_a_device_that_refuses_the_rate_is_tried_by_the_other_library_and_then_resampled(
    picky: Both, one: list[tuple[int, int]], two: list[tuple[int, int]], name: str, resampled: str
) -> None:
    fake_one, takes_one, _, takes_two = picky
    takes_one.takes, takes_two.takes = set(one), set(two)
    speaker = open_speaker("speaker", rate=22_050, channels=1)
    assert isinstance(speaker, WillingSpeaker)
    for _ in range(2):  # and so again, when it is started anew
        speaker.start(lambda count, _: np.ones((count, 1), np.int16))
        assert speaker.name == name
        assert (resampled in speaker.notice) if resampled else speaker.notice == ""
        assert fake_one.initialised == name.startswith("One")
        speaker.stop()
    assert fake_one.initialised == 0


def test_a_device_that_takes_nothing_says_what_it_said_of_the_sounds_own_rate(picky: Both) -> None:
    one, first, _, second = picky
    speaker = open_speaker("speaker", rate=22_050, channels=1)
    with pytest.raises(SpeakerError, match=r"One .PyAudio. does not open for 22050 Hz and 1 channels"):
        speaker.start(lambda count, _: np.ones((count, 1), np.int16))
    assert first.asked == second.asked == [(22_050, 1), (48_000, 1), (48_000, 2)]
    assert one.initialised == 0
    speaker.stop()


# ---- another rate


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_resampled_sound_is_the_same_tone_and_is_asked_for_when_it_is_heard(rate: int, channels: int) -> None:
    """A sine made for the moments at which it is said to be heard comes out then, whatever waits within."""
    asked: list[tuple[int, int]] = []

    def fill(count: int, heard_ns: int) -> Samples:
        asked.append((count, heard_ns))
        at = heard_ns / NS + np.arange(count) / rate
        wave = np.round(10_000 * np.sin(2 * np.pi * 440 * at)).astype(np.int16)
        return np.repeat(wave[:, None], channels, axis=1)

    to_channels = min(channels, 2)
    resampled = ResampledFill(fill, rate=rate, channels=channels, to_rate=48_000, to_channels=to_channels)
    blocks = [resampled(960, block * 20 * MS) for block in range(100)]
    assert all(block.shape == (960, to_channels) and block.dtype == np.int16 for block in blocks)
    samples = np.concatenate(blocks)[48_000:, 0].astype(float)
    tone = (samples * np.exp(-2j * np.pi * 440 * (1 + np.arange(len(samples)) / 48_000))).mean()
    # Where the tone lies in time, by its phase; and there is next to nothing else.
    assert abs(np.angle(tone) + np.pi / 2) / (2 * np.pi * 440) < 0.0005
    assert 2 * abs(tone) ** 2 > 0.99 * (samples**2).mean()
    assert sum(count for count, _ in asked) == pytest.approx(2 * rate, rel=0.01)
    ends = [heard_ns + count * NS // rate for count, heard_ns in asked]
    assert all(abs(heard_ns - end) < 0.2 * MS for (_, heard_ns), end in zip(asked[1:], ends, strict=False))


@pytest.mark.parametrize("samples", [np.zeros((0, 1), np.int16), np.zeros((5, 2), np.int16), np.zeros(5, np.int16)])
def test_a_fill_that_gives_something_else_is_named_and_asked_no_further(samples: Samples) -> None:
    with pytest.raises(ValueError, match="fill gave int16 of shape"):
        ResampledFill(lambda *_: samples, rate=22_050, channels=1, to_rate=48_000, to_channels=1)(960, 0)


@pytest.mark.parametrize(
    ("pyaudio", "sounddevice", "name"),
    [
        ("A", "B", "A (PyAudio)"),
        (None, "B", "B (sounddevice)"),
        ("not installed", "B", "B (sounddevice)"),
        (None, None, NullSpeaker.name),
        ("not installed", "not installed", NullSpeaker.name),
    ],
)
def test_auto_takes_what_is_there(
    monkeypatch: pytest.MonkeyPatch, pyaudio: str | None, sounddevice: str | None, name: str
) -> None:
    there = {"pyaudio": FakePyAudio(pyaudio), "sounddevice": FakeSoundDevice(sounddevice)}
    for library, device in (("pyaudio", pyaudio), ("sounddevice", sounddevice)):
        monkeypatch.setitem(sys.modules, library, None if device == "not installed" else there[library])
    assert open_speaker("auto", rate=RATE, channels=2).name == name
    if name == NullSpeaker.name:
        with pytest.raises(SpeakerError, match=r"no sound output here \(PyAudio .*; sounddevice .*\): connect"):
            open_speaker("speaker", rate=RATE, channels=2)
    assert open_speaker("null", rate=RATE, channels=2).name == NullSpeaker.name


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"rate": 0, "channels": 2}, "rate is 0 Hz: give 8000 to 192000"),
        ({"rate": RATE, "channels": 9}, "channels is 9: give 1 to 8"),
        ({"kind": "loud", "rate": RATE, "channels": 2}, "kind is 'loud'"),
    ],
)
def test_values_out_of_range_are_named(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_speaker(**asked)


def null_run(clock: Clock, rate: int, waits: int, fill: module.Fill) -> NullSpeaker:
    """The null speaker's thread function, run here on the fake clock for that many waits."""
    speaker = NullSpeaker(rate=rate, channels=2)
    speaker._begin(fill)
    speaker._clock.latency_ns = 10 * MS
    clock.most_waits = waits
    speaker._stopping = clock
    speaker._run()
    return speaker


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("late_ns", [0, 3 * MS, 45 * MS])
def test_the_null_speaker_never_drifts(clock: Clock, rate: int, late_ns: int) -> None:
    start_ns = clock.now_ns
    clock.late_ns = late_ns
    asked: list[tuple[int, int]] = []

    def fill(count: int, heard_ns: int) -> Samples:
        asked.append((count, heard_ns))
        return np.zeros((count, 2), np.int16)

    speaker = null_run(clock, rate, 300, fill)
    assert speaker.error is None
    assert [heard_ns for _, heard_ns in asked] == [
        start_ns + (k + 1) * 20 * MS + NULL_LATENCY_NS for k in range(len(asked))
    ]
    for blocks in (1, 2, 3, 100, 300):
        assert sum(count for count, _ in asked[:blocks]) == blocks * rate // DEVICE_BLOCKS_PER_SECOND


def test_the_null_speaker_goes_on_from_now_after_a_sleep(clock: Clock) -> None:
    heard: list[int] = []

    def fill(count: int, heard_ns: int) -> Samples:
        heard.append(heard_ns)
        clock.late_ns = 60 * NS if len(heard) == 5 else 0
        return np.zeros((count, 2), np.int16)

    null_run(clock, RATE, 8, fill)
    assert len(heard) == 8
    assert heard[6] - heard[4] == pytest.approx(60 * NS, abs=40 * MS)


def test_the_null_speakers_fill_may_fail(clock: Clock) -> None:
    speaker = null_run(clock, RATE, 10, lambda count, heard_ns: np.zeros(1, np.int16))
    assert f"give int16 of shape ({RATE // DEVICE_BLOCKS_PER_SECOND}, 2)" in str(speaker.error)


def test_the_null_speaker_starts_and_stops_a_thread_of_its_own() -> None:
    speaker = open_speaker("null", rate=RATE, channels=1)
    asked = threading.Event()
    names = []

    def fill(count: int, heard_ns: int) -> Samples:
        names.append(threading.current_thread().name)
        asked.set()
        return np.zeros((count, 1), np.int16)

    for _ in range(2):
        speaker.start(fill)
        assert asked.wait(60)
        asked.clear()
        speaker.stop()
        speaker.stop()
    assert set(names) == {"avlab-null-speaker"}
    assert speaker.error is None
    assert speaker.latency_ns == 10 * MS


@pytest.mark.slow
@pytest.mark.needs("pulse")
@pytest.mark.parametrize("library", [PyAudioSpeaker, SoundDeviceSpeaker])
def test_a_real_device_plays_the_samples_in_order(
    pulse_here: tools.Sound, library: type[PyAudioSpeaker | SoundDeviceSpeaker], capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip({PyAudioSpeaker: "pyaudio", SoundDeviceSpeaker: "sounddevice"}[library])
    position, done = 0, threading.Event()
    moments: list[int] = []

    def fill(count: int, heard_ns: int) -> Samples:
        nonlocal position
        moments.append(heard_ns)
        ramp = (1 + np.arange(position, position + count) % 30_000).astype(np.int16)
        position += count
        if position > pulse_here.rate:
            done.set()
        return np.stack([ramp, -ramp], axis=1)

    with pulse_here.recording() as heard:
        speaker = library(rate=pulse_here.rate, channels=2)
        speaker.start(fill)
        try:
            assert done.wait(60)
            assert not speaker.stalled
        finally:
            speaker.stop()
        played = heard()
    assert speaker.error is None
    assert 0 < speaker.latency_ns < 500 * MS
    loud = played[played[:, 0] > 0]
    assert len(loud) > pulse_here.rate // 2
    assert (loud[:, 1] == -loud[:, 0]).all()
    steps = np.diff(loud[:, 0].astype(int))
    # Where a busy machine lets it run dry, ALSA throws away what its buffer held: a few jumps, never a wrong sample.
    assert np.isin(steps, (1, 1 - 30_000)).mean() > 0.999
    assert moments == sorted(moments)
    assert "ALSA lib conf" not in capfd.readouterr().err
