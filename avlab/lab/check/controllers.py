"""A student's rate controller: let meet bottlenecks in simulated time, some of which come while it streams."""

from __future__ import annotations

import copy
import random
from typing import Any, NamedTuple

from avlab.lab.check.patience import Patience, WrongError, judged
from avlab.lab.check.words import name, said, sentence, short, told
from avlab.lab.predictions import Verdict
from avlab.measure.numbers import metrics
from avlab.measure.record.trace import Trace
from avlab.media.codec import check_quality, check_width
from avlab.network.ratecontrol import Choice, Report
from avlab.network.settings import Network
from avlab.stream.simulate import simulate_strictly

FULL_KBPS = 3_300.0
"""What the stream has at the quality and width that it begins with."""

WIDE_KBPS = 8_000.0
"""What a path takes before and after its bottleneck: more than the stream has."""

PACKET_BYTES = 3_600
"""Of the largest packet: a third of the packets, a third of the work, and a controller sees none of them."""

QUEUE_S, DELAY_S = 0.2, 0.02
"""Of each path: what waits longer is dropped; what all packets take."""

LONG_S, LONG_WAIT_MS = 8.0, 2_000.0
"""Of a queue that holds more than will come (bufferbloat), and the usual wait, ms, that may be left in it some seconds
later: it takes time to drain. Whoever waits for a loss has twice as much by then."""

ADAPT_S = 6.0
"""So long after a bottleneck has come it may still cost frames: two reports a second are all that a controller has."""

BEGINS_WITH = Choice(80, 640)
"""Quality and width at first."""

LITTLE = 15
"""A quality below which little is saved any more."""

SHOWN, USED, WAIT_MS, REGAINED = 0.96, 0.65, 60.0, 1.05
"""What is asked for: the share of frames shown, that of the path used, of what is possible; the usual wait in the
queue; and how much more is sent some seconds after the path has become wide again."""


class _TestPath(NamedTuple):
    """A run: what the path takes, from `narrow_s` to `wide_s`; before and after that it is wide."""

    kbps: float
    narrow_s: float
    wide_s: float
    seconds: float
    queue_s: float = QUEUE_S

    @property
    def long(self) -> bool:
        """Whether nothing is lost before it, however long the queue becomes."""
        return self.queue_s == LONG_S

    @property
    def most_wait_ms(self) -> float:
        """The usual wait that may be left in a long queue: more where it grows more quickly."""
        grows = FULL_KBPS / self.kbps - 1
        return LONG_WAIT_MS * min(1.0, grows / 0.5) * max(1.0, grows / 0.74)

    def __str__(self) -> str:
        if not self.narrow_s:
            return f"on a path of {self.kbps:,.0f} kbit/s"
        return f"when the path takes {self.kbps:,.0f} kbit/s from {self.narrow_s:.0f} to {self.wide_s:.0f} s"

    def networks(self) -> list[tuple[float, Network]]:
        """As `simulate` takes them."""
        wide, narrow = (Network(rate=rate, queue=self.queue_s, delay=DELAY_S) for rate in (WIDE_KBPS, self.kbps))
        begins = [(0.0, wide), (self.narrow_s, narrow)] if self.narrow_s else [(0.0, narrow)]
        return begins + ([(self.wide_s, wide)] if self.wide_s < self.seconds else [])


