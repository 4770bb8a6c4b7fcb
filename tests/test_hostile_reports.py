"""NACKs from those who mean harm, over real sockets: answers are bounded, strangers and the parted get none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from rawclient import RawClient, until

import avlab
from avlab.core.sender import Outlet
from avlab.network.retransmission import CREDIT_BYTES, SHARE
from avlab.stream.rtsp.feedback import MOST_WAITING, REPORT_BYTES
from avlab.stream.rtsp.peer import RTX_TYPE
from avlab.wire import rtcp, rtsp
from avlab.wire.rtp import RtpPacket

pytestmark = pytest.mark.slow


@dataclass
class Viewer:
    """A client by hand that plays the pictures over UDP and may ask for packets again."""

    server: avlab.Server
    raw: RawClient
    media: socket.socket
    reports: socket.socket
    outlet: Outlet
    port: int  # where the server takes reports

    def heard(self) -> list[RtpPacket]:
        """What has come since the last look."""
        out = []
        try:
            while True:
                out.append(RtpPacket.parse(self.media.recv(2048)))
        except BlockingIOError:
            return out

    def nack(self, *numbers: int, times: int = 1) -> None:
        """Ask for packets, so many times in one datagram."""
        wanted = rtcp.Nack(1, self.outlet.ssrc, numbers)
        one = rtcp.serialize_compound([rtcp.ReceiverReport(1), rtcp.Sdes(1, "x"), wanted])
        self.reports.sendto(one * times, ("127.0.0.1", self.port))

    def settle(self) -> None:
        """Return once the server has read a turn of what was sent to it: it looks at each socket once a round."""
        for _ in range(2):
            assert self.raw.ask("OPTIONS").status == 200

    @property
    def counts(self) -> tuple[int, int, int]:
        """Packets sent again, not sent again because of the bounds, and not known."""
        again = self.outlet.again
        assert again is not None
        return again.answered, again.refused, again.unknown

    def known(self) -> list[int]:
        """The 16-bit numbers of the packets that the server keeps."""
        assert self.outlet.again is not None
        first, count = self.outlet.again.kept
        return [(first + at) & 0xFFFF for at in range(count)]


@contextmanager
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.bind(("127.0.0.1", 0))
        end.setblocking(False)
        yield end


@pytest.fixture(params=["RTP/AVP", "RTP/AVPF"])
def viewer(data: Path, request: pytest.FixtureRequest) -> Iterator[Viewer]:
    """One that asks by avlab's own header, and one that speaks the feedback profile and nothing besides."""
    with ExitStack() as stack:
        server = stack.enter_context(avlab.Server(data / "count.mp4", width=320))
        raw = stack.enter_context(RawClient(server.url))
        media, reports = stack.enter_context(udp()), stack.enter_context(udp())
        media.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        ports = f"{media.getsockname()[1]}-{reports.getsockname()[1]}"
        own = {rtsp.REPAIR_HEADER.replace("-", "_"): "rtx"} if request.param == "RTP/AVP" else {}
        answer = raw.ask("SETUP", "/video", Transport=f"{request.param};unicast;client_port={ports}", **own)
        assert answer.headers[rtsp.REPAIR_HEADER].startswith("rtx")
        server_port = rtsp.parse_transport(answer.headers["Transport"])[0].server_port
        assert server_port is not None
        assert raw.ask("PLAY").status == 200
        outlet = next(peer.sender.outlets["video"] for peer in server.signalling.peers)  # type: ignore[attr-defined]
        viewer = Viewer(server, raw, media, reports, outlet, server_port[1])
        until(lambda: len(viewer.known()) > 30)
        yield viewer


def test_a_flood_of_nacks_is_answered_with_so_many_bytes(viewer: Viewer) -> None:
    assert viewer.counts == (0, 0, 0)
    rounds = 0
    while rounds < 30 or (viewer.counts[1] <= 1000 and rounds < 3000):  # a busy machine reads fewer of them a round
        for _ in range(MOST_WAITING):
            viewer.nack(*viewer.known()[-256:])
        viewer.settle()
        rounds += 1
    packets = viewer.heard()
    until(lambda: packets.extend(viewer.heard()) or len(packets) > 400)  # the pictures go on
    answered, refused, _ = viewer.counts
    assert refused > 1000
    until(lambda: packets.extend(viewer.heard()) or sum(p.payload_type == RTX_TYPE for p in packets) >= answered)
    again = [packet for packet in packets if packet.payload_type == RTX_TYPE]
    own = [packet for packet in packets if packet.payload_type != RTX_TYPE]
    assert len(again) == answered > 10
    assert sum(len(p.payload) for p in again) <= CREDIT_BYTES + SHARE * sum(len(p.payload) + 12 for p in own)
    assert {packet.ssrc for packet in own} == {viewer.outlet.ssrc}
    assert len({packet.sequence for packet in again}) == len(again)


def test_a_strangers_nacks_are_ignored(viewer: Viewer) -> None:
    mine = viewer.reports
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as viewer.reports:
        viewer.reports.bind(("127.0.0.2", 0))
        for _ in range(MOST_WAITING):
            viewer.nack(*viewer.known()[-20:])
        viewer.settle()
    assert viewer.counts == (0, 0, 0)
    viewer.reports = mine
    viewer.nack(viewer.known()[-1])
    until(lambda: viewer.counts == (1, 0, 0))


def test_nonsense_is_ignored(viewer: Viewer) -> None:
    to = ("127.0.0.1", viewer.port)
    for nonsense in (b"", b"\x81", bytes(60_000), b"\x81\xcd\x00\x02" + bytes(8), b"\xff" * 1400):
        viewer.reports.sendto(nonsense, to)
    viewer.nack(*viewer.known()[-3:], times=REPORT_BYTES // 28)  # longer than any report is
    viewer.nack(*{number ^ 0x8000 for number in viewer.known()[-3:]})  # never sent, and not even looked up
    viewer.settle()
    assert viewer.counts == (0, 0, 0)
    assert viewer.server.running


def test_who_pauses_or_has_parted_is_sent_nothing_again(viewer: Viewer) -> None:
    numbers = viewer.known()[-5:]
    viewer.nack(*numbers)
    until(lambda: viewer.counts[0] == 5)
    assert viewer.raw.ask("PAUSE").status == 200
    viewer.nack(*viewer.known()[-8:-5])
    viewer.settle()
    assert viewer.counts == (5, 0, 0)
    with RawClient(viewer.server.url) as other:  # another client of this host, or the host is a stranger
        assert viewer.raw.ask("TEARDOWN").status == 200
        viewer.nack(*viewer.known()[-8:-5])
        assert other.ask("OPTIONS").status == other.ask("OPTIONS").status == 200
        assert viewer.counts == (5, 0, 0)
        viewer.raw.socket.close()
        until(lambda: len(viewer.server.signalling.peers) == 1)  # type: ignore[attr-defined]
        viewer.nack(*viewer.known()[-8:-5])
        assert other.ask("OPTIONS").status == other.ask("OPTIONS").status == 200
    assert viewer.counts == (5, 0, 0)
    again = [packet for packet in viewer.heard() if packet.payload_type == RTX_TYPE]
    assert [int.from_bytes(packet.payload[:2], "big") for packet in again] == numbers
    assert viewer.server.running


def test_what_is_asked_for_after_the_clips_end_is_sent_again(viewer: Viewer) -> None:
    viewer.server.signalling.peers[0].sender.end(0)  # type: ignore[attr-defined]
    viewer.nack(*viewer.known()[-2:])
    until(lambda: viewer.counts == (2, 0, 0))
