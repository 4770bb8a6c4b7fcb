"""The simulated run is the real one: the live drivers in memory and `simulate`, of one seed, write the same trace.

Both are given filler frames of the same sizes and the same work. On one side there are a server and a client as they
are on sockets, with RTSP, selectors, a sound buffer behind a lock, and links; on the other the machines alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from inmemory import Clip, InMemory, MemoryDevice, Work

import avlab
from avlab.measure.record.join import merged
from avlab.measure.record.trace import Trace
from avlab.media.sources import open_source
from avlab.network.ratecontrol import Aimd
from avlab.network.settings import Network
from avlab.stream.recorded_sizes import frame_bytes
from avlab.stream.simulate import cost_of, picture_times_ns
from avlab.stream.virtual import filler
from avlab.stream.virtual.device import Device
from avlab.timing.pacing import DeadlinePacer, TutorialPacer
from avlab.wire.units import NS

WAY = {"loss": 0.03, "burst": 2.0, "delay": 0.02, "jitter": 0.005}
DEVICE = MemoryDevice()
TABLES = ("frames", "packets", "sync", "reports")


def some(chance: random.Random) -> float:
    return chance.random() * 0.002


def simulated(clip: Path, *, sound: bool, device: MemoryDevice, work: Any, seed: int, **settings: Any) -> Trace:
    audio = Device(block=device.block, latency=device.latency) if sound else False
    return avlab.simulate(clip, work=work, seed=seed, audio=audio, **settings)


def live(
    clip: Path,
    *,
    sound: bool,
    device: MemoryDevice,
    work: Any,
    seed: int,
    seconds: float,
    playout_delay: Any = 0.1,
    **settings: Any,
) -> Trace:
    source = open_source(clip)
    until_ns = round(seconds * NS)
    times_ns = list(takewhile(lambda pts_ns: pts_ns < until_ns, picture_times_ns(clip)))
    assert times_ns[-1] > until_ns - NS, "the clip is long enough"

    def jpegs(index: int, width: int, quality: int) -> bytes:
        sizes = frame_bytes(clip.name, width, quality)
        return filler.jpeg(sizes[index % len(sizes)], width, quality)

    cost = cost_of(work, settings["width"], random.Random(seed))
    run = InMemory(
        Clip(
            times_ns,
            fps=float(source.fps or 30),
            rate=source.rate if sound else None,
            channels=source.channels if sound else None,
            end_ns=until_ns,
        ),
        jpegs,
        work=lambda: Work(*cost()),
        device=device,
        playout_delay=None if playout_delay == "adaptive" else playout_delay,
        **settings,
    ).run()
    return merged(run.server, run.client, side="simulation", meta={})


def assert_same(
    clip: Path,
    *,
    pacer: Callable[[], Any] = DeadlinePacer,
    controller: type | None = Aimd,
    sound: bool = True,
    device: MemoryDevice = DEVICE,
    work: Any = some,
    seed: int = 1,
    seconds: float = 4.0,
    **settings: Any,
) -> Trace:
    """Run both drivers; their trace."""
    alike = {"sound": sound, "device": device, "work": work, "seed": seed, "seconds": seconds, "width": 640}
    both = [
        run(clip, pacer=pacer(), rate_control=controller and controller(), **alike, **settings)
        for run in (simulated, live)
    ]
    for table in TABLES:
        one, other = (getattr(trace, table) for trace in both)
        pd.testing.assert_frame_equal(one, other, check_exact=True, obj=table)
    choices = [
        [(row.time_ns, row.name, row.value) for row in trace.setting_rows if row.name in ("quality", "width")]
        for trace in both
    ]
    assert [each for each in choices[0] if each[0]] == [each for each in choices[1] if each[0]]
    return both[0]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("repair", ["rtx", "fec"])
def test_live_drivers_and_simulation_write_the_same_trace(repair: str, sound: bool, seed: int, data: Path) -> None:
    way = Network(**WAY, seed=seed)
    trace = assert_same(data / "count.mp4", network=way, repair=repair, sound=sound, seed=seed)
    packets, reports = trace.packets, trace.reports
    assert (packets.fate == "recovered").sum() > 10
    assert len(reports) > 6
    assert set(reports.stream) == ({"video", "audio"} if sound else {"video"})
    assert (trace.frames.stream == "audio").any() == sound


@pytest.mark.parametrize(
    ("way", "settings"),
    [
        ({}, {}),
        ({"delay": 0.02}, {"repair": "rtx"}),
        (WAY | {"rate": 4_000, "queue": 0.2}, {"repair": "rtx"}),
        ({"rate": 2_500, "queue": 0.5, "delay": 0.05}, {"controller": None}),
        (WAY | {"duplicate": 0.02, "reorder": True}, {"repair": "rtx", "spread": 0.7}),
        (WAY, {"repair": "rtx", "playout_delay": "adaptive"}),
        (WAY, {"playout_delay": 0.0}),
        ({"loss": 0.3, "burst": 40.0, "delay": 0.1, "jitter": 0.05}, {"repair": "rtx", "seconds": 6.0}),
        (WAY, {"repair": "rtx", "work": None}),
        (WAY, {"repair": "rtx", "pacer": TutorialPacer, "work": 0.002}),
        (WAY, {"repair": "fec", "device": MemoryDevice(block=0.023, latency=0.15)}),
    ],
    ids=lambda each: ",".join(each) or "clear",
)
def test_so_they_do_on_other_ways(way: dict[str, Any], settings: dict[str, Any], data: Path) -> None:
    assert_same(data / "count.mp4", network=Network(**way, seed=5), **settings)


def test_another_seed_is_another_trace(data: Path) -> None:
    one, other = (
        assert_same(data / "count.mp4", network=Network(**WAY, seed=seed), repair="rtx", seconds=1.0) for seed in (1, 2)
    )
    assert not one.packets.equals(other.packets)
