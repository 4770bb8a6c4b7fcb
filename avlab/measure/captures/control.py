"""RTCP in a capture: reports of senders and receivers, names, farewells. Pure.

Of encrypted RTCP (RFC 3711 3.4) nothing can be read but that there is some: it is counted.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from avlab.measure.captures.layers import AddressPair
from avlab.measure.record.trace import Recorder
from avlab.wire import rtcp
from avlab.wire.units import WireError

MOST_REPORTS = 200_000
"""Reports of each kind that are kept."""

MOST_NAMES = 10_000
MOST_SENT = 64
"""Sender reports of a source that a receiver's may be about."""


class SenderClock(NamedTuple):
    """A sender's clocks at one moment, and when its report passed."""

    time_ns: int
    ntp_ns: int
    timestamp: int


class _Block(NamedTuple):
    time_ns: int
    target: str  # the host that the report went to: where the stream comes from
    block: rtcp.ReportBlock
    round_trip_ns: int | None


class Control:
    """Takes RTCP's datagrams; sources are told apart by the host that they come from."""

    def __init__(self) -> None:
        self.sent: dict[tuple[str, int], list[SenderClock]] = {}
        self.names: dict[tuple[str, int], str] = {}
        self.ended: list[tuple[int, int]] = []
        self.unreadable = self.datagrams = 0
        self._blocks: list[_Block] = []
        self._recent: dict[tuple[str, int], deque[tuple[int, int]]] = {}
        self._reports = 0

    def hear(self, data: bytes, time_ns: int, flow: AddressPair, *, whole: bool) -> None:
        """A datagram, or as much of it as was captured."""
        self.datagrams += 1
        try:
            packets = rtcp.parse_compound(data)
        except WireError:
            self.unreadable += whole
            return
        for packet in packets:
            if isinstance(packet, rtcp.SenderReport):
                self._hear_sender(packet, time_ns, flow)
            if isinstance(packet, rtcp.SenderReport | rtcp.ReceiverReport):
                self._hear_blocks(packet.blocks, time_ns, flow)
            elif isinstance(packet, rtcp.Sdes) and packet.cname and len(self.names) < MOST_NAMES:
                self.names[flow.source, packet.ssrc] = packet.cname
            elif isinstance(packet, rtcp.Bye) and len(self.ended) < MOST_NAMES:
                self.ended += [(time_ns, ssrc) for ssrc in packet.ssrcs]

    def _hear_sender(self, report: rtcp.SenderReport, time_ns: int, flow: AddressPair) -> None:
        self._reports += 1
        if self._reports > MOST_REPORTS or not report.ntp:
            return
        key = flow.source, report.ssrc
        self.sent.setdefault(key, []).append(SenderClock(time_ns, rtcp.ntp_to_ns(report.ntp), report.rtp_timestamp))
        recent = self._recent.setdefault(key, deque(maxlen=MOST_SENT))
        recent.append((report.ntp >> 16 & 0xFFFFFFFF, time_ns))

    def _hear_blocks(self, blocks: tuple[rtcp.ReportBlock, ...], time_ns: int, flow: AddressPair) -> None:
        for block in blocks:
            if len(self._blocks) >= MOST_REPORTS:
                return
            trip = None
            for middle, passed_ns in reversed(self._recent.get((flow.target, block.ssrc), ())):
                if block.last_sr and middle == block.last_sr:
                    trip = time_ns - passed_ns - block.delay_since_sr * 1_000_000_000 // 65_536
                    break
            self._blocks.append(_Block(time_ns, flow.target, block, trip if trip is None or trip >= 0 else None))

    def write(self, recorder: Recorder, found: list[dict[str, Any]]) -> None:
        """Receivers' reports as rows of the trace, each on the stream that it is about; and what else was said."""
        streams = {(each["flow"][0], each["ssrc"]): each for each in found}
        for time_ns, host, block, trip_ns in self._blocks:
            stream = streams.get((host, block.ssrc))
            if stream is None:
                continue
            rate = stream["rate"]
            recorder.report(
                time_ns,
                stream["kind"],
                stream["code"],
                loss=block.fraction_lost / 256,
                lost=block.cumulative_lost,
                jitter_ns=round(block.jitter * 1e9 / rate) if rate else None,
                round_trip_ns=trip_ns,
            )
        sources = {each["ssrc"] for each in found}
        for time_ns, ssrc in self.ended:
            if ssrc in sources:
                recorder.event(time_ns, "bye", f"{ssrc:#010x}")
        if self.unreadable:
            recorder.event(int(recorder.meta["epoch_ns"]), "encrypted or damaged RTCP", self.unreadable)
