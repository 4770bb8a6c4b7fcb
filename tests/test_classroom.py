"""A class on one page and on a terminal, without a browser: what is told of whom, and that names stay text."""

from __future__ import annotations

import io
import json
import queue
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tools
from rawclient import until

import avlab
from avlab.lab.notebook import classroom as module
from avlab.lab.notebook.classroom import Classroom
from avlab.lab.rollcall import REDRAWN_S, TABLE_S, RollCall, audience_lines
from avlab.measure.numbers.attendance import Member
from avlab.stream.handle import Handle
from avlab.stream.server import Server
from avlab.wire.units import NS

BEGAN = 1_700_000_000 * NS
TAG = "<img src=x onerror=alert(1)>"


def member(client: int, name: str = "", **numbers: Any) -> Member:
    return Member(client, name, f"10.0.0.{client}", BEGAN, **numbers)


class FakeServer(Handle):
    """Has the members that a test gives it."""

    def __init__(self) -> None:
        super().__init__()
        self._given: Sequence[Member] | Exception = ()

    @property
    def members(self) -> Sequence[Member]:
        if isinstance(self._given, Exception):
            raise self._given
        return self._given

    def _begin(self) -> None:
        self.spawn("idle", lambda worker: worker.stopping.wait())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    with FakeServer() as server:
        yield server


@pytest.fixture
def page(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> tuple[Classroom, queue.Queue[dict[str, Any]]]:
    """The widget, and what its page is sent."""
    sent: queue.Queue[dict[str, Any]] = queue.Queue()
    monkeypatch.setattr(Classroom, "send", lambda self, content, buffers=None: sent.put(content))
    return Classroom(cast(Server, server)), sent


def hear(widget: Classroom, **word: Any) -> None:
    widget._hear(widget, word, [])


def test_the_page_is_told_who_there_is_and_what_it_comes_to(
    server: FakeServer, page: tuple[Classroom, queue.Queue[dict[str, Any]]]
) -> None:
    widget, sent = page
    server._given = [
        member(1, TAG, fps=29.97, loss=0.0234, jitter=0.0012, round_trip=0.0105, kbps=4712.4, last_report=0.4),
        member(2, group="239.255.0.1"),
    ]
    hear(widget, hello=True)
    told = sent.get(timeout=20)
    first, second = told["rows"]
    assert (first["name"], first["address"]) == (TAG, "10.0.0.1")
    assert [first[key] for key in ("fps", "loss", "jitter", "round_trip", "kbps", "report")] == [
        30.0, 2.3, 1.2, 10.5, 4712.4, 0.4,
    ]  # fmt: skip
    assert second["loss"] is None
    assert second["address"].endswith("(multicast)")
    assert told["say"].startswith("2 clients are sent 4.7 Mbit/s")
    assert told["mbps"] == pytest.approx(4.7124)
    json.dumps(told, allow_nan=False)
    hear(widget, seen=told["number"])
    until(lambda: any("joined" in words for words in sent.get(timeout=20)["news"]) or hear(widget, seen=10**9))
    widget.close()


def test_a_minute_is_remembered_of_those_who_are_there(
    server: FakeServer, page: tuple[Classroom, queue.Queue[dict[str, Any]]]
) -> None:
    widget, sent = page
    hear(widget, hello=True)
    server._given = [member(1, "Ada", fps=30.0, loss=0.1)]

    def newest() -> dict[str, Any]:
        told = sent.get(timeout=20)
        hear(widget, seen=told["number"] or 0)
        return told

    until(lambda: any(len(row["loss_past"]) == module.REMEMBERED for row in newest()["rows"]))
    until(lambda: all(set(row["loss_past"]) == {10.0} for row in newest()["rows"]))
    server._given = [member(2, "Grace")]
    until(lambda: [row["name"] for row in newest()["rows"]] == ["Grace"])
    until(lambda: any(words.endswith("Ada (10.0.0.1) left") for words in newest()["news"]))
    server.stop()
    until(lambda: newest().get("ended"))


def test_a_server_that_does_not_answer_is_said_in_the_page_and_stops_nothing(
    server: FakeServer, page: tuple[Classroom, queue.Queue[dict[str, Any]]]
) -> None:
    widget, sent = page
    server._given = RuntimeError("the server's process has not answered for 10 s: stop it, and begin anew")
    told = sent.get(timeout=20)
    assert told["failed"]
    assert "has not answered" in told["say"]
    assert isinstance(widget.error, RuntimeError)
    assert server.running
    while not sent.empty():
        sent.get()
    hear(widget, hello=True)  # a page that is loaded again
    assert sent.get(timeout=20)["failed"]


def test_nothing_queues_for_a_page_that_is_slow(
    server: FakeServer, page: tuple[Classroom, queue.Queue[dict[str, Any]]]
) -> None:
    widget, sent = page
    until(lambda: widget._past == {} and server.running)
    assert sent.empty(), "nobody has said hello"
    server._given = [member(1, "Ada", fps=1.0)]
    hear(widget, hello=True)
    assert sent.get(timeout=20)["number"] == 1
    until(lambda: len(widget._past.get(1, ())) >= 10)
    assert sent.empty(), "the first has not been seen"


def test_it_is_of_a_server_that_runs() -> None:
    with pytest.raises(TypeError, match=r"an avlab\.Server"):
        avlab.classroom("rtsp://127.0.0.1")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="start it first"):
        avlab.classroom(avlab.Server([np.zeros((16, 16, 3), np.uint8)]))


