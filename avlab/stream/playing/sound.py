"""Sound on its way from the client's thread to the device: a lock, the device's own worker, and what it says is heard.

Three threads meet here. The client's pushes packets, the device's pulls blocks, and a worker opens and closes the
device, as both have to happen on one thread. The buffer between them is pure, and has no lock of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from avlab.core.sink import BufferSink
from avlab.media.speaker import NullSpeaker, Speaker, SpeakerError, open_speaker
from avlab.stream.clock import Clock
from avlab.stream.handle import Worker
from avlab.timing.playout import ClockReading
from avlab.timing.soundbuffer import Played, PlayedChunk, SoundChunk
from avlab.wire.units import Samples

Choice = Literal["auto", "speaker", "null"]

BELIEVED_BLOCKS = 10
"""A device's first blocks are asked for in a hurry; what it says of its latency after these holds."""

Pull = Callable[[int, int], tuple[Samples, ClockReading | None]]
"""`pull(count, heard_ns)`: samples as for a speaker's `fill`, and the media time of the first; None before it began."""


class Sink(NamedTuple):
    """Another place for the sound than the client's own device: a speaker made from `pull`, which asks `lead_ns` before
    a sample is heard.
    """

    open: Callable[[Pull], Speaker]
    lead_ns: int


class Sounding:
    """The sound of one stream: `take` what came, `begin` when it is to be heard, `run` the device on a worker.

    A player's `SoundSink`. `av_offset_ns` is what the device delays beyond what it reports. `note(name, words)` is told
    where the sound goes, `notice(name, words)` what a person should know.
    """

    def __init__(
        self,
        *,
        rate: int,
        channels: int,
        audio: Choice,
        av_offset_ns: int,
        clock: Clock,
        note: Callable[[str, str], None],
        notice: Callable[[str, str], None] | None = None,
    ) -> None:
        self.rate, self.channels = rate, channels
        self.speaker: Speaker | None = None
        self.ready = threading.Event()
        """Set once the device has asked for its first block, or failed."""
        self._audio, self._av_offset_ns = audio, av_offset_ns
        self._clock, self._note = clock, note
        self._notice = notice or note
        self._lock = threading.Lock()
        self._sink = BufferSink(rate=rate, channels=channels)
        self._readings: deque[ClockReading] = deque(maxlen=256)
        self._heard_samples = 0
        self._claims: dict[object, Sink] = {}  # the first has the sound
        self._silent = False  # with no claim: silence, and not the device
        self._kept = False  # for the device, whoever claims it
        self._sink_lead_ns = 0
        self.blocks = 0  # asked for by the device since it was opened
        self._lent = self._back = False  # to a sink; from a sink
        self._changed = threading.Event()  # where the sound is to go

    # ---- for whoever would play the sound elsewhere, from any thread

    @property
    def audio(self) -> Choice:
        """What the client was asked for: `auto`, `speaker` or `null`."""
        return self._audio

    @property
    def av_offset_ns(self) -> int:
        """What the device delays beyond what it reports, the page's too."""
        return self._av_offset_ns

    @property
    def claimed(self) -> bool:
        """Whether the sound goes to a sink that is not the client's own."""
        return bool(self._claims)

    @property
    def kept(self) -> bool:
        """Whether the client's own device has the sound, and claims are refused."""
        return self._kept

    def claim(self, owner: object, sink: Sink) -> None:
        """Play on `sink` from now on; of several owners the first has the sound, and the next one when it lets go.

        Does nothing while the sound is kept.
        """
        with self._lock:
            if not self._kept:
                self._claims.setdefault(owner, sink)
            self._changed.set()

    def wants(self, owner: object, lead_ns: int) -> None:
        """The sink in charge has found that it wants its sound earlier than it said."""
        with self._lock:
            if next(iter(self._claims), None) is owner:
                self._sink_lead_ns = max(self._sink_lead_ns, lead_ns)

    def release(self, owner: object) -> None:
        """Let go of a claim, if there was one. With no other owner there is silence, and the clock goes on."""
        with self._lock:
            if self._claims.pop(owner, None) is not None:
                self._silent = True
                self._changed.set()

    def rest(self, *, silent: bool, alone: bool = False) -> None:
        """Where the sound goes when nobody has claimed it: nowhere, or to the client's own device.

        With `alone`, whoever has claimed it loses it, and it is kept from others until `offer`.
        """
        with self._lock:
            self._silent = silent
            if alone:
                self._kept = True
                self._claims.clear()
            self._changed.set()

    def offer(self) -> None:
        """Take claims again."""
        self._kept = False

    # ---- for the client's thread

    @property
    def sink_lead_ns(self) -> int:
        """How long before it is heard the sink in charge wants its sound; 0 for the client's own device."""
        return self._sink_lead_ns

    @property
    def lead_ns(self) -> int:
        """How long before it is heard the device asks for sound."""
        return self._sink.lead_ns

    @property
    def least_delay_ns(self) -> int:
        """The device must be ahead of the sound by more than its own latency, or the first late packet is a gap."""
        return max(self._sink.least_delay_ns, self._sink_lead_ns)

    def back(self) -> bool:
        """Whether the client's own device has got the sound back since the last call: no sink's wishes hold."""
        back, self._back = self._back, False
        return back

    @property
    def heard_seconds(self) -> float:
        """How much has been heard, in seconds."""
        return self._heard_samples / self.rate

    @property
    def drained(self) -> bool:
        """Whether nothing waits to be heard."""
        with self._lock:
            return self._sink.drained

    def take(self, samples: Samples, *, ticks: int, pts_ns: int, now_ns: int) -> bool:
        """A packet's sound; False if it comes too late."""
        with self._lock:
            return self._sink.take(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns)

    def take_together(self, chunk: SoundChunk) -> list[bool]:
        """The sound of packets that came together."""
        with self._lock:
            return self._sink.take_together(chunk)

    def begin(self, base_ns: int) -> None:
        """Media time 0 is to be heard at `base_ns`."""
        with self._lock:
            self._readings.clear()
            self._sink.begin(base_ns)

    def shift(self, by_ns: int) -> None:
        """Hear everything later by `by_ns` from here on."""
        with self._lock:
            self._readings.clear()
            self._sink.shift(by_ns)

    def follow(self, by_ns: int) -> None:
        """Be heard later by `by_ns` from here on, as pictures are: the sender stood still so long."""
        with self._lock:
            self._readings.clear()
            self._sink.follow(by_ns)

    def ease(self, by_ns: int) -> None:
        """Hear everything earlier by `by_ns` in the end, unheard; 0 for no more than has been."""
        with self._lock:
            self._sink.ease(by_ns)

    def readings(self) -> list[ClockReading]:
        """What the device said is heard, since the last call."""
        out = []
        while self._readings:
            out.append(self._readings.popleft())
        return out

    def heard(self, now_ns: int) -> tuple[int | None, int, float]:
        """Media time heard at a moment (None before sound began), the buffer's depth in ns, the clocks' skew in ppm."""
        with self._lock:
            return self._sink.heard(now_ns)

    def played(self, *, last: bool = False) -> list[Played | PlayedChunk]:
        """The packets of sound whose fate is known by now; with `last`, also what is left, as in flight."""
        with self._lock:
            played = self._sink.played(last=last)
        if played:
            self._heard_samples += sum(run.size for run in played if run.reason == "shown")
        return played

    # ---- the device

    def run(self, worker: Worker) -> None:
        """The worker's body: open the device, watch it, close it. `auto` goes on in silence when the device is lost.

        The sink, or silence, takes the device's place for as long as somebody asks for it.
        """
        playing: Sink | bool = False
        try:
            speaker = self._start(self._open(playing))
            try:
                while not worker.stopping.is_set():
                    if self._changed.wait(0.1):
                        self._changed.clear()
                    if (wanted := self._wanted()) is not playing:
                        speaker.stop()
                        speaker, playing = self._start(self._open(wanted)), wanted
                        self._note("sound goes to", speaker.name)
                    if speaker.error is not None:
                        raise speaker.error
                    if not speaker.stalled or isinstance(speaker, NullSpeaker):
                        continue
                    if self._audio == "speaker" and not isinstance(playing, Sink):
                        raise SpeakerError(f"{speaker.name} has stopped: see whether it is connected, then play again")
                    words = (
                        f"{speaker.name} has stopped, and the pictures go on without it: see whether it is connected"
                    )
                    self._notice("sound device lost", words)
                    speaker.stop()
                    speaker = self._start(NullSpeaker(rate=self.rate, channels=self.channels))
            finally:
                speaker.stop()
        finally:
            self.ready.set()

    def _wanted(self) -> Sink | bool:
        """The sink in charge, else whether there is to be silence."""
        with self._lock:
            sink = next(iter(self._claims.values()), None)
            return self._silent if sink is None else sink

    def _open(self, wanted: Sink | bool) -> Speaker:
        if isinstance(wanted, Sink):
            self._sink_lead_ns, self._lent = wanted.lead_ns, True
            return wanted.open(self.read)
        if wanted:
            return NullSpeaker(rate=self.rate, channels=self.channels)
        self._sink_lead_ns = 0
        return open_speaker(self._audio, rate=self.rate, channels=self.channels)

    def _start(self, speaker: Speaker) -> Speaker:
        """The speaker that started: the null speaker where `auto` found a device that does not open."""
        self.blocks = 0
        try:
            speaker.start(self._fill)
        except SpeakerError as error:
            if self._audio != "auto":
                raise
            self._notice("sound device refused", f"there is no sound to be heard. {error}")
            speaker = NullSpeaker(rate=self.rate, channels=self.channels)
            speaker.start(self._fill)
        if words := getattr(speaker, "notice", ""):
            self._notice("sound resampled", words)
        self.speaker = speaker
        return speaker

    def _fill(self, count: int, heard_ns: int) -> Samples:
        """What the device asks for; on its own thread."""
        return self.read(count, self._clock.at(heard_ns))[0]

    def read(self, count: int, heard_ns: int) -> tuple[Samples, ClockReading | None]:
        """What a device is given that asks now for `count` sample frames, the first to be heard at `heard_ns`; and what
        is heard then. From any one thread.
        """
        heard_ns += self._av_offset_ns
        self._sink.lead_ns = heard_ns - self._clock.now_ns()
        self.blocks += 1
        if self.blocks == BELIEVED_BLOCKS and self._lent and not self._sink_lead_ns:
            self._lent, self._back = False, True
        with self._lock:
            block, reading = self._sink.read(count, heard_ns)
            if reading is not None:
                self._readings.append(reading)
        self.ready.set()
        return block, reading
