"""A challenge: the same points everywhere for the same word and settings, and a network that nobody is told of."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools

import avlab
from avlab import Challenge, metrics
from avlab.lab import leaderboard
from avlab.lab.leaderboard import MOST_BYTES, Leaderboard
from avlab.measure.numbers.score import Score, detail, promptness

WORD = "blue kettle"
BETTER: dict[str, Any] = {"quality": 35, "repair": "rtx"}
PROGRAM = """
import avlab
challenge = avlab.Challenge({word!r})
print(repr(challenge.score(quality=35, repair="rtx")), challenge.key)
"""


def score(points: float = 50.0, **factors: float) -> Score:
    usual = {"shown": 1.0, "detail": 0.5, "promptness": 1.0, "kilobytes": 6.0, "delay_ms": 130.0}
    return Score(points=points, **(usual | factors))


# ---- the same everywhere


def test_two_processes_give_the_same_points() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM.format(word=word)],
            env={"PYTHONHASHSEED": hashes, "PATH": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for word, hashes in ((WORD, "1"), (" Blue  KETTLE ", "77"))
    ]
    assert said[0] == said[1]
    assert said[0] == f"{Challenge(WORD).score(**BETTER)!r} {Challenge(WORD).key}\n"


def test_a_number_is_a_word_too_and_points_are_the_product() -> None:
    found = Challenge(2026).score(quality=50)
    assert found == Challenge("2026").score(quality=50)
    assert found.points == pytest.approx(100 * found.shown * found.detail * found.promptness, abs=0.1)


def test_another_word_is_another_network() -> None:
    keys = {Challenge(word).key for word in ("a", "b", 1, "one")}
    assert len(keys) == 4
    assert Challenge("a").score() != Challenge("b").score()


def test_runs_to_look_at_are_drawn_by_their_seed_and_are_not_those_that_are_scored() -> None:
    challenge = Challenge(WORD)
    first, again, other = (challenge.run(seed=seed) for seed in (1, 1, 2))
    assert first.packets.equals(again.packets)
    assert not first.packets.equals(other.packets)
    scored = challenge.score()
    assert all(metrics.score(trace) != scored for trace in (first, other))
    assert metrics.score(first).points == pytest.approx(scored.points, abs=12)


# ---- hidden


def test_the_network_is_not_told_by_what_a_notebook_holds() -> None:
    challenge = Challenge(WORD)
    trace = challenge.run(quality=40)
    told = trace.settings.query("name == 'network'")
    assert len(told) == 3, "it becomes narrower, and wide again"
    assert set(told["value"]) == {"hidden"}
    seen = " ".join(map(repr, (challenge, vars(challenge), dir(challenge), trace.meta, str(challenge))))
    for word in ("kbit", "rate=", "loss=", "Network("):
        assert word not in seen
    assert not [name for name, value in vars(challenge).items() if isinstance(value, avlab.Network)]


def test_the_network_can_be_measured() -> None:
    trace = Challenge(WORD).run(quality=20)
    assert 0.5 < (metrics.summary(trace).packet_loss_percent or 0) < 8
    waits = metrics.one_way_delay(trace)["delay_ms"]
    assert 10 < waits.min() < 60


# ---- points


def test_the_formula() -> None:
    assert detail(np.array([500, 1_000, 2_000, 8_000, 32_000, 64_000])).tolist() == pytest.approx(
        [0, 0, 0.2, 0.6, 1, 1]
    )
    assert promptness(np.array([0, 0.15, 0.275, 0.4, 2])).tolist() == pytest.approx([1, 1, 0.5, 0, 0])


def test_points_of_a_run_are_as_a_hand_count_has_them() -> None:
    trace = avlab.simulate(30, network=avlab.Network(loss=0.02, delay=0.05), seconds=4, playout_delay=0.15)
    frames = trace.frames.query("stream == 'video'")
    seen = frames[frames["fate"] == "shown"]
    sizes = [min(1.0, max(0.0, math.log2(size / 1_000) / 5)) for size in seen["bytes"]]
    prompt = [min(1.0, max(0.0, (0.4 - wait) / 0.25)) for wait in seen["shown"] - seen["due"]]
    found = metrics.score(trace)
    assert found.shown == pytest.approx(len(seen) / len(frames), abs=1e-4)
    assert found.detail == pytest.approx(sum(sizes) / len(sizes), abs=1e-4)
    assert found.promptness == pytest.approx(sum(prompt) / len(prompt), abs=1e-4)
    assert found.points == pytest.approx(100 * found.shown * found.detail * found.promptness, abs=0.1)
    assert found.delay_ms == pytest.approx(1e3 * (seen["shown"] - seen["due"]).mean(), abs=0.1)
    assert metrics.score([trace, trace]) == found


def test_of_nothing_shown_there_are_no_points() -> None:
    nothing = avlab.simulate(30, network=avlab.Network(loss=1.0), seconds=1)
    assert metrics.score(nothing).points == 0
    assert metrics.score(nothing).shown == 0


@pytest.mark.parametrize("word", ["a", "class 3b", 2026, "Zürich", "x" * 200])
def test_every_network_can_be_done_better_than_a_stream_begins(word: str | int) -> None:
    challenge = Challenge(word)
    begun = challenge.score()
    assert 0 <= begun.points < 60
    best = max(challenge.score(quality=quality, repair="rtx").points for quality in (20, 30))
    assert best > max(40, 1.2 * begun.points)


# ---- what cannot be


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Challenge(""), ValueError, "1 to 200 characters"),
        (lambda: Challenge("x" * 201), ValueError, "1 to 200 characters, not 201"),
        (lambda: Challenge(1.5), TypeError, "a word or a number that a class shares"),  # type: ignore[arg-type]
        (lambda: Challenge(WORD).run(seed="x"), TypeError, "a seed is a whole number"),  # type: ignore[arg-type]
        (lambda: Challenge(WORD).score(qualty=5), TypeError, r"'qualty' is no setting .*: did you mean 'quality'"),
        (lambda: Challenge(WORD).score(network=avlab.Network()), TypeError, "that is the challenge's own"),
        (lambda: Challenge(WORD).score(seed=3), TypeError, "a score's seeds are its own"),
        (lambda: Challenge(WORD).score(quality=500), ValueError, "quality must be"),
        (lambda: Challenge(WORD).hand_in("Ada", 5, to="x"), TypeError, "settings are a dict"),  # type: ignore[arg-type]
        (lambda: Challenge(WORD).hand_in("", {}, to="x"), ValueError, "a leaderboard needs a name"),
        (lambda: Challenge(WORD).hand_in("x" * 41, {}, to="x"), ValueError, "at most 40 characters"),
        (lambda: avlab.plots.score(5), TypeError, "plots.score draws scores"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_a_part_of_ones_own_is_scored_and_one_that_fails_is_named() -> None:
    class Low:
        def update(self, report: avlab.Report) -> avlab.Choice | None:
            return avlab.Choice(30, 640) if report.quality != 30 else None

    class Broken:
        def update(self, report: avlab.Report) -> None:
            raise KeyError("oh")

    challenge = Challenge(WORD)
    assert challenge.score(rate_control=Low, repair="rtx").points > challenge.score().points
    with pytest.raises(avlab.PartError, match="the rate controller Broken failed: KeyError"):
        challenge.score(rate_control=Broken)


# ---- the leaderboard


def test_a_class_hands_in_and_the_best_is_first(tmp_path: Path) -> None:
    challenge, board = Challenge(WORD), tmp_path / "leaderboard.jsonl"
    assert "Nobody has handed in" in repr(challenge.leaderboard(board))
    challenge.hand_in("Ben", {}, to=board)
    challenge.hand_in("Ada", BETTER, to=board)
    found = challenge.hand_in("Ben", {"quality": 40}, to=board)
    table = found.table
    assert table["name"].tolist() == ["Ada", "Ben"]
    assert table["place"].tolist() == [1, 2]
    assert table["tries"].tolist() == [1, 2]
    assert table["settings"].tolist() == ["quality=35, repair=rtx", "quality=40"]
    assert table["points"][0] == challenge.score(**BETTER).points
    assert found.ignored == 0
    assert challenge.leaderboard(board).table.equals(table)
    assert len(board.read_text().splitlines()) == 3
    assert "Ada leads with" in found.figure().described()  # type: ignore[attr-defined]


def write(path: Path, *lines: Any) -> Leaderboard:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return Challenge(WORD).leaderboard(path)


def line(name: str = "Ada", points: float = 50.0, **more: Any) -> dict[str, Any]:
    return leaderboard.entry(Challenge(WORD).key, name, score(points, detail=points / 100), {}) | more


def test_lines_that_are_none_of_the_challenge_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    foreign: list[Any] = [
        "no JSON", "[]", "5", "[" * 1_500, '"x"', "{}",
        *(
            line() | odd
            for odd in (
                {"challenge": "other"}, {"name": ""}, {"name": "\u202e"}, {"name": 7}, {"points": "50"},
                {"points": True}, {"points": 99.0},
                {"points": float("nan")}, {"points": 10**400}, {"points": 1e999}, {"shown": 2.0},
                {"shown": -1.0}, {"detail": None}, {"settings": None}, {"settings": "x" * 3_000}, {"when": 5},
            )
        ),
    ]  # fmt: skip
    board = write(tmp_path / "b.jsonl", line(), *foreign, line("Ben", 60.0))
    assert board.table["name"].tolist() == ["Ben", "Ada"]
    assert board.ignored == len(foreign)
    assert f"{len(foreign)} lines are none of this challenge" in repr(board)
    assert "lines are none of this challenge" in board._repr_html_()
    assert "1 line is none" in repr(write(tmp_path / "c.jsonl", line(), "x"))


def test_names_are_cleaned_and_shown_as_text(tmp_path: Path) -> None:
    evil = "<img onerror=alert(1)>\u202e$x_1$\x1b[2J"
    board = write(tmp_path / "b.jsonl", line(evil, settings="<b>\u202e"), line("B" * 400, 40.0))
    assert board.table["name"].tolist() == ["<img onerror=alert(1)>$x_1$[2J", "B" * 40]
    page = board._repr_html_()
    assert "<img" not in page
    assert "<b>" not in page
    assert "&lt;img onerror" in page
    board.figure()._repr_png_()  # type: ignore[attr-defined]


def test_of_equal_points_the_one_who_came_first_is_first(tmp_path: Path) -> None:
    board = write(tmp_path / "b.jsonl", line("Ada"), line("Ben"), line("Cem", 60.0), line("Ada"))
    assert board.table[["place", "name", "tries"]].values.tolist() == [[1, "Cem", 1], [2, "Ada", 2], [2, "Ben", 1]]


def test_a_line_that_was_torn_costs_the_next_one_nothing(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(json.dumps(line()).encode() + b'\n{"challenge": "b')
    leaderboard.append(path, line("Ben", 60.0))
    board = Challenge(WORD).leaderboard(path)
    assert board.table["name"].tolist() == ["Ben", "Ada"]
    assert board.ignored == 1


def test_a_full_board_is_said_to_be_full_and_a_longer_one_is_read_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes((json.dumps(line()) + "\n").encode() + b" " * MOST_BYTES)
    with pytest.raises(ValueError, match=r"is full, with .* bytes: begin another leaderboard"):
        leaderboard.append(path, line())
    board = Challenge(WORD).leaderboard(path)
    assert board.table["name"].tolist() == ["Ada"]
    assert "longer than 2,000,000 bytes" in repr(board)


def test_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    for call in (leaderboard.append, lambda path, _line: Challenge(WORD).leaderboard(path)):
        with pytest.raises(IsADirectoryError, match="is a folder: name"):
            call(tmp_path, line())
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*: make it"):
        leaderboard.append(tmp_path / "no" / "b.jsonl", line())


WRITER = """
import sys
from avlab.lab import leaderboard
from avlab.measure.numbers.score import Score
score = Score(points=50.0, shown=1.0, detail=0.5, promptness=1.0, kilobytes=6.0, delay_ms=130.0)
for number in range(30):
    leaderboard.append(sys.argv[1], leaderboard.entry(sys.argv[3], f"{sys.argv[2]} {number}", score, {}))
