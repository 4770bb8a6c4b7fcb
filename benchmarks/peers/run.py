"""Runs one measurement: a process that sends, one for each receiver, their CPU time, and what the board says.

Ends all it starts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.peers import painted
from benchmarks.peers.job import Board, Job
from benchmarks.peers.pictures import reel

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0
"""Seconds that a system has to deliver its first pictures: sixteen processes take some to start."""
TELLING = 3.0
"""Seconds that a sender has to tell of its offload."""


class PeerError(Exception):
    """The system delivered nothing; the reason in one sentence."""


@dataclass(frozen=True)
class Seen:
    """What happened in the window: pictures decoded by each receiver, pictures handed over, CPU seconds."""

    seconds: float
    pictures: tuple[NDArray[np.int64], ...]
    """A receiver each: rows of (number, handed over, decoded), ns; a number that came twice is there once."""
    handed: int
    sender_cpu: float
    receiver_cpu: float
    others: float = 0.0
    """What other programs, and other guests of the same machine, took meanwhile: a share of all its cores."""
    offload: str = ""
    """Whether the system cut frames into packets meanwhile, as far as the sender can tell."""

    @property
    def fps(self) -> float:
        """Distinct pictures decoded a second, of the slowest receiver."""
        return min(map(len, self.pictures)) / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU time of both sides for each picture delivered."""
        return (self.sender_cpu + self.receiver_cpu) * 1e3 / max(1, sum(map(len, self.pictures)))

    @property
    def sender_share(self) -> float:
        """The sender's share of a core."""
        return self.sender_cpu / self.seconds

    @property
    def sender_ms(self) -> float:
        """The sender's CPU time for each picture that it was handed."""
        return self.sender_cpu * 1e3 / max(1, self.handed)

    @property
    def delivered(self) -> float:
        """The share of what was handed over that was decoded, over all receivers."""
        return sum(map(len, self.pictures)) / max(1, self.handed * len(self.pictures))

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """From the send call to the decoded picture."""
        return np.concatenate([rows[:, 2] - rows[:, 1] for rows in self.pictures]) / 1e6

    @property
    def p50_ms(self) -> float:
        """The median of `latency_ms`."""
        return self._quantile_ms(0.5)

    @property
    def p99_ms(self) -> float:
        """What one picture in a hundred takes, or more."""
        return self._quantile_ms(0.99)

    def _quantile_ms(self, share: float) -> float:
        latency = self.latency_ms
        return float(np.quantile(latency, share)) if len(latency) else float("nan")

    def pacing(self, fps: float) -> tuple[float, float, float]:
        """(p50 in ms, p95 in ms, rate in ppm) of the first receiver's pictures against an even `fps`.

        The error is of each gap, per picture that it spans; the rate is that of a line through all, 0 when it is right.
        """
        rows = self.pictures[0]
        if len(rows) < 10:
            return float("nan"), float("nan"), float("nan")
        steps, gaps = np.diff(rows[:, 0]), np.diff(rows[:, 2]) / 1e6
        error = np.abs(gaps / np.maximum(1, steps) - 1e3 / fps)
        period = np.polyfit(rows[:, 0] - rows[0, 0], (rows[:, 2] - rows[0, 2]) / 1e9, 1)[0]
        return float(np.median(error)), float(np.quantile(error, 0.95)), float((1 / (period * fps) - 1) * 1e6)


