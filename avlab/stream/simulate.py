"""A run in virtual time: the stages of a real one, no threads, no sockets, no codecs. Bit-identical for a seed."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from avlab.measure.trace import FrameRow, Recorder, Trace
from avlab.media.probe import open_clip, picture_stream, picture_ticks
from avlab.media.sources import open_source
from avlab.stream.clock import VirtualClock
from avlab.timing.pacing import Pacer, pacer_named
from avlab.timing.playout import MediaClock, Playout, Start
from avlab.timing.stage import Dropped
from avlab.wire.rtp import VIDEO_CLOCK, rtp_timestamp
from avlab.wire.units import NS

Work = Callable[[random.Random], float]
"""Seconds of work that one frame costs its sender, from a seeded generator."""


@dataclass(frozen=True, slots=True)
class _Offered:
    index: int
    pts_ns: int


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A frame at the receiver; the row is what the sender knows of it."""

    pts_ns: int
    row: FrameRow


class _Sender:
    """Frames through a pacer, one at a time: each costs work before it leaves, and the next waits for that."""

    def __init__(self, frames: Iterator[_Offered], pacer: Pacer, cost: Callable[[], int]) -> None:
        self._frames, self._pacer, self._cost = frames, pacer, cost
        self._free_ns = 0
        self._next = next(frames, None)
        self._held = False
        pacer.restart(0)

    @property
    def done(self) -> bool:
        """Whether all frames have left."""
        return self._next is None

    def wake_at(self) -> int | None:
        """When it next has something to do."""
        if self._next is None:
            return None
        if not self._held:
            return self._free_ns
        wake_ns = self._pacer.wake_at()
        if wake_ns is None:
            raise ValueError(
                f"the pacer {type(self._pacer).__name__} holds frame {self._next.index} for ever: "
                "its wake_at() must name a moment while a frame waits"
            )
        return max(wake_ns, self._free_ns)

    def send(self, now_ns: int) -> list[FrameRow]:
        """The rows of the frames that are dealt with by now; one that leaves does so once its work is done."""
        if self._next is not None and not self._held and now_ns >= self._free_ns:
            self._pacer.push(self._next, now_ns)
            self._held = True
        if not self._held or now_ns < self._free_ns:
            return []
        rows = []
        for due in self._pacer.pull(now_ns):
            self._free_ns = max(now_ns, self._free_ns) + self._cost()
            frame: _Offered = due.item
            rows.append(
                FrameRow(
                    "video",
                    index=frame.index,
                    pts_ns=frame.pts_ns,
                    timestamp=rtp_timestamp(frame.pts_ns, VIDEO_CLOCK, 0),
                    due_ns=due.due_ns,
                    encoded_ns=self._free_ns,
                    sent_ns=self._free_ns,
                )
            )
        if rows:
            self._next, self._held = next(self._frames, None), False
        return rows


def simulate(
    clip: str | Path | Iterable[float] | float,
    *,
    pacer: str | Pacer = "deadline",
    seconds: float = 60.0,
    seed: int = 1,
    work: Work | float = 0.0,
    delay: float = 0.0,
    playout_delay: float = 0.1,
) -> Trace:
    """Pace `seconds` of a clip in virtual time and play it out; the record is as a real run's.

    `clip` is a path (its timestamps are read, its frames are not decoded; it loops), a number of frames a second, or
    presentation times in seconds. `work` is what a frame costs the sender before it leaves, in seconds, or a function
    of a `random.Random` that says so for each. `delay` is the network's, in seconds. ValueError for what cannot be.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be more than 0 and finite, not {seconds}")
    for name, value in (("delay", delay), ("playout_delay", playout_delay)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be 0 or more seconds, not {value}")
    chance = random.Random(seed)
    cost = work if callable(work) else lambda _: float(work)
    times, rate = _presentation_times(clip)
    recorder = Recorder(side="simulation", epoch_ns=0, clock=f"virtual:{seed}")
    recorder.meta |= {"clip": str(clip) if isinstance(clip, str | Path) else "times", "target_fps": rate, "seed": seed}
    pace = pacer_named(pacer)
    recorder.setting(0, "pacer", getattr(pace, "name", type(pace).__name__))
    recorder.setting(0, "playout_delay", playout_delay)
    clock, media_clock = VirtualClock(), MediaClock()
    playout = Playout(media_clock, at_once=playout_delay == 0)
    start = Start(expect={"video"}, delay_ns=round(playout_delay * NS))
    network: list[tuple[int, int, _Arrival]] = []
    until_ns, delay_ns = round(seconds * NS), round(delay * NS)
    offered = (_Offered(*numbered) for numbered in enumerate(takewhile(lambda pts_ns: pts_ns < until_ns, times)))
    sender = _Sender(offered, pace, lambda: _work_ns(cost(chance)))
    while not sender.done or network or len(playout):
        moments = [sender.wake_at(), playout.wake_at(), network[0][0] if network else None]
        clock.sleep_until(min(moment for moment in moments if moment is not None))
        now_ns = clock.now_ns()
        for row in sender.send(now_ns):
            assert row.sent_ns is not None
            assert row.pts_ns is not None
            arrival = _Arrival(row.pts_ns, row._replace(complete_ns=row.sent_ns + delay_ns))
            heapq.heappush(network, (row.sent_ns + delay_ns, row.index or 0, arrival))
        while network and network[0][0] <= now_ns:
            at_ns, _, arrival = heapq.heappop(network)
            start.arrived("video", arrival.pts_ns, at_ns)
            if not media_clock.running and (base_ns := start.base_ns(now_ns)) is not None:
                media_clock.set(base_ns)
            playout.push(arrival, now_ns)
        for item in playout.pull(now_ns):
            if isinstance(item, Dropped):
                recorder.frame(item.item.row._replace(fate=item.reason))
            else:
                recorder.frame(item.row._replace(shown_ns=now_ns, fate="shown"))
    recorder.meta["end_ns"] = clock.now_ns()
    return recorder.trace()


def _work_ns(seconds: float) -> int:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"work must be 0 or more seconds a frame, not {seconds}")
    return round(seconds * NS)


def _presentation_times(clip: Any) -> tuple[Iterator[int], float | None]:
    """Endless presentation times in ns, and the frames a second that they aim at."""
    if isinstance(clip, int | float) and not isinstance(clip, bool):
        if not clip > 0:
            raise ValueError(f"a number of frames a second must be more than 0, not {clip}")
        return (round(n * NS / clip) for n in count()), float(clip)
    if isinstance(clip, str | Path):
        source = open_source(clip)
        return _repeated(picture_times_ns(clip), source.duration_ns), float(source.fps) if source.fps else None
    return (round(seconds * NS) for seconds in clip), None


def _repeated(times_ns: Iterable[int], period_ns: int | None) -> Iterator[int]:
    once = list(times_ns)
    if not once:
        raise ValueError("the clip has no pictures to pace")
    period = period_ns or once[-1] + (once[-1] - once[-2] if len(once) > 1 else NS)
    return (turn * period + pts for turn in count() for pts in once)


def picture_times_ns(path: str | Path) -> list[int]:
    """The pictures' presentation times in ns from the first, without decoding any."""
    with open_clip(path) as container:
        stream = picture_stream(container)
        if stream is None or stream.time_base is None:
            return []
        ticks, base = picture_ticks(container), stream.time_base
    return [round((tick - ticks[0]) * base * NS) for tick in ticks]
