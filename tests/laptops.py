"""Two computers for tests: two network namespaces of this one with a cable between them, and a program in each.

Where namespaces are not permitted, both programs run side by side, and the loopback is the cable. Run as a program, it
is one of the two: the server, or the client whose clock is another one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import tools

ROOT = Path(__file__).parents[1]

AHEAD, PPM = 0.3, 50.0
"""The client's clock."""

REPORTS = 8
"""So many of the server's answers make a run."""

SECONDS = 120
"""For both programs to end, at the most: a few are enough."""

CABLE = """
set -e
ip link set lo up
unshare --net sleep 600 & far=$!
trap 'kill $far' EXIT
until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link add near type veth peer name far
ip link set far netns $far
ip addr add 10.9.0.1/24 dev near && ip link set near up
nsenter --target $far --net sh -c 'ip addr add 10.9.0.2/24 dev far; ip link set far up; ip link set lo up'
"$@" server 10.9.0.1 & server=$!
nsenter --target $far --net "$@" client 10.9.0.1
wait $server
"""
"""Both ends of the cable belong to the shell's own namespace and the sleeper's: all go when it ends."""


class Ran(NamedTuple):
    """What the two have left."""

    apart: bool
    """Whether each had a network of its own."""
    samples: list[list[int]]
    """Pairs of moments, by the server's clock and by the client's, which are one hardware's and so the truth."""


def namespaces() -> list[str] | None:
    """How a program gets a network of its own here; None where it is not to be had."""
    tools = [shutil.which(name) for name in ("unshare", "nsenter", "ip", "bash")]
    if None in tools:
        return None
    for rights in ([], ["--user", "--map-root-user"]):
        before = ["unshare", *rights, "--net"]
        tried = "ip link add a type veth peer name b && unshare --net true"
        if not subprocess.run([*before, "bash", "-c", tried], capture_output=True, timeout=60).returncode:
            return before
    return None


def run(folder: Path, ways: str) -> Ran:
    """Stream from one to the other until the clocks are known, and leave both records in `folder`."""
    before = namespaces()
    program = [sys.executable, __file__, str(folder), ways]
    if before is not None:
        out = tools.run(*before, "bash", "-c", CABLE, "cable", *program)
    else:
        with tools.started(*program, "server", "127.0.0.1") as server:
            out = tools.run(*program, "client", "127.0.0.1")
            assert not server.wait(SECONDS)
    return Ran(before is not None, json.loads(out.strip().splitlines()[-1]))


def serve(folder: Path, ways: str, host: str) -> None:
    """The server's part: until its client is gone."""
    import avlab

    def slower_up(packet, state):  # type: ignore[no-untyped-def]
        return 0.06 if packet.payload[1:2] == b"\xc9" else 0.004  # a receiver report takes its time

    network = avlab.Network(delay=slower_up) if ways == "up is slower" else avlab.Network()
    with avlab.Server(ROOT / "data" / "count.mp4", host=host, loop=True, width=160, network=network) as server:
        (folder / "url.part").write_text(server.url)
        (folder / "url.part").rename(folder / "url")
        until(lambda: (folder / "client.avtrace").exists())
    server.trace.save(folder / "server.avtrace")


def play(folder: Path) -> None:
    """The client's part: until it has heard enough of the server's clock."""
    import avlab

    until(lambda: (folder / "url").exists())
    clock = avlab.OtherClock(ahead=AHEAD, ppm=PPM)
    samples = [pair(clock)]
    with avlab.Client((folder / "url").read_text(), audio="null", audio_over="udp", clock=clock) as client:
        until(lambda: client.trace.clocks["echo"].notna().sum() >= REPORTS)
    samples.append(pair(clock))
    client.trace.save(folder / "client.avtrace")
    print(json.dumps(samples))


def pair(clock: object) -> list[int]:
    """One moment by this machine's clock and by another."""
    now_ns = time.perf_counter_ns()
    return [now_ns, clock.at(now_ns)]  # type: ignore[attr-defined]


def until(happened) -> None:  # type: ignore[no-untyped-def]
    """Wait for it."""
    end = time.monotonic() + SECONDS / 2
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


if __name__ == "__main__":
    place, which, side, address = sys.argv[1:]
    if side == "server":
        serve(Path(place), which, address)
    else:
        play(Path(place))
