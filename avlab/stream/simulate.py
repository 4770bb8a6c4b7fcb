"""A run in virtual time: the machines of a real one, no threads, no sockets, no codecs. Bit-identical for a seed."""

from __future__ import annotations

import csv
import heapq
import inspect
import math
import random
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from avlab.core.repairing import check_repair
from avlab.measure.record.join import merged
from avlab.measure.record.scratch import Scratch
from avlab.measure.record.trace import Recorder, Trace
from avlab.media.codec import check_quality, check_width
from avlab.media.packets import open_clip, picture_stream, picture_ticks
from avlab.media.sources import open_source
from avlab.network.ownnetwork import kept_going
from avlab.network.ownrepair import OwnRepair
from avlab.network.parity import check_overhead
from avlab.network.ratecontrol import RateController, controller_name, controller_named
from avlab.network.settings import MOST_S, Network, meant
from avlab.parts import (
    Call,
    JitterBuffer,
    Pacer,
    PartEndedError,
    PartError,
    PartWarning,
    PlayoutDelay,
    Target,
    gone_on,
    named,
)
from avlab.stream.guard import Guard
from avlab.stream.recorded_sizes import STAND_IN, frame_bytes, sizes_of
from avlab.stream.virtual.collector import full_collections_put_off
from avlab.stream.virtual.departures import DepartingFrame, FrameWork, departures
from avlab.stream.virtual.device import Device
from avlab.stream.virtual.driver import NEVER, RunSettings, VirtualRun
from avlab.stream.virtual.filler import Sound
from avlab.stream.virtual.ownpictures import OwnPictures
from avlab.timing.ownbuffer import check_own_buffer
from avlab.timing.pacing import pacer_named
from avlab.timing.playout import DEFAULT_DELAY_NS
from avlab.timing.seat import Seat, pacer_name
from avlab.timing.spreading import check_spread
from avlab.timing.target import OwnTarget, own_target
from avlab.wire.rtp import MAX_PACKET, check_packet_size
from avlab.wire.text import nearest, spelt
from avlab.wire.units import NS

Work = Callable[[random.Random], float]
"""Seconds of work that one frame costs its sender before it leaves, from a seeded generator."""

RECORDED: Traversable = files("avlab.data") / "work.csv"
"""What frames cost a real server; README.md beside it says how it was recorded."""

STRETCH = 30
"""Frames in a row that are drawn from the record together, on average."""


