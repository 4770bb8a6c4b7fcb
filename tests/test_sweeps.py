"""Sweeps: a row a point and seed, kept as they are done; what fails is a row; what is killed goes on where it was."""

from __future__ import annotations

import functools
import json
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

import avlab

FACTOR = 2


def product(a: float, b: float = 1, *, seed: int = 0) -> dict[str, Any]:
    return {"product": a * b + seed, "word": "x"}


def clip_free(playout_delay: float, *, seed: int) -> avlab.Trace:
    network = avlab.Network(loss=0.02, delay=0.05, seed=seed)
    return avlab.simulate(30, playout_delay=playout_delay, seconds=1, seed=seed, network=network)


@pytest.fixture(scope="module")
def trackers() -> None:
    """What joblib's first worker brings and what stays until this process ends, begun before a test's own."""
    Parallel(n_jobs=2)(delayed(abs)(number) for number in range(2))
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture(autouse=True)
def no_workers_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """joblib keeps its workers for the next call."""
    yield
    if "trackers" in request.fixturenames:
        get_reusable_executor().shutdown(wait=True)


def sweep(run: Any, grid: Any, to: Path, **more: Any) -> pd.DataFrame:
    return avlab.sweep(run, grid, **({"seeds": range(2), "to": to, "jobs": 1} | more))


def lines(to: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (to / "points.jsonl").read_text().splitlines()]


# ---- rows


def test_a_row_a_point_and_seed_in_the_grids_order(tmp_path: Path) -> None:
    table = sweep(product, {"a": [1, 2], "b": (10.0, np.float64(20))}, tmp_path)
    assert list(table) == ["a", "b", "seed", "product", "word", "error"]
    assert table[["a", "b", "seed"]].values.tolist() == [[a, b, s] for a in (1, 2) for b in (10, 20) for s in (0, 1)]
    assert (table["product"] == table["a"] * table["b"] + table["seed"]).all()
    assert table["error"].isna().all()
    assert len(lines(tmp_path)) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["points.jsonl", "sweep.json"]


def test_a_trace_is_measured_by_the_summary_or_as_asked(tmp_path: Path) -> None:
    table = sweep(clip_free, {"playout_delay": [0.02, 0.1]}, tmp_path / "a")
    assert {"shown", "late", "fps", "packet_loss_percent", "delay_ms"} <= set(table)
    assert table.groupby("playout_delay")["shown"].mean().is_monotonic_increasing
    own = sweep(clip_free, {"playout_delay": [0.1]}, tmp_path / "b", measure=lambda trace: len(trace.frames))
    assert own["value"].tolist() == [30, 30]
    series = sweep(clip_free, {"playout_delay": [0.1]}, tmp_path / "c", measure=lambda t: t.frames["bytes"].describe())
    assert series["count"].tolist() == [30, 30]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "None"),
        ([1, 2], "a dict of numbers"),
        ({"frames": [1, 2]}, "frames is [1, 2]"),
        (pd.DataFrame({"a": [1]}), "a dict of numbers"),
    ],
)
def test_what_is_no_row_is_a_failure_that_says_so(tmp_path: Path, returned: Any, words: str) -> None:
    table = sweep(lambda a, seed: returned, {"a": [1]}, tmp_path)
    assert table["error"].str.contains(words, regex=False).all()


def test_failures_are_rows_and_the_others_go_on(tmp_path: Path) -> None:
    def run(a: int, seed: int) -> dict[str, float]:
        if a == 2 and seed:
            raise SystemExit(3)
        return {"x": 1 / (a - 1)}

    table = sweep(run, {"a": [0, 1, 2]}, tmp_path)
    assert table["error"].tolist()[2:4] == ["ZeroDivisionError: division by zero"] * 2
    assert table["error"].tolist()[5] == "SystemExit: 3"
    assert table["x"].tolist()[:2] == [-1, -1]
    assert table["error"].isna().sum() == 3


