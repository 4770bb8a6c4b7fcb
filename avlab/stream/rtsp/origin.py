"""Where a stream's datagrams come from: which addresses are believed, and where reports go. Addresses, not letters.

A server may have several addresses, stand behind another one, or tell one that nobody can reach; and on an open port
anybody's datagrams arrive. Owned by the client's thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from avlab.stream.sockets.links import Address
from avlab.wire.batch import Batch, batches
from avlab.wire.rtp import HEADER_BYTES, VERSION_2
from avlab.wire.urls import same_host

STRANGERS = 5
"""So many packets in a row of the described source, and none of the server's own, and another address is taken."""

MAX_JUDGED = 256
"""Addresses whose judgement is remembered; a flood of forged ones costs no more."""

Datagrams = Sequence[tuple[Batch, Address]]
"""What came, in batches of one sender each."""


class Origin:
    """Judges the datagrams of one stream by the address that they come from.

    `host` is the address at the other end of the RTSP connection, and `sources` are those that SETUP's answer leads to.
    All are the server's own, and always win, also later. Another address is taken only after
    `STRANGERS` consecutive packets of the payload type and SSRC that were described, while none has come from the
    server's own.
    """

    def __init__(
        self,
        host: str,
        *,
        sources: Sequence[str] = (),
        server_port: tuple[int, int] | None = None,
        payload_type: int = 0,
        ssrc: int | None = None,
    ) -> None:
        self.host = host
        """The address in use."""
        self.adopted = False
        """Whether that is one which nobody has vouched for."""
        self.reached = False
        """Whether any datagram came, from wherever: then no firewall is shut."""
        self._own = [host, *sources]
        self._server_port = server_port
        self._kind, self._ssrc = payload_type, ssrc
        self._own_came = False
        self._judged: dict[str, str | None] = {}  # which of the server's own it is
        self._candidate: tuple[str, bytes] | None = None  # who, and which SSRC
        self._held: list[bytes] = []  # the candidate's packets
        self._media_port: int | None = None
        self._control_port: int | None = None

    @property
    def doors(self) -> list[tuple[Address, Address]]:
        """The server's ports for RTP and RTCP at each of its addresses: where a datagram opens the way back."""
        if self._server_port is None:
            return []
        rtp, rtcp = self._server_port
        return [((host, rtp), (host, rtcp)) for host in self._own]

    @property
    def reports_to(self) -> Address | None:
        """Where reports go: to the address in use, at the port that was granted, else at the one that RTCP comes from,
        else at the neighbour of RTP's.
        """
        if self._server_port is not None:
            return self.host, self._server_port[1]
        if self._control_port is not None:
            return self.host, self._control_port
        return (self.host, self._media_port + 1) if self._media_port is not None and self._media_port < 65535 else None

    def media(self, datagrams: Datagrams) -> list[Batch]:
        """Of the datagrams at the RTP port, those that are taken."""
        taken: list[Batch] = []
        for batch, (host, port) in datagrams:
            self.reached = True
            if (own := self._own_one(host)) is not None:
                self._use(own, adopted=False)
                self._own_came = True
            elif not (self.adopted and host == self.host):
                for data in batch.datagrams() or (b"",):
                    is_source = self.adopted and host == self.host  # since one of these
                    taken += batches([data] if is_source else self._weigh(data, host))
                continue
            self._media_port = port
            taken.append(batch)
        return taken

    def control(self, datagrams: Datagrams) -> list[Batch]:
        """Of the datagrams at the RTCP port, those that are taken: from the address in use and its one port.

        That is the one that was granted, where it is heard of; a BYE from elsewhere ends nothing.
        """
        taken = []
        for batch, (host, port) in datagrams:
            self.reached = True
            if self._own_one(host) is None and not (self.adopted and host == self.host):
                continue
            if self._control_port is None or (self._server_port is not None and port == self._server_port[1]):
                self._control_port = port
            if port == self._control_port:
                taken.append(batch)
        return taken

    def _own_one(self, host: str) -> str | None:
        """Which of the server's own addresses that is, as it was first written: with its scope, where it has one."""
        if host not in self._judged:
            if len(self._judged) >= MAX_JUDGED:
                self._judged.clear()
            self._judged[host] = next((own for own in self._own if same_host(host, own)), None)
        return self._judged[host]

    def _use(self, host: str, *, adopted: bool) -> None:
        self._candidate = None
        if self._held:
            self._held = []
        if host != self.host or adopted != self.adopted:
            self.host, self.adopted = host, adopted
            self._control_port = None

    def _weigh(self, data: bytes, host: str) -> list[bytes]:
        """A packet from a stranger: what is taken of it and those before, nothing until there are enough."""
        if self._own_came or self.adopted or not self._fits(data):
            self._candidate, self._held = None, []
            return []
        candidate = host, data[8:12]
        if candidate != self._candidate:
            self._candidate, self._held = candidate, []
        self._held.append(data)
        if len(self._held) < STRANGERS:
            return []
        taken = self._held
        self._held = []
        self._use(host, adopted=True)
        return taken

    def _fits(self, data: bytes) -> bool:
        if len(data) < HEADER_BYTES or data[0] & 0xC0 != VERSION_2 or data[1] & 0x7F != self._kind:
            return False
        return self._ssrc is None or int.from_bytes(data[8:12], "big") == self._ssrc