@spelt
def simulate(
    clip: str | Path | Iterable[float] | float,
    *,
    pacer: str | Pacer | type[Pacer] = "deadline",
    seconds: float = 60.0,
    seed: int = 1,
    work: Work | float | None = None,
    width: int = 640,
    quality: int = 80,
    network: Network | Sequence[tuple[float, Network]] | None = None,
    delay: float = 0.0,
    playout_delay: float | Literal["adaptive"] | Target | type[PlayoutDelay] = 0.1,
    jitter_buffer: type[JitterBuffer] | None = None,
    repair: Literal["rtx", "fec"] | type[Any] | None = None,
    parity: float = 0.25,
    spread: float = 0.0,
    packet_size: int = MAX_PACKET,
    rate_control: str | RateController | type[RateController] | None = None,
    payload: Any = None,
    codec: Any = None,
    audio: bool | Device = True,
) -> Trace:
    """Pace, send, receive and play out a clip in virtual time; the record is as a real run's.

    Frames as large as the clip's own are at `width` and `quality` are cut into packets, and so is sound. A clip is
    measured when it is first simulated, in some seconds, and its sizes are kept in the user's cache folder; the
    sample clips' come with avlab, and count.mp4's stand for what is no clip. What is lost comes of the network's
    own seed: it is what `server.network` loses of its first client's packets. NACKs and reports, two a second, take
    the network's way up, as on sockets: its delay, its jitter and its loss. A pacer that stands still for ever ends
    the run. A part of your own that fails, returns what makes no sense or takes over 1.5 s of real time for a call
    is replaced by the default: a `PartWarning` names it, and the record has an event "part failed".

    Args:
        clip: A path (its timestamps are read, its frames are not decoded; it loops), a number of frames a second, or
            presentation times in seconds.
        pacer: When frames leave; as `Server` has it.
        seconds: How many seconds of the clip, more than 0.
        seed: Of the draws of `work`: the same seed, the same run.
        work: What a frame costs the sender before it leaves: seconds, or a function of a `random.Random` that says so
            for each. None draws each frame's encoding, sending and lateness from those of a real server, recorded at
            400 and at 640 pixels: the nearer to `width` counts.
        width: Pixels, 16 to 2040.
        quality: JPEG quality, 1 to 100.
        network: What happens on the way, both ways. Without one, frames travel whole and arrive `delay` seconds later,
            and there are no rows of packets. A list of (seconds, Network), as `[(0, wide), (10, narrow)]`, is a network
            that becomes another at these times, as it does when `server.network` is set; they begin with 0 and rise.
        delay: Seconds that frames take without a network, 0 or more.
        playout_delay: Seconds from the arrival of what came quickest to its presentation, "adaptive" or your own; as
            `Client` has it.
        jitter_buffer: A class of your own in place of avlab's; as `Client` has it.
        repair: What brings back lost packets: "rtx", "fec" or a class of your own; as `Client` and `Server` have it.
            It takes a network, as do `parity`, `spread` and `rate_control`.
        parity: Parity packets for each packet with `repair="fec"`, 0 to 1.
        spread: The share of a frame's time over which its packets leave, 0 to 0.95.
        packet_size: How many bytes an RTP packet has at most, 576 to 65,000.
        rate_control: What chooses quality and width from reports; as `Server` has it.
        payload: A payload format of your own, as both sides have it; it takes a network.
        codec: A codec of your own, as both sides have it; it takes a network, and `clip` has to be a path. It encodes
            the first 100 pictures, and their sizes are those of all; nothing is decoded.
        audio: Whether a path's sound, where it has any, takes part: over TCP, in chunks of 40 ms of the clip's own
            format, it shares the bottleneck with the pictures, and these keep to what is heard. A `Device` says which
            blocks are asked for, how long before they are heard, and by which clock.

    Returns:
        Trace: What both sides recorded, joined.

    Raises:
        ValueError: A setting is outside its range, or does not go with another.
        TypeError: A part has not the methods that it needs.
        FileNotFoundError: There is no such clip.
    """
    failures: list[PartWarning] = []
    with full_collections_put_off(), Guard(_stands_still(beyond=1)) as guard:
        parts = _Parts(guard.call, failures.append)
        trace = _simulated(
            clip,
            pacer=pacer,
            seconds=seconds,
            seed=seed,
            work=work,
            width=width,
            quality=quality,
            network=network,
            delay=delay,
            playout_delay=playout_delay,
            jitter_buffer=jitter_buffer,
            repair=repair,
            parity=parity,
            spread=spread,
            packet_size=packet_size,
            rate_control=rate_control,
            payload=payload,
            codec=codec,
            audio=audio,
            parts=parts,
        )
    for failure in failures:
        warnings.warn(failure, stacklevel=3)  # of whoever has called what `spelt` has made of this
    return trace


def simulate_strictly(clip: Any, **settings: Any) -> Trace:
    """As `simulate`, but for a part that fails: it ends the run with PartError, for whoever judges parts."""

    def ended(failure: PartWarning) -> None:
        raise failure.error

    with full_collections_put_off(), Guard(_stands_still()) as guard:
        return _simulated(clip, **{**_DEFAULTS, **settings}, parts=_Parts(guard.call, ended))


def _stands_still(*, beyond: int = 0) -> Callable[[str], None]:
    """What warns of a part that does not return, while it does not: at the line that has called the simulation.

    That is `beyond` so many calls between.
    """
    caller = sys._getframe(2 + beyond)
    where = caller.f_code.co_filename, caller.f_lineno

    def warn(words: str) -> None:  # from the watching thread, which has no such line
        warnings.warn_explicit(PartWarning(words, PartEndedError(words)), PartWarning, *where)

    return warn


_DEFAULTS: dict[str, Any] = {
    setting.name: setting.default
    for setting in inspect.signature(simulate).parameters.values()
    if setting.kind is setting.KEYWORD_ONLY
}


