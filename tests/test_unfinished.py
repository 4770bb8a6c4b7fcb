"""Runs that end before their trace is saved: what is kept of them, who reads it, and who removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import commands
import numpy as np
import pytest
import tools
import traces
from commands import running

from avlab.measure.numbers import metrics
from avlab.measure.record import files, locks, unfinished
from avlab.measure.record.trace import FrameRow, Recorder, Trace

NS = 1_000_000_000


def growing() -> Recorder:
    made = Recorder(side="client", epoch_ns=3 * NS, clock="one")
    made.meta["clip"] = "count.mp4"
    return made


def more(made: Recorder, first: int, count: int) -> None:
    made.setting(3 * NS + first, "quality", first)
    for number in range(first, first + count):
        made.packet("video", 7, number, number * 3000, True, 1000, None, 3 * NS + number * 1_000_000, "used")
        made.frame(FrameRow("video", number, complete_ns=3 * NS + number, shown_ns=4 * NS + number, fate="shown"))
        made.sync(4 * NS + number, number, number + 5)
        if number % 7 == 0:
            made.report(4 * NS + number, "video", 7, loss=0.25, lost=number, jitter_ns=number, kbps=float(number))


def assert_same(one: Trace, other: Trace) -> None:
    for name in ("packets", "frames", "sync", "reports"):
        assert one.rows(name).tobytes() == other.rows(name).tobytes()
    assert one.setting_rows == other.setting_rows


def test_what_was_written_is_read_whole_however_often_it_was(tmp_path: Path) -> None:
    made, written = growing(), unfinished.Unfinished(tmp_path / "run")
    for first in range(0, 12_000, 3_000):
        more(made, first, 3_000)
        written.write(made.trace())
    kept = made.trace()
    more(made, 12_000, 10)
    written.close()
    trace = Trace.load(tmp_path / "run")
    assert_same(trace, kept)
    assert trace.meta == kept.meta | {"unfinished": True}
    assert "cut short" in repr(trace)
    assert metrics.frame_ledger(trace).shown == 12_000
    assert_same(Trace.load(written.path), kept)


def test_what_was_being_written_when_the_end_came_is_left_out(tmp_path: Path) -> None:
    made, written = growing(), unfinished.Unfinished(tmp_path / "run")
    more(made, 0, 100)
    written.write(made.trace())
    kept, size = made.trace(), written.path.stat().st_size
    more(made, 100, 100)
    written.write(made.trace())
    written.close()
    whole = written.path.read_bytes()
    for cut in (*range(size, min(size + 40, len(whole))), len(whole) - 1):
        written.path.write_bytes(whole[:cut])
        trace = Trace.load(tmp_path / "run")
        assert trace.count("packets") in (100, 200)
        assert np.array_equal(trace.rows("packets")["seq"][:100], kept.rows("packets")["seq"])


def test_the_newer_of_a_saved_trace_and_an_unfinished_one_is_read(tmp_path: Path) -> None:
    made, target = growing(), tmp_path / "run"
    made.trace().save(target)
    os.utime(target, (1, 1))
    written = unfinished.Unfinished(target)
    more(made, 0, 5)
    written.write(made.trace())
    assert Trace.load(target).count("packets") == 5
    assert Trace.load(target).meta["unfinished"]
    os.utime(written.path, (0, 0))
    assert Trace.load(target).count("packets") == 0
    written.discard()


def test_a_record_with_nothing_in_it_says_so(tmp_path: Path) -> None:
    unfinished.Unfinished(tmp_path / "run").close()
    with pytest.raises(ValueError, match="an unfinished record that has nothing in it"):
        Trace.load(tmp_path / "run")


def test_a_full_disk_keeps_what_was_written_and_tries_again(tmp_path: Path) -> None:
    code = """
import resource, sys
from test_unfinished import growing, more, unfinished
made, written = growing(), unfinished.Unfinished(sys.argv[1])
more(made, 0, 1000)
written.write(made.trace())
size = written.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
more(made, 1000, 1000)
try:
    written.write(made.trace())
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
written.write(made.trace())
"""
    env = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("File too large\n", "")
    made = growing()
    more(made, 0, 1000)
    more(made, 1000, 1000)
    assert_same(Trace.load(tmp_path / "run"), made.trace())


# ---- who removes what


def test_a_save_removes_what_dead_processes_left_and_nothing_of_the_living(tmp_path: Path) -> None:
    target = tmp_path / "run"
    code = """
