"""Two clocks against each other: how fast one runs on another. Pure."""

from __future__ import annotations

import math


class RateEstimator:
    """How fast one clock runs on another: a least-squares slope over pairs of readings, old ones fading.

    `time_constant_s` is the age at which a pair's weight has fallen to 1/e. Before the pairs span `least_s` there is no
    rate: 3 ms of scatter are hundreds of ppm in a second.
    """

    def __init__(self, *, time_constant_s: float = 60.0, least_s: float = 10.0) -> None:
        self._tau_s = time_constant_s
        self._least_s = least_s
        self._origin: tuple[int, int] | None = None
        self._last_s = 0.0
        self._weight = self._mx = self._my = self._sxx = self._sxy = 0.0

    def update(self, on_ns: int, of_ns: int) -> None:
        """When the clock measured on reads `on_ns`, the clock measured reads `of_ns`."""
        if self._origin is None:
            self._origin = (on_ns, of_ns)
        on_ns -= self._origin[0]
        x = on_ns / 1e9
        y = (of_ns - self._origin[1] - on_ns) / 1e9  # the difference alone, so that no digits are lost over hours
        fade = math.exp(-max(0.0, x - self._last_s) / self._tau_s)
        self._last_s = max(x, self._last_s)
        self._weight = self._weight * fade + 1.0
        self._sxx *= fade
        self._sxy *= fade
        dx, dy = x - self._mx, y - self._my
        self._mx += dx / self._weight
        self._my += dy / self._weight
        self._sxx += dx * (x - self._mx)
        self._sxy += dx * (y - self._my)

    @property
    def ppm(self) -> float:
        """Parts per million by which the measured clock is fast; NaN before the pairs span long enough."""
        return 1e6 * self._sxy / self._sxx if self._sxx > 0 and self._last_s >= self._least_s else math.nan
