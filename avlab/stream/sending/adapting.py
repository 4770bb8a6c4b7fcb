"""How packets are delivered, and what reports of it do to what is sent: settings of a server, and its rate controller.

The settings may be set from any thread; reports come on the server's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from avlab.core.events import Reported
from avlab.network.offload import Offload
from avlab.network.ratecontrol import Choice, RateController, Report
from avlab.stream.sending.clip import Sending
from avlab.wire.units import NS


@dataclass(slots=True)
class Delivery:
    """How packets go out: over which share of a frame's time, with how much parity, and who hears reports of it; and
    whether the system cuts them up."""

    spread: float = 0.0
    parity: float = 0.25
    offload: Offload = field(default_factory=Offload)
    heard: Callable[[Reported], None] | None = None


class Adapting:
    """Hands reports to a rate controller, and what it chooses to what is sent. None: nothing is adapted."""

    def __init__(self, sending: Sending, choose: Callable[[Choice], None]) -> None:
        self.controller: RateController | None = None
        self._sending, self._choose = sending, choose

    def heard(self, heard: Reported) -> None:
        """A report came."""
        width = self._sending.width or self._sending.encoded_width
        if heard.stream != "video" or self.controller is None or heard.kbps is None or width is None:
            return
        if heard.doubt is not None and getattr(self.controller, "believed_only", False):
            return
        report = Report(
            time=heard.time_ns / NS,
            client=heard.ssrc,
            loss=heard.loss,
            jitter=heard.jitter_ns / NS,
            round_trip=None if heard.round_trip_ns is None else heard.round_trip_ns / NS,
            sent_kbps=heard.kbps,
            quality=self._sending.quality,
            width=width,
        )
        try:
            choice = self.controller.update(report)
            if choice is not None:
                self._choose(Choice(*choice))
        except Exception as error:
            name = type(self.controller).__name__
            raise RuntimeError(f"the rate controller {name} failed: {type(error).__name__}: {error}") from error
