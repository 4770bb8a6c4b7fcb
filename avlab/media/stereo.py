"""Sound made stereo, at a rate that is asked for, in chunks of a size. Touches no file and no device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from avlab.wire.units import NS, Chunk, Samples

APART_NS = 40_000_000
"""Sound further than this from where the chunk before it ended is put where its pts says, not next to that."""


def stereo(chunks: Iterable[Chunk], *, rate: int, size: int) -> Iterator[Chunk]:
    """Mono or stereo chunks as stereo ones of `size` sample frames, at `rate` sample frames a second.

    The last one is as long as it comes, and so is one before a gap. Stereo at `rate` comes through sample for sample;
    mono is heard from both sides as loud as it is.
    """
    for index, (pts_ns, samples) in enumerate(_cut(chunks, rate, size)):
        yield Chunk(index, pts_ns, samples, rate)


def _cut(chunks: Iterable[Chunk], rate: int, size: int) -> Iterator[tuple[int, Samples]]:
    line: _SoundLine | None = None
    for chunk in chunks:
        if line is None or abs(chunk.pts_ns - line.ends_ns) > APART_NS or chunk.rate != line.source_rate:
            if line is not None:
                yield from line.rest()
            line = _SoundLine(chunk.pts_ns, chunk.rate, rate, size)
        yield from line.take(chunk)
    if line is not None:
        yield from line.rest()


class _SoundLine:
    """A run of sound without a gap: what is given continues from `pts_ns` by its own count of samples."""

    def __init__(self, pts_ns: int, source_rate: int, rate: int, size: int) -> None:
        self.ends_ns = pts_ns  # of what was taken
        self.source_rate = source_rate
        self._pts_ns, self._rate, self._size = pts_ns, rate, size
        self._resampler = AudioResampler("s16", "stereo", rate) if source_rate != rate else None
        self._given = 0
        self._held: Samples = np.empty((0, 2), np.int16)

    def take(self, chunk: Chunk) -> Iterator[tuple[int, Samples]]:
        self.ends_ns = chunk.pts_ns + chunk.duration_ns
        samples = chunk.samples if chunk.samples.shape[1] == 2 else np.repeat(chunk.samples, 2, axis=1)
        self._hold(samples if self._resampler is None else self._resampled(self._resampler, samples))
        while len(self._held) >= self._size:
            yield self._give(self._size)

    def rest(self) -> Iterator[tuple[int, Samples]]:
        if self._resampler is not None:
            self._hold(self._resampled(self._resampler, None))
        while len(self._held):
            yield self._give(min(self._size, len(self._held)))

    def _give(self, count: int) -> tuple[int, Samples]:
        pts_ns = self._pts_ns + self._given * NS // self._rate
        samples, self._held = np.ascontiguousarray(self._held[:count]), self._held[count:]
        self._given += count
        return pts_ns, samples

    def _hold(self, samples: Samples) -> None:
        self._held = np.concatenate((self._held, samples)) if len(self._held) else samples

    def _resampled(self, resampler: AudioResampler, samples: Samples | None) -> Samples:
        """What the resampler has ready after `samples`, or at the end (None)."""
        frame = None
        if samples is not None:
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout="stereo")
            frame.sample_rate = self.source_rate
        out = [np.asarray(part.to_ndarray(), np.int16).reshape(-1, 2) for part in resampler.resample(frame)]
        return np.concatenate(out) if out else np.empty((0, 2), np.int16)
