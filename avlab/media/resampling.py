"""Sound at another rate: for a device that does not take the stream's own. PyAV's resampler, fed block by block.

Knows no device and no clock.
"""

from __future__ import annotations

from collections.abc import Callable

import av
import numpy as np

from avlab.wire.units import NS, Samples

LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1", "7.1")
"""FFmpeg's names for 1 to 8 channels."""


class ResampledFill:
    """A device's `Fill` (see `speaker`) that asks another at the stream's own rate and channels.

    Called like any: `(count, heard_ns)` are the device's sample frames and when the first of them is heard. What is
    asked of `fill` is heard at the moment that it is told, to the sample: what waits within is counted.
    """

    def __init__(
        self, fill: Callable[[int, int], Samples], *, rate: int, channels: int, to_rate: int, to_channels: int
    ) -> None:
        self._fill, self._rate, self._channels = fill, rate, channels
        self._to_rate, self._to_channels = to_rate, to_channels
        self._resampler = av.AudioResampler(format="s16", layout=LAYOUTS[to_channels - 1], rate=to_rate)
        self._waiting = np.zeros((0, to_channels), np.int16)
        self._fed = self._given = 0  # sample frames, at the stream's rate and at the device's

    def __call__(self, count: int, heard_ns: int) -> Samples:
        """The next `count` sample frames for the device, int16 of shape (count, channels)."""
        while len(self._waiting) < count:
            missing = count - len(self._waiting)
            wanted = -(-missing * self._rate // self._to_rate)
            ahead = self._fed * self._to_rate // self._rate - self._given  # of the first that the device is given now
            self._feed(self._fill(wanted, heard_ns + ahead * NS // self._to_rate))
        out, self._waiting = self._waiting[:count], self._waiting[count:]
        self._given += count
        return out

    def _feed(self, samples: Samples) -> None:
        if samples.ndim != 2 or samples.shape[1] != self._channels or samples.dtype != np.int16 or not len(samples):
            raise ValueError(
                f"fill gave {samples.dtype} of shape {samples.shape}: give int16 of shape (count, {self._channels})"
            )
        packed = np.ascontiguousarray(samples).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=LAYOUTS[self._channels - 1])
        frame.sample_rate = self._rate
        frame.pts = None
        self._fed += len(samples)
        made = [each.to_ndarray().reshape(-1, self._to_channels) for each in self._resampler.resample(frame)]
        self._waiting = np.concatenate([self._waiting, *made]).astype(np.int16, copy=False)
