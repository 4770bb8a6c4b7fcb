"""A run in virtual time: the stages of a real one, no threads, no sockets, no codecs. Bit-identical for a seed."""

from __future__ import annotations

import csv
import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from avlab.core.repairing import check_repair
from avlab.measure.record.scratch import Scratch
from avlab.measure.record.trace import Recorder, Trace
from avlab.media.packets import open_clip, picture_stream, picture_ticks
from avlab.media.sources import open_source
from avlab.network.impairment import Impairment
from avlab.network.parity import check_overhead
from avlab.network.ratecontrol import Choice, RateController, controller_named
from avlab.network.settings import Network
from avlab.parts import Call, Dropped, Pacer, PlayoutDelay, Target, named
from avlab.stream.clock import VirtualClock
from avlab.stream.guard import Guard
from avlab.stream.recorded_sizes import frame_bytes
from avlab.stream.virtual_receiver import Receiver, Reports
from avlab.stream.virtual_sender import Packetizer, Sent, seen
from avlab.timing.pacing import FOREVER_NS, pacer_named
from avlab.timing.seat import Seat, pacer_name
from avlab.timing.spreading import check_spread
from avlab.timing.target import OwnTarget, Steering, own_target
from avlab.wire.units import NS

Work = Callable[[random.Random], float]
"""Seconds of work that one frame costs its sender before it leaves, from a seeded generator."""

RECORDED: Traversable = files("avlab.data") / "work.csv"
"""What frames cost a real server; README.md beside it says how it was recorded."""

SSRC = 1
"""The source of a simulated run's packets."""

STRETCH = 30
"""Frames in a row that are drawn from the record together, on average."""


class FrameWork(NamedTuple):
    """What one frame costs the sender: encoding, done ahead; waking late for it; sending it."""

    encode_ns: int
    late_ns: int
    send_ns: int


class _Offered(NamedTuple):
    index: int  # type: ignore[assignment]  # tuple has a method of this name, which nobody misses
    pts_ns: int


def _departures(
    frames: Iterator[_Offered], pacer: Seat, work: Callable[[], FrameWork], recorder: Recorder
) -> Iterator[Sent]:
    """Frames as the server's loop sends them: it takes a frame, waits as the pacer says, sends, goes on.

    Each frame is encoded while the loop waits with the one before. Nothing comes back to the sender, so its time may
    run ahead of the receiver's.
    """
    pacer.restart(0)
    free_ns = encoded_ns = 0
    for frame in frames:
        cost = work()
        now_ns = max(free_ns, encoded_ns)
        pacer.push(frame, now_ns)
        next_encoded_ns = now_ns + cost.encode_ns
        sent: list[Any] = []
        while not sent:
            wake_ns = pacer.wake_at()
            assert wake_ns is not None  # it holds the frame
            for words in pacer.notices():
                recorder.event(now_ns, "pacer", words)
            if wake_ns >= FOREVER_NS:
                yield Sent(frame.index, frame.pts_ns, encoded_ns)
                return
            now_ns = max(wake_ns, now_ns) + cost.late_ns
            sent = pacer.pull(now_ns)
        for due in sent:
            if isinstance(due, Dropped):
                dropped = Sent(due.item.index, due.item.pts_ns, encoded_ns)
                recorder.frame(dropped.row(due.reason))
                continue
            yield Sent(due.item.index, due.item.pts_ns, encoded_ns, due.due_ns, now_ns)
        free_ns = now_ns + cost.send_ns
        encoded_ns = next_encoded_ns


