"""What docs/parts.md shows is what the checks pass and the machines run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_machines import FPS, Pair

import avlab
from avlab import testing
from avlab.wire.units import NS

DOCS = Path(__file__).parent.parent / "docs" / "parts.md"


def shown(heading: str) -> dict[str, type]:
    """The classes of a section's first block of code."""
    section = DOCS.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"avlab": avlab}
    exec(code[1].split("\nwith ")[0], names)
    return {name: value for name, value in names.items() if isinstance(value, type)}


def test_the_jitter_buffer() -> None:
    buffer = shown("A jitter buffer")["FixedDelay"]
    testing.check_jitter_buffer(buffer)
    pair = Pair(buffer=buffer, seconds=1)
    pair.run(3 * NS)
    assert pair.fates() == ["shown"] * FPS


@pytest.mark.parametrize("name", ["Xor", "Again"])
def test_the_repairs(name: str) -> None:
    repair = shown("A repair")[name]
    testing.check_repair(repair)
    runs = [Pair(own=part, seconds=2, loss=0.03) for part in (None, repair)]
    for pair in runs:
        pair.run(4 * NS)
    plain, mine = (pair.fates().count("shown") for pair in runs)
    assert plain < 0.85 * 2 * FPS
    assert mine >= (0.98 if name == "Again" else 0.9) * 2 * FPS
