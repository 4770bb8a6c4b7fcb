"""avlab as anyone uses it: a server of an iterable of arrays, and clients that look at each picture as it comes."""

from __future__ import annotations

import threading

import avlab
from benchmarks.peers.job import Desk

WAITING = 8
"""Pictures that wait while one is decoded: they smooth out what two busy cores do, and the others queue far more."""


def send(desk: Desk) -> None:
    """Serve the pictures; with `paces`, at the times that avlab keeps."""
    job = desk.job
    pacer = "deadline" if job.paces else "none"
    with avlab.Server(desk.arrays(), port=job.port, pacer=pacer, quality=job.quality, fps=job.fps or None) as server:
        desk.board.ready()
        server.wait()


def receive(desk: Desk) -> None:
    """Play them, all receivers in this process."""
    desk.board.wait_ready()
    threads = [threading.Thread(target=_play, args=(desk, receiver)) for receiver in range(desk.job.receivers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _play(desk: Desk, receiver: int) -> None:
    with avlab.Client(f"rtsp://127.0.0.1:{desk.job.port}/live", playout_delay=0) as client:
        for frame in client.frames(waiting=WAITING):
            desk.decoded(receiver, frame.image)
