"""How fast a count of bytes grows: over the last second of those who look, however often they do. Pure."""

from __future__ import annotations

from collections import deque

from avlab.wire.units import NS


class Meter:
    """Takes the count at each look; the rate is over what lies a second back, or as far as was looked."""

    def __init__(self) -> None:
        self._looks: deque[tuple[int, int]] = deque(maxlen=64)

    def megabits(self, count: int, now_ns: int) -> float:
        """Megabits a second; 0 at the first look, and while nothing grows."""
        self._looks.append((now_ns, count))
        while len(self._looks) > 2 and now_ns - self._looks[1][0] >= NS:
            self._looks.popleft()
        since_ns, before = self._looks[0]
        return 0.0 if now_ns <= since_ns else max(0, count - before) * 8e3 / (now_ns - since_ns)
