"""The teacher's kit agrees with the lessons: plans, answers, predictions, commands, and the recorded runs."""

from __future__ import annotations

import math
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import nbformat
import numpy as np
import pytest

import avlab
from avlab import FeedbackPacer, Network, Trace, TutorialPacer, metrics, simulate
from avlab.arguments import parser
from avlab.lab.report import report
from avlab.measure.numbers.datagrams import in_base64, largest

ROOT = Path(__file__).parents[1]
TEACHING = ROOT / "teaching"
sys.path.append(str(TEACHING))
import assignment  # noqa: E402
import fallback  # noqa: E402

CLIP = ROOT / "data" / "count.mp4"
CALL = ROOT / "data" / "call.pcap"
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}


@cache
def page(name: str) -> str:
    return (TEACHING / f"{name}.md").read_text(encoding="utf-8")


@cache
def cells(notebook: str) -> dict[str, Any]:
    read = nbformat.read(NOTEBOOKS[notebook], as_version=4)  # type: ignore[no-untyped-call]
    return {cell.id: cell for cell in read.cells}


def sections(name: str) -> dict[str, str]:
    """A page's sections by their headings."""
    parts = re.split(r"^## (.+)$", page(name), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of a page's tables, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]
    return [
        row
        for at, row in enumerate(found)
        if not (at + 1 < len(lines) and "---" in lines[at + 1])
        if "---" not in row[0]
    ]


# ---- plans


def test_the_two_hours_have_120_minutes_without_a_gap() -> None:
    spans = [tuple(map(int, match)) for match in re.findall(r"^\| (\d+)\N{EN DASH}(\d+) \|", page("two-hours"), re.M)]
    assert spans[0][0] == 0
    assert spans[-1][1] == 120
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_a_week_has_ninety_minutes() -> None:
    spans = [tuple(map(int, match)) for match in re.findall(r"^\| (\d+)\N{EN DASH}(\d+) \|", page("term"), re.M)]
    assert (spans[0][0], spans[-1][1]) == (0, 90)
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_every_notebook_has_its_week_and_its_minutes_and_comes_after_what_it_needs() -> None:
    weeks = re.findall(r"^\| (\d+) \| `(\d\d_\w+)` \| (\d+) \| ([^|]+) \|", page("term"), re.M)
    assert [int(week) for week, *_ in weeks] == list(range(1, len(weeks) + 1))
    order = [name for _, name, _, _ in weeks]
    assert set(NOTEBOOKS) <= set(order)
    for at, (_, name, minutes, needs) in enumerate(weeks):
        if name in NOTEBOOKS:
            assert f"*{minutes} minutes.*" in next(iter(cells(name).values())).source
        for need in re.findall(r"\d\d", needs):
            assert any(before.startswith(need) for before in order[:at]), (name, need)


def test_the_sections_that_the_two_hours_name_are_there() -> None:
    for name in ("00_welcome", "03_pacing", "05_loss"):
        [row] = [row for row in rows(page("two-hours")) if row[1] == f"`{name}`"]
        text = "\n".join(cell.source for cell in cells(name).values())
        said = {
            int(number) for number in re.findall(r"\b(\d+)\b", re.sub(r"minute \d+|question \d+|\d+ %", "", row[2]))
        }
        assert said
        assert all(re.search(rf"^## {number}\. ", text, re.M) for number in said), (name, said)


# ---- answers


@pytest.mark.parametrize("name", sorted(sections("explain")))
def test_each_question_of_explain_has_its_answer(name: str) -> None:
    asked = re.findall(r"^(\d)\. ", cells(name)["explain"].source, re.M)
    answered = re.findall(r"^(\d)\. \*\*[^*]+\*\* \S", sections("explain")[name], re.M)
    assert asked == answered == ["1", "2", "3"]


def test_the_lessons_whose_answers_must_be_there_have_them() -> None:
    must = {name for name in NOTEBOOKS if name[:2] <= "09"}
    assert must <= set(sections("explain")) <= set(NOTEBOOKS)
    assert must <= set(sections("predictions")) <= set(NOTEBOOKS)


def test_the_points_are_those_that_are_given() -> None:
    _, points = assignment.answers()
    assert "three for a notebook" in " ".join(page("explain").split())
    assert points == 3


# ---- predictions


def told() -> dict[tuple[str, str], tuple[list[str], str]]:
    """By notebook and question: what is said wrongly, and what it is."""
    found: dict[tuple[str, str], tuple[list[str], str]] = {}
    for name, text in sections("predictions").items():
        question = ""
        for row in rows(text):
            question = row[0] or question
            wrong, right = found.get((name, question), ([], ""))
            found[name, question] = ([*wrong, row[1]], row[3] or right)
    return found


def number(text: str) -> float:
    [found] = re.findall(r"^(\N{MINUS SIGN}?[\d,.]+)", text)
    return float(found.replace(",", "").replace("\N{MINUS SIGN}", "-"))


def test_every_question_that_a_lesson_asks_is_there() -> None:
    for name in sections("predictions"):
        code = "\n".join(cell.source for cell in cells(name).values() if cell.cell_type == "code")
        asked = re.findall(r'avlab\.predict\("([^"]+)"', code)
        assert [question for of, question in told() if of == name] == asked


@cache
def run(**settings: Any) -> Trace:
    return simulate(CLIP, **settings)


def shown(trace: Trace) -> float:
    whole = metrics.summary(trace)
    return 100 * whole.shown / whole.offered


def gaps() -> Any:
    import av

    with av.open(str(ROOT / "data" / "count-vfr.mp4")) as container:
        times = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.pts is not None and p.time_base]
    return 1_000 * np.diff(sorted(times))


