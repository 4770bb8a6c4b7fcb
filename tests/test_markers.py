"""Senders that set no markers: a picture ends where the next number is of another one. In order or not, lossy."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from encoded import access_units

from avlab.media.codec import encode_jpeg
from avlab.timing.jitterbuffer import AssemblingBuffer, Frame, Run
from avlab.wire.batch import Batch
from avlab.wire.payloads.bytes import BytesFormat
from avlab.wire.payloads.formats import H264Format, JpegFormat
from avlab.wire.payloads.nal import split
from avlab.wire.rtp import MARKER
from avlab.wire.units import EncodedFrame

TICKS = 3_000


def jpegs(count: int) -> list[bytes]:
    noise = np.random.default_rng(1).integers(0, 256, (count, 48, 64, 3), np.uint8)
    return [encode_jpeg(image, quality=90)[0] for image in noise]


FORMATS: dict[str, tuple[Any, list[bytes]]] = {
    "jpeg": (JpegFormat(), jpegs(4)),
    "h264": (H264Format(), [data for _, data in access_units(4, size=(320, 240), key_every=1)]),
    "bytes": (BytesFormat(), jpegs(4)),
}


def packets(name: str) -> list[list[Run]]:
    """The packets of four pictures, each by itself, without a marker."""
    form, pictures = FORMATS[name]
    made = []
    number = 100
    for index, data in enumerate(pictures):
        packed = form.pack(EncodedFrame(index, 0, data, 64, 48), payload_type=96, packet_size=600)
        runs = []
        for batch in packed.all_stamped(sequence=number, timestamp=index * TICKS, ssrc=1):
            for packet in batch.datagrams():
                plain = packet[:1] + bytes([packet[1] & ~MARKER]) + packet[2:]
                runs.append(Run(number, index * TICKS, index * 33, False, Batch(plain, len(plain)), form))
                number += 1
        assert len(runs) > 1
        made.append(runs)
    return made


def whole(runs: list[Run]) -> list[int]:
    """Which pictures come out of a buffer, in which order."""
    buffer = AssemblingBuffer()
    for run in runs:
        assert buffer.push_run(run, 0) == ["used"]
    frames = [item for item in buffer.pull(0) if isinstance(item, Frame)]
    assert all(frame.data and frame.packets_lost == 0 for frame in frames)
    return [frame.ticks // TICKS for frame in frames]


@pytest.mark.parametrize("name", FORMATS)
def test_a_picture_is_whole_when_the_next_one_begins(name: str) -> None:
    assert whole([run for runs in packets(name) for run in runs]) == [0, 1, 2]


@pytest.mark.parametrize("name", FORMATS)
def test_whole_ones_have_the_bytes_that_were_sent(name: str) -> None:
    pictures = FORMATS[name][1]
    buffer = AssemblingBuffer()
    for runs in packets(name):
        for run in runs:
            buffer.push_run(run, 0)
    came = [item.data or b"" for item in buffer.pull(0) if isinstance(item, Frame)]
    if name == "h264":  # whose start codes may be longer
        assert [split(data) for data in came] == [split(one) for one in pictures[:3]]
    else:  # headers are made anew
        assert [data[-200:] for data in came] == [one[-200:] for one in pictures[:3]]


@pytest.mark.parametrize("name", FORMATS)
def test_in_whatever_order_the_last_packets_of_one_and_the_first_of_the_next_come(name: str) -> None:
    first, second, third, *_ = packets(name)
    tail = [first[-1], second[0], second[1]]
    for order in permutations(tail):
        assert sorted(whole([*first[:-1], *order, *second[2:], *third])) == [0, 1], order


@pytest.mark.parametrize("name", FORMATS)
def test_one_of_which_a_packet_is_lost_is_none_and_the_others_are_whole(name: str) -> None:
    every = packets(name)
    for at in (0, 1, -1):
        second = every[1].copy()
        del second[at]
        found = whole([*every[0], *second, *every[2], *every[3]])
        # Where a packet is lost between two, nobody knows of which it was, but where packets tell their place.
        touched = {0: {0}, 1: set(), -1: {2}}[at] if name == "h264" else {0} if at == 0 else set()
        assert set(found) == {0, 2} - touched, (at, found)