def simulate(
    clip: str | Path | Iterable[float] | float,
    *,
    pacer: str | Pacer | type[Pacer] = "deadline",
    seconds: float = 60.0,
    seed: int = 1,
    work: Work | float | None = None,
    width: int = 640,
    quality: int = 80,
    network: Network | None = None,
    delay: float = 0.0,
    playout_delay: float | Literal["adaptive"] | Target | type[PlayoutDelay] = 0.1,
    repair: Literal["rtx", "fec"] | None = None,
    parity: float = 0.25,
    spread: float = 0.0,
    rate_control: str | RateController | type[RateController] | None = None,
) -> Trace:
    """Pace `seconds` of a clip in virtual time and play it out; the record is as a real run's.

    `clip` is a path (its timestamps are read, its frames are not decoded; it loops), a number of frames a second, or
    presentation times in seconds. `work` is what a frame costs the sender before it leaves, in seconds, or a function
    of a `random.Random` that says so for each; without it, each frame's encoding, sending and lateness are drawn from
    those of a real server, recorded at 400 and at 640 pixels: the nearer to `width` counts. `seed` is the work's.

    With a `network`, frames are cut into packets of at most 1,200 bytes, as large as the sample clips' are at `width`
    and `quality` (those of count.mp4 stand for any other clip's), and the record has a row for each. What is lost comes
    of the network's own seed: it is what `server.network` loses of its first client's packets. Without one, frames
    travel whole and arrive `delay` seconds later, and there are no rows of packets.

    `repair`, `parity`, `spread`, `rate_control` and `playout_delay` are as a client and a server have them, and want a
    network to matter. NACKs and reports, two a second, take the network's delay on their way back and are not lost.

    A pacer that stands still for ever ends the run. ValueError for what cannot be. A part of one's own that fails,
    returns what makes no sense or takes over 2 s of real time for a call raises PartError, a ValueError that names it.
    """
    with Guard(lambda words: print(words, file=sys.stderr)) as guard:  # noqa: T201 - nothing else can say it
        return _simulated(
            clip,
            pacer,
            seconds,
            seed,
            work,
            width,
            quality,
            network,
            delay,
            playout_delay,
            repair,
            parity,
            spread,
            rate_control,
            guard.call,
        )


def _simulated(
    clip: str | Path | Iterable[float] | float,
    pacer: str | Pacer | type[Pacer],
    seconds: float,
    seed: int,
    work: Work | float | None,
    width: int,
    quality: int,
    network: Network | None,
    delay: float,
    playout_delay: Any,
    repair: Literal["rtx", "fec"] | None,
    parity: float,
    spread: float,
    rate_control: str | RateController | type[RateController] | None,
    call: Call,
) -> Trace:
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be more than 0 and finite, not {seconds}")
    if not 0 <= delay < math.inf:
        raise ValueError(f"delay must be 0 or more seconds, not {delay}")
    own_delay = own_target(playout_delay)
    in_range = isinstance(playout_delay, int | float) and 0 <= playout_delay < math.inf
    if not own_delay and playout_delay != "adaptive" and not in_range:
        raise ValueError(f"playout_delay must be 0 or more seconds or 'adaptive', not {playout_delay!r}")
    check_repair(repair), check_overhead(parity), check_spread(spread)
    controller = controller_named(rate_control)
    if network is None and (repair is not None or spread or controller is not None):
        raise ValueError(
            "repair, spread and rate_control are for packets, and there are none without a network: give network="
        )
    if network is not None and delay:
        raise ValueError(f"delay is one of the network's own settings: give network=Network(delay={delay:g}, ...)")
    if network is not None and not isinstance(network, Network):
        raise TypeError(f"network must be an avlab.Network, not {network!r:.60}")
    chance = random.Random(seed)
    cost = _cost(work, width, chance)
    times, rate = _presentation_times(clip)
    name = Path(clip).name if isinstance(clip, str | Path) else ""
    sizes = (0,) if network is None else frame_bytes(name, width, quality)
    recorder = Recorder(side="simulation", epoch_ns=0, clock=f"virtual:{seed}", spill=Scratch())
    recorder.meta |= {"clip": str(clip) if name else "times", "target_fps": rate, "seed": seed}
    pace = pacer_named(pacer)
    recorder.setting(0, "pacer", pacer_name(pace))
    said = named(playout_delay if callable(playout_delay) else type(playout_delay)) if own_delay else playout_delay
    recorder.setting(0, "playout_delay", said)
    if network is not None:
        made = {"width": width, "quality": quality, "network": str(network), "repair": repair, "spread": spread}
        for setting, chosen in made.items():
            recorder.setting(0, setting, chosen)
    until_ns = round(seconds * NS)
    offered = (_Offered(*numbered) for numbered in enumerate(takewhile(lambda pts_ns: pts_ns < until_ns, times)))
    departures = _departures(offered, Seat(pace, call=call), cost, recorder)
    clock = VirtualClock()
    way = Impairment(Network(delay=delay) if network is None else network, describe=seen, call=call)
    frame_ns = round(NS / rate) if rate else NS // 30
    sender = Packetizer(way, frame_ns=frame_ns, spread=spread, repair=repair, parity=parity)
    adaptive = own_delay or playout_delay == "adaptive"
    delay_ns = None if adaptive else round(playout_delay * NS)
    steering = Steering(OwnTarget(playout_delay, call=call) if own_delay else None) if adaptive else None
    back_ns = round(way.network.steady_delay * NS)
    receiver = Receiver(
        way,
        recorder,
        delay_ns=delay_ns,
        steering=steering,
        packets=network is not None,
        ssrc=SSRC,
        repair=repair,
        ask=lambda numbers, now_ns: sender.ask(numbers, now_ns + back_ns),
    )
    recorder.meta["repair_ssrcs"] = [receiver.repair_ssrc]
    reports = None if controller is None else Reports(controller, Choice(quality, width), way, sender, receiver, call)
    leaving = next(departures, None)
    while True:
        if leaving is not None and leaving.sent_ns is None:
            recorder.frame(leaving.row("in_flight"))
            leaving = next(departures, None)
            continue
        wake_ns, sender_ns = receiver.wake_at(), sender.wake_at()
        if sender_ns is not None and (wake_ns is None or sender_ns <= wake_ns):
            wake_ns = sender_ns
        if leaving is not None and leaving.sent_ns is not None and (wake_ns is None or leaving.sent_ns < wake_ns):
            clock.sleep_until(leaving.sent_ns)
            if reports is not None and (choice := reports.choice(leaving.sent_ns)) is not None:
                sizes = frame_bytes(name, choice.width, choice.quality)
                for setting, chosen in zip(("quality", "width"), choice, strict=True):
                    recorder.setting(leaving.sent_ns, setting, chosen)
            leaving.scan = sizes[leaving.index % len(sizes)]
            receiver.expect(leaving)
            sender.send(leaving)
            leaving = next(departures, None)
        elif wake_ns is not None:
            clock.sleep_until(wake_ns)
            if wake_ns == sender_ns:
                sender.move_along(clock.now_ns())
            else:
                receiver.move_along(clock.now_ns())
        else:
            break
    receiver.close(clock.now_ns())
    recorder.meta["end_ns"] = clock.now_ns()
    return recorder.trace()


