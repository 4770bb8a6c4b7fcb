"""A camera of avlab: H.264 of numbered pictures, each handed over when it is due, as a device does."""

from __future__ import annotations

import avlab
from benchmarks.peers.job import Desk

BIT_RATE = 4_000
"""Kilobits a second, of GStreamer's camera as well."""


def serve(desk: Desk) -> None:
    """Serve them at /live."""
    job = desk.job
    with avlab.Server(
        desk.arrays(), port=job.port, pacer="none", fps=job.fps, codec="h264", bit_rate=BIT_RATE
    ) as server:
        desk.board.ready()
        server.wait()
