"""The way that datagrams take: how it is opened before PLAY, and whether it is open after it."""

from __future__ import annotations

import selectors
from collections.abc import Iterable

from avlab.stream.clock import Clock
from avlab.stream.rtsp.dialogue import Session
from avlab.stream.rtsp.origin import Origin
from avlab.stream.sockets.protocols import Datagrams, System
from avlab.wire import rtcp, sdp
from avlab.wire.rtp import RtpPacket
from avlab.wire.units import NS

SHUT_NS = 3 * NS
"""So long after PLAY without one datagram, RTP or RTCP, and the way is taken for shut."""


def knock(media: sdp.Media, links: tuple[Datagrams, Datagrams], origin: Origin, ssrc: int) -> None:
    """Send a datagram from each of the client's ports to each of the server's: firewalls and NATs open by that.

    They are an RTP packet without payload, of a type that was not described (RFC 6263 section 4.6), and an empty
    receiver report: what they reach takes them for nothing, as FFmpeg's, which sends the same two.
    """
    taken = {media.payload_type, *(number for number, _ in media.others)}
    kind = next(number for number in range(127, 95, -1) if number not in taken)
    nothing = RtpPacket(kind, 0, 0, ssrc, False, b"").serialize()
    empty = rtcp.serialize_compound([rtcp.ReceiverReport(ssrc), rtcp.Sdes(ssrc, "avlab")])
    for rtp_door, rtcp_door in origin.doors:
        links[0].send([nothing], rtp_door)
        links[1].send([empty], rtcp_door)


def opens(links: Iterable[Datagrams], session: Session, clock: Clock, system: System) -> bool:
    """After PLAY: wait for the first datagram, at most `SHUT_NS`; whether one came, or the connection ended instead.

    What comes on the connection meanwhile is kept by the session, within its bounds.
    """
    with system.selector() as selector:
        for link in links:
            selector.register(link, selectors.EVENT_READ)
        selector.register(session, selectors.EVENT_READ)
        deadline_ns = clock.now_ns() + SHUT_NS
        while (now_ns := clock.now_ns()) < deadline_ns:
            for key, _ in clock.wait(selector, min(deadline_ns, now_ns + NS // 10)):
                if key.fileobj is not session or not session.pump():
                    return True
    return False
