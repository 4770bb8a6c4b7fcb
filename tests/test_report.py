"""A trace as a page: whole in itself, with every figure that there is, and what anyone said as text."""

from __future__ import annotations

import html
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import traces

import avlab
from avlab import cli
from avlab.lab.report import report
from avlab.measure.numbers.served import served
from avlab.measure.record.join import join
from avlab.measure.record.trace import Recorder, Trace

EVIL = "<img src=x onerror=\"alert('1')\">\x1b[2J\u202e"


class Page(HTMLParser):
    """The tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def run(**more: float) -> Trace:
    made = traces.run(seconds=2, **more)  # type: ignore[arg-type]
    return join(made.server, made.client)


def test_a_page_has_figures_of_its_own_and_asks_nobody_for_anything() -> None:
    page = Page(report(run(loss=0.1)))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) >= 7
    for image in images:
        assert str(image["src"]).startswith("data:image/png;base64,")
        assert image["alt"]
    fetched = [tag for tag, attributes in page.tags if tag in ("script", "link", "iframe") or "href" in attributes]
    assert not fetched
    shown = avlab.metrics.summary(run(loss=0.1)).shown
    assert f"shown{shown}" in page.text


def test_what_anyone_said_is_text() -> None:
    recorder = Recorder(side="client", epoch_ns=0, clock="x")
    recorder.setting(0, EVIL, EVIL)
    recorder.event(0, "notice", EVIL)
    recorder.meta["clip"] = EVIL
    text = report(recorder.trace())
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("img", "script")]
    assert page.text.count("<img src=x onerror=") >= 4
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert html.escape("<img src=x") in text
    assert "nothing to draw" in page.text


def test_the_command_writes_beside_the_trace_and_never_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "run.avtrace"
    run().save(trace)
    before = trace.read_bytes()
    assert cli.main(["report", str(trace)]) == 0
    assert "<h1>" in (tmp_path / "run.html").read_text(encoding="utf-8")
    assert cli.main(["report", str(trace), "--out", str(trace)]) == 1
    assert cli.main(["report", str(trace), "--out", str(tmp_path / "no" / "where.html")]) == 1
    assert cli.main(["report", str(tmp_path / "none.avtrace")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert "is the trace itself" in said[0]
    assert "name another file with --out" in said[1]
    assert trace.read_bytes() == before


def test_a_servers_own_record_says_what_it_sent_and_what_was_reported() -> None:
    made = traces.run(seconds=2, packets=5, loss=0.1)
    found = served(made.server)
    assert found.frames == 60
    assert found.fps == pytest.approx(30, rel=0.01)
    assert found.packets == made.server.count("packets")
    assert found.megabytes == pytest.approx(made.server.packets["bytes"].sum() / 1e6)
    assert "frames" in str(found)
    nobody = served(Recorder(side="server", epoch_ns=0, clock="x").trace())
    assert (nobody.frames, nobody.packets, nobody.loss_percent, nobody.fps) == (0, 0, None, None)


def test_a_simulated_runs_reports_are_counted() -> None:
    network = avlab.Network(loss=0.1, delay=0.05)
    found = served(avlab.simulate(30, seconds=5, network=network))
    assert found.loss_percent == pytest.approx(10, abs=4)
    assert found.round_trip_ms == pytest.approx(100, abs=5)
    assert found.reporting == 1


def test_the_json_of_play_has_loss_jitter_round_trip_and_delay() -> None:
    trace = avlab.simulate(30, seconds=3, network=avlab.Network(loss=0.1, delay=0.05, jitter=0.01, seed=2))
    said = json.loads(cli._as_json(avlab.metrics.summary(trace), None, trace))
    assert said["loss_percent"] == pytest.approx(10, abs=5)
    assert 0.1 < said["jitter_ms"] < 30
    assert said["round_trip_ms"] == pytest.approx(110, abs=30)
    assert said["delay_ms"] == pytest.approx(60, abs=15)
    nothing = json.loads(cli._as_json(None, RuntimeError("x")))
    assert nothing.keys() == said.keys()
    assert {value for name, value in nothing.items() if name != "error"} == {None}
