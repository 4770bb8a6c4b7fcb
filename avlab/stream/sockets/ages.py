"""Datagrams with their ages: the system notes when each comes, so that whoever reads late knows how late it is.

Linux alone is asked for it (SO_TIMESTAMPNS, socket(7)). It notes Unix time, which may be set meanwhile: an age is kept
within bounds.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

SO_TIMESTAMPNS = 35  # asm-generic/socket.h
UDP_GRO = 104  # linux/udp.h

MOST_AGE_NS = 1_000_000_000
"""What waits for longer has waited for this long."""

_DATAGRAM = 65_536
_MOMENT = struct.Struct("@ll")  # struct timespec


def ask_for_ages(sock: Any) -> bool:
    """Have `receive` tell of ages from now on; whether the system can."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            return True
    return False


def receive(sock: Any, most: int, gives_up: Callable[[OSError, int], bool]) -> list[tuple[bytes, Any, int]]:
    """The datagrams that wait, up to about `most`: bytes, address, and how many ns ago they came.

    `gives_up` is told of each error but that there is nothing, and how many there were; it may raise.
    """
    out: list[tuple[bytes, Any, int]] = []
    errors = 0
    while len(out) < most:
        try:
            data, ancillary, _, address = sock.recvmsg(_DATAGRAM, 128)
        except (BlockingIOError, InterruptedError):
            break
        except OSError as error:
            errors += 1
            if gives_up(error, errors):
                break
            continue
        age_ns, each = 0, len(data)
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, rest = _MOMENT.unpack_from(value)
                age_ns = min(MOST_AGE_NS, max(0, time.time_ns() - seconds * 1_000_000_000 - rest))
            elif level == socket.IPPROTO_UDP and kind == UDP_GRO:
                each = int.from_bytes(value[:2], sys.byteorder)
        if each == len(data):
            out.append((data, address[:2], age_ns))
        else:
            out += [(data[at : at + each], address[:2], age_ns) for at in range(0, len(data), each)]
    return out
