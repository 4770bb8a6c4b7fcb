"""A microphone as a source: its samples on the machine's clock, held against a stand-in and a sound server's monitor.

This is no test of any real microphone.
"""

from __future__ import annotations

import random
import threading
import time
import types
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
from rawclient import until

import avlab
from avlab import cli
from avlab.media import microphone as module
from avlab.media.camera import CameraSource
from avlab.media.microphone import Block, MicrophoneSource, SoundLine
from avlab.media.packets import MediaError
from avlab.media.sources import open_source
from avlab.stream.playing.tap import Received
from avlab.timing.soundbuffer import SoundBuffer, SoundChunk
from avlab.wire.units import NS, Samples

MS = 1_000_000
RATE = 48_000
SIZE = RATE // 50
ORIGIN_NS = 7_000 * NS


# ---- the line that samples are laid on


class Device:
    """A device's blocks, as they would come: `ppm` fast, each `late()` ns late, some lost; see `ramp`."""

    def __init__(self, *, ppm: float = 0.0, late: Callable[[], int] = lambda: 0, opened_ns: int = 300 * MS) -> None:
        self.ppm, self.late, self.opened_ns = ppm, late, opened_ns
        self.number = 0
        self.count = 0  # samples captured so far

    def captured_ns(self, sample: int) -> int:
        """When a sample is captured, from the origin."""
        return self.opened_ns + round(sample * NS / (RATE * (1 + self.ppm / 1e6)))

    def block(self, *, overflow: bool = False) -> Block:
        begin = self.count
        self.count += SIZE
        self.number += 1
        captured_ns = ORIGIN_NS + self.captured_ns(begin) + self.late()
        return Block(self.number - 1, captured_ns, ramp(begin, SIZE), overflow)

    def lose(self, samples: int, *, blocks: int = 0) -> None:
        """Samples that the driver threw away, or blocks that nobody fetched."""
        self.count += samples + blocks * SIZE
        self.number += blocks


def ramp(begin: int, count: int) -> Samples:
    """Samples as the stand-ins capture them: up and down again, a step of 1 each."""
    return (1 + np.abs(np.arange(begin, begin + count) % 60_000 - 30_000)).astype(np.int16)[:, None]


class Laid:
    """What a line gave: where each run begins, and its samples."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.line = SoundLine(rate=RATE, channels=1, origin_ns=ORIGIN_NS)
        self.begin: int | None = None
        self.end = 0
        self.parts: list[Samples] = []

    def take(self, blocks: int, *, overflow: bool = False) -> None:
        for number in range(blocks):
            given = self.line.place(self.device.block(overflow=overflow and number == 0))
            if len(given):
                begin = self.line.position - len(given)
                if self.begin is None:
                    self.begin = self.end = begin
                assert begin == self.end, "no sample without its position, none twice"
                self.end = self.line.position
                self.parts.append(given)

    @property
    def samples(self) -> Samples:
        return np.concatenate(self.parts)[:, 0]

    def late_ms(self) -> float:
        """How far the newest sample's position is behind when it was captured."""
        captured_ns = self.device.captured_ns(self.device.count)
        return captured_ns / MS - self.line.position * 1000 / RATE


