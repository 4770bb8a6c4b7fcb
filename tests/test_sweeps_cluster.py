"""A sweep on a Dask cluster, through joblib's configuration: a scheduler, two workers, one of which is killed."""

from __future__ import annotations

import functools
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import dask
import distributed
import pytest
from joblib import parallel_config

import avlab


@pytest.fixture(scope="module")
def tracker() -> None:
    """What the first process that is spawned brings, and what stays until this one ends."""
    resource_tracker.ensure_running()


@pytest.fixture
def cluster(tracker: None) -> Iterator[None]:
    """A scheduler and two worker processes of one thread each, started anew when they die; two deaths are a task's."""
    with warnings.catch_warnings(), dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        warnings.simplefilter("ignore")
        settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
        with distributed.LocalCluster(**settings) as made, distributed.Client(made):
            yield


def run(a: int, *, seed: int, by: int = 2) -> dict[str, int]:
    return {"x": a * by + seed, "pid": os.getpid()}


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_two_hundred_points_survive_a_worker_that_is_killed_half_way(cluster: None, tmp_path: Path) -> None:
    lines = tmp_path / "to" / "points.jsonl"
    killed = tmp_path / "killed"

    def doomed(a: int, *, seed: int) -> dict[str, int]:
        if lines.exists() and lines.read_bytes().count(b"\n") >= 100:
            try:
                os.close(os.open(killed, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return run(a, seed=seed)

    with parallel_config(backend="dask"):
        table = avlab.sweep(doomed, {"a": range(40)}, seeds=range(5), to=tmp_path / "to")
    assert killed.exists()
    assert table["error"].isna().all()
    assert table["x"].tolist() == [2 * a + seed for a in range(40) for seed in range(5)]
    assert os.getpid() not in set(table["pid"])
    assert len(set(table["pid"])) == 3
    assert lines.read_bytes().count(b"\n") == 200


def killing(a: int, *, seed: int, by: Path) -> dict[str, int]:
    if a == 3:
        with by.open("a") as file:
            file.write("killed\n")
        os._exit(9)
    return {"x": a}


def live_run(a: int, *, seed: int, by: Path) -> dict[str, int]:
    with by.open("a") as file:
        file.write("in\n")
    with avlab.Relay("rtsp://127.0.0.1:9/x"):
        pass
    with by.open("a") as file:
        file.write("out\n")
    return {"x": a}


def test_what_kills_its_worker_twice_is_a_row_and_live_runs_go_one_after_another(cluster: None, tmp_path: Path) -> None:
    with parallel_config(backend="dask"):
        lock = threading.Lock()
        with pytest.raises(TypeError, match="cannot be sent"):
            avlab.sweep(lambda a, seed: {"x": lock.locked()}, {"a": [1, 2]}, to=tmp_path / "lock")
        log = tmp_path / "live.log"
        live = avlab.sweep(functools.partial(live_run, by=log), {"a": range(4)}, to=tmp_path / "live", seeds=[0])
        assert live["error"].isna().all(), live["error"].tolist()
        assert log.read_text().split() == ["in", "out"] * 4
        kills = tmp_path / "killed.log"
        table = avlab.sweep(functools.partial(killing, by=kills), {"a": range(8)}, to=tmp_path / "killing", seeds=[0])
    assert table["error"].notna().tolist() == [a == 3 for a in range(8)]
    assert "worker was killed" in table["error"].iloc[3]
    assert kills.read_text().count("killed") == 2
