"""Ports for tests that must name one before anybody listens there, or that nobody is to listen at.

The system gives out ports by itself from 32,768 on (Linux) or 49,152 on (Windows, macOS), and gave one that was looked
up there to somebody else now and then before the test had used it. These are from below, in blocks of a hundred: each
process holds the first port of its block as long as it lives, so that no other run of the tests uses the block too.
"""

from __future__ import annotations

import atexit
import os
import socket
from contextlib import ExitStack
from functools import cache
from itertools import cycle

FIRST, LAST, BLOCK = 10_000, 20_000, 100
"""Above those of known services, below those of the benchmarks."""

_NEXT = cycle(range(2, BLOCK, 2))


def free(number: int = 1, host: str = "127.0.0.1") -> int:
    """An even port at `host` that nobody has, TCP or UDP, nor the `number` - 1 after it; other ones in each call.

    :param number: how many neighbouring ports, 1 to 50
    :raises OSError: when the whole block is taken
    """
    block = _block(os.getpid())
    for _ in range(BLOCK):
        start = next(_NEXT)
        if start + number <= BLOCK and all(_is_free(host, block + start + at) for at in range(number)):
            for _ in range((number - 1) // 2):
                next(_NEXT)
            return block + start
    raise OSError(f"no {number} neighbouring ports from {block} on are free at {host}")


@cache
def _block(process: int) -> int:
    """The first port of this process's block, which is held from now on."""
    blocks = range(FIRST, LAST, BLOCK)
    for at in range(len(blocks)):
        keeper = socket.socket()
        first = blocks[(process + at) % len(blocks)]
        try:
            keeper.bind(("127.0.0.1", first))
        except OSError:
            keeper.close()
            continue
        atexit.register(keeper.close)
        return first
    raise OSError(f"other runs of the tests hold all ports from {FIRST} to {LAST}")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as probes:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            probe = probes.enter_context(socket.socket(family, kind))
            if kind == socket.SOCK_STREAM and os.name == "posix":  # connections that ended hold no server up either
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
