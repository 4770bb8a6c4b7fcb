"""Who sends a stream that nobody was asked for: found by what comes, and from then on the one that is believed.

A description without RTSP does not say where packets come from, and to an open port anybody's come. Owned by the
client's thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from avlab.stream.sockets.links import Address
from avlab.wire.batch import Batch, batches
from avlab.wire.rtp import HEADER_BYTES, VERSION_2
from avlab.wire.units import NS
from avlab.wire.urls import same_host

IN_A_ROW = 3
"""So many packets of one source and one address, of a described payload type, with nothing else between them."""

QUIET_NS = 2 * NS
"""The address that is believed may be taken over from when it has said nothing for so long: a sender may move."""

MOST_EARLY = 8
"""Reports that are kept of those who might be the sender; the newest."""

SHARE = 20
"""Of what comes from an address at most one part in so many goes back to it (RFC 3550 6.2): who forges another's
address gains nothing by it."""

Datagrams = list[tuple[Batch, Address]]
"""What came, in batches of one sender each."""


class FoundSender:
    """Judges the datagrams of one stream. `kinds` are the payload types that were described, `sources` the addresses
    that may send, where the description names them, `ssrc` the source, where it does.
    """

    def __init__(self, *, kinds: Collection[int], sources: Sequence[str] = (), ssrc: int | None = None) -> None:
        self.host = ""
        """Whose packets are taken; empty before anybody is found."""
        self._kinds, self._sources, self._ssrc = frozenset(kinds), tuple(sources), ssrc
        self._heard_ns = 0
        self._candidate: tuple[str, bytes] | None = None  # who, and which SSRC
        self._held: list[bytes] = []  # the candidate's packets
        self._early: list[tuple[str, int, bytes]] = []  # reports of those who are not believed yet, with their ports
        self._control_port: int | None = None
        self._came = self._went = 0  # bytes

    @property
    def reports_to(self) -> Address | None:
        """Where reports go: to where RTCP comes from; None before any has come."""
        return None if self._control_port is None else (self.host, self._control_port)

    @property
    def reported(self) -> bool:
        """Whether anything has gone back to the sender."""
        return self._went > 0

    def affords(self, size: int) -> bool:
        """Whether so many bytes may go back to the sender now; if so, they are counted as sent."""
        if (self._went + size) * SHARE > self._came:
            return False
        self._went += size
        return True

    def media(self, datagrams: Iterable[tuple[Batch, Address]], now_ns: int) -> list[Batch]:
        """Of the datagrams at the RTP port, those that are taken."""
        taken: list[Batch] = []
        for batch, (host, _) in datagrams:
            if not self._may(host):
                continue
            if host == self.host:
                self._take(len(batch.data), now_ns)
                taken.append(batch)
            elif not self.host or now_ns - self._heard_ns > QUIET_NS:
                for data in batch.datagrams():
                    if host == self.host:
                        self._take(len(data), now_ns)
                        taken += batches([data])
                    else:
                        taken += batches(self._weigh(data, host, now_ns))
        return taken

    def control(self, datagrams: Iterable[tuple[Batch, Address]], now_ns: int) -> list[Batch]:
        """Of the datagrams at the RTCP port, those that are taken; others wait for their sender to be found."""
        taken = []
        for batch, (host, port) in datagrams:
            if not self._may(host):
                continue
            if host == self.host:
                self._control_port = port
                self._take(len(batch.data), now_ns)
                taken.append(batch)
            else:
                self._early += [(host, port, data) for data in batch.datagrams()]
                del self._early[:-MOST_EARLY]
        return taken

    def early(self) -> list[Batch]:
        """Reports of the sender that came before it was found, since the last call; to be asked after `media`."""
        if not self.host or not self._early:
            return []
        own = [(port, data) for host, port, data in self._early if host == self.host]
        self._early = []
        for port, _ in own:
            self._control_port = port
        return list(batches(data for _, data in own))

    def _may(self, host: str) -> bool:
        return not self._sources or any(same_host(host, source) for source in self._sources)

    def _take(self, size: int, now_ns: int) -> None:
        self._came += size
        self._heard_ns = now_ns

    def _weigh(self, data: bytes, host: str, now_ns: int) -> list[bytes]:
        """A packet of somebody who is not believed: what is taken of it and those before, nothing until enough came."""
        if not self._fits(data):
            self._candidate, self._held = None, []
            return []
        candidate = host, data[8:12]
        if candidate != self._candidate:
            self._candidate, self._held = candidate, []
        self._held.append(data)
        if len(self._held) < IN_A_ROW:
            return []
        found, self._held, self._candidate = self._held, [], None
        self.host, self._control_port, self._came, self._went = host, None, 0, 0
        self._take(sum(map(len, found)), now_ns)
        return found

    def _fits(self, data: bytes) -> bool:
        if len(data) < HEADER_BYTES or data[0] & 0xC0 != VERSION_2 or data[1] & 0x7F not in self._kinds:
            return False
        return self._ssrc is None or int.from_bytes(data[8:12], "big") == self._ssrc


def parted(
    datagrams: Iterable[tuple[Batch, Address]],
) -> tuple[list[tuple[Batch, Address]], list[tuple[Batch, Address]]]:
    """RTP and RTCP that come to one port, apart: by the second byte (RFC 5761 section 4)."""
    media: list[tuple[Batch, Address]] = []
    control: list[tuple[Batch, Address]] = []
    for batch, address in datagrams:
        kinds = batch.column(1)
        if not any(192 <= kind <= 223 for kind in kinds):
            media.append((batch, address))
            continue
        for data in batch.datagrams():
            to = control if len(data) > 1 and 192 <= data[1] <= 223 else media
            to.append((Batch(data, len(data)), address))
    return media, control
