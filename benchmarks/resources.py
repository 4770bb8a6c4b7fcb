"""What serving and playing cost: CPU and memory of each process, the record's share, start-up, simulated time.

640x360 at 30 fps with sound, server and client in processes of their own. python benchmarks/resources.py
[--seconds 60]; with --seconds 600 it shows whether memory stays flat. With --beside TREE [--rounds 3] it prints only
what serving and playing take, here and in TREE, as `git worktree add TREE COMMIT` makes it, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import numpy as np
import psutil

import avlab
from avlab.measure.record.batches import Budget
from avlab.measure.record.trace import FrameRow, Recorder

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "data" / "count.mp4"
MB = 1 << 20


@contextlib.contextmanager
def pair(tree: Path, seconds: float, *options: str) -> Iterator[dict[str, psutil.Process]]:
    """`avlab serve` and `avlab play` of the avlab in a tree, the latter for so long after its start-up."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    avlab_ = [sys.executable, "-m", "avlab"]
    serve = [*avlab_, "serve", str(CLIP), "--loop", "--port", "0"]
    with subprocess.Popen(serve, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        play = [*avlab_, "play", url, "--no-window", "--audio", "null", "--seconds", str(seconds + 5), *options]
        with subprocess.Popen(play, cwd=tree, env=environment, stdout=subprocess.DEVNULL) as client:
            time.sleep(3)
            yield {"serve": psutil.Process(server.pid), "play": psutil.Process(client.pid)}
            client.wait(60)
        server.terminate()
        server.wait(10)


def streaming(seconds: float) -> None:
    """CPU and memory of `avlab serve` and `avlab play` while they stream."""
    trace = Path(tempfile.mkdtemp()) / "play.avtrace"
    with pair(ROOT, seconds, "--trace", str(trace)) as watched:
        memory: dict[str, list[int]] = {name: [] for name in watched}
        before = {name: sum(process.cpu_times()[:2]) for name, process in watched.items()}
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            time.sleep(min(5.0, seconds / 10))
            for name, process in watched.items():
                memory[name].append(process.memory_info().rss)
        spent = time.perf_counter() - began
        for name, process in watched.items():
            share = (sum(process.cpu_times()[:2]) - before[name]) / spent
            rss = np.array(memory[name]) / MB
            half = len(rss) // 2
            growth = (np.median(rss[half:]) - np.median(rss[:half])) / (spent / 2) * 60
            row("CPU of " + name, f"{share:.1%} of a core")
            row("memory of " + name, f"{rss.max():.0f} MB, growing by {growth:.2f} MB a minute, the trace included")
    first_picture(avlab.Trace.load(trace))
    shutil.rmtree(trace.parent)


def beside(other: Path, seconds: float, rounds: int) -> None:
    """What serving and playing take, in percent of a core, of this avlab and of another one, in turns."""
    print("| what | here | beside it | ratio |\n|---|---|---|---|")
    spent: list[list[dict[str, float]]] = []
    for number in range(rounds):
        trees = [ROOT, other] if number % 2 == 0 else [other, ROOT]
        of = {tree: shares(tree, seconds) for tree in trees}
        spent.append([of[ROOT], of[other]])
    for name in ("serve", "play"):
        ours, theirs = (median(turn[which][name] for turn in spent) for which in (0, 1))
        ratio = median(here[name] / there[name] for here, there in spent)
        print(f"| CPU of {name} | {ours:.1%} of a core | {theirs:.1%} | {ratio:.2f} |", flush=True)


def shares(tree: Path, seconds: float) -> dict[str, float]:
    """The share of a core that `serve` and `play` of the avlab in a tree take."""
    with pair(tree, seconds) as watched:
        before = {name: sum(process.cpu_times()[:2]) for name, process in watched.items()}
        time.sleep(seconds)
        return {name: (sum(process.cpu_times()[:2]) - before[name]) / seconds for name, process in watched.items()}


def first_picture(trace: avlab.Trace) -> None:
    """From the server's answer to PLAY to the first picture shown and the first sound heard."""
    settings, frames = trace.settings, trace.frames
    played = settings.loc[settings["name"] == "play", "time"].iloc[0]
    first = frames.groupby("stream", observed=True)["shown"].min() - played
    row("after PLAY", f"first picture {first['video'] * 1e3:.0f} ms, first sound {first['audio'] * 1e3:.0f} ms")


def recording() -> None:
    """What the record of 30 fps with sound costs: pictures of 13 packets and 50 chunks of 3, written by both sides."""
    budget = Budget()
    recorder = Recorder(side="client", epoch_ns=0, clock="none", budget=budget)
    frame = FrameRow("video", 1, 1, 1, 1, 1, 1, 1, 1, 1, 15_000, 13, 0, "shown")
    picture: dict[str, Any] = {"stream": "video", "ssrc": 1, "seq": 1, "timestamp": 1, "size": 1200, "last": 700}
    chunk: dict[str, Any] = picture | {"stream": "audio", "ticks": 294, "last": 1188}
    carried = [(at * 6_666_667, at * 294, 1176) for at in range(3)]
    heard = 3, 1, 294, 882, 1, 0, 44_100, (1, 2, 3), ((0, 882, 1),)
    seconds = 60
    began = time.process_time()
    for now_ns in range(seconds):
        for side in ({"sent_ns": now_ns}, {"received_ns": now_ns, "fate": "used"}):
            for _ in range(30):
                recorder.packet_run(13, **picture, last_marker=True, **side)
                recorder.frame(frame)
            for _ in range(50):
                recorder.packet_run(3, **chunk, **side)
        for at in range(50):
            recorder.sound_sent(at, now_ns, now_ns, carried, pts_ns=now_ns, timestamp=at)
            recorder.sound_heard([heard], wide=4, timed=True)
        for _ in range(30):
            recorder.sync(1, 1, 1, 1, 1.0)
    row("record, both sides", f"{(time.process_time() - began) / seconds:.2%} of a core at 30 fps")
    row("record in memory, both sides", f"{budget.held / seconds / 1e3:.0f} KB a second")


def start_up(runs: int = 7) -> None:
    """`import avlab`, in a fresh interpreter, less the interpreter itself."""

    def best(code: str) -> float:
        times = []
        for _ in range(runs):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - began)
        return float(np.median(times))

    row("import avlab", f"{best('import avlab') - best('pass'):.3f} s")


