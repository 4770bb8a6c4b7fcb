"""A frame on its way to many clients over UDP: laid out once, and stamped and sent for each of them in turn.

It is for those who get its packets as they are, with no network between; the others are sent to one by one, by
`dispatch`. All of it belongs to the server's thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from avlab.core.events import Sent
from avlab.core.sender import Passing
from avlab.stream.clock import Clock
from avlab.stream.rtsp.dispatch import Dispatch
from avlab.stream.rtsp.peer import Recipient, Track
from avlab.stream.sockets.protocols import Datagrams
from avlab.wire.plate import Plate
from avlab.wire.rtp import Packed


class Fan:
    """Sends as `dispatch` does, where nothing is between it and the clients."""

    def __init__(self, dispatch: Dispatch, clock: Clock) -> None:
        self._dispatch, self._clock = dispatch, clock

    def send(
        self, track: Track, packed: Packed, pts_ns: int, recipients: Sequence[Recipient], *, size: int
    ) -> tuple[int | None, list[Recipient]]:
        """Send one frame, or chunk, of a track, as packets of at most `size` bytes that a `Plate` takes.

        Returns when the first send began, and those to whom nothing was sent, as they do not get it as it is.
        """
        stream, total = track.stream, packed.total
        clock_ns, offset, many = self._clock.now_ns, track.timestamp_offset, len(recipients) > 1
        frame = Passing(stream, packed, pts_ns, clock_ns(), rate=track.rate, timestamp_offset=offset, many=many)
        plate = Plate(packed, frame.timestamp)
        batch, stamp = plate.batch, plate.stamp
        link: Datagrams | None = None  # the one that was used last
        sent: list[tuple[int, int, int]] = []  # source, first number and time
        others: list[Recipient] = []
        first_ns: int | None = None
        for one in recipients:
            route, sender = one.routes.get(stream), one.sender
            if route is None or one.gone or not (route.packet_size is None or route.packet_size >= size):
                others.append(one)
                continue
            links, addresses, now_ns = route.links, route.addresses, clock_ns()
            if links is None or addresses is None or (number := sender.pass_on(frame, now_ns)) is None:
                others.append(one)
                continue
            if first_ns is None:
                first_ns = now_ns
            if sender.has_outgoing:
                self._dispatch.send_outgoing(one, now_ns)
            if links[0] is not link:
                link = links[0]
                self._dispatch.decide_offload(link, 0, now_ns)
            stamp(number & 0xFFFF, route.ssrc)
            taken = link.send_batch(batch, addresses[0])
            if taken == total:
                sent.append((route.ssrc, number, now_ns))
            else:
                whole = packed.stamped(sequence=number & 0xFFFF, timestamp=frame.timestamp, ssrc=route.ssrc)
                self._dispatch.given(Sent(now_ns, stream, route.ssrc, number, whole), taken)
        if sent:
            self._dispatch.passed_on(plate, stream, sent)
        return first_ns, others
