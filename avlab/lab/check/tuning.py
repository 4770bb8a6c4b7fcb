"""Settings for a challenge: what they are worth there, beside those that a stream begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avlab.lab.challenge import Challenge, check_settings
from avlab.lab.check.patience import judged
from avlab.lab.check.words import said, short
from avlab.lab.predictions import Verdict
from avlab.measure.numbers.score import Score

BETTER, LEAST = 1.2, 40.0
"""What is asked for: so many times the points of what a stream begins with, and so many in any case."""


def tuned(settings: Any, challenge: Challenge) -> Verdict:
    """Check settings for a challenge: a fifth more points than what a stream begins with has, and 40 at least.

    Numbers and names are taken, and no parts of one's own, which a challenge scores as well.

    Args:
        settings: A dict, as {"quality": 50, "repair": "rtx"}.
        challenge: What they are for: `avlab.Challenge(word)`.
    """
    return judged(settings, lambda _patience: _tuned(settings, challenge))


def _tuned(settings: Any, challenge: Challenge) -> Verdict:
    if settings is ...:
        return Verdict(False, "The settings are not written yet: put your own in place of ...")
    if not isinstance(settings, Mapping):
        return Verdict(False, f'The settings are {short(settings)}: a dict is wanted, as {{"quality": 50}}.')
    for name, value in settings.items():
        if value is ...:
            return Verdict(False, f"The settings have no {short(name)} yet: put your own in place of ...")
        if not (value is None or isinstance(value, str | int | float)):
            return Verdict(False, f"The settings have a {short(name)} of your own: numbers and names are wanted here.")
    try:
        check_settings(settings)
        mine = challenge.score(**settings)
    except (TypeError, ValueError, RuntimeError) as error:
        words = said(error)
        return Verdict(False, f"The settings cannot be: {words}{'' if words.endswith(('.', '?')) else '.'}")
    begun = challenge.score()
    words = f"The settings get {mine.points:.1f} points, and those that a stream begins with {begun.points:.1f}"
    wanted = max(LEAST, BETTER * begun.points)
    if mine.points >= wanted:
        return Verdict(True, f"{words}: that is a good deal better.")
    return Verdict(False, f"{words}: {wanted:.1f} are wanted. {_hint(mine)}")


def _hint(score: Score) -> str:
    """What costs most."""
    factors = {"shown": score.shown, "detail": score.detail, "promptness": score.promptness}
    # Nobody has all the detail: what is usual there is no fault.
    worst = min(factors, key=lambda name: factors[name] / (0.75 if name == "detail" else 1.0))
    if worst == "shown":
        return (
            f"Only {score.shown:.0%} of the frames are shown: are they too large for the bottleneck, and does what is "
            "lost come back?"
        )
    if worst == "promptness":
        return f"Pictures come after {score.delay_ms:.0f} ms, and beyond 150 that costs points: what do they wait for?"
    return f"Frames of {score.kilobytes:.1f} kB have little detail: does the path not take more?"
