"""Live plots in a notebook: fps, interval error, sync, loss and bit rate of a client, drawn by the page itself.

One thread folds the end of the trace three times a second and sends the page its points in one binary message; `send`
is all that it touches of the widget. No figure is drawn while it runs: `figure()` makes the plain matplotlib one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from avlab.lab.plots import runs as plots
from avlab.lab.plots.drawing import BLUE, GREEN, GREY, ORANGE, VERMILION
from avlab.measure.numbers.folds import Series
from avlab.measure.numbers.rates import target_fps
from avlab.measure.numbers.recent import FOLDS, Recent
from avlab.stream.client import Client
from avlab.stream.clock import MonotonicClock, VirtualClock
from avlab.stream.handle import Worker
from avlab.wire.units import NS

EVERY_S = 1 / 3
"""Between two updates, seconds."""

KINDS = tuple(FOLDS)

_NAMED = 1.2  # room above lines that have names there


class Post:
    """Whether the page may be sent a message: one at a time, so that nothing queues for a page that is slow or hidden.

    Nothing goes before its first hello. When it has not said for a second that it has the last one, it may be that a
    cell keeps its words waiting, so another goes blindly, and then fewer and fewer. Safe on any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard_ns: int | None = None  # the page's last word
        self._sent = self._seen = 0
        self._sent_ns = 0

    def hello(self, now_ns: int) -> None:
        """The page is there, or there again."""
        with self._lock:
            self._heard_ns, self._seen = now_ns, self._sent

    def seen(self, number: int, now_ns: int) -> None:
        """The page has message `number`."""
        with self._lock:
            self._heard_ns, self._seen = now_ns, max(self._seen, min(number, self._sent))

    def admit(self, now_ns: int) -> int | None:
        """The number, from 1, of a message that may go now; None when none may."""
        with self._lock:
            if self._heard_ns is None:
                return None
            silent_ns = now_ns - self._heard_ns
            if self._seen < self._sent and now_ns - self._sent_ns < max(NS, silent_ns // 10):
                return None
            self._sent, self._sent_ns = self._sent + 1, now_ns
            return self._sent


class Shown:
    """A widget that is on the page once it is made, and shows itself again as the last line of a later cell."""

    _cell: int | None = None

    def _ipython_display_(self) -> None:
        shell = get_ipython()
        cell = shell.execution_count if shell is not None else None
        if cell is None or cell != self._cell:
            self._cell = cell
            made = self._repr_mimebundle_()  # type: ignore[attr-defined]
            data, metadata = made if isinstance(made, tuple) else (made, {})
            display(data, metadata=metadata, raw=True)


def chart(kind: str, series: Series, *, target: float | None = None) -> dict[str, Any]:
    """What the page is told of a plot beside its points: words, the newest value, the axis's range, bands and colours.

    ValueError for a kind that there is no plot of.
    """
    made: dict[str, Any] = {"kind": kind, "bands": [], "lines": [], "names": []}
    finite = series[1:][np.isfinite(series[1:])]
    last = [float(column[np.isfinite(column)][-1]) if np.isfinite(column).any() else None for column in series[1:]]
    first = last[0] if last else None
    if kind == "fps":
        low, high = (0.0, 10.0) if target is None else (target * 0.85, target * 1.15)
        made |= {"title": "Frames shown a second", "unit": "fps", "marks": "line", "colours": [BLUE]}
        made["range"] = _range(finite, low, high, least=0.0, most=None if target is None else 1.6 * target)
        if target is not None:
            made["bands"] = [[target * 0.98, target * 1.02, GREEN, 0.2]]
            made["lines"] = [[target, GREEN]]
            made["names"] = [[f"target {target:.5g} fps, \N{PLUS-MINUS SIGN}2 %", GREEN]]
        made["value"] = "" if first is None else f"{first:.1f} fps"
    elif kind == "interval_error":
        made |= {"title": "Interval error", "unit": "ms", "marks": "dots", "colours": [BLUE]}
        made |= {"range": _range(finite, -5.0, 5.0, share=0.02), "lines": [[0.0, GREY]]}
        half = float(np.median(np.abs(finite))) if len(finite) else None
        made["value"] = "" if half is None else f"half within {half:.2g} ms"
    elif kind == "sync":
        made |= {"title": "Sound before (+) or after (\N{MINUS SIGN}) picture", "unit": "ms", "marks": "dots"}
        made |= {"colours": [BLUE], "lines": [[0.0, GREY]]}
        made["range"] = _range(finite, plots.ACCEPTABLE[0] - 15, plots.ACCEPTABLE[1] + 15, share=0.02)
        made["bands"] = [[*plots.ACCEPTABLE, ORANGE, 0.14], [*plots.DETECTABLE, GREEN, 0.18]]
        made["names"] = [["not noticed", GREEN], ["accepted", ORANGE]]
        made["value"] = "" if first is None else f"{first:+.0f} ms".replace("-", "\N{MINUS SIGN}")
    elif kind == "loss":
        made |= {"title": "Lost in each second", "unit": "%", "marks": "steps"}
        made |= {"colours": [BLUE, VERMILION], "range": _range(_NAMED * finite, 0.0, 5.0, least=0.0, most=100.0)}
        made["names"] = [["packets", BLUE], ["frames", VERMILION]]
        made["value"] = "" if first is None else f"{first:.1f} % of packets"
    elif kind == "bitrate":
        made |= {"title": "Bit rate", "unit": "kbit/s", "marks": "steps", "colours": [BLUE, ORANGE]}
        made |= {"range": _range(_NAMED * finite, 0.0, 100.0, least=0.0)}
        made["names"] = [["video", BLUE], ["sound", ORANGE]]
        made["value"] = "" if first is None else f"{sum(value or 0.0 for value in last):,.0f} kbit/s"
    else:
        raise ValueError(f"a live plot is one of {', '.join(KINDS)}, not {kind!r}")
    return made


def _range(
    values: Any, low: float, high: float, *, share: float = 0.0, least: float = -np.inf, most: float | None = None
) -> list[float]:
    """From `low` to `high`, and further where values are, but for a `share` of them at either end."""
    if len(values):
        lowest, highest = np.quantile(values, [share, 1 - share])
        spare = 0.05 * (highest - lowest)
        low = min(low, lowest - spare)
        high = max(high, highest + spare)
    return [float(max(low, least)), float(high if most is None else min(high, most))]


class Live(Shown, anywidget.AnyWidget):  # type: ignore[misc]
    """Plots of what a client sees now, over the last `seconds`. Made by `avlab.plots.live`; ends with the client.

    The last picture stays when the stream has ended. The saved notebook holds none. `error` is what failed, which the
    page tells too, and which does not stop the stream. `clock` is for tests.
    """

    _esm = Path(__file__).with_name("live.js")
    _css = Path(__file__).with_name("live.css")
    _worker: Worker | None = None

    def __init__(
        self,
        client: Client,
        *,
        kinds: Sequence[str] = KINDS,
        seconds: float = 30.0,
        clock: MonotonicClock | VirtualClock | None = None,
    ) -> None:
        self.recent = Recent(tuple(kinds), seconds=seconds)
        super().__init__()
        self._client = client
        self._clock = clock or MonotonicClock()
        self.post = Post()
        self._last: tuple[dict[str, Any], list[bytes]] | None = None
        self.error: BaseException | None = None
        self.on_msg(self._hear)
        self._worker = client.spawn("live", self._follow)

    def figure(self) -> Figure:
        """The plots of the whole run so far, as one plain matplotlib figure: `figure().savefig("run.png")`."""
        return plots.page(self._client.trace, kinds=tuple(self.recent.series))

    def close(self) -> None:
        """Take the plots off the page; ends their thread."""
        if self._worker is not None:
            self._worker.signal()
            self._worker.join(1.0)
        super().close()

    def _follow(self, worker: Worker) -> None:
        try:
            while not worker.stopping.wait(EVERY_S) and self._client.running:
                number = self.post.admit(self._clock.now_ns())
                if number is not None:
                    self._tell(number)
            self._tell(None)
        except Exception as error:  # a plot that fails is no reason to stop the stream: the page says what it was
            self.error = error
            self._last = {"number": None, "error": f"The live plots failed: {error}"}, []
            self.send(*self._last)

    def _tell(self, number: int | None) -> None:
        """Send what there is now; without a number, for the last time."""
        self.recent.patience_ns = NS + round(self._client.playout_target * NS)
        trace = self._client.recent(self.recent.reach(self._clock.now_ns()))
        now_ns = self._clock.now_ns()
        self.recent.update(trace, now_ns)
        now = (now_ns - trace.epoch_ns) / NS
        charts, parts = [], []
        for kind, series in self.recent.series.items():
            points = series.astype(np.float64)
            points[0] -= now  # small numbers, for single precision
            parts.append(points.astype("<f4").tobytes())
            target = target_fps(trace) if kind == "fps" else None
            charts.append(chart(kind, series, target=target) | {"points": series.shape[1], "columns": len(series)})
        content = {"number": number, "now": now, "seconds": self.recent.seconds, "charts": charts}
        self._last = content, [b"".join(parts)]
        self.send(*self._last)

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """A word from the page; on the kernel's main thread or on a subshell's."""
        if "hello" in content:
            self.post.hello(self._clock.now_ns())
            ended = self._worker is None or not self._worker.alive
            if self._last is not None and ended:  # after a reload, what was there before
                self.send(*self._last)
        elif "seen" in content:
            self.post.seen(content["seen"], self._clock.now_ns())


def live(client: Client, *, kinds: Sequence[str] = KINDS, seconds: float = 30.0) -> Live:
    """Show live plots of a client; see `avlab.plots.live`."""
    if not client.running:
        raise RuntimeError(
            "this client is not playing, so there is nothing to follow: start it, or plot its trace, as in "
            "avlab.plots.page(client.trace)"
        )
    made = Live(client, kinds=kinds, seconds=seconds)
    if get_ipython() is not None:
        display(made)
    return made
