"""When each frame is sent: absolute deadlines, a nudged delay, or as fast as frames come. Pure: it never waits.

A pacer is a Stage whose items have `pts_ns`; what it gives back are `Due(item, due_ns)`, so that the send error can be
measured against the moment that was meant.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, Protocol, get_args, overload

from avlab.parts import Due, Pacer, PartError, Rule, called, described, missing_methods, named, shown
from avlab.wire.text import spelt
from avlab.wire.units import NS

SHORTEST_NS = 1_000_000
"""A feedback loop's shortest wait. The tutorial's, in whole milliseconds, has none between this and for ever."""

FOREVER_NS = 2**62
"""A moment that never comes, 146 years on: a loop that waits for it still looks after everything else."""


class Timed(Protocol):
    """Anything with a presentation time."""

    @property
    def pts_ns(self) -> int:
        """Presentation time in nanoseconds from the start of the clip."""


AHEAD_NS = 3_000_000
"""How far frames may be ahead of an even rate: each need not be waited for, where there are very many of them."""

MOST_START_S = 10
"""The longest first delay, in seconds: what is more was milliseconds."""


@spelt
class DeadlinePacer:
    """Each frame at start + pts on an absolute clock: an error in one frame's moment never reaches the next.

    A frame that comes late leaves at once. Without `restart`, the first frame pushed sets the start.
    """

    name = "deadline"
    keeps_deadlines = True  # a sender that falls behind for long skips frames

    def __init__(self) -> None:
        self._start_ns: int | None = None
        self._waiting: deque[Any] = deque()

    def restart(self, start_ns: int, /) -> None:
        """Forget what waits; presentation time 0 falls on `start_ns`."""
        self._start_ns = start_ns
        self._waiting.clear()

    def push(self, item: Timed, now_ns: int, /) -> None:
        """Take a frame; frames come in the order of their pts."""
        if self._start_ns is None:
            self._start_ns = now_ns - item.pts_ns
        self._waiting.append(item)

    def wake_at(self) -> int | None:
        """Start + pts of the frame at the head."""
        if not self._waiting or self._start_ns is None:
            return None
        return int(self._start_ns + self._waiting[0].pts_ns)

    def pull(self, now_ns: int, /) -> list[Due]:
        """Every frame whose deadline has come."""
        out: list[Due] = []
        waiting, start_ns = self._waiting, self._start_ns
        while waiting and start_ns is not None and (due_ns := int(start_ns + waiting[0].pts_ns)) <= now_ns:
            out.append(Due(waiting.popleft(), due_ns))
        return out


@spelt
class NoPacing:
    """Every frame at once: what reading a file flat out does to a stream. Due is the moment a frame came.

    Where its sender sets a `limit`, because its clients say that they take no more, frames leave at that rate on
    average: a few at once as long as they are at most `AHEAD_NS` ahead of it.
    """

    name = "none"

    def __init__(self) -> None:
        self.limit: float | None = None
        """Frames a second, above 0; None for as many as come."""
        self._waiting: deque[Due] = deque()
        self._even_ns = 0  # when the next frame would leave at an even rate

    def restart(self, start_ns: int, /) -> None:
        """Forget what waits; frames are not held to any start."""
        self._waiting.clear()
        self.limit, self._even_ns = None, 0

    def push(self, item: Any, now_ns: int, /) -> None:
        """Take a frame; it is due now, unless too many were of late."""
        due_ns = now_ns
        if self.limit is not None:
            even_ns = max(self._even_ns, now_ns)
            due_ns = even_ns if even_ns > now_ns + AHEAD_NS else now_ns
            self._even_ns = even_ns + int(NS / self.limit)
        self._waiting.append(Due(item, due_ns))

    def wake_at(self) -> int | None:
        """The moment the oldest waiting frame came, or may leave."""
        return self._waiting[0].due_ns if self._waiting else None

    def pull(self, now_ns: int, /) -> list[Due]:
        """All that waits and is due."""
        out: list[Due] = []
        while self._waiting and self._waiting[0].due_ns <= now_ns:
            out.append(self._waiting.popleft())
        return out


Stall = Literal["report", "real"]
Edition = Literal["windows", "macos"]


@spelt
class FeedbackPacer:
    """The tutorial's loop around a rule of anyone's: send, measure, ask the rule, wait as long as it says.

    `rule(delay, measured_fps, target_fps)` gets the delay it returned last, and gives the next one, in seconds.
    `measured_fps` is 1 over the time from the end of one send to the end of the next, which is when the next frame is
    pushed: the wait, its lateness and the work of a frame are all in it. The wait starts at the end of a send, so work
    adds to it: nothing here knows of deadlines, and an error in one frame's moment stays in all that follow. The
    first frame leaves at start + pts; the rule is first asked after the second.

    `fps` is the target; without it, it is the mean rate of the timestamps so far. `start` is the first delay in
    seconds; without it, a frame's length. `whole_ms` cuts waits to whole milliseconds as cv2.waitKey does; without it,
    they are for `tutorial_rule` and no other. A rule that remembers may have a method `reset()`, called at each start;
    of a class, one object is made, which is the rule.

    A wait below 1 ms has run out, and waitKey(0) waits for a key for ever. With `stall="report"` the stream goes on:
    `stalls` counts, `notices` has a sentence, and 1 ms is waited and handed to the rule as its delay. With
    `stall="real"` it stands still until `restart`.

    Raises TypeError for a rule that cannot be called with three numbers, and ValueError for settings out of range;
    `push` and `pull` raise PartError, a ValueError, when the rule fails or returns anything but a finite number of
    seconds from 0.

    Args:
        rule: The rule: a function, an object or a class.
        fps: The target in frames a second, more than 0.
        start: The first delay, in seconds from 0.
        whole_ms: Whether waits are cut to whole milliseconds.
        stall: "report" or "real".
        name: What plots and records call it; None for the rule's own.
    """

    keeps_deadlines = False
    """Frames that are behind start + pts are so by the rule's doing: no reason for a server to skip any."""

    def __init__(
        self,
        rule: Rule | type[Rule],
        *,
        fps: float | None = None,
        start: float | None = None,
        whole_ms: bool | None = None,
        stall: Stall = "report",
        name: str | None = None,
    ) -> None:
        if fps is not None and not 0 < fps < math.inf:
            raise ValueError(f"fps must be more than 0 and finite, not {fps}")
        if start is not None and not 0 <= start < math.inf:
            raise ValueError(f"start must be 0 or more seconds and finite, not {start}")
        if start is not None and start > MOST_START_S:
            text = f"start must be at most {MOST_START_S} seconds, not {start}"
            raise ValueError(f"{text}: did you mean {start / 1_000:g} s?")
        if stall not in get_args(Stall):
            raise ValueError(f"stall must be 'report' or 'real', not {stall!r}")
        self.rule = _ready(rule)
        self.name = name or _name(self.rule)
        self.fps, self.start, self._stall = fps, start, stall
        self._whole_ms = rule is tutorial_rule if whole_ms is None else whole_ms
        self._start_ns: int | None = None
        self._forget()

    def restart(self, start_ns: int, /) -> None:
        """Forget what waits and what was measured; presentation time 0 falls on `start_ns`."""
        self._start_ns = start_ns
        reset = getattr(self.rule, "reset", None)
        if reset is not None:
            reset()
        self._forget()

    def push(self, item: Timed, now_ns: int, /) -> None:
        """Take a frame; the one before has been sent by now."""
        self._waiting.append(item)
        if len(self._waiting) == 1:
            self._wake_ns = self._next_wake_ns(item.pts_ns, now_ns)

    def wake_at(self) -> int | None:
        """When the wait is over; 146 years on for a wait that has no end."""
        return self._wake_ns if self._waiting else None

    def pull(self, now_ns: int, /) -> list[Due]:
        """The frame whose wait is over, if any. If others were pushed too soon, the next one's wait starts now."""
        if not self._waiting or self._wake_ns > now_ns:
            return []
        due = Due(self._waiting.popleft(), self._wake_ns)
        self._sent += 1
        if self._waiting:
            self._wake_ns = self._next_wake_ns(self._waiting[0].pts_ns, now_ns)
        return [due]

    def notices(self) -> list[str]:
        """What there is to report since last asked, as sentences: once a start, that the wait has run out."""
        told = list(self._notices)
        self._notices.clear()
        return told

    def _forget(self) -> None:
        self.stalls = 0
        self.delay: float | None = None
        self._waiting: deque[Timed] = deque()
        self._wake_ns = 0
        self._sent = 0
        self._ended_ns: int | None = None  # when the send before the last wait ended
        self._first_pts_ns = 0
        self._notices: list[str] = []

    def _next_wake_ns(self, pts_ns: int, now_ns: int) -> int:
        if not self._sent:
            self._first_pts_ns = pts_ns
            return now_ns if self._start_ns is None else self._start_ns + pts_ns
        ended_ns, self._ended_ns = self._ended_ns, now_ns
        target = self.fps or self._sent * NS / max(1, pts_ns - self._first_pts_ns)
        if self.delay is None or ended_ns is None:
            self.delay = self._starting_delay(target)
        else:
            self.delay = _checked(self._asked(self.delay, self._measured(now_ns - ended_ns), target), self.rule)
        wait_ns = int(1000 * self.delay) * 1_000_000 if self._whole_ms else round(self.delay * NS)
        if wait_ns < SHORTEST_NS:
            return self._run_out(self.delay, now_ns)
        return now_ns + wait_ns

    def _starting_delay(self, target_fps: float) -> float:
        return 1 / target_fps if self.start is None else self.start

    def _asked(self, delay: float, measured_fps: float, target_fps: float) -> Any:
        """What the rule says; what it raises is told with its name."""
        try:
            return self.rule(delay, measured_fps, target_fps)
        except Exception as error:
            raise PartError(
                f"the rule {_name(self.rule)} failed at delay={delay:g}, measured_fps={measured_fps:g}, "
                f"target_fps={target_fps:g}: {described(error)}"
            ) from error

    def _measured(self, between_ns: int) -> float:
        return NS / max(1, between_ns)

    def _run_out(self, asked: float, now_ns: int) -> int:
        self.stalls += 1
        real = self._stall == "real"
        if self.stalls == 1:
            then = "this stream stands still too, as it was told to" if real else "avlab goes on at 1 ms"
            self._notices.append(
                f"after {self._sent} frames the rule {_name(self.rule)} asks to wait {asked * 1e3:.2g} ms, and below "
                "1 ms there is none: a frame's work takes all of a frame's time, or the rule is wrong. The tutorial's "
                f"window would now wait for a key for ever (waitKey(0)); {then}. "
                "Lower the width or the quality, or play a clip of fewer frames a second"
            )
        if real:
            return FOREVER_NS
        self.delay = SHORTEST_NS / NS
        return now_ns + SHORTEST_NS