def simulating() -> None:
    """Ten minutes in virtual time, of pacing alone and of packets with sound; and many short runs with loss."""
    way = avlab.Network(loss=0.02, delay=0.02, jitter=0.005)
    cases: dict[str, Callable[[], avlab.Trace]] = {
        "of pacing": lambda: avlab.simulate(30.0, seconds=600, seed=1),
        "at 400 pixels, with sound and loss": lambda: avlab.simulate(CLIP, seconds=600, width=400, network=way),
        "the same with retransmission": lambda: avlab.simulate(CLIP, seconds=600, width=400, network=way, repair="rtx"),
    }
    for name, run in cases.items():
        began = time.process_time()
        trace = run()
        spent = time.process_time() - began
        row(f"ten simulated minutes {name}", f"{spent:.2f} s of CPU for {len(trace.frames):,} frames")
    runs: dict[str, tuple[float | Path, int]] = {"without sound": (30.0, 1_000), "of a clip with sound": (CLIP, 1_000)}
    for name, (clip, count) in runs.items():
        began = time.perf_counter()
        joblib.Parallel(n_jobs=2)(joblib.delayed(lost)(clip, seed) for seed in range(count))
        row(f"{count:,} runs of 10 s with loss, {name}", f"{time.perf_counter() - began:.1f} s on two cores")


def lost(clip: float | Path, seed: int) -> int:
    """How many packets one short run with loss loses."""
    trace = avlab.simulate(clip, seconds=10, width=400, network=avlab.Network(loss=0.02, seed=seed))
    return int((trace.packets["fate"] == "lost").sum())


def row(name: str, value: str) -> None:
    """One line of the table."""
    print(f"| {name} | {value} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.beside is not None:
        beside(options.beside.resolve(), options.seconds, options.rounds)
        return
    print("| what | measured |\n|---|---|")
    start_up()
    simulating()
    recording()
    streaming(options.seconds)


if __name__ == "__main__":
    main()
