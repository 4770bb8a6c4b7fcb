"""What is on the screen and on the sound card, seen from outside: flashes and tones with the moments they came.

Knows the sample clip's colours and tones and nothing else of avlab: it reads Xvfb's framebuffer file and records
PulseAudio's monitor, for any player. All moments are `time.perf_counter_ns`, in float seconds once they are results.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avlab.media.synth import FLASH_COLOURS, TONES_HZ
from tests import tools

SINK = "heard"
RATE = 44_100
_GRID = 16  # pixels between the points looked at
_POINTS = 40  # of these in one flash colour are a flash; it covers 150 in a picture of 640x360, 60 in one of 400x224
_QUIET = 0.05  # seconds of silence before a tone
_LOUD = 0.02  # of full scale is sound
_FADE = 0.25  # of a tone's peak is its onset


@dataclass(frozen=True, slots=True)
class Event:
    """A flash seen or a tone heard: when, in seconds, and which of the clip's six."""

    time: float
    which: int


@dataclass(frozen=True, slots=True)
class Pair:
    """The flash and the tone that open one second of the clip: moments in seconds."""

    second: int
    flash: float
    tone: float

    @property
    def offset(self) -> float:
        """How much later the picture came than the sound, in seconds: positive when the sound is early."""
        return self.flash - self.tone


@dataclass(frozen=True, slots=True)
class Seen:
    """What one recording holds; `clock_spread` says how well the sound's clock is known, in seconds from 5 to 95 %."""

    flashes: tuple[Event, ...]
    tones: tuple[Event, ...]
    looks_per_second: float
    clock_spread: float

    def pairs(self, reference: Sequence[float]) -> list[Pair]:
        """Each flash with its own tone, where it has one.

        `reference[k]` is where tone k begins in the clip, less where flash k does; the tones are put right by it.
        """
        pairs: list[Pair] = []
        for flash in self.flashes:
            own = [tone.time - reference[tone.which] for tone in self.tones if tone.which == flash.which]
            tone = min(own, key=lambda time: abs(time - flash.time), default=float("inf"))
            if abs(tone - flash.time) < len(TONES_HZ) / 2:
                second = pairs[0].second + round(flash.time - pairs[0].flash) if pairs else flash.which
                pairs.append(Pair(second, flash.time, tone))
        return pairs


class Observer:
    """Looks and listens in two threads between `start` and `stop`."""

    def __init__(self, screen: tools.Screen, sound: tools.Sound) -> None:
        self._pixels = screen.pixels()
        self._env = tools.environment(sound.env)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._looks: list[tuple[int, int]] = []
        self._pieces: list[bytes] = []
        self._clock: list[tuple[int, float]] = []  # (moment, position in the recording that is heard then)
        self._parec: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; returns once the recording runs, which also makes the sink work in steps of 5 ms."""
        self._parec = subprocess.Popen(
            ["parec", "-v", "--raw", f"--device={SINK}.monitor", "--format=s16le", f"--rate={RATE}", "--channels=1",
             "--latency-msec=5"],
            env=self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self._threads = [threading.Thread(target=f) for f in (self._look, self._listen, self._ask_clock)]
        _urgent(self._parec.pid)
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(self._clock) < 10:
            if time.monotonic() > deadline:
                self.stop()
                raise TimeoutError(f"nothing is recorded from the sink {SINK}")
            time.sleep(0.05)

    def stop(self) -> Seen:
        """End, and say what was seen and heard."""
        self._stopping.set()
        if self._parec is not None:
            self._parec.terminate()
            self._parec.wait()
        for thread in self._threads:
            thread.join()
        if self._parec is not None:
            for pipe in (self._parec.stdout, self._parec.stderr):
                assert pipe is not None
                pipe.close()
        samples = np.frombuffer(b"".join(self._pieces), "<i2")
        clock = np.array(self._clock, np.float64).reshape(-1, 2)
        tones: list[Event] = []
        spread = float("nan")
        if len(clock):
            # The recording starts at 0 at this moment; it moves slowly as the sink's rate is not quite the nominal.
            origins = clock[:, 0] / 1e9 - clock[:, 1]
            smooth = np.array([np.median(origins[max(0, i - 20) : i + 21]) for i in range(len(origins))])
            spread = float(np.ptp(np.percentile(origins - smooth, [5, 95])))
            for at, which in find_tones(samples):
                tones.append(Event(at + float(np.interp(at, clock[:, 1], smooth)), which))
        looks = np.array(self._looks, np.int64).reshape(-1, 2)
        seconds = (looks[-1, 0] - looks[0, 0]) / 1e9 if len(looks) > 1 else float("inf")
        return Seen(tuple(find_flashes(looks)), tuple(tones), len(looks) / seconds, spread)

    def _look(self) -> None:
        """Up to 1,000 times a second: which flash is on the screen, wherever its window is now, if any."""
        _urgent()
        points = self._pixels[::_GRID, ::_GRID]
        while not self._stopping.is_set():
            now_ns = time.perf_counter_ns()
            counts = np.bincount(_codes(points).ravel(), minlength=8)[_FLASH_CODES]
            which = int(counts.argmax())
            self._looks.append((now_ns, which if counts[which] >= _POINTS else -1))
            time.sleep(0.0008)

    def _listen(self) -> None:
        assert self._parec is not None
        assert self._parec.stdout is not None
        while piece := os.read(self._parec.stdout.fileno(), 65_536):
            self._pieces.append(piece)

    def _ask_clock(self) -> None:
        """PulseAudio's own word on which recorded sample is heard now, every 50 ms, to the millisecond.

        `parec -v` writes pa_stream_get_time(): for a monitor this is the sink's clock, its latency included. It agrees
        within 1 ms with when the samples arrive: at the earliest one step of 5 ms before they are heard.
        """
        assert self._parec is not None
        assert self._parec.stderr is not None
        _urgent()
        while said := os.read(self._parec.stderr.fileno(), 4096):
            now_ns = time.perf_counter_ns()
            if found := re.findall(rb"Time: ([\d.]+) sec", said):
                self._clock.append((now_ns, float(found[-1])))


def _urgent(pid: int = 0) -> None:
    """Let this thread, or a process, go before what it watches, where we may: a late look is a wrong offset."""
    with contextlib.suppress(PermissionError, AttributeError):
        os.sched_setscheduler(pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(10))


def _codes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Three bits a pixel: which of blue, green and red are over half; the six flash colours differ in them."""
    over = (pixels > 127).view(np.uint8)
    codes: NDArray[np.uint8] = over[..., 0] * np.uint8(4) + over[..., 1] * np.uint8(2) + over[..., 2]
    return codes


