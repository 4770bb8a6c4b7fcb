"""A student's pacing rule: let run in simulated time, at several rates, and told from one that slides away."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from avlab.lab.check.patience import Patience, WrongError, judged, let_through
from avlab.lab.check.words import name, said, sentence, told
from avlab.lab.predictions import Verdict
from avlab.measure.numbers import metrics
from avlab.stream.simulate import simulate_strictly
from avlab.timing.pacing import FeedbackPacer, tutorial_rule

RATES = 30.0, 24.0
"""Frames a second of the runs that a rule is held against: what fits one rate alone is no rule."""

SLIDE_MS = 15.0
"""A rule slides when it falls behind or gets ahead by more in a minute, milliseconds."""

_DIRECTION = "Does the delay grow when measured_fps is above target_fps, and shrink when it is below?"


def rule(work: Any, *, fps: float | Sequence[float] = RATES, seconds: float = 60.0, seed: int = 1) -> Verdict:
    """Let a student's pacing rule run in simulated time, and say what is wrong with it or how well it does.

    What the rule must be is told by `FeedbackPacer`: a function of (delay, measured_fps, target_fps), in seconds. It
    has to settle within 2 % of the target, and not to slide from then on, at each of `fps`; a run is of `seconds`, and
    `seed` draws what its frames cost.

    Args:
        work: The student's function.
        fps: Frames a second, one rate or several.
        seconds: Length of each run, in virtual time.
        seed: Draws what frames cost.
    """
    rates = [float(fps)] if isinstance(fps, int | float) else [float(rate) for rate in fps]
    return judged(work, lambda patience: _rule(work, rates, seconds, seed, patience))


class _Asked(NamedTuple):
    """What a rule was asked, and by how many seconds it moved the delay."""

    error_s: float
    step_s: float


class _Watched:
    """A rule, and what it answers. One of milliseconds is told at once: a run with it would be of years."""

    def __init__(self, rule: Any, who: str, patience: Patience) -> None:
        self._rule, self._patience = rule, patience
        self.__name__ = who
        self.asked: list[_Asked] = []

    def reset(self) -> None:
        reset = getattr(self._rule, "reset", None)
        if reset is not None:
            self._patience.call(reset)

    def __call__(self, delay: float, measured_fps: float, target_fps: float) -> Any:
        given = self._patience.call(self._rule, delay, measured_fps, target_fps)
        if isinstance(given, int | float) and math.isfinite(given):
            if given in (measured_fps, target_fps) and given > 2:
                raise WrongError(
                    f"{self.__name__} returned {given:.4g}: those are frames a second. The next delay is wanted, in "
                    "seconds."
                )
            if given > max(0.9, 15 * delay):
                raise WrongError(
                    f"{self.__name__} returned {given:.4g}, and the delay before was {delay:.4g}: is it in "
                    "milliseconds? Seconds are wanted."
                )
            self.asked.append(_Asked(1 / target_fps - 1 / measured_fps, given - delay))
        return given


def _rule(work: Any, rates: Sequence[float], seconds: float, seed: int, patience: Patience) -> Verdict:
    who = name(work)
    found = []
    for number, fps in enumerate(rates):
        try:
            base = patience.call(FeedbackPacer, work)
            watched = _Watched(base.rule, base.name, patience)
            pacer = FeedbackPacer(watched, whole_ms=work is tutorial_rule)
            trace = simulate_strictly(fps, pacer=pacer, seconds=seconds, seed=seed + number)
        except (TypeError, ValueError, RuntimeError) as error:  # a pacer's own sentences
            return Verdict(False, _failed(who, error))
        run = metrics.convergence(trace, at="sent")
        at = f" at {fps:g} fps" if len(rates) > 1 else ""
        if pacer.stalls:
            words = f"lets its wait run out in {pacer.stalls} of {round(fps * seconds)} frames{at}"
            return Verdict(False, f"{who} {words}. {_why(watched.asked) or f'{_DIRECTION} Or is its step too large?'}")
        if run.settled_s is None:
            mean = "no frame left in time" if run.mean_fps is None else f"{run.mean_fps:.2f} fps on average"
            words = f"never settles within 2 % of {fps:g} fps in {seconds:g} s ({mean})"
            return Verdict(False, f"{who} {words}. {_why(watched.asked) or _DIRECTION}")
        found.append((fps, run.settled_s, run.drift_ms_per_minute or 0.0, watched.asked))
    fps, _, slide, asked = max(found, key=lambda run: abs(run[2]))
    if abs(slide) > SLIDE_MS:
        way = "falls behind" if slide > 0 else "gets ahead"
        words = f"{who} settles, but slides: at {fps:g} fps it {way} by {abs(slide):.0f} ms a minute"
        return Verdict(False, f"{words}. {_why(asked) or _SUM}")
    settled = max(settled for _, settled, _, _ in found)
    each = " and ".join(f"{rate:g}" for rate in rates)
    return Verdict(
        True,
        f"{who} works: at {each} fps it settles within {settled:.2f} s, and then slides by less than "
        f"{max(1.0, math.ceil(abs(slide))):.0f} ms a minute.",
    )


def _failed(who: str, error: Exception) -> str:
    """What is said of a rule that raises, or returns what it may not."""
    let_through(error)
    words = said(error)
    if "returned None" in words:
        return f"{who} returns nothing: is there a return? The next delay is wanted, in seconds."
    if "returned Ellipsis" in words:
        return f"{who} is not written yet: put your own in place of ..."
    # What a `reset` or a constructor raises comes as it is, and its words alone would not say whose they are.
    return sentence(words if who in words or "rule" in words else f"{who} fails with {told(error)}")


_SUM = (
    "Count the error in seconds a frame, 1 / target_fps - 1 / measured_fps: those add up to the slide, and errors in "
    "frames a second do not."
)


def _why(asked: Sequence[_Asked]) -> str:
    """What is wrong with the steps that a rule took, as a question; empty when it cannot be told."""
    moved = [step for _, step in asked if step]
    if len(asked) > 20 and len(moved) < 0.02 * len(asked):
        return "The delay stays as it is: it has to grow when measured_fps is above target_fps, and shrink below."
    wrong = sum(1 for error, step in asked if step * error < 0)
    if wrong > 0.8 * len(moved):
        return _DIRECTION
    sizes = sorted(abs(step) for step in moved)
    if sizes and wrong < 0.2 * len(moved) and sizes[len(sizes) // 20] > 0.98 * sizes[-1 - len(sizes) // 20]:
        return "Its step is the same for a small error and a large one: let it grow with the error."
    gains = [step / error for error, step in asked if abs(error) > 1e-4]
    if gains and wrong < 0.2 * len(moved):
        gain = statistics.median(gains)
        if 0 < gain < 0.04:
            return f"It corrects by a {1 / gain:,.0f}th of the error: is that step too small?"
        if gain > 1.95:
            return f"It corrects by {gain:.2g} times the error: is that step too large?"
    return ""