def measure(module: str, job: Job, *, seconds: float, warm: float = 1.0, python: str = sys.executable) -> Seen:
    """Run one system for `seconds`, after `warm` seconds with every receiver served. PeerError when nothing comes."""
    painted.check_size(job.width, job.height)
    write_reel(job)
    board = Board(job.folder, receivers=job.receivers, create=True)
    with contextlib.ExitStack() as sides:
        receivers = [sides.enter_context(started(module, "receive", job, python, n)) for n in range(job.receivers)]
        sender = sides.enter_context(started(module, "send", job, python))
        deadline = time.monotonic() + PATIENCE
        while min(map(board.count, range(job.receivers))) < 3:
            for name, side in (*(("receiver", receiver) for receiver in receivers), ("sender", sender)):
                if side.poll() is not None:
                    raise PeerError(f"the {name} ended: {last_words(job, side)}")
            if time.monotonic() > deadline:
                served = sum(board.count(r) > 2 for r in range(job.receivers))
                raise PeerError(f"{served} of {job.receivers} receivers had pictures after {PATIENCE:g} s")
            time.sleep(0.02)
        time.sleep(warm)
        from_ns, handed, before = time.monotonic_ns(), board.sent, (_cpu(sender), _cpu(*receivers), _all_cpu())
        board.begin(from_ns)
        time.sleep(seconds)
        to_ns, handed_by, after = time.monotonic_ns(), board.sent, (_cpu(sender), _cpu(*receivers), _all_cpu())
        board.finish()
        deadline = time.monotonic() + TELLING
        while board.offload == "" and time.monotonic() < deadline:
            time.sleep(0.02)
    rows = tuple(rows_between(board, receiver, from_ns, to_ns) for receiver in range(job.receivers))
    sent_cpu, received_cpu, all_cpu = (late - early for early, late in zip(before, after, strict=True))
    window = (to_ns - from_ns) / 1e9
    others = max(0.0, all_cpu - sent_cpu - received_cpu) / window / (psutil.cpu_count() or 1)
    return Seen(window, rows, handed_by - handed, sent_cpu, received_cpu, others, board.offload or "")


def rows_between(board: Board, receiver: int, from_ns: int, to_ns: int) -> NDArray[np.int64]:
    """Rows of (number, handed over, decoded), ns, of what a receiver decoded in a stretch of time, each number once."""
    rows: dict[int, tuple[int, int, int]] = {}
    for number, now_ns in board.pictures(receiver):
        if from_ns <= now_ns < to_ns and number not in rows:
            rows[number] = number, board.handed_ns(number), now_ns
    return np.array(list(rows.values()), np.int64).reshape(-1, 3)


# ---- processes


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """A folder in memory, where there is one, for a run's files."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    name = tempfile.mkdtemp(prefix="avlab-peers-", dir=memory)
    try:
        yield name
    finally:
        shutil.rmtree(name, ignore_errors=True)


@contextlib.contextmanager
def free_ports(count: int = 99) -> Iterator[int]:
    """The first of `count` ports that nobody uses, below those that the system gives out by itself.

    The one behind them is held meanwhile, so that no other run takes them before they are used.
    """
    with contextlib.ExitStack() as held:
        for first in range(20_000, 32_000, count + 1):
            keeper = held.enter_context(socket.socket())
            try:
                keeper.bind(("127.0.0.1", first + count))
                for port in range(first, first + count):
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                        with socket.socket(socket.AF_INET, kind) as probe:
                            probe.bind(("127.0.0.1", port))
            except OSError:
                keeper.close()
                continue
            break
        else:
            raise OSError(f"no {count} neighbouring ports are free on 127.0.0.1")
        yield first


@contextlib.contextmanager
def started(module: str, role: str, job: Job, python: str, number: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a module's function of this name, with a desk; ended with all that it has started."""
    command = [python, "-m", "benchmarks.peers.worker", module, role, job.serialize(), str(number)]
    with (Path(job.folder) / f"{role}-{number}.log").open("wb") as log:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        side = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield side
    finally:
        _end(side)


def _end(side: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started."""
    family = _family(side)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=5)
    side.wait()


def _family(side: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        process = psutil.Process(side.pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu(*sides: subprocess.Popen[bytes]) -> float:
    """CPU seconds of processes and of their children, those that have ended included."""
    total = 0.0
    for process in (process for side in sides for process in _family(side)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _all_cpu() -> float:
    """CPU seconds that the machine did not have to spare since it started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def last_words(job: Job, side: subprocess.Popen[bytes]) -> str:
    """What a process that has ended said last."""
    role, number = (side.args[4], side.args[6]) if isinstance(side.args, list) else ("", "")
    said = (Path(job.folder) / f"{role}-{number}.log").read_text(errors="replace").strip().splitlines()
    return said[-1][:200] if said else f"exit code {side.returncode}, without a word"


# ---- pictures


def write_reel(job: Job) -> None:
    """The pictures that are sent, as the job has them, in the file `reel`."""
    with (Path(job.folder) / "reel").open("wb") as file:
        for picture in reel(job.width, job.height):
            file.write(picture if job.depth == 3 else cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420))
