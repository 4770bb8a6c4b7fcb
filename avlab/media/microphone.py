"""A microphone as a source of sound: on the machine's clock, with no sample too many or too few. Drives sounddevice."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from avlab.media.codec import Picture
from avlab.media.packets import MediaError
from avlab.media.speaker import quiet_portaudio
from avlab.timing.soundbuffer import stretch
from avlab.wire.units import NS, Chunk, Samples

Microphone: TypeAlias = bool | int | str
"""Which microphone: True for the system's own choice, a device's number, a part of its name; False for none."""

RATES = (48_000, 44_100)
"""Rates of sound that are sent as they are, the one asked for first where a device has another of its own."""

CHUNKS_PER_SECOND = 50

_KEPT_BLOCKS = 100  # two seconds for a reader that was held up; then the oldest are lost, and silent
_STARTING = 10  # blocks that say nothing: a device gives its first ones in a burst, with stamps that mean nothing
_SETTLED = 20  # blocks, after which it is known how late they come
_WINDOW = 50  # blocks: within a second one comes with next to no lateness
_STEADY = Fraction(1, 1000)  # seconds of samples too many or too few that are let be: blocks are stamped no better
_GAP = Fraction(30, 1000)  # seconds that no clock drifts within a second: samples were lost
_LATENCY_LIMIT_NS = 2 * NS  # a larger figure is a driver's mistake
_FIRST_NS = 3 * NS  # a sound server may take up to 2 s over its first block
_LOST_NS = 2 * NS
_MUTE_SECONDS = 5
_MEASURED_FROM_SECONDS = 20  # until then, what was taken for the start is mended
_TOLD_AFTER_SECONDS = 300
_WORTH_TELLING_PPM = 10
_TOLD_EVERY_SECONDS = 60  # losses, in one sentence


@dataclass(frozen=True, slots=True)
class Block:
    """What the device gave at a time: its number from 0, and when its first sample was captured, perf_counter_ns."""

    number: int
    captured_ns: int
    samples: Samples
    overflow: bool


class SoundLine:
    """The samples of a device laid on the machine's clock: `place` takes blocks, and gives what goes out instead.

    Position 0 is `origin_ns`; from the first block on, every sample has its position, whatever the device does. How
    late a block comes only ever adds to when it seems to have been captured, so the earliest over the last second are
    believed, but for the two earliest, lest a driver's slip count. By them, a device's clock that runs fast or slow is
    followed by one sample in or out of a block, by interpolation, and samples that were lost are replaced by silence
    of their length; more than a second of them (the machine slept) is a gap between positions. Pure.
    """

    def __init__(self, *, rate: int, channels: int, origin_ns: int) -> None:
        self.rate, self.channels = rate, channels
        self._origin_ns = origin_ns
        self._given = 0  # samples of the device so far, lost blocks included
        self._next = 0  # the number of the block that comes next
        self._apart: deque[int] = deque(maxlen=_WINDOW)  # each block's position by the clock, less that by counting
        self._moved: int | None = None  # what is added to a count to make a position; None until settled
        self.steered = 0
        self.lost = 0
        self.placed = 0
        self._base = (0, 0)  # what was steered and placed when measuring began

    @property
    def position(self) -> int:
        """Where the next sample goes, in samples from the origin."""
        return self._given + (self._moved or 0)

    @property
    def drift_ppm(self) -> float:
        """How much slower the device's clock runs than the machine's, in parts per million; 0 in the first seconds."""
        steered, placed = self.steered - self._base[0], self.placed - self._base[1]
        return 1e6 * steered / placed if placed else 0.0

    def place(self, block: Block) -> Samples:
        """What goes out from `position` on; nothing while the line settles."""
        parts: list[Samples] = []
        size = len(block.samples)
        missing, self._next = max(0, block.number - self._next) * size, block.number + 1
        if missing and self._moved is not None:
            parts.append(self._silence(missing))
        self._given += missing
        before = self._believed()
        apart = (block.captured_ns - self._origin_ns) * self.rate // NS - self._given
        if block.number >= _STARTING:
            self._apart.append(apart)
        samples, moved = block.samples, self._moved
        if moved is None:
            self._given += size
            if block.number >= _SETTLED:
                self._moved = max(self._believed(), -self._given)
            return samples[:0]
        lag, move = self._believed() - moved, 0
        if block.overflow and apart - before > self.rate * _STEADY:
            move = apart - before
            parts.append(self._leap(move))
        elif lag > self.rate * _GAP and len(self._apart) == _WINDOW:
            move = lag
            parts.append(self._leap(move))
        elif lag < -self.rate * _GAP:
            move = -min(-lag, size)
            samples = samples[-move:]
        elif abs(lag) > self.rate * _STEADY and len(self._apart) == _WINDOW and size > 2:
            move = 1 if lag > 0 else -1
            samples = self._steer(samples, move)
        self._moved = moved + move
        self._given += size
        self.placed += size
        if self.placed < _MEASURED_FROM_SECONDS * self.rate:
            self._base = (self.steered, self.placed)
        return np.concatenate((*parts, samples)) if parts else samples

    def _believed(self) -> int:
        return sorted(self._apart)[:3][-1] if self._apart else 0

    def _leap(self, count: int) -> Samples:
        """Samples were lost: silence in their place, and what was measured before is void."""
        apart = self._apart[-1]
        self._apart.clear()
        self._apart.append(apart)
        return self._silence(count)

    def _steer(self, samples: Samples, by: int) -> Samples:
        self.steered += by
        count = len(samples)
        # The last sample stands for the one after it, which is not known yet: the block's end stays where it was.
        return stretch(np.concatenate((samples, samples[-1:])), count, count + by)

    def _silence(self, count: int) -> Samples:
        self.lost += count
        return np.zeros((count if count <= self.rate else 0, self.channels), np.int16)


class MicrophoneSource:
    """Sound from a microphone; each `chunks()` opens it, and closing that iterator closes it.

    `device` is True for the system's own choice, a number, or a part of a name. What is found is named by `name`;
    `rate` (44100 or 48000) and `channels` (1 or 2) are as the device likes them. A chunk's pts is when it was captured,
    by the device's own report of how long that took, on `time.perf_counter_ns`, counted from `begin`'s moment or, if
    there was none, from the opening. Nothing is open between iterators: while nobody listens, nothing is recorded.

    Tested with a stand-in for the device and with a sound server's monitor, on no real microphone.

    Raises MediaError (a ValueError) when there is no such device, and from `chunks()` when it does not open or is lost.
    """

    live = True
    loop = False
    has_video = False
    has_audio = True
    width: int | None = None
    height: int | None = None
    fps: Fraction | None = None
    duration_ns: int | None = None

    def __init__(self, device: Microphone = True, *, library: Any = None) -> None:
        self._library = library or load_sounddevice()
        found = _find(self._library, device)
        self.device = int(found["index"])
        self.name = str(found["name"])
        self.channels: int = min(2, int(found["max_input_channels"]))
        self.rate: int = self._liked_rate(found["default_samplerate"])
        self.drift_ppm = 0.0
        self._origin_ns: int | None = None
        self._notices: deque[str] = deque(maxlen=100)

    def begin(self, origin_ns: int) -> None:
        """Let pts 0 be at `origin_ns` for the iterators made from now on."""
        self._origin_ns = origin_ns

    def pictures(self) -> Iterator[Picture]:
        """Nothing: there are no pictures."""
        return iter(())

    def chunks(self) -> Generator[Chunk]:
        """The sound as it comes, int16 chunks of exactly 20 ms, without holes; what was lost is silent."""
        origin_ns = time.perf_counter_ns() if self._origin_ns is None else self._origin_ns
        line = SoundLine(rate=self.rate, channels=self.channels, origin_ns=origin_ns)
        size = self.rate // CHUNKS_PER_SECOND
        held, first, index = np.empty((0, self.channels), np.int16), 0, 0
        told = quiet = 0  # samples whose loss was told of; samples placed before which no more is told
        with contextlib.closing(self._blocks()) as blocks:
            for block in blocks:
                samples = line.place(block)
                if line.lost > told and line.placed >= quiet:
                    self.tell(
                        f"{1000 * (line.lost - told) // self.rate} ms of the microphone's sound were lost and are "
                        "silent: this machine is too busy, or was asleep"
                    )
                    told, quiet = line.lost, line.placed + _TOLD_EVERY_SECONDS * self.rate
                self._tell_drift(line)
                begin = line.position - len(samples)
                if begin != first + len(held):  # the first of all, or the first after a gap
                    held, first = held[:0], begin
                held = np.concatenate((held, samples))
                while len(held) >= size:
                    yield Chunk(index, first * NS // self.rate, np.ascontiguousarray(held[:size]), self.rate)
                    held, first, index = held[size:], first + size, index + 1

    def tell(self, words: str) -> None:
        """Have something reported, as a sentence; from any thread."""
        self._notices.append(words)

    def notices(self) -> list[str]:
        """What there is to report since last asked, as sentences; from any thread."""
        told = []
        with contextlib.suppress(IndexError):
            while True:
                told.append(self._notices.popleft())
        return told

    def close(self) -> None:
        """Nothing is held open between iterators; each closes the device when it ends or is closed."""

    def _blocks(self) -> Generator[Block]:
        """What the device gives, from its opening to its loss."""
        blocks: queue.Queue[Block] = queue.Queue(maxsize=_KEPT_BLOCKS)
        stream = self._open(_putting(blocks, self.rate))
        deadline_ns, heard, mute = time.perf_counter_ns() + _FIRST_NS, False, 0
        try:
            while True:
                try:
                    block = blocks.get(timeout=0.2)
                except queue.Empty:
                    if time.perf_counter_ns() > deadline_ns or not stream.active:
                        raise MediaError(self._why_nothing(heard)) from None
                    continue
                deadline_ns, heard = time.perf_counter_ns() + _LOST_NS, True
                if mute >= 0:
                    mute = self._tell_mute(mute, block.samples)
                yield block
        finally:
            # A device that vanished is closed no better.
            with quiet_portaudio(), contextlib.suppress(self._library.PortAudioError):
                stream.abort()
                stream.close()

    def _open(self, callback: Callable[..., None]) -> Any:
        stream = None
        try:
            with quiet_portaudio():
                stream = self._library.InputStream(
                    device=self.device,
                    samplerate=self.rate,
                    channels=self.channels,
                    dtype="int16",
                    blocksize=self.rate // CHUNKS_PER_SECOND,
                    latency="low",
                    callback=callback,
                )
                stream.start()
        except (self._library.PortAudioError, ValueError, OSError) as error:
            if stream is not None:
                stream.close()
            raise MediaError(
                f"The microphone {self.name!r} cannot be opened ({_reason(error)}): close the programs that use it, "
                "connect it again, and allow access to it in the system's privacy settings."
            ) from error
        return stream

    def _liked_rate(self, usual: float) -> int:
        """The device's own rate when it is one that is sent as it is, else one of them that it takes."""
        for rate in (usual, *RATES):
            if rate in RATES:
                try:
                    self._library.check_input_settings(
                        device=self.device, channels=self.channels, dtype="int16", samplerate=rate
                    )
                except (self._library.PortAudioError, ValueError) as error:
                    reason = _reason(error)
                    continue
                return int(rate)
        raise MediaError(
            f"The microphone {self.name!r} takes neither 48 nor 44.1 kHz ({reason}): close the programs that use it, "
            "allow access to it in the system's privacy settings, or choose another microphone."
        )

    def _why_nothing(self, heard: bool) -> str:
        if heard:
            return (
                f"The microphone {self.name!r} gives no more sound: it was unplugged, or the system took it away; "
                "plug it in again and start anew."
            )
        return (
            f"The microphone {self.name!r} was opened but gives no sound: close the programs that use it, and allow "
            "access to it in the system's privacy settings."
        )

    def _tell_mute(self, mute: int, samples: Samples) -> int:
        """How many samples in a row were exactly 0; -1 once it is known, or has been said, that there is none of it."""
        if samples.any():
            return -1
        mute += len(samples)
        if mute < _MUTE_SECONDS * self.rate:
            return mute
        self.tell(
            f"the microphone {self.name!r} gives nothing but zeros, which is what a system gives that denies access: "
            "switch it on, and allow access to it in the system's privacy settings"
        )
        return -1

    def _tell_drift(self, line: SoundLine) -> None:
        self.drift_ppm = line.drift_ppm
        size = self.rate // CHUNKS_PER_SECOND
        if 0 <= line.placed - _TOLD_AFTER_SECONDS * self.rate < size and abs(line.drift_ppm) >= _WORTH_TELLING_PPM:
            way = "slower" if line.drift_ppm > 0 else "faster"
            self.tell(
                f"the microphone's clock runs {abs(line.drift_ppm):.0f} ppm {way} than this machine's: "
                "its sound is made to fit, a sample at a time"
            )