@spelt
class TutorialPacer(FeedbackPacer):
    """The tutorial's own loop, with all that is odd about it, to be measured.

    Waits are whole milliseconds. Its "windows" edition starts with half a frame's length, its "macos" edition with a
    whole one; `start`, in seconds, is another first wait. Its stopwatch starts in 1970, so the first measurement says
    0 fps, and the first nudge is always down.

    Args:
        edition: "windows" or "macos".
        fps: The target in frames a second; None for the mean rate of the timestamps.
        start: The first wait, in seconds from 0.
        stall: "report" or "real", as `FeedbackPacer` has it.

    Raises:
        ValueError: There is no such edition, or a number is out of its range.
    """

    def __init__(
        self,
        *,
        edition: Edition = "windows",
        fps: float | None = None,
        start: float | None = None,
        stall: Stall = "report",
    ) -> None:
        if edition not in get_args(Edition):
            raise ValueError(f"edition must be 'windows' or 'macos', not {edition!r}")
        super().__init__(tutorial_rule, fps=fps, start=start, stall=stall, name="tutorial")
        self._edition = edition

    def _starting_delay(self, target_fps: float) -> float:
        if self.start is not None:
            return self.start
        return (0.5 if self._edition == "windows" else 1.0) / target_fps

    def _measured(self, between_ns: int) -> float:
        return 0.0 if self._sent == 2 else super()._measured(between_ns)