def one_frame() -> int:
    capture = cv2.VideoCapture(str(CLIP))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 45)
    _, picture = capture.read()
    capture.release()
    small = cv2.resize(picture, (640, 360), interpolation=cv2.INTER_AREA)
    return len(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])


def first_recv() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()
    with sender, receiver:
        for _ in range(5):
            sender.sendall(bytes(1_000))
        sender.shutdown(socket.SHUT_WR)
        receiver.setblocking(True)
        while len(receiver.recv(8_192, socket.MSG_PEEK)) < 5_000:
            pass
        return len(receiver.recv(4_096))


def answer(cell: str) -> Any:
    """What notebook 08 asks for in a cell, with the model answer in it."""
    [exercise] = [each for each in assignment.answers()[0] if (each.notebook[:2], each.cell) == ("08", cell)]
    definition, _ = exercise.parts(cells("08_your_own_parts")[cell].source)
    scope: dict[str, Any] = {}
    exec(exercise.solved(definition), scope)
    return scope[exercise.work]


def behind() -> float:
    trace = simulate(CLIP, pacer=TutorialPacer(edition="macos"), work=0.002)
    return float(metrics.compare({"it": trace}).loc["it", "behind, ms"])


def challenge() -> avlab.Challenge:
    [word] = re.findall(r'Challenge\("(.*?)"\)', cells("09_sweep_and_tune")["setup"].source)
    return avlab.Challenge(word)


def best_quality() -> float:
    of = challenge()
    points = {
        quality: sum(metrics.score(of.run(quality=quality, seed=seed)).points for seed in range(2))
        for quality in range(10, 81, 10)
    }
    return max(points, key=points.__getitem__)


def half_of_the_trip() -> float:
    """All of a round trip of 20 ms is the way there, or the way back: how wrong the middle is, in per cent of it."""
    guesses = [((t2 - 0) + (t3 - t4)) / 2 for t2, t3, t4 in ((0.02, 0.02, 0.02), (0, 0, 0.02))]
    return 100 * max(map(abs, guesses)) / 0.02


def sound_of_the_call() -> float:
    """Per cent of the packets that came from Ada."""
    streams = Trace.from_pcap(CALL).meta["streams"]
    came = {each["number"]: each["packets"] for each in streams if each["flow"][0] == streams[0]["flow"][0]}
    return 100 * float(came[1]) / sum(came.values())