class _Parts:
    """How anyone's own parts are called, and what is done when one has failed."""

    def __init__(self, call: Call, tell: Callable[[PartWarning], None]) -> None:
        self.call, self._tell = call, tell
        self._ours: Recorder | None = None
        self._now_ns: Callable[[], int] = lambda: 0

    def record(self, recorder: Recorder, now_ns: Callable[[], int]) -> None:
        """Where a failure is written down from now on, and at which moment."""
        self._ours, self._now_ns = recorder, now_ns

    def failed(self, instead: str) -> Callable[[PartError], None]:
        """Tells that one has failed, and what there is instead."""

        def tell(error: PartError) -> None:
            words = gone_on(error, instead)
            self._tell(PartWarning(words, error))
            if self._ours is not None:
                self._ours.event(self._now_ns(), "part failed", words)

        return tell


def simulate_together(streams: Mapping[str, Any], **settings: Any) -> dict[str, Trace]:
    """Several streams in one virtual time, which may share a bottleneck: the trace of each, by its name.

    `streams` has each one's own settings, as {"a": {"clip": 30, "rate_control": "aimd"}, "b": {"clip": 30}}, or its
    clip alone; `settings` are those of all, as `simulate` has them. What each does is what it would do alone, but for
    the `avlab.Bottleneck` that is in the network of several. ValueError for no streams, TypeError for a setting that
    there is not; else as `simulate`.

    Args:
        streams: Each stream's own settings by its name, or its clip alone.
        settings: Settings of all streams, as `simulate` has them.
    """
    if not isinstance(streams, Mapping) or not streams:
        raise ValueError(
            "streams must have each stream's settings by its name, as {'a': {'clip': 30}, 'b': {'clip': 30}}"
        )
    each = {
        str(name): {**settings, **(own if isinstance(own, Mapping) else {"clip": own})} for name, own in streams.items()
    }
    for name, chosen in each.items():
        if "clip" not in chosen:
            raise ValueError(f"stream {name!r} has no clip: give it one, as {{{name!r}: {{'clip': 30}}}}")
        unknown = next((setting for setting in chosen if setting != "clip" and setting not in _DEFAULTS), None)
        if unknown is not None:
            raise TypeError(f"simulate has no setting {unknown!r}{nearest(unknown, _DEFAULTS)}")
        _restart(chosen.get("network"))
    failures: list[PartWarning] = []
    made: dict[str, Trace] = {}
    with full_collections_put_off(), Guard(_stands_still()) as guard:
        going = {
            name: _simulating(**{**_DEFAULTS, **chosen}, parts=_Parts(guard.call, failures.append))
            for name, chosen in each.items()
        }
        due = [(0, place, name) for place, name in enumerate(going)]  # the moment that is each one's next
        while due:
            _, place, name = due[0]
            try:
                heapq.heapreplace(due, (next(going[name]), place, name))
            except StopIteration as ended:
                heapq.heappop(due)
                made[name] = ended.value
    for failure in failures:
        warnings.warn(failure, stacklevel=2)
    return {name: made[name] for name in each}


def _restart(network: Any) -> None:
    stages = network if isinstance(network, list | tuple) else [(0, network)]
    for one in (part for stage in stages if isinstance(stage, tuple) for part in stage):
        if isinstance(one, Network) and one.bottleneck is not None:
            one.bottleneck.restart()


def _simulated(clip: Any, *, network: Any, **settings: Any) -> Trace:
    _restart(network)
    going = _simulating(clip, network=network, **settings)
    try:
        next(going)
        while True:
            going.send(NEVER)
    except StopIteration as ended:
        trace: Trace = ended.value
        return trace


