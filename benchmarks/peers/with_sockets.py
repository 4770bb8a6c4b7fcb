"""The tutorial re-enacted: a JPEG in base64 in one datagram, to whoever said hello, at a rate that a loop feels for.

With `paces` the loop nudges its wait by a millisecond a picture; without, it does not wait at all.
"""

from __future__ import annotations

import base64
import queue
import socket
import threading
import time

import cv2
import numpy as np

from benchmarks.peers.job import Desk

BUFFER = 65_536
LARGEST = 65_507


def send(desk: Desk) -> None:
    """Answer the first hello with pictures without end."""
    job = desk.job
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    link.bind(("127.0.0.1", job.port))
    desk.board.ready()
    _, client = link.recvfrom(BUFFER)
    pictures: queue.Queue[tuple[int, np.ndarray]] = queue.Queue(maxsize=10)
    threading.Thread(target=_fill, args=(desk, pictures), daemon=True).start()
    wait, last, count = 0.5 / job.fps if job.fps else 0.0, 0.0, 0
    while True:
        number, image = pictures.get()
        desk.board.handed(number)
        _, jpeg = cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, job.quality])
        datagram = base64.b64encode(jpeg.tobytes())
        if len(datagram) > LARGEST:
            raise ValueError(f"{len(datagram)} bytes do not fit a datagram")
        link.sendto(datagram, client)
        if not job.fps:
            continue
        if count == 1:
            now = time.time()
            wait += 0.001 if 1 / (now - last) > job.fps else -0.001
            last, count = now, 0
        count += 1
        time.sleep(max(1, int(1000 * wait)) / 1000)  # cv2.waitKey takes whole milliseconds, and 0 for ever


def _fill(desk: Desk, pictures: queue.Queue[tuple[int, np.ndarray]]) -> None:
    # A picture is handed over when the loop takes it: what waits in the queue has not been sent yet.
    for number, image in enumerate(desk.arrays()):
        pictures.put((number, image))


def receive(desk: Desk) -> None:
    """Say hello until there is a picture, then decode each as it comes."""
    desk.board.wait_sender()
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    link.sendto(b"Hello", ("127.0.0.1", desk.job.port))
    while True:
        jpeg = base64.b64decode(link.recvfrom(BUFFER)[0], b" /")
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        if image is not None:
            desk.decoded(image)
