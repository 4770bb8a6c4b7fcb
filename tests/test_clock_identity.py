"""Which clocks are one: the name that a record gives to the clock of its times."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from avlab.stream import clock

TOLD = "from avlab.stream.clock import clock_identity; print(clock_identity())"


def told(*before: str, **env: str) -> str:
    done = subprocess.run(
        [*before, sys.executable, "-c", TOLD],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_processes_of_one_machine_share_a_clock() -> None:
    assert told().strip() == clock.clock_identity()
    assert clock.clock_identity().startswith("boot:")


def test_a_time_namespace_has_a_clock_of_its_own() -> None:
    unshare = shutil.which("unshare")
    tried = unshare and subprocess.run([unshare, "--user", "--time", "--fork", "true"], capture_output=True, timeout=60)
    if tried and not tried.returncode:  # a container may be forbidden to make one
        assert told(unshare, "--user", "--time", "--fork", "--").strip() != clock.clock_identity()  # type: ignore[arg-type]
    assert fake("time:[1]") != fake("time:[2]")


def fake(namespace: str, boot: str = "a") -> str:
    return clock.linux_boot(boot, namespace)


@pytest.mark.parametrize("other", [("b", "time:[1]"), ("a", "time:[2]"), ("a", "")])
def test_another_boot_or_namespace_is_another_clock(other: tuple[str, str]) -> None:
    assert fake(other[1], other[0]) != fake("time:[1]", "a")


def test_where_the_boot_is_not_known_a_process_shares_its_clock_with_those_it_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    mine = clock.clock_identity()
    assert mine.startswith("process:")
    assert mine == clock.clock_identity()
