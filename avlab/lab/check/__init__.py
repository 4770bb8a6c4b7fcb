"""Checks of a student's work that say what is wrong, and a look at what was left behind; predictions are here, too.

Nothing here knows the page: what is returned displays itself, and a check never raises for what a student wrote. Each
answers within two seconds, whatever the work does: see `patience`.
"""

from avlab.lab.check.contracts import part
from avlab.lab.check.controllers import controller
from avlab.lab.check.exercises import base64_size, lasts, mean_fps, most_loss, packets, points, unspoilt
from avlab.lab.check.functions import function
from avlab.lab.check.handed_in import bursts, half, target
from avlab.lab.check.leftovers import begin, nothing_left, stop_button
from avlab.lab.check.receivers import receiver
from avlab.lab.check.roundtrips import ahead, unsure
from avlab.lab.check.rules import rule
from avlab.lab.check.sequences import missing
from avlab.lab.check.tuning import tuned
from avlab.lab.predictions import PURPLE, Prediction, Verdict, predict

__all__ = [
    "PURPLE",
    "Prediction",
    "Verdict",
    "ahead",
    "base64_size",
    "begin",
    "bursts",
    "controller",
    "function",
    "half",
    "lasts",
    "mean_fps",
    "missing",
    "most_loss",
    "nothing_left",
    "packets",
    "part",
    "points",
    "predict",
    "receiver",
    "rule",
    "stop_button",
    "target",
    "tuned",
    "unspoilt",
    "unsure",
]


def __dir__() -> list[str]:
    return sorted(__all__)