def controller(
    work: Any, *, rate: float | None = None, full: bool = False, seconds: float | None = None, seed: int = 1
) -> Verdict:
    """Let a student's rate controller meet bottlenecks in simulated time, and say what is wrong, or how well it does.

    What it must be is told by `RateController`: a class or object with `update(report)`, which returns a `Choice` or
    None. It streams over three paths that are wide at first: one becomes a bottleneck after two seconds, and wide again
    after twelve; the other one stays wide for longer, and then narrow, so that no timetable does for both. A third has
    so long a queue that nothing is ever lost, and a controller which waits for that never learns of it. The bottlenecks
    take 1,800 to 2,700 kbit/s, as `seed` draws it, or `rate`. With `full` or `seconds` there is one path, narrow to the
    end of its run (20 s): `full` from the first moment on, so that nobody has ever seen its short round trip. Frames
    are to be shown, packets not to wait, and the path to be used, as far as it is possible there. Of a class one object
    is made for each path; an object is copied. ValueError for a rate that the whole stream has room in.

    Args:
        work: The rate controller, an object or its class.
        rate: Kilobits a second that the bottlenecks take; None for what `seed` draws.
        full: Whether there is one path, and its bottleneck from the beginning.
        seconds: Length of the one path's run; None for 20, or for the three paths.
        seed: Draws the bottlenecks and the losses.
    """
    if rate is not None and not 0 < rate < FULL_KBPS:
        text = f"the stream has {FULL_KBPS:,.0f} kbit/s, so a bottleneck takes less, and more than 0"
        raise ValueError(f"{text}, and not {rate:,.0f}")
    chance = random.Random(seed)
    rates = [float(chance.randrange(*between)) for between in ((1_800, 2_100), (2_300, 2_700))]
    chance.shuffle(rates)
    first, second, third = (*rates, float(chance.randrange(1_900, 2_200))) if rate is None else (float(rate),) * 3
    if full or seconds is not None:
        length_s = 20.0 if seconds is None else float(seconds)
        paths = [_TestPath(first, 0.0 if full else min(2.0, length_s / 4), length_s, length_s)]
    else:
        ends_s = chance.uniform(12.0, 13.0)
        paths = [_TestPath(first, chance.uniform(1.5, 2.5), ends_s, ends_s + 7.0)]
        ends_s = chance.uniform(19.0, 20.0)
        paths.append(_TestPath(second, chance.uniform(7.0, 8.0), ends_s, ends_s))
        begins_s = chance.uniform(1.5, 2.5)
        ends_s = begins_s + chance.uniform(9.5, 10.0)
        paths.append(_TestPath(third, begins_s, ends_s, ends_s, LONG_S))
    return judged(work, lambda patience: _controller(work, paths, patience))