def test_the_page_makes_no_html_of_what_it_is_told() -> None:
    source = Path(module.__file__).with_suffix(".js").read_text()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "eval(",
        'setAttribute("on',
    ):
        assert word not in source


# ---- on a terminal


def test_a_table_has_a_line_a_client_within_the_terminals_width() -> None:
    members = [
        member(1, "\u5c71\u7530\u592a\u90ce", fps=30.0, kbps=4700.0),
        member(2, "Ada", loss=0.1),
        member(3, "x" * 40),
    ]
    head, *rows, total = audience_lines(members, columns=200, most=50)
    assert len(rows) == 3
    assert "10.0 %" in rows[1]
    assert "1 client" not in total
    at = head.index("address")
    assert rows[1].index("10.0.0.2") == at
    assert rows[0].index("10.0.0.1") == at - 4, "each of the four characters takes two cells"
    assert all(len(line) <= 30 for line in audience_lines(members, columns=30, most=50))
    assert "and 2 more" in audience_lines(members, columns=200, most=1)
    assert audience_lines([], columns=80, most=5) == ["Nobody plays."]
    for columns in (40, 80):  # the sum is a sentence, and is not cut
        said = " ".join(audience_lines(members, columns=columns, most=50)[4:])
        assert said.endswith("for a whole room."), said


def called(steps: Sequence[tuple[float, Sequence[Member]]], *, redraw: bool) -> str:
    out, here = io.StringIO(), list[Member]()
    roll = RollCall(lambda: here, lambda text: cast(None, out.write(text)), redraw=redraw, size=lambda: (140, 12))
    for now_s, members in steps:
        here[:] = members
        roll.look(now_s, BEGAN + round(now_s * NS))
    return out.getvalue()


def test_lines_tell_who_comes_and_leaves_and_a_table_comes_every_few_seconds() -> None:
    ada, bob = member(1, "Ada", kbps=1000.0), member(2, "Bob", kbps=500.0)
    steps: list[tuple[float, Sequence[Member]]] = [(t / 5, [ada] if t < 60 else [ada, bob]) for t in range(100)]
    said = called([(-1.0, []), *steps, (21.0, [bob]), (22.0, []), (23.0, []), (40.0, [])], redraw=False)
    assert "\x1b" not in said
    assert said.count("Ada (10.0.0.1) joined") == said.count("Ada (10.0.0.1) left") == 1
    assert said.index("Bob (10.0.0.2) joined") < said.index("Ada (10.0.0.1) left") < said.index("Bob (10.0.0.2) left")
    assert said.count("Mbit/s:") == pytest.approx(20 / TABLE_S + 1, abs=1)
    assert said.count("Nobody plays.") == 1, "the last table, and then silence"


def test_a_terminals_table_takes_the_place_of_the_one_before() -> None:
    ada = member(1, "Ada", kbps=1000.0)
    said = called([(0.0, [ada]), (REDRAWN_S, [ada]), (REDRAWN_S + 1, [ada, member(2, "Bob")])], redraw=True)
    assert said.count("\x1b[3A\x1b[J") == 2, "a heading, a line and the sum"
    assert re.sub(r"\x1b\[[0-9]*[A-Z]|\r", "", said).count("Bob (10.0.0.2) joined") == 1
    many = [member(number, f"n{number}") for number in range(1, 40)]
    assert "and 35 more" in called([(0.0, many)], redraw=True)


@pytest.mark.slow
def test_serve_prints_its_audience_and_play_sends_a_name(data: Path) -> None:
    command = sys.executable, "-m", "avlab", "serve", data / "count.mp4", "--port", 0, "--loop", "--audience"
    with tools.started(*command, "--seconds", 60) as server:
        assert server.stdout is not None
        found = re.search(r"rtsp://\S+", server.stdout.readline())
        assert found is not None
        with avlab.Client(found[0], audio="null", name=f"{TAG}\x1b[2J\u202e") as client:
            said = ""
            while "kbit/s" not in said:
                said += server.stdout.readline()
            line = server.stdout.readline()
            assert line.startswith(TAG[:24])
            assert "127.0.0.1" in line
            assert client.running
        while "left" not in said:
            said += server.stdout.readline()
        assert f"{TAG}[2J (127.0.0.1) joined" in said
        assert "\x1b" not in said
