"""One stream's repair at a client: what to ask for again, what comes back, what parity makes up for. Pure.

What is asked for, and when, is decided in `network`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from avlab.network.parity import ParityDecoder
from avlab.network.retransmission import Requester, RtxReceiver
from avlab.wire import rtcp
from avlab.wire.rtp import RtpPacket
from avlab.wire.units import WireError

Repair = Literal["rtx", "fec"]


def check_repair(value: object) -> Repair | None:
    """The kind of repair. ValueError for what is none."""
    if value is None or value == "rtx" or value == "fec":
        return value
    raise ValueError(f"repair must be 'rtx' (lost packets are sent again), 'fec' (parity) or None, not {value!r}")


class Back(NamedTuple):
    """A packet that was lost, and is here now."""

    packet: RtpPacket
    size: int


class Asking:
    """Lost packets are asked for, and are sent again in a stream of their own (RFC 4588).

    `payload_type` is the media's, `rtx_payload_type` that of what is sent again, and `rtx_ssrc` its source, where it is
    known beforehand.
    """

    def __init__(self, *, payload_type: int, rtx_payload_type: int, rtx_ssrc: int | None) -> None:
        self.requester = Requester()
        self._rtx = RtxReceiver(payload_type=payload_type, rtx_payload_type=rtx_payload_type, rtx_ssrc=rtx_ssrc)

    @property
    def ssrc(self) -> int | None:
        """The source of what is sent again, once it is known."""
        return self._rtx.rtx_ssrc

    def takes(self, packet: RtpPacket) -> bool:
        """Whether a packet is one sent again."""
        return self._rtx.takes(packet)

    def original(self, packet: RtpPacket, ssrc: int) -> RtpPacket:
        """The packet of the source `ssrc` that one sent again brings back. WireError when there is none in it."""
        return self._rtx.restore(packet, ssrc)

    def asked_for(self, packet: RtpPacket, original: RtpPacket, sequence: int, media_ns: int, now_ns: int) -> bool:
        """Whether a retransmission, which brings `original` back, had been asked for: else it is passed over."""
        known = self.requester.restored(sequence, media_ns, original.marker, now_ns)
        if known:
            self._rtx.rtx_ssrc = packet.ssrc
        return known

    def nack(
        self, own: int, ssrc: int, base_ns: int | None, now_ns: int, *, wire: Callable[[int], int]
    ) -> bytes | None:
        """The NACK of `own` to the source `ssrc` that is due now, if any.

        `base_ns` is where media time 0 falls, if that is known; `wire` gives a packet's number its 16 bits.
        """
        self.requester.base_ns = base_ns
        asked = self.requester.pull(now_ns)
        if not asked:
            return None
        # A report without blocks goes before it: the smallest compound there is (RFC 4585 3.1).
        wanted = rtcp.Nack(own, ssrc, tuple(wire(number) for number in asked[: rtcp.MAX_NACK_FIELDS]))
        return rtcp.serialize_compound([rtcp.ReceiverReport(own), rtcp.Sdes(own, "avlab"), wanted])


class Rebuilding:
    """Lost packets are made up for by parity, which is among the stream's own packets (RFC 5109)."""

    def __init__(self, *, payload_type: int, parity_type: int) -> None:
        self.parity_type = parity_type
        self._decoder = ParityDecoder(payload_type=payload_type, parity_type=parity_type)

    def back(self, data: bytes) -> list[Back]:
        """What comes back with the help of a packet, which may be parity itself."""
        out = []
        for packet in self._decoder.feed(data):
            try:
                out.append(Back(RtpPacket.parse(packet), len(packet)))
            except WireError:
                self._decoder.nonsense += 1
        return out


Repairing = Asking | Rebuilding


def repairing(kind: Repair, *, payload_type: int, repair_type: int, rtx_ssrc: int | None) -> Repairing:
    """The repair of one stream, of the kind that its description offers and the client chose, from the start."""
    if kind == "rtx":
        return Asking(payload_type=payload_type, rtx_payload_type=repair_type, rtx_ssrc=rtx_ssrc)
    return Rebuilding(payload_type=payload_type, parity_type=repair_type)
