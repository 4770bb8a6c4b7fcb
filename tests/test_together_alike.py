"""What is taken together fares as each by itself: runs of packets, chunks of sound, rows, blanks in place of JPEGs."""

from __future__ import annotations

import pickle
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import avlab
from avlab.core.player import Player
from avlab.measure.record.trace import FrameRow, Recorder
from avlab.network.retransmission import Requester
from avlab.stream.virtual import filler
from avlab.stream.virtual.device import Device
from avlab.timing.level import LevelControl
from avlab.timing.soundbuffer import SoundBuffer
from avlab.timing.target import DelayTarget
from avlab.timing.timeline import Timeline
from avlab.wire.batch import Batch
from avlab.wire.payloads.jpeg import FrameAssembler, packed
from avlab.wire.rtp import RtpRun, chunk, runs
from avlab.wire.units import NS

MS = NS // 1000


# ---- blanks in place of JPEGs


def test_a_blank_picture_is_what_its_jpeg_would_be_cut_into() -> None:
    chance = random.Random(1)
    for _ in range(300):
        scan = chance.randrange(1, chance.choice([40, 3_000, 150_000]))
        settings = chance.choice([16, 400, 2040]), chance.randrange(1, 101)
        size = chance.choice([576, 1_200, 9_000, 65_000])
        assert filler.picture(scan, *settings, size) == packed(filler.jpeg(scan, *settings), packet_size=size)


@given(st.integers(1, 20_000), st.integers(0, 1 << 32))
def test_blanks_are_put_together_as_jpegs_are(scan: int, seed: int) -> None:
    """In any order, in runs of any length, and with packets missing."""
    chance = random.Random(seed)
    batch = filler.picture(scan, 400, 80).batch
    cuts = sorted({0, batch.total, *(chance.randrange(batch.total + 1) for _ in range(4))})
    parts = [(first, after) for first, after in pairwise(cuts) if chance.random() < 0.8]
    chance.shuffle(parts)
    blank, real = filler.Blanks().assembler(), FrameAssembler()
    for first, after in parts:
        for assembler in (blank, real):
            assert not assembler.add_run(100 + first, after == batch.total, batch.part(first, after))
        assert blank.complete == real.complete
        assert list(blank.missing) == list(real.missing)
    if parts and chance.random() < 0.5:  # as a buffer says that knows the next number to be another picture's
        for assembler in (blank, real):
            assembler.ends(99 + max(after for _, after in parts))
        assert blank.complete == real.complete
        assert list(blank.missing) == list(real.missing)
    if real.complete:
        assert len(blank.frame()) == len(real.frame())


# ---- packets


def test_a_batch_knows_how_many_datagrams_it_has() -> None:
    batch = Batch(bytes(range(10)), 4)
    assert (batch.total, batch.last, Batch(b"", 4).total) == (3, 2, 0)
    for first in range(4):
        for after in range(first, 6):
            part = batch.part(first, after)
            assert part == Batch(batch.data[4 * first : 4 * after], 4)
            assert part.total == len(part.datagrams())
    assert pickle.loads(pickle.dumps(batch)) == batch


def test_a_chunk_is_what_runs_give_where_it_is_one() -> None:
    sound = filler.chunk(filler.Sound(44_100, 2)).stamped(sequence=65_534, timestamp=2**32 - 300, ssrc=7)
    whole = chunk(sound)
    assert whole is not None
    assert list(runs(sound, spaced=True)) == [whole]
    assert isinstance(whole, RtpRun)
    assert chunk(sound.part(0, 1)) is None
    data = bytearray(sound.data)
    data[sound.size + 3] ^= 1  # another number
    assert chunk(Batch(bytes(data), sound.size)) is None


