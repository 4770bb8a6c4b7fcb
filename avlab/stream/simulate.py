"""A run in virtual time: the stages of a real one, no threads, no sockets, no codecs. Bit-identical for a seed."""

from __future__ import annotations

import heapq
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
class _Arrival:
    """A frame at the receiver; the row is what the sender knows of it."""

    pts_ns: int
    row: FrameRow


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
    if not seconds > 0:
        raise ValueError(f"seconds must be more than 0, not {seconds}")
    chance = random.Random(seed)
    cost = work if callable(work) else lambda _: float(work)
    pace = pacer_named(pacer)
    times, rate = _presentation_times(clip)
    recorder = Recorder(side="simulation", epoch_ns=0, clock=f"virtual:{seed}")
    recorder.meta |= {"clip": str(clip) if isinstance(clip, str | Path) else "times", "target_fps": rate, "seed": seed}
    clock = VirtualClock()
    media_clock = MediaClock()
    playout = Playout(media_clock, at_once=playout_delay == 0)
    start = Start(expect={"video"}, delay_ns=round(playout_delay * NS))
    network: list[tuple[int, int, _Arrival]] = []
    offered = enumerate(takewhile(lambda pts: pts < round(seconds * NS), times))
    delay_ns = round(delay * NS)
    pace.restart(0)
    frame = next(offered, None)
    pushed = False
    while frame is not None or network or len(playout):
        if frame is not None and not pushed:
            pace.push(_Offered(*frame), clock.now_ns())
            pushed = True
        moments = [pace.wake_at(), playout.wake_at(), network[0][0] if network else None]
        clock.sleep_until(min(m for m in moments if m is not None))
        for due in pace.pull(clock.now_ns()):
            sent_ns = clock.now_ns() + round(cost(chance) * NS)
            clock.sleep_until(sent_ns)  # the sender's work is time that passes
            index, pts_ns = due.item.index, due.item.pts_ns
            row = FrameRow(
                "video",
                index=index,
                pts_ns=pts_ns,
                timestamp=rtp_timestamp(pts_ns, VIDEO_CLOCK, 0),
                due_ns=due.due_ns,
                encoded_ns=sent_ns,
                sent_ns=sent_ns,
            )
            heapq.heappush(network, (sent_ns + delay_ns, index, _Arrival(pts_ns, row)))
            frame, pushed = next(offered, None), False
        now_ns = clock.now_ns()
        while network and network[0][0] <= now_ns:
            at_ns, _, arrival = heapq.heappop(network)
            start.arrived("video", arrival.pts_ns, at_ns)
            if not media_clock.running and (base_ns := start.base_ns(now_ns)) is not None:
                media_clock.set(base_ns)
            playout.push(_Arrival(arrival.pts_ns, arrival.row._replace(complete_ns=at_ns)), now_ns)
        for item in playout.pull(now_ns):
            if isinstance(item, Dropped):
                recorder.frame(item.item.row._replace(fate=item.reason))
            else:
                recorder.frame(item.row._replace(shown_ns=now_ns, fate="shown"))
    recorder.meta["end_ns"] = clock.now_ns()
    return recorder.trace()


@dataclass(frozen=True, slots=True)
class _Offered:
    index: int
    pts_ns: int


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
