"""The clocks: the machine's monotonic one, and one that jumps. All that runs in time asks one of these."""

from __future__ import annotations

import os
import select
import selectors
import sys
import time
import uuid
from pathlib import Path
from typing import Protocol

from avlab.measure.record.scratch import Scratch

WINDOWS = sys.platform == "win32"

MARGIN_NS = 20_000_000 if WINDOWS else 2_000_000
"""Sockets are waited for until this long before a deadline, the rest is slept: Python's epoll rounds its timeout up to
whole milliseconds, and Windows' select has steps of 15 ms."""

NAP_NS = 1_000_000
"""On Windows the rest is slept in naps, with a look at the sockets after each: 20 ms are too long not to look."""

FD_SETSIZE = 1024
"""From this number on, `select` takes no descriptor."""


class Clock(Protocol):
    """What runs in time asks one of these, and waits on no other."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment."""

    def at(self, counter_ns: int) -> int:
        """A moment of `time.perf_counter_ns`, as devices have it, on this clock."""

    def sleep_until(self, moment_ns: int) -> None:
        """Return at `moment_ns`, or at once when it has passed."""

    def wait(
        self, selector: selectors.BaseSelector, deadline_ns: int | None, *, attentive: bool = False
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready sockets, or an empty list at `deadline_ns` (None: no deadline)."""


class MonotonicClock:
    """time.perf_counter_ns: its steps are below 1 us everywhere; time.monotonic's are 15.6 ms on older Windows."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment."""
        return time.perf_counter_ns()

    def at(self, counter_ns: int) -> int:
        """A moment of `time.perf_counter_ns`, as devices have it, on this clock.

        Args:
            counter_ns: The moment, in nanoseconds.
        """
        return counter_ns

    @property
    def identity(self) -> str:
        """The same word for the same clock; see `clock_identity`."""
        return clock_identity()

    def sleep_until(self, moment_ns: int) -> None:
        """Return at `moment_ns`, or at once when it has passed.

        Args:
            moment_ns: The moment on this clock, in nanoseconds.
        """
        remaining_ns = moment_ns - self.now_ns()
        if remaining_ns > 0:
            time.sleep(remaining_ns / 1e9)

    def wait(
        self, selector: selectors.BaseSelector, deadline_ns: int | None, *, attentive: bool = False
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready sockets, or an empty list at `deadline_ns` (None: no deadline), to a fraction of a millisecond.

        The last of it is slept through, unless `attentive`: then, where the system can, a socket ends it at any time.
        On Windows sockets are looked at each millisecond of it.

        Args:
            selector: Where the sockets are registered.
            deadline_ns: The moment on this clock, in nanoseconds; None for none.
            attentive: Whether a socket ends the last of it as well.
        """
        if deadline_ns is None:
            return selector.select(None)
        remaining_ns = deadline_ns - self.now_ns()
        if remaining_ns > MARGIN_NS:
            ready = selector.select((remaining_ns - MARGIN_NS) / 1e9)
            if ready:
                return ready
        if WINDOWS:
            while not (ready := selector.select(0)) and (now_ns := self.now_ns()) < deadline_ns:
                self.sleep_until(min(deadline_ns, now_ns + NAP_NS))
            return ready
        if not (attentive and self._watch(selector, deadline_ns)):
            self.sleep_until(deadline_ns)
        return selector.select(0)

    def _watch(self, selector: selectors.BaseSelector, deadline_ns: int) -> bool:
        """Wait to the microsecond: epoll's own descriptor can be waited for by `select`, which does not round."""
        descriptor = FD_SETSIZE
        if sys.platform != "win32":  # whose select takes sockets alone
            descriptor = getattr(selector, "fileno", lambda: FD_SETSIZE)()
        if descriptor >= FD_SETSIZE:
            return False
        remaining_ns = deadline_ns - self.now_ns()
        if remaining_ns > 0:
            select.select([descriptor], [], [], remaining_ns / 1e9)
        return True


class OtherClock(MonotonicClock):
    """A clock as another computer's would be, for whoever has one computer: it is ahead of this one's, and drifts.

    Args:
        ahead: Seconds by which it is ahead at first, -1,000,000 to 1,000,000; less than 0 where it is behind.
        ppm: By how much it is faster, in parts per million, -500 to 500; computers' are within 100.

    Raises:
        ValueError: A number that is none of those.
    """

    def __init__(self, ahead: float = 0.0, ppm: float = 0.0) -> None:
        for name, value, most, unit in (("ahead", ahead, 1e6, "seconds"), ("ppm", ppm, 500, "parts per million")):
            if not (isinstance(value, int | float) and abs(value) <= most):
                raise ValueError(f"{name} must be -{most:,.0f} to {most:,.0f} {unit}, not {value!r}")
        self.ahead, self.ppm = float(ahead), float(ppm)
        self._ahead_ns, self._rate_ppb, self._since_ns = round(ahead * 1e9), round(ppm * 1e3), time.perf_counter_ns()

    def __repr__(self) -> str:
        return f"OtherClock(ahead={self.ahead:g}, ppm={self.ppm:g})"

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment."""
        return self.at(time.perf_counter_ns())

    def at(self, counter_ns: int) -> int:
        """A moment of `time.perf_counter_ns`, as devices have it, on this clock.

        Args:
            counter_ns: The moment, in nanoseconds.
        """
        return counter_ns + self._ahead_ns + (counter_ns - self._since_ns) * self._rate_ppb // 1_000_000_000

    @property
    def identity(self) -> str:
        """The same word for the same clock."""
        return f"{clock_identity()}:{self._ahead_ns}:{self._rate_ppb}:{self._since_ns}"


class VirtualClock:
    """A clock that stands still until it is told to jump."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Nanoseconds, as last set."""
        return self._now_ns

    def at(self, counter_ns: int) -> int:
        """As it is: no device asks of virtual time."""
        return counter_ns

    def sleep_until(self, moment_ns: int) -> None:
        """Jump forward to `moment_ns`; never back."""
        self._now_ns = max(self._now_ns, moment_ns)

    def wait(
        self, selector: selectors.BaseSelector, deadline_ns: int | None, *, attentive: bool = False
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now, without waiting; when nothing is, jump to the deadline."""
        ready = selector.select(0)
        if not ready and deadline_ns is not None:
            self.sleep_until(deadline_ns)
        return ready


class WallClock:
    """Unix time that never steps: read once, then carried on by the monotonic clock. For sender reports."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.perf_counter_ns()

    def unix_ns(self, now_ns: int) -> int:
        """Unix time in nanoseconds at a moment of the monotonic clock."""
        return now_ns + self._offset_ns


def clock_identity() -> str:
    """Names the monotonic clock: equal for two processes if, and only if, their readings can be compared.

    perf_counter is one clock for all processes since a boot, on Linux for those of one time namespace, which may shift
    it (time_namespaces(7)); where the boot cannot be told, only for this process and those that it starts with
    `CLOCK_VARIABLE` in their environment.
    """
    boot = _boot()
    return _process_identity if boot is None else f"boot:{boot}"


CLOCK_VARIABLE = "AVLAB_CLOCK"
_process_identity: str = os.environ.get(CLOCK_VARIABLE) or f"process:{uuid.uuid4()}"


def _boot() -> str | None:
    """What tells this boot, and this namespace of clocks, from all others; None where the system does not say."""
    ways = {"linux": _boot_of_linux, "darwin": _boot_of_macos, "win32": _boot_of_windows}
    try:
        return ways[sys.platform]()
    except (KeyError, OSError, ValueError, AttributeError):
        return None


def _boot_of_linux() -> str | None:
    try:
        namespace = os.readlink("/proc/self/ns/time")  # as in time:[4026531834]
    except FileNotFoundError:  # a kernel before 5.6, or without them: one clock for all
        namespace = ""
    return linux_boot(Path("/proc/sys/kernel/random/boot_id").read_text(), namespace)


def linux_boot(boot_id: str, namespace: str) -> str:
    """The name of the clock of a boot, by the kernel's word for it, in a time namespace, where there is one."""
    return ":".join(filter(None, [boot_id.strip(), namespace]))


def _boot_of_macos() -> str | None:
    """The kernel's own word for it, kern.bootsessionuuid; without a process that would have to be started."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    value, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    if library.sysctlbyname(b"kern.bootsessionuuid", value, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return None
    return value.value.decode("ascii", "replace").strip() or None


def _boot_of_windows() -> str | None:
    """A name for the machine and a number for the boot, which the registry counts."""
    if sys.platform == "win32":
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography") as key:
            machine = winreg.QueryValueEx(key, "MachineGuid")[0]
        place = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
            return f"{machine}:{winreg.QueryValueEx(key, 'BootId')[0]}"
    else:
        return None


spill = Scratch()
"""Where the rows of a record go that has no place of its own."""