def _putting(blocks: queue.Queue[Block], rate: int) -> Callable[..., None]:
    """A callback for the device's own thread: nothing waits in it, and when the queue is full, the oldest is lost."""
    number = 0

    def put(samples: Samples, count: int, stamps: Any, status: Any) -> None:
        nonlocal number
        now_ns = time.perf_counter_ns()
        # PortAudio's clock is the wall's on some systems, so of its stamps only their difference counts. A block was
        # not captured in less than its own length, whatever a driver says (ALSA's over PulseAudio says 0).
        lasted_ns = count * NS // rate
        latency_ns = round((stamps.currentTime - stamps.inputBufferAdcTime) * NS)
        if stamps.inputBufferAdcTime <= 0 or not lasted_ns <= latency_ns <= _LATENCY_LIMIT_NS:
            latency_ns = lasted_ns
        block = Block(number, now_ns - latency_ns, samples.copy(), bool(status.input_overflow))
        number += 1
        while True:
            try:
                blocks.put_nowait(block)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    blocks.get_nowait()
            else:
                return

    return put


def load_sounddevice() -> Any:
    """The library that microphones are read with. MediaError where it cannot be loaded."""
    try:
        with quiet_portaudio():
            import sounddevice
    except (ImportError, OSError) as error:  # OSError: the PortAudio library itself is missing
        raise MediaError(
            "A microphone is read with sounddevice and PortAudio, which are not installed: 'avlab doctor' says how."
        ) from error
    return sounddevice