_FLASH_CODES = _codes(np.array(FLASH_COLOURS, np.uint8))


def find_flashes(looks: NDArray[np.int64]) -> Iterator[Event]:
    """The first look at each flash; `looks` are rows of (moment in ns, which flash or -1)."""
    before = -1
    for now_ns, which in looks.tolist():
        if which >= 0 and which != before:
            yield Event(now_ns / 1e9, which)
        before = which


def find_tones(samples: NDArray[np.int16]) -> Iterator[tuple[float, int]]:
    """(seconds into `samples`, which tone) for each tone after a silence; the onset is good to a millisecond."""
    level = np.abs(samples.astype(np.float32)) / 32768
    loud = np.flatnonzero(level > _LOUD)
    if not len(loud):
        return
    starts = loud[np.r_[True, np.diff(loud) > _QUIET * RATE]]
    for start in starts.tolist():
        tone = level[start : start + RATE // 20]
        if len(tone) < RATE // 20 or tone.max() < 0.1:
            continue
        onset = start + int(np.argmax(tone > _FADE * tone.max()))
        body = samples[start : start + RATE // 20].astype(np.float64) * np.hanning(len(tone))
        hertz = float(np.abs(np.fft.rfft(body, RATE)).argmax())
        which = int(np.argmin([abs(hertz - tone) for tone in TONES_HZ]))
        if abs(hertz - TONES_HZ[which]) < 40:
            yield onset / RATE, which


def reference(clip: Path) -> list[float]:
    """Where `find_tones` puts the first six tones in the clip itself, less the whole second that each belongs to.

    Decoded by ffmpeg: a detector that is a millisecond late for a fade-in is so here too, and cancels.
    """
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-ac", "1", "-ar", str(RATE), "-f", "s16le", "-"]
    decoded = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    found = {which: at for at, which in reversed(list(find_tones(np.frombuffer(decoded, "<i2"))))}
    return [found[which] - which for which in range(len(TONES_HZ))]


@contextlib.contextmanager
def stage() -> Iterator[tuple[tools.Screen, tools.Sound, dict[str, str]]]:
    """A private screen and sound card, and the environment in which a player finds both."""
    with tools.xvfb() as screen, tools.pulse() as sound:
        # Without norewinds a null sink works 2 s ahead, and a player that starts on it is silent for as long.
        for command in (
            ["load-module", "module-null-sink", f"sink_name={SINK}", f"rate={RATE}", "channels=2", "norewinds=1"],
            ["set-default-sink", SINK],
        ):
            subprocess.run(["pactl", *command], env=tools.environment(sound.env), check=True, capture_output=True)
        yield screen, sound, screen.env | sound.env | {"SDL_AUDIODRIVER": "pulseaudio", "SDL_VIDEODRIVER": "x11"}