def some_requester(seed: int, *, together: bool) -> tuple[Requester, list[Any]]:
    """One that sees frames of some packets of which runs are missing, late or twice; and all that it says."""
    chance, told = random.Random(seed), []
    requester = Requester()
    number, now_ns = 5, 0
    for frame in range(120):
        media_ns, count = frame * 33 * MS, chance.randrange(1, 9)
        cuts = sorted({0, count, *(chance.randrange(count + 1) for _ in range(2))})
        spans = [(first, after) for first, after in pairwise(cuts) if chance.random() < 0.85]
        if chance.random() < 0.2:
            chance.shuffle(spans)
        now_ns = max(now_ns, media_ns + chance.randrange(8 * MS))
        for first, after in spans:
            now_ns += chance.choice([0, 0, 1_000_000])
            marker = after == count
            if together:
                requester.arrived_together(number + first, after - first, media_ns, marker, now_ns)
            else:
                for at in range(first, after):
                    requester.arrived(number + at, media_ns, marker and at == after - 1, now_ns)
            told.append((requester.wake_at(), len(requester)))
        number += count
        now_ns += chance.randrange(10 * MS)
        asked = requester.pull(now_ns)
        told.append(asked)
        back = [each for each in asked if chance.random() < 0.5]
        told.append([requester.restored(each, media_ns, False, now_ns + 2 * MS) for each in back])
    told.append((requester.asked, requester.restorations, requester.in_vain, requester.unasked))
    return requester, told


@pytest.mark.parametrize("seed", range(12))
def test_a_requester_asks_for_the_same_whether_packets_are_told_of_together(seed: int) -> None:
    one, other = (some_requester(seed, together=together)[1] for together in (True, False))
    assert one == other
    assert one[-1][0] > 5


# ---- sound


@given(st.data())
def test_a_chunk_passes_the_buffer_as_its_packets_would(data: st.DataObject) -> None:
    chance = random.Random(data.draw(st.integers(0, 1 << 32)))
    one, other = (SoundBuffer(rate=48_000, channels=1) for _ in range(2))
    for buffer in (one, other):
        buffer.begin(60 * MS)
    sizes = [320, 320, 320]
    for number in range(60):
        now_ns = number * 20 * MS + chance.randrange(15 * MS) + (chance.random() < 0.05) * 90 * MS
        at = number + (chance.random() < 0.1) * chance.randrange(-3, 4)
        pts = [at * 20 * MS + part * 20 * MS // 3 for part in range(3)]
        sounds = [np.zeros((size, 1), np.int16) for size in sizes]
        taken = one.push_together(sounds, ticks=at * 960, step=320, pts_ns=pts, now_ns=now_ns)
        assert taken == [
            other.push(samples, ticks=at * 960 + 320 * part, pts_ns=pts[part], now_ns=now_ns)
            for part, samples in enumerate(sounds)
        ]
        for block in range(2):
            heard_ns = (number * 20 + block * 10 + 10) * MS + (chance.random() < 0.03) * 70 * MS
            assert one.pass_by(480, heard_ns) == other.pass_by(480, heard_ns)
        assert one.played() == other.played()
        assert one.control.level_ns == other.control.level_ns
        assert (one.cuts, one.corrected) == (other.cuts, other.corrected)
    assert one.flush() == other.flush()


@given(st.lists(st.lists(st.integers(-80, 120), max_size=30), max_size=20))
def test_a_level_is_the_same_whether_arrivals_are_told_of_together(groups: list[list[int]]) -> None:
    one, other = LevelControl(), LevelControl()
    for group in groups:
        margins_ns = [margin * MS for margin in group]
        far = one.arrivals(margins_ns)
        alone = (at for at, margin_ns in enumerate(margins_ns) if other.arrival(margin_ns))
        assert far == next(alone, None)
        assert (one.level_ns, one.target_ns, one.wish) == (other.level_ns, other.target_ns, other.wish)


WAYS = [{}, {"delay": 0.02, "jitter": 0.02, "loss": 0.05}, {"rate": 2_000, "queue": 0.1}]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("device", [Device(), Device(block=0.023, latency=0.15, ppm=2_000)], ids=str)
@pytest.mark.parametrize("repair", [None, "rtx"])
def test_a_player_that_has_no_turn_for_sound_alone_shows_and_hears_the_same(
    way: dict[str, Any], device: Device, repair: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"seconds": 6, "network": avlab.Network(**way), "audio": device, "repair": repair}
    heeded = avlab.simulate(data / "count.mp4", **settings)
    monkeypatch.setattr(Player, "heed_sound", lambda player, now_ns: False)
    turn_by_turn = avlab.simulate(data / "count.mp4", **settings)
    for table in ("frames", "packets", "sync", "reports", "clocks", "settings"):
        pd.testing.assert_frame_equal(getattr(heeded, table), getattr(turn_by_turn, table), check_exact=True, obj=table)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 80), st.integers(1, 5)), min_size=1, max_size=60))