"""


def test_lines_of_several_processes_are_all_whole(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    with ExitStack() as all_ended:
        writers = [
            all_ended.enter_context(tools.started(sys.executable, "-c", WRITER, path, name, Challenge(WORD).key))
            for name in "ABCD"
        ]
        said = [writer.communicate(timeout=tools.SECONDS)[1] for writer in writers]
    assert said == [""] * 4
    assert [writer.returncode for writer in writers] == [0] * 4
    board = Challenge(WORD).leaderboard(path)
    assert len(board.table) == 120
    assert board.ignored == 0


def test_who_never_stops_writing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(leaderboard, "WAIT_S", 0.05)
    path = tmp_path / "b.jsonl"
    with (
        FileLock(tmp_path / "b.jsonl.lock"),
        pytest.raises(TimeoutError, match=r"somebody has been writing to .* delete .*lock if nobody is"),
    ):
        leaderboard.append(path, line())
    leaderboard.append(path, line())
    assert len(Challenge(WORD).leaderboard(path).table) == 1


def test_a_drive_without_locks_has_a_file_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    class Lockless(filelock.SoftFileLock):
        def acquire(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    monkeypatch.setattr(filelock, "FileLock", Lockless)
    leaderboard.append(tmp_path / "b.jsonl", line())
    assert len(Challenge(WORD).leaderboard(tmp_path / "b.jsonl").table) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["b.jsonl"]


# ---- plots and sweeps


def test_the_plot_says_the_points_and_their_factors() -> None:
    figure = avlab.plots.score({"as it begins": score(25.0, detail=0.25), "mine": score()})
    assert "mine: 50.0 points = 100 \N{MULTIPLICATION SIGN} 1.00 \N{MULTIPLICATION SIGN} 0.50" in figure.get_suptitle()
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["shown", "detail", "promptness"]
    assert figure.axes[1].lines[1].get_xydata().tolist() == [[6.0, 0.25]]  # type: ignore[union-attr]
    assert "50.0 points" in avlab.plots.score(score()).described()  # type: ignore[attr-defined]


def test_a_challenge_is_swept(tmp_path: Path) -> None:
    grid = {"quality": [30, 80]}
    table = avlab.sweep(Challenge("a").run, grid, seeds=[1], to=tmp_path, measure=metrics.score, jobs=1)
    assert table["error"].isna().all()
    assert table["points"][0] > table["points"][1]
    assert {"shown", "detail", "promptness", "kilobytes", "delay_ms"} <= set(table)
    with pytest.raises(ValueError, match="was changed since"):
        avlab.sweep(Challenge("b").run, grid, seeds=[1], to=tmp_path, measure=metrics.score, jobs=1)
    with pytest.raises(TypeError, match="has no parameter 'qualty': did you mean 'quality'"):
        avlab.sweep(Challenge("a").run, {"qualty": [3]}, seeds=[1], to=tmp_path / "b", measure=metrics.score)
