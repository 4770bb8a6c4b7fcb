"""Coded sound to samples, through PyAV. Touches no device."""

from __future__ import annotations

from typing import cast

import av
import numpy as np
from av.error import FFmpegError

from avlab.media.resampling import LAYOUTS
from avlab.wire.batch import Batch
from avlab.wire.payloads.coded import AAC, OPUS, CodedSound
from avlab.wire.units import Samples, WireError

NAMES = {AAC: ("aac",), OPUS: ("libopus", "opus")}
"""FFmpeg's decoders for what sound is coded in, the first that is there."""

MOST_SAMPLES = 1 << 16
"""Sample frames that a packet makes at the most: over a second."""


class DecodedSound:
    """Coded sound as a `formats.SoundReader`: decoded packet by packet, in the order in which they come.

    ValueError, whose message is half a sentence, where this PyAV has no such decoder, or it will not have what it is
    told.
    """

    def __init__(self, form: CodedSound) -> None:
        self.encoding, self.clock_rate, self.channels = form.encoding, form.clock_rate, form.channels
        self._form = form
        self._context = self._opened()
        layout = LAYOUTS[form.channels - 1]
        self._resampler = av.AudioResampler(format="s16", layout=layout, rate=form.clock_rate)

    def together(self, batch: Batch, step: int, /) -> None:
        """See `formats.SoundReader`: how much sound a packet has is known once it is decoded."""

    def samples(self, payload: bytes, /) -> Samples:
        """See `formats.SoundReader`. WireError for what cannot be decoded."""
        made = [np.zeros((0, self.channels), np.int16)]
        for unit in self._form.units(payload):
            try:
                for frame in self._context.decode(av.Packet(unit)):
                    frame.pts = None  # the resampler is not to fill gaps
                    made += [_array(each, self.channels) for each in self._resampler.resample(frame)]
            except (FFmpegError, ValueError) as error:
                raise WireError(f"{len(unit)} bytes of {self.encoding} cannot be decoded ({error}).") from error
        samples = np.concatenate(made)
        if len(samples) > MOST_SAMPLES:
            raise WireError(f"A packet of {self.encoding} makes {len(samples):,} samples, which is no packet's sound.")
        return samples

    def _opened(self) -> av.AudioCodecContext:
        names, why = NAMES[self._form.coding], ""
        for name in names:
            try:
                context = cast(av.AudioCodecContext, av.CodecContext.create(name, "r"))
            except (FFmpegError, ValueError):
                continue
            try:
                context.sample_rate = self.clock_rate
                context.layout = LAYOUTS[self.channels - 1]
                if self._form.setup:
                    context.extradata = self._form.setup
                context.open()
            except (FFmpegError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                continue
            return context
        if not why:
            raise ValueError("this PyAV has no decoder for it: 'pip install --force-reinstall av' brings one that has")
        raise ValueError(f"the decoder does not begin with what is described of it ({why})")


def _array(frame: av.AudioFrame, channels: int) -> Samples:
    return frame.to_ndarray().astype(np.int16, copy=False).reshape(-1, channels)