def test_a_target_is_the_same_whether_packets_are_told_of_together(chunks: list[tuple[int, int, int]]) -> None:
    one, other = DelayTarget(), DelayTarget()
    now_ns = 0
    for step, late, count in chunks:
        now_ns += step * MS
        media = [now_ns - late * MS + part * 7 * MS for part in range(count)]
        one.observe_together("audio", media, now_ns)
        for media_ns in media:
            other.observe("audio", media_ns, now_ns)
        assert one.base_ns() == other.base_ns()
        assert one.delay_ns(now_ns) == other.delay_ns(now_ns)


@given(st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 6)), min_size=1, max_size=40))
def test_a_timeline_is_the_same_whether_packets_are_told_of_together(chunks: list[tuple[int, int]]) -> None:
    lines = [Timeline(reference="audio") for _ in range(2)]
    for line in lines:
        line.add("audio", 44_100)
        line.begin(0, 0)
        line.anchor("audio", 0, 0)
        line.arrived("audio", 0, 0)
    ticks, now_ns = 0, 0
    for gap, count in chunks:
        now_ns += gap * MS
        first = ticks + 294 + 44 * gap // 3
        together = lines[0].goes_on("audio", first, 294, count, now_ns)
        leaps = lines[1].leaps("audio", first, now_ns)
        assert (together is None) == leaps
        if together is None:
            break
        ticks = first + (count - 1) * 294
        lines[1].arrived("audio", ticks, now_ns, step=294)
        assert together == [lines[1].media_ns("audio", first + part * 294) for part in range(count)]
        assert lines[0].leaps("audio", ticks + 100_000, now_ns) == lines[1].leaps("audio", ticks + 100_000, now_ns)


# ---- rows


def test_sound_is_written_down_as_frames_are() -> None:
    """Folded until it is read, among frames, over several batches: the same rows in the same order."""
    chance = random.Random(3)
    folded, plain = (Recorder(side="client", epoch_ns=0, clock="test") for _ in range(2))
    for number in range(4_000):
        kind, at = chance.randrange(3), number * MS
        if kind == 0:
            row = FrameRow("video", number, at, number, at, at, at, None, None, None, 9_000, 7, None, "shown")
            folded.frame(row)
            plain.frame(row)
        elif kind == 1:
            known = chance.random() < 0.8
            parts = [(at + part, number + part if known else None, 1176) for part in range(chance.randrange(4))]
            sent_ns = at if chance.random() < 0.9 else None
            folded.sound_sent(number, at, sent_ns, parts)
            for pts, stamp, size in parts:
                plain.frame(FrameRow("audio", number, pts, stamp, at, sent_ns=sent_ns, bytes=size, packets=1))
        else:
            timed = chance.random() < 0.8
            fates = [chance.choice(["shown", "late", "skipped"]) for _ in range(chance.randrange(4))]
            runs_ = [(2**32 + number, at, 294, at + 5, at + 9 if fate == "shown" else None, fate) for fate in fates]
            folded.sound_played(runs_, wide=4, timed=timed)
            for _, pts, _, arrived, heard, fate in runs_:
                stamp = number if timed else None
                came = arrived, arrived, heard
                plain.frame(FrameRow("audio", None, pts, stamp, None, None, None, *came, 1176, 1, 0, fate))
    assert folded.trace().rows("frames").tobytes() == plain.trace().rows("frames").tobytes()


def test_parts_of_a_chunk_count_from_where_they_are_told_to() -> None:
    one, other = (Recorder(side="server", epoch_ns=0, clock="test") for _ in range(2))
    one.sound_sent(1, 5, 6, [(0, 0, 8), (7, 300, 4)], pts_ns=1_000, timestamp=2**32 - 100)
    other.sound_sent(1, 5, 6, [(1_000, 2**32 - 100, 8), (1_007, 200, 4)])
    assert one.trace().rows("frames").tobytes() == other.trace().rows("frames").tobytes()


def test_sound_of_an_unknown_fate_is_refused() -> None:
    recorder = Recorder(side="client", epoch_ns=0, clock="test")
    with pytest.raises(ValueError, match="a frame's fate is one of"):
        recorder.sound_played([(0, 0, 1, 0, None, "eaten")], wide=2, timed=True)
    assert not len(recorder.trace().rows("frames"))