def test_samples_have_the_time_at_which_they_were_captured() -> None:
    laid = Laid(Device())
    laid.take(200)
    assert laid.begin == (300 * MS * RATE // NS) + 21 * SIZE, "the first blocks only tell how late blocks come"
    assert (laid.samples == ramp(21 * SIZE, 179 * SIZE)[:, 0]).all(), "not one sample is touched"
    assert (laid.line.steered, laid.line.lost) == (0, 0)


@pytest.mark.parametrize("most_ms", [1, 15, 200])
def test_lateness_is_not_taken_for_time(most_ms: int) -> None:
    """Blocks come late and in bursts when Python is busy; one in ten comes at once."""
    random_ = random.Random(most_ms)
    laid = Laid(Device(late=lambda: 0 if random_.random() < 0.2 else random_.randrange(most_ms * MS)))
    laid.take(3000)
    assert laid.line.lost == 0
    assert abs(laid.late_ms()) < 1.5
    assert abs(laid.line.drift_ppm) < 40


@pytest.mark.parametrize("ppm", [-200, -50, 50, 200])
def test_a_device_whose_clock_is_off_is_followed(ppm: int) -> None:
    random_ = random.Random(ppm)
    laid = Laid(Device(ppm=ppm, late=lambda: random_.randrange(3 * MS)))
    laid.take(50 * 200)
    assert abs(laid.late_ms()) < 1.5, "unfollowed, it were 10 to 40 ms after these 200 s"
    assert laid.line.drift_ppm == pytest.approx(-ppm, abs=10)
    assert laid.line.lost == 0
    steps = np.diff(laid.samples.astype(int))
    assert np.abs(steps).max() <= 2, "a sample in or out is no click"


def test_what_an_overflow_threw_away_is_silent_and_the_rest_in_its_place() -> None:
    laid = Laid(Device())
    laid.take(100)
    laid.device.lose(5_000)
    laid.take(100, overflow=True)
    assert laid.line.lost == 5_000
    assert abs(laid.late_ms()) < 0.1
    zeros = np.flatnonzero(laid.samples == 0)
    assert (zeros == 79 * SIZE + np.arange(5_000)).all()


def test_blocks_that_were_not_fetched_are_silent() -> None:
    laid = Laid(Device())
    laid.take(100)
    laid.device.lose(0, blocks=7)
    laid.take(100)
    assert laid.line.lost == 7 * SIZE
    assert abs(laid.late_ms()) < 0.1


def test_a_loss_that_no_driver_tells_of_is_found_within_a_second() -> None:
    laid = Laid(Device())
    laid.take(100)
    laid.device.lose(4_000)
    laid.take(60)
    assert laid.line.lost == pytest.approx(4_000, abs=1)
    assert abs(laid.late_ms()) < 0.1


def test_a_small_overflow_that_is_none_changes_nothing() -> None:
    laid = Laid(Device())
    laid.take(100)
    laid.take(100, overflow=True)
    assert laid.line.lost == 0


def test_silence_that_was_too_long_is_taken_back() -> None:
    late = 0
    laid = Laid(Device(late=lambda: late))
    laid.take(100)
    late = 80 * MS  # the machine was so busy that the overflow's own block came late as well
    laid.take(1, overflow=True)
    late = 0
    laid.take(100)
    assert laid.line.lost == 80 * MS * RATE // NS
    assert abs(laid.late_ms()) < 30, "and what is left, a sample at a time"


def test_a_drivers_slip_changes_nothing() -> None:
    early = iter([0] * 100 + [-400 * MS, 900 * MS, -NS] + [0] * 100)
    laid = Laid(Device(late=lambda: next(early)))
    laid.take(200)
    assert (laid.samples == ramp(21 * SIZE, 179 * SIZE)[:, 0]).all()


def test_a_machine_that_slept_leaves_a_gap_and_no_hours_of_silence() -> None:
    device = Device()
    line = SoundLine(rate=RATE, channels=1, origin_ns=ORIGIN_NS)
    for _ in range(100):
        line.place(device.block())
    device.lose(5 * 3600 * RATE)
    given = [line.place(device.block()) for _ in range(60)]
    assert max(map(len, given)) == SIZE
    assert line.lost == pytest.approx(5 * 3600 * RATE, abs=1)
    late_ms = device.captured_ns(device.count) / MS - line.position * 1000 / RATE
    assert abs(late_ms) < 0.1


# ---- the source, and a stand-in for sounddevice


class TroubleError(Exception):
    """Stands for sounddevice.PortAudioError."""


class Stream:
    """Stands for sounddevice.InputStream: at `start`, it gives all the blocks that it will ever give."""

    def __init__(self, library: Library, **asked: Any) -> None:
        self.library, self.asked = library, asked
        self.calls: list[str] = []
        self.active = False

    def start(self) -> None:
        self.calls.append("start")
        if self.library.fails:
            raise TroubleError("Error starting stream: Device unavailable", -9985)
        for number, samples in enumerate(self.library.blocks):
            self.library.clock.now_ns = self.library.arrives_ns(number)
            stamps = self.library.stamps(self.library.clock.now_ns)
            status = types.SimpleNamespace(input_overflow=number in self.library.overflows)
            self.asked["callback"](samples, len(samples), stamps, status)

    def abort(self) -> None:
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")


class Clock:
    def __init__(self) -> None:
        self.now_ns = ORIGIN_NS

    def perf_counter_ns(self) -> int:
        return self.now_ns


class Library:
    """Stands for the module `sounddevice`."""

    PortAudioError = TroubleError

    def __init__(self, clock: Clock, *names: str, rates: tuple[int, ...] = (44_100, 48_000)) -> None:
        self.clock, self.rates = clock, rates
        self.devices = [
            {
                "index": index,
                "name": name,
                "hostapi": index // 3,
                "max_input_channels": 0 if "out" in name else 1 if "mono" in name else 32,
                "default_samplerate": 48_000.0 if "48" in name else 96_000.0 if "96" in name else 44_100.0,
            }
            for index, name in enumerate(names)
        ]
        self.usual = next((one for one in self.devices if one["max_input_channels"]), None)
        self.blocks: list[Samples] = []
        self.overflows: set[int] = set()
        self.slowness = 1.0
        self.lost_ns = 0  # what the driver throws away before its first overflow
        self.fails = False
        self.first_ns = ORIGIN_NS + 500 * MS
        self.latency_s: float | None = 0.03
        self.streams: list[Stream] = []

    def query_devices(self, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        if self.usual is None:
            raise TroubleError("Error querying device -1")
        return self.usual

    def check_input_settings(self, **asked: Any) -> None:
        if asked["samplerate"] not in self.rates:
            raise TroubleError("Invalid sample rate", -9997)

    def InputStream(self, **asked: Any) -> Stream:  # noqa: N802
        self.streams.append(Stream(self, **asked))
        return self.streams[-1]

    def arrives_ns(self, number: int) -> int:
        lost_ns = self.lost_ns if number >= min(self.overflows, default=number + 1) else 0
        return self.first_ns + round((number + 1) * 20 * MS * self.slowness) + lost_ns

    def stamps(self, now_ns: int) -> Any:
        """As PortAudio has them on Linux: the wall's clock. A driver that reports nothing says 0."""
        wall = now_ns / 1e9 + 1.7e9
        adc = 0.0 if self.latency_s is None else wall - self.latency_s
        return types.SimpleNamespace(currentTime=wall, inputBufferAdcTime=adc)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def numbered(count: int, rate: int = 44_100, channels: int = 2) -> list[Samples]:
    size = rate // 50
    return [np.repeat(ramp(index * size, size), channels, axis=1) for index in range(count)]


def test_chunks_are_20_ms_and_stamped_when_they_were_captured(clock: Clock) -> None:
    library = Library(clock, "headset")
    library.blocks = numbered(60)
    source = MicrophoneSource(library=library)
    assert (source.rate, source.channels, source.name) == (44_100, 2, "headset")
    assert (source.live, source.has_video, source.has_audio, source.duration_ns) == (True, False, True, None)
    assert list(source.pictures()) == []
    assert library.streams == [], "nothing is opened before somebody listens"
    source.begin(ORIGIN_NS)
    iterator = source.chunks()
    chunks = list(islice(iterator, 30))
    (stream,) = library.streams
    asked = {name: value for name, value in stream.asked.items() if name != "callback"}
    assert asked == {
        "device": 0, "samplerate": 44_100, "channels": 2, "dtype": "int16", "blocksize": 882, "latency": "low",
    }  # fmt: skip
    assert stream.calls == ["start"]
    iterator.close()
    assert stream.calls == ["start", "abort", "close"], "the light goes out"
    assert [chunk.index for chunk in chunks] == list(range(30))
    assert all(len(chunk.samples) == 882 and chunk.samples.dtype == np.int16 for chunk in chunks)
    times = [chunk.pts_ns for chunk in chunks]
    assert {after - before for before, after in pairwise(times)} <= {20 * MS - 1, 20 * MS, 20 * MS + 1}
    # Block 21 came 500 + 22 * 20 ms after the origin, and was captured 30 ms before.
    assert times[0] == pytest.approx(910 * MS, abs=NS // 44_100 + 1)
    assert (np.concatenate([chunk.samples for chunk in chunks])[:, 1] == ramp(21 * 882, 30 * 882)[:, 0]).all()
    assert source.notices() == []


@pytest.mark.parametrize(("latency_s", "captured_ms"), [(0.03, 30), (None, 20), (0.0003, 20), (-1.0, 20), (60.0, 20)])
def test_a_latency_that_cannot_be_is_not_believed(clock: Clock, latency_s: float | None, captured_ms: int) -> None:
    library = Library(clock, "headset")
    library.blocks, library.latency_s = numbered(40), latency_s
    source = MicrophoneSource(library=library)
    source.begin(ORIGIN_NS)
    first = next(source.chunks())
    assert first.pts_ns == pytest.approx((940 - captured_ms) * MS, abs=NS // 44_100 + 1)


def test_a_loss_is_told_of(clock: Clock) -> None:
    library = Library(clock, "headset")
    library.blocks, library.overflows, library.lost_ns = numbered(60), {40}, 200 * MS
    source = MicrophoneSource(library=library)
    source.begin(ORIGIN_NS)
    chunks = list(islice(source.chunks(), 40))
    assert [index for index, chunk in enumerate(chunks) if not chunk.samples.any()] == list(range(19, 29))
    assert (chunks[29].samples[:, 0] == ramp(40 * 882, 882)[:, 0]).all()
    (told,) = source.notices()
    assert told.startswith("200 ms of the microphone's sound were lost and are silent")
    assert source.notices() == []


@pytest.mark.parametrize(("slowness", "way"), [(1.01, "slower"), (0.99, "faster"), (1.0, None)])
def test_a_clock_that_is_off_is_told_of(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, slowness: float, way: str | None
) -> None:
    monkeypatch.setattr(module, "_MEASURED_FROM_SECONDS", 0)
    monkeypatch.setattr(module, "_TOLD_AFTER_SECONDS", 1)
    library = Library(clock, "headset")
    library.blocks, library.slowness = numbered(90), slowness
    source = MicrophoneSource(library=library)
    source.begin(ORIGIN_NS)
    list(islice(source.chunks(), 60))
    told = source.notices()
    assert len(told) == (way is not None)
    assert all(f" ppm {way} than this machine's" in words for words in told)
    assert (source.drift_ppm > 0) == (way == "slower")


def test_after_a_gap_chunks_are_whole_again(clock: Clock) -> None:
    library = Library(clock, "headset")
    library.blocks, library.overflows, library.lost_ns = numbered(60), {40}, 3600 * NS
    source = MicrophoneSource(library=library)
    source.begin(ORIGIN_NS)
    chunks = list(islice(source.chunks(), 38))
    gaps = np.diff([chunk.pts_ns for chunk in chunks]) - 20 * MS
    assert np.flatnonzero(np.abs(gaps) > 1).tolist() == [18]
    assert gaps[18] == pytest.approx(3600 * NS, abs=MS)
    assert all(len(chunk.samples) == 882 for chunk in chunks)
    assert (chunks[19].samples[:, 0] == ramp(40 * 882, 882)[:, 0]).all()


def test_a_reader_that_was_held_up_has_the_newest_two_seconds(clock: Clock) -> None:
    library = Library(clock, "headset")
    library.blocks = numbered(130)
    source = MicrophoneSource(library=library)
    source.begin(ORIGIN_NS)
    first = next(source.chunks())
    assert (first.samples[:, 0] == ramp(31 * 882, 882)[:, 0]).all()
    assert first.pts_ns == pytest.approx((500 + 32 * 20 - 30) * MS, abs=NS // 44_100 + 1)


def test_one_that_is_denied_says_so(clock: Clock) -> None:
    library = Library(clock, "headset")
    library.blocks = [np.zeros((44_100, 2), np.int16)] * 6
    source = MicrophoneSource(library=library)
    with pytest.raises(MediaError):
        list(source.chunks())
    (told,) = source.notices()
    assert "the microphone 'headset' gives nothing but zeros" in told
    assert "allow access to it in the system's privacy settings" in told


@pytest.mark.parametrize(
    ("name", "rates", "found"),
    [
        ("mic 44", (44_100, 48_000), 44_100),
        ("mic 48", (44_100, 48_000), 48_000),
        ("mic 96", (44_100, 48_000, 96_000), 48_000),
        ("mic 96", (44_100, 96_000), 44_100),
    ],
)
def test_the_rate_is_what_the_device_likes(clock: Clock, name: str, rates: tuple[int, ...], found: int) -> None:
    assert MicrophoneSource(library=Library(clock, name, rates=rates)).rate == found


def test_which_device(clock: Clock) -> None:
    library = Library(clock, "speakers out", "Built-in mic mono", "USB cam", "usb cam", "Built-in mic (other)")
    library.usual = library.devices[4]  # of the second sound interface
    for device, number in ((True, 4), (2, 2), (1, 1), ("usb", 3), ("cam", 3), (" BUILT-IN MIC M", 1), ("mic", 4)):
        assert MicrophoneSource(device, library=library).device == number, device
    assert MicrophoneSource(1, library=library).channels == 1


@pytest.mark.parametrize("device", [0, 9, -1, "nobody"])
def test_one_that_is_not_there(clock: Clock, device: int | str) -> None:
    library = Library(clock, "speakers out", "mic mono")
    with pytest.raises(MediaError, match=r"There is no microphone (0|9|-1|'nobody'); there is: 1 \(mic mono\)\."):
        MicrophoneSource(device, library=library)


def test_what_fails_is_said_in_a_sentence(clock: Clock) -> None:
    for names in ((), ("speakers out",)):
        with pytest.raises(MediaError, match=r"There is no microphone here: plug one in, .* and start Python anew"):
            MicrophoneSource(library=Library(clock, *names))
    with pytest.raises(MediaError, match=r"'mic 96' takes neither 48 nor 44.1 kHz \(Invalid sample rate\)"):
        MicrophoneSource(library=Library(clock, "mic 96", rates=(96_000,)))
    library = Library(clock, "mic")
    library.fails = True
    with pytest.raises(MediaError, match=r"'mic' cannot be opened \(Error starting .*\): close the programs that use"):
        next(MicrophoneSource(library=library).chunks())
    assert library.streams[0].calls == ["start", "close"]
    library = Library(clock, "mic")
    with pytest.raises(MediaError, match="'mic' was opened but gives no sound"):
        next(MicrophoneSource(library=library).chunks())
    assert library.streams[0].calls == ["start", "abort", "close"]
    library.blocks = numbered(30)
    source = MicrophoneSource(library=library)
    with pytest.raises(MediaError, match="'mic' gives no more sound: it was unplugged"):
        list(source.chunks())


def test_sounddevice_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sounddevice", None)
    with pytest.raises(MediaError, match="which are not installed: 'avlab doctor' says how"):
        MicrophoneSource()


# ---- with a camera, or by itself


@pytest.fixture
def library(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library(clock, "mic one", "mic two mono")
    monkeypatch.setattr(module, "load_sounddevice", lambda: library)
    return library


def test_it_is_off_unless_it_is_asked_for(library: Library) -> None:
    library.query_devices = lambda kind=None: pytest.fail("nobody asked for sound")  # type: ignore[method-assign]
    source = open_source(0)
    assert isinstance(source, CameraSource)
    assert (source.microphone, source.has_audio, source.rate, list(source.chunks())) == (None, False, None, [])
    with pytest.raises(TypeError, match="A source is the path of a clip"):
        open_source(None)


@pytest.mark.parametrize(
    ("asked", "name"), [(True, "mic one"), (0, "mic one"), (1, "mic two mono"), ("TWO", "mic two mono")]
)
def test_a_camera_with_a_microphone(library: Library, asked: bool | int | str, name: str) -> None:
    source = open_source(3, fps=25, microphone=asked)
    assert isinstance(source, CameraSource)
    assert (source.index, source.fps, source.has_video, source.has_audio) == (3, 25, True, True)
    assert source.microphone is not None
    assert source.microphone.name == name
    assert (source.rate, source.channels) == (44_100, 1 if "mono" in name else 2)
    assert library.streams == []


def test_a_microphone_by_itself(library: Library) -> None:
    for asked in (True, "one", np.int64(0)):
        source = open_source(microphone=asked)
        assert isinstance(source, MicrophoneSource)
        assert source.name == "mic one"
    with pytest.raises(ValueError, match="a microphone by itself has neither end nor frames"):
        open_source(None, microphone=True, loop=True)


@pytest.mark.parametrize("what", ["clip.mp4", [np.zeros((8, 8, 3), np.uint8)], True, 1.5])
def test_what_a_microphone_does_not_go_with(library: Library, what: Any) -> None:
    with pytest.raises(
        (ValueError, TypeError), match=r"A microphone goes with a camera, .* or stands alone|A source is"
    ):
        open_source(what, microphone=True)


def test_what_is_no_microphone(library: Library) -> None:
    for value in (1.5, b"mic", None):
        with pytest.raises(TypeError, match="microphone is True, a device's number or a part of its name, not"):
            open_source(0, microphone=value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="microphone is True, a device's number or a part of its name, not ''"):
        open_source(0, microphone="")


def test_the_pictures_go_on_when_the_microphone_is_lost(library: Library) -> None:
    library.blocks = numbered(30)
    source = open_source(0, microphone=True)
    assert isinstance(source, CameraSource)
    source.begin(ORIGIN_NS)
    assert len(list(source.chunks())) == 9
    (told,) = source.notices()
    assert told.startswith("the pictures go on without sound: The microphone 'mic one' gives no more sound")
    library.fails = True
    with pytest.raises(MediaError, match="'mic one' cannot be opened"):  # what was never there is no loss
        list(source.chunks())


# ---- over a server


class Lamp:
    """Stands for a camera in real time: some 50 pictures a second, each with its number from 0 in twelve bars.

    It knows when each was taken, and is lost after `length` of them.
    """

    def __init__(self) -> None:
        self.opened = self.released = 0
        self.length = 4_000
        self.made_ns: list[int] = []

    def __call__(self, index: int) -> Lamp:
        self.opened += 1
        return self

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def set(self, prop: int, value: float) -> bool:
        return True

    def grab(self) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        threading.Event().wait(0.02)
        number = len(self.made_ns)
        if number == self.length:
            return False, None
        bars = np.where(number >> np.arange(12) & 1, 255, 0).astype(np.uint8)
        self.made_ns.append(time.perf_counter_ns())
        return True, np.broadcast_to(bars.repeat(8)[None, :, None], (48, 96, 3)).copy()

    @staticmethod
    def number(image: np.ndarray) -> int:
        return int(((image[24, 4::8, 0] > 128) << np.arange(12)).sum())

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def lamp(monkeypatch: pytest.MonkeyPatch) -> Lamp:
    lamp = Lamp()
    monkeypatch.setattr("avlab.media.camera.open_camera", lamp)
    return lamp


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Samples]]:
    """The sound that clients receive: pts in ns, samples."""
    came: list[tuple[int, Samples]] = []
    push, push_together = SoundBuffer.push, SoundBuffer.push_together

    def pushed(self: SoundBuffer, samples: Samples, **stamps: int) -> bool:
        came.append((stamps["pts_ns"], samples))
        return push(self, samples, **stamps)

    def pushed_together(self: SoundBuffer, chunk: SoundChunk) -> list[bool]:
        before = len(came)
        taken = push_together(self, chunk)
        if len(came) == before:  # else each packet has been pushed by itself
            came.append((chunk.pts_ns[0], chunk.samples))
        return taken

    monkeypatch.setattr(SoundBuffer, "push", pushed)
    monkeypatch.setattr(SoundBuffer, "push_together", pushed_together)
    return came


@pytest.fixture
def monitor(pulse_here: tools.Sound, tmp_path: Path) -> Iterator[tools.Sound]:
    """A microphone that hears 880 Hz: PortAudio's default is the monitor of a sound card on which that is played."""
    import sounddevice

    sounddevice._terminate()  # it looks for devices once, and may have looked when there was no such card
    sounddevice._initialize()
    tone = 8_000 * np.sin(2 * np.pi * 880 * np.arange(60 * 44_100) / 44_100)
    (tmp_path / "tone.raw").write_bytes(np.repeat(tone.astype("<i2"), 2).tobytes())
    form = ["--raw", "--format=s16le", "--rate=44100", "--channels=2", "--device=avlab", "--playback"]
    with tools.started("pacat", *form, tmp_path / "tone.raw", env=pulse_here.env):
        yield pulse_here


def hears_880_hz(samples: Samples, rate: int) -> bool:
    """Whether nine tenths of what is heard are of this tone."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / rate) - 880) < 20
    return bool(power.sum() > 0 and power[near].sum() > 0.9 * power.sum())


def until_then(client: avlab.Client, holds: Callable[[], bool]) -> Iterator[Received]:
    """The client's pictures until something holds; thirty seconds of them at most."""
    for picture in client.frames():
        yield picture
        if holds():
            return
        assert picture.pts < 30


@pytest.mark.slow
@pytest.mark.needs("pulse")
def test_a_camera_and_its_microphone_are_streamed_from_the_first_play_on(
    monitor: tools.Sound, lamp: Lamp, received: list[tuple[int, Samples]]
) -> None:
    def tone() -> bool:
        sound = [samples for pts_ns, samples in received if pts_ns > NS]
        return sum(map(len, sound)) > 44_100 and hears_880_hz(np.concatenate(sound)[-22_050:, 0], 44_100)

    with avlab.Server(0, microphone=True) as server:
        assert not threading.Event().wait(0.3)
        assert (lamp.opened, server.source.rate, server.source.channels) == (0, 44_100, 2)
        for turn in (1, 2):
            received.clear()
            with avlab.Client(server.url, audio="null") as client:
                start_ns = server.start_ns
                assert start_ns is not None
                shown = [(round(p.pts * NS), lamp.number(p.image)) for p in until_then(client, tone)]
            assert lamp.opened == turn
            until(lambda turn=turn: lamp.released == turn and server.start_ns is None)
            assert len(shown) > 20
            for pts_ns, number in shown:
                # RTP's clock for video has steps of 11 us.
                assert lamp.made_ns[number] - 12_000 <= start_ns + pts_ns, "a picture's time is when it was taken"
                assert lamp.made_ns[number] >= start_ns, "and nothing is older than the first PLAY"
            times = [pts_ns for pts_ns, _ in received]
            assert times[0] < 5 * NS
            samples = np.cumsum([len(samples) for _, samples in received])
            assert np.abs(np.array(times[1:]) - times[0] - samples[:-1] * NS / 44_100).max() < MS, "sound has no holes"


@pytest.mark.slow
@pytest.mark.needs("pulse")
@pytest.mark.parametrize("isolated", [False, True])
def test_a_microphone_by_itself_is_streamed(
    monitor: tools.Sound, received: list[tuple[int, Samples]], isolated: bool
) -> None:
    def tone() -> bool:
        sound = [samples for _, samples in received]
        return sum(map(len, sound)) > 22_050 and hears_880_hz(np.concatenate(sound)[-9_000:, 0], 44_100)

    with (
        avlab.Server(microphone=True, isolated=isolated) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        until(tone)
        client.wait(0)
        assert server.trace.meta["clip"] == "live"
        assert set(client.trace.frames["stream"]) == {"audio"}


@pytest.mark.slow
def test_a_microphone_that_goes_leaves_the_pictures(lamp: Lamp, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(Clock(), "mic one")
    library.blocks, library.first_ns = numbered(40), time.perf_counter_ns()
    monkeypatch.setattr(module, "load_sounddevice", lambda: library)
    with avlab.Server(0, microphone=True) as server, avlab.Client(server.url, audio="null") as client:

        def told() -> list[str]:
            settings = server.trace.settings
            return [str(value) for value in settings.loc[settings["name"] == "source", "value"]]

        until(told)
        assert told()[0].startswith("the pictures go on without sound: The microphone 'mic one' gives no more sound")
        assert server.notices == tuple(told())
        before = len(lamp.made_ns)
        until(lambda: len(lamp.made_ns) > before + 20)
        client.wait(0)
        server.wait(0)
        assert (client.running, server.running) == (True, True)


class Running(Stream):
    """The same in real time, without an end."""

    def start(self) -> None:
        self.aborted = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.aborted.wait(0.02):
            stamps = self.library.stamps(time.perf_counter_ns())
            self.asked["callback"](ramp(0, 882).repeat(2, 1), 882, stamps, types.SimpleNamespace(input_overflow=False))

    def abort(self) -> None:
        self.aborted.set()
        self.thread.join(60)


@pytest.mark.slow
def test_a_camera_that_goes_ends_the_sound_as_well(lamp: Lamp, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(Clock(), "mic one")
    monkeypatch.setattr(library, "InputStream", lambda **asked: Running(library, **asked))
    monkeypatch.setattr(module, "load_sounddevice", lambda: library)
    lamp.length = 60
    with avlab.Server(0, microphone=True) as server, avlab.Client(server.url, audio="null") as client:
        with pytest.raises(MediaError, match="Camera 0 gives no more pictures after 60"):
            server.wait(60)
        assert client.wait(60)
    assert set(client.trace.frames["stream"]) == {"audio", "video"}


# ---- on the command line


@pytest.mark.parametrize(
    ("arguments", "source", "microphone"),
    [
        ("0", 0, False),
        ("0 --microphone", 0, True),
        ("--microphone 0", 0, True),
        ("1 --microphone-device 0", 1, 0),
        ("1 --microphone-device usb", 1, "usb"),
        ("--microphone", None, True),
        ("clip.mp4", "clip.mp4", False),
    ],
)
def test_serving_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, arguments: str, source: Any, microphone: bool | int | str
) -> None:
    asked: list[Any] = []

    def server(source: Any, **settings: Any) -> Any:
        asked.append((source, settings["microphone"]))
        raise ValueError("that is enough")

    monkeypatch.setattr(avlab, "Server", server, raising=False)
    assert cli.main(["serve", *arguments.split()]) == 1
    # 0 is False to Python, and a device.
    assert [(type(value), value) for value in asked[0]] == [(type(source), source), (type(microphone), microphone)]


def test_nothing_to_serve(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve"]) == 1
    assert capsys.readouterr().err == (
        "avlab: name a clip or a camera's number, or ask for sound alone with --microphone\n"
    )
