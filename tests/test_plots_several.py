"""Plots of several runs laid over each other, and of a sweep's table: what they say, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import traces
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

import avlab
from avlab import plots
from avlab.measure.numbers import grids
from avlab.measure.record.join import join
from avlab.measure.record.trace import Recorder, Trace

DATA = Path(__file__).parents[1] / "data"

LAID = [plots.fps, plots.sync, plots.loss, plots.delay, plots.bitrate]


def run(loss: float = 0.0, **more: float) -> Trace:
    made = traces.run(seconds=3, loss=loss, **more)  # type: ignore[arg-type]
    return join(made.server, made.client)


@pytest.fixture(scope="module")
def runs() -> dict[str, Trace]:
    return {"calm": run(), "$lossy": run(loss=0.1, av_ms=-60.0)}


def title(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left").replace("\n", " ")


def words(figure: Figure) -> str:
    return " | ".join(text.get_text() for ax in figure.axes for text in ax.texts)


@pytest.mark.parametrize("plot", LAID)
def test_each_run_has_a_line_with_its_name(plot: Callable[..., Figure], runs: dict[str, Trace]) -> None:
    figure = plot(runs)
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]) == 2
    assert "calm: " in words(figure)
    assert r"\$lossy: " in words(figure)
    assert figure.axes[0].get_xlabel() == "time (s)"


def test_the_title_has_the_numbers_of_the_extremes(runs: dict[str, Trace]) -> None:
    three = runs | {"worse": run(loss=0.3)}
    most = avlab.metrics.summary(three["worse"]).frame_loss_percent
    assert most is not None
    assert title(plots.loss(three)) == f"Frames lost: none in calm, {most:.0f} % in worse"
    fps = {name: avlab.metrics.convergence(trace).mean_fps for name, trace in three.items()}
    assert (
        title(plots.fps(three)) == f"Frames a second on average: {fps['worse']:.2f} in worse, {fps['calm']:.2f} in calm"
    )
    assert "63 ms in \\$lossy" in title(plots.sync(three))
    assert "in all 2 runs" in title(plots.fps({"a": run(), "b": run()}))


@pytest.mark.parametrize("plot", [*LAID, plots.adaptation])
def test_what_is_no_run_is_refused_and_an_empty_one_said(plot: Callable[..., Figure]) -> None:
    for wrong in ({"a": 3}, 3, [run()], None):
        with pytest.raises(TypeError, match="draws a trace"):
            plot(wrong)
    empty = Recorder(side="client", epoch_ns=0, clock="x").trace()
    for given_ in ({}, {"nothing": empty}):
        assert title(plot(given_)).startswith("No ")
    plot({"nothing": empty, "one": run()})


def test_what_several_runs_adapted_to_is_drawn_with_their_one_bottleneck() -> None:
    network = avlab.Network(rate=3000, delay=0.02)
    made = {
        "fixed": avlab.simulate(30, seconds=4, network=network),
        "aimd": avlab.simulate(30, seconds=4, network=network, rate_control="aimd"),
    }
    assert "bottleneck" in words(plots.adaptation(made))
    assert "fixed: 80 at the end" in words(plots.adaptation(made))
    other = made | {"wide": avlab.simulate(30, seconds=1, network=avlab.Network(rate=9000))}
    assert "bottleneck" not in words(plots.adaptation(other))


def test_more_runs_than_colours_differ_in_their_lines() -> None:
    one = run()
    lines = plots.bitrate({str(number): one for number in range(9)}).axes[0].lines
    looks = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert len(set(looks)) == 9


# ---- of a sweep's table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    def point(loss: float, delay: float, rule: str, seed: int) -> dict[str, float]:
        if loss == 0.5:
            raise ValueError("too much")
        return {"shown": 100 * (1 - loss) + 50 * delay + (rule == "b") + 0.1 * seed, "late": 10 - 40 * delay}

    grid = {"loss": [0.2, 0.0, 0.5], "delay": [0.1, 0.2], "rule": ["b", "a"]}
    return avlab.sweep(point, grid, seeds=[0, 1], to=tmp_path_factory.mktemp("sweep"), jobs=1)


def test_a_heat_map_has_the_means_over_seeds_in_order(table: pd.DataFrame) -> None:
    figure = plots.heatmap(table, "loss", "delay", "shown")
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "0.2", "0.5"]
    assert np.asarray(ax.images[0].get_array().filled(np.nan))[:, :2] == pytest.approx(
        np.array([[105.55, 85.55], [110.55, 90.55]])
    )
    assert title(figure) == "shown: most, 111, at loss 0, delay 0.2; least, 85.5, at loss 0.2, delay 0.1"
    assert len([line for line in ax.lines if line.get_marker() == "x"]) == 2  # every run there failed
    assert [tick.get_text() for tick in plots.heatmap(table, "rule", "loss", "late").axes[0].get_xticklabels()] == [
        "b",
        "a",
    ]


def test_a_front_names_the_points_that_none_beats(table: pd.DataFrame) -> None:
    figure = plots.pareto(table, "late", "shown", more=["shown"])
    assert title(figure) == "1 of 8 points is beaten by no other in late and shown"
    assert "loss 0, delay 0.2, rule b" in words(figure)


def test_what_is_not_in_the_table_is_said(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no column 'fps': it has loss, delay, rule, shown, late"):
        plots.heatmap(table, "loss", "delay", "fps")
    with pytest.raises(ValueError, match="more names 'late' or 'shown'"):
        plots.pareto(table, "late", "shown", more=["fps"])
    with pytest.raises(TypeError, match=r"the table that avlab.sweep returns"):
        plots.pareto({"late": 1}, "late", "shown")
    failed = table[table["error"].notna()]
    assert title(plots.heatmap(failed, "loss", "delay", "shown")) == "No shown was measured"
    assert title(plots.pareto(failed, "late", "shown")) == "No point has both numbers"


def test_a_table_that_was_saved_has_its_parameters_before_the_seed(table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "table.csv", index=False)
    assert grids.parameters(pd.read_csv(tmp_path / "table.csv")) == ["loss", "delay", "rule"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40), st.booleans(), st.booleans())
def test_a_front_is_of_those_that_none_beats(points: list[tuple[int, int]], more_x: bool, more_y: bool) -> None:
    found = grids.front([x for x, _ in points], [y for _, y in points], more_x=more_x, more_y=more_y)
    signed = [(-x if more_x else x, -y if more_y else y) for x, y in points]
    for one, is_first in zip(signed, found, strict=True):
        beaten = any(o[0] <= one[0] and o[1] <= one[1] and o != one for o in signed)
        assert bool(is_first) is not beaten


def test_long_names_leave_room_for_the_plot() -> None:
    long = "a name that tells everything of what a student has tried here"
    for draw in (avlab.plots.loss, avlab.plots.fps, avlab.plots.adaptation):
        figure = draw(
            {long: avlab.simulate(30, seconds=3, network=avlab.Network(loss=0.1)), "b": avlab.simulate(30, seconds=3)}
        )
        figure.canvas.draw()
        for ax in figure.axes:
            assert ax.get_window_extent().width > 0.5 * figure.bbox.width


def test_no_value_is_said_to_be_none_and_a_long_title_is_in_two_lines() -> None:
    rows = [(repair, delay, 10.0 * delay) for repair in (None, "rtx") for delay in (1, 2)]
    figure = plots.heatmap(
        pd.DataFrame(rows, columns=["repair", "delay_before_a_picture", "v"]), "repair", "delay_before_a_picture", "v"
    )
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["None", "rtx"]
    assert figure.axes[0].get_title(loc="left").count("\n") == 1


def test_names_of_a_front_do_not_cover_each_other() -> None:
    rows = [(f"a long name {n}", 0, 100.0 + 0.7 * n, 0.9 + 0.001 * n) for n in range(8)]
    figure = plots.pareto(
        pd.DataFrame(rows, columns=["rule", "seed", "delay", "shown"]), "delay", "shown", more=["shown"]
    )
    figure.canvas.draw()
    places = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert len(places) > 2
    assert not any(one.overlaps(other) for at, one in enumerate(places) for other in places[:at])
    assert "a long name 0" in words(figure)
    assert "a long name 7" in words(figure)


# ---- a clip whose rate varies


def changing(**settings: float) -> Trace:
    """Three seconds at 30 fps and three at 60."""
    return avlab.simulate([*np.arange(0, 3, 1 / 30), *np.arange(3, 6, 1 / 60)], seconds=6, work=0.00005, **settings)  # type: ignore[arg-type]


def bands(figure: Figure) -> list[tuple[float, float]]:
    """How far each filled band reaches up and down."""
    filled = [each for each in figure.axes[0].collections if isinstance(each, PolyCollection)]
    edges = [path.vertices[:, 1] for each in filled for path in each.get_paths()]  # type: ignore[index]
    return [(float(edge.min()), float(edge.max())) for edge in edges]


def test_the_target_of_a_rate_that_varies_is_its_timestamps() -> None:
    figure = plots.fps(changing())
    assert "target what its timestamps ask for, ±2 %" in words(figure)
    assert "target 30 fps" not in words(figure)
    [(low, high)] = bands(figure)
    assert low == pytest.approx(0.98 * 30, rel=0.03)
    assert high == pytest.approx(1.02 * 60, rel=0.03)
    late = plots.fps(changing(pacer="tutorial"))  # type: ignore[arg-type]
    assert title(late).endswith("never settled within 2 % of what its timestamps ask for")


def test_several_runs_of_such_a_clip_have_its_timestamps_for_a_target_and_of_several_clips_none() -> None:
    same = plots.fps({"a": changing(), "b": changing(playout_delay=0.3)})
    assert "target: what the timestamps ask for" in words(same)
    assert len(bands(same)) == 1
    other = avlab.simulate(DATA / "count-vfr.mp4", seconds=4, audio=False)
    mixed = plots.fps({"a": changing(), "b": other})
    assert "target" not in words(mixed)
    assert not bands(mixed)


@pytest.mark.parametrize("gap", [1e-5, 1e-3])
def test_two_frames_that_come_at_once_do_not_flatten_several_rates(gap: float) -> None:
    """Such as those of captures, whose nominal rates differ a little."""
    burst = avlab.simulate([0.0, gap, *np.arange(1 / 25, 4, 1 / 25)], seconds=4, work=1e-6)
    even = avlab.simulate(np.arange(0, 4, 1 / 30).tolist(), seconds=4, work=1e-6)
    figure = plots.fps({"burst": burst, "even": even})
    assert figure.axes[0].get_ylim()[1] < 100