def tutorial_rule(delay: float, measured_fps: float, target_fps: float) -> float:
    """The tutorial's rule: a millisecond more when too fast, a millisecond less when too slow, whatever the error.

    Args:
        delay: The delay before this frame, in seconds.
        measured_fps: Frames a second as they left.
        target_fps: Frames a second as they should leave.
    """
    if measured_fps > target_fps:
        return delay + 0.001
    if measured_fps < target_fps:
        return delay - 0.001
    return delay


@overload
def pi_rule(delay: float, measured_fps: float, target_fps: float, /) -> float: ...
@overload
def pi_rule(*, kp: float = 0.1, ki: float = 0.2) -> PiRule: ...
def pi_rule(*measured: float, kp: float = 0.1, ki: float = 0.2) -> PiRule | float:
    """A proportional-integral rule; see `PiRule`. As `pi_rule(kp=0.3)` it is one of other gains.

    Called like any rule, it gives the first delay after the one it is told; a `FeedbackPacer(pi_rule)` has one that
    remembers. ValueError for gains that would make it swing ever wider.

    Args:
        measured: The delay in seconds, the measured and the target rate in frames a second; or nothing.
        kp: Gain of the error of this frame, 0 or more.
        ki: Gain of the errors added up, 0 or more.
    """
    if not measured:
        return PiRule(kp=kp, ki=ki)
    delay, measured_fps, target_fps = measured
    return PiRule(kp=kp, ki=ki)(delay, measured_fps, target_fps)


