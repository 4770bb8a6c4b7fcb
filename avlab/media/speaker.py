"""The sound device: PyAudio, else sounddevice, else a null speaker that keeps time and makes no sound.

May use `threading` and `time`; knows nothing of clips, playout or networks: it asks a `Fill` for samples and says when
they will be heard.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from avlab.media.resampling import ResampledFill
from avlab.wire.units import NS, Samples

Fill = Callable[[int, int], Samples]
"""`fill(count, heard_ns)`: the next `count` sample frames, int16 of shape (count, channels).

`heard_ns` is the moment on `time.perf_counter_ns` at which the first of them will be heard: the moment of asking plus
the latency that the device reports for this block. It is called on the device's own thread.
"""

Kind = Literal["auto", "speaker", "null"]

DEVICE_BLOCKS_PER_SECOND = 50
"""A device asks for 20 ms at a time, heard some 40 ms later. With 10 ms it ran dry beside busy Python threads."""

NULL_LATENCY_NS = NS // 100
"""How long after its asking the null speaker has sound heard: as little as any device."""

RESAMPLED = 48_000
"""Hz. What a device takes that refuses the sound's own rate: all do, but for the oddest."""

_MS = 1_000_000
_LATENCY_LIMIT_NS = 2 * NS  # no device holds more than this: a larger figure is a driver's mistake
_STALL_NS = 1 * NS  # silence from a running device that means it is gone
_STARTING_NS = 3 * NS  # a sound server may take up to 2 s over its first block
_GAP_NS = 100 * _MS  # a running device asks more often than this
_SETTLE_NS = 50 * _MS  # a device that has asked for this long without a gap is running
_ENVELOPE_BLOCKS = DEVICE_BLOCKS_PER_SECOND  # a second of them

_portaudio = threading.Lock()  # PortAudio's initialisation is not thread-safe, nor is the redirection of stderr


class SpeakerError(RuntimeError):
    """There is no usable sound device, or it failed. The message is a sentence that says what to do."""


class Speaker(Protocol):
    """A sound device. `start` opens it and `stop` closes it: both on one thread."""

    @property
    def name(self) -> str:
        """What a person reads: the device and the library that drives it."""

    @property
    def latency_ns(self) -> int:
        """How long after it was asked for the latest block is heard, in nanoseconds, as the device reports it."""

    @property
    def error(self) -> BaseException | None:
        """What `fill` raised or did wrong, from then on there is silence; None while all is well."""

    @property
    def stalled(self) -> bool:
        """Whether a started device has stopped asking: unplugged, or its server is gone."""

    def start(self, fill: Fill, /) -> None:
        """Open the device and begin to ask `fill` for samples. Raises SpeakerError when it cannot be opened."""

    def stop(self) -> None:
        """Close the device; `fill` is not called any more. Doing it twice does nothing.

        A device that is gone closes at once; a sound server that is frozen holds this up until it is not.
        """


def open_speaker(kind: Kind = "auto", *, rate: int, channels: int) -> Speaker:
    """A speaker for int16 sound at `rate` sample frames a second (8,000 to 192,000) and `channels` (1 to 8).

    `auto` takes PyAudio where it is installed and has an output device, else sounddevice, else the null speaker;
    `speaker` demands a device and raises SpeakerError when there is none; `null` keeps time and makes no sound.
    Nothing sounds, and no device stays open, before `start`: that goes on to the next library when one refuses, and
    to 48,000 Hz, resampled, when all do; `notice` says so then.
    """
    if not 8_000 <= rate <= 192_000:
        raise ValueError(f"rate is {rate} Hz: give 8000 to 192000")
    if not 1 <= channels <= 8:
        raise ValueError(f"channels is {channels}: give 1 to 8")
    if kind not in ("auto", "speaker", "null"):
        raise ValueError(f"kind is {kind!r}: give 'auto', 'speaker' or 'null'")
    reasons, found = [], []
    if kind != "null":
        for library in (PyAudioSpeaker, SoundDeviceSpeaker):
            try:
                found.append(library(rate=rate, channels=channels))
            except SpeakerError as error:
                reasons.append(str(error))
    if found:
        return WillingSpeaker(found)
    if kind == "speaker":
        raise SpeakerError(
            f"There is no sound output here ({'; '.join(reasons)}): connect a device or start a sound server, "
            "or choose the null speaker, which keeps time without sound."
        )
    return NullSpeaker(rate=rate, channels=channels)


