"""When equal packets are handed to the system many at a time, which it cuts up itself (UDP segmentation offload). Pure.

It costs a fraction of the work, and hides what is on the wire: a capture on the sender's machine sees the packets
before they are cut, and takes a frame for one large datagram.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

NS = 1_000_000_000

Mode: TypeAlias = Literal["auto", "on", "off"]

ON_FROM, OFF_BELOW = 5_000, 2_500
"""Packets in a second: as many as that, or fewer, in each of two seconds in a row."""

SECONDS = 2

NOT_HERE = (
    "this system, or its network device, cannot cut packets up (UDP segmentation offload is Linux's): each is handed "
    "over by itself"
)

TURNED_ON = (
    f"over {ON_FROM:,} packets a second: from here on the system cuts frames into packets (UDP segmentation offload), "
    "and a capture on this machine sees a frame as one large datagram"
)
TURNED_OFF = (
    f"fewer than {OFF_BELOW:,} packets a second: each is handed over by itself again, as a capture on this machine "
    "sees it"
)


def check_offload(value: object) -> Mode:
    """The mode; ValueError for what is none."""
    for mode in get_args(Mode):
        if value == mode and isinstance(value, str):
            checked: Mode = mode
            return checked
    raise ValueError(f"offload must be 'auto', 'on' or 'off', not {value!r:.60}")


class Offload:
    """Decides for all that one handle sends. `mode` may be set from any thread, and acts on the next packets.

    `changed` is told by the sending thread what is used from now on, "on", "off" or "not available", and why: a
    sentence, or nothing where it is no more than what was asked for.
    """

    def __init__(self, changed: Callable[[str, str], None] = lambda used, words: None, *, mode: Mode = "auto") -> None:
        self.mode: Mode = mode
        self._changed = changed
        self._used = ""
        self._able = True
        self._busy = False  # what "auto" makes of it
        self._since_ns: int | None = None  # when the second that is counted began
        self._packets = 0
        self._above = self._below = 0  # seconds in a row

    def count(self, packets: int, able: bool, now_ns: int) -> bool:
        """So many packets are about to be sent, by something that is `able` to; whether to hand over many at a time.

        What was not able once is not asked again.
        """
        self._tick(now_ns)
        self._packets += packets
        self._able = self._able and able
        mode = self.mode
        wanted = mode == "on" or (mode == "auto" and self._busy)
        used = "not available" if not self._able else "on" if wanted else "off"
        if used != self._used:
            before, self._used = self._used, used
            self._changed(used, _why(mode, before, used))
        return used == "on"

    def _tick(self, now_ns: int) -> None:
        """Judge the seconds that are over."""
        if self._since_ns is None:
            self._since_ns = now_ns
        passed = (now_ns - self._since_ns) // NS
        if passed > 0:
            self._judge(self._packets)
            for _ in range(min(passed - 1, SECONDS)):  # in which nothing was sent
                self._judge(0)
            self._since_ns += passed * NS
            self._packets = 0

    def _judge(self, packets: int) -> None:
        self._above = self._above + 1 if packets >= ON_FROM else 0
        self._below = self._below + 1 if packets < OFF_BELOW else 0
        if self._above >= SECONDS:
            self._busy = True
        elif self._below >= SECONDS:
            self._busy = False


def _why(mode: Mode, before: str, used: str) -> str:
    if used == "not available":
        return NOT_HERE if mode == "on" or before == "on" else ""
    if mode != "auto":
        return ""
    return TURNED_ON if used == "on" else TURNED_OFF if before == "on" else ""
