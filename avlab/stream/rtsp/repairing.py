"""One stream's repair at the client: what to ask for again, what comes back, what parity makes up for.

Belongs to the client's thread. What is asked for, and when, is decided in `network`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from avlab.network.parity import ParityDecoder
from avlab.network.retransmission import Requester, RtxReceiver
from avlab.wire import rtcp, sdp
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


class Repairing:
    """The repair of one stream, of the kind that its description offers and the client chose.

    Packets sent again are a stream of their own, told by `rtx`; parity is among the stream's own packets. A kind that
    was not chosen is None.
    """

    def __init__(self, kind: Repair, media: sdp.Media, rtx_ssrc: int | None) -> None:
        payload_type = media.repairs[kind]
        self.kind: Repair = kind
        self.requester: Requester | None = None
        self.rtx: RtxReceiver | None = None
        self.parity: ParityDecoder | None = None
        if kind == "rtx":
            self.requester = Requester()
            self.rtx = RtxReceiver(payload_type=media.payload_type, rtx_payload_type=payload_type, rtx_ssrc=rtx_ssrc)
        else:
            self.parity = ParityDecoder(payload_type=media.payload_type, parity_type=payload_type)

    @property
    def least_delay_ns(self) -> int:
        """How long pictures must wait for the repair; 0 while that is not known, or nothing is asked for."""
        return 0 if self.requester is None else self.requester.least_delay_ns

    def asked_for(self, packet: RtpPacket, original: RtpPacket, sequence: int, media_ns: int, now_ns: int) -> bool:
        """Whether a retransmission, which brings `original` back, had been asked for: else it is passed over."""
        assert self.rtx is not None
        assert self.requester is not None
        known = self.requester.restored(sequence, media_ns, original.marker, now_ns)
        if known:
            self.rtx.rtx_ssrc = packet.ssrc
        return known

    def rebuilt(self, data: bytes) -> list[Back]:
        """What comes back with the help of a packet, which may be parity itself."""
        if self.parity is None:
            return []
        out = []
        for packet in self.parity.feed(data):
            try:
                out.append(Back(RtpPacket.parse(packet), len(packet)))
            except WireError:
                self.parity.nonsense += 1
        return out

    def nack(
        self, own: int, ssrc: int, base_ns: int | None, now_ns: int, *, wire: Callable[[int], int]
    ) -> bytes | None:
        """The NACK that is due now, if any. `base_ns` is where media time 0 falls, if that is known; `wire` gives a
        packet's number its 16 bits.
        """
        if self.requester is None:
            return None
        self.requester.base_ns = base_ns
        asked = self.requester.pull(now_ns)
        if not asked:
            return None
        # A report without blocks goes before it: the smallest compound there is (RFC 4585 3.1).
        wanted = rtcp.Nack(own, ssrc, tuple(wire(number) for number in asked[: rtcp.MAX_NACK_FIELDS]))
        return rtcp.serialize_compound([rtcp.ReceiverReport(own), rtcp.Sdes(own, "avlab"), wanted])