class HeardClock:
    """When a block will be heard: from the device's own clock to `perf_counter_ns`, without the callback's lateness.

    PortAudio stamps a block (`current_s`) before Python's lock lets the callback run, often milliseconds before. That
    lateness only ever adds, so the smallest difference of the two clocks over the last second is the true one.
    """

    def __init__(self) -> None:
        self.latency_ns = 0
        self._differences: deque[int] = deque(maxlen=_ENVELOPE_BLOCKS)

    def heard_ns(self, now_ns: int, current_s: float, dac_s: float, usual_s: float) -> int:
        """The moment at which a block asked for at `now_ns` is heard.

        `current_s` and `dac_s` are PortAudio's `currentTime` and `outputBufferDacTime` in seconds, `usual_s` is the
        stream's general output latency, used where the block's own is not to be believed: negative, zero, over 2 s.
        """
        latency_ns = round((dac_s - current_s) * NS)
        if not 0 < latency_ns <= _LATENCY_LIMIT_NS:
            latency_ns = max(0, min(round(usual_s * NS), _LATENCY_LIMIT_NS))
        self.latency_ns = latency_ns
        if current_s <= 0:  # some drivers do not stamp at all
            return now_ns + latency_ns
        stamped_ns = round(current_s * NS)
        self._differences.append(now_ns - stamped_ns)
        return stamped_ns + min(self._differences) + latency_ns


class _Asking:
    """What the speakers share: calling `fill` so that nothing is ever raised into C, and noticing a silent device."""

    name = "speaker"

    def __init__(self, *, rate: int, channels: int) -> None:
        self.rate = rate
        self.channels = channels
        self.error: BaseException | None = None
        self._clock = HeardClock()
        self._fill: Fill | None = None
        self._asked_ns: int | None = None  # the latest block
        self._steady_ns: int | None = None  # the first block since the latest gap
        self._deadline_ns = 0  # asked by then, or stalled

    @property
    def latency_ns(self) -> int:
        """See `Speaker`."""
        return self._clock.latency_ns

    @property
    def stalled(self) -> bool:
        """See `Speaker`."""
        return self._fill is not None and time.perf_counter_ns() > self._deadline_ns

    def _begin(self, fill: Fill) -> None:
        if self._fill is not None:
            raise RuntimeError(f"{self.name} is already started: stop it first")
        self.error = self._asked_ns = self._steady_ns = None
        self._clock = HeardClock()
        self._deadline_ns = time.perf_counter_ns() + _STARTING_NS
        self._fill = fill

    def _silence(self, count: int) -> Samples:
        return np.zeros((count, self.channels), np.int16)

    def _running(self, now_ns: int) -> bool:
        """Whether the device plays what it is given at its own pace.

        A device swallows its first blocks at once, and a sound server may then pause for up to 2 s before the first of
        them is heard: latencies reported until then mean nothing, and what is played until then is silence.
        """
        if self._asked_ns is None or self._steady_ns is None or now_ns - self._asked_ns > _GAP_NS:
            self._steady_ns = now_ns
        self._asked_ns = now_ns
        running = now_ns - self._steady_ns >= _SETTLE_NS
        self._deadline_ns = now_ns + (_STALL_NS if running else _STARTING_NS)
        return running

    def _ask(self, count: int, heard_ns: int) -> Samples:
        fill = self._fill
        if fill is None or self.error is not None:
            return self._silence(count)
        try:
            samples = fill(count, heard_ns)
            if samples.shape != (count, self.channels) or samples.dtype != np.int16:
                raise ValueError(
                    f"fill gave {samples.dtype} of shape {samples.shape}: give int16 of shape {(count, self.channels)}"
                )
        except BaseException as error:  # nothing may be raised into C; the owner reads `error`
            self.error = error
            return self._silence(count)
        return samples


class _Device(_Asking):
    """A PortAudio device, by whichever library: the block's stamps in, bytes out."""

    _usual_s = 0.0

    def start(self, fill: Fill, /) -> None:
        """See `Speaker`."""
        raise NotImplementedError

    def stop(self) -> None:
        """See `Speaker`."""
        raise NotImplementedError

    def _block(self, count: int, current_s: float, dac_s: float) -> bytes:
        now_ns = time.perf_counter_ns()
        heard_ns = self._clock.heard_ns(now_ns, current_s, dac_s, self._usual_s)
        samples = self._ask(count, heard_ns) if self._running(now_ns) else self._silence(count)
        return samples.tobytes()