def _cost(work: Work | float | None, width: int, chance: random.Random) -> Callable[[], FrameWork]:
    """What gives each frame's cost: drawn from the record, or as asked."""
    if work is None:
        return partial(next, _drawn(recorded_work(width), chance))
    if not callable(work):
        same = FrameWork(0, _work_ns(work), 0)
        return lambda: same
    return lambda: FrameWork(0, _work_ns(work(chance)), 0)


def _drawn(rows: tuple[FrameWork, ...], chance: random.Random) -> Iterator[FrameWork]:
    """Stretches of the record, about `STRETCH` frames each: a machine that is late once is often late again."""
    while True:
        at = chance.randrange(len(rows))
        for offset in range(chance.randrange(1, 2 * STRETCH)):
            yield rows[(at + offset) % len(rows)]


def recorded_work(width: int) -> tuple[FrameWork, ...]:
    """What frames cost a real server at the recorded width nearest to `width`. FileNotFoundError without the record."""
    tables = _recorded()
    return tables[min(tables, key=lambda recorded: abs(recorded - width))]


@cache
def _recorded() -> dict[int, tuple[FrameWork, ...]]:
    if not RECORDED.is_file():
        raise FileNotFoundError(f"the recorded work times {RECORDED} are not here: install avlab anew, or give work=")
    tables: dict[int, list[FrameWork]] = {}
    for row in csv.DictReader(RECORDED.read_text(encoding="utf-8").splitlines()):
        cost = FrameWork(*(round(float(row[name]) * 1e6) for name in ("encode_ms", "late_ms", "send_ms")))
        tables.setdefault(int(row["width"]), []).append(cost)
    return {width: tuple(rows) for width, rows in tables.items()}


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
