"""Sound to Opus, through PyAV: packets of 20 ms, at their own time. Touches no device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av
import numpy as np
from av.error import FFmpegError

from avlab.media.resampling import LAYOUTS
from avlab.wire.payloads.coded import OPUS_RATE
from avlab.wire.units import NS, Chunk, Samples

FRAME = OPUS_RATE // 50
"""Sample frames of a packet."""

LOOK_AHEAD = 312
"""Sample frames by which what is decoded is behind what was encoded (RFC 7845 4.2, with libopus): as many of the
beginning are left out, so that sound is where it was."""

KBPS = 96

JUMP_NS = NS // 25
"""Chunks so far from where they should be begin anew."""


def check_opus() -> None:
    """ValueError, in a sentence, where this PyAV has no libopus."""
    try:
        av.Codec("libopus", "w")
    except (FFmpegError, ValueError) as error:
        raise ValueError(
            "this PyAV has no libopus to make Opus with: 'pip install --force-reinstall av' brings one that has"
        ) from error


def opus_chunks(chunks: Iterable[Chunk], *, channels: int) -> Iterator[Chunk]:
    """Sound of any rate and number of channels as chunks of Opus, in stereo: each has its bytes and its samples."""
    encoder: _Encoder | None = None
    rate = index = 0
    for chunk in chunks:
        if encoder is None or rate != chunk.rate or abs(chunk.pts_ns - encoder.next_ns) > JUMP_NS:
            encoder, rate = _Encoder(chunk.pts_ns, chunk.rate, channels), chunk.rate
        for pts_ns, samples, data in encoder.encode(chunk.samples):
            yield Chunk(index, pts_ns, samples, OPUS_RATE, data)
            index += 1


class _Encoder:
    """Sound from `pts_ns` on, without a gap."""

    def __init__(self, pts_ns: int, rate: int, channels: int) -> None:
        self._began_ns, self._rate, self._layout = pts_ns, rate, LAYOUTS[channels - 1]
        self._resampler = av.AudioResampler(format="s16", layout="stereo", rate=OPUS_RATE)
        self._context = context = av.CodecContext.create("libopus", "w")
        context.sample_rate, context.layout, context.format = OPUS_RATE, "stereo", "s16"
        context.bit_rate = KBPS * 1000
        context.options = {"frame_duration": "20"}
        context.open()
        self._skip = LOOK_AHEAD
        self._waiting: Samples = np.zeros((0, 2), np.int16)
        self._taken = self._given = 0

    @property
    def next_ns(self) -> int:
        """When the next chunk should be."""
        return self._began_ns + self._taken * NS // self._rate

    def encode(self, samples: Samples) -> Iterator[tuple[int, Samples, bytes]]:
        """The packets that become whole by this: when, what, and as bytes."""
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout=self._layout
        )
        frame.sample_rate, frame.pts = self._rate, None
        self._taken += len(samples)
        made = [
            each.to_ndarray().astype(np.int16, copy=False).reshape(-1, 2) for each in self._resampler.resample(frame)
        ]
        fresh = np.concatenate([np.zeros((0, 2), np.int16), *made])
        left_out = min(self._skip, len(fresh))
        self._skip -= left_out
        self._waiting = np.concatenate([self._waiting, fresh[left_out:]])
        while len(self._waiting) >= FRAME:
            block, self._waiting = self._waiting[:FRAME], self._waiting[FRAME:]
            whole = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block).reshape(1, -1), format="s16", layout="stereo"
            )
            whole.sample_rate, whole.pts = OPUS_RATE, self._given
            pts_ns = self._began_ns + self._given * NS // OPUS_RATE
            self._given += FRAME
            for packet in self._context.encode(whole):
                yield pts_ns, block, bytes(packet)