class PyAudioSpeaker(_Device):
    """The default output device by PyAudio, in callback mode. Raises SpeakerError where there is none."""

    def __init__(self, *, rate: int, channels: int) -> None:
        super().__init__(rate=rate, channels=channels)
        try:
            import pyaudio
        except ImportError as error:
            raise SpeakerError("PyAudio is not installed") from error
        self._library: Any = pyaudio
        self._audio: Any = None
        self._stream: Any = None
        try:
            with quiet_portaudio():
                audio = pyaudio.PyAudio()
                try:
                    device = audio.get_default_output_device_info()["name"]
                finally:
                    audio.terminate()
        except OSError as error:
            raise SpeakerError("PyAudio finds no output device") from error
        self.name = f"{device} (PyAudio)"

    def start(self, fill: Fill, /) -> None:
        """See `Speaker`."""
        self._begin(fill)
        try:
            with quiet_portaudio():
                self._audio = self._library.PyAudio()
                self._stream = self._audio.open(
                    rate=self.rate,
                    channels=self.channels,
                    format=self._library.paInt16,
                    output=True,
                    frames_per_buffer=self.rate // DEVICE_BLOCKS_PER_SECOND,
                    stream_callback=self._callback,
                    start=False,
                )
                self._usual_s = self._stream.get_output_latency()
                self._stream.start_stream()
        except (OSError, ValueError) as error:
            self.stop()
            raise _cannot_open(self, error) from error

    def _callback(self, _none: None, count: int, stamps: dict[str, float], _status: int) -> tuple[bytes, int]:
        block = self._block(count, stamps["current_time"], stamps["output_buffer_dac_time"])
        return block, int(self._library.paContinue)

    def stop(self) -> None:
        """See `Speaker`."""
        self._fill = None
        stream, self._stream = self._stream, None
        audio, self._audio = self._audio, None
        with _portaudio:
            if stream is not None:
                with contextlib.suppress(OSError):  # a device that vanished cannot be closed any better
                    stream.close()
            if audio is not None:
                audio.terminate()


class SoundDeviceSpeaker(_Device):
    """The default output device by python-sounddevice. Raises SpeakerError where there is none."""

    def __init__(self, *, rate: int, channels: int) -> None:
        super().__init__(rate=rate, channels=channels)
        self._stream: Any = None
        try:
            with quiet_portaudio():
                import sounddevice
        except (ImportError, OSError) as error:  # OSError: the PortAudio library itself is missing
            raise SpeakerError("sounddevice is not installed with PortAudio") from error
        self._library: Any = sounddevice
        try:
            device = sounddevice.query_devices(kind="output")["name"]
        except (sounddevice.PortAudioError, ValueError) as error:
            raise SpeakerError("sounddevice finds no output device") from error
        self.name = f"{device} (sounddevice)"

    def start(self, fill: Fill, /) -> None:
        """See `Speaker`."""
        self._begin(fill)
        try:
            with quiet_portaudio():
                self._stream = self._library.RawOutputStream(
                    samplerate=self.rate,
                    channels=self.channels,
                    dtype="int16",
                    blocksize=self.rate // DEVICE_BLOCKS_PER_SECOND,
                    latency="low",
                    callback=self._callback,
                )
                self._usual_s = self._stream.latency
                self._stream.start()
        except (self._library.PortAudioError, ValueError) as error:
            self.stop()
            raise _cannot_open(self, error) from error

    def _callback(self, out: Any, count: int, stamps: Any, _status: Any) -> None:
        out[:] = self._block(count, stamps.currentTime, stamps.outputBufferDacTime)

    def stop(self) -> None:
        """See `Speaker`."""
        self._fill = None
        stream, self._stream = self._stream, None
        if stream is not None:
            with _portaudio, contextlib.suppress(self._library.PortAudioError):
                stream.abort()
                stream.close()


