"""Repair between a server and a client on real sockets: negotiated, counted apart, and deaf to those who mean harm."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Any

import pytest
from rawclient import RawClient, reports_port, until

import avlab
from avlab.core.repairing import Asking
from avlab.measure.numbers import metrics
from avlab.network.ratecontrol import Choice, Report
from avlab.stream.sockets.links import Address, UdpLink
from avlab.wire import rtcp, sdp
from avlab.wire.batch import Batch
from avlab.wire.rtp import MAX_PACKET, serialize_header

pytestmark = pytest.mark.slow


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all RTP packets over UDP, one in twenty is lost on its way."""
    chance = random.Random(1)

    def lose(self: UdpLink, batch: Batch, to: Address) -> int:
        packets = batch.datagrams()
        kept = [packet for packet in packets if len(packet) < 200 or chance.random() >= 0.05]
        if kept:
            self.send(kept, to)
        return len(packets)

    monkeypatch.setattr(UdpLink, "send_batch", lose)


def played(data: Path, *, seconds: float = 4, spread: float = 0.0, **settings: Any) -> avlab.Trace:
    with (
        avlab.Server(data / "count.mp4", width=400, quality=80, spread=spread, parity=0.34) as server,
        avlab.Client(server.url, audio="null", video_over="udp", **settings) as client,
    ):
        client.wait(seconds)
    return client.trace


@pytest.mark.alone
@pytest.mark.usefixtures("lossy")
@pytest.mark.parametrize(
    ("repair", "spread", "delay"), [("rtx", 0.0, 0.4), ("rtx", 0.5, "adaptive"), ("fec", 0.5, 0.4)]
)
def test_most_of_what_is_lost_comes_back(data: Path, repair: str, spread: float, delay: Any) -> None:
    trace = played(data, repair=repair, spread=spread, playout_delay=delay)
    ledger = metrics.packet_ledger(trace, "video")
    assert ledger.closes
    assert ledger.recovered > 10
    # The last row of a run may be a loss that nobody has seen yet; parity does not bring back two of a group.
    media = trace.packets.query("stream == 'video' and fate in ('lost', 'recovered')")
    assert (media["fate"] == "recovered").mean() > (0.8 if repair == "rtx" else 0.4)
    assert metrics.frame_ledger(trace).closes
    assert trace.packets["bytes"].max() <= MAX_PACKET
    assert metrics.summary(trace).packet_loss_percent == pytest.approx(5, abs=3)


@pytest.mark.usefixtures("lossy")
def test_without_a_wish_nothing_is_repaired(data: Path) -> None:
    trace = played(data, seconds=2)
    assert metrics.packet_ledger(trace, "video").recovered == 0
    assert trace.packets.query("stream == 'video'")["ssrc"].nunique() == 1


def test_over_tcp_there_is_nothing_to_repair(data: Path) -> None:
    with avlab.Server(data / "count.mp4", width=160) as server:
        with avlab.Client(server.url, audio="null", video_over="tcp", repair="rtx") as client:
            client.wait(0.5)
        assert "no repair" in set(client.trace.settings["name"])


@pytest.mark.parametrize("wrong", ["nack", 1, True, "RTX"])
def test_an_unknown_repair_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="repair must be 'rtx'"):
        avlab.Client("rtsp://127.0.0.1:1/x", repair=wrong)


def test_the_classic_wire_has_no_repair_and_says_so(data: Path) -> None:
    with pytest.raises(ValueError, match="repair='rtx' cannot be had: the classic wire"):
        avlab.Client("classic://127.0.0.1:9688", repair="rtx")
    server = avlab.Server(data / "count.mp4", wire="classic", spread=0.5, rate_control="aimd")
    assert [words.split()[0] for words in server.notices] == ["spread", "rate_control"]


