"""What docs/parts.md shows is what the checks pass and the machines run."""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_machines import FPS, Pair

import avlab
from avlab import testing
from avlab.wire.units import NS

DOCS = Path(__file__).parent.parent / "docs" / "parts.md"
sys.path.append(str(DOCS.parent))
import chain  # noqa: E402


def shown(heading: str) -> dict[str, type]:
    """The classes of a section's first block of code."""
    section = DOCS.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"avlab": avlab, "np": np, "zlib": zlib}
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


def test_the_payload_format() -> None:
    payload = shown("A payload format")["Mine"]
    testing.check_payload(payload)
    assert set(in_simulation(payload=payload)["fate"]) == {"shown"}


def test_the_codec(data: Path) -> None:
    codec = shown("A codec")["Grey"]
    testing.check_codec(codec)
    assert set(in_simulation(data / "count.mp4", codec=codec)["fate"]) == {"shown"}


def in_simulation(clip: Any = FPS, **parts: Any) -> Any:
    """The pictures of a run in which nothing is lost."""
    trace = avlab.simulate(clip, seconds=2, width=160, work=0.001, network=avlab.Network(), **parts)
    return trace.frames.query("stream == 'video'")


def test_the_pacer() -> None:
    pacer = shown("A pacer")["Every40Ms"]
    testing.check_pacer(pacer)
    sent = avlab.simulate(25, pacer=pacer, seconds=4).frames["sent"]
    assert sent.diff().median() == pytest.approx(0.04, abs=0.001)


def functions(heading: str) -> dict[str, Any]:
    """All that a section's first block of code defines, functions too."""
    section = DOCS.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"avlab": avlab}
    exec(code[1].split("\nwith ")[0], names)
    return names


def test_the_loss_and_the_delay() -> None:
    names = functions("A network's loss and delay")
    testing.check_network(loss=names["lost"], delay=names["delay"])
    assert avlab.check.bursts(names["lost"])
    trace = avlab.simulate(30, network=avlab.Network(loss=names["lost"], delay=names["delay"]), seconds=10)
    assert 1 < (avlab.metrics.summary(trace).packet_loss_percent or 0) < 5
    delays = avlab.metrics.one_way_delay(trace)["delay_ms"].round().value_counts()
    assert set(delays.index[:2]) == {20, 60}  # and few between, as packets keep their order


@pytest.mark.parametrize("name", ["target", "Slowest"])
def test_the_playout_delays(name: str) -> None:
    testing.check_delay(functions("A playout delay")[name])


def test_the_rate_control() -> None:
    testing.check_controller(shown("A rate control")["Halves"])


def test_all_nine_have_a_section_and_a_place_in_the_picture() -> None:
    text = DOCS.read_text(encoding="utf-8")
    picture = chain.svg()
    assert (DOCS.parent / "chain.svg").read_text(encoding="utf-8") == picture
    keywords = ("pacer", "network", "playout_delay", "jitter_buffer", "payload", "codec", "repairs", "rate_control")
    for keyword in (*keywords, "spread"):
        assert f"{keyword}=" in picture
        assert re.search(rf"\b{keyword}=", text)
    assert text.count("\n## ") == 9