def _simulating(
    clip: str | Path | Iterable[float] | float,
    *,
    pacer: str | Pacer | type[Pacer],
    seconds: float,
    seed: int,
    work: Work | float | None,
    width: int,
    quality: int,
    network: Network | Sequence[tuple[float, Network]] | None,
    delay: float,
    playout_delay: Any,
    jitter_buffer: Any,
    repair: Literal["rtx", "fec"] | type[Any] | None,
    parity: float,
    spread: float,
    packet_size: int,
    rate_control: str | RateController | type[RateController] | None,
    payload: Any,
    codec: Any,
    audio: bool | Device,
    parts: _Parts,
) -> Generator[int, int | None, Trace]:
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be more than 0 and finite, not {seconds}")
    if not 0 <= delay < math.inf:
        raise ValueError(f"delay must be 0 or more seconds, not {delay}")
    own_delay = own_target(playout_delay)
    in_seconds = isinstance(playout_delay, int | float)
    if not own_delay and playout_delay != "adaptive" and not (in_seconds and 0 <= playout_delay <= 5):
        asked = meant(playout_delay, 5) if in_seconds and playout_delay > 5 else ""
        raise ValueError(f"playout_delay must be 0 to 5 seconds or 'adaptive', not {playout_delay!r}{asked}")
    check_own_buffer(jitter_buffer)
    own_repair, kind = None, None
    if isinstance(repair, type):
        own_repair = OwnRepair(repair, call=parts.call, failed=parts.failed("The stream goes on without it"))
        kind = check_repair("rtx" if own_repair.asks else None)
    else:
        kind = check_repair(repair)
    check_overhead(parity), check_spread(spread), check_packet_size(packet_size)
    controller = controller_named(rate_control)
    if network is None and (repair is not None or spread or controller is not None or packet_size != MAX_PACKET):
        raise ValueError(
            "repair, spread, packet_size and rate_control are for packets, and there are none without a network: give "
            "network="
        )
    if network is None and (payload is not None or codec is not None):
        raise ValueError("payload and codec make packets, and there are none without a network: give network=")
    if codec is not None and not isinstance(clip, str | Path):
        raise ValueError("a codec wants pictures to encode: give the path of a clip")
    if network is not None and delay:
        raise ValueError(f"delay is one of the network's own settings: give network=Network(delay={delay:g}, ...)")
    networks = _networks(Network(delay=delay) if network is None else network)
    if not isinstance(audio, bool | Device):
        raise TypeError(f"audio must be True, False or a Device, not {audio!r:.60}")
    cost = cost_of(work, width, random.Random(seed))
    times, rate, sound = _read(clip)
    name = Path(clip).name if isinstance(clip, str | Path) else ""
    ours, theirs = (Recorder(side=side, epoch_ns=0, clock="virtual", spill=Scratch()) for side in ("server", "client"))
    parts.record(ours, lambda: 0)
    pace = pacer_named(pacer)
    ours.setting(0, "pacer", pacer_name(pace))
    said = named(playout_delay if callable(playout_delay) else type(playout_delay)) if own_delay else playout_delay
    ours.setting(0, "playout_delay", said)
    check_width(width), check_quality(quality)
    if network is not None:
        frame_bytes(STAND_IN, width, quality)  # FileNotFoundError without the table
        made = {"width": width, "quality": quality, "network": str(networks[0][1]), "spread": spread}
        made |= {"packet_size": packet_size}
        made["repair"] = named(repair) if isinstance(repair, type) else repair
        made |= {"rate_control": controller_name(controller)} if controller is not None else {}
        for setting, chosen in made.items():
            ours.setting(0, setting, chosen)
    adaptive = own_delay or playout_delay == "adaptive"
    target = None
    if own_delay:
        instead = f"The playout delay is {DEFAULT_DELAY_NS / NS:g} s now"
        target = OwnTarget(playout_delay, call=parts.call, failed=parts.failed(instead))
    buffer = None
    if jitter_buffer is not None:
        ours.setting(0, "jitter_buffer", named(jitter_buffer))
        buffer = jitter_buffer, parts.failed("avlab's own jitter buffer has taken over")
    pictures = None
    if payload is not None or codec is not None:
        sizes = sizes_of(clip if name else None)
        pictures = OwnPictures(payload=payload, codec=codec, sizes=sizes, call=parts.call, failed=parts.failed)
        for setting, part in (("payload", payload), ("codec", codec)):
            if part is not None:
                ours.setting(0, setting, named(part if isinstance(part, type) else type(part)))
        if codec is not None and isinstance(clip, str | Path):
            pictures.encode(clip, width=width, quality=quality)
    settings = RunSettings(
        networks=tuple(
            (at_ns, kept_going(way, parts.call, parts.failed("The stream goes on without it")))
            for at_ns, way in networks
        ),
        whole=network is None,
        until_ns=(until_ns := round(seconds * NS)),
        interval_ns=round(NS / rate) if rate else NS // 30,
        width=width,
        quality=quality,
        sizes=partial(frame_bytes, STAND_IN) if network is None else sizes_of(clip if name else None),
        sound=sound if audio else None,
        device=audio if isinstance(audio, Device) else Device(),
        delay_ns=None if adaptive else round(playout_delay * NS),
        target=target,
        buffer=buffer,
        repair=kind,
        own_repair=own_repair,
        parity=parity,
        spread=spread,
        pictures=pictures,
        packet_size=packet_size,
        call=parts.call,
    )
    offered = (DepartingFrame(*numbered) for numbered in enumerate(takewhile(lambda pts_ns: pts_ns < until_ns, times)))
    seat = Seat(pace, call=parts.call, failed=parts.failed("Frames are sent by their deadlines now"))
    run = VirtualRun(settings, departures(offered, seat, cost, ours), ours, theirs)
    parts.record(ours, run.now_ns)
    if controller is not None:
        run.adapt(controller, call=parts.call, failed=parts.failed("Quality and width stay as they are"))
    yield from run.moments()
    theirs.meta["end_ns"] = run.now_ns()
    meta = {
        "clip": str(clip) if name else "times",
        "target_fps": rate,
        "audio_rate": settings.sound.rate if settings.sound else None,
        "seed": seed,
        "clock": f"virtual:{seed}",
    }
    return merged(ours.trace(), theirs.trace(), side="simulation", meta=meta)


