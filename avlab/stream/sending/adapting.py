"""How packets are delivered, and what reports of it do to what is sent: settings of a server, and its rate controller.

The settings may be set from any thread; reports come on the server's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from avlab.core.events import Reported
from avlab.network.offload import Offload
from avlab.network.ratecontrol import Aimd, Choice, RateController, Report, asked, made
from avlab.parts import Call, PartError, called
from avlab.wire.rtp import MAX_PACKET
from avlab.wire.units import NS


@dataclass(slots=True)
class Delivery:
    """How packets go out: how large, over which share of a frame's time, with how much parity, and who hears reports
    of it; and whether the system cuts them up."""

    packet_size: int = MAX_PACKET
    spread: float = 0.0
    parity: float = 0.25
    offload: Offload = field(default_factory=Offload)
    heard: Callable[[Reported], None] | None = None


class Encoding(Protocol):
    """What is sent, as far as a rate controller is told of it: `Sending` is one."""

    quality: int
    width: int | None
    """What was asked for; None for the clip's own."""
    encoded_width: int | None
    """The newest frame's."""


class Adapting:
    """Hands reports to a rate controller, and what it chooses to what is sent. None: nothing is adapted.

    A controller of anyone's own is asked by `call`, and of a class an object is made for the first report; when it has
    failed `failed` is told, and nothing is adapted.
    """

    def __init__(
        self,
        sending: Encoding,
        choose: Callable[[Choice], None],
        *,
        call: Call = called,
        failed: Callable[[PartError], None] | None = None,
    ) -> None:
        self._call, self._failed = call, failed
        self._sending, self._choose = sending, choose
        self.controller = None

    @property
    def controller(self) -> RateController | type[RateController] | None:
        """What was handed in. One that is handed in again begins anew."""
        return self._controller

    @controller.setter
    def controller(self, controller: RateController | type[RateController] | None) -> None:
        self._made: tuple[Any, RateController] | None = None  # what was handed in, and what is asked
        self._broken: Any = None  # one that has failed
        self._controller = controller

    @property
    def working(self) -> RateController | type[RateController] | None:
        """What is asked; as it was handed in, as long as it was not asked yet."""
        controller, at = self.controller, self._made
        return at[1] if at is not None and at[0] is controller else controller

    def heard(self, heard: Reported) -> None:
        """A report came."""
        width = self._sending.width or self._sending.encoded_width
        controller = self.controller
        if heard.stream != "video" or controller is None or heard.kbps is None or width is None:
            return
        if controller is self._broken or (heard.doubt is not None and getattr(self.working, "believed_only", False)):
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
            call = called if type(controller) is Aimd else self._call
            if self._made is None or self._made[0] is not controller:
                self._made = controller, made(controller, call=call)
            choice = asked(self._made[1], report, call=call)
        except PartError as error:
            if self._failed is None:
                raise
            self._broken = controller
            self._failed(error)
            return
        if choice is not None:
            self._choose(choice)
