"""One stream's repair at a client: what to ask for again, what comes back, what parity makes up for. Pure.

What is asked for, and when, is decided in `network`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from avlab.network.asking import OwnRequester
from avlab.network.ownrepair import OwnRepair, RepairReceiver
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
    raise ValueError(
        "repair must be 'rtx' (lost packets are sent again), 'fec' (parity), a class of one's own or None, not "
        f"{value!r}"
    )


class Back(NamedTuple):
    """A packet that was lost, and is here now."""

    packet: RtpPacket
    size: int


class Asking:
    """Lost packets are asked for, and are sent again in a stream of their own (RFC 4588).

    `payload_type` is the media's, `rtx_payload_type` that of what is sent again, and `rtx_ssrc` its source, where it is
    known beforehand. What is asked for, and when, is the `requester`'s affair.
    """

    def __init__(
        self,
        *,
        payload_type: int,
        rtx_payload_type: int,
        rtx_ssrc: int | None,
        requester: Requester | OwnRequester | None = None,
    ) -> None:
        self.requester = Requester() if requester is None else requester
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

    def nack(self, own: int, ssrc: int, now_ns: int, *, wire: Callable[[int], int]) -> bytes | None:
        """The NACK of `own` to the source `ssrc` that is due now, if any; `wire` gives a number its 16 bits."""
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


class Repairing(NamedTuple):
    """All that repairs one stream at a client."""

    asking: Asking | None = None
    rebuilding: Rebuilding | None = None
    own: RepairReceiver | None = None
    """By anyone's own."""

    @property
    def ssrcs(self) -> list[int]:
        """The sources of what repairs, as far as they are known."""
        known = (each.ssrc for each in (self.asking, self.own) if each is not None)
        return [ssrc for ssrc in known if ssrc is not None]


def repairing(
    kind: Repair | None,
    *,
    payload_type: int,
    types: Mapping[str, int],
    ssrcs: Mapping[str, int],
    own: OwnRepair | None = None,
) -> Repairing | None:
    """The repair of one stream from its start, of the kind that its description offers and the client chose.

    `types` and `ssrcs` are the payload types and sources of repairs by name. `own` is anyone's own: its rule for what
    to ask for is in the place of avlab's, and its stream is taken where there is one. None when there is nothing.
    """
    working = None if own is None else own.begin()
    asking = rebuilding = receiver = None
    if kind == "rtx":
        requester = OwnRequester(working) if working is not None and working.own.asks else None
        asking = Asking(
            payload_type=payload_type,
            rtx_payload_type=types["rtx"],
            rtx_ssrc=ssrcs.get("rtx"),
            requester=requester,
        )
    elif kind == "fec":
        rebuilding = Rebuilding(payload_type=payload_type, parity_type=types["fec"])
    if working is not None and working.own.recovers and working.own.name in types:
        name = working.own.name
        receiver = RepairReceiver(working, payload_type=types[name], ssrc=ssrcs.get(name))
    found = Repairing(asking, rebuilding, receiver)
    return None if found == Repairing() else found
