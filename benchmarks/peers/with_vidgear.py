"""VidGear's NetGear with its JPEG compression: one receiver in its default pattern, several by PUB/SUB."""

from __future__ import annotations

import time

from vidgear.gears import NetGear

from benchmarks.peers.job import Desk


def send(desk: Desk) -> None:
    """Send to one port, or to one a receiver."""
    ports = tuple(str(port) for port in _ports(desk))
    several = len(ports) > 1
    sender = NetGear(address="127.0.0.1", port=ports if several else ports[0], protocol="tcp", **_options(desk))
    desk.board.wait_receivers()
    time.sleep(1.0)
    for image in desk.arrays():
        sender.send(image)


def receive(desk: Desk) -> None:
    """Decode what comes."""
    port = str(_ports(desk)[desk.receiver])
    taker = NetGear(address="127.0.0.1", port=port, protocol="tcp", receive_mode=True, **_options(desk))
    desk.board.ready(desk.receiver)
    while (got := taker.recv()) is not None:
        desk.decoded(got[1] if isinstance(got, tuple) else got)


def _ports(desk: Desk) -> range:
    return range(desk.job.port, desk.job.port + desk.job.receivers)


def _options(desk: Desk) -> dict[str, object]:
    options: dict[str, object] = {"jpeg_compression": "BGR", "jpeg_compression_quality": desk.job.quality}
    if desk.job.receivers > 1:
        options |= {"pattern": 2, "multiclient_mode": True}
    return options
