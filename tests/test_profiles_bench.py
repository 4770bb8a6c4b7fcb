"""The profile of a frame's way: its tables have both sides' threads in them, and with --calls their files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import tools

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("calls", [False, True])
def test_both_sides_are_in_the_tables(calls: bool) -> None:
    asked = ["--seconds", "1.0", "--warm", "0.5", *["--calls"] * calls]
    said = tools.run(sys.executable, "-m", "benchmarks.profiles", *asked, cwd=ROOT)
    rows = re.findall(r"^\| (server|client) \| (\d+) \| (\S+) \| (\d+) \| (\d+) \|$", said, re.MULTILINE)
    threads = {thread for _, _, thread, _, _ in rows}
    assert {"avlab-video", "avlab-client"} <= threads
    assert all(int(fps) > 0 for _, fps, *_ in rows)
    assert ("| `avlab/core/arriving.py` |" in said or "| `avlab/wire/rtp.py` |" in said) == calls
