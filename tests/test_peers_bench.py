"""The benchmark beside peers: numbers survive codecs, the figures are right, a run ends all it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import simplejpeg

from benchmarks.peers import painted
from benchmarks.peers.job import Board, Desk, Job
from benchmarks.peers.run import PeerError, Seen, measure, write_reel
from benchmarks.peers.table import COLUMNS, Figures, markdown, plot

SIZES = [(640, 360), (1280, 720), (416, 80)]
NUMBERS = [0, 1, 2, 255, 256, 21_845, 43_690, 65_535]


def picture(width: int, height: int, number: int) -> np.ndarray:
    noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    painted.paint(memoryview(noise).cast("B"), width, height, 3, number)
    return noise


def number_of(image: np.ndarray) -> int | None:
    height, width = image.shape[:2]
    depth = 1 if image.ndim == 2 else 3
    return painted.read(memoryview(np.ascontiguousarray(image)).cast("B"), width, height, depth)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quality", [80, 30])
def test_a_number_survives_jpeg(size: tuple[int, int], quality: int) -> None:
    for number in NUMBERS:
        jpeg = simplejpeg.encode_jpeg(picture(*size, number), quality, "BGR", "420")
        assert number_of(simplejpeg.decode_jpeg(jpeg, "BGR")) == number


def test_a_number_survives_a_blur_and_studio_range() -> None:
    for number in NUMBERS:
        image = cv2.GaussianBlur(picture(640, 360, number), (0, 0), 3)
        assert number_of(image) == number
        luminance = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)[:360]
        assert number_of(luminance) == number


def test_a_picture_that_is_not_whole_has_no_number() -> None:
    image = picture(640, 360, 1234)
    assert number_of(np.full_like(image, 128)) is None
    image[200:] = 128  # the lower half did not come
    assert number_of(image) is None
    image[200:] = picture(640, 360, 1235)[200:]  # or is another's
    assert number_of(image) is None


def test_a_picture_needs_room_for_its_number() -> None:
    painted.check_size(416, 80)
    for size in ((415, 80), (416, 79)):
        with pytest.raises(ValueError, match="needs 416x80 pixels"):
            painted.check_size(*size)


@pytest.mark.parametrize("depth", [3, 1])
def test_pictures_are_numbered_and_handed_over(tmp_path: Path, depth: int) -> None:
    job = Job(width=640, height=360, folder=str(tmp_path), port=0, depth=depth)
    write_reel(job)
    board = Board(tmp_path, create=True)
    desk = Desk(job)
    for number, image in zip(range(40), desk.pictures(), strict=False):
        assert len(image) == job.picture_bytes
        desk.decoded(0, image, depth)
        assert board.sent == number + 1
    seen = board.pictures(0)
    assert [number for number, _ in seen] == list(range(40))
    assert all(0 < board.handed_ns(number) <= decoded_ns for number, decoded_ns in seen)


def rows(*moments_ms: float, first: int = 5) -> np.ndarray:
    """Pictures decoded at these moments, each handed over 2 ms before."""
    return np.array(
        [(first + i, round((ms - 2) * 1e6), round(ms * 1e6)) for i, ms in enumerate(moments_ms)], np.int64
    ).reshape(-1, 3)


def test_figures_are_folded_from_what_was_seen() -> None:
    even, fewer = rows(*np.arange(0, 1000, 20.0)), rows(*np.arange(0, 500, 20.0))
    seen = Seen(1.0, (even, fewer), 50, 0.3, 0.45)
    assert seen.fps == 25  # of the slowest
    assert seen.delivered == pytest.approx(0.75)
    assert seen.cpu_ms == pytest.approx(10.0)
    assert np.median(seen.latency_ms) == pytest.approx(2.0)
    assert seen.pacing(50.0) == pytest.approx((0, 0, 0), abs=1e-6)


def test_pacing_has_its_gaps_and_its_rate() -> None:
    slow = Seen(1.0, (rows(*np.arange(0, 1010, 20.02)),), 50, 0, 0)
    assert slow.pacing(50.0) == pytest.approx((0.02, 0.02, -999), abs=0.01)
    lossy = rows(*np.arange(0, 1000, 20.0))[::2]  # every other picture is lost: the others were still on time
    assert Seen(1.0, (lossy,), 50, 0, 0).pacing(50.0) == pytest.approx((0, 0, 0), abs=1e-6)
    assert np.isnan(Seen(1.0, (rows(0, 20),), 2, 0, 0).pacing(50.0)).all()


def systems() -> list[Figures]:
    ours = Figures(label="avlab", kind="avlab", large_fps=200.4, rate_ppm=3.2, pacing_ms=0.081, own_pacing=True,
                   one_cpu=0.05, all_cpu=0.085, all_delivered=1.0)  # fmt: skip
    theirs = Figures(label="other", large_fps="it fell over", small_fps="it fell over", pacing_ms=0.5)
    return [ours, theirs]


def test_the_table_names_each_figure_or_its_reason() -> None:
    head, rule, ours, theirs, *notes = markdown(systems()).splitlines()
    assert head.count("|") == rule.count("|") == ours.count("|") == theirs.count("|") == len(COLUMNS) + 2
    assert ours.split(" | ")[3:] == ["200", "-", "-", "-", "0.08", "+3", "8.5%", "+3.5%", "100.0% |"]
    assert theirs.split(" | ")[:4] == ["| other", "(1)", "-", "(1)"]
    assert "0.50 *" in theirs
    assert [note for note in notes if note] == [
        "* has no pacing of its own: its source sleeps until each picture is due.",
        "(1) it fell over",
    ]


def test_the_plot_is_drawn_with_figures_missing(tmp_path: Path) -> None:
    plot(systems(), tmp_path / "peers.png")
    drawn = cv2.imread(str(tmp_path / "peers.png"))
    assert drawn is not None
    assert drawn.shape == (900, 1600, 3)


def test_a_system_that_fails_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    job = Job(width=640, height=360, folder=str(tmp_path), port=1, option="nothing")
    with pytest.raises(PeerError, match="No module named"):
        measure("with_nothing", job, seconds=0.1)
    assert not psutil.Process().children()


@pytest.mark.slow
def test_a_quick_run_prints_the_codecs_and_avlab() -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--systems", "codecs", "avlab"]
    ran = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    ours = next(line for line in ran.stdout.splitlines() if line.startswith("| avlab"))
    assert "(" not in ours, ran.stdout  # a figure for all
    assert ours.split(" | ")[1:3] != ["-", "-"]
    assert "flat_out " in ran.stderr