class WillingSpeaker:
    """The first of several devices that opens: at the sound's own rate and channels, else resampled. A `Speaker`.

    Drivers differ: WASAPI takes the mixer's rate alone, a card on ALSA the rates of its converter, and what one library
    opens by default may be another's second choice. `notice` is a sentence for a person on a device that was not opened
    as it was asked for; else it is empty.
    """

    def __init__(self, devices: Sequence[_Device]) -> None:
        self._devices = devices
        self._opened: _Device = devices[0]
        self.notice = ""

    @property
    def name(self) -> str:
        """See `Speaker`."""
        return self._opened.name

    @property
    def latency_ns(self) -> int:
        """See `Speaker`."""
        return self._opened.latency_ns

    @property
    def error(self) -> BaseException | None:
        """See `Speaker`."""
        return self._opened.error

    @property
    def stalled(self) -> bool:
        """See `Speaker`."""
        return self._opened.stalled

    def start(self, fill: Fill, /) -> None:
        """See `Speaker`. What is said when none opens is what the first one said of the sound's own rate."""
        rate, channels = self._opened.rate, self._opened.channels
        refusals = []
        for to_rate, to_channels in dict.fromkeys(((rate, channels), (RESAMPLED, channels), (RESAMPLED, 2))):
            for device in self._devices:
                as_it_is = (to_rate, to_channels) == (rate, channels)
                speaker = device if as_it_is else type(device)(rate=to_rate, channels=to_channels)
                try:
                    speaker.start(
                        fill
                        if as_it_is
                        else ResampledFill(fill, rate=rate, channels=channels, to_rate=to_rate, to_channels=to_channels)
                    )
                except SpeakerError as error:
                    refusals.append(error)
                    continue
                self._opened = speaker
                if not as_it_is:
                    self.notice = (
                        f"the sound of {rate:,} Hz and {channels} channel{'s' * (channels > 1)} is resampled to "
                        f"{to_rate:,} Hz and {to_channels}: {speaker.name} takes no other"
                    )
                return
        raise refusals[0]

    def stop(self) -> None:
        """See `Speaker`."""
        self._opened.stop()
        self._opened, self.notice = self._devices[0], ""


class NullSpeaker(_Asking):
    """Keeps time and makes no sound: asks for 20 ms every 20 ms, on absolute deadlines, so it never drifts.

    It asks as often as a device does, for what is heard from `NULL_LATENCY_NS` later on.
    """

    name = "no sound (null speaker)"

    def __init__(self, *, rate: int, channels: int) -> None:
        super().__init__(rate=rate, channels=channels)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, fill: Fill, /) -> None:
        """See `Speaker`."""
        self._begin(fill)
        self._stopping.clear()
        self._clock.latency_ns = NULL_LATENCY_NS
        self._thread = threading.Thread(target=self._run, name="avlab-null-speaker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        start_ns = time.perf_counter_ns()
        block = played = 0
        while not self._stopping.is_set():
            block += 1
            due_ns = start_ns + block * NS // DEVICE_BLOCKS_PER_SECOND
            now_ns = time.perf_counter_ns()
            if now_ns - due_ns > _STALL_NS:  # the machine slept: go on from now, as a device would
                start_ns, block, played = now_ns, 0, 0
                continue
            if now_ns < due_ns and self._stopping.wait((due_ns - now_ns) / NS):
                return
            self._deadline_ns = time.perf_counter_ns() + _STALL_NS
            count = block * self.rate // DEVICE_BLOCKS_PER_SECOND - played
            played += count
            self._ask(count, due_ns + self._clock.latency_ns)

    def stop(self) -> None:
        """See `Speaker`."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self._fill = None


def _cannot_open(speaker: _Asking, error: Exception) -> SpeakerError:
    return SpeakerError(
        f"The speaker {speaker.name} does not open for {speaker.rate} Hz and {speaker.channels} channels ({error}): "
        "connect it again, close the program that holds it, or choose the null speaker, which keeps time without sound."
    )


# Says nothing (alsa-lib error.h, snd_lib_error_handler_t). It has to live as long as ALSA may call it.
_AlsaHandler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)
_alsa_handler = _AlsaHandler(lambda _file, _line, _function, _code, _format: None)


@contextlib.contextmanager
def quiet_portaudio() -> Iterator[None]:
    """One thread at a time in PortAudio's initialisation, without the pages that ALSA and JACK then write on stderr.

    They write past Python, on file descriptor 2; it is turned away for these milliseconds only. What ALSA would say
    later, a line for each underrun, goes to a handler that says nothing.
    """
    with _portaudio, contextlib.ExitStack() as restore:
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):  # a system without ALSA has nothing to keep quiet
                ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(_alsa_handler)
            with contextlib.suppress(OSError):  # a process without stderr has nothing to keep quiet
                kept = os.dup(2)
                restore.callback(os.close, kept)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                restore.callback(os.close, nowhere)
                os.dup2(nowhere, 2)
                restore.callback(os.dup2, kept, 2)
        yield
