"""Two computers' clocks compared by RTCP: in virtual time, with clocks and delays of which every truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from clockpair import FPS, MS, PLAYER, SSRC, Clock, Run, Way, run

from avlab.cli import _as_json
from avlab.measure.numbers import metrics
from avlab.measure.record.clock_offset import MOMENTS, Bounds, ClockOffset, offset_between
from avlab.measure.record.join import join
from avlab.measure.record.tables import UNKNOWN
from avlab.measure.record.trace import Trace
from avlab.wire.units import NS

FAST = Clock(8 * NS + 300 * MS, ppm=50)
"""The client's, against a server's that began at 8 s: 300 ms off, and 50 ppm fast."""

WAYS = {
    "alike": (Way(2, 1), Way(2, 1)),
    "up is slower": (Way(1, 0.5), Way(25, 6)),
    "down is slower": (Way(25, 6), Way(1, 0.5)),
    "loopback": (Way(0.02, 0.02), Way(0.02, 0.02)),
    "no jitter": (Way(5, 0), Way(15, 0)),
}


def offset_of(joined: Trace) -> ClockOffset:
    found = ClockOffset.of_plain(joined.meta["clock_offset"])
    assert found is not None
    return found


def wrong_by(made: Run, joined: Trace) -> tuple[np.ndarray, np.ndarray]:
    """At each moment that is told: by how much the estimate is wrong, and by how much it says that it may be, in ns."""
    offset = offset_of(joined)
    truth = [made.ahead_ns(made.server_clock.when(int(at_ns))) for at_ns in offset.at_ns]
    return np.abs(offset.ahead_ns - truth), offset.error_ns


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.parametrize("seed", range(6))
def test_the_offset_is_within_what_it_says_whatever_the_two_ways_take(ways: str, seed: int) -> None:
    down, up = WAYS[ways]
    made = run(server=Clock(8 * NS), client=FAST, down=down, up=up, seed=seed)
    joined = join(made.server, made.client)
    wrong, error = wrong_by(made, joined)
    assert (wrong <= error).all()
    half = (down.least_ms + up.least_ms) / 2 * MS
    assert error.min() >= 0.98 * half, "less than half the shortest round trip cannot be known"
    assert error.max() <= half + (down.jitter_ms + up.jitter_ms) * MS + 200_000
    found = metrics.clocks(joined)
    assert found is not None
    assert found.consistent
    assert abs(found.drift_ppm - 50) <= found.drift_error_ppm
    assert found.ahead_ms == pytest.approx(300 + 50e-6 * 10_000, abs=found.error_ms)
    assert found.round_trip_ms == pytest.approx(
        down.least_ms + up.least_ms,
        abs=4 * (down.jitter_ms + up.jitter_ms) + 0.2,  # 50 ppm of what it was held
    )


@pytest.mark.parametrize("ways", ["alike", "up is slower", "down is slower"])
def test_one_way_delays_have_an_error_that_covers_the_truth(ways: str) -> None:
    down, up = WAYS[ways]
    made = run(server=Clock(8 * NS), client=FAST, down=down, up=up)
    joined = join(made.server, made.client)
    table = metrics.one_way_delay(joined)
    rows = joined.packets.dropna(subset=["sent", "received"]).sort_values("sent")
    truth = np.array([made.delays_ns[seq] / MS for seq in rows["seq"]])
    assert len(truth) == len(table) >= 19 * FPS
    assert (np.abs(table["delay_ms"] - truth) <= table["error_ms"] + 0.001).all()
    assert np.std(table["delay_ms"] - truth) < 0.1 * table["error_ms"].median(), "all are wrong alike"
    summary = metrics.summary(joined)
    assert summary.delay_ms == pytest.approx(np.median(truth), abs=summary.delay_error_ms)
    if ways == "alike":
        assert summary.delay_ms == pytest.approx(np.median(truth), abs=0.5)


def test_a_short_run_says_that_it_knows_little_of_the_drift() -> None:
    short, long = (metrics.clocks(join(*run(seconds=seconds)[:2])) for seconds in (3, 60))
    assert short is not None
    assert long is not None
    assert short.drift_error_ppm > 5 * long.drift_error_ppm
    assert long.drift_error_ppm < 100
    assert abs(long.drift_ppm - 50) <= long.drift_error_ppm


def test_a_receiver_that_tells_no_time_is_known_by_what_it_answers() -> None:
    made = run(server=Clock(8 * NS), client=FAST, tells_times=False)
    assert (made.server.rows("clocks")["told_ns"] == UNKNOWN).all()
    assert len(made.server.rows("clocks"))
    assert (made.client.rows("clocks")["echo"] == UNKNOWN).all(), "nothing was told that could be answered"
    wrong, error = wrong_by(made, join(made.server, made.client))
    assert (wrong <= error).all()
    assert error.max() < 6 * MS


def test_a_clients_own_record_knows_how_far_the_wall_clocks_are_apart() -> None:
    made = run(
        server=Clock(8 * NS), client=Clock(99 * NS, ppm=50, unix_offset_ns=Clock().unix_offset_ns - 91 * NS + 300 * MS)
    )
    found = metrics.clocks(made.client)
    assert found is not None
    assert found.ahead_ms == pytest.approx(300 + 0.5, abs=found.error_ms)
    assert found.error_ms < 5
    assert metrics.clocks(made.server) is None, "a server has many clients"


@pytest.mark.parametrize("ways", WAYS)
def test_each_side_alone_knows_the_round_trips(ways: str) -> None:
    """And with them `avlab play --json`, whose client has nobody to join its record with."""
    down, up = WAYS[ways]
    made = run(server=Clock(8 * NS), client=FAST, down=down, up=up)
    for trace in (made.server, made.client, join(made.server, made.client)):
        trips = metrics.round_trips(trace)
        assert len(trips) > 20
        assert set(trips["stream"]) == {"video"}
        assert trips["round_trip_ms"].min() >= down.least_ms + up.least_ms - 0.1
        assert (
            trips["round_trip_ms"].max() <= down.least_ms + up.least_ms + 20 * (down.jitter_ms + up.jitter_ms) + 0.2
        )  # 50 ppm of what it was held
    said = json.loads(_as_json(metrics.summary(made.client), None, made.client))
    assert said["round_trip_ms"] == pytest.approx(metrics.round_trips(made.client)["round_trip_ms"].median())
    assert said["delay_ms"] == said["round_trip_ms"] / 2


def test_a_computer_that_slept_is_told_apart_and_still_covered() -> None:
    leaps = Clock(8 * NS, ppm=10, leap_ns=-400 * MS, leaps_at_ns=10 * NS)
    made = run(server=Clock(8 * NS), client=leaps)
    found = metrics.clocks(join(made.server, made.client))
    assert found is not None
    assert not found.consistent
    wrong, error = wrong_by(made, join(made.server, made.client))
    assert (wrong <= error).all()
    assert "consistent              no" in str(found)


def test_both_records_have_the_four_moments_of_a_round_trip() -> None:
    made = run(server=Clock(8 * NS), client=FAST, down=Way(3, 0), up=Way(5, 0))
    for trace, peer in ((made.server, PLAYER), (made.client, SSRC)):
        table = trace.clocks
        assert set(table["peer"]) == {peer}
        assert set(table["ssrc"]) == {SSRC}
        answered = table.dropna(subset=["echo"])
        assert len(answered) >= 30
        trips = answered["time"] - answered["echo"] - answered["held"]
        assert trips.to_numpy() == pytest.approx(0.008, abs=40e-6)
    told = made.client.clocks["told_ns"] - Clock().unix_offset_ns
    sent = told.to_numpy(np.int64) - 8 * NS
    arrived = made.client.rows("clocks")["time"]
    assert [FAST.at(int(at) + 3 * MS) for at in sent] == pytest.approx(arrived.tolist(), abs=10)


def test_what_is_told_is_kept_in_a_file_and_the_offset_with_it(tmp_path: Path) -> None:
    made = run()
    joined = join(made.server, made.client)
    joined.save(tmp_path / "run.avtrace")
    loaded = Trace.load(tmp_path / "run.avtrace")
    assert metrics.clocks(loaded) == metrics.clocks(joined)
    assert loaded.clocks.equals(joined.clocks)
    for name in ("server", "client"):
        getattr(made, name).save(tmp_path / name)
    again = join(Trace.load(tmp_path / "server"), Trace.load(tmp_path / "client"))
    assert metrics.clocks(again) == metrics.clocks(joined)
    assert (again.rows("packets") == joined.rows("packets")).all()


GOOD = {"at_ns": [0, 9], "ahead_ns": [1, 1], "error_ns": [1, 1], "drift_ppm": 1, "drift_error_ppm": 1,
        "consistent": True}  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [
        None, [], {}, {"at_ns": 3}, GOOD | {"at_ns": [1, 0]},
        GOOD | {"at_ns": [0, 0]}, GOOD | {"at_ns": [0, 2**70]},
        GOOD | {"at_ns": [0, 2**62]}, GOOD | {"ahead_ns": [1, 2**61]}, GOOD | {"ahead_ns": [1]},
        GOOD | {"ahead_ns": [99, 1]}, GOOD | {"at_ns": ["x", 1]},
        GOOD | {"error_ns": [1, -1]}, GOOD | {"drift_ppm": "x"}, GOOD | {"at_ns": [[0, 1]]},
        {name: [] for name in GOOD}, GOOD | {name: list(range(2000)) for name in ("at_ns", "ahead_ns", "error_ns")},
    ],
)  # fmt: skip
def test_an_offset_that_a_file_claims_is_one_or_none(told: object) -> None:
    assert ClockOffset.of_plain(GOOD) is not None
    assert ClockOffset.of_plain(told) is None


def test_what_cannot_be_a_clock_is_no_bound() -> None:
    wild = Bounds(np.array([0, 1 << 62, 5]), np.array([1 << 61, 0, 7]))
    kept = Bounds.of(wild, wild)
    assert (kept.at_ns.tolist(), kept.ahead_ns.tolist()) == ([5, 5], [7, 7])


def test_an_offset_goes_into_json_and_back() -> None:
    bounds = [Bounds(np.arange(0, 10 * NS, NS), np.full(10, ahead)) for ahead in (5 * MS, 3 * MS)]
    offset = offset_between(*bounds, (0, 9 * NS))
    assert offset is not None
    assert len(offset.at_ns) == MOMENTS
    again = ClockOffset.of_plain(json.loads(json.dumps(offset.plain())))
    assert again is not None
    assert all(np.array_equal(one, other) for one, other in zip(offset, again, strict=True))
    assert offset.ahead_ns[30] == pytest.approx(4 * MS, abs=10)
    assert offset_between(bounds[0], bounds[0]._replace(at_ns=bounds[0].at_ns[:0]), (0, 1)) is None