def _networks(network: Any) -> list[tuple[int, Network]]:
    """When which network begins, in ns. TypeError and ValueError for what is neither one nor a list of them."""
    if isinstance(network, Network):
        return [(0, network)]
    wanted = "an avlab.Network, or a list of (seconds, Network) that begins with 0"
    if not isinstance(network, list | tuple):
        raise TypeError(f"network must be {wanted}, not {network!r:.60}")
    networks: list[tuple[int, Network]] = []
    for stage in network:
        pair = isinstance(stage, list | tuple) and len(stage) == 2
        if not (pair and isinstance(stage[1], Network) and isinstance(stage[0], int | float)):
            raise TypeError(f"network must be {wanted}, and {stage!r:.60} is no such pair")
        if not (0 <= stage[0] < math.inf and (stage[0] * NS > networks[-1][0] if networks else stage[0] == 0)):
            raise ValueError(f"the times of network must begin with 0 and rise, and {stage[0]:g} does not fit")
        networks.append((round(stage[0] * NS), stage[1]))
    if not networks:
        raise ValueError(f"network must be {wanted}; this list is empty")
    return networks


def cost_of(work: Work | float | None, width: int, chance: random.Random) -> Callable[[], FrameWork]:
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
    tables = recorded_costs()
    return tables[min(tables, key=lambda recorded: abs(recorded - width))]


@cache
def recorded_costs() -> dict[int, tuple[FrameWork, ...]]:
    """The recorded work times of each width in pixels. FileNotFoundError where they are missing."""
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
    if seconds > MOST_S:
        raise ValueError(f"work must be at most {MOST_S} seconds a frame, not {seconds}{meant(seconds, MOST_S)}")
    return round(seconds * NS)


def _read(clip: Any) -> tuple[Iterator[int], float | None, Sound | None]:
    """Endless presentation times in ns, the frames a second that they aim at, and what sound there is."""
    if isinstance(clip, int | float) and not isinstance(clip, bool):
        if not clip > 0:
            raise ValueError(f"a number of frames a second must be more than 0, not {clip}")
        return (round(n * NS / clip) for n in count()), float(clip), None
    if isinstance(clip, str | Path):
        try:
            found = Path(clip).stat()
            version = str(Path(clip).absolute()), found.st_mtime_ns, found.st_size
        except OSError:
            version = None  # opening it says what is the matter
        timing = _timing(str(clip), version)
        return _repeated(timing.times_ns, timing.duration_ns), timing.fps, timing.sound
    return (round(seconds * NS) for seconds in clip), None, None


class _Timing(NamedTuple):
    """What a run takes from a clip: its timestamps, and what sound there is."""

    times_ns: tuple[int, ...]
    """The pictures' presentation times."""
    duration_ns: int | None
    fps: float | None
    sound: Sound | None


@lru_cache(maxsize=32)
def _timing(path: str, version: tuple[str, int, int] | None) -> _Timing:
    """Read once for a thousand runs of one clip; `version` is where it is, when it was modified, and its size."""
    source = open_source(path)
    sound = None
    if source.rate is not None and source.channels is not None:
        sound = Sound(source.rate, source.channels)
    fps = float(source.fps) if source.fps else None
    return _Timing(tuple(picture_times_ns(path)), source.duration_ns, fps, sound)


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