class PiRule:
    """A proportional-integral rule on the time between frames: the delay moves by ki * error + kp * change of error.

    Errors of frame times, unlike those of fps, add up to the stream's drift; so the integral holds the drift too: it
    comes to rest at (last delay - first delay) / `ki`, and no longer grows; only what a stall takes beyond a frame's
    length is given up, or it would be answered by a burst. `ki` is the part of an error that is made
    good with the next frame, `kp` the weight of its change. The loop waits, then measures, which is a delay of
    one frame: it is stable for -1 < kp < 1 and 0 < ki < 2 (1 - kp).
    """

    def __init__(self, *, kp: float = 0.1, ki: float = 0.2) -> None:
        if not (-1 < kp < 1 and 0 < ki < 2 * (1 - kp)):
            raise ValueError(f"pi_rule is stable for -1 < kp < 1 and 0 < ki < 2 (1 - kp), not for kp={kp}, ki={ki}")
        self.kp, self.ki = kp, ki
        self.__name__ = "pi_rule"
        self.reset()

    def reset(self) -> None:
        """Forget the last error."""
        self._last_error = 0.0

    def __call__(self, delay: float, measured_fps: float, target_fps: float) -> float:
        """The next delay, in seconds."""
        length = 1 / target_fps
        error = max(length - 1 / measured_fps, -length)
        change, self._last_error = error - self._last_error, error
        return max(0.0, delay + self.ki * error + self.kp * change)


def _ready(rule: Any) -> Rule:
    """The rule itself. Nothing is called to see what it is; but of a class, which says so, an object is made."""
    if rule is pi_rule:
        return PiRule()
    if isinstance(rule, type):
        rule = called(f"the rule {_name(rule)}", rule)
    if not callable(rule):
        raise TypeError(f"rule must be a function of (delay, measured_fps, target_fps), not {shown(rule)}")
    if not _takes(rule, 3):
        raise TypeError(f"the rule {_name(rule)} must take (delay, measured_fps, target_fps) and return a delay")
    return rule  # type: ignore[no-any-return]


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*[0.0] * count)
    except TypeError:
        return False
    except ValueError:  # some built-in functions do not tell
        return True
    return True


def _checked(delay: Any, rule: Rule) -> float:
    seconds = math.nan if isinstance(delay, bool) or not isinstance(delay, Real) else float(delay)
    if 0 <= seconds < math.inf:
        return seconds
    raise PartError(
        f"the rule {_name(rule)} returned {shown(delay)} as its delay: it must be a finite number of seconds, 0 or more"
    )


_name = named


PACERS: dict[str, Callable[[], Pacer]] = {
    "deadline": DeadlinePacer,
    "none": NoPacing,
    "pi": lambda: FeedbackPacer(pi_rule, name="pi"),
    "tutorial": TutorialPacer,
}
"""The pacers that the command line and the panel offer, by name."""


def pacer_named(choice: str | Pacer | type[Pacer]) -> Pacer | type[Pacer]:
    """A pacer from its name, or the pacer or class handed in.

    ValueError for a name that is none, TypeError for no pacer.
    """
    if not isinstance(choice, str):
        wanted = ("push", "wake_at", "pull") if isinstance(choice, type) else ("restart", "push", "wake_at", "pull")
        missing = missing_methods(choice, wanted)
        if missing and callable(choice) and not isinstance(choice, type):
            raise TypeError(
                f"{_name(choice)} is a rule, not a pacer: wrap it, as in pacer=FeedbackPacer({_name(choice)})"
            )
        if missing:
            names = ", ".join(sorted(PACERS))
            raise TypeError(
                f"a pacer is one of {names}, or an object or class with {', '.join(missing)}; {shown(choice)} is "
                "neither" + ("" if missing != ["restart"] else ": hand in its class, or give it a restart(start_ns)")
            )
        return choice
    if choice not in PACERS:
        raise ValueError(f"pacer must be one of {', '.join(sorted(PACERS))}, not {choice!r}")
    return PACERS[choice]()
