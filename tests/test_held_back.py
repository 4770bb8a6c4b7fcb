"""Rate control with a liar among the clients, over real sockets: who is believed, and who is said to hold all back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rawclient import RawClient, until

import avlab
from avlab.lab.notebook.panel import held_back
from avlab.network.ratecontrol import Choice, Report
from avlab.wire import rtcp, rtsp

pytestmark = pytest.mark.slow


SPAN = 50
"""Packets that a report of loss is about: some seven pictures."""


class Reporter:
    """A client by hand that reports whatever it likes, as often as it is asked to."""

    def __init__(self, stack: ExitStack, server: avlab.Server, address: str) -> None:
        self.raw = stack.enter_context(RawClient(server.url.replace("127.0.0.1", address)))
        self.reports = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.reports.bind(("127.0.0.1", 0))
        port = self.reports.getsockname()[1]
        granted = self.raw.set_up("video", f"RTP/AVP;unicast;client_port={port}-{port}")
        assert granted.server_port is not None
        self.to, self.ssrc = (address, granted.server_port[1]), granted.ssrc or 0
        infos = rtsp.parse_rtp_info(self.raw.ask("PLAY").headers["RTP-Info"])
        self.first = infos[0].seq or 0
        self.lost = 0
        self.highest = self.first
        self.before = self.first - 1, 0  # the highest and the lost of the report of loss before

    def listen(self) -> None:
        """See which packet is the latest."""
        self.reports.setblocking(False)
        try:
            while True:
                data = self.reports.recv(2048)
                if data[1] & 0x7F == 26:
                    ahead = (int.from_bytes(data[2:4], "big") - self.highest) & 0xFFFF
                    self.highest += ahead if ahead < 0x8000 else 0
        except BlockingIOError:
            return

    def say(self, **lies: Any) -> None:
        """A report that is true, but for the lies."""
        self.listen()
        said = {"fraction_lost": 0, "cumulative_lost": 0, "highest_sequence": self.highest, "jitter": 0} | lies
        block = rtcp.ReportBlock(self.ssrc, **said)
        data = rtcp.serialize_compound([rtcp.ReceiverReport(7, (block,)), rtcp.Sdes(7, "x")])
        self.reports.sendto(data, self.to)

    def lose(self, share: float) -> None:
        """A report of so much loss, whose numbers add up, once enough packets have come since the one before.

        A server reads few of those that come all the time: what they say is to be true of more than a moment.
        """
        self.listen()
        highest, lost = self.highest, round(share * (self.highest - self.first + 1))
        span = highest - self.before[0]
        if span < SPAN:
            return
        fraction = 256 * (lost - self.before[1]) // span  # RFC 3550 A.3
        self.before = highest, lost
        self.say(cumulative_lost=lost, fraction_lost=max(0, min(255, fraction)), highest_sequence=highest)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


LIES: list[dict[str, Any]] = [
    {"fraction_lost": 255},
    {"fraction_lost": 255, "cumulative_lost": 0x7FFFFF},
    {"fraction_lost": 255, "cumulative_lost": -10_000},
    {"fraction_lost": 255, "highest_sequence": 0x7FFF0000},
    {"fraction_lost": 255, "jitter": 0xFFFFFFFF},
]


@pytest.mark.parametrize("lie", LIES, ids=[" ".join(lie) for lie in LIES])
def test_a_liar_lowers_nobodys_quality(data: Path, stack: ExitStack, lie: dict[str, Any]) -> None:
    server = stack.enter_context(avlab.Server(data / "count.mp4", loop=True, rate_control="aimd", width=320))
    honest = Reporter(stack, server, "127.0.0.1")
    liar = Reporter(stack, server, "127.0.0.1")

    def said() -> bool:
        honest.say()
        liar.say(**lie)
        return int((server.trace.reports["stream"] == "video").sum()) >= 12

    until(said, 30)
    assert "report not believed" in list(server.trace.settings["name"])
    assert (server.quality, server.width) == (80, 320)
    assert server.held_back_by is None
    assert held_back(server) == ""


def test_who_holds_the_others_back_is_said(data: Path, stack: ExitStack) -> None:
    server = stack.enter_context(avlab.Server(data / "count.mp4", loop=True, rate_control="aimd", width=320))
    poor = Reporter(stack, server, "127.0.0.1")
    fine = Reporter(stack, server, "127.0.0.1")

    def lowered() -> bool:
        fine.say()
        poor.lose(0.4)
        return server.quality < 80

    until(lowered, 30)
    assert "report not believed" not in list(server.trace.settings["name"])
    assert server.held_back_by == "127.0.0.1"
    assert held_back(server) == (
        "Rate control: less is sent to all, as the path to the client at 127.0.0.1 takes no more."
    )


class Noting:
    """A controller of somebody's own."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def update(self, report: Report, /) -> Choice | None:
        self.reports.append(report)
        return None


def test_a_controller_of_ones_own_is_given_every_report(data: Path, stack: ExitStack) -> None:
    controller = Noting()
    server = stack.enter_context(avlab.Server(data / "count.mp4", loop=True, rate_control=controller, width=320))
    liar = Reporter(stack, server, "127.0.0.1")
    until(lambda: liar.say(fraction_lost=255) or any(report.loss > 0.9 for report in controller.reports), 30)
    assert server.held_back_by is None
