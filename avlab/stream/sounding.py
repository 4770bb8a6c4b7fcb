"""Sound on its way from the client's thread to the device: a lock, the device's own worker, and what it says is heard.

Three threads meet here. The client's pushes packets, the device's pulls blocks, and a worker opens and closes the
device, as both have to happen on one thread. The buffer between them is pure, and has no lock of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Literal

from avlab.measure.trace import FrameRow, Recorder
from avlab.media.speaker import NullSpeaker, Speaker, SpeakerError, open_speaker
from avlab.stream.clock import MonotonicClock
from avlab.stream.worker import Worker
from avlab.timing.playout import ClockReading
from avlab.timing.sound import Played, SoundBuffer
from avlab.wire.units import Samples

Choice = Literal["auto", "speaker", "null"]

SPARE_NS = 20_000_000
"""The least time between sound's arrival and the device's asking for it."""


class Sounding:
    """The sound of one stream: `take` what came, `begin` when it is to be heard, `run` the device on a worker.

    `av_offset_ns` is what the device delays beyond what it reports. Where the wire is not `timed`, ticks are only a
    count, and no timestamp is recorded.
    """

    def __init__(
        self,
        *,
        rate: int,
        channels: int,
        audio: Choice,
        av_offset_ns: int,
        clock: MonotonicClock,
        recorder: Recorder,
        timed: bool = True,
    ) -> None:
        self.channels = channels
        self.speaker: Speaker | None = None
        self.ready = threading.Event()
        """Set once the device has asked for its first block, or failed."""
        self._rate, self._audio, self._av_offset_ns = rate, audio, av_offset_ns
        self._clock, self._recorder, self._timed = clock, recorder, timed
        self._lock = threading.Lock()
        self._buffer = SoundBuffer(rate=rate, channels=channels)
        self._readings: deque[ClockReading] = deque(maxlen=256)
        self._lead_ns = 0
        self._heard_samples = 0

    # ---- for the client's thread

    @property
    def lead_ns(self) -> int:
        """How long before it is heard the device asks for sound."""
        return self._lead_ns

    @property
    def least_delay_ns(self) -> int:
        """The device must be ahead of the sound by more than its own latency, or the first late packet is a gap."""
        return self._lead_ns + SPARE_NS

    @property
    def heard_seconds(self) -> float:
        """How much has been heard, in seconds."""
        return self._heard_samples / self._rate

    @property
    def drained(self) -> bool:
        """Whether nothing waits to be heard."""
        with self._lock:
            return not self._buffer.started or self._buffer.buffered_ns() == 0

    def take(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> bool:
        """A packet's sound; False if it comes too late."""
        with self._lock:
            return self._buffer.push(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns)

    def begin(self, base_ns: int) -> None:
        """Media time 0 is to be heard at `base_ns`."""
        with self._lock:
            self._readings.clear()
            self._buffer.begin(base_ns)

    def shift(self, by_ns: int) -> None:
        """Hear everything later by `by_ns` from here on."""
        with self._lock:
            self._readings.clear()
            self._buffer.shift(by_ns)

    def readings(self) -> list[ClockReading]:
        """What the device said is heard, since the last call."""
        out = []
        while self._readings:
            out.append(self._readings.popleft())
        return out

    def heard(self, now_ns: int) -> tuple[int | None, int, float]:
        """Media time heard at a moment (None before sound began), the buffer's depth in ns, the clocks' skew in ppm."""
        with self._lock:
            return self._buffer.heard_ns(now_ns), self._buffer.control.level_ns, self._buffer.skew_ppm

    def write_rows(self, *, last: bool = False) -> None:
        """Record the packets of sound whose fate is known; with `last`, also what is left, as in flight."""
        with self._lock:
            played = self._buffer.played() + (self._buffer.flush() if last else [])
        for run in played:
            self._write(run)

    # ---- the device

    def run(self, worker: Worker) -> None:
        """The worker's body: open the device, watch it, close it. `auto` goes on in silence when the device is lost."""
        try:
            speaker = open_speaker(self._audio, rate=self._rate, channels=self.channels)
            try:
                speaker = self._start(speaker)
                while not worker.stopping.wait(0.2):
                    if speaker.error is not None:
                        raise speaker.error
                    if speaker.stalled and self._audio == "speaker":
                        raise SpeakerError(f"{speaker.name} has stopped: see whether it is connected, then play again")
                    if speaker.stalled and not isinstance(speaker, NullSpeaker):
                        self._recorder.event(self._clock.now_ns(), "sound device lost", speaker.name)
                        speaker.stop()
                        speaker = self._start(NullSpeaker(rate=self._rate, channels=self.channels))
            finally:
                speaker.stop()
        finally:
            self.ready.set()

    def _start(self, speaker: Speaker) -> Speaker:
        """The speaker that started: the null speaker where `auto` found a device that does not open."""
        try:
            speaker.start(self._fill)
        except SpeakerError as error:
            if self._audio != "auto":
                raise
            self._recorder.event(self._clock.now_ns(), "sound device refused", str(error))
            speaker = NullSpeaker(rate=self._rate, channels=self.channels)
            speaker.start(self._fill)
        self.speaker = speaker
        return speaker

    def _fill(self, count: int, heard_ns: int) -> Samples:
        """What the device asks for; on its own thread."""
        heard_ns += self._av_offset_ns
        self._lead_ns = heard_ns - self._clock.now_ns()
        with self._lock:
            block, reading = self._buffer.read(count, heard_ns)
            if reading is not None:
                self._readings.append(reading)
        self.ready.set()
        return block

    def _write(self, run: Played) -> None:
        self._heard_samples += run.size if run.reason == "shown" else 0
        self._recorder.frame(
            FrameRow(
                "audio",
                pts_ns=run.pts_ns,
                timestamp=run.ticks & 0xFFFFFFFF if self._timed else None,
                first_packet_ns=run.arrived_ns,
                complete_ns=run.arrived_ns,
                shown_ns=run.heard_ns,
                bytes=run.size * 2 * self.channels,
                packets=1,
                packets_lost=0,
                fate=run.reason,
            )
        )
