"""avlab as anyone uses it: a server of an iterable of arrays, and a client that looks at each picture as it comes.

`option` is the size of packets, where it is not avlab's own. The system cuts frames into packets from the first one on
(`offload="on"`). By itself avlab has it do so at a higher rate than 30 pictures a second for one client, so that a
capture shows packets as they are.
"""

from __future__ import annotations

import inspect
import threading
from typing import Any

import avlab
from benchmarks.peers.job import Desk

WAITING = 8
"""Pictures that wait while one is decoded: they smooth out what two busy cores do, and the others queue far more."""


def missing_packet_size() -> str | None:
    """A sentence where this avlab's packets have one size; else None."""
    has = "packet_size" in inspect.signature(avlab.Server).parameters
    return None if has else "this avlab sends packets of one size only"


def send(desk: Desk) -> None:
    """Serve the pictures; with `paces`, at the times that avlab keeps."""
    job = desk.job
    pacer = "deadline" if job.paces else "none"
    settings: dict[str, Any] = {"packet_size": int(job.option)} if job.option else {}
    if "offload" in inspect.signature(avlab.Server).parameters:
        settings["offload"] = "on"
    with avlab.Server(
        desk.arrays(together=True), port=job.port, pacer=pacer, quality=job.quality, fps=job.fps or None, **settings
    ) as server:
        threading.Thread(target=_tell_offload, args=(desk, server), daemon=True).start()
        desk.board.ready()
        server.wait()


def _tell_offload(desk: Desk, server: avlab.Server) -> None:
    """Whether the system cut frames into packets while it was measured; read afterwards, so that it costs nothing."""
    desk.board.tell_offload("")
    from_ns = desk.board.wait_measured()
    trace = server.trace
    rows = trace.settings[trace.settings["name"] == "offload in use"]
    began = (from_ns - trace.epoch_ns) / 1e9
    before, after = rows[rows["time"] < began]["value"], rows[rows["time"] >= began]["value"]
    used = {str(value) for value in [*before.iloc[-1:], *after]} or {"off"}
    desk.board.tell_offload(used.pop() if len(used) == 1 else "for some of the time")


def receive(desk: Desk) -> None:
    """Play them."""
    desk.board.wait_sender()
    with avlab.Client(f"rtsp://127.0.0.1:{desk.job.port}/live", playout_delay=0) as client:
        desk.board.ready(desk.receiver)
        for frame in client.frames(waiting=WAITING):
            desk.decoded(frame.image)
