"""Rate control against a bottleneck on real sockets: down before it drops, up again when it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rawclient import until

import avlab
from avlab.measure.numbers import metrics
from avlab.network.ratecontrol import Choice, cost
from avlab.network.settings import Network

pytestmark = pytest.mark.slow

BEST = Choice(80, 640)
NARROW = Network(rate=3_000, queue=0.2, delay=0.01)
"""Room for 1,411 kbit/s of sound and not half of the pictures at their best."""
SECONDS = 60.0


@contextmanager
def playing(data: Path, rate_control: str | None) -> Iterator[tuple[avlab.Server, avlab.Client]]:
    settings = {"quality": BEST.quality, "width": BEST.width, "loop": True, "rate_control": rate_control}
    with (
        avlab.Server(data / "count.mp4", network=NARROW, **settings) as server,  # type: ignore[arg-type]
        avlab.Client(server.url, audio="null") as client,
    ):
        yield server, client


def sent(server: avlab.Server) -> Choice:
    assert server.width is not None
    return Choice(server.quality, server.width)


def decided(client: avlab.Client) -> list[str]:
    """The fates of the frames that have one, in order."""
    frames = client.trace.frames.query("stream == 'video'").sort_values("index")
    return [str(fate) for fate in frames["fate"] if fate != "in_flight"]


def share_shown(client: avlab.Client, first: int) -> float:
    """Of sixty frames from one on."""
    until(lambda: len(decided(client)) >= first + 60, SECONDS)
    return decided(client)[first : first + 60].count("shown") / 60


def test_quality_goes_down_before_a_bottleneck_and_up_again_behind_it(data: Path) -> None:
    with playing(data, None) as (server, client):
        fixed = share_shown(client, 60)
        assert sent(server) == BEST
    assert metrics.packet_ledger(client.trace).closes
    assert metrics.frame_ledger(client.trace).closes

    with playing(data, "aimd") as (server, client):

        def calm() -> bool:
            """Less is sent, and nothing of it was lost in the last two reports."""
            losses = server.trace.reports.query("stream == 'video'")["loss"].tolist()
            return cost(sent(server)) < 0.7 * cost(BEST) and losses[-2:] == [0, 0]

        until(calm, SECONDS)
        adapted = share_shown(client, len(decided(client)))
        narrow = sent(server)
        server.network = Network()
        until(lambda: cost(sent(server)) > 1.3 * cost(narrow), SECONDS)
        chosen = server.trace.settings.query("name == 'quality' or name == 'width'")
    assert adapted > fixed + 0.3
    assert cost(narrow) < 0.7 * cost(BEST)
    assert len(chosen) > 4  # what was chosen is in the record, too
    assert metrics.packet_ledger(client.trace).closes
    assert metrics.frame_ledger(client.trace).closes
