"""The codecs alone: one process encodes, another decodes, and a JPEG passes through shared memory. What is possible."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import simplejpeg

from benchmarks.peers.job import Desk

SLOTS, SLOT_BYTES = 4, 1 << 20


def send(desk: Desk) -> None:
    """Encode into the next free slot."""
    slots, free, full = _open(desk, writer=True)
    for slot in range(SLOTS):
        os.write(free[1], bytes((slot,)))
    desk.board.ready()
    for image in desk.arrays():
        jpeg = simplejpeg.encode_jpeg(image, desk.job.quality, "BGR", "420")
        at = os.read(free[0], 1)[0] * SLOT_BYTES
        slots[at : at + 4] = len(jpeg).to_bytes(4, "little")
        slots[at + 4 : at + 4 + len(jpeg)] = jpeg
        os.write(full[1], bytes((at // SLOT_BYTES,)))


def receive(desk: Desk) -> None:
    """Decode each slot as it is filled."""
    slots, free, full = _open(desk, writer=False)
    while turn := os.read(full[0], 1):
        at = turn[0] * SLOT_BYTES
        jpeg = slots[at + 4 : at + 4 + int.from_bytes(slots[at : at + 4], "little")]
        os.write(free[1], turn)
        desk.decoded(simplejpeg.decode_jpeg(jpeg, "BGR"))


def _open(desk: Desk, *, writer: bool) -> tuple[mmap.mmap, tuple[int, int], tuple[int, int]]:
    """The slots, and a FIFO each for the numbers of the free and of the full ones, as (read, write) ends."""
    folder = Path(desk.job.folder)
    if writer:
        (folder / "slots").write_bytes(bytes(SLOTS * SLOT_BYTES))
        for name in ("free", "full"):
            os.mkfifo(folder / name)
    else:
        desk.board.wait_sender()
    # Opened for both at once, or each side would wait for the other to open its end.
    ends = [os.open(folder / name, os.O_RDWR) for name in ("free", "full")]
    with (folder / "slots").open("r+b") as file:
        slots = mmap.mmap(file.fileno(), 0)
    return slots, (ends[0], ends[0]), (ends[1], ends[1])