def test_numbers_that_json_does_not_have_come_back(tmp_path: Path) -> None:
    def run(a: float, seed: int) -> dict[str, Any]:
        return {"inf": math.inf * (1 if a else -1), "nan": math.nan, "none": None, "np": np.int64(3), "yes": True}

    once, again = (sweep(run, {"a": [0, 1]}, tmp_path) for _ in range(2))
    pd.testing.assert_frame_equal(once, again)
    assert once["inf"].tolist() == [-math.inf] * 2 + [math.inf] * 2
    assert once["nan"].isna().all()
    for line in (tmp_path / "points.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_a_measure_by_a_parameters_name_has_a_column_of_its_own(tmp_path: Path) -> None:
    table = sweep(lambda a, seed: {"a": -a, "error": 0.5, "seed": 9}, {"a": [1, 2]}, tmp_path)
    assert table["a"].tolist() == [1, 1, 2, 2]
    assert table["measured_a"].tolist() == [-1, -1, -2, -2]
    assert table["seed"].tolist() == [0, 1, 0, 1]
    assert table["measured_error"].tolist() == [0.5] * 4


def test_without_seeds_a_run_needs_no_seed(tmp_path: Path) -> None:
    table = sweep(lambda a: {"x": a}, {"a": [1, 2]}, tmp_path, seeds=None)
    assert list(table) == ["a", "x", "error"]


def test_values_without_a_short_name_get_one(tmp_path: Path) -> None:
    rules = {"double": lambda x: 2 * x, "half": lambda x: x / 2}
    networks = [avlab.Network(), avlab.Network(loss=0.5)]
    table = sweep(lambda rule, network, seed: {"x": rule(network.loss)}, {"rule": rules, "network": networks}, tmp_path)
    assert table["x"].tolist() == [0, 0, 1, 1, 0, 0, 0.25, 0.25]
    assert table["rule"].tolist() == ["double"] * 4 + ["half"] * 4
    assert table["network"].iloc[2] == str(networks[1])


def test_the_documented_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    for was, now in (("seconds=10", "seconds=1"), ("range(5)", "range(2), jobs=1"), ("out/", f"{tmp_path}/")):
        assert was in code
        code = code.replace(was, now)
    monkeypatch.chdir(Path(__file__).parents[1])
    scope: dict[str, Any] = {"__name__": "cell"}
    exec(code, scope)
    table = scope["table"]
    assert len(table) == 32
    assert table["error"].isna().all()


# ---- what cannot be asked


@pytest.mark.parametrize(
    ("run", "grid", "more", "error", "words"),
    [
        (product, {"c": [1], "a": [1]}, {}, TypeError, "product has no parameter 'c'"),
        (clip_free, {"playout_dealy": [1]}, {}, TypeError, "did you mean 'playout_delay'?"),
        (functools.partial(avlab.simulate, 30), {"qualty": [1]}, {}, TypeError, "simulate .* did you mean 'quality'?"),
        (product, {"b": [1]}, {}, TypeError, "product needs 'a'"),
        (lambda a: {}, {"a": [1]}, {}, TypeError, "no parameter 'seed'"),
        (product, {"a": 1}, {}, TypeError, r"a list of values, as \[1\]"),
        (product, {"a": "12"}, {}, TypeError, "a list of values"),
        (product, {"a": []}, {}, ValueError, "no values"),
        (product, {"a": [1, 2, 1.0]}, {}, ValueError, "two values called"),
        (product, {"a": [lambda: 1, lambda: 2]}, {}, ValueError, "give them names"),
        (product, {"a": [object()]}, {}, ValueError, "has no name"),
        (product, {"a": [1], "seed": [1]}, {}, ValueError, "give seeds="),
        (product, [1], {}, TypeError, "a dict, as"),
        (product, {"a": [1]}, {"seeds": 5}, TypeError, "range"),
        (product, {"a": [1]}, {"seeds": [1, 1]}, ValueError, "twice"),
        (product, {"a": [1]}, {"seeds": [0.5]}, TypeError, "whole number"),
        (product, {"a": [1]}, {"jobs": 0}, ValueError, "jobs"),
        (product, {"a": [1]}, {"measure": 3}, TypeError, "measure"),
        (3, {"a": [1]}, {}, TypeError, "run is a function"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(
    tmp_path: Path, run: Any, grid: Any, more: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        sweep(run, grid, tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="name another"):
        sweep(product, {"a": [1]}, tmp_path / "file")


# ---- going on


def counted(calls: list[tuple[float, int]]) -> Any:
    def run(a: float, seed: int) -> dict[str, float]:
        calls.append((a, seed))
        return {"x": a + seed}

    return run


GRID = {"a": [1, 2, 3, 4]}


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    calls: list[tuple[float, int]] = []
    once = sweep(counted(calls), GRID, tmp_path)
    again = sweep(counted(calls), GRID, tmp_path)
    assert len(calls) == 8
    pd.testing.assert_frame_equal(once, again)


@given(cut=st.integers(0, 600), junk=st.sampled_from([b"", b"\0\0\0", b'{"point": {', b"\xff\xfe"]))
def test_a_kill_at_any_byte_costs_what_was_not_written(tmp_path_factory: Any, cut: int, junk: bytes) -> None:
    to = tmp_path_factory.mktemp("cut")
    calls: list[tuple[float, int]] = []
    whole = sweep(counted(calls), GRID, to)
    data = (to / "points.jsonl").read_bytes()
    kept = data[:cut]
    (to / "points.jsonl").write_bytes(kept + junk)
    calls.clear()
    pd.testing.assert_frame_equal(sweep(counted(calls), GRID, to), whole)
    whole_lines = kept.count(b"\n")
    assert len(calls) in {8 - whole_lines, 8 - whole_lines - 1}
    assert len(lines(to)) == 8


def test_a_broken_line_between_others_is_named(tmp_path: Path) -> None:
    sweep(product, GRID, tmp_path)
    path = tmp_path / "points.jsonl"
    written = path.read_text().splitlines()
    written[2] = "{}"
    path.write_text("\n".join(written) + "\n")
    with pytest.raises(ValueError, match="line 3 of"):
        sweep(product, GRID, tmp_path)


def test_more_values_and_seeds_are_added_and_said(tmp_path: Path) -> None:
    calls: list[tuple[float, int]] = []
    sweep(counted(calls), GRID, tmp_path)
    calls.clear()
    with pytest.warns(UserWarning, match="fewer values or seeds: 8 points"):
        table = sweep(counted(calls), {"a": [0, 1, 2, 3, 4]}, tmp_path, seeds=range(3))
    assert len(table) == 15
    assert len(calls) == 7


@pytest.mark.parametrize(
    ("grid", "more", "words"),
    [
        ({"a": [1, 2, 3]}, {}, "its a has 4, too"),
        ({"a": [5, 6]}, {}, "its a has 1, 2, 3, 4, too"),
        ({"a": [1, 2, 3, 4], "b": [1]}, {}, "its parameters are a, not a, b"),
        (GRID, {"seeds": [1]}, "its seed has 0, too"),
        (GRID, {"measure": len}, "its measure is summary, not len"),
    ],
)
def test_another_grid_in_the_same_folder_is_told(tmp_path: Path, grid: Any, more: Any, words: str) -> None:
    sweep(product, GRID, tmp_path)
    with pytest.raises(ValueError, match=f"another sweep's points: {words}.*Name another folder"):
        sweep(product, grid, tmp_path, **more)
    assert len(lines(tmp_path)) == 8


def make(text: str, **names: Any) -> Any:
    scope: dict[str, Any] = {"__name__": "cell", **names}
    exec(text, scope)
    return scope["run"]


CELL = "def run(a, seed):\n    return {'x': a * FACTOR + helper(a)}\ndef helper(a): return a"


def test_a_network_or_a_method_that_a_run_uses_is_part_of_it(tmp_path: Path) -> None:
    uses = "def run(a, seed):\n    return {'x': a * (1 - NETWORK.loss)}"
    sweep(make(uses, NETWORK=avlab.Network(loss=0.1)), GRID, tmp_path / "a")
    sweep(make(uses, NETWORK=avlab.Network(loss=0.1)), GRID, tmp_path / "a")
    with pytest.raises(ValueError, match="was changed since"):
        sweep(make(uses, NETWORK=avlab.Network(loss=0.2)), GRID, tmp_path / "a")


def test_another_run_in_the_same_folder_is_told(tmp_path: Path) -> None:
    sweep(make(CELL, FACTOR=2), GRID, tmp_path)
    sweep(make("\n\n" + CELL, FACTOR=2), GRID, tmp_path)  # the same, further down
    for other in (
        make(CELL, FACTOR=3),
        make(CELL.replace("return a", "return -a"), FACTOR=2),
        make(CELL.replace("* FACTOR", "+ FACTOR"), FACTOR=2),
        functools.partial(make(CELL.replace("a, seed", "a, seed, more"), FACTOR=2), more=1),
    ):
        with pytest.raises(ValueError, match="was changed since"):
            sweep(other, GRID, tmp_path)
    with pytest.raises(ValueError, match="its run is run, not product"):
        sweep(product, GRID, tmp_path)


def test_a_folder_of_points_without_a_sweep_is_told(tmp_path: Path) -> None:
    sweep(product, GRID, tmp_path)
    (tmp_path / "sweep.json").unlink()
    with pytest.raises(ValueError, match="name another folder"):
        sweep(product, GRID, tmp_path)
    (tmp_path / "sweep.json").write_text("[")
    with pytest.raises(ValueError, match="name another folder"):
        sweep(product, GRID, tmp_path)


def test_an_interrupted_sweep_keeps_what_is_done(tmp_path: Path) -> None:
    calls: list[tuple[float, int]] = []
    stop = [True]

    def run(a: float, seed: int) -> dict[str, float]:
        if len(calls) == 3 and stop:
            stop.clear()
            raise KeyboardInterrupt
        calls.append((a, seed))
        return {"x": a}

    with pytest.raises(KeyboardInterrupt):
        sweep(run, GRID, tmp_path)
    assert len(lines(tmp_path)) == 3
    assert len(sweep(run, GRID, tmp_path)) == 8
    assert len(calls) == 8


# ---- workers


def test_on_all_cores_as_in_one_process(trackers: None, tmp_path: Path) -> None:
    grid = {"playout_delay": [0.02, 0.1]}
    here = sweep(clip_free, grid, tmp_path / "here")
    pd.testing.assert_frame_equal(sweep(clip_free, grid, tmp_path / "there", jobs=-1), here)
    with parallel_config(backend="threading"):
        pd.testing.assert_frame_equal(sweep(clip_free, grid, tmp_path / "threads", jobs=2), here)


def test_lambdas_and_what_they_close_over_are_sent_to_workers(trackers: None, tmp_path: Path) -> None:
    by = 3
    table = sweep(lambda rule, seed: {"x": by * rule(seed), "pid": os.getpid()}, {"rule": {"f": lambda x: x + 1}},
                  tmp_path, jobs=2, seeds=range(6))  # fmt: skip
    assert table["x"].tolist() == [3 * (seed + 1) for seed in range(6)]
    assert os.getpid() not in set(table["pid"])


def test_what_cannot_be_sent_to_a_worker_is_said(trackers: None, tmp_path: Path) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="jobs=1"):
        sweep(lambda a, seed: {"x": lock.locked()}, {"a": [1, 2]}, tmp_path, jobs=2)


def dying(a: int, *, seed: int, tally: str) -> dict[str, int]:
    """Point 3 kills its worker each time, point 5 the first time."""
    path = Path(tally) / f"{a}.{seed}"
    path.write_text(path.read_text() + "." if path.exists() else ".")
    times = len(path.read_text())
    if a == 3 or (a == 5 and times == 1):
        os._exit(9)
    return {"x": a}


def check_dying(table: pd.DataFrame, to: Path, tally: Path) -> None:
    assert table["error"].notna().tolist() == [a == 3 for a in range(12)]
    assert "worker was killed" in table["error"].iloc[3]
    assert table["x"].dropna().tolist() == [a for a in range(12) if a != 3]
    assert len(lines(to)) == 12


def test_a_point_that_kills_its_worker_twice_is_a_failure_and_no_other_is(trackers: None, tmp_path: Path) -> None:
    tally, to = tmp_path / "tally", tmp_path / "to"
    tally.mkdir()
    run = functools.partial(dying, tally=str(tally))
    table = sweep(run, {"a": range(12)}, to, jobs=2, seeds=[0])
    check_dying(table, to, tally)
    assert (tally / "3.0").read_text() == ".."
    assert (tally / "5.0").read_text() == ".."
    pd.testing.assert_frame_equal(sweep(run, {"a": range(12)}, to, jobs=2, seeds=[0]), table)  # it is not tried again


def live_run(a: int, *, seed: int, log: str) -> dict[str, int]:
    import time

    with open(log, "a") as file:
        file.write("in\n")
    with avlab.Server(np.zeros((1, 16, 16, 3), np.uint8)):
        time.sleep(0.05)
    with open(log, "a") as file:
        file.write("out\n")
    return {"x": a}


def test_live_runs_go_one_after_another(trackers: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    table = sweep(functools.partial(live_run, log=str(log)), {"a": range(6)}, tmp_path / "to", jobs=2, seeds=[0])
    assert table["error"].isna().all(), table["error"].tolist()
    assert log.read_text().split() == ["in", "out"] * 6
