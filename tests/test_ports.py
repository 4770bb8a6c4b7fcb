"""Ports for tests: free, neighbours where asked for, other ones in each call, and held from other runs."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import ports
import pytest
import tools


def test_calls_give_ports_apart_from_each_other() -> None:
    numbers = 1, 4, 2, 1, 3, 10, 1
    firsts = [ports.free(number) for number in numbers]
    given = [first + at for first, number in zip(firsts, numbers, strict=True) for at in range(number)]
    assert len(set(given)) == len(given)
    assert all(first % 2 == 0 for first in firsts)
    assert all(ports.FIRST < port < ports.LAST for port in given)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_somebody_has_is_passed_over(kind: int, host: str) -> None:
    with ExitStack() as held:
        taken = set()
        for _ in range(3):
            one = held.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind))
            port = ports.free(3, host) + 2
            one.bind((host, port))
            taken.add(port)
        found = {first + at for first in (ports.free(3, host) for _ in range(60)) for at in range(3)}
    assert not found & taken


def test_another_run_has_other_ports() -> None:
    mine = ports.free() // ports.BLOCK
    # As if its process had the same number, from which the search begins.
    code = "import ports; ports.os.getpid = lambda: 0; print(ports.free(), flush=True); input()"
    with ExitStack() as runs:
        blocks = set()
        for _ in range(3):
            run = tools.started(sys.executable, "-c", code, cwd=Path(__file__).parent, stdin=subprocess.PIPE)
            output = runs.enter_context(run).stdout
            assert output is not None
            blocks.add(int(output.readline()) // ports.BLOCK)
    assert len(blocks | {mine}) == 4
