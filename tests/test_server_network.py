"""A server's own network, over real sockets: what it loses is what the simulation loses, and the ledgers close."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawclient import until

import avlab
from avlab.measure.numbers import metrics
from avlab.network.settings import Network


def play(data: Path, network: Network, **over: str) -> tuple[avlab.Trace, avlab.Trace]:
    """count-15.mp4 once through: the server's trace, and the client's, joined with it."""
    with (
        avlab.Server(data / "count-15.mp4", width=400, network=network) as server,
        avlab.Client(server.url, audio="null", **over) as client,  # type: ignore[arg-type]
    ):
        assert client.wait(60), "no BYE came"
    return server.trace, client.trace


def lost(trace: avlab.Trace, stream: str = "video") -> list[int]:
    """Which of a stream's packets were lost, counted from its first."""
    rows = trace.packets[(trace.packets["stream"] == stream) & trace.packets["sent"].notna()].sort_values("seq")
    return [int(at) for at in np.flatnonzero(rows["fate"] == "lost")]


@pytest.mark.slow
def test_a_seed_loses_the_same_packets_and_frames_in_simulation_and_on_sockets(data: Path) -> None:
    network = Network(loss=0.04, burst=2, seed=7)
    server, client = play(data, network)
    simulated = avlab.simulate(data / "count-15.mp4", seconds=5, width=400, quality=80, network=network, work=0)
    assert lost(server) == lost(client) == lost(simulated)
    assert len(lost(server)) > 5
    for trace in (client, simulated):
        assert metrics.packet_ledger(trace).closes
        assert metrics.frame_ledger(trace).closes

    def harmed(trace: avlab.Trace) -> list[int]:
        frames = trace.frames[trace.frames["stream"] == "video"]
        return sorted(frames["index"][frames["fate"].isin(["incomplete", "lost"])])

    assert harmed(client) == harmed(simulated)
    sizes = (trace.frames[trace.frames["stream"] == "video"].sort_values("index") for trace in (client, simulated))
    real, predicted = (frames[frames["fate"] == "shown"].set_index("index")["bytes"] for frames in sizes)
    both = real.index.intersection(predicted.index)
    assert (real[both] == predicted[both]).all()


@pytest.mark.slow
def test_delay_and_rate_hold_what_is_interleaved_and_lose_none_of_it(data: Path) -> None:
    network = Network(loss=0.5, delay=0.03, jitter=0.002, reorder=True, duplicate=0.5, rate=8_000)
    server, client = play(data, network, video_over="tcp", audio_over="tcp")
    assert lost(client) == lost(client, "audio") == lost(server) == []
    ledger = metrics.packet_ledger(client)
    assert ledger.closes
    assert (ledger.duplicated, ledger.in_flight) == (0, 0)
    assert metrics.one_way_delay(client)["delay_ms"].min() >= 30
    for stream in ("video", "audio"):
        rows = client.packets[client.packets["stream"] == stream].sort_values("seq")
        assert rows["received"].is_monotonic_increasing


@pytest.mark.slow
def test_everything_at_once_and_the_ledgers_close(data: Path) -> None:
    network = Network(loss=0.05, delay=0.02, jitter=0.01, reorder=True, duplicate=0.1, rate=6_000, queue=0.05)
    server, client = play(data, network, audio_over="udp")
    for stream in ("video", "audio"):
        ledger = metrics.packet_ledger(client, stream)
        assert ledger.closes
        assert ledger.lost > 0
        assert ledger.duplicated > 0
        assert lost(server, stream) == lost(client, stream)
    assert metrics.frame_ledger(client).closes
    assert (server.packets["fate"].isna() | (server.packets["fate"] == "lost")).all()


def test_it_acts_on_the_next_packet_and_on_each_client(data: Path) -> None:
    with avlab.Server(data / "count-15.mp4", width=320, loop=True) as server:
        clients = [avlab.Client(server.url, audio="null").start() for _ in range(2)]

        def video(client: avlab.Client) -> Any:
            rows = client.recent(3600, joined=False).packets
            return rows[rows["stream"] == "video"]

        until(lambda: all(len(video(client)) > 20 for client in clients))
        server.network = Network(loss=1)
        until(lambda: (server.trace.packets["fate"] == "lost").sum() > 40)
        counts = [len(video(client)) for client in clients]
        server.network = Network(loss=0.1)
        until(lambda: all(len(video(client)) > count + 60 for client, count in zip(clients, counts, strict=True)))
        server.network = Network()
        traces = [avlab.join(server.trace, client.recent(3600, joined=False)) for client in clients]
        for client in clients:
            client.stop()
    later = [set(lost(trace)) for trace in traces]
    assert later[0] != later[1]  # each has losses of its own
    settings = server.trace.settings
    assert list(settings["value"][settings["name"] == "network"]) == ["clear", "loss 1", "loss 0.1", "clear"]


def test_what_cannot_be(data: Path) -> None:
    clip = data / "count-15.mp4"
    with pytest.raises(TypeError, match=r"network must be an avlab\.Network, not 0\.02"):
        avlab.Server(clip, network=0.02)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="network acts on the rtsp wire alone"):
        avlab.Server(clip, wire="classic", network=Network(loss=0.1))
    server = avlab.Server(clip)
    assert server.network == Network()
    server.network = Network.presets["4g"]
    assert server.network.rate == 13_000
    with pytest.raises(ValueError, match="loss must be a share"):
        server.network = Network(loss=7)
    assert server.network.rate == 13_000


@pytest.mark.slow
def test_an_isolated_server_has_it_too(data: Path) -> None:
    network = Network(loss=0.04, burst=2, seed=7)
    with (
        avlab.Server(data / "count-15.mp4", width=400, network=network, isolated=True) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        assert server.network == network
        assert client.wait(60), "no BYE came"
        trace = server.trace
    simulated = avlab.simulate(data / "count-15.mp4", seconds=5, width=400, network=network, work=0)
    assert lost(trace) == lost(simulated)


def test_reports_take_the_way_up_and_say_how_long_both_are(data: Path) -> None:
    with (
        avlab.Server(data / "count-15.mp4", width=160, loop=True, network=Network(delay=0.15)) as server,
        avlab.Client(server.url, audio="null", audio_over="tcp"),
    ):
        until(lambda: len(server.trace.reports["round_trip"].dropna()) >= 4)
        reports = server.trace.reports
    assert reports["round_trip"][reports["stream"] == "video"].min() >= 0.3
    assert reports["round_trip"][reports["stream"] == "audio"].min() >= 0.15, "over TCP, they are spared"
