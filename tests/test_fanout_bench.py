"""The fan-out benchmark: what its clients count, and a run of two of them with sound and without."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import avlab
from avlab.media.sources import ClipSource
from avlab.wire.rtp import serialize_header
from benchmarks.fanout import FPS, HEAD, RATE, VIDEO_CLOCK, Room, Stream, cells, measure, write_clip
from benchmarks.memory import watch
from benchmarks.peers.pictures import reel

BYTES = 120


def packets(number: int, count: int, *, first: int) -> list[bytes]:
    """A picture's packets: the sequence numbers begin at `first`, the last packet is the shorter one."""
    out = []
    for place in range(count):
        header = serialize_header(
            26, (first + place) & 0xFFFF, number * VIDEO_CLOCK // FPS & 0xFFFFFFFF, 1, place == count - 1
        )
        size = BYTES if place < count - 1 else BYTES // 2
        out.append((header + bytes(1) + (place * 100).to_bytes(3, "big")).ljust(size, b"\1"))
    return out


@pytest.fixture
def stream() -> Iterator[Stream]:
    one = Stream("127.0.0.1", pictures=True)
    yield one
    one.close()


def feed(stream: Stream, sent: list[bytes], together: bool) -> None:
    if not together:
        for packet in sent:
            stream.count(packet, len(packet), len(packet))
    elif sent:
        stream.count(b"".join(sent), sum(map(len, sent)), len(sent[0]))


@pytest.mark.parametrize("together", [False, True])
def test_pictures_that_came_whole_are_counted(stream: Stream, together: bool) -> None:
    first = 65_530  # sequence numbers wrap
    for number in range(FPS):
        feed(stream, packets(number, 5, first=first + 5 * number), together)
    assert (stream.packets, stream.missing, stream.delivered(1.0)) == (5 * FPS, 0, 1.0)


@pytest.mark.parametrize("lost", range(5))
def test_a_picture_that_lacks_a_packet_is_none_and_costs_no_other(stream: Stream, lost: int) -> None:
    for number in range(FPS):
        sent = packets(number, 5, first=5 * number)
        if number == 10:
            del sent[lost]
        feed(stream, sent, together=False)
    assert (stream.packets, stream.missing) == (5 * FPS - 1, 1)
    assert stream.delivered(1.0) == (FPS - 1) / FPS


def test_a_picture_that_comes_in_pieces_is_one(stream: Stream) -> None:
    rng = random.Random(1)
    for number in range(FPS):
        sent = packets(number, 40, first=40 * number)
        cut = rng.randrange(1, 39)
        feed(stream, sent[:cut], together=True)
        feed(stream, sent[cut:], together=True)
    assert stream.delivered(1.0) == 1.0


def test_pictures_later_than_what_is_measured_do_not_make_up_for_those_that_are_missing(stream: Stream) -> None:
    for number in [*range(20), *range(FPS, 2 * FPS)]:
        feed(stream, packets(number, 1, first=number), together=False)
    assert stream.delivered(1.0) == 20 / FPS


def test_nothing_is_nothing(stream: Stream) -> None:
    stream.count(b"", 0, 0)
    stream.count(bytes(5), 5, 5)
    assert stream.delivered(1.0) == 0.0


def test_the_clip_has_both_and_ends_where_it_begins(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mkv", seconds=1)
    source = ClipSource(tmp_path / "clip.mkv")
    assert (source.width, source.height, source.fps, source.rate) == (640, 360, FPS, RATE)
    assert sum(1 for _ in source.pictures()) == FPS


@pytest.mark.slow
@pytest.mark.parametrize("sound", [False, True])
def test_two_clients_are_served_and_counted(tmp_path: Path, sound: bool) -> None:
    before = set(psutil.Process().children())  # of tests before it, as joblib's workers are
    clip = tmp_path / "clip.mkv" if sound else None
    if clip:
        write_clip(clip)
    row = measure(2, clip, 1.0, warm=0.2)
    assert (row.clients, row.sound) == (2, sound)
    assert 0 < row.least <= row.delivered <= 1
    assert (row.heard is not None) is sound
    assert row.sender > 0
    assert row.mbps > 0
    assert row.offload
    assert cells(row).count("|") == HEAD[0].count("|") == HEAD[1].count("|")
    assert not set(psutil.Process().children()) - before


def test_a_server_that_has_no_room_says_so() -> None:
    with avlab.Server(list(reel(416, 80, 1)), loop=True, clients=1) as server, Room() as room:
        room.enter(server.url, sound=False)
        with pytest.raises(RuntimeError, match="places are taken"):
            room.enter(server.url, sound=False)


def test_the_memory_of_a_server_is_read_while_clients_count(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    most = watch(data / "count.mp4", 2, 1.5, every=0.5)
    _, _, *rows = capsys.readouterr().out.splitlines()
    cells_of = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    counted = [int(row[2].replace(",", "")) for row in cells_of]
    assert len(rows) == 3
    assert counted == sorted(counted)
    assert counted[-1] > 0
    assert [row[4] for row in cells_of[1:]] == ["0", "0"]
    assert 20 << 20 < most < 1 << 30
    assert max(float(row[1]) for row in cells_of) == round(most / (1 << 20))
