"""Picture against sound on the screen and the sound card, for avlab and for players of the same file, one by one.

    python -m benchmarks.avsync [avlab ffplay mpv] [--clip data/count.mp4] [--each]

Nothing here knows a player's clocks: see `observe`. Offsets are in milliseconds, positive when the sound is early.
On a busy machine put `chrt -r 2` before it (as root): player, screen and sound server then go before the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import observe
from tests import tools

CLIP = Path(__file__).parents[1] / "data" / "count.mp4"
SECONDS = 20.0
SETTLED = 4  # from this second on a player has had its time to settle


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def player(name: str, clip: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a player of `clip`; for avlab a server too, which is listening before the client is started."""
    with contextlib.ExitStack() as stack:
        if name == "avlab":
            port = free_port()
            serve = ["serve", str(clip), "--port", str(port), "--width", "640", "--once"]
            server = stack.enter_context(run([sys.executable, "-m", "avlab", *serve], env))
            wait_for(server, port)
            command = [sys.executable, "-m", "avlab", "play", f"rtsp://127.0.0.1:{port}/clip", "--window"]
        elif name == "ffplay":
            command = ["ffplay", "-v", "error", "-autoexit", str(clip)]
        else:
            command = ["mpv", "--no-config", "--really-quiet", "--ao=pulse", "--vo=x11", str(clip)]
        yield stack.enter_context(run(command, env))


@contextlib.contextmanager
def run(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program with its output thrown away, but for what it says is wrong; ended with the block."""
    child = subprocess.Popen(command, env=tools.environment(env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    """Return once `server` accepts connections on that port of this machine."""
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("avlab's server does not listen")


def measure(name: str, clip: Path) -> observe.Seen:
    """Play the whole clip once, watched from before the player starts."""
    with observe.stage() as (screen, sound, env):
        observer = observe.Observer(screen, sound)
        observer.start()
        try:
            with player(name, clip, env) as child, contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(SECONDS + 10)
            time.sleep(0.2)
        finally:
            seen = observer.stop()
    return seen


def row(name: str, pairs: list[observe.Pair]) -> str:
    """One line of the table."""
    ms = np.array([pair.offset for pair in pairs]) * 1e3
    late = np.array([pair.offset for pair in pairs if pair.second >= SETTLED]) * 1e3
    p95 = np.percentile(abs(ms), 95)
    settled = np.percentile(abs(late), 95) if len(late) else float("nan")
    return f"{name:8} {len(ms):6} {ms[0]:+9.1f} {np.median(ms):+9.1f} {p95:9.1f} {settled:12.1f} {abs(ms).max():9.1f}"


def each(pairs: list[observe.Pair]) -> Iterator[str]:
    """A line a second: the offset, and how far picture and sound were from a beat of exactly one second."""
    beat = float(np.median([pair.flash - pair.second for pair in pairs]))
    for pair in pairs:
        picture, sound = ((time - pair.second - beat) * 1e3 for time in (pair.flash, pair.tone))
        offset = pair.offset * 1e3
        yield f"  second {pair.second:3}: offset {offset:+7.1f}   picture {picture:+7.1f}   sound {sound:+7.1f}"


def main() -> None:
    """Measure the players named and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("players", nargs="*", default=[], metavar="avlab|ffplay|mpv")
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--each", action="store_true", help="print every second's offset too")
    args = parser.parse_args()
    names = args.players or ["avlab", "ffplay", "mpv"]
    if unknown := set(names) - {"avlab", "ffplay", "mpv"}:
        parser.error(f"unknown player {', '.join(sorted(unknown))}: give avlab, ffplay or mpv")
    inside = observe.reference(args.clip)
    print("picture minus sound in ms, positive when the sound is early; p95 and max of its size")
    print(f"{'player':8} {'pairs':>6} {'first':>9} {'median':>9} {'p95':>9} {f'p95 from {SETTLED} s':>12} {'max':>9}")
    for name in names:
        seen = measure(name, args.clip)
        pairs = seen.pairs(inside)
        if not pairs:
            print(f"{name:8} no pair: {len(seen.flashes)} flashes seen, {len(seen.tones)} tones heard")
            continue
        print(row(name, pairs), flush=True)
        if args.each:
            print(*each(pairs), sep="\n")
            print(f"  looked {seen.looks_per_second:.0f} times a second; "
                  f"sound's clock within {seen.clock_spread * 1e3:.1f} ms (5 to 95 %)")  # fmt: skip


if __name__ == "__main__":
    main()
