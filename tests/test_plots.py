"""Plots: each draws what the metrics say, says in words when there is nothing to draw, and never touches pyplot."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
import traces
from matplotlib.figure import Figure

from avlab.lab.plots import runs as plots
from avlab.lab.plots.drawing import Plot
from avlab.measure.numbers import metrics
from avlab.measure.record.join import join
from avlab.measure.record.trace import FrameRow, Recorder, Trace
from avlab.network.settings import Network
from avlab.stream.simulate import simulate
from avlab.timing.pacing import TutorialPacer

PLOTS: list[Callable[..., Figure]] = [
    plots.fps,
    plots.interval_error,
    plots.sync,
    plots.loss,
    plots.bitrate,
    plots.delay,
]


def joined(**case: Any) -> Trace:
    made = traces.run(**case)
    return join(made.server, made.client)


def title(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left")


def words(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.axes[0].texts)


def test_the_module_and_its_figures_do_without_pyplot() -> None:
    code = (
        "import sys, avlab.lab.plots.drawing as p; p.plot().savefig(sys.argv[1]); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    tools.run(sys.executable, "-c", code, "/dev/null")


@pytest.mark.parametrize("plot", [*PLOTS, plots.page])
def test_a_figure_shows_itself_in_a_notebook(plot: Callable[..., Figure]) -> None:
    figure = plot(joined(seconds=1, loss=0.1))
    assert isinstance(figure, Plot)
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("plot", PLOTS)
def test_of_nothing_a_figure_says_what_is_missing(plot: Callable[..., Figure]) -> None:
    figure = plot(traces.empty())
    assert title(figure).startswith("No ")
    assert "need" in words(figure)
    assert not figure.axes[0].lines
    figure.draw_without_rendering()


@pytest.mark.parametrize("plot", PLOTS)
def test_axes_name_their_units_and_text_can_be_read_across_a_room(plot: Callable[..., Figure]) -> None:
    figure = plot(joined(seconds=1))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert ax.get_xlabel() == "time (s)"
    assert any(unit in ax.get_ylabel() for unit in ("a second", "(ms)", "(%)", "(kbit/s)"))
    texts = [ax.xaxis.label, ax.yaxis.label, *ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels()]
    assert min(text.get_fontsize() for text in texts) >= 13
    assert tuple(figure.get_size_inches()) == (10, 5.6)


@pytest.mark.parametrize("plot", PLOTS)
def test_it_draws_where_it_is_told_to(plot: Callable[..., Figure]) -> None:
    ours = Figure()
    ax = ours.subplots(1, 2)[1]
    assert plot(joined(seconds=1), ax=ax) is ours
    assert ax.get_title(loc="left")
    inner = ours.subfigures(1, 2)[0].add_subplot()
    assert plot(traces.empty(), ax=inner) is ours


def test_fps_shows_the_rate_its_band_and_when_it_settled() -> None:
    trace = joined(seconds=3)
    figure = plots.fps(trace)
    line = figure.axes[0].lines[0]
    assert np.array_equal(line.get_ydata(), metrics.fps(trace)["fps"], equal_nan=True)
    assert title(figure) == "30.00 fps on average, settled within 2 % after 0.03 s"
    assert words(figure) == "target 30 fps, ±2 % | settled after 0.03 s"
    low, high = figure.axes[0].get_ylim()
    assert low < 29.4 < 30.6 < high
    assert "never settled within 2 % of 30" in title(plots.fps(joined(seconds=3, loss=0.1)))


def test_interval_error_and_delay_say_how_good_it_was() -> None:
    trace = joined(seconds=3)
    found = metrics.spread(metrics.interval_error(trace)["error_ms"])
    assert f"within {found.median_ms:.2g} ms" in title(plots.interval_error(trace))
    assert title(plots.delay(trace)) == "Half of the packets arrive within 1.5 ms, 95 % within 2 ms"
    assert (
        words(plots.delay(joined(seconds=1, clock_offset_ns=5))) == "nothing tells how far both sides' clocks are apart"
    )


@pytest.mark.parametrize("av_ms", [0, 70, -400])
def test_sync_has_both_bands_in_view(av_ms: float) -> None:
    figure = plots.sync(joined(seconds=2, av_ms=av_ms))
    low, high = figure.axes[0].get_ylim()
    assert low < min(-185, av_ms)
    assert high > max(90, av_ms)
    assert words(figure) == "not noticed (+45 to −125 ms) | noticed but accepted (+90 to −185 ms)"


@pytest.mark.parametrize("av_ms", [0, 7.25, 123.4, -1234.5])
def test_the_title_of_sync_fits(av_ms: float) -> None:
    figure = plots.sync(joined(seconds=2, av_ms=av_ms))
    figure.canvas.draw()
    written = next(each for each in figure.axes[0].get_children() if getattr(each, "get_text", str)() == title(figure))
    assert written.get_window_extent().x1 <= figure.bbox.x1


def test_loss_tells_packets_from_frames() -> None:
    trace = joined(seconds=4, loss=0.1)
    found = metrics.summary(trace)
    assert found.packet_loss_percent == pytest.approx(10, abs=4)
    assert title(plots.loss(trace)).endswith(" % of the frames")
    assert words(plots.loss(trace)) == "frames lost or incomplete | packets lost"
    assert title(plots.loss(joined(seconds=2))) == "Nothing was lost"


def test_a_page_has_four_plots() -> None:
    figure = plots.page(joined(seconds=2))
    assert len(figure.axes) == 4
    assert all(ax.get_title(loc="left") for ax in figure.axes)
    assert len(plots.page(traces.empty()).axes) == 4


def test_a_page_of_chosen_plots_leaves_no_empty_axes() -> None:
    figure = plots.page(joined(seconds=3), kinds=("fps", "bitrate", "sync"))
    assert [ax.axison for ax in figure.axes] == [True, True, True, False]
    with pytest.raises(ValueError, match=r"kinds must be of fps, .*not 'colour'"):
        plots.page(joined(seconds=2), kinds=("fps", "colour"))


def test_bitrate_counts_whole_seconds_of_packets() -> None:
    figure = plots.bitrate(joined(seconds=5))
    assert title(figure).endswith("kbit/s in half of the seconds, or less")
    assert words(figure) == "video | sound"


@pytest.mark.parametrize(("audio", "named"), [(True, "video | sound"), (False, "video")])
def test_bitrate_has_no_line_for_what_a_run_has_not(data: Path, audio: bool, named: str) -> None:
    trace = simulate(data / "count.mp4", seconds=3, network=Network(), audio=audio)
    assert words(plots.bitrate(trace)) == named


def labels(figure: Figure, row: int) -> list[str]:
    """The names beside the lines, from the top one down."""
    found = [text for text in figure.axes[row].texts if text.get_position()[0] > 1]
    return [text.get_text() for text in sorted(found, key=lambda text: -text.get_position()[1])]


def test_pacing_rules_are_laid_over_each_other() -> None:
    runs = {name: simulate(30.0, pacer=name, seconds=8, work=0.0041) for name in ("deadline", "tutorial", "pi")}
    figure = plots.pacers(runs)
    assert isinstance(figure, Plot)
    assert figure._repr_png_().startswith(b"\x89PNG")
    above, below = figure.axes
    for lines, compute, column in ((above.lines[1:], metrics.fps, "fps"), (below.lines[1:], metrics.drift, "drift_ms")):
        assert len(lines) == len(runs)
        assert len({str(line.get_color()) for line in lines}) == len(runs)
        for line, trace in zip(lines, runs.values(), strict=True):
            assert np.array_equal(line.get_ydata(), compute(trace, at="sent")[column], equal_nan=True)
    assert title(figure).startswith("deadline slides by 0 ms a minute, tutorial by ")
    assert "target 30 fps, ±2 %" in words(figure)
    assert sorted(text.split(":")[0] for text in labels(figure, 0)) == sorted(runs)
    assert any("settles in" in text for text in labels(figure, 0))
    assert all(text.endswith(" a minute") for text in labels(figure, 1))
    low, high = above.get_ylim()
    assert low < 29.4 < 30.6 < high < 40
    texts = [text for ax in figure.axes for text in (*ax.texts, ax.yaxis.label, *ax.get_yticklabels())]
    assert all(float(text.get_fontsize()) >= 13 for text in texts)


def test_a_rules_place_is_named_even_where_many_end_together() -> None:
    runs = {f"rule {number}": simulate(30.0, seconds=2, seed=number) for number in range(8)}
    figure = plots.pacers(runs)
    for ax in figure.axes:
        heights = sorted(text.get_position()[1] for text in ax.texts if text.get_position()[0] > 1)
        assert len(heights) == 8
        assert min(np.diff(heights)) > 0.07
        assert heights[-1] <= 1


def test_rules_that_sent_nothing_are_left_out_and_those_that_stop_are_said_to() -> None:
    runs = {"deadline": simulate(30.0, seconds=2, work=0), "nothing": traces.empty("server")}
    figure = plots.pacers(runs)
    assert labels(figure, 1) == ["deadline: 0 ms a minute"]
    assert title(figure).startswith("How the rate comes to its target")
    stalled = simulate(30.0, pacer=TutorialPacer(stall="real"), seconds=10, work=0.04)
    figure = plots.pacers({"deadline": simulate(30.0, seconds=10), "tutorial": stalled})
    assert "tutorial: stops at 0.82 s" in labels(figure, 1)
    for empty in ({}, {"nothing": traces.empty("server")}):
        figure = plots.pacers(empty)
        assert title(figure) == "No rules to compare"
        assert words(figure) == "it needs traces of frames that were sent"


def test_figures_may_be_made_on_any_thread() -> None:
    trace, made = joined(seconds=1), []
    threads = [threading.Thread(target=lambda: made.append(plots.fps(trace)._repr_png_())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(made)) == 1
    assert len(made) == 4


def test_the_titles_numbers_are_the_ledgers() -> None:
    record = Recorder(side="simulation", epoch_ns=0, clock="virtual")
    for index in range(200):
        fate = "lost" if index % 4 == 0 else "used"
        came = None if fate == "lost" else index * 10_000_000 + 5
        record.packet("video", 1, index, index, True, 100, index * 10_000_000, came, fate)
    for index in range(100):
        fate = "incomplete" if index % 2 else "shown"
        record.frame(FrameRow("video", index, index, sent_ns=index * 20_000_000, shown_ns=index, fate=fate))
    assert title(plots.loss(record.trace())) == "25 % of the packets lost, and with them 50 % of the frames"


def test_what_a_trace_says_is_drawn_as_it_is() -> None:
    record = Recorder(side="server", epoch_ns=0, clock="one")
    for index in range(3):
        record.frame(FrameRow("video", index, sent_ns=index, bytes=100))
    record.setting(1, "quality", "$\\frac{$ \x1b[2J")
    figure = plots.frame_bytes(record.trace())
    figure.canvas.draw()
    assert words(figure) == "quality \\$\\frac{\\$ \\x1b[2J"


# ---- in a script

WINDOWS = """
from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg


class FigureManager(FigureManagerBase):
    @classmethod
    def pyplot_show(cls, *, block=None):
        for manager in Gcf.get_all_fig_managers():
            print("shown:", manager.canvas.figure.axes[0].get_title(loc="left") or "untitled")
        Gcf.destroy_all()


class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager
"""
"""A toolkit of windows that says what it shows."""

SCRIPT = """
import sys, threading
import matplotlib.pyplot as plt
import avlab, traces
from avlab.measure.record.join import join
made = traces.run(seconds=2)
trace = join(made.server, made.client)
"""


def said_by_script(tmp_path: Path, script: str, backend: str = "module://windows") -> list[str]:
    (tmp_path / "windows.py").write_text(WINDOWS)
    paths = os.pathsep.join([str(tmp_path), os.path.dirname(__file__)])
    env = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", SCRIPT + script],
        env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_script_shows_its_figures_once(tmp_path: Path) -> None:
    said = said_by_script(tmp_path, "avlab.plots.fps(trace); avlab.plots.page(trace)\nplt.show(); plt.show()")
    assert len(said) == 2
    assert all("fps on average" in line for line in said)


def test_a_script_draws_on_in_its_own_figure_and_none_is_left_from_threads(tmp_path: Path) -> None:
    said = said_by_script(
        tmp_path,
        "plt.figure(); mine = plt.gcf()\n"
        "avlab.plots.sync(trace)\n"
        "assert plt.gcf() is mine\n"
        "thread = threading.Thread(target=avlab.plots.fps, args=[trace]); thread.start(); thread.join()\n"
        "print(len(plt.get_fignums()))",
    )
    assert said == ["2"]


def test_many_figures_that_are_never_shown_are_let_go(tmp_path: Path) -> None:
    said = said_by_script(
        tmp_path,
        "for _ in range(30): avlab.plots.fps(trace).savefig('/dev/null', format='png', dpi=10)\n"
        "print(len(plt.get_fignums()) < 20)",
    )
    assert said == ["True"]


@pytest.mark.parametrize("backend", ["agg", "svg"])
def test_pyplot_without_windows_is_left_alone(tmp_path: Path, backend: str) -> None:
    assert said_by_script(tmp_path, "avlab.plots.fps(trace); print(plt.get_fignums())", backend) == ["[]"]


def test_a_toolkit_that_cannot_open_windows_costs_no_figure(tmp_path: Path) -> None:
    said = said_by_script(tmp_path, "print(type(avlab.plots.fps(trace)).__name__)", "module://nowhere.at.all")
    assert said == ["Plot"]


def test_the_title_of_sync_says_which_is_early() -> None:
    assert "sound typically 40 ms early" in title(plots.sync(joined(seconds=3, av_ms=40)))
    assert "sound typically 40 ms late" in title(plots.sync(joined(seconds=3, av_ms=-40)))
