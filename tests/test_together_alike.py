"""What is taken together fares as each by itself: runs of packets, chunks of sound, rows, blanks in place of JPEGs."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import avlab
from avlab.core.events import SoundDecided
from avlab.core.player import Player
from avlab.measure.record.trace import FrameRow, Recorder
from avlab.network.retransmission import Requester
from avlab.stream.virtual import filler
from avlab.stream.virtual.device import Device
from avlab.timing.level import FEW, LevelControl
from avlab.timing.soundbuffer import Played, PlayedChunk, SoundBuffer, SoundChunk
from avlab.timing.target import DelayTarget
from avlab.timing.timeline import Timeline
from avlab.wire.batch import Batch
from avlab.wire.payloads.formats import L16Format
from avlab.wire.payloads.jpeg import FrameAssembler, packed
from avlab.wire.payloads.pcm import PcmFormat
from avlab.wire.rtp import HEADER_BYTES, RtpRun, chunk, runs, ticks_to_ns
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


def some_chunks(seed: int) -> Iterator[tuple[SoundChunk, list[tuple[int, int]]]]:
    """Chunks that come late, twice, shorter at their end and out of place; and the blocks asked for after each."""
    chance = random.Random(seed)
    for number in range(60):
        now_ns = number * 20 * MS + chance.randrange(15 * MS) + (chance.random() < 0.05) * 90 * MS
        at = number + (chance.random() < 0.1) * chance.randrange(-3, 4)
        first = at * 960 + (chance.random() < 0.05) * chance.randrange(-100, 100)
        pts = [ticks_to_ns(first + part * 320, 48_000) for part in range(3)]
        size = 960 - (chance.random() < 0.1) * chance.randrange(320)
        samples = np.full((size, 1), number, np.int16)
        blocks = []
        for block in range(2):
            heard_ns = (number * 20 + block * 10 + 10) * MS + (chance.random() < 0.03) * 70 * MS
            blocks.append((480 + (chance.random() < 0.1) * chance.randrange(-400, 400), heard_ns))
        yield SoundChunk(samples, first, 320, pts, now_ns), blocks


@given(st.integers(0, 1 << 32), st.booleans())
def test_a_chunk_passes_the_buffer_as_its_packets_would(seed: int, listened: bool) -> None:
    """With the same moments for each packet, whatever else is done to the buffer; a chunk's are told of together."""
    chance = random.Random(seed)
    one, other = (SoundBuffer(rate=48_000, channels=1) for _ in range(2))
    for buffer in (one, other):
        buffer.begin(60 * MS)
    told: tuple[list[Played], list[Played]] = [], []
    for each, blocks in some_chunks(seed):
        taken = one.push_together(each)
        assert taken == [
            other.push(samples, ticks=ticks, pts_ns=pts_ns, now_ns=each.now_ns)
            for samples, ticks, pts_ns in each.apart()
        ]
        for count, heard_ns in blocks:
            if listened:
                (sound, reading), (expected, same) = one.read(count, heard_ns), other.read(count, heard_ns)
                assert np.array_equal(sound, expected)
                assert reading == same
            else:
                assert one.pass_by(count, heard_ns) == other.pass_by(count, heard_ns)
        by_ns = chance.randrange(-30, 60) * MS
        for buffer, played in zip((one, other), told, strict=True):
            played += packets(buffer.played())
        if chance.random() < 0.04:
            for buffer in (one, other):
                buffer.shift(by_ns)
        if chance.random() < 0.04:
            for buffer in (one, other):
                buffer.ease(by_ns // 10)
        assert 0 <= len(told[1]) - len(told[0]) <= 3
        assert one.control.level_ns == other.control.level_ns
        assert one.buffered_ns() == other.buffered_ns()
        assert (one.cuts, one.corrected, one.underruns) == (other.cuts, other.corrected, other.underruns)
    for buffer, played in zip((one, other), told, strict=True):
        played += packets(buffer.flush())
        played.sort(key=lambda packet: (packet.arrived_ns, packet.ticks, packet.reason))
    assert told[0] == told[1]


def packets(runs: Sequence[Played | PlayedChunk]) -> list[Played]:
    return SoundDecided(runs, 1, True).packets


def test_most_of_the_sound_of_a_stream_is_told_of_in_chunks() -> None:
    buffer = SoundBuffer(rate=48_000, channels=1)
    buffer.begin(60 * MS)
    for number in range(100):
        pts = [ticks_to_ns(number * 960 + part * 320, 48_000) for part in range(3)]
        buffer.push_together(SoundChunk(np.zeros((960, 1), np.int16), number * 960, 320, pts, number * 20 * MS))
        buffer.pass_by(960, number * 20 * MS + 10 * MS)
    kinds = [type(run) for run in buffer.played()]
    assert kinds.count(PlayedChunk) > 90


@given(st.lists(st.lists(st.integers(-80, 120), max_size=30), max_size=20))
def test_a_level_is_the_same_whether_arrivals_are_told_of_together(groups: list[list[int]]) -> None:
    one, other = LevelControl(), LevelControl()
    for group in groups:
        margins_ns = [margin * MS for margin in group]
        near = one.calm and len(group) <= FEW
        one.arrivals([margin_ns - 5 for margin_ns in margins_ns], 5)
        far = [other.arrival(margin_ns) for margin_ns in margins_ns]
        assert not (near and any(far))
        assert (one.level_ns, one.target_ns, one.wish) == (other.level_ns, other.target_ns, other.wish)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("encoding", ["L16", "L8", "L24", "PCMU", "PCMA", "silence"])
def test_packets_of_sound_are_read_together_as_each_by_itself(encoding: str, channels: int) -> None:
    form: Any = {"L16": L16Format(8_000, channels), "silence": filler.Silence(8_000, channels)}.get(encoding)
    form = form or PcmFormat(encoding, 8_000, channels)
    wide = {"L16": 2, "silence": 2, "L24": 3}.get(encoding, 1) * channels
    chance = random.Random(1)
    for octets in (60 * wide, 41 * wide, 59 * wide):
        payload = bytes(octets) if encoding == "silence" else chance.randbytes(octets)
        parts = [payload[at : at + 20 * wide] for at in range(0, octets, 20 * wide)]
        batch = Batch(b"".join(bytes(HEADER_BYTES) + part for part in parts), HEADER_BYTES + 20 * wide)
        together = form.together(batch, 20)
        assert together.dtype == np.int16
        assert np.array_equal(together, np.concatenate([form.samples(part) for part in parts]))
        assert form.together(batch, 19) is None
        assert form.together(batch, 21) is None
    odd = Batch(bytes(2 * HEADER_BYTES + 22 * wide - 1), HEADER_BYTES + 20 * wide)
    assert (form.together(odd, 20) is None) == (wide > 1)
    empty = Batch(bytes(2 * HEADER_BYTES + 20 * wide), HEADER_BYTES + 20 * wide)
    assert form.together(empty, 20) is None


WAYS = [{}, {"delay": 0.02, "jitter": 0.02, "loss": 0.05}, {"rate": 2_000, "queue": 0.1}]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("device", [Device(), Device(block=0.023, latency=0.15, ppm=2_000)], ids=str)
@pytest.mark.parametrize("repair", [None, "rtx"])
def test_a_player_that_has_no_turn_for_sound_alone_shows_and_hears_the_same(
    way: dict[str, Any], device: Device, repair: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"seconds": 6, "network": avlab.Network(**way), "audio": device, "repair": repair}
    heeded = avlab.simulate(data / "count.mp4", **settings)
    monkeypatch.setattr(Player, "heed_sound", lambda player, now_ns, at_ns: None)
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


def test_chunks_that_were_heard_are_written_down_as_their_packets_are() -> None:
    together, apart = (Recorder(side="client", epoch_ns=0, clock="test") for _ in range(2))
    buffer = SoundBuffer(rate=48_000, channels=1)
    buffer.begin(60 * MS)
    written = 0
    for each, blocks in some_chunks(5):
        buffer.push_together(each._replace(ticks=each.ticks + 2**32 - 30_000))
        for count, heard_ns in blocks:
            buffer.pass_by(count, heard_ns)
        for run in buffer.played():
            timed = written % 7 > 0
            if isinstance(run, PlayedChunk):
                written += 1
                together.sound_heard([run, run], wide=6, timed=timed)
                apart.sound_played(run.apart() * 2, wide=6, timed=timed)
            else:
                together.sound_played([run], wide=6, timed=timed)
                apart.sound_played([run], wide=6, timed=timed)
    assert written > 20
    assert together.trace().rows("frames").tobytes() == apart.trace().rows("frames").tobytes()


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