UNEVEN = Network(jitter=0.04, seed=5)
FOUND: dict[tuple[str, str], Callable[[], float]] = {
    ("00_welcome", "bytes of a frame at quality 80"): lambda: float(
        run(seconds=20, network=Network()).frames.query("stream == 'video'")["bytes"].median()
    ),
    ("01_fps_extraction", "the longest gap in count-vfr.mp4"): lambda: float(gaps().max()),
    ("02_jpeg_budget", "bytes of the frame at quality 80"): one_frame,
    ("02_jpeg_budget", "the best quality at 400 pixels"): lambda: float(
        largest(in_base64(avlab.frame_sizes(CLIP)), 9_216)[400]
    ),
    ("03_pacing", "behind after a minute"): behind,
    ("04_sockets", "bytes of the first recv over TCP"): first_recv,
    ("05_loss", "frames damaged by 2 % of packet loss"): lambda: 100 - shown(run(network=Network(loss=0.02))),
    ("06_playout", "so that 1 % is late"): lambda: float(
        metrics.one_way_delay(run(network=UNEVEN))["delay_ms"].quantile(0.99)
    ),
    ("06_playout", "until 100 ms are used up at 200 ppm"): lambda: 0.1 / 200e-6 / 60,
    ("07_adaptation", "frames shown at 10 % too much"): lambda: shown(
        run(audio=False, network=Network(rate=3_000, queue=0.2, delay=0.02))
    ),
    ("07_adaptation", "frames shown, the path twice as wide as the stream"): lambda: shown(
        run(audio=False, network=Network(rate=6_000, queue=0.01), seconds=20)
    ),
    ("08_your_own_parts", "frames damaged by bursts of three"): lambda: (
        100 - shown(run(network=Network(loss=answer("loss")), seconds=30))
    ),
    ("08_your_own_parts", "frames shown by the 19 of 20 rule"): lambda: shown(
        run(network=UNEVEN, playout_delay=answer("wait"), seconds=40)
    ),
    ("08_your_own_parts", "frames shown, whole or not"): lambda: shown(
        run(network=Network(loss=0.02), payload=answer("format"), seconds=30)
    ),
    ("12_captures", "sound among the packets of the call"): sound_of_the_call,
    ("12_captures", "frames of the call that miss a packet"): lambda: float(
        metrics.summary(Trace.from_pcap(CALL, streams=[2, 1])).frame_loss_percent or 0
    ),
    ("09_sweep_and_tune", "points of the first settings"): lambda: challenge().score().points,
    ("09_sweep_and_tune", "the quality that gets most points"): best_quality,
    ("10_two_laptops", "how wrong at the most"): half_of_the_trip,
}
"""What each is, worked out as the notebook does."""


@pytest.mark.parametrize("key", FOUND, ids="-".join)
def test_what_is_said_to_come_out_does(key: tuple[str, str]) -> None:
    wrong, right = told()[key]
    claimed, found = number(right), FOUND[key]()
    near = max(0.02 * abs(found), 0.6)
    assert claimed == pytest.approx(found, abs=near), f"the page says {right}, it is {found:g}"
    good = [said for said in wrong if number(said) == pytest.approx(found, abs=near)]
    assert len(good) < len(wrong), "one that is wrong is among them"


def test_what_is_of_one_machine_is_marked_and_all_else_is_worked_out() -> None:
    for key, (_, right) in told().items():
        assert right.endswith("*") != (key in FOUND), key


def test_the_thoughts_behind_wrong_numbers_lead_to_them() -> None:
    said = told()
    pixels = 640 * 360 * 3
    assert [number(each) for each in said["00_welcome", "bytes of a frame at quality 80"][0]] == [
        0.8 * pixels, pixels, pixels / 10,
    ]  # fmt: skip
    by_05 = 100 * (1 - 0.97**12)
    assert number(said["08_your_own_parts", "frames damaged by bursts of three"][0][0]) == pytest.approx(by_05, abs=0.6)
    assert number(said["05_loss", "frames damaged by 2 % of packet loss"][0][1]) == 12 * 2
    edge = in_base64(avlab.frame_sizes(CLIP))
    alone = largest(avlab.frame_sizes(CLIP), 9_216)[400]
    assert number(said["02_jpeg_budget", "the best quality at 400 pixels"][0][1]) == alone > largest(edge, 9_216)[400]
    assert math.exp(-1) > 1 / 3, "more than a third wait longer than the mean"
    assert math.exp(-2) == pytest.approx(1 / 7, rel=0.06), "one in seven waits for over twice the mean"


def test_the_numbers_in_the_answers_to_explain() -> None:
    text = {name: " ".join(part.split()) for name, part in sections("explain").items()}

    def size(**settings: Any) -> float:
        frames = run(seconds=20, network=Network(), **settings).frames.query("stream == 'video'")
        return float(frames["bytes"].median())

    half_width, half_quality = (100 * size(**each) / size() for each in ({"width": 320}, {"quality": 40}))
    assert f"and {half_width:.0f} % of the bytes" in text["00_welcome"]
    assert f"every pixel and {half_quality:.0f} % of the bytes" in text["00_welcome"]
    losses = [100 - shown(run(network=Network(loss=0.02), width=width)) for width in (640, 160)]
    pattern = r"(\d+) % of the frames at 640 pixels \(12 packets\), but (\d+) % at 160 \(two\)"
    [claimed] = re.findall(pattern, text["05_loss"])
    assert [float(each) for each in claimed] == pytest.approx(losses, abs=1)
    frames = run(network=Network(loss=0.02), width=160).frames.query("stream == 'video'")
    assert round(float(frames["packets"].astype(float).mean())) == 2
    assert f"{200e-6 * 86_400:.0f} s a day" in text["06_playout"]
    trace = simulate(
        CLIP, pacer=FeedbackPacer(lambda d, m, t: max(0, d + 0.02 * (1 / t - 1 / m)), start=0.5 / 30), seconds=20
    )
    assert metrics.compare({"it": trace}).loc["it", "behind, ms"] < -200, "ends ahead"