import sys, os, signal
from pathlib import Path
from avlab.measure.record import locks
from avlab.measure.record import unfinished
target = Path(sys.argv[1])
kept = unfinished.Unfinished(target), locks.take(lambda: target.with_name(f".{target.name}.0123abc{sys.argv[2]}"))
print("there", flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", code, target]
    with (
        tools.started(*command, "d", stdin=subprocess.PIPE) as dead,
        tools.started(*command, "e", stdin=subprocess.PIPE) as alive,
    ):
        for process in (dead, alive):
            assert process.stdout is not None
            assert process.stdout.readline() == "there\n"
        mine = unfinished.Unfinished(target)
        other = tmp_path / "run.part-of-my-own"
        other.write_text("x")
        assert len(list(tmp_path.iterdir())) == 6
        dead.communicate("", timeout=tools.SECONDS)
        traces.empty().save(target)
        left = {path.name for path in tmp_path.iterdir()}
        assert {"run", "run.part-of-my-own", mine.path.name, ".run.0123abce"} < left
        assert len(left) == 5
        alive.communicate("", timeout=tools.SECONDS)
    mine.discard()
    traces.empty().save(target)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.part-of-my-own"}


def test_a_name_with_odd_letters_is_no_pattern(tmp_path: Path) -> None:
    for name in ("run[1]", "run?", "run*"):
        unfinished.Unfinished(tmp_path / name).close()
        assert unfinished.newest(tmp_path / name) is not None
    assert unfinished.newest(tmp_path / "run1") is None
    traces.empty().save(tmp_path / "run*")
    assert len(list(tmp_path.glob("*.part-*"))) == 2


def test_files_are_taken_and_removed_by_many_at_once_without_loss(tmp_path: Path) -> None:
    target, wrong = tmp_path / "run", []

    def save() -> None:
        for _ in range(20):
            try:
                traces.empty().save(target)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_file_of_ours_is_not_removed_by_ourselves_either(tmp_path: Path) -> None:
    path, file = locks.take(lambda: tmp_path / "x")
    assert not locks.remove_if_left(path)
    file.close()
    assert locks.remove_if_left(path)
    assert not locks.remove_if_left(path)


# ---- at the command line


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has none")
@pytest.mark.parametrize("times", [1, 3])
def test_a_terminal_that_is_closed_ends_it_and_loses_no_record(data: Path, tmp_path: Path, times: int) -> None:
    saved = tmp_path / "run.avtrace"
    with running("serve", data / "count.mp4", "--port", 0, "--loop", "--trace", saved) as server:
        for _ in range(times - 1):
            server.process.send_signal(signal.SIGHUP)
        code, _, said = server.end(signal.SIGHUP)
    assert code == 130
    assert f"trace saved in {saved}" in said
    assert Trace.load(saved).meta["side"] == "server"
    assert [path.name for path in tmp_path.iterdir()] == ["run.avtrace"]


@pytest.mark.slow
def test_what_is_told_to_ignore_the_end_of_its_terminal_does(data: Path) -> None:
    command = ["nohup", *commands.command("serve", data / "count.mp4", "--port", 0, "--loop")]
    with tools.started(*command) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("serving")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 130


@pytest.mark.slow
def test_a_run_that_is_killed_is_there_up_to_its_last_seconds(data: Path, tmp_path: Path) -> None:
    saved = tmp_path / "run.avtrace"
    quiet = ("--no-window", "--audio", "null", "--seconds", 60)
    with (
        running("serve", data / "count.mp4", "--port", 0, "--loop") as server,
        running("play", server.url, *quiet, "--trace", saved) as player,
    ):
        until = time.monotonic() + commands.SECONDS
        while time.monotonic() < until:  # until it has written twice
            left = unfinished.newest(saved)
            if left is not None and left.stat().st_size > 100 and len(Trace.load(saved).rows("packets")) > 3000:
                break
            time.sleep(0.2)
        player.process.kill()
        player.process.wait(60)
    trace = Trace.load(saved)
    assert trace.meta["unfinished"]
    assert metrics.frame_ledger(trace).shown > 60
    trace.save(saved)  # as any trace; and what was left goes
    assert [path.name for path in tmp_path.iterdir()] == ["run.avtrace"]
    assert metrics.summary(Trace.load(saved)) == metrics.summary(trace)


@pytest.mark.slow
def test_a_place_that_may_only_be_read_is_refused_before_anything_begins(data: Path, tmp_path: Path) -> None:
    place = tmp_path / "run.avtrace"
    place.write_text("mine")
    place.chmod(0o444)
    done = commands.run("serve", data / "count.mp4", "--port", 0, "--trace", place)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"avlab: the trace cannot be saved in {place} (the file that is there may only be read): "
        "name a place that can be written\n"
    )
    assert place.read_text() == "mine"
    done = commands.run("serve", data / "count.mp4", "--port", 0, "--trace", "/proc/run.avtrace")
    assert done.returncode == 1
    assert "the trace cannot be saved in /proc/run.avtrace" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_trace_of_millions_of_rows_is_saved_and_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avlab.measure.record import checked
    from avlab.measure.record import trace as tracing

    monkeypatch.setattr(tracing, "CHUNK", 1000)
    monkeypatch.setattr(checked, "IN_MEMORY_ROWS", 500)
    monkeypatch.setattr(checked, "MANY_ROWS", 300)
    made = growing()
    more(made, 0, 3456)
    made.trace().save(tmp_path / "run")
    loaded = Trace.load(tmp_path / "run")
    assert_same(loaded, made.trace())
    assert files.MAX_ROWS >= 60_000_000