def _find(library: Any, device: Microphone) -> dict[str, Any]:
    """What the library knows of a device; of several whose name fits, one of the system's preferred sound interface."""
    if device is False or (isinstance(device, str) and not device.strip()):
        raise ValueError(f"microphone is True, a device's number or a part of its name, not {device!r}")
    try:
        known: list[dict[str, Any]] = [one for one in library.query_devices() if one["max_input_channels"] > 0]
        usual = library.query_devices(kind="input") if known else None
    except (library.PortAudioError, ValueError):
        known, usual = [], None
    if not known:
        raise MediaError(
            "There is no microphone here: plug one in, allow access to it in the system's privacy settings, and "
            "start Python anew, which sees devices only that are there when it looks first."
        )
    if device is True:
        return usual or known[0]
    if isinstance(device, int):
        fitting = [one for one in known if one["index"] == device]
    else:
        fitting = [one for one in known if device.strip().lower() in one["name"].lower()]
        fitting.sort(key=lambda one: usual is not None and one["hostapi"] != usual["hostapi"])
    if not fitting:
        there = ", ".join(f"{one['index']} ({one['name']})" for one in known)
        raise MediaError(f"There is no microphone {device!r}; there is: {there}.")
    return fitting[0]


def _reason(error: Exception) -> str:
    """PortAudio's own words, without its numbers."""
    return str(error.args[0] if error.args else error).rstrip(".")
