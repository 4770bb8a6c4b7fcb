"""What is measured of a system, round by round, and how long each lasts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.peers.catalogue import System
from benchmarks.peers.job import Job
from benchmarks.peers.run import PeerError, Seen, folder, free_ports, measure
from benchmarks.peers.table import Figures

SMALL, LARGE = (640, 360), (1280, 720)
FPS = 30.0
RECEIVERS = 16


@dataclass(frozen=True)
class Length:
    """Seconds that each kind of measurement lasts, and of running before it; and to how many receivers all at once.

    Before it is measured, avlab has had the two seconds in which it sees whether offload pays.
    """

    flat: float = 4.0
    paced: float = 8.0
    fan: float = 5.0
    warm: float = 3.0
    receivers: int = RECEIVERS


def flat_out(system: System, figures: Figures, length: Length) -> Seen:
    """640x360 as fast as it goes."""
    seen = run_once(system, SMALL, length.flat, length)
    figures.small_fps, figures.small_cpu_ms = seen.fps, seen.cpu_ms
    return seen


def flat_out_large(system: System, figures: Figures, length: Length) -> Seen:
    """1280x720 as fast as it goes."""
    seen = run_once(system, LARGE, length.flat, length)
    figures.large_fps, figures.large_cpu_ms = seen.fps, seen.cpu_ms
    return seen


def at_30(system: System, figures: Figures, length: Length) -> Seen:
    """640x360 at 30 fps: each picture handed over when it is due, or by the system's own loop where it has no other."""
    seen = run_once(system, SMALL, length.paced, length, fps=FPS, paces=system.only_paced)
    figures.latency_ms, figures.latency_p99_ms = seen.p50_ms, seen.p99_ms
    figures.one_cpu = seen.sender_share
    figures.own_pacing = system.only_paced
    figures.pacing_ms, _, figures.rate_ppm = seen.pacing(FPS)
    if seen.delivered < 0.995:
        figures.remarks.append(f"at 30 fps {seen.delivered:.1%} of the pictures were delivered.")
    return seen


def own_pacing(system: System, figures: Figures, length: Length) -> Seen | None:
    """640x360 at the 30 fps that the system itself keeps."""
    if not system.paces or system.only_paced:
        return None
    figures.own_pacing, figures.pacing_ms, figures.rate_ppm = True, None, None
    seen = run_once(system, SMALL, length.paced, length, fps=FPS, paces=True)
    figures.pacing_ms, _, figures.rate_ppm = seen.pacing(FPS)
    return seen


def fan_out(system: System, figures: Figures, length: Length) -> Seen | None:
    """640x360 at 30 fps to sixteen receivers, or as many as `length` has, each a process."""
    if not system.fans_out:
        return None
    seen = run_once(system, SMALL, length.fan, length, fps=FPS, receivers=length.receivers)
    figures.all_cpu, figures.all_delivered = seen.sender_share, min(1.0, seen.delivered)
    figures.all_latency_ms, figures.all_latency_p99_ms = seen.p50_ms, seen.p99_ms
    return seen


Round = Callable[[System, Figures, Length], Seen | None]
# Round by round, not system by system: what is compared was measured within a minute.
ROUNDS: tuple[tuple[Round, tuple[str, ...]], ...] = (
    (flat_out_large, ("large_fps", "large_cpu_ms")),
    (flat_out, ("small_fps", "small_cpu_ms")),
    (at_30, ("latency_ms", "latency_p99_ms", "pacing_ms", "rate_ppm")),
    (own_pacing, ("pacing_ms", "rate_ppm")),
    (fan_out, ("all_cpu", "all_latency_ms", "all_latency_p99_ms", "all_delivered")),
)


def run_once(
    system: System,
    size: tuple[int, int],
    seconds: float,
    length: Length,
    *,
    fps: float = 0.0,
    paces: bool = False,
    receivers: int = 1,
) -> Seen:
    """One run of one system in a folder and on ports of its own; PeerError when nothing comes."""
    with folder() as name, free_ports() as port:
        job = Job(
            width=size[0],
            height=size[1],
            folder=name,
            port=port,
            option=system.option,
            fps=fps,
            paces=paces,
            receivers=receivers,
            depth=system.depth,
        )
        return measure(system.module, job, seconds=seconds, warm=length.warm, python=system.python)


def told(seen: Seen) -> str:
    """A run in a line."""
    words = f"{seen.fps:.1f} fps, {seen.delivered:.1%} delivered, {seen.p50_ms:.1f} ms (p99 {seen.p99_ms:.1f}), "
    words += f"sender {seen.sender_share:.0%} of a core, receivers {seen.receiver_cpu / seen.seconds:.0%}"
    return f"{words}, offload {seen.offload}" if seen.offload else words


def measure_all(systems: list[System], length: Length) -> tuple[list[Figures], float]:
    """Every round of every system; what fails has its reason in place of its figures. And what others took at most."""
    figures = {system.name: Figures(label=system.label, kind=system.kind) for system in systems}
    absent = {system.name: words for system in systems if (words := system.missing())}
    busiest = 0.0
    for work, names in ROUNDS:
        for system in systems:
            own = figures[system.name]
            try:
                if system.name in absent:
                    raise PeerError(absent[system.name])
                seen = work(system, own, length)
                busiest = max(busiest, seen.others if seen else 0.0)
            except PeerError as failed:
                for name in names:
                    setattr(own, name, str(failed))
            else:
                said = told(seen) if seen else "not what it does"
                print(f"{work.__name__:15} {system.label:20} {said}", file=sys.stderr, flush=True)
    return list(figures.values()), busiest
