"""avlab: a laboratory for real-time audio and video over sockets.

Names are bound when first used, so that `import avlab` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from avlab import testing
    from avlab.lab import check, plots
    from avlab.lab.challenge import Challenge
    from avlab.lab.gathering import gather
    from avlab.lab.notebook.classroom import classroom
    from avlab.lab.notebook.panel import panel
    from avlab.lab.predictions import predict
    from avlab.lab.sweeps.sweep import sweep
    from avlab.measure.numbers import metrics
    from avlab.measure.record.join import join
    from avlab.measure.record.trace import Trace
    from avlab.media.frame_sizes import frame_sizes
    from avlab.media.probe import probe
    from avlab.network.bottleneck import Bottleneck
    from avlab.network.ratecontrol import Aimd
    from avlab.network.settings import Network
    from avlab.parts import Choice, Dropped, Due, Encoded, Missing, Packet, PartError, PartWarning, Report, whole
    from avlab.stream.client import Client
    from avlab.stream.clock import OtherClock
    from avlab.stream.handle import stop_all
    from avlab.stream.relay import Relay
    from avlab.stream.server import Server
    from avlab.stream.simulate import simulate, simulate_together
    from avlab.timing.pacing import DeadlinePacer, FeedbackPacer, NoPacing, TutorialPacer, pi_rule, tutorial_rule

_HOMES = {
    "Aimd": "avlab.network.ratecontrol",
    "Bottleneck": "avlab.network.bottleneck",
    "Challenge": "avlab.lab.challenge",
    "Choice": "avlab.parts",
    "Client": "avlab.stream.client",
    "DeadlinePacer": "avlab.timing.pacing",
    "Dropped": "avlab.parts",
    "Due": "avlab.parts",
    "Encoded": "avlab.parts",
    "FeedbackPacer": "avlab.timing.pacing",
    "Missing": "avlab.parts",
    "Network": "avlab.network.settings",
    "NoPacing": "avlab.timing.pacing",
    "OtherClock": "avlab.stream.clock",
    "Packet": "avlab.parts",
    "PartError": "avlab.parts",
    "PartWarning": "avlab.parts",
    "Relay": "avlab.stream.relay",
    "Report": "avlab.parts",
    "Server": "avlab.stream.server",
    "Trace": "avlab.measure.record.trace",
    "TutorialPacer": "avlab.timing.pacing",
    "check": "avlab.lab",
    "classroom": "avlab.lab.notebook.classroom",
    "frame_sizes": "avlab.media.frame_sizes",
    "gather": "avlab.lab.gathering",
    "join": "avlab.measure.record.join",
    "metrics": "avlab.measure.numbers",
    "panel": "avlab.lab.notebook.panel",
    "pi_rule": "avlab.timing.pacing",
    "plots": "avlab.lab",
    "predict": "avlab.lab.predictions",
    "probe": "avlab.media.probe",
    "simulate": "avlab.stream.simulate",
    "simulate_together": "avlab.stream.simulate",
    "stop_all": "avlab.stream.handle",
    "sweep": "avlab.lab.sweeps.sweep",
    "testing": "avlab",
    "tutorial_rule": "avlab.timing.pacing",
    "whole": "avlab.parts",
}

__all__ = [
    "Aimd",
    "Bottleneck",
    "Challenge",
    "Choice",
    "Client",
    "DeadlinePacer",
    "Dropped",
    "Due",
    "Encoded",
    "FeedbackPacer",
    "Missing",
    "Network",
    "NoPacing",
    "OtherClock",
    "Packet",
    "PartError",
    "PartWarning",
    "Relay",
    "Report",
    "Server",
    "Trace",
    "TutorialPacer",
    "check",
    "classroom",
    "frame_sizes",
    "gather",
    "join",
    "metrics",
    "panel",
    "pi_rule",
    "plots",
    "predict",
    "probe",
    "simulate",
    "simulate_together",
    "stop_all",
    "sweep",
    "testing",
    "tutorial_rule",
    "whole",
]


_MODULES = ("check", "metrics", "plots", "testing")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'avlab' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    value = import_module(f"{_HOMES[name]}.{name}") if name in _MODULES else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What students use, each name once; what is imported here for the rest is none of it."""
    return sorted({*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"})