class _Judged:
    """A rate controller whose choices are looked at before they count."""

    def __init__(self, work: Any, patience: Patience) -> None:
        self.name = name(type(work))
        self.choices: set[Choice] = set()
        self.chosen: list[tuple[float, Choice]] = []
        self._patience = patience
        update: Any = getattr(work, "update", None)
        if not callable(update):
            raise WrongError(f"{short(work)} is no controller: it wants a class with a method update(self, report).")
        self._update = update

    def usual(self, begin: float, end: float) -> Choice:
        """What it had chosen in the middle of a stretch of a run, from the least to the most."""
        between = sorted(choice for time, choice in self.chosen if begin <= time < end)
        return between[len(between) // 2] if between else BEGINS_WITH

    def update(self, report: Report, /) -> Choice | None:
        try:
            given = self._patience.call(self._update, report)
        except WrongError:
            raise
        except Exception as error:
            raise WrongError(f"{self.name}.update fails with {told(error)}, when it is given {report}.") from error
        if given is ...:
            raise WrongError(f"{self.name}.update is not written yet: put your own in place of ...")
        if given is None:
            return None
        try:
            quality, width = given
            check_quality(quality)
            check_width(width)
        except Exception as error:
            text = "it is to return Choice(quality=..., width=...), or None"
            raise WrongError(f"{self.name}.update returned {short(given)}: {text}. {sentence(said(error))}") from error
        self.choices.add(Choice(quality, width))
        self.chosen.append((report.time, Choice(quality, width)))
        return Choice(quality, width)


class _Part(NamedTuple):
    """What became of a stretch of a run."""

    shown: float
    kbps: float
    wait_ms: float


def _part(trace: Trace, begin: float, end: float) -> _Part:
    frames, delays, packets = trace.frames, metrics.one_way_delay(trace), trace.packets
    frames = frames[(frames["stream"] == "video") & (frames["pts"] >= begin) & (frames["pts"] < end)]
    waits = delays.loc[(delays["time"] >= begin) & (delays["time"] < end), "delay_ms"]
    came = (packets["stream"] == "video") & (packets["received"] >= begin) & (packets["received"] < end)
    shown = float((frames["fate"] == "shown").mean()) if len(frames) else 0.0
    wait_ms = float(waits.median()) - 1e3 * DELAY_S if len(waits) else 0.0
    return _Part(shown, float(packets.loc[came, "bytes"].sum()) * 8e-3 / (end - begin), wait_ms)


def _controller(work: Any, paths: list[_TestPath], patience: Patience) -> Verdict:
    who = name(work)
    chosen: set[Choice] = set()
    parts: list[tuple[_TestPath, _Part]] = []
    wrong = ""
    for path in paths:
        try:
            judge = _Judged(patience.call(_fresh, work), patience)
        except WrongError:
            raise
        except Exception as error:  # of its making
            return Verdict(False, f"{who} fails with {told(error)}.")
        trace = simulate_strictly(
            30.0, network=path.networks(), rate_control=judge, seconds=path.seconds, packet_size=PACKET_BYTES
        )
        who = judge.name
        if not judge.choices:
            return Verdict(False, f"{who} never chooses anything. Return a Choice when a report is bad.")
        chosen |= judge.choices
        parts.append((path, _part(trace, *_judged_part(path))))
        wrong = wrong or _wrong(who, path, parts[-1][1], trace, judge.usual(*_judged_part(path)))
    if len(chosen) == 1:
        [(quality, width)] = chosen
        words = f"{who} always chooses quality {quality} and width {width}"
        if (quality, width) == BEGINS_WITH and not paths[0].narrow_s:
            # It may well look at what it is told, and has never been told anything else.
            return Verdict(False, f"{words}, which is too much {paths[0]} from the beginning: {_NEVER_SHORT}")
        return Verdict(False, f"{words}, whatever the report says. What does it do when the path becomes another?")
    if wrong:
        return Verdict(False, wrong)
    parts = [(path, part) for path, part in parts if not path.long]
    return Verdict(
        True,
        f"{who} works: on paths of {' and '.join(f'{path.kbps:,.0f}' for path, _ in parts)} kbit/s, "
        f"{min(part.shown for _, part in parts):.0%} of the frames are shown, "
        f"{min(_used(path, part) for path, part in parts):.0%} of the path is used, and packets wait "
        f"{max(part.wait_ms for _, part in parts):.0f} ms before the bottleneck.",
    )


def _judged_part(path: _TestPath) -> tuple[float, float]:
    """The seconds of a run that count: once there was time to adapt."""
    end = min(path.wide_s, path.seconds - 1)
    return min(path.narrow_s + ADAPT_S, (path.narrow_s + end) / 2), end


def _used(path: _TestPath, part: _Part) -> float:
    """How far the path is used, of what is possible: the stream itself has no more than it has."""
    return part.kbps / min(path.kbps, FULL_KBPS)


def _wrong(who: str, path: _TestPath, part: _Part, trace: Trace, usual: Choice) -> str:
    """What is wrong with how a controller does on a path; empty when nothing is."""
    if part.wait_ms > WAIT_MS and part.kbps > 0.95 * path.kbps and usual.quality <= LITTLE:
        size = f"at quality {usual.quality} and a width of {usual.width} pixels it is still too much"
        if not path.long or part.wait_ms > path.most_wait_ms:
            return f"{who} goes down, but not far enough: {path}, and {size}. Can the picture become narrower as well?"
    if path.long:
        if part.wait_ms <= path.most_wait_ms:
            return ""
        words = f"{who} waits for losses, and a long queue has none: {path}, packets wait {part.wait_ms:,.0f} ms in it"
        return f"{words}. {_SOONER}"
    found = f"{part.shown:.0%} of the frames are shown, and {_used(path, part):.0%} of the path is used"
    if part.wait_ms > WAIT_MS:
        return f"{who} lets a queue stand: {path}, packets wait {part.wait_ms:.0f} ms in it. {_SOONER}"
    if part.shown < SHOWN:
        return f"{who} lets the queue overflow: {path}, {found}. {_SOONER}"
    if _used(path, part) < USED:
        return f"{who} is too modest: {path}, {found}. {_AGAIN}"
    if path.wide_s < path.seconds:
        before, after = (_part(trace, end - 1.5, end) for end in (path.wide_s + 2, path.seconds - 0.5))
        if after.kbps < min(0.9 * FULL_KBPS, REGAINED * before.kbps):
            sends = f"it sends {after.kbps:,.0f} kbit/s even {path.seconds - path.wide_s:.0f} s later"
            return f"{who} stays low: {path}, {sends}. {_AGAIN}"
    return ""


_NEVER_SHORT = (
    "the queue was full before the first report came. How would it know a round trip that is short, if it has seen "
    "none?"
)
_AGAIN = "Try more again while the round trip is short."
_SOONER = "The round trip grows before anything is lost: go down when it does."


def _fresh(work: Any) -> Any:
    """A controller that remembers nothing of another run, as far as that can be."""
    if isinstance(work, type):
        return work()
    try:
        return copy.deepcopy(work)
    except Exception:  # it holds something that cannot be copied
        return work