# ---- commands


def commands(name: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page(name), re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    return [*lines, *re.findall(r"`((?:avlab|make) [^`]+)`", page(name))]


@pytest.mark.parametrize("name", ["day-before", "fallback", "two-hours"])
def test_the_commands_are_real(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    lines = commands(name)
    assert lines
    for line in lines:
        tool, *words = line.split()
        if tool == "make":
            assert words[0] in targets, line
        elif not words[0].isupper():
            parser().parse_args(words)


@pytest.mark.slow
def test_the_one_stream_for_all_is_a_tenth_of_what_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "notebooks")
    opened, lost, clients = re.findall(r"```python\n(.*?)```", page("two-hours"), re.S)
    scope: dict[str, Any] = {}
    try:
        exec(opened, scope)
        exec(clients, scope)
        for client in scope["clients"]:
            client.wait(2)
        audience = scope["server"].audience
        exec(lost, scope)
    finally:
        avlab.stop_all()
    assert list(audience["name"]) == ["Ada", "Bela", "Chen", "Dana", "Emre"]
    [claimed] = re.findall(r"thirty clients take (\d+) Mbit/s so", " ".join(page("two-hours").split()))
    assert 30 * audience["kbps"].median() / 1_000 == pytest.approx(float(claimed), rel=0.3)


# ---- the recorded runs


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("recorded")
    done = subprocess.run(
        [sys.executable, "teaching/fallback.py", "--to", str(to)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return to


def test_the_runs_are_small_and_the_same_each_time(recorded: Path, tmp_path: Path) -> None:
    files = sorted(recorded.rglob("*.avtrace"))
    assert len(files) == len(fallback.RUNS) + len(fallback.CLASS) > 15
    assert sum(file.stat().st_size for file in files) < 4_000_000
    again = fallback.write(tmp_path)
    assert len(again) == len(files)
    for file in again:
        one, other = (Trace.load(folder / file.relative_to(tmp_path)) for folder in (recorded, tmp_path))
        for table in ("frames", "packets", "sync"):
            assert getattr(one, table).equals(getattr(other, table)), (file, table)


def test_each_run_is_a_page(recorded: Path) -> None:
    for file in sorted(recorded.rglob("*.avtrace")):
        html = report(Trace.load(file))
        assert html.count("<img") >= 4, file
    asked = [sys.executable, "-m", "avlab", "report", str(recorded / "05_loss.avtrace")]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (recorded / "05_loss.html").stat().st_size > 50_000


def test_the_class_that_was_made_up_is_gathered(recorded: Path) -> None:
    found = avlab.gather(recorded / "class")
    assert len(found.table) == len(found.predictions) == len(fallback.CLASS)
    assert set(found.predictions["said"]) == set(fallback.CLASS.values())


BEFORE = {"00_welcome": ["predict"], "08_your_own_parts": ["loss", "loss-run", "wait"]}
"""Cells that have to be run before, though they stream nothing."""


@pytest.mark.parametrize("row", rows(page("fallback")), ids=lambda row: f"{row[0]}-{row[1]}".replace("`", ""))
def test_what_is_written_in_place_of_a_cell_serves_those_after_it(
    row: list[str], recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = row[0].strip("`")
    lines = [line.replace("../build/fallback", str(recorded)) for line in re.findall(r"`([^`]+)`", row[2])]
    monkeypatch.chdir(ROOT / "notebooks")
    of = cells(name)
    scope: dict[str, Any] = {}
    exec(of["setup"].source.replace("avlab.check.begin()", "pass"), scope)
    for cell in BEFORE.get(name, []):
        exec(of[cell].source, scope)
    for line in lines:
        exec(line, scope)
    variable = lines[0].split(" = ")[0]
    assert variable in scope
    [made] = [at for at, cell in enumerate(of.values()) if re.search(rf"^ *{variable}\b.* = ", cell.source, re.M)][
        :1
    ] or [0]
    later = [cell for cell in list(of.values())[made + 1 :] if cell.cell_type == "code"]
    using = [cell.source for cell in later if re.search(rf"\b{variable}\b", cell.source) and "with" not in cell.source]
    for source in using:
        exec(source, scope)
    assert using or len(lines) > 1
