"""imageZMQ with JPEG as its documentation shows it: PUB/SUB, or REQ/REP, which waits for an answer to each picture."""

from __future__ import annotations

import time

import imagezmq
import simplejpeg

from benchmarks.peers.job import Desk


def send(desk: Desk) -> None:
    """Send to whoever has subscribed, or to the one hub."""
    job = desk.job
    answered = job.option == "req"
    sender = imagezmq.ImageSender(
        f"tcp://127.0.0.1:{job.port}" if answered else f"tcp://*:{job.port}", REQ_REP=answered
    )
    desk.board.ready()
    if not answered:
        time.sleep(1.0)  # what is sent before they have subscribed is lost
    for image in desk.arrays():
        sender.send_jpg("bench", simplejpeg.encode_jpeg(image, job.quality, "BGR", "420"))


def receive(desk: Desk) -> None:
    """Decode what comes."""
    job = desk.job
    answered = job.option == "req"
    hub = imagezmq.ImageHub(f"tcp://*:{job.port}" if answered else f"tcp://127.0.0.1:{job.port}", REQ_REP=answered)
    while True:
        _, jpeg = hub.recv_jpg()
        if answered:
            hub.send_reply(b"OK")
        desk.decoded(simplejpeg.decode_jpeg(jpeg, "BGR"))
