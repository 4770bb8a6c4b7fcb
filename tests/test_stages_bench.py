"""The stages of a picture's way: all are in the table, in their order, and add up."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import tools

from benchmarks import stages

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_stage_takes_its_time_and_none_is_left_out() -> None:
    said = tools.run(sys.executable, "-m", "benchmarks.stages", "--size", "320x240", "--seconds", "1.5", cwd=ROOT)
    rows = re.findall(r"^\| (.+) \| ([\d,]+) \| ([\d,]+) \|$", said, re.MULTILINE)
    assert [words for words, *_ in rows] == [words for _, _, words in stages.STAGES]
    medians = [int(median.replace(",", "")) for _, median, _ in rows]
    assert all(median > 0 for median in medians)
    assert max(medians[:-1]) < medians[-1]