@pytest.mark.parametrize(
    ("setting", "wrong", "named"),
    [
        ("spread", 1.0, "spread must be 0"),
        ("parity", -0.1, "parity must be 0 to 1"),
        ("rate_control", "pid", "rate_control must be one of aimd or None"),
    ],
)
def test_impossible_settings_of_a_server_are_named(data: Path, setting: str, wrong: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        avlab.Server(data / "count.mp4", **{setting: wrong})
    server = avlab.Server(data / "count.mp4")
    with pytest.raises(ValueError, match=named):
        setattr(server, setting, wrong)


def test_the_description_offers_both_and_names_the_medium_as_before(data: Path) -> None:
    with avlab.Server(data / "count.mp4") as server, RawClient(server.url) as raw:
        answer = raw.ask("DESCRIBE")
        video = sdp.parse(answer.body.decode()).media[0]
    assert (video.payload_type, video.encoding) == (26, "JPEG")
    assert video.repairs == {"rtx": 98, "fec": 99}
    assert b"m=video 0 RTP/AVPF 26 98 99" in answer.body
    assert b"a=fmtp:98 apt=26;rtx-time=1000" in answer.body
    assert b"a=rtcp-fb:26 nack" in answer.body


def test_a_flood_of_nacks_is_bounded_and_the_stream_goes_on(data: Path) -> None:
    with (
        avlab.Server(data / "count.mp4", width=160) as server,
        avlab.Client(server.url, audio="null", repair="rtx") as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hostile,
    ):
        until(lambda: len(client.trace.packets.query("stream == 'video'")) > 20)
        packets = client.trace.packets.query("stream == 'video'")
        ssrc = int(packets["ssrc"].iloc[0])
        port = reports_port(server.url)
        for first in range(0, 65_536, 4096):
            nack = rtcp.Nack(1, ssrc, tuple(range(first, first + 4096)))
            data_ = rtcp.serialize_compound([rtcp.ReceiverReport(1), rtcp.Sdes(1, "x"), nack])
            hostile.sendto(data_, ("127.0.0.1", port))
        seen = len(packets)
        until(lambda: len(client.trace.packets.query("stream == 'video' and fate == 'used'")) > seen + 60)
        assert client.running
        assert server.running
        again = client.trace.packets.query("stream == 'video' and ssrc != @ssrc")
        assert len(again) < 0.6 * len(client.trace.packets) + 64
        assert set(again["fate"]) <= {"duplicate", "used", "late", "lost", "in_flight"}


def test_a_flood_of_retransmissions_that_nobody_asked_for_changes_nothing(data: Path) -> None:
    with (
        avlab.Server(data / "count.mp4", width=160) as server,
        avlab.Client(server.url, audio="null", repair="rtx") as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hostile,
    ):
        until(lambda: len(client.trace.packets.query("stream == 'video'")) > 20)
        repairing = client.presentation.player.streams["video"].repairing
        assert repairing is not None
        asking = repairing.asking
        assert isinstance(asking, Asking)
        port = client.receiver.ways["video"].granted.links[0].port  # type: ignore[attr-defined]
        chance = random.Random(2)
        for number in range(2000):
            payload = chance.randbytes(chance.randrange(60))
            hostile.sendto(serialize_header(98, number, number, asking.ssrc or 0, False) + payload, ("127.0.0.1", port))
        seen = len(client.trace.frames.query("fate == 'shown'"))
        until(lambda: len(client.trace.frames.query("fate == 'shown'")) > seen + 20)
        assert client.error is None
    assert metrics.frame_ledger(client.trace).closes


class Half:
    """A student's rate controller: half the width from the first report on."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def update(self, report: Report, /) -> Choice | None:
        self.reports.append(report)
        return Choice(50, 320)


def test_a_rate_controller_of_ones_own_hears_reports_and_chooses(data: Path) -> None:
    own = Half()
    with (
        avlab.Server(data / "count.mp4", width=640, rate_control=own) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        until(lambda: len(own.reports) > 2)
        assert (server.quality, server.width) == (50, 320)
        report = own.reports[-1]
        assert client.running
    assert report.round_trip is not None
    assert 0 <= report.round_trip < 5
    assert report.sent_kbps > 0
    assert report.loss == 0 or "socket_dropped" in set(client.trace.settings["name"])
    values = client.trace.settings.query("name == 'width'")["value"].tolist()
    assert values == [640, *[320] * (len(values) - 1)]
    assert len(values) > 1


class Broken:
    def update(self, report: Report, /) -> Choice | None:
        raise ZeroDivisionError("no idea")


def test_a_rate_controller_that_fails_is_named_and_nothing_is_adapted_from_then_on(data: Path) -> None:
    with (
        avlab.Server(data / "count.mp4", rate_control=Broken) as server,
        avlab.Client(server.url, audio="null"),
    ):
        until(lambda: server.error is not None)
        assert server.running
        assert any("the rate controller Broken failed: ZeroDivisionError: no idea" in told for told in server.notices)
    assert "Broken" in str(server.error)


def test_a_delay_goes_from_set_to_adaptive_and_back(data: Path) -> None:
    with avlab.Server(data / "count.mp4", width=160) as server:
        with avlab.Client(server.url, audio="null", playout_delay=1.0) as client:
            until(lambda: len(client.trace.frames.query("fate == 'shown'")) > 15)
            assert client.playout_delay == client.playout_target == 1.0
            client.playout_delay = "adaptive"
            until(lambda: client.playout_target != 1.0)  # beyond the quickest arrival, that is
            first = client.playout_target
            until(lambda: client.playout_target < first - 0.01)
            assert client.playout_delay == "adaptive"
            client.playout_delay = 0.2
            until(lambda: client.playout_target == 0.2)
            seen = len(client.trace.frames.query("fate == 'shown'"))
            until(lambda: len(client.trace.frames.query("fate == 'shown'")) > seen + 15)
        assert client.error is None
    with pytest.raises(ValueError, match="0 to 5 seconds or 'adaptive'"):
        client.playout_delay = "quick"  # type: ignore[assignment]


def test_packets_are_spread_over_the_frame_and_in_order(data: Path) -> None:
    trace = played(data, seconds=2, spread=0.5)
    sent = trace.packets.query("stream == 'video'").dropna(subset=["sent"]).sort_values("seq")
    assert sent["sent"].is_monotonic_increasing
    whole = sent[sent["timestamp"].isin(sent["timestamp"][sent["marker"].astype(bool)])]  # the last may be cut short
    moments = whole.groupby("timestamp")["sent"].agg(["min", "max", "nunique"])
    assert len(moments) > 10
    # A busy machine sends later, and never sooner: the quickest frame took half its time, and no frame less. One that
    # had to wait for the rest of the frame before it has less time left.
    moments = moments[moments["min"] > moments["max"].shift(fill_value=0.0)]
    assert 0.499 / 30 < (moments["max"] - moments["min"]).min() < 1 / 30
    assert moments["nunique"].max() > 3
