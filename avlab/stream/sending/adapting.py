"""How packets are delivered, and what reports of it do to what is sent: settings of a server, and its rate controller.

The settings may be set from any thread; reports come on the server's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from avlab.measure.record.trace import Recorder
from avlab.network.offload import Offload
from avlab.network.ratecontrol import Choice, RateController, Report
from avlab.stream.sending.clip import Sending
from avlab.wire.rtcp import ReportBlock, ns_to_ntp
from avlab.wire.units import NS

MOST_TRIP_NS = 30 * NS
"""A round trip that is longer, by what a report says, is a report that lies or is of another clock."""

SENT_BEFORE_NS = NS
"""A sender report may have gone out so long before the first packet."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A client's report of one stream, and what had been sent to it since the last one."""

    stream: str
    ssrc: int
    block: ReportBlock
    rate: int  # of the RTP clock
    sent_bytes: int
    since_ns: int | None  # how long ago the last one came
    elapsed_ns: int = MOST_TRIP_NS  # since the first packet was sent to it
    doubt: str | None = None  # why it cannot be true, if it cannot

    def round_trip_ns(self, unix_ns: int) -> int | None:
        """From the sender report that this one answers to now, without the client's own time (RFC 3550 6.4.1).

        None when it answers to none, or to one that it cannot have heard.
        """
        if not self.block.last_sr:
            return None
        now = ns_to_ntp(unix_ns) >> 16 & 0xFFFFFFFF
        trip_ns = ((now - self.block.last_sr - self.block.delay_since_sr) & 0xFFFFFFFF) * NS >> 16
        return trip_ns if trip_ns <= min(MOST_TRIP_NS, self.elapsed_ns + SENT_BEFORE_NS) else None


@dataclass(slots=True)
class Delivery:
    """How packets go out: over which share of a frame's time, with how much parity, and who hears reports of it; and
    whether the system cuts them up."""

    spread: float = 0.0
    parity: float = 0.25
    offload: Offload = field(default_factory=Offload)
    heard: Callable[[Heard, int, int], None] | None = None  # with the moment, on both clocks


class Adapting:
    """Hands reports to a rate controller, and what it chooses to what is sent. None: nothing is adapted."""

    def __init__(self, sending: Sending, recorder: Recorder, choose: Callable[[Choice], None]) -> None:
        self.controller: RateController | None = None
        self._sending, self._recorder, self._choose = sending, recorder, choose

    def heard(self, heard: Heard, now_ns: int, unix_ns: int) -> None:
        """A report came."""
        loss, jitter = heard.block.fraction_lost / 256, heard.block.jitter / heard.rate
        trip_ns = heard.round_trip_ns(unix_ns)
        kbps = heard.sent_bytes * 8 / (heard.since_ns / 1e6) if heard.since_ns else None
        self._recorder.report(
            now_ns,
            heard.stream,
            heard.ssrc,
            loss=loss,
            lost=heard.block.cumulative_lost,
            jitter_ns=round(jitter * NS),
            round_trip_ns=trip_ns,
            kbps=kbps,
        )
        width = self._sending.width or self._sending.encoded_width
        if heard.stream != "video" or self.controller is None or kbps is None or width is None:
            return
        if heard.doubt is not None and getattr(self.controller, "believed_only", False):
            return
        report = Report(
            time=now_ns / NS,
            client=heard.ssrc,
            loss=loss,
            jitter=jitter,
            round_trip=None if trip_ns is None else trip_ns / NS,
            sent_kbps=kbps,
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
