"""The benchmark beside peers: numbers survive codecs, the figures are right, a run ends all it starts."""

from __future__ import annotations

import socket
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
from benchmarks.peers.pairs import HEAD, KINDS, Kind, Line, rows_of
from benchmarks.peers.pictures import reel
from benchmarks.peers.rounds import LARGE, RECEIVERS, SMALL
from benchmarks.peers.run import PeerError, Seen, folder, free_ports, measure, write_reel
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
        desk.decoded(image, depth)
        assert board.sent == number + 1
    seen = board.pictures(0)
    assert [number for number, _ in seen] == list(range(40))
    assert all(0 < board.handed_ns(number) <= decoded_ns for number, decoded_ns in seen)


@pytest.mark.parametrize(("size", "least"), [(SMALL, 45_000), (LARGE, 130_000)])
def test_pictures_are_as_heavy_as_a_films_and_the_same_each_time(size: tuple[int, int], least: int) -> None:
    pictures = list(reel(*size))
    lengths = [len(simplejpeg.encode_jpeg(image, 80, "BGR", "420")) for image in pictures]
    assert min(lengths) >= least
    assert max(lengths) <= 1.1 * least
    assert len({image.tobytes() for image in pictures}) == len(pictures)
    assert all(np.array_equal(one, other) for one, other in zip(pictures, reel(*size), strict=True))


@pytest.mark.parametrize("own", [False, True])
def test_a_receiver_has_a_copy_of_its_own_before_the_picture_counts(tmp_path: Path, own: bool) -> None:
    job = Job(width=640, height=360, folder=str(tmp_path), port=0)
    write_reel(job)
    Board(tmp_path, create=True)
    desk = Desk(job)
    image = picture(640, 360, 7)
    desk.decoded(image, own=own)
    assert [number for number, _ in desk.board.pictures(0)] == [7]
    assert (bytes(desk._own) == image.tobytes()) is not own


def test_receivers_write_apart_and_a_sender_waits_for_all(tmp_path: Path) -> None:
    board = Board(tmp_path, receivers=3, create=True)
    for receiver in (0, 2):
        board.ready(receiver)
        board.seen(receiver, 10 + receiver, 99)
    with pytest.raises(TimeoutError):
        board.wait_receivers(0.05)
    board.ready(1)
    board.wait_receivers()
    with pytest.raises(TimeoutError):
        board.wait_sender(0.05)
    board.ready()
    board.wait_sender()
    assert [board.pictures(receiver) for receiver in range(3)] == [[(10, 99)], [], [(12, 99)]]


def test_a_sender_tells_of_its_offload_when_all_is_measured(tmp_path: Path) -> None:
    board, sender = Board(tmp_path, create=True), Board(tmp_path)
    assert board.offload is None
    sender.tell_offload("")
    assert board.offload == ""
    board.begin(1234)
    board.finish()
    assert sender.wait_measured() == 1234
    sender.tell_offload("on")
    assert board.offload == "on"


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


def test_ratios_are_of_one_turn_and_their_median_is_of_the_turns() -> None:
    """Runs that all slow down together keep their ratio; a turn in which one fell over is left out."""

    def run(fps: float, offload: str = "") -> Seen:
        return Seen(1.0, (rows(*np.arange(0, 1000, 1000 / fps)),), 50, 0.1, 0.1, 0.0, offload)

    turns = [{"avlab": run(40 * slow, "on"), "codecs": run(50 * slow)} for slow in (1, 2, 4)]
    turns += [{"avlab": run(50, "off"), "codecs": run(50)}, {"codecs": run(50)}]
    kind = Kind(SMALL, (Line("fps", lambda seen: seen.fps, "codecs", ("0.9 at least", "")),))
    (only,) = rows_of(kind, turns)
    assert only.count("|") == HEAD[0].count("|") == HEAD[1].count("|")
    assert only.split(" | ")[1:] == [
        "avlab", "65", "codecs alone", "75", "0.80 (0.80 to 1.00)", "0.9 at least", "on or off |",
    ]  # fmt: skip


def test_pairs_are_run_flat_out_at_both_sizes_at_30_fps_and_to_a_class() -> None:
    assert [(kind.size, kind.fps, kind.receivers) for kind in KINDS] == [
        (LARGE, 0, 1),
        (SMALL, 0, 1),
        (SMALL, 30, 1),
        (SMALL, 30, RECEIVERS),
    ]
    assert all("imagezmq-pub" in kind.systems and "avlab" in kind.systems for kind in KINDS)


def systems() -> list[Figures]:
    ours = Figures(label="avlab", kind="avlab", large_fps=200.4, rate_ppm=3.2, pacing_ms=0.081, own_pacing=True,
                   one_cpu=0.05, all_cpu=0.085, all_latency_p99_ms=99.5, all_delivered=1.0)  # fmt: skip
    theirs = Figures(label="other", large_fps="it fell over", small_fps="it fell over", pacing_ms=0.5)
    return [ours, theirs]


def test_the_table_names_each_figure_or_its_reason() -> None:
    head, rule, ours, theirs, *notes = markdown(systems()).splitlines()
    assert head.count("|") == rule.count("|") == ours.count("|") == theirs.count("|") == len(COLUMNS) + 2
    assert ours.split(" | ")[3:] == ["200", "-", "-", "-", "0.08", "+3", "8.5%", "+3.5%", "-", "99.5", "100.0% |"]
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
    before = set(psutil.Process().children())  # of tests before it, as joblib's workers are
    job = Job(width=640, height=360, folder=str(tmp_path), port=1, option="nothing")
    with pytest.raises(PeerError, match="No module named"):
        measure("with_nothing", job, seconds=0.1)
    assert not set(psutil.Process().children()) - before


def test_two_runs_at_once_have_ports_of_their_own() -> None:
    """Before either uses any; with the same, one would read the other's pictures."""
    with free_ports() as one, free_ports() as other:
        assert abs(one - other) >= 99
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as mine:
                mine.bind(("127.0.0.1", one))


@pytest.mark.slow
def test_every_receiver_is_a_process_and_all_are_counted() -> None:
    before = set(psutil.Process().children())
    with folder() as name, free_ports() as port:
        job = Job(width=416, height=80, folder=name, port=port, fps=20, receivers=3)
        seen = measure("with_avlab", job, seconds=1.0, warm=0.0)
    assert all(len(own) > 3 for own in seen.pictures)
    assert seen.sender_cpu > 0
    assert seen.receiver_cpu > 0
    assert seen.offload == ("on" if sys.platform == "linux" else "off")
    assert seen.p99_ms >= seen.p50_ms > 0
    assert not set(psutil.Process().children()) - before


@pytest.mark.slow
def test_a_quick_run_prints_the_codecs_and_avlab() -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--systems", "codecs", "avlab"]
    ran = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    ours = next(line for line in ran.stdout.splitlines() if line.startswith("| avlab"))
    assert "(" not in ours, ran.stdout  # a figure for all
    assert ours.split(" | ")[1:3] != ["-", "-"]
    assert "flat_out " in ran.stderr
