"""The live drivers in turns, over links in memory and on a virtual clock: RTSP, sound, loss, repair, a rate control."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import lru_cache

import pandas as pd
import pytest
from inmemory import Clip, InMemory, MemoryDevice, Played, Work

from avlab.measure.numbers import metrics
from avlab.measure.record.join import join
from avlab.network.ratecontrol import Aimd
from avlab.network.settings import Network
from avlab.timing.pacing import DeadlinePacer
from avlab.wire.payloads.jpeg import derived_tables, jfif_header
from avlab.wire.units import NS

FPS, SECONDS = 30, 3


@lru_cache(maxsize=1024)
def picture(scan: int, width: int, quality: int) -> bytes:
    """A JPEG whose scan has so many bytes, of nothing."""
    tables = derived_tables(min(99, quality))
    return jfif_header(width // 8 * 8, width * 9 // 16 // 8 * 8, 1, tables, 0) + bytes(scan) + b"\xff\xd9"


def jpegs(index: int, width: int, quality: int) -> bytes:
    return picture((2_000 + 137 * (index % 50)) * quality // 40, width, quality)


def late(seed: int) -> Callable[[], Work]:
    chance = random.Random(seed)
    return lambda: Work(encode_ns=4_000_000, late_ns=round(chance.random() * 2e6), send_ns=300_000)


def played(*, sound: bool = True, seconds: float = SECONDS, seed: int = 1, **settings: object) -> Played:
    times_ns = [round(number * NS / FPS) for number in range(round(seconds * FPS))]
    rate, channels = (48_000, 2) if sound else (None, None)
    clip = Clip(times_ns, fps=FPS, rate=rate, channels=channels, end_ns=round(seconds * NS))
    return InMemory(clip, jpegs, pacer=DeadlinePacer(), work=late(seed), **settings).run()  # type: ignore[arg-type]


@pytest.mark.parametrize("sound", [True, False])
def test_on_a_clear_way_every_picture_is_shown_on_time_and_all_sound_is_heard(sound: bool) -> None:
    before = threading.active_count()
    run = played(sound=sound)
    assert threading.active_count() == before
    assert run.notices == ()
    trace = join(run.server, run.client)
    ledger = metrics.frame_ledger(trace)
    assert ledger.offered == ledger.shown == SECONDS * FPS
    video = trace.frames[trace.frames.stream == "video"]
    due_ns = (video.shown - video.pts).to_numpy() * 1e9
    assert due_ns.max() - due_ns.min() < 3e6, "all by the same delay, to what the device's reckoning leaves"
    heard = trace.frames[(trace.frames.stream == "audio") & (trace.frames.fate == "shown")]
    assert len(heard) == (len(run.server.frames) - SECONDS * FPS if sound else 0)
    if sound:
        assert trace.sync.offset.abs().max() < 0.002


def test_what_is_lost_is_asked_for_and_a_rate_control_hears_of_it() -> None:
    way = Network(loss=0.05, burst=2, delay=0.02, jitter=0.003, seed=3)
    run = played(network=way, repair="rtx", rate_control=Aimd())
    packets = run.client.packets
    assert (packets.fate == "recovered").sum() > 20
    reports = run.server.reports
    assert set(reports.stream) == {"video", "audio"}
    assert reports[reports.stream == "video"].round_trip.min() > 0.04
    assert run.server.settings[run.server.settings.name == "quality"].value.astype(float).min() < 80
    assert metrics.frame_ledger(join(run.server, run.client)).shown > 0.95 * SECONDS * FPS


@pytest.mark.parametrize(("repair", "sound"), [("rtx", True), ("fec", True), (None, False)])
def test_the_same_seed_gives_the_same_traces(repair: str | None, sound: bool) -> None:
    way = Network(loss=0.04, delay=0.03, jitter=0.01, rate=6_000, queue=0.05, duplicate=0.01, seed=9)
    first, again = (played(sound=sound, seconds=1.5, network=way, repair=repair, spread=0.5) for _ in range(2))
    for one, other in ((first.server, again.server), (first.client, again.client)):
        for table in ("frames", "packets", "sync", "reports"):
            pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table))
    other = played(sound=sound, seconds=1.5, network=way, repair=repair, spread=0.5, seed=2)
    assert not first.server.frames.equals(other.server.frames)


def test_a_slow_device_has_sound_and_pictures_wait_for_it() -> None:
    run = played(device=MemoryDevice(block=0.05, latency=0.3), playout_delay=0.1)
    video = run.client.frames[run.client.frames.stream == "video"]
    assert (video.fate == "shown").all()
    assert (video.shown - video.pts).min() > 0.3
    assert run.client.sync.offset.abs().max() < 0.002
